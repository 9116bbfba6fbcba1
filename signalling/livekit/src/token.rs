//! Access tokens: JSON Web Tokens (HS256) whose `video` claim says what the bearer may do in which room.
//!
//! Absent grants of the three-valued kind mean what they mean to LiveKit: allowed, but for changing one's own
//! metadata.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

/// Clocks of the issuer and ours may differ by this many seconds.
const LEEWAY: u64 = 60;
/// The longest token that is looked at, in bytes: metadata may be 512 KiB, attributes 64 KiB.
const MAX_TOKEN_BYTES: usize = 1024 * 1024;

/// API keys and their secrets.
#[derive(Clone, Default)]
pub struct Keys {
    secrets: Vec<(String, String)>,
}

impl Keys {
    /// In order: the first signs refreshed tokens.
    pub fn new(secrets: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { secrets: secrets.into_iter().collect() }
    }

    fn secret(&self, key: &str) -> Option<&str> {
        self.secrets.iter().find(|(known, _)| known == key).map(|(_, secret)| secret.as_str())
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.secrets.iter().map(|(key, _)| key)).finish() // secrets stay secret
    }
}

/// What a token says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Claims {
    /// The API key that signed it.
    pub iss: String,
    /// The participant's identity.
    pub sub: String,
    /// The identity of tokens that have no `sub`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub jti: String,
    /// Expiry in Unix seconds; required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<u64>,
    /// Not before, in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// When it was issued, in Unix seconds. [RFC 7519 §2](https://www.rfc-editor.org/rfc/rfc7519#section-2) allows
    /// fractions: milliseconds tell a token from one that was voided in the same second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iat: Option<f64>,
    /// Whom the issuer made it for, in its own words, which mean nothing here. Ours alone.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub issued_to: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub metadata: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    pub video: VideoGrant,
}

/// The `video` claim.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VideoGrant {
    pub room: String,
    #[serde(skip_serializing_if = "is_false")]
    pub room_join: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub room_create: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub room_list: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub room_admin: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_subscribe: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish_data: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub can_publish_sources: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_update_own_metadata: Option<bool>,
    #[serde(skip_serializing_if = "is_false")]
    pub hidden: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub recorder: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub agent: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Claims {
    pub fn identity(&self) -> &str {
        if self.sub.is_empty() { &self.jti } else { &self.sub }
    }

    /// In Unix milliseconds; the first that is possible if the token does not say.
    pub fn issued_ms(&self) -> u64 {
        match (self.iat, self.nbf) {
            (Some(seconds), _) => (seconds * 1000.0).round() as u64, // saturates at both ends
            (None, Some(seconds)) => seconds.saturating_mul(1000),
            (None, None) => 0,
        }
    }
}

impl VideoGrant {
    pub fn may_publish(&self) -> bool {
        self.can_publish.unwrap_or(true)
    }

    pub fn may_subscribe(&self) -> bool {
        self.can_subscribe.unwrap_or(true)
    }

    /// As [`Self::may_publish`] unless said otherwise.
    pub fn may_publish_data(&self) -> bool {
        self.can_publish_data.unwrap_or_else(|| self.may_publish())
    }

    pub fn may_update_own_metadata(&self) -> bool {
        self.can_update_own_metadata.unwrap_or(false)
    }

    /// `source` as in the grant: `camera`, `microphone`, `screen_share`, `screen_share_audio`. A list of sources
    /// stands above `canPublish`.
    pub fn may_publish_source(&self, source: &str) -> bool {
        if self.can_publish_sources.is_empty() {
            return self.may_publish();
        }
        self.can_publish_sources.iter().any(|allowed| allowed.eq_ignore_ascii_case(source))
    }
}

