//! What a token allows, and what a publisher does.

use livekit_protocol as proto;
use livekit_protocol::request_response::Reason;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;

use crate::harness::{Joining, SECOND, World};
use crate::tracks::{camera, microphone, screen};

#[test]
fn absent_grants_allow_everything_but_changing_oneself() {
    let mut world = World::new();
    world.join("alice");
    world.join("bob");
    world.publish("alice", camera("cam"));
    world.advance(SECOND);
    assert_eq!(world.clients["bob"].receives(), ["cam"]);
    let request = proto::UpdateParticipantMetadata { name: "A".to_owned(), ..Default::default() };
    world.says("alice", Request::UpdateMetadata(request));
    assert_eq!(world.clients["alice"].verdict(), Some(Reason::NotAllowed));
}

#[test]
fn who_may_not_publish_is_told_so() {
    let mut world = World::new();
    world.join_as(Joining::new("alice").grant(|grant| grant.can_publish = Some(false))).unwrap();
    assert!(!world.clients["alice"].me().permission.as_ref().unwrap().can_publish);
    world.says("alice", Request::AddTrack(camera("cam")));
    assert_eq!(world.clients["alice"].verdict(), Some(Reason::NotAllowed));
    // Sending all the same brings nobody anything.
    let offer = world.clients.get_mut("alice").unwrap().offer_with(&camera("cam"));
    world.says("alice", Request::Offer(offer));
    assert!(world.plane.publications.is_empty());
}

#[test]
fn a_list_of_sources_allows_these_and_no_others() {
    let mut world = World::new();
    let joining = Joining::new("alice").grant(|grant| {
        grant.can_publish = Some(false);
        grant.can_publish_sources = vec!["microphone".to_owned(), "screen_share".to_owned()];
    });
    world.join_as(joining).unwrap();
    let permission = world.clients["alice"].me().permission.clone().unwrap();
    assert!(permission.can_publish, "clients publish nothing at all without");
    let sources = [proto::TrackSource::Microphone as i32, proto::TrackSource::ScreenShare as i32];
    assert_eq!(permission.can_publish_sources, sources);
    world.publish("alice", microphone("mic"));
    world.publish("alice", screen("screen"));
    world.says("alice", Request::AddTrack(camera("cam")));
    assert_eq!(world.clients["alice"].verdict(), Some(Reason::NotAllowed));
}

#[test]
fn who_may_not_subscribe_gets_nothing_whatever_it_asks() {
    let mut world = World::new();
    world.join("alice");
    let sid = world.publish("alice", camera("cam"));
    world.join_as(Joining::new("bob").grant(|grant| grant.can_subscribe = Some(false))).unwrap();
    let request = proto::UpdateSubscription { track_sids: vec![sid], subscribe: true, ..Default::default() };
    world.says("bob", Request::Subscription(request));
    world.advance(SECOND);
    assert!(world.forwarded("bob").is_empty());
}

#[test]
fn the_hidden_are_seen_by_nobody_and_see_everybody() {
    let mut world = World::new();
    world.join("alice");
    world.publish("alice", camera("cam"));
    world.join_as(Joining::new("eve").grant(|grant| grant.hidden = true)).unwrap();
    world.advance(SECOND);
    let told = |message: &Response| matches!(message, Response::TrackSubscribed(_)).then_some(());
    assert!(world.clients["alice"].last(told).is_none(), "not even by the subscription");
    world.join("bob");
    world.advance(SECOND);
    assert!(!world.clients["alice"].knows("eve") && !world.clients["bob"].knows("eve"));
    assert!(world.clients["eve"].knows("bob"));
    assert_eq!(world.clients["eve"].receives(), ["cam"]);
    let room = world.clients["bob"].last(|message| match message {
        Response::Join(join) => join.room.clone(),
        _ => None,
    });
    assert_eq!(room.unwrap().num_participants, 2);
    world.says("eve", Request::Leave(proto::LeaveRequest::default()));
    assert!(world.clients["alice"].kinds().iter().all(|kind| kind != "Leave"));
}

