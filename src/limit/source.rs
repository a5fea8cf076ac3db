//! Whom an address stands for.

use std::net::{IpAddr, Ipv6Addr};

/// An address as limits see it: an IPv4 address, or the /64 network of an IPv6 address, since one subscriber has at
/// least that much (RFC 6177) and could come from another of its addresses each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source(IpAddr);

impl Source {
    /// Whom this address stands for. An IPv4 address within IPv6 (`::ffff:192.0.2.1`, as a listener on `[::]` sees
    /// it) is that IPv4 address.
    pub fn of(address: IpAddr) -> Source {
        match address.to_canonical() {
            IpAddr::V4(address) => Source(address.into()),
            IpAddr::V6(address) => Source(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::of(text.parse().expect(text))
    }

    #[test]
    fn who_is_the_same() {
        assert_eq!(source("192.0.2.1"), source("::ffff:192.0.2.1"));
        assert_eq!(source("2001:db8:0:7::1"), source("2001:db8:0:7:ffff:ffff:ffff:ffff"));
        for (one, other) in [("192.0.2.1", "192.0.2.2"), ("2001:db8:0:7::1", "2001:db8:0:8::1"), ("::", "0.0.0.0")] {
            assert_ne!(source(one), source(other));
        }
    }
}
