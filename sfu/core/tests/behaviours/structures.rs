//! Template structures of dependency descriptors that are lost, late, replaced or were never seen.

use weir_stage::{Shape, Stage, ms, secs};
use weir_units::ids::{PublicationId, SubscriptionId};

/// Somebody publishes AV1 whose every key frame has templates of its own, and three look at it: at all of it, at the lower
/// spatial layer, and at the least there is.
fn call(seed: u64) -> (Stage, usize, PublicationId, [SubscriptionId; 3]) {
    let mut stage = Stage::new(seed);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::av1_svc());
    stage.source(publication).changes_structure = true;
    let subscriptions = [(1, 1), (0, 1), (0, 0)].map(|(spatial, temporal)| {
        let subscriber = stage.join();
        let subscription = stage.subscribe(subscriber, publication);
        stage.wish(subscription, spatial, temporal);
        subscription
    });
    (stage, publisher, publication, subscriptions)
}

#[test]
fn what_comes_before_a_structure_that_was_lost_is_told_apart_once_it_is_repaired() {
    for seed in 0..20 {
        let (mut stage, _, publication, subscriptions) = call(600 + seed);
        stage.line.jitter = ms(seed);
        stage.run(secs(2));
        for _ in 0..5 {
            stage.line.drop_next_key_start = true;
            stage.source(publication).streams[0].wants_key = true;
            stage.run(ms(700));
            assert!(!stage.line.drop_next_key_start);
        }
        for (subscription, (spatial, temporal)) in subscriptions.into_iter().zip([(1, 1), (0, 1), (0, 0)]) {
            let playback = stage.playback(subscription);
            let about = format!("seed {seed}, {spatial} {temporal}");
            assert!(playback.faults.is_empty(), "{about}: {}", playback.faults[0]);
            let stray = playback
                .frames
                .iter()
                .skip(20)
                .find(|frame| frame.id.spatial > spatial || frame.temporal > temporal);
            assert!(stray.is_none(), "{about}: {stray:?}");
            let lost = playback.frames.iter().find(|frame| !frame.is_decoded);
            assert!(lost.is_none(), "{about}: {lost:?}");
        }
        assert_eq!(stage.source(publication).streams[0].requests.len(), 0, "seed {seed}");
    }
}

#[test]
fn a_structure_of_fewer_or_more_decode_targets_is_followed_at_once() {
    let (mut stage, _, publication, subscriptions) = call(620);
    stage.run(secs(2));
    let layers = Shape::av1_svc().layers;
    for count in [1, 2, 1, 1, 2] {
        let source = stage.source(publication);
        source.shape.layers = layers[..count].to_vec();
        source.streams[0].wants_key = true;
        stage.run(secs(2));
        for (subscription, most) in subscriptions.into_iter().zip([1, 0, 0]) {
            let playback = stage.playback(subscription);
            let newest = playback.frames.iter().rev().take(8).map(|frame| frame.id.spatial).max();
            assert_eq!(newest, Some(most.min(count as u8 - 1)));
        }
    }
    for subscription in subscriptions {
        stage.playback(subscription).assert_seamless();
    }
    assert_eq!(stage.source(publication).streams[0].requests.len(), 0, "nothing had to be asked for");
}

#[test]
fn without_the_structure_nobody_goes_on_but_with_a_new_one() {
    let (mut stage, publisher, publication, subscriptions) = call(630);
    stage.run(secs(2));
    stage.clients[publisher].answers_nacks = false;
    stage.line.drop_next_key_start = true;
    stage.source(publication).streams[0].wants_key = true;
    stage.run(ms(100));
    assert!(!stage.line.drop_next_key_start);
    let lost = stage.now;
    let late = stage.join();
    let late = stage.subscribe(late, publication);
    stage.run(secs(2));
    let requests = stage.source(publication).streams[0].requests.clone();
    assert_eq!(requests.iter().filter(|at| **at > lost).count(), 1, "{requests:?}");
    for subscription in subscriptions.into_iter().chain([late]) {
        let playback = stage.playback(subscription);
        let shown = playback.frames.iter().find(|frame| frame.is_decoded && frame.at > lost);
        assert!(shown.is_some_and(|frame| frame.at < lost + ms(700)), "{subscription}: {shown:?}");
        assert!(playback.faults.is_empty(), "{}", playback.faults[0]);
        assert!(
            playback.frames.last().is_some_and(|frame| frame.is_decoded && frame.at + ms(100) > stage.now)
        );
        let useless = playback.frames.iter().filter(|frame| !frame.is_decoded).count();
        assert_eq!(useless, 0, "{subscription}: nobody can make anything of what waited");
        let missing = playback.missing.len();
        assert!(missing <= 1, "{subscription}: its places are filled, {missing} are not");
    }
    let playback = stage.playback(late);
    assert!(
        playback.frames.iter().all(|frame| frame.is_decoded),
        "a late joiner begins with what it can place"
    );
}
