//! Orders to a subscription's numbering, as a publisher's packets, switches and losses would give them. The first byte
//! says where in a 16-bit cycle the numbers begin.
//!
//! What must never happen: one egress number for two packets, which would be one SRTP nonce for two.

use std::collections::BTreeMap;

use weir_core::rewrite::sequence::{Dropped, SequenceMap};
use weir_core::rewrite::vp8::Vp8Numbers;

use crate::Input;

const MAX_ORDERS: usize = 512;
const ENCODINGS: usize = 3;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let first = (1 << 16) + u64::from(input.u8()) * 256;
    let mut map = SequenceMap::new(first);
    let mut numbers = Vp8Numbers::default();
    let mut given: BTreeMap<u64, (u8, u64)> = BTreeMap::new();
    let mut newest = [first; ENCODINGS];
    let mut started = false;
    for _ in 0..MAX_ORDERS {
        if input.is_empty() {
            break;
        }
        let order = input.u8();
        let encoding = order >> 3 & 3;
        let Some(highest) = newest.get_mut(usize::from(encoding)) else { continue };
        // A small step either way, or a leap, as a publisher's numbers may make.
        let step = i64::from(input.u8() as i8);
        let step = if order & 0x20 == 0 { step } else { step * 300 };
        let Some(ingress) = highest.checked_add_signed(step) else { continue };
        *highest = ingress.max(*highest);
        let before = map.next_egress();
        let number = match order & 7 {
            0 => Some(map.start(encoding, ingress)),
            1..=4 if started => map.forward(encoding, ingress),
            5..=6 if started => match map.drop(encoding, ingress) {
                Dropped::Open(number) => Some(number), // padding fills it: it is given too
                Dropped::Closed | Dropped::Gone => None,
            },
            7 if started => Some(map.insert()),
            _ => None,
        };
        started |= order & 7 == 0;
        assert!(map.next_egress() >= before, "numbers never go back");
        assert!(map.memory() <= 1024);
        let Some(number) = number else { continue };
        let is_ours = order & 7 == 7;
        let source = if is_ours { (u8::MAX, 0) } else { (encoding, ingress) };
        if let Some(other) = given.insert(number, source) {
            panic!("number {number} for {other:?} and for {source:?}");
        }
        assert!(number < map.next_egress());
        assert_eq!(map.extend_egress(number as u16) == number, map.next_egress() - number <= 1 << 16);
        if !is_ours && order & 7 <= 4 {
            assert_eq!(map.ingress_of(number), Some(source), "what was just sent can be sent again");
        }

        let payload = [0x90, 0xf0, 0x80 | (ingress >> 8) as u8, ingress as u8, ingress as u8, 0x21, 0];
        match order & 7 {
            0 => numbers.start(number, &payload),
            5 | 6 => numbers.drop_picture(map.next_egress(), &payload),
            _ => {}
        }
        if order & 7 <= 4 && numbers.forward(number, &payload).is_some_and(|it| it.as_bytes().len() != 6) {
            panic!("a descriptor keeps its length");
        }
    }
}
