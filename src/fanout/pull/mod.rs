//! Streams that pull: those over TLS and HTTP/2, where somebody else does the writing. A [`Puller`] reads the log by its
//! own cursor whenever its carrier has room; its shard keeps time for it and tells it that there is more to read, as it
//! sends to the others. So a stalled one waits on its carrier's flow control alone, and holds nothing but its cursor.

mod signals;

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};

use super::stream::{CloseReason, NO_LIMIT};
use super::{Command, Link};
use crate::clock::{Steady, Timestamp};
use crate::frame::{self, Framing, GapReason, HeartbeatStyle};
use crate::log::{Event, Interest, Log, Read};

pub(super) use signals::{End, Pull};

/// What one pull gives at the most, in bytes (or one frame, if that is larger): a frame of HTTP/2, or a record of TLS.
const PULL_MAX: usize = 16 * 1024;

/// Events read from the log at a time.
const READ_MAX: usize = 64;

/// Reads that find nothing, before others have a turn.
const SEARCHES: usize = 16;

/// A stream's body, for whoever writes it. Dropping it ends the stream.
#[derive(Debug)]
pub struct Puller {
    log: Arc<Log>,
    link: Arc<Link>,
    pull: Arc<Pull>,
    interest: Interest,
    /// The stream's first frames, as long as they were not taken.
    first: Bytes,
    cursor: u64,
    told: u64,
    left: u32,
    ended: Option<CloseReason>,
    /// What it gets after this is new, and not from the history.
    live_from: u64,
}

/// Tells a stream's carrier that the stream was given up: it stalled, or did not take its end in time. Its puller is to
/// be dropped then, for its carrier has no room to pull it to its end.
#[derive(Debug)]
pub struct Cutoff(Arc<Pull>);

impl Cutoff {
    /// Ready once the stream was given up. It shares its waker with the puller: both are to be polled by the same task,
    /// this one last.
    pub fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        match self.0.is_cut(cx.waker()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

/// With what a puller begins.
pub(super) struct Beginning {
    pub(super) interest: Interest,
    pub(super) first: Bytes,
    pub(super) cursor: u64,
    pub(super) told: u64,
    pub(super) limit: Option<u32>,
}

impl Puller {
    pub(super) fn new(log: Arc<Log>, link: Arc<Link>, beginning: Beginning) -> (Puller, Arc<Pull>) {
        let Beginning { interest, first, cursor, told, limit } = beginning;
        let (pull, left) = (Arc::new(Pull::new()), limit.unwrap_or(NO_LIMIT));
        let shared = pull.clone();
        let live_from = log.head();
        (Puller { log, link, pull, interest, first, cursor, told, left, ended: None, live_from }, shared)
    }

    /// Whether nothing comes after what was pulled.
    pub fn is_over(&self) -> bool {
        self.ended.is_some()
    }

    /// Tells when nobody waits for the stream's end any more.
    pub fn cutoff(&self) -> Cutoff {
        Cutoff(self.pull.clone())
    }

    /// The next bytes of the stream; `None` at its end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.ended.is_some() {
            return Poll::Ready(None);
        }
        let (heartbeat, end) = self.pull.answer(cx.waker(), self.cursor);
        if !self.first.is_empty() {
            let first = std::mem::take(&mut self.first);
            return self.give(first);
        }
        if self.left == 0 {
            return self.end(CloseReason::LimitReached, None);
        }
        // A stream that drains gets first what was published; one whose right to listen has ended does not.
        if let Some(end) = end.filter(|end| end.reason != CloseReason::Drained) {
            return self.end(end.reason, None);
        }
        let mut events = Vec::new();
        for _ in 0..SEARCHES {
            let head = self.log.head();
            let max = READ_MAX.min(self.left as usize);
            let read = self.log.read(&self.interest, self.cursor, head, max, &mut events);
            if let Some(bytes) = self.encode(&events, read) {
                return self.give(bytes);
            }
            self.cursor = read.cursor;
            if self.cursor >= head {
                return match (end, heartbeat) {
                    (Some(End { reason, retry_ms }), _) => self.end(reason, retry_ms),
                    (None, Some(style)) => {
                        self.link.pulled.add_heartbeat();
                        let heartbeat = frame::heartbeat(style, self.log.id(self.cursor), Timestamp::now());
                        self.give(heartbeat.share(Framing::Plain, 0))
                    }
                    (None, None) => Poll::Pending,
                };
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn give(&self, bytes: Bytes) -> Poll<Option<Bytes>> {
        self.link.pulled.add_bytes(bytes.len() as u64);
        Poll::Ready(Some(bytes))
    }

    /// The stream's last block, where its reason is told; nothing comes behind it.
    fn end(&mut self, reason: CloseReason, retry_ms: Option<u64>) -> Poll<Option<Bytes>> {
        self.ended = Some(reason);
        match reason.is_told() {
            true => {
                let end = frame::end(reason.as_str(), self.log.id(self.cursor), retry_ms, Timestamp::now());
                self.give(end.share(Framing::Plain, 0))
            }
            false => Poll::Ready(None),
        }
    }

    /// The bytes for what was read, as far as they fit into one pull; moves the cursor behind them.
    fn encode(&mut self, events: &[Arc<Event>], read: Read) -> Option<Bytes> {
        let gap = read.lost.filter(|&lost| lost > self.told).map(|lost| {
            self.told = lost;
            self.link.pulled.add_gap();
            let requested = self.log.id(self.cursor).to_string();
            let oldest = self.log.id(events.first().map_or(self.log.head(), |event| event.seq));
            frame::gap(&requested, oldest, GapReason::Evicted, Timestamp::now())
        });
        let frames = gap.iter().chain(events.iter().map(|event| &event.frame));
        let (mut taken, mut size) = (0, 0);
        for frame in frames.clone() {
            let length = frame.bytes(Framing::Plain).len();
            if taken > 0 && size + length > PULL_MAX {
                break;
            }
            (taken, size) = (taken + 1, size + length);
        }
        let bytes = match taken {
            0 => return None,
            // Shared, not copied.
            1 => frames.clone().next().map(|frame| frame.share(Framing::Plain, 0)),
            _ => {
                let mut bytes = BytesMut::with_capacity(size);
                frames.take(taken).for_each(|frame| bytes.extend_from_slice(frame.bytes(Framing::Plain)));
                Some(bytes.freeze())
            }
        };
        let delivered = taken - usize::from(gap.is_some());
        if delivered == events.len() {
            self.cursor = read.cursor;
        } else if delivered > 0 {
            self.cursor = events[delivered - 1].seq;
        }
        if self.left != NO_LIMIT {
            self.left -= delivered as u32;
        }
        self.link.pulled.add_delivered(delivered as u64);
        if let Some(oldest) = events[..delivered].first().filter(|oldest| oldest.seq > self.live_from) {
            self.link.pulled.add_wait(Steady::read().since(oldest.accepted));
        }
        bytes
    }
}

impl Drop for Puller {
    fn drop(&mut self) {
        // Who ends it without having been told to is the client.
        let reason = self.ended.unwrap_or(CloseReason::ClientClosed);
        self.link.post(Command::Gone(self.pull.clone(), reason));
        self.link.wake();
    }
}
