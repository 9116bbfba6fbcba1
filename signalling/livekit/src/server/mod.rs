//! The server around the rooms: which exist, and one task for each.

mod http;
mod listen;
mod metrics;
mod outbox;
mod task;
mod websocket;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use livekit_protocol::signal_request::Message as Request;
use rand::Rng;
use tokio::sync::{mpsc, oneshot, watch};
use weir_units::ids::ConferenceId;

use crate::ids::{ConnectionId, IdSource};
use crate::join::JoinParameters;
use crate::plane::Plane;
use crate::room::{self, JoinError, LocalMedia, Now, Room, RoomConfig};
use crate::supervision::{EvictionReason, Supervision};
use crate::token::Claims;
use metrics::Metrics;

pub use listen::{serve, serve_connection};

/// Messages waiting for a room. A room handles tens of thousands a second; beyond, sockets wait.
const ROOM_QUEUE: usize = 1_024;
/// Rooms that exist at a time.
const MAX_ROOMS: usize = 100_000;

/// What an operator chose.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    pub room: RoomConfig,
    /// Whether joining creates a room. Otherwise only tokens with `roomCreate` do.
    pub auto_create: bool,
    /// After a start, for this long, whoever may not create a room that is missing is told to try again: those who may
    /// are on their way back to it, and a client takes "not found" as final.
    pub settling: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self { room: RoomConfig::default(), auto_create: true, settling: Duration::ZERO }
    }
}

/// See the module's description.
pub struct Server {
    config: ServerConfig,
    room_config: Arc<RoomConfig>,
    settled_at: Instant,
    plane: Arc<dyn Plane>,
    supervision: Supervision,
    ids: Arc<IdSource>,
    next_connection: AtomicU64,
    rooms: Mutex<HashMap<String, RoomHandle>>,
    metrics: Metrics,
    closing: AtomicBool,
    /// How many clients' sockets are open.
    sockets: watch::Sender<usize>,
}

/// A client's socket is open as long as this lives.
struct OpenSocket(Arc<Server>);

impl OpenSocket {
    fn new(server: Arc<Server>) -> Self {
        server.sockets.send_modify(|open| *open += 1);
        Self(server)
    }
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.0.sockets.send_modify(|open| *open -= 1);
    }
}

/// The way to a room's task.
#[derive(Clone)]
struct RoomHandle {
    inputs: mpsc::Sender<Input>,
    participants: Arc<AtomicUsize>,
}

enum Input {
    Join(Box<Join>),
    Message { connection: ConnectionId, message: Box<Request> },
    Closed { connection: ConnectionId },
    Evict(Eviction),
    Delete,
    ShutDown,
}

struct Eviction {
    identity: String,
    reason: EvictionReason,
    /// Only if its token is void.
    if_void: bool,
    reply: oneshot::Sender<bool>,
}

struct Join {
    connection: ConnectionId,
    claims: Claims,
    parameters: JoinParameters,
    outbox: outbox::Sender,
    reply: oneshot::Sender<Result<(), JoinError>>,
}

/// A client whose WebSocket may open.
struct Joined {
    connection: ConnectionId,
    /// Where what it says goes; nowhere when it is only told to start over.
    room: Option<mpsc::Sender<Input>>,
    outbox: outbox::Receiver,
    /// When it asked.
    asked_at: tokio::time::Instant,
}

/// Why a client does not get in, beyond what its token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum AdmissionError {
    #[error("{0}")]
    Refused(#[from] JoinError),
    // Clients look for this phrase to tell an unknown room from an unknown path.
    #[error("requested room does not exist")]
    NoSuchRoom,
    #[error("the focus has just started, and nobody has opened the room yet")]
    NotYet,
    #[error("the focus takes no more rooms")]
    Full,
    #[error("the focus is shutting down")]
    Closing,
}

impl Server {
    /// Metrics are registered with `registry`; an error means that another server has registered its own there.
    pub fn new(
        config: ServerConfig,
        plane: Arc<dyn Plane>,
        supervision: Supervision,
        registry: &prometheus::Registry,
    ) -> Result<Arc<Self>, prometheus::Error> {
        Ok(Arc::new(Self {
            room_config: Arc::new(config.room.clone()),
            settled_at: now().at + config.settling,
            config,
            plane,
            supervision,
            ids: Arc::new(IdSource::default()),
            next_connection: AtomicU64::new(1),
            rooms: Mutex::new(HashMap::new()),
            metrics: Metrics::new(registry)?,
            closing: AtomicBool::new(false),
            sockets: watch::Sender::new(0),
        }))
    }

