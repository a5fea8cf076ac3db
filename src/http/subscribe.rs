//! `GET /api/v1/events`: a request becomes a subscription.

use std::io::Write as _;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use jiff::SignedDuration;

use super::cors::Field;
use super::query;
use super::reply::{Problem, Reply};
use crate::auth::Listener;
use crate::broker::{Admitted, Broker, Start, Subscription};
use crate::clock::{Steady, Timestamp};
use crate::event::{self, ALL, Ignored};
use crate::fanout::Session;
use crate::frame::Framing;
use crate::limit::Limits;
use crate::log::{Filter, Viewer};
use crate::pattern::Pattern;

/// The header a client resumes with (WHATWG HTML, "Server-sent events", 9.2.4).
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The longest id that is looked at. Ours have at most 37 bytes. A longer one is from elsewhere and is cut, not refused: to
/// `EventSource` a 400 is final, while a gap tells its page what happened.
const ID_MAX: usize = 256;

/// The parameters of a stream. The token among them is read elsewhere.
const PARAMETERS: [&str; 9] =
    ["topics", "types", "user_id", "last_event_id", "lastEventId", "since", "last", "limit", "access_token"];

/// Bounds on a request for a stream.
#[derive(Debug, Clone)]
pub struct SubscribeConfig {
    /// Topics that one stream may name, and types.
    pub max_topics: usize,
}

/// A request for a stream, read but not yet granted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    topics: Vec<Pattern>,
    topics_text: String,
    types: Vec<Box<str>>,
    user_id: Option<String>,
    last_event_id: Option<String>,
    since: Option<(Steady, String)>,
    last: Option<usize>,
    limit: Option<u32>,
    ignored: Ignored,
}

impl Asked {
    fn read(query: &str, headers: &HeaderMap, config: &SubscribeConfig, now: Timestamp) -> Result<Asked, Problem> {
        let mut asked = Asked::default();
        for parameter in query::parameters(query) {
            let name = parameter.name.as_str();
            match name {
                "topics" => asked.add_topics(&parameter.value()?)?,
                "types" => asked.add_types(&parameter.value()?)?,
                "user_id" => asked.user_id = Some(user_id(parameter.value()?)?),
                "last_event_id" | "lastEventId" => {
                    // An empty value is what a client sends that has not had an id yet.
                    asked.last_event_id = Some(parameter.value()?).filter(|id| !id.is_empty()).or(asked.last_event_id);
                }
                "since" => {
                    let value = parameter.value()?;
                    asked.since = Some((since(&value, now)?, value));
                }
                "last" => asked.last = Some(number(name, &parameter.value()?, 0, usize::MAX)?),
                "limit" => asked.limit = Some(number(name, &parameter.value()?, 1, u32::MAX - 1)?),
                unknown => asked.ignored.note(unknown, &PARAMETERS),
            }
        }
        // The header wins: a browser that reconnects sends it with the URL it began with.
        if let Some(id) = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty()) {
            asked.last_event_id = Some(String::from_utf8_lossy(id.as_bytes()).into_owned());
        }
        if let Some(id) = &mut asked.last_event_id {
            let whole = (0..=ID_MAX.min(id.len())).rfind(|&at| id.is_char_boundary(at));
            id.truncate(whole.unwrap_or(0));
        }
        if asked.topics.is_empty() {
            asked.topics.push(Pattern::All);
            asked.topics_text = ALL.to_owned();
        }
        if asked.topics.len() > config.max_topics {
            let why = format!("it names {} topics; expected at most {}", asked.topics.len(), config.max_topics);
            return Err(Problem::parameter("topics", why));
        }
        if asked.types.len() > config.max_topics {
            let why = format!("it names {} types; expected at most {}", asked.types.len(), config.max_topics);
            return Err(Problem::parameter("types", why));
        }
        Ok(asked)
    }

    fn add_topics(&mut self, value: &str) -> Result<(), Problem> {
        for name in list(value) {
            self.topics.push(Pattern::parse(name).map_err(|why| Problem::parameter("topics", why))?);
        }
        if !self.topics_text.is_empty() && !value.is_empty() {
            self.topics_text.push(',');
        }
        self.topics_text.push_str(value);
        Ok(())
    }

    fn add_types(&mut self, value: &str) -> Result<(), Problem> {
        for name in list(value) {
            event::check_type(name).map_err(|why| Problem::parameter("types", why))?;
            self.types.push(name.into());
        }
        Ok(())
    }

    /// Bounds what was asked for by what this listener may see; gives the rest as a filter.
    fn bound(&mut self, listener: &Listener) -> Result<Option<Filter>, Problem> {
        if let Listener::Known(identity) = listener {
            self.topics = granted(&self.topics, &identity.may_listen)?;
        }
        let user_id = self.user_id.take();
        let viewer = match listener {
            Listener::Anyone => user_id.map_or(Viewer::All, |user| Viewer::Only(user.into())),
            Listener::Known(identity) if identity.sees_everyone => {
                user_id.map_or(Viewer::All, |user| Viewer::Only(user.into()))
            }
            Listener::Stranger => match user_id {
                None => Viewer::Public,
                Some(_) => return Err(Problem::Forbidden("a user's events are for that user's token".to_owned())),
            },
            Listener::Known(identity) => match (&identity.user, user_id) {
                (Some(own), None) => Viewer::Member(own.clone()),
                (Some(own), Some(user)) if **own == *user => Viewer::Only(own.clone()),
                (None, None) => Viewer::Public,
                (_, Some(_)) => return Err(Problem::Forbidden("the token is not that user's".to_owned())),
            },
        };
        self.types.sort_unstable();
        self.types.dedup();
        let types = std::mem::take(&mut self.types).into();
        let filter = Filter { viewer, types };
        Ok(Some(filter).filter(|filter| filter.viewer != Viewer::All || !filter.types.is_empty()))
    }

    fn start(&self) -> Start<'_> {
        match (&self.last_event_id, &self.since, self.last) {
            (Some(id), _, _) => Start::After(id),
            (None, None, None) => Start::Now,
            (None, since, last) => {
                Start::Kept { since: since.as_ref().map(|(moment, text)| (*moment, text.as_str())), last }
            }
        }
    }
}

