//! What a line carries decides what is sent over it.

use std::time::Duration;

use weir_core::stats::{Drop, Reason};
use weir_rtp::rtcp::RtcpWriter;
use weir_stage::{Neck, Shape, Stage, ms, secs};
use weir_units::command::Command;
use weir_units::event::{Event, Shortage};
use weir_units::ids::{PublicationId, SubscriptionId};
use weir_units::media::{Layer, Wish};

fn neck(kbps: u64) -> Option<Neck> {
    Some(Neck { bits_per_second: kbps * 1_000, queue: ms(300) })
}

/// A publisher of three encodings, some 160, 500 and 1,350 kbit/s, and a viewer that reports.
fn viewer(seed: u64, kbps: u64) -> (Stage, SubscriptionId) {
    viewer_that(seed, kbps, |stage| stage.reports_arrivals = true)
}

fn viewer_that(seed: u64, kbps: u64, does: impl FnOnce(&mut Stage)) -> (Stage, SubscriptionId) {
    let mut stage = Stage::new(seed);
    does(&mut stage);
    stage.line.down = neck(kbps);
    let (publisher, subscriber) = (stage.join(), stage.join());
    let video = stage.publish(publisher, Shape::vp8_simulcast());
    stage.run(ms(500));
    let subscription = stage.subscribe(subscriber, video);
    (stage, subscription)
}

/// The longest time without a picture from `from` on, counted from the stage's beginning.
fn standstill(stage: &mut Stage, subscription: SubscriptionId, from: Duration) -> Duration {
    let (began, now) = (stage.began + from, stage.now);
    let playback = stage.playback(subscription);
    let shown = playback.frames.iter().filter(|frame| frame.is_decoded && frame.at >= began);
    let mut last = began;
    let mut longest = Duration::ZERO;
    for at in shown.map(|frame| frame.at).chain([now]) {
        longest = longest.max(at.saturating_duration_since(last));
        last = last.max(at);
    }
    longest
}

/// Publishers that answer no requests for key frames, as those that play files.
fn play_deaf(stage: &mut Stage, videos: &[PublicationId], time: Duration) {
    for _ in 0..time.as_millis() {
        stage.run(ms(1));
        for video in videos {
            stage.source(*video).streams.iter_mut().for_each(|stream| stream.wants_key = false);
        }
    }
}

fn last_encoding(stage: &mut Stage, subscription: SubscriptionId) -> u8 {
    stage.playback(subscription).frames.last().expect("pictures").id.encoding
}

#[test]
fn a_line_that_carries_all_is_given_all_within_two_seconds() {
    let (mut stage, subscription) = viewer(1, 5_000);
    stage.run(secs(2));
    assert_eq!(last_encoding(&mut stage, subscription), 2);
    stage.run(secs(8));
    let playback = stage.playback(subscription);
    playback.assert_seamless();
    let first = playback.frames.iter().position(|frame| frame.id.encoding == 2).unwrap();
    assert!(playback.frames[first..].iter().all(|frame| frame.id.encoding == 2), "and keeps it");
    assert_eq!(stage.lost_in_queue, 0);
}

#[test]
fn a_line_that_collapses_is_given_less_at_once_and_all_when_it_recovers() {
    let (mut stage, subscription) = viewer(2, 5_000);
    stage.run(secs(6));
    stage.line.down = neck(230);
    let collapsed = stage.now - stage.began;
    stage.run(secs(10));
    assert_eq!(last_encoding(&mut stage, subscription), 0);
    let still = standstill(&mut stage, subscription, collapsed);
    assert!(still < ms(1_500), "{still:?}");
    assert!(stage.lost_in_queue < 60, "{} lost", stage.lost_in_queue);
    stage.line.down = neck(5_000);
    stage.run(secs(5));
    assert_eq!(last_encoding(&mut stage, subscription), 2);
    let lost = stage.lost_in_queue;
    stage.run(secs(10));
    assert_eq!((last_encoding(&mut stage, subscription), stage.lost_in_queue), (2, lost));
    assert_eq!(stage.playback(subscription).faults, Vec::<String>::new());
}

