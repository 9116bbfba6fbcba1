//! A shard: the conferences of one thread, and the front door for their datagrams.
//!
//! How to drive it, always in this order: feed a batch with [`Shard::handle_datagram`], then [`Shard::flush`] and
//! send what [`Shard::egress`] holds until it says nothing is left; [`Shard::handle_command`] and
//! [`Shard::handle_timeout`] between batches, sending what they put into the egress; drain [`Shard::poll_event`];
//! sleep until [`Shard::poll_timeout`] or input.
//!
//! Invariants: an address is in the routing table only after a check with valid integrity came from it; an SSRC is
//! bound only by an authentic packet; packets wait in `pending` only between a batch and its flush.

mod allocate;
mod commands;
mod data;
mod forward;
mod front_door;
mod ingress;
mod lines;
mod pacing;
pub(crate) mod pressure;
pub(crate) mod replay;
mod reports;
mod rtcp;
#[cfg(feature = "testing")]
mod testing;
mod timeouts;

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use slab::Slab;
use weir_rate::Time;
use weir_transport::{Route, TransportContext};
use weir_units::event::Event;
use weir_units::ids::{ConferenceId, PeerId, PublicationId, SubscriptionId};
use weir_units::media::Codec;

pub use lines::{LineState, PictureState};

use crate::allocation::Allocator;
use crate::conference::Conference;
use crate::egress::Egress;
use crate::peer::Peer;
use crate::publication::Publication;
use crate::rewrite::select::PacketFacts;
use crate::stats::ShardStats;
use crate::subscription::Subscription;
use crate::timers::Timers;

pub use front_door::Disposition;
#[cfg(feature = "testing")]
pub use testing::TableSizes;

/// Packets that one batch may bring before they must be flushed; more are dropped and counted. 64 datagrams a call,
/// each coalesced from up to 64 by the kernel, after a batch that was waited with.
pub const MAX_PENDING: usize = 4_096 + MAX_UNFINISHED;
/// A batch of more packets is not worth waiting with: its runs are long already.
const MAX_UNFINISHED: usize = 256;

/// The first character of every user fragment of a shard's peers: any shard can tell whose a STUN check is.
pub fn ufrag_prefix(shard: u8) -> char {
    char::from(b'A' + shard)
}

/// The most shards one focus has: as many as [`ufrag_prefix`] can tell apart within the ICE characters A to Z.
pub const MAX_SHARDS: u8 = 26;

#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// Which shard this is; below [`MAX_SHARDS`].
    pub index: u8,
    /// Whether peers are sent what their lines carry, or all that they wish.
    pub rate_control: bool,
}

/// Tables keyed by what peers or the control plane chose; seeded, so that nobody can aim at one bucket.
type Map<K, V> = HashMap<K, V, FixedState>;

/// See the module's description.
pub struct Shard {
    index: u8,
    rate_control: bool,
    /// When the clock of the lines began.
    epoch: Instant,
    /// The last moment that was asked for on it: most are asked for several times.
    now: Cell<(Instant, Time)>,
    context: Arc<TransportContext>,
    rng: SmallRng,
    model: Model,
    routes: Map<Route, u32>,
    ufrags: Map<String, u32>,
    pending: Vec<Pending>,
    /// Subscriptions of peers that connected in this batch; bound: those of the peers.
    starting: Vec<u32>,
    cursor: Cursor,
    allocator: Allocator,
    out: Outbox,
}

/// Everything that is forwarded, and to whom. Indexes are into these slabs and never leave the shard.
struct Model {
    peers: Slab<Peer>,
    publications: Slab<Publication>,
    subscriptions: Slab<Subscription>,
    conferences: Slab<Conference>,
    peer_ids: Map<PeerId, u32>,
    publication_ids: Map<PublicationId, u32>,
    subscription_ids: Map<SubscriptionId, u32>,
    conference_ids: Map<ConferenceId, u32>,
}

/// What the shard has to say, until the shell takes it.
struct Outbox {
    egress: Egress,
    events: VecDeque<(ConferenceId, Event)>,
    /// Addresses newly validated, for the other shards' hints.
    routes: VecDeque<Route>,
    /// ICE-TCP connections that are no peer's any more.
    forgotten: VecDeque<u32>,
    timers: Timers,
    stats: ShardStats,
}

/// A packet that arrived in this batch and is in its encoding's ring.
#[derive(Clone, Copy, Debug)]
struct Pending {
    publication: u32,
    /// Place in the batch: forwarding keeps the order of arrival within a publication.
    order: u32,
    sequence: u64,
    /// The newest of its encoding when it came.
    latest: u64,
    encoding: u8,
    codec: Codec,
    facts: PacketFacts,
    /// Bytes of RTP padding that make it as long as its neighbours, so that they leave in one run.
    padding: u8,
}

