//! What one forwarded packet costs, over sockets and in memory.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use weir_core::Route;
use weir_core::shard::{Disposition, Shard};
use weir_transport::srtp::SrtpIngress;
use weir_udp::SocketOptions;
use weir_units::media::Codec;
use weir_wire::{Connections, Wire};

use crate::call::{Call, Media, imaginary};
use crate::floor::Floor;
use crate::measure::{Comparison, Cost, compare, compare_often};
use crate::publisher::Publisher;
use crate::reporters::Reporters;
use crate::sinks::{SinkKind, Sinks};

/// Packets forwarded in a run, at least.
const PACKETS: usize = 8_192;
/// Rounds in memory, where a difference is asked for that is small beside what it is of.
const DIFFERENCE_ROUNDS: usize = 101;
/// Virtual time before anything is measured: rings and tables have their size by then.
const WARM_UP: Duration = Duration::from_secs(6);
/// How often clients say that they are still there. Off the clock: it is no part of forwarding.
const KEEP_ALIVE: Duration = Duration::from_secs(4);
/// How often a publisher reports on what it sent.
const REPORT: Duration = Duration::from_secs(1);
/// Packets that the sinks hold before they are emptied.
const DRAIN_AFTER: u64 = 8_192;

/// The kernel has so many turns to deliver what was sent over loopback.
const MAX_TURNS: usize = 10_000;

/// What comes, and to how many it goes.
#[derive(Clone, Debug)]
pub struct Plan {
    pub name: &'static str,
    pub codec: Codec,
    /// Sizes of the packets that come together: header and payload.
    pub sizes: &'static [usize],
    pub publishers: usize,
    pub subscribers: usize,
    /// M-lines of every subscriber. Two of a publisher's carry packets, in turn; audio has one a publisher.
    pub lines: usize,
    /// Between frames of one publisher.
    pub interval: Duration,
    /// `None` is in memory.
    pub sinks: Option<SinkKind>,
    /// Subscribers report on what arrives. In memory only.
    pub reports: bool,
    /// They are sent what their line carries by their reports.
    pub rate_control: bool,
}

/// Sizes as libwebrtc splits a frame: the last ones a byte longer.
const FRAME: &[usize] = &[1_199, 1_199, 1_199, 1_200, 1_200, 1_200, 1_200];

impl Plan {
    pub fn frames(subscribers: usize) -> Self {
        Self {
            name: "frames of 7",
            codec: Codec::Vp8,
            sizes: FRAME,
            publishers: 1,
            subscribers,
            lines: 2,
            interval: Duration::from_micros(33_333),
            sinks: Some(SinkKind::Queued),
            reports: false,
            rate_control: false,
        }
    }

    /// A codec whose payload is not rewritten.
    pub fn h264_frames(subscribers: usize) -> Self {
        Self { name: "frames of 7, H.264", codec: Codec::H264, ..Self::frames(subscribers) }
    }

    pub fn singles(subscribers: usize) -> Self {
        Self { name: "single packets", sizes: &[1_200], ..Self::frames(subscribers) }
    }

    /// Eight people speak at once.
    pub fn audio(subscribers: usize) -> Self {
        Self {
            name: "audio of 8, 200 B",
            codec: Codec::Opus,
            sizes: &[200],
            publishers: 8,
            lines: 8,
            interval: Duration::from_millis(20),
            ..Self::frames(subscribers)
        }
    }
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = self.sinks.map_or("memory", |kind| kind.name());
        write!(f, "{}, {place}, N={}, {} m-lines", self.name, self.subscribers, self.lines)
    }
}

/// One line of the table.
pub struct Row {
    pub plan: Plan,
    pub comparison: Comparison,
    /// Datagrams in a message that left, on average.
    pub segments: f64,
}

