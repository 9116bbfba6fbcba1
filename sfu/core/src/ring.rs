//! The recent packets of one encoding: one copy that serves forwarding, retransmission and late joiners.

use std::time::{Duration, Instant};

use weir_rtp::payload::PayloadInfo;
use weir_units::media::MediaKind;

/// The longest record: a datagram's payload. Also keeps a single packet from washing out a small arena.
const MAX_RECORD: usize = 16 * 1024;

/// The first arena is the largest halved until it is below this, and the first table has so many slots: what a slow
/// audio stream keeps for good.
const FIRST_BYTES: usize = 8 * 1024;
const FIRST_SLOTS: usize = 32;

/// The arena's age is known in so many steps.
const SEGMENTS: usize = 8;

/// The position of a record whose bytes are gone, though its number is still known.
const GONE: u64 = u64::MAX;

/// How much a ring may hold. It grows only while what it would overwrite is younger than `horizon`, so a slow
/// stream stays small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingLimits {
    /// The most packets; rounded up to a power of two.
    pub packets: usize,
    /// The most payload bytes.
    pub bytes: usize,
    /// Nobody asks for what is older: it is overwritten rather than kept by growing.
    pub horizon: Duration,
    /// Below so many bytes it grows for what is younger than `long_horizon`.
    pub small: usize,
    pub long_horizon: Duration,
}

impl RingLimits {
    /// 1.5 MiB hold 3 s at 4 Mbit/s and 1,024 packets 2 s at 500 packets a second. More would serve only joiners
    /// who then receive a burst they can't take; less loses retransmissions on long paths. 192 KiB of a small picture
    /// are what a line that just collapsed can be sent: it is kept back to its last key frame, if that is possible.
    pub const VIDEO: Self = Self {
        packets: 1024,
        bytes: 3 * 512 * 1024,
        horizon: Duration::from_millis(2500),
        small: 192 * 1024,
        long_horizon: Duration::from_secs(8),
    };
    /// 128 packets are 2.5 s of 20 ms frames: more than any jitter buffer waits.
    pub const AUDIO: Self = Self {
        packets: 128,
        bytes: 64 * 1024,
        horizon: Duration::from_millis(2500),
        small: 0,
        long_horizon: Duration::from_millis(2500),
    };
}

/// What is kept beside the bytes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketMeta {
    /// Extended sequence number of the ingress stream.
    pub sequence: u64,
    pub timestamp: u32,
    pub arrived: Instant,
    pub marker: bool,
    pub payload_type: u8,
    pub info: PayloadInfo,
}

/// A packet in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    pub meta: PacketMeta,
    /// Without header, extensions and padding.
    pub payload: &'a [u8],
    /// The body of the dependency descriptor extension; empty when the packet had none.
    pub dependency_descriptor: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    New,
    Duplicate,
    /// Older than all the ring can hold.
    TooOld,
    /// Longer than any datagram of media.
    TooLarge,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    meta: PacketMeta,
    /// Counts all bytes ever written; modulo the arena's size it is the place.
    position: u64,
    payload_len: u16,
    descriptor_len: u16,
}

impl Slot {
    fn len(&self) -> usize {
        usize::from(self.payload_len) + usize::from(self.descriptor_len)
    }
}

/// The recent packets of one encoding by extended sequence number.
///
/// Empty it owns no memory. The slot of a packet is its number modulo the table's size; bytes lie in one circular
/// arena in order of arrival, so the oldest arrival is overwritten first. Bound: [`RingLimits`].
#[derive(Debug)]
pub struct PacketRing {
    limits: RingLimits,
    slots: Vec<Option<Slot>>,
    arena: Vec<u8>,
    /// When each part of the arena was last written: whether to grow is decided as a part is entered again.
    written: [Option<Instant>; SEGMENTS],
    /// Where the next record goes; never decreases.
    position: u64,
    latest: Option<u64>,
    /// Where the newest key frame begins, and its timestamp.
    key_frame: Option<(u64, u32)>,
}

impl PacketRing {
    pub fn new(kind: MediaKind) -> Self {
        Self::with_limits(match kind {
            MediaKind::Audio => RingLimits::AUDIO,
            MediaKind::Video => RingLimits::VIDEO,
        })
    }

