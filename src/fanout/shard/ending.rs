//! How streams end: one by one, or all of them when the broker stops.

use std::mem;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::DrainPlan;
use super::super::pull::End;
use super::super::stream::{CloseReason, Ending, Replay, Sent, State, send};
use super::Shard;
use crate::clock::Timestamp;
use crate::frame;

/// How long an ended stream's connection waits for the client to close its side. Closing first would lose the last
/// frames where the client has sent something unread (the kernel answers that with a reset).
const LINGER: Duration = Duration::from_secs(2);

/// The end of all streams, spread over time.
pub(super) struct Drain {
    /// Streams still to be ended, the next one last.
    left: Vec<u32>,
    planned: usize,
    started: Instant,
    plan: DrainPlan,
    /// How far apart two streams of this shard come back.
    spacing: Duration,
}

/// How far apart streams come back after a drain, all shards together: a broker that has just started lets in many
/// more than a thousand a second.
const SPACING: Duration = Duration::from_millis(1);

/// How often a draining shard looks whether the next streams are due.
pub(super) const DRAIN_STEP: Duration = Duration::from_millis(10);

impl Drain {
    /// A stream that came while the drain was under way goes next.
    pub(super) fn join(&mut self, key: u32) {
        self.left.push(key);
    }

    /// Takes the next stream to end off the plan, if it is due: all are spread evenly over the first three quarters
    /// of the grace period, the rest of which is for those who are slow to take their last frames.
    fn next_due(&mut self) -> Option<u32> {
        let spread = self.plan.grace * 3 / 4;
        let passed = self.started.elapsed().as_secs_f64() / spread.as_secs_f64();
        let keep = (self.planned as f64 * (1.0 - passed)) as usize;
        if self.left.len() > keep || passed >= 1.0 { self.left.pop() } else { None }
    }

    /// How long the stream that was taken off last should stay away: until this broker is gone, since it would be
    /// refused before that; and then each a little longer than the one before it, so that the next broker is not asked
    /// by all of them at once, but no longer than another grace period.
    fn stay_away(&self) -> Duration {
        let gone = self.planned.saturating_sub(self.left.len() + 1);
        let turn = self.spacing.saturating_mul(u32::try_from(gone).unwrap_or(u32::MAX));
        self.plan.gone_by.saturating_duration_since(Instant::now()) + turn.min(self.plan.grace)
    }

    fn is_over(&self) -> bool {
        self.started.elapsed() >= self.plan.grace
    }
}

impl Shard {
    /// Ends a stream in good order: its body's end, then this side of the connection.
    pub(super) fn end(&mut self, key: u32, reason: CloseReason) {
        let Some(stream) = self.streams.get(key as usize) else { return };
        if stream.pull().is_some() {
            return self.release(key, reason, None);
        }
        let Some(audience) = self.audiences.get(stream.audience) else { return };
        let (place, retry_ms) = match &stream.state {
            State::Live { at } => (audience.cursor(audience.had(*at), self.cursor), None),
            State::Replay(replay) => (replay.cursor, replay.retry_ms),
            State::Ended(_) => return,
        };
        let framing = audience.key.framing;
        let mut rest = Vec::new();
        if reason.is_told() {
            let end = frame::end(reason.as_str(), self.log.id(place), retry_ms, Timestamp::now());
            rest.extend_from_slice(end.bytes(framing));
        }
        rest.extend_from_slice(framing.terminator());
        self.leave_audience(key);
        let until = self.now + self.ticker.ticks(self.config.stall_timeout);
        self.streams[key as usize].state = State::Ended(Box::new(Ending { rest: rest.into(), reason, until }));
        self.send_ending(key);
    }

    /// Ends a stream as soon as it is not in the middle of a frame, however far it has come.
    pub(super) fn dismiss(&mut self, key: u32, reason: CloseReason) {
        let Some(stream) = self.streams.get_mut(key as usize) else { return };
        match &mut stream.state {
            State::Ended(_) => {}
            State::Replay(replay) if !replay.rest.is_empty() => {
                replay.dismissed = Some(reason);
                // Should its socket never take the rest, it stalls.
                let stalled = self.now + self.ticker.ticks(self.config.stall_timeout);
                self.wheel.schedule(key, stalled);
            }
            State::Live { .. } | State::Replay(_) => self.end(key, reason),
        }
    }

