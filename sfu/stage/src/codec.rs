//! The clear part of each codec's payload, as senders write it.

use weir_units::media::Codec;

use crate::body::Body;

/// What the descriptors need to know of a packet beyond its body.
#[derive(Clone, Copy, Debug)]
pub struct Numbers {
    pub picture: u16,
    pub tl0: u8,
    /// Counts all frames of the stream, for the dependency descriptor.
    pub frame: u16,
    /// Where the ids of the templates begin: elsewhere with each structure.
    pub first_template: u8,
    /// How many spatial layers the structure tells of, one or two.
    pub spatial_layers: u8,
    /// The frame is of a higher temporal layer and needs nothing but the base layer.
    pub is_layer_sync: bool,
}

/// Payload types a publisher sends with, and their retransmission payload types.
pub fn ingress_payload_type(codec: Codec) -> (u8, Option<u8>) {
    match codec {
        Codec::Opus => (111, None),
        Codec::Red => (63, None),
        Codec::Vp8 => (96, Some(97)),
        Codec::Vp9 => (98, Some(99)),
        Codec::H264 => (102, Some(103)),
        Codec::Av1 => (45, Some(46)),
    }
}

/// And those a subscriber takes: others, so that a packet passed on unchanged would be noticed.
pub fn egress_payload_type(codec: Codec) -> (u8, Option<u8>) {
    let (media, rtx) = ingress_payload_type(codec);
    match codec {
        Codec::Opus | Codec::Red => (media - 1, None),
        Codec::Av1 => (media - 10, rtx.map(|rtx| rtx - 10)), // 64 to 95 would look like RTCP
        _ => (media + 20, rtx.map(|rtx| rtx + 20)),
    }
}

/// The payload of a packet: descriptor, then body.
pub fn payload(codec: Codec, body: &Body, numbers: Numbers, len: usize) -> Vec<u8> {
    let (first, last) = (body.index == 0, body.index + 1 == body.count);
    let [high, low] = numbers.picture.to_be_bytes();
    let mut bytes = match codec {
        Codec::Opus => vec![],
        Codec::Red => vec![111],
        Codec::Vp8 => {
            let temporal = body.temporal << 6 | u8::from(numbers.is_layer_sync) << 5;
            let picture_start = if first { 0x10 } else { 0 };
            vec![0x80 | picture_start, 0xe0, 0x80 | high, low, numbers.tl0, temporal, u8::from(!body.is_key)]
        }
        Codec::Vp9 => {
            let is_predicted = body.needs.iter().flatten().any(|need| need.0 == body.frame.spatial);
            let is_layered = body.needs.iter().flatten().any(|need| need.0 != body.frame.spatial);
            let structure = body.is_key && first && body.frame.spatial == 0;
            let flags = 0xa0
                | u8::from(is_predicted) << 6
                | u8::from(first) << 3
                | u8::from(last) << 2
                | u8::from(structure) << 1;
            let up = u8::from(body.temporal < 2) << 4;
            let layer = body.temporal << 5 | up | body.frame.spatial << 1 | u8::from(is_layered);
            let mut bytes = vec![flags, 0x80 | high, low, layer, numbers.tl0];
            bytes.extend(structure.then_some(0x40));
            bytes
        }
        Codec::H264 => match (body.is_key, first) {
            (true, true) => vec![0x67, 0x42],                     // SPS
            (true, false) if body.index == 1 => vec![0x7c, 0x85], // the first fragment of an IDR slice
            (true, false) => vec![0x7c, 0x05],
            (false, _) => vec![0x41, 0x9a],
        },
        Codec::Av1 => vec![
            0x10 | u8::from(!first) << 7 | u8::from(body.is_key && first && body.frame.spatial == 0) << 3,
        ],
    };
    bytes.extend(body.write(len.saturating_sub(bytes.len())));
    bytes
}

/// Where the body starts in a payload.
pub fn body_of(codec: Codec, payload: &[u8]) -> Option<&[u8]> {
    let skip = match codec {
        Codec::Opus => 0,
        Codec::Red | Codec::Av1 => 1,
        Codec::Vp8 => 7,
        Codec::Vp9 => 5 + usize::from(payload.first()? & 0x02 != 0),
        Codec::H264 => 2,
    };
    payload.get(skip..)
}

/// Templates of a spatial layer: of key frames, and of the two temporal layers.
const TEMPLATES_PER_LAYER: u8 = 3;

/// The dependency descriptor of a packet of one or two spatial and two temporal layers.
pub fn dependency_descriptor(body: &Body, numbers: Numbers) -> Vec<u8> {
    let (first, last) = (body.index == 0, body.index + 1 == body.count);
    let of_layer = match (body.temporal, body.is_key) {
        (0, true) => 0,
        (0, false) => 1,
        _ => 2,
    };
    let template = (numbers.first_template + TEMPLATES_PER_LAYER * body.frame.spatial + of_layer) % 64;
    let [high, low] = numbers.frame.to_be_bytes();
    let mut bytes = vec![u8::from(first) << 7 | u8::from(last) << 6 | template, high, low];
    if body.is_key && first && body.frame.spatial == 0 {
        bytes.extend(structure(numbers));
    }
    bytes
}

/// Extended flags with a structure attached, then the structure: two decode targets for each spatial layer.
fn structure(numbers: Numbers) -> Vec<u8> {
    let layers = numbers.spatial_layers;
    let templates = usize::from(TEMPLATES_PER_LAYER * layers);
    let mut bits = Bits::default();
    bits.push(0b10000, 5); // a structure and nothing custom
    bits.push(numbers.first_template.into(), 6);
    bits.push(u32::from(2 * layers) - 1, 5);
    for step in [0, 1, 2, 0, 1].into_iter().take(templates - 1).chain([3]) {
        bits.push(step, 2);
    }
    let indications = [[2, 2, 2, 2], [2, 2, 2, 2], [0, 1, 0, 3], [0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 0, 1]];
    for of_targets in indications.iter().take(templates) {
        for indication in of_targets.iter().take(usize::from(2 * layers)) {
            bits.push(*indication, 2);
        }
    }
    // By frame numbers, of which each picture takes one a layer.
    let (far, near) = (u32::from(2 * layers), u32::from(layers));
    for diffs in [&[][..], &[far], &[near], &[1], &[far, 1], &[near, 1]].into_iter().take(templates) {
        for diff in diffs {
            bits.push(1, 1);
            bits.push(diff - 1, 4);
        }
        bits.push(0, 1);
    }
    bits.push(0, if layers == 1 { 1 } else { 2 }); // no chains: of three or five choices the first
    bits.push(0, 1); // no resolutions
    bits.bytes
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: usize,
}

impl Bits {
    fn push(&mut self, value: u32, count: u32) {
        for bit in (0..count).rev() {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let last = self.bytes.len() - 1;
            self.bytes[last] |= ((value >> bit & 1) as u8) << (7 - self.used % 8);
            self.used += 1;
        }
    }
}
