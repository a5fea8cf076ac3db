//! Pages of other origins: whether they may read what is answered (the Fetch standard's CORS protocol), and that they
//! publish nothing unasked.
//!
//! A browser lets any page send simple requests anywhere, and asks only whether the page may see the answer. So the
//! two questions are apart here: what may be read follows from the answers' fields, what may be published from what
//! the browser says of the page, which services and other programs never say.

use std::str::FromStr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    ALLOW, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN,
};
use hyper::{Request, Response, StatusCode, Uri};

use super::reply::{Problem, Reply};
use super::routes::Route;

/// The relation of a page's origin to ours (W3C, "Fetch Metadata Request Headers": "The Sec-Fetch-Site HTTP Request
/// Header").
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Request fields that pages may send besides the safelisted ones. With credentials `*` is no wildcard, and `Authorization`
/// is never under it (Fetch, "HTTP responses").
const ALLOWED_HEADERS: &str =
    "Authorization, Content-Type, Last-Event-ID, Idempotency-Key, X-Request-Id, X-API-Key, Cache-Control";

/// Response fields that pages may read besides the safelisted ones.
const EXPOSED_HEADERS: &str = "X-Request-Id, Retry-After, Idempotent-Replayed, X-Refused, X-Ignored, \
                               X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset";

/// Seconds that a preflight's answer may be kept: two hours, the longest that Chromium does.
const MAX_AGE_S: &str = "7200";

/// A field of an answer's head.
pub type Field = (&'static str, HeaderValue);

/// An entry of the setting: one origin, or `*` for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `*`.
    Any,
    /// One, as a browser writes it (RFC 6454, section 6.2).
    Exact(HeaderValue),
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Origin, String> {
        match text {
            "*" => Ok(Origin::Any),
            _ => serialized(text).map(Origin::Exact).ok_or_else(|| {
                format!(
                    "{text:?} is no origin; expected * or scheme://host[:port] without a path or a slash at its end, \
                     such as https://app.example.com"
                )
            }),
        }
    }
}

/// An origin as browsers write it: in lower case, without its scheme's default port.
fn serialized(text: &str) -> Option<HeaderValue> {
    let uri: Uri = text.to_ascii_lowercase().parse().ok()?;
    let (scheme, host) = (uri.scheme_str()?, uri.host()?);
    // The parser also takes an empty scheme, and more characters than a host has, among them `*`.
    let is_name = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if scheme.is_empty() || !is_name && !host.starts_with('[') {
        return None;
    }
    let bare = format!("{scheme}://{host}");
    let whole = uri.port_u16().map_or(bare.clone(), |port| format!("{bare}:{port}"));
    // Put together again, it lacks what a URI may have and an origin has not: user, path, query.
    if !whole.eq_ignore_ascii_case(text) {
        return None;
    }
    let default_port = matches!((scheme, uri.port_u16()), ("http", Some(80)) | ("https", Some(443)));
    HeaderValue::try_from(if default_port { bare } else { whole }).ok()
}

/// Which pages' origins are let in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Cors {
    /// The broker's own only: no answer says anything of others.
    #[default]
    SameOrigin,
    /// All may read, none with credentials; to publish is for the broker's own.
    Any,
    /// These may read and publish, with credentials.
    Exact(Box<[HeaderValue]>),
}

impl Cors {
    /// The policy that these origins make; none of them is [`Cors::SameOrigin`].
    ///
    /// # Errors
    /// Where `*` does not stand alone.
    pub fn new(origins: &[Origin]) -> Result<Cors, String> {
        let exact = origins.iter().map(|origin| match origin {
            Origin::Any => None,
            Origin::Exact(origin) => Some(origin.clone()),
        });
        match exact.collect::<Option<Box<[_]>>>() {
            Some(exact) if exact.is_empty() => Ok(Cors::SameOrigin),
            Some(exact) => Ok(Cors::Exact(exact)),
            None if origins.len() == 1 => Ok(Cors::Any),
            None => Err("* stands with other origins; expected it alone, or only exact ones".to_owned()),
        }
    }