/// Why a token is not good. Says nothing that helps to forge one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("no token: send it as `Authorization: Bearer` or `access_token`")]
    Missing,
    #[error("the authorization header is not `Bearer <token>`")]
    Header,
    #[error("the token is malformed")]
    Malformed,
    #[error("the token's issuer is no API key of this focus")]
    UnknownKey,
    #[error("the token's signature is wrong")]
    Signature,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYet,
}

/// Checks a token's signature and times. `now` is Unix seconds.
pub fn verify(keys: &Keys, token: &str, now: u64) -> Result<Claims, TokenError> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(TokenError::Malformed);
    }
    // The issuer names the key, so it is read before anything is known to be true.
    let unverified: Claims =
        jsonwebtoken::dangerous::insecure_decode(token).map_err(|_| TokenError::Malformed)?.claims;
    let secret = keys.secret(&unverified.iss).ok_or(TokenError::UnknownKey)?;
    let mut validation = Validation::new(Algorithm::HS256);
    // Times are judged below, by the clock that was passed in.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let claims: Claims =
        jsonwebtoken::decode(token, &DecodingKey::from_secret(secret.as_bytes()), &validation)
            .map_err(|_| TokenError::Signature)?
            .claims;
    let expires = claims.exp.ok_or(TokenError::Malformed)?;
    if now > expires.saturating_add(LEEWAY) {
        return Err(TokenError::Expired);
    }
    if claims.nbf.is_some_and(|from| now.saturating_add(LEEWAY) < from) {
        return Err(TokenError::NotYet);
    }
    Ok(claims)
}

/// Signs claims with the API key they name as `iss`, or the first; `None` without any key.
pub fn sign(keys: &Keys, claims: &Claims) -> Option<String> {
    let (key, secret) = match keys.secret(&claims.iss) {
        Some(secret) => (claims.iss.clone(), secret),
        None => keys.secrets.first().map(|(key, secret)| (key.clone(), secret.as_str()))?,
    };
    let claims = Claims { iss: key, ..claims.clone() };
    let header = serde_json::to_string(&Header::new(Algorithm::HS256)).ok()?;
    let payload = plain(&serde_json::to_string(&claims).ok()?);
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).ok()?;
    Some(format!("{message}.{signature}"))
}

