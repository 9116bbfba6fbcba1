//! A line: a queue before a rate, then delay.
//!
//! ```text
//! offer ─► lost? ─► queue (tail drop) ─► CoDel? ─► rate, stalls ─► delay + jitter ─► arrival
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use weir_rate::BitRate;

use crate::chance::Chance;

/// CoDel's constants (RFC 8289 §4.2, §4.3).
const CODEL_TARGET: Duration = Duration::from_millis(5);
const CODEL_INTERVAL: Duration = Duration::from_millis(100);

/// What a line does; may change while it runs.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Nothing passes at zero.
    pub rate: BitRate,
    pub delay: Duration,
    /// The deviation of what is added to the delay; at most three times this is.
    pub jitter: Duration,
    /// How much waits before it at most, as time at the present rate.
    pub queue: Duration,
    pub codel: bool,
    pub loss: Loss,
    /// The share of packets that come later by [`Self::reorder_by`], overtaken by others.
    pub reorder: f64,
    pub reorder_by: Duration,
    /// Like a radio that is not heard: nothing passes for a while, then all at once.
    pub stalls: Option<Stalls>,
    /// Like a machine that has other things to do: what arrives is noticed late, and all at once.
    pub naps: Option<Naps>,
}

impl Line {
    pub const fn new(rate: BitRate) -> Self {
        Self {
            rate,
            delay: Duration::from_millis(50),
            jitter: Duration::from_millis(1),
            queue: Duration::from_millis(300),
            codel: false,
            loss: Loss::NONE,
            reorder: 0.0,
            reorder_by: Duration::from_millis(10),
            stalls: None,
            naps: None,
        }
    }
}

/// Losses whatever the rate: in a good state this share, in a bad one that; how likely a packet changes the state.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    pub good: f64,
    pub bad: f64,
    pub to_bad: f64,
    pub to_good: f64,
}

impl Loss {
    pub const NONE: Self = Self::random(0.0);

    pub const fn random(share: f64) -> Self {
        Self { good: share, bad: share, to_bad: 0.0, to_good: 1.0 }
    }
}

/// Pauses that come by chance: the mean time between, the longest.
#[derive(Clone, Copy, Debug)]
pub struct Stalls {
    pub every: Duration,
    pub longest: Duration,
}

/// Pauses of those who look at what arrives: the mean time between, how long each.
#[derive(Clone, Copy, Debug)]
pub struct Naps {
    pub every: Duration,
    pub least: Duration,
    pub most: Duration,
}

/// A packet in the queue.
#[derive(Debug)]
struct Waiting<P> {
    packet: P,
    bytes: usize,
    came: Duration,
}

/// What became of a packet that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    Queued,
    Lost,
    /// The queue was full.
    Dropped,
}

/// A packet that left the queue.
#[derive(Debug)]
pub struct Served<P> {
    pub packet: P,
    pub arrives: Duration,
    /// How long it waited for others.
    pub queued: Duration,
}

/// The line at work. Its caller asks [`Link::serve`] at [`Link::next`].
#[derive(Debug)]
pub struct Link<P> {
    pub line: Line,
    chance: Chance,
    waiting: VecDeque<Waiting<P>>,
    waiting_bytes: usize,
    /// What waited when the line changed.
    allowance: u64,
    /// When the packet at the head has passed.
    head_done: Option<Duration>,
    bad: bool,
    last_arrival: Duration,
    next_stall: Option<Duration>,
    /// The present or the next nap.
    nap: (Duration, Duration),
    codel: Codel,
}

impl<P> Link<P> {
    pub fn new(line: Line, chance: Chance) -> Self {
        Self {
            line,
            chance,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            allowance: 0,
            head_done: None,
            bad: false,
            last_arrival: Duration::ZERO,
            next_stall: None,
            nap: (Duration::ZERO, Duration::ZERO),
            codel: Codel::default(),
        }
    }

    pub fn offer(&mut self, now: Duration, packet: P, bytes: usize) -> Offered {
        if self.loses() {
            return Offered::Lost;
        }
        let room = self.line.rate.bytes_in(self.line.queue).max(3_000);
        if (self.waiting_bytes + bytes) as u64 > room {
            return Offered::Dropped;
        }
        self.waiting_bytes += bytes;
        self.waiting.push_back(Waiting { packet, bytes, came: now });
        if self.head_done.is_none() {
            self.begin(now);
        }
        Offered::Queued
    }

    pub fn change(&mut self, now: Duration, line: Line) {
        self.line = line;
        self.allowance = self.waiting_bytes as u64;
        if self.head_done.is_none() {
            self.begin(now);
        }
    }

    pub fn next(&self) -> Option<Duration> {
        self.head_done
    }

    /// The head has passed; `Err` is a packet that CoDel dropped.
    pub fn serve(&mut self, now: Duration) -> Option<Result<Served<P>, P>> {
        self.head_done.filter(|done| *done <= now)?;
        let head = self.waiting.pop_front()?;
        self.waiting_bytes -= head.bytes;
        let own = self.line.rate.time_for(head.bytes as u64);
        let queued = (now - head.came).saturating_sub(own);
        self.begin(now);
        if self.line.codel && self.codel.drops(now, queued, self.waiting_bytes) {
            return Some(Err(head.packet));
        }
        Some(Ok(Served { packet: head.packet, arrives: self.arrival(now), queued }))
    }

    /// After a packet was offered no more waits than the queue holds, unless the line just became slower.
    pub fn is_within_bounds(&self) -> bool {
        let room = self.line.rate.bytes_in(self.line.queue).max(3_000);
        self.waiting_bytes as u64 <= room.max(self.allowance)
    }

