//! Data channels: SCTP over DTLS ([RFC 8831](https://www.rfc-editor.org/rfc/rfc8831)), by label.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sctp_proto::{
    Association, AssociationHandle, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier, ReliabilityType, ServerConfig, StreamEvent, TransportConfig,
};

use crate::context::DTLS_MTU;
use crate::dcep::{Message, Open, Reliability};

/// The largest message taken from a peer, and sent to one that takes as much, in bytes: for `a=max-message-size`
/// ([RFC 8841 §6](https://www.rfc-editor.org/rfc/rfc8841#section-6)). What Chromium announces; clients send up to
/// 64 KiB and some bytes of framing.
pub const MAX_MESSAGE_BYTES: u32 = 256 * 1024;
/// Channels a peer can have. LiveKit clients use three.
const MAX_CHANNELS: usize = 32;
/// Streams of an association: channels of both sides, and some on which none is ever opened. The library makes one of
/// any number that a peer names, of 65,536, and goes through all of them with each chunk that arrives. Their count is
/// bounded and not the numbers, since only the library can tell where in a packet it sees a chunk. As many may be
/// about to be closed: each is remembered until the peer confirms it.
const MAX_STREAMS: usize = 4 * MAX_CHANNELS;
/// Bytes queued towards a slow peer on all its reliable channels before messages are refused: two bursts of 2 MB
/// sent at once. It is memory that a peer that stops reading keeps.
const MAX_RELIABLE_QUEUE: usize = 4 * 1024 * 1024;
/// Bytes queued on a lossy channel: what is older than this much is of no use to anybody.
const MAX_LOSSY_QUEUE: usize = 64 * 1024;
/// What a queued message counts beside its payload: the entry itself, so that empty messages are bounded as well.
const ENTRY_BYTES: usize = 64;
/// Bytes that a reliable channel has handed to the SCTP library and that are not acknowledged: 20 Mbit/s at a round
/// trip of 100 ms.
const RELIABLE_WINDOW: usize = 256 * 1024;
/// The same of a lossy channel. The library sends at once what the path takes; more would only grow old in there.
const LOSSY_WINDOW: usize = 32 * 1024;
/// Of an incomplete message or one behind a gap, the library keeps as much; advertised as the receive window.
const RECEIVE_WINDOW: u32 = 1024 * 1024;
/// Messages read in one go. A window full of the smallest has a million, and whoever takes them must be able to say
/// stop in between.
const MAX_READ: usize = 256;
/// Then the next go comes after this time.
const READ_PAUSE: Duration = Duration::from_millis(1);
/// Streams with something to read. On further ones nobody has opened a channel.
const MAX_UNREAD: usize = 2 * MAX_CHANNELS;
/// Bytes of payload in one DATA chunk: a DTLS datagram less the headers of DTLS (13, nonce 8, tag 16), SCTP (12) and
/// chunk (16), in whole words.
const CHUNK_PAYLOAD: u32 = (DTLS_MTU as u32 - 37 - 28) / 4 * 4;
/// Retransmission time-outs: RFC 4960's 3 s at first and 1 s at least are for TCP's company; these are the ones
/// browsers use. A peer may hold an acknowledgement back for 200 ms.
const INITIAL_TIMEOUT_MS: u64 = 500;
const MIN_TIMEOUT_MS: u64 = 400;
const MAX_TIMEOUT_MS: u64 = 10_000;

/// What became of a message to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    Queued,
    /// No channel of that label is open.
    NoChannel,
    /// The channel's queue is full: the message is dropped.
    Full,
    /// Larger than the peer takes.
    TooLarge,
}

/// Something that arrived.
#[derive(Debug)]
pub(crate) enum ChannelEvent {
    Open { label: String },
    Message { label: String, binary: bool, payload: Bytes },
}