/// How far a flush has come.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    sorted: bool,
    /// Where in `pending` the publication in hand starts.
    group: usize,
    /// Which of its subscribers is next.
    subscriber: usize,
    /// Of which of its encodings those before wait for a key frame; bit n is encoding n.
    wishes: u8,
}

impl Shard {
    /// `seed` feeds every random choice the shard makes: SSRCs, initial sequence numbers, table hashing.
    pub fn new(config: &ShardConfig, context: Arc<TransportContext>, now: Instant, seed: u64) -> Self {
        assert!(config.index < MAX_SHARDS, "the shell starts at most {MAX_SHARDS} shards");
        let mut rng = SmallRng::seed_from_u64(seed);
        let seed = rng.random();
        let hash = || FixedState::with_seed(seed);
        Self {
            index: config.index,
            rate_control: config.rate_control,
            epoch: now,
            now: Cell::new((now, Time::ZERO)),
            context,
            rng,
            model: Model {
                peers: Slab::new(),
                publications: Slab::new(),
                subscriptions: Slab::new(),
                conferences: Slab::new(),
                peer_ids: Map::with_hasher(hash()),
                publication_ids: Map::with_hasher(hash()),
                subscription_ids: Map::with_hasher(hash()),
                conference_ids: Map::with_hasher(hash()),
            },
            routes: Map::with_hasher(hash()),
            ufrags: Map::with_hasher(hash()),
            pending: Vec::with_capacity(MAX_PENDING),
            starting: Vec::new(),
            cursor: Cursor::default(),
            allocator: Allocator::default(),
            out: Outbox {
                egress: Egress::default(),
                events: VecDeque::new(),
                routes: VecDeque::new(),
                forgotten: VecDeque::new(),
                timers: Timers::default(),
                stats: ShardStats::default(),
            },
        }
    }

    /// On the clock of the lines.
    #[inline]
    fn time(&self, now: Instant) -> Time {
        let (known, time) = self.now.get();
        if now == known {
            return time;
        }
        let time = Time::since(self.epoch, now);
        self.now.set((now, time));
        time
    }

    /// How many subscribers would get the picture in two runs of packets instead of one if [`Self::flush`] came now,
    /// before its rest: zero once the last packet that arrived ends its picture.
    pub fn unfinished(&self) -> usize {
        let last = self.pending.last().filter(|last| !last.facts.marker);
        let Some(last) = last.filter(|_| self.pending.len() <= MAX_UNFINISHED) else { return 0 };
        let publication = &self.model.publications[last.publication as usize];
        if publication.is_video() { publication.subscribers.len() } else { 0 }
    }

    /// What is to be sent. The shell clears it after sending.
    pub fn egress(&mut self) -> &mut Egress {
        &mut self.out.egress
    }

    /// What happened, and in which conference.
    pub fn poll_event(&mut self) -> Option<(ConferenceId, Event)> {
        self.out.events.pop_front()
    }

    /// An address that has just been validated for a peer of this shard. A datagram from it that arrives at another
    /// shard's socket belongs here.
    pub fn poll_validated_route(&mut self) -> Option<Route> {
        self.out.routes.pop_front()
    }

    /// An ICE-TCP connection whose peer is gone, or has too many others: it is of no more use.
    pub fn poll_forgotten_connection(&mut self) -> Option<u32> {
        self.out.forgotten.pop_front()
    }

    /// When [`Self::handle_timeout`] is next wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.out.timers.next()
    }

    /// What was counted so far. Its gauges are as [`Self::stats`] last left them.
    pub fn counts(&self) -> &ShardStats {
        &self.out.stats
    }

    /// Counters and gauges as they stand. Looks at every peer and subscription.
    pub fn stats(&mut self) -> &ShardStats {
        let (model, stats) = (&self.model, &mut self.out.stats);
        stats.peers = model.peers.len() as u64;
        stats.connected_peers = model.peers.iter().filter(|(_, peer)| peer.is_connected()).count() as u64;
        stats.conferences = model.conferences.len() as u64;
        stats.publications = model.publications.len() as u64;
        stats.subscriptions = model.subscriptions.len() as u64;
        stats.granted = Default::default();
        for (_, subscription) in model.subscriptions.iter().filter(|(_, entry)| entry.is_video()) {
            stats.granted[subscription.granted.reason as usize] += 1;
        }
        stats
    }
}
