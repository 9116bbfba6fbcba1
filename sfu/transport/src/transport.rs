//! One peer's ICE, DTLS and data channels put together.

use std::collections::VecDeque;
use std::time::Instant;

use aws_lc_rs::digest;
use bytes::Bytes;
use weir_units::media::{DtlsRole, IceCredentials, RemoteTransport};

use crate::channels::{ChannelEvent, Channels, SendOutcome};
use crate::context::TransportContext;
use crate::dcep::{Open, Reliability};
use crate::ice::IceLite;
use crate::srtp::{Profile, SrtpKeys};
use crate::{MAX_MESSAGE_BYTES, Route};

/// The largest DTLS record that is polled out, in bytes.
const RECORD_BYTES: usize = 2_048;
/// Channels of ours that wait for the peer's description.
const MAX_WAITING_CHANNELS: usize = 8;

/// What a transport has to say.
#[derive(Debug)]
pub enum Output {
    Transmit {
        route: Route,
        bytes: Vec<u8>,
    },
    /// Media goes here from now on.
    RouteSelected(Route),
    /// The handshake is done and the peer's certificate is the one announced.
    Connected(Box<SrtpKeys>),
    /// The handshake failed, the certificate was another's, or the peer closed the association.
    DtlsFailed,
    ChannelOpen {
        label: String,
    },
    Message {
        label: String,
        binary: bool,
        payload: Bytes,
    },
}

/// A remote description that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetRemoteError {
    #[error("the DTLS role cannot change once the handshake has begun")]
    RoleChanged,
    #[error("the certificate fingerprint cannot change during a session")]
    FingerprintChanged,
}

/// See the crate's description.
pub struct Transport {
    ice: IceLite,
    dtls: dimpl::Dtls,
    remote: Option<([u8; 32], DtlsRole)>,
    channels: Option<Channels>,
    to_open: Vec<(Open, Option<u16>)>,
    held: bool,
    outputs: VecDeque<Output>,
    dtls_timeout: Option<Instant>,
    certificate_checked: bool,
    keys: Option<SrtpKeys>,
    handshake_done: bool,
    failed: bool,
}

impl Transport {
    pub fn new(context: &TransportContext, local: IceCredentials, now: Instant) -> Self {
        Self {
            ice: IceLite::new(local),
            dtls: dimpl::Dtls::new_12(context.dtls.clone(), context.certificate.clone(), now),
            remote: None,
            channels: None,
            to_open: Vec::new(),
            held: false,
            outputs: VecDeque::new(),
            dtls_timeout: None,
            certificate_checked: false,
            keys: None,
            handshake_done: false,
            failed: false,
        }
    }

    /// Sets what the peer's description says. Again with other credentials it is an ICE restart, and DTLS goes on.
    pub fn set_remote(
        &mut self,
        now: Instant,
        local: IceCredentials,
        remote: &RemoteTransport,
    ) -> Result<(), SetRemoteError> {
        match self.remote {
            Some((_, role)) if role != remote.local_role => return Err(SetRemoteError::RoleChanged),
            Some((fingerprint, _)) if fingerprint != remote.fingerprint => {
                return Err(SetRemoteError::FingerprintChanged);
            }
            Some(_) => {}
            None => {
                self.remote = Some((remote.fingerprint, remote.local_role));
                self.dtls.set_active(remote.local_role == DtlsRole::Client);
            }
        }
        if let (None, Some(most)) = (&self.channels, remote.max_message_size) {
            let most = if most == 0 { MAX_MESSAGE_BYTES } else { most };
            let mut channels = Channels::new(remote.local_role == DtlsRole::Client, most);
            channels.hold(now, self.held);
            self.channels = Some(channels);
            if self.handshake_done {
                self.open_waiting(now);
                self.pump(now);
            }
        }
        self.ice.set_credentials(local, &remote.ice.ufrag);
        self.start_dtls(now);
        Ok(())
    }

    /// A STUN or DTLS packet. Says whether it was taken; if not, it changed nothing.
    pub fn handle_packet(&mut self, now: Instant, route: Route, packet: &[u8]) -> bool {
        match packet.first() {
            Some(0..=3) => self.handle_stun(now, route, packet),
            Some(20..=63) => self.handle_dtls(now, route, packet),
            _ => false,
        }
    }

