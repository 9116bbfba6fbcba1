//! The registration: the one file that the focus and its homeserver both read.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::names::ServerName;

/// Written as JSON, which is YAML as well: homeservers read it as the one, and we as the other.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    pub id: String,
    /// Where the homeserver reaches the focus.
    pub url: String,
    /// By which the homeserver knows us.
    pub as_token: String,
    /// By which we know the homeserver.
    pub hs_token: String,
    pub sender_localpart: String,
    /// Homeservers may slow down application services as they do users. Ours asks when many join at once.
    pub rate_limited: bool,
    pub namespaces: Namespaces,
    /// What the homeserver passes on of its own API, and where to (MSC4512): nothing, or requests for tokens.
    #[serde(rename = "io.element.msc4512.proxy_prefix", default, skip_serializing_if = "Option::is_none")]
    pub proxy_prefix: Option<String>,
    #[serde(rename = "io.element.msc4512.proxy_url", default, skip_serializing_if = "Option::is_none")]
    pub proxy_url: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    #[serde(default)]
    pub users: Vec<Namespace>,
    #[serde(default)]
    pub aliases: Vec<Namespace>,
    #[serde(default)]
    pub rooms: Vec<Namespace>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    pub exclusive: bool,
    pub regex: String,
}

/// Why a registration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    #[error("it cannot be read: {0}")]
    Read(#[from] std::io::Error),
    #[error("it is not as `weir appservice generate` writes it: {0}")]
    Format(#[from] serde_json::Error),
    #[error("its {0} has less than {MIN_TOKEN_BYTES} characters: it could be guessed")]
    Weak(&'static str),
    #[error("its {0} has characters beside visible ones of ASCII: no header can carry it")]
    Unspeakable(&'static str),
    #[error("what it has the homeserver pass on is not \"{TOKENS_PREFIX}\", with an address to pass it to")]
    Prefix,
}

/// 128 bits in the sparsest of usual notations, hexadecimal.
const MIN_TOKEN_BYTES: usize = 32;
/// Below which requests for tokens are (MSC4195), in the homeserver's APIs for clients and for other homeservers.
const TOKENS_PREFIX: &str = "rtc/livekit";
/// Names the application service to its homeserver.
const ID: &str = "weir";

impl Registration {
    /// `tokens` must be unpredictable.
    pub fn new(server: &ServerName, url: &str, [as_token, hs_token]: [String; 2]) -> Self {
        // All users of the homeserver, without taking them from it. Rooms of which it tells us are those with a user that
        // is ours in this sense, and it answers for their members without anybody of ours having joined.
        let users = vec![Namespace { exclusive: false, regex: format!("@.*:{}", escaped(server.as_str())) }];
        Self {
            id: ID.to_owned(),
            url: url.trim_end_matches('/').to_owned(),
            as_token,
            hs_token,
            sender_localpart: ID.to_owned(),
            rate_limited: false,
            namespaces: Namespaces { users, ..Namespaces::default() },
            proxy_prefix: None,
            proxy_url: None,
        }
    }

    /// Has the homeserver pass on requests for tokens as well.
    pub fn with_tokens(self) -> Self {
        Self { proxy_prefix: Some(TOKENS_PREFIX.to_owned()), proxy_url: Some(self.url.clone()), ..self }
    }

    pub fn has_tokens(&self) -> bool {
        self.proxy_prefix.is_some()
    }

    pub fn read(path: &Path) -> Result<Self, RegistrationError> {
        let registration: Self = serde_json::from_slice(&std::fs::read(path)?)?;
        for (name, token) in [("as_token", &registration.as_token), ("hs_token", &registration.hs_token)] {
            if token.len() < MIN_TOKEN_BYTES {
                return Err(RegistrationError::Weak(name));
            }
            if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(RegistrationError::Unspeakable(name));
            }
        }
        let is_ours = |prefix: &str| prefix.trim_end_matches('/') == TOKENS_PREFIX;
        match (&registration.proxy_prefix, &registration.proxy_url) {
            (None, None) => Ok(registration),
            (Some(prefix), Some(_)) if is_ours(prefix) => Ok(registration),
            _ => Err(RegistrationError::Prefix),
        }
    }

    /// Writes a new file that only its owner can read. One that is there already is left alone: the homeserver may know
    /// it.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;

        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    }
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // tokens stay secret
        f.debug_struct("Registration").field("id", &self.id).field("url", &self.url).finish_non_exhaustive()
    }
}

