//! The queue of events that are neither accepted nor dropped yet, in the order in which they were published, bounded by
//! events and by bytes; and the counts of accepted and dropped events.
//!
//! One lock covers both, so that at every moment each published event is accepted, dropped for a reason, or queued. The
//! lock is held to move an event or to count one, and never while an event is encoded, sent or freed.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::Notify;

use super::encode::Event;
use super::rejected::Rejected;
use crate::sync::lock;

/// Figures of all published events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Events given to the publisher: the sum of `queued`, `accepted` and what was dropped.
    pub published: u64,
    /// Events that wait or are being sent.
    pub queued: u64,
    /// Their bytes, as they are sent.
    pub queued_bytes: u64,
    /// Events that the broker has accepted.
    pub accepted: u64,
    /// Events that were dropped.
    pub dropped: Dropped,
    /// Requests made.
    pub requests: u64,
    /// Requests that repeated a failed one.
    pub retried: u64,
}

/// Events that were dropped, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// They break the rules on topics and types, or their data is no JSON object or is too large. The caller got
    /// [`Rejected`].
    pub invalid: u64,
    /// The queue was full. The caller got [`Rejected`].
    pub full: u64,
    /// The broker refused them, for their content or because this service may not publish them.
    pub refused: u64,
    /// The broker could not be reached or did not answer until they expired. If only its answers were lost, it may have
    /// accepted them.
    pub expired: u64,
    /// They were published after the publisher was closed, or were still queued when its time to close was over.
    pub closed: u64,
}

impl Dropped {
    /// All dropped events.
    pub fn total(&self) -> u64 {
        self.invalid + self.full + self.refused + self.expired + self.closed
    }

    /// The events that were dropped since an earlier count.
    pub(super) fn since(&self, earlier: &Dropped) -> Dropped {
        Dropped {
            invalid: self.invalid - earlier.invalid,
            full: self.full - earlier.full,
            refused: self.refused - earlier.refused,
            expired: self.expired - earlier.expired,
            closed: self.closed - earlier.closed,
        }
    }
}

/// The decision on an event that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Accepted,
    Refused,
    Expired,
}

/// Bounds on what is queued, and on what is taken from it at once.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    /// Events queued, those that are being sent included.
    pub(super) events: usize,
    /// Their bytes.
    pub(super) bytes: usize,
    /// Events in one request.
    pub(super) batch: usize,
    /// Bytes in the body of one request.
    pub(super) body: usize,
    /// How long an event is of use after it was published.
    pub(super) age: Duration,
}

/// The queue between the callers and the sender.
#[derive(Debug)]
pub(super) struct Queue {
    bounds: Bounds,
    state: Mutex<State>,
    /// Notified when the events that the sender waits for are there.
    arrived: Notify,
    /// Notified when an event is decided, and at the end.
    decided: Notify,
    /// Notified when an event is dropped.
    dropped: Notify,
    /// Notified when there is a new deadline for closing.
    closing: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Event>,
    waiting_bytes: usize,
    figures: Figures,
    /// How many events were ever queued, which is the number of the last one.
    arrivals: u64,
    sender: Sender,
    is_closed: bool,
    /// When the events that are left are dropped.
    deadline: Option<Instant>,
    is_over: bool,
    /// The reason for the last drop, in the broker's words.
    why: Option<String>,
    last_id: Option<String>,
}

/// What the sender waits for. It is woken for that, and not for each event.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Sender {
    /// It has something to do.
    #[default]
    Busy,
    /// Any event.
    One,
    /// As many as fit into a request.
    Batch,
}

impl Queue {
    pub(super) fn new(bounds: Bounds) -> Queue {
        Queue {
            bounds,
            state: Mutex::default(),
            arrived: Notify::new(),
            decided: Notify::new(),
            dropped: Notify::new(),
            closing: Notify::new(),
        }
    }

    /// Nothing that is done while it is held can panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    // ---- the callers' side

    /// Queues an event, or drops it.
    pub(super) fn push(&self, event: Event) -> Result<(), Rejected> {
        self.offer(event).map_err(|(rejected, _)| {
            self.reject(&rejected);
            rejected
        })
    }

