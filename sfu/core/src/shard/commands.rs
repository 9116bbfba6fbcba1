//! The control plane changes the model. None of this is on the packet path.

use std::time::Instant;

use rand::Rng;
use weir_transport::Transport;
use weir_units::command::Command;
use weir_units::event::Event;
use weir_units::ids::{ConferenceId, PeerId, PublicationId, SubscriptionId};
use weir_units::media::{EgressMedia, IceCredentials, IngressMedia, RemoteTransport, Wish};

use super::Shard;
use super::replay::ReplayBudget;
use crate::allocation::Standing;
use crate::conference::Conference;
use crate::downlink::Downlink;
use crate::ingress::twcc::ArrivalLog;
use crate::peer::{Line, LineWindow, PEER_TIMEOUT, Peer, QUALITY_INTERVAL, REPORT_INTERVAL};
use crate::publication::Publication;
use crate::subscription::Subscription;
use crate::timers::Alarm;

impl Shard {
    /// Applies a change. Call it only when a flush has said that nothing is left.
    pub fn handle_command(&mut self, now: Instant, command: Command) {
        debug_assert!(self.pending.is_empty(), "indexes in a batch must not outlive it");
        match command {
            Command::AddPeer { peer, conference, local } => self.add_peer(now, peer, conference, local),
            Command::SetRemoteTransport { peer, local, remote } => self.set_remote(now, peer, local, &remote),
            Command::RemovePeer { peer } => self.remove_peer(now, peer),
            Command::OpenChannel { peer, label, ordered, max_retransmits, stream } => {
                if let Some(&peer) = self.model.peer_ids.get(&peer) {
                    self.open_channel(now, peer, &label, ordered, max_retransmits, stream);
                }
            }
            Command::SendData { peer, label, payload, binary } => {
                if let Some(&peer) = self.model.peer_ids.get(&peer) {
                    self.send_data(now, peer, &label, payload, binary);
                }
            }
            Command::Publish { publication, peer, media } => {
                self.publish(now, publication, peer, media);
            }
            Command::SetMuted { publication, muted } => {
                if let Some(&publication) = self.model.publication_ids.get(&publication) {
                    self.model.publications[publication as usize].muted = muted;
                    self.model.end_ease(publication);
                }
            }
            Command::Unpublish { publication } => {
                if let Some(&publication) = self.model.publication_ids.get(&publication) {
                    self.unpublish(publication);
                }
            }
            Command::Subscribe { subscription, publication, peer, media, wish } => {
                self.subscribe(now, subscription, publication, peer, media, wish);
            }
            Command::SetWish { subscription, wish } => self.set_wish(now, subscription, wish),
            Command::Unsubscribe { subscription } => {
                if let Some(&subscription) = self.model.subscription_ids.get(&subscription) {
                    self.unsubscribe(now, subscription);
                }
            }
        }
    }

    fn add_peer(&mut self, now: Instant, id: PeerId, conference: ConferenceId, local: IceCredentials) {
        if self.model.peer_ids.contains_key(&id) {
            return;
        }
        let conference = self.enter_conference(now, conference);
        let ufrag = local.ufrag.clone();
        let peer = self.model.peers.insert(Peer {
            id,
            conference,
            transport: Box::new(Transport::new(&self.context, local, now)),
            route: None,
            route_chosen: None,
            routes: Vec::new(),
            new_routes_until: None,
            srtp_in: None,
            srtp_out: None,
            lines: Vec::new(),
            streams: Vec::new(),
            extensions: Default::default(),
            publications: Vec::new(),
            has_floor: false,
            senders: Vec::new(),
            reported: Vec::new(),
            arrivals: Box::new(ArrivalLog::new(now)),
            local_ssrc: self.rng.random(),
            round_trip: None,
            line: LineWindow::default(),
            downlink: None,
            allocated: None,
            ease: None,
            replays: ReplayBudget::default(),
            standing: Standing::default(),
            last_heard: now,
            next_report: now + REPORT_INTERVAL,
            next_quality: now + QUALITY_INTERVAL,
            alarm: Alarm::default(),
            lost: false,
            pace: Default::default(),
        }) as u32;
        self.model.peer_ids.insert(id, peer);
        let held = self.model.conferences[conference as usize].hold.is_held();
        self.model.peers[peer as usize].transport.hold_messages(now, held);
        self.ufrags.insert(ufrag, peer);
        self.arm_peer(peer, now + PEER_TIMEOUT);
    }

