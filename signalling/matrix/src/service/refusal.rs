//! Why a request gets no token, and how that is said. Clients act on the status and the errcode, and show the text.
//!
//! No text says whether a user, a device or a room exists, nor what became of a look-up: by that, strangers could map
//! networks that only the focus reaches.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::openid::OpenIdError;
use crate::policy::Denied;
use crate::request::BadRequest;

/// When to try again, after a refusal for want of places.
const RETRY_AFTER_SECONDS: u16 = 1;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    BadRequest(#[from] BadRequest),
    #[error("the body is too large")]
    TooLarge,
    #[error("the body did not come")]
    Unfinished,
    #[error("this focus keeps no delayed leave alive for this request: leave the delay parameters out")]
    NoLeaves,
    #[error("{0}")]
    Leave(&'static str),
    #[error("the homeserver has no such delayed event")]
    NoSuchLeave,
    #[error("the homeserver does not let others manage delayed events")]
    LeaveUnsupported,
    #[error("unrecognised request")]
    NotHere,
    #[error("the OpenID token could not be verified")]
    NotVerified,
    #[error("the claimed user is not the one that the OpenID token is of")]
    NotTheClaimed,
    #[error("this is not the hs_token")]
    NotTheHomeserver,
    #[error("this is for the homeserver, which shows its hs_token")]
    NoHsToken,
    #[error("the homeserver does not say whose request it passes on")]
    NobodyNamed,
    #[error("that is not the focus of this homeserver")]
    NotThisFocus,
    #[error("the other homeserver finds the request at fault")]
    RefusedThere,
    #[error("the other homeserver gives no token now")]
    NotRelayed,
    #[error("the homeserver does not answer now: try again")]
    HomeserverAway,
    #[error("you may not join this call")]
    Forbidden,
    #[error("it cannot be said now whether you may join this call: try again")]
    Undecided,
    #[error("too many requests")]
    Busy,
    #[error("no focus can take this call now")]
    NoFocus,
    #[error("internal error")]
    Internal,
}

impl Refusal {
    fn code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::BadRequest(BadRequest::NotJson) => (StatusCode::BAD_REQUEST, "M_NOT_JSON"),
            Self::BadRequest(BadRequest::ForeignUser) | Self::Forbidden => {
                (StatusCode::FORBIDDEN, "M_FORBIDDEN")
            }
            Self::BadRequest(BadRequest::Key(_) | BadRequest::HalfLeave)
            | Self::NoLeaves
            | Self::Leave(_) => (StatusCode::BAD_REQUEST, "M_BAD_JSON"),
            Self::NoSuchLeave | Self::NotThisFocus | Self::RefusedThere => {
                (StatusCode::BAD_REQUEST, "M_INVALID_PARAM")
            }
            Self::LeaveUnsupported => (StatusCode::BAD_REQUEST, "M_UNSUPPORTED"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE"),
            Self::Unfinished => (StatusCode::REQUEST_TIMEOUT, "M_UNKNOWN"),
            Self::NotHere => (StatusCode::NOT_FOUND, "M_UNRECOGNIZED"),
            Self::NotVerified | Self::NotTheClaimed | Self::NobodyNamed => {
                (StatusCode::UNAUTHORIZED, "M_UNAUTHORIZED")
            }
            Self::NoHsToken => (StatusCode::UNAUTHORIZED, "M_MISSING_TOKEN"),
            Self::NotTheHomeserver => (StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN"),
            Self::NotRelayed => (StatusCode::BAD_GATEWAY, "M_UNKNOWN"),
            Self::Busy => (StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED"),
            Self::Undecided | Self::NoFocus | Self::HomeserverAway => {
                (StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN")
            }
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN"),
        }
    }

    /// For metrics.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::BadRequest(BadRequest::ForeignUser) | Self::Forbidden => "forbidden",
            Self::BadRequest(_)
            | Self::Leave(_)
            | Self::NoSuchLeave
            | Self::NotThisFocus
            | Self::RefusedThere
            | Self::TooLarge
            | Self::Unfinished => "malformed",
            Self::NoLeaves | Self::LeaveUnsupported | Self::NotHere => "unsupported",
            Self::NotVerified
            | Self::NotTheClaimed
            | Self::NotTheHomeserver
            | Self::NoHsToken
            | Self::NobodyNamed => "unauthorised",
            Self::Busy => "busy",
            Self::Undecided | Self::NoFocus | Self::Internal | Self::NotRelayed | Self::HomeserverAway => {
                "failed"
            }
        }
    }
}

impl From<OpenIdError> for Refusal {
    fn from(error: OpenIdError) -> Self {
        match error {
            OpenIdError::Busy(_) => Self::Busy,
            OpenIdError::TimedOut
            | OpenIdError::Http(_)
            | OpenIdError::UnknownToken
            | OpenIdError::Failed
            | OpenIdError::Malformed
            | OpenIdError::ForeignUser => Self::NotVerified,
        }
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::NotAllowed => Self::Forbidden,
            Denied::Undecided => Self::Undecided,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, errcode) = self.code();
        let mut body = json!({ "errcode": errcode, "error": self.to_string() });
        if self == Self::Busy {
            body["retry_after_ms"] = (u32::from(RETRY_AFTER_SECONDS) * 1_000).into();
        }
        let mut response = (status, axum::Json(body)).into_response();
        if self == Self::Busy {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        response
    }
}
