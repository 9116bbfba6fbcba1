//! What came of a scenario, as figures.

use std::ops::Range;
use std::time::Duration;

use weir_rate::BitRate;

use crate::scenario::Scenario;
use crate::sender::{self, Kind, Packet};
use crate::world::Sample;
use weir_stage::link::Offered;

/// The windows of rates that are compared with the line's.
const RISE_WINDOW: Duration = Duration::from_millis(400);
const FALL_WINDOW: Duration = Duration::from_millis(200);
/// So long after each change losses are of the change.
const GRACE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Duration,
    packet: Packet,
    lost: bool,
}

#[derive(Clone, Copy, Debug)]
struct Passed {
    at: Duration,
    packet: Packet,
    queued: Duration,
}

/// Every packet of a run.
#[derive(Debug, Default)]
pub struct Recording {
    sent: Vec<Sent>,
    passed: Vec<Passed>,
    dropped: Vec<Passed>,
    pub samples: Vec<Sample>,
    /// How long the queue was full.
    pub full: Duration,
    /// What TCP-like flows brought through.
    pub tcp_bytes: u64,
    pub layer_changes: u32,
}

/// What a run is judged by. `None` where a scenario has nothing to measure it by.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Of the line's rate or of what is wanted, the share that media used in steady state; the least of the steady
    /// stretches.
    pub utilisation: f64,
    /// In steady state.
    pub queueing_p95: Duration,
    /// From a higher rate to nine tenths of it (or of what is wanted) in media that pass; the longest.
    pub rise: Option<Duration>,
    /// The same for what is said to be sustained.
    pub known: Option<Duration>,
    /// From a lower rate to sending less than it; the longest.
    pub fall: Option<Duration>,
    /// The share of packets lost, but for the first second and the first after each change.
    pub loss: f64,
    /// The same of audio alone.
    pub audio_loss: f64,
    /// Jain's index over the flows in steady state.
    pub fairness: Option<f64>,
    /// The share of padding in what was sent.
    pub padding: f64,
    /// Each minute and flow.
    pub layer_changes: f64,
}

impl Recording {
    pub fn on_sent(&mut self, at: Duration, packet: Packet, offered: Offered) {
        self.sent.push(Sent { at, packet, lost: offered != Offered::Queued });
    }

    pub fn on_served(&mut self, at: Duration, packet: Packet, queued: Duration) {
        self.passed.push(Passed { at, packet, queued });
    }

    pub fn on_dropped(&mut self, at: Duration, packet: Packet) {
        self.dropped.push(Passed { at, packet, queued: Duration::ZERO });
    }

    pub fn figures(&self, scenario: &Scenario) -> Figures {
        let stretches = stretches(scenario);
        let steady = || stretches.iter().filter_map(|stretch| stretch.steady(scenario));
        let utilisation = steady().map(|(span, usable)| self.media(None, &span).ratio(usable));
        let mut queued: Vec<_> = steady()
            .flat_map(|(span, _)| self.passed.iter().filter(move |passed| span.contains(&passed.at)))
            .map(|passed| passed.queued)
            .collect();
        queued.sort_unstable();
        let bytes = |padding: bool| -> usize {
            let sent = self.sent.iter().map(|sent| sent.packet);
            sent.filter(|packet| !padding || packet.kind == Kind::Padding).map(|packet| packet.bytes).sum()
        };
        Figures {
            utilisation: utilisation.fold(f64::INFINITY, f64::min),
            queueing_p95: queued.get(queued.len() * 95 / 100).copied().unwrap_or_default(),
            rise: stretches.iter().filter_map(|stretch| self.rise(stretch)).max(),
            known: stretches.iter().filter_map(|stretch| self.known(scenario, stretch)).max(),
            fall: stretches.iter().filter_map(|stretch| self.fall(stretch)).max(),
            loss: self.loss(&stretches, |_| true),
            audio_loss: self.loss(&stretches, |kind| kind == Kind::Audio),
            fairness: steady()
                .filter_map(|(span, _)| self.fairness(&scenario.sharing(span.start).0, &span))
                .reduce(f64::min),
            padding: bytes(true) as f64 / bytes(false).max(1) as f64,
            layer_changes: f64::from(self.layer_changes)
                / (scenario.lasts.as_secs_f64() / 60.0 * scenario.flows.len() as f64),
        }
    }

    /// What media passed in `span`, of one flow or of all.
    pub fn media(&self, flow: Option<usize>, span: &Range<Duration>) -> BitRate {
        let from = self.passed.partition_point(|passed| passed.at < span.start);
        let to = self.passed.partition_point(|passed| passed.at < span.end);
        let bytes: usize = self.passed[from..to]
            .iter()
            .map(|passed| passed.packet)
            .filter(|packet| packet.kind != Kind::Padding && flow.is_none_or(|flow| flow == packet.flow))
            .map(|packet| packet.bytes)
            .sum();
        BitRate::of(bytes as u64, span.end - span.start)
    }

    /// The longest that a packet waited which passed in `span`.
    pub fn queued(&self, span: &Range<Duration>) -> Duration {
        let from = self.passed.partition_point(|passed| passed.at < span.start);
        let to = self.passed.partition_point(|passed| passed.at < span.end);
        self.passed[from..to].iter().map(|passed| passed.queued).max().unwrap_or_default()
    }

    /// How many packets were lost of those sent in `span`, or dropped in it.
    pub fn lost(&self, span: &Range<Duration>) -> usize {
        let from = self.sent.partition_point(|sent| sent.at < span.start);
        let to = self.sent.partition_point(|sent| sent.at < span.end);
        let dropped = self.dropped.iter().filter(|dropped| span.contains(&dropped.at)).count();
        self.sent[from..to].iter().filter(|sent| sent.lost).count() + dropped
    }

