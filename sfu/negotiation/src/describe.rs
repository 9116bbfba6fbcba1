//! Writing our descriptions.

use rtc_sdp::description::common::{Address, Attribute, ConnectionInformation};
use rtc_sdp::description::media::{MediaDescription, MediaName, RangedPort};
use rtc_sdp::description::session::{Origin, SessionDescription, TimeDescription};
use weir_units::media::{Codec, DtlsRole, ExtensionIds, MediaKind, PayloadFormat};

use crate::codecs::{self, CodecLine};
use crate::negotiator::{LocalParameters, Section, Use};
use crate::section::{Direction, Kind, RemoteSection, extmaps};
use crate::transport::format_fingerprint;

/// The ids of header extensions in our own offers; clients echo them.
const OUR_TRANSPORT_CC_ID: u8 = 5;
const OUR_DEPENDENCY_DESCRIPTOR_ID: u8 = 8;

/// What all sections of a description share.
pub(crate) struct Session<'a> {
    pub local: &'a LocalParameters,
    pub session_id: u64,
    pub version: u64,
    pub role: Option<DtlsRole>,
}

/// Answers section by section, echoing the peer's payload types and extension ids.
pub(crate) fn answer(session: &Session<'_>, sections: &[Section]) -> String {
    let setup = match session.role {
        Some(DtlsRole::Client) => "active",
        _ => "passive",
    };
    describe(session, sections, setup, answer_section)
}

/// Offers with our own payload types where the peer has not spoken yet, and its own where it has.
pub(crate) fn offer(session: &Session<'_>, sections: &[Section]) -> String {
    // Re-offers name actpass again (RFC 8842 §5.2); the role stays by the DTLS association's existence.
    describe(session, sections, "actpass", offer_section)
}

fn describe(
    session: &Session<'_>,
    sections: &[Section],
    setup: &str,
    describe_section: fn(&mut Writer, &Section),
) -> String {
    let rejected = |section: &&Section| matches!(section.usage, Use::Rejected);
    let mids: Vec<&str> =
        sections.iter().filter(|section| !rejected(section)).map(|section| section.mid.as_str()).collect();
    let mut attributes = vec![value("group", &format!("BUNDLE {}", mids.join(" "))), flag("ice-lite")];
    attributes.push(flag("extmap-allow-mixed"));
    attributes.push(value("msid-semantic", " WMS *"));
    let carries_candidates = with_candidates(sections);
    let media = sections.iter().enumerate().map(|(at, section)| {
        let mut writer = Writer::new(section);
        if matches!(section.usage, Use::Rejected) {
            return writer.rejected(section);
        }
        writer.transport(session, setup, carries_candidates.contains(&Some(at)));
        describe_section(&mut writer, section);
        writer.media
    });
    SessionDescription {
        origin: Origin {
            username: "-".to_owned(),
            session_id: session.session_id,
            session_version: session.version,
            network_type: "IN".to_owned(),
            address_type: "IP4".to_owned(),
            unicast_address: "127.0.0.1".to_owned(),
        },
        session_name: "-".to_owned(),
        time_descriptions: vec![TimeDescription::default()],
        attributes,
        media_descriptions: media.collect(),
        ..SessionDescription::default()
    }
    .marshal()
}

/// The m-line that stands for the bundle (RFC 9143 §7.1.3, 9.2); where that one is inactive also the first that is not, because
/// pion and webrtc-rs pass over the candidates of inactive m-lines.
fn with_candidates(sections: &[Section]) -> [Option<usize>; 2] {
    let tagged = sections.iter().position(|section| !matches!(section.usage, Use::Rejected));
    let is_active = |section: &Section| match section.usage {
        Use::Rejected => false,
        Use::Data => true,
        _ => section.direction() != Direction::INACTIVE,
    };
    [tagged, sections.iter().position(is_active)]
}

