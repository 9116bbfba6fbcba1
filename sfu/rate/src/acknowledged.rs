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
/// After so long without an arrival, or of packets sent so far apart, nothing from before is compared with.
const FORGOTTEN: i64 = 1 << 22;
/// [`STEADY`] in [`STEP`]s, and some; and how many there is room for at first. Powers of two, so that places in the ring
/// are cheap to tell.
const MAX_STEPS: u32 = 256;
const FIRST_STEPS: u32 = 16;
/// What lies between any two steps fits into their 32 bits.
const _: () = assert!(MAX_STEPS as i64 * FORGOTTEN < 1 << 31);

/// Packets that arrived together. Times are the low halves of microseconds, less those that nothing was told of: what is far
/// away in memory costs more than putting them together, and all that is asked of them is how far apart they are.
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    sent: u32,
    arrived: u32,
    bytes: u32,
    /// The bytes of all steps before it, modulo 2^32: a step's bytes take until the next one.
    before: u32,
    /// All of its packets waited in a queue.
    queued: bool,
    /// Between this step and the next lie packets that no feedback told of.
    interrupted: bool,
    /// For so many milliseconds.
    untold: u16,
}

/// How much later one time is than another.
fn apart(later: u32, earlier: u32) -> i64 {
    later.wrapping_sub(earlier).cast_signed().into()
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
    /// Where the newest [`RECENT`] and [`STEADY`] begin, in steps before the newest: a search would touch memory that is
    /// cold by the time of the next feedback.
    recent: u32,
    steady: u32,
    /// When the newest step was sent and arrived, if there is one.
    newest: (i64, i64),
    /// How much of what was sent, and arrived, up to then took times that nothing was told of.
    untold: (i64, i64),
    /// When the newest packet that waited in a queue arrived.
    queued: Option<i64>,
}

/// The newest steps, counted back from the newest. As few as are needed: a ring that is longer is cold wherever it is
/// written.
#[derive(Debug, Default)]
struct Steps {
    /// By number modulo its length, a power of two.
    ring: Box<[Step]>,
    /// The number of the next, and how many before it are kept.
    next: u32,
    len: u32,
}

impl Steps {
    fn get(&self, back: u32) -> Option<&Step> {
        if back < self.len { self.ring.get(self.place(back)) } else { None }
    }

    fn newest_mut(&mut self) -> Option<&mut Step> {
        let place = self.place(0);
        if self.len > 0 { self.ring.get_mut(place) } else { None }
    }

    /// Of those before the newest `needed`, one makes room.
    fn push(&mut self, step: Step, needed: u32) {
        let room = self.ring.len() as u32;
        if self.len == room && self.len <= needed && room < MAX_STEPS {
            self.grow();
        }
        self.next = self.next.wrapping_add(1);
        self.len = (self.len + 1).min(self.ring.len() as u32);
        let place = self.place(0);
        self.ring[place] = step;
    }

    #[cold]
    fn grow(&mut self) {
        let room = (self.ring.len() as u32 * 2).max(FIRST_STEPS);
        let mut ring = vec![Step::default(); room as usize].into_boxed_slice();
        for back in 0..self.len {
            ring[(self.next.wrapping_sub(1 + back) & (room - 1)) as usize] = self.ring[self.place(back)];
        }
        self.ring = ring;
    }

    fn place(&self, back: u32) -> usize {
        self.next.wrapping_sub(1 + back) as usize & self.ring.len().wrapping_sub(1)
    }
}

