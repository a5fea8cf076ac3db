//! The wake latch: how a publisher wakes a shard, at most once until the shard has read.
//!
//! The log is the truth; a wake is only a hint that there is more to read. A shard that is busy reads the log again
//! before it sleeps, so it needs no hint, and a publisher that meets a busy shard makes no system call. The two steps
//! on each side form the classic pair in which at least one side must see the other:
//!
//! | publisher | shard |
//! |---|---|
//! | 1. makes the event readable ([`crate::log::Log::append`]) | 1. opens the latch ([`Latch::open`]) |
//! | 2. closes the latch; was it open? Then wakes ([`Latch::close`]) | 2. looks at the log's head; sleeps if nothing is new |
//!
//! All four are sequentially consistent: were both to miss the other, each second step would precede the other
//! side's first one. `tests/loom.rs` tries all interleavings.

use crate::sync::{AtomicBool, Ordering};

/// Open while the shard sleeps, or is about to.
#[derive(Debug)]
pub(super) struct Latch {
    open: AtomicBool,
}

impl Latch {
    /// A closed latch: the shard is awake.
    pub(super) fn new() -> Latch {
        Latch { open: AtomicBool::new(false) }
    }

    /// The shard is about to sleep. It must look once more at all it could be woken for, after this.
    pub(super) fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }

    /// Closes the latch. True if it was open: then it is this caller's duty to wake the shard.
    pub(super) fn close(&self) -> bool {
        // A look first: while the shard is busy, publishers only read a shared cache line.
        self.open.load(Ordering::SeqCst) && self.open.swap(false, Ordering::SeqCst)
    }
}
