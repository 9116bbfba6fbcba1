//! What a receiver report says of one ingress stream
//! ([RFC 3550 §6.4.1](https://www.rfc-editor.org/rfc/rfc3550#section-6.4.1)).

use std::time::{Duration, Instant};

use weir_units::media::MediaKind;

/// A sender's clock: which of its RTP timestamps belongs to which instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderClock {
    /// Seconds since 1900, 32.32 fixed point.
    pub ntp: u64,
    pub rtp: u32,
}

/// The fields of a report block, apart from the SSRC, and what they were made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reception {
    /// Packets expected since the previous report, and how many of them are missing.
    pub expected: u64,
    pub lost: u64,
    /// Of the packets expected since the previous report, in 256ths.
    pub fraction_lost: u8,
    /// Within the 24-bit signed range of the field.
    pub cumulative_lost: i32,
    /// Low 32 bits of the extended sequence number.
    pub highest_sequence: u32,
    /// In timestamp units.
    pub jitter: u32,
    /// The middle 32 bits of the last sender report's NTP time; 0 without one.
    pub last_sender_report: u32,
    /// Since that report arrived, in 65,536ths of a second.
    pub delay_since_sender_report: u32,
}

/// Receiver statistics of one SSRC. Retransmissions come on their own SSRC and are not counted here.
#[derive(Clone, Debug)]
pub struct ReceiverStats {
    clock_rate: u32,
    /// The lowest and highest extended numbers seen.
    range: Option<(u64, u64)>,
    received: u64,
    /// Expected and received at the previous report.
    prior: (u64, u64),
    /// Where the stream's timestamps started, on both clocks: transit times are differences to it.
    epoch: Option<(Instant, u32)>,
    transit: i64,
    /// 16 times the jitter, as RFC 3550 A.8 keeps it.
    jitter: u64,
    report: Option<(SenderClock, Instant)>,
}

impl ReceiverStats {
    pub fn new(kind: MediaKind) -> Self {
        Self {
            clock_rate: match kind {
                MediaKind::Audio => 48_000,
                MediaKind::Video => 90_000,
            },
            range: None,
            received: 0,
            prior: (0, 0),
            epoch: None,
            transit: 0,
            jitter: 0,
            report: None,
        }
    }

    /// Notes a packet of this SSRC by its extended sequence number.
    pub fn on_packet(&mut self, now: Instant, sequence: u64, timestamp: u32) {
        let range = self.range.get_or_insert((sequence, sequence));
        let is_newest = sequence >= range.1;
        *range = (range.0.min(sequence), range.1.max(sequence));
        self.received += 1;
        if is_newest {
            self.note_transit(now, timestamp);
        }
    }

    /// The stream's sender report arrived.
    pub fn on_sender_report(&mut self, now: Instant, clock: SenderClock) {
        self.report = Some((clock, now));
    }

    /// The mapping of the last sender report.
    pub fn sender_clock(&self) -> Option<SenderClock> {
        self.report.map(|(clock, _)| clock)
    }

    /// The report block of now; the interval for the fraction starts anew. `None` before the first packet.
    pub fn report(&mut self, now: Instant) -> Option<Reception> {
        let (_, highest) = self.range?;
        let expected = self.expected();
        let expected_now = expected - self.prior.0;
        let lost_now = expected_now.saturating_sub(self.received - self.prior.1);
        self.prior = (expected, self.received);
        let (last_sender_report, delay_since_sender_report) = match self.report {
            Some((clock, arrived)) => {
                ((clock.ntp >> 16) as u32, short_ntp(now.saturating_duration_since(arrived)))
            }
            None => (0, 0),
        };
        Some(Reception {
            expected: expected_now,
            lost: lost_now,
            fraction_lost: (lost_now * 256).checked_div(expected_now).unwrap_or(0).min(255) as u8,
            cumulative_lost: (expected as i64 - self.received as i64).clamp(-0x80_0000, 0x7f_ffff) as i32,
            highest_sequence: highest as u32,
            jitter: u32::try_from(self.jitter >> 4).unwrap_or(u32::MAX),
            last_sender_report,
            delay_since_sender_report,
        })
    }

    /// Packets that should have come.
    fn expected(&self) -> u64 {
        self.range.map_or(0, |(lowest, highest)| highest - lowest + 1)
    }

    /// [RFC 3550 A.8](https://www.rfc-editor.org/rfc/rfc3550#appendix-A.8). Timestamps run modulo 2^32, so only the
    /// difference between two transits counts, brought into range.
    fn note_transit(&mut self, now: Instant, timestamp: u32) {
        let &mut (epoch, first) = self.epoch.get_or_insert((now, timestamp));
        let elapsed =
            now.saturating_duration_since(epoch).as_micros() * u128::from(self.clock_rate) / 1_000_000;
        let transit = i64::from((elapsed as u32).wrapping_sub(timestamp.wrapping_sub(first)));
        let difference = (transit as u32).wrapping_sub(self.transit as u32) as i32;
        self.transit = transit;
        let difference = u64::from(difference.unsigned_abs()).min(u64::from(self.clock_rate));
        self.jitter = self.jitter + difference - ((self.jitter + 8) >> 4);
    }
}

