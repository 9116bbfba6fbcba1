//! Protecting what we send.

use super::cipher::Cipher;
use super::keys::{Profile, Session};

/// The last that 31 bits can count: at a thousand packets a second 24 days.
const MAX_RTCP_INDEX: u32 = (1 << 31) - 1;

/// One direction's keys. The caller keeps extended sequence numbers: they are never reused for one SSRC.
pub struct SrtpEgress {
    profile: Profile,
    rtp: Cipher,
    /// Boxed: it is needed once a second, and the other for every packet.
    rtcp: Box<Cipher>,
    rtcp_index: u32,
}

/// An RTP packet to be protected.
#[derive(Clone, Copy, Debug)]
pub struct Plain<'a> {
    pub ssrc: u32,
    /// Extended sequence number; its low 16 bits stand in the header.
    pub index: u64,
    pub header: &'a [u8],
    /// Stands before `payload`, perhaps for bytes taken from its start: what is sent is `prefix` then `payload`.
    pub prefix: &'a [u8],
    pub payload: &'a [u8],
    /// Bytes of RTP padding, inside the encryption. The header's P bit is the caller's.
    pub padding: u8,
}

impl SrtpEgress {
    pub(crate) fn new(session: Session) -> Self {
        Self {
            profile: session.profile,
            rtp: Cipher::new(session.profile, &session.rtp),
            rtcp: Box::new(Cipher::new(session.profile, &session.rtcp)),
            rtcp_index: 0,
        }
    }

    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Bytes that protection adds to an RTP packet.
    pub fn overhead(&self) -> usize {
        self.rtp.tag_len()
    }

    /// Writes the protected packet to `out`; returns its length, or 0 when `out` is too short for it.
    pub fn seal_rtp(&self, plain: &Plain<'_>, out: &mut [u8]) -> usize {
        let header_len = plain.header.len();
        let payload_len = plain.prefix.len() + plain.payload.len() + usize::from(plain.padding);
        let len = header_len + payload_len + self.rtp.tag_len();
        let Some(out) = out.get_mut(..len) else { return 0 };
        out[..header_len].copy_from_slice(plain.header);
        if plain.prefix.is_empty() && plain.padding == 0 {
            self.rtp.seal_rtp(plain.ssrc, plain.index, out, header_len, plain.payload);
            return len;
        }
        let body = &mut out[header_len..header_len + payload_len];
        let (prefix, body) = body.split_at_mut(plain.prefix.len());
        prefix.copy_from_slice(plain.prefix);
        let (payload, padding) = body.split_at_mut(plain.payload.len());
        payload.copy_from_slice(plain.payload);
        padding.fill(0);
        if let Some(last) = padding.last_mut() {
            *last = plain.padding;
        }
        self.rtp.seal_rtp_in_place(plain.ssrc, plain.index, out, header_len, payload_len);
        len
    }

    /// Protects the compound RTCP packet in the first `len` bytes of `out`; returns the protected length, or 0 when
    /// `out` has no room for the trailer, the packet is no RTCP, or all 31-bit indexes have been used: none is used twice
    /// ([RFC 3711 §9.2](https://www.rfc-editor.org/rfc/rfc3711#section-9.2)).
    pub fn seal_rtcp(&mut self, out: &mut [u8], len: usize) -> usize {
        if len < 8 || out.len() < len + 4 + self.rtcp.tag_len() || self.rtcp_index == MAX_RTCP_INDEX {
            return 0;
        }
        let ssrc = u32::from_be_bytes(*out[4..].first_chunk().expect("8 bytes at least"));
        self.rtcp_index += 1;
        self.rtcp.seal_rtcp(ssrc, self.rtcp_index, out, len)
    }
}

#[cfg(test)]
mod tests {
    use super::super::SrtpKeys;
    use super::*;

    #[test]
    fn no_index_is_used_twice() {
        let material = [7; 2 * (16 + 12)];
        let keys =
            || SrtpKeys::from_exporter(Profile::Aes128Gcm, &material, true).expect("as long as it should be");
        let (mut egress, mut ingress) = (keys().into_contexts().1, {
            let theirs = SrtpKeys::from_exporter(Profile::Aes128Gcm, &material, false);
            theirs.expect("as long as it should be").into_contexts().0
        });
        egress.rtcp_index = MAX_RTCP_INDEX - 2;
        let lens = [(); 4].map(|()| {
            let mut out = [0; 64];
            out[..4].copy_from_slice(&[0x80, 201, 0, 1]);
            let len = egress.seal_rtcp(&mut out, 8);
            assert!(len == 0 || ingress.open_rtcp(&mut out[..len]).is_ok());
            len
        });
        assert!(lens[..2].iter().all(|len| *len > 0) && lens[2..] == [0, 0], "{lens:?}");
    }
}
