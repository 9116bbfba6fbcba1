//! The numbers in the VP8 payload descriptor of one subscription
//! ([RFC 7741 §4.2](https://www.rfc-editor.org/rfc/rfc7741#section-4.2)): receivers wait for a picture whose number is
//! missing, so numbers go on across switches and close over temporal layers left out.

use weir_rtp::vp8::Vp8Descriptor;

use super::epochs::Epochs;

/// Past offsets kept; as many as the sequence map keeps stretches. Each costs 6 bytes.
const MAX_PAST: usize = 48;

/// S and the partition's index: a picture begins with the first partition's start.
const PICTURE_START: u8 = 0x17;
const PICTURE_START_OF_FIRST: u8 = 0x10;
/// X and I: there is a second byte, and by that a picture id.
const IS_EXTENDED: u8 = 0x80;
const HAS_PICTURE: u8 = 0x80;

/// The longest descriptor: all fields, with a 15-bit picture id.
pub const MAX_DESCRIPTOR: usize = 6;

/// The rewritten descriptor. Picture ids always get 15 bits, whatever width they came in: the count that goes on across
/// switches outgrows seven bits when a source's has not yet, and a receiver that counts in fifteen would take the wrap for
/// a step back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefix {
    bytes: [u8; MAX_DESCRIPTOR],
    len: u8,
    replaces: u8,
}

impl Prefix {
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn push(&mut self, bytes: &[u8]) {
        let at = usize::from(self.len);
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len() as u8;
    }

    /// How many bytes at the start of the payload it stands for.
    pub fn replaces(&self) -> usize {
        usize::from(self.replaces)
    }
}

/// Added to the ingress numbers, each modulo its own width on egress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Offsets {
    picture: u16,
    tl0: u8,
    key: u8,
    /// Pictures go without ids.
    no_ids: bool,
}

/// The highest numbers sent, or that stay free for pictures which may come late. A number that the source does not send
/// stays.
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
    /// There is a second byte, which says what else there is.
    is_extended: bool,
    picture: u8,
    is_long: bool,
    tl0: u8,
    /// The byte of TID, Y and KEYIDX, when KEYIDX is meant.
    key: u8,
}

/// Offsets for each stretch of egress sequence numbers.
///
/// Some senders (pion's packetizer among them) leave out a picture id of zero: their first picture has none, and one of
/// each 32,768 that follow. Receivers tell what a picture refers to by ids if it has one and by sequence numbers if it has
/// none, and do not decode what mixes the two; even from one key frame to the next they take a picture that comes late for
/// the newest of all. So a subscription has ids for good if its first key frame has one, and a zero is put in where it is
/// missing; else it has none, unless temporal layers need them.
#[derive(Clone, Debug)]
pub struct Vp8Numbers {
    offsets: Epochs<Offsets, MAX_PAST>,
    newest: Option<Newest>,
    /// The ingress picture id last left out, so that its further packets don't count again.
    dropped: Option<u16>,
    /// The newest ingress picture id of the stretch, if it had 7 bits.
    short: Option<u16>,
    /// Whether the newest picture came with an id.
    had_id: bool,
}

/// What a turn of 7-bit picture ids counts, of 15-bit ones, and of key indexes.
const SHORT_TURN: u16 = 1 << 7;
const LONG_TURN: u16 = 1 << 15;
const KEY_TURN: u16 = 1 << 5;

impl Default for Vp8Numbers {
    fn default() -> Self {
        Self {
            offsets: Epochs::new(Offsets::default()),
            newest: None,
            dropped: None,
            short: None,
            had_id: false,
        }
    }
}

impl Vp8Numbers {
    /// A stretch begins with the packet that gets egress number `sequence`: its picture follows the last one sent.
    /// Resuming the same encoding after a pause is a new stretch too.
    pub fn start(&mut self, sequence: u64, payload: &[u8]) {
        self.dropped = None;
        self.short = None;
        let offsets = Layout::read(payload).map_or(Offsets::default(), |layout| {
            let read = layout.numbers(payload);
            self.has_turned(layout, read.picture);
            self.following(layout, read)
        });
        self.offsets.begin(sequence, offsets);
    }

    /// What makes the numbers of a key frame follow the last ones sent.
    fn following(&self, layout: Layout, read: Newest) -> Offsets {
        let has_none = layout.picture == 0;
        let Some(newest) = self.newest else { return Offsets { no_ids: has_none, ..Offsets::default() } };
        // A source that has none at all takes the place of one that had.
        let no_ids = if self.offsets.present().no_ids { layout.tl0 == 0 } else { has_none && !self.had_id };
        Offsets {
            picture: newest.picture.wrapping_add(1).wrapping_sub(read.picture),
            tl0: newest.tl0.wrapping_add(1).wrapping_sub(read.tl0),
            key: newest.key.wrapping_add(1).wrapping_sub(read.key),
            no_ids,
        }
    }

    /// A packet in order of a picture left out on purpose. `next_sequence` is the egress number that the next packet
    /// gets.
    pub fn drop_picture(&mut self, next_sequence: u64, payload: &[u8]) {
        let Some(layout) = Layout::read(payload).filter(|_| !self.offsets.present().no_ids) else { return };
        let read = layout.numbers(payload);
        if self.dropped.replace(read.picture) == Some(read.picture) {
            return;
        }
        let turn = if self.has_turned(layout, read.picture) { SHORT_TURN } else { 0 };
        let present = self.offsets.present();
        let offset = present.picture.wrapping_add(turn).wrapping_sub(1);
        let offsets = Offsets { picture: offset, ..present };
        self.offsets.begin(next_sequence, offsets);
        self.reserve(layout, read, offsets);
    }

