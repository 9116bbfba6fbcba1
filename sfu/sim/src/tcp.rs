//! A flow like TCP's, to compete with: as much as its window allows, halved on loss and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

/// What a segment takes of a line.
pub const SEGMENT: usize = 1_500;
pub const ACK: usize = 60;

/// Segments that may leave before anything came back.
const FIRST_WINDOW: f64 = 10.0;
/// What remains of the window after a loss, as with CUBIC.
const BACK_OFF: f64 = 0.7;
/// Acknowledged so far beyond a segment, that segment is lost.
const REORDERING: u64 = 3;
/// Without any acknowledgement for this everything under way is lost.
const PATIENCE: Duration = Duration::from_millis(1_000);

/// The sending side of one such flow. Each segment is acknowledged by itself.
#[derive(Debug)]
pub struct Tcp {
    window: f64,
    threshold: f64,
    next: u64,
    /// Sent and not acknowledged, with the time of sending.
    under_way: BTreeMap<u64, Duration>,
    /// Losses of what was sent before this are of one event.
    recovered_at: u64,
    heard: Duration,
    /// Segments still to send; without end if `None`.
    remaining: Option<u64>,
}

impl Tcp {
    pub fn new(now: Duration, segments: Option<u64>) -> Self {
        Self {
            window: FIRST_WINDOW,
            threshold: f64::INFINITY,
            next: 0,
            under_way: BTreeMap::new(),
            recovered_at: 0,
            heard: now,
            remaining: segments,
        }
    }

    /// The numbers of what may leave now.
    pub fn send(&mut self, now: Duration) -> Vec<u64> {
        let mut out = Vec::new();
        while (self.under_way.len() as f64) < self.window && self.remaining != Some(0) {
            self.under_way.insert(self.next, now);
            out.push(self.next);
            self.next += 1;
            self.remaining = self.remaining.map(|segments| segments - 1);
        }
        out
    }

    pub fn on_ack(&mut self, now: Duration, number: u64) {
        self.heard = now;
        if self.under_way.remove(&number).is_none() {
            return;
        }
        self.window += if self.window < self.threshold { 1.0 } else { 1.0 / self.window };
        let lost = self.under_way.range(..number.saturating_sub(REORDERING)).map(|(&number, _)| number);
        for number in lost.collect::<Vec<_>>() {
            self.lose(number);
        }
    }

    /// To be called now and then.
    pub fn on_time(&mut self, now: Duration) {
        if now.saturating_sub(self.heard) < PATIENCE || self.under_way.is_empty() {
            return;
        }
        self.heard = now;
        for number in std::mem::take(&mut self.under_way).into_keys() {
            self.lose(number);
        }
        self.window = 1.0;
    }

    fn lose(&mut self, number: u64) {
        self.under_way.remove(&number);
        self.remaining = self.remaining.map(|segments| segments + 1);
        if number >= self.recovered_at {
            self.recovered_at = self.next;
            self.window = (self.window * BACK_OFF).max(2.0);
            self.threshold = self.window;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_with_each_acknowledgement_and_backs_off_once_for_one_event() {
        let mut tcp = Tcp::new(Duration::ZERO, None);
        assert_eq!(tcp.send(Duration::ZERO), (0..10).collect::<Vec<_>>());
        (0..10).for_each(|number| tcp.on_ack(Duration::from_millis(100), number));
        assert_eq!(tcp.send(Duration::from_millis(100)).len(), 20);
        // 10 and 11 are lost.
        (12..30).for_each(|number| tcp.on_ack(Duration::from_millis(200), number));
        assert!((14.0..=22.0).contains(&tcp.window), "{}", tcp.window);
    }

    #[test]
    fn sends_what_it_has_and_again_what_was_lost() {
        let mut tcp = Tcp::new(Duration::ZERO, Some(12));
        assert_eq!(tcp.send(Duration::ZERO).len(), 10);
        tcp.on_time(Duration::from_secs(2));
        assert_eq!(tcp.send(Duration::from_secs(2)).len(), 1);
        tcp.on_ack(Duration::from_secs(2), 10);
        assert_eq!(tcp.send(Duration::from_secs(2)).len(), 2);
    }
}
