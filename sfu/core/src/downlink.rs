//! What one peer's line carries, and what waits for it.
//!
//! One `Estimator` numbers what leaves for a peer and reads its feedback, or `Reported` judges by what a peer reports that
//! has no such feedback to give; one `Pacer` says when a packet may go; what may not go yet waits here by its name and
//! stays in its ring. Audio never waits, and nothing is copied.

use std::collections::VecDeque;
use std::time::Duration;

use weir_rate::{
    Because, BitRate, Class, Estimator, Explanation, FIRST_NUMBER, Limits, Pacer, Reported, Time,
};
use weir_rtp::rtcp::TransportFeedback;

use crate::subscription::Subscription;

/// The estimate before anything is known. Little enough for a poor line to survive until the first feedback, enough to
/// send a small picture's key frame at once; probes ask for more within the first round trip.
const START: BitRate = BitRate::from_kbps(1_000);
/// Names that wait: the pictures of some 300 ms at 30 Mbit/s. More would come too late to be of use.
pub(crate) const MAX_WAITING: usize = 1_024;
/// Packets to be sent again that wait. Who misses more asks once more.
const MAX_WAITING_AGAIN: usize = 64;
/// Names know no sizes; pictures' packets are mostly about so long, in bytes.
const TYPICAL: u64 = 1_000;
/// After a layer was left in a hurry nothing but audio is sent for so long: what is under way fills the queue before the
/// line to the brim, and what comes next, a key frame, would be lost at it.
const HOLD: Duration = Duration::from_millis(50);
/// A packet that waited longer is not sent: its picture is past, and what follows waits behind it.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// So many names of one encoding that wait are given up when a key frame makes them needless.
const NEEDLESS: usize = 16;
/// Without any feedback for so long after the first packet the peer has none to give: nothing is held back.
const PATIENCE: Duration = Duration::from_secs(2);
/// A first probe beside what is sent has come back within this, over nearly any line.
const YOUNG: Duration = Duration::from_secs(1);
/// A picture that nobody knows the line to carry is tried for so long: until probes beside it tell.
const TRIAL: Duration = Duration::from_secs(1);
/// What a packet has around it: UDP, and IP of version 4, in bytes. Six's 20 more are in the margin.
pub(crate) const BELOW_RTP: usize = 28;
/// So much may leave at once while all that is wanted has room: what a publisher sends together stays together, in one
/// run. When room is short it is [`SHORT_BURST`], so that audio does not wait behind pictures.
const LONG_BURST: Duration = Duration::from_millis(40);
const SHORT_BURST: Duration = Duration::from_millis(5);

/// A packet that waits for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub subscription: u32,
    pub encoding: u8,
    pub sequence: u64,
    /// Tells pictures apart.
    pub timestamp: u32,
    /// What stood before it was given up: the stream begins anew with it.
    pub begins: bool,
    pub since: Time,
}

/// The share of the rate at which a line was full that it carries without a queue.
const OF_MET: f64 = 0.97;
/// An estimate beyond so many times of it is of another line.
const WIDER: f64 = 1.1;

/// One peer's line; see the module's description. Bound: [`MAX_WAITING`] names, and [`MAX_WAITING_AGAIN`].
///
/// What each packet asks for comes first, in the order of memory: that of a hundred peers is not near.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Downlink {
    queues: Queues,
    /// Stands for the estimator where the peer numbers no arrivals.
    reported: Option<Box<Reported>>,
    pacer: Pacer,
    first_sent: Option<Time>,
    /// When there last was nothing with which to look for more.
    blind: Option<Time>,
    heard: bool,
    /// When it is looked at again at the latest.
    awaited: Time,
    estimator: Estimator,
}

/// What may not go yet.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Queues {
    waiting: VecDeque<Waiting>,
    /// What is to be sent again, before all that: a subscription, and a number that it was sent under.
    again: VecDeque<(u32, u16)>,
}

impl Downlink {
    pub fn new(now: Time) -> Self {
        let limits = Limits { start: START, ..Limits::default() };
        let mut pacer = Pacer::new(now, START);
        pacer.set_burst(LONG_BURST);
        Self {
            reported: None,
            pacer,
            first_sent: None,
            blind: None,
            heard: false,
            awaited: Time::NEVER,
            queues: Queues::default(),
            estimator: Estimator::new(now, limits),
        }
    }

    /// Of a peer that numbers no arrivals, and now told what it makes of its line itself.
    pub fn of_estimate(now: Time, estimate: BitRate) -> Self {
        let mut line = Self::new(now);
        let reported = Reported::new(now, Limits::default(), estimate);
        line.pacer.set_target(reported.target());
        (line.reported, line.heard) = (Some(Box::new(reported)), true);
        line
    }

