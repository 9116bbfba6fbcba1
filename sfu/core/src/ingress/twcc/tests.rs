use proptest::prelude::*;

use super::*;
use crate::testing::start;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// All feedback due now, as (number, arrival) for every status.
fn drain(log: &mut ArrivalLog, now: Instant) -> Vec<Vec<(u16, Option<u64>)>> {
    let mut packets = Vec::new();
    while let Some(feedback) = log.feedback(now) {
        assert_eq!(feedback.count, packets.len() as u8 + log.count - packets.len() as u8);
        assert!(feedback.len() <= MAX_STATUSES);
        let statuses: Vec<_> = feedback
            .arrivals()
            .enumerate()
            .map(|(at, arrival)| (feedback.base_sequence().wrapping_add(at as u16), arrival))
            .collect();
        assert_eq!(statuses.len(), feedback.len());
        assert!(statuses.last().unwrap().1.is_some(), "ends with an arrival");
        packets.push(statuses);
        log.on_sent(now);
        assert!(packets.len() <= MAX_SLOTS, "comes to an end");
    }
    packets
}

#[test]
fn a_silent_peer_gets_no_feedback_and_costs_nothing() {
    let now = start();
    let log = ArrivalLog::new(now);
    assert_eq!(log.next_timeout(), None);
    assert!(log.feedback(now + ms(1000)).is_none());
    assert_eq!(log.slots.capacity(), 0);
}

#[test]
fn arrivals_are_reported_after_the_interval_across_the_wrap() {
    let begin = start();
    let mut log = ArrivalLog::new(begin);
    assert_eq!(log.record(begin + ms(10), 65_534, 1200), Some(begin + ms(110)));
    assert_eq!(log.record(begin + ms(11), 65_535, 1200), None, "no news");
    assert_eq!(log.record(begin + ms(13), 1, 1200), None);
    assert!(log.feedback(begin + ms(109)).is_none());
    let packets = drain(&mut log, begin + ms(110));
    let expected = [(65_534, Some(10_000)), (65_535, Some(11_000)), (0, None), (1, Some(13_000))];
    assert_eq!(packets, [expected]);
    assert_eq!(log.next_timeout(), None, "until something arrives");
}

#[test]
fn losses_between_two_feedbacks_are_reported() {
    let begin = start();
    let mut log = ArrivalLog::new(begin);
    log.record(begin, 10, 1200);
    drain(&mut log, begin + ms(100));
    let due = log.record(begin + ms(101), 13, 1200).unwrap();
    assert_eq!(drain(&mut log, due), [[(11, None), (12, None), (13, Some(101_000))]]);
}

#[test]
fn a_packet_reported_lost_that_comes_late_is_reported_again() {
    let begin = start();
    let mut log = ArrivalLog::new(begin);
    for sequence in [10, 12] {
        log.record(begin, sequence, 1200);
    }
    assert_eq!(drain(&mut log, begin + ms(100)).concat()[1], (11, None));
    let due = log.record(begin + ms(120), 11, 1200).unwrap();
    assert_eq!(drain(&mut log, due), [[(11, Some(120_000)), (12, Some(0))]]);
}

#[test]
fn a_duplicate_keeps_its_first_arrival() {
    let begin = start();
    let mut log = ArrivalLog::new(begin);
    log.record(begin, 10, 1200);
    log.record(begin + ms(5), 10, 1200);
    assert_eq!(drain(&mut log, begin + ms(100)), [[(10, Some(0))]]);
}

#[test]
fn a_long_gap_is_not_reported_as_loss() {
    let begin = start();
    let mut log = ArrivalLog::new(begin);
    log.record(begin, 10, 1200);
    log.record(begin, 30_000, 1200);
    assert_eq!(drain(&mut log, begin + ms(100)), [[(30_000, Some(0))]]);
    let mut log = ArrivalLog::new(begin);
    log.record(begin, 10, 1200);
    log.record(begin, 10 + 1000, 1200);
    assert_eq!(drain(&mut log, begin + ms(100)), [[(10, Some(0))], [(1010, Some(0))]]);
}

#[test]
fn many_arrivals_make_feedback_due_at_once() {
    let begin = start();
    let mut log = ArrivalLog::new(begin);
    let mut due = None;
    for sequence in 0..MAX_WAITING as u16 {
        due = log.record(begin + ms(1), sequence, 1200).or(due);
    }
    assert_eq!(due, Some(begin + ms(1)));
    let packets = drain(&mut log, begin + ms(1));
    assert_eq!(packets.concat().len(), MAX_WAITING as usize);
}

#[test]
fn feedback_is_faster_at_high_rates_and_slower_at_low_ones() {
    for (bytes, expected) in [(1200, 50), (20, 250)] {
        let begin = start();
        let mut log = ArrivalLog::new(begin);
        let mut now = begin;
        for sequence in 0..100 {
            log.record(now, sequence, bytes);
            drain(&mut log, now);
            now += ms(20);
        }
        assert_eq!(log.interval, ms(expected), "{bytes} bytes each 20 ms");
    }
}

proptest! {
    /// Every arrival is reported with its time, in order, unless so many came before feedback that it was overwritten.
    #[test]
    fn every_arrival_is_reported(
        first in any::<u16>(),
        steps in proptest::collection::vec((prop_oneof![8 => Just(1_i32), 2 => 2..30_i32, 2 => -20..0_i32, 1 => 300..1500_i32], 0..30_u64), 1..500),
    ) {
        let begin = start();
        let (mut log, mut now) = (ArrivalLog::new(begin), begin);
        let (mut highest, mut expected) = (i64::from(first), std::collections::BTreeMap::new());
        let mut reported = std::collections::BTreeMap::new();
        for (relative, wait) in steps {
            now += ms(wait);
            let sequence = highest + i64::from(relative);
            highest = highest.max(sequence);
            log.record(now, sequence as u16, 1200);
            expected.entry(sequence).or_insert((now - begin).as_micros() as u64);
            if log.next_timeout().is_some_and(|due| due <= now) {
                for (wire, arrival) in drain(&mut log, now).concat() {
                    let near = i64::from(wire.wrapping_sub(highest as u16) as i16) + highest;
                    if let Some(arrival) = arrival {
                        prop_assert_eq!(expected.get(&near), Some(&arrival));
                        reported.insert(near, arrival);
                    } else {
                        prop_assert!(!expected.contains_key(&near), "{} came but is reported lost", near);
                    }
                }
                prop_assert_eq!(log.next_timeout(), None);
            }
            prop_assert!(log.slots.len() <= MAX_SLOTS);
        }
        for (wire, arrival) in drain(&mut log, now + ms(1000)).concat() {
            let near = i64::from(wire.wrapping_sub(highest as u16) as i16) + highest;
            reported.extend(arrival.map(|arrival| (near, arrival)));
        }
        for (sequence, arrival) in expected {
            let is_forgotten = highest - sequence >= MAX_SLOTS as i64 / 2; // gaps may have pushed it out before its time
            prop_assert!(is_forgotten || reported.get(&sequence) == Some(&arrival), "{sequence}");
        }
    }
}
