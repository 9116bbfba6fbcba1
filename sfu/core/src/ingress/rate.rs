//! Bits and packets a second over a sliding window.

use std::time::{Duration, Instant};

/// The window, in steps. One second: longer hides a layer that stopped, shorter jumps with every key frame.
const STEPS: usize = 10;
const STEP: Duration = Duration::from_millis(100);

/// What passed within the last second.
#[derive(Clone, Copy, Debug)]
pub struct RateWindow {
    /// When the newest step began.
    began: Instant,
    started: Instant,
    newest: usize,
    bytes: [u32; STEPS],
    packets: [u16; STEPS],
}

impl RateWindow {
    pub fn new(now: Instant) -> Self {
        Self { began: now, started: now, newest: 0, bytes: [0; STEPS], packets: [0; STEPS] }
    }

    pub fn add(&mut self, now: Instant, bytes: usize) {
        self.advance(now);
        let step = &mut self.bytes[self.newest];
        *step = step.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        let step = &mut self.packets[self.newest];
        *step = step.saturating_add(1);
    }

    /// Bits a second.
    pub fn bit_rate(&mut self, now: Instant) -> u64 {
        self.advance(now);
        let bytes: u64 = self.bytes.iter().map(|&bytes| u64::from(bytes)).sum();
        self.per_second(now, bytes * 8)
    }

    /// Packets a second.
    pub fn packet_rate(&mut self, now: Instant) -> u64 {
        self.advance(now);
        let packets: u64 = self.packets.iter().map(|&packets| u64::from(packets)).sum();
        self.per_second(now, packets)
    }

    fn per_second(&self, now: Instant, amount: u64) -> u64 {
        let window = STEP * (STEPS as u32 - 1) + now.saturating_duration_since(self.began);
        let covered = window.min(now.saturating_duration_since(self.started)).max(STEP);
        amount * 1_000_000 / covered.as_micros() as u64
    }

    fn advance(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.began).as_nanos() / STEP.as_nanos();
        for _ in 0..passed.min(STEPS as u128) {
            self.newest = (self.newest + 1) % STEPS;
            self.bytes[self.newest] = 0;
            self.packets[self.newest] = 0;
        }
        if passed >= STEPS as u128 {
            self.began = now;
        } else {
            self.began += STEP * passed as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    #[test]
    fn a_steady_stream_has_its_rate_from_the_beginning() {
        let begin = start();
        let mut rate = RateWindow::new(begin);
        for packet in 0..1000_u32 {
            let now = begin + Duration::from_millis(20) * packet;
            rate.add(now, 250);
            if packet > 10 {
                let bits = rate.bit_rate(now);
                assert!((95_000..=125_000).contains(&bits), "{bits} at packet {packet}");
                assert!((47..=63).contains(&rate.packet_rate(now)), "{}", rate.packet_rate(now));
            }
        }
    }

    #[test]
    fn silence_brings_it_to_zero_within_a_second() {
        let begin = start();
        let mut rate = RateWindow::new(begin);
        for packet in 0..100_u32 {
            rate.add(begin + Duration::from_millis(20) * packet, 250);
        }
        let end = begin + Duration::from_secs(2);
        assert!(rate.bit_rate(end + Duration::from_millis(500)) < 60_000);
        assert_eq!(rate.bit_rate(end + Duration::from_millis(1100)), 0);
        assert_eq!(rate.bit_rate(end + Duration::from_secs(1_000_000)), 0);
    }

    #[test]
    fn a_first_packet_is_no_flood() {
        let begin = start();
        let mut rate = RateWindow::new(begin);
        rate.add(begin, 1200);
        assert_eq!(rate.bit_rate(begin), 96_000, "as if it took a tenth of a second");
    }
}
