//! The VP9 payload descriptor ([RFC 9628 §4.2](https://www.rfc-editor.org/rfc/rfc9628#section-4.2)).

use crate::bytes::u16_at;
use crate::header::ByteRange;
use crate::vp8::PictureId;

/// Reference indices a packet may carry: RFC 9628 §4.2, P_DIFF.
pub const MAX_REFERENCES: usize = 3;

/// Spatial layers that three bits can count.
pub const MAX_SPATIAL_LAYERS: usize = 8;

/// Where in the layers a packet belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerIndices {
    /// TID.
    pub temporal: u8,
    /// U: frames of higher temporal layers after this one refer to nothing before it.
    pub is_switching_up_point: bool,
    /// SID.
    pub spatial: u8,
    /// D: depends on the lower spatial layer of the same picture.
    pub is_inter_layer_predicted: bool,
    /// Absent in flexible mode.
    pub tl0_picture_index: Option<u8>,
}

/// A descriptor as read.
///
/// ```text
/// |I|P|L|F|B|E|V|Z|            required
/// |M| PICTURE ID  | (+8 bits)  if I
/// | TID |U| SID |D|            if L
/// |   TL0PICIDX   |            if L and not F
/// | P_DIFF      |N| up to 3x   if P and F
/// | scalability structure      if V
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vp9Descriptor {
    pub picture_id: Option<PictureId>,
    /// P: the frame refers to earlier pictures.
    pub is_inter_picture_predicted: bool,
    pub layer: Option<LayerIndices>,
    /// F: references are given per frame rather than by the scalability structure.
    pub is_flexible: bool,
    /// B
    pub starts_frame: bool,
    /// E
    pub ends_frame: bool,
    /// Z: no higher spatial layer refers to this frame.
    pub is_not_reference_for_upper_spatial: bool,
    /// P_DIFFs, the first [`Self::reference_count`] of which are set.
    pub reference_diffs: [u8; MAX_REFERENCES],
    pub reference_count: u8,
    /// Where in the payload the scalability structure is: [`ScalabilityStructure::parse`].
    pub scalability: Option<ByteRange>,
    /// In bytes: where the VP9 payload begins.
    pub len: u16,
}

impl Vp9Descriptor {
    /// `None` when the descriptor runs past the payload or breaks its grammar.
    #[inline]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let first = *payload.first()?;
        let mut at = 1;
        let mut read = Self {
            picture_id: None,
            is_inter_picture_predicted: first & 0x40 != 0,
            layer: None,
            is_flexible: first & 0x10 != 0,
            starts_frame: first & 0x08 != 0,
            ends_frame: first & 0x04 != 0,
            is_not_reference_for_upper_spatial: first & 0x01 != 0,
            reference_diffs: [0; MAX_REFERENCES],
            reference_count: 0,
            scalability: None,
            len: 0,
        };
        if first & 0x80 != 0 {
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
        if first & 0x20 != 0 {
            let byte = *payload.get(at)?;
            at += 1;
            let mut tl0_picture_index = None;
            if !read.is_flexible {
                tl0_picture_index = Some(*payload.get(at)?);
                at += 1;
            }
            read.layer = Some(LayerIndices {
                temporal: byte >> 5,
                is_switching_up_point: byte & 0x10 != 0,
                spatial: byte >> 1 & 0x07,
                is_inter_layer_predicted: byte & 0x01 != 0,
                tl0_picture_index,
            });
        }
        if read.is_flexible && read.is_inter_picture_predicted {
            loop {
                let byte = *payload.get(at)?;
                at += 1;
                *read.reference_diffs.get_mut(usize::from(read.reference_count))? = byte >> 1;
                read.reference_count += 1;
                if byte & 0x01 == 0 {
                    break;
                }
            }
        }
        if first & 0x02 != 0 {
            let end = at + ScalabilityStructure::len(payload.get(at..)?)?;
            read.scalability = Some(ByteRange { start: at as u16, end: end as u16 });
            at = end;
        }
        if at > payload.len() {
            return None;
        }
        read.len = at as u16;
        Some(read)
    }

