//! The codecs it speaks, as its offers name them.

use anyhow::{Result, bail};
use rtc::peer_connection::configuration::media_engine::{
    MIME_TYPE_AV1, MIME_TYPE_H264, MIME_TYPE_OPUS, MIME_TYPE_RTX, MIME_TYPE_VP8, MIME_TYPE_VP9,
};
use rtc::rtp::codec::{av1::Av1Payloader, h264::H264Payloader, opus::OpusPayloader, vp8::Vp8Payloader};
use rtc::rtp::packetizer::Payloader;
use rtc::rtp_transceiver::rtp_sender::{RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters};

use crate::vp9::Vp9Payloader;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    Opus,
    Vp8,
    H264,
    Vp9,
    Av1,
}

impl Codec {
    pub const VIDEO: [Self; 4] = [Self::Vp8, Self::H264, Self::Vp9, Self::Av1];

    /// By the name that commands and LiveKit's messages use.
    pub fn named(name: &str) -> Result<Self> {
        let named = Self::VIDEO.into_iter().find(|codec| codec.name() == name);
        match named {
            Some(codec) => Ok(codec),
            None => bail!("no codec {name}"),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Opus => "opus",
            Self::Vp8 => "vp8",
            Self::H264 => "h264",
            Self::Vp9 => "vp9",
            Self::Av1 => "av1",
        }
    }

    pub fn by_payload_type(payload_type: u8) -> Option<Self> {
        [Self::Opus].into_iter().chain(Self::VIDEO).find(|codec| codec.payload_type() == payload_type)
    }

    /// Unlike Weir's own and unlike any browser's, so that nothing matches by accident.
    pub fn payload_type(self) -> u8 {
        match self {
            Self::Opus => 109,
            Self::Vp8 => 120,
            Self::H264 => 124,
            Self::Vp9 => 114,
            Self::Av1 => 99,
        }
    }

    pub fn is_video(self) -> bool {
        self != Self::Opus
    }

    pub fn clock_rate(self) -> u32 {
        if self.is_video() { 90_000 } else { 48_000 }
    }

    /// The codec, and for video its retransmissions.
    pub fn parameters(self) -> Vec<RTCRtpCodecParameters> {
        let payload_type = self.payload_type();
        let (mime_type, fmtp) = match self {
            Self::Opus => (MIME_TYPE_OPUS, "minptime=10;useinbandfec=1"),
            Self::Vp8 => (MIME_TYPE_VP8, ""),
            Self::H264 => {
                (MIME_TYPE_H264, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f")
            }
            Self::Vp9 => (MIME_TYPE_VP9, "profile-id=0"),
            Self::Av1 => (MIME_TYPE_AV1, "profile=0"),
        };
        let feedback: &[(&str, &str)] =
            if self.is_video() { &[("ccm", "fir"), ("nack", ""), ("nack", "pli")] } else { &[] };
        let codec = RTCRtpCodec {
            mime_type: mime_type.to_owned(),
            clock_rate: self.clock_rate(),
            channels: if self.is_video() { 0 } else { 2 },
            sdp_fmtp_line: fmtp.to_owned(),
            rtcp_feedback: feedback
                .iter()
                .map(|(typ, parameter)| RTCPFeedback {
                    typ: (*typ).to_owned(),
                    parameter: (*parameter).to_owned(),
                })
                .collect(),
        };
        let rtx = RTCRtpCodec {
            mime_type: MIME_TYPE_RTX.to_owned(),
            clock_rate: self.clock_rate(),
            channels: 0,
            sdp_fmtp_line: format!("apt={payload_type}"),
            rtcp_feedback: Vec::new(),
        };
        let mut all = vec![RTCRtpCodecParameters { rtp_codec: codec, payload_type }];
        if self.is_video() {
            all.push(RTCRtpCodecParameters { rtp_codec: rtx, payload_type: payload_type + 1 });
        }
        all
    }

    pub fn payloader(self) -> Box<dyn Payloader> {
        match self {
            Self::Opus => Box::new(OpusPayloader),
            // Its picture ids grow from 7 to 15 bits on the way, as RFC 7741 allows.
            Self::Vp8 => {
                let mut payloader = Vp8Payloader::default();
                payloader.enable_picture_id = true;
                Box::new(payloader)
            }
            Self::H264 => Box::new(H264Payloader::default()),
            Self::Vp9 => Box::new(Vp9Payloader::default()),
            Self::Av1 => Box::new(Av1Payloader::default()),
        }
    }
}
