//! Single losses and what they lead to.

use std::time::Duration;
use weir_stage::client::Heard;
use weir_stage::{Neck, Shape, Stage, ms, secs};

/// How long to lose everything towards the focus, so that one picture is gone.
const A_PICTURE: Duration = Duration::from_millis(30);

#[test]
fn what_a_subscriber_misses_is_sent_again_on_the_retransmission_stream() {
    let mut stage = Stage::new(20);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::vp8());
    let subscriber = stage.join();
    let subscription = stage.subscribe(subscriber, publication);
    stage.run(secs(1));
    stage.line.loss_down = 1.0;
    stage.run(A_PICTURE);
    stage.line.loss_down = 0.0;
    stage.run(secs(1));
    stage.playback(subscription).assert_seamless();
    let receiver = stage.receiver(subscription);
    assert!(
        receiver.lost > 0 && receiver.repairs == receiver.lost,
        "{} of {}",
        receiver.repairs,
        receiver.lost
    );
    assert_eq!(stage.clients[publisher].resent, 0, "the publisher is not bothered");
    let retransmitted = stage.shard.stats().retransmitted;
    assert_eq!(retransmitted, stage.receiver(subscription).repairs);
}

#[test]
fn audio_is_sent_again_as_the_same_packet() {
    let mut stage = Stage::new(21);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::opus());
    let subscriber = stage.join();
    let subscription = stage.subscribe(subscriber, publication);
    stage.run(secs(1));
    stage.line.loss_down = 1.0;
    stage.run(ms(60));
    stage.line.loss_down = 0.0;
    stage.run(secs(1));
    stage.playback(subscription).assert_seamless();
    assert!(stage.receiver(subscription).requested > 0);
}

#[test]
fn what_the_focus_misses_is_asked_for_and_fills_its_place() {
    let mut stage = Stage::new(22);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::vp8());
    let subscriber = stage.join();
    let subscription = stage.subscribe(subscriber, publication);
    stage.run(secs(1));
    stage.line.loss_up = 1.0;
    stage.run(A_PICTURE);
    stage.line.loss_up = 0.0;
    stage.run(secs(1));
    stage.playback(subscription).assert_seamless();
    let stats = stage.shard.stats().clone();
    assert!(stats.recovered > 0 && stats.lost == 0, "{} recovered, {} lost", stats.recovered, stats.lost);
    assert_eq!(stage.clients[publisher].resent, stats.recovered, "each was asked for once");
}

#[test]
fn a_publisher_that_does_not_answer_is_asked_a_few_times_and_then_given_up() {
    let mut stage = Stage::new(23);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::vp8());
    let subscriber = stage.join();
    stage.subscribe(subscriber, publication);
    stage.run(secs(1));
    stage.clients[publisher].answers_nacks = false;
    stage.line.loss_up = 1.0;
    stage.run(A_PICTURE);
    stage.line.loss_up = 0.0;
    stage.run(secs(3));
    let nacked = stage.source(publication).streams[0].nacked.clone();
    let mut numbers: Vec<u16> = nacked.iter().map(|nack| nack.1).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let lost = stage.shard.stats().lost;
    assert_eq!(lost, numbers.len() as u64);
    for number in numbers {
        let asked: Vec<_> = nacked.iter().filter(|nack| nack.1 == number).map(|nack| nack.0).collect();
        assert!((3..=10).contains(&asked.len()), "asked {} times", asked.len());
        assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= ms(40)), "a round trip apart at least");
        assert!(*asked.last().unwrap() - asked[0] <= secs(1), "and not for ever");
    }
}

#[test]
fn packets_that_change_places_are_no_loss() {
    let mut stage = Stage::new(24);
    stage.line.swaps = true;
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::vp8_simulcast());
    let subscriber = stage.join();
    let subscription = stage.subscribe(subscriber, publication);
    stage.run(secs(3));
    stage.playback(subscription).assert_seamless();
    let nacks = stage.clients[publisher].heard_where(|heard| match heard {
        Heard::Nack { lost, .. } => Some(lost.len()),
        _ => None,
    });
    assert_eq!(nacks.len(), 0, "{nacks:?}");
}

