//! The homeserver's interface to delayed events, in the forms that it has had (MSC4140).
//!
//! All take the same actions. Which one a homeserver speaks is found out by asking: one that knows a path answers
//! `M_NOT_FOUND` for an event it lacks, one that does not answers `M_UNRECOGNIZED`.

use std::time::Duration;

use serde::Deserialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Restart,
    Send,
    Cancel,
}

impl Action {
    pub fn name(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Send => "send",
            Self::Cancel => "cancel",
        }
    }
}

/// How an action is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Form {
    /// A path for each action, under the unstable prefix; Synapse since November 2025.
    #[default]
    UnstablePath,
    /// The action in the body; Synapse before.
    UnstableBody,
    /// What the accepted proposal says.
    Stable,
}

impl Form {
    fn next(self) -> Option<Self> {
        match self {
            Self::UnstablePath => Some(Self::UnstableBody),
            Self::UnstableBody => Some(Self::Stable),
            Self::Stable => None,
        }
    }
}

/// A form, and whether the homeserver is told who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Dialect {
    pub form: Form,
    pub is_authenticated: bool,
}

impl Dialect {
    /// Each form, with and without authentication.
    pub(super) const COUNT: u32 = 6;

    /// What to try after this was not understood, or not without a token.
    pub(super) fn next(self, is_unauthorised: bool, may_authenticate: bool) -> Option<Self> {
        match is_unauthorised {
            true if may_authenticate && !self.is_authenticated => {
                Some(Self { is_authenticated: true, ..self })
            }
            true => None,
            false => Some(Self { form: self.form.next()?, ..self }),
        }
    }

    /// The path and the body of a request. The id is made of characters that a path takes as they are.
    pub fn request(self, delay_id: &str, action: Action) -> (String, String) {
        const UNSTABLE: &str = "/_matrix/client/unstable/org.matrix.msc4140/delayed_events";
        let name = action.name();
        match self.form {
            Form::UnstablePath => (format!("{UNSTABLE}/{delay_id}/{name}"), "{}".to_owned()),
            Form::UnstableBody => (format!("{UNSTABLE}/{delay_id}"), format!("{{\"action\":\"{name}\"}}")),
            Form::Stable => (format!("/_matrix/client/v1/delayed_events/{delay_id}/{name}"), "{}".to_owned()),
        }
    }
}

/// What a homeserver said, or that it said nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    /// There is no such event, or it was sent or cancelled.
    Gone,
    Limited(Duration),
    /// The path is not known there.
    Unrecognised,
    /// Not without a token, or not with this one.
    Unauthorised,
    Refused(u16),
    Failed(Failure),
}

/// Why there was no answer to judge by. Metrics are labelled with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection, or it broke.
    Connection,
    Timeout,
    /// The homeserver failed, by its status.
    Status,
    /// The address may not be asked.
    Forbidden,
}

impl Answer {
    /// A word for metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Gone => "gone",
            Self::Limited(_) => "limited",
            Self::Unrecognised => "unrecognised",
            Self::Unauthorised => "unauthorised",
            Self::Refused(_) => "refused",
            Self::Failed(Failure::Connection) => "connection",
            Self::Failed(Failure::Timeout) => "timeout",
            Self::Failed(Failure::Status) => "status",
            Self::Failed(Failure::Forbidden) => "forbidden",
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Body {
    errcode: String,
    retry_after_ms: Option<u64>,
}

/// A homeserver that limits us without saying for how long is left alone this long.
const USUAL_PAUSE: Duration = Duration::from_secs(1);

impl Answer {
    /// By status, `Retry-After` if there was one, and the beginning of the body.
    pub fn read(status: u16, retry_after: Option<&str>, body: &[u8]) -> Self {
        let body: Body = serde_json::from_slice(body).unwrap_or_default();
        match (status, body.errcode.as_str()) {
            (200..=299, _) => Self::Done,
            (429, _) => {
                let seconds = retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
                let wait = seconds.or(body.retry_after_ms.map(Duration::from_millis));
                Self::Limited(wait.unwrap_or(USUAL_PAUSE))
            }
            (404, "M_NOT_FOUND") | (409, _) => Self::Gone,
            // A reverse proxy in front answers so for paths that it does not pass on.
            (404 | 405, _) | (_, "M_UNRECOGNIZED") => Self::Unrecognised,
            (401, _) | (403, "M_MISSING_TOKEN" | "M_UNKNOWN_TOKEN") => Self::Unauthorised,
            (300..=499, _) => Self::Refused(status),
            _ => Self::Failed(Failure::Status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_is_gone_is_told_from_a_path_that_is_unknown() {
        let gone = br#"{"errcode":"M_NOT_FOUND","error":"Delayed event not found"}"#;
        let unknown = br#"{"errcode":"M_UNRECOGNIZED","error":"Unrecognized request"}"#;
        assert_eq!(Answer::read(404, None, gone), Answer::Gone);
        assert_eq!(Answer::read(404, None, unknown), Answer::Unrecognised);
        assert_eq!(Answer::read(405, None, unknown), Answer::Unrecognised);
        assert_eq!(Answer::read(400, None, unknown), Answer::Unrecognised);
        assert_eq!(Answer::read(404, None, b"<html>"), Answer::Unrecognised);
        assert_eq!(Answer::read(409, None, b"{}"), Answer::Gone);
    }

    #[test]
    fn a_homeserver_that_limits_says_for_how_long_in_one_of_two_ways() {
        let body = br#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":1500}"#;
        assert_eq!(Answer::read(429, Some("3"), body), Answer::Limited(Duration::from_secs(3)));
        assert_eq!(Answer::read(429, None, body), Answer::Limited(Duration::from_millis(1500)));
        assert_eq!(Answer::read(429, Some("soon"), b""), Answer::Limited(USUAL_PAUSE));
    }

    #[test]
    fn what_is_no_answer_is_tried_again() {
        for status in [100, 500, 502, 503, 599] {
            assert_eq!(Answer::read(status, None, b"{}"), Answer::Failed(Failure::Status));
        }
        assert_eq!(Answer::read(403, None, br#"{"errcode":"M_FORBIDDEN"}"#), Answer::Refused(403));
        assert_eq!(Answer::read(401, None, br#"{"errcode":"M_MISSING_TOKEN"}"#), Answer::Unauthorised);
        assert_eq!(Answer::read(302, None, b""), Answer::Refused(302));
    }

    #[test]
    fn the_three_forms_are_written_as_homeservers_read_them() {
        let write = |form, action| Dialect { form, is_authenticated: false }.request("syd_x", action);
        let (path, body) = write(Form::UnstablePath, Action::Restart);
        assert!(path.ends_with("org.matrix.msc4140/delayed_events/syd_x/restart"), "{path}");
        assert_eq!(body, "{}");
        let (path, body) = write(Form::UnstableBody, Action::Send);
        assert!(path.ends_with("org.matrix.msc4140/delayed_events/syd_x"), "{path}");
        assert_eq!(body, r#"{"action":"send"}"#);
        let (path, _) = write(Form::Stable, Action::Cancel);
        assert_eq!(path, "/_matrix/client/v1/delayed_events/syd_x/cancel");
    }
}
