//! What is special about audio.

use weir_stage::{Shape, Stage, ms, secs};
use weir_units::event::Event;
use weir_units::media::{Codec, Wish};

#[test]
fn silence_leaves_no_gap_in_numbers_and_all_of_it_in_time() {
    let mut stage = Stage::new(40);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::opus());
    let subscriber = stage.join();
    let subscription = stage.subscribe(subscriber, publication);
    for silence in [ms(400), secs(5), secs(60), secs(400)] {
        stage.run(secs(1));
        stage.source(publication).is_paused = true;
        stage.run(silence);
        stage.source(publication).is_paused = false;
    }
    stage.run(secs(1));
    let playback = stage.playback(subscription);
    playback.assert_seamless();
    assert_eq!(playback.drift(), (0, 0), "in milliseconds");
}

#[test]
fn redundant_audio_goes_as_it_is_to_who_takes_it_and_as_opus_to_who_does_not() {
    let mut stage = Stage::new(41);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::red());
    let (with, without) = (stage.join(), stage.join());
    let red = stage.subscribe(with, publication);
    let opus = stage.subscribe_as(without, publication, Wish::default(), Codec::Opus);
    stage.run(secs(2));
    for subscription in [red, opus] {
        let playback = stage.playback(subscription);
        playback.assert_seamless();
        assert!(playback.frames.len() > 90);
    }
}

#[test]
fn packets_of_one_batch_are_sent_again_as_they_were() {
    let mut stage = Stage::new(42);
    stage.line.batch = ms(60);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape { ragged: 3, ..Shape::opus() });
    let subscriber = stage.join();
    let subscription = stage.subscribe(subscriber, publication);
    stage.line.loss_down = 0.1;
    stage.run(secs(10));
    stage.line.loss_down = 0.0;
    stage.run(secs(1));
    // The stage itself checks that no two packets go out under one number.
    let playback = stage.playback(subscription);
    playback.assert_seamless();
    assert!(stage.shard.stats().retransmitted > 20);
}

#[test]
fn padding_is_no_audio() {
    let mut stage = Stage::new(43);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::opus());
    let subscriber = stage.join();
    let subscription = stage.subscribe(subscriber, publication);
    for _ in 0..50 {
        stage.run(ms(100));
        stage.send_padding(publisher, 0);
    }
    stage.run(secs(1));
    stage.playback(subscription).assert_seamless();
}

#[test]
fn who_speaks_is_told_and_who_stops_too() {
    let mut stage = Stage::new(44);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::opus());
    let quiet = stage.join();
    let silent = stage.publish(quiet, Shape::opus());
    stage.source(silent).level = 90;
    stage.run(secs(2));
    let last = |stage: &Stage| {
        stage.events.iter().rev().find_map(|(_, event)| match event {
            Event::Speakers { speakers, .. } => Some(speakers.iter().map(|speaker| speaker.0).collect()),
            _ => None,
        })
    };
    assert_eq!(last(&stage), Some(vec![publication]));
    stage.source(publication).level = 90;
    stage.run(secs(3));
    assert_eq!(last(&stage), Some(vec![]));
}

#[test]
fn a_new_source_goes_on_where_the_old_one_was() {
    let mut stage = Stage::new(45);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::opus());
    let subscriber = stage.join();
    let subscription = stage.subscribe(subscriber, publication);
    stage.run(secs(2));
    stage.source(publication).restart(0, 0x7777_1234);
    stage.run(secs(2));
    let playback = stage.playback(subscription);
    playback.assert_seamless();
    let (least, most) = playback.drift();
    assert!(least >= -21 && most <= 21, "{least} to {most} ms");
}
