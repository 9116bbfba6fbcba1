//! The template structures that an encoding's dependency descriptors refer to
//! ([AV1 RTP §A.8](https://aomediacodec.github.io/av1-rtp-spec/#a8-dependency-descriptor-rtp-header-extension)).

use std::time::{Duration, Instant};

use weir_rtp::dependency_descriptor::{DependencyDescriptor, MandatoryFields, TemplateStructure};

/// A structure that is missing is asked for again, and again, within this; then a key frame is sooner.
const REPAIR: Duration = Duration::from_millis(250);

/// Packets that wait for one: what comes of a good picture within that. Of more, receivers ask for what they miss.
const MAX_WAITING: usize = 256;

/// The structure in use, and the one before it for packets that come late. Each takes about 4 KiB; most streams have one.
/// Bound: these, and [`MAX_WAITING`] numbers.
#[derive(Debug, Default)]
pub struct Structures {
    present: Option<Box<TemplateStructure>>,
    /// The number of the packet from which on it holds.
    since: u64,
    before: Option<Box<TemplateStructure>>,
    /// The number of the last packet that brought one.
    latest: u64,
    /// Since when packets come that refer to another, which is missing.
    missing_since: Option<Instant>,
    /// The numbers of these.
    waiting: Vec<u64>,
}

impl Structures {
    /// A packet came that may bring a structure. Gives the numbers of those that waited for it, ascending. Those before it
    /// waited for another, which is not expected any more.
    pub fn take(&mut self, sequence: u64, descriptor: &[u8]) -> Vec<u64> {
        let brings = MandatoryFields::parse(descriptor).is_some_and(|fields| fields.has_structure);
        // A repair may bring one that has been replaced since.
        if !brings || sequence < self.latest {
            return Vec::new();
        }
        self.latest = sequence;
        // With one beyond what is understood layers are not told apart: a receiver may know better.
        let is_understood = DependencyDescriptor::parse(descriptor, None).is_some();
        let structure = TemplateStructure::attached_to(descriptor).filter(|_| is_understood);
        if self.present.as_deref() != structure.as_ref() {
            self.before = std::mem::replace(&mut self.present, structure.map(Box::new));
            self.since = sequence;
        }
        self.missing_since = None;
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|waits| *waits > sequence);
        waiting.sort_unstable();
        waiting
    }

    /// What a descriptor says, if its structure is known.
    pub fn read(&self, sequence: u64, descriptor: &[u8]) -> Option<DependencyDescriptor> {
        DependencyDescriptor::parse(descriptor, self.at(sequence))
    }

    fn at(&self, sequence: u64) -> Option<&TemplateStructure> {
        if sequence < self.since { self.before.as_deref() } else { self.present.as_deref() }
    }

    /// Whether a descriptor that cannot be read refers to a structure which is still to come.
    pub fn is_missing(&self, sequence: u64, descriptor: &[u8]) -> bool {
        sequence > self.latest && self.refers_to_another(sequence, descriptor)
    }

    /// Whether a descriptor that cannot be read refers to a structure which another has followed. Receivers cannot read it
    /// either.
    pub fn is_lost(&self, sequence: u64, descriptor: &[u8]) -> bool {
        sequence <= self.latest && self.refers_to_another(sequence, descriptor)
    }

    fn refers_to_another(&self, sequence: u64, descriptor: &[u8]) -> bool {
        self.at(sequence).is_some() && MandatoryFields::parse(descriptor).is_some()
    }

    /// Such a packet came. Says whether that goes on for so long that a repair is not to be expected.
    pub fn on_missing(&mut self, now: Instant, sequence: u64) -> bool {
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push(sequence);
        }
        let since = *self.missing_since.get_or_insert(now);
        now >= since + REPAIR
    }

    /// The stream begins anew.
    pub fn clear(&mut self) {
        let latest = self.latest;
        *self = Self { latest, since: latest, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    /// A descriptor of the only template, 7 in one structure and 8 in the other.
    const REFERS: [[u8; 3]; 2] = [[0x80 | 7, 0, 1], [0x80 | 8, 0, 2]];

    /// With that structure: one decode target, one template, no chains.
    fn brings(template: u8) -> Vec<u8> {
        let bits = 0b1_0000_u32 << 27 | u32::from(template) << 21 | 0b11 << 14 | 0b10 << 12;
        [&[0x80 | template, 0, 9][..], &bits.to_be_bytes()].concat()
    }

    #[test]
    fn late_packets_are_read_by_the_structure_of_their_time() {
        let mut structures = Structures::default();
        structures.take(10, &brings(7));
        assert!(structures.read(11, &REFERS[0]).is_some());
        structures.take(20, &brings(8));
        structures.take(30, &brings(8));
        assert!(structures.read(19, &REFERS[0]).is_some() && structures.read(19, &REFERS[1]).is_none());
        assert!(structures.read(21, &REFERS[1]).is_some() && structures.read(21, &REFERS[0]).is_none());
        assert!(!structures.is_missing(21, &REFERS[0]), "it is past");
        structures.take(25, &brings(7));
        assert!(structures.read(31, &REFERS[1]).is_some(), "a repair of what was replaced");
    }

    #[test]
    fn what_is_missing_is_told_until_it_comes_or_for_as_long_as_a_repair_takes() {
        let (mut structures, now) = (Structures::default(), start());
        assert!(!structures.is_missing(5, &REFERS[0]), "nothing began yet");
        structures.take(10, &brings(7));
        assert!(structures.is_missing(22, &REFERS[1]));
        assert!(!structures.on_missing(now, 22) && structures.on_missing(now + REPAIR, 21));
        assert_eq!(structures.take(20, &brings(8)), [21, 22]);
        assert!(structures.read(22, &REFERS[1]).is_some());
        assert!(structures.take(40, &brings(8)).is_empty() && !structures.on_missing(now + REPAIR, 41));
        (51..10_000).for_each(|number| _ = structures.on_missing(now, number));
        assert_eq!(structures.take(50, &brings(7)).len(), MAX_WAITING - 1, "all but 41");
    }

    #[test]
    fn what_waited_for_a_structure_that_never_came_is_forgotten_with_the_next() {
        let (mut structures, now) = (Structures::default(), start());
        structures.take(10, &brings(7));
        for sequence in [21, 22, 31] {
            assert!(structures.is_missing(sequence, &REFERS[1]));
            structures.on_missing(now, sequence);
        }
        assert_eq!(structures.take(30, &brings(9)), [31]);
        assert!(!structures.is_missing(21, &REFERS[1]));
        assert!(structures.is_lost(21, &REFERS[1]) && structures.read(21, &REFERS[1]).is_none());
        // The same one again: what is in use has not changed.
        structures.on_missing(now, 41);
        assert!(structures.take(50, &brings(9)).is_empty());
        assert!(structures.is_lost(41, &REFERS[1]) && !structures.is_lost(51, &REFERS[1]));
    }

    #[test]
    fn of_a_structure_that_is_not_understood_nothing_is_awaited() {
        let mut structures = Structures::default();
        structures.take(10, &brings(7));
        structures.take(20, &brings(8)[..4]);
        assert!(structures.read(21, &REFERS[0]).is_none() && !structures.is_missing(21, &REFERS[0]));
    }
}
