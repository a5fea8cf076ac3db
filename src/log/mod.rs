//! The event log: it numbers accepted events in one order and keeps them within bounds.
//!
//! # The slow reader
//! A reader holds no queue; it holds a *cursor*, the sequence number up to which it has seen everything it asked for.
//! [`Log::read`] returns the events after the cursor. If an event of the reader's own topics after its cursor is no
//! longer kept, the read says so ([`Read::lost`]), and the stream is sent a gap. So a reader may be as slow as it
//! likes: it slows no other reader down, and it learns what it has missed. A live stream, a reconnecting one and a slow
//! one differ only in where their cursors stand.
//!
//! # What is kept
//! Each event stands in the order of all events and in its topic's history; both share one frame. It leaves when
//! - its topic holds more than [`LogConfig::topic_events`] (unless the event is among the newest
//!   [`LogConfig::live_events`] of all, which a reader slightly behind may need),
//! - it is older than [`LogConfig::max_age`],
//! - all events are over [`LogConfig::max_events`] or [`LogConfig::max_bytes`]: then the topic that holds the
//!   most bytes loses its oldest event, so that a chatty topic never pushes out a quiet one's last events.
//!
//! # Lock order
//! The order (`Log::order`), then one topic's history, then a shard of one of the index's maps, then the sketch of
//! dropped topics. A thread that holds a later one takes no earlier one; none is held across an `.await`.

mod config;
mod evicted;
mod figures;
mod index;
mod interest;
mod listeners;
pub mod listening;
mod order;
mod rate;
mod seek;
mod topic;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::clock::{Steady, Timestamp};
use crate::event::Draft;
use crate::id::{Epoch, EventId};
use crate::sync::lock;

pub use config::LogConfig;
pub use figures::{Held, TopicFigures};
use index::Index;
pub use interest::{Filter, Interest, Scope, Viewer};
use order::Order;
pub use rate::RATE_WINDOW;
pub use topic::{Event, Group, Topic};

/// The most events that one searching read examines under the lock, which takes some ten microseconds.
const LOOK_MAX: usize = 1024;

/// The result of an append.
#[derive(Debug)]
pub struct Appended {
    /// The sequence number of the last event.
    pub last: u64,
    /// The shards with listeners for any of the events: bit `n` for shard `n` (shards from 63 on share bit 63).
    pub shards: u64,
}

/// The result of a read, beside the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Read {
    /// The new cursor: the reader has now seen all of its own events up to here.
    pub cursor: u64,
    /// The newest evicted event of its own topics, if that is after the old cursor: then the reader has missed events.
    pub lost: Option<u64>,
}

/// The log and the topic index over it.
#[derive(Debug)]
pub struct Log {
    epoch: Epoch,
    /// [`LogConfig::watched`].
    watched: Box<[Arc<Topic>]>,
    order: Mutex<Order>,
    index: Index,
    /// The newest sequence number, readable without the lock. A shard looks at it before it goes to sleep.
    head: AtomicU64,
}

impl Log {
    /// An empty log for `shards` shards' listeners.
    pub fn new(config: LogConfig, shards: usize, epoch: Epoch) -> Log {
        let index = Index::new(shards);
        // A claim that is never taken back keeps them in the index.
        let watched = config.watched.iter().map(|name| index.claim(name)).collect();
        Log { epoch, watched, order: Mutex::new(Order::new(config)), index, head: AtomicU64::new(0) }
    }

    /// The epoch, which begins each id.
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

    /// Accepts events: gives them consecutive sequence numbers and makes them readable.
    pub fn append(&self, drafts: Vec<Draft>, now: Timestamp) -> Appended {
        // Topics are found before the order is locked; the claim keeps them in the index until the event is in.
        let claimed: Vec<_> = drafts.into_iter().map(|d| (self.index.claim(&d.topic), d.frame, d.owners)).collect();
        let mut topics = Vec::with_capacity(claimed.len());
        let mut order = self.order();
        for (topic, frame, owners) in claimed {
            order.push(&topic, frame, owners, &self.epoch, now);
            topics.push(topic);
        }
        let dropped = order.trim(now);
        let last = order.newest();
        self.head.store(last, Ordering::SeqCst);
        drop(order);

        // After the order's lock: a listener that joined before it read the head needs a wake, and is seen here.
        let shards = topics.iter().fold(0, |set, topic| set | self.index.shards_for(topic));
        self.index.forget(dropped);
        Appended { last, shards }
    }

    /// Evicts events that are too old. Call it about once a second: events age also while none are published.
    pub fn expire(&self, now: Timestamp) {
        let dropped = self.order().trim(now);
        self.index.forget(dropped);
    }

