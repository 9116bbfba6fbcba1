//! Packets over TCP: each has its length before it ([RFC 4571](https://www.rfc-editor.org/rfc/rfc4571)).

/// The largest packet taken from a connection, in bytes: what a datagram of ours may be.
pub const MAX_FRAME: usize = 1_500;

const LENGTH: usize = 2;

/// Parts a stream of bytes into packets.
///
/// Keeps at most one incomplete frame beside what is pushed at a time: take all frames before pushing more.
#[derive(Debug, Default)]
pub struct Deframer {
    bytes: Vec<u8>,
    /// What of `bytes` has been given out.
    taken: usize,
}

/// A length that no packet has. Where the next frame begins is not known then: the connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes")]
pub struct BadLength(pub usize);

impl Deframer {
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame; `Ok(None)` until more bytes come.
    pub fn poll(&mut self) -> Result<Option<&[u8]>, BadLength> {
        let rest = &self.bytes[self.taken..];
        let Some(length) = rest.first_chunk::<LENGTH>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes(*length));
        if length == 0 || length > MAX_FRAME {
            return Err(BadLength(length));
        }
        let Some(frame) = rest.get(LENGTH..LENGTH + length) else { return Ok(None) };
        self.taken += LENGTH + length;
        Ok(Some(frame))
    }

    /// Bytes that wait for the rest of their frame, or to be taken.
    pub fn buffered(&self) -> usize {
        self.bytes.len() - self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(deframer: &mut Deframer) -> Result<Vec<Vec<u8>>, BadLength> {
        let mut frames = Vec::new();
        while let Some(frame) = deframer.poll()? {
            frames.push(frame.to_vec());
        }
        Ok(frames)
    }

    #[test]
    fn frames_are_parted_by_their_lengths_however_they_arrive() {
        let stream = [0, 3, 1, 2, 3, 0, 1, 9, 0, 2, 7];
        for piece in 1..=stream.len() {
            let mut deframer = Deframer::default();
            let mut found = Vec::new();
            for bytes in stream.chunks(piece) {
                deframer.push(bytes);
                found.extend(frames(&mut deframer).unwrap());
            }
            assert_eq!(found, [vec![1, 2, 3], vec![9]], "in pieces of {piece}");
            assert_eq!(deframer.buffered(), 3);
        }
    }

    #[test]
    fn empty_and_oversized_frames_are_refused_by_their_length_alone() {
        for len in [0, MAX_FRAME as u16 + 1, u16::MAX] {
            let mut deframer = Deframer::default();
            deframer.push(&len.to_be_bytes());
            assert_eq!(frames(&mut deframer), Err(BadLength(len.into())));
        }
        let mut deframer = Deframer::default();
        deframer.push(&(MAX_FRAME as u16).to_be_bytes());
        assert_eq!(frames(&mut deframer), Ok(vec![]));
    }
}
