use proptest::prelude::*;
use weir_rtp::rtcp::{Compound, RtcpPacket, RtcpWriter};

use super::*;

fn start() -> Time {
    Time::ZERO + Duration::from_secs(9)
}

/// An estimator and the far end of its line.
struct Pair {
    now: Time,
    begin: Time,
    estimator: Estimator,
    /// Sent, not yet reported: the number and when.
    waiting: Vec<(u16, Duration)>,
    /// What the receiver's clock shows at the beginning, in ticks.
    clock: u64,
}

impl Pair {
    fn new() -> Self {
        let now = start();
        Self {
            now,
            begin: now,
            estimator: Estimator::new(now, Limits::default()),
            waiting: Vec::new(),
            clock: 4_000 * 1_000,
        }
    }

    /// Sends `rate` in packets of 500 bytes for `time`; what `arrival` says of each sending time is reported each 50 ms.
    fn run(&mut self, time: Duration, rate: BitRate, mut arrival: impl FnMut(Duration) -> Option<Duration>) {
        let (end, step) = (self.now + time, rate.time_for(500));
        let mut report = self.now + Duration::from_millis(50);
        while self.now < end {
            self.now += step;
            self.estimator.handle_timeout(self.now);
            let number = self.estimator.on_sent(self.now, 500, None);
            self.waiting.push((number, self.now - self.begin));
            if self.now >= report {
                report += Duration::from_millis(50);
                let told: Vec<_> = self.waiting.drain(..).map(|(number, at)| (number, arrival(at))).collect();
                self.report(&told);
            }
        }
    }

    fn report(&mut self, told: &[(u16, Option<Duration>)]) {
        let clock = self.clock;
        let ticks = |at: Duration| clock + (at.as_micros() / 250) as u64;
        let mut rest = told;
        while !rest.is_empty() {
            let mut buffer = [0; 1_200];
            let mut writer = RtcpWriter::new(&mut buffer);
            let packets = rest.iter().map(|(number, at)| (*number, at.map(ticks)));
            let consumed = writer.transport_feedback(1, 2, 0, packets);
            let len = writer.finish();
            self.take(&buffer[..len]);
            rest = &rest[consumed.max(1)..];
        }
    }

    fn take(&mut self, datagram: &[u8]) {
        for packet in Compound::new(datagram).flatten() {
            if let RtcpPacket::TransportFeedback(feedback) = packet {
                self.estimator.on_feedback(self.now, &feedback);
            }
        }
    }
}

const DELAY: Duration = Duration::from_millis(40);

#[test]
fn grows_while_nothing_queues_but_not_beyond_what_was_proven() {
    let mut pair = Pair::new();
    let rate = BitRate::from_kbps(290);
    pair.run(Duration::from_secs(60), rate, |sent| Some(sent + DELAY));
    let target = pair.estimator.target();
    assert!(target > rate.scaled(1.15) && target <= rate.scaled(1.6), "{target}");
    assert_eq!(pair.estimator.disbelieved(), Disbelieved::default());
}

#[test]
fn the_first_estimate_is_a_guess_until_a_queue_or_some_feedback_tells() {
    let mut pair = Pair::new();
    assert!(pair.estimator.is_guess());
    pair.run(Duration::from_millis(210), BitRate::from_kbps(200), |at| Some(at + DELAY));
    assert!(pair.estimator.is_guess(), "it heard four times");
    pair.run(Duration::from_millis(200), BitRate::from_kbps(200), |at| Some(at + DELAY));
    assert!(!pair.estimator.is_guess());
}

#[test]
fn a_receiver_that_squeezes_its_clock_proves_no_more_than_was_sent() {
    let mut pair = Pair::new();
    let rate = BitRate::from_kbps(250);
    // Ten times as fast as it was sent, and all at once.
    pair.run(Duration::from_secs(20), rate, |sent| Some(sent / 10 + DELAY));
    assert!(pair.estimator.target() <= rate.scaled(1.6), "{}", pair.estimator.target());
    pair.run(Duration::from_secs(20), rate, |_| Some(DELAY));
    assert!(pair.estimator.target() <= rate.scaled(1.6), "{}", pair.estimator.target());
}

