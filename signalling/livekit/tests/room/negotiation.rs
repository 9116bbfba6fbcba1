//! Rounds of negotiation: who offers when, and which m-line carries what. The clients of the harness hold every
//! description to what browsers need.

use livekit_protocol as proto;
use livekit_protocol::DisconnectReason;
use livekit_protocol::leave_request::Action;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;

use crate::harness::{Joining, MILLISECOND, SECOND, World};
use crate::tracks::{camera, microphone};

fn requirements(world: &World, identity: &str) -> Vec<(u32, u32)> {
    world.clients[identity].all(|message| match message {
        Response::MediaSectionsRequirement(required) => Some((required.num_audios, required.num_videos)),
        _ => None,
    })
}

fn offers(world: &World, identity: &str) -> Vec<u32> {
    world.clients[identity].all(|message| match message {
        Response::Offer(offer) => Some(offer.id),
        _ => None,
    })
}

#[test]
fn spare_m_lines_are_filled_by_an_offer_that_nothing_and_nothing_asks_for() {
    let mut world = World::new();
    world.join("bob");
    world.join("alice");
    world.publish("alice", camera("cam"));
    world.publish("alice", microphone("mic"));
    world.advance(SECOND);
    assert_eq!(world.clients["bob"].receives(), ["cam", "mic"]);
    assert!(requirements(&world, "bob").iter().all(|required| *required == (0, 0)));
}

#[test]
fn m_lines_that_are_missing_are_asked_for_by_number() {
    let mut world = World::new();
    world.join("bob");
    world.join("alice");
    let names: Vec<String> = (0..5).map(|number| format!("cam{number}")).collect();
    for name in &names {
        world.publish("alice", camera(name));
    }
    world.advance(SECOND);
    assert_eq!(world.clients["bob"].receives(), names);
    assert!(requirements(&world, "bob").contains(&(0, 2)), "{:?}", requirements(&world, "bob"));
}

#[test]
fn an_m_line_is_used_again_after_it_was_inactive() {
    for dual in [false, true] {
        let mut world = World::new();
        let bob = Joining::new("bob");
        world.join_as(if dual { bob.dual() } else { bob }).unwrap();
        world.join("alice");
        let mut lines = 0;
        for number in 0..20 {
            let name = format!("cam{number}");
            world.publish("alice", camera(&name));
            world.advance(SECOND);
            assert_eq!(world.clients["bob"].receives(), std::slice::from_ref(&name), "dual: {dual}");
            world.unpublish("alice", &name);
            world.advance(SECOND);
            let sdp = world.clients["bob"].last(|message| match message {
                Response::Answer(description) | Response::Offer(description) => Some(description.sdp.clone()),
                _ => None,
            });
            let now = sdp.unwrap().matches("m=").count();
            assert!(number < 2 || now == lines, "m-lines never go away, so they must not pile up");
            lines = now;
        }
    }
}

#[test]
fn a_switch_from_one_track_to_another_leaves_the_m_line_inactive_in_between() {
    let mut world = World::new();
    world.join("bob");
    world.join("alice");
    for name in ["a", "b", "c"] {
        world.publish("alice", camera(name)); // all three m-lines of the join are taken
    }
    world.advance(SECOND);
    world.unpublish("alice", "a");
    world.publish("alice", camera("d"));
    world.advance(SECOND);
    assert_eq!(world.clients["bob"].receives(), ["b", "c", "d"]);
}

#[test]
fn changes_close_together_share_a_round() {
    let mut world = World::new();
    world.join_as(Joining::new("bob").dual()).unwrap();
    world.join("alice");
    world.advance(SECOND);
    let before = offers(&world, "bob").len();
    for name in ["a", "b", "c", "d"] {
        world.publish("alice", camera(name));
    }
    world.advance(SECOND);
    assert_eq!(offers(&world, "bob").len(), before + 1);
}

#[test]
fn one_offer_is_out_at_a_time_and_changes_wait_for_its_answer() {
    let mut world = World::new();
    world.join_as(Joining::new("bob").dual()).unwrap();
    world.join("alice");
    world.clients.get_mut("bob").unwrap().negotiates = false;
    world.publish("alice", camera("a"));
    world.advance(SECOND);
    let first = offers(&world, "bob");
    world.publish("alice", camera("b"));
    world.advance(SECOND);
    assert_eq!(offers(&world, "bob"), first, "the first is unanswered");
    let answer = world.clients.get_mut("bob").unwrap().late_answer();
    world.says("bob", Request::Answer(answer));
    world.clients.get_mut("bob").unwrap().negotiates = true;
    world.advance(SECOND);
    assert_eq!(world.clients["bob"].receives(), ["a", "b"]);
}

