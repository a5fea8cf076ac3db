//! Events, the topics that they go to, and the groups of topics that streams ask for by a prefix.
//!
//! An event holds its topic, and a topic's history holds its events, so both stand in this file.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use super::figures::TopicFigures;
use super::listeners::Listeners;
use super::rate::Pace;
use crate::clock::{Steady, Timestamp};
use crate::event::Owners;
use crate::frame::{Frame, Framing};
use crate::sync::lock;

/// An accepted event.
#[derive(Debug)]
pub struct Event {
    /// Its place in the order, counting from 1.
    pub seq: u64,
    /// When it was accepted; never before its predecessor.
    pub accepted: Steady,
    /// The topic that it went to.
    pub topic: Arc<Topic>,
    /// The users that it belongs to.
    pub owners: Owners,
    /// Its bytes on the wire.
    pub frame: Frame,
}

impl Event {
    /// The memory that a kept event takes, in bytes: the frame, this struct, and its places in the order and its topic.
    pub(super) fn weight(&self) -> usize {
        const PLACES: usize = 96;
        self.frame.footprint() + self.owners.footprint() + size_of::<Event>() + PLACES
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

    /// The topic's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Keeps the topic in the index until an event that is put into it has left again.
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

    /// Notes that an event left the history.
    pub(super) fn note_detached(&self, event: &Event) {
        self.detached.fetch_max(event.seq, SeqCst);
    }

    /// Notes that an event left the order. True if it was the topic's last one there.
    pub(super) fn note_lost(&self, event: &Event) -> bool {
        self.lost.fetch_max(event.seq, SeqCst);
        self.lost_ms.fetch_max(event.accepted.ms(), SeqCst);
        self.claims.fetch_sub(1, SeqCst) == 1
    }

    /// Whether this event of the topic has left the history.
    pub(super) fn is_detached(&self, event: &Event) -> bool {
        event.seq <= self.detached.load(SeqCst)
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.load(SeqCst)
    }

    /// When the newest evicted event had been accepted, in milliseconds; 0 if there is none.
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

    /// Appends the first `max` events after `cursor` and up to `upto` in the history. False if an event after `cursor`
    /// has left the history.
    pub(super) fn read(&self, cursor: u64, upto: u64, max: usize, out: &mut Vec<Arc<Event>>) -> bool {
        let history = lock(&self.history);
        let at = history.events.partition_point(|event| event.seq <= cursor);
        out.extend(history.events.range(at..).take_while(|event| event.seq <= upto).take(max).cloned());
        // While the history is locked, so that no event leaves between the two steps.
        self.detached.load(SeqCst) <= cursor
    }
}

/// The topics whose names begin with one prefix, for as long as a listener asks for that prefix. A group holds no
/// events; readers find them in the order.
#[derive(Debug)]
pub struct Group {
    prefix: Arc<str>,
    pub(super) listeners: Listeners,
}

impl Group {
    pub(super) fn new(prefix: Arc<str>, shards: usize) -> Group {
        Group { prefix, listeners: Listeners::new(shards) }
    }

    /// The prefix of the names, with its last dot.
    pub fn prefix(&self) -> &Arc<str> {
        &self.prefix
    }

    pub(super) fn contains(&self, topic: &Topic) -> bool {
        let name = topic.name();
        name.len() > self.prefix.len() && name.starts_with(&*self.prefix)
    }
}

/// A topic's kept events, oldest first, and the count of all that were published.
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