#[test]
fn a_repair_that_comes_twice_or_unasked_is_not_forwarded_again() {
    let mut stage = Stage::new(25);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::vp8());
    let subscriber = stage.join();
    let subscription = stage.subscribe(subscriber, publication);
    stage.run(secs(1));
    for back in 1..40 {
        let client = &mut stage.clients[publisher];
        let number = client.sources[0].streams[0].sequence - back;
        let (_, egress) = client.srtp.as_ref().unwrap();
        let packet = client.sources[0].resend(0, number as u16, egress, &mut client.transport).unwrap();
        let route = client.route;
        stage.send_from(route, packet);
    }
    stage.run(secs(1));
    stage.playback(subscription).assert_seamless();
    assert_eq!(stage.receiver(subscription).duplicates, 0);
    assert_eq!(stage.dropped(weir_core::stats::Drop::Duplicate), 39);
}

#[test]
fn a_key_frame_that_is_repaired_after_the_next_one_came_disturbs_nobody() {
    for shape in [Shape::av1_svc(), Shape::vp8(), Shape::vp9_svc(), Shape::h264()] {
        let mut stage = Stage::new(26);
        let publisher = stage.join();
        let publication = stage.publish(publisher, shape);
        let subscriber = stage.join();
        let subscription = stage.subscribe(subscriber, publication);
        stage.run(secs(1));
        for _ in 0..3 {
            stage.line.drop_next_key_start = true;
            stage.source(publication).streams[0].wants_key = true;
            stage.run(ms(33));
            stage.source(publication).streams[0].wants_key = true;
            stage.run(secs(1));
        }
        let asked = stage.source(publication).streams[0].requests.len();
        assert_eq!(asked, 0);
        let playback = stage.playback(subscription);
        playback.assert_seamless();
        assert!(playback.frames.last().unwrap().at > stage.now - ms(100));
    }
}

#[test]
fn a_structure_that_is_repaired_late_does_not_replace_the_one_in_use() {
    let mut stage = Stage::new(27);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::av1_svc());
    stage.source(publication).changes_structure = true;
    let subscriber = stage.join();
    let subscription = stage.subscribe(subscriber, publication);
    stage.wish(subscription, 0, 1);
    stage.run(secs(1));
    stage.line.drop_next_key_start = true;
    stage.source(publication).streams[0].wants_key = true;
    stage.run(ms(33));
    stage.source(publication).streams[0].wants_key = true;
    stage.run(ms(300));
    let before = stage.playback(subscription).frames.len();
    stage.run(ms(500));
    let playback = stage.playback(subscription);
    assert!(playback.frames.len() > before + 10);
    assert!(playback.frames[before..].iter().all(|frame| frame.id.spatial == 0), "layers are told apart");
}

/// Somebody begins to watch, and the first packet of the key frame that is asked for is repaired after so much else came
/// that the rest cannot follow at once.
#[test]
fn a_large_key_frame_whose_beginning_comes_late_is_shown_or_asked_for_anew() {
    for has_line in [false, true] {
        let mut stage = Stage::new(29);
        stage.reports_arrivals = has_line;
        let (publisher, subscriber) = (stage.join(), stage.join());
        let publication = stage.publish(publisher, Shape { layers: vec![(300, 40)], ..Shape::vp8() });
        stage.run(secs(10)); // the key frame has left the ring
        stage.line.drop_next_key_start = true;
        let subscription = stage.subscribe(subscriber, publication);
        let asked = stage.now;
        stage.run(secs(2));
        assert!(!stage.line.drop_next_key_start, "one was asked for");
        let playback = stage.playback(subscription);
        playback.assert_seamless();
        let first = playback.frames.iter().find(|frame| frame.is_decoded).unwrap().at - asked;
        assert!(first < ms(500), "after {first:?}, with a line: {has_line}");
        assert!(stage.source(publication).streams[0].requests.len() <= 2);
    }
}

