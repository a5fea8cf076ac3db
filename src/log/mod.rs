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
//! The order (`Log::order`), then one topic's history, then a shard of one of the index's maps, then the memory of dropped
//! topics. Each is taken only while those after it are free; none is held across an `.await`.

mod index;
mod interest;
mod losses;
mod order;
mod topic;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::clock::{Steady, Timestamp};
use crate::event::{Draft, Owners};
use crate::frame::Frame;
use crate::id::{Epoch, EventId};
use crate::pattern::Pattern;
use crate::sync::lock;

pub use index::Group;
use index::Index;
pub use interest::{Filter, Interest, Listening, Scope, Viewer};
use order::Order;
pub use topic::{RATE_WINDOW, Topic};

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
    /// Topics that stay in the index, and so keep counting, whether they are in use or not.
    pub watched: Box<[Box<str>]>,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig {
            max_events: 1_000_000,
            max_bytes: 64 << 20,
            max_age: Duration::from_secs(3600),
            topic_events: 10_000,
            live_events: 1_024,
            watched: Box::default(),
        }
    }
}

/// Events looked at under the lock by one read that has to search: some ten microseconds.
const LOOK_MAX: usize = 1024;

/// An accepted event.
#[derive(Debug)]
pub struct Event {
    /// Its place in the order, counting from 1.
    pub seq: u64,
    /// When it was accepted; never before its predecessor.
    pub accepted: Steady,
    /// Where it went.
    pub topic: Arc<Topic>,
    /// Whose it is.
    pub owners: Owners,
    /// Its bytes.
    pub frame: Frame,
}

impl Event {
    /// The bytes that keeping it takes: the frame, this, and its places in the order and in its topic.
    fn weight(&self) -> usize {
        const PLACES: usize = 96;
        self.frame.footprint() + self.owners.footprint() + size_of::<Event>() + PLACES
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
    /// The bytes of all events' frames since the start.
    pub published_bytes: u64,
}

/// Figures of a topic. What is counted is counted since the topic is in the index: one that nobody listens to and of
/// which nothing is kept leaves it.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicFigures {
    /// Its name.
    pub topic: Arc<str>,
    /// Streams that ask for it by its name.
    pub listeners: u64,
    /// How many have come.
    pub joined: u64,
    /// How many of them have left.
    pub left: u64,
    /// Events accepted.
    pub events_published: u64,
    /// The bytes of their frames.
    pub bytes_published: u64,
    /// Events a second, over the last [`RATE_WINDOW`].
    pub rate: f64,
    /// Events kept of it.
    pub events: usize,
    /// The oldest of them, 0 where there is none.
    pub oldest: u64,
    /// The newest of them, 0 where there is none.
    pub newest: u64,
    /// When the last one was accepted.
    pub last_published: Option<Timestamp>,
    /// The newest of its events that is no longer kept, 0 where there is none.
    pub lost: u64,
}

/// The log and the topic index over it.
#[derive(Debug)]
pub struct Log {
    epoch: Epoch,
    /// [`LogConfig::watched`].
    watched: Box<[Arc<Topic>]>,
    order: Mutex<Order>,
    index: Index,
    /// The newest sequence number, readable without the lock: what a shard looks at before it goes to sleep.
    head: AtomicU64,
}

impl Log {
    /// An empty log for `shards` shards' listeners.
    pub fn new(config: LogConfig, shards: usize, epoch: Epoch) -> Log {
        let index = Index::new(shards);
        // Claimed for good: that is what keeps them there.
        let watched = config.watched.iter().map(|name| index.claim(name)).collect();
        Log { epoch, watched, order: Mutex::new(Order::new(config)), index, head: AtomicU64::new(0) }
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

        // After the order: whoever joined before it read the head, and so needs a wake, is seen here.
        let shards = topics.iter().fold(0, |set, topic| set | self.index.shards_for(topic));
        self.index.forget(dropped);
        Appended { last, shards }
    }

    /// Lets go of what is too old by now. To be called about once a second: a silent log ages too.
    pub fn expire(&self, now: Timestamp) {
        let dropped = self.order().trim(now);
        self.index.forget(dropped);
    }

    /// Registers a listener of `shard` for what the patterns name, and with it the right to be woken for it.
    ///
    /// Whoever joins first and reads the head afterwards misses nothing: an event is either at or before that head,
    /// or its publisher sees the listener.
    pub fn join(self: &Arc<Self>, patterns: &[Pattern], filter: Option<Filter>, shard: usize) -> Listening {
        let scope = self.index.join(patterns, shard);
        Listening::new(self.clone(), Interest { scope, filter: filter.map(Arc::new) }, shard)
    }

