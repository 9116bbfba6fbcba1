//! The VP8 payload descriptor ([RFC 7741 §4.2](https://www.rfc-editor.org/rfc/rfc7741#section-4.2)).
//!
//! Clients that encrypt frames end to end leave the descriptor clear, and the first bytes of the VP8 payload header
//! too (ten of a key frame, three of an interframe), so key frames show.

/// Where a picture id was written, and how wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureId {
    pub value: u16,
    /// 15 bits rather than 7.
    pub is_long: bool,
}

/// A descriptor as read.
///
/// ```text
/// |X|R|N|S|R| PID |            required
/// |I|L|T|K| RSV   |            if X
/// |M| PictureID   | (+8 bits)  if I
/// |   TL0PICIDX   |            if L
/// |TID|Y| KEYIDX  |            if T or K
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vp8Descriptor {
    /// N: no other frame refers to this one.
    pub is_non_reference: bool,
    /// S: the first packet of the partition.
    pub starts_partition: bool,
    pub partition: u8,
    pub picture_id: Option<PictureId>,
    pub tl0_picture_index: Option<u8>,
    pub temporal: Option<u8>,
    /// Y: refers only to the base temporal layer, so a receiver may step up here.
    pub is_layer_sync: bool,
    pub key_index: Option<u8>,
    /// In bytes: where the VP8 payload begins.
    pub len: u8,
    /// The first byte of the VP8 payload header says key frame; known only at the start of a frame.
    pub is_key_frame: bool,
}

