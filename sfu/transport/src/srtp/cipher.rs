//! Sealing and opening one packet under one key. The caller keeps indexes and decides on replays.

use aes::cipher::{KeyIvInit, StreamCipher};
use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;

use super::keys::{Keys, Profile};

type AesCm = ctr::Ctr128BE<aes::Aes128>;

pub(super) enum Cipher {
    Gcm {
        key: LessSafeKey,
        salt: [u8; 12],
    },
    /// Boxed: its key is a kilobyte, and few peers need it.
    Cm {
        key: [u8; 16],
        salt: [u8; 14],
        authentication: Box<hmac::Key>,
    },
}

/// Bytes of an HMAC-SHA1 tag on the wire.
const SHA1_TAG: usize = 10;
const GCM_TAG: usize = 16;

/// The packet did not authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forged;

impl Cipher {
    pub fn new(profile: Profile, keys: &Keys) -> Self {
        let gcm = |algorithm| {
            let key = UnboundKey::new(algorithm, &keys.cipher).expect("the profile's key length");
            let salt = *keys.salt.first_chunk().expect("12 of 14 bytes");
            Self::Gcm { key: LessSafeKey::new(key), salt }
        };
        match profile {
            Profile::Aes128Gcm => gcm(&aead::AES_128_GCM),
            Profile::Aes256Gcm => gcm(&aead::AES_256_GCM),
            Profile::Aes128CmSha1 => Self::Cm {
                key: *keys.cipher.first_chunk().expect("the profile's key length"),
                salt: keys.salt,
                authentication: Box::new(hmac::Key::new(
                    hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
                    &keys.authentication,
                )),
            },
        }
    }

    pub fn tag_len(&self) -> usize {
        match self {
            Self::Gcm { .. } => GCM_TAG,
            Self::Cm { .. } => SHA1_TAG,
        }
    }

    /// Seals `payload` into `out`, which holds the header in its first `header_len` bytes and has room for payload
    /// and tag. `index` is the extended sequence number.
    pub fn seal_rtp(&self, ssrc: u32, index: u64, out: &mut [u8], header_len: usize, payload: &[u8]) {
        let (header, body) = out.split_at_mut(header_len);
        match self {
            Self::Gcm { key, salt } => {
                let (body, tag) = body.split_at_mut(payload.len());
                key.seal_out_of_place_scatter(
                    gcm_nonce(salt, ssrc, index),
                    Aad::from(&*header),
                    payload,
                    body,
                    &[],
                    &mut tag[..GCM_TAG],
                )
                .expect("a packet is shorter than any AEAD's limit");
            }
            Self::Cm { .. } => {
                body[..payload.len()].copy_from_slice(payload);
                self.seal_rtp_in_place(ssrc, index, out, header_len, payload.len());
            }
        }
    }

    /// As [`Self::seal_rtp`], with the payload already behind the header.
    pub fn seal_rtp_in_place(
        &self,
        ssrc: u32,
        index: u64,
        out: &mut [u8],
        header_len: usize,
        payload_len: usize,
    ) {
        match self {
            Self::Gcm { key, salt } => {
                let (header, body) = out.split_at_mut(header_len);
                let (body, tag) = body.split_at_mut(payload_len);
                let sealed = key
                    .seal_in_place_separate_tag(gcm_nonce(salt, ssrc, index), Aad::from(&*header), body)
                    .expect("a packet is shorter than any AEAD's limit");
                tag[..GCM_TAG].copy_from_slice(sealed.as_ref());
            }
            Self::Cm { key, salt, authentication } => {
                let end = header_len + payload_len;
                apply_cm(key, salt, ssrc, index, &mut out[header_len..end]);
                let (packet, tag) = out.split_at_mut(end);
                let roc = ((index >> 16) as u32).to_be_bytes();
                tag[..SHA1_TAG].copy_from_slice(&sha1(authentication, packet, &roc));
            }
        }
    }

    /// Opens in place what follows the header. Returns the length of header and payload.
    pub fn open_rtp(
        &self,
        ssrc: u32,
        index: u64,
        packet: &mut [u8],
        header_len: usize,
    ) -> Result<usize, Forged> {
        let end = packet.len() - self.tag_len();
        match self {
            Self::Gcm { key, salt } => {
                let (header, body) = packet.split_at_mut(header_len);
                key.open_in_place(gcm_nonce(salt, ssrc, index), Aad::from(&*header), body)
                    .map_err(|_| Forged)?;
            }
            Self::Cm { key, salt, authentication } => {
                let (packet, tag) = packet.split_at_mut(end);
                let roc = ((index >> 16) as u32).to_be_bytes();
                verify(&sha1(authentication, packet, &roc), tag)?;
                apply_cm(key, salt, ssrc, index, &mut packet[header_len..]);
            }
        }
        Ok(end)
    }

