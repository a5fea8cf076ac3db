//! Answers. This is the one place where a problem becomes a status.

use std::fmt::Display;
use std::hash::{BuildHasher as _, RandomState};
use std::io::Write as _;
use std::time::SystemTime;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::routes::Route;
use crate::auth::Denied;
use crate::broker::Refused;
use crate::clock::Timestamp;
use crate::event::Invalid;
use crate::frame::{self, Framing, Refusal};
use crate::limit::{Allowance, Exceeded, TooManyStreams};

/// An answer with all of its body at hand.
pub type Reply = Response<Full<Bytes>>;

/// Seconds after which a stream that found no room, or no keys to look its token up in, may try again.
const RETRY_AFTER_S: u64 = 5;

/// Tells in an answer of 200 that a stream was refused, with the refusal's code: for those who watch statuses.
const X_REFUSED: HeaderName = HeaderName::from_static("x-refused");

const X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// The bound that a connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crowd {
    /// The broker's: it holds as many as it may that are not streams.
    Broker,
    /// One address's: it makes them faster than it may.
    Address,
}

/// The reasons for refusing a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// It breaks the contract; the text says how.
    Bad(String),
    /// There is no such path.
    NotFound,
    /// The path exists, the method does not fit it.
    Method(&'static Route),
    /// The body is larger than so many bytes.
    TooLarge(usize),
    /// The body did not come in time.
    TooSlow,
    /// The body is compressed.
    Encoded,
    /// The body is of a type that is not read: this one, or none.
    MediaType(String),
    /// There is no room for the stream.
    Refused(Refused),
    /// The sender may not do it.
    Forbidden(String),
    /// A preflight for a page whose origin is not let in.
    OriginNotAllowed,
    /// A browser sent it for a page from elsewhere.
    CrossSite,
    /// Its idempotency key was given to another request.
    KeyReused,
    /// There are too many requests of its key or its address.
    RateLimited(Exceeded),
    /// There are too many streams of its address or its user.
    TooManyStreams(TooManyStreams),
    /// There are too many connections.
    TooManyConnections(Crowd),
    /// Its head is larger than so many bytes.
    HeadTooLarge(usize),
    /// Its head did not come in time.
    HeadTooSlow,
    /// Its credential is missing or no good.
    Denied(Denied),
}

impl Problem {
    /// A parameter that cannot be read.
    pub fn parameter(name: &str, why: impl Display) -> Problem {
        Problem::Bad(format!("parameter {name:?}: {why}"))
    }

    fn status(&self) -> StatusCode {
        match self {
            Problem::Bad(_) => StatusCode::BAD_REQUEST,
            Problem::NotFound => StatusCode::NOT_FOUND,
            Problem::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Problem::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Problem::TooSlow | Problem::HeadTooSlow => StatusCode::REQUEST_TIMEOUT,
            Problem::HeadTooLarge(_) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Problem::TooManyConnections(Crowd::Broker) => StatusCode::SERVICE_UNAVAILABLE,
            Problem::TooManyConnections(Crowd::Address) => StatusCode::TOO_MANY_REQUESTS,
            Problem::Encoded | Problem::MediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Problem::Refused(_) => StatusCode::SERVICE_UNAVAILABLE,
            Problem::Forbidden(_) => StatusCode::FORBIDDEN,
            Problem::OriginNotAllowed | Problem::CrossSite => StatusCode::FORBIDDEN,
            Problem::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Problem::RateLimited(_) | Problem::TooManyStreams(_) => StatusCode::TOO_MANY_REQUESTS,
            // RFC 6750, section 3.1.
            Problem::Denied(Denied::Several) => StatusCode::BAD_REQUEST,
            Problem::Denied(Denied::KeysUnavailable) => StatusCode::SERVICE_UNAVAILABLE,
            Problem::Denied(_) => StatusCode::UNAUTHORIZED,
        }
    }

