//! Which packets of a video publication go to one subscription.
//!
//! A simulcast is switched between encodings, at key frames only; a layered stream loses its upper spatial layers
//! between pictures and gets them back at a key frame. Temporal layers are left out from one picture to the next and
//! come back where the stream says that it can be.

use std::cmp::Ordering;

use weir_units::media::{Layer, MAX_ENCODINGS};

use super::skipped::Skipped;

/// References one frame may name: AV1 has 7 slots, VP9 names 3.
pub const MAX_REFERENCES: usize = 8;

/// Frames whose fate is remembered; whoever refers further back is believed to be intact.
const HISTORY: u16 = 256;

/// Nothing was left out.
const UNCUT: u8 = u8::MAX;

/// Changes of what passes that are remembered, to judge late packets by what passed in their time. A step up may take
/// two, one for each temporal layer; more within a round trip is rare, and only late packets suffer.
const MAX_CHANGES: usize = 3;

/// A spatial layer that nobody takes.
pub const NO_LAYER: u8 = u8::MAX;

const LOWEST: Layer = Layer { spatial: 0, temporal: 0 };

/// How the layers of a publication are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Each spatial layer is an encoding of its own, so many of them. One encoding is a simulcast of one.
    Simulcast { encodings: u8 },
    /// One encoding carries all layers.
    Layered,
}

/// Where a receiver of lower temporal layers may step up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StepUp {
    #[default]
    No,
    /// To this frame's temporal layer, with this frame, from the layer below: it refers to the base layer only
    /// (VP8's Y).
    WithThis,
    /// To any temporal layer, after this frame: no later frame of a higher one refers to what came before it
    /// (VP9's U).
    AfterThis,
}

/// What a frame refers to, by how many frame numbers it is back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct References {
    pub frame: u16,
    pub diffs: [u16; MAX_REFERENCES],
    pub count: u8,
}

/// What the selection needs to know of a packet, from its header, payload descriptor or dependency descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketFacts {
    /// Which encoding of the simulcast; 0 for a layered stream.
    pub encoding: u8,
    /// Extended ingress sequence number.
    pub sequence: u64,
    pub timestamp: u32,
    pub marker: bool,
    /// It carries padding only.
    pub is_padding: bool,
    /// What it is for is not known yet: its descriptor refers to a template structure that is missing.
    pub is_unplaced: bool,
    /// A receiver may begin with this packet.
    pub key_frame_start: bool,
    /// The last packet of a spatial layer's frame.
    pub frame_end: bool,
    /// 0 where the codec doesn't say, [`NO_LAYER`] of what nobody can decode.
    pub spatial: u8,
    /// 0 where the codec doesn't say.
    pub temporal: u8,
    pub step_up: StepUp,
    /// `None` where only layer numbers are known.
    pub references: Option<References>,
}

/// What to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A new stretch begins with it: `start` of the sequence map, the timeline and the codec's numbers, then forward.
    /// If later packets of its encoding already came, they follow from the ring.
    Start { marker: bool },
    /// To be sent with this marker bit, if the sequence map has a place for it: late packets may not.
    Forward { marker: bool },
    /// To be left out of the stream it belongs to: `drop` of the sequence map. If that closes its place and it is VP8
    /// or has frame numbers and is no padding, also `drop_picture` or `drop` of these.
    Drop,
    /// Of no concern to this subscription at present.
    Wait,
}

/// The selection of one subscription.
///
/// Nothing is sent before a key frame starts. What was left out since the last key frame is known as a cut: the
/// lowest spatial and temporal layer of which something is missing, so nothing at or above it can be decoded.
#[derive(Clone, Debug)]
pub struct Selector {
    mode: Mode,
    target: Option<Layer>,
    /// What is being forwarded ends with its picture, though what is aimed for has not begun.
    leaves: bool,
    current: Option<Current>,
    /// Where each encoding was left, for late packets of it.
    left: [Left; MAX_ENCODINGS],
    /// What was not offered, by encoding.
    skipped: [Skipped; MAX_ENCODINGS],
}

