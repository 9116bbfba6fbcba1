//! Video of which several codecs were agreed: the first packet says which one it is.

use std::time::Duration;

use weir_core::stats::Drop;
use weir_stage::body::FrameId;
use weir_stage::codec::ingress_payload_type;
use weir_stage::source::{Rtp, Source};
use weir_stage::{Shape, Stage, ms, secs};
use weir_units::command::Command;
use weir_units::event::Event;
use weir_units::ids::PublicationId;
use weir_units::media::{Codec, Encoding, IngressMedia, PayloadFormat};

const VIDEO: [Codec; 4] = [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1];

/// All codecs are agreed, whatever the source's own.
fn any_codec(source: &Source) -> IngressMedia {
    let formats = VIDEO.map(|codec| {
        let (payload_type, rtx_payload_type) = ingress_payload_type(codec);
        PayloadFormat { codec, payload_type, rtx_payload_type }
    });
    IngressMedia { formats: formats.to_vec(), ..source.media() }
}

/// What was told of the publication's codec.
fn told(stage: &Stage, wanted: PublicationId) -> Vec<Codec> {
    let codec = |event: &Event| match event {
        Event::PublicationStarted { publication, codec } if *publication == wanted => Some(*codec),
        _ => None,
    };
    stage.events.iter().filter_map(|(_, event)| codec(event)).collect()
}

/// Packets of that payload type on the source's first stream, ahead of what it sends.
fn send(stage: &mut Stage, client: usize, payload_type: u8, prefix: &[u8]) {
    let route = stage.clients[client].route;
    let (source, (_, srtp)) =
        (&stage.clients[client].sources[0], stage.clients[client].srtp.as_ref().unwrap());
    let stream = &source.streams[0];
    let is_repair = !prefix.is_empty();
    let rtp = Rtp {
        ssrc: if is_repair { stream.rtx_ssrc } else { stream.ssrc },
        payload_type,
        index: if is_repair { stream.rtx_sequence } else { stream.sequence } + 1_000,
        timestamp: 7,
        marker: true,
        extensions: vec![(4, source.mid.as_bytes().to_vec())],
        padding: 0,
    };
    let packet = rtp.seal(srtp, prefix, &[0x10, 0x01, 0, 0]);
    stage.send_from(route, packet);
}

/// A frame, its temporal layer, when it came, and whether it could be shown.
type Seen = (FrameId, u8, Duration, bool);

/// How long after it was subscribed to each frame came, to somebody who wants all of it and somebody who wants the least.
/// And for how many key frames the publisher was asked.
fn seen(seed: u64, shape: &Shape, agreed: fn(&Source) -> IngressMedia) -> ([Vec<Seen>; 2], usize) {
    let mut stage = Stage::new(seed);
    let (publisher, joiner, other) = (stage.join(), stage.join(), stage.join());
    let publication = stage.publish_as(publisher, shape.clone(), agreed);
    stage.run(ms(100));
    let joined = stage.now;
    let subscription = stage.subscribe(joiner, publication);
    let least = stage.subscribe(other, publication);
    stage.wish(least, 0, 0);
    stage.run(secs(3));
    assert_eq!(told(&stage, publication), [shape.codec], "once, and by its name");
    let requests = stage.source(publication).streams.iter().map(|stream| stream.requests.len()).sum();
    let seen = [subscription, least].map(|subscription| {
        let playback = stage.playback(subscription);
        playback.assert_seamless();
        let frames = playback.frames.iter();
        frames.map(|frame| (frame.id, frame.temporal, frame.at - joined, frame.is_decoded)).collect()
    });
    (seen, requests)
}

#[test]
fn whoever_subscribes_once_the_codec_is_known_sees_what_it_would_see_had_it_been_named() {
    let shapes = [Shape::vp8(), Shape::vp8_simulcast(), Shape::vp9_svc(), Shape::h264(), Shape::av1_svc()];
    for (seed, shape) in (700..).zip(shapes) {
        let ([all, least], requests) = seen(seed, &shape, any_codec);
        let named = seen(seed, &shape, Source::media);
        assert!(([&all, &least], requests) == (named.0.each_ref(), named.1), "{:?}", shape.codec);
        assert!(all[0].0.number == 0 && all[0].3, "{:?}: it begins with the first picture", shape.codec);
        let best = all.iter().map(|frame| frame.0.spatial.max(frame.0.encoding)).max().unwrap();
        assert_eq!(usize::from(best), shape.layers.len() - 1, "{:?}", shape.codec);
    }
}

