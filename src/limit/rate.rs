//! Token buckets: so many requests a second, and so many at once.
//!
//! A bucket is one number, the moment from which it is full (the generic cell rate algorithm, ITU-T I.371, in its
//! virtual scheduling form): taking moves that moment on, and time alone refills it. So nothing runs for a bucket that
//! nobody asks, and one whose moment has passed is the same as none at all.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Timestamp;

const SECOND_NS: u64 = 1_000_000_000;

/// A bucket whose moment is further off than its size and this had another rate before: it starts anew, else it would
/// refuse for as long as the other one took to fill. Threads that read the clock one after the other and come here in
/// the other order are much closer than this.
const STRAY_NS: u64 = SECOND_NS;

/// So many requests a second for ever, and so many at once after a rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    interval_ns: u64,
    burst: u64,
}

impl Rate {
    /// The highest rate, in requests a second.
    pub const MAX: u64 = 1_000_000;

    /// The largest burst, in requests.
    pub const MAX_BURST: u64 = 10 * Rate::MAX;

    /// A rate of `per_second`, from 1 to [`Rate::MAX`], with a burst of 1 to [`Rate::MAX_BURST`]; `None` for other
    /// numbers. It is kept as whole nanoseconds a request: high rates come out higher, by 0.1% at most.
    pub fn new(per_second: u64, burst: u64) -> Option<Rate> {
        let fits = (1..=Rate::MAX).contains(&per_second) && (1..=Rate::MAX_BURST).contains(&burst);
        fits.then(|| Rate { interval_ns: SECOND_NS / per_second, burst })
    }

    /// The burst of a rate that comes without one: two seconds' worth.
    pub const fn usual_burst(per_second: u64) -> u64 {
        per_second.saturating_mul(2)
    }

    /// How long an empty bucket takes to fill.
    fn full_ns(self) -> u64 {
        self.interval_ns * self.burst
    }
}

/// What is left in a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// The most it can hold, in requests.
    pub limit: u64,
    /// What it holds, in requests.
    pub remaining: u64,
    /// When it is full again if nothing more is taken, in seconds since 1970, rounded up.
    pub reset_s: u64,
}

/// There was not enough in the bucket, and nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// What is in it.
    pub allowance: Allowance,
    /// After so many seconds there will be enough, if nobody else takes it; rounded up, so at least 1.
    pub retry_after_s: u64,
}

/// A bucket, full in the beginning. Its rate is given with each taking, since many buckets share one.
#[derive(Debug, Default)]
pub struct Bucket {
    /// From this moment on it is full, in nanoseconds of the steady clock.
    full_at_ns: AtomicU64,
}

impl Bucket {
    /// Takes `n` requests' worth out, or nothing. More than the whole burst costs the whole burst.
    ///
    /// # Errors
    /// [`Exceeded`], where there is less in it.
    pub fn take(&self, rate: Rate, n: u64, now: Timestamp) -> Result<Allowance, Exceeded> {
        let now_ns = now.steady().ns();
        let latest_ns = now_ns.saturating_add(rate.full_ns());
        let cost_ns = rate.interval_ns * n.min(rate.burst);
        // Relaxed: the number stands for itself, nothing else is read by it.
        let mut seen_ns = self.full_at_ns.load(Ordering::Relaxed);
        loop {
            let sane = seen_ns <= latest_ns.saturating_add(STRAY_NS);
            let full_at_ns = if sane { seen_ns.max(now_ns) } else { now_ns };
            let then_ns = full_at_ns.saturating_add(cost_ns);
            let allowance = |full_at_ns: u64| Allowance {
                limit: rate.burst,
                remaining: latest_ns.saturating_sub(full_at_ns) / rate.interval_ns,
                reset_s: now.unix_ns().saturating_add(full_at_ns.saturating_sub(now_ns)).div_ceil(SECOND_NS),
            };
            if then_ns > latest_ns {
                let retry_after_s = (then_ns - latest_ns).div_ceil(SECOND_NS);
                return Err(Exceeded { allowance: allowance(full_at_ns), retry_after_s });
            }
            match self.full_at_ns.compare_exchange_weak(seen_ns, then_ns, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(allowance(then_ns)),
                Err(other) => seen_ns = other,
            }
        }
    }

    /// Whether it is full, and so the same as a new one.
    pub fn is_full(&self, rate: Rate, now: Timestamp) -> bool {
        let full_at_ns = self.full_at_ns.load(Ordering::Relaxed);
        let now_ns = now.steady().ns();
        full_at_ns <= now_ns || full_at_ns > now_ns.saturating_add(rate.full_ns()).saturating_add(STRAY_NS)
    }
}

/// Holds as much as the other does at this moment.
impl Clone for Bucket {
    fn clone(&self) -> Bucket {
        Bucket { full_at_ns: AtomicU64::new(self.full_at_ns.load(Ordering::Relaxed)) }
    }
}

/// A bucket with a rate of its own, or with no limit.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    /// What may be taken; `None` is any amount.
    pub rate: Option<Rate>,
    /// What was.
    pub bucket: Bucket,
}

