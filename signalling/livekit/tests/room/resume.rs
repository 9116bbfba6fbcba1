//! Coming back after the WebSocket was cut.

use livekit_protocol as proto;
use livekit_protocol::DisconnectReason;
use livekit_protocol::leave_request::Action;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use weir_units::event::{Event, PeerLostReason};

use crate::harness::{Joining, SECOND, World};
use crate::tracks::{camera, microphone};

#[test]
fn media_outlive_the_websocket_however_long_it_is_gone() {
    for dual in [false, true] {
        let mut world = World::new();
        world.join("alice");
        let bob = Joining::new("bob");
        world.join_as(if dual { bob.dual() } else { bob }).unwrap();
        world.cut("bob");
        world.publish("alice", camera("cam"));
        world.advance(120 * SECOND);
        assert!(world.clients["alice"].knows("bob"), "dual: {dual}");
        world.resume("bob");
        world.advance(SECOND);
        assert_eq!(world.clients["bob"].dismissal(), None, "dual: {dual}");
        assert_eq!(world.clients["bob"].receives(), ["cam"], "dual: {dual}");
    }
}

#[test]
fn a_round_that_the_cut_interrupted_is_not_held_against_the_client() {
    let mut world = World::new();
    world.join("alice");
    world.join_as(Joining::new("bob").dual()).unwrap();
    world.clients.get_mut("bob").unwrap().negotiates = false;
    world.publish("alice", camera("cam"));
    world.advance(SECOND); // an offer is on its way
    world.cut("bob");
    world.advance(60 * SECOND);
    world.clients.get_mut("bob").unwrap().negotiates = true;
    world.resume("bob");
    world.advance(SECOND);
    assert_eq!(world.clients["bob"].receives(), ["cam"]);
}

#[test]
fn an_m_line_whose_end_the_client_never_saw_is_inactive_before_it_carries_another_track() {
    for dual in [false, true] {
        let mut world = World::new();
        world.join("alice");
        let bob = Joining::new("bob");
        world.join_as(if dual { bob.dual() } else { bob }).unwrap();
        for name in ["a", "b", "c"] {
            world.publish("alice", camera(name)); // all three m-lines of the join are taken
        }
        world.advance(SECOND);
        world.clients.get_mut("bob").unwrap().is_deaf = true;
        world.unpublish("alice", "a");
        world.advance(SECOND);
        if !dual {
            let offer = world.clients.get_mut("bob").unwrap().next_offer();
            world.says("bob", Request::Offer(offer));
        }
        world.cut("bob");
        world.publish("alice", camera("d"));
        world.resume("bob");
        if !dual {
            let offer = world.clients.get_mut("bob").unwrap().restart_offer();
            world.says("bob", Request::Offer(offer));
        }
        world.advance(SECOND);
        assert_eq!(world.clients["bob"].receives(), ["b", "c", "d"], "dual: {dual}");
    }
}

#[test]
fn everything_is_said_in_the_order_that_clients_expect() {
    let mut world = World::new();
    world.join("alice");
    world.join_as(Joining::new("bob").dual()).unwrap();
    world.cut("bob");
    world.resume("bob");
    let kinds = world.clients["bob"].kinds();
    assert_eq!(kinds[0], "Reconnect", "clients discard what comes before: {kinds:?}");
    let at = |kind: &str| {
        kinds.iter().position(|known| known == kind).unwrap_or_else(|| panic!("{kind}: {kinds:?}"))
    };
    assert!(at("Update") < at("RoomUpdate") && at("RoomUpdate") < at("RefreshToken"));
    assert!(at("RefreshToken") < at("Offer"), "with two peer connections ours restarts its ICE");
}