    fn handle_stun(&mut self, now: Instant, route: Route, packet: &[u8]) -> bool {
        let Some(checked) = self.ice.handle(now, route, packet) else { return false };
        self.outputs.push_back(Output::Transmit { route, bytes: checked.response });
        if let Some(route) = checked.selected {
            self.outputs.push_back(Output::RouteSelected(route));
            self.start_dtls(now);
        }
        self.take_early_hello(now, route, packet);
        true
    }

    /// A client that sends its hello along with its checks is answered a round trip earlier than if it had to wait for
    /// an answer to them. What we send goes beside STUN as ever: we do not say that we know of the method, so a client
    /// may say its hello again, which is a repetition like any other.
    fn take_early_hello(&mut self, now: Instant, route: Route, check: &[u8]) {
        let is_awaited = !self.is_client() && !self.handshake_done;
        if is_awaited && let Some(packet) = weir_rtp::stun::carried_dtls(check) {
            self.handle_dtls(now, route, packet);
        }
    }

    /// DTLS is taken only from where ICE has validated the peer.
    fn handle_dtls(&mut self, now: Instant, route: Route, packet: &[u8]) -> bool {
        if self.failed || self.remote.is_none() || !self.ice.is_validated(route) {
            return false;
        }
        // The library wants its clock set before each packet.
        let taken = self.dtls.handle_timeout(now).is_ok() && self.dtls.handle_packet(packet).is_ok();
        self.pump(now);
        taken
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        let dtls_due = self.dtls_due().is_some_and(|at| at <= now);
        if dtls_due && self.dtls.handle_timeout(now).is_err() && !self.handshake_done {
            self.fail();
        }
        if let Some(channels) = &mut self.channels
            && channels.poll_timeout().is_some_and(|at| at <= now)
        {
            channels.handle_timeout(now);
        }
        self.pump(now);
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let channels = self.channels.as_ref().and_then(Channels::poll_timeout);
        [self.dtls_due(), channels].into_iter().flatten().min()
    }

