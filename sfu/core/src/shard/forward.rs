//! A packet's way out: to every subscriber that wants it, subscriber by subscriber, so that runs form.

use std::time::Instant;

use weir_rate::Time;
use weir_units::event::Event;
use weir_units::media::{Codec, Layer};

use super::replay::MAX_REPLAY;
use super::timeouts::TICK;
use super::{Cursor, Model, Outbox, Pending, Shard};
use crate::downlink::{Downlink, Waiting};
use crate::egress::{ARENA_BYTES, MAX_DATAGRAM, MAX_RUNS};
use crate::offer::{Offer, facts};
use crate::publication::Publication;
use crate::stats::Drop;
use crate::subscription::{Outcome, Subscription, Way};
use crate::timers::TimerKey;

/// By how much packets may be padded to leave in one run. libwebrtc splits a frame into packets that differ by one
/// byte; a little more catches codecs that don't. More would spend bytes that a thin line needs.
const MAX_PADDING: usize = 4;
/// Packets of a publication that go to one subscriber before the next has its turn. With a replay on top they fit into
/// an empty arena, so a batch of any size loses nothing; fewer would cut runs short.
const MAX_GROUP: usize = 128;
const _: () = assert!((MAX_GROUP + MAX_REPLAY) * MAX_DATAGRAM <= ARENA_BYTES);
const _: () = assert!(MAX_GROUP + MAX_REPLAY <= MAX_RUNS);

impl Shard {
    /// Forwards what the batch brought. Says whether something is left because the arena is full: send, clear, and
    /// call again.
    pub fn flush(&mut self, now: Instant) -> bool {
        if self.start_waiting(now) {
            return true;
        }
        let time = self.time(now);
        if !self.cursor.sorted {
            self.pending.sort_unstable_by_key(|packet| (packet.publication, packet.encoding, packet.order));
            self.cursor = Cursor { sorted: true, ..Cursor::default() };
        }
        while let Some(first) = self.pending.get(self.cursor.group) {
            let index = first.publication;
            let rest = &mut self.pending[self.cursor.group..];
            let len = rest.iter().take_while(|packet| packet.publication == index).take(MAX_GROUP).count();
            let group = &mut rest[..len];
            if let Some(publication) = self.model.publications.get(index as usize) {
                let room = len + longest_replay(group);
                if self.cursor.subscriber == 0 {
                    plan_padding(publication, group);
                }
                while let Some(&at) = publication.subscribers.get(self.cursor.subscriber) {
                    let egress = &self.out.egress;
                    if egress.is_worth_sending() || !egress.has_room_for(room) && !egress.is_empty() {
                        return true;
                    }
                    self.cursor.subscriber += 1;
                    let subscription = &mut self.model.subscriptions[at as usize];
                    let peer_index = subscription.peer;
                    let peer = &mut self.model.peers[peer_index as usize];
                    let Some(mut way) = peer.way(time) else { continue };
                    let had_started = subscription.started;
                    forward_group(now, publication, group, (at, subscription), &mut way, &mut self.out);
                    let due = way.line.map_or(Time::NEVER, |line| line.next_turn(time));
                    if due < Time::NEVER {
                        let due = due.after(self.epoch).max(now + TICK);
                        self.out.timers.arm(&mut peer.alarm, TimerKey::Peer(peer_index), due);
                    }
                    if subscription.started && !had_started {
                        peer.reported.push(at);
                    }
                    let wish = subscription.wants_key_frame();
                    self.cursor.wishes |= wish.map_or(0, |encoding| 1 << encoding);
                }
                self.cursor.subscriber = 0;
            }
            self.cursor.group += len;
            let wishes = std::mem::take(&mut self.cursor.wishes);
            self.wish_for_key_frames(now, index, wishes);
        }
        self.pending.clear();
        self.cursor = Cursor::default();
        false
    }

    /// The peer is connected, or the wish turned on: what can be sent at once, is.
    pub(super) fn start_subscription(&mut self, now: Instant, index: u32) {
        self.retarget(now, index);
        let subscription = &self.model.subscriptions[index as usize];
        let source = subscription.publication;
        if self.model.publications[source as usize].is_video()
            && subscription.wish.enabled
            && self.model.peers[subscription.peer as usize].is_connected()
        {
            self.replay(now, index);
            self.note_key_frame_wishes(now, source);
        }
    }

    /// All subscriptions of a peer are to start with the next flush: their replays may need the arena several times.
    pub(super) fn start_subscriptions_of(&mut self, now: Instant, peer: u32) {
        self.allocate(now, peer);
        for &(ssrc, subscription) in &self.model.peers[peer as usize].senders {
            if self.model.subscriptions[subscription as usize].ssrc() == ssrc {
                self.starting.push(subscription);
            }
        }
    }

