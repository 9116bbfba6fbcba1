//! The user against a homeserver of the test.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use weir_matrix::names::{ServerName, UserId};
use weir_matrix::policy::Servers;
use weir_matrix::rooms::RoomRule;
use weir_matrix::rooms::{Barred, Cause, Door, Holder, Members, Removed, Seat};
use weir_matrix::store::Store;

use crate::run::{StartError, User};
use crate::{Secret, SignInError, TABLES, UserConfig};

const WEIR: &str = "@weir:lab.example";
const DANA: &str = "@dana:lab.example";
const EVE: &str = "@eve:else.example";
const ROOM: &str = "!r:lab.example";
/// Anything here takes milliseconds, or the first wait before something is tried again.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Server {
    token: String,
    /// As they came: the device that was asked for.
    logins: Vec<Option<String>>,
    /// Rooms of an answer, each.
    news: Vec<Value>,
    invitations: Value,
    /// Positions before are not known.
    forgotten: usize,
    /// With which questions what is new came.
    asked: Vec<Option<String>>,
    members: Vec<&'static str>,
    rooms: Vec<String>,
    declined: Vec<String>,
}

#[derive(Clone, Default)]
struct Homeserver {
    state: Arc<Mutex<Server>>,
    changed: Arc<Notify>,
}

