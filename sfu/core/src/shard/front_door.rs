//! Whose datagram is it, and of which protocol.

use std::time::Instant;

use weir_rtp::header::{DatagramKind, classify};
use weir_rtp::stun;
use weir_transport::Route;

use super::{MAX_SHARDS, Shard, ufrag_prefix};
use crate::stats::Drop;

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Taken, or counted and dropped.
    Handled,
    /// A check with valid integrity: packets from this address belong to this shard.
    Validated,
    /// A check for a peer of another shard, by its user fragment.
    Elsewhere(u8),
    /// From an address that no peer of this shard has validated: another shard may know it. Counted here only if the
    /// shell says so by [`Shard::count_unknown`].
    Unknown,
}

impl Shard {
    /// One datagram, or one frame of an ICE-TCP connection. `data` is opened in place.
    pub fn handle_datagram(&mut self, now: Instant, route: Route, data: &mut [u8]) -> Disposition {
        self.out.stats.datagrams_in += 1;
        self.out.stats.bytes_in += data.len() as u64;
        match classify(data) {
            DatagramKind::Rtp => self.handle_rtp(now, route, data),
            DatagramKind::Rtcp => self.handle_srtcp(now, route, data),
            DatagramKind::Stun => self.handle_stun(now, route, data),
            DatagramKind::Dtls => self.handle_dtls(now, route, data),
            DatagramKind::Turn | DatagramKind::Unknown => {
                self.out.stats.drop(Drop::Unclassified);
                Disposition::Handled
            }
        }
    }

    /// No shard knows the address of a datagram for which [`Disposition::Unknown`] was returned.
    pub fn count_unknown(&mut self) {
        self.out.stats.drop(Drop::UnknownAddress);
    }

    /// A check is for the peer that its user fragment names, wherever it comes from; only the integrity check in the
    /// transport makes the address count.
    fn handle_stun(&mut self, now: Instant, route: Route, data: &[u8]) -> Disposition {
        let Some(ufrag) = stun::peek(data).and_then(|binding| binding.local_ufrag) else {
            self.out.stats.drop(Drop::Stun);
            return Disposition::Handled;
        };
        if let Some(&peer) = self.ufrags.get(ufrag) {
            let taken = self.may_learn(now, peer, route)
                && self.model.peers[peer as usize].transport.handle_packet(now, route, data);
            if taken {
                self.learn_route(now, peer, route);
            } else {
                self.out.stats.drop(Drop::Stun);
            }
            self.drain_transport(now, peer);
            return if taken { Disposition::Validated } else { Disposition::Handled };
        }
        let owner = (0..MAX_SHARDS).find(|shard| ufrag.starts_with(ufrag_prefix(*shard)));
        match owner {
            Some(shard) if shard != self.index => Disposition::Elsewhere(shard),
            _ => {
                self.out.stats.drop(Drop::Stun);
                Disposition::Handled
            }
        }
    }

    fn handle_dtls(&mut self, now: Instant, route: Route, data: &[u8]) -> Disposition {
        let Some(&peer) = self.routes.get(&route) else { return Disposition::Unknown };
        if !self.model.peers[peer as usize].transport.handle_packet(now, route, data) {
            self.out.stats.drop(Drop::Dtls);
        }
        self.drain_transport(now, peer);
        self.note_pace(now, peer);
        Disposition::Handled
    }
}
