//! How homeservers are reached: by the client that also asks whose an OpenID token is.

use axum::body::Body;
use axum::http::{Method, header};

use super::{Allowing, Failure, Reply, Replying, Request, Web};
use crate::names::Host;
use crate::openid::{Guard, Http, HttpError, OpenId, Target};
use crate::uri::Place;

/// An error is a hundred bytes, a well-known file a few hundred.
const MOST_BYTES: usize = 16 * 1024;

/// Does not connect to private addresses that the operator has not allowed, whoever named them.
pub struct GuardedWeb {
    http: Http,
}

impl GuardedWeb {
    pub fn new(openid: &OpenId) -> Self {
        Self { http: openid.http() }
    }

    async fn ask(&self, request: Request) -> Result<Reply, HttpError> {
        let place = Place::parse(&request.url).ok_or(HttpError::NoAddress)?;
        let sent = message(&place, &request)?;
        let target = Target { host: place.host, port: place.port };
        let guard = Guard { is_tls: place.is_tls, is_trusted: request.is_trusted };
        let answer = self.http.send(&target, guard, sent, MOST_BYTES).await?;
        let retry_after = answer.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        Ok(Reply {
            status: answer.status.as_u16(),
            retry_after: retry_after.map(str::to_owned),
            body: answer.body.to_vec(),
        })
    }
}

fn message(place: &Place, request: &Request) -> Result<axum::http::Request<Body>, HttpError> {
    let method = if request.body.is_some() { Method::POST } else { Method::GET };
    let message = axum::http::Request::builder().method(method).uri(&place.path);
    let mut message = message.header(header::HOST, &place.authority);
    if let Some(token) = &request.token {
        message = message.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    if request.body.is_some() {
        message = message.header(header::CONTENT_TYPE, "application/json");
    }
    let body = request.body.clone().map_or_else(Body::empty, Body::from);
    message.body(body).map_err(|_| HttpError::Broken)
}

impl Web for GuardedWeb {
    fn allows_plain<'a>(&'a self, host: &'a Host) -> Allowing<'a> {
        Box::pin(self.http.is_allowed(host))
    }

    fn request(&self, request: Request) -> Replying<'_> {
        Box::pin(async move {
            self.ask(request).await.map_err(|error| match error {
                HttpError::AddressNotAllowed => Failure::Forbidden,
                HttpError::NoAddress
                | HttpError::Unreachable
                | HttpError::Certificate
                | HttpError::Broken
                | HttpError::TooLarge => Failure::Connection,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Router;
    use axum::http::{HeaderMap, StatusCode, Uri};
    use tokio::net::TcpListener;

    use super::*;
    use crate::openid::{Dns, OpenIdConfig, Reach};

    /// A server that limits whoever asks, and repeats what it was asked.
    async fn serve() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = async |uri: Uri, headers: HeaderMap, body: String| {
            let token =
                headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or("-");
            let host = headers[header::HOST].to_str().unwrap();
            (
                StatusCode::TOO_MANY_REQUESTS,
                [(header::RETRY_AFTER, "7")],
                format!("{host} {uri} {token} {body}"),
            )
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        format!("http://{address}")
    }

    fn web(networks: &[&str]) -> GuardedWeb {
        let reach = Reach::new(networks.iter().map(|network| network.parse().unwrap()).collect());
        let config = OpenIdConfig { reach, ..OpenIdConfig::default() };
        GuardedWeb::new(&OpenId::new(config, Dns::system().unwrap()).unwrap())
    }

    fn request(url: String, is_trusted: bool) -> Request {
        Request { body: Some("{}".to_owned()), url, token: Some(Arc::from("secret")), is_trusted }
    }

    #[tokio::test]
    async fn a_private_address_is_asked_only_if_the_operator_named_or_allowed_it() {
        let server = serve().await;
        let url = format!("{server}/a?b=c");
        let refused = web(&[]).request(request(url.clone(), false)).await.err();
        assert_eq!(refused, Some(Failure::Forbidden));
        for (networks, is_trusted) in [(&["127.0.0.0/8"][..], false), (&[], true)] {
            let reply = web(networks).request(request(url.clone(), is_trusted)).await.unwrap();
            assert_eq!((reply.status, reply.retry_after.as_deref()), (429, Some("7")));
            let host = server.strip_prefix("http://").unwrap();
            assert_eq!(String::from_utf8(reply.body).unwrap(), format!("{host} /a?b=c Bearer secret {{}}"));
        }
    }

    #[tokio::test]
    async fn without_tls_only_allowed_networks_are_asked_whatever_else_is_allowed() {
        let web = web(&["127.0.0.0/8"]);
        let host = |address: &str| Host::Address(address.parse().unwrap());
        assert!(web.allows_plain(&host("127.0.0.9")).await);
        for elsewhere in ["9.9.9.9", "10.0.0.1", "::1"] {
            assert!(!web.allows_plain(&host(elsewhere)).await, "{elsewhere}");
        }
        let asked = web.request(request("http://9.9.9.9/".to_owned(), false)).await;
        assert_eq!(asked.err(), Some(Failure::Forbidden));
    }

    #[tokio::test]
    async fn what_cannot_be_reached_or_is_no_address_is_a_failure() {
        let web = web(&["127.0.0.0/8"]);
        for url in ["http://127.0.0.1:1/", "https://127.0.0.1:1/", "nonsense", "http://u@127.0.0.1/"] {
            assert_eq!(
                web.request(request(url.to_owned(), false)).await.err(),
                Some(Failure::Connection),
                "{url}"
            );
        }
    }
}
