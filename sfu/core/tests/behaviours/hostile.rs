//! What is wrong, forged, repeated or too much: dropped, counted by reason, and bounded.

use std::net::SocketAddr;

use weir_core::Route;
use weir_core::shard::{Disposition, MAX_PENDING};
use weir_core::stats::Drop;
use weir_stage::source::Rtp;
use weir_stage::{Shape, Stage, ms, secs};
use weir_units::media::IceCredentials;

fn address(host: u16) -> Route {
    let [high, low] = host.to_be_bytes();
    Route::Udp { socket: 0, remote: SocketAddr::from(([172, 16, high, low], 60_000)) }
}

/// A conference of two in which `publisher` sends video; gives the two, the publication and the subscription.
fn call(seed: u64) -> (Stage, usize, weir_units::ids::PublicationId, weir_units::ids::SubscriptionId) {
    let mut stage = Stage::new(seed);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::vp8());
    let subscriber = stage.join();
    let subscription = stage.subscribe(subscriber, publication);
    stage.run(secs(1));
    (stage, publisher, publication, subscription)
}

/// An RTP packet of the publisher under any SSRC, validly sealed.
fn sealed(stage: &mut Stage, publisher: usize, ssrc: u32, payload_type: u8, index: u64) -> Vec<u8> {
    let (_, egress) = stage.clients[publisher].srtp.as_ref().unwrap();
    let rtp =
        Rtp { ssrc, payload_type, index, timestamp: 7, marker: true, extensions: Vec::new(), padding: 0 };
    rtp.seal(egress, &[], &[0x10, 0x01, 0, 0])
}

#[test]
fn replayed_packets_are_dropped_and_counted() {
    let (mut stage, publisher, _, subscription) = call(80);
    let route = stage.clients[publisher].route;
    let packet = stage.clients[publisher].next_media(stage.now);
    for _ in 0..5 {
        stage.send_from(route, packet.clone());
    }
    stage.run(secs(1));
    assert_eq!(stage.dropped(Drop::Replay), 4);
    let report = stage.clients[publisher].rtcp(|writer| writer.receiver_report(1, &[])).unwrap();
    for _ in 0..5 {
        stage.send_from(route, report.clone());
    }
    stage.run(secs(1));
    assert_eq!(stage.dropped(Drop::Replay), 8);
    stage.playback(subscription).assert_seamless();
}

#[test]
fn forged_packets_are_dropped_and_change_nothing() {
    let (mut stage, publisher, _, subscription) = call(81);
    let route = stage.clients[publisher].route;
    let packet = stage.clients[publisher].next_media(stage.now);
    for at in 0..packet.len().min(60) {
        for bit in [1, 0x80] {
            let mut forged = packet.clone();
            forged[at] ^= bit;
            stage.send_from(route, forged);
        }
    }
    stage.run(ms(50));
    assert!(stage.dropped(Drop::Authentication) > 60);
    stage.send_from(route, packet);
    stage.run(secs(2));
    stage.playback(subscription).assert_seamless();
}

#[test]
fn an_address_that_nobody_validated_is_unknown_whatever_comes_from_it() {
    let (mut stage, publisher, _, subscription) = call(82);
    let packet = stage.clients[publisher].next_media(stage.now);
    for first in [0x80, 0x81, 20, 22, 23] {
        let mut datagram = packet.clone();
        datagram[0] = first;
        assert_eq!(stage.deliver(address(1), &mut datagram), Disposition::Unknown);
        let mut short = vec![first; 3];
        assert_eq!(stage.deliver(address(1), &mut short), Disposition::Unknown);
    }
    let unknown = stage.dropped(Drop::UnknownAddress);
    assert_eq!(unknown, 10);
    let route = stage.clients[publisher].route;
    stage.send_from(route, packet);
    stage.run(secs(1));
    stage.playback(subscription).assert_seamless();
}

