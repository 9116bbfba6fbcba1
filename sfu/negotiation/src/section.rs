//! One m-line of a remote description, as values.

use rtc_sdp::description::media::MediaDescription;
use rtc_sdp::description::session::SessionDescription;
use weir_units::media::{Encoding, ExtensionIds, MAX_ENCODINGS, MediaKind, Mid, PayloadFormat, Rid};

use crate::SdpError;
use crate::codecs::CodecLine;

/// SSRCs announced on one m-line: simulcast without RIDs has three, each with retransmission.
const MAX_SSRCS: usize = 16;
/// Payload types of one m-line; there are 128.
const MAX_CODECS: usize = 128;
/// Header extensions of one m-line; there are 14 short ids, and 255 long ones nobody uses up.
const MAX_EXTENSIONS: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Media(MediaKind),
    Data,
    /// A kind of media we know nothing of: always rejected.
    Other,
}

/// What a side says it does on an m-line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Direction {
    pub sends: bool,
    pub receives: bool,
}

impl Direction {
    pub const INACTIVE: Self = Self { sends: false, receives: false };

    pub fn attribute(self) -> &'static str {
        match (self.sends, self.receives) {
            (true, true) => "sendrecv",
            (true, false) => "sendonly",
            (false, true) => "recvonly",
            (false, false) => "inactive",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct RemoteSection {
    pub mid: Mid,
    pub kind: Kind,
    pub rejected: bool,
    pub direction: Direction,
    pub codecs: Vec<CodecLine>,
    pub extensions: Vec<(u8, String)>,
    pub stream_id: Option<String>,
    pub track_id: Option<String>,
    /// In ascending quality.
    pub rids: Vec<Rid>,
    /// Without RIDs: each with its retransmission SSRC, in ascending quality.
    pub ssrcs: Vec<(u32, Option<u32>)>,
    pub max_message_size: Option<u32>,
}

impl RemoteSection {
    /// `known` is the m-line's mid so far. A rejected one may be without: pion and webrtc-rs answer it with no
    /// attribute at all.
    pub fn read(
        session: &SessionDescription,
        media: &MediaDescription,
        index: usize,
        known: Option<Mid>,
    ) -> Result<Self, SdpError> {
        let missing = |what| SdpError::Attribute { index, what };
        let values = |key: &'static str| {
            media
                .attributes
                .iter()
                .filter(move |attribute| attribute.key == key)
                .map(|attribute| attribute.value.as_deref().unwrap_or_default())
        };
        let has = |key: &str| media.attributes.iter().any(|attribute| attribute.key == key);
        let kind = match media.media_name.media.as_str() {
            "audio" => Kind::Media(MediaKind::Audio),
            "video" => Kind::Media(MediaKind::Video),
            "application" => Kind::Data,
            _ => Kind::Other,
        };
        let rejected = media.media_name.port.value == 0 && !has("bundle-only");
        let named = values("mid").next().and_then(|mid| Mid::new(mid.trim()));
        let mid = named.or(known.filter(|_| rejected)).ok_or(missing("a=mid"))?;
        let session_has = |key: &str| session.attributes.iter().any(|attribute| attribute.key == key);
        let direction = ["sendrecv", "sendonly", "recvonly", "inactive"]
            .into_iter()
            .find(|name| has(name))
            .or_else(|| ["sendonly", "recvonly", "inactive"].into_iter().find(|name| session_has(name)));
        let direction = match direction {
            Some("sendonly") => Direction { sends: true, receives: false },
            Some("recvonly") => Direction { sends: false, receives: true },
            Some("inactive") => Direction::INACTIVE,
            _ => Direction { sends: true, receives: true },
        };
        let mut section = Self {
            mid,
            kind,
            rejected,
            direction,
            codecs: codecs(media, &values("rtpmap").collect::<Vec<_>>()),
            extensions: Vec::new(),
            stream_id: None,
            track_id: None,
            rids: Vec::new(),
            ssrcs: Vec::new(),
            max_message_size: None,
        };
        for line in values("fmtp") {
            if let Some((codec, rest)) = section.codec_of(line) {
                codec.fmtp = Some(rest.to_owned());
            }
        }
        for line in values("rtcp-fb") {
            match line.split_once(' ') {
                Some(("*", rest)) => {
                    section.codecs.iter_mut().for_each(|codec| codec.feedback.push(rest.trim().to_owned()));
                }
                _ => {
                    if let Some((codec, rest)) = section.codec_of(line) {
                        codec.feedback.push(rest.to_owned());
                    }
                }
            }
        }
        for line in values("extmap").take(MAX_EXTENSIONS) {
            if let Some((id, uri)) = line.split_once(' ')
                && let Ok(id) = id.split('/').next().unwrap_or_default().parse()
                && id != 0
            {
                section.extensions.push((id, uri.split(' ').next().unwrap_or_default().to_owned()));
            }
        }
        section.read_streams(&values("msid").collect::<Vec<_>>(), &values("ssrc").collect::<Vec<_>>());
        section.read_ssrcs(&values("ssrc").collect::<Vec<_>>(), &values("ssrc-group").collect::<Vec<_>>());
        section.read_rids(values("simulcast").next(), &values("rid").collect::<Vec<_>>());
        section.max_message_size = match kind {
            // RFC 8841 §6: absent means 64 KiB.
            Kind::Data => Some(
                values("max-message-size")
                    .next()
                    .map_or(65_536, |size| size.trim().parse().unwrap_or(65_536)),
            ),
            _ => None,
        };
        Ok(section)
    }

    fn codec_of<'a>(&mut self, line: &'a str) -> Option<(&mut CodecLine, &'a str)> {
        let (payload_type, rest) = line.split_once(' ')?;
        let payload_type: u8 = payload_type.parse().ok()?;
        let codec = self.codecs.iter_mut().find(|codec| codec.payload_type == payload_type)?;
        Some((codec, rest.trim()))
    }

