//! What happens because time passes.

use std::time::{Duration, Instant};

use weir_units::event::{Event, PeerLostReason, Shortage};
use weir_units::ids::PublicationId;

use super::{Model, Outbox, Shard};
use crate::peer::{PEER_TIMEOUT, QUALITY_INTERVAL, REPORT_INTERVAL};
use crate::stats::Drop;
use crate::timers::TimerKey;

/// How often a publisher's encodings are looked at: which still flow. A subscriber of a layer that stopped stands
/// still for this long and a key frame.
const LAYER_CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// Timers are at least so far apart. Finer costs wake-ups and gains nothing on any line.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// What reports and feedback of one peer may take in the arena, in datagrams. All else looks for room itself.
const ROOM: usize = 64;

impl Shard {
    /// Does what is due, as long as there is room for what leaves; if more is ([`Self::poll_timeout`]), send and ask again.
    pub fn handle_timeout(&mut self, now: Instant) {
        while self.out.egress.has_room_for(ROOM)
            && let Some((at, key)) = self.out.timers.pop(now)
        {
            match key {
                TimerKey::Peer(index) => {
                    if self.model.peers.get_mut(index as usize).is_some_and(|peer| peer.alarm.take(at)) {
                        self.handle_peer_timeout(now, index);
                    }
                }
                TimerKey::Conference(index) => self.handle_conference_timeout(now, at, index),
            }
        }
    }

    fn handle_conference_timeout(&mut self, now: Instant, at: Instant, index: u32) {
        let Some(conference) = self.model.conferences.get_mut(index as usize) else { return };
        if !conference.alarm.take(at) {
            return;
        }
        if let Some(speakers) = conference.speakers.tick(now) {
            let speakers = speakers.to_vec();
            self.model.give_floor(now, index, &speakers);
            let conference = self.model.conferences[index as usize].id;
            self.out.events.push_back((conference, Event::Speakers { conference, speakers }));
        }
        let conference = &mut self.model.conferences[index as usize];
        if let Some(next) = conference.speakers.next_timeout() {
            self.out.timers.arm(&mut conference.alarm, TimerKey::Conference(index), next);
        }
    }

    fn handle_peer_timeout(&mut self, now: Instant, index: u32) {
        let peer = &mut self.model.peers[index as usize];
        if let Some(line) = &mut peer.downlink {
            line.on_alarm();
        }
        if peer.transport.poll_timeout().is_some_and(|at| at <= now) {
            peer.transport.handle_timeout(now);
            self.drain_transport(now, index);
        }
        self.note_pace(now, index);
        let peer = &self.model.peers[index as usize];
        let heard = peer.transport.last_heard().map_or(peer.last_heard, |at| at.max(peer.last_heard));
        if now >= heard + PEER_TIMEOUT {
            self.lose_peer(index, PeerLostReason::Timeout);
            return;
        }
        let mut next = heard + PEER_TIMEOUT;
        if peer.is_connected() {
            next = next.min(self.handle_media_timeout(now, index));
        }
        self.arm_peer(index, next.max(now + TICK));
        self.arm_transport(now, index);
    }

    /// Makes sure that a peer is looked at when its transport wants to be, or at the next tick when that has passed: a
    /// timer that stays in the past must not keep the shard in its loop.
    pub(super) fn arm_transport(&mut self, now: Instant, index: u32) {
        if let Some(at) = self.model.peers[index as usize].transport.poll_timeout() {
            self.arm_peer(index, at.max(now + TICK));
        }
    }

