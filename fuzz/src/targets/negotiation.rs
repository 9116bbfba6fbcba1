//! Descriptions from a client, parted by zero bytes, each with a byte before it of what else happens.
//!
//! As the answerer we print an answer to each that is taken; as the offerer we offer, and what follows is the client's
//! answer. What we print we must be able to read, with as many m-lines as the client has.

use std::io::Cursor;

use rtc_sdp::description::session::SessionDescription;
use weir_negotiation::{
    Candidate, CodecChoice, Egress, IngressPreference, LocalParameters, Negotiator, Outcome, Protocol,
};
use weir_units::ids::SubscriptionId;
use weir_units::media::{Codec, IceCredentials, MAX_ENCODINGS, MediaKind, PayloadFormat};

use crate::Input;

const MAX_ROUNDS: u64 = 8;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let offers = input.bool();
    let mut negotiator = Negotiator::new(local("Aus"), 1 << 40);
    for (round, part) in (1..=MAX_ROUNDS).zip(input.rest().split(|byte| *byte == 0)) {
        let mut part = Input::new(part);
        let wishes = part.u8();
        let Ok(sdp) = std::str::from_utf8(part.rest()) else { continue };
        wish(&mut negotiator, wishes, round);
        if offers {
            answered(&mut negotiator, sdp, wishes);
        } else {
            offered(&mut negotiator, sdp, wishes);
        }
    }
}

fn wish(negotiator: &mut Negotiator, wishes: u8, round: u64) {
    let kind = if wishes & 1 == 0 { MediaKind::Audio } else { MediaKind::Video };
    let codecs = match (kind, wishes >> 1 & 3) {
        (MediaKind::Audio, 0 | 1) => vec![Codec::Opus],
        (MediaKind::Audio, _) => vec![Codec::Red, Codec::Opus],
        (MediaKind::Video, 0) => vec![Codec::Vp8],
        (MediaKind::Video, 1) => vec![Codec::H264],
        (MediaKind::Video, 2) => vec![Codec::Av1],
        (MediaKind::Video, _) => vec![Codec::Vp9],
    };
    if wishes & 8 == 0 {
        negotiator.add_egress(Egress {
            subscription: SubscriptionId(round),
            kind,
            codecs,
            stream_id: "PA_1|TR_1".to_owned(),
            track_id: format!("TR_{round}"),
            ssrc: 1_000 + 2 * round as u32,
            rtx_ssrc: 1_001 + 2 * round as u32,
        });
    }
    if wishes & 0x10 != 0 {
        negotiator.remove_egress(SubscriptionId(round - 1));
    }
}

/// The client offers.
fn offered(negotiator: &mut Negotiator, sdp: &str, wishes: u8) {
    let Ok(offer) = negotiator.handle_offer(sdp) else { return };
    if offer.ice_restarted {
        negotiator.restart_ice(local("Bus").ice);
    }
    for media in &offer.media {
        assert!(media.rids.len() <= MAX_ENCODINGS);
        let preference = IngressPreference {
            codec: match media.codecs.last() {
                Some(codec) if wishes & 0x20 != 0 => CodecChoice::Named(*codec),
                _ if wishes & 0x02 != 0 => CodecChoice::Any,
                _ => CodecChoice::First,
            },
            dtx: wishes & 0x40 != 0,
            stereo: wishes & 0x80 != 0,
            red: wishes & 1 != 0,
        };
        negotiator.set_ingress(media.mid, preference);
    }
    let (audios, videos) = negotiator.missing_media();
    assert!(audios + videos <= weir_negotiation::MAX_MEDIA);
    let answer = negotiator.create_answer().expect("an offer waits");
    assert!(negotiator.create_answer().is_err(), "one answer to one offer");
    assert_eq!(media_lines(&answer.sdp), media_lines_read(sdp), "an answer has the offer's m-lines");
    assert_eq!(media_lines_read(&answer.sdp), media_lines(&answer.sdp));
    check(&answer.outcome);
    reread(&answer.sdp, &offer.media.iter().map(|media| media.mid.to_string()).collect::<Vec<_>>());
}

/// We offer, and the client answers.
fn answered(negotiator: &mut Negotiator, sdp: &str, wishes: u8) {
    let Ok(offer) = negotiator.create_offer(wishes & 0x20 != 0) else {
        negotiator.abandon_round();
        return;
    };
    assert!(negotiator.create_offer(false).is_err(), "one offer at a time");
    reread(&offer, &[]);
    if let Ok(outcome) = negotiator.handle_answer(sdp) {
        assert!(media_lines_read(sdp) <= media_lines(&offer));
        check(&outcome);
    }
}

/// Another negotiator understands what this one prints.
fn reread(sdp: &str, mids: &[String]) {
    if !sdp.lines().any(|line| line.starts_with("m=") && line.split(' ').nth(1) != Some("0")) {
        return; // all rejected: there is nothing to connect, and our description says nothing of how
    }
    let mut other = Negotiator::new(local("Cus"), 1);
    let read = other.handle_offer(sdp).unwrap_or_else(|error| panic!("{error}\n{sdp}"));
    let printed: Vec<String> = read.media.iter().map(|media| media.mid.to_string()).collect();
    for mid in printed {
        assert!(mids.is_empty() || mids.contains(&mid), "{mid} was not offered");
    }
    let answer = other.create_answer().expect("an offer waits");
    assert_eq!(media_lines(&answer.sdp), media_lines(sdp));
}

fn media_lines(sdp: &str) -> usize {
    sdp.lines().filter(|line| line.starts_with("m=")).count()
}

/// As the grammar has it.
fn media_lines_read(sdp: &str) -> usize {
    let read = SessionDescription::unmarshal(&mut Cursor::new(sdp.as_bytes())).expect("it was read before");
    read.media_descriptions.len()
}

fn check(outcome: &Outcome) {
    let formats = |formats: &[PayloadFormat], kind: MediaKind| {
        assert!(!formats.is_empty());
        for format in formats {
            assert_eq!(format.codec.kind(), kind);
        }
    };
    for media in &outcome.ingress {
        formats(&media.formats, media.kind);
        assert!((1..=MAX_ENCODINGS).contains(&media.encodings.len()));
    }
    for (subscription, media) in &outcome.egress {
        formats(&media.formats, media.kind);
        assert!(!outcome.refused.contains(subscription));
    }
    let mut mids: Vec<_> = outcome.ingress.iter().map(|media| media.mid).collect();
    mids.extend(outcome.egress.iter().map(|(_, media)| media.mid));
    let count = mids.len();
    mids.sort_unstable();
    mids.dedup();
    assert_eq!(mids.len(), count, "an m-line carries one thing");
    assert_eq!(outcome.mid_to_track.len(), outcome.egress.len());
}

fn local(ufrag: &str) -> LocalParameters {
    LocalParameters {
        ice: IceCredentials { ufrag: ufrag.to_owned(), password: "password of 22 letters".to_owned() },
        fingerprint: [7; 32],
        candidates: vec![
            Candidate { protocol: Protocol::Udp, address: "192.0.2.7:7882".parse().expect("an address") },
            Candidate {
                protocol: Protocol::TcpPassive,
                address: "[2001:db8::7]:7881".parse().expect("an address"),
            },
        ],
        max_message_size: 65_535,
    }
}