#[test]
fn with_two_peer_connections_the_offer_restarts_ice_and_nothing_else() {
    let mut world = World::new();
    world.join("alice");
    world.publish("alice", camera("cam"));
    world.join_as(Joining::new("bob").dual()).unwrap();
    world.advance(SECOND);
    let before = (world.clients["bob"].offered_ufrag.clone(), world.peers("bob"));
    let forwarded = world.forwarded("bob")[0].0;
    world.cut("bob");
    world.resume("bob");
    world.advance(SECOND);
    assert_ne!(world.clients["bob"].offered_ufrag, before.0);
    assert_eq!(world.peers("bob"), before.1, "the same peers, and so the same DTLS associations");
    assert_eq!(world.forwarded("bob")[0].0, forwarded, "the subscription goes on");
}

#[test]
fn with_one_peer_connection_the_clients_offer_restarts_ice_and_nothing_else() {
    let mut world = World::new();
    world.join("alice");
    world.publish("alice", camera("cam"));
    world.join("bob");
    world.advance(SECOND);
    let before = (world.clients["bob"].answered_ufrag.clone(), world.peers("bob"));
    let forwarded = world.forwarded("bob")[0].0;
    world.cut("bob");
    world.resume("bob");
    let offer = world.clients.get_mut("bob").unwrap().restart_offer();
    world.says("bob", Request::Offer(offer));
    assert_ne!(world.clients["bob"].answered_ufrag, before.0);
    assert_eq!(world.peers("bob"), before.1);
    assert_eq!(world.forwarded("bob")[0].0, forwarded);
}

#[test]
fn who_left_meanwhile_is_no_ghost() {
    let mut world = World::new();
    for identity in ["alice", "bob", "carol"] {
        world.join(identity);
    }
    world.cut("bob");
    world.says("carol", Request::Leave(proto::LeaveRequest::default()));
    world.advance(30 * SECOND);
    world.resume("bob");
    assert!(world.clients["bob"].knows("alice"));
    assert!(!world.clients["bob"].knows("carol"));
}

#[test]
fn who_left_and_came_again_is_there_once() {
    let mut world = World::new();
    world.join("alice");
    world.join("bob");
    world.cut("bob");
    world.says("alice", Request::Leave(proto::LeaveRequest::default()));
    world.join_as(Joining::new("alice").called("alice again")).unwrap();
    world.resume("bob");
    let sid = world.clients["alice again"].sid();
    assert_eq!(world.clients["bob"].people["alice"].sid, sid);
}

#[test]
fn an_unknown_session_is_told_to_start_over() {
    let mut world = World::new();
    world.join("alice");
    world.says("alice", Request::Leave(proto::LeaveRequest::default()));
    world.resume("alice");
    let alice = &world.clients["alice"];
    assert_eq!(alice.kinds(), ["Leave"], "and nothing before it");
    assert_eq!(alice.dismissal(), Some((DisconnectReason::StateMismatch, Action::Reconnect)));
    assert!(alice.closed);
}

#[test]
fn an_older_session_of_the_same_identity_cannot_take_over() {
    let mut world = World::new();
    world.join("alice");
    world.join_as(Joining::new("alice").called("alice again")).unwrap();
    world.resume("alice");
    assert_eq!(
        world.clients["alice"].dismissal(),
        Some((DisconnectReason::StateMismatch, Action::Reconnect))
    );
    assert_eq!(world.clients["alice again"].dismissal(), None);
}

#[test]
fn a_client_that_believes_something_published_that_is_not_starts_over() {
    let mut world = World::new();
    world.join("alice");
    let sid = world.publish("alice", camera("cam"));
    let state = |sid: &str| {
        let track = proto::TrackInfo { sid: sid.to_owned(), ..Default::default() };
        let published = proto::TrackPublishedResponse { cid: "cam".to_owned(), track: Some(track) };
        Request::SyncState(proto::SyncState { publish_tracks: vec![published], ..Default::default() })
    };
    world.cut("alice");
    world.resume("alice");
    world.says("alice", state(&sid));
    assert_eq!(world.clients["alice"].dismissal(), None);
    world.says("alice", state("TR_other"));
    assert_eq!(
        world.clients["alice"].dismissal(),
        Some((DisconnectReason::StateMismatch, Action::Reconnect))
    );
}