    /// RTCP that is due. Says when there is next some.
    fn handle_media_timeout(&mut self, now: Instant, index: u32) -> Instant {
        let peer = &mut self.model.peers[index as usize];
        if now >= peer.next_quality {
            peer.next_quality = now + QUALITY_INTERVAL;
            if peer.senders.is_empty() {
                peer.line.on_shared(Shortage::Little); // nothing is wished any more
            }
            // Waking the control plane to hear the same again was most of what idle peers cost it.
            if let Some(quality) = peer.line.take_news(peer.round_trip) {
                let event = Event::Quality { peer: peer.id, quality };
                self.tell(index, event);
            }
            for at in 0..self.model.peers[index as usize].publications.len() {
                let publication = self.model.peers[index as usize].publications[at];
                self.model.publications[publication as usize].forget_old(now);
            }
        }
        let peer = &mut self.model.peers[index as usize];
        let mut next = peer.next_quality;
        if peer.publications.is_empty() && peer.senders.is_empty() {
            return next;
        }
        if now >= peer.next_report {
            peer.next_report = now + REPORT_INTERVAL;
            self.send_reports(now, index);
        }
        let peer = &mut self.model.peers[index as usize];
        next = next.min(peer.next_report);
        if let Some(at) = peer.arrivals.next_timeout() {
            if at <= now {
                self.send_transport_feedback(now, index);
            }
            let arrivals = &self.model.peers[index as usize].arrivals;
            next = arrivals.next_timeout().map_or(next, |at| next.min(at));
        }
        if let Some(at) = self.handle_line_timeout(now, index) {
            next = next.min(at);
        }
        for at in 0..self.model.peers[index as usize].publications.len() {
            let publication = self.model.peers[index as usize].publications[at];
            next = next.min(self.handle_publication_timeout(now, index, publication));
        }
        next
    }

    fn handle_publication_timeout(&mut self, now: Instant, peer: u32, index: u32) -> Instant {
        let mut next = now + QUALITY_INTERVAL;
        let publication = &mut self.model.publications[index as usize];
        let is_watched = publication.is_video() && !publication.subscribers.is_empty() && !publication.muted;
        if is_watched {
            let look_at = publication.next_look.filter(|at| *at > now);
            next = look_at.unwrap_or(now + LAYER_CHECK_INTERVAL);
            if look_at.is_none() {
                publication.next_look = Some(next);
                self.check_layers(now, index);
            }
        }
        for encoding in 0..self.model.publications[index as usize].encodings.len() {
            self.nack_due(now, peer, index, encoding as u8);
            let entry = &self.model.publications[index as usize].encodings[encoding];
            let retry_at = entry.key_frames.retry_at().filter(|_| is_watched);
            for at in [entry.losses.next_timeout(), retry_at].into_iter().flatten() {
                next = next.min(at.max(now + TICK));
            }
        }
        next
    }

    pub(super) fn lose_peer(&mut self, index: u32, reason: PeerLostReason) {
        let peer = &mut self.model.peers[index as usize];
        if !peer.lost {
            peer.lost = true;
            let event = Event::PeerLost { peer: peer.id, reason };
            self.tell(index, event);
        }
    }

    /// Tells the control plane something about a peer.
    pub(super) fn tell(&mut self, peer: u32, event: Event) {
        let conference = self.model.peers[peer as usize].conference;
        self.out.events.push_back((self.model.conferences[conference as usize].id, event));
    }

    /// Makes sure that a peer is looked at no later than `at`.
    pub(super) fn arm_peer(&mut self, index: u32, at: Instant) {
        let peer = &mut self.model.peers[index as usize];
        self.out.timers.arm(&mut peer.alarm, TimerKey::Peer(index), at);
    }
}

impl Model {
    /// Notes whose pictures matter more now. They get their part when their viewers' lines are next shared out, a moment
    /// later; who is at ease (`Peer::ease`) has all of them anyway.
    fn give_floor(&mut self, now: Instant, conference: u32, speakers: &[(PublicationId, f32)]) {
        let Self { conferences, publications, publication_ids, peers, peer_ids, .. } = self;
        let owners = speakers.iter().filter_map(|(publication, _)| {
            let publication = &publications[*publication_ids.get(publication)? as usize];
            Some(peers[publication.peer as usize].id)
        });
        let turn = conferences[conference as usize].floor.on_speakers(now, owners);
        for (peer, has_floor) in turn.lost.into_iter().map(|peer| (peer, false)).chain([(turn.gained, true)])
        {
            if let Some(peer) = peer.and_then(|peer| peer_ids.get(&peer)) {
                peers[*peer as usize].has_floor = has_floor;
            }
        }
    }
}

impl Outbox {
    /// A packet of a transport itself. It is repeated by its protocol if there was no room.
    pub(super) fn push_control(&mut self, route: weir_transport::Route, bytes: &[u8]) {
        let pushed = self.egress.push(route, |space| match space.get_mut(..bytes.len()) {
            Some(space) => {
                space.copy_from_slice(bytes);
                bytes.len()
            }
            None => 0,
        });
        if pushed.is_none() {
            self.stats.drop(Drop::ArenaFull);
        }
    }
}
