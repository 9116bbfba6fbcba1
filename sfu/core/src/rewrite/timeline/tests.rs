use proptest::prelude::*;

use super::*;
use crate::testing::start;

const RATE: u32 = 90_000;
const FIRST: u32 = 0xffff_f000; // wraps at once

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// An encoding whose timestamps are `base` at the origin of time.
#[derive(Clone, Copy)]
struct Source {
    base: u32,
}

impl Source {
    fn timestamp(self, captured: Duration) -> u32 {
        self.base.wrapping_add((captured.as_micros() * u128::from(RATE) / 1_000_000) as u32)
    }

    /// Its sender report made at that time.
    fn report(self, at: Duration) -> Option<SenderClock> {
        let ntp = (3_900_000_000_u128 << 32) + at.as_nanos() * (1 << 32) / 1_000_000_000;
        Some(SenderClock { ntp: ntp as u64, rtp: self.timestamp(at) })
    }
}

const A: Source = Source { base: 0xffff_0000 };
const B: Source = Source { base: 0x1234_5678 };

/// Frames of A each 33 ms for a second, the last captured at 990 ms; arrivals are 20 ms later.
fn a_second_of_a(begin: Instant) -> Timeline {
    let mut timeline = Timeline::new(RATE, FIRST);
    timeline.start(begin, 100, A.timestamp(ms(0)), None, A.report(ms(0)));
    for frame in 0..=30 {
        let captured = ms(33 * frame);
        let sent = timeline.forward(begin + captured + ms(20), 100 + frame, A.timestamp(captured));
        assert_eq!(sent, Some(FIRST.wrapping_add(2970 * frame as u32)));
    }
    timeline
}

#[test]
fn one_encoding_keeps_its_distances() {
    let timeline = a_second_of_a(start());
    assert_eq!(timeline.newest(), FIRST.wrapping_add(990 * 90));
    assert_eq!(timeline.present(A.base), FIRST, "as a sender report needs it");
}

/// A's clock runs ahead of the arrivals, and its last picture before a switch comes after it.
#[test]
fn a_switch_begins_after_what_may_come_late() {
    let begin = start();
    let mut timeline = a_second_of_a(begin);
    let (lost, dropped) = (A.timestamp(ms(1_110)), A.timestamp(ms(1_123)));
    timeline.drop(132, dropped); // 131 is missing
    let now = begin + ms(1_030);
    timeline.start(now, 132, B.timestamp(ms(1_010)), None, None);
    let first = timeline.forward(now, 132, B.timestamp(ms(1_010))).unwrap();
    let late = timeline.forward(now + ms(1), 131, lost).unwrap();
    assert!((first.wrapping_sub(late) as i32) > 0, "{first} after {late}");
    let mut whole = a_second_of_a(begin);
    whole.drop(131, dropped); // nothing is missing
    whole.start(now, 131, B.timestamp(ms(1_010)), None, None);
    assert_eq!(whole.forward(now, 131, B.timestamp(ms(1_010))), Some(FIRST.wrapping_add(1_010 * 90)));
}

#[test]
fn a_switch_is_aligned_by_the_sender_reports() {
    let begin = start();
    let mut timeline = a_second_of_a(begin);
    // B's packet took 70 ms longer on the line: only the reports can tell.
    let (now, captured) = (begin + ms(1023 + 90), ms(1023));
    timeline.start(now, 131, B.timestamp(captured), A.report(ms(200)), B.report(ms(900)));
    let sent = timeline.forward(now, 131, B.timestamp(captured)).unwrap();
    assert!(sent.wrapping_sub(FIRST.wrapping_add(1023 * 90)) as i32 <= 1, "{}", sent.wrapping_sub(FIRST));
}

#[test]
fn a_switch_without_reports_goes_by_arrival() {
    for (from, to) in [(None, None), (A.report(ms(0)), None), (None, B.report(ms(0)))] {
        let begin = start();
        let mut timeline = a_second_of_a(begin);
        let now = begin + ms(990 + 20 + 40);
        timeline.start(now, 131, B.timestamp(ms(1023)), from, to);
        let sent = timeline.forward(now, 131, B.timestamp(ms(1023)));
        assert_eq!(sent, Some(FIRST.wrapping_add((990 + 40) * 90)));
    }
}