/// The names in a list that is separated by commas.
fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|name| !name.is_empty())
}

fn user_id(value: String) -> Result<String, Problem> {
    match (1..=event::USER_MAX).contains(&value.len()) {
        true => Ok(value),
        false => {
            let why = format!("it has {} bytes; expected 1 to {}", value.len(), event::USER_MAX);
            Err(Problem::parameter("user_id", why))
        }
    }
}

/// What of the asked topics a listener gets that was granted these: each of them, or it is refused; and of `all`, all
/// that was granted.
fn granted(asked: &[Pattern], grants: &[Pattern]) -> Result<Vec<Pattern>, Problem> {
    if grants.is_empty() {
        return Err(Problem::Forbidden("the token grants no topic to listen to".to_owned()));
    }
    let is_granted = |pattern: &&Pattern| grants.iter().any(|grant| grant.covers(pattern));
    match asked.iter().find(|pattern| **pattern != Pattern::All && !is_granted(pattern)) {
        Some(other) => Err(Problem::Forbidden(format!("the token does not grant the topic {:?}", other.to_string()))),
        // What else was asked for is among the grants.
        None if asked.contains(&Pattern::All) => Ok(grants.to_vec()),
        None => Ok(asked.to_vec()),
    }
}

fn number<T: std::str::FromStr + PartialOrd + std::fmt::Display>(
    name: &str,
    text: &str,
    least: T,
    most: T,
) -> Result<T, Problem> {
    match text.parse() {
        Ok(n) if n >= least && n <= most => Ok(n),
        _ => Err(Problem::parameter(name, format!("{text:?}; expected a whole number from {least} to {most}"))),
    }
}

/// A moment: RFC 3339, unix seconds, or a span before now, which does not depend on how the wall clock stands.
fn since(text: &str, now: Timestamp) -> Result<Steady, Problem> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(now.steady_at(Timestamp::from_unix_ms(seconds.saturating_mul(1000))));
    }
    if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        return Ok(now.steady_at(Timestamp::from_unix_ms(u64::try_from(moment.as_millisecond()).unwrap_or(0))));
    }
    if let Ok(span) = text.parse::<SignedDuration>()
        && let Ok(span) = Duration::try_from(span)
    {
        return Ok(now.steady().before(span));
    }
    let expected = "expected RFC 3339 (2026-01-31T12:00:00Z), unix seconds, or a span such as 10m";
    Err(Problem::parameter("since", format!("{text:?}; {expected}")))
}

/// The sender of a request for a stream, and its connection.
#[derive(Debug)]
pub struct Asker<'a> {
    /// The listener's identity.
    pub listener: &'a Listener,
    /// The client's address.
    pub client: IpAddr,
    /// How the stream's body is to be framed.
    pub framing: Framing,
    /// The request's name.
    pub request_id: &'a str,
    /// Whether operators may list streams.
    pub listed: bool,
}

