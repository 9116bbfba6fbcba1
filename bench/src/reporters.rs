//! Subscribers that report on what arrives, as clients do ten times a second.

use std::time::{Duration, Instant};

use weir_core::Route;
use weir_core::egress::Egress;
use weir_rtp::header::{DatagramKind, classify};
use weir_rtp::rtcp::{RtcpWriter, TICKS_PER_SECOND};
use weir_transport::srtp::SrtpEgress;

/// How often libwebrtc reports where there is bandwidth enough.
const INTERVAL: Duration = Duration::from_millis(100);
/// On the way.
const DELAY: Duration = Duration::from_millis(20);
/// Packets one after another arrive so far apart: a line of some 100 Mbit/s.
const APART: Duration = Duration::from_micros(100);

struct Reporter {
    route: Route,
    srtp: SrtpEgress,
    /// The next transport-wide number that will come.
    next: u16,
    count: u8,
    /// When each packet not yet reported on arrived.
    arrived: Vec<Instant>,
}

impl Reporter {
    fn arrive(&mut self, now: Instant) {
        let arrival = now + DELAY;
        let after = self.arrived.last().map_or(arrival, |last| *last + APART);
        self.arrived.push(arrival.max(after));
    }
}

/// All reporting subscribers of a call. Each hears of every packet to it, so that nothing seems lost.
pub struct Reporters {
    all: Vec<Reporter>,
    began: Instant,
    reported: Instant,
    /// Sealed and due: what clients send is made off the clock.
    pub due: Vec<(Route, Vec<u8>)>,
}

impl Reporters {
    pub fn new(now: Instant) -> Self {
        Self { all: Vec::new(), began: now, reported: now, due: Vec::new() }
    }

    pub fn add(&mut self, route: Route, srtp: SrtpEgress) {
        self.all.push(Reporter { route, srtp, next: 1, count: 0, arrived: Vec::new() });
    }

    /// So many packets arrived at everybody: what [`Self::take`] would have found.
    pub fn take_all(&mut self, now: Instant, packets: usize) {
        for reporter in &mut self.all {
            (0..packets).for_each(|_| reporter.arrive(now));
        }
    }

    /// What the shard is about to send arrives.
    pub fn take(&mut self, now: Instant, egress: &Egress) {
        for run in egress.runs() {
            let Some(reporter) = self.all.iter_mut().find(|reporter| reporter.route == run.route) else {
                continue;
            };
            let is_rtp = |packet: &&[u8]| classify(packet) == DatagramKind::Rtp;
            run.datagrams(egress.arena()).filter(is_rtp).for_each(|_| reporter.arrive(now));
        }
    }

    /// Makes the reports that are due.
    pub fn make_due(&mut self, now: Instant) {
        if now < self.reported + INTERVAL {
            return;
        }
        self.reported = now;
        for reporter in self.all.iter_mut().filter(|reporter| !reporter.arrived.is_empty()) {
            let ticks = |at: Instant| (at - self.began).as_micros() as u64 * TICKS_PER_SECOND / 1_000_000;
            let first = reporter.next;
            let arrivals = reporter.arrived.iter().enumerate();
            let packets =
                arrivals.map(|(at, arrived)| (first.wrapping_add(at as u16), Some(ticks(*arrived))));
            let mut packet = vec![0; 1_500];
            let mut writer = RtcpWriter::new(&mut packet);
            let covered = writer.transport_feedback(1, 1, reporter.count, packets);
            let len = writer.finish();
            let len = reporter.srtp.seal_rtcp(&mut packet, len);
            packet.truncate(len);
            reporter.arrived.drain(..covered);
            reporter.next = first.wrapping_add(covered as u16);
            reporter.count = reporter.count.wrapping_add(1);
            self.due.push((reporter.route, packet));
        }
    }
}
