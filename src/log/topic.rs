//! A topic: who listens to it, and what is kept of it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Event, TopicFigures};
use crate::clock::{Steady, Timestamp};
use crate::frame::Framing;
use crate::sync::lock;

/// How many listen, shard by shard.
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

    /// The shards with listeners, a bit each; from 63 on they share a bit.
    pub(super) fn shards(&self) -> u64 {
        let bits = self.by_shard.iter().enumerate().filter(|(_, n)| n.load(SeqCst) > 0);
        bits.fold(0, |set, (shard, _)| set | 1 << shard.min(63))
    }

    /// How many there are, and how many there have been.
    pub(super) fn now_and_ever(&self) -> (u64, u64) {
        (self.by_shard.iter().map(|n| u64::from(n.load(SeqCst))).sum(), self.joined.load(SeqCst))
    }
}

/// A topic that has history, or listeners, or both.
#[derive(Debug)]
pub struct Topic {
    name: Arc<str>,
    pub(super) listeners: Listeners,
    /// Events in the order, and those on their way into it.
    claims: AtomicUsize,
    /// The newest event that left the history. As one of the newest of all it may still stand in the order.
    detached: AtomicU64,
    /// The newest event that left the order too, and when it had been accepted.
    lost: AtomicU64,
    lost_ms: AtomicU64,
    history: Mutex<History>,
}

