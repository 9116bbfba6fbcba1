use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::mpsc;

use super::*;
use crate::names::UserId;
use crate::rooms::{Blind, Cause, Holder, Members, MembersError, Presence, Removed, Seat};

const TOKEN: &str = "a token of the homeserver, not short";

struct Scene {
    transactions: Arc<Transactions>,
    door: Arc<Door>,
    removed: mpsc::Receiver<Removed>,
}

impl Scene {
    async fn new(store: &Store) -> Self {
        let (door, removed) = Door::open(store.clone(), Arc::new(Blind)).await.unwrap();
        let door = Arc::new(door);
        let transactions = Transactions::open(store, Arc::clone(&door), TOKEN).await.unwrap();
        Self { transactions, door, removed }
    }

    async fn ask(&self, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, String) {
        let mut request = axum::http::Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let response = self.transactions.handle(request.body(Body::from(body.to_owned())).unwrap()).await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        (status, body["errcode"].as_str().unwrap_or_default().to_owned())
    }

    async fn push(&self, id: &str, events: Value) -> (u16, String) {
        let body = serde_json::json!({ "events": events, "unheard.of": 1 }).to_string();
        self.ask("PUT", &format!("/_matrix/app/v1/transactions/{id}"), Some(TOKEN), &body).await
    }

    fn is_void(&self, user: &str) -> bool {
        self.door.is_void(&holder(user), 1)
    }
}

fn holder(user: &str) -> Holder {
    Holder { room_id: "!r".to_owned(), user: UserId::parse(user).unwrap() }
}

fn member(user: &str, sender: &str, membership: &str) -> Value {
    serde_json::json!({
        "type": "m.room.member", "room_id": "!r", "sender": sender, "state_key": user,
        "content": { "membership": membership }, "event_id": "$x", "origin_server_ts": 1_000
    })
}

const DANA: &str = "@dana:lab.example";
const MOD: &str = "@mod:lab.example";

#[tokio::test]
async fn leaves_kicks_and_bans_are_told_apart_and_all_count() {
    let store = Store::in_memory().unwrap();
    for (sender, membership, cause) in
        [(DANA, "leave", Cause::Left), (MOD, "leave", Cause::Kicked), (MOD, "ban", Cause::Banned)]
    {
        let mut scene = Scene::new(&store).await;
        scene.door.sits(holder(DANA), Seat { conference: "c".to_owned(), identity: "i".to_owned() });
        let id = format!("{membership}-{sender}");
        assert_eq!(scene.push(&id, serde_json::json!([member(DANA, sender, membership)])).await.0, 200);
        assert_eq!(scene.removed.recv().await.unwrap().cause, cause);
        assert!(scene.is_void(DANA));
    }
}

#[tokio::test]
async fn who_is_back_by_the_end_of_a_transaction_loses_what_was_issued_before_the_leave_alone() {
    let mut scene = Scene::new(&Store::in_memory().unwrap()).await;
    scene.door.sits(holder(DANA), Seat { conference: "c".to_owned(), identity: "i".to_owned() });
    let back = serde_json::json!([member(DANA, MOD, "leave"), member(DANA, DANA, "join")]);
    assert_eq!(scene.push("1", back).await.0, 200);
    assert!(scene.removed.try_recv().is_err());
    assert!(scene.door.is_void(&holder(DANA), 1_000) && !scene.door.is_void(&holder(DANA), 1_001));
    // Who is out in the end is out from now on, whatever another server's clock says.
    let out = [member(DANA, MOD, "leave"), member(DANA, DANA, "join"), member(DANA, MOD, "ban")];
    assert_eq!(scene.push("2", serde_json::json!(out)).await.0, 200);
    assert_eq!(scene.removed.try_recv().unwrap().cause, Cause::Banned);
    assert!(scene.removed.try_recv().is_err(), "once is enough");
    assert!(scene.door.is_void(&holder(DANA), 1_001));
}

#[tokio::test]
async fn who_was_no_member_costs_no_memory_and_who_sits_here_counts_whatever_is_said_of_before() {
    let mut scene = Scene::new(&Store::in_memory().unwrap()).await;
    let after = |sender, membership, before: &str| {
        let mut event = member(DANA, sender, membership);
        event["unsigned"] = serde_json::json!({ "prev_content": { "membership": before } });
        event
    };
    let strangers = [
        member(DANA, MOD, "invite"),
        member(DANA, DANA, "knock"),
        after(MOD, "leave", "invite"),
        after(DANA, "leave", "knock"),
        after(MOD, "ban", "leave"),
    ];
    assert_eq!(scene.push("1", serde_json::json!(strangers)).await.0, 200);
    assert!(!scene.is_void(DANA));
    scene.door.sits(holder(DANA), Seat { conference: "c".to_owned(), identity: "i".to_owned() });
    assert_eq!(scene.push("2", serde_json::json!([after(MOD, "leave", "invite")])).await.0, 200);
    assert!(scene.removed.try_recv().is_ok() && scene.is_void(DANA));
    let scene = Scene::new(&Store::in_memory().unwrap()).await;
    assert_eq!(scene.push("1", serde_json::json!([after(MOD, "leave", "join")])).await.0, 200);
    assert!(scene.is_void(DANA));
}

