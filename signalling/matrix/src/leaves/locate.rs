//! Where the client-server API of somebody's homeserver is.
//!
//! A client knows, but it is a stranger, and what it says is an address that we would send requests to. So the
//! operator's word goes first, then what the homeserver's own domain says, and the client's word last. All but the
//! operator's are asked through a [`Web`] that refuses private addresses.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use serde::Deserialize;

use super::Failure;
use crate::names::Host;
use crate::uri::Place;

/// A request to a homeserver.
#[derive(Clone, Debug)]
pub struct Request {
    /// With `Some` body it is a POST, else a GET.
    pub body: Option<String>,
    pub url: String,
    pub token: Option<Arc<str>>,
    /// Whether the operator named the address, so that it may be a private one.
    pub is_trusted: bool,
}

#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub retry_after: Option<String>,
    /// The beginning of it; what answers here is short.
    pub body: Vec<u8>,
}

pub type Allowing<'a> = Pin<Box<dyn Future<Output = bool> + Send + 'a>>;
pub type Replying<'a> = Pin<Box<dyn Future<Output = Result<Reply, Failure>> + Send + 'a>>;

/// Sends requests where strangers point, guardedly: not to private addresses, in bounded time, and without following
/// redirects.
pub trait Web: Send + Sync + 'static {
    fn request(&self, request: Request) -> Replying<'_>;

    /// Whether a host may be asked without TLS. Where the operator allowed a network, homeservers in it may be on machines
    /// for trying out, and have no certificates; that is no reason to do without them elsewhere.
    fn allows_plain<'a>(&'a self, host: &'a Host) -> Allowing<'a>;
}

/// Homeservers remembered. More only costs to ask again.
const MOST_REMEMBERED: usize = 1_000;
/// As long as what homeservers say of themselves holds elsewhere.
const REMEMBER: Duration = Duration::from_secs(4 * 3600);
/// Shorter, since a mistake may be mended.
const REMEMBER_FAILURE: Duration = Duration::from_secs(300);
/// A domain that takes longer to answer has said nothing: a client waits meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);
/// An address longer than this is no address.
const LONGEST_URL: usize = 1_000;

#[derive(Deserialize)]
struct WellKnown {
    #[serde(rename = "m.homeserver")]
    homeserver: BaseUrl,
}

#[derive(Deserialize)]
struct BaseUrl {
    base_url: String,
}

/// What a domain said, and until when that holds.
type Remembered = (Instant, Option<Arc<str>>);

pub struct Locator {
    web: Arc<dyn Web>,
    /// By server name, as the operator says.
    known: HashMap<String, Arc<str>>,
    remembered: Mutex<IndexMap<String, Remembered>>,
}

impl Locator {
    pub fn new(web: Arc<dyn Web>, known: HashMap<String, String>) -> Self {
        let known = known.into_iter().map(|(server, url)| (server, Arc::from(url.trim_end_matches('/'))));
        Self { web, known: known.collect(), remembered: Mutex::default() }
    }

    /// Whether the operator named this address.
    pub fn trusts(&self, server: &str, homeserver: &str) -> bool {
        self.known.get(server).is_some_and(|known| **known == *homeserver)
    }

    /// The address for users of a server, without a slash at the end.
    pub async fn locate(&self, now: Instant, server: &str, hint: Option<&str>) -> Option<Arc<str>> {
        if let Some(known) = self.known.get(server) {
            return Some(Arc::clone(known));
        }
        let told = match self.recall(now, server) {
            Some(told) => told,
            None => {
                let told = self.ask(server).await;
                self.remember(now, server, told.clone());
                told
            }
        };
        match told {
            Some(told) => Some(told),
            None => self.address(hint?).await,
        }
    }

    async fn ask(&self, server: &str) -> Option<Arc<str>> {
        let url = format!("https://{server}/.well-known/matrix/client");
        let request = Request { body: None, url, token: None, is_trusted: false };
        let reply = tokio::time::timeout(PATIENCE, self.web.request(request)).await.ok()?.ok()?;
        if reply.status != 200 {
            return None;
        }
        let well_known: WellKnown = serde_json::from_slice(&reply.body).ok()?;
        self.address(&well_known.homeserver.base_url).await
    }

    /// A stranger's address, if it looks like one.
    async fn address(&self, text: &str) -> Option<Arc<str>> {
        let place = Place::parse(text).filter(|_| text.len() <= LONGEST_URL)?;
        // What follows a '?' or a '#' would not be part of the path any more, nor would what we append.
        let has_only_a_path = !text.contains(['?', '#']);
        let climbs = place.path.split('/').any(|segment| segment == "." || segment == "..");
        if !has_only_a_path || climbs {
            return None;
        }
        let is_safe = place.is_tls || self.allows_plain(&place.host).await;
        is_safe.then(|| Arc::from(text.trim_end_matches('/')))
    }

