//! Takes events from the queue, sends them, and tries again until each is accepted or dropped.
//!
//! One request is under way at a time, and the next batch is taken when the one before is decided. So the queue's order
//! is the order in which the broker accepts, also where a request has to be made again, and while a request is under
//! way the next batch fills by itself: the slower the broker answers, the larger the batches.
//!
//! A request has an idempotency key, which its repeats have too: where the broker had accepted it and only the answer
//! was lost, the repeat gets that answer and publishes nothing.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, StatusCode};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::encode::Event;
use super::queue::{Decision, Queue};
use crate::client::Client;

/// The path that events are posted to.
const BROADCAST: &str = "/api/v1/events/broadcast";

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The most bytes of an answer that are read.
const ANSWER_MAX: usize = 64 << 10;

/// The longest text of an error that is passed on, in characters.
const WHY_MAX: usize = 300;

/// The first wait before a request is made again, at most; each further one may be twice as long.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);

/// The longest such wait.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// The settings of requests.
#[derive(Debug, Clone)]
pub(super) struct Manner {
    /// How long an answer may take.
    pub(super) timeout: Duration,
    /// How long after the beginning of a request the next one waits to be full.
    pub(super) linger: Duration,
    /// How long an event is of use after it was published.
    pub(super) age: Duration,
}

/// Sends the queue's events.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) client: Client,
    pub(super) queue: Arc<Queue>,
    pub(super) manner: Manner,
}

/// The outcome of an attempt.
#[derive(Debug, PartialEq, Eq)]
enum Attempt {
    /// The broker has accepted all of it, the last event by this id.
    Accepted(Option<String>),
    /// It may be accepted later, not before this time where there is one.
    Again(Option<Duration>, String),
    /// Something in it is wrong, or it is too much: parts of it may be accepted.
    NotAll(String),
    /// This service may not publish to one of its topics.
    NotThere(String),
    /// Nothing of it will be accepted.
    Refused(String),
}

impl Sender {
    /// Sends until the queue is closed and empty.
    pub(super) async fn run(self) {
        let mut keys = Keys::new();
        let mut next = Instant::now();
        while self.queue.has_some().await {
            // An event after a pause leaves at once; those of a burst leave together.
            let _ = timeout_at(next, self.queue.has_many()).await;
            next = Instant::now() + self.manner.linger;
            let batch = self.queue.take();
            if !batch.is_empty() {
                self.deliver(batch, &mut keys).await;
            }
        }
    }

    /// Sends a batch, and again in parts where it is not accepted as a whole, in order, until each of its events is
    /// decided.
    async fn deliver(&self, batch: Vec<Event>, keys: &mut Keys) {
        // The last one is the next one to be sent.
        let mut parts = vec![batch];
        // Topics that this service may not publish to, and their events: they are decided last, since those before them
        // in the batch must not seem decided already.
        let (mut barred, mut held, mut not_there) = (Vec::new(), Vec::new(), None);
        let mut pause = None;
        while let Some(part) = parts.pop() {
            let (of_barred, mut part): (Vec<_>, Vec<_>) =
                part.into_iter().partition(|event| barred.iter().any(|topic: &Vec<u8>| topic == event.topic()));
            held.extend(of_barred);
            let Some(first) = part.first() else { continue };
            let (decision, why) = match self.persist(&part, keys.next()).await {
                Attempt::Accepted(id) => {
                    if let Some(id) = id {
                        self.queue.note_id(id);
                    }
                    (Decision::Accepted, None)
                }
                Attempt::Again(after, why) => {
                    pause = after;
                    (Decision::Expired, Some(why))
                }
                Attempt::NotThere(why) if part.iter().all(|event| event.topic() == first.topic()) => {
                    barred.push(first.topic().to_vec());
                    not_there = Some(why);
                    held.append(&mut part);
                    continue;
                }
                // The batch's own error names one event only, and there may be more of them: halves find them all.
                Attempt::NotAll(_) | Attempt::NotThere(_) if part.len() > 1 => {
                    parts.push(part.split_off(part.len() / 2));
                    parts.push(part);
                    continue;
                }
                Attempt::NotAll(why) | Attempt::NotThere(why) | Attempt::Refused(why) => (Decision::Refused, Some(why)),
            };
            self.queue.decide(&part, decision, why.as_deref());
        }
        if !held.is_empty() {
            self.queue.decide(&held, Decision::Refused, not_there.as_deref());
        }
        // These were given up, but the broker has not said that others may come sooner.
        if let Some(pause) = pause {
            sleep(pause.min(self.manner.age)).await;
        }
    }

