//! `weir check` from a homeserver to a focus that runs, whole and with one thing wrong at a time.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::Router;
use axum::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post};

const WEIR: &str = env!("CARGO_BIN_EXE_weir");
const USER: &str = "@dana:lab.example";

/// A loopback address that no other test of this machine uses: ports are free there.
fn own_address() -> String {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    format!("127.{}.{low}.{}", 128 + high % 64, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What a homeserver says.
#[derive(Clone)]
struct Homeserver {
    transports: String,
    /// Whom the focus is told that a token is of.
    vouched: &'static str,
    is_shown_to_pages: bool,
    /// Whether it passes requests for tokens on: it answers itself here.
    has_tokens: bool,
}

impl Homeserver {
    fn of(service: &str) -> Self {
        let transports =
            format!(r#"{{"rtc_transports":[{{"type":"livekit","livekit_service_url":"{service}"}}]}}"#);
        Self { transports, vouched: USER, is_shown_to_pages: true, has_tokens: false }
    }

    fn answer(&self, body: &str) -> axum::response::Response {
        match self.is_shown_to_pages {
            true => ([(ACCESS_CONTROL_ALLOW_ORIGIN, "*")], body.to_owned()).into_response(),
            false => body.to_owned().into_response(),
        }
    }

    /// Serves until the process ends, also `/broken`, an authorisation service whose CORS a proxy took off.
    fn serve(self) -> String {
        let this = Arc::new(self);
        let versions = r#"{"versions":["v1.11"],"unstable_features":{"org.matrix.msc4140":true}}"#;
        let says = |body: String| {
            let this = Arc::clone(&this);
            move || std::future::ready(this.answer(&body))
        };
        let transports = {
            let this = Arc::clone(&this);
            move |headers: HeaderMap| {
                let is_known = headers.get(AUTHORIZATION).is_some_and(|token| token == "Bearer dana");
                std::future::ready(match is_known {
                    true => this.answer(&this.transports),
                    false => (StatusCode::UNAUTHORIZED, "{}").into_response(),
                })
            }
        };
        let vouched = format!(r#"{{"sub":"{}"}}"#, this.vouched);
        let open_id = r#"{"access_token":"x","expires_in":3600,"matrix_server_name":"lab.example","token_type":"Bearer"}"#;
        let router = Router::new()
            .route("/_matrix/client/versions", get(says(versions.to_owned())))
            .route("/_matrix/client/unstable/org.matrix.msc4143/rtc/transports", get(transports))
            .route("/_matrix/client/v3/account/whoami", get(says(format!(r#"{{"user_id":"{USER}"}}"#))))
            .route("/_matrix/client/v3/user/{user}/openid/request_token", post(says(open_id.to_owned())))
            .route("/_matrix/federation/v1/openid/userinfo", get(says(vouched)))
            .route("/broken/healthz", get(says(String::new())));
        // {"sub":"d","video":{"room":"r"}}
        let jwt = r#"{"jwt":"e30.eyJzdWIiOiJkIiwidmlkZW8iOnsicm9vbSI6InIifX0.x"}"#;
        let router = match this.has_tokens {
            true => router.route(
                "/_matrix/client/unstable/io.element.msc4195/rtc/livekit/get_token",
                post(says(jwt.to_owned())),
            ),
            false => router,
        };
        let address: SocketAddr = format!("{}:8008", own_address()).parse().unwrap();
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, router).await.unwrap();
            });
        });
        format!("http://{address}")
    }
}

/// A focus beside such a homeserver.
struct Focus {
    child: Child,
    folder: PathBuf,
}

impl Focus {
    fn start(address: &str, homeserver: &str, url: &str, media: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("weir-check-{address}"));
        std::fs::create_dir_all(&folder).unwrap();
        let config = folder.join("weir.toml");
        let text = format!(
            "http.bind = \"{address}:7880\"\nadmin.bind = \"{address}:7889\"\nmedia.bind = [\"{address}\"]\n\
             {media}\n[matrix]\nserver_name = \"lab.example\"\nurl = \"{url}\"\n\
             homeserver_url = \"{homeserver}\"\nstate_directory = \"{}\"\n",
            folder.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut child =
            Command::new(WEIR).args(["run", "--config"]).arg(&config).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("started") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "it ended before it started");
        }
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, folder }
    }
}

impl Drop for Focus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// What it says, and its status.
fn check(homeserver: &str, more: &[&str]) -> (String, i32) {
    let output = Command::new(WEIR).args(["check", homeserver]).args(more).output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code().unwrap())
}