    /// Its name, in answers and in figures.
    pub fn code(&self) -> &'static str {
        match self {
            Problem::Bad(_) => "bad_request",
            Problem::NotFound => "not_found",
            Problem::Method(_) => "method_not_allowed",
            Problem::TooLarge(_) => "payload_too_large",
            Problem::TooSlow => "request_timeout",
            Problem::HeadTooLarge(_) => "head_too_large",
            Problem::HeadTooSlow => "head_timeout",
            Problem::TooManyConnections(Crowd::Broker) => "too_many_connections",
            Problem::TooManyConnections(Crowd::Address) => "too_many_connections_of_address",
            Problem::Encoded => "unsupported_encoding",
            Problem::MediaType(_) => "unsupported_media_type",
            Problem::Refused(Refused::Full) => "too_many_streams",
            Problem::Refused(Refused::Draining(_)) => "draining",
            Problem::Forbidden(_) => "forbidden",
            Problem::OriginNotAllowed => "origin_not_allowed",
            Problem::CrossSite => "cross_site",
            Problem::KeyReused => "idempotency_key_reused",
            Problem::RateLimited(_) => "rate_limited",
            Problem::TooManyStreams(TooManyStreams::OfAddress(_)) => "too_many_streams_of_address",
            Problem::TooManyStreams(TooManyStreams::OfUser(_)) => "too_many_streams_of_user",
            Problem::Denied(Denied::Missing) => "token_missing",
            Problem::Denied(Denied::Several) => "token_repeated",
            Problem::Denied(Denied::Malformed) => "token_malformed",
            Problem::Denied(Denied::Untrusted) => "token_untrusted",
            Problem::Denied(Denied::Expired) => "token_expired",
            Problem::Denied(Denied::NotYet) => "token_not_yet_valid",
            Problem::Denied(Denied::Elsewhere) => "token_for_elsewhere",
            Problem::Denied(Denied::UnknownKey) => "key_unknown",
            Problem::Denied(Denied::UnknownSigner) => "token_signer_unknown",
            Problem::Denied(Denied::KeysUnavailable) => "keys_unavailable",
        }
    }

    fn message(&self) -> String {
        match self {
            Problem::Bad(why) | Problem::Forbidden(why) => why.clone(),
            Problem::NotFound => "no such path".to_owned(),
            Problem::Method(route) => format!("method not allowed here; allowed: {}", route.allow()),
            Problem::TooLarge(max) => format!("the body is larger than the limit of {max} bytes"),
            Problem::TooSlow => "the body did not arrive in time".to_owned(),
            Problem::HeadTooLarge(max) => format!("the request's head is larger than the limit of {max} bytes"),
            Problem::HeadTooSlow => "the request's head did not arrive in time".to_owned(),
            Problem::TooManyConnections(Crowd::Broker) => {
                "the broker holds as many connections as it may; try again".to_owned()
            }
            Problem::TooManyConnections(Crowd::Address) => {
                "this address makes too many connections; try again".to_owned()
            }
            Problem::Encoded => "the body must not be compressed; send it without Content-Encoding".to_owned(),
            Problem::MediaType(given) => {
                let what = match &**given {
                    "" => "without a content type that does not begin as JSON".to_owned(),
                    given => format!("of the type {given:?}"),
                };
                format!(
                    "a body {what} is not read; send application/json or application/x-ndjson, \
                     or no body and topic, type and message in the query"
                )
            }
            Problem::Refused(Refused::Full) => "the broker holds as many streams as it may; try again".to_owned(),
            Problem::Refused(Refused::Draining(_)) => "the broker is stopping; try again".to_owned(),
            Problem::OriginNotAllowed => "this origin is not among those that CORS_ORIGINS allows".to_owned(),
            Problem::CrossSite => {
                "a page from elsewhere may not publish; CORS_ORIGINS names the origins whose pages may \
                 (the * does not)"
                    .to_owned()
            }
            Problem::KeyReused => {
                "this idempotency key was used for another request; a repeat has to be the same in every byte"
                    .to_owned()
            }
            Problem::RateLimited(_) => "Too many requests. Please try again later.".to_owned(),
            Problem::TooManyStreams(TooManyStreams::OfAddress(most)) => {
                format!("this address holds {most} streams, as many as it may; close one")
            }
            Problem::TooManyStreams(TooManyStreams::OfUser(most)) => {
                format!("this user holds {most} streams, as many as they may; close one")
            }
            Problem::Denied(denied) => describe(*denied).to_owned(),
        }
    }

    /// The answer: `{"success":false,"error":{"code":…,"message":…}}`, but for the publish limit's, which is the Go
    /// gateway's: `{"success":false,"error":"rate limit exceeded","message":…}`.
    pub fn reply(&self) -> Reply {
        let mut reply = text_reply(self.status(), "application/json", self.body());
        if let Problem::RateLimited(exceeded) = self {
            tell_allowance(&mut reply, &exceeded.allowance);
        }
        let headers = reply.headers_mut();
        if let Some(seconds) = self.retry_after_s() {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        match self {
            Problem::Method(route) => {
                headers.insert(ALLOW, route.allow_value());
            }
            // The token may be good: there is nothing to challenge.
            Problem::Denied(Denied::KeysUnavailable) => {}
            Problem::Denied(denied) => {
                headers.insert(WWW_AUTHENTICATE, challenge(*denied));
            }
            // RFC 9110, section 15.5.16.
            Problem::MediaType(_) => {
                headers.insert(ACCEPT, HeaderValue::from_static("application/json, application/x-ndjson"));
            }
            _ if self.closes() => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        reply
    }

    fn body(&self) -> String {
        let message = &self.message();
        match self {
            Problem::RateLimited(_) => to_json(&GoEnvelope { success: false, error: "rate limit exceeded", message }),
            _ => to_json(&Envelope { success: false, error: ErrorBody { code: self.code(), message } }),
        }
    }

    /// The answer as bytes of HTTP/1.1, where hyper does not write it; the connection ends behind it.
    pub fn to_http1(&self, request_id: &str) -> Vec<u8> {
        let (status, body) = (self.status(), self.body());
        let mut bytes = Vec::with_capacity(512);
        let date = httpdate::HttpDate::from(SystemTime::now());
        let _ =
            write!(bytes, "HTTP/1.1 {status}\r\nConnection: close\r\nDate: {date}\r\nX-Request-Id: {request_id}\r\n");
        for (name, value) in self.reply().headers().iter().filter(|(name, _)| *name != CONNECTION) {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                bytes.extend_from_slice(part);
            }
        }
        let _ = write!(bytes, "Content-Length: {}\r\n\r\n{body}", body.len());
        bytes
    }

    /// Whether the connection cannot be used again: some of the request is still to come and will not be read, or
    /// there is no room for the connection.
    fn closes(&self) -> bool {
        matches!(
            self,
            Problem::TooLarge(_)
                | Problem::TooSlow
                | Problem::HeadTooLarge(_)
                | Problem::HeadTooSlow
                | Problem::TooManyConnections(_)
        )
    }

    /// Seconds after which the same request may succeed, where the problem passes by itself.
    fn retry_after_s(&self) -> Option<u64> {
        match self {
            Problem::Refused(Refused::Draining(left)) => Some(left.as_secs() + 1),
            Problem::Refused(Refused::Full) | Problem::TooManyStreams(_) | Problem::Denied(Denied::KeysUnavailable) => {
                Some(RETRY_AFTER_S)
            }
            Problem::RateLimited(exceeded) => Some(exceeded.retry_after_s),
            Problem::TooManyConnections(_) => Some(1),
            _ => None,
        }
    }

    /// The answer that `EventSource` survives, where the problem passes by itself: a stream of one block that says
    /// what was refused and when to come back, and ends.
    pub fn refusal(&self, now: Timestamp) -> Option<Reply> {
        let retry_after_s = self.retry_after_s()?;
        let least_ms = retry_after_s.saturating_mul(1000);
        // Up to a fifth more, but a second at least: those who are refused together come back one by one.
        let spread_ms = (least_ms / 5).max(1000);
        let chance = RandomState::new().hash_one(now.unix_ns());
        let refusal = Refusal {
            code: self.code(),
            message: &self.message(),
            retry_after_s,
            retry_ms: least_ms.saturating_add(chance % spread_ms),
        };
        let block = frame::refused(refusal, now).share(Framing::Plain, 0);
        let mut reply = text_reply(StatusCode::OK, "text/event-stream", block);
        reply.headers_mut().insert(X_REFUSED, HeaderValue::from_static(self.code()));
        if self.closes() {
            reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Some(reply)
    }
}

/// Whether the answer may be a stream of events: `Accept` names the type, as `EventSource` always does (WHATWG HTML,
/// section 9.2.2). Others get their refusals as statuses.
pub fn accepts_events(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|range| {
        let (kind, parameters) = range.split_once(';').unwrap_or((range, ""));
        let refused = parameters.split(';').any(|parameter| {
            let weight = parameter.trim().strip_prefix("q=").and_then(|weight| weight.parse::<f32>().ok());
            weight == Some(0.0)
        });
        kind.trim().eq_ignore_ascii_case("text/event-stream") && !refused
    })
}