    /// Whether it is judged by what the peer reports, without transport-wide numbers.
    pub fn is_reported(&self) -> bool {
        self.reported.is_some()
    }

    /// A packet of `bytes` leaves, all headers included, without a transport-wide number.
    pub fn on_sent_unnumbered(&mut self, now: Time, bytes: usize) {
        self.pacer.on_sent(now, bytes);
        if let Some(reported) = &mut self.reported {
            reported.on_sent(now, bytes);
        }
    }

    pub fn on_estimate(&mut self, now: Time, estimate: BitRate) {
        if let Some(reported) = &mut self.reported {
            reported.on_estimate(now, estimate);
            self.after_news(now);
        }
    }

    /// Of `packets` that were sent this share is reported lost.
    pub fn on_report(&mut self, now: Time, packets: u32, share: f64) {
        if let Some(reported) = &mut self.reported {
            reported.on_report(now, packets, share);
            self.after_news(now);
        }
    }

    /// A packet of `bytes` leaves, all headers included. Answers its transport-wide number.
    #[inline]
    pub fn on_sent(&mut self, now: Time, bytes: usize) -> u16 {
        let cluster = self.pacer.on_sent(now, bytes);
        let number = self.estimator.on_sent(now, bytes, cluster);
        if number == FIRST_NUMBER {
            self.first_sent.get_or_insert(now);
        }
        number
    }

    pub fn on_feedback(&mut self, now: Time, feedback: &TransportFeedback<'_>) {
        self.heard = true;
        self.estimator.on_feedback(now, feedback);
        self.after_news(now);
    }

    /// What is in force after feedback, a timeout or another wish.
    fn after_news(&mut self, now: Time) {
        if let Some(reported) = &self.reported {
            self.pacer.set_target(reported.target());
            return;
        }
        self.pacer.set_target(self.estimator.target());
        if self.is_limited(now) {
            while let Some(cluster) = self.estimator.poll_probe(now) {
                self.pacer.probe(now, cluster);
            }
        }
    }

    /// Whether there is an estimate to keep to. Peers that never give feedback are sent what they wish.
    pub fn is_limited(&self, now: Time) -> bool {
        self.heard || self.first_sent.is_none_or(|first| now < first + PATIENCE)
    }

    /// What the peer would be sent if the line carried it, and whether it carries all that.
    pub fn set_wanted(&mut self, now: Time, wanted: BitRate, has_room: bool) {
        self.estimator.set_wanted(wanted);
        self.pacer.set_burst(if has_room { LONG_BURST } else { SHORT_BURST });
        self.after_news(now);
    }

    /// What may be shared out among subscriptions; `None` is without bound.
    pub fn available(&self, now: Time) -> Option<BitRate> {
        if let Some(reported) = &self.reported {
            return Some(reported.target());
        }
        self.is_limited(now).then(|| self.estimator.sustainable())
    }

    /// Whether no more is sent than `wanted`, and nothing waits.
    pub fn is_at_ease(&self, wanted: BitRate) -> bool {
        self.queues.waiting.is_empty() && self.estimator.sent() <= wanted
    }

    /// A little under the rate at which the line was full of late, unless it has shown since that it carries more. An
    /// estimate looks for more until a queue grows; whoever steps up on such a promise soon steps down again.
    pub fn met(&self) -> Option<BitRate> {
        if self.is_reported() {
            return None;
        }
        let sustainable = self.estimator.sustainable();
        let met = self.estimator.capacity().filter(|met| sustainable < met.scaled(WIDER))?;
        Some(met.scaled(OF_MET))
    }

    /// Whether nothing is known of the line yet but [`START`], though something soon will be.
    pub fn is_guess(&self, now: Time) -> bool {
        let is_young = self.first_sent.is_none_or(|first| now < first + YOUNG);
        is_young && !self.is_reported() && self.estimator.is_guess()
    }

    /// Whether to send a picture though the line is not known to carry it: without one nothing more would ever be known.
    /// `is_blind` is whether there is nothing at present with which to look for more. Of a line that is judged by reports
    /// more becomes known in time.
    pub fn tries(&mut self, now: Time, is_blind: bool) -> bool {
        if self.is_reported() {
            return false;
        }
        if is_blind {
            self.blind = Some(now);
        }
        let is_trial = self.blind.is_some_and(|at| now.saturating_duration_since(at) < TRIAL);
        is_trial
            && !matches!(self.estimator.explain().because, Because::Drain | Because::Loss | Because::Silence)
    }

    /// Whether a picture's packet may leave now, ahead of nothing that waits.
    #[inline]
    pub fn passes(&self, now: Time) -> bool {
        self.queues.waiting.is_empty()
            && self.queues.again.is_empty()
            && (self.pacer.when(now, Class::Video) <= now || !self.is_limited(now))
    }

