//! Video whose publisher names no codec: all that it offers are agreed, and its first packet tells which it sends.

use livekit_protocol as proto;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use weir_units::event::Event;
use weir_units::media::Codec;

use crate::harness::{Joining, SECOND, World};
use crate::tracks::{camera, microphone, video};

/// As pion announces a track: in one layer, or in those of [`camera`].
fn unnamed(cid: &str, in_layers: bool) -> proto::AddTrackRequest {
    let named = camera(cid);
    let layers = named.simulcast_codecs[0].layers.clone();
    proto::AddTrackRequest {
        simulcast_codecs: Vec::new(),
        layers: if in_layers { layers } else { Vec::new() },
        ..named
    }
}

/// Alice publishes a track without a named codec, Bob looks on.
fn call() -> World {
    let mut world = World::new();
    world.join("alice");
    world.join("bob");
    world.publish("alice", unnamed("cam", false));
    world.advance(SECOND);
    world
}

fn starts(world: &mut World, cid: &str, codec: Codec) {
    let publication = world.publication("alice", cid);
    world.event(Event::PublicationStarted { publication, codec });
}

/// What they know of Alice's tracks: name and type.
fn known(world: &World, identity: &str) -> Vec<(String, String)> {
    let tracks = &world.clients[identity].people["alice"].tracks;
    tracks.iter().map(|track| (track.name.clone(), track.mime_type.clone())).collect()
}

fn answer(world: &World, identity: &str) -> String {
    let answer = world.clients[identity].last(|message| match message {
        Response::Answer(answer) => Some(answer.sdp.clone()),
        _ => None,
    });
    answer.expect("an offer was answered")
}

#[test]
fn a_track_is_known_by_the_codec_of_its_first_packet_and_by_none_before() {
    for (dual, codec) in
        [Codec::Vp8, Codec::Vp9, Codec::H264].into_iter().flat_map(|codec| [(false, codec), (true, codec)])
    {
        let mut world = World::new();
        let alice = Joining::new("alice");
        world.join_as(if dual { alice.dual() } else { alice }).unwrap();
        world.join("bob");
        let sid = world.publish("alice", unnamed("cam", false));
        world.join_as(Joining::new("carol").dual()).unwrap();
        world.advance(60 * SECOND);
        let sdp = answer(&world, "alice");
        let section = sdp.split("m=").find(|section| section.contains("a=recvonly")).unwrap();
        assert!(section.starts_with("video 9 UDP/TLS/RTP/SAVPF 96 97 98 99 108 109\r\n"), "{section}");
        let (_, media) = &world.plane.publications[&world.publication("alice", "cam")];
        let agreed: Vec<_> = media.formats.iter().map(|format| format.codec).collect();
        assert_eq!(agreed, [Codec::Vp8, Codec::Vp9, Codec::H264]);
        let discouraged = world.clients["alice"].all(|message| match message {
            Response::SubscribedQualityUpdate(update) => Some(update.clone()),
            _ => None,
        });
        assert_eq!(discouraged, [], "it would never send its first packet");
        for identity in ["alice", "bob", "carol"] {
            assert_eq!(known(&world, identity), []);
            assert!(world.clients[identity].receives().is_empty());
        }
        starts(&mut world, "cam", codec);
        let mime_type = format!("video/{}", codec.name());
        for identity in ["alice", "bob", "carol"] {
            assert_eq!(known(&world, identity), [("cam".to_owned(), mime_type.clone())]);
        }
        world.advance(SECOND);
        for identity in ["bob", "carol"] {
            assert_eq!(world.clients[identity].receives(), ["cam"], "dual: {dual}");
            let forwarded = world.forwarded(identity);
            assert_eq!(forwarded[0].1.codecs, [codec]);
            let [track] = &world.clients[identity].people["alice"].tracks[..] else { panic!() };
            assert_eq!((track.sid.as_str(), track.layers.len()), (sid.as_str(), 1));
            assert_eq!(track.codecs[0].mime_type, mime_type);
        }
        // It is told once; the room would not believe another.
        starts(&mut world, "cam", Codec::Av1);
        assert_eq!(known(&world, "bob")[0].1, mime_type);
    }
}

#[test]
fn simulcast_keeps_its_layers_and_a_scalable_stream_has_its_own() {
    let spatial = proto::video_layer::Mode::MultipleSpatialLayersPerStream;
    let streams = proto::video_layer::Mode::OneSpatialLayerPerStream;
    for (in_layers, codec, layers, mode) in [
        (true, Codec::Vp8, 3, streams),
        (true, Codec::H264, 3, streams),
        (false, Codec::Vp9, 1, spatial),
        (false, Codec::H264, 1, streams),
    ] {
        let mut world = World::new();
        world.join("alice");
        world.join("bob");
        world.publish("alice", unnamed("cam", in_layers));
        starts(&mut world, "cam", codec);
        let track = &world.clients["bob"].people["alice"].tracks[0];
        assert_eq!((track.layers.len(), track.simulcast), (layers, in_layers), "{codec:?}");
        assert_eq!(track.codecs[0].video_layer_mode(), mode, "{codec:?}");
        let rids: Vec<_> = track.layers.iter().map(|layer| layer.rid.as_str()).collect();
        assert_eq!(rids, if in_layers { vec!["q", "h", "f"] } else { vec![""] });
    }
}

