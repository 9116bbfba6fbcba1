//! Arrivals on one transport, for the publisher's bandwidth estimation
//! ([transport-wide congestion control](https://datatracker.ietf.org/doc/html/draft-holmer-rmcat-transport-wide-cc-extensions-01)).

use std::time::{Duration, Instant};

/// Feedback comes this often while the rate is unknown.
const DEFAULT_INTERVAL: Duration = Duration::from_millis(100);
/// Estimators act within a few of these; more often costs more than it tells.
const MIN_INTERVAL: Duration = Duration::from_millis(50);
/// Rarer makes an audio-only publisher slow to notice congestion.
const MAX_INTERVAL: Duration = Duration::from_millis(250);

/// A feedback packet with IP, UDP, SRTCP and its header, in bits; together they may use a twentieth of the rate.
const FEEDBACK_BITS: u64 = 8 * 68;
const FEEDBACK_SHARE: u64 = 20;

/// Feedback is due at once when so many packets wait, so that one feedback packet holds them.
const MAX_WAITING: u64 = 300;

/// The most statuses of one feedback packet: 2 bytes a delta and 2 bytes for 7 statuses stay below 1,100 bytes.
pub const MAX_STATUSES: usize = 400;

/// What is remembered: at 10,000 packets a second 200 ms, twice what feedback may wait.
const MAX_SLOTS: usize = 2048;
const FIRST_SLOTS: usize = 64;

/// A jump this long is no loss but a restart: nothing before it is reported as lost.
const MAX_GAP: u64 = 2048;

/// Transport-wide sequence numbers and arrival times of one peer, and when to report them.
///
/// Owns no memory before the first packet. Bound: [`MAX_SLOTS`] arrivals; what is not reported before it is
/// overwritten is reported as lost.
#[derive(Debug)]
pub struct ArrivalLog {
    epoch: Instant,
    /// By sequence number modulo its length: the number and its arrival in microseconds since `epoch`. Numbers start
    /// above zero, which marks an empty slot.
    slots: Vec<(u64, u64)>,
    highest: u64,
    /// The first number of the next feedback.
    next: u64,
    /// Arrivals not yet reported.
    waiting: u64,
    /// What came since the last feedback, in bytes, for the interval.
    bytes: u64,
    since: Instant,
    interval: Duration,
    due: Option<Instant>,
    count: u8,
}

/// What one feedback packet says.
#[derive(Clone, Copy, Debug)]
pub struct Feedback<'a> {
    log: &'a ArrivalLog,
    first: u64,
    /// Statuses, lost ones included: from 1 to [`MAX_STATUSES`]. The first and the last are arrivals, unless the
    /// first was left open by the feedback before.
    len: usize,
    /// The feedback packet count.
    pub count: u8,
}

impl<'a> Feedback<'a> {
    pub fn base_sequence(&self) -> u16 {
        self.first as u16
    }

    #[expect(clippy::len_without_is_empty, reason = "there is no empty feedback")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// For each number from the base on: when it arrived, in microseconds since the log began, or that it did not.
    pub fn arrivals(&self) -> impl Iterator<Item = Option<u64>> + Clone + 'a {
        let log = self.log;
        (self.first..self.first + self.len as u64).map(move |sequence| log.arrival(sequence))
    }
}

