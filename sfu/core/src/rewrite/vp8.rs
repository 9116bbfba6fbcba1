//! The numbers in the VP8 payload descriptor of one subscription
//! ([RFC 7741 §4.2](https://www.rfc-editor.org/rfc/rfc7741#section-4.2)): receivers wait for a picture whose number is
//! missing, so numbers go on across switches and close over temporal layers left out.

use super::epochs::Epochs;

/// Past offsets kept; as many as the sequence map keeps stretches. Each costs 6 bytes.
const MAX_PAST: usize = 48;

/// The longest descriptor: all fields, with a 15-bit picture id.
pub const MAX_DESCRIPTOR: usize = 6;

/// The rewritten descriptor. It replaces as many bytes at the start of the payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefix {
    bytes: [u8; MAX_DESCRIPTOR],
    len: u8,
}

impl Prefix {
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Added to the ingress numbers, each modulo its own width.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Offsets {
    picture: u16,
    tl0: u8,
    key: u8,
}

/// The numbers of the newest picture sent. A number that the source does not send stays.
#[derive(Clone, Copy, Debug, Default)]
struct Newest {
    sequence: u64,
    picture: u16,
    tl0: u8,
    key: u8,
}

/// Where the numbers are in a descriptor, by offset; 0 is absent, as the first byte never is one of them.
#[derive(Clone, Copy, Debug, Default)]
struct Layout {
    len: u8,
    picture: u8,
    is_long: bool,
    tl0: u8,
    /// The byte of TID, Y and KEYIDX, when KEYIDX is meant.
    key: u8,
}

/// Offsets for each stretch of egress sequence numbers.
#[derive(Clone, Debug)]
pub struct Vp8Numbers {
    offsets: Epochs<Offsets, MAX_PAST>,
    newest: Option<Newest>,
    /// The ingress picture id last left out, so that its further packets don't count again.
    dropped: Option<u16>,
}

impl Default for Vp8Numbers {
    fn default() -> Self {
        Self { offsets: Epochs::new(Offsets::default()), newest: None, dropped: None }
    }
}

impl Vp8Numbers {
    /// A stretch begins with the packet that gets egress number `sequence`: its picture follows the last one sent.
    /// Resuming the same encoding after a pause is a new stretch too.
    pub fn start(&mut self, sequence: u64, payload: &[u8]) {
        self.dropped = None;
        let (Some(newest), Some(layout)) = (self.newest, Layout::read(payload)) else {
            self.offsets.begin(sequence, Offsets::default());
            return;
        };
        let read = layout.numbers(payload);
        let offsets = Offsets {
            picture: newest.picture.wrapping_add(1).wrapping_sub(read.picture),
            tl0: newest.tl0.wrapping_add(1).wrapping_sub(read.tl0),
            key: newest.key.wrapping_add(1).wrapping_sub(read.key),
        };
        self.offsets.begin(sequence, offsets);
    }

    /// A packet in order of a picture left out on purpose. `next_sequence` is the egress number that the next packet
    /// gets.
    pub fn drop_picture(&mut self, next_sequence: u64, payload: &[u8]) {
        let Some(layout) = Layout::read(payload).filter(|layout| layout.picture > 0) else { return };
        let picture = layout.numbers(payload).picture;
        if self.dropped.replace(picture) == Some(picture) {
            return;
        }
        let present = self.offsets.present();
        self.offsets.begin(next_sequence, Offsets { picture: present.picture.wrapping_sub(1), ..present });
    }

    /// The descriptor for the packet with egress number `sequence`, new, late or sent again. `None` when it is broken
    /// or belongs to a stretch long past.
    #[inline]
    pub fn forward(&mut self, sequence: u64, payload: &[u8]) -> Option<Prefix> {
        let layout = Layout::read(payload)?;
        let offsets = self.offsets.at(sequence)?;
        let read = layout.numbers(payload);
        let picture = read.picture.wrapping_add(offsets.picture);
        let tl0 = read.tl0.wrapping_add(offsets.tl0);
        let key = read.key.wrapping_add(offsets.key);

        if self.newest.is_none_or(|newest| sequence > newest.sequence) {
            let last = self.newest.unwrap_or_default();
            self.newest = Some(Newest {
                sequence,
                picture: if layout.picture > 0 { picture } else { last.picture },
                tl0: if layout.tl0 > 0 { tl0 } else { last.tl0 },
                key: if layout.key > 0 { key } else { last.key },
            });
        }

        let mut prefix = Prefix { len: layout.len, ..Prefix::default() };
        let bytes = &mut prefix.bytes;
        bytes[..usize::from(layout.len)].copy_from_slice(payload.get(..usize::from(layout.len))?);
        if layout.picture > 0 {
            let at = usize::from(layout.picture);
            if layout.is_long {
                bytes[at..at + 2].copy_from_slice(&(picture | 0x8000).to_be_bytes());
            } else {
                bytes[at] = picture as u8 & 0x7f;
            }
        }
        if layout.tl0 > 0 {
            bytes[usize::from(layout.tl0)] = tl0;
        }
        if layout.key > 0 {
            let byte = &mut bytes[usize::from(layout.key)];
            *byte = *byte & 0xe0 | key & 0x1f;
        }
        Some(prefix)
    }
}

impl Layout {
    #[inline]
    fn read(payload: &[u8]) -> Option<Self> {
        let mut layout = Self { len: 1, ..Self::default() };
        if *payload.first()? & 0x80 == 0 {
            return Some(layout);
        }
        let present = *payload.get(1)?;
        layout.len = 2;
        if present & 0x80 != 0 {
            layout.picture = layout.len;
            layout.is_long = payload.get(2)? & 0x80 != 0;
            layout.len += 1 + u8::from(layout.is_long);
        }
        if present & 0x40 != 0 {
            layout.tl0 = layout.len;
            layout.len += 1;
        }
        if present & 0x30 != 0 {
            layout.key = if present & 0x10 != 0 { layout.len } else { 0 };
            layout.len += 1;
        }
        (payload.len() >= usize::from(layout.len)).then_some(layout)
    }

    /// The numbers themselves, zero where absent. `payload` is the one the layout was read from.
    fn numbers(self, payload: &[u8]) -> Newest {
        let byte = |at: u8| payload.get(usize::from(at)).copied().unwrap_or_default();
        let picture = match (self.picture, self.is_long) {
            (0, _) => 0,
            (at, false) => u16::from(byte(at) & 0x7f),
            (at, true) => u16::from_be_bytes([byte(at) & 0x7f, byte(at + 1)]),
        };
        Newest {
            sequence: 0,
            picture,
            tl0: if self.tl0 > 0 { byte(self.tl0) } else { 0 },
            key: if self.key > 0 { byte(self.key) & 0x1f } else { 0 },
        }
    }
}

#[cfg(test)]
mod tests;
