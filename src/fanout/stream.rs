//! One stream as its shard holds it: under 64 bytes while it is live.

use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use mio::net::TcpStream;

use super::Seat;
use super::pull::Pull;
use super::session::Session;
use crate::clock::Timestamp;
use crate::limit::StreamShares;

/// Why a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The client closed its connection.
    ClientClosed,
    /// The connection broke.
    ConnectionReset,
    /// The client stopped acknowledging: a half-open connection, found by `TCP_USER_TIMEOUT`.
    PeerTimeout,
    /// The client took nothing for the stall timeout.
    Stalled,
    /// The stream had delivered as many events as it was asked for.
    LimitReached,
    /// The client sent data on a connection that had become a stream, more than is ignored.
    UnexpectedInput,
    /// The token that it had been opened with has expired.
    TokenExpired,
    /// An operator ended it.
    Kicked,
    /// The broker stops, and ended the stream in good order.
    Drained,
    /// The broker stops, and the stream could not be ended in good order in time.
    DrainDeadline,
}

impl CloseReason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [CloseReason; 10] = [
        CloseReason::ClientClosed,
        CloseReason::ConnectionReset,
        CloseReason::PeerTimeout,
        CloseReason::Stalled,
        CloseReason::LimitReached,
        CloseReason::UnexpectedInput,
        CloseReason::TokenExpired,
        CloseReason::Kicked,
        CloseReason::Drained,
        CloseReason::DrainDeadline,
    ];

    /// The reason's name in logs and figures.
    pub fn as_str(self) -> &'static str {
        match self {
            CloseReason::ClientClosed => "client_closed",
            CloseReason::ConnectionReset => "connection_reset",
            CloseReason::PeerTimeout => "peer_timeout",
            CloseReason::Stalled => "stalled",
            CloseReason::LimitReached => "limit_reached",
            CloseReason::UnexpectedInput => "unexpected_input",
            CloseReason::TokenExpired => "token_expired",
            CloseReason::Kicked => "kicked",
            CloseReason::Drained => "drained",
            CloseReason::DrainDeadline => "drain_deadline",
        }
    }

    /// Whether the stream's last block tells it (`event: end`). The others leave no way to, or nobody to tell.
    pub(super) fn is_told(self) -> bool {
        use CloseReason::{Drained, Kicked, LimitReached, TokenExpired};
        matches!(self, TokenExpired | Kicked | LimitReached | Drained)
    }

    pub(super) fn from_error(error: &io::Error) -> CloseReason {
        match error.kind() {
            io::ErrorKind::TimedOut => CloseReason::PeerTimeout,
            _ => CloseReason::ConnectionReset,
        }
    }
}

/// A stream. What every delivery touches stands together in one cache line.
#[derive(Debug)]
pub(super) struct Stream {
    /// A socket of the shard's own; none where somebody else does the writing.
    pub(super) socket: Option<TcpStream>,
    pub(super) state: State,
    /// The audience it belongs to.
    pub(super) audience: u32,
    /// Its place among the audience's live members.
    pub(super) place: u32,
    /// The tick at which its socket last took something.
    pub(super) progress: u32,
    /// Events it may still get; [`NO_LIMIT`] where it did not say.
    pub(super) left: u32,
    /// Bytes the client sent although it had nothing to say.
    pub(super) ignored: u16,
    /// Whether the poll watches for writability too: from the first stall on.
    pub(super) watches_writable: bool,
    /// Its share of the bound on streams, given back with it.
    pub(super) _seat: Seat,
    /// What most do not have.
    pub(super) more: Option<Box<More>>,
}

/// What few streams have.
#[derive(Debug)]
pub(super) struct More {
    /// Who takes its bytes from the log and writes them; such a stream is live until it has ended.
    pub(super) pull: Option<Arc<Pull>>,
    /// Who listens, where there is something to know about that.
    pub(super) session: Option<Box<Session>>,
    /// Its part of what its address and its user may hold; given back with it.
    pub(super) _shares: Option<Box<StreamShares>>,
}

impl More {
    /// Boxed, if there is anything of it.
    pub(super) fn of(
        pull: Option<Arc<Pull>>,
        session: Option<Box<Session>>,
        shares: Option<Box<StreamShares>>,
    ) -> Option<Box<More>> {
        let is_any = pull.is_some() || session.is_some() || shares.is_some();
        is_any.then(|| Box::new(More { pull, session, _shares: shares }))
    }
}