fn answer_section(writer: &mut Writer, section: &Section) {
    let Some(remote) = &section.remote else { return };
    match (&section.usage, section.kind) {
        (Use::Ingress(preference), Kind::Media(kind)) if !section.formats().is_empty() => {
            let ids = remote.ingress_extensions(kind);
            for format in section.formats() {
                let mut lines = lines_of(&remote.codecs, &format);
                if format.codec == Codec::Opus {
                    let fmtp = lines[0].fmtp.get_or_insert_default();
                    for (wanted, parameter) in [
                        (preference.dtx, "usedtx=1"),
                        (preference.stereo, "stereo=1;maxaveragebitrate=510000"),
                    ] {
                        let name = parameter.split('=').next().unwrap_or_default();
                        if wanted && !fmtp.contains(&format!("{name}=")) {
                            *fmtp = [fmtp.as_str(), parameter].join(if fmtp.is_empty() { "" } else { ";" });
                        }
                    }
                }
                keep_feedback(&mut lines[0], kind, ids.transport_cc.is_some(), false);
                writer.codecs(&lines);
            }
            writer.extensions(&ids);
            if !remote.rids.is_empty() {
                for rid in &remote.rids {
                    writer.value("rid", &format!("{rid} recv"));
                }
                let rids: Vec<&str> = remote.rids.iter().map(|rid| rid.as_str()).collect();
                writer.value("simulcast", &format!("recv {}", rids.join(";")));
            }
        }
        (Use::Egress(egress), Kind::Media(kind)) => {
            let formats = section.formats();
            let ids = remote.egress_extensions(kind, &formats);
            for format in formats {
                let mut lines = lines_of(&remote.codecs, &format);
                keep_feedback(&mut lines[0], kind, ids.transport_cc.is_some(), true);
                writer.codecs(&lines);
            }
            writer.extensions(&remote.ingress_extensions(kind));
            writer.stream(egress, !egress_has_no_rtx(section));
        }
        (Use::Data, _) => {}
        (_, Kind::Media(kind)) => writer.idle(remote, kind),
        _ => {}
    }
}

fn offer_section(writer: &mut Writer, section: &Section) {
    let Kind::Media(kind) = section.kind else { return };
    if section.remote.is_some() && !section.formats().is_empty() {
        return answer_section(writer, section);
    }
    let wanted = match &section.usage {
        Use::Egress(egress) => egress.codecs.clone(),
        _ if kind == MediaKind::Audio => vec![Codec::Opus],
        _ => vec![Codec::Vp8],
    };
    for codec in &wanted {
        writer.codecs(&codecs::ours(*codec));
    }
    let scalable = wanted.iter().any(|codec| matches!(codec, Codec::Vp9 | Codec::Av1));
    writer.extensions(&ExtensionIds {
        dependency_descriptor: scalable.then_some(OUR_DEPENDENCY_DESCRIPTOR_ID),
        transport_cc: Some(OUR_TRANSPORT_CC_ID),
        ..ExtensionIds::default()
    });
    if let Use::Egress(egress) = &section.usage {
        writer.stream(egress, kind == MediaKind::Video);
    }
}

fn egress_has_no_rtx(section: &Section) -> bool {
    section.formats().iter().all(|format| format.rtx_payload_type.is_none())
}

/// The peer's own lines of a format: the codec's first, then its retransmission's.
fn lines_of(lines: &[CodecLine], format: &PayloadFormat) -> Vec<CodecLine> {
    let find = |payload_type| lines.iter().find(|line| line.payload_type == payload_type).cloned();
    let codec = find(format.payload_type).expect("a format is chosen from these lines");
    [Some(codec), format.rtx_payload_type.and_then(find)].into_iter().flatten().collect()
}

/// Of the feedback offered, what we act on, or give. Estimates (REMB) are for those who send to others: we give none.
fn keep_feedback(line: &mut CodecLine, kind: MediaKind, transport_cc: bool, estimates: bool) {
    line.feedback.retain(|feedback| match feedback.as_str() {
        "nack" => true,
        "ccm fir" | "nack pli" => kind == MediaKind::Video,
        "transport-cc" => transport_cc,
        "goog-remb" => estimates && kind == MediaKind::Video,
        _ => false,
    });
    line.feedback.dedup();
}

struct Writer {
    media: MediaDescription,
}

impl Writer {
    fn new(section: &Section) -> Self {
        let (media, protos): (&str, &[&str]) = match section.kind {
            Kind::Media(MediaKind::Audio) => ("audio", &["UDP", "TLS", "RTP", "SAVPF"]),
            Kind::Media(MediaKind::Video) => ("video", &["UDP", "TLS", "RTP", "SAVPF"]),
            Kind::Data => ("application", &["UDP", "DTLS", "SCTP"]),
            Kind::Other => ("text", &["UDP", "TLS", "RTP", "SAVPF"]),
        };
        let formats =
            if section.kind == Kind::Data { vec!["webrtc-datachannel".to_owned()] } else { Vec::new() };
        let mut writer = Self {
            media: MediaDescription {
                media_name: MediaName {
                    media: media.to_owned(),
                    port: RangedPort { value: 9, range: None },
                    protos: protos.iter().map(|proto| (*proto).to_owned()).collect(),
                    formats,
                },
                connection_information: Some(ConnectionInformation {
                    network_type: "IN".to_owned(),
                    address_type: "IP4".to_owned(),
                    address: Some(Address { address: "0.0.0.0".to_owned(), ttl: None, range: None }),
                }),
                ..MediaDescription::default()
            },
        };
        writer.value("mid", section.mid.as_str());
        match section.kind {
            Kind::Media(_) => writer.flag(section.direction().attribute()),
            _ => writer.value("sctp-port", "5000"),
        }
        writer
    }

