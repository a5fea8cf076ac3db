//! Counts the listeners of a topic or a group, by shard.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

/// The number of listeners of each shard.
#[derive(Debug)]
pub(super) struct Listeners {
    by_shard: Box<[AtomicU32]>,
    joined: AtomicU64,
}

impl Listeners {
    pub(super) fn new(shards: usize) -> Listeners {
        Listeners { by_shard: (0..shards).map(|_| AtomicU32::new(0)).collect(), joined: AtomicU64::new(0) }
    }

    pub(super) fn enter(&self, shard: usize) {
        self.by_shard[shard].fetch_add(1, SeqCst);
        self.joined.fetch_add(1, SeqCst);
    }

    pub(super) fn exit(&self, shard: usize) {
        self.by_shard[shard].fetch_sub(1, SeqCst);
    }

    pub(super) fn are_in(&self, shard: usize) -> bool {
        self.by_shard[shard].load(SeqCst) > 0
    }

    pub(super) fn are_none(&self) -> bool {
        self.by_shard.iter().all(|n| n.load(SeqCst) == 0)
    }

    /// The shards with listeners, one bit for each; shards from 63 on share a bit.
    pub(super) fn shards(&self) -> u64 {
        let bits = self.by_shard.iter().enumerate().filter(|(_, n)| n.load(SeqCst) > 0);
        bits.fold(0, |set, (shard, _)| set | 1 << shard.min(63))
    }

    /// How many listeners there are, and how many there have been.
    pub(super) fn now_and_ever(&self) -> (u64, u64) {
        (self.by_shard.iter().map(|n| u64::from(n.load(SeqCst))).sum(), self.joined.load(SeqCst))
    }
}
