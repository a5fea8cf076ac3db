//! The client's address from what proxies say: an address that no trusted proxy vouches for is never believed.
#![no_main]

use std::net::IpAddr;

use fanfare::http::forwarded::{ProxyConfig, ProxyHeader};
use hyper::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let peer: IpAddr = [10, 0, 0, 1].into();
    let trusted = ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().expect("a network"));
    for header in [ProxyHeader::XForwardedFor, ProxyHeader::Forwarded] {
        let name = match header {
            ProxyHeader::XForwardedFor => HeaderName::from_static("x-forwarded-for"),
            ProxyHeader::Forwarded => FORWARDED,
        };
        let headers = |values: &[&HeaderValue]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(&name, (*value).clone());
            }
            headers
        };
        let believed = ProxyConfig { trusted: trusted.into(), header };
        let client = believed.client(peer, &headers(&[&value]));
        assert_eq!(client, client.to_canonical());
        // Nobody is trusted: the connection's own address.
        let nobody = ProxyConfig { trusted: Box::default(), header };
        assert_eq!(nobody.client(peer, &headers(&[&value])), peer);
        // The proxy has added a client that is not trusted: nothing on its left counts.
        let last = match header {
            ProxyHeader::XForwardedFor => "203.0.113.7",
            ProxyHeader::Forwarded => "for=203.0.113.7",
        };
        let seen: IpAddr = [203, 0, 113, 7].into();
        assert_eq!(believed.client(peer, &headers(&[&value, &HeaderValue::from_static(last)])), seen);
    }
});
