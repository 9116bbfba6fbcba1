//! The first byte chooses the endpoint that a homeserver passes on, the rest is the body: any user of ours wrote it, or
//! another homeserver.

use serde_json::{Value, json};
use weir_matrix::names::{self, UserId};
use weir_matrix::request::{BadRequest, Caller, MAX_BODY_BYTES, Member, VouchedEndpoint, VouchedRequest};

use crate::Input;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let endpoint = match input.below(3) {
        0 => VouchedEndpoint::GetToken,
        1 => VouchedEndpoint::DelegateDelayedLeave,
        _ => VouchedEndpoint::FederationGetToken,
    };
    let body = input.rest();
    if body.len() > MAX_BODY_BYTES {
        return; // not read that far
    }
    let dana = UserId::parse("@dana:lab.example").expect("it is one");
    let caller = match endpoint {
        VouchedEndpoint::FederationGetToken => Caller::Server(dana.server().clone()),
        VouchedEndpoint::GetToken | VouchedEndpoint::DelegateDelayedLeave => Caller::User(dana.clone()),
    };
    let parsed = VouchedRequest::parse(endpoint, &caller, body);
    let Ok(Value::Object(mut object)) = serde_json::from_slice(body) else {
        assert!(parsed.err() == Some(BadRequest::NotJson));
        return;
    };
    if let Ok(request) = &parsed {
        check(endpoint, &caller, request);
    }
    // A key that we do not know changes nothing.
    object.insert("a key of next year".to_owned(), Value::Null);
    assert!(VouchedRequest::parse(endpoint, &caller, json!(object).to_string().as_bytes()) == parsed);
}

fn check(endpoint: VouchedEndpoint, caller: &Caller, request: &VouchedRequest) {
    match caller {
        Caller::User(user) => assert!(*user == request.user),
        Caller::Server(origin) => assert!(*origin == *request.user.server() && request.server.is_none()),
    }
    assert!(names::is_sound(&request.room_id) && names::is_sound(&request.slot_id));
    let hands_over = endpoint == VouchedEndpoint::DelegateDelayedLeave;
    assert!(request.delay_id.as_deref().map(names::is_sound) == hands_over.then_some(true));
    assert!(!matches!(request.member, Member::Plain { .. }));
    assert_eq!(request.member.identity(&request.user).len(), 43);
    // Another homeserver of our kind reads the same of it.
    let (there, origin) =
        (VouchedEndpoint::FederationGetToken, Caller::Server(request.user.server().clone()));
    let relayed = VouchedRequest::parse(there, &origin, request.relayed().to_string().as_bytes());
    assert!(relayed == Ok(VouchedRequest { server: None, delay_id: None, ..request.clone() }));
}
