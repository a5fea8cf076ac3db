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

use std::collections::VecDeque;
use std::mem;
use std::net::Shutdown;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::net::TcpStream;
use mio::{Events, Interest as Readiness, Poll, Token};
use slab::Slab;

use super::audience::{Audience, Audiences, Key};
use super::counters::bump;
use super::stream::{CloseReason, Ending, NO_LIMIT, Replay, Sent, State, Stream};
use super::wheel::Wheel;
use super::{Arrival, Command, FanoutConfig, Link, Seats};
use crate::clock::Now;
use crate::frame::{self, Frame, Framing, GapReason};
use crate::log::{Event, Log};

/// The token of the shard's waker; streams have their slab key.
pub(super) const WAKER: Token = Token(usize::MAX);

/// System calls on sockets between two looks at the log and the poll: about a millisecond's worth.
const SLICE: usize = 128;

/// Events looked at in one read of the log: how long a publisher may have to wait for it.
const READ_MAX: usize = 1024;

/// A pile's size in bytes; what is over it goes with the next sweep.
const PILE_MAX: usize = 256 * 1024;

/// How far the shard reads ahead of what it has written: places in audiences, and bytes of events. More than that
/// stays in the log, which is the place that is bounded.
const AHEAD_MAX: usize = 1 << 20;
const AHEAD_BYTES_MAX: usize = 8 << 20;

/// What one stream's turn of replaying writes at the most.
const REPLAY_WRITE_MAX: usize = 64 * 1024;
const REPLAY_READ_MAX: usize = 512;

/// How long an ended stream's connection waits for the client to close its side. Closing first would lose the last
/// frames where the client has sent something unread (the kernel answers that with a reset).
const LINGER: Duration = Duration::from_secs(2);

pub(super) struct Shard {
    id: usize,
    config: FanoutConfig,
    log: Arc<Log>,
    link: Arc<Link>,
    seats: Arc<Seats>,
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
    /// The tick's heartbeat, once one was needed.
    heartbeat: Option<(u64, Frame)>,
    drain: Option<Drain>,
    scratch: Scratch,
}

/// An audience being served.
struct Sweep {
    audience: u32,
    framing: Framing,
    pile: Pile,
    /// Members below this place are still to be served in this lap. Counting down, a member that leaves is replaced
    /// by one that has been served already.
    next: usize,
    lap: Lap,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lap {
    /// The first, in which new events still join the pile.
    First { grown: bool },
    /// For those who had their turn before the pile grew.
    Second,
}

/// Frames one after the other, ready to be sent.
#[derive(Default)]
struct Pile {
    bytes: Vec<u8>,
    /// Where each frame ends.
    ends: Vec<usize>,
}

impl Pile {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
    }

