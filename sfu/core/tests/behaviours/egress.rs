//! What leaves: runs that the kernel cuts, and nothing lost on the way there.

use weir_rtp::header::{DatagramKind, classify};
use weir_stage::{Shape, Stage, ms, secs};

#[test]
fn the_packets_of_a_picture_leave_in_one_run_though_some_are_a_byte_longer() {
    let mut stage = Stage::new(50);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape { layers: vec![(1_000, 8)], ..Shape::vp8() });
    let subscriber = stage.join();
    let subscription = stage.subscribe(subscriber, publication);
    stage.run(secs(1));
    let before = stage.runs;
    stage.run(secs(2));
    let (runs, datagrams) = (stage.runs.runs - before.runs, stage.runs.datagrams - before.datagrams);
    assert!(datagrams > 480 && runs * 5 < datagrams, "{datagrams} datagrams in {runs} runs");
    let playback = stage.playback(subscription);
    playback.assert_seamless();
    let padded = stage.receiver(subscription).packets.values().filter(|packet| packet.padding == 1).count();
    assert!(padded > 200, "{padded} packets with a byte of padding");
}

#[test]
fn a_stall_of_the_shard_loses_nothing() {
    for (seed, sizes) in [(51, vec![(100, 12)]), (52, vec![(1_100, 50)])] {
        let mut stage = Stage::new(seed);
        stage.line.batch = ms(500);
        let publisher = stage.join();
        let publication = stage.publish(publisher, Shape { layers: sizes, ragged: 40, ..Shape::vp8() });
        let subscriptions: Vec<_> = (0..10)
            .map(|_| {
                let client = stage.join();
                stage.subscribe(client, publication)
            })
            .collect();
        stage.run(secs(2));
        for subscription in subscriptions {
            stage.receiver(subscription).nacks = false;
        }
        stage.run(secs(3));
        for at in 0..10 {
            let subscription = stage.clients[at + 1].receivers[0].id;
            stage.playback(subscription).assert_seamless();
            assert_eq!(stage.receiver(subscription).lost, 0);
        }
    }
}

#[test]
fn sizes_that_grow_take_many_runs_and_lose_nothing() {
    let mut stage = Stage::new(53);
    stage.line.batch = ms(300);
    let publisher = stage.join();
    let publication =
        stage.publish(publisher, Shape { layers: vec![(300, 2)], ragged: 200, growth: 17, ..Shape::vp8() });
    let clients: Vec<_> = (0..20).map(|_| stage.join()).collect();
    let subscriptions: Vec<_> = clients.iter().map(|client| stage.subscribe(*client, publication)).collect();
    for subscription in &subscriptions {
        stage.receiver(*subscription).nacks = false;
    }
    stage.run(secs(4));
    for subscription in subscriptions {
        let playback = stage.playback(subscription);
        playback.assert_seamless();
    }
}

#[test]
fn a_key_frame_repaired_late_is_followed_by_what_came_after_at_every_subscriber() {
    let mut stage = Stage::new(54);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape { layers: vec![(1_000, 12)], ..Shape::vp8() });
    let clients: Vec<_> = (0..20).map(|_| stage.join()).collect();
    stage.run(secs(20)); // the first key frame has left the ring
    let subscriptions: Vec<_> = clients.iter().map(|client| stage.subscribe(*client, publication)).collect();
    for subscription in &subscriptions {
        stage.receiver(*subscription).nacks = false;
    }
    // The key frame that was asked for loses its first packet, and comes from the retransmission.
    stage.line.drop_next_key_start = true;
    stage.run(secs(3));
    for subscription in subscriptions {
        let playback = stage.playback(subscription);
        playback.assert_seamless();
    }
}

#[test]
fn a_picture_that_came_in_part_is_unfinished_for_all_its_subscribers_until_its_last_packet() {
    let mut stage = Stage::new(55);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape { layers: vec![(1_000, 4)], ..Shape::vp8() });
    for _ in 0..5 {
        let client = stage.join();
        stage.subscribe(client, publication);
    }
    stage.run(secs(1));
    let route = stage.clients[publisher].route;
    let picture = loop {
        stage.now = stage.clients[publisher].poll_timeout().expect("it publishes");
        let datagrams = stage.clients[publisher].handle_timeout(stage.now);
        let media: Vec<_> =
            datagrams.into_iter().filter(|datagram| classify(datagram) == DatagramKind::Rtp).collect();
        if media.len() > 1 {
            break media;
        }
    };
    let last = picture.len() - 1;
    for (at, mut datagram) in picture.into_iter().enumerate() {
        stage.deliver(route, &mut datagram);
        assert_eq!(stage.shard.unfinished(), if at < last { 5 } else { 0 }, "after packet {at} of {last}");
    }
    stage.flush();
    assert_eq!(stage.shard.unfinished(), 0);
}