    fn set_remote(&mut self, now: Instant, id: PeerId, local: IceCredentials, remote: &RemoteTransport) {
        let Some(&peer) = self.model.peer_ids.get(&id) else { return };
        let ufrag = local.ufrag.clone();
        if let Err(error) = self.model.peers[peer as usize].transport.set_remote(now, local, remote) {
            tracing::warn!(peer = %id, %error, "the peer's transport description was refused");
            self.lose_peer(peer, weir_units::event::PeerLostReason::Dtls);
            return;
        }
        // After an ICE restart checks come with the new user fragment; the old one is void.
        self.ufrags.retain(|known, owner| *owner != peer || *known == ufrag);
        self.ufrags.insert(ufrag, peer);
        self.drain_transport(now, peer);
    }

    fn remove_peer(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.model.peer_ids.remove(&id) else { return };
        self.forget_pace(now, peer);
        for publication in self.model.peers[peer as usize].publications.clone() {
            self.unpublish(publication);
        }
        let senders = self.model.peers[peer as usize].senders.clone();
        for (_, subscription) in senders {
            if self.model.subscriptions.contains(subscription as usize) {
                self.unsubscribe(now, subscription);
            }
        }
        self.model.peers[peer as usize].transport.close(now);
        self.drain_transport(now, peer);
        let gone = self.model.peers.remove(peer as usize);
        self.model.conferences[gone.conference as usize].floor.forget(id);
        for route in gone.routes {
            self.forget_route(peer, route);
        }
        self.ufrags.retain(|_, owner| *owner != peer);
        self.leave_conference(gone.conference);
    }

    fn enter_conference(&mut self, now: Instant, id: ConferenceId) -> u32 {
        let Self { model, .. } = self;
        let conference = *model
            .conference_ids
            .entry(id)
            .or_insert_with(|| model.conferences.insert(Conference::new(id, now)) as u32);
        model.conferences[conference as usize].peers += 1;
        conference
    }

    fn leave_conference(&mut self, conference: u32) {
        let entry = &mut self.model.conferences[conference as usize];
        entry.peers -= 1;
        if entry.peers == 0 {
            let gone = self.model.conferences.remove(conference as usize);
            self.model.conference_ids.remove(&gone.id);
        }
    }

    fn publish(&mut self, now: Instant, id: PublicationId, peer_id: PeerId, media: IngressMedia) {
        let Some(&peer_index) = self.model.peer_ids.get(&peer_id) else { return };
        if let Some(&publication) = self.model.publication_ids.get(&id) {
            // Negotiated again: ids and payload types may have moved, the streams go on.
            let peer = &mut self.model.peers[peer_index as usize];
            peer.extensions = media.extensions.or(peer.extensions);
            self.model.publications[publication as usize].renegotiate(media.formats);
            return;
        }
        let peer = &mut self.model.peers[peer_index as usize];
        let (mid, extensions) = (media.mid, media.extensions);
        let conference = (peer.conference, self.model.conferences[peer.conference as usize].id);
        let publication = Publication::new(now, id, peer_index, conference, media);
        let publication = self.model.publications.insert(publication) as u32;
        self.model.publication_ids.insert(id, publication);
        peer.extensions = extensions.or(peer.extensions);
        peer.publications.push(publication);
        peer.lines.retain(|line| line.mid != mid);
        peer.lines.push(Line { mid, publication });
    }

    fn unpublish(&mut self, index: u32) {
        let publication = &mut self.model.publications[index as usize];
        for subscription in std::mem::take(&mut publication.subscribers) {
            self.remove_subscription(subscription);
        }
        let gone = self.model.publications.remove(index as usize);
        self.model.publication_ids.remove(&gone.id);
        self.model.conferences[gone.conference as usize].speakers.forget(gone.id);
        let peer = &mut self.model.peers[gone.peer as usize];
        peer.publications.retain(|publication| *publication != index);
        peer.lines.retain(|line| line.publication != index);
        peer.streams.retain(|stream| stream.publication != index);
    }