/// RFC 6750, section 3: without a token no more is said than that one is needed; with one, that it is no good.
fn challenge(denied: Denied) -> HeaderValue {
    match denied {
        Denied::Missing => HeaderValue::from_static("Bearer realm=\"fanfare\""),
        _ => {
            let (error, why) = match denied {
                Denied::Several => ("invalid_request", describe(denied)),
                _ => ("invalid_token", describe(denied)),
            };
            let value = format!("Bearer realm=\"fanfare\", error=\"{error}\", error_description=\"{why}\"");
            HeaderValue::from_str(&value).expect("the descriptions are plain ASCII")
        }
    }
}

/// What is wrong with what was shown, in the characters that RFC 6750 allows: printable ASCII but `"` and `\`.
fn describe(denied: Denied) -> &'static str {
    match denied {
        Denied::Missing => "a token or a key is needed",
        Denied::Several => "there is more than one token; expected one, in one place",
        Denied::Malformed => "the token cannot be read",
        Denied::Untrusted => "the token is not signed by a key that is trusted here",
        Denied::Expired => "the token has expired",
        Denied::NotYet => "the token is not valid yet",
        Denied::Elsewhere => "the token is for another audience or from another issuer",
        Denied::UnknownKey => "there is no such key",
        Denied::UnknownSigner => "the token names a signing key that is not held here",
        Denied::KeysUnavailable => "the issuer's keys cannot be read now; try again",
    }
}