#[test]
fn a_collapse_is_survived_though_the_publisher_answers_no_request() {
    for after in [6_000, 9_500, 13_000] {
        let mut stage = Stage::new(8);
        stage.reports_arrivals = true;
        stage.line.down = neck(3_000);
        (stage.line.delay, stage.line.jitter, stage.line.keeps_order) = (ms(50), ms(3), true);
        let (publisher, subscriber) = (stage.join(), stage.join());
        stage.clients[publisher].answers_key_frame_requests = false;
        let shape = Shape { layers: vec![(600, 1), (1_000, 2), (1_100, 7)], ..Shape::vp8_simulcast() };
        let video = stage.publish(publisher, shape);
        let subscription = stage.subscribe(subscriber, video);
        let began = stage.now;
        let run = |stage: &mut Stage, millis: u64| {
            for _ in 0..millis / 250 {
                // A key frame each 8, 6 and 4 seconds, as of a file that is played.
                let passed = (stage.now - began).as_millis() as u64;
                for (stream, every) in stage.source(video).streams.iter_mut().zip([8_000, 6_000, 4_000]) {
                    stream.wants_key = passed % every < 250;
                }
                stage.run(ms(250));
            }
        };
        run(&mut stage, after);
        stage.line.down = neck(300);
        let collapsed = stage.now - stage.began;
        run(&mut stage, 10_000);
        assert!(last_encoding(&mut stage, subscription) <= 1);
        let still = standstill(&mut stage, subscription, collapsed);
        assert!(still < secs(2), "{still:?} after {after} ms");
        assert_eq!(stage.playback(subscription).faults, Vec::<String>::new());
    }
}

#[test]
fn what_is_lost_on_a_thin_line_is_sent_again_in_its_turn() {
    let (mut stage, subscription) = viewer(11, 250);
    stage.run(secs(8));
    let before = stage.receiver(subscription).packets.last_key_value().map(|(number, _)| *number);
    stage.line.loss_down = 0.1;
    stage.run(secs(8));
    stage.settle();
    let resent = stage.shard.stats().retransmitted;
    let playback = stage.playback(subscription);
    assert!(resent > 15, "{resent}");
    // A larger picture that the line did not carry at first was left, and nothing of it is of use any more.
    let missing: Vec<_> = playback.missing.iter().filter(|number| Some(**number) > before).collect();
    assert!(missing.len() <= 1, "{resent} sent again, {missing:?} missing");
    assert_eq!(playback.faults, Vec::<String>::new());
}

#[test]
fn one_large_picture_begins_though_the_line_is_not_known_to_carry_it() {
    for knows_audio in [false, true] {
        let mut stage = Stage::new(9);
        stage.reports_arrivals = true;
        stage.line.down = neck(5_000);
        let (publisher, subscriber) = (stage.join(), stage.join());
        let shape = Shape { layers: vec![(1_100, 9)], ..Shape::h264() }; // 2.5 Mbit/s
        let video = stage.publish(publisher, shape);
        let audio = stage.publish(publisher, Shape::opus());
        stage.run(secs(2));
        if knows_audio {
            stage.subscribe(subscriber, audio);
            stage.run(secs(5));
        }
        let subscription = stage.subscribe(subscriber, video);
        let asked = stage.now - stage.began;
        stage.run(secs(4));
        let still = standstill(&mut stage, subscription, asked);
        assert!(still < secs(1), "{still:?}, audio {knows_audio}");
        assert_eq!(stage.lost_in_queue, 0);
        assert_eq!(stage.playback(subscription).faults, Vec::<String>::new());
    }
}

