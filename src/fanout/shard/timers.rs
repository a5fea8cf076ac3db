//! Time: ticks, what the wheel calls, heartbeats.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::counters::bump;
use super::super::stream::{CloseReason, Replay, Sent, State, Stream};
use super::Shard;
use crate::clock::{Steady, Timestamp};
use crate::frame::{self, Frame, HeartbeatStyle};

/// A heartbeat as it was made for a place in a tick.
pub(super) struct Heartbeat {
    tick: u64,
    place: u64,
    style: HeartbeatStyle,
    frame: Frame,
}

/// The shard's time: ticks since it started, short enough for the shortest interval to be kept to a 64th.
pub(super) struct Ticker {
    started: Instant,
    pub(super) tick: Duration,
}

impl Ticker {
    pub(super) fn new(shortest: Duration) -> Ticker {
        let tick = (shortest / 64).clamp(Duration::from_millis(1), Duration::from_secs(1));
        Ticker { started: Instant::now(), tick }
    }

    pub(super) fn at(&self, moment: Instant) -> u64 {
        (moment.saturating_duration_since(self.started).as_nanos() / self.tick.as_nanos()) as u64
    }

    /// An interval in ticks, rounded up.
    pub(super) fn ticks(&self, interval: Duration) -> u64 {
        interval.as_nanos().div_ceil(self.tick.as_nanos()) as u64
    }

    /// How long until `tick` begins.
    pub(super) fn until(&self, tick: u64) -> Duration {
        let since_start = Duration::from_nanos((self.tick.as_nanos() as u64).saturating_mul(tick));
        since_start.saturating_sub(self.started.elapsed())
    }
}

impl Shard {
    pub(super) fn turn_wheel(&mut self, now: Instant) {
        self.now = self.ticker.at(now);
        self.wheel.advance(self.now, &mut self.due);
        self.drain_some();
    }

    /// Counts a turn of the loop, and what was written in it: the clock is read once for all of it.
    pub(super) fn end_turn(&mut self, begun: Instant) {
        let counters = &self.link.counters;
        counters.turns.observe(begun.elapsed(), 1);
        if !self.written.is_empty() {
            let now = Steady::read();
            for (accepted, writes) in self.written.drain(..) {
                counters.waited.observe(now.since(accepted), writes);
            }
        }
    }

    /// Looks at up to `budget` streams whose time was called.
    pub(super) fn call_due(&mut self, budget: usize) -> usize {
        let calls = budget.min(self.due.len());
        for _ in 0..calls {
            let Some(key) = self.due.pop() else { break };
            self.call(key);
        }
        calls
    }

    /// Calls on the stream at this tick, or when its time to listen is over if that is before.
    pub(super) fn schedule(&mut self, key: u32, tick: u64) {
        let tick = match self.streams.get(key as usize).and_then(Stream::expires) {
            Some(expires) => tick.min(self.now + self.ticker.ticks(Timestamp::now().until(expires))),
            None => tick,
        };
        self.wheel.schedule(key, tick);
    }

    /// The same; one that pulls is looked at often enough for its stall to be found in time, of which nothing else tells.
    pub(super) fn watch(&mut self, key: u32, tick: u64) {
        let pulls = self.streams.get(key as usize).is_some_and(|stream| stream.pull().is_some());
        let stalled = self.now + self.ticker.ticks(self.config.stall_timeout);
        self.schedule(key, if pulls { tick.min(stalled) } else { tick });
    }

    fn call(&mut self, key: u32) {
        let Some(stream) = self.streams.get_mut(key as usize) else { return };
        if stream.expires().is_some_and(|expires| expires <= Timestamp::now()) {
            return self.dismiss(key, CloseReason::TokenExpired);
        }
        if let Some(pull) = stream.pull()
            && let State::Live { .. } = stream.state
            && let Some(since) = pull.silent_since()
        {
            let until = since + self.ticker.ticks(self.config.stall_timeout);
            return match self.now >= until {
                true => self.dismiss(key, CloseReason::Stalled),
                false => self.schedule(key, until),
            };
        }
        let idle = u64::from((self.now as u32).wrapping_sub(stream.progress));
        let patience = match &stream.state {
            State::Live { .. } => self.ticker.ticks(self.config.heartbeat),
            State::Replay(_) => self.ticker.ticks(self.config.stall_timeout),
            State::Ended(ending) if self.now < ending.until => return self.wheel.schedule(key, ending.until),
            State::Ended(ending) => {
                let reason = ending.reason;
                return self.close(key, reason);
            }
        };
        if idle < patience {
            return self.watch(key, self.now + patience - idle);
        }
        match &stream.state {
            State::Replay(replay) if replay.blocked => self.close(key, CloseReason::Stalled),
            // It waits for its turn, not for its socket.
            State::Replay(_) => self.schedule(key, self.now + patience),
            _ => self.send_heartbeat(key),
        }
    }

    fn send_heartbeat(&mut self, key: u32) {
        if self.heartbeat.as_ref().is_none_or(|last| last.tick != self.now) {
            self.read_past_unwanted();
        }
        let stream = &self.streams[key as usize];
        let State::Live { at } = stream.state else { return };
        let Some(audience) = self.audiences.get(stream.audience) else { return };
        let place = audience.cursor(audience.had(at), self.cursor);
        let style = audience.heartbeat_style(self.config.heartbeat_style, place);
        let framing = audience.key.framing;
        if let Some(pull) = stream.pull() {
            // It is the one to tell its place, when it has room for that.
            pull.beat(self.now, style);
            self.streams[key as usize].progress = self.now as u32;
            return self.watch(key, self.now + self.ticker.ticks(self.config.heartbeat));
        }
        let frame = self.heartbeat(style, place);
        let bytes = frame.bytes(framing);
        let stream = &mut self.streams[key as usize];
        match stream.send(bytes, self.now) {
            Sent::Bytes(sent) if sent == bytes.len() => {
                stream.progress = self.now as u32;
                bump(&self.link.counters.heartbeats, 1);
                bump(&self.link.counters.bytes, sent as u64);
                self.schedule(key, self.now + self.ticker.ticks(self.config.heartbeat));
            }
            Sent::Bytes(sent) => {
                let rest = if sent > 0 { frame.share(framing, sent) } else { Bytes::new() };
                bump(&self.link.counters.bytes, sent as u64);
                self.leave_audience(key);
                let replay = Replay { cursor: place, rest, ..Replay::default() };
                self.streams[key as usize].state = State::Replay(Box::new(replay));
                self.block(key);
            }
            Sent::Broken(reason) => self.close(key, reason),
        }
    }

    /// The heartbeat for streams at `place` in this tick.
    fn heartbeat(&mut self, style: HeartbeatStyle, place: u64) -> Frame {
        let tick = self.now;
        let made = self.heartbeat.take().filter(|last| (last.tick, last.place, last.style) == (tick, place, style));
        let heartbeat = made.unwrap_or_else(|| {
            let frame = frame::heartbeat(style, self.log.id(place), Timestamp::now());
            Heartbeat { tick, place, style, frame }
        });
        self.heartbeat.insert(heartbeat).frame.clone()
    }
}
