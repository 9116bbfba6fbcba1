use std::time::Duration;

use super::world::*;
use crate::leaves::*;

#[test]
fn a_connected_client_is_restarted_at_once_and_at_four_fifths_of_its_delay() {
    let mut world = World::new(1);
    world.delegate("dana", "syd_1", 10.0).unwrap();
    world.run(3.0);
    world.connect("dana");
    world.run(20.0);
    assert_eq!(world.times(Action::Restart), [0.0, 3.0, 11.0, 19.0]);
    assert_eq!(world.fate("syd_1"), Fate::Scheduled);
    assert_eq!(world.verdicts(), [Verdict::Manageable]);
}

#[test]
fn the_leave_is_sent_when_the_client_goes() {
    let mut world = World::new(1);
    world.delegate("dana", "syd_1", 10.0).unwrap();
    world.connect("dana");
    world.run(60.0);
    world.gone("dana");
    world.run(1.0);
    assert_eq!(world.sent("syd_1"), 60.0);
    assert_eq!(world.outcomes(), [Outcome::Sent]);
    assert!(world.leaves.is_empty());
}

#[test]
fn the_leave_is_sent_when_nobody_connects_in_time() {
    let mut world = World::new(1);
    world.delegate("dana", "syd_1", 3600.0).unwrap();
    world.run(30.0);
    assert_eq!(world.sent("syd_1"), CONNECT_TIME.as_secs_f64());
    assert!(world.leaves.is_empty());
}

#[test]
fn a_client_that_delegates_while_connected_is_known_to_be_there() {
    let mut world = World::new(1);
    world.connect("dana");
    world.delegate("dana", "syd_1", 10.0).unwrap();
    world.run(60.0);
    assert_eq!(world.fate("syd_1"), Fate::Scheduled);
    assert_eq!(world.leaves.count(Stage::Held), 1);
}

#[test]
fn either_identity_of_a_client_holds_its_job_and_the_last_to_go_ends_it() {
    let mut world = World::new(1);
    let mut both = delegation("hash", "syd_1", seconds(10.0));
    both.identities.push("@dana:lab.example:LAPTOP".to_owned());
    world.delegate("nobody", "syd_1", 10.0).unwrap();
    world.gone("nobody");
    let mut world = World::new(1);
    world.events.insert(
        "syd_1".to_owned(),
        Event {
            timeout: seconds(10.0),
            fires: world.now + seconds(10.0),
            fate: Fate::Scheduled,
            failures: 0,
        },
    );
    world.leaves.delegate(world.now, both).unwrap();
    world.connect("hash");
    world.connect("@dana:lab.example:LAPTOP");
    world.gone("hash");
    world.run(60.0);
    assert_eq!(world.fate("syd_1"), Fate::Scheduled);
    world.gone("@dana:lab.example:LAPTOP");
    world.run(1.0);
    assert_eq!(world.sent("syd_1"), 60.0);
    assert!(world.leaves.is_empty());
}

#[test]
fn a_client_that_joins_anew_in_place_of_its_former_session_does_not_leave() {
    let mut world = World::new(1);
    world.connect("dana"); // the page that was reloaded; its connection has not been missed yet
    world.delegate("dana", "syd_2", 10.0).unwrap();
    world.run(1.0);
    world.replaced("dana");
    world.run(1.0);
    world.connect("dana");
    world.run(60.0);
    assert_eq!(world.fate("syd_2"), Fate::Scheduled);
    assert_eq!(world.leaves.count(Stage::Held), 1);
}

#[test]
fn an_event_that_is_gone_is_forgotten() {
    let mut world = World::new(1);
    world.delegate("dana", "syd_1", 10.0).unwrap();
    world.connect("dana");
    world.run(1.0);
    world.events.get_mut("syd_1").unwrap().fate = Fate::Cancelled(world.now);
    world.run(10.0);
    assert_eq!(world.outcomes(), [Outcome::Gone]);
    let calls = world.calls.len();
    world.gone("dana");
    world.run(100.0);
    assert_eq!(world.calls.len(), calls);
    assert!(world.leaves.is_empty());
}

#[test]
fn whoever_delegates_an_event_that_does_not_exist_is_told() {
    let mut world = World::new(1);
    world.leaves.delegate(world.now, delegation("dana", "syd_none", seconds(10.0))).unwrap();
    world.run(1.0);
    assert_eq!(world.verdicts(), [Verdict::Unknown]);
    assert!(world.leaves.is_empty());
}

#[test]
fn a_newer_event_of_the_same_client_takes_the_place_of_the_former() {
    let mut world = World::new(1);
    world.delegate("dana", "syd_1", 10.0).unwrap();
    world.connect("dana");
    world.run(5.0);
    world.delegate("dana", "syd_2", 10.0).unwrap();
    world.run(20.0);
    assert!(matches!(world.fate("syd_1"), Fate::Cancelled(_)), "it would have ended the newer membership");
    assert_eq!(world.fate("syd_2"), Fate::Scheduled);
    world.gone("dana");
    world.run(1.0);
    assert_eq!(world.sent("syd_2"), 25.0);
    assert_eq!(world.outcomes(), [Outcome::Superseded, Outcome::Sent]);
}

