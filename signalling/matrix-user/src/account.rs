//! The user's device at its homeserver: signed in once, and kept.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use matrix_sdk::authentication::matrix::MatrixSession;
use matrix_sdk::config::RequestConfig;
use matrix_sdk::reqwest::{self, redirect};
use matrix_sdk::ruma::api::MatrixVersion;
use matrix_sdk::ruma::api::client::account::whoami;
use matrix_sdk::ruma::api::error::{ErrorKind, RetryAfter};
use matrix_sdk::store::RoomLoadSettings;
use matrix_sdk::{Client, HttpError, SessionMeta, SessionTokens};
use weir_matrix::store::{Store, StoreError};

use crate::kept::Kept;
use crate::{Secret, UserConfig};

/// Until a connection is there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// Until an answer is there that is needed to sign in. Homeservers take their time with passwords.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What other devices of the user are shown.
const DEVICE_NAME: &str = "Weir";
/// More is no password and no token.
const MAX_SECRET_BYTES: u64 = 4_096;

/// Why the user is not signed in.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    #[error("{}: {problem}", path.display())]
    Secret { path: PathBuf, problem: SecretProblem },
    #[error("{url} is no URL of a homeserver")]
    Url { url: String },
    #[error("the authorities for homeservers' certificates cannot be used: {0}")]
    Authorities(String),
    /// The password or the token is wrong, or the account is locked.
    #[error("the homeserver refuses: {0}")]
    Refused(String),
    #[error("the access token is {0}'s")]
    OtherUser(String),
    #[error("the homeserver wants to be asked more slowly")]
    Limited(Option<Duration>),
    #[error("the homeserver cannot be asked: {0}")]
    Unreachable(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is wrong with a file that holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretProblem {
    #[error("{0}")]
    Read(#[from] std::io::Error),
    #[error("others may read it (mode {0:03o})")]
    Readable(u32),
    #[error("it holds no single line of text")]
    Malformed,
}

impl SignInError {
    /// Whether it stays so until an operator has changed something.
    pub fn is_operators(&self) -> bool {
        match self {
            Self::Secret { .. }
            | Self::Url { .. }
            | Self::Authorities(_)
            | Self::Refused(_)
            | Self::OtherUser(_) => true,
            Self::Limited(_) | Self::Unreachable(_) | Self::Store(_) => false,
        }
    }
}

/// See the module's description.
pub struct Account {
    config: UserConfig,
    http: reqwest::Client,
    store: Store,
    kept: Kept,
}

impl Account {
    /// Reads what was kept, and asks nobody.
    pub async fn open(config: UserConfig, store: Store) -> Result<Self, SignInError> {
        let http = http(&config.authorities)?;
        let kept = Kept::load(&store, &config.user).await?;
        Ok(Self { config, http, store, kept })
    }

    pub fn position(&self) -> Option<String> {
        self.kept.position.clone()
    }

    /// A client whose device and token are good by the homeserver's word.
    pub async fn sign_in(&mut self) -> Result<Client, SignInError> {
        let kept = match &self.config.secret {
            Secret::Password(_) => self.kept.access_token.clone(),
            Secret::AccessToken(path) => Some(read_secret(path)?),
        };
        if let Some(token) = kept {
            match self.resume(token).await {
                // A password makes another.
                Err(SignInError::Refused(_)) if matches!(self.config.secret, Secret::Password(_)) => {}
                resumed => return resumed,
            }
        }
        self.log_in().await
    }

    async fn resume(&mut self, token: String) -> Result<Client, SignInError> {
        let client = self.client().await?;
        // Whose it is, is asked next; the device matters to nobody but the homeserver.
        let session = self.session(&token, self.kept.device_id.clone().unwrap_or_default())?;
        client
            .matrix_auth()
            .restore_session(session, RoomLoadSettings::default())
            .await
            .map_err(unexpected)?;
        let asking = client.send(whoami::v3::Request::new()).with_request_config(request_config(TIMEOUT));
        let answer = asking.await.map_err(|error| refused(&error))?;
        self.check(answer.user_id.as_str())?;
        self.keep(answer.device_id.map(|device| device.to_string()), token).await?;
        Ok(client)
    }

    async fn log_in(&mut self) -> Result<Client, SignInError> {
        let Secret::Password(path) = &self.config.secret else {
            return Err(SignInError::Refused("there is no password".to_owned()));
        };
        let password = read_secret(path)?;
        let client = self.client().await?;
        let auth = client.matrix_auth();
        let mut login = auth
            .login_username(self.config.user.as_str(), &password)
            .initial_device_display_name(DEVICE_NAME);
        // The device of before, or there would be one more with each start.
        if let Some(device) = &self.kept.device_id {
            login = login.device_id(device);
        }
        let answer = login.send().await.map_err(|error| match error {
            matrix_sdk::Error::Http(error) => refused(&error),
            error => unexpected(error),
        })?;
        self.check(answer.user_id.as_str())?;
        self.keep(Some(answer.device_id.to_string()), answer.access_token).await?;
        tracing::info!("the focus's user has signed in with its password");
        Ok(client)
    }

    /// Requests are not repeated behind our back, and no redirect takes the token anywhere.
    async fn client(&self) -> Result<Client, SignInError> {
        let url = &self.config.homeserver_url;
        let building = Client::builder()
            .homeserver_url(url)
            .http_client(self.http.clone())
            .request_config(request_config(TIMEOUT))
            .server_versions([MatrixVersion::V1_1]) // all that is asked was there then
            .respect_login_well_known(false)
            .build();
        building.await.map_err(|_| SignInError::Url { url: url.clone() })
    }

    fn session(&self, token: &str, device: String) -> Result<MatrixSession, SignInError> {
        let user_id = self.config.user.as_str().try_into().map_err(unexpected)?;
        let meta = SessionMeta { user_id, device_id: device.into() };
        let tokens = SessionTokens { access_token: token.to_owned(), refresh_token: None };
        Ok(MatrixSession { meta, tokens })
    }

    fn check(&self, user: &str) -> Result<(), SignInError> {
        if user == self.config.user.as_str() { Ok(()) } else { Err(SignInError::OtherUser(user.to_owned())) }
    }

    async fn keep(&mut self, device_id: Option<String>, token: String) -> Result<(), SignInError> {
        let access_token = matches!(self.config.secret, Secret::Password(_)).then_some(token);
        // The position may have moved since it was read here.
        let position = Kept::load(&self.store, &self.config.user).await?.position;
        let kept = Kept { device_id, access_token, position };
        if kept != self.kept {
            kept.clone().keep(&self.store, &self.config.user).await?;
            self.kept = kept;
        }
        Ok(())
    }
}

/// A request that is made once and given up after some time.
pub fn request_config(timeout: Duration) -> RequestConfig {
    RequestConfig::new().disable_retry().timeout(timeout)
}

fn http(authorities: &[Vec<u8>]) -> Result<reqwest::Client, SignInError> {
    let problem = |error: reqwest::Error| SignInError::Authorities(chain(&error));
    let certificates: Result<Vec<_>, _> =
        authorities.iter().map(|der| reqwest::Certificate::from_der(der)).collect();
    reqwest::Client::builder()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")))
        .tls_certs_merge(certificates.map_err(problem)?)
        .build()
        .map_err(problem)
}

/// One line, of a file that only its owner may read; else [`SignInError::Secret`].
pub fn read_secret(path: &Path) -> Result<String, SignInError> {
    let read = || -> Result<String, SecretProblem> {
        let file = File::open(path)?;
        let mode = file.metadata()?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(SecretProblem::Readable(mode));
        }
        let mut text = String::new();
        file.take(MAX_SECRET_BYTES).read_to_string(&mut text)?;
        let text = text.trim_end_matches(['\n', '\r']);
        let is_line = !text.is_empty() && !text.contains(char::is_control);
        if is_line { Ok(text.to_owned()) } else { Err(SecretProblem::Malformed) }
    };
    read().map_err(|problem| SignInError::Secret { path: path.to_owned(), problem })
}

/// What an answer other than success means to whoever signs in.
fn refused(error: &HttpError) -> SignInError {
    match error.client_api_error_kind() {
        Some(ErrorKind::LimitExceeded(_)) => SignInError::Limited(retry_after(error)),
        Some(
            ErrorKind::Forbidden
            | ErrorKind::UnknownToken(_)
            | ErrorKind::MissingToken
            | ErrorKind::UserDeactivated
            | ErrorKind::UserLocked
            | ErrorKind::UserSuspended,
        ) => SignInError::Refused(words(error)),
        _ => SignInError::Unreachable(words(error)),
    }
}

fn unexpected(error: impl std::fmt::Display) -> SignInError {
    SignInError::Unreachable(error.to_string())
}

/// How long the homeserver wants us to wait, if it says so.
pub fn retry_after(error: &HttpError) -> Option<Duration> {
    let Some(ErrorKind::LimitExceeded(limited)) = error.client_api_error_kind() else { return None };
    match limited.retry_after.as_ref()? {
        RetryAfter::Delay(delay) => Some(*delay),
        RetryAfter::DateTime(_) => None,
    }
}

/// What went wrong, without the address that was asked: it may hold more than logs should.
pub fn words(error: &HttpError) -> String {
    match error {
        HttpError::Reqwest(error) => {
            let cause = std::error::Error::source(error).map(chain);
            match cause {
                Some(cause) => cause,
                None if error.is_timeout() => "it took too long".to_owned(),
                None => "the connection broke".to_owned(),
            }
        }
        error => match error.as_client_api_error() {
            Some(answer) => answer.to_string(),
            None => chain(error),
        },
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_line_that_others_cannot_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        let written = |text: &str, mode: u32| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            read_secret(&path).map_err(|error| error.to_string())
        };
        assert_eq!(written("open sesame \n", 0o600).unwrap(), "open sesame ");
        assert!(written("open sesame", 0o640).unwrap_err().contains("mode 640"));
        for text in ["", "\n", "open\nsesame\n"] {
            assert!(written(text, 0o600).unwrap_err().contains("no single line"), "{text:?}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(read_secret(&path).unwrap_err().is_operators());
    }
}
