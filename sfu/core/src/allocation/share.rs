//! Sharing out a budget.

use std::cmp::Reverse;
use std::time::Instant;

use super::{Ladder, Reason};

/// A step up must leave so much of the budget free: the estimate ripples, and looks for more until a queue grows.
const SPARE: f64 = 0.06;
/// The same for a step that takes less than [`SMALL`] of it: it gains too little to be taken back soon.
const SPARE_OF_SMALL: f64 = 0.12;
const SMALL: f64 = 0.05;
/// For a time nobody rises to a total that did not last, but for what fits so many times and leaves so much free.
const PLENTY: f64 = 2.0;
const PLENTY_SPARE: f64 = 0.15;
/// What is granted is kept while so much of its price is there.
const KEEP_MARGIN: f64 = 0.95;
/// The least of a picture that is being sent is kept even so: to begin it anew costs a key frame, and a short squeeze delays
/// it only.
const LEAST_MARGIN: f64 = 0.6;

/// Who comes first; the greater the sooner. Compared field by field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Importance {
    /// What the client said.
    pub declared: u8,
    /// A shared screen.
    pub is_screen: bool,
    /// Somebody who speaks.
    pub speaks: bool,
    /// The largest picture wished, which is how large it is shown.
    pub size: u8,
}

/// One subscription's part in sharing out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    pub subscription: u32,
    pub importance: Importance,
    pub ladder: Ladder,
    /// The best rung that is wished.
    pub top: usize,
    /// The rung that is granted at present, if any.
    pub present: Option<usize>,
    /// The rung that is being sent: a lesser encoding stands in for the granted one until that has a key frame.
    pub sent: Option<usize>,
    /// When another was last granted.
    pub changed: Option<Instant>,
    /// What came of it.
    pub granted: Option<usize>,
    pub reason: Reason,
}

impl Claim {
    /// What all that is wished of it costs.
    pub fn top_bps(&self) -> Option<u64> {
        self.ladder.rungs().get(self.top).map(|rung| rung.bps)
    }

    /// Whether the next rung is one that it has at present.
    fn keeps(&self) -> bool {
        self.present.zip(self.granted).is_some_and(|(present, granted)| granted < present)
    }

    /// What the next rung costs more than the one that is granted.
    fn next_step(&self) -> f64 {
        self.granted.map_or(0.0, |granted| self.price(granted + 1) - self.price(granted))
    }

    /// What a rung counts for: what one has is cheaper than what one does not have.
    fn price(&self, rung: usize) -> f64 {
        let bps = self.ladder.rungs()[rung].bps as f64;
        match self.present {
            Some(present) if rung <= present => bps * KEEP_MARGIN,
            _ => bps,
        }
    }
}

/// Each in turn takes the next rung, as long as `takes` says so of somebody, with what it costs and what is left.
fn climb(equals: &mut [Claim], left: &mut f64, takes: impl Fn(&Claim, f64, f64) -> bool) {
    loop {
        let mut rose = false;
        for claim in &mut *equals {
            let Some(granted) = claim.granted.filter(|granted| *granted < claim.top) else { continue };
            let more = claim.next_step();
            if takes(claim, more, *left) {
                claim.granted = Some(granted + 1);
                *left -= more;
                rose = true;
            }
        }
        if !rose {
            return;
        }
    }
}

/// What there is to share, in bits a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// What the line carries by the estimate. Within it one keeps what one has.
    pub whole: u64,
    /// Nobody rises beyond this: where the line was full.
    pub met: u64,
    /// Nobody rises to this, unless there is plenty: a total that did not last.
    pub failed: u64,
}

impl Budget {
    /// Whether a step up that costs `more` fits into what is left.
    fn fits(&self, more: f64, left: f64) -> bool {
        let share = if more < self.whole as f64 * SMALL { SPARE_OF_SMALL } else { SPARE };
        self.spares(share, self.met, more, left)
    }

    /// Whether it may be tried.
    fn may_try(&self, more: f64, left: f64) -> bool {
        let is_plenty = || more * PLENTY <= left && self.spares(PLENTY_SPARE, self.met, more, left);
        self.spares(SPARE, self.failed, more, left) || is_plenty()
    }

    fn spares(&self, share: f64, limit: u64, more: f64, left: f64) -> bool {
        let beyond = self.whole.saturating_sub(limit) as f64;
        left - more - beyond >= self.whole as f64 * share
    }
}

