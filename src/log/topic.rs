//! The topic index: topic → who listens and what is kept.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use dashmap::DashMap;

use super::{Event, Log, lock};

/// A topic that has history, or listeners, or both.
#[derive(Debug)]
pub struct Topic {
    name: Arc<str>,
    /// Listeners by shard.
    listeners: Box<[AtomicU32]>,
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
    fn new(name: Arc<str>, shards: usize, lost: u64, lost_ms: u64) -> Topic {
        Topic {
            name,
            listeners: (0..shards).map(|_| AtomicU32::new(0)).collect(),
            claims: AtomicUsize::new(0),
            detached: AtomicU64::new(lost),
            lost: AtomicU64::new(lost),
            lost_ms: AtomicU64::new(lost_ms),
            history: Mutex::default(),
        }
    }

    pub(super) fn has_listeners(&self, shard: usize) -> bool {
        self.listeners[shard].load(SeqCst) > 0
    }

    /// The shards with listeners, a bit each; from 63 on they share a bit.
    pub(super) fn shards(&self) -> u64 {
        let bits = self.listeners.iter().enumerate().filter(|(_, n)| n.load(SeqCst) > 0);
        bits.fold(0, |set, (shard, _)| set | 1 << shard.min(63))
    }

    pub(super) fn enter(&self, shard: usize) {
        self.listeners[shard].fetch_add(1, SeqCst);
    }

    pub(super) fn exit(&self, shard: usize) {
        self.listeners[shard].fetch_sub(1, SeqCst);
    }

