//! Joining.

use livekit_protocol as proto;
use livekit_protocol::DisconnectReason;
use livekit_protocol::leave_request::Action;
use livekit_protocol::participant_info::State;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use weir_livekit::room::{JoinError, Limits, RoomConfig};
use weir_livekit::token::{self, Keys};
use weir_units::event::{Event, PeerLostReason};

use crate::harness::{Joining, SECOND, World};
use crate::tracks::{camera, microphone};

/// What real clients offer with their join.
const OFFERS: [(&str, &str); 4] = [
    ("livekit-client", include_str!("../../../../sfu/negotiation/testdata/web-2.23.0.sdp")),
    ("Element Call", include_str!("../../../../sfu/negotiation/testdata/element-call-0.26.1.sdp")),
    ("Python", include_str!("../../../../sfu/negotiation/testdata/python-1.2.1.sdp")),
    ("rtc-node", include_str!("../../../../sfu/negotiation/testdata/rtc-node-1.1.0.sdp")),
];

fn join_response(world: &World, identity: &str) -> proto::JoinResponse {
    match world.clients[identity].heard.first() {
        Some(Response::Join(join)) => join.clone(),
        other => panic!("the first message is a join, not {other:?}"),
    }
}

#[test]
fn with_one_peer_connection_the_offer_in_the_join_is_answered_without_waiting() {
    let mut world = World::new();
    world.join_as(Joining::new("alice").unconnected()).unwrap();
    let kinds = world.clients["alice"].kinds();
    assert_eq!(kinds[..2], ["Join", "RefreshToken"]);
    assert!(kinds.contains(&"Answer".to_owned()), "{kinds:?}");
    assert!(!join_response(&world, "alice").subscriber_primary);
}

#[test]
fn with_one_peer_connection_who_only_watches_need_not_wait_before_offering() {
    let mut world = World::new();
    let joining = Joining::new("alice").grant(|grant| grant.can_publish = Some(false));
    world.join_as(joining.unconnected()).unwrap();
    assert!(join_response(&world, "alice").fast_publish);
}

#[test]
fn with_two_who_may_not_publish_gets_no_connection_to_publish_on_before_it_asks() {
    let mut world = World::new();
    let joining = Joining::new("alice").dual().grant(|grant| grant.can_publish = Some(false));
    world.join_as(joining.unconnected()).unwrap();
    assert!(!join_response(&world, "alice").fast_publish);
}

#[test]
fn with_two_the_room_offers_data_at_once_and_lets_the_client_publish_at_once() {
    let mut world = World::new();
    world.join_as(Joining::new("alice").dual().unconnected()).unwrap();
    let join = join_response(&world, "alice");
    assert!(join.subscriber_primary && join.fast_publish);
    let offer = world.clients["alice"].last(|message| match message {
        Response::Offer(offer) => Some(offer.clone()),
        _ => None,
    });
    let offer = offer.expect("the room offers");
    assert!(offer.id > 0, "0 means that ids are not supported");
    assert!(offer.sdp.contains("m=application"), "{}", offer.sdp);
}

#[test]
fn who_may_not_subscribe_is_primary_on_the_connection_it_publishes_on() {
    let mut world = World::new();
    let joining = Joining::new("alice").dual().grant(|grant| grant.can_subscribe = Some(false));
    world.join_as(joining.unconnected()).unwrap();
    assert!(!join_response(&world, "alice").subscriber_primary);
    assert!(!world.clients["alice"].kinds().contains(&"Offer".to_owned()));
    let offer = world.clients.get_mut("alice").unwrap().next_offer();
    world.says("alice", Request::Offer(offer));
    world.connect("alice");
    assert_eq!(world.clients["alice"].me().state(), State::Active);
}

#[test]
fn what_clients_cannot_do_without_is_in_the_join() {
    let mut world = World::new();
    world.join("alice");
    let join = join_response(&world, "alice");
    let info = join.server_info.unwrap();
    assert_eq!(info.protocol, 18, "another number changes how data channels are made");
    assert!(!info.version.is_empty(), "the web client refuses an unknown version");
    assert_eq!((join.ping_interval, join.ping_timeout), (5, 15));
    let me = join.participant.unwrap();
    assert!(me.permission.is_some_and(|may| may.can_publish && may.can_subscribe && may.can_publish_data));
    assert!(me.sid.starts_with("PA_") && join.room.unwrap().sid.starts_with("RM_"));
    assert_eq!(join.enabled_publish_codecs[0].mime, "video/VP8");
    assert!(join.sif_trailer.is_empty(), "no frames are injected");
}

