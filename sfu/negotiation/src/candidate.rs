//! Our addresses as ICE candidates ([RFC 8839 §5.1](https://www.rfc-editor.org/rfc/rfc8839#section-5.1)).

use std::net::SocketAddr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Udp,
    /// The client connects to us ([RFC 6544](https://www.rfc-editor.org/rfc/rfc6544)).
    TcpPassive,
}

/// A host candidate of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub protocol: Protocol,
    pub address: SocketAddr,
}

impl Candidate {
    /// The candidate attribute without `a=`. `preference` tells our candidates apart: the first is best.
    pub fn to_attribute(&self, preference: usize) -> String {
        let (protocol, suffix, type_preference) = match self.protocol {
            Protocol::Udp => ("udp", "", 126u32),
            Protocol::TcpPassive => ("tcp", " tcptype passive", 90),
        };
        let local = 65_535u32.saturating_sub(preference as u32);
        let priority = (type_preference << 24) | (local << 8) | 255;
        let (ip, port) = (self.address.ip(), self.address.port());
        // One foundation a protocol and address: what is alike for a client that freezes pairs.
        let foundation = preference + 1;
        format!("candidate:{foundation} 1 {protocol} {priority} {ip} {port} typ host{suffix}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn udp_comes_before_tcp_and_the_first_before_the_second() {
        let address = "192.0.2.7:7882".parse().unwrap();
        let udp = Candidate { protocol: Protocol::Udp, address };
        let tcp = Candidate { protocol: Protocol::TcpPassive, address };
        assert_eq!(udp.to_attribute(0), "candidate:1 1 udp 2130706431 192.0.2.7 7882 typ host");
        assert_eq!(
            tcp.to_attribute(1),
            "candidate:2 1 tcp 1526726399 192.0.2.7 7882 typ host tcptype passive"
        );
    }
}
