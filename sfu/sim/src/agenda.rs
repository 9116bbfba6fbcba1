//! Virtual time: what happens next.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use weir_rate::Time;

/// Things to come, by time; what comes at one time comes in the order it was put down.
#[derive(Debug)]
pub struct Agenda<T> {
    now: Duration,
    /// Time, order, and where in `things` it lies.
    order: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    things: Vec<Option<T>>,
    free: Vec<usize>,
    put: u64,
}

impl<T> Agenda<T> {
    pub fn new() -> Self {
        Self { now: Duration::ZERO, order: BinaryHeap::new(), things: Vec::new(), free: Vec::new(), put: 0 }
    }

    /// Since the beginning.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// As what is simulated wants it.
    pub fn time(&self) -> Time {
        Time::ZERO + self.now
    }

    /// What lies in the past happens now.
    pub fn put(&mut self, at: Duration, thing: T) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.things.push(None);
            self.things.len() - 1
        });
        self.things[index] = Some(thing);
        self.order.push(Reverse((at.max(self.now), self.put, index)));
        self.put += 1;
    }

    /// Goes to the next thing, unless it lies behind `end`.
    pub fn next(&mut self, end: Duration) -> Option<T> {
        let Reverse((at, _, index)) = *self.order.peek()?;
        if at > end {
            return None;
        }
        self.order.pop();
        self.now = at;
        self.free.push(index);
        self.things[index].take()
    }
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self::new()
    }
}