    /// Takes one listener away again; `Listening` does this when it is dropped.
    pub fn leave(&self, interest: &Interest, shard: usize) {
        self.index.leave(&interest.scope, shard);
    }

    /// A shard's read: all events after `cursor` that any listener of the shard wants. It examines at most `max`
    /// events. Its [`Read::lost`] counts evicted events of any topic.
    pub fn read_shard(&self, shard: usize, cursor: u64, max: usize, out: &mut Vec<Arc<Event>>) -> Read {
        let order = self.order();
        let lost = Some(order.lost()).filter(|&lost| lost > cursor);
        let mut seen = 0;
        let mut last = cursor;
        for event in order.after(cursor).take(max) {
            seen += 1;
            last = event.seq;
            if self.index.is_wanted(&event.topic, shard) {
                out.push(event.clone());
            }
        }
        Read { cursor: if seen == max { last } else { order.newest() }, lost }
    }

    /// One reader's read: appends the events of its interest after `cursor` and up to `upto`, in order, to `out`, which
    /// is empty. It appends at most `max`, which is at least 1. It examines a bounded number of events, so a read that
    /// finds nothing may still stop before `upto`, at the cursor that it returns.
    pub fn read(&self, interest: &Interest, cursor: u64, upto: u64, max: usize, out: &mut Vec<Arc<Event>>) -> Read {
        let Some(filter) = &interest.filter else { return self.read_scope(&interest.scope, cursor, upto, max, out) };
        let mut read = self.read_scope(&interest.scope, cursor, upto, max.max(LOOK_MAX), out);
        out.retain(|event| filter.lets(event));
        if out.len() > max {
            out.truncate(max);
            read.cursor = out[max - 1].seq;
        }
        read
    }

    fn read_scope(&self, scope: &Scope, cursor: u64, upto: u64, max: usize, out: &mut Vec<Arc<Event>>) -> Read {
        let mut stopped = None;
        let lost = match scope {
            Scope::All => {
                let order = self.order();
                out.extend(order.after(cursor).take_while(|event| event.seq <= upto).take(max).cloned());
                order.lost()
            }
            Scope::Some { topics, groups } if groups.is_empty() => {
                let mut complete = true;
                for topic in topics {
                    complete &= topic.read(cursor, upto, max, out);
                }
                let lost = if complete {
                    0
                } else {
                    out.clear();
                    self.read_with_detached(topics, cursor, upto, max, out)
                };
                if topics.len() > 1 || !complete {
                    // Each gave its own first `max`: the first `max` of them all are among these.
                    out.sort_unstable_by_key(|event| event.seq);
                    out.truncate(max);
                }
                lost
            }
            // A group does not know its topics, so their events are searched for in the order.
            Scope::Some { topics, groups } => {
                let order = self.order();
                let mut looked_to = cursor;
                for (looked, event) in order.after(cursor).take_while(|event| event.seq <= upto).enumerate() {
                    if looked == LOOK_MAX || out.len() == max {
                        stopped = Some(looked_to);
                        break;
                    }
                    looked_to = event.seq;
                    if scope.contains(&event.topic) {
                        out.push(event.clone());
                    }
                }
                newest_lost(&order, topics, groups)
            }
        };
        let full = out.last().filter(|_| out.len() == max).map(|event| event.seq);
        let cursor_now = stopped.or(full).unwrap_or(upto.max(cursor));
        Read { cursor: cursor_now, lost: Some(lost).filter(|&lost| lost > cursor) }
    }

    /// The same for topics whose histories have evicted events, some of which may still stand in the order. It holds
    /// the order's lock throughout, so that no event leaves meanwhile. Returns the newest event that has left the order
    /// too.
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

    /// The newest evicted event of this interest's topics; 0 if there is none.
    pub fn lost(&self, interest: &Interest) -> u64 {
        match &interest.scope {
            Scope::All => self.order().lost(),
            Scope::Some { topics, groups } => newest_lost(&self.order(), topics, groups),
        }
    }

    /// The busiest topics, at most `most` of them: by events per second, then by listeners, then by name. It looks at
    /// every topic.
    pub fn busiest(&self, most: usize, now: Timestamp) -> Vec<TopicFigures> {
        let mut figures: Vec<_> = self.index.topics().map(|topic| topic.figures(now)).collect();
        let order = |one: &TopicFigures, other: &TopicFigures| {
            let by_traffic = other.rate.total_cmp(&one.rate).then(other.listeners.cmp(&one.listeners));
            by_traffic.then_with(|| one.topic.cmp(&other.topic))
        };
        if let Some(last) = most.checked_sub(1).filter(|&last| last < figures.len()) {
            figures.select_nth_unstable_by(last, order);
        }
        figures.truncate(most);
        figures.sort_unstable_by(order);
        figures
    }