    /// Takes one listener away again; `Listening` does this when it is dropped.
    pub fn leave(&self, interest: &Interest, shard: usize) {
        self.index.leave(&interest.scope, shard);
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
            if self.index.is_wanted(&event.topic, shard) {
                out.push(event.clone());
            }
        }
        Read { cursor: if seen == max { last } else { order.newest() }, lost }
    }

    /// One reader's read: the events of its interest after `cursor` and up to `upto`, in order, at most `max` (which
    /// is at least 1), into `out` (which is empty). Looks at a bounded number of events: one that finds nothing may
    /// still stop short of `upto`, at the cursor it gives.
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
            // Which topics a group has is not known: their events are found among everything.
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
        let oldest = match interest {
            Interest { scope: Scope::All, filter: None } => self.order().oldest().map(|event| event.seq),
            Interest { scope: Scope::Some { topics, groups }, filter: None } if groups.is_empty() => {
                let order = self.order();
                let detached = order.detached_after(0).find(|event| is_of(event, topics)).map(|event| event.seq);
                topics.iter().filter_map(|topic| topic.oldest()).chain(detached).min()
            }
            _ => {
                let (mut events, mut cursor, head) = (Vec::new(), 0, self.head());
                while events.is_empty() && cursor < head {
                    cursor = self.read(interest, cursor, head, 1, &mut events).cursor;
                }
                events.first().map(|event| event.seq)
            }
        };
        oldest.unwrap_or(0)
    }

    /// The newest event of this interest's topics that was kept once and is no longer, 0 where there is none.
    pub fn lost(&self, interest: &Interest) -> u64 {
        match &interest.scope {
            Scope::All => self.order().lost(),
            Scope::Some { topics, groups } => newest_lost(&self.order(), topics, groups),
        }
    }

    /// The cursor from which a reader sees the newest `n` events of its interest that are kept.
    pub fn cursor_before_last(&self, interest: &Interest, n: usize) -> u64 {
        let Some(back) = n.checked_sub(1) else { return self.head() };
        let nth = match interest {
            Interest { scope: Scope::All, filter: None } => self.order().nth_newest(back).map(|event| event.seq),
            Interest { scope: Scope::Some { topics, groups }, filter: None } if groups.is_empty() => {
                let order = self.order();
                let detached = order.detached_after(0).filter(|event| is_of(event, topics)).map(|event| event.seq);
                let mut seqs: Vec<u64> = topics.iter().flat_map(|topic| topic.newest(n)).chain(detached).collect();
                seqs.sort_unstable_by(|a, b| b.cmp(a));
                seqs.get(back).copied()
            }
            _ => self.nth_newest_wanted(interest, back),
        };
        nth.map_or(0, |seq| seq - 1)
    }

    /// Looks back through all that is kept, in steps between which publishers have their turn.
    fn nth_newest_wanted(&self, interest: &Interest, mut back: usize) -> Option<u64> {
        let mut cursor = self.head();
        while cursor > 0 {
            let order = self.order();
            let mut next = 0;
            for (looked, event) in order.back_from(cursor).enumerate() {
                if looked == LOOK_MAX {
                    next = event.seq;
                    break;
                }
                if interest.wants(event) {
                    match back.checked_sub(1) {
                        Some(less) => back = less,
                        None => return Some(event.seq),
                    }
                }
            }
            cursor = next;
        }
        None
    }

    /// The cursor from which a reader sees what was accepted at `since` or later, and whether events of its interest's
    /// topics from after that moment are no longer kept.
    pub fn cursor_since(&self, interest: &Interest, since: Steady) -> (u64, bool) {
        // 0 stands for "nothing lost" below.
        let since_ms = since.ms().max(1);
        let order = self.order();
        let cursor = order.since(since_ms).map_or(order.newest(), |event| event.seq - 1);
        let lost = match &interest.scope {
            Scope::All => order.lost_ms() >= since_ms,
            Scope::Some { topics, groups } => {
                let topics = topics.iter().map(|topic| [topic.lost(), topic.lost_ms()]);
                let mut lost = topics.chain(groups.iter().map(|group| order.lost_of(group.prefix())));
                lost.any(|[lost, lost_ms]| lost_ms >= since_ms || lost > cursor)
            }
        };
        (cursor, lost)
    }

    /// The topics with the most going on, at most so many, the busiest first: by events a second, then by listeners,
    /// then by name. Looks at all there are.
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
        // Events hold their topics and topics their events: emptying the histories unties the knot.
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
    use super::*;

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
