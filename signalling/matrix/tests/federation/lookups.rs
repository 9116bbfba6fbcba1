//! One homeserver, well or ill disposed.

use std::time::Duration;

use weir_matrix::names::{ServerName, UserId};
use weir_matrix::openid::{Home, HttpError, OpenIdConfig, OpenIdError, Reach};

use crate::dns::Zone;
use crate::homeserver::{Authority, Does, Homeserver, LOOPBACK, client};

/// Asks a server that does one thing whatever it is asked.
async fn ask(does: impl Fn(&str) -> Does + Send + Sync + 'static) -> Result<UserId, OpenIdError> {
    let authority = Authority::new();
    let server = Homeserver::start(&authority, &["127.0.0.1"], does).await;
    client(authority.config(), Zone::default()).await.user(&server.name(), "token").await
}

#[tokio::test]
async fn an_honest_homeserver_says_whose_a_token_is() {
    let authority = Authority::new();
    let server = Homeserver::start(&authority, &["127.0.0.1"], |path| {
        // Escaped, since a token may have any character.
        match path.split_once("access_token=") {
            Some(("/_matrix/federation/v1/openid/userinfo?", "a%20%26b%2F%3F")) => Does::vouch("@dana:SELF"),
            _ => Does::json("401 Unauthorized", "{\"errcode\":\"M_UNKNOWN_TOKEN\"}"),
        }
    })
    .await;
    let openid = client(authority.config(), Zone::default()).await;
    let user = openid.user(&server.name(), "a &b/?").await.unwrap();
    assert_eq!(user.as_str(), format!("@dana:{}", server.at));
    assert_eq!(openid.user(&server.name(), "other").await, Err(OpenIdError::UnknownToken));
}

async fn vouching(authority: &Authority, user: &'static str) -> Homeserver {
    Homeserver::start(authority, &["127.0.0.1"], move |_| Does::vouch(user)).await
}

