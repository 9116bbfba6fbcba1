//! A look into a STUN message ([RFC 8489 §5](https://www.rfc-editor.org/rfc/rfc8489#section-5)), enough to find whom
//! it is for and what it carries. Nothing here is authenticated: whoever answers checks the integrity first.

use crate::bytes::{u16_at, u32_at};

const HEADER_LEN: usize = 20;
const MAGIC_COOKIE: u32 = 0x2112_a442;
const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
/// [draft-hancke-webrtc-sped](https://datatracker.ietf.org/doc/draft-hancke-webrtc-sped/)
const META_DTLS_IN_STUN: u16 = 0xc070;

/// Attributes looked at before giving up; ICE sends the user name among the first of about ten.
const MAX_ATTRIBUTES: usize = 32;

/// The longest user name: two ufrags of 256 characters and the colon
/// ([RFC 8445 §5.3](https://www.rfc-editor.org/rfc/rfc8445#section-5.3)).
const MAX_USERNAME_LEN: usize = 513;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingClass {
    Request,
    Indication,
    Success,
    Error,
}

/// A STUN binding message as far as demultiplexing reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding<'a> {
    pub class: BindingClass,
    pub transaction: [u8; 12],
    /// The first half of USERNAME, up to the colon: the receiver's ufrag
    /// ([RFC 8445 §7.2.2](https://www.rfc-editor.org/rfc/rfc8445#section-7.2.2)). Responses have none.
    pub local_ufrag: Option<&'a str>,
    /// The second half: the sender's.
    pub remote_ufrag: Option<&'a str>,
}

/// `None` for anything but a binding message with the magic cookie and an honest length.
pub fn peek(datagram: &[u8]) -> Option<Binding<'_>> {
    let class = match u16_at(datagram, 0)? {
        0x0001 => BindingClass::Request,
        0x0011 => BindingClass::Indication,
        0x0101 => BindingClass::Success,
        0x0111 => BindingClass::Error,
        _ => return None,
    };
    let len = usize::from(u16_at(datagram, 2)?);
    if len % 4 != 0 || datagram.len() != HEADER_LEN + len || u32_at(datagram, 4)? != MAGIC_COOKIE {
        return None;
    }
    let transaction = *datagram.get(8..)?.first_chunk()?;
    let mut binding = Binding { class, transaction, local_ufrag: None, remote_ufrag: None };
    if let Some((_, value)) = attributes(datagram).find(|(kind, _)| *kind == USERNAME)
        && value.len() <= MAX_USERNAME_LEN
        && let Ok(name) = std::str::from_utf8(value)
        && let Some((local, remote)) = name.split_once(':')
    {
        binding.local_ufrag = Some(local);
        binding.remote_ufrag = Some(remote);
    }
    Some(binding)
}

/// The DTLS packet that a message carries where its integrity covers it: some clients send their first flight along
/// with each check until one is answered.
pub fn carried_dtls(datagram: &[u8]) -> Option<&[u8]> {
    let mut covered = attributes(datagram).take_while(|(kind, _)| *kind != MESSAGE_INTEGRITY);
    let (_, packet) = covered.find(|(kind, _)| *kind == META_DTLS_IN_STUN)?;
    Some(packet).filter(|packet| !packet.is_empty()) // an empty one says that its sender knows of the attribute
}

fn attributes(datagram: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut at = HEADER_LEN;
    std::iter::from_fn(move || {
        let (kind, len) = (u16_at(datagram, at)?, usize::from(u16_at(datagram, at + 2)?));
        let value = datagram.get(at + 4..at + 4 + len)?;
        at += 4 + len.next_multiple_of(4);
        Some((kind, value))
    })
    .take(MAX_ATTRIBUTES)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (kind, value) in attributes {
            body.extend(kind.to_be_bytes());
            body.extend((value.len() as u16).to_be_bytes());
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut message = vec![0, 1];
        message.extend((body.len() as u16).to_be_bytes());
        message.extend(MAGIC_COOKIE.to_be_bytes());
        message.extend([7; 12]);
        message.extend(body);
        message
    }

    #[test]
    fn finds_the_ufrags_behind_other_attributes() {
        let message =
            request(&[(0x0024, &[0, 0, 0, 1]), (0xc057, &[1]), (USERNAME, b"here:there"), (8, &[0; 20])]);
        let binding = peek(&message).unwrap();
        assert_eq!(binding.class, BindingClass::Request);
        assert_eq!(binding.transaction, [7; 12]);
        assert_eq!(binding.local_ufrag, Some("here"));
        assert_eq!(binding.remote_ufrag, Some("there"));
    }

    #[test]
    fn a_message_without_a_usable_name_names_nobody() {
        assert_eq!(peek(&request(&[])).unwrap().local_ufrag, None);
        assert_eq!(peek(&request(&[(USERNAME, b"nocolon")])).unwrap().local_ufrag, None);
        assert_eq!(peek(&request(&[(USERNAME, &[0xff, b':', 0xff])])).unwrap().local_ufrag, None);
        assert_eq!(peek(&request(&[(USERNAME, &[b':'; 600])])).unwrap().local_ufrag, None);
        let mut cut = request(&[(USERNAME, b"here:there")]);
        cut[23] = 200;
        assert_eq!(peek(&cut).unwrap().local_ufrag, None);
    }

    #[test]
    fn refuses_what_is_no_binding_message() {
        let message = request(&[(USERNAME, b"a:b")]);
        assert!(peek(&message[..message.len() - 1]).is_none());
        let mut no_cookie = message.clone();
        no_cookie[4] ^= 1;
        assert!(peek(&no_cookie).is_none());
        let mut allocate = message;
        allocate[1] = 3;
        assert!(peek(&allocate).is_none());
        assert!(peek(&[]).is_none());
    }

    #[test]
    fn gives_up_after_a_bounded_number_of_attributes() {
        let mut attributes: Vec<(u16, &[u8])> = vec![(0x8000, &[]); MAX_ATTRIBUTES];
        attributes.push((USERNAME, b"here:there"));
        assert_eq!(peek(&request(&attributes)).unwrap().local_ufrag, None);
    }

    #[test]
    fn only_dtls_under_the_integrity_is_carried() {
        let integrity = (MESSAGE_INTEGRITY, &[0; 20][..]);
        let hello = (META_DTLS_IN_STUN, &[22, 254, 253][..]);
        let message = request(&[(USERNAME, b"a:b"), hello, integrity]);
        assert_eq!(carried_dtls(&message), Some(&[22, 254, 253][..]));
        assert_eq!(carried_dtls(&request(&[(USERNAME, b"a:b"), integrity, hello])), None);
        assert_eq!(carried_dtls(&request(&[(META_DTLS_IN_STUN, &[]), integrity])), None);
        assert_eq!(carried_dtls(&request(&[(USERNAME, b"a:b"), integrity])), None);
        assert_eq!(carried_dtls(&message[..34]), None);
    }

    proptest! {
        #[test]
        fn peeking_is_total(body in proptest::collection::vec(any::<u8>(), 0..100)) {
            peek(&body);
            carried_dtls(&body);
            let mut message = vec![0, 1, 0, (body.len() & !3) as u8, 0x21, 0x12, 0xa4, 0x42];
            message.extend([7; 12]);
            message.extend(&body[..body.len() & !3]);
            prop_assert!(peek(&message).is_some());
        }
    }
}