pub fn measure(plan: Plan) -> Row {
    let sinks = plan.sinks.map(|kind| Sinks::new(kind, plan.subscribers));
    let addresses = sinks.as_ref().map(|sinks| sinks.addresses.clone());
    let mut ours = Ours::new(&plan, addresses.as_deref());
    ours.warm_up();
    let size = plan.sizes.iter().copied().max().expect("packets come");
    let mut floor = Floor::new(ours.key_len, plan.subscribers, plan.sizes.len(), size, addresses.as_deref());
    let turns = PACKETS.div_ceil(plan.subscribers * plan.sizes.len());
    let sinks = std::cell::RefCell::new(sinks);
    let queued = std::cell::Cell::new(0);
    let drain = |sent: u64| {
        queued.set(queued.get() + sent);
        if queued.get() >= DRAIN_AFTER
            && let Some(sinks) = &mut *sinks.borrow_mut()
        {
            sinks.drain();
            queued.set(0);
        }
    };
    let counts = ours.sent();
    let expected = (plan.subscribers * plan.sizes.len()) as u64;
    let comparison = compare(
        || {
            let mut cost = Cost::new();
            for _ in 0..turns {
                ours.refill();
                until_sent(expected, || {
                    let before = ours.forwarded();
                    cost.charge(|| ours.turn());
                    ours.forwarded() - before
                });
                cost.units += expected;
                drain(expected);
            }
            cost
        },
        || {
            let mut cost = Cost::new();
            for _ in 0..turns {
                floor.refill();
                until_sent(expected, || cost.charge(|| floor.turn()));
                cost.units += expected;
                drain(expected);
            }
            cost
        },
    );
    let (messages, datagrams) = ours.sent();
    let segments = (datagrams - counts.1) as f64 / (messages - counts.0).max(1) as f64;
    Row { plan, comparison, segments }
}

/// What reports and rate control add to a forwarded packet.
pub struct RateRow {
    pub plan: Plan,
    /// Rate control, beside reports that are opened and not heeded.
    pub control: Comparison,
    /// Those, beside none.
    pub reports: Comparison,
}

/// What reports and rate control add: the same with and without them, in memory, in turn.
pub fn measure_rate_control(plan: Plan) -> RateRow {
    let with = Plan { sinks: None, reports: true, rate_control: true, ..plan };
    let unheeded = Plan { rate_control: false, ..with.clone() };
    let without = Plan { reports: false, ..unheeded.clone() };
    let [control, reports] = [[&with, &unheeded], [&unheeded, &without]].map(compare_in_memory);
    RateRow { plan: with, control, reports }
}

fn compare_in_memory(plans: [&Plan; 2]) -> Comparison {
    let mut sides = plans.map(|plan| {
        let mut side = Ours::new(plan, None);
        side.warm_up();
        side
    });
    let expected = (plans[0].subscribers * plans[0].sizes.len()) as u64;
    let turns = PACKETS.div_ceil(plans[0].subscribers * plans[0].sizes.len());
    let before = sides.each_ref().map(|side| (side.call.shard.counts().probes, side.forwarded()));
    let run = |side: &mut Ours| {
        let mut cost = Cost::new();
        for _ in 0..turns {
            side.refill();
            cost.charge(|| side.turn());
            side.hear();
            cost.units += expected;
        }
        cost
    };
    let [ours, other] = &mut sides;
    let comparison = compare_often(DIFFERENCE_ROUNDS, || run(ours), || run(other));
    for (side, (probes, held)) in sides.iter().zip(before) {
        assert_eq!(side.call.shard.counts().probes, probes, "all that is wanted passes");
        assert_eq!((side.forwarded() - held) % expected, 0, "and at once");
    }
    comparison
}

/// Takes turns until what arrived is sent: one, unless the machine is so busy that the kernel put off delivering it.
fn until_sent(expected: u64, mut turn: impl FnMut() -> u64) {
    let mut sent = 0;
    for _ in 0..MAX_TURNS {
        sent += turn();
        if sent >= expected {
            break;
        }
        std::thread::yield_now();
    }
    assert_eq!(sent, expected, "every packet is forwarded, and once");
}

/// There is no ICE-TCP here.
struct NoConnections;

impl Connections for NoConnections {
    fn send(&mut self, _connection: u32, _frame: &[u8]) -> bool {
        false
    }
}

