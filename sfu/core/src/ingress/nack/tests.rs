use proptest::prelude::*;

use super::*;
use crate::testing::start;

const FIRST: u64 = (1 << 16) - 3; // crosses a wrap on the wire

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn video() -> LossRegister {
    LossRegister::new(MediaKind::Video)
}

fn poll(register: &mut LossRegister, now: Instant, round_trip: u64) -> Vec<u64> {
    let mut requests = [0; 64]; // less than may be due
    let count = register.poll(now, Some(ms(round_trip)), &mut requests);
    requests[..count].to_vec()
}

#[test]
fn a_stream_without_loss_asks_for_nothing() {
    let (mut register, now) = (video(), start());
    for sequence in FIRST..FIRST + 100 {
        assert_eq!(register.on_packet(now, sequence, false), Seen::InOrder);
    }
    assert_eq!(register.next_timeout(), None);
    assert_eq!(register.missing.capacity(), 0, "nor takes memory");
}

#[test]
fn a_gap_is_asked_for_as_soon_as_two_packets_followed() {
    let (mut register, now) = (video(), start());
    register.on_packet(now, FIRST, false);
    assert_eq!(register.on_packet(now, FIRST + 2, false), Seen::Gap(1));
    assert_eq!(poll(&mut register, now, 50), [], "it may just have been overtaken");
    register.on_packet(now, FIRST + 3, false);
    register.on_packet(now, FIRST + 4, false);
    assert_eq!(register.next_timeout(), Some(now));
    assert_eq!(poll(&mut register, now, 50), [FIRST + 1]);
}

#[test]
fn a_gap_is_asked_for_after_5_ms_if_nothing_follows() {
    let (mut register, now) = (video(), start());
    register.on_packet(now, FIRST, false);
    register.on_packet(now, FIRST + 2, false);
    assert_eq!(register.next_timeout(), Some(now + ms(5)));
    assert_eq!(poll(&mut register, now + ms(5), 50), [FIRST + 1]);
}

#[test]
fn packets_that_changed_places_are_not_asked_for() {
    let (mut register, now) = (video(), start());
    register.on_packet(now, FIRST, false);
    register.on_packet(now, FIRST + 2, false);
    assert_eq!(register.on_packet(now, FIRST + 1, false), Seen::Reordered);
    assert_eq!(register.next_timeout(), None);
    assert_eq!(register.counts(), LossCounts { missing: 1, reordered: 1, ..LossCounts::default() });
}

#[test]
fn asks_again_after_one_and_a_half_round_trips() {
    let (mut register, now) = (video(), start());
    register.on_packet(now, FIRST, false);
    register.on_packet(now, FIRST + 4, false);
    assert_eq!(poll(&mut register, now + ms(5), 40), [FIRST + 1, FIRST + 2, FIRST + 3]);
    assert_eq!(poll(&mut register, now + ms(64), 40), []);
    assert_eq!(register.on_packet(now + ms(64), FIRST + 2, true), Seen::Recovered);
    assert_eq!(register.next_timeout(), Some(now + ms(65)));
    assert_eq!(poll(&mut register, now + ms(65), 40), [FIRST + 1, FIRST + 3]);
}

#[test]
fn asks_at_most_ten_times_and_ever_more_rarely() {
    let (mut register, mut now) = (video(), start());
    register.on_packet(now, FIRST, false);
    register.on_packet(now, FIRST + 2, false);
    let mut requests = 0;
    while let Some(due) = register.next_timeout() {
        assert!(due > now || requests == 0);
        now = due;
        requests += poll(&mut register, now, 1).len();
    }
    assert_eq!(requests, 10);
    assert_eq!(register.counts().given_up, 1);
}

