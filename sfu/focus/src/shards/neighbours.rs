//! Rings between threads: datagrams that arrived at the wrong one, and hints about whose an address is.

use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lru::LruCache;
use rtrb::{Consumer, Producer, RingBuffer};
use weir_core::Route;
use weir_core::egress::MAX_DATAGRAM;
use weir_udp::Waker;

/// Datagrams in one ring: 3 MiB, and more than one batch of receiving brings.
const DATAGRAMS: usize = 2_048;
/// Hints in one ring: validated addresses that the other thread has not noted.
const HINTS: usize = 4_096;
/// Addresses remembered as another thread's; the one that was neither told nor used for longest is forgotten first.
const MAX_KNOWN: usize = 262_144;

/// A datagram on its way to another thread.
pub struct HandedOver {
    pub route: Route,
    len: u16,
    bytes: [u8; MAX_DATAGRAM],
}

impl HandedOver {
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[..usize::from(self.len)]
    }
}

struct Outgoing {
    datagrams: Producer<HandedOver>,
    hints: Producer<Route>,
    waker: Waker,
    asleep: Arc<AtomicBool>,
    /// Something was put in since the last wake.
    pending: bool,
}

impl Outgoing {
    /// Hints that an address is ours.
    fn tell(&mut self, route: Route) {
        self.pending = true;
        // A full ring loses a hint; whoever misses it hands over the next check, and is told again.
        let _ = self.hints.push(route);
    }
}

struct Incoming {
    shard: u8,
    datagrams: Consumer<HandedOver>,
    hints: Consumer<Route>,
}

/// One thread's ends of the rings.
pub struct Neighbours {
    outgoing: Vec<Option<Outgoing>>,
    incoming: Vec<Incoming>,
    asleep: Arc<AtomicBool>,
    /// Hashed with a seed that peers, who choose the addresses, cannot know.
    owners: LruCache<Route, u8, RandomState>,
}

/// A ring from each to each.
pub fn connect(wakers: &[Waker]) -> Vec<Neighbours> {
    let asleep: Vec<Arc<AtomicBool>> = wakers.iter().map(|_| Arc::default()).collect();
    let mut all: Vec<Neighbours> = asleep
        .iter()
        .map(|asleep| Neighbours {
            outgoing: Vec::new(),
            incoming: Vec::new(),
            asleep: Arc::clone(asleep),
            owners: LruCache::unbounded_with_hasher(RandomState::new()),
        })
        .collect();
    for from in 0..wakers.len() {
        for to in 0..wakers.len() {
            if from == to {
                all[from].outgoing.push(None);
                continue;
            }
            let (datagrams_in, datagrams) = RingBuffer::new(DATAGRAMS);
            let (hints_in, hints) = RingBuffer::new(HINTS);
            all[from].outgoing.push(Some(Outgoing {
                datagrams: datagrams_in,
                hints: hints_in,
                waker: wakers[to].clone(),
                asleep: Arc::clone(&asleep[to]),
                pending: false,
            }));
            all[to].incoming.push(Incoming { shard: from as u8, datagrams, hints });
        }
    }
    all
}

impl Neighbours {
    /// Whose address this is, as far as others have told.
    pub fn owner(&mut self, route: Route) -> Option<u8> {
        self.owners.get(&route).copied()
    }

    /// Copies a datagram to another thread. False when that is full, gone, or the datagram too long for media.
    pub fn hand_over(&mut self, shard: u8, route: Route, datagram: &[u8]) -> bool {
        let Some(Some(outgoing)) = self.outgoing.get_mut(usize::from(shard)) else { return false };
        if datagram.len() > MAX_DATAGRAM {
            return false;
        }
        let mut bytes = [0; MAX_DATAGRAM];
        bytes[..datagram.len()].copy_from_slice(datagram);
        let handed = HandedOver { route, len: datagram.len() as u16, bytes };
        outgoing.pending = true;
        outgoing.datagrams.push(handed).is_ok()
    }

    /// Tells all others that an address is ours.
    pub fn announce(&mut self, route: Route) {
        for outgoing in self.outgoing.iter_mut().flatten() {
            outgoing.tell(route);
        }
    }

    /// Wakes those that sleep on what they were given.
    pub fn wake(&mut self) {
        for outgoing in self.outgoing.iter_mut().flatten() {
            if std::mem::take(&mut outgoing.pending) && outgoing.asleep.swap(false, Ordering::SeqCst) {
                outgoing.waker.wake();
            }
        }
    }

