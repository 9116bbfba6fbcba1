//! The frame number in the dependency descriptor of one subscription
//! ([AV1 RTP §A.8.1](https://aomediacodec.github.io/av1-rtp-spec/#a81-mandatory-descriptor-fields)): every encoding of
//! a simulcast counts for itself, a receiver expects one count. References are differences and need no change; frames
//! left out leave their numbers out, which receivers expect.

use super::epochs::Epochs;

/// Past offsets kept: as many switches as happen while a retransmission is still wanted.
const MAX_PAST: usize = 8;

/// Flags and template id, then the frame number: the descriptor's mandatory fields.
pub const MANDATORY_FIELDS: usize = 3;

/// Offsets for each stretch of egress sequence numbers.
#[derive(Clone, Debug)]
pub struct FrameNumbers {
    offsets: Epochs<u16, MAX_PAST>,
    /// Egress sequence number of the newest packet, and the highest frame number that was given or left out.
    newest: Option<(u64, u16)>,
}

impl Default for FrameNumbers {
    fn default() -> Self {
        Self { offsets: Epochs::new(0), newest: None }
    }
}

impl FrameNumbers {
    /// A stretch begins with the packet that gets egress number `sequence`: its frame follows the last one sent.
    pub fn start(&mut self, sequence: u64, descriptor: &[u8]) {
        let (Some((_, newest)), Some(number)) = (self.newest, frame_number(descriptor)) else {
            self.offsets.begin(sequence, 0);
            return;
        };
        self.offsets.begin(sequence, newest.wrapping_add(1).wrapping_sub(number));
    }

    /// A packet in order was left out on purpose. What was lost before it may come late, under a number up to its own:
    /// another stretch must not begin with them.
    pub fn drop(&mut self, descriptor: &[u8]) {
        let (Some((_, newest)), Some(number)) = (&mut self.newest, frame_number(descriptor)) else { return };
        raise(newest, number.wrapping_add(self.offsets.present()));
    }

    /// The mandatory fields for the packet with egress number `sequence`, new, late or sent again; they replace the
    /// descriptor's first bytes. `None` when it is too short or belongs to a stretch long past.
    #[inline]
    pub fn forward(&mut self, sequence: u64, descriptor: &[u8]) -> Option<[u8; MANDATORY_FIELDS]> {
        let number = frame_number(descriptor)?.wrapping_add(self.offsets.at(sequence)?);
        match &mut self.newest {
            Some((newest, highest)) if sequence > *newest => {
                *newest = sequence;
                raise(highest, number); // it may be late, and a frame after it left out
            }
            Some(_) => {}
            None => self.newest = Some((sequence, number)),
        }
        let [high, low] = number.to_be_bytes();
        Some([*descriptor.first()?, high, low])
    }
}

/// To a number that is ahead, and no other.
fn raise(highest: &mut u16, number: u16) {
    if number.wrapping_sub(*highest) < 1 << 15 {
        *highest = number;
    }
}

fn frame_number(descriptor: &[u8]) -> Option<u16> {
    descriptor.get(1..3)?.try_into().ok().map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(number: u16) -> [u8; 5] {
        let [high, low] = number.to_be_bytes();
        [0xc5, high, low, 0x80, 0x01]
    }

    #[test]
    fn a_single_encoding_is_passed_as_it_is() {
        let mut numbers = FrameNumbers::default();
        numbers.start(100, &descriptor(65_535));
        assert_eq!(numbers.forward(100, &descriptor(65_535)), Some([0xc5, 0xff, 0xff]));
        assert_eq!(
            numbers.forward(101, &descriptor(1)),
            Some([0xc5, 0, 1]),
            "frames left out leave their number out"
        );
    }

    #[test]
    fn numbers_go_on_across_a_switch_and_late_packets_keep_theirs() {
        let mut numbers = FrameNumbers::default();
        numbers.start(100, &descriptor(65_535));
        numbers.forward(100, &descriptor(65_535));
        numbers.start(102, &descriptor(700));
        assert_eq!(numbers.forward(102, &descriptor(700)), Some([0xc5, 0, 0]));
        assert_eq!(numbers.forward(101, &descriptor(65_535)), Some([0xc5, 0xff, 0xff]));
        assert_eq!(numbers.forward(103, &descriptor(702)), Some([0xc5, 0, 2]));
    }

    #[test]
    fn a_switch_leaves_the_numbers_of_what_may_come_late_free() {
        let mut numbers = FrameNumbers::default();
        numbers.start(100, &descriptor(65_534));
        numbers.forward(100, &descriptor(65_534));
        numbers.drop(&descriptor(1)); // 65,535 and 0 are lost
        assert_eq!(numbers.forward(101, &descriptor(65_535)), Some([0xc5, 0xff, 0xff]));
        numbers.start(103, &descriptor(700));
        assert_eq!(numbers.forward(102, &descriptor(0)), Some([0xc5, 0, 0]));
        assert_eq!(numbers.forward(103, &descriptor(700)), Some([0xc5, 0, 2]));
    }

    #[test]
    fn a_short_descriptor_has_no_rewrite() {
        let mut numbers = FrameNumbers::default();
        numbers.start(100, &[]);
        assert_eq!(numbers.forward(100, &[0xc5, 1]), None);
    }
}
