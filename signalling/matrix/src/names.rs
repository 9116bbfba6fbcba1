//! Names as Matrix writes them, and the names that conferences and participants get from them.
//!
//! A conference's name and most identities are hashes, so that a focus that is not told them sees no Matrix ids
//! ([MSC4195](https://github.com/matrix-org/matrix-spec-proposals/pull/4195)). Clients compute the same hashes, and show
//! a participant only if its identity is the one they expect.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// The longest id that Matrix allows (<https://spec.matrix.org/latest/appendices/#user-identifiers>), in bytes. Server
/// names and everything else that clients name is held to the same.
pub const MAX_ID_BYTES: usize = 255;

/// The slot of calls of the whole room, which clients that know no slots mean.
pub const ROOM_CALL: &str = "m.call#ROOM";

/// Unpadded base64 of SHA-256 over the canonical JSON of the parts, an array of strings.
fn hash(parts: &[&str]) -> String {
    // Canonical JSON escapes what must be and nothing else, and so does this serialiser.
    let json = serde_json::to_vec(parts).expect("strings are always JSON");
    STANDARD_NO_PAD.encode(digest::digest(&digest::SHA256, &json))
}

/// The name of the conference in a slot of a room. The same for all clients, whatever they asked with.
pub fn conference(room_id: &str, slot_id: &str) -> String {
    hash(&[room_id, slot_id])
}

/// The identity of somebody who joined with a member id.
pub fn identity(user: &UserId, device_id: &str, member_id: &str) -> String {
    hash(&[user.as_str(), device_id, member_id])
}

/// The identity of somebody who joined with a member id, and whose homeserver says nothing of devices.
pub fn member_identity(user: &UserId, member_id: &str) -> String {
    hash(&[user.as_str(), member_id])
}

/// The identity that is expected of members who announce themselves by a state event: it is not hashed.
pub fn plain_identity(user: &UserId, device_id: &str) -> String {
    format!("{user}:{device_id}")
}

/// Whether a device's id begins like the port of a server. After a user's id and a colon it would be read as one: device
/// "8448:A" of a user at lab.example as device "A" of the user of that name at lab.example:8448.
pub fn begins_like_a_port(device_id: &str) -> bool {
    device_id.split_once(':').is_some_and(|(port, _)| parse_port(port).is_some())
}

/// Whether something that a client named is of a length and of characters that Matrix allows.
pub fn is_sound(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_ID_BYTES && !id.chars().any(char::is_control)
}

/// The name of a homeserver, checked against its
/// [grammar](https://spec.matrix.org/latest/appendices/#server-name).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerName {
    text: String,
    host: Host,
    port: Option<u16>,
}

/// What stands before the port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    Address(IpAddr),
    Name(String),
}

impl ServerName {
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_ID_BYTES {
            return None;
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                let port = if port.is_empty() { None } else { Some(port.strip_prefix(':')?) };
                (Host::Address(address.parse::<Ipv6Addr>().ok()?.into()), port)
            }
            None => {
                let (host, port) = match text.split_once(':') {
                    Some((host, port)) => (host, Some(port)),
                    None => (text, None),
                };
                (Host::parse(host)?, port)
            }
        };
        let port = match port {
            Some(port) => Some(parse_port(port)?),
            None => None,
        };
        Some(Self { text: text.to_owned(), host, port })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn host(&self) -> &Host {
        &self.host
    }

    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

impl Host {
    fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Some(Self::Address(address.into()));
        }
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        // A name of digits alone is an address in disguise to some resolvers ("2130706433" is 127.0.0.1).
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        (!text.is_empty() && text.bytes().all(is_name) && !is_number).then(|| Self::Name(text.to_owned()))
    }
}

/// One to five digits, and no more than a port can be.
fn parse_port(text: &str) -> Option<u16> {
    let is_number = !text.is_empty() && text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_number && *port != 0)
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A user's id, `@localpart:server`. Prints shortened with `{:?}`, for logs.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId {
    text: String,
    server: ServerName,
}

impl UserId {
    /// Takes every localpart that old servers allowed, but for control characters.
    pub fn parse(text: &str) -> Option<Self> {
        if !is_sound(text) {
            return None;
        }
        let (_, server) = text.strip_prefix('@')?.split_once(':')?;
        Some(Self { text: text.to_owned(), server: ServerName::parse(server)? })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn server(&self) -> &ServerName {
        &self.server
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shortened(&self.text))
    }
}

