//! What is known of each peer's line, and what follows from it, for people who ask why.

use std::time::{Duration, Instant};

use weir_rate::{Because, BitRate};
use weir_units::ids::{ConferenceId, PeerId, PublicationId, SubscriptionId};
use weir_units::media::Layer;

use super::{Model, Shard};
use crate::allocation::Reason;
use crate::peer::Peer;

/// One peer's line at a moment.
#[derive(Clone, Debug)]
pub struct LineState {
    pub conference: ConferenceId,
    pub peer: PeerId,
    /// What may be shared out, in bits a second; `None` where nobody knows, and all is sent that is wished.
    pub available: Option<u64>,
    /// What may be sent at present, in bits a second: less than is available while a queue drains.
    pub target: u64,
    /// What arrives, in bits a second, if enough does to tell.
    pub acknowledged: Option<u64>,
    pub because: Because,
    pub queue: Duration,
    pub round_trip: Duration,
    /// The share of packets lost of late.
    pub loss: f64,
    pub pictures: Vec<PictureState>,
}

/// One subscription to pictures.
#[derive(Clone, Debug)]
pub struct PictureState {
    pub subscription: SubscriptionId,
    pub publication: PublicationId,
    /// The best that is wished, and that is granted; `None` is nothing.
    pub wished: Option<Layer>,
    pub granted: Option<Layer>,
    pub reason: Reason,
    /// The encoding being sent.
    pub encoding: Option<u8>,
}

impl Shard {
    /// The state of every line. Allocates, and walks all peers: for people, not for every second.
    pub fn lines(&self, now: Instant) -> Vec<LineState> {
        let time = self.time(now);
        let lines = self.model.peers.iter().filter_map(|(_, peer)| {
            let line = peer.downlink.as_ref()?;
            let explanation = line.explain();
            Some(LineState {
                conference: self.model.conferences[peer.conference as usize].id,
                peer: peer.id,
                available: line.available(time).map(BitRate::bps),
                target: explanation.target.bps(),
                acknowledged: explanation.acknowledged.map(BitRate::bps),
                because: explanation.because,
                queue: explanation.queue,
                round_trip: explanation.round_trip,
                loss: explanation.loss,
                pictures: self.model.pictures(peer),
            })
        });
        lines.collect()
    }
}

impl Model {
    fn pictures(&self, peer: &Peer) -> Vec<PictureState> {
        let pictures = peer.senders.iter().filter_map(|(ssrc, number)| {
            let subscription = &self.subscriptions[*number as usize];
            let is_first = subscription.ssrc() == *ssrc; // not its retransmission stream
            (is_first && subscription.is_video()).then(|| PictureState {
                subscription: subscription.id,
                publication: self.publications[subscription.publication as usize].id,
                wished: subscription.wish.enabled.then_some(subscription.wish.max_layer),
                granted: subscription.granted.layer,
                reason: subscription.granted.reason,
                encoding: subscription.encoding(),
            })
        });
        pictures.collect()
    }
}
