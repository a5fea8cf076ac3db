//! The log: every accepted event, in one order, for as long as it is kept.
//!
//! # The slow reader
//! A reader holds no queue; it holds a *cursor*, the sequence number up to which it has seen everything it asked for.
//! [`Log::read`] gives what comes after. If an event of the reader's own topics after its cursor is no longer kept,
//! the read says so ([`Read::lost`]), and the reader is told of a gap. So a reader may be as slow as it likes: it costs
//! nobody anything, and what it misses it knows. A live stream, a reconnecting one and a slow one differ only in
//! where their cursors stand.
//!
//! # What is kept
//! Each event stands in the order (all events) and in its topic's history, the same shared frame. It leaves when
//! - its topic holds more than [`LogConfig::topic_events`] (unless it is among the newest
//!   [`LogConfig::live_events`] of all, which a reader just behind may need),
//! - it is older than [`LogConfig::max_age`],
//! - everything together is over [`LogConfig::max_events`] or [`LogConfig::max_bytes`]: then the topic that holds the
//!   most bytes gives up its oldest, so that a chatty topic never pushes out a quiet one's last events.
//!
//! # Lock order
//! The order (`Log::order`), then one topic's history, then a shard of the index's map, then the memory of dropped
//! topics. Each is taken only while those after it are free; none is held across an `.await`.

mod order;
mod topic;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Now;
use crate::event::{ALL, Draft};
use crate::frame::Frame;
use crate::id::{Epoch, EventId};

use order::Order;
use topic::Index;
pub use topic::{Interest, Listening, Topic};

/// What the log keeps.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Events kept, all topics together.
    pub max_events: usize,
    /// Bytes kept, all topics together: frames and what it takes to hold them.
    pub max_bytes: usize,
    /// How long an event is kept.
    pub max_age: Duration,
    /// Events kept of one topic.
    pub topic_events: usize,
    /// The newest events of all, kept past their topic's bound.
    pub live_events: usize,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig {
            max_events: 1_000_000,
            max_bytes: 64 << 20,
            max_age: Duration::from_secs(3600),
            topic_events: 10_000,
            live_events: 1_024,
        }
    }
}

/// An accepted event.
#[derive(Debug)]
pub struct Event {
    /// Its place in the order, counting from 1.
    pub seq: u64,
    /// When it was accepted, in milliseconds since 1970; never less than its predecessor's.
    pub accepted_ms: u64,
    /// Where it went.
    pub topic: Arc<Topic>,
    /// Its bytes.
    pub frame: Frame,
}

impl Event {
    /// The bytes that keeping it takes: the frame, this, and its places in the order and in its topic.
    fn weight(&self) -> usize {
        const PLACES: usize = 96;
        self.frame.footprint() + size_of::<Event>() + PLACES
    }
}

/// What an append did.
#[derive(Debug)]
pub struct Appended {
    /// The sequence number of the last event.
    pub last: u64,
    /// Which shards have listeners for any of the events: bit `n` for shard `n` (shards from 63 on share bit 63).
    pub shards: u64,
}

/// What a read gave, beside the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Read {
    /// The reader has now seen all of its own up to here.
    pub cursor: u64,
    /// The newest event of its own that it can no longer have, if that is after the cursor it came with.
    pub lost: Option<u64>,
}

/// Figures of what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Events.
    pub events: usize,
    /// Bytes.
    pub bytes: usize,
    /// Topics, with history or with listeners.
    pub topics: usize,
    /// The oldest event's sequence number, 0 where none is kept.
    pub oldest: u64,
    /// The newest sequence number given, 0 before the first.
    pub newest: u64,
}

/// The log and the topic index over it.
#[derive(Debug)]
pub struct Log {
    epoch: Epoch,
    order: Mutex<Order>,
    index: Index,
    /// The newest sequence number, readable without the lock: what a shard looks at before it goes to sleep.
    head: AtomicU64,
}

impl Log {
    /// An empty log for `shards` shards' listeners.
    pub fn new(config: LogConfig, shards: usize, epoch: Epoch) -> Log {
        Log { epoch, order: Mutex::new(Order::new(config)), index: Index::new(shards), head: AtomicU64::new(0) }
    }