#[test]
fn a_growing_queue_brings_it_below_what_passes() {
    let mut pair = Pair::new();
    let rate = BitRate::from_kbps(290);
    pair.run(Duration::from_secs(2), rate, |sent| Some(sent + DELAY));
    let from = pair.now - pair.begin;
    // Half the rate passes from here on.
    pair.run(Duration::from_millis(600), rate, |sent| Some(sent + DELAY + sent.saturating_sub(from)));
    let target = pair.estimator.target();
    assert!(target < rate.scaled(0.6), "{target}");
    assert_eq!(pair.estimator.explain().because, Because::Drain);
    let sustainable = pair.estimator.sustainable();
    assert!(
        sustainable > target && sustainable <= rate.scaled(0.6),
        "layers are not to follow the draining: {sustainable}"
    );
}

/// Everything that arrives within the pause is seen at its end.
#[test]
fn a_receiver_that_stands_still_for_a_moment_is_no_full_line() {
    let mut pair = Pair::new();
    let rate = BitRate::from_kbps(290);
    pair.run(Duration::from_secs(5), rate, |sent| Some(sent + DELAY));
    let before = pair.estimator.sustainable();
    let pause_ends = (pair.now - pair.begin) + Duration::from_millis(400);
    pair.run(Duration::from_secs(2), rate, |sent| Some((sent + DELAY).max(pause_ends)));
    let after = pair.estimator.sustainable();
    assert!(after >= before.scaled(0.95), "{before} became {after}");
}

/// For 12 of each 60 ms the receiver does something else.
#[test]
fn a_late_machine_is_no_full_line() {
    let mut pair = Pair::new();
    let rate = BitRate::from_kbps(290);
    pair.run(Duration::from_secs(5), rate, |sent| Some(sent + DELAY));
    let before = pair.estimator.sustainable();
    let busy = |sent: Duration| {
        let (arrives, slot) = ((sent + DELAY).as_micros() as u64, 60_000);
        let in_slot = arrives % slot;
        Some(Duration::from_micros(if in_slot < 12_000 { arrives - in_slot + 12_000 } else { arrives }))
    };
    for second in 0..20 {
        pair.run(Duration::from_secs(1), rate, busy);
        let now = pair.estimator.sustainable();
        assert!(now >= before.scaled(0.95), "{before} became {now} after {second} s");
    }
}

#[test]
fn numbers_that_were_never_sent_count_for_nothing() {
    let mut pair = Pair::new();
    pair.run(Duration::from_secs(1), BitRate::from_kbps(290), |sent| Some(sent + DELAY));
    let before = pair.estimator.target();
    let future: Vec<_> = (30_000..30_400).map(|number| (number, Some(DELAY))).collect();
    pair.report(&future);
    assert_eq!(pair.estimator.target(), before);
    assert_eq!(pair.estimator.disbelieved().unknown, 400);
}

#[test]
fn a_flood_of_feedback_is_not_read() {
    let mut pair = Pair::new();
    pair.run(Duration::from_secs(1), BitRate::from_kbps(290), |sent| Some(sent + DELAY));
    // 20 bytes of chunks that announce 16,384 packets, none of which arrived.
    let mut datagram = vec![0x8f, 205, 0, 8, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0x40, 0, 0, 0, 1, 0];
    datagram.extend([0x1f, 0xff].repeat(8));
    for _ in 0..1_000 {
        pair.take(&datagram);
    }
    assert!(pair.estimator.disbelieved().floods > 990, "{:?}", pair.estimator.disbelieved());
}

#[test]
fn another_clock_begins_anew() {
    let mut pair = Pair::new();
    let rate = BitRate::from_kbps(290);
    pair.run(Duration::from_secs(5), rate, |sent| Some(sent + DELAY));
    let before = pair.estimator.target();
    pair.run(Duration::from_secs(5), rate, |sent| Some(sent + Duration::from_secs(90)));
    assert_eq!(pair.estimator.disbelieved().clock_jumps, 1);
    assert!(pair.estimator.target() >= before, "{before} became {}", pair.estimator.target());
}

#[test]
fn the_reference_time_wraps_every_twelve_days_and_nobody_notices() {
    let targets = [4_000 * 1_000, (1 << 32) - 4_000 * 5].map(|clock| {
        let mut pair = Pair::new();
        pair.clock = clock;
        let later = |at| Some(at + Duration::from_millis(20));
        pair.run(Duration::from_secs(10), BitRate::from_kbps(500), later);
        assert_eq!(pair.estimator.disbelieved(), Disbelieved::default());
        pair.estimator.target()
    });
    assert_eq!(targets[0], targets[1]);
}

