//! What came of a scenario, as figures.

use std::ops::Range;
use std::time::Duration;

use weir_rate::BitRate;

use crate::link::Offered;
use crate::scenario::Scenario;
use crate::sender::{Kind, Packet, on_the_line};
use crate::world::Sample;

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
            fall: stretches.iter().filter_map(|stretch| self.fall(stretch)).max(),
            loss: self.loss(&stretches, |_| true),
            audio_loss: self.loss(&stretches, |kind| kind == Kind::Audio),
            fairness: (scenario.flows.len() > 1)
                .then(|| steady().map(|(span, _)| self.fairness(scenario, &span)).fold(1.0, f64::min)),
            padding: bytes(true) as f64 / bytes(false).max(1) as f64,
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

    fn rise(&self, stretch: &Stretch) -> Option<Duration> {
        let Change::Up = stretch.change else { return None };
        let wanted = stretch.usable.scaled(0.9);
        let passes = |at: Duration| self.media(None, &(at - RISE_WINDOW..at)) >= wanted;
        Some(first_of(stretch, RISE_WINDOW, passes))
    }

    fn fall(&self, stretch: &Stretch) -> Option<Duration> {
        let Change::Down = stretch.change else { return None };
        let below = |at: Duration| {
            let from = self.sent.partition_point(|sent| sent.at < at - FALL_WINDOW);
            let to = self.sent.partition_point(|sent| sent.at < at);
            let bytes: usize = self.sent[from..to].iter().map(|sent| sent.packet.bytes).sum();
            BitRate::of(bytes as u64, FALL_WINDOW) < stretch.usable
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

    fn fairness(&self, scenario: &Scenario, span: &Range<Duration>) -> f64 {
        let rates = (0..scenario.flows.len()).map(|flow| self.media(Some(flow), span).bps() as f64);
        let (sum, squares) =
            rates.fold((0.0, 0.0), |(sum, squares), rate| (sum + rate, squares + rate * rate));
        if squares > 0.0 { sum * sum / (scenario.flows.len() as f64 * squares) } else { 0.0 }
    }
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Up,
    Down,
    /// Others came, or nothing changed.
    None,
}

/// A time in which the line and the number of flows stay the same.
#[derive(Clone, Debug)]
struct Stretch {
    span: Range<Duration>,
    change: Change,
    /// The line's rate, or what all want if that is less.
    usable: BitRate,
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
    let changes = scenario.changes.iter().map(|(at, line)| (*at, Some(*line)));
    let mut events: Vec<_> = changes.chain(scenario.flows.iter().map(|at| (*at, None))).collect();
    events.sort_by_key(|(at, _)| *at);
    let (mut stretches, mut line, mut flows) = (Vec::<Stretch>::new(), scenario.line, 0_u32);
    let ends = events.iter().skip(1).map(|(at, _)| *at).chain([scenario.lasts]).collect::<Vec<_>>();
    for ((at, changed), end) in events.into_iter().zip(ends) {
        let before = if flows == 0 { BitRate::ZERO } else { line.rate };
        let came = changed.is_none();
        flows += u32::from(came);
        line = changed.unwrap_or(line);
        let change = match line.rate.cmp(&before) {
            _ if came && flows > 1 => Change::None,
            std::cmp::Ordering::Greater => Change::Up,
            std::cmp::Ordering::Less if line.rate > BitRate::ZERO => Change::Down,
            _ => Change::None,
        };
        if at < end {
            let usable = line.rate.min(on_the_line(scenario.most).scaled(f64::from(flows)));
            stretches.push(Stretch { span: at..end, change, usable });
        }
    }
    stretches
}
