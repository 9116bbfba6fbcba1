//! How often the homeserver is asked about rooms on somebody's behalf.
//!
//! Whoever has an account anywhere can ask for tokens for rooms that it makes up, as often as it likes, and each is a
//! question to the operator's homeserver. So a person has an allowance, and so has a server: its users cost it nothing.

use std::num::NonZeroUsize;
use std::time::Instant;

use lru::LruCache;

use crate::allowance::Allowance;
use crate::names::{ServerName, UserId};

/// Rooms that one person may be asked about at once, and each second after that. A bot may join many calls at a time.
const A_USER: (f64, f64) = (64.0, 2.0);
/// The same for all users of another server.
const A_SERVER: (f64, f64) = (256.0, 20.0);
/// Allowances remembered. Who is forgotten has a new one; servers are remembered apart, so that users do not push them out.
const MAX_REMEMBERED: NonZeroUsize = NonZeroUsize::new(4_096).expect("it is not zero");

/// See the module's description.
pub struct Askers {
    /// Whose users are the operator's own.
    own: Option<ServerName>,
    users: LruCache<UserId, Allowance>,
    servers: LruCache<ServerName, Allowance>,
}

impl Askers {
    pub fn new(own: Option<ServerName>) -> Self {
        Self { own, users: LruCache::new(MAX_REMEMBERED), servers: LruCache::new(MAX_REMEMBERED) }
    }

    /// Whether the homeserver may be asked for this user's sake, which is counted.
    pub fn may_ask(&mut self, now: Instant, user: &UserId) -> bool {
        let is_own = self.own.as_ref() == Some(user.server());
        take(&mut self.users, user, now, A_USER)
            && (is_own || take(&mut self.servers, user.server(), now, A_SERVER))
    }
}

fn take<K: std::hash::Hash + Eq + Clone>(
    allowances: &mut LruCache<K, Allowance>,
    asker: &K,
    now: Instant,
    (burst, per_second): (f64, f64),
) -> bool {
    let allowance = allowances.get_or_insert_mut_ref(asker, || Allowance::new(now, burst));
    allowance.take(now, burst, per_second)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
    fn origin() -> Instant {
        Instant::now()
    }

    fn user(n: usize, server: &str) -> UserId {
        UserId::parse(&format!("@{n}:{server}")).unwrap()
    }

    #[test]
    fn a_user_asks_so_often_and_a_server_no_oftener_whoever_its_users_are() {
        let now = origin();
        let mut askers = Askers::new(ServerName::parse("lab.example"));
        let asked = |askers: &mut Askers, now, users: &mut dyn Iterator<Item = UserId>| {
            users.filter(|user| askers.may_ask(now, user)).count()
        };
        let dana = user(0, "lab.example");
        assert_eq!(asked(&mut askers, now, &mut std::iter::repeat_n(dana.clone(), 1_000)), 64);
        let later = now + Duration::from_secs(3);
        assert_eq!(asked(&mut askers, later, &mut std::iter::repeat_n(dana, 1_000)), 6);
        assert_eq!(asked(&mut askers, now, &mut (1..1_001).map(|n| user(n, "lab.example"))), 1_000);
        assert_eq!(asked(&mut askers, now, &mut (1..1_001).map(|n| user(n, "evil.example"))), 256);
        assert_eq!(asked(&mut askers, now, &mut (1..11).map(|n| user(n, "else.example"))), 10);
    }
}
