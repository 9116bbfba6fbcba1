//! One peer connection as its shard sees it.

use std::time::{Duration, Instant};

use crate::shard::pressure::Pace;
use crate::shard::replay::ReplayBudget;
use weir_rate::{BitRate, Time};
use weir_transport::srtp::{SrtpEgress, SrtpIngress};
use weir_transport::{Route, Transport};
use weir_units::event::{LineQuality, Shortage};
use weir_units::ids::PeerId;
use weir_units::media::{ExtensionIds, Mid};

use crate::allocation::Standing;
use crate::downlink::Downlink;
use crate::ingress::twcc::ArrivalLog;
use crate::subscription::Way;
use crate::timers::Alarm;

/// Nothing valid was heard from a peer for this long: it is lost. Browsers check consent every few seconds
/// ([RFC 7675 §5.1](https://www.rfc-editor.org/rfc/rfc7675#section-5.1) gives up after 30 s; LiveKit after 15).
pub const PEER_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a peer is told what we received of it, and what we sent
/// ([RFC 3550 §6.2](https://www.rfc-editor.org/rfc/rfc3550#section-6.2) would allow a session this size less).
pub(crate) const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// How often the control plane hears what a peer's line is like.
pub(crate) const QUALITY_INTERVAL: Duration = Duration::from_secs(5);

/// For so long after ICE chose a path, packets from another say nothing about where media should go: they may have been
/// under way on the old one. Longer would be long for clients whose media leaves on another path than they nominated.
const STRAGGLERS: Duration = Duration::from_millis(500);

pub(crate) struct Peer {
    pub id: PeerId,
    pub conference: u32,
    /// Boxed, as is all that is large and not used for every packet: what forwarding touches should lie close together.
    pub transport: Box<Transport>,
    /// Where media goes: the path that the peer nominated, or the one its own media shows it to have chosen.
    pub route: Option<Route>,
    /// When ICE last chose another path.
    pub route_chosen: Option<Instant>,
    /// Its addresses in the routing table; the one last checked comes last.
    pub routes: Vec<Route>,
    /// What it brought of new ones is paid for by then.
    pub new_routes_until: Option<Instant>,
    pub srtp_in: Option<Box<SrtpIngress>>,
    pub srtp_out: Option<SrtpEgress>,
    /// The m-lines the peer sends on, to bind SSRCs that were not announced.
    pub lines: Vec<Line>,
    /// Every SSRC the peer has sent authentic packets on, sorted.
    pub streams: Vec<Stream>,
    /// Header extensions of the bundle.
    pub extensions: ExtensionIds,
    pub publications: Vec<u32>,
    /// Whether its picture matters more than others': it speaks, or did a moment ago.
    pub has_floor: bool,
    /// The subscription behind each SSRC that we send, RTX included, sorted by SSRC.
    pub senders: Vec<(u32, u32)>,
    /// The subscriptions that something was sent on: those to report on. Most m-lines of a large call are silent.
    pub reported: Vec<u32>,
    pub arrivals: Box<ArrivalLog>,
    /// What the line to it carries, once it is subscribed to something and reports on what arrives.
    pub downlink: Option<Box<Downlink>>,
    /// When that was last shared out.
    pub allocated: Option<Time>,
    /// As long as the line carries this, all that was wished then has room and some is left.
    pub ease: Option<BitRate>,
    /// Our SSRC in RTCP to this peer.
    pub local_ssrc: u32,
    pub round_trip: Option<Duration>,
    pub line: LineWindow,
    /// How much of what was kept it may still be sent at once.
    pub replays: ReplayBudget,
    pub standing: Standing,
    pub last_heard: Instant,
    pub next_report: Instant,
    pub next_quality: Instant,
    pub alarm: Alarm,
    /// Told to the control plane as lost; waits to be removed.
    pub lost: bool,
    /// Whether it takes the data channel messages that it is sent.
    pub pace: Pace,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    pub mid: Mid,
    pub publication: u32,
}

/// What an ingress SSRC carries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    pub ssrc: u32,
    pub publication: u32,
    pub encoding: u8,
    pub is_retransmission: bool,
}

impl Peer {
    pub fn is_connected(&self) -> bool {
        self.srtp_out.is_some() && self.route.is_some() && !self.lost
    }

    pub fn stream(&self, ssrc: u32) -> Option<Stream> {
        let at = self.streams.binary_search_by_key(&ssrc, |stream| stream.ssrc).ok()?;
        Some(self.streams[at])
    }

    /// Binds an SSRC, replacing what the same role of the encoding was bound to.
    pub fn bind(&mut self, stream: Stream) {
        self.streams.retain(|other| {
            (other.publication, other.encoding, other.is_retransmission)
                != (stream.publication, stream.encoding, stream.is_retransmission)
        });
        match self.streams.binary_search_by_key(&stream.ssrc, |other| other.ssrc) {
            Ok(at) => self.streams[at] = stream,
            Err(at) => self.streams.insert(at, stream),
        }
    }

    pub fn subscription_of(&self, ssrc: u32) -> Option<u32> {
        let at = self.senders.binary_search_by_key(&ssrc, |sender| sender.0).ok()?;
        Some(self.senders[at].1)
    }

