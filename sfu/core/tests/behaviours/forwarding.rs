//! Packets of a publisher reach its subscribers, each on a stream of its own.

use weir_stage::{Shape, Stage, ms, secs};
use weir_units::event::Event;

#[test]
fn every_subscriber_gets_every_picture() {
    for shape in
        [Shape::vp8(), Shape::h264(), Shape::vp9_svc(), Shape::av1_svc(), Shape::opus(), Shape::red()]
    {
        let mut stage = Stage::new(1);
        let publisher = stage.join();
        let publication = stage.publish(publisher, shape.clone());
        let subscriptions: Vec<_> = (0..5)
            .map(|_| {
                let client = stage.join();
                stage.subscribe(client, publication)
            })
            .collect();
        stage.run(secs(5));
        for subscription in subscriptions {
            let playback = stage.playback(subscription);
            playback.assert_seamless();
            let least = if shape.is_video() { 140 } else { 240 };
            assert!(playback.frames.len() >= least, "{:?}: {} frames", shape.codec, playback.frames.len());
            assert!(stage.has_event(&Event::SubscriptionStarted { subscription }));
        }
        assert!(stage.has_event(&Event::PublicationStarted { publication, codec: shape.codec }));
    }
}

#[test]
fn a_late_joiner_gets_a_picture_at_once_and_nobody_is_asked_for_one() {
    for shape in [Shape::vp8(), Shape::h264(), Shape::vp9_svc(), Shape::av1_svc()] {
        let mut stage = Stage::new(2);
        let publisher = stage.join();
        let publication = stage.publish(publisher, shape);
        stage.run(ms(100));
        let joiner = stage.join();
        let asked = stage.source(publication).streams[0].requests.len();
        let joined = stage.now;
        let subscription = stage.subscribe(joiner, publication);
        stage.run(ms(1_000));
        let playback = stage.playback(subscription);
        playback.assert_seamless();
        let first = playback.frames.iter().find(|frame| frame.is_decoded).unwrap();
        assert_eq!(first.at, joined + stage.line.delay, "one way, and no waiting for the publisher");
        assert_eq!(stage.source(publication).streams[0].requests.len(), asked);
    }
}

#[test]
fn numbers_go_on_across_their_wraps() {
    let mut stage = Stage::new(3);
    stage.line.jitter = ms(15);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::vp8());
    let stream = &mut stage.source(publication).streams[0];
    (stream.sequence, stream.rtx_sequence) = (65_400, 65_500);
    stream.timestamp_base = 90_000_u32.wrapping_neg();
    let subscriber = stage.join();
    let subscription = stage.subscribe(subscriber, publication);
    (stage.line.loss_up, stage.line.loss_down) = (0.05, 0.05);
    stage.run(secs(20));
    stage.settle();
    let playback = stage.playback(subscription);
    playback.assert_seamless();
    assert!(stage.source(publication).streams[0].sequence > 65_536 + 1_000);
}

#[test]
fn egress_numbers_go_on_across_a_rollover() {
    let mut stage = Stage::new(4);
    let publisher = stage.join();
    let shape = Shape { layers: vec![(100, 100)], interval: ms(10), ..Shape::vp8() };
    let publication = stage.publish(publisher, shape);
    let subscriber = stage.join();
    let subscription = stage.subscribe(subscriber, publication);
    (stage.line.loss_up, stage.line.loss_down) = (0.01, 0.01);
    stage.run(secs(9));
    stage.settle();
    let receiver = stage.receiver(subscription);
    assert!(*receiver.packets.keys().last().unwrap() > 70_000, "it wrapped");
    let packets = receiver.packets.len();
    let playback = stage.playback(subscription);
    assert!(playback.faults.is_empty(), "{}", playback.faults[0]);
    // The ring holds a tenth of a second of this flood; not every second repair comes in time.
    assert!(playback.missing.len() * 1_000 < packets, "{:?}", playback.missing);
}

/// As in a call of hours: sequence numbers, rollover counters, transport-wide numbers and timestamps begin anew, and packets
/// are lost meanwhile on both ways.
#[test]
fn numbers_that_wrap_are_no_gap() {
    let mut stage = Stage::new(640);
    let (publisher, subscriber) = (stage.join(), stage.join());
    let publication = stage.publish(publisher, Shape { layers: vec![(60, 60)], ..Shape::vp8() });
    stage.source(publication).streams[0].timestamp_base = u32::MAX - 90_000 * 20;
    let subscription = stage.subscribe(subscriber, publication);
    (stage.line.loss_up, stage.line.loss_down) = (0.005, 0.005);
    stage.run(secs(40));
    let sent = stage.source(publication).streams[0].sent;
    assert!(sent > 1 << 16, "{sent} packets");
    stage.settle();
    let playback = stage.playback(subscription);
    playback.assert_seamless();
    assert!(playback.drift().0 >= -2 && playback.drift().1 <= 2, "{:?}", playback.drift());
    assert_eq!(stage.shard.stats().lost, 0);
}
