//! How homeservers are reached: by the client that also asks whose an OpenID token is.

use axum::body::Body;
use axum::http::{Method, Uri, header};

use super::{Failure, Reply, Replying, Request, Web};
use crate::names::ServerName;
use crate::openid::{Guard, Http, HttpError, OpenId, Target};

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
        let uri: Uri = request.url.parse().map_err(|_| HttpError::NoAddress)?;
        let authority = uri.authority().ok_or(HttpError::NoAddress)?.as_str();
        let place = ServerName::parse(authority).ok_or(HttpError::NoAddress)?;
        let is_tls = uri.scheme_str() == Some("https");
        let port = place.port().unwrap_or(if is_tls { 443 } else { 80 });
        let target = Target { host: place.host().clone(), port };
        let guard = Guard { is_tls, is_trusted: request.is_trusted };
        let sent = message(&uri, authority, &request)?;
        let answer = self.http.send(&target, guard, sent, MOST_BYTES).await?;
        let retry_after = answer.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        Ok(Reply {
            status: answer.status.as_u16(),
            retry_after: retry_after.map(str::to_owned),
            body: answer.body.to_vec(),
        })
    }
}

fn message(uri: &Uri, host: &str, request: &Request) -> Result<axum::http::Request<Body>, HttpError> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let method = if request.body.is_some() { Method::POST } else { Method::GET };
    let mut message = axum::http::Request::builder().method(method).uri(path).header(header::HOST, host);
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
    use axum::http::{HeaderMap, StatusCode};
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
