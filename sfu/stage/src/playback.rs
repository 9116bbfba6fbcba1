//! What a subscriber could show of what it received, and what was wrong with it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use weir_rtp::dependency_descriptor::{DependencyDescriptor, MandatoryFields, TemplateStructure};
use weir_rtp::vp8::Vp8Descriptor;
use weir_rtp::vp9::Vp9Descriptor;
use weir_units::media::Codec;

use crate::body::FrameId;
use crate::receiver::{Received, Receiver};

/// A first picture from the ring is as late as it was old, and what follows it catches up within this.
const CATCHING_UP: Duration = Duration::from_millis(200);

/// One frame (for layered codecs: of one spatial layer), in the order of the stream.
#[derive(Clone, Debug)]
pub struct Frame {
    pub id: FrameId,
    pub temporal: u8,
    pub is_key: bool,
    pub timestamp: u32,
    pub captured: u64,
    /// The SSRC that it was published under.
    stream: u32,
    /// When its last packet came.
    pub at: Instant,
    /// Complete, and so was all it needs.
    pub is_decoded: bool,
    /// Its first and last sequence numbers, as far as they came.
    numbers: (u64, u64),
    /// Whether its last packet came, and had the marker.
    marker: Option<bool>,
    picture: Option<u16>,
    tl0: Option<u8>,
    frame_number: Option<u16>,
}

/// See [`Playback::of`].
#[derive(Debug)]
pub struct Playback {
    pub frames: Vec<Frame>,
    /// Sequence numbers that never came, between the first and the last.
    pub missing: Vec<u64>,
    /// What no receiver should see.
    pub faults: Vec<String>,
    codec: Codec,
    /// What dependency descriptors refer to: the last that came.
    structure: Option<TemplateStructure>,
}

impl Playback {
    /// Puts the packets of a receiver together, in the order of their sequence numbers, and plays decoder.
    pub fn of(receiver: &Receiver) -> Self {
        let codec = receiver.codec;
        let mut playback =
            Self { frames: Vec::new(), missing: Vec::new(), faults: Vec::new(), codec, structure: None };
        let mut decoded = BTreeSet::new();
        let mut parts: Vec<(u64, &Received)> = Vec::new();
        for (number, packet) in &receiver.packets {
            if let Some((before, last)) = parts.last() {
                let between = before + 1..*number;
                playback.missing.extend(between.filter(|number| !receiver.fillers.contains(number)));
                // A picture that is sent anew, as from the ring, is another one.
                let is_again = packet.body.index <= last.body.index;
                if last.body.frame != packet.body.frame || is_again {
                    playback.finish(&parts, &mut decoded);
                    parts.clear();
                }
            }
            parts.push((*number, packet));
        }
        // The rest of the very last may be still on its way.
        if parts.last().is_some_and(|(_, packet)| packet.body.index + 1 == packet.body.count) {
            playback.finish(&parts, &mut decoded);
        }
        for at in 1..playback.frames.len() {
            if let Some(fault) = playback.fault_between(&playback.frames[at - 1], &playback.frames[at]) {
                playback.faults.push(fault);
            }
        }
        playback
    }

    fn is_video(&self) -> bool {
        !matches!(self.codec, Codec::Opus | Codec::Red)
    }

    fn finish(&mut self, parts: &[(u64, &Received)], decoded: &mut BTreeSet<FrameId>) {
        let ((first_number, first), (last_number, last)) = (parts[0], parts[parts.len() - 1]);
        let (body, id) = (first.body, first.body.frame);
        for (number, packet) in parts {
            let place = u64::from(packet.body.index) - u64::from(body.index).min(packet.body.index.into());
            if *number != first_number + place {
                let places: Vec<_> =
                    parts.iter().map(|(number, packet)| (*number, packet.body.index)).collect();
                self.faults.push(format!("the packets of {id:?} stand out of order: {places:?}"));
                break;
            }
            if packet.timestamp != first.timestamp {
                self.faults.push(format!("{id:?} has several timestamps"));
            }
            if self.is_video() && packet.marker && packet.body.index + 1 != body.count {
                self.faults.push(format!("{id:?} has a marker within"));
            }
        }
        let is_complete = parts.len() == usize::from(body.count);
        let mut needs = body.needs.iter().flatten();
        let is_decoded = is_complete
            && self.can_place(&first.dependency)
            && needs.all(|need| decoded.contains(&FrameId { spatial: need.0, number: need.1, ..id }));
        if is_decoded {
            decoded.insert(id);
        }
        let (picture, tl0) = match self.codec {
            Codec::Vp8 => {
                let descriptor = Vp8Descriptor::parse(&first.descriptor).expect("a descriptor");
                (descriptor.picture_id.map(|id| id.value), descriptor.tl0_picture_index)
            }
            Codec::Vp9 => {
                let descriptor = Vp9Descriptor::parse(&first.descriptor).expect("a descriptor");
                (descriptor.picture_id.map(|id| id.value), None)
            }
            _ => (None, None),
        };
        self.frames.push(Frame {
            id,
            temporal: body.temporal,
            is_key: body.is_key,
            timestamp: first.timestamp,
            captured: body.captured,
            stream: body.stream,
            at: parts.iter().map(|(_, packet)| packet.at).max().expect("one at least"),
            is_decoded,
            numbers: (first_number, last_number),
            marker: (last.body.index + 1 == body.count).then_some(last.marker),
            picture,
            tl0,
            frame_number: MandatoryFields::parse(&first.dependency).map(|fields| fields.frame_number),
        });
    }

