//! Matrix rooms and the conferences of this focus: whoever is no longer in the one is out of the other.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use prometheus::IntGauge;
use tokio::sync::mpsc;
use weir_livekit::Server;
use weir_livekit::supervision::{Admission, Barred, Bearer, Gate, Observer, ParticipantEvent};
use weir_matrix::appservice::{Homeserver, HsToken, Registration, Transactions};
use weir_matrix::names::{ServerName, shortened};
use weir_matrix::openid::OpenId;
use weir_matrix::rooms::{self, Blind, Door, Holder, Members, Removed, RoomRule, Seat};
use weir_matrix::service::Through;
use weir_matrix::store::Store;
use weir_matrix_user::Idle;

use super::{not_a_url, user, wrong};
use crate::config::{ConfigError, Matrix, Membership};

/// Between two pings of the homeserver. If it could not reach us, it waits longer each time before it tries again, up to
/// nine minutes, while people who were kicked stay; a ping ends that.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// What is known of Matrix rooms, and how it comes here.
pub struct Rooms {
    pub door: Arc<Door>,
    pub rule: RoomRule,
    removed: mpsc::Receiver<Removed>,
    transactions: Option<Arc<Transactions>>,
    homeserver: Option<Homeserver>,
    /// Whether the homeserver reaches us.
    up: IntGauge,
    user: Option<Idle>,
}

impl Rooms {
    pub async fn open(
        matrix: &Matrix,
        registration: Option<&Registration>,
        openid: &OpenId,
        store: &Store,
        registry: &prometheus::Registry,
    ) -> anyhow::Result<Self> {
        let homeserver = match registration {
            Some(registration) => Some(homeserver(matrix, openid, registration)?),
            None => None,
        };
        let up = IntGauge::new(
            "weir_appservice_up",
            "1 while the homeserver reaches the application service; at 0, people who leave a room stay in its call.",
        )?;
        if homeserver.is_some() {
            registry.register(Box::new(up.clone()))?;
        }
        let user = user::start(matrix, store, registry).await?;
        // The configuration has one of them at most.
        let members: Arc<dyn Members> = match (&homeserver, &user) {
            (Some(homeserver), _) => Arc::new(homeserver.clone()),
            (None, Some(user)) => Arc::new(user.user()),
            (None, None) => Arc::new(Blind),
        };
        let (door, removed) = Door::open(store.clone(), members).await?;
        let rule = rule(matrix);
        door.set_rule(rule);
        let door = Arc::new(door);
        let transactions = match registration {
            Some(registration) => {
                Some(Transactions::open(store, Arc::clone(&door), &registration.hs_token).await?)
            }
            None => None,
        };
        Ok(Self { door, rule, removed, transactions, homeserver, up, user })
    }

    /// What it takes to serve what the homeserver passes on, if it does.
    pub fn through(&self, matrix: &Matrix, registration: Option<&Registration>) -> Option<Through> {
        let homeserver = self.homeserver.clone().filter(|_| matrix.appservice.tokens)?;
        let own = ServerName::parse(&matrix.server_name)?;
        Some(Through::new(own, HsToken::new(&registration?.hs_token), Arc::new(homeserver)))
    }

    /// By whom conferences hear what was decided here.
    pub fn warden(&self) -> Arc<Warden> {
        Arc::new(Warden { door: Arc::clone(&self.door), rule: self.rule })
    }

    /// Sends away whoever is no longer in its Matrix room, stays in touch with the homeserver, and takes what it pushes.
    pub fn start(self, server: &Arc<Server>, inner: Router) -> Router {
        tokio::spawn(send_away(self.removed, Arc::clone(server)));
        if let Some(user) = self.user {
            user.follow(Arc::clone(&self.door));
        }
        if let Some(homeserver) = self.homeserver {
            tokio::spawn(stay_in_touch(homeserver, self.door, self.up));
        }
        match self.transactions {
            Some(transactions) => transactions.in_front_of(inner),
            None => inner,
        }
    }
}

fn rule(matrix: &Matrix) -> RoomRule {
    match matrix.membership {
        Membership::Require => RoomRule::Require,
        Membership::WhenVisible => RoomRule::WhenVisible,
        Membership::Off => RoomRule::Off,
    }
}

/// The one that the configuration names.
pub fn registration(matrix: &Matrix) -> Result<Option<Registration>, ConfigError> {
    let tokens = matrix.appservice.tokens;
    matrix.appservice.registration.as_deref().map(|path| read_registration(path, tokens)).transpose()
}

