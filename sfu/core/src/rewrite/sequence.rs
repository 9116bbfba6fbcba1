//! The sequence numbers of one subscription: continuous, whatever is left out upstream of them.

use std::collections::VecDeque;

/// Past stretches kept. One ends with every run of packets left out: at 30 pictures a second 1.6 s when each loses its
/// upper layers, longer than a retransmission helps. Each costs 8 bytes.
const MAX_PAST: usize = 48;

/// Numbers back to which a lost packet may still fill its place: what the ring upstream holds.
const WINDOW: u64 = 1024;

/// Of a longer gap nothing can come back. Its numbers are closed, but for one, which tells the receiver that something
/// is missing.
const MAX_GAP: u64 = WINDOW - 1;

/// In place of an encoding: numbers that no ingress packet has.
const NOBODY: u8 = u8::MAX;

/// A bit for each of the last [`WINDOW`] egress numbers.
type Bits = [u64; WINDOW as usize / 64];

/// What becomes of the number of a packet left out on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// It has none: later packets close the gap.
    Closed,
    /// It came late, after its place was left open. A receiver waits for that number; a packet of nothing but
    /// padding fills it. The place counts as filled.
    Open(u64),
    /// It came late and has no place left.
    Gone,
}

/// Maps (encoding, extended ingress number) to extended egress numbers and back.
///
/// ```text
/// ingress   A10 A11 A12 A13 A14 A15    B70 B71
///            │   │  drop lost drop │    │   │      lost packets leave their place, dropped ones don't
/// egress    100 101     102      103   104 105
/// ```
///
/// Stretches of constant offset, not a table of packets: one for each run of drops and each switch. Each begins
/// where the one before ends in egress numbers. Bound: [`MAX_PAST`] past stretches; without drops and switches none.
///
/// A number is given once: SRTP must not see two packets under one. A place left open is given to the late packet
/// that fills it, and then is closed.
#[derive(Clone, Debug)]
pub struct SequenceMap {
    present: Stretch,
    /// The next ingress number of the present encoding that was neither forwarded nor dropped.
    next_ingress: u64,
    /// Oldest first.
    past: VecDeque<Past>,
    /// The highest ingress number by encoding, from which the 32 bits of past stretches are understood.
    highest: [u64; weir_units::media::MAX_ENCODINGS],
    /// The places left open within [`WINDOW`], by egress number.
    open: Bits,
    /// How many numbers were left out so far, less those that were given since; wraps.
    left_out: u32,
    /// The places within [`WINDOW`] that padding fills, by egress number, in case the padding is asked for again. Each needs
    /// a loss upstream, so on most lines there is none: no memory until there is one.
    filled: Option<Box<Bits>>,
}

#[derive(Clone, Copy, Debug)]
struct Stretch {
    encoding: u8,
    ingress: u64,
    egress: u64,
}

impl Stretch {
    fn egress_of(&self, ingress: u64) -> u64 {
        self.egress + (ingress - self.ingress)
    }
}

/// A past stretch, seen from its end, which is where the next begins.
#[derive(Clone, Copy, Debug)]
struct Past {
    /// Low half of the ingress number after its last.
    end: u32,
    /// Saturating: a retransmission request names 16 bits, so nothing further back is asked for.
    len: u16,
    encoding: u8,
}

impl SequenceMap {
    /// `first` is the egress number of the first packet. It must leave room below, and should be random in its low
    /// 15 bits ([RFC 3711 §3.3.1](https://www.rfc-editor.org/rfc/rfc3711#section-3.3.1)).
    pub fn new(first: u64) -> Self {
        Self {
            present: Stretch { encoding: NOBODY, ingress: 0, egress: first },
            next_ingress: 0,
            past: VecDeque::new(),
            highest: [0; weir_units::media::MAX_ENCODINGS],
            open: [0; WINDOW as usize / 64],
            left_out: 0,
            filled: None,
        }
    }

    /// The subscription goes on with this packet: the first, the one that switches encodings, or the first after a
    /// pause. It gets the number after the highest given.
    pub fn start(&mut self, encoding: u8, ingress: u64) -> u64 {
        let egress = self.next_egress();
        self.close_present(egress);
        self.present = Stretch { encoding, ingress, egress };
        self.next_ingress = ingress + 1;
        self.note(encoding, ingress);
        self.set_open(egress, false);
        egress
    }

