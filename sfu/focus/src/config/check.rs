//! What a type cannot say.

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::{Config, ConfigError, Limits, Media};
use crate::logging;

/// RFC 7518 §3.2: an HS256 key has at least 256 bits. 32 characters of anything random have about that.
const MIN_SECRET_CHARS: usize = 32;
/// As many shards as user fragments can tell apart.
const MAX_SHARDS: u8 = weir_core::shard::MAX_SHARDS;
/// A socket's buffer. Less does not hold the packets of one key frame; more is seconds of delay.
const BUFFER_BYTES: RangeInclusive<usize> = 64 * 1024..=1024 * 1024 * 1024;
/// As many m-lines as a peer connection has. Without any, nobody would be seen or heard.
const TRACKS: RangeInclusive<usize> = 1..=weir_negotiation::MAX_MEDIA;
/// Half of what a client can say in one message, and an eighth of what may wait for one.
const TEXT_BYTES: RangeInclusive<usize> = 0..=1024 * 1024;

pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    check_keys(config)?;
    check_addresses(&config.media)?;
    check_ports(config)?;
    check_media(&config.media)?;
    check_limits(&config.limits)?;
    check_ice_servers(config)?;
    super::matrix::check(&config.matrix)?;
    logging::filter(&config.log.level)?;
    Ok(())
}

pub(super) fn wrong(key: &str, value: impl ToString, problem: &str, remedy: &str) -> Result<(), ConfigError> {
    Err(ConfigError::Value {
        key: key.to_owned(),
        value: value.to_string(),
        problem: problem.to_owned(),
        remedy: remedy.to_owned(),
    })
}

pub(super) fn check_number<T: PartialOrd + Display>(
    key: &str,
    number: T,
    range: RangeInclusive<T>,
    advice: &str,
) -> Result<(), ConfigError> {
    if range.contains(&number) {
        return Ok(());
    }
    let remedy = format!("choose from {} to {}; {advice}", range.start(), range.end());
    wrong(key, number, "it is out of range", &remedy)
}

fn check_keys(config: &Config) -> Result<(), ConfigError> {
    if config.keys.is_empty() && !config.matrix.is_on() {
        return wrong(
            "keys",
            "{}",
            "without an API key nobody can join",
            "set up [matrix], or add a [keys] section with `name = \"secret\"`; `openssl rand -hex 32` makes a secret",
        );
    }
    for (name, secret) in &config.keys {
        if name.trim().is_empty() {
            return wrong("keys", "\"\" = …", "an API key has no name", "give it one: `name = \"secret\"`");
        }
        if name.eq_ignore_ascii_case("key_file") {
            return wrong(
                &format!("keys.{name}"),
                "…",
                "below [keys] that is an API key, and its secret is a path that can be guessed",
                "move the line above the first [section]; in the environment it is WEIR__KEY_FILE",
            );
        }
        if secret.chars().count() < MIN_SECRET_CHARS {
            return wrong(
                &format!("keys.{name}"),
                "…",
                "the secret has less than 32 characters: tokens could be forged",
                "`openssl rand -hex 32` makes a good one",
            );
        }
    }
    Ok(())
}

fn check_addresses(media: &Media) -> Result<(), ConfigError> {
    for (key, addresses) in [("media.bind", &media.bind), ("media.announce", &media.announce)] {
        for (at, address) in addresses.iter().enumerate() {
            if addresses[..at].contains(address) {
                return wrong(key, address, "it is named twice", "name each address once");
            }
            let is_told = key == "media.announce" || media.announce.is_empty();
            if is_told && (address.is_unspecified() || address.is_multicast()) {
                return wrong(
                    key,
                    address,
                    "clients would be told that address, and cannot send there",
                    "leave media.bind empty for all addresses of this machine, or name those that clients reach",
                );
            }
        }
    }
    Ok(())
}

/// Two of our own listeners at one place would look like somebody else's.
fn check_ports(config: &Config) -> Result<(), ConfigError> {
    let (http, admin, media) = (config.http.bind, config.admin.bind, &config.media);
    let remedy = "choose another port";
    if admin.port() != 0 && admin.port() == http.port() && meet(admin.ip(), http.ip()) {
        return wrong("admin.bind", admin, "http.bind has that port already", remedy);
    }
    for (key, listener) in [("http.bind", http), ("admin.bind", admin)] {
        let shares = media.bind.iter().any(|address| meet(*address, listener.ip()))
            || media.bind.is_empty() && !listener.ip().is_loopback();
        if media.tcp_port != 0 && listener.port() == media.tcp_port && shares {
            return wrong("media.tcp_port", media.tcp_port, &format!("{key} has that port already"), remedy);
        }
    }
    Ok(())
}

fn meet(one: IpAddr, other: IpAddr) -> bool {
    one == other || one.is_unspecified() || other.is_unspecified()
}

fn check_media(media: &Media) -> Result<(), ConfigError> {
    if media.udp_port == 0 {
        return wrong(
            "media.udp_port",
            0,
            "clients must know where to send",
            "choose a port from 1 to 65535",
        );
    }
    if media.shards > MAX_SHARDS {
        return wrong(
            "media.shards",
            media.shards,
            "that is more than a focus can have",
            &format!("choose from 1 to {MAX_SHARDS}, or 0 for one a core"),
        );
    }
    for (key, bytes) in [
        ("media.receive_buffer_bytes", media.receive_buffer_bytes),
        ("media.send_buffer_bytes", media.send_buffer_bytes),
    ] {
        if !BUFFER_BYTES.contains(&bytes) {
            let (least, most) = (BUFFER_BYTES.start(), BUFFER_BYTES.end());
            let remedy = format!("choose from {least} to {most}; 4194304 serves most");
            return wrong(key, bytes, "no socket works with that", &remedy);
        }
    }
    Ok(())
}

fn check_limits(limits: &Limits) -> Result<(), ConfigError> {
    let (key, tracks) = ("limits.tracks_per_participant", limits.tracks_per_participant);
    check_number(key, tracks, TRACKS, "64 serves most")?;
    check_number("limits.metadata_bytes", limits.metadata_bytes, TEXT_BYTES, "524288 serves most")?;
    check_number("limits.attributes_bytes", limits.attributes_bytes, TEXT_BYTES, "65536 serves most")
}

fn check_ice_servers(config: &Config) -> Result<(), ConfigError> {
    for (at, server) in config.ice_servers.iter().enumerate() {
        let known = |url: &String| {
            ["stun:", "stuns:", "turn:", "turns:"].iter().any(|scheme| url.starts_with(scheme))
        };
        if server.urls.is_empty() || !server.urls.iter().all(known) {
            return wrong(
                &format!("ice_servers[{at}].urls"),
                format!("{:?}", server.urls),
                "clients take stun:, stuns:, turn: and turns: URLs only",
                "write for example \"turn:turn.example.org:3478?transport=udp\"",
            );
        }
    }
    Ok(())
}
