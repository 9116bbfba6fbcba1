//! The thread that everything of the library runs on, and the loop that follows what is new.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use matrix_sdk::ruma::api::client::membership::joined_members;
use matrix_sdk::ruma::api::error::ErrorKind;
use matrix_sdk::ruma::{OwnedRoomId, RoomId};
use matrix_sdk::{Client, HttpError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use weir_matrix::names::UserId;
use weir_matrix::policy::Servers;
use weir_matrix::rooms::{Door, Members, MembersError, Note};
use weir_matrix::store::{Store, StoreError};

use crate::account::{Account, SignInError, request_config, retry_after, words};
use crate::feed::{self, Told};
use crate::invitations::{self, Errand, Invitations};
use crate::metrics::Metrics;
use crate::{Backoff, UserConfig, kept};

/// Until a room's members are there.
const MEMBERS_TIMEOUT: Duration = Duration::from_secs(4);
/// Until it is clear that an answer which says that there is nothing new will not come.
const SYNC_TIMEOUT: Duration = Duration::from_secs(feed::PATIENCE.as_secs() + 15);
/// The first answer, with all rooms.
const FIRST_TIMEOUT: Duration = Duration::from_secs(90);
/// News that are taken at a time. People who ask for a token wait as long.
const MAX_NEWS: usize = 1_000;
/// How long a start waits for the homeserver. Both may be starting.
const START_PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries of what only an operator can mend.
const OPERATORS_WAIT: Duration = Duration::from_secs(60);
/// No homeserver makes us wait longer.
const LONGEST_LIMIT: Duration = Duration::from_secs(120);

/// Why there is no user.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the thread of the Matrix user cannot be started: {0}")]
    Thread(#[from] std::io::Error),
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
    /// An operator's mistake.
    #[error(transparent)]
    SignIn(#[from] SignInError),
}

/// Answers who is in a room. Clones are the same user.
#[derive(Clone)]
pub struct User {
    shared: Arc<Shared>,
}

struct Shared {
    runtime: tokio::runtime::Handle,
    /// While it is signed in.
    client: Mutex<Option<Client>>,
}

/// The user that is not followed yet.
pub struct Idle {
    user: User,
    account: Account,
    id: UserId,
    inviters: Servers,
    max_rooms: usize,
    metrics: Metrics,
}

impl User {
    /// Signs in, unless the homeserver is away: then that is tried again. What only an operator can mend stops the start.
    pub async fn start(
        config: UserConfig,
        store: Store,
        registry: &prometheus::Registry,
    ) -> Result<Idle, StartError> {
        let metrics = Metrics::new(registry)?;
        let shared = Arc::new(Shared { runtime: start_thread()?, client: Mutex::new(None) });
        let user = Self { shared };
        let (id, inviters, max_rooms) = (config.user.clone(), config.inviters.clone(), config.max_rooms);
        let signing_in = async move {
            let mut account = Account::open(config, store).await?;
            let client = tokio::time::timeout(START_PATIENCE, account.sign_in()).await;
            Ok::<_, SignInError>((account, client))
        };
        let (account, client) = user.run(signing_in).await??;
        match client {
            Ok(Err(error)) if error.is_operators() => return Err(error.into()),
            Ok(Ok(client)) => user.set_client(Some(client)),
            Ok(Err(_)) | Err(_) => {} // the loop tries again, and says what is wrong
        }
        Ok(Idle { user, account, id, inviters, max_rooms, metrics })
    }

    /// Elsewhere than those who wait for it: what the library does takes its own thread's time alone.
    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> std::io::Result<T> {
        self.shared.runtime.spawn(work).await.map_err(std::io::Error::other)
    }

    fn client(&self) -> Option<Client> {
        self.shared.client.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_client(&self, client: Option<Client>) {
        *self.shared.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
    }
}

/// Runs as long as the process.
fn start_thread() -> std::io::Result<tokio::runtime::Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name("matrix-user".to_owned())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(handle)
}

impl Members for User {
    fn members<'a>(
        &'a self,
        room_id: &'a str,
    ) -> BoxFuture<'a, Result<Option<HashSet<UserId>>, MembersError>> {
        Box::pin(async move {
            // Clients name rooms, and what is none cannot be seen.
            let Ok(room_id) = RoomId::parse(room_id) else { return Ok(None) };
            let Some(client) = self.client() else {
                return Err(MembersError::Failed("the focus's user is not signed in".to_owned()));
            };
            let asked = self.run(async move { ask_members(&client, room_id).await }).await;
            asked.map_err(|error| MembersError::Failed(error.to_string()))?
        })
    }
}

