//! Opening what a peer sends.

use weir_rtp::header::RtpHeader;

use super::cipher::Cipher;
use super::keys::Session;
use super::replay::ReplayWindow;

/// SSRCs of one peer that are remembered: 20 tracks of three encodings with retransmission, three times over. Each
/// costs about 150 bytes, only after a packet of it authenticated. A client has new ones whenever it publishes anew, so
/// the oldest that is out of use gives way to one more. Its packets could be replayed then: the more are remembered,
/// the older they would be.
pub const MAX_SSRCS: usize = 384;

/// One direction's keys, and per SSRC what has been seen.
pub struct SrtpIngress {
    rtp: Cipher,
    rtcp: Cipher,
    /// Sorted by SSRC.
    streams: Vec<Stream>,
    rtcp_streams: Vec<Stream>,
    /// Counts what makes an SSRC younger than others.
    clock: u64,
}

struct Stream {
    ssrc: u32,
    window: ReplayWindow,
    /// Its place in the order of ages.
    heard: u64,
}

/// A packet that was opened in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The extended sequence number: rollover counter and sequence number.
    pub index: u64,
    /// Header and plain payload, in bytes.
    pub len: usize,
}

/// Why a packet was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SrtpError {
    #[error("the packet is too short or malformed")]
    TooShort,
    #[error("authentication failed")]
    Authentication,
    #[error("the packet was seen before, or is too old to tell")]
    Replay,
    #[error("the peer uses more than {MAX_SSRCS} SSRCs at a time")]
    TooManySsrcs,
}

impl SrtpIngress {
    pub(crate) fn new(session: Session) -> Self {
        Self {
            rtp: Cipher::new(session.profile, &session.rtp),
            rtcp: Cipher::new(session.profile, &session.rtcp),
            streams: Vec::new(),
            rtcp_streams: Vec::new(),
            clock: 0,
        }
    }

    /// Opens an SRTP packet in place. State for an SSRC is made only once a packet of it has authenticated; which SSRCs
    /// are in use is asked when there is no room for it.
    pub fn open_rtp(
        &mut self,
        packet: &mut [u8],
        is_used: impl Fn(u32) -> bool,
    ) -> Result<Opened, SrtpError> {
        let header = RtpHeader::parse(packet).ok_or(SrtpError::TooShort)?;
        let header_len = usize::from(header.header_len);
        if packet.len() < header_len + self.rtp.tag_len() {
            return Err(SrtpError::TooShort);
        }
        let at = find(&self.streams, header.ssrc);
        let newest = at.ok().and_then(|at| self.streams[at].window.newest());
        let index = estimate(newest, header.sequence_number);
        if let Ok(at) = at
            && self.streams[at].window.is_replay(index)
        {
            return Err(SrtpError::Replay);
        }
        let len = self
            .rtp
            .open_rtp(header.ssrc, index, packet, header_len)
            .map_err(|_| SrtpError::Authentication)?;
        let at = match at {
            Ok(at) => at,
            // By their first packets, which costs the packets after them nothing.
            Err(_) => add(&mut self.streams, header.ssrc, &mut self.clock, is_used)?,
        };
        self.streams[at].window.insert(index);
        Ok(Opened { index, len })
    }

    /// Opens an SRTCP packet in place; returns its plain length.
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let index = self.rtcp.rtcp_index(packet).ok_or(SrtpError::TooShort)?;
        let ssrc = u32::from_be_bytes(*packet[4..].first_chunk().ok_or(SrtpError::TooShort)?);
        let at = find(&self.rtcp_streams, ssrc);
        if let Ok(at) = at
            && self.rtcp_streams[at].window.is_replay(u64::from(index))
        {
            return Err(SrtpError::Replay);
        }
        let len = self.rtcp.open_rtcp(ssrc, index, packet).map_err(|_| SrtpError::Authentication)?;
        let at = match at {
            Ok(at) => at,
            Err(_) => add(&mut self.rtcp_streams, ssrc, &mut self.clock, |_| false)?,
        };
        // By their latest packets: who reports need not send media, and what is in use reports every few seconds.
        self.clock += 1;
        self.rtcp_streams[at].heard = self.clock;
        self.rtcp_streams[at].window.insert(u64::from(index));
        Ok(len)
    }
}

fn find(streams: &[Stream], ssrc: u32) -> Result<usize, usize> {
    streams.binary_search_by_key(&ssrc, |stream| stream.ssrc)
}

