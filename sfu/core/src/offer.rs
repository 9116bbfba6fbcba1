//! A packet of a publication as it is offered to its subscribers.

use weir_rtp::h264;
use weir_units::media::Codec;

use crate::publication::EncodingState;
use crate::rewrite::select::{NO_LAYER, PacketFacts, References, StepUp};
use crate::ring::Packet;

/// A packet of the publication, with what selecting it needs.
#[derive(Clone, Copy)]
pub(crate) struct Offer<'a> {
    pub packet: Packet<'a>,
    pub facts: PacketFacts,
    pub codec: Codec,
    /// Bytes of RTP padding that make it as long as its neighbours.
    pub padding: u8,
}

/// What selecting a packet needs, from payload descriptor or dependency descriptor.
pub(crate) fn facts(encoding: u8, state: &EncodingState, packet: &Packet<'_>, codec: Codec) -> PacketFacts {
    let (meta, info) = (&packet.meta, &packet.meta.info);
    let mut facts = PacketFacts {
        encoding,
        sequence: meta.sequence,
        timestamp: meta.timestamp,
        marker: meta.marker,
        is_padding: packet.payload.is_empty(),
        is_unplaced: false,
        key_frame_start: info.key_frame_start,
        frame_end: info.frame_end.unwrap_or(meta.marker),
        spatial: info.spatial.unwrap_or(0),
        temporal: info.temporal.unwrap_or(0),
        step_up: match (info.is_switching_up_point, codec) {
            (true, Codec::Vp8) => StepUp::WithThis,
            (true, _) => StepUp::AfterThis,
            (false, _) => StepUp::No,
        },
        references: None,
    };
    if codec == Codec::H264 && facts.key_frame_start && !h264::carries_parameter_set(packet.payload) {
        // A slice begins the frame only if nothing of it is missing before: a receiver needs the parameter sets.
        let before = meta.sequence.checked_sub(1).and_then(|before| state.ring.get(before));
        facts.key_frame_start = before.is_some_and(|before| before.meta.timestamp != meta.timestamp);
    }
    if codec != Codec::Av1 {
        return facts;
    }
    let descriptor = packet.dependency_descriptor;
    if let Some(descriptor) = state.structures.read(meta.sequence, descriptor) {
        facts.spatial = descriptor.spatial;
        facts.temporal = descriptor.temporal;
        facts.frame_end = descriptor.mandatory.ends_frame;
        facts.key_frame_start = descriptor.mandatory.starts_frame && descriptor.mandatory.has_structure;
        let mut references = References { frame: descriptor.mandatory.frame_number, ..References::default() };
        for (slot, diff) in references.diffs.iter_mut().zip(descriptor.frame_diffs.as_slice()) {
            *slot = *diff;
            references.count += 1;
        }
        facts.references = Some(references);
    } else if state.structures.is_missing(meta.sequence, descriptor) {
        // Receivers cannot make anything of it either.
        (facts.is_unplaced, facts.key_frame_start) = (true, false);
    } else if state.structures.is_lost(meta.sequence, descriptor) {
        (facts.spatial, facts.key_frame_start) = (NO_LAYER, false);
    }
    facts
}
