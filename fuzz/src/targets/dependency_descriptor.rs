//! A mask of active decode targets (4 bytes), then descriptors of one stream, each with its length before it: the
//! structure of one serves those after it.

use weir_core::rewrite::frame_number::FrameNumbers;
use weir_rtp::dependency_descriptor::{
    DependencyDescriptor, MAX_CHAINS, MAX_DECODE_TARGETS, MAX_FRAME_DIFFS, MAX_SPATIAL_LAYERS, MAX_TEMPLATES,
    MAX_TEMPORAL_LAYERS, MandatoryFields, TemplateStructure, set_active_decode_targets,
};

use crate::Input;

/// More than a stream of these needs to show what it does.
const MAX_PACKETS: u64 = 64;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let active = input.u32();
    let mut kept: Option<TemplateStructure> = None;
    let mut numbers = FrameNumbers::default();
    for packet in 0..MAX_PACKETS {
        if input.is_empty() {
            break;
        }
        let len = input.u8();
        let descriptor = input.bytes(len.into());
        if packet == 0 {
            numbers.start(1 << 16, descriptor);
        }
        let mandatory = MandatoryFields::parse(descriptor);
        let forwarded = numbers.forward((1 << 16) + packet, descriptor);
        assert_eq!(mandatory.is_some(), forwarded.is_some());

        let attached = TemplateStructure::attached_to(descriptor);
        if let Some(structure) = attached {
            assert!(mandatory.is_some_and(|fields| fields.has_structure));
            check_structure(&structure);
            kept = Some(structure);
        }
        let Some(read) = DependencyDescriptor::parse(descriptor, kept.as_ref()) else { continue };
        let structure = kept.as_ref().expect("a descriptor is read by a structure");
        check_descriptor(&read, structure);
        narrow(descriptor, &read, structure, active);
    }
}

fn check_structure(structure: &TemplateStructure) {
    let targets = usize::from(structure.decode_target_count());
    assert!((1..=MAX_DECODE_TARGETS).contains(&targets));
    assert!((1..=MAX_TEMPLATES).contains(&usize::from(structure.template_count())));
    assert!(usize::from(structure.chain_count()) <= MAX_CHAINS.min(targets));
    assert_eq!(structure.decode_targets().len(), targets);
    assert_eq!(structure.all_decode_targets().count_ones() as usize, targets);
    for (target, layer) in structure.decode_targets().iter().enumerate() {
        assert!(usize::from(layer.spatial) < MAX_SPATIAL_LAYERS);
        assert!(usize::from(layer.temporal) < MAX_TEMPORAL_LAYERS);
        let chain = structure.protecting_chain(target);
        assert_eq!(chain.is_some(), structure.chain_count() > 0);
        assert!(chain.is_none_or(|chain| chain < usize::from(structure.chain_count())));
    }
    assert_eq!(structure.protecting_chain(targets), None);
}

fn check_descriptor(read: &DependencyDescriptor, structure: &TemplateStructure) {
    assert!(usize::from(read.spatial) < MAX_SPATIAL_LAYERS);
    assert!(usize::from(read.temporal) < MAX_TEMPORAL_LAYERS);
    assert_eq!(read.indications.len(), usize::from(structure.decode_target_count()));
    assert_eq!(read.indications.iter().count(), read.indications.len());
    assert!(read.frame_diffs.as_slice().len() <= MAX_FRAME_DIFFS);
    assert!(read.frame_diffs.as_slice().iter().all(|diff| (1..=4096).contains(diff)));
    assert_eq!(read.chain_diffs.as_slice().len(), usize::from(structure.chain_count()));
    assert!(read.active_decode_targets.is_none_or(|mask| mask & !structure.all_decode_targets() == 0));
    assert!(read.resolution.is_none_or(|size| (1..=65_536).contains(&size.width)));
}

/// Telling a receiver which decode targets it gets changes nothing else.
fn narrow(descriptor: &[u8], read: &DependencyDescriptor, structure: &TemplateStructure, active: u32) {
    let active = active & structure.all_decode_targets();
    let mut buffer = [0xee; 300];
    let len = set_active_decode_targets(descriptor, structure, active, &mut buffer)
        .expect("a descriptor that parses can be narrowed");
    assert!(len <= descriptor.len() + 5);
    let again = DependencyDescriptor::parse(&buffer[..len], Some(structure)).expect("it still parses");
    assert_eq!(again, DependencyDescriptor { active_decode_targets: Some(active), ..*read });
}
