//! The dependency descriptor header extension
//! ([AV1 RTP, appendix A](https://aomediacodec.github.io/av1-rtp-spec/#appendix)): what a frame is needed for and what
//! it needs, without looking at its payload.
//!
//! The first packet of a coded video sequence carries a [`TemplateStructure`], which the caller keeps for the stream;
//! the packets after it name a template of it in three bytes.

mod rewrite;
mod structure;

pub use rewrite::set_active_decode_targets;
pub use structure::{DecodeTargetLayer, TemplateStructure};

use crate::bits::BitReader;

/// Decode targets that five bits can count.
pub const MAX_DECODE_TARGETS: usize = 32;
/// One chain for each decode target at most.
pub const MAX_CHAINS: usize = 32;
/// Template ids have six bits.
pub const MAX_TEMPLATES: usize = 64;
/// AV1 has spatial ids from 0 to 3; a structure of more is refused.
pub const MAX_SPATIAL_LAYERS: usize = 4;
/// AV1 has temporal ids from 0 to 7; a structure of more is refused.
pub const MAX_TEMPORAL_LAYERS: usize = 8;
/// A frame of AV1 refers to at most 7 others; the syntax sets no limit, so one beyond this is refused.
pub const MAX_FRAME_DIFFS: usize = 8;

/// The fields before all others, in bytes; a descriptor of only these names a template and changes nothing.
const MANDATORY_LEN: usize = 3;

/// What a frame is for a decode target: table A.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Indication {
    /// Not part of the decode target.
    #[default]
    NotPresent,
    /// Part of it, and nothing in it depends on the frame.
    Discardable,
    /// Part of it; once this frame is decoded, all later ones of the target can be.
    Switch,
    /// Part of it, and neither of the others.
    Required,
}

/// The indications of a frame for all decode targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Indications {
    /// Two bits each, the first target's lowest.
    packed: u64,
    count: u8,
}

impl Indications {
    fn read(reader: &mut BitReader<'_>, count: u8) -> Option<Self> {
        let mut packed = 0;
        for target in 0..count {
            packed |= u64::from(reader.bits(2)?) << (2 * target);
        }
        Some(Self { packed, count })
    }

    /// `NotPresent` for a target that the structure does not have.
    #[inline]
    pub fn get(self, decode_target: usize) -> Indication {
        if decode_target >= self.len() {
            return Indication::NotPresent;
        }
        match self.packed >> (2 * decode_target) & 3 {
            0 => Indication::NotPresent,
            1 => Indication::Discardable,
            2 => Indication::Switch,
            _ => Indication::Required,
        }
    }

    /// How many decode targets there are.
    pub fn len(self) -> usize {
        self.count.into()
    }

    pub fn is_empty(self) -> bool {
        self.count == 0
    }

    pub fn iter(self) -> impl ExactSizeIterator<Item = Indication> {
        (0..self.len()).map(move |target| self.get(target))
    }
}

/// How far back the frames lie that this one refers to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameDiffs {
    diffs: [u16; MAX_FRAME_DIFFS],
    count: u8,
}

impl FrameDiffs {
    fn push(&mut self, diff: u16) -> Option<()> {
        *self.diffs.get_mut(usize::from(self.count))? = diff;
        self.count += 1;
        Some(())
    }

    /// `frame_fdiffs()`
    fn read(reader: &mut BitReader<'_>) -> Option<Self> {
        let mut diffs = Self::default();
        loop {
            match reader.bits(2)? {
                0 => return Some(diffs),
                size => diffs.push(reader.bits(4 * size)? as u16 + 1)?,
            }
        }
    }

    /// Frame numbers before this frame's, from 1.
    pub fn as_slice(&self) -> &[u16] {
        self.diffs.get(..usize::from(self.count)).unwrap_or_default()
    }
}

/// How far back the last frame of each chain lies; 0 where the chain begins with this frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChainDiffs {
    diffs: [u8; MAX_CHAINS],
    count: u8,
}

impl ChainDiffs {
    fn read(reader: &mut BitReader<'_>, count: u8, width: u32) -> Option<Self> {
        let mut chains = Self { count, ..Self::default() };
        for diff in chains.diffs.get_mut(..usize::from(count))? {
            *diff = reader.bits(width)? as u8;
        }
        Some(chains)
    }