#[test]
fn a_line_too_thin_for_two_pictures_has_one_and_is_told_of_the_other() {
    let mut stage = Stage::new(3);
    stage.reports_arrivals = true;
    stage.line.down = neck(90);
    let (publisher, subscriber) = (stage.join(), stage.join());
    let (one, two) =
        (stage.publish(publisher, Shape::vp8_simulcast()), stage.publish(publisher, Shape::vp8_simulcast()));
    let main = Wish { priority: 2, ..Wish::default() };
    let main = stage.subscribe_with(subscriber, one, main);
    let other = stage.subscribe(subscriber, two);
    stage.run(secs(10));
    assert!(stage.has_event(&Event::StreamState { subscription: other, paused: true }));
    assert_eq!(last_encoding(&mut stage, main), 0);
    stage.line.down = neck(8_000);
    stage.run(secs(10));
    assert!(stage.has_event(&Event::StreamState { subscription: other, paused: false }));
    assert_eq!([main, other].map(|one| last_encoding(&mut stage, one)), [2, 2]);
}

/// Four publishers of three encodings, and somebody who looks at all of them over a thin line.
fn four_pictures(seed: u64, kbps: u64) -> (Stage, [(PublicationId, SubscriptionId); 4]) {
    let mut stage = Stage::new(seed);
    stage.reports_arrivals = true;
    stage.line.down = neck(kbps);
    let subscriber = stage.join();
    let publishers = [(); 4].map(|()| stage.join());
    let pictures = publishers.map(|publisher| stage.publish(publisher, Shape::vp8_simulcast()));
    stage.run(ms(1_500));
    let pictures = pictures.map(|picture| (picture, stage.subscribe(subscriber, picture)));
    (stage, pictures)
}

/// Pictures that wait are given up for others again and again; what is sent of one must never leave out what came before.
#[test]
fn nothing_is_missing_where_pictures_that_waited_were_given_up() {
    for seed in 0..8 {
        let (mut stage, _) = four_pictures(seed, 1_500);
        for rate in [1_500, 400, 3_000, 700] {
            stage.line.down = neck(rate);
            stage.run(secs(4));
        }
        assert_eq!(stage.numbers_left_open(), 0, "seed {seed}");
    }
}

/// A picture is not wanted for a moment, while one that it follows waits.
#[test]
fn nothing_is_missing_where_wishes_waver() {
    for seed in 0..32 {
        let (mut stage, pictures) = four_pictures(seed, 500);
        stage.run(secs(2));
        for turn in 0..80 {
            let (picture, subscription) = pictures[((turn * 7 + seed) % 4) as usize];
            let max_layer = Layer { spatial: (turn * 5 % 3) as u8, temporal: u8::MAX };
            let wish = Wish { enabled: turn % 3 != 0, max_layer, ..Wish::default() };
            stage.command(Command::SetWish { subscription, wish });
            for stream in &mut stage.source(picture).streams {
                stream.wants_key |= turn % 5 == 0;
            }
            stage.run(ms(10 + 10 * (turn % 13)));
        }
        assert_eq!(stage.numbers_left_open(), 0, "seed {seed}");
    }
}

#[test]
fn who_reports_nothing_is_sent_what_is_wished_soon() {
    let (mut stage, subscription) = viewer(4, 100_000);
    let subscriber = stage.clients.len() - 1;
    let mute = stage.clients[subscriber].id;
    stage.clients[subscriber].gives_feedback = false;
    stage.run(secs(4));
    assert_eq!(last_encoding(&mut stage, subscription), 2, "{mute}");
    assert_eq!(stage.playback(subscription).faults, Vec::<String>::new());
}

#[test]
fn lies_about_arrivals_prove_nothing() {
    let (mut stage, subscription) = viewer(5, 700);
    stage.run(secs(3));
    let subscriber = stage.clients.len() - 1;
    for round in 0..200_u16 {
        let lie = |writer: &mut RtcpWriter<'_>| {
            // Numbers that were never sent, and all at one moment.
            let packets =
                (0..200).map(|at| (round.wrapping_mul(331).wrapping_add(at), Some(u64::from(round))));
            writer.transport_feedback(1, 1, round as u8, packets) > 0
        };
        stage.send_rtcp(subscriber, lie);
        stage.run(ms(20));
    }
    stage.run(secs(10));
    assert!(last_encoding(&mut stage, subscription) <= 1);
    assert_eq!(stage.dropped(Drop::MalformedRtcp), 0);
}

