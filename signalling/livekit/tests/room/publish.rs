//! Publishing: from the announcement to the end of a track.

use livekit_protocol as proto;
use livekit_protocol::request_response::Reason;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use weir_livekit::room::{Limits, RoomConfig};
use weir_units::media::Codec;

use crate::harness::{Joining, SECOND, World};
use crate::tracks::{camera, microphone, screen, video};

#[test]
fn an_announced_track_has_its_sid_before_any_media() {
    let mut world = World::new();
    world.join("alice");
    world.says("alice", Request::AddTrack(camera("cam")));
    let sid = world.clients["alice"].published_sid("cam").expect("told at once");
    assert!(sid.starts_with("TR_"), "{sid}");
    assert!(world.plane.publications.is_empty(), "no m-line carries it yet");
}

#[test]
fn a_track_is_published_when_its_m_line_is_there_and_others_get_it() {
    for dual in [false, true] {
        let mut world = World::new();
        let alice = Joining::new("alice");
        world.join_as(if dual { alice.dual() } else { alice }).unwrap();
        world.join("bob");
        world.join_as(Joining::new("carol").dual()).unwrap();
        let sid = world.publish("alice", camera("cam"));
        world.advance(SECOND);
        let (_, media) = &world.plane.publications[&world.publication("alice", "cam")];
        let rids: Vec<_> = media.encodings.iter().map(|encoding| encoding.rid.unwrap().to_string()).collect();
        assert_eq!(rids, ["q", "h", "f"]);
        for identity in ["bob", "carol"] {
            assert_eq!(world.clients[identity].receives(), ["cam"], "dual: {dual}");
            assert_eq!(world.clients[identity].people["alice"].tracks[0].sid, sid);
        }
    }
}

#[test]
fn the_offer_may_come_before_the_announcement() {
    let mut world = World::new();
    world.join("alice");
    world.join("bob");
    let offer = world.clients.get_mut("alice").unwrap().offer_with(&camera("cam"));
    world.says("alice", Request::Offer(offer));
    world.says("alice", Request::AddTrack(camera("cam")));
    world.advance(SECOND);
    assert_eq!(world.clients["bob"].receives(), ["cam"]);
}

#[test]
fn a_browser_that_renames_its_tracks_is_understood_by_kind_and_age() {
    let mut world = World::new();
    world.join("alice");
    world.join("bob");
    for cid in ["cam", "mic"] {
        let track = if cid == "cam" { camera(cid) } else { microphone(cid) };
        world.says("alice", Request::AddTrack(track));
    }
    let alice = world.clients.get_mut("alice").unwrap();
    alice.offer_with(&microphone("{other-1}"));
    let offer = alice.offer_with(&camera("{other-2}"));
    world.says("alice", Request::Offer(offer));
    world.advance(SECOND);
    assert_eq!(world.clients["bob"].receives(), ["cam", "mic"]);
}

#[test]
fn camera_microphone_and_screen_go_side_by_side() {
    let mut world = World::new();
    world.join("alice");
    world.join("bob");
    world.publish("alice", camera("cam"));
    world.publish("alice", microphone("mic"));
    world.publish("alice", screen("screen"));
    world.advance(SECOND);
    assert_eq!(world.clients["bob"].receives(), ["cam", "mic", "screen"]);
    let tracks = &world.clients["bob"].people["alice"].tracks;
    let streams: Vec<_> = tracks.iter().map(|track| track.stream.as_str()).collect();
    assert_eq!(streams, ["camera", "camera", "screen"]);
}

#[test]
fn a_track_ends_when_its_m_line_does() {
    let mut world = World::new();
    world.join("alice");
    world.join("bob");
    world.publish("alice", camera("cam"));
    world.advance(SECOND);
    world.unpublish("alice", "cam");
    world.advance(SECOND);
    assert!(world.clients["bob"].people["alice"].tracks.is_empty());
    assert!(world.clients["bob"].receives().is_empty());
    assert!(world.plane.publications.is_empty() && world.plane.subscriptions.is_empty());
}

#[test]
fn silence_ends_nothing() {
    let mut world = World::new();
    world.join("alice");
    world.join("bob");
    world.publish("alice", microphone("mic"));
    world.advance(600 * SECOND);
    assert_eq!(world.clients["bob"].receives(), ["mic"]);
}

#[test]
fn the_same_device_again_waits_for_the_track_before_it() {
    let mut world = World::new();
    world.join("alice");
    world.join("bob");
    let first = world.publish("alice", camera("cam"));
    world.says("alice", Request::AddTrack(camera("cam")));
    assert_eq!(world.clients["alice"].verdict(), Some(Reason::Queued));
    assert_eq!(world.clients["alice"].published_sid("cam"), Some(first.clone()));
    // One offer ends the old m-line and begins the new.
    let alice = world.clients.get_mut("alice").unwrap();
    alice.offer_without("cam");
    let offer = alice.offer_with(&camera("cam"));
    world.says("alice", Request::Offer(offer));
    world.advance(SECOND);
    let second = world.clients["alice"].published_sid("cam").unwrap();
    assert_ne!(second, first);
    assert_eq!(world.clients["bob"].people["alice"].tracks[0].sid, second);
    assert_eq!(world.clients["bob"].receives(), ["cam"]);
}

#[test]
fn sound_that_is_encrypted_is_never_called_red() {
    let mut world = World::new();
    world.join("alice");
    let request = proto::AddTrackRequest {
        disable_red: false,
        encryption: proto::encryption::Type::Gcm as i32,
        ..microphone("mic")
    };
    world.says("alice", Request::AddTrack(request));
    let track = world.clients["alice"].last(|message| match message {
        Response::TrackPublished(published) => published.track.clone(),
        _ => None,
    });
    assert_eq!(track.unwrap().mime_type, "audio/opus");
}

