//! How a homeserver is found by its name, in the order of the specification.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use weir_matrix::names::ServerName;
use weir_matrix::openid::{HttpError, OpenIdConfig, OpenIdError, Ports, Reach};

use crate::dns::Zone;
use crate::homeserver::{Authority, Does, Homeserver, LOOPBACK, both_at, client, loopback};

const WELL_KNOWN: &str = "/.well-known/matrix/server";

fn lab() -> ServerName {
    ServerName::parse("lab.example").unwrap()
}

fn host_of(head: &str) -> String {
    let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("host:")).unwrap();
    line["host:".len()..].trim().to_owned()
}

/// Vouches for a user of lab.example, and delegates to what is given.
fn vouching(delegates_to: Option<String>) -> impl Fn(&str) -> Does + Send + Sync + 'static {
    move |path| match (path, &delegates_to) {
        (WELL_KNOWN, Some(to)) => Does::json("200 OK", &format!("{{\"m.server\":\"{to}\"}}")),
        (WELL_KNOWN, None) => Does::nothing_here(),
        _ => Does::vouch("@dana:lab.example"),
    }
}

#[tokio::test]
async fn without_a_word_it_is_at_the_port_of_federation() {
    let authority = Authority::new();
    let server = Homeserver::start(&authority, &["lab.example"], vouching(None)).await;
    let config = OpenIdConfig { ports: both_at(&server), ..authority.config() };
    let openid = client(config, Zone::default().address("lab.example", LOOPBACK)).await;
    assert_eq!(openid.user(&lab(), "token").await.unwrap().as_str(), "@dana:lab.example");
    let hosts: Vec<String> = server.requests().iter().map(|head| host_of(head)).collect();
    assert_eq!(hosts, ["lab.example", "lab.example"], "the well-known and the question");
}

#[tokio::test]
async fn a_delegation_to_a_name_with_a_port_is_followed_and_remembered() {
    let authority = Authority::new();
    let server = Homeserver::start(&authority, &["hs.example"], vouching(None)).await;
    let to = format!("hs.example:{}", server.at.port());
    let site = Homeserver::start(&authority, &["lab.example"], vouching(Some(to.clone()))).await;
    let ports = Ports { https: site.at.port(), federation: 1 };
    let zone = Zone::default().address("lab.example", LOOPBACK).address("hs.example", LOOPBACK);
    let openid = client(OpenIdConfig { ports, ..authority.config() }, zone).await;
    for token in ["one", "two"] {
        assert_eq!(openid.user(&lab(), token).await.unwrap().as_str(), "@dana:lab.example");
    }
    assert_eq!(site.connections(), 1);
    assert_eq!(server.requests().iter().map(|head| host_of(head)).collect::<Vec<_>>(), [to.clone(), to]);
}

#[tokio::test]
async fn a_delegation_to_an_address_needs_a_certificate_for_that_address() {
    let authority = Authority::new();
    let right = Homeserver::start(&authority, &["127.0.0.1"], vouching(None)).await;
    let wrong = Homeserver::start(&authority, &["lab.example"], vouching(None)).await;
    for (server, is_right) in [(right, true), (wrong, false)] {
        let site =
            Homeserver::start(&authority, &["lab.example"], vouching(Some(server.at.to_string()))).await;
        let ports = Ports { https: site.at.port(), federation: 1 };
        let zone = Zone::default().address("lab.example", LOOPBACK);
        let openid = client(OpenIdConfig { ports, ..authority.config() }, zone).await;
        assert_eq!(openid.user(&lab(), "token").await.is_ok(), is_right);
        assert_eq!(server.requests().len(), usize::from(is_right));
    }
}

