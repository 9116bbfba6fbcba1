//! Those who stand above tokens: a gate that voids some, evictions, and an observer that misses nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use livekit_protocol as proto;
use livekit_protocol::DisconnectReason;
use livekit_protocol::leave_request::Action;
use livekit_protocol::signal_response::Message as Response;
use weir_livekit::Supervision;
use weir_livekit::supervision::{
    Admission, Barred, Bearer, EvictionReason, Gate, LeaveReason, Observer, ParticipantEvent,
};

use crate::harness::{Socket, TestServer, join_request, refusal, token};

/// Bars tokens that were issued before a time, and notes who came and went.
#[derive(Default)]
struct Warden {
    void_before_ms: AtomicU64,
    is_unsure: AtomicBool,
    /// How often it is asked before the tokens are void after all.
    grace: Option<AtomicUsize>,
    /// Panics when it is told of anybody who comes.
    is_broken: AtomicBool,
    seen: Mutex<Vec<(String, ParticipantEvent)>>,
}

impl Gate for Warden {
    fn admit<'a>(&'a self, bearer: &'a Bearer) -> Admission<'a> {
        let answer = match (self.is_unsure.load(Ordering::SeqCst), self.is_void(bearer)) {
            (true, _) => Err(Barred::Unknown),
            (false, true) => Err(Barred::Void),
            (false, false) => Ok(()),
        };
        Box::pin(std::future::ready(answer))
    }

    fn is_void(&self, bearer: &Bearer) -> bool {
        match &self.grace {
            Some(left) => {
                left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err()
            }
            None => bearer.issued_ms < self.void_before_ms.load(Ordering::SeqCst),
        }
    }
}

impl Observer for Warden {
    fn observe(&self, bearer: &Bearer, event: ParticipantEvent) {
        self.seen.lock().unwrap().push((bearer.issued_to.clone(), event));
        let is_broken = event == ParticipantEvent::Joined && self.is_broken.load(Ordering::SeqCst);
        assert!(!is_broken, "this is the test of what a panic does to a room");
    }
}

impl Warden {
    fn seen(&self) -> Vec<(String, ParticipantEvent)> {
        self.seen.lock().unwrap().clone()
    }
}

fn watched(warden: Warden) -> (TestServer, Arc<Warden>) {
    let warden = Arc::new(warden);
    let (gate, observer): (Arc<dyn Gate>, Arc<dyn Observer>) =
        (Arc::<Warden>::clone(&warden), Arc::<Warden>::clone(&warden));
    (TestServer::supervised(Supervision { gate, observer }, |_| {}), warden)
}

/// A token issued at this time, for the person of this name.
fn issued(identity: &str, ms: u64) -> String {
    token(identity, |claims| {
        claims.iat = Some(ms as f64 / 1000.0);
        claims.issued_to = format!("the person {identity}");
    })
}

async fn join_with(server: &TestServer, token: &str) -> Socket {
    let mut socket = server.open(&format!("/rtc?protocol=17&access_token={token}")).await.unwrap();
    assert!(matches!(socket.next().await, Some(Response::Join(_))));
    socket
}

async fn dismissal(socket: &mut Socket) -> (DisconnectReason, Action) {
    let leave = socket.wait(|message| match message {
        Response::Leave(leave) => Some((leave.reason(), leave.action())),
        _ => None,
    });
    let leave = leave.await;
    assert!(socket.next().await.is_none(), "the socket closes behind it");
    leave
}

const NOON: u64 = 1_790_000_000_000;

