//! What an operator sees of delegated leaves.

use std::time::Duration;

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

use super::{Action, Answer, Failure, Leaves, Outcome, Stage};

pub(super) struct Metrics {
    jobs: IntGaugeVec,
    ended: IntCounterVec,
    calls: IntCounterVec,
}

const OUTCOMES: [Outcome; 6] = [
    Outcome::Sent,
    Outcome::Gone,
    Outcome::Superseded,
    Outcome::LeftToHomeserver,
    Outcome::Refused,
    Outcome::Unsupported,
];
const ACTIONS: [Action; 3] = [Action::Restart, Action::Send, Action::Cancel];
/// One answer of each name.
const ANSWERS: [Answer; 10] = [
    Answer::Done,
    Answer::Gone,
    Answer::Limited(Duration::ZERO),
    Answer::Unrecognised,
    Answer::Unauthorised,
    Answer::Refused(0),
    Answer::Failed(Failure::Connection),
    Answer::Failed(Failure::Timeout),
    Answer::Failed(Failure::Status),
    Answer::Failed(Failure::Forbidden),
];

fn name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Sent => "sent",
        Outcome::Gone => "gone",
        Outcome::Superseded => "superseded",
        Outcome::LeftToHomeserver => "left_to_homeserver",
        Outcome::Refused => "refused",
        Outcome::Unsupported => "unsupported",
    }
}

impl Metrics {
    /// All there is to count is there at 0 from the start: a rate needs a first value.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let jobs = IntGaugeVec::new(
            Opts::new(
                "weir_delegated_leaves",
                "Leaves that clients have delegated, by stage: awaited (the client is not there yet), held, leaving, superseded.",
            ),
            &["stage"],
        )?;
        let ended = IntCounterVec::new(
            Opts::new(
                "weir_delegated_leaves_ended_total",
                "Delegated leaves that ended, by outcome: sent, gone (fired or cancelled elsewhere), superseded (by a newer one), left_to_homeserver (it could not be reached), refused, unsupported.",
            ),
            &["outcome"],
        )?;
        let calls = IntCounterVec::new(
            Opts::new(
                "weir_delayed_event_calls_total",
                "Calls to homeservers about delayed events, by action and what came of them.",
            ),
            &["action", "result"],
        )?;
        registry.register(Box::new(jobs.clone()))?;
        registry.register(Box::new(ended.clone()))?;
        registry.register(Box::new(calls.clone()))?;
        for outcome in OUTCOMES {
            ended.with_label_values(&[name(outcome)]);
        }
        for action in ACTIONS {
            for answer in ANSWERS {
                calls.with_label_values(&[action.name(), answer.name()]);
            }
        }
        Ok(Self { jobs, ended, calls })
    }

    pub fn count(&self, leaves: &Leaves) {
        for stage in Stage::ALL {
            let count = i64::try_from(leaves.count(stage)).unwrap_or(i64::MAX);
            self.jobs.with_label_values(&[stage.name()]).set(count);
        }
    }

    pub fn ended(&self, outcome: Outcome) {
        self.ended.with_label_values(&[name(outcome)]).inc();
    }

    pub fn called(&self, action: Action, answer: Answer) {
        self.calls.with_label_values(&[action.name(), answer.name()]).inc();
    }
}