fn read_registration(path: &Path, tokens: bool) -> Result<Registration, ConfigError> {
    let registration = Registration::read(path).map_err(|error| {
        let remedy = "name a file that `weir appservice generate` has written and that weir may read";
        wrong("matrix.appservice.registration", &path.display().to_string(), &error.to_string(), remedy)
    })?;
    let path = path.display();
    let (problem, remedy) = match (tokens, registration.has_tokens()) {
        (true, true) | (false, false) => return Ok(registration),
        (true, false) => (
            format!("by {path} the homeserver passes no requests for tokens on"),
            "write another registration with `weir appservice generate --tokens` and restart the homeserver, or \
             set it to false",
        ),
        (false, true) => (
            format!("by {path} the homeserver passes requests for tokens on, and they would all fail"),
            "set it to true, or write another registration without --tokens and restart the homeserver",
        ),
    };
    Err(wrong("matrix.appservice.tokens", &tokens.to_string(), &problem, remedy))
}

fn homeserver(
    matrix: &Matrix,
    openid: &OpenId,
    registration: &Registration,
) -> Result<Homeserver, ConfigError> {
    let url = matrix.homeserver_url.as_deref().unwrap_or_default();
    Homeserver::new(openid, registration).ok_or_else(|| not_a_url(url))
}

/// The rooms' view of the door: what a token's holder is, it says itself.
pub struct Warden {
    door: Arc<Door>,
    rule: RoomRule,
}

/// Tokens that somebody else made name no holder, and are none of our business.
fn holder(bearer: &Bearer) -> Option<Holder> {
    Holder::decode(&bearer.issued_to)
}

impl Gate for Warden {
    fn admit<'a>(&'a self, bearer: &'a Bearer) -> Admission<'a> {
        Box::pin(async move {
            let Some(holder) = holder(bearer) else { return Ok(()) };
            self.door.admit(&holder, bearer.issued_ms, self.rule).await.map_err(|barred| match barred {
                rooms::Barred::Void => Barred::Void,
                rooms::Barred::Unknown => Barred::Unknown,
            })
        })
    }

    fn is_void(&self, bearer: &Bearer) -> bool {
        holder(bearer).is_some_and(|holder| self.door.is_void(&holder, bearer.issued_ms))
    }
}

impl Observer for Warden {
    fn observe(&self, bearer: &Bearer, event: ParticipantEvent) {
        let Some(holder) = holder(bearer) else { return };
        let seat = Seat { conference: bearer.room.clone(), identity: bearer.identity.clone() };
        match event {
            ParticipantEvent::Joined => self.door.sits(holder, seat),
            ParticipantEvent::Left(_) => self.door.leaves(&holder, &seat),
            ParticipantEvent::Connected | ParticipantEvent::CutOff | ParticipantEvent::Resumed => {}
        }
    }
}

async fn send_away(mut removed: mpsc::Receiver<Removed>, server: Arc<Server>) {
    while let Some(Removed { room_id, user, cause, seats }) = removed.recv().await {
        tracing::info!(
            room = %shortened(&room_id), user = %shortened(user.as_str()), cause = cause.name(), seats = seats.len(),
            "is no longer in the Matrix room, and is sent out of the conference"
        );
        for Seat { conference, identity } in seats {
            let server = Arc::clone(&server);
            // A conference that is busy keeps nobody in another.
            tokio::spawn(async move { server.evict_void(&conference, &identity).await });
        }
    }
}

async fn stay_in_touch(homeserver: Homeserver, door: Arc<Door>, up: IntGauge) {
    let mut ticks = tokio::time::interval(PING_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut was_well, mut well_for) = (None, 0_u32);
    loop {
        ticks.tick().await;
        let answer = homeserver.ping().await;
        let is_well = Some(answer.is_ok());
        up.set(answer.is_ok().into());
        well_for = if answer.is_ok() { well_for.saturating_add(1) } else { 0 };
        // At first it makes up for what it could not tell, and may leave out some of that (see `Transactions`).
        door.set_cut_off(well_for < 2);
        if well_for == 2
            && let Err(error) = door.look_again().await
        {
            tracing::error!(%error, "who left a room could not be kept");
        }
        match answer {
            _ if is_well == was_well => {}
            Ok(()) => tracing::info!("the homeserver reaches the application service"),
            Err(error) => tracing::warn!(
                %error,
                "the homeserver does not reach the application service: people who leave a Matrix room stay in its \
                 conference. Its configuration must list the registration, and the registration's url lead here"
            ),
        }
        was_well = is_well;
    }
}
