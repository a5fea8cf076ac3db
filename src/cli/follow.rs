//! Follows a stream through lost connections, as `EventSource` does in a page (WHATWG HTML, section 9.2.3).

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use serde::Deserialize;
use tokio::time::{Instant, sleep_until, timeout};

use super::Failure;
use super::remote::{ANSWER_WITHIN, Refusal};
use crate::client::{Client, reason};
use crate::sse::{Event, Item, Parser};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const X_IGNORED: HeaderName = HeaderName::from_static("x-ignored");

/// How long to wait before coming back, where no stream has said so.
const RETRY: Duration = Duration::from_secs(3);

/// Waits double with each try that fails, up to this, or to what the stream said if that is longer.
const RETRY_MOST: Duration = Duration::from_secs(30);

/// The longest wait that a stream may ask for: a command is not worth waiting longer.
const RETRY_SAID_MOST: Duration = Duration::from_secs(3600);

/// The shortest wait. A server that asks for 0 would otherwise be called in a tight loop.
const RETRY_LEAST: Duration = Duration::from_millis(100);

/// A change in a followed stream.
#[derive(Debug)]
pub(super) enum News {
    /// The broker has let it in.
    Opened {
        /// The parameters that the broker says it has ignored.
        ignored: Option<String>,
    },
    /// An event has come.
    Event(Event),
    /// It was cut, and will be asked for again.
    Cut {
        /// Why.
        why: String,
        /// After which time.
        wait: Duration,
    },
}

/// A stream that is followed.
#[derive(Debug)]
pub(super) struct Follow {
    client: Client,
    target: String,
    /// How long nothing may come before the other side is taken for dead.
    idle: Option<Duration>,
    last_id: Option<HeaderValue>,
    retry: Duration,
    /// Tries that failed, one after the other.
    failures: u32,
    /// Whether there ever was a stream: a broker that was never there is told at once.
    was_open: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting(Instant),
    Open(Box<Open>),
}

#[derive(Debug)]
struct Open {
    body: Incoming,
    parser: Parser,
    events: VecDeque<Event>,
    /// Why no more will come.
    ended: Option<String>,
    /// The broker's last block, which says why it ends the stream.
    parting: Option<Parting>,
}

/// Why the broker ends a stream, or refused it for now.
#[derive(Debug)]
struct Parting {
    why: String,
    refused: bool,
}

impl Parting {
    /// The reason in this block, if it is a `refused` or an `end`.
    fn of(event: &Event) -> Option<Parting> {
        #[derive(Deserialize)]
        struct Envelope {
            data: Data,
        }
        #[derive(Deserialize)]
        struct Data {
            #[serde(default)]
            message: String,
            #[serde(default)]
            reason: String,
        }
        let refused = match &*event.kind {
            "refused" => true,
            "end" => false,
            _ => return None,
        };
        let why = match serde_json::from_str(&event.data) {
            Ok(Envelope { data }) if refused => data.message,
            Ok(Envelope { data }) => format!("the broker ended the stream: {}", data.reason),
            Err(_) => "the broker ended the stream".to_owned(),
        };
        Some(Parting { why, refused })
    }
}

impl Follow {
    /// Of the stream at `target`, from after an event on, if one is named.
    pub(super) fn new(client: Client, target: String, idle: Option<Duration>, after: Option<HeaderValue>) -> Follow {
        let state = State::Waiting(Instant::now());
        Follow { client, target, idle, last_id: after, retry: RETRY, failures: 0, was_open: false, state }
    }

    /// Whether there is news at once.
    pub(super) fn has_more(&self) -> bool {
        matches!(&self.state, State::Open(open) if !open.events.is_empty())
    }

    /// Waits for the next change.
    ///
    /// # Errors
    /// Where asking again is no use.
    pub(super) async fn next(&mut self) -> Result<News, Failure> {
        loop {
            match &mut self.state {
                State::Waiting(until) => {
                    sleep_until(*until).await;
                    return self.open().await;
                }
                State::Open(open) => {
                    if let Some(event) = open.events.pop_front() {
                        if let Some(id) = &event.id {
                            self.last_id = resumable(id)?;
                        }
                        match Parting::of(&event) {
                            Some(parting) => open.parting = Some(parting),
                            None => {
                                self.failures = 0;
                                return Ok(News::Event(event));
                            }
                        }
                        continue;
                    }
                    if let Some(why) = open.ended.take() {
                        let Parting { why, refused } = open.parting.take().unwrap_or(Parting { why, refused: false });
                        if refused {
                            let told = open.parser.retry();
                            return Ok(self.cut(why, told));
                        }
                        // Of a block without data, only the id counts, and how long to wait.
                        if let Some(id) = open.parser.last_id() {
                            self.last_id = resumable(id)?;
                        }
                        self.retry = open.parser.retry().map_or(self.retry, |retry| retry.min(RETRY_SAID_MOST));
                        return Ok(self.cut(why, None));
                    }
                    open.read(self.idle).await?;
                }
            }
        }
    }

