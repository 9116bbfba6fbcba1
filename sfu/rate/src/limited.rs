//! Is what we send limited by what there is to send, rather than by the line?

use crate::BitRate;

/// The span that counts is at least so long; all times here in microseconds.
const SPAN: i64 = 450_000;
/// And at most so long: what was sent after a longer silence was sent within it.
const MAX_SPAN: i64 = 1_000_000;
/// Marks are made with feedback and so far apart at least, and so many of them are a span; where no feedback comes, what is
/// sent makes them, so far apart as the other.
const APART: i64 = 65_000;
const UNHEARD: i64 = 500_000;
const MARKS: usize = 8;
const _: () = assert!(APART * (MARKS as i64 - 1) >= SPAN && SPAN + UNHEARD < MAX_SPAN);

/// Below this share of the target nothing is learnt about the line; above the second something is again.
const BEGINS: f64 = 0.65;
const ENDS: f64 = 0.80;

const LONG: i64 = 700_000;

/// Notices application-limited sending, during which an estimate is neither proven nor refuted.
#[derive(Debug, Default)]
#[repr(C)] // what each packet asks for comes first
pub struct ApplicationLimited {
    marked: i64,
    /// What was sent so far, modulo 2^32.
    total: u32,
    newest: u8,
    limited: bool,
    since: i64,
    /// When there was a mark, modulo 2^32, and the total then.
    marks: [(u32, u32); MARKS],
}

impl ApplicationLimited {
    #[inline]
    pub fn on_sent(&mut self, now: i64, bytes: u16) {
        if now - self.marked >= UNHEARD {
            self.mark(now);
        }
        self.total = self.total.wrapping_add(bytes.into());
    }

    /// The rate sent over the last half second or so. To be asked for with each feedback.
    pub fn sent(&mut self, now: i64) -> BitRate {
        let (mut span, mut sent) = (0, 0);
        for back in 0..MARKS {
            let (at, total) = self.marks[(usize::from(self.newest) + MARKS - back) % MARKS];
            (span, sent) = (i64::from((now as u32).wrapping_sub(at)), self.total.wrapping_sub(total));
            if span >= SPAN {
                break;
            }
        }
        if now - self.marked >= APART {
            self.mark(now);
        }
        BitRate::over(sent.into(), span.clamp(SPAN, MAX_SPAN))
    }

    fn mark(&mut self, now: i64) {
        self.newest = (self.newest + 1) % MARKS as u8;
        self.marks[usize::from(self.newest)] = (now as u32, self.total);
        self.marked = now;
    }

    /// Judges by the share of the target that [`Self::sent`] is.
    pub fn judge(&mut self, now: i64, used: f64) -> bool {
        let limited = used < if self.limited { ENDS } else { BEGINS };
        if limited && !self.limited {
            self.since = now;
        }
        self.limited = limited;
        limited
    }

    /// Not only because what is sent follows a target that just rose.
    pub fn for_long(&self, now: i64) -> bool {
        self.limited && now - self.since > LONG
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten seconds of 1,250 bytes each 10 ms: what is told with feedback of that interval, the first of which comes then.
    fn rates(first: i64, interval: i64) -> Vec<BitRate> {
        let mut limited = ApplicationLimited::default();
        let mut rates = Vec::new();
        for now in (0..10_000_000).step_by(10_000) {
            limited.on_sent(now, 1_250);
            if now >= first && (now - first) % interval == 0 {
                rates.push(limited.sent(now));
            }
        }
        rates
    }

    #[test]
    fn tells_what_is_sent_whatever_the_feedback() {
        let about = |rate: &BitRate| (960..=1_050).contains(&(rate.bps() / 1_000));
        for interval in [20_000, 50_000, 100_000, 250_000, 600_000] {
            assert!(rates(500_000, interval).iter().all(about), "each {interval} us");
        }
        assert!(rates(9_000_000, 100_000).iter().all(about), "after none for long");
    }

    #[test]
    fn after_a_pause_it_is_what_was_sent_since() {
        let mut limited = ApplicationLimited::default();
        let hour = 3_600_000_000;
        for now in (0..5).map(|packet| 2 * hour + packet * 10_000) {
            limited.on_sent(now, 1_250);
        }
        assert_eq!(limited.sent(2 * hour + 50_000), BitRate::from_kbps(50), "within a second");
        assert!(limited.judge(2 * hour + 50_000, 0.1));
    }
}