#[derive(Clone, Debug)]
struct Current {
    encoding: u8,
    /// The key frame that this run of the encoding began with; what is older belongs to an earlier run.
    began: u64,
    highest: u64,
    /// The picture being forwarded, and what was the target as it began: a picture is never cut within.
    timestamp: u32,
    target: Layer,
    /// The picture's last packet was forwarded.
    has_ended: bool,
    spatial_cut: u8,
    temporal_cut: u8,
    history: History,
    /// Newest first.
    changes: [Change; MAX_CHANGES],
}

/// Where an encoding was left: the highest number that came of it, what passed at last, and what before that.
#[derive(Clone, Copy, Debug)]
struct Left {
    highest: u64,
    allowed: Layer,
    changes: [Change; MAX_CHANGES],
}

/// What passes changed with a picture.
#[derive(Clone, Copy, Debug)]
struct Change {
    /// The first packet that came of it, and its timestamp: the picture's other packets may have lower numbers. No
    /// packet is below zero, which is no change.
    sequence: u64,
    timestamp: u32,
    before: Layer,
}

impl Default for Left {
    fn default() -> Self {
        Self { highest: 0, allowed: LOWEST, changes: [Change::default(); MAX_CHANGES] }
    }
}

impl Default for Change {
    fn default() -> Self {
        Self { sequence: 0, timestamp: 0, before: LOWEST }
    }
}