#[test]
fn the_same_event_delegated_again_is_one_job() {
    let mut world = World::new(1);
    let first = world.delegate("dana", "syd_1", 10.0).unwrap();
    world.run(1.0);
    assert_eq!(world.delegate("dana", "syd_1", 10.0), Ok(first));
    world.run(1.0);
    assert_eq!(world.verdicts().len(), 2, "each who asks is told");
    world.connect("dana");
    world.run(60.0);
    assert_eq!(world.leaves.count(Stage::Held), 1);
    assert_eq!(world.fate("syd_1"), Fate::Scheduled);
}

#[test]
fn a_homeserver_that_limits_is_left_alone_as_long_as_it_asks_and_then_asked_one_by_one() {
    let mut world = World::new(1);
    let mut limited = 0;
    world.manners = Box::new(move |_, _, _| {
        limited += 1;
        (limited <= 4).then_some(Answer::Limited(Duration::from_secs(3)))
    });
    for name in ["a", "b", "c", "d", "e", "f"] {
        world.delegate(name, name, 60.0).unwrap();
        world.connect(name);
    }
    world.run(5.0);
    let times = world.times(Action::Restart);
    assert_eq!(&times[..4], [0.0; 4]);
    assert_eq!(times[4], 3.1, "three seconds after the answer");
    assert_eq!(times[5], 3.2, "one at a time at first: {times:?}");
    assert!(world.events.values().all(|event| event.fires > world.now));
}

#[test]
fn leaves_go_before_restarts_that_have_time() {
    let mut world = World::new(1);
    for name in ["a", "b", "c", "d", "e", "f", "g"] {
        world.delegate(name, name, 60.0).unwrap();
        world.connect(name);
    }
    world.run(5.0);
    world.manners = Box::new(|_, _, _| Some(Answer::Limited(Duration::from_secs(50))));
    world.delegate("h", "h", 60.0).unwrap();
    world.run(49.0); // now six want to be restarted
    world.manners = Box::new(|_, _, _| None);
    world.gone("c");
    world.run(4.0);
    let after: Vec<Action> = world.calls.iter().skip(8).map(|(_, call)| call.action).collect();
    assert_eq!(after[0], Action::Send, "{after:?}");
}

#[test]
fn another_homeserver_does_not_wait_for_one_that_hangs() {
    let mut world = World::new(1);
    world.latency = Duration::from_secs(3600);
    for at in 0..100 {
        world.delegate(&format!("slow{at}"), &format!("slow{at}"), 60.0).unwrap();
    }
    world.run(0.0);
    assert_eq!(world.calls.len(), 4, "no more at once than it answers");
    let mut other = delegation("dana", "syd_1", seconds(10.0));
    other.homeserver = std::sync::Arc::from("https://other.example");
    world.leaves.delegate(world.now, other).unwrap();
    world.run(0.0);
    assert_eq!(&*world.calls.last().unwrap().1.homeserver, "https://other.example");
}

#[test]
fn failures_are_tried_again_faster_when_time_runs_out() {
    let mut world = World::new(1);
    world.delegate("dana", "syd_1", 10.0).unwrap();
    world.connect("dana");
    world.run(1.0);
    world.manners = Box::new(|_, _, _| Some(Answer::Failed(Failure::Status)));
    world.run(9.0);
    let tries = world.times(Action::Restart).len();
    assert!((4..=8).contains(&tries), "{:?}", world.times(Action::Restart));
    world.run(300.0);
    let waits: Vec<f64> = world.times(Action::Restart).windows(2).map(|pair| pair[1] - pair[0]).collect();
    let longest = waits.iter().copied().fold(0.0, f64::max);
    assert!(longest <= 30.1 && longest > 10.0, "{waits:?}");
    world.gone("dana");
    world.run(60.0);
    assert_eq!(world.outcomes(), [Outcome::LeftToHomeserver]);
    assert!(world.leaves.is_empty());
}

#[test]
fn the_other_forms_are_tried_on_a_homeserver_that_does_not_know_the_first() {
    for (form, is_known) in [(Form::UnstableBody, true), (Form::Stable, true), (Form::Stable, false)] {
        let mut world = World::new(1);
        world.manners = Box::new(move |call, _, _| {
            (call.dialect.form != form || !is_known).then_some(Answer::Unrecognised)
        });
        world.delegate("dana", "syd_1", 10.0).unwrap();
        world.connect("dana");
        world.run(2.0);
        let verdict = if is_known { Verdict::Manageable } else { Verdict::Unsupported };
        assert_eq!(world.verdicts(), [verdict]);
        let tried = world.calls.len();
        world.run(10.0);
        assert_eq!(world.calls.len() - tried, usize::from(is_known), "it is known by then");
    }
}