#[tokio::test]
async fn services_are_tried_best_first_and_must_be_certified_for_the_name() {
    let authority = Authority::new();
    let server = Homeserver::start(&authority, &["lab.example"], vouching(None)).await;
    let target = Homeserver::start(&authority, &["a.example"], vouching(None)).await;
    let port = server.at.port();
    let ports = Ports { https: 1, federation: 1 };
    let config = || OpenIdConfig { ports, ..authority.config() };
    let zone = Zone::default().address("a.example", LOOPBACK).address("lab.example", LOOPBACK);
    let fed = "_matrix-fed._tcp.lab.example";
    // One that refuses connections, and then the right one; the former name of the service is not looked at.
    let good = zone
        .clone()
        .service(fed, (20, 0, port, "a.example"))
        .service(fed, (10, 0, 1, "a.example"))
        .service("_matrix._tcp.lab.example", (0, 0, 1, "a.example"));
    assert!(client(config(), good).await.user(&lab(), "token").await.is_ok());
    assert_eq!(host_of(&server.requests()[0]), "lab.example");
    let former = zone.clone().service("_matrix._tcp.lab.example", (0, 0, port, "a.example"));
    assert!(client(config(), former).await.user(&lab(), "token").await.is_ok());
    // Whoever forges a record still has no certificate.
    let forged = zone.clone().service(fed, (0, 0, target.at.port(), "a.example"));
    let refused = client(config(), forged).await.user(&lab(), "token").await;
    assert_eq!(refused, Err(HttpError::Certificate.into()));
    let private = zone.service(fed, (0, 0, port, "a.example"));
    let public_only = OpenIdConfig { reach: Reach::default(), ..config() };
    let refused = client(public_only, private).await.user(&lab(), "token").await;
    assert_eq!(refused, Err(HttpError::AddressNotAllowed.into()));
}

#[tokio::test]
async fn whoever_lists_many_places_has_few_of_them_knocked_at() {
    let authority = Authority::new();
    let victim = Homeserver::start(&authority, &["victim.example"], vouching(None)).await;
    let mut zone = Zone::default();
    for n in 0..8 {
        let target = format!("t{n}.example");
        zone = zone.service("_matrix-fed._tcp.lab.example", (n, 0, victim.at.port(), &target));
        for _ in 0..8 {
            zone = zone.address(&target, LOOPBACK);
        }
    }
    let ports = Ports { https: 1, federation: 1 };
    let openid = client(OpenIdConfig { ports, ..authority.config() }, zone).await;
    assert_eq!(openid.user(&lab(), "token").await, Err(HttpError::Certificate.into()));
    assert_eq!(victim.connections(), 8);
}

#[tokio::test]
async fn a_delegated_name_without_a_port_may_have_services_of_its_own() {
    let authority = Authority::new();
    let server = Homeserver::start(&authority, &["hs.example"], vouching(None)).await;
    let site = Homeserver::start(&authority, &["lab.example"], vouching(Some("hs.example".to_owned()))).await;
    let ports = Ports { https: site.at.port(), federation: 1 };
    let zone = Zone::default()
        .address("lab.example", LOOPBACK)
        .address("a.example", LOOPBACK)
        .service("_matrix-fed._tcp.hs.example", (0, 0, server.at.port(), "a.example"));
    let openid = client(OpenIdConfig { ports, ..authority.config() }, zone).await;
    assert_eq!(openid.user(&lab(), "token").await.unwrap().as_str(), "@dana:lab.example");
    assert_eq!(host_of(&server.requests()[0]), "hs.example");
}

#[tokio::test]
async fn a_well_known_that_is_none_is_passed_over() {
    let authority = Authority::new();
    let odd = [
        Does::json("200 OK", "<html>"),
        Does::json("200 OK", "{}"),
        Does::json("200 OK", "{\"m.server\":5}"),
        Does::json("200 OK", "{\"m.server\":\"https://hs.example\"}"),
        Does::json("500 Internal Server Error", "{\"m.server\":\"hs.example\"}"),
        Does::Floods,
        Does::Babbles,
        Does::redirect("http://lab.example/"),
        Does::redirect("gopher:x"),
    ];
    for does in odd {
        let shown = format!("{does:?}");
        let server = Homeserver::start(&authority, &["lab.example"], move |path| match path {
            WELL_KNOWN => does.clone(),
            _ => Does::vouch("@dana:lab.example"),
        })
        .await;
        let config = OpenIdConfig { ports: both_at(&server), ..authority.config() };
        let openid = client(config, Zone::default().address("lab.example", LOOPBACK)).await;
        assert!(openid.user(&lab(), "token").await.is_ok(), "{shown}");
    }
}

