//! Requests for key frames: heard from many, made rarely.

use std::time::Instant;

use weir_rtp::rtcp::FirEntry;
use weir_stage::{Shape, Stage, ms, secs};
use weir_units::command::Command;
use weir_units::ids::PublicationId;
use weir_units::media::Wish;

fn requests(stage: &mut Stage, publication: PublicationId, since: Instant) -> usize {
    stage.source(publication).streams[0].requests.iter().filter(|at| **at > since).count()
}

#[test]
fn many_subscribers_that_ask_are_one_request() {
    let mut stage = Stage::new(30);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::vp8());
    let clients: Vec<_> = (0..10).map(|_| stage.join()).collect();
    for client in &clients {
        stage.subscribe(*client, publication);
    }
    stage.run(secs(1));
    let asked = stage.now;
    for client in &clients {
        let media = stage.clients[*client].receivers[0].ssrc;
        stage.send_rtcp(*client, |writer| writer.pli(1, media));
        let fir = FirEntry { ssrc: media, command_sequence: 1 };
        stage.send_rtcp(*client, |writer| writer.fir(1, &[fir]));
        stage.run(ms(3));
    }
    stage.run(secs(2));
    assert_eq!(requests(&mut stage, publication, asked), 1);
    assert_eq!(stage.shard.stats().key_frame_requests_in, 20);
}

#[test]
fn somebody_who_asks_all_the_time_is_not_passed_on_all_the_time() {
    let mut stage = Stage::new(31);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::vp8());
    let client = stage.join();
    stage.subscribe(client, publication);
    stage.run(secs(1));
    let asked = stage.now;
    let media = stage.clients[client].receivers[0].ssrc;
    for _ in 0..1_000 {
        stage.send_rtcp(client, |writer| writer.pli(1, media));
        stage.run(ms(5));
    }
    let requests = requests(&mut stage, publication, asked);
    assert!((10..=20).contains(&requests), "{requests} in five seconds");
}

#[test]
fn a_request_is_repeated_until_the_key_frame_comes() {
    let mut stage = Stage::new(32);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::vp8_simulcast());
    let client = stage.join();
    let subscription = stage.subscribe(client, publication);
    stage.run(secs(1));
    stage.clients[publisher].answers_key_frame_requests = false;
    stage.wish(subscription, 0, 2);
    let asked = stage.now;
    stage.run(secs(1));
    let first = requests(&mut stage, publication, asked);
    assert!((3..=5).contains(&first), "{first} requests in a second");
    stage.clients[publisher].answers_key_frame_requests = true;
    stage.run(secs(1));
    let answered = stage.now;
    stage.run(secs(2));
    assert_eq!(requests(&mut stage, publication, answered), 0);
}

#[test]
fn nobody_is_asked_for_what_nobody_waits_for_any_more() {
    let mut stage = Stage::new(33);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::vp8_simulcast());
    let client = stage.join();
    let subscription = stage.subscribe(client, publication);
    stage.run(secs(1));
    stage.clients[publisher].answers_key_frame_requests = false;
    stage.wish(subscription, 0, 2);
    stage.run(ms(300));
    stage.wish(subscription, 2, 2);
    stage.run(ms(1_300));
    let after = stage.now;
    stage.run(secs(5));
    assert_eq!(requests(&mut stage, publication, after), 0, "the subscriber has what it wants");
}

#[test]
fn a_muted_publication_is_left_in_peace() {
    let mut stage = Stage::new(34);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::vp8());
    let client = stage.join();
    let subscription = stage.subscribe(client, publication);
    stage.run(secs(1));
    // A request is open as the camera is turned off.
    stage.clients[publisher].answers_key_frame_requests = false;
    let media = stage.clients[client].receivers[0].ssrc;
    stage.send_rtcp(client, |writer| writer.pli(1, media));
    stage.run(ms(100));
    stage.source(publication).is_paused = true;
    stage.command(Command::SetMuted { publication, muted: true });
    stage.run(ms(100));
    let (muted, wakeups) = (stage.now, stage.wakeups);
    stage.run(secs(10));
    assert_eq!(requests(&mut stage, publication, muted), 0);
    let wakeups = stage.wakeups - wakeups;
    assert!(wakeups < 400, "{wakeups} wake-ups in ten seconds");
    stage.clients[publisher].answers_key_frame_requests = true;
    stage.source(publication).is_paused = false;
    stage.source(publication).streams[0].wants_key = true;
    stage.command(Command::SetMuted { publication, muted: false });
    stage.run(secs(2));
    stage.playback(subscription).assert_seamless();
}

#[test]
fn a_publication_without_subscribers_costs_no_wakeups() {
    let mut stage = Stage::new(35);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::vp8());
    let client = stage.join();
    let subscription = stage.subscribe(client, publication);
    stage.run(secs(1));
    stage.clients[publisher].answers_key_frame_requests = false;
    let media = stage.clients[client].receivers[0].ssrc;
    stage.send_rtcp(client, |writer| writer.pli(1, media));
    stage.run(ms(100));
    stage.command(Command::Unsubscribe { subscription });
    stage.source(publication).is_paused = true;
    stage.run(secs(1));
    let wakeups = stage.wakeups;
    stage.run(secs(10));
    let wakeups = stage.wakeups - wakeups;
    assert!(wakeups < 200, "{wakeups} wake-ups in ten seconds");
}

#[test]
fn who_is_not_connected_or_does_not_look_asks_for_nothing() {
    let mut stage = Stage::new(36);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::vp8());
    stage.run(secs(10)); // the key frame has left the ring
    let asked = stage.now;
    let idle = stage.join();
    stage.subscribe_with(idle, publication, Wish { enabled: false, ..Wish::default() });
    let absent = stage.enter();
    stage.clients[absent].is_alive = false;
    stage.subscribe(absent, publication);
    stage.run(secs(3));
    assert_eq!(requests(&mut stage, publication, asked), 0);
}

#[test]
fn a_picture_that_waits_for_a_key_frame_for_long_is_counted_as_a_stall() {
    let mut stage = Stage::new(37);
    let (publisher, subscriber) = (stage.join(), stage.join());
    let publication = stage.publish(publisher, Shape::vp8());
    let subscription = stage.subscribe(subscriber, publication);
    stage.run(secs(5));
    stage.clients[publisher].answers_key_frame_requests = false;
    stage.source(publication).restart(0, 0x7777_1234);
    stage.source(publication).streams[0].wants_key = false;
    stage.run(ms(800));
    assert_eq!(stage.shard.stats().stalls, 0, "a moment is none");
    stage.run(secs(5));
    assert_eq!(stage.shard.stats().stalls, 1);
    stage.source(publication).streams[0].wants_key = true;
    stage.run(secs(5));
    stage.source(publication).is_paused = true;
    stage.run(secs(5));
    assert_eq!(stage.shard.stats().stalls, 1, "nor is a publisher that sends nothing");
    assert_eq!(stage.playback(subscription).faults, Vec::<String>::new());
}
