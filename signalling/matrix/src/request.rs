//! What clients ask the authorisation service, read with patience: newer clients send keys that we do not know, and
//! older ones leave out keys that we do. What we need is checked whole before anybody is asked anything.

mod vouched;

use serde_json::{Map, Value};

use crate::names::{self, ServerName, UserId};

pub use vouched::{Caller, VouchedEndpoint, VouchedRequest};

/// The longest body that is read. The largest honest ones have a kilobyte.
pub const MAX_BODY_BYTES: usize = 16 * 1024;
/// The longest token of a homeserver.
const MAX_TOKEN_BYTES: usize = 2_048;

/// The longest address of a homeserver.
const MAX_URL_BYTES: usize = 1_000;

/// Which of the endpoints was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/sfu/get`: for members who announce themselves by a state event.
    SfuGet,
    /// `/get_token`.
    GetToken,
    /// `/delegate_delayed_leave`: a body as for `/get_token`, or as for `/sfu/get`.
    DelegateDelayedLeave,
}

/// A body that has all it needs.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenRequest {
    pub room_id: String,
    pub slot_id: String,
    pub openid: OpenIdToken,
    pub member: Member,
    /// The leave that the focus shall send when the client is gone.
    pub leave: Option<DelayedLeave>,
}

/// As the client got it from its homeserver.
#[derive(Clone, PartialEq, Eq)]
pub struct OpenIdToken {
    pub server: ServerName,
    pub token: String,
}

/// As whom the client will appear to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member {
    /// By user and device, in the clear.
    Plain { device_id: String },
    /// By a hash of user, device and the id of this one stay.
    Hashed { id: String, claimed_user_id: UserId, claimed_device_id: String },
    /// By a hash of user and the id of this one stay, as those are who ask through their homeserver.
    ById { id: String },
}

#[derive(Clone, PartialEq, Eq)]
pub struct DelayedLeave {
    pub delay_id: String,
    pub timeout_ms: u64,
    /// Where the client says that its homeserver is. Nobody vouches for it.
    pub cs_api_url: Option<String>,
}

/// Why a body is not read. Its names are those of keys, never what the client wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    #[error("the body is not a JSON object")]
    NotJson,
    #[error("{0} is missing or not as it must be")]
    Key(&'static str),
    #[error("delay_id and delay_timeout belong together")]
    HalfLeave,
    #[error("user_id is not of the server that asks")]
    ForeignUser,
}

impl Member {
    pub fn identity(&self, user: &UserId) -> String {
        match self {
            Self::Plain { device_id } => names::plain_identity(user, device_id),
            Self::Hashed { id, claimed_device_id, .. } => names::identity(user, claimed_device_id, id),
            Self::ById { id } => names::member_identity(user, id),
        }
    }

    /// All identities that the client may join by. One that has a member id but announces itself by a state event joins
    /// by user and device.
    pub fn identities(&self, user: &UserId) -> Vec<String> {
        match self {
            Self::Plain { .. } | Self::ById { .. } => vec![self.identity(user)],
            Self::Hashed { claimed_device_id, .. } => {
                vec![self.identity(user), names::plain_identity(user, claimed_device_id)]
            }
        }
    }

    /// Who the client says to be, which the homeserver has yet to confirm.
    pub fn claimed(&self) -> Option<&UserId> {
        match self {
            Self::Plain { .. } | Self::ById { .. } => None,
            Self::Hashed { claimed_user_id, .. } => Some(claimed_user_id),
        }
    }
}

