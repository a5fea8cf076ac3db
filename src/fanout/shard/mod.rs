//! A shard: one thread that owns sockets and writes to them what the log holds.
//!
//! Its loop is: sleep until there is something to do; read the log and sort what is new into audiences; take in new
//! streams; then work in small slices until nothing is left, looking at the log and the sockets between slices.
//!
//! # A sweep
//! An audience with pending events is *swept*: the events' bytes are piled up once, and each live member is sent
//! with one system call what of the pile it has not had. Events that come during a sweep are added to the pile, so
//! members whose turn is still to come get them in the same call; one more lap serves those who had theirs. So under
//! load a stream's writes become fewer and larger by themselves, and never wait for a timer.
//!
//! # A stall
//! A member whose socket does not take all falls out of its audience: it keeps a cursor and the rest of one frame,
//! and reads the log by itself ([`State::Replay`]) each time its socket has room. Once it has caught up it is live
//! again. A stream that resumes goes the same way, only that it begins there.
//!
//! # The seam
//! Both states meet at the shard's own cursor: a replay reads the log up to it and no farther, and a stream that has
//! had everything up to it joins its audience at the end of what is pending. What is behind the shard's cursor comes
//! from the log, what is after it comes through the audience: nothing twice, nothing left out.

mod arrivals;
mod ending;
mod live;
mod pile;
mod replay;
mod timers;

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use slab::Slab;

use super::audience::Audiences;
use super::counters::bump;
use super::stream::{Replay, State, Stream};
use super::wheel::Wheel;
use super::{Command, FanoutConfig, Link};
use crate::clock::Steady;
use crate::log::{Event, Log};

use ending::{DRAIN_STEP, Drain};
use live::Sweep;
use pile::Pile;
use timers::{Heartbeat, Ticker};

/// The token of the shard's waker; streams have their slab key.
pub(super) const WAKER: Token = Token(usize::MAX);

/// System calls on sockets between two looks at the log and the poll: about a millisecond's worth.
const SLICE: usize = 128;

/// Events looked at in one read of the log: how long a publisher may have to wait for it.
const READ_MAX: usize = 1024;

/// Reads of the log in a tick, at the most, to get past events that no stream of the shard wants.
const PAST_READS: usize = 64;

/// How far the shard reads ahead of what it has written: places in audiences, and bytes of events, give or take one
/// read. More than that stays in the log, which is the place that is bounded.
const AHEAD_MAX: usize = 1 << 20;
const AHEAD_BYTES_MAX: usize = 8 << 20;

pub(super) struct Shard {
    id: usize,
    config: FanoutConfig,
    log: Arc<Log>,
    link: Arc<Link>,
    poll: Poll,
    ticker: Ticker,
    /// The tick of this turn of the loop.
    now: u64,
    /// Everything up to here has been sorted into the audiences.
    cursor: u64,
    streams: Slab<Stream>,
    audiences: Audiences,
    /// Audiences with pending events, in the order of getting them.
    queue: VecDeque<u32>,
    sweep: Option<Sweep>,
    /// Pending places over all audiences, and the bytes of the events read since there were none.
    ahead: usize,
    ahead_bytes: usize,
    /// Replaying streams that can go on.
    replays: VecDeque<u32>,
    wheel: Wheel,
    /// Streams whose time the wheel has called.
    due: Vec<u32>,
    /// The last heartbeat that was made. It serves all streams with the same place in the same tick: nearly all.
    heartbeat: Option<Heartbeat>,
    drain: Option<Drain>,
    /// What has been taken out of the link's inbox and waits for its turn.
    inbox: VecDeque<Command>,
    /// How many writes of this turn had as their oldest event one that was accepted then.
    written: Vec<(Steady, u64)>,
    scratch: Scratch,
}

/// Buffers that outlive their use only for their memory.
#[derive(Default)]
struct Scratch {
    pile: Pile,
    events: Vec<Arc<Event>>,
    reached: Vec<u32>,
}

