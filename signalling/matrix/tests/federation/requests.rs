//! The authorisation service as a client meets it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::IntoResponse;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;
use weir_matrix::names::{ServerName, UserId};
use weir_matrix::openid::{Home, OpenIdConfig};
use weir_matrix::policy::{Asker, ByServer, Denied, Grants, Policy, Servers};
use weir_matrix::service::{Admission, Delegation, Foci, FocusAnswer, Leaves, Parts, Refusal, Service};

use crate::dns::Zone;
use crate::homeserver::{Authority, Does, Homeserver, client};

pub const URL: &str = "wss://rtc.lab.example/livekit/sfu";

/// A focus that says as whom somebody came.
struct Scribe;

impl Foci for Scribe {
    fn focus_for<'a>(&'a self, admission: &'a Admission) -> BoxFuture<'a, Result<FocusAnswer, Refusal>> {
        let Admission { conference, identity, grants, .. } = admission;
        let jwt = format!("{identity} in {conference}, create {}, publish {}", grants.create, grants.publish);
        Box::pin(async { Ok(FocusAnswer { url: URL.to_owned(), jwt }) })
    }

    fn is_at(&self, url: &str) -> bool {
        url == URL
    }
}

/// Keeps what it was given.
#[derive(Default)]
pub struct Notebook(pub Mutex<Vec<Delegation>>);

impl Leaves for Notebook {
    fn delegate(&self, delegation: Delegation) -> BoxFuture<'_, Result<(), Refusal>> {
        self.0.lock().unwrap().push(delegation);
        Box::pin(async { Ok(()) })
    }
}

/// Has no place for another.
struct Full;

impl Leaves for Full {
    fn delegate(&self, _: Delegation) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async { Err(Refusal::Busy) })
    }
}

pub struct Nobody(pub Denied);

impl Policy for Nobody {
    fn decide<'a>(&'a self, _: &'a Asker) -> BoxFuture<'a, Result<Grants, Denied>> {
        Box::pin(async { Err(self.0) })
    }
}

/// A service whose homeserver is lab.example.
pub struct Bench {
    router: Router,
    pub homeserver: Homeserver,
    registry: prometheus::Registry,
}

impl Bench {
    pub async fn new(change: impl FnOnce(&mut Parts)) -> Self {
        let authority = Authority::new();
        let homeserver = Homeserver::start(&authority, &["127.0.0.1"], |path| {
            if path.ends_with("=good") {
                Does::vouch("@dana:lab.example")
            } else {
                Does::json("401 Unauthorized", "{}")
            }
        })
        .await;
        let own = ServerName::parse("lab.example").unwrap();
        let home = Home::new(own.clone(), &format!("https://{}", homeserver.at));
        let openid = client(OpenIdConfig { home, ..authority.config() }, Zone::default()).await;
        let own = Servers::Listed(vec![own]);
        let policy = Arc::new(ByServer { creators: own.clone(), publishers: own });
        let mut parts = Parts { openid, policy, foci: Arc::new(Scribe), leaves: None, through: None };
        change(&mut parts);
        let registry = prometheus::Registry::new();
        let service = Service::new("/livekit/jwt", parts, &registry).unwrap();
        let inner = Router::new().fallback(|| async { (StatusCode::IM_A_TEAPOT, "inner").into_response() });
        Self { router: service.in_front_of(inner), homeserver, registry }
    }

    async fn send(&self, method: &str, path: &str, body: impl Into<Body>) -> (StatusCode, HeaderMap, String) {
        self.ask(Request::builder().method(method).uri(path).body(body.into()).unwrap()).await
    }

    pub async fn ask(&self, request: Request<Body>) -> (StatusCode, HeaderMap, String) {
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, headers, body) = self.send("POST", path, body.to_string()).await;
        assert_eq!(headers["access-control-allow-origin"], "*");
        assert_eq!(headers["content-type"], "application/json");
        (status.as_u16(), serde_json::from_str(&body).unwrap())
    }

    pub fn counted(&self, endpoint: &str, outcome: &str) -> bool {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == "weir_token_requests_total").unwrap();
        family.get_metric().iter().any(|metric| {
            let has = |value: &str| metric.get_label().iter().any(|label| label.value() == value);
            has(endpoint) && has(outcome) && metric.get_counter().get_value() > 0.0
        })
    }

    fn series(&self, name: &str) -> Vec<prometheus::proto::Metric> {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        family.get_metric().to_vec()
    }
}