    /// Starts what is to start. Says whether something is left for want of room.
    fn start_waiting(&mut self, now: Instant) -> bool {
        while let Some(subscription) = self.starting.pop() {
            if !self.out.egress.has_room_for(MAX_REPLAY + 1) && !self.out.egress.is_empty() {
                self.starting.push(subscription);
                return true;
            }
            // It may have gone between the batch and its flush.
            if self.model.subscriptions.contains(subscription as usize) {
                self.start_subscription(now, subscription);
            }
        }
        false
    }

    /// What the subscription aims for, given what it wishes and what is being sent.
    pub(super) fn retarget(&mut self, now: Instant, index: u32) {
        self.look_at_layers(now, self.model.subscriptions[index as usize].publication);
        self.model.aim(index);
    }

    /// Looks at which encodings still flow, and moves subscribers off those that don't.
    pub(super) fn look_at_layers(&mut self, now: Instant, index: u32) {
        let Model { publications, .. } = &mut self.model;
        let publication = &mut publications[index as usize];
        if publication.encodings.len() > 1 && publication.look_at_layers(now) {
            for at in 0..publication.subscribers.len() {
                let subscription = self.model.publications[index as usize].subscribers[at];
                self.model.aim(subscription);
            }
            self.model.end_ease(index);
        }
    }

    /// Asks for the key frames that subscribers of the publication wait for.
    pub(super) fn note_key_frame_wishes(&mut self, now: Instant, index: u32) {
        let Model { publications, subscriptions, peers, .. } = &self.model;
        let Some(publication) = publications.get(index as usize) else { return };
        // One that was never sent has nobody to ask.
        if !publication.is_video() || publication.encodings.iter().all(|encoding| encoding.ssrc.is_none()) {
            return;
        }
        let mut wishes = 0;
        for subscription in &publication.subscribers {
            let subscription = &subscriptions[*subscription as usize];
            if let Some(encoding) = subscription.wants_key_frame()
                && peers[subscription.peer as usize].is_connected()
            {
                wishes |= 1 << encoding;
            }
        }
        self.wish_for_key_frames(now, index, wishes);
    }

    /// Asks for key frames of the encodings whose bits are set.
    fn wish_for_key_frames(&mut self, now: Instant, index: u32, wishes: u8) {
        let Some(publication) = self.model.publications.get_mut(index as usize) else { return };
        if !publication.is_video() || publication.muted {
            return;
        }
        for (at, encoding) in publication.encodings.iter_mut().enumerate() {
            if wishes >> at & 1 == 1 {
                encoding.key_frames.want(now);
            }
        }
        self.request_key_frames(now, index);
    }

    /// What is to be looked at now and then: which encodings flow, who waits for a key frame, and whose picture stands
    /// still.
    pub(super) fn check_layers(&mut self, now: Instant, index: u32) {
        self.look_at_layers(now, index);
        let publication = &mut self.model.publications[index as usize];
        let moves = publication.has_moved();
        // Of a silent source there is nothing to miss. In a large call most are, each with as many subscribers as others.
        let is_silent =
            !moves && !publication.encodings.iter().any(|encoding| encoding.activity.is_active(now));
        let looked_at = if is_silent { 0 } else { publication.subscribers.len() };
        for at in 0..looked_at {
            let number = self.model.publications[index as usize].subscribers[at];
            let subscription = &mut self.model.subscriptions[number as usize];
            let peer = &self.model.peers[subscription.peer as usize];
            let is_due = subscription.started && subscription.granted.layer.is_some() && peer.is_connected();
            let stalls = subscription.standstill.look(subscription.sent.packets, is_due, moves);
            self.out.stats.stalls += u64::from(stalls);
            // Not every publisher answers requests for key frames.
            if peer.is_connected() && subscription.encoding().is_none() && peer.downlink.is_some() {
                self.replay(now, number);
            }
        }
        self.note_key_frame_wishes(now, index);
    }

    /// Sends packets again that a subscriber misses, now or as its line takes them.
    /// `left` is how many more packets the datagram that asks may ask for.
    pub(super) fn retransmit(
        &mut self,
        now: Instant,
        index: u32,
        lost: impl Iterator<Item = u16>,
        left: &mut usize,
    ) {
        let time = self.time(now);
        let Self { model, out, .. } = self;
        let Model { peers, publications, subscriptions, .. } = model;
        let subscription = &mut subscriptions[index as usize];
        let publication = &publications[subscription.publication as usize];
        let owner = subscription.peer;
        let peer = &mut peers[owner as usize];
        let mut waits = false;
        for sequence_number in lost {
            let Some(fewer) = left.checked_sub(1) else { break };
            *left = fewer;
            if let Some(line) = peer.downlink.as_mut().filter(|line| !line.passes_again(time)) {
                // What another layer's key frame is about to make needless yields to all that waits.
                if !subscription.is_past(sequence_number) {
                    line.wait_again(index, sequence_number);
                    waits = true;
                }
                continue;
            }
            let Some(mut way) = peer.way(time) else { return };
            resend_from_ring(now, publication, sequence_number, subscription, &mut way, out);
        }
        if waits {
            self.arm_line(now, owner);
        }
    }
}

