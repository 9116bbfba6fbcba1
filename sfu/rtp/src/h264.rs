//! Where an H.264 key frame starts ([RFC 6184 §5](https://www.rfc-editor.org/rfc/rfc6184#section-5)).
//!
//! Only NAL unit headers are read: they stay clear when frames are encrypted end to end.

use crate::bytes::u16_at;

const NAL_IDR: u8 = 5;
const NAL_SPS: u8 = 7;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// Whether a packet begins the decodable picture a receiver can start from: it carries a parameter set (SPS) or the
/// first part of an IDR slice, as a single unit, within a STAP-A, or as the first FU-A fragment.
///
/// An encoder sends the SPS before the IDR slice, in the same picture; both answer true.
#[inline]
pub fn is_key_frame_start(payload: &[u8]) -> bool {
    has_unit(payload, begins_key_frame)
}

/// Whether a packet carries a sequence parameter set, without which a key frame cannot be decoded.
#[inline]
pub fn carries_parameter_set(payload: &[u8]) -> bool {
    has_unit(payload, |nal_type| nal_type == NAL_SPS)
}

/// Whether a unit of a wanted type is in the packet, or begins there.
#[inline]
fn has_unit(payload: &[u8], is_wanted: impl Fn(u8) -> bool) -> bool {
    let Some(first) = payload.first() else { return false };
    match first & 0x1f {
        STAP_A => {
            let mut at = 1;
            while let (Some(len), Some(header)) = (u16_at(payload, at), payload.get(at + 2)) {
                if is_wanted(header & 0x1f) {
                    return true;
                }
                if len == 0 {
                    return false;
                }
                at += 2 + usize::from(len);
            }
            false
        }
        FU_A => payload.get(1).is_some_and(|fu| fu & 0x80 != 0 && is_wanted(fu & 0x1f)),
        single => is_wanted(single),
    }
}

fn begins_key_frame(nal_type: u8) -> bool {
    matches!(nal_type, NAL_IDR | NAL_SPS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sees_single_units() {
        assert!(is_key_frame_start(&[0x65, 1, 2]));
        assert!(is_key_frame_start(&[0x67, 1, 2]));
        assert!(!is_key_frame_start(&[0x41, 1, 2]));
        assert!(!is_key_frame_start(&[0x68, 1, 2]));
    }

    #[test]
    fn tells_parameter_sets_from_slices() {
        assert!(carries_parameter_set(&[0x67, 1, 2]));
        assert!(carries_parameter_set(&[0x78, 0, 2, 0x67, 1, 0, 2, 0x68, 1]));
        assert!(!carries_parameter_set(&[0x65, 1, 2]));
        assert!(!carries_parameter_set(&[0x7c, 0x85, 1]));
        assert!(!carries_parameter_set(&[]));
    }

    #[test]
    fn sees_parameter_sets_anywhere_in_an_aggregate() {
        assert!(is_key_frame_start(&[0x78, 0, 2, 0x67, 1, 0, 2, 0x68, 1]));
        assert!(is_key_frame_start(&[0x78, 0, 2, 0x09, 1, 0, 2, 0x65, 1]));
        assert!(!is_key_frame_start(&[0x78, 0, 2, 0x41, 1, 0, 2, 0x06, 1]));
        assert!(!is_key_frame_start(&[0x78, 0xff, 0xff, 0x41, 1]));
        assert!(!is_key_frame_start(&[0x78, 0, 0, 0x41, 1, 0x67]));
    }

    #[test]
    fn sees_only_the_first_fragment() {
        assert!(is_key_frame_start(&[0x7c, 0x85, 1]));
        assert!(!is_key_frame_start(&[0x7c, 0x05, 1]));
        assert!(!is_key_frame_start(&[0x7c, 0x45, 1]));
        assert!(!is_key_frame_start(&[0x7c, 0x81, 1]));
        assert!(!is_key_frame_start(&[0x7c]));
        assert!(!is_key_frame_start(&[]));
    }

    proptest! {
        #[test]
        fn looking_is_total(mut payload in proptest::collection::vec(any::<u8>(), 1..60)) {
            is_key_frame_start(&payload);
            payload[0] = 0x78;
            is_key_frame_start(&payload);
        }
    }
}
