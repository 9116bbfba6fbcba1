//! The focus as an ordinary Matrix user, who is invited to the rooms whose calls it is to watch over: for homeservers that
//! know no application service of ours.
//!
//! [`User`] signs in, follows `/sync` and answers as [`Members`](weir_matrix::rooms::Members). What it is told ends in
//! the same [`Door`](weir_matrix::rooms::Door) as an application service's transactions. [`feed`] says what `/sync`
//! tells, [`account`] keeps the device, [`invitations`] decides which rooms are joined, [`run`] holds the loop.
//!
//! It stands apart from `weir-matrix` because matrix-sdk compiles for minutes. Of that library it takes sessions,
//! requests and answers, and not its store, which would grow with every member that it hears of: the door keeps what is
//! needed, within limits. Since nobody is who they are by encrypted events, there is no cryptography either.

mod account;
mod feed;
mod invitations;
mod kept;
mod metrics;
mod run;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use weir_matrix::names::UserId;
use weir_matrix::policy::Servers;

pub use account::{SecretProblem, SignInError, read_secret};
pub use kept::TABLES;
pub use run::{Idle, StartError, User};

/// What an operator chose.
#[derive(Clone, Debug)]
pub struct UserConfig {
    pub user: UserId,
    /// Where its homeserver's client-server API is.
    pub homeserver_url: String,
    pub secret: Secret,
    /// Authorities (DER) that are trusted beside the system's.
    pub authorities: Vec<Vec<u8>>,
    /// Whose users may invite it.
    pub inviters: Servers,
    /// In how many rooms it is at most.
    pub max_rooms: usize,
}

/// By what the user proves to be itself: a file that only its owner may read. It is read when it is needed, so that
/// another secret needs no restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    Password(PathBuf),
    AccessToken(PathBuf),
}

/// How long to wait before something is tried again that failed.
#[derive(Clone, Copy, Debug)]
struct Backoff {
    next: Duration,
}

/// A homeserver that is restarted is away for seconds.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// People who are kicked stay for as long after a homeserver has come back, and one request each does it no harm.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST_WAIT }
    }
}

impl Backoff {
    fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (2 * wait).min(LONGEST_WAIT);
        wait
    }
}
