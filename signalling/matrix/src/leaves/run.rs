//! The shell around [`Leaves`]: its clock, its calls to homeservers, and the file that it is kept in.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use prometheus::Registry;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;

use super::keep::{self, Ledger};
use super::metrics::Metrics;
use super::{
    Answer, Authentication, Call, Delegation, Failure, JobId, Leaves, Limits, Locator, Outcome, Output,
    Participant, Refusal, Request, Verdict, Web,
};
use crate::store::{Store, StoreError};
use crate::uri::encoded;

/// Delegations that wait to be taken on. Whoever comes then waits with its client.
const QUEUE: usize = 256;
/// How long a client waits to hear whether its homeserver lets us. Then it is told yes, and we go on trying.
const JUDGED_WITHIN: Duration = Duration::from_secs(5);
/// Homeservers an operator is warned of, once each.
const MOST_WARNED: usize = 100;

/// What a client asks for.
#[derive(Clone)]
pub struct Delegate {
    /// Vouched for by its homeserver.
    pub user: String,
    pub conference: String,
    /// By which the client may connect, the one that it asked for first.
    pub identities: Vec<String>,
    pub delay_id: String,
    pub timeout: Duration,
    /// Where the client says that its homeserver is.
    pub cs_api_url: Option<String>,
}

/// How long the answer to a client may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The job is kept.
    Kept,
    /// The homeserver has shown that it lets us.
    Judged,
}

#[derive(Debug, thiserror::Error)]
pub enum DelegateError {
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("where the client-server API of the user's homeserver is cannot be found out")]
    Nowhere,
    #[error("the homeserver has no such delayed event")]
    Unknown,
    #[error("the homeserver does not let others manage delayed events")]
    Unsupported,
    #[error("the focus is shutting down")]
    Closed,
}

/// What lets us act for a server's users there.
#[derive(Clone)]
pub struct Credential {
    pub token: Arc<str>,
    /// Whether it is shown before the homeserver wants to see it.
    pub is_shown_unasked: bool,
}

/// What became of somebody in a conference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Connected,
    /// For good.
    Gone,
    /// Its client joins anew.
    Replaced,
}

struct Command {
    delegation: Delegation,
    taken: oneshot::Sender<Result<JobId, Refusal>>,
    judged: oneshot::Sender<Verdict>,
}

/// News of participants that the task has not seen. The last of each counts, so they are bounded by who is there.
#[derive(Default)]
struct Inbox {
    news: Mutex<IndexMap<Participant, Presence>>,
    came: Notify,
}

/// Delegated leaves, from the start of the focus to its end.
#[derive(Clone)]
pub struct Delegations {
    commands: mpsc::Sender<Command>,
    inbox: Arc<Inbox>,
    ledger: Arc<Ledger>,
    locator: Arc<Locator>,
    credentials: Arc<HashMap<String, Credential>>,
}

impl Delegations {
    /// Takes up what was kept, and goes on. `credentials` are tokens by server name that may act for its users. They are
    /// shown where the operator's word has the homeserver of that name, and nowhere else.
    pub async fn start(
        store: Store,
        web: Arc<dyn Web>,
        locator: Locator,
        credentials: HashMap<String, Credential>,
        registry: &Registry,
        seed: u64,
    ) -> Result<Self, StartError> {
        let metrics = Metrics::new(registry)?;
        let kept = keep::load(&store).await?;
        let (commands, queue) = mpsc::channel(QUEUE);
        let handle = Self {
            commands,
            inbox: Arc::default(),
            ledger: Arc::default(),
            locator: Arc::new(locator),
            credentials: Arc::new(credentials),
        };
        if !kept.is_empty() {
            tracing::info!(jobs = kept.len(), "delegated leaves are taken up again");
        }
        let mut leaves = Leaves::new(Limits::default(), seed);
        for mut job in kept {
            let Delegation { homeserver, .. } = &job.delegation;
            job.delegation.authentication = handle.authentication(job.delegation.origin(), homeserver);
            leaves.restore(now(), job.id, job.delegation, job.is_leaving);
        }
        tokio::spawn(keep::write(Arc::clone(&handle.ledger), store));
        let task = Task {
            leaves,
            web,
            handle: Shared {
                inbox: Arc::clone(&handle.inbox),
                ledger: Arc::clone(&handle.ledger),
                locator: Arc::clone(&handle.locator),
                credentials: Arc::clone(&handle.credentials),
            },
            metrics,
            calls: JoinSet::new(),
            judged: HashMap::new(),
            warned: BTreeSet::new(),
        };
        tokio::spawn(task.run(queue));
        Ok(handle)
    }