/// Reads the request and asks the broker to let the listener in, to what it may see; gives the stream's opening.
///
/// # Errors
/// [`Problem`], where it cannot be read or is not let in.
pub fn subscribe(
    broker: &Broker,
    config: &SubscribeConfig,
    limits: &Limits,
    request: &Parts,
    asker: &Asker<'_>,
) -> Result<Opening, Problem> {
    let now = Timestamp::now();
    let mut asked = Asked::read(request.uri.query().unwrap_or_default(), &request.headers, config, now)?;
    let filter = asked.bound(asker.listener)?;
    let identity = match asker.listener {
        Listener::Known(identity) => Some(identity),
        Listener::Anyone | Listener::Stranger => None,
    };
    let shares = limits.stream(asker.client, identity.and_then(|identity| identity.user.as_ref()))?;
    let client_id = format!("{}-{}", asker.request_id, now.unix_ns());
    let session = (identity.is_some() || asker.listed).then(|| {
        Box::new(Session {
            client_id: client_id.as_str().into(),
            user: identity.and_then(|identity| identity.user.clone()),
            token: identity.map(|identity| identity.name.clone()),
            address: asker.client,
            topics: asked.topics_text.as_str().into(),
            since: now,
            expires: identity.and_then(|identity| identity.expires),
        })
    });
    let subscription = Subscription {
        topics: &asked.topics,
        filter,
        topics_text: &asked.topics_text,
        start: asked.start(),
        limit: asked.limit,
        client_id: &client_id,
        framing: asker.framing,
        session,
        shares: (!shares.is_empty()).then(|| Box::new(shares)),
    };
    Ok(Opening::new(broker.subscribe(subscription, now)?, &asked.ignored))
}

/// A stream that was let in, and its response's head.
#[derive(Debug)]
pub struct Opening {
    /// The broker's part of it.
    pub admitted: Admitted,
    /// Whether it is a stream of stats, which is another broker's.
    pub is_of_stats: bool,
    request_id: String,
    fields: Vec<Field>,
}

/// The fields of a stream's head that depend on nothing.
const FIELDS: [(&str, &str); 3] =
    [("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache"), ("X-Accel-Buffering", "no")];

impl Opening {
    /// The stream's opening; the fields that all answers have are still to be set.
    fn new(admitted: Admitted, ignored: &Ignored) -> Opening {
        let fields = query::ignored_field(ignored).into_iter().collect();
        Opening { admitted, is_of_stats: false, request_id: String::new(), fields }
    }

    /// Sets the fields that all answers have.
    pub fn set_fields(&mut self, request_id: String, cors: Vec<Field>) {
        self.request_id = request_id;
        self.fields.extend(cors);
    }

    /// The response's head as it goes onto the wire, for a connection that leaves hyper before hyper has written
    /// anything.
    pub fn head(&self) -> Vec<u8> {
        let mut head = Vec::with_capacity(512);
        head.extend_from_slice(match self.admitted.framing() {
            Framing::Chunked => b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n",
            Framing::Plain => b"HTTP/1.0 200 OK\r\nConnection: close\r\n",
        });
        for (name, value) in FIELDS {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        for (name, value) in &self.fields {
            for part in [name.as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                head.extend_from_slice(part);
            }
        }
        let date = httpdate::HttpDate::from(SystemTime::now());
        let _ = write!(head, "X-Request-Id: {}\r\nDate: {date}\r\n\r\n", self.request_id);
        head
    }

    /// The same for hyper to write, and what the broker keeps.
    pub fn into_response(self) -> (hyper::http::response::Parts, Admitted) {
        let (mut parts, ()) = Response::new(()).into_parts();
        for (name, value) in FIELDS {
            parts.headers.insert(name, HeaderValue::from_static(value));
        }
        // A made or checked id is always a valid header value.
        if let Ok(id) = HeaderValue::from_str(&self.request_id) {
            parts.headers.insert("x-request-id", id);
        }
        for (name, value) in self.fields {
            parts.headers.append(name, value);
        }
        (parts, self.admitted)
    }
}

/// The answer to `HEAD`: the head of a stream, and no stream.
///
/// # Errors
/// As [`subscribe`], as far as the request goes.
pub fn probe(config: &SubscribeConfig, request: &Parts, listener: &Listener) -> Result<Reply, Problem> {
    let mut asked = Asked::read(request.uri.query().unwrap_or_default(), &request.headers, config, Timestamp::now())?;
    asked.bound(listener)?;
    let mut reply = Response::new(Full::new(Bytes::new()));
    for (name, value) in FIELDS {
        reply.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    if let Some((name, value)) = query::ignored_field(&asked.ignored) {
        reply.headers_mut().insert(name, value);
    }
    Ok(reply)
}
