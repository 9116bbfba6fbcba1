//! The first byte says how the rest comes to the server: as query parameters of `/rtc`, or as a join request of
//! `/rtc/v1` before or after any of its three wrappings.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use livekit_protocol as proto;
use prost::Message;
use weir_livekit::join::{JoinParameters, JoinRequestError};

use crate::Input;

/// What a request may inflate to: the protocol's own bound.
const MAX_INFLATED: usize = 1024 * 1024;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.below(5) {
        0 => query(input.rest()),
        1 => {
            let text = String::from_utf8_lossy(input.rest()).into_owned();
            let _ = v1(text);
        }
        2 => {
            let _ = v1(URL_SAFE.encode(input.rest()));
        }
        3 => inner(input.rest()),
        _ => {
            let wrapped = proto::WrappedJoinRequest { compression: 1, join_request: input.rest().to_vec() };
            let _ = v1(URL_SAFE.encode(wrapped.encode_to_vec()));
        }
    }
}

fn v1(blob: String) -> Result<JoinParameters, JoinRequestError> {
    let pairs = [("join_request".to_owned(), blob)];
    let read = JoinParameters::from_v1(&pairs);
    if let Ok(parameters) = &read {
        assert!(parameters.single_peer_connection);
        let attributes: usize = parameters.attributes.values().map(String::len).sum();
        assert!(parameters.metadata.len() + attributes <= MAX_INFLATED);
        // `/rtc` takes it too, and means the same.
        let other = JoinParameters::from_v0(&pairs).expect("the same request");
        assert_eq!(other.metadata, parameters.metadata);
        assert_eq!(other.resume, parameters.resume);
    }
    read
}

/// However a request is wrapped, it says the same.
fn inner(request: &[u8]) {
    let wrap =
        |compression, join_request| proto::WrappedJoinRequest { compression, join_request }.encode_to_vec();
    let plain = wrap(0, request.to_vec());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(request).expect("a vector takes all");
    let zipped = wrap(1, gzip.finish().expect("a vector takes all"));
    let read = [v1(URL_SAFE.encode(&plain)), v1(URL_SAFE_NO_PAD.encode(&plain)), v1(URL_SAFE.encode(zipped))];
    let understood = proto::JoinRequest::decode(request).is_ok();
    for read in read {
        assert_eq!(read.is_ok(), understood, "{:?}", read.err());
    }
}

fn query(text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    let pairs: Vec<(String, String)> = text
        .split('&')
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key.to_owned(), value.to_owned())
        })
        .collect();
    let _ = JoinParameters::from_v1(&pairs);
    if let Ok(parameters) = JoinParameters::from_v0(&pairs) {
        let has = |name: &str| pairs.iter().any(|(key, _)| key == name);
        assert_eq!(parameters.single_peer_connection, has("join_request"));
        assert!(parameters.resume.is_none() || has("reconnect") || has("join_request"));
    }
}
