use proptest::prelude::*;

use super::*;
use crate::bits::BitWriter;

/// Spatial, temporal, indications, frame diffs, chain diffs.
type DescribedTemplate = (u8, u8, Vec<u8>, Vec<u8>, Vec<u8>);

/// A structure as a sender describes it, before it is bits.
#[derive(Clone, Debug)]
struct Description {
    id_offset: u8,
    templates: Vec<DescribedTemplate>,
    decode_targets: u8,
    protected_by: Vec<u8>,
    chains: u8,
    resolutions: Option<Vec<(u16, u16)>>,
}

fn non_symmetric(writer: &mut BitWriter<'_>, value: u32, choices: u32) {
    let width = u32::BITS - choices.leading_zeros();
    let short_ones = (1 << width) - choices;
    if value < short_ones {
        writer.bits(value, width - 1).unwrap();
    } else {
        writer.bits(value + short_ones, width).unwrap();
    }
}

impl Description {
    /// Five layers of L1T3: A.6.1 of the specification.
    fn l1t3() -> Self {
        let template = |temporal, indications: [u8; 3], diffs: &[u8], chain| {
            (0, temporal, indications.to_vec(), diffs.to_vec(), vec![chain])
        };
        Self {
            id_offset: 62, // the ids wrap
            templates: vec![
                template(0, [2, 2, 2], &[], 0),
                template(0, [2, 2, 2], &[4], 4),
                template(1, [2, 1, 0], &[2], 2),
                template(2, [1, 0, 0], &[1], 1),
                template(2, [1, 0, 0], &[1], 3),
            ],
            decode_targets: 3,
            protected_by: vec![0, 0, 0],
            chains: 1,
            resolutions: Some(vec![(1280, 720)]),
        }
    }

    fn write(&self, writer: &mut BitWriter<'_>) {
        writer.bits(self.id_offset.into(), 6).unwrap();
        writer.bits(u32::from(self.decode_targets) - 1, 5).unwrap();
        for (this, next) in self.templates.iter().zip(self.templates.iter().skip(1)) {
            let step = match (next.0 - this.0, next.1 == this.1) {
                (0, true) => 0,
                (0, false) => 1,
                _ => 2,
            };
            writer.bits(step, 2).unwrap();
        }
        writer.bits(3, 2).unwrap();
        for (_, _, indications, _, _) in &self.templates {
            for indication in indications {
                writer.bits((*indication).into(), 2).unwrap();
            }
        }
        for (_, _, _, diffs, _) in &self.templates {
            for diff in diffs {
                writer.bit(true).unwrap();
                writer.bits(u32::from(*diff) - 1, 4).unwrap();
            }
            writer.bit(false).unwrap();
        }
        non_symmetric(writer, self.chains.into(), u32::from(self.decode_targets) + 1);
        if self.chains > 0 {
            for chain in &self.protected_by {
                non_symmetric(writer, (*chain).into(), self.chains.into());
            }
            for (_, _, _, _, chain_diffs) in &self.templates {
                for diff in chain_diffs {
                    writer.bits((*diff).into(), 4).unwrap();
                }
            }
        }
        writer.bit(self.resolutions.is_some()).unwrap();
        for (width, height) in self.resolutions.iter().flatten() {
            writer.bits(u32::from(*width) - 1, 16).unwrap();
            writer.bits(u32::from(*height) - 1, 16).unwrap();
        }
    }

    /// A descriptor of the first packet of the template at `index`, this structure attached.
    fn attached(&self, index: usize, active: Option<u32>) -> Vec<u8> {
        let mut bytes = [0; 2_000];
        let mut writer = BitWriter::new(&mut bytes);
        writer.bits(0b10, 2).unwrap();
        writer.bits((u32::from(self.id_offset) + index as u32) % 64, 6).unwrap();
        writer.bits(0x1234, 16).unwrap();
        writer.bit(true).unwrap();
        writer.bit(active.is_some()).unwrap();
        writer.bits(0, 3).unwrap();
        self.write(&mut writer);
        if let Some(active) = active {
            writer.bits(active, self.decode_targets.into()).unwrap();
        }
        let len = writer.len();
        bytes[..len].to_vec()
    }
}

fn layers() -> impl Strategy<Value = Vec<(u8, u8)>> {
    proptest::collection::vec(0u8..3, 0..20).prop_map(|steps| {
        let mut layers = vec![(0, 0)];
        for step in steps {
            let (spatial, temporal) = *layers.last().unwrap();
            layers.push(match step {
                1 if temporal < 7 => (spatial, temporal + 1),
                2 if spatial < 3 => (spatial + 1, 0),
                _ => (spatial, temporal),
            });
        }
        layers
    })
}