#[tokio::test]
async fn a_transaction_counts_once_also_after_a_restart() {
    let store = Store::in_memory().unwrap();
    let mut scene = Scene::new(&store).await;
    let kick = serde_json::json!([member(DANA, MOD, "leave")]);
    for round in 0..3 {
        scene.door.sits(holder(DANA), Seat { conference: "c".to_owned(), identity: "i".to_owned() });
        assert_eq!(scene.push("77", kick.clone()).await.0, 200);
        assert_eq!(scene.removed.try_recv().is_ok(), round == 0, "round {round}");
        if round == 1 {
            scene = Scene::new(&store).await;
        }
    }
    for id in 0..MAX_REMEMBERED {
        scene.push(&format!("more{id}"), serde_json::json!([])).await;
    }
    assert_eq!(scene.transactions.done.lock().await.len(), MAX_REMEMBERED);
    let again = Scene::new(&store).await;
    assert_eq!(*again.transactions.done.lock().await, *scene.transactions.done.lock().await);
}

#[tokio::test]
async fn a_homeserver_that_begins_to_count_anew_is_heard() {
    let store = Store::in_memory().unwrap();
    let scene = Scene::new(&store).await;
    assert_eq!(scene.push("1", serde_json::json!([])).await.0, 200);
    assert_eq!(scene.push("1", serde_json::json!([member("@eve:lab.example", MOD, "ban")])).await.0, 200);
    assert_eq!(scene.push("1", serde_json::json!([member(DANA, MOD, "ban")])).await.0, 200);
    assert!(scene.is_void("@eve:lab.example") && scene.is_void(DANA));
    // What the homeserver says beside an event does not make it another.
    let mut again = member(DANA, MOD, "ban");
    again["unsigned"] = serde_json::json!({ "age": 7, "prev_content": { "membership": "join" } });
    let known = scene.transactions.done.lock().await.len();
    assert_eq!(scene.push("1", serde_json::json!([again])).await.0, 200);
    assert_eq!(scene.transactions.done.lock().await.len(), known);
}

