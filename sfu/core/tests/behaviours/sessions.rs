//! Clients that come, move, fall silent and go, and what is left of them.

use std::net::SocketAddr;

use weir_core::stats::Drop;
use weir_core::{PEER_TIMEOUT, Route};
use weir_stage::client::Heard;
use weir_stage::stage::context;
use weir_stage::{Shape, Stage, ms, secs};
use weir_transport::srtp::MAX_SSRCS;
use weir_units::command::Command;
use weir_units::event::{Event, PeerLostReason};
use weir_units::media::{DtlsRole, IceCredentials, RemoteTransport};

fn address(host: u8) -> Route {
    Route::Udp { socket: 0, remote: SocketAddr::from(([192, 168, 1, host], 50_000)) }
}

#[test]
fn unpublishing_frees_what_the_publication_had_and_leaves_the_rest_alone() {
    let mut stage = Stage::new(60);
    let publisher = stage.join();
    let (gone, stays) = (stage.publish(publisher, Shape::vp8()), stage.publish(publisher, Shape::vp8()));
    let subscriber = stage.join();
    stage.subscribe(subscriber, gone);
    let subscription = stage.subscribe(subscriber, stays);
    stage.run(secs(2));
    stage.command(Command::Unpublish { publication: gone });
    // Its packets go on for a while.
    stage.run(secs(2));
    stage.playback(subscription).assert_seamless();
    let stats = stage.shard.stats().clone();
    assert_eq!((stats.publications, stats.subscriptions), (1, 1));
    assert!(stage.dropped(Drop::UnknownSsrc) > 100, "what nobody published is dropped");
}

#[test]
fn a_subscription_ends_at_once_and_another_begins_on_its_own_numbers() {
    let mut stage = Stage::new(61);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::vp8());
    let subscriber = stage.join();
    let first = stage.subscribe(subscriber, publication);
    stage.run(secs(1));
    stage.command(Command::Unsubscribe { subscription: first });
    stage.run(stage.line.delay);
    let count = stage.receiver(first).packets.len();
    stage.run(secs(1));
    assert_eq!(stage.receiver(first).packets.len(), count);
    let second = stage.subscribe(subscriber, publication);
    stage.run(secs(1));
    stage.playback(first).assert_seamless();
    stage.playback(second).assert_seamless();
}

#[test]
fn a_connection_is_told_as_forgotten_with_its_peer_and_when_newer_ones_take_its_place() {
    let mut stage = Stage::new(74);
    let client = stage.join();
    for connection in 0..20 {
        let mut check = stage.clients[client].client.check_with(1, false);
        let remote = SocketAddr::from(([192, 168, 1, 1], 50_000));
        stage.deliver(Route::Tcp { connection, remote }, &mut check);
    }
    stage.flush();
    let forgotten = |stage: &mut Stage| -> Vec<u32> {
        std::iter::from_fn(|| stage.shard.poll_forgotten_connection()).collect()
    };
    // Of 16 addresses one is what media takes.
    assert_eq!(forgotten(&mut stage), [0, 1, 2, 3, 4]);
    let peer = stage.clients[client].id;
    stage.command(Command::RemovePeer { peer });
    assert_eq!(forgotten(&mut stage), (5..20).collect::<Vec<_>>());
}

#[test]
fn commands_about_what_is_gone_change_nothing() {
    let mut stage = Stage::new(62);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::vp8());
    let subscriber = stage.join();
    let subscription = stage.subscribe(subscriber, publication);
    stage.run(secs(1));
    for _ in 0..2 {
        stage.command(Command::Unsubscribe { subscription });
        stage.command(Command::Unpublish { publication });
        stage.command(Command::SetMuted { publication, muted: true });
        stage.wish(subscription, 0, 0);
    }
    let peer = stage.clients[subscriber].id;
    for _ in 0..2 {
        stage.command(Command::RemovePeer { peer });
    }
    let media = stage.source(publication).media();
    stage.command(Command::Publish { publication, peer, media });
    stage.run(secs(1));
    let stats = stage.shard.stats();
    assert_eq!((stats.peers, stats.publications, stats.subscriptions), (1, 0, 0));
}

#[test]
fn a_conference_that_everybody_left_leaves_nothing() {
    let mut stage = Stage::new(63);
    let clients: Vec<_> = (0..4).map(|_| stage.join()).collect();
    let publications: Vec<_> = clients.iter().map(|client| stage.publish(*client, Shape::vp8())).collect();
    for client in &clients {
        for publication in &publications {
            stage.subscribe(*client, *publication);
        }
    }
    stage.run(secs(1));
    assert_eq!(stage.shard.stats().conferences, 1);
    for client in clients {
        let peer = stage.clients[client].id;
        stage.command(Command::RemovePeer { peer });
    }
    // They don't know yet and go on sending.
    stage.run(secs(5));
    let stats = stage.shard.stats().clone();
    assert_eq!(
        (stats.peers, stats.conferences, stats.publications, stats.subscriptions, stats.connected_peers),
        (0, 0, 0, 0, 0)
    );
    assert!(stage.unknown > 100, "their addresses are forgotten");
    stage.run(PEER_TIMEOUT);
    assert_eq!(stage.shard.poll_timeout(), None, "and so are their timers");
}

