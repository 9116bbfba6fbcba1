//! Which packets of one encoding are missing, and when to ask for each again
//! ([RFC 4585 §6.2.1](https://www.rfc-editor.org/rfc/rfc4585#section-6.2.1)).

use std::time::{Duration, Instant};

use weir_units::media::MediaKind;

/// A packet is missing for good reason once this many later ones came. The packets of a frame leave together, so
/// this costs microseconds and spares a request for every pair that changed places on the way.
const REORDER_PACKETS: u64 = 2;

/// Or once this time passed, where the next packets are far off. Longer delays every repair by as much.
const REORDER_TIME: Duration = Duration::from_millis(5);

/// Requests for one packet are at least so far apart, however short the path: a publisher's own handling takes time.
const MIN_SPACING: Duration = Duration::from_millis(20);

/// The spacing while the round trip is unknown.
const DEFAULT_ROUND_TRIP: Duration = Duration::from_millis(100);

/// Each fails with the loss of both directions: at 3 % each way a second request is wanted for 6 % of the losses, a
/// third for 0.4 %. Ten serve lines that lose half.
const MAX_REQUESTS: u8 = 10;

/// The spacing doubles after so many requests, in case the round trip is longer than believed.
const REQUESTS_PER_SPACING: u8 = 3;

/// Losses known at a time. More is no loss pattern but an outage, which a key frame mends sooner.
const MAX_MISSING_VIDEO: usize = 256;
const MAX_MISSING_AUDIO: usize = 32;

/// Past this age nobody waits for the packet: video freezes are over by a key frame, audio has been concealed.
const MAX_AGE_VIDEO: Duration = Duration::from_millis(1000);
const MAX_AGE_AUDIO: Duration = Duration::from_millis(300);

/// What a packet's number says about the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The next one, or the first.
    InOrder,
    /// So many are missing before it, noted.
    Gap(u32),
    /// A missing one that was never asked for.
    Reordered,
    /// A missing one that was asked for.
    Recovered,
    /// Not missing: a duplicate, or one that was given up.
    Unexpected,
    /// More are missing than can be asked for: what was missing is given up, and only a key frame helps.
    Outage,
}

/// Totals since the start, in packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossCounts {
    /// Numbers that were missing when a later one arrived.
    pub missing: u64,
    /// Of these, came unasked.
    pub reordered: u64,
    /// Came after a request.
    pub recovered: u64,
    /// Neither came nor are waited for any longer: the residual loss.
    pub given_up: u64,
    /// Of those given up, how many only because a newer key frame made them useless.
    pub superseded: u64,
    /// Requests made, counting each packet each time.
    pub requested: u64,
}

#[derive(Clone, Copy, Debug)]
struct Missing {
    sequence: u64,
    since: Instant,
    due: Instant,
    requests: u8,
}

/// The missing packets of one encoding. A stream without loss costs no memory here.
///
/// Invariant: `missing` ascends and holds only numbers below `highest`. Bound: the kind's `MAX_MISSING`.
#[derive(Debug)]
pub struct LossRegister {
    max_missing: usize,
    max_age: Duration,
    highest: Option<u64>,
    missing: Vec<Missing>,
    /// No entry is due or too old before this; `None` without entries.
    next: Option<Instant>,
    counts: LossCounts,
}

impl LossRegister {
    pub fn new(kind: MediaKind) -> Self {
        let (max_missing, max_age) = match kind {
            MediaKind::Audio => (MAX_MISSING_AUDIO, MAX_AGE_AUDIO),
            MediaKind::Video => (MAX_MISSING_VIDEO, MAX_AGE_VIDEO),
        };
        Self {
            max_missing,
            max_age,
            highest: None,
            missing: Vec::new(),
            next: None,
            counts: LossCounts::default(),
        }
    }