impl Acknowledged {
    /// Takes a packet that arrived, and whether it waited in a queue; packets come in the order of sending. Times in
    /// microseconds.
    pub fn add(&mut self, sent: i64, arrived: i64, bytes: u16, queued: bool) {
        let (sent_after, arrived_after) = (sent - self.newest.0, arrived - self.newest.1);
        if sent_after >= FORGOTTEN || arrived_after >= FORGOTTEN {
            self.clear();
        }
        if queued {
            self.queued = self.queued.max(Some(arrived));
        }
        let mut before = 0;
        if let Some(last) = self.steps.newest_mut() {
            if arrived_after < STEP && !last.interrupted {
                last.bytes = last.bytes.saturating_add(bytes.into());
                last.queued &= queued;
                return;
            }
            before = last.before;
            if last.interrupted {
                last.untold = u16::try_from(arrived_after / 1_000).unwrap_or_default();
                self.untold = (self.untold.0 + sent_after, self.untold.1 + arrived_after);
            } else {
                before = before.wrapping_add(last.bytes);
            }
            (self.recent, self.steady) = (self.recent + 1, self.steady + 1);
        }
        self.newest = (sent, arrived);
        let step = Step {
            sent: (sent - self.untold.0) as u32,
            arrived: (arrived - self.untold.1) as u32,
            bytes: bytes.into(),
            before,
            queued,
            interrupted: false,
            untold: 0,
        };
        self.steps.push(step, self.recent.max(self.steady));
    }

    /// All that a feedback told of has been added: the spans end with the newest of it.
    pub fn settle(&mut self) {
        self.recent = self.advanced(self.recent, RECENT);
        self.steady = self.advanced(self.steady, STEADY);
    }

