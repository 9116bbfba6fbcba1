//! From the DTLS exporter to session keys ([RFC 5764 §4.2](https://www.rfc-editor.org/rfc/rfc5764#section-4.2),
//! [RFC 3711 §4.3](https://www.rfc-editor.org/rfc/rfc3711#section-4.3)).

use aes::cipher::{BlockEncrypt, KeyInit};

use super::{SrtpEgress, SrtpIngress};

/// What protects packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// `AEAD_AES_128_GCM`
    Aes128Gcm,
    /// `AEAD_AES_256_GCM`
    Aes256Gcm,
    /// `AES128_CM_HMAC_SHA1_80`: costs about five times as much a packet; for peers that have nothing better.
    Aes128CmSha1,
}

impl Profile {
    /// Bytes of the cipher's key.
    pub fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm | Self::Aes128CmSha1 => 16,
            Self::Aes256Gcm => 32,
        }
    }

    pub(crate) fn salt_len(self) -> usize {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm => 12,
            Self::Aes128CmSha1 => 14,
        }
    }

    /// Bytes that protection adds to an RTP packet.
    pub fn tag_len(self) -> usize {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm => 16,
            Self::Aes128CmSha1 => 10,
        }
    }
}

/// One side's master key and salt.
#[derive(Clone)]
pub(crate) struct Master {
    pub key: Vec<u8>,
    pub salt: Vec<u8>,
}

/// What a handshake agreed on.
#[derive(Clone)]
pub struct SrtpKeys {
    profile: Profile,
    client: Master,
    server: Master,
    /// Whether we are the DTLS client.
    is_client: bool,
}

impl std::fmt::Debug for SrtpKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SrtpKeys({:?}, …)", self.profile)
    }
}

impl SrtpKeys {
    /// From exported keying material: client key, server key, client salt, server salt. `None` when its length is not
    /// the profile's.
    pub fn from_exporter(profile: Profile, material: &[u8], is_client: bool) -> Option<Self> {
        let (key, salt) = (profile.key_len(), profile.salt_len());
        if material.len() != 2 * (key + salt) {
            return None;
        }
        let (keys, salts) = material.split_at(2 * key);
        let side = |at: usize| Master {
            key: keys[at * key..][..key].to_vec(),
            salt: salts[at * salt..][..salt].to_vec(),
        };
        Some(Self { profile, client: side(0), server: side(1), is_client })
    }

    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// The contexts for what the peer sends and for what we send.
    pub fn into_contexts(self) -> (SrtpIngress, SrtpEgress) {
        let (ours, theirs) =
            if self.is_client { (&self.client, &self.server) } else { (&self.server, &self.client) };
        (
            SrtpIngress::new(Session::derive(self.profile, theirs)),
            SrtpEgress::new(Session::derive(self.profile, ours)),
        )
    }
}

/// Session keys of one direction.
pub(crate) struct Session {
    pub profile: Profile,
    pub rtp: Keys,
    pub rtcp: Keys,
}

/// Keys of one protocol: cipher, authentication (SHA-1 only) and salt.
pub(crate) struct Keys {
    pub cipher: Vec<u8>,
    pub authentication: [u8; 20],
    pub salt: [u8; 14],
}

impl Session {
    pub fn derive(profile: Profile, master: &Master) -> Self {
        let keys = |first_label: u8| {
            let mut cipher = vec![0; profile.key_len()];
            let (mut authentication, mut salt) = ([0; 20], [0; 14]);
            derive(master, first_label, &mut cipher);
            derive(master, first_label + 1, &mut authentication);
            derive(master, first_label + 2, &mut salt[..profile.salt_len()]);
            Keys { cipher, authentication, salt }
        };
        Self { profile, rtp: keys(0), rtcp: keys(3) }
    }
}

/// AES in counter mode over the label, with a key derivation rate of zero
/// ([RFC 3711 §4.3.3](https://www.rfc-editor.org/rfc/rfc3711#section-4.3.3)).
fn derive(master: &Master, label: u8, out: &mut [u8]) {
    let mut counter = [0; 16];
    counter[..master.salt.len()].copy_from_slice(&master.salt);
    counter[7] ^= label;
    for (at, chunk) in out.chunks_mut(16).enumerate() {
        counter[14..].copy_from_slice(&(at as u16).to_be_bytes());
        let mut block = aes::Block::from(counter);
        match master.key.len() {
            16 => aes::Aes128::new_from_slice(&master.key).expect("16 bytes").encrypt_block(&mut block),
            _ => aes::Aes256::new_from_slice(&master.key).expect("32 bytes").encrypt_block(&mut block),
        }
        chunk.copy_from_slice(&block[..chunk.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn derives_the_keys_of_rfc_3711_appendix_b_3() {
        let master = Master {
            key: hex("E1F97A0D3E018BE0D64FA32C06DE4139"),
            salt: hex("0EC675AD498AFEEBB6960B3AABE6"),
        };
        let session = Session::derive(Profile::Aes128CmSha1, &master);
        assert_eq!(session.rtp.cipher, hex("C61E7A93744F39EE10734AFE3FF7A087"));
        assert_eq!(session.rtp.salt.to_vec(), hex("30CBBC08863D8C85D49DB34A9AE1"));
        assert_eq!(session.rtp.authentication.to_vec(), hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"));
    }

    #[test]
    fn material_of_the_wrong_length_is_refused() {
        assert!(SrtpKeys::from_exporter(Profile::Aes128Gcm, &[0; 55], true).is_none());
        assert!(SrtpKeys::from_exporter(Profile::Aes128Gcm, &[0; 56], true).is_some());
    }
}
