//! The first byte chooses the endpoint of the authorisation service, the rest is the body.

use serde_json::Value;
use weir_matrix::names::{self, Host, ServerName, UserId};
use weir_matrix::request::{BadRequest, Endpoint, MAX_BODY_BYTES, Member, TokenRequest};

use crate::Input;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let endpoint = match input.below(3) {
        0 => Endpoint::SfuGet,
        1 => Endpoint::GetToken,
        _ => Endpoint::DelegateDelayedLeave,
    };
    let body = input.rest();
    if body.len() > MAX_BODY_BYTES {
        return; // not read that far
    }
    let parsed = TokenRequest::parse(endpoint, body);
    if let Ok(request) = &parsed {
        check(endpoint, request);
    }
    // A key that we do not know changes nothing.
    if let Ok(Value::Object(mut object)) = serde_json::from_slice(body) {
        object.insert("a key of next year".to_owned(), Value::Null);
        let again = TokenRequest::parse(endpoint, &serde_json::to_vec(&object).expect("it was JSON"));
        assert!(again == parsed, "an unknown key changed the meaning");
    } else {
        assert!(parsed.err() == Some(BadRequest::NotJson));
    }
}

fn check(endpoint: Endpoint, request: &TokenRequest) {
    assert!(names::is_sound(&request.room_id) && names::is_sound(&request.slot_id));
    check_server(&request.openid.server);
    assert!(!request.openid.token.is_empty());
    assert!(
        request.leave.as_ref().is_none_or(|leave| leave.timeout_ms > 0 && names::is_sound(&leave.delay_id))
    );
    assert!(endpoint != Endpoint::DelegateDelayedLeave || request.leave.is_some());
    assert_eq!(names::conference(&request.room_id, &request.slot_id).len(), 43);
    let user = UserId::parse("@dana:lab.example").expect("it is one");
    match &request.member {
        Member::Plain { device_id } => {
            assert_eq!(request.member.identity(&user), format!("@dana:lab.example:{device_id}"));
        }
        Member::Hashed { claimed_user_id, .. } => {
            check_server(claimed_user_id.server());
            assert!(claimed_user_id.as_str().ends_with(claimed_user_id.server().as_str()));
            assert_eq!(request.member.identity(&user).len(), 43);
        }
        Member::ById { .. } => panic!("a client that says itself who it is names a device"),
    }
}

/// What is connected to is what the name says, and nothing that a URL or a header would read otherwise.
fn check_server(server: &ServerName) {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte);
    assert!(server.as_str().bytes().all(is_plain), "{server}");
    assert!(server.port() != Some(0));
    match server.host() {
        Host::Name(name) => assert!(server.as_str().starts_with(name.as_str())),
        Host::Address(address) => assert!(address.is_ipv6() == server.as_str().starts_with('[')),
    }
}
