//! Which rooms the user enters: those that it is invited to by whom it may be, as long as there is room for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use matrix_sdk::ruma::OwnedRoomId;
use matrix_sdk::ruma::api::client::membership::{join_room_by_id, joined_members, joined_rooms, leave_room};
use matrix_sdk::{Client, HttpError};
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;
use weir_matrix::names::{UserId, shortened};
use weir_matrix::policy::Servers;
use weir_matrix::rooms::Door;
use weir_matrix::store::StoreError;

use crate::Backoff;
use crate::account::{request_config, words};
use crate::feed::{self, Invitation};
use crate::metrics::Metrics;
use crate::run::odd;

/// Invitations that wait. Beyond, people have to invite again.
pub const QUEUE: usize = 64;
/// Rooms entered at a time. One of another server may take a minute.
const AT_A_TIME: usize = 4;
/// Until a homeserver has entered a room, with another server's help.
const JOIN_TIMEOUT: Duration = Duration::from_secs(90);
const TIMEOUT: Duration = Duration::from_secs(20);
/// How often it is tried to enter a room.
const TRIES: usize = 3;

/// Where there are too many rooms, those that everybody else has left are left: a look at each, no more often than this.
const LOOK_INTERVAL: Duration = Duration::from_secs(600);
/// Rooms looked at, each a question to the homeserver.
const MAX_LOOKED_AT: usize = 2_000;

/// What is done beside following what is new.
#[derive(Debug)]
pub enum Errand {
    Answer(Client, Invitation),
    /// Look for invitations that were told of, and not answered before a restart.
    LookForMore(Client),
    /// Count the rooms, since they have changed.
    Count(Client),
    /// See whether all who sit in the call of a room that was entered are in the room, or in any room.
    LookAgainAt(String),
    LookAgain,
}

/// See the module's description.
pub struct Invitations {
    user: UserId,
    inviters: Servers,
    max_rooms: usize,
    metrics: Metrics,
    door: Arc<Door>,
    under_way: AtomicUsize,
    looked_for_empty_rooms: Mutex<Option<Instant>>,
}

/// What is made of an invitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Enter,
    /// Its sender may not invite the user.
    Foreign,
    Full,
}

impl Invitations {
    pub fn new(user: UserId, inviters: Servers, max_rooms: usize, metrics: Metrics, door: Arc<Door>) -> Self {
        Self {
            user,
            inviters,
            max_rooms,
            metrics,
            door,
            under_way: AtomicUsize::new(0),
            looked_for_empty_rooms: Mutex::default(),
        }
    }

    pub async fn run(self, mut errands: mpsc::Receiver<Errand>) {
        let this = &self;
        futures_util::stream::poll_fn(|context| errands.poll_recv(context))
            .for_each_concurrent(AT_A_TIME, |errand| async move {
                match errand {
                    Errand::Answer(client, invitation) => this.answer(&client, invitation).await,
                    Errand::LookForMore(client) => this.look_for_more(&client).await,
                    Errand::Count(client) => drop(this.count(&client).await),
                    Errand::LookAgainAt(room_id) => Self::looked(this.door.look_again_at(&room_id).await),
                    Errand::LookAgain => Self::looked(this.door.look_again().await),
                }
            })
            .await;
    }

    fn looked(result: Result<(), StoreError>) {
        if let Err(error) = result {
            tracing::error!(%error, "who left a room could not be kept");
        }
    }

    async fn look_for_more(&self, client: &Client) {
        let asking =
            client.send(feed::request(None, odd())).with_request_config(request_config(JOIN_TIMEOUT));
        match asking.await {
            Ok(answer) => {
                for invitation in feed::read(&self.user, answer).invitations {
                    self.answer(client, invitation).await;
                }
            }
            Err(error) => tracing::debug!(error = words(&error), "invitations of before are not known"),
        }
        let _ = self.count(client).await;
    }

