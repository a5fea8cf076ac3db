//! The order: all kept events in one sequence, and the rules by which they are evicted.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::sync::Arc;

use super::config::LogConfig;
use super::evicted::Evicted;
use super::topic::{Event, History, Topic};
use crate::clock::{Steady, Timestamp};
use crate::event::Owners;
use crate::frame::{Framing, Unsealed};
use crate::id::Epoch;
use crate::pattern;
use crate::sync::lock;

/// The memory that a topic with history takes beside its events, in bytes: the struct, its name twice, its entries in
/// the maps.
const TOPIC_WEIGHT: usize = 512;

/// Topics by the bytes that they hold. The last one holds the most, and among equals the oldest event.
type ByWeight = BTreeMap<(usize, Reverse<u64>), Arc<Topic>>;

/// Kept events in a deque, oldest first. An event that leaves from the middle leaves a hole, and holes are removed once
/// they are as many as the events: every operation is O(log n), amortized.
#[derive(Debug)]
pub(super) struct Order {
    config: LogConfig,
    places: VecDeque<Place>,
    events: usize,
    bytes: usize,
    by_weight: ByWeight,
    /// Events that have left their topics' histories and are kept only as some of the newest.
    detached: BTreeSet<u64>,
    emptied: Vec<Arc<Topic>>,
    newest: u64,
    /// When the newest event was accepted.
    newest_at: Steady,
    /// The bytes of all events' frames, also of those that left.
    published_bytes: u64,
    /// The newest evicted event, and when it had been accepted.
    lost: u64,
    lost_ms: u64,
    /// The same by the prefixes of topic names.
    lost_by_prefix: Evicted,
}

#[derive(Debug)]
struct Place {
    seq: u64,
    accepted_ms: u64,
    event: Option<Arc<Event>>,
}

impl Order {
    pub(super) fn new(config: LogConfig) -> Order {
        Order {
            config,
            places: VecDeque::new(),
            events: 0,
            bytes: 0,
            by_weight: BTreeMap::new(),
            detached: BTreeSet::new(),
            emptied: Vec::new(),
            newest: 0,
            newest_at: Steady::from_ms(0),
            published_bytes: 0,
            lost: 0,
            lost_ms: 0,
            lost_by_prefix: Evicted::new(),
        }
    }

    /// Gives an event its place here and in its topic.
    pub(super) fn push(&mut self, topic: &Arc<Topic>, frame: Unsealed, owners: Owners, epoch: &Epoch, now: Timestamp) {
        self.newest += 1;
        // Two publishers may read the clock in one order and come here in the other. The search by time needs moments
        // that never go back.
        self.newest_at = self.newest_at.max(now.steady());
        let event = Arc::new(Event {
            seq: self.newest,
            accepted: self.newest_at,
            topic: topic.clone(),
            owners,
            frame: frame.seal(epoch, self.newest),
        });
        self.events += 1;
        self.bytes += event.weight();
        self.published_bytes += event.frame.bytes(Framing::Plain).len() as u64;
        let (seq, accepted_ms) = (event.seq, event.accepted.ms());
        self.places.push_back(Place { seq, accepted_ms, event: Some(event.clone()) });

        let mut history = lock(topic.history());
        self.reweigh(topic, &mut history, |history| history.push(event, now));
        while history.len() > self.config.topic_events {
            self.evict_oldest_of(topic, &mut history);
        }
        drop(history);
        self.slide_live_window();
    }

    /// Applies the bounds on age, on all events and on all bytes. Returns the topics that have lost their last event
    /// since the last call: they may be unused now.
    pub(super) fn trim(&mut self, now: Timestamp) -> Vec<Arc<Topic>> {
        let expired = now.steady().before(self.config.max_age);
        loop {
            let oldest = self.oldest().filter(|event| event.accepted < expired).cloned();
            let Some(oldest) = oldest else { break };
            self.evict(&oldest.topic, oldest.seq);
        }
        while self.events > self.config.max_events || self.bytes > self.config.max_bytes {
            // Events that only the live window keeps go first: they are in no history any more.
            if let Some(seq) = self.detached.pop_first() {
                self.remove(seq);
                continue;
            }
            let Some(((_, Reverse(oldest)), heaviest)) = self.by_weight.last_key_value() else { break };
            let (oldest, topic) = (*oldest, heaviest.clone());
            self.evict(&topic, oldest);
        }
        self.sweep_holes();
        mem::take(&mut self.emptied)
    }

    /// Evicts the event `seq` from the order and, with all earlier events there, from its topic's history.
    fn evict(&mut self, topic: &Arc<Topic>, seq: u64) {
        let mut history = lock(topic.history());
        while history.oldest().is_some_and(|event| event.seq <= seq) {
            self.evict_oldest_of(topic, &mut history);
        }
        self.remove(seq);
    }

    /// Takes the oldest event out of its topic's history, and out of the order unless the live window has it.
    fn evict_oldest_of(&mut self, topic: &Arc<Topic>, history: &mut History) {
        let mut evicted = None;
        self.reweigh(topic, history, |history| evicted = history.pop());
        let Some(event) = evicted else { return };
        topic.note_detached(&event);
        match self.is_live(event.seq - 1) {
            true => {
                self.detached.insert(event.seq);
            }
            false => self.remove(event.seq),
        }
    }

