//! Which addresses a look-up may connect to.
//!
//! Who asks for a token names the server that is asked about it. Without this check a stranger could make the focus
//! knock at doors that only its own network can reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// What is reachable: the public internet, and networks that the operator allows.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    allowed: Vec<IpNet>,
}

impl Reach {
    pub fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed }
    }

    /// Asked of the very address that is connected to, so a name that resolves differently a moment later gains nothing.
    pub fn permits(&self, address: IpAddr) -> bool {
        // An IPv4 address in IPv6 clothes reaches what the IPv4 address reaches.
        let address = address.to_canonical();
        self.allows(address) || is_public(address)
    }

    /// Whether the operator allowed this address, and not just everybody may have it.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.allowed.iter().any(|network| network.contains(&address))
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// By the registry of special addresses, RFC 6890 and its successors.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = a == 0
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || (a == 100 && (64..128).contains(&b)) // shared by carriers, RFC 6598
        || (a, b, c) == (192, 0, 0) // protocol assignments
        || (a, b, c) == (192, 88, 99) // relays of 6to4, which are no more
        || (a == 198 && (b == 18 || b == 19)) // benchmarks, RFC 2544
        || a >= 224; // multicast, reserved, broadcast
    !is_special
}

/// Only what is given out as global unicast, less what tunnels to somewhere else.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let s = address.segments();
    let embedded = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    if s[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        return is_public_v4(embedded(s[6], s[7])); // translated to IPv4, RFC 6052
    }
    let is_global_unicast = s[0] & 0xe000 == 0x2000;
    let is_special = match s[0] {
        0x2001 => s[1] < 0x200 || s[1] == 0xdb8, // protocol assignments, Teredo among them; documentation
        0x2002 => !is_public_v4(embedded(s[1], s[2])), // 6to4
        0x3fff => s[1] < 0x1000,                 // documentation, RFC 9637
        _ => false,
    };
    is_global_unicast && !is_special
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(reach: &Reach, address: &str) -> bool {
        reach.permits(address.parse().unwrap())
    }

    #[test]
    fn the_public_internet_is_reached() {
        for address in
            ["1.1.1.1", "100.63.0.1", "172.32.0.1", "223.255.255.255", "2606:4700::1111", "64:ff9b::1.1.1.1"]
        {
            assert!(permits(&Reach::default(), address), "{address}");
        }
    }

    #[test]
    fn what_only_this_network_reaches_is_not() {
        for address in [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "192.0.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b:1::1.1.1.1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "fec0::1",
        ] {
            assert!(!permits(&Reach::default(), address), "{address}");
        }
    }

    #[test]
    fn an_allowed_network_opens_that_network_alone() {
        let reach = Reach::new(vec!["10.1.0.0/16".parse().unwrap(), "::1/128".parse().unwrap()]);
        for (address, expected) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("10.2.0.1", false),
            ("::1", true),
            ("::2", false),
            ("127.0.0.1", false),
        ] {
            assert_eq!(permits(&reach, address), expected, "{address}");
        }
    }
}
