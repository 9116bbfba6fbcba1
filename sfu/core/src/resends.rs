//! How often, and how much, one subscription is sent again.

use std::time::{Duration, Instant};

use weir_units::media::MediaKind;

use crate::ring::RingLimits;

/// A packet asked for again sooner than this was asked for twice, not lost twice. Round trips below it are those of a
/// local network, where nothing is gained by more haste.
const SPACING: Duration = Duration::from_millis(15);
/// How often one packet is sent again. Some receivers do not count what comes on the retransmission stream, and go on
/// asking every 100 ms until the packet leaves their window: answering every time doubled what they were sent.
const MAX_TIMES: u16 = 4;
/// So many bytes may be sent again of a stream that sent nothing of late: two dozen packets, as of a shared screen's last
/// change. More would be worth asking for to whoever wants a victim's line filled.
const FLOOR: usize = 32 * 1024;
/// How long what went again is counted against what went before it.
const WINDOW: Duration = Duration::from_secs(1);

/// What was sent again of one subscription lately. Owns no memory before the first; bound: [`RingLimits::packets`] entries
/// of 8 bytes.
#[derive(Debug)]
pub(crate) struct Resends {
    /// As many as a ring holds: whoever asks for many does not make it forget any.
    len: usize,
    /// By egress number modulo `len`.
    recent: Vec<Resent>,
    began: Option<Instant>,
    allowance: Allowance,
}

#[derive(Clone, Copy, Debug, Default)]
struct Resent {
    /// Low half of the egress number.
    number: u32,
    /// When it last went, in milliseconds modulo 2^16: before they come round no ring holds it any more.
    at: u16,
    /// Zero where there is none.
    times: u16,
}

impl Resends {
    pub fn new(kind: MediaKind) -> Self {
        let limits = match kind {
            MediaKind::Audio => RingLimits::AUDIO,
            MediaKind::Video => RingLimits::VIDEO,
        };
        Self { len: limits.packets, recent: Vec::new(), began: None, allowance: Allowance::default() }
    }

    /// So many bytes were sent again.
    pub fn on_again(&mut self, bytes: usize) {
        self.allowance.resent += bytes;
    }

    /// Whether a packet may be sent again, when `octets` have been sent for the first time so far (modulo 2^32); counts that
    /// it is.
    pub fn may(&mut self, now: Instant, number: u64, octets: u32) -> bool {
        if !self.allowance.is_left(now, octets) {
            return false;
        }
        if self.recent.is_empty() {
            self.recent = vec![Resent::default(); self.len];
        }
        let began = *self.began.get_or_insert(now);
        let at = now.saturating_duration_since(began).as_millis() as u16;
        let entry = &mut self.recent[number as usize % self.len];
        let times = if entry.number == number as u32 { entry.times } else { 0 };
        let is_soon = times > 0 && u128::from(at.wrapping_sub(entry.at)) < SPACING.as_millis();
        if is_soon || times == MAX_TIMES {
            return false;
        }
        *entry = Resent { number: number as u32, at, times: times + 1 };
        true
    }
}

/// How many bytes may be sent again: as many as were sent since the window before, and [`FLOOR`]. It is reckoned when
/// somebody asks, so that it costs nothing where packets are forwarded; what went long ago is bounded by the ring.
#[derive(Debug, Default)]
struct Allowance {
    since: Option<Instant>,
    /// What had been sent for the first time when the window began, and how much of that since the one before.
    octets: u32,
    before: u32,
    /// Sent again in the window.
    resent: usize,
}

impl Allowance {
    fn is_left(&mut self, now: Instant, octets: u32) -> bool {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW) {
            *self = Self { since: Some(now), octets, before: octets.wrapping_sub(self.octets), resent: 0 };
        }
        let sent = octets.wrapping_sub(self.octets);
        self.resent < self.before.max(sent) as usize + FLOOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    #[test]
    fn a_packet_is_sent_again_at_intervals_and_not_for_ever() {
        let (mut resends, start) = (Resends::new(MediaKind::Video), start());
        assert!(resends.may(start, 7, 0));
        assert!(!resends.may(start + SPACING / 2, 7, 0), "asked for twice, not lost twice");
        let mut sent = 1;
        for time in 1..=50 {
            sent += u16::from(resends.may(start + time * SPACING, 7, 0));
        }
        assert_eq!(sent, MAX_TIMES);
        assert!(resends.may(start, 8, 0), "others are counted apart");
    }

    #[test]
    fn who_asks_for_all_there_is_has_each_as_often_and_no_oftener() {
        for (kind, packets) in [(MediaKind::Video, 1_024), (MediaKind::Audio, 128)] {
            let (mut resends, start) = (Resends::new(kind), start());
            let mut sent = 0;
            for time in 0..50 {
                let now = start + time * SPACING / 5;
                sent +=
                    (0..packets).filter(|number| resends.may(now, (1 << 32) - 9 + number, 0)).count() as u64;
            }
            assert_eq!(sent, packets * u64::from(MAX_TIMES));
            assert!(resends.recent.capacity() * size_of::<Resent>() <= 8 * packets as usize);
        }
    }

    #[test]
    fn as_much_may_go_again_as_went_since_the_window_before_and_a_little() {
        let (mut allowance, start) = (Allowance::default(), start());
        let spend = |allowance: &mut Allowance, now, octets| {
            let mut spent = 0;
            while allowance.is_left(now, octets) {
                (spent, allowance.resent) = (spent + 1_000, allowance.resent + 1_000);
            }
            spent
        };
        let floor = FLOOR.next_multiple_of(1_000);
        let mut octets = 0_u32;
        assert_eq!(spend(&mut allowance, start, octets), floor, "nothing was sent yet");
        octets = octets.wrapping_add(500_000);
        assert_eq!(spend(&mut allowance, start, octets), 500_000);
        let next = start + WINDOW;
        assert!((500_000..540_000).contains(&spend(&mut allowance, next, octets)));
        assert_eq!(spend(&mut allowance, next + WINDOW / 2, octets), 0);
        assert_eq!(spend(&mut allowance, next + WINDOW, octets), floor);
        allowance.octets = u32::MAX - 99_999;
        assert_eq!(spend(&mut allowance, next + 2 * WINDOW, 0), 100_000 + floor, "the count wraps");
    }
}
