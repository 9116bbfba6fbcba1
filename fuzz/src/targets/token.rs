//! The first byte says whether the rest is a whole token, or header and claims (each with its length before it) that are
//! then signed with the right key, so that what stands behind the signature is reached.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use weir_livekit::token::{Claims, Keys, TokenError, sign, verify};

use crate::Input;

const KEY: &str = "devkey";
const SECRET: &str = "a secret of thirty-two characters";
const NOW: u64 = 1_750_000_000;
/// What clocks may differ by, in seconds.
const LEEWAY: u64 = 60;

pub fn run(data: &[u8]) {
    let keys = Keys::new([(KEY.to_owned(), SECRET.to_owned()), ("other".to_owned(), "secret".to_owned())]);
    let mut input = Input::new(data);
    match input.below(3) {
        0 => {
            let token = String::from_utf8_lossy(input.rest()).into_owned();
            if let Ok(claims) = verify(&keys, &token, NOW) {
                check(&claims);
            }
        }
        1 => {
            let (header, claims) = (input.chunk().to_vec(), input.rest().to_vec());
            signed(&keys, &header, &claims);
        }
        _ => signed(&keys, br#"{"alg":"HS256","typ":"JWT"}"#, input.rest()),
    }
}

fn signed(keys: &Keys, header: &[u8], claims: &[u8]) {
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let tag =
        |secret: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), text.as_bytes());
    let token = format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag(SECRET).as_ref()));
    let forged = format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag("guess").as_ref()));
    assert!(verify(keys, &forged, NOW).is_err(), "a signature by another key");
    assert!(verify(keys, &format!("{text}."), NOW).is_err(), "no signature");
    match verify(keys, &token, NOW) {
        Ok(claims) => check(&claims),
        Err(TokenError::Signature) => {
            let algorithm = serde_json::from_slice::<serde_json::Value>(header).ok();
            let algorithm = algorithm.as_ref().and_then(|header| header.get("alg")?.as_str());
            let issuer = serde_json::from_slice::<Claims>(claims).map(|claims| claims.iss);
            assert!(
                algorithm != Some("HS256") || issuer.as_deref().ok() != Some(KEY) || !is_usual(header),
                "the signature is right"
            );
        }
        Err(_) => {}
    }
}

/// A header may name extensions that must be understood (`crit`), which we refuse as a wrong signature.
fn is_usual(header: &[u8]) -> bool {
    header == br#"{"alg":"HS256","typ":"JWT"}"#
}

fn check(claims: &Claims) {
    assert!(claims.iss == KEY || claims.iss == "other");
    assert!(claims.exp.is_some_and(|at| at.saturating_add(LEEWAY) >= NOW));
    assert!(claims.nbf.is_none_or(|at| at <= NOW + LEEWAY));
    claims.identity();
    for source in ["camera", "microphone", "unknown"] {
        claims.video.may_publish_source(source);
    }
    claims.video.may_publish_data();
    // A refreshed token says the same.
    let keys = Keys::new([(KEY.to_owned(), SECRET.to_owned())]);
    let refreshed = Claims { iss: String::new(), ..claims.clone() };
    let token = sign(&keys, &refreshed).expect("there is a key");
    let again = verify(&keys, &token, NOW).expect("what we sign is good");
    assert_eq!(Claims { iss: claims.iss.clone(), ..again }, *claims);
}
