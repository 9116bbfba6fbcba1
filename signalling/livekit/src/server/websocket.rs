//! One client's WebSocket: protobuf in binary frames, or its JSON form in text frames, as the client prefers.

use std::time::Duration;

use axum::extract::ws::{Message as Frame, WebSocket};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use livekit_protocol as proto;
use prost::Message;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::time::Instant;

use super::{Input, Joined, Server, outbox};

/// The largest message taken from a client, in bytes: an offer of hundreds of m-lines, or 512 KiB of metadata.
pub(super) const MAX_MESSAGE_BYTES: usize = 2 * 1024 * 1024;
/// What is read of a socket at a time, and held for it as long as it is open. The library's 128 KiB would be most of the
/// memory that an idle participant costs; longer messages grow it.
pub(super) const READ_BUFFER_BYTES: usize = 4 * 1024;
/// So that middleboxes keep the connection, and dead ones are noticed.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// A socket that takes no frame for this long is dead.
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);

/// A client from which nothing came for this long, not even an answer to a ping, is gone without a word. Its media
/// may be well: it keeps its place in the room.
const SILENCE: Duration = Duration::from_secs(35);
/// Messages that a client may send at once, and each second after that. It is kept waiting beyond, not closed: who
/// scrolls through a call of hundreds has that much to say, but nobody for long.
const BURST: f64 = 1_000.0;
const RATE: f64 = 100.0;

/// How much a client may still say.
struct Allowance {
    left: f64,
    at: Instant,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { left: BURST, at: Instant::now() }
    }
}

impl Allowance {
    async fn spend(&mut self) {
        let now = Instant::now();
        self.left = (self.left + (now - self.at).as_secs_f64() * RATE).min(BURST) - 1.0;
        self.at = now;
        if self.left < 0.0 {
            tokio::time::sleep(Duration::from_secs_f64(-self.left / RATE)).await;
        }
    }
}

/// Serves a client until either side is done.
pub(super) async fn serve(server: Arc<Server>, socket: WebSocket, joined: Joined) {
    let (sink, stream) = socket.split();
    let Joined { connection, room, outbox, asked_at } = joined;
    let json = AtomicBool::new(false);
    let answered = || {
        let took = asked_at.elapsed();
        server.metrics.answered_join(took);
        tracing::debug!(connection = connection.0, took_ms = took.as_millis() as u64, "a join was answered");
    };
    let Some(inputs) = room else { return write(sink, outbox, &json, answered).await };
    tokio::select! {
        () = write(sink, outbox, &json, answered) => {}
        () = read(&server, stream, connection, &inputs, &json) => {}
    }
    let _ = inputs.send(Input::Closed { connection }).await;
}

async fn read(
    server: &Server,
    mut stream: SplitStream<WebSocket>,
    connection: crate::ids::ConnectionId,
    inputs: &tokio::sync::mpsc::Sender<Input>,
    json: &AtomicBool,
) {
    let mut allowance = Allowance::default();
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(SILENCE, stream.next()).await {
        allowance.spend().await;
        let request = match frame {
            Frame::Binary(bytes) => {
                json.store(false, Ordering::Relaxed);
                proto::SignalRequest::decode(bytes).ok()
            }
            Frame::Text(text) => {
                json.store(true, Ordering::Relaxed);
                serde_json::from_str::<proto::SignalRequest>(&text).ok()
            }
            Frame::Ping(_) | Frame::Pong(_) => continue,
            Frame::Close(_) => return,
        };
        let Some(request) = request else {
            server.metrics.malformed_messages.inc();
            continue;
        };
        // A message newer than this protocol has no content that is known here.
        if let Some(message) = request.message.map(Box::new)
            && inputs.send(Input::Message { connection, message }).await.is_err()
        {
            return;
        }
    }
}

/// Tells when the first message is on its way.
async fn write(
    mut sink: SplitSink<WebSocket, Frame>,
    mut outbox: outbox::Receiver,
    json: &AtomicBool,
    began: impl FnOnce(),
) {
    let mut began = Some(began);
    // Not an interval that begins now: a tick that is due waits for the clock's next millisecond, and the join with it.
    let mut ping = tokio::time::interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
    loop {
        let frame = tokio::select! {
            message = outbox.recv() => match message {
                Some(message) if json.load(Ordering::Relaxed) => Frame::Text(to_json(&message).into()),
                Some(message) => Frame::Binary(message),
                None => break,
            },
            _ = ping.tick() => Frame::Ping(Bytes::new()),
        };
        match tokio::time::timeout(WRITE_TIMEOUT, sink.send(frame)).await {
            Ok(Ok(())) => {}
            _ => return,
        }
        if let Some(began) = began.take() {
            began();
        }
    }
    let _ = tokio::time::timeout(WRITE_TIMEOUT, sink.close()).await;
}

fn to_json(message: &Bytes) -> String {
    let response = proto::SignalResponse::decode(message.clone()).unwrap_or_default();
    serde_json::to_string(&response).unwrap_or_default()
}
