//! Sharing out what a peer's line carries among its subscriptions.

use std::time::{Duration, Instant};

use weir_rate::BitRate;
use weir_units::event::{Event, Shortage};
use weir_units::media::Layer;

use super::{Model, Shard};
use crate::allocation::{Allocator, Budget, Claim, Costs, Grant, Importance, Ladder, Reason, share};
use crate::publication::Publication;
use crate::subscription::Subscription;

/// Feedback comes ten times a second and more; sharing out oftener would find the same.
const INTERVAL: Duration = Duration::from_millis(100);
/// The same while everybody has all that is wished and the line carries [`HEADROOM`] of it. More than that being sent, packets
/// that wait, or less that it carries, end the leisure at once.
const LEISURE: Duration = Duration::from_secs(4);
/// Sending more than this of what the line carries, there is no time to wait for a key frame: what does not fit ends now.
const HURRY: f64 = 1.25;
/// A ladder's worth of headroom that probes look for, so that a step up finds it proven.
const HEADROOM: f64 = 1.25;

/// What sharing out has changed, for want of room or because there was more.
#[derive(Default)]
struct Moves {
    rose: bool,
    fell: bool,
}

impl Shard {
    /// Shares out again, unless that was done a moment ago.
    pub(super) fn allocate_again(&mut self, now: Instant, peer: u32) {
        let time = self.time(now);
        let entry = &self.model.peers[peer as usize];
        let has_ease = entry.ease.zip(entry.downlink.as_ref()).is_some_and(|(wanted, line)| {
            line.is_at_ease(wanted) && line.available(time).is_some_and(|available| available >= wanted)
        });
        let interval = if has_ease { LEISURE } else { INTERVAL };
        if entry.allocated.is_none_or(|at| time >= at + interval) {
            self.allocate(now, peer);
        }
    }

    /// A wish is new or another.
    pub(super) fn allocate_for(&mut self, now: Instant, index: u32) {
        self.look_at_layers(now, self.model.subscriptions[index as usize].publication);
        let subscription = &mut self.model.subscriptions[index as usize];
        let peer = &self.model.peers[subscription.peer as usize];
        if peer.is_connected() && peer.downlink.is_some() {
            let owner = subscription.peer;
            self.allocate(now, owner);
        } else {
            subscription.granted = Grant::all_of(&subscription.wish);
        }
    }

    /// Shares out what the peer's line carries.
    pub(super) fn allocate(&mut self, now: Instant, index: u32) {
        if self.model.peers[index as usize].downlink.is_none() {
            return;
        }
        let time = self.time(now);
        self.allocator.claims.clear();
        let audio = self.model.collect_claims(now, index, &mut self.allocator);
        let peer = &mut self.model.peers[index as usize];
        peer.allocated = Some(time);
        let line = peer.downlink.as_ref();
        let available = line.and_then(|line| line.available(time));
        let beside_audio = |rate: Option<BitRate>| rate.map_or(u64::MAX, |rate| rate.minus(audio).bps());
        // A guess is good for everybody's least. Whoever climbs far on it sends as much as others who join at the same moment.
        let wished: u64 = self.allocator.claims.iter().filter_map(Claim::top_bps).sum();
        let wanted = BitRate::from_bps(wished).plus(audio).scaled(HEADROOM);
        let fits = available.is_some_and(|available| available >= wanted);
        let is_guess = !fits && line.is_some_and(|line| line.is_guess(time));
        let met = beside_audio(available.and(line).and_then(|line| line.met()));
        let budget = Budget {
            whole: beside_audio(available),
            met: if is_guess { 0 } else { met },
            failed: peer.standing.failed(now),
        };
        let sent: u64 = self.allocator.claims.iter().filter_map(sent_bps).sum();
        share(budget, &mut self.allocator.claims);
        let is_blind = !self.can_probe(now, index);
        let peer = &mut self.model.peers[index as usize];
        if peer.downlink.as_mut().is_some_and(|line| line.tries(time, is_blind)) {
            begin(&mut self.allocator.claims);
        }
        peer.line.on_shared(shortage(&self.allocator.claims, wished));
        let has_all = self.allocator.claims.iter().all(|claim| claim.granted == Some(claim.top));
        peer.ease = (fits && has_all && !self.allocator.expects_more).then_some(wanted);
        if let Some(line) = &mut peer.downlink {
            line.set_wanted(time, wanted, wished <= budget.whole);
        }
        let hurry = sent as f64 > budget.whole as f64 * HURRY;
        let mut moves = Moves::default();
        for at in 0..self.allocator.claims.len() {
            let claim = self.allocator.claims[at];
            self.grant(now, &claim, available.is_some(), hurry, &mut moves);
        }
        let standing = &mut self.model.peers[index as usize].standing;
        if moves.fell {
            standing.on_fall(now, sent);
        } else if moves.rose {
            standing.on_rise(now);
        }
        if let Some(line) = &self.model.peers[index as usize].downlink {
            tracing::trace!(peer = %self.model.peers[index as usize].id, ?budget, wished, sent, line = ?line.explain(), "shared out");
        }
        self.arm_line(now, index);
    }

