//! Which layer a subscriber gets, and that changing it is seamless.

use weir_stage::{Shape, Stage, ms, secs};
use weir_units::command::Command;
use weir_units::event::Event;
use weir_units::media::{Layer, Wish};

#[test]
fn a_switch_between_encodings_is_seamless_both_ways() {
    let mut stage = Stage::new(10);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::vp8_simulcast());
    let subscriber = stage.join();
    let subscription = stage.subscribe(subscriber, publication);
    stage.run(secs(3));
    for (spatial, temporal) in [(0, 2), (2, 2), (1, 2), (0, 2), (2, 2)] {
        stage.wish(subscription, spatial, temporal);
        stage.run(secs(3));
    }
    let playback = stage.playback(subscription);
    playback.assert_seamless();
    let stretches = playback.stretches();
    let shown: Vec<u8> = stretches.iter().map(|stretch| stretch.0).filter(|_| true).collect();
    assert_eq!(shown[shown.len() - 6..], [2, 0, 2, 1, 0, 2], "{stretches:?}");
    assert!(stretches[1..].iter().all(|stretch| stretch.1 >= 80), "{stretches:?}");
    let (least, most) = playback.drift();
    assert!(least >= -40 && most <= 40, "timestamps follow the capture within a frame: {least} to {most} ms");
    for stream in &stage.source(publication).streams {
        assert!(stream.requests.len() <= 4, "each switch asks once: {:?}", stream.requests.len());
    }
}

#[test]
fn late_packets_of_the_encoding_that_was_left_still_fill_their_places() {
    for seed in 0..40 {
        let mut stage = Stage::new(100 + seed);
        stage.line.jitter = ms(30);
        let publisher = stage.join();
        let publication = stage.publish(publisher, Shape::vp8_simulcast());
        let subscriber = stage.join();
        let subscription = stage.subscribe(subscriber, publication);
        stage.run(secs(3)); // what the line carries is known, or that nobody tells
        (stage.line.loss_up, stage.line.loss_down) = (0.03, 0.03);
        for spatial in [2, 0, 1, 2, 1, 0, 2] {
            stage.wish(subscription, spatial, 2);
            stage.run(secs(1));
        }
        stage.settle();
        let playback = stage.playback(subscription);
        assert!(playback.faults.is_empty(), "seed {seed}: {}", playback.faults[0]);
        assert!(playback.missing.len() <= 1, "seed {seed}: {:?}", playback.missing);
    }
}

#[test]
fn upper_temporal_layers_are_left_out_and_come_back() {
    let mut stage = Stage::new(11);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::vp8());
    let subscriber = stage.join();
    let subscription = stage.subscribe(subscriber, publication);
    stage.run(secs(2));
    let mut counts = Vec::new();
    for temporal in [0, 1, 2, 1, 0, 2] {
        stage.wish(subscription, 0, temporal);
        stage.run(secs(1));
        let before = stage.playback(subscription).frames.len();
        stage.run(secs(2));
        let playback = stage.playback(subscription);
        counts.push(playback.frames.len() - before);
        assert!(playback.frames[before..].iter().all(|frame| frame.temporal <= temporal));
    }
    stage.playback(subscription).assert_seamless();
    for (count, wanted) in counts.into_iter().zip([15, 30, 60, 30, 15, 60]) {
        assert!((wanted - 2..=wanted + 2).contains(&count), "{count} pictures in two seconds, not {wanted}");
    }
    assert!(stage.source(publication).streams[0].requests.is_empty(), "no key frame is needed for it");
}

#[test]
fn a_layered_stream_goes_down_between_pictures_and_up_at_a_key_frame() {
    for shape in [Shape::vp9_svc(), Shape::av1_svc()] {
        let mut stage = Stage::new(12);
        let top = shape.layers.len() as u8 - 1;
        let publisher = stage.join();
        let publication = stage.publish(publisher, shape);
        let subscriber = stage.join();
        let subscription = stage.subscribe(subscriber, publication);
        stage.run(secs(2));
        stage.wish(subscription, 0, 2);
        stage.run(ms(40));
        let before = stage.playback(subscription).frames.len();
        stage.run(secs(2));
        let playback = stage.playback(subscription);
        assert!(playback.frames[before..].iter().all(|frame| frame.id.spatial == 0), "down at once");
        assert_eq!(stage.source(publication).streams[0].requests.len(), 0);
        stage.wish(subscription, top, 2);
        stage.run(secs(2));
        assert_eq!(stage.source(publication).streams[0].requests.len(), 1, "asked once");
        let playback = stage.playback(subscription);
        playback.assert_seamless();
        assert_eq!(playback.frames.last().unwrap().id.spatial, top);
        let (least, most) = playback.drift();
        assert!(least >= -1 && most <= 1, "{least} to {most} ms");
    }
}