fn openid(token: &str) -> Value {
    json!({ "access_token": token, "token_type": "Bearer", "matrix_server_name": "lab.example", "expires_in": 3600 })
}

fn sfu_get(token: &str) -> Value {
    json!({ "room": "!focus:lab.example", "openid_token": openid(token), "device_id": "LAPTOP7" })
}

fn get_token(token: &str, user: &str) -> Value {
    let id = "7c2e5e0a-5a34-4a3f-9a52-1f6f2f7f1d11";
    json!({
        "room_id": "!focus:lab.example", "slot_id": "m.call#ROOM", "openid_token": openid(token),
        "member": { "id": id, "claimed_user_id": user, "claimed_device_id": "LAPTOP7" },
    })
}

pub const CONFERENCE: &str = "2K3BVsUiVbgVZe3yiLDfIauTbcAYJVapBv6RGuweGkY";
pub const DANA: &str = "@dana:lab.example";

#[tokio::test]
async fn what_can_be_counted_is_there_from_the_start() {
    let bench = Bench::new(|_| {}).await;
    assert_eq!(bench.series("weir_token_requests_total").len(), 3 * 7);
    assert_eq!(bench.series("weir_openid_lookups_total").len(), 8);
}

#[tokio::test]
async fn only_a_homeserver_that_is_asked_takes_time() {
    let bench = Bench::new(|_| {}).await;
    for token in ["good", "good", "bad"] {
        bench.post("/livekit/jwt/sfu/get", &sfu_get(token)).await;
    }
    let seconds = &bench.series("weir_openid_lookup_seconds")[0];
    assert_eq!(seconds.get_histogram().get_sample_count(), 2, "the second was remembered");
    let lookups = bench.series("weir_openid_lookups_total");
    assert_eq!(lookups.iter().map(|metric| metric.get_counter().get_value()).sum::<f64>(), 3.0);
}

#[tokio::test]
async fn both_endpoints_answer_with_a_focus_and_a_token_for_one_conference() {
    let bench = Bench::new(|_| {}).await;
    let (status, answer) = bench.post("/livekit/jwt/sfu/get", &sfu_get("good")).await;
    assert_eq!((status, &answer["url"]), (200, &json!("wss://rtc.lab.example/livekit/sfu")));
    let expected = format!("@dana:lab.example:LAPTOP7 in {CONFERENCE}, create true, publish true");
    assert_eq!(answer["jwt"], expected);
    let (status, answer) = bench.post("/livekit/jwt/get_token", &get_token("good", DANA)).await;
    // The vector of the same user, device and member id.
    let identity = "xyNLr+/tQI8JbXBx2YO8Tv1BtTDIzajApqMfjCoDS0U";
    assert_eq!(status, 200);
    assert_eq!(answer["jwt"], format!("{identity} in {CONFERENCE}, create true, publish true"));
    assert!(bench.counted("sfu_get", "granted") && bench.counted("get_token", "granted"));
}

#[tokio::test]
async fn paths_are_found_with_the_prefix_without_any_and_with_doubled_slashes() {
    let bench = Bench::new(|_| {}).await;
    for path in ["/livekit/jwt/sfu/get", "/sfu/get", "/livekit/jwt//sfu/get", "//sfu/get/"] {
        assert_eq!(bench.post(path, &sfu_get("good")).await.0, 200, "{path}");
    }
    for path in [
        "/livekit/jwt",
        "/",
        "/livekit/sfu/rtc",
        "/livekit/sfu/get",
        "/x/livekit/jwt/sfu/get",
        "/jwt/get_token",
        "/sfu",
    ] {
        assert_eq!(bench.send("POST", path, "").await.0, StatusCode::IM_A_TEAPOT, "{path}");
    }
}

