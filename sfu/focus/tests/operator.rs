//! The binary as an operator meets it: what it refuses, and how it goes.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
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
    _file: File,
}

impl Running {
    fn start(more: &str) -> Self {
        let address = own_address();
        let file = File::new(&format!(
            "http.bind = \"{address}:7880\"\nmedia.bind = [\"{address}\"]\nmedia.shards = 1\n\
             admin.bind = \"{address}:7889\"\nkeys.main = \"{SECRET}\"\n{more}"
        ));
        let mut child =
            Command::new(WEIR).args(["run", "--config"]).arg(&file.0).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("started") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "it ended before it started");
        }
        // Whoever logs must never find a full pipe.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, address, _file: file }
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
fn the_printed_default_with_a_key_passes_the_check() {
    let printed = String::from_utf8(weir(&["config", "--print-default"]).stdout).unwrap();
    let file = File::new(&format!("{printed}\n[keys]\nmain = \"{SECRET}\"\n"));
    let checked = weir(&["config", "--check", file.0.to_str().unwrap()]);
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
    for name in ["weir_joins_total{stage=\"connected\"}", "weir_dropped_total{reason=\"stun\"", "weir_peers{"]
    {
        assert!(metrics.contains(name), "{name}");
    }
    for line in metrics.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        let (name, help) = line.split_once(' ').unwrap();
        assert!(name.starts_with("weir_") && help.ends_with('.'), "{line}");
    }
}
