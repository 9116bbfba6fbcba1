//! Leaving, being replaced, being told to go.

use livekit_protocol as proto;
use livekit_protocol::DisconnectReason;
use livekit_protocol::leave_request::Action;
use livekit_protocol::participant_info::State;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use livekit_protocol::simulate_scenario::Scenario;
use weir_livekit::supervision::{EvictionReason, LeaveReason, ParticipantEvent};
use weir_units::event::{Event, PeerLostReason};

use crate::harness::{Joining, SECOND, World};
use crate::tracks::{camera, microphone};

/// How somebody's end was announced to another.
fn farewells(world: &World, to: &str) -> Vec<(String, DisconnectReason)> {
    let updates = world.clients[to].all(|message| match message {
        Response::Update(update) => Some(update.participants.clone()),
        _ => None,
    });
    let gone = updates.into_iter().flatten().filter(|person| person.state() == State::Disconnected);
    gone.map(|person| (person.identity.clone(), person.disconnect_reason())).collect()
}

fn simulate(world: &mut World, identity: &'static str, scenario: Scenario) {
    world.says(identity, Request::Simulate(proto::SimulateScenario { scenario: Some(scenario) }));
}

#[test]
fn a_leave_is_told_at_once_and_takes_tracks_and_peers_along() {
    for dual in [false, true] {
        let mut world = World::new();
        let alice = Joining::new("alice");
        world.join_as(if dual { alice.dual() } else { alice }).unwrap();
        world.publish("alice", camera("cam"));
        world.join("bob");
        world.advance(SECOND);
        assert_eq!(world.forwarded("bob").len(), 1);
        let peers = world.peers("alice");
        world.says("alice", Request::Leave(proto::LeaveRequest::default()));
        assert_eq!(farewells(&world, "bob"), [("alice".to_owned(), DisconnectReason::ClientInitiated)]);
        assert!(world.clients["alice"].closed);
        assert!(world.plane.publications.is_empty() && world.plane.subscriptions.is_empty());
        assert_eq!(world.plane.removed, peers, "dual: {dual}");
    }
}

#[test]
fn the_same_identity_again_sends_the_first_away() {
    let mut world = World::new();
    world.join("alice");
    world.join("bob");
    world.join_as(Joining::new("alice").called("alice again")).unwrap();
    let first = &world.clients["alice"];
    assert_eq!(first.dismissal(), Some((DisconnectReason::DuplicateIdentity, Action::Disconnect)));
    assert!(first.closed);
    let again = world.clients["alice again"].sid();
    assert_eq!(world.clients["bob"].people["alice"].sid, again);
    assert_eq!(farewells(&world, "alice again"), [], "clients would take it for news of themselves");
}

#[test]
fn lost_media_end_the_session_and_the_client_is_to_start_over() {
    let mut world = World::new();
    world.join("alice");
    world.join("bob");
    let peer = world.peers("alice")[0];
    world.event(Event::PeerLost { peer, reason: PeerLostReason::Timeout });
    assert_eq!(
        world.clients["alice"].dismissal(),
        Some((DisconnectReason::ConnectionTimeout, Action::Reconnect))
    );
    assert_eq!(farewells(&world, "bob"), [("alice".to_owned(), DisconnectReason::ConnectionTimeout)]);
}

#[test]
fn old_clients_are_told_by_the_flag_alone() {
    let mut world = World::new();
    world.join_as(Joining::new("alice").with(|parameters| parameters.client.protocol = 9)).unwrap();
    let peer = world.peers("alice")[0];
    world.event(Event::PeerLost { peer, reason: PeerLostReason::Timeout });
    let leave = world.clients["alice"].last(|message| match message {
        Response::Leave(leave) => Some(leave.clone()),
        _ => None,
    });
    let leave = leave.unwrap();
    assert!(leave.can_reconnect);
    assert_eq!(leave.action, 0);
}

#[test]
fn shutting_down_tells_everybody_why() {
    let mut world = World::new();
    world.join("alice");
    world.join_as(Joining::new("bob").dual()).unwrap();
    world.room.shut_down(world.now);
    world.settle();
    for identity in ["alice", "bob"] {
        let client = &world.clients[identity];
        assert_eq!(client.dismissal(), Some((DisconnectReason::ServerShutdown, Action::Disconnect)));
        assert!(client.closed);
    }
    assert_eq!(world.room.participants(), 0);
}

