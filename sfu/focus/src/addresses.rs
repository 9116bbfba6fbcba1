//! Which addresses of this machine clients are told.

use std::net::IpAddr;

use crate::config::{ConfigError, Media};

/// More than this many addresses, and clients would spend seconds checking them.
const MAX_ADDRESSES: usize = 16;

/// The addresses to bind, and what to tell clients of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub bind: Vec<IpAddr>,
    pub announce: Vec<IpAddr>,
}

/// As configured, or else every address of every interface that others can reach.
pub fn find(media: &Media) -> anyhow::Result<Addresses> {
    let bind = if media.bind.is_empty() { discover()? } else { media.bind.clone() };
    if bind.is_empty() {
        anyhow::bail!(ConfigError::Value {
            key: "media.bind".to_owned(),
            value: "[]".to_owned(),
            problem: "no interface has an address that others can reach".to_owned(),
            remedy: "name the address to listen on".to_owned(),
        });
    }
    let announce = if media.announce.is_empty() { bind.clone() } else { media.announce.clone() };
    Ok(Addresses { bind, announce })
}

fn discover() -> std::io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> =
        if_addrs::get_if_addrs()?.iter().map(if_addrs::Interface::ip).filter(is_reachable).collect();
    addresses.sort();
    addresses.dedup();
    addresses.truncate(MAX_ADDRESSES);
    Ok(addresses)
}

/// Link-local addresses mean something on their own link only.
fn is_reachable(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_link_local_addresses_are_not_told() {
        for address in ["127.0.0.1", "169.254.1.1", "::1", "fe80::1", "0.0.0.0"] {
            assert!(!is_reachable(&address.parse().unwrap()), "{address}");
        }
        for address in ["192.0.2.1", "10.0.0.1", "2001:db8::1", "fd00::1"] {
            assert!(is_reachable(&address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn announced_addresses_stand_in_for_bound_ones() {
        let media = Media {
            bind: vec!["10.0.0.1".parse().unwrap()],
            announce: vec!["192.0.2.1".parse().unwrap()],
            ..Media::default()
        };
        let found = find(&media).unwrap();
        assert_eq!((found.bind, found.announce), (media.bind, media.announce));
    }
}