#[tokio::test]
async fn a_user_of_the_server_that_was_asked_is_vouched_for_and_asked_about_once() {
    let authority = Authority::new();
    let server = vouching(&authority, "@dana:SELF").await;
    let openid = client(authority.config(), Zone::default()).await;
    for _ in 0..3 {
        let user = openid.user(&server.name(), "token").await.unwrap();
        assert_eq!(user.as_str(), format!("@dana:{}", server.at));
    }
    assert_eq!(server.connections(), 1, "the second and third time it is remembered");
    let head = server.requests().remove(0).to_ascii_lowercase();
    assert!(head.contains(&format!("\r\nhost: {}\r\n", server.at)), "{head}");
    openid.user(&server.name(), "another token").await.unwrap();
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn no_server_vouches_for_the_users_of_another() {
    let authority = Authority::new();
    for user in ["@admin:lab.example", "@admin:127.0.0.1", "@admin:127.0.0.1:1", "@admin:lab.example:SELF"] {
        let server = vouching(&authority, user).await;
        let openid = client(authority.config(), Zone::default()).await;
        let refused = openid.user(&server.name(), "token").await.unwrap_err();
        assert!(matches!(refused, OpenIdError::ForeignUser | OpenIdError::Malformed), "{user}: {refused}");
    }
}

#[tokio::test]
async fn an_answer_that_names_nobody_counts_for_nothing() {
    for body in
        ["", "{}", "[]", "{\"sub\":5}", "{\"sub\":\"dana\"}", "{\"sub\":\"@dana\"}", "x", "\u{feff}{}"]
    {
        let refused = ask(|_| Does::json("200 OK", body)).await;
        assert_eq!(refused, Err(OpenIdError::Malformed), "{body}");
    }
    for status in ["500 Internal Server Error", "404 Not Found", "204 No Content", "429 Too Many Requests"] {
        assert_eq!(ask(|_| Does::json(status, "{}")).await, Err(OpenIdError::Failed), "{status}");
    }
}

#[tokio::test]
async fn nobody_else_answers_by_redirect() {
    let authority = Authority::new();
    let other = vouching(&authority, "@dana:SELF").await;
    let to = format!("https://{}/", other.at);
    assert_eq!(ask(move |_| Does::redirect(&to)).await, Err(OpenIdError::Failed));
    assert_eq!(other.connections(), 0);
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    assert_eq!(ask(|_| Does::Floods).await, Err(HttpError::TooLarge.into()));
    assert_eq!(ask(|_| Does::FloodsHead).await, Err(HttpError::Broken.into()));
    assert_eq!(ask(|_| Does::BreaksOff).await, Err(HttpError::Broken.into()));
    assert_eq!(ask(|_| Does::Babbles).await, Err(HttpError::Broken.into()));
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let authority = Authority::new();
    let server = Homeserver::start(&authority, &["127.0.0.1"], |_| Does::Stalls).await;
    let config = OpenIdConfig { timeout: Duration::from_millis(300), ..authority.config() };
    let openid = client(config, Zone::default()).await;
    assert_eq!(openid.user(&server.name(), "token").await, Err(OpenIdError::TimedOut));
}

#[tokio::test]
async fn a_certificate_of_another_name_or_of_nobody_known_ends_it() {
    let authority = Authority::new();
    let server = Homeserver::start(&authority, &["lab.example"], |_| Does::Stalls).await;
    let openid = client(authority.config(), Zone::default()).await;
    assert_eq!(openid.user(&server.name(), "token").await, Err(HttpError::Certificate.into()));
    let trusting_others =
        OpenIdConfig { authorities: Authority::new().config().authorities, ..authority.config() };
    let server = Homeserver::start(&authority, &["127.0.0.1"], |_| Does::Stalls).await;
    let openid = client(trusting_others, Zone::default()).await;
    assert_eq!(openid.user(&server.name(), "token").await, Err(HttpError::Certificate.into()));
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn no_connection_is_made_to_a_private_address_however_it_is_named() {
    let authority = Authority::new();
    let server = Homeserver::start(&authority, &["127.0.0.1", "inside.example"], |_| Does::Stalls).await;
    let port = server.at.port();
    let config = OpenIdConfig { reach: Reach::default(), ..authority.config() };
    let zone = Zone::default().address("inside.example", LOOPBACK);
    let openid = client(config, zone).await;
    for name in [
        format!("127.0.0.1:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        format!("[::1]:{port}"),
        format!("inside.example:{port}"),
        format!("localhost:{port}"),
    ] {
        let refused = openid.user(&ServerName::parse(&name).unwrap(), "token").await;
        assert_eq!(refused, Err(HttpError::AddressNotAllowed.into()), "{name}");
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_name_with_a_public_and_a_private_address_is_asked_at_neither_door_but_the_allowed() {
    let authority = Authority::new();
    let names = ["127.0.0.1", "both.example"];
    let server = Homeserver::start(&authority, &names, |_| Does::vouch("@dana:both.example")).await;
    // As rebinding does it: the first address is fine, the second is not. Here 127.0.0.1 plays the public one.
    let zone =
        Zone::default().address("both.example", [10, 255, 255, 1].into()).address("both.example", LOOPBACK);
    let openid = client(authority.config(), zone).await;
    let name = ServerName::parse(&format!("both.example:{}", server.at.port())).unwrap();
    // It vouches for the name without the port, which is another server.
    assert_eq!(openid.user(&name, "token").await, Err(OpenIdError::ForeignUser));
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn the_own_homeserver_is_asked_where_the_operator_says_and_nowhere_else() {
    let authority = Authority::new();
    let server = Homeserver::start(&authority, &["127.0.0.1"], |_| Does::vouch("@dana:lab.example")).await;
    let own = ServerName::parse("lab.example").unwrap();
    let home = Home::new(own.clone(), &format!("https://{}/hs/", server.at)).unwrap();
    let config = OpenIdConfig { reach: Reach::default(), home: Some(home), ..authority.config() };
    let openid = client(config, Zone::default()).await;
    assert_eq!(openid.user(&own, "token").await.unwrap().as_str(), "@dana:lab.example");
    assert!(
        server.requests()[0].starts_with("GET /hs/_matrix/federation/v1/openid/userinfo?access_token=token ")
    );
    let other = ServerName::parse("else.example").unwrap();
    assert_eq!(openid.user(&other, "token").await, Err(HttpError::NoAddress.into()));
}
