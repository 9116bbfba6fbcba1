//! What demonstrably went through.

use crate::BitRate;

/// Packets that arrived within this time are kept as one. In microseconds.
const STEP: i64 = 5_000;
/// The span of [`Acknowledged::recent`]: a change of the line shows after as long. Video comes in frames; less than
/// some of them measures the frame and not the line.
const RECENT: i64 = 200_000;
/// The span of [`Acknowledged::steady`]: smooths key frames and pauses.
const STEADY: i64 = 750_000;
/// No rate is told from less.
const LEAST: i64 = 80_000;
/// The span of [`Acknowledged::full`], and how much of it is enough.
const FULL: i64 = 200_000;
const FULL_LEAST: i64 = 50_000;
/// What came so long ago says nothing of the line now.
const FULL_AGE: i64 = 600_000;
const _: () = assert!(FULL_AGE <= STEADY);
/// So long without an arrival (in microseconds), and then so many bytes at once, was a pause of something on the way and
/// not a slow line, from which they come one by one.
const PAUSE: i64 = 50_000;
const AFTER_PAUSE: u32 = 4_000;
/// [`STEADY`] in [`STEP`]s, and some; and how many there is room for at first. Powers of two, so that places in the ring
/// are cheap to tell.
const MAX_STEPS: usize = 256;
const FIRST_STEPS: usize = 16;

#[derive(Clone, Copy, Debug, Default)]
struct Step {
    sent: i64,
    arrived: i64,
    bytes: u32,
    /// All of its packets waited in a queue.
    queued: bool,
    /// Between this step and the next lie packets that no feedback told of.
    interrupted: bool,
    before: Totals,
}

/// Of all steps before one: a step's bytes take until the next one. Times that nothing is told of are left out.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    bytes: u64,
    sent: i64,
    arrived: i64,
}

impl Totals {
    /// With `step`, which the next one follows `sent` and `arrived` later.
    fn with(self, step: &Step, sent: i64, arrived: i64) -> Self {
        if step.interrupted {
            return self;
        }
        Self {
            bytes: self.bytes + u64::from(step.bytes),
            sent: self.sent + sent - step.sent,
            arrived: self.arrived + arrived - step.arrived,
        }
    }
}

/// What a line carried while it was full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FullLine {
    pub rate: BitRate,
    /// More was sent than arrived meanwhile, so that it was us who filled it.
    pub grew: bool,
}

/// Arrivals that take longer by this than sending did are of a queue that grows.
const GREW: f64 = 1.1;

/// The rate of what arrived, never above the rate at which it was sent: receivers that squeeze their clocks prove
/// nothing.
///
/// Bound: [`MAX_STEPS`]. Owns no memory before the first arrival.
#[derive(Debug, Default)]
pub struct Acknowledged {
    steps: Steps,
    /// Where the newest [`RECENT`] and [`STEADY`] begin, as numbers of steps: a search would touch memory that is cold by
    /// the time of the next feedback.
    recent: usize,
    steady: usize,
    /// When the newest packet that waited in a queue arrived.
    queued: Option<i64>,
}

/// The newest steps, numbered from zero on. As few as are needed: a ring that is longer is cold wherever it is written.
#[derive(Debug, Default)]
struct Steps {
    /// By number modulo its length, a power of two.
    ring: Vec<Step>,
    first: usize,
    end: usize,
}

impl Steps {
    fn get(&self, number: usize) -> Option<&Step> {
        let is_kept = self.first <= number && number < self.end;
        if is_kept { self.ring.get(self.place(number)) } else { None }
    }

    fn newest(&self) -> Option<&Step> {
        self.get(self.end.wrapping_sub(1))
    }

    fn newest_mut(&mut self) -> Option<&mut Step> {
        let place = self.place(self.end.wrapping_sub(1));
        if self.first < self.end { self.ring.get_mut(place) } else { None }
    }

    /// Those before `needed` make room.
    fn push(&mut self, step: Step, needed: usize) {
        if self.end - self.first == self.ring.len() {
            if self.first < needed || self.ring.len() == MAX_STEPS {
                self.first += 1;
            } else {
                self.grow();
            }
        }
        let place = self.place(self.end);
        self.ring[place] = step;
        self.end += 1;
    }

