//! What the homeserver pushes: events of rooms, in order, each transaction again until we have said that we hold it.

use std::collections::VecDeque;
use std::sync::Arc;

use aws_lc_rs::digest;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http_body_util::BodyExt;
use rusqlite::params;
use tokio::sync::Mutex;

use super::hs_token::{HsToken, Shown};
use super::news::{self, Malformed};
use crate::names::is_sound;
use crate::rooms::{Door, Note, RoomUpdate};
use crate::store::{Store, StoreError, Tables};

/// Bytes of a transaction that is read. Synapse puts a hundred events into one, of at most 64 KiB each, and what it adds to
/// them: to invitations from elsewhere that may be megabytes.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of one that is not. Refused, it would come again for ever, and everything behind it would wait.
const MAX_SKIPPED_BYTES: usize = 2 * 1024 * 1024 * 1024;
/// Transactions remembered. A homeserver repeats the last one only, but may have several workers.
const MAX_REMEMBERED: usize = 128;
/// Where an application service's endpoints begin, whatever a deployment puts before it.
const PREFIX: &str = "/_matrix/app/v1/";

/// What is kept over restarts.
pub const TABLES: Tables = Tables {
    module: "appservice",
    steps: &["CREATE TABLE appservice_done (
        number INTEGER PRIMARY KEY AUTOINCREMENT, transaction_id TEXT NOT NULL UNIQUE
    ) STRICT"],
};

/// The endpoints that the homeserver calls.
pub struct Transactions {
    door: Arc<Door>,
    hs_token: HsToken,
    /// What [`mark`]s them, the newest last. Locked as long as a transaction is taken: they have an order.
    done: Mutex<VecDeque<String>>,
}

/// Status, Matrix error code and words of a request that is not served.
struct Refusal(StatusCode, &'static str, &'static str);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(status, errcode, error) = self;
        let body = serde_json::json!({ "errcode": errcode, "error": error }).to_string();
        (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
    }
}

enum Endpoint {
    Transaction(String),
    Ping,
    /// Users and aliases that we are asked to make up.
    Query,
}

impl Transactions {
    pub async fn open(store: &Store, door: Arc<Door>, hs_token: &str) -> Result<Arc<Self>, StoreError> {
        let load = |file: &rusqlite::Transaction<'_>| {
            let mut query = file.prepare("SELECT transaction_id FROM appservice_done ORDER BY number")?;
            let rows = query.query_map([], |row| row.get(0))?;
            rows.collect::<rusqlite::Result<VecDeque<String>>>()
        };
        let done = Mutex::new(store.run(load).await?);
        Ok(Arc::new(Self { door, hs_token: HsToken::new(hs_token), done }))
    }

    /// Serves our endpoints, wherever a deployment puts them, and leaves other paths to `inner`.
    pub fn in_front_of(self: &Arc<Self>, inner: Router) -> Router {
        inner.layer(middleware::from_fn_with_state(Arc::clone(self), serve))
    }

    async fn handle(&self, request: Request) -> Response {
        match self.answer(request).await {
            Ok(()) => (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], "{}").into_response(),
            Err(refusal) => {
                let Refusal(status, errcode, error) = refusal;
                tracing::debug!(status = status.as_u16(), errcode, error, "refused the homeserver");
                refusal.into_response()
            }
        }
    }

    async fn answer(&self, request: Request) -> Result<(), Refusal> {
        // Nothing is said to strangers, not even what exists.
        if self.hs_token.shown(request.headers()) != Shown::Right {
            return Err(Refusal(StatusCode::FORBIDDEN, "M_FORBIDDEN", "this is not the hs_token"));
        }
        match endpoint(request.uri().path(), request.method())? {
            Endpoint::Transaction(id) => self.take(id, request.into_body()).await,
            Endpoint::Ping => Ok(()),
            Endpoint::Query => {
                Err(Refusal(StatusCode::NOT_FOUND, "M_NOT_FOUND", "the focus makes up no users and no rooms"))
            }
        }
    }

    async fn take(&self, id: String, body: Body) -> Result<(), Refusal> {
        let body = read(body).await?;
        let is_skipped = body.is_none();
        let updates = body.map_or(Ok(Vec::new()), |body| news::read(&body))?;
        let mark = mark(&id, &updates);
        let mut done = self.done.lock().await;
        if done.contains(&mark) {
            return Ok(());
        }
        let left_by_own = self.door.left_by_own(&updates);
        let is_missing = done.back().is_some_and(|last| skips(last, &id));
        // With the news or not at all: what was not kept comes again.
        let note: Note = {
            let mark = mark.clone();
            Box::new(move |file| {
                file.execute("INSERT OR IGNORE INTO appservice_done (transaction_id) VALUES (?1)", [mark])?;
                let keep = "DELETE FROM appservice_done WHERE number <=
                    (SELECT max(number) FROM appservice_done) - ?1";
                file.execute(keep, params![MAX_REMEMBERED]).map(drop)
            })
        };
        self.door.take(updates, Some(note)).await.map_err(|error| {
            tracing::error!(%error, "what the homeserver told could not be kept; it will tell it again");
            Refusal(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN", "the transaction could not be kept")
        })?;
        done.push_back(mark);
        if done.len() > MAX_REMEMBERED {
            done.pop_front();
        }
        if is_skipped {
            tracing::error!(transaction = id, "a transaction of the homeserver was too large to be read");
        }
        if is_missing {
            tracing::warn!(transaction = id, "the homeserver left out a transaction before this one");
        }
        // The homeserver is not kept waiting until it has been asked.
        let door = Arc::clone(&self.door);
        tokio::spawn(async move {
            let looked = match is_skipped || is_missing {
                true => door.look_again().await,
                false => door.look_for_sight_of(left_by_own).await,
            };
            if let Err(error) = looked {
                tracing::error!(%error, "who left a room could not be kept");
            }
        });
        Ok(())
    }
}

