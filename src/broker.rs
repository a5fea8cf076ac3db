//! The broker: the log and the fan-out over it, and the two things that can be asked of them.
//!
//! HTTP knows the broker; the broker knows no HTTP.

use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::clock::{Steady, Timestamp};
use crate::event::Draft;
use crate::fanout::{Arrival, DrainPlan, Fanout, FanoutConfig, Kick, Listed, Puller, Seat, Session, Survey, Totals};
use crate::frame::{self, Framing, GapReason};
use crate::id::{Epoch, EventId};
use crate::limit::StreamShares;
use crate::log::listening::Listening;
use crate::log::{Filter, Held, Log, LogConfig, TopicFigures};
use crate::pattern::Pattern;

/// A request for a stream.
#[derive(Debug)]
pub struct Subscription<'a> {
    /// The topics, at least one pattern.
    pub topics: &'a [Pattern],
    /// The filter of their events; every event where absent.
    pub filter: Option<Filter>,
    /// The topics as they were written.
    pub topics_text: &'a str,
    /// Where it goes on from.
    pub start: Start<'a>,
    /// After so many events it ends.
    pub limit: Option<u32>,
    /// Names it.
    pub client_id: &'a str,
    /// How its body is framed.
    pub framing: Framing,
    /// The listener, where that is to be kept.
    pub session: Option<Box<Session>>,
    /// Its part of what its address and its user may hold, given back when it ends.
    pub shares: Option<Box<StreamShares>>,
}

/// Where a stream begins.
#[derive(Debug, Clone, Copy)]
pub enum Start<'a> {
    /// With new events.
    Now,
    /// After the event with this id.
    After(&'a str),
    /// With what is kept since a moment, at most so many of the newest events; at least one of the two is given.
    Kept {
        /// The moment, and how it was written.
        since: Option<(Steady, &'a str)>,
        /// The number of events.
        last: Option<usize>,
    },
}

/// A stream that was let in: all that its shard needs except the connection.
#[derive(Debug)]
pub struct Admitted {
    shard: usize,
    listening: Listening,
    seat: Seat,
    framing: Framing,
    cursor: u64,
    told: u64,
    limit: Option<u32>,
    session: Option<Box<Session>>,
    shares: Option<Box<StreamShares>>,
    /// The stream's first frames, on the wire.
    pub first: Vec<u8>,
}

impl Admitted {
    /// How its body is framed.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// What its shard gets: `head` is sent before its first frames.
    fn arrival(self, head: Vec<u8>) -> (usize, Arrival) {
        let Admitted { shard, listening, seat, framing, cursor, told, limit, session, shares, first } = self;
        let mut opening = head;
        opening.extend_from_slice(&first);
        (shard, Arrival { opening, listening, framing, cursor, told, limit, seat, session, shares })
    }
}

/// Why a stream was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The broker holds as many streams as it may.
    Full,
    /// The broker is stopping; it is gone after this time at the latest.
    Draining(Duration),
}

/// The result of a publish.
#[derive(Debug, Clone, Copy)]
pub struct Published {
    /// The last event's sequence number.
    pub last: u64,
    /// The streams connected.
    pub clients: usize,
}

/// The log and the fan-out.
#[derive(Debug)]
pub struct Broker {
    log: Arc<Log>,
    fanout: Fanout,
    retry: Duration,
    started: Timestamp,
    /// The plan of the drain, once it has begun.
    drain: OnceLock<DrainPlan>,
    /// Gaps in streams' first frames. The shards count the later ones.
    first_gaps: FirstGaps,
}

/// Gaps told in streams' first frames, by reason.
#[derive(Debug, Default)]
struct FirstGaps {
    evicted: AtomicU64,
    unknown_epoch: AtomicU64,
}

impl FirstGaps {
    fn count(&self, reason: GapReason) {
        let counter = match reason {
            GapReason::Evicted => &self.evicted,
            GapReason::UnknownEpoch => &self.unknown_epoch,
        };
        counter.fetch_add(1, Relaxed);
    }
}