#[test]
fn an_ssrc_that_belongs_to_nothing_is_counted_and_remembered_by_nobody() {
    let (mut stage, publisher, publication, subscription) = call(83);
    // A second m-line of the same codec: now the payload type alone tells nothing.
    stage.publish(publisher, Shape::vp8());
    stage.run(secs(1));
    let route = stage.clients[publisher].route;
    for ssrc in 1..=50 {
        let packet = sealed(&mut stage, publisher, ssrc, 96, 1);
        stage.send_from(route, packet);
    }
    let known = &stage.clients[publisher].sources[0].streams[0];
    let (ssrc, next) = (known.ssrc, known.sequence);
    let packet = sealed(&mut stage, publisher, ssrc, 120, next + 50);
    let of_known = stage.dropped(Drop::UnknownPayloadType);
    stage.send_from(route, packet);
    stage.run(ms(100));
    assert_eq!(stage.dropped(Drop::UnknownSsrc), 50);
    assert_eq!(stage.dropped(Drop::UnknownPayloadType), of_known + 1);
    stage.run(secs(1));
    let _ = publication;
    assert!(stage.playback(subscription).faults.is_empty());
    assert_eq!(stage.shard.stats().publications, 2);
}

/// It ended the shard's thread, and with it every conference there.
#[test]
fn a_dependency_descriptor_that_is_cut_short_costs_its_packet_alone() {
    let mut stage = Stage::new(92);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::av1_svc());
    let subscriber = stage.join();
    let subscription = stage.subscribe(subscriber, publication);
    stage.run(secs(1));
    let route = stage.clients[publisher].route;
    let stream = &stage.clients[publisher].sources[0].streams[0];
    let (ssrc, next) = (stream.ssrc, stream.sequence);
    let payload_type = stage.clients[publisher].sources[0].media().formats[0].payload_type;
    for len in [1, 2] {
        let rtp = Rtp {
            ssrc,
            payload_type,
            index: next + 20 + len,
            timestamp: 7,
            marker: true,
            extensions: vec![(13, vec![0xc0; len as usize])],
            padding: 0,
        };
        let (_, egress) = stage.clients[publisher].srtp.as_ref().unwrap();
        let packet = rtp.seal(egress, &[], &[0x10, 0x0a, 0x0b, 0]);
        stage.send_from(route, packet);
    }
    stage.run(secs(2));
    let frames = stage.playback(subscription).frames;
    let decoded = frames.iter().filter(|frame| frame.is_decoded).count();
    assert!(decoded > 150, "{decoded} of 180 frames");
}

#[test]
fn a_storm_of_ssrcs_leaves_those_in_use_alone() {
    let (mut stage, publisher, _, subscription) = call(84);
    stage.publish(publisher, Shape::opus());
    stage.publish(publisher, Shape::vp8());
    stage.run(secs(1));
    let route = stage.clients[publisher].route;
    let packet = stage.clients[publisher].next_media(stage.now);
    stage.send_from(route, packet.clone());
    for ssrc in 1..=2_000 {
        let packet = sealed(&mut stage, publisher, ssrc, 96, 1);
        stage.send_from(route, packet);
    }
    stage.run(ms(100));
    assert_eq!(stage.dropped(Drop::UnknownSsrc), 2_000);
    assert_eq!(stage.dropped(Drop::Replay), 0);
    stage.send_from(route, packet);
    stage.run(ms(100));
    assert_eq!(stage.dropped(Drop::Replay), 1, "what they had sent is not forgotten");
    stage.run(secs(2));
    stage.playback(subscription).assert_seamless();
}

#[test]
fn checks_without_the_password_are_counted_and_not_answered() {
    let (mut stage, publisher, _, subscription) = call(85);
    let sent = stage.runs.datagrams;
    let valid = stage.clients[publisher].client.check(true);
    let mut forged = valid.clone();
    let last = forged.len() - 20;
    forged[last] ^= 1;
    let stranger = IceCredentials { ufrag: "Anobody".into(), password: "of-at-least-22-characters".into() };
    let unknown = weir_transport::testing::binding_request("me", &stranger, 1, true);
    let elsewhere = IceCredentials { ufrag: "Bnobody".into(), ..stranger };
    let mut elsewhere = weir_transport::testing::binding_request("me", &elsewhere, 1, true);
    for mut bytes in [forged, unknown, vec![0, 1, 0, 0], vec![0; 20], valid[..40].to_vec()] {
        assert_eq!(stage.deliver(address(2), &mut bytes), Disposition::Handled);
    }
    assert_eq!(stage.dropped(Drop::Stun), 5);
    assert_eq!(stage.deliver(address(2), &mut elsewhere), Disposition::Elsewhere(1));
    stage.flush();
    assert_eq!(stage.runs.datagrams, sent, "silence");
    for mut bytes in [vec![], vec![200; 30], vec![70; 30], vec![10; 30]] {
        stage.deliver(address(2), &mut bytes);
    }
    assert_eq!(stage.dropped(Drop::Unclassified), 4);
    stage.run(secs(1));
    stage.playback(subscription).assert_seamless();
}

