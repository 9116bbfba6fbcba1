//! A transport and a client over a path in virtual time, with delay and with losses drawn from a seed.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::testing::{Client, ClientEvent, carrying};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const DELAY: Duration = Duration::from_millis(20);

#[expect(clippy::disallowed_methods, reason = "an origin for virtual time; tests only add to it")]
fn origin() -> Instant {
    Instant::now()
}

fn ice(name: &str) -> IceCredentials {
    IceCredentials { ufrag: name.into(), password: format!("{name}-password-of-22-chars") }
}

fn route(port: u16) -> Route {
    Route::Udp { socket: 0, remote: ([192, 0, 2, 1], port).into() }
}

#[derive(Clone, Copy, PartialEq)]
enum To {
    Focus(Route),
    Client,
}

struct Path {
    now: Instant,
    focus: Transport,
    client: Client,
    client_context: TransportContext,
    focus_description: RemoteTransport,
    /// By arrival and order.
    under_way: BTreeMap<(Instant, u64), (To, Vec<u8>)>,
    sent: u64,
    loss: f64,
    rng: SmallRng,
    /// Where the client is.
    from: Route,
    connected: bool,
    failed: bool,
    selected: Option<Route>,
    open: Vec<String>,
    to_focus: Vec<(String, Bytes)>,
    to_client: Vec<(String, Bytes)>,
}

impl Path {
    fn new() -> Self {
        Self::with_channels(Some(65_536))
    }

    fn with_channels(max_message_size: Option<u32>) -> Self {
        let now = origin();
        let context = TransportContext::generate().unwrap();
        let client_context = TransportContext::generate().unwrap();
        let mut focus = Transport::new(&context, ice("focus"), now);
        let client = Client::new(&client_context, ice("client"), now);
        let description = client.description(max_message_size);
        focus.set_remote(now, ice("focus"), &description).unwrap();
        let focus_description =
            RemoteTransport { ice: ice("focus"), fingerprint: context.fingerprint(), ..description };
        Self {
            now,
            focus,
            client,
            client_context,
            focus_description,
            under_way: BTreeMap::new(),
            sent: 0,
            loss: 0.0,
            rng: SmallRng::seed_from_u64(7),
            from: route(1_000),
            connected: false,
            failed: false,
            selected: None,
            open: Vec::new(),
            to_focus: Vec::new(),
            to_client: Vec::new(),
        }
    }

    fn connected() -> Self {
        let mut path = Self::new();
        path.connect();
        path.run(2 * SECOND);
        assert!(path.connected);
        path
    }

    fn connect(&mut self) {
        let description = self.focus_description.clone();
        self.client.set_focus(self.now, &description);
        self.check(true);
    }

    fn check(&mut self, nominates: bool) {
        let check = self.client.check(nominates);
        self.put(To::Focus(self.from), check);
    }

    fn put(&mut self, to: To, packet: Vec<u8>) {
        if self.rng.random_bool(self.loss) {
            return;
        }
        self.sent += 1;
        self.under_way.insert((self.now + DELAY, self.sent), (to, packet));
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..1_000_000 {
            self.drain();
            let arrival = self.under_way.keys().next().map(|(at, _)| *at);
            let timeouts = [self.focus.poll_timeout(), self.client.poll_timeout()];
            let next = timeouts.into_iter().flatten().chain(arrival).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            self.focus.handle_timeout(self.now);
            self.client.handle_timeout(self.now);
            while let Some(entry) = self.under_way.first_entry().filter(|entry| entry.key().0 <= self.now) {
                match entry.remove() {
                    (To::Focus(from), packet) => {
                        self.focus.handle_packet(self.now, from, &packet);
                    }
                    (To::Client, packet) => {
                        self.client.handle_packet(self.now, &packet);
                    }
                }
            }
        }
        panic!("the two never come to rest");
    }

    fn drain(&mut self) {
        while let Some(packet) = self.client.poll_packet() {
            self.put(To::Focus(self.from), packet);
        }
        while let Some(output) = self.focus.poll_output() {
            match output {
                Output::Transmit { route, bytes } if route == self.from => self.put(To::Client, bytes),
                Output::Transmit { .. } => {} // to where the client was
                Output::RouteSelected(route) => self.selected = Some(route),
                Output::Connected(_) => self.connected = true,
                Output::DtlsFailed => self.failed = true,
                Output::ChannelOpen { label } => self.open.push(label),
                Output::Message { label, payload, .. } => self.to_focus.push((label, payload)),
            }
        }
        while let Some(event) = self.client.poll_event() {
            if let ClientEvent::Message { label, payload, .. } = event {
                self.to_client.push((label, payload));
            }
        }
    }