    /// A hello that went before there is a path would be lost, and be repeated late.
    fn dtls_due(&self) -> Option<Instant> {
        let has_path = !self.is_client() || self.ice.selected().is_some();
        self.dtls_timeout.filter(|_| !self.failed && has_path)
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When the last check with valid integrity came.
    pub fn last_heard(&self) -> Option<Instant> {
        self.ice.last_heard()
    }

    /// Opens a data channel, now or as soon as the peer is connected: in-band, or on `stream`, on which the peer has it
    /// as well.
    pub fn open_channel(
        &mut self,
        now: Instant,
        label: &str,
        ordered: bool,
        max_retransmits: Option<u16>,
        stream: Option<u16>,
    ) {
        let reliability =
            max_retransmits.map_or(Reliability::Reliable, |most| Reliability::Retransmits(most.into()));
        let open = Open { label: label.to_owned(), ordered, reliability };
        match &mut self.channels {
            Some(channels) => channels.open(now, open, stream),
            None if self.to_open.len() < MAX_WAITING_CHANNELS => self.to_open.push((open, stream)),
            None => {}
        }
        self.pump(now);
    }

    pub fn send(&mut self, now: Instant, label: &str, payload: Bytes, binary: bool) -> SendOutcome {
        let Some(channels) = &mut self.channels else { return SendOutcome::NoChannel };
        let outcome = channels.send(now, label, payload, binary);
        self.pump(now);
        outcome
    }

    /// Begins the SCTP association, as clients do.
    #[cfg(feature = "testing")]
    pub(crate) fn associate(&mut self, now: Instant) {
        if let Some(channels) = &mut self.channels {
            channels.associate(now);
        }
        self.pump(now);
    }

    /// Sends anything at all once the handshake is done.
    #[cfg(feature = "testing")]
    pub(crate) fn send_application_data(&mut self, now: Instant, data: &[u8]) {
        if self.handshake_done && self.dtls.send_application_data(data).is_ok() {
            self.pump(now);
        }
    }

    /// Lets the peer's messages wait with the peer, or takes them again. Nothing is lost.
    pub fn hold_messages(&mut self, now: Instant, held: bool) {
        self.held = held;
        if let Some(channels) = &mut self.channels {
            channels.hold(now, held);
        }
        self.pump(now);
    }

    /// Bytes that wait for the peer to take them, on its reliable channels.
    pub fn queued_bytes(&self) -> usize {
        self.channels.as_ref().map_or(0, Channels::queued_bytes)
    }

    /// Tells the peer that nothing more comes.
    pub fn close(&mut self, now: Instant) {
        if self.handshake_done && self.dtls.close().is_ok() {
            self.pump(now);
        }
    }

    fn is_client(&self) -> bool {
        self.remote.is_some_and(|(_, role)| role == DtlsRole::Client)
    }

    /// As the client, says hello once there is somebody to say it to.
    fn start_dtls(&mut self, now: Instant) {
        if self.is_client() && !self.handshake_done && !self.failed && self.ice.selected().is_some() {
            if self.dtls.handle_timeout(now).is_err() {
                self.fail();
            }
            self.pump(now);
        }
    }

    fn drain_dtls(&mut self, now: Instant) {
        let mut buffer = [0; RECORD_BYTES];
        loop {
            match self.dtls.poll_output(&mut buffer) {
                dimpl::Output::Packet(record) => {
                    if let Some(route) = self.ice.selected() {
                        self.outputs.push_back(Output::Transmit { route, bytes: record.to_vec() });
                    }
                }
                dimpl::Output::Timeout(at) => {
                    self.dtls_timeout = Some(at);
                    break;
                }
                dimpl::Output::PeerCert(certificate) => {
                    let digest = digest::digest(&digest::SHA256, certificate);
                    let expected = self.remote.map(|(fingerprint, _)| fingerprint);
                    self.certificate_checked = expected.is_some_and(|known| digest.as_ref() == known);
                    if !self.certificate_checked {
                        self.fail();
                        return;
                    }
                }
                dimpl::Output::KeyingMaterial(material, profile) => {
                    let profile = match profile {
                        dimpl::SrtpProfile::AEAD_AES_256_GCM => Profile::Aes256Gcm,
                        dimpl::SrtpProfile::AEAD_AES_128_GCM => Profile::Aes128Gcm,
                        _ => Profile::Aes128CmSha1,
                    };
                    self.keys = SrtpKeys::from_exporter(profile, &material, self.is_client());
                }
                dimpl::Output::Connected => self.handshake_done = true,
                dimpl::Output::ApplicationData(packet) => {
                    if let Some(channels) = &mut self.channels {
                        channels.handle_packet(now, packet);
                    }
                }
                // Browsers close DTLS when the page goes; signalling or silence tell the same, and a forged alert
                // must not end a call, so it is no reason of its own.
                dimpl::Output::CloseNotify => {}
                dimpl::Output::BufferTooSmall { .. } => {
                    self.fail();
                    return;
                }
                _ => {}
            }
        }
        if self.handshake_done
            && self.certificate_checked
            && let Some(keys) = self.keys.take()
        {
            self.outputs.push_back(Output::Connected(Box::new(keys)));
            self.open_waiting(now);
        }
    }

    /// Opens what waited for a connected peer that takes data, whichever of the two it became last.
    fn open_waiting(&mut self, now: Instant) {
        let is_connected = self.handshake_done && self.certificate_checked;
        if let Some(channels) = self.channels.as_mut().filter(|_| is_connected) {
            for (open, stream) in std::mem::take(&mut self.to_open) {
                channels.open(now, open, stream);
            }
        }
    }

    /// Carries packets between DTLS and data channels until neither has more to say.
    fn pump(&mut self, now: Instant) {
        self.drain_dtls(now);
        loop {
            let Some(channels) = &mut self.channels else { return };
            while let Some(event) = channels.poll_event() {
                self.outputs.push_back(match event {
                    ChannelEvent::Open { label } => Output::ChannelOpen { label },
                    ChannelEvent::Message { label, binary, payload } => {
                        Output::Message { label, binary, payload }
                    }
                });
            }
            let Some(packet) = channels.poll_transmit() else { return };
            // A record that is refused is a lost packet, and SCTP repeats it.
            if self.dtls.send_application_data(&packet).is_ok() {
                self.drain_dtls(now);
            }
        }
    }

    fn fail(&mut self) {
        if !self.failed {
            self.failed = true;
            self.outputs.push_back(Output::DtlsFailed);
        }
    }
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;