    fn grow(&mut self) {
        let mut ring = vec![Step::default(); (self.ring.len() * 2).max(FIRST_STEPS)];
        let mask = ring.len() - 1;
        for number in self.first..self.end {
            ring[number & mask] = self.ring[self.place(number)];
        }
        self.ring = ring;
    }

    fn place(&self, number: usize) -> usize {
        number & self.ring.len().wrapping_sub(1)
    }

    fn clear(&mut self) {
        self.first = self.end;
    }

    /// From the newest on.
    fn back(&self) -> impl Iterator<Item = &Step> {
        (self.first..self.end).rev().filter_map(|number| self.get(number))
    }
}

impl Acknowledged {
    /// Takes a packet that arrived, and whether it waited in a queue; packets come in the order of sending. Times in
    /// microseconds.
    pub fn add(&mut self, sent: i64, arrived: i64, bytes: u16, queued: bool) {
        if queued {
            self.queued = self.queued.max(Some(arrived));
        }
        let mut before = Totals::default();
        if let Some(last) = self.steps.newest_mut() {
            if arrived - last.arrived < STEP && !last.interrupted {
                last.bytes = last.bytes.saturating_add(bytes.into());
                last.queued &= queued;
                return;
            }
            before = last.before.with(last, sent, arrived);
        }
        let step = Step { sent, arrived, bytes: bytes.into(), queued, interrupted: false, before };
        self.steps.push(step, self.recent.min(self.steady));
        self.recent = self.advanced(self.recent, before, RECENT);
        self.steady = self.advanced(self.steady, before, STEADY);
    }

    /// The last step that lies a whole span before the newest, or the first of all; `from` was it before.
    fn advanced(&self, from: usize, newest: Totals, span: i64) -> usize {
        let Steps { ring, first, end } = &self.steps;
        let mut at = from.max(*first);
        while at + 1 < *end {
            let step = &ring[self.steps.place(at + 1)];
            if newest.arrived - step.before.arrived < span {
                break;
            }
            at += 1;
        }
        at
    }

    /// A feedback was lost: nothing is told of the time up to the next packet.
    pub fn interrupt(&mut self) {
        if let Some(last) = self.steps.newest_mut() {
            last.interrupted = true;
        }
    }

    pub fn clear(&mut self) {
        self.steps.clear();
        (self.recent, self.steady, self.queued) = (self.steps.first, self.steps.first, None);
    }

    /// Over the newest [`RECENT`]; on a full line this is what the line carries.
    pub fn recent(&self) -> Option<BitRate> {
        self.since(self.recent)
    }

    pub fn steady(&self) -> Option<BitRate> {
        self.since(self.steady)
    }

    /// What the line carried of late while packets waited for it. What arrives otherwise says how much was sent, and
    /// nothing of how much there could be.
    pub fn full(&self) -> Option<FullLine> {
        let newest = self.steps.newest()?.arrived;
        if newest - self.queued? > FULL_AGE {
            return None;
        }
        let (mut bytes, mut sent, mut arrived) = (0, 0, 0);
        for (step, next) in self.steps.back().skip(1).zip(self.steps.back()) {
            if arrived >= FULL || newest - step.arrived > FULL_AGE {
                break;
            }
            // A line that is full when a step came and when the next did was so between, unless it paused.
            let paused = next.arrived - step.arrived > PAUSE && next.bytes > AFTER_PAUSE;
            if step.queued && next.queued && !step.interrupted && !paused {
                bytes += u64::from(step.bytes);
                sent += next.sent - step.sent;
                arrived += next.arrived - step.arrived;
            }
        }
        let covered = arrived.max(sent);
        (covered >= FULL_LEAST).then(|| FullLine {
            rate: BitRate::over(bytes, covered),
            grew: arrived as f64 > sent as f64 * GREW,
        })
    }

