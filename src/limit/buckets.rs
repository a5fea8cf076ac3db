//! A bucket for each address, as far as there is room.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;

use super::rate::{Allowance, Bucket, Exceeded, Rate};
use super::source::Source;
use crate::clock::Timestamp;

/// Buckets of one rate, one for each address that has lately taken something. Full ones are dropped by
/// [`Buckets::sweep`]; when all there may be are in use, newcomers share one between them, so that whoever has many
/// addresses fills no memory, and those who were here before are not in their way.
#[derive(Debug)]
pub struct Buckets {
    rate: Rate,
    most: usize,
    held: DashMap<Source, Bucket>,
    /// How many are held, which the map itself would have to count.
    len: AtomicUsize,
    shared: Bucket,
    crowded: AtomicU64,
}

impl Buckets {
    /// At most so many buckets, none of which is held yet.
    pub fn new(rate: Rate, most: usize) -> Buckets {
        Buckets {
            rate,
            most,
            held: DashMap::new(),
            len: AtomicUsize::new(0),
            shared: Bucket::default(),
            crowded: AtomicU64::new(0),
        }
    }

    /// Takes one request's worth out of this address's bucket.
    ///
    /// # Errors
    /// [`Exceeded`].
    pub fn take(&self, source: Source, now: Timestamp) -> Result<Allowance, Exceeded> {
        if let Some(bucket) = self.held.get(&source) {
            return bucket.take(self.rate, 1, now);
        }
        let room = |len: usize| (len < self.most).then_some(len + 1);
        if self.len.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_err() {
            self.crowded.fetch_add(1, Ordering::Relaxed);
            return self.shared.take(self.rate, 1, now);
        }
        let mut fresh = false;
        let bucket = self.held.entry(source).or_insert_with(|| {
            fresh = true;
            Bucket::default()
        });
        let taken = bucket.take(self.rate, 1, now);
        if !fresh {
            // Another thread put it there meanwhile.
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
        taken
    }

    /// Drops the buckets that are full: they are as good as none. To be called about once a second.
    pub fn sweep(&self, now: Timestamp) {
        // The map locks what it looks at, so nobody takes from a bucket between the look and the drop.
        self.held.retain(|_, bucket| {
            let full = bucket.is_full(self.rate, now);
            self.len.fetch_sub(full.into(), Ordering::Relaxed);
            !full
        });
    }

    /// Buckets held.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Requests that had to share the one bucket, since there was no room for another.
    pub fn crowded(&self) -> u64 {
        self.crowded.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    fn source(n: u32) -> Source {
        Source::of(Ipv4Addr::from_bits(n).into())
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_unix_ms(1_800_000_000_000 + ms)
    }

    #[test]
    fn a_million_addresses_take_no_more_room_than_there_is() {
        const MOST: usize = 65_536;
        let buckets = Buckets::new(Rate::new(1, 2).unwrap(), MOST);
        let network = |n: u64| Source::of(IpAddr::V6(Ipv6Addr::from_bits(u128::from(n) << 64)));
        let refused = (0..1_000_000).filter(|&n| buckets.take(network(n), at(0)).is_err()).count();
        assert_eq!((buckets.len(), buckets.held.len()), (MOST, MOST));
        assert_eq!(buckets.crowded(), 1_000_000 - MOST as u64);
        assert_eq!(refused, 1_000_000 - MOST - 2, "newcomers share one bucket of 2");
        assert!(buckets.take(network(7), at(0)).is_ok(), "who was here before has what is theirs");

        buckets.sweep(at(1000));
        assert_eq!((buckets.len(), buckets.held.len()), (1, 1), "only one had taken twice");
        buckets.sweep(at(2000));
        assert!(buckets.is_empty() && buckets.held.is_empty());
        assert!(buckets.take(network(2_000_000), at(2000)).is_ok());
    }

    #[test]
    fn threads_agree_on_how_many_there_are() {
        let buckets = Buckets::new(Rate::new(1000, 1).unwrap(), 100);
        thread::scope(|scope| {
            for _ in 0..8 {
                let buckets = &buckets;
                scope.spawn(move || {
                    for n in 0..5000u32 {
                        let _ = buckets.take(source(n % 150), at(u64::from(n / 50)));
                        if n % 97 == 0 {
                            buckets.sweep(at(u64::from(n / 50)));
                        }
                        assert!(buckets.len() <= 100);
                    }
                });
            }
        });
        assert_eq!(buckets.len(), buckets.held.len());
        buckets.sweep(at(10_000));
        assert_eq!((buckets.len(), buckets.held.len()), (0, 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        /// Sweeping changes no answer: the same as buckets that are kept for ever.
        #[test]
        fn what_a_sweep_forgets_does_not_matter(
            steps in prop::collection::vec((0u64..400, 0u32..4, any::<bool>()), 1..80)
        ) {
            let rate = Rate::new(5, 3).unwrap();
            let buckets = Buckets::new(rate, 4);
            let mut kept: HashMap<u32, Bucket> = HashMap::new();
            let mut ms = 0;
            for (passed, n, sweep) in steps {
                ms += passed;
                if sweep {
                    buckets.sweep(at(ms));
                }
                let expected = kept.entry(n).or_default().take(rate, 1, at(ms));
                prop_assert_eq!(buckets.take(source(n), at(ms)), expected);
            }
        }
    }
}
