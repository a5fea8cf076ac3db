//! How much of what anybody may have: requests and connections a second, streams at a time. Time is a parameter.
//!
//! Everything here is bounded by itself: addresses by `ADDRESSES`, shares by the streams that hold them. Every
//! refusal is counted, by its name in [`LimitTotals`].

mod buckets;
mod rate;
mod share;
mod source;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::clock::Timestamp;

pub use buckets::Buckets;
pub use rate::{Allowance, Bucket, Exceeded, Meter, Rate};
pub use share::{Share, Shares};
pub use source::Source;

/// Addresses that have a bucket of their own, for each of the rates: some 4 MiB when all are in use.
const ADDRESSES: usize = 65_536;

/// What anybody may have; what is `None` has no limit.
#[derive(Debug, Clone)]
pub struct LimitConfig {
    /// Publish requests of one address, without a key.
    pub publishes: Option<Rate>,
    /// New connections of one address.
    pub connections: Option<Rate>,
    /// Streams of one address at a time.
    pub streams_per_address: Option<usize>,
    /// Streams of one user at a time.
    pub streams_per_user: Option<usize>,
    /// Whether the limits on addresses hold for loopback addresses too. There a proxy on this host would be taken for
    /// one client, unless it is trusted and names its clients.
    pub loopback: bool,
}

/// What everybody has at the moment, and what was refused.
#[derive(Debug)]
pub struct Limits {
    publishes: Option<Buckets>,
    connections: Option<Buckets>,
    of_addresses: Option<Shares<Source>>,
    of_users: Option<Shares<Arc<str>>>,
    config: LimitConfig,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    publishes_of_addresses: AtomicU64,
    publishes_of_keys: AtomicU64,
    connections: AtomicU64,
    streams_of_addresses: AtomicU64,
    streams_of_users: AtomicU64,
}

/// What was refused since the start, and how many addresses are watched at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LimitTotals {
    /// Publish requests past their address's rate.
    pub refused_publishes_address: u64,
    /// Publish requests past their key's rate.
    pub refused_publishes_key: u64,
    /// Connections past their address's rate.
    pub refused_connections: u64,
    /// Streams past what their address may hold.
    pub refused_streams_address: u64,
    /// Streams past what their user may hold.
    pub refused_streams_user: u64,
    /// Publish requests and connections that shared one bucket, since all others were in use.
    pub crowded: u64,
    /// Addresses with a bucket of their own, those for publishing and those for connecting together.
    pub addresses: usize,
}

/// A stream's part of what its address and its user may hold; dropping it gives it back.
#[derive(Debug, Default)]
pub struct StreamShares {
    /// Its address's, where that has a limit.
    pub address: Option<Share<Source>>,
    /// Its user's, where there is one and it has a limit.
    pub user: Option<Share<Arc<str>>>,
}

impl StreamShares {
    /// Whether there is nothing to give back.
    pub fn is_empty(&self) -> bool {
        self.address.is_none() && self.user.is_none()
    }
}

/// A stream is one too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooManyStreams {
    /// Its address holds so many already.
    OfAddress(usize),
    /// Its user does.
    OfUser(usize),
}

impl Limits {
    /// Nobody has anything yet.
    pub fn new(config: LimitConfig) -> Limits {
        Limits {
            publishes: config.publishes.map(|rate| Buckets::new(rate, ADDRESSES)),
            connections: config.connections.map(|rate| Buckets::new(rate, ADDRESSES)),
            of_addresses: config.streams_per_address.map(Shares::new),
            of_users: config.streams_per_user.map(Shares::new),
            config,
            counts: Counts::default(),
        }
    }

    /// Counts a publish request: against its key where it has one, else against the client's address. So a service's
    /// rate is its own, wherever it runs. Gives what is left, where there is a limit.
    ///
    /// # Errors
    /// [`Exceeded`]; then it must not be published.
    pub fn publish(&self, client: IpAddr, key: Option<&Meter>, now: Timestamp) -> Result<Option<Allowance>, Exceeded> {
        match key {
            Some(meter) => counted(meter.take(now), &self.counts.publishes_of_keys),
            None => {
                let limit = self.publishes.as_ref().zip(self.source(client));
                let taken = limit.map(|(buckets, source)| buckets.take(source, now)).transpose();
                counted(taken, &self.counts.publishes_of_addresses)
            }
        }
    }

    /// Counts a new connection, by the address that it comes from: whoever is behind a proxy is not known yet.
    ///
    /// # Errors
    /// [`Exceeded`]; then it is to be closed.
    pub fn connect(&self, peer: IpAddr, now: Timestamp) -> Result<(), Exceeded> {
        let limit = self.connections.as_ref().zip(self.source(peer));
        let taken = limit.map(|(buckets, source)| buckets.take(source, now)).transpose();
        counted(taken, &self.counts.connections).map(drop)
    }

    /// Lets a stream in for as long as it keeps what it is given here.
    ///
    /// # Errors
    /// [`TooManyStreams`], of the address before the user.
    pub fn stream(&self, client: IpAddr, user: Option<&Arc<str>>) -> Result<StreamShares, TooManyStreams> {
        let mut shares = StreamShares::default();
        if let Some((limit, source)) = self.of_addresses.as_ref().zip(self.source(client)) {
            let most = TooManyStreams::OfAddress(limit.most());
            shares.address = Some(counted(limit.take(source).ok_or(most), &self.counts.streams_of_addresses)?);
        }
        if let Some((limit, user)) = self.of_users.as_ref().zip(user) {
            let most = TooManyStreams::OfUser(limit.most());
            shares.user = Some(counted(limit.take(user.clone()).ok_or(most), &self.counts.streams_of_users)?);
        }
        Ok(shares)
    }