#[test]
fn reports_that_contradict_arrivals_are_not_believed() {
    let begin = start();
    let mut timeline = a_second_of_a(begin);
    let now = begin + ms(990 + 20 + 40);
    let mut wrong = B.report(ms(900)).unwrap();
    wrong.ntp += 5 << 32;
    timeline.start(now, 131, B.timestamp(ms(1023)), A.report(ms(200)), Some(wrong));
    let sent = timeline.forward(now, 131, B.timestamp(ms(1023)));
    assert_eq!(sent, Some(FIRST.wrapping_add((990 + 40) * 90)));
}

#[test]
fn the_same_instant_twice_is_a_millisecond_later_and_the_next_frame_is_exact_again() {
    let begin = start();
    let mut timeline = a_second_of_a(begin);
    let now = begin + ms(1011);
    let (a, b) = (A.report(ms(500)), B.report(ms(500)));
    timeline.start(now, 131, B.timestamp(ms(960)), a, b);
    for packet in 0..3 {
        assert_eq!(
            timeline.forward(now, 131 + packet, B.timestamp(ms(960))),
            Some(FIRST.wrapping_add(990 * 90 + 90)),
            "the new encoding's key frame is older than what was sent"
        );
    }
    for (packet, expected) in [(993, 993), (1026, 1026), (1059, 1059)] {
        let sent = timeline.forward(now, 134 + packet / 33 - 30, B.timestamp(ms(packet))).unwrap();
        let error = sent.wrapping_sub(FIRST.wrapping_add(expected * 90)) as i32;
        assert!(error.abs() <= 91, "frame of {packet} ms is off by {error}");
        if packet > 1000 {
            assert!(error.abs() <= 2, "frame of {packet} ms is off by {error}");
        }
    }
    assert_eq!(timeline.at(133, B.timestamp(ms(960))), Some(FIRST.wrapping_add(990 * 90 + 90)), "sent again");
}

#[test]
fn a_joiner_served_from_the_past_is_in_the_present_at_once() {
    let begin = start();
    let mut timeline = Timeline::new(RATE, FIRST);
    let now = begin + ms(1000); // the key frame arrived 400 ms ago
    timeline.start_with_past(now, begin + ms(600), 100, A.timestamp(ms(600)), None, None);
    let mut last = FIRST.wrapping_sub(1);
    for frame in 0..12 {
        let sent = timeline.forward(now, 100 + frame, A.timestamp(ms(600 + 33 * frame))).unwrap();
        assert!(sent.wrapping_sub(last) <= 33 * 90 / 16 + 1, "close together");
        assert!(sent.wrapping_sub(last) >= 1 && sent != last);
        last = sent;
    }
    let live = timeline.forward(now + ms(33), 112, A.timestamp(ms(1033))).unwrap();
    let error = live.wrapping_sub(FIRST.wrapping_add(33 * 90)) as i32;
    assert!(error.abs() <= 2, "the live picture is off by {error}");
    assert_eq!(timeline.at(100, A.timestamp(ms(600))), Some(FIRST));
}

#[test]
fn a_pause_in_what_is_caught_up_with_is_short() {
    let begin = start();
    let mut timeline = Timeline::new(RATE, FIRST);
    let now = begin + ms(9_000);
    timeline.start_with_past(now, begin, 100, A.timestamp(ms(0)), None, None);
    // Five frames, nothing for four seconds, a hundred frames, and then as they come.
    let captured = |frame: u64| ms(33 * frame + if frame < 5 { 0 } else { 4_000 });
    let sent: Vec<_> = (0..105)
        .map(|frame| timeline.forward(now, 100 + frame, A.timestamp(captured(frame))).unwrap())
        .collect();
    assert!(sent.windows(2).all(|pair| (1..=20 * 90).contains(&pair[1].wrapping_sub(pair[0]))));
    let again = (0..105).map(|frame| timeline.at(100 + frame, A.timestamp(captured(frame))).unwrap());
    assert_eq!(again.collect::<Vec<_>>(), sent, "sent again");
    let mut last = 0;
    for frame in 105..200 {
        let now = begin + captured(frame).max(ms(9_000));
        last = timeline.forward(now, 100 + frame, A.timestamp(captured(frame))).unwrap();
    }
    assert_eq!(
        last,
        FIRST.wrapping_add(((captured(199) - ms(9_000)).as_millis() * 90) as u32),
        "in the present"
    );
}

