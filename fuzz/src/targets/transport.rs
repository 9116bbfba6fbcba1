//! A whole connection: datagrams before, during and after a handshake with an honest client, and then whatever that
//! client may send inside DTLS.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use weir_transport::testing::Client;
use weir_transport::{MAX_MESSAGE_BYTES, Output, Route, Transport};
use weir_units::media::{DtlsRole, IceCredentials, RemoteTransport};

use crate::{Input, client_context, clock, context};

const MAX_ORDERS: usize = 48;
/// Datagrams that one order may cause: a flight of the handshake, or a window of data.
const MAX_OUTPUTS: usize = 2_048;
const PATH: Route = Route::Udp {
    socket: 0,
    remote: std::net::SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4_000),
};
const ELSEWHERE: Route = Route::Udp {
    socket: 0,
    remote: std::net::SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4_001),
};

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut play = Play::new();
    let connects = input.bool();
    if connects {
        play.shake_hands();
        assert!(play.connected, "an honest client connects");
    }
    for _ in 0..MAX_ORDERS {
        if input.is_empty() {
            break;
        }
        play.order(&mut input);
        play.drain();
        assert!(!(connects && play.failed), "no datagram from outside ends a connection");
    }
}

struct Play {
    now: Instant,
    transport: Transport,
    client: Client,
    /// To the client.
    down: VecDeque<Vec<u8>>,
    up: VecDeque<Vec<u8>>,
    connected: bool,
    failed: bool,
}

impl Play {
    fn new() -> Self {
        let now = clock::start();
        let ice = |name: &str| IceCredentials {
            ufrag: name.to_owned(),
            password: format!("{name} password of 22 letters"),
        };
        let mut transport = Transport::new(context(), ice("Afocus"), now);
        let mut client = Client::new(client_context(), ice("client"), now);
        let description = client.description(Some(0));
        transport.set_remote(now, ice("Afocus"), &description).expect("a first description");
        let focus = RemoteTransport {
            ice: ice("Afocus"),
            fingerprint: context().fingerprint(),
            local_role: DtlsRole::Client,
            max_message_size: Some(0),
        };
        client.set_focus(now, &focus);
        Self {
            now,
            transport,
            client,
            down: VecDeque::new(),
            up: VecDeque::new(),
            connected: false,
            failed: false,
        }
    }

    fn shake_hands(&mut self) {
        let check = self.client.check(true);
        self.transport.handle_packet(self.now, PATH, &check);
        self.client.open_channel(self.now, "_reliable", true, None);
        for _ in 0..24 {
            self.drain();
            self.carry(usize::MAX);
            self.now += Duration::from_millis(1);
            self.client.handle_timeout(self.now);
        }
    }

    fn order(&mut self, input: &mut Input<'_>) {
        match input.below(9) {
            0 => self.carry(1 + input.below(4)),
            1 => {
                self.up.pop_front();
            }
            2 => {
                let check = self.client.check(input.bool());
                self.transport.handle_packet(self.now, PATH, &check);
            }
            3 => {
                let millis = u64::from(input.u16());
                self.now += Duration::from_millis(millis);
                self.transport.handle_timeout(self.now);
                self.client.handle_timeout(self.now);
                let next = self.transport.poll_timeout();
                assert!(next.is_none_or(|at| at > self.now), "a timeout comes back at once");
            }
            4 => {
                // From an address that was never checked.
                let mut packet = input.chunk().to_vec();
                let taken = self.transport.handle_packet(self.now, ELSEWHERE, &packet);
                assert!(!taken && self.transport.poll_output().is_none());
                if let Some(first) = packet.first_mut() {
                    *first = 22;
                }
                assert!(!self.transport.handle_packet(self.now, ELSEWHERE, &packet));
            }
            5 => {
                let packet = input.chunk();
                self.transport.handle_packet(self.now, PATH, packet);
            }
            6 => {
                // An honest packet with one byte changed.
                let (at, change) = (usize::from(input.u16()), input.u8());
                if let Some(mut packet) = self.up.pop_front()
                    && !packet.is_empty()
                {
                    let at = at % packet.len();
                    packet[at] ^= change;
                    self.transport.handle_packet(self.now, PATH, &packet);
                }
            }
            7 => self.client.send_application_data(self.now, input.chunk()),
            _ => {
                let payload = Bytes::copy_from_slice(input.chunk());
                if input.bool() {
                    self.client.send(self.now, "_reliable", payload, true);
                } else {
                    self.transport.send(self.now, "_reliable", payload, true);
                }
            }
        }
    }

    fn carry(&mut self, most: usize) {
        for _ in 0..most.min(self.up.len()) {
            if let Some(packet) = self.up.pop_front() {
                self.transport.handle_packet(self.now, PATH, &packet);
            }
        }
        for _ in 0..most.min(self.down.len()) {
            if let Some(packet) = self.down.pop_front() {
                self.client.handle_packet(self.now, &packet);
            }
        }
    }

    fn drain(&mut self) {
        let mut outputs = 0;
        while let Some(output) = self.transport.poll_output() {
            outputs += 1;
            assert!(outputs <= MAX_OUTPUTS, "one order causes more than {MAX_OUTPUTS} outputs");
            match output {
                Output::Transmit { route, bytes } => {
                    assert_eq!(route, PATH);
                    assert!(bytes.len() <= 1_500, "a datagram of {} bytes", bytes.len());
                    self.down.push_back(bytes);
                }
                Output::RouteSelected(route) => assert_eq!(route, PATH),
                Output::Connected(_) => {
                    assert!(!self.connected && !self.failed, "connected once");
                    self.connected = true;
                }
                Output::DtlsFailed => {
                    assert!(!self.failed, "failed once");
                    self.failed = true;
                }
                Output::ChannelOpen { label } => assert!(label.len() <= 256),
                Output::Message { payload, .. } => {
                    assert!(self.connected && payload.len() <= MAX_MESSAGE_BYTES as usize);
                }
            }
        }
        while let Some(packet) = self.client.poll_packet() {
            self.up.push_back(packet);
        }
        while self.client.poll_event().is_some() {}
    }
}
