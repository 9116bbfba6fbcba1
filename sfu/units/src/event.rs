//! What a shard tells the control plane.

use crate::ids::{ConferenceId, PeerId, PublicationId, SubscriptionId};
use crate::media::Codec;
use bytes::Bytes;

/// Something the control plane may have to act on. Nothing here happens per packet.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// ICE and DTLS are done; media flows.
    PeerConnected {
        peer: PeerId,
    },
    /// No valid packet for the peer time-out, or DTLS failed.
    PeerLost {
        peer: PeerId,
        reason: PeerLostReason,
    },
    ChannelOpen {
        peer: PeerId,
        label: String,
    },
    Data {
        peer: PeerId,
        label: String,
        payload: Bytes,
        binary: bool,
    },

    /// The first packet of a publication arrived, of this codec.
    PublicationStarted {
        publication: PublicationId,
        codec: Codec,
    },
    /// The first packet went to this subscriber.
    SubscriptionStarted {
        subscription: SubscriptionId,
    },
    /// The allocation paused or resumed a subscription for want of bandwidth.
    StreamState {
        subscription: SubscriptionId,
        paused: bool,
    },
    /// Which spatial layers anybody wants: bit n is encoding n. Undamped.
    LayersWanted {
        publication: PublicationId,
        layers: u8,
    },
    /// Who speaks, loudest first, since the last such event; levels linear from 0 to 1.
    Speakers {
        conference: ConferenceId,
        speakers: Vec<(PublicationId, f32)>,
    },
    /// What the peer's line is like, a few seconds apart.
    Quality {
        peer: PeerId,
        quality: LineQuality,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerLostReason {
    Timeout,
    Dtls,
}

/// Measured over the last window, the worse of both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LineQuality {
    /// From 0 to 1.
    pub loss: f32,
    pub round_trip_ms: f32,
    pub jitter_ms: f32,
    /// Throughout the window.
    pub shortage: Shortage,
}

/// How much of the pictures that a peer wishes its line does not carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shortage {
    /// At least half is sent, in bits a second; a picture a size smaller may be that.
    #[default]
    Little,
    Much,
    /// Some picture is not sent at all.
    Paused,
}