    pub(super) fn is_unused(&self) -> bool {
        self.claims.load(SeqCst) == 0 && self.listeners.iter().all(|n| n.load(SeqCst) == 0)
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
        self.lost_ms.fetch_max(event.accepted_ms, SeqCst);
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

/// A topic's kept events, oldest first.
#[derive(Debug, Default)]
pub(super) struct History {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
}

impl History {
    pub(super) fn push(&mut self, event: Arc<Event>) {
        self.bytes += event.weight();
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

/// What a listener asked for.
#[derive(Debug, Clone)]
pub enum Interest {
    /// Every event.
    All,
    /// The events of these topics: sorted by address, none twice.
    Topics(Box<[Arc<Topic>]>),
}

/// Topics with listeners stay in the index, so equal names are equal addresses.
impl PartialEq for Interest {
    fn eq(&self, other: &Interest) -> bool {
        match (self, other) {
            (Interest::All, Interest::All) => true,
            (Interest::Topics(a), Interest::Topics(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
            }
            _ => false,
        }
    }
}

impl Eq for Interest {}

impl std::hash::Hash for Interest {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        if let Interest::Topics(topics) = self {
            topics.iter().for_each(|topic| Arc::as_ptr(topic).hash(state));
        }
    }
}

/// One listener's entry in the index; dropping it takes the entry back.
#[derive(Debug)]
pub struct Listening {
    log: Arc<Log>,
    interest: Option<Interest>,
    shard: usize,
}

impl Listening {
    pub(super) fn new(log: Arc<Log>, interest: Interest, shard: usize) -> Listening {
        Listening { log, interest: Some(interest), shard }
    }

    /// What it listens to.
    pub fn interest(&self) -> &Interest {
        self.interest.as_ref().expect("the interest is there until it is handed over or dropped")
    }

    /// Gives the interest away, and with it the duty to call [`Log::leave`] once.
    pub fn hand_over(mut self) -> Interest {
        self.interest.take().expect("the interest is handed over once")
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(interest) = self.interest.take() {
            self.log.leave(&interest, self.shard);
        }
    }
}

/// Topic → its listeners and its history.
#[derive(Debug)]
pub(super) struct Index {
    topics: DashMap<Arc<str>, Arc<Topic>>,
    /// Counts those who listen to everything; holds no events.
    everything: Topic,
    dropped: Mutex<Dropped>,
    shards: usize,
}

impl Index {
    pub(super) fn new(shards: usize) -> Index {
        Index {
            topics: DashMap::new(),
            everything: Topic::new("".into(), shards, 0, 0),
            dropped: Mutex::new(Dropped::new()),
            shards,
        }
    }

    pub(super) fn everything(&self) -> &Topic {
        &self.everything
    }

    pub(super) fn len(&self) -> usize {
        self.topics.len()
    }

    /// Finds or makes the topic, and keeps it from being forgotten until an event put into it has left again.
    pub(super) fn claim(&self, name: &str) -> Arc<Topic> {
        self.with(name, |topic| {
            topic.claims.fetch_add(1, SeqCst);
        })
    }

    /// Finds or makes the topics, with one more listener each.
    pub(super) fn join<'a>(&self, names: impl Iterator<Item = &'a str>, shard: usize) -> Interest {
        let mut topics: Vec<Arc<Topic>> = names.map(|name| self.with(name, |topic| topic.enter(shard))).collect();
        topics.sort_unstable_by_key(Arc::as_ptr);
        topics.dedup_by(|again, first| {
            let twice = Arc::ptr_eq(again, first);
            if twice {
                first.exit(shard);
            }
            twice
        });
        Interest::Topics(topics.into())
    }

    /// Runs `mark` on the topic while the map's guard is held, so that no `forget` comes between.
    fn with(&self, name: &str, mark: impl Fn(&Topic)) -> Arc<Topic> {
        if let Some(topic) = self.topics.get(name) {
            mark(&topic);
            return topic.clone();
        }
        let name: Arc<str> = name.into();
        let topic = self.topics.entry(name.clone()).or_insert_with(|| {
            let [lost, lost_ms] = lock(&self.dropped).lost(&name);
            Arc::new(Topic::new(name, self.shards, lost, lost_ms))
        });
        mark(&topic);
        topic.clone()
    }

    /// Drops those of the topics that are neither listened to nor hold events.
    pub(super) fn forget(&self, candidates: Vec<Arc<Topic>>) {
        for topic in candidates {
            self.topics.remove_if(&topic.name, |_, topic| {
                let unused = topic.is_unused();
                if unused && topic.lost() > 0 {
                    // Still under the map's guard: who makes the topic anew finds this.
                    lock(&self.dropped).note(&topic.name, [topic.lost(), topic.lost_ms()]);
                }
                unused
            });
        }
    }
}

/// What was lost of topics that were dropped altogether, in bounded memory: the newest lost sequence number, and when
/// that event had been accepted.
///
/// Two rows of buckets, each topic in one bucket a row, each bucket the maximum of its topics; the smaller of the two
/// is the answer. It is never too small, so no gap is silent, and too large only where both buckets are shared with
/// topics dropped later: after 1,000 dropped topics for about one topic in 4,000.
#[derive(Debug)]
struct Dropped {
    hashers: [RandomState; 2],
    rows: [Vec<[u64; 2]>; 2],
}

impl Dropped {
    /// 1 MiB a row, of which only touched pages take memory.
    const BUCKETS: usize = 1 << 16;

    fn new() -> Dropped {
        Dropped {
            hashers: [RandomState::new(), RandomState::new()],
            rows: [vec![[0; 2]; Dropped::BUCKETS], vec![[0; 2]; Dropped::BUCKETS]],
        }
    }

    fn bucket(&self, row: usize, name: &str) -> usize {
        self.hashers[row].hash_one(name) as usize % Dropped::BUCKETS
    }

    fn note(&mut self, name: &str, lost: [u64; 2]) {
        for row in 0..2 {
            let bucket = self.bucket(row, name);
            // Time goes with the order: the greater pair has both greater.
            let newest = &mut self.rows[row][bucket];
            *newest = lost.max(*newest);
        }
    }

    fn lost(&self, name: &str) -> [u64; 2] {
        let [a, b] = [0, 1].map(|row| self.rows[row][self.bucket(row, name)]);
        a.min(b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_topics_are_never_underestimated() {
        let mut dropped = Dropped::new();
        let names: Vec<String> = (0..1000).map(|n| format!("topic-{n}")).collect();
        for (n, name) in names.iter().enumerate() {
            dropped.note(name, [n as u64 + 1; 2]);
        }
        assert!(names.iter().enumerate().all(|(n, name)| dropped.lost(name)[0] > n as u64));
        let false_alarms = (0..10_000).filter(|n| dropped.lost(&format!("other-{n}"))[0] > 0).count();
        assert!(false_alarms < 30, "{false_alarms} of 10,000 never dropped topics look dropped");
    }
}