    /// Takes up to `limit` datagrams. `take` says whether one was a check that shows its address to be ours: whoever
    /// handed it over is told so again, lest a hint that was lost or forgotten be missed for good.
    pub fn receive(&mut self, limit: usize, mut take: impl FnMut(HandedOver) -> bool) -> usize {
        let mut taken = 0;
        for incoming in &mut self.incoming {
            while let Ok(route) = incoming.hints.pop() {
                self.owners.put(route, incoming.shard);
                if self.owners.len() > MAX_KNOWN {
                    self.owners.pop_lru();
                }
            }
            while taken < limit
                && let Ok(datagram) = incoming.datagrams.pop()
            {
                taken += 1;
                let route = datagram.route;
                if take(datagram)
                    && let Some(outgoing) = &mut self.outgoing[usize::from(incoming.shard)]
                {
                    outgoing.tell(route);
                }
            }
        }
        taken
    }

    /// Says that this thread is about to sleep. False: something has come, do not.
    pub fn fall_asleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        self.incoming.iter().all(|incoming| incoming.datagrams.is_empty() && incoming.hints.is_empty())
    }

    pub fn stay_awake(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use weir_udp::Poller;

    fn route(port: u16) -> Route {
        Route::Udp { socket: 0, remote: ([192, 0, 2, 1], port).into() }
    }

    fn two() -> (Neighbours, Neighbours) {
        let pollers = [Poller::new().unwrap(), Poller::new().unwrap()];
        let mut both = connect(&pollers.map(|poller| poller.waker()));
        let second = both.pop().unwrap();
        (both.pop().unwrap(), second)
    }

    #[test]
    fn a_datagram_arrives_whole_at_the_other() {
        let (mut first, mut second) = two();
        assert!(first.hand_over(1, route(1), b"hello"));
        assert!(!second.fall_asleep());
        let mut got = Vec::new();
        second.receive(8, |mut datagram| {
            got.push((datagram.route, datagram.bytes().to_vec()));
            false
        });
        assert_eq!(got, [(route(1), b"hello".to_vec())]);
        assert!(second.fall_asleep());
    }

    #[test]
    fn a_full_ring_a_long_datagram_and_oneself_are_refused() {
        let (mut first, _second) = two();
        assert!(!first.hand_over(0, route(1), b"to myself"));
        assert!(!first.hand_over(7, route(1), b"to nobody"));
        assert!(!first.hand_over(1, route(1), &[0; MAX_DATAGRAM + 1]));
        let taken = (0..DATAGRAMS + 10).filter(|_| first.hand_over(1, route(1), b"x")).count();
        assert_eq!(taken, DATAGRAMS);
    }

    #[test]
    fn an_announced_address_is_known_to_the_other() {
        let (mut first, mut second) = two();
        first.announce(route(5));
        second.receive(8, |_| false);
        assert_eq!(second.owner(route(5)), Some(0));
        assert_eq!(second.owner(route(6)), None);
    }

    /// Packets of a client whose hint was lost were dropped for as long as it stayed.
    #[test]
    fn a_lost_hint_is_told_again_to_whoever_hands_over_a_check() {
        let (mut first, mut second) = two();
        for port in 0..HINTS as u16 + 10 {
            first.announce(route(port));
        }
        let lost = route(HINTS as u16 + 5);
        second.receive(8, |_| false);
        assert_eq!(second.owner(lost), None);
        second.hand_over(0, lost, b"a packet of no meaning");
        first.receive(8, |_| false);
        second.receive(8, |_| false);
        assert_eq!(second.owner(lost), None, "only a check shows whose it is");
        second.hand_over(0, lost, b"a check");
        first.receive(8, |_| true);
        assert!(!second.fall_asleep());
        second.receive(8, |_| false);
        assert_eq!(second.owner(lost), Some(0));
    }

    /// Somebody with very many addresses made all others' be forgotten.
    #[test]
    fn addresses_in_use_outlast_any_number_of_others() {
        let (mut first, mut second) = two();
        let many = |number| Route::Udp { socket: 0, remote: (Ipv4Addr::from_bits(number), 9).into() };
        let (told_again, used, unused) = (route(1), route(2), route(3));
        for route in [told_again, used, unused] {
            first.announce(route);
        }
        for number in 0..MAX_KNOWN as u32 {
            first.announce(many(number));
            if number % 1_024 == 0 {
                first.announce(told_again);
                second.receive(8, |_| false);
                assert_eq!(second.owner(used), Some(0));
            }
        }
        second.receive(8, |_| false);
        assert_eq!(second.owners.len(), MAX_KNOWN);
        assert_eq!([told_again, used, unused].map(|route| second.owner(route)), [Some(0), Some(0), None]);
    }
}