#[tokio::test]
async fn strangers_are_forbidden_everything_and_told_nothing() {
    let scene = Scene::new(&Store::in_memory().unwrap()).await;
    let body = serde_json::json!({ "events": [member(DANA, MOD, "leave")] }).to_string();
    let longer = format!("{TOKEN}x");
    for token in [None, Some(""), Some("wrong"), Some(&TOKEN[1..]), Some(&longer)] {
        for (method, path) in [
            ("PUT", "/_matrix/app/v1/transactions/1"),
            ("POST", "/_matrix/app/v1/ping"),
            ("GET", "/_matrix/app/v1/users/@x:y"),
            ("GET", "/_matrix/app/v1/nothing"),
        ] {
            let verdict = scene.ask(method, path, token, &body).await;
            assert_eq!(verdict, (403, "M_FORBIDDEN".to_owned()), "{method} {path} {token:?}");
        }
    }
    assert!(!scene.is_void(DANA));
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_or_skipped_and_never_holds_up_the_rest() {
    let scene = Scene::new(&Store::in_memory().unwrap()).await;
    let path = "/_matrix/app/v1/transactions/1";
    for (body, errcode) in
        [("", "M_NOT_JSON"), ("{", "M_NOT_JSON"), ("[[]]", "M_BAD_JSON"), ("{}", "M_BAD_JSON")]
    {
        let verdict = scene.ask("PUT", path, Some(TOKEN), body).await;
        assert_eq!(verdict, (400, errcode.to_owned()), "{body}");
    }
    let deep = format!("{{\"events\":{}", "[".repeat(100_000));
    assert_eq!(scene.ask("PUT", path, Some(TOKEN), &deep).await.0, 400, "it breaks off");
    let odd = serde_json::json!([
        7, null, {}, ["m.room.member", "!r", MOD, DANA, ["leave"]], { "type": "m.room.member" }, { "type": 7 }, member("nobody", MOD, "leave"),
        member("@x", MOD, "leave"), { "type": "m.room.member", "room_id": "!r", "sender": MOD,
            "state_key": DANA, "content": { "membership": 7 } },
        { "type": "m.room.message", "room_id": "!r", "sender": DANA, "content": { "membership": "leave" } },
    ]);
    assert_eq!(scene.push("2", odd).await.0, 200);
    assert!(!scene.is_void(DANA));
    assert_eq!(scene.push("3", serde_json::json!([8, member(DANA, MOD, "ban")])).await.0, 200);
    assert!(scene.is_void(DANA));
}

#[tokio::test]
async fn what_others_nest_too_deep_to_be_parsed_hides_no_kick() {
    let scene = Scene::new(&Store::in_memory().unwrap()).await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let message = format!(r#"{{"type":"m.room.message","room_id":"!r","content":{{"x":{deep}}}}}"#);
    // Who joined with a deep key is kicked: the homeserver adds what was before.
    let kick = format!(
        r#"{{"type":"m.room.member","room_id":"!r","sender":"{MOD}","state_key":"{DANA}","x":{deep},
            "content":{{"membership":"leave"}},"unsigned":{{"prev_content":{{"membership":"join","x":{deep}}}}}}}"#
    );
    let body = format!(r#"{{"events":[{message},{kick}],"ephemeral":{deep}}}"#);
    assert_eq!(scene.ask("PUT", "/_matrix/app/v1/transactions/1", Some(TOKEN), &body).await.0, 200);
    assert!(scene.is_void(DANA));
}

/// Sees everybody in `!r` who is not out.
#[derive(Default)]
struct Seen {
    is_out: std::sync::atomic::AtomicBool,
}

impl Members for Seen {
    fn members<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<HashSet<UserId>>, MembersError>> {
        let is_out = self.is_out.load(std::sync::atomic::Ordering::SeqCst);
        let dana = UserId::parse(DANA).unwrap();
        Box::pin(std::future::ready(Ok(Some(if is_out { HashSet::new() } else { [dana].into() }))))
    }
}

#[tokio::test]
async fn what_was_lost_on_the_way_is_looked_up() {
    let large = format!("{{\"events\":[],\"x\":\"{}\"}}", "x".repeat(MAX_BODY_BYTES));
    let empty = r#"{"events":[]}"#;
    for (id, body, is_lost) in [
        ("8", empty, false),
        ("9", empty, true),
        ("3", empty, false), // told late, or counted anew
        ("of another kind", empty, false),
        ("8", &large, true),
    ] {
        let store = Store::in_memory().unwrap();
        let seen = Arc::new(Seen::default());
        let (door, mut removed) = Door::open(store.clone(), Arc::clone(&seen) as _).await.unwrap();
        let door = Arc::new(door);
        let transactions = Transactions::open(&store, Arc::clone(&door), TOKEN).await.unwrap();
        let scene = Scene { transactions, door, removed: mpsc::channel(1).1 };
        assert_eq!(scene.push("7", serde_json::json!([])).await.0, 200);
        let dana = holder(DANA);
        assert_eq!(scene.door.presence("!r", &dana.user).await, Ok(Presence::Joined));
        scene.door.sits(dana.clone(), Seat { conference: "c".to_owned(), identity: "i".to_owned() });
        seen.is_out.store(true, std::sync::atomic::Ordering::SeqCst);
        let path = format!("/_matrix/app/v1/transactions/{}", id.replace(' ', "-"));
        assert_eq!(scene.ask("PUT", &path, Some(TOKEN), body).await.0, 200);
        tokio::task::yield_now().await;
        let sent_away = tokio::time::timeout(Duration::from_millis(100), removed.recv()).await;
        assert_eq!(sent_away.is_ok(), is_lost, "{id}");
        assert_eq!(scene.door.presence("!r", &dana.user).await == Ok(Presence::NotJoined), is_lost, "{id}");
    }
}

#[tokio::test]
async fn pings_are_answered_and_nobody_is_made_up() {
    let scene = Scene::new(&Store::in_memory().unwrap()).await;
    for (method, path, status, errcode) in [
        ("POST", "/_matrix/app/v1/ping", 200, ""),
        ("POST", "/behind/a/prefix/_matrix/app/v1/ping", 200, ""),
        ("GET", "/_matrix/app/v1/ping", 405, "M_UNRECOGNIZED"),
        ("GET", "/_matrix/app/v1/users/%40x%3Ay", 404, "M_NOT_FOUND"),
        ("GET", "/_matrix/app/v1/rooms/%23x%3Ay", 404, "M_NOT_FOUND"),
        ("GET", "/_matrix/app/v1/thirdparty/protocol/x", 404, "M_UNRECOGNIZED"),
        ("PUT", "/_matrix/app/v1/transactions/", 400, "M_INVALID_PARAM"),
    ] {
        let verdict = scene.ask(method, path, Some(TOKEN), "{}").await;
        assert_eq!(verdict, (status, errcode.to_owned()), "{method} {path}");
    }
    let long = format!("/_matrix/app/v1/transactions/{}", "x".repeat(256));
    assert_eq!(scene.ask("PUT", &long, Some(TOKEN), "{}").await.0, 400);
}