#[test]
fn a_client_with_hundreds_of_addresses_keeps_the_one_it_uses() {
    let (mut stage, publisher, _, subscription) = call(86);
    for host in 0..500 {
        let check = stage.clients[publisher].client.check_with(host.into(), false);
        stage.send_from(address(host), check);
        if host % 10 == 0 {
            stage.run(ms(10));
        }
    }
    stage.run(secs(1));
    stage.playback(subscription).assert_seamless();
    // The oldest are forgotten: packets from there are nobody's.
    let packet = stage.clients[publisher].next_media(stage.now);
    assert_eq!(stage.deliver(address(0), &mut packet.clone()), Disposition::Unknown);
    let route = stage.clients[publisher].route;
    stage.send_from(route, packet);
    stage.run(ms(100));
}

/// Every shard takes note of each address: a client with very many made others' be forgotten.
#[test]
fn a_client_brings_no_more_new_addresses_than_its_shard_allows() {
    let (mut stage, publisher, _, subscription) = call(93);
    let bring = |stage: &mut Stage, hosts: std::ops::Range<u16>| {
        let mut taken = 0;
        for host in hosts {
            let mut check = stage.clients[publisher].client.check_with(host.into(), false);
            match stage.deliver(address(host), &mut check) {
                Disposition::Validated => taken += 1,
                disposition => assert_eq!(disposition, Disposition::Handled),
            }
        }
        stage.flush();
        taken
    };
    stage.run(secs(10));
    let refused = stage.dropped(Drop::Stun);
    assert_eq!(bring(&mut stage, 0..1_000), 64);
    assert_eq!(stage.dropped(Drop::Stun), refused + 936);
    stage.run(secs(10));
    assert_eq!(bring(&mut stage, 1_000..2_000), 10, "and more as time passes");
    // Its own are never too many.
    let mut check = stage.clients[publisher].client.check(true);
    assert_eq!(stage.deliver(stage.clients[publisher].route, &mut check), Disposition::Validated);
    stage.run(secs(5));
    stage.playback(subscription).assert_seamless();
}

#[test]
fn an_address_taken_over_by_another_client_comes_back_with_the_next_check() {
    let (mut stage, publisher, _, subscription) = call(87);
    let thief = stage.join();
    let route = stage.clients[publisher].route;
    let check = stage.clients[thief].client.check(false);
    stage.send_from(route, check);
    stage.run(secs(6)); // two checks of the owner
    let refused = stage.dropped(Drop::Authentication);
    stage.run(secs(3));
    assert_eq!(stage.dropped(Drop::Authentication), refused);
    let playback = stage.playback(subscription);
    assert!(playback.faults.is_empty());
    assert!(playback.frames.last().unwrap().at > stage.now - ms(100));
}

#[test]
fn a_batch_beyond_the_bound_is_dropped_and_counted() {
    let (mut stage, publisher, _, subscription) = call(88);
    let route = stage.clients[publisher].route;
    stage.receiver(subscription).nacks = false;
    let mut packets = Vec::new();
    while packets.len() < MAX_PENDING + 100 {
        packets.push(stage.clients[publisher].next_media(stage.now));
    }
    for packet in &mut packets {
        stage.deliver(route, packet);
    }
    assert_eq!(stage.dropped(Drop::BatchFull), 100);
    stage.flush();
    stage.run(secs(3));
    let playback = stage.playback(subscription);
    assert!(playback.frames.len() > 300, "what the ring held went on");
    assert!(playback.frames.last().unwrap().at > stage.now - ms(100));
}