/// Each feedback may tell of a clock six days on, and there may be thousands a second.
#[test]
fn a_clock_that_leaps_on_for_ever_begins_anew() {
    let far = i64::MAX / TICK / TICKS_PER_REFERENCE * TICKS_PER_REFERENCE;
    let targets = [None, Some(far)].map(|reference| {
        let mut pair = Pair::new();
        pair.estimator.reference = reference;
        let later = |at| Some(at + Duration::from_millis(20));
        pair.run(Duration::from_secs(5), BitRate::from_kbps(500), later);
        assert!(pair.estimator.reference.is_some_and(|ticks| ticks < MAX_CLOCK));
        pair.estimator.target()
    });
    assert_eq!(targets[0], targets[1]);
}

#[test]
fn silence_takes_the_estimate_back_and_an_answer_ends_it() {
    let mut pair = Pair::new();
    let rate = BitRate::from_kbps(290);
    pair.run(Duration::from_secs(5), rate, |sent| Some(sent + DELAY));
    let before = pair.estimator.target();
    let silent_until = pair.now + Duration::from_secs(10);
    while pair.now < silent_until {
        pair.now += Duration::from_millis(20);
        pair.estimator.on_sent(pair.now, 500, None);
        pair.estimator.handle_timeout(pair.now);
    }
    assert_eq!(pair.estimator.explain().because, Because::Silence);
    let target = pair.estimator.target();
    assert!(target <= before.scaled(0.13) && target >= Limits::default().least, "{before} became {target}");
    pair.run(Duration::from_secs(1), BitRate::from_kbps(50), |sent| Some(sent + DELAY));
    assert_ne!(pair.estimator.explain().because, Because::Silence);
}

#[test]
fn a_receiver_that_is_silent_while_nothing_is_sent_is_no_silence() {
    let mut pair = Pair::new();
    pair.run(Duration::from_secs(5), BitRate::from_kbps(290), |sent| Some(sent + DELAY));
    let told: Vec<_> = pair.waiting.drain(..).map(|(number, at)| (number, Some(at + DELAY))).collect();
    pair.report(&told);
    let before = pair.estimator.target();
    pair.now += Duration::from_secs(100);
    pair.estimator.handle_timeout(pair.now);
    assert_eq!(pair.estimator.target(), before);
}

#[test]
fn a_peer_that_never_reports_stays_near_the_start() {
    let mut pair = Pair::new();
    for _ in 0..10_000 {
        pair.now += Duration::from_millis(1);
        pair.estimator.on_sent(pair.now, 1_200, None);
        pair.estimator.handle_timeout(pair.now);
        assert!(pair.estimator.target() <= Limits::default().start);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is reported: no panic, and no rate above a small multiple of what was sent.
    #[test]
    fn lies_of_any_kind_stay_within_bounds(
        steps in proptest::collection::vec(
            (1u32..60, 0u16..8, 0u32..1 << 24, proptest::collection::vec(any::<u8>(), 4..60)), 1..200,
        ),
    ) {
        let mut pair = Pair::new();
        for (millis, back, reference, mut rest) in steps {
            let mut newest = 0;
            for _ in 0..4 {
                pair.now += Duration::from_millis(millis.into()) / 4;
                newest = pair.estimator.on_sent(pair.now, 500, None);
                pair.estimator.handle_timeout(pair.now);
            }
            rest.truncate(rest.len() & !3);
            let mut datagram = vec![0x8f, 205, 0, (4 + rest.len() / 4) as u8, 0, 0, 0, 1, 0, 0, 0, 2];
            datagram.extend(newest.wrapping_sub(back).to_be_bytes());
            datagram.extend((back + 1).to_be_bytes());
            datagram.extend(&reference.to_be_bytes()[1..]);
            datagram.push(0);
            datagram.extend(&rest);
            pair.take(&datagram);
            let limits = Limits::default();
            let target = pair.estimator.target();
            // At most 500 bytes a quarter of a millisecond: 16 Mbit/s were sent, if the clock of feedback is fine enough.
            prop_assert!(target >= limits.least && target <= BitRate::from_kbps(25_000), "{}", target);
            let thought = pair.estimator.explain();
            prop_assert!(thought.loss.is_finite() && (0.0..=1.0).contains(&thought.loss));
        }
    }
}
