//! Rewriting a data packet without understanding it: what a newer client put in and this code does not know reaches
//! the other newer client unchanged.
//!
//! Protobuf's fields may be copied one by one; only those that say who speaks are replaced.

use bytes::{Buf, Bytes};
use livekit_protocol as proto;
use livekit_protocol::data_packet::{Kind, Value};
use prost::Message;
use prost::encoding::{self, DecodeContext, WireType};

/// Fields of `DataPacket`.
const KIND: u32 = 1;
const USER: u32 = 2;
const PARTICIPANT_IDENTITY: u32 = 4;
const DESTINATION_IDENTITIES: u32 = 5;
const SEQUENCE: u32 = 16;
const PARTICIPANT_SID: u32 = 17;
/// Fields of its `UserPacket`, where old clients look for the sender.
const USER_PARTICIPANT_SID: u32 = 1;
const USER_PARTICIPANT_IDENTITY: u32 = 5;

/// What the room acts on.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Address {
    /// 0 when the sender does not number.
    pub sequence: u32,
    pub identities: Vec<String>,
    pub sids: Vec<String>,
}

impl Address {
    pub fn is_everybody(&self) -> bool {
        self.identities.is_empty() && self.sids.is_empty()
    }

    pub fn names(&self, identity: &str, sid: &str) -> bool {
        self.is_everybody()
            || self.identities.iter().any(|known| known == identity)
            || self.sids.iter().any(|known| known == sid)
    }
}

/// Whom the packet is for, and the packet as they get it, with the sender filled in. `None` when it is malformed,
/// says nothing, or is of a kind that only a server sends.
pub(crate) fn address(payload: &[u8], kind: Kind, sid: &str, identity: &str) -> Option<(Address, Bytes)> {
    let packet = proto::DataPacket::decode(payload).ok()?;
    let mut rewritten = Vec::with_capacity(payload.len() + sid.len() + identity.len() + 16);
    let mut says_something = false;
    for field in fields(payload) {
        let (tag, wire_type, whole) = field?;
        match tag {
            KIND | PARTICIPANT_IDENTITY | PARTICIPANT_SID => continue,
            USER if wire_type == WireType::LengthDelimited => {
                rewrite_user(content(whole)?, sid, identity, &mut rewritten)?;
            }
            _ => rewritten.extend_from_slice(whole),
        }
        says_something |= !matches!(tag, DESTINATION_IDENTITIES | SEQUENCE);
    }
    if kind == Kind::Lossy {
        encoding::int32::encode(KIND, &(kind as i32), &mut rewritten);
    }
    encode_named(PARTICIPANT_IDENTITY, identity, &mut rewritten);
    encode_named(PARTICIPANT_SID, sid, &mut rewritten);
    let mut address =
        Address { sequence: packet.sequence, identities: packet.destination_identities, sids: Vec::new() };
    match packet.value {
        Some(Value::Speaker(_)) => return None,
        Some(Value::User(user)) => {
            address.identities.extend(user.destination_identities);
            address.sids = user.destination_sids;
        }
        _ => {}
    }
    says_something.then(|| (address, rewritten.into()))
}

fn rewrite_user(user: &[u8], sid: &str, identity: &str, out: &mut Vec<u8>) -> Option<()> {
    let mut rewritten = Vec::with_capacity(user.len() + sid.len() + identity.len() + 8);
    for field in fields(user) {
        let (tag, _, whole) = field?;
        if !matches!(tag, USER_PARTICIPANT_SID | USER_PARTICIPANT_IDENTITY) {
            rewritten.extend_from_slice(whole);
        }
    }
    encode_named(USER_PARTICIPANT_SID, sid, &mut rewritten);
    encode_named(USER_PARTICIPANT_IDENTITY, identity, &mut rewritten);
    encoding::bytes::encode(USER, &rewritten, out);
    Some(())
}

fn encode_named(tag: u32, text: &str, out: &mut Vec<u8>) {
    if !text.is_empty() {
        encoding::string::encode(tag, &text.to_owned(), out);
    }
}

/// Each field with its tag, whole; `None`, once, where the message is malformed.
fn fields(mut rest: &[u8]) -> impl Iterator<Item = Option<(u32, WireType, &[u8])>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let start = rest;
        let Some((tag, wire_type)) = skip(&mut rest) else {
            rest = &[];
            return Some(None);
        };
        Some(Some((tag, wire_type, &start[..start.len() - rest.len()])))
    })
}

