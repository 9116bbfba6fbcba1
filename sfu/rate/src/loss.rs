//! What loss says about the rate: only loss that depends on the rate is a reason to send less.
//!
//! A radio loses some of everything, whatever is sent; a full or policed line loses what is too much. The two look the
//! same at one rate and different at two, so [`LossControl`] keeps what was lost at which rate and compares:
//!
//! ```text
//! loss at lower rates (inherent)   loss now        then
//! known                            2 % above it    no more than was delivered
//! unknown                          10 %            less, so that it becomes known
//! otherwise                                        no limit, or the limit rises
//! ```
//!
//! A queue that others keep full loses from everybody, at any rate: there no more than 3 % is believed to be inherent, down
//! to half of what was sent when it began.

use crate::BitRate;

/// An observation spans at least so long and so many packets: fewer make a single loss look like a catastrophe. In
/// microseconds.
const SPAN: i64 = 500_000;
const LEAST_PACKETS: u32 = 40;
/// One that looks bad, though chance may have made it so, goes on for so long. In microseconds.
const LONG_SPAN: i64 = 2_000_000;
/// Packets at other rates that must be known of before they are compared with: in fewer, bursts were or were not by chance.
const COMPARED: u32 = 150;
/// Remembered observations: ten seconds and more.
const OBSERVATIONS: usize = 20;

/// Loss above what is inherent by more than this is too much rate.
const TOLERATED: f64 = 0.02;
/// So much loss is too much rate unless proven otherwise.
const SUSPECT: f64 = 0.10;
/// An observation below this share of the present rate tells what is lost at lower rates.
const LOWER: f64 = 0.92;
/// A lower rate that took less than this share of the loss away did not help; where more is lost than at the higher rate
/// by as much, the line became another meanwhile, and the two say nothing of each other.
const HELPED: f64 = 0.25;
/// More than this is no radio: nothing could be repaired.
const MAX_INHERENT: f64 = 0.35;
/// The same where a queue stands that nobody drains: it is full, and loses from everybody at any rate. At less than this
/// share of what was sent when it began, it is a radio after all.
const MAX_INHERENT_CROWDED: f64 = 0.03;
const CROWDED_LEAST: f64 = 0.5;
/// The limit is this share of what was delivered.
const BACK_OFF: f64 = 0.95;
/// The same where such a queue stands: others must see it drain.
const BACK_OFF_CROWDED: f64 = 0.8;
/// How a limit rises with each observation that gives it no reason.
const RELAX: f64 = 1.08;
/// What was observed so long ago says nothing against a probe that came through whole. In microseconds.
const STALE: i64 = 2_000_000;
/// A limit so far above what is sent limits nothing.
const IRRELEVANT: f64 = 1.5;

#[derive(Clone, Copy, Debug, Default)]
struct Observation {
    rate: BitRate,
    packets: u32,
    lost: u32,
    /// Losses in a row count as one: a radio that fades, or a run of packets that a queue takes or drops as one.
    bursts: u32,
}

/// Loss by rate, and the limit that follows. Bound: [`OBSERVATIONS`].
#[derive(Debug, Default)]
#[repr(C)]
pub struct LossControl {
    began: Option<i64>,
    last_sent: i64,
    bytes: u64,
    packets: u32,
    lost: u32,
    bursts: u32,
    in_burst: bool,
    limit: Option<BitRate>,
    inherent: Option<f64>,
    present: f64,
    /// Since a queue stands that nobody drains, the rate of the first observation.
    crowded: Option<Option<BitRate>>,
    /// When the last packet of the newest observation was sent.
    observed: i64,
    next: usize,
    observations: [Observation; OBSERVATIONS],
}

impl LossControl {
    /// Takes what became of a packet, in the order of sending.
    pub fn add(&mut self, sent: i64, bytes: u16, lost: bool) {
        self.began.get_or_insert(sent);
        self.last_sent = self.last_sent.max(sent);
        self.bytes += u64::from(bytes);
        self.packets += 1;
        self.lost += u32::from(lost);
        self.bursts += u32::from(lost && !self.in_burst);
        self.in_burst = lost;
    }

    /// Whether a queue stands that nobody drains.
    pub fn set_crowded(&mut self, is_crowded: bool) {
        self.crowded = is_crowded.then(|| self.crowded.flatten());
    }

    /// A packet that was called lost came after all.
    pub fn on_recovered(&mut self) {
        self.lost = self.lost.saturating_sub(1);
    }

    /// What was noted since the last observation was lost in a pause of the line, whatever the rate.
    pub fn forget_newest(&mut self) {
        (self.began, self.bytes, self.packets, self.lost, self.bursts) = (None, 0, 0, 0, 0);
    }