    fn subscribe(
        &mut self,
        now: Instant,
        id: SubscriptionId,
        publication_id: PublicationId,
        peer_id: PeerId,
        media: EgressMedia,
        wish: Wish,
    ) {
        let Some(&peer) = self.model.peer_ids.get(&peer_id) else { return };
        let Some(&publication) = self.model.publication_ids.get(&publication_id) else { return };
        if self.model.subscription_ids.contains_key(&id) {
            return;
        }
        let (ssrc, rtx_ssrc) = (media.ssrc, media.rtx_ssrc);
        let reports = media.extensions.transport_cc.is_some();
        let source = &self.model.publications[publication as usize];
        let subscription = Subscription::new(id, peer, publication, source, media, wish, &mut self.rng);
        let subscription = self.model.subscriptions.insert(subscription) as u32;
        self.model.subscription_ids.insert(id, subscription);
        self.model.publications[publication as usize].subscribers.push(subscription);
        let time = self.time(now);
        let entry = &mut self.model.peers[peer as usize];
        let has_better = entry.downlink.as_ref().is_some_and(|line| !line.is_reported());
        if reports && self.rate_control && !has_better {
            entry.downlink = Some(Box::new(Downlink::new(time)));
        }
        entry.add_sender(ssrc, subscription);
        if let Some(rtx_ssrc) = rtx_ssrc {
            entry.add_sender(rtx_ssrc, subscription);
        }
        self.tell_layers_wanted(now, publication);
        self.allocate_for(now, subscription);
        self.start_subscription(now, subscription);
    }

    fn set_wish(&mut self, now: Instant, id: SubscriptionId, wish: Wish) {
        let Some(&subscription) = self.model.subscription_ids.get(&id) else { return };
        let entry = &mut self.model.subscriptions[subscription as usize];
        let (was_enabled, publication) = (entry.wish.enabled, entry.publication);
        entry.wish = wish;
        self.tell_layers_wanted(now, publication);
        self.allocate_for(now, subscription);
        if wish.enabled && !was_enabled {
            self.start_subscription(now, subscription);
        } else {
            self.retarget(now, subscription);
            self.note_key_frame_wishes(now, publication);
        }
    }

    fn unsubscribe(&mut self, now: Instant, index: u32) {
        let publication = self.model.subscriptions[index as usize].publication;
        self.model.publications[publication as usize].subscribers.retain(|entry| *entry != index);
        self.remove_subscription(index);
        self.tell_layers_wanted(now, publication);
    }

    /// Takes it out of the tables, but for its publication's list.
    fn remove_subscription(&mut self, index: u32) {
        let gone = self.model.subscriptions.remove(index as usize);
        self.model.subscription_ids.remove(&gone.id);
        let peer = &mut self.model.peers[gone.peer as usize];
        peer.senders.retain(|(_, subscription)| *subscription != index);
        peer.reported.retain(|subscription| *subscription != index);
        if let Some(line) = &mut peer.downlink {
            line.forget(index);
        }
    }

    /// Which layers anybody wants: all up to the highest that an enabled subscription asks for.
    fn tell_layers_wanted(&mut self, now: Instant, publication: u32) {
        let Self { model, out, .. } = self;
        let entry = &mut model.publications[publication as usize];
        if !entry.is_video() {
            return;
        }
        let highest = entry
            .subscribers
            .iter()
            .map(|subscription| &model.subscriptions[*subscription as usize].wish)
            .filter(|wish| wish.enabled)
            .map(|wish| wish.max_layer.spatial.min(7))
            .max();
        let layers = highest.map_or(0, |highest| u8::MAX >> (7 - highest));
        if layers != entry.layers_wanted {
            for (at, encoding) in entry.encodings.iter_mut().enumerate() {
                match (entry.layers_wanted >> at & 1, layers >> at & 1) {
                    (1, 0) => encoding.activity.excuse(),
                    (0, 1) => encoding.activity.want(now),
                    _ => {}
                }
            }
            entry.layers_wanted = layers;
            let event = Event::LayersWanted { publication: entry.id, layers };
            out.events.push_back((entry.conference_id, event));
        }
    }
}