    /// Whether a packet may be sent again now, ahead of nothing that is to be.
    pub fn passes_again(&self, now: Time) -> bool {
        self.queues.again.is_empty() && self.is_due_again(now)
    }

    fn is_due_again(&self, now: Time) -> bool {
        self.pacer.when(now, Class::Retransmission) <= now || !self.is_limited(now)
    }

    /// Lets a packet wait to be sent again, unless it does or too many do.
    pub fn wait_again(&mut self, subscription: u32, number: u16) {
        if self.queues.again.len() < MAX_WAITING_AGAIN && !self.queues.again.contains(&(subscription, number))
        {
            self.queues.again.push_back((subscription, number));
        }
    }

    /// The next that may be sent again now.
    pub fn take_due_again(&mut self, now: Time) -> Option<(u32, u16)> {
        self.is_due_again(now).then(|| self.queues.again.pop_front()).flatten()
    }

    /// A layer was left in a hurry.
    pub fn hold(&mut self, now: Time) {
        self.pacer.hold(now + HOLD);
    }

    /// Whether so many packets more may wait.
    pub fn has_room_for(&self, packets: usize) -> bool {
        self.queues.waiting.len() + packets <= MAX_WAITING
    }

    /// Lets a packet wait. False if too many do.
    pub fn wait(&mut self, waiting: Waiting) -> bool {
        let has_room = self.has_room_for(1);
        if has_room {
            self.queues.waiting.push_back(waiting);
        }
        has_room
    }

    /// Lets packets that follow `first` in its encoding go before all that waits, but for those that wait already. False
    /// if there is no room for all.
    pub fn wait_first(&mut self, first: &Waiting, names: impl DoubleEndedIterator<Item = Waiting>) -> bool {
        let place = |name: &Waiting| usize::try_from(name.sequence.checked_sub(first.sequence)?).ok();
        let mut waits = [false; MAX_WAITING];
        let of_it =
            |name: &&Waiting| (name.subscription, name.encoding) == (first.subscription, first.encoding);
        for waiting in self.queues.waiting.iter().filter(of_it) {
            if let Some(waits) = place(waiting).and_then(|place| waits.get_mut(place)) {
                *waits = true;
            }
        }
        for name in names.rev() {
            match place(&name).and_then(|place| waits.get(place)) {
                Some(true) => {}
                Some(false) if self.queues.waiting.len() < MAX_WAITING => {
                    self.queues.waiting.push_front(name)
                }
                _ => return false,
            }
        }
        true
    }

    /// The next that may go now.
    pub fn take_due(&mut self, now: Time) -> Option<Waiting> {
        let due = self.pacer.when(now, Class::Video) <= now || !self.is_limited(now);
        due.then(|| self.queues.waiting.pop_front()).flatten()
    }

    /// Whether it waited too long to be of use.
    pub fn is_stale(waiting: &Waiting, now: Time) -> bool {
        now.saturating_duration_since(waiting.since) > MAX_WAIT
    }

    /// Whether so much of an encoding waits that a key frame of it makes all that needless.
    pub fn is_needless(&self, subscription: u32, encoding: u8) -> bool {
        let of_it = |name: &&Waiting| name.subscription == subscription && name.encoding == encoding;
        self.queues.waiting.len() >= NEEDLESS && self.queues.waiting.iter().filter(of_it).count() >= NEEDLESS
    }

    /// About how many bytes of pictures wait.
    pub fn backlog(&self) -> u64 {
        self.queues.waiting.len() as u64 * TYPICAL
    }

    /// Whether a packet waits already.
    pub fn holds(&self, subscription: u32, encoding: u8, sequence: u64) -> bool {
        let is_it = |name: &Waiting| {
            (name.subscription, name.encoding, name.sequence) == (subscription, encoding, sequence)
        };
        self.queues.waiting.iter().any(is_it)
    }

    /// Whether much of a subscription waits.
    pub fn is_behind(&self, subscription: u32) -> bool {
        self.queues.waiting.iter().filter(|name| name.subscription == subscription).count() >= NEEDLESS
    }

    /// Nothing of the subscription of this number waits any more but the rest of its picture of which part has left. What
    /// is forgotten is skipped: nothing may be sent as if it followed.
    pub fn forget_all_but_begun(&mut self, number: u32, subscription: &mut Subscription) {
        let begun = subscription.begun();
        self.queues.waiting.retain(|name| {
            let stays = name.subscription != number || Some((name.encoding, name.timestamp)) == begun;
            if !stays {
                subscription.skip(name.encoding, name.sequence);
            }
            stays
        });
    }

    /// A subscription goes: nothing of it waits any more.
    pub fn forget(&mut self, subscription: u32) {
        self.queues.waiting.retain(|name| name.subscription != subscription);
        self.queues.again.retain(|name| name.0 != subscription);
    }