pub(crate) struct Channels {
    endpoint: Endpoint,
    /// The endpoint has had an association.
    was_associated: bool,
    association: Option<(AssociationHandle, Association)>,
    channels: Vec<Channel>,
    /// Channels of ours that wait for the association.
    to_open: Vec<Open>,
    /// Channels that both sides have by agreement, each on its stream, in every association.
    agreed: Vec<(u16, Open)>,
    /// Whether we are the DTLS client, which takes even stream numbers
    /// ([RFC 8832 §6](https://www.rfc-editor.org/rfc/rfc8832#section-6)).
    is_dtls_client: bool,
    connected: bool,
    max_message: u32,
    events: VecDeque<ChannelEvent>,
    transmits: VecDeque<Bytes>,
    /// What arrives stays with the library, whose window closes, until this is false again.
    held: bool,
    /// Streams with something to read.
    unread: VecDeque<u16>,
    /// Closed streams of which the peer has not confirmed that our direction is closed as well.
    closing: usize,
    read_again: Option<Instant>,
}

struct Channel {
    stream: u16,
    /// Which of the streams that have had this number.
    generation: u64,
    label: String,
    reliable: bool,
    /// The peer may send once it has opened or acknowledged the channel.
    open: bool,
    queue: VecDeque<(PayloadProtocolIdentifier, Bytes)>,
    queued_bytes: usize,
    /// Sizes of the messages that the library has and the peer has not acknowledged.
    handed: VecDeque<u32>,
    handed_bytes: usize,
}

/// SCTP needs addresses to tell associations apart; inside DTLS there is one, so any will do.
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 5_000);

fn transport_config(max_message: u32) -> TransportConfig {
    TransportConfig::default()
        .with_max_send_message_size(MAX_MESSAGE_BYTES.max(max_message))
        .with_max_receive_message_size(MAX_MESSAGE_BYTES)
        .with_max_receive_buffer_size(RECEIVE_WINDOW)
        .with_max_num_inbound_streams(u16::MAX)
        .with_max_num_outbound_streams(u16::MAX)
        .with_rto_initial_ms(INITIAL_TIMEOUT_MS)
        .with_rto_min_ms(MIN_TIMEOUT_MS)
        .with_rto_max_ms(MAX_TIMEOUT_MS)
}

fn endpoint(max_message: u32) -> Endpoint {
    let mut server = ServerConfig::default();
    server.transport = Arc::new(transport_config(max_message));
    let mut config = EndpointConfig::new();
    config.max_payload_size(CHUNK_PAYLOAD);
    Endpoint::new(Arc::new(config), Some(Arc::new(server)))
}

impl Channels {
    pub fn new(is_dtls_client: bool, max_message: u32) -> Self {
        Self {
            endpoint: endpoint(max_message),
            was_associated: false,
            association: None,
            channels: Vec::new(),
            to_open: Vec::new(),
            agreed: Vec::new(),
            is_dtls_client,
            connected: false,
            max_message: max_message.min(MAX_MESSAGE_BYTES),
            events: VecDeque::new(),
            transmits: VecDeque::new(),
            held: false,
            unread: VecDeque::new(),
            closing: 0,
            read_again: None,
        }
    }

    /// Nothing is left of an association that is over.
    fn forget_channels(&mut self) {
        self.channels.clear();
        self.unread.clear();
        self.closing = 0;
        self.connected = false;
    }

    /// Lets what arrives wait, so that the peer has to, or takes it again.
    pub fn hold(&mut self, now: Instant, held: bool) {
        self.held = held;
        self.read(now);
        self.drive(now);
    }

    /// Bytes that wait for the peer to take them, on its reliable channels.
    pub fn queued_bytes(&self) -> usize {
        self.channels.iter().filter(|channel| channel.reliable).map(|channel| channel.queued_bytes).sum()
    }

    pub fn poll_event(&mut self) -> Option<ChannelEvent> {
        self.events.pop_front()
    }