    /// The last step that lies a whole span before the newest, or the first of all; `from` was it before.
    fn advanced(&self, from: u32, span: i64) -> u32 {
        let Some(newest) = self.steps.get(0) else { return 0 };
        let mut at = from.min(self.steps.len - 1);
        while at > 0 {
            let step = &self.steps.ring[self.steps.place(at - 1)];
            if apart(newest.arrived, step.arrived) < span {
                break;
            }
            at -= 1;
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
        self.steps.len = 0;
        (self.recent, self.steady, self.queued) = (0, 0, None);
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
        if self.newest.1 - self.queued? > FULL_AGE {
            return None;
        }
        let mut next = self.steps.get(0)?;
        let newest = next.arrived;
        let (mut bytes, mut sent, mut arrived, mut untold) = (0, 0, 0, 0);
        for step in (1..self.steps.len).map_while(|back| self.steps.get(back)) {
            untold += i64::from(step.untold) * 1_000;
            if arrived >= FULL || apart(newest, step.arrived) + untold > FULL_AGE {
                break;
            }
            let took = apart(next.arrived, step.arrived);
            // A line that is full when a step came and when the next did was so between, unless it paused.
            let paused = took > PAUSE && next.bytes > AFTER_PAUSE;
            if step.queued && next.queued && !step.interrupted && !paused {
                bytes += u64::from(step.bytes);
                sent += apart(next.sent, step.sent);
                arrived += took;
            }
            next = step;
        }
        let covered = arrived.max(sent);
        (covered >= FULL_LEAST).then(|| FullLine {
            rate: BitRate::over(bytes, covered),
            grew: arrived as f64 > sent as f64 * GREW,
        })
    }

    /// Between the step so far back and the newest.
    fn since(&self, back: u32) -> Option<BitRate> {
        let (newest, oldest) = (self.steps.get(0)?, self.steps.get(back)?);
        let covered = apart(newest.arrived, oldest.arrived).max(apart(newest.sent, oldest.sent));
        let bytes = newest.before.wrapping_sub(oldest.before);
        (covered >= LEAST).then(|| BitRate::over(bytes.into(), covered))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Acknowledged {
        /// A feedback that tells of one packet.
        fn take(&mut self, sent: i64, arrived: i64, bytes: u16, queued: bool) {
            self.add(sent, arrived, bytes, queued);
            self.settle();
        }
    }

    #[test]
    fn measures_what_arrives() {
        let mut acknowledged = Acknowledged::default();
        assert_eq!(acknowledged.recent(), None);
        for packet in 0..1_000 {
            acknowledged.take(packet * 5_000, packet * 10_000, 1_250, false);
        }
        assert_eq!(acknowledged.recent(), Some(BitRate::from_kbps(1_000)));
        assert_eq!(acknowledged.steady(), Some(BitRate::from_kbps(1_000)));
        assert!(acknowledged.steps.len <= MAX_STEPS);
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
            acknowledged.take(at, at, 1_000, false);
            let steps = &acknowledged.steps;
            let newest = steps.get(0).unwrap().arrived;
            for (back, span) in [(acknowledged.recent, RECENT), (acknowledged.steady, STEADY)] {
                let lies_before = |step: &Step| apart(newest, step.arrived) >= span;
                let after = (0..steps.len).map_while(|back| steps.get(back));
                let after = after.take_while(|step| !lies_before(step)).count() as u32;
                assert_eq!(back, after.min(steps.len - 1), "packet {packet}");
            }
        }
        acknowledged.clear();
        acknowledged.take(at, at, 1_000, false);
        assert_eq!((acknowledged.recent, acknowledged.steady, acknowledged.steps.len), (0, 0, 1));
        assert_eq!(acknowledged.steady(), None);
    }

    #[test]
    fn what_came_before_a_long_pause_is_forgotten() {
        let mut acknowledged = Acknowledged::default();
        (0..200).for_each(|packet| acknowledged.take(packet * 10_000, packet * 10_000, 1_250, true));
        acknowledged.take(FORGOTTEN + 2_000_000, FORGOTTEN + 2_000_000, 1_250, false);
        assert_eq!((acknowledged.steady(), acknowledged.full()), (None, None));
        // Who says that all of a day arrived at once proves nothing.
        let mut squeezed = Acknowledged::default();
        (0..86_400 * 2).for_each(|packet| squeezed.take(packet * 500_000, packet * 50, 1_250, false));
        assert_eq!(squeezed.steady(), None);
    }

    #[test]
    fn squeezed_arrivals_prove_no_more_than_was_sent() {
        let mut acknowledged = Acknowledged::default();
        for packet in 0..1_000 {
            acknowledged.take(packet * 10_000, packet * 5_000, 1_250, false);
        }
        assert_eq!(acknowledged.steady(), Some(BitRate::from_kbps(1_000)));
    }

    #[test]
    fn a_pause_is_no_slow_line() {
        let mut acknowledged = Acknowledged::default();
        // 1 Mbit/s that waits a little, a pause of 150 ms, and what was held up at once.
        let mut add = |sent: i64, arrived: i64| acknowledged.take(sent, arrived, 1_250, true);
        (0..20).for_each(|packet| add(packet * 10_000, packet * 10_000 + 20_000));
        (20..35).for_each(|packet| add(packet * 10_000, 361_000 + packet * 100));
        let full = acknowledged.full().expect("packets waited");
        assert!(full.rate >= BitRate::from_kbps(900), "{full:?}");
    }

    #[test]
    fn a_full_line_is_measured_while_it_is_full() {
        let mut acknowledged = Acknowledged::default();
        // 100 kbit/s on a wide line, then a burst that waits, then as before.
        (0..20).for_each(|packet| acknowledged.take(packet * 20_000, packet * 20_000, 250, false));
        assert_eq!(acknowledged.full(), None);
        (0..11).for_each(|packet| {
            acknowledged.take(400_000 + packet, 410_000 + packet * 10_000, 1_250, packet > 0);
        });
        (0..5).for_each(|packet| {
            acknowledged.take(520_000 + packet * 20_000, 520_000 + packet * 20_000, 250, false);
        });
        assert_eq!(acknowledged.full(), Some(FullLine { rate: BitRate::from_kbps(1_000), grew: true }));
    }

    #[test]
    fn what_was_full_before_feedback_was_lost_for_long_says_nothing() {
        let told = |gap: i64| {
            let mut acknowledged = Acknowledged::default();
            (0..40).for_each(|packet| acknowledged.take(packet * 9_000, packet * 10_000, 1_250, true));
            acknowledged.interrupt();
            (0..5).for_each(|packet| {
                let at = 400_000 + gap + packet * 10_000;
                acknowledged.take(at, at, 250, true);
            });
            acknowledged.full().map(|full| full.rate > BitRate::from_kbps(800))
        };
        assert_eq!(told(100_000), Some(true), "of most of what came of late");
        assert_eq!(told(3_000_000), None);
    }
}
