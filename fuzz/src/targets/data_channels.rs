//! Data channels without DTLS around them: an honest client and ours, between which packets are sent, held back,
//! changed, and made up, as the bytes say.
//!
//! Made-up packets have the association's verification tag and a right checksum, and numbers near those in use, since
//! nothing else gets past the first lines of SCTP.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use weir_transport::testing::{ChannelNotice, DataChannels, reread_establishment};
use weir_transport::{MAX_MESSAGE_BYTES, SendOutcome};

use crate::{Input, clock};

const MAX_ORDERS: usize = 64;
/// Packets that one order may cause: a window of a megabyte in packets of a kilobyte, and some.
const MAX_PACKETS: usize = 2_048;
const PORT: [u8; 2] = 5_000_u16.to_be_bytes();

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    if input.bool() {
        establishment(input.rest());
        return;
    }
    let mut play = Play::new();
    for _ in 0..MAX_ORDERS {
        if input.is_empty() {
            break;
        }
        play.order(&mut input);
        play.drain();
    }
}

/// DCEP: what is read and written again reads the same.
fn establishment(bytes: &[u8]) {
    if let Some(written) = reread_establishment(bytes) {
        assert!(written.len() <= bytes.len());
        assert_eq!(reread_establishment(&written).as_deref(), Some(&written[..]));
    }
}

struct Play {
    now: Instant,
    ours: DataChannels,
    client: DataChannels,
    /// From the client to us, and back.
    up: VecDeque<Vec<u8>>,
    down: VecDeque<Vec<u8>>,
    /// The tag we expect, and the last of the client's TSNs that were seen.
    tag: [u8; 4],
    tsn: u32,
}

impl Play {
    /// Associated, with two channels of the client's and one of ours.
    fn new() -> Self {
        let now = clock::start();
        let mut play = Self {
            now,
            ours: DataChannels::new(false, 0),
            client: DataChannels::new(true, MAX_MESSAGE_BYTES),
            up: VecDeque::new(),
            down: VecDeque::new(),
            tag: [0; 4],
            tsn: 0,
        };
        play.client.associate(now);
        play.client.open(now, "_reliable", true, None);
        play.client.open(now, "_lossy", false, Some(0));
        play.ours.open(now, "ours", true, None);
        for _ in 0..12 {
            play.drain();
            play.carry(usize::MAX);
        }
        play
    }

    fn order(&mut self, input: &mut Input<'_>) {
        match input.below(8) {
            0 => self.carry(1 + input.below(8)),
            1 => {
                self.up.pop_front();
            }
            2 => {
                let (label, len) = (input.choose(&["_reliable", "_lossy"]), usize::from(input.u16()) * 4);
                self.client.send(self.now, label, Bytes::from(vec![7; len]), true);
            }
            3 => {
                let (label, len) =
                    (input.choose(&["_reliable", "ours", "none"]), usize::from(input.u16()) * 4);
                let outcome = self.ours.send(self.now, label, Bytes::from(vec![7; len]), input.bool());
                assert!(label != "none" || matches!(outcome, SendOutcome::NoChannel | SendOutcome::TooLarge));
            }
            4 => {
                let millis = u64::from(input.u16());
                self.now += Duration::from_millis(millis);
                self.ours.handle_timeout(self.now);
                self.client.handle_timeout(self.now);
                let next = self.ours.poll_timeout();
                assert!(next.is_none_or(|at| at > self.now), "a timeout comes back at once");
            }
            5 => {
                // One bit of an honest packet.
                let (at, bit) = (usize::from(input.u16()), input.below(8));
                if let Some(mut packet) = self.up.pop_front()
                    && packet.len() > 12
                {
                    let at = 12 + at % (packet.len() - 12);
                    packet[at] ^= 1 << bit;
                    seal(&mut packet);
                    self.ours.handle_packet(self.now, &packet);
                }
            }
            6 => {
                let packet = input.chunk();
                self.ours.handle_packet(self.now, packet);
            }
            _ => {
                let packet = self.made_up(input);
                self.ours.handle_packet(self.now, &packet);
            }
        }
    }

    /// A packet of up to four chunks of any type.
    fn made_up(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let mut packet = [PORT, PORT].concat();
        packet.extend(if input.u8() < 240 { self.tag } else { [0; 4] });
        packet.extend([0; 4]);
        for _ in 0..1 + input.below(4) {
            let kind = input.choose(&[0, 0, 1, 3, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14, 130, 192, 194, 2]);
            let flags = input.u8();
            let near = self.tsn.wrapping_add(u32::from(input.u16())).wrapping_sub(64);
            let mut value = match kind {
                0 | 3 | 7 | 192 | 194 => near.to_be_bytes().to_vec(),
                _ => Vec::new(),
            };
            let len = usize::from(input.u8());
            value.extend(input.bytes(len));
            packet.extend([kind, flags]);
            packet.extend((value.len() as u16 + 4).to_be_bytes());
            packet.extend(&value);
            packet.resize(packet.len().next_multiple_of(4), 0);
        }
        seal(&mut packet);
        packet
    }

    fn carry(&mut self, most: usize) {
        for _ in 0..most.min(self.up.len()) {
            if let Some(packet) = self.up.pop_front() {
                self.ours.handle_packet(self.now, &packet);
            }
        }
        for _ in 0..most.min(self.down.len()) {
            if let Some(packet) = self.down.pop_front() {
                self.client.handle_packet(self.now, &packet);
            }
        }
    }

    fn drain(&mut self) {
        for packets in 0.. {
            let Some(packet) = self.ours.poll_packet() else { break };
            assert!(packets < MAX_PACKETS, "one order causes more than {MAX_PACKETS} packets");
            assert!(packet.len() <= 1_200, "a packet of {} bytes", packet.len());
            self.down.push_back(packet.to_vec());
        }
        while let Some(event) = self.ours.poll_event() {
            match event {
                ChannelNotice::Message { payload, .. } => {
                    assert!(payload.len() <= MAX_MESSAGE_BYTES as usize);
                }
                ChannelNotice::Open { label } => assert!(label.len() <= 256),
            }
        }
        while let Some(packet) = self.client.poll_packet() {
            self.look_at(&packet);
            self.up.push_back(packet.to_vec());
        }
        while self.client.poll_event().is_some() {}
    }

    /// Learns the tag and the TSN from what the client sends.
    fn look_at(&mut self, packet: &[u8]) {
        if let Some([_, _, _, _, tag @ .., _, _, _, _]) = packet.first_chunk::<12>()
            && *tag != [0; 4]
        {
            self.tag = *tag;
        }
        if let (Some(0), Some(tsn)) = (packet.get(12), packet.get(16..20)) {
            self.tsn = u32::from_be_bytes(*tsn.first_chunk().expect("four bytes"));
        }
    }
}

/// Puts the checksum into an SCTP packet: CRC32c, least significant byte first
/// ([RFC 9260 §6.8](https://www.rfc-editor.org/rfc/rfc9260#section-6.8)).
fn seal(packet: &mut [u8]) {
    packet[8..12].fill(0);
    let mut crc = !0_u32;
    for byte in &*packet {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 };
        }
    }
    packet[8..12].copy_from_slice(&(!crc).to_le_bytes());
}
