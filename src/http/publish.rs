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
use super::reply::{Problem, Reply, text_reply, to_json};
use crate::broker::Broker;
use crate::clock::Timestamp;
use crate::event::{self, Draft, Ignored, Invalid};
use crate::trace;

/// Bounds on a publish.
#[derive(Debug, Clone)]
pub struct PublishConfig {
    /// A body's size in bytes.
    pub max_body: usize,
    /// Events in one batch.
    pub max_batch: usize,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
}

/// The parameters of an event in the query.
const PARAMETERS: [&str; 3] = ["topic", "type", "message"];

/// The byte order mark of UTF-8, which .NET and PowerShell put in front.
const BOM: char = '\u{feff}';

/// Characters of a content type that a refusal shows.
const TYPE_SHOWN: usize = 100;

/// Where the event is, and how it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Form {
    /// One JSON object, or an array of them.
    Json,
    /// JSON objects, one a line.
    NdJson,
    /// There is no body: the event is in the query.
    Query,
}

impl Form {
    /// Goes by the content type; where nobody chose one (curl sends a form's by itself), by how the body begins.
    fn of(headers: &HeaderMap, body: &[u8]) -> Result<Form, Problem> {
        let given = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        let essence = given.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let is = |name: &str| essence.eq_ignore_ascii_case(name.as_bytes());
        let is_chosen = !essence.is_empty() && !is("application/x-www-form-urlencoded");
        let form = if is("application/json") {
            Form::Json
        } else if is("application/x-ndjson") {
            Form::NdJson
        } else if body.is_empty() {
            return Ok(Form::Query);
        } else if !is_chosen && begins_as_json(body) {
            Form::Json
        } else {
            // Taken for an event in the query, it would be lost, and an empty event sent to everybody.
            let given = String::from_utf8_lossy(essence);
            return Err(Problem::MediaType(given.chars().take(TYPE_SHOWN).collect()));
        };
        match headers.contains_key(CONTENT_ENCODING) {
            true => Err(Problem::Encoded),
            false => Ok(form),
        }
    }
}

/// Whether a JSON object or array begins here. Text in UTF-16 counts too: [`utf8`] names what is wrong with it.
fn begins_as_json(body: &[u8]) -> bool {
    let mut mark = [0; 3];
    let text = body.strip_prefix(BOM.encode_utf8(&mut mark).as_bytes()).unwrap_or(body);
    matches!(text.trim_ascii_start(), [b'{' | b'[', ..]) || is_utf16(body)
}

/// Whether it begins with a byte order mark of UTF-16.
fn is_utf16(body: &[u8]) -> bool {
    body.starts_with(&[0xff, 0xfe]) || body.starts_with(&[0xfe, 0xff])
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
    let key = idempotency::key(&head.headers)?;
    // Read even where it is refused: on a kept connection the next request begins after it.
    let body = read_body(body, config).await?;
    let form = Form::of(&head.headers, &body)?;
    let text = match form {
        Form::Query => head.uri.query().unwrap_or_default(),
        Form::Json | Form::NdJson => utf8(&body)?,
    };
    let (now, max, mut ignored) = (Timestamp::now(), config.max_batch, Ignored::default());
    let (mut drafts, batch) = match form {
        Form::Query => (vec![from_query(text, now, &mut ignored)?], false),
        Form::Json => (event::drafts_from_json(text, max, now, &mut ignored)?, text.trim_start().starts_with('[')),
        Form::NdJson => (event::drafts_from_ndjson(text, max, now, &mut ignored)?, true),
    };
    for draft in &drafts {
        publisher.check(&draft.topic)?;
    }
    let key = match key {
        Some(key) => Some(key.into()),
        None => drafts.first_mut().and_then(|draft| draft.id.take()),
    };
    // Nothing is awaited from here on: where the connection ends, what was published has been remembered too.
    let publish = || accept(broker, drafts, batch, &ignored, now);
    let (body, is_repeat) = match key {
        None => (publish(), false),
        Some(key) => {
            let name = Name { scope: publisher.scope(), key };
            match answers.once(name, (form, text), now, publish)? {
                Answer::First(body) => (body, false),
                Answer::Repeat(body) => (body, true),
            }
        }
    };
    let mut reply = text_reply(StatusCode::OK, "application/json", body);
    if is_repeat {
        reply.headers_mut().insert("Idempotent-Replayed", HeaderValue::from_static("true"));
    }
    if let Some((name, value)) = query::ignored_field(&ignored) {
        reply.headers_mut().insert(name, value);
    }
    Ok(reply)
}

/// Has the broker accept the events, and gives the answer's body.
fn accept(broker: &Broker, drafts: Vec<Draft>, batch: bool, ignored: &Ignored, now: Timestamp) -> Bytes {
    let count = drafts.len();
    let published = broker.publish(drafts, now);
    let id = broker.id(published.last);
    trace::accepted(count, id);
    let clients = published.clients;
    let count = if batch { format!("\"count\":{count},") } else { String::new() };
    let ignored = match ignored.names() {
        [] => String::new(),
        names => format!(",\"ignored\":{}", to_json(&names)),
    };
    // Written out: the contract fixes the order of the keys, and none of the other values needs escaping.
    let answer = format!(
        "{{\"success\":true,\"message\":\"Event broadcasted\",\"clients\":{clients},{count}\"id\":\"{id}\"{ignored}}}"
    );
    answer.into()
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

/// The body as text, without a byte order mark.
fn utf8(body: &[u8]) -> Result<&str, Invalid> {
    if is_utf16(body) {
        return Err(Invalid("the body begins with a byte order mark of UTF-16; expected UTF-8".to_owned()));
    }
    let text = std::str::from_utf8(body)
        .map_err(|e| Invalid(format!("the body is not UTF-8: byte {} begins no character", e.valid_up_to())))?;
    Ok(text.strip_prefix(BOM).unwrap_or(text))
}

fn from_query(text: &str, now: Timestamp, ignored: &mut Ignored) -> Result<Draft, Problem> {
    let (mut topic, mut kind, mut message) = (String::new(), String::new(), None);
    for parameter in query::parameters(text) {
        match parameter.name.as_str() {
            "topic" => topic = parameter.value()?,
            "type" => kind = parameter.value()?,
            "message" => message = Some(parameter.value()?),
            unknown => ignored.note(unknown, &PARAMETERS),
        }
    }
    Ok(Draft::from_query(&topic, &kind, message.as_deref(), now)?)
}