/// In 65,536ths of a second.
fn short_ntp(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos() * 65_536 / 1_000_000_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::start;

    const FIRST: u64 = (1 << 32) - 10;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn an_unheard_stream_has_nothing_to_report() {
        assert_eq!(ReceiverStats::new(MediaKind::Video).report(start()), None);
    }

    #[test]
    fn the_fraction_is_of_the_interval_and_the_count_of_all_time() {
        let (mut stats, now) = (ReceiverStats::new(MediaKind::Video), start());
        for sequence in (FIRST..FIRST + 100).filter(|sequence| sequence % 4 != 0) {
            stats.on_packet(now, sequence, 0);
        }
        let report = stats.report(now).unwrap();
        assert_eq!((report.fraction_lost, report.cumulative_lost), (64, 25));
        assert_eq!((report.expected, report.lost), (100, 25));
        assert_eq!(report.highest_sequence, (FIRST + 99) as u32, "wrapped, as the field does");
        for sequence in FIRST + 100..FIRST + 200 {
            stats.on_packet(now, sequence, 0);
        }
        let report = stats.report(now).unwrap();
        assert_eq!((report.fraction_lost, report.cumulative_lost), (0, 25));
        assert_eq!(stats.report(now).unwrap().fraction_lost, 0, "nothing was expected");
    }

    #[test]
    fn duplicates_never_make_the_fraction_negative() {
        let (mut stats, now) = (ReceiverStats::new(MediaKind::Video), start());
        for sequence in [FIRST, FIRST, FIRST, FIRST + 2] {
            stats.on_packet(now, sequence, 0);
        }
        let report = stats.report(now).unwrap();
        assert_eq!((report.fraction_lost, report.cumulative_lost), (0, -1));
    }

    #[test]
    fn the_sender_report_is_echoed_with_its_age() {
        let (mut stats, now) = (ReceiverStats::new(MediaKind::Audio), start());
        stats.on_packet(now, FIRST, 0);
        stats.on_sender_report(now, SenderClock { ntp: 0x1234_5678_9abc_def0, rtp: 7 });
        let report = stats.report(now + ms(1500)).unwrap();
        assert_eq!(report.last_sender_report, 0x5678_9abc);
        assert_eq!(report.delay_since_sender_report, 65_536 * 3 / 2);
    }

    #[test]
    fn a_steady_stream_has_no_jitter_even_across_the_wrap_of_its_timestamps() {
        let (mut stats, begin) = (ReceiverStats::new(MediaKind::Audio), start());
        for packet in 0..500_u32 {
            let timestamp = (u32::MAX - 48_000).wrapping_add(960 * packet);
            stats.on_packet(begin + ms(20) * packet, FIRST + u64::from(packet), timestamp);
        }
        assert_eq!(stats.report(begin).unwrap().jitter, 0);
    }

    #[test]
    fn jitter_settles_at_the_mean_deviation() {
        let (mut stats, begin) = (ReceiverStats::new(MediaKind::Audio), start());
        for packet in 0..500_u32 {
            let late = if packet % 2 == 0 { ms(0) } else { ms(10) };
            stats.on_packet(begin + ms(20) * packet + late, FIRST + u64::from(packet), 960 * packet);
        }
        let jitter = stats.report(begin).unwrap().jitter;
        assert!((470..=480).contains(&jitter), "10 ms are 480 ticks, not {jitter}");
    }

    proptest! {
        /// Against the definition: lost is what was expected less what came.
        #[test]
        fn agrees_with_the_definition(
            arrivals in proptest::collection::vec((-10..30_i64, any::<u32>(), 0..2000_u64), 1..200),
            report_each in 1..50_usize,
        ) {
            let (mut stats, mut now) = (ReceiverStats::new(MediaKind::Video), start());
            let (mut lowest, mut highest, mut received) = (u64::MAX, 0, 0);
            let (mut prior_expected, mut prior_received) = (0, 0);
            for (at, (relative, timestamp, wait)) in arrivals.into_iter().enumerate() {
                let sequence = highest.max(FIRST).saturating_add_signed(relative);
                (lowest, highest, received) = (lowest.min(sequence), highest.max(sequence), received + 1);
                now += ms(wait);
                stats.on_packet(now, sequence, timestamp);
                if at % report_each == 0 {
                    let report = stats.report(now).unwrap();
                    let expected = highest - lowest + 1;
                    prop_assert_eq!(i64::from(report.cumulative_lost), expected as i64 - received as i64);
                    let lost = (expected - prior_expected) as i64 - (received - prior_received) as i64;
                    let fraction = (lost.max(0) * 256).checked_div((expected - prior_expected) as i64).unwrap_or(0);
                    prop_assert_eq!(i64::from(report.fraction_lost), fraction.min(255));
                    (prior_expected, prior_received) = (expected, received);
                }
            }
        }
    }
}
