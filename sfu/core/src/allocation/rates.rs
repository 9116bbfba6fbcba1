//! What the layers of a publication cost, as they arrive.

use std::time::{Duration, Instant};

use weir_units::media::MAX_ENCODINGS;

/// Temporal layers that are told apart; RTP payload descriptors number up to eight, encoders use three.
pub(super) const MAX_TEMPORAL: usize = 4;
/// Bits a second up to each temporal layer.
pub(crate) type Costs = [u64; MAX_TEMPORAL];
/// How long is counted before a rate follows.
const WINDOW: Duration = Duration::from_millis(500);
/// A window is one of so many that make the rate, when it is more and when it is less.
const RISE: u64 = 6;
const FALL: u64 = 10;
/// So many windows with others of its stream, and none of it, are a spatial layer that is no longer sent: two seconds. Less
/// would flap with an encoder's rate control; more lets others wait for what nobody uses.
const SILENT: u8 = 4;
/// What a packet has around its payload on the way to a subscriber, in bytes: headers, their extensions, the tag, UDP and
/// IP.
const AROUND: u32 = 64;

/// Bits a second of each spatial and temporal layer, of itself without those below.
///
/// What a layer costs over seconds: a key frame is several times its neighbours, and one in four seconds must not make its
/// layer look half as dear again. A fall is followed more slowly than a rise.
#[derive(Clone, Debug)]
pub(crate) struct LayerRates {
    cells: [[Cell; MAX_TEMPORAL]; MAX_ENCODINGS],
    /// How many windows in a row had others, but none of the spatial layer.
    silent: [u8; MAX_ENCODINGS],
    began: Instant,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    bytes: u32,
    bps: u32,
    /// How many were counted; the first few weigh alike.
    windows: u8,
}

impl LayerRates {
    pub fn new(now: Instant) -> Self {
        Self { cells: Default::default(), silent: [0; MAX_ENCODINGS], began: now }
    }

    /// A packet came with so much payload. Layers beyond those that are told apart count as the highest.
    #[inline]
    pub fn add(&mut self, now: Instant, spatial: u8, temporal: u8, payload: usize) {
        if now.saturating_duration_since(self.began) >= WINDOW {
            self.close(now);
        }
        let spatial = usize::from(spatial).min(MAX_ENCODINGS - 1);
        self.silent[spatial] = 0;
        let cell = &mut self.cells[spatial][usize::from(temporal).min(MAX_TEMPORAL - 1)];
        cell.bytes = cell.bytes.saturating_add(payload as u32 + AROUND);
    }

    /// Bits a second of one layer without those below. What has not been counted for long enough yet is guessed from what
    /// came.
    pub fn of(&self, now: Instant, spatial: usize, temporal: usize) -> u64 {
        self.cells.get(spatial).and_then(|row| row.get(temporal)).map_or(0, |cell| self.rate(now, cell))
    }

    /// Every spatial layer, with its bits a second up to each of its temporal layers, without other spatial layers.
    pub fn pictures(&self, now: Instant) -> impl Iterator<Item = (u8, Costs)> {
        self.cells.iter().zip(0..).map(move |(row, spatial)| {
            let mut sum = 0;
            let costs = row.each_ref().map(|cell| {
                sum += self.rate(now, cell);
                sum
            });
            (spatial, costs)
        })
    }

    /// Whether nothing comes of a spatial layer while others of its stream do.
    pub fn is_silent(&self, spatial: u8) -> bool {
        self.silent.get(usize::from(spatial)).is_some_and(|windows| *windows >= SILENT)
    }

    #[inline]
    fn rate(&self, now: Instant, cell: &Cell) -> u64 {
        if cell.bps > 0 || cell.bytes == 0 {
            return cell.bps.into();
        }
        let passed = now.saturating_duration_since(self.began).max(WINDOW / 4);
        u64::from(cell.bytes) * 8_000_000 / passed.as_micros() as u64
    }

