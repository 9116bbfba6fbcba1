//! What a line carries, by what peers report that number no arrivals: the estimate of the receiver itself
//! ([REMB](https://datatracker.ietf.org/doc/html/draft-alvestrand-rmcat-remb-03)) and the share of packets that receiver
//! reports call lost.
//!
//! A receiver's estimate grows with what arrives, to half as much again, so one well above what is sent says only that
//! no queue grew. Loss then decides, as [GCC](https://datatracker.ietf.org/doc/html/draft-ietf-rmcat-gcc-02#section-6)
//! has it: much of it lowers the rate, little lets it rise. Nothing is probed: a rise is a try.

use std::time::Duration;

use crate::{BitRate, Limits, Time};

/// Above this share the rate is too much for the line, below the other it is not.
const MUCH: f64 = 0.10;
const LITTLE: f64 = 0.02;
/// How the rate rises in a second: by a share of it, or where that is little, by so much.
const GROWTH: f64 = 1.08;
const LEAST_GROWTH: BitRate = BitRate::from_kbps(20);
/// An estimate below this much of what is sent was lowered by a queue that grows.
const SLACK: f64 = 1.25;
/// So far above what is sent the rate rises: the next larger picture may cost three times as much.
const AHEAD: f64 = 4.0;
/// And to this whatever is sent: a small picture beside sound.
const ALWAYS: BitRate = BitRate::from_kbps(300);
/// In time to this where less than that is sent and nothing reported: a picture where all are paused, and be it one
/// without a smaller one.
const AFTER_SILENCE: BitRate = BitRate::from_kbps(3_000);
/// What is sent is measured, and loss is judged, over so long and so many packets at least.
const SPAN: Duration = Duration::from_millis(500);
const LEAST_PACKETS: u32 = 20;
/// Where little is sent and nothing reported, time alone lets the rate rise.
const SILENCE: Duration = Duration::from_secs(2);

/// The rate of one peer that reports so. Drive it with what is sent and what is reported; see the module's page.
#[derive(Debug)]
pub struct Reported {
    limits: Limits,
    target: BitRate,
    /// What was sent in the last span, and in the present one.
    sent: BitRate,
    bytes: u64,
    began: Time,
    /// Reported since loss was judged.
    packets: u32,
    lost: f64,
    heard: Time,
    judged: Time,
    loss: f64,
    /// When it last rose, or was held.
    settled: Time,
}

impl Reported {
    /// Begins with what the receiver estimates of a line on which nothing was held back.
    pub fn new(now: Time, limits: Limits, estimate: BitRate) -> Self {
        Self {
            limits,
            target: estimate.clamp(limits.least, limits.most),
            sent: BitRate::ZERO,
            bytes: 0,
            began: now,
            packets: 0,
            lost: 0.0,
            heard: now,
            judged: now,
            loss: 0.0,
            settled: now,
        }
    }

    /// A packet of `bytes` leaves.
    #[inline]
    pub fn on_sent(&mut self, now: Time, bytes: usize) {
        self.measure(now);
        self.bytes += bytes as u64;
    }

    /// The receiver says what it makes of its line.
    pub fn on_estimate(&mut self, now: Time, estimate: BitRate) {
        self.measure(now);
        if estimate < self.sent.scaled(SLACK) {
            self.target = self.target.min(estimate).max(self.limits.least);
        }
    }

    /// Of `packets`, this share is reported lost.
    pub fn on_report(&mut self, now: Time, packets: u32, share: f64) {
        self.measure(now);
        if packets > 0 {
            self.heard = now;
        }
        self.packets = self.packets.saturating_add(packets);
        self.lost += f64::from(packets) * share;
        if self.packets < LEAST_PACKETS || now < self.judged + SPAN {
            return;
        }
        self.loss = (self.lost / f64::from(self.packets)).clamp(0.0, 1.0);
        if self.loss > MUCH {
            let used = self.target.min(self.sent);
            self.target = used.scaled(1.0 - self.loss / 2.0).max(self.limits.least);
        } else if self.loss < LITTLE {
            self.grow(now, ALWAYS);
        }
        (self.packets, self.lost, self.judged, self.settled) = (0, 0.0, now, now);
    }

    pub fn next_timeout(&self) -> Time {
        self.settled + SILENCE
    }

