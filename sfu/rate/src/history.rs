//! What was sent, until feedback says what became of it.

use crate::ClusterId;

/// At 5,000 packets a second 1.6 s: feedback that comes later than that tells nothing new.
pub const MAX_SENT: usize = 8_192;
/// Few at first: what turns round in little memory is still near when feedback asks for it.
const FIRST_SENT: usize = 16;
/// The transport-wide number of the first packet.
pub const FIRST_NUMBER: u16 = 1;

/// A packet younger than this whose fate is unknown is worth memory; an older one may be forgotten.
const WORTH_KEEPING: i64 = 1_500_000;

/// What is known of a packet's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing was sent under this number, or it is too long ago.
    Forgotten,
    Unknown,
    Lost,
    Received,
}

/// A packet that left.
#[derive(Clone, Copy, Debug)]
pub struct SentPacket {
    /// In microseconds since the estimator began.
    pub sent: i64,
    pub bytes: u16,
    pub cluster: Option<ClusterId>,
    pub fate: Fate,
}

/// The newest packets by transport-wide sequence number.
///
/// Owns no memory before the first packet, and grows only while packets wait for feedback. Bound: [`MAX_SENT`].
#[derive(Debug)]
pub struct SentHistory {
    /// By number modulo its length, a power of two.
    slots: Box<[SentPacket]>,
    next: u64,
}

const EMPTY: SentPacket = SentPacket { sent: 0, bytes: 0, cluster: None, fate: Fate::Forgotten };

impl SentHistory {
    pub fn new() -> Self {
        Self { slots: Box::default(), next: FIRST_NUMBER.into() }
    }

    /// Notes a packet and gives it its number.
    #[inline]
    pub fn push(&mut self, sent: i64, bytes: u16, cluster: Option<ClusterId>) -> u16 {
        let index = self.index(self.next);
        let has_room = self.slots.get(index).is_some_and(|oldest| {
            oldest.fate != Fate::Unknown
                || sent - oldest.sent >= WORTH_KEEPING
                || self.slots.len() == MAX_SENT
        });
        if !has_room {
            self.grow();
        }
        let (sequence, index) = (self.next, self.index(self.next));
        self.slots[index] = SentPacket { sent, bytes, cluster, fate: Fate::Unknown };
        self.next += 1;
        sequence as u16
    }

    /// How many packets it was told of.
    pub fn pushed(&self) -> u64 {
        self.next - u64::from(FIRST_NUMBER)
    }

    /// The packet with this number on the wire. A number that was never sent looks like one from long ago, which is
    /// not here either.
    pub fn find(&mut self, wire: u16) -> Option<&mut SentPacket> {
        let newest = self.next - 1;
        let age = (newest as u16).wrapping_sub(wire);
        let index = self.index(newest.checked_sub(age.into())?);
        let is_here = usize::from(age) < self.slots.len();
        self.slots.get_mut(index).filter(|packet| is_here && packet.fate != Fate::Forgotten)
    }

    /// When the newest packet left.
    pub fn newest(&self) -> Option<i64> {
        let newest = self.slots.get(self.index(self.next - 1))?;
        (newest.fate != Fate::Forgotten).then_some(newest.sent)
    }

    fn index(&self, sequence: u64) -> usize {
        sequence as usize & self.slots.len().wrapping_sub(1)
    }

    #[cold]
    fn grow(&mut self) {
        let before = std::mem::take(&mut self.slots);
        self.slots = vec![EMPTY; (before.len() * 2).max(FIRST_SENT)].into_boxed_slice();
        for sequence in self.next.saturating_sub(before.len() as u64)..self.next {
            self.slots[self.index(sequence)] = before[sequence as usize & (before.len() - 1)];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_sent_and_nothing_else() {
        let mut history = SentHistory::new();
        assert!(history.find(0).is_none());
        for packet in 0..200_000_i64 {
            let wire = history.push(packet * 1_000, 100, None);
            let found = history.find(wire).expect("it was just sent");
            assert_eq!(found.sent, packet * 1_000);
            found.fate = Fate::Received;
            assert!(history.find(wire.wrapping_add(1)).is_none(), "a future number");
            assert!(history.find(wire.wrapping_add(30_000)).is_none(), "an absurd number");
        }
        assert_eq!(history.slots.len(), FIRST_SENT, "what was answered needs no room");
    }

    #[test]
    fn silence_costs_bounded_memory() {
        let mut history = SentHistory::new();
        for packet in 0..100_000 {
            history.push(packet * 10, 100, None);
        }
        assert_eq!(history.slots.len(), MAX_SENT);
        let mut slow = SentHistory::new();
        for packet in 0..100_000 {
            slow.push(packet * 20_000, 100, None);
        }
        assert_eq!(slow.slots.len(), 128, "old packets make room: 75 are young");
    }

    #[test]
    fn growing_forgets_nothing() {
        let mut history = SentHistory::new();
        let wires: Vec<_> = (0..5_000).map(|packet| (packet, history.push(packet, 1, None))).collect();
        for (sent, wire) in wires {
            assert_eq!(history.find(wire).map(|packet| packet.sent), Some(sent));
        }
    }
}