    pub fn with_limits(limits: RingLimits) -> Self {
        let limits = RingLimits {
            packets: limits.packets.next_power_of_two().max(FIRST_SLOTS),
            bytes: limits.bytes.max(2 * MAX_RECORD).next_multiple_of(FIRST_BYTES),
            ..limits
        };
        Self {
            limits,
            slots: Vec::new(),
            arena: Vec::new(),
            written: [None; SEGMENTS],
            position: 0,
            latest: None,
            key_frame: None,
        }
    }

    /// Copies one packet in. Order does not matter: retransmissions come late.
    pub fn insert(&mut self, meta: PacketMeta, payload: &[u8], dependency_descriptor: &[u8]) -> Inserted {
        let len = payload.len() + dependency_descriptor.len();
        if len > MAX_RECORD {
            return Inserted::TooLarge;
        }
        let latest = self.latest.map_or(meta.sequence, |latest| latest.max(meta.sequence));
        if latest - meta.sequence >= self.limits.packets as u64 {
            return Inserted::TooOld;
        }
        if self.slot(meta.sequence).is_some_and(|slot| slot.meta.sequence == meta.sequence) {
            return Inserted::Duplicate;
        }
        self.make_slot_room(&meta, latest);
        let index = self.index(meta.sequence);
        if self.slots[index].as_ref().is_some_and(|slot| slot.meta.sequence > meta.sequence) {
            return Inserted::TooOld;
        }
        let position = self.make_byte_room(meta.arrived, len);
        let start = self.place(position);
        let (descriptor, rest) = self.arena[start..start + len].split_at_mut(dependency_descriptor.len());
        descriptor.copy_from_slice(dependency_descriptor);
        rest.copy_from_slice(payload);
        self.position = position + len as u64;
        self.slots[index] = Some(Slot {
            meta,
            position,
            payload_len: payload.len() as u16,
            descriptor_len: dependency_descriptor.len() as u16,
        });
        self.latest = Some(latest);
        if meta.info.key_frame_start {
            self.note_key_frame(meta.sequence, meta.timestamp);
        }
        Inserted::New
    }