/// The whole of a body, or nothing where it is too long to be taken for news.
async fn read(mut body: Body) -> Result<Option<Vec<u8>>, Refusal> {
    let (mut bytes, mut passed) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let breaks_off = |_| Refusal(StatusCode::BAD_REQUEST, "M_NOT_JSON", "the transaction breaks off");
        let Ok(data) = frame.map_err(breaks_off)?.into_data() else { continue };
        passed += data.len();
        if passed > MAX_SKIPPED_BYTES {
            return Err(Refusal(
                StatusCode::PAYLOAD_TOO_LARGE,
                "M_TOO_LARGE",
                "the transaction is too large",
            ));
        }
        if passed > MAX_BODY_BYTES {
            bytes = Vec::new();
        } else {
            bytes.extend_from_slice(&data);
        }
    }
    Ok((passed <= MAX_BODY_BYTES).then_some(bytes))
}

async fn serve(State(transactions): State<Arc<Transactions>>, request: Request, next: Next) -> Response {
    if request.uri().path().contains(PREFIX) {
        transactions.handle(request).await
    } else {
        next.run(request).await
    }
}

/// By which a transaction is known when it comes again: its id and its news. A homeserver whose database was lost counts
/// from the beginning again, and what it then tells under an old id is not what it told before.
fn mark(id: &str, updates: &[RoomUpdate]) -> String {
    let mut hash = digest::Context::new(&digest::SHA256);
    for RoomUpdate { room_id, user, membership, sent_ms, was_joined: _ } in updates {
        // What is told beside an event may be told otherwise the second time.
        let news = (room_id, user.as_str(), format!("{membership:?}"), sent_ms);
        hash.update(&serde_json::to_vec(&news).expect("strings and numbers are always JSON"));
    }
    format!("{id} {}", STANDARD_NO_PAD.encode(hash.finish()))
}

/// Whether transactions are missing between that with this mark and the next. Ids need not be numbers, but Synapse counts, and
/// one that it began while another way of sending ended (of Synapse 1.163, after we were away) it leaves until its own restart.
fn skips(mark: &str, next: &str) -> bool {
    let number = |id: &str| id.parse::<u64>().ok();
    let last = mark.split_once(' ').and_then(|(id, _)| number(id));
    last.zip(number(next)).is_some_and(|(last, next)| next > last.saturating_add(1))
}

fn endpoint(path: &str, method: &Method) -> Result<Endpoint, Refusal> {
    let unknown = || Refusal(StatusCode::NOT_FOUND, "M_UNRECOGNIZED", "there is nothing here");
    let (_, path) = path.split_once(PREFIX).ok_or_else(unknown)?;
    let segments: Vec<&str> = path.split('/').collect();
    let (endpoint, expected) = match segments[..] {
        ["transactions", id] => {
            if !is_sound(id) {
                let words = "a transaction's id has from 1 to 255 characters";
                return Err(Refusal(StatusCode::BAD_REQUEST, "M_INVALID_PARAM", words));
            }
            (Endpoint::Transaction(id.to_owned()), Method::PUT)
        }
        ["ping"] => (Endpoint::Ping, Method::POST),
        ["users" | "rooms", _] => (Endpoint::Query, Method::GET),
        _ => return Err(unknown()),
    };
    if *method != expected {
        return Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, "M_UNRECOGNIZED", "not with this method"));
    }
    Ok(endpoint)
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::NotJson => Self(StatusCode::BAD_REQUEST, "M_NOT_JSON", "the transaction is not JSON"),
            Malformed::NoEvents => {
                Self(StatusCode::BAD_REQUEST, "M_BAD_JSON", "the transaction has no list of events")
            }
        }
    }
}

#[cfg(test)]
mod tests;