async fn ask_members(client: &Client, room_id: OwnedRoomId) -> Result<Option<HashSet<UserId>>, MembersError> {
    let asking = client.send(joined_members::v3::Request::new(room_id));
    match asking.with_request_config(request_config(MEMBERS_TIMEOUT)).await {
        Ok(answer) => Ok(Some(answer.joined.keys().filter_map(|id| UserId::parse(id.as_str())).collect())),
        Err(HttpError::Reqwest(error)) if error.is_timeout() => Err(MembersError::TooLate),
        Err(error) => match error.as_client_api_error().map(|answer| answer.status_code.as_u16()) {
            // The user is not in it, or there is no such room.
            Some(403 | 404) => Ok(None),
            _ => Err(MembersError::Failed(words(&error))),
        },
    }
}

/// Why nothing is told at present.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    SignIn(#[from] SignInError),
    #[error("its token is no longer good")]
    SignedOut,
    #[error("it wants to be asked more slowly")]
    Limited(Option<Duration>),
    #[error("it no longer knows how far it has told")]
    Forgotten,
    #[error("{0}")]
    Failed(String),
    #[error("what it told could not be kept: {0}")]
    Store(#[from] StoreError),
}

impl Failure {
    fn of(error: &HttpError, goes_on: bool) -> Self {
        match error.client_api_error_kind() {
            Some(ErrorKind::UnknownToken(_) | ErrorKind::MissingToken) => Self::SignedOut,
            Some(ErrorKind::LimitExceeded(_)) => Self::Limited(retry_after(error)),
            // All that is ours in the question is the position.
            Some(_)
                if goes_on && error.as_client_api_error().is_some_and(|answer| answer.status_code == 400) =>
            {
                Self::Forgotten
            }
            _ => Self::Failed(words(error)),
        }
    }

    fn outcome(&self) -> &'static str {
        match self {
            Self::SignIn(_) | Self::SignedOut => "signed_out",
            Self::Limited(_) => "limited",
            Self::Forgotten | Self::Failed(_) | Self::Store(_) => "failed",
        }
    }

    fn wait(&self, backoff: &mut Backoff) -> Duration {
        match self {
            Self::SignIn(error) if error.is_operators() => OPERATORS_WAIT,
            Self::SignIn(SignInError::Limited(wait)) | Self::Limited(wait) => {
                wait.unwrap_or_default().clamp(backoff.wait(), LONGEST_LIMIT)
            }
            _ => backoff.wait(),
        }
    }

    fn report(&self) {
        match self {
            Self::SignIn(error) if error.is_operators() => tracing::error!(
                %error,
                "the focus's Matrix user cannot sign in: people who leave a Matrix room stay in its conference. See \
                 [matrix.user]; the file that it names is read again every minute"
            ),
            Self::SignedOut => {
                tracing::info!("the focus's Matrix user has been signed out, and signs in again")
            }
            Self::Store(error) => tracing::error!(%error, "what the homeserver told could not be kept"),
            Self::Forgotten => tracing::warn!(
                "the homeserver no longer knows how far it has told the focus's Matrix user: who is in a call is looked up"
            ),
            Self::SignIn(_) | Self::Limited(_) | Self::Failed(_) => tracing::warn!(
                error = %self,
                "the homeserver does not tell the focus's Matrix user of its rooms: people who leave a Matrix room stay \
                 in its conference. See that it runs, and that its URL in the configuration leads to it"
            ),
        }
    }
}

impl Idle {
    pub fn user(&self) -> User {
        self.user.clone()
    }

    /// Takes what the homeserver tells to the door, until the task is aborted.
    pub fn follow(self, door: Arc<Door>) -> JoinHandle<()> {
        let Self { user, account, id, inviters, max_rooms, metrics } = self;
        let (errands, queue) = mpsc::channel(invitations::QUEUE);
        let invitations =
            Invitations::new(id.clone(), inviters, max_rooms, metrics.clone(), Arc::clone(&door));
        let position = account.position();
        let has_restarted = position.is_some();
        let follower =
            Follower { user: user.clone(), account, id, door, position, has_restarted, errands, metrics };
        user.shared.runtime.spawn(async move { tokio::join!(invitations.run(queue), follower.run()).1 })
    }
}