/// The shard with its sockets, as a thread of the focus has them.
struct Ours {
    call: Call,
    wire: Option<Wire>,
    focus: Option<SocketAddr>,
    sizes: &'static [usize],
    key_len: usize,
    publishers: Vec<(Publisher, Route, UdpSocket)>,
    frames: usize,
    interval: Duration,
    kept_alive: Instant,
    reported: Instant,
    /// Reports so far, one a second.
    reports: u64,
    /// A subscriber's own eyes: that what is sent opens.
    witness: (Route, SrtpIngress),
    witnessed: u64,
    /// In memory: messages and datagrams sent.
    sent: (u64, u64),
    reporters: Option<Reporters>,
}

impl Ours {
    fn new(plan: &Plan, sinks: Option<&[SocketAddr]>) -> Self {
        let mut call = Call::new(plan.rate_control);
        let mut reporters = plan.reports.then(|| Reporters::new(call.now));
        let wire = sinks.map(|_| {
            let options = SocketOptions { receive_buffer: Some(4 << 20), ..SocketOptions::default() };
            let address = "127.0.0.1:0".parse().expect("an address");
            Wire::new(vec![weir_udp::UdpSocket::bind(address, options).expect("a port is free")])
        });
        let focus = wire.as_ref().map(|wire| wire.sockets()[0].local_addr().expect("it is bound"));
        let mut publications = Vec::new();
        let mut publishers = Vec::new();
        let lines = plan.lines / plan.publishers;
        let mut key_len = 0;
        for number in 0..plan.publishers {
            let socket = crate::sinks::socket();
            let route = Route::Udp { socket: 0, remote: socket.local_addr().expect("it is bound") };
            let media = call.connect(route, 1_000, &mut Cost::default());
            key_len = media.egress.profile().key_len();
            for line in 0..lines {
                let ssrc = (1_000 * (number + 1) + line) as u32;
                publications.push(call.publish(media.peer, plan.codec, ssrc));
            }
            let mut publisher = Publisher::new(media);
            for line in 0..lines.min(2) {
                publisher.add_track((1_000 * (number + 1) + line) as u32, plan.codec);
            }
            publishers.push((publisher, route, socket));
        }
        let mut witness = None;
        for number in 0..plan.subscribers {
            let route = match sinks {
                Some(sinks) => Route::Udp { socket: 0, remote: sinks[number] },
                None => imaginary(number),
            };
            let Media { peer, ingress, egress } = call.connect(route, plan.subscribers, &mut Cost::default());
            for &publication in &publications {
                call.subscribe(peer, publication, plan.codec);
            }
            witness.get_or_insert((route, ingress));
            if let Some(reporters) = &mut reporters {
                reporters.add(route, egress);
            }
        }
        let now = call.now;
        Self {
            call,
            wire,
            focus,
            sizes: plan.sizes,
            key_len,
            publishers,
            frames: 0,
            interval: plan.interval / plan.publishers as u32,
            kept_alive: now,
            reported: now,
            reports: 0,
            witness: witness.expect("there are subscribers"),
            witnessed: 0,
            sent: (0, 0),
            reporters,
        }
    }

    /// Past the first frames, in memory, where a subscriber looks at what it gets.
    fn warm_up(&mut self) {
        let (wire, start) = (self.wire.take(), self.call.now);
        let mut frames = 0;
        while self.call.now < start + WARM_UP {
            self.refill();
            self.turn_in_memory(true);
            self.pass_time();
            frames += 1;
        }
        let expected = frames * self.sizes.len() as u64;
        assert!(self.witnessed * 100 >= expected * 99, "{} of {expected} packets opened", self.witnessed);
        self.wire = wire;
    }

    /// Timers that are due before the next frame, each in its time: probes are paced by them.
    fn pass_time(&mut self) {
        let end = self.call.now + self.interval;
        let began = self.call.now;
        while let Some(at) = self.call.shard.poll_timeout().filter(|at| *at < end) {
            self.call.now = at.max(self.call.now);
            self.call.shard.handle_timeout(self.call.now);
            self.take_egress(true);
        }
        self.call.now = began;
    }

