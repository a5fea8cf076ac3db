//! `POST /api/v1/events/broadcast`: a request becomes events, all of them or none.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};

use super::access::Publisher;
use super::idempotency::{self, Answer, Answers, Name};
use super::query;
use super::reply::{Problem, Reply, text_reply};
use crate::broker::Broker;
use crate::clock::Now;
use crate::event::{self, Draft, Invalid};
use crate::trace;

/// Bounds on what is published.
#[derive(Debug, Clone)]
pub struct PublishConfig {
    /// A body's size in bytes.
    pub max_body: usize,
    /// Events in one batch.
    pub max_batch: usize,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
}

/// What the body is, going by its content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Form {
    /// One JSON object, or an array of them.
    Json,
    /// JSON objects, one a line.
    NdJson,
    /// Nothing that is read: the event is in the query.
    Query,
}

impl Form {
    fn of(headers: &HeaderMap) -> Form {
        let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let essence = given.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("application/json") {
            Form::Json
        } else if essence.eq_ignore_ascii_case("application/x-ndjson") {
            Form::NdJson
        } else {
            Form::Query
        }
    }
}

/// Publishes what the request says, once: a repeat by its idempotency key (the header, else the single event's `id`)
/// gets the first one's answer.
///
/// # Errors
/// [`Problem`]; then nothing was published.
pub async fn publish(
    broker: &Broker,
    answers: &Answers,
    config: &PublishConfig,
    publisher: &Publisher,
    request: Request<Incoming>,
) -> Result<Reply, Problem> {
    let (head, body) = request.into_parts();
    let form = Form::of(&head.headers);
    if matches!(form, Form::Json | Form::NdJson) && head.headers.contains_key(CONTENT_ENCODING) {
        return Err(Problem::Encoded);
    }
    let key = idempotency::key(&head.headers)?;
    // Read even where it is ignored: on a kept connection the next request begins after it.
    let body = read_body(body, config).await?;
    let text = match form {
        Form::Query => head.uri.query().unwrap_or_default(),
        Form::Json | Form::NdJson => utf8(&body)?,
    };
    let now = Now::read();
    let (mut drafts, batch) = match form {
        Form::Query => (vec![from_query(text, now)?], false),
        Form::Json => (event::drafts_from_json(text, config.max_batch, now)?, text.trim_start().starts_with('[')),
        Form::NdJson => (event::drafts_from_ndjson(text, config.max_batch, now)?, true),
    };
    for draft in &drafts {
        publisher.check(&draft.topic)?;
    }
    let key = match key {
        Some(key) => Some(key.into()),
        None => drafts.first_mut().and_then(|draft| draft.id.take()),
    };
    // Nothing is awaited from here on: where the connection ends, what was published has been remembered too.
    let publish = || accept(broker, drafts, batch, now);
    match key {
        None => Ok(answered(publish())),
        Some(key) => {
            let name = Name { scope: publisher.scope(), key };
            match answers.once(name, (form, text), now, publish)? {
                Answer::First(body) => Ok(answered(body)),
                Answer::Repeat(body) => {
                    let mut reply = answered(body);
                    reply.headers_mut().insert("Idempotent-Replayed", HeaderValue::from_static("true"));
                    Ok(reply)
                }
            }
        }
    }
}

/// Has the broker accept the events, and gives the answer's body.
fn accept(broker: &Broker, drafts: Vec<Draft>, batch: bool, now: Now) -> Bytes {
    let count = drafts.len();
    let published = broker.publish(drafts, now);
    let id = broker.id(published.last);
    trace::accepted(count, id);
    let clients = published.clients;
    let count = if batch { format!("\"count\":{count},") } else { String::new() };
    // Written out: the contract fixes the order of the keys, and none of the values needs escaping.
    let answer =
        format!("{{\"success\":true,\"message\":\"Event broadcasted\",\"clients\":{clients},{count}\"id\":\"{id}\"}}");
    answer.into()
}

fn answered(body: Bytes) -> Reply {
    text_reply(StatusCode::OK, "application/json", body)
}

async fn read_body(body: Incoming, config: &PublishConfig) -> Result<Bytes, Problem> {
    let max = config.max_body;
    if body.size_hint().lower() > max as u64 {
        return Err(Problem::TooLarge(max));
    }
    match tokio::time::timeout(config.body_timeout, Limited::new(body, max).collect()).await {
        Err(_) => Err(Problem::TooSlow),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(Problem::TooLarge(max)),
        Ok(Err(error)) => Err(Problem::Bad(format!("the body could not be read: {error}"))),
    }
}

fn utf8(body: &[u8]) -> Result<&str, Invalid> {
    std::str::from_utf8(body)
        .map_err(|e| Invalid(format!("the body is not UTF-8: byte {} begins no character", e.valid_up_to())))
}

fn from_query(text: &str, now: Now) -> Result<Draft, Problem> {
    let (mut topic, mut kind, mut message) = (String::new(), String::new(), None);
    for parameter in query::parameters(text) {
        match parameter.name.as_str() {
            "topic" => topic = parameter.value()?,
            "type" => kind = parameter.value()?,
            "message" => message = Some(parameter.value()?),
            _ => {}
        }
    }
    Ok(Draft::from_query(&topic, &kind, message.as_deref(), now)?)
}