    async fn answer(&self, client: &Client, invitation: Invitation) {
        let room = shortened(invitation.room_id.as_str());
        // Those that are answered at the same time count as well.
        let others = self.under_way.fetch_add(1, Ordering::SeqCst);
        let outcome = match self.decide(client, &invitation, others).await {
            Ok(Answer::Enter) => self.enter(client, invitation.room_id).await.map(|()| "accepted"),
            Ok(Answer::Foreign) => {
                tracing::info!(
                    room,
                    "an invitation is declined: matrix.user.invited_by does not list its server"
                );
                decline(client, invitation.room_id).await.map(|()| "foreign")
            }
            Ok(Answer::Full) => {
                let limit = self.max_rooms;
                tracing::warn!(
                    room,
                    limit,
                    "an invitation is declined: that is matrix.user.max_rooms already"
                );
                decline(client, invitation.room_id).await.map(|()| "full")
            }
            Err(error) => Err(error),
        };
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        match &outcome {
            Ok("accepted") => {
                tracing::info!(room, "the focus's user has entered a room that it was invited to")
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(
                room,
                error = words(error),
                "an invitation could not be answered: invite the focus's user again"
            ),
        }
        self.metrics.invited(outcome.unwrap_or("failed"));
        let _ = self.count(client).await;
    }

    async fn decide(
        &self,
        client: &Client,
        invitation: &Invitation,
        others: usize,
    ) -> Result<Answer, HttpError> {
        if !may_invite(&self.inviters, invitation) {
            return Ok(Answer::Foreign);
        }
        let rooms = self.count(client).await? + others;
        if rooms < self.max_rooms {
            return Ok(Answer::Enter);
        }
        let left = self.leave_empty_rooms(client).await?;
        Ok(if rooms < self.max_rooms + left { Answer::Enter } else { Answer::Full })
    }

    /// Leaves rooms that nobody else is in any more, and says how many.
    async fn leave_empty_rooms(&self, client: &Client) -> Result<usize, HttpError> {
        let mut looked = self.looked_for_empty_rooms.lock().await;
        if looked.is_some_and(|looked| looked.elapsed() < LOOK_INTERVAL) {
            return Ok(0);
        }
        *looked = Some(Instant::now());
        let config = request_config(TIMEOUT);
        let rooms =
            client.send(joined_rooms::v3::Request::new()).with_request_config(config).await?.joined_rooms;
        let mut left = 0;
        for room_id in rooms.into_iter().take(MAX_LOOKED_AT) {
            let asking = client.send(joined_members::v3::Request::new(room_id.clone()));
            if asking.with_request_config(config).await?.joined.len() <= 1 {
                decline(client, room_id).await?;
                left += 1;
            }
        }
        tracing::info!(left, "the focus's user has left rooms that nobody else was in");
        Ok(left)
    }

    async fn enter(&self, client: &Client, room_id: OwnedRoomId) -> Result<(), HttpError> {
        let mut backoff = Backoff::default();
        let mut tried = 0;
        loop {
            let entering = client.send(join_room_by_id::v3::Request::new(room_id.clone()));
            let Err(error) = entering.with_request_config(request_config(JOIN_TIMEOUT)).await else {
                return Ok(());
            };
            tried += 1;
            if tried == TRIES || is_final(&error) {
                return Err(error);
            }
            tokio::time::sleep(backoff.wait()).await;
        }
    }

    async fn count(&self, client: &Client) -> Result<usize, HttpError> {
        let asking = client.send(joined_rooms::v3::Request::new());
        let rooms = asking.with_request_config(request_config(TIMEOUT)).await?.joined_rooms.len();
        self.metrics.rooms.set(i64::try_from(rooms).unwrap_or(i64::MAX));
        Ok(rooms)
    }
}

async fn decline(client: &Client, room_id: OwnedRoomId) -> Result<(), HttpError> {
    let declining = client.send(leave_room::v3::Request::new(room_id));
    declining.with_request_config(request_config(TIMEOUT)).await.map(drop)
}

fn is_final(error: &HttpError) -> bool {
    error.as_client_api_error().is_some_and(|answer| matches!(answer.status_code.as_u16(), 400 | 403 | 404))
}

fn may_invite(inviters: &Servers, invitation: &Invitation) -> bool {
    match &invitation.by {
        Some(by) => inviters.contain(by.server()),
        None => *inviters == Servers::All,
    }
}

#[cfg(test)]
mod tests {
    use weir_matrix::names::ServerName;

    use super::*;

    #[test]
    fn users_of_listed_servers_invite() {
        let ours = Servers::Listed(vec![ServerName::parse("lab.example").unwrap()]);
        for (inviters, by, expected) in [
            (&ours, Some("@dana:lab.example"), true),
            (&ours, Some("@dana:lab.example:8448"), false),
            (&ours, Some("@eve:else.example"), false),
            (&ours, None, false),
            (&Servers::All, Some("@eve:else.example"), true),
            (&Servers::All, None, true),
        ] {
            let by = by.map(|by| UserId::parse(by).unwrap());
            let invitation = Invitation { room_id: "!r:lab.example".try_into().unwrap(), by };
            assert_eq!(may_invite(inviters, &invitation), expected, "{invitation:?}");
        }
    }
}
