//! One session: signalling, the peer connection and its socket, driven together.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use livekit_protocol as proto;
use prost::Message as _;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rtc::peer_connection::event::{RTCDataChannelEvent, RTCPeerConnectionEvent};
use rtc::peer_connection::message::RTCMessage;
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::sansio::Protocol;
use serde_json::{Value, json};
use tokio::net::{UdpSocket, lookup_host};

use crate::clock;
use crate::codec::Codec;
use crate::command::{CommandId, Connect, Publish, Send};
use crate::connection::Connection;
use crate::publication::{Publication, Sending};
use crate::room::Room;
use crate::signal::{Request, Response, Signal};

const LONGEST_DATAGRAM: usize = 2048;
/// Datagrams taken in one turn, so that signalling and timers have theirs.
const DATAGRAMS_PER_TURN: usize = 64;
/// Between two turns when a timer is due at once, again and again.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);
const PING_INTERVAL: Duration = Duration::from_secs(5);
const CHANNELS: usize = 3;
/// Messages kept for the suite; no scenario sends as many.
const MOST_RECEIVED: usize = 10_000;

pub struct Session {
    signal: Signal,
    outbox: Vec<Request>,
    socket: UdpSocket,
    connection: Connection,
    negotiation: Negotiation,
    room: Room,
    publications: Vec<Publication>,
    received: Vec<Value>,
    waiting: Vec<(CommandId, WaitsFor)>,
    answers: Vec<(CommandId, Result<Value>)>,
    open_channels: usize,
    sequence: u32,
    ping_due: Instant,
    began: Instant,
    random: StdRng,
    state: &'static str,
}

#[derive(PartialEq)]
enum WaitsFor {
    Connected,
    /// The track of this client id being negotiated.
    Published(String),
}

#[derive(Default)]
struct Negotiation {
    last: u32,
    is_outstanding: bool,
    is_wanted: bool,
}

pub enum Input {
    Signalled(Box<Result<Option<Response>>>),
    Datagram(usize, SocketAddr, Box<[u8; LONGEST_DATAGRAM]>),
    Due,
}

impl Session {
    pub async fn connect(command: CommandId, connect: Connect) -> Result<Self> {
        let began = clock::now();
        let Connect { url, token, options } = connect;
        let (signal, join) = Signal::join(&url, &token, options.auto_subscribe).await?;
        let socket = UdpSocket::bind((towards(&url).await?, 0)).await?;
        let mut connection = Connection::new(socket.local_addr()?, began)?;
        // Codecs named in the first negotiation are all that the `rtc` crate will offer later: an m-line of each kind
        // that may carry any of them comes first.
        connection.add_receivers(1, 1)?;
        let mut room = Room::default();
        room.is_deaf = options.is_deaf;
        room.joined(join.participant.context("the join names nobody")?, join.other_participants);
        let mut session = Self {
            signal,
            outbox: Vec::new(),
            socket,
            connection,
            negotiation: Negotiation::default(),
            room,
            publications: Vec::new(),
            received: Vec::new(),
            waiting: vec![(command, WaitsFor::Connected)],
            answers: Vec::new(),
            open_channels: 0,
            sequence: 0,
            ping_due: began + PING_INTERVAL,
            began,
            random: StdRng::from_os_rng(),
            state: "connecting",
        };
        session.negotiate(began)?;
        Ok(session)
    }

    pub fn is_over(&self) -> bool {
        self.state == "disconnected"
    }

    /// What comes first: a message, a datagram, or a timer.
    pub async fn input(&mut self) -> Input {
        let now = clock::now();
        let due = [self.connection.pc.poll_timeout(), self.publications.iter().map(|one| one.due).min()];
        let due = due.into_iter().flatten().chain([self.ping_due]).min().unwrap_or(now);
        let due = due.max(now + SHORTEST_SLEEP);
        let mut buffer = Box::new([0; LONGEST_DATAGRAM]);
        tokio::select! {
            message = self.signal.next() => Input::Signalled(Box::new(message)),
            datagram = self.socket.recv_from(&mut buffer[..]) => match datagram {
                Ok((length, from)) => Input::Datagram(length, from, buffer),
                Err(_) => Input::Due, // somebody's port is closed; the peer connection finds out
            },
            () = tokio::time::sleep_until(due.into()) => Input::Due,
        }
    }

    /// Takes the input and does all that follows from it. Gives the answers of commands that are done.
    pub async fn turn(&mut self, input: Input) -> Vec<(CommandId, Result<Value>)> {
        if let Err(error) = self.take(input).await {
            eprintln!("the session ends: {error:#}");
            self.end(json!({ "reason": null, "error": format!("{error:#}") }));
        }
        std::mem::take(&mut self.answers)
    }