    /// Whether there is a picture with whose retransmission stream more can be looked for than is sent.
    fn can_probe(&self, now: Instant, peer: u32) -> bool {
        let mut senders = self.model.peers[peer as usize].senders.iter();
        senders
            .any(|(_, at)| self.model.subscriptions.get(*at as usize).is_some_and(|one| one.can_probe(now)))
    }

    /// Puts a claim's share in force.
    fn grant(&mut self, now: Instant, claim: &Claim, is_limited: bool, hurry: bool, moves: &mut Moves) {
        let time = self.time(now);
        let reason = if is_limited { claim.reason } else { Reason::Unmeasured };
        let layer = claim.granted.map(|rung| claim.ladder.layer(rung));
        // With nothing in the way the wish itself is granted: what may yet be sent is not on the ladder.
        let subscription = &mut self.model.subscriptions[claim.subscription as usize];
        let layer = if claim.granted == Some(claim.top) { Some(subscription.wish.max_layer) } else { layer };
        let (before, after) = (subscription.granted, Grant { layer, reason });
        if before == after {
            return;
        }
        subscription.granted = after;
        if before.layer != layer {
            subscription.regranted = Some(now);
            subscription.granted_since = layer.and(subscription.granted_since.or(Some(now)));
        }
        match claim.present.cmp(&claim.granted) {
            std::cmp::Ordering::Less if before.layer.is_some() => moves.rose = true,
            std::cmp::Ordering::Greater if reason != Reason::Wish => moves.fell |= claim.sent > claim.granted,
            _ => {}
        }
        let (id, source) = (subscription.id, subscription.publication);
        if let Some(line) = &self.model.peers[subscription.peer as usize].downlink
            && before.layer != layer
        {
            let line = line.explain();
            tracing::debug!(
                subscription = %id, reason = reason.name(), ?layer, hurry, target = %line.target, sustainable = %line.sustainable, because = ?line.because,
                queue = ?line.queue, loss = line.loss, "a subscription is granted another layer"
            );
        }
        self.model.aim(claim.subscription);
        let subscription = &mut self.model.subscriptions[claim.subscription as usize];
        let (owner, paused) = (subscription.peer, reason == Reason::Paused);
        let mut hurries = false;
        if claim.granted < claim.present
            && let Some(line) = &mut self.model.peers[owner as usize].downlink
            && (hurry || line.is_behind(claim.subscription))
            && subscription.hurry()
        {
            line.forget_all_but_begun(claim.subscription, subscription);
            line.hold(time);
            hurries = true;
        }
        if std::mem::replace(&mut subscription.paused, paused) != paused {
            self.tell(owner, Event::StreamState { subscription: id, paused });
        }
        let subscription = &self.model.subscriptions[claim.subscription as usize];
        if subscription.wants_key_frame().is_some() {
            if hurries || subscription.encoding().is_none() {
                self.replay(now, claim.subscription);
            }
            self.note_key_frame_wishes(now, source);
        }
    }
}

/// Grants the most important picture its least though nobody knows whether the line carries it. Its packets leave at the
/// pace of what is known, and what becomes of them tells more.
fn begin(claims: &mut [Claim]) {
    if let Some(first) = claims.first_mut().filter(|claim| claim.granted.is_none()) {
        (first.granted, first.reason) = (Some(0), Reason::Line);
    }
}

