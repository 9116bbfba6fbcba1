//! Packets in the order of their sequence numbers, waiting a while for those missing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rtc::rtp::Packet;

/// Time enough for some retransmissions on any line that the suite makes.
const PATIENCE: Duration = Duration::from_millis(400);
/// More than any line holds back in that time.
const MOST_WAITING: usize = 2048;

#[derive(Default)]
pub struct Order {
    next: Option<u64>,
    waiting: BTreeMap<u64, (Instant, Packet)>,
    pub lost: u64,
    pub duplicates: u64,
}

/// The next packet, and how many before it never came.
pub struct Next {
    pub packet: Packet,
    pub missing: u64,
}

impl Order {
    pub fn put(&mut self, now: Instant, packet: Packet) {
        let number = packet.header.sequence_number;
        // The first lies in the second cycle, so that what overtook has a place before it.
        let next = *self.next.get_or_insert(0x1_0000 | u64::from(number));
        let ahead = number.wrapping_sub(next as u16) as i16;
        let Some(place) = next.checked_add_signed(ahead.into()).filter(|place| *place >= next) else {
            self.duplicates += 1;
            return;
        };
        if self.waiting.insert(place, (now, packet)).is_some() {
            self.duplicates += 1;
        }
    }

    pub fn take(&mut self, now: Instant) -> Option<Next> {
        let next = self.next?;
        let (place, (since, _)) = self.waiting.first_key_value()?;
        let missing = place - next;
        if missing > 0 && now < *since + PATIENCE && self.waiting.len() < MOST_WAITING {
            return None;
        }
        let (place, (_, packet)) = self.waiting.pop_first()?;
        self.next = Some(place + 1);
        self.lost += missing;
        Some(Next { packet, missing })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(order: &mut Order, now: Instant) -> Vec<(u16, u64)> {
        std::iter::from_fn(|| order.take(now))
            .map(|next| (next.packet.header.sequence_number, next.missing))
            .collect()
    }

    #[expect(clippy::disallowed_methods, reason = "any instant serves")]
    fn now() -> Instant {
        Instant::now()
    }

    fn put(order: &mut Order, now: Instant, numbers: &[u16]) {
        for number in numbers {
            let mut packet = Packet::default();
            packet.header.sequence_number = *number;
            order.put(now, packet);
        }
    }

    #[test]
    fn waits_for_what_is_missing_and_then_no_longer() {
        let (mut order, now) = (Order::default(), now());
        put(&mut order, now, &[65534, 65535, 1, 2]);
        assert_eq!(numbers(&mut order, now), [(65534, 0), (65535, 0)]);
        put(&mut order, now, &[0, 4]);
        assert_eq!(numbers(&mut order, now), [(0, 0), (1, 0), (2, 0)]);
        assert_eq!(numbers(&mut order, now + PATIENCE), [(4, 1)]);
        put(&mut order, now, &[3, 4, 5]);
        assert_eq!(numbers(&mut order, now), [(5, 0)]);
        assert_eq!((order.lost, order.duplicates), (1, 2));
    }
}