    async fn open(&mut self) -> Result<News, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(id) = &self.last_id {
            headers.insert(LAST_EVENT_ID, id.clone());
        }
        let asked = self.client.send(Method::GET, &self.target, headers, Bytes::new());
        let answer = match timeout(ANSWER_WITHIN, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(unreachable)) => return self.unanswered(unreachable.to_string()),
            Err(_) => return self.unanswered(format!("no answer within {ANSWER_WITHIN:?}")),
        };
        if answer.status() != StatusCode::OK {
            let refusal = Refusal::read(answer).await;
            return match refusal.is_passing() {
                true => Ok(self.cut(refusal.to_string(), refusal.retry_after)),
                false => Err(self.failed(&refusal.to_string())),
            };
        }
        let kind = answer.headers().get(CONTENT_TYPE).map(|kind| String::from_utf8_lossy(kind.as_bytes()));
        if !kind.as_ref().is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/event-stream")) {
            return Err(self.failed(&format!("it answered {kind:?}; expected a text/event-stream")));
        }
        let ignored =
            answer.headers().get(X_IGNORED).map(|names| String::from_utf8_lossy(names.as_bytes()).into_owned());
        let (body, parser) = (answer.into_body(), Parser::default());
        self.state = State::Open(Box::new(Open { body, parser, events: VecDeque::new(), ended: None, parting: None }));
        self.was_open = true;
        Ok(News::Opened { ignored })
    }

    fn unanswered(&mut self, why: String) -> Result<News, Failure> {
        match self.was_open {
            true => Ok(self.cut(why, None)),
            false => Err(self.failed(&why)),
        }
    }

    fn failed(&self, why: &str) -> Failure {
        Failure::Failed(format!("{}: {why}", self.client.base()))
    }

    /// Waits before the next try: as long as the broker said, else longer with each that fails; and a little more, by
    /// chance, so that streams that were cut together do not come back together.
    fn cut(&mut self, why: String, told: Option<Duration>) -> News {
        let doubled = self.retry.saturating_mul(1 << self.failures.min(5)).min(RETRY_MOST.max(self.retry));
        self.failures += 1;
        let wait = told.map_or(doubled, |told| told.min(RETRY_SAID_MOST)).max(RETRY_LEAST);
        let wait = wait + wait.mul_f64(chance() / 4.0);
        self.state = State::Waiting(Instant::now() + wait);
        News::Cut { why, wait }
    }
}

impl Open {
    /// Reads the next bytes, at least one, or notes the end of the stream.
    async fn read(&mut self, idle: Option<Duration>) -> Result<(), Failure> {
        let frame = match idle {
            None => self.body.frame().await,
            Some(idle) => match timeout(idle, self.body.frame()).await {
                Ok(frame) => frame,
                Err(_) => {
                    self.ended = Some(format!("nothing came for {idle:?}, no heartbeat either"));
                    return Ok(());
                }
            },
        };
        match frame {
            None => self.ended = Some("the broker ended the stream".to_owned()),
            Some(Err(error)) => self.ended = Some(format!("the connection broke: {}", reason(&error))),
            Some(Ok(frame)) => {
                let events = &mut self.events;
                let bytes = frame.into_data().unwrap_or_default();
                let fed = self.parser.feed(&bytes, |item| match item {
                    Item::Event(event) => events.push_back(event),
                    Item::Comment => {}
                });
                fed.map_err(Failure::failed)?;
            }
        }
        Ok(())
    }
}

/// An id as it is sent back; none where it is empty, which says that there is nothing to resume from.
fn resumable(id: &str) -> Result<Option<HeaderValue>, Failure> {
    let value = HeaderValue::from_bytes(id.as_bytes());
    let value = value.map_err(|_| Failure::Failed(format!("the stream has an id that cannot be sent back: {id:?}")))?;
    Ok(Some(value).filter(|value| !value.is_empty()))
}

/// A number from 0 to 1 by chance.
fn chance() -> f64 {
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}
