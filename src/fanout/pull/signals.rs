//! What a puller and its shard say to each other across threads: that there is more to read, that a heartbeat is due,
//! that it is over.
//!
//! A wake is only a hint. The puller leaves its waker first ([`Pull::answer`]) and looks at the log afterwards; an event
//! that it did not see there is found by its shard later, which then finds the waker ([`Pull::call`]). A call that was
//! not answered wakes nobody again: the puller's carrier waits for something else, and will ask when it has it. Only the
//! end wakes it all the same, for which whoever waits leaves the waker again ([`Pull::is_cut`]). `tests/loom.rs` tries
//! all interleavings.

use std::task::Waker;

// From above and not from where they are: `tests/loom.rs` has others.
use super::{CloseReason, HeartbeatStyle};
use crate::sync::{AtomicU32, Mutex, MutexGuard, Ordering::Relaxed, lock};

/// What a puller and its shard share.
#[derive(Debug)]
pub(crate) struct Pull {
    /// Its number in the shard, once it has one, and as long as.
    key: AtomicU32,
    signals: Mutex<Signals>,
}

const NO_KEY: u32 = u32::MAX;

#[derive(Debug, Default)]
struct Signals {
    waker: Option<Waker>,
    /// The tick of the first call that was not answered yet.
    called: Option<u64>,
    /// How far it had read when it last answered.
    cursor: u64,
    heartbeat: Option<HeartbeatStyle>,
    end: Option<End>,
    /// Whether the shard waits for it no more.
    cut: bool,
}

/// How it is to end: for what reason, and when the client is to come back, if that is to be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) reason: CloseReason,
    pub(crate) retry_ms: Option<u64>,
}

impl Pull {
    pub(crate) fn new() -> Pull {
        Pull { key: AtomicU32::new(NO_KEY), signals: Mutex::new(Signals::default()) }
    }

    // ---- the shard's side

    pub(crate) fn set_key(&self, key: Option<u32>) {
        self.key.store(key.unwrap_or(NO_KEY), Relaxed);
    }

    pub(crate) fn key(&self) -> Option<u32> {
        Some(self.key.load(Relaxed)).filter(|key| *key != NO_KEY)
    }

    /// There is more to read.
    pub(crate) fn call(&self, now: u64) {
        self.signal(now, false, |_| {});
    }

    /// A heartbeat is due.
    pub(crate) fn beat(&self, now: u64, style: HeartbeatStyle) {
        self.signal(now, false, |signals| signals.heartbeat = Some(style));
    }

    /// It is to end, as soon as its carrier has room for that.
    pub(crate) fn end(&self, now: u64, end: End) {
        self.signal(now, true, |signals| {
            signals.end.get_or_insert(end);
        });
    }

    /// It is over, whether its carrier has room or not.
    pub(crate) fn cut(&self, now: u64, reason: CloseReason) {
        self.signal(now, true, |signals| {
            signals.end.get_or_insert(End { reason, retry_ms: None });
            signals.cut = true;
        });
    }

    /// Since when it has not answered.
    pub(crate) fn silent_since(&self) -> Option<u64> {
        self.signals().called
    }

    /// How far it had read when it last answered, if it has not answered since it was called.
    pub(crate) fn behind(&self) -> Option<u64> {
        let signals = self.signals();
        signals.called.map(|_| signals.cursor)
    }

    fn signal(&self, now: u64, again: bool, note: impl FnOnce(&mut Signals)) {
        let mut signals = self.signals();
        note(&mut signals);
        let is_first = signals.called.is_none();
        signals.called.get_or_insert(now);
        let waker = if is_first || again { signals.waker.take() } else { None };
        drop(signals);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    // ---- the puller's side

    /// Leaves the waker, and takes what was signalled. It has had everything up to `cursor`.
    pub(crate) fn answer(&self, waker: &Waker, cursor: u64) -> (Option<HeartbeatStyle>, Option<End>) {
        let mut signals = self.signals();
        signals.called = None;
        signals.cursor = cursor;
        signals.leave(waker);
        (signals.heartbeat.take(), signals.end)
    }

    /// Whether it is over; if not, leaves the waker, for that and without answering.
    pub(crate) fn is_cut(&self, waker: &Waker) -> bool {
        let mut signals = self.signals();
        if !signals.cut {
            signals.leave(waker);
        }
        signals.cut
    }

    fn signals(&self) -> MutexGuard<'_, Signals> {
        lock(&self.signals)
    }
}

impl Signals {
    fn leave(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(left) => left.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }
}
