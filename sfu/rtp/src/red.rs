//! Redundant audio ([RFC 2198 §3](https://www.rfc-editor.org/rfc/rfc2198#section-3)).
//!
//! ```text
//! |1|  block PT   |     timestamp offset      |   block length    |  each redundant block
//! |0|  block PT   |                                                  the primary block
//! ```

/// One block of a RED payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    pub payload_type: u8,
    /// How far the block's timestamp lies before the packet's, in clock units; 0 for the primary block.
    pub timestamp_offset: u16,
    pub is_primary: bool,
    pub payload: &'a [u8],
}

/// The blocks of a RED payload, oldest first, the primary last. Ends early at a block that runs past the payload.
#[derive(Clone, Debug)]
pub struct Blocks<'a> {
    headers: &'a [u8],
    data: &'a [u8],
}

impl<'a> Blocks<'a> {
    /// `None` when the block headers do not end within the payload.
    pub fn new(payload: &'a [u8]) -> Option<Self> {
        let mut at = 0;
        while *payload.get(at)? & 0x80 != 0 {
            at += 4;
        }
        let (headers, data) = payload.split_at_checked(at + 1)?;
        Some(Self { headers, data })
    }
}

impl<'a> Iterator for Blocks<'a> {
    type Item = Block<'a>;

    fn next(&mut self) -> Option<Block<'a>> {
        match *self.headers {
            [] => None,
            [last] => {
                self.headers = &[];
                let payload = std::mem::take(&mut self.data);
                Some(Block { payload_type: last & 0x7f, timestamp_offset: 0, is_primary: true, payload })
            }
            [first, b1, b2, b3, ref rest @ ..] => {
                let len = usize::from(b2 & 0x03) << 8 | usize::from(b3);
                let Some((payload, data)) = self.data.split_at_checked(len) else {
                    self.headers = &[];
                    return None;
                };
                self.headers = rest;
                self.data = data;
                let timestamp_offset = u16::from(b1) << 6 | u16::from(b2 >> 2);
                Some(Block { payload_type: first & 0x7f, timestamp_offset, is_primary: false, payload })
            }
            _ => None,
        }
    }
}

/// The payload type and payload of the primary block.
pub fn primary(payload: &[u8]) -> Option<(u8, &[u8])> {
    let block = Blocks::new(payload)?.last().filter(|block| block.is_primary)?;
    Some((block.payload_type, block.payload))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TWO: [u8; 10] = [0x80 | 111, 0x0f, 0b0000_0000, 3, 111, b'o', b'l', b'd', b'n', b'w'];

    #[test]
    fn reads_redundant_and_primary_blocks() {
        let blocks: Vec<_> = Blocks::new(&TWO).unwrap().collect();
        assert_eq!(
            blocks,
            [
                Block { payload_type: 111, timestamp_offset: 960, is_primary: false, payload: b"old" },
                Block { payload_type: 111, timestamp_offset: 0, is_primary: true, payload: b"nw" },
            ]
        );
        assert_eq!(primary(&TWO), Some((111, &b"nw"[..])));
    }

    #[test]
    fn a_payload_may_be_primary_alone() {
        assert_eq!(primary(&[111, 1, 2]), Some((111, &[1, 2][..])));
        assert_eq!(primary(&[111]), Some((111, &[][..])));
    }

    #[test]
    fn refuses_lying_lengths() {
        let mut lying = TWO;
        lying[3] = 6;
        assert_eq!(primary(&lying), None);
        assert_eq!(Blocks::new(&lying).unwrap().count(), 0);
        assert!(Blocks::new(&[0x80 | 111, 0, 0, 0]).is_none());
        assert!(Blocks::new(&[]).is_none());
    }

    proptest! {
        #[test]
        fn reading_is_total(payload in proptest::collection::vec(any::<u8>(), 0..60)) {
            primary(&payload);
            if let Some(blocks) = Blocks::new(&payload) {
                prop_assert!(blocks.map(|block| block.payload.len()).sum::<usize>() < payload.len());
            }
        }
    }
}
