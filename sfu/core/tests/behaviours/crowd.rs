//! A large conference.

use weir_core::stats::Drop;
use weir_stage::{Shape, Stage, ms, secs};
use weir_units::media::{Layer, Wish};

/// Everybody publishes audio and three encodings, sees everybody else at some size, and some come and go.
#[test]
fn thirty_who_all_publish_see_and_hear_one_another() {
    let mut stage = Stage::new(200);
    stage.line.batch = ms(5);
    let clients: Vec<_> = (0..30).map(|_| stage.join()).collect();
    let shape =
        Shape { layers: vec![(300, 1), (500, 1), (700, 2)], interval: ms(100), ..Shape::vp8_simulcast() };
    let tracks: Vec<_> = clients
        .iter()
        .map(|client| {
            (
                stage.publish(*client, shape.clone()),
                stage.publish(*client, Shape { interval: ms(60), ..Shape::opus() }),
            )
        })
        .collect();
    let mut subscriptions = Vec::new();
    for (at, client) in clients.iter().enumerate() {
        for (of, (video, audio)) in tracks.iter().enumerate().filter(|(of, _)| *of != at) {
            let spatial = if of == (at + 1) % 30 { 2 } else { (of % 2) as u8 };
            let wish = Wish { max_layer: Layer { spatial, temporal: 2 }, ..Wish::default() };
            subscriptions.push((spatial, stage.subscribe_with(*client, *video, wish)));
            subscriptions.push((0, stage.subscribe(*client, *audio)));
        }
    }
    stage.run(secs(4));
    for (spatial, subscription) in subscriptions {
        let playback = stage.playback(subscription);
        playback.assert_seamless();
        assert!(playback.frames.len() >= 35, "{} frames", playback.frames.len());
        assert_eq!(playback.frames.last().unwrap().id.encoding, spatial);
    }
    let stats = stage.shard.stats().clone();
    assert_eq!((stats.connected_peers, stats.publications, stats.subscriptions), (30, 60, 30 * 29 * 2));
    assert!(stats.key_frame_requests_out <= 30 * 3, "{}", stats.key_frame_requests_out);
    for reason in Drop::ALL {
        assert_eq!(stage.dropped(reason), 0, "{}", reason.name());
    }
}

/// More reports are due at once than the arena holds: they leave in several turns, and none is lost.
#[test]
fn after_a_pause_of_the_machine_everybody_has_their_reports() {
    let mut stage = Stage::new(201);
    let publisher = stage.join();
    let audio = stage.publish(publisher, Shape::opus());
    for _ in 0..400 {
        let client = stage.join();
        stage.subscribe(client, audio);
    }
    stage.run(secs(2));
    let before = stage.shard.stats().rtcp_out;
    stage.now += secs(3);
    stage.run(ms(20));
    assert!(stage.shard.stats().rtcp_out >= before + 400, "each got a sender report");
    assert_eq!(stage.dropped(Drop::ArenaFull), 0);
}
