//! Transport-wide feedback: when each packet of a transport arrived, whatever its stream
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1).
//!
//! ```text
//! |                       sender, media SSRC                      |
//! |      base sequence number     |      packet status count      |
//! |                 reference time                | feedback count|
//! |  chunks of 16 bits: which packets arrived     |  ...          |
//! |  deltas of 8 or 16 bits, one for each that arrived            |
//! ```

use crate::bytes::{u16_at, u24_at, u32_at};

/// Arrival times are in ticks of 250 µs.
pub const TICKS_PER_SECOND: u64 = 4_000;

/// The most statuses that one written feedback covers. At two bytes a delta the packet then stays within 1,200
/// bytes, and its symbols fit the stack; a sender of more gets more feedback packets.
pub const MAX_FEEDBACK_STATUSES: usize = 512;

/// The most statuses accepted in a feedback. Nine chunks of two bytes can announce 65,535; honest feedback covers a
/// fraction of a second, so this leaves 16,384 packets in one and bounds what a few bytes can make us visit.
pub const MAX_REPORTED_STATUSES: u16 = 16_384;

/// The reference time counts in this many ticks: 64 ms.
const TICKS_PER_REFERENCE: i64 = 256;
/// Fixed fields before the chunks.
const FIXED_LEN: usize = 16;
const MAX_RUN: usize = 0x1fff;
const ONE_BIT_SYMBOLS: usize = 14;
const TWO_BIT_SYMBOLS: usize = 7;

const NOT_RECEIVED: u8 = 0;
const SMALL_DELTA: u8 = 1;
const LARGE_DELTA: u8 = 2;

/// A feedback whose chunks and deltas have been found to agree.
#[derive(Clone, Copy, Debug)]
pub struct TransportFeedback<'a> {
    pub sender: u32,
    pub media: u32,
    pub base_sequence: u16,
    /// Packets reported on, from [`Self::base_sequence`]; at least 1, at most [`MAX_REPORTED_STATUSES`].
    pub status_count: u16,
    /// In units of 64 ms, 24 bits, on the receiver's clock: wraps every 12 days.
    pub reference_time: u32,
    /// Counts feedback packets, so that a lost one shows.
    pub feedback_count: u8,
    chunks: &'a [[u8; 2]],
    deltas: &'a [u8],
}

impl<'a> TransportFeedback<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let (sender, media) = (u32_at(body, 0)?, u32_at(body, 4)?);
        let (base_sequence, status_count) = (u16_at(body, 8)?, u16_at(body, 10)?);
        let (reference_time, feedback_count) = (u24_at(body, 12)?, *body.get(15)?);
        if status_count == 0 || status_count > MAX_REPORTED_STATUSES {
            return None;
        }
        let rest = &body[FIXED_LEN..];
        let (mut left, mut chunk_count, mut deltas_len) = (usize::from(status_count), 0, 0);
        let (words, _) = rest.as_chunks();
        while left > 0 {
            let chunk = Chunk::parse(*words.get(chunk_count)?);
            chunk_count += 1;
            let covered = chunk.len().min(left);
            deltas_len += chunk.deltas_len(covered)?;
            left -= covered;
        }
        let chunks = words.get(..chunk_count)?;
        let deltas = rest.get(2 * chunk_count..)?.get(..deltas_len)?;
        Some(Self {
            sender,
            media,
            base_sequence,
            status_count,
            reference_time,
            feedback_count,
            chunks,
            deltas,
        })
    }

    /// Each packet's sequence number and, if it arrived, when: in ticks of 250 µs on the clock of
    /// [`Self::reference_time`], 256 ticks each. Slightly negative when the clock had just wrapped.
    pub fn packets(&self) -> PacketArrivals<'a> {
        PacketArrivals {
            chunks: self.chunks,
            deltas: self.deltas,
            chunk: Chunk::Run { symbol: NOT_RECEIVED, len: 0 },
            at_in_chunk: 0,
            sequence: self.base_sequence,
            left: self.status_count,
            time: i64::from(self.reference_time) * TICKS_PER_REFERENCE,
        }
    }
}

/// The packets of a feedback, in the order of their sequence numbers.
#[derive(Clone, Debug)]
pub struct PacketArrivals<'a> {
    chunks: &'a [[u8; 2]],
    deltas: &'a [u8],
    chunk: Chunk,
    at_in_chunk: usize,
    sequence: u16,
    left: u16,
    time: i64,
}

