//! How long packets wait on the way, over the least they ever took.

/// A least delay is believed for one to two of these: clocks drift by less than 2 ms meanwhile, and a path that became
/// longer is understood at last. In microseconds.
const EPOCH: i64 = 10_000_000;
/// The newest delay is the least of this long, which takes jitter out of it.
const RECENT: i64 = 60_000;

/// So many packets, sent over so long at least, tell of now: one may just have been late. In microseconds.
const TAIL_PACKETS: usize = 3;
const TAIL: i64 = 15_000;
/// Delays that shrink by less than this do not. In microseconds.
const SLACK: i64 = 5_000;
/// Packets that caught up so much of what they were sent apart came at once.
const RELEASED: f64 = 0.8;
/// Of the newest packets so many are remembered.
const REMEMBERED: usize = 8;

/// Past epochs whose least delays are remembered: a minute, in which clocks drift by some milliseconds.
const PAST: usize = 6;

/// The least delay of no packets.
const NONE: i64 = i64::MAX;

/// The queueing delay from one-way delays on two clocks that agree on nothing but a second's length.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct QueueDelay {
    /// Least delays of the present and the previous epoch; [`NONE`] of one without a packet.
    base: [i64; 2],
    epoch_began: Option<i64>,
    recent: [i64; 2],
    recent_began: i64,
    next: u8,
    seen: u8,
    /// Sending times and delays of the newest packets, the next to be replaced at `next`.
    tail: [(i64, i64); REMEMBERED],
    /// The least of `past`.
    before: i64,
    /// Least delays of the epochs before, newest first.
    past: [i64; PAST],
}

/// Queueing delays of the newest packets: the least, that of the first of them, that of the last.
struct Tail {
    least: i64,
    first: i64,
    last: i64,
}

impl Default for QueueDelay {
    fn default() -> Self {
        Self {
            base: [NONE; 2],
            epoch_began: None,
            before: NONE,
            past: [NONE; PAST],
            recent: [NONE; 2],
            recent_began: 0,
            tail: [(0, 0); REMEMBERED],
            next: 0,
            seen: 0,
        }
    }
}

impl QueueDelay {
    /// Takes a packet's times in microseconds, each on its own clock.
    pub fn add(&mut self, sent: i64, arrived: i64) {
        let delay = arrived - sent;
        self.tail[usize::from(self.next)] = (sent, delay);
        self.next = (self.next + 1) % REMEMBERED as u8;
        self.seen = (self.seen + 1).min(REMEMBERED as u8);
        let began = *self.epoch_began.get_or_insert(sent);
        if sent - began > EPOCH * PAST as i64 {
            // Nothing was sent for so long that the clocks may have drifted apart.
            (self.past, self.before) = ([NONE; PAST], NONE);
            self.base = [NONE; 2];
            self.epoch_began = Some(sent);
        } else if sent - began > EPOCH {
            self.past.rotate_right(1);
            self.past[0] = self.base[1];
            self.before = self.least_past();
            self.base = [NONE, self.base[0]];
            self.epoch_began = Some(sent);
        }
        if sent - self.recent_began > RECENT {
            self.recent = [NONE, self.recent[0]];
            self.recent_began = sent;
        }
        self.base[0] = self.base[0].min(delay);
        self.recent[0] = self.recent[0].min(delay);
    }

    /// The least queueing delay of late, in microseconds.
    pub fn recent(&self) -> i64 {
        let (recent, base) = (least(self.recent), least(self.base));
        if recent == NONE || base == NONE { 0 } else { recent - base }
    }

    /// What the newest packets met, but for what only some of them did; and the same, if it does not shrink from one of them
    /// to the next: then something on the way paused and goes on.
    pub fn newest(&self) -> (i64, i64) {
        let Some(Tail { least, first, last }) = self.tail() else { return (0, 0) };
        (least, if last + SLACK >= first { least } else { 0 })
    }

    /// Sending time and delay of the packet so far back, the newest being 1.
    fn back(&self, packets: usize) -> (i64, i64) {
        self.tail[(usize::from(self.next) + REMEMBERED - packets) % REMEMBERED]
    }