    /// Opens the client's channels of the LiveKit protocol and waits for them.
    fn open_channels(&mut self) {
        self.client.open_channel(self.now, "_reliable", true, None);
        self.client.open_channel(self.now, "_lossy", false, Some(0));
        self.run(2 * SECOND);
        assert_eq!(self.open.len(), 2, "{:?}", self.open);
    }
}

/// Messages that name their place.
fn numbered(count: usize, bytes: usize) -> Vec<Bytes> {
    (0..count)
        .map(|number| Bytes::from([format!("{number:08}").into_bytes(), vec![b'.'; bytes]].concat()))
        .collect()
}

fn payloads(messages: &[(String, Bytes)]) -> Vec<Bytes> {
    messages.iter().map(|(_, payload)| payload.clone()).collect()
}

#[test]
fn connects_though_a_fifth_of_all_packets_is_lost() {
    for seed in 0..10 {
        let mut path = Path::new();
        path.rng = SmallRng::seed_from_u64(seed);
        path.connect();
        path.loss = 0.2;
        path.run(MILLISECOND);
        for _ in 0..20 {
            path.check(true); // as clients repeat them
            path.run(SECOND / 2);
        }
        assert!(path.connected && !path.failed, "seed {seed}");
    }
}

#[test]
fn nothing_but_a_check_moves_it_before_the_address_is_validated() {
    let mut path = Path::new();
    let description = path.focus_description.clone();
    path.client.set_focus(path.now, &description);
    path.run(SECOND); // the hello arrives, but from nowhere known
    assert!(!path.connected && path.selected.is_none());
    path.check(true);
    path.run(5 * SECOND);
    assert!(path.connected, "its repetition is taken");
}

/// A path whose client has a hello to say, and the hello.
fn about_to_say_hello() -> (Path, Vec<u8>) {
    let mut path = Path::new();
    let description = path.focus_description.clone();
    path.client.set_focus(path.now, &description);
    let hello = path.client.poll_packet().expect("a hello");
    (path, hello)
}

#[test]
fn a_hello_in_the_first_check_is_answered_with_it_and_may_be_said_again() {
    let (mut path, hello) = about_to_say_hello();
    let check = carrying(&path.client.check(true), &hello, &ice("focus").password);
    path.put(To::Focus(path.from), check);
    path.run(DELAY);
    let answers: Vec<u8> = path.under_way.values().map(|(_, packet)| packet[0]).collect();
    assert_eq!(answers[..2], [1, 22], "the answer to the check, and the answer to the hello");
    path.run(DELAY);
    path.put(To::Focus(path.from), hello); // as clients do that were not told of the first
    path.run(DELAY);
    assert!(path.connected, "in one and a half round trips");
    path.run(SECOND);
    path.open_channels();
    assert!(!path.failed);
}

#[test]
fn a_hello_in_a_check_of_a_stranger_is_not_taken() {
    let (mut path, hello) = about_to_say_hello();
    let check = carrying(&path.client.check(true), &hello, "a password that is not ours");
    path.put(To::Focus(path.from), check);
    path.run(DELAY);
    assert!(path.under_way.is_empty());
}

#[test]
fn another_certificate_than_the_announced_one_fails() {
    let mut path = Path::new();
    let other = RemoteTransport { fingerprint: [9; 32], ..path.client.description(None) };
    path.focus = Transport::new(&TransportContext::generate().unwrap(), ice("focus"), path.now);
    path.focus.set_remote(path.now, ice("focus"), &other).unwrap();
    path.connect();
    path.run(2 * SECOND);
    assert!(path.failed && !path.connected);
}

#[test]
fn neither_the_role_nor_the_certificate_changes_during_a_session() {
    let mut path = Path::connected();
    let known = path.client.description(None);
    let role = RemoteTransport { local_role: DtlsRole::Client, ..known.clone() };
    assert_eq!(path.focus.set_remote(path.now, ice("focus"), &role), Err(SetRemoteError::RoleChanged));
    let certificate = RemoteTransport { fingerprint: [9; 32], ..known };
    let changed = path.focus.set_remote(path.now, ice("focus"), &certificate);
    assert_eq!(changed, Err(SetRemoteError::FingerprintChanged));
}

