//! The clocks. They are read where a request or a tick begins, and the moment is passed down from there.
//!
//! There are two clocks. The wall clock tells moments that people give: the expiry of a token, a date in `since=`. It
//! jumps when it is set. The steady clock never jumps, so it measures ages and rates: how long an event is kept, how
//! fast a service publishes.

use std::cmp::Ordering;
use std::fmt;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment on the steady clock, which is the system's monotonic clock. Two moments tell the time between them, and
/// nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Steady {
    ns: u64,
}

impl Steady {
    /// Reads the clock. It counts from the wall clock's time at the first reading, so that its numbers are far from 0
    /// and ages can be subtracted from them.
    pub fn read() -> Steady {
        static START: LazyLock<(Instant, u64)> = LazyLock::new(|| (Instant::now(), unix_ns()));
        let (started, unix_ns) = *START;
        let passed = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Steady { ns: unix_ns.saturating_add(passed) }
    }

    /// A moment from its milliseconds.
    pub const fn from_ms(ms: u64) -> Steady {
        Steady { ns: ms.saturating_mul(1_000_000) }
    }

    /// The time since `earlier`; zero if that is later.
    pub fn since(self, earlier: Steady) -> Duration {
        Duration::from_nanos(self.ns.saturating_sub(earlier.ns))
    }

    /// The moment that is `span` earlier.
    pub fn before(self, span: Duration) -> Steady {
        Steady { ns: self.ns.saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)) }
    }

    /// Nanoseconds.
    pub fn ns(self) -> u64 {
        self.ns
    }

    /// Milliseconds.
    pub fn ms(self) -> u64 {
        self.ns / 1_000_000
    }
}

fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A moment of wall-clock time, in nanoseconds since 1970, and the same moment on the steady clock. Timestamps are
/// ordered by the wall clock.
#[derive(Debug, Clone, Copy)]
pub struct Timestamp {
    unix_ns: u64,
    steady: Steady,
}

impl PartialEq for Timestamp {
    fn eq(&self, other: &Timestamp) -> bool {
        self.unix_ns == other.unix_ns
    }
}

impl Eq for Timestamp {}

impl PartialOrd for Timestamp {
    fn partial_cmp(&self, other: &Timestamp) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timestamp {
    fn cmp(&self, other: &Timestamp) -> Ordering {
        self.unix_ns.cmp(&other.unix_ns)
    }
}

impl Timestamp {
    /// Reads both clocks.
    pub fn now() -> Timestamp {
        Timestamp { unix_ns: unix_ns(), steady: Steady::read() }
    }

    /// A given moment, in milliseconds since 1970. Its steady moment assumes that the two clocks never differ;
    /// [`Timestamp::steady_at`] gives the real one.
    pub const fn from_unix_ms(ms: u64) -> Timestamp {
        Timestamp { unix_ns: ms.saturating_mul(1_000_000), steady: Steady::from_ms(ms) }
    }

    /// The same moment where the wall clock has been set by so many milliseconds.
    #[cfg(test)]
    pub(crate) fn set_by(self, ms: i64) -> Timestamp {
        Timestamp { unix_ns: self.unix_ns.saturating_add_signed(ms * 1_000_000), ..self }
    }

    /// The moment on the steady clock.
    pub fn steady(self) -> Steady {
        self.steady
    }

    /// The steady moment of a given wall-clock moment. It is computed from both clocks' present readings, because the
    /// wall clock may have been set meanwhile.
    pub fn steady_at(self, given: Timestamp) -> Steady {
        /// The two clocks are read one after the other, so the result is not exact. It errs towards too early.
        const BETWEEN_READINGS: Duration = Duration::from_millis(1);
        let passed = Duration::from_nanos(self.unix_ns.saturating_sub(given.unix_ns));
        let ahead_ns = given.unix_ns.saturating_sub(self.unix_ns);
        Steady { ns: self.steady.ns.saturating_add(ahead_ns) }.before(passed.saturating_add(BETWEEN_READINGS))
    }

    /// The time until a given moment by the wall clock; zero if that has passed.
    pub fn until(self, given: Timestamp) -> Duration {
        Duration::from_nanos(given.unix_ns.saturating_sub(self.unix_ns))
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
        jiff::Timestamp::from_second(self.timestamp().as_second()).unwrap_or_default()
    }

    fn timestamp(self) -> jiff::Timestamp {
        jiff::Timestamp::from_nanosecond(i128::from(self.unix_ns)).unwrap_or(jiff::Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    #[test]
    fn a_given_moment_is_found_by_how_the_wall_clock_stands() {
        let true_ms = 1_800_000_000_000;
        let given = Timestamp::from_unix_ms(true_ms - 60_000);
        let within = |found: Steady, ms: u64| (Steady::from_ms(ms - 1)..=Steady::from_ms(ms)).contains(&found);
        let now = Timestamp::from_unix_ms(true_ms);
        assert!(within(now.steady_at(given), true_ms - 60_000));
        assert!(within(now.steady_at(Timestamp::from_unix_ms(true_ms + 60_000)), true_ms + 60_000));
        // A clock that was wrong when the process began, and has been set right since.
        let set = Timestamp::from_unix_ms(5_000_000_000).set_by((true_ms - 5_000_000_000) as i64);
        assert_eq!(set, now);
        assert!(within(set.steady_at(given), 5_000_000_000 - 60_000));
        assert_eq!(set.steady_at(Timestamp::from_unix_ms(0)), Steady::from_ms(0), "before all that the process knows");
    }

    #[test]
    fn moments_are_ordered_by_the_wall_clock_and_ages_are_not_measured_by_it() {
        let earlier = Timestamp::from_unix_ms(1_800_000_000_000);
        let later = Timestamp::from_unix_ms(1_800_000_002_000);
        assert!(later.set_by(-HOUR_MS) < earlier && later.set_by(HOUR_MS) > earlier);
        for set in [0, HOUR_MS, -HOUR_MS] {
            assert_eq!(later.set_by(set).steady().since(earlier.steady()), Duration::from_secs(2));
        }
    }

    #[test]
    fn readings_never_go_back() {
        let mut last = Steady::read();
        for _ in 0..1000 {
            let next = Steady::read();
            assert!(next >= last);
            last = next;
        }
        let apart = Timestamp::now().unix_ns().abs_diff(Timestamp::now().steady().ns());
        assert!(apart < 10_000_000_000, "they begin at the same number: {apart} ns");
    }
}