    pub fn router(self: &Arc<Self>) -> axum::Router {
        http::router(Arc::clone(self))
    }

    /// Tells every client to go, and waits until all have been told and their sockets closed, or `deadline` has
    /// passed. Nobody joins any more.
    pub async fn shutdown(&self, deadline: Duration) {
        self.closing.store(true, Ordering::SeqCst);
        let rooms: Vec<RoomHandle> = self.lock_rooms().values().cloned().collect();
        let all_closed = async {
            for room in &rooms {
                let _ = room.inputs.send(Input::ShutDown).await;
            }
            for room in &rooms {
                room.inputs.closed().await;
            }
            // What the rooms said last is on its way to the sockets.
            let _ = self.sockets.subscribe().wait_for(|open| *open == 0).await;
        };
        if tokio::time::timeout(deadline, all_closed).await.is_err() {
            let (rooms, sockets) = (self.lock_rooms().len(), *self.sockets.borrow());
            tracing::warn!(rooms, sockets, "clients had not all gone at the shutdown deadline");
        }
    }

    /// Sends a participant away, whom clients then see leave. `false` if it was not there. Its tokens stay as good as they
    /// are: who is to stay away has them voided first, by the [`Gate`](crate::supervision::Gate), and may then be sent away by
    /// [`Self::evict_void`].
    pub async fn evict(&self, room: &str, identity: &str, reason: EvictionReason) -> bool {
        self.evict_one(room, identity, reason, false).await
    }

    /// Sends a participant away if its token is void by now. One that has joined again under the same identity, with a
    /// token that is good, stays.
    pub async fn evict_void(&self, room: &str, identity: &str) -> bool {
        self.evict_one(room, identity, EvictionReason::ParticipantRemoved, true).await
    }

    async fn evict_one(&self, room: &str, identity: &str, reason: EvictionReason, if_void: bool) -> bool {
        let Some(room) = self.find(room) else { return false };
        let (reply, answer) = oneshot::channel();
        let eviction = Eviction { identity: identity.to_owned(), reason, if_void, reply };
        // A room that ends meanwhile has nobody left in it.
        room.inputs.send(Input::Evict(eviction)).await.is_ok() && answer.await.unwrap_or(false)
    }

    /// Sends everybody away and ends the room, if there is one. The next join makes a new one.
    pub async fn close_room(&self, room: &str) {
        if let Some(room) = self.find(room)
            && room.inputs.send(Input::Delete).await.is_ok()
        {
            room.inputs.closed().await;
        }
    }

    /// Whether a join would be let in, as far as can be said without joining. Whether the room has a place left only
    /// the room can say: who is in already may come again.
    fn check_admission(&self, claims: &Claims, parameters: &JoinParameters) -> Result<(), AdmissionError> {
        if self.closing.load(Ordering::SeqCst) {
            return Err(AdmissionError::Closing);
        }
        parameters.check(claims, &self.room_config.limits)?;
        let may_create = self.config.auto_create || claims.video.room_create;
        // A session that is not known here is told to start over, whether or not its room is.
        if !may_create && parameters.resume.is_none() && !self.lock_rooms().contains_key(&claims.video.room) {
            let settles = now().at < self.settled_at;
            return Err(if settles { AdmissionError::NotYet } else { AdmissionError::NoSuchRoom });
        }
        Ok(())
    }

    /// Whether the room, if it exists, has as many participants as it takes.
    fn is_full(&self, room: &str) -> bool {
        let limit = self.room_config.limits.participants;
        let participants = |room: &RoomHandle| room.participants.load(Ordering::Relaxed);
        limit > 0 && self.lock_rooms().get(room).map_or(0, participants) >= limit
    }