#[test]
fn gives_up_what_is_older_than_a_second() {
    let (mut register, now) = (video(), start());
    register.on_packet(now, FIRST, false);
    register.on_packet(now, FIRST + 2, false);
    assert_eq!(poll(&mut register, now + ms(5), 2000), [FIRST + 1]);
    assert_eq!(register.next_timeout(), Some(now + ms(1000)), "the age counts before the next request");
    assert_eq!(poll(&mut register, now + ms(1000), 2000), []);
    assert_eq!((register.next_timeout(), register.counts().given_up), (None, 1));
    assert_eq!(register.on_packet(now + ms(1001), FIRST + 1, true), Seen::Unexpected);
}

#[test]
fn a_key_frame_makes_what_came_before_useless() {
    let (mut register, now) = (video(), start());
    register.on_packet(now, FIRST, false);
    register.on_packet(now, FIRST + 3, false);
    register.on_packet(now, FIRST + 5, false);
    register.on_key_frame(FIRST + 3);
    assert_eq!(poll(&mut register, now + ms(5), 40), [FIRST + 4]);
    assert_eq!((register.counts().given_up, register.counts().superseded), (2, 2));
}

#[test]
fn an_outage_is_no_loss_to_repair() {
    let (mut register, now) = (video(), start());
    register.on_packet(now, FIRST, false);
    register.on_packet(now, FIRST + 2, false);
    assert_eq!(register.on_packet(now, FIRST + 2 + 258, false), Seen::Outage);
    assert_eq!((register.next_timeout(), register.missing.len()), (None, 0));
    assert_eq!(register.counts().given_up, 258);
}

#[test]
fn the_oldest_are_given_up_when_too_many_are_missing() {
    let (mut register, now) = (video(), start());
    register.on_packet(now, FIRST, false);
    assert_eq!(register.on_packet(now, FIRST + 201, false), Seen::Gap(200));
    assert_eq!(register.on_packet(now, FIRST + 302, false), Seen::Outage);
    assert_eq!(register.missing.len(), MAX_MISSING_VIDEO);
    assert_eq!(poll(&mut register, now, 40)[0], FIRST + 1 + 44);
}

#[test]
fn a_full_array_is_continued_by_the_next_poll() {
    let (mut register, now) = (video(), start());
    register.on_packet(now, FIRST, false);
    register.on_packet(now, FIRST + 101, false);
    let (first, second) = (poll(&mut register, now + ms(5), 40), poll(&mut register, now + ms(5), 40));
    assert_eq!((first.len(), second.len()), (64, 36));
    assert_eq!(second[0], FIRST + 65);
    assert_eq!(poll(&mut register, now + ms(5), 40), []);
}

#[test]
fn a_retransmission_reveals_no_gap() {
    let (mut register, now) = (video(), start());
    register.on_packet(now, FIRST, false);
    assert_eq!(register.on_packet(now, FIRST + 50, true), Seen::Unexpected);
    assert_eq!(register.missing.len(), 0);
}

/// A line of 40 ms round trip that loses packets and requests alike.
struct Line {
    random: rand::rngs::SmallRng,
    loss: f64,
}

impl Line {
    fn passes(&mut self) -> bool {
        use rand::Rng;
        !self.random.random_bool(self.loss)
    }
}

fn run(loss: f64, packets: u64, seed: u64) -> (LossCounts, u64, u64) {
    use rand::SeedableRng;
    let mut line = Line { random: rand::rngs::SmallRng::seed_from_u64(seed), loss };
    let (mut register, begin) = (video(), start());
    let mut wire = std::collections::BTreeMap::<(Duration, u64), bool>::new(); // arrival, number: is it a repeat
    let (mut lost, mut retransmitted) = (0, 0);
    for packet in 0..packets {
        // Frames of 7 packets, 30 a second.
        let sent = ms(packet / 7 * 33) + Duration::from_micros(packet % 7 * 20);
        if packet == 0 || packet + 1 == packets || line.passes() {
            wire.insert((sent + ms(20), FIRST + packet), false);
        } else {
            lost += 1;
        }
    }
    let mut now = Duration::ZERO;
    loop {
        let arrival = wire.keys().next().map(|key| key.0);
        let due = register.next_timeout().map(|at| at - begin);
        now = match (arrival, due) {
            (Some(arrival), Some(due)) => arrival.min(due),
            (Some(at), None) | (None, Some(at)) => at,
            (None, None) => break,
        }
        .max(now);
        while let Some(entry) = wire.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, sequence), is_repeat) = entry.remove_entry();
            register.on_packet(begin + now, sequence, is_repeat);
        }
        for sequence in poll(&mut register, begin + now, 40) {
            if line.passes() {
                retransmitted += 1;
                if line.passes() {
                    wire.insert((now + ms(40), sequence), true);
                }
            }
        }
    }
    (register.counts(), lost, retransmitted)
}