    /// The fields that every answer to a request with these headers has, whatever its status (Fetch, "HTTP
    /// responses"). `Vary` stands also where nothing is allowed, or a cache would give one origin's answer to another
    /// (Fetch, "CORS protocol and HTTP caches").
    pub fn fields(&self, headers: &HeaderMap) -> Vec<Field> {
        const EXPOSE: Field = ("Access-Control-Expose-Headers", HeaderValue::from_static(EXPOSED_HEADERS));
        match self {
            Cors::SameOrigin => Vec::new(),
            Cors::Any => vec![("Access-Control-Allow-Origin", HeaderValue::from_static("*")), EXPOSE],
            Cors::Exact(_) => {
                let mut fields = vec![("Vary", HeaderValue::from_static("Origin"))];
                if let Some(origin) = self.exact(headers) {
                    fields.push(("Access-Control-Allow-Origin", origin.clone()));
                    fields.push(("Access-Control-Allow-Credentials", HeaderValue::from_static("true")));
                    fields.push(EXPOSE);
                }
                fields
            }
        }
    }

    /// Answers `OPTIONS` on this route: plainly (RFC 9110, section 9.3.7), or a preflight (Fetch,
    /// "CORS-preflight request"), which has both an origin and the method that is to follow. [`Cors::fields`] are not
    /// in the answer yet.
    ///
    /// # Errors
    /// [`Problem::OriginNotAllowed`] to the preflight of an origin that may not read the answer.
    pub fn options(&self, headers: &HeaderMap, route: &Route) -> Result<Reply, Problem> {
        let mut reply = Response::new(Full::new(Bytes::new()));
        *reply.status_mut() = StatusCode::NO_CONTENT;
        let fields = reply.headers_mut();
        fields.insert(ALLOW, route.allow_value());
        if headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            if *self != Cors::Any && self.exact(headers).is_none() {
                return Err(Problem::OriginNotAllowed);
            }
            fields.insert(ACCESS_CONTROL_ALLOW_METHODS, route.allow_value());
            fields.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED_HEADERS));
            fields.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE_S));
        }
        Ok(reply)
    }

    /// Refuses a request that changes something and that a browser sends for a page from elsewhere.
    ///
    /// The rules and their order are those of Go's `http.CrossOriginProtection`. Origins that are named in the settings
    /// pass; `*` names none. Of the others, the browser's own verdict counts where it is given: it knows the page even
    /// behind a proxy that changes `Host`. `same-site` is from elsewhere too, since a neighbouring subdomain may be
    /// anybody's. Where there is no verdict (older browsers, and all over plain HTTP but to this machine itself), the
    /// page's host has to be the one that was asked. A request without either header is no page's.
    ///
    /// # Errors
    /// [`Problem::CrossSite`].
    pub fn check_change<B>(&self, request: &Request<B>) -> Result<(), Problem> {
        let headers = request.headers();
        let own = match (headers.get(SEC_FETCH_SITE), headers.get(ORIGIN)) {
            (None, None) => true,
            (Some(site), _) => site == "same-origin" || site == "none",
            (None, Some(origin)) => is_own(origin, request),
        };
        match own || self.exact(headers).is_some() {
            true => Ok(()),
            false => Err(Problem::CrossSite),
        }
    }

    /// The request's origin, if it is one of those that are named.
    fn exact(&self, headers: &HeaderMap) -> Option<&HeaderValue> {
        let (Cors::Exact(origins), Some(given)) = (self, headers.get(ORIGIN)) else { return None };
        origins.iter().find(|origin| *origin == given)
    }
}