/// Adds an SSRC that is not there, in the place of the oldest that is not used if need be.
fn add(
    streams: &mut Vec<Stream>,
    ssrc: u32,
    clock: &mut u64,
    is_used: impl Fn(u32) -> bool,
) -> Result<usize, SrtpError> {
    if streams.len() == MAX_SSRCS {
        let unused = streams.iter().enumerate().filter(|(_, stream)| !is_used(stream.ssrc));
        let (oldest, _) = unused.min_by_key(|(_, stream)| stream.heard).ok_or(SrtpError::TooManySsrcs)?;
        streams.remove(oldest);
    }
    *clock += 1;
    let at = streams.partition_point(|stream| stream.ssrc < ssrc);
    streams.insert(at, Stream { ssrc, window: ReplayWindow::default(), heard: *clock });
    Ok(at)
}

/// The extended sequence number nearest to the newest one
/// ([RFC 3711 §3.3.1](https://www.rfc-editor.org/rfc/rfc3711#section-3.3.1)); a first packet has rollover counter 0.
fn estimate(newest: Option<u64>, sequence_number: u16) -> u64 {
    let Some(newest) = newest else { return u64::from(sequence_number) };
    let distance = sequence_number.wrapping_sub(newest as u16) as i16;
    newest.checked_add_signed(i64::from(distance)).unwrap_or(u64::from(sequence_number))
}

#[cfg(test)]
mod tests {
    use super::super::keys::{Profile, SrtpKeys};
    use super::super::{Plain, SrtpEgress};
    use super::*;

    const PROFILES: [Profile; 3] = [Profile::Aes128Gcm, Profile::Aes256Gcm, Profile::Aes128CmSha1];

    fn pair(profile: Profile) -> (SrtpEgress, SrtpIngress) {
        let len = 2 * (profile.key_len() + profile.salt_len());
        let material: Vec<u8> = (0..len as u8).collect();
        let sender = SrtpKeys::from_exporter(profile, &material, true).unwrap();
        let receiver = SrtpKeys::from_exporter(profile, &material, false).unwrap();
        (sender.into_contexts().1, receiver.into_contexts().0)
    }

    fn sealed(egress: &SrtpEgress, index: u64, padding: u8) -> Vec<u8> {
        sealed_of(egress, 7, index, padding)
    }

    fn sealed_of(egress: &SrtpEgress, ssrc: u32, index: u64, padding: u8) -> Vec<u8> {
        let mut header = [0x80, 96, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0];
        header[8..].copy_from_slice(&ssrc.to_be_bytes());
        header[0] |= if padding > 0 { 0x20 } else { 0 };
        header[2..4].copy_from_slice(&(index as u16).to_be_bytes());
        let plain =
            Plain { ssrc, index, header: &header, prefix: b"pre", payload: b"fixed payload", padding };
        let mut out = [0; 200];
        let len = egress.seal_rtp(&plain, &mut out);
        out[..len].to_vec()
    }

    #[test]
    fn what_one_side_seals_the_other_opens_across_a_rollover() {
        for profile in PROFILES {
            let (egress, mut ingress) = pair(profile);
            for index in [65_533, 65_535, 65_534, 65_536, 65_538, 65_537] {
                let mut packet = sealed(&egress, index, 0);
                let opened = ingress.open_rtp(&mut packet, |_| true).unwrap();
                assert_eq!(opened.index, index, "{profile:?}");
                assert_eq!(&packet[12..opened.len], b"prefixed payload");
            }
        }
    }

    #[test]
    fn padding_is_inside_the_encryption_and_ends_with_its_length() {
        for profile in PROFILES {
            let (egress, mut ingress) = pair(profile);
            let mut packet = sealed(&egress, 1, 2);
            let opened = ingress.open_rtp(&mut packet, |_| true).unwrap();
            assert_eq!(&packet[12..opened.len], b"prefixed payload\0\x02");
        }
    }

    #[test]
    fn replays_and_forgeries_are_refused_and_make_no_state() {
        for profile in PROFILES {
            let (egress, mut ingress) = pair(profile);
            let original = sealed(&egress, 70, 0);
            for at in 0..original.len() {
                let mut forged = original.clone();
                forged[at] ^= 1;
                assert!(ingress.open_rtp(&mut forged, |_| true).is_err(), "{profile:?} byte {at}");
            }
            assert!(ingress.streams.is_empty());
            assert!(ingress.open_rtp(&mut original.clone(), |_| true).is_ok());
            assert_eq!(ingress.open_rtp(&mut original.clone(), |_| true), Err(SrtpError::Replay));
            for len in 0..original.len() {
                assert!(ingress.open_rtp(&mut original[..len].to_vec(), |_| true).is_err());
            }
        }
    }

