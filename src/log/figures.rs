//! Figures of the log and of its topics.

use std::sync::Arc;

use crate::clock::Timestamp;

/// Figures of the kept events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The number of events.
    pub events: usize,
    /// The memory that they take, in bytes.
    pub bytes: usize,
    /// The number of topics with history or with listeners.
    pub topics: usize,
    /// The oldest event's sequence number; 0 if none is kept.
    pub oldest: u64,
    /// The newest sequence number; 0 before the first event.
    pub newest: u64,
    /// The bytes of all events' frames since the start.
    pub published_bytes: u64,
}

/// Figures of a topic. Counts begin when the topic enters the index; it leaves when it has neither listeners nor kept
/// events.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicFigures {
    /// Its name.
    pub topic: Arc<str>,
    /// Streams that ask for it by its name.
    pub listeners: u64,
    /// How many streams have asked for it so far.
    pub joined: u64,
    /// How many of them have left.
    pub left: u64,
    /// Events accepted.
    pub events_published: u64,
    /// The bytes of their frames.
    pub bytes_published: u64,
    /// Events per second, over the last [`RATE_WINDOW`](super::RATE_WINDOW).
    pub rate: f64,
    /// Events kept of it.
    pub events: usize,
    /// The oldest kept event; 0 if there is none.
    pub oldest: u64,
    /// The newest kept event; 0 if there is none.
    pub newest: u64,
    /// When the last one was accepted.
    pub last_published: Option<Timestamp>,
    /// The newest evicted event; 0 if there is none.
    pub lost: u64,
}