#[test]
fn the_offers_of_real_clients_are_answered_with_what_others_send() {
    for (client, sdp) in OFFERS {
        let mut world = World::new();
        world.join("alice");
        world.publish("alice", camera("cam"));
        world.publish("alice", microphone("mic"));
        let offer = proto::SessionDescription {
            r#type: "offer".to_owned(),
            sdp: sdp.to_owned(),
            id: 0,
            ..Default::default()
        };
        let joining = Joining::new("bob").with(|parameters| parameters.offer = Some(offer));
        world.join_as(joining).unwrap_or_else(|error| panic!("{client}: {error}"));
        assert_eq!(world.clients["bob"].receives(), ["cam", "mic"], "{client}");
        assert_eq!(world.forwarded("bob").len(), 2, "{client}");
    }
}

#[test]
fn tracks_announced_with_the_join_are_matched_to_its_offer() {
    let mut world = World::new();
    world.join("bob");
    let mut offering = crate::client::Client::nobody();
    let offer = offering.offer_with(&camera("cam"));
    let joining = Joining::new("alice").with(|parameters| {
        parameters.add_tracks = vec![camera("cam")];
        parameters.offer = Some(offer);
    });
    world.join_as(joining.lines(offering)).unwrap();
    world.advance(SECOND);
    assert_eq!(world.clients["bob"].receives(), ["cam"]);
}

#[test]
fn is_told_active_once_the_media_connect() {
    let mut world = World::new();
    world.join("bob");
    world.join_as(Joining::new("alice").unconnected()).unwrap();
    assert_eq!(world.clients["bob"].people["alice"].state(), State::Joined);
    world.connect("alice");
    assert_eq!(world.clients["bob"].people["alice"].state(), State::Active);
}

#[test]
fn who_never_connects_is_let_go_after_a_minute() {
    let mut world = World::new();
    world.join_as(Joining::new("alice").unconnected()).unwrap();
    world.advance(59 * SECOND);
    assert_eq!(world.clients["alice"].dismissal(), None);
    world.advance(2 * SECOND);
    assert_eq!(world.clients["alice"].dismissal(), Some((DisconnectReason::JoinFailure, Action::Disconnect)));
    assert_eq!(world.room.participants(), 0);
}

#[test]
fn media_that_never_came_are_a_failed_join() {
    let mut world = World::new();
    world.join_as(Joining::new("alice").unconnected()).unwrap();
    let peer = world.peers("alice")[0];
    world.event(Event::PeerLost { peer, reason: PeerLostReason::Timeout });
    assert_eq!(world.clients["alice"].dismissal().unwrap().0, DisconnectReason::JoinFailure);
}

#[test]
fn a_full_room_takes_nobody_but_the_one_who_is_in() {
    let limits = Limits { participants: 2, ..Limits::default() };
    let mut world = World::with(RoomConfig { limits, ..RoomConfig::default() });
    world.join("alice");
    world.join("bob");
    assert_eq!(world.join_as(Joining::new("carol")), Err(JoinError::RoomFull));
    world.join_as(Joining::new("alice").called("alice again")).unwrap();
    world.cut("bob");
    world.resume("bob");
    assert_eq!(world.clients["bob"].dismissal(), None);
}

#[test]
fn metadata_and_attributes_come_from_the_token_and_then_from_the_client() {
    let mut world = World::new();
    let mut joining = Joining::new("alice").grant(|grant| grant.can_update_own_metadata = Some(true));
    joining.claims.metadata = "token's".to_owned();
    joining.claims.attributes =
        [("a", "1"), ("b", "1")].map(|(key, value)| (key.into(), value.into())).into();
    let joining = joining.with(|parameters| {
        parameters.metadata = "client's".to_owned();
        parameters.attributes = [("b".to_owned(), "2".to_owned())].into();
    });
    world.join_as(joining).unwrap();
    let me = world.clients["alice"].me();
    assert_eq!(me.metadata, "client's");
    assert_eq!((me.attributes["a"].as_str(), me.attributes["b"].as_str()), ("1", "2"));
}

