//! Answers, and the one place where what went wrong becomes a status.

use std::fmt::Display;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::broker::Refused;
use crate::event::Invalid;

/// An answer with all of its body at hand.
pub type Reply = Response<Full<Bytes>>;

/// Seconds after which a refused stream may try again.
const RETRY_AFTER_S: &str = "5";

/// What can be wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// It breaks the contract; the text says how.
    Bad(String),
    /// There is no such path.
    NotFound,
    /// The path exists, the method does not fit it; the text is what does.
    Method(&'static str),
    /// The body is larger than so many bytes.
    TooLarge(usize),
    /// The body did not come in time.
    TooSlow,
    /// The body is compressed.
    Encoded,
    /// There is no room for the stream.
    Refused(Refused),
    /// Whoever asks may not have it.
    Forbidden(String),
    /// A preflight for a page whose origin is not let in.
    OriginNotAllowed,
    /// A browser sent it for a page from elsewhere.
    CrossSite,
    /// Its idempotency key was given to another request.
    KeyReused,
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
            Problem::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Problem::Encoded => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Problem::Refused(_) => StatusCode::SERVICE_UNAVAILABLE,
            Problem::Forbidden(_) => StatusCode::FORBIDDEN,
            Problem::OriginNotAllowed | Problem::CrossSite => StatusCode::FORBIDDEN,
            Problem::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Problem::Bad(_) => "bad_request",
            Problem::NotFound => "not_found",
            Problem::Method(_) => "method_not_allowed",
            Problem::TooLarge(_) => "payload_too_large",
            Problem::TooSlow => "request_timeout",
            Problem::Encoded => "unsupported_encoding",
            Problem::Refused(Refused::Full) => "too_many_streams",
            Problem::Refused(Refused::Draining) => "draining",
            Problem::Forbidden(_) => "forbidden",
            Problem::OriginNotAllowed => "origin_not_allowed",
            Problem::CrossSite => "cross_site",
            Problem::KeyReused => "idempotency_key_reused",
        }
    }

    fn message(&self) -> String {
        match self {
            Problem::Bad(why) | Problem::Forbidden(why) => why.clone(),
            Problem::NotFound => "no such path".to_owned(),
            Problem::Method(allowed) => format!("method not allowed here; allowed: {allowed}"),
            Problem::TooLarge(max) => format!("the body is larger than the limit of {max} bytes"),
            Problem::TooSlow => "the body did not arrive in time".to_owned(),
            Problem::Encoded => "the body must not be compressed; send it without Content-Encoding".to_owned(),
            Problem::Refused(Refused::Full) => "the broker holds as many streams as it may; try again".to_owned(),
            Problem::Refused(Refused::Draining) => "the broker is stopping; try again".to_owned(),
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
        }
    }

    /// The answer: `{"success":false,"error":{"code":…,"message":…}}`.
    pub fn reply(&self) -> Reply {
        let error = ErrorBody { code: self.code(), message: &self.message() };
        let mut reply = json_reply(self.status(), &Envelope { success: false, error });
        let headers = reply.headers_mut();
        match self {
            Problem::Method(allowed) => {
                headers.insert(ALLOW, HeaderValue::from_static(allowed));
            }
            Problem::Refused(_) => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
            }
            // Some of the body is still to come and will not be read: the connection cannot be used again.
            Problem::TooLarge(_) | Problem::TooSlow => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        reply
    }
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

/// A JSON answer.
pub fn json_reply(status: StatusCode, body: &impl Serialize) -> Reply {
    let body = serde_json::to_string(body).expect("strings, numbers and maps of them are always JSON");
    text_reply(status, "application/json", body)
}

/// An answer of any type; never cached, since it tells how things are now.
pub fn text_reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}