/// Says in `X-RateLimit-*` what is left of a limit: `Limit` and `Remaining` in requests, `Reset` in seconds since 1970.
pub fn tell_allowance(reply: &mut Reply, allowance: &Allowance) {
    let headers = reply.headers_mut();
    headers.insert(X_RATELIMIT_LIMIT, allowance.limit.into());
    headers.insert(X_RATELIMIT_REMAINING, allowance.remaining.into());
    headers.insert(X_RATELIMIT_RESET, allowance.reset_s.into());
}

impl From<Invalid> for Problem {
    fn from(Invalid(why): Invalid) -> Problem {
        Problem::Bad(why)
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Problem {
        Problem::Refused(refused)
    }
}

impl From<Exceeded> for Problem {
    fn from(exceeded: Exceeded) -> Problem {
        Problem::RateLimited(exceeded)
    }
}

impl From<TooManyStreams> for Problem {
    fn from(too_many: TooManyStreams) -> Problem {
        Problem::TooManyStreams(too_many)
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Problem {
        Problem::Denied(denied)
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    success: bool,
    error: ErrorBody<'a>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    code: &'static str,
    message: &'a str,
}

#[derive(Serialize)]
struct GoEnvelope<'a> {
    success: bool,
    error: &'static str,
    message: &'a str,
}

/// A JSON answer.
pub fn json_reply(status: StatusCode, body: &impl Serialize) -> Reply {
    text_reply(status, "application/json", to_json(body))
}

/// A value as JSON.
pub fn to_json(body: &impl Serialize) -> String {
    serde_json::to_string(body).expect("strings, numbers and maps of them are always JSON")
}

/// An answer of any type; never cached, since it tells how things are now.
pub fn text_reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    /// A reply's status, body, and this header.
    fn told(problem: &Problem, header: &str) -> (u16, String, String) {
        let reply = problem.reply();
        let header = reply.headers().get(header).map_or("", |value| value.to_str().expect("it is text")).to_owned();
        let status = reply.status().as_u16();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("there are threads");
        let body = runtime.block_on(reply.into_body().collect()).expect("it is all here").to_bytes();
        (status, String::from_utf8(body.to_vec()).expect("it is text"), header)
    }