    /// The reference diffs that are set: picture ids are this far back.
    pub fn references(&self) -> &[u8] {
        self.reference_diffs.get(..usize::from(self.reference_count)).unwrap_or_default()
    }

    /// The first packet of a picture that refers to no earlier one, in its lowest spatial layer: where a receiver
    /// may begin.
    pub fn is_key_frame(&self) -> bool {
        self.starts_frame
            && !self.is_inter_picture_predicted
            && self.layer.is_none_or(|layer| layer.spatial == 0 && !layer.is_inter_layer_predicted)
    }

    /// Whether a receiver of lower temporal layers may begin with this one here.
    pub fn is_switching_up_point(&self) -> bool {
        self.layer.is_some_and(|layer| layer.is_switching_up_point)
    }

    /// Writes other numbers over those of the descriptor at the start of `payload`, each in the width it has; a
    /// number the descriptor does not have is left out. `payload` must be the one this was parsed from, or a copy.
    #[inline]
    pub fn rewrite(&self, payload: &mut [u8], picture_id: u16, tl0_picture_index: u8) {
        let mut at = 1;
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
        if self.layer.is_some_and(|layer| layer.tl0_picture_index.is_some())
            && let Some(byte) = payload.get_mut(at + 1)
        {
            *byte = tl0_picture_index;
        }
    }
}

/// What the layers look like, sent with key frames
/// ([RFC 9628 §4.2.1](https://www.rfc-editor.org/rfc/rfc9628#section-4.2.1)). The picture group is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScalabilityStructure {
    /// From 1 to 8.
    pub spatial_layers: u8,
    /// Width and height in pixels of each spatial layer, when given.
    pub sizes: Option<[(u16, u16); MAX_SPATIAL_LAYERS]>,
    /// Pictures in a group, when described.
    pub picture_group_len: Option<u8>,
}

