//! What the control plane tells a shard.

use crate::ids::{ConferenceId, PeerId, PublicationId, SubscriptionId};
use crate::media::{EgressMedia, IceCredentials, IngressMedia, RemoteTransport, Wish};
use bytes::Bytes;

/// A change of the model. Commands about something that is gone are ignored: the control plane may not know yet.
#[derive(Debug)]
pub enum Command {
    /// A new peer connection. The ufrag must be unique; its first character names the shard.
    AddPeer {
        peer: PeerId,
        conference: ConferenceId,
        local: IceCredentials,
    },
    /// The peer's description arrived or changed. New ICE credentials on either side are an ICE restart.
    SetRemoteTransport {
        peer: PeerId,
        local: IceCredentials,
        remote: RemoteTransport,
    },
    RemovePeer {
        peer: PeerId,
    },

    /// Opens a data channel: in-band (DCEP), or on a stream on which the peer has it without being told.
    /// `max_retransmits: None` is reliable.
    OpenChannel {
        peer: PeerId,
        label: String,
        ordered: bool,
        max_retransmits: Option<u16>,
        stream: Option<u16>,
    },
    /// Sends one message on the open channel of that label; `binary` chooses the PPID.
    SendData {
        peer: PeerId,
        label: String,
        payload: Bytes,
        binary: bool,
    },

    Publish {
        publication: PublicationId,
        peer: PeerId,
        media: IngressMedia,
    },
    /// The publisher muted: silence is expected, nobody asks for key frames.
    SetMuted {
        publication: PublicationId,
        muted: bool,
    },
    Unpublish {
        publication: PublicationId,
    },

    Subscribe {
        subscription: SubscriptionId,
        publication: PublicationId,
        peer: PeerId,
        media: EgressMedia,
        wish: Wish,
    },
    SetWish {
        subscription: SubscriptionId,
        wish: Wish,
    },
    Unsubscribe {
        subscription: SubscriptionId,
    },
}