    /// Whether a receiver knows what a frame is for. Those of libwebrtc drop frames whose template they have not seen.
    fn can_place(&mut self, descriptor: &[u8]) -> bool {
        self.structure = TemplateStructure::attached_to(descriptor).or(self.structure.take());
        self.codec != Codec::Av1 || DependencyDescriptor::parse(descriptor, self.structure.as_ref()).is_some()
    }

    /// What is wrong with two frames that follow one another in the stream.
    fn fault_between(&self, a: &Frame, b: &Frame) -> Option<String> {
        let fault = |what: &str| Some(format!("{what}: {a:?} then {b:?}"));
        let step = b.timestamp.wrapping_sub(a.timestamp) as i32;
        let is_gapless = a.numbers.1 + 1 == b.numbers.0;
        let numbers_step = b.picture.zip(a.picture).map(|(b, a)| b.wrapping_sub(a) & 0x7fff);
        // A picture that is sent anew begins with its lowest layer.
        let is_higher = a.id.spatial < b.id.spatial;
        if (b.captured, b.id.encoding) == (a.captured, a.id.encoding) && is_higher {
            return match () {
                () if step != 0 => fault("two timestamps in a picture"),
                // Of a frame that nobody can decode the marker, which may have come very late, says nothing.
                () if a.marker == Some(true) && a.is_decoded => fault("a marker within a picture"),
                () if numbers_step.is_some_and(|step| step != 0) => fault("two picture ids in a picture"),
                () => None,
            };
        }
        if step <= 0 {
            return fault("time goes back");
        }
        // A source that fell silent within a picture, whose end was lost, leaves nothing to be sent again; nor does one that
        // began anew under another SSRC.
        let is_after_silence = b.is_key && b.captured.saturating_sub(a.captured) > 500_000;
        let is_after_restart = b.is_key && b.stream != a.stream;
        let is_cut = is_after_silence || is_after_restart;
        if self.is_video() && a.marker == Some(false) && a.is_decoded && is_gapless && !is_cut {
            return fault("a picture without marker");
        }
        if b.frame_number.zip(a.frame_number).is_some_and(|(b, a)| (b.wrapping_sub(a) as i16) <= 0) {
            return fault("frame numbers go back");
        }
        match self.codec {
            Codec::Vp8 if is_gapless && numbers_step != Some(1) => fault("picture ids do not go on by one"),
            Codec::Vp8
                if is_gapless
                    && b.tl0
                        .zip(a.tl0)
                        .is_some_and(|(new, old)| new.wrapping_sub(old) != u8::from(b.temporal == 0)) =>
            {
                fault("base layer indexes do not go on by one")
            }
            // A source that starts over is known by its key frame.
            Codec::Vp9 if !b.is_key && numbers_step.is_some_and(|step| step == 0 || step > 0x3fff) => {
                fault("picture ids go back")
            }
            _ => None,
        }
    }

    /// By how much timestamps run ahead of the capture, in milliseconds, relative to the last frame; least and most. What
    /// comes within [`CATCHING_UP`] of the first frame may be from the past.
    pub fn drift(&self) -> (i64, i64) {
        let (Some(first), Some(last)) = (self.frames.first(), self.frames.last()) else { return (0, 0) };
        let mut behind = 0_i64;
        let mut later = last;
        let mut range = (0, 0);
        for frame in self.frames.iter().rev().take_while(|frame| frame.at >= first.at + CATCHING_UP) {
            behind += i64::from(later.timestamp.wrapping_sub(frame.timestamp).cast_signed());
            later = frame;
            let shown = behind * 1_000 / i64::from(self.codec.clock_rate());
            let drift = (last.captured as i64 - frame.captured as i64) / 1_000 - shown;
            range = (range.0.min(drift), range.1.max(drift));
        }
        range
    }

    /// Nothing is missing or wrong, and every frame could be decoded.
    #[track_caller]
    pub fn assert_seamless(&self) {
        assert!(self.faults.is_empty(), "{} faults, the first: {}", self.faults.len(), self.faults[0]);
        assert!(self.missing.is_empty(), "{} numbers never came: {:?}", self.missing.len(), self.missing);
        let lost = self.frames.iter().find(|frame| !frame.is_decoded);
        assert!(lost.is_none(), "cannot be decoded: {lost:?}");
        assert!(!self.frames.is_empty(), "nothing came");
    }

    pub fn decoded(&self) -> usize {
        self.frames.iter().filter(|frame| frame.is_decoded).count()
    }

    /// The encodings shown, one entry for each stretch: (encoding, how many frames).
    pub fn stretches(&self) -> Vec<(u8, usize)> {
        let mut stretches: Vec<(u8, usize)> = Vec::new();
        for frame in &self.frames {
            match stretches.last_mut() {
                Some((encoding, count)) if *encoding == frame.id.encoding => *count += 1,
                _ => stretches.push((frame.id.encoding, 1)),
            }
        }
        stretches
    }
}
