//! The ids of events: `<epoch>-<sequence>`.

use std::fmt;
use std::sync::Arc;

use crate::clock::Timestamp;

/// One history's name: ids of different epochs cannot be compared. New with every start of an in-memory history.
///
/// 1 to 16 characters of `0-9a-z`, so that `<epoch>-<sequence>` splits at its only hyphen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch(Arc<str>);

impl Epoch {
    /// The longest epoch, in bytes.
    pub const MAX: usize = 16;

    /// A name no earlier history had: the start's time in milliseconds and some chance, in base 36.
    pub fn fresh(now: Timestamp) -> Epoch {
        use std::hash::{BuildHasher, RandomState};
        // RandomState is seeded by the operating system: two brokers started in the same millisecond differ.
        let chance = RandomState::new().hash_one(now.unix_ms()) % (36 * 36 * 36);
        Epoch(base36(now.unix_ms() * 36 * 36 * 36 + chance).into())
    }

    /// The epoch as it stands in an id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn base36(mut n: u64) -> String {
    let mut digits = Vec::with_capacity(Epoch::MAX);
    while n > 0 || digits.is_empty() {
        digits.push(b"0123456789abcdefghijklmnopqrstuvwxyz"[(n % 36) as usize]);
        n /= 36;
    }
    digits.iter().rev().map(|&b| char::from(b)).collect()
}

/// The id of an event, `<epoch>-<sequence>`, borrowed from whatever text it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventId<'a> {
    /// The history it belongs to.
    pub epoch: &'a str,
    /// The place in that history, counting from 1; 0 stands before the first event.
    pub seq: u64,
}

impl<'a> EventId<'a> {
    /// Reads an id. `None` where the text has another shape, and so comes from another history.
    pub fn parse(text: &'a str) -> Option<EventId<'a>> {
        let (epoch, seq) = text.rsplit_once('-')?;
        if epoch.is_empty() || seq.is_empty() || !seq.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        Some(EventId { epoch, seq: seq.parse().ok()? })
    }
}

impl fmt::Display for EventId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}
