//! Time, in the three forms the tool needs: nanoseconds since one start for latencies, the moments at which events were
//! published, and calendar text for file names and frames.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// When each event was published, in nanoseconds since `start`, by the number the event carries.
///
/// The publisher writes a moment just before the request leaves; the receiver reads it when the event arrives. An
/// answer would come too late for that: the event is often at its streams before the publisher has its
/// acknowledgement. The socket between the two orders the accesses, so relaxed atomics are enough.
pub struct SendTimes {
    start: Instant,
    slots: Vec<AtomicU64>,
}

impl SendTimes {
    /// Room for `capacity` events; later ones are delivered and counted, but have no latency.
    pub fn new(capacity: usize) -> Self {
        Self { start: Instant::now(), slots: (0..capacity).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Nanoseconds since the start.
    pub fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub fn published(&self, number: u64, at: u64) {
        if let Some(slot) = self.slot(number) {
            slot.store(at, Ordering::Relaxed);
        }
    }

    /// When event `number` was published, if this process did it.
    pub fn of(&self, number: u64) -> Option<u64> {
        match self.slot(number)?.load(Ordering::Relaxed) {
            0 => None,
            at => Some(at),
        }
    }

    fn slot(&self, number: u64) -> Option<&AtomicU64> {
        self.slots.get(usize::try_from(number).ok()?)
    }
}

/// Time since the Unix epoch.
pub fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// `2026-11-23T21:46:25.971430308Z`
pub fn rfc3339(unix: Duration) -> String {
    let seconds = unix.as_secs();
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{}T{hour:02}:{minute:02}:{second:02}.{:09}Z", date(unix), unix.subsec_nanos())
}

/// `2026-11-23`, in UTC.
pub fn date(unix: Duration) -> String {
    // Days to a date in the proleptic Gregorian calendar, counting years from 1 March so that the leap day is last
    // (Howard Hinnant, "chrono-compatible low-level date algorithms", civil_from_days).
    let days = unix.as_secs() / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (1_795_470_385, "2026-11-23"),
            (4_107_542_399, "2100-02-28"),
            (4_107_542_400, "2100-03-01"),
        ] {
            assert_eq!(date(Duration::from_secs(seconds)), text);
        }
        assert_eq!(rfc3339(Duration::new(1_795_470_385, 971_430_308)), "2026-11-23T21:46:25.971430308Z");
    }
}
