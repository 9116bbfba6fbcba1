//! Header extensions ([RFC 8285](https://www.rfc-editor.org/rfc/rfc8285)): reading their elements, building a block.

use weir_units::media::{ExtensionIds, Mid, Rid, Token};

use crate::bytes::u24_at;
use crate::header::{ByteRange, ExtensionBlock, RtpHeader};

/// The profile of a block of one-byte elements.
pub const ONE_BYTE_PROFILE: u16 = 0xbede;
/// The profile of a block of two-byte elements, with the application bits zero.
pub const TWO_BYTE_PROFILE: u16 = 0x1000;

/// Profile and length, in bytes.
const BLOCK_HEADER_LEN: usize = 4;

/// The elements of one header's extension block, in their order, padding left out.
///
/// Ends at the first element that runs past the block. Of an unknown profile it yields nothing.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    packet: &'a [u8],
    at: usize,
    end: usize,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    OneByte,
    TwoByte,
}

impl<'a> Elements<'a> {
    #[inline]
    pub fn new(header: &RtpHeader, packet: &'a [u8]) -> Self {
        match header.extension {
            Some(block) => Self::of_block(block, packet),
            None => Self { packet, at: 0, end: 0, form: Form::OneByte },
        }
    }

    #[inline]
    fn of_block(block: ExtensionBlock, packet: &'a [u8]) -> Self {
        let range = block.elements.as_range();
        let end = range.end.min(packet.len());
        let (form, end) = match block.profile {
            ONE_BYTE_PROFILE => (Form::OneByte, end),
            profile if profile & 0xfff0 == TWO_BYTE_PROFILE => (Form::TwoByte, end),
            _ => (Form::OneByte, 0),
        };
        Self { packet, at: range.start, end, form }
    }

    /// The next element as its id and where its data lies in the packet.
    #[inline]
    fn next_range(&mut self) -> Option<(u8, ByteRange)> {
        while self.at < self.end {
            let first = *self.packet.get(self.at)?;
            if first == 0 {
                self.at += 1; // padding
                continue;
            }
            let (id, start, len) = match self.form {
                Form::OneByte => {
                    let id = first >> 4;
                    // 15 ends the block; 0 with a length is unspecified. RFC 8285 §4.2
                    if id == 15 || id == 0 {
                        self.at = self.end;
                        return None;
                    }
                    (id, self.at + 1, usize::from(first & 0x0f) + 1)
                }
                Form::TwoByte => {
                    let len = usize::from(*self.packet.get(self.at + 1).filter(|_| self.at + 1 < self.end)?);
                    (first, self.at + 2, len)
                }
            };
            let end = start + len;
            if end > self.end {
                self.at = self.end;
                return None;
            }
            self.at = end;
            return Some((id, ByteRange { start: start as u16, end: end as u16 }));
        }
        None
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = (u8, &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (id, range) = self.next_range()?;
        Some((id, range.of(self.packet)))
    }
}

/// Where the data of the element `id` lies in the packet, for rewriting it in place.
pub fn find(header: &RtpHeader, packet: &[u8], id: u8) -> Option<ByteRange> {
    let mut elements = Elements::new(header, packet);
    while let Some((found, range)) = elements.next_range() {
        if found == id {
            return Some(range);
        }
    }
    None
}

/// What the client says of its loudness ([RFC 6464 §3](https://www.rfc-editor.org/rfc/rfc6464#section-3)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioLevel {
    pub is_voice: bool,
    /// Decibels below overload: 0 is loudest, 127 is silence.
    pub below_overload: u8,
}

impl AudioLevel {
    /// Accepts the one byte of the one-byte form and the padded two of the two-byte form.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let first = *data.first()?;
        Some(Self { is_voice: first & 0x80 != 0, below_overload: first & 0x7f })
    }

    pub fn to_byte(self) -> u8 {
        u8::from(self.is_voice) << 7 | self.below_overload.min(127)
    }
}

/// The 24-bit send time of an `abs-send-time` element, in units of 2⁻¹⁸ s, wrapping every 64 s.
pub fn parse_abs_send_time(data: &[u8]) -> Option<u32> {
    u24_at(data, 0)
}

/// Everything the forwarding plane reads from an ingress packet's header extensions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IngressExtensions {
    pub mid: Option<Mid>,
    pub rid: Option<Rid>,
    pub repaired_rid: Option<Rid>,
    /// The transport-wide sequence number.
    pub transport_sequence: Option<u16>,
    /// In units of 2⁻¹⁸ s, 24 bits.
    pub abs_send_time: Option<u32>,
    pub audio_level: Option<AudioLevel>,
    /// Where the dependency descriptor lies in the packet.
    pub dependency_descriptor: Option<ByteRange>,
}