    /// What is lost before a picture that was left out may come late, under the numbers up to that picture's: another
    /// stretch must not begin with them.
    fn reserve(&mut self, layout: Layout, read: Newest, offsets: Offsets) {
        let Some(newest) = &mut self.newest else { return };
        let (picture, tl0) = (read.picture.wrapping_add(offsets.picture), read.tl0.wrapping_add(offsets.tl0));
        let key = read.key.wrapping_add(offsets.key);
        let is_ahead = |distance: u16, turn: u16| (1..turn / 2).contains(&(distance % turn));
        if is_ahead(picture.wrapping_sub(newest.picture), LONG_TURN) {
            newest.picture = picture;
        }
        if layout.tl0 > 0 && is_ahead(tl0.wrapping_sub(newest.tl0).into(), 1 << 8) {
            newest.tl0 = tl0;
        }
        if layout.key > 0 && is_ahead(key.wrapping_sub(newest.key).into(), KEY_TURN) {
            newest.key = key;
        }
    }

    /// Whether ids of 7 bits began anew with this one, the newest.
    fn has_turned(&mut self, layout: Layout, picture: u16) -> bool {
        if layout.picture == 0 {
            return false;
        }
        let last = std::mem::replace(&mut self.short, (!layout.is_long).then_some(picture));
        !layout.is_long && last.is_some_and(|last| picture < last)
    }

    /// The descriptor for the packet with egress number `sequence`, new, late or sent again. `None` when it is broken
    /// or belongs to a stretch long past.
    #[inline]
    pub fn forward(&mut self, sequence: u64, payload: &[u8]) -> Option<Prefix> {
        let layout = Layout::read(payload)?;
        let read = layout.numbers(payload);
        // What comes late, from before a picture left out, says nothing of those to come: its numbers were reserved.
        let is_newest =
            self.newest.is_none_or(|newest| sequence > newest.sequence) && self.offsets.is_present(sequence);
        if is_newest && self.has_turned(layout, read.picture) {
            let present = self.offsets.present();
            let picture = present.picture.wrapping_add(SHORT_TURN);
            self.offsets.begin(sequence, Offsets { picture, ..present });
        }
        if is_newest && payload[0] & PICTURE_START == PICTURE_START_OF_FIRST {
            let had_none = layout.picture == 0 && !self.had_id && !self.offsets.present().no_ids;
            if had_none && Vp8Descriptor::parse(payload).is_some_and(|descriptor| descriptor.is_key_frame) {
                self.offsets.begin(sequence, self.following(layout, read));
            }
            self.had_id = layout.picture > 0;
        }
        let offsets = self.offsets.at(sequence)?;
        let picture = read.picture.wrapping_add(offsets.picture);
        let tl0 = read.tl0.wrapping_add(offsets.tl0);
        let key = read.key.wrapping_add(offsets.key);

        if is_newest {
            let last = self.newest.unwrap_or_default();
            self.newest = Some(Newest {
                sequence,
                picture: if offsets.no_ids { last.picture } else { picture },
                tl0: if layout.tl0 > 0 { tl0 } else { last.tl0 },
                key: if layout.key > 0 { key } else { last.key },
            });
        }

        let source = payload.get(..usize::from(layout.len))?;
        let mut prefix = Prefix { len: 0, replaces: layout.len, bytes: [0; MAX_DESCRIPTOR] };
        let (first, extension) = (source[0], if layout.is_extended { source[1] } else { 0 });
        let behind = layout.behind_picture();
        match offsets.no_ids {
            true if layout.is_extended => prefix.push(&[first, extension & !HAS_PICTURE]),
            true => prefix.push(&[first]),
            false => {
                let [high, low] = (picture | 0x8000).to_be_bytes();
                prefix.push(&[first | IS_EXTENDED, extension | HAS_PICTURE, high, low]);
            }
        }
        // What stands behind the picture id moves with its width.
        let moved = |at: u8| usize::from(at - behind + prefix.len);
        let (tl0_at, key_at) = (moved(layout.tl0.max(behind)), moved(layout.key.max(behind)));
        prefix.push(&source[usize::from(behind)..]);
        if layout.tl0 > 0 {
            prefix.bytes[tl0_at] = tl0;
        }
        if layout.key > 0 {
            let byte = &mut prefix.bytes[key_at];
            *byte = *byte & 0xe0 | key & 0x1f;
        }
        Some(prefix)
    }
}

impl Layout {
    #[inline]
    fn read(payload: &[u8]) -> Option<Self> {
        let mut layout = Self { len: 1, ..Self::default() };
        if *payload.first()? & IS_EXTENDED == 0 {
            return Some(layout);
        }
        let present = *payload.get(1)?;
        (layout.len, layout.is_extended) = (2, true);
        if present & HAS_PICTURE != 0 {
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

    /// Where what follows the picture id begins, or would if there was one.
    fn behind_picture(self) -> u8 {
        match self.picture {
            0 => 1 + u8::from(self.is_extended),
            at => at + 1 + u8::from(self.is_long),
        }
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
