//! A topic's rate: events a second over the last ten seconds.

use std::time::Duration;

use crate::clock::Steady;

/// The time over which a topic's rate is measured.
pub const RATE_WINDOW: Duration = Duration::from_secs(10);

/// Counts events by windows of time. Two counts are enough to estimate the rate over the last window's length.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    /// The number of the current window, on the steady clock.
    window: u64,
    count: u64,
    /// The count of the window before.
    before: u64,
}

impl Pace {
    pub(super) fn count(&mut self, now: Steady) {
        *self = self.at(now);
        self.count += 1;
    }

    /// Events per second: those of this window, and the share of the window before that lies within a window's length.
    pub(super) fn rate(&self, now: Steady) -> f64 {
        let Pace { window, count, before } = self.at(now);
        let length = RATE_WINDOW.as_secs_f64();
        let into = (now.ns() as f64 / 1e9 - window as f64 * length).clamp(0.0, length);
        (before as f64 * (1.0 - into / length) + count as f64) / length
    }

    fn at(self, now: Steady) -> Pace {
        let window = now.ms() / (1000 * RATE_WINDOW.as_secs());
        match window.saturating_sub(self.window) {
            // A clock reading that is older than another thread's stays in that one's window.
            0 => self,
            1 => Pace { window, count: 0, before: self.count },
            _ => Pace { window, count: 0, before: 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_ten_seconds() {
        let at = |s: f64| Steady::from_ms(1_800_000_000_000 + (s * 1000.0) as u64);
        let mut pace = Pace::default();
        assert_eq!(pace.rate(at(0.0)), 0.0);
        // Ten a second, for thirty seconds.
        for tenth in 0..300 {
            pace.count(at(f64::from(tenth) / 10.0));
        }
        for s in [30.0, 33.0, 37.5, 39.9] {
            let gone = (s - 30.0) / 10.0;
            let rate = pace.rate(at(s));
            assert!((rate - 10.0 * (1.0 - gone)).abs() < 0.2, "{s}: {rate}");
        }
        assert_eq!(pace.rate(at(50.0)), 0.0);
        // An older reading neither panics nor makes anything negative.
        assert!(pace.rate(at(0.0)) >= 0.0);
    }
}
