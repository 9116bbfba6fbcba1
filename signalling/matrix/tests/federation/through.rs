//! What a homeserver passes on, as the service meets it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use weir_matrix::appservice::HsToken;
use weir_matrix::names::{ServerName, UserId};
use weir_matrix::policy::{ByServer, Denied, Servers};
use weir_matrix::service::{DelayedEvent, OwnHomeserver, Parts, Relayed, Through, Unanswered};

use crate::requests::{Bench, CONFERENCE, DANA, Nobody, Notebook, URL};

const HS_TOKEN: &str = "a token of the homeserver, not short";
const CLIENT: &str = "/_matrix/client/unstable/io.element.msc4195/rtc/livekit/get_token";
const DELEGATE: &str = "/_matrix/client/unstable/io.element.msc4195/rtc/livekit/delegate_delayed_leave";
const FEDERATION: &str = "/_matrix/federation/unstable/io.element.msc4195/rtc/livekit/get_token";
const USER: &str = "X-Matrix-User-Identifier";
const ORIGIN: &str = "X-Matrix-Origin";
const FAR: &str = "@far:else.example";
const ID: &str = "7c2e5e0a-5a34-4a3f-9a52-1f6f2f7f1d11";

/// A homeserver with one delayed event of dana's, beside one other that answers as it is told.
struct Own {
    there: Result<Relayed, Unanswered>,
    relayed: Mutex<Vec<(String, &'static str, Value)>>,
    is_away: bool,
}

impl Own {
    fn with(there: Result<Relayed, Unanswered>) -> Arc<Self> {
        Arc::new(Self { there, relayed: Mutex::default(), is_away: false })
    }
}

impl OwnHomeserver for Own {
    fn relay<'a>(
        &'a self,
        to: &'a ServerName,
        path: &'static str,
        body: Value,
    ) -> BoxFuture<'a, Result<Relayed, Unanswered>> {
        self.relayed.lock().unwrap().push((to.to_string(), path, body));
        let is_mute = to.as_str() == "mute.example";
        Box::pin(async move { if is_mute { std::future::pending().await } else { self.there.clone() } })
    }

    fn delayed_event<'a>(
        &'a self,
        user: &'a UserId,
        delay_id: &'a str,
    ) -> BoxFuture<'a, Result<Option<DelayedEvent>, Unanswered>> {
        let is_there = user.as_str() == DANA && delay_id == "syd_1";
        let event = DelayedEvent { room_id: "!focus:lab.example".to_owned(), delay: Duration::from_secs(9) };
        let answer = match self.is_away {
            true => Err(Unanswered("away".to_owned())),
            false => Ok(is_there.then_some(event)),
        };
        Box::pin(std::future::ready(answer))
    }
}

async fn bench_with(own: Arc<Own>, change: impl FnOnce(&mut Parts)) -> Bench {
    let lab = ServerName::parse("lab.example").unwrap();
    Bench::new(|parts| {
        parts.through = Some(Through::new(lab, HsToken::new(HS_TOKEN), own));
        change(parts);
    })
    .await
}

async fn bench() -> Bench {
    bench_with(Own::with(Ok((200, json!({ "jwt": "a.b.c" })))), |_| {}).await
}