    /// Figures of one topic, if it is in the index.
    pub fn topic(&self, name: &str, now: Timestamp) -> Option<TopicFigures> {
        self.index.get(name).map(|topic| topic.figures(now))
    }

    /// Figures of the topics that are watched.
    pub fn watched(&self, now: Timestamp) -> impl Iterator<Item = TopicFigures> {
        self.watched.iter().map(move |topic| topic.figures(now))
    }

    /// When the first kept event after `cursor` was accepted.
    pub fn accepted_after(&self, cursor: u64) -> Option<Steady> {
        self.order().after(cursor).next().map(|event| event.accepted)
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
            published_bytes: order.published_bytes(),
        }
    }

    fn order(&self) -> MutexGuard<'_, Order> {
        lock(&self.order)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // Events hold their topics and topics hold their events: emptying the histories breaks this cycle of `Arc`s.
        self.order().clear();
    }
}

/// The newest lost event of these topics.
fn newest_lost(order: &Order, topics: &[Arc<Topic>], groups: &[Arc<Group>]) -> u64 {
    let groups = groups.iter().map(|group| order.lost_of(group.prefix())[0]);
    topics.iter().map(|topic| topic.lost()).chain(groups).max().unwrap_or(0)
}

/// Whether the event went to one of these topics.
fn is_of(event: &Event, topics: &[Arc<Topic>]) -> bool {
    topics.iter().any(|topic| Arc::ptr_eq(topic, &event.topic))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pattern::Pattern;

    const MINUTE_MS: u64 = 60_000;
    const THREE_HOURS_MS: i64 = 180 * MINUTE_MS as i64;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_unix_ms(1_800_000_000_000 + ms)
    }

    fn publish(log: &Log, now: Timestamp) {
        let draft = Draft::from_json(r#"{"topic":"a","type":"k","data":{}}"#, now).expect("an event");
        log.append(vec![draft], now);
        log.expire(now);
    }

    #[test]
    fn a_wall_clock_that_jumps_empties_nothing_and_since_finds_what_it_asks_for() {
        for jump in [THREE_HOURS_MS, -THREE_HOURS_MS] {
            // The default keeps events for an hour.
            let log = Arc::new(Log::new(LogConfig::default(), 1, Epoch::fresh(at(0))));
            let listening = log.join(&[Pattern::parse("a").expect("a topic")], None, 0);
            let all = log.join(&[Pattern::All], None, 0);
            publish(&log, at(0));
            // For two seconds the clock is wrong.
            publish(&log, at(10 * MINUTE_MS).set_by(jump));
            log.expire(at(10 * MINUTE_MS + 1000).set_by(jump));
            publish(&log, at(10 * MINUTE_MS + 2000));
            publish(&log, at(20 * MINUTE_MS));
            assert_eq!(log.held().events, 4, "{jump}");

            let now = at(21 * MINUTE_MS);
            let finds = |since: Steady, after: u64| {
                for one in [&listening, &all] {
                    assert_eq!(log.cursor_since(one.interest(), since), (after, false), "{jump}: {since:?}");
                }
            };
            for (minutes, after) in [(0, 0), (5, 1), (15, 3), (21, 4)] {
                let given = at(minutes * MINUTE_MS);
                finds(now.steady_at(given), after);
                // A span is the same whatever the clock says while it is asked for.
                let span = Duration::from_millis((21 - minutes) * MINUTE_MS);
                finds(now.set_by(jump).steady().before(span), after);
            }
            finds(now.steady_at(at(10 * MINUTE_MS + 1000)), 2);

            let figures = log.topic("a", at(20 * MINUTE_MS + 1000)).expect("it has listeners");
            assert!((figures.rate - 0.1).abs() < 0.02, "{jump}: {} a second", figures.rate);
            assert_eq!(figures.last_published, Some(at(20 * MINUTE_MS)));

            // And they leave in time.
            log.expire(at(60 * MINUTE_MS + 1).set_by(jump));
            assert_eq!((log.held().events, log.held().oldest), (3, 2), "{jump}");
            assert_eq!(log.cursor_since(all.interest(), at(0).steady()), (1, true), "the first one is missed");
            log.expire(at(80 * MINUTE_MS + 1));
            assert_eq!(log.held().events, 0, "{jump}");
        }
    }
}
