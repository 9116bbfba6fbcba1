//! What everybody is told of everybody.

use livekit_protocol as proto;
use livekit_protocol::request_response::Reason;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use weir_livekit::token::{self, Keys};
use weir_units::event::{Event, LineQuality, Shortage};
use weir_units::ids::ConferenceId;

use crate::harness::{Joining, SECOND, World};
use crate::tracks::{camera, microphone};

fn renamer(identity: &'static str) -> Joining {
    Joining::new(identity).grant(|grant| grant.can_update_own_metadata = Some(true))
}

#[test]
fn a_newcomer_is_told_at_once() {
    let mut world = World::new();
    world.join("alice");
    world.join_as(Joining::new("bob").unconnected()).unwrap();
    assert!(world.clients["alice"].knows("bob"));
    assert!(world.clients["bob"].knows("alice"));
}

#[test]
fn how_many_are_here_and_publish_is_told_once_five_seconds_after_it_changed() {
    let told = |world: &World, identity: &str| {
        world.clients[identity].all(|message| match message {
            Response::RoomUpdate(update) => {
                update.room.as_ref().map(|room| (room.num_participants, room.num_publishers))
            }
            _ => None,
        })
    };
    let mut world = World::new();
    world.join("alice");
    world.advance(10 * SECOND);
    let before = told(&world, "alice");
    for identity in ["bob", "carol"] {
        world.join(identity);
    }
    world.join_as(Joining::new("eve").grant(|grant| grant.hidden = true)).unwrap();
    world.publish("bob", microphone("mic"));
    world.advance(4 * SECOND);
    assert_eq!(told(&world, "alice"), before);
    world.says("carol", Request::Leave(proto::LeaveRequest::default()));
    world.advance(20 * SECOND);
    for identity in ["bob", "eve"] {
        assert_eq!(told(&world, identity), [(2, 1)], "{identity}");
    }
    assert_eq!(told(&world, "alice")[before.len()..], [(2, 1)]);
}

#[test]
fn what_others_need_to_know_of_a_client_is_passed_on() {
    let mut world = World::new();
    world.join("bob");
    let mut joining = Joining::new("alice").with(|parameters| {
        parameters.client.client_protocol = 3;
        parameters.client.capabilities = vec![1];
    });
    joining.claims.kind = "agent".to_owned();
    world.join_as(joining).unwrap();
    let request = proto::AddTrackRequest {
        encryption: proto::encryption::Type::Gcm as i32,
        packet_trailer_features: vec![0, 1],
        ..camera("cam")
    };
    world.publish("alice", request);
    let alice = &world.clients["bob"].people["alice"];
    assert_eq!((alice.client_protocol, alice.capabilities.as_slice()), (3, &[1][..]));
    assert_eq!(alice.kind(), proto::participant_info::Kind::Agent);
    assert!(alice.is_publisher);
    let track = &alice.tracks[0];
    assert_eq!(track.encryption(), proto::encryption::Type::Gcm);
    assert_eq!(track.packet_trailer_features, [0, 1]);
    assert_eq!(track.source(), proto::TrackSource::Camera);
    assert_eq!((track.mime_type.as_str(), track.layers.len()), ("video/VP8", 3));
    assert_eq!(track.layers[2].rid, "f");
}

#[test]
fn names_metadata_and_attributes_change_and_are_told_before_the_answer() {
    let mut world = World::new();
    world.join_as(renamer("alice")).unwrap();
    world.join("bob");
    let request = |name: &str, metadata: &str, attributes: &[(&str, &str)], request_id| {
        Request::UpdateMetadata(proto::UpdateParticipantMetadata {
            name: name.to_owned(),
            metadata: metadata.to_owned(),
            attributes: attributes.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            request_id,
        })
    };
    world.says("alice", request("Alice", "", &[("a", "1"), ("b", "2")], 7));
    world.says("alice", request("", "meta", &[("a", "")], 8));
    let alice = &world.clients["bob"].people["alice"];
    assert_eq!((alice.name.as_str(), alice.metadata.as_str()), ("Alice", "meta"));
    assert_eq!(alice.attributes.len(), 1, "an empty value removes: {:?}", alice.attributes);
    let kinds = world.clients["alice"].kinds();
    let answered = kinds.iter().rposition(|kind| kind == "RequestResponse").unwrap();
    assert_eq!(kinds[answered - 1], "Update", "clients look for their value when the answer comes");
    let ids = world.clients["alice"].all(|message| match message {
        Response::RequestResponse(response) => Some((response.request_id, response.reason())),
        _ => None,
    });
    assert_eq!(ids, [(7, Reason::Ok), (8, Reason::Ok)]);
}

