//! The other end of a connection, in memory: what a client does to reach a focus. For tests, fuzzing and benchmarks of
//! the crates above; the feature `testing` builds it.
//!
//! ```text
//! let mut client = Client::new(&context, client_ice, now);   // its credentials and certificate: Client::description
//! client.set_focus(now, &focus);                             // the focus's
//! send(client.check(true));                                  // an ICE check that nominates
//! client.handle_packet(now, &answer);                        // answers, DTLS; then poll_packet until it is empty
//! let (ingress, egress) = client.take_srtp().unwrap();       // once connected
//! ```

mod data_channels;

pub use data_channels::{ChannelNotice, DataChannels, reread_establishment};

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use bytes::Bytes;
use is::stun::{StunMessage, TransId};
use weir_units::media::{DtlsRole, IceCredentials, RemoteTransport};

use crate::channels::SendOutcome;
use crate::context::TransportContext;
use crate::ice::sha1_hmac;
use crate::srtp::{SrtpEgress, SrtpIngress};
use crate::{Output, Route, Transport};

/// The type preference of a host candidate with the rest at its best, for checks that don't care.
pub const HOST_PRIORITY: u32 = 2_130_706_431;

/// The longest check, in bytes: two user fragments of 256 characters and some attributes.
const MAX_CHECK: usize = 1_024;

/// The one path the client's own transport knows: who carries the packets decides where they really go.
const PATH: Route =
    Route::Udp { socket: 0, remote: SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9) };

/// A binding request with integrity, from the user fragment `from` to the holder of `to`.
pub fn binding_request(from: &str, to: &IceCredentials, priority: u32, nominates: bool) -> Vec<u8> {
    let user = format!("{}:{from}", to.ufrag);
    let request = StunMessage::binding_request(&user, TransId::new(), true, 1, priority, nominates);
    let mut bytes = vec![0; MAX_CHECK];
    let len = request.to_bytes(Some(to.password.as_bytes()), &mut bytes, sha1_hmac).expect("it is shorter");
    bytes.truncate(len);
    bytes
}

/// `check` with a DTLS packet in it, and the integrity of whoever knows `password`.
pub fn carrying(check: &[u8], packet: &[u8], password: &str) -> Vec<u8> {
    const INTEGRITY_AND_FINGERPRINT: usize = 24 + 8;
    let mut bytes = check[..check.len() - INTEGRITY_AND_FINGERPRINT].to_vec();
    bytes.extend([0xc0, 0x70]);
    bytes.extend((packet.len() as u16).to_be_bytes());
    bytes.extend(packet);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let len = (bytes.len() + 24 - 20) as u16;
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
    let integrity = sha1_hmac(password.as_bytes(), &[&bytes]);
    bytes.extend([0, 8, 0, 20]);
    bytes.extend(integrity);
    bytes
}

/// Whether `packet` answers a check with success and integrity of the holder of `of`. Gives the address the answer
/// names: where the check seemed to come from.
pub fn mapped_address(packet: &[u8], of: &IceCredentials) -> Option<SocketAddr> {
    let message = StunMessage::parse(packet).ok()?;
    let is_valid =
        message.is_successful_binding_response() && message.verify(of.password.as_bytes(), sha1_hmac);
    message.mapped_address().filter(|_| is_valid)
}

/// A client's end of one connection: ICE checks, DTLS as the client, data channels and SRTP keys.
pub struct Client {
    local: IceCredentials,
    fingerprint: [u8; 32],
    focus: Option<RemoteTransport>,
    transport: Transport,
    packets: VecDeque<Vec<u8>>,
    events: VecDeque<ClientEvent>,
    srtp: Option<(SrtpIngress, SrtpEgress)>,
}

/// What a client notices.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientEvent {
    Connected,
    Failed,
    ChannelOpen { label: String },
    Message { label: String, binary: bool, payload: Bytes },
}

impl Client {
    pub fn new(context: &TransportContext, local: IceCredentials, now: Instant) -> Self {
        Self {
            transport: Transport::new(context, local.clone(), now),
            local,
            fingerprint: context.fingerprint(),
            focus: None,
            packets: VecDeque::new(),
            events: VecDeque::new(),
            srtp: None,
        }
    }

    /// What the focus is to be told of this client. `max_message_size` as in [`RemoteTransport`].
    pub fn description(&self, max_message_size: Option<u32>) -> RemoteTransport {
        RemoteTransport {
            ice: self.local.clone(),
            fingerprint: self.fingerprint,
            local_role: DtlsRole::Server,
            max_message_size,
        }
    }

    /// Tells the client of the focus, and begins the handshake: the first packets may be polled. The client is the
    /// DTLS client whatever `focus` says.
    pub fn set_focus(&mut self, now: Instant, focus: &RemoteTransport) {
        let focus = RemoteTransport { local_role: DtlsRole::Client, ..focus.clone() };
        self.transport.set_remote(now, self.local.clone(), &focus).expect("the first description");
        // The transport is a lite agent: it believes in a path once a check came over it.
        let check = binding_request(&focus.ice.ufrag, &self.local, HOST_PRIORITY, true);
        self.transport.handle_packet(now, PATH, &check);
        self.focus = Some(focus);
        while let Some(output) = self.transport.poll_output() {
            if let Output::Transmit { bytes, .. } = output
                && bytes.first().is_some_and(|first| *first >= 20)
            {
                self.packets.push_back(bytes); // and not the answer to its own check
            }
        }
    }

    /// Both sides have new credentials: an ICE restart. DTLS goes on.
    pub fn restart(&mut self, local: IceCredentials, focus: IceCredentials) {
        self.local = local;
        if let Some(known) = &mut self.focus {
            known.ice = focus;
        }
    }