#[test]
fn padding_looks_for_what_a_line_carries_when_media_does_not() {
    let (mut stage, subscription) = viewer(7, 300);
    stage.run(secs(6));
    stage.line.down = neck(5_000);
    let before = stage.shard.stats().probes;
    stage.run(secs(4));
    assert_eq!(last_encoding(&mut stage, subscription), 2);
    let sent = stage.shard.stats().probes - before;
    assert!(sent > 0);
    let sent = stage.shard.stats().probes;
    assert_eq!(stage.receiver(subscription).probes, sent);
}

#[test]
fn why_a_picture_is_small_can_be_asked() {
    let (mut stage, subscription) = viewer(12, 700);
    stage.run(secs(6));
    let lines = stage.shard.lines(stage.now);
    let [line] = &lines[..] else { panic!("one watches: {lines:?}") };
    let [picture] = &line.pictures[..] else { panic!("one picture: {line:?}") };
    assert_eq!((line.peer, picture.subscription), (stage.clients[1].id, subscription));
    assert!(line.available.is_some_and(|bps| (450_000..750_000).contains(&bps)), "{line:?}");
    assert_eq!(picture.granted.map(|layer| layer.spatial), Some(1));
    assert_eq!((picture.reason, picture.encoding), (Reason::Line, Some(1)));
    stage.command(weir_units::command::Command::Unsubscribe { subscription });
    assert!(stage.shard.lines(stage.now)[0].pictures.is_empty());
}

#[test]
fn a_smaller_wish_is_a_smaller_picture_whatever_the_line_carries() {
    let (mut stage, subscription) = viewer(6, 20_000);
    stage.run(secs(4));
    stage.command(weir_units::command::Command::SetWish {
        subscription,
        wish: Wish { max_layer: Layer { spatial: 0, temporal: 2 }, ..Wish::default() },
    });
    stage.run(ms(500));
    assert_eq!(last_encoding(&mut stage, subscription), 0);
    stage.wish(subscription, 2, 2);
    stage.run(ms(500));
    assert_eq!(last_encoding(&mut stage, subscription), 2);
    stage.playback(subscription).assert_seamless();
}

#[test]
fn of_two_equal_pictures_the_larger_is_whose_publisher_speaks() {
    let mut stage = Stage::new(9);
    stage.reports_arrivals = true;
    stage.line.down = neck(2_000); // not two large ones, even at half their frames
    let subscriber = stage.join();
    let mut voices = Vec::new();
    let pictures = [(); 2].map(|()| {
        let publisher = stage.join();
        let voice = stage.publish(publisher, Shape::opus());
        stage.source(voice).level = 90;
        stage.subscribe(subscriber, voice);
        voices.push(voice);
        let picture = stage.publish(publisher, Shape::vp8_simulcast());
        stage.subscribe(subscriber, picture)
    });
    for speaks in [1, 0, 1] {
        for (at, voice) in voices.iter().enumerate() {
            stage.source(*voice).level = if at == speaks { 20 } else { 90 };
        }
        stage.run(secs(20));
        let is_large = |stage: &mut Stage| pictures.map(|picture| last_encoding(stage, picture) == 2);
        let wanted = [speaks == 0, speaks == 1];
        assert_eq!(is_large(&mut stage), wanted, "{speaks} speaks");
        // A word of the other changes nothing.
        stage.source(voices[1 - speaks]).level = 20;
        stage.run(ms(700));
        stage.source(voices[1 - speaks]).level = 90;
        stage.run(secs(3));
        assert_eq!(is_large(&mut stage), wanted, "{speaks} speaks on");
    }
    for picture in pictures {
        assert_eq!(stage.playback(picture).faults, Vec::<String>::new());
    }
}

