//! The first byte names the codec, the next three are other numbers to write, the rest is an opened payload.

use weir_core::rewrite::vp8::Vp8Numbers;
use weir_rtp::payload::{Descriptor, PayloadInfo};
use weir_rtp::vp8::{PictureId, Vp8Descriptor};
use weir_rtp::vp9::{ScalabilityStructure, Vp9Descriptor};
use weir_rtp::{red, rtx};
use weir_units::media::{Codec, MediaKind};

use crate::Input;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let codec = input.choose(&[Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1, Codec::Red, Codec::Opus]);
    let (picture_id, tl0) = (input.u16(), input.u8());
    let payload = input.rest();
    let info = PayloadInfo::read(codec, payload);
    assert!(!info.key_frame_start || codec.kind() == MediaKind::Video);
    match info.descriptor {
        Descriptor::Vp8(read) => vp8(payload, &read, picture_id, tl0),
        Descriptor::Vp9(read) => vp9(payload, &read, picture_id, tl0),
        Descriptor::None => {}
    }
    if codec == Codec::Red {
        redundant(payload);
    }
    retransmission(payload, picture_id);
}

fn vp8(payload: &[u8], read: &Vp8Descriptor, picture_id: u16, tl0: u8) {
    assert!(usize::from(read.len) < payload.len());
    read.key_frame_size(payload);
    let mut rewritten = payload.to_vec();
    read.rewrite(&mut rewritten, picture_id, tl0);
    let again = Vp8Descriptor::parse(&rewritten).expect("rewriting keeps the grammar");
    let expected = Vp8Descriptor {
        picture_id: cut(read.picture_id, picture_id),
        tl0_picture_index: read.tl0_picture_index.map(|_| tl0),
        ..*read
    };
    assert_eq!(again, expected);
    assert_eq!(rewritten[usize::from(read.len)..], payload[usize::from(read.len)..]);

    // Forwarding has a reader of its own for the same bytes: both must see the same.
    let mut numbers = Vp8Numbers::default();
    numbers.start(1 << 16, payload);
    let prefix = numbers.forward(1 << 16, payload).expect("a descriptor that parses is forwarded");
    assert_eq!(prefix.replaces(), usize::from(read.len));
    let forwarded = [prefix.as_bytes(), &payload[prefix.replaces()..]].concat();
    let forwarded = Vp8Descriptor::parse(&forwarded).expect("a forwarded descriptor parses");
    let expected = Vp8Descriptor {
        picture_id: read.picture_id.map(|id| PictureId { is_long: true, ..id }),
        len: prefix.as_bytes().len() as u8,
        ..*read
    };
    assert_eq!(forwarded, expected, "a first packet keeps its numbers");
}

fn vp9(payload: &[u8], read: &Vp9Descriptor, picture_id: u16, tl0: u8) {
    assert!(usize::from(read.len) <= payload.len());
    read.references();
    if let Some(range) = read.scalability {
        assert!(range.end <= read.len);
        let structure = ScalabilityStructure::parse(range.of(payload)).expect("its length was counted");
        assert!((1..=8).contains(&structure.spatial_layers));
    }
    let mut rewritten = payload.to_vec();
    read.rewrite(&mut rewritten, picture_id, tl0);
    let again = Vp9Descriptor::parse(&rewritten).expect("rewriting keeps the grammar");
    let mut expected = Vp9Descriptor { picture_id: cut(read.picture_id, picture_id), ..*read };
    if let Some(layer) = &mut expected.layer {
        layer.tl0_picture_index = layer.tl0_picture_index.map(|_| tl0);
    }
    assert_eq!(again, expected);
    assert_eq!(rewritten[usize::from(read.len)..], payload[usize::from(read.len)..]);
}

fn cut(old: Option<PictureId>, value: u16) -> Option<PictureId> {
    old.map(|old| PictureId { value: value & if old.is_long { 0x7fff } else { 0x7f }, ..old })
}

fn redundant(payload: &[u8]) {
    let Some(blocks) = red::Blocks::new(payload) else {
        assert!(red::primary(payload).is_none());
        return;
    };
    let blocks: Vec<_> = blocks.collect();
    let bytes: usize = blocks.iter().map(|block| block.payload.len()).sum();
    assert!(bytes < payload.len());
    let primaries = blocks.iter().filter(|block| block.is_primary).count();
    assert_eq!(primaries, usize::from(red::primary(payload).is_some()));
    if let Some((payload_type, primary)) = red::primary(payload) {
        assert!(payload.ends_with(primary) && payload_type < 128);
    }
}

fn retransmission(payload: &[u8], original: u16) {
    let mut buffer = vec![0; payload.len() + rtx::OSN_LEN];
    let len = rtx::encapsulate(original, payload, &mut buffer).expect("there is room");
    assert_eq!(rtx::decapsulate(&buffer[..len]), Some((original, payload)));
    assert_eq!(rtx::encapsulate(original, payload, &mut buffer[1..]), None);
}
