//! What the shards count. Each counter has one writer, its shard, so counting is a load and a store. How long things
//! took is observed once a turn.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::CloseReason;
use crate::histogram::{Histogram, Observed};

/// Declares the counters once, and with them their sum.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// One shard's counters.
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: AtomicU64,)*
            closed: [AtomicU64; CloseReason::ALL.len()],
            /// For each write to a live stream, how long the oldest event in it had waited since it was accepted.
            pub(super) waited: Histogram,
            /// How long the shard's turns took, from waking to all written that was written in them.
            pub(super) turns: Histogram,
        }

        /// All shards' counters, added up at one moment.
        #[derive(Debug, Clone, Default, serde::Serialize)]
        pub struct Totals {
            $($(#[$doc])* pub $name: u64,)*
            /// Streams that resumed with an id of another history, and were told so by a gap (`unknown_epoch`).
            pub unknown_epochs: u64,
            /// Streams that ended, by reason.
            pub closed: std::collections::BTreeMap<&'static str, u64>,
            /// For each write to a live stream, how long the oldest event in it had waited since it was accepted.
            #[serde(skip)]
            pub waited: Observed,
            /// How long the turns of all shards took.
            #[serde(skip)]
            pub turns: Observed,
            /// How long each shard was busy, in nanoseconds.
            #[serde(skip)]
            pub busy_ns: Vec<u64>,
        }

        impl Counters {
            pub(super) fn add_to(&self, totals: &mut Totals) {
                $(totals.$name += self.$name.load(Relaxed);)*
                for (reason, count) in CloseReason::ALL.iter().zip(&self.closed) {
                    *totals.closed.entry(reason.as_str()).or_default() += count.load(Relaxed);
                }
                let turns = self.turns.read();
                totals.waited.add(&self.waited.read());
                totals.turns.add(&turns);
                totals.busy_ns.push(turns.sum_ns);
            }
        }
    };
}

counters! {
    /// Streams taken over.
    opened,
    /// Events handed to the kernel, counted for each stream.
    delivered,
    /// Bytes handed to the kernel.
    bytes,
    /// Heartbeats handed to the kernel.
    heartbeats,
    /// Writes that handed over at least one event: `delivered / writes` is how well events coalesce.
    writes,
    /// Times a stream's socket took no more, so that the stream reads the log at its own pace until it has caught up.
    stalls,
    /// Gaps told since events are no longer kept (`evicted`).
    gaps,
    /// Times the shard itself fell behind what the log keeps.
    lags,
}

impl Counters {
    pub(super) fn count_closed(&self, reason: CloseReason) {
        bump(&self.closed[reason as usize], 1);
    }
}

/// What a shard's pulled streams count, each on a thread of its own.
#[derive(Debug, Default)]
pub(super) struct Pulled {
    delivered: AtomicU64,
    bytes: AtomicU64,
    heartbeats: AtomicU64,
    writes: AtomicU64,
    gaps: AtomicU64,
    waited: Histogram,
}

impl Pulled {
    pub(super) fn add_delivered(&self, events: u64) {
        if events > 0 {
            self.delivered.fetch_add(events, Relaxed);
            self.writes.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn add_wait(&self, waited: Duration) {
        self.waited.observe(waited, 1);
    }

    pub(super) fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn add_heartbeat(&self) {
        self.heartbeats.fetch_add(1, Relaxed);
    }

    pub(super) fn add_gap(&self) {
        self.gaps.fetch_add(1, Relaxed);
    }

    pub(super) fn add_to(&self, totals: &mut Totals) {
        totals.delivered += self.delivered.load(Relaxed);
        totals.bytes += self.bytes.load(Relaxed);
        totals.heartbeats += self.heartbeats.load(Relaxed);
        totals.writes += self.writes.load(Relaxed);
        totals.gaps += self.gaps.load(Relaxed);
        totals.waited.add(&self.waited.read());
    }
}

/// Adds to a counter that nobody else writes.
pub(super) fn bump(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed) + n, Relaxed);
}
