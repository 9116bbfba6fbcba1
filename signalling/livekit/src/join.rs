//! How a client asks to join: query parameters (v0), or a protobuf in one of them (v1).

use std::collections::HashMap;
use std::io::Read;

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use livekit_protocol as proto;
use prost::Message;

use crate::room::Limits;
use crate::token::Claims;

/// A join request's size, compressed or not, in bytes.
const MAX_JOIN_REQUEST_BYTES: usize = 1024 * 1024;

/// What a client asked for, whichever way.
#[derive(Clone, Debug, Default)]
pub struct JoinParameters {
    pub client: proto::ClientInfo,
    /// One peer connection for both directions, offered by the client; otherwise one each way.
    pub single_peer_connection: bool,
    pub auto_subscribe: bool,
    pub adaptive_stream: bool,
    /// To every data track there is or will be.
    pub auto_subscribe_data: bool,
    /// Replaces the token's when not empty.
    pub metadata: String,
    /// Added to the token's.
    pub attributes: HashMap<String, String>,
    pub add_tracks: Vec<proto::AddTrackRequest>,
    pub offer: Option<proto::SessionDescription>,
    /// To carry on the session of this participant (sid) instead of starting one. Empty when the client does not say whose.
    pub resume: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinRequestError {
    #[error("join_request is missing")]
    Missing,
    #[error("join_request has more than {MAX_JOIN_REQUEST_BYTES} bytes")]
    TooLarge,
    #[error("join_request is not base64url")]
    Base64,
    #[error("join_request is not gzip, though it says so")]
    Gzip,
    #[error("join_request is not a JoinRequest: {0}")]
    Protobuf(String),
    #[error("attributes is not base64url of a JSON object of strings")]
    Attributes,
}

/// Why somebody cannot join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    #[error("the room is full")]
    RoomFull,
    #[error("changing one's own metadata or attributes needs the grant canUpdateOwnMetadata")]
    MetadataNotAllowed,
    #[error("metadata, attributes or name are too long")]
    TooLong,
    #[error("{}", crate::supervision::Barred::Void)]
    VoidToken,
}

impl JoinParameters {
    /// What must hold of a join whatever the room is like.
    pub fn check(&self, claims: &Claims, limits: &Limits) -> Result<(), JoinError> {
        let changes = !self.metadata.is_empty() || !self.attributes.is_empty();
        if self.resume.is_some() {
            return Ok(()); // what was said at the join stands
        }
        if changes && !claims.video.may_update_own_metadata() {
            return Err(JoinError::MetadataNotAllowed);
        }
        let attributes = self.all_attributes(claims);
        let bytes: usize = attributes.values().chain(attributes.keys()).map(String::len).sum();
        let metadata = self.metadata.len().max(claims.metadata.len());
        let name = claims.name.chars().count();
        if metadata > limits.metadata || bytes > limits.attributes || name > limits.name {
            return Err(JoinError::TooLong);
        }
        Ok(())
    }

    /// The token's, and over them the client's.
    pub fn all_attributes(&self, claims: &Claims) -> HashMap<String, String> {
        let of_token = claims.attributes.iter().map(|(key, value)| (key.clone(), value.clone()));
        of_token.chain(self.attributes.clone()).collect()
    }

    /// From the query of `/rtc/v1`.
    pub fn from_v1(query: &[(String, String)]) -> Result<Self, JoinRequestError> {
        let blob = find(query, "join_request").ok_or(JoinRequestError::Missing)?;
        let request = decode_join_request(blob)?;
        let settings = request.connection_settings.unwrap_or_default();
        Ok(Self {
            client: request.client_info.unwrap_or_default(),
            single_peer_connection: true,
            auto_subscribe: settings.auto_subscribe,
            adaptive_stream: settings.adaptive_stream,
            auto_subscribe_data: settings.auto_subscribe_data_track.unwrap_or(false),
            metadata: request.metadata,
            attributes: request.participant_attributes,
            add_tracks: request.add_track_requests,
            offer: request.publisher_offer,
            resume: request.reconnect.then_some(request.participant_sid),
        })
    }

    /// From the query of `/rtc`. A `join_request` there is taken like one of v1.
    pub fn from_v0(query: &[(String, String)]) -> Result<Self, JoinRequestError> {
        if find(query, "join_request").is_some() {
            return Self::from_v1(query);
        }
        let text = |name| find(query, name).unwrap_or_default().to_owned();
        let number = |name| find(query, name).and_then(|value| value.parse().ok()).unwrap_or_default();
        let flag = |name, default| find(query, name).map_or(default, is_true);
        let sdk = |name: &str| match name {
            "ios" => proto::client_info::Sdk::Swift,
            name => proto::client_info::Sdk::from_str_name(&name.to_ascii_uppercase())
                .unwrap_or(proto::client_info::Sdk::Unknown),
        };
        let capabilities = text("capabilities");
        let capabilities = capabilities.split(',').filter_map(proto::client_info::Capability::from_str_name);
        let attributes = match find(query, "attributes") {
            Some(encoded) => {
                let json = base64url().decode(encoded).map_err(|_| JoinRequestError::Attributes)?;
                serde_json::from_slice(&json).map_err(|_| JoinRequestError::Attributes)?
            }
            None => HashMap::new(),
        };
        Ok(Self {
            client: proto::ClientInfo {
                sdk: sdk(&text("sdk")) as i32,
                version: text("version"),
                protocol: number("protocol"),
                os: text("os"),
                os_version: text("os_version"),
                device_model: text("device_model"),
                browser: text("browser"),
                browser_version: text("browser_version"),
                network: text("network"),
                other_sdks: text("other_sdks"),
                client_protocol: number("client_protocol"),
                capabilities: capabilities.map(|capability| capability as i32).collect(),
                ..Default::default()
            },
            single_peer_connection: false,
            auto_subscribe: flag("auto_subscribe", true),
            adaptive_stream: flag("adaptive_stream", false),
            auto_subscribe_data: flag("auto_subscribe_data_track", false),
            attributes,
            resume: flag("reconnect", false).then(|| text("sid")),
            ..Self::default()
        })
    }
}

