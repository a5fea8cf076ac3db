//! The log's settings.

use std::time::Duration;

/// The bounds on what the log keeps.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Events kept, of all topics together.
    pub max_events: usize,
    /// Bytes kept, of all topics together: the frames and the memory that holds them.
    pub max_bytes: usize,
    /// How long an event is kept.
    pub max_age: Duration,
    /// Events kept of one topic.
    pub topic_events: usize,
    /// The newest events of all topics, kept past their topic's bound.
    pub live_events: usize,
    /// Topics that stay in the index while they are unused, so that their counts go on.
    pub watched: Box<[Box<str>]>,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig {
            max_events: 1_000_000,
            max_bytes: 64 << 20,
            max_age: Duration::from_secs(3600),
            topic_events: 10_000,
            live_events: 1_024,
            watched: Box::default(),
        }
    }
}