    #[test]
    fn past_the_publish_limit_it_is_as_the_go_gateway_says() {
        let allowance = Allowance { limit: 2000, remaining: 1, reset_s: 1_800_000_002 };
        let problem = Problem::from(Exceeded { allowance, retry_after_s: 2 });
        let body =
            r#"{"success":false,"error":"rate limit exceeded","message":"Too many requests. Please try again later."}"#;
        for (header, value) in [
            ("retry-after", "2"),
            ("x-ratelimit-limit", "2000"),
            ("x-ratelimit-remaining", "1"),
            ("x-ratelimit-reset", "1800000002"),
            ("content-type", "application/json"),
        ] {
            assert_eq!(told(&problem, header), (429, body.to_owned(), value.to_owned()));
        }
    }

    #[test]
    fn who_is_not_known_is_told_how_to_be() {
        let (status, body, header) = told(&Denied::Missing.into(), "www-authenticate");
        assert_eq!((status, &*header), (401, "Bearer realm=\"fanfare\""));
        assert_eq!(
            body,
            r#"{"success":false,"error":{"code":"token_missing","message":"a token or a key is needed"}}"#
        );
        for (denied, code) in [
            (Denied::Malformed, "token_malformed"),
            (Denied::Untrusted, "token_untrusted"),
            (Denied::Expired, "token_expired"),
            (Denied::NotYet, "token_not_yet_valid"),
            (Denied::Elsewhere, "token_for_elsewhere"),
            (Denied::UnknownKey, "key_unknown"),
        ] {
            let (status, body, header) = told(&denied.into(), "www-authenticate");
            assert_eq!(status, 401);
            assert!(body.contains(&format!("\"code\":\"{code}\"")), "{body}");
            let (fixed, why) = header.rsplit_once("error_description=\"").expect("it has one");
            assert_eq!(fixed, "Bearer realm=\"fanfare\", error=\"invalid_token\", ");
            let why = why.strip_suffix('"').expect("it is closed");
            assert!(why.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\'), "{why}");
            assert!(body.contains(why), "{body}");
        }
    }

    #[test]
    fn who_holds_too_much_or_may_not_is_told_so() {
        let (status, body, retry) = told(&TooManyStreams::OfUser(64).into(), "retry-after");
        assert_eq!((status, &*retry), (429, "5"));
        assert!(body.contains(r#""error":{"code":"too_many_streams_of_user","message":"this user holds 64"#), "{body}");
        let (_, body, _) = told(&TooManyStreams::OfAddress(9).into(), "retry-after");
        assert!(body.contains(r#""code":"too_many_streams_of_address""#), "{body}");
        let forbidden = Problem::Forbidden("no".to_owned());
        let body = r#"{"success":false,"error":{"code":"forbidden","message":"no"}}"#.to_owned();
        assert_eq!(told(&forbidden, "www-authenticate"), (403, body, String::new()));
    }
}