    /// Takes a leave on, or says why not.
    pub async fn delegate(&self, asked: Delegate, until: Until) -> Result<(), DelegateError> {
        let server = asked.user.split_once(':').map_or("", |(_, server)| server);
        let homeserver = self.locator.locate(now(), server, asked.cs_api_url.as_deref()).await;
        let homeserver = homeserver.ok_or(DelegateError::Nowhere)?;
        let delegation = Delegation {
            authentication: self.authentication(server, &homeserver),
            homeserver,
            user: asked.user,
            conference: asked.conference,
            identities: asked.identities,
            delay_id: asked.delay_id,
            timeout: asked.timeout,
        };
        let (taken, is_taken) = oneshot::channel();
        let (judged, verdict) = oneshot::channel();
        let command = Command { delegation, taken, judged };
        self.commands.send(command).await.map_err(|_| DelegateError::Closed)?;
        is_taken.await.map_err(|_| DelegateError::Closed)??;
        self.ledger.kept().await.map_err(|_| DelegateError::Closed)?;
        if until == Until::Judged
            && let Ok(verdict) = tokio::time::timeout(JUDGED_WITHIN, verdict).await
        {
            return match verdict {
                Ok(Verdict::Unknown) => Err(DelegateError::Unknown),
                Ok(Verdict::Unsupported) => Err(DelegateError::Unsupported),
                // Without a verdict it ended otherwise, for example since the client went.
                Ok(Verdict::Manageable) | Err(_) => Ok(()),
            };
        }
        Ok(())
    }

    fn authentication(&self, server: &str, homeserver: &str) -> Authentication {
        match credential(&self.credentials, &self.locator, server, homeserver) {
            None => Authentication::Never,
            Some(Credential { is_shown_unasked: false, .. }) => Authentication::OnDemand,
            Some(Credential { is_shown_unasked: true, .. }) => Authentication::Always,
        }
    }

    /// Returns at once: rooms wait for it.
    pub fn observe(&self, conference: &str, identity: &str, presence: Presence) {
        let participant = Participant { conference: conference.to_owned(), identity: identity.to_owned() };
        self.inbox.news.lock().unwrap_or_else(PoisonError::into_inner).insert(participant, presence);
        self.inbox.came.notify_one();
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}

#[expect(
    clippy::disallowed_methods,
    reason = "this shell reads the clock for its state machine, once an input"
)]
fn now() -> Instant {
    Instant::now()
}

/// The token for a server's users, for this address. Whoever holds it is all of them, and a client may have named the
/// address: only the operator's own is trusted with it.
fn credential<'a>(
    credentials: &'a HashMap<String, Credential>,
    locator: &Locator,
    server: &str,
    homeserver: &str,
) -> Option<&'a Credential> {
    credentials.get(server).filter(|_| locator.trusts(server, homeserver))
}

/// What the task has of the handle, without keeping its own queue open.
struct Shared {
    inbox: Arc<Inbox>,
    ledger: Arc<Ledger>,
    locator: Arc<Locator>,
    credentials: Arc<HashMap<String, Credential>>,
}

struct Task {
    leaves: Leaves,
    web: Arc<dyn Web>,
    handle: Shared,
    metrics: Metrics,
    calls: JoinSet<(Call, Answer)>,
    /// Clients that wait to hear of their homeserver; they are gone after [`JUDGED_WITHIN`].
    judged: HashMap<JobId, oneshot::Sender<Verdict>>,
    warned: BTreeSet<Arc<str>>,
}