impl Iterator for PacketArrivals<'_> {
    type Item = (u16, Option<i64>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        while self.at_in_chunk == self.chunk.len() {
            let (next, rest) = self.chunks.split_first()?;
            self.chunks = rest;
            self.chunk = Chunk::parse(*next);
            self.at_in_chunk = 0;
        }
        let symbol = self.chunk.symbol(self.at_in_chunk);
        self.at_in_chunk += 1;
        let arrival = match symbol {
            NOT_RECEIVED => None,
            SMALL_DELTA => {
                let (delta, rest) = self.deltas.split_first()?;
                self.deltas = rest;
                self.time += i64::from(*delta);
                Some(self.time)
            }
            _ => {
                let (delta, rest) = self.deltas.split_first_chunk()?;
                self.deltas = rest;
                self.time += i64::from(i16::from_be_bytes(*delta));
                Some(self.time)
            }
        };
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        Some((sequence, arrival))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left.into()))
    }
}

/// A packet status chunk (§3.1.2 to §3.1.4).
#[derive(Clone, Copy, Debug)]
enum Chunk {
    /// `|0| S | run length, 13 bits |`
    Run { symbol: u8, len: u16 },
    /// `|1|0| 14 symbols of one bit |`
    OneBit(u16),
    /// `|1|1| 7 symbols of two bits |`
    TwoBit(u16),
}

impl Chunk {
    fn parse(bytes: [u8; 2]) -> Self {
        let word = u16::from_be_bytes(bytes);
        match word >> 14 {
            0 | 1 => Self::Run { symbol: (word >> 13 & 3) as u8, len: word & 0x1fff },
            2 => Self::OneBit(word),
            _ => Self::TwoBit(word),
        }
    }

    fn to_bytes(self) -> [u8; 2] {
        match self {
            Self::Run { symbol, len } => u16::from(symbol) << 13 | len,
            Self::OneBit(word) | Self::TwoBit(word) => word,
        }
        .to_be_bytes()
    }

    fn len(self) -> usize {
        match self {
            Self::Run { len, .. } => len.into(),
            Self::OneBit(_) => ONE_BIT_SYMBOLS,
            Self::TwoBit(_) => TWO_BIT_SYMBOLS,
        }
    }

    /// The symbol at `index`, which is below [`Self::len`].
    fn symbol(self, index: usize) -> u8 {
        match self {
            Self::Run { symbol, .. } => symbol,
            Self::OneBit(word) => (word >> (ONE_BIT_SYMBOLS - 1 - index) & 1) as u8,
            Self::TwoBit(word) => (word >> (2 * (TWO_BIT_SYMBOLS - 1 - index)) & 3) as u8,
        }
    }

    /// Bytes of deltas that the first `count` symbols need; `None` when one is the reserved symbol 3.
    fn deltas_len(self, count: usize) -> Option<usize> {
        match self {
            Self::Run { symbol, .. } => delta_len(symbol).map(|len| len * count),
            Self::OneBit(_) | Self::TwoBit(_) => (0..count).map(|index| delta_len(self.symbol(index))).sum(),
        }
    }
}

fn delta_len(symbol: u8) -> Option<usize> {
    (symbol <= LARGE_DELTA).then_some(symbol.into())
}

/// What a feedback will say, collected before it is laid out: the chunks come before the deltas.
pub(super) struct Statuses {
    base_sequence: u16,
    symbols: [u8; MAX_FEEDBACK_STATUSES],
    deltas: [i16; MAX_FEEDBACK_STATUSES],
    count: usize,
    deltas_len: usize,
    /// In units of 64 ms; `None` until a packet arrived.
    reference_time: Option<u64>,
    /// Items of the input that these statuses cover.
    pub(super) consumed: usize,
}

