//! What an operator sees of signalling.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};
use weir_units::media::MediaKind;

use crate::room::RoomCounters;

pub(super) struct Metrics {
    pub rooms: IntGauge,
    pub participants: IntGauge,
    pub tracks: IntGauge,
    pub join_requests: IntCounter,
    pub join_refusals: IntCounter,
    joined: IntCounter,
    connected: IntCounter,
    resumed: IntCounter,
    left: IntCounter,
    lost: IntCounter,
    evicted: IntCounter,
    pub messages_in: IntCounter,
    pub messages_out: IntCounter,
    pub malformed_messages: IntCounter,
    pub slow_clients: IntCounter,
    refused_requests: IntCounter,
    failed_negotiations: IntCounter,
    data_forwarded: IntCounter,
    data_dropped: IntCounter,
    join_seconds: Histogram,
    first_packet_seconds: HistogramVec,
}

/// Upper bounds of what is counted together, in seconds: what a person waits for beside all that is not ours.
const BUCKETS: [f64; 10] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];

impl Metrics {
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let labelled = |name: &str, help: &str, label: &str| -> Result<IntCounterVec, prometheus::Error> {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            Ok(counters)
        };
        let seconds = |name: &str, help: &str| HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
        let join_seconds = Histogram::with_opts(seconds(
            "weir_join_seconds",
            "From a client's request to join, or to carry on, until what it is answered is on its WebSocket.",
        ))?;
        registry.register(Box::new(join_seconds.clone()))?;
        let first_packet_seconds = HistogramVec::new(
            seconds(
                "weir_first_packet_seconds",
                "Until a subscriber was sent a track's first packet, from when it was connected and asked for it and the publisher \
                 sent; of video, the wait for a key frame included.",
            ),
            &["kind"],
        )?;
        registry.register(Box::new(first_packet_seconds.clone()))?;
        for kind in ["audio", "video"] {
            first_packet_seconds.with_label_values(&[kind]);
        }
        let joins = labelled(
            "weir_joins_total",
            "Joins by how far they came: requested, refused, joined (signalling), connected (media), resumed.",
            "stage",
        )?;
        let leaves = labelled(
            "weir_leaves_total",
            "Participants who left: of their own will (left), because their media stopped (lost), or sent away (evicted).",
            "cause",
        )?;
        let messages =
            labelled("weir_signal_messages_total", "Signalling messages over WebSockets.", "direction")?;
        let data = labelled(
            "weir_data_packets_total",
            "Data channel packets by outcome: forwarded (each copy), dropped (not allowed, malformed, or nobody ready).",
            "outcome",
        )?;
        Ok(Self {
            rooms: gauge("weir_rooms", "Rooms that exist.")?,
            participants: gauge("weir_participants", "Participants in rooms.")?,
            tracks: gauge("weir_tracks", "Published tracks.")?,
            join_requests: joins.with_label_values(&["requested"]),
            join_refusals: joins.with_label_values(&["refused"]),
            joined: joins.with_label_values(&["joined"]),
            connected: joins.with_label_values(&["connected"]),
            resumed: joins.with_label_values(&["resumed"]),
            left: leaves.with_label_values(&["left"]),
            lost: leaves.with_label_values(&["lost"]),
            evicted: leaves.with_label_values(&["evicted"]),
            messages_in: messages.with_label_values(&["in"]),
            messages_out: messages.with_label_values(&["out"]),
            malformed_messages: counter(
                "weir_signal_malformed_messages_total",
                "Signalling messages that could not be read, and were ignored.",
            )?,
            slow_clients: counter(
                "weir_signal_slow_clients_total",
                "WebSockets closed because the client did not take what it was sent.",
            )?,
            refused_requests: counter(
                "weir_signal_refused_requests_total",
                "Requests of participants answered with a refusal.",
            )?,
            failed_negotiations: counter(
                "weir_failed_negotiations_total",
                "Offers or answers that were unusable or did not come; the client starts over.",
            )?,
            data_forwarded: data.with_label_values(&["forwarded"]),
            data_dropped: data.with_label_values(&["dropped"]),
            join_seconds,
            first_packet_seconds,
        })
    }

    /// A client's first answer is on its way.
    pub fn answered_join(&self, took: Duration) {
        self.join_seconds.observe(took.as_secs_f64());
    }

    pub fn first_packet(&self, kind: MediaKind, after: Duration) {
        let kind = match kind {
            MediaKind::Audio => "audio",
            MediaKind::Video => "video",
        };
        self.first_packet_seconds.with_label_values(&[kind]).observe(after.as_secs_f64());
    }

    /// Adds what a room has counted since `before`.
    pub fn count(&self, before: &RoomCounters, after: &RoomCounters) {
        self.joined.inc_by(after.joined - before.joined);
        self.connected.inc_by(after.connected - before.connected);
        self.resumed.inc_by(after.resumed - before.resumed);
        self.left.inc_by(after.left - before.left);
        self.lost.inc_by(after.lost - before.lost);
        self.evicted.inc_by(after.evicted - before.evicted);
        self.refused_requests.inc_by(after.refused_requests - before.refused_requests);
        self.failed_negotiations.inc_by(after.failed_negotiations - before.failed_negotiations);
        self.data_forwarded.inc_by(after.data_forwarded - before.data_forwarded);
        self.data_dropped.inc_by(after.data_dropped - before.data_dropped);
    }
}