    /// Has a stream that pulls end itself, for which it has as long as others have to take their last bytes.
    fn release(&mut self, key: u32, reason: CloseReason, retry_ms: Option<u64>) {
        self.leave_audience(key);
        let until = self.now + self.ticker.ticks(self.config.stall_timeout);
        let stream = &mut self.streams[key as usize];
        let Some(pull) = stream.pull() else { return };
        pull.end(self.now, End { reason, retry_ms });
        stream.state = State::Ended(Box::new(Ending { rest: Bytes::new(), reason, until }));
        match reason {
            // It has not taken anything for as long already.
            CloseReason::Stalled => self.close(key, reason),
            _ => self.wheel.schedule(key, until),
        }
    }

    /// Sends what is left of a stream's end, then closes this side of the connection.
    pub(super) fn send_ending(&mut self, key: u32) {
        let stream = &mut self.streams[key as usize];
        let State::Ended(ending) = &mut stream.state else { return };
        let Some(socket) = &mut stream.socket else { return };
        let mut rest = mem::take(&mut ending.rest);
        if !rest.is_empty() {
            match send(socket, &rest) {
                Sent::Bytes(sent) => rest = rest.slice(sent..),
                Sent::Broken(reason) => return self.close(key, reason),
            }
        }
        let sent_all = rest.is_empty();
        ending.rest = rest;
        if sent_all {
            // An error means that the connection is gone already, which the poll tells as well.
            let _ = socket.shutdown(Shutdown::Write);
            ending.until = self.now + self.ticker.ticks(LINGER);
            self.wheel.schedule(key, ending.until);
        } else {
            self.block(key);
        }
    }

    /// Takes a stream out, and closes its socket.
    pub(super) fn close(&mut self, key: u32, reason: CloseReason) {
        self.leave_audience(key);
        let Some(stream) = self.streams.try_remove(key as usize) else { return };
        self.wheel.cancel(key);
        // One that had been ended was ended for that reason, whatever became of the connection after.
        let reason = match &stream.state {
            State::Ended(ending) => ending.reason,
            _ => reason,
        };
        if let Some(pull) = stream.pull() {
            pull.cut(self.now, reason);
            pull.set_key(None);
        }
        self.link.counters.count_closed(reason);
        tracing::debug!(shard = self.id, stream = key, reason = reason.as_str(), "stream closed");
        self.ahead -= self.audiences.exit(stream.audience, |interest| self.log.leave(interest, self.id));
        // Should the audience have gone with its last stream, its number may be another's when the sweep goes on.
        if self.audiences.get(stream.audience).is_none()
            && let Some(sweep) = self.sweep.take_if(|sweep| sweep.audience == stream.audience)
        {
            self.scratch.pile = sweep.into_cleared_pile();
        }
    }

    /// Plans the end of all streams.
    pub(super) fn begin_drain(&mut self, plan: DrainPlan) {
        let left: Vec<u32> = self.streams.iter().map(|(key, _)| key as u32).collect();
        let spacing = SPACING * self.config.shards as u32;
        self.drain = Some(Drain { planned: left.len(), left, started: Instant::now(), plan, spacing });
    }

    /// Ends the streams that are due to be ended, and closes what is left when the grace period is over.
    pub(super) fn drain_some(&mut self) {
        while let Some(drain) = &mut self.drain
            && let Some(key) = drain.next_due()
        {
            let retry = self.config.retry.max(drain.stay_away());
            self.retire(key, retry.as_millis() as u64);
        }
        if self.drain.as_ref().is_some_and(Drain::is_over) {
            let late: Vec<u32> = self.streams.iter().map(|(key, _)| key as u32).collect();
            for key in late {
                // A last turn for those whose end is due and whose socket has room.
                self.replay(key);
                self.close(key, CloseReason::DrainDeadline);
            }
        }
    }

    /// Ends a stream, telling it when to come back, once it has had everything that was published.
    fn retire(&mut self, key: u32, retry_ms: u64) {
        let Some(stream) = self.streams.get_mut(key as usize) else { return };
        match &mut stream.state {
            State::Replay(replay) => replay.retry_ms = Some(retry_ms),
            State::Ended(_) => {}
            State::Live { .. } if stream.socket.is_none() => {
                self.release(key, CloseReason::Drained, Some(retry_ms));
            }
            State::Live { at } => {
                let Some(audience) = self.audiences.get(stream.audience) else { return };
                let cursor = audience.cursor(audience.had(*at), self.cursor);
                self.leave_audience(key);
                let replay = Replay { cursor, retry_ms: Some(retry_ms), ..Replay::default() };
                self.streams[key as usize].state = State::Replay(Box::new(replay));
                self.replays.push_back(key);
            }
        }
    }
}