    /// The name of this history.
    pub fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// The id of the event with sequence number `seq`.
    pub fn id(&self, seq: u64) -> EventId<'_> {
        EventId { epoch: self.epoch.as_str(), seq }
    }

    /// The newest sequence number. Ordered (`SeqCst`) against the wake latch: see `fanout/latch.rs`.
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::SeqCst)
    }

    /// Accepts events: they get consecutive places in the order and can be read from then on.
    pub fn append(&self, drafts: Vec<Draft>, now: Now) -> Appended {
        // Topics are found before the order is locked; the claim keeps them in the index until the event is in.
        let claimed: Vec<_> = drafts.into_iter().map(|d| (self.index.claim(&d.topic), d.frame)).collect();
        let mut topics = Vec::with_capacity(claimed.len());
        let mut order = self.order();
        for (topic, frame) in claimed {
            order.push(&topic, frame, &self.epoch, now);
            topics.push(topic);
        }
        let dropped = order.trim(now);
        let last = order.newest();
        self.head.store(last, Ordering::SeqCst);
        drop(order);

        // After the order: whoever joined before it read the head, and so needs a wake, is seen here.
        let shards = topics.iter().fold(self.index.everything().shards(), |set, topic| set | topic.shards());
        self.index.forget(dropped);
        Appended { last, shards }
    }

    /// Lets go of what is too old by now. To be called about once a second: a silent log ages too.
    pub fn expire(&self, now: Now) {
        let dropped = self.order().trim(now);
        self.index.forget(dropped);
    }

    /// Registers a listener of `shard` for the named topics, and with it the right to be woken for them.
    ///
    /// Whoever joins first and reads the head afterwards misses nothing: an event is either at or before that head,
    /// or its publisher sees the listener.
    pub fn join<'a>(self: &Arc<Self>, names: impl Iterator<Item = &'a str> + Clone, shard: usize) -> Listening {
        let interest = match names.clone().any(|name| name == ALL) {
            true => Interest::All,
            false => self.index.join(names, shard),
        };
        if let Interest::All = interest {
            self.index.everything().enter(shard);
        }
        Listening::new(self.clone(), interest, shard)
    }

    /// Takes one listener away again; `Listening` does this when it is dropped.
    pub fn leave(&self, interest: &Interest, shard: usize) {
        match interest {
            Interest::All => self.index.everything().exit(shard),
            Interest::Topics(topics) => {
                for topic in topics {
                    topic.exit(shard);
                }
                self.index.forget(topics.iter().filter(|topic| topic.is_unused()).cloned().collect());
            }
        }
    }

    /// Whether any listener of `shard` wants this topic's events.
    fn wanted(&self, topic: &Topic, shard: usize) -> bool {
        topic.has_listeners(shard) || self.index.everything().has_listeners(shard)
    }

    /// The shard's own read: all events after `cursor` that any of its listeners wants, at most `max` looked at.
    /// `lost` here counts events of any topic.
    pub fn read_shard(&self, shard: usize, cursor: u64, max: usize, out: &mut Vec<Arc<Event>>) -> Read {
        let order = self.order();
        let lost = Some(order.lost()).filter(|&lost| lost > cursor);
        let mut seen = 0;
        let mut last = cursor;
        for event in order.after(cursor).take(max) {
            seen += 1;
            last = event.seq;
            if self.wanted(&event.topic, shard) {
                out.push(event.clone());
            }
        }
        Read { cursor: if seen == max { last } else { order.newest() }, lost }
    }

    /// One reader's read: the events of its interest after `cursor` and up to `upto`, in order, at most `max` (which
    /// is at least 1).
    pub fn read(&self, interest: &Interest, cursor: u64, upto: u64, max: usize, out: &mut Vec<Arc<Event>>) -> Read {
        let from = out.len();
        let lost = match interest {
            Interest::All => {
                let order = self.order();
                out.extend(order.after(cursor).take_while(|event| event.seq <= upto).take(max).cloned());
                order.lost()
            }
            Interest::Topics(topics) => {
                let mut complete = true;
                for topic in topics {
                    complete &= topic.read(cursor, upto, max, out);
                }
                let lost = if complete {
                    0
                } else {
                    out.truncate(from);
                    self.read_with_detached(topics, cursor, upto, max, out)
                };
                if topics.len() > 1 || !complete {
                    // Each gave its own first `max`: the first `max` of them all are among these.
                    out[from..].sort_unstable_by_key(|event| event.seq);
                    out.truncate(from + max);
                }
                lost
            }
        };
        let seen = if out.len() - from == max { out[out.len() - 1].seq } else { upto.max(cursor) };
        Read { cursor: seen, lost: Some(lost).filter(|&lost| lost > cursor) }
    }

    /// The same for topics that have put events out of their histories: some of them may still stand in the order.
    /// All under its lock, so that nothing leaves meanwhile. Gives the newest that is lost.
    fn read_with_detached(
        &self,
        topics: &[Arc<Topic>],
        cursor: u64,
        upto: u64,
        max: usize,
        out: &mut Vec<Arc<Event>>,
    ) -> u64 {
        let order = self.order();
        for topic in topics {
            topic.read(cursor, upto, max, out);
        }
        let detached = order.detached_after(cursor).take_while(|event| event.seq <= upto);
        out.extend(detached.filter(|event| is_of(event, topics)).cloned());
        topics.iter().map(|topic| topic.lost()).max().unwrap_or(0)
    }

    /// The oldest event kept of this interest, 0 where there is none.
    pub fn oldest(&self, interest: &Interest) -> u64 {
        let order = self.order();
        let oldest = match interest {
            Interest::All => order.oldest().map(|event| event.seq),
            Interest::Topics(topics) => {
                let detached = order.detached_after(0).find(|event| is_of(event, topics)).map(|event| event.seq);
                topics.iter().filter_map(|topic| topic.oldest()).chain(detached).min()
            }
        };
        oldest.unwrap_or(0)
    }

    /// The newest event of this interest that was kept once and is no longer, 0 where there is none.
    pub fn lost(&self, interest: &Interest) -> u64 {
        match interest {
            Interest::All => self.order().lost(),
            Interest::Topics(topics) => topics.iter().map(|topic| topic.lost()).max().unwrap_or(0),
        }
    }

    /// The cursor from which a reader sees the newest `n` events of its interest that are kept.
    pub fn cursor_before_last(&self, interest: &Interest, n: usize) -> u64 {
        let Some(back) = n.checked_sub(1) else { return self.head() };
        let order = self.order();
        let nth = match interest {
            Interest::All => order.nth_newest(back).map(|event| event.seq),
            Interest::Topics(topics) => {
                let detached = order.detached_after(0).filter(|event| is_of(event, topics)).map(|event| event.seq);
                let mut seqs: Vec<u64> = topics.iter().flat_map(|topic| topic.newest(n)).chain(detached).collect();
                seqs.sort_unstable_by(|a, b| b.cmp(a));
                seqs.get(back).copied()
            }
        };
        nth.map_or(0, |seq| seq - 1)
    }

    /// The cursor from which a reader sees what was accepted at `since` or later, and whether events of its interest
    /// from after that moment are no longer kept.
    pub fn cursor_since(&self, interest: &Interest, since: Now) -> (u64, bool) {
        // 0 stands for "nothing lost" below.
        let since_ms = since.unix_ms().max(1);
        let order = self.order();
        let cursor = order.since(since_ms).map_or(order.newest(), |event| event.seq - 1);
        let lost = match interest {
            Interest::All => order.lost_ms() >= since_ms,
            Interest::Topics(topics) => topics.iter().any(|topic| topic.lost_ms() >= since_ms || topic.lost() > cursor),
        };
        (cursor, lost)
    }

    /// Figures of what is kept.
    pub fn held(&self) -> Held {
        let topics = self.index.len();
        let order = self.order();
        Held {
            events: order.len(),
            bytes: order.bytes(),
            topics,
            oldest: order.oldest().map_or(0, |event| event.seq),
            newest: order.newest(),
        }
    }

    fn order(&self) -> MutexGuard<'_, Order> {
        lock(&self.order)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // Events hold their topics and topics their events: emptying the histories unties the knot.
        self.order.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Whether the event went to one of these topics.
fn is_of(event: &Event, topics: &[Arc<Topic>]) -> bool {
    topics.iter().any(|topic| Arc::ptr_eq(topic, &event.topic))
}

/// Locks; a panic elsewhere while it was held is a bug that was reported there, and no reason to stop the broker.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