/// Some of the memory for each stream that PERFORMANCE.md claims.
const _: () = assert!(size_of::<Stream>() <= if cfg!(debug_assertions) { 80 } else { 56 });

/// The `left` of a stream without `limit`.
pub(super) const NO_LIMIT: u32 = u32::MAX;

/// Where a stream stands.
#[derive(Debug)]
pub(super) enum State {
    /// It gets what its audience gets. `at` counts the audience's events it has had.
    Live { at: u32 },
    /// It reads the log at its own pace: it has just come, or resumes, or is slow.
    Replay(Box<Replay>),
    /// Its end is being sent, or was: it waits for the client to close.
    Ended(Box<Ending>),
}

/// A stream's own place in the log.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// It has had everything up to here, but for `rest`.
    pub(super) cursor: u64,
    /// Losses up to here it knows of.
    pub(super) told: u64,
    /// What its socket did not take of a frame it has begun.
    pub(super) rest: Bytes,
    /// Whether it waits for its socket.
    pub(super) blocked: bool,
    /// Whether it has done so since it was live, or came.
    pub(super) stalled: bool,
    /// The broker stops: it is to end as soon as it is caught up, and to come back after so many milliseconds.
    pub(super) retry_ms: Option<u64>,
    /// It is to end as soon as no frame is begun.
    pub(super) dismissed: Option<CloseReason>,
}

/// A stream's last bytes.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) rest: Bytes,
    pub(super) reason: CloseReason,
    /// The tick at which it is closed, however far it has come.
    pub(super) until: u64,
}

/// What became of a write.
pub(super) enum Sent {
    /// The socket took so many bytes: all, some or none.
    Bytes(usize),
    /// The connection is broken.
    Broken(CloseReason),
}

impl Stream {
    /// Keeps what the socket did not take of a frame, to be sent before anything else.
    pub(super) fn keep_rest(&mut self, rest: Bytes) {
        if let State::Replay(replay) = &mut self.state {
            replay.rest = rest;
        }
    }

    /// One `send`: as much as the socket takes now. Who pulls is told that there is something to pull.
    pub(super) fn send(&mut self, bytes: &[u8], now: u64) -> Sent {
        match &mut self.socket {
            Some(socket) => send(socket, bytes),
            None => {
                if let Some(pull) = self.pull() {
                    pull.call(now);
                }
                Sent::Bytes(bytes.len())
            }
        }
    }

    pub(super) fn pull(&self) -> Option<&Arc<Pull>> {
        self.more.as_ref()?.pull.as_ref()
    }

    pub(super) fn session(&self) -> Option<&Session> {
        self.more.as_ref()?.session.as_deref()
    }

    /// When it is to be dismissed because its token has expired, if that has not happened yet.
    pub(super) fn expires(&self) -> Option<Timestamp> {
        let expires = self.session()?.expires?;
        match &self.state {
            State::Ended(_) => None,
            State::Replay(replay) if replay.dismissed.is_some() => None,
            State::Live { .. } | State::Replay(_) => Some(expires),
        }
    }

    /// Reads away what the client sent: nothing is expected. Says whether and why the stream is over.
    pub(super) fn ignore_input(&mut self) -> Option<CloseReason> {
        /// A client may have pipelined a request or two behind the stream's; more than this it sends in bad faith.
        const IGNORED_MAX: u16 = 32 * 1024;
        let Some(socket) = &mut self.socket else { return None };
        let mut buf = [0; 4096];
        loop {
            match socket.read(&mut buf) {
                Ok(0) => return Some(CloseReason::ClientClosed),
                Ok(n) => {
                    self.ignored = self.ignored.saturating_add(n as u16);
                    if self.ignored > IGNORED_MAX {
                        return Some(CloseReason::UnexpectedInput);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return None,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Some(CloseReason::from_error(&e)),
            }
        }
    }
}

/// One `send`: as much as the socket takes now.
pub(super) fn send(socket: &mut TcpStream, bytes: &[u8]) -> Sent {
    loop {
        match socket.write(bytes) {
            Ok(n) => return Sent::Bytes(n),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Sent::Bytes(0),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Sent::Broken(CloseReason::from_error(&e)),
        }
    }
}
