//! A homeserver and clients in virtual time, around the state machine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::leaves::*;

/// What became of a delayed event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Scheduled,
    /// Its delay ran out.
    Fired(Instant),
    Sent(Instant),
    Cancelled(Instant),
}

#[derive(Debug)]
pub struct Event {
    pub timeout: Duration,
    pub fires: Instant,
    pub fate: Fate,
    /// How many calls in a row were answered by failures.
    pub failures: u32,
}

/// How the homeserver takes a call.
pub type Manners = Box<dyn FnMut(&Call, &Event, Instant) -> Option<Answer>>;

pub struct World {
    pub leaves: Leaves,
    pub now: Instant,
    pub start: Instant,
    pub events: BTreeMap<String, Event>,
    /// Calls on their way, with the time of the answer.
    transit: BTreeSet<(Instant, CallId)>,
    answers: BTreeMap<CallId, Answer>,
    pub calls: Vec<(Duration, Call)>,
    pub outputs: Vec<Output>,
    pub latency: Duration,
    pub manners: Manners,
}

pub fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

pub fn participant(name: &str) -> Participant {
    Participant { conference: "room".to_owned(), identity: name.to_owned() }
}

pub fn delegation(name: &str, delay_id: &str, timeout: Duration) -> Delegation {
    Delegation {
        user: format!("@{name}:lab.example"),
        conference: "room".to_owned(),
        identities: vec![name.to_owned()],
        delay_id: delay_id.to_owned(),
        timeout,
        homeserver: Arc::from("https://matrix.lab.example"),
        authentication: Authentication::Never,
    }
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]
    pub fn new(seed: u64) -> Self {
        let start = Instant::now();
        Self {
            leaves: Leaves::new(Limits::default(), seed),
            now: start,
            start,
            events: BTreeMap::new(),
            transit: BTreeSet::new(),
            answers: BTreeMap::new(),
            calls: Vec::new(),
            outputs: Vec::new(),
            latency: Duration::from_millis(100),
            manners: Box::new(|_, _, _| None),
        }
    }

    /// A client schedules its leave and hands it over.
    pub fn delegate(&mut self, name: &str, delay_id: &str, timeout: f64) -> Result<JobId, Refusal> {
        let timeout = seconds(timeout);
        let event = Event { timeout, fires: self.now + timeout, fate: Fate::Scheduled, failures: 0 };
        self.events.entry(delay_id.to_owned()).or_insert(event);
        let id = self.leaves.delegate(self.now, delegation(name, delay_id, timeout));
        self.drain();
        id
    }

    pub fn connect(&mut self, name: &str) {
        self.leaves.handle_connected(self.now, participant(name));
        self.drain();
    }

    pub fn gone(&mut self, name: &str) {
        self.leaves.handle_gone(self.now, &participant(name));
        self.drain();
    }

    pub fn replaced(&mut self, name: &str) {
        self.leaves.handle_replaced(self.now, &participant(name));
        self.drain();
    }

    /// The focus is killed and started again: only what was kept is left.
    pub fn restart(&mut self, seed: u64) {
        let mut kept = BTreeMap::new();
        for output in &self.outputs {
            match output {
                Output::Keep(id, delegation) => drop(kept.insert(*id, (delegation.clone(), false))),
                Output::Leaving(id) => kept.get_mut(id).unwrap().1 = true,
                Output::Dropped(id) | Output::Ended(id, _) => drop(kept.remove(id)),
                Output::Call(_) | Output::Judged(..) => {}
            }
        }
        self.transit.clear();
        self.leaves = Leaves::new(Limits::default(), seed);
        for (id, (delegation, is_leaving)) in kept {
            self.leaves.restore(self.now, id, *delegation, is_leaving);
        }
        self.drain();
    }

    pub fn run(&mut self, duration: f64) {
        let end = self.now + seconds(duration);
        for _ in 0..1_000_000 {
            let arrival = self.transit.first().map(|(at, _)| *at);
            let next = [self.leaves.poll_timeout(), arrival].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                self.fire();
                return;
            };
            self.now = self.now.max(next);
            self.fire();
            if let Some(first) = self.transit.first().copied().filter(|(at, _)| *at <= self.now) {
                self.transit.remove(&first);
                let answer = self.answers.remove(&first.1).unwrap();
                self.leaves.handle_answer(self.now, first.1, answer);
            } else {
                self.leaves.handle_timeout(self.now);
            }
            self.drain();
        }
        panic!("time stands still");
    }

    /// What the homeserver does by itself.
    fn fire(&mut self) {
        for event in self.events.values_mut() {
            if event.fate == Fate::Scheduled && event.fires <= self.now {
                event.fate = Fate::Fired(event.fires);
            }
        }
    }

    /// Calls are carried out at once, and answered after the latency: so the delay never runs longer than we think.
    fn drain(&mut self) {
        while let Some(output) = self.leaves.poll_output() {
            if let Output::Call(call) = &output {
                self.calls.push((self.now - self.start, call.clone()));
                let answer = self.carry_out(call);
                self.answers.insert(call.id, answer);
                self.transit.insert((self.now + self.latency, call.id));
            }
            self.outputs.push(output);
        }
        self.leaves.check_invariants();
    }

    fn carry_out(&mut self, call: &Call) -> Answer {
        let now = self.now;
        let Some(event) = self.events.get_mut(&call.delay_id) else { return Answer::Gone };
        if let Some(answer) = (self.manners)(call, event, now) {
            event.failures += 1;
            return answer;
        }
        event.failures = 0;
        if event.fate != Fate::Scheduled {
            return Answer::Gone;
        }
        match call.action {
            Action::Restart => event.fires = now + event.timeout,
            Action::Send => event.fate = Fate::Sent(now),
            Action::Cancel => event.fate = Fate::Cancelled(now),
        }
        Answer::Done
    }

    pub fn fate(&self, delay_id: &str) -> Fate {
        self.events[delay_id].fate
    }

    /// When a delayed event was sent, since the beginning.
    pub fn sent(&self, delay_id: &str) -> f64 {
        match self.fate(delay_id) {
            Fate::Sent(at) => (at - self.start).as_secs_f64(),
            fate => panic!("{delay_id} was not sent: {fate:?}"),
        }
    }

    /// When calls of a kind were made, since the beginning.
    pub fn times(&self, action: Action) -> Vec<f64> {
        let of_kind = self.calls.iter().filter(|(_, call)| call.action == action);
        of_kind.map(|(at, _)| at.as_secs_f64()).collect()
    }

    pub fn outcomes(&self) -> Vec<Outcome> {
        let outcome = |output: &Output| match output {
            Output::Ended(_, outcome) => Some(*outcome),
            _ => None,
        };
        self.outputs.iter().filter_map(outcome).collect()
    }

    pub fn verdicts(&self) -> Vec<Verdict> {
        let verdict = |output: &Output| match output {
            Output::Judged(_, verdict) => Some(*verdict),
            _ => None,
        };
        self.outputs.iter().filter_map(verdict).collect()
    }
}