#[test]
fn as_the_dtls_client_it_says_hello_once_a_path_is_nominated() {
    let mut path = Path::new();
    let description = path.client.description(Some(65_536));
    let remote = RemoteTransport { local_role: DtlsRole::Client, ..description };
    path.focus = Transport::new(&TransportContext::generate().unwrap(), ice("focus"), path.now);
    path.focus.set_remote(path.now, ice("focus"), &remote).unwrap();
    let said_hello = |focus: &mut Transport| {
        let mut hello = false;
        while let Some(output) = focus.poll_output() {
            hello |= matches!(output, Output::Transmit { bytes, .. } if bytes[0] == 22);
        }
        hello
    };
    path.focus.open_channel(path.now, "_reliable", true, None, None);
    while let Some(at) = path.focus.poll_timeout().filter(|at| *at <= path.now + SECOND) {
        path.now = path.now.max(at);
        path.focus.handle_timeout(path.now);
    }
    assert!(!said_hello(&mut path.focus), "to whom?");
    let description = path.focus_description.clone();
    path.client.set_focus(path.now, &description);
    let check = path.client.check(true);
    path.focus.handle_packet(path.now, path.from, &check);
    assert!(said_hello(&mut path.focus));
}

#[test]
fn a_restart_of_ice_keeps_the_association_and_its_channels() {
    let mut path = Path::connected();
    path.open_channels();
    path.client.restart(ice("client-2"), ice("focus-2"));
    let remote = RemoteTransport { ice: ice("client-2"), ..path.client.description(None) };
    path.focus.set_remote(path.now, ice("focus-2"), &remote).unwrap();
    path.from = route(2_000);
    path.check(true);
    path.run(SECOND);
    assert_eq!(path.selected, Some(route(2_000)));
    path.client.send(path.now, "_reliable", "after".into(), true);
    path.run(SECOND);
    assert_eq!(payloads(&path.to_focus), ["after"]);
    let stale = crate::testing::binding_request("client", &ice("focus"), 1, true);
    assert!(!path.focus.handle_packet(path.now, path.from, &stale), "the old credentials are void");
}

#[test]
fn a_client_that_moves_is_followed_and_nothing_reliable_is_lost() {
    let mut path = Path::connected();
    path.open_channels();
    let messages = numbered(200, 1_000);
    for message in &messages {
        path.client.send(path.now, "_reliable", message.clone(), true);
    }
    path.run(30 * MILLISECOND);
    path.from = route(2_000); // its packets come from elsewhere, where no check has come from yet
    path.run(SECOND);
    path.check(true);
    path.run(SECOND);
    path.check(true);
    path.run(20 * SECOND);
    assert_eq!(path.selected, Some(route(2_000)));
    assert_eq!(payloads(&path.to_focus), messages);
}

#[test]
fn two_megabytes_arrive_whole_and_in_order_both_ways_through_loss() {
    for loss in [0.0, 0.03] {
        let mut path = Path::connected();
        path.open_channels();
        path.loss = loss;
        let messages = numbered(140, 15_000);
        for message in &messages {
            assert_eq!(path.client.send(path.now, "_reliable", message.clone(), true), SendOutcome::Queued);
            assert_eq!(path.focus.send(path.now, "_reliable", message.clone(), true), SendOutcome::Queued);
        }
        path.run(120 * SECOND);
        assert!(payloads(&path.to_focus) == messages, "{} of 140, loss {loss}", path.to_focus.len());
        assert!(payloads(&path.to_client) == messages, "{} of 140, loss {loss}", path.to_client.len());
        assert_eq!(path.focus.queued_bytes(), 0);
    }
}

#[test]
fn what_is_lossy_is_sent_once_and_overtakes_nothing_forever() {
    let mut path = Path::connected();
    path.open_channels();
    path.loss = 0.1;
    let messages = numbered(300, 100);
    for message in &messages {
        path.client.send(path.now, "_lossy", message.clone(), true);
        path.run(10 * MILLISECOND);
    }
    path.loss = 0.0;
    path.run(5 * SECOND);
    let got = payloads(&path.to_focus);
    assert!((200..300).contains(&got.len()), "{} of 300: some are lost, and not sent again", got.len());
    assert!(got.iter().all(|message| messages.contains(message)));
    path.client.send(path.now, "_lossy", "last".into(), true);
    path.run(SECOND);
    assert_eq!(path.to_focus.last().unwrap().1, "last", "losses do not stop the channel");
}

#[test]
fn held_messages_wait_with_the_sender_and_come_whole_and_in_order() {
    let mut path = Path::connected();
    path.open_channels();
    path.focus.hold_messages(path.now, true);
    let messages = numbered(200, 15_000);
    for message in &messages {
        path.client.send(path.now, "_reliable", message.clone(), true);
    }
    path.run(10 * SECOND);
    assert!(path.to_focus.is_empty(), "held");
    path.focus.hold_messages(path.now, false);
    path.run(120 * SECOND);
    assert!(payloads(&path.to_focus) == messages, "{} of 200", path.to_focus.len());
}

