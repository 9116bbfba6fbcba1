//! What nobody's client says, and what becomes of it: an answer or nothing, and bounds on all that it could grow.

use livekit_protocol as proto;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use weir_livekit::ids::ConnectionId;
use weir_units::event::{Event, LineQuality, PeerLostReason};
use weir_units::ids::{ConferenceId, PeerId, PublicationId, SubscriptionId};
use weir_units::media::Codec;

use crate::harness::{Joining, SECOND, World};
use crate::tracks::camera;

#[test]
fn messages_of_connections_that_are_gone_change_nothing() {
    let mut world = World::new();
    world.join("alice");
    world.cut("alice");
    let connection = world.clients["alice"].connection;
    for connection in [connection, ConnectionId(999)] {
        world.room.handle_message(world.now, connection, Request::AddTrack(camera("cam")));
        world.room.handle_close(world.now, connection);
    }
    world.settle();
    assert!(world.plane.publications.is_empty());
    assert_eq!(world.room.participants(), 1);
}

#[test]
fn events_about_what_is_gone_change_nothing() {
    let mut world = World::new();
    world.join("alice");
    let heard = world.clients["alice"].heard.len();
    let (peer, publication, subscription) = (PeerId(999), PublicationId(999), SubscriptionId(999));
    for event in [
        Event::PeerConnected { peer },
        Event::PeerLost { peer, reason: PeerLostReason::Dtls },
        Event::ChannelOpen { peer, label: "_reliable".to_owned() },
        Event::Data { peer, label: "_reliable".to_owned(), payload: "x".into(), binary: true },
        Event::PublicationStarted { publication, codec: Codec::Vp8 },
        Event::SubscriptionStarted { subscription },
        Event::StreamState { subscription, paused: true },
        Event::LayersWanted { publication, layers: 7 },
        Event::Speakers { conference: ConferenceId(1), speakers: vec![(publication, 1.0)] },
        Event::Quality { peer, quality: LineQuality::default() },
    ] {
        world.event(event);
    }
    assert_eq!(world.clients["alice"].heard.len(), heard);
}

#[test]
fn an_offer_that_is_no_sdp_ends_the_session_and_not_the_room() {
    for sdp in ["", "v=0", "\0\0\0", "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"] {
        let mut world = World::new();
        world.join("alice");
        world.join("bob");
        let offer = proto::SessionDescription { sdp: sdp.to_owned(), id: 2, ..Default::default() };
        world.says("alice", Request::Offer(offer));
        assert!(world.clients["alice"].dismissal().is_some(), "{sdp:?}");
        assert!(!world.clients["bob"].knows("alice"));
        world.publish("bob", camera("cam"));
    }
}

#[test]
fn an_answer_that_was_not_asked_for_is_ignored_or_ends_the_session_that_sent_it() {
    let mut world = World::new();
    world.join("alice");
    world.join_as(Joining::new("bob").dual()).unwrap();
    let answer = proto::SessionDescription { sdp: "v=0".to_owned(), ..Default::default() };
    world.says("alice", Request::Answer(answer.clone()));
    assert_eq!(world.clients["alice"].dismissal(), None);
    world.says("bob", Request::Answer(answer));
    assert!(world.clients["alice"].dismissal().is_none());
}

#[test]
fn names_of_tracks_that_cannot_be_are_not_remembered() {
    let mut world = World::new();
    world.join("alice");
    let long = vec!["x".repeat(10_000); 10];
    let many: Vec<String> = (0..10_000).map(|number| format!("TR_{number}")).collect();
    for track_sids in [long, many] {
        let settings = proto::UpdateTrackSettings { track_sids: track_sids.clone(), ..Default::default() };
        world.says("alice", Request::TrackSetting(settings));
        let subscription = proto::UpdateSubscription { track_sids, subscribe: true, ..Default::default() };
        world.says("alice", Request::Subscription(subscription));
    }
    let refused = world.room.counters.refused_requests;
    assert_eq!(refused, 2 * (10 + 10_000 - 4_096));
}

#[test]
fn what_a_client_says_of_itself_is_cut_to_what_others_can_bear() {
    let mut world = World::new();
    world.join("bob");
    let joining = Joining::new("alice").with(|parameters| {
        parameters.client.capabilities = vec![1; 100_000];
    });
    world.join_as(joining).unwrap();
    let request = proto::AddTrackRequest {
        audio_features: vec![0; 100_000],
        packet_trailer_features: vec![0; 100_000],
        layers: vec![proto::VideoLayer::default(); 10_000],
        simulcast_codecs: vec![proto::SimulcastCodec::default(); 10_000],
        ..crate::tracks::microphone("mic")
    };
    world.publish("alice", request);
    let update = world.clients["bob"].last(|message| match message {
        Response::Update(update) => Some(prost::Message::encoded_len(update)),
        _ => None,
    });
    let bytes = update.unwrap();
    assert!(bytes < 10_000, "{bytes}");
}

#[test]
fn a_thousand_data_track_updates_are_no_work() {
    let mut world = World::new();
    world.join("alice");
    let update = proto::update_data_subscription::Update {
        track_sid: "DTR_none".to_owned(),
        subscribe: true,
        ..Default::default()
    };
    let request = proto::UpdateDataSubscription { updates: vec![update; 100_000] };
    world.says("alice", Request::UpdateDataSubscription(request));
    let told = world.clients["alice"].last(|message| match message {
        Response::DataTrackSubscriberHandles(handles) => Some(handles.sub_handles.len()),
        _ => None,
    });
    assert_eq!(told, Some(0));
}

#[test]
fn permissions_for_thousands_are_cut_to_the_bound() {
    let mut world = World::new();
    world.join("alice");
    world.join("bob");
    world.publish("alice", camera("cam"));
    let entry = |number: usize| proto::TrackPermission {
        participant_identity: format!("somebody {number}"),
        track_sids: vec!["TR_x".to_owned(); 20],
        ..Default::default()
    };
    let permission = proto::SubscriptionPermission {
        all_participants: false,
        track_permissions: (0..5_000).map(entry).collect(),
    };
    world.says("alice", Request::SubscriptionPermission(permission));
    world.advance(SECOND);
    assert!(world.forwarded("bob").is_empty());
}

#[test]
fn coming_and_going_leaves_nothing_behind() {
    let mut world = World::new();
    world.join("alice");
    for round in 0..200 {
        let name: &'static str = Box::leak(format!("bob {round}").into_boxed_str());
        world.join_as(Joining::new("bob").called(name)).unwrap();
        world.publish(name, camera("cam"));
        world.advance(SECOND);
    }
    assert_eq!(world.room.participants(), 2);
    assert_eq!(world.room.tracks(), 1);
    assert_eq!(world.plane.publications.len(), 1);
    assert_eq!(world.plane.subscriptions.len(), 1);
}
