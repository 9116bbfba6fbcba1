use proptest::prelude::*;

use super::*;

const FIRST: u64 = 1 << 16;

fn started(ingress: u64) -> SequenceMap {
    let mut map = SequenceMap::new(FIRST);
    assert_eq!(map.start(0, ingress), FIRST);
    map
}

#[test]
fn numbers_go_on_without_a_gap() {
    let mut map = started(5000);
    for step in 1..100 {
        assert_eq!(map.forward(0, 5000 + step), Some(FIRST + step));
    }
    assert_eq!(map.memory(), 0, "a stream without drops needs no memory");
}

#[test]
fn dropped_packets_close_the_gap() {
    let mut map = started(10);
    assert_eq!(map.drop(0, 11), Dropped::Closed);
    assert_eq!(map.drop(0, 12), Dropped::Closed);
    assert_eq!(map.forward(0, 13), Some(FIRST + 1));
    assert_eq!(map.ingress_of(FIRST), Some((0, 10)));
    assert_eq!(map.ingress_of(FIRST + 1), Some((0, 13)));
    assert_eq!(map.forward(0, 11), None, "what was dropped has no place");
}

#[test]
fn a_late_packet_fits_its_place_after_a_drop() {
    let mut map = started(10);
    assert_eq!(map.forward(0, 12), Some(FIRST + 2));
    assert_eq!(map.drop(0, 13), Dropped::Closed);
    assert_eq!(map.forward(0, 14), Some(FIRST + 3));
    assert_eq!(map.ingress_of(FIRST + 1), Some((0, 11)), "a request for it can be passed on");
    assert_eq!(map.forward(0, 11), Some(FIRST + 1));
    assert_eq!(map.forward(0, 11), None, "a number is given once");
    assert_eq!(map.forward(0, 12), None);
}

#[test]
fn a_late_packet_that_is_not_wanted_leaves_its_place_open() {
    let mut map = started(10);
    map.forward(0, 12);
    assert_eq!(map.drop(0, 11), Dropped::Open(FIRST + 1));
    assert_eq!(map.drop(0, 11), Dropped::Gone);
    assert_eq!(map.drop(0, 9), Dropped::Gone, "from before the start");
}

#[test]
fn what_a_receiver_misses_through_us_is_counted_until_it_comes() {
    let mut map = started(10);
    let mut counts = vec![map.left_out()];
    map.forward(0, 14);
    counts.push(map.left_out());
    map.forward(0, 12);
    map.forward(0, 12);
    counts.push(map.left_out());
    map.drop(0, 15);
    assert_eq!(map.drop(0, 11), Dropped::Open(FIRST + 1));
    counts.push(map.left_out());
    map.fill(FIRST + 1);
    counts.push(map.left_out());
    map.forward(0, 10_000_000);
    counts.push(map.left_out());
    assert_eq!(counts, [0, 3, 2, 2, 1, 2]);
}

/// A line that loses much, and a subscriber of few of many layers: what is repaired late is mostly not for it.
#[test]
fn what_padding_fills_is_known_as_long_as_it_may_be_asked_for() {
    let mut map = started(10);
    for step in (2..WINDOW).step_by(2) {
        map.forward(0, 10 + step);
    }
    for step in (1..WINDOW - 1).step_by(2) {
        let Dropped::Open(place) = map.drop(0, 10 + step) else { panic!("a place") };
        map.fill(place);
    }
    for step in 0..WINDOW - 1 {
        assert_eq!(map.is_filled(FIRST + step), step % 2 == 1, "{step}");
    }
    for step in WINDOW..2 * WINDOW {
        map.forward(0, 10 + step);
    }
    assert!((0..2 * WINDOW).all(|step| !map.is_filled(FIRST + step)), "numbers of packets again");
}

#[test]
fn a_switch_goes_on_at_the_next_number() {
    let mut map = started(10);
    map.forward(0, 11);
    map.forward(0, 13);
    assert_eq!(map.start(2, 70_000), FIRST + 4);
    assert_eq!(map.forward(2, 70_001), Some(FIRST + 5));
    assert_eq!(map.forward(0, 12), Some(FIRST + 2), "the old encoding's late packet fills its place");
    assert_eq!(map.forward(0, 14), None, "but nothing of it is added");
    assert_eq!(map.forward(2, 69_999), None, "nor what came before the switch");
    assert_eq!(map.ingress_of(FIRST + 4), Some((2, 70_000)));
    assert_eq!(map.ingress_of(FIRST + 3), Some((0, 13)));
}