impl Selector {
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            target: None,
            leaves: false,
            current: None,
            left: [Left::default(); MAX_ENCODINGS],
            skipped: [Skipped::default(); MAX_ENCODINGS],
        }
    }

    /// What to aim for; `None` pauses with the picture of which part was forwarded. Layers beyond what is published mean the best there is.
    pub fn set_target(&mut self, target: Option<Layer>) {
        self.target = target;
        if target.is_none() {
            self.end();
        }
    }

    pub fn target(&self) -> Option<Layer> {
        self.target
    }

    /// Ends what is being forwarded with its picture, if a lesser encoding is aimed for. Says whether it does; then it goes on
    /// with a key frame, whatever is aimed for by then.
    pub fn leave(&mut self) -> bool {
        let switches = self.target.zip(self.encoding());
        let switches = switches.is_some_and(|(target, encoding)| encoding > self.target_encoding(target));
        if switches {
            self.end();
        }
        switches
    }

    /// Ends what is being forwarded: now, or with the picture of which part was forwarded. It goes on with a key frame.
    pub fn end(&mut self) {
        self.leaves = self.current.as_ref().is_some_and(|current| !current.has_ended);
        if !self.leaves {
            self.restart();
        }
    }

    /// Goes on with a key frame only, from now on: of what is being forwarded something will not be sent. A source that
    /// begins anew may still complete its picture: [`Self::end`].
    pub fn restart(&mut self) {
        self.leaves = false;
        if let Some(current) = self.current.take() {
            self.note_left(&current);
        }
    }

    /// The encoding being forwarded.
    pub fn encoding(&self) -> Option<u8> {
        self.current.as_ref().map(|current| current.encoding)
    }

    /// The encoding and timestamp of the picture of which part was forwarded.
    pub fn begun(&self) -> Option<(u8, u32)> {
        let current = self.current.as_ref().filter(|current| !current.has_ended)?;
        Some((current.encoding, current.timestamp))
    }

    /// The best layer that can pass at present.
    pub fn layer(&self) -> Option<Layer> {
        let current = self.current.as_ref()?;
        let allowed = current.allowed();
        Some(match self.mode {
            Mode::Simulcast { .. } => Layer { spatial: current.encoding, ..allowed },
            Mode::Layered => allowed,
        })
    }

    /// The encoding that must send a key frame before the target is reached.
    pub fn wants_key_frame(&self) -> Option<u8> {
        let target = self.target?;
        let encoding = self.target_encoding(target);
        match &self.current {
            Some(current) if current.encoding == encoding => {
                let is_cut = current.spatial_cut != UNCUT && target.spatial >= current.spatial_cut;
                (self.mode == Mode::Layered && is_cut).then_some(encoding)
            }
            _ => Some(encoding),
        }
    }

    /// Whether packets of that picture of the encoding may be forwarded, but for stragglers.
    #[inline]
    pub fn concerns(&self, encoding: u8, timestamp: u32) -> bool {
        let wanted = self.target.map(|target| self.target_encoding(target));
        match &self.current {
            Some(_) if Some(encoding) == wanted => true,
            Some(current) => encoding == current.encoding && (!self.leaves || timestamp == current.timestamp),
            None => wanted.is_some_and(|wanted| encoding <= wanted),
        }
    }

    /// A packet is not offered, while others before it may yet be. If what is forwarded by then is its encoding, it cannot
    /// go on after this one but with a key frame.
    pub fn skip(&mut self, encoding: u8, sequence: u64) {
        if let Some(skipped) = self.skipped.get_mut(usize::from(encoding)) {
            skipped.add(sequence);
        }
    }

    /// A key frame of the encoding waits and will be offered.
    pub fn expect_key_frame(&mut self, encoding: u8) {
        if let Some(skipped) = self.skipped.get_mut(usize::from(encoding)) {
            skipped.expect_key_frame();
        }
    }

    /// All of the encoding from a key frame on will be offered.
    pub fn offer_anew(&mut self, encoding: u8) {
        if let Some(skipped) = self.skipped.get_mut(usize::from(encoding)) {
            *skipped = Skipped::default();
        }
    }

    fn is_cut_off(&self, packet: &PacketFacts) -> bool {
        let current = self.current.as_ref().filter(|current| current.encoding == packet.encoding);
        current.zip(self.skipped.get(usize::from(packet.encoding))).is_some_and(|(current, skipped)| {
            packet.sequence > current.highest && skipped.is_between(current.highest, packet.sequence)
        })
    }

    /// Decides on one packet. Packets come in order of arrival, of all encodings.
    #[inline]
    pub fn select(&mut self, packet: &PacketFacts) -> Decision {
        if self.leaves && self.current.as_ref().is_some_and(|current| current.is_over_at(packet)) {
            self.restart();
        }
        if self.is_cut_off(packet) {
            self.restart();
        }
        if packet.is_unplaced {
            return Decision::Wait; // it is offered again with the structure
        }
        let Some(target) = self.target else {
            return match &mut self.current {
                Some(current) if current.encoding == packet.encoding && packet.sequence >= current.began => {
                    current.select(packet, current.target)
                }
                _ => self.past(packet),
            };
        };
        let wanted = self.target_encoding(target);
        match &mut self.current {
            Some(current) if current.encoding == packet.encoding && packet.sequence < current.began => {
                match self.past(packet) {
                    Decision::Wait => Decision::Drop,
                    decision => decision,
                }
            }
            Some(current) if current.encoding == packet.encoding => {
                // While another encoding's key frame is awaited: all of this one if that is better, else the least.
                let temporal = match wanted.cmp(&current.encoding) {
                    Ordering::Less => 0,
                    Ordering::Equal => target.temporal,
                    Ordering::Greater => u8::MAX,
                };
                let target = match self.mode {
                    Mode::Simulcast { .. } => Layer { spatial: u8::MAX, temporal },
                    Mode::Layered => target,
                };
                current.select(packet, target)
            }
            _ => self.begin(packet, target),
        }
    }

    /// Whether a packet belongs to a stretch before the present one, or there is none at present, or it is being left.
    pub fn is_past(&self, encoding: u8, sequence: u64) -> bool {
        let is_left =
            self.leaves && self.target.is_some_and(|target| self.target_encoding(target) != encoding);
        let is_before = |current: &Current| current.encoding != encoding || sequence < current.began;
        is_left || self.current.as_ref().is_none_or(is_before)
    }

    fn target_encoding(&self, target: Layer) -> u8 {
        match self.mode {
            Mode::Simulcast { encodings } => target.spatial.min(encodings.saturating_sub(1)),
            Mode::Layered => 0,
        }
    }

    /// A packet of an encoding that is not being forwarded: perhaps the one to switch to.
    fn begin(&mut self, packet: &PacketFacts, target: Layer) -> Decision {
        let wanted = self.target_encoding(target);
        // While nothing is shown yet, a lesser picture at once is better than the right one later.
        let is_stopgap = self.current.is_none() && packet.encoding < wanted;
        if !packet.key_frame_start || packet.is_padding || !(packet.encoding == wanted || is_stopgap) {
            return self.past(packet);
        }
        self.leaves = false;
        if let Some(current) = self.current.take() {
            self.note_left(&current);
        }
        if let Some(skipped) = self.skipped.get_mut(usize::from(packet.encoding)) {
            skipped.begin(packet.sequence);
        }
        let target = match self.mode {
            Mode::Simulcast { .. } => Layer { spatial: u8::MAX, ..target },
            Mode::Layered => target,
        };
        let mut current = Current {
            encoding: packet.encoding,
            began: packet.sequence,
            highest: packet.sequence,
            timestamp: packet.timestamp,
            target,
            has_ended: packet.marker,
            spatial_cut: UNCUT,
            temporal_cut: UNCUT,
            history: History::default(),
            changes: [Change::default(); MAX_CHANGES],
        };
        let decision = match current.judge(packet) {
            true => Decision::Start { marker: current.marker(packet) },
            false => Decision::Wait, // its lowest layer is above the target: nothing fits
        };
        if decision != Decision::Wait {
            self.current = Some(current);
        }
        decision
    }

    fn note_left(&mut self, current: &Current) {
        if let Some(left) = self.left.get_mut(usize::from(current.encoding)) {
            let Current { highest, changes, .. } = *current;
            *left = Left { highest, allowed: current.allowed(), changes };
        }
    }

    /// A packet that came after its encoding was left may still fill its place, if its picture passed in its time. Where
    /// that follows from what it refers to, nobody knows any more once something else passed.
    fn past(&self, packet: &PacketFacts) -> Decision {
        let Some(left) = self.left.get(usize::from(packet.encoding)) else { return Decision::Wait };
        if packet.sequence > left.highest || packet.is_padding {
            return Decision::Wait;
        }
        if packet.references.is_some() && packet.sequence < left.changes[0].sequence {
            return Decision::Drop;
        }
        let allowed = allowed_then(&left.changes, left.allowed, packet);
        match packet.spatial <= allowed.spatial && packet.temporal <= allowed.temporal {
            true => Decision::Forward { marker: left.marker_then(packet) },
            false => Decision::Drop,
        }
    }
}

