//! A server over connections in memory, and a plane that takes every command and says nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use futures_util::{SinkExt, StreamExt};
use livekit_protocol as proto;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{Notify, mpsc};
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::{WebSocketStream, client_async};
use weir_livekit::server::serve_connection;
use weir_livekit::token::{self, Claims, Keys, VideoGrant};
use weir_livekit::{Link, Plane, RoomConfig, Server, ServerConfig, Supervision};
use weir_units::ids::ConferenceId;

pub const SECOND: Duration = Duration::from_secs(1);
const SECRET: &str = "a secret of thirty-two characters";

#[derive(Default)]
struct SilentPlane {
    /// Told when the shards end.
    end: Arc<Notify>,
}

impl Plane for SilentPlane {
    fn open(&self, _conference: ConferenceId) -> Option<Link> {
        let (commands, mut taken) = mpsc::channel(64);
        let (events_in, events) = mpsc::channel(64);
        let end = Arc::clone(&self.end);
        tokio::spawn(async move {
            let take_all = async { while taken.recv().await.is_some() {} };
            tokio::select! {
                () = take_all => {}
                () = end.notified() => {}
            }
            drop(events_in);
        });
        Some(Link {
            ufrag_prefix: 'A',
            fingerprint: [1; 32],
            candidates: Vec::new(),
            commands,
            wake: Arc::new(|| {}),
            events,
        })
    }

    fn close(&self, _conference: ConferenceId) {}
}

pub struct TestServer {
    pub server: Arc<Server>,
    pub registry: prometheus::Registry,
    /// Told, it ends the shards of the rooms that there are.
    pub end_of_shards: Arc<Notify>,
}

/// What came back of a plain request.
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl TestServer {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        Self::supervised(Supervision::default(), change)
    }

    pub fn supervised(supervision: Supervision, change: impl FnOnce(&mut ServerConfig)) -> Self {
        let keys = Keys::new([("key".to_owned(), SECRET.to_owned())]);
        let room = RoomConfig { keys, ..RoomConfig::default() };
        let mut config = ServerConfig { room, ..ServerConfig::default() };
        change(&mut config);
        let registry = prometheus::Registry::new();
        let plane = SilentPlane::default();
        let end_of_shards = Arc::clone(&plane.end);
        let server = Server::new(config, Arc::new(plane), supervision, &registry).unwrap();
        Self { server, registry, end_of_shards }
    }

    /// A counter or gauge, or how often something was measured; its labels' values added up.
    pub fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.unwrap_or_else(|| panic!("there is no {name}")).get_metric();
        let value = |metric: &prometheus::proto::Metric| {
            let measured = metric.get_histogram().get_sample_count() as f64;
            metric.get_counter().get_value() + metric.get_gauge().get_value() + measured
        };
        metrics.iter().map(value).sum()
    }

    pub fn connect(&self) -> DuplexStream {
        let (near, far) = tokio::io::duplex(64 * 1024);
        tokio::spawn(serve_connection(far, self.server.router()));
        near
    }

    /// Sends a request head and reads until the connection closes.
    pub async fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: focus\r\nConnection: close\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        let raw = self.send_raw(format!("{head}\r\n").as_bytes()).await;
        let (head, body) = raw.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {raw:?}"));
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap().parse().unwrap();
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        Answer { status, headers, body: body.to_owned() }
    }

    pub async fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, &[]).await
    }

    /// What comes back for these bytes until the connection closes.
    pub async fn send_raw(&self, bytes: &[u8]) -> String {
        let (mut read, mut write) = tokio::io::split(self.connect());
        let bytes = bytes.to_vec();
        tokio::spawn(async move {
            let _ = write.write_all(&bytes).await;
            std::future::pending::<()>().await;
        });
        let mut answer = Vec::new();
        let _ = read.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub async fn open(&self, target: &str) -> Result<Socket, tungstenite::Error> {
        let (socket, _) = client_async(format!("ws://focus{target}"), self.connect()).await?;
        Ok(Socket(socket))
    }

    /// Joins over v0 and hears the first message.
    pub async fn join(&self, identity: &str) -> Socket {
        let target = format!("/rtc?protocol=17&access_token={}", token(identity, |_| {}));
        let mut socket = self.open(&target).await.unwrap();
        let first = socket.next().await;
        assert!(matches!(first, Some(Response::Join(_))), "{first:?}");
        socket
    }
}

/// The status of a refused WebSocket, and its body.
pub fn refusal(result: Result<Socket, tungstenite::Error>) -> (u16, String) {
    match result {
        Err(tungstenite::Error::Http(response)) => {
            let body = response.body().clone().unwrap_or_default();
            (response.status().as_u16(), String::from_utf8_lossy(&body).into_owned())
        }
        Err(error) => panic!("no HTTP answer: {error}"),
        Ok(_) => panic!("the WebSocket opened"),
    }
}

pub struct Socket(pub WebSocketStream<DuplexStream>);

impl Socket {
    /// The next message; `None` when the server has closed.
    pub async fn next(&mut self) -> Option<Response> {
        loop {
            match self.0.next().await? {
                Ok(tungstenite::Message::Binary(bytes)) => {
                    return proto::SignalResponse::decode(bytes).unwrap().message;
                }
                Ok(tungstenite::Message::Text(text)) => {
                    return serde_json::from_str::<proto::SignalResponse>(&text).unwrap().message;
                }
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    /// Hears until `pick` takes something.
    pub async fn wait<T>(&mut self, pick: impl Fn(&Response) -> Option<T>) -> T {
        loop {
            let message = self.next().await.expect("the server goes on");
            if let Some(found) = pick(&message) {
                return found;
            }
        }
    }

    pub async fn say(&mut self, message: Request) {
        let bytes = proto::SignalRequest { message: Some(message) }.encode_to_vec();
        self.0.send(tungstenite::Message::Binary(bytes.into())).await.unwrap();
    }
}

#[expect(clippy::disallowed_methods, reason = "the server judges tokens by the wall clock")]
fn unix_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

pub fn token(identity: &str, change: impl FnOnce(&mut Claims)) -> String {
    let mut claims = Claims {
        iss: "key".to_owned(),
        sub: identity.to_owned(),
        exp: Some(unix_now() + 3_600),
        video: VideoGrant { room: "room".to_owned(), room_join: true, ..VideoGrant::default() },
        ..Claims::default()
    };
    change(&mut claims);
    token::sign(&Keys::new([("key".to_owned(), SECRET.to_owned())]), &claims).unwrap()
}

/// As clients of `/rtc/v1` put their wishes into the query.
pub fn join_request(request: &proto::JoinRequest) -> String {
    let wrapped = proto::WrappedJoinRequest { compression: 0, join_request: request.encode_to_vec() };
    base64::engine::general_purpose::URL_SAFE.encode(wrapped.encode_to_vec())
}
