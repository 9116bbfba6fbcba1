//! Delegated leaves: the focus tells the homeserver who is still in the call (MSC4140, MSC4195).
//!
//! A client schedules its own leave as a delayed event and hands its id over. While the client is connected the focus
//! restarts the delay; when it is gone, the focus has the event sent. So nobody stays in a call as a ghost, and a
//! client whose page sleeps is not taken for gone.
//!
//! [`Leaves`] is the state machine. It is told of delegations, of who is connected and of what homeservers answered,
//! and says which calls to make and which jobs to keep over a restart. Drive it so: any `handle_…`, then
//! [`Leaves::poll_output`] until it is empty, then [`Leaves::poll_timeout`].
//!
//! [`Delegations`] is its shell: it owns the clock, the calls and the file.
//!
//! Every job is in one of three places, so that none can be forgotten: it waits for its time, it stands in its
//! homeserver's [`line`], or it is being asked. Whatever fails, the homeserver sends the event by itself when the
//! delay runs out; that is why nothing here is retried for ever.

mod api;
mod door;
mod job;
mod keep;
mod limits;
mod line;
mod locate;
mod metrics;
mod run;
#[cfg(test)]
mod tests;
mod web;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use api::{Action, Answer, Dialect, Failure, Form};
use indexmap::IndexSet;
pub use job::{Authentication, Delegation, Participant, Stage};
use job::{Job, Next};
pub use keep::TABLES;
use limits::{Census, check};
pub use limits::{Limits, Refusal};
use line::Line;
pub use locate::{Allowing, Locator, Reply, Replying, Request, Web};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
pub use run::{Credential, Delegate, DelegateError, Delegations, Presence, StartError, Until};
pub use web::GuardedWeb;

/// A client that nobody has seen by then will not come. Slow joins take some ten seconds; with the homeserver's own
/// time it stays below the half minute that a ghost may be seen.
pub const CONNECT_TIME: Duration = Duration::from_secs(25);
/// How long after a restart clients may take to come back. They try again within seconds, for about this long.
pub const RETURN_TIME: Duration = Duration::from_secs(20);
/// When a leave should be out. It goes before restarts that have longer.
const SEND_WITHIN: Duration = Duration::from_secs(2);
/// Beyond the end of the delay the homeserver has sent the event, or will when it is back: asking on is idle.
const AFTER_THE_END: Duration = Duration::from_secs(30);
/// For somebody who is connected it is asked longer, since the homeserver may have been away.
const ABANDON: Duration = Duration::from_secs(600);
/// The first wait after a failure, doubled with each.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
/// The longest wait, so that a homeserver that comes back is asked soon.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// No failure is answered faster than this, however near the end of the delay is.
const SHORTEST_BACKOFF: Duration = Duration::from_millis(250);
/// How long an answer is waited for, depending on how much time there is.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);
const MOST_PATIENCE: Duration = Duration::from_secs(5);
/// A homeserver that asks for a longer pause is asked again then all the same.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(u64);

/// What a homeserver is to be asked.
#[derive(Clone, Debug)]
pub struct Call {
    pub id: CallId,
    /// The address of its client-server API, without a slash at the end.
    pub homeserver: Arc<str>,
    pub delay_id: String,
    pub action: Action,
    pub dialect: Dialect,
    /// Whose event it is, for an authenticated call.
    pub user: String,
    /// How long to wait for the answer: so short that it can be asked again in time.
    pub patience: Duration,
}

#[derive(Clone, Debug)]
pub enum Output {
    Call(Call),
    /// To be kept over a restart.
    Keep(JobId, Box<Delegation>),
    /// It is kept that this one is to be sent, come what may.
    Leaving(JobId),
    /// The homeserver has answered the first time, so whoever delegated can be told.
    Judged(JobId, Verdict),
    /// No longer to be kept; its homeserver is still asked to forget the event.
    Dropped(JobId),
    /// No longer to be kept.
    Ended(JobId, Outcome),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Manageable,
    /// There is no such delayed event, or no longer.
    Unknown,
    /// The homeserver does not let us manage it.
    Unsupported,
}

/// How a job ended. Metrics are labelled with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Sent,
    /// It fired by itself, or somebody else sent or cancelled it.
    Gone,
    /// Another of the same participant took its place.
    Superseded,
    /// The delay ran out while the homeserver could not be reached: it sends the event by itself.
    LeftToHomeserver,
    /// The homeserver refused to send it.
    Refused,
    /// The homeserver does not let us manage it.
    Unsupported,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Due(JobId),
    StageEnds(JobId),
    PauseEnds(Arc<str>),
}