    pub fn get(&self, sequence: u64) -> Option<Packet<'_>> {
        let slot = self.slot(sequence)?;
        if slot.meta.sequence != sequence || !self.is_intact(slot) {
            return None;
        }
        let start = self.place(slot.position);
        let (dependency_descriptor, payload) =
            self.arena[start..start + slot.len()].split_at(usize::from(slot.descriptor_len));
        Some(Packet { meta: slot.meta, payload, dependency_descriptor })
    }

    /// The highest extended sequence number that came.
    pub fn latest(&self) -> Option<u64> {
        self.latest
    }

    /// The number of the first packet of the newest key frame, while all of that frame that should have come is
    /// still held. Walks the frame: for joiners, not for every packet.
    pub fn last_key_frame(&self) -> Option<u64> {
        let (start, timestamp) = self.key_frame?;
        for sequence in start..=self.latest? {
            match self.get(sequence) {
                Some(packet) if packet.meta.timestamp != timestamp => break,
                Some(_) => {}
                None => return None,
            }
        }
        Some(start)
    }

    /// What comes next does not follow the last key frame: nobody can begin with it any more.
    pub fn forget_key_frame(&mut self) {
        self.key_frame = None;
    }

    /// When it was last written to; `None` while it owns no memory.
    pub fn last_written(&self) -> Option<Instant> {
        self.written.iter().flatten().max().copied()
    }

    /// Gives all memory back, as for a muted or stopped stream. Numbers go on where they were.
    pub fn clear(&mut self) {
        let Self { limits, position, latest, .. } = *self;
        *self = Self { position, latest, ..Self::with_limits(limits) };
    }

    /// Bytes of memory owned.
    pub fn memory(&self) -> usize {
        self.arena.capacity() + self.slots.capacity() * size_of::<Option<Slot>>()
    }

    /// Several packets of a frame may look like its beginning (H.264's parameter sets and first slice): the first is.
    fn note_key_frame(&mut self, sequence: u64, timestamp: u32) {
        self.key_frame = match self.key_frame {
            Some((known, at)) if at == timestamp => Some((known.min(sequence), at)),
            Some((known, at)) if known > sequence => Some((known, at)),
            _ => Some((sequence, timestamp)),
        };
    }

    fn index(&self, sequence: u64) -> usize {
        (sequence & (self.slots.len() as u64 - 1)) as usize
    }

    fn slot(&self, sequence: u64) -> Option<&Slot> {
        if self.slots.is_empty() {
            return None;
        }
        self.slots[self.index(sequence)].as_ref()
    }

    /// Whether the arena has not gone round over it.
    fn is_intact(&self, slot: &Slot) -> bool {
        self.position.checked_sub(slot.position).is_some_and(|back| back <= self.arena.len() as u64)
    }

    fn place(&self, position: u64) -> usize {
        (position % self.arena.len() as u64) as usize
    }

    /// Grows the table until the packet's slot is free, stale or may be overwritten.
    fn make_slot_room(&mut self, meta: &PacketMeta, latest: u64) {
        if self.slots.is_empty() {
            self.slots.resize(FIRST_SLOTS, None);
        }
        while self.slots.len() < self.limits.packets {
            let behind = latest - meta.sequence >= self.slots.len() as u64;
            let taken = self.slots[self.index(meta.sequence)]
                .as_ref()
                .is_some_and(|slot| self.is_intact(slot) && self.is_young(slot, meta.arrived));
            if !behind && !taken {
                return;
            }
            let mut slots = vec![None; self.slots.len() * 2];
            std::mem::swap(&mut slots, &mut self.slots);
            for slot in slots.into_iter().flatten() {
                let index = self.index(slot.meta.sequence);
                self.slots[index] = Some(slot);
            }
        }
    }

    /// Where a record of that length goes: contiguous, so perhaps at the start of the next round.
    fn make_byte_room(&mut self, now: Instant, len: usize) -> u64 {
        loop {
            let size = self.arena.len();
            if size >= len.max(1) {
                let start = self.place(self.position);
                let skip = if start + len > size { size - start } else { 0 };
                let position = self.position + skip as u64;
                if size >= self.limits.bytes || !self.enters_young_part(position + len as u64, now) {
                    self.note_written(position, len, now);
                    return position;
                }
            }
            self.grow_arena();
        }
    }

    fn part(&self, position: u64) -> u64 {
        position / (self.arena.len() / SEGMENTS) as u64
    }

    /// Whether writing up to `end` enters a part last written, a round ago, within the horizon.
    fn enters_young_part(&self, end: u64, now: Instant) -> bool {
        let first = self.position.checked_sub(1).map_or(0, |last| self.part(last) + 1);
        (first..=self.part(end.saturating_sub(1))).any(|part| {
            self.written[part as usize % SEGMENTS]
                .is_some_and(|at| now.saturating_duration_since(at) < self.horizon())
        })
    }

    fn note_written(&mut self, position: u64, len: usize, now: Instant) {
        for part in self.part(position)..=self.part((position + len as u64).saturating_sub(1).max(position)) {
            self.written[part as usize % SEGMENTS] = Some(now);
        }
    }

    /// Doubles the arena. Positions stay: what was contiguous modulo the size is so modulo its double.
    fn grow_arena(&mut self) {
        let size = self.arena.len();
        let mut first = self.limits.bytes;
        while first >= FIRST_BYTES && first.is_multiple_of(2 * SEGMENTS) {
            first /= 2;
        }
        let mut arena = vec![0; if size == 0 { first } else { size * 2 }];
        let mut written = [None; SEGMENTS];
        let part_len = arena.len() / SEGMENTS;
        for index in 0..self.slots.len() {
            let Some(slot) = &self.slots[index] else { continue };
            if !self.is_intact(slot) {
                if let Some(slot) = &mut self.slots[index] {
                    slot.position = GONE;
                }
                continue;
            }
            let (from, to) = (self.place(slot.position), (slot.position % arena.len() as u64) as usize);
            let len = slot.len();
            arena[to..to + len].copy_from_slice(&self.arena[from..from + len]);
            for part in &mut written[to / part_len..=(to + len.max(1) - 1) / part_len] {
                *part = Some(part.map_or(slot.meta.arrived, |at: Instant| at.max(slot.meta.arrived)));
            }
        }
        self.arena = arena;
        self.written = written;
    }

    fn is_young(&self, slot: &Slot, now: Instant) -> bool {
        now.saturating_duration_since(slot.meta.arrived) < self.horizon()
    }

    /// What is younger is worth growing for.
    fn horizon(&self) -> Duration {
        if self.arena.len() < self.limits.small { self.limits.long_horizon } else { self.limits.horizon }
    }
}

#[cfg(test)]
mod tests;