    /// Off the clock: time passes, and the next frame arrives.
    fn refill(&mut self) {
        self.call.now += self.interval;
        if self.call.now >= self.kept_alive + KEEP_ALIVE {
            self.call.keep_alive();
            self.kept_alive = self.call.now;
        }
        if self.call.now >= self.reported + REPORT {
            self.report_from_publishers();
            self.reported = self.call.now;
        }
        if let Some(reporters) = &mut self.reporters {
            reporters.make_due(self.call.now);
        }
        let publishers = self.publishers.len();
        let (publisher, _, socket) = &mut self.publishers[self.frames % publishers];
        let tracks = publisher.tracks();
        publisher.make_frame(self.frames / publishers % tracks, self.sizes);
        if let (Some(focus), true) = (self.focus, self.wire.is_some()) {
            for packet in &publisher.packets {
                socket.send_to(packet, focus).expect("sent");
            }
        }
        self.frames += 1;
    }

    /// Off the clock: what was just sent arrives.
    fn hear(&mut self) {
        if let Some(reporters) = &mut self.reporters {
            reporters.take_all(self.call.now, self.sizes.len());
        }
    }

    fn report_from_publishers(&mut self) {
        self.reports += 1;
        for (publisher, route, _) in &mut self.publishers {
            let mut report = publisher.make_report(self.reports << 32);
            self.call.shard.handle_datagram(self.call.now, *route, &mut report);
        }
    }

    fn turn(&mut self) {
        match &mut self.wire {
            Some(wire) => turn(wire, &mut self.call),
            None => self.turn_in_memory(false),
        }
    }

    fn turn_in_memory(&mut self, witness: bool) {
        let Self { call, publishers, reporters, .. } = self;
        let now = call.now;
        for (route, mut report) in reporters.iter_mut().flat_map(|reporters| reporters.due.drain(..)) {
            call.shard.handle_datagram(now, route, &mut report);
        }
        let at = (self.frames - 1) % publishers.len();
        let (publisher, route, _) = &mut publishers[at];
        for packet in &mut publisher.packets {
            call.shard.handle_datagram(now, *route, packet);
        }
        loop {
            let more = self.call.shard.flush(now);
            self.take_egress(witness);
            if !more {
                break;
            }
        }
        if self.call.shard.poll_timeout().is_some_and(|at| at <= now) {
            self.call.shard.handle_timeout(now);
            self.take_egress(witness);
        }
        report(&mut self.call.shard);
    }

    fn take_egress(&mut self, witness: bool) {
        let egress = self.call.shard.egress();
        self.sent.0 += egress.runs().len() as u64;
        self.sent.1 += egress.runs().iter().map(|run| run.segments as u64).sum::<u64>();
        if witness {
            if let Some(reporters) = &mut self.reporters {
                reporters.take(self.call.now, egress);
            }
            let (route, ingress) = &mut self.witness;
            for run in egress.runs().iter().filter(|run| run.route == *route) {
                for packet in run.datagrams(egress.arena()) {
                    // Reports do not open as media.
                    self.witnessed += u64::from(ingress.open_rtp(&mut packet.to_vec(), |_| true).is_ok());
                }
            }
        }
        egress.clear();
    }

    /// Not by `stats`: a look at every subscription before each turn would leave none of them in the nearer caches.
    fn forwarded(&self) -> u64 {
        self.call.shard.counts().rtp_out
    }

    /// Messages and datagrams so far.
    fn sent(&self) -> (u64, u64) {
        match &self.wire {
            Some(wire) => (wire.counts.send_messages, wire.counts.datagrams_out),
            None => self.sent,
        }
    }
}

/// What a thread of the focus does in one turn, but for reading the clock and its other inputs.
fn turn(wire: &mut Wire, call: &mut Call) {
    let (shard, now) = (&mut call.shard, call.now);
    wire.receive(shard, now, &mut NoConnections, |shard, route, datagram| {
        match shard.handle_datagram(now, route, datagram) {
            Disposition::Handled | Disposition::Validated => {}
            Disposition::Elsewhere(_) | Disposition::Unknown => shard.count_unknown(),
        }
    });
    if shard.poll_timeout().is_some_and(|at| at <= now) {
        shard.handle_timeout(now);
        wire.send(shard, &mut NoConnections);
    }
    report(shard);
}

fn report(shard: &mut Shard) {
    while shard.poll_event().is_some() {}
    while shard.poll_validated_route().is_some() {}
}