    pub fn handle_timeout(&mut self, now: Time) {
        if now < self.next_timeout() {
            return;
        }
        self.measure(now);
        if now >= self.heard + SILENCE && self.sent < ALWAYS {
            (self.packets, self.lost) = (0, 0.0); // of another time
            self.grow(now, AFTER_SILENCE);
        }
        self.settled = now;
    }

    pub fn target(&self) -> BitRate {
        self.target
    }

    /// The share lost when it was last judged.
    pub fn loss(&self) -> f64 {
        self.loss
    }

    fn grow(&mut self, now: Time, always: BitRate) {
        let seconds = now.saturating_duration_since(self.settled).min(SILENCE).as_secs_f64();
        let most = self.sent.scaled(AHEAD).max(always).min(self.limits.most);
        if self.target < most {
            let least = self.target.plus(LEAST_GROWTH.scaled(seconds));
            self.target = self.target.scaled(GROWTH.powf(seconds)).max(least).min(most);
        }
    }

    fn measure(&mut self, now: Time) {
        let span = now.saturating_duration_since(self.began);
        if span >= SPAN {
            self.sent = BitRate::of(self.bytes, span);
            (self.bytes, self.began) = (0, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: usize = 1_000;

    fn start() -> Time {
        Time::ZERO + Duration::from_secs(9)
    }

    struct Line {
        reported: Reported,
        now: Time,
    }

    impl Line {
        fn new(estimate: u64) -> Self {
            let now = start();
            Self { reported: Reported::new(now, Limits::default(), BitRate::from_kbps(estimate)), now }
        }

        /// Sends so many kilobits a second, of which a share is lost, and is told so each second.
        fn send(&mut self, seconds: u32, kbps: u64, share: f64, estimate: u64) {
            let each = BitRate::from_kbps(kbps).time_for(PACKET as u64);
            for _ in 0..seconds {
                let (end, mut packets) = (self.now + Duration::from_secs(1), 0);
                while self.now < end {
                    self.reported.on_sent(self.now, PACKET);
                    (self.now, packets) = (self.now + each, packets + 1);
                }
                self.reported.on_report(self.now, packets, share);
                self.reported.on_estimate(self.now, BitRate::from_kbps(estimate));
                self.reported.handle_timeout(self.now);
            }
        }

        fn kbps(&self) -> u64 {
            self.reported.target().bps() / 1_000
        }
    }

    #[test]
    fn little_loss_lets_it_rise_by_a_twelfth_a_second_as_far_as_what_is_sent_says_something() {
        let mut line = Line::new(500);
        line.send(9, 500, 0.01, 750);
        assert!((930..1_010).contains(&line.kbps()), "doubled: {}", line.kbps());
        line.send(60, 500, 0.01, 750);
        assert!((1_900..2_100).contains(&line.kbps()), "{}", line.kbps());
    }

    #[test]
    fn some_loss_holds_it_and_much_lowers_it_below_what_is_sent() {
        let mut line = Line::new(1_000);
        line.send(10, 1_000, 0.05, 1_500);
        assert_eq!(line.kbps(), 1_000);
        line.send(1, 800, 0.2, 1_500);
        assert!((690..750).contains(&line.kbps()), "a tenth less than the 800: {}", line.kbps());
        line.send(60, 100, 0.9, 1_500);
        assert_eq!(line.kbps(), 30);
    }

    #[test]
    fn an_estimate_binds_where_it_is_near_what_is_sent() {
        let mut line = Line::new(2_000);
        line.send(3, 1_000, 0.05, 1_400);
        assert_eq!(line.kbps(), 2_000, "half as much again is all that it can say");
        line.send(1, 1_000, 0.05, 850);
        assert_eq!(line.kbps(), 850);
        line.send(1, 1_000, 0.05, 0);
        assert_eq!(line.kbps(), 30, "but for the least there is");
    }

    #[test]
    fn single_losses_of_few_packets_say_nothing() {
        let mut line = Line::new(200);
        for _ in 1..LEAST_PACKETS {
            line.now += SPAN;
            line.reported.on_report(line.now, 1, 1.0);
        }
        assert_eq!(line.kbps(), 200);
    }

    #[test]
    fn a_line_on_which_all_is_paused_is_tried_again() {
        let mut line = Line::new(40);
        line.reported.on_report(line.now, 3, 1.0);
        for _ in 0..30 {
            line.now = line.reported.next_timeout();
            line.reported.handle_timeout(line.now);
        }
        assert_eq!(line.kbps(), 3_000);
    }
}
