//! The timestamps of one subscription: one clock across encodings, pauses and restarts of the source.

use std::time::{Duration, Instant};

use super::epochs::Epochs;
use crate::ingress::stats::SenderClock;

/// Mappings kept for late packets and retransmissions: a switch needs one, and one more if it has to catch up. Each costs
/// 16 bytes.
const MAX_PAST: usize = 32;

/// A switch comes so long after the frame before at least: receivers that think in milliseconds should see two.
const MIN_STEP: Duration = Duration::from_millis(1);
/// A stretch that is catching up has its frames so many times closer together. Sixty a second are still a millisecond apart,
/// and the frames of seconds are sent within the time they then take.
const SQUEEZE: i32 = 16;
/// Frames of such a stretch are at most so far apart: a pause in what is caught up with is no pause for who sees it now.
const MAX_SQUEEZED: Duration = Duration::from_millis(20);

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
    /// When it arrived, however much later it was sent.
    at: Instant,
    /// Egress timestamp, extended.
    timestamp: u64,
    sequence: u64,
}

/// From ingress timestamps to those of egress, modulo 2^32.
#[derive(Clone, Copy, Debug, Default)]
struct Mapping {
    offset: u32,
    /// From this ingress timestamp on, distances are divided by [`SQUEEZE`].
    squeezed_from: Option<u32>,
}

impl Mapping {
    #[inline]
    fn egress(self, timestamp: u32) -> u32 {
        let squeezed = self.squeezed_from.map_or(timestamp, |from| {
            let distance = timestamp.wrapping_sub(from).cast_signed() / SQUEEZE;
            from.wrapping_add_signed(distance)
        });
        squeezed.wrapping_add(self.offset)
    }
}

/// Maps ingress timestamps to egress timestamps, for each stretch of egress sequence numbers by an offset.
///
/// A stretch begins with a switch, a resumption or a restart. Its first timestamp is always later than the last one
/// sent. Where it had to be put later than the sender reports or arrivals say (a key frame from the ring, of a
/// moment that was shown already, or with nothing before it), the frames that follow stand closer together until the
/// difference is made up.
#[derive(Clone, Debug)]
pub struct Timeline {
    clock_rate: u32,
    mappings: Epochs<Mapping, MAX_PAST>,
    /// What the present stretch adds to ingress timestamps once it has caught up.
    offset: u32,
    newest: Option<Newest>,
    /// By how much the newest is later than sender reports or arrivals say, in ticks.
    late: u64,
    first: u32,
    /// What is missing may come late with times up to this, extended.
    reserved: u64,
}

