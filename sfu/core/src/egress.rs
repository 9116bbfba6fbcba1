//! What leaves: datagrams in an arena, in runs that one system call can carry.
//!
//! A run is consecutive datagrams to one route, all of one size but the last, which may be shorter: what UDP
//! generic segmentation offload takes as one buffer. Runs form by themselves when packets are pushed subscriber by
//! subscriber; nothing waits for one.

use std::ops::Range;

use weir_transport::Route;

/// Bytes the arena holds. Small enough to stay in a second-level cache between sealing and sending; the shell sends
/// and clears it several times a batch when a conference is large.
pub const ARENA_BYTES: usize = 512 * 1024;
/// Runs the arena holds: as many as it holds of the largest datagrams, so that in general bytes are the bound.
pub const MAX_RUNS: usize = 352;
/// So much is worth a system call: then it is sent, while the nearer caches still hold it. More would save little of
/// the call and lose the cache to what the kernel writes meanwhile.
const BATCH_BYTES: usize = 96 * 1024;
/// The same in runs: what one `sendmmsg` of the shell takes.
const BATCH_RUNS: usize = 64;
/// The most datagrams in a run: the kernel's `UDP_MAX_SEGMENTS` was 64 before Linux 6.9.
pub const MAX_SEGMENTS: usize = 64;
/// The most bytes in a run: an IPv4 datagram's payload, with room for headers.
pub const MAX_RUN_BYTES: usize = 65_000;
/// The largest datagram that is ever pushed.
pub const MAX_DATAGRAM: usize = 1_500;

/// Consecutive datagrams to one route.
#[derive(Clone, Debug)]
pub struct Run {
    pub route: Route,
    /// Where the run's bytes stand in the arena.
    pub bytes: Range<usize>,
    /// Size of each datagram but the last, in bytes.
    pub segment: usize,
    /// How many datagrams the run is cut into.
    pub segments: usize,
    /// A datagram shorter than the others was pushed: it must stay the last.
    closed: bool,
}

/// The arena. [`Self::push`] writes, the shell reads [`Self::runs`] and [`Self::clear`]s.
#[derive(Debug)]
pub struct Egress {
    arena: Vec<u8>,
    used: usize,
    runs: Vec<Run>,
}

impl Default for Egress {
    fn default() -> Self {
        Self { arena: vec![0; ARENA_BYTES], used: 0, runs: Vec::with_capacity(MAX_RUNS) }
    }
}

impl Egress {
    /// Whether `datagrams` more surely fit, though each be of the largest size and a run of its own.
    pub fn has_room_for(&self, datagrams: usize) -> bool {
        self.runs.len() + datagrams <= MAX_RUNS && self.used + datagrams * MAX_DATAGRAM <= ARENA_BYTES
    }

    /// Whether it is time to send, though more would fit.
    pub fn is_worth_sending(&self) -> bool {
        self.used >= BATCH_BYTES || self.runs.len() >= BATCH_RUNS
    }

    /// Lets `write` fill the next datagram, which joins the last run if it can. `write` gets [`MAX_DATAGRAM`] bytes
    /// and says how many it used; zero is no datagram. `None` when the arena is full.
    pub fn push(&mut self, route: Route, write: impl FnOnce(&mut [u8]) -> usize) -> Option<usize> {
        let start = self.used;
        let space = self.arena.get_mut(start..start + MAX_DATAGRAM)?;
        if self.runs.len() == MAX_RUNS {
            return None; // even one that might have joined the last run: the check must not depend on the size
        }
        let len = write(space);
        if len == 0 {
            return Some(0);
        }
        self.used += len;
        match self.runs.last_mut() {
            Some(run) if run.takes(route, len) => {
                run.bytes.end = self.used;
                run.segments += 1;
                run.closed = len < run.segment;
            }
            _ => self.runs.push(Run {
                route,
                bytes: start..self.used,
                segment: len,
                segments: 1,
                closed: false,
            }),
        }
        Some(len)
    }

    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    pub fn bytes(&self, run: &Run) -> &[u8] {
        &self.arena[run.bytes.clone()]
    }

    /// The whole arena, for calls that gather several runs.
    pub fn arena(&self) -> &[u8] {
        &self.arena
    }

    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub fn clear(&mut self) {
        self.runs.clear();
        self.used = 0;
    }
}

impl Run {
    fn takes(&self, route: Route, len: usize) -> bool {
        self.route == route
            && !self.closed
            && len <= self.segment
            && self.segments < MAX_SEGMENTS
            && self.bytes.len() + len <= MAX_RUN_BYTES
            && matches!(route, Route::Udp { .. })
    }

    /// The run's datagrams, in order.
    pub fn datagrams<'a>(&self, arena: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        arena[self.bytes.clone()].chunks(self.segment)
    }
}
