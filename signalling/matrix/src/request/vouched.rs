//! What homeservers pass on of their users (MSC4195): a request for a token, from an own user or relayed by another
//! homeserver, and a leave that is handed over. Who asks stands beside the body, by the homeserver's word.

use serde_json::{Map, Value, json};

use super::{BadRequest, MAX_URL_BYTES, Member, device_id, id, object, text};
use crate::names::{ServerName, UserId};

/// Which of the endpoints was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VouchedEndpoint {
    /// `get_token` of the client-server API.
    GetToken,
    /// `delegate_delayed_leave` of the client-server API.
    DelegateDelayedLeave,
    /// `get_token` of the federation API.
    FederationGetToken,
}

/// Who asks, by the word of the homeserver beside this focus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// One of its users.
    User(UserId),
    /// Another homeserver, which speaks for its users.
    Server(ServerName),
}

/// A body that has all it needs.
#[derive(Clone, PartialEq, Eq)]
pub struct VouchedRequest {
    pub user: UserId,
    /// The homeserver beside the focus that is asked for, if the client named one.
    pub server: Option<ServerName>,
    /// The focus that is asked for, if the client named it.
    pub url: Option<String>,
    pub room_id: String,
    pub slot_id: String,
    pub member: Member,
    /// The leave that the focus shall send when the client is gone.
    pub delay_id: Option<String>,
}

impl VouchedRequest {
    pub fn parse(endpoint: VouchedEndpoint, caller: &Caller, body: &[u8]) -> Result<Self, BadRequest> {
        let Ok(Value::Object(body)) = serde_json::from_slice(body) else { return Err(BadRequest::NotJson) };
        let user = match caller {
            Caller::User(user) => user.clone(),
            Caller::Server(origin) => user_of(origin, &body)?,
        };
        let server = match (caller, given(&body, "server_name")) {
            // Nobody asks through two.
            (Caller::Server(_), _) | (_, None) => None,
            (Caller::User(_), Some(name)) => {
                let name = name.as_str().and_then(ServerName::parse);
                Some(name.ok_or(BadRequest::Key("server_name"))?)
            }
        };
        let url = match given(&body, "url") {
            None => None,
            Some(url) => Some(url.as_str().and_then(address).ok_or(BadRequest::Key("url"))?),
        };
        let delay_id = match endpoint {
            VouchedEndpoint::DelegateDelayedLeave => Some(id(&body, "delay_id", "delay_id")?),
            VouchedEndpoint::GetToken | VouchedEndpoint::FederationGetToken => None,
        };
        let (room_id, slot_id) = (id(&body, "room_id", "room_id")?, id(&body, "slot_id", "slot_id")?);
        let member = member(&body, &user)?;
        Ok(Self { user, server, url, room_id, slot_id, member, delay_id })
    }

    /// The same, as the user's homeserver asks another one.
    pub fn relayed(&self) -> Value {
        let mut body = json!({
            "user_id": self.user.as_str(), "room_id": self.room_id, "slot_id": self.slot_id,
        });
        if let Some(url) = &self.url {
            body["url"] = json!(url);
        }
        match &self.member {
            Member::ById { id } => body["member_id"] = json!(id),
            Member::Hashed { id, claimed_device_id: device, .. } => {
                body["member"] = json!({ "id": id, "claimed_device_id": device });
            }
            Member::Plain { .. } => {} // homeservers pass on none
        }
        body
    }
}

/// A homeserver speaks for its own users only.
fn user_of(origin: &ServerName, body: &Map<String, Value>) -> Result<UserId, BadRequest> {
    let user = text(body, "user_id").and_then(UserId::parse).ok_or(BadRequest::Key("user_id"))?;
    if user.server() == origin { Ok(user) } else { Err(BadRequest::ForeignUser) }
}