impl ScalabilityStructure {
    /// From where [`Vp9Descriptor::scalability`] points.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let first = *bytes.first()?;
        let spatial_layers = (first >> 5) + 1;
        let mut at = 1;
        let mut sizes = None;
        if first & 0x10 != 0 {
            let mut read = [(0, 0); MAX_SPATIAL_LAYERS];
            for size in read.iter_mut().take(usize::from(spatial_layers)) {
                *size = (u16_at(bytes, at)?, u16_at(bytes, at + 2)?);
                at += 4;
            }
            sizes = Some(read);
        }
        let picture_group_len = if first & 0x08 != 0 { Some(*bytes.get(at)?) } else { None };
        Some(Self { spatial_layers, sizes, picture_group_len })
    }

    /// The structure's length in bytes.
    fn len(bytes: &[u8]) -> Option<usize> {
        let first = *bytes.first()?;
        let mut at = 1;
        if first & 0x10 != 0 {
            at += 4 * (usize::from(first >> 5) + 1);
        }
        if first & 0x08 != 0 {
            let pictures = *bytes.get(at)?;
            at += 1;
            for _ in 0..pictures {
                let references = *bytes.get(at)? >> 2 & 0x03;
                at += 1 + usize::from(references);
            }
        }
        (at <= bytes.len()).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_a_non_flexible_key_frame_with_its_structure() {
        // I, L, B, V; long picture id; TID 0, U, SID 0; TL0PICIDX; two layers with sizes; a group of one picture.
        let payload = [
            0b1010_1010,
            0x81,
            0x02,
            0b0001_0000,
            7,
            0b0011_1000,
            0x01,
            0x40,
            0x00,
            0xb4,
            0x02,
            0x80,
            0x01,
            0x68,
            1,
            0b0000_0100,
            1,
            0xff,
        ];
        let read = Vp9Descriptor::parse(&payload).unwrap();
        assert_eq!(read.picture_id, Some(PictureId { value: 0x102, is_long: true }));
        let layer = read.layer.unwrap();
        assert_eq!((layer.temporal, layer.spatial, layer.tl0_picture_index), (0, 0, Some(7)));
        assert!(read.is_switching_up_point() && read.is_key_frame());
        assert!(read.starts_frame && !read.ends_frame);
        assert_eq!(read.len, 17);
        let structure = ScalabilityStructure::parse(read.scalability.unwrap().of(&payload)).unwrap();
        assert_eq!(structure.spatial_layers, 2);
        assert_eq!(structure.sizes.unwrap()[..2], [(320, 180), (640, 360)]);
        assert_eq!(structure.picture_group_len, Some(1));
    }

    #[test]
    fn the_upper_layer_of_a_key_picture_is_no_place_to_begin() {
        let payload = [0b1010_1000, 5, 0b0000_0011, 7, 0xff];
        let read = Vp9Descriptor::parse(&payload).unwrap();
        let layer = read.layer.unwrap();
        assert_eq!(layer.spatial, 1);
        assert!(layer.is_inter_layer_predicted && !read.is_key_frame());
    }

    #[test]
    fn reads_flexible_references_and_refuses_a_fourth() {
        let payload = [0b1111_1100, 5, 0b0010_0000, 0x03, 0x05, 0x06, 0xff];
        let read = Vp9Descriptor::parse(&payload).unwrap();
        assert_eq!(read.references(), [1, 2, 3]);
        assert_eq!(read.layer.unwrap().tl0_picture_index, None);
        assert_eq!(read.layer.unwrap().temporal, 1);
        assert_eq!(read.len, 6);
        assert!(!read.is_key_frame());
        let four = [0b1111_1100, 5, 0b0010_0000, 0x03, 0x05, 0x07, 0x08, 0xff];
        assert_eq!(Vp9Descriptor::parse(&four), None);
    }

    #[test]
    fn a_structure_that_runs_past_the_payload_is_refused() {
        assert_eq!(Vp9Descriptor::parse(&[0b0000_1010, 0b0001_0000, 1, 0x40, 0]), None);
        assert_eq!(Vp9Descriptor::parse(&[0b0000_1010, 0b0000_1000, 255, 0]), None);
        assert_eq!(Vp9Descriptor::parse(&[0b0000_1010]), None);
    }

    #[test]
    fn rewrites_in_the_same_width() {
        let mut payload = [0b1010_1000, 0x81, 0x02, 0, 7, 0xff];
        Vp9Descriptor::parse(&payload).unwrap().rewrite(&mut payload, 0x7ffe, 9);
        assert_eq!(payload, [0b1010_1000, 0xff, 0xfe, 0, 9, 0xff]);
        let mut flexible = [0b1011_1000, 0x02, 0, 0xff];
        Vp9Descriptor::parse(&flexible).unwrap().rewrite(&mut flexible, 0x7ffe, 9);
        assert_eq!(flexible, [0b1011_1000, 0x7e, 0, 0xff]);
    }

    proptest! {
        #[test]
        fn parsing_is_total_and_rewriting_reads_back(
            mut payload in proptest::collection::vec(any::<u8>(), 0..80), picture_id: u16, index: u8,
        ) {
            if let Some(read) = Vp9Descriptor::parse(&payload) {
                prop_assert!(usize::from(read.len) <= payload.len());
                if let Some(range) = read.scalability {
                    prop_assert!(ScalabilityStructure::parse(range.of(&payload)).is_some());
                }
                read.rewrite(&mut payload, picture_id, index);
                let mut expected = read;
                expected.picture_id = read.picture_id.map(|old| PictureId {
                    value: picture_id & if old.is_long { 0x7fff } else { 0x7f },
                    ..old
                });
                if let Some(layer) = &mut expected.layer {
                    layer.tl0_picture_index = layer.tl0_picture_index.map(|_| index);
                }
                prop_assert_eq!(Vp9Descriptor::parse(&payload), Some(expected));
            }
            ScalabilityStructure::parse(&payload);
        }
    }
}
