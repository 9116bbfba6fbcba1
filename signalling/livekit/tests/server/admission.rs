//! Who gets in, and the status codes by which clients decide what to do otherwise.

use std::time::Duration;

use livekit_protocol as proto;
use livekit_protocol::signal_response::Message as Response;

use crate::harness::{TestServer, join_request, refusal, token};

fn v1() -> String {
    join_request(&proto::JoinRequest::default())
}

/// Both ways to ask for admission, over both versions: all must say the same.
async fn verdicts(server: &TestServer, query: &str) -> (u16, String) {
    let mut verdicts = Vec::new();
    for (path, extra) in [("/rtc", String::new()), ("/rtc/v1", format!("&join_request={}", v1()))] {
        let target = format!("{path}?{query}{extra}");
        verdicts.push(refusal(server.open(&target).await));
        let answer = server.get(&target.replace('?', "/validate?")).await;
        verdicts.push((answer.status, answer.body));
    }
    let first = verdicts[0].clone();
    assert!(verdicts.iter().all(|verdict| *verdict == first), "{verdicts:?}");
    first
}

#[tokio::test(start_paused = true)]
async fn a_good_token_is_valid_and_joins_over_both_versions() {
    let server = TestServer::new();
    let token = token("alice", |_| {});
    for target in
        [format!("/rtc?access_token={token}"), format!("/rtc/v1?access_token={token}&join_request={}", v1())]
    {
        let answer = server.get(&target.replace('?', "/validate?")).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "success"));
        let mut socket = server.open(&target).await.unwrap();
        assert!(matches!(socket.next().await, Some(Response::Join(_))));
    }
    assert_eq!(server.metric("weir_join_seconds"), 2.0, "validating is no join");
}