impl Statuses {
    /// Takes from `packets` what fits into `room` bytes of body.
    pub(super) fn collect(packets: impl Iterator<Item = (u16, Option<u64>)>, room: usize) -> Self {
        let mut statuses = Self {
            base_sequence: 0,
            symbols: [NOT_RECEIVED; MAX_FEEDBACK_STATUSES],
            deltas: [0; MAX_FEEDBACK_STATUSES],
            count: 0,
            deltas_len: 0,
            reference_time: None,
            consumed: 0,
        };
        let mut last_arrival = 0;
        for (sequence, arrival) in packets {
            if statuses.consumed == 0 {
                statuses.base_sequence = sequence;
            }
            let index = usize::from(sequence.wrapping_sub(statuses.base_sequence));
            // A number that is not ahead, or one too far ahead, begins the next feedback.
            if index < statuses.count || index >= MAX_FEEDBACK_STATUSES {
                break;
            }
            let mut status = None;
            if let Some(arrival) = arrival {
                if statuses.reference_time.is_none() {
                    last_arrival = arrival - arrival % TICKS_PER_REFERENCE as u64;
                }
                let Ok(delta) = i16::try_from(arrival.wrapping_sub(last_arrival).cast_signed()) else {
                    break;
                };
                let symbol = if (0..=255).contains(&delta) { SMALL_DELTA } else { LARGE_DELTA };
                status = Some((arrival, delta, symbol));
            }
            let deltas_len = statuses.deltas_len + status.map_or(0, |(_, _, symbol)| usize::from(symbol));
            if body_len_bound(index + 1, deltas_len) > room {
                break;
            }
            if let Some((arrival, delta, symbol)) = status {
                statuses.reference_time.get_or_insert(last_arrival / TICKS_PER_REFERENCE as u64);
                last_arrival = arrival;
                statuses.symbols[index] = symbol;
                statuses.deltas[index] = delta;
                statuses.deltas_len = deltas_len;
            }
            statuses.count = index + 1;
            statuses.consumed += 1;
        }
        statuses
    }

    pub(super) fn has_arrivals(&self) -> bool {
        self.reference_time.is_some()
    }

    /// The body's length in bytes, padded to 32 bits.
    pub(super) fn body_len(&self) -> usize {
        (FIXED_LEN + 2 * self.chunks().count() + self.deltas_len).next_multiple_of(4)
    }

    /// Writes the body into `body`, which is [`Self::body_len`] zeros.
    pub(super) fn write(&self, sender: u32, media: u32, feedback_count: u8, body: &mut [u8]) {
        let reference = (self.reference_time.unwrap_or_default() as u32) << 8 | u32::from(feedback_count);
        body[0..4].copy_from_slice(&sender.to_be_bytes());
        body[4..8].copy_from_slice(&media.to_be_bytes());
        body[8..10].copy_from_slice(&self.base_sequence.to_be_bytes());
        body[10..12].copy_from_slice(&(self.count as u16).to_be_bytes());
        body[12..16].copy_from_slice(&reference.to_be_bytes());
        let mut at = FIXED_LEN;
        for chunk in self.chunks() {
            body[at..at + 2].copy_from_slice(&chunk.to_bytes());
            at += 2;
        }
        for (symbol, delta) in self.symbols[..self.count].iter().zip(&self.deltas) {
            let [high, low] = delta.to_be_bytes();
            match *symbol {
                NOT_RECEIVED => {}
                SMALL_DELTA => {
                    body[at] = low;
                    at += 1;
                }
                _ => {
                    body[at..at + 2].copy_from_slice(&[high, low]);
                    at += 2;
                }
            }
        }
    }

    /// Packs the symbols greedily. Every chunk but the last covers at least [`TWO_BIT_SYMBOLS`], which
    /// [`body_len_bound`] counts on.
    fn chunks(&self) -> impl Iterator<Item = Chunk> + '_ {
        let mut rest = &self.symbols[..self.count];
        std::iter::from_fn(move || {
            let symbol = *rest.first()?;
            let run = rest.iter().take(MAX_RUN).take_while(|other| **other == symbol).count();
            let one_bit = &rest[..rest.len().min(ONE_BIT_SYMBOLS)];
            let fits_one_bit = one_bit.iter().all(|symbol| *symbol <= SMALL_DELTA);
            let run_chunk = Chunk::Run { symbol, len: run as u16 };
            let (chunk, covered) = if run == rest.len() || run >= ONE_BIT_SYMBOLS {
                (run_chunk, run)
            } else if fits_one_bit {
                let word = pack(one_bit, ONE_BIT_SYMBOLS, 1);
                (Chunk::OneBit(0b10 << 14 | word), one_bit.len())
            } else if run >= TWO_BIT_SYMBOLS {
                (run_chunk, run)
            } else {
                let two_bit = &rest[..rest.len().min(TWO_BIT_SYMBOLS)];
                let word = pack(two_bit, TWO_BIT_SYMBOLS, 2);
                (Chunk::TwoBit(0b11 << 14 | word), two_bit.len())
            };
            rest = &rest[covered..];
            Some(chunk)
        })
    }
}

/// The symbols side by side, filled up with zeros.
fn pack(symbols: &[u8], count: usize, bits: u32) -> u16 {
    (0..count)
        .fold(0, |word, index| word << bits | u16::from(symbols.get(index).copied().unwrap_or(NOT_RECEIVED)))
}

