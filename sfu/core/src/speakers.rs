//! Who speaks in a conference, from the audio levels that publishers write into their packets
//! ([RFC 6464](https://www.rfc-editor.org/rfc/rfc6464)). Nothing is decoded.

use std::time::{Duration, Instant};

use weir_units::ids::PublicationId;

/// How often levels are judged: fast enough to follow a conversation, slow enough not to flicker.
pub const INTERVAL: Duration = Duration::from_millis(400);

/// A packet this loud or louder is speech, in -dBov: 0 is the loudest, 127 silence.
const ACTIVE_LEVEL: u8 = 35;

/// Speech must fill this share of the interval: a door or a cough does not.
const MIN_ACTIVE_MS: u32 = 400 * 40 / 100;

/// Weight of the newest interval: 2 / (n + 1) for smoothing over n = 2.
const SMOOTHING: f32 = 2.0 / 3.0;

/// What one packet stands for: the frame of every client we know.
const PACKET_MS: u32 = 20;

/// Publications watched at a time. One costs 24 bytes; beyond, the newcomers are not detected.
const MAX_WATCHED: usize = 1024;

/// Speakers named at a time: more at once is noise.
pub const MAX_SPEAKERS: usize = 32;

/// Below this nothing is left to decay: the publication is forgotten.
const FORGOTTEN: f32 = 0.001;

#[derive(Clone, Copy, Debug)]
struct Watched {
    publication: PublicationId,
    /// Smoothed, linear from 0 to 1.
    level: f32,
    /// Of the present interval.
    active_ms: u16,
    /// The loudest packet of the present interval, in -dBov.
    loudest: u8,
}

/// The levels of one conference. Samples come in any order; a timer calls [`Self::tick`].
///
/// `watched` is sorted by publication; bound: [`MAX_WATCHED`].
#[derive(Debug)]
pub struct ActiveSpeakers {
    watched: Vec<Watched>,
    speakers: Vec<(PublicationId, f32)>,
    due: Option<Instant>,
}

impl ActiveSpeakers {
    pub fn new(_now: Instant) -> Self {
        Self { watched: Vec::new(), speakers: Vec::new(), due: None }
    }

    /// Notes a packet's level in -dBov, as the extension has it. Says when [`Self::tick`] is due if that is news.
    pub fn sample(&mut self, now: Instant, publication: PublicationId, level: u8) -> Option<Instant> {
        if level > ACTIVE_LEVEL {
            return None; // silence needs no entry: levels decay by themselves
        }
        let at = match self.watched.binary_search_by_key(&publication, |watched| watched.publication) {
            Ok(at) => at,
            Err(_) if self.watched.len() == MAX_WATCHED => return None,
            Err(at) => {
                self.watched.insert(at, Watched { publication, level: 0.0, active_ms: 0, loudest: 127 });
                at
            }
        };
        let watched = &mut self.watched[at];
        watched.active_ms = watched.active_ms.saturating_add(PACKET_MS as u16);
        watched.loudest = watched.loudest.min(level);
        if self.due.is_some() {
            return None;
        }
        self.due = Some(now + INTERVAL);
        self.due
    }

    /// When [`Self::tick`] is due; `None` in silence.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Closes the interval: who speaks, loudest first, linear from 0 to 1, if that or a level changed.
    pub fn tick(&mut self, now: Instant) -> Option<&[(PublicationId, f32)]> {
        if self.due? > now {
            return None;
        }
        let had_speakers = !self.speakers.is_empty();
        self.speakers.clear();
        for watched in &mut self.watched {
            watched.level += SMOOTHING * (watched.interval_level() - watched.level);
            (watched.active_ms, watched.loudest) = (0, 127);
            if watched.level >= linear(f32::from(ACTIVE_LEVEL)) {
                self.speakers.push((watched.publication, watched.level));
            }
        }
        self.watched.retain(|watched| watched.level >= FORGOTTEN);
        self.speakers.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        self.speakers.truncate(MAX_SPEAKERS);
        self.due = (!self.watched.is_empty()).then(|| now + INTERVAL);
        (had_speakers || !self.speakers.is_empty()).then_some(&self.speakers[..])
    }

    /// The publication is gone or muted. It is not named again; who watches the list learns of it by other ways.
    pub fn forget(&mut self, publication: PublicationId) {
        self.watched.retain(|watched| watched.publication != publication);
        self.speakers.retain(|speaker| speaker.0 != publication);
    }
}

impl Watched {
    /// The loudest packet, less the share of the interval that was silent.
    fn interval_level(&self) -> f32 {
        let active = u32::from(self.active_ms);
        if active < MIN_ACTIVE_MS {
            return 0.0;
        }
        let share = (active as f32 / INTERVAL.as_millis() as f32).min(1.0);
        linear(f32::from(self.loudest) - 20.0 * share.log10())
    }
}

