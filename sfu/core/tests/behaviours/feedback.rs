//! Reports and feedback that the focus sends, and what it makes of those it gets.

use std::collections::BTreeMap;

use weir_rtp::rtcp::{ReportBlock, SenderInfo};
use weir_stage::client::Heard;
use weir_stage::{Shape, Stage, ms, secs};
use weir_units::event::Event;

#[test]
fn every_packet_is_reported_with_its_arrival_soon_and_as_often_as_it_should() {
    let mut stage = Stage::new(100);
    stage.line.jitter = ms(4);
    let publisher = stage.join();
    stage.publish(publisher, Shape::vp8_simulcast());
    stage.publish(publisher, Shape::opus());
    stage.line.loss_up = 0.02;
    stage.run(secs(10));
    stage.line.loss_up = 0.0;
    stage.run(secs(1));
    let client = &stage.clients[publisher];
    let feedback = client.heard_where(|heard| match heard {
        Heard::Transport { count, packets } => Some((*count, packets.clone())),
        _ => None,
    });
    for pair in feedback.windows(2) {
        let (before, after) = (&pair[0].1, &pair[1].1);
        assert_eq!(after.0, before.0.wrapping_add(1), "feedback is counted");
        assert!(pair[1].0 - pair[0].0 <= ms(260), "no silence while media flows");
    }
    assert!(feedback.len() <= 11 * 21, "{} in eleven seconds", feedback.len());
    let mut arrivals: BTreeMap<u16, i64> = BTreeMap::new();
    for (at, (_, packets)) in &feedback {
        assert!(!packets.is_empty());
        for (number, arrival) in packets {
            let Some(ticks) = arrival else { continue };
            let left = client.departures[number];
            assert!(*at - left <= ms(20 + 4 + 20 + 255), "reported {:?} after it left", *at - left);
            arrivals.insert(*number, *ticks);
        }
    }
    let sent = client.departures.len();
    // The last may still wait for its report.
    assert!(arrivals.len() * 1_000 > sent * 970, "{} of {sent} reported", arrivals.len());
    // The distance of any two arrivals is that of their departures, to the jitter.
    let (first, epoch) = arrivals.first_key_value().unwrap();
    for (number, ticks) in &arrivals {
        let apart = (client.departures[number] - client.departures[first]).as_micros() as i64 / 250;
        assert!((ticks - epoch - apart).abs() <= 4 * 4 + 1, "{number}: {} and {apart}", ticks - epoch);
    }
}

#[test]
fn a_publisher_hears_what_was_received_of_each_stream() {
    let mut stage = Stage::new(101);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::vp8());
    stage.clients[publisher].answers_nacks = false;
    stage.run(secs(2));
    stage.line.loss_up = 0.25;
    stage.run(secs(10));
    stage.line.loss_up = 0.0;
    stage.run(secs(3));
    let ssrc = stage.source(publication).streams[0].ssrc;
    let next = stage.source(publication).streams[0].sequence;
    let blocks: Vec<(_, ReportBlock)> = stage.clients[publisher].heard_where(|heard| match heard {
        Heard::Report(block) if block.ssrc == ssrc => Some(*block),
        _ => None,
    });
    assert!((13..=16).contains(&blocks.len()), "{} in fifteen seconds", blocks.len());
    let fractions: Vec<u8> = blocks.iter().map(|block| block.1.fraction_lost).collect();
    assert_eq!(fractions[0], 0);
    assert_eq!(*fractions.last().unwrap(), 0);
    let middle: Vec<u8> = fractions[3..11].to_vec();
    assert!(middle.iter().all(|fraction| (35..95).contains(fraction)), "a quarter of 256: {middle:?}");
    let last = blocks.last().unwrap().1;
    assert!(next - u64::from(last.highest_sequence) < 100);
    let cumulative: Vec<i32> = blocks.iter().map(|block| block.1.cumulative_lost).collect();
    assert!(cumulative.is_sorted() && cumulative[0] == 0, "{cumulative:?}");
    assert!((150..320).contains(&last.cumulative_lost), "of about 900: {}", last.cumulative_lost);
    // The round trip that the publisher can work out is the line's.
    let now = stage.source(publication).report(0, blocks.last().unwrap().0).ntp;
    let round_trip = last.round_trip((now >> 16) as u32).unwrap() * 1_000 / 65_536;
    assert!((39..=42).contains(&round_trip), "{round_trip} ms");
}