/// A server's name as a regular expression. Brackets and dots are all that its grammar has of what means something there.
fn escaped(name: &str) -> String {
    let escape = |mut text: String, character: char| {
        if matches!(character, '.' | '[' | ']' | '-') {
            text.push('\\');
        }
        text.push(character);
        text
    };
    name.chars().fold(String::new(), escape)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration() -> Registration {
        let server = ServerName::parse("[::1]:8448").unwrap();
        Registration::new(&server, "http://127.0.0.1:7880/", ["a".repeat(64), "b".repeat(64)])
    }

    #[test]
    fn it_reads_back_and_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weir.yaml");
        registration().write(&path).unwrap();
        assert_eq!(Registration::read(&path).unwrap(), registration());
        assert_eq!(registration().write(&path).unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn it_is_interested_in_all_users_of_the_server_and_takes_none_for_itself() {
        let registration = registration();
        let users = &registration.namespaces.users[0];
        assert_eq!((users.regex.as_str(), users.exclusive), ("@.*:\\[::1\\]:8448", false));
        assert_eq!(registration.url, "http://127.0.0.1:7880");
        let text = format!("{registration:?}");
        assert!(!text.contains("aaa") && !text.contains("bbb"), "{text}");
    }

    #[test]
    fn requests_for_tokens_are_passed_on_if_it_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let read = |name: &str, registration: Registration| {
            let path = directory.path().join(name);
            registration.write(&path).unwrap();
            (std::fs::read_to_string(&path).unwrap(), Registration::read(&path))
        };
        let (text, plain) = read("plain", registration());
        // A homeserver that finds the key answers for everything below it, null or not.
        assert!(!plain.unwrap().has_tokens() && !text.contains("msc4512"), "{text}");
        let (text, tokens) = read("tokens", registration().with_tokens());
        assert!(tokens.unwrap().has_tokens());
        assert!(text.contains("\"io.element.msc4512.proxy_prefix\": \"rtc/livekit\""), "{text}");
        assert!(text.contains("\"io.element.msc4512.proxy_url\": \"http://127.0.0.1:7880\""), "{text}");
        for (name, prefix, url) in [
            ("other", Some("rtc"), Some("http://x")),
            ("half", Some("rtc/livekit"), None),
            ("url", None, Some("x")),
        ] {
            let (proxy_prefix, proxy_url) = (prefix.map(str::to_owned), url.map(str::to_owned));
            let (_, wrong) = read(name, Registration { proxy_prefix, proxy_url, ..registration() });
            assert!(matches!(wrong, Err(RegistrationError::Prefix)), "{name}");
        }
    }

    #[test]
    fn a_token_that_could_be_guessed_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weir.yaml");
        let weak = Registration { hs_token: "secret".to_owned(), ..registration() };
        weak.write(&path).unwrap();
        assert!(matches!(Registration::read(&path), Err(RegistrationError::Weak("hs_token"))));
        std::fs::write(&path, "id: weir").unwrap();
        assert!(matches!(Registration::read(&path), Err(RegistrationError::Format(_))));
    }

    #[test]
    fn a_token_that_no_header_can_carry_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for (number, odd) in ["ä", " ", "\n", "\u{7f}"].into_iter().enumerate() {
            let path = directory.path().join(format!("{number}.yaml"));
            let token = format!("{}{odd}", "a".repeat(64));
            Registration { as_token: token, ..registration() }.write(&path).unwrap();
            assert!(
                matches!(Registration::read(&path), Err(RegistrationError::Unspeakable("as_token"))),
                "{odd:?}"
            );
        }
    }
}