    fn clear(&mut self) {
        self.bytes.clear();
        // One large event must not cost its size for ever.
        self.bytes.shrink_to(PILE_MAX);
        self.ends.clear();
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    /// Where frame `n` begins.
    fn start(&self, n: usize) -> usize {
        n.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    /// The bytes of frames `from..to`.
    fn frames(&self, from: usize, to: usize) -> &[u8] {
        &self.bytes[self.start(from)..self.start(to)]
    }

    /// Where `sent` bytes from frame `from` on end: after so many whole frames, and so many bytes of another.
    fn split(&self, from: usize, sent: usize) -> (usize, usize) {
        let until = self.start(from) + sent;
        let whole = self.ends.partition_point(|&end| end <= until);
        (whole - from, until - self.start(whole))
    }
}

impl Sweep {
    /// Adds an event to the pile; false if the pile is full.
    fn pile_up(&mut self, event: &Event) -> bool {
        let fits = self.pile.len() == 0 || self.pile.bytes.len() + event.frame.footprint() <= PILE_MAX;
        if fits {
            self.pile.push(event.frame.bytes(self.framing));
        }
        fits
    }

    /// Lets an event that has come meanwhile take part, if this is still the first lap, all before it do, and it fits.
    fn grow(&mut self, audience: &Audience, event: &Event) {
        if matches!(self.lap, Lap::First { .. }) && self.pile.len() == audience.pending.len() && self.pile_up(event) {
            self.lap = Lap::First { grown: true };
        }
    }

    fn into_cleared_pile(mut self) -> Pile {
        self.pile.clear();
        self.pile
    }
}

/// Buffers that outlive their use only for their memory.
#[derive(Default)]
struct Scratch {
    pile: Pile,
    events: Vec<Arc<Event>>,
    reached: Vec<u32>,
}

/// The end of all streams, spread over time.
struct Drain {
    /// Streams still to be ended, the next one last.
    left: Vec<u32>,
    planned: usize,
    started: u64,
    deadline: u64,
}

/// The shard's time: ticks since it started, short enough for the shortest interval to be kept to a 64th.
struct Ticker {
    started: Instant,
    tick: Duration,
}

impl Ticker {
    fn new(shortest: Duration) -> Ticker {
        let tick = (shortest / 64).clamp(Duration::from_millis(1), Duration::from_secs(1));
        Ticker { started: Instant::now(), tick }
    }

    fn now(&self) -> u64 {
        (self.started.elapsed().as_nanos() / self.tick.as_nanos()) as u64
    }

    /// An interval in ticks, rounded up.
    fn ticks(&self, interval: Duration) -> u64 {
        interval.as_nanos().div_ceil(self.tick.as_nanos()) as u64
    }

    /// How long until `tick` begins.
    fn until(&self, tick: u64) -> Duration {
        let since_start = self.tick.saturating_mul(u32::try_from(tick).unwrap_or(u32::MAX));
        since_start.saturating_sub(self.started.elapsed())
    }
}

impl Shard {
    pub(super) fn new(
        id: usize,
        config: FanoutConfig,
        log: Arc<Log>,
        link: Arc<Link>,
        poll: Poll,
        seats: Arc<Seats>,
    ) -> Shard {
        let ticker = Ticker::new(config.heartbeat.min(config.stall_timeout));
        let cursor = log.head();
        Shard {
            id,
            config,
            log,
            link,
            seats,
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
            scratch: Scratch::default(),
        }
    }

    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        loop {
            let timeout = self.time_to_sleep();
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != std::io::ErrorKind::Interrupted
            {
                tracing::error!(%error, shard = self.id, "poll failed");
                return;
            }
            for event in &events {
                if event.token() != WAKER {
                    self.ready(event.token().0 as u32, event);
                }
            }
            self.read_log();
            self.take_inbox();
            self.turn_wheel();
            self.work();
            if self.drain.is_some() && self.streams.is_empty() && self.link.inbox_is_empty() {
                return;
            }
        }
    }

    /// Zero while there is work; else opens the latch, looks once more, and says how long nothing will be due.
    fn time_to_sleep(&mut self) -> Option<Duration> {
        let idle = self.queue.is_empty()
            && self.sweep.is_none()
            && self.due.is_empty()
            // Those who wait for the shard's cursor are woken by its reading on.
            && self.replays.is_empty();
        if idle {
            self.link.latch.open();
            if self.link.wanted.load(Ordering::SeqCst) <= self.cursor && self.link.inbox_is_empty() {
                let next = match &self.drain {
                    Some(_) => Some(self.ticker.now() + 1),
                    None => self.wheel.next_due(),
                };
                // A little late rather than early: an early wake finds nothing due and has to sleep again.
                return next.map(|tick| self.ticker.until(tick) + Duration::from_millis(1));
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
        while self.link.wanted.load(Ordering::SeqCst) > self.cursor
            && self.ahead < AHEAD_MAX
            && self.ahead_bytes < AHEAD_BYTES_MAX
        {
            self.read_log_once();
        }
    }

    fn read_log_once(&mut self) {
        let mut events = mem::take(&mut self.scratch.events);
        let read = self.log.read_shard(self.id, self.cursor, READ_MAX, &mut events);
        if read.lost.is_some() {
            events.clear();
            self.scratch.events = events;
            return self.catch_up();
        }
        for event in events.drain(..) {
            self.ahead_bytes += event.frame.footprint();
            self.sort(&event);
        }
        self.cursor = read.cursor;
        self.scratch.events = events;
    }

    /// Puts an event before all audiences that it reaches.
    fn sort(&mut self, event: &Arc<Event>) {
        let mut reached = mem::take(&mut self.scratch.reached);
        reached.extend(self.audiences.reached_by(event));
        for id in reached.drain(..) {
            self.put(id, event.clone());
        }
        self.scratch.reached = reached;
    }

    fn put(&mut self, id: u32, event: Arc<Event>) {
        let Some(audience) = self.audiences.get_mut(id) else { return };
        if audience.members.is_empty() {
            // All its streams are replaying and will find the event in the log.
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
            let read = self.log.read(&audience.key.interest, self.cursor, head, READ_MAX, &mut events);
            if read.lost.is_none() && events.len() < READ_MAX {
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

    // ---- streams come

    fn take_inbox(&mut self) {
        if self.link.inbox_is_empty() {
            return;
        }
        let commands = mem::take(&mut *self.link.inbox.lock().unwrap_or_else(PoisonError::into_inner));
        for command in commands {
            match command {
                Command::Open(arrival) => self.open(arrival),
                Command::Drain(grace) => self.begin_drain(grace),
            }
        }
    }

    fn open(&mut self, arrival: Arrival) {
        let Arrival { socket, opening, listening, framing, cursor, told, limit, seat } = arrival;
        let entry = self.streams.vacant_entry();
        let key = entry.key() as u32;
        let mut socket = TcpStream::from_std(socket);
        // Edge-triggered, and only for its end: until a write finds no room, nobody cares for writability.
        if let Err(error) = self.poll.registry().register(&mut socket, Token(entry.key()), Readiness::READABLE) {
            tracing::error!(%error, shard = self.id, "cannot watch a stream's socket");
            return;
        }
        seat.keep();
        let audience = self.audiences.enter(Key { interest: listening.hand_over(), framing });
        let replay = Replay { cursor, told, rest: Bytes::from(opening), ..Replay::default() };
        entry.insert(Stream {
            socket,
            state: State::Replay(Box::new(replay)),
            audience,
            place: 0,
            progress: self.now as u32,
            left: limit.unwrap_or(NO_LIMIT),
            ignored: 0,
            watches_writable: false,
        });
        bump(&self.link.counters.opened, 1);
        if cursor > self.cursor {
            // The shard slept through what its streams had not asked for; the newcomer starts after that.
            self.link.wanted.fetch_max(cursor, Ordering::SeqCst);
            self.read_log();
        }
        if let Some(drain) = &mut self.drain {
            drain.left.push(key);
        }
        self.replay(key);
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

    /// Serves up to `budget` live members; gives how many were.
    fn sweep_some(&mut self, budget: usize) -> usize {
        let mut spent = 0;
        while spent < budget {
            let Some(mut sweep) = self.sweep.take().or_else(|| self.begin_sweep()) else { break };
            let mut done = false;
            while spent < budget && !done {
                done = !self.serve_next(&mut sweep);
                // The end of a sweep counts too, or many empty ones would hold up everything else.
                spent += 1;
            }
            match done {
                true => self.end_sweep(sweep),
                false => self.sweep = Some(sweep),
            }
        }
        spent
    }

    fn begin_sweep(&mut self) -> Option<Sweep> {
        loop {
            let id = self.queue.pop_front()?;
            // Gone with its last stream?
            let Some(audience) = self.audiences.get(id) else { continue };
            let mut sweep = Sweep {
                audience: id,
                framing: audience.key.framing,
                pile: mem::take(&mut self.scratch.pile),
                next: audience.members.len(),
                lap: Lap::First { grown: false },
            };
            for event in &audience.pending {
                if !sweep.pile_up(event) {
                    break;
                }
            }
            return Some(sweep);
        }
    }

    fn end_sweep(&mut self, mut sweep: Sweep) {
        let had = sweep.pile.len();
        sweep.pile.clear();
        self.scratch.pile = sweep.pile;
        let Some(audience) = self.audiences.get_mut(sweep.audience) else { return };
        audience.finish(had);
        self.ahead -= had;
        if audience.pending.is_empty() {
            audience.queued = false;
        } else {
            self.queue.push_back(sweep.audience);
        }
    }

    /// Serves the next member that has not had all of the pile. False when there is none.
    fn serve_next(&mut self, sweep: &mut Sweep) -> bool {
        let Some(audience) = self.audiences.get(sweep.audience) else { return false };
        loop {
            sweep.next = sweep.next.min(audience.members.len());
            if sweep.next == 0 && sweep.lap == (Lap::First { grown: true }) {
                sweep.lap = Lap::Second;
                sweep.next = audience.members.len();
            }
            if sweep.next == 0 {
                return false;
            }
            sweep.next -= 1;
            let key = audience.members[sweep.next];
            let stream = &mut self.streams[key as usize];
            let State::Live { at } = &mut stream.state else { continue };
            let had = audience.had(*at);
            if had >= sweep.pile.len() {
                continue;
            }
            let n = (sweep.pile.len() - had).min(stream.left as usize);
            let bytes = sweep.pile.frames(had, had + n);
            match stream.send(bytes) {
                Sent::Bytes(sent) if sent == bytes.len() => {
                    if let State::Live { at } = &mut stream.state {
                        *at = at.wrapping_add(n as u32);
                    }
                    stream.progress = self.now as u32;
                    self.delivered(key, n, sent);
                }
                Sent::Bytes(sent) => self.stall(key, sweep, had, sent),
                Sent::Broken(reason) => self.close(key, reason),
            }
            return true;
        }
    }

    /// A live member's socket took only `sent` bytes of what came after its first `had` events in the pile: from now
    /// on it reads the log by itself.
    fn stall(&mut self, key: u32, sweep: &Sweep, had: usize, sent: usize) {
        let Some(audience) = self.audiences.get(sweep.audience) else { return };
        let (whole, begun) = sweep.pile.split(had, sent);
        let mut cursor = audience.cursor(had + whole, self.cursor);
        let mut rest = Bytes::new();
        if begun > 0 {
            let event = &audience.pending[had + whole];
            (cursor, rest) = (event.seq, event.frame.share(sweep.framing, begun));
        }
        bump(&self.link.counters.stalls, 1);
        self.leave_audience(key);
        if let Some(stream) = self.streams.get_mut(key as usize) {
            stream.state = State::Replay(Box::new(Replay { cursor, rest, ..Replay::default() }));
            if sent > 0 {
                stream.progress = self.now as u32;
            }
        }
        // A begun frame is as good as delivered: it is finished before anything else, or the stream ends.
        self.delivered(key, whole + usize::from(begun > 0), sent);
        self.block(key);
    }

    // ---- streams that read by themselves

    fn replay_some(&mut self, budget: usize) -> usize {
        let turns = budget.min(self.replays.len());
        for _ in 0..turns {
            let Some(key) = self.replays.pop_front() else { break };
            self.replay(key);
        }
        turns
    }

    /// One turn of a replaying stream: the rest of a begun frame, then what the log has, up to one write's worth.
    fn replay(&mut self, key: u32) {
        let Some(stream) = self.streams.get_mut(key as usize) else { return };
        let State::Replay(replay) = &mut stream.state else { return };
        if replay.blocked {
            return;
        }
        let rest = mem::take(&mut replay.rest);
        if !rest.is_empty() {
            match stream.send(&rest) {
                Sent::Bytes(sent) => {
                    bump(&self.link.counters.bytes, sent as u64);
                    if sent > 0 {
                        stream.progress = self.now as u32;
                    }
                    if sent < rest.len() {
                        stream.keep_rest(rest.slice(sent..));
                        return self.block(key);
                    }
                }
                Sent::Broken(reason) => return self.close(key, reason),
            }
        }
        if stream.left == 0 {
            return self.end(key, CloseReason::LimitReached);
        }
        let mut events = mem::take(&mut self.scratch.events);
        self.replay_from_log(key, &mut events);
        events.clear();
        self.scratch.events = events;
    }

    fn replay_from_log(&mut self, key: u32, events: &mut Vec<Arc<Event>>) {
        let stream = &mut self.streams[key as usize];
        let State::Replay(replay) = &mut stream.state else { return };
        let Some(audience) = self.audiences.get(stream.audience) else { return };
        let (interest, framing) = (&audience.key.interest, audience.key.framing);
        let max = REPLAY_READ_MAX.min(stream.left as usize);
        let read = self.log.read(interest, replay.cursor, self.cursor, max, events);

        if let Some(lost) = read.lost.filter(|&lost| lost > replay.told) {
            replay.told = lost;
            let requested = self.log.id(replay.cursor).to_string();
            let oldest = self.log.id(events.first().map_or(self.log.head(), |event| event.seq));
            let gap = frame::gap(&requested, oldest, GapReason::Evicted, Now::read());
            replay.rest = gap.share(framing, 0);
            bump(&self.link.counters.gaps, 1);
            // It goes out first in the next turn; the read is done again then.
            self.replays.push_back(key);
            return;
        }

        let mut pile = mem::take(&mut self.scratch.pile);
        for event in &*events {
            if pile.len() > 0 && pile.bytes.len() + event.frame.footprint() > REPLAY_WRITE_MAX {
                break;
            }
            pile.push(event.frame.bytes(framing));
        }
        let (piled, sent) = (pile.len(), if pile.len() > 0 { stream.send(&pile.bytes) } else { Sent::Bytes(0) });
        let outcome = match sent {
            Sent::Bytes(sent) => Ok((sent, sent == pile.bytes.len(), pile.split(0, sent))),
            Sent::Broken(reason) => Err(reason),
        };
        pile.clear();
        self.scratch.pile = pile;
        let (sent, all, (whole, begun)) = match outcome {
            Ok(outcome) => outcome,
            Err(reason) => return self.close(key, reason),
        };

        let State::Replay(replay) = &mut stream.state else { return };
        if all {
            // Past the last event read, there is nothing of its own up to the read's cursor.
            replay.cursor = if piled == events.len() { read.cursor } else { events[piled - 1].seq };
        } else if begun > 0 {
            replay.cursor = events[whole].seq;
            replay.rest = events[whole].frame.share(framing, begun);
        } else if whole > 0 {
            replay.cursor = events[whole - 1].seq;
        }
        let caught_up = all && replay.cursor == self.cursor;
        if sent > 0 {
            stream.progress = self.now as u32;
            self.delivered(key, whole + usize::from(begun > 0), sent);
        }
        match (all, caught_up) {
            (false, _) => self.block(key),
            (true, true) => self.caught_up(key),
            // More in the log; or, rarely, the shard itself still has to read up to where the stream begins.
            (true, false) => self.replays.push_back(key),
        }
    }

    /// A replaying stream has had all that the shard has read: it is live now.
    fn caught_up(&mut self, key: u32) {
        let stream = &mut self.streams[key as usize];
        let State::Replay(replay) = &stream.state else { return };
        if stream.left == 0 {
            return self.end(key, CloseReason::LimitReached);
        }
        if replay.then_end {
            return self.end(key, CloseReason::Drained);
        }
        let Some(audience) = self.audiences.get_mut(stream.audience) else { return };
        stream.state = State::Live { at: audience.end() };
        stream.place = audience.members.len() as u32;
        audience.members.push(key);
        self.wheel.schedule(key, self.now + self.ticker.ticks(self.config.heartbeat));
    }

    /// The stream's socket is full: it waits for room, but not for ever.
    fn block(&mut self, key: u32) {
        let Some(stream) = self.streams.get_mut(key as usize) else { return };
        if let State::Replay(replay) = &mut stream.state {
            replay.blocked = true;
        }
        if !stream.watches_writable {
            stream.watches_writable = true;
            let both = Readiness::READABLE | Readiness::WRITABLE;
            if let Err(error) = self.poll.registry().reregister(&mut stream.socket, Token(key as usize), both) {
                tracing::error!(%error, shard = self.id, "cannot watch a stream's socket for room");
                return self.close(key, CloseReason::ConnectionReset);
            }
        }
        self.wheel.schedule(key, self.now + self.ticker.ticks(self.config.stall_timeout));
    }

    /// The poll has something to say about a stream's socket.
    fn ready(&mut self, key: u32, event: &mio::event::Event) {
        // The stream may have ended earlier in this batch; keys are given anew only after it.
        let Some(stream) = self.streams.get_mut(key as usize) else { return };
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            if let Some(reason) = stream.ignore_input() {
                return self.close(key, reason);
            }
        }
        if event.is_writable() {
            match &mut stream.state {
                State::Replay(replay) if replay.blocked => {
                    replay.blocked = false;
                    self.replays.push_back(key);
                }
                State::Ended(_) => self.send_ending(key),
                State::Live { .. } | State::Replay(_) => {}
            }
        }
    }

    // ---- time

    fn turn_wheel(&mut self) {
        self.now = self.ticker.now();
        self.wheel.advance(self.now, &mut self.due);
        self.drain_some();
    }

    /// Looks at up to `budget` streams whose time was called.
    fn call_due(&mut self, budget: usize) -> usize {
        let calls = budget.min(self.due.len());
        for _ in 0..calls {
            let Some(key) = self.due.pop() else { break };
            self.call(key);
        }
        calls
    }

    fn call(&mut self, key: u32) {
        let Some(stream) = self.streams.get_mut(key as usize) else { return };
        let idle = u64::from((self.now as u32).wrapping_sub(stream.progress));
        let patience = match &stream.state {
            State::Live { .. } => self.ticker.ticks(self.config.heartbeat),
            State::Replay(_) => self.ticker.ticks(self.config.stall_timeout),
            State::Ended(ending) => {
                let reason = ending.reason;
                return self.close(key, reason);
            }
        };
        if idle < patience {
            return self.wheel.schedule(key, self.now + patience - idle);
        }
        match &stream.state {
            State::Replay(replay) if replay.blocked => self.close(key, CloseReason::Stalled),
            // It waits for its turn, not for its socket.
            State::Replay(_) => self.wheel.schedule(key, self.now + patience),
            _ => self.send_heartbeat(key),
        }
    }

    fn send_heartbeat(&mut self, key: u32) {
        let frame = match &self.heartbeat {
            Some((tick, frame)) if *tick == self.now => frame.clone(),
            _ => {
                let frame = frame::heartbeat(self.config.heartbeat_style, Now::read());
                self.heartbeat = Some((self.now, frame.clone()));
                frame
            }
        };
        let stream = &mut self.streams[key as usize];
        let State::Live { at } = stream.state else { return };
        let Some(audience) = self.audiences.get(stream.audience) else { return };
        let framing = audience.key.framing;
        let bytes = frame.bytes(framing);
        match stream.send(bytes) {
            Sent::Bytes(sent) if sent == bytes.len() => {
                stream.progress = self.now as u32;
                bump(&self.link.counters.heartbeats, 1);
                bump(&self.link.counters.bytes, sent as u64);
                self.wheel.schedule(key, self.now + self.ticker.ticks(self.config.heartbeat));
            }
            Sent::Bytes(sent) => {
                let cursor = audience.cursor(audience.had(at), self.cursor);
                let rest = if sent > 0 { frame.share(framing, sent) } else { Bytes::new() };
                bump(&self.link.counters.stalls, 1);
                bump(&self.link.counters.bytes, sent as u64);
                self.leave_audience(key);
                let replay = Replay { cursor, rest, ..Replay::default() };
                self.streams[key as usize].state = State::Replay(Box::new(replay));
                self.block(key);
            }
            Sent::Broken(reason) => self.close(key, reason),
        }
    }

    // ---- streams go

    /// Ends a stream in good order: its body's end, then this side of the connection.
    fn end(&mut self, key: u32, reason: CloseReason) {
        let Some(stream) = self.streams.get(key as usize) else { return };
        let Some(audience) = self.audiences.get(stream.audience) else { return };
        let framing = audience.key.framing;
        let mut rest = Vec::new();
        if reason == CloseReason::Drained {
            rest.extend_from_slice(frame::farewell(self.retry_after_drain_ms(), Now::read()).bytes(framing));
        }
        rest.extend_from_slice(framing.terminator());
        self.leave_audience(key);
        self.streams[key as usize].state = State::Ended(Box::new(Ending { rest: rest.into(), reason }));
        self.send_ending(key);
    }

    fn send_ending(&mut self, key: u32) {
        let stream = &mut self.streams[key as usize];
        let State::Ended(ending) = &mut stream.state else { return };
        let mut rest = mem::take(&mut ending.rest);
        if !rest.is_empty() {
            match stream.send(&rest) {
                Sent::Bytes(sent) => rest = rest.slice(sent..),
                Sent::Broken(reason) => return self.close(key, reason),
            }
        }
        if rest.is_empty() {
            // An error means that the connection is gone already, which the poll tells as well.
            let _ = stream.socket.shutdown(Shutdown::Write);
            self.wheel.schedule(key, self.now + self.ticker.ticks(LINGER));
        } else {
            if let State::Ended(ending) = &mut stream.state {
                ending.rest = rest;
            }
            self.block(key);
        }
    }

    /// Takes a stream out, and closes its socket.
    fn close(&mut self, key: u32, reason: CloseReason) {
        self.leave_audience(key);
        let Some(stream) = self.streams.try_remove(key as usize) else { return };
        self.wheel.cancel(key);
        // One that had been ended was ended for that reason, whatever became of the connection after.
        let reason = match &stream.state {
            State::Ended(ending) => ending.reason,
            _ => reason,
        };
        self.link.counters.count_closed(reason);
        tracing::debug!(shard = self.id, stream = key, reason = reason.as_str(), "stream closed");
        if let Some(sweep) = self.sweep.take_if(|sweep| sweep.audience == stream.audience) {
            // Should the audience go with this stream, its number may be another's when the sweep goes on.
            match self.audiences.is_last(stream.audience) {
                true => self.scratch.pile = sweep.into_cleared_pile(),
                false => self.sweep = Some(sweep),
            }
        }
        self.ahead -= self.audiences.exit(stream.audience, |interest| self.log.leave(interest, self.id));
        self.seats.release();
    }

    /// Takes a live stream off its audience's members.
    fn leave_audience(&mut self, key: u32) {
        let Some(stream) = self.streams.get(key as usize) else { return };
        let State::Live { .. } = stream.state else { return };
        let place = stream.place as usize;
        let Some(audience) = self.audiences.get_mut(stream.audience) else { return };
        audience.members.swap_remove(place);
        if let Some(&moved) = audience.members.get(place) {
            self.streams[moved as usize].place = place as u32;
        }
    }

    /// Counts a write of `n` events, and takes them from the stream's limit; ends it where that is used up and no
    /// begun frame is left to finish.
    fn delivered(&mut self, key: u32, n: usize, bytes: usize) {
        let counters = &self.link.counters;
        bump(&counters.bytes, bytes as u64);
        if n == 0 {
            return;
        }
        bump(&counters.delivered, n as u64);
        bump(&counters.writes, 1);
        let Some(stream) = self.streams.get_mut(key as usize) else { return };
        if stream.left != NO_LIMIT {
            stream.left -= n as u32;
            if stream.left == 0 && matches!(stream.state, State::Live { .. }) {
                self.end(key, CloseReason::LimitReached);
            }
        }
    }

    // ---- the end of all

    fn begin_drain(&mut self, grace: Duration) {
        let left: Vec<u32> = self.streams.iter().map(|(key, _)| key as u32).collect();
        self.drain = Some(Drain {
            planned: left.len(),
            left,
            started: self.now,
            deadline: self.now + self.ticker.ticks(grace).max(1),
        });
    }

    /// Ends as many streams as their even spread over the first three quarters of the grace period asks for; what is
    /// left at its end is closed.
    fn drain_some(&mut self) {
        let Some(drain) = &mut self.drain else { return };
        let spread = ((drain.deadline - drain.started) * 3 / 4).max(1);
        let passed = (self.now - drain.started).min(spread);
        let keep = drain.planned - drain.planned * passed as usize / spread as usize;
        let ending = drain.left.split_off(keep.min(drain.left.len()));
        let over = self.now >= drain.deadline;
        for key in ending {
            self.retire(key);
        }
        if over {
            let late: Vec<u32> = self.streams.iter().map(|(key, _)| key as u32).collect();
            for key in late {
                self.close(key, CloseReason::DrainDeadline);
            }
        }
    }

    /// Ends a stream once it has had everything that was published.
    fn retire(&mut self, key: u32) {
        let Some(stream) = self.streams.get_mut(key as usize) else { return };
        match &mut stream.state {
            State::Replay(replay) => replay.then_end = true,
            State::Ended(_) => {}
            State::Live { at } => {
                let Some(audience) = self.audiences.get(stream.audience) else { return };
                let cursor = audience.cursor(audience.had(*at), self.cursor);
                self.leave_audience(key);
                let replay = Replay { cursor, then_end: true, ..Replay::default() };
                self.streams[key as usize].state = State::Replay(Box::new(replay));
                self.replays.push_back(key);
            }
        }
    }

    /// When a stream ended by the drain should come back: all of them spread over as long as the drain takes.
    fn retry_after_drain_ms(&self) -> u64 {
        let Some(drain) = &self.drain else { return 0 };
        let spread = self.ticker.tick.as_millis() as u64 * (drain.deadline - drain.started);
        let share = spread * drain.left.len() as u64 / drain.planned.max(1) as u64;
        self.config.retry.as_millis() as u64 + share
    }
}
