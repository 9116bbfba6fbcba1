//! Walks the path that a Matrix client walks to its call, and says where it breaks off.
//!
//! A client needs seven things of three services before anybody sees a picture, and shows "waiting for media" whichever
//! of them is missing. [`walk`] asks for them in the client's order ([`HOPS`]), and ends at the first that fails with
//! what to do about it. It needs nothing but what a client has, so that it finds what stands between them: names,
//! certificates, proxies, firewalls. It takes any focus that speaks LiveKit's protocol for what it is, and knows nothing
//! of Weir's inside.
//!
//! To add a hop, write a function from [`Walk`] to [`Verdict`] and name it in [`HOPS`].

mod homeserver;
mod ice;
mod service;
mod signalling;
mod web;

use std::future::Future;
use std::pin::Pin;

pub use web::Web;

/// What there is to go by.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A server name as in user ids, or the URL of a homeserver.
    pub server: String,
    /// Of a user there. Without one the walk ends where clients would have to say who they are.
    pub access_token: Option<String>,
    /// The room that a token is asked for; one that does not exist if there is none.
    pub room: Option<String>,
}

/// What a hop came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Passed {
        detail: String,
        /// What stops nobody but some: each a sentence for the operator.
        remarks: Vec<String>,
    },
    Failed {
        problem: String,
        remedy: String,
    },
    /// It cannot be told, and nothing behind it can.
    Unknown {
        why: String,
    },
}

impl Verdict {
    fn passed(detail: impl Into<String>) -> Self {
        Self::Passed { detail: detail.into(), remarks: Vec::new() }
    }

    fn failed(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Failed { problem: problem.into(), remedy: remedy.into() }
    }

    /// Without what steers a terminal: much of it is in the words of whoever answered.
    fn printable(self) -> Self {
        let plain = |text: String| text.replace(char::is_control, "\u{fffd}");
        match self {
            Self::Passed { detail, remarks } => {
                Self::Passed { detail: plain(detail), remarks: remarks.into_iter().map(plain).collect() }
            }
            Self::Failed { problem, remedy } => {
                Self::Failed { problem: plain(problem), remedy: plain(remedy) }
            }
            Self::Unknown { why } => Self::Unknown { why: plain(why) },
        }
    }
}

/// What the hops so far have found for those to come.
pub struct Walk {
    options: Options,
    web: Web,
    /// The homeserver's client API.
    base: Option<String>,
    /// What older clients are told.
    announced_long_ago: Option<String>,
    /// The authorisation service.
    service: Option<String>,
    /// The focus itself, where the homeserver announces it: then clients ask the homeserver for tokens.
    focus: Option<String>,
    /// What it gave.
    grant: Option<service::Grant>,
    session: Option<signalling::Session>,
}

type Step = for<'walk> fn(&'walk mut Walk) -> Pin<Box<dyn Future<Output = Verdict> + 'walk>>;

/// One thing that a client needs.
pub struct Hop {
    pub name: &'static str,
    step: Step,
}

/// In the order in which a client comes by them.
pub static HOPS: [Hop; 8] = [
    Hop { name: "homeserver", step: |walk| Box::pin(homeserver::find(walk)) },
    Hop { name: "transports", step: |walk| Box::pin(homeserver::transports(walk)) },
    Hop { name: "service", step: |walk| Box::pin(service::answers(walk)) },
    Hop { name: "CORS", step: |walk| Box::pin(service::lets_pages_ask(walk)) },
    Hop { name: "token", step: |walk| Box::pin(service::gives_a_token(walk)) },
    Hop { name: "WebSocket", step: |walk| Box::pin(signalling::join(walk)) },
    Hop { name: "ICE over UDP", step: |walk| Box::pin(ice::over_udp(walk)) },
    Hop { name: "ICE over TCP", step: |walk| Box::pin(ice::over_tcp(walk)) },
];

/// Goes hop by hop, telling of each, until one does not pass. Gives the hop that failed, if one did.
pub async fn walk(options: Options, web: Web, mut tell: impl FnMut(&Hop, &Verdict)) -> Option<&'static Hop> {
    let mut walk = Walk {
        options,
        web,
        base: None,
        announced_long_ago: None,
        service: None,
        focus: None,
        grant: None,
        session: None,
    };
    let mut failed = None;
    for hop in &HOPS {
        let verdict = (hop.step)(&mut walk).await.printable();
        tell(hop, &verdict);
        failed = matches!(verdict, Verdict::Failed { .. }).then_some(hop);
        if !matches!(verdict, Verdict::Passed { .. }) {
            break;
        }
    }
    if let Some(session) = walk.session {
        session.leave().await;
    }
    failed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_answers_does_not_write_on_the_operators_terminal() {
        let clear = "\u{1b}[2J\u{9b}2Jü\r\n";
        let plain = "\u{fffd}[2J\u{fffd}2Jü\u{fffd}\u{fffd}";
        assert_eq!(Verdict::failed(clear, "wait").printable(), Verdict::failed(plain, "wait"));
        assert_eq!(Verdict::passed(clear).printable(), Verdict::passed(plain));
    }
}