impl IngressExtensions {
    /// One pass over the elements. Malformed elements are left out as if they had not been sent.
    #[inline]
    pub fn read(header: &RtpHeader, packet: &[u8], ids: &ExtensionIds) -> Self {
        let mut read = Self::default();
        let Some(block) = header.extension else { return read };
        let mut elements = Elements::of_block(block, packet);
        while let Some((id, range)) = elements.next_range() {
            let id = Some(id);
            let data = range.of(packet);
            // Ordered by how often they come: every packet, every video frame, the first packets of a stream.
            if id == ids.transport_cc {
                read.transport_sequence = data.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
            } else if id == ids.audio_level {
                read.audio_level = AudioLevel::parse(data);
            } else if id == ids.dependency_descriptor {
                read.dependency_descriptor = Some(range);
            } else if id == ids.abs_send_time {
                read.abs_send_time = parse_abs_send_time(data);
            } else if id == ids.mid {
                read.mid = Token::from_bytes(data);
            } else if id == ids.rid {
                read.rid = Token::from_bytes(data);
            } else if id == ids.repaired_rid {
                read.repaired_rid = Token::from_bytes(data);
            }
        }
        read
    }
}

/// A block of nothing but a transport-wide sequence number, as most packets have it; `None` for an id that needs elements
/// of two bytes. To the bit what [`ExtensionWriter`] makes of it.
#[inline]
pub fn transport_sequence_block(id: u8, number: u16) -> Option<[u8; 8]> {
    let [profile_high, profile_low] = ONE_BYTE_PROFILE.to_be_bytes();
    let [high, low] = number.to_be_bytes();
    (1..=14).contains(&id).then_some([profile_high, profile_low, 0, 1, id << 4 | 1, high, low, 0])
}

/// Builds an extension block into the caller's buffer.
///
/// Starts in the one-byte form; the first element that needs it (longer than 16 bytes, empty, or with an id above
/// 14) turns the block into the two-byte form, which the peer must have agreed to (`extmap-allow-mixed`).
///
/// ```
/// # use weir_rtp::extension::ExtensionWriter;
/// let mut buffer = [0; 64];
/// let mut writer = ExtensionWriter::new(&mut buffer);
/// assert!(writer.push(3, &[0x12, 0x34]));
/// let len = writer.finish();
/// assert_eq!(buffer[..len], [0xbe, 0xde, 0, 1, 0x31, 0x12, 0x34, 0]);
/// ```
#[derive(Debug)]
pub struct ExtensionWriter<'a> {
    buffer: &'a mut [u8],
    /// Past the last element.
    end: usize,
    form: Form,
}