#[derive(Debug)]
struct InFlight {
    job: JobId,
    homeserver: Arc<str>,
    action: Action,
    dialect: Dialect,
    asked: Instant,
}

/// What is known of one participant: an entry exists while they are connected or watched.
#[derive(Default, Debug)]
struct Watch {
    is_connected: bool,
    jobs: BTreeSet<JobId>,
}

pub struct Leaves {
    limits: Limits,
    rng: SmallRng,
    next_job: u64,
    next_call: u64,
    /// Bounded by [`Limits::jobs`].
    jobs: BTreeMap<JobId, Job>,
    /// Bounded by the jobs, and by who is connected.
    watched: HashMap<Participant, Watch>,
    /// One for each homeserver with jobs.
    lines: BTreeMap<Arc<str>, Line>,
    /// Lines that could ask, were there not [`Limits::calls`] under way.
    ready: IndexSet<Arc<str>>,
    calls: HashMap<CallId, InFlight>,
    /// Two for each job, and one for each line.
    timers: BTreeSet<(Instant, Timer)>,
    outputs: VecDeque<Output>,
    census: Census,
}

impl Leaves {
    pub fn new(limits: Limits, seed: u64) -> Self {
        Self {
            limits,
            rng: SmallRng::seed_from_u64(seed),
            next_job: 0,
            next_call: 0,
            jobs: BTreeMap::new(),
            watched: HashMap::new(),
            lines: BTreeMap::new(),
            ready: IndexSet::new(),
            calls: HashMap::new(),
            timers: BTreeSet::new(),
            outputs: VecDeque::new(),
            census: Census::default(),
        }
    }

    /// Takes a job on. It is restarted at once, which shows whether the homeserver lets us.
    pub fn delegate(&mut self, now: Instant, delegation: Delegation) -> Result<JobId, Refusal> {
        check(&delegation)?;
        let former = self.job_of(&delegation);
        if let Some(id) = former
            && self.jobs.get(&id).is_some_and(|job| job.delegation.is_same_event(&delegation))
        {
            self.renew(now, id, delegation);
            return Ok(id);
        }
        self.census.admit(&self.limits, &delegation)?;
        if let Some(former) = former {
            self.supersede(now, former);
        }
        let id = JobId(self.next_job);
        self.outputs.push_back(Output::Keep(id, Box::new(delegation.clone())));
        self.insert(now, id, delegation, now + CONNECT_TIME);
        self.flush(now);
        Ok(id)
    }

    /// Takes up a job that was kept. Its client is waited for, unless it had left already.
    pub fn restore(&mut self, now: Instant, id: JobId, delegation: Delegation, is_leaving: bool) {
        self.census.add(&delegation);
        self.insert(now, id, delegation, now + RETURN_TIME);
        if is_leaving {
            self.leave(now, id);
        }
        self.flush(now);
    }

    pub fn handle_connected(&mut self, now: Instant, participant: Participant) {
        let watch = self.watched.entry(participant).or_default();
        watch.is_connected = true;
        for id in watch.jobs.clone() {
            self.hold(now, id);
        }
        self.flush(now);
    }

    /// A participant is gone for good: it left, was removed, or did not come back in time.
    pub fn handle_gone(&mut self, now: Instant, participant: &Participant) {
        for id in self.let_go(participant) {
            self.leave(now, id);
        }
        self.flush(now);
    }

    /// The same client joins anew, and its former session went for that: it will be connected soon.
    pub fn handle_replaced(&mut self, now: Instant, participant: &Participant) {
        for id in self.let_go(participant) {
            self.set_stage(id, Stage::Awaited);
            self.end_stage_at(id, Some(now + CONNECT_TIME));
        }
        self.flush(now);
    }

    /// The jobs that a participant held alone.
    fn let_go(&mut self, participant: &Participant) -> Vec<JobId> {
        let Some(watch) = self.watched.get_mut(participant) else { return Vec::new() };
        watch.is_connected = false;
        let jobs = watch.jobs.clone();
        if jobs.is_empty() {
            self.watched.remove(participant);
        }
        let is_held = |id: &JobId| self.jobs.get(id).is_some_and(|job| job.stage == Stage::Held);
        jobs.into_iter().filter(|id| is_held(id) && !self.is_connected(*id)).collect()
    }

