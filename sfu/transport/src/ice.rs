//! ICE-lite ([RFC 8445 §2.5](https://www.rfc-editor.org/rfc/rfc8445#section-2.5)): we answer checks and follow the
//! nomination; we send none of our own.
//!
//! The library's agent pairs candidates and paces checks, which a lite side has no use for; only its STUN messages
//! are used, and what is kept of a path is 64 bytes.

use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use is::stun::StunMessage;
use weir_units::media::IceCredentials;

use crate::Route;

/// Addresses of one peer that are validated at a time: its interfaces times ours, old paths included. The oldest
/// unused gives way.
const MAX_ROUTES: usize = 16;

/// The selected path gives way to any other that is checked once nothing came over it for this long. More than
/// Chromium's 2.5 s between checks of a path that works, less than the 4 s at least between Firefox's, which do not
/// say again that the path is nominated, so that a new NAT binding is followed at once.
const SILENT: Duration = Duration::from_secs(3);

/// A nomination of a path of lower priority counts once the selected one was not nominated again for this long: the
/// peer changed its mind. Clients that nominate aggressively send several nominations within less, and mean the best.
const SETTLED: Duration = Duration::from_secs(1);

pub(crate) struct IceLite {
    local: IceCredentials,
    remote_ufrag: Option<String>,
    routes: Vec<Validated>,
    selected: Option<Route>,
    last_heard: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Validated {
    route: Route,
    priority: u32,
    heard: Instant,
    nominated: Option<Instant>,
}

/// What a valid check brought.
pub(crate) struct Checked {
    pub response: Vec<u8>,
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
                (route.priority, route.nominated) = (0, None);
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
    /// answer would be larger than itself; that changes nothing.
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
        // A request as clients send it is longer than its answer. One that is not gets none: the buffer is too short.
        let mut response = vec![0; packet.len()];
        let reply = StunMessage::binding_reply(message.trans_id(), route.remote());
        let len = reply.to_bytes(Some(password), &mut response, sha1_hmac).ok()?;
        response.truncate(len);

        self.last_heard = Some(now);
        let nominated = message.use_candidate();
        let selected = self.wins(now, route, message.prio().unwrap_or(0), nominated).then_some(route);
        self.selected = selected.or(self.selected);
        self.note(now, route, message.prio().unwrap_or(0), nominated);
        Some(Checked { response, selected })
    }

    fn note(&mut self, now: Instant, route: Route, priority: u32, nominated: bool) {
        if let Some(entry) = self.routes.iter_mut().find(|entry| entry.route == route) {
            (entry.heard, entry.priority) = (now, priority);
            if nominated {
                entry.nominated = Some(now);
            }
            return;
        }
        if self.routes.len() == MAX_ROUTES {
            let unused =
                self.routes.iter().enumerate().filter(|(_, entry)| Some(entry.route) != self.selected);
            if let Some((oldest, _)) = unused.min_by_key(|(_, entry)| entry.heard) {
                self.routes.swap_remove(oldest);
            }
        }
        self.routes.push(Validated { route, priority, heard: now, nominated: nominated.then_some(now) });
    }

    /// Whether a check of `route` moves media there.
    ///
    /// Until the peer has nominated a path, the first that it checked will do: a client says hello as soon as its check
    /// is answered, and nominates in the next one, 50 ms later. Any nomination then takes precedence.
    ///
    /// Chromium nominates towards a lite peer the path that it has itself selected, so the latest nomination counts;
    /// Firefox nominates all paths at once and keeps the one of highest priority
    /// ([RFC 8445 §8.2](https://www.rfc-editor.org/rfc/rfc8445#section-8.2)).
    fn wins(&self, now: Instant, route: Route, priority: u32, nominated: bool) -> bool {
        let Some(selected) = self.selected else { return true };
        if selected == route {
            return false;
        }
        let Some(current) = self.routes.iter().find(|entry| entry.route == selected) else {
            return nominated;
        };
        if nominated {
            priority > current.priority || current.nominated.is_none_or(|at| now > at + SETTLED)
        } else {
            now > current.heard + SILENT
        }
    }
}

pub(crate) fn sha1_hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 20] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key));
    for part in parts {
        context.update(part);
    }
    *context.sign().as_ref().first_chunk().expect("HMAC-SHA1 is 20 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use is::stun::TransId;

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "an arbitrary beginning; nothing depends on it")]
        Instant::now()
    }

    fn ice() -> IceLite {
        let local =
            IceCredentials { ufrag: "ours".to_owned(), password: "a password of some length".to_owned() };
        IceLite::new(local)
    }

    fn route(port: u16) -> Route {
        Route::Udp { socket: 0, remote: ([192, 0, 2, 1], port).into() }
    }

    /// Sends a check over `route` and says where media goes after it.
    fn check(ice: &mut IceLite, now: Instant, port: u16, nominate: bool) -> Option<Route> {
        let request = StunMessage::binding_request("ours:theirs", TransId::new(), true, 7, 1_000, nominate);
        let mut packet = [0; 256];
        let password = ice.local.password.clone();
        let len = request.to_bytes(Some(password.as_bytes()), &mut packet, sha1_hmac).unwrap();
        ice.handle(now, route(port), &packet[..len]).expect("the check is valid");
        ice.selected()
    }

    #[test]
    fn the_first_path_checked_serves_until_one_is_nominated() {
        let (mut ice, now) = (ice(), start());
        assert_eq!(check(&mut ice, now, 1, false), Some(route(1)));
        assert_eq!(
            check(&mut ice, now, 2, false),
            Some(route(1)),
            "a second check is no better than the first"
        );
        assert_eq!(check(&mut ice, now, 2, true), Some(route(2)), "a nomination is");
        assert_eq!(check(&mut ice, now, 1, false), Some(route(2)));
    }

    #[test]
    fn after_a_restart_the_old_path_serves_until_one_is_nominated() {
        let (mut ice, now) = (ice(), start());
        check(&mut ice, now, 1, true);
        let local = ice.local.clone();
        ice.set_credentials(local, "theirs");
        assert_eq!(check(&mut ice, now, 2, false), Some(route(1)));
        assert_eq!(check(&mut ice, now, 2, true), Some(route(2)));
    }
}