#[test]
fn the_control_plane_hears_how_much_less_than_wished_is_sent() {
    let mut stage = Stage::new(10);
    stage.reports_arrivals = true;
    stage.line.down = neck(5_000);
    let (publisher, subscriber) = (stage.join(), stage.join());
    let video = stage.publish(publisher, Shape::vp8_simulcast());
    let subscription = stage.subscribe(subscriber, video);
    let peer = stage.clients[subscriber].id;
    let shortage = |stage: &Stage| {
        stage.events.iter().rev().find_map(|(_, event)| match event {
            Event::Quality { peer: of, quality } if *of == peer => Some(quality.shortage),
            _ => None,
        })
    };
    for (kbps, told) in [
        (5_000, Shortage::Little),
        (450, Shortage::Much),
        (20, Shortage::Paused),
        (5_000, Shortage::Little),
        (450, Shortage::Much),
    ] {
        stage.line.down = neck(kbps);
        stage.run(secs(20));
        assert_eq!(shortage(&stage), Some(told), "{kbps} kbit/s");
    }
    let wish = Wish { enabled: false, ..Wish::default() };
    stage.command(weir_units::command::Command::SetWish { subscription, wish });
    stage.run(secs(11));
    assert_eq!(shortage(&stage), Some(Shortage::Little), "who wishes nothing misses nothing");
}

/// For so many seconds the viewer, who numbers no arrivals, sends what it makes of its line as browsers do: half as much
/// again as arrives, or less than that where a queue grows.
fn estimate(stage: &mut Stage, subscription: SubscriptionId, seconds: u32) {
    let viewer = stage.clients.len() - 1;
    for _ in 0..seconds {
        let (before, lost) = (stage.receiver(subscription).packets.len(), stage.lost_in_queue);
        stage.run(secs(1));
        let arrived = (stage.receiver(subscription).packets.len() - before) as u64 * 1_100 * 8;
        let estimate = if stage.lost_in_queue > lost { arrived * 85 / 100 } else { arrived * 3 / 2 + 10_000 };
        stage.send_rtcp(viewer, |writer| writer.remb(1, estimate, &[]));
    }
}

#[test]
fn who_only_estimates_its_line_is_sent_what_it_carries() {
    let (mut stage, subscription) = viewer_that(11, 600, |stage| stage.reports_arrivals = false);
    estimate(&mut stage, subscription, 10);
    let (settled, lost) = (stage.now, stage.lost_in_queue);
    estimate(&mut stage, subscription, 60);
    // Nothing is probed: now and then more is tried, and taken back.
    let lost = stage.lost_in_queue - lost;
    let mut frames = stage.playback(subscription).frames;
    frames.retain(|frame| frame.at >= settled);
    let large = frames.iter().filter(|frame| frame.id.encoding == 2).count();
    assert!(large * 5 < frames.len() && frames.len() > 60 * 14, "{large} of {} are large", frames.len());
    assert!(lost < 200, "{lost} lost");
    stage.line.down = neck(5_000);
    estimate(&mut stage, subscription, 40);
    assert_eq!(last_encoding(&mut stage, subscription), 2);
    stage.line.down = neck(20);
    estimate(&mut stage, subscription, 20);
    stage.line.down = neck(5_000);
    estimate(&mut stage, subscription, 60);
    assert_eq!(last_encoding(&mut stage, subscription), 2, "and tried again when next to nothing passed");
    assert_eq!(stage.playback(subscription).faults, Vec::<String>::new());
}

#[test]
fn one_large_picture_comes_back_where_nothing_can_be_probed() {
    let mut stage = Stage::new(13);
    stage.line.down = neck(5_000);
    let (publisher, subscriber) = (stage.join(), stage.join());
    let video = stage.publish(publisher, Shape { layers: vec![(1_100, 9)], ..Shape::h264() }); // 2.5 Mbit/s
    stage.run(ms(500));
    let subscription = stage.subscribe(subscriber, video);
    estimate(&mut stage, subscription, 10);
    stage.line.down = neck(300);
    estimate(&mut stage, subscription, 30);
    assert!(stage.has_event(&Event::StreamState { subscription, paused: true }));
    stage.line.down = neck(5_000);
    estimate(&mut stage, subscription, 60);
    let back = stage.now;
    estimate(&mut stage, subscription, 5);
    let frames = stage.playback(subscription).frames;
    assert!(frames.iter().filter(|frame| frame.at >= back).count() > 100, "it goes on");
}

