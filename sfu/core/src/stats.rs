//! What a shard counts. Plain numbers: the shell reads them between batches and turns them into metrics.

pub use crate::allocation::Reason;

/// Why something that arrived was not used. The names are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Drop {
    /// Not STUN, DTLS, RTP or RTCP by its first bytes.
    Unclassified,
    /// From an address that no peer has validated.
    UnknownAddress,
    /// STUN that is no binding request for a live user fragment, or fails its integrity check.
    Stun,
    /// A record the DTLS state did not take.
    Dtls,
    /// Media before DTLS was done.
    NoKeys,
    /// SRTP or SRTCP that failed authentication.
    Authentication,
    /// A packet that had been seen, or is older than the replay window.
    Replay,
    /// RTP that does not parse.
    Malformed,
    /// An SSRC beyond the bound of one peer.
    TooManySsrcs,
    /// Authentic RTP that belongs to no published m-line.
    UnknownSsrc,
    /// A payload type the m-line did not negotiate.
    UnknownPayloadType,
    /// A retransmission of something that is there, or too old to store.
    Duplicate,
    /// RTCP that does not parse.
    MalformedRtcp,
    /// The egress arena was full: control traffic that will be repeated.
    ArenaFull,
    /// A batch brought more than it may: [`crate::shard::MAX_PENDING`].
    BatchFull,
    /// A data channel that is not open, or whose queue is full.
    ChannelFull,
    /// More waits for a peer's line than could still be of use.
    LineFull,
}

impl Drop {
    pub const ALL: [Self; 17] = [
        Self::Unclassified,
        Self::UnknownAddress,
        Self::Stun,
        Self::Dtls,
        Self::NoKeys,
        Self::Authentication,
        Self::Replay,
        Self::Malformed,
        Self::TooManySsrcs,
        Self::UnknownSsrc,
        Self::UnknownPayloadType,
        Self::Duplicate,
        Self::MalformedRtcp,
        Self::ArenaFull,
        Self::BatchFull,
        Self::ChannelFull,
        Self::LineFull,
    ];

    /// The metric label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unclassified => "unclassified",
            Self::UnknownAddress => "unknown_address",
            Self::Stun => "stun",
            Self::Dtls => "dtls",
            Self::NoKeys => "no_keys",
            Self::Authentication => "authentication",
            Self::Replay => "replay",
            Self::Malformed => "malformed",
            Self::TooManySsrcs => "too_many_ssrcs",
            Self::UnknownSsrc => "unknown_ssrc",
            Self::UnknownPayloadType => "unknown_payload_type",
            Self::Duplicate => "duplicate",
            Self::MalformedRtcp => "malformed_rtcp",
            Self::ArenaFull => "arena_full",
            Self::BatchFull => "batch_full",
            Self::ChannelFull => "channel_full",
            Self::LineFull => "line_full",
        }
    }
}

/// Counters since the start; they only grow, but for the gauges at the end.
#[derive(Clone, Debug, Default)]
pub struct ShardStats {
    pub datagrams_in: u64,
    pub bytes_in: u64,
    pub rtp_in: u64,
    pub rtcp_in: u64,
    pub dropped: [u64; Drop::ALL.len()],
    /// RTP forwarded, retransmissions not counted.
    pub rtp_out: u64,
    pub retransmitted: u64,
    /// NACKed packets that were no longer in the ring.
    pub not_retransmittable: u64,
    /// Packets of padding that looked for what a line carries.
    pub probes: u64,
    /// Pictures that stood still for a second at a subscriber who was to be sent them, while their publisher sent.
    pub stalls: u64,
    pub rtcp_out: u64,
    /// Sequence numbers we asked publishers to send again, repeats counted.
    pub nacks_out: u64,
    /// Packets from publishers that were lost and came back, and that never did.
    pub recovered: u64,
    pub lost: u64,
    pub key_frame_requests_in: u64,
    pub key_frame_requests_out: u64,
    /// Gauges.
    pub peers: u64,
    pub connected_peers: u64,
    pub conferences: u64,
    pub publications: u64,
    pub subscriptions: u64,
    /// Subscriptions to pictures, by why they are granted what they are; see [`Reason`].
    pub granted: [u64; Reason::ALL.len()],
}

impl ShardStats {
    pub(crate) fn drop(&mut self, reason: Drop) {
        self.dropped[reason as usize] += 1;
    }
}
