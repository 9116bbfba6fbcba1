//! Virtual time, the line, and one shard between scripted clients.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use weir_core::egress::{MAX_DATAGRAM, MAX_RUN_BYTES, MAX_SEGMENTS};
use weir_core::shard::{Disposition, Shard, ShardConfig, ufrag_prefix};
use weir_core::stats::Drop;
use weir_core::{Route, TransportContext};
use weir_rtp::header::{DatagramKind, RtpHeader, classify};
use weir_rtp::rtcp::RtcpWriter;
use weir_transport::testing::Client;
use weir_units::command::Command;
use weir_units::event::Event;
use weir_units::ids::{ConferenceId, PeerId, PublicationId, SubscriptionId};
use weir_units::media::{Codec, DtlsRole, IceCredentials, IngressMedia, Layer, Mid, RemoteTransport, Wish};

use crate::bottleneck::Bottleneck;
use crate::client::Participant;
use crate::playback::Playback;
use crate::receiver::Receiver;
use crate::source::{Shape, Source};

/// Datagrams that one may be answered with.
const MAX_ANSWERS: usize = 8;
/// How often the shard may be asked to go on with what is due, its egress sent in between.
const MAX_TURNS: usize = 32;

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// The certificate of everybody on every stage: making one for each would take longer than the tests.
pub fn context() -> Arc<TransportContext> {
    static CONTEXT: OnceLock<Arc<TransportContext>> = OnceLock::new();
    CONTEXT.get_or_init(|| Arc::new(TransportContext::generate().unwrap())).clone()
}

/// What lies between a client and the focus.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    pub delay: Duration,
    /// Packets are late by up to so much more, and overtake one another.
    pub jitter: Duration,
    /// Packets wait for those before them rather than overtake.
    pub keeps_order: bool,
    /// The chance of losing a packet of media or feedback, to the focus and from it.
    pub loss_up: f64,
    pub loss_down: f64,
    /// Every two packets to the focus change places.
    pub swaps: bool,
    /// The shard looks at what came only so often, as when it is busy.
    pub batch: Duration,
    /// The first packet of the next key frame towards the focus is lost.
    pub drop_next_key_start: bool,
    /// What every client's line from the focus carries; without it, everything.
    pub down: Option<Neck>,
}

/// A narrow place with a queue before it.
#[derive(Clone, Copy, Debug)]
pub struct Neck {
    pub bits_per_second: u64,
    /// What does not pass within this is lost.
    pub queue: Duration,
}