    pub fn handle_answer(&mut self, now: Instant, call: CallId, answer: Answer) {
        let Some(call) = self.calls.remove(&call) else { return };
        if let Some(line) = self.lines.get_mut(&call.homeserver) {
            line.note(now, &answer);
            if let Some(until) = line.paused_until {
                self.timers.insert((until, Timer::PauseEnds(Arc::clone(&call.homeserver))));
            }
        }
        self.judge(now, &call, answer);
        self.drop_idle_line(&call.homeserver);
        self.ready.insert(Arc::clone(&call.homeserver));
        self.flush(now);
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, _)) = self.timers.first()
            && *at <= now
        {
            let Some((at, timer)) = self.timers.pop_first() else { break };
            match timer {
                Timer::Due(id) => self.queue_up(now, at, id),
                Timer::StageEnds(id) => self.end_stage(now, at, id),
                Timer::PauseEnds(homeserver) => {
                    self.ready.insert(homeserver);
                }
            }
        }
        self.flush(now);
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// How many jobs are in a stage.
    pub fn count(&self, stage: Stage) -> usize {
        self.census.stages[stage as usize]
    }

    fn insert(&mut self, now: Instant, id: JobId, delegation: Delegation, awaited_until: Instant) {
        self.next_job = self.next_job.max(id.0 + 1);
        for participant in delegation.participants() {
            self.watched.entry(participant).or_default().jobs.insert(id);
        }
        self.lines.entry(Arc::clone(&delegation.homeserver)).or_default().jobs += 1;
        let expires = now + delegation.timeout;
        let job = Job::new(delegation, now, expires);
        self.census.stages[job.stage as usize] += 1;
        self.timers.insert((now, Timer::Due(id)));
        self.jobs.insert(id, job);
        self.end_stage_at(id, Some(awaited_until));
        if self.is_connected(id) {
            self.hold(now, id);
        }
    }

    /// The same event once more: its client made sure. A delay is fixed when an event is scheduled, so if two are said
    /// the shorter is safe.
    fn renew(&mut self, now: Instant, id: JobId, delegation: Delegation) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.delegation.timeout = job.delegation.timeout.min(delegation.timeout);
        job.is_judged = false;
        self.outputs.push_back(Output::Keep(id, Box::new(job.delegation.clone())));
        if matches!(job.stage, Stage::Awaited | Stage::Leaving) && !self.is_connected(id) {
            self.set_stage(id, Stage::Awaited);
            self.end_stage_at(id, Some(now + CONNECT_TIME));
        }
        self.hurry(now, id);
        self.flush(now);
    }

    /// The client is there: from now on only its going ends the job.
    fn hold(&mut self, now: Instant, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        match job.stage {
            Stage::Awaited => {}
            // It came back before its leave was out.
            Stage::Leaving => self.outputs.push_back(Output::Keep(id, Box::new(job.delegation.clone()))),
            Stage::Held | Stage::Superseded => return,
        }
        self.set_stage(id, Stage::Held);
        self.end_stage_at(id, None);
        self.hurry(now, id);
    }

    fn leave(&mut self, now: Instant, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        let gives_up = job.expires.max(now) + AFTER_THE_END;
        self.set_stage(id, Stage::Leaving);
        self.end_stage_at(id, Some(gives_up));
        self.outputs.push_back(Output::Leaving(id));
        self.hurry(now, id);
    }

    /// The newer event does what this one was for. Left alone it would fire some time, and end the newer membership.
    fn supersede(&mut self, now: Instant, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        let gives_up = job.expires.max(now) + AFTER_THE_END;
        for participant in job.delegation.participants() {
            self.unwatch(&participant, id);
        }
        self.outputs.push_back(Output::Dropped(id));
        self.set_stage(id, Stage::Superseded);
        self.end_stage_at(id, Some(gives_up));
        self.hurry(now, id);
    }

    /// The time of a stage is over.
    fn end_stage(&mut self, now: Instant, at: Instant, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.stage_ends != Some(at) {
            return;
        }
        job.stage_ends = None;
        match job.stage {
            Stage::Awaited => self.leave(now, id),
            Stage::Held => {}
            Stage::Leaving | Stage::Superseded => self.end(id, Outcome::LeftToHomeserver),
        }
    }

    /// What was to be done later is to be done now, but for what is being asked.
    fn hurry(&mut self, now: Instant, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        match job.next {
            Next::At(at) => {
                self.timers.remove(&(at, Timer::Due(id)));
                job.failures = 0;
            }
            Next::InLine(deadline) => {
                if let Some(line) = self.lines.get_mut(&job.delegation.homeserver) {
                    line.waiting.remove(&(deadline, id));
                }
            }
            Next::Asked => {
                job.is_changed = true;
                return;
            }
        }
        self.plan(id, now);
        self.queue_up(now, now, id);
    }

    fn plan(&mut self, id: JobId, at: Instant) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.next = Next::At(at);
        self.timers.insert((at, Timer::Due(id)));
    }

    /// Its time has come: it stands in its homeserver's line, those first that have least time left.
    fn queue_up(&mut self, now: Instant, at: Instant, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.next != Next::At(at) {
            return;
        }
        self.timers.remove(&(at, Timer::Due(id)));
        let deadline = match job.stage.action() {
            Action::Restart | Action::Cancel => job.expires,
            Action::Send => job.expires.min(now + SEND_WITHIN),
        };
        job.next = Next::InLine(deadline);
        let homeserver = Arc::clone(&job.delegation.homeserver);
        self.lines.entry(Arc::clone(&homeserver)).or_default().waiting.insert((deadline, id));
        self.ready.insert(homeserver);
    }

    /// Asks as much as homeservers and we can bear, line by line.
    fn flush(&mut self, now: Instant) {
        while self.calls.len() < self.limits.calls
            && let Some(homeserver) = self.ready.shift_remove_index(0)
        {
            let Some(id) = self.lines.get_mut(&homeserver).and_then(|line| line.pop(now)) else { continue };
            self.ask(now, id);
            self.ready.insert(homeserver); // at the end, so that nobody's many jobs go before another's one
        }
    }

    fn ask(&mut self, now: Instant, job_id: JobId) {
        let (Some(job), id) = (self.jobs.get_mut(&job_id), CallId(self.next_call)) else { return };
        self.next_call += 1;
        job.next = Next::Asked;
        job.is_changed = false;
        let delegation = &job.delegation;
        let dialect = self.lines.get(&delegation.homeserver).map(|line| line.dialect).unwrap_or_default();
        let is_authenticated = match delegation.authentication {
            Authentication::Never => false,
            Authentication::OnDemand => dialect.is_authenticated,
            Authentication::Always => true,
        };
        let dialect = Dialect { is_authenticated, ..dialect };
        let (homeserver, action) = (Arc::clone(&delegation.homeserver), job.stage.action());
        let rest = job.expires.saturating_duration_since(now);
        self.outputs.push_back(Output::Call(Call {
            id,
            homeserver: Arc::clone(&homeserver),
            delay_id: delegation.delay_id.clone(),
            action,
            dialect,
            user: delegation.user.clone(),
            patience: (rest / 2).clamp(LEAST_PATIENCE, MOST_PATIENCE),
        }));
        self.calls.insert(id, InFlight { job: job_id, homeserver, action, dialect, asked: now });
    }

    fn judge(&mut self, now: Instant, call: &InFlight, answer: Answer) {
        let id = call.job;
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.next == Next::Asked) else { return };
        match answer {
            Answer::Done if call.action == Action::Restart => {
                job.restarted(call.asked);
                let next =
                    if job.is_changed { now } else { call.asked + job.delegation.timeout.mul_f64(0.8) };
                self.verdict(id, Verdict::Manageable);
                self.plan(id, next.max(now));
            }
            Answer::Done if call.action == Action::Cancel => self.end(id, Outcome::Superseded),
            Answer::Done => self.end(id, Outcome::Sent),
            Answer::Gone => {
                self.verdict(id, Verdict::Unknown);
                self.end(id, Outcome::Gone);
            }
            Answer::Limited(_) => self.plan(id, now), // the line waits, and everybody in it
            Answer::Unrecognised | Answer::Unauthorised => self.try_another(now, call, &answer),
            Answer::Refused(_) if call.action != Action::Restart => self.end(id, Outcome::Refused),
            Answer::Refused(_) | Answer::Failed(_) => self.retry(now, id),
        }
    }

    /// The homeserver speaks another form of the interface, or wants to know who asks.
    fn try_another(&mut self, now: Instant, call: &InFlight, answer: &Answer) {
        let Some(job) = self.jobs.get_mut(&call.job) else { return };
        let may_authenticate = job.delegation.authentication != Authentication::Never;
        let next = call.dialect.next(*answer == Answer::Unauthorised, may_authenticate);
        job.dialects_tried += 1;
        match next.filter(|_| job.dialects_tried <= Dialect::COUNT) {
            Some(next) => {
                if let Some(line) = self.lines.get_mut(&call.homeserver) {
                    line.dialect = next;
                }
                self.plan(call.job, now);
            }
            None => {
                let Some(line) = self.lines.get_mut(&call.homeserver) else { return };
                line.dialect = Dialect::default();
                // A proxy whose homeserver is restarted answers that it knows no such path.
                if line.has_understood && *answer == Answer::Unrecognised {
                    job.dialects_tried = 0;
                    return self.retry(now, call.job);
                }
                self.verdict(call.job, Verdict::Unsupported);
                self.end(call.job, Outcome::Unsupported);
            }
        }
    }

    fn retry(&mut self, now: Instant, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if now > job.expires + ABANDON {
            return self.end(id, Outcome::LeftToHomeserver);
        }
        let doubled = FIRST_BACKOFF.saturating_mul(1 << job.failures.min(10));
        job.failures = job.failures.saturating_add(1);
        // Twice more before the homeserver sends it by itself, if there is time for it.
        let half_of_the_rest = job.expires.saturating_duration_since(now) / 2;
        let most = match half_of_the_rest.is_zero() {
            true => LONGEST_BACKOFF,
            false => LONGEST_BACKOFF.min(half_of_the_rest),
        };
        let jitter = self.rng.random_range(0.5..=1.0);
        let wait = doubled.min(most).mul_f64(jitter).max(SHORTEST_BACKOFF);
        let wait = if job.is_changed { Duration::ZERO } else { wait };
        self.plan(id, now + wait);
    }

    fn verdict(&mut self, id: JobId, verdict: Verdict) {
        if let Some(job) = self.jobs.get_mut(&id)
            && !std::mem::replace(&mut job.is_judged, true)
        {
            self.outputs.push_back(Output::Judged(id, verdict));
        }
    }

    fn end(&mut self, id: JobId, outcome: Outcome) {
        let Some(job) = self.jobs.remove(&id) else { return };
        for participant in job.delegation.participants() {
            self.unwatch(&participant, id);
        }
        self.census.remove(&job.delegation, job.stage);
        if let Some(at) = job.stage_ends {
            self.timers.remove(&(at, Timer::StageEnds(id)));
        }
        if let Next::At(at) = job.next {
            self.timers.remove(&(at, Timer::Due(id)));
        }
        if let Some(line) = self.lines.get_mut(&job.delegation.homeserver) {
            line.jobs -= 1;
            if let Next::InLine(deadline) = job.next {
                line.waiting.remove(&(deadline, id));
            }
        }
        self.drop_idle_line(&job.delegation.homeserver);
        self.outputs.push_back(Output::Ended(id, outcome));
    }

    fn unwatch(&mut self, participant: &Participant, id: JobId) {
        if let Some(watch) = self.watched.get_mut(participant) {
            watch.jobs.remove(&id);
            if watch.jobs.is_empty() && !watch.is_connected {
                self.watched.remove(participant);
            }
        }
    }

    fn drop_idle_line(&mut self, homeserver: &Arc<str>) {
        let Some(line) = self.lines.get(homeserver).filter(|line| line.is_idle()) else { return };
        if let Some(until) = line.paused_until {
            self.timers.remove(&(until, Timer::PauseEnds(Arc::clone(homeserver))));
        }
        self.lines.remove(homeserver);
    }

    fn set_stage(&mut self, id: JobId, stage: Stage) {
        if let Some(job) = self.jobs.get_mut(&id) {
            self.census.stages[job.stage as usize] -= 1;
            self.census.stages[stage as usize] += 1;
            job.stage = stage;
        }
    }

    fn end_stage_at(&mut self, id: JobId, at: Option<Instant>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if let Some(former) = std::mem::replace(&mut job.stage_ends, at) {
            self.timers.remove(&(former, Timer::StageEnds(id)));
        }
        if let Some(at) = at {
            self.timers.insert((at, Timer::StageEnds(id)));
        }
    }

    /// The job of the same participant that still watches, if there is one.
    fn job_of(&self, delegation: &Delegation) -> Option<JobId> {
        let watch = self.watched.get(&delegation.participant())?;
        let is_same = |id: &&JobId| {
            self.jobs.get(id).is_some_and(|job| job.delegation.participant() == delegation.participant())
        };
        watch.jobs.iter().find(is_same).copied()
    }

    fn is_connected(&self, id: JobId) -> bool {
        let Some(job) = self.jobs.get(&id) else { return false };
        let is_connected =
            |participant| self.watched.get(&participant).is_some_and(|watch| watch.is_connected);
        job.delegation.participants().any(is_connected)
    }
}
