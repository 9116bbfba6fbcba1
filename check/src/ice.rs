//! Where media are taken: a check to each place that the focus told of, answered by the focus itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use aws_lc_rs::hmac;
use futures_util::future::join_all;
use is::stun::{StunMessage, TransId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::homeserver::unreached;
use crate::signalling::{Session, UFRAG};
use crate::{Verdict, Walk};

/// Checks are sent this often, as UDP may lose one.
const UDP_INTERVAL: Duration = Duration::from_millis(300);
const UDP_CHECKS: usize = 8;
const TCP_TIMEOUT: Duration = Duration::from_secs(3);
/// More than a binding response needs.
const MAX_MESSAGE: usize = 1024;
/// Of a host candidate.
const PRIORITY: u32 = 2_130_706_431;

pub async fn over_udp(walk: &mut Walk) -> Verdict {
    let Some(session) = &walk.session else { return unreached() };
    let places = places(session, false);
    if places.is_empty() {
        return Verdict::failed(
            "the focus told of no address for UDP",
            "let media.bind or media.announce name an address that clients reach",
        );
    }
    let answers = join_all(places.iter().map(|place| check_udp(*place, session))).await;
    judge(&places, &answers).unwrap_or_else(|silent| {
        Verdict::failed(
            format!("nothing comes back over UDP from {silent}"),
            "open media.udp_port for UDP in every firewall on the way; if a router translates addresses, let \
             media.announce name those outside, and the router pass the port on",
        )
    })
}

pub async fn over_tcp(walk: &mut Walk) -> Verdict {
    let Some(session) = &walk.session else { return unreached() };
    let places = places(session, true);
    if places.is_empty() {
        let remarks =
            vec!["clients in networks without UDP cannot join: media.tcp_port would let them".to_owned()];
        return Verdict::Passed { detail: "not offered".to_owned(), remarks };
    }
    let answers = join_all(places.iter().map(|place| check_tcp(*place, session))).await;
    judge(&places, &answers).unwrap_or_else(|silent| {
        Verdict::failed(
            format!("nothing comes back over TCP from {silent}"),
            "open media.tcp_port for TCP in every firewall on the way, or set it to 0 so that clients do not try",
        )
    })
}

fn places(session: &Session, is_tcp: bool) -> Vec<SocketAddr> {
    let of_kind = session.candidates.iter().filter(|candidate| candidate.is_tcp == is_tcp);
    of_kind.map(|candidate| SocketAddr::new(candidate.address, candidate.port)).collect()
}

/// One place that answers is enough for a client; the others cost it time. `Err` names them if all are silent.
fn judge(places: &[SocketAddr], answers: &[bool]) -> Result<Verdict, String> {
    let names = |wanted: bool| {
        let chosen = places.iter().zip(answers).filter(|(_, answered)| **answered == wanted);
        chosen.map(|(place, _)| place.to_string()).collect::<Vec<_>>()
    };
    let (answering, silent) = (names(true), names(false));
    if answering.is_empty() {
        return Err(silent.join(", "));
    }
    let remark = |place| {
        format!("nothing comes back from {place}: no harm if this machine has no way there, such as IPv6")
    };
    Ok(Verdict::Passed { detail: answering.join(", "), remarks: silent.into_iter().map(remark).collect() })
}

/// A binding request that the focus takes for its client's.
fn request(session: &Session) -> Vec<u8> {
    let user = format!("{}:{UFRAG}", session.ufrag);
    let message = StunMessage::binding_request(&user, TransId::new(), true, 1, PRIORITY, false);
    let mut bytes = vec![0; MAX_MESSAGE];
    let password = Some(session.password.as_bytes());
    // A user fragment has 256 characters at the most; a longer one is no focus's.
    let len = message.to_bytes(password, &mut bytes, sha1_hmac).unwrap_or(0);
    bytes.truncate(len);
    bytes
}

/// Whether this is a success that only the focus can have signed.
fn is_answer(bytes: &[u8], session: &Session) -> bool {
    StunMessage::parse(bytes).is_ok_and(|message| {
        message.is_successful_binding_response() && message.verify(session.password.as_bytes(), sha1_hmac)
    })
}

fn sha1_hmac(key: &[u8], payloads: &[&[u8]]) -> [u8; 20] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key));
    for payload in payloads {
        context.update(payload);
    }
    context.sign().as_ref().try_into().expect("SHA-1 has twenty bytes")
}

async fn check_udp(place: SocketAddr, session: &Session) -> bool {
    let any: IpAddr =
        if place.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let Ok(socket) = UdpSocket::bind((any, 0)).await else { return false };
    if socket.connect(place).await.is_err() {
        return false;
    }
    let request = request(session);
    let mut buffer = [0; MAX_MESSAGE];
    for _ in 0..UDP_CHECKS {
        // An earlier one may have been answered "unreachable"; the next may not.
        let _ = socket.send(&request).await;
        match tokio::time::timeout(UDP_INTERVAL, socket.recv(&mut buffer)).await {
            Ok(Ok(len)) if is_answer(&buffer[..len], session) => return true,
            Ok(Err(_)) => tokio::time::sleep(UDP_INTERVAL).await,
            _ => {}
        }
    }
    false
}

/// With the framing of RFC 4571: a length before each message.
async fn check_tcp(place: SocketAddr, session: &Session) -> bool {
    let exchange = async {
        let mut stream = TcpStream::connect(place).await?;
        let request = request(session);
        stream.write_u16(u16::try_from(request.len()).unwrap_or(u16::MAX)).await?;
        stream.write_all(&request).await?;
        let len = usize::from(stream.read_u16().await?);
        let mut answer = vec![0; len];
        stream.read_exact(&mut answer).await?;
        std::io::Result::Ok(is_answer(&answer, session))
    };
    matches!(tokio::time::timeout(TCP_TIMEOUT, exchange).await, Ok(Ok(true)))
}