#[test]
fn a_peer_that_takes_nothing_fills_its_queue_and_no_more() {
    let mut path = Path::connected();
    path.open_channels();
    path.loss = 1.0;
    let message = Bytes::from(vec![0; 60_000]);
    let mut outcomes = Vec::new();
    for _ in 0..200 {
        outcomes.push(path.focus.send(path.now, "_reliable", message.clone(), true));
    }
    assert_eq!(outcomes.last(), Some(&SendOutcome::Full));
    assert!(path.focus.queued_bytes() <= 4 * 1024 * 1024);
    let queued = outcomes.iter().filter(|outcome| **outcome == SendOutcome::Queued).count();
    assert!(queued * 60_000 >= 4_000_000, "{queued} were taken");
    for _ in 0..10_000 {
        path.focus.send(path.now, "_lossy", Bytes::from_static(b"x"), true);
    }
    assert_eq!(path.focus.send(path.now, "_lossy", Bytes::from_static(b"x"), true), SendOutcome::Full);
}

#[test]
fn what_cannot_be_sent_is_said_by_reason() {
    let mut path = Path::connected();
    assert_eq!(path.focus.send(path.now, "_reliable", "x".into(), true), SendOutcome::NoChannel);
    path.open_channels();
    let large = Bytes::from(vec![0; 65_537]);
    assert_eq!(path.focus.send(path.now, "_reliable", large, true), SendOutcome::TooLarge);
    assert_eq!(path.focus.send(path.now, "other", "x".into(), true), SendOutcome::NoChannel);
}

#[test]
fn channels_of_ours_open_as_they_were_asked_for_and_empty_messages_stay_empty() {
    let mut path = Path::new();
    path.focus.open_channel(path.now, "_reliable", true, None, None);
    path.focus.open_channel(path.now, "_lossy", false, Some(0), None);
    path.connect();
    path.run(3 * SECOND);
    assert_eq!(path.open, ["_reliable", "_lossy"]);
    path.focus.send(path.now, "_reliable", Bytes::new(), true);
    path.focus.send(path.now, "_lossy", "text".into(), false);
    path.run(SECOND);
    let mut got = path.to_client.clone();
    got.sort();
    let expected = [("_lossy", "text"), ("_reliable", "")];
    assert_eq!(got, expected.map(|(label, text)| (label.to_owned(), Bytes::from(text))));
}

#[test]
fn a_peer_opens_no_more_channels_than_the_bound() {
    let mut path = Path::connected();
    for number in 0..32 {
        path.client.open_channel(path.now, &format!("channel {number}"), true, None);
    }
    path.run(3 * SECOND);
    assert_eq!(path.open.len(), 32);
    path.focus.open_channel(path.now, "one more", true, None, None);
    path.run(SECOND);
    assert_eq!(path.open.len(), 32);
}

#[test]
fn without_an_application_line_there_are_no_channels_and_nothing_breaks() {
    let mut path = Path::with_channels(None);
    path.connect();
    path.run(2 * SECOND);
    assert!(path.connected);
    path.focus.open_channel(path.now, "_reliable", true, None, None);
    assert_eq!(path.focus.send(path.now, "_reliable", "x".into(), true), SendOutcome::NoChannel);
}

#[test]
fn channels_wait_for_an_application_line_that_a_later_offer_brings() {
    let mut path = Path::with_channels(None);
    path.focus_description.max_message_size = Some(65_536);
    path.focus.open_channel(path.now, "_reliable", true, None, None);
    path.connect();
    path.run(2 * SECOND);
    assert!(path.connected && path.open.is_empty());
    path.focus.open_channel(path.now, "_lossy", false, Some(0), None);
    let description = path.client.description(Some(65_536));
    path.focus.set_remote(path.now, ice("focus"), &description).unwrap();
    path.run(10 * SECOND);
    assert_eq!(path.open, ["_reliable", "_lossy"]);
}

#[test]
fn garbage_and_other_peoples_packets_change_nothing() {
    let mut path = Path::connected();
    path.open_channels();
    let mut rng = SmallRng::seed_from_u64(1);
    for len in 0..500 {
        let mut packet: Vec<u8> = (0..len).map(|_| rng.random()).collect();
        for first in [0, 20, 22, 23, 63] {
            if let Some(byte) = packet.first_mut() {
                *byte = first;
            }
            path.focus.handle_packet(path.now, path.from, &packet);
            path.focus.handle_packet(path.now, route(6_666), &packet);
        }
    }
    let stranger = Client::new(&path.client_context, ice("stranger"), path.now).description(None);
    let check = crate::testing::binding_request(&stranger.ice.ufrag, &ice("focus"), 1, true);
    assert!(!path.focus.handle_packet(path.now, route(6_666), &check), "another's user fragment");
    path.client.send(path.now, "_reliable", "still here".into(), true);
    path.run(SECOND);
    assert_eq!(payloads(&path.to_focus), ["still here"]);
    assert_eq!(path.selected, Some(route(1_000)));
}