#[test]
fn feedback_that_is_malformed_or_means_nothing_here_is_ignored() {
    let (mut stage, publisher, _, subscription) = call(89);
    let subscriber = 1;
    let media = stage.receiver(subscription).ssrc;
    stage.send_rtcp(subscriber, |writer| writer.remb(1, 1_000_000, &[media]));
    stage.send_rtcp(subscriber, |writer| writer.receiver_reference_time(1, 77));
    stage.send_rtcp(subscriber, |writer| writer.bye(&[1]));
    stage.send_rtcp(subscriber, |writer| writer.nack(1, 0xdead_beef, &[1, 2, 3]) > 0);
    stage.send_rtcp(subscriber, |writer| writer.pli(1, 0xdead_beef));
    stage.send_rtcp(subscriber, |writer| writer.nack(1, media, &[1, 2, 60_000]) > 0);
    let requests = stage.source(stage.clients[publisher].sources[0].id).streams[0].requests.len();
    for garbage in [
        &[0x81_u8, 206, 0, 200, 0, 0, 0, 1][..],
        &[0x81, 205, 0, 1, 0, 0, 0, 1],
        &[0x80, 201, 0xff, 0xff, 0, 0, 0, 1],
    ] {
        let packet = stage.clients[subscriber].seal_rtcp(garbage);
        let route = stage.clients[subscriber].route;
        stage.send_from(route, packet);
    }
    stage.run(secs(2));
    assert_eq!(stage.dropped(Drop::MalformedRtcp), 3);
    let publication = stage.clients[publisher].sources[0].id;
    assert_eq!(stage.source(publication).streams[0].requests.len(), requests);
    stage.playback(subscription).assert_seamless();
}

#[test]
fn a_flood_of_requests_for_packets_is_answered_within_bounds() {
    let (mut stage, _, _, subscription) = call(90);
    let media = stage.receiver(subscription).ssrc;
    let highest = *stage.receiver(subscription).packets.keys().last().unwrap() as u16;
    let before = stage.shard.stats().retransmitted;
    for _ in 0..200 {
        let number = highest.wrapping_sub(3);
        stage.send_rtcp(1, |writer| writer.nack(1, media, &[number]) > 0);
    }
    stage.run(ms(100));
    let again = stage.shard.stats().retransmitted - before;
    assert_eq!(again, 1, "asked for twice is not lost twice");
}

#[test]
fn data_before_the_keys_is_dropped() {
    let mut stage = Stage::new(91);
    let client = stage.enter();
    let check = stage.clients[client].client.check(true);
    let route = stage.clients[client].route;
    let mut check = check;
    stage.deliver(route, &mut check);
    assert_eq!(stage.deliver(route, &mut [0x80; 40]), Disposition::Handled);
    let mut rtcp = [0x81; 40];
    rtcp[1] = 201;
    assert_eq!(stage.deliver(route, &mut rtcp), Disposition::Handled);
    assert_eq!(stage.dropped(Drop::NoKeys), 2);
    assert_eq!(stage.deliver(route, &mut [22; 40]), Disposition::Handled);
    stage.flush();
    stage.run(secs(2));
    assert_eq!(stage.shard.stats().connected_peers, 1, "and the handshake goes on");
}

#[test]
fn who_asks_for_everything_again_and_again_is_sent_little_more_than_there_was() {
    let mut stage = Stage::new(57);
    let (publisher, subscriber) = (stage.join(), stage.join());
    let publication = stage.publish(publisher, Shape { layers: vec![(1_000, 10)], ..Shape::vp8() });
    let subscription = stage.subscribe(subscriber, publication);
    stage.run(secs(2));
    let (newest, _) = stage.receiver(subscription).packets.last_key_value().unwrap();
    let numbers: Vec<u16> = (newest - 399..=*newest).map(|number| number as u16).collect();
    let media = stage.receiver(subscription).ssrc;
    let ask = |stage: &mut Stage| {
        stage.send_rtcp(subscriber, |writer| {
            numbers.chunks(200).all(|numbers| writer.nack(1, media, numbers) > 0)
        });
        stage.run(ms(10));
    };
    (0..4).for_each(|_| ask(&mut stage));
    let resent = stage.shard.stats().retransmitted;
    assert!(resent <= 3 * 256, "{resent} for three datagrams");
    (0..96).for_each(|_| ask(&mut stage));
    // In a second some 300 packets are sent, and two such seconds are touched.
    let resent = stage.shard.stats().retransmitted;
    assert!((256..750).contains(&resent), "{resent}");
}