#[test]
fn what_is_too_long_is_refused_and_changes_nothing() {
    let mut world = World::new();
    world.join_as(renamer("alice")).unwrap();
    let before = world.clients["alice"].me().clone();
    for request in [
        proto::UpdateParticipantMetadata { name: "x".repeat(257), ..Default::default() },
        proto::UpdateParticipantMetadata { metadata: "x".repeat(512 * 1024 + 1), ..Default::default() },
        proto::UpdateParticipantMetadata {
            attributes: [("k".to_owned(), "x".repeat(64 * 1024))].into(),
            ..Default::default()
        },
    ] {
        world.says("alice", Request::UpdateMetadata(request));
        assert_eq!(world.clients["alice"].verdict(), Some(Reason::LimitExceeded));
    }
    assert_eq!(*world.clients["alice"].me(), before);
    assert_eq!(world.room.counters.refused_requests, 3);
}

#[test]
fn a_new_name_outlives_a_full_reconnect() {
    let mut world = World::new();
    world.join_as(renamer("alice")).unwrap();
    let request = proto::UpdateParticipantMetadata { name: "Alice".to_owned(), ..Default::default() };
    world.says("alice", Request::UpdateMetadata(request));
    let token = world.clients["alice"].last(|message| match message {
        Response::RefreshToken(token) => Some(token.clone()),
        _ => None,
    });
    let keys = Keys::new([("key".to_owned(), "a secret of thirty-two characters".to_owned())]);
    let claims = token::verify(&keys, &token.unwrap(), world.now.unix_ms as u64 / 1000).unwrap();
    assert_eq!(claims.name, "Alice");
}

#[test]
fn very_old_clients_get_no_answers_they_do_not_know() {
    let mut world = World::new();
    world.join_as(renamer("alice").with(|parameters| parameters.client.protocol = 9)).unwrap();
    let request = proto::UpdateParticipantMetadata { name: "A".to_owned(), ..Default::default() };
    world.says("alice", Request::UpdateMetadata(request));
    assert_eq!(world.clients["alice"].verdict(), None);
    assert_eq!(world.clients["alice"].me().name, "A");
}

#[test]
fn speakers_are_told_in_eighths_and_once_when_they_stop() {
    let mut world = World::new();
    world.join("alice");
    world.publish("alice", microphone("mic"));
    world.join("bob");
    world.join_as(Joining::new("carol").with(|parameters| parameters.auto_subscribe = false)).unwrap();
    world.advance(SECOND);
    let publication = world.publication("alice", "mic");
    let conference = ConferenceId(1);
    for level in [0.30, 0.31, 0.40] {
        world.event(Event::Speakers { conference, speakers: vec![(publication, level)] });
    }
    world.event(Event::Speakers { conference, speakers: vec![] });
    world.event(Event::Speakers { conference, speakers: vec![] });
    let heard = |identity: &str| {
        world.clients[identity].all(|message| match message {
            Response::SpeakersChanged(changed) => {
                let [speaker] = &changed.speakers[..] else { panic!("{changed:?}") };
                Some((speaker.level, speaker.active))
            }
            _ => None,
        })
    };
    let expected = [(0.375, true), (0.5, true), (0.0, false)];
    assert_eq!(heard("bob"), expected);
    assert_eq!(heard("alice"), expected, "of oneself as well");
    assert_eq!(heard("carol"), [], "only of those one listens to");
}

#[test]
fn whoever_unpublishes_or_leaves_while_speaking_alone_is_silent_before_it_is_gone() {
    for leaves in [false, true] {
        let mut world = World::new();
        world.join("alice");
        world.publish("alice", microphone("mic"));
        world.join("bob");
        world.advance(SECOND);
        let publication = world.publication("alice", "mic");
        let speakers = vec![(publication, 0.5)];
        world.event(Event::Speakers { conference: ConferenceId(1), speakers });
        let alice = world.clients["alice"].sid();
        match leaves {
            true => world.says("alice", Request::Leave(proto::LeaveRequest::default())),
            false => world.unpublish("alice", "mic"),
        }
        let bob = &world.clients["bob"];
        let told = bob.heard.iter().position(|message| match message {
            Response::SpeakersChanged(changed) => changed.speakers.iter().any(|speaker| !speaker.active),
            _ => false,
        });
        let gone = bob.heard.iter().position(|message| match message {
            Response::Update(update) => update.participants.iter().any(|person| {
                person.sid == alice && person.state() == proto::participant_info::State::Disconnected
            }),
            _ => false,
        });
        assert!(told.is_some(), "leaves: {leaves}");
        assert_eq!(gone.is_some(), leaves);
        assert!(gone.is_none_or(|gone| told < Some(gone)), "clients ignore it of somebody who is gone");
    }
}

