//! What waits for a peer's line leaves at its pace, and what comes back about it is heard.

use std::time::Instant;

use weir_rate::{BitRate, Time};
use weir_rtp::rtcp::TransportFeedback;

use super::forward::{offer_from_ring, resend_from_ring};
use super::timeouts::TICK;
use super::{Model, Shard};
use crate::downlink::{Downlink, MAX_WAITING, Waiting};
use crate::publication::Publication;
use crate::stats::Drop;
use crate::subscription::{Outcome, Subscription};

/// Packets of one peer that leave in one turn: what fits into the arena beside others.
const MAX_TURN: usize = 64;

impl Shard {
    pub(super) fn handle_transport_feedback(
        &mut self,
        now: Instant,
        index: u32,
        feedback: &TransportFeedback<'_>,
    ) {
        let time = self.time(now);
        let Some(line) = &mut self.model.peers[index as usize].downlink else { return };
        line.on_feedback(time, feedback);
        self.allocate_again(now, index);
        self.arm_line(now, index);
    }

    /// A peer's own estimate of its line. It counts where there is no better feedback.
    pub(super) fn handle_estimate(&mut self, now: Instant, index: u32, bps: u64) {
        let time = self.time(now);
        let peer = &mut self.model.peers[index as usize];
        if !self.rate_control || peer.senders.is_empty() {
            return;
        }
        let estimate = BitRate::from_bps(bps);
        match &mut peer.downlink {
            Some(line) => line.on_estimate(time, estimate),
            None => peer.downlink = Some(Box::new(Downlink::of_estimate(time, estimate))),
        }
        self.allocate_again(now, index);
        self.arm_line(now, index);
    }

    /// What a peer's line is due: packets that waited, probes, and an estimate that goes down in silence.
    pub(super) fn handle_line_timeout(&mut self, now: Instant, index: u32) -> Option<Instant> {
        let time = self.time(now);
        self.model.peers[index as usize].downlink.as_mut()?.handle_timeout(time);
        self.allocate_again(now, index);
        self.send_waiting(now, index);
        self.send_probes(now, index);
        let next = self.model.peers[index as usize].downlink.as_mut()?.sooner(time);
        next.map(|at| at.after(self.epoch))
    }

    /// Makes sure that the line is looked at in time.
    pub(super) fn arm_line(&mut self, now: Instant, index: u32) {
        let time = self.time(now);
        let line = self.model.peers[index as usize].downlink.as_mut();
        if let Some(at) = line.and_then(|line| line.sooner(time)) {
            self.arm_peer(index, at.after(self.epoch).max(now + TICK));
        }
    }

    pub(super) fn send_waiting(&mut self, now: Instant, index: u32) {
        let time = self.time(now);
        let Self { model, out, .. } = self;
        let Model { peers, publications, subscriptions, .. } = model;
        let peer = &mut peers[index as usize];
        for _ in 0..MAX_TURN {
            if !out.egress.has_room_for(1) {
                return;
            }
            if let Some((at, number)) = peer.downlink.as_mut().and_then(|line| line.take_due_again(time)) {
                let subscription = &mut subscriptions[at as usize];
                let publication = &publications[subscription.publication as usize];
                let Some(mut way) = peer.way(time) else { return };
                resend_from_ring(now, publication, number, subscription, &mut way, out);
                continue;
            }
            let Some(name) = peer.downlink.as_mut().and_then(|line| line.take_due(time)) else { return };
            let subscription = &mut subscriptions[name.subscription as usize];
            if Downlink::is_stale(&name, time) {
                out.stats.drop(Drop::LineFull);
                tracing::debug!(subscription = %subscription.id, "waited too long for the line: goes on with a key frame");
                subscription.restart();
                continue;
            }
            if name.begins {
                tracing::debug!(subscription = %subscription.id, encoding = name.encoding, "a key frame made what waited needless");
                subscription.restart();
            }
            let Some(mut way) = peer.way(time) else { return };
            let publication = &publications[subscription.publication as usize];
            let had_started = subscription.started;
            match offer_from_ring(now, publication, name.encoding, name.sequence, subscription, &mut way, out)
            {
                Some(Outcome::Started) => {
                    follow_in_turn(way.time, publication, &name, subscription, way.line)
                }
                Some(_) => {}
                None => subscription.skip(name.encoding, name.sequence),
            }
            if subscription.started && !had_started {
                peer.reported.push(name.subscription);
            }
        }
    }

    /// Padding that a probe is due.
    fn send_probes(&mut self, now: Instant, index: u32) {
        let time = self.time(now);
        let Self { model, out, .. } = self;
        let Model { peers, subscriptions, .. } = model;
        let peer = &mut peers[index as usize];
        for at in 0..peer.senders.len() {
            let (ssrc, subscription) = peer.senders[at];
            let subscription = &mut subscriptions[subscription as usize];
            if subscription.ssrc() != ssrc {
                continue; // its retransmission stream
            }
            for _ in 0..MAX_TURN {
                let Some(bytes) = peer.downlink.as_mut().and_then(|line| line.padding(time)) else { return };
                let Some(mut way) = peer.way(time) else { return };
                if !out.egress.has_room_for(1) || !subscription.probe(now, bytes, &mut way, &mut out.egress) {
                    break;
                }
                out.stats.probes += 1;
            }
        }
    }
}

/// A stretch began with a packet that waited. Those that had overtaken it take their turns after it, from the ring. Where
/// they cannot, it goes on with a key frame.
fn follow_in_turn(
    now: Time,
    publication: &Publication,
    first: &Waiting,
    subscription: &mut Subscription,
    line: Option<&mut Downlink>,
) {
    let ring = &publication.encodings[usize::from(first.encoding)].ring;
    let (Some(line), Some(latest)) = (line, ring.latest()) else { return };
    // Under another SSRC numbers go on far above: not all between are looked at.
    if latest - first.sequence >= MAX_WAITING as u64 {
        subscription.restart();
        return;
    }
    let kept = (first.sequence + 1..=latest).filter_map(|sequence| ring.get(sequence));
    let names = kept.map(|packet| Waiting {
        sequence: packet.meta.sequence,
        timestamp: packet.meta.timestamp,
        begins: false,
        since: now,
        ..*first
    });
    match line.wait_first(first, names) {
        true => subscription.offer_anew(first.encoding),
        false => subscription.restart(),
    }
}