    /// The number of a packet to be forwarded, new or late; `None` when it has no place: it went already, was dropped
    /// on purpose, comes from before a switch or is too old.
    #[inline]
    pub fn forward(&mut self, encoding: u8, ingress: u64) -> Option<u64> {
        if encoding != self.present.encoding || ingress < self.next_ingress {
            let place = self.take_place(encoding, ingress)?;
            self.left_out = self.left_out.wrapping_sub(1);
            return Some(place);
        }
        let egress = self.reach(ingress);
        self.set_open(egress, false);
        Some(egress)
    }

    /// Leaves a packet out on purpose.
    #[inline]
    pub fn drop(&mut self, encoding: u8, ingress: u64) -> Dropped {
        if encoding != self.present.encoding || ingress < self.next_ingress {
            return self.take_place(encoding, ingress).map_or(Dropped::Gone, Dropped::Open);
        }
        let egress = self.reach(ingress);
        self.close_present(egress);
        self.present = Stretch { encoding, ingress: ingress + 1, egress };
        Dropped::Closed
    }

    /// A number for a packet of our own making, such as padding.
    pub fn insert(&mut self) -> u64 {
        let egress = self.next_egress();
        self.close_present(egress);
        self.push_nobody();
        self.present = Stretch { ingress: self.next_ingress, egress: egress + 1, ..self.present };
        self.set_open(egress, false);
        egress
    }

    /// Which ingress packet has, or had it not been lost would have, this egress number.
    pub fn ingress_of(&self, egress: u64) -> Option<(u8, u64)> {
        if egress >= self.next_egress() {
            return None;
        }
        if egress >= self.present.egress {
            let ingress = self.present.ingress + (egress - self.present.egress);
            return (self.present.encoding != NOBODY).then_some((self.present.encoding, ingress));
        }
        let mut end = self.present.egress;
        for past in self.past.iter().rev() {
            let start = end.saturating_sub(u64::from(past.len));
            if egress >= start {
                let ingress_end = self.extend(past)?;
                return Some((past.encoding, ingress_end.checked_sub(end - egress)?));
            }
            end = start;
        }
        None
    }

    /// The extended egress number a receiver means by 16 bits: the newest such that was given.
    pub fn extend_egress(&self, sequence: u16) -> u64 {
        let last = self.next_egress().saturating_sub(1);
        last.saturating_sub(u64::from((last as u16).wrapping_sub(sequence)))
    }

    /// The number that the next packet in order would get.
    #[inline]
    pub fn next_egress(&self) -> u64 {
        self.present.egress + (self.next_ingress - self.present.ingress)
    }

    /// Bytes of memory owned, beside the value itself.
    pub fn memory(&self) -> usize {
        self.past.capacity() * size_of::<Past>() + self.filled.as_ref().map_or(0, |_| size_of::<Bits>())
    }

    /// Goes on to a packet in order of the present encoding, leaving the places of those missing before it open.
    /// Gives its number, if it is to have one.
    fn reach(&mut self, ingress: u64) -> u64 {
        if ingress - self.next_ingress > MAX_GAP {
            self.close_gap(ingress);
        }
        let egress = self.present.egress_of(ingress);
        for lost in self.next_egress()..egress {
            self.set_open(lost, true);
            self.left_out = self.left_out.wrapping_add(1);
        }
        self.next_ingress = ingress + 1;
        self.note(self.present.encoding, ingress);
        egress
    }

    fn set_open(&mut self, egress: u64, is_open: bool) {
        set(&mut self.open, egress, is_open);
        if let Some(filled) = &mut self.filled {
            set(filled, egress, false);
        }
    }

    /// Padding goes in the place of a packet that was dropped late: [`Dropped::Open`].
    pub fn fill(&mut self, egress: u64) {
        set(self.filled.get_or_insert_default(), egress, true);
        self.left_out = self.left_out.wrapping_sub(1);
    }

