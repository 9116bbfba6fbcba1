use proptest::prelude::*;

use super::*;

/// A descriptor with all fields, followed by a byte of payload.
fn full(picture: u16, tl0: u8, temporal: u8, key: u8) -> Vec<u8> {
    let [high, low] = (picture | 0x8000).to_be_bytes();
    vec![0x90, 0xf0, high, low, tl0, temporal << 6 | key, 0xee]
}

/// With a picture id of 7 bits and nothing else.
fn short(picture: u8) -> Vec<u8> {
    vec![0x90, 0x80, picture, 0xee]
}

fn numbers(prefix: Prefix) -> (u16, u8, u8) {
    match *prefix.as_bytes() {
        [0x90, 0xf0, high, low, tl0, last] => (u16::from_be_bytes([high, low]) & 0x7fff, tl0, last & 0x1f),
        ref other => panic!("{other:x?}"),
    }
}

#[test]
fn a_single_encoding_is_passed_as_it_is() {
    let mut vp8 = Vp8Numbers::default();
    vp8.start(100, &full(32_767, 255, 0, 31));
    for (step, picture) in [32_767, 0, 1].into_iter().enumerate() {
        let payload = full(picture, 255, 1, 31);
        let prefix = vp8.forward(100 + step as u64, &payload).unwrap();
        assert_eq!(prefix.as_bytes(), &payload[..6]);
    }
}

#[test]
fn all_numbers_go_on_across_a_switch() {
    let mut vp8 = Vp8Numbers::default();
    vp8.start(100, &full(32_767, 255, 0, 31));
    vp8.forward(100, &full(32_767, 255, 0, 31));
    vp8.start(101, &full(5, 9, 0, 3));
    assert_eq!(numbers(vp8.forward(101, &full(5, 9, 0, 3)).unwrap()), (0, 0, 0));
    assert_eq!(numbers(vp8.forward(102, &full(5, 9, 0, 3)).unwrap()), (0, 0, 0), "the same picture");
    assert_eq!(numbers(vp8.forward(103, &full(6, 10, 0, 3)).unwrap()), (1, 1, 0));
}

#[test]
fn the_temporal_layer_is_kept() {
    let mut vp8 = Vp8Numbers::default();
    vp8.start(100, &full(1, 1, 0, 1));
    let prefix = vp8.forward(100, &[0x90, 0xf0, 0x80, 1, 1, 0b1010_0001, 0]).unwrap();
    assert_eq!(prefix.as_bytes()[5] & 0xe0, 0b1010_0000);
}

#[test]
fn pictures_left_out_close_their_gap() {
    let mut vp8 = Vp8Numbers::default();
    vp8.start(100, &full(10, 1, 0, 1));
    vp8.forward(100, &full(10, 1, 0, 1));
    vp8.drop_picture(101, &full(11, 1, 2, 1));
    vp8.drop_picture(101, &full(11, 1, 2, 1)); // its second packet
    vp8.drop_picture(101, &full(12, 1, 2, 1));
    assert_eq!(numbers(vp8.forward(101, &full(13, 2, 0, 1)).unwrap()).0, 11);
}

#[test]
fn a_late_packet_keeps_the_numbers_of_its_picture() {
    let mut vp8 = Vp8Numbers::default();
    vp8.start(100, &full(10, 1, 0, 1));
    vp8.forward(100, &full(10, 1, 0, 1));
    // 101 of picture 11 is on its way.
    vp8.drop_picture(102, &full(12, 1, 2, 1));
    assert_eq!(numbers(vp8.forward(102, &full(13, 2, 0, 1)).unwrap()).0, 12);
    assert_eq!(numbers(vp8.forward(101, &full(11, 1, 1, 1)).unwrap()).0, 11);
    vp8.start(103, &full(900, 50, 0, 7));
    assert_eq!(numbers(vp8.forward(103, &full(900, 50, 0, 7)).unwrap()), (13, 3, 2));
    assert_eq!(numbers(vp8.forward(101, &full(11, 1, 1, 1)).unwrap()), (11, 1, 1));
    assert_eq!(numbers(vp8.forward(104, &full(901, 51, 0, 7)).unwrap()), (14, 4, 2));
}

#[test]
fn a_short_picture_id_stays_short() {
    let mut vp8 = Vp8Numbers::default();
    vp8.start(100, &short(127));
    assert_eq!(vp8.forward(100, &short(127)).unwrap().as_bytes(), [0x90, 0x80, 127]);
    vp8.drop_picture(101, &short(0));
    assert_eq!(vp8.forward(101, &short(1)).unwrap().as_bytes(), [0x90, 0x80, 0]);
    vp8.start(102, &short(77));
    assert_eq!(vp8.forward(102, &short(77)).unwrap().as_bytes(), [0x90, 0x80, 1]);
}

#[test]
fn a_descriptor_without_numbers_is_left_alone() {
    let mut vp8 = Vp8Numbers::default();
    for payload in [&[0x10, 0xee][..], &[0x90, 0x00, 0xee], &[0x90, 0x20, 0x40, 0xee]] {
        vp8.start(100, payload);
        vp8.drop_picture(101, payload);
        let prefix = vp8.forward(101, payload).unwrap();
        assert_eq!(prefix.as_bytes(), &payload[..payload.len() - 1]);
    }
}

#[test]
fn a_broken_descriptor_has_no_rewrite() {
    let mut vp8 = Vp8Numbers::default();
    for payload in [&[][..], &[0x90], &[0x90, 0x80], &[0x90, 0x80, 0x80], &[0x90, 0xf0, 1, 2]] {
        vp8.start(100, payload);
        vp8.drop_picture(100, payload);
        assert_eq!(vp8.forward(100, payload), None, "{payload:?}");
    }
}

proptest! {
    #[test]
    fn rewriting_is_total_and_keeps_the_layout(payload in proptest::collection::vec(any::<u8>(), 0..12), sequence in any::<u64>()) {
        let mut vp8 = Vp8Numbers::default();
        vp8.start(sequence / 2, &payload);
        if let Some(prefix) = vp8.forward(sequence, &payload) {
            prop_assert_eq!(prefix.as_bytes(), &payload[..prefix.as_bytes().len()], "the first stretch changes nothing");
            let read = weir_rtp::vp8::Vp8Descriptor::parse(&payload);
            prop_assert!(read.is_none_or(|read| usize::from(read.len) == prefix.as_bytes().len()));
        }
        vp8.drop_picture(sequence, &payload);
    }
}
