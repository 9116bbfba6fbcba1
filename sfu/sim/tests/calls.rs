//! What whole calls must show, over a fixed set of seeds. Everything is virtual: a figure that changes is a change of the
//! code.

use std::time::Duration;

use weir_sim::call::figures::Figures;
use weir_sim::call::{play, scenario};

const SEEDS: std::ops::RangeInclusive<u64> = 1..=8;

/// The figures of each step, by seed. In no run may a subscriber have found anything wrong.
fn played(name: &str) -> Vec<(u64, Vec<Figures>)> {
    let call = scenario::all().into_iter().find(|call| call.name == name).expect("a call of that name");
    SEEDS
        .map(|seed| {
            let recording = play::play(&call, seed);
            assert_eq!(recording.faults, Vec::<String>::new(), "{name}, seed {seed}");
            (seed, recording.figures(&call))
        })
        .collect()
}

fn median(mut times: Vec<Option<Duration>>) -> Option<Duration> {
    times.sort_by_key(|time| time.unwrap_or(Duration::MAX));
    times[times.len() / 2]
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A limit that a figure without value does not keep.
fn within(time: Option<Duration>, limit: Duration) -> bool {
    time.is_some_and(|time| time <= limit)
}

#[test]
fn a_call_begins_with_all_that_a_line_carries_within_two_seconds() {
    let runs = played("call-start");
    let reached = runs.iter().map(|(_, steps)| steps[0].reached).collect();
    assert!(within(median(reached), millis(2_000)), "{runs:?}");
    for (seed, steps) in runs {
        assert!(steps[0].freezes.is_empty() && steps[0].video_dropped == 0, "seed {seed}: {steps:?}");
        assert_eq!(steps[0].unheard.len(), 0, "seed {seed}: {steps:?}");
    }
}

#[test]
fn a_line_that_recovers_is_given_all_within_five_seconds() {
    for (seed, steps) in played("call-collapse") {
        let [_, collapse, recovery] = &steps[..] else { panic!("three steps") };
        assert_eq!(collapse.last.map(|(least, _)| least.0), Some(0), "seed {seed}: {collapse:?}");
        assert!(within(recovery.reached, millis(5_000)), "seed {seed}: {recovery:?}");
        assert_eq!(
            (&recovery.freezes[..], recovery.video_dropped),
            (&[][..], 0),
            "seed {seed}: {recovery:?}"
        );
        assert_eq!(recovery.audio_dropped.len(), 0, "seed {seed}: {recovery:?}");
    }
}

#[test]
fn a_main_picture_has_what_thirty_thumbnails_leave_of_it() {
    for (seed, steps) in played("call-thumbnails") {
        let least_and_most = steps[0].last.map(|(least, most)| (least.0, most.0));
        assert_eq!(least_and_most, Some((1, 1)), "seed {seed}: {steps:?}");
        assert!(within(steps[0].first_picture, millis(500)), "everybody is seen, seed {seed}: {steps:?}");
    }
}

/// None of them knows of the others, nor what the line carries.
#[test]
fn ten_who_join_at_once_are_seen_at_once_and_take_no_audio_from_each_other() {
    for (seed, steps) in played("call-ten-joins") {
        let first = &steps[0];
        assert!(within(first.first_picture, millis(500)), "seed {seed}: {first:?}");
        let dropped = first.audio_dropped.iter().filter(|at| **at > millis(500)).count();
        assert!(dropped == 0 && first.unheard.len() <= 20, "seed {seed}: {first:?}");
    }
}

/// Twice a minute in the median call, of the picture that changes most; the worst call may try once more.
#[test]
fn layers_do_not_swing_where_not_everything_fits() {
    for name in ["call-thumbnails", "call-four"] {
        let mut changes: Vec<_> = played(name).iter().map(|(_, steps)| steps[0].changes).collect();
        changes.sort_by(f64::total_cmp);
        assert!(
            changes[changes.len() / 2] <= 2.0 && changes[changes.len() - 1] <= 6.0,
            "{name}: {changes:?}"
        );
    }
}

/// Numbers and picture ids go on, nothing larger than wished comes, whatever the line does.
#[test]
fn nobody_finds_anything_wrong_on_any_line() {
    for call in scenario::all() {
        for seed in [101, 102] {
            let faults = play::play(&call, seed).faults;
            assert_eq!(faults, Vec::<String>::new(), "{}, seed {seed}", call.name);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_call_and_another_another() {
    let call =
        scenario::all().into_iter().find(|call| call.name == "call-loss").expect("a call of that name");
    let play = |seed| format!("{:?}", play::play(&call, seed));
    assert!(play(7) == play(7));
    assert!(play(7) != play(8));
}