    /// Port zero, one format for the grammar's sake.
    fn rejected(mut self, section: &Section) -> MediaDescription {
        self.media.media_name.port.value = 0;
        if section.kind != Kind::Data {
            self.media.media_name.formats = vec!["0".to_owned()];
        }
        self.media.attributes.truncate(1);
        if matches!(section.kind, Kind::Media(_)) {
            self.flag("inactive");
        }
        self.media
    }

    fn transport(&mut self, session: &Session<'_>, setup: &str, with_candidates: bool) {
        let local = session.local;
        self.value("ice-ufrag", &local.ice.ufrag);
        self.value("ice-pwd", &local.ice.password);
        self.value("fingerprint", &format!("sha-256 {}", format_fingerprint(&local.fingerprint)));
        self.value("setup", setup);
        if self.media.media_name.media == "application" {
            self.value("max-message-size", &local.max_message_size.to_string());
        } else {
            self.flag("rtcp-mux");
            self.flag("rtcp-rsize");
        }
        if with_candidates {
            for (preference, candidate) in local.candidates.iter().enumerate() {
                let attribute = candidate.to_attribute(preference);
                self.value("candidate", attribute.trim_start_matches("candidate:"));
            }
            self.flag("end-of-candidates");
        }
    }

    fn codecs(&mut self, lines: &[CodecLine]) {
        for line in lines {
            let payload_type = line.payload_type;
            self.media.media_name.formats.push(payload_type.to_string());
            self.value("rtpmap", &format!("{payload_type} {}", line.rtpmap));
            for feedback in &line.feedback {
                self.value("rtcp-fb", &format!("{payload_type} {feedback}"));
            }
            if let Some(fmtp) = &line.fmtp {
                self.value("fmtp", &format!("{payload_type} {fmtp}"));
            }
        }
    }

    fn extensions(&mut self, ids: &ExtensionIds) {
        for (id, uri) in extmaps(ids) {
            self.value("extmap", &format!("{id} {uri}"));
        }
    }

    /// What is sent, by name and by SSRC; the CNAME ties streams of one participant together for lip sync.
    fn stream(&mut self, egress: &crate::Egress, with_rtx: bool) {
        let msid = format!("{} {}", egress.stream_id, egress.track_id);
        self.value("msid", &msid);
        let mut ssrcs = vec![egress.ssrc];
        if with_rtx {
            self.value("ssrc-group", &format!("FID {} {}", egress.ssrc, egress.rtx_ssrc));
            ssrcs.push(egress.rtx_ssrc);
        }
        for ssrc in ssrcs {
            self.value("ssrc", &format!("{ssrc} cname:{}", egress.stream_id));
            self.value("ssrc", &format!("{ssrc} msid:{msid}"));
        }
    }

    /// An m-line that carries nothing: the formats that it might later carry.
    fn idle(&mut self, remote: &RemoteSection, kind: MediaKind) {
        let ids = remote.ingress_extensions(kind);
        for codec in codecs::supported(&remote.codecs, kind).into_iter().filter(|codec| *codec != Codec::Red)
        {
            if let Some(format) = codecs::best(&remote.codecs, codec) {
                let mut lines = lines_of(&remote.codecs, &format);
                keep_feedback(&mut lines[0], kind, ids.transport_cc.is_some(), false);
                self.codecs(&lines);
            }
        }
        if self.media.media_name.formats.is_empty() {
            // Nothing in common: the first offered, for the grammar's sake. The m-line stays inactive.
            let first = remote.codecs.first().map_or(0, |line| line.payload_type);
            self.media.media_name.formats.push(first.to_string());
        }
        self.extensions(&ids);
    }

    fn value(&mut self, key: &str, text: &str) {
        self.media.attributes.push(value(key, text));
    }

    fn flag(&mut self, key: &str) {
        self.media.attributes.push(flag(key));
    }
}

fn value(key: &str, value: &str) -> Attribute {
    Attribute { key: key.to_owned(), value: Some(value.to_owned()) }
}

fn flag(key: &str) -> Attribute {
    Attribute { key: key.to_owned(), value: None }
}