    async fn take(&mut self, input: Input) -> Result<()> {
        let now = clock::now();
        match input {
            Input::Signalled(message) => match (*message)? {
                Some(message) => self.take_message(now, message)?,
                None => bail!("the WebSocket was closed"),
            },
            Input::Datagram(length, from, mut buffer) => {
                self.connection.received(now, from, &buffer[..length]);
                for _ in 1..DATAGRAMS_PER_TURN {
                    let Ok((length, from)) = self.socket.try_recv_from(&mut buffer[..]) else { break };
                    self.connection.received(now, from, &buffer[..length]);
                }
            }
            Input::Due => {}
        }
        if !self.is_over() {
            self.drive(now)?;
        }
        self.flush().await
    }

    async fn flush(&mut self) -> Result<()> {
        while let Some(datagram) = self.connection.pc.poll_write() {
            // A datagram that cannot be sent is as good as lost.
            let _ = self.socket.send_to(&datagram.message, datagram.transport.peer_addr).await;
        }
        for request in std::mem::take(&mut self.outbox) {
            self.signal.send(request).await?;
        }
        Ok(())
    }

    fn drive(&mut self, now: Instant) -> Result<()> {
        if self.connection.pc.poll_timeout().is_some_and(|due| due <= now) {
            self.connection.pc.handle_timeout(now)?;
        }
        if now >= self.ping_due {
            self.ping_due = now + PING_INTERVAL;
            let ping = proto::Ping { timestamp: clock::unix_ms(), rtt: 0 };
            self.outbox.push(Request::PingReq(ping));
        }
        while let Ok(ssrc) = self.connection.key_requests.try_recv() {
            for publication in &mut self.publications {
                publication.begin_anew(ssrc);
            }
        }
        for publication in &mut self.publications {
            for packet in publication.packets(now) {
                self.connection.send_rtp(now, &publication.cid, packet)?;
            }
        }
        while let Some(message) = self.connection.pc.poll_read() {
            match message.message {
                RTCMessage::RtpPacket(track, packet) => {
                    let ssrc = packet.header.ssrc;
                    let Some(remote) = self.room.remotes.get_mut(&track) else { continue };
                    if self.connection.was_hasty(ssrc) {
                        remote.missed_its_beginning();
                    }
                    if remote.take(now, packet) {
                        self.connection.ask_for_key_frame(now, &track, ssrc)?;
                    }
                }
                RTCMessage::DataChannelMessage(_, message) => self.take_data(&message.data),
                _ => {}
            }
        }
        while let Some(event) = self.connection.pc.poll_event() {
            match event {
                RTCPeerConnectionEvent::OnConnectionStateChangeEvent(RTCPeerConnectionState::Failed) => {
                    bail!("the peer connection failed")
                }
                RTCPeerConnectionEvent::OnDataChannel(RTCDataChannelEvent::OnOpen(_)) => {
                    self.open_channels += 1;
                    if self.open_channels == CHANNELS {
                        self.state = "connected";
                        let ms = (now - self.began).as_millis() as u64;
                        let answer = json!({ "sid": self.room.sid, "ms": ms });
                        self.done(&WaitsFor::Connected, || Ok(answer.clone()));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn take_message(&mut self, now: Instant, message: Response) -> Result<()> {
        match message {
            Response::Answer(answer) => self.take_answer(now, answer)?,
            Response::Trickle(trickle) if !trickle.candidate_init.is_empty() => {
                self.connection.add_candidate(&trickle.candidate_init)?;
            }
            Response::MediaSectionsRequirement(wanted) => {
                self.connection.add_receivers(wanted.num_audios, wanted.num_videos)?;
                self.negotiate(now)?;
            }
            Response::Update(update) => self.room.update(update),
            Response::TrackPublished(published) => {
                let publication = self.publications.iter_mut().find(|one| one.cid == published.cid);
                let publication = publication.context("a track published that was not added")?;
                publication.sid = published.track.context("a track without information")?.sid;
                publication.transceiver = Some(self.connection.add_sender(publication)?);
                self.negotiate(now)?;
            }
            Response::RequestResponse(response) => {
                if let Some(proto::request_response::Request::AddTrack(request)) = response.request {
                    self.publications.retain(|one| one.cid != request.cid);
                    let reason = proto::request_response::Reason::try_from(response.reason)?;
                    self.done(&WaitsFor::Published(request.cid), || Err(anyhow!("{reason:?}")));
                }
            }
            Response::TrackUnpublished(unpublished) => self.withdraw(now, &unpublished.track_sid)?,
            Response::Mute(mute) => {
                for publication in self.publications.iter_mut().filter(|one| one.sid == mute.sid) {
                    publication.mute(mute.muted);
                }
            }
            Response::SubscribedQualityUpdate(update) => {
                for publication in self.publications.iter_mut().filter(|one| one.sid == update.track_sid) {
                    for codec in &update.subscribed_codecs {
                        if codec.codec == publication.codec.name() {
                            publication.want(&codec.qualities);
                        }
                    }
                }
            }
            Response::SpeakersChanged(changed) => self.room.speakers(changed),
            Response::ConnectionQuality(update) => self.room.quality(&update),
            Response::SubscriptionResponse(response) => {
                let detail = json!({ "sid": response.track_sid, "error": response.err });
                self.room.note("subscriptionFailed", detail);
            }
            // It does not come back: whatever the leave suggests, this session is over.
            Response::Leave(leave) => self.end(json!({ "reason": leave.reason, "action": leave.action })),
            _ => {}
        }
        Ok(())
    }

    fn negotiate(&mut self, now: Instant) -> Result<()> {
        let negotiation = &mut self.negotiation;
        if negotiation.is_outstanding {
            negotiation.is_wanted = true;
            return Ok(());
        }
        (negotiation.is_outstanding, negotiation.is_wanted) = (true, false);
        negotiation.last += 1;
        let id = negotiation.last;
        let sdp = self.connection.offer(now)?;
        let offer = proto::SessionDescription { r#type: "offer".to_owned(), sdp, id, ..Default::default() };
        self.outbox.push(Request::Offer(offer));
        Ok(())
    }

    fn take_answer(&mut self, now: Instant, answer: proto::SessionDescription) -> Result<()> {
        if !self.negotiation.is_outstanding || answer.id != self.negotiation.last {
            bail!("answer {} to offer {}", answer.id, self.negotiation.last);
        }
        self.connection.answered(now, answer.sdp)?;
        self.negotiation.is_outstanding = false;
        self.room.promised(answer.mid_to_track_id.into_values().collect::<BTreeSet<_>>())?;
        for at in 0..self.publications.len() {
            let publication = &mut self.publications[at];
            let Some(transceiver) = publication.transceiver else { continue };
            if let Some(sending) = Sending::negotiated(&mut self.connection.pc, transceiver) {
                publication.learn(sending, now);
                let (cid, sid) = (publication.cid.clone(), publication.sid.clone());
                self.done(&WaitsFor::Published(cid), || Ok(json!({ "sid": sid })));
            }
        }
        if self.negotiation.is_wanted { self.negotiate(now) } else { Ok(()) }
    }

    fn take_data(&mut self, data: &[u8]) {
        let Ok(packet) = proto::DataPacket::decode(data) else {
            return self.room.note("error", json!({ "error": "data that is no DataPacket" }));
        };
        if let Some(proto::data_packet::Value::User(user)) = packet.value
            && self.received.len() < MOST_RECEIVED
        {
            let text =
                (user.payload.len() < 1000).then(|| String::from_utf8_lossy(&user.payload).into_owned());
            self.received.push(json!({
                "from": packet.participant_identity, "topic": user.topic,
                "bytes": user.payload.len(), "text": text,
            }));
        }
    }

    pub fn publish(&mut self, command: CommandId, publish: &Publish) -> Result<()> {
        let is_audio = publish.source == "microphone";
        let codec = if is_audio { Codec::Opus } else { Codec::named(&publish.codec)? };
        let source = match publish.source.as_str() {
            "microphone" => proto::TrackSource::Microphone,
            "screen" => proto::TrackSource::ScreenShare,
            _ => proto::TrackSource::Camera,
        };
        let publication =
            Publication::new(codec, publish.simulcast, publish.is_quiet, clock::now(), &mut self.random)?;
        let (layers, cid) = (publication.layers(), publication.cid.clone());
        let largest = layers.last().cloned().unwrap_or_default();
        let codecs = proto::SimulcastCodec {
            codec: codec.name().to_owned(),
            cid: cid.clone(),
            layers: layers.clone(),
            ..proto::SimulcastCodec::default()
        };
        self.outbox.push(Request::AddTrack(proto::AddTrackRequest {
            cid: cid.clone(),
            name: publish.source.clone(),
            r#type: if is_audio { proto::TrackType::Audio } else { proto::TrackType::Video } as i32,
            source: source as i32,
            width: largest.width,
            height: largest.height,
            layers,
            simulcast_codecs: if is_audio { Vec::new() } else { vec![codecs] },
            disable_red: true,
            ..proto::AddTrackRequest::default()
        }));
        self.publications.push(publication);
        self.waiting.push((command, WaitsFor::Published(cid)));
        Ok(())
    }

    pub fn unpublish(&mut self, sid: &str) -> Result<Value> {
        self.withdraw(clock::now(), sid)?;
        Ok(json!({}))
    }

    fn withdraw(&mut self, now: Instant, sid: &str) -> Result<()> {
        let at = self.publications.iter().position(|one| one.sid == sid).context("no such track")?;
        if let Some(transceiver) = self.publications.remove(at).transceiver {
            self.connection.pc.remove_track(transceiver.into())?;
            self.negotiate(now)?;
        }
        Ok(())
    }

    pub fn mute(&mut self, sid: &str, muted: bool) -> Result<Value> {
        let publication = self.publications.iter_mut().find(|one| one.sid == sid);
        publication.context("no such track")?.mute(muted);
        self.outbox.push(Request::Mute(proto::MuteTrackRequest { sid: sid.to_owned(), muted }));
        Ok(json!({}))
    }

    pub fn subscribe(&mut self, sid: &str, subscribe: bool) -> Value {
        self.outbox.push(Request::Subscription(proto::UpdateSubscription {
            track_sids: vec![sid.to_owned()],
            subscribe,
            ..proto::UpdateSubscription::default()
        }));
        json!({})
    }

    /// Which of a track's encodings to get. The next key frame tells its size.
    pub fn choose(&mut self, sid: &str, quality: i32) -> Value {
        self.outbox.push(Request::TrackSetting(proto::UpdateTrackSettings {
            track_sids: vec![sid.to_owned()],
            quality,
            ..proto::UpdateTrackSettings::default()
        }));
        json!({})
    }

    pub fn send(&mut self, send: Send) -> Result<Value> {
        let Send { text, topic, to, reliable } = send;
        if reliable {
            self.sequence += 1;
        }
        let user = proto::UserPacket { payload: text.into_bytes(), topic, ..proto::UserPacket::default() };
        let packet = proto::DataPacket {
            destination_identities: to.unwrap_or_default(),
            sequence: if reliable { self.sequence } else { 0 },
            value: Some(proto::data_packet::Value::User(user)),
            ..proto::DataPacket::default()
        };
        self.connection.send_data(clock::now(), reliable, &packet.encode_to_vec())?;
        Ok(json!({}))
    }

    pub async fn leave(&mut self) -> Result<Value> {
        if !self.is_over() {
            let reason = proto::DisconnectReason::ClientInitiated as i32;
            let leave = proto::LeaveRequest { reason, ..proto::LeaveRequest::default() };
            self.outbox.push(Request::Leave(leave));
            self.flush().await?;
            self.signal.close().await;
            self.end(json!({ "reason": reason }));
        }
        Ok(json!({}))
    }

    fn end(&mut self, detail: Value) {
        self.state = "disconnected";
        self.room.note("disconnected", detail);
        for (command, _) in self.waiting.drain(..) {
            self.answers.push((command, Err(anyhow!("disconnected"))));
        }
    }

    fn done(&mut self, what: &WaitsFor, answer: impl Fn() -> Result<Value>) {
        let answers = &mut self.answers;
        self.waiting.retain(|(command, waits_for)| {
            let is_done = waits_for == what;
            if is_done {
                answers.push((*command, answer()));
            }
            !is_done
        });
    }

    pub fn state(&self) -> Value {
        json!({ "state": self.state, "sid": self.room.sid })
    }

    pub fn remote(&self) -> Value {
        self.room.tracks().into()
    }

    pub fn participants(&self) -> Value {
        self.room.others().into()
    }

    pub fn received(&self) -> Value {
        self.received.clone().into()
    }

    pub fn events(&self) -> Value {
        self.room.events.clone().into()
    }
}

/// Our own address on the way to the server.
async fn towards(url: &str) -> Result<std::net::IpAddr> {
    let authority =
        url.strip_prefix("ws://").context("only ws:// URLs")?.split('/').next().unwrap_or_default();
    let server = lookup_host(authority).await?.next().context("the server has no address")?;
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let probe = UdpSocket::bind(any).await?;
    probe.connect(server).await?;
    Ok(probe.local_addr()?.ip())
}
