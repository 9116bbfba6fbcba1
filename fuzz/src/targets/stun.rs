//! Checks of a peer's address: the first byte says whether the rest is a datagram as it is, or the attributes of a
//! binding request that is then given a header, user name and integrity, so that what stands behind them is reached.

use std::time::Duration;

use aws_lc_rs::hmac;
use weir_rtp::stun::{BindingClass, peek};
use weir_transport::{Output, Route, Transport};
use weir_units::media::{DtlsRole, IceCredentials, RemoteTransport};

use crate::{Input, clock, context};

const HEADER: usize = 20;
/// Addresses of one peer that are kept, and some that are about to be forgotten.
const MAX_ROUTES: usize = 64;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut now = clock::start();
    let local = IceCredentials { ufrag: "Aufrag".to_owned(), password: "password of 22 letters".to_owned() };
    let mut transport = Transport::new(context(), local.clone(), now);
    let remote = RemoteTransport {
        ice: IceCredentials { ufrag: "theirs".to_owned(), password: String::new() },
        fingerprint: [7; 32],
        local_role: DtlsRole::Server,
        max_message_size: None,
    };
    if input.bool() {
        transport.set_remote(now, local.clone(), &remote).expect("a first description");
    }
    for _ in 0..MAX_ROUTES {
        if input.is_empty() {
            break;
        }
        let (kind, port) = (input.u8(), input.u8());
        let remote = ([192, 0, 2, 1], 1_000 + u16::from(port)).into();
        let route = Route::Udp { socket: 0, remote };
        let packet = match kind & 3 {
            0 => input.chunk().to_vec(),
            1 => request(&local, "Aufrag:theirs", input.chunk(), true),
            2 => request(&local, "Aufrag:theirs", input.chunk(), false),
            _ => request(&local, "Bufrag:theirs", input.chunk(), true),
        };
        if !matches!(packet.first(), Some(0..=3)) {
            continue; // a DTLS record, which another target is about
        }
        now += Duration::from_millis(u64::from(kind >> 2) * 50);
        let seen = peek(&packet);
        let taken = transport.handle_packet(now, route, &packet);
        let mut bytes = 0;
        while let Some(output) = transport.poll_output() {
            assert!(taken, "what is not taken changes nothing");
            match output {
                Output::Transmit { route: to, bytes: answer } => {
                    assert_eq!(to, route, "an answer goes where the check came from");
                    let answered = peek(&answer).expect("an answer is STUN");
                    assert_eq!(answered.class, BindingClass::Success);
                    assert_eq!(Some(answered.transaction), seen.map(|binding| binding.transaction));
                    bytes += answer.len();
                }
                Output::RouteSelected(to) => assert_eq!(to, route),
                other => panic!("a check causes {other:?}"),
            }
        }
        assert!(bytes <= packet.len(), "{bytes} bytes answer {}", packet.len());
        if taken {
            let binding = seen.expect("what the transport takes, the front door reads");
            assert_eq!(binding.local_ufrag, Some("Aufrag"));
            assert_eq!(kind & 3, 1, "only integrity by the right password counts");
            assert_eq!(transport.last_heard(), Some(now));
        }
    }
}

/// A binding request: the attributes given, user name first and integrity last.
fn request(local: &IceCredentials, user: &str, attributes: &[u8], is_honest: bool) -> Vec<u8> {
    let mut packet = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    packet.extend([5; 12]);
    packet.extend([0, 6, 0, user.len() as u8]);
    packet.extend(user.as_bytes());
    packet.resize(packet.len().next_multiple_of(4), 0);
    packet.extend(attributes);
    packet.resize(packet.len().next_multiple_of(4), 0);
    let len = ((packet.len() - HEADER + 24) as u16).to_be_bytes();
    packet[2..4].copy_from_slice(&len);
    let password = if is_honest { &local.password } else { "guess" };
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
    let tag = hmac::sign(&key, &packet);
    packet.extend([0, 8, 0, 20]);
    packet.extend(tag.as_ref());
    packet
}
