//! The forwarding plane as signalling sees it.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use weir_core::shard::ufrag_prefix;
use weir_livekit::{Link, Plane};
use weir_negotiation::Candidate;
use weir_units::ids::ConferenceId;

use crate::shards::{Control, EVENT_QUEUE, ShardHandle, Shards};

pub struct ForwardingPlane {
    shards: Arc<Shards>,
    fingerprint: [u8; 32],
    candidates: Vec<Candidate>,
    placed: Mutex<HashMap<ConferenceId, ShardHandle>>,
}

impl ForwardingPlane {
    pub fn new(shards: Arc<Shards>, fingerprint: [u8; 32], candidates: Vec<Candidate>) -> Self {
        Self { shards, fingerprint, candidates, placed: Mutex::default() }
    }

    fn placed(&self) -> std::sync::MutexGuard<'_, HashMap<ConferenceId, ShardHandle>> {
        self.placed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plane for ForwardingPlane {
    fn open(&self, conference: ConferenceId) -> Option<Link> {
        let handle = self.shards.least_loaded()?.clone();
        let (events_in, events) = mpsc::channel(EVENT_QUEUE);
        if !handle.tell(Control::OpenConference { conference, events: events_in }) {
            return None;
        }
        handle.conferences.fetch_add(1, Ordering::Relaxed);
        self.placed().insert(conference, handle.clone());
        let waker = handle.waker.clone();
        Some(Link {
            ufrag_prefix: ufrag_prefix(handle.index),
            fingerprint: self.fingerprint,
            candidates: self.candidates.clone(),
            commands: handle.commands,
            wake: Arc::new(move || waker.wake()),
            events,
        })
    }

    fn close(&self, conference: ConferenceId) {
        if let Some(handle) = self.placed().remove(&conference) {
            handle.conferences.fetch_sub(1, Ordering::Relaxed);
            handle.tell(Control::CloseConference { conference });
        }
    }
}