impl Meter {
    /// Takes one request's worth; gives what is left where there is a limit.
    ///
    /// # Errors
    /// [`Exceeded`].
    pub fn take(&self, now: Timestamp) -> Result<Option<Allowance>, Exceeded> {
        self.rate.map(|rate| self.bucket.take(rate, 1, now)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    /// The year 2027, so that the bucket's sums are as large as they will be.
    const START_MS: u64 = 1_800_000_000_000;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_unix_ms(START_MS + ms)
    }

    /// What a bucket is said to be: something that holds tokens and gains them. It counts a token as the milliseconds
    /// in which it is gained, a whole number at the rates tried here, and finds moments by trying each.
    struct Twin {
        interval_ms: u64,
        burst: u64,
        level_ms: u64,
        now_ms: u64,
    }

    impl Twin {
        fn pass(&mut self, ms: u64) {
            self.now_ms += ms;
            self.level_ms = (self.level_ms + ms).min(self.interval_ms * self.burst);
        }

        fn take(&mut self, n: u64) -> Result<Allowance, Exceeded> {
            let cost = self.interval_ms * n.min(self.burst);
            let enough = self.level_ms >= cost;
            if enough {
                self.level_ms -= cost;
            }
            let allowance = Allowance {
                limit: self.burst,
                remaining: self.level_ms / self.interval_ms,
                reset_s: (0..)
                    .find(|s| s * 1000 >= self.now_ms + self.interval_ms * self.burst - self.level_ms)
                    .unwrap()
                    + START_MS / 1000,
            };
            match enough {
                true => Ok(allowance),
                false => {
                    let retry_after_s = (1..).find(|s| self.level_ms + s * 1000 >= cost).unwrap();
                    Err(Exceeded { allowance, retry_after_s })
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_bucket_does_as_its_slow_twin(
            per_second in prop::sample::select(vec![1u64, 2, 4, 5, 8, 10, 100, 250, 1000]),
            burst in 1u64..20,
            steps in prop::collection::vec((prop_oneof![0u64..5, 0u64..3000], 0u64..25), 1..60),
        ) {
            let rate = Rate::new(per_second, burst).unwrap();
            let interval_ms = 1000 / per_second;
            let mut twin = Twin { interval_ms, burst, level_ms: interval_ms * burst, now_ms: 0 };
            let bucket = Bucket::default();
            for (ms, n) in steps {
                twin.pass(ms);
                let now = at(twin.now_ms);
                prop_assert_eq!(bucket.is_full(rate, now), twin.level_ms == interval_ms * burst);
                prop_assert_eq!(bucket.take(rate, n, now), twin.take(n));
            }
        }
    }

    #[test]
    fn in_the_long_run_it_gives_the_rate_and_one_burst() {
        for per_second in [1, 3, 7, 999, 1000, 333_333] {
            let rate = Rate::new(per_second, 10).unwrap();
            let bucket = Bucket::default();
            let milliseconds = 5000;
            let asked = |ms| (0..).take_while(|_| bucket.take(rate, 1, at(ms)).is_ok()).count() as u64;
            let given: u64 = (0..milliseconds).map(asked).sum();
            let expected = 10 + (per_second * (milliseconds - 1) / 1000).min(10 * (milliseconds - 1));
            assert!(given.abs_diff(expected) <= expected / 1000 + 1, "{per_second}/s: {given}, not {expected}");
        }
    }

    #[test]
    fn threads_take_no_more_together_than_there_is() {
        let rate = Rate::new(1, 1000).unwrap();
        let (bucket, given) = (Bucket::default(), AtomicUsize::new(0));
        thread::scope(|scope| {
            for skew in 0..8 {
                let (bucket, given) = (&bucket, &given);
                // Not one of them is far enough on to be given another one.
                scope.spawn(move || {
                    for _ in 0..1000 {
                        given.fetch_add(bucket.take(rate, 1, at(skew)).is_ok().into(), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(given.into_inner(), 1000);
    }

    #[test]
    fn a_wall_clock_that_is_set_neither_fills_nor_stops_it() {
        let rate = Rate::new(10, 20).unwrap();
        let bucket = Bucket::default();
        assert!(bucket.take(rate, 20, at(0)).is_ok());
        for hours in [3, -3] {
            let set = at(50).set_by(hours * 3_600_000);
            let refused = bucket.take(rate, 1, set).unwrap_err();
            assert_eq!((refused.allowance.remaining, refused.retry_after_s), (0, 1), "{hours} h");
            // When it is full again is told as the client's clock shows it.
            assert_eq!(refused.allowance.reset_s, set.unix_s() + 2, "{hours} h");
            assert!(!bucket.is_full(rate, set), "{hours} h");
        }
        assert_eq!(bucket.take(rate, 1, at(300).set_by(-3_600_000)).unwrap().remaining, 2);
    }

    #[test]
    fn a_bucket_that_had_a_slower_rate_starts_anew() {
        let (slow, rate) = (Rate::new(1, 3600).unwrap(), Rate::new(10, 20).unwrap());
        let bucket = Bucket::default();
        assert!(bucket.take(slow, 3600, at(0)).is_ok());
        assert!(bucket.is_full(rate, at(0)), "it is not kept for an hour by a map");
        assert_eq!(bucket.take(rate, 20, at(1000)).unwrap().remaining, 0);
        assert!(bucket.take(rate, 1, at(100)).is_err(), "an older reading of the clock is no reason to forget");
    }

    #[test]
    fn a_rate_is_within_its_bounds() {
        for (per_second, burst) in [(0, 1), (1, 0), (Rate::MAX + 1, 1), (1, Rate::MAX_BURST + 1)] {
            assert_eq!(Rate::new(per_second, burst), None);
        }
        let widest = Rate::new(1, Rate::MAX_BURST).unwrap();
        // At the clock's end too, where sums no longer fit.
        let bucket = Bucket::default();
        assert!(bucket.take(widest, u64::MAX, Timestamp::from_unix_ms(u64::MAX)).is_ok());
        assert!(Meter::default().take(at(0)).unwrap().is_none(), "no rate is no limit");
    }
}
