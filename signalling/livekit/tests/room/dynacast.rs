//! Telling publishers which layers anybody wants.

use livekit_protocol as proto;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use weir_units::event::Event;
use weir_units::media::Codec;

use crate::harness::{SECOND, World};
use crate::tracks::{camera, microphone};

/// Which of LOW, MEDIUM, HIGH the publisher was told to send, each time it was told.
fn told(world: &World, identity: &str) -> Vec<[bool; 3]> {
    world.clients[identity].all(|message| match message {
        Response::SubscribedQualityUpdate(update) => {
            let [codec] = &update.subscribed_codecs[..] else { panic!("one codec: {update:?}") };
            assert_eq!(codec.codec, "vp8");
            assert_eq!(codec.qualities, update.subscribed_qualities, "both forms say the same");
            Some([0, 1, 2].map(|quality| codec.qualities[quality].enabled))
        }
        _ => None,
    })
}

#[test]
fn a_room_with_a_muted_track_goes_on() {
    let mut world = World::new();
    world.join("alice");
    world.publish("alice", proto::AddTrackRequest { muted: true, ..microphone("mic") });
    world.publish("alice", proto::AddTrackRequest { muted: true, ..camera("cam") });
    world.advance(60 * SECOND);
    assert_eq!(told(&world, "alice"), Vec::<[bool; 3]>::new(), "silent while muted");
}

#[test]
fn a_muted_publisher_hears_what_is_wanted_when_it_unmutes() {
    let mut world = World::new();
    world.join("alice");
    let sid = world.publish("alice", camera("cam"));
    let publication = world.publication("alice", "cam");
    world.event(Event::LayersWanted { publication, layers: 0b111 });
    world.says("alice", Request::Mute(proto::MuteTrackRequest { sid: sid.clone(), muted: true }));
    world.event(Event::LayersWanted { publication, layers: 0b001 });
    world.advance(30 * SECOND);
    assert_eq!(told(&world, "alice"), [[true; 3]]);
    world.says("alice", Request::Mute(proto::MuteTrackRequest { sid, muted: false }));
    assert_eq!(told(&world, "alice")[1..], [[true, false, false]]);
}

#[test]
fn nobody_is_told_of_layers_of_sound() {
    let mut world = World::new();
    world.join("alice");
    world.publish("alice", microphone("mic"));
    world.advance(60 * SECOND);
    assert_eq!(told(&world, "alice"), Vec::<[bool; 3]>::new());
}

#[test]
fn layers_come_back_at_once_and_go_after_a_second() {
    let mut world = World::new();
    world.join("alice");
    world.publish("alice", camera("cam"));
    let publication = world.publication("alice", "cam");
    world.event(Event::LayersWanted { publication, layers: 0b11 });
    assert_eq!(told(&world, "alice"), [[true, true, false]]);
    world.advance(20 * SECOND);
    world.event(Event::LayersWanted { publication, layers: 0b1 });
    world.advance(SECOND / 2);
    assert_eq!(told(&world, "alice").len(), 1);
    world.advance(SECOND);
    assert_eq!(told(&world, "alice")[1..], [[true, false, false]]);
    world.event(Event::LayersWanted { publication, layers: 0b111 });
    assert_eq!(told(&world, "alice")[2..], [[true; 3]]);
}

#[test]
fn nobody_watching_is_told_two_seconds_after_the_track_begins() {
    let mut world = World::new();
    world.join("alice");
    world.publish("alice", camera("cam"));
    world.advance(SECOND);
    assert_eq!(told(&world, "alice").len(), 0);
    world.advance(2 * SECOND);
    assert_eq!(told(&world, "alice"), [[false; 3]]);
}

/// A client that still negotiates a track has no use for what it is told of it.
#[test]
fn what_was_told_before_the_first_packet_is_told_again_unless_it_was_all() {
    let mut world = World::new();
    world.join("alice");
    world.publish("alice", camera("cam"));
    let publication = world.publication("alice", "cam");
    world.event(Event::LayersWanted { publication, layers: 0b1 });
    world.event(Event::PublicationStarted { publication, codec: Codec::Vp8 });
    assert_eq!(told(&world, "alice"), [[true, false, false]; 2]);
    world.publish("alice", camera("other"));
    let publication = world.publication("alice", "other");
    world.event(Event::LayersWanted { publication, layers: 0b111 });
    world.event(Event::PublicationStarted { publication, codec: Codec::Vp8 });
    assert_eq!(told(&world, "alice")[2..], [[true; 3]]);
}

#[test]
fn a_publisher_that_comes_back_is_told_again() {
    let mut world = World::new();
    world.join("alice");
    world.publish("alice", camera("cam"));
    let publication = world.publication("alice", "cam");
    world.event(Event::LayersWanted { publication, layers: 0b1 });
    world.cut("alice");
    world.resume("alice");
    world.advance(SECOND);
    assert_eq!(told(&world, "alice"), [[true, false, false]]);
}
