use super::*;
use crate::candidate::Protocol;

const CAPTURES: [(&str, &str); 4] = [
    ("livekit-client 2.23", include_str!("../../testdata/web-2.23.0.sdp")),
    ("Element Call 0.26", include_str!("../../testdata/element-call-0.26.1.sdp")),
    ("Python 1.2", include_str!("../../testdata/python-1.2.1.sdp")),
    ("rtc-node 1.1", include_str!("../../testdata/rtc-node-1.1.0.sdp")),
];

const HEAD: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n";
const FINGERPRINT: &str =
    "sha-256 36:B2:CE:88:8E:B1:C6:64:F4:77:22:EB:40:CA:2F:DE:A2:4B:1B:46:E0:80:58:C6:42:A8:4A:58:67:73:25:4D";

/// An m-line as a client writes it.
fn line(kind: &str, mid: u32, direction: &str, extra: &str) -> String {
    let codecs = match kind {
        "audio" => {
            "m=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\na=rtpmap:111 opus/48000/2\r\na=rtpmap:63 red/48000/2\r\n\
             a=fmtp:111 minptime=10;useinbandfec=1\r\na=fmtp:63 111/111\r\na=rtcp-fb:111 nack\r\n"
        }
        "video" => {
            "m=video 9 UDP/TLS/RTP/SAVPF 96 97 98 99\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\n\
             a=fmtp:97 apt=96\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtpmap:98 VP9/90000\r\n\
             a=fmtp:98 profile-id=0\r\na=rtpmap:99 rtx/90000\r\na=fmtp:99 apt=98\r\na=rtcp-fb:* ccm fir\r\n"
        }
        _ => {
            "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=sctp-port:5000\r\na=max-message-size:262144\r\n"
        }
    };
    format!(
        "{codecs}c=IN IP4 0.0.0.0\r\na=setup:actpass\r\na=mid:{mid}\r\na={direction}\r\na=ice-ufrag:ZNzx\r\n\
         a=ice-pwd:p4m+QG1pUAKTuSxxGSBALrPr\r\na=fingerprint:{FINGERPRINT}\r\na=rtcp-mux\r\n\
         a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n{extra}"
    )
}

fn offer(lines: &[String]) -> String {
    format!("{HEAD}{}", lines.concat())
}

fn negotiator() -> Negotiator {
    let local = LocalParameters {
        ice: IceCredentials { ufrag: "Aufrag".to_owned(), password: "password-of-22-letters".to_owned() },
        fingerprint: [0xab; 32],
        candidates: vec![Candidate { protocol: Protocol::Udp, address: "192.0.2.1:7882".parse().unwrap() }],
        max_message_size: 65_535,
    };
    Negotiator::new(local, 7)
}

fn egress(subscription: u64, kind: MediaKind, codecs: &[Codec]) -> Egress {
    Egress {
        subscription: SubscriptionId(subscription),
        kind,
        codecs: codecs.to_vec(),
        stream_id: "PA_a|TR_b".to_owned(),
        track_id: format!("TR_{subscription}"),
        ssrc: 1000 + subscription as u32,
        rtx_ssrc: 2000 + subscription as u32,
    }
}

/// What a client answers that takes everything.
fn answer_to(sdp: &str) -> String {
    let mut client = negotiator();
    client.handle_offer(sdp).unwrap();
    client.create_answer().unwrap().sdp
}

/// The attributes of each m-line of a description.
fn sections(sdp: &str) -> Vec<&str> {
    sdp.split("m=").skip(1).collect()
}

/// Python's first offer has m-lines for what it will receive; those for its own tracks come later and offer only the
/// extensions agreed on before. Without them nobody sees who speaks, and its line is never measured.
#[test]
fn the_first_answer_agrees_to_every_extension_that_later_lines_need() {
    for (client, sdp) in CAPTURES {
        let mut negotiator = negotiator();
        negotiator.handle_offer(sdp).unwrap();
        let answer = negotiator.create_answer().unwrap().sdp;
        for section in answer.split("m=").skip(1) {
            let needed: &[&str] = match section.split(' ').next().unwrap() {
                "audio" => &["ssrc-audio-level", "transport-wide-cc", "sdes:mid"],
                "video" => {
                    &["transport-wide-cc", "sdes:mid", "sdes:rtp-stream-id", "sdes:repaired-rtp-stream-id"]
                }
                _ => &[],
            };
            for extension in needed {
                assert!(section.contains(extension), "{client}: {extension} is missing in {section}");
            }
        }
    }
}

