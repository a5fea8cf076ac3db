//! How long things took: counts by duration, cheap enough to be kept of every write.

use std::ops::Sub;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The upper bounds of the buckets, in nanoseconds: 1, 2.5 and 5 of each power of ten, from 10 µs to 10 s. What took
/// longer is counted in one more.
pub const BOUNDS_NS: [u64; 19] = {
    let mut bounds = [0; 19];
    let (mut n, mut decade) = (0, 10_000);
    while n < bounds.len() {
        bounds[n] = match n % 3 {
            0 => decade,
            1 => decade / 2 * 5,
            _ => decade * 5,
        };
        if n % 3 == 2 {
            decade *= 10;
        }
        n += 1;
    }
    bounds
};

const BUCKETS: usize = BOUNDS_NS.len() + 1;

/// Counts by duration. Any number of threads may observe at once.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

/// The counts of a [`Histogram`] at a moment, or between two moments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Observed {
    /// How many took at most as long as the bound of the same place in [`BOUNDS_NS`], and longer than the one before.
    pub buckets: [u64; BUCKETS],
    /// How long all of them took together, in nanoseconds.
    pub sum_ns: u64,
}

impl Histogram {
    /// Counts `n` things that took so long each.
    pub fn observe(&self, took: Duration, n: u64) {
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_NS.partition_point(|&bound| bound < took_ns);
        self.buckets[bucket].fetch_add(n, Relaxed);
        self.sum_ns.fetch_add(took_ns.saturating_mul(n), Relaxed);
    }

    /// The counts so far.
    pub fn read(&self) -> Observed {
        let mut observed = Observed { sum_ns: self.sum_ns.load(Relaxed), ..Observed::default() };
        for (count, bucket) in observed.buckets.iter_mut().zip(&self.buckets) {
            *count = bucket.load(Relaxed);
        }
        observed
    }
}

impl Observed {
    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Observed) {
        self.sum_ns = self.sum_ns.wrapping_add(other.sum_ns);
        for (count, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *count += more;
        }
    }

    /// How long the quickest `share` (0 to 1) took at most, to the precision of the buckets: in between, as if they were
    /// spread evenly. `None` where nothing was counted.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        // From the first one on: at least one is among the quickest.
        let rank = (share * count as f64).max(1.0);
        let mut below = 0;
        for (n, &here) in self.buckets.iter().enumerate().filter(|(_, here)| **here > 0) {
            let lower = n.checked_sub(1).map_or(0, |n| BOUNDS_NS[n]);
            let upper = BOUNDS_NS.get(n).copied().unwrap_or(lower);
            if (below + here) as f64 >= rank {
                let into = (rank - below as f64) / here as f64;
                return Some(Duration::from_nanos(lower + ((upper - lower) as f64 * into) as u64));
            }
            below += here;
        }
        None
    }
}

impl Sub for Observed {
    type Output = Observed;

    fn sub(self, earlier: Observed) -> Observed {
        let mut since = Observed { sum_ns: self.sum_ns.wrapping_sub(earlier.sum_ns), ..Observed::default() };
        for (n, count) in since.buckets.iter_mut().enumerate() {
            *count = self.buckets[n].saturating_sub(earlier.buckets[n]);
        }
        since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_are_those_that_the_documentation_says() {
        assert_eq!(BOUNDS_NS[..4], [10_000, 25_000, 50_000, 100_000]);
        assert_eq!(BOUNDS_NS[18], 10_000_000_000);
        assert!(BOUNDS_NS.is_sorted());
    }

    #[test]
    fn each_goes_where_it_belongs() {
        let histogram = Histogram::default();
        for (took_ns, n) in [(0, 1), (10_000, 1), (10_001, 1), (10_000_000_001, 5), (u64::MAX, 0)] {
            histogram.observe(Duration::from_nanos(took_ns), n);
        }
        let observed = histogram.read();
        assert_eq!((observed.buckets[0], observed.buckets[1], observed.buckets[19]), (2, 1, 5));
        assert_eq!((observed.count(), observed.sum_ns), (8, 20_001 + 5 * 10_000_000_001));
    }

    #[test]
    fn quantiles_are_told_to_the_precision_of_the_buckets() {
        let histogram = Histogram::default();
        assert_eq!(histogram.read().quantile(0.5), None);
        for us in 1..=1000 {
            histogram.observe(Duration::from_micros(us), 1);
        }
        let before = histogram.read();
        for (share, us) in [(0.5, 500), (0.99, 990), (1.0, 1000)] {
            let told = before.quantile(share).expect("there are some").as_micros() as i64;
            assert!((told - us).abs() <= 5, "{share}: {told}");
        }
        histogram.observe(Duration::from_secs(60), 1);
        let since = histogram.read() - before;
        assert_eq!(since.quantile(0.5), Some(Duration::from_secs(10)), "the last bucket has no end");
    }
}