/// At most this many bytes of body for so many statuses and bytes of deltas.
fn body_len_bound(statuses: usize, deltas_len: usize) -> usize {
    (FIXED_LEN + 2 * statuses.div_ceil(TWO_BIT_SYMBOLS) + deltas_len).next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Compound, RtcpPacket, RtcpWriter};
    use super::*;

    fn written(packets: &[(u16, Option<u64>)]) -> (Vec<u8>, usize) {
        let mut buffer = [0xee; 1_200];
        let mut writer = RtcpWriter::new(&mut buffer);
        let consumed = writer.transport_feedback(1, 2, 3, packets.iter().copied());
        let len = writer.finish();
        (buffer[..len].to_vec(), consumed)
    }

    fn read(datagram: &[u8]) -> TransportFeedback<'_> {
        match Compound::new(datagram).next() {
            Some(Ok(RtcpPacket::TransportFeedback(feedback))) => feedback,
            other => panic!("no feedback but {other:?}"),
        }
    }

    #[test]
    fn reads_runs_vectors_and_both_deltas() {
        // 3 lost, then (two bits) small, large, lost; the rest of the vector lies past the count
        let datagram = [
            0x8f,
            205,
            0,
            6,
            0,
            0,
            0,
            1,
            0,
            0,
            0,
            2,
            0xff,
            0xfe,
            0,
            6,
            0,
            0,
            2,
            9,
            0x00,
            0x03,
            0b1101_1000,
            0,
            4,
            0xff,
            0xfe,
            0,
        ];
        let feedback = read(&datagram);
        assert_eq!((feedback.sender, feedback.media, feedback.feedback_count), (1, 2, 9));
        assert_eq!(
            feedback.packets().collect::<Vec<_>>(),
            [(65_534, None), (65_535, None), (0, None), (1, Some(516)), (2, Some(514)), (3, None)]
        );
    }

    /// The reference time has 24 bits of 64 ms: it begins anew every twelve days.
    #[test]
    fn a_clock_that_wraps_is_written_and_read() {
        let (wrap, packets) = (1 << 32, [(65_535, 0), (0, 300), (1, 900)]);
        let (datagram, consumed) = written(&packets.map(|(number, at)| (number, Some(wrap - 300 + at))));
        assert_eq!(consumed, 3);
        let read_back: Vec<_> = read(&datagram).packets().map(|(_, at)| at.map(|at| at as u64)).collect();
        assert_eq!(
            read_back,
            [Some(wrap - 300), Some(wrap), Some(wrap + 600)],
            "on a number line without end"
        );
        let (datagram, _) = written(&[(2, Some(wrap + 601))]);
        assert_eq!(read(&datagram).packets().next(), Some((2, Some(601))));
    }

    #[test]
    fn passes_over_empty_runs() {
        let datagram = [
            0x8f, 205, 0, 6, 0, 0, 0, 1, 0, 0, 0, 2, 0, 1, 0, 1, 0, 0, 1, 0, 0x20, 0, 0x20, 0, 0x20, 1, 5, 0,
        ];
        assert_eq!(read(&datagram).packets().collect::<Vec<_>>(), [(1, Some(261))]);
    }

    #[test]
    fn refuses_counts_that_chunks_or_deltas_do_not_carry() {
        let (datagram, _) = written(&[(10, Some(1_000)), (11, Some(1_001)), (12, None)]);
        assert_eq!(read(&datagram).status_count, 3);
        for (at, value) in [(15, 0), (14, 0xff), (14, 0x40)] {
            let mut lying = datagram.clone();
            lying[at] = value;
            assert!(Compound::new(&lying).next().unwrap().is_err(), "byte {at} as {value}");
        }
        let mut reserved = datagram.clone();
        reserved[20..22].copy_from_slice(&[0x60, 3]);
        assert!(Compound::new(&reserved).next().unwrap().is_err());
        let mut empty_runs = datagram;
        empty_runs[20..].fill(0);
        assert!(Compound::new(&empty_runs).next().unwrap().is_err());
    }

    #[test]
    fn gaps_in_the_numbers_are_losses() {
        let (datagram, consumed) = written(&[(65_535, Some(300)), (2, Some(301))]);
        assert_eq!(consumed, 2);
        assert_eq!(
            read(&datagram).packets().collect::<Vec<_>>(),
            [(65_535, Some(300)), (0, None), (1, None), (2, Some(301))]
        );
    }

    #[test]
    fn stops_where_the_next_feedback_must_begin() {
        assert_eq!(written(&[(1, Some(0)), (2, Some(40_000))]).1, 1, "a delta beyond 16 bits");
        assert_eq!(written(&[(1, Some(0)), (600, Some(1))]).1, 1, "too wide a gap");
        assert_eq!(written(&[(5, Some(0)), (5, Some(1))]).1, 1, "a number again");
        assert_eq!(written(&[(5, Some(0)), (4, Some(1))]).1, 1, "a number behind");
        assert_eq!(written(&[]), (vec![], 0));
    }

    #[test]
    fn without_an_arrival_there_is_nothing_to_say() {
        assert_eq!(written(&[(1, None), (2, None)]), (vec![], 2));
    }

    #[test]
    fn a_steady_stream_takes_one_chunk() {
        let packets: Vec<_> = (0..100).map(|n| (n, Some(5_000 + 8 * u64::from(n)))).collect();
        let (datagram, consumed) = written(&packets);
        assert_eq!(consumed, 100);
        assert_eq!(datagram.len(), (4 + FIXED_LEN + 2 + 100_usize).next_multiple_of(4));
    }

    #[test]
    fn a_few_bytes_can_announce_only_so_many_packets() {
        let announcing = |count: u16| {
            let mut datagram = vec![0x8f, 205, 0, 8, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 0];
            datagram[14..16].copy_from_slice(&count.to_be_bytes());
            datagram.extend([0x1f, 0xff].repeat(8)); // eight times 8,191 lost
            datagram
        };
        let datagram = announcing(MAX_REPORTED_STATUSES);
        assert_eq!(read(&datagram).packets().count(), usize::from(MAX_REPORTED_STATUSES));
        let datagram = announcing(MAX_REPORTED_STATUSES + 1);
        assert!(Compound::new(&datagram).next().unwrap().is_err());
    }

    proptest! {
        #[test]
        fn what_was_accepted_is_all_there(
            base: u16, count in 1u16..60, mut rest in proptest::collection::vec(any::<u8>(), 4..120),
        ) {
            rest.truncate(rest.len() & !3);
            let mut datagram = vec![0x8f, 205, 0, (4 + rest.len() / 4) as u8, 0, 0, 0, 1, 0, 0, 0, 2];
            datagram.extend(base.to_be_bytes());
            datagram.extend(count.to_be_bytes());
            datagram.extend([0, 0, 1, 0]);
            datagram.extend(&rest);
            if let Some(Ok(packet)) = Compound::new(&datagram).next() {
                let RtcpPacket::TransportFeedback(feedback) = packet else { panic!("{packet:?}") };
                let packets: Vec<_> = feedback.packets().collect();
                prop_assert_eq!(packets.len(), usize::from(count));
                prop_assert_eq!(packets.last().unwrap().0, base.wrapping_add(count - 1));
            }
        }

        #[test]
        fn what_is_written_reads_back(
            base: u16, start in 0u64..1 << 31, room in 0usize..700,
            steps in proptest::collection::vec((1u16..4, proptest::option::weighted(0.8, -300i64..600)), 1..700),
        ) {
            let (mut sequence, mut time) = (base, start as i64);
            let packets: Vec<_> = steps.iter().map(|(step, delta)| {
                sequence = sequence.wrapping_add(*step);
                (sequence, delta.map(|delta| { time = (time + delta).max(0); time as u64 }))
            }).collect();
            let mut buffer = vec![0xee; room];
            let mut writer = RtcpWriter::new(&mut buffer);
            let consumed = writer.transport_feedback(7, 8, 9, packets.iter().copied());
            let len = writer.finish();
            if room >= 4 + FIXED_LEN + 4 {
                prop_assert!(consumed > 0);
            }
            let packets = &packets[..consumed];
            if packets.iter().all(|(_, arrival)| arrival.is_none()) {
                prop_assert_eq!(len, 0);
                return Ok(());
            }
            let feedback = read(&buffer[..len]);
            prop_assert_eq!((feedback.sender, feedback.media, feedback.feedback_count), (7, 8, 9));
            prop_assert_eq!(feedback.base_sequence, packets[0].0);
            let mut expected = packets.iter().copied().peekable();
            for (sequence, arrival) in feedback.packets() {
                let arrival = arrival.map(|arrival| arrival as u64);
                match expected.next_if(|(next, _)| *next == sequence) {
                    Some((_, sent)) => prop_assert_eq!(arrival, sent),
                    None => prop_assert_eq!(arrival, None),
                }
            }
            prop_assert_eq!(expected.next(), None);
        }
    }
}