/// The line is busy with another picture, so the key frame waits, and its first packet behind all others.
#[test]
fn what_overtook_the_beginning_of_a_key_frame_follows_it_in_its_turn() {
    for (seed, key_frame) in [(0, 12_000), (1, 12_000), (2, 30_000), (3, 30_000)] {
        let mut stage = Stage::new(200 + seed);
        stage.reports_arrivals = true;
        stage.line.down = Some(Neck { bits_per_second: 1_000_000, queue: ms(500) });
        let (publisher, subscriber) = (stage.join(), stage.join());
        let pictures = [key_frame, 60_000].map(|key_frame| {
            let picture = stage.publish(publisher, Shape::vp8());
            let sizes = move |_, _, is_key: bool| if is_key { key_frame } else { 1_000 };
            stage.source(picture).frame_sizes = Some(Box::new(sizes));
            picture
        });
        stage.run(secs(10));
        stage.subscribe(subscriber, pictures[1]);
        stage.run(ms(100 + 20 * seed));
        stage.line.drop_next_key_start = true;
        let subscription = stage.subscribe(subscriber, pictures[0]);
        stage.run(secs(3));
        assert!(!stage.line.drop_next_key_start, "one was asked for");
        assert_eq!(stage.receiver(subscription).lost, 0, "nothing had to be asked for, of {key_frame}");
        let playback = stage.playback(subscription);
        assert!(playback.frames.len() > 15, "{} pictures", playback.frames.len());
        playback.assert_seamless();
    }
}

#[test]
fn what_came_and_was_not_sent_yet_is_sent_when_it_is_asked_for() {
    let mut stage = Stage::new(28);
    let (publisher, subscriber) = (stage.join(), stage.join());
    let publication = stage.publish(publisher, Shape::vp8());
    let subscription = stage.subscribe(subscriber, publication);
    stage.run(secs(1));
    stage.clients[publisher].answers_nacks = false;
    stage.receiver(subscription).nacks = false; // it asks when the test does
    let (from, to) = (stage.clients[publisher].route, stage.clients[subscriber].route);
    let mut packets = [(); 3].map(|()| stage.clients[publisher].next_media(stage.now));
    for at in [0, 2] {
        stage.deliver(from, &mut packets[at]);
    }
    stage.flush();
    stage.run(ms(45)); // and what was under way arrives
    let missing = stage.playback(subscription).missing;
    assert_eq!(missing.len(), 1);
    // Both come in one batch, before whose end nothing is forwarded.
    let media = stage.receiver(subscription).ssrc;
    let numbers = [missing[0] as u16];
    let mut nack = stage.clients[subscriber].rtcp(|writer| writer.nack(1, media, &numbers) > 0).unwrap();
    stage.deliver(from, &mut packets[1]);
    stage.deliver(to, &mut nack);
    let sent: usize = stage.shard.egress().runs().iter().map(|run| run.segments).sum();
    assert_eq!(sent, 1);
    stage.flush();
    stage.run(ms(100));
    assert_eq!(stage.playback(subscription).missing, Vec::<u64>::new());
    assert_eq!(stage.receiver(subscription).duplicates, 0, "a number is given once");
}

#[test]
fn what_a_source_sent_before_a_long_silence_is_not_kept_and_it_may_go_on() {
    let mut stage = Stage::new(210);
    let (publisher, subscriber) = (stage.join(), stage.join());
    let publication = stage.publish(publisher, Shape::vp8());
    let subscription = stage.subscribe(subscriber, publication);
    stage.run(secs(2));
    stage.source(publication).is_paused = true;
    let mut sent_again = Vec::new();
    for pause in [secs(9), secs(7)] {
        stage.run(pause);
        let (newest, _) = stage.receiver(subscription).packets.last_key_value().unwrap();
        let (number, media) = (*newest as u16, stage.receiver(subscription).ssrc);
        stage.send_rtcp(subscriber, |writer| writer.nack(1, media, &[number]) > 0);
        stage.run(ms(100));
        let stats = stage.shard.stats();
        sent_again.push((stats.retransmitted, stats.not_retransmittable));
    }
    assert_eq!(sent_again, [(1, 0), (1, 1)]);
    stage.source(publication).is_paused = false;
    stage.run(secs(2));
    stage.playback(subscription).assert_seamless();
}
