//! Whom homeservers have vouched for a moment ago.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use lru::LruCache;
use tokio::time::Instant;

use crate::names::{ServerName, UserId};

/// A client that asks twice in a row, as when it falls back to the older endpoint, costs one look-up. Longer, and a
/// person whom the homeserver has shut out gets tokens for as long.
const KEPT_FOR: Duration = Duration::from_secs(30);
const MAX_KEPT: usize = 4_096;

/// By the hash of a token, so that none is kept that somebody could use.
pub struct Vouched {
    users: Mutex<LruCache<[u8; 32], (UserId, Instant)>>,
}

impl Default for Vouched {
    fn default() -> Self {
        let most = NonZeroUsize::new(MAX_KEPT).expect("it is not 0");
        Self { users: Mutex::new(LruCache::new(most)) }
    }
}

impl Vouched {
    pub fn get(&self, server: &ServerName, token: &str, now: Instant) -> Option<UserId> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.get(&key(server, token)).filter(|(_, until)| now < *until).map(|(user, _)| user.clone())
    }

    pub fn put(&self, server: &ServerName, token: &str, user: UserId, now: Instant) {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.put(key(server, token), (user, now + KEPT_FOR));
    }
}

fn key(server: &ServerName, token: &str) -> [u8; 32] {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(server.as_str().as_bytes());
    hash.update(&[0]); // no server name has it
    hash.update(token.as_bytes());
    hash.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_for_its_server_and_token_and_for_a_while() {
        let (vouched, now) = (Vouched::default(), Instant::now());
        let [ours, theirs] = ["a.example", "b.example"].map(|name| ServerName::parse(name).unwrap());
        let user = UserId::parse("@dana:a.example").unwrap();
        vouched.put(&ours, "token", user.clone(), now);
        assert_eq!(vouched.get(&ours, "token", now + KEPT_FOR - Duration::from_millis(1)), Some(user));
        assert_eq!(vouched.get(&ours, "token", now + KEPT_FOR), None);
        assert_eq!(vouched.get(&theirs, "token", now), None);
        assert_eq!(vouched.get(&ours, "tokens", now), None);
    }

    #[test]
    fn it_keeps_no_more_than_its_bound() {
        let (vouched, now) = (Vouched::default(), Instant::now());
        let server = ServerName::parse("a.example").unwrap();
        for n in 0..2 * MAX_KEPT {
            vouched.put(&server, &n.to_string(), UserId::parse("@dana:a.example").unwrap(), now);
        }
        assert_eq!(vouched.users.lock().unwrap().len(), MAX_KEPT);
    }
}