#[test]
fn an_estimate_counts_for_nothing_where_arrivals_are_reported() {
    let (mut stage, subscription) = viewer(12, 5_000);
    let viewer = stage.clients.len() - 1;
    for _ in 0..10 {
        stage.send_rtcp(viewer, |writer| writer.remb(1, 50_000, &[]));
        stage.run(secs(1));
    }
    assert_eq!(last_encoding(&mut stage, subscription), 2);
}

#[test]
fn a_layer_that_a_stream_no_longer_has_is_no_longer_missed() {
    let mut stage = Stage::new(14);
    stage.reports_arrivals = true;
    stage.line.down = neck(1_000);
    let (publisher, subscriber) = (stage.join(), stage.join());
    let video = stage.publish(publisher, Shape::vp9_svc());
    stage.run(ms(500));
    let subscription = stage.subscribe(subscriber, video);
    let reason = |stage: &Stage| stage.shard.lines(stage.now)[0].pictures[0].reason;
    stage.run(secs(10));
    assert_eq!(reason(&stage), Reason::Line);
    let top = stage.source(video).shape.layers.pop().unwrap();
    stage.run(secs(4));
    assert_eq!(reason(&stage), Reason::Wish);
    stage.source(video).shape.layers.push(top);
    stage.source(video).streams[0].wants_key = true;
    stage.run(secs(4));
    assert_eq!(reason(&stage), Reason::Line);
    assert_eq!(stage.playback(subscription).faults, Vec::<String>::new());
}

#[test]
fn a_picture_that_was_muted_comes_back_as_small_as_it_was() {
    let (mut stage, subscription) = viewer(15, 700);
    let (publication, granted) = (stage.receiver(subscription).publication, |stage: &Stage| {
        let picture = &stage.shard.lines(stage.now)[0].pictures[0];
        (picture.granted.map(|layer| layer.spatial), picture.reason)
    });
    stage.run(secs(10));
    assert_eq!(granted(&stage), (Some(1), Reason::Line));
    stage.source(publication).is_paused = true;
    stage.command(Command::SetMuted { publication, muted: true });
    stage.run(secs(4));
    assert_eq!(granted(&stage), (Some(1), Reason::Line));
    stage.command(Command::SetMuted { publication, muted: false });
    stage.source(publication).is_paused = false;
    let (back, lost) = (stage.now, stage.lost_in_queue);
    for stream in &mut stage.source(publication).streams {
        stream.wants_key = true;
    }
    stage.run(secs(4));
    let playback = stage.playback(subscription);
    let frames: Vec<_> = playback.frames.iter().filter(|frame| frame.at >= back).collect();
    assert!(frames.len() > 60 && frames.iter().all(|frame| frame.id.encoding < 2), "{}", frames.len());
    assert_eq!(stage.lost_in_queue, lost);
    // A smaller wish meanwhile counts.
    stage.command(Command::SetMuted { publication, muted: true });
    stage.wish(subscription, 0, 2);
    stage.run(secs(1));
    assert_eq!(granted(&stage).0, Some(0));
}

/// Its last key frame of the right encoding is too long ago to be replayed on a line that just became poor.
#[test]
fn a_lesser_picture_stands_in_for_one_whose_publisher_ignores_requests() {
    let mut stage = Stage::new(19);
    stage.reports_arrivals = true;
    stage.line.down = neck(5_000);
    let (publisher, subscriber) = (stage.join(), stage.join());
    let video = stage.publish(publisher, Shape { temporal_layers: 1, ..Shape::vp8_simulcast() });
    let play = |stage: &mut Stage, time: Duration| play_deaf(stage, &[video], time);
    let subscription = stage.subscribe(subscriber, video);
    stage.run(secs(6));
    assert_eq!(last_encoding(&mut stage, subscription), 2);
    play(&mut stage, secs(5));
    stage.source(video).streams[0].wants_key = true;
    stage.run(ms(50));
    play(&mut stage, secs(1));
    let fell = stage.now - stage.began;
    stage.line.down = neck(800);
    play(&mut stage, secs(4));
    let longest = standstill(&mut stage, subscription, fell);
    assert!(longest < ms(1_200), "{longest:?}");
    assert!(last_encoding(&mut stage, subscription) < 2);
}

