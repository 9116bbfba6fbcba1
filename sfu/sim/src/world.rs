//! A scenario at work: flows over one line, feedback back, in virtual time.

use std::time::Duration;

use weir_rate::{BitRate, Explanation, Time};

use crate::agenda::Agenda;
use crate::encoder::FRAME_INTERVAL;
use crate::figures::Recording;
use crate::receiver::Receiver;
use crate::scenario::Scenario;
use crate::sender::{AUDIO_INTERVAL, Packet, Sender};
use crate::tcp::{ACK, SEGMENT, Tcp};
use weir_stage::chance::Chance;
use weir_stage::link::{Line, Link, Offered};

/// Samples for pictures and traces.
const SAMPLE: Duration = Duration::from_millis(100);
/// How often a TCP-like flow looks at its clock.
const TCP_CLOCK: Duration = Duration::from_millis(200);
/// What feedback takes besides its own bytes: IP, UDP, and SRTCP's tail.
const FEEDBACK_OVERHEAD: usize = 20 + 8 + 20;

/// Which way a datagram goes.
const FORTH: usize = 0;
const BACK: usize = 1;

/// A datagram on a line.
#[derive(Clone, Debug)]
enum Datagram {
    Media(Packet),
    Feedback { flow: usize, bytes: Vec<u8> },
    Segment { tcp: usize, number: u64 },
    Ack { tcp: usize, number: u64 },
}

enum Happening {
    Begin { flow: usize },
    Pause { flow: usize, paused: bool },
    BeginTcp { tcp: usize },
    TcpClock { tcp: usize },
    Audio { flow: usize },
    Frame { flow: usize },
    Wake { flow: usize },
    Served { way: usize },
    Arrival { datagram: Datagram },
    FeedbackDue { flow: usize },
    Change { way: usize, line: Line },
    Sample,
}

struct Flow {
    sender: Option<Sender>,
    receiver: Receiver,
    wake: Option<Duration>,
    farther: Duration,
    /// The way of its media.
    way: usize,
}

/// What an estimator thought at a time.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub at: Duration,
    pub flow: usize,
    pub line: BitRate,
    pub thought: Explanation,
}

struct World<'a> {
    scenario: &'a Scenario,
    seed: u64,
    agenda: Agenda<Happening>,
    /// There and back.
    links: [Link<Datagram>; 2],
    served: [Option<Duration>; 2],
    flows: Vec<Flow>,
    tcp: Vec<Option<Tcp>>,
    feedback_chance: Chance,
    recording: Recording,
}

/// Plays `scenario` with `seed`.
pub fn play(scenario: &Scenario, seed: u64) -> Recording {
    let wide = Line { delay: scenario.line.delay, jitter: Duration::ZERO, ..Line::new(BitRate::MAX) };
    let back = scenario.back.unwrap_or(wide);
    let mut world = World {
        scenario,
        seed,
        agenda: Agenda::new(),
        links: [Link::new(scenario.line, Chance::new(seed, 1)), Link::new(back, Chance::new(seed, 3))],
        served: [None; 2],
        flows: Vec::new(),
        tcp: scenario.tcp.iter().map(|_| None).collect(),
        feedback_chance: Chance::new(seed, 2),
        recording: Recording::default(),
    };
    world.begin();
    while let Some(happening) = world.agenda.next(scenario.lasts) {
        world.handle(happening);
    }
    let changes = world.flows.iter().filter_map(|flow| Some(flow.sender.as_ref()?.layer_changes)).sum();
    world.recording.layer_changes = changes;
    world.recording
}