    /// Between that step and the newest.
    fn since(&self, oldest: usize) -> Option<BitRate> {
        let newest = self.steps.newest()?.before;
        let oldest = self.steps.get(oldest)?.before;
        let (sent, arrived) = (newest.sent - oldest.sent, newest.arrived - oldest.arrived);
        let covered = arrived.max(sent);
        (covered >= LEAST).then(|| BitRate::over(newest.bytes - oldest.bytes, covered))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_what_arrives() {
        let mut acknowledged = Acknowledged::default();
        assert_eq!(acknowledged.recent(), None);
        for packet in 0..1_000 {
            acknowledged.add(packet * 5_000, packet * 10_000, 1_250, false);
        }
        assert_eq!(acknowledged.recent(), Some(BitRate::from_kbps(1_000)));
        assert_eq!(acknowledged.steady(), Some(BitRate::from_kbps(1_000)));
        assert!(acknowledged.steps.end - acknowledged.steps.first <= MAX_STEPS);
    }

    #[test]
    fn spans_begin_where_they_should() {
        let mut acknowledged = Acknowledged::default();
        let mut at = 0;
        for packet in 0..4_000_i64 {
            // Now in steps of 20 ms on average, now one after the other, so that the ring grows to its bound.
            at += if packet / 1_000 % 2 == 0 { 1_000 + packet * 7_919 % 40_000 } else { 5_000 };
            if packet % 97 == 0 {
                acknowledged.interrupt();
            }
            acknowledged.add(at, at, 1_000, false);
            let steps = &acknowledged.steps;
            let newest = steps.newest().unwrap().before.arrived;
            for (number, span) in [(acknowledged.recent, RECENT), (acknowledged.steady, STEADY)] {
                let lies_before = |step: &Step| newest - step.before.arrived >= span;
                let before = (steps.first..steps.end).map_while(|number| steps.get(number));
                let before = before.take_while(|step| lies_before(step)).count();
                assert_eq!(number, steps.first + before.saturating_sub(1), "packet {packet}");
            }
        }
        acknowledged.clear();
        acknowledged.add(0, 0, 1_000, false);
        let first = acknowledged.steps.first;
        assert_eq!((acknowledged.recent, acknowledged.steady), (first, first));
        assert_eq!(acknowledged.steady(), None);
    }

    #[test]
    fn squeezed_arrivals_prove_no_more_than_was_sent() {
        let mut acknowledged = Acknowledged::default();
        for packet in 0..1_000 {
            acknowledged.add(packet * 10_000, packet * 5_000, 1_250, false);
        }
        assert_eq!(acknowledged.steady(), Some(BitRate::from_kbps(1_000)));
    }

    #[test]
    fn a_pause_is_no_slow_line() {
        let mut acknowledged = Acknowledged::default();
        // 1 Mbit/s that waits a little, a pause of 150 ms, and what was held up at once.
        let mut add = |sent: i64, arrived: i64| acknowledged.add(sent, arrived, 1_250, true);
        (0..20).for_each(|packet| add(packet * 10_000, packet * 10_000 + 20_000));
        (20..35).for_each(|packet| add(packet * 10_000, 361_000 + packet * 100));
        let full = acknowledged.full().expect("packets waited");
        assert!(full.rate >= BitRate::from_kbps(900), "{full:?}");
    }

    #[test]
    fn a_full_line_is_measured_while_it_is_full() {
        let mut acknowledged = Acknowledged::default();
        // 100 kbit/s on a wide line, then a burst that waits, then as before.
        (0..20).for_each(|packet| acknowledged.add(packet * 20_000, packet * 20_000, 250, false));
        assert_eq!(acknowledged.full(), None);
        (0..11).for_each(|packet| {
            acknowledged.add(400_000 + packet, 410_000 + packet * 10_000, 1_250, packet > 0);
        });
        (0..5).for_each(|packet| {
            acknowledged.add(520_000 + packet * 20_000, 520_000 + packet * 20_000, 250, false);
        });
        assert_eq!(acknowledged.full(), Some(FullLine { rate: BitRate::from_kbps(1_000), grew: true }));
    }
}
