//! A publisher's packets, sealed in advance.

use weir_rtp::rtcp::{RtcpWriter, SenderInfo};
use weir_transport::srtp::{Plain, SrtpEgress};
use weir_units::media::{Codec, MediaKind};

use crate::call::{EXTENSIONS, Media, payload_type};

/// Fixed header, extension header, two words of one-byte elements.
pub const HEADER: usize = 24;

/// What one SSRC carries.
struct Track {
    ssrc: u32,
    codec: Codec,
    index: u64,
    timestamp: u32,
    frames: u16,
}

pub struct Publisher {
    srtp: SrtpEgress,
    tracks: Vec<Track>,
    transport_sequence: u16,
    /// The packets of the frame last made.
    pub packets: Vec<Vec<u8>>,
}

impl Publisher {
    pub fn new(media: Media) -> Self {
        Self { srtp: media.egress, tracks: Vec::new(), transport_sequence: 0, packets: Vec::new() }
    }

    pub fn add_track(&mut self, ssrc: u32, codec: Codec) {
        self.tracks.push(Track { ssrc, codec, index: 1_000, timestamp: 90_000, frames: 0 });
    }

    pub fn tracks(&self) -> usize {
        self.tracks.len()
    }

    /// Makes a report on what was sent ([RFC 3550 §6.4.1](https://www.rfc-editor.org/rfc/rfc3550#section-6.4.1)), by
    /// which the focus makes those for subscribers.
    pub fn make_report(&mut self, ntp: u64) -> Vec<u8> {
        let mut packet = vec![0; 1_500];
        let mut writer = RtcpWriter::new(&mut packet);
        for track in &self.tracks {
            let info = SenderInfo {
                ntp,
                rtp_timestamp: track.timestamp,
                packet_count: track.index as u32,
                octet_count: track.index as u32 * 1_000,
            };
            assert!(writer.sender_report(track.ssrc, &info, &[]), "there is room");
        }
        assert!(writer.source_description(self.tracks[0].ssrc, "publisher"), "there is room");
        let len = writer.finish();
        let len = self.srtp.seal_rtcp(&mut packet, len);
        packet.truncate(len);
        packet
    }

    /// Makes a frame's packets of these sizes: header and payload, without the tag. The first frame is a key frame.
    pub fn make_frame(&mut self, track: usize, sizes: &[usize]) {
        let track = &mut self.tracks[track];
        self.packets.resize(sizes.len(), Vec::new());
        let mut payload = [0x55; 1_500];
        for (at, (&size, packet)) in sizes.iter().zip(&mut self.packets).enumerate() {
            let is_video = track.codec.kind() == MediaKind::Video;
            let marker = is_video && at + 1 == sizes.len();
            describe(track.codec, track.frames, at, &mut payload);
            let mut header = [0; HEADER];
            header[0] = 0x90;
            header[1] = u8::from(marker) << 7 | payload_type(track.codec);
            header[2..4].copy_from_slice(&(track.index as u16).to_be_bytes());
            header[4..8].copy_from_slice(&track.timestamp.to_be_bytes());
            header[8..12].copy_from_slice(&track.ssrc.to_be_bytes());
            header[12..16].copy_from_slice(&[0xbe, 0xde, 0, 2]);
            write_extensions(&mut header[16..], is_video, self.transport_sequence);
            self.transport_sequence = self.transport_sequence.wrapping_add(1);
            packet.resize(1_600, 0);
            let plain = Plain {
                ssrc: track.ssrc,
                index: track.index,
                header: &header,
                prefix: &[],
                payload: &payload[..size - HEADER],
                padding: 0,
            };
            let len = self.srtp.seal_rtp(&plain, packet);
            packet.truncate(len);
            track.index += 1;
        }
        track.timestamp = track.timestamp.wrapping_add(if track.codec == Codec::Opus { 960 } else { 3_000 });
        track.frames = track.frames.wrapping_add(1);
    }
}

/// Send time and transport-wide number, and for audio the level instead of the time.
fn write_extensions(out: &mut [u8], is_video: bool, transport_sequence: u16) {
    let id = |id: Option<u8>| id.expect("negotiated");
    let number = transport_sequence.to_be_bytes();
    let twcc = id(EXTENSIONS.transport_cc) << 4 | 1;
    let bytes = if is_video {
        [id(EXTENSIONS.abs_send_time) << 4 | 2, 1, 2, 3, twcc, number[0], number[1], 0]
    } else {
        [id(EXTENSIONS.audio_level) << 4, 0x80 | 30, twcc, number[0], number[1], 0, 0, 0]
    };
    out.copy_from_slice(&bytes);
}

/// The payload's first bytes, as far as a focus reads them.
fn describe(codec: Codec, frame: u16, packet: usize, payload: &mut [u8]) {
    let (is_first, is_key) = (packet == 0, frame == 0);
    match codec {
        Codec::Vp8 => {
            let picture = frame.to_be_bytes();
            let descriptor = [
                0x80 | u8::from(is_first) << 4, // extended; starts a partition
                0xe0,                           // picture id, TL0PICIDX and TID follow
                0x80 | picture[0],
                picture[1],
                picture[1],
                0x20,
                u8::from(!is_key),
            ];
            payload[..7].copy_from_slice(&descriptor);
        }
        Codec::H264 => {
            // Parameter sets before an IDR slice; the slices as FU-A.
            let kind = if is_key { 5 } else { 1 };
            let slice = [0x7c, u8::from(is_first) << 7 | kind];
            payload[..2].copy_from_slice(if is_key && is_first { &[0x67, 0x42] } else { &slice });
        }
        _ => {}
    }
}