#[test]
fn answers_what_real_clients_offer_mid_by_mid() {
    for (client, sdp) in CAPTURES {
        let mut negotiator = negotiator();
        let offer = negotiator.handle_offer(sdp).unwrap_or_else(|error| panic!("{client}: {error}"));
        assert!(offer.has_data, "{client}");
        assert!(!offer.ice_restarted, "{client}");
        assert_eq!(offer.media.len(), 6, "{client}: three audio and three video m-lines wait for others");
        assert!(offer.media.iter().all(|media| !media.sends), "{client}");
        let answer = negotiator.create_answer().unwrap();
        let mids = |sdp: &str| {
            sdp.lines().filter(|line| line.starts_with("a=mid:")).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(mids(&answer.sdp), mids(sdp), "{client}");
        assert!(answer.outcome.ingress.is_empty() && answer.outcome.egress.is_empty(), "{client}");
        let remote = answer.outcome.remote.unwrap();
        assert_eq!(remote.local_role, DtlsRole::Server, "{client}");
        assert!(remote.max_message_size.is_some(), "{client}");
        assert_eq!(answer.sdp.matches("a=inactive").count(), 6, "{client}");
        assert!(answer.sdp.contains("a=ice-lite"), "{client}");
        let with_candidates: Vec<_> =
            sections(&answer.sdp).iter().map(|section| section.contains("a=candidate:")).collect();
        assert_eq!(with_candidates, [true, false, false, false, false, false, true], "{client}");
    }
}

#[test]
fn candidates_stand_where_every_peer_looks_for_them() {
    let carriers = |lines: &[String]| {
        let mut negotiator = negotiator();
        negotiator.handle_offer(&offer(lines)).unwrap();
        let sdp = negotiator.create_answer().unwrap().sdp;
        let carries = |section: &&str| section.contains("a=candidate:");
        sections(&sdp).iter().map(carries).collect::<Vec<_>>()
    };
    let (idle, data) = (line("audio", 0, "recvonly", ""), line("application", 1, "sendrecv", ""));
    assert_eq!(
        carriers(&[idle.clone(), data.clone(), line("audio", 2, "recvonly", "")]),
        [true, true, false]
    );
    assert_eq!(carriers(&[data, idle.clone()]), [true, false]);
    assert_eq!(carriers(&[idle]), [true], "all inactive");
}

#[test]
fn its_own_description_reads_back() {
    let mut negotiator = negotiator();
    negotiator.add_egress(egress(1, MediaKind::Video, &[Codec::Vp8]));
    negotiator.handle_offer(CAPTURES[0].1).unwrap();
    let sdp = negotiator.create_answer().unwrap().sdp;
    let (remote, sections) = read(&sdp, &[]).unwrap();
    assert_eq!(remote.fingerprint, [0xab; 32]);
    let sending: Vec<_> =
        sections.iter().filter(|section| section.direction.sends && section.kind != Kind::Data).collect();
    let [sending] = sending[..] else { panic!("one subscription, {} m-lines", sending.len()) };
    assert_eq!(sending.ssrcs, vec![(1001, Some(2001))]);
    assert_eq!(sending.track_id.as_deref(), Some("TR_1"));
}

#[test]
fn answers_a_simulcast_video_with_its_rids_and_one_codec() {
    let rids = "a=msid:stream cam\r\na=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n\
                a=rid:q send\r\na=rid:h send\r\na=rid:f send\r\na=simulcast:send f;h;q\r\n";
    let mut negotiator = negotiator();
    let offer = negotiator.handle_offer(&offer(&[line("video", 0, "sendonly", rids)])).unwrap();
    assert_eq!(offer.media[0].track_id.as_deref(), Some("cam"));
    assert_eq!(offer.media[0].codecs, [Codec::Vp8, Codec::Vp9]);
    negotiator.set_ingress(
        offer.media[0].mid,
        IngressPreference { codec: CodecChoice::Named(Codec::Vp9), ..Default::default() },
    );
    let Description { sdp, outcome } = negotiator.create_answer().unwrap();
    let format = PayloadFormat { codec: Codec::Vp9, payload_type: 98, rtx_payload_type: Some(99) };
    assert_eq!(outcome.ingress[0].formats, [format]);
    let names: Vec<_> =
        outcome.ingress[0].encodings.iter().map(|encoding| encoding.rid.unwrap().to_string()).collect();
    assert_eq!(names, ["q", "h", "f"], "ascending quality, whatever the order offered");
    assert_eq!(outcome.ingress[0].extensions.rid, Some(10));
    assert!(sdp.contains("a=simulcast:recv q;h;f\r\n"), "{sdp}");
    assert!(sdp.contains("a=recvonly") && !sdp.contains("VP8"), "{sdp}");
    assert!(!outcome.ingress[0].nack, "NACK was offered for VP8 only");
}

/// As pion does: it sends what the answer names, and offers all that it knows.
#[test]
fn answers_with_every_codec_if_the_client_will_say_by_its_packets() {
    let mut negotiator = negotiator();
    let video = line("video", 0, "sendonly", "a=msid:- cam\r\na=rtcp-fb:98 nack\r\n");
    for round in 0..2 {
        let offer = negotiator.handle_offer(&offer(std::slice::from_ref(&video))).unwrap();
        if round == 0 {
            let preference = IngressPreference { codec: CodecChoice::Any, ..Default::default() };
            negotiator.set_ingress(offer.media[0].mid, preference);
        }
        let Description { sdp, outcome } = negotiator.create_answer().unwrap();
        let format = |codec, payload_type| PayloadFormat {
            codec,
            payload_type,
            rtx_payload_type: Some(payload_type + 1),
        };
        assert_eq!(outcome.ingress[0].formats, [format(Codec::Vp8, 96), format(Codec::Vp9, 98)]);
        assert!(outcome.ingress[0].nack);
        assert!(sdp.contains("m=video 9 UDP/TLS/RTP/SAVPF 96 97 98 99\r\n"), "{sdp}");
        for line in ["rtpmap:98 VP9/90000", "fmtp:99 apt=98", "rtcp-fb:98 nack", "rtcp-fb:98 ccm fir"] {
            assert!(sdp.contains(&format!("a={line}\r\n")), "{line} in {sdp}");
        }
    }
}

#[test]
fn asks_for_nothing_again_that_not_every_codec_may_give() {
    let mut negotiator = negotiator();
    let media = negotiator.handle_offer(&offer(&[line("video", 0, "sendonly", "")])).unwrap().media;
    negotiator.set_ingress(media[0].mid, IngressPreference { codec: CodecChoice::Any, ..Default::default() });
    assert!(!negotiator.create_answer().unwrap().outcome.ingress[0].nack, "NACK was offered for VP8 only");
}

#[test]
fn answers_audio_with_dtx_and_red_as_asked() {
    let offer = offer(&[line("audio", 0, "sendrecv", "a=msid:- mic\r\n")]);
    let mut plain = negotiator();
    let media = plain.handle_offer(&offer).unwrap().media;
    plain.set_ingress(media[0].mid, IngressPreference { dtx: true, ..Default::default() });
    let Description { sdp, outcome } = plain.create_answer().unwrap();
    assert!(sdp.contains("a=fmtp:111 minptime=10;useinbandfec=1;usedtx=1\r\n"), "{sdp}");
    assert!(!sdp.contains("red/48000"), "{sdp}");
    assert!(outcome.ingress[0].nack);
    let mut with_red = negotiator();
    let media = with_red.handle_offer(&offer).unwrap().media;
    with_red.set_ingress(media[0].mid, IngressPreference { red: true, ..Default::default() });
    let formats = with_red.create_answer().unwrap().outcome.ingress.remove(0).formats;
    assert_eq!(formats.iter().map(|format| format.codec).collect::<Vec<_>>(), [Codec::Red, Codec::Opus]);
}

#[test]
fn subscriptions_take_the_m_lines_offered_for_them() {
    let mut negotiator = negotiator();
    negotiator.add_egress(egress(1, MediaKind::Audio, &[Codec::Red, Codec::Opus]));
    negotiator.add_egress(egress(2, MediaKind::Video, &[Codec::Vp8]));
    negotiator.add_egress(egress(3, MediaKind::Video, &[Codec::Vp8]));
    let lines = [line("audio", 0, "recvonly", ""), line("video", 1, "recvonly", "")];
    negotiator.handle_offer(&offer(&lines)).unwrap();
    let Description { sdp, outcome } = negotiator.create_answer().unwrap();
    let placed: Vec<_> =
        outcome.egress.iter().map(|(id, media)| (id.0, media.ssrc, media.rtx_ssrc)).collect();
    assert_eq!(placed, [(1, 1001, None), (2, 1002, Some(2002))]);
    assert_eq!(outcome.egress[0].1.formats.len(), 2);
    assert_eq!(negotiator.missing_media(), (0, 1));
    assert!(sections(&sdp)[1].contains("a=msid:PA_a|TR_b TR_2"), "{sdp}");
    assert!(sections(&sdp)[1].contains("a=ssrc-group:FID 1002 2002"), "{sdp}");

    let lines = [&lines[..], &[line("video", 2, "recvonly", "")]].concat();
    negotiator.handle_offer(&offer(&lines)).unwrap();
    let outcome = negotiator.create_answer().unwrap().outcome;
    assert_eq!(outcome.egress.len(), 3);
    assert_eq!(outcome.mid_to_track[2], (Mid::new("2").unwrap(), "TR_3".to_owned()));
    assert_eq!(negotiator.missing_media(), (0, 0));
    assert!(!negotiator.wants_round());
}

#[test]
fn an_estimate_is_asked_of_who_receives_and_promised_to_nobody_who_sends() {
    let mut negotiator = negotiator();
    negotiator.add_egress(egress(1, MediaKind::Video, &[Codec::Vp8]));
    let estimates = "a=rtcp-fb:* goog-remb\r\n";
    let lines = [line("video", 0, "sendonly", estimates), line("video", 1, "recvonly", estimates)];
    negotiator.handle_offer(&offer(&lines)).unwrap();
    let sdp = negotiator.create_answer().unwrap().sdp;
    let agreed: Vec<_> = sections(&sdp).iter().map(|section| section.contains("96 goog-remb")).collect();
    assert_eq!(agreed, [false, true], "{sdp}");
}

#[test]
fn an_m_line_is_inactive_for_a_round_before_it_carries_another_track() {
    let offer = offer(&[line("video", 0, "recvonly", "")]);
    let mut negotiator = negotiator();
    negotiator.add_egress(egress(1, MediaKind::Video, &[Codec::Vp8]));
    negotiator.handle_offer(&offer).unwrap();
    negotiator.create_answer().unwrap();
    negotiator.remove_egress(SubscriptionId(1));
    negotiator.add_egress(egress(2, MediaKind::Video, &[Codec::Vp8]));
    assert!(negotiator.wants_round());
    negotiator.handle_offer(&offer).unwrap();
    let first = negotiator.create_answer().unwrap();
    assert!(first.outcome.egress.is_empty());
    assert!(first.sdp.contains("a=inactive"), "{}", first.sdp);
    assert_eq!(negotiator.missing_media(), (0, 0), "the freed m-line will do");
    negotiator.handle_offer(&offer).unwrap();
    let second = negotiator.create_answer().unwrap();
    assert_eq!(second.outcome.egress[0].0, SubscriptionId(2));
}

#[test]
fn a_codec_the_client_lacks_is_refused_and_forgotten() {
    let mut negotiator = negotiator();
    negotiator.add_egress(egress(1, MediaKind::Video, &[Codec::Av1]));
    negotiator.handle_offer(&offer(&[line("video", 0, "recvonly", "")])).unwrap();
    let outcome = negotiator.create_answer().unwrap().outcome;
    assert_eq!(outcome.refused, [SubscriptionId(1)]);
    assert!(!negotiator.wants_round());
}

#[test]
fn a_client_that_offers_no_m_line_of_the_kind_is_asked_for_one() {
    let mut negotiator = negotiator();
    negotiator.add_egress(egress(1, MediaKind::Video, &[Codec::Av1]));
    negotiator.handle_offer(&offer(&[line("audio", 0, "recvonly", "")])).unwrap();
    assert!(negotiator.create_answer().unwrap().outcome.refused.is_empty());
    assert_eq!(negotiator.missing_media(), (0, 1));
}

#[test]
fn new_ice_credentials_are_a_restart_and_the_role_stays() {
    let first = offer(&[line("data", 0, "sendrecv", "")]);
    let mut negotiator = negotiator();
    assert!(!negotiator.handle_offer(&first).unwrap().ice_restarted);
    negotiator.create_answer().unwrap();
    let second = first.replace("ZNzx", "other").replace("actpass", "passive");
    assert!(negotiator.handle_offer(&second).unwrap().ice_restarted);
    negotiator.restart_ice(IceCredentials { ufrag: "Anew".to_owned(), password: "p".repeat(22) });
    let answer = negotiator.create_answer().unwrap();
    assert!(answer.sdp.contains("a=ice-ufrag:Anew"));
    assert!(answer.sdp.contains("a=setup:passive"), "{}", answer.sdp);
    assert_eq!(answer.outcome.remote.unwrap().ice.ufrag, "other");
}

#[test]
fn an_m_line_the_client_stops_sending_on_is_no_ingress() {
    let mut negotiator = negotiator();
    negotiator.handle_offer(&offer(&[line("audio", 0, "sendonly", "a=msid:- mic\r\n")])).unwrap();
    assert_eq!(negotiator.create_answer().unwrap().outcome.ingress.len(), 1);
    negotiator.handle_offer(&offer(&[line("audio", 0, "inactive", "")])).unwrap();
    assert!(negotiator.create_answer().unwrap().outcome.ingress.is_empty());
}

#[test]
fn a_rejected_m_line_is_answered_with_port_zero_and_left_out_of_the_bundle() {
    let rejected = line("video", 1, "inactive", "").replace("m=video 9", "m=video 0");
    let mut negotiator = negotiator();
    negotiator.handle_offer(&offer(&[line("audio", 0, "recvonly", ""), rejected])).unwrap();
    let sdp = negotiator.create_answer().unwrap().sdp;
    assert!(sdp.contains("a=group:BUNDLE 0\r\n"), "{sdp}");
    assert!(sections(&sdp)[1].starts_with("video 0 "), "{sdp}");
}

/// An m-line as it is rejected by those who say no more of it.
fn rejected(kind: &str) -> String {
    format!("m={kind} 0 UDP/TLS/RTP/SAVPF 0\r\nc=IN IP4 0.0.0.0\r\n")
}

/// A viewer who would otherwise never see that track again.
#[test]
fn a_track_whose_m_line_is_rejected_or_taken_for_sending_moves_to_another() {
    let (audio, free) = (line("audio", 0, "recvonly", ""), line("video", 2, "recvonly", ""));
    let taken = line("video", 1, "sendrecv", "a=msid:stream cam\r\n");
    let rejecting = rejected("video") + "a=mid:1\r\n";
    for (lost, ingress) in [(rejecting, 0), (taken, 1)] {
        let mut negotiator = negotiator();
        negotiator.add_egress(egress(1, MediaKind::Video, &[Codec::Vp8]));
        negotiator.handle_offer(&offer(&[audio.clone(), line("video", 1, "recvonly", "")])).unwrap();
        assert_eq!(negotiator.create_answer().unwrap().outcome.egress.len(), 1);

        negotiator.handle_offer(&offer(&[audio.clone(), lost.clone()])).unwrap();
        let outcome = negotiator.create_answer().unwrap().outcome;
        assert_eq!((outcome.egress.len(), outcome.ingress.len(), outcome.refused.len()), (0, ingress, 0));
        assert_eq!(negotiator.missing_media(), (0, 1), "the client is asked for another");
        assert!(negotiator.wants_round());

        negotiator.handle_offer(&offer(&[audio.clone(), lost, free.clone()])).unwrap();
        let outcome = negotiator.create_answer().unwrap().outcome;
        assert_eq!(outcome.mid_to_track, [(Mid::new("2").unwrap(), "TR_1".to_owned())]);
        assert!(!negotiator.wants_round());
    }
}

#[test]
fn a_rejected_m_line_says_nothing_of_what_the_client_receives() {
    let mut negotiator = negotiator();
    negotiator.add_egress(egress(1, MediaKind::Video, &[Codec::Vp8]));
    let lines = [line("audio", 0, "recvonly", ""), rejected("video") + "a=mid:1\r\na=inactive\r\n"];
    negotiator.handle_offer(&offer(&lines)).unwrap();
    assert!(negotiator.create_answer().unwrap().outcome.refused.is_empty());
    assert_eq!(negotiator.missing_media(), (0, 1));
}

#[test]
fn an_answer_may_reject_an_m_line_without_naming_it() {
    let mut server = negotiator();
    server.add_egress(egress(1, MediaKind::Video, &[Codec::Av1]));
    server.add_egress(egress(2, MediaKind::Audio, &[Codec::Opus]));
    server.create_offer(true).unwrap();
    let data = line("data", 0, "sendrecv", "");
    let answer = offer(&[data, rejected("video"), line("audio", 2, "recvonly", "")]);
    let named = answer.replace("a=mid:2", "a=mid:1");
    assert!(server.clone().handle_answer(&named).is_err(), "two m-lines with one name");
    let outcome = server.handle_answer(&answer).unwrap();
    assert_eq!(outcome.refused, [SubscriptionId(1)]);
    assert_eq!(outcome.mid_to_track, [(Mid::new("2").unwrap(), "TR_2".to_owned())]);
}

#[test]
fn offers_data_and_tracks_and_takes_the_answer() {
    let mut server = negotiator();
    server.add_egress(egress(1, MediaKind::Audio, &[Codec::Opus]));
    server.add_egress(egress(2, MediaKind::Video, &[Codec::Vp8]));
    let sdp = server.create_offer(true).unwrap();
    assert_eq!(sections(&sdp).len(), 3);
    assert!(sdp.contains("a=setup:actpass") && sdp.contains("a=ice-lite"), "{sdp}");
    assert_eq!(server.create_offer(true), Err(SdpError::OfferPending));

    // The client is another negotiator's answer, turned towards us.
    let mut client = negotiator();
    client.handle_offer(&sdp).unwrap();
    let answer = client.create_answer().unwrap().sdp;
    let outcome = server.handle_answer(&answer).unwrap();
    assert_eq!(outcome.egress.len(), 2);
    assert_eq!(outcome.egress[1].1.formats[0].payload_type, 96);
    assert_eq!(outcome.egress[1].1.rtx_ssrc, Some(2002));
    assert_eq!(outcome.remote.unwrap().local_role, DtlsRole::Client);
    assert_eq!(server.handle_answer(&answer).unwrap_err(), SdpError::UnexpectedAnswer);
}

#[test]
fn a_freed_m_line_of_our_offers_is_reused_after_an_inactive_round() {
    let mut server = negotiator();
    server.add_egress(egress(1, MediaKind::Video, &[Codec::Vp8]));
    let sdp = server.create_offer(true).unwrap();
    server.handle_answer(&answer_to(&sdp)).unwrap();
    server.remove_egress(SubscriptionId(1));
    let sdp = server.create_offer(true).unwrap();
    assert!(sections(&sdp)[1].contains("a=inactive"), "{sdp}");
    server.handle_answer(&answer_to(&sdp)).unwrap();
    server.add_egress(egress(2, MediaKind::Video, &[Codec::Vp9]));
    let sdp = server.create_offer(true).unwrap();
    assert_eq!(sections(&sdp).len(), 2);
    assert!(sections(&sdp)[1].contains("VP9/90000"), "the codec of the new track, not of the old: {sdp}");
    let outcome = server.handle_answer(&answer_to(&sdp)).unwrap();
    assert_eq!(outcome.egress[0].1.formats[0].codec, Codec::Vp9);
}

#[test]
fn an_m_line_freed_while_our_offer_is_out_is_inactive_in_the_next() {
    let mut server = negotiator();
    server.add_egress(egress(1, MediaKind::Video, &[Codec::Vp8]));
    let sdp = server.create_offer(true).unwrap();
    server.remove_egress(SubscriptionId(1));
    server.handle_answer(&answer_to(&sdp)).unwrap();
    assert!(server.wants_round());
    server.add_egress(egress(2, MediaKind::Video, &[Codec::Vp8]));
    let sdp = server.create_offer(true).unwrap();
    assert!(sections(&sdp)[1].contains("a=inactive"), "{sdp}");
}

#[test]
fn an_m_line_that_a_lost_offer_freed_is_inactive_in_the_next() {
    let mut server = negotiator();
    server.add_egress(egress(1, MediaKind::Video, &[Codec::Vp8]));
    let sdp = server.create_offer(true).unwrap();
    server.handle_answer(&answer_to(&sdp)).unwrap();
    server.remove_egress(SubscriptionId(1));
    server.create_offer(true).unwrap();
    server.abandon_round();
    server.add_egress(egress(2, MediaKind::Video, &[Codec::Vp8]));
    let sdp = server.create_offer(true).unwrap();
    assert!(sections(&sdp)[1].contains("a=inactive"), "{sdp}");
    server.handle_answer(&answer_to(&sdp)).unwrap();
    server.abandon_round();
    server.add_egress(egress(3, MediaKind::Video, &[Codec::Vp8]));
    let sdp = server.create_offer(true).unwrap();
    assert!(sections(&sdp)[1].contains("a=sendonly"), "what was answered was seen: {sdp}");
}

#[test]
fn an_m_line_that_a_lost_answer_freed_is_inactive_in_the_next() {
    let offer = offer(&[line("video", 0, "recvonly", "")]);
    let mut negotiator = negotiator();
    negotiator.add_egress(egress(1, MediaKind::Video, &[Codec::Vp8]));
    negotiator.handle_offer(&offer).unwrap();
    negotiator.create_answer().unwrap();
    negotiator.remove_egress(SubscriptionId(1));
    negotiator.handle_offer(&offer).unwrap();
    negotiator.create_answer().unwrap();
    negotiator.abandon_round();
    negotiator.add_egress(egress(2, MediaKind::Video, &[Codec::Vp8]));
    let carried = [(); 2].map(|()| {
        negotiator.handle_offer(&offer).unwrap();
        negotiator.create_answer().unwrap().outcome.egress.len()
    });
    assert_eq!(carried, [0, 1]);
}

#[test]
fn two_hundred_m_lines_are_held() {
    let lines: Vec<String> = (0..200).map(|mid| line("video", mid, "recvonly", "")).collect();
    let mut negotiator = negotiator();
    for subscription in 0..200 {
        negotiator.add_egress(egress(subscription, MediaKind::Video, &[Codec::Vp8]));
    }
    negotiator.handle_offer(&offer(&lines)).unwrap();
    assert_eq!(negotiator.create_answer().unwrap().outcome.egress.len(), 200);
}

#[test]
fn broken_descriptions_are_refused_by_name_and_change_nothing() {
    let good = offer(&[line("audio", 0, "recvonly", ""), line("video", 1, "recvonly", "")]);
    let mut negotiator = negotiator();
    negotiator.handle_offer(&good).unwrap();
    negotiator.create_answer().unwrap();
    let cases = [
        (String::new(), "not SDP"),
        ("x".repeat(MAX_SDP_BYTES + 1), "bytes"),
        (offer(&[line("audio", 0, "recvonly", "")]), "disappeared"),
        (offer(&[line("video", 0, "recvonly", ""), line("video", 1, "recvonly", "")]), "changed"),
        (good.replace("a=ice-pwd", "a=no-pwd"), "ice-pwd"),
        (good.replace("sha-256", "sha-1"), "fingerprint"),
        (good.replace("36:B2", "36:B"), "fingerprint"),
        (good.replace("a=mid:1", "a=mid:0"), "unique a=mid"),
        (good.replace("a=mid:1", "a=nomid:1"), "a=mid"),
        (offer(&vec![line("audio", 0, "recvonly", ""); MAX_MEDIA + 1]), "m-lines"),
    ];
    for (sdp, expected) in cases {
        let error = negotiator.handle_offer(&sdp).unwrap_err().to_string();
        assert!(error.contains(expected), "{error} should name {expected}");
    }
    assert_eq!(negotiator.create_answer().unwrap_err(), SdpError::NoOffer);
}

/// A browser refuses a whole description for one m-line without a format.
#[test]
fn a_track_of_codecs_that_nobody_forwards_leaves_the_answer_well_formed() {
    let alaw =
        line("audio", 0, "sendonly", "").replace("111 63", "8").replace("111 opus/48000/2", "8 PCMA/8000");
    let mut negotiator = negotiator();
    negotiator.handle_offer(&offer(&[alaw, line("audio", 1, "sendonly", "")])).unwrap();
    let answer = negotiator.create_answer().unwrap();
    assert_eq!(answer.outcome.ingress.len(), 1, "the other track is taken");
    let lines: Vec<&str> = answer.sdp.lines().filter(|line| line.starts_with("m=")).collect();
    assert_eq!(lines, ["m=audio 9 UDP/TLS/RTP/SAVPF 8", "m=audio 9 UDP/TLS/RTP/SAVPF 111"]);
    assert!(read(&answer.sdp, &[]).is_ok());
}

#[test]
fn any_cut_of_a_real_offer_is_taken_or_refused() {
    let sdp = CAPTURES[1].1;
    for cut in (0..sdp.len()).step_by(97) {
        let mut negotiator = negotiator();
        if negotiator.handle_offer(&sdp[..cut]).is_ok() {
            negotiator.create_answer().unwrap();
        }
    }
}