/// The same JSON with escapes for the characters that would put `-` or `_` into its base64url form. Some clients read
/// their token with a decoder that knows neither (`atob`), and users' names may have any character.
fn plain(json: &str) -> String {
    let mut plain = String::with_capacity(json.len());
    for character in json.chars() {
        // Outside strings JSON has none of these, and inside an escape means the same.
        if character.is_ascii() && !matches!(character, '?' | '>' | '~' | '\u{7f}') {
            plain.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                plain.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    plain
}

/// A token for one person to join one room with everything allowed. `now` and `expires` are Unix seconds.
pub fn mint(key: &str, secret: &str, identity: &str, room: &str, now: u64, expires: u64) -> Option<String> {
    let claims = Claims {
        iss: key.to_owned(),
        sub: identity.to_owned(),
        name: identity.to_owned(),
        nbf: Some(now),
        exp: Some(expires),
        video: VideoGrant {
            room: room.to_owned(),
            room_join: true,
            can_update_own_metadata: Some(true),
            ..VideoGrant::default()
        },
        ..Claims::default()
    };
    sign(&Keys::new([(key.to_owned(), secret.to_owned())]), &claims)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::new([("devkey".to_owned(), "a secret of thirty-two characters".to_owned())])
    }

    fn token(now: u64, expires: u64) -> String {
        mint("devkey", "a secret of thirty-two characters", "alice", "room", now, expires).unwrap()
    }

    #[test]
    fn what_was_signed_reads_back() {
        let claims = verify(&keys(), &token(1_000, 2_000), 1_500).unwrap();
        assert_eq!(claims.identity(), "alice");
        assert_eq!(claims.video.room, "room");
        assert!(claims.video.room_join && claims.video.may_publish() && claims.video.may_publish_data());
    }

    #[test]
    fn clients_can_decode_a_payload_with_atob_whatever_the_names() {
        for identity in [
            "@a:b:C",
            "~~~???>>>",
            "@x?>~\u{7f}:b:\"\\\n",
            "@ünï:b:日本",
            "@🦀:b:🎥~",
            "?",
            "a?",
            "ab?",
            "a~",
        ] {
            let claims = Claims {
                iss: "devkey".to_owned(),
                sub: identity.to_owned(),
                name: identity.to_owned(),
                exp: Some(2_000),
                attributes: [(identity.to_owned(), identity.to_owned())].into(),
                ..Claims::default()
            };
            let token = sign(&keys(), &claims).unwrap();
            let payload = token.split('.').nth(1).unwrap();
            assert!(payload.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{identity}: {payload}");
            assert_eq!(verify(&keys(), &token, 5), Ok(claims), "{identity}");
        }
    }

    #[test]
    fn times_count_with_a_minute_of_leeway() {
        let token = token(1_000, 2_000);
        assert!(verify(&keys(), &token, 2_060).is_ok());
        assert_eq!(verify(&keys(), &token, 2_061), Err(TokenError::Expired));
        assert!(verify(&keys(), &token, 940).is_ok());
        assert_eq!(verify(&keys(), &token, 939), Err(TokenError::NotYet));
    }

    #[test]
    fn another_secret_another_algorithm_or_another_key_is_refused() {
        let other = mint("devkey", "another secret of some length", "alice", "room", 1, 9_000).unwrap();
        assert_eq!(verify(&keys(), &other, 5), Err(TokenError::Signature));
        let other = mint("who", "a secret of thirty-two characters", "alice", "room", 1, 9_000).unwrap();
        assert_eq!(verify(&keys(), &other, 5), Err(TokenError::UnknownKey));
        // {"alg":"none","typ":"JWT"} . {"iss":"devkey","sub":"alice","exp":99999999999} .
        let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJpc3MiOiJkZXZrZXkiLCJzdWIiOiJhbGljZSIsImV4cCI6OTk5OTk5OTk5OTl9.";
        assert!(matches!(verify(&keys(), none, 5), Err(TokenError::Malformed | TokenError::Signature)));
        let good = token(1, 9_000);
        let (head, signature) = good.rsplit_once('.').unwrap();
        let forged = format!("{head}.{}A", &signature[..signature.len() - 1]);
        assert!(verify(&keys(), &forged, 5).is_err() || forged == good);
    }

    #[test]
    fn a_token_without_expiry_is_refused() {
        let claims = Claims { iss: "devkey".to_owned(), sub: "alice".to_owned(), ..Claims::default() };
        let token = sign(&keys(), &claims).unwrap();
        assert_eq!(verify(&keys(), &token, 5), Err(TokenError::Malformed));
    }

    #[test]
    fn garbage_is_malformed() {
        for garbage in ["", ".", "..", "a.b.c", "eyJ.eyJ.x", &"x".repeat(2_000_000)] {
            assert_eq!(verify(&keys(), garbage, 5), Err(TokenError::Malformed));
        }
    }

    #[test]
    fn absent_grants_mean_allowed_but_for_own_metadata() {
        let grant = VideoGrant::default();
        assert!(grant.may_publish() && grant.may_subscribe() && grant.may_publish_data());
        assert!(!grant.may_update_own_metadata());
        let silent = VideoGrant { can_publish: Some(false), ..VideoGrant::default() };
        assert!(!silent.may_publish_data());
        let camera_only = VideoGrant {
            can_publish: Some(false),
            can_publish_sources: vec!["camera".to_owned()],
            ..VideoGrant::default()
        };
        assert!(camera_only.may_publish_source("camera") && !camera_only.may_publish_source("microphone"));
    }

    #[test]
    fn secrets_are_not_printed() {
        assert!(!format!("{:?}", keys()).contains("secret"));
    }
}