impl<'a> ExtensionWriter<'a> {
    /// A buffer shorter than four bytes takes no element and gives an empty block.
    #[inline]
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, end: BLOCK_HEADER_LEN, form: Form::OneByte }
    }

    /// Appends an element. False, with the block as it was, when it does not fit, is longer than 255 bytes or has
    /// the id 0.
    #[inline]
    pub fn push(&mut self, id: u8, data: &[u8]) -> bool {
        if id == 0 || data.len() > 255 {
            return false;
        }
        if self.form != Form::OneByte || id > 14 || !(1..=16).contains(&data.len()) {
            return self.push_wide(id, data);
        }
        let end = self.end + 1 + data.len();
        if end.next_multiple_of(4) > self.buffer.len() {
            return false;
        }
        self.buffer[self.end] = id << 4 | (data.len() - 1) as u8;
        self.buffer[self.end + 1..end].copy_from_slice(data);
        self.end = end;
        true
    }

    /// The same where the element, or one before it, needs two bytes before its data. Few do.
    #[cold]
    fn push_wide(&mut self, id: u8, data: &[u8]) -> bool {
        let start = match self.form {
            Form::OneByte => self.end + self.one_byte_elements(),
            Form::TwoByte => self.end,
        };
        let end = start + 2 + data.len();
        if end.next_multiple_of(4) > self.buffer.len() {
            return false;
        }
        if self.form == Form::OneByte {
            self.widen();
        }
        self.buffer[start] = id;
        self.buffer[start + 1] = data.len() as u8;
        self.buffer[start + 2..end].copy_from_slice(data);
        self.end = end;
        true
    }

    fn one_byte_elements(&self) -> usize {
        let (mut at, mut count) = (BLOCK_HEADER_LEN, 0);
        while at < self.end {
            at += 2 + usize::from(self.buffer[at] & 0x0f);
            count += 1;
        }
        count
    }

    /// Gives every element the second header byte. The caller has seen that it fits.
    fn widen(&mut self) {
        let mut at = BLOCK_HEADER_LEN;
        while at < self.end {
            let (id, len) = (self.buffer[at] >> 4, (self.buffer[at] & 0x0f) + 1);
            self.buffer.copy_within(at + 1..self.end, at + 2);
            self.buffer[at] = id;
            self.buffer[at + 1] = len;
            self.end += 1;
            at += 2 + usize::from(len);
        }
        self.form = Form::TwoByte;
    }

    /// Pads to 32 bits, writes the block's header and returns the block's length in bytes: 0 when no element was
    /// pushed, in which case the packet's X bit must stay clear.
    #[inline]
    pub fn finish(self) -> usize {
        if self.end == BLOCK_HEADER_LEN {
            return 0;
        }
        let end = self.end.next_multiple_of(4);
        self.buffer[self.end..end].fill(0);
        let profile = match self.form {
            Form::OneByte => ONE_BYTE_PROFILE,
            Form::TwoByte => TWO_BYTE_PROFILE,
        };
        let words = ((end - BLOCK_HEADER_LEN) / 4) as u16;
        self.buffer[..2].copy_from_slice(&profile.to_be_bytes());
        self.buffer[2..4].copy_from_slice(&words.to_be_bytes());
        end
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::header::FixedHeader;

    fn packet_with(block: &[u8]) -> Vec<u8> {
        let fixed = FixedHeader {
            marker: false,
            payload_type: 96,
            sequence_number: 1,
            timestamp: 2,
            ssrc: 3,
            has_extension: !block.is_empty(),
            has_padding: false,
        };
        let mut packet = fixed.to_bytes().to_vec();
        packet.extend(block);
        packet.extend([0xaa; 5]);
        packet
    }

    fn elements_of(block: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let packet = packet_with(block);
        let header = RtpHeader::parse(&packet).unwrap();
        Elements::new(&header, &packet).map(|(id, data)| (id, data.to_vec())).collect()
    }

    #[test]
    fn a_transport_sequence_alone_is_what_the_writer_makes_of_it() {
        for id in 0..=15 {
            let mut buffer = [0xff; 8];
            let mut writer = ExtensionWriter::new(&mut buffer);
            let is_one_byte = writer.push(id, &0x1234_u16.to_be_bytes()) && writer.form == Form::OneByte;
            writer.finish();
            assert_eq!(transport_sequence_block(id, 0x1234), is_one_byte.then_some(buffer), "id {id}");
        }
    }

    #[test]
    fn reads_the_one_byte_example_of_rfc_8285() {
        // §4.2: L=0, then L=1 and padding, then L=3
        let block = [0xbe, 0xde, 0, 3, 0x10, 0xa1, 0x21, 0xb1, 0xb2, 0, 0, 0x33, 0xc1, 0xc2, 0xc3, 0xc4];
        assert_eq!(
            elements_of(&block),
            [(1, vec![0xa1]), (2, vec![0xb1, 0xb2]), (3, vec![0xc1, 0xc2, 0xc3, 0xc4])]
        );
    }

    #[test]
    fn reads_the_two_byte_example_of_rfc_8285() {
        // §4.3: L=0, then L=1, padding, then L=4
        let block = [0x10, 0, 0, 3, 1, 0, 2, 1, 0xb1, 0, 3, 4, 0xc1, 0xc2, 0xc3, 0xc4];
        assert_eq!(elements_of(&block), [(1, vec![]), (2, vec![0xb1]), (3, vec![0xc1, 0xc2, 0xc3, 0xc4])]);
    }

    #[test]
    fn ends_where_an_element_runs_past_the_block() {
        assert_eq!(elements_of(&[0xbe, 0xde, 0, 1, 0x10, 1, 0x21, 2]), [(1, vec![1])]);
        assert_eq!(elements_of(&[0x10, 0, 0, 1, 1, 1, 9, 2]), [(1, vec![9])]);
        assert_eq!(elements_of(&[0x10, 0, 0, 1, 1, 3, 9, 2]), []);
    }

    #[test]
    fn ends_at_the_reserved_id_and_ignores_unknown_profiles() {
        assert_eq!(elements_of(&[0xbe, 0xde, 0, 1, 0xf0, 1, 0x10, 2]), []);
        assert_eq!(elements_of(&[0x12, 0x34, 0, 1, 0x10, 1, 0x10, 2]), []);
    }

    fn ids() -> ExtensionIds {
        ExtensionIds {
            mid: Some(1),
            rid: Some(2),
            repaired_rid: Some(3),
            transport_cc: Some(4),
            abs_send_time: Some(5),
            audio_level: Some(6),
            dependency_descriptor: Some(7),
        }
    }

    #[test]
    fn reads_all_known_extensions_in_one_pass() {
        let mut buffer = [0; 128];
        let mut writer = ExtensionWriter::new(&mut buffer);
        assert!(writer.push(1, b"0"));
        assert!(writer.push(2, b"h"));
        assert!(writer.push(3, b"q"));
        assert!(writer.push(4, &[0xab, 0xcd]));
        assert!(writer.push(5, &[1, 2, 3]));
        assert!(writer.push(6, &[0x80 | 30]));
        assert!(writer.push(7, &[9; 20]));
        assert!(writer.push(9, b"unknown"));
        let len = writer.finish();
        let packet = packet_with(&buffer[..len]);
        let header = RtpHeader::parse(&packet).unwrap();
        let read = IngressExtensions::read(&header, &packet, &ids());
        assert_eq!(read.mid, Token::new("0"));
        assert_eq!(read.rid, Token::new("h"));
        assert_eq!(read.repaired_rid, Token::new("q"));
        assert_eq!(read.transport_sequence, Some(0xabcd));
        assert_eq!(read.abs_send_time, Some(0x010203));
        assert_eq!(read.audio_level, Some(AudioLevel { is_voice: true, below_overload: 30 }));
        assert_eq!(read.dependency_descriptor.unwrap().of(&packet), [9; 20]);
        assert_eq!(find(&header, &packet, 4).unwrap().of(&packet), [0xab, 0xcd]);
        assert_eq!(find(&header, &packet, 8), None);
    }

    #[test]
    fn leaves_out_what_was_not_negotiated_or_is_malformed() {
        let packet = packet_with(&[0xbe, 0xde, 0, 1, 0x40, 1, 0x10, b' ']);
        let header = RtpHeader::parse(&packet).unwrap();
        assert_eq!(IngressExtensions::read(&header, &packet, &ids()), IngressExtensions::default());
        assert_eq!(
            IngressExtensions::read(&header, &packet, &ExtensionIds::default()),
            IngressExtensions::default()
        );
    }

    #[test]
    fn turns_to_two_bytes_when_an_element_needs_it() {
        let mut buffer = [0xee; 64];
        let mut writer = ExtensionWriter::new(&mut buffer);
        assert!(writer.push(1, &[1]));
        assert!(writer.push(2, &[2, 2]));
        assert!(writer.push(15, &[3]));
        let len = writer.finish();
        assert_eq!(buffer[..4], [0x10, 0, 0, 3]);
        assert_eq!(elements_of(&buffer[..len]), [(1, vec![1]), (2, vec![2, 2]), (15, vec![3])]);
    }

    #[test]
    fn an_element_that_does_not_fit_leaves_the_block_as_it_was() {
        let mut buffer = [0; 12];
        let mut writer = ExtensionWriter::new(&mut buffer);
        assert!(writer.push(1, &[1, 2, 3]));
        assert!(!writer.push(2, &[4, 5, 6, 7]));
        assert!(!writer.push(2, &[0; 17]));
        assert!(!writer.push(0, &[1]));
        assert!(writer.push(2, &[4, 5, 6]));
        assert_eq!(writer.finish(), 12);
        assert_eq!(elements_of(&buffer), [(1, vec![1, 2, 3]), (2, vec![4, 5, 6])]);
        assert!(!ExtensionWriter::new(&mut []).push(1, &[1]));
        assert_eq!(ExtensionWriter::new(&mut []).finish(), 0);
    }

    proptest! {
        #[test]
        fn reading_is_total(mut block in proptest::collection::vec(any::<u8>(), 4..120), form in 0..3) {
            if form < 2 {
                let profile = if form == 0 { ONE_BYTE_PROFILE } else { TWO_BYTE_PROFILE };
                block[..2].copy_from_slice(&profile.to_be_bytes());
                let words = (block.len() / 4 - 1) as u16;
                block[2..4].copy_from_slice(&words.to_be_bytes());
            }
            let packet = packet_with(&block);
            if let Some(header) = RtpHeader::parse(&packet) {
                prop_assert!(Elements::new(&header, &packet).count() <= block.len());
                IngressExtensions::read(&header, &packet, &ids());
                // A header read from one packet is harmless on a shorter one.
                IngressExtensions::read(&header, &packet[..14], &ids());
            }
        }

        #[test]
        fn what_is_written_reads_back(
            elements in proptest::collection::vec((1u8..=255, proptest::collection::vec(any::<u8>(), 0..40)), 0..8),
            room in 0usize..256,
        ) {
            let mut buffer = vec![0xee; room];
            let mut writer = ExtensionWriter::new(&mut buffer);
            let kept: Vec<_> = elements.into_iter().filter(|(id, data)| writer.push(*id, data)).collect();
            let len = writer.finish();
            prop_assert_eq!(len % 4, 0);
            prop_assert_eq!(elements_of(&buffer[..len]), kept);
        }
    }
}
