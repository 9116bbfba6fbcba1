//! What a peer's transport has to say: packets of its own, keys, data channel messages.

use std::time::{Duration, Instant};

use bytes::Bytes;
use weir_transport::{Output, Route, SendOutcome};
use weir_units::event::{Event, PeerLostReason};

use super::Shard;
use crate::stats::Drop;

/// Addresses one peer can have in the routing table: candidates pairs that browsers keep alive, old paths included.
const MAX_ROUTES_PER_PEER: usize = 16;
/// Addresses that one peer can bring in a row, and after how long each may be followed by another: every shard takes note
/// of them, and room for that is bounded. A client with two interfaces of both families brings one for each of ours, again
/// at each ICE restart; its checks from more go unanswered meanwhile.
const MAX_NEW_ROUTES: u32 = 64;
const NEW_ROUTE_INTERVAL: Duration = Duration::from_secs(1);

impl Shard {
    /// Takes everything the transport has to say. Call it after whatever may have changed its state.
    pub(super) fn drain_transport(&mut self, now: Instant, index: u32) {
        let mut connected = false;
        while let Some(output) = self.model.peers[index as usize].transport.poll_output() {
            let peer = &mut self.model.peers[index as usize];
            match output {
                Output::Transmit { route, bytes } => self.out.push_control(route, &bytes),
                Output::RouteSelected(route) => peer.choose_route(now, route),
                Output::Connected(keys) => {
                    let (ingress, egress) = keys.into_contexts();
                    (peer.srtp_in, peer.srtp_out) = (Some(Box::new(ingress)), Some(egress));
                    connected = true;
                }
                Output::DtlsFailed => self.lose_peer(index, PeerLostReason::Dtls),
                Output::ChannelOpen { label } => {
                    let event = Event::ChannelOpen { peer: peer.id, label };
                    self.tell(index, event);
                }
                Output::Message { label, binary, payload } => {
                    let event = Event::Data { peer: peer.id, label, payload, binary };
                    self.tell(index, event);
                }
            }
        }
        if connected {
            let id = self.model.peers[index as usize].id;
            self.tell(index, Event::PeerConnected { peer: id });
            self.start_subscriptions_of(now, index);
        }
        self.arm_transport(now, index);
    }

    /// Whether the peer may have this address: one of its own, or a new one that does not come too soon.
    pub(super) fn may_learn(&self, now: Instant, index: u32, route: Route) -> bool {
        let spent_until = self.model.peers[index as usize].new_routes_until;
        self.routes.get(&route) == Some(&index)
            || spent_until.is_none_or(|until| until < now + NEW_ROUTE_INTERVAL * MAX_NEW_ROUTES)
    }

    /// An authenticated check came from this address: packets from it are this peer's from now on, even if it was
    /// somebody else's, or forgotten for others.
    pub(super) fn learn_route(&mut self, now: Instant, index: u32, route: Route) {
        let peer = &mut self.model.peers[index as usize];
        if self.routes.insert(route, index) != Some(index) {
            self.out.routes.push_back(route);
            let spent_until = peer.new_routes_until.map_or(now, |until| until.max(now));
            peer.new_routes_until = Some(spent_until + NEW_ROUTE_INTERVAL);
        }
        peer.routes.retain(|known| *known != route);
        peer.routes.push(route);
        if peer.routes.len() > MAX_ROUTES_PER_PEER {
            let unused = peer.routes.iter().position(|known| Some(*known) != peer.route).unwrap_or(0);
            let forgotten = peer.routes.remove(unused);
            self.forget_route(index, forgotten);
        }
    }

    /// Packets from there are nobody's any more, unless the address is somebody else's by now.
    pub(super) fn forget_route(&mut self, index: u32, route: Route) {
        if self.routes.get(&route) != Some(&index) {
            return;
        }
        self.routes.remove(&route);
        if let Route::Tcp { connection, .. } = route {
            self.out.forgotten.push_back(connection);
        }
    }

    pub(super) fn open_channel(
        &mut self,
        now: Instant,
        peer: u32,
        label: &str,
        ordered: bool,
        max_retransmits: Option<u16>,
        stream: Option<u16>,
    ) {
        let transport = &mut self.model.peers[peer as usize].transport;
        transport.open_channel(now, label, ordered, max_retransmits, stream);
        self.drain_transport(now, peer);
    }

    pub(super) fn send_data(&mut self, now: Instant, peer: u32, label: &str, payload: Bytes, binary: bool) {
        let outcome = self.model.peers[peer as usize].transport.send(now, label, payload, binary);
        if outcome != SendOutcome::Queued {
            self.out.stats.drop(Drop::ChannelFull);
        }
        self.note_pace(now, peer);
        self.drain_transport(now, peer);
    }
}
