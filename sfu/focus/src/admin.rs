//! Metrics and health, for operators only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, Encoder, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};
use weir_core::stats::{Drop, Reason};

use crate::lines::Lines;
use crate::shards::{ShardHandle, ShardSnapshot};

#[derive(Clone)]
pub struct Admin {
    registry: Registry,
    lines: Lines,
    /// Whether new clients are welcome.
    pub ready: Arc<AtomicBool>,
}

impl Admin {
    pub fn new(registry: Registry, shards: Vec<ShardHandle>) -> Self {
        Self { registry, lines: Lines::new(shards), ready: Arc::default() }
    }

    pub fn router(&self) -> Router {
        Router::new()
            .route("/", get(index))
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "alive\n" }))
            .route("/readyz", get(ready))
            .route("/debug/lines", get(lines))
            .with_state(self.clone())
    }
}

/// Which version runs, for those who watch several.
pub fn build_info() -> Result<IntGauge, prometheus::Error> {
    let opts = Opts::new("weir_build_info", "Always 1; the label says which version runs.")
        .const_label("version", env!("CARGO_PKG_VERSION"));
    let info = IntGauge::with_opts(opts)?;
    info.set(1);
    Ok(info)
}

async fn index() -> &'static str {
    "weir, for its operator\n\n/metrics  counters and gauges for Prometheus\n/healthz  the process answers\n\
     /readyz   new clients are welcome\n\
     /debug/lines  what each participant's line carries, and why pictures are what they are (JSON)\n"
}

async fn lines(State(admin): State<Admin>) -> Response {
    admin.lines.answer().await
}

