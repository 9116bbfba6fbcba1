//! The input is an opened compound packet. What is read of it is written again, and must read the same.

use weir_rtp::rtcp::{
    Compound, DelaySinceLastReference, ExtendedBlock, FirEntry, MAX_REPORTED_STATUSES, MalformedRtcp,
    ReportBlock, RtcpPacket, RtcpWriter, SourceDescription, TransportFeedback,
};

/// Room for any packet that could be read from a datagram: entries of ours are no longer than theirs.
const BUFFER: usize = 1 << 17;

pub fn run(data: &[u8]) {
    if data.len() > 1 << 16 {
        return;
    }
    let mut framing = false;
    let mut packets = 0;
    for packet in Compound::new(data) {
        assert!(!framing, "bad framing is the last item");
        packets += 1;
        match packet {
            Ok(packet) => check(&packet),
            Err(MalformedRtcp::Framing) => framing = true,
            Err(MalformedRtcp::Body { .. }) => {}
        }
    }
    assert!(packets <= data.len() / 4 + 1, "a packet has a header of four bytes");
}

fn check(packet: &RtcpPacket<'_>) {
    match packet {
        RtcpPacket::SenderReport(report) => {
            let blocks = blocks(report.blocks.iter());
            rewritten(
                |writer| writer.sender_report(report.ssrc, &report.info, &blocks),
                |again| {
                    let RtcpPacket::SenderReport(again) = again else { panic!("another packet: {again:?}") };
                    assert_eq!((again.ssrc, again.info), (report.ssrc, report.info));
                    assert!(again.blocks.iter().eq(report.blocks.iter()));
                },
            );
        }
        RtcpPacket::ReceiverReport(report) => {
            let blocks = blocks(report.blocks.iter());
            rewritten(
                |writer| writer.receiver_report(report.ssrc, &blocks),
                |again| {
                    let RtcpPacket::ReceiverReport(again) = again else {
                        panic!("another packet: {again:?}")
                    };
                    assert!(again.ssrc == report.ssrc && again.blocks.iter().eq(report.blocks.iter()));
                },
            );
        }
        RtcpPacket::SourceDescription(description) => source_description(*description),
        RtcpPacket::Bye(bye) => {
            bye.reason();
            let ssrcs: Vec<u32> = bye.ssrcs().collect();
            rewritten(
                |writer| writer.bye(&ssrcs),
                |again| {
                    let RtcpPacket::Bye(again) = again else { panic!("another packet: {again:?}") };
                    assert!(again.ssrcs().eq(bye.ssrcs()) && again.reason().is_none());
                },
            );
        }
        RtcpPacket::Nack(nack) => nacks(nack.sender, nack.media, &nack.lost().collect::<Vec<_>>()),
        RtcpPacket::Pli { sender, media } => rewritten(
            |writer| writer.pli(*sender, *media),
            |again| {
                assert!(
                    matches!(again, RtcpPacket::Pli { sender: s, media: m } if (s, m) == (sender, media))
                );
            },
        ),
        RtcpPacket::Fir(fir) => {
            let entries: Vec<FirEntry> = fir.entries().collect();
            rewritten(
                |writer| writer.fir(fir.sender, &entries),
                |again| {
                    let RtcpPacket::Fir(again) = again else { panic!("another packet: {again:?}") };
                    assert!(again.sender == fir.sender && again.entries().eq(fir.entries()));
                },
            );
        }
        RtcpPacket::TransportFeedback(feedback) => transport_feedback(feedback),
        RtcpPacket::Remb(remb) => {
            let ssrcs: Vec<u32> = remb.ssrcs().collect();
            rewritten(
                |writer| writer.remb(remb.sender, remb.bitrate, &ssrcs),
                |again| {
                    let RtcpPacket::Remb(again) = again else { panic!("another packet: {again:?}") };
                    assert!(again.sender == remb.sender && again.ssrcs().eq(remb.ssrcs()));
                    // What was cut off at 64 bits is rounded down to 18 bits of precision.
                    assert!(again.bitrate == remb.bitrate || remb.bitrate == u64::MAX);
                },
            );
        }
        RtcpPacket::ExtendedReport(report) => {
            for block in report.blocks() {
                extended(report.sender, &block);
            }
        }
        RtcpPacket::Other { .. } => {}
    }
}

/// Writes one packet and looks at what is read of it.
fn rewritten(write: impl FnOnce(&mut RtcpWriter<'_>) -> bool, check: impl FnOnce(&RtcpPacket<'_>)) {
    let mut buffer = vec![0xee; BUFFER];
    let mut writer = RtcpWriter::new(&mut buffer);
    assert!(write(&mut writer), "what was read can be written");
    let len = writer.finish();
    let mut compound = Compound::new(&buffer[..len]);
    let again = compound.next().expect("a packet").expect("what we write is well-formed");
    check(&again);
    assert!(compound.next().is_none(), "and it is one packet");
}

