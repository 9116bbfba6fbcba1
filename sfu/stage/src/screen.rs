//! What a subscriber shows, as packets come: when each frame could be decoded, and since when nothing could.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::body::{Body, FrameId};

/// Who waits asks for a key frame: for the first picture soon, later when nothing could be shown for long, and again soon.
/// As libwebrtc does (`kMaxWaitForKeyFrame`, `kMaxWaitForFrame`).
const MAX_WAIT_FOR_KEY_FRAME: Duration = Duration::from_millis(200);
const MAX_WAIT_FOR_FRAME: Duration = Duration::from_secs(3);

/// A frame that was shown (for layered codecs: of one spatial layer).
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    pub at: Instant,
    pub frame: FrameId,
    pub temporal: u8,
    /// In microseconds since the stage began.
    pub captured: u64,
}

#[derive(Clone, Copy, Debug)]
struct Partial {
    body: Body,
    /// Its first packet's number, come or not: frames are shown in the order of the stream.
    index: u64,
    parts: u8,
}

/// Plays decoder while packets come. It keeps what was shown: bound by how long is played.
#[derive(Debug, Default)]
pub struct Screen {
    pub shown: Vec<Shown>,
    /// When the first packet came.
    pub began: Option<Instant>,
    partials: BTreeMap<FrameId, Partial>,
    decoded: BTreeSet<FrameId>,
    last_index: Option<u64>,
    /// The first packet since something was shown.
    waits_since: Option<Instant>,
    asked: Option<Instant>,
}

impl Screen {
    /// A packet that did not come before.
    pub fn on_packet(&mut self, now: Instant, index: u64, body: &Body) {
        self.began.get_or_insert(now);
        self.waits_since.get_or_insert(now);
        let first = index.saturating_sub(body.index.into());
        let fresh = Partial { body: *body, index: first, parts: 0 };
        let partial = self.partials.entry(body.frame).or_insert(fresh);
        // It may be sent anew, as from the ring: then the parts that came before do not count.
        if partial.index < first {
            *partial = fresh;
        }
        partial.parts += u8::from(partial.index == first);
        if partial.parts == body.count {
            while let Some(next) = self.decodable() {
                self.decode(now, next);
            }
        }
    }

    fn decodable(&self) -> Option<FrameId> {
        let is_there = |of: FrameId, need: &(u8, u32)| {
            self.decoded.contains(&FrameId { spatial: need.0, number: need.1, ..of })
        };
        let mut ready: Vec<_> = self
            .partials
            .iter()
            .filter(|(id, partial)| {
                partial.parts == partial.body.count
                    && partial.body.needs.iter().flatten().all(|need| is_there(**id, need))
            })
            .map(|(id, partial)| (partial.index, *id))
            .collect();
        ready.sort_unstable();
        ready.first().map(|(_, id)| *id)
    }

    fn decode(&mut self, now: Instant, id: FrameId) {
        let Some(Partial { body, index, .. }) = self.partials.remove(&id) else { return };
        self.decoded.insert(id);
        if self.last_index.is_some_and(|last| index <= last) {
            return;
        }
        self.last_index = Some(index);
        self.shown.push(Shown { at: now, frame: id, temporal: body.temporal, captured: body.captured });
        (self.waits_since, self.asked) = (None, None);
        if body.is_key {
            self.partials.retain(|_, partial| partial.index > index);
        }
    }

    /// When to ask for a key frame.
    pub fn next_request(&self) -> Option<Instant> {
        let patience = if self.shown.is_empty() { MAX_WAIT_FOR_KEY_FRAME } else { MAX_WAIT_FOR_FRAME };
        let due = self.waits_since? + patience;
        Some(self.asked.map_or(due, |asked| due.max(asked + MAX_WAIT_FOR_KEY_FRAME)))
    }

    pub fn on_request(&mut self, now: Instant) {
        self.asked = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(number: u32, needs: Option<u32>, index: u8, count: u8) -> Body {
        Body {
            frame: FrameId { source: 1, encoding: 0, spatial: 0, number },
            temporal: 0,
            is_key: needs.is_none(),
            index,
            count,
            captured: 0,
            needs: [needs.map(|number| (0, number)), None, None],
            stream: 1,
        }
    }

    fn numbers(screen: &Screen) -> Vec<u32> {
        screen.shown.iter().map(|shown| shown.frame.number).collect()
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "std offers no other way to make an Instant")]
    fn what_is_repaired_is_shown_with_all_that_waited_for_it() {
        let began = Instant::now();
        let at = |millis| began + Duration::from_millis(millis);
        let mut screen = Screen::default();
        screen.on_packet(at(0), 10, &body(0, None, 0, 1));
        screen.on_packet(at(30), 11, &body(1, Some(0), 0, 2));
        screen.on_packet(at(60), 13, &body(2, Some(1), 0, 1));
        assert_eq!(numbers(&screen), [0]);
        assert_eq!(screen.next_request(), Some(at(30) + MAX_WAIT_FOR_FRAME));
        screen.on_packet(at(90), 12, &body(1, Some(0), 1, 2));
        assert_eq!(numbers(&screen), [0, 1, 2]);
        assert!(screen.shown[1..].iter().all(|shown| shown.at == at(90)));
        assert_eq!(screen.next_request(), None);
        screen.on_packet(at(120), 15, &body(4, Some(3), 0, 1));
        screen.on_packet(at(150), 16, &body(5, None, 0, 1));
        screen.on_packet(at(180), 14, &body(3, Some(2), 0, 1));
        assert_eq!(numbers(&screen), [0, 1, 2, 5], "never back");
        screen.on_packet(at(210), 17, &body(6, None, 0, 2));
        screen.on_packet(at(240), 20, &body(6, None, 1, 2));
        assert_eq!(numbers(&screen).len(), 4, "half of one and half of another");
        screen.on_packet(at(270), 19, &body(6, None, 0, 2));
        assert_eq!(numbers(&screen), [0, 1, 2, 5, 6]);
    }
}
