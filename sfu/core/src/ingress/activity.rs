//! Whether an encoding or layer is being sent: browsers stop the higher ones without a word when their uplink or
//! processor is short.

use std::time::{Duration, Instant};

/// Silence that means stopped, at camera frame rates. Shorter flaps on a late frame; longer is a frozen picture.
const SILENCE: Duration = Duration::from_millis(500);

/// Slow sources (a shared screen at one frame a second) are given this many of their own frame intervals.
const SILENT_FRAMES: u32 = 4;

/// And never more than this.
const MAX_SILENCE: Duration = Duration::from_secs(3);

/// A layer that stopped soon after it began must show this much life before it counts again, doubled each time.
const FIRST_PROBATION: Duration = Duration::from_millis(250);
const MAX_PROBATION: Duration = Duration::from_secs(4);

/// A life this long clears its record.
const GOOD_LIFE: Duration = Duration::from_secs(10);

/// Life signs of one layer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Activity {
    last: Option<Instant>,
    /// When the present run of packets began.
    since: Option<Instant>,
    /// Smoothed time between frames.
    frame_interval: Duration,
    /// What the present run must last to count.
    probation: Duration,
    /// The next stop is one that we asked for.
    excused: bool,
}

impl Activity {
    /// Notes the first packet of a frame, or any packet where frames don't show. Says whether it is the first after a stop
    /// that we asked for.
    pub fn on_frame(&mut self, now: Instant) -> bool {
        let mut is_asked_for = false;
        match self.last {
            Some(last) if now.saturating_duration_since(last) <= self.patience() => {
                let interval = now.saturating_duration_since(last);
                self.frame_interval = (self.frame_interval * 7 + interval) / 8;
            }
            Some(last) => {
                let life = last.saturating_duration_since(self.since.unwrap_or(last));
                is_asked_for = std::mem::take(&mut self.excused);
                self.probation = if is_asked_for || life >= GOOD_LIFE {
                    Duration::ZERO
                } else {
                    (self.probation * 2).clamp(FIRST_PROBATION, MAX_PROBATION)
                };
                self.since = Some(now);
                // A slow source looks stopped until its interval is known, so what it took counts.
                self.frame_interval = now.saturating_duration_since(last).min(MAX_SILENCE) / SILENT_FRAMES;
            }
            None => self.since = Some(now),
        }
        self.last = Some(now);
        is_asked_for
    }

    /// Nobody wants the layer any more: that it stops then says nothing against it.
    pub fn excuse(&mut self) {
        self.excused = true;
    }

    /// Somebody wants it. If it has not begun or not stopped by now, it is no stop that was asked for that comes.
    pub fn want(&mut self, now: Instant) {
        self.excused &= self.last.is_some() && !self.is_active(now);
    }

    /// Whether somebody may be given this layer. The very first packet suffices.
    pub fn is_active(&self, now: Instant) -> bool {
        let (Some(last), Some(since)) = (self.last, self.since) else { return false };
        now.saturating_duration_since(last) <= self.patience()
            && now.saturating_duration_since(since) >= self.probation
    }

    fn patience(&self) -> Duration {
        (self.frame_interval * SILENT_FRAMES).clamp(SILENCE, MAX_SILENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Frames `interval` apart for `life`; returns when the last one came.
    fn send(activity: &mut Activity, begin: Instant, interval: Duration, life: Duration) -> Instant {
        let mut now = begin;
        while now <= begin + life {
            activity.on_frame(now);
            now += interval;
        }
        now - interval
    }

    #[test]
    fn is_active_from_the_first_packet_until_half_a_second_of_silence() {
        let (mut activity, begin) = (Activity::default(), start());
        assert!(!activity.is_active(begin));
        activity.on_frame(begin);
        assert!(activity.is_active(begin));
        let last = send(&mut activity, begin, ms(33), ms(2000));
        assert!(activity.is_active(last + ms(500)));
        assert!(!activity.is_active(last + ms(501)));
    }

    #[test]
    fn a_source_of_one_frame_a_second_is_active_once_its_pace_is_known() {
        let (mut activity, begin) = (Activity::default(), start());
        let mut now = begin;
        for frame in 0..20 {
            activity.on_frame(now);
            if frame > 3 {
                assert!(activity.is_active(now + ms(999)), "frame {frame}");
            }
            now += ms(1000);
        }
        assert!(!activity.is_active(now + ms(3001)));
    }

    #[test]
    fn a_layer_that_flaps_must_prove_itself_ever_longer() {
        let (mut activity, mut begin) = (Activity::default(), start());
        let mut waits = Vec::new();
        for _ in 0..7 {
            let mut now = begin;
            while !activity.is_active(now) {
                activity.on_frame(now);
                now += ms(33);
            }
            waits.push((now - begin).as_millis() / 100);
            begin = send(&mut activity, now, ms(33), ms(300)) + ms(4000);
        }
        assert!(waits.is_sorted(), "{waits:?}");
        assert_eq!(waits[0], 0);
        assert!((40..43).contains(waits.last().unwrap()), "{waits:?}");
    }

    #[test]
    fn a_long_life_clears_the_record() {
        let (mut activity, begin) = (Activity::default(), start());
        send(&mut activity, begin, ms(33), ms(300));
        let last = send(&mut activity, begin + ms(5000), ms(33), ms(11_000));
        activity.on_frame(last + ms(4000));
        assert!(activity.is_active(last + ms(4000)));
    }

    #[test]
    fn a_stop_is_asked_for_once_and_not_after_a_wish() {
        let (begin, mut activity) = (start(), Activity::default());
        activity.excuse();
        let last = send(&mut activity, begin, ms(33), ms(1_000));
        let mut wanted = activity;
        wanted.want(last + ms(33));
        assert!(!wanted.on_frame(last + ms(4_000)), "it went on, and stopped later");
        activity.want(last + ms(2_000));
        assert!(activity.on_frame(last + ms(4_000)), "it had stopped");
        assert!(!activity.on_frame(last + ms(9_000)));
        let mut unborn = Activity::default();
        unborn.excuse();
        unborn.want(begin);
        unborn.on_frame(begin + ms(100));
        assert!(!unborn.on_frame(begin + ms(1_100)), "a shared screen that stands still");
    }

    #[test]
    fn a_stop_that_was_asked_for_is_held_against_nobody() {
        let (mut activity, mut begin) = (Activity::default(), start());
        for _ in 0..7 {
            activity.on_frame(begin);
            assert!(activity.is_active(begin));
            let last = send(&mut activity, begin, ms(33), ms(300));
            activity.excuse();
            begin = last + ms(4000);
        }
    }
}
