//! The input is a datagram: what front door and ingress read of it before and after decryption.

use weir_rtp::extension::{Elements, ExtensionWriter, IngressExtensions, find};
use weir_rtp::header::{DatagramKind, FIXED_HEADER_LEN, FixedHeader, FixedHeaderMut, RtpHeader, classify};
use weir_units::media::ExtensionIds;

const IDS: ExtensionIds = ExtensionIds {
    mid: Some(4),
    rid: Some(10),
    repaired_rid: Some(11),
    transport_cc: Some(3),
    abs_send_time: Some(2),
    audio_level: Some(1),
    dependency_descriptor: Some(8),
};

pub fn run(data: &[u8]) {
    let kind = classify(data);
    let Some(header) = RtpHeader::parse(data) else { return };
    assert!(
        data.len() < 2 || matches!(kind, DatagramKind::Rtp | DatagramKind::Rtcp),
        "version 2 is for RTP and RTCP alone"
    );
    let header_len = usize::from(header.header_len);
    assert!(header_len >= FIXED_HEADER_LEN && header_len <= data.len());
    assert_eq!(header.csrcs(data).count(), usize::from(header.csrc_count));
    if let Some(payload) = header.payload_range(data) {
        assert!(payload.start == header_len && payload.end <= data.len());
        assert_eq!(payload.end == data.len(), !header.has_padding);
    }

    let elements: Vec<(u8, &[u8])> = Elements::new(&header, data).collect();
    let in_elements: usize = elements.iter().map(|(_, bytes)| 1 + bytes.len()).sum();
    assert!(in_elements <= header_len - FIXED_HEADER_LEN, "elements overlap");
    for (id, _) in &elements {
        let first = elements.iter().find(|(other, _)| other == id).expect("it is itself in there");
        let range = find(&header, data, *id).expect("an element that was iterated is found");
        assert_eq!(range.of(data), first.1);
    }
    let read = IngressExtensions::read(&header, data, &IDS);
    if let Some(range) = read.dependency_descriptor {
        assert!(elements.iter().any(|(id, bytes)| *id == 8 && *bytes == range.of(data)));
    }
    for token in [read.mid, read.rid, read.repaired_rid].into_iter().flatten() {
        assert!(!token.as_str().is_empty());
    }
    round_trip(data, &header, &elements, &read);
}

/// The same header written anew reads the same.
fn round_trip(data: &[u8], header: &RtpHeader, elements: &[(u8, &[u8])], read: &IngressExtensions) {
    let mut block = vec![0xee; 4 + 3 * elements.len() + data.len() + 4];
    let mut writer = ExtensionWriter::new(&mut block);
    let mut has_all = true;
    for (id, bytes) in elements {
        has_all &= writer.push(*id, bytes);
    }
    assert!(has_all, "there is room for what was in the packet, and nothing in it is too long");
    let block_len = writer.finish();
    let fixed = FixedHeader {
        marker: header.marker,
        payload_type: header.payload_type,
        sequence_number: header.sequence_number,
        timestamp: header.timestamp,
        ssrc: header.ssrc,
        has_extension: block_len > 0,
        has_padding: header.has_padding,
    };
    let mut written = fixed.to_bytes().to_vec();
    written.extend(&block[..block_len]);
    let again = RtpHeader::parse(&written).expect("what we write is RTP");
    assert_eq!(
        (again.marker, again.payload_type, again.sequence_number, again.timestamp, again.ssrc),
        (header.marker, header.payload_type, header.sequence_number, header.timestamp, header.ssrc)
    );
    assert_eq!(usize::from(again.header_len), written.len());
    assert_eq!(Elements::new(&again, &written).collect::<Vec<_>>(), elements);
    let mut reread = IngressExtensions::read(&again, &written, &IDS);
    reread.dependency_descriptor = read.dependency_descriptor; // elsewhere in another packet
    assert_eq!(reread, *read);

    let mut in_place = data.to_vec();
    let mut fields = FixedHeaderMut::new(&mut in_place).expect("it was parsed");
    fields.set_marker_and_payload_type(header.marker, header.payload_type);
    fields.set_sequence_number(header.sequence_number);
    fields.set_timestamp(header.timestamp);
    fields.set_ssrc(header.ssrc);
    fields.set_padding_bit(header.has_padding);
    assert_eq!(in_place, data, "writing what is there changes nothing");
}
