//! What an m-line carries, as plain values shared by negotiation, signalling and the forwarding core.

/// The most encodings (simulcast RIDs) of one publication. Clients send three; RFC 8853 sets no limit.
pub const MAX_ENCODINGS: usize = 4;

/// A short token: MID, RID, ICE ufrag. Stored in place, since it is compared while demultiplexing.
///
/// At most 16 bytes: what a one-byte RTP header extension can carry
/// ([RFC 8285 §4.2](https://www.rfc-editor.org/rfc/rfc8285#section-4.2)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token {
    len: u8,
    bytes: [u8; 16],
}

impl Token {
    /// The longest token, in bytes.
    pub const MAX_LEN: usize = 16;

    /// `None` when empty, longer than [`Self::MAX_LEN`], or not printable ASCII without space.
    pub fn new(text: &str) -> Option<Self> {
        Self::from_bytes(text.as_bytes())
    }

    /// As [`Self::new`], from the bytes of a header extension.
    pub fn from_bytes(text: &[u8]) -> Option<Self> {
        if text.is_empty() || text.len() > Self::MAX_LEN || !text.iter().all(u8::is_ascii_graphic) {
            return None;
        }
        let mut bytes = [0; Self::MAX_LEN];
        bytes[..text.len()].copy_from_slice(text);
        Some(Self { len: text.len() as u8, bytes })
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// The m-line's identification tag ([RFC 9143](https://www.rfc-editor.org/rfc/rfc9143)).
pub type Mid = Token;
/// The name of one encoding of an m-line ([RFC 8851](https://www.rfc-editor.org/rfc/rfc8851)).
pub type Rid = Token;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MediaKind {
    Audio,
    Video,
}

/// Codecs that are forwarded. Their payload is opaque except for the descriptors that stay clear under E2EE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Codec {
    Opus,
    /// Redundant Opus ([RFC 2198](https://www.rfc-editor.org/rfc/rfc2198)), passed through as it is.
    Red,
    Vp8,
    Vp9,
    H264,
    Av1,
}

impl Codec {
    pub fn kind(self) -> MediaKind {
        match self {
            Self::Opus | Self::Red => MediaKind::Audio,
            Self::Vp8 | Self::Vp9 | Self::H264 | Self::Av1 => MediaKind::Video,
        }
    }

    /// RTP clock rate in Hz.
    pub fn clock_rate(self) -> u32 {
        match self.kind() {
            MediaKind::Audio => 48_000,
            MediaKind::Video => 90_000,
        }
    }

    /// The encoding name in `a=rtpmap`, as registered.
    pub fn name(self) -> &'static str {
        match self {
            Self::Opus => "opus",
            Self::Red => "red",
            Self::Vp8 => "VP8",
            Self::Vp9 => "VP9",
            Self::H264 => "H264",
            Self::Av1 => "AV1",
        }
    }

    /// By its name in `a=rtpmap` or in signalling, case-insensitive.
    pub fn by_name(name: &str) -> Option<Self> {
        [Self::Opus, Self::Red, Self::Vp8, Self::Vp9, Self::H264, Self::Av1]
            .into_iter()
            .find(|codec| codec.name().eq_ignore_ascii_case(name))
    }
}

/// One payload type of an m-line, with its retransmission payload type if negotiated
/// ([RFC 4588](https://www.rfc-editor.org/rfc/rfc4588)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadFormat {
    pub codec: Codec,
    pub payload_type: u8,
    pub rtx_payload_type: Option<u8>,
}

