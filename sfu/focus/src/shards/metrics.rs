//! What threads count, brought out a few times a second.

use std::sync::Mutex;
use std::time::Duration;

use weir_core::stats::ShardStats;
use weir_wire::WireCounts;

/// What the shell around a shard counts.
#[derive(Clone, Debug, Default)]
pub struct Shell {
    pub wire: WireCounts,
    pub handed_in: u64,
    pub handed_out: u64,
    pub hand_over_dropped: u64,
    pub events_dropped: u64,
    /// Time spent not asleep.
    pub busy: Duration,
}

/// A thread's counters as they stood a moment ago.
#[derive(Clone, Debug, Default)]
pub struct ShardSnapshot {
    pub stats: ShardStats,
    pub shell: Shell,
}

#[derive(Debug, Default)]
pub struct ShardMetrics(Mutex<ShardSnapshot>);

impl ShardMetrics {
    /// Never waits: a scrape that is reading makes this one late, not the media.
    pub(super) fn publish(&self, stats: &ShardStats, shell: &Shell) {
        if let Ok(mut snapshot) = self.0.try_lock() {
            snapshot.stats.clone_from(stats);
            snapshot.shell.clone_from(shell);
        }
    }

    pub fn snapshot(&self) -> ShardSnapshot {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}
