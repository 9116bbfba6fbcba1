//! Payload types of an m-line, and which of them carry what we forward.

use weir_units::media::{Codec, MediaKind, PayloadFormat};

/// A payload type as one side described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CodecLine {
    pub payload_type: u8,
    /// `opus/48000/2`
    pub rtpmap: String,
    pub fmtp: Option<String>,
    pub feedback: Vec<String>,
}

impl CodecLine {
    fn name(&self) -> &str {
        self.rtpmap.split('/').next().unwrap_or_default()
    }

    pub fn codec(&self) -> Option<Codec> {
        Codec::by_name(self.name())
    }

    pub fn is_rtx(&self) -> bool {
        self.name().eq_ignore_ascii_case("rtx")
    }

    /// A parameter of the fmtp line.
    pub fn parameter(&self, key: &str) -> Option<&str> {
        self.fmtp.as_deref()?.split(';').find_map(|part| {
            let (name, value) = part.split_once('=')?;
            name.trim().eq_ignore_ascii_case(key).then_some(value.trim())
        })
    }

    pub fn has_feedback(&self, wanted: &str) -> bool {
        self.feedback.iter().any(|line| line == wanted)
    }

    /// How well it serves for the codec, the lower the better; `None` when it does not.
    fn rank(&self, codec: Codec) -> Option<u32> {
        if self.codec() != Some(codec) {
            return None;
        }
        match codec {
            // Packetization mode 1 is what encoders send; constrained baseline is what all decode.
            Codec::H264 => {
                let mode = u32::from(self.parameter("packetization-mode") != Some("1"));
                let profile = self.parameter("profile-level-id").unwrap_or("42001f").to_ascii_lowercase();
                let profile = match profile.get(..4) {
                    Some("42e0") => 0,
                    Some("4200" | "42c0") => 1,
                    _ => 2,
                };
                Some(mode * 4 + profile)
            }
            Codec::Vp9 => self.parameter("profile-id").is_none_or(|profile| profile == "0").then_some(0),
            Codec::Av1 => self.parameter("profile").is_none_or(|profile| profile == "0").then_some(0),
            Codec::Opus | Codec::Red | Codec::Vp8 => Some(0),
        }
    }
}

/// The payload type that serves best for the codec, with its retransmission payload type.
pub(crate) fn best(lines: &[CodecLine], codec: Codec) -> Option<PayloadFormat> {
    let ranked = lines.iter().filter_map(|line| Some((line.rank(codec)?, line)));
    // `min_by_key` takes the first of equals: the client's preference.
    let (_, line) = ranked.min_by_key(|(rank, _)| *rank)?;
    let apt = line.payload_type.to_string();
    let rtx = lines.iter().find(|line| line.is_rtx() && line.parameter("apt") == Some(&apt));
    Some(PayloadFormat {
        codec,
        payload_type: line.payload_type,
        rtx_payload_type: rtx.map(|line| line.payload_type),
    })
}

/// RED counts only if its blocks are the Opus chosen.
pub(crate) fn best_red(lines: &[CodecLine], opus: u8) -> Option<PayloadFormat> {
    let line = lines.iter().find(|line| {
        line.codec() == Some(Codec::Red)
            && line
                .fmtp
                .as_deref()
                .is_some_and(|fmtp| fmtp.split('/').all(|part| part.trim() == opus.to_string()))
    })?;
    Some(PayloadFormat { codec: Codec::Red, payload_type: line.payload_type, rtx_payload_type: None })
}

/// The m-line's codecs that we forward, in its own order, each once.
pub(crate) fn supported(lines: &[CodecLine], kind: MediaKind) -> Vec<Codec> {
    let mut codecs = Vec::new();
    for codec in lines.iter().filter_map(|line| line.codec().filter(|codec| line.rank(*codec).is_some())) {
        if codec.kind() == kind && !codecs.contains(&codec) {
            codecs.push(codec);
        }
    }
    codecs
}

/// The payload types of our own offers. They must not collide within a bundle.
pub(crate) fn ours(codec: Codec) -> Vec<CodecLine> {
    let line = |payload_type: u8, rtpmap: &str, fmtp: Option<&str>, feedback: &[&str]| CodecLine {
        payload_type,
        rtpmap: rtpmap.to_owned(),
        fmtp: fmtp.map(str::to_owned),
        feedback: feedback.iter().map(|line| (*line).to_owned()).collect(),
    };
    let video = |payload_type: u8, rtpmap: &str, fmtp: Option<&str>| {
        let apt = format!("apt={payload_type}");
        vec![
            line(payload_type, rtpmap, fmtp, &["ccm fir", "nack", "nack pli", "transport-cc", "goog-remb"]),
            line(payload_type + 1, "rtx/90000", Some(&apt), &[]),
        ]
    };
    match codec {
        Codec::Opus => {
            vec![line(111, "opus/48000/2", Some("minptime=10;useinbandfec=1"), &["nack", "transport-cc"])]
        }
        Codec::Red => vec![line(63, "red/48000/2", Some("111/111"), &[])],
        Codec::Vp8 => video(96, "VP8/90000", None),
        Codec::Vp9 => video(98, "VP9/90000", Some("profile-id=0")),
        Codec::H264 => video(
            108,
            "H264/90000",
            Some("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"),
        ),
        Codec::Av1 => video(35, "AV1/90000", None),
    }
}