    fn rise(&self, stretch: &Stretch) -> Option<Duration> {
        let Change::Up = stretch.change else { return None };
        let wanted = stretch.usable.scaled(0.9);
        let passes = |at: Duration| self.media(None, &(at - RISE_WINDOW..at)) >= wanted;
        Some(first_of(stretch, RISE_WINDOW, passes))
    }

    fn known(&self, scenario: &Scenario, stretch: &Stretch) -> Option<Duration> {
        let (Change::Up, [flow]) = (stretch.change, &*stretch.flows) else { return None };
        let wanted = stretch.rate.min(sender::wanted(scenario.media)).scaled(0.9);
        let first = self.samples.iter().find(|sample| {
            sample.flow == *flow && sample.at >= stretch.span.start && sample.thought.sustainable >= wanted
        });
        let at = first.map_or(stretch.span.end, |sample| sample.at.min(stretch.span.end));
        Some(at - stretch.span.start)
    }

    fn fall(&self, stretch: &Stretch) -> Option<Duration> {
        let Change::Down = stretch.change else { return None };
        let below = |at: Duration| {
            let from = self.sent.partition_point(|sent| sent.at < at - FALL_WINDOW);
            let to = self.sent.partition_point(|sent| sent.at < at);
            let bytes: usize = self.sent[from..to].iter().map(|sent| sent.packet.bytes).sum();
            BitRate::of(bytes as u64, FALL_WINDOW) < stretch.rate
        };
        Some(first_of(stretch, FALL_WINDOW, below))
    }

    fn loss(&self, stretches: &[Stretch], which: impl Fn(Kind) -> bool) -> f64 {
        let counts = |at: Duration, kind: Kind| {
            which(kind)
                && stretches
                    .iter()
                    .any(|stretch| (stretch.span.start + GRACE..stretch.span.end).contains(&at))
        };
        let sent = self.sent.iter().filter(|sent| counts(sent.at, sent.packet.kind));
        let (mut packets, mut lost) = (0_u32, 0_u32);
        for sent in sent {
            packets += 1;
            lost += u32::from(sent.lost);
        }
        let dropped = self.dropped.iter().filter(|dropped| counts(dropped.at, dropped.packet.kind)).count();
        (f64::from(lost) + dropped as f64) / f64::from(packets.max(1))
    }

    fn fairness(&self, flows: &[usize], span: &Range<Duration>) -> Option<f64> {
        if flows.len() < 2 {
            return None;
        }
        let rates = flows.iter().map(|flow| self.media(Some(*flow), span).bps() as f64);
        let (sum, squares) =
            rates.fold((0.0, 0.0), |(sum, squares), rate| (sum + rate, squares + rate * rate));
        Some(if squares > 0.0 { sum * sum / (flows.len() as f64 * squares) } else { 0.0 })
    }
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Up,
    Down,
    /// Others came, or nothing changed.
    None,
}

/// A time in which the line and those who share it stay the same.
#[derive(Clone, Debug)]
struct Stretch {
    span: Range<Duration>,
    change: Change,
    /// The line's rate, less the share of endless TCP-like flows.
    rate: BitRate,
    /// What media can use of it.
    usable: BitRate,
    flows: Vec<usize>,
}

impl Stretch {
    fn steady(&self, scenario: &Scenario) -> Option<(Range<Duration>, BitRate)> {
        let span = self.span.start + scenario.settles..self.span.end;
        (span.start < span.end && self.usable > BitRate::ZERO).then_some((span, self.usable))
    }
}

fn first_of(stretch: &Stretch, window: Duration, holds: impl Fn(Duration) -> bool) -> Duration {
    let step = Duration::from_millis(20);
    let mut at = stretch.span.start + window;
    while at < stretch.span.end && !holds(at) {
        at += step;
    }
    at - stretch.span.start
}

fn stretches(scenario: &Scenario) -> Vec<Stretch> {
    let line_at = |at: Duration| {
        let changed = scenario.changes.iter().rev().find(|(from, _)| *from <= at);
        changed.map_or(scenario.line, |(_, line)| *line).rate
    };
    let pauses = scenario.flows.iter().flat_map(|flow| &flow.pauses);
    let mut bounds: Vec<_> = scenario.changes.iter().map(|(at, _)| *at).collect();
    bounds.extend(scenario.flows.iter().map(|flow| flow.begins));
    bounds.extend(pauses.flat_map(|pause| [pause.start, pause.end]));
    bounds.extend([scenario.lasts]);
    bounds.sort_unstable();
    bounds.dedup();
    let mut stretches = Vec::<Stretch>::new();
    let mut before: Option<(BitRate, Vec<usize>)> = None;
    for span in bounds.windows(2).map(|pair| pair[0]..pair[1]) {
        let (flows, tcp) = scenario.sharing(span.start);
        if flows.is_empty() {
            continue;
        }
        let line = line_at(span.start);
        let share = line.scaled(flows.len() as f64 / (flows.len() + tcp) as f64);
        let change = match &before {
            None => Change::Up,
            Some((_, others)) if *others != flows => Change::None,
            Some((rate, _)) if line > *rate => Change::Up,
            Some((rate, _)) if line < *rate && line > BitRate::ZERO => Change::Down,
            Some(_) => Change::None,
        };
        before = Some((line, flows.clone()));
        let each = share.scaled(1.0 / flows.len() as f64);
        let usable = sender::usable(scenario.media, each).scaled(flows.len() as f64);
        stretches.push(Stretch { span, change, rate: share, usable, flows });
    }
    stretches
}