impl World<'_> {
    fn begin(&mut self) {
        for (flow, plan) in self.scenario.flows.iter().enumerate() {
            let way = if plan.backwards { BACK } else { FORTH };
            let receiver = Receiver::default();
            self.flows.push(Flow { sender: None, receiver, wake: None, farther: plan.farther, way });
            self.agenda.put(plan.begins, Happening::Begin { flow });
            for pause in &plan.pauses {
                self.agenda.put(pause.start, Happening::Pause { flow, paused: true });
                self.agenda.put(pause.end, Happening::Pause { flow, paused: false });
            }
        }
        for (tcp, plan) in self.scenario.tcp.iter().enumerate() {
            self.agenda.put(plan.begins, Happening::BeginTcp { tcp });
        }
        for (way, changes) in [&self.scenario.changes, &self.scenario.back_changes].into_iter().enumerate() {
            for (at, line) in changes {
                self.agenda.put(*at, Happening::Change { way, line: *line });
            }
        }
        self.agenda.put(SAMPLE, Happening::Sample);
    }

    fn handle(&mut self, happening: Happening) {
        let (now, at) = (self.agenda.time(), self.agenda.now());
        match happening {
            Happening::Begin { flow } => self.begin_flow(flow),
            Happening::Pause { flow, paused } => self.with_sender(flow, |sender| sender.pause(paused)),
            Happening::BeginTcp { tcp } => {
                let bytes = self.scenario.tcp[tcp].bytes;
                self.tcp[tcp] = Some(Tcp::new(at, bytes.map(|bytes| bytes.div_ceil(SEGMENT as u64))));
                self.agenda.put(at, Happening::TcpClock { tcp });
            }
            Happening::TcpClock { tcp } => {
                self.agenda.put(at + TCP_CLOCK, Happening::TcpClock { tcp });
                self.with_tcp(tcp, |one| one.on_time(at));
            }
            Happening::Audio { flow } => {
                self.agenda.put(at + AUDIO_INTERVAL, Happening::Audio { flow });
                self.with_sender(flow, |sender| sender.on_audio(now, at));
            }
            Happening::Frame { flow } => {
                self.agenda.put(at + FRAME_INTERVAL, Happening::Frame { flow });
                self.with_sender(flow, |sender| sender.on_frame(now, at));
            }
            Happening::Wake { flow } => {
                if self.flows[flow].wake == Some(at) {
                    self.flows[flow].wake = None;
                    self.with_sender(flow, |sender| sender.pump(now, at));
                }
            }
            Happening::Served { way } => self.serve(way, at),
            Happening::Arrival { datagram } => self.arrive(datagram, at),
            Happening::FeedbackDue { flow } => self.send_feedback(flow, at),
            Happening::Change { way, line } => {
                self.links[way].change(at, line);
                self.expect_served(way);
            }
            Happening::Sample => self.sample(at),
        }
    }

    fn begin_flow(&mut self, flow: usize) {
        let (now, at) = (self.agenda.time(), self.agenda.now());
        let Scenario { media, key_frames_every, .. } = *self.scenario;
        self.flows[flow].sender = Some(Sender::new(flow, now, self.seed, media, key_frames_every));
        // Cameras and microphones do not tick together.
        let offset = Duration::from_millis(7) * flow as u32;
        self.agenda.put(at + offset, Happening::Audio { flow });
        self.agenda.put(at + offset, Happening::Frame { flow });
        let first = self.flows[flow].receiver.first_feedback();
        self.agenda.put(at + first, Happening::FeedbackDue { flow });
    }

    fn with_sender(&mut self, flow: usize, act: impl FnOnce(&mut Sender)) {
        let (now, at) = (self.agenda.time(), self.agenda.now());
        let way = self.flows[flow].way;
        let Some(sender) = &mut self.flows[flow].sender else { return };
        act(sender);
        let packets = std::mem::take(&mut sender.out);
        let wake = sender.next(now).map(|wake| wake - Time::ZERO);
        for packet in packets {
            let offered = self.offer(way, at, Datagram::Media(packet), packet.bytes);
            if way == FORTH {
                self.recording.on_sent(at, packet, offered);
            }
        }
        // A time that passed without effect comes again only with the next thing that happens.
        if let Some(wake) =
            wake.filter(|wake| *wake > at && self.flows[flow].wake.is_none_or(|set| *wake < set))
        {
            self.flows[flow].wake = Some(wake);
            self.agenda.put(wake, Happening::Wake { flow });
        }
        self.check(flow);
    }

    /// What must hold after every step.
    fn check(&self, flow: usize) {
        let Some(sender) = &self.flows[flow].sender else { return };
        let (target, sustainable) = (sender.estimator.target(), sender.estimator.sustainable());
        let limits = weir_rate::Limits::default();
        for rate in [target, sustainable] {
            assert!(rate >= limits.least && rate <= limits.most, "flow {flow}: estimate {rate}");
        }
        assert!(target <= sustainable, "flow {flow}: {target} may be sent, {sustainable} is sustained");
    }

    fn with_tcp(&mut self, tcp: usize, act: impl FnOnce(&mut Tcp)) {
        let at = self.agenda.now();
        let Some(one) = &mut self.tcp[tcp] else { return };
        act(one);
        for number in one.send(at) {
            self.offer(FORTH, at, Datagram::Segment { tcp, number }, SEGMENT);
        }
    }

    fn offer(&mut self, way: usize, at: Duration, datagram: Datagram, bytes: usize) -> Offered {
        let offered = self.links[way].offer(at, datagram, bytes);
        assert!(self.links[way].is_within_bounds(), "more waits than the queue holds");
        self.expect_served(way);
        offered
    }

    fn expect_served(&mut self, way: usize) {
        if let Some(next) = self.links[way].next().filter(|next| self.served[way] != Some(*next)) {
            self.served[way] = Some(next);
            self.agenda.put(next, Happening::Served { way });
        }
    }

    fn serve(&mut self, way: usize, at: Duration) {
        match self.links[way].serve(at) {
            None => {}
            Some(Err(dropped)) => {
                if let (FORTH, Datagram::Media(packet)) = (way, dropped) {
                    self.recording.on_dropped(at, packet);
                }
            }
            Some(Ok(served)) => {
                let farther = match &served.packet {
                    Datagram::Media(packet) => self.flows[packet.flow].farther,
                    Datagram::Feedback { flow, .. } => self.flows[*flow].farther,
                    Datagram::Segment { .. } | Datagram::Ack { .. } => Duration::ZERO,
                };
                match &served.packet {
                    Datagram::Media(packet) if way == FORTH => {
                        self.recording.on_served(at, *packet, served.queued);
                    }
                    Datagram::Segment { .. } => self.recording.tcp_bytes += SEGMENT as u64,
                    _ => {}
                }
                self.agenda.put(served.arrives + farther, Happening::Arrival { datagram: served.packet });
            }
        }
        self.served[way] = None;
        self.expect_served(way);
    }

    fn arrive(&mut self, datagram: Datagram, at: Duration) {
        match datagram {
            Datagram::Media(packet) => {
                if let Some(until) = self.receiver_pause(at) {
                    return self.agenda.put(until, Happening::Arrival { datagram });
                }
                self.flows[packet.flow].receiver.on_packet(at, packet.sequence, packet.bytes);
            }
            Datagram::Feedback { flow, bytes } => {
                let now = self.agenda.time();
                self.with_sender(flow, |sender| sender.on_feedback(now, at, &bytes));
            }
            Datagram::Segment { tcp, number } => {
                self.offer(BACK, at, Datagram::Ack { tcp, number }, ACK);
            }
            Datagram::Ack { tcp, number } => self.with_tcp(tcp, |one| one.on_ack(at, number)),
        }
    }

    /// Until when the receivers stand still.
    fn receiver_pause(&self, at: Duration) -> Option<Duration> {
        self.scenario.receiver_pauses.iter().find(|pause| pause.contains(&at)).map(|pause| pause.end)
    }

    fn send_feedback(&mut self, flow: usize, at: Duration) {
        if let Some(until) = self.receiver_pause(at) {
            return self.agenda.put(until + Duration::from_micros(1), Happening::FeedbackDue { flow });
        }
        let (datagrams, next) = self.flows[flow].receiver.feedback(at);
        self.agenda.put(next, Happening::FeedbackDue { flow });
        let in_gap = self.scenario.feedback_gap.is_some_and(|(from, to)| (from..to).contains(&at));
        for bytes in datagrams {
            if !in_gap && !self.feedback_chance.happens(self.scenario.feedback_loss) {
                let len = bytes.len() + FEEDBACK_OVERHEAD;
                self.offer(1 - self.flows[flow].way, at, Datagram::Feedback { flow, bytes }, len);
            }
        }
    }

    fn sample(&mut self, at: Duration) {
        self.agenda.put(at + SAMPLE, Happening::Sample);
        let (line, full) = (self.links[FORTH].line.rate, self.links[FORTH].is_full());
        let senders = self.flows.iter().enumerate().filter(|(_, flow)| flow.way == FORTH);
        for (flow, sender) in senders.filter_map(|(flow, one)| Some((flow, one.sender.as_ref()?))) {
            let thought = sender.estimator.explain();
            self.recording.samples.push(Sample { at, flow, line, thought });
        }
        self.recording.full += if full { SAMPLE } else { Duration::ZERO };
    }
}