#[tokio::test]
async fn health_is_told_and_nothing_but_posts_is_taken() {
    let bench = Bench::new(|_| {}).await;
    for path in ["/livekit/jwt/healthz", "/healthz"] {
        for (method, status) in [("GET", 200), ("HEAD", 200), ("POST", 405), ("OPTIONS", 405)] {
            assert_eq!(bench.send(method, path, "").await.0, status, "{method} {path}");
        }
    }
    for path in ["/livekit/jwt/sfu/get", "/livekit/jwt/get_token", "/livekit/jwt/delegate_delayed_leave"] {
        let (status, headers, body) = bench.send("OPTIONS", path, "").await;
        assert_eq!((status.as_u16(), body.as_str()), (200, ""));
        assert_eq!(headers["access-control-allow-origin"], "*");
        assert_eq!(headers["access-control-allow-methods"], "POST");
        assert!(headers["access-control-allow-headers"].to_str().unwrap().contains("Content-Type"));
        for method in ["GET", "PUT", "DELETE"] {
            let (status, _, body) = bench.send(method, path, "").await;
            assert_eq!((status.as_u16(), body.as_str()), (405, ""));
        }
    }
}

#[tokio::test]
async fn a_body_is_judged_before_anybody_is_asked_anything() {
    let bench = Bench::new(|_| {}).await;
    let mut half = sfu_get("good");
    half["device_id"] = json!(null);
    let mut elsewhere = get_token("good", "@dana:else.example");
    elsewhere["new"] = json!(1);
    for (body, status, errcode) in [
        ("x".to_owned(), 400, "M_NOT_JSON"),
        (String::new(), 400, "M_NOT_JSON"),
        ("x".repeat(20_000), 413, "M_TOO_LARGE"),
        (half.to_string(), 400, "M_BAD_JSON"),
    ] {
        let (answered, _, body) = bench.send("POST", "/sfu/get", body).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((answered.as_u16(), body["errcode"].as_str().unwrap()), (status, errcode));
    }
    let (status, answer) = bench.post("/get_token", &elsewhere).await;
    assert_eq!((status, &answer["errcode"]), (401, &json!("M_UNAUTHORIZED")));
    assert_eq!(bench.homeserver.connections(), 0);
    assert!(bench.counted("sfu_get", "malformed") && bench.counted("get_token", "unauthorised"));
}

#[tokio::test]
async fn a_body_that_never_ends_is_given_up() {
    let bench = Bench::new(|_| {}).await;
    tokio::time::pause();
    let body = Body::from_stream(futures_util::stream::pending::<Result<String, std::io::Error>>());
    let asked = tokio::time::timeout(Duration::from_secs(60), bench.send("POST", "/sfu/get", body));
    assert_eq!(asked.await.unwrap().0, StatusCode::REQUEST_TIMEOUT);
}

#[tokio::test]
async fn who_is_not_vouched_for_or_somebody_else_is_not_told_why() {
    let bench = Bench::new(|_| {}).await;
    let (status, unknown) = bench.post("/sfu/get", &sfu_get("bad")).await;
    assert_eq!((status, unknown["errcode"].as_str().unwrap()), (401, "M_UNAUTHORIZED"));
    let mut unreachable = sfu_get("good");
    for server in ["nowhere.example", "10.0.0.1", "192.168.0.1:22"] {
        unreachable["openid_token"]["matrix_server_name"] = json!(server);
        assert_eq!(bench.post("/sfu/get", &unreachable).await, (401, unknown.clone()), "{server}");
    }
    let (status, answer) = bench.post("/get_token", &get_token("good", "@eve:lab.example")).await;
    assert_eq!((status, answer["errcode"].as_str().unwrap()), (401, "M_UNAUTHORIZED"));
    assert!(!answer.to_string().contains("dana"));
}