/// What the service answers to a request with these headers; the `hs_token` is shown unless one is named.
async fn pass(bench: &Bench, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> (u16, Value) {
    let mut request = Request::builder().method("POST").uri(path);
    if !headers.iter().any(|(name, _)| *name == "Authorization") {
        request = request.header("Authorization", format!("Bearer {HS_TOKEN}"));
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (status, headers, body) = bench.ask(request.body(body.into()).unwrap()).await;
    assert_eq!(headers["content-type"], "application/json");
    assert!(!headers.contains_key("access-control-allow-origin"), "the homeserver sees to that");
    (status.as_u16(), serde_json::from_str(&body).unwrap())
}

fn body() -> Value {
    json!({ "room_id": "!focus:lab.example", "slot_id": "m.call#ROOM", "member_id": ID, "url": URL })
}

fn with(mut body: Value, key: &str, value: Value) -> Value {
    body[key] = value;
    body
}

fn code((status, answer): &(u16, Value)) -> (u16, &str) {
    (*status, answer["errcode"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn a_user_whom_the_homeserver_names_gets_a_token_and_nobody_is_looked_up() {
    let bench = bench().await;
    let (status, answer) = pass(&bench, CLIENT, &[(USER, DANA)], body().to_string()).await;
    let expected =
        format!("douFoJnidrSFD60n+rcqIz8WtF+56c7DnWPRYxzfHeU in {CONFERENCE}, create true, publish true");
    assert_eq!((status, &answer["jwt"], &answer["url"]), (200, &json!(expected), &json!(URL)));
    // Its own server's name is as good as none, and so is no address.
    for more in [json!({ "server_name": "lab.example" }), json!({ "url": null }), json!({ "new": [1] })] {
        let mut body = body();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(pass(&bench, CLIENT, &[(USER, DANA)], body.to_string()).await.0, 200, "{more}");
    }
    let old = json!({
        "room_id": "!focus:lab.example", "slot_id": "m.call#ROOM",
        "member": { "id": ID, "claimed_device_id": "LAPTOP7" },
    });
    let stable = "/_matrix/client/v1/rtc/livekit/get_token";
    let (_, answer) = pass(&bench, stable, &[(USER, DANA)], old.to_string()).await;
    assert!(answer["jwt"].as_str().unwrap().starts_with("xyNLr+/tQI8JbXBx2YO8Tv1BtTDIzajApqMfjCoDS0U in "));
    assert_eq!(bench.homeserver.connections(), 0);
    assert!(bench.counted("client_get_token", "granted"));
}

#[tokio::test]
async fn a_user_of_another_server_gets_a_token_through_that_and_the_rights_of_its_users() {
    let bench = bench().await;
    let asked = with(body(), "user_id", json!(FAR));
    let (status, answer) = pass(&bench, FEDERATION, &[(ORIGIN, "else.example")], asked.to_string()).await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer["jwt"].as_str().unwrap().ends_with("create false, publish false"), "{answer}");
    for (user, errcode) in [
        (DANA, (403, "M_FORBIDDEN")),
        ("@far:else.example:8448", (403, "M_FORBIDDEN")),
        ("far", (400, "M_BAD_JSON")),
    ] {
        let asked = with(body(), "user_id", json!(user)).to_string();
        let answer = pass(&bench, FEDERATION, &[(ORIGIN, "else.example")], asked).await;
        assert_eq!(code(&answer), errcode, "{user}");
    }
    assert!(
        bench.counted("federation_get_token", "granted")
            && bench.counted("federation_get_token", "forbidden")
    );
}

#[tokio::test]
async fn nobody_but_the_homeserver_is_served_and_no_body_of_theirs_is_read() {
    let bench = bench().await;
    let (longer, wrong) = (format!("Bearer {HS_TOKEN}x"), format!("Bearer {}", &HS_TOKEN[1..]));
    let endless = || Body::from_stream(futures_util::stream::pending::<Result<String, std::io::Error>>());
    for path in [CLIENT, DELEGATE, FEDERATION] {
        for (shown, errcode) in [
            (None, "M_MISSING_TOKEN"),
            (Some("Bearer "), "M_UNKNOWN_TOKEN"),
            (Some("Bearer wrong"), "M_UNKNOWN_TOKEN"),
            (Some(longer.as_str()), "M_UNKNOWN_TOKEN"),
            (Some(wrong.as_str()), "M_UNKNOWN_TOKEN"),
            (Some(HS_TOKEN), "M_MISSING_TOKEN"),
        ] {
            let headers = [("Authorization", shown.unwrap_or("Basic x")), (USER, DANA)];
            let answer = pass(&bench, path, &headers, endless()).await;
            assert_eq!(code(&answer), (401, errcode), "{path} {shown:?}");
        }
    }
    assert!(bench.counted("client_get_token", "unauthorised"));
}

#[tokio::test]
async fn whose_request_it_is_must_be_said_once_and_as_the_endpoint_has_it() {
    let bench = bench().await;
    let asked = with(with(body(), "user_id", json!(FAR)), "delay_id", json!("syd_1")).to_string();
    for (path, headers) in [
        (CLIENT, &[][..]),
        (CLIENT, &[(ORIGIN, "else.example")]),
        (CLIENT, &[(USER, DANA), (ORIGIN, "else.example")]),
        (CLIENT, &[(USER, DANA), (USER, "@eve:lab.example")]),
        (CLIENT, &[(USER, "dana")]),
        (CLIENT, &[(USER, FAR)]), // it speaks for its own users there
        (CLIENT, &[(USER, "")]),
        (DELEGATE, &[(ORIGIN, "else.example")]),
        (FEDERATION, &[]),
        (FEDERATION, &[(USER, FAR)]),
        (FEDERATION, &[(ORIGIN, "else.example"), (USER, FAR)]),
        (FEDERATION, &[(ORIGIN, "else.example"), (ORIGIN, "lab.example")]),
        (FEDERATION, &[(ORIGIN, "else.example/x")]),
    ] {
        let answer = pass(&bench, path, headers, asked.clone()).await;
        assert_eq!(code(&answer), (401, "M_UNAUTHORIZED"), "{path} {headers:?}");
    }
}

#[tokio::test]
async fn a_body_is_judged_before_anybody_is_asked() {
    let own = Own::with(Ok((200, json!({ "jwt": "a.b.c" }))));
    let notebook = Arc::new(Notebook::default());
    let kept = Arc::clone(&notebook);
    let bench = bench_with(Arc::clone(&own), |parts| parts.leaves = Some(kept)).await;
    let deep = "[".repeat(10_000);
    for path in [CLIENT, DELEGATE, FEDERATION] {
        let headers = match path {
            FEDERATION => [(ORIGIN, "else.example")],
            _ => [(USER, DANA)],
        };
        let whole = with(with(body(), "user_id", json!(FAR)), "delay_id", json!("syd_1"));
        for (asked, expected) in [
            (String::new(), (400, "M_NOT_JSON")),
            ("x".to_owned(), (400, "M_NOT_JSON")),
            ("[]".to_owned(), (400, "M_NOT_JSON")),
            (deep.clone(), (400, "M_NOT_JSON")),
            ("x".repeat(20_000), (413, "M_TOO_LARGE")),
            ("{}".to_owned(), (400, "M_BAD_JSON")),
            (with(whole.clone(), "room_id", json!(7)).to_string(), (400, "M_BAD_JSON")),
            (with(whole.clone(), "slot_id", json!("x".repeat(256))).to_string(), (400, "M_BAD_JSON")),
            (with(whole.clone(), "member_id", json!("\u{7}")).to_string(), (400, "M_BAD_JSON")),
            (with(whole.clone(), "url", json!(["x"])).to_string(), (400, "M_BAD_JSON")),
            (
                with(whole.clone(), "url", json!("wss://else.example/livekit/sfu")).to_string(),
                (400, "M_INVALID_PARAM"),
            ),
        ] {
            let answer = pass(&bench, path, &headers, asked.clone()).await;
            assert_eq!(code(&answer), expected, "{path} {asked:.40}");
        }
    }
    let wrong = with(body(), "server_name", json!("else.example/x")).to_string();
    assert_eq!(code(&pass(&bench, CLIENT, &[(USER, DANA)], wrong).await), (400, "M_BAD_JSON"));
    assert!(own.relayed.lock().unwrap().is_empty() && notebook.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_token_for_the_focus_of_another_homeserver_is_asked_for_there() {
    let own = Own::with(Ok((200, json!({ "jwt": "a.b.c", "new": 1 }))));
    let bench = bench_with(Arc::clone(&own), |_| {}).await;
    let url = "wss://rtc.else.example/livekit/sfu";
    let asked = with(with(body(), "server_name", json!("else.example")), "url", json!(url)).to_string();
    let answer = pass(&bench, CLIENT, &[(USER, DANA)], asked).await;
    assert_eq!(answer, (200, json!({ "jwt": "a.b.c" })));
    let (to, path, relayed) = own.relayed.lock().unwrap().pop().unwrap();
    assert_eq!((to.as_str(), path), ("else.example", FEDERATION));
    assert_eq!(relayed, with(with(body(), "user_id", json!(DANA)), "url", json!(url)));
    assert!(bench.counted("client_get_token", "granted"));
}

#[tokio::test]
async fn what_another_homeserver_refuses_is_refused_and_what_it_says_is_not_repeated() {
    let words = json!({ "errcode": "M_SECRET", "error": "@dana:lab.example is not in !r" });
    for (there, expected) in [
        (Ok((400, words.clone())), (400, "M_INVALID_PARAM")),
        (Ok((403, words.clone())), (403, "M_FORBIDDEN")),
        (Ok((404, words.clone())), (404, "M_UNRECOGNIZED")), // clients try OpenID upon it
        (Ok((429, words.clone())), (429, "M_LIMIT_EXCEEDED")),
        (Ok((500, words.clone())), (502, "M_UNKNOWN")),
        (Ok((200, words)), (502, "M_UNKNOWN")),
        (Err(Unanswered("no route to 10.0.0.1".to_owned())), (502, "M_UNKNOWN")),
    ] {
        let bench = bench_with(Own::with(there), |_| {}).await;
        let asked = with(body(), "server_name", json!("else.example")).to_string();
        let answer = pass(&bench, CLIENT, &[(USER, DANA)], asked).await;
        assert_eq!(code(&answer), expected);
        let text = answer.1.to_string();
        assert!(!text.contains("dana") && !text.contains("SECRET") && !text.contains("10.0.0.1"), "{text}");
    }
}

#[tokio::test]
async fn a_homeserver_that_never_answers_is_given_up_and_holds_up_its_own_askers_alone() {
    let bench = Arc::new(bench().await);
    tokio::time::pause();
    let mute = with(body(), "server_name", json!("mute.example")).to_string();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let (bench, mute) = (Arc::clone(&bench), mute.clone());
        waiting.spawn(async move { pass(&bench, CLIENT, &[(USER, DANA)], mute).await.0 });
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    let asked = with(body(), "server_name", json!("else.example")).to_string();
    let quick = tokio::time::timeout(Duration::from_millis(10), pass(&bench, CLIENT, &[(USER, DANA)], asked));
    assert_eq!(quick.await.unwrap().0, 200);
    let all = tokio::time::timeout(Duration::from_secs(25), waiting.join_all()).await.unwrap();
    let busy = all.iter().filter(|status| **status == 429).count();
    assert!(busy > 0 && all.iter().all(|status| [429, 502].contains(status)), "{busy} of {}", all.len());
}

#[tokio::test]
async fn the_policy_decides_as_for_everybody_before_another_homeserver_is_asked() {
    for (denied, expected) in
        [(Denied::NotAllowed, (403, "M_FORBIDDEN")), (Denied::Undecided, (503, "M_UNKNOWN"))]
    {
        let own = Own::with(Ok((200, json!({ "jwt": "a.b.c" }))));
        let bench = bench_with(Arc::clone(&own), |parts| {
            parts.policy = Arc::new(Nobody(denied));
            parts.leaves = Some(Arc::new(Notebook::default()));
        })
        .await;
        let mut answers = Vec::new();
        for room in ["!focus:lab.example", "!nothing:nowhere.example", "not a room"] {
            let asked = with(with(body(), "room_id", json!(room)), "delay_id", json!("syd_1"));
            for (path, header, asked) in [
                (CLIENT, (USER, DANA), asked.clone()),
                (CLIENT, (USER, DANA), with(asked.clone(), "server_name", json!("else.example"))),
                (DELEGATE, (USER, DANA), asked.clone()),
                (FEDERATION, (ORIGIN, "else.example"), with(asked.clone(), "user_id", json!(FAR))),
            ] {
                answers.push(pass(&bench, path, &[header], asked.to_string()).await);
            }
        }
        assert_eq!(code(&answers[0]), expected);
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
        assert!(own.relayed.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_leave_is_taken_on_with_what_the_homeserver_knows_of_it() {
    let notebook = Arc::new(Notebook::default());
    let kept = Arc::clone(&notebook);
    let own = Own::with(Err(Unanswered(String::new())));
    let bench = bench_with(own, |parts| parts.leaves = Some(kept)).await;
    let leave = with(body(), "delay_id", json!("syd_1"));
    let ask = async |user, asked: &Value| pass(&bench, DELEGATE, &[(USER, user)], asked.to_string()).await;
    assert_eq!(ask(DANA, &leave).await, (200, json!({})));
    let delegation = notebook.0.lock().unwrap().pop().unwrap();
    assert_eq!((delegation.delay_id.as_str(), delegation.timeout), ("syd_1", Duration::from_secs(9)));
    assert_eq!(delegation.identities, ["douFoJnidrSFD60n+rcqIz8WtF+56c7DnWPRYxzfHeU"]);
    assert!(delegation.is_alone && delegation.cs_api_url.is_none());
    // One of somebody else, one of another room, one that is not there: nobody learns which.
    let foreign = ask("@eve:lab.example", &leave).await;
    assert_eq!(code(&foreign), (400, "M_INVALID_PARAM"));
    assert_eq!(ask(DANA, &with(leave.clone(), "room_id", json!("!other:lab.example"))).await, foreign);
    assert_eq!(ask(DANA, &with(leave.clone(), "delay_id", json!("syd_2"))).await, foreign);
    let elsewhere = ask(DANA, &with(leave.clone(), "server_name", json!("else.example"))).await;
    assert_eq!(code(&elsewhere), (400, "M_INVALID_PARAM"));
    assert_eq!(code(&ask(DANA, &with(leave.clone(), "delay_id", json!(null))).await), (400, "M_BAD_JSON"));
    assert!(notebook.0.lock().unwrap().is_empty());

    let watching = bench_with(Own::with(Err(Unanswered(String::new()))), |parts| {
        let none = Servers::Listed(Vec::new());
        parts.policy = Arc::new(ByServer { creators: none.clone(), publishers: none });
        parts.leaves = Some(Arc::new(Notebook::default()));
    })
    .await;
    let answer = pass(&watching, DELEGATE, &[(USER, DANA)], leave.to_string()).await;
    assert_eq!(code(&answer), (403, "M_FORBIDDEN"));
    let away = Own { there: Err(Unanswered(String::new())), relayed: Mutex::default(), is_away: true };
    let away = bench_with(Arc::new(away), |parts| parts.leaves = Some(Arc::new(Notebook::default()))).await;
    let answer = pass(&away, DELEGATE, &[(USER, DANA)], leave.to_string()).await;
    assert_eq!(code(&answer), (503, "M_UNKNOWN"));
}

#[tokio::test]
async fn where_the_homeserver_passes_nothing_on_there_is_nothing() {
    let bench = Bench::new(|_| {}).await;
    for path in [CLIENT, DELEGATE, FEDERATION] {
        let request = Request::builder().method("POST").uri(path).body(Body::empty()).unwrap();
        assert_eq!(bench.ask(request).await.0, 418, "it is left to what is behind");
    }
}