#[test]
fn metadata_without_the_grant_refuse_the_join() {
    let mut world = World::new();
    let joining = Joining::new("alice").with(|parameters| parameters.metadata = "mine".to_owned());
    assert_eq!(world.join_as(joining), Err(JoinError::MetadataNotAllowed));
    let joining =
        Joining::new("alice").with(|parameters| parameters.attributes = [("a".into(), "b".into())].into());
    assert_eq!(world.join_as(joining), Err(JoinError::MetadataNotAllowed));
}

#[test]
fn the_token_is_refreshed_at_the_start_and_every_five_minutes_with_the_same_grants() {
    let mut world = World::new();
    world.join_as(Joining::new("alice").grant(|grant| grant.can_publish = Some(false))).unwrap();
    world.advance(601 * SECOND);
    let tokens = world.clients["alice"].all(|message| match message {
        Response::RefreshToken(token) => Some(token.clone()),
        _ => None,
    });
    assert_eq!(tokens.len(), 3);
    let keys = Keys::new([("key".to_owned(), "a secret of thirty-two characters".to_owned())]);
    let now = world.now.unix_ms as u64 / 1000;
    let claims = token::verify(&keys, &tokens[2], now + 600).unwrap();
    assert_eq!((claims.identity(), claims.video.room.as_str()), ("alice", "room"));
    assert_eq!(claims.video.can_publish, Some(false));
}

#[test]
fn a_refreshed_token_outlives_the_first() {
    let mut world = World::new();
    let mut joining = Joining::new("alice");
    joining.claims.exp = Some(world.now.unix_ms as u64 / 1000 + 1); // about to expire
    world.join_as(joining).unwrap();
    let token = world.clients["alice"].last(|message| match message {
        Response::RefreshToken(token) => Some(token.clone()),
        _ => None,
    });
    let keys = Keys::new([("key".to_owned(), "a secret of thirty-two characters".to_owned())]);
    let later = world.now.unix_ms as u64 / 1000 + 600;
    assert!(token::verify(&keys, &token.unwrap(), later).is_ok());
}

#[test]
fn a_refreshed_token_is_short_enough_to_come_back_with() {
    let refreshed = |metadata: usize, attribute: usize| {
        let mut world = World::new();
        let mut joining = Joining::new("alice");
        joining.claims.metadata = "m".repeat(metadata);
        joining.claims.attributes = [("a".to_owned(), "a".repeat(attribute))].into();
        world.join_as(joining).unwrap();
        let token = world.clients["alice"].last(|message| match message {
            Response::RefreshToken(token) => Some(token.clone()),
            _ => None,
        });
        let token = token.unwrap();
        assert!(token.len() <= 32 * 1024, "{} bytes", token.len());
        let keys = Keys::new([("key".to_owned(), "a secret of thirty-two characters".to_owned())]);
        let claims = token::verify(&keys, &token, world.now.unix_ms as u64 / 1000).unwrap();
        assert_eq!((claims.identity(), claims.video.room.as_str()), ("alice", "room"));
        (claims.metadata.len(), claims.attributes.values().map(String::len).sum::<usize>())
    };
    assert_eq!(refreshed(10_000, 10_000), (10_000, 10_000));
    assert_eq!(refreshed(500_000, 10_000), (0, 10_000));
    assert_eq!(refreshed(10_000, 60_000), (0, 0));
}

#[test]
fn an_empty_room_ends_after_its_time_out_and_one_that_was_left_sooner() {
    let world = World::new();
    assert!(!world.room.is_over(world.now.at + 299 * SECOND));
    assert!(world.room.is_over(world.now.at + 300 * SECOND));
    let mut world = World::new();
    world.join("alice");
    assert!(!world.room.is_over(world.now.at + 3_000 * SECOND));
    world.says("alice", Request::Leave(proto::LeaveRequest::default()));
    assert!(!world.room.is_over(world.now.at + 19 * SECOND));
    assert!(world.room.is_over(world.now.at + 20 * SECOND));
}