#[tokio::test]
async fn a_well_known_that_never_comes_costs_half_the_time_once() {
    let authority = Authority::new();
    let site = Homeserver::start(&authority, &["lab.example"], |_| Does::Stalls).await;
    let server = Homeserver::start(&authority, &["lab.example"], vouching(None)).await;
    let ports = Ports { https: site.at.port(), federation: server.at.port() };
    let config = OpenIdConfig { ports, timeout: Duration::from_secs(10), ..authority.config() };
    let openid = client(config, Zone::default().address("lab.example", LOOPBACK)).await;
    for token in ["one", "two"] {
        assert_eq!(openid.user(&lab(), token).await.unwrap().as_str(), "@dana:lab.example");
    }
    assert_eq!(site.connections(), 1);
}

#[tokio::test]
async fn redirects_of_the_well_known_are_followed_a_few_times_and_never_inside() {
    let authority = Authority::new();
    let server = Homeserver::start(&authority, &["hs.example"], vouching(None)).await;
    let to = format!("{{\"m.server\":\"hs.example:{}\"}}", server.at.port());
    let hops = Arc::new(AtomicUsize::new(0));
    for (redirects, is_found) in [(1, true), (3, true), (4, false), (usize::MAX, false)] {
        let (counted, to) = (Arc::clone(&hops), to.clone());
        counted.store(0, Ordering::SeqCst);
        let site = Homeserver::start(&authority, &["lab.example"], move |_| {
            let hop = counted.fetch_add(1, Ordering::SeqCst);
            if hop < redirects { Does::redirect(&format!("/hop/{hop}")) } else { Does::json("200 OK", &to) }
        })
        .await;
        let ports = Ports { https: site.at.port(), federation: 1 };
        let zone = Zone::default().address("lab.example", LOOPBACK).address("hs.example", LOOPBACK);
        let openid = client(OpenIdConfig { ports, ..authority.config() }, zone).await;
        assert_eq!(openid.user(&lab(), "token").await.is_ok(), is_found, "{redirects}");
        assert!(hops.load(Ordering::SeqCst) <= 4);
    }
    // A site that may be reached sends us to one that may not.
    let inside = loopback(9);
    let secret = Homeserver::start_at(&authority, &["127.0.0.9"], (inside, 0).into(), vouching(None)).await;
    let at = secret.at.to_string();
    let site =
        Homeserver::start(&authority, &["lab.example"], move |_| Does::redirect(&format!("https://{at}/")))
            .await;
    let ports = Ports { https: site.at.port(), federation: 1 };
    let reach = Reach::new(vec!["127.0.0.1/32".parse().unwrap()]);
    let zone = Zone::default().address("lab.example", LOOPBACK);
    let openid =
        client(OpenIdConfig { ports, reach: reach.clone(), ..authority.config() }, zone.clone()).await;
    openid.user(&lab(), "token").await.unwrap_err();
    // And one that delegates there.
    let site = Homeserver::start(&authority, &["lab.example"], vouching(Some(secret.at.to_string()))).await;
    let ports = Ports { https: site.at.port(), federation: 1 };
    let openid = client(OpenIdConfig { ports, reach, ..authority.config() }, zone).await;
    let refused = openid.user(&lab(), "token").await;
    assert_eq!(refused, Err(OpenIdError::Http(HttpError::AddressNotAllowed)));
    assert_eq!(secret.connections(), 0);
}