    /// Makes a request until it is answered, or its events are of no more use: then gives [`Attempt::Again`].
    async fn persist(&self, events: &[Event], key: HeaderValue) -> Attempt {
        let body = body(events);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(IDEMPOTENCY_KEY, key);
        let mut failures = 0;
        loop {
            self.queue.count_request(failures > 0);
            let attempt = match timeout(self.manner.timeout, self.attempt(headers.clone(), body.clone())).await {
                Ok(attempt) => attempt,
                Err(_) => Attempt::Again(None, format!("no answer within {:?}", self.manner.timeout)),
            };
            let Attempt::Again(after, why) = attempt else {
                if failures > 0 {
                    tracing::info!(broker = %self.client.base(), "the broker answers again");
                }
                return attempt;
            };
            if failures == 0 {
                tracing::warn!(broker = %self.client.base(), "cannot publish, will try again: {why}");
            }
            let wait = after.unwrap_or_default().saturating_add(backoff(failures));
            failures += 1;
            // The youngest one's age: what was published with it is not given up before it.
            let age = events.last().map(|event| event.at.elapsed()).unwrap_or_default();
            if age.saturating_add(wait) >= self.manner.age {
                return Attempt::Again(after, why);
            }
            sleep(wait).await;
        }
    }

    async fn attempt(&self, headers: HeaderMap, body: Bytes) -> Attempt {
        let answer = match self.client.send(Method::POST, BROADCAST, headers, body).await {
            Ok(answer) => answer,
            Err(error) => return Attempt::Again(None, error.to_string()),
        };
        let (head, body) = answer.into_parts();
        let after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        match Limited::new(body, ANSWER_MAX).collect().await {
            Ok(body) => judge(head.status, after.map(Duration::from_secs), &body.to_bytes()),
            // What the status says counts; but success is not believed to whoever does not finish it.
            Err(error) => match judge(head.status, after.map(Duration::from_secs), b"") {
                Attempt::Refused(_) if head.status == StatusCode::OK => {
                    Attempt::Again(None, format!("the answer could not be read: {error}"))
                }
                attempt => attempt,
            },
        }
    }
}

/// What an answer means.
fn judge(status: StatusCode, after: Option<Duration>, body: &[u8]) -> Attempt {
    match status.as_u16() {
        200 => match serde_json::from_slice(body) {
            Ok(Success { success: true, id }) => Attempt::Accepted(id),
            _ => Attempt::Refused("the answer is not a broker's: expected {\"success\":true,…}".to_owned()),
        },
        400 | 413 => Attempt::NotAll(why(status, body)),
        403 => Attempt::NotThere(why(status, body)),
        // Too slow, too often, or not able to now (RFC 9110, section 15): it may be repeated, under its key even where
        // it was accepted.
        408 | 425 | 429 | 500..=599 => Attempt::Again(after, why(status, body)),
        _ => Attempt::Refused(why(status, body)),
    }
}

#[derive(Deserialize)]
struct Success {
    success: bool,
    id: Option<String>,
}