impl Task {
    /// Runs until the last handle is gone.
    async fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        loop {
            self.drain();
            let timeout = self.leaves.poll_timeout();
            tokio::select! {
                command = queue.recv() => match command {
                    Some(command) => self.take(command),
                    None => return,
                },
                () = self.handle.inbox.came.notified() => self.read_news(),
                Some(answered) = self.calls.join_next(), if !self.calls.is_empty() => {
                    let (call, answer) = answered.expect("a call to a homeserver does not panic");
                    self.note(&call, answer);
                    self.leaves.handle_answer(now(), call.id, answer);
                }
                () = sleep_until(timeout) => self.leaves.handle_timeout(now()),
            }
        }
    }

    fn take(&mut self, command: Command) {
        let taken = self.leaves.delegate(now(), command.delegation);
        if let Ok(id) = taken {
            self.judged.insert(id, command.judged);
        }
        // What is to be kept is noted before whoever asked hears that it was taken.
        self.drain();
        let _ = command.taken.send(taken);
    }

    fn read_news(&mut self) {
        let news =
            std::mem::take(&mut *self.handle.inbox.news.lock().unwrap_or_else(PoisonError::into_inner));
        for (participant, presence) in news {
            match presence {
                Presence::Connected => self.leaves.handle_connected(now(), participant),
                Presence::Gone => self.leaves.handle_gone(now(), &participant),
                Presence::Replaced => self.leaves.handle_replaced(now(), &participant),
            }
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.leaves.poll_output() {
            match output {
                Output::Call(call) => self.call(call),
                Output::Keep(id, delegation) => self.handle.ledger.keep(id, delegation),
                Output::Leaving(id) => self.handle.ledger.leaving(id),
                Output::Dropped(id) => self.handle.ledger.forget(id),
                Output::Judged(id, verdict) => {
                    if let Some(judged) = self.judged.remove(&id) {
                        let _ = judged.send(verdict);
                    }
                }
                Output::Ended(id, outcome) => self.end(id, outcome),
            }
        }
        self.metrics.count(&self.leaves);
    }

    fn end(&mut self, id: JobId, outcome: Outcome) {
        self.handle.ledger.forget(id);
        self.judged.remove(&id);
        self.metrics.ended(outcome);
        tracing::debug!(job = id.0, ?outcome, "a delegated leave ended");
    }

    fn call(&mut self, call: Call) {
        let server = call.user.split_once(':').map_or("", |(_, server)| server);
        let Shared { credentials, locator, .. } = &self.handle;
        let token = credential(credentials, locator, server, &call.homeserver)
            .filter(|_| call.dialect.is_authenticated)
            .map(|credential| Arc::clone(&credential.token));
        let (mut path, body) = call.dialect.request(&call.delay_id, call.action);
        if token.is_some() {
            path.push_str("?user_id=");
            path.extend(encoded(&call.user));
        }
        let request = Request {
            url: format!("{}{path}", call.homeserver),
            body: Some(body),
            token,
            is_trusted: locator.trusts(server, &call.homeserver),
        };
        let web = Arc::clone(&self.web);
        self.calls.spawn(async move {
            let answer = match tokio::time::timeout(call.patience, web.request(request)).await {
                Ok(Ok(reply)) => Answer::read(reply.status, reply.retry_after.as_deref(), &reply.body),
                Ok(Err(failure)) => Answer::Failed(failure),
                Err(_) => Answer::Failed(Failure::Timeout),
            };
            (call, answer)
        });
    }

    fn note(&mut self, call: &Call, answer: Answer) {
        self.metrics.called(call.action, answer);
        let (homeserver, action) = (&*call.homeserver, call.action.name());
        tracing::debug!(homeserver, action, ?answer, "a homeserver was asked about a delayed event");
        let is_new = || self.warned.len() < MOST_WARNED && !self.warned.contains(&call.homeserver);
        match answer {
            Answer::Limited(_) if is_new() => tracing::warn!(
                homeserver,
                "the homeserver limits how often delayed events are managed; people may drop out of calls: raise its limit \
                 (for Synapse rc_delayed_event_mgmt)"
            ),
            Answer::Unauthorised if is_new() => tracing::warn!(
                homeserver,
                "the homeserver wants to know who manages delayed events: register Weir there as an application service"
            ),
            Answer::Failed(Failure::Forbidden) if is_new() => tracing::warn!(
                homeserver,
                "delegated leaves are not asked for there, since its address is a private one: allow it in the configuration"
            ),
            _ => return,
        }
        self.warned.insert(Arc::clone(&call.homeserver));
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Allowing, Reply, Replying};
    use super::*;
    use crate::names::Host;

    /// A homeserver that has one delayed event, and tells what it is asked.
    struct Homeserver {
        asked: mpsc::UnboundedSender<(String, Option<Arc<str>>)>,
        is_strict: bool,
    }

    impl Web for Homeserver {
        fn request(&self, request: Request) -> Replying<'_> {
            let is_unauthorised = self.is_strict && request.token.is_none();
            let (status, body) = match () {
                () if is_unauthorised => (401, r#"{"errcode":"M_MISSING_TOKEN"}"#),
                () if request.url.contains("/syd_1/") => (200, "{}"),
                () => (404, r#"{"errcode":"M_NOT_FOUND"}"#),
            };
            self.asked.send((request.url, request.token)).unwrap();
            Box::pin(async move { Ok(Reply { status, retry_after: None, body: body.into() }) })
        }

        fn allows_plain<'a>(&'a self, _: &'a Host) -> Allowing<'a> {
            Box::pin(std::future::ready(false))
        }
    }

    type Asked = mpsc::UnboundedReceiver<(String, Option<Arc<str>>)>;

    async fn start(store: &Store, is_strict: bool, token: Option<&str>) -> (Delegations, Asked, Registry) {
        let known = HashMap::from([("lab.example".to_owned(), "http://hs".to_owned())]);
        start_knowing(known, store, is_strict, token).await
    }

    async fn start_knowing(
        known: HashMap<String, String>,
        store: &Store,
        is_strict: bool,
        token: Option<&str>,
    ) -> (Delegations, Asked, Registry) {
        let (asked, seen) = mpsc::unbounded_channel();
        let web: Arc<dyn Web> = Arc::new(Homeserver { asked, is_strict });
        // One that is shown unasked begins so.
        let credential = |token: &str| Credential {
            token: Arc::from(token),
            is_shown_unasked: token.starts_with("unasked"),
        };
        let credentials =
            token.map(|token| ("lab.example".to_owned(), credential(token))).into_iter().collect();
        let locator = Locator::new(Arc::clone(&web), known);
        let registry = Registry::new();
        let started = Delegations::start(store.clone(), web, locator, credentials, &registry, 1).await;
        (started.unwrap(), seen, registry)
    }

    fn ask(delay_id: &str) -> Delegate {
        Delegate {
            user: "@dana:lab.example".to_owned(),
            conference: "room".to_owned(),
            identities: vec!["dana".to_owned()],
            delay_id: delay_id.to_owned(),
            timeout: Duration::from_secs(3600),
            cs_api_url: None,
        }
    }

    const PATH: &str = "http://hs/_matrix/client/unstable/org.matrix.msc4140/delayed_events/syd_1";

    #[tokio::test]
    async fn a_leave_is_restarted_when_it_is_delegated_and_on_the_join_and_sent_when_the_client_goes() {
        let (delegations, mut seen, registry) = start(&Store::in_memory().unwrap(), false, None).await;
        delegations.delegate(ask("syd_1"), Until::Judged).await.unwrap();
        assert_eq!(seen.recv().await.unwrap().0, format!("{PATH}/restart"));
        delegations.observe("room", "dana", Presence::Connected);
        assert_eq!(seen.recv().await.unwrap().0, format!("{PATH}/restart"));
        delegations.observe("room", "dana", Presence::Gone);
        assert_eq!(seen.recv().await.unwrap().0, format!("{PATH}/send"));
        let families = registry.gather();
        assert!(families.iter().any(|family| family.name() == "weir_delegated_leaves"));
    }

    #[tokio::test]
    async fn whoever_delegates_what_is_not_there_is_told() {
        let (delegations, _seen, _) = start(&Store::in_memory().unwrap(), false, None).await;
        let error = delegations.delegate(ask("syd_2"), Until::Judged).await.unwrap_err();
        assert!(matches!(error, DelegateError::Unknown), "{error}");
        let error = delegations.delegate(ask(".."), Until::Kept).await.unwrap_err();
        assert!(matches!(error, DelegateError::Refused(Refusal::DelayId)), "{error}");
        let foreign = Delegate { user: "@eve:else.example".to_owned(), ..ask("syd_1") };
        let error = delegations.delegate(foreign, Until::Kept).await.unwrap_err();
        assert!(matches!(error, DelegateError::Nowhere), "{error}");
    }

    #[tokio::test]
    async fn a_homeserver_that_wants_a_token_gets_it_with_the_users_name() {
        let store = Store::in_memory().unwrap();
        let (delegations, mut seen, _) = start(&store, true, Some("secret")).await;
        delegations.delegate(ask("syd_1"), Until::Judged).await.unwrap();
        assert_eq!(seen.recv().await.unwrap().1, None);
        let (url, token) = seen.recv().await.unwrap();
        assert_eq!(url, format!("{PATH}/restart?user_id=%40dana%3Alab.example"));
        assert_eq!(token.as_deref(), Some("secret"));
        let (delegations, _seen, _) = start(&Store::in_memory().unwrap(), true, None).await;
        let error = delegations.delegate(ask("syd_1"), Until::Judged).await.unwrap_err();
        assert!(matches!(error, DelegateError::Unsupported), "{error}");
    }

    #[tokio::test]
    async fn a_token_that_is_shown_unasked_is_shown_from_the_first_call_on_also_after_a_restart() {
        let store = Store::in_memory().unwrap();
        for _ in 0..2 {
            let (delegations, mut seen, _) = start(&store, false, Some("unasked secret")).await;
            delegations.delegate(ask("syd_1"), Until::Judged).await.unwrap();
            let (url, token) = seen.recv().await.unwrap();
            assert_eq!(url, format!("{PATH}/restart?user_id=%40dana%3Alab.example"));
            assert_eq!(token.as_deref(), Some("unasked secret"));
        }
    }

    #[tokio::test]
    async fn an_address_that_the_operator_did_not_name_is_shown_no_token() {
        let store = Store::in_memory().unwrap();
        let (delegations, mut seen, _) = start_knowing(HashMap::new(), &store, true, Some("secret")).await;
        let asked = Delegate { cs_api_url: Some("https://of.a.client".to_owned()), ..ask("syd_1") };
        let error = delegations.delegate(asked, Until::Judged).await.unwrap_err();
        assert!(matches!(error, DelegateError::Unsupported), "{error}");
        let asked: Vec<_> = std::iter::from_fn(|| seen.try_recv().ok()).collect();
        assert!(asked.iter().any(|(url, _)| url.starts_with("https://of.a.client/")), "{asked:?}");
        assert!(asked.iter().all(|(_, token)| token.is_none()), "{asked:?}");
    }

    #[tokio::test]
    async fn a_focus_that_starts_again_takes_up_what_it_was_told() {
        let store = Store::in_memory().unwrap();
        let (delegations, mut seen, _) = start(&store, false, None).await;
        delegations.delegate(ask("syd_1"), Until::Kept).await.unwrap();
        seen.recv().await.unwrap();
        drop(delegations); // its task ends, and the file stays
        let (delegations, mut seen, _) = start(&store, false, None).await;
        assert_eq!(seen.recv().await.unwrap().0, format!("{PATH}/restart"));
        delegations.observe("room", "dana", Presence::Connected);
        seen.recv().await.unwrap();
        delegations.observe("room", "dana", Presence::Gone);
        assert_eq!(seen.recv().await.unwrap().0, format!("{PATH}/send"));
    }
}
