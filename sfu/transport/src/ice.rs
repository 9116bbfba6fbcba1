//! ICE-lite ([RFC 8445 §2.5](https://www.rfc-editor.org/rfc/rfc8445#section-2.5)): we answer checks and believe the
//! nomination; we send none of our own.

use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use is::stun::StunMessage;
use weir_units::media::IceCredentials;

use crate::Route;

/// Addresses of one peer that are validated at a time: its interfaces times ours, old paths included. The oldest
/// unused gives way.
const MAX_ROUTES: usize = 16;

/// A nominated path that no check came over for this long gives way to any other: two of the checks that browsers
/// send for consent ([RFC 7675](https://www.rfc-editor.org/rfc/rfc7675)), lost.
const STALE: Duration = Duration::from_secs(6);

pub(crate) struct IceLite {
    local: IceCredentials,
    remote_ufrag: Option<String>,
    routes: Vec<Validated>,
    selected: Option<Route>,
    last_heard: Option<Instant>,
}

struct Validated {
    route: Route,
    priority: u32,
    heard: Instant,
}

/// What a valid check brought.
pub(crate) struct Checked {
    pub response: Vec<u8>,
    /// The route is one we had not seen.
    pub is_new: bool,
    /// Media goes here from now on.
    pub selected: Option<Route>,
}

impl IceLite {
    pub fn new(local: IceCredentials) -> Self {
        Self { local, remote_ufrag: None, routes: Vec::new(), selected: None, last_heard: None }
    }

    /// Sets or changes the credentials. New ones are a restart: the next nomination wins whatever its priority, and
    /// media stays on the old path until then.
    pub fn set_credentials(&mut self, local: IceCredentials, remote_ufrag: &str) {
        if local != self.local || self.remote_ufrag.as_deref() != Some(remote_ufrag) {
            for route in &mut self.routes {
                route.priority = 0;
            }
        }
        self.local = local;
        self.remote_ufrag = Some(remote_ufrag.to_owned());
    }

    pub fn is_validated(&self, route: Route) -> bool {
        self.routes.iter().any(|entry| entry.route == route)
    }

    pub fn selected(&self) -> Option<Route> {
        self.selected
    }

    pub fn last_heard(&self) -> Option<Instant> {
        self.last_heard
    }

    /// Answers a check. `None` for anything that is not a binding request of this peer with valid integrity, or whose
    /// answer would be larger than itself.
    pub fn handle(&mut self, now: Instant, route: Route, packet: &[u8]) -> Option<Checked> {
        let message = StunMessage::parse(packet).ok()?;
        if !message.is_binding_request() {
            return None;
        }
        let (local, remote) = message.split_username()?;
        if local != self.local.ufrag || self.remote_ufrag.as_deref().is_some_and(|known| known != remote) {
            return None;
        }
        let password = self.local.password.as_bytes();
        if !message.verify(password, sha1_hmac) {
            return None;
        }
        let mut response = vec![0; packet.len()];
        let reply = StunMessage::binding_reply(message.trans_id(), route.remote());
        let len = reply.to_bytes(Some(password), &mut response, sha1_hmac).ok()?;
        response.truncate(len);

        self.last_heard = Some(now);
        let is_new = self.note(now, route, message.prio().unwrap_or(0));
        let selected = (message.use_candidate() && self.wins(now, route)).then_some(route);
        if selected.is_some() {
            self.selected = selected;
        }
        Some(Checked { response, is_new, selected })
    }

    fn note(&mut self, now: Instant, route: Route, priority: u32) -> bool {
        if let Some(entry) = self.routes.iter_mut().find(|entry| entry.route == route) {
            (entry.heard, entry.priority) = (now, priority);
            return false;
        }
        if self.routes.len() == MAX_ROUTES {
            let unused =
                self.routes.iter().enumerate().filter(|(_, entry)| Some(entry.route) != self.selected);
            if let Some((oldest, _)) = unused.min_by_key(|(_, entry)| entry.heard) {
                self.routes.swap_remove(oldest);
            }
        }
        self.routes.push(Validated { route, priority, heard: now });
        true
    }

    /// Whether a nomination of `route` replaces the one that holds. Browsers nominate aggressively towards a lite
    /// agent, so several may be nominated and the highest priority counts
    /// ([RFC 8445 §8.2](https://www.rfc-editor.org/rfc/rfc8445#section-8.2)).
    fn wins(&self, now: Instant, route: Route) -> bool {
        let find = |route: Route| self.routes.iter().find(|entry| entry.route == route);
        let (Some(current), Some(candidate)) = (self.selected.and_then(find), find(route)) else {
            return true;
        };
        current.route != route && (candidate.priority > current.priority || now > current.heard + STALE)
    }
}

fn sha1_hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 20] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key));
    for part in parts {
        context.update(part);
    }
    *context.sign().as_ref().first_chunk().expect("HMAC-SHA1 is 20 bytes")
}

/// A check as a full agent sends it, for tests.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn check(username: &str, password: &str, priority: u32, nominate: bool) -> Vec<u8> {
    let message =
        StunMessage::binding_request(username, is::stun::TransId::new(), true, 1, priority, nominate);
    let mut packet = vec![0; 256];
    let len =
        message.to_bytes(Some(password.as_bytes()), &mut packet, sha1_hmac).expect("256 bytes hold a check");
    packet.truncate(len);
    packet
}
