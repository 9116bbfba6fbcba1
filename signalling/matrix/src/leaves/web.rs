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