impl Topic {
    pub(super) fn new(name: Arc<str>, shards: usize, lost: u64, lost_ms: u64) -> Topic {
        Topic {
            name,
            listeners: Listeners::new(shards),
            claims: AtomicUsize::new(0),
            detached: AtomicU64::new(lost),
            lost: AtomicU64::new(lost),
            lost_ms: AtomicU64::new(lost_ms),
            history: Mutex::default(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Keeps it in the index until an event put into it has left again.
    pub(super) fn claim(&self) {
        self.claims.fetch_add(1, SeqCst);
    }

    pub(super) fn figures(&self, now: Timestamp) -> TopicFigures {
        let (listeners, joined) = self.listeners.now_and_ever();
        let history = lock(&self.history);
        TopicFigures {
            topic: self.name.clone(),
            listeners,
            joined,
            left: joined.saturating_sub(listeners),
            events_published: history.published,
            bytes_published: history.published_bytes,
            rate: history.pace.rate(now.steady()),
            events: history.len(),
            oldest: history.events.front().map_or(0, |event| event.seq),
            newest: history.events.back().map_or(0, |event| event.seq),
            last_published: (history.published > 0).then_some(history.last),
            lost: self.lost(),
        }
    }

    pub(super) fn is_unused(&self) -> bool {
        self.claims.load(SeqCst) == 0 && self.listeners.are_none()
    }

    pub(super) fn history(&self) -> &Mutex<History> {
        &self.history
    }

    /// An event left the history.
    pub(super) fn note_detached(&self, event: &Event) {
        self.detached.fetch_max(event.seq, SeqCst);
    }

    /// An event left the order. True if it was the last one.
    pub(super) fn note_lost(&self, event: &Event) -> bool {
        self.lost.fetch_max(event.seq, SeqCst);
        self.lost_ms.fetch_max(event.accepted.ms(), SeqCst);
        self.claims.fetch_sub(1, SeqCst) == 1
    }

    /// Whether this event of it has left the history.
    pub(super) fn is_detached(&self, event: &Event) -> bool {
        event.seq <= self.detached.load(SeqCst)
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.load(SeqCst)
    }

    /// When the newest event that was lost had been accepted, 0 where none was.
    pub(super) fn lost_ms(&self) -> u64 {
        self.lost_ms.load(SeqCst)
    }

    pub(super) fn oldest(&self) -> Option<u64> {
        lock(&self.history).oldest().map(|event| event.seq)
    }

    /// The sequence numbers of its newest `n` events.
    pub(super) fn newest(&self, n: usize) -> Vec<u64> {
        lock(&self.history).events.iter().rev().take(n).map(|event| event.seq).collect()
    }

    /// Adds its first `max` events after `cursor` and up to `upto` from the history. False if some after `cursor` have
    /// left it.
    pub(super) fn read(&self, cursor: u64, upto: u64, max: usize, out: &mut Vec<Arc<Event>>) -> bool {
        let history = lock(&self.history);
        let at = history.events.partition_point(|event| event.seq <= cursor);
        out.extend(history.events.range(at..).take_while(|event| event.seq <= upto).take(max).cloned());
        // Under the lock: between the events and this nothing can leave.
        self.detached.load(SeqCst) <= cursor
    }
}

/// The time over which a topic's rate is taken.
pub const RATE_WINDOW: Duration = Duration::from_secs(10);

/// Counts by windows of time, so that a rate of the last window's length can be told from two numbers.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    /// Which window it is, on the steady clock.
    window: u64,
    count: u64,
    /// The count of the window before.
    before: u64,
}

impl Pace {
    fn count(&mut self, now: Steady) {
        *self = self.at(now);
        self.count += 1;
    }

    /// Events a second: those of this window, and of the one before as much as lies within a window's length.
    fn rate(&self, now: Steady) -> f64 {
        let Pace { window, count, before } = self.at(now);
        let length = RATE_WINDOW.as_secs_f64();
        let into = (now.ns() as f64 / 1e9 - window as f64 * length).clamp(0.0, length);
        (before as f64 * (1.0 - into / length) + count as f64) / length
    }

    fn at(self, now: Steady) -> Pace {
        let window = now.ms() / (1000 * RATE_WINDOW.as_secs());
        match window.saturating_sub(self.window) {
            // A reading from before another one's stays in its window.
            0 => self,
            1 => Pace { window, count: 0, before: self.count },
            _ => Pace { window, count: 0, before: 0 },
        }
    }
}

/// A topic's kept events, oldest first, and the count of all there were.
#[derive(Debug)]
pub(super) struct History {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    published: u64,
    published_bytes: u64,
    last: Timestamp,
    pace: Pace,
}

impl Default for History {
    fn default() -> History {
        History {
            events: VecDeque::new(),
            bytes: 0,
            published: 0,
            published_bytes: 0,
            last: Timestamp::from_unix_ms(0),
            pace: Pace::default(),
        }
    }
}

impl History {
    pub(super) fn push(&mut self, event: Arc<Event>, now: Timestamp) {
        self.bytes += event.weight();
        self.published += 1;
        self.published_bytes += event.frame.bytes(Framing::Plain).len() as u64;
        self.last = now;
        self.pace.count(event.accepted);
        self.events.push_back(event);
    }

    pub(super) fn pop(&mut self) -> Option<Arc<Event>> {
        let event = self.events.pop_front()?;
        self.bytes -= event.weight();
        Some(event)
    }

    pub(super) fn oldest(&self) -> Option<&Arc<Event>> {
        self.events.front()
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn clear(&mut self) {
        *self = History::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_ten_seconds() {
        let at = |s: f64| Steady::from_ms(1_800_000_000_000 + (s * 1000.0) as u64);
        let mut pace = Pace::default();
        assert_eq!(pace.rate(at(0.0)), 0.0);
        // Ten a second, for thirty seconds.
        for tenth in 0..300 {
            pace.count(at(f64::from(tenth) / 10.0));
        }
        for s in [30.0, 33.0, 37.5, 39.9] {
            let gone = (s - 30.0) / 10.0;
            let rate = pace.rate(at(s));
            assert!((rate - 10.0 * (1.0 - gone)).abs() < 0.2, "{s}: {rate}");
        }
        assert_eq!(pace.rate(at(50.0)), 0.0);
        // An older reading neither panics nor makes anything negative.
        assert!(pace.rate(at(0.0)) >= 0.0);
    }
}
