//! The timestamps of one subscription: one clock across encodings, pauses and restarts of the source.

use std::time::{Duration, Instant};

use super::epochs::Epochs;
use crate::ingress::stats::SenderClock;

/// Offsets kept for late packets and retransmissions: a switch needs one, and one more for each frame until it has
/// caught up. Each costs 8 bytes.
const MAX_PAST: usize = 32;

/// The least distance of two frames of a stretch that is catching up: receivers that think in milliseconds should
/// still see two.
const MIN_STEP: Duration = Duration::from_millis(1);

/// How far sender reports and arrival times may disagree. Reports are exact to microseconds, arrivals to the jitter of
/// the line; past a second the reports are wrong (a device that slept, a clock that was set) and arrivals are believed.
const MAX_DISAGREEMENT: Duration = Duration::from_secs(1);

/// A timestamp that goes back further than reordering explains, or ahead of the time that passed by more than
/// [`MAX_AHEAD`], is a source that started over.
const MAX_BACK: Duration = Duration::from_secs(1);
const MAX_AHEAD: Duration = Duration::from_secs(10);

/// The newest packet in order, to measure the next stretch from.
#[derive(Clone, Copy, Debug)]
struct Newest {
    at: Instant,
    /// Egress timestamp, extended.
    timestamp: u64,
    sequence: u64,
}

/// Maps ingress timestamps to egress timestamps: an offset for each stretch of egress sequence numbers.
///
/// A stretch begins with a switch, a resumption or a restart. Its first timestamp is always later than the last one
/// sent. Where it had to be put later than the sender reports or arrivals say (a key frame from the ring, of a
/// moment that was shown already), the frames that follow stand closer together until the difference is made up.
#[derive(Clone, Debug)]
pub struct Timeline {
    clock_rate: u32,
    /// Added to ingress timestamps, modulo 2^32.
    offsets: Epochs<u32, MAX_PAST>,
    newest: Option<Newest>,
    /// By how much the present offset exceeds what sender reports or arrivals say, in ticks.
    excess: u64,
    first: u32,
    /// What is missing may come late with times up to this, extended.
    reserved: u64,
}

impl Timeline {
    /// `first` is the first packet's timestamp, to be chosen at random
    /// ([RFC 3550 §5.1](https://www.rfc-editor.org/rfc/rfc3550#section-5.1)).
    pub fn new(clock_rate: u32, first: u32) -> Self {
        Self { clock_rate, offsets: Epochs::new(0), newest: None, excess: 0, first, reserved: 0 }
    }

    /// A stretch begins with the packet that gets egress number `sequence`: the first of all, a switch of encodings,
    /// or the first after a pause. `from` and `to` are the last sender reports of the encoding sent until now and of
    /// the packet's; the same value twice when it goes on with the same encoding.
    pub fn start(
        &mut self,
        now: Instant,
        sequence: u64,
        timestamp: u32,
        from: Option<SenderClock>,
        to: Option<SenderClock>,
    ) {
        self.start_with_past(now, now, sequence, timestamp, from, to);
    }

    /// As [`Self::start`], with a packet that arrived at an earlier time and was kept. The later ones that were kept
    /// too should follow at once; they are sent as happening now.
    pub fn start_with_past(
        &mut self,
        now: Instant,
        arrived: Instant,
        sequence: u64,
        timestamp: u32,
        from: Option<SenderClock>,
        to: Option<SenderClock>,
    ) {
        let age = self.ticks(now.saturating_duration_since(arrived));
        let (chosen, wanted) = match self.newest {
            None => {
                let first = (1 << 32) + u64::from(self.first);
                (first, first.saturating_sub(age))
            }
            Some(newest) => {
                let by_arrival = (newest.timestamp + self.ticks(now.saturating_duration_since(newest.at)))
                    .saturating_sub(age);
                let wanted = from
                    .zip(to)
                    .and_then(|(from, to)| self.by_reports(by_arrival, from, to, timestamp))
                    .unwrap_or(by_arrival);
                (wanted.max(newest.timestamp.max(self.reserved) + self.ticks(MIN_STEP)), wanted)
            }
        };
        self.excess = chosen - wanted;
        self.offsets.begin(sequence, (chosen as u32).wrapping_sub(timestamp));
        // The packet itself is yet to come; it must find the time that was chosen for it, however long the pause.
        self.newest = Some(Newest { at: now, timestamp: chosen, sequence: sequence.saturating_sub(1) });
    }