impl TokenRequest {
    pub fn parse(endpoint: Endpoint, body: &[u8]) -> Result<Self, BadRequest> {
        let Ok(Value::Object(body)) = serde_json::from_slice(body) else { return Err(BadRequest::NotJson) };
        let is_plain = match endpoint {
            Endpoint::SfuGet => true,
            Endpoint::GetToken => false,
            Endpoint::DelegateDelayedLeave => !body.contains_key("member"),
        };
        let (room_id, slot_id, member) = if is_plain {
            let member = Member::Plain { device_id: device_id(&body, "device_id", "device_id")? };
            let key = if body.contains_key("room") { "room" } else { "room_id" };
            (id(&body, key, "room")?, names::ROOM_CALL.to_owned(), member)
        } else {
            let member = object(&body, "member")?;
            let member = Member::Hashed {
                id: id(member, "id", "member.id")?,
                claimed_user_id: text(member, "claimed_user_id")
                    .and_then(UserId::parse)
                    .ok_or(BadRequest::Key("member.claimed_user_id"))?,
                claimed_device_id: device_id(member, "claimed_device_id", "member.claimed_device_id")?,
            };
            (id(&body, "room_id", "room_id")?, id(&body, "slot_id", "slot_id")?, member)
        };
        let openid = OpenIdToken::read(object(&body, "openid_token")?)?;
        let leave = DelayedLeave::read(&body)?;
        if endpoint == Endpoint::DelegateDelayedLeave && leave.is_none() {
            return Err(BadRequest::Key("delay_id"));
        }
        Ok(Self { room_id, slot_id, openid, member, leave })
    }
}

impl OpenIdToken {
    fn read(object: &Map<String, Value>) -> Result<Self, BadRequest> {
        let token = text(object, "access_token")
            .filter(|token| !token.is_empty() && token.len() <= MAX_TOKEN_BYTES)
            .ok_or(BadRequest::Key("openid_token.access_token"))?;
        let server = text(object, "matrix_server_name")
            .and_then(ServerName::parse)
            .ok_or(BadRequest::Key("openid_token.matrix_server_name"))?;
        Ok(Self { server, token: token.to_owned() })
    }
}

impl DelayedLeave {
    fn read(body: &Map<String, Value>) -> Result<Option<Self>, BadRequest> {
        // Clients leave keys out or set them to null or to nothing.
        let given = |key| body.get(key).filter(|value| !value.is_null() && value.as_str() != Some(""));
        match (given("delay_id"), given("delay_timeout")) {
            (None, None) => Ok(None),
            (Some(_), Some(timeout)) => {
                let delay_id = id(body, "delay_id", "delay_id")?;
                // The older text had the number in a string.
                let timeout_ms = timeout.as_u64().or_else(|| timeout.as_str()?.parse().ok());
                let timeout_ms = timeout_ms.filter(|ms| *ms > 0).ok_or(BadRequest::Key("delay_timeout"))?;
                let cs_api_url = text(body, "delay_cs_api_url").filter(|url| url.len() <= MAX_URL_BYTES);
                Ok(Some(Self { delay_id, timeout_ms, cs_api_url: cs_api_url.map(str::to_owned) }))
            }
            _ => Err(BadRequest::HalfLeave),
        }
    }
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}

fn id(object: &Map<String, Value>, key: &str, shown: &'static str) -> Result<String, BadRequest> {
    text(object, key).filter(|id| names::is_sound(id)).map(str::to_owned).ok_or(BadRequest::Key(shown))
}

/// One that makes up no other user's name (see [`names::begins_like_a_port`]).
fn device_id(object: &Map<String, Value>, key: &str, shown: &'static str) -> Result<String, BadRequest> {
    match id(object, key, shown)? {
        id if names::begins_like_a_port(&id) => Err(BadRequest::Key(shown)),
        id => Ok(id),
    }
}