fn description() -> impl Strategy<Value = Description> {
    (layers(), 1u8..=32, 0u8..64, any::<bool>()).prop_flat_map(
        |(layers, decode_targets, id_offset, with_resolutions)| {
            let count = layers.len();
            let spatial_layers = usize::from(layers.last().unwrap().0) + 1;
            let targets = usize::from(decode_targets);
            (0..=decode_targets).prop_flat_map(move |chains| {
                let layers = layers.clone();
                (
                    proptest::collection::vec(proptest::collection::vec(0u8..4, targets), count),
                    proptest::collection::vec(proptest::collection::vec(1u8..=16, 0..MAX_FRAME_DIFFS), count),
                    proptest::collection::vec(proptest::collection::vec(0u8..16, usize::from(chains)), count),
                    proptest::collection::vec(0..chains.max(1), targets),
                    proptest::collection::vec((1u16.., 1u16..), spatial_layers),
                )
                    .prop_map(
                        move |(indications, diffs, chain_diffs, protected_by, resolutions)| {
                            let templates = layers
                                .iter()
                                .zip(indications)
                                .zip(diffs.into_iter().zip(chain_diffs))
                                .map(|(((spatial, temporal), indications), (diffs, chain_diffs))| {
                                    (*spatial, *temporal, indications, diffs, chain_diffs)
                                })
                                .collect();
                            let resolutions = with_resolutions.then_some(resolutions);
                            Description {
                                id_offset,
                                templates,
                                decode_targets,
                                protected_by,
                                chains,
                                resolutions,
                            }
                        },
                    )
            })
        },
    )
}

#[test]
fn reads_the_first_packet_of_a_sequence() {
    let bytes = Description::l1t3().attached(0, None);
    let structure = TemplateStructure::attached_to(&bytes).unwrap();
    assert_eq!(
        (structure.template_count(), structure.decode_target_count(), structure.chain_count()),
        (5, 3, 1)
    );
    assert_eq!(structure.protecting_chain(2), Some(0));
    assert_eq!(structure.protecting_chain(3), None);
    assert_eq!(structure.all_decode_targets(), 0b111);
    let temporal: Vec<_> = structure.decode_targets().iter().map(|target| target.temporal).collect();
    assert_eq!(temporal, [2, 1, 0]);
    let read = DependencyDescriptor::parse(&bytes, None).unwrap();
    assert!(read.mandatory.has_structure && read.mandatory.starts_frame && !read.mandatory.ends_frame);
    assert_eq!(read.mandatory.frame_number, 0x1234);
    assert_eq!(read.frame_diffs.as_slice(), []);
    assert_eq!(read.chain_diffs.as_slice(), [0]);
    assert_eq!(read.active_decode_targets, Some(0b111));
    assert_eq!(read.resolution, Some(Resolution { width: 1280, height: 720 }));
}

#[test]
fn fills_in_templates_by_ids_that_wrap() {
    let structure = TemplateStructure::attached_to(&Description::l1t3().attached(0, None)).unwrap();
    // 62, 63, 0, 1, 2
    let read = DependencyDescriptor::parse(&[0xc0 | 1, 0, 9], Some(&structure)).unwrap();
    assert!(read.mandatory.starts_frame && read.mandatory.ends_frame && !read.mandatory.has_structure);
    assert_eq!((read.spatial, read.temporal), (0, 2));
    assert_eq!(read.frame_diffs.as_slice(), [1]);
    assert_eq!(read.chain_diffs.as_slice(), [1]);
    assert_eq!(
        read.indications.iter().collect::<Vec<_>>(),
        [Indication::Discardable, Indication::NotPresent, Indication::NotPresent]
    );
    assert_eq!(read.active_decode_targets, None);
    assert_eq!(DependencyDescriptor::parse(&[3, 0, 9], Some(&structure)), None, "no such template");
    assert_eq!(DependencyDescriptor::parse(&[61, 0, 9], Some(&structure)), None, "no such template");
    assert_eq!(DependencyDescriptor::parse(&[1, 0, 9], None), None, "no structure");
}