    /// When, in egress time, a stretch should begin according to the sender reports, if that can be true.
    fn by_reports(&self, by_arrival: u64, from: SenderClock, to: SenderClock, timestamp: u32) -> Option<u64> {
        let moved = self.on_timeline_of(from, to, timestamp).wrapping_add(self.offsets.present());
        // Taken as near to what arrivals say: that settles the wrap, however long the pause.
        let difference = i64::from(moved.wrapping_sub(by_arrival as u32) as i32) - self.excess as i64;
        (difference.unsigned_abs() <= self.ticks(MAX_DISAGREEMENT))
            .then(|| by_arrival.saturating_add_signed(difference))
    }

    /// The timestamp of a packet with egress number `sequence`; `None` when it belongs to a stretch long past.
    #[inline]
    pub fn forward(&mut self, now: Instant, sequence: u64, timestamp: u32) -> Option<u32> {
        match self.newest {
            Some(newest) if sequence > newest.sequence => {
                Some(self.advance(now, newest, sequence, timestamp))
            }
            _ => self.at(sequence, timestamp),
        }
    }

    /// A packet in order was left out on purpose; `next` is the egress number that the next one gets. What is missing
    /// before it may come late: another stretch must not begin before that.
    pub fn drop(&mut self, next: u64, timestamp: u32) {
        let Some(newest) = self.newest.filter(|newest| next > newest.sequence + 1) else { return };
        let step = self.present(timestamp).wrapping_sub(newest.timestamp as u32);
        if u64::from(step) <= self.ticks(MAX_AHEAD) {
            self.reserved = newest.timestamp + u64::from(step);
        }
    }

    /// As [`Self::forward`], for a packet that is sent again.
    #[inline]
    pub fn at(&self, sequence: u64, timestamp: u32) -> Option<u32> {
        Some(timestamp.wrapping_add(self.offsets.at(sequence)?))
    }

    /// An ingress timestamp of the present encoding, such as its sender report's, as egress timestamp.
    pub fn present(&self, timestamp: u32) -> u32 {
        timestamp.wrapping_add(self.offsets.present())
    }

    /// The highest egress timestamp sent, for packets of our own making.
    pub fn newest(&self) -> Option<u32> {
        self.newest.map(|newest| newest.timestamp as u32)
    }

    fn advance(&mut self, now: Instant, newest: Newest, sequence: u64, timestamp: u32) -> u32 {
        let mut egress = self.present(timestamp);
        let step = i64::from(egress.wrapping_sub(newest.timestamp as u32) as i32);
        let elapsed = self.ticks(now.saturating_duration_since(newest.at));
        let most = elapsed.saturating_add(self.ticks(MAX_AHEAD));
        let extended = if step < -(self.ticks(MAX_BACK) as i64) || step > most as i64 {
            let chosen = newest.timestamp + elapsed.max(1);
            egress = chosen as u32;
            self.excess = 0;
            self.offsets.begin(sequence, egress.wrapping_sub(timestamp));
            chosen
        } else {
            let mut step = step.max(0) as u64;
            // With a packet missing in between, its frame could be overtaken.
            if self.excess > 0 && sequence == newest.sequence + 1 {
                let less = step.saturating_sub(self.ticks(MIN_STEP)).min(self.excess);
                if less > 0 {
                    (step, self.excess) = (step - less, self.excess - less);
                    egress = egress.wrapping_sub(less as u32);
                    self.offsets.begin(sequence, egress.wrapping_sub(timestamp));
                }
            }
            newest.timestamp + step
        };
        // All packets of a frame count from its first, or the last of a large frame would shift what follows.
        let at = if extended == newest.timestamp { newest.at } else { now };
        self.newest = Some(Newest { at, timestamp: extended, sequence });
        egress
    }

    /// `timestamp` of the encoding that sent `to`, moved onto the clock of the one that sent `from`.
    fn on_timeline_of(&self, from: SenderClock, to: SenderClock, timestamp: u32) -> u32 {
        let apart = to.ntp.wrapping_sub(from.ntp) as i64; // 32.32 seconds
        let ticks = (i128::from(apart) * i128::from(self.clock_rate) + (1 << 31)) >> 32;
        from.rtp.wrapping_add(ticks as u32).wrapping_add(timestamp.wrapping_sub(to.rtp))
    }

    /// In 64 bits, and no division but by a constant: several are needed for every packet.
    fn ticks(&self, duration: Duration) -> u64 {
        let rate = u64::from(self.clock_rate);
        let fraction = u64::from(duration.subsec_micros()) * rate / 1_000_000;
        duration.as_secs().saturating_mul(rate).saturating_add(fraction).min(u64::MAX >> 2)
    }
}

#[cfg(test)]
mod tests;