#[test]
fn an_encoding_sent_again_from_its_key_frame_gets_new_numbers() {
    let mut map = started(10);
    map.forward(0, 11);
    map.forward(0, 12);
    assert_eq!(map.start(0, 11), FIRST + 3);
    assert_eq!(map.forward(0, 12), Some(FIRST + 4));
    assert_eq!(map.ingress_of(FIRST + 2), Some((0, 12)));
    assert_eq!(map.ingress_of(FIRST + 4), Some((0, 12)));
}

#[test]
fn our_own_packets_have_no_ingress_number() {
    let mut map = started(10);
    assert_eq!((map.insert(), map.insert()), (FIRST + 1, FIRST + 2));
    assert_eq!(map.forward(0, 11), Some(FIRST + 3));
    assert_eq!(map.ingress_of(FIRST + 1), None);
    assert_eq!(map.ingress_of(FIRST), Some((0, 10)));
}

#[test]
fn a_gap_too_long_to_repair_is_closed_to_one_number() {
    let mut map = started(10);
    assert_eq!(map.forward(0, 10 + 1 + MAX_GAP), Some(FIRST + 1 + MAX_GAP), "the longest one kept open");
    let next = map.next_egress();
    assert_eq!(map.forward(0, 10_000_000), Some(next + 1));
    assert_eq!(map.ingress_of(next), None);
    assert_eq!(map.forward(0, 9_999_999), None);
}

#[test]
fn sixteen_bits_name_the_newest_such_number() {
    let mut map = SequenceMap::new(0x1_fff0);
    for ingress in 0..0x20 {
        if ingress == 0 {
            map.start(0, 0)
        } else {
            map.forward(0, ingress).unwrap()
        };
    }
    assert_eq!(map.next_egress(), 0x2_0010);
    assert_eq!(map.extend_egress(0x000f), 0x2_000f);
    assert_eq!(map.extend_egress(0xfff5), 0x1_fff5);
    assert_eq!(map.ingress_of(map.extend_egress(0x0010)), None, "never sent");
}

#[test]
fn memory_is_bounded_under_a_storm_of_switches_and_drops() {
    let mut map = started(0);
    for round in 1..10_000_u64 {
        let encoding = (round % 3) as u8;
        map.start(encoding, round * 10);
        map.drop(encoding, round * 10 + 1);
        map.insert();
        map.forward(encoding, round * 10 + 2);
    }
    assert!(map.memory() + size_of::<SequenceMap>() <= 640, "{}", map.memory());
}

#[test]
fn a_stretch_longer_than_sixteen_bits_is_still_found_by_its_end() {
    let mut map = started(0);
    for ingress in 1..200_000 {
        map.forward(0, ingress);
    }
    map.forward(0, 200_002);
    map.start(1, 7);
    assert_eq!(map.ingress_of(FIRST + 199_999), Some((0, 199_999)));
    assert_eq!(map.ingress_of(FIRST + 199_999 - 40_000), Some((0, 159_999)));
    assert_eq!(map.forward(0, 200_001), Some(FIRST + 200_001));
}

/// What the map means, as a table of every number given.
struct Table {
    /// Who has the egress number, from [`FIRST`] on, and whether the place is still open.
    places: Vec<(Option<(u8, u64)>, bool)>,
    encoding: Option<u8>,
    next_ingress: u64,
}

impl Table {
    fn next(&self) -> u64 {
        FIRST + self.places.len() as u64
    }

    fn start(&mut self, encoding: u8, ingress: u64) -> u64 {
        self.places.push((Some((encoding, ingress)), false));
        self.encoding = Some(encoding);
        self.next_ingress = ingress + 1;
        self.next() - 1
    }

    fn late(&mut self, encoding: u8, ingress: u64) -> Option<u64> {
        let at = self.places.iter().rposition(|place| place.0 == Some((encoding, ingress)))?;
        let is_open = std::mem::take(&mut self.places[at].1) && self.places.len() - at <= WINDOW as usize;
        is_open.then_some(FIRST + at as u64)
    }

    /// Opens places for what is missing before a packet in order; false if it is late.
    fn reach(&mut self, encoding: u8, ingress: u64) -> bool {
        if Some(encoding) != self.encoding || ingress < self.next_ingress {
            return false;
        }
        if ingress - self.next_ingress > MAX_GAP {
            self.places.push((None, false));
        } else {
            self.places.extend((self.next_ingress..ingress).map(|lost| (Some((encoding, lost)), true)));
        }
        self.next_ingress = ingress + 1;
        true
    }

    fn forward(&mut self, encoding: u8, ingress: u64) -> Option<u64> {
        if !self.reach(encoding, ingress) {
            return self.late(encoding, ingress);
        }
        self.places.push((Some((encoding, ingress)), false));
        Some(self.next() - 1)
    }