struct InFlight {
    to: To,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum To {
    Focus(Route),
    Client(usize),
}

/// What left in runs, since the beginning.
#[derive(Clone, Copy, Debug, Default)]
pub struct Runs {
    pub runs: usize,
    pub datagrams: usize,
    pub longest: usize,
}

/// Which numbers of a stream left the focus.
#[derive(Clone, Debug, Default)]
struct Numbers {
    highest: Option<u16>,
    /// Below the highest, and not sent.
    open: BTreeSet<u16>,
}

impl Numbers {
    fn note(&mut self, number: u16) {
        let next = self.highest.map_or(number, |highest| highest.wrapping_add(1));
        let ahead = number.wrapping_sub(next);
        if ahead > 1 << 15 {
            self.open.remove(&number);
            return;
        }
        self.open.extend((0..ahead).map(|step| next.wrapping_add(step)));
        self.highest = Some(number);
    }
}

pub struct Stage {
    pub now: Instant,
    pub began: Instant,
    pub shard: Shard,
    pub clients: Vec<Participant>,
    pub line: Line,
    pub events: Vec<(Instant, Event)>,
    pub runs: Runs,
    /// Wake-ups of the shard's timers.
    pub wakeups: u64,
    pub unknown: u64,
    /// Subscriptions from now on report when packets arrive.
    pub reports_arrivals: bool,
    /// Instead of [`Self::line`], for the clients behind them.
    pub bottlenecks: Vec<Bottleneck>,
    /// When the line to each client will have carried what is in its queue.
    free_at: BTreeMap<usize, Instant>,
    /// When the last packet to each client, and of each, arrives.
    arrives: BTreeMap<(bool, usize), Instant>,
    pub lost_in_queue: u64,
    routes: BTreeMap<Route, usize>,
    sealed: BTreeMap<(Route, u32, u16), (Instant, u64)>,
    /// The numbers of each stream that left.
    numbers: BTreeMap<(Route, u32), Numbers>,
    network: BinaryHeap<Reverse<(Instant, u64)>>,
    in_flight: BTreeMap<u64, InFlight>,
    order: u64,
    /// When the present burst left, and its first place.
    burst: (Instant, u64),
    rng: SmallRng,
    next_id: u64,
    next_ssrc: u32,
}

pub const CONFERENCE: ConferenceId = ConferenceId(1);

impl Stage {
    #[expect(clippy::disallowed_methods, reason = "std offers no other way to make an Instant")]
    pub fn new(seed: u64) -> Self {
        let now = Instant::now();
        Self {
            now,
            began: now,
            shard: Shard::new(&ShardConfig { index: 0, rate_control: true }, context(), now, seed),
            clients: Vec::new(),
            line: Line {
                delay: ms(20),
                jitter: ms(0),
                keeps_order: false,
                loss_up: 0.0,
                loss_down: 0.0,
                swaps: false,
                batch: Duration::ZERO,
                drop_next_key_start: false,
                down: None,
            },
            reports_arrivals: false,
            bottlenecks: Vec::new(),
            free_at: BTreeMap::new(),
            arrives: BTreeMap::new(),
            lost_in_queue: 0,
            events: Vec::new(),
            runs: Runs::default(),
            wakeups: 0,
            unknown: 0,
            routes: BTreeMap::new(),
            sealed: BTreeMap::new(),
            numbers: BTreeMap::new(),
            network: BinaryHeap::new(),
            in_flight: BTreeMap::new(),
            order: 0,
            burst: (now, 0),
            rng: SmallRng::seed_from_u64(seed ^ 0x5eed),
            next_id: 0,
            next_ssrc: 1_000,
        }
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub fn command(&mut self, command: Command) {
        self.shard.handle_command(self.now, command);
        self.carry_egress();
        self.take_events();
    }

    fn credentials(&mut self, name: String) -> IceCredentials {
        let password = format!("{:032x}", self.rng.random::<u128>());
        IceCredentials { ufrag: name, password }
    }

    /// A client joins the conference; it connects as time passes.
    pub fn enter(&mut self) -> usize {
        let at = self.clients.len();
        let id = PeerId(self.id());
        let remote = SocketAddr::from(([10, 0, (at >> 8) as u8, at as u8], 40_000));
        let route = Route::Udp { socket: 0, remote };
        let focus = self.credentials(format!("{}focus{at}", ufrag_prefix(0)));
        let local = self.credentials(format!("client{at}"));
        let mut client = Client::new(&context(), local, self.now);
        self.command(Command::AddPeer { peer: id, conference: CONFERENCE, local: focus.clone() });
        let remote = client.description(Some(0));
        self.command(Command::SetRemoteTransport { peer: id, local: focus.clone(), remote });
        let focus = RemoteTransport {
            ice: focus,
            fingerprint: context().fingerprint(),
            local_role: DtlsRole::Client,
            max_message_size: Some(0),
        };
        client.set_focus(self.now, &focus);
        self.routes.insert(route, at);
        self.clients.push(Participant::new(id, route, client, self.now));
        at
    }

    /// As [`Self::enter`], and waits until it is connected.
    pub fn join(&mut self) -> usize {
        let at = self.enter();
        for _ in 0..100 {
            self.run(ms(20));
            let id = self.clients[at].id;
            if self.clients[at].srtp.is_some()
                && self.events.iter().any(|(_, event)| *event == Event::PeerConnected { peer: id })
            {
                return at;
            }
        }
        panic!("client {at} did not connect");
    }

    /// The client publishes: its first picture is captured now.
    pub fn publish(&mut self, client: usize, shape: Shape) -> PublicationId {
        self.publish_as(client, shape, Source::media)
    }

    /// As [`Self::publish`], agreed on as said.
    pub fn publish_as(
        &mut self,
        client: usize,
        shape: Shape,
        agreed: impl FnOnce(&Source) -> IngressMedia,
    ) -> PublicationId {
        let id = PublicationId(self.id());
        let mid = Mid::new(&format!("{}", self.clients[client].sources.len())).unwrap();
        let rng = &mut self.rng;
        let source =
            Source::new(id, shape, mid, self.began, self.now, || rng.random_range(1 << 30..u32::MAX));
        let media = agreed(&source);
        self.clients[client].sources.push(source);
        let peer = self.clients[client].id;
        self.command(Command::Publish { publication: id, peer, media });
        id
    }

    pub fn subscribe(&mut self, client: usize, publication: PublicationId) -> SubscriptionId {
        self.subscribe_with(client, publication, Wish::default())
    }

    pub fn subscribe_with(
        &mut self,
        client: usize,
        publication: PublicationId,
        wish: Wish,
    ) -> SubscriptionId {
        let codec = self.source(publication).shape.codec;
        self.subscribe_as(client, publication, wish, codec)
    }

    /// The subscriber takes the publication as this codec: Opus for one that is sent as RED.
    pub fn subscribe_as(
        &mut self,
        client: usize,
        publication: PublicationId,
        wish: Wish,
        codec: Codec,
    ) -> SubscriptionId {
        let id = SubscriptionId(self.id());
        self.next_ssrc += 2;
        let shape = self.source(publication).shape.clone();
        let mut receiver = Receiver::new(id, publication, &shape, self.next_ssrc, codec);
        receiver.reports_arrivals = self.reports_arrivals;
        let (media, peer) = (receiver.media(), self.clients[client].id);
        self.clients[client].receivers.push(receiver);
        self.command(Command::Subscribe { subscription: id, publication, peer, media, wish });
        id
    }

    pub fn wish(&mut self, subscription: SubscriptionId, spatial: u8, temporal: u8) {
        let wish = Wish { max_layer: Layer { spatial, temporal }, ..Wish::default() };
        self.command(Command::SetWish { subscription, wish });
    }

    pub fn source(&mut self, publication: PublicationId) -> &mut Source {
        let mut sources = self.clients.iter_mut().flat_map(|client| &mut client.sources);
        sources.find(|source| source.id == publication).expect("a publication of this stage")
    }

    pub fn receiver(&mut self, subscription: SubscriptionId) -> &mut Receiver {
        let mut receivers = self.clients.iter_mut().flat_map(|client| &mut client.receivers);
        receivers.find(|receiver| receiver.id == subscription).expect("a subscription of this stage")
    }

    pub fn playback(&mut self, subscription: SubscriptionId) -> Playback {
        Playback::of(self.receiver(subscription))
    }

    /// How often something was dropped for this reason.
    pub fn dropped(&mut self, reason: Drop) -> u64 {
        self.shard.stats().dropped[reason as usize]
    }

    /// How many numbers were left out of streams to clients, and not sent since. Receivers wait for them, so there are none
    /// where nothing is lost on the way to the focus.
    pub fn numbers_left_open(&self) -> usize {
        self.numbers.values().map(|numbers| numbers.open.len()).sum()
    }

    pub fn has_event(&self, wanted: &Event) -> bool {
        self.events.iter().any(|(_, event)| event == wanted)
    }

    /// A client sends feedback now.
    pub fn send_rtcp(&mut self, client: usize, write: impl FnOnce(&mut RtcpWriter<'_>) -> bool) {
        let packet = self.clients[client].rtcp(write).expect("connected");
        let route = self.clients[client].route;
        self.send(To::Focus(route), packet);
    }

    /// A datagram of the test's own, from anywhere.
    pub fn send_from(&mut self, route: Route, bytes: Vec<u8>) {
        self.send(To::Focus(route), bytes);
    }

    /// The client has another address from now on; packets under way come from the old one.
    pub fn move_to(&mut self, client: usize, route: Route) {
        self.clients[client].route = route;
        self.routes.insert(route, client);
    }

    /// A client probes with a packet of nothing but padding.
    pub fn send_padding(&mut self, client: usize, source: usize) {
        let sender = &mut self.clients[client];
        let (_, egress) = sender.srtp.as_ref().expect("connected");
        let packet = sender.sources[source].padding(0, self.now, egress, &mut sender.transport);
        let route = sender.route;
        self.send(To::Focus(route), packet);
    }

    fn send(&mut self, to: To, bytes: Vec<u8>) {
        let is_media = bytes.first().is_some_and(|first| *first >= 128);
        if let To::Client(at) = to
            && let Some(bottleneck) = self.bottlenecks.iter_mut().find(|bottleneck| bottleneck.is_before(at))
        {
            if is_media {
                bottleneck.offer(self.now - self.began, at, bytes);
            } else {
                let arrival = self.now + bottleneck.line().delay;
                self.arrive(arrival, to, bytes);
            }
            return;
        }
        let loss = match to {
            To::Focus(_) => self.line.loss_up,
            To::Client(_) => self.line.loss_down,
        };
        if is_media && loss > 0.0 && self.rng.random_bool(loss) {
            return;
        }
        // Only media draws from the generator: how many packets a handshake takes is not ours to say.
        let jitter = if is_media && !self.line.jitter.is_zero() {
            Duration::from_micros(self.rng.random_range(0..self.line.jitter.as_micros() as u64))
        } else {
            Duration::ZERO
        };
        let mut queued = Duration::ZERO;
        if let (To::Client(at), Some(neck)) = (to, self.line.down) {
            let free_at = self.free_at.entry(at).or_insert(self.now);
            let waits = free_at.saturating_duration_since(self.now);
            if waits > neck.queue {
                self.lost_in_queue += 1;
                return;
            }
            let takes = Duration::from_micros((bytes.len() as u64 + 28) * 8_000_000 / neck.bits_per_second);
            *free_at = (*free_at).max(self.now) + takes;
            queued = waits + takes;
        }
        self.order += 1;
        let swap = match to {
            To::Focus(_) if self.line.swaps => {
                if self.burst.0 != self.now {
                    self.burst = (self.now, self.order & !1);
                }
                Duration::from_micros((self.order ^ 1) - self.burst.1)
            }
            _ => Duration::ZERO,
        };
        let mut arrival = self.now + self.line.delay + queued + jitter + swap;
        if matches!(to, To::Focus(_)) && !self.line.batch.is_zero() {
            let steps = (arrival - self.began).as_micros().div_ceil(self.line.batch.as_micros());
            arrival = self.began + self.line.batch * steps as u32;
        }
        if self.line.keeps_order {
            let way = match to {
                To::Client(at) => (false, at),
                To::Focus(route) => (true, self.routes.get(&route).copied().unwrap_or(usize::MAX)),
            };
            let last = self.arrives.entry(way).or_insert(arrival);
            arrival = arrival.max(*last);
            *last = arrival;
        }
        self.network.push(Reverse((arrival, self.order)));
        self.in_flight.insert(self.order, InFlight { to, bytes });
    }

    fn arrive(&mut self, arrival: Instant, to: To, bytes: Vec<u8>) {
        self.order += 1;
        self.network.push(Reverse((arrival, self.order)));
        self.in_flight.insert(self.order, InFlight { to, bytes });
    }

    /// What has passed the bottlenecks is on its way.
    fn pass_bottlenecks(&mut self) {
        let now = self.now - self.began;
        for at in 0..self.bottlenecks.len() {
            while self.bottlenecks[at].next().is_some_and(|due| due <= now)
                && let Some((client, arrives, bytes)) = self.bottlenecks[at].serve(now)
            {
                self.arrive(self.began + arrives, To::Client(client), bytes);
            }
        }
    }

    /// Nothing more is lost or captured, and what is under way arrives and is repaired.
    pub fn settle(&mut self) {
        (self.line.loss_up, self.line.loss_down) = (0.0, 0.0);
        self.run(ms(500)); // what was lost last shows when something follows
        for source in self.clients.iter_mut().flat_map(|client| &mut client.sources) {
            source.is_paused = true;
        }
        self.run(secs(1));
    }

    pub fn run(&mut self, duration: Duration) {
        self.run_until(self.now + duration);
    }

    pub fn run_until(&mut self, end: Instant) {
        while let Some(next) = self.next_event().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.step();
        }
        self.now = end;
    }

    fn next_event(&self) -> Option<Instant> {
        let network = self.network.peek().map(|Reverse((at, _))| *at);
        let clients = self.clients.iter().filter_map(Participant::poll_timeout).min();
        let bottlenecks = self.bottlenecks.iter().filter_map(Bottleneck::next).min();
        let bottlenecks = bottlenecks.map(|at| self.began + at);
        [network, bottlenecks, clients, self.shard.poll_timeout()].into_iter().flatten().min()
    }

    fn step(&mut self) {
        let now = self.now;
        self.pass_bottlenecks();
        for at in 0..self.clients.len() {
            if self.clients[at].poll_timeout().is_some_and(|due| due <= now) {
                let route = self.clients[at].route;
                let keys = self.clients[at].key_frames_sent();
                let mut datagrams = self.clients[at].handle_timeout(now);
                if self.line.drop_next_key_start && self.clients[at].key_frames_sent() > keys {
                    self.line.drop_next_key_start = false;
                    let first = datagrams.iter().position(|datagram| classify(datagram) == DatagramKind::Rtp);
                    datagrams.remove(first.expect("a key frame has packets"));
                }
                for datagram in datagrams {
                    self.send(To::Focus(route), datagram);
                }
            }
        }
        let mut has_input = false;
        while let Some(Reverse((_, order))) = self.network.peek().filter(|next| next.0.0 <= now).copied() {
            self.network.pop();
            let InFlight { to, mut bytes } = self.in_flight.remove(&order).expect("sent once");
            match to {
                To::Focus(route) => {
                    has_input = true;
                    self.deliver(route, &mut bytes);
                    if !self.shard.egress().has_room_for(MAX_ANSWERS) {
                        self.flush();
                    }
                }
                To::Client(at) => {
                    let route = self.clients[at].route;
                    for answer in self.clients[at].handle(now, bytes) {
                        self.send(To::Focus(route), answer);
                    }
                }
            }
        }
        if has_input {
            self.flush();
        }
        let is_due = |shard: &Shard| shard.poll_timeout().is_some_and(|at| at <= now);
        self.wakeups += u64::from(is_due(&self.shard));
        for _ in 0..MAX_TURNS {
            if is_due(&self.shard) {
                self.shard.handle_timeout(now);
                self.carry_egress();
            }
        }
        assert!(!is_due(&self.shard), "what was due is done");
        self.take_events();
    }

    fn take_events(&mut self) {
        while let Some((_, event)) = self.shard.poll_event() {
            self.events.push((self.now, event));
        }
        while self.shard.poll_validated_route().is_some() {}
    }

    /// Hands one datagram to the shard; [`Self::flush`] ends the batch.
    pub fn deliver(&mut self, route: Route, bytes: &mut [u8]) -> Disposition {
        let disposition = self.shard.handle_datagram(self.now, route, bytes);
        if disposition == Disposition::Unknown {
            self.shard.count_unknown();
            self.unknown += 1;
        }
        disposition
    }

    pub fn flush(&mut self) {
        while self.shard.flush(self.now) {
            self.carry_egress();
        }
        self.carry_egress();
    }

    /// Two packets under one number must be the same packet: a cipher in counter mode that is used twice for different
    /// bytes gives both away.
    fn check_sealed_once(&mut self, route: Route, datagram: &[u8]) {
        if classify(datagram) != DatagramKind::Rtp {
            return;
        }
        let header = RtpHeader::parse(datagram).expect("a header");
        self.numbers.entry((route, header.ssrc)).or_default().note(header.sequence_number);
        let mut hasher = DefaultHasher::new();
        datagram.hash(&mut hasher);
        let seal = hasher.finish();
        let key = (route, header.ssrc, header.sequence_number);
        if let Some((at, earlier)) = self.sealed.insert(key, (self.now, seal)) {
            let is_same = earlier == seal || self.now > at + secs(5); // and 65,536 numbers
            assert!(is_same, "two packets under number {} of {}", header.sequence_number, header.ssrc);
        }
    }

    /// Takes what the shard sends, as a kernel would cut it.
    fn carry_egress(&mut self) {
        let egress = self.shard.egress();
        let mut datagrams = Vec::new();
        for run in egress.runs() {
            assert!(run.segments <= MAX_SEGMENTS && run.bytes.len() <= MAX_RUN_BYTES);
            let cut: Vec<_> = run.datagrams(egress.arena()).map(<[u8]>::to_vec).collect();
            assert_eq!(cut.len(), run.segments);
            assert!(cut.iter().all(|datagram| datagram.len() <= MAX_DATAGRAM));
            self.runs.runs += 1;
            self.runs.datagrams += cut.len();
            self.runs.longest = self.runs.longest.max(cut.len());
            datagrams.extend(cut.into_iter().map(|datagram| (run.route, datagram)));
        }
        egress.clear();
        for (route, datagram) in datagrams {
            self.check_sealed_once(route, &datagram);
            if let Some(client) = self.routes.get(&route) {
                // Who has moved hears nothing at the old place.
                if self.clients[*client].route == route {
                    self.send(To::Client(*client), datagram);
                }
            }
        }
    }
}
