//! What a receiver report says of one ingress stream, and its rates
//! ([RFC 3550 §6.4.1](https://www.rfc-editor.org/rfc/rfc3550#section-6.4.1)).

use std::time::{Duration, Instant};

use weir_units::media::MediaKind;

use super::rate::RateWindow;

/// A sender's clock: which of its RTP timestamps belongs to which instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderClock {
    /// Seconds since 1900, 32.32 fixed point.
    pub ntp: u64,
    pub rtp: u32,
}

/// The fields of a report block, apart from the SSRC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reception {
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
    bytes: u64,
    /// Expected and received at the previous report.
    prior: (u64, u64),
    /// Where the stream's timestamps started, on both clocks: transit times are differences to it.
    epoch: Option<(Instant, u32)>,
    transit: i64,
    /// 16 times the jitter, as RFC 3550 A.8 keeps it.
    jitter: u64,
    report: Option<(SenderClock, Instant)>,
    rate: Option<RateWindow>,
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
            bytes: 0,
            prior: (0, 0),
            epoch: None,
            transit: 0,
            jitter: 0,
            report: None,
            rate: None,
        }
    }

    /// Notes a packet of this SSRC by its extended sequence number. `len` is the whole packet's, in bytes.
    pub fn on_packet(&mut self, now: Instant, sequence: u64, timestamp: u32, len: usize) {
        let range = self.range.get_or_insert((sequence, sequence));
        let is_newest = sequence >= range.1;
        *range = (range.0.min(sequence), range.1.max(sequence));
        self.received += 1;
        self.bytes += len as u64;
        self.rate.get_or_insert_with(|| RateWindow::new(now)).add(now, len);
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
            fraction_lost: (lost_now * 256).checked_div(expected_now).unwrap_or(0).min(255) as u8,
            cumulative_lost: (expected as i64 - self.received as i64).clamp(-0x80_0000, 0x7f_ffff) as i32,
            highest_sequence: highest as u32,
            jitter: u32::try_from(self.jitter >> 4).unwrap_or(u32::MAX),
            last_sender_report,
            delay_since_sender_report,
        })
    }

    /// Packets that should have come.
    pub fn expected(&self) -> u64 {
        self.range.map_or(0, |(lowest, highest)| highest - lowest + 1)
    }

    /// Packets that came, duplicates included.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Bytes of all packets.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn jitter(&self) -> Duration {
        Duration::from_secs(1) * u32::try_from(self.jitter >> 4).unwrap_or(u32::MAX) / self.clock_rate
    }

    /// Bits a second over the last second.
    pub fn bit_rate(&mut self, now: Instant) -> u64 {
        self.rate.as_mut().map_or(0, |rate| rate.bit_rate(now))
    }

    /// Packets a second over the last second.
    pub fn packet_rate(&mut self, now: Instant) -> u64 {
        self.rate.as_mut().map_or(0, |rate| rate.packet_rate(now))
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