    /// Queues an event as soon as there is room for it.
    pub(super) async fn push_when_there_is_room(&self, mut event: Event) -> Result<(), Rejected> {
        loop {
            // Registered before looking: what is decided in between is not missed.
            let decided = self.decided.notified();
            match self.offer(event) {
                Ok(()) => return Ok(()),
                Err((Rejected::Full, back)) => event = back,
                Err((rejected, _)) => {
                    self.reject(&rejected);
                    return Err(rejected);
                }
            }
            decided.await;
        }
    }

    fn offer(&self, event: Event) -> Result<(), (Rejected, Event)> {
        let size = event.json().len();
        // As a batch of one, in brackets.
        if size + 2 > self.bounds.body.min(self.bounds.bytes) {
            return Err((Rejected::TooLarge { bytes: size, most: self.bounds.body.min(self.bounds.bytes) - 2 }, event));
        }
        let mut state = self.lock();
        if state.is_closed {
            return Err((Rejected::Closed, event));
        }
        let figures = &mut state.figures;
        if figures.queued >= self.bounds.events as u64 || figures.queued_bytes + size as u64 > self.bounds.bytes as u64
        {
            return Err((Rejected::Full, event));
        }
        figures.published += 1;
        figures.queued += 1;
        figures.queued_bytes += size as u64;
        state.arrivals += 1;
        state.waiting_bytes += size;
        state.waiting.push_back(event);
        let wake = match state.sender {
            Sender::Busy => false,
            Sender::One => true,
            Sender::Batch => self.has_batch(&state),
        };
        if wake {
            state.sender = Sender::Busy;
            drop(state);
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Counts an event that did not get into the queue.
    pub(super) fn reject(&self, rejected: &Rejected) {
        {
            let figures = &mut self.lock().figures;
            figures.published += 1;
            match rejected {
                Rejected::Invalid(_) | Rejected::TooLarge { .. } => figures.dropped.invalid += 1,
                Rejected::Full => figures.dropped.full += 1,
                Rejected::Closed => figures.dropped.closed += 1,
            }
        }
        self.dropped.notify_one();
    }

    /// Waits until all events are decided that were queued before.
    pub(super) async fn flushed(&self) -> Figures {
        let upto = {
            let mut state = self.lock();
            self.hurry(&mut state);
            state.arrivals
        };
        loop {
            let decided = self.decided.notified();
            {
                let state = self.lock();
                if state.arrivals - state.figures.queued >= upto {
                    return state.figures;
                }
            }
            decided.await;
        }
    }

    /// Takes no more events. Those that are queued are sent, but what is still queued at `deadline` is dropped.
    pub(super) fn close(&self, deadline: Option<Instant>) {
        let mut state = self.lock();
        state.is_closed = true;
        state.deadline = [state.deadline, deadline].into_iter().flatten().min();
        self.hurry(&mut state);
        drop(state);
        self.closing.notify_one();
        // For those who wait for room.
        self.decided.notify_waiters();
    }

    /// Waits until everything is over.
    pub(super) async fn closed(&self) -> Figures {
        loop {
            let decided = self.decided.notified();
            {
                let state = self.lock();
                if state.is_over {
                    return state.figures;
                }
            }
            decided.await;
        }
    }

    pub(super) fn figures(&self) -> Figures {
        self.lock().figures
    }

    /// The id of the last event that was accepted.
    pub(super) fn last_id(&self) -> Option<String> {
        self.lock().last_id.clone()
    }

    /// Has the sender wait for no more events: now, or else after what it does now.
    fn hurry(&self, state: &mut State) {
        state.sender = Sender::Busy;
        self.arrived.notify_one();
    }

    // ---- the sender's side

    /// Waits for an event; gives whether there is one, or else the queue is closed and empty.
    pub(super) async fn has_some(&self) -> bool {
        loop {
            {
                let mut state = self.lock();
                if !state.waiting.is_empty() || state.is_closed {
                    return !state.waiting.is_empty();
                }
                state.sender = Sender::One;
            }
            self.arrived.notified().await;
        }
    }

    /// Waits until there is as much as fits into one request, or somebody flushes or closes.
    pub(super) async fn has_many(&self) {
        {
            let mut state = self.lock();
            if self.has_batch(&state) || state.is_closed {
                return;
            }
            state.sender = Sender::Batch;
        }
        self.arrived.notified().await;
    }

    fn has_batch(&self, state: &State) -> bool {
        state.waiting.len() >= self.bounds.batch || state.waiting_bytes >= self.bounds.body
    }

    /// Takes what fits into one request; what is too old for it is dropped. Gives nothing where nothing is left.
    pub(super) fn take(&self) -> Vec<Event> {
        let (mut taken, mut old, mut body) = (Vec::new(), Vec::new(), 1);
        {
            let mut state = self.lock();
            state.sender = Sender::Busy;
            while taken.len() < self.bounds.batch {
                // With the comma or bracket behind it.
                match state.waiting.front() {
                    Some(event) if body + event.json().len() < self.bounds.body => {}
                    _ => break,
                }
                let Some(event) = state.waiting.pop_front() else { break };
                state.waiting_bytes -= event.json().len();
                match event.at.elapsed() >= self.bounds.age {
                    true => old.push(event),
                    false => {
                        body += event.json().len() + 1;
                        taken.push(event);
                    }
                }
            }
        }
        if !old.is_empty() {
            self.decide(&old, Decision::Expired, Some("they had waited for longer than they may"));
        }
        taken
    }

    /// Counts what became of events that were taken; `why` where they were dropped.
    pub(super) fn decide(&self, events: &[Event], decision: Decision, why: Option<&str>) {
        let (count, bytes) = (events.len() as u64, size(events) as u64);
        {
            let mut state = self.lock();
            let figures = &mut state.figures;
            figures.queued -= count;
            figures.queued_bytes -= bytes;
            match decision {
                Decision::Accepted => figures.accepted += count,
                Decision::Refused => figures.dropped.refused += count,
                Decision::Expired => figures.dropped.expired += count,
            }
            if let Some(why) = why {
                state.why = Some(why.to_owned());
            }
        }
        if decision != Decision::Accepted {
            self.dropped.notify_one();
        }
        self.decided.notify_waiters();
    }

    /// Notes the id of the last event that was accepted.
    pub(super) fn note_id(&self, id: String) {
        self.lock().last_id = Some(id);
    }

    /// Counts a request.
    pub(super) fn count_request(&self, is_retry: bool) {
        let figures = &mut self.lock().figures;
        figures.requests += 1;
        figures.retried += u64::from(is_retry);
    }

    /// Waits until the time to close is over.
    pub(super) async fn time_is_over(&self) {
        loop {
            let deadline = self.lock().deadline;
            match deadline {
                None => self.closing.notified().await,
                // It may be moved to an earlier time meanwhile.
                Some(deadline) => {
                    let is_over = tokio::time::timeout_at(deadline.into(), self.closing.notified()).await.is_err();
                    if is_over {
                        return;
                    }
                }
            }
        }
    }

    /// Drops what is left, and takes no more.
    pub(super) fn abandon(&self) {
        let left = {
            let mut state = self.lock();
            state.is_closed = true;
            let figures = &mut state.figures;
            figures.dropped.closed += figures.queued;
            figures.queued = 0;
            figures.queued_bytes = 0;
            state.waiting_bytes = 0;
            std::mem::take(&mut state.waiting)
        };
        drop(left);
    }

    /// Tells all who wait that everything is over.
    pub(super) fn end(&self) {
        self.lock().is_over = true;
        self.decided.notify_waiters();
    }

    // ---- the reporter's side

    /// Waits until something was dropped since this was last asked.
    pub(super) async fn has_dropped(&self) {
        self.dropped.notified().await;
    }

    /// The figures, and why something was dropped since this was last asked.
    pub(super) fn drops(&self) -> (Figures, Option<String>) {
        let mut state = self.lock();
        (state.figures, state.why.take())
    }
}

fn size(events: &[Event]) -> usize {
    events.iter().map(|event| event.json().len()).sum()
}