impl Left {
    /// As [`Current::marker`], of a late packet.
    fn marker_then(&self, packet: &PacketFacts) -> bool {
        let allowed = allowed_then(&self.changes, self.allowed, packet);
        packet.marker || packet.frame_end && packet.spatial == allowed.spatial
    }
}

impl Current {
    #[inline]
    fn select(&mut self, packet: &PacketFacts, target: Layer) -> Decision {
        if packet.sequence <= self.highest {
            return match !packet.is_padding && self.would_pass(packet) {
                true => Decision::Forward { marker: self.marker_then(packet) },
                false => Decision::Drop,
            };
        }
        self.highest = packet.sequence;
        if packet.is_padding {
            return Decision::Drop;
        }
        let before = self.allowed();
        if packet.key_frame_start {
            (self.spatial_cut, self.temporal_cut) = (UNCUT, UNCUT);
            self.history = History::default();
            (self.timestamp, self.target) = (packet.timestamp, target);
        } else if packet.timestamp != self.timestamp {
            (self.timestamp, self.target) = (packet.timestamp, target);
        }
        let passes = self.judge(packet);
        self.has_ended = packet.marker;
        if self.allowed() != before {
            self.changes.rotate_right(1);
            let (sequence, timestamp) = (packet.sequence, packet.timestamp);
            self.changes[0] = Change { sequence, timestamp, before };
        }
        match passes {
            true => Decision::Forward { marker: self.marker(packet) },
            false => Decision::Drop,
        }
    }

    /// Whether a later picture begins with the packet.
    fn is_over_at(&self, packet: &PacketFacts) -> bool {
        packet.encoding == self.encoding
            && packet.sequence > self.highest
            && packet.timestamp != self.timestamp
    }

    /// Whether a packet in order passes; remembers what it means for those to come.
    fn judge(&mut self, packet: &PacketFacts) -> bool {
        let passes = if packet.spatial > self.allowed_spatial() {
            self.spatial_cut = self.spatial_cut.min(packet.spatial);
            false
        } else if packet.references.is_some() {
            packet.temporal <= self.target.temporal
        } else {
            self.judge_temporal(packet)
        };
        match &packet.references {
            Some(references) => self.history.judge(references, passes),
            None => passes,
        }
    }