    /// How many numbers were left out so far, and not given since: what a receiver misses though no line lost it. Wraps;
    /// only differences count.
    pub fn left_out(&self) -> u32 {
        self.left_out
    }

    /// Whether padding went under this number, and no packet that the ring may hold.
    pub fn is_filled(&self, egress: u64) -> bool {
        self.is_within(egress) && self.filled.as_ref().is_some_and(|filled| is_set(filled, egress))
    }

    /// Whether nothing went under this number yet, though something may.
    pub fn is_open(&self, egress: u64) -> bool {
        self.is_within(egress) && is_set(&self.open, egress)
    }

    /// Whether it is one of the last [`WINDOW`] numbers.
    pub fn is_within(&self, egress: u64) -> bool {
        self.next_egress().checked_sub(egress).is_some_and(|back| (1..=WINDOW).contains(&back))
    }

    /// The open place of a late packet, which closes it.
    fn take_place(&mut self, encoding: u8, ingress: u64) -> Option<u64> {
        let egress = self.place_of(encoding, ingress)?;
        if !self.is_open(egress) {
            return None;
        }
        self.set_open(egress, false);
        Some(egress)
    }

    fn note(&mut self, encoding: u8, ingress: u64) {
        if let Some(highest) = self.highest.get_mut(usize::from(encoding)) {
            *highest = ingress.max(*highest);
        }
    }

    /// The present stretch ends before this egress number; becomes past unless it is empty.
    fn close_present(&mut self, egress: u64) {
        let len = egress - self.present.egress;
        if len > 0 {
            let end = self.present.ingress + len;
            self.push(Past {
                end: end as u32,
                len: u16::try_from(len).unwrap_or(u16::MAX),
                encoding: self.present.encoding,
            });
        }
    }

    fn push_nobody(&mut self) {
        match self.past.back_mut() {
            Some(past) if past.encoding == NOBODY => past.len = past.len.saturating_add(1),
            _ => self.push(Past { end: 0, len: 1, encoding: NOBODY }),
        }
    }

    fn push(&mut self, past: Past) {
        if self.past.len() == MAX_PAST {
            self.past.pop_front();
        } else if self.past.len() == self.past.capacity() {
            let more = self.past.len().max(4).min(MAX_PAST - self.past.len());
            self.past.reserve_exact(more);
        }
        self.past.push_back(past);
    }

    /// Goes on at `ingress` after more losses than can come back, leaving one number open.
    fn close_gap(&mut self, ingress: u64) {
        self.insert();
        self.left_out = self.left_out.wrapping_add(1);
        self.present.ingress = ingress;
        self.next_ingress = ingress;
    }

    /// Where a packet from behind belongs. The newest stretch wins: after a pause packets may have been sent again.
    fn place_of(&self, encoding: u8, ingress: u64) -> Option<u64> {
        if encoding == self.present.encoding && (self.present.ingress..self.next_ingress).contains(&ingress) {
            return Some(self.present.egress_of(ingress));
        }
        let mut end = self.present.egress;
        for past in self.past.iter().rev() {
            let start = end.saturating_sub(u64::from(past.len));
            if past.encoding == encoding {
                let ingress_end = self.extend(past)?;
                if ingress < ingress_end && ingress_end - ingress <= u64::from(past.len) {
                    return Some(end - (ingress_end - ingress));
                }
            }
            end = start;
        }
        None
    }

    /// The whole ingress number of a past stretch's end: the one nearest to the highest of its encoding.
    fn extend(&self, past: &Past) -> Option<u64> {
        let near = *self.highest.get(usize::from(past.encoding))?;
        near.checked_add_signed(i64::from(past.end.wrapping_sub(near as u32) as i32))
    }
}

fn is_set(bits: &Bits, egress: u64) -> bool {
    let bit = egress % WINDOW;
    bits[(bit / 64) as usize] >> (bit % 64) & 1 == 1
}

fn set(bits: &mut Bits, egress: u64, value: bool) {
    let bit = egress % WINDOW;
    let word = &mut bits[(bit / 64) as usize];
    *word = *word & !(1 << (bit % 64)) | u64::from(value) << (bit % 64);
}

#[cfg(test)]
mod tests;