impl Leaves {
    /// No job is in limbo: each has a timer, a place in a line that will move, or a call under way.
    pub fn check_invariants(&self) {
        let mut stages = [0; Stage::ALL.len()];
        for (id, job) in &self.jobs {
            stages[job.stage as usize] += 1;
            let line = &self.lines[&job.delegation.homeserver];
            match job.next {
                Next::At(at) => assert!(self.timers.contains(&(at, Timer::Due(*id))), "{id:?} has no timer"),
                Next::InLine(deadline) => {
                    assert!(line.waiting.contains(&(deadline, *id)), "{id:?} stands in no line");
                    let homeserver = &job.delegation.homeserver;
                    let is_asking = self
                        .calls
                        .iter()
                        .any(|(_, call): (&CallId, &InFlight)| call.homeserver == *homeserver);
                    let pause =
                        line.paused_until.map(|until| (until, Timer::PauseEnds(Arc::clone(homeserver))));
                    let moves = is_asking
                        || self.ready.contains(homeserver)
                        || pause.is_some_and(|timer| self.timers.contains(&timer));
                    assert!(moves, "the line of {id:?} stands still");
                }
                Next::Asked => {
                    assert!(self.calls.iter().any(|(_, call)| call.job == *id), "{id:?} is not being asked");
                }
            }
            if let Some(at) = job.stage_ends {
                assert!(self.timers.contains(&(at, Timer::StageEnds(*id))), "a stage does not end");
            } else {
                assert_eq!(job.stage, Stage::Held, "only who is there may stay for ever");
            }
        }
        assert_eq!(stages, self.census.stages);
        assert_eq!(self.lines.values().map(|line| line.jobs).sum::<usize>(), self.jobs.len());
    }

    /// Whether nothing is left of anybody who went.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.watched.is_empty() && self.census.is_empty()
    }
}
