//! The client's address behind proxies: what a client sends itself never counts, and how the proxies split their field
//! into lines does not either.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use fanfare::http::forwarded::{Network, ProxyConfig, ProxyHeader};
use hyper::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));

fuzz_target!(|input: &[u8]| {
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = text.parse::<Network>();
    }
    let Ok(sent) = HeaderValue::from_bytes(input) else { return };
    for (header, name, seen) in [
        (ProxyHeader::XForwardedFor, HeaderName::from_static("x-forwarded-for"), "203.0.113.9"),
        (ProxyHeader::Forwarded, FORWARDED, "for=203.0.113.9"),
    ] {
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().expect("it is a network"));
        let proxies = ProxyConfig { trusted: trusted.into(), header };
        let client = |lines: &[&[u8]]| {
            let values = lines.iter().map(|line| HeaderValue::from_bytes(line).expect("it is a part of one"));
            let headers: HeaderMap =
                values.map(|value| (name.clone(), value)).fold(HeaderMap::new(), |mut all, (n, v)| {
                    all.append(n, v);
                    all
                });
            assert_eq!(ProxyConfig { header, ..ProxyConfig::default() }.client(PROXY, &headers), PROXY);
            assert_eq!(proxies.client(CLIENT, &headers), CLIENT);
            proxies.client(PROXY, &headers)
        };
        let sent = sent.as_bytes();
        assert_eq!(client(&[sent, seen.as_bytes()]), CLIENT);
        assert_eq!(client(&[&[sent, b", ", seen.as_bytes()].concat()]), CLIENT);
        let whole = client(&[sent]);
        assert_eq!(whole, whole.to_canonical());
        assert_eq!(whole, client(&sent.split(|&byte| byte == b',').collect::<Vec<_>>()));
    }
});