    /// The next check of the focus.
    pub fn check(&self, nominates: bool) -> Vec<u8> {
        self.check_with(HOST_PRIORITY, nominates)
    }

    /// As [`Self::check`], from a candidate of this priority.
    pub fn check_with(&self, priority: u32, nominates: bool) -> Vec<u8> {
        let focus = &self.focus.as_ref().expect("set_focus comes first").ice;
        binding_request(&self.local.ufrag, focus, priority, nominates)
    }

    /// A DTLS packet or an answer to a check. Says whether it was one, and valid.
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8]) -> bool {
        if packet.first().is_some_and(|first| *first <= 3) {
            return self.focus.as_ref().is_some_and(|focus| mapped_address(packet, &focus.ice).is_some());
        }
        let taken = self.transport.handle_packet(now, PATH, packet);
        self.drain(now);
        taken
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.transport.handle_timeout(now);
        self.drain(now);
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.transport.poll_timeout()
    }

    /// The next DTLS packet for the focus.
    pub fn poll_packet(&mut self) -> Option<Vec<u8>> {
        self.packets.pop_front()
    }

    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// The contexts for what the focus sends and for what the client sends, once.
    pub fn take_srtp(&mut self) -> Option<(SrtpIngress, SrtpEgress)> {
        self.srtp.take()
    }

    pub fn open_channel(&mut self, now: Instant, label: &str, ordered: bool, max_retransmits: Option<u16>) {
        self.transport.open_channel(now, label, ordered, max_retransmits, None);
        self.drain(now);
    }

    pub fn send(&mut self, now: Instant, label: &str, payload: Bytes, binary: bool) -> SendOutcome {
        let outcome = self.transport.send(now, label, payload, binary);
        self.drain(now);
        outcome
    }

    /// Sends anything through DTLS, as if it were an SCTP packet.
    pub fn send_application_data(&mut self, now: Instant, data: &[u8]) {
        self.transport.send_application_data(now, data);
        self.drain(now);
    }

    fn drain(&mut self, now: Instant) {
        while let Some(output) = self.transport.poll_output() {
            match output {
                Output::Transmit { bytes, .. } => self.packets.push_back(bytes),
                Output::RouteSelected(_) => {}
                Output::Connected(keys) => {
                    self.srtp = Some(keys.into_contexts());
                    self.transport.associate(now);
                    self.events.push_back(ClientEvent::Connected);
                }
                Output::DtlsFailed => self.events.push_back(ClientEvent::Failed),
                Output::ChannelOpen { label } => self.events.push_back(ClientEvent::ChannelOpen { label }),
                Output::Message { label, binary, payload } => {
                    self.events.push_back(ClientEvent::Message { label, binary, payload });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::srtp::Plain;

    #[expect(clippy::disallowed_methods, reason = "std offers no other way to make an Instant")]
    fn start() -> Instant {
        Instant::now()
    }

    fn ice(name: &str) -> IceCredentials {
        IceCredentials { ufrag: name.into(), password: format!("{name}-password-of-22-chars") }
    }

    #[test]
    fn connects_to_a_focus_and_shares_its_keys() {
        let (mut now, context) = (start(), TransportContext::generate().unwrap());
        let mut focus = Transport::new(&context, ice("focus"), now);
        let mut client = Client::new(&TransportContext::generate().unwrap(), ice("client"), now);
        let description = client.description(Some(0));
        focus.set_remote(now, ice("focus"), &description).unwrap();
        let of_focus =
            RemoteTransport { ice: ice("focus"), fingerprint: context.fingerprint(), ..description };
        client.set_focus(now, &of_focus);
        client.open_channel(now, "data", true, None);
        assert!(focus.handle_packet(now, PATH, &client.check(true)));
        let mut keys = None;
        for _ in 0..100 {
            now += Duration::from_millis(10);
            client.handle_timeout(now);
            focus.handle_timeout(now);
            while let Some(packet) = client.poll_packet() {
                focus.handle_packet(now, PATH, &packet);
            }
            while let Some(output) = focus.poll_output() {
                match output {
                    Output::Transmit { bytes, .. } => assert!(client.handle_packet(now, &bytes)),
                    Output::Connected(found) => keys = Some(found),
                    _ => {}
                }
            }
        }
        assert_eq!(client.poll_event(), Some(ClientEvent::Connected));
        assert_eq!(client.poll_event(), Some(ClientEvent::ChannelOpen { label: "data".into() }));
        let (mut ingress, _) = client.take_srtp().unwrap();
        let header = [0x80, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7];
        let plain = Plain { ssrc: 7, index: 1, header: &header, prefix: &[], payload: b"media", padding: 0 };
        let mut packet = [0; 64];
        let len = keys.unwrap().into_contexts().1.seal_rtp(&plain, &mut packet);
        assert!(ingress.open_rtp(&mut packet[..len], |_| true).is_ok());
    }

    #[test]
    fn only_the_focus_answers_checks() {
        let now = start();
        let context = TransportContext::generate().unwrap();
        let mut focus = Transport::new(&context, ice("focus"), now);
        let mut client = Client::new(&context, ice("client"), now);
        let description = client.description(None);
        focus.set_remote(now, ice("focus"), &description).unwrap();
        client.set_focus(now, &RemoteTransport { ice: ice("focus"), ..description });
        focus.handle_packet(now, PATH, &client.check(false));
        let Some(Output::Transmit { mut bytes, .. }) = focus.poll_output() else { panic!("no answer") };
        assert!(client.handle_packet(now, &bytes));
        assert_eq!(mapped_address(&bytes, &ice("focus")), Some(PATH.remote()));
        bytes[25] ^= 1;
        assert!(!client.handle_packet(now, &bytes));
    }
}