    /// After each feedback; true when the limit was just lowered.
    pub fn conclude(&mut self) -> bool {
        let Some(began) = self.began else { return false };
        let span = self.last_sent - began;
        if span < SPAN || self.packets < LEAST_PACKETS {
            return false;
        }
        let rate = BitRate::over(self.bytes, span);
        let bursts = self.bursts.min(self.lost);
        let observation = Observation { rate, packets: self.packets, lost: self.lost, bursts };
        let Some(lowered) = self.judge(observation, span >= LONG_SPAN) else { return false };
        self.forget_newest();
        self.observed = self.last_sent;
        self.observations[self.next] = observation;
        self.next = (self.next + 1) % OBSERVATIONS;
        lowered
    }

    /// A probe sent at `sent` came through at this rate without meeting a full line. Where little is sent, because little
    /// may be, no observation would ever lift the limit.
    pub fn on_proven(&mut self, sent: i64, rate: BitRate) {
        let is_stale = sent - self.observed > STALE;
        self.limit = self.limit.filter(|_| !is_stale).map(|limit| limit.max(rate));
    }

    pub fn limit(&self) -> Option<BitRate> {
        self.limit
    }

    /// The share lost in the newest observation.
    pub fn present(&self) -> f64 {
        self.present
    }

    /// More is lost than would be at lower rates.
    pub fn is_excessive(&self) -> bool {
        self.present > self.inherent.unwrap_or(0.0) + TOLERATED
    }

    /// The share lost at lower rates too.
    pub fn inherent(&self) -> Option<f64> {
        self.inherent
    }

    /// Whether the limit was lowered; nothing while chance may have lost so much.
    fn judge(&mut self, now: Observation, is_long: bool) -> Option<bool> {
        self.present = share(now.packets, now.lost);
        self.inherent = self.at_lower_rates(now.rate).or_else(|| self.unhelped(now.rate));
        let crowded_at = self.crowded.as_mut().map(|rate| *rate.get_or_insert(now.rate));
        let (most, back_off) = match crowded_at {
            Some(rate) if now.rate > rate.scaled(CROWDED_LEAST) => (MAX_INHERENT_CROWDED, BACK_OFF_CROWDED),
            _ => (1.0, BACK_OFF),
        };
        let inherent = self.inherent.map(|inherent| inherent.min(most));
        let allowed = inherent.map_or(SUSPECT, |inherent| inherent + TOLERATED);
        // Two deviations of so many throws: what chance loses is no reason. A burst is one throw.
        let throws = f64::from(now.packets) * f64::from(now.bursts.max(1)) / f64::from(now.lost.max(1));
        let likely = f64::midpoint(allowed, self.present).min(1.0);
        let chance = 2.0 * (likely * (1.0 - likely) / throws).sqrt();
        if self.present > allowed && self.present <= allowed + chance && !is_long {
            return None;
        }
        if self.present > allowed + chance {
            let inherent = inherent.unwrap_or(0.0);
            let passed = ((1.0 - self.present) / (1.0 - inherent).max(0.1)).clamp(0.0, 1.0);
            let limit = now.rate.scaled(passed * back_off);
            self.limit = Some(self.limit.map_or(limit, |before| before.min(limit)));
            return Some(true);
        }
        let relaxed = self.limit.map(|limit| limit.max(now.rate.scaled(BACK_OFF)).scaled(RELAX));
        self.limit = relaxed.filter(|limit| *limit < now.rate.scaled(IRRELEVANT));
        Some(false)
    }

    fn at_lower_rates(&self, rate: BitRate) -> Option<f64> {
        let lower = rate.scaled(LOWER);
        self.lost_where(|observed| observed < lower)
    }

    /// What is lost at present, if it is about what was lost at higher rates.
    fn unhelped(&self, rate: BitRate) -> Option<f64> {
        let higher = self.lost_where(|observed| observed.scaled(LOWER) > rate)?;
        let like_higher = higher * (1.0 - HELPED)..higher * (1.0 + HELPED) + TOLERATED;
        (like_higher.contains(&self.present) && self.present < MAX_INHERENT).then_some(self.present)
    }

    fn lost_where(&self, rate: impl Fn(BitRate) -> bool) -> Option<f64> {
        let (packets, lost) = self
            .observations
            .iter()
            .filter(|observation| observation.packets > 0 && rate(observation.rate))
            .fold((0_u32, 0_u32), |(packets, lost), one| {
                (packets.saturating_add(one.packets), lost.saturating_add(one.lost))
            });
        (packets >= COMPARED).then(|| share(packets, lost))
    }
}