#[test]
fn scenarios_that_test_suites_ask_for_are_played() {
    for (scenario, expected) in [
        (Scenario::ServerLeave(true), (DisconnectReason::ServerShutdown, Action::Disconnect)),
        (Scenario::LeaveRequestFullReconnect(true), (DisconnectReason::StateMismatch, Action::Reconnect)),
        (Scenario::NodeFailure(true), (DisconnectReason::StateMismatch, Action::Reconnect)),
        (Scenario::Migration(true), (DisconnectReason::Migration, Action::Resume)),
    ] {
        let mut world = World::new();
        world.join("alice");
        simulate(&mut world, "alice", scenario);
        assert_eq!(world.clients["alice"].dismissal(), Some(expected));
    }
    let mut world = World::new();
    world.join("alice");
    simulate(&mut world, "alice", Scenario::Migration(true));
    world.resume("alice");
    assert_eq!(world.clients["alice"].kinds()[0], "Reconnect");
}

#[test]
fn a_simulated_speaker_speaks_for_as_long_as_was_asked() {
    let mut world = World::new();
    world.join("alice");
    world.join("bob");
    world.publish("alice", microphone("mic"));
    world.advance(SECOND);
    simulate(&mut world, "alice", Scenario::SpeakerUpdate(3));
    let speaking = |world: &World| {
        world.clients["bob"].all(|message| match message {
            Response::SpeakersChanged(changed) => Some(changed.speakers[0].active),
            _ => None,
        })
    };
    assert_eq!(speaking(&world), [true]);
    world.advance(2 * SECOND);
    assert_eq!(speaking(&world), [true]);
    world.advance(2 * SECOND);
    assert_eq!(speaking(&world), [true, false]);
}

#[test]
fn a_simulated_cut_comes_with_the_next_resume() {
    for (scenario, first) in [
        (Scenario::DisconnectSignalOnResume(true), Some("Reconnect")),
        (Scenario::DisconnectSignalOnResumeNoMessages(true), None),
    ] {
        let mut world = World::new();
        world.join("alice");
        simulate(&mut world, "alice", scenario);
        world.cut("alice");
        world.resume("alice");
        let alice = &world.clients["alice"];
        assert!(alice.closed);
        assert_eq!(alice.kinds().first().map(String::as_str), first);
        world.resume("alice");
        assert!(!world.clients["alice"].closed, "once is enough");
    }
}

#[test]
fn an_eviction_ends_media_at_once_even_of_a_client_that_is_cut_off() {
    let mut world = World::new();
    world.join("alice");
    world.publish("alice", camera("cam"));
    world.join("bob");
    world.advance(SECOND);
    world.cut("alice");
    let peers = world.peers("alice");
    assert!(world.room.evict(world.now, "alice", EvictionReason::ParticipantRemoved));
    world.settle();
    assert_eq!(world.plane.removed, peers);
    assert!(world.plane.publications.is_empty() && world.plane.subscriptions.is_empty());
    assert_eq!(farewells(&world, "bob"), [("alice".to_owned(), DisconnectReason::ParticipantRemoved)]);
    assert!(!world.room.evict(world.now, "alice", EvictionReason::ParticipantRemoved));
    world.resume("alice");
    assert_eq!(
        world.clients["alice"].dismissal(),
        Some((DisconnectReason::StateMismatch, Action::Reconnect)),
        "there is nothing to come back to"
    );
}

#[test]
fn observers_hear_of_every_session_from_its_beginning_to_its_end() {
    use ParticipantEvent::{Connected, CutOff, Joined, Left, Resumed};
    let mut world = World::new();
    world.join("alice");
    world.cut("alice");
    world.resume("alice");
    world.join_as(Joining::new("alice").called("alice again")).unwrap();
    let peer = world.peers("alice again")[0];
    world.event(Event::PeerLost { peer, reason: PeerLostReason::Timeout });
    world.join_as(Joining::new("bob").unconnected()).unwrap();
    world.cut("bob");
    world.join_as(Joining::new("bob").called("bob again")).unwrap();
    world.says("bob again", Request::Leave(proto::LeaveRequest::default()));
    let told = |of: &str| -> Vec<ParticipantEvent> {
        world.happened.iter().filter(|(identity, _)| identity == of).map(|(_, event)| *event).collect()
    };
    let replaced = [Joined, Connected, CutOff, Resumed, Left(LeaveReason::Replaced)];
    let lost = [Joined, Connected, Left(LeaveReason::Lost)];
    assert_eq!(told("alice"), [&replaced[..], &lost].concat());
    let never_connected = [Joined, Left(LeaveReason::Lost)];
    assert_eq!(told("bob"), [&never_connected[..], &[Joined, Connected, Left(LeaveReason::Own)]].concat());
}
