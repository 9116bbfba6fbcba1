//! Subscribing: who gets what, and how much of it.

use std::time::Duration;

use livekit_protocol as proto;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use weir_units::event::Event;
use weir_units::media::{Codec, Layer, MediaKind};

use crate::harness::{Joining, MILLISECOND, SECOND, World};
use crate::tracks::{camera, microphone, screen, video};

fn subscribe(world: &mut World, identity: &'static str, sid: &str, subscribe: bool) {
    let tracks = proto::ParticipantTracks { track_sids: vec![sid.to_owned()], ..Default::default() };
    let request = proto::UpdateSubscription {
        track_sids: vec![sid.to_owned()],
        subscribe,
        participant_tracks: vec![tracks], // clients say it twice over
    };
    world.says(identity, Request::Subscription(request));
    world.advance(SECOND);
}

fn setting(sid: &str) -> proto::UpdateTrackSettings {
    proto::UpdateTrackSettings {
        track_sids: vec![sid.to_owned()],
        quality: proto::VideoQuality::High as i32,
        ..Default::default()
    }
}

#[test]
fn without_auto_subscription_only_what_was_asked_for_comes() {
    let mut world = World::new();
    world.join("alice");
    let sid = world.publish("alice", camera("cam"));
    world.publish("alice", microphone("mic"));
    world.join_as(Joining::new("bob").with(|parameters| parameters.auto_subscribe = false)).unwrap();
    world.advance(SECOND);
    assert!(world.forwarded("bob").is_empty());
    subscribe(&mut world, "bob", &sid, true);
    assert_eq!(world.clients["bob"].receives(), ["cam"]);
    subscribe(&mut world, "bob", &sid, false);
    assert!(world.clients["bob"].receives().is_empty() && world.forwarded("bob").is_empty());
    subscribe(&mut world, "bob", &sid, true);
    assert_eq!(world.clients["bob"].receives(), ["cam"]);
}

#[test]
fn a_wish_for_a_track_that_is_not_there_yet_is_kept() {
    let mut world = World::new();
    world.join("alice");
    world.says("alice", Request::AddTrack(camera("cam")));
    let sid = world.clients["alice"].published_sid("cam").unwrap();
    world.join_as(Joining::new("bob").with(|parameters| parameters.auto_subscribe = false)).unwrap();
    subscribe(&mut world, "bob", &sid, true);
    let settings = proto::UpdateTrackSettings { width: 320, height: 180, ..setting(&sid) };
    world.says("bob", Request::TrackSetting(settings));
    let offer = world.clients.get_mut("alice").unwrap().offer_with(&camera("cam"));
    world.says("alice", Request::Offer(offer));
    world.advance(SECOND);
    assert_eq!(world.clients["bob"].receives(), ["cam"]);
    assert_eq!(world.wish("bob", world.publication("alice", "cam")).max_layer.spatial, 0);
}

#[test]
fn an_adaptive_client_gets_the_smallest_until_it_says_what_it_shows() {
    for (adaptive_stream, expected) in [(true, 0), (false, u8::MAX)] {
        let mut world = World::new();
        world.join("alice");
        world.publish("alice", camera("cam"));
        let joining = Joining::new("bob").with(|parameters| parameters.adaptive_stream = adaptive_stream);
        world.join_as(joining).unwrap();
        world.advance(SECOND);
        let wish = world.wish("bob", world.publication("alice", "cam"));
        assert_eq!((wish.max_layer.spatial, wish.enabled), (expected, true));
    }
}

#[test]
fn what_is_shown_decides_the_layer() {
    let mut world = World::new();
    world.join("alice");
    let sid = world.publish("alice", camera("cam"));
    world.join("bob");
    world.advance(SECOND);
    let publication = world.publication("alice", "cam");
    let shown = |width, height| proto::UpdateTrackSettings { width, height, ..setting(&sid) };
    let quality = |quality: proto::VideoQuality| proto::UpdateTrackSettings {
        quality: quality as i32,
        ..setting(&sid)
    };
    for (settings, expected) in [
        (shown(160, 90), 0),
        (shown(320, 180), 0),
        (shown(321, 181), 1),
        (shown(360, 640), 1), // turned by 90 degrees
        (shown(1280, 720), u8::MAX),
        (shown(3840, 2160), u8::MAX), // more than there is
        (quality(proto::VideoQuality::Low), 0),
        (quality(proto::VideoQuality::Medium), 1),
        (quality(proto::VideoQuality::High), u8::MAX),
    ] {
        world.says("bob", Request::TrackSetting(settings.clone()));
        let wish = world.wish("bob", publication);
        assert_eq!(wish.max_layer.spatial, expected, "{settings:?}");
    }
}

#[test]
fn a_disabled_track_stops_and_comes_back_without_a_round() {
    let mut world = World::new();
    world.join("alice");
    let sid = world.publish("alice", camera("cam"));
    world.join("bob");
    world.advance(SECOND);
    let publication = world.publication("alice", "cam");
    let rounds = world.clients["bob"].kinds().iter().filter(|kind| *kind == "Answer").count();
    for disabled in [true, false] {
        world.says("bob", Request::TrackSetting(proto::UpdateTrackSettings { disabled, ..setting(&sid) }));
        world.advance(SECOND);
        assert_eq!(world.wish("bob", publication).enabled, !disabled);
    }
    assert_eq!(world.clients["bob"].kinds().iter().filter(|kind| *kind == "Answer").count(), rounds);
}