    /// How many bytes of padding a probe wants now.
    pub fn padding(&mut self, now: Time) -> Option<usize> {
        if self.is_limited(now) { self.pacer.padding(now) } else { None }
    }

    /// When [`Self::handle_timeout`], [`Self::take_due`] or [`Self::padding`] have something to do.
    pub fn next_timeout(&self, now: Time) -> Time {
        let patience = self.first_sent.filter(|_| !self.heard).map(|first| first + PATIENCE);
        let patience = patience.filter(|at| *at > now).unwrap_or(Time::NEVER);
        let news = match &self.reported {
            Some(reported) => reported.next_timeout(),
            None => self.estimator.next_timeout(),
        };
        self.next_turn(now).min(news).min(patience)
    }

    /// The alarm of [`Self::sooner`] went off, or one that came before it.
    pub fn on_alarm(&mut self) {
        self.awaited = Time::NEVER;
    }

    /// When it must be looked at, if that is sooner than it will be anyway. The caller sees to it.
    pub fn sooner(&mut self, now: Time) -> Option<Time> {
        let next = self.next_timeout(now);
        let is_sooner = next < self.awaited;
        self.awaited = self.awaited.min(next);
        is_sooner.then_some(next)
    }

    /// When something that waits, or padding, may leave.
    #[inline]
    pub fn next_turn(&self, now: Time) -> Time {
        let due = |waits: bool, class| if waits { self.pacer.when(now, class) } else { Time::NEVER };
        due(!self.queues.waiting.is_empty(), Class::Video)
            .min(due(!self.queues.again.is_empty(), Class::Retransmission))
            .min(self.pacer.next_of_cluster())
    }

    pub fn handle_timeout(&mut self, now: Time) {
        match &mut self.reported {
            Some(reported) => reported.handle_timeout(now),
            None => self.estimator.handle_timeout(now),
        }
        self.after_news(now);
    }

    pub fn explain(&self) -> Explanation {
        let explanation = self.estimator.explain();
        match &self.reported {
            Some(reported) => {
                let (target, loss) = (reported.target(), reported.loss());
                Explanation { target, sustainable: target, loss, ..explanation }
            }
            None => explanation,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(subscription: u32, encoding: u8, sequence: u64) -> Waiting {
        let timestamp = sequence as u32;
        Waiting { subscription, encoding, sequence, timestamp, begins: false, since: Time::ZERO }
    }

    #[test]
    fn a_peer_without_feedback_is_not_held_back_for_long() {
        let now = Time::ZERO;
        let mut line = Downlink::new(now);
        for _ in 0..200 {
            line.on_sent(now, 1_200);
        }
        assert!(!line.passes(now), "beyond what is known to pass");
        assert!(line.available(now).is_some());
        let later = now + PATIENCE;
        line.on_sent(later, 60_000);
        assert!(line.passes(later));
        assert_eq!(line.available(later), None);
    }

    #[test]
    fn who_waits_goes_in_order_at_the_pace() {
        let now = Time::ZERO;
        let mut line = Downlink::new(now);
        while line.passes(now) {
            line.on_sent(now, 1_200);
        }
        for sequence in 0..20 {
            assert!(line.wait(name(1, 0, sequence)));
        }
        let (mut at, mut next) = (now, 0);
        while next < 20 {
            at = at.max(line.next_timeout(at));
            while let Some(waiting) = line.take_due(at) {
                assert_eq!(waiting.sequence, next);
                line.on_sent(at, 1_200);
                next += 1;
            }
        }
        let took = at - now;
        // 20 packets at 1.2 Mbit/s; a burst before them was the budget.
        assert!(took > Duration::from_millis(120) && took < Duration::from_millis(200), "{took:?}");
    }

    #[test]
    fn a_key_frame_makes_a_long_queue_of_its_encoding_needless() {
        let mut line = Downlink::new(Time::ZERO);
        for sequence in 0..NEEDLESS as u64 - 1 {
            line.wait(name(1, 0, sequence));
        }
        line.wait(name(2, 0, 7));
        assert!(!line.is_needless(1, 0), "few");
        line.wait(name(1, 0, 99));
        assert!(!line.is_needless(1, 1), "of another encoding");
        assert!(line.is_needless(1, 0));
        line.forget(1);
        line.forget(2);
        assert!(line.queues.waiting.is_empty());
    }

    #[test]
    fn no_more_wait_than_can_be_of_use() {
        let mut line = Downlink::new(Time::ZERO);
        assert!(line.has_room_for(MAX_WAITING) && !line.has_room_for(MAX_WAITING + 1));
        assert!((0..MAX_WAITING as u64).all(|sequence| line.wait(name(1, 0, sequence))));
        assert!(!line.wait(name(1, 0, 0)) && !line.has_room_for(1));
    }
}