    /// Brings a client into its room, which is created if need be.
    async fn join(
        self: &Arc<Self>,
        asked_at: tokio::time::Instant,
        claims: Claims,
        parameters: JoinParameters,
    ) -> Result<Joined, AdmissionError> {
        self.check_admission(&claims, &parameters)?;
        let connection = ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed));
        // A room may end between finding and entering it; the next one then is new.
        for _ in 0..3 {
            let (outbox_in, outbox) = outbox::channel();
            let known = self.find(&claims.video.room);
            let room = match known {
                Some(room) => room,
                None if parameters.resume.is_some() => {
                    outbox_in.send(room::start_over());
                    return Ok(Joined { connection, room: None, outbox, asked_at });
                }
                None => self.find_or_create(&claims.video.room)?,
            };
            let (reply, answer) = oneshot::channel();
            let join = Join {
                connection,
                claims: claims.clone(),
                parameters: parameters.clone(),
                outbox: outbox_in,
                reply,
            };
            if room.inputs.send(Input::Join(Box::new(join))).await.is_err() {
                continue;
            }
            match answer.await {
                Ok(result) => {
                    result?;
                    return Ok(Joined { connection, room: Some(room.inputs), outbox, asked_at });
                }
                Err(_) => continue,
            }
        }
        Err(AdmissionError::Full)
    }

    fn find(&self, room: &str) -> Option<RoomHandle> {
        self.lock_rooms().get(room).filter(|room| !room.inputs.is_closed()).cloned()
    }

    /// Whether there is a room of this name.
    pub fn is_open(&self, room: &str) -> bool {
        self.find(room).is_some()
    }

    /// Opens a room ahead of those who are about to join it, unless it is there: whoever may not create finds it from now
    /// on. It goes like any room that nobody enters. `false` if the focus takes no more rooms.
    pub fn open(self: &Arc<Self>, room: &str) -> bool {
        !self.closing.load(Ordering::SeqCst) && self.find_or_create(room).is_ok()
    }

    fn find_or_create(self: &Arc<Self>, name: &str) -> Result<RoomHandle, AdmissionError> {
        let mut rooms = self.lock_rooms();
        if let Some(room) = rooms.get(name).filter(|room| !room.inputs.is_closed()) {
            return Ok(room.clone());
        }
        if rooms.len() >= MAX_ROOMS {
            return Err(AdmissionError::Full);
        }
        let conference = ConferenceId(self.ids.next());
        let link = self.plane.open(conference).ok_or(AdmissionError::Full)?;
        let media = LocalMedia {
            ufrag_prefix: link.ufrag_prefix,
            fingerprint: link.fingerprint,
            candidates: link.candidates.clone(),
        };
        let room = Room::new(
            Arc::clone(&self.room_config),
            name,
            conference,
            media,
            Arc::clone(&self.ids),
            random_seed(),
            now(),
        );
        let (inputs, queue) = mpsc::channel(ROOM_QUEUE);
        let handle = RoomHandle { inputs, participants: Arc::default() };
        rooms.insert(name.to_owned(), handle.clone());
        self.metrics.rooms.set(rooms.len() as i64);
        tracing::info!(room = %name, "opened");
        let task =
            task::RoomTask::new(Arc::clone(self), name.to_owned(), conference, room, link, &handle, queue);
        tokio::spawn(task.run());
        Ok(handle)
    }

    /// The room's task has ended.
    fn forget(&self, name: &str, conference: ConferenceId, inputs: &mpsc::Sender<Input>) {
        let mut rooms = self.lock_rooms();
        if rooms.get(name).is_some_and(|room| room.inputs.same_channel(inputs)) {
            rooms.remove(name);
        }
        self.metrics.rooms.set(rooms.len() as i64);
        drop(rooms);
        self.plane.close(conference);
        tracing::info!(room = %name, "closed");
    }

    fn lock_rooms(&self) -> std::sync::MutexGuard<'_, HashMap<String, RoomHandle>> {
        self.rooms.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[expect(clippy::disallowed_methods, reason = "here the clocks are read that rooms are passed")]
fn now() -> Now {
    let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    // The runtime's clock, by which time-outs are slept.
    Now { at: tokio::time::Instant::now().into_std(), unix_ms: unix.as_millis() as i64 }
}

#[expect(clippy::disallowed_methods, reason = "here the randomness is drawn that rooms are passed")]
fn random_seed() -> [u8; 32] {
    rand::rng().random()
}