/// Enough of an id to find it again in a log, and too little to know whose it is.
pub fn shortened(id: &str) -> String {
    const SHOWN: usize = 6;
    let mut shown: String = id.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if id.chars().count() > SHOWN {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str) -> UserId {
        UserId::parse(id).unwrap()
    }

    #[test]
    fn hashes_are_those_of_the_proposal_and_of_clients() {
        for (parts, expected) in [
            (&["!roomid:example.com", "slot1234"][..], "O8437W3+jmzMVjoIP3tNwbm+XxHQk2iKpOA7aqw3qSc"),
            (&["!roomid:example.com", "slot123", "random123"], "IMeDd+K3MIqJTI20EXBIrepKkhhORvf3q8fx3rlrhTk"),
            (&["@alice:example.com", "memberABC"], "M3VnsLXrkbxIDINXO64u8PZzFyD9ZYFiQULR2dshWYs"),
        ] {
            assert_eq!(hash(parts), expected, "{parts:?}");
        }
        assert_eq!(
            conference("!focus:lab.example", ROOM_CALL),
            "2K3BVsUiVbgVZe3yiLDfIauTbcAYJVapBv6RGuweGkY"
        );
        assert_eq!(
            identity(&user("@alice:example.com"), "DEVICE123", "memberABC"),
            "J+T45tGruxc+HrUOqJJlyQSV33m728Cme4+vt8/SWrU"
        );
        assert_eq!(
            identity(&user("@dana:lab.example"), "LAPTOP7", "7c2e5e0a-5a34-4a3f-9a52-1f6f2f7f1d11"),
            "xyNLr+/tQI8JbXBx2YO8Tv1BtTDIzajApqMfjCoDS0U"
        );
        assert_eq!(plain_identity(&user("@dana:lab.example"), "LAPTOP7"), "@dana:lab.example:LAPTOP7");
    }

    #[test]
    fn hashes_are_over_canonical_json_and_not_over_html_safe_json() {
        let over = |json: &str| STANDARD_NO_PAD.encode(digest::digest(&digest::SHA256, json.as_bytes()));
        assert_eq!(hash(&["<é>&\u{7f}", "\"\\\n\u{1}"]), over("[\"<é>&\u{7f}\",\"\\\"\\\\\\n\\u0001\"]"));
    }

    #[test]
    fn server_names_are_hosts_with_perhaps_a_port() {
        for (text, host, port) in [
            ("example.org", Host::Name("example.org".to_owned()), None),
            ("example.org:8448", Host::Name("example.org".to_owned()), Some(8448)),
            ("192.0.2.1", Host::Address([192, 0, 2, 1].into()), None),
            ("192.0.2.1:1", Host::Address([192, 0, 2, 1].into()), Some(1)),
            ("[::1]", Host::Address(Ipv6Addr::LOCALHOST.into()), None),
            ("[::1]:65535", Host::Address(Ipv6Addr::LOCALHOST.into()), Some(65535)),
        ] {
            let name = ServerName::parse(text).unwrap();
            assert_eq!((name.host(), name.port(), name.as_str()), (&host, port, text));
        }
    }

    #[test]
    fn what_could_lead_elsewhere_is_no_server_name() {
        let long = "a".repeat(256);
        for text in [
            "",
            ":8448",
            "example.org:",
            "example.org:0",
            "example.org:+1",
            "example.org:65536",
            "example.org:000001",
            "example.org/x",
            "example.org?x",
            "user@example.org",
            "exämple.org",
            "ex ample.org",
            "::1",
            "[::1",
            "[::1]8448",
            "[fe80::1%eth0]",
            "2130706433",
            "127.1",
            "example.org:80:80",
            "[192.0.2.1]",
            long.as_str(),
        ] {
            assert_eq!(ServerName::parse(text), None, "{text}");
        }
    }

    #[test]
    fn user_ids_name_their_server_after_the_first_colon() {
        assert_eq!(user("@dana:lab.example:8448").server().as_str(), "lab.example:8448");
        assert_eq!(user("@:lab.example").server().as_str(), "lab.example");
        for text in ["dana:lab.example", "@dana", "@dana:", "@da\nna:lab.example", "@dana:[::1"] {
            assert_eq!(UserId::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn logs_do_not_say_whose_an_id_is() {
        assert_eq!(format!("{:?}", user("@dana-with-a-name:lab.example")), "@dana-…");
    }
}
