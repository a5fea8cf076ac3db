//! What others ask of a shard: to take streams in, to say who listens, to end somebody's streams.

use std::mem;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use mio::net::TcpStream;
use mio::{Interest as Readiness, Token};

use super::super::audience::Key;
use super::super::counters::bump;
use super::super::pull::Pull;
use super::super::stream::{CloseReason, More, NO_LIMIT, Replay, State, Stream};
use super::super::{Arrival, Command, Kick, Listed, Seat, Survey};
use super::{SLICE, Shard};
use crate::frame::Framing;
use crate::log::Interest;
use crate::sync::lock;

impl Shard {
    pub(super) fn take_inbox(&mut self) {
        if !self.link.inbox_is_empty() {
            self.inbox.extend(mem::take(&mut *lock(&self.link.inbox)));
        }
        // A crowd of newcomers does not keep those who are here waiting.
        for _ in 0..SLICE {
            match self.inbox.pop_front() {
                Some(Command::Open(arrival, socket, sent)) => self.open(arrival, socket, sent),
                Some(Command::Attach(pull, interest, cursor, seat, session, shares)) => {
                    let more = More::of(Some(pull.clone()), session, shares);
                    self.attach(&pull, interest, cursor, seat, more);
                }
                Some(Command::Gone(pull, reason)) => {
                    if let Some(key) = pull.key() {
                        self.close(key, reason);
                    }
                }
                // Who does not wait for the answer any more does not need it.
                Some(Command::List(from, limit, tell)) => drop(tell.send(self.list(from, limit))),
                Some(Command::Kick(kick, tell)) => drop(tell.send(self.kick(&kick))),
                Some(Command::Survey(tell)) => drop(tell.send(self.survey())),
                Some(Command::Drain(plan)) => self.begin_drain(plan),
                None => break,
            }
        }
    }

    fn open(&mut self, arrival: Arrival, socket: std::net::TcpStream, sent: usize) {
        let Arrival { opening, listening, framing, cursor, told, limit, seat, session, shares } = arrival;
        let entry = self.streams.vacant_entry();
        let key = entry.key() as u32;
        let mut socket = TcpStream::from_std(socket);
        // Edge-triggered, and only for its end: until a write finds no room, nobody cares for writability.
        if let Err(error) = self.poll.registry().register(&mut socket, Token(entry.key()), Readiness::READABLE) {
            tracing::error!(%error, shard = self.id, "cannot watch a stream's socket");
            return;
        }
        let audience = self.audiences.enter(Key { interest: listening.hand_over(), framing, pulled: false }, cursor);
        bump(&self.link.counters.bytes, sent as u64);
        let rest = if sent < opening.len() { Bytes::from(opening).slice(sent..) } else { Bytes::new() };
        let replay = Replay { cursor, told, rest, ..Replay::default() };
        entry.insert(Stream {
            socket: Some(socket),
            state: State::Replay(Box::new(replay)),
            audience,
            place: 0,
            progress: self.now as u32,
            left: limit.unwrap_or(NO_LIMIT),
            ignored: 0,
            watches_writable: false,
            _seat: seat,
            more: More::of(None, session, shares),
        });
        bump(&self.link.counters.opened, 1);
        if cursor > self.cursor {
            // The shard slept through what its streams had not asked for; the newcomer starts after that.
            self.link.wanted.fetch_max(cursor, Ordering::SeqCst);
            self.read_log();
        }
        if let Some(drain) = &mut self.drain {
            drain.join(key);
        }
        self.replay(key);
    }

    /// Takes in a stream that pulls. It begins at a cursor of its own: here it only needs to be told of what comes.
    fn attach(&mut self, pull: &Pull, interest: Interest, cursor: u64, seat: Seat, more: Option<Box<More>>) {
        let audience = self.audiences.enter(Key { interest, framing: Framing::Plain, pulled: true }, cursor);
        let entry = self.streams.vacant_entry();
        let key = entry.key() as u32;
        let Some(members) = self.audiences.get_mut(audience) else { return };
        let (at, place) = (members.end(), members.members.len() as u32);
        members.members.push(key);
        pull.set_key(Some(key));
        // What came before it was here has gone past it.
        pull.call(self.now);
        entry.insert(Stream {
            socket: None,
            state: State::Live { at },
            audience,
            place,
            progress: self.now as u32,
            left: NO_LIMIT,
            ignored: 0,
            watches_writable: false,
            _seat: seat,
            more,
        });
        bump(&self.link.counters.opened, 1);
        self.watch(key, self.now + self.ticker.ticks(self.config.heartbeat));
        if let Some(drain) = &mut self.drain {
            drain.join(key);
        }
    }

    // ---- operators

    fn list(&self, from: u32, limit: usize) -> Vec<Listed> {
        let end = self.streams.iter().next_back().map_or(0, |(key, _)| key as u32 + 1);
        let known = (from..end).filter_map(|key| {
            let stream = self.streams.get(key as usize)?;
            Some(Listed { key, session: stream.session()?.clone() })
        });
        known.take(limit).collect()
    }

    /// Looks at all streams.
    fn survey(&self) -> Survey {
        let mut survey = Survey { slowest: self.behind(), ..Survey::default() };
        for (_, stream) in &self.streams {
            let behind = match (&stream.state, stream.pull()) {
                (State::Ended(_), _) => {
                    survey.ending += 1;
                    continue;
                }
                (State::Live { .. }, None) => {
                    survey.live += 1;
                    continue;
                }
                (State::Live { .. }, Some(pull)) => {
                    survey.carried += 1;
                    pull.behind()
                }
                (State::Replay(replay), _) if replay.blocked => {
                    survey.stalled += 1;
                    Some(replay.cursor)
                }
                (State::Replay(replay), _) => {
                    survey.replaying += 1;
                    Some(replay.cursor)
                }
            };
            survey.slowest = survey.slowest.into_iter().chain(behind).min();
        }
        survey
    }

    /// The cursor of the live stream that is farthest behind, if any is: its audience has waited longest for its turn, or
    /// the shard itself has not read what its streams want.
    fn behind(&self) -> Option<u64> {
        let waiting = self.sweep.as_ref().map(|sweep| sweep.audience).or(self.queue.front().copied());
        let oldest = waiting.and_then(|id| self.audiences.get(id)?.pending.front()).map(|event| event.seq - 1);
        let unread = self.link.wanted.load(Ordering::SeqCst) > self.cursor;
        oldest.or(unread.then_some(self.cursor))
    }

    fn kick(&mut self, kick: &Kick) -> usize {
        let meant = self.streams.iter().filter(|(_, stream)| {
            !matches!(stream.state, State::Ended(_)) && stream.session().is_some_and(|one| kick.means(one))
        });
        let keys: Vec<u32> = meant.map(|(key, _)| key as u32).collect();
        for &key in &keys {
            self.dismiss(key, CloseReason::Kicked);
        }
        keys.len()
    }
}