#[test]
fn a_layered_stream_loses_temporal_layers_without_a_gap() {
    for shape in [Shape::vp9_svc(), Shape::av1_svc()] {
        let mut stage = Stage::new(13);
        let publisher = stage.join();
        let publication = stage.publish(publisher, shape);
        let subscriber = stage.join();
        let subscription = stage.subscribe(subscriber, publication);
        for temporal in [2, 0, 1, 0, 2] {
            stage.wish(subscription, 1, temporal);
            stage.run(secs(2));
        }
        let playback = stage.playback(subscription);
        playback.assert_seamless();
        assert!(playback.frames.iter().rev().take(20).any(|frame| frame.temporal > 0), "they came back");
    }
}

#[test]
fn a_layer_that_stops_makes_its_subscribers_fall_to_the_next_and_return() {
    let mut stage = Stage::new(14);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::vp8_simulcast());
    let subscriber = stage.join();
    let subscription = stage.subscribe(subscriber, publication);
    stage.run(secs(12));
    stage.source(publication).streams[2].is_active = false;
    let stopped = stage.now;
    stage.run(secs(2));
    let playback = stage.playback(subscription);
    let fallen = playback.frames.iter().find(|frame| frame.id.encoding == 1 && frame.at > stopped);
    let wait = fallen.expect("the next lower encoding").at - stopped;
    assert!(wait <= ms(900), "it took {wait:?}");
    stage.source(publication).streams[2].is_active = true;
    stage.source(publication).streams[2].wants_key = true;
    stage.run(secs(3));
    let playback = stage.playback(subscription);
    playback.assert_seamless();
    assert_eq!(playback.frames.last().unwrap().id.encoding, 2);
    let (least, most) = playback.drift();
    assert!(least >= -40 && most <= 40, "{least} to {most} ms");
}

#[test]
fn what_anybody_wants_is_told_when_it_changes() {
    let mut stage = Stage::new(15);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::vp8_simulcast());
    let (anne, ben) = (stage.join(), stage.join());
    let wish = |spatial| Wish { max_layer: Layer { spatial, temporal: 2 }, ..Wish::default() };
    let of_anne = stage.subscribe_with(anne, publication, wish(1));
    let of_ben = stage.subscribe_with(ben, publication, wish(0));
    stage.wish(of_anne, 0, 2);
    stage.wish(of_ben, 2, 2);
    stage
        .command(Command::SetWish { subscription: of_ben, wish: Wish { enabled: false, ..Wish::default() } });
    stage.command(Command::Unsubscribe { subscription: of_anne });
    stage.run(ms(1));
    let layers: Vec<u8> = stage
        .events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::LayersWanted { publication: of, layers } if *of == publication => Some(*layers),
            _ => None,
        })
        .collect();
    assert_eq!(layers, [0b011, 0b001, 0b111, 0b001, 0]);
}

#[test]
fn a_paused_subscription_gets_nothing_and_goes_on_where_it_was() {
    for since_key in [ms(500), secs(1)] {
        let mut stage = Stage::new(16);
        let publisher = stage.join();
        let publication = stage.publish(publisher, Shape { layers: vec![(600, 1)], ..Shape::vp8() });
        let subscriber = stage.join();
        let subscription = stage.subscribe(subscriber, publication);
        stage.run(secs(2));
        let set = |enabled| Command::SetWish { subscription, wish: Wish { enabled, ..Wish::default() } };
        stage.command(set(false));
        stage.run(ms(100));
        let before = stage.receiver(subscription).packets.len();
        stage.run(secs(4));
        assert_eq!(stage.receiver(subscription).packets.len(), before);
        stage.source(publication).streams[0].wants_key = true;
        stage.run(since_key);
        stage.command(set(true));
        let resumed = stage.now;
        stage.run(secs(2));
        let playback = stage.playback(subscription);
        playback.assert_seamless();
        let first = playback.frames.iter().find(|frame| frame.at > resumed).unwrap();
        assert_eq!(first.at, resumed + stage.line.delay, "from the ring");
        let (least, most) = playback.drift();
        assert!(least >= -40 && most <= 40, "{least} to {most} ms");
    }
}

#[test]
fn a_layer_that_stops_when_nobody_wants_it_is_given_at_once_when_somebody_does_again() {
    let mut stage = Stage::new(19);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::vp8_simulcast());
    let subscriber = stage.join();
    let subscription = stage.subscribe(subscriber, publication);
    stage.run(secs(3));
    for _ in 0..6 {
        stage.wish(subscription, 0, 2);
        stage.run(secs(1));
        stage.source(publication).streams[2].is_active = false;
        stage.run(secs(4));
        stage.wish(subscription, 2, 2);
        stage.source(publication).streams[2].is_active = true;
        stage.run(secs(1));
        assert_eq!(stage.playback(subscription).frames.last().unwrap().id.encoding, 2);
        stage.run(secs(2));
    }
    stage.playback(subscription).assert_seamless();
}