    /// Forgets the addresses that have all they may have again. To be called about once a second.
    pub fn sweep(&self, now: Timestamp) {
        for buckets in self.buckets() {
            buckets.sweep(now);
        }
    }

    /// What was refused so far.
    pub fn totals(&self) -> LimitTotals {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        LimitTotals {
            refused_publishes_address: read(&self.counts.publishes_of_addresses),
            refused_publishes_key: read(&self.counts.publishes_of_keys),
            refused_connections: read(&self.counts.connections),
            refused_streams_address: read(&self.counts.streams_of_addresses),
            refused_streams_user: read(&self.counts.streams_of_users),
            crowded: self.buckets().map(Buckets::crowded).sum(),
            addresses: self.buckets().map(Buckets::len).sum(),
        }
    }

    fn buckets(&self) -> impl Iterator<Item = &Buckets> {
        [&self.publishes, &self.connections].into_iter().flatten()
    }

    /// Whom the limits on addresses see; `None` where they do not hold.
    fn source(&self, address: IpAddr) -> Option<Source> {
        let exempt = address.to_canonical().is_loopback() && !self.config.loopback;
        (!exempt).then(|| Source::of(address))
    }
}

fn counted<T, E>(result: Result<T, E>, refused: &AtomicU64) -> Result<T, E> {
    result.inspect_err(|_| {
        refused.fetch_add(1, Ordering::Relaxed);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> LimitConfig {
        LimitConfig {
            publishes: Rate::new(1, 2),
            connections: Rate::new(1, 4),
            streams_per_address: Some(3),
            streams_per_user: Some(2),
            loopback: false,
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    const NOW: fn() -> Timestamp = || Timestamp::from_unix_ms(1_800_000_000_000);

    /// How many of ten are granted.
    fn granted<T, E>(mut ask: impl FnMut() -> Result<T, E>) -> usize {
        // Kept until all are asked for, as streams are.
        let kept: Vec<_> = (0..10).filter_map(|_| ask().ok()).collect();
        kept.len()
    }

    #[test]
    fn each_limit_holds_and_is_counted_by_its_name() {
        let limits = Limits::new(config());
        let (near, far, user) = (ip("192.0.2.1"), ip("192.0.2.2"), Arc::from("7"));
        let meter = Meter { rate: Rate::new(1, 5), bucket: Bucket::default() };
        assert_eq!(granted(|| limits.publish(near, None, NOW())), 2);
        assert_eq!(granted(|| limits.publish(far, None, NOW())), 2, "another address has its own");
        assert_eq!(granted(|| limits.publish(near, Some(&meter), NOW())), 5, "and so has a key");
        assert_eq!(granted(|| limits.connect(near, NOW())), 4);
        assert_eq!(granted(|| limits.stream(near, None)), 3);
        assert_eq!(granted(|| limits.stream(far, Some(&user))), 2);
        let totals = LimitTotals {
            refused_publishes_address: 16,
            refused_publishes_key: 5,
            refused_connections: 6,
            refused_streams_address: 7,
            refused_streams_user: 8,
            crowded: 0,
            addresses: 3,
        };
        assert_eq!(limits.totals(), totals);
        limits.sweep(Timestamp::from_unix_ms(NOW().unix_ms() + 4000));
        assert_eq!(limits.totals(), LimitTotals { addresses: 0, ..totals });
    }

    #[test]
    fn a_stream_that_its_user_may_not_have_takes_nothing_of_its_address() {
        let limits = Limits::new(config());
        let user = Arc::from("7");
        let kept: Vec<_> = (0..2).map(|_| limits.stream(ip("192.0.2.1"), Some(&user))).collect();
        assert_eq!(limits.stream(ip("192.0.2.1"), Some(&user)).err(), Some(TooManyStreams::OfUser(2)));
        let third = limits.stream(ip("192.0.2.1"), None);
        assert!(third.is_ok());
        assert_eq!(limits.stream(ip("192.0.2.1"), None).err(), Some(TooManyStreams::OfAddress(3)));
        drop((kept, third));
        assert_eq!(granted(|| limits.stream(ip("192.0.2.1"), Some(&user))), 2);
    }

    #[test]
    fn loopback_is_exempt_unless_it_is_set_otherwise() {
        for address in ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"] {
            for (loopback, streams, publishes) in [(false, 10, 10), (true, 3, 2)] {
                let limits = Limits::new(LimitConfig { loopback, ..config() });
                assert_eq!(granted(|| limits.stream(ip(address), None)), streams, "{address}");
                assert_eq!(granted(|| limits.publish(ip(address), None, NOW())), publishes, "{address}");
                assert_eq!(granted(|| limits.stream(ip(address), Some(&Arc::from("7")))), 2, "users are never exempt");
            }
        }
    }

    #[test]
    fn what_is_off_is_off() {
        let off = LimitConfig {
            publishes: None,
            connections: None,
            streams_per_address: None,
            streams_per_user: None,
            loopback: true,
        };
        let limits = Limits::new(off);
        assert_eq!(granted(|| limits.publish(ip("192.0.2.1"), None, NOW())), 10);
        assert_eq!(granted(|| limits.connect(ip("192.0.2.1"), NOW())), 10);
        assert_eq!(granted(|| limits.stream(ip("192.0.2.1"), Some(&Arc::from("7")))), 10);
    }
}
