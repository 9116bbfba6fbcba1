//! What forwarding reads from the clear part of a payload, whatever the codec.

use weir_units::media::Codec;

use crate::av1::AggregationHeader;
use crate::h264;
use crate::vp8::Vp8Descriptor;
use crate::vp9::Vp9Descriptor;

/// The descriptor whose numbers a forwarded packet may need rewritten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Descriptor {
    #[default]
    None,
    Vp8(Vp8Descriptor),
    Vp9(Vp9Descriptor),
}

/// What one packet's payload says of its frame and layers.
///
/// A malformed descriptor reads as one that says nothing. For AV1 the dependency descriptor extension says more:
/// [`crate::dependency_descriptor`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PayloadInfo {
    /// A receiver may begin with this packet. Audio never has key frames.
    pub key_frame_start: bool,
    /// The first packet of a frame (for VP9: of a spatial layer's frame), where the codec shows it.
    pub frame_start: Option<bool>,
    /// The last packet of a frame, where the payload rather than the marker shows it.
    pub frame_end: Option<bool>,
    pub temporal: Option<u8>,
    pub spatial: Option<u8>,
    /// A receiver of lower temporal layers may step up to this frame's layer here.
    pub is_switching_up_point: bool,
    pub descriptor: Descriptor,
}

impl PayloadInfo {
    /// `payload` is what [`crate::header::RtpHeader::payload_range`] gives: open, without padding.
    #[inline]
    pub fn read(codec: Codec, payload: &[u8]) -> Self {
        match codec {
            Codec::Opus | Codec::Red => Self::default(),
            Codec::Vp8 => Vp8Descriptor::parse(payload).map(Self::vp8).unwrap_or_default(),
            Codec::Vp9 => Vp9Descriptor::parse(payload).map(Self::vp9).unwrap_or_default(),
            Codec::H264 => Self { key_frame_start: h264::is_key_frame_start(payload), ..Self::default() },
            Codec::Av1 => AggregationHeader::parse(payload)
                .map(|header| Self { key_frame_start: header.is_key_frame_start(), ..Self::default() })
                .unwrap_or_default(),
        }
    }

    fn vp8(descriptor: Vp8Descriptor) -> Self {
        Self {
            key_frame_start: descriptor.is_key_frame,
            frame_start: Some(descriptor.starts_frame()),
            frame_end: None,
            temporal: descriptor.temporal,
            spatial: None,
            is_switching_up_point: descriptor.is_layer_sync || descriptor.is_key_frame,
            descriptor: Descriptor::Vp8(descriptor),
        }
    }

    fn vp9(descriptor: Vp9Descriptor) -> Self {
        Self {
            key_frame_start: descriptor.is_key_frame(),
            frame_start: Some(descriptor.starts_frame),
            frame_end: Some(descriptor.ends_frame),
            temporal: descriptor.layer.map(|layer| layer.temporal),
            spatial: descriptor.layer.map(|layer| layer.spatial),
            is_switching_up_point: descriptor.is_switching_up_point()
                || !descriptor.is_inter_picture_predicted,
            descriptor: Descriptor::Vp9(descriptor),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_codec_shows_its_key_frames() {
        for (codec, key, delta) in [
            (Codec::Vp8, &[0x10, 0x00][..], &[0x10, 0x01][..]),
            (Codec::Vp9, &[0b0000_1000, 0][..], &[0b0100_1000, 0][..]),
            (Codec::H264, &[0x65, 0][..], &[0x41, 0][..]),
            (Codec::Av1, &[0x18, 0][..], &[0x10, 0][..]),
        ] {
            assert!(PayloadInfo::read(codec, key).key_frame_start, "{codec:?}");
            assert!(!PayloadInfo::read(codec, delta).key_frame_start, "{codec:?}");
            assert!(!PayloadInfo::read(codec, &[]).key_frame_start, "{codec:?}");
        }
        assert_eq!(PayloadInfo::read(Codec::Opus, &[0x10, 0]), PayloadInfo::default());
    }

    #[test]
    fn layers_show_where_the_codec_has_them() {
        let vp8 = PayloadInfo::read(Codec::Vp8, &[0x90, 0x20, 0x60, 1]);
        assert_eq!((vp8.temporal, vp8.spatial, vp8.is_switching_up_point), (Some(1), None, true));
        let vp9 = PayloadInfo::read(Codec::Vp9, &[0b0111_1000, 0b0100_0100, 2, 1]);
        assert_eq!((vp9.temporal, vp9.spatial, vp9.is_switching_up_point), (Some(2), Some(2), false));
        assert_eq!((vp9.frame_start, vp9.frame_end), (Some(true), Some(false)));
    }

    proptest! {
        #[test]
        fn reading_is_total(payload in proptest::collection::vec(any::<u8>(), 0..60)) {
            for codec in [Codec::Opus, Codec::Red, Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1] {
                PayloadInfo::read(codec, &payload);
            }
        }
    }
}
