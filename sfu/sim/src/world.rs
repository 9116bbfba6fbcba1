//! A scenario at work: flows over one line, feedback back, in virtual time.

use std::time::Duration;

use weir_rate::{BitRate, Explanation};

use crate::agenda::Agenda;
use crate::chance::Chance;
use crate::encoder::FRAME_INTERVAL;
use crate::figures::Recording;
use crate::link::{Line, Link, Offered};
use crate::receiver::Receiver;
use crate::scenario::Scenario;
use crate::sender::{AUDIO_INTERVAL, Packet, Sender};

/// Samples for pictures and traces.
const SAMPLE: Duration = Duration::from_millis(100);

enum Happening {
    Begin { flow: usize },
    Audio { flow: usize },
    Frame { flow: usize },
    Wake { flow: usize },
    Served,
    Arrival { packet: Packet },
    FeedbackDue { flow: usize },
    Feedback { flow: usize, datagram: Vec<u8> },
    Change { line: Line },
    Sample,
}

struct Flow {
    sender: Option<Sender>,
    receiver: Receiver,
    wake: Option<Duration>,
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
    link: Link<Packet>,
    flows: Vec<Flow>,
    feedback_chance: Chance,
    served: Option<Duration>,
    recording: Recording,
}

/// Plays `scenario` with `seed`.
pub fn play(scenario: &Scenario, seed: u64) -> Recording {
    let mut world = World {
        scenario,
        seed,
        agenda: Agenda::new(),
        link: Link::new(scenario.line, Chance::new(seed, 1)),
        flows: Vec::new(),
        feedback_chance: Chance::new(seed, 2),
        served: None,
        recording: Recording::default(),
    };
    for (flow, begin) in scenario.flows.iter().enumerate() {
        world.flows.push(Flow { sender: None, receiver: Receiver::default(), wake: None });
        world.agenda.put(*begin, Happening::Begin { flow });
    }
    for (at, line) in &scenario.changes {
        world.agenda.put(*at, Happening::Change { line: *line });
    }
    world.agenda.put(SAMPLE, Happening::Sample);
    while let Some(happening) = world.agenda.next(scenario.lasts) {
        world.handle(happening);
    }
    world.recording
}

impl World<'_> {
    fn handle(&mut self, happening: Happening) {
        let (now, at) = (self.agenda.instant(), self.agenda.now());
        match happening {
            Happening::Begin { flow } => {
                let Scenario { most, key_frames_every, .. } = *self.scenario;
                self.flows[flow].sender = Some(Sender::new(flow, now, self.seed, most, key_frames_every));
                // Cameras and microphones do not tick together.
                let offset = Duration::from_millis(7) * flow as u32;
                self.agenda.put(at + offset, Happening::Audio { flow });
                self.agenda.put(at + offset, Happening::Frame { flow });
                let first = self.flows[flow].receiver.first_feedback();
                self.agenda.put(at + first, Happening::FeedbackDue { flow });
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
            Happening::Served => self.serve(at),
            Happening::Arrival { packet } => {
                self.flows[packet.flow].receiver.on_packet(at, packet.sequence, packet.bytes);
            }
            Happening::FeedbackDue { flow } => self.send_feedback(flow, at),
            Happening::Feedback { flow, datagram } => {
                self.with_sender(flow, |sender| sender.on_feedback(now, at, &datagram));
            }
            Happening::Change { line } => {
                self.link.change(at, line);
                self.expect_served();
            }
            Happening::Sample => self.sample(at),
        }
    }

    fn with_sender(&mut self, flow: usize, act: impl FnOnce(&mut Sender)) {
        let (now, at) = (self.agenda.instant(), self.agenda.now());
        let Some(sender) = &mut self.flows[flow].sender else { return };
        act(sender);
        let packets = std::mem::take(&mut sender.out);
        let wake = sender.next(now).map(|wake| self.agenda.since_begin(wake));
        for packet in packets {
            let offered = self.link.offer(at, packet, packet.bytes);
            self.recording.on_sent(at, packet, offered);
            debug_assert!(packet.sent == at || offered == Offered::Lost, "packets leave when they are sent");
        }
        self.expect_served();
        // A time that passed without effect comes again only with the next thing that happens.
        if let Some(wake) =
            wake.filter(|wake| *wake > at && self.flows[flow].wake.is_none_or(|set| *wake < set))
        {
            self.flows[flow].wake = Some(wake);
            self.agenda.put(wake, Happening::Wake { flow });
        }
    }

    fn expect_served(&mut self) {
        if let Some(next) = self.link.next().filter(|next| self.served != Some(*next)) {
            self.served = Some(next);
            self.agenda.put(next, Happening::Served);
        }
    }

    fn serve(&mut self, at: Duration) {
        match self.link.serve(at) {
            None => {}
            Some(Err(packet)) => self.recording.on_dropped(at, packet),
            Some(Ok(served)) => {
                self.recording.on_served(at, served.packet, served.queued);
                self.agenda.put(served.arrives, Happening::Arrival { packet: served.packet });
            }
        }
        self.served = None;
        self.expect_served();
    }

    fn send_feedback(&mut self, flow: usize, at: Duration) {
        let (datagrams, next) = self.flows[flow].receiver.feedback(at);
        self.agenda.put(next, Happening::FeedbackDue { flow });
        let in_gap = self.scenario.feedback_gap.is_some_and(|(from, to)| (from..to).contains(&at));
        for datagram in datagrams {
            if !in_gap && !self.feedback_chance.happens(self.scenario.feedback_loss) {
                self.agenda.put(at + self.link.line.delay, Happening::Feedback { flow, datagram });
            }
        }
    }

    fn sample(&mut self, at: Duration) {
        self.agenda.put(at + SAMPLE, Happening::Sample);
        let (line, full) = (self.link.line.rate, self.link.is_full());
        let senders = self.flows.iter().enumerate();
        for (flow, sender) in senders.filter_map(|(flow, one)| Some((flow, one.sender.as_ref()?))) {
            let thought = sender.estimator.explain();
            self.recording.samples.push(Sample { at, flow, line, thought });
        }
        self.recording.full += if full { SAMPLE } else { Duration::ZERO };
    }
}