/// Shares `budget` among `claims`, which are sorted by importance here, and by subscription where that is equal.
pub(crate) fn share(budget: Budget, claims: &mut [Claim]) {
    claims.sort_unstable_by_key(|claim| (Reverse(claim.importance), claim.subscription));
    let mut left = budget.whole as f64;
    for claim in &mut *claims {
        let least = claim.ladder.rungs()[0].bps as f64;
        let needed = if claim.present.is_some() { least * LEAST_MARGIN } else { least };
        claim.granted = (needed <= left).then_some(0);
        if claim.granted.is_some() {
            left -= claim.price(0).min(left);
        }
    }
    for equals in claims.chunk_by_mut(|one, other| one.importance == other.importance) {
        // What somebody has is kept before an equal rises: to swap would be two changes for nothing. Who has not changed
        // for longest falls first, and rises first, so that nobody swings while others stand.
        equals.sort_unstable_by_key(|claim| (Reverse(claim.changed), claim.subscription));
        climb(equals, &mut left, |claim, more, left| claim.keeps() && more <= left);
        equals.sort_unstable_by_key(|claim| (claim.changed, claim.subscription));
        climb(equals, &mut left, |_, more, left| budget.fits(more, left) && budget.may_try(more, left));
    }
    for claim in &mut *claims {
        claim.reason = match claim.granted {
            None => Reason::Paused,
            Some(granted) if granted >= claim.top => Reason::Wish,
            Some(_) if budget.fits(claim.next_step(), left) => Reason::Patience,
            Some(_) => Reason::Line,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ladder() -> Ladder {
        Ladder::new([(0, [150_000; 4]), (1, [500_000; 4]), (2, [2_000_000; 4])].into_iter(), false)
    }

    fn claim(subscription: u32, top: usize) -> Claim {
        Claim {
            subscription,
            importance: Importance { size: top as u8, ..Importance::default() },
            ladder: ladder(),
            top,
            present: None,
            sent: None,
            changed: None,
            granted: None,
            reason: Reason::Off,
        }
    }

    fn of(whole: u64) -> Budget {
        Budget { whole, met: u64::MAX, failed: u64::MAX }
    }

    fn granted(claims: &[Claim], subscription: u32) -> Option<usize> {
        claims.iter().find(|claim| claim.subscription == subscription).unwrap().granted
    }

    #[test]
    fn a_line_that_carries_all_gives_all() {
        let mut claims = [claim(1, 2), claim(2, 2), claim(3, 0)];
        share(of(10_000_000), &mut claims);
        assert_eq!(claims.iter().filter_map(Claim::top_bps).sum::<u64>(), 4_150_000);
        assert!(claims.iter().all(|claim| claim.granted == Some(claim.top) && claim.reason == Reason::Wish));
    }

    #[test]
    fn everybodys_least_comes_before_more_for_anybody() {
        let mut claims = [claim(1, 2), claim(2, 0), claim(3, 0)];
        share(of(500_000), &mut claims);
        assert!(claims.iter().all(|claim| claim.granted == Some(0)));
        assert_eq!(claims[0].reason, Reason::Line);
    }

    #[test]
    fn the_main_picture_gets_what_thumbnails_leave() {
        let mut claims: Vec<_> = (0..30).map(|at| claim(at, 0)).collect();
        for claim in &mut claims {
            claim.ladder = Ladder::new(std::iter::once((0, [40_000; 4])), false);
        }
        claims.push(claim(99, 2));
        share(of(2_000_000), &mut claims);
        assert_eq!(granted(&claims, 99), Some(1));
        assert!((0..30).all(|at| granted(&claims, at) == Some(0)));
        share(of(3_500_000), &mut claims);
        assert_eq!(granted(&claims, 99), Some(2));
    }

    #[test]
    fn equals_climb_in_turn() {
        let mut claims = [claim(1, 2), claim(2, 2), claim(3, 2)];
        share(of(1_650_000), &mut claims);
        assert_eq!(claims.map(|claim| claim.granted), [Some(1); 3]);
    }

    #[test]
    fn who_speaks_or_is_pinned_or_shows_a_screen_climbs_first() {
        for (speaks, declared, is_screen) in [(true, 0, false), (false, 1, false), (false, 0, true)] {
            let mut claims = [claim(1, 2), claim(2, 2)];
            claims[1].importance.speaks = speaks;
            claims[1].importance.declared = declared;
            claims[1].importance.is_screen = is_screen;
            share(of(2_500_000), &mut claims);
            assert_eq!(granted(&claims, 2), Some(2));
            assert_eq!(granted(&claims, 1), Some(0));
        }
    }

    #[test]
    fn what_is_sent_is_paused_only_when_much_is_missing() {
        let mut claims = [claim(1, 2)];
        share(of(140_000), &mut claims);
        assert_eq!(claims[0].granted, None, "to begin it takes all");
        claims[0].present = Some(0);
        share(of(91_000), &mut claims);
        assert_eq!(claims[0].granted, Some(0));
        share(of(89_000), &mut claims);
        assert_eq!(claims[0].granted, None);
    }

    #[test]
    fn the_least_important_is_paused_first() {
        let mut claims = [claim(1, 2), claim(2, 0)];
        share(of(200_000), &mut claims);
        assert_eq!(granted(&claims, 1), Some(0));
        assert_eq!(granted(&claims, 2), None);
        assert_eq!(claims[1].reason, Reason::Paused);
    }

    #[test]
    fn what_is_granted_survives_a_ripple_and_is_not_taken_back_by_one() {
        let mut claims = [claim(1, 2)];
        share(of(2_040_000), &mut claims);
        assert_eq!(claims[0].granted, Some(1), "a step up wants a margin");
        claims[0].present = Some(2);
        share(of(1_940_000), &mut claims);
        assert_eq!(claims[0].granted, Some(2), "what one has is kept");
        share(of(1_800_000), &mut claims);
        assert_eq!(claims[0].granted, Some(1));
    }

    #[test]
    fn nobody_rises_beyond_where_the_line_was_full() {
        let mut claims = [claim(1, 2)];
        claims[0].present = Some(1);
        share(Budget { met: 2_100_000, ..of(2_300_000) }, &mut claims);
        assert_eq!((claims[0].granted, claims[0].reason), (Some(1), Reason::Line));
        claims[0].present = Some(2);
        share(Budget { met: 2_100_000, ..of(2_300_000) }, &mut claims);
        assert_eq!(claims[0].granted, Some(2), "what one has is kept");
    }

    #[test]
    fn what_did_not_last_is_not_tried_again_but_with_plenty_and_less_is() {
        let mut claims = [claim(1, 2), claim(2, 1)];
        (claims[0].present, claims[1].present) = (Some(1), Some(0));
        let tried = |whole| Budget { failed: 2_200_000, ..of(whole) };
        share(tried(2_900_000), &mut claims);
        assert_eq!((claims[0].granted, claims[0].reason), (Some(1), Reason::Patience));
        assert_eq!(granted(&claims, 2), Some(1), "a total that is no trouble");
        share(tried(9_000_000), &mut claims);
        assert_eq!((claims[0].granted, claims[0].reason), (Some(2), Reason::Wish), "there is no doubt");
    }

    #[test]
    fn equals_take_turns_in_falling_and_in_rising() {
        let now = crate::testing::start();
        let mut claims = [claim(1, 1), claim(2, 1), claim(3, 1)];
        for (claim, second) in claims.iter_mut().zip([3, 1, 2]) {
            claim.present = Some(1);
            claim.changed = Some(now + std::time::Duration::from_secs(second));
        }
        let falls = |claims: &[Claim]| -> Vec<u32> {
            let fallen = claims.iter().filter(|claim| claim.granted < claim.present);
            fallen.map(|claim| claim.subscription).collect()
        };
        share(of(1_150_000), &mut claims);
        assert_eq!(falls(&claims), [2], "who changed longest ago");
        share(of(800_000), &mut claims);
        assert_eq!(falls(&claims), [2, 3]);
        for claim in &mut claims {
            claim.present = Some(0);
        }
        share(of(900_000), &mut claims);
        assert_eq!(
            (granted(&claims, 2), granted(&claims, 3), granted(&claims, 1)),
            (Some(1), Some(0), Some(0))
        );
    }

    proptest! {
        #[test]
        fn no_more_is_shared_out_than_there_is(
            budget in 0_u64..20_000_000,
            tops in prop::collection::vec((0_usize..3, 0_u8..3, prop::option::of(0_usize..3)), 1..40),
        ) {
            let mut claims: Vec<_> = tops.iter().enumerate().map(|(at, (top, declared, present))| {
                let mut claim = claim(at as u32, *top);
                claim.importance.declared = *declared;
                claim.present = *present;
                claim
            }).collect();
            share(of(budget), &mut claims);
            let spent: u64 = claims.iter().filter_map(|claim| Some(claim.ladder.rungs()[claim.granted?].bps)).sum();
            prop_assert!(spent as f64 * LEAST_MARGIN <= budget as f64 + 1.0, "{} of {}", spent, budget);
            prop_assert!(claims.iter().all(|claim| claim.granted.is_none_or(|granted| granted <= claim.top)));
            // Nobody rises while somebody has nothing.
            if claims.iter().any(|claim| claim.granted.is_none()) {
                prop_assert!(claims.iter().all(|claim| claim.granted.is_none_or(|granted| granted == 0)));
            }
        }
    }
}
