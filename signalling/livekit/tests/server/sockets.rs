//! WebSockets that are slow, silent, or say what nobody should.

use futures_util::SinkExt;
use livekit_protocol as proto;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::harness::{SECOND, TestServer, join_request, token};

fn pong(message: &Response) -> Option<i64> {
    match message {
        Response::PongResp(pong) => Some(pong.last_ping_timestamp),
        _ => None,
    }
}

fn ping(timestamp: i64) -> Request {
    Request::PingReq(proto::Ping { timestamp, rtt: 0 })
}

#[tokio::test(start_paused = true)]
async fn a_head_that_never_ends_is_not_waited_for() {
    let server = TestServer::new();
    let started = tokio::time::Instant::now();
    let answer = server.send_raw(b"GET / HTTP/1.1\r\nHost: fo").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(started.elapsed() < 15 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_join_is_answered_before_the_clock_moves() {
    let server = TestServer::new();
    // Timers wait for whole milliseconds; now is not one.
    tokio::time::advance(SECOND / 3_000).await;
    let started = tokio::time::Instant::now();
    server.join("alice").await;
    assert_eq!(started.elapsed().as_nanos(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_websocket_on_which_nothing_is_heard_is_closed() {
    let server = TestServer::new();
    let mut alice = server.join("alice").await;
    let started = tokio::time::Instant::now();
    // It does not even answer pings: nobody reads.
    tokio::time::sleep(60 * SECOND).await;
    while alice.next().await.is_some() {}
    assert!(started.elapsed() < 90 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_only_answers_pings_stays() {
    let server = TestServer::new();
    let blob = join_request(&proto::JoinRequest::default());
    let target = format!("/rtc/v1?access_token={}&join_request={blob}", token("alice", |_| {}));
    let mut alice = server.open(&target).await.unwrap();
    // Reading answers the server's pings.
    let heard = tokio::time::timeout(50 * SECOND, async { while alice.next().await.is_some() {} }).await;
    assert!(heard.is_err(), "the WebSocket is still open");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_is_cut_and_the_others_go_on() {
    let server = TestServer::new();
    let mut alice = server.join("alice").await;
    let _slow = server.join("slow").await; // and never reads again
    let renaming = token("renamer", |claims| claims.video.can_update_own_metadata = Some(true));
    let mut renamer = server.open(&format!("/rtc?protocol=17&access_token={renaming}")).await.unwrap();
    for number in 0..40 {
        let metadata = format!("{number}{}", "x".repeat(400_000));
        renamer
            .say(Request::UpdateMetadata(proto::UpdateParticipantMetadata { metadata, ..Default::default() }))
            .await;
        let told = |message: &Response| match message {
            Response::Update(update) => {
                let prefix = format!("{number}x");
                update.participants.iter().any(|person| person.metadata.starts_with(&prefix)).then_some(())
            }
            _ => None,
        };
        alice.wait(told).await;
        renamer.wait(told).await;
    }
    assert_eq!(server.metric("weir_signal_slow_clients_total"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn garbage_is_counted_and_the_session_goes_on() {
    let server = TestServer::new();
    let mut alice = server.join("alice").await;
    for frame in [
        Frame::Binary(vec![0xff; 100].into()),
        Frame::Text("{".into()),
        // Nothing that is known here: it may be of a newer protocol.
        Frame::Text("{\"nonsense\":1}".into()),
        Frame::Binary(Vec::new().into()),
    ] {
        alice.0.send(frame).await.unwrap();
    }
    alice.say(ping(5)).await;
    assert_eq!(alice.wait(pong).await, 5);
    assert_eq!(server.metric("weir_signal_malformed_messages_total"), 2.0);
}

#[tokio::test(start_paused = true)]
async fn a_message_over_the_limit_closes_the_websocket() {
    let server = TestServer::new();
    let mut alice = server.join("alice").await;
    let _ = alice.0.send(Frame::Binary(vec![0; 3 * 1024 * 1024].into())).await;
    while alice.next().await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn who_speaks_json_is_answered_in_json() {
    let server = TestServer::new();
    let mut alice = server.join("alice").await;
    alice.0.send(Frame::Text("{\"pingReq\":{\"timestamp\":\"7\"}}".into())).await.unwrap();
    use futures_util::StreamExt;
    loop {
        if let Some(Ok(Frame::Text(text))) = alice.0.next().await {
            assert!(text.contains("pongResp") && text.contains("\"7\""), "{text}");
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_slowed_down_and_loses_nothing() {
    let server = TestServer::new();
    let alice = server.join("alice").await;
    let started = tokio::time::Instant::now();
    let (mut sink, mut stream) = futures_util::StreamExt::split(alice.0);
    let flood = tokio::spawn(async move {
        for number in 0..2_000 {
            let bytes = prost::Message::encode_to_vec(&proto::SignalRequest { message: Some(ping(number)) });
            sink.send(Frame::Binary(bytes.into())).await.unwrap();
        }
        sink
    });
    let mut pongs = 0;
    while pongs < 2_000 {
        let frame = futures_util::StreamExt::next(&mut stream).await.unwrap().unwrap();
        if let Frame::Binary(bytes) = frame {
            let message = <proto::SignalResponse as prost::Message>::decode(bytes).unwrap().message;
            pongs += usize::from(message.as_ref().and_then(pong).is_some());
        }
    }
    drop(flood.await.unwrap());
    let took = started.elapsed();
    assert!(took > 5 * SECOND && took < 15 * SECOND, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_closed_websocket_before_any_media_is_a_participant_less() {
    let server = TestServer::new();
    let mut alice = server.join("alice").await;
    let bob = server.join("bob").await;
    drop(bob);
    let gone = alice.wait(|message| match message {
        Response::Update(update) => {
            let gone = proto::participant_info::State::Disconnected as i32;
            update.participants.iter().find(|person| person.state == gone).cloned()
        }
        _ => None,
    });
    assert_eq!(gone.await.identity, "bob");
    assert_eq!(server.metric("weir_participants"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn rooms_end_when_everybody_has_left() {
    let server = TestServer::new();
    let mut alice = server.join("alice").await;
    assert_eq!(server.metric("weir_rooms"), 1.0);
    alice.say(Request::Leave(proto::LeaveRequest::default())).await;
    while alice.next().await.is_some() {}
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!(server.metric("weir_rooms"), 0.0);
}