    /// Removes the events that have left the live window and had left their topics' histories before.
    fn slide_live_window(&mut self) {
        while let Some(seq) = self.detached.first().copied().filter(|seq| !self.is_live(seq - 1)) {
            self.detached.pop_first();
            self.remove(seq);
        }
    }

    /// Empties the place of `seq`.
    fn remove(&mut self, seq: u64) {
        let at = self.places.partition_point(|place| place.seq < seq);
        let Some(place) = self.places.get_mut(at).filter(|place| place.seq == seq) else { return };
        let Some(event) = place.event.take() else { return };
        self.detached.remove(&seq);
        self.events -= 1;
        self.bytes -= event.weight();
        if event.topic.note_lost(&event) {
            self.emptied.push(event.topic.clone());
        }
        if seq > self.lost {
            (self.lost, self.lost_ms) = (seq, event.accepted.ms());
        }
        for prefix in pattern::prefixes(event.topic.name()) {
            self.lost_by_prefix.note(prefix, [seq, event.accepted.ms()]);
        }
        while self.places.front().is_some_and(|place| place.event.is_none()) {
            self.places.pop_front();
        }
    }

    fn sweep_holes(&mut self) {
        const NOT_WORTH_IT: usize = 1024;
        if self.places.len() > 2 * self.events + NOT_WORTH_IT {
            self.places.retain(|place| place.event.is_some());
        }
    }

    /// Changes a topic's history and keeps its place among the topics by weight.
    fn reweigh(&mut self, topic: &Arc<Topic>, history: &mut History, change: impl FnOnce(&mut History)) {
        if let Some(key) = weight_key(history) {
            self.by_weight.remove(&key);
            self.bytes -= TOPIC_WEIGHT;
        }
        change(history);
        if let Some(key) = weight_key(history) {
            self.by_weight.insert(key, topic.clone());
            self.bytes += TOPIC_WEIGHT;
        }
    }

    /// The oldest kept event; the front place is never a hole.
    pub(super) fn oldest(&self) -> Option<&Arc<Event>> {
        self.places.front().and_then(|place| place.event.as_ref())
    }

    /// The kept events after `cursor`, in order.
    pub(super) fn after(&self, cursor: u64) -> impl Iterator<Item = &Arc<Event>> {
        let at = self.places.partition_point(|place| place.seq <= cursor);
        self.places.range(at..).filter_map(|place| place.event.as_ref())
    }

    /// The kept events up to `cursor`, newest first.
    pub(super) fn back_from(&self, cursor: u64) -> impl Iterator<Item = &Arc<Event>> {
        let end = self.places.partition_point(|place| place.seq <= cursor);
        self.places.range(..end).rev().filter_map(|place| place.event.as_ref())
    }

    /// The `n`th newest kept event, counting from 0.
    pub(super) fn nth_newest(&self, n: usize) -> Option<&Arc<Event>> {
        if n >= self.events {
            return None;
        }
        if self.places.len() == self.events {
            return self.places.get(self.events - 1 - n).and_then(|place| place.event.as_ref());
        }
        self.places.iter().rev().filter_map(|place| place.event.as_ref()).nth(n)
    }

    /// The first kept event that was accepted at `ms` or later.
    pub(super) fn since(&self, ms: u64) -> Option<&Arc<Event>> {
        let at = self.places.partition_point(|place| place.accepted_ms < ms);
        self.places.range(at..).find_map(|place| place.event.as_ref())
    }

    /// Whether everything after `cursor` is within the live window.
    fn is_live(&self, cursor: u64) -> bool {
        cursor >= self.live_from()
    }

    /// The cursor from which the live window begins.
    fn live_from(&self) -> u64 {
        self.newest.saturating_sub(self.config.live_events as u64)
    }

    /// The events after `cursor` that are in no history any more, and stand here as some of the newest of all.
    pub(super) fn detached_after(&self, cursor: u64) -> impl Iterator<Item = &Arc<Event>> {
        self.after(cursor.max(self.live_from())).filter(|event| event.topic.is_detached(event))
    }

    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    pub(super) fn lost_ms(&self) -> u64 {
        self.lost_ms
    }

    /// The newest lost event of topics whose names begin so, and when that had been accepted.
    pub(super) fn lost_of(&self, prefix: &str) -> [u64; 2] {
        self.lost_by_prefix.lost(prefix)
    }

    pub(super) fn published_bytes(&self) -> u64 {
        self.published_bytes
    }

    pub(super) fn len(&self) -> usize {
        self.events
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Lets go of everything.
    pub(super) fn clear(&mut self) {
        for (_, topic) in mem::take(&mut self.by_weight) {
            lock(topic.history()).clear();
        }
        self.places.clear();
        self.detached.clear();
    }
}

fn weight_key(history: &History) -> Option<(usize, Reverse<u64>)> {
    history.oldest().map(|oldest| (history.bytes(), Reverse(oldest.seq)))
}