/// An error's body: the broker's own (`error.message`), or the publish limit's (`message`).
#[derive(Deserialize)]
struct Failure {
    error: Option<Reason>,
    message: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Reason {
    Named { message: String },
    Code(String),
}

/// A status and what the body says of it.
fn why(status: StatusCode, body: &[u8]) -> String {
    let text = match serde_json::from_slice(body) {
        Ok(Failure { error: Some(Reason::Named { message }), .. }) => message,
        Ok(Failure { message: Some(message), .. }) => message,
        Ok(Failure { error: Some(Reason::Code(code)), .. }) => code,
        _ => return status.to_string(),
    };
    let text: String = text.chars().take(WHY_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("{status}: {text}")
}

/// A request's body.
fn body(events: &[Event]) -> Bytes {
    let mut body = Vec::with_capacity(events.iter().map(|event| event.json().len() + 1).sum::<usize>() + 1);
    body.push(b'[');
    for (n, event) in events.iter().enumerate() {
        if n > 0 {
            body.push(b',');
        }
        body.extend_from_slice(event.json());
    }
    body.push(b']');
    body.into()
}

/// A random wait up to a bound that doubles (exponential backoff with full jitter), so that many publishers do not come
/// back together.
fn backoff(failures: u32) -> Duration {
    let most = BACKOFF_FIRST.saturating_mul(1 << failures.min(16)).min(BACKOFF_MAX);
    // Seeded by the operating system anew each time: 53 bits of it, as a fraction.
    let chance = RandomState::new().hash_one(failures) >> 11;
    most.mul_f64(chance as f64 / (1_u64 << 53) as f64)
}

/// Makes the idempotency keys of requests: a random prefix and a number.
struct Keys {
    publisher: String,
    last: u64,
}

impl Keys {
    fn new() -> Keys {
        // 128 bits that the operating system seeds.
        let [a, b] = [0, 1].map(|n| RandomState::new().hash_one(n));
        Keys { publisher: format!("{a:016x}{b:016x}"), last: 0 }
    }

    fn next(&mut self) -> HeaderValue {
        self.last += 1;
        let key = format!("{}-{}", self.publisher, self.last);
        HeaderValue::from_str(&key).expect("digits and letters may stand in a header")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::publisher::encode::Stamp;

    fn events(topics: &str) -> Vec<Event> {
        let event = |topic: char| Event::encode(&topic.to_string(), "k", None, &json!({}), &Stamp::nothing());
        topics.chars().map(|topic| event(topic).expect("an event")).collect()
    }

    #[test]
    fn a_batch_is_an_array_of_its_events() {
        assert_eq!(body(&events("a")), r#"[{"topic":"a","type":"k","data":{}}]"#);
        let two = r#"[{"topic":"a","type":"k","data":{}},{"topic":"b","type":"k","data":{}}]"#;
        let built = body(&events("ab"));
        assert_eq!(built, two);
        assert_eq!(two.len(), events("ab").iter().map(|event| event.json().len() + 1).sum::<usize>() + 1);
    }

    #[test]
    fn a_wait_is_bounded_and_is_by_chance() {
        for failures in 0..40 {
            let most = Duration::from_millis(100 << failures.min(10)).min(Duration::from_secs(5));
            let waits: Vec<Duration> = (0..50).map(|_| backoff(failures)).collect();
            assert!(waits.iter().all(|wait| *wait < most), "{failures}: {waits:?}");
            assert!(waits.iter().any(|wait| *wait > most / 2), "{failures}: {waits:?}");
            assert!(waits.iter().any(|wait| *wait < most / 2), "{failures}: {waits:?}");
        }
    }

    #[test]
    fn keys_are_visible_ascii_and_no_two_are_the_same() {
        let mut keys = [Keys::new(), Keys::new()];
        let made: std::collections::BTreeSet<_> =
            keys.iter_mut().flat_map(|keys| [keys.next(), keys.next()]).map(|key| key.as_bytes().to_vec()).collect();
        assert_eq!(made.len(), 4);
        assert!(made.iter().all(|key| key.iter().all(u8::is_ascii_graphic) && key.len() < 100));
    }

    #[test]
    fn an_answer_is_judged_by_its_status_and_its_body() {
        let judge = |status, body: &str| judge(StatusCode::from_u16(status).expect("one"), None, body.as_bytes());
        let ok = r#"{"success":true,"message":"Event broadcasted","clients":2,"count":3,"id":"e-1"}"#;
        assert_eq!(judge(200, ok), Attempt::Accepted(Some("e-1".to_owned())));
        assert_eq!(judge(200, "{\"success\":true}"), Attempt::Accepted(None));
        for body in ["", "<html>", "{}", "{\"success\":false}"] {
            assert!(matches!(judge(200, body), Attempt::Refused(_)), "{body}");
        }
        let named = r#"{"success":false,"error":{"code":"bad_request","message":"element 1: no\nobject"}}"#;
        assert_eq!(judge(400, named), Attempt::NotAll("400 Bad Request: element 1: no object".to_owned()));
        assert_eq!(judge(413, ""), Attempt::NotAll("413 Payload Too Large".to_owned()));
        assert!(matches!(judge(403, ""), Attempt::NotThere(_)));
        let limit = r#"{"success":false,"error":"rate limit exceeded","message":"Too many requests."}"#;
        assert_eq!(judge(429, limit), Attempt::Again(None, "429 Too Many Requests: Too many requests.".to_owned()));
        let code = r#"{"error":"unavailable"}"#;
        assert_eq!(judge(503, code), Attempt::Again(None, "503 Service Unavailable: unavailable".to_owned()));
        for status in [201, 204, 301, 401, 404, 405, 415, 422] {
            assert!(matches!(judge(status, ok), Attempt::Refused(_)), "{status}");
        }
        for status in [408, 500, 502, 504] {
            assert!(matches!(judge(status, ""), Attempt::Again(..)), "{status}");
        }
        let Attempt::Refused(why) = judge(404, &format!("{{\"message\":\"{}\"}}", "é".repeat(1000))) else { panic!() };
        assert_eq!(why.chars().count(), "404 Not Found: ".len() + WHY_MAX);
    }
}
