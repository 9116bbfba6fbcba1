//! Packets that left together, and how the distance between such groups changed on the way.

/// Packets sent within this time are one group: what a sender lets go at once says nothing about the line between.
const BURST: i64 = 5_000;
/// Packets that arrive this close together although they were sent apart waited for each other somewhere, as behind
/// a radio that sleeps; they are one group too, up to [`MAX_BURST`].
const ARRIVAL_BURST: i64 = 5_000;
const MAX_BURST: i64 = 100_000;

/// Packets that left within [`BURST`]. All times in microseconds.
#[derive(Clone, Copy, Debug)]
struct Group {
    first_sent: i64,
    last_sent: i64,
    first_arrived: i64,
    last_arrived: i64,
}

/// From one group to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupDelta {
    pub sent: i64,
    pub arrived: i64,
    /// When the later group had arrived, on the receiver's clock.
    pub at: i64,
}

/// Turns packets into [`GroupDelta`]s.
#[derive(Debug, Default)]
pub struct Grouping {
    current: Option<Group>,
    /// When the last packet of the group before was sent, and arrived.
    previous: Option<(i64, i64)>,
}

impl Grouping {
    /// Takes a packet that arrived; packets come in the order of sending. A packet that begins a group completes the
    /// one before.
    pub fn add(&mut self, sent: i64, arrived: i64) -> Option<GroupDelta> {
        let fresh =
            Group { first_sent: sent, last_sent: sent, first_arrived: arrived, last_arrived: arrived };
        let Some(current) = &mut self.current else {
            self.current = Some(fresh);
            return None;
        };
        if sent < current.first_sent {
            return None; // from a group that is complete
        }
        if current.takes(sent, arrived) {
            current.last_sent = current.last_sent.max(sent);
            current.last_arrived = current.last_arrived.max(arrived);
            return None;
        }
        let complete = *current;
        *current = fresh;
        let last = (complete.last_sent, complete.last_arrived);
        let Some(previous) = self.previous else {
            self.previous = Some(last);
            return None;
        };
        let arrived = last.1 - previous.1;
        if arrived < 0 {
            // Its predecessor was overtaken. The next group is compared with that one, so that nothing is counted as
            // delay that the overtaking made up for.
            return None;
        }
        self.previous = Some(last);
        Some(GroupDelta { sent: last.0 - previous.0, arrived, at: last.1 })
    }
}

impl Group {
    fn takes(&self, sent: i64, arrived: i64) -> bool {
        if sent - self.first_sent <= BURST {
            return true;
        }
        let (apart, came_apart) = (sent - self.last_sent, arrived - self.last_arrived);
        (0..=ARRIVAL_BURST).contains(&came_apart)
            && came_apart < apart
            && arrived - self.first_arrived < MAX_BURST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_are_one_group() {
        let mut grouping = Grouping::default();
        let mut deltas = Vec::new();
        for frame in 0..4 {
            for packet in 0..3 {
                let sent = frame * 33_000 + packet * 1_000;
                deltas.extend(grouping.add(sent, 50_000 + sent + frame * 2_000));
            }
        }
        assert_eq!(deltas.len(), 2);
        assert!(deltas.iter().all(|delta| delta.sent == 33_000 && delta.arrived == 35_000), "{deltas:?}");
    }

    #[test]
    fn what_waited_together_is_one_group() {
        let mut grouping = Grouping::default();
        assert_eq!(grouping.add(0, 50_000), None);
        assert_eq!(grouping.add(20_000, 110_000), None);
        // held back until 110 ms, then released at once
        assert_eq!(grouping.add(40_000, 110_500), None);
        assert_eq!(grouping.add(60_000, 111_000), None);
        let delta = grouping.add(80_000, 130_000).expect("the burst is complete");
        assert_eq!(delta, GroupDelta { sent: 60_000, arrived: 61_000, at: 111_000 });
    }

    #[test]
    fn overtaking_says_nothing() {
        let mut grouping = Grouping::default();
        grouping.add(0, 50_000);
        grouping.add(20_000, 70_000);
        assert_eq!(grouping.add(10_000, 71_000), None, "late by a group");
        assert!(grouping.add(40_000, 60_000).is_some(), "the two first groups");
        assert_eq!(grouping.add(60_000, 110_000), None, "the third came before the second");
    }
}