impl Vp8Descriptor {
    /// `None` when the descriptor runs past the payload or nothing follows it.
    #[inline]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let first = *payload.first()?;
        let mut read = Self {
            is_non_reference: first & 0x20 != 0,
            starts_partition: first & 0x10 != 0,
            partition: first & 0x07,
            picture_id: None,
            tl0_picture_index: None,
            temporal: None,
            is_layer_sync: false,
            key_index: None,
            len: 1,
            is_key_frame: false,
        };
        let mut at = 1;
        if first & 0x80 != 0 {
            let present = *payload.get(at)?;
            at += 1;
            if present & 0x80 != 0 {
                let byte = *payload.get(at)?;
                at += 1;
                let is_long = byte & 0x80 != 0;
                let mut value = u16::from(byte & 0x7f);
                if is_long {
                    value = value << 8 | u16::from(*payload.get(at)?);
                    at += 1;
                }
                read.picture_id = Some(PictureId { value, is_long });
            }
            if present & 0x40 != 0 {
                read.tl0_picture_index = Some(*payload.get(at)?);
                at += 1;
            }
            if present & 0x30 != 0 {
                let byte = *payload.get(at)?;
                at += 1;
                if present & 0x20 != 0 {
                    read.temporal = Some(byte >> 6);
                    read.is_layer_sync = byte & 0x20 != 0;
                }
                if present & 0x10 != 0 {
                    read.key_index = Some(byte & 0x1f);
                }
            }
        }
        read.len = at as u8;
        let payload_header = *payload.get(at)?;
        // The P bit of the payload header is clear in a key frame: RFC 7741 §4.3.
        read.is_key_frame = read.starts_frame() && payload_header & 0x01 == 0;
        Some(read)
    }

    /// The first packet of a frame.
    pub fn starts_frame(&self) -> bool {
        self.starts_partition && self.partition == 0
    }

    /// Width and height in pixels of the key frame that starts here, without the upscaling hints, when the start
    /// code shows that these bytes are clear ([RFC 6386 §9.1](https://www.rfc-editor.org/rfc/rfc6386#section-9.1)).
    pub fn key_frame_size(&self, payload: &[u8]) -> Option<(u16, u16)> {
        if !self.is_key_frame {
            return None;
        }
        match *payload.get(usize::from(self.len)..)? {
            [_, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1, ..] => {
                Some((u16::from_le_bytes([w0, w1]) & 0x3fff, u16::from_le_bytes([h0, h1]) & 0x3fff))
            }
            _ => None,
        }
    }

    /// Writes other numbers over those of the descriptor at the start of `payload`, each in the width it has (a
    /// picture id is cut to 7 or 15 bits); a number the descriptor does not have is left out. `payload` must be the
    /// one this was parsed from, or a copy.
    #[inline]
    pub fn rewrite(&self, payload: &mut [u8], picture_id: u16, tl0_picture_index: u8) {
        let mut at = 2;
        match self.picture_id {
            Some(PictureId { is_long: true, .. }) => {
                if let Some(bytes) = payload.get_mut(at..at + 2) {
                    bytes.copy_from_slice(&(0x8000 | picture_id).to_be_bytes());
                }
                at += 2;
            }
            Some(PictureId { is_long: false, .. }) => {
                if let Some(byte) = payload.get_mut(at) {
                    *byte = picture_id as u8 & 0x7f;
                }
                at += 1;
            }
            None => {}
        }
        if self.tl0_picture_index.is_some()
            && let Some(byte) = payload.get_mut(at)
        {
            *byte = tl0_picture_index;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As libwebrtc sends: long picture id, TL0PICIDX, TID and KEYIDX, a key frame of 640x360.
    const KEY_FRAME: [u8; 16] =
        [0x90, 0xf0, 0x92, 0x34, 0x56, 0x21, 0x10, 0x20, 0x30, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01];

    #[test]
    fn reads_all_fields_of_a_key_frame() {
        let read = Vp8Descriptor::parse(&KEY_FRAME).unwrap();
        assert_eq!(read.picture_id, Some(PictureId { value: 0x1234, is_long: true }));
        assert_eq!(read.tl0_picture_index, Some(0x56));
        assert_eq!(read.temporal, Some(0));
        assert!(read.is_layer_sync);
        assert_eq!(read.key_index, Some(1));
        assert_eq!(read.len, 6);
        assert!(read.starts_frame() && read.is_key_frame && !read.is_non_reference);
        assert_eq!(read.key_frame_size(&KEY_FRAME), Some((640, 360)));
    }

    #[test]
    fn sees_an_interframe_and_a_later_packet() {
        let mut inter = KEY_FRAME;
        inter[6] |= 1;
        let read = Vp8Descriptor::parse(&inter).unwrap();
        assert!(read.starts_frame() && !read.is_key_frame);
        assert_eq!(read.key_frame_size(&inter), None);
        let mut later = KEY_FRAME;
        later[0] = 0x80;
        assert!(!Vp8Descriptor::parse(&later).unwrap().is_key_frame);
        let mut second_partition = KEY_FRAME;
        second_partition[0] = 0x91;
        assert!(!Vp8Descriptor::parse(&second_partition).unwrap().is_key_frame);
    }

    #[test]
    fn reads_a_descriptor_without_extensions() {
        let read = Vp8Descriptor::parse(&[0x10, 0x00]).unwrap();
        assert_eq!((read.len, read.picture_id, read.temporal, read.is_key_frame), (1, None, None, true));
    }

    #[test]
    fn hides_the_size_of_an_encrypted_key_frame() {
        let mut encrypted = KEY_FRAME;
        encrypted[9] = 0;
        assert_eq!(Vp8Descriptor::parse(&encrypted).unwrap().key_frame_size(&encrypted), None);
    }

    #[test]
    fn refuses_what_is_cut() {
        for len in 0..=6 {
            assert_eq!(Vp8Descriptor::parse(&KEY_FRAME[..len]), None, "{len} bytes");
        }
    }

    #[test]
    fn rewrites_in_the_same_width() {
        let mut long = KEY_FRAME;
        let read = Vp8Descriptor::parse(&long).unwrap();
        read.rewrite(&mut long, 0x7fff, 9);
        assert_eq!(long[..6], [0x90, 0xf0, 0xff, 0xff, 9, 0x21]);
        assert_eq!(long[6..], KEY_FRAME[6..]);
        let mut short = [0x90, 0xc0, 0x12, 0x34, 0x10];
        Vp8Descriptor::parse(&short).unwrap().rewrite(&mut short, 0x1ff, 9);
        assert_eq!(short, [0x90, 0xc0, 0x7f, 9, 0x10]);
        let mut index_alone = [0x90, 0x40, 0x34, 0x10];
        Vp8Descriptor::parse(&index_alone).unwrap().rewrite(&mut index_alone, 5, 6);
        assert_eq!(index_alone, [0x90, 0x40, 6, 0x10]);
    }

    proptest! {
        #[test]
        fn parsing_is_total_and_rewriting_reads_back(
            mut payload in proptest::collection::vec(any::<u8>(), 0..24), picture_id: u16, index: u8,
        ) {
            if let Some(read) = Vp8Descriptor::parse(&payload) {
                prop_assert!(usize::from(read.len) < payload.len());
                read.key_frame_size(&payload);
                read.rewrite(&mut payload, picture_id, index);
                let mut expected = read;
                expected.picture_id = read.picture_id.map(|old| PictureId {
                    value: picture_id & if old.is_long { 0x7fff } else { 0x7f },
                    ..old
                });
                expected.tl0_picture_index = read.tl0_picture_index.map(|_| index);
                prop_assert_eq!(Vp8Descriptor::parse(&payload), Some(expected));
            }
        }
    }
}