    /// The next SCTP packet, to be sent as DTLS application data.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.transmits.pop_front()
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let association = self.association.as_ref().and_then(|(_, association)| association.poll_timeout());
        [association, self.read_again].into_iter().flatten().min()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some((_, association)) = &mut self.association
            && association.poll_timeout().is_some_and(|at| at <= now)
        {
            association.handle_timeout(now);
        }
        if self.read_again.is_some_and(|at| at <= now) {
            self.read(now);
        }
        self.drive(now);
    }

    /// Begins the association, as clients do; we wait for theirs.
    #[cfg(feature = "testing")]
    pub fn associate(&mut self, now: Instant) {
        let mut config = sctp_proto::ClientConfig::new();
        config.transport = Arc::new(transport_config(self.max_message));
        self.association = self.endpoint.connect(config, PEER).ok();
        self.drive(now);
    }

    /// DTLS application data: one SCTP packet.
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8]) {
        let packet = Bytes::copy_from_slice(packet);
        let mut event = self.endpoint.handle(now, PEER, None, None, packet.clone());
        if matches!(event, Some((_, DatagramEvent::NewAssociation(_))))
            && std::mem::replace(&mut self.was_associated, true)
        {
            // An endpoint remembers every association it had, and a peer may start over as often as it likes.
            self.endpoint = endpoint(self.max_message);
            event = self.endpoint.handle(now, PEER, None, None, packet);
        }
        match event {
            Some((handle, DatagramEvent::NewAssociation(association))) => {
                // A peer that starts over has lost its channels; so have we.
                self.forget_channels();
                self.association = Some((handle, association));
            }
            Some((handle, DatagramEvent::AssociationEvent(event))) => {
                if let Some((known, association)) = &mut self.association
                    && *known == handle
                {
                    association.handle_event(event);
                }
            }
            None => {}
        }
        self.drive(now);
    }

    /// Opens a channel in-band, or on a stream on which the peer has it as well, without a word
    /// ([RFC 8831 §6.1](https://www.rfc-editor.org/rfc/rfc8831#section-6.1)).
    pub fn open(&mut self, now: Instant, open: Open, stream: Option<u16>) {
        if self.to_open.len() + self.agreed.len() + self.channels.len() >= MAX_CHANNELS {
            return;
        }
        match stream {
            Some(stream) => {
                self.agreed.push((stream, open));
                if self.connected {
                    self.open_agreed(self.agreed.len() - 1);
                }
            }
            None => self.to_open.push(open),
        }
        self.drive(now);
    }

    pub fn send(&mut self, now: Instant, label: &str, payload: Bytes, binary: bool) -> SendOutcome {
        if payload.len() > self.max_message as usize {
            return SendOutcome::TooLarge;
        }
        // The newest: a peer that opens a label again does so because it has lost the older channel.
        let Some(at) = self.channels.iter().rposition(|channel| channel.open && channel.label == label)
        else {
            return SendOutcome::NoChannel;
        };
        let (most, queued) = if self.channels[at].reliable {
            let reliable = self.channels.iter().filter(|channel| channel.reliable);
            (MAX_RELIABLE_QUEUE, reliable.map(|channel| channel.queued_bytes).sum())
        } else {
            (MAX_LOSSY_QUEUE, self.channels[at].queued_bytes)
        };
        if queued + payload.len() + ENTRY_BYTES > most {
            return SendOutcome::Full;
        }
        let (kind, payload) = match (binary, payload.is_empty()) {
            (true, false) => (PayloadProtocolIdentifier::Binary, payload),
            (false, false) => (PayloadProtocolIdentifier::String, payload),
            // SCTP has no empty messages: one byte stands for none.
            (true, true) => (PayloadProtocolIdentifier::BinaryEmpty, Bytes::from_static(&[0])),
            (false, true) => (PayloadProtocolIdentifier::StringEmpty, Bytes::from_static(&[0])),
        };
        self.channels[at].push(kind, payload);
        self.drive(now);
        SendOutcome::Queued
    }

    /// Lets the association act on what changed, and takes what it has to say.
    fn drive(&mut self, now: Instant) {
        loop {
            let Some((_, association)) = &mut self.association else { return };
            let mut readable = Vec::new();
            let mut lost = false;
            let mut closed = false;
            let mut connected = false;
            while let Some(event) = association.poll() {
                match event {
                    Event::Connected => connected = true,
                    Event::Stream(StreamEvent::Readable { id }) => readable.push(id),
                    // The library closes our direction by itself, as RFC 8831 §6.7 has it.
                    Event::Stream(StreamEvent::Finished { .. }) => {
                        closed = true;
                        self.closing += 1;
                    }
                    Event::Stream(StreamEvent::ResetComplete { .. } | StreamEvent::ResetFailed { .. }) => {
                        self.closing = self.closing.saturating_sub(1);
                    }
                    Event::HandshakeFailed { .. } | Event::AssociationLost { .. } => lost = true,
                    _ => {}
                }
            }
            let mut is_more = false;
            while association.accept_stream().is_some() {
                is_more = true;
            }
            lost |= is_more && association.stream_ids().len() > MAX_STREAMS;
            if lost || self.closing > MAX_STREAMS {
                self.association = None;
                self.forget_channels();
                return;
            }
            if closed {
                self.channels
                    .retain(|channel| generation(association, channel.stream) == Some(channel.generation));
            }
            if connected {
                self.connected = true;
                // Before anything is read: the peer may send as early as it associates.
                for at in 0..self.agreed.len() {
                    self.open_agreed(at);
                }
            }
            for stream in &readable {
                if !self.unread.contains(stream) && self.unread.len() < MAX_UNREAD {
                    self.unread.push_back(*stream);
                }
            }
            self.read(now);
            self.open_ours();
            self.write();
            let Some((handle, association)) = &mut self.association else { return };
            while let Some(transmit) = association.poll_transmit(now) {
                if let Payload::RawEncode(parts) = transmit.payload {
                    self.transmits.extend(parts);
                }
            }
            while let Some(event) = association.poll_endpoint_event() {
                if let Some(event) = self.endpoint.handle_event(*handle, event) {
                    association.handle_event(event);
                }
            }
            while let Some(transmit) = self.endpoint.poll_transmit() {
                if let Payload::RawEncode(parts) = transmit.payload {
                    self.transmits.extend(parts);
                }
            }
            if readable.is_empty() {
                return;
            }
        }
    }

    /// Reads what has arrived, unless it is held, up to [`MAX_READ`] messages.
    fn read(&mut self, now: Instant) {
        let mut left = MAX_READ;
        while let Some(&stream) = self.unread.front().filter(|_| !self.held && left > 0) {
            self.read_stream(stream, &mut left);
            if left > 0 {
                self.unread.pop_front();
            }
        }
        self.read_again = (!self.held && !self.unread.is_empty()).then(|| now + READ_PAUSE);
    }

    fn read_stream(&mut self, id: u16, left: &mut usize) {
        while *left > 0 {
            let Some((_, association)) = &mut self.association else { return };
            let Ok(mut stream) = association.stream(id) else { return };
            let Ok(Some(chunks)) = stream.read_sctp() else { return };
            *left -= 1;
            let mut payload = vec![0; chunks.len().min(MAX_MESSAGE_BYTES as usize)];
            let kind = chunks.ppi;
            if chunks.read(&mut payload).is_err() {
                continue; // longer than announced: dropped
            }
            match kind {
                PayloadProtocolIdentifier::Dcep => self.handle_dcep(id, &payload),
                PayloadProtocolIdentifier::String => self.deliver(id, payload, false),
                PayloadProtocolIdentifier::Binary => self.deliver(id, payload, true),
                PayloadProtocolIdentifier::StringEmpty => self.deliver(id, Vec::new(), false),
                PayloadProtocolIdentifier::BinaryEmpty => self.deliver(id, Vec::new(), true),
                _ => {}
            }
        }
    }

    fn deliver(&mut self, id: u16, payload: Vec<u8>, binary: bool) {
        if let Some(channel) = self.channels.iter().find(|channel| channel.stream == id) {
            let (label, payload) = (channel.label.clone(), Bytes::from(payload));
            self.events.push_back(ChannelEvent::Message { label, binary, payload });
        }
    }

    fn handle_dcep(&mut self, id: u16, bytes: &[u8]) {
        match Message::parse(bytes) {
            Some(Message::Open(open)) => {
                // Whoever opens a number again has lost what it was before.
                self.channels.retain(|known| known.stream != id);
                if self.channels.len() >= MAX_CHANNELS {
                    return;
                }
                let Some(generation) = self.set_reliability(id, &open) else { return };
                let mut channel = Channel::new(id, generation, &open, true);
                channel.push_dcep(&Message::Ack);
                self.channels.push(channel);
                self.events.push_back(ChannelEvent::Open { label: open.label });
            }
            Some(Message::Ack) => {
                if let Some(channel) =
                    self.channels.iter_mut().find(|known| known.stream == id && !known.open)
                {
                    channel.open = true;
                    self.events.push_back(ChannelEvent::Open { label: channel.label.clone() });
                }
            }
            None => {}
        }
    }

    fn open_ours(&mut self) {
        if !self.connected {
            return;
        }
        for open in std::mem::take(&mut self.to_open) {
            let Some((_, association)) = &mut self.association else { return };
            let first = if self.is_dtls_client { 0 } else { 1 };
            // The library refuses a number that is used, or whose last stream is not closed on both sides.
            let Some(id) = (first..u16::MAX)
                .step_by(2)
                .find(|id| association.open_stream(*id, PayloadProtocolIdentifier::Binary).is_ok())
            else {
                return;
            };
            let Some(generation) = self.set_reliability(id, &open) else { continue };
            let mut channel = Channel::new(id, generation, &open, false);
            channel.push_dcep(&Message::Open(open));
            self.channels.push(channel);
        }
    }

    fn open_agreed(&mut self, at: usize) {
        let Some((_, association)) = &mut self.association else { return };
        let (stream, open) = self.agreed[at].clone();
        // It is there already if the peer was the first to send on it.
        let _ = association.open_stream(stream, PayloadProtocolIdentifier::Binary);
        let Some(generation) = self.set_reliability(stream, &open) else { return };
        self.channels.retain(|known| known.stream != stream);
        self.channels.push(Channel::new(stream, generation, &open, true));
        self.events.push_back(ChannelEvent::Open { label: open.label });
    }

    /// Returns the generation of the stream.
    fn set_reliability(&mut self, id: u16, open: &Open) -> Option<u64> {
        let (_, association) = self.association.as_mut()?;
        let mut stream = association.stream(id).ok()?;
        let (kind, value) = match open.reliability {
            Reliability::Reliable => (ReliabilityType::Reliable, 0),
            Reliability::Retransmits(most) => (ReliabilityType::Rexmit, most),
            Reliability::LifetimeMs(most) => (ReliabilityType::Timed, most),
        };
        stream.set_reliability_params(!open.ordered, kind, value).ok()?;
        generation(association, id)
    }

    /// Hands the library as much as its window takes.
    fn write(&mut self) {
        let Some((_, association)) = &mut self.association else { return };
        for channel in &mut self.channels {
            let Ok(mut stream) = association.stream(channel.stream) else { continue };
            channel.note_acknowledged(stream.buffered_amount().unwrap_or(0));
            while let Some((kind, payload)) = channel.queue.front() {
                let window = if channel.reliable { RELIABLE_WINDOW } else { LOSSY_WINDOW };
                // Small messages cost the library far more than their bytes.
                let handed = channel.handed.len() * ENTRY_BYTES;
                if channel.handed_bytes + handed > window {
                    break;
                }
                if stream.write_sctp(payload, *kind).is_err() {
                    break;
                }
                channel.queued_bytes -= payload.len() + ENTRY_BYTES;
                channel.handed_bytes += payload.len();
                channel.handed.push_back(payload.len() as u32);
                channel.queue.pop_front();
            }
        }
    }
}