fn object<'a>(body: &'a Map<String, Value>, key: &'static str) -> Result<&'a Map<String, Value>, BadRequest> {
    body.get(key).and_then(Value::as_object).ok_or(BadRequest::Key(key))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sfu_get() -> Value {
        json!({
            "room": "!focus:lab.example",
            "openid_token": {
                "access_token": "tok-81xk", "token_type": "Bearer", "matrix_server_name": "lab.example", "expires_in": 3600,
            },
            "device_id": "LAPTOP7",
        })
    }

    fn get_token() -> Value {
        json!({
            "room_id": "!focus:lab.example",
            "slot_id": "m.call#ROOM",
            "openid_token": { "access_token": "tok-81xk", "matrix_server_name": "lab.example" },
            "member": { "id": "7c2e5e0a", "claimed_user_id": "@dana:lab.example", "claimed_device_id": "LAPTOP7" },
        })
    }

    fn parse(endpoint: Endpoint, body: &Value) -> Result<TokenRequest, BadRequest> {
        TokenRequest::parse(endpoint, &serde_json::to_vec(body).unwrap())
    }

    /// The body with the value at a path (`a.b`) replaced, or without it.
    fn with(mut body: Value, path: &str, value: Option<Value>) -> Value {
        let (parents, key) = path.rsplit_once('.').unwrap_or(("", path));
        let object = if parents.is_empty() { &mut body } else { &mut body[parents] };
        match value {
            Some(value) => object[key] = value,
            None => drop(object.as_object_mut().unwrap().remove(key)),
        }
        body
    }

    #[test]
    fn both_endpoints_lead_to_one_room_and_slot() {
        let (old, new) = (
            parse(Endpoint::SfuGet, &sfu_get()).ok().unwrap(),
            parse(Endpoint::GetToken, &get_token()).ok().unwrap(),
        );
        assert_eq!((&old.room_id, &old.slot_id), (&new.room_id, &new.slot_id));
        assert_eq!(old.openid.server.as_str(), "lab.example");
        assert_eq!(new.openid.token, "tok-81xk");
    }

    #[test]
    fn unknown_keys_are_passed_over_everywhere() {
        for path in ["new", "openid_token.new"] {
            assert!(parse(Endpoint::SfuGet, &with(sfu_get(), path, Some(json!({ "deep": [1] })))).is_ok());
        }
        for path in ["new", "openid_token.new", "member.new"] {
            assert!(parse(Endpoint::GetToken, &with(get_token(), path, Some(json!(null)))).is_ok());
        }
    }

    #[test]
    fn every_key_that_is_needed_is_missed_by_name() {
        for (endpoint, body, keys) in [
            (
                Endpoint::SfuGet,
                sfu_get(),
                &[
                    "room",
                    "device_id",
                    "openid_token.access_token",
                    "openid_token.matrix_server_name",
                    "openid_token",
                ][..],
            ),
            (
                Endpoint::GetToken,
                get_token(),
                &[
                    "room_id",
                    "slot_id",
                    "member.id",
                    "member.claimed_user_id",
                    "member.claimed_device_id",
                    "member",
                    "openid_token.access_token",
                    "openid_token.matrix_server_name",
                    "openid_token",
                ],
            ),
        ] {
            for key in keys {
                let wrongs = [
                    None,
                    Some(json!("")),
                    Some(json!(5)),
                    Some(json!("x".repeat(5_000))),
                    Some(json!("a\u{0}")),
                ];
                for wrong in wrongs {
                    // A token is opaque: it may hold anything.
                    if *key == "openid_token.access_token" && wrong == Some(json!("a\u{0}")) {
                        continue;
                    }
                    let error = parse(endpoint, &with(body.clone(), key, wrong.clone())).err();
                    assert_eq!(error, Some(BadRequest::Key(key)), "{key} {wrong:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_object_is_no_json() {
        let deep = "[".repeat(10_000);
        for body in
            ["", "x", "[]", "5", "null", "{", "{}x", "{\"a\":1", deep.as_str(), "{\"room\":\"\\ud800\"}"]
        {
            let error = TokenRequest::parse(Endpoint::SfuGet, body.as_bytes()).err();
            assert_eq!(error, Some(BadRequest::NotJson), "{body:.20}");
        }
        assert_eq!(
            TokenRequest::parse(Endpoint::SfuGet, b"{\"room\":\"\xff\"}").err(),
            Some(BadRequest::NotJson)
        );
    }

    #[test]
    fn a_leave_is_whole_or_not_there() {
        let leave = |id: Value, timeout: Value| {
            let body = with(with(sfu_get(), "delay_id", Some(id)), "delay_timeout", Some(timeout));
            parse(Endpoint::SfuGet, &body)
                .map(|request| request.leave.map(|leave| (leave.delay_id, leave.timeout_ms)))
        };
        assert_eq!(leave(json!("syd_1"), json!(10_000)), Ok(Some(("syd_1".to_owned(), 10_000))));
        assert_eq!(leave(json!("syd_1"), json!("10000")), Ok(Some(("syd_1".to_owned(), 10_000))));
        assert_eq!(leave(json!(null), json!(null)), Ok(None));
        assert_eq!(leave(json!("syd_1"), json!(null)), Err(BadRequest::HalfLeave));
        assert_eq!(leave(json!(null), json!(1)), Err(BadRequest::HalfLeave));
        for wrong in [json!(0), json!(-1), json!(1.5), json!([]), json!("soon")] {
            assert_eq!(leave(json!("syd_1"), wrong), Err(BadRequest::Key("delay_timeout")));
        }
    }

    #[test]
    fn the_address_of_a_homeserver_comes_with_a_leave_or_not_at_all() {
        let leave = with(with(sfu_get(), "delay_id", Some(json!("syd_1"))), "delay_timeout", Some(json!(9)));
        let url = |value: Option<Value>| {
            let request = parse(Endpoint::SfuGet, &with(leave.clone(), "delay_cs_api_url", value));
            request.ok().unwrap().leave.unwrap().cs_api_url
        };
        assert_eq!(url(Some(json!("https://lab.example"))).as_deref(), Some("https://lab.example"));
        for value in [None, Some(json!(null)), Some(json!(5)), Some(json!("x".repeat(2_000)))] {
            assert_eq!(url(value), None);
        }
    }

    #[test]
    fn a_delegation_needs_a_leave_and_takes_both_kinds_of_member() {
        for body in [sfu_get(), get_token()] {
            assert_eq!(parse(Endpoint::DelegateDelayedLeave, &body).err(), Some(BadRequest::Key("delay_id")));
            let body = with(with(body, "delay_id", Some(json!("syd_1"))), "delay_timeout", Some(json!(1)));
            assert!(parse(Endpoint::DelegateDelayedLeave, &body).is_ok());
        }
    }

    #[test]
    fn no_device_makes_its_user_look_like_one_of_a_server_on_another_port() {
        let one = UserId::parse("@dana:lab.example").unwrap();
        let other = UserId::parse("@dana:lab.example:8448").unwrap();
        assert_eq!(names::plain_identity(&one, "8448:A"), names::plain_identity(&other, "A"));
        for (device, is_taken) in [("8448:A", false), ("1:", false), ("8448", true), ("A:8448", true)] {
            let plain = with(sfu_get(), "device_id", Some(json!(device)));
            let hashed = with(get_token(), "member.claimed_device_id", Some(json!(device)));
            assert_eq!(parse(Endpoint::SfuGet, &plain).is_ok(), is_taken, "{device}");
            assert_eq!(parse(Endpoint::GetToken, &hashed).is_ok(), is_taken, "{device}");
        }
    }

    #[test]
    fn identities_are_those_that_the_member_event_implies() {
        let dana = UserId::parse("@dana:lab.example").unwrap();
        let identity = |endpoint, body| parse(endpoint, &body).ok().unwrap().member.identity(&dana);
        assert_eq!(identity(Endpoint::SfuGet, sfu_get()), "@dana:lab.example:LAPTOP7");
        let body = with(get_token(), "member.id", Some(json!("7c2e5e0a-5a34-4a3f-9a52-1f6f2f7f1d11")));
        assert_eq!(identity(Endpoint::GetToken, body), "xyNLr+/tQI8JbXBx2YO8Tv1BtTDIzajApqMfjCoDS0U");
    }
}