#[test]
fn the_only_codec_that_is_offered_needs_no_packet() {
    let mut world = World::new();
    world.join("alice");
    let offered = video("cam", proto::TrackSource::Camera, "av1", Vec::new());
    world.says("alice", Request::AddTrack(unnamed("cam", false)));
    let offer = world.clients.get_mut("alice").unwrap().offer_with(&offered);
    world.says("alice", Request::Offer(offer));
    assert_eq!(known(&world, "alice"), [("cam".to_owned(), "video/AV1".to_owned())]);
}

#[test]
fn a_track_that_ends_before_it_is_known_was_never_there() {
    let mut world = call();
    let publication = world.publication("alice", "cam");
    world.unpublish("alice", "cam");
    assert!(world.plane.publications.is_empty());
    world.event(Event::PublicationStarted { publication, codec: Codec::H264 });
    world.advance(SECOND);
    assert_eq!(known(&world, "bob"), []);
    // And so is one whose owner leaves.
    world.publish("alice", unnamed("other", false));
    let publication = world.publication("alice", "other");
    world.says("alice", Request::Leave(proto::LeaveRequest::default()));
    world.event(Event::PublicationStarted { publication, codec: Codec::H264 });
    world.advance(SECOND);
    assert!(!world.clients["bob"].knows("alice"));
    assert!(world.plane.publications.is_empty() && world.plane.subscriptions.is_empty());
}

#[test]
fn another_track_on_the_same_m_line_is_decided_anew() {
    for is_decided in [false, true] {
        let mut world = call();
        let before = world.publication("alice", "cam");
        if is_decided {
            starts(&mut world, "cam", Codec::Vp8);
        }
        let other = unnamed("other", false);
        world.says("alice", Request::AddTrack(other.clone()));
        let offer = world.clients.get_mut("alice").unwrap().offer_instead("cam", &other);
        world.says("alice", Request::Offer(offer));
        world.event(Event::PublicationStarted { publication: before, codec: Codec::Vp8 });
        world.advance(SECOND);
        assert_eq!(known(&world, "bob"), [], "decided before: {is_decided}");
        starts(&mut world, "other", Codec::H264);
        world.advance(SECOND);
        assert_eq!(known(&world, "bob"), [("other".to_owned(), "video/H264".to_owned())]);
        assert_eq!(world.clients["bob"].receives(), ["other"]);
    }
}

#[test]
fn rounds_and_a_resume_in_between_change_nothing() {
    let mut world = call();
    world.publish("alice", microphone("mic"));
    assert!(answer(&world, "alice").contains(" 96 97 98 99 108 109\r\n"));
    world.advance(SECOND);
    assert_eq!(known(&world, "bob"), [("mic".to_owned(), "audio/opus".to_owned())]);
    let sid = world.clients["alice"].published_sid("cam").unwrap();
    world.cut("alice");
    world.resume("alice");
    let track = proto::TrackInfo { sid, ..Default::default() };
    let published = proto::TrackPublishedResponse { cid: "cam".to_owned(), track: Some(track) };
    let state = proto::SyncState { publish_tracks: vec![published], ..Default::default() };
    world.says("alice", Request::SyncState(state));
    assert_eq!(world.clients["alice"].dismissal(), None);
    let offer = world.clients.get_mut("alice").unwrap().restart_offer();
    world.says("alice", Request::Offer(offer));
    assert!(answer(&world, "alice").contains(" 96 97 98 99 108 109\r\n"));
    starts(&mut world, "cam", Codec::H264);
    world.advance(SECOND);
    assert_eq!(world.clients["bob"].receives(), ["cam", "mic"]);
}

#[test]
fn it_is_muted_and_unmuted_like_any_other() {
    for starts_muted in [false, true] {
        let mut world = World::new();
        world.join("alice");
        world.join("bob");
        let sid = world.publish("alice", proto::AddTrackRequest { muted: true, ..unnamed("cam", false) });
        let publication = world.publication("alice", "cam");
        assert!(world.plane.muted[&publication]);
        if starts_muted {
            starts(&mut world, "cam", Codec::H264);
            assert!(world.clients["bob"].people["alice"].tracks[0].muted);
        }
        world.says("alice", Request::Mute(proto::MuteTrackRequest { sid, muted: false }));
        assert!(!world.plane.muted[&publication]);
        assert_eq!(known(&world, "bob").len(), usize::from(starts_muted));
        starts(&mut world, "cam", Codec::H264);
        assert!(!world.clients["bob"].people["alice"].tracks[0].muted);
    }
}

#[test]
fn who_may_have_it_is_told_once_it_is_known() {
    let mut world = call();
    let told = |world: &World| {
        world.clients["bob"].all(|message| match message {
            Response::SubscriptionPermissionUpdate(update) => Some(update.allowed),
            _ => None,
        })
    };
    world.says("alice", Request::SubscriptionPermission(proto::SubscriptionPermission::default()));
    world.advance(SECOND);
    assert_eq!(told(&world), [false; 0]);
    starts(&mut world, "cam", Codec::H264);
    world.advance(SECOND);
    assert_eq!(told(&world), [false]);
    assert!(world.clients["bob"].receives().is_empty());
}

#[test]
fn a_publisher_counts_once_it_is_known_to_be_one() {
    let mut world = call();
    let publishers = |world: &World| {
        world.clients["bob"].last(|message| match message {
            Response::RoomUpdate(update) => update.room.as_ref().map(|room| room.num_publishers),
            _ => None,
        })
    };
    world.advance(10 * SECOND);
    assert_eq!(publishers(&world), Some(0));
    starts(&mut world, "cam", Codec::H264);
    world.advance(10 * SECOND);
    assert_eq!(publishers(&world), Some(1));
}