fn error(status: u16, code: &str) -> Response {
    let body = Json(json!({ "errcode": code, "error": "no" }));
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

impl Homeserver {
    fn with<T>(&self, change: impl FnOnce(&mut Server) -> T) -> T {
        let changed = change(&mut self.state.lock().unwrap());
        self.changed.notify_waiters();
        changed
    }

    async fn settle(&self, what: &str, is_settled: impl Fn(&Server) -> bool) {
        let settling = async {
            while !self.with(|server| is_settled(server)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, settling).await.unwrap_or_else(|_| panic!("{what}"));
    }

    /// Returns where it listens.
    async fn serve(&self) -> String {
        let signed_in = axum::middleware::from_fn_with_state(self.clone(), Self::check);
        let router = Router::new()
            .route("/_matrix/client/v3/account/whoami", get(Self::whoami))
            .route("/_matrix/client/v3/sync", get(Self::sync))
            .route("/_matrix/client/v3/joined_rooms", get(Self::joined_rooms))
            .route("/_matrix/client/v3/rooms/{room}/joined_members", get(Self::joined_members))
            .route("/_matrix/client/v3/rooms/{room}/join", post(Self::join))
            .route("/_matrix/client/v3/rooms/{room}/leave", post(Self::leave))
            .layer(signed_in)
            .route("/_matrix/client/v3/login", post(Self::login))
            .with_state(self.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    }

    async fn check(State(this): State<Self>, request: Request, next: axum::middleware::Next) -> Response {
        let token = this.with(|server| format!("Bearer {}", server.token));
        let is_known = request
            .headers()
            .get("authorization")
            .is_some_and(|presented| presented.as_bytes() == token.as_bytes());
        if is_known { next.run(request).await } else { error(401, "M_UNKNOWN_TOKEN") }
    }

    async fn login(State(this): State<Self>, Json(body): Json<Value>) -> Response {
        if body["password"] != "open sesame" || body["identifier"]["user"] != WEIR {
            return error(403, "M_FORBIDDEN");
        }
        let device = body["device_id"].as_str().map(str::to_owned);
        this.with(|server| {
            server.logins.push(device.clone());
            server.token = format!("token-{}", server.logins.len());
            let device = device.unwrap_or_else(|| "MADE".to_owned());
            Json(json!({ "user_id": WEIR, "device_id": device, "access_token": server.token }))
                .into_response()
        })
    }

    async fn whoami() -> Json<Value> {
        Json(json!({ "user_id": WEIR, "device_id": "MADE" }))
    }

    async fn sync(State(this): State<Self>, Query(query): Query<Vec<(String, String)>>) -> Response {
        let since = query.into_iter().find(|(key, _)| key == "since").map(|(_, value)| value);
        let position = |at: usize| format!("s{at}");
        this.with(|server| server.asked.push(since.clone()));
        let Some(since) = since else {
            return this.with(|server| {
                let rooms = json!({ "invite": server.invitations });
                Json(json!({ "next_batch": position(server.news.len()), "rooms": rooms })).into_response()
            });
        };
        let at: usize = since.trim_start_matches('s').parse().unwrap();
        loop {
            let changed = this.changed.notified();
            // Without waking ourselves.
            let (is_forgotten, rooms) = {
                let server = this.state.lock().unwrap();
                (at < server.forgotten, server.news.get(at).cloned())
            };
            if is_forgotten {
                return error(400, "M_UNKNOWN");
            }
            let answer = rooms
                .map(|rooms| Json(json!({ "next_batch": position(at + 1), "rooms": rooms })).into_response());
            match answer {
                Some(answer) => return answer,
                None => changed.await,
            }
        }
    }

    async fn joined_rooms(State(this): State<Self>) -> Json<Value> {
        this.with(|server| Json(json!({ "joined_rooms": server.rooms })))
    }

    async fn joined_members(State(this): State<Self>, Path(room): Path<String>) -> Response {
        this.with(|server| {
            let members: serde_json::Map<String, Value> =
                server.members.iter().map(|id| ((*id).to_owned(), json!({}))).collect();
            match room.as_str() {
                ROOM => Json(json!({ "joined": members })).into_response(),
                _ if server.rooms.contains(&room) => Json(json!({ "joined": { WEIR: {} } })).into_response(),
                _ => error(403, "M_FORBIDDEN"),
            }
        })
    }

    async fn join(State(this): State<Self>, Path(room): Path<String>) -> Json<Value> {
        this.with(|server| server.rooms.push(room.clone()));
        Json(json!({ "room_id": room }))
    }

    async fn leave(State(this): State<Self>, Path(room): Path<String>) -> Json<Value> {
        this.with(|server| {
            server.rooms.retain(|other| *other != room);
            server.declined.push(room);
        });
        Json(json!({}))
    }
}

/// A focus beside that homeserver, with what it keeps over restarts.
struct Scene {
    homeserver: Homeserver,
    config: UserConfig,
    store: Store,
    directory: tempfile::TempDir,
}

struct Running {
    user: User,
    door: Arc<Door>,
    removed: mpsc::Receiver<Removed>,
    following: JoinHandle<()>,
    registry: prometheus::Registry,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl Running {
    /// Dana sits in the call of the room, with a token of that time.
    fn seat_dana(&self) {
        self.door.sits(dana(), Seat { conference: "c".to_owned(), identity: "dana".to_owned() });
    }

    async fn removed(&mut self) -> Removed {
        tokio::time::timeout(PATIENCE, self.removed.recv()).await.unwrap().unwrap()
    }

    fn metric(&self, name: &str, label: Option<&str>) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        let metrics = family.get_metric().iter().filter(|metric| match label {
            Some(label) => metric.get_label().iter().any(|pair| pair.value() == label),
            None => true,
        });
        metrics.map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value()).sum()
    }
}

fn dana() -> Holder {
    Holder { room_id: ROOM.to_owned(), user: UserId::parse(DANA).unwrap() }
}

impl Scene {
    async fn new() -> Self {
        let homeserver = Homeserver::default();
        homeserver.with(|server| {
            server.members = vec![DANA, WEIR];
            server.invitations = json!({});
        });
        let directory = tempfile::tempdir().unwrap();
        let config = UserConfig {
            user: UserId::parse(WEIR).unwrap(),
            homeserver_url: homeserver.serve().await,
            secret: Secret::Password(secret(&directory, "open sesame")),
            authorities: Vec::new(),
            inviters: Servers::Listed(vec![ServerName::parse("lab.example").unwrap()]),
            max_rooms: 2,
        };
        let store = Store::in_memory_with(&[&TABLES]).unwrap();
        Self { homeserver, config, store, directory }
    }

    async fn start(&self) -> Result<Running, StartError> {
        let registry = prometheus::Registry::new();
        let idle = User::start(self.config.clone(), self.store.clone(), &registry).await?;
        let user = idle.user();
        let (door, removed) = Door::open(self.store.clone(), Arc::new(user.clone())).await.unwrap();
        let door = Arc::new(door);
        let following = idle.follow(Arc::clone(&door));
        Ok(Running { user, door, removed, following, registry })
    }

    /// Until it follows what is new.
    async fn started(&self) -> Running {
        let asked = self.homeserver.with(|server| server.asked.len());
        let running = self.start().await.unwrap();
        self.homeserver
            .settle("it follows", |server| server.asked[asked..].iter().any(Option::is_some))
            .await;
        running
    }
}

fn secret(directory: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = directory.path().join("secret");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn news(user: &str, membership: &str, before: &str) -> Value {
    let event = json!({
        "type": "m.room.member", "sender": "@mod:lab.example", "state_key": user, "event_id": "$x",
        "origin_server_ts": 7, "content": { "membership": membership },
        "unsigned": { "prev_content": { "membership": before } }
    });
    json!({ "timeline": { "events": [event] } })
}

fn kick(user: &str) -> Value {
    json!({ "join": { ROOM: news(user, "leave", "join") } })
}

fn invitation(by: &str) -> Value {
    let event = json!({ "type": "m.room.member", "sender": by, "state_key": WEIR,
        "content": { "membership": "invite" } });
    json!({ "invite_state": { "events": [event] } })
}

/// Later than any leave of a test.
const LATER: u64 = 1 << 60;

#[tokio::test]
async fn who_is_kicked_is_out_also_when_the_focus_was_away() {
    let scene = Scene::new().await;
    let mut running = scene.started().await;
    assert_eq!(running.door.admit(&dana(), LATER, RoomRule::WhenVisible).await, Ok(()));
    running.seat_dana();
    scene.homeserver.with(|server| {
        server.members.retain(|member| *member != DANA);
        server.news.push(kick(DANA));
    });
    let removed = running.removed().await;
    assert_eq!((removed.user.as_str(), removed.cause), (DANA, Cause::Kicked));
    assert!(running.door.is_void(&dana(), 1));
    assert_eq!(running.metric("weir_matrix_user_up", None), 1.0);
    scene
        .homeserver
        .settle("the position moves", |server| server.asked.last().unwrap().as_deref() == Some("s1"))
        .await;
    drop(running);
    scene.homeserver.with(|server| server.news.push(kick(EVE)));
    let mut running = scene.start().await.unwrap();
    let eve = Holder { user: UserId::parse(EVE).unwrap(), ..dana() };
    running.door.sits(eve, Seat { conference: "c".to_owned(), identity: "eve".to_owned() });
    assert_eq!(running.removed().await.user.as_str(), EVE, "told since the position that was kept");
}

#[tokio::test]
async fn the_device_is_kept_and_signs_in_again_when_its_token_is_no_longer_good() {
    let scene = Scene::new().await;
    drop(scene.started().await);
    let running = scene.started().await;
    assert_eq!(scene.homeserver.with(|server| server.logins.clone()), [None]);
    scene.homeserver.with(|server| {
        server.token = "another".to_owned();
        server.news.push(json!({})); // the question that waits was let in
    });
    let logins = |server: &Server| server.logins == [None, Some("MADE".to_owned())];
    scene.homeserver.settle("it signs in with its device", logins).await;
    scene
        .homeserver
        .settle("it goes on where it was", |server| server.asked.last() == Some(&Some("s1".to_owned())))
        .await;
    drop(running);
}

#[tokio::test]
async fn mistakes_of_an_operator_stop_the_start_and_a_homeserver_that_is_away_does_not() {
    let mut scene = Scene::new().await;
    let path = secret(&scene.directory, "guess");
    let refused = |result: Result<Running, StartError>| match result {
        Err(StartError::SignIn(error)) => error,
        _ => panic!("it must not start"),
    };
    assert!(matches!(refused(scene.start().await), SignInError::Refused(_)));
    scene.config.secret = Secret::AccessToken(path.clone());
    assert!(matches!(refused(scene.start().await), SignInError::Refused(_)));
    scene.homeserver.with(|server| server.token = "guess".to_owned());
    let other = UserConfig { user: UserId::parse(DANA).unwrap(), ..scene.config.clone() };
    let known = std::mem::replace(&mut scene.config, other);
    assert!(matches!(refused(scene.start().await), SignInError::OtherUser(user) if user == WEIR));
    scene.config = known;
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(refused(scene.start().await), SignInError::Secret { .. }));
    secret(&scene.directory, "guess");
    drop(scene.started().await);
    let nowhere = UserConfig { homeserver_url: "http://127.0.0.1:1".to_owned(), ..scene.config.clone() };
    scene.config = nowhere;
    let running = scene.start().await.unwrap();
    assert_eq!(running.door.admit(&dana(), LATER, RoomRule::WhenVisible).await, Err(Barred::Unknown));
    assert_eq!(running.metric("weir_matrix_user_up", None), 0.0);
}

#[tokio::test]
async fn rooms_are_entered_by_invitation_of_whom_it_may_be_until_there_are_too_many() {
    let scene = Scene::new().await;
    scene.homeserver.with(|server| {
        server.invitations = json!({ "!a:lab.example": invitation(DANA), "!b:lab.example": invitation(EVE) });
    });
    let running = scene.started().await;
    scene
        .homeserver
        .settle("both are answered", |server| {
            server.rooms == ["!a:lab.example"] && server.declined == ["!b:lab.example"]
        })
        .await;
    scene.homeserver.with(|server| {
        server.rooms.push(ROOM.to_owned());
        server.invitations = json!({});
        server.news.push(json!({ "invite": { "!c:lab.example": invitation(DANA) } }));
    });
    // There is a room that nobody else is in any more, and then there is none.
    let left = ["!b:lab.example", "!a:lab.example"];
    scene
        .homeserver
        .settle("the empty room makes way", |server| {
            server.declined == left && server.rooms == [ROOM, "!c:lab.example"]
        })
        .await;
    scene
        .homeserver
        .with(|server| server.news.push(json!({ "invite": { "!e:lab.example": invitation(DANA) } })));
    scene.homeserver.settle("there is no room", |server| server.declined.len() == 3).await;
    let answered = |outcome| running.metric("weir_matrix_user_invitations_total", Some(outcome));
    let settled = async {
        while answered("full") < 1.0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, settled).await.unwrap();
    assert_eq!((answered("accepted"), answered("foreign"), answered("failed")), (2.0, 1.0, 0.0));
    // What was told before a restart and not answered is found again.
    drop(running);
    scene.homeserver.with(|server| {
        server.rooms.clear();
        server.invitations = json!({ "!d:lab.example": invitation(DANA) });
    });
    let _running = scene.started().await;
    scene.homeserver.settle("it is answered", |server| server.rooms == ["!d:lab.example"]).await;
}

#[tokio::test]
async fn a_room_that_the_user_is_put_out_of_is_out_of_sight() {
    for requires_sight in [true, false] {
        let scene = Scene::new().await;
        let mut running = scene.started().await;
        running.door.set_rule(if requires_sight { RoomRule::Require } else { RoomRule::WhenVisible });
        running.seat_dana();
        scene.homeserver.with(|server| {
            server.members.clear();
            server.news.push(json!({ "leave": { ROOM: news(WEIR, "leave", "join") } }));
        });
        scene
            .homeserver
            .settle("it is told", |server| server.asked.last().unwrap().as_deref() == Some("s1"))
            .await;
        if requires_sight {
            assert_eq!(running.removed().await.cause, Cause::OutOfSight);
        }
        assert!(running.removed.try_recv().is_err());
        assert_eq!(running.door.is_void(&dana(), LATER), requires_sight);
    }
}

#[tokio::test]
async fn a_homeserver_that_forgot_the_position_is_asked_who_is_still_there() {
    let scene = Scene::new().await;
    let mut running = scene.started().await;
    running.seat_dana();
    scene.homeserver.with(|server| {
        server.members = vec![WEIR];
        server.news = vec![json!({}); 5];
        server.forgotten = 3;
    });
    assert_eq!(running.removed().await.user.as_str(), DANA);
    scene.homeserver.settle("it goes on", |server| server.asked.last() == Some(&Some("s5".to_owned()))).await;
}

#[tokio::test]
async fn strangers_who_sit_in_a_call_when_the_user_enters_its_room_are_out() {
    let scene = Scene::new().await;
    let mut running = scene.started().await;
    running.seat_dana();
    let eve = Holder { user: UserId::parse(EVE).unwrap(), ..dana() };
    running.door.sits(eve, Seat { conference: "c".to_owned(), identity: "eve".to_owned() });
    scene.homeserver.with(|server| {
        let entering = news(WEIR, "join", "invite");
        server.news.push(json!({ "join": { ROOM: entering } }));
    });
    assert_eq!(running.removed().await.user.as_str(), EVE);
    assert!(running.removed.try_recv().is_err());
}

#[tokio::test]
async fn rooms_that_the_user_is_not_in_cannot_be_seen() {
    let scene = Scene::new().await;
    let running = scene.started().await;
    let members = running.user.members(ROOM).await.unwrap().unwrap();
    assert_eq!(members, [DANA, WEIR].map(|id| UserId::parse(id).unwrap()).into());
    for room in ["!other:lab.example", "no room", ""] {
        assert_eq!(running.user.members(room).await, Ok(None), "{room}");
    }
}