/// The first descriptor of an L3T3 stream as Chrome puts it on the wire.
const CHROME_L3T3: [u8; 95] = [
    0xc1, 0x01, 0x72, 0x80, 0x08, 0x14, 0x85, 0x21, 0x4e, 0xaf, 0xff, 0xaa, 0xaa, 0x86, 0x3c, 0xf0, 0x43,
    0x0c, 0x10, 0xc3, 0x02, 0xaf, 0xc0, 0xaa, 0xa0, 0x06, 0x3c, 0x00, 0x43, 0x00, 0x10, 0xc0, 0x02, 0xa0,
    0x00, 0xa8, 0x00, 0x06, 0x00, 0x00, 0x40, 0x00, 0x1d, 0x95, 0x49, 0x26, 0xe0, 0x82, 0xb0, 0x4a, 0x09,
    0x41, 0xb8, 0x20, 0xac, 0x12, 0x82, 0x50, 0x31, 0x57, 0xf9, 0x74, 0x00, 0x0c, 0xa8, 0x64, 0x33, 0x0e,
    0x22, 0x22, 0x22, 0xec, 0xa8, 0x65, 0x53, 0x04, 0x22, 0x42, 0x30, 0xec, 0xa8, 0x77, 0x53, 0x00, 0x77,
    0x00, 0x42, 0x00, 0xef, 0x00, 0x86, 0x01, 0xdf, 0x01, 0x0d,
];

#[test]
fn understands_what_chrome_sends() {
    let structure = TemplateStructure::attached_to(&CHROME_L3T3).unwrap();
    assert_eq!((structure.decode_target_count(), structure.chain_count()), (9, 3));
    let sizes: Vec<_> =
        (0..4).map(|spatial| structure.resolution(spatial).map(|size| (size.width, size.height))).collect();
    assert_eq!(sizes, [Some((120, 67)), Some((240, 135)), Some((480, 270)), None]);
    let targets: Vec<_> =
        structure.decode_targets().iter().map(|target| (target.spatial, target.temporal)).collect();
    assert_eq!(targets, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]);
    for (target, chain) in [(0, 0), (2, 0), (3, 1), (5, 1), (6, 2), (8, 2)] {
        assert_eq!(structure.protecting_chain(target), Some(chain));
    }

    let first = DependencyDescriptor::parse(&CHROME_L3T3, None).unwrap();
    assert_eq!((first.spatial, first.temporal, first.mandatory.frame_number), (0, 0, 0x0172));
    assert!(first.mandatory.starts_frame && first.mandatory.ends_frame);
    assert_eq!(first.frame_diffs.as_slice(), []);
    assert_eq!(first.active_decode_targets, Some(0x1ff));
    let upper = DependencyDescriptor::parse(&[0x86, 0x01, 0x73], Some(&structure)).unwrap();
    assert_eq!((upper.spatial, upper.temporal), (1, 0));
    assert_eq!(upper.frame_diffs.as_slice(), [1]);
    assert_eq!(upper.indications.get(0), Indication::NotPresent);
    assert_eq!(upper.indications.get(3), Indication::Switch);

    // Without its third spatial layer the sender says so in every packet, as our rewriting does.
    let two_layers = [0x86, 0x01, 0x73, 0x40, 0xfc];
    let read = DependencyDescriptor::parse(&two_layers, Some(&structure)).unwrap();
    assert_eq!(read, DependencyDescriptor { active_decode_targets: Some(0b000_111_111), ..upper });
    let mut buffer = [0; 8];
    let len = set_active_decode_targets(&[0x86, 0x01, 0x73], &structure, 0b000_111_111, &mut buffer).unwrap();
    assert_eq!(buffer[..len], two_layers);
}

#[test]
fn custom_fields_replace_the_template() {
    let structure = TemplateStructure::attached_to(&Description::l1t3().attached(0, None)).unwrap();
    let mut bytes = [0; 20];
    let mut writer = BitWriter::new(&mut bytes);
    writer.bits(63 << 16 | 77, 24).unwrap();
    writer.bits(0b01111, 5).unwrap();
    writer.bits(0b011, 3).unwrap(); // active targets
    writer.bits(0b11_10_01, 6).unwrap(); // indications
    writer.bits(0b01_0010, 6).unwrap(); // 3 back
    writer.bits(0b10_0001_0000, 10).unwrap(); // 17 back
    writer.bits(0b11_1111_1111_1111, 14).unwrap(); // 4,096 back
    writer.bits(0, 2).unwrap();
    writer.bits(200, 8).unwrap(); // chain
    let len = writer.len();
    let read = DependencyDescriptor::parse(&bytes[..len], Some(&structure)).unwrap();
    assert_eq!(read.active_decode_targets, Some(0b011));
    assert_eq!(
        read.indications.iter().collect::<Vec<_>>(),
        [Indication::Required, Indication::Switch, Indication::Discardable]
    );
    assert_eq!(read.frame_diffs.as_slice(), [3, 17, 4_096]);
    assert_eq!(read.chain_diffs.as_slice(), [200]);
    for cut in 3..len {
        let read = DependencyDescriptor::parse(&bytes[..cut], Some(&structure));
        assert_eq!(read.is_some(), cut == 3, "{cut} bytes");
    }
}