/// The accepted text has the member's id alone; clients from before name a device as well. Each expects to be called by
/// another hash.
fn member(body: &Map<String, Value>, user: &UserId) -> Result<Member, BadRequest> {
    if given(body, "member_id").is_some() {
        return Ok(Member::ById { id: id(body, "member_id", "member_id")? });
    }
    if given(body, "member").is_none() {
        return Err(BadRequest::Key("member_id"));
    }
    let member = object(body, "member")?;
    let claims = given(member, "claimed_user_id");
    if claims.is_some_and(|claimed| claimed.as_str() != Some(user.as_str())) {
        return Err(BadRequest::Key("member.claimed_user_id"));
    }
    Ok(Member::Hashed {
        id: id(member, "id", "member.id")?,
        claimed_user_id: user.clone(),
        claimed_device_id: device_id(member, "claimed_device_id", "member.claimed_device_id")?,
    })
}

/// Clients leave keys out or set them to null.
fn given<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    object.get(key).filter(|value| !value.is_null())
}

fn address(url: &str) -> Option<String> {
    let is_plain = !url.is_empty() && url.bytes().all(|byte| byte.is_ascii_graphic());
    (is_plain && url.len() <= MAX_URL_BYTES).then(|| url.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINTS: [VouchedEndpoint; 3] = [
        VouchedEndpoint::GetToken,
        VouchedEndpoint::DelegateDelayedLeave,
        VouchedEndpoint::FederationGetToken,
    ];

    fn dana() -> UserId {
        UserId::parse("@dana:lab.example").unwrap()
    }

    fn caller(endpoint: VouchedEndpoint) -> Caller {
        match endpoint {
            VouchedEndpoint::FederationGetToken => Caller::Server(dana().server().clone()),
            VouchedEndpoint::GetToken | VouchedEndpoint::DelegateDelayedLeave => Caller::User(dana()),
        }
    }

    fn body() -> Value {
        json!({
            "user_id": "@dana:lab.example", "url": "wss://rtc.lab.example/livekit/sfu",
            "room_id": "!focus:lab.example", "slot_id": "m.call#ROOM",
            "member_id": "7c2e5e0a-5a34-4a3f-9a52-1f6f2f7f1d11", "delay_id": "syd_1",
        })
    }

    fn parse(endpoint: VouchedEndpoint, body: &Value) -> Result<VouchedRequest, BadRequest> {
        VouchedRequest::parse(endpoint, &caller(endpoint), &serde_json::to_vec(body).unwrap())
    }

    fn with(mut body: Value, key: &str, value: Value) -> Value {
        body[key] = value;
        body
    }

    #[test]
    fn each_endpoint_reads_what_it_needs_and_passes_over_the_rest() {
        for endpoint in ENDPOINTS {
            let request = parse(endpoint, &with(body(), "of next year", json!([1]))).ok().unwrap();
            assert_eq!((&request.user, request.server.as_ref()), (&dana(), None));
            assert_eq!(request.url.as_deref(), Some("wss://rtc.lab.example/livekit/sfu"));
            let hands_over = endpoint == VouchedEndpoint::DelegateDelayedLeave;
            assert_eq!(request.delay_id.as_deref(), hands_over.then_some("syd_1"));
            assert_eq!(request.member.identity(&dana()), "douFoJnidrSFD60n+rcqIz8WtF+56c7DnWPRYxzfHeU");
        }
    }

    #[test]
    fn a_member_with_a_device_is_called_by_the_hash_of_it_as_well() {
        let mut old = body();
        old.as_object_mut().unwrap().remove("member_id");
        let id = "7c2e5e0a-5a34-4a3f-9a52-1f6f2f7f1d11";
        let old = with(old, "member", json!({ "id": id, "claimed_device_id": "LAPTOP7" }));
        for endpoint in ENDPOINTS {
            let member = parse(endpoint, &old).ok().unwrap().member;
            assert_eq!(member.identity(&dana()), "xyNLr+/tQI8JbXBx2YO8Tv1BtTDIzajApqMfjCoDS0U");
            assert_eq!(member.identities(&dana())[1], "@dana:lab.example:LAPTOP7");
        }
        // The newer text counts where both are said.
        let both = with(old.clone(), "member_id", json!("x"));
        let member = parse(VouchedEndpoint::GetToken, &both).ok().unwrap().member;
        assert_eq!(member, Member::ById { id: "x".to_owned() });
        for (key, wrong) in [
            ("id", json!("")),
            ("claimed_device_id", json!("8448:A")),
            ("claimed_user_id", json!("@eve:lab.example")),
            ("claimed_user_id", json!(7)),
        ] {
            let mut wrongly = old.clone();
            wrongly["member"][key] = wrong;
            assert!(matches!(parse(VouchedEndpoint::GetToken, &wrongly), Err(BadRequest::Key(_))), "{key}");
        }
        let mut claims = old;
        claims["member"]["claimed_user_id"] = json!("@dana:lab.example");
        assert!(parse(VouchedEndpoint::GetToken, &claims).is_ok());
    }

    #[test]
    fn a_homeserver_speaks_for_its_own_users_only() {
        let endpoint = VouchedEndpoint::FederationGetToken;
        for foreign in ["@dana:else.example", "@dana:lab.example:8448", "@dana:a.lab.example"] {
            let error = parse(endpoint, &with(body(), "user_id", json!(foreign))).err();
            assert_eq!(error, Some(BadRequest::ForeignUser), "{foreign}");
        }
        for none in [json!(null), json!("dana"), json!(7), json!("")] {
            let error = parse(endpoint, &with(body(), "user_id", none)).err();
            assert_eq!(error, Some(BadRequest::Key("user_id")));
        }
        // What a client says of itself counts for nothing.
        let request = parse(VouchedEndpoint::GetToken, &with(body(), "user_id", json!("@eve:lab.example")));
        assert_eq!(request.ok().unwrap().user, dana());
    }

    #[test]
    fn only_a_client_names_another_homeserver() {
        let named = with(body(), "server_name", json!("else.example:8448"));
        let server = |endpoint| parse(endpoint, &named).ok().unwrap().server.map(|name| name.to_string());
        assert_eq!(server(VouchedEndpoint::GetToken).as_deref(), Some("else.example:8448"));
        assert_eq!(server(VouchedEndpoint::FederationGetToken), None);
        for wrong in [json!("else.example/path"), json!(""), json!(5)] {
            let error = parse(VouchedEndpoint::GetToken, &with(body(), "server_name", wrong)).err();
            assert_eq!(error, Some(BadRequest::Key("server_name")));
        }
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for endpoint in ENDPOINTS {
            for key in ["room_id", "slot_id", "member_id", "delay_id", "url"] {
                for wrong in [json!(""), json!(5), json!("x".repeat(5_000)), json!("a\u{0}")] {
                    let parsed = parse(endpoint, &with(body(), key, wrong.clone()));
                    match key {
                        "delay_id" if endpoint != VouchedEndpoint::DelegateDelayedLeave => {
                            assert!(parsed.is_ok());
                        }
                        _ => assert_eq!(parsed.err(), Some(BadRequest::Key(key)), "{wrong}"),
                    }
                }
            }
            for text in ["", "x", "[]", "{", "null", &"[".repeat(10_000)] {
                let error = VouchedRequest::parse(endpoint, &caller(endpoint), text.as_bytes()).err();
                assert_eq!(error, Some(BadRequest::NotJson));
            }
            let nobody = parse(endpoint, &with(body(), "member_id", json!(null))).err();
            assert_eq!(nobody, Some(BadRequest::Key("member_id")));
        }
    }

    #[test]
    fn what_is_relayed_is_read_by_the_other_side_as_the_same() {
        let mut old = with(body(), "member", json!({ "id": "x", "claimed_device_id": "LAPTOP7" }));
        old.as_object_mut().unwrap().remove("member_id");
        for body in [body(), old] {
            let named = with(body, "server_name", json!("else.example"));
            let asked = parse(VouchedEndpoint::GetToken, &named).ok().unwrap();
            let relayed = parse(VouchedEndpoint::FederationGetToken, &asked.relayed()).ok().unwrap();
            assert!(relayed == VouchedRequest { server: None, ..asked });
        }
    }
}
