//! The focus as a Matrix user, as the configuration has it.

use std::path::Path;

use weir_matrix::names::{ServerName, UserId};
use weir_matrix::store::Store;
use weir_matrix_user::{Idle, Secret, SecretProblem, SignInError, StartError, User, UserConfig, read_secret};

use super::{read_authorities, servers, wrong};
use crate::config::{ConfigError, Matrix, user_homeserver, user_id};

const PASSWORD: &str = "matrix.user.password_file";
const ACCESS_TOKEN: &str = "matrix.user.access_token_file";

/// Nothing if it is none.
pub async fn start(
    matrix: &Matrix,
    store: &Store,
    registry: &prometheus::Registry,
) -> anyhow::Result<Option<Idle>> {
    let (Some(user), true) = (user_id(matrix), matrix.user.is_on()) else { return Ok(None) };
    let Some(config) = config(matrix, user)? else { return Ok(None) };
    let secret = config.secret.clone();
    let idle = User::start(config, store.clone(), registry).await.map_err(|error| match error {
        StartError::SignIn(error) => match explain(matrix, &secret, &error) {
            Some(explained) => anyhow::Error::from(explained),
            None => error.into(),
        },
        error => error.into(),
    })?;
    Ok(Some(idle))
}

/// Complains of a file that no secret could be read from, before anybody signs in with it.
pub fn check(matrix: &Matrix) -> Result<(), ConfigError> {
    let (Some(user), true) = (user_id(matrix), matrix.user.is_on()) else { return Ok(()) };
    let Some(UserConfig { secret, .. }) = config(matrix, user)? else { return Ok(()) };
    let (Secret::Password(path) | Secret::AccessToken(path)) = &secret;
    let Err(error) = read_secret(path) else { return Ok(()) };
    explain(matrix, &secret, &error).map_or(Ok(()), Err)
}

/// What has been checked to be there.
fn config(matrix: &Matrix, user: UserId) -> Result<Option<UserConfig>, ConfigError> {
    let keys = &matrix.user;
    let secret = match (&keys.password_file, &keys.access_token_file) {
        (Some(path), _) => Secret::Password(path.clone()),
        (None, Some(path)) => Secret::AccessToken(path.clone()),
        (None, None) => return Ok(None),
    };
    let (Some(url), Some(own)) = (user_homeserver(matrix), ServerName::parse(&matrix.server_name)) else {
        return Ok(None);
    };
    let authorities = match &matrix.openid.authorities_file {
        Some(path) => read_authorities(path)?,
        None => Vec::new(),
    };
    Ok(Some(UserConfig {
        user,
        homeserver_url: url.to_owned(),
        secret,
        authorities: authorities.iter().map(|certificate| certificate.to_vec()).collect(),
        inviters: servers(&keys.invited_by, &own),
        max_rooms: keys.max_rooms as usize,
    }))
}

/// An operator's mistake by key, value and remedy.
fn explain(matrix: &Matrix, secret: &Secret, error: &SignInError) -> Option<ConfigError> {
    let id = &matrix.user.id;
    let (key, path, what) = match secret {
        Secret::Password(path) => (PASSWORD, path, "password"),
        Secret::AccessToken(path) => (ACCESS_TOKEN, path, "access token"),
    };
    let at_file = |remedy: &str| Some(wrong(key, &path.display().to_string(), &problem(error), remedy));
    match error {
        SignInError::Secret { problem, .. } => match problem {
            SecretProblem::Read(_) => at_file("name a file that exists and that weir may read"),
            SecretProblem::Readable(_) => at_file(&format!("chmod 600 {}", path.display())),
            SecretProblem::Malformed => at_file(&format!("write the {what} into it, and nothing else")),
        },
        SignInError::Refused(_) => at_file(&format!(
            "write the {what} of {id} into it; see that the account exists and is not locked"
        )),
        SignInError::OtherUser(user) => {
            let remedy = format!("write \"{user}\", or a token of {id} into {}", path.display());
            Some(wrong("matrix.user.id", id, &problem(error), &remedy))
        }
        SignInError::Url { url } => {
            let remedy = "write for example http://127.0.0.1:8008";
            Some(wrong("matrix.user.homeserver_url", url, "that is no URL of a server", remedy))
        }
        SignInError::Authorities(_) => {
            let path: Option<&Path> = matrix.openid.authorities_file.as_deref();
            let value = path.map_or_else(|| "(none)".to_owned(), |path| path.display().to_string());
            let remedy = "install the system's ca-certificates, and see that the file holds certificates";
            Some(wrong("matrix.openid.authorities_file", &value, &problem(error), remedy))
        }
        SignInError::Limited(_) | SignInError::Unreachable(_) | SignInError::Store(_) => None,
    }
}

/// In words, without the path that stands beside it.
fn problem(error: &SignInError) -> String {
    match error {
        SignInError::Secret { problem, .. } => problem.to_string(),
        error => error.to_string(),
    }
}