fn skip(rest: &mut &[u8]) -> Option<(u32, WireType)> {
    let (tag, wire_type) = encoding::decode_key(&mut *rest).ok()?;
    encoding::skip_field(wire_type, tag, &mut *rest, DecodeContext::default()).ok()?;
    Some((tag, wire_type))
}

/// What a length-delimited field holds.
fn content(mut field: &[u8]) -> Option<&[u8]> {
    encoding::decode_key(&mut field).ok()?;
    let len = encoding::decode_varint(&mut field).ok()?;
    (field.remaining() as u64 == len).then_some(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(value: Value) -> proto::DataPacket {
        proto::DataPacket {
            kind: Kind::Reliable as i32,
            participant_identity: "forged".to_owned(),
            participant_sid: "PA_forged".to_owned(),
            destination_identities: vec!["bob".to_owned()],
            sequence: 7,
            value: Some(value),
        }
    }

    fn user() -> proto::UserPacket {
        proto::UserPacket {
            participant_sid: "PA_forged".to_owned(),
            participant_identity: "forged".to_owned(),
            payload: vec![1, 2, 3],
            destination_sids: vec!["PA_c".to_owned()],
            destination_identities: vec!["carol".to_owned()],
            topic: Some("topic".to_owned()),
            ..Default::default()
        }
    }

    #[test]
    fn the_sender_is_who_it_is_and_not_who_it_says() {
        let sent = packet(Value::User(user())).encode_to_vec();
        let (address, bytes) = address(&sent, Kind::Lossy, "PA_a", "alice").unwrap();
        assert_eq!(address.sequence, 7);
        assert_eq!(
            (address.identities, address.sids),
            (vec!["bob".into(), "carol".into()], vec!["PA_c".into()])
        );
        let got = proto::DataPacket::decode(bytes).unwrap();
        let expected = proto::DataPacket {
            kind: Kind::Lossy as i32,
            participant_identity: "alice".to_owned(),
            participant_sid: "PA_a".to_owned(),
            value: Some(Value::User(proto::UserPacket {
                participant_sid: "PA_a".to_owned(),
                participant_identity: "alice".to_owned(),
                ..user()
            })),
            ..packet(Value::User(user()))
        };
        assert_eq!(got, expected);
    }

    #[test]
    fn the_hidden_have_no_name() {
        let sent = packet(Value::User(user())).encode_to_vec();
        let (_, bytes) = address(&sent, Kind::Reliable, "", "").unwrap();
        let got = proto::DataPacket::decode(bytes).unwrap();
        assert!(got.participant_identity.is_empty() && got.participant_sid.is_empty());
        let Some(Value::User(user)) = got.value else { panic!("{got:?}") };
        assert!(user.participant_identity.is_empty() && user.participant_sid.is_empty());
    }

    #[test]
    fn what_is_not_known_here_goes_through_byte_by_byte() {
        let mut sent = Vec::new();
        encoding::string::encode(99, &"a kind of content of next year".to_owned(), &mut sent);
        encoding::uint32::encode(1_000, &5, &mut sent);
        let (address, bytes) = address(&sent, Kind::Reliable, "PA_a", "alice").unwrap();
        assert!(address.is_everybody());
        assert!(bytes.starts_with(&sent));
        assert_eq!(proto::DataPacket::decode(bytes).unwrap().participant_identity, "alice");
    }

    #[test]
    fn nothing_and_what_only_servers_say_goes_nowhere() {
        let speaker = packet(Value::Speaker(proto::ActiveSpeakerUpdate::default())).encode_to_vec();
        let empty = proto::DataPacket { value: None, ..packet(Value::User(user())) }.encode_to_vec();
        for sent in [&speaker[..], &empty, b"", b"\xff\xff\xff", b"\x12\x7f"] {
            assert_eq!(address(sent, Kind::Reliable, "PA_a", "alice"), None, "{sent:?}");
        }
    }

    #[test]
    fn any_cut_is_taken_or_refused() {
        let sent = packet(Value::User(user())).encode_to_vec();
        for cut in 0..sent.len() {
            let _ = address(&sent[..cut], Kind::Reliable, "PA_a", "alice");
        }
    }
}