    /// `a=msid:<stream> <track>`, or the same on `a=ssrc`.
    fn read_streams(&mut self, msids: &[&str], ssrcs: &[&str]) {
        let on_ssrc = ssrcs.iter().find_map(|line| line.split_once(" msid:").map(|(_, msid)| msid));
        let Some(msid) = msids.first().copied().or(on_ssrc) else { return };
        let mut parts = msid.split_whitespace();
        self.stream_id = parts.next().map(str::to_owned);
        self.track_id = parts.next().map(str::to_owned);
    }

    fn read_ssrcs(&mut self, ssrcs: &[&str], groups: &[&str]) {
        let mut announced = Vec::new();
        for line in ssrcs {
            if let Some(Ok(ssrc)) = line.split_whitespace().next().map(str::parse::<u32>)
                && !announced.contains(&ssrc)
                && announced.len() < MAX_SSRCS
            {
                announced.push(ssrc);
            }
        }
        let group = |semantics: &str| -> Vec<Vec<u32>> {
            let members = |line: &&str| {
                let mut parts = line.split_whitespace();
                (parts.next() == Some(semantics))
                    .then(|| parts.filter_map(|part| part.parse().ok()).collect())
            };
            groups.iter().filter_map(members).take(MAX_SSRCS).collect()
        };
        let pairs = group("FID");
        let rtx_of =
            |ssrc: u32| pairs.iter().find(|pair| pair.first() == Some(&ssrc)).and_then(|pair| pair.get(1));
        let is_rtx = |ssrc: u32| pairs.iter().any(|pair| pair.get(1) == Some(&ssrc));
        let simulcast = group("SIM").into_iter().next();
        let media =
            simulcast.unwrap_or_else(|| announced.into_iter().filter(|ssrc| !is_rtx(*ssrc)).collect());
        self.ssrcs =
            media.into_iter().take(MAX_ENCODINGS).map(|ssrc| (ssrc, rtx_of(ssrc).copied())).collect();
    }

    /// `a=simulcast:send q;h;f`, where `~` means paused and a comma separates alternatives.
    fn read_rids(&mut self, simulcast: Option<&str>, rids: &[&str]) {
        let mut parts = simulcast.unwrap_or_default().split_whitespace();
        let list = parts.by_ref().skip_while(|part| *part != "send").nth(1);
        let declared = |rid: &Rid| {
            rids.iter().any(|line| {
                let mut parts = line.split_whitespace();
                parts.next() == Some(rid.as_str()) && parts.next() == Some("send")
            })
        };
        for alternative in list.unwrap_or_default().split(';') {
            let first = alternative.split(',').next().unwrap_or_default().trim_start_matches('~');
            if let Some(rid) = Rid::new(first).filter(declared)
                && self.rids.len() < MAX_ENCODINGS
                && !self.rids.contains(&rid)
            {
                self.rids.push(rid);
            }
        }
        sort_by_quality(&mut self.rids);
    }

