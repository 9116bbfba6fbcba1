//! What stands in place of encoded media: a description of the frame, enough to play decoder.

/// The bytes a body takes at least; the rest of a packet is filler.
pub const BODY_LEN: usize = 44;

/// A frame of one encoding or spatial layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FrameId {
    /// The publication.
    pub source: u32,
    pub encoding: u8,
    pub spatial: u8,
    /// Counts the frames of this encoding and layer.
    pub number: u32,
}

/// Stands at the start of every packet's media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body {
    pub frame: FrameId,
    pub temporal: u8,
    pub is_key: bool,
    /// Which packet of the frame this is, of how many.
    pub index: u8,
    pub count: u8,
    /// When it was captured, in microseconds since the stage began.
    pub captured: u64,
    /// What must be decoded before, of the same encoding: (spatial layer, number).
    pub needs: [Option<(u8, u32)>; 3],
    /// The SSRC that it was published under.
    pub stream: u32,
}

impl Body {
    pub fn write(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![
            self.frame.encoding,
            self.frame.spatial,
            self.temporal,
            u8::from(self.is_key),
            self.index,
            self.count,
            0xb0,
            0xd1,
        ];
        bytes.extend(self.frame.number.to_be_bytes());
        bytes.extend(self.captured.to_be_bytes());
        bytes.extend(self.frame.source.to_be_bytes());
        for need in self.needs {
            let (spatial, number) = need.unwrap_or((u8::MAX, 0));
            bytes.push(spatial);
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend(self.stream.to_be_bytes());
        bytes.resize(len.max(BODY_LEN), 0x55);
        bytes
    }

    pub fn read(bytes: &[u8]) -> Option<Self> {
        let head: &[u8; BODY_LEN] = bytes.first_chunk()?;
        if head[6..8] != [0xb0, 0xd1] {
            return None;
        }
        let number = |at: usize| u32::from_be_bytes(*head[at..].first_chunk().unwrap());
        let need = |at: usize| (head[at] != u8::MAX).then(|| (head[at], number(at + 1)));
        Some(Self {
            frame: FrameId { source: number(20), encoding: head[0], spatial: head[1], number: number(8) },
            temporal: head[2],
            is_key: head[3] != 0,
            index: head[4],
            count: head[5],
            captured: u64::from_be_bytes(*head[12..].first_chunk().unwrap()),
            needs: [need(24), need(29), need(34)],
            stream: number(39),
        })
    }
}
