//! A minute of token requests, a tenth of them against a homeserver that never answers. It measures, so it is not part
//! of an ordinary run:
//!
//! `cargo test --release -p weir-matrix --test federation -- --ignored --nocapture load`

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use futures_util::future::BoxFuture;
use serde_json::json;
use tokio::time::Instant;
use tower::ServiceExt;
use weir_matrix::names::ServerName;
use weir_matrix::openid::OpenIdConfig;
use weir_matrix::policy::{ByServer, Servers};
use weir_matrix::service::{Admission, Foci, FocusAnswer, Parts, Refusal, Service};

use crate::dns::Zone;
use crate::homeserver::{Authority, Does, Homeserver, client};

const A_SECOND: u32 = 200;
const SECONDS: u32 = 60;

struct Anywhere;

impl Foci for Anywhere {
    fn focus_for<'a>(&'a self, admission: &'a Admission) -> BoxFuture<'a, Result<FocusAnswer, Refusal>> {
        let jwt = admission.identity.clone();
        Box::pin(async { Ok(FocusAnswer { url: String::new(), jwt }) })
    }

    fn is_at(&self, _: &str) -> bool {
        true
    }
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn body(server: &ServerName, n: u32) -> String {
    let token = json!({ "access_token": n.to_string(), "matrix_server_name": server.as_str() });
    json!({ "room": "!r:lab.example", "device_id": "D", "openid_token": token }).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute of load, for its figures"]
async fn load_of_which_a_tenth_is_for_a_homeserver_that_never_answers() {
    let authority = Authority::new();
    let good = Homeserver::start(&authority, &["127.0.0.1"], |_| Does::vouch("@dana:SELF")).await;
    let silent = Homeserver::start(&authority, &["127.0.0.1"], |_| Does::Stalls).await;
    let config = OpenIdConfig { timeout: Duration::from_secs(10), ..authority.config() };
    let openid = client(config, Zone::default()).await;
    let policy = Arc::new(ByServer { creators: Servers::All, publishers: Servers::All });
    let parts = Parts { openid, policy, foci: Arc::new(Anywhere), leaves: None, through: None };
    let registry = prometheus::Registry::new();
    let router = Service::new("/", parts, &registry).unwrap().in_front_of(Router::new());

    let mut took = Vec::with_capacity((A_SECOND * SECONDS) as usize);
    let mut statuses = std::collections::BTreeMap::<(bool, u16), u32>::new();
    let mut note = |(is_silent, status, time): (bool, u16, Duration)| {
        *statuses.entry((is_silent, status)).or_default() += 1;
        if !is_silent {
            took.push(time);
        }
    };
    let began = Instant::now();
    let mut requests = tokio::task::JoinSet::new();
    let mut resident = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / A_SECOND);
    for n in 0..A_SECOND * SECONDS {
        ticks.tick().await;
        if n % (A_SECOND * 10) == 0 {
            resident.push(resident_kib());
        }
        // What is measured is not the memory of what has been measured.
        while let Some(done) = requests.try_join_next() {
            note(done.unwrap());
        }
        let is_silent = n % 10 == 0;
        let server = if is_silent { silent.name() } else { good.name() };
        let (router, body) = (router.clone(), body(&server, n));
        requests.spawn(async move {
            let asked = Instant::now();
            let request = Request::post("/sfu/get").body(Body::from(body)).unwrap();
            let status = router.oneshot(request).await.unwrap().status().as_u16();
            (is_silent, status, asked.elapsed())
        });
    }
    let offered = began.elapsed();
    while let Some(done) = requests.join_next().await {
        note(done.unwrap());
    }
    resident.push(resident_kib());
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    println!("offered in {offered:.1?}; by (silent, status): {statuses:?}");
    println!("the others: median {:.1?}, p99 {:.1?}, most {:.1?}", at(0.5), at(0.99), at(1.0));
    println!("resident every 10 s, and at the end, in KiB: {resident:?}");
    let refused = took.len() as u32 - statuses.get(&(false, 200)).copied().unwrap_or_default();
    assert_eq!(refused, 0, "whoever has a homeserver that answers gets a token");
}
