//! Telling a receiver which decode targets it gets.

use super::{ExtendedFlags, MANDATORY_LEN, TemplateStructure};
use crate::bits::{BitReader, BitWriter};

/// Writes `descriptor` into `buffer` with `active` as its bitmask of active decode targets, everything else as it was,
/// and returns the length. A focus that leaves out decode targets says so in every packet with a structure, and
/// reliably after each change: A.4.4.
///
/// `structure` is the one kept for the stream; one attached is used instead. `None` when malformed or when the result
/// does not fit. The result is at most five bytes longer than `descriptor`.
pub fn set_active_decode_targets(
    descriptor: &[u8],
    structure: &TemplateStructure,
    active: u32,
    buffer: &mut [u8],
) -> Option<usize> {
    let mut writer = BitWriter::new(buffer);
    let mut reader = BitReader::new(descriptor);
    writer.copy(&mut reader, 8 * MANDATORY_LEN)?;
    if descriptor.len() == MANDATORY_LEN {
        writer.bits(0b01000, ExtendedFlags::LEN)?;
        writer.bits(active, structure.decode_target_count().into())?;
        return Some(writer.len());
    }
    let flags = ExtendedFlags::read(&mut reader)?;
    for flag in
        [flags.structure, true, flags.custom_indications, flags.custom_frame_diffs, flags.custom_chains]
    {
        writer.bit(flag)?;
    }
    let attached;
    let structure = if flags.structure {
        let mut from = reader.clone();
        attached = TemplateStructure::read(&mut reader)?;
        let len = reader.position() - from.position();
        writer.copy(&mut from, len)?;
        &attached
    } else {
        structure
    };
    let width = structure.decode_target_count().into();
    writer.bits(active, width)?;
    if flags.active_decode_targets {
        reader.bits(width)?;
    }
    // What follows is for the receiver to interpret; the last byte's padding comes along and stays zero.
    while let Some(bit) = reader.bit() {
        // Padding that would need another byte is no longer needed.
        if writer.bit(bit).is_none() {
            return if bit { None } else { Some(writer.len()) };
        }
    }
    Some(writer.len())
}