/// Sends a packet again by the number that it was sent under.
pub(super) fn resend_from_ring(
    now: Instant,
    publication: &Publication,
    sequence_number: u16,
    subscription: &mut Subscription,
    way: &mut Way<'_>,
    out: &mut Outbox,
) {
    let is_busy = way.line.as_ref().is_some_and(|line| !line.passes(way.time));
    if is_busy && subscription.is_past(sequence_number) {
        return;
    }
    let Some((number, encoding, ingress)) = subscription.source_of(now, sequence_number) else { return };
    match publication.offer(encoding, ingress, 0) {
        Some(mut offer) if subscription.is_open(number) && out.egress.has_room_for(1) => {
            // It came late, and waits or was not offered in its time. It fills its place; nothing begins with it.
            offer.facts.key_frame_start = false;
            let outcome = subscription.offer(now, &offer, &publication.encodings, way, &mut out.egress);
            out.stats.rtp_out += u64::from(outcome == Outcome::Sent);
        }
        _ if subscription.is_open(number) => {} // it is missing here, too
        Some(offer) if out.egress.has_room_for(1) => {
            if subscription.resend(&offer, number, way, &mut out.egress) {
                out.stats.retransmitted += 1;
            }
        }
        _ => out.stats.not_retransmittable += 1,
    }
}

/// Packets that one datagram may ask for: what a receiver could miss in a burst.
pub(super) const MAX_RESENDS: usize = 256;

impl Model {
    /// A publication costs another price: its viewers' lines are shared out with the next feedback.
    pub(super) fn end_ease(&mut self, publication: u32) {
        for subscription in &self.publications[publication as usize].subscribers {
            let peer = self.subscriptions[*subscription as usize].peer;
            self.peers[peer as usize].ease = None;
        }
    }

    /// Sets what a subscription aims for, given what it wishes and what flows.
    pub(super) fn aim(&mut self, index: u32) {
        let subscription = &mut self.subscriptions[index as usize];
        let publication = &self.publications[subscription.publication as usize];
        let granted = subscription.granted.layer.filter(|_| subscription.wish.enabled);
        subscription.set_target(granted.map(|layer| publication.reachable(layer)));
    }
}

impl Publication {
    /// A packet from the ring, with what selecting it needs.
    pub(super) fn offer(&self, encoding: u8, sequence: u64, padding: u8) -> Option<Offer<'_>> {
        let state = self.encodings.get(usize::from(encoding))?;
        let packet = state.ring.get(sequence)?;
        let codec = self.codec(packet.meta.payload_type)?;
        Some(Offer { facts: facts(encoding, state, &packet, codec), packet, codec, padding })
    }

    fn codec(&self, payload_type: u8) -> Option<Codec> {
        self.media
            .formats
            .iter()
            .find(|format| format.payload_type == payload_type)
            .map(|format| format.codec)
    }

    /// The layer nearest to the wanted one that is being sent: the best below it, else the least above it, else
    /// itself, since a publisher may begin at any time.
    pub(super) fn reachable(&self, wanted: Layer) -> Layer {
        if self.is_layered() || self.encodings.len() < 2 {
            return wanted;
        }
        let top = self.encodings.len() - 1;
        let wanted_index = usize::from(wanted.spatial).min(top);
        let flows = |at: &usize| self.flowing >> at & 1 == 1;
        let below = (0..=wanted_index).rev().find(flows);
        let above = (wanted_index + 1..=top).find(flows);
        Layer { spatial: below.or(above).unwrap_or(wanted_index) as u8, ..wanted }
    }
}

/// Offers the packets of a batch to one subscriber.
fn forward_group(
    now: Instant,
    publication: &Publication,
    group: &[Pending],
    (index, subscription): (u32, &mut Subscription),
    way: &mut Way<'_>,
    out: &mut Outbox,
) {
    let mut followed = None;
    for pending in group {
        if let Some(line) = way.line.as_deref_mut()
            && publication.is_video()
            && !line.passes(way.time)
        {
            if subscription.concerns(pending.encoding, pending.facts.timestamp) {
                wait(way.time, index, pending, subscription, line, out);
            } else {
                subscription.skip(pending.encoding, pending.sequence);
            }
            continue;
        }
        if followed.is_some_and(|(encoding, last)| pending.encoding == encoding && pending.sequence <= last) {
            continue;
        }
        let Some(state) = publication.encodings.get(usize::from(pending.encoding)) else { continue };
        let Some(packet) = state.ring.get(pending.sequence) else { continue };
        let mut facts = pending.facts;
        // Nobody can begin with what too many have overtaken: they would be missing.
        facts.key_frame_start &= pending.overtaken() <= MAX_REPLAY;
        let offer = Offer { packet, facts, codec: pending.codec, padding: pending.padding };
        match subscription.offer(now, &offer, &publication.encodings, way, &mut out.egress) {
            Outcome::NotSent => continue,
            Outcome::Sent => out.stats.rtp_out += 1,
            Outcome::Started => {
                out.stats.rtp_out += 1;
                followed = follow(now, publication, pending, subscription, way, out);
            }
        }
        note_started(publication, subscription, out);
    }
}