fn share(packets: u32, lost: u32) -> f64 {
    f64::from(lost) / f64::from(packets.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten seconds at rates that `rate` chooses by the limit, over a line that loses as `loss` says.
    fn play(
        mut rate: impl FnMut(&LossControl, i64) -> BitRate,
        loss: impl Fn(BitRate) -> f64,
    ) -> LossControl {
        let (mut control, mut at, mut owed) = (LossControl::default(), 0, 0.0);
        while at < 10_000_000 {
            let rate = rate(&control, at);
            at += rate.time_for(1_000).as_micros() as i64;
            owed += loss(rate);
            let lost = owed >= 1.0;
            owed -= f64::from(u8::from(lost));
            control.add(at, 1_000, lost);
            control.conclude();
        }
        control
    }

    #[test]
    fn a_radio_that_loses_some_of_everything_sets_no_limit() {
        let ramp = |_: &LossControl, at: i64| BitRate::from_kbps(500).scaled(1.0 + at as f64 / 5e6);
        let control = play(ramp, |_| 0.05);
        assert_eq!(control.limit(), None);
        assert!(control.inherent().is_some_and(|inherent| (0.03..0.07).contains(&inherent)));
    }

    #[test]
    fn losses_in_bursts_set_no_limit_though_a_window_looks_bad() {
        let mut control = LossControl::default();
        for packet in 0..2_000_i64 {
            // Five in a row of each 150: 3 %, but up to 12 % of what half a second brings.
            control.add(packet * 12_000, 1_000, packet % 150 < 5);
            control.conclude();
            assert_eq!(control.limit(), None, "packet {packet}, loss {}", control.present());
        }
    }

    #[test]
    fn three_per_cent_in_runs_of_six_by_chance_set_no_limit_for_long() {
        let (mut state, mut left, mut limited) = (7_u64, 0, 0);
        let mut control = LossControl::default();
        let packets = 20_000;
        for packet in 0..packets {
            if packet % 6 == 0 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                left = if (state >> 33) % 1_000 < 30 { 6 } else { 0 };
            }
            control.add(packet * 8_000, 1_000, left > 0);
            control.conclude();
            limited += i64::from(control.limit().is_some());
        }
        assert!(limited < packets / 50, "limited for {limited} of {packets}");
    }

    #[test]
    fn much_loss_is_no_limit_once_less_rate_did_not_help() {
        let obedient = |control: &LossControl, _: i64| {
            control.limit().unwrap_or(BitRate::MAX).min(BitRate::from_kbps(1_000))
        };
        let control = play(obedient, |_| 0.2);
        let limit = control.limit().unwrap_or(BitRate::MAX);
        assert!(limit > BitRate::from_kbps(700), "{limit}");
    }

    #[test]
    fn a_line_that_becomes_worse_is_no_radio() {
        let (mut control, mut at, mut owed) = (LossControl::default(), 0, 0.0);
        while at < 8_000_000 {
            // A policed line, and from the fourth second on one that passes a third of what it did.
            let line = BitRate::from_kbps(if at < 4_000_000 { 900 } else { 300 });
            let rate = control.limit().unwrap_or(BitRate::MAX).min(BitRate::from_kbps(1_200));
            at += rate.time_for(1_000).as_micros() as i64;
            owed += 1.0 - line.ratio(rate.max(line));
            let lost = owed >= 1.0;
            owed -= f64::from(u8::from(lost));
            control.add(at, 1_000, lost);
            control.conclude();
        }
        let limit = control.limit().expect("much was lost");
        assert!((200..400).contains(&(limit.bps() / 1_000)), "{limit}");
    }

    #[test]
    fn a_policed_line_limits_to_what_it_passes() {
        let line = BitRate::from_kbps(600);
        let obedient = |control: &LossControl, _: i64| {
            control.limit().unwrap_or(BitRate::MAX).min(BitRate::from_kbps(1_200))
        };
        let control = play(obedient, |rate| 1.0 - line.ratio(rate.max(line)));
        let limit = control.limit().expect("half was lost");
        assert!((500..700).contains(&(limit.bps() / 1_000)), "{limit}");
    }

    #[test]
    fn a_queue_that_stays_full_is_no_radio() {
        let ramp = |at: i64| BitRate::from_kbps(500).scaled(1.0 + (at as f64 / 2e6).sin() / 2.0);
        let mut free = play(|_, at| ramp(at), |_| 0.2);
        assert_eq!(free.limit(), None, "it loses as much at any rate");
        free.set_crowded(true);
        let mut at = 10_000_000;
        let limits = (0..2_000).map(|packet| {
            let rate =
                free.limit().map_or(BitRate::from_kbps(500), |limit| limit.min(BitRate::from_kbps(500)));
            at += rate.time_for(1_000).as_micros() as i64;
            free.add(at, 1_000, packet % 5 == 0);
            free.conclude();
            free.limit().unwrap_or(BitRate::MAX)
        });
        let least = limits.min().expect("packets were sent");
        let half = BitRate::from_kbps(250);
        assert!(least < half, "{least}");
        assert!(
            least > half.scaled(0.6),
            "where half as much does not help, it is a radio after all: {least}"
        );
    }
}
