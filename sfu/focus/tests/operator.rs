//! The binary as an operator meets it: what it refuses, and how it goes.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

const WEIR: &str = env!("CARGO_BIN_EXE_weir");
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A loopback address that no other test of this machine uses: ports are free there.
fn own_address() -> String {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let process = std::process::id();
    let [_, _, high, low] = process.to_be_bytes();
    format!("127.{}.{low}.{}", 64 + high % 64, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A configuration file that goes with the test.
struct File(PathBuf);

impl File {
    fn new(text: &str) -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let name = format!("weir-{}-{}.toml", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn weir(arguments: &[&str]) -> Output {
    Command::new(WEIR).args(arguments).output().unwrap()
}

/// A focus that runs until it is told to end.
struct Running {
    child: Child,
    address: String,
    /// What it has logged until it had started.
    log: String,
    _file: File,
}

impl Running {
    fn start(more: &str) -> Self {
        Self::start_after("", more)
    }

    /// The shell that starts it does `first`.
    fn start_after(first: &str, more: &str) -> Self {
        let address = own_address();
        let file = File::new(&format!(
            "http.bind = \"{address}:7880\"\nmedia.bind = [\"{address}\"]\nmedia.shards = 1\n\
             admin.bind = \"{address}:7889\"\nkeys.main = \"{SECRET}\"\n{more}"
        ));
        let script = format!("{first} exec \"$0\" run --config \"$1\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script, WEIR]).arg(&file.0).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("started") {
            assert!(log.read_line(&mut said).unwrap() > 0, "it ended before it started: {said}");
        }
        // Whoever logs must never find a full pipe.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, address, log: said, _file: file }
    }

    fn get(&self, path: &str, port: u16, headers: &str) -> TcpStream {
        let mut stream = TcpStream::connect((self.address.as_str(), port)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: weir\r\n{headers}\r\n").unwrap();
        stream
    }

    /// A client that joins over a WebSocket: what the server answered first, and the rest of the stream.
    fn join(&self, room: &str, identity: &str) -> (String, TcpStream) {
        let token =
            weir(&["token", "--key", "main", "--secret", SECRET, "--room", room, "--identity", identity]);
        let token = String::from_utf8(token.stdout).unwrap();
        let headers = "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
        let path = format!("/rtc?sdk=js&protocol=15&access_token={}", token.trim());
        let mut stream = self.get(&path, 7880, headers);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        (String::from_utf8(head).unwrap(), stream)
    }

    fn terminate(&mut self) -> i32 {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn open_files_are_as_many_as_the_system_lets_us_have_and_too_few_are_told() {
    let focus = Running::start_after("ulimit -S -n 500;", "");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", focus.child.id())).unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let (soft, hard) = files.trim().split_once(' ').unwrap();
    assert!(hard.trim_start().starts_with(soft), "{limits}");
    let said = &Running::start_after("ulimit -n 500;", "").log;
    assert!(said.contains("files=500") && said.contains("LimitNOFILE=16384"), "{said}");
}

#[test]
fn the_printed_default_with_a_key_passes_the_check() {
    let printed = String::from_utf8(weir(&["config", "--print-default"]).stdout).unwrap();
    let file = File::new(&format!("{printed}\n[keys]\nmain = \"{SECRET}\"\n"));
    // Whatever addresses this machine has.
    let mut check = Command::new(WEIR);
    check.args(["config", "--check"]).arg(&file.0).env("WEIR__MEDIA__BIND", "[\"127.0.0.1\"]");
    let checked = check.output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
}

#[test]
fn a_wrong_configuration_stops_the_start_and_is_named() {
    let cases = [
        ("media.udp_port = 70000", "media.udp_port = 70000", "remedy: write a number in that range"),
        ("media.udp_prot = 9000", "media.udp_prot", "perhaps you mean udp_port"),
        ("media.bind = [\"192.0.2.9\"]", "media.bind = 192.0.2.9", "choose an address that this machine has"),
        ("keys.main = \"short\"", "keys.main", "openssl rand -hex 32"),
        ("log.level = \"loud\"", "log.level = loud", "use off, error"),
        ("x = 1 2", "line 1 is not TOML", "remedy: mend it"),
    ];
    for (text, key, remedy) in cases {
        let key_of_ours =
            if text.contains("keys") { "" } else { "keys.main = \"0123456789abcdef0123456789abcdef\"" };
        let ports = "admin.bind = \"127.0.0.1:0\"\nhttp.bind = \"127.0.0.1:0\"";
        let file = File::new(&format!("{text}\n{key_of_ours}\n{ports}\n"));
        let refused = weir(&["run", "--config", file.0.to_str().unwrap()]);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(78), "{text}: {said}");
        assert!(said.contains(key) && said.contains(remedy), "{text}: {said}");
    }
    let missing = weir(&["run", "--config", "no-such-file.toml"]);
    let said = String::from_utf8(missing.stderr).unwrap();
    assert!(said.contains("--config: no-such-file.toml") && said.contains("remedy"), "{said}");
}

#[test]
fn the_check_refuses_what_the_start_refuses_and_makes_nothing() {
    let address = own_address();
    let (bad, state) = (File::new("not what it should be\nat all"), File::new(""));
    let (bad, state) = (bad.0.to_str().unwrap(), state.0.to_str().unwrap());
    std::fs::set_permissions(bad, std::fs::Permissions::from_mode(0o600)).unwrap();
    let absent = std::env::temp_dir().join(format!("weir-absent-{}", std::process::id()));
    let absent = absent.to_str().unwrap();
    let user = |file: &str| {
        format!(
            "homeserver_url = \"http://{address}:1\"\n[matrix.user]\nid = \"weir\"\npassword_file = \"{file}\""
        )
    };
    let registration = format!(
        "homeserver_url = \"http://{address}:1\"\n[matrix.appservice]\nregistration = \"{absent}/x.yaml\""
    );
    for (key, more) in [
        ("media.bind = 192.0.2.9", "[media]\nbind = [\"192.0.2.9\"]".to_owned()),
        ("matrix.appservice.registration", registration),
        ("matrix.openid.authorities_file", format!("openid.authorities_file = \"{bad}\"")),
        ("matrix.state_directory", format!("state_directory = \"{state}/below\"")),
        ("matrix.user.password_file", user(absent)),
        ("matrix.user.password_file", user(bad)),
    ] {
        let media = if key.starts_with("media") { "" } else { &format!("media.bind = [\"{address}\"]\n") };
        let kept = if key.ends_with("directory") { "" } else { &format!("state_directory = \"{absent}\"\n") };
        let file = File::new(&format!(
            "http.bind = \"{address}:0\"\nadmin.bind = \"{address}:0\"\n{media}[matrix]\nserver_name = \"lab.example\"\n\
             url = \"ws://x\"\n{kept}{more}\n"
        ));
        let path = file.0.to_str().unwrap();
        let checked = weir(&["config", "--check", path]);
        assert!(!std::fs::exists(absent).unwrap(), "{key}");
        for refused in [checked, weir(&["run", "--config", path])] {
            let said = String::from_utf8(refused.stderr).unwrap();
            assert_eq!(refused.status.code(), Some(78), "{key}: {said}");
            assert!(said.contains(key) && said.contains("remedy: "), "{key}: {said}");
        }
        let _ = std::fs::remove_dir_all(absent);
    }
}

#[test]
fn what_the_registration_and_the_configuration_say_of_tokens_must_agree() {
    for (flag, key) in [(Some("--tokens"), false), (None, true)] {
        let registration = File::new("");
        let path = registration.0.to_str().unwrap();
        std::fs::remove_file(path).unwrap(); // one that exists is left alone
        let mut generate = vec!["appservice", "generate", "--server-name", "lab.example", "--out", path];
        generate.extend(flag);
        let generated = weir(&generate);
        let advice = String::from_utf8(generated.stdout).unwrap();
        assert!(generated.status.success() && advice.contains("tokens = true") == flag.is_some(), "{advice}");
        assert_eq!(advice.contains("msc4512_enabled"), flag.is_some(), "{advice}");
        assert!(advice.contains(&format!("chmod 640 {path}")), "{advice}");
        let again = String::from_utf8(weir(&generate).stderr).unwrap();
        assert!(
            again.contains(&format!("--out: {path}: ")) && again.contains("remedy: use that one"),
            "{again}"
        );
        let file = File::new(&format!(
            "keys.main = \"{SECRET}\"\nadmin.bind = \"127.0.0.1:0\"\nhttp.bind = \"127.0.0.1:0\"\n[matrix]\nserver_name = \"lab.example\"\n\
             url = \"ws://x\"\nhomeserver_url = \"http://127.0.0.1:1\"\nstate_directory = \"\"\n[matrix.appservice]\n\
             registration = \"{path}\"\ntokens = {key}\n"
        ));
        for command in [["config", "--check"], ["run", "--config"]] {
            let refused = weir(&[command[0], command[1], file.0.to_str().unwrap()]);
            let said = String::from_utf8(refused.stderr).unwrap();
            assert_eq!(refused.status.code(), Some(78), "{said}");
            let named = format!("matrix.appservice.tokens = {key}: by {path}");
            assert!(said.contains(&named) && said.contains("restart the homeserver"), "{said}");
        }
    }
}

#[test]
fn a_port_that_is_taken_is_named_whoever_has_it() {
    let first = Running::start("");
    let address = &first.address;
    for (more, key) in [
        (format!("http.bind = \"{address}:7880\""), "http.bind"),
        (
            "media.udp_port = 7882\nmedia.tcp_port = 0\nhttp.bind = \"127.0.0.1:0\"".to_owned(),
            "media.udp_port",
        ),
        ("media.udp_port = 7982\nhttp.bind = \"127.0.0.1:0\"".to_owned(), "media.tcp_port"),
    ] {
        let file = File::new(&format!(
            "{more}\nmedia.bind = [\"{address}\"]\nadmin.bind = \"127.0.0.1:0\"\nkeys.main = \"{SECRET}\"\n"
        ));
        let refused = weir(&["run", "--config", file.0.to_str().unwrap()]);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(78), "{said}");
        assert!(
            said.contains(&format!("{key} = {address}:")) && said.contains("stop what listens there"),
            "{said}"
        );
    }
}

/// A homeserver that says of every token that it is dana's, or eve's of another server where the token is "eve".
fn homeserver() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let user = if line.contains("=eve ") { "@eve:else.example" } else { "@dana:lab.example" };
            let mut header = String::new();
            while reader.read_line(&mut header).unwrap() > 2 {
                header.clear();
            }
            let body = format!("{{\"sub\":\"{user}\"}}");
            let stream = reader.get_mut();
            let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        }
    });
    url
}

impl Running {
    /// The answer of the authorisation service: status line, and body.
    fn ask(&self, path: &str, body: &str) -> (String, String) {
        let mut stream = TcpStream::connect((self.address.as_str(), 7880)).unwrap();
        let length = body.len();
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nhost: weir\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    /// The token for a person from Matrix.
    fn matrix_token(&self, openid_token: &str) -> String {
        let (status, body) = self.ask("/livekit/jwt/sfu/get", &body_of(openid_token));
        assert_eq!(status, "HTTP/1.1 200 OK", "{body}");
        assert!(body.contains("\"url\":\"wss://rtc.lab.example/livekit/sfu\""), "{body}");
        body.split('"').skip_while(|part| *part != "jwt").nth(2).unwrap().to_owned()
    }

    /// The status line of a join.
    fn join_with(&self, token: &str) -> String {
        let headers = "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
        let path = format!("/livekit/sfu/rtc?sdk=js&protocol=15&access_token={token}");
        let mut line = String::new();
        BufReader::new(self.get(&path, 7880, headers)).read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

/// The section of a focus beside lab.example, and the directory where it keeps its key.
fn matrix_section(more: &str) -> (String, PathBuf) {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let name = format!("weir-state-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let directory = std::env::temp_dir().join(name);
    let section = format!(
        "[matrix]\nserver_name = \"lab.example\"\nurl = \"wss://rtc.lab.example/livekit/sfu\"\n\
         homeserver_url = \"{}\"\nstate_directory = \"{}\"\n{more}",
        homeserver(),
        directory.display()
    );
    (section, directory)
}

#[test]
fn the_start_says_what_becomes_of_people_from_matrix_and_what_the_kernel_does_not_give() {
    let (section, directory) = matrix_section("");
    let log = &Running::start(&section).log;
    for said in [
        "membership is not checked",
        "[matrix.user]",
        "server_name=\"lab.example\"",
        "sees_rooms_as=\"nothing\"",
    ] {
        assert!(log.contains(said), "{said}: {log}");
    }
    let (section, other_directory) = matrix_section("membership = \"off\"");
    let log = &Running::start(&section).log;
    assert!(!log.contains("not checked") && log.contains("membership=\"off\""), "{log}");
    let log = &Running::start("media.receive_buffer_bytes = 1073741824").log;
    assert!(log.contains("net.core.rmem_max=1073741824") && !log.contains("server_name"), "{log}");
    for directory in [directory, other_directory] {
        let _ = std::fs::remove_dir_all(directory);
    }
}

#[test]
fn people_from_matrix_get_tokens_that_this_focus_takes_also_after_a_restart() {
    let (section, directory) = matrix_section("");
    let mut focus = Running::start(&section);
    assert!(focus.ask("/livekit/jwt/get_token", "{}").1.contains("M_BAD_JSON"));
    let token = focus.matrix_token("dana");
    assert_eq!(focus.join_with(&token), "HTTP/1.1 101 Switching Protocols");
    // The operator's own keys are as good as ever.
    assert!(focus.join("2K3BVsUiVbgVZe3yiLDfIauTbcAYJVapBv6RGuweGkY", "x").0.starts_with("HTTP/1.1 503"));
    assert_eq!(focus.terminate(), 0);
    let again = Running::start(&section);
    assert_eq!(again.join_with(&token), "HTTP/1.1 101 Switching Protocols");
    let who = std::fs::metadata(directory.join("token.key")).unwrap().permissions().mode() & 0o777;
    assert_eq!(who, 0o600);
    let (status, body) = again.ask("/livekit/jwt/sfu/get", &body_of("eve"));
    assert!(status.contains("401") && body.contains("M_UNAUTHORIZED"), "{status} {body}");
    let _ = std::fs::remove_dir_all(directory);
}

/// A homeserver that lets nobody in.
fn closed_homeserver() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let (mut header, mut length) = (String::new(), 0);
            while reader.read_line(&mut header).unwrap() > 2 {
                let header = std::mem::take(&mut header).to_ascii_lowercase();
                if let Some(value) = header.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            reader.read_exact(&mut vec![0; length]).unwrap();
            let body = "{\"errcode\":\"M_FORBIDDEN\",\"error\":\"Invalid username or password\"}";
            let head = "HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-type: application/json";
            let _ = write!(reader.get_mut(), "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        }
    });
    url
}

#[test]
fn a_matrix_user_that_cannot_sign_in_stops_the_start_and_is_told_how_it_can() {
    let password = File::new("a guess\n");
    let mode = |mode| std::fs::set_permissions(&password.0, std::fs::Permissions::from_mode(mode)).unwrap();
    let path = password.0.display();
    let user = format!(
        "[matrix.user]\nid = \"weir\"\npassword_file = \"{path}\"\nhomeserver_url = \"{}\"\n",
        closed_homeserver()
    );
    let (section, directory) = matrix_section(&user);
    let ports = "media.udp_port = 7883\nmedia.tcp_port = 0\nadmin.bind = \"127.0.0.1:0\"\nhttp.bind = \"127.0.0.1:0\"";
    let file = File::new(&format!("{ports}\nmedia.bind = [\"{}\"]\n{section}", own_address()));
    for (permissions, remedy) in
        [(0o644, format!("chmod 600 {path}")), (0o600, "password of weir".to_owned())]
    {
        mode(permissions);
        let refused = weir(&["run", "--config", file.0.to_str().unwrap()]);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(78), "{said}");
        assert!(said.contains(&format!("matrix.user.password_file = {path}: ")), "{said}");
        assert!(said.contains(&remedy) && !said.contains("a guess"), "{said}");
    }
    let _ = std::fs::remove_dir_all(directory);
}

fn body_of(openid_token: &str) -> String {
    let openid = format!("{{\"access_token\":\"{openid_token}\",\"matrix_server_name\":\"lab.example\"}}");
    format!("{{\"room\":\"!r:lab.example\",\"device_id\":\"D\",\"openid_token\":{openid}}}")
}

#[test]
fn who_may_not_create_finds_no_room_until_somebody_else_has_asked_for_it() {
    let (section, directory) = matrix_section("creators = [\"else.example\"]");
    let focus = Running::start(&section);
    // Not 404 yet: who may create it could be about to come back from before a restart.
    assert_eq!(focus.join_with(&focus.matrix_token("dana")), "HTTP/1.1 503 Service Unavailable");
    let (section, other_directory) = matrix_section("");
    let open = Running::start(&section);
    // A token alone makes the room be there, before its bearer has come.
    let _ = open.matrix_token("dana");
    let mut metrics = String::new();
    open.get("/metrics", 7889, "connection: close\r\n").read_to_string(&mut metrics).unwrap();
    assert!(metrics.contains("\nweir_rooms 1\n"), "{metrics}");
    let mut lines = String::new();
    open.get("/debug/lines", 7889, "connection: close\r\n").read_to_string(&mut lines).unwrap();
    assert!(lines.contains("application/json") && lines.contains("\"lines\": []"), "{lines}");
    assert!(
        metrics.contains("weir_token_requests_total{endpoint=\"sfu_get\",outcome=\"granted\"} 1"),
        "{metrics}"
    );
    for directory in [directory, other_directory] {
        let _ = std::fs::remove_dir_all(directory);
    }
}

/// `Leave` with the reason "server shutdown", then the end of the WebSocket.
const LEAVE_AND_CLOSE: [u8; 8] = [0x82, 4, 0x42, 2, 0x10, 3, 0x88, 0];

#[test]
fn everybody_is_told_why_the_focus_goes() {
    let mut focus = Running::start("shutdown.deadline_seconds = 60");
    let clients: Vec<_> = (0..250)
        .map(|number| focus.join(&format!("room {}", number % 5), &format!("client-{number}")))
        .collect();
    assert!(clients.iter().all(|(answer, _)| answer.starts_with("HTTP/1.1 101")));
    // Who does not read meanwhile holds up nobody: what it is sent fits its socket's buffer.
    assert_eq!(focus.terminate(), 0);
    for (number, (_, mut stream)) in clients.into_iter().enumerate() {
        let mut said = Vec::new();
        stream.read_to_end(&mut said).unwrap();
        assert!(
            said.ends_with(&LEAVE_AND_CLOSE),
            "client {number}: {:?}",
            &said[said.len().saturating_sub(16)..]
        );
    }
}

#[test]
fn who_is_in_may_come_back_to_a_full_room() {
    let focus = Running::start("limits.participants_per_room = 1");
    let (first, _stream) = focus.join("room", "alice");
    let (other, _) = focus.join("room", "bob");
    let (again, _) = focus.join("room", "alice");
    assert!(first.starts_with("HTTP/1.1 101"), "{first}");
    assert!(other.starts_with("HTTP/1.1 503"), "{other}");
    assert!(again.starts_with("HTTP/1.1 101"), "{again}");
}

#[test]
fn metrics_have_help_and_units_and_health_answers() {
    let focus = Running::start("");
    let read = |path: &str| {
        let mut text = String::new();
        focus.get(path, 7889, "connection: close\r\n").read_to_string(&mut text).unwrap();
        text
    };
    assert!(read("/healthz").contains("alive"));
    assert!(read("/readyz").contains("ready"));
    let metrics = read("/metrics");
    for name in [
        "weir_joins_total{stage=\"connected\"}",
        "weir_dropped_total{reason=\"stun\"",
        "weir_peers{",
        "weir_bytes_out_total{",
        "weir_first_packet_seconds_count{kind=\"video\"} 0",
    ] {
        assert!(metrics.contains(name), "{name}");
    }
    for line in metrics.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        let (name, help) = line.split_once(' ').unwrap();
        assert!(name.starts_with("weir_") && help.ends_with('.'), "{line}");
    }
}
