//! The far end: transport-wide feedback as libwebrtc sends it.

use std::collections::BTreeMap;
use std::time::Duration;

use weir_rtp::rtcp::RtcpWriter;
use weir_rtp::sequence::Unwrapper16;

/// Feedback may use a twentieth of the rate, at 68 bytes each, and comes within these bounds.
const SHARE: f64 = 0.05;
const FEEDBACK_BITS: f64 = 68.0 * 8.0;
const MIN_INTERVAL: Duration = Duration::from_millis(50);
const MAX_INTERVAL: Duration = Duration::from_millis(250);
const FIRST_INTERVAL: Duration = Duration::from_millis(100);
/// What came so long ago is reported no more.
const BACK_WINDOW: Duration = Duration::from_millis(500);

/// The receiver's clock is not the sender's.
const CLOCK_OFFSET: Duration = Duration::from_secs(48_611);

/// Arrivals, and the feedback about them.
#[derive(Debug, Default)]
pub struct Receiver {
    unwrapper: Unwrapper16,
    /// In ticks of 250 µs, by extended number.
    arrivals: BTreeMap<u64, u64>,
    /// The first number of the next feedback.
    next: Option<u64>,
    bytes: usize,
    since: Duration,
    count: u8,
}

impl Receiver {
    pub fn first_feedback(&self) -> Duration {
        FIRST_INTERVAL
    }

    pub fn on_packet(&mut self, now: Duration, sequence: u16, bytes: usize) {
        let sequence = self.unwrapper.unwrap(sequence).0;
        let ticks = |at: Duration| (at.as_micros() / 250) as u64;
        if self.next.is_none_or(|next| sequence < next) {
            self.next = Some(sequence); // late: what followed is repeated
        }
        let old = ticks((now + CLOCK_OFFSET).saturating_sub(BACK_WINDOW));
        while let Some(first) = self.arrivals.first_entry().filter(|first| *first.get() < old) {
            first.remove();
        }
        self.arrivals.insert(sequence, ticks(now + CLOCK_OFFSET));
        self.bytes += bytes;
    }

    /// The feedback that is due, as it goes over the wire, and when the next is.
    pub fn feedback(&mut self, now: Duration) -> (Vec<Vec<u8>>, Duration) {
        let mut datagrams = Vec::new();
        while let Some(next) = self.next {
            let waiting = self.arrivals.range(next..).map(|(&sequence, &ticks)| (sequence, ticks));
            let (numbers, arrivals): (Vec<_>, Vec<_>) = waiting.unzip();
            let Some(&first) = numbers.first() else { break };
            // What is missing before the first arrival is lost; the writer reports numbers left out as lost.
            let leading = (next < first).then_some((next as u16, None));
            let seen = numbers.iter().zip(&arrivals).map(|(&number, &ticks)| (number as u16, Some(ticks)));
            let mut buffer = [0; 1_200];
            let mut writer = RtcpWriter::new(&mut buffer);
            let consumed = writer.transport_feedback(1, 2, self.count, leading.into_iter().chain(seen));
            let len = writer.finish();
            let covered = consumed - usize::from(leading.is_some());
            self.count = self.count.wrapping_add(1);
            let Some(last) = covered.checked_sub(1) else {
                self.next = Some(first); // a gap beyond what one feedback reports
                continue;
            };
            self.next = Some(numbers[last] + 1);
            datagrams.push(buffer[..len].to_vec());
        }
        let elapsed = (now - self.since).max(MIN_INTERVAL).as_secs_f64();
        let rate = self.bytes as f64 * 8.0 / elapsed;
        (self.bytes, self.since) = (0, now);
        let interval = Duration::from_secs_f64((FEEDBACK_BITS / (SHARE * rate.max(1.0))).min(1.0));
        (datagrams, now + interval.clamp(MIN_INTERVAL, MAX_INTERVAL))
    }
}

#[cfg(test)]
mod tests {
    use weir_rtp::rtcp::{Compound, RtcpPacket};

    use super::*;

    fn read(datagrams: &[Vec<u8>]) -> Vec<(u16, bool)> {
        let mut read = Vec::new();
        for datagram in datagrams {
            match Compound::new(datagram).next() {
                Some(Ok(RtcpPacket::TransportFeedback(feedback))) => {
                    read.extend(feedback.packets().map(|(number, arrival)| (number, arrival.is_some())));
                }
                other => panic!("no feedback but {other:?}"),
            }
        }
        read
    }

    #[test]
    fn reports_each_packet_and_late_ones_again() {
        let mut receiver = Receiver::default();
        for (at, number) in [(1, 65_534), (2, 65_535), (3, 1)] {
            receiver.on_packet(Duration::from_millis(at), number, 1_000);
        }
        let (datagrams, next) = receiver.feedback(Duration::from_millis(100));
        assert_eq!(read(&datagrams), [(65_534, true), (65_535, true), (0, false), (1, true)]);
        assert_eq!(next, Duration::from_millis(150));
        assert!(receiver.feedback(Duration::from_millis(150)).0.is_empty());
        receiver.on_packet(Duration::from_millis(160), 0, 1_000);
        assert_eq!(read(&receiver.feedback(Duration::from_millis(200)).0), [(0, true), (1, true)]);
    }

    #[test]
    fn little_traffic_is_reported_rarely() {
        let mut receiver = Receiver::default();
        receiver.on_packet(Duration::from_millis(1), 1, 100);
        assert_eq!(receiver.feedback(Duration::from_millis(100)).1, Duration::from_millis(350));
    }
}
