//! Reports that leave: what we received, what we sent, and when transport-wide numbers arrived.

use std::time::{Duration, Instant};

use weir_rtp::rtcp::{ReportBlock, RtcpWriter, SenderInfo, compact_ntp};

use super::Shard;
use crate::stats::Drop;
use crate::subscription::Subscription;

/// Report blocks in one packet ([RFC 3550 §6.4.1](https://www.rfc-editor.org/rfc/rfc3550#section-6.4.1)).
const MAX_BLOCKS: usize = 31;
/// Sender reports in one compound packet: 28 bytes each, below the RTCP bound.
const MAX_SENDER_REPORTS: usize = 32;
/// We have one name for all we send; streams that belong together are told by their msid.
const CNAME: &str = "weir";

impl Shard {
    pub(super) fn send_reports(&mut self, now: Instant, index: u32) {
        self.send_receiver_reports(now, index);
        self.send_sender_reports(now, index);
    }

    fn send_receiver_reports(&mut self, now: Instant, index: u32) {
        let mut blocks = [ReportBlock::default(); MAX_BLOCKS];
        let mut count = 0;
        let local = self.model.peers[index as usize].local_ssrc;
        for at in 0..self.model.peers[index as usize].publications.len() {
            let publication = self.model.peers[index as usize].publications[at];
            for encoding in 0..self.model.publications[publication as usize].encodings.len() {
                let publication = &mut self.model.publications[publication as usize];
                let clock_rate =
                    publication.media.formats.first().map_or(90_000, |format| format.codec.clock_rate());
                let state = &mut publication.encodings[encoding];
                let (Some(ssrc), Some(report)) = (state.ssrc, state.stats.report(now)) else { continue };
                let line = &mut self.model.peers[index as usize].line;
                line.received.add(report.expected as f64, report.lost as f64);
                line.on_jitter(report.jitter, clock_rate);
                blocks[count] = ReportBlock {
                    ssrc,
                    fraction_lost: report.fraction_lost,
                    cumulative_lost: report.cumulative_lost,
                    highest_sequence: report.highest_sequence,
                    jitter: report.jitter,
                    last_sender_report: report.last_sender_report,
                    delay_since_last_sender_report: report.delay_since_sender_report,
                };
                count += 1;
                if count == MAX_BLOCKS {
                    self.send_rtcp(index, |writer| writer.receiver_report(local, &blocks));
                    count = 0;
                }
            }
        }
        if count > 0 {
            self.send_rtcp(index, |writer| {
                writer.receiver_report(local, &blocks[..count]) && writer.source_description(local, CNAME)
            });
        }
    }

    fn send_sender_reports(&mut self, now: Instant, index: u32) {
        let mut reports = [(0, SenderInfo::default()); MAX_SENDER_REPORTS];
        let mut count = 0;
        for at in 0..self.model.peers[index as usize].reported.len() {
            let subscription = self.model.peers[index as usize].reported[at];
            let subscription = &mut self.model.subscriptions[subscription as usize];
            let ssrc = subscription.ssrc();
            let publication = &self.model.publications[subscription.publication as usize];
            let Some(info) = sender_info(now, subscription, publication) else { continue };
            subscription.on_reported(now, compact_ntp(info.ntp));
            reports[count] = (ssrc, info);
            count += 1;
            if count == MAX_SENDER_REPORTS {
                self.send_rtcp(index, |writer| write_sender_reports(writer, &reports));
                count = 0;
            }
        }
        if count > 0 {
            self.send_rtcp(index, |writer| write_sender_reports(writer, &reports[..count]));
        }
    }

    pub(super) fn send_transport_feedback(&mut self, now: Instant, index: u32) {
        let peer = &self.model.peers[index as usize];
        let local = peer.local_ssrc;
        // The media SSRC says nothing here; browsers expect one of theirs.
        let media = peer.streams.first().map_or(0, |stream| stream.ssrc);
        // Each round reports up to 400 numbers, so a few empty any log.
        for _ in 0..8 {
            let peer = &mut self.model.peers[index as usize];
            let Some(feedback) = peer.arrivals.feedback(now) else { return };
            let base = feedback.base_sequence();
            let (count, arrivals) = (feedback.count, feedback.arrivals());
            let packets = arrivals.enumerate().map(|(at, arrival)| {
                (base.wrapping_add(at as u16), arrival.map(|micros| micros / MICROS_PER_TICK))
            });
            let (Some(srtp), Some(route)) = (&mut peer.srtp_out, peer.route) else { return };
            let pushed = self.out.egress.push(route, |space| {
                let mut writer = RtcpWriter::new(&mut space[..1_180]);
                let _covered = writer.transport_feedback(local, media, count, packets);
                let len = writer.finish();
                srtp.seal_rtcp(space, len)
            });
            match pushed {
                Some(0) => {}
                Some(_) => self.out.stats.rtcp_out += 1,
                None => self.out.stats.drop(Drop::ArenaFull),
            }
            peer.arrivals.on_sent(now);
        }
    }
}

/// Transport-wide feedback counts in quarters of a millisecond.
const MICROS_PER_TICK: u64 = 250;

fn write_sender_reports(writer: &mut RtcpWriter<'_>, reports: &[(u32, SenderInfo)]) -> bool {
    reports.iter().all(|(ssrc, info)| writer.sender_report(*ssrc, info, &[]))
        && reports.first().is_some_and(|(ssrc, _)| writer.source_description(*ssrc, CNAME))
}

/// The publisher's own clock, carried on to now: streams of one publisher stay in step at every subscriber.
fn sender_info(
    now: Instant,
    subscription: &Subscription,
    publication: &crate::publication::Publication,
) -> Option<SenderInfo> {
    let encoding = publication.encodings.get(usize::from(subscription.encoding()?))?;
    let report = encoding.report?;
    let clock_rate = u64::from(publication.media.formats.first()?.codec.clock_rate());
    let elapsed: Duration = now.saturating_duration_since(report.arrived);
    let ticks = (elapsed.as_micros() as u64).saturating_mul(clock_rate) / 1_000_000;
    let fraction = (u64::from(elapsed.subsec_nanos()) << 32) / 1_000_000_000;
    Some(SenderInfo {
        ntp: report.clock.ntp.wrapping_add(elapsed.as_secs() << 32).wrapping_add(fraction),
        rtp_timestamp: subscription.egress_timestamp(report.clock.rtp).wrapping_add(ticks as u32),
        packet_count: subscription.sent.packets,
        octet_count: subscription.sent.octets,
    })
}
