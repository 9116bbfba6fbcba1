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
fn a_switch_leaves_the_numbers_of_what_may_come_late_free() {
    let mut vp8 = Vp8Numbers::default();
    vp8.start(100, &full(32_765, 255, 0, 31));
    vp8.forward(100, &full(32_765, 255, 0, 31));
    // 32,766 and 32,767 are lost, the second of them a base layer, and the next is left out.
    vp8.drop_picture(103, &full(0, 0, 2, 31));
    assert_eq!(numbers(vp8.forward(101, &full(32_766, 255, 2, 31)).unwrap()), (32_766, 255, 31));
    vp8.start(103, &full(500, 9, 0, 3));
    assert_eq!(
        numbers(vp8.forward(101, &full(32_766, 255, 2, 31)).unwrap()),
        (32_766, 255, 31),
        "sent again"
    );
    assert_eq!(numbers(vp8.forward(102, &full(32_767, 0, 0, 31)).unwrap()), (32_767, 0, 31));
    assert_eq!(numbers(vp8.forward(103, &full(500, 9, 0, 3)).unwrap()), (0, 1, 0));
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

/// The picture id of a descriptor that has nothing else, written with 15 bits.
fn long_id(prefix: Prefix) -> u16 {
    match *prefix.as_bytes() {
        [0x90, 0x80, high, low] if high & 0x80 != 0 => u16::from_be_bytes([high, low]) & 0x7fff,
        ref other => panic!("{other:x?}"),
    }
}

#[test]
fn short_picture_ids_get_fifteen_bits_and_what_follows_them_moves() {
    let mut vp8 = Vp8Numbers::default();
    let all = [0x90, 0xf0, 100, 7, 0b0100_0011, 0xee];
    vp8.start(100, &all);
    let prefix = vp8.forward(100, &all).unwrap();
    assert_eq!(prefix.as_bytes(), [0x90, 0xf0, 0x80, 100, 7, 0b0100_0011]);
    assert_eq!(prefix.replaces(), 5);
}

#[test]
fn short_picture_ids_that_begin_anew_are_counted_on() {
    let mut vp8 = Vp8Numbers::default();
    vp8.start(100, &short(126));
    let ids = [126, 127, 0, 0, 1].into_iter().zip(100..);
    let ids: Vec<_> = ids.map(|(id, at)| long_id(vp8.forward(at, &short(id)).unwrap())).collect();
    assert_eq!(ids, [126, 127, 128, 128, 129]);
    assert_eq!(long_id(vp8.forward(101, &short(127)).unwrap()), 127, "sent again");
    for id in (2..128).chain(0..3) {
        vp8.drop_picture(105, &short(id)); // a turn of pictures left out
    }
    assert_eq!(long_id(vp8.forward(105, &short(3)).unwrap()), 130);
}

#[test]
fn short_picture_ids_do_not_begin_anew_with_one_that_comes_late() {
    let mut vp8 = Vp8Numbers::default();
    vp8.start(100, &short(10));
    vp8.forward(100, &short(10));
    vp8.drop_picture(102, &short(12)); // 101 of picture 11 is on its way
    assert_eq!(long_id(vp8.forward(101, &short(11)).unwrap()), 11);
    assert_eq!(long_id(vp8.forward(102, &short(13)).unwrap()), 12);

    let mut vp8 = Vp8Numbers::default();
    vp8.start(100, &short(126));
    vp8.forward(100, &short(126));
    vp8.drop_picture(102, &short(0)); // 101 of picture 127 is on its way
    assert_eq!(long_id(vp8.forward(101, &short(127)).unwrap()), 127);
    assert_eq!(long_id(vp8.forward(102, &short(1)).unwrap()), 128);
}

#[test]
fn a_source_that_outgrows_seven_bits_after_a_switch_shows_no_seam() {
    let mut vp8 = Vp8Numbers::default();
    vp8.start(100, &short(124));
    assert_eq!(long_id(vp8.forward(100, &short(124)).unwrap()), 124);
    // Another encoding, three pictures behind.
    vp8.start(101, &short(122));
    let mut ids = Vec::new();
    for (at, id) in (122..128).enumerate() {
        ids.push(long_id(vp8.forward(101 + at as u64, &short(id)).unwrap()));
    }
    for (at, id) in [128, 129].into_iter().enumerate() {
        let [high, low] = (id | 0x8000_u16).to_be_bytes();
        ids.push(long_id(vp8.forward(107 + at as u64, &[0x90, 0x80, high, low, 0xee]).unwrap()));
    }
    assert_eq!(ids, (125..133).collect::<Vec<_>>());
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

/// As pion writes them: ids from zero on, and a zero left out. The last byte is the payload's, of a key frame or not.
fn pion(picture: u16, is_key_frame: bool) -> Vec<u8> {
    let mut payload = match picture {
        0 => vec![0x10],
        1..0x80 => vec![0x90, 0x80, picture as u8],
        _ => [vec![0x90, 0x80], (picture | 0x8000).to_be_bytes().to_vec()].concat(),
    };
    payload.push(u8::from(!is_key_frame));
    payload
}

#[test]
fn a_subscription_whose_first_key_frame_has_no_id_has_none() {
    let mut vp8 = Vp8Numbers::default();
    vp8.start(100, &pion(0, true));
    let without = |vp8: &mut Vp8Numbers, sequence, picture, is_key_frame| {
        let payload = pion(picture, is_key_frame);
        let prefix = vp8.forward(sequence, &payload).unwrap();
        let expected: &[u8] = if picture == 0 { &[0x10] } else { &[0x90, 0x00] };
        assert_eq!(prefix.as_bytes(), expected, "{picture}");
        assert_eq!(prefix.replaces() + 1, payload.len());
    };
    for (sequence, picture) in (100..).zip([0, 1, 2, 127, 128, 129]) {
        without(&mut vp8, sequence, picture, picture == 0 || picture == 129);
    }
    vp8.start(106, &pion(500, true));
    without(&mut vp8, 106, 500, true);
    without(&mut vp8, 103, 127, false);
    // Temporal layers need them.
    vp8.start(107, &full(7, 1, 0, 1));
    assert!(
        matches!(*vp8.forward(107, &full(7, 1, 0, 1)).unwrap().as_bytes(), [0x90, 0xf0, high, ..] if high & 0x80 != 0)
    );
    without(&mut vp8, 106, 500, true);
}

#[test]
fn a_source_without_ids_in_the_place_of_one_with_has_none_after_its_second_key_frame() {
    let mut vp8 = Vp8Numbers::default();
    let (key, delta) = ([0x10, 0], [0x10, 1]);
    vp8.start(100, &pion(7, true));
    vp8.forward(100, &pion(7, true));
    vp8.start(101, &key);
    assert_eq!(long_id(vp8.forward(101, &key).unwrap()), 8, "a zero that was left out, for all one knows");
    vp8.forward(102, &delta);
    assert_eq!(vp8.forward(103, &key).unwrap().as_bytes(), [0x10]);
    assert_eq!(vp8.forward(104, &delta).unwrap().as_bytes(), [0x10]);
}

#[test]
fn an_id_of_zero_that_was_left_out_is_put_in() {
    let mut vp8 = Vp8Numbers::default();
    vp8.start(100, &pion(32_766, true));
    let mut id = |sequence, picture| long_id(vp8.forward(sequence, &pion(picture, false)).unwrap());
    let ids = [id(100, 32_766), id(101, 32_767), id(102, 0), id(103, 1)];
    assert_eq!(ids, [32_766, 32_767, 0, 1]);
    vp8.drop_picture(104, &pion(2, false));
    assert_eq!(long_id(vp8.forward(104, &pion(3, false)).unwrap()), 2);
    // All other fields, and no id.
    vp8.start(105, &pion(500, true));
    let prefix = vp8.forward(106, &[0x90, 0x70, 7, 0b0100_0011, 0xee]).unwrap();
    assert_eq!(&prefix.as_bytes()[..2], &[0x90, 0xf0]);
    assert_eq!((prefix.as_bytes().len(), prefix.replaces()), (6, 4));
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
    fn rewriting_is_total_and_keeps_all_else(payload in proptest::collection::vec(any::<u8>(), 0..12), sequence in any::<u64>()) {
        let mut vp8 = Vp8Numbers::default();
        vp8.start(sequence / 2, &payload);
        if let Some(prefix) = vp8.forward(sequence, &payload) {
            let read = weir_rtp::vp8::Vp8Descriptor::parse(&payload);
            let written = [prefix.as_bytes(), &payload[prefix.replaces()..]].concat();
            // The first stretch changes no number.
            let expected = read.map(|mut read| {
                if let Some(id) = &mut read.picture_id {
                    read.len += u8::from(!id.is_long);
                    id.is_long = true;
                }
                read
            });
            prop_assert_eq!(weir_rtp::vp8::Vp8Descriptor::parse(&written), expected);
        }
        vp8.drop_picture(sequence, &payload);
    }
}
