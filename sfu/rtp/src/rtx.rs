//! Retransmission payloads ([RFC 4588 §4](https://www.rfc-editor.org/rfc/rfc4588#section-4)): the original sequence
//! number, then the original payload.

/// The original sequence number in front of the payload, in bytes.
pub const OSN_LEN: usize = 2;

/// The original sequence number and payload. `None` when too short for a number; bandwidth probes of padding alone
/// have an empty payload and give `None` too.
#[inline]
pub fn decapsulate(payload: &[u8]) -> Option<(u16, &[u8])> {
    let (osn, original) = payload.split_first_chunk()?;
    Some((u16::from_be_bytes(*osn), original))
}

/// Writes the retransmission payload into `buffer` and returns its length, or `None` when it does not fit.
#[inline]
pub fn encapsulate(original_sequence: u16, original: &[u8], buffer: &mut [u8]) -> Option<usize> {
    let target = buffer.get_mut(..OSN_LEN + original.len())?;
    let (osn, rest) = target.split_at_mut(OSN_LEN);
    osn.copy_from_slice(&original_sequence.to_be_bytes());
    rest.copy_from_slice(original);
    Some(OSN_LEN + original.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_what_was_put_in() {
        let mut buffer = [0; 8];
        let len = encapsulate(0x1234, b"abc", &mut buffer).unwrap();
        assert_eq!(buffer[..len], [0x12, 0x34, b'a', b'b', b'c']);
        assert_eq!(decapsulate(&buffer[..len]), Some((0x1234, &b"abc"[..])));
        assert_eq!(decapsulate(&buffer[..2]), Some((0x1234, &b""[..])));
    }

    #[test]
    fn refuses_too_little_room_or_too_few_bytes() {
        assert_eq!(encapsulate(1, b"abc", &mut [0; 4]), None);
        assert_eq!(decapsulate(&[1]), None);
        assert_eq!(decapsulate(&[]), None);
    }
}