impl Timeline {
    /// `first` is the first packet's timestamp, to be chosen at random
    /// ([RFC 3550 §5.1](https://www.rfc-editor.org/rfc/rfc3550#section-5.1)).
    pub fn new(clock_rate: u32, first: u32) -> Self {
        Self {
            clock_rate,
            mappings: Epochs::new(Mapping::default()),
            offset: 0,
            newest: None,
            late: 0,
            first,
            reserved: 0,
        }
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
                let elapsed = self.ticks(now.saturating_duration_since(newest.at));
                let by_arrival = (newest.timestamp + elapsed).saturating_sub(self.late + age);
                let wanted = from
                    .zip(to)
                    .and_then(|(from, to)| self.by_reports(by_arrival, from, to, timestamp))
                    .unwrap_or(by_arrival);
                (wanted.max(newest.timestamp.max(self.reserved) + self.ticks(MIN_STEP)), wanted)
            }
        };
        self.late = chosen - wanted;
        self.offset = (wanted as u32).wrapping_sub(timestamp);
        let offset = (chosen as u32).wrapping_sub(timestamp);
        let squeezed_from = (self.late > 0).then_some(timestamp);
        self.mappings.begin(sequence, Mapping { offset, squeezed_from });
        // The packet itself is yet to come; it must find the time that was chosen for it, however long the pause.
        self.newest = Some(Newest { at: arrived, timestamp: chosen, sequence: sequence.saturating_sub(1) });
    }

    /// When, in egress time, a stretch should begin according to the sender reports, if that can be true.
    fn by_reports(&self, by_arrival: u64, from: SenderClock, to: SenderClock, timestamp: u32) -> Option<u64> {
        let moved = self.present(self.on_timeline_of(from, to, timestamp));
        // Taken as near to what arrivals say: that settles the wrap, however long the pause.
        let difference = i64::from(moved.wrapping_sub(by_arrival as u32) as i32);
        (difference.unsigned_abs() <= self.ticks(MAX_DISAGREEMENT))
            .then(|| by_arrival.saturating_add_signed(difference))
    }

    /// The timestamp of a packet that arrived at that time, with egress number `sequence`; `None` when it belongs to a stretch
    /// long past.
    #[inline]
    pub fn forward(&mut self, arrived: Instant, sequence: u64, timestamp: u32) -> Option<u32> {
        match self.newest {
            Some(newest) if sequence > newest.sequence => {
                Some(self.advance(arrived, newest, sequence, timestamp))
            }
            _ => self.at(sequence, timestamp),
        }
    }

    /// A packet in order was left out on purpose; `next` is the egress number that the next one gets. What is missing
    /// before it may come late: another stretch must not begin before that.
    pub fn drop(&mut self, next: u64, timestamp: u32) {
        let Some(newest) = self.newest.filter(|newest| next > newest.sequence + 1) else { return };
        let step = self.mappings.present().egress(timestamp).wrapping_sub(newest.timestamp as u32);
        if u64::from(step) <= self.ticks(MAX_AHEAD) {
            self.reserved = newest.timestamp + u64::from(step);
        }
    }

    /// As [`Self::forward`], for a packet that is sent again.
    #[inline]
    pub fn at(&self, sequence: u64, timestamp: u32) -> Option<u32> {
        Some(self.mappings.at(sequence)?.egress(timestamp))
    }

    /// An ingress timestamp of the present encoding, such as its sender report's, as egress timestamp.
    pub fn present(&self, timestamp: u32) -> u32 {
        timestamp.wrapping_add(self.offset)
    }

    /// The highest egress timestamp sent, or what the first will be: for packets of our own making.
    pub fn newest(&self) -> u32 {
        self.newest.map_or(self.first, |newest| newest.timestamp as u32)
    }

    fn advance(&mut self, arrived: Instant, newest: Newest, sequence: u64, timestamp: u32) -> u32 {
        let caught_up = self.present(timestamp);
        let step = i64::from(caught_up.wrapping_sub(newest.timestamp as u32).cast_signed());
        let elapsed = self.ticks(arrived.saturating_duration_since(newest.at));
        let least = -(self.ticks(MAX_BACK).saturating_add(self.late) as i64);
        let most = elapsed.saturating_add(self.ticks(MAX_AHEAD)) as i64;
        let (egress, extended) = if step < least || step > most {
            let chosen = newest.timestamp + elapsed.max(1);
            (self.late, self.offset) = (0, (chosen as u32).wrapping_sub(timestamp));
            self.mappings.begin(sequence, Mapping { offset: self.offset, squeezed_from: None });
            (chosen as u32, chosen)
        } else if self.mappings.present().squeezed_from.is_some() {
            let mut egress = self.mappings.present().egress(timestamp);
            let is_next = sequence == newest.sequence + 1 && egress != newest.timestamp as u32;
            // Between the packets of a frame, or with one missing, the frame could be torn.
            let most = (newest.timestamp + self.ticks(MAX_SQUEEZED)) as u32;
            if is_next && caught_up.wrapping_sub(egress).cast_signed() >= 0 {
                egress = caught_up;
                self.mappings.begin(sequence, Mapping { offset: self.offset, squeezed_from: None });
            } else if is_next && egress.wrapping_sub(most).cast_signed() > 0 {
                egress = most;
                let offset = egress.wrapping_sub(timestamp);
                self.mappings.begin(sequence, Mapping { offset, squeezed_from: Some(timestamp) });
            }
            let step = egress.wrapping_sub(newest.timestamp as u32).cast_signed();
            if step >= 0 {
                self.late = egress.wrapping_sub(caught_up).cast_signed().max(0).unsigned_abs().into();
            }
            (egress, newest.timestamp + u64::from(step.max(0).unsigned_abs()))
        } else {
            (caught_up, newest.timestamp + step.max(0) as u64)
        };
        // All packets of a frame count from its first, or the last of a large frame would shift what follows.
        let at = if extended == newest.timestamp { newest.at } else { arrived };
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