    /// The newest packets' queueing delays.
    fn tail(&self) -> Option<Tail> {
        let base = least(self.base);
        let tail = (1..=usize::from(self.seen)).map(|back| self.back(back));
        let (mut least, mut first, mut newest) = (i64::MAX, 0, None);
        for (index, (sent, delay)) in tail.enumerate() {
            let (last_sent, _) = *newest.get_or_insert((sent, delay));
            (least, first) = (least.min(delay), delay);
            if index + 1 >= TAIL_PACKETS && last_sent - sent >= TAIL {
                break;
            }
        }
        let (_, last) = newest.filter(|_| base != NONE)?;
        let over = |delay: i64| delay.saturating_sub(base).max(0);
        Some(Tail { least: over(least), first: over(first), last: over(last) })
    }

    /// Whether the newest packets came all at once although they were sent apart: something on the way paused. A queue
    /// that shrinks never does so that fast.
    pub fn is_released(&self) -> bool {
        let (newest, oldest) = (self.back(1), self.back(usize::from(self.seen.max(1))));
        let (apart, shrank) = (newest.0 - oldest.0, oldest.1 - newest.1);
        apart >= TAIL && shrank as f64 > RELEASED * apart as f64
    }

    /// Whether a packet of this delay waited longer than the least by more than `slack`.
    pub fn waited(&self, delay: i64, slack: i64) -> bool {
        delay > least(self.base).saturating_add(slack)
    }

    /// By how much what is believed to be the path's delay exceeds what it was within the last minute: the path became
    /// longer, or a queue stands that nobody drains.
    pub fn lifted(&self) -> i64 {
        let base = least(self.base);
        if base == NONE || self.before == NONE { 0 } else { (base - self.before).max(0) }
    }

    fn least_past(&self) -> i64 {
        self.past.into_iter().min().unwrap_or(NONE)
    }

    /// Takes the present delay for the path's: a queue that does not drain is not ours.
    pub fn rebase(&mut self) {
        self.past[0] = self.past[0].min(least(self.base));
        self.before = self.least_past();
        self.base = [least(self.recent), NONE];
        self.epoch_began = None;
    }
}

fn least(delays: [i64; 2]) -> i64 {
    delays[0].min(delays[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standing_queue_shows_although_nothing_grows() {
        let mut queue = QueueDelay::default();
        for packet in 0..100 {
            queue.add(packet * 20_000, packet * 20_000 - 5_000_000);
        }
        assert_eq!(queue.recent(), 0);
        for packet in 100..200 {
            queue.add(packet * 20_000, packet * 20_000 - 4_920_000);
        }
        assert_eq!(queue.recent(), 80_000);
        queue.rebase();
        assert_eq!(queue.recent(), 0);
    }

    #[test]
    fn a_longer_path_is_believed_after_a_while() {
        let mut queue = QueueDelay::default();
        queue.add(0, 0);
        for packet in 1..1_200 {
            queue.add(packet * 20_000, packet * 20_000 + 30_000);
        }
        assert_eq!(queue.recent(), 0);
    }

    #[test]
    fn a_path_that_became_longer_is_told_for_a_minute() {
        let mut queue = QueueDelay::default();
        let mut play = |from: i64, to: i64, delay: i64| {
            (from * 50..to * 50).for_each(|packet| queue.add(packet * 20_000, packet * 20_000 + delay));
            queue.lifted()
        };
        assert_eq!(play(0, 30, 40_000), 0);
        assert_eq!(play(30, 60, 240_000), 200_000, "believed, and told");
        assert_eq!(play(60, 130, 240_000), 0, "the path is what it was a minute ago");
        assert_eq!(play(130, 160, 40_000), 0, "it became shorter");
    }

    #[test]
    fn a_queue_that_fills_is_told_from_a_pause_that_ends() {
        let at = |packet: i64| packet * 10_000;
        let mut line = QueueDelay::default();
        (0..50).for_each(|packet| line.add(at(packet), at(packet)));
        let mut paused = line.clone();
        // Half of it passes; everything comes when the pause ends.
        (50..70).for_each(|packet| line.add(at(packet), at(packet) + (packet - 50) * 10_000));
        (50..60).for_each(|packet| paused.add(at(packet), at(70)));
        assert!(line.newest().1 > 150_000 && line.newest().1 == line.newest().0, "{:?}", line.newest());
        assert!(paused.newest().0 > 100_000 && paused.newest().1 == 0, "{:?}", paused.newest());
    }
}