    async fn allows_plain(&self, host: &Host) -> bool {
        tokio::time::timeout(PATIENCE, self.web.allows_plain(host)).await.unwrap_or(false)
    }

    fn recall(&self, now: Instant, server: &str) -> Option<Option<Arc<str>>> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, told) = remembered.get(server)?;
        (*until > now).then(|| told.clone())
    }

    fn remember(&self, now: Instant, server: &str, told: Option<Arc<str>>) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let until = now + if told.is_some() { REMEMBER } else { REMEMBER_FAILURE };
        remembered.shift_remove(server);
        if remembered.len() >= MOST_REMEMBERED {
            remembered.shift_remove_index(0);
        }
        remembered.insert(server.to_owned(), (until, told));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers one path, and counts.
    struct Page(&'static str, Mutex<Vec<String>>);

    impl Web for Page {
        fn request(&self, request: Request) -> Replying<'_> {
            self.1.lock().unwrap().push(request.url);
            let reply = Reply { status: 200, retry_after: None, body: self.0.as_bytes().to_vec() };
            Box::pin(async move { Ok(reply) })
        }

        /// On its own machine.
        fn allows_plain<'a>(&'a self, host: &'a Host) -> Allowing<'a> {
            let is_allowed = *host == Host::Address(std::net::Ipv4Addr::LOCALHOST.into());
            Box::pin(std::future::ready(is_allowed))
        }
    }

    fn locator(page: &'static str) -> (Locator, Arc<Page>) {
        let page = Arc::new(Page(page, Mutex::default()));
        let known = HashMap::from([("home.example".to_owned(), "http://127.0.0.1:8008/".to_owned())]);
        (Locator::new(Arc::clone(&page) as Arc<dyn Web>, known), page)
    }

    #[expect(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]
    fn now() -> Instant {
        Instant::now()
    }

    #[tokio::test]
    async fn the_operators_word_goes_first_then_the_domains_and_the_clients_last() {
        let hint = Some("https://client.example/");
        let (locator, page) = locator(r#"{"m.homeserver":{"base_url":"https://matrix.lab.example/"}}"#);
        let locate = |server| locator.locate(now(), server, hint);
        assert_eq!(locate("home.example").await.as_deref(), Some("http://127.0.0.1:8008"));
        assert!(page.1.lock().unwrap().is_empty());
        assert_eq!(locate("lab.example").await.as_deref(), Some("https://matrix.lab.example"));
        assert_eq!(*page.1.lock().unwrap(), ["https://lab.example/.well-known/matrix/client"]);
        let (silent, _) = self::locator("no JSON");
        let located = silent.locate(now(), "lab.example", hint).await;
        assert_eq!(located.as_deref(), Some("https://client.example"));
        assert_eq!(silent.locate(now(), "lab.example", None).await, None);
    }

    #[tokio::test]
    async fn a_domain_is_asked_once_in_a_while() {
        let (locator, page) = locator(r#"{"m.homeserver":{"base_url":"https://matrix.lab.example"}}"#);
        let start = now();
        for hours in [0, 1, 3, 5] {
            locator.locate(start + Duration::from_secs(hours * 3600), "lab.example", None).await;
        }
        assert_eq!(page.1.lock().unwrap().len(), 2);
        for server in 0..2 * MOST_REMEMBERED {
            locator.locate(start, &format!("s{server}"), None).await;
        }
        assert_eq!(locator.remembered.lock().unwrap().len(), MOST_REMEMBERED);
    }

    /// Takes a request, and never answers it.
    struct Mute;

    impl Web for Mute {
        fn request(&self, _: Request) -> Replying<'_> {
            Box::pin(std::future::pending())
        }

        fn allows_plain<'a>(&'a self, _: &'a Host) -> Allowing<'a> {
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_domain_that_never_answers_has_said_nothing() {
        let locator = Locator::new(Arc::new(Mute), HashMap::new());
        let located = locator.locate(now(), "lab.example", Some("https://client.example")).await;
        assert_eq!(located.as_deref(), Some("https://client.example"));
    }

    #[tokio::test]
    async fn what_is_no_plain_address_of_a_server_is_not_taken() {
        let (locator, _) = locator("");
        for text in [
            "http://lab.example",
            "ftp://lab.example",
            "lab.example",
            "https://user:secret@lab.example",
            "https://lab.example/?to=",
            "https://lab.example/to#",
            "https://lab.example/a/../..",
            "file:///etc/passwd",
            "",
        ] {
            assert_eq!(locator.address(text).await, None, "{text}");
        }
        let address = locator.address("https://lab.example:8/x/").await;
        assert_eq!(address.as_deref(), Some("https://lab.example:8/x"));
        assert!(locator.address("http://127.0.0.1:8008").await.is_some(), "that one needs no TLS");
    }
}