/// What is wished fits into what every line is taken for at first.
#[test]
fn who_wishes_little_has_it_at_once() {
    let mut stage = Stage::new(18);
    stage.reports_arrivals = true;
    stage.line.down = neck(5_000);
    let (publisher, subscriber) = (stage.join(), stage.join());
    let video = stage.publish(publisher, Shape::vp8_simulcast());
    stage.run(secs(3));
    let joined = stage.now;
    let subscription = stage.subscribe(subscriber, video);
    stage.wish(subscription, 1, 2);
    stage.run(ms(400));
    let playback = stage.playback(subscription);
    let middle = playback.frames.iter().find(|frame| frame.is_decoded && frame.id.encoding == 1);
    let after = middle.expect("the middle encoding").at - joined;
    assert!(after < ms(250), "{after:?}");
}

/// A publisher that plays a file makes its key frames when they come, seconds apart.
#[test]
fn who_joins_late_sees_a_publisher_that_ignores_requests_all_the_same() {
    let mut stage = Stage::new(17);
    stage.reports_arrivals = true;
    stage.line.down = neck(5_000);
    let (publisher, subscriber) = (stage.join(), stage.join());
    let video = stage.publish(publisher, Shape::vp8_simulcast());
    let play = |stage: &mut Stage, time: Duration| play_deaf(stage, &[video], time);
    play(&mut stage, secs(6));
    let before: usize = stage.source(video).streams.iter().map(|stream| stream.key_frames.len()).sum();
    let joined = stage.now;
    let subscription = stage.subscribe(subscriber, video);
    play(&mut stage, secs(4));
    let after: usize = stage.source(video).streams.iter().map(|stream| stream.key_frames.len()).sum();
    assert_eq!(after, before, "it ignores them");
    let playback = stage.playback(subscription);
    let first = playback.frames.iter().find(|frame| frame.is_decoded).expect("a picture");
    assert!(first.at - joined < ms(800), "{:?}", first.at - joined);
}

/// Each stands in with its least encoding until the next key frame of what it is granted; what is sent says nothing of who is
/// to have more.
#[test]
fn grants_do_not_change_hands_while_lesser_encodings_stand_in() {
    let mut stage = Stage::new(21);
    stage.reports_arrivals = true;
    stage.line.down = neck(1_100);
    let (publisher, subscriber) = (stage.join(), stage.join());
    let videos = [(); 5].map(|()| stage.publish(publisher, Shape::vp8_simulcast()));
    let play = |stage: &mut Stage, time: Duration| play_deaf(stage, &videos, time);
    play(&mut stage, ms(8_000));
    videos.iter().for_each(|video| stage.source(*video).streams[0].wants_key = true);
    stage.run(ms(100));
    play(&mut stage, ms(500));
    for video in videos {
        stage.subscribe(subscriber, video);
    }
    let (mut before, mut changes) = (Vec::new(), 0);
    for _ in 0..300 {
        play(&mut stage, ms(10));
        let lines = stage.shard.lines(stage.now);
        let pictures = lines.iter().flat_map(|line| &line.pictures);
        let now: Vec<_> = pictures.map(|picture| picture.granted.map(|layer| layer.spatial)).collect();
        changes += now.iter().zip(&before).filter(|(now, before)| now != before).count();
        before = now;
    }
    assert!(changes <= 5, "each rises once at most: {changes}");
}