    /// By the layer's number alone.
    fn judge_temporal(&mut self, packet: &PacketFacts) -> bool {
        if packet.temporal > self.target.temporal {
            self.temporal_cut = self.temporal_cut.min(packet.temporal);
            return false;
        }
        if packet.step_up == StepUp::WithThis && packet.temporal == self.temporal_cut {
            self.temporal_cut += 1;
        }
        let passes = packet.temporal < self.temporal_cut;
        if passes && packet.step_up == StepUp::AfterThis {
            self.temporal_cut = UNCUT;
        }
        passes
    }

    /// As [`Self::judge`] would have found for a late packet in its time; changes nothing. Of a picture either all
    /// packets pass or none: what passes now may not have passed then.
    fn would_pass(&self, packet: &PacketFacts) -> bool {
        let allowed = self.allowed_then(packet);
        packet.spatial <= allowed.spatial
            && packet.temporal <= allowed.temporal
            && packet.references.is_none_or(|references| !self.history.is_dropped(references.frame))
    }

    /// What passed when a late packet's picture was forwarded.
    fn allowed_then(&self, packet: &PacketFacts) -> Layer {
        allowed_then(&self.changes, self.allowed(), packet)
    }

    fn allowed_spatial(&self) -> u8 {
        self.target.spatial.min(self.spatial_cut.saturating_sub(1))
    }

    fn allowed(&self) -> Layer {
        Layer {
            spatial: self.allowed_spatial(),
            temporal: self.target.temporal.min(self.temporal_cut.saturating_sub(1)),
        }
    }

    /// Whether the picture ends here for this receiver: the highest layer that passes may not be the highest sent.
    fn marker(&self, packet: &PacketFacts) -> bool {
        packet.marker || packet.frame_end && packet.spatial == self.allowed_spatial()
    }

    /// As [`Self::marker`], of a late packet.
    fn marker_then(&self, packet: &PacketFacts) -> bool {
        packet.marker || packet.frame_end && packet.spatial == self.allowed_then(packet).spatial
    }
}

/// Which frames were left out, by frame number.
#[derive(Clone, Debug, Default)]
struct History {
    highest: Option<u16>,
    dropped: [u64; HISTORY as usize / 64],
}

impl History {
    /// Whether a frame passes that would if intact; remembers it. Its first packet decides for all.
    fn judge(&mut self, references: &References, is_wanted: bool) -> bool {
        let frame = references.frame;
        let highest = *self.highest.get_or_insert(frame.wrapping_sub(1));
        let ahead = frame.wrapping_sub(highest);
        if ahead == 0 || ahead > u16::MAX / 2 {
            return is_wanted && !self.is_dropped(frame);
        }
        for skipped in 1..=ahead.min(HISTORY) {
            self.set(
                highest.wrapping_add(ahead).wrapping_sub(ahead.min(HISTORY)).wrapping_add(skipped),
                false,
            );
        }
        self.highest = Some(frame);
        let diffs = references.diffs.iter().take(usize::from(references.count));
        let passes = is_wanted
            && diffs.filter(|&&diff| diff < HISTORY).all(|&diff| !self.is_dropped(frame.wrapping_sub(diff)));
        self.set(frame, !passes);
        passes
    }

    fn is_dropped(&self, frame: u16) -> bool {
        let is_known = self.highest.is_some_and(|highest| highest.wrapping_sub(frame) < HISTORY);
        let bit = frame % HISTORY;
        is_known && self.dropped[usize::from(bit / 64)] >> (bit % 64) & 1 == 1
    }

    fn set(&mut self, frame: u16, is_dropped: bool) {
        let bit = frame % HISTORY;
        let word = &mut self.dropped[usize::from(bit / 64)];
        *word = *word & !(1 << (bit % 64)) | u64::from(is_dropped) << (bit % 64);
    }
}

/// What passed when a late packet's picture was forwarded, if `now` does at present.
fn allowed_then(changes: &[Change; MAX_CHANGES], now: Layer, packet: &PacketFacts) -> Layer {
    let is_past =
        |change: &&Change| packet.sequence < change.sequence && packet.timestamp != change.timestamp;
    changes.iter().take_while(is_past).last().map_or(now, |change| change.before)
}

#[cfg(test)]
mod tests;