/// A key frame comes while what is replayed before it still waits.
#[test]
fn a_stretch_that_begins_before_the_last_has_caught_up_is_in_the_present() {
    for (from, to) in [(None, None), (A.report(ms(2_500)), A.report(ms(2_500)))] {
        let begin = start();
        let mut timeline = Timeline::new(RATE, FIRST);
        timeline.start_with_past(begin + ms(3_000), begin, 100, A.timestamp(ms(0)), None, None);
        for frame in 0..10 {
            timeline.forward(begin + ms(33 * frame), 100 + frame, A.timestamp(ms(33 * frame))).unwrap();
        }
        timeline.start(begin + ms(3_201), 110, A.timestamp(ms(3_201)), from, to);
        let live = timeline.forward(begin + ms(3_201), 110, A.timestamp(ms(3_201))).unwrap();
        let error = live.wrapping_sub(FIRST.wrapping_add(201 * 90)).cast_signed();
        assert!(error.abs() <= 2, "off by {error}");
        assert_eq!(timeline.present(A.timestamp(ms(3_234))), live.wrapping_add(33 * 90), "what reports say");
    }
}

#[test]
fn a_switch_to_a_kept_key_frame_catches_up() {
    let begin = start();
    let mut timeline = a_second_of_a(begin);
    let now = begin + ms(1020);
    let (a, b) = (A.report(ms(500)), B.report(ms(500)));
    timeline.start_with_past(now, begin + ms(620), 131, B.timestamp(ms(600)), a, b);
    for frame in 0..=12 {
        timeline.forward(now, 131 + frame, B.timestamp(ms(600 + 33 * frame)));
    }
    let live = timeline.forward(now + ms(33), 144, B.timestamp(ms(1033))).unwrap();
    let error = live.wrapping_sub(FIRST.wrapping_add(1033 * 90)) as i32;
    assert!(error.abs() <= 2, "off by {error}");
}

#[test]
fn a_frame_is_not_overtaken_by_what_catches_up() {
    let begin = start();
    let mut timeline = Timeline::new(RATE, FIRST);
    timeline.start_with_past(begin + ms(400), begin, 100, 0, None, None);
    timeline.forward(begin + ms(400), 100, 0);
    let later = timeline.forward(begin + ms(400), 102, 6000).unwrap();
    let lost = timeline.forward(begin + ms(400), 101, 3000).unwrap();
    assert!(later.wrapping_sub(lost) as i32 > 0);
}

#[test]
fn a_pause_of_hours_is_as_long_as_it_was() {
    let begin = start();
    let mut timeline = a_second_of_a(begin);
    let captured = Duration::from_secs(9 * 3600); // past half the timestamps
    let (now, report) = (begin + captured + ms(20), A.report(captured));
    timeline.start(now, 131, A.timestamp(captured), report, report);
    let sent = timeline.forward(now, 131, A.timestamp(captured));
    assert_eq!(sent, Some(FIRST.wrapping_add((9_u64 * 3600 * 90_000) as u32)));
    assert_eq!(timeline.forward(now + ms(33), 132, A.timestamp(captured + ms(33))), sent.map(|at| at + 2970));
}

#[test]
fn late_packets_keep_the_time_of_their_stretch() {
    let begin = start();
    let mut timeline = a_second_of_a(begin);
    let now = begin + ms(1050);
    timeline.start(now, 140, B.timestamp(ms(1023)), None, None);
    timeline.forward(now, 140, B.timestamp(ms(1023)));
    assert_eq!(timeline.forward(now, 131, A.timestamp(ms(990))), Some(FIRST.wrapping_add(990 * 90)));
    assert_eq!(timeline.at(120, A.timestamp(ms(330))), Some(FIRST.wrapping_add(330 * 90)));
    assert_eq!(
        Some(timeline.newest()),
        timeline.at(140, B.timestamp(ms(1023))),
        "and do not move what follows"
    );
}

#[test]
fn a_source_that_starts_over_goes_on_by_arrival() {
    for jump in [0x4000_0000_u32, 0xc000_0000, 0x8000_0000] {
        let begin = start();
        let mut timeline = a_second_of_a(begin);
        let timestamp = A.timestamp(ms(1023)).wrapping_add(jump);
        let now = begin + ms(1010 + 33);
        assert_eq!(timeline.forward(now, 131, timestamp), Some(FIRST.wrapping_add(1023 * 90)), "{jump:x}");
        let next = timeline.forward(now + ms(33), 132, timestamp.wrapping_add(2970));
        assert_eq!(next, Some(FIRST.wrapping_add(1056 * 90)));
        assert_eq!(timeline.at(130, A.timestamp(ms(990))), Some(FIRST.wrapping_add(990 * 90)));
    }
}

