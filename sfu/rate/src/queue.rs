//! How long packets wait on the way, over the least they ever took.

/// A least delay is believed for one to two of these: clocks drift by less than 2 ms meanwhile, and a path that became
/// longer is understood at last. In microseconds.
const EPOCH: i64 = 10_000_000;
/// The newest delay is the least of this long, which takes jitter out of it.
const RECENT: i64 = 60_000;

/// The queueing delay from one-way delays on two clocks that agree on nothing but a second's length.
#[derive(Debug, Default)]
pub struct QueueDelay {
    /// Least delays of the present and the previous epoch.
    base: [Option<i64>; 2],
    epoch_began: Option<i64>,
    recent: [Option<i64>; 2],
    recent_began: i64,
    newest: i64,
}

impl QueueDelay {
    /// Takes a packet's times in microseconds, each on its own clock.
    pub fn add(&mut self, sent: i64, arrived: i64) {
        let delay = arrived - sent;
        self.newest = delay;
        let began = *self.epoch_began.get_or_insert(sent);
        if sent - began > EPOCH {
            self.base = [None, self.base[0]];
            self.epoch_began = Some(sent);
        }
        if sent - self.recent_began > RECENT {
            self.recent = [None, self.recent[0]];
            self.recent_began = sent;
        }
        for least in [&mut self.base[0], &mut self.recent[0]] {
            *least = Some(least.map_or(delay, |least| least.min(delay)));
        }
    }

    /// The least queueing delay of late, in microseconds.
    pub fn recent(&self) -> i64 {
        let base = self.base.iter().flatten().min();
        let recent = self.recent.iter().flatten().min();
        recent.zip(base).map_or(0, |(recent, base)| recent - base)
    }

    /// What the newest packet met, jitter included.
    pub fn newest(&self) -> i64 {
        self.base.iter().flatten().min().map_or(0, |base| self.newest - base)
    }

    /// Takes the present delay for the path's: a queue that does not drain is not ours.
    pub fn rebase(&mut self) {
        let recent = self.recent.iter().flatten().min().copied();
        self.base = [recent, None];
        self.epoch_began = None;
    }
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
}
