use proptest::prelude::*;

use super::*;
use crate::testing::start;

const FIRST: u64 = (1 << 32) - 50; // crosses a wrap of the low halves

fn meta(arrived: Instant, sequence: u64, timestamp: u32, key_frame_start: bool) -> PacketMeta {
    let info = PayloadInfo { key_frame_start, ..PayloadInfo::default() };
    PacketMeta { sequence, timestamp, arrived, marker: false, payload_type: 96, info }
}

/// Bytes that tell which packet they belong to.
fn payload(sequence: u64, len: usize) -> Vec<u8> {
    (0..len).map(|at| (sequence as usize * 31 + at) as u8).collect()
}

fn insert(ring: &mut PacketRing, now: Instant, sequence: u64, len: usize) -> Inserted {
    ring.insert(meta(now, sequence, sequence as u32, false), &payload(sequence, len), &[])
}

/// All that is held, in ascending order.
fn held(ring: &PacketRing) -> impl Iterator<Item = Packet<'_>> {
    let end = ring.latest().map_or(0, |latest| latest + 1);
    (end.saturating_sub(ring.slots.len() as u64)..end).filter_map(|sequence| ring.get(sequence))
}

#[test]
fn an_unused_ring_owns_no_memory() {
    let ring = PacketRing::new(MediaKind::Video);
    assert_eq!(ring.memory(), 0);
    assert_eq!((ring.latest(), ring.last_key_frame()), (None, None));
    assert!(ring.get(7).is_none());
    assert_eq!(held(&ring).count(), 0);
}

#[test]
fn gives_back_what_was_put_in() {
    let (mut ring, now) = (PacketRing::new(MediaKind::Video), start());
    let given = meta(now, FIRST, 77, true);
    assert_eq!(ring.insert(given, &payload(FIRST, 1100), &[1, 2, 3]), Inserted::New);
    let packet = ring.get(FIRST).unwrap();
    assert_eq!(packet.meta, given);
    assert_eq!(packet.payload, payload(FIRST, 1100));
    assert_eq!(packet.dependency_descriptor, [1, 2, 3]);
    assert!(ring.get(FIRST + 1).is_none());
}

#[test]
fn order_of_arrival_does_not_matter() {
    let (mut ring, now) = (PacketRing::new(MediaKind::Video), start());
    for sequence in [FIRST, FIRST + 3, FIRST + 1, FIRST + 2, FIRST - 2] {
        assert_eq!(insert(&mut ring, now, sequence, 10), Inserted::New);
    }
    assert_eq!(insert(&mut ring, now, FIRST + 1, 10), Inserted::Duplicate);
    let held: Vec<u64> = held(&ring).map(|packet| packet.meta.sequence).collect();
    assert_eq!(held, [FIRST - 2, FIRST, FIRST + 1, FIRST + 2, FIRST + 3]);
    assert_eq!(ring.latest(), Some(FIRST + 3));
}

#[test]
fn what_is_older_than_the_table_is_refused() {
    let (mut ring, now) = (PacketRing::new(MediaKind::Audio), start());
    insert(&mut ring, now, FIRST + 128, 10);
    assert_eq!(insert(&mut ring, now, FIRST, 10), Inserted::TooOld);
    assert_eq!(insert(&mut ring, now, FIRST + 1, 10), Inserted::New);
}

#[test]
fn a_packet_no_datagram_carries_is_refused() {
    let (mut ring, now) = (PacketRing::new(MediaKind::Audio), start());
    assert_eq!(insert(&mut ring, now, FIRST, MAX_RECORD + 1), Inserted::TooLarge);
    assert_eq!(insert(&mut ring, now, FIRST, MAX_RECORD), Inserted::New);
    assert_eq!(ring.get(FIRST).unwrap().payload.len(), MAX_RECORD);
}

#[test]
fn an_empty_payload_is_a_packet_too() {
    let (mut ring, now) = (PacketRing::new(MediaKind::Audio), start());
    assert_eq!(insert(&mut ring, now, FIRST, 0), Inserted::New);
    assert_eq!(ring.get(FIRST).unwrap().payload, []);
}

#[test]
fn memory_stops_at_the_limit() {
    let (mut ring, now) = (PacketRing::new(MediaKind::Video), start());
    for sequence in FIRST..FIRST + 20_000 {
        insert(&mut ring, now, sequence, 1200);
    }
    let slots = 1024 * size_of::<Option<Slot>>();
    assert_eq!(ring.memory(), RingLimits::VIDEO.bytes + slots);
    assert!(held(&ring).count() >= 1000, "and it is used");
}

#[test]
fn a_stream_that_stopped_gives_its_memory_back_and_may_go_on() {
    let (mut ring, now) = (PacketRing::new(MediaKind::Video), start());
    let later = now + Duration::from_secs(5);
    for sequence in FIRST..FIRST + 2_000 {
        insert(&mut ring, now, sequence, 1_200);
    }
    insert(&mut ring, later, FIRST + 2_000, 1_200);
    assert_eq!(ring.last_written(), Some(later));
    ring.clear();
    assert_eq!((ring.memory(), ring.last_written()), (0, None));
    assert_eq!((ring.latest(), ring.last_key_frame()), (Some(FIRST + 2_000), None));
    assert!(ring.get(FIRST + 2_000).is_none());
    assert_eq!(insert(&mut ring, later, FIRST + 900, 10), Inserted::TooOld);
    for sequence in FIRST + 2_001..FIRST + 2_300 {
        assert_eq!(insert(&mut ring, later, sequence, 1_200), Inserted::New);
    }
    assert_eq!(ring.get(FIRST + 2_001).unwrap().payload, payload(FIRST + 2_001, 1_200));
}