#[test]
fn only_media_of_an_agreed_payload_type_decide_and_nothing_else_is_taken_then() {
    let mut stage = Stage::new(710);
    let publisher = stage.join();
    let publication = stage.publish_as(publisher, Shape::h264(), any_codec);
    stage.source(publication).is_paused = true;
    stage.run(ms(100));
    for codec in VIDEO {
        let (_, repair) = ingress_payload_type(codec);
        send(&mut stage, publisher, repair.unwrap(), &[0, 1]);
        stage.run(ms(20));
    }
    send(&mut stage, publisher, 120, &[]);
    stage.run(ms(20));
    assert_eq!(stage.dropped(Drop::UnknownPayloadType), 1);
    assert_eq!(told(&stage, publication), []);

    stage.source(publication).is_paused = false;
    stage.run(ms(300));
    assert_eq!(told(&stage, publication), [Codec::H264]);
    let subscriber = stage.join();
    let subscription = stage.subscribe(subscriber, publication);
    for codec in [Codec::Vp8, Codec::Vp9, Codec::Av1] {
        send(&mut stage, publisher, ingress_payload_type(codec).0, &[]);
        stage.run(ms(50));
    }
    stage.run(secs(1));
    assert_eq!(stage.dropped(Drop::UnknownPayloadType), 4);
    assert_eq!(told(&stage, publication), [Codec::H264]);
    stage.playback(subscription).assert_seamless();
}

#[test]
fn a_codec_that_is_decided_outlives_a_renegotiation() {
    for is_decided in [false, true] {
        let mut stage = Stage::new(720);
        let publisher = stage.join();
        let publication = stage.publish_as(publisher, Shape::vp9_svc(), any_codec);
        let media = any_codec(stage.source(publication));
        let peer = stage.clients[publisher].id;
        if is_decided {
            stage.run(ms(300));
        }
        stage.command(Command::Publish { publication, peer, media });
        stage.run(ms(300));
        let subscriber = stage.join();
        let subscription = stage.subscribe(subscriber, publication);
        stage.wish(subscription, 1, 2);
        send(&mut stage, publisher, ingress_payload_type(Codec::Vp8).0, &[]);
        stage.run(secs(1));
        stage.playback(subscription).assert_seamless();
        assert_eq!(told(&stage, publication), [Codec::Vp9]);
        assert_eq!(stage.dropped(Drop::UnknownPayloadType), 1);
    }
}

/// The network delays what was sent before: it is the rest of what is gone.
#[test]
fn another_publication_on_the_same_m_line_is_decided_by_what_it_announces() {
    let mut stage = Stage::new(730);
    let publisher = stage.join();
    let publication = stage.publish_as(publisher, Shape::vp8(), any_codec);
    stage.run(ms(300));
    stage.source(publication).is_paused = true;
    let mid = stage.source(publication).mid;
    send(&mut stage, publisher, ingress_payload_type(Codec::Vp8).0, &[]);
    stage.command(Command::Unpublish { publication });
    let next = stage.publish_as(publisher, Shape::av1_svc(), |source| {
        let stream = &source.streams[0];
        let encoding = Encoding { rid: None, ssrc: Some(stream.ssrc), rtx_ssrc: Some(stream.rtx_ssrc) };
        IngressMedia { mid, encodings: vec![encoding], ..any_codec(source) }
    });
    stage.source(next).mid = mid;
    stage.run(ms(300));
    assert_eq!(told(&stage, publication), [Codec::Vp8]);
    assert_eq!(told(&stage, next), [Codec::Av1]);
    let subscriber = stage.join();
    let subscription = stage.subscribe(subscriber, next);
    stage.run(secs(1));
    stage.playback(subscription).assert_seamless();
}