#[tokio::test]
async fn what_the_policy_refuses_is_refused_alike_for_every_room() {
    // To ask again helps after the second alone.
    for (denied, status, errcode) in
        [(Denied::NotAllowed, 403, "M_FORBIDDEN"), (Denied::Undecided, 503, "M_UNKNOWN")]
    {
        let bench = Bench::new(|parts| parts.policy = Arc::new(Nobody(denied))).await;
        let mut answers = Vec::new();
        for room in ["!focus:lab.example", "!nothing:nowhere.example", "not a room"] {
            let mut body = sfu_get("good");
            body["room"] = json!(room);
            answers.push(bench.post("/sfu/get", &body).await);
        }
        assert_eq!((answers[0].0, answers[0].1["errcode"].as_str().unwrap()), (status, errcode));
        assert!(answers.iter().all(|answer| *answer == answers[0]));
    }
}

#[tokio::test]
async fn without_leaves_to_keep_alive_clients_are_told_to_do_it_themselves() {
    let bench = Bench::new(|_| {}).await;
    let (status, answer) = bench.post("/livekit/jwt/delegate_delayed_leave", &json!({})).await;
    assert_eq!((status, answer["errcode"].as_str().unwrap()), (404, "M_UNRECOGNIZED"));
    let mut body = sfu_get("good");
    body["delay_id"] = json!("syd_1");
    body["delay_timeout"] = json!(10_000);
    let (status, answer) = bench.post("/sfu/get", &body).await;
    assert_eq!((status, answer["errcode"].as_str().unwrap()), (400, "M_BAD_JSON"));
    assert_eq!(bench.homeserver.connections(), 0);
}

#[tokio::test]
async fn a_leave_that_is_not_taken_keeps_nobody_out_of_the_call() {
    let bench = Bench::new(|parts| parts.leaves = Some(Arc::new(Full))).await;
    for (path, body, expected) in [
        ("/sfu/get", sfu_get("good"), (400, "M_BAD_JSON")), // upon which clients leave the leave out
        ("/get_token", get_token("good", DANA), (400, "M_BAD_JSON")),
        ("/delegate_delayed_leave", get_token("good", DANA), (429, "M_LIMIT_EXCEEDED")),
    ] {
        let mut body = body;
        body["delay_id"] = json!("syd_1");
        body["delay_timeout"] = json!(10_000);
        let (status, answer) = bench.post(path, &body).await;
        assert_eq!((status, answer["errcode"].as_str().unwrap()), expected, "{path}");
    }
}

#[tokio::test]
async fn leaves_are_handed_on_by_each_endpoint_for_whoever_may_publish() {
    let notebook = Arc::new(Notebook::default());
    let kept = Arc::clone(&notebook);
    let bench = Bench::new(|parts| parts.leaves = Some(kept)).await;
    assert_eq!(
        bench.send("POST", "/delegate_delayed_leave", "").await.0,
        400,
        "any status but 404 says that it is there"
    );
    for (path, body) in [
        ("/sfu/get", sfu_get("good")),
        ("/get_token", get_token("good", DANA)),
        ("/delegate_delayed_leave", get_token("good", DANA)),
    ] {
        let mut body = body;
        body["delay_id"] = json!("syd_1");
        body["delay_timeout"] = json!(10_000);
        let (status, answer) = bench.post(path, &body).await;
        assert_eq!(status, 200, "{path}");
        assert_eq!(answer == json!({}), path == "/delegate_delayed_leave");
        let delegation = notebook.0.lock().unwrap().pop().unwrap();
        assert_eq!((delegation.delay_id.as_str(), delegation.timeout), ("syd_1", Duration::from_secs(10)));
        assert_eq!(delegation.admission.asker.user, UserId::parse(DANA).unwrap());
    }
    let watching = Bench::new(|parts| {
        let none = Servers::Listed(Vec::new());
        parts.policy = Arc::new(ByServer { creators: none.clone(), publishers: none });
        parts.leaves = Some(Arc::new(Notebook::default()));
    })
    .await;
    let mut body = get_token("good", DANA);
    body["delay_id"] = json!("syd_1");
    body["delay_timeout"] = json!(10_000);
    assert_eq!(watching.post("/delegate_delayed_leave", &body).await.0, 403);
    assert_eq!(watching.post("/get_token", &body).await.0, 400);
}