impl ArrivalLog {
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            slots: Vec::new(),
            highest: 0,
            next: 0,
            waiting: 0,
            bytes: 0,
            since: now,
            interval: DEFAULT_INTERVAL,
            due: None,
            count: 0,
        }
    }

    /// Notes a packet of `len` bytes. Says when feedback is due if that is news.
    pub fn record(&mut self, now: Instant, sequence: u16, len: usize) -> Option<Instant> {
        self.bytes += len as u64;
        let sequence = self.extend(sequence);
        let arrival = now.saturating_duration_since(self.epoch).as_micros() as u64;
        if self.slots.is_empty() {
            self.slots.resize(FIRST_SLOTS, (0, 0));
            (self.highest, self.next) = (sequence, sequence);
        }
        if sequence > self.highest {
            if sequence - self.highest > MAX_GAP {
                self.next = sequence; // what waits from before the jump is lost on nobody but an estimator
                self.waiting = 0;
            }
            self.highest = sequence;
        } else if self.highest - sequence >= MAX_SLOTS as u64 || self.arrival(sequence).is_some() {
            return None;
        }
        self.make_room(sequence);
        let index = self.index(sequence);
        self.slots[index] = (sequence, arrival);
        self.waiting += 1;
        if sequence < self.next {
            // Reported as lost, but it came: the next feedback begins with it and repeats what followed.
            self.next = sequence;
        }
        self.next = self.next.max((self.highest + 1).saturating_sub(MAX_SLOTS as u64));
        let due = match self.due {
            None => now + self.interval,
            Some(due) if self.waiting >= MAX_WAITING && due > now => now,
            Some(_) => return None,
        };
        self.due = Some(due);
        Some(due)
    }

    /// When feedback is due; `None` while nothing arrived since the last.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// The next feedback packet if one is due. [`Self::on_sent`] moves on; ask again until there is none.
    pub fn feedback(&self, now: Instant) -> Option<Feedback<'_>> {
        if self.due? > now {
            return None;
        }
        // A feedback that starts with losses says so, unless they fill it.
        let mut first = self.next;
        let arrived = (first..=self.highest).find(|&sequence| self.arrival(sequence).is_some())?;
        if arrived - first >= MAX_STATUSES as u64 / 2 {
            first = arrived;
        }
        let end = (first + MAX_STATUSES as u64 - 1).min(self.highest);
        let last = (first..=end).rev().find(|&sequence| self.arrival(sequence).is_some())?;
        Some(Feedback { log: self, first, len: (last - first + 1) as usize, count: self.count })
    }

    /// The present [`Self::feedback`] was sent.
    pub fn on_sent(&mut self, now: Instant) {
        let Some(feedback) = self.feedback(now) else { return };
        let (next, reported) = (feedback.first + feedback.len as u64, feedback.arrivals().flatten().count());
        self.next = next;
        self.waiting = self.waiting.saturating_sub(reported as u64);
        self.count = self.count.wrapping_add(1);
        if self.next > self.highest {
            self.waiting = 0;
            self.due = None;
            self.adapt(now);
        }
    }

    fn adapt(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.since).max(MIN_INTERVAL);
        let rate = self.bytes * 8 * 1_000_000 / elapsed.as_micros() as u64;
        let interval = Duration::from_micros(FEEDBACK_BITS * FEEDBACK_SHARE * 1_000_000 / rate.max(1));
        self.interval = interval.clamp(MIN_INTERVAL, MAX_INTERVAL);
        (self.bytes, self.since) = (0, now);
    }

    /// The number nearest to the highest; the first one leaves room below for what it overtook.
    fn extend(&self, sequence: u16) -> u64 {
        if self.slots.is_empty() {
            return (1 << 16) + u64::from(sequence);
        }
        let step = i64::from(sequence.wrapping_sub(self.highest as u16) as i16);
        self.highest.saturating_add_signed(step)
    }

    fn index(&self, sequence: u64) -> usize {
        (sequence & (self.slots.len() as u64 - 1)) as usize
    }

    fn arrival(&self, sequence: u64) -> Option<u64> {
        let (held, arrival) = self.slots[self.index(sequence)];
        (held == sequence).then_some(arrival)
    }

    /// Grows while what is not yet reported would not fit.
    fn make_room(&mut self, sequence: u64) {
        let first = self.next.min(sequence);
        while self.slots.len() < MAX_SLOTS && self.highest - first >= self.slots.len() as u64 {
            let mut slots = vec![(0, 0); self.slots.len() * 2];
            std::mem::swap(&mut slots, &mut self.slots);
            for slot in slots.into_iter().filter(|slot| slot.0 != 0) {
                let index = self.index(slot.0);
                self.slots[index] = slot;
            }
        }
    }
}

#[cfg(test)]
mod tests;
