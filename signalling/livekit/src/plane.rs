//! What signalling needs of the forwarding plane. The focus implements it.

use std::sync::Arc;

use tokio::sync::mpsc;
use weir_negotiation::Candidate;
use weir_units::command::Command;
use weir_units::event::Event;
use weir_units::ids::ConferenceId;

/// The forwarding plane as signalling sees it.
pub trait Plane: Send + Sync + 'static {
    /// Places a conference on a shard and returns the way to it; `None` when no shard takes more.
    fn open(&self, conference: ConferenceId) -> Option<Link>;

    /// The room is gone: nothing more is said to or by the conference.
    fn close(&self, conference: ConferenceId);
}

/// The way to one conference.
pub struct Link {
    /// First in every ICE user fragment of the conference's peers, by which any shard knows whose a check is.
    pub ufrag_prefix: char,
    /// SHA-256 of the certificate that DTLS shows.
    pub fingerprint: [u8; 32],
    /// Where clients reach us, best first.
    pub candidates: Vec<Candidate>,
    /// To the shard; bounded.
    pub commands: mpsc::Sender<Command>,
    /// To be called when a batch of commands has been sent: the shard may be asleep.
    pub wake: Arc<dyn Fn() + Send + Sync>,
    /// Of this conference only; bounded.
    pub events: mpsc::Receiver<Event>,
}