fn generation(association: &mut Association, stream: u16) -> Option<u64> {
    Some(association.stream(stream).ok()?.stats().ok()?.generation)
}

impl Channel {
    /// The library still has so many bytes: what it had before them is acknowledged, or given up.
    fn note_acknowledged(&mut self, left: usize) {
        while let Some(&first) = self.handed.front()
            && self.handed_bytes - first as usize >= left
        {
            self.handed.pop_front();
            self.handed_bytes -= first as usize;
        }
    }

    fn new(stream: u16, generation: u64, open: &Open, is_open: bool) -> Self {
        Self {
            stream,
            generation,
            label: open.label.clone(),
            reliable: open.reliability == Reliability::Reliable,
            open: is_open,
            queue: VecDeque::new(),
            queued_bytes: 0,
            handed: VecDeque::new(),
            handed_bytes: 0,
        }
    }

    fn push_dcep(&mut self, message: &Message) {
        self.push(PayloadProtocolIdentifier::Dcep, Bytes::from(message.to_bytes()));
    }

    fn push(&mut self, kind: PayloadProtocolIdentifier, payload: Bytes) {
        self.queued_bytes += payload.len() + ENTRY_BYTES;
        self.queue.push_back((kind, payload));
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "std offers no other way to make an Instant")]
    fn start() -> Instant {
        Instant::now()
    }

    /// A client and us, without DTLS in between.
    struct Pair {
        now: Instant,
        client: Channels,
        ours: Channels,
    }

    impl Pair {
        fn associated() -> Self {
            let (client, ours) =
                (Channels::new(true, MAX_MESSAGE_BYTES), Channels::new(false, MAX_MESSAGE_BYTES));
            let mut pair = Self { now: start(), client, ours };
            pair.associate();
            pair
        }

        fn associate(&mut self) {
            self.client.associate(self.now);
            self.settle();
            assert!(self.ours.connected && self.client.connected);
        }

        /// Carries packets both ways for longer than an acknowledgement is held back.
        fn settle(&mut self) {
            for _ in 0..10 {
                self.now += Duration::from_millis(50);
                self.client.handle_timeout(self.now);
                self.ours.handle_timeout(self.now);
                while let Some(packet) = self.client.poll_transmit() {
                    self.ours.handle_packet(self.now, &packet);
                }
                while let Some(packet) = self.ours.poll_transmit() {
                    self.client.handle_packet(self.now, &packet);
                }
            }
        }

        /// The client sends a message on a stream of its own choice.
        fn write(&mut self, id: u16, kind: PayloadProtocolIdentifier, message: &[u8]) {
            let association = &mut self.client.association.as_mut().expect("an association").1;
            let _ = association.open_stream(id, kind);
            let mut stream = association.stream(id).expect("it is there or was made");
            stream.write_with_ppi(message, kind).expect("it is open");
            self.settle();
        }

        /// The client closes the channel on a stream.
        fn close(&mut self, id: u16) {
            let association = &mut self.client.association.as_mut().expect("an association").1;
            let mut stream = association.stream(id).expect("it was opened");
            stream.close().expect("the association stands");
            self.settle();
        }
    }

    fn labels_and_messages(channels: &mut Channels) -> (Vec<String>, Vec<Bytes>) {
        let (mut labels, mut messages) = (Vec::new(), Vec::new());
        while let Some(event) = channels.poll_event() {
            match event {
                ChannelEvent::Open { label } => labels.push(label),
                ChannelEvent::Message { payload, .. } => messages.push(payload),
            }
        }
        (labels, messages)
    }

    fn reliable(label: &str) -> Open {
        Open { label: label.to_owned(), ordered: true, reliability: Reliability::Reliable }
    }

    #[test]
    fn a_peer_that_names_ever_more_streams_loses_its_association_and_may_start_over() {
        let mut pair = Pair::associated();
        for id in 0..=MAX_STREAMS as u16 {
            assert!(pair.ours.association.is_some(), "{id} streams are not too many");
            pair.write(id * 500, PayloadProtocolIdentifier::Binary, b"x");
        }
        assert!(pair.ours.association.is_none());
        pair.client = Channels::new(true, MAX_MESSAGE_BYTES);
        pair.associate();
    }

    #[test]
    fn a_peer_numbers_its_streams_as_it_likes() {
        let mut pair = Pair::associated();
        pair.write(65_000, PayloadProtocolIdentifier::Dcep, &Message::Open(reliable("high")).to_bytes());
        assert!(matches!(pair.ours.poll_event(), Some(ChannelEvent::Open { label }) if label == "high"));
    }

    /// As of a client that opens its channels anew within one connection.
    #[test]
    fn a_closed_channel_is_forgotten_and_another_of_its_label_serves() {
        let mut pair = Pair::associated();
        for round in 0..2 * MAX_CHANNELS {
            pair.client.open(pair.now, reliable("data"), None);
            pair.settle();
            assert_eq!(pair.client.send(pair.now, "data", "up".into(), true), SendOutcome::Queued, "{round}");
            assert_eq!(pair.ours.send(pair.now, "data", "down".into(), true), SendOutcome::Queued, "{round}");
            pair.settle();
            assert_eq!(
                labels_and_messages(&mut pair.ours),
                (vec!["data".into()], vec!["up".into()]),
                "{round}"
            );
            assert_eq!(labels_and_messages(&mut pair.client).1, ["down"], "{round}");
            let stream = pair.client.channels[0].stream;
            pair.close(stream);
            assert_eq!(pair.ours.send(pair.now, "data", "x".into(), true), SendOutcome::NoChannel, "{round}");
            assert_eq!((pair.ours.channels.len(), pair.ours.closing), (0, 0), "{round}");
        }
    }

    #[test]
    fn of_two_channels_of_a_label_the_newer_is_sent_on() {
        let mut pair = Pair::associated();
        pair.client.open(pair.now, reliable("data"), None);
        pair.settle();
        pair.client.channels.clear(); // lost, and not closed
        pair.client.open(pair.now, reliable("data"), None);
        pair.settle();
        pair.ours.send(pair.now, "data", "down".into(), true);
        pair.settle();
        assert_eq!(labels_and_messages(&mut pair.client).1, ["down"]);
    }

    #[test]
    fn a_channel_by_agreement_is_there_with_the_association_and_takes_what_comes_along_with_it() {
        let (client, ours) =
            (Channels::new(true, MAX_MESSAGE_BYTES), Channels::new(false, MAX_MESSAGE_BYTES));
        let mut pair = Pair { now: start(), client, ours };
        pair.ours.open(pair.now, reliable("data"), Some(100));
        pair.client.open(pair.now, reliable("data"), Some(100));
        for _ in 0..2 {
            assert_eq!(pair.ours.send(pair.now, "data", "x".into(), true), SendOutcome::NoChannel);
            pair.client.associate(pair.now);
            for _ in 0..2 {
                while let Some(packet) = pair.client.poll_transmit() {
                    pair.ours.handle_packet(pair.now, &packet);
                }
                while let Some(packet) = pair.ours.poll_transmit() {
                    pair.client.handle_packet(pair.now, &packet);
                }
            }
            assert_eq!(pair.client.send(pair.now, "data", "up".into(), true), SendOutcome::Queued);
            pair.settle();
            assert_eq!(pair.ours.send(pair.now, "data", "down".into(), true), SendOutcome::Queued);
            pair.settle();
            assert_eq!(labels_and_messages(&mut pair.ours), (vec!["data".into()], vec!["up".into()]));
            assert_eq!(labels_and_messages(&mut pair.client), (vec!["data".into()], vec!["down".into()]));
            assert_eq!(pair.ours.channels[0].stream, 100);
            // The client starts over, and has its channels again.
            pair.client = Channels::new(true, MAX_MESSAGE_BYTES);
            pair.client.open(pair.now, reliable("data"), Some(100));
            pair.ours.forget_channels();
        }
    }

    #[test]
    fn a_number_that_is_opened_again_is_another_channel() {
        let mut pair = Pair::associated();
        pair.client.open(pair.now, reliable("one"), None);
        pair.settle();
        pair.client.channels[0].open = false;
        pair.client.channels[0].push_dcep(&Message::Open(reliable("other")));
        pair.settle();
        assert!(pair.client.channels[0].open, "acknowledged");
        assert_eq!(labels_and_messages(&mut pair.ours).0, ["one", "other"]);
        assert_eq!(pair.ours.send(pair.now, "one", "x".into(), true), SendOutcome::NoChannel);
        assert_eq!(pair.ours.send(pair.now, "other", "x".into(), true), SendOutcome::Queued);
    }

    #[test]
    fn what_a_closed_channel_still_held_is_read_and_its_successor_stays() {
        let mut pair = Pair::associated();
        pair.client.open(pair.now, reliable("data"), None);
        pair.settle();
        let stream = pair.client.channels[0].stream;
        pair.ours.hold(pair.now, true);
        pair.write(stream, PayloadProtocolIdentifier::Binary, b"old");
        pair.close(stream);
        pair.client.open(pair.now, reliable("data"), None);
        pair.settle();
        assert_eq!(pair.client.channels[0].stream, stream, "the number is free again");
        pair.write(stream, PayloadProtocolIdentifier::Binary, b"new");
        pair.ours.hold(pair.now, false);
        pair.settle();
        assert_eq!(labels_and_messages(&mut pair.ours).1, ["old", "new"]);
        pair.ours.send(pair.now, "data", "down".into(), true);
        pair.settle();
        assert_eq!(labels_and_messages(&mut pair.client).1, ["down"]);
    }

    /// CRC-32C, as SCTP packets have it.
    fn checksum(packet: &[u8]) -> u32 {
        !packet.iter().fold(!0, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc: u32, _| {
                crc >> 1 ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
            })
        })
    }

    #[test]
    fn a_peer_that_never_confirms_that_streams_are_closed_loses_its_association() {
        let mut pair = Pair::associated();
        let association = &mut pair.client.association.as_mut().unwrap().1;
        let mut stream = association.open_stream(0, PayloadProtocolIdentifier::Binary).unwrap();
        stream.write_with_ppi(b"x", PayloadProtocolIdentifier::Binary).unwrap();
        pair.client.drive(pair.now);
        let first = pair.client.poll_transmit().unwrap();
        let first_tsn = u32::from_be_bytes(*first[16..].first_chunk().unwrap());
        for round in 0..=MAX_STREAMS as u32 {
            assert!(pair.ours.association.is_some(), "{round} are not too many");
            let tsn = first_tsn + round;
            let mut packet = first[..8].to_vec(); // ports and tag
            packet.extend([0; 4]);
            packet.extend([0, 3, 0, 17]); // DATA, a whole message
            packet.extend(tsn.to_be_bytes());
            packet.extend([0, 0, 0, 0, 0, 0, 0, 53, b'x', 0, 0, 0]);
            packet.extend([130, 0, 0, 22, 0, 13, 0, 18]); // RE-CONFIG, outgoing SSN reset
            packet.extend([tsn, 0, tsn].map(u32::to_be_bytes).as_flattened());
            packet.extend([0, 0, 0, 0]); // of stream 0
            let sum = checksum(&packet);
            packet[8..12].copy_from_slice(&sum.to_le_bytes());
            pair.ours.handle_packet(pair.now, &packet);
        }
        assert!(pair.ours.association.is_none());
    }

    #[test]
    fn a_peer_that_starts_over_again_and_again_is_remembered_once() {
        let mut pair = Pair::associated();
        let mut remembered = 0;
        for round in 0..20 {
            pair.client = Channels::new(true, MAX_MESSAGE_BYTES);
            pair.associate();
            let now_remembered = format!("{:#?}", pair.ours.endpoint).matches("AssociationMeta").count();
            assert!(round == 0 || now_remembered == remembered, "{now_remembered} associations");
            remembered = now_remembered;
        }
        assert_eq!(remembered, 1);
    }
}