/// A file goes on somewhere in it when somebody watches, at first or again: what its pictures refer to was never sent.
#[test]
fn nobody_begins_with_a_key_frame_from_before_the_publisher_was_told_to_stop() {
    for is_watched_first in [true, false] {
        let mut stage = Stage::new(22);
        stage.reports_arrivals = true;
        stage.line.down = neck(5_000);
        let (publisher, first, later) = (stage.join(), stage.join(), stage.join());
        let video = stage.publish(publisher, Shape { layers: vec![(600, 1)], ..Shape::vp8() });
        let play = |stage: &mut Stage, time: Duration| play_deaf(stage, &[video], time);
        stage.run(ms(100));
        if is_watched_first {
            let subscription = stage.subscribe(first, video);
            stage.run(secs(1));
            stage.command(Command::Unsubscribe { subscription });
        }
        stage.source(video).is_paused = true;
        play(&mut stage, ms(2_000));
        let subscription = stage.subscribe(later, video);
        play(&mut stage, ms(100));
        stage.source(video).is_paused = false;
        play(&mut stage, ms(1_000));
        assert_eq!(stage.playback(subscription).frames.len(), 0);
        stage.source(video).streams[0].wants_key = true;
        stage.run(ms(200));
        let playback = stage.playback(subscription);
        assert!(playback.frames.first().is_some_and(|frame| frame.is_key), "{:?}", playback.frames.first());
    }
}

/// Nothing can be shown until the publisher's next key frames, of all encodings: by then it is known which the line carries.
#[test]
fn who_waits_for_a_first_picture_gets_the_right_one() {
    let mut stage = Stage::new(24);
    stage.reports_arrivals = true;
    stage.line.down = neck(5_000);
    let (publisher, subscriber) = (stage.join(), stage.join());
    let video = stage.publish(publisher, Shape { temporal_layers: 1, ..Shape::vp8_simulcast() });
    let audio = stage.publish(publisher, Shape::opus());
    let play = |stage: &mut Stage, time: Duration| play_deaf(stage, &[video], time);
    stage.run(ms(100));
    stage.source(video).is_paused = true;
    play(&mut stage, ms(4_000));
    stage.subscribe(subscriber, audio);
    let subscription = stage.subscribe(subscriber, video);
    play(&mut stage, ms(100));
    stage.source(video).is_paused = false;
    play(&mut stage, ms(1_100));
    assert_eq!(stage.playback(subscription).frames.len(), 0);
    stage.source(video).streams.iter_mut().for_each(|stream| stream.wants_key = true);
    stage.run(ms(50));
    play(&mut stage, ms(1_000));
    let playback = stage.playback(subscription);
    assert!(playback.frames.iter().all(|frame| frame.is_decoded));
    let stretches = playback.stretches();
    assert_eq!(stretches.last().map(|stretch| stretch.0), Some(2), "{stretches:?}");
}

/// Pictures of many small packets, all at once: more than may wait for the line. Whose do not fit get theirs a little later.
#[test]
fn nothing_is_missing_of_what_is_replayed_to_somebody_who_begins_to_watch_much() {
    let mut stage = Stage::new(16);
    stage.reports_arrivals = true;
    stage.line.down = neck(20_000);
    let (publisher, subscriber) = (stage.join(), stage.join());
    let large = stage.publish(publisher, Shape { layers: vec![(1_100, 15)], ..Shape::vp8() });
    let small = Shape { layers: vec![(100, 14)], ..Shape::vp8() };
    let pictures = [(); 4].map(|()| stage.publish(publisher, small.clone()));
    let known = stage.subscribe(subscriber, large);
    stage.run(secs(4));
    for picture in pictures {
        stage.source(picture).streams[0].wants_key = true;
    }
    stage.run(secs(1));
    stage.command(Command::Unsubscribe { subscription: known });
    let subscriptions = pictures.map(|picture| stage.subscribe(subscriber, picture));
    stage.run(secs(4));
    for subscription in subscriptions {
        assert_eq!(stage.receiver(subscription).lost, 0);
        let playback = stage.playback(subscription);
        assert!(playback.frames.len() > 90);
        playback.assert_seamless();
    }
    assert_eq!(stage.lost_in_queue, 0);
}