fn find<'a>(query: &'a [(String, String)], name: &str) -> Option<&'a str> {
    query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

fn is_true(value: &str) -> bool {
    matches!(value, "1" | "true")
}

fn decode_join_request(blob: &str) -> Result<proto::JoinRequest, JoinRequestError> {
    if blob.len() > MAX_JOIN_REQUEST_BYTES {
        return Err(JoinRequestError::TooLarge);
    }
    let wrapped =
        base64url().decode(blob.replace('+', "-").replace('/', "_")).map_err(|_| JoinRequestError::Base64)?;
    let protobuf = |error: prost::DecodeError| JoinRequestError::Protobuf(error.to_string());
    let wrapped = proto::WrappedJoinRequest::decode(wrapped.as_slice()).map_err(protobuf)?;
    let inner = match wrapped.compression() {
        proto::wrapped_join_request::Compression::None => wrapped.join_request,
        proto::wrapped_join_request::Compression::Gzip => inflate(&wrapped.join_request)?,
    };
    proto::JoinRequest::decode(inner.as_slice()).map_err(protobuf)
}

fn inflate(bytes: &[u8]) -> Result<Vec<u8>, JoinRequestError> {
    let mut inflated = Vec::new();
    let mut limited = flate2::read::GzDecoder::new(bytes).take(MAX_JOIN_REQUEST_BYTES as u64 + 1);
    limited.read_to_end(&mut inflated).map_err(|_| JoinRequestError::Gzip)?;
    if inflated.len() > MAX_JOIN_REQUEST_BYTES {
        return Err(JoinRequestError::TooLarge);
    }
    Ok(inflated)
}

/// Clients pad, but not all; both are the same bytes.
fn base64url() -> GeneralPurpose {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(&URL_SAFE, config)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn query(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn blob(request: &proto::JoinRequest, gzip: bool) -> String {
        let inner = request.encode_to_vec();
        let (compression, join_request) = if gzip {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&inner).unwrap();
            (1, encoder.finish().unwrap())
        } else {
            (0, inner)
        };
        base64::engine::general_purpose::URL_SAFE
            .encode(proto::WrappedJoinRequest { compression, join_request }.encode_to_vec())
    }

    fn request() -> proto::JoinRequest {
        proto::JoinRequest {
            client_info: Some(proto::ClientInfo { protocol: 17, ..Default::default() }),
            connection_settings: Some(proto::ConnectionSettings {
                adaptive_stream: true,
                ..Default::default()
            }),
            publisher_offer: Some(proto::SessionDescription { id: 1, ..Default::default() }),
            reconnect: true,
            participant_sid: "PA_x".to_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn a_v1_request_is_read_compressed_or_not_padded_or_not() {
        for gzip in [false, true] {
            let padded = blob(&request(), gzip);
            for blob in [padded.as_str(), padded.trim_end_matches('=')] {
                let joined = JoinParameters::from_v1(&query(&[("join_request", blob)])).unwrap();
                assert_eq!(joined.client.protocol, 17);
                assert!(joined.single_peer_connection && joined.adaptive_stream && !joined.auto_subscribe);
                assert_eq!(joined.offer.unwrap().id, 1);
                assert_eq!(joined.resume.unwrap(), "PA_x");
            }
        }
    }

    #[test]
    fn what_inflates_beyond_the_bound_is_refused() {
        let request = proto::JoinRequest { metadata: "x".repeat(2 * 1024 * 1024), ..request() };
        let blob = blob(&request, true);
        assert!(blob.len() < 100_000, "small on the wire");
        let refused = JoinParameters::from_v1(&query(&[("join_request", &blob)]));
        assert_eq!(refused.unwrap_err(), JoinRequestError::TooLarge);
    }

    #[test]
    fn broken_requests_are_named() {
        let cases = [
            (query(&[]), "missing"),
            (query(&[("join_request", "§§")]), "base64url"),
            (query(&[("join_request", "CAESAQA=")]), "gzip"),
            (query(&[("join_request", "____")]), "JoinRequest"),
        ];
        for (query, expected) in cases {
            let error = JoinParameters::from_v1(&query).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn v0_parameters_are_read_with_their_defaults() {
        let plain = JoinParameters::from_v0(&query(&[])).unwrap();
        assert!(plain.auto_subscribe && !plain.adaptive_stream && !plain.single_peer_connection);
        assert!(plain.resume.is_none());
        let joined = JoinParameters::from_v0(&query(&[
            ("sdk", "js"),
            ("protocol", "16"),
            ("auto_subscribe", "0"),
            ("adaptive_stream", "true"),
            ("reconnect", "1"),
            ("sid", "PA_1"),
            ("reconnect_reason", "2"),
            ("attributes", "eyJhIjoiYiJ9"),
            ("capabilities", "CAP_PACKET_TRAILER,nonsense"),
        ]))
        .unwrap();
        assert_eq!(joined.client.sdk(), proto::client_info::Sdk::Js);
        assert_eq!(joined.client.capabilities.len(), 1);
        assert!(!joined.auto_subscribe && joined.adaptive_stream);
        assert_eq!(joined.resume.unwrap(), "PA_1");
        assert_eq!(joined.attributes["a"], "b");
        assert!(JoinParameters::from_v0(&query(&[("attributes", "e30x")])).is_err());
    }
}