    /// Notes an arrival. `is_retransmission` is whether it came on the retransmission stream: such a packet never
    /// reveals a gap, since it is a past one.
    pub fn on_packet(&mut self, now: Instant, sequence: u64, is_retransmission: bool) -> Seen {
        let Some(highest) = self.highest else {
            if !is_retransmission {
                self.highest = Some(sequence);
            }
            return Seen::InOrder;
        };
        if sequence <= highest || is_retransmission {
            return self.on_past(sequence);
        }
        self.highest = Some(sequence);
        let gap = sequence - highest - 1;
        if gap == 0 && self.missing.is_empty() {
            return Seen::InOrder;
        }
        self.hurry(now, sequence);
        if gap == 0 {
            return Seen::InOrder;
        }
        self.counts.missing += gap;
        if gap > self.max_missing as u64 {
            self.counts.given_up += gap + self.missing.len() as u64;
            self.missing.clear();
            self.next = None;
            return Seen::Outage;
        }
        let excess = (self.missing.len() + gap as usize).saturating_sub(self.max_missing);
        self.missing.drain(..excess);
        self.counts.given_up += excess as u64;
        for missing in highest + 1..sequence {
            let is_overdue = sequence - missing > REORDER_PACKETS;
            let due = if is_overdue { now } else { now + REORDER_TIME };
            self.missing.push(Missing { sequence: missing, since: now, due, requests: 0 });
            self.next = Some(self.next.map_or(due, |next| next.min(due)));
        }
        if excess > 0 { Seen::Outage } else { Seen::Gap(gap as u32) }
    }

    /// Everything before this number is useless: a key frame began here.
    pub fn on_key_frame(&mut self, sequence: u64) {
        let useless = self.missing.partition_point(|missing| missing.sequence < sequence);
        self.missing.drain(..useless);
        self.counts.given_up += useless as u64;
        self.counts.superseded += useless as u64;
        if self.missing.is_empty() {
            self.next = None;
        }
    }

    /// Writes the numbers to ask for now, ascending, and says how many; call again while the array comes back full.
    pub fn poll(&mut self, now: Instant, round_trip: Option<Duration>, requests: &mut [u64]) -> usize {
        if self.next.is_none_or(|next| next > now) {
            return 0;
        }
        let spacing = (round_trip.unwrap_or(DEFAULT_ROUND_TRIP) * 3 / 2).max(MIN_SPACING);
        let (max_age, before) = (self.max_age, self.missing.len());
        self.missing.retain(|missing| {
            let is_exhausted = missing.requests == MAX_REQUESTS && missing.due <= now;
            !is_exhausted && now.saturating_duration_since(missing.since) < max_age
        });
        self.counts.given_up += (before - self.missing.len()) as u64;
        let mut count = 0;
        for missing in self.missing.iter_mut().filter(|missing| missing.due <= now) {
            let Some(request) = requests.get_mut(count) else { break };
            *request = missing.sequence;
            count += 1;
            missing.due = now + spacing * (1 << (missing.requests / REQUESTS_PER_SPACING));
            missing.requests += 1;
        }
        self.counts.requested += count as u64;
        self.next = self.missing.iter().map(|missing| missing.due.min(missing.since + max_age)).min();
        count
    }

    /// When [`Self::poll`] has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.next
    }

    pub fn counts(&self) -> LossCounts {
        self.counts
    }

    fn on_past(&mut self, sequence: u64) -> Seen {
        let Ok(at) = self.missing.binary_search_by_key(&sequence, |missing| missing.sequence) else {
            return Seen::Unexpected;
        };
        let found = self.missing.remove(at);
        if self.missing.is_empty() {
            self.next = None;
        }
        if found.requests == 0 {
            self.counts.reordered += 1;
            Seen::Reordered
        } else {
            self.counts.recovered += 1;
            Seen::Recovered
        }
    }

    /// The newest gaps stop waiting for reordered packets once enough later ones came.
    fn hurry(&mut self, now: Instant, sequence: u64) {
        for missing in self.missing.iter_mut().rev() {
            if missing.requests > 0 || missing.due <= now {
                break;
            }
            if sequence - missing.sequence > REORDER_PACKETS {
                missing.due = now;
                self.next = Some(self.next.map_or(now, |next| next.min(now)));
            }
        }
    }
}

#[cfg(test)]
mod tests;
