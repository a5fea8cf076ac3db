//! The client's address: the one that a trusted proxy names, else the connection's.
//!
//! Anybody can send these headers, so only what a trusted proxy has added at the right end counts: from there to the
//! left each address was seen by the proxy that is named next to it, up to the first that is not trusted.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use hyper::header::{FORWARDED, HeaderMap, HeaderName};
use ipnet::IpNet;
use serde::Deserialize;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Addresses that belong together: one, or a network in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        let one = text.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
        one.or_else(|_| text.parse::<IpNet>()).map(Network).map_err(|_| {
            format!("{text:?} is no address or network; expected one such as 10.0.0.1, 10.0.0.0/8 or fd00::/8")
        })
    }
}

/// Where the trusted proxies write the client's address. Only one header is read: a proxy keeps one of them, and passes
/// the other on as its client invented it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyHeader {
    /// `X-Forwarded-For`, as most proxies do.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The proxies in front of the broker.
#[derive(Debug, Clone, Default)]
pub struct ProxyConfig {
    /// Those that are believed; with none, the connection's address is always the client's.
    pub trusted: Box<[Network]>,
    /// Where they write.
    pub header: ProxyHeader,
}

impl ProxyConfig {
    /// The client's address, of a request that came with these headers from `peer`. Where a trusted proxy hides it
    /// (`unknown`, or a name of its own: RFC 7239, sections 6.2 and 6.3), that proxy's.
    ///
    /// An IPv4 address that is written in IPv6 is the IPv4 address.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let (name, read): (HeaderName, fn(&str) -> Option<IpAddr>) = match self.header {
            ProxyHeader::XForwardedFor => (X_FORWARDED_FOR, node),
            ProxyHeader::Forwarded => (FORWARDED, forwarded_for),
        };
        let mut hops = headers
            .get_all(name)
            .into_iter()
            .rev()
            // Split at every comma, quoted or not: what a client left open on the left swallows nothing on the right,
            // and no address has a comma.
            .flat_map(|line| line.as_bytes().rsplit(|&b| b == b','))
            .map(|hop| std::str::from_utf8(hop).ok().and_then(read));
        while self.trusted.iter().any(|network| network.contains(client)) {
            match hops.next().flatten() {
                Some(hop) => client = hop,
                None => break,
            }
        }
        client
    }
}

/// The `for` of one element of `Forwarded` (RFC 7239, section 4).
fn forwarded_for(element: &str) -> Option<IpAddr> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let value = value.trim();
        let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        name.trim().eq_ignore_ascii_case("for").then(|| node(bare))?
    })
}

/// An address, with or without a port; in brackets, where it is of IPv6 (RFC 7239, section 6).
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = match text.parse::<SocketAddr>() {
        Ok(address) => Some(address.ip()),
        Err(_) => bracketed.unwrap_or(text).parse().ok(),
    };
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn proxies(trusted: &str, header: ProxyHeader) -> ProxyConfig {
        let trusted = trusted.split_whitespace().map(|text| text.parse().expect(text)).collect();
        ProxyConfig { trusted, header }
    }

    #[track_caller]
    fn assert_client(proxies: &ProxyConfig, peer: &str, name: &'static str, lines: &[&'static str], client: &str) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, HeaderValue::from_bytes(line.as_bytes()).expect(line));
        }
        let found = proxies.client(peer.parse().expect(peer), &headers);
        assert_eq!(found, client.parse::<IpAddr>().expect(client), "{peer} {lines:?}");
    }

    #[test]
    fn x_forwarded_for_is_walked_from_the_right_while_it_is_trusted() {
        let proxies = proxies("10.0.0.0/8 192.0.2.1 fd00::/8", ProxyHeader::XForwardedFor);
        for (peer, lines, client) in [
            ("198.51.100.1", &["203.0.113.9"][..], "198.51.100.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("::ffff:10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("fd00::1", &["::ffff:203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["127.0.0.1, 203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9, 192.0.2.1 ,10.2.3.4"], "203.0.113.9"),
            ("10.0.0.1", &["1.1.1.1", "203.0.113.9", "192.0.2.1"], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9, 192.0.2.2"], "192.0.2.2"),
            ("10.0.0.1", &["10.9.9.9, 10.8.8.8"], "10.9.9.9"),
            ("10.0.0.1", &["203.0.113.9:4711"], "203.0.113.9"),
            ("10.0.0.1", &["[2001:db8::9]:4711"], "2001:db8::9"),
            ("10.0.0.1", &["[2001:db8::9]"], "2001:db8::9"),
            ("10.0.0.1", &["2001:db8::9"], "2001:db8::9"),
            ("10.0.0.1", &["203.0.113.9, unknown, 10.1.1.1"], "10.1.1.1"),
            ("10.0.0.1", &["203.0.113.9, "], "10.0.0.1"),
            ("10.0.0.1", &["999.1.1.1"], "10.0.0.1"),
            ("10.0.0.1", &["é, 203.0.113.9"], "203.0.113.9"),
        ] {
            assert_client(&proxies, peer, "x-forwarded-for", lines, client);
        }
        // The other header is the client's own invention.
        assert_client(&proxies, "10.0.0.1", "forwarded", &["for=203.0.113.9"], "10.0.0.1");
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        let proxies = proxies("10.0.0.0/8", ProxyHeader::Forwarded);
        for (lines, client) in [
            (&["for=192.0.2.60;proto=http;by=203.0.113.43"][..], "192.0.2.60"),
            (&["proto=https; For=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17"),
            (&["for=192.0.2.43, for=\"[2001:db8:cafe::17]\""], "2001:db8:cafe::17"),
            (&["for=192.0.2.43", "for=10.0.0.2"], "192.0.2.43"),
            (&["for=192.0.2.43:47011"], "192.0.2.43"),
            (&["for=_hidden, for=10.0.0.2"], "10.0.0.2"),
            (&["for=unknown"], "10.0.0.1"),
            (&["for=1.2.3.4, proto=https"], "10.0.0.1"),
            // A quote that the client left open.
            (&["for=\"1.1.1.1, for=192.0.2.43"], "192.0.2.43"),
            (&["for=1.1.1.1;host=\"a", "for=192.0.2.43"], "192.0.2.43"),
            (&["for"], "10.0.0.1"),
        ] {
            assert_client(&proxies, "10.0.0.1", "forwarded", lines, client);
        }
        assert_client(&proxies, "192.0.2.1", "forwarded", &["for=203.0.113.9"], "192.0.2.1");
        assert_client(&proxies, "10.0.0.1", "x-forwarded-for", &["203.0.113.9"], "10.0.0.1");
    }

    #[test]
    fn without_trusted_proxies_the_peer_is_the_client() {
        assert_client(&ProxyConfig::default(), "127.0.0.1", "x-forwarded-for", &["203.0.113.9"], "127.0.0.1");
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "10.0.0", "10.0.0.0/33", "10.0.0.0/-1", "localhost", "fd00::/129", "10.0.0.1:80", "*"] {
            let refused = text.parse::<Network>().expect_err(text);
            assert!(refused.contains(text) && refused.contains("expected"), "{refused}");
        }
    }
}