    pub fn as_slice(&self) -> &[u8] {
        self.diffs.get(..usize::from(self.count)).unwrap_or_default()
    }
}

/// The largest picture of a spatial layer, in pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resolution {
    pub width: u32,
    pub height: u32,
}

/// The fields that every descriptor begins with; they need no structure to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MandatoryFields {
    /// The packet is the frame's first.
    pub starts_frame: bool,
    /// The packet is the frame's last.
    pub ends_frame: bool,
    pub template_id: u8,
    pub frame_number: u16,
    /// A [`TemplateStructure`] is attached: this packet begins a coded video sequence.
    pub has_structure: bool,
}

impl MandatoryFields {
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let [first, n0, n1] = *bytes.first_chunk::<MANDATORY_LEN>()?;
        Some(Self {
            starts_frame: first & 0x80 != 0,
            ends_frame: first & 0x40 != 0,
            template_id: first & 0x3f,
            frame_number: u16::from_be_bytes([n0, n1]),
            has_structure: bytes.get(MANDATORY_LEN).is_some_and(|flags| flags & 0x80 != 0),
        })
    }
}

/// The flags after the mandatory fields, in a descriptor of more than three bytes.
#[derive(Clone, Copy, Debug, Default)]
struct ExtendedFlags {
    structure: bool,
    active_decode_targets: bool,
    custom_indications: bool,
    custom_frame_diffs: bool,
    custom_chains: bool,
}

impl ExtendedFlags {
    const LEN: u32 = 5;

    fn read(reader: &mut BitReader<'_>) -> Option<Self> {
        Some(Self {
            structure: reader.bit()?,
            active_decode_targets: reader.bit()?,
            custom_indications: reader.bit()?,
            custom_frame_diffs: reader.bit()?,
            custom_chains: reader.bit()?,
        })
    }
}

/// A descriptor with its template filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DependencyDescriptor {
    pub mandatory: MandatoryFields,
    pub spatial: u8,
    pub temporal: u8,
    /// What the frame is for each decode target.
    pub indications: Indications,
    pub frame_diffs: FrameDiffs,
    pub chain_diffs: ChainDiffs,
    /// Bit n is decode target n. Stays as it was when `None`; a new structure makes all active unless it says
    /// otherwise.
    pub active_decode_targets: Option<u32>,
    /// Of the frame's spatial layer, if the structure tells.
    pub resolution: Option<Resolution>,
}

impl DependencyDescriptor {
    /// Reads the data of the header extension. `kept` is the stream's last structure; one attached here is used
    /// instead, and the caller keeps that from now on: [`TemplateStructure::attached_to`].
    ///
    /// `None` when malformed, when there is no structure, or when the template is not in it, as after a lost key
    /// frame.
    #[inline]
    pub fn parse(bytes: &[u8], kept: Option<&TemplateStructure>) -> Option<Self> {
        let mandatory = MandatoryFields::parse(bytes)?;
        let mut reader = BitReader::new(bytes.get(MANDATORY_LEN..)?);
        let mut flags = ExtendedFlags::default();
        if bytes.len() > MANDATORY_LEN {
            flags = ExtendedFlags::read(&mut reader)?;
        }
        let attached;
        let structure = if flags.structure {
            attached = TemplateStructure::read(&mut reader)?;
            &attached
        } else {
            kept?
        };
        let mut active_decode_targets = flags.structure.then(|| structure.all_decode_targets());
        if flags.active_decode_targets {
            active_decode_targets = Some(reader.bits(structure.decode_target_count().into())?);
        }
        let template = structure.template(mandatory.template_id)?;
        let mut read = Self {
            mandatory,
            spatial: template.spatial,
            temporal: template.temporal,
            indications: template.indications,
            frame_diffs: template.frame_diffs(),
            chain_diffs: template.chain_diffs,
            active_decode_targets,
            resolution: structure.resolution(template.spatial),
        };
        if flags.custom_indications {
            read.indications = Indications::read(&mut reader, structure.decode_target_count())?;
        }
        if flags.custom_frame_diffs {
            read.frame_diffs = FrameDiffs::read(&mut reader)?;
        }
        if flags.custom_chains {
            read.chain_diffs = ChainDiffs::read(&mut reader, structure.chain_count(), 8)?;
        }
        Some(read)
    }
}

#[cfg(test)]
mod tests;