    fn drop(&mut self, encoding: u8, ingress: u64) -> Dropped {
        match self.reach(encoding, ingress) {
            true => Dropped::Closed,
            false => self.late(encoding, ingress).map_or(Dropped::Gone, Dropped::Open),
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// By so much relative to the encoding's next number.
    Packet {
        encoding: u8,
        relative: i64,
        is_dropped: bool,
    },
    Switch {
        encoding: u8,
        relative: i64,
    },
    Insert,
}

fn steps(max: usize) -> impl Strategy<Value = Vec<Step>> {
    let relative = prop_oneof![20 => Just(0_i64), 4 => 1..4_i64, 4 => -8..0_i64, 1 => 1000..1100_i64];
    let step = prop_oneof![
        30 => (0..3_u8, relative, prop::bool::weighted(0.2))
            .prop_map(|(encoding, relative, is_dropped)| Step::Packet { encoding, relative, is_dropped }),
        2 => (0..3_u8, -5..20_i64).prop_map(|(encoding, relative)| Step::Switch { encoding, relative }),
        1 => Just(Step::Insert),
    ];
    proptest::collection::vec(step, 1..max)
}

/// Runs both; `exact` holds while the map has forgotten nothing.
fn compare(base: u64, steps: &[Step], exact: bool) -> Result<(), TestCaseError> {
    let mut map = SequenceMap::new(FIRST);
    let mut table = Table { places: Vec::new(), encoding: None, next_ingress: 0 };
    let mut next = [base, base + 1_000_000, base + 77];
    let agrees = |found: Option<u64>, truth: Option<u64>, is_recent: bool| {
        found == truth || (!exact && !is_recent && found.is_none())
    };
    let mut stretches = vec![FIRST]; // where the model's stretches began, to know what must be remembered
    for step in steps {
        let before = table.next();
        match *step {
            Step::Packet { encoding, relative, is_dropped } => {
                let ingress = next[usize::from(encoding)].saturating_add_signed(relative);
                let recent = stretches.iter().rev().nth(MAX_PAST / 2).copied().unwrap_or(0);
                if is_dropped {
                    let (found, truth) = (map.drop(encoding, ingress), table.drop(encoding, ingress));
                    let number =
                        |dropped| if let Dropped::Open(number) = dropped { Some(number) } else { None };
                    let is_recent = number(truth).is_some_and(|number| number >= recent);
                    prop_assert!(agrees(number(found), number(truth), is_recent), "{found:?} {truth:?}");
                    prop_assert_eq!(found == Dropped::Closed, truth == Dropped::Closed);
                    stretches.push(table.next());
                } else {
                    let (found, truth) = (map.forward(encoding, ingress), table.forward(encoding, ingress));
                    let is_recent = truth.is_some_and(|number| number >= recent);
                    prop_assert!(agrees(found, truth, is_recent), "{step:?}: {found:?} {truth:?}");
                }
                let next = &mut next[usize::from(encoding)];
                *next = (ingress + 1).max(*next);
            }
            Step::Switch { encoding, relative } => {
                let ingress = next[usize::from(encoding)].saturating_add_signed(relative);
                stretches.push(table.next());
                prop_assert_eq!(map.start(encoding, ingress), table.start(encoding, ingress));
                next[usize::from(encoding)] = ingress + 1;
            }
            Step::Insert => {
                stretches.extend([table.next(), table.next() + 1]);
                prop_assert_eq!(map.insert(), table.next());
                table.places.push((None, false));
            }
        }
        prop_assert_eq!(map.next_egress(), table.next());
        if table.next() - before > MAX_GAP / 2 {
            stretches.push(table.next());
        }
    }
    let recent = stretches.iter().rev().nth(MAX_PAST / 2).copied().unwrap_or(0);
    for (at, (place, _)) in table.places.iter().enumerate() {
        let egress = FIRST + at as u64;
        let found = map.ingress_of(egress);
        let may_forget = !exact && egress < recent;
        prop_assert!(found == *place || (may_forget && found.is_none()), "{egress}: {found:?} {place:?}");
    }
    prop_assert_eq!(map.ingress_of(map.next_egress()), None);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn agrees_with_a_table_of_every_packet(
        base in prop_oneof![Just(100_u64), Just((1 << 32) - 20), Just((1 << 16) - 5), Just((7 << 32) - 1_000_010)],
        steps in steps(40),
    ) {
        compare(base, &steps, true)?;
    }

    #[test]
    fn forgets_the_oldest_only(base in 100..(1_u64 << 33), steps in steps(600)) {
        compare(base, &steps, false)?;
    }
}