    /// Protects the RTCP packet in the first `len` bytes; returns the length with trailer. `out` needs room for
    /// 4 bytes of index and the tag.
    pub fn seal_rtcp(&self, ssrc: u32, index: u32, out: &mut [u8], len: usize) -> usize {
        let trailer = (index | ENCRYPTED).to_be_bytes();
        match self {
            Self::Gcm { key, salt } => {
                // RFC 7714 §9.1: header and trailer are authenticated, the tag stands before the trailer.
                let mut aad = [0; 12];
                aad[..8].copy_from_slice(&out[..8]);
                aad[8..].copy_from_slice(&trailer);
                let sealed = key
                    .seal_in_place_separate_tag(
                        gcm_nonce(salt, ssrc, u64::from(index)),
                        Aad::from(aad),
                        &mut out[8..len],
                    )
                    .expect("a packet is shorter than any AEAD's limit");
                out[len..len + GCM_TAG].copy_from_slice(sealed.as_ref());
                out[len + GCM_TAG..len + GCM_TAG + 4].copy_from_slice(&trailer);
                len + GCM_TAG + 4
            }
            Self::Cm { key, salt, authentication } => {
                apply_cm(key, salt, ssrc, u64::from(index), &mut out[8..len]);
                out[len..len + 4].copy_from_slice(&trailer);
                let (packet, tag) = out.split_at_mut(len + 4);
                tag[..SHA1_TAG].copy_from_slice(&sha1(authentication, packet, &[]));
                len + 4 + SHA1_TAG
            }
        }
    }

    /// The index an SRTCP packet claims, before it is opened. `None` when it is too short.
    pub fn rtcp_index(&self, packet: &[u8]) -> Option<u32> {
        let at = match self {
            Self::Gcm { .. } => packet.len().checked_sub(4)?,
            Self::Cm { .. } => packet.len().checked_sub(4 + SHA1_TAG)?,
        };
        if at < 8 + if matches!(self, Self::Gcm { .. }) { GCM_TAG } else { 0 } {
            return None;
        }
        Some(u32::from_be_bytes(*packet[at..].first_chunk()?) & !ENCRYPTED)
    }

    /// Opens an SRTCP packet in place; returns its plain length. Unencrypted SRTCP is refused: WebRTC has none.
    pub fn open_rtcp(&self, ssrc: u32, index: u32, packet: &mut [u8]) -> Result<usize, Forged> {
        let trailer = (index | ENCRYPTED).to_be_bytes();
        match self {
            Self::Gcm { key, salt } => {
                let end = packet.len() - 4;
                if packet[end..] != trailer {
                    return Err(Forged);
                }
                let mut aad = [0; 12];
                aad[..8].copy_from_slice(&packet[..8]);
                aad[8..].copy_from_slice(&trailer);
                key.open_in_place(
                    gcm_nonce(salt, ssrc, u64::from(index)),
                    Aad::from(aad),
                    &mut packet[8..end],
                )
                .map_err(|_| Forged)?;
                Ok(end - GCM_TAG)
            }
            Self::Cm { key, salt, authentication } => {
                let end = packet.len() - SHA1_TAG;
                let (packet, tag) = packet.split_at_mut(end);
                verify(&sha1(authentication, packet, &[]), tag)?;
                let len = end - 4;
                if packet[len..] != trailer {
                    return Err(Forged);
                }
                apply_cm(key, salt, ssrc, u64::from(index), &mut packet[8..len]);
                Ok(len)
            }
        }
    }
}

/// The E bit of the SRTCP index.
const ENCRYPTED: u32 = 1 << 31;

/// [RFC 7714 §8.1, §9.1](https://www.rfc-editor.org/rfc/rfc7714#section-8.1): for SRTP, ROC and sequence number; for
/// SRTCP, two zero bytes and the 31-bit index. Both are the low 48 bits of `index`.
fn gcm_nonce(salt: &[u8; 12], ssrc: u32, index: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[2..6].copy_from_slice(&ssrc.to_be_bytes());
    nonce[6..].copy_from_slice(&index.to_be_bytes()[2..]);
    Nonce::assume_unique_for_key(std::array::from_fn(|at| nonce[at] ^ salt[at]))
}

/// [RFC 3711 §4.1.1](https://www.rfc-editor.org/rfc/rfc3711#section-4.1.1).
fn apply_cm(key: &[u8; 16], salt: &[u8; 14], ssrc: u32, index: u64, data: &mut [u8]) {
    let mut iv = [0; 16];
    iv[4..8].copy_from_slice(&ssrc.to_be_bytes());
    iv[8..14].copy_from_slice(&index.to_be_bytes()[2..]);
    for (byte, salt) in iv.iter_mut().zip(salt) {
        *byte ^= salt;
    }
    AesCm::new(key.into(), &iv.into()).apply_keystream(data);
}

fn sha1(key: &hmac::Key, packet: &[u8], suffix: &[u8]) -> [u8; SHA1_TAG] {
    let mut context = hmac::Context::with_key(key);
    context.update(packet);
    context.update(suffix);
    *context.sign().as_ref().first_chunk().expect("20 bytes")
}

fn verify(expected: &[u8; SHA1_TAG], tag: &[u8]) -> Result<(), Forged> {
    aws_lc_rs::constant_time::verify_slices_are_equal(expected, tag).map_err(|_| Forged)
}