impl Broker {
    /// Starts the shards over an empty log.
    ///
    /// # Errors
    /// Where the system refuses a resource that the shards need.
    pub fn start(log: LogConfig, fanout: &FanoutConfig) -> io::Result<Broker> {
        let started = Timestamp::now();
        let log = Arc::new(Log::new(log, fanout.shards, Epoch::fresh(started)));
        let retry = fanout.retry;
        let fanout = Fanout::start(fanout, &log)?;
        Ok(Broker { log, fanout, retry, started, drain: OnceLock::new(), first_gaps: FirstGaps::default() })
    }

    /// Appends events to the log and wakes the shards that have streams for them. Does not wait for any stream.
    pub fn publish(&self, drafts: Vec<Draft>, now: Timestamp) -> Published {
        let appended = self.log.append(drafts, now);
        self.fanout.notify(appended.shards, appended.last);
        Published { last: appended.last, clients: self.fanout.connected() }
    }

    /// Lets a stream in, or not.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn subscribe(&self, asked: Subscription<'_>, now: Timestamp) -> Result<Admitted, Refused> {
        if let Some(plan) = self.drain.get() {
            return Err(Refused::Draining(plan.gone_by.saturating_duration_since(Instant::now())));
        }
        let seat = self.fanout.take_seat().ok_or(Refused::Full)?;
        let shard = self.fanout.next_shard();
        let listening = self.log.join(asked.topics, asked.filter, shard);
        // After joining: an event published from here on is after this head, or wakes the shard.
        let (cursor, told, gap) = self.place(asked.start, &listening, self.log.head());