/// From -dBov to linear, 1 being the loudest.
fn linear(level: f32) -> f32 {
    10_f32.powf(-level / 20.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    const ANNE: PublicationId = PublicationId(1);
    const BEN: PublicationId = PublicationId(2);

    /// One interval of packets, each (publication, level, how many).
    fn interval(
        speakers: &mut ActiveSpeakers,
        now: &mut Instant,
        packets: &[(PublicationId, u8, u32)],
    ) -> Option<Vec<(PublicationId, f32)>> {
        for &(publication, level, count) in packets {
            for _ in 0..count {
                speakers.sample(*now, publication, level);
            }
        }
        *now += INTERVAL;
        speakers.tick(*now).map(<[_]>::to_vec)
    }

    fn names(speakers: Option<Vec<(PublicationId, f32)>>) -> Option<Vec<PublicationId>> {
        speakers.map(|speakers| speakers.into_iter().map(|speaker| speaker.0).collect())
    }

    #[test]
    fn a_speaker_is_named_after_one_interval() {
        let mut now = start();
        let mut speakers = ActiveSpeakers::new(now);
        assert_eq!(speakers.next_timeout(), None);
        assert_eq!(speakers.sample(now, ANNE, 20), Some(now + INTERVAL));
        assert_eq!(speakers.sample(now, ANNE, 20), None);
        assert!(speakers.tick(now + INTERVAL / 2).is_none());
        let found = interval(&mut speakers, &mut now, &[(ANNE, 20, 18)]).unwrap();
        assert_eq!(found.len(), 1);
        assert!(
            (found[0].1 - 0.1 * 2.0 / 3.0).abs() < 0.001,
            "{found:?}: 20 dB down, two thirds of the weight"
        );
    }

    #[test]
    fn the_loudest_comes_first() {
        let mut now = start();
        let mut speakers = ActiveSpeakers::new(now);
        let found = interval(&mut speakers, &mut now, &[(ANNE, 25, 20), (BEN, 10, 20)]);
        assert_eq!(names(found), Some(vec![BEN, ANNE]));
    }

    #[test]
    fn a_short_noise_is_not_speech() {
        let mut now = start();
        let mut speakers = ActiveSpeakers::new(now);
        assert_eq!(names(interval(&mut speakers, &mut now, &[(ANNE, 5, 7)])), None);
        assert_eq!(names(interval(&mut speakers, &mut now, &[(ANNE, 5, 8)])), Some(vec![ANNE]));
    }

    #[test]
    fn quiet_packets_do_not_count() {
        let mut now = start();
        let mut speakers = ActiveSpeakers::new(now);
        assert_eq!(interval(&mut speakers, &mut now, &[(ANNE, 36, 20), (BEN, 127, 20)]), None);
        assert_eq!(speakers.next_timeout(), None, "silence needs no timer");
    }

    #[test]
    fn who_stops_is_gone_within_a_few_intervals_and_that_is_told_once() {
        let mut now = start();
        let mut speakers = ActiveSpeakers::new(now);
        for _ in 0..5 {
            interval(&mut speakers, &mut now, &[(ANNE, 20, 20)]);
        }
        let mut told = Vec::new();
        while speakers.next_timeout().is_some() {
            told.push(names(interval(&mut speakers, &mut now, &[])));
            assert!(told.len() < 10);
        }
        let empty = told.iter().position(|names| names.as_deref() == Some(&[])).unwrap();
        assert!(empty <= 3, "{told:?}");
        assert!(told[empty + 1..].iter().all(Option::is_none), "{told:?}");
        assert!(speakers.watched.is_empty());
    }

    #[test]
    fn a_pause_for_breath_keeps_the_speaker() {
        let mut now = start();
        let mut speakers = ActiveSpeakers::new(now);
        interval(&mut speakers, &mut now, &[(ANNE, 20, 20)]);
        assert_eq!(names(interval(&mut speakers, &mut now, &[])), Some(vec![ANNE]));
    }

    #[test]
    fn the_forgotten_are_not_named() {
        let mut now = start();
        let mut speakers = ActiveSpeakers::new(now);
        interval(&mut speakers, &mut now, &[(ANNE, 20, 20), (BEN, 20, 20)]);
        speakers.forget(ANNE);
        assert_eq!(names(interval(&mut speakers, &mut now, &[])), Some(vec![BEN]));
    }

    #[test]
    fn a_crowd_is_bounded() {
        let mut now = start();
        let mut speakers = ActiveSpeakers::new(now);
        let crowd: Vec<_> = (0..5000).map(|id| (PublicationId(id), 10 + (id % 20) as u8, 20)).collect();
        let found = interval(&mut speakers, &mut now, &crowd).unwrap();
        assert_eq!((found.len(), speakers.watched.len()), (MAX_SPEAKERS, MAX_WATCHED));
        assert!(found.iter().all(|speaker| speaker.0.0 % 20 < 2), "the loudest");
        assert!(found.is_sorted_by(|a, b| a.1 >= b.1));
    }
}