    pub fn is_full(&self) -> bool {
        let room = self.line.rate.bytes_in(self.line.queue).max(3_000);
        (self.waiting_bytes + 1_300) as u64 > room
    }

    fn begin(&mut self, now: Duration) {
        let rate = self.line.rate;
        let head = self.waiting.front().filter(|_| rate > BitRate::ZERO).map(|head| head.bytes as u64);
        self.head_done = head.map(|bytes| now + self.stall(now) + rate.time_for(bytes));
    }

    fn stall(&mut self, now: Duration) -> Duration {
        let Some(stalls) = self.line.stalls else { return Duration::ZERO };
        let due = self.next_stall.is_some_and(|at| at <= now);
        if due || self.next_stall.is_none() {
            let pause = self.chance.exponential(stalls.every.as_secs_f64());
            self.next_stall = Some(now + Duration::from_secs_f64(pause));
        }
        if !due {
            return Duration::ZERO;
        }
        stalls.longest.mul_f64(self.chance.between(0.2, 1.0))
    }

    fn loses(&mut self) -> bool {
        let loss = self.line.loss;
        let changes = if self.bad { loss.to_good } else { loss.to_bad };
        self.bad ^= self.chance.happens(changes);
        self.chance.happens(if self.bad { loss.bad } else { loss.good })
    }

    fn arrival(&mut self, now: Duration) -> Duration {
        let jitter = self.line.jitter.mul_f64(self.chance.normal().abs().min(3.0));
        let arrival = now + self.line.delay + jitter;
        if self.chance.happens(self.line.reorder) {
            return arrival + self.line.reorder_by;
        }
        self.last_arrival = self.last_arrival.max(self.noticed(arrival));
        self.last_arrival
    }

    fn noticed(&mut self, arrival: Duration) -> Duration {
        let Some(naps) = self.line.naps else { return arrival };
        while self.nap.1 <= arrival {
            let wake = Duration::from_secs_f64(self.chance.exponential(naps.every.as_secs_f64()));
            let span = self.chance.between(naps.least.as_secs_f64(), naps.most.as_secs_f64());
            let begins = self.nap.1 + wake;
            self.nap = (begins, begins + Duration::from_secs_f64(span));
        }
        if arrival >= self.nap.0 { self.nap.1 } else { arrival }
    }
}

/// [RFC 8289 §5](https://www.rfc-editor.org/rfc/rfc8289#section-5), for a queue that is served packet by packet.
#[derive(Debug, Default)]
struct Codel {
    above_since: Option<Duration>,
    dropping: bool,
    next_drop: Duration,
    count: u32,
}

impl Codel {
    fn drops(&mut self, now: Duration, queued: Duration, waiting_bytes: usize) -> bool {
        if queued < CODEL_TARGET || waiting_bytes < 1_500 {
            self.above_since = None;
            self.dropping = false;
            return false;
        }
        let since = *self.above_since.get_or_insert(now);
        if !self.dropping {
            if now - since < CODEL_INTERVAL {
                return false;
            }
            self.dropping = true;
            let lately = now.saturating_sub(self.next_drop) < 16 * CODEL_INTERVAL;
            self.count = if lately && self.count > 2 { self.count - 2 } else { 1 };
        } else if now < self.next_drop {
            return false;
        } else {
            self.count += 1;
        }
        self.next_drop = now + CODEL_INTERVAL.div_f64(f64::from(self.count).sqrt());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(line: Line) -> Link<u32> {
        Link::new(line, Chance::new(1, 0))
    }

    fn drain(link: &mut Link<u32>) -> Vec<(u32, Duration, Duration)> {
        let mut out = Vec::new();
        while let Some(at) = link.next() {
            if let Some(Ok(served)) = link.serve(at) {
                out.push((served.packet, served.arrives, served.queued));
            }
        }
        out
    }

    #[test]
    fn packets_pass_at_the_rate_and_wait_for_each_other() {
        let mut link = link(Line { jitter: Duration::ZERO, ..Line::new(BitRate::from_kbps(960)) });
        for packet in 0..3 {
            assert_eq!(link.offer(Duration::ZERO, packet, 1_200), Offered::Queued);
        }
        let ms = Duration::from_millis;
        assert_eq!(drain(&mut link), [(0, ms(60), ms(0)), (1, ms(70), ms(10)), (2, ms(80), ms(20))]);
    }

    #[test]
    fn a_full_queue_drops_at_its_tail() {
        let mut link = link(Line::new(BitRate::from_kbps(960)));
        let queued = (0..100).filter(|packet| link.offer(Duration::ZERO, *packet, 1_200) == Offered::Queued);
        assert_eq!(queued.count(), 30, "300 ms");
    }

    #[test]
    fn without_a_rate_nothing_passes_until_there_is_one() {
        let mut link = link(Line { rate: BitRate::ZERO, ..Line::new(BitRate::ZERO) });
        link.offer(Duration::ZERO, 7, 1_200);
        assert_eq!(link.next(), None);
        link.change(Duration::from_secs(3), Line::new(BitRate::from_kbps(960)));
        assert_eq!(drain(&mut link).len(), 1);
    }

    #[test]
    fn losses_are_as_many_as_said() {
        let loss = Loss { good: 0.0, bad: 0.5, to_bad: 0.01, to_good: 0.19 };
        let mut link = link(Line { loss, ..Line::new(BitRate::from_kbps(1_000_000)) });
        let lost = (0..100_000).filter(|_| link.loses()).count();
        assert!((2_000..3_000).contains(&lost), "{lost}");
    }
}