        let connected = frame::Connected {
            client_id: asked.client_id,
            topics: asked.topics_text,
            id: self.log.id(cursor),
            retry_ms: self.retry.as_millis() as u64,
        };
        let mut first = frame::connected(connected, now).bytes(asked.framing).to_vec();
        if let Some((requested, reason)) = gap {
            let oldest = match self.log.oldest(listening.interest()) {
                0 => self.log.head(),
                oldest => oldest,
            };
            let gap = frame::gap(requested, self.log.id(oldest), reason, now);
            first.extend_from_slice(gap.bytes(asked.framing));
            self.first_gaps.count(reason);
        }
        let Subscription { framing, limit, session, shares, .. } = asked;
        Ok(Admitted { shard, listening, seat, framing, cursor, told, limit, session, shares, first })
    }

    /// The cursor to start with, the losses that need no telling, and the gap to tell at once.
    fn place<'a>(
        &self,
        start: Start<'a>,
        listening: &Listening,
        head: u64,
    ) -> (u64, u64, Option<(&'a str, GapReason)>) {
        let interest = listening.interest();
        match start {
            Start::Now => (head, 0, None),
            Start::After(text) => match EventId::parse(text) {
                // An id past the head was given by another history of the same name, which cannot be; but who knows.
                Some(id) if id.epoch == self.log.epoch().as_str() && id.seq <= head => (id.seq, 0, None),
                // Another history: everything kept may be new to this client.
                _ => (0, self.log.lost(interest), Some((text, GapReason::UnknownEpoch))),
            },
            Start::Kept { since, last } => {
                let lost = self.log.lost(interest);
                let (since_cursor, gap) = match since {
                    Some((moment, text)) => {
                        let (cursor, lost) = self.log.cursor_since(interest, moment);
                        (cursor, lost.then_some((text, GapReason::Evicted)))
                    }
                    None => (0, None),
                };
                let last_cursor = last.map_or(0, |n| self.log.cursor_before_last(interest, n));
                // A stream that asked for the last few events does not miss the ones before them.
                let gap = gap.filter(|_| last_cursor <= since_cursor);
                (since_cursor.max(last_cursor), lost, gap)
            }
        }
    }

    /// Gives an admitted stream its connection, and sends its first frames; `head` is what the carrier wants to have
    /// sent before them. Gives the stream's shard if the caller is to wake it, soon: there is nothing to do for the
    /// stream yet, but until then nobody watches its socket.
    pub fn open(&self, admitted: Admitted, socket: TcpStream, head: Vec<u8>) -> Option<usize> {
        let (shard, arrival) = admitted.arrival(head);
        let cursor = arrival.cursor;
        let all_sent = self.fanout.open(shard, arrival, socket);
        if all_sent && cursor == self.log.head() {
            return Some(shard);
        }
        self.fanout.wake(shard);
        None
    }

    /// Opens an admitted stream that the caller writes: the bytes come from the body that this gives.
    pub fn pull(&self, admitted: Admitted) -> Puller {
        let (shard, arrival) = admitted.arrival(Vec::new());
        self.fanout.attach(shard, arrival, &self.log)
    }

    /// Up to `limit` of the streams that have a session, after one that was listed before; with each its shard.
    pub async fn list(&self, after: Option<(usize, u32)>, limit: usize) -> Vec<(usize, Listed)> {
        let (first, mut from) = after.map_or((0, 0), |(shard, key)| (shard, key.saturating_add(1)));
        let mut listed = Vec::new();
        for shard in first..self.fanout.shards() {
            let page = self.fanout.list(shard, from, limit - listed.len()).await;
            listed.extend(page.into_iter().map(|one| (shard, one)));
            from = 0;
            if listed.len() == limit {
                break;
            }
        }
        listed
    }

    /// Ends streams; gives how many.
    pub async fn kick(&self, kick: &Kick) -> usize {
        self.fanout.kick(kick).await
    }

    /// How many streams are in which state.
    pub async fn survey(&self) -> Survey {
        self.fanout.survey().await
    }

    /// How far behind a cursor is: in events, of all topics, and since when the first of them has waited.
    pub fn lag(&self, cursor: u64, now: Timestamp) -> (u64, Duration) {
        let waited = self.log.accepted_after(cursor).map_or(Duration::ZERO, |accepted| now.steady().since(accepted));
        (self.log.head().saturating_sub(cursor), waited)
    }

    /// Wakes shards that were given streams.
    pub fn wake(&self, shards: impl IntoIterator<Item = usize>) {
        for shard in shards {
            self.fanout.wake(shard);
        }
    }

    /// The id of the event with sequence number `seq`.
    pub fn id(&self, seq: u64) -> EventId<'_> {
        self.log.id(seq)
    }

    /// The busiest topics, at most so many; see [`Log::busiest`].
    pub fn busiest(&self, most: usize, now: Timestamp) -> Vec<TopicFigures> {
        self.log.busiest(most, now)
    }

    /// One topic, if anything is known of it.
    pub fn topic(&self, name: &str, now: Timestamp) -> Option<TopicFigures> {
        self.log.topic(name, now)
    }

    /// The topics that are watched ([`LogConfig::watched`]).
    pub fn watched(&self, now: Timestamp) -> impl Iterator<Item = TopicFigures> {
        self.log.watched(now)
    }

    /// Streams connected now.
    pub fn connected(&self) -> usize {
        self.fanout.connected()
    }

    /// The most streams there may be.
    pub fn max_streams(&self) -> usize {
        self.fanout.max_streams()
    }

    /// Streams refused because there were as many as there may be.
    pub fn refused(&self) -> u64 {
        self.fanout.refused()
    }

    /// The shards' counters.
    pub fn totals(&self) -> Totals {
        let mut totals = self.fanout.totals();
        totals.gaps += self.first_gaps.evicted.load(Relaxed);
        totals.unknown_epochs = self.first_gaps.unknown_epoch.load(Relaxed);
        totals
    }

    /// The figures of the log.
    pub fn held(&self) -> Held {
        self.log.held()
    }

    /// When it started.
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// Lets the log age; to be called about once a second.
    pub fn expire(&self, now: Timestamp) {
        self.log.expire(now);
    }

    /// Whether it is stopping.
    pub fn is_draining(&self) -> bool {
        self.drain.get().is_some()
    }

    /// Lets no more streams in. Publishing goes on for the streams that are still open.
    pub fn begin_drain(&self, plan: DrainPlan) {
        // A second one would change what those who were refused have been told.
        let _ = self.drain.set(plan);
    }

    /// Ends all streams by this plan; returns when the shards have stopped. Blocks the calling thread.
    pub fn drain(&self, plan: DrainPlan) {
        self.begin_drain(plan);
        self.fanout.drain(plan);
    }
}
