//! A picture at once for somebody who begins to watch: the newest key frame and what followed it, from the ring.

use std::time::{Duration, Instant};

use super::forward::offer_from_ring;
use super::{Model, Shard};
use crate::downlink::Waiting;
use crate::publication::Publication;
use crate::ring::PacketMeta;

/// The most packets that one peer is replayed in a [`WINDOW`]. A Linux socket with the buffer it is born with holds some
/// 90 packets, and clients are busy with other things while they join: a burst of more is lost at the very end of its
/// way, besides flooding a thin line. Whoever gets no replay gets a key frame that is asked for, a round trip later.
pub(super) const MAX_REPLAY: usize = 48;
const WINDOW: Duration = Duration::from_millis(250);
/// Where a pacer spreads it, a replay may be longer: with what waits already it must pass the line within this. Longer is no picture at once, and
/// a publisher that is asked for a key frame has mostly sent one by then, which ends the replay.
const PACED: Duration = Duration::from_millis(3_500);
const MAX_PACED: usize = 512;
/// The same while nobody knows what the line carries, others may join behind it at the same moment, each with a replay, and
/// the publisher may yet answer the request for a key frame.
const GUESSED: Duration = Duration::from_millis(250);

/// A stretch of an encoding, all of which the ring may still hold.
struct Replay {
    encoding: u8,
    first: u64,
    packets: usize,
}

impl Shard {
    /// Sends the newest picture that is kept and what followed it, if the subscription waits for one: at once where
    /// nothing is known of the line, else as the line takes it.
    pub(super) fn replay(&mut self, now: Instant, index: u32) {
        let time = self.time(now);
        let Self { model, out, .. } = self;
        let Model { peers, publications, subscriptions, .. } = model;
        let subscription = &mut subscriptions[index as usize];
        let publication = &publications[subscription.publication as usize];
        let owner = subscription.peer;
        let peer = &mut peers[owner as usize];
        let line = peer.downlink.as_mut().and_then(|line| Some((line.available(time)?, line)));
        if let Some((rate, line)) = line {
            let Some(wanted) = subscription.wants_key_frame() else { return };
            let is_ignored = publication.encodings[usize::from(wanted)].key_frames.is_ignored(now);
            let within = if line.is_guess(time) && !is_ignored { GUESSED } else { PACED };
            // A lesser picture is better than none, if no key frame of the right one seems to come.
            let least = if is_ignored && subscription.encoding().is_none() { 0 } else { wanted };
            let replays = (least..=wanted)
                .rev()
                .filter_map(|encoding| replayable(now, publication, encoding, MAX_PACED));
            let mut replays = replays.take_while(|replay| !line.holds(index, replay.encoding, replay.first));
            // Without its tail it would be no picture that others can follow.
            let passes = |replay: &Replay| {
                let bytes = replay.bytes(publication) as u64;
                rate.time_for(bytes + line.backlog()) <= within && line.has_room_for(replay.packets)
            };
            let Some(replay) = replays.find(passes) else { return };
            let Replay { encoding, first, packets } = replay;
            let ring = &publication.encodings[usize::from(encoding)].ring;
            let numbers = first..first + packets as u64;
            let bytes = replay.bytes(publication);
            line.forget_all_but_begun(index, subscription);
            subscription.offer_anew(encoding);
            tracing::debug!(subscription = %subscription.id, encoding, packets, bytes, "replays");
            for packet in numbers.filter_map(|sequence| ring.get(sequence)) {
                let PacketMeta { sequence, timestamp, .. } = packet.meta;
                line.wait(Waiting {
                    subscription: index,
                    encoding,
                    sequence,
                    timestamp,
                    begins: false,
                    since: time,
                });
            }
            self.send_waiting(now, owner);
            self.arm_line(now, owner);
            return;
        }
        if let Some(Replay { encoding, first, packets }) = subscription
            .wants_key_frame()
            .and_then(|encoding| replayable(now, publication, encoding, MAX_REPLAY))
            && out.egress.has_room_for(packets)
            && peer.replays.take(now, packets)
            && let Some(mut way) = peer.way(time)
        {
            let had_started = subscription.started;
            for sequence in (first..).take(packets) {
                offer_from_ring(now, publication, encoding, sequence, subscription, &mut way, out);
            }
            if subscription.started && !had_started {
                peer.reported.push(index);
            }
        }
    }
}

/// The stretch of an encoding that can be replayed.
fn replayable(now: Instant, publication: &Publication, encoding: u8, most: usize) -> Option<Replay> {
    let state = publication.encodings.get(usize::from(encoding))?;
    let (first, latest) = (state.ring.last_key_frame()?, state.ring.latest()?);
    let packets = usize::try_from(latest - first).ok()?.checked_add(1)?;
    (packets <= most && state.activity.is_active(now)).then_some(Replay { encoding, first, packets })
}

impl Replay {
    /// What of it the ring holds, in bytes.
    fn bytes(&self, publication: &Publication) -> usize {
        let ring = &publication.encodings[usize::from(self.encoding)].ring;
        let numbers = self.first..self.first + self.packets as u64;
        numbers.filter_map(|sequence| ring.get(sequence)).map(|packet| packet.payload.len()).sum()
    }
}

/// What a peer may still be replayed.
#[derive(Debug, Default)]
pub(crate) struct ReplayBudget {
    since: Option<Instant>,
    spent: usize,
}

impl ReplayBudget {
    /// Takes so many packets, all or none.
    pub fn take(&mut self, now: Instant, packets: usize) -> bool {
        if self.since.is_none_or(|since| now >= since + WINDOW) {
            *self = Self { since: Some(now), spent: 0 };
        }
        let granted = self.spent + packets <= MAX_REPLAY;
        if granted {
            self.spent += packets;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_whole_or_not_and_comes_back_after_the_window() {
        let now = crate::testing::start();
        let mut budget = ReplayBudget::default();
        assert!(budget.take(now, MAX_REPLAY - 10));
        assert!(!budget.take(now, 11));
        assert!(budget.take(now, 10), "what was refused was not spent");
        assert!(!budget.take(now + WINDOW - Duration::from_millis(1), 1));
        assert!(budget.take(now + WINDOW, MAX_REPLAY));
    }
}