    fn close(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.began);
        self.began = now;
        // Every window begins with a packet of some layer.
        for (row, silent) in self.cells.iter().zip(&mut self.silent) {
            let is_silent = row.iter().all(|cell| cell.bytes == 0);
            *silent = if is_silent { silent.saturating_add(1) } else { 0 };
        }
        if passed >= 2 * WINDOW {
            // Nothing came for a while: that was no rate.
            self.cells.iter_mut().flatten().for_each(|cell| cell.bytes = 0);
            return;
        }
        let micros = passed.as_micros() as u64;
        for row in &mut self.cells {
            // An encoding that stopped costs what it cost when it comes back.
            if row.iter().all(|cell| cell.bytes == 0) {
                continue;
            }
            for cell in row {
                let bytes = u64::from(std::mem::take(&mut cell.bytes));
                let new = bytes * 8_000_000 / micros;
                let old = u64::from(cell.bps);
                let slowness = match cell.windows {
                    windows @ 0..=3 => u64::from(windows) + 1,
                    _ if new > old => RISE,
                    _ => FALL,
                };
                cell.windows = cell.windows.saturating_add(1);
                cell.bps = u32::try_from((old * (slowness - 1) + new) / slowness).unwrap_or(u32::MAX);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    /// A packet of 936 bytes each 10 ms is 800 kbit/s on the line.
    fn feed(rates: &mut LayerRates, begin: Instant, millis: u64, payload: usize) -> Instant {
        let mut now = begin;
        for _ in 0..millis / 10 {
            rates.add(now, 1, 0, payload);
            now += Duration::from_millis(10);
        }
        now
    }

    #[test]
    fn a_rate_is_known_soon_and_follows_a_rise_sooner_than_a_fall() {
        let (begin, mut rates) = (start(), LayerRates::new(start()));
        let now = feed(&mut rates, begin, 130, 936);
        assert!(rates.of(now, 1, 0).abs_diff(800_000) < 100_000, "{}", rates.of(now, 1, 0));
        let now = feed(&mut rates, now, 3_000, 936);
        assert!(rates.of(now, 1, 0).abs_diff(800_000) < 20_000, "{}", rates.of(now, 1, 0));
        let risen = feed(&mut rates, now, 6_000, 2 * 936 + 64);
        assert!(rates.of(risen, 1, 0) > 1_400_000, "{}", rates.of(risen, 1, 0));
        let fallen = feed(&mut rates, risen, 1_000, 404);
        assert!(rates.of(fallen, 1, 0) > 1_000_000, "{}", rates.of(fallen, 1, 0));
        assert_eq!(rates.of(fallen, 0, 0), 0);
        assert_eq!(rates.of(fallen, 9, 9), 0);
    }

    #[test]
    fn a_key_frame_now_and_then_makes_no_layer_dear() {
        let (mut now, mut rates, mut most) = (start(), LayerRates::new(start()), 0);
        for second in 0..20 {
            // 100 kB of a key frame in four seconds of 800 kbit/s.
            if second % 4 == 0 {
                (0..100).for_each(|_| rates.add(now, 1, 0, 936));
            }
            now = feed(&mut rates, now, 1_000, 936);
            if second > 4 {
                most = most.max(rates.of(now, 1, 0));
            }
        }
        assert!(most < 1_300_000, "{most}"); // a million on average
    }

    #[test]
    fn a_layer_that_stopped_costs_what_it_did() {
        let (begin, mut rates) = (start(), LayerRates::new(start()));
        let now = feed(&mut rates, begin, 2_000, 936);
        let before = rates.of(now, 1, 0);
        let later = now + Duration::from_secs(5);
        rates.add(later, 0, 0, 100);
        rates.add(later + WINDOW, 0, 0, 100);
        assert!(rates.of(later, 1, 0) >= before * 9 / 10);
    }

    #[test]
    fn a_layer_is_silent_once_others_went_on_without_it_for_two_seconds() {
        let (begin, mut rates) = (start(), LayerRates::new(start()));
        let mut now = feed(&mut rates, begin, 2_000, 936);
        now += Duration::from_secs(60);
        assert!(!rates.is_silent(1), "nothing came at all");
        let stopped = now;
        while !rates.is_silent(1) {
            rates.add(now, 0, 0, 100);
            now += Duration::from_millis(33);
        }
        assert!((1_900..2_700).contains(&(now - stopped).as_millis()), "{:?}", now - stopped);
        assert!(!rates.is_silent(0) && rates.is_silent(2));
        assert!(rates.of(now, 1, 0) > 700_000, "what it cost is known");
        rates.add(now, 1, 0, 936);
        assert!(!rates.is_silent(1), "with its first packet");
    }
}
