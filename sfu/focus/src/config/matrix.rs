//! What a type cannot say of the section `[matrix]`.

use std::ops::RangeInclusive;

use weir_matrix::names::{ServerName, UserId};
use weir_matrix::openid::Home;

use super::check::{check_number, wrong};
use super::{ConfigError, Matrix, Membership, User};

/// A client connects within some seconds of its token; a day is longer than any call is prepared.
const TOKEN_SECONDS: RangeInclusive<u32> = 60..=weir_matrix::rooms::LONGEST_TOKEN_SECONDS;
/// Clients wait for about as long.
const TIMEOUT_SECONDS: RangeInclusive<u32> = 1..=60;
const LOOKUPS_PER_SECOND: RangeInclusive<u32> = 1..=100_000;
/// A homeserver that sends the news of more has work with it.
const MAX_ROOMS: RangeInclusive<u32> = 1..=100_000;
const LIKE_THIS: &str = "write it as in its users' ids: \"example.org\", with a port if they have one";

pub(super) fn check(matrix: &Matrix) -> Result<(), ConfigError> {
    if !matrix.is_on() {
        if *matrix != Matrix::default() {
            let remedy = "name the homeserver: server_name = \"example.org\"";
            return wrong(
                "matrix.server_name",
                "\"\"",
                "without it the rest of [matrix] does nothing",
                remedy,
            );
        }
        return Ok(());
    }
    let Some(server) = ServerName::parse(&matrix.server_name) else {
        return wrong("matrix.server_name", &matrix.server_name, "that is no homeserver's name", LIKE_THIS);
    };
    check_url(&matrix.url)?;
    if !matrix.prefix.starts_with('/') || matrix.prefix.contains(['?', '#', '%', ' ']) {
        let remedy = "write the path of the URL that the homeserver announces: \"/livekit/jwt\"";
        return wrong("matrix.prefix", &matrix.prefix, "that is no path", remedy);
    }
    if let Some(url) = &matrix.homeserver_url
        && Home::new(server, url).is_none()
    {
        let remedy = "write for example \"http://127.0.0.1:8008\" or \"https://matrix.example.org\"";
        return wrong("matrix.homeserver_url", url, "that is no URL of a server", remedy);
    }
    check_rooms(matrix)?;
    check_servers("matrix.creators", &matrix.creators)?;
    check_servers("matrix.publishers", &matrix.publishers)?;
    check_number("matrix.token_seconds", matrix.token_seconds, TOKEN_SECONDS, "3600 is customary")?;
    let openid = &matrix.openid;
    check_number("matrix.openid.timeout_seconds", openid.timeout_seconds, TIMEOUT_SECONDS, "10 serves most")?;
    let (key, lookups) = ("matrix.openid.lookups_per_second", openid.lookups_per_second);
    check_number(key, lookups, LOOKUPS_PER_SECOND, "200 serves most")
}

fn check_rooms(matrix: &Matrix) -> Result<(), ConfigError> {
    if matrix.appservice.registration.is_some() && matrix.homeserver_url.is_none() {
        let problem = "an application service must know where its homeserver is";
        let remedy = "write where its client-server API is: homeserver_url = \"http://127.0.0.1:8008\"";
        return wrong("matrix.homeserver_url", "(none)", problem, remedy);
    }
    if matrix.appservice.tokens && matrix.appservice.registration.is_none() {
        let problem = "the homeserver passes requests on to its application services only";
        let remedy = "write a registration with `weir appservice generate --tokens` and name it: \
                      registration = \"/etc/weir/appservice.yaml\"";
        return wrong("matrix.appservice.tokens", true, problem, remedy);
    }
    if matrix.appservice.tokens && !matrix.leaves.delegation {
        let problem =
            "clients take it that whoever serves tokens so keeps their leaves alive, and would do so no more";
        let remedy = "set matrix.leaves.delegation = true, or matrix.appservice.tokens = false with a registration \
                      that was written without --tokens";
        return wrong("matrix.leaves.delegation", false, problem, remedy);
    }
    let sees_nothing = matrix.appservice.registration.is_none() && !matrix.user.is_on();
    if matrix.membership == Membership::Require && sees_nothing {
        let problem = "the focus sees no Matrix room, so nobody could join";
        let remedy = "make it an application service with `weir appservice generate` or a user with [matrix.user], or \
            choose \"when-visible\"";
        return wrong("matrix.membership", "require", problem, remedy);
    }
    check_user(matrix)
}