/// With one thing changed in what is otherwise well: what is said.
fn with(
    homeserver: impl FnOnce(&mut Homeserver),
    url: impl FnOnce(&str) -> String,
    media: &str,
) -> (String, i32) {
    let address = own_address();
    let mut served = Homeserver::of(&format!("http://{address}:7880/livekit/jwt"));
    homeserver(&mut served);
    let served = served.serve();
    let _focus = Focus::start(&address, &served, &url(&address), media);
    check(&served, &["--access-token", "dana"])
}

fn right(address: &str) -> String {
    format!("ws://{address}:7880/livekit/sfu")
}

#[track_caller]
fn fails_at(hop: &str, remedy: &str, (said, status): (String, i32)) {
    assert_eq!(status, 1, "{said}");
    let failed: Vec<_> = said.lines().filter(|line| line.starts_with("FAILED")).collect();
    assert!(failed.len() == 1 && failed[0].starts_with(&format!("FAILED  {hop}: ")), "{said}");
    assert!(said.contains("remedy: ") && said.contains(remedy), "{said}");
}

#[test]
fn a_whole_path_is_walked_to_its_end() {
    let (said, status) = with(|_| {}, right, "");
    assert_eq!(status, 0, "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("ok ")).count(), 8, "{said}");
    assert!(said.contains("msc4354"), "what the homeserver lacks is noted: {said}");
}

#[test]
fn without_a_token_it_goes_as_far_as_strangers_may() {
    let homeserver = Homeserver::of("http://127.0.0.1:1/livekit/jwt").serve();
    let (said, status) = check(&homeserver, &[]);
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("?       transports: ") && said.contains("--access-token"), "{said}");
}

#[test]
fn what_is_no_homeserver_is_named() {
    let (said, status) = check(&format!("http://{}:8008", own_address()), &[]);
    fails_at("homeserver", "start what should listen there", (said, status));
    let pages = with(|homeserver| homeserver.is_shown_to_pages = false, right, "");
    fails_at("homeserver", "Access-Control-Allow-Origin", pages);
}

#[test]
fn a_homeserver_that_announces_nothing_is_named() {
    let nothing = with(|homeserver| homeserver.transports = "{\"rtc_transports\":[]}".to_owned(), right, "");
    fails_at("transports", "matrix_rtc.transports", nothing);
}

#[test]
fn a_homeserver_that_announces_the_focus_itself_must_pass_requests_for_tokens_on() {
    let announces = |homeserver: &mut Homeserver, has_tokens: bool| {
        homeserver.has_tokens = has_tokens;
        let url = r#""type":"livekit","url":"ws://x/livekit/sfu""#;
        homeserver.transports = homeserver.transports.replace(r#""type":"livekit""#, url);
    };
    let (said, status) = with(|homeserver| announces(homeserver, true), right, "");
    assert!(status == 0 && said.contains("also through the homeserver"), "{said}");
    let not = with(|homeserver| announces(homeserver, false), right, "");
    fails_at("token", "generate --tokens", not);
}

#[test]
fn a_service_that_is_announced_at_the_wrong_path_is_named() {
    let elsewhere =
        with(|homeserver| homeserver.transports = homeserver.transports.replace("/jwt", "/none"), right, "");
    fails_at("service", "matrix.prefix", elsewhere);
}

#[test]
fn a_proxy_that_answers_options_itself_is_named() {
    let address = own_address();
    // The homeserver's own address is not known before it serves: another one stands in for the proxy.
    let proxy = Homeserver::of("").serve();
    let homeserver = Homeserver::of(&format!("{proxy}/broken")).serve();
    let _focus = Focus::start(&address, &homeserver, &right(&address), "");
    fails_at("CORS", "OPTIONS", check(&homeserver, &["--access-token", "dana"]));
}

#[test]
fn a_homeserver_that_vouches_for_nobody_is_named() {
    let nobody = with(|homeserver| homeserver.vouched = "@eve:elsewhere.example", right, "");
    fails_at("token", "userinfo", nobody);
}

#[test]
fn a_url_that_leads_nowhere_is_named() {
    let path = with(|_| {}, |address| format!("ws://{address}:7889/livekit/sfu"), "");
    fails_at("WebSocket", "matrix.url", path);
    let port = with(|_| {}, |address| format!("ws://{address}:1/livekit/sfu"), "");
    fails_at("WebSocket", "start what should listen there", port);
}

#[test]
fn an_announced_address_that_media_do_not_reach_is_named() {
    let elsewhere = own_address();
    let announced = with(|_| {}, right, &format!("media.announce = [\"{elsewhere}\"]"));
    fails_at("ICE over UDP", "media.announce", announced);
}

#[test]
fn a_focus_without_tcp_is_noted() {
    let (said, status) = with(|_| {}, right, "media.tcp_port = 0");
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("ICE over TCP: not offered") && said.contains("media.tcp_port"), "{said}");
}