#[test]
fn a_subscriber_hears_what_was_sent_on_the_publishers_clock() {
    let mut stage = Stage::new(102);
    let publisher = stage.join();
    let (video, audio) =
        (stage.publish(publisher, Shape::vp8_simulcast()), stage.publish(publisher, Shape::opus()));
    let subscriber = stage.join();
    let at_video = stage.subscribe(subscriber, video);
    let at_audio = stage.subscribe(subscriber, audio);
    for spatial in [2, 0, 1, 2] {
        stage.wish(at_video, spatial, 2);
        stage.run(secs(4));
    }
    for (subscription, source) in [(at_video, video), (at_audio, audio)] {
        let clock_rate = i64::from(stage.source(source).shape.codec.clock_rate());
        let (began, delay) = (stage.began, stage.line.delay);
        let receiver = stage.receiver(subscription);
        let reports: Vec<(_, SenderInfo)> = receiver.reports.clone();
        assert!(reports.len() >= 13, "{}", reports.len());
        for (at, info) in &reports {
            // The packets nearest to the report tell what the clock should say.
            let packet = receiver.packets.values().rfind(|packet| packet.at <= *at).unwrap();
            let sent =
                i64::from(info.rtp_timestamp.wrapping_sub(packet.timestamp) as i32) * 1_000_000 / clock_rate;
            let ntp = (info.ntp >> 32) as i64 * 1_000_000
                + (((info.ntp & 0xffff_ffff) * 1_000_000) >> 32) as i64
                - 3_900_000_000 * 1_000_000;
            let captured = packet.body.captured as i64;
            assert!((ntp - captured - sent).abs() < 35_000, "{} µs off", ntp - captured - sent);
            let now = (*at - began - delay).as_micros() as i64;
            assert!((now - ntp - delay.as_micros() as i64).abs() < 10_000, "extrapolated to when it left");
        }
        let (at, last) = reports.last().unwrap();
        let came = receiver.packets.values().filter(|packet| packet.at <= *at).count() as i64;
        assert!((came - i64::from(last.packet_count)).abs() <= 12, "{came} came, {}", last.packet_count);
        assert!(last.octet_count > 0);
    }
}

#[test]
fn the_control_plane_hears_of_loss_jitter_and_round_trip() {
    let mut stage = Stage::new(103);
    let publisher = stage.join();
    let publication = stage.publish(publisher, Shape::vp8());
    let subscriber = stage.join();
    stage.subscribe(subscriber, publication);
    stage.run(secs(12));
    let quality = |stage: &Stage, client: usize| {
        let peer = stage.clients[client].id;
        stage.events.iter().rev().find_map(|(_, event)| match event {
            Event::Quality { peer: of, quality } if *of == peer => Some(*quality),
            _ => None,
        })
    };
    let before = quality(&stage, subscriber).unwrap();
    assert!(before.loss == 0.0 && (39.0..=45.0).contains(&before.round_trip_ms), "{before:?}");
    stage.line.loss_down = 0.2;
    stage.run(secs(12));
    let after = quality(&stage, subscriber).unwrap();
    assert!((0.1..0.5).contains(&after.loss), "{after:?}");
    stage.line.loss_down = 0.0;
    stage.line.loss_up = 0.2;
    stage.run(secs(12));
    assert!((0.1..0.5).contains(&quality(&stage, publisher).unwrap().loss));
}

/// What never reached the focus is missing at every subscriber, whose line has nothing to do with it.
#[test]
fn what_a_publishers_line_loses_is_not_held_against_its_subscribers() {
    let mut stage = Stage::new(105);
    let (publisher, subscriber) = (stage.join(), stage.join());
    let publication = stage.publish(publisher, Shape::vp8_simulcast());
    let subscription = stage.subscribe(subscriber, publication);
    stage.clients[publisher].answers_nacks = false;
    stage.run(secs(5));
    stage.line.loss_up = 0.15;
    for _ in 0..30 {
        stage.run(secs(1));
        // It has no transport-wide feedback to give, so reports are what the focus knows of its line.
        stage.send_rtcp(subscriber, |writer| writer.remb(1, 4_000_000, &[]));
    }
    let peer = stage.clients[subscriber].id;
    let losses = stage.events.iter().filter_map(|(_, event)| match event {
        Event::Quality { peer: of, quality } if *of == peer => Some(quality.loss),
        _ => None,
    });
    let most = losses.fold(0.0, f32::max);
    assert!(most < 0.03, "{most}");
    let line = &stage.shard.lines(stage.now)[0];
    assert!(line.loss < 0.02, "{line:?}");
    assert!(stage.receiver(subscription).lost > 300, "though much was missing");
}

#[test]
fn hundreds_of_streams_are_reported_in_packets_that_fit() {
    let mut stage = Stage::new(104);
    let subscriber = stage.join();
    let publishers: Vec<_> = (0..20).map(|_| stage.join()).collect();
    for publisher in publishers {
        for shape in [Shape::opus(), Shape { layers: vec![(200, 1)], interval: ms(200), ..Shape::vp8() }] {
            let publication = stage.publish(publisher, shape);
            stage.subscribe(subscriber, publication);
        }
    }
    let mut many = Vec::new();
    for _ in 0..45 {
        many.push(stage.publish(subscriber, Shape::opus()));
    }
    stage.run(secs(4));
    for receiver in &stage.clients[subscriber].receivers {
        assert!(receiver.reports.len() >= 2, "{} reports", receiver.reports.len());
    }
    for publication in many {
        let ssrc = stage.source(publication).streams[0].ssrc;
        let blocks = stage.clients[subscriber].heard_where(|heard| match heard {
            Heard::Report(block) if block.ssrc == ssrc => Some(()),
            _ => None,
        });
        assert!(blocks.len() >= 3);
    }
}
