//! Live streams: a sweep writes what is pending to an audience's members.

use std::mem;

use bytes::Bytes;

use super::super::audience::Audience;
use super::super::counters::bump;
use super::super::stream::{CloseReason, NO_LIMIT, Replay, Sent, State};
use super::Shard;
use super::pile::Pile;
use crate::clock::Steady;
use crate::frame::Framing;
use crate::log::Event;

/// A pile's size in bytes; what is over it goes with the next sweep.
const PILE_MAX: usize = 256 * 1024;

/// An audience being served.
pub(super) struct Sweep {
    pub(super) audience: u32,
    framing: Framing,
    /// Those who pull are told and not sent: their pile has events and no bytes.
    pulled: bool,
    pile: Pile,
    /// Members below this place are still to be served in this lap. Counting down, a member that leaves is replaced
    /// by one that has been served already.
    next: usize,
    lap: Lap,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lap {
    /// The first, in which new events still join the pile.
    First { grown: bool },
    /// For those who had their turn before the pile grew.
    Second,
}

impl Sweep {
    /// Adds an event to the pile; false if the pile is full.
    fn pile_up(&mut self, event: &Event) -> bool {
        if self.pulled {
            self.pile.push(&[]);
            return true;
        }
        let fits = self.pile.len() == 0 || self.pile.bytes.len() + event.frame.footprint() <= PILE_MAX;
        if fits {
            self.pile.push(event.frame.bytes(self.framing));
        }
        fits
    }

    /// Lets an event that has come meanwhile take part, if this is still the first lap, all before it do, and it fits.
    pub(super) fn grow(&mut self, audience: &Audience, event: &Event) {
        if matches!(self.lap, Lap::First { .. }) && self.pile.len() == audience.pending.len() && self.pile_up(event) {
            self.lap = Lap::First { grown: true };
        }
    }

    pub(super) fn into_cleared_pile(mut self) -> Pile {
        self.pile.clear();
        self.pile
    }
}

impl Shard {
    /// Serves up to `budget` live members; gives how many were.
    pub(super) fn sweep_some(&mut self, budget: usize) -> usize {
        let mut spent = 0;
        while spent < budget {
            let Some(mut sweep) = self.sweep.take().or_else(|| self.begin_sweep()) else { break };
            let mut done = false;
            while spent < budget && !done {
                done = !self.serve_next(&mut sweep);
                // The end of a sweep counts too, or many empty ones would hold up everything else.
                spent += 1;
            }
            // The audience may have gone with its last stream, and its number be another's by the next slice.
            match done || self.audiences.get(sweep.audience).is_none() {
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
                pulled: audience.key.pulled,
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
            let accepted = audience.pending[had].accepted;
            let n = (sweep.pile.len() - had).min(stream.left as usize);
            let bytes = sweep.pile.frames(had, had + n);
            match stream.send(bytes, self.now) {
                Sent::Bytes(sent) if sent == bytes.len() => {
                    if let State::Live { at } = &mut stream.state {
                        *at = at.wrapping_add(n as u32);
                    }
                    stream.progress = self.now as u32;
                    if !sweep.pulled {
                        self.written(accepted);
                        self.delivered(key, n, sent);
                    }
                }
                Sent::Bytes(sent) => self.stall(key, sweep, had, sent),
                Sent::Broken(reason) => self.close(key, reason),
            }
            return true;
        }
    }

    /// Notes a write whose oldest event was accepted then.
    fn written(&mut self, accepted: Steady) {
        match self.written.last_mut().filter(|(then, _)| *then == accepted) {
            Some((_, writes)) => *writes += 1,
            None => self.written.push((accepted, 1)),
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

    /// Takes a live stream off its audience's members.
    pub(super) fn leave_audience(&mut self, key: u32) {
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
    pub(super) fn delivered(&mut self, key: u32, n: usize, bytes: usize) {
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
}