#[test]
fn what_the_hidden_publish_reaches_nobody() {
    // Clients drop a track for good whose participant they do not know.
    let mut world = World::new();
    world.join("bob");
    world.join_as(Joining::new("eve").grant(|grant| grant.hidden = true)).unwrap();
    world.publish("eve", camera("cam"));
    world.advance(SECOND);
    assert!(world.forwarded("bob").is_empty());
}

#[test]
fn a_publisher_says_who_may_have_its_tracks() {
    let mut world = World::new();
    for identity in ["alice", "bob", "carol"] {
        world.join(identity);
    }
    let sid = world.publish("alice", camera("cam"));
    world.publish("alice", microphone("mic"));
    world.advance(SECOND);
    let permission = proto::SubscriptionPermission {
        all_participants: false,
        track_permissions: vec![
            proto::TrackPermission {
                participant_identity: "bob".to_owned(),
                track_sids: vec![sid.clone()],
                ..Default::default()
            },
            proto::TrackPermission {
                participant_sid: world.clients["carol"].sid(),
                all_tracks: true,
                ..Default::default()
            },
        ],
    };
    world.says("alice", Request::SubscriptionPermission(permission));
    world.advance(SECOND);
    assert_eq!(world.clients["bob"].receives(), ["cam"]);
    assert_eq!(world.clients["carol"].receives(), ["cam", "mic"]);
    let told = |world: &World, identity: &str| {
        world.clients[identity].all(|message| match message {
            Response::SubscriptionPermissionUpdate(update) => Some(update.allowed),
            _ => None,
        })
    };
    assert_eq!(told(&world, "bob"), [false]);
    assert_eq!(told(&world, "carol"), [true; 0]);
    world.says(
        "alice",
        Request::SubscriptionPermission(proto::SubscriptionPermission {
            all_participants: true,
            ..Default::default()
        }),
    );
    world.advance(SECOND);
    assert_eq!(told(&world, "bob"), [false, true]);
    assert_eq!(world.clients["bob"].receives(), ["cam", "mic"]);
}

#[test]
fn a_denied_subscription_is_told_again_to_whoever_asks_again_or_comes_back() {
    let mut world = World::new();
    world.join("alice");
    let sid = world.publish("alice", camera("cam"));
    world.join("bob");
    let told = |world: &World| {
        world.clients["bob"].all(|message| match message {
            Response::SubscriptionPermissionUpdate(update) => Some(update.allowed),
            _ => None,
        })
    };
    let permit = |all_participants| {
        let permission = proto::SubscriptionPermission { all_participants, ..Default::default() };
        Request::SubscriptionPermission(permission)
    };
    world.says("alice", permit(false));
    assert_eq!(told(&world), [false]);
    let tracks = proto::ParticipantTracks { track_sids: vec![sid.clone()], ..Default::default() };
    for (subscribe, expected) in [(false, 1), (true, 2)] {
        let request = proto::UpdateSubscription {
            track_sids: vec![sid.clone()],
            subscribe,
            participant_tracks: vec![tracks.clone()], // clients say it twice over
        };
        world.says("bob", Request::Subscription(request));
        assert_eq!(told(&world).len(), expected, "subscribe: {subscribe}");
    }
    for all in [true, false] {
        world.cut("bob");
        world.says("alice", permit(all));
        world.resume("bob");
        assert_eq!(told(&world), [all]);
    }
}

#[test]
fn who_comes_later_is_told_what_it_may_not_have() {
    let mut world = World::new();
    world.join("alice");
    world.says("alice", Request::SubscriptionPermission(proto::SubscriptionPermission::default()));
    let sid = world.publish("alice", camera("cam"));
    world.join("bob");
    world.advance(SECOND);
    let told = world.clients["bob"].all(|message| match message {
        Response::SubscriptionPermissionUpdate(update) => Some((update.track_sid.clone(), update.allowed)),
        _ => None,
    });
    assert_eq!(told, [(sid, false)]);
    assert!(world.forwarded("bob").is_empty());
}