#[test]
fn a_frame_rate_chooses_temporal_layers_and_a_priority_is_passed_on() {
    let mut world = World::new();
    world.join("alice");
    let sid = world.publish("alice", camera("cam"));
    world.join("bob");
    world.advance(SECOND);
    let publication = world.publication("alice", "cam");
    for (fps, expected) in [(0, u8::MAX), (7, 0), (15, 1), (30, u8::MAX)] {
        world.says(
            "bob",
            Request::TrackSetting(proto::UpdateTrackSettings { fps, priority: 3, ..setting(&sid) }),
        );
        let wish = world.wish("bob", publication);
        assert_eq!((wish.max_layer.temporal, wish.priority), (expected, 3));
    }
}

#[test]
fn sound_has_one_layer_and_can_be_disabled() {
    let mut world = World::new();
    world.join("alice");
    let sid = world.publish("alice", microphone("mic"));
    world.join_as(Joining::new("bob").with(|parameters| parameters.adaptive_stream = true)).unwrap();
    world.advance(SECOND);
    let publication = world.publication("alice", "mic");
    assert_eq!(world.wish("bob", publication).max_layer, Layer::MAX);
    world.says("bob", Request::TrackSetting(proto::UpdateTrackSettings { disabled: true, ..setting(&sid) }));
    assert!(!world.wish("bob", publication).enabled);
}

#[test]
fn a_single_layer_is_all_there_is_however_little_is_shown() {
    let mut world = World::new();
    world.join("alice");
    let sid = world.publish("alice", screen("screen"));
    world.join("bob");
    world.advance(SECOND);
    world.says(
        "bob",
        Request::TrackSetting(proto::UpdateTrackSettings { width: 10, height: 10, ..setting(&sid) }),
    );
    let wish = world.wish("bob", world.publication("alice", "screen"));
    assert_eq!(wish.max_layer.spatial, u8::MAX);
}

#[test]
fn a_codec_the_client_lacks_is_refused_by_the_tracks_name_and_nothing_else_suffers() {
    let mut world = World::new();
    world.join("alice");
    let sid = world.publish("alice", video("cam", proto::TrackSource::Camera, "av1", Vec::new()));
    world.publish("alice", microphone("mic"));
    world.join("bob");
    world.advance(5 * SECOND);
    let refused = world.clients["bob"].all(|message| match message {
        Response::SubscriptionResponse(response) => Some((response.track_sid.clone(), response.err())),
        _ => None,
    });
    assert_eq!(refused, [(sid, proto::SubscriptionError::SeCodecUnsupported)]);
    assert_eq!(world.clients["bob"].receives(), ["mic"]);
}

#[test]
fn a_pause_for_want_of_bandwidth_is_told_to_the_subscriber_alone() {
    let mut world = World::new();
    world.join("alice");
    let sid = world.publish("alice", camera("cam"));
    world.join("bob");
    world.join("carol");
    world.advance(SECOND);
    let subscription = world.forwarded("bob")[0].0;
    for paused in [true, false] {
        world.event(Event::StreamState { subscription, paused });
    }
    let told = |identity: &str| {
        world.clients[identity].all(|message| match message {
            Response::StreamStateUpdate(update) => {
                let [state] = &update.stream_states[..] else { panic!("{update:?}") };
                assert_eq!(state.participant_sid, world.clients["alice"].sid());
                Some((state.track_sid.clone(), state.state()))
            }
            _ => None,
        })
    };
    assert_eq!(told("bob"), [(sid.clone(), proto::StreamState::Paused), (sid, proto::StreamState::Active)]);
    assert_eq!(told("carol"), []);
}

#[test]
fn a_first_packet_counts_from_when_the_subscriber_was_connected_and_asking_and_the_publisher_sent() {
    let mut world = World::new();
    world.join("alice");
    let sid = world.publish("alice", camera("cam"));
    world.join_as(Joining::new("bob").unconnected()).unwrap();
    world.advance(SECOND);
    let publication = world.publication("alice", "cam");
    let hidden = |disabled| Request::TrackSetting(proto::UpdateTrackSettings { disabled, ..setting(&sid) });
    let subscription = world.forwarded("bob")[0].0;
    let mut expected = Vec::new();
    for step in 0..4 {
        match step {
            0 => world.event(Event::PublicationStarted { publication, codec: Codec::Vp8 }),
            1 => world.connect("bob"),
            2 => {
                world.says("bob", hidden(true));
                world.advance(SECOND);
                world.says("bob", hidden(false));
            }
            _ => {
                for muted in [true, false] {
                    let request = proto::MuteTrackRequest { sid: sid.clone(), muted };
                    world.says("alice", Request::Mute(request));
                    world.advance(SECOND);
                }
            }
        }
        world.advance(7 * MILLISECOND);
        world.event(Event::SubscriptionStarted { subscription });
        if step > 0 {
            let since_unmuted = if step == 3 { SECOND } else { Duration::ZERO };
            expected.push((MediaKind::Video, since_unmuted + 7 * MILLISECOND));
        }
        assert_eq!(world.first_packets, expected, "step {step}");
        world.advance(SECOND);
    }
}