    /// The encodings as announced; one without a name when nothing was.
    pub fn encodings(&self) -> Vec<Encoding> {
        if !self.rids.is_empty() {
            return self.rids.iter().map(|rid| Encoding { rid: Some(*rid), ..Encoding::default() }).collect();
        }
        if self.ssrcs.is_empty() {
            return vec![Encoding::default()];
        }
        self.ssrcs
            .iter()
            .map(|(ssrc, rtx_ssrc)| Encoding { rid: None, ssrc: Some(*ssrc), rtx_ssrc: *rtx_ssrc })
            .collect()
    }

    pub fn extension(&self, uri: &str) -> Option<u8> {
        self.extensions.iter().find(|(_, known)| known == uri).map(|(id, _)| *id)
    }
}

/// Clients name encodings `q`, `h`, `f` or `2`, `1`, `0` in ascending quality; other names are in the order given.
fn sort_by_quality(rids: &mut [Rid]) {
    let rank = |rid: &Rid| ["q2", "h1", "f0"].iter().position(|names| names.contains(rid.as_str()));
    if rids.iter().all(|rid| rank(rid).is_some()) {
        rids.sort_by_key(rank);
    }
}

fn codecs(media: &MediaDescription, rtpmaps: &[&str]) -> Vec<CodecLine> {
    let listed = media.media_name.formats.iter().filter_map(|format| format.parse::<u8>().ok());
    listed
        .take(MAX_CODECS)
        .filter_map(|payload_type| {
            let rtpmap = rtpmaps.iter().find_map(|line| {
                let (number, rest) = line.split_once(' ')?;
                (number.parse() == Ok(payload_type)).then(|| rest.trim().to_owned())
            })?;
            Some(CodecLine { payload_type, rtpmap, fmtp: None, feedback: Vec::new() })
        })
        .collect()
}

/// The header extensions that are understood, by what they are for.
pub(crate) mod uri {
    pub const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
    pub const RID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
    pub const REPAIRED_RID: &str = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id";
    pub const TRANSPORT_CC: &str =
        "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
    pub const AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
    pub const DEPENDENCY_DESCRIPTOR: &str =
        "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";
}

impl RemoteSection {
    /// What we take from packets on an m-line that the client sends on. Our answer lists them on every m-line, whoever
    /// sends there: a client offers on a new m-line only the extensions that its first ones agreed on.
    pub fn ingress_extensions(&self, kind: MediaKind) -> ExtensionIds {
        let video = |uri| self.extension(uri).filter(|_| kind == MediaKind::Video);
        ExtensionIds {
            mid: self.extension(uri::MID),
            rid: video(uri::RID),
            repaired_rid: video(uri::REPAIRED_RID),
            transport_cc: self.extension(uri::TRANSPORT_CC),
            abs_send_time: None,
            audio_level: self.extension(uri::AUDIO_LEVEL).filter(|_| kind == MediaKind::Audio),
            dependency_descriptor: video(uri::DEPENDENCY_DESCRIPTOR),
        }
    }

    /// What we put into packets on an m-line that we send on.
    pub fn egress_extensions(&self, kind: MediaKind, formats: &[PayloadFormat]) -> ExtensionIds {
        let answers = |format: &PayloadFormat| {
            let mut lines = self.codecs.iter().filter(|line| line.payload_type == format.payload_type);
            lines.any(|line| line.has_feedback("transport-cc"))
        };
        ExtensionIds {
            dependency_descriptor: self
                .extension(uri::DEPENDENCY_DESCRIPTOR)
                .filter(|_| kind == MediaKind::Video),
            // Numbers that nobody reports on tell nothing.
            transport_cc: self.extension(uri::TRANSPORT_CC).filter(|_| formats.iter().any(answers)),
            ..ExtensionIds::default()
        }
    }
}

/// The `a=extmap` lines of the ids that are used.
pub(crate) fn extmaps(ids: &ExtensionIds) -> Vec<(u8, &'static str)> {
    [
        (ids.mid, uri::MID),
        (ids.rid, uri::RID),
        (ids.repaired_rid, uri::REPAIRED_RID),
        (ids.transport_cc, uri::TRANSPORT_CC),
        (ids.audio_level, uri::AUDIO_LEVEL),
        (ids.dependency_descriptor, uri::DEPENDENCY_DESCRIPTOR),
    ]
    .into_iter()
    .filter_map(|(id, uri)| Some((id?, uri)))
    .collect()
}