/// Negotiated header extension ids; `None` is not negotiated. Equal on all m-lines of a bundle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtensionIds {
    /// `urn:ietf:params:rtp-hdrext:sdes:mid`
    pub mid: Option<u8>,
    /// `urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id`
    pub rid: Option<u8>,
    /// `urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id`
    pub repaired_rid: Option<u8>,
    /// `http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01`
    pub transport_cc: Option<u8>,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time`
    pub abs_send_time: Option<u8>,
    /// `urn:ietf:params:rtp-hdrext:ssrc-audio-level` ([RFC 6464](https://www.rfc-editor.org/rfc/rfc6464))
    pub audio_level: Option<u8>,
    /// `https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension`
    pub dependency_descriptor: Option<u8>,
}

impl ExtensionIds {
    /// These, and of `others` what is missing here: an id means the same on every m-line of a bundle, but not every
    /// m-line has all.
    pub fn or(self, others: Self) -> Self {
        Self {
            mid: self.mid.or(others.mid),
            rid: self.rid.or(others.rid),
            repaired_rid: self.repaired_rid.or(others.repaired_rid),
            transport_cc: self.transport_cc.or(others.transport_cc),
            abs_send_time: self.abs_send_time.or(others.abs_send_time),
            audio_level: self.audio_level.or(others.audio_level),
            dependency_descriptor: self.dependency_descriptor.or(others.dependency_descriptor),
        }
    }
}

/// One RTP stream of a publication as it was announced.
///
/// Without a RID or an SSRC the stream is found by the MID header extension, or by the payload type alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encoding {
    pub rid: Option<Rid>,
    pub ssrc: Option<u32>,
    pub rtx_ssrc: Option<u32>,
}

/// An m-line on which a peer sends to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressMedia {
    pub mid: Mid,
    pub kind: MediaKind,
    /// What was answered: Opus and perhaps RED, or one video codec. Of several video codecs the first packet's is what the
    /// publication is from then on; only then can it be subscribed to.
    pub formats: Vec<PayloadFormat>,
    pub extensions: ExtensionIds,
    /// In ascending quality: `q`, `h`, `f`. At least one, at most [`MAX_ENCODINGS`].
    pub encodings: Vec<Encoding>,
    /// Whether generic NACK was negotiated ([RFC 4585](https://www.rfc-editor.org/rfc/rfc4585)).
    pub nack: bool,
    /// A shared screen: on a thin line it is kept sharp before it is kept smooth, and comes before faces.
    pub is_screen: bool,
}

/// An m-line on which we send to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressMedia {
    pub mid: Mid,
    pub kind: MediaKind,
    /// The payload types the peer takes for the publication's codecs.
    pub formats: Vec<PayloadFormat>,
    pub extensions: ExtensionIds,
    pub ssrc: u32,
    pub rtx_ssrc: Option<u32>,
}

/// A step of quality: which encoding or spatial layer, and which temporal layer. Higher is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Layer {
    pub spatial: u8,
    pub temporal: u8,
}

impl Layer {
    /// The best there is, whatever is published.
    pub const MAX: Self = Self { spatial: u8::MAX, temporal: u8::MAX };
}

/// ICE user name fragment and password of one side ([RFC 8445 §5.3](https://www.rfc-editor.org/rfc/rfc8445#section-5.3)).
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    pub ufrag: String,
    pub password: String,
}

impl std::fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IceCredentials({}, …)", self.ufrag) // the password is a secret
    }
}

/// Which side sends the ClientHello ([RFC 8842 §5](https://www.rfc-editor.org/rfc/rfc8842#section-5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtlsRole {
    /// `a=setup:active`
    Client,
    /// `a=setup:passive`
    Server,
}

/// What the peer's description says of its transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteTransport {
    pub ice: IceCredentials,
    /// SHA-256 of the peer's certificate.
    pub fingerprint: [u8; 32],
    /// Our role, decided by the answer.
    pub local_role: DtlsRole,
    /// The largest data channel message the peer takes, in bytes; `None` without an application m-line.
    pub max_message_size: Option<u32>,
}

/// What a subscriber asks of a video publication; the allocation may grant less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// False while nobody looks: nothing is forwarded, and nothing counts as wanted upstream.
    pub enabled: bool,
    pub max_layer: Layer,
    /// Higher is served first when not all fits.
    pub priority: u8,
}

impl Default for Wish {
    fn default() -> Self {
        Self { enabled: true, max_layer: Layer::MAX, priority: 1 }
    }
}