fn blocks(read: impl Iterator<Item = ReportBlock>) -> Vec<ReportBlock> {
    read.inspect(|block| {
        let round_trip = block.round_trip(block.last_sender_report.wrapping_add(1 << 16));
        assert!(round_trip.is_none_or(|ticks| ticks < 1 << 31));
    })
    .collect()
}

fn source_description(description: SourceDescription<'_>) {
    for item in description.items() {
        if item.kind != 1 {
            continue;
        }
        let Ok(cname) = std::str::from_utf8(item.text) else { continue };
        rewritten(
            |writer| writer.source_description(item.ssrc, cname),
            |again| {
                let RtcpPacket::SourceDescription(again) = again else { panic!("another packet: {again:?}") };
                assert_eq!(again.cname(item.ssrc), Some(item.text));
            },
        );
    }
}

/// The writer wants ascending numbers; peers send them in any order.
fn nacks(sender: u32, media: u32, lost: &[u16]) {
    let mut ascending = lost.to_vec();
    ascending.sort_unstable();
    ascending.dedup();
    if ascending.is_empty() {
        return;
    }
    let mut buffer = vec![0xee; BUFFER];
    let mut writer = RtcpWriter::new(&mut buffer);
    assert_eq!(writer.nack(sender, media, &ascending), ascending.len());
    let len = writer.finish();
    let mut read = Vec::new();
    for packet in Compound::new(&buffer[..len]) {
        let Ok(RtcpPacket::Nack(nack)) = packet else { panic!("another packet: {packet:?}") };
        assert_eq!((nack.sender, nack.media), (sender, media));
        read.extend(nack.lost());
    }
    assert_eq!(read, ascending);
}

fn extended(sender: u32, block: &ExtendedBlock<'_>) {
    match block {
        ExtendedBlock::ReceiverReferenceTime { ntp } => rewritten(
            |writer| writer.receiver_reference_time(sender, *ntp),
            |again| {
                let RtcpPacket::ExtendedReport(again) = again else { panic!("another packet: {again:?}") };
                let first = again.blocks().next();
                assert!(
                    matches!(first, Some(ExtendedBlock::ReceiverReferenceTime { ntp: read }) if read == *ntp)
                );
            },
        ),
        ExtendedBlock::DelaySinceLastReference(delays) => {
            let delays: Vec<DelaySinceLastReference> = delays.iter().collect();
            rewritten(
                |writer| writer.delay_since_last_reference(sender, &delays),
                |again| {
                    let RtcpPacket::ExtendedReport(again) = again else {
                        panic!("another packet: {again:?}")
                    };
                    let Some(ExtendedBlock::DelaySinceLastReference(read)) = again.blocks().next() else {
                        panic!("another block")
                    };
                    assert!(read.iter().eq(delays.iter().copied()));
                },
            );
        }
        ExtendedBlock::Other { .. } => {}
    }
}

fn transport_feedback(feedback: &TransportFeedback<'_>) {
    assert!((1..=MAX_REPORTED_STATUSES).contains(&feedback.status_count));
    let read: Vec<(u16, Option<i64>)> = feedback.packets().collect();
    assert_eq!(read.len(), usize::from(feedback.status_count), "chunks and deltas were counted");
    for (at, (sequence, _)) in read.iter().enumerate() {
        assert_eq!(*sequence, feedback.base_sequence.wrapping_add(at as u16));
    }
    if read.iter().any(|(_, arrival)| arrival.is_some_and(|ticks| ticks < 0)) {
        return; // before the receiver's clock began: we never write that
    }
    let items: Vec<(u16, Option<u64>)> =
        read.iter().map(|(sequence, arrival)| (*sequence, arrival.map(|ticks| ticks as u64))).collect();
    let mut left = &items[..];
    while !left.is_empty() {
        let mut buffer = [0xee; 1_180];
        let mut writer = RtcpWriter::new(&mut buffer);
        let covered = writer.transport_feedback(feedback.sender, feedback.media, 7, left.iter().copied());
        assert!(covered > 0, "an empty buffer takes at least one");
        let len = writer.finish();
        let (now, later) = left.split_at(covered);
        left = later;
        let Some(packet) = Compound::new(&buffer[..len]).next() else {
            assert!(now.iter().all(|(_, arrival)| arrival.is_none()), "arrivals are reported");
            continue;
        };
        let Ok(RtcpPacket::TransportFeedback(again)) = packet else { panic!("another packet: {packet:?}") };
        let expected = now.iter().map(|(sequence, arrival)| {
            // 24 bits of 64 ms wrap.
            (*sequence, arrival.map(|ticks| (ticks as i64) & 0xffff_ffff))
        });
        let reread: Vec<_> = again
            .packets()
            .map(|(sequence, arrival)| (sequence, arrival.map(|ticks| ticks & 0xffff_ffff)))
            .collect();
        assert_eq!(reread, expected.collect::<Vec<_>>());
    }
}
