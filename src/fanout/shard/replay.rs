//! Streams that read the log by themselves: they have just come, or resume, or are slow.

use std::mem;
use std::sync::Arc;

use mio::{Interest as Readiness, Token};

use super::super::counters::bump;
use super::super::stream::{CloseReason, Sent, State};
use super::Shard;
use crate::clock::Timestamp;
use crate::frame::{self, GapReason};
use crate::log::Event;

/// What one turn of replaying writes at the most, in bytes (or one frame, if that is larger), and reads, in events.
const WRITE_MAX: usize = 64 * 1024;
const READ_MAX: usize = 512;

impl Shard {
    /// Gives up to `budget` replaying streams a turn; gives how many had one.
    pub(super) fn replay_some(&mut self, budget: usize) -> usize {
        let turns = budget.min(self.replays.len());
        for _ in 0..turns {
            let Some(key) = self.replays.pop_front() else { break };
            self.replay(key);
        }
        turns
    }

    /// One turn of a replaying stream: the rest of a begun frame, then what the log has, up to one write's worth.
    pub(super) fn replay(&mut self, key: u32) {
        let Some(stream) = self.streams.get_mut(key as usize) else { return };
        let State::Replay(replay) = &mut stream.state else { return };
        if replay.blocked {
            return;
        }
        let rest = mem::take(&mut replay.rest);
        if !rest.is_empty() {
            match stream.send(&rest, self.now) {
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
        if let State::Replay(replay) = &stream.state
            && let Some(reason) = replay.dismissed
        {
            return self.end(key, reason);
        }
        if stream.left == 0 {
            return self.end(key, CloseReason::LimitReached);
        }
        let mut events = mem::take(&mut self.scratch.events);
        self.replay_from_log(key, &mut events);
        events.clear();
        self.scratch.events = events;
    }

    /// Writes what the log has after the stream's cursor, and moves the cursor.
    fn replay_from_log(&mut self, key: u32, events: &mut Vec<Arc<Event>>) {
        let stream = &mut self.streams[key as usize];
        let State::Replay(replay) = &mut stream.state else { return };
        let Some(audience) = self.audiences.get(stream.audience) else { return };
        let (interest, framing) = (&audience.key.interest, audience.key.framing);
        let max = READ_MAX.min(stream.left as usize);
        let read = self.log.read(interest, replay.cursor, self.cursor, max, events);

        let mut pile = mem::take(&mut self.scratch.pile);
        // The gap goes out with the events behind it: however fast the log loses more, each turn makes way.
        let gap = read.lost.filter(|&lost| lost > replay.told).map(|lost| {
            replay.told = lost;
            bump(&self.link.counters.gaps, 1);
            let requested = self.log.id(replay.cursor).to_string();
            let oldest = self.log.id(events.first().map_or(self.log.head(), |event| event.seq));
            frame::gap(&requested, oldest, GapReason::Evicted, Timestamp::now())
        });
        if let Some(gap) = &gap {
            pile.push(gap.bytes(framing));
        }
        let gaps = pile.len();
        for event in &*events {
            if pile.len() > gaps && pile.bytes.len() + event.frame.footprint() > WRITE_MAX {
                break;
            }
            pile.push(event.frame.bytes(framing));
        }
        let piled = pile.len() - gaps;
        let sent = if pile.len() > 0 { stream.send(&pile.bytes, self.now) } else { Sent::Bytes(0) };
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
        let mut delivered = whole.saturating_sub(gaps);
        if delivered > 0 {
            replay.cursor = events[delivered - 1].seq;
        }
        if all && piled == events.len() {
            // Past the last event read, there is nothing of its own up to the read's cursor.
            replay.cursor = read.cursor;
        } else if let Some(gap) = gap.filter(|_| whole == 0) {
            replay.rest = gap.share(framing, begun);
        } else if begun > 0 {
            let event = &events[delivered];
            (replay.cursor, replay.rest) = (event.seq, event.frame.share(framing, begun));
            delivered += 1;
        }
        if let Some(last) = events[..delivered].last()
            && let Some(audience) = self.audiences.get_mut(stream.audience)
        {
            audience.known = audience.known.max(last.seq);
        }
        let caught_up = all && replay.cursor == self.cursor;
        if sent > 0 {
            stream.progress = self.now as u32;
            self.delivered(key, delivered, sent);
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
        if replay.retry_ms.is_some() {
            return self.end(key, CloseReason::Drained);
        }
        let Some(audience) = self.audiences.get_mut(stream.audience) else { return };
        stream.state = State::Live { at: audience.end() };
        stream.place = audience.members.len() as u32;
        audience.members.push(key);
        self.schedule(key, self.now + self.ticker.ticks(self.config.heartbeat));
    }

    /// The stream's socket is full: it waits for room, but not for ever.
    pub(super) fn block(&mut self, key: u32) {
        let Some(stream) = self.streams.get_mut(key as usize) else { return };
        if let State::Replay(replay) = &mut stream.state {
            replay.blocked = true;
            if !replay.stalled {
                replay.stalled = true;
                bump(&self.link.counters.stalls, 1);
            }
        }
        if !stream.watches_writable {
            stream.watches_writable = true;
            let both = Readiness::READABLE | Readiness::WRITABLE;
            let Some(socket) = &mut stream.socket else { return };
            if let Err(error) = self.poll.registry().reregister(socket, Token(key as usize), both) {
                tracing::error!(%error, shard = self.id, "cannot watch a stream's socket for room");
                return self.close(key, CloseReason::ConnectionReset);
            }
        }
        self.schedule(key, self.now + self.ticker.ticks(self.config.stall_timeout));
    }
}
