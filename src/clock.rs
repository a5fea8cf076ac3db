//! Wall-clock time, read once where a request or a tick begins and handed down from there.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// A moment of wall-clock time: nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    unix_ns: u64,
}

impl Now {
    /// Reads the clock.
    pub fn read() -> Now {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { unix_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX) }
    }

    /// A moment given in milliseconds since 1970, as the log keeps it.
    pub const fn from_unix_ms(ms: u64) -> Now {
        Now { unix_ns: ms.saturating_mul(1_000_000) }
    }

    /// How long it is after `earlier`; nothing where it is before.
    pub fn since(self, earlier: Now) -> Duration {
        Duration::from_nanos(self.unix_ns.saturating_sub(earlier.unix_ns))
    }

    /// Nanoseconds since 1970.
    pub fn unix_ns(self) -> u64 {
        self.unix_ns
    }

    /// Milliseconds since 1970.
    pub fn unix_ms(self) -> u64 {
        self.unix_ns / 1_000_000
    }

    /// Seconds since 1970.
    pub fn unix_s(self) -> u64 {
        self.unix_ns / 1_000_000_000
    }

    /// RFC 3339 in UTC, with nanoseconds (an event's envelope).
    pub fn nanos(self) -> impl fmt::Display {
        self.timestamp()
    }

    /// RFC 3339 in UTC, whole seconds (an event's `data.timestamp`).
    pub fn seconds(self) -> impl fmt::Display {
        Timestamp::from_second(self.timestamp().as_second()).unwrap_or_default()
    }

    fn timestamp(self) -> Timestamp {
        Timestamp::from_nanosecond(i128::from(self.unix_ns)).unwrap_or(Timestamp::MAX)
    }
}
