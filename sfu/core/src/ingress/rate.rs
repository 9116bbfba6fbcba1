//! Bits and packets a second over a sliding window.

use std::time::{Duration, Instant};

/// The window, in steps. One second: longer hides a layer that stopped, shorter jumps with every key frame.
const STEPS: usize = 10;
const STEP: Duration = Duration::from_millis(100);

/// What passed within the last second.
#[derive(Clone, Copy, Debug)]
pub struct RateWindow {
    /// When the newest step began.
    began: Instant,
    started: Instant,
    newest: usize,
    bytes: [u32; STEPS],
    packets: [u16; STEPS],
}

impl RateWindow {
    pub fn new(now: Instant) -> Self {
        Self { began: now, started: now, newest: 0, bytes: [0; STEPS], packets: [0; STEPS] }
    }

    pub fn add(&mut self, now: Instant, bytes: usize) {
        self.advance(now);
        let step = &mut self.bytes[self.newest];
        *step = step.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        let step = &mut self.packets[self.newest];
        *step = step.saturating_add(1);
    }

    /// Bits a second.
    pub fn bit_rate(&mut self, now: Instant) -> u64 {
        self.advance(now);
        let bytes: u64 = self.bytes.iter().map(|&bytes| u64::from(bytes)).sum();
        self.per_second(now, bytes * 8)
    }

    /// Packets a second.
    pub fn packet_rate(&mut self, now: Instant) -> u64 {
        self.advance(now);
        let packets: u64 = self.packets.iter().map(|&packets| u64::from(packets)).sum();
        self.per_second(now, packets)
    }

    fn per_second(&self, now: Instant, amount: u64) -> u64 {
        let window = STEP * (STEPS as u32 - 1) + now.saturating_duration_since(self.began);
        let covered = window.min(now.saturating_duration_since(self.started)).max(STEP);
        amount * 1_000_000 / covered.as_micros() as u64
    }

    fn advance(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.began).as_nanos() / STEP.as_nanos();
        for _ in 0..passed.min(STEPS as u128) {
            self.newest = (self.newest + 1) % STEPS;
            self.bytes[self.newest] = 0;
            self.packets[self.newest] = 0;
        }
        if passed >= STEPS as u128 {
            self.began = now;
        } else {
            self.began += STEP * passed as u32;
        }
    }
}