#[test]
fn what_the_client_disabled_or_left_stays_so() {
    let mut world = World::new();
    world.join("alice");
    let camera_sid = world.publish("alice", camera("cam"));
    let microphone_sid = world.publish("alice", microphone("mic"));
    world.join("bob");
    world.advance(SECOND);
    assert_eq!(world.clients["bob"].receives(), ["cam", "mic"]);
    let settings = proto::UpdateTrackSettings {
        track_sids: vec![camera_sid.clone()],
        width: 640,
        height: 360,
        ..Default::default()
    };
    world.says("bob", Request::TrackSetting(settings));
    world.cut("bob");
    world.resume("bob");
    world.says(
        "bob",
        Request::SyncState(proto::SyncState {
            track_sids_disabled: vec![camera_sid],
            subscription: Some(proto::UpdateSubscription {
                track_sids: vec![microphone_sid],
                subscribe: false,
                ..Default::default()
            }),
            ..Default::default()
        }),
    );
    world.advance(SECOND);
    assert_eq!(world.clients["bob"].receives(), ["cam"]);
    let wish = world.wish("bob", world.publication("alice", "cam"));
    assert!(!wish.enabled);
    assert_eq!(wish.max_layer.spatial, 1, "what it asked for before is not forgotten");
}

#[test]
fn who_stopped_speaking_meanwhile_is_heard_to_have_stopped() {
    let mut world = World::new();
    world.join("alice");
    world.publish("alice", microphone("mic"));
    world.join("bob");
    world.advance(SECOND);
    let publication = world.publication("alice", "mic");
    let conference = weir_units::ids::ConferenceId(1);
    world.event(Event::Speakers { conference, speakers: vec![(publication, 0.5)] });
    world.cut("bob");
    world.event(Event::Speakers { conference, speakers: vec![] });
    world.resume("bob");
    let alice = world.clients["alice"].sid();
    let speakers = world.clients["bob"].last(|message| match message {
        Response::SpeakersChanged(changed) => Some(changed.speakers.clone()),
        _ => None,
    });
    assert_eq!(speakers, Some(vec![proto::SpeakerInfo { sid: alice, level: 0.0, active: false }]));
}

#[test]
fn a_paused_stream_is_named_again() {
    let mut world = World::new();
    world.join("alice");
    let sid = world.publish("alice", camera("cam"));
    world.join("bob");
    world.advance(SECOND);
    let subscription = world.forwarded("bob")[0].0;
    world.cut("bob");
    world.event(Event::StreamState { subscription, paused: true });
    world.resume("bob");
    let states = world.clients["bob"].last(|message| match message {
        Response::StreamStateUpdate(update) => Some(update.stream_states.clone()),
        _ => None,
    });
    let states = states.expect("the state is told");
    assert_eq!((states[0].track_sid.as_str(), states[0].state()), (sid.as_str(), proto::StreamState::Paused));
}

#[test]
fn a_client_whose_media_died_with_its_signalling_leaves_the_room() {
    let mut world = World::new();
    world.join("alice");
    world.join("bob");
    world.cut("bob");
    let peer = world.peers("bob")[0];
    world.event(Event::PeerLost { peer, reason: PeerLostReason::Timeout });
    assert!(!world.clients["alice"].knows("bob"));
    world.resume("bob");
    assert_eq!(world.clients["bob"].dismissal(), Some((DisconnectReason::StateMismatch, Action::Reconnect)));
}

#[test]
fn a_client_that_never_had_media_is_gone_with_its_websocket() {
    let mut world = World::new();
    world.join("alice");
    world.join_as(Joining::new("bob").unconnected()).unwrap();
    world.cut("bob");
    assert!(!world.clients["alice"].knows("bob"));
}