#[test]
fn red_is_agreed_unless_it_was_declined() {
    for disable_red in [false, true] {
        let mut world = World::new();
        world.join("alice");
        world.publish("alice", proto::AddTrackRequest { disable_red, ..microphone("mic") });
        let (_, media) = &world.plane.publications[&world.publication("alice", "mic")];
        let has_red = media.formats.iter().any(|format| format.codec == Codec::Red);
        assert_eq!(has_red, !disable_red);
    }
}

#[test]
fn a_codec_is_named_with_its_kind_or_without() {
    let mut world = World::new();
    world.join("alice");
    for (at, name) in ["h264", "H264", "video/h264", "video/H264"].into_iter().enumerate() {
        world.publish("alice", video(&format!("cam{at}"), proto::TrackSource::Camera, name, Vec::new()));
        assert_eq!(world.clients["alice"].me().tracks[at].mime_type, "video/H264", "{name}");
    }
}

#[test]
fn a_codec_that_is_not_forwarded_is_replaced_by_one_that_is() {
    let mut world = World::new();
    world.join("alice");
    world.publish("alice", video("cam", proto::TrackSource::Camera, "h265", Vec::new()));
    assert_eq!(world.clients["alice"].me().tracks[0].mime_type, "video/VP8");
}

#[test]
fn what_is_no_track_or_names_none_is_refused_by_reason() {
    let mut world = World::new();
    world.join("alice");
    let published = world.publish("alice", camera("cam"));
    let data = proto::TrackType::Data as i32;
    for (request, reason) in [
        (proto::AddTrackRequest { r#type: data, ..camera("x") }, Reason::UnsupportedType),
        (proto::AddTrackRequest { sid: "TR_none".to_owned(), ..camera("x") }, Reason::NotFound),
        (proto::AddTrackRequest { sid: published, ..camera("x") }, Reason::UnsupportedType),
        (proto::AddTrackRequest { name: "x".repeat(1_000), ..camera("x") }, Reason::LimitExceeded),
        (proto::AddTrackRequest { stream: "x".repeat(1_000), ..camera("x") }, Reason::LimitExceeded),
        (camera(&"x".repeat(1_000)), Reason::LimitExceeded),
    ] {
        world.says("alice", Request::AddTrack(request));
        assert_eq!(world.clients["alice"].verdict(), Some(reason));
    }
    let unknown = proto::UpdateLocalAudioTrack { track_sid: "TR_none".to_owned(), features: vec![] };
    world.says("alice", Request::UpdateAudioTrack(unknown));
    assert_eq!(world.clients["alice"].verdict(), Some(Reason::NotFound));
}

#[test]
fn nobody_has_more_tracks_than_the_limit() {
    let limits = Limits { tracks: 3, ..Limits::default() };
    let mut world = World::with(RoomConfig { limits, ..RoomConfig::default() });
    world.join("alice");
    for cid in ["a", "b", "c", "d"] {
        world.says("alice", Request::AddTrack(camera(cid)));
    }
    assert_eq!(world.clients["alice"].verdict(), Some(Reason::LimitExceeded));
    assert_eq!(world.clients["alice"].published_sid("d"), None);
}

#[test]
fn what_a_publisher_says_of_its_track_later_is_passed_on() {
    let mut world = World::new();
    world.join("alice");
    world.join("bob");
    let camera_sid = world.publish("alice", camera("cam"));
    let microphone_sid = world.publish("alice", microphone("mic"));
    let update = proto::UpdateLocalVideoTrack { track_sid: camera_sid, width: 720, height: 1280 };
    world.says("alice", Request::UpdateVideoTrack(update));
    let features = vec![proto::AudioTrackFeature::TfNoiseSuppression as i32];
    let update = proto::UpdateLocalAudioTrack { track_sid: microphone_sid, features: features.clone() };
    world.says("alice", Request::UpdateAudioTrack(update));
    let tracks = &world.clients["bob"].people["alice"].tracks;
    assert_eq!((tracks[0].width, tracks[0].height), (720, 1280));
    assert_eq!(tracks[1].audio_features, features);
}

#[test]
fn the_publisher_learns_once_and_before_it_sends_anything_that_somebody_is_there_for_its_track() {
    for dual in [false, true] {
        let mut world = World::new();
        world.join("alice");
        let told = |world: &World| {
            world.clients["alice"].all(|message| match message {
                Response::TrackSubscribed(subscribed) => Some(subscribed.track_sid.clone()),
                _ => None,
            })
        };
        let before = world.publish("alice", proto::AddTrackRequest { muted: true, ..microphone("mic") });
        for identity in ["bob", "carol"] {
            let joining = Joining::new(identity).unconnected();
            world.join_as(if dual { joining.dual() } else { joining }).unwrap();
        }
        world.advance(SECOND);
        assert_eq!(world.clients["bob"].receives(), ["mic"]);
        assert_eq!(told(&world), [""; 0], "nobody is connected");
        for identity in ["bob", "carol"] {
            world.connect(identity);
        }
        assert_eq!(told(&world), [before.as_str()], "dual: {dual}");
        let after = world.publish("alice", camera("cam"));
        assert_eq!(told(&world).len(), 1, "nobody has an m-line for it");
        world.advance(SECOND);
        assert_eq!(told(&world), [before, after], "dual: {dual}");
    }
}
