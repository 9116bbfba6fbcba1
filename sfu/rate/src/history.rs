//! What was sent, until feedback says what became of it.

use crate::ClusterId;

/// At 5,000 packets a second 1.6 s: feedback that comes later than that tells nothing new.
pub const MAX_SENT: usize = 8_192;
const FIRST_SENT: usize = 64;

/// A packet younger than this whose fate is unknown is worth memory; an older one may be forgotten.
const WORTH_KEEPING: i64 = 1_500_000;

/// What is known of a packet's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Unknown,
    Lost,
    Received,
}

/// A packet that left.
#[derive(Clone, Copy, Debug)]
pub struct SentPacket {
    sequence: u64,
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
    slots: Vec<SentPacket>,
    next: u64,
}

const EMPTY: SentPacket =
    SentPacket { sequence: u64::MAX, sent: 0, bytes: 0, cluster: None, fate: Fate::Received };

impl SentHistory {
    pub fn new() -> Self {
        Self { slots: Vec::new(), next: 1 }
    }

    /// Notes a packet and gives it its number.
    #[inline]
    pub fn push(&mut self, sent: i64, bytes: u16, cluster: Option<ClusterId>) -> u16 {
        if self.slots.is_empty() {
            self.slots.resize(FIRST_SENT, EMPTY);
        }
        let oldest = self.slots[self.index(self.next)];
        if oldest.fate == Fate::Unknown && sent - oldest.sent < WORTH_KEEPING && self.slots.len() < MAX_SENT {
            self.grow();
        }
        let (sequence, index) = (self.next, self.index(self.next));
        self.slots[index] = SentPacket { sequence, sent, bytes, cluster, fate: Fate::Unknown };
        self.next += 1;
        sequence as u16
    }

    /// The packet with this number on the wire. A number that was never sent looks like one from long ago, which is
    /// not here either.
    pub fn find(&mut self, wire: u16) -> Option<&mut SentPacket> {
        if self.slots.is_empty() {
            return None;
        }
        let newest = self.next - 1;
        let sequence = newest.checked_sub(u64::from((newest as u16).wrapping_sub(wire)))?;
        let index = self.index(sequence);
        Some(&mut self.slots[index]).filter(|slot| slot.sequence == sequence)
    }

    fn index(&self, sequence: u64) -> usize {
        (sequence & (self.slots.len() as u64 - 1)) as usize
    }

    fn grow(&mut self) {
        let mut slots = vec![EMPTY; self.slots.len() * 2];
        std::mem::swap(&mut slots, &mut self.slots);
        for slot in slots.into_iter().filter(|slot| slot.sequence != EMPTY.sequence) {
            let index = self.index(slot.sequence);
            self.slots[index] = slot;
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
        assert!(slow.slots.len() <= 2 * FIRST_SENT, "old packets make room: {}", slow.slots.len());
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