#[test]
fn a_client_that_falls_silent_is_told_lost_once_and_others_go_on() {
    let mut stage = Stage::new(64);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::vp8());
    let (stays, silent) = (stage.join(), stage.join());
    let subscription = stage.subscribe(stays, publication);
    stage.subscribe(silent, publication);
    stage.run(secs(1));
    stage.clients[silent].is_alive = false;
    let last = stage.now;
    stage.run(secs(30));
    let peer = stage.clients[silent].id;
    let lost: Vec<_> =
        stage.events.iter().filter(|(_, event)| matches!(event, Event::PeerLost { .. })).collect();
    assert_eq!(lost.len(), 1);
    assert_eq!(lost[0].1, Event::PeerLost { peer, reason: PeerLostReason::Timeout });
    let wait = lost[0].0 - last;
    assert!(wait > PEER_TIMEOUT - secs(3) && wait <= PEER_TIMEOUT + ms(50), "{wait:?}");
    stage.playback(subscription).assert_seamless();
}

#[test]
fn media_follows_a_client_to_another_address() {
    let mut stage = Stage::new(65);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::vp8());
    let subscriber = stage.join();
    let subscription = stage.subscribe(subscriber, publication);
    stage.run(secs(2));
    for (client, host) in [(subscriber, 7), (publisher, 8)] {
        stage.move_to(client, address(host));
        let check = stage.clients[client].client.check(true);
        stage.send_from(address(host), check);
        stage.run(secs(4));
    }
    stage.playback(subscription).assert_seamless();
}

#[test]
fn stragglers_from_the_old_address_count_but_do_not_draw_media_back() {
    let mut stage = Stage::new(66);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::vp8());
    let subscriber = stage.join();
    let subscription = stage.subscribe(subscriber, publication);
    stage.run(secs(4)); // more than a second after the last check, or ICE waits for another
    let old = stage.clients[subscriber].route;
    stage.move_to(subscriber, address(9));
    let check = stage.clients[subscriber].client.check(true);
    stage.send_from(address(9), check);
    stage.run(ms(10));
    // A report was on its way, on the slower path.
    let media = stage.receiver(subscription).ssrc;
    let report = stage.clients[subscriber].rtcp(|writer| writer.pli(1, media)).unwrap();
    let before = stage.shard.stats().key_frame_requests_in;
    stage.run(ms(15));
    stage.send_from(old, report);
    stage.run(ms(25));
    assert_eq!(stage.shard.stats().key_frame_requests_in, before + 1, "it was heard");
    stage.receiver(subscription).nacks = false;
    let moved = stage.now;
    stage.run(ms(300));
    let came = stage.receiver(subscription).packets.values().filter(|packet| packet.at > moved).count();
    assert!(came > 20, "{came} packets at the new address");
}

#[test]
fn an_ice_restart_changes_the_path_and_nothing_else() {
    let mut stage = Stage::new(67);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::vp8());
    let subscriber = stage.join();
    let subscription = stage.subscribe(subscriber, publication);
    stage.run(secs(2));
    let ice =
        |name: &str| IceCredentials { ufrag: name.into(), password: format!("{name}-of-at-least-22-chars") };
    let (focus, local) = (ice("Aagain"), ice("clientagain"));
    let client = &mut stage.clients[subscriber];
    let old_check = client.client.check(true);
    client.client.restart(local, focus.clone());
    let remote = RemoteTransport { local_role: DtlsRole::Server, ..client.client.description(Some(0)) };
    let peer = client.id;
    stage.command(Command::SetRemoteTransport { peer, local: focus, remote });
    assert_eq!(context().fingerprint(), stage.clients[subscriber].client.description(None).fingerprint);
    stage.run(secs(1));
    let refused = stage.dropped(Drop::Stun);
    stage.send_from(address(3), old_check);
    stage.run(secs(1));
    assert_eq!(stage.dropped(Drop::Stun), refused + 1, "the old credentials are void");
    stage.move_to(subscriber, address(4));
    let check = stage.clients[subscriber].client.check(true);
    stage.send_from(address(4), check);
    stage.run(secs(3));
    stage.playback(subscription).assert_seamless();
}

#[test]
fn an_address_that_was_left_long_ago_works_again() {
    let mut stage = Stage::new(68);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::vp8());
    let subscriber = stage.join();
    let subscription = stage.subscribe(subscriber, publication);
    stage.run(secs(1));
    let home = stage.clients[publisher].route;
    // The first address is kept alive beside many others, and returned to at the end.
    for host in 10..40 {
        stage.move_to(publisher, address(host));
        let check = stage.clients[publisher].client.check(true);
        stage.send_from(address(host), check);
        let check = stage.clients[publisher].client.check(false);
        stage.send_from(home, check);
        stage.run(ms(1_500));
    }
    stage.move_to(publisher, home);
    let check = stage.clients[publisher].client.check(true);
    stage.send_from(home, check);
    stage.run(secs(3));
    let unknown = stage.unknown;
    stage.run(secs(2));
    assert_eq!(stage.unknown, unknown, "packets from there are known");
    let playback = stage.playback(subscription);
    assert!(playback.frames.last().unwrap().at > stage.now - ms(100));
}

