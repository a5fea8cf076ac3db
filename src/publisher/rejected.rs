//! The reasons for which an event is not queued.

use std::fmt;

use crate::name::Invalid;

/// Why an event was not queued. The drop has been counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejected {
    /// It breaks the rules on topics, types, users, or data; the text says which.
    Invalid(Invalid),
    /// It is larger than a request or the whole queue may be.
    TooLarge {
        /// Its size as it would be sent, in bytes.
        bytes: usize,
        /// The largest size that is allowed, in bytes.
        most: usize,
    },
    /// The queue is full: the broker does not answer, or not as fast as events are published.
    Full,
    /// The publisher was closed.
    Closed,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rejected::Invalid(why) => why.fmt(f),
            Rejected::TooLarge { bytes, most } => write!(f, "the event has {bytes} bytes; expected at most {most}"),
            Rejected::Full => f.write_str("the publisher's queue is full"),
            Rejected::Closed => f.write_str("the publisher is closed"),
        }
    }
}

impl std::error::Error for Rejected {}