/// What is missing of the `wished` bits.
fn shortage(claims: &[Claim], wished: u64) -> Shortage {
    let granted = |claim: &Claim| Some(claim.ladder.rungs()[claim.granted?].bps);
    match claims.iter().filter_map(granted).sum::<u64>() {
        _ if claims.iter().any(|claim| claim.granted.is_none()) => Shortage::Paused,
        granted if granted < wished / 2 => Shortage::Much,
        _ => Shortage::Little,
    }
}

fn sent_bps(claim: &Claim) -> Option<u64> {
    Some(claim.ladder.rungs()[claim.sent?].bps)
}

impl Model {
    /// Every picture that the peer is subscribed to and that is sent, as a claim. Others are granted what they wish, or
    /// keep what they were. Answers what its audio takes.
    fn collect_claims(&mut self, now: Instant, index: u32, allocator: &mut Allocator) -> BitRate {
        let mut audio = 0;
        allocator.expects_more = false;
        for at in 0..self.peers[index as usize].senders.len() {
            let (ssrc, number) = self.peers[index as usize].senders[at];
            let subscription = &mut self.subscriptions[number as usize];
            if subscription.ssrc() != ssrc {
                continue; // its retransmission stream
            }
            let publication = &self.publications[subscription.publication as usize];
            let is_sent = subscription.wish.enabled && !publication.muted;
            if !publication.is_video() {
                audio += if is_sent { publication.rates.of(now, 0, 0) } else { 0 };
                continue;
            }
            let ladder = publication.ladder(now);
            if !is_sent || ladder.rungs().is_empty() {
                allocator.expects_more |= is_sent;
                subscription.granted = subscription.granted.kept(&subscription.wish);
                self.aim(number);
                continue;
            }
            let speaks = self.peers[publication.peer as usize].has_floor && !publication.media.is_screen;
            allocator.claims.push(claim(number, subscription, publication, ladder, speaks));
        }
        BitRate::from_bps(audio)
    }
}

fn claim(
    number: u32,
    subscription: &Subscription,
    publication: &Publication,
    ladder: Ladder,
    speaks: bool,
) -> Claim {
    let wish = subscription.wish;
    let largest = publication.reachable(wish.max_layer).spatial;
    let top = ladder.top(Layer { spatial: largest, temporal: wish.max_layer.temporal });
    let granted = subscription.encoding().and(subscription.granted.layer);
    let sent = subscription.encoding().zip(granted).map(|(encoding, granted)| {
        let spatial = if publication.is_layered() { granted.spatial } else { granted.spatial.min(encoding) };
        Layer { spatial, ..granted }
    });
    let rung = |layer: Option<Layer>| ladder.at(layer?).map(|rung| rung.min(top));
    Claim {
        subscription: number,
        importance: Importance {
            declared: wish.priority,
            is_screen: publication.media.is_screen,
            speaks,
            size: largest,
        },
        ladder,
        top,
        present: rung(granted),
        sent: rung(sent),
        changed: subscription.regranted,
        granted: None,
        reason: Reason::Off,
    }
}

impl Publication {
    /// The steps of quality that are being sent, with what they cost.
    fn ladder(&self, now: Instant) -> Ladder {
        let is_sent = |(_, costs): &(u8, Costs)| costs.iter().any(|bps| *bps > 0);
        if !self.is_layered() {
            // A stream's own layers, if a descriptor names any, are not chosen among: it is one picture.
            let pictures = self.rates.pictures(now).take(self.encodings.len()).filter(is_sent);
            let flows = |at: u8| self.flowing >> at & 1 == 1 || self.encodings.len() == 1;
            return Ladder::new(pictures.filter(|(at, _)| flows(*at)), self.media.is_screen);
        }
        // A layer that an encoder stopped must not keep its price: nobody could be granted what it cost.
        let pictures = self.rates.pictures(now).filter(is_sent);
        let pictures = pictures.filter(|(spatial, _)| !self.rates.is_silent(*spatial));
        let with_those_below = pictures.scan(Costs::default(), |below, (spatial, own)| {
            below.iter_mut().zip(own).for_each(|(below, own)| *below += own);
            Some((spatial, *below))
        });
        Ladder::new(with_those_below, self.media.is_screen)
    }
}