#[tokio::test(start_paused = true)]
async fn bad_tokens_are_unauthorised() {
    let server = TestServer::new();
    for query in [
        String::new(),
        "access_token=".to_owned(),
        "access_token=x.y.z".to_owned(),
        format!("access_token={}", token("alice", |claims| claims.exp = Some(1))),
        format!("access_token={}", token("alice", |claims| claims.exp = None)),
        format!("access_token={}", token("alice", |claims| claims.video.room_join = false)),
        format!("access_token={}x", token("alice", |_| {})),
    ] {
        assert_eq!(verdicts(&server, &query).await.0, 401, "{query}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_header_wins_over_the_query() {
    let server = TestServer::new();
    let good = token("alice", |_| {});
    let target = format!("/rtc/validate?access_token={good}");
    for (header, status) in
        [(format!("Bearer {good}"), 200), ("Bearer nonsense".to_owned(), 401), (good.clone(), 401)]
    {
        let answer = server.ask("GET", &target, &[("Authorization", &header)]).await;
        assert_eq!(answer.status, status, "{header}");
    }
}

#[tokio::test(start_paused = true)]
async fn names_that_are_missing_or_too_long_are_bad_requests() {
    let server = TestServer::new();
    for token in [
        token("", |_| {}),
        token(&"x".repeat(257), |_| {}),
        token("alice", |claims| claims.video.room = String::new()),
        token("alice", |claims| claims.video.room = "x".repeat(257)),
    ] {
        assert_eq!(verdicts(&server, &format!("access_token={token}")).await.0, 400);
    }
}

#[tokio::test(start_paused = true)]
async fn a_join_request_that_is_missing_or_broken_is_a_bad_request() {
    let server = TestServer::new();
    let token = token("alice", |_| {});
    for blob in ["", "&join_request=", "&join_request=%C2%A7", "&join_request=____"] {
        let answer = server.get(&format!("/rtc/v1/validate?access_token={token}{blob}")).await;
        let empty_is_a_request = blob == "&join_request=";
        assert_eq!(answer.status, if empty_is_a_request { 200 } else { 400 }, "{blob}");
    }
}

#[tokio::test(start_paused = true)]
async fn metadata_without_the_grant_is_unauthorised() {
    let server = TestServer::new();
    let token = token("alice", |_| {});
    let query = format!("access_token={token}&attributes=eyJhIjoiYiJ9");
    let answer = server.get(&format!("/rtc/validate?{query}")).await;
    assert_eq!(answer.status, 401);
    assert_eq!(refusal(server.open(&format!("/rtc?{query}")).await).0, 401);
}

#[tokio::test(start_paused = true)]
async fn a_room_that_may_not_be_created_is_not_found_by_the_phrase_that_clients_look_for() {
    let server = TestServer::with(|config| config.auto_create = false);
    let plain = format!("access_token={}", token("alice", |_| {}));
    let (status, body) = verdicts(&server, &plain).await;
    assert_eq!(status, 404);
    assert!(body.contains("requested room does not exist"), "{body}");
    let creating = token("alice", |claims| claims.video.room_create = true);
    let target = format!("/rtc/validate?access_token={creating}");
    assert_eq!(server.get(&target).await.status, 200);
}

/// After a restart, people of other servers used to be back before those who may open the room, and stayed out.
#[tokio::test(start_paused = true)]
async fn a_missing_room_is_worth_another_try_just_after_the_start() {
    let server = TestServer::with(|config| {
        config.auto_create = false;
        config.settling = Duration::from_secs(30);
    });
    let query = format!("access_token={}", token("alice", |_| {}));
    assert_eq!(verdicts(&server, &query).await.0, 503);
    assert!(server.server.open("room"));
    assert_eq!(server.get(&format!("/rtc/validate?{query}")).await.status, 200);
    tokio::time::sleep(Duration::from_secs(30)).await;
    let query = format!("access_token={}", token("alice", |claims| claims.video.room = "other".to_owned()));
    assert_eq!(verdicts(&server, &query).await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn a_room_opened_ahead_is_found_by_those_who_may_not_create_it_until_nobody_came() {
    let server = TestServer::with(|config| {
        config.auto_create = false;
        config.room.empty_timeout = Duration::from_secs(300);
    });
    let query = format!("access_token={}", token("alice", |_| {}));
    assert_eq!(verdicts(&server, &query).await.0, 404);
    assert!(server.server.open("room"));
    assert!(server.server.open("room"), "once more changes nothing");
    assert_eq!(server.get(&format!("/rtc/validate?{query}")).await.status, 200);
    assert_eq!(server.metric("weir_rooms"), 1.0);
    tokio::time::sleep(Duration::from_secs(301)).await;
    assert_eq!(verdicts(&server, &query).await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn a_full_room_is_out_of_capacity_but_not_for_those_who_are_in() {
    let server = TestServer::with(|config| config.room.limits.participants = 1);
    let mut alice = server.join("alice").await;
    let bob = format!("access_token={}", token("bob", |_| {}));
    assert_eq!(verdicts(&server, &bob).await.0, 503);
    let target = format!("/rtc?access_token={}&protocol=17", token("alice", |_| {}));
    let _again = server.open(&target).await.unwrap();
    let reason = alice.wait(|message| match message {
        Response::Leave(leave) => Some(leave.reason()),
        _ => None,
    });
    assert_eq!(reason.await, proto::DisconnectReason::DuplicateIdentity);
}

#[tokio::test(start_paused = true)]
async fn a_resume_of_what_is_not_there_opens_and_says_to_start_over() {
    let server = TestServer::with(|config| config.auto_create = false);
    let token = token("alice", |_| {});
    let resume = proto::JoinRequest {
        reconnect: true,
        participant_sid: "PA_x".to_owned(),
        ..proto::JoinRequest::default()
    };
    for target in [
        format!("/rtc?access_token={token}&reconnect=1&sid=PA_x"),
        format!("/rtc/v1?access_token={token}&join_request={}", join_request(&resume)),
    ] {
        let mut socket = server.open(&target).await.unwrap();
        let Some(Response::Leave(leave)) = socket.next().await else {
            panic!("the first message is a leave")
        };
        assert_eq!(leave.reason(), proto::DisconnectReason::StateMismatch);
        assert_eq!(leave.action(), proto::leave_request::Action::Reconnect);
        assert!(socket.next().await.is_none(), "and it is the last");
    }
    assert_eq!(server.metric("weir_rooms"), 0.0, "no room is made for it");
}

#[tokio::test(start_paused = true)]
async fn paths_that_are_not_there_and_plain_requests_for_a_websocket_are_not_found() {
    let server = TestServer::new();
    let token = token("alice", |_| {});
    for target in ["/rtc/v2", "/twirp/x", "/rtc/validate/more", &format!("/rtc?access_token={token}")] {
        let answer = server.get(target).await;
        assert_eq!(answer.status, 404, "{target}");
        assert!(!answer.body.contains("requested room does not exist"), "{}", answer.body);
    }
}

#[tokio::test(start_paused = true)]
async fn prefixes_and_double_slashes_are_tolerated() {
    let server = TestServer::new();
    let token = token("alice", |_| {});
    for path in ["/livekit/sfu/rtc/validate", "//rtc/validate"] {
        let answer = server.get(&format!("{path}?access_token={token}")).await;
        assert_eq!(answer.status, 200, "{path}");
    }
    // Web clients whose browser is online again come back at once only if this says that their base URL is there.
    let answer = server.ask("HEAD", "/livekit/sfu", &[("Origin", "https://call.example")]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["access-control-allow-origin"], "https://call.example");
    assert_eq!(server.get("/livekit/sfu").await.status, 404, "it is no endpoint");
}

#[tokio::test(start_paused = true)]
async fn the_root_says_that_the_focus_is_well() {
    let server = TestServer::new();
    for method in ["GET", "HEAD"] {
        assert_eq!(server.ask(method, "/", &[]).await.status, 200);
    }
    assert_eq!(server.ask("DELETE", "/", &[]).await.status, 405);
}

#[tokio::test(start_paused = true)]
async fn any_web_page_may_read_every_answer() {
    let server = TestServer::new();
    let origin = [("Origin", "https://call.example")];
    for (target, allowed) in
        [("/", "https://call.example"), ("/nothing", "https://call.example"), ("/rtc/validate", "*")]
    {
        let answer = server.ask("GET", target, &origin).await;
        assert_eq!(answer.headers["access-control-allow-origin"], allowed, "{target}");
    }
    let preflight = [
        ("Origin", "https://call.example"),
        ("Access-Control-Request-Method", "GET"),
        ("Access-Control-Request-Headers", "authorization"),
    ];
    let answer = server.ask("OPTIONS", "/rtc/validate", &preflight).await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.headers["access-control-allow-headers"], "authorization");
    assert!(answer.headers["access-control-allow-methods"].contains("GET"));
    assert_eq!(answer.headers["access-control-max-age"], "86400");
    let answer = server.ask("OPTIONS", "/rtc/validate", &preflight[..2]).await;
    assert!(answer.headers.contains_key("access-control-allow-methods"), "without headers as well");
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_too_large_are_refused_and_not_read_to_the_end() {
    let server = TestServer::new();
    let answer = server.get(&format!("/rtc/validate?access_token={}", "x".repeat(70_000))).await;
    assert_eq!(answer.status, 414);
    let answer = server.ask("GET", "/", &[("X-Large", &"x".repeat(1_000_000))]).await;
    assert_eq!(answer.status, 431);
    let raw = server.send_raw(b"\x16\x03\x01 this is TLS\r\n\r\n").await;
    assert!(raw.is_empty() || raw.starts_with("HTTP/1.1 400"), "{raw}");
}

#[tokio::test(start_paused = true)]
async fn nobody_joins_a_focus_that_shuts_down() {
    let server = TestServer::new();
    let mut alice = server.join("alice").await;
    server.server.shutdown(crate::harness::SECOND).await;
    let reason = alice.wait(|message| match message {
        Response::Leave(leave) => Some(leave.reason()),
        _ => None,
    });
    assert_eq!(reason.await, proto::DisconnectReason::ServerShutdown);
    assert_eq!(verdicts(&server, &format!("access_token={}", token("bob", |_| {}))).await.0, 503);
}