impl Shard {
    pub(super) fn new(id: usize, config: FanoutConfig, log: Arc<Log>, link: Arc<Link>, poll: Poll) -> Shard {
        let ticker = Ticker::new(config.heartbeat.min(config.stall_timeout));
        let cursor = log.head();
        Shard {
            id,
            config,
            log,
            link,
            poll,
            ticker,
            now: 0,
            cursor,
            streams: Slab::new(),
            audiences: Audiences::default(),
            queue: VecDeque::new(),
            sweep: None,
            ahead: 0,
            ahead_bytes: 0,
            replays: VecDeque::new(),
            wheel: Wheel::new(256, 0),
            due: Vec::new(),
            heartbeat: None,
            drain: None,
            inbox: VecDeque::new(),
            written: Vec::new(),
            scratch: Scratch::default(),
        }
    }

    /// Runs until it has been drained.
    ///
    /// # Errors
    /// Where the system's poll fails.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            let timeout = self.time_to_sleep();
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                return Err(error);
            }
            // Before all else: it may have slept for long, and what happens now happens now.
            let begun = Instant::now();
            self.turn_wheel(begun);
            for event in &events {
                if event.token() != WAKER {
                    self.ready(event.token().0 as u32, event);
                }
            }
            self.read_log();
            self.take_inbox();
            self.work();
            self.end_turn(begun);
            if self.drain.is_some() && self.streams.is_empty() && self.inbox.is_empty() && self.link.inbox_is_empty() {
                return Ok(());
            }
        }
    }

    /// Zero while there is work; else opens the latch, looks once more, and says how long nothing will be due.
    fn time_to_sleep(&mut self) -> Option<Duration> {
        let idle = self.queue.is_empty()
            && self.sweep.is_none()
            && self.due.is_empty()
            && self.inbox.is_empty()
            // Those who wait for the shard's cursor are woken by its reading on.
            && self.replays.is_empty();
        if idle {
            self.link.latch.open();
            if self.link.wanted.load(Ordering::SeqCst) <= self.cursor && self.link.inbox_is_empty() {
                // A little late rather than early: an early wake finds nothing due and has to sleep again.
                let next = self.wheel.next_due();
                let next = next.map(|tick| self.ticker.until(tick) + Duration::from_millis(1));
                return match self.drain {
                    Some(_) => Some(next.unwrap_or(DRAIN_STEP).min(DRAIN_STEP)),
                    None => next,
                };
            }
        }
        Some(Duration::ZERO)
    }

    // ---- from the log into the audiences

    /// Sorts what is new into the audiences, as far as the bounds on reading ahead allow.
    fn read_log(&mut self) {
        if self.audiences.is_empty() {
            // Whoever comes brings a cursor of its own, which is not before this.
            self.cursor = self.cursor.max(self.log.head());
            return;
        }
        while self.link.wanted.load(Ordering::SeqCst) > self.cursor && !self.is_far_ahead() {
            if !self.read_log_once(false) {
                self.catch_up();
            }
        }
    }

    /// Brings the shard's own cursor forward past events that no stream here wants, for which nobody wakes it: heartbeats
    /// tell of it. An older one would do, since the newest events that its streams want are always read, but whoever
    /// resumes there has the log searched for nothing. So this has bounds.
    fn read_past_unwanted(&mut self) {
        for _ in 0..PAST_READS {
            if self.cursor >= self.log.head() || self.is_far_ahead() || !self.read_log_once(true) {
                break;
            }
        }
    }

    fn is_far_ahead(&self) -> bool {
        self.ahead >= AHEAD_MAX || self.ahead_bytes >= AHEAD_BYTES_MAX
    }

    /// False, and nothing is done, where some of what is to be read is no longer kept; with `unwanted`, only where a stream
    /// here wanted it, which takes a look at all audiences.
    fn read_log_once(&mut self, unwanted: bool) -> bool {
        let mut events = mem::take(&mut self.scratch.events);
        let read = self.log.read_shard(self.id, self.cursor, READ_MAX, &mut events);
        let whole = read.lost.is_none() || unwanted && self.audiences.have_lost_nothing(&self.log, self.cursor);
        if whole {
            for event in &events {
                self.ahead_bytes += event.frame.footprint();
                self.sort(event);
            }
            self.cursor = read.cursor;
        }
        events.clear();
        self.scratch.events = events;
        whole
    }

    /// Puts an event before all audiences that it reaches.
    fn sort(&mut self, event: &Arc<Event>) {
        let mut reached = mem::take(&mut self.scratch.reached);
        self.audiences.reached_by(event, &mut reached);
        for id in reached.drain(..) {
            self.put(id, event.clone());
        }
        self.scratch.reached = reached;
    }

    fn put(&mut self, id: u32, event: Arc<Event>) {
        let Some(audience) = self.audiences.get_mut(id) else { return };
        audience.known = event.seq;
        if audience.members.is_empty() {
            // All its streams are replaying and will find the event in the log.
            return;
        }
        if audience.pending.back().is_some_and(|last| last.seq == event.seq) {
            // Reached in another way too.
            return;
        }
        if let Some(sweep) = self.sweep.as_mut().filter(|sweep| sweep.audience == id) {
            sweep.grow(audience, &event);
        }
        audience.pending.push_back(event);
        self.ahead += 1;
        if !audience.queued {
            audience.queued = true;
            self.queue.push_back(id);
        }
    }

    /// The log no longer keeps all that this shard has not read: it was asleep, as far as its streams are concerned,
    /// or starved. Each audience reads for itself; if events of its own are lost, or too many to hold, its streams go
    /// on one by one, each at its own pace and told of its own gap.
    fn catch_up(&mut self) {
        let head = self.log.head();
        let mut events = mem::take(&mut self.scratch.events);
        for id in self.audiences.ids() {
            let Some(audience) = self.audiences.get(id) else { continue };
            if audience.key.pulled {
                // They read for themselves.
                for &key in &audience.members {
                    self.streams[key as usize].send(&[], self.now);
                }
                continue;
            }
            let read = self.log.read(&audience.key.interest, self.cursor, head, READ_MAX, &mut events);
            if read.lost.is_none() && read.cursor == head && !self.is_far_ahead() {
                for event in events.drain(..) {
                    self.ahead_bytes += event.frame.footprint();
                    self.put(id, event);
                }
            } else {
                bump(&self.link.counters.lags, 1);
                events.clear();
                self.disband(id);
            }
        }
        self.scratch.events = events;
        self.cursor = head;
    }

    /// Sends all live members of an audience off to replay from where each of them is.
    fn disband(&mut self, id: u32) {
        if let Some(sweep) = self.sweep.take_if(|sweep| sweep.audience == id) {
            self.scratch.pile = sweep.into_cleared_pile();
        }
        let Some(audience) = self.audiences.get_mut(id) else { return };
        audience.queued = false;
        let members = mem::take(&mut audience.members);
        for key in members {
            let Some(stream) = self.streams.get_mut(key as usize) else { continue };
            let State::Live { at } = stream.state else { continue };
            let cursor = audience.cursor(audience.had(at), self.cursor);
            stream.state = State::Replay(Box::new(Replay { cursor, ..Replay::default() }));
            self.replays.push_back(key);
        }
        let pending = audience.pending.len();
        audience.finish(pending);
        self.ahead -= pending;
    }

    // ---- the work, in slices

    fn work(&mut self) {
        let mut budget = SLICE;
        while budget > 0 {
            let spent = self.call_due(SLICE / 4) + self.replay_some(SLICE / 4) + self.sweep_some(SLICE / 2);
            if spent == 0 {
                break;
            }
            budget = budget.saturating_sub(spent);
        }
        if self.queue.is_empty() && self.sweep.is_none() {
            self.ahead_bytes = 0;
        }
    }
    /// The poll has something to say about a stream's socket.
    fn ready(&mut self, key: u32, event: &mio::event::Event) {
        // The stream may have ended earlier in this batch; keys are given anew only after it.
        let Some(stream) = self.streams.get_mut(key as usize) else { return };
        let has_input = event.is_readable() || event.is_read_closed() || event.is_error();
        if let Some(reason) = has_input.then(|| stream.ignore_input()).flatten() {
            return self.close(key, reason);
        }
        if event.is_writable() {
            match &mut stream.state {
                State::Replay(replay) if replay.blocked => {
                    replay.blocked = false;
                    self.replays.push_back(key);
                }
                State::Ended(ending) if !ending.rest.is_empty() => self.send_ending(key),
                // Closing this side makes the socket writable once more: who has sent all must not do so again.
                State::Ended(_) | State::Live { .. } | State::Replay(_) => {}
            }
        }
    }
}
