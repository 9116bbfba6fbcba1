//! The peer's ICE and DTLS parameters in a description.

use rtc_sdp::description::common::Attribute;
use rtc_sdp::description::session::SessionDescription;
use weir_units::media::{DtlsRole, IceCredentials};

use crate::SdpError;

/// RFC 8839 §5.4: at most 256 characters each.
const MAX_ICE_CHARS: usize = 256;

#[derive(Clone, Debug)]
pub(crate) struct Remote {
    pub ice: IceCredentials,
    pub fingerprint: [u8; 32],
    setup: Setup,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setup {
    Active,
    Passive,
    ActPass,
}

impl Remote {
    /// Ours when we answer this description: passive wherever we may choose, so that the client's hello, which can
    /// only come after the answer, starts the handshake. To be active would save a client a round trip, but the server
    /// chooses the cipher of the media, and libwebrtc's takes AES-CM with SHA-1, five times as dear as AES-GCM.
    pub fn role_of_answerer(&self) -> DtlsRole {
        match self.setup {
            Setup::Passive => DtlsRole::Client,
            Setup::Active | Setup::ActPass => DtlsRole::Server,
        }
    }

    /// Ours when this description answered us.
    pub fn role_of_offerer(&self) -> DtlsRole {
        match self.setup {
            Setup::Active => DtlsRole::Server,
            Setup::Passive | Setup::ActPass => DtlsRole::Client,
        }
    }
}

/// Everything is bundled, so the first m-line that is not rejected speaks for all.
pub(crate) fn read(session: &SessionDescription) -> Result<Remote, SdpError> {
    let media = &session.media_descriptions;
    let index = media.iter().position(|media| media.media_name.port.value != 0).unwrap_or(0);
    let find = |key: &'static str, accepts: &dyn Fn(&str) -> bool| {
        let of = |attributes: &[Attribute]| {
            let values = attributes.iter().filter(|attribute| attribute.key == key);
            values.filter_map(|attribute| attribute.value.clone()).find(|value| accepts(value))
        };
        media.get(index).and_then(|media| of(&media.attributes)).or_else(|| of(&session.attributes))
    };
    let missing = |what| SdpError::Attribute { index, what };
    let short = |text: &str| !text.is_empty() && text.len() <= MAX_ICE_CHARS;
    let ufrag = find("ice-ufrag", &short).ok_or(missing("a=ice-ufrag"))?;
    let password = find("ice-pwd", &short).ok_or(missing("a=ice-pwd"))?;
    let sha_256 = |value: &str| {
        value.split_whitespace().next().is_some_and(|name| name.eq_ignore_ascii_case("sha-256"))
    };
    let fingerprint = find("fingerprint", &sha_256)
        .and_then(|value| parse_fingerprint(value.split_whitespace().nth(1)?))
        .ok_or(missing("a=fingerprint:sha-256"))?;
    let setup = match find("setup", &|_| true).as_deref() {
        Some("active") => Setup::Active,
        Some("passive") => Setup::Passive,
        Some("actpass") | None => Setup::ActPass,
        Some(_) => return Err(missing("a=setup")),
    };
    Ok(Remote { ice: IceCredentials { ufrag, password }, fingerprint, setup })
}

fn parse_fingerprint(hex: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let mut parts = hex.split(':');
    for byte in &mut bytes {
        *byte =
            parts.next().filter(|part| part.len() == 2).and_then(|part| u8::from_str_radix(part, 16).ok())?;
    }
    parts.next().is_none().then_some(bytes)
}

/// `AB:CD:…`, as [RFC 8122 §5](https://www.rfc-editor.org/rfc/rfc8122#section-5) writes it.
pub(crate) fn format_fingerprint(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}