fn check_user(matrix: &Matrix) -> Result<(), ConfigError> {
    let user = &matrix.user;
    if !user.is_on() {
        if *user != User::default() {
            let remedy = "name the user: id = \"@weir:example.org\"";
            let problem = "without it the rest of [matrix.user] does nothing";
            return wrong("matrix.user.id", "\"\"", problem, remedy);
        }
        return Ok(());
    }
    let Some(id) = user_id(matrix) else {
        let remedy = "write it as \"weir\" or \"@weir:example.org\"";
        return wrong("matrix.user.id", &user.id, "that is no Matrix user", remedy);
    };
    if matrix.appservice.registration.is_some() {
        let problem =
            "the focus is an application service already, and sees every room that the user could see";
        let remedy = "leave out [matrix.user], or registration in [matrix.appservice]";
        return wrong("matrix.user.id", &user.id, problem, remedy);
    }
    match (&user.password_file, &user.access_token_file) {
        (None, None) => {
            let remedy =
                "write its password into a file and name that: password_file = \"/etc/weir/password\"";
            return wrong("matrix.user.password_file", "(none)", "the user cannot sign in", remedy);
        }
        (Some(_), Some(token)) => {
            let problem = "there is a password_file as well";
            return wrong("matrix.user.access_token_file", token.display(), problem, "leave out one of them");
        }
        _ => {}
    }
    match user_homeserver(matrix) {
        None => {
            let problem = "nothing says where the user's homeserver is";
            let remedy =
                "write where its client-server API is: homeserver_url = \"https://matrix.example.org\"";
            return wrong("matrix.user.homeserver_url", "(none)", problem, remedy);
        }
        Some(url) if Home::new(id.server().clone(), url).is_none() => {
            let remedy = "write for example \"http://127.0.0.1:8008\" or \"https://matrix.example.org\"";
            return wrong("matrix.user.homeserver_url", url, "that is no URL of a server", remedy);
        }
        Some(_) => {}
    }
    check_servers("matrix.user.invited_by", &user.invited_by)?;
    check_number("matrix.user.max_rooms", user.max_rooms, MAX_ROOMS, "1000 serves most")
}

/// The id of the focus's user, whose localpart alone may have been written.
pub fn user_id(matrix: &Matrix) -> Option<UserId> {
    match matrix.user.id.as_str() {
        id if id.starts_with('@') => UserId::parse(id),
        localpart if localpart.contains(':') => None,
        localpart => UserId::parse(&format!("@{localpart}:{}", matrix.server_name)),
    }
}

/// Where the homeserver of the focus's user is.
pub fn user_homeserver(matrix: &Matrix) -> Option<&str> {
    let is_own = || user_id(matrix).is_some_and(|id| id.server().as_str() == matrix.server_name);
    let own = || matrix.homeserver_url.as_deref().filter(|_| is_own());
    matrix.user.homeserver_url.as_deref().or_else(own)
}

fn check_url(url: &str) -> Result<(), ConfigError> {
    let remedy = "write it as clients reach it through the proxy: \"wss://rtc.example.org/livekit/sfu\"";
    let rest = url.strip_prefix("wss://").or_else(|| url.strip_prefix("ws://"));
    let host = rest.and_then(|rest| rest.split('/').next());
    let has_only_path = url.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#'));
    if url.is_empty() {
        return wrong("matrix.url", "\"\"", "clients must be told where to connect", remedy);
    }
    if host.and_then(ServerName::parse).is_none() || !has_only_path {
        return wrong("matrix.url", url, "that is no WebSocket URL", remedy);
    }
    Ok(())
}

fn check_servers(key: &str, servers: &[String]) -> Result<(), ConfigError> {
    if servers.len() > 1 && servers.iter().any(|server| server == "*") {
        return wrong(key, format!("{servers:?}"), "\"*\" is all servers", "write \"*\" alone, or no \"*\"");
    }
    for (at, server) in servers.iter().enumerate() {
        if server != "*" && ServerName::parse(server).is_none() {
            return wrong(&format!("{key}[{at}]"), server, "that is no homeserver's name", LIKE_THIS);
        }
    }
    Ok(())
}