    pub fn add_sender(&mut self, ssrc: u32, subscription: u32) {
        match self.senders.binary_search_by_key(&ssrc, |sender| sender.0) {
            Ok(at) => self.senders[at].1 = subscription,
            Err(at) => self.senders.insert(at, (ssrc, subscription)),
        }
    }

    /// ICE chose a path.
    pub fn choose_route(&mut self, now: Instant, route: Route) {
        (self.route, self.route_chosen) = (Some(route), Some(now));
    }

    /// An authentic packet came from a validated address.
    pub fn on_authentic(&mut self, now: Instant, route: Route) {
        self.last_heard = now;
        if self.route != Some(route) && self.route_chosen.is_none_or(|at| now >= at + STRAGGLERS) {
            self.route = Some(route);
        }
    }

    /// How the peer is sent to, once it is connected.
    pub fn way(&mut self, time: Time) -> Option<Way<'_>> {
        let srtp = self.srtp_out.as_ref().filter(|_| !self.lost)?;
        Some(Way { srtp, route: self.route?, line: self.downlink.as_deref_mut(), time })
    }
}

/// Packets of one direction, all streams together: a few of which one is lost must not look like a line that loses half.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Losses {
    expected: f64,
    lost: f64,
}

impl Losses {
    /// A report says what became of so many packets.
    pub fn add(&mut self, expected: f64, lost: f64) {
        self.expected += expected;
        self.lost += lost;
    }

    fn share(&self) -> f32 {
        if self.expected > 0.0 { (self.lost / self.expected).min(1.0) as f32 } else { 0.0 }
    }
}

/// Loss and jitter since the control plane last heard, the worse of both directions, and what was wanting all the time.
#[derive(Debug, Default)]
pub(crate) struct LineWindow {
    /// By the peer's reports, and by ours.
    pub sent: Losses,
    pub received: Losses,
    jitter_ms: f32,
    /// At the best moment since, and now.
    least_shortage: Shortage,
    shortage: Shortage,
    told: Option<LineQuality>,
}

impl LineWindow {
    /// The jitter of a stream of this clock rate, in its ticks, by the peer's report or ours.
    pub fn on_jitter(&mut self, jitter: u32, clock_rate: u32) {
        self.jitter_ms = self.jitter_ms.max(jitter as f32 * 1_000.0 / clock_rate as f32);
    }

    /// What the line carries was shared out.
    pub fn on_shared(&mut self, shortage: Shortage) {
        self.shortage = shortage;
        self.least_shortage = self.least_shortage.min(shortage);
    }

    /// Closes the window. `None` if nothing has changed since the last.
    pub fn take_news(&mut self, round_trip: Option<Duration>) -> Option<LineQuality> {
        let (sent, received) = (std::mem::take(&mut self.sent), std::mem::take(&mut self.received));
        let quality = LineQuality {
            loss: sent.share().max(received.share()),
            jitter_ms: std::mem::take(&mut self.jitter_ms),
            round_trip_ms: round_trip.map_or(0.0, |rtt| rtt.as_secs_f32() * 1_000.0),
            shortage: std::mem::replace(&mut self.least_shortage, self.shortage),
        };
        (self.told != Some(quality)).then(|| {
            self.told = Some(quality);
            quality
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_told_of_when_it_changes() {
        let mut line = LineWindow::default();
        let idle = LineQuality::default();
        assert_eq!(line.take_news(None), Some(idle), "the first says that it is good");
        assert_eq!(line.take_news(None), None);
        line.sent.add(8.0, 2.0);
        line.on_jitter(90, 90_000);
        assert_eq!(line.take_news(None), Some(LineQuality { loss: 0.25, jitter_ms: 1.0, ..idle }));
        assert_eq!(line.take_news(None), Some(idle), "and when it is good again");
        assert_eq!(line.take_news(None), None);
    }

    #[test]
    fn loss_is_of_all_packets_of_the_worse_direction() {
        let mut line = LineWindow::default();
        // A microphone that is silent sends two packets a second, and a camera a hundred times as many.
        for lost in [0.0, 1.0, 0.0, 0.0, 0.0] {
            line.received.add(2.0, lost);
            line.received.add(198.0, 0.0);
            line.sent.add(400.0, 1.0);
        }
        assert_eq!(line.take_news(None).unwrap().loss, 5.0 / 2_000.0);
        line.received.add(2.0, 1.0);
        assert_eq!(line.take_news(None).unwrap().loss, 0.5, "if that is all there is");
    }

    #[test]
    fn a_shortage_is_told_when_it_lasts() {
        let mut line = LineWindow::default();
        let mut told = Vec::new();
        for shortages in [
            &[Shortage::Paused][..],
            &[Shortage::Paused],
            &[Shortage::Much, Shortage::Paused],
            &[],
            &[Shortage::Little, Shortage::Paused],
            &[Shortage::Little],
        ] {
            shortages.iter().for_each(|shortage| line.on_shared(*shortage));
            told.push(line.take_news(None).map(|quality| quality.shortage));
        }
        use Shortage::{Little, Much, Paused};
        assert_eq!(told, [Some(Little), Some(Paused), Some(Much), Some(Paused), Some(Little), None]);
    }
}