async fn ready(State(admin): State<Admin>) -> Response {
    if admin.ready.load(Ordering::SeqCst) {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting or shutting down\n").into_response()
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&admin.registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Reads the shards' counters when Prometheus asks.
pub struct ShardCollector {
    shards: Vec<ShardHandle>,
    counters: Vec<(IntCounterVec, Read)>,
    gauges: Vec<(IntGaugeVec, Read)>,
    dropped: IntCounterVec,
    granted: IntGaugeVec,
    busy: CounterVec,
}

type Read = fn(&ShardSnapshot) -> u64;

/// Name, help, and where the number comes from.
type Source = (&'static str, &'static str, Read);

const COUNTERS: [Source; 22] = [
    ("weir_datagrams_in_total", "Datagrams and TCP frames received.", |shard| shard.stats.datagrams_in),
    ("weir_bytes_in_total", "Bytes received, without IP and UDP headers.", |shard| shard.stats.bytes_in),
    (
        "weir_receive_messages_total",
        "Messages that UDP datagrams were received in. weir_datagrams_in_total divided by this is how many the kernel had \
         joined into one (GRO).",
        |shard| shard.shell.wire.receive_messages,
    ),
    ("weir_receive_errors_total", "Reads of UDP sockets that failed.", |shard| {
        shard.shell.wire.receive_errors
    }),
    ("weir_rtp_in_total", "Authentic RTP packets from publishers.", |shard| shard.stats.rtp_in),
    ("weir_rtcp_in_total", "Authentic RTCP packets.", |shard| shard.stats.rtcp_in),
    ("weir_rtp_out_total", "RTP packets forwarded, retransmissions not counted.", |shard| {
        shard.stats.rtp_out
    }),
    ("weir_rtcp_out_total", "RTCP packets sent.", |shard| shard.stats.rtcp_out),
    ("weir_retransmitted_total", "RTP packets sent again because a subscriber asked.", |shard| {
        shard.stats.retransmitted
    }),
    ("weir_probe_packets_total", "Packets of padding that looked for what a line carries.", |shard| {
        shard.stats.probes
    }),
    (
        "weir_stalls_total",
        "Pictures that a subscriber got nothing of for a second, though its line was to carry them and their publisher sent.",
        |shard| shard.stats.stalls,
    ),
    ("weir_not_retransmittable_total", "Packets asked for that were no longer kept.", |shard| {
        shard.stats.not_retransmittable
    }),
    ("weir_nacks_out_total", "Packets asked of publishers again, repeats counted.", |shard| {
        shard.stats.nacks_out
    }),
    ("weir_recovered_total", "Packets from publishers that were lost and came back.", |shard| {
        shard.stats.recovered
    }),
    ("weir_lost_total", "Packets from publishers that never came.", |shard| shard.stats.lost),
    ("weir_key_frame_requests_in_total", "Key frames asked for by subscribers.", |shard| {
        shard.stats.key_frame_requests_in
    }),
    ("weir_key_frame_requests_out_total", "Key frames asked of publishers.", |shard| {
        shard.stats.key_frame_requests_out
    }),
    ("weir_datagrams_out_total", "Datagrams and TCP frames the kernel took.", |shard| {
        shard.shell.wire.datagrams_out
    }),
    ("weir_bytes_out_total", "Bytes handed to the kernel, without IP and UDP headers.", |shard| {
        shard.shell.wire.bytes_out
    }),
    (
        "weir_send_messages_total",
        "Messages that UDP datagrams were sent in. weir_datagrams_out_total divided by this is how many the kernel cuts out \
         of one (GSO).",
        |shard| shard.shell.wire.send_messages,
    ),
    ("weir_handed_over_total", "Datagrams that arrived at another shard's socket.", |shard| {
        shard.shell.handed_out
    }),
    (
        "weir_events_dropped_total",
        "Events a room did not take in time; anything but 0 is a fault.",
        |shard| shard.shell.events_dropped,
    ),
];

const GAUGES: [Source; 5] = [
    ("weir_peers", "Peer connections.", |shard| shard.stats.peers),
    ("weir_connected_peers", "Peer connections whose media is connected.", |shard| {
        shard.stats.connected_peers
    }),
    ("weir_conferences", "Conferences with peers.", |shard| shard.stats.conferences),
    ("weir_publications", "Publications.", |shard| shard.stats.publications),
    ("weir_subscriptions", "Subscriptions that have an m-line.", |shard| shard.stats.subscriptions),
];

const DROPPED: &str = "Datagrams and packets that arrived or were to leave and were not used, by reason. Of what arrives: \
     unclassified (neither STUN, DTLS, RTP nor RTCP), unknown_address (where no peer is), stun (for no peer, or not by its \
     password), dtls (not taken by the handshake), no_keys (media before the handshake was done), authentication (not \
     the peer's), replay (seen before, or too old), malformed and malformed_rtcp, too_many_ssrcs, unknown_ssrc and \
     unknown_payload_type (not negotiated), duplicate (sent again, though it was there). For want of room: batch_full, \
     arena_full, line_full (more waits for a line than it can use), channel_full (of a data channel), hand_over_full (from \
     shard to shard), send (the kernel or a TCP connection did not take it).";

const GRANTED: &str = "Subscriptions to pictures, by why they are sent what they are: wish (all that is wished), unmeasured (all \
     that is wished, over a line of unknown rate), line (less, since the line carries no more), patience (less, since more \
     did not last a moment ago), paused (nothing, since the line does not carry the least), off (nobody looks).";

impl ShardCollector {
    pub fn new(shards: Vec<ShardHandle>) -> Result<Self, prometheus::Error> {
        let labels = &["shard"];
        let counters = COUNTERS
            .iter()
            .map(|(name, help, source)| Ok((IntCounterVec::new(Opts::new(*name, *help), labels)?, *source)));
        let gauges = GAUGES
            .iter()
            .map(|(name, help, source)| Ok((IntGaugeVec::new(Opts::new(*name, *help), labels)?, *source)));
        Ok(Self {
            shards,
            counters: counters.collect::<Result<_, prometheus::Error>>()?,
            gauges: gauges.collect::<Result<_, prometheus::Error>>()?,
            dropped: IntCounterVec::new(Opts::new("weir_dropped_total", DROPPED), &["shard", "reason"])?,
            granted: IntGaugeVec::new(
                Opts::new("weir_granted_subscriptions", GRANTED),
                &["shard", "reason"],
            )?,
            busy: CounterVec::new(
                Opts::new(
                    "weir_shard_busy_seconds_total",
                    "Time a shard's thread was not asleep; its rate is the load.",
                ),
                labels,
            )?,
        })
    }
}

impl Collector for ShardCollector {
    fn desc(&self) -> Vec<&Desc> {
        let counters = self.counters.iter().flat_map(|(counter, _)| counter.desc());
        let gauges = self.gauges.iter().flat_map(|(gauge, _)| gauge.desc());
        counters
            .chain(gauges)
            .chain(self.dropped.desc())
            .chain(self.granted.desc())
            .chain(self.busy.desc())
            .collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for shard in &self.shards {
            let label = shard.index.to_string();
            let labels = [label.as_str()];
            let snapshot = shard.metrics.snapshot();
            for (counter, source) in &self.counters {
                let counter = counter.with_label_values(&labels);
                counter.inc_by(source(&snapshot).saturating_sub(counter.get()));
            }
            for (gauge, source) in &self.gauges {
                gauge.with_label_values(&labels).set(source(&snapshot) as i64);
            }
            let reasons =
                Drop::ALL.iter().map(|reason| (reason.name(), snapshot.stats.dropped[*reason as usize]));
            let shell = [
                ("hand_over_full", snapshot.shell.hand_over_dropped),
                ("send", snapshot.shell.wire.send_dropped),
            ];
            for (reason, count) in reasons.chain(shell) {
                let counter = self.dropped.with_label_values(&[label.as_str(), reason]);
                counter.inc_by(count.saturating_sub(counter.get()));
            }
            for reason in Reason::ALL {
                let gauge = self.granted.with_label_values(&[label.as_str(), reason.name()]);
                gauge.set(snapshot.stats.granted[reason as usize] as i64);
            }
            let busy = self.busy.with_label_values(&labels);
            busy.inc_by((snapshot.shell.busy.as_secs_f64() - busy.get()).max(0.0));
        }
        let counters = self.counters.iter().flat_map(|(counter, _)| counter.collect());
        let gauges = self.gauges.iter().flat_map(|(gauge, _)| gauge.collect());
        counters
            .chain(gauges)
            .chain(self.dropped.collect())
            .chain(self.granted.collect())
            .chain(self.busy.collect())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_explained() {
        for reason in Drop::ALL.map(Drop::name).into_iter().chain(["hand_over_full", "send"]) {
            assert!(
                DROPPED.contains(&format!(" {reason} ")) || DROPPED.contains(&format!(" {reason},")),
                "{reason}"
            );
        }
        for reason in Reason::ALL.map(Reason::name) {
            assert!(GRANTED.contains(&format!(" {reason} (")), "{reason}");
        }
    }
}