#[test]
fn a_slow_stream_stays_small_however_long_it_lasts() {
    let (mut ring, mut now) = (PacketRing::new(MediaKind::Audio), start());
    for sequence in FIRST..FIRST + 10_000 {
        insert(&mut ring, now, sequence, 80);
        now += Duration::from_millis(20);
    }
    assert!(ring.memory() < 40 * 1024, "{}", ring.memory());
    let horizon = held(&ring).filter(|packet| packet.meta.arrived + Duration::from_secs(2) >= now).count();
    assert_eq!(horizon, 100, "two seconds are held");
}

#[test]
fn a_key_frame_is_offered_while_all_of_it_is_held() {
    let (mut ring, now) = (PacketRing::new(MediaKind::Video), start());
    insert(&mut ring, now, FIRST, 1200);
    for at in 1..=5 {
        ring.insert(meta(now, FIRST + at, 9000, at == 1), &payload(at, 1200), &[]);
    }
    assert_eq!(ring.last_key_frame(), Some(FIRST + 1));
    for sequence in FIRST + 6..FIRST + 6 + 1020 {
        insert(&mut ring, now, sequence, 1200);
    }
    assert_eq!(ring.last_key_frame(), None, "its first packets are overwritten");
}

#[test]
fn a_key_frame_with_a_hole_is_offered_once_the_hole_is_filled() {
    let (mut ring, now) = (PacketRing::new(MediaKind::Video), start());
    ring.insert(meta(now, FIRST, 9000, true), &[1], &[]);
    ring.insert(meta(now, FIRST + 2, 9000, false), &[3], &[]);
    insert(&mut ring, now, FIRST + 3, 10);
    assert_eq!(ring.last_key_frame(), None);
    ring.insert(meta(now, FIRST + 1, 9000, false), &[2], &[]);
    assert_eq!(ring.last_key_frame(), Some(FIRST));
}

#[test]
fn an_older_key_frame_that_comes_late_does_not_replace_a_newer() {
    let (mut ring, now) = (PacketRing::new(MediaKind::Video), start());
    ring.insert(meta(now, FIRST + 9, 9000, true), &[1], &[]);
    ring.insert(meta(now, FIRST, 3000, true), &[1], &[]);
    assert_eq!(ring.last_key_frame(), Some(FIRST + 9));
}

#[test]
fn a_key_frame_begins_with_the_first_packet_that_looks_like_its_beginning() {
    let (mut ring, now) = (PacketRing::new(MediaKind::Video), start());
    ring.insert(meta(now, FIRST + 1, 9000, true), &[0x7c, 0x85], &[]);
    assert_eq!(ring.last_key_frame(), Some(FIRST + 1));
    ring.insert(meta(now, FIRST, 9000, true), &[0x67], &[]);
    ring.insert(meta(now, FIRST + 2, 9000, true), &[0x7c, 0x85], &[]);
    assert_eq!(ring.last_key_frame(), Some(FIRST), "parameter sets come before the slice");
}

#[test]
fn a_jump_of_the_numbers_leaves_nothing_stale() {
    let (mut ring, now) = (PacketRing::new(MediaKind::Video), start());
    insert(&mut ring, now, FIRST, 10);
    insert(&mut ring, now, FIRST + (1 << 20), 10);
    assert_eq!(held(&ring).count(), 1);
    assert_eq!(insert(&mut ring, now, FIRST, 10), Inserted::TooOld);
}

proptest! {
    /// Whatever comes in, what is held is what was put in, and the newest that must fit are held.
    #[test]
    fn holds_the_newest_intact(
        arrivals in proptest::collection::vec((-40..60_i64, 0..2000_usize, 0..200_u64), 1..400),
        packets in prop_oneof![Just(32_usize), Just(128), Just(1024)],
        bytes in prop_oneof![Just(32 * 1024_usize), Just(100_000), Just(1 << 20)],
    ) {
        let limits = RingLimits { packets, bytes, horizon: Duration::from_secs(1), small: 0, long_horizon: Duration::from_secs(1) };
        let mut ring = PacketRing::with_limits(limits);
        let mut now = start();
        let (mut latest, mut put) = (FIRST, Vec::<(u64, usize, Instant)>::new());
        for (relative, len, wait) in arrivals {
            let sequence = latest.saturating_add_signed(relative);
            latest = latest.max(sequence);
            now += Duration::from_millis(wait / 10);
            let inserted = insert(&mut ring, now, sequence, len);
            match inserted {
                Inserted::New => put.push((sequence, len, now)),
                Inserted::Duplicate => prop_assert!(put.iter().any(|entry| entry.0 == sequence)),
                Inserted::TooOld => prop_assert!(ring.latest().unwrap() - sequence >= packets as u64),
                Inserted::TooLarge => prop_assert!(false),
            }
            prop_assert!(ring.arena.len() <= ring.limits.bytes && ring.slots.len() <= ring.limits.packets);
        }
        for (sequence, len, _) in &put {
            if let Some(packet) = ring.get(*sequence) {
                prop_assert_eq!(packet.payload, payload(*sequence, *len));
                prop_assert_eq!(packet.meta.sequence, *sequence);
            }
        }
        // Of the last arrivals, those that fit half the arena and the table, and are young, must be there.
        let mut total = 0;
        for (sequence, len, at) in put.iter().rev() {
            total += len;
            if total > limits.bytes / 2 || now.duration_since(*at) >= limits.horizon {
                break;
            }
            if ring.latest().unwrap() - sequence < packets as u64 {
                prop_assert!(ring.get(*sequence).is_some(), "{} of {}", sequence, ring.latest().unwrap());
            }
        }
    }
}