/// Browsers tell of a new track only where the m-line was inactive in between.
#[test]
fn an_m_line_left_while_an_offer_is_out_is_inactive_before_it_carries_another_track() {
    let mut world = World::new();
    world.join_as(Joining::new("bob").dual()).unwrap();
    world.join("alice");
    world.clients.get_mut("bob").unwrap().negotiates = false;
    world.publish("alice", camera("a"));
    world.advance(SECOND);
    world.unpublish("alice", "a");
    let answer = world.clients.get_mut("bob").unwrap().late_answer();
    world.says("bob", Request::Answer(answer));
    world.clients.get_mut("bob").unwrap().negotiates = true;
    world.publish("alice", camera("b"));
    world.advance(SECOND);
    assert_eq!(world.clients["bob"].receives(), ["b"]);
}

#[test]
fn an_answer_to_an_offer_of_before_is_ignored() {
    let mut world = World::new();
    world.join_as(Joining::new("bob").dual()).unwrap();
    world.join("alice");
    world.clients.get_mut("bob").unwrap().negotiates = false;
    world.publish("alice", camera("a"));
    world.advance(SECOND);
    let mut answer = world.clients.get_mut("bob").unwrap().late_answer();
    let id = answer.id;
    answer.id = id + 40;
    world.says("bob", Request::Answer(answer.clone()));
    assert!(world.forwarded("bob").is_empty());
    answer.id = id;
    world.says("bob", Request::Answer(answer));
    assert_eq!(world.forwarded("bob").len(), 1);
}

#[test]
fn a_client_that_never_answers_starts_over() {
    for dual in [false, true] {
        let mut world = World::new();
        let bob = Joining::new("bob");
        world.join_as(if dual { bob.dual() } else { bob }).unwrap();
        world.join("alice");
        world.clients.get_mut("bob").unwrap().negotiates = false;
        world.publish("alice", camera("a"));
        world.advance(14 * SECOND);
        assert_eq!(world.clients["bob"].dismissal(), None);
        world.advance(2 * SECOND);
        let expected = Some((DisconnectReason::StateMismatch, Action::Reconnect));
        assert_eq!(world.clients["bob"].dismissal(), expected, "dual: {dual}");
        assert_eq!(world.room.counters.failed_negotiations, 1);
    }
}

#[test]
fn a_client_that_offers_no_m_lines_is_not_asked_forever() {
    let mut world = World::new();
    world.join_as(Joining::new("bob")).unwrap();
    world.join("alice");
    for number in 0..5 {
        world.publish("alice", camera(&format!("cam{number}")));
    }
    world.clients.get_mut("bob").unwrap().adds_lines = false;
    world.advance(120 * SECOND);
    let asked = requirements(&world, "bob").len();
    assert!(asked < 12, "{asked} times");
    assert_eq!(world.clients["bob"].dismissal(), None, "it answers; it only gets less");
    assert_eq!(world.clients["bob"].receives().len(), 3);
}

#[test]
fn every_offer_is_answered_in_order_and_once() {
    let mut world = World::new();
    world.join("alice");
    for _ in 0..5 {
        let offer = world.clients.get_mut("alice").unwrap().next_offer();
        world.says("alice", Request::Offer(offer));
    }
    let answers = world.clients["alice"].all(|message| match message {
        Response::Answer(answer) => Some(answer.id),
        _ => None,
    });
    assert_eq!(answers, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn an_answer_names_the_tracks_by_their_m_lines() {
    let mut world = World::new();
    world.join("alice");
    let sid = world.publish("alice", camera("cam"));
    world.join("bob");
    let named = world.clients["bob"].last(|message| match message {
        Response::Answer(answer) => Some(answer.mid_to_track_id.clone()),
        _ => None,
    });
    assert_eq!(named.unwrap().into_iter().collect::<Vec<_>>(), [("4".to_owned(), sid)]);
}

#[test]
fn a_client_whose_only_video_it_sends_itself_is_asked_before_a_codec_is_refused() {
    // It names fewer codecs where it sends than where it receives.
    let mut world = World::new();
    world.join("alice");
    world.publish("alice", camera("cam"));
    let mut lines = crate::client::Client::with_lines(vec![crate::sdp::Line::data(0)]);
    let own = crate::tracks::video("own", proto::TrackSource::Camera, "av1", Vec::new());
    let offer = lines.offer_with(&own);
    let joining = Joining::new("bob").with(|parameters| parameters.offer = Some(offer));
    world.join_as(joining.lines(lines)).unwrap();
    world.advance(SECOND);
    assert_eq!(world.clients["bob"].receives(), ["cam"]);
}

#[test]
fn rounds_are_not_begun_more_often_than_clients_can_follow() {
    let mut world = World::new();
    world.join_as(Joining::new("bob").dual()).unwrap();
    world.join("alice");
    world.advance(SECOND);
    let before = offers(&world, "bob").len();
    for number in 0..50 {
        world.publish("alice", camera(&format!("cam{number}")));
        world.advance(20 * MILLISECOND);
    }
    world.advance(SECOND);
    let rounds = offers(&world, "bob").len() - before;
    assert!((5..=15).contains(&rounds), "{rounds} rounds in a second");
    assert_eq!(world.clients["bob"].receives().len(), 50);
}
