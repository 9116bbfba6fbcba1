//! Ways into the middle of a shard's life, for fuzzing and benchmarks: a handshake takes longer than all that follows.

use std::time::Instant;

use weir_transport::Route;
use weir_transport::srtp::SrtpKeys;
use weir_units::event::Event;
use weir_units::ids::PeerId;

use super::Shard;

/// Entries of the tables that peers can make grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSizes {
    pub routes: usize,
    pub user_fragments: usize,
    pub timers: usize,
    /// SSRCs bound to publications, of all peers.
    pub streams: usize,
}

impl Shard {
    /// As if a check had nominated `route`, and a handshake over it had agreed on `keys`.
    pub fn connect(&mut self, now: Instant, peer: PeerId, route: Route, keys: SrtpKeys) {
        let Some(&index) = self.model.peer_ids.get(&peer) else { return };
        self.learn_route(now, index, route);
        let entry = &mut self.model.peers[index as usize];
        let (ingress, egress) = keys.into_contexts();
        (entry.srtp_in, entry.srtp_out, entry.route) = (Some(Box::new(ingress)), Some(egress), Some(route));
        self.tell(index, Event::PeerConnected { peer });
        self.start_subscriptions_of(now, index);
    }

    pub fn table_sizes(&self) -> TableSizes {
        TableSizes {
            routes: self.routes.len(),
            user_fragments: self.ufrags.len(),
            timers: self.out.timers.len(),
            streams: self.model.peers.iter().map(|(_, peer)| peer.streams.len()).sum(),
        }
    }
}