/// A number that hardly comes twice in a row.
#[expect(clippy::disallowed_methods, reason = "any clock will do")]
pub fn odd() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_millis()
}

struct Follower {
    user: User,
    account: Account,
    id: UserId,
    door: Arc<Door>,
    /// Until where the homeserver has told.
    position: Option<String>,
    /// Whether invitations may be unanswered that an earlier run was told of.
    has_restarted: bool,
    errands: mpsc::Sender<Errand>,
    metrics: Metrics,
}

impl Follower {
    async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut reported: Option<String> = None;
        self.door.set_cut_off(true);
        loop {
            let Err(failure) = self.follow(&mut backoff, &mut reported).await;
            self.door.set_cut_off(true);
            self.metrics.up.set(0);
            self.metrics.synced(failure.outcome());
            let words = failure.to_string();
            if reported.as_ref() != Some(&words) {
                failure.report();
                reported = Some(words);
            }
            match failure {
                Failure::SignIn(_) | Failure::SignedOut => self.user.set_client(None),
                Failure::Forgotten => self.position = None,
                Failure::Limited(_) | Failure::Failed(_) | Failure::Store(_) => {}
            }
            tokio::time::sleep(failure.wait(&mut backoff)).await;
        }
    }

    /// As long as all is well.
    async fn follow(
        &mut self,
        backoff: &mut Backoff,
        reported: &mut Option<String>,
    ) -> Result<std::convert::Infallible, Failure> {
        let client = match self.user.client() {
            Some(client) => client,
            None => self.account.sign_in().await?,
        };
        self.user.set_client(Some(client.clone()));
        if std::mem::replace(&mut self.has_restarted, false) {
            self.send_on(Errand::LookForMore(client.clone()));
        }
        loop {
            let is_first = self.position.is_none();
            let timeout = if is_first { FIRST_TIMEOUT } else { SYNC_TIMEOUT };
            let asking = client.send(feed::request(self.position.clone(), odd()));
            let answer = asking.with_request_config(request_config(timeout)).await;
            let answer = answer.map_err(|error| Failure::of(&error, !is_first))?;
            self.take(&client, feed::read(&self.id, answer)).await?;
            if is_first {
                self.send_on(Errand::LookAgain);
                self.send_on(Errand::Count(client.clone()));
            }
            self.door.set_cut_off(false);
            self.metrics.up.set(1);
            self.metrics.synced("answered");
            *backoff = Backoff::default();
            if reported.take().is_some() || is_first {
                tracing::info!("the homeserver tells the focus's Matrix user of its rooms");
            }
        }
    }

    /// What takes long holds up no news.
    fn send_on(&self, errand: Errand) -> bool {
        let is_taken = self.errands.try_send(errand).is_ok();
        if !is_taken {
            tracing::warn!(
                "the focus's Matrix user has too much to do at a time: an invitation may stay unanswered"
            );
        }
        is_taken
    }

    /// With the position or not at all: what was not kept is told again.
    async fn take(&mut self, client: &Client, told: Told) -> Result<(), Failure> {
        let Told { mut updates, lost, entered, invitations, position } = told;
        for room_id in &lost {
            self.door.lose_sight(room_id).await?;
        }
        while updates.len() > MAX_NEWS {
            let rest = updates.split_off(MAX_NEWS);
            self.door.take(std::mem::replace(&mut updates, rest), None).await?;
        }
        let is_new = self.position.as_ref() != Some(&position);
        let kept = position.clone();
        let note: Note = Box::new(move |file| kept::keep_position(file, &kept));
        self.door.take(updates, is_new.then_some(note)).await?;
        self.position = Some(position);
        for invitation in invitations {
            if !self.send_on(Errand::Answer(client.clone(), invitation)) {
                self.metrics.invited("dropped");
            }
        }
        if !entered.is_empty() || !lost.is_empty() {
            self.send_on(Errand::Count(client.clone()));
        }
        for room_id in entered {
            self.send_on(Errand::LookAgainAt(room_id));
        }
        Ok(())
    }
}
