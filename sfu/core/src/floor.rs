//! Who has the floor in a conference: whose picture matters more than others'.
//!
//! Speakers come and go with every breath; what is shared out must not. Whoever is among the speakers for a while gets
//! the floor, keeps it through pauses and silence, and leaves it when others have spoken for some seconds, or to make
//! room for one of them.

use std::time::{Duration, Instant};

use weir_units::ids::PeerId;

/// Who talk with each other: more at once is a quarrel, and would leave nobody more than the others.
const SEATS: usize = 3;
/// So many judgements in a row as a speaker, of 400 ms each, make a turn. A laugh or a yes is shorter, though the level
/// that speakers are judged by lingers for one.
const TURN: u8 = 4;
/// Who was silent for so long while others spoke has left the conversation.
const HOLD: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug)]
struct Seat {
    peer: PeerId,
    spoke: Instant,
}

/// The floor of one conference. Bounds: [`SEATS`], and one candidate.
#[derive(Debug, Default)]
pub(crate) struct Floor {
    seats: Vec<Seat>,
    /// The loudest without a seat, and for how many judgements in a row.
    candidate: Option<(PeerId, u8)>,
}

/// What changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Turn {
    pub gained: Option<PeerId>,
    pub lost: [Option<PeerId>; SEATS],
}

impl Floor {
    /// Who speaks now, loudest first.
    pub fn on_speakers(&mut self, now: Instant, speakers: impl Iterator<Item = PeerId>) -> Turn {
        let mut turn = Turn::default();
        let mut loudest = None;
        let mut anybody = false;
        for peer in speakers {
            anybody = true;
            match self.seats.iter_mut().find(|seat| seat.peer == peer) {
                Some(seat) => seat.spoke = now,
                None => loudest = loudest.or(Some(peer)),
            }
        }
        self.candidate = loudest.map(|peer| match self.candidate {
            Some((known, times)) if known == peer => (peer, times.saturating_add(1)),
            _ => (peer, 1),
        });
        if !anybody {
            return turn; // whoever spoke last may go on
        }
        let mut lost = turn.lost.iter_mut();
        self.seats.retain(|seat| {
            let stays = now < seat.spoke + HOLD;
            if !stays && let Some(lost) = lost.next() {
                *lost = Some(seat.peer);
            }
            stays
        });
        if let Some((peer, _)) = self.candidate.filter(|candidate| candidate.1 >= TURN) {
            let oldest = self.seats.iter().copied().enumerate().min_by_key(|(_, seat)| seat.spoke);
            if let Some((at, oldest)) = oldest.filter(|_| self.seats.len() == SEATS) {
                if oldest.spoke == now {
                    return turn; // all of them speak
                }
                self.seats.remove(at);
                turn.lost[0] = Some(oldest.peer);
            }
            self.seats.push(Seat { peer, spoke: now });
            self.candidate = None;
            turn.gained = Some(peer);
        }
        turn
    }

    /// The peer is gone.
    pub fn forget(&mut self, peer: PeerId) {
        self.seats.retain(|seat| seat.peer != peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    const ANNE: PeerId = PeerId(1);
    const BEN: PeerId = PeerId(2);
    const CLEO: PeerId = PeerId(3);
    const DAN: PeerId = PeerId(4);
    const JUDGED: Duration = Duration::from_millis(400);

    struct Room {
        floor: Floor,
        now: Instant,
        turns: usize,
    }

    impl Room {
        fn new() -> Self {
            Self { floor: Floor::default(), now: start(), turns: 0 }
        }

        /// These speak for so many judgements.
        fn speak(&mut self, who: &[PeerId], times: u32) {
            for _ in 0..times {
                self.now += JUDGED;
                let turn = self.floor.on_speakers(self.now, who.iter().copied());
                self.turns += usize::from(turn != Turn::default());
            }
        }

        fn has_floor(&self) -> Vec<PeerId> {
            self.floor.seats.iter().map(|seat| seat.peer).collect()
        }
    }

    #[test]
    fn a_turn_gives_the_floor_and_a_word_does_not() {
        let mut room = Room::new();
        room.speak(&[ANNE], 3);
        room.speak(&[], 1);
        room.speak(&[ANNE], 3);
        assert_eq!(room.has_floor(), []);
        room.speak(&[ANNE], 1);
        assert_eq!(room.has_floor(), [ANNE]);
        assert_eq!(room.turns, 1);
    }

    #[test]
    fn silence_leaves_the_floor_to_who_spoke_last() {
        let mut room = Room::new();
        room.speak(&[ANNE], 5);
        room.speak(&[], 1_000);
        assert_eq!(room.has_floor(), [ANNE]);
        room.speak(&[BEN], 4);
        assert_eq!(room.has_floor(), [BEN], "and then others take it");
    }

    #[test]
    fn those_who_talk_with_each_other_keep_it_and_nothing_flaps() {
        let mut room = Room::new();
        for _ in 0..50 {
            room.speak(&[ANNE], 5);
            room.speak(&[], 2);
            room.speak(&[BEN], 5);
        }
        assert_eq!(room.has_floor(), [ANNE, BEN]);
        assert_eq!(room.turns, 2);
    }

    #[test]
    fn who_has_left_the_conversation_makes_room() {
        let mut room = Room::new();
        for who in [ANNE, BEN, CLEO] {
            room.speak(&[who], 4);
        }
        assert_eq!(room.has_floor(), [ANNE, BEN, CLEO]);
        room.speak(&[DAN], 4);
        assert_eq!(room.has_floor(), [BEN, CLEO, DAN], "who was silent for longest");
        room.speak(&[DAN], 13);
        assert_eq!(room.has_floor(), [DAN], "and who is silent for long");
    }

    #[test]
    fn where_all_with_the_floor_speak_nobody_else_gets_it() {
        let mut room = Room::new();
        for who in [ANNE, BEN, CLEO] {
            room.speak(&[who], 4);
        }
        let turns = room.turns;
        room.speak(&[DAN, ANNE, BEN, CLEO], 10);
        assert_eq!(room.turns, turns);
        room.floor.forget(BEN);
        room.speak(&[DAN, ANNE, CLEO], 1);
        assert_eq!(room.has_floor(), [ANNE, CLEO, DAN]);
    }
}
