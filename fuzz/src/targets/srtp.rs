//! A byte of profile, then packets with two bytes before each: how it is made (sealed, then perhaps changed; or as it
//! is) and which number it has. Lengths stand before the packets.

use std::collections::BTreeSet;

use weir_rtp::header::RtpHeader;
use weir_transport::srtp::{MAX_SSRCS, Plain, Profile, SrtpEgress, SrtpError, SrtpIngress, SrtpKeys};

use crate::Input;

const MAX_PACKETS: usize = 128;
const BUFFER: usize = 1 << 17;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let profile = input.choose(&[Profile::Aes128Gcm, Profile::Aes256Gcm, Profile::Aes128CmSha1]);
    let (mut egress, mut ingress) = contexts(profile);
    let mut opened = BTreeSet::new();
    for _ in 0..MAX_PACKETS {
        if input.is_empty() {
            break;
        }
        let (kind, number) = (input.u8(), input.u8());
        let plain = input.chunk();
        let change = kind >> 3;
        match kind & 7 {
            0 => {
                let mut packet = plain.to_vec();
                assert!(ingress.open_rtp(&mut packet, |_| true).is_err(), "nobody guesses a tag");
            }
            1 => {
                let mut packet = plain.to_vec();
                assert!(ingress.open_rtcp(&mut packet).is_err(), "nobody guesses a tag");
            }
            2..=4 => rtp(&egress, &mut ingress, plain, number, change, &mut opened),
            _ => rtcp(&mut egress, &mut ingress, plain, change),
        }
    }
    assert!(opened.len() <= MAX_SSRCS * 256);
}

/// A pair for one direction.
pub(crate) fn contexts(profile: Profile) -> (SrtpEgress, SrtpIngress) {
    let (ours, theirs) = keys(profile, 0);
    (ours.into_contexts().1, theirs.into_contexts().0)
}

/// What a handshake would give client and server; `whose` makes it another.
pub(crate) fn keys(profile: Profile, whose: u8) -> (SrtpKeys, SrtpKeys) {
    let len = match profile {
        Profile::Aes128Gcm => 56,
        Profile::Aes256Gcm => 88,
        Profile::Aes128CmSha1 => 60,
    };
    let material: Vec<u8> = (0..len).map(|byte| byte ^ whose).collect();
    let side = |is_client| SrtpKeys::from_exporter(profile, &material, is_client);
    (side(true).expect("the profile's length"), side(false).expect("the profile's length"))
}

/// Seals what stands behind the header, opens it, and finds it as it was.
fn rtp(
    egress: &SrtpEgress,
    ingress: &mut SrtpIngress,
    plain: &[u8],
    number: u8,
    change: u8,
    opened: &mut BTreeSet<(u32, u64)>,
) {
    let Some(header) = RtpHeader::parse(plain) else { return };
    let mut plain = plain.to_vec();
    // Numbers stay near zero, so that the receiver's guess of the rollover counter is right.
    let index = u64::from(number);
    plain[2..4].copy_from_slice(&(index as u16).to_be_bytes());
    let (head, body) = plain.split_at(header.header_len.into());
    let (prefix, payload) = body.split_at(body.len().min(usize::from(change)));
    let mut packet = vec![0; BUFFER];
    let len = egress.seal_rtp(
        &Plain { ssrc: header.ssrc, index, header: head, prefix, payload, padding: 0 },
        &mut packet,
    );
    assert_eq!(len, plain.len() + egress.overhead());
    packet.truncate(len);
    if change > 0 {
        let mut forged = packet.clone();
        let at = usize::from(change - 1) * len / 31;
        forged[at] ^= change;
        assert!(ingress.open_rtp(&mut forged, |_| true).is_err(), "byte {at} was changed");
    }
    let news = !opened.contains(&(header.ssrc, index));
    match ingress.open_rtp(&mut packet, |_| true) {
        Ok(read) => {
            assert!(news, "number {index} of {} passes once", header.ssrc);
            assert_eq!(read.index, index);
            assert_eq!(packet[..read.len], plain);
            opened.insert((header.ssrc, index));
        }
        Err(SrtpError::Replay) => assert!(!news, "number {index} of {} is new", header.ssrc),
        Err(SrtpError::TooManySsrcs) => assert!(opened.len() >= MAX_SSRCS),
        Err(error) => panic!("{error}"),
    }
}

fn rtcp(egress: &mut SrtpEgress, ingress: &mut SrtpIngress, plain: &[u8], change: u8) {
    let mut packet = vec![0; BUFFER];
    packet[..plain.len()].copy_from_slice(plain);
    let len = egress.seal_rtcp(&mut packet, plain.len());
    if len == 0 {
        assert!(plain.len() < 8, "whatever has a header and an SSRC is sealed");
        return;
    }
    packet.truncate(len);
    if change > 0 {
        let mut forged = packet.clone();
        let at = usize::from(change - 1) * len / 31;
        forged[at] ^= change;
        assert!(ingress.open_rtcp(&mut forged).is_err(), "byte {at} was changed");
    }
    let mut again = packet.clone();
    match ingress.open_rtcp(&mut packet) {
        Ok(len) => {
            assert_eq!(packet[..len], *plain);
            assert_eq!(ingress.open_rtcp(&mut again), Err(SrtpError::Replay));
        }
        Err(SrtpError::TooManySsrcs) => {}
        Err(error) => panic!("{error}"),
    }
}