/// Whether an origin's host and port are those that the request was sent to: of its target where that names them (RFC
/// 9112, section 3.2.2), else of `Host`. Browsers leave the default port out of both. Schemes are not compared: a proxy
/// that ends TLS hides the page's.
fn is_own<B>(origin: &HeaderValue, request: &Request<B>) -> bool {
    let own = match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => request.headers().get(HOST).and_then(|host| host.to_str().ok()),
    };
    let page = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    own.zip(page).is_some_and(|(own, page)| own.eq_ignore_ascii_case(page))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(text: &str) -> Origin {
        Origin::Exact(HeaderValue::from_str(text).expect(text))
    }

    #[test]
    fn origins_are_read_as_browsers_write_them() {
        for (text, origin) in [
            ("*", Origin::Any),
            ("http://localhost:3000", exact("http://localhost:3000")),
            ("HTTPS://App.Example.com", exact("https://app.example.com")),
            ("https://a.example:443", exact("https://a.example")),
            ("http://a.example:80", exact("http://a.example")),
            ("http://a.example:443", exact("http://a.example:443")),
            ("http://[::1]:8080", exact("http://[::1]:8080")),
            ("capacitor://localhost", exact("capacitor://localhost")),
        ] {
            assert_eq!(text.parse(), Ok(origin), "{text}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in [
            "null",
            "localhost:3000",
            "https://",
            "https://a.example/",
            "https://a.example/path",
            "https://a.example?q",
            "https://a.example#f",
            "https://u@a.example",
            "https://u:p@a.example",
            "https://*.example",
            "https://a.example:",
            "https://a.example:99999",
            "https://a.example:0443",
            "https://a b",
            "https://bücher.example",
            "://a.example",
        ] {
            let refused = text.parse::<Origin>().expect_err(text);
            assert!(refused.contains(text) && refused.contains("expected"), "{refused}");
        }
    }

    #[test]
    fn a_star_stands_alone() {
        assert_eq!(Cors::new(&[]), Ok(Cors::SameOrigin));
        assert_eq!(Cors::new(&[Origin::Any]), Ok(Cors::Any));
        assert!(Cors::new(&[Origin::Any, exact("https://a")]).is_err_and(|why| why.contains("expected")));
        assert!(matches!(Cors::new(&[exact("https://a")]), Ok(Cors::Exact(_))));
    }

    #[test]
    fn who_may_change_something() {
        let listed = Cors::new(&[exact("https://app.example")]).expect("exact ones");
        // The policy, the target, Host, Origin, Sec-Fetch-Site, whether it passes.
        let cases = [
            (&listed, "/", "a", None, None, true),
            (&listed, "/", "a", None, Some("none"), true),
            (&listed, "/", "a", None, Some("cross-site"), false),
            (&listed, "/", "a", None, Some("same-site"), false),
            (&listed, "/", "a", None, Some("what-comes-after"), false),
            (&listed, "/", "a", Some("https://app.example"), Some("cross-site"), true),
            (&listed, "/", "a", Some("https://app.example"), None, true),
            (&listed, "/", "a", Some("https://app.example.evil"), None, false),
            (&listed, "/", "a", Some("https://app.example:444"), None, false),
            (&listed, "/", "proxied", Some("https://b"), Some("same-origin"), true),
            (&listed, "/", "a", Some("https://a"), Some("cross-site"), false),
            (&listed, "/", "A:8000", Some("http://a:8000"), None, true),
            (&listed, "/", "a:8000", Some("http://a"), None, false),
            (&listed, "/", "a", Some("null"), None, false),
            (&listed, "/", "null", Some("null"), None, false),
            (&listed, "/", "a", Some(""), None, false),
            (&listed, "/", "", Some("http://"), None, true),
            (&listed, "http://a/", "b", Some("http://a"), None, true),
            (&listed, "http://a/", "b", Some("http://b"), None, false),
            (&Cors::Any, "/", "a", Some("https://b"), None, false),
            (&Cors::Any, "/", "a", Some("https://b"), Some("cross-site"), false),
            (&Cors::SameOrigin, "/", "a", Some("https://a"), None, true),
            (&Cors::SameOrigin, "/", "a", Some("https://b"), None, false),
        ];
        for (cors, target, host, origin, site, passes) in cases {
            let mut request = Request::post(target).header(HOST, host);
            if let Some(origin) = origin {
                request = request.header(ORIGIN, origin);
            }
            if let Some(site) = site {
                request = request.header(SEC_FETCH_SITE, site);
            }
            let checked = cors.check_change(&request.body(()).expect("a request"));
            let expected = if passes { Ok(()) } else { Err(Problem::CrossSite) };
            assert_eq!(checked, expected, "{cors:?} {target} {host:?} {origin:?} {site:?}");
        }
    }
}