/// Lets a packet wait for its turn. Where too many do already, the subscription goes on with a key frame.
fn wait(
    now: Time,
    index: u32,
    pending: &Pending,
    subscription: &mut Subscription,
    line: &mut Downlink,
    out: &mut Outbox,
) {
    let Pending { encoding, sequence, .. } = *pending;
    let is_wanted = subscription.wants_key_frame().is_none_or(|wanted| wanted == encoding);
    let begins = pending.facts.key_frame_start && is_wanted && line.is_needless(index, encoding);
    if begins {
        line.forget_all_but_begun(index, subscription);
    }
    if pending.facts.key_frame_start {
        subscription.expect_key_frame(encoding);
    }
    let timestamp = pending.facts.timestamp;
    if !line.wait(Waiting { subscription: index, encoding, sequence, timestamp, begins, since: now }) {
        out.stats.drop(Drop::LineFull);
        tracing::debug!(subscription = %subscription.id, "too much waits for the line: goes on with a key frame");
        line.forget_all_but_begun(index, subscription);
        subscription.restart();
    }
}

impl Pending {
    /// By how many it had been overtaken when it came.
    fn overtaken(&self) -> usize {
        usize::try_from(self.latest.saturating_sub(self.sequence)).unwrap_or(usize::MAX)
    }
}

/// How many packets [`follow`] may add to a group for one subscriber.
fn longest_replay(group: &[Pending]) -> usize {
    let starts = group.iter().filter(|packet| packet.facts.key_frame_start);
    starts.map(Pending::overtaken).filter(|overtaken| *overtaken <= MAX_REPLAY).max().unwrap_or(0)
}

/// A stretch began with a packet that others had overtaken: they follow from the ring.
fn follow(
    now: Instant,
    publication: &Publication,
    first: &Pending,
    subscription: &mut Subscription,
    way: &mut Way<'_>,
    out: &mut Outbox,
) -> Option<(u8, u64)> {
    if first.overtaken() == 0 || !publication.is_video() {
        return None;
    }
    for sequence in first.sequence + 1..=first.latest {
        offer_from_ring(now, publication, first.encoding, sequence, subscription, way, out);
    }
    Some((first.encoding, first.latest))
}

/// What became of a packet, unless the ring has lost it.
pub(super) fn offer_from_ring(
    now: Instant,
    publication: &Publication,
    encoding: u8,
    sequence: u64,
    subscription: &mut Subscription,
    way: &mut Way<'_>,
    out: &mut Outbox,
) -> Option<Outcome> {
    let offer = publication.offer(encoding, sequence, 0)?;
    let outcome = subscription.offer(now, &offer, &publication.encodings, way, &mut out.egress);
    if outcome != Outcome::NotSent {
        out.stats.rtp_out += 1;
        note_started(publication, subscription, out);
    }
    Some(outcome)
}

fn note_started(publication: &Publication, subscription: &mut Subscription, out: &mut Outbox) {
    if !subscription.started {
        subscription.started = true;
        let event = Event::SubscriptionStarted { subscription: subscription.id };
        out.events.push_back((publication.conference_id, event));
    }
}

/// Makes neighbours equally long, where little is missing, so that they leave in one run. The last of a run may be
/// shorter anyway.
fn plan_padding(publication: &Publication, group: &mut [Pending]) {
    let len = |packet: &Pending| {
        let state = &publication.encodings[usize::from(packet.encoding)];
        state.ring.get(packet.sequence).map_or(0, |packet| {
            if packet.payload.is_empty() {
                0
            } else {
                packet.payload.len() + packet.dependency_descriptor.len()
            }
        })
    };
    let mut start = 0;
    while start < group.len() {
        let first = len(&group[start]);
        let (mut least, mut most, mut end) = (first, first, start + 1);
        while end < group.len() && group[end].encoding == group[start].encoding {
            let next = len(&group[end]);
            if first == 0 || most.max(next) - least.min(next) > MAX_PADDING {
                break;
            }
            (least, most, end) = (least.min(next), most.max(next), end + 1);
        }
        for packet in &mut group[start..end] {
            packet.padding = (most - len(packet)) as u8;
        }
        group[end - 1].padding = 0;
        start = end;
    }
}
