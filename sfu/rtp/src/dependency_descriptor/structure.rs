//! The templates that packets refer to: `template_dependency_structure()`.

use super::{
    ChainDiffs, ExtendedFlags, FrameDiffs, Indication, Indications, MANDATORY_LEN, MAX_DECODE_TARGETS,
    MAX_FRAME_DIFFS, MAX_SPATIAL_LAYERS, MAX_TEMPLATES, MAX_TEMPORAL_LAYERS, Resolution,
};
use crate::bits::BitReader;

/// Everything a template says of the frames that name it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Template {
    pub(super) spatial: u8,
    pub(super) temporal: u8,
    pub(super) indications: Indications,
    /// From 1 to 16; 0 ends them.
    diffs: [u8; MAX_FRAME_DIFFS],
    pub(super) chain_diffs: ChainDiffs,
}

impl Template {
    pub(super) fn frame_diffs(&self) -> FrameDiffs {
        let mut diffs = FrameDiffs::default();
        for (from, to) in self.diffs.iter().zip(&mut diffs.diffs) {
            *to = u16::from(*from);
            diffs.count += u8::from(*from != 0);
        }
        diffs
    }
}

/// The best a decode target has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecodeTargetLayer {
    pub spatial: u8,
    pub temporal: u8,
}

/// The templates of one coded video sequence, about 4 KiB whatever the peer sends. Kept once for each stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateStructure {
    id_offset: u8,
    decode_target_count: u8,
    chain_count: u8,
    template_count: u8,
    templates: [Template; MAX_TEMPLATES],
    /// The chain of each decode target, if there are chains.
    protected_by: [u8; MAX_DECODE_TARGETS],
    targets: [DecodeTargetLayer; MAX_DECODE_TARGETS],
    resolutions: Option<[Resolution; MAX_SPATIAL_LAYERS]>,
}

impl TemplateStructure {
    /// The structure in a descriptor, when [`super::MandatoryFields::has_structure`] says that there is one. `None`
    /// otherwise, and when it is malformed or beyond what AV1 allows.
    pub fn attached_to(descriptor: &[u8]) -> Option<Self> {
        let mut reader = BitReader::new(descriptor.get(MANDATORY_LEN..)?);
        ExtendedFlags::read(&mut reader)?.structure.then(|| Self::read(&mut reader))?
    }

    pub(super) fn read(reader: &mut BitReader<'_>) -> Option<Self> {
        let id_offset = reader.bits(6)? as u8;
        let decode_target_count = reader.bits(5)? as u8 + 1;
        let mut structure = Self {
            id_offset,
            decode_target_count,
            chain_count: 0,
            template_count: 0,
            templates: [Template::default(); MAX_TEMPLATES],
            protected_by: [0; MAX_DECODE_TARGETS],
            targets: [DecodeTargetLayer::default(); MAX_DECODE_TARGETS],
            resolutions: None,
        };
        let max_spatial = structure.read_layers(reader)?;
        for template in structure.templates.get_mut(..usize::from(structure.template_count))? {
            template.indications = Indications::read(reader, decode_target_count)?;
        }
        for template in structure.templates.get_mut(..usize::from(structure.template_count))? {
            let mut diffs = template.diffs.iter_mut();
            while reader.bit()? {
                *diffs.next()? = reader.bits(4)? as u8 + 1;
            }
        }
        structure.read_chains(reader)?;
        if reader.bit()? {
            let mut resolutions = [Resolution::default(); MAX_SPATIAL_LAYERS];
            for resolution in resolutions.get_mut(..=usize::from(max_spatial))? {
                *resolution = Resolution { width: reader.bits(16)? + 1, height: reader.bits(16)? + 1 };
            }
            structure.resolutions = Some(resolutions);
        }
        structure.find_targets();
        Some(structure)
    }

    /// `template_layers()`; returns the highest spatial id.
    fn read_layers(&mut self, reader: &mut BitReader<'_>) -> Option<u8> {
        let (mut spatial, mut temporal) = (0, 0);
        loop {
            let template = self.templates.get_mut(usize::from(self.template_count))?;
            (template.spatial, template.temporal) = (spatial, temporal);
            self.template_count += 1;
            match reader.bits(2)? {
                0 => {}
                1 => temporal += 1,
                2 => (spatial, temporal) = (spatial + 1, 0),
                _ => return Some(spatial),
            }
            if usize::from(spatial) >= MAX_SPATIAL_LAYERS || usize::from(temporal) >= MAX_TEMPORAL_LAYERS {
                return None;
            }
        }
    }

    /// `template_chains()`
    fn read_chains(&mut self, reader: &mut BitReader<'_>) -> Option<()> {
        self.chain_count = reader.non_symmetric(u32::from(self.decode_target_count) + 1)? as u8;
        if self.chain_count == 0 {
            return Some(());
        }
        for chain in self.protected_by.get_mut(..usize::from(self.decode_target_count))? {
            *chain = reader.non_symmetric(self.chain_count.into())? as u8;
        }
        for template in self.templates.get_mut(..usize::from(self.template_count))? {
            template.chain_diffs = ChainDiffs::read(reader, self.chain_count, 4)?;
        }
        Some(())
    }

    fn find_targets(&mut self) {
        for (index, target) in self.targets.iter_mut().enumerate().take(self.decode_target_count.into()) {
            for template in self.templates.iter().take(self.template_count.into()) {
                if template.indications.get(index) != Indication::NotPresent {
                    target.spatial = target.spatial.max(template.spatial);
                    target.temporal = target.temporal.max(template.temporal);
                }
            }
        }
    }

    /// From 1 to 32.
    pub fn decode_target_count(&self) -> u8 {
        self.decode_target_count
    }

    /// From 0 to 32.
    pub fn chain_count(&self) -> u8 {
        self.chain_count
    }

    /// From 1 to 64.
    pub fn template_count(&self) -> u8 {
        self.template_count
    }

    /// The highest layers that each decode target contains, in the order of the targets.
    pub fn decode_targets(&self) -> &[DecodeTargetLayer] {
        self.targets.get(..usize::from(self.decode_target_count)).unwrap_or_default()
    }

    /// Bit n is decode target n.
    pub fn all_decode_targets(&self) -> u32 {
        u32::MAX >> (MAX_DECODE_TARGETS as u8 - self.decode_target_count)
    }

    /// Which chain shows, by being whole, that a decode target is decodable. `None` for a target that is not there,
    /// and for all when the structure has no chains.
    pub fn protecting_chain(&self, decode_target: usize) -> Option<usize> {
        let chain = *self.protected_by.get(..usize::from(self.decode_target_count))?.get(decode_target)?;
        (chain < self.chain_count).then_some(chain.into())
    }

    /// The largest picture of a spatial layer, if the structure tells.
    pub fn resolution(&self, spatial: u8) -> Option<Resolution> {
        self.resolutions?.get(usize::from(spatial)).copied().filter(|size| size.width > 0)
    }

    pub(super) fn template(&self, id: u8) -> Option<&Template> {
        let index = usize::from(id.wrapping_sub(self.id_offset)) % MAX_TEMPLATES;
        self.templates.get(..usize::from(self.template_count))?.get(index)
    }
}