#[test]
fn three_per_cent_loss_both_ways_leaves_less_than_a_thousandth() {
    for seed in 0..10 {
        let packets = 20_000;
        let (counts, lost, retransmitted) = run(0.03, packets, seed);
        assert!(lost > packets / 50, "seed {seed}: the line must lose");
        assert_eq!(counts.missing, lost, "seed {seed}");
        assert!(counts.given_up * 1000 < packets, "seed {seed}: {counts:?}");
        assert!(retransmitted < 2 * lost, "seed {seed}: {retransmitted} for {lost}");
        assert!(
            retransmitted * 100 < 115 * lost,
            "seed {seed}: next to none in vain: {retransmitted} for {lost}"
        );
    }
}

#[test]
fn a_line_that_loses_a_third_is_repaired_too() {
    for seed in 0..5 {
        let (counts, lost, retransmitted) = run(0.33, 5_000, seed);
        assert!(counts.given_up * 50 < lost, "seed {seed}: {counts:?}");
        assert!(retransmitted < 3 * lost, "seed {seed}: {retransmitted} for {lost}");
    }
}

proptest! {
    /// Every number is accounted for once: nothing is both recovered and given up, nothing forgotten.
    #[test]
    fn the_counts_add_up(
        steps in proptest::collection::vec((-20..30_i64, 0..40_u64, any::<bool>(), 0..20_u8), 1..300),
    ) {
        let (mut register, mut now) = (video(), start());
        let mut highest = FIRST + 1000;
        let mut seen = std::collections::BTreeSet::from([highest]);
        register.on_packet(now, highest, false);
        let (mut asked, mut came) = (std::collections::BTreeMap::<u64, u8>::new(), 0);
        for (relative, wait, retransmitted, key) in steps {
            now += ms(wait);
            let sequence = highest.saturating_add_signed(relative);
            let was_new = seen.insert(sequence);
            let found = register.on_packet(now, sequence, retransmitted && sequence <= highest);
            highest = highest.max(sequence);
            match found {
                Seen::Recovered => prop_assert!(was_new && asked.contains_key(&sequence)),
                Seen::Reordered => prop_assert!(was_new && !asked.contains_key(&sequence)),
                _ => {}
            }
            came += u64::from(matches!(found, Seen::Recovered | Seen::Reordered));
            if key == 0 {
                register.on_key_frame(sequence);
            }
            let mut requests = [0; MAX_MISSING_VIDEO];
            let count = register.poll(now, Some(ms(30)), &mut requests);
            for &request in &requests[..count] {
                prop_assert!(!seen.contains(&request) && request < highest);
                let times = asked.entry(request).or_default();
                *times += 1;
                prop_assert!(*times <= MAX_REQUESTS);
            }
            let counts = register.counts();
            prop_assert_eq!(came, counts.recovered + counts.reordered);
            let settled = counts.recovered + counts.reordered + counts.given_up;
            prop_assert_eq!(counts.missing, settled + register.missing.len() as u64);
            prop_assert!(register.next_timeout().is_none_or(|due| due > now));
            prop_assert_eq!(register.next_timeout().is_none(), register.missing.is_empty());
        }
        prop_assert_eq!(register.counts().requested, asked.values().map(|&times| u64::from(times)).sum::<u64>());
    }
}