#[test]
fn more_references_than_av1_has_are_refused() {
    let structure = TemplateStructure::attached_to(&Description::l1t3().attached(0, None)).unwrap();
    let mut bytes = [0; 40];
    let mut writer = BitWriter::new(&mut bytes);
    writer.bits(63 << 16, 24).unwrap();
    writer.bits(0b00010, 5).unwrap();
    for _ in 0..=MAX_FRAME_DIFFS {
        writer.bits(0b01_0000, 6).unwrap();
    }
    assert_eq!(DependencyDescriptor::parse(&bytes, Some(&structure)), None);
}

#[test]
fn endless_layers_are_refused() {
    // next_layer_idc 0 for ever
    let mut zeros = [0; 200];
    zeros[3] = 0x80;
    assert_eq!(TemplateStructure::attached_to(&zeros), None);
    for layer_step in [0b0101_0101, 0b1010_1010] {
        let mut layers = [layer_step; 200];
        layers[3] = 0x80;
        layers[4] = 0;
        assert_eq!(TemplateStructure::attached_to(&layers), None);
    }
}

#[test]
fn a_short_descriptor_gets_its_active_targets() {
    let structure = TemplateStructure::attached_to(&Description::l1t3().attached(0, None)).unwrap();
    let mut buffer = [0xee; 8];
    let len = set_active_decode_targets(&[0x80 | 63, 0, 9], &structure, 0b110, &mut buffer).unwrap();
    assert_eq!(buffer[..len], [0xbf, 0, 9, 0b0100_0110]);
    let mut small = [0; 3];
    assert_eq!(set_active_decode_targets(&[0x80 | 63, 0, 9], &structure, 0b110, &mut small), None);
}

proptest! {
    #[test]
    fn structures_read_back(description in description(), active: u32, with_active: bool) {
        let mask = u32::MAX >> (32 - description.decode_targets);
        let active = with_active.then_some(active & mask);
        let last = description.templates.len() - 1;
        let bytes = description.attached(last, active);
        let structure = TemplateStructure::attached_to(&bytes).unwrap();
        for (index, (spatial, temporal, indications, diffs, chain_diffs)) in description.templates.iter().enumerate() {
            let id = (description.id_offset + index as u8) % 64;
            let read = DependencyDescriptor::parse(&[id, 0, index as u8], Some(&structure)).unwrap();
            prop_assert_eq!((read.spatial, read.temporal), (*spatial, *temporal));
            let read_indications: Vec<_> = read.indications.iter().map(|indication| indication as u8).collect();
            prop_assert_eq!(&read_indications, indications);
            prop_assert!(read.frame_diffs.as_slice().iter().copied().eq(diffs.iter().map(|diff| u16::from(*diff))));
            prop_assert_eq!(read.chain_diffs.as_slice(), &chain_diffs[..]);
            let size = description.resolutions.as_ref().map(|sizes| sizes[usize::from(*spatial)]);
            prop_assert_eq!(read.resolution.map(|size| (size.width as u16, size.height as u16)), size);
        }
        for (target, chain) in description.protected_by.iter().enumerate() {
            let chain = (*chain < description.chains).then_some(usize::from(*chain));
            prop_assert_eq!(structure.protecting_chain(target), chain);
        }
        let read = DependencyDescriptor::parse(&bytes, None).unwrap();
        prop_assert_eq!(read.active_decode_targets, Some(active.unwrap_or(mask)));

        // Rewritten, it differs in the active targets alone.
        let mut buffer = vec![0; bytes.len() + 5];
        let rewritten = 0x5555_5555 & mask;
        let len = set_active_decode_targets(&bytes, &structure, rewritten, &mut buffer).unwrap();
        let reread = DependencyDescriptor::parse(&buffer[..len], None).unwrap();
        prop_assert_eq!(reread, DependencyDescriptor { active_decode_targets: Some(rewritten), ..read });
        prop_assert_eq!(TemplateStructure::attached_to(&buffer[..len]), Some(structure));
    }

    #[test]
    fn parsing_is_total(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), attach: bool, active: u32) {
        if attach && bytes.len() > 3 {
            bytes[3] |= 0x80;
        }
        let structure = TemplateStructure::attached_to(&Description::l1t3().attached(0, None)).unwrap();
        DependencyDescriptor::parse(&bytes, None);
        TemplateStructure::attached_to(&bytes);
        let mut buffer = vec![0; bytes.len() + 5];
        if let Some(read) = DependencyDescriptor::parse(&bytes, Some(&structure)) {
            let len = set_active_decode_targets(&bytes, &structure, active, &mut buffer).unwrap();
            let reread = DependencyDescriptor::parse(&buffer[..len], Some(&structure)).unwrap();
            prop_assert_eq!((reread.indications, reread.frame_diffs), (read.indications, read.frame_diffs));
        }
    }
}