#[tokio::test(start_paused = true)]
async fn a_void_token_is_refused_to_join_to_resume_and_to_validate_with_a_status_that_is_final() {
    let (server, warden) = watched(Warden::default());
    let old = issued("alice", NOON);
    let mut alice = join_with(&server, &old).await;
    warden.void_before_ms.store(NOON + 1, Ordering::SeqCst);
    let resume = proto::JoinRequest { reconnect: true, ..proto::JoinRequest::default() };
    let resume = format!("/rtc/v1?access_token={old}&join_request={}", join_request(&resume));
    for target in [
        format!("/rtc?access_token={old}"),
        format!("/rtc?access_token={old}&reconnect=1&sid=PA_x"),
        format!("/rtc/v1?access_token={old}&join_request={}", join_request(&proto::JoinRequest::default())),
        resume,
    ] {
        let (status, body) = refusal(server.open(&target).await);
        assert_eq!(status, 401, "{target}");
        assert!(body.contains("ask for a new one"), "{body}");
        assert_eq!(server.get(&target.replace('?', "/validate?")).await.status, 401, "{target}");
    }
    assert!(server.server.evict("room", "alice", EvictionReason::ParticipantRemoved).await);
    assert_eq!(dismissal(&mut alice).await, (DisconnectReason::ParticipantRemoved, Action::Disconnect));
    join_with(&server, &issued("alice", NOON + 1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_refreshed_token_is_void_when_the_first_of_its_line_is() {
    let (server, warden) = watched(Warden::default());
    let mut alice = join_with(&server, &issued("alice", NOON + 7)).await;
    let refreshed = alice.wait(|message| match message {
        Response::RefreshToken(token) => Some(token.clone()),
        _ => None,
    });
    let refreshed = refreshed.await;
    let target = format!("/rtc/validate?access_token={refreshed}");
    warden.void_before_ms.store(NOON + 7, Ordering::SeqCst);
    assert_eq!(server.get(&target).await.status, 200);
    warden.void_before_ms.store(NOON + 8, Ordering::SeqCst);
    assert_eq!(server.get(&target).await.status, 401);
}

#[tokio::test(start_paused = true)]
async fn tokens_that_do_not_say_when_they_were_issued_are_as_old_as_can_be() {
    let (server, warden) = watched(Warden::default());
    warden.void_before_ms.store(1, Ordering::SeqCst);
    let target = format!("/rtc/validate?access_token={}", token("alice", |_| {}));
    assert_eq!(server.get(&target).await.status, 401);
    let from = token("alice", |claims| claims.nbf = Some(1));
    assert_eq!(server.get(&format!("/rtc/validate?access_token={from}")).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_cannot_tell_is_no_refusal_for_good() {
    let (server, warden) = watched(Warden::default());
    warden.is_unsure.store(true, Ordering::SeqCst);
    let target = format!("/rtc?access_token={}", issued("alice", NOON));
    assert_eq!(refusal(server.open(&target).await).0, 503);
    assert_eq!(server.get(&target.replace('?', "/validate?")).await.status, 503);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_voided_on_the_way_into_the_room_lets_nobody_stay() {
    // The gate is asked at the door, by the room, and once the observer knows: each may be where it has just been voided.
    for asked in [1, 2] {
        let (server, warden) = watched(Warden { grace: Some(AtomicUsize::new(asked)), ..Warden::default() });
        let target = format!("/rtc?protocol=17&access_token={}", issued("alice", NOON));
        match server.open(&target).await {
            Ok(mut socket) => {
                assert_eq!(asked, 2);
                assert_eq!(
                    dismissal(&mut socket).await,
                    (DisconnectReason::ParticipantRemoved, Action::Disconnect)
                );
            }
            refused => assert_eq!((asked, refusal(refused).0), (1, 401)),
        }
        let evicted = ParticipantEvent::Left(LeaveReason::Evicted);
        let seen = warden.seen();
        assert!(asked == 1 && seen.is_empty() || seen.last().is_some_and(|(_, event)| *event == evicted));
        assert_eq!(server.metric("weir_participants"), 0.0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_eviction_sends_one_away_and_tells_the_others() {
    let (server, warden) = watched(Warden::default());
    let mut alice = join_with(&server, &issued("alice", NOON)).await;
    let mut bob = join_with(&server, &issued("bob", NOON)).await;
    assert!(server.server.evict("room", "alice", EvictionReason::ParticipantRemoved).await);
    assert_eq!(dismissal(&mut alice).await, (DisconnectReason::ParticipantRemoved, Action::Disconnect));
    let farewell = bob.wait(|message| match message {
        Response::Update(update) => update
            .participants
            .iter()
            .find(|person| person.state() == proto::participant_info::State::Disconnected)
            .map(|person| (person.identity.clone(), person.disconnect_reason())),
        _ => None,
    });
    assert_eq!(farewell.await, ("alice".to_owned(), DisconnectReason::ParticipantRemoved));
    assert!(!server.server.evict("room", "alice", EvictionReason::ParticipantRemoved).await, "once is all");
    assert!(!server.server.evict("nowhere", "bob", EvictionReason::ParticipantRemoved).await);
    assert_eq!(
        warden.seen(),
        [
            ("the person alice".to_owned(), ParticipantEvent::Joined),
            ("the person bob".to_owned(), ParticipantEvent::Joined),
            ("the person alice".to_owned(), ParticipantEvent::Left(LeaveReason::Evicted)),
        ]
    );
    assert_eq!(server.metric("weir_participants"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_room_that_is_closed_tells_everybody_that_it_is_gone_and_may_be_made_anew() {
    let (server, warden) = watched(Warden::default());
    let mut people =
        [join_with(&server, &issued("alice", NOON)).await, join_with(&server, &issued("bob", NOON)).await];
    server.server.close_room("room").await;
    for socket in &mut people {
        assert_eq!(dismissal(socket).await, (DisconnectReason::RoomDeleted, Action::Disconnect));
    }
    assert_eq!(server.metric("weir_participants"), 0.0);
    let left = warden.seen().into_iter().filter(|(_, event)| matches!(event, ParticipantEvent::Left(_)));
    assert_eq!(left.count(), 2);
    server.server.close_room("room").await;
    join_with(&server, &issued("alice", NOON)).await;
}

async fn a_room_that_breaks_is_left_by_all_and_made_anew(break_it: impl AsyncFnOnce(&TestServer, &Warden)) {
    let (server, warden) = watched(Warden::default());
    let mut alice = join_with(&server, &issued("alice", NOON)).await;
    break_it(&server, &warden).await;
    // Whoever comes has the room notice.
    let _ = server.open(&format!("/rtc?protocol=17&access_token={}", issued("bob", NOON))).await;
    while alice.next().await.is_some() {}
    let gone = ParticipantEvent::Left(LeaveReason::StartsOver);
    for person in ["the person alice", "the person bob"] {
        let told: Vec<_> = warden.seen().into_iter().filter(|(who, _)| who == person).collect();
        let expected = [ParticipantEvent::Joined, gone].map(|event| (person.to_owned(), event));
        assert_eq!(told, expected);
    }
    assert_eq!((server.metric("weir_participants"), server.metric("weir_rooms")), (0.0, 0.0));
    warden.is_broken.store(false, Ordering::SeqCst);
    join_with(&server, &issued("alice", NOON)).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_room_leaves_nobody_behind_who_is_said_to_be_in_it() {
    a_room_that_breaks_is_left_by_all_and_made_anew(async |_, warden| {
        warden.is_broken.store(true, Ordering::SeqCst);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_room_whose_shard_is_gone_ends_and_leaves_nobody_behind() {
    a_room_that_breaks_is_left_by_all_and_made_anew(async |server, _| server.end_of_shards.notify_waiters())
        .await;
}

#[tokio::test(start_paused = true)]
async fn who_has_joined_again_with_a_good_token_is_not_sent_away_for_the_void_one() {
    let (server, warden) = watched(Warden::default());
    let mut alice = join_with(&server, &issued("alice", NOON)).await;
    assert!(!server.server.evict_void("room", "alice").await, "nothing is void yet");
    warden.void_before_ms.store(NOON + 1, Ordering::SeqCst);
    let mut again = join_with(&server, &issued("alice", NOON + 1)).await;
    while alice.next().await.is_some() {}
    assert!(!server.server.evict_void("room", "alice").await);
    warden.void_before_ms.store(NOON + 2, Ordering::SeqCst);
    assert!(server.server.evict_void("room", "alice").await);
    assert_eq!(dismissal(&mut again).await, (DisconnectReason::ParticipantRemoved, Action::Disconnect));
}