#[test]
fn a_bad_line_is_told_as_poor_and_never_as_lost() {
    let mut world = World::new();
    world.join("alice");
    world.publish("alice", camera("cam"));
    world.join("bob");
    world.advance(SECOND);
    let peer = world.peers("alice")[0];
    let good = LineQuality { round_trip_ms: 20.0, jitter_ms: 1.0, ..LineQuality::default() };
    let dead = LineQuality { loss: 1.0, round_trip_ms: 5_000.0, jitter_ms: 500.0, ..good };
    for quality in [good, good, dead] {
        world.event(Event::Quality { peer, quality });
    }
    let alice = world.clients["alice"].sid();
    for identity in ["alice", "bob"] {
        let told = world.clients[identity].all(|message| match message {
            Response::ConnectionQuality(update) => Some(update.updates[0].clone()),
            _ => None,
        });
        assert!(told.iter().all(|quality| quality.participant_sid == alice));
        let told: Vec<_> = told.iter().map(|quality| quality.quality()).collect();
        assert_eq!(told, [proto::ConnectionQuality::Excellent, proto::ConnectionQuality::Poor]);
    }
}

#[test]
fn of_two_lines_the_worse_is_told() {
    let mut world = World::new();
    world.join_as(Joining::new("alice").dual()).unwrap();
    world.publish("alice", camera("cam"));
    let [publisher, subscriber] = world.peers("alice")[..] else { panic!("two peer connections") };
    let good = LineQuality { round_trip_ms: 20.0, jitter_ms: 1.0, ..LineQuality::default() };
    let short = LineQuality { shortage: Shortage::Paused, ..good };
    for (peer, quality) in [
        (publisher, good),
        (subscriber, short),
        (publisher, LineQuality { loss: 0.01, ..good }),
        (subscriber, good),
    ] {
        world.event(Event::Quality { peer, quality });
    }
    let told = world.clients["alice"].all(|message| match message {
        Response::ConnectionQuality(update) => Some(update.updates[0].quality()),
        _ => None,
    });
    use proto::ConnectionQuality::{Excellent, Poor};
    assert_eq!(told, [Excellent, Poor, Excellent], "and nothing when the better one changes");
}

#[test]
fn whoever_subscribes_later_learns_how_good_the_line_is() {
    let mut world = World::new();
    world.join("bob");
    world.join("alice");
    let peer = world.peers("alice")[0];
    let quality = LineQuality { round_trip_ms: 20.0, jitter_ms: 1.0, ..LineQuality::default() };
    world.event(Event::Quality { peer, quality }); // before anybody subscribes
    world.publish("alice", camera("cam"));
    world.advance(SECOND);
    let told = world.clients["bob"].last(|message| match message {
        Response::ConnectionQuality(update) => Some(update.updates[0].quality()),
        _ => None,
    });
    assert_eq!(told, Some(proto::ConnectionQuality::Excellent));
}

#[test]
fn pings_are_answered_both_ways() {
    let mut world = World::new();
    world.join("alice");
    world.says("alice", Request::Ping(5));
    world.says("alice", Request::PingReq(proto::Ping { timestamp: 42, rtt: 1 }));
    let heard = &world.clients["alice"].heard;
    assert!(heard.contains(&Response::Pong(world.now.unix_ms)));
    let pong = proto::Pong { last_ping_timestamp: 42, timestamp: world.now.unix_ms };
    assert!(heard.contains(&Response::PongResp(pong)));
}

#[test]
fn mute_is_told_with_the_track() {
    let mut world = World::new();
    world.join("alice");
    world.join("bob");
    let sid = world.publish("alice", microphone("mic"));
    let publication = world.publication("alice", "mic");
    for muted in [true, false] {
        world.says("alice", Request::Mute(proto::MuteTrackRequest { sid: sid.clone(), muted }));
        assert_eq!(world.clients["bob"].people["alice"].tracks[0].muted, muted);
        assert_eq!(world.plane.muted[&publication], muted);
    }
    world.says("bob", Request::Mute(proto::MuteTrackRequest { sid, muted: true }));
    assert!(!world.clients["bob"].people["alice"].tracks[0].muted, "only its own tracks");
}