    #[test]
    fn rtcp_round_trips_once() {
        for profile in PROFILES {
            let (mut egress, mut ingress) = pair(profile);
            let report = [0x80, 201, 0, 1, 0, 0, 0, 7];
            let bye = [0x81, 203, 0, 1, 0, 0, 0, 7];
            let mut out = [0; 64];
            out[..8].copy_from_slice(&report);
            out[8..16].copy_from_slice(&bye);
            let len = egress.seal_rtcp(&mut out, 16);
            let mut packet = out[..len].to_vec();
            assert_ne!(packet[8..16], bye, "encrypted");
            for at in 0..packet.len() {
                let mut forged = packet.clone();
                forged[at] ^= 1;
                assert!(ingress.open_rtcp(&mut forged).is_err(), "{profile:?} byte {at}");
            }
            let replay = packet.clone();
            let len = ingress.open_rtcp(&mut packet).unwrap();
            assert_eq!(packet[..len], [report, bye].concat());
            assert_eq!(ingress.open_rtcp(&mut replay.clone()), Err(SrtpError::Replay));
            for len in 0..replay.len() {
                assert!(ingress.open_rtcp(&mut replay[..len].to_vec()).is_err());
            }
        }
    }

    /// A call of hours, in which somebody shares a screen again and again.
    #[test]
    fn the_oldest_ssrc_out_of_use_gives_way_to_a_new_one_and_no_other() {
        let (egress, mut ingress) = pair(Profile::Aes128Gcm);
        let is_used = |ssrc| ssrc < 2 || ssrc > MAX_SSRCS as u32;
        for ssrc in 0..3 * MAX_SSRCS as u32 {
            assert!(ingress.open_rtp(&mut sealed_of(&egress, ssrc, 1, 0), is_used).is_ok() || is_used(ssrc));
            let refused = ingress.open_rtp(&mut sealed_of(&egress, 0, 1, 0), is_used);
            assert_eq!(refused, Err(SrtpError::Replay), "what is in use is remembered");
        }
        assert_eq!(ingress.streams.len(), MAX_SSRCS);
        let refused = ingress.open_rtp(&mut sealed_of(&egress, 5_000, 1, 0), |_| true);
        assert_eq!(refused, Err(SrtpError::TooManySsrcs));
    }

    #[test]
    fn who_reports_is_remembered_while_others_come_and_go() {
        let (mut egress, mut ingress) = pair(Profile::Aes128Gcm);
        let mut report = |ssrc: u32| {
            let mut packet = [0; 64];
            packet[..4].copy_from_slice(&[0x80, 201, 0, 1]);
            packet[4..8].copy_from_slice(&ssrc.to_be_bytes());
            let len = egress.seal_rtcp(&mut packet, 8);
            packet[..len].to_vec()
        };
        let mut last = report(0);
        ingress.open_rtcp(&mut last.clone()).unwrap();
        for ssrc in 1..3 * MAX_SSRCS as u32 {
            ingress.open_rtcp(&mut report(ssrc)).unwrap();
            assert_eq!(ingress.open_rtcp(&mut last.clone()), Err(SrtpError::Replay));
            last = report(0);
            ingress.open_rtcp(&mut last.clone()).unwrap();
        }
        assert_eq!(ingress.rtcp_streams.len(), MAX_SSRCS);
    }

    /// [RFC 7714 §16.1.1](https://www.rfc-editor.org/rfc/rfc7714#section-16.1.1), which gives session keys.
    #[test]
    fn opens_the_packet_of_rfc_7714() {
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
        };
        let keys = super::super::keys::Keys {
            cipher: hex("000102030405060708090a0b0c0d0e0f"),
            authentication: [0; 20],
            salt: *b"Quid pro quo\0\0",
        };
        let cipher = Cipher::new(Profile::Aes128Gcm, &keys);
        let mut packet = hex(concat!(
            "8040f17b8041f8d35501a0b2f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833",
            "899d7f27beb16a9152cf765ee4390cce"
        ));
        let len = cipher.open_rtp(0x5501_a0b2, 0xf17b, &mut packet, 12).unwrap();
        assert_eq!(&packet[12..len], b"Gallia est omnis divisa in partes tres");
    }
}