#[test]
fn a_source_that_starts_over_goes_on_with_the_next_numbers() {
    for shape in [Shape::vp8(), Shape::h264(), Shape::av1_svc()] {
        let mut stage = Stage::new(69);
        let publisher = stage.join();
        let publication = stage.publish(publisher, shape);
        let subscriber = stage.join();
        let subscription = stage.subscribe(subscriber, publication);
        stage.run(secs(2));
        for ssrc in [0x7777_1234, 0x1111_9876] {
            stage.source(publication).restart(0, ssrc);
            stage.run(secs(2));
        }
        let playback = stage.playback(subscription);
        playback.assert_seamless();
        let (least, most) = playback.drift();
        assert!(least >= -34 && most <= 34, "{least} to {most} ms");
        assert!(playback.frames.last().unwrap().at > stage.now - ms(100));
    }
}

/// As in a day-long call somebody turns the camera off and on.
#[test]
fn a_source_that_has_had_more_ssrcs_than_are_remembered_is_still_seen() {
    let mut stage = Stage::new(74);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::vp8());
    let subscriber = stage.join();
    let subscription = stage.subscribe(subscriber, publication);
    for ssrc in 0..MAX_SSRCS as u32 + 20 {
        stage.source(publication).restart(0, 0x7777_1000 + ssrc);
        stage.run(ms(70));
    }
    stage.run(secs(1));
    let playback = stage.playback(subscription);
    assert!(playback.frames.last().unwrap().at > stage.now - ms(100));
    assert_eq!(stage.dropped(Drop::TooManySsrcs), 0);
}

#[test]
fn a_publication_negotiated_again_goes_on() {
    let mut stage = Stage::new(70);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::vp8());
    let subscriber = stage.join();
    let subscription = stage.subscribe(subscriber, publication);
    stage.run(secs(1));
    let (media, peer) = (stage.source(publication).media(), stage.clients[publisher].id);
    stage.command(Command::Publish { publication, peer, media });
    stage.run(secs(1));
    stage.playback(subscription).assert_seamless();
    assert_eq!(stage.source(publication).streams[0].requests.len(), 0);
}

#[test]
fn a_subscriber_that_connects_late_gets_what_fits_at_once_and_a_key_frame_of_the_rest() {
    let mut stage = Stage::new(71);
    let publishers: Vec<_> = (0..9).map(|_| stage.join()).collect();
    let publications: Vec<_> = publishers
        .iter()
        .map(|publisher| stage.publish(*publisher, Shape { layers: vec![(1_100, 3)], ..Shape::vp8() }))
        .collect();
    stage.run(ms(400));
    let subscriber = stage.enter();
    let subscriptions: Vec<_> =
        publications.iter().map(|publication| stage.subscribe(subscriber, *publication)).collect();
    stage.run(ms(300));
    let asked: Vec<_> = publications.iter().map(|id| stage.source(*id).streams[0].requests.len()).collect();
    for subscription in subscriptions {
        stage.playback(subscription).assert_seamless();
    }
    // Each ring holds some 40 packets, and a line is not to be flooded with 9 times as many.
    assert_eq!(asked.iter().filter(|asked| **asked == 0).count(), 1, "one was replayed: {asked:?}");
    assert_eq!(asked.iter().sum::<usize>(), 8, "each of the others was asked once: {asked:?}");
}

#[test]
fn two_who_join_see_each_other_and_hear_reports() {
    let mut stage = Stage::new(72);
    let (anne, ben) = (stage.join(), stage.join());
    let (of_anne, of_ben) = (stage.publish(anne, Shape::vp8()), stage.publish(ben, Shape::vp8()));
    let (at_ben, at_anne) = (stage.subscribe(ben, of_anne), stage.subscribe(anne, of_ben));
    stage.run(secs(5));
    stage.playback(at_ben).assert_seamless();
    stage.playback(at_anne).assert_seamless();
    for client in [anne, ben] {
        let names = stage.clients[client].heard_where(|heard| match heard {
            Heard::Cname { name, .. } => Some(name.clone()),
            _ => None,
        });
        assert!(names.len() >= 4);
    }
}

#[test]
fn a_straggler_of_the_old_source_does_not_stop_the_new_one() {
    let mut stage = Stage::new(73);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::vp8());
    stage.source(publication).streams[0].sequence = 30_000;
    let subscriber = stage.join();
    let subscription = stage.subscribe(subscriber, publication);
    stage.run(secs(1));
    let client = &mut stage.clients[publisher];
    let (_, egress) = client.srtp.as_ref().unwrap();
    let repair = client.sources[0].resend(0, 30_050, egress, &mut client.transport).unwrap();
    let route = client.route;
    stage.source(publication).restart(0, 0x7777_1000); // its numbers are lower
    stage.run(secs(1));
    stage.send_from(route, repair);
    stage.run(secs(3));
    let playback = stage.playback(subscription);
    playback.assert_seamless();
    assert!(playback.frames.last().unwrap().at > stage.now - ms(100));
}