#[test]
fn frames_sent_out_of_display_order_pass() {
    let begin = start();
    let mut timeline = a_second_of_a(begin);
    assert_eq!(
        timeline.forward(begin + ms(1020), 131, A.timestamp(ms(957))),
        Some(FIRST.wrapping_add(957 * 90))
    );
}

#[test]
fn a_stretch_long_past_is_forgotten_rather_than_guessed() {
    let begin = start();
    let mut timeline = a_second_of_a(begin);
    let switches = MAX_PAST as u64 + 2;
    for switch in 0..switches {
        let now = begin + ms(1050 + switch * 40);
        timeline.start(now, 131 + switch, 5, None, None);
        timeline.forward(now, 131 + switch, 5);
    }
    assert_eq!(timeline.at(120, 7), None);
    assert!(timeline.at(130 + switches, 7).is_some());
}

proptest! {
    /// With the reports of all encodings, whatever the switches, pauses and jitter: frames keep their distances in
    /// capture time but for the ticks that keep them apart.
    #[test]
    fn capture_times_survive_switch_storms(
        bases in [any::<u32>(), any::<u32>(), any::<u32>()],
        steps in proptest::collection::vec((0..3_usize, 1..5_u64, 0..300_u64, prop::bool::weighted(0.02)), 1..200),
    ) {
        let (begin, mut captured, mut sequence) = (start(), ms(0), 500);
        let sources = bases.map(|base| Source { base });
        let (mut timeline, mut current) = (Timeline::new(RATE, FIRST), None);
        let mut last = None::<(u64, Duration)>;
        for (next, frames, jitter, is_pause) in steps {
            let is_pause = is_pause && current.is_some();
            if is_pause {
                captured += Duration::from_secs(40_000);
            }
            let source = sources[next];
            let now = begin + captured + ms(50 + jitter);
            let report = |of: Source| of.report(captured.saturating_sub(ms(jitter * 10)));
            if current != Some(next) || is_pause {
                let from = current.map(|current: usize| sources[current]).and_then(report);
                timeline.start(now, sequence, source.timestamp(captured), from, report(source));
                current = Some(next);
            }
            for _ in 0..frames {
                let sent = timeline.forward(now, sequence, source.timestamp(captured)).unwrap();
                let ideal = FIRST.wrapping_add((captured.as_micros() * 90 / 1000) as u32);
                let error = sent.wrapping_sub(ideal) as i32;
                prop_assert!((-2..=180).contains(&error), "off by {error} ticks at {captured:?}");
                prop_assert_eq!(timeline.at(sequence, source.timestamp(captured)), Some(sent));
                if let Some((before, at)) = last {
                    let step = i64::from(sent.wrapping_sub(before as u32) as i32);
                    prop_assert!(step > 0 || captured - at > Duration::from_secs(20_000), "not increasing: {step}");
                }
                last = Some((u64::from(sent), captured));
                sequence += 1;
                captured += ms(33);
            }
        }
    }

    /// Without any report and from a source of arbitrary numbers, what is sent still never goes back at a start.
    #[test]
    fn starts_always_go_forward(
        steps in proptest::collection::vec((any::<u32>(), 0..5000_u64, any::<bool>(), any::<[Option<(u64, u32)>; 2]>()), 1..100),
    ) {
        let (mut now, mut timeline) = (start(), Timeline::new(RATE, FIRST));
        // What was sent last, and since when: an older timestamp does not move it.
        let mut newest = None::<(u32, Instant)>;
        for (at, (timestamp, wait, is_start, reports)) in steps.into_iter().enumerate() {
            now += ms(wait);
            let sequence = 100 + at as u64;
            let [from, to] = reports.map(|report| report.map(|(ntp, rtp)| SenderClock { ntp, rtp }));
            if is_start || at == 0 {
                timeline.start(now, sequence, timestamp, from, to);
            }
            let sent = timeline.forward(now, sequence, timestamp).unwrap();
            if let Some((newest, since)) = newest.filter(|_| is_start) {
                let (step, most) = (sent.wrapping_sub(newest) as i32, (now - since).as_millis() as i32 + 1000);
                prop_assert!(step > 0 && step <= most * 90 + 90, "{step}");
            }
            let sent = timeline.newest();
            if newest.is_none_or(|newest| newest.0 != sent) {
                newest = Some((sent, now));
            }
        }
    }
}