#[test]
fn a_proxy_that_knows_no_path_for_a_while_ends_no_leave() {
    let mut world = World::new(1);
    for name in ["stays", "leaves"] {
        world.delegate(name, name, 60.0).unwrap();
        world.connect(name);
    }
    world.run(20.0);
    world.manners = Box::new(|_, _, _| Some(Answer::Unrecognised));
    world.gone("leaves");
    world.run(30.0); // in which the other wants to be restarted
    assert!(world.outcomes().is_empty());
    world.manners = Box::new(|_, _, _| None);
    world.run(30.0);
    assert_eq!((world.fate("stays"), world.outcomes()), (Fate::Scheduled, vec![Outcome::Sent]));
}

#[test]
fn a_homeserver_that_wants_to_know_who_asks_is_told_if_we_may() {
    for authentication in [Authentication::OnDemand, Authentication::Always, Authentication::Never] {
        let mut world = World::new(1);
        world.manners =
            Box::new(|call, _, _| (!call.dialect.is_authenticated).then_some(Answer::Unauthorised));
        world.delegate("x", "syd_1", 10.0).unwrap(); // schedules it
        let mut delegation = delegation("dana", "syd_1", seconds(10.0));
        delegation.authentication = authentication;
        world.leaves.delegate(world.now, delegation).unwrap();
        world.connect("dana");
        world.run(2.0);
        let verdict = match authentication {
            Authentication::Never => Verdict::Unsupported,
            Authentication::OnDemand | Authentication::Always => Verdict::Manageable,
        };
        assert!(world.verdicts().contains(&verdict), "{:?}", world.verdicts());
        let mut asked = world.calls.iter().filter(|(_, call)| call.user.starts_with("@dana:"));
        let begins_so = asked.next().is_some_and(|(_, call)| call.dialect.is_authenticated);
        assert_eq!(begins_so, authentication == Authentication::Always);
    }
}

#[test]
fn a_focus_that_was_killed_waits_for_its_clients_and_sends_the_leaves_of_the_others() {
    let mut world = World::new(1);
    for name in ["back", "away", "gone"] {
        world.delegate(name, name, 10.0).unwrap();
        world.connect(name);
    }
    world.run(30.0);
    world.manners =
        Box::new(|call, _, _| (call.action == Action::Send).then_some(Answer::Failed(Failure::Connection)));
    world.gone("gone");
    world.restart(2);
    world.manners = Box::new(|_, _, _| None);
    world.run(5.0);
    assert!(world.sent("gone") < 31.0, "what was to be sent is sent at once");
    world.connect("back");
    world.run(60.0);
    assert_eq!(world.fate("back"), Fate::Scheduled);
    assert_eq!(world.sent("away"), 30.0 + RETURN_TIME.as_secs_f64());
    assert_eq!(world.leaves.count(Stage::Held), 1);
}

#[test]
fn ids_are_not_given_twice_over_a_restart() {
    let mut world = World::new(1);
    let first = world.delegate("dana", "syd_1", 10.0).unwrap();
    world.restart(2);
    assert!(world.delegate("eric", "syd_2", 10.0).unwrap() > first);
}

#[test]
fn jobs_are_bounded_in_all_in_a_conference_by_origin_and_by_user() {
    let limits = Limits { jobs: 6, per_conference: 5, per_origin: 4, per_user: 3, calls: 1 };
    let mut world = World::new(1);
    let mut leaves = Leaves::new(limits, 1);
    let mut delegate = |user: &str, conference: &str, id: &str| {
        let mut delegation = delegation("x", id, seconds(10.0));
        delegation.user = user.to_owned();
        delegation.conference = conference.to_owned();
        delegation.identities = vec![id.to_owned()];
        leaves.delegate(world.now, delegation).is_ok()
    };
    assert!(delegate("@a:one", "r", "1") && delegate("@a:one", "r", "2") && delegate("@a:one", "r", "3"));
    assert!(!delegate("@a:one", "r", "4"), "of one user");
    assert!(delegate("@b:one", "r", "5") && !delegate("@c:one", "r", "6"), "of one server");
    assert!(delegate("@d:two", "r", "7") && !delegate("@e:two", "r", "8"), "in one conference");
    assert!(delegate("@f:two", "s", "9") && !delegate("@g:three", "t", "0"), "in all");
    world.run(0.0);
}

#[test]
fn ids_that_would_climb_in_a_path_and_delays_that_would_flood_are_refused() {
    let mut world = World::new(1);
    for id in ["", ".", "..", "a/b", "a%2fb", "a?b", "a b", "ü", &"a".repeat(256)] {
        assert_eq!(world.delegate("dana", id, 10.0), Err(Refusal::DelayId), "{id}");
    }
    for timeout in [0.0, 1.999, 40.0 * 86400.0] {
        assert_eq!(world.delegate("dana", "syd_1", timeout), Err(Refusal::Timeout));
    }
    assert!(world.leaves.is_empty());
}
