//! `fanfare publish`: one event, or a line of standard input each.

use std::borrow::Cow;
use std::fs::{File, Metadata};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, BufRead, IsTerminal as _, Read as _, Write};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use http_body_util::{BodyExt as _, Limited};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::timeout;
use tracing_subscriber::EnvFilter;

use super::look::plain;
use super::remote::{self, ANSWER_WITHIN, Refusal, Remote};
use super::{Failure, figures};
use crate::client::{Client, reason};
use crate::clock::Timestamp;
use crate::event::{self, Draft, Ignored, Invalid};
use crate::http::routes::BROADCAST;
use crate::publisher::{Figures, Publisher, Rejected};
use crate::sync::lock;

/// The help's last part.
const ABOUT: &str = "\
With a single event, its id goes to standard output once the broker has accepted it. Lines are sent in batches and in order,
as fast as the broker takes them; empty lines are skipped. A request that fails for the time being is sent again under its
idempotency key, so no event is published twice. A line that is wrong, or refused, ends the command with 1. Lines read before
that are still sent, and the command says how many were published.";

/// The arguments of `fanfare publish`.
#[derive(Debug, Args)]
#[command(after_help = remote::SECRETS, after_long_help = format!("{ABOUT}\n\n{}", remote::SECRETS))]
pub(super) struct Arguments {
    /// Where the event goes.
    #[arg(required_unless_present = "events")]
    topic: Option<String>,
    /// The event's type, such as `wallet.created`.
    #[arg(value_name = "TYPE", required_unless_present = "events")]
    kind: Option<String>,
    /// The event's data, a JSON object; `-` reads many of them from standard input, a line each.
    #[arg(default_value = "{}")]
    data: String,
    /// Read whole events from standard input, a line each, as `fanfare tail --json` prints them: topic, type, data, and
    /// perhaps user_id or user_ids. They get new ids and timestamps. `tail` does not show an event's owners: an event
    /// becomes public unless `user_id` in its data, or beside it, names one.
    #[arg(long, conflicts_with_all = ["topic", "kind", "data", "user", "id"])]
    events: bool,
    #[command(flatten)]
    remote: Remote,
    /// The user that the event belongs to; no other user gets it. Without it, `user_id` in DATA says whose it is.
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    user: Option<String>,
    /// The event's idempotency key: published again with it within ten minutes, the event is delivered once.
    #[arg(long, value_name = "KEY", value_parser = key)]
    id: Option<HeaderValue>,
}

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The longest line that is read, in bytes; the broker takes less than that unless it is told otherwise.
const LINE_MAX: u64 = 8 << 20;

/// How long a line may wait for the broker to take it, before it is given up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

/// How long one event is tried to be published.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most of an answer that is read, in bytes.
const ANSWER_MAX: usize = 64 << 10;

fn key(text: &str) -> Result<HeaderValue, String> {
    let is_key = (1..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    let value = HeaderValue::from_str(text).ok().filter(|_| is_key);
    value.ok_or_else(|| "expected 1 to 256 visible ASCII characters".to_owned())
}

/// The fault in a line's JSON, without the line number that serde adds: the line is counted elsewhere.
fn place(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", " at column ")
}

/// An event as it is sent to the broker, read from its own form or from a line of `tail`; other keys are kept aside.
#[derive(Debug, Serialize, Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user_id: Option<User>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user_ids: Option<Vec<User>>,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// A user's id; numbers count as their digits.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum User {
    Text(String),
    Number(serde_json::Number),
}

impl<'a> Event<'a> {
    /// An event with this text as its data.
    fn new(topic: &'a str, kind: &'a str, user: Option<&str>, data: &'a str) -> Result<Event<'a>, String> {
        let data: &RawValue =
            serde_json::from_str(data).map_err(|error| format!("the data is no JSON object: {}", place(&error)))?;
        let user_id = user.map(|user| User::Text(user.to_owned()));
        Event { topic: topic.into(), kind: kind.into(), user_id, user_ids: None, data }.checked()
    }

    /// An event that a line holds.
    fn read(line: &'a str) -> Result<Event<'a>, String> {
        let event: Event<'a> =
            serde_json::from_str(line).map_err(|error| format!("it is no event: {}", place(&error)))?;
        event.checked()
    }

    /// Checks the event as the broker will, before anything is sent.
    fn checked(self) -> Result<Event<'a>, String> {
        match Draft::from_json(&self.json(), Timestamp::now()) {
            Ok(_) => Ok(self),
            // A column in the text that is sent is none in the text that was given.
            Err(Invalid(why)) => Err(why.split(" at line 1 column ").next().unwrap_or_default().to_owned()),
        }
    }

    fn json(&self) -> String {
        serde_json::to_string(self).expect("texts can be written")
    }

    /// The owner, where it stands beside the data.
    fn users(&self) -> Option<Vec<String>> {
        let users = self.user_id.iter().chain(self.user_ids.iter().flatten()).map(|user| match user {
            User::Text(text) => text.clone(),
            User::Number(number) => number.to_string(),
        });
        (self.user_id.is_some() || self.user_ids.is_some()).then(|| users.collect())
    }

    async fn send(&self, publisher: &Publisher) -> Result<(), Rejected> {
        match self.users() {
            None => publisher.send(&self.topic, &self.kind, self.data).await,
            Some(users) => {
                let users: Vec<&str> = users.iter().map(String::as_str).collect();
                publisher.for_users(&users).send(&self.topic, &self.kind, self.data).await
            }
        }
    }
}

/// The form of the lines.
#[derive(Debug)]
enum Lines<'a> {
    Events,
    /// The data of events that are alike in all else.
    Data {
        topic: &'a str,
        kind: &'a str,
        user: Option<&'a str>,
    },
}

impl Lines<'_> {
    fn event<'a>(&'a self, line: &'a str) -> Result<Event<'a>, String> {
        match self {
            Lines::Events => Event::read(line),
            Lines::Data { topic, kind, user } => Event::new(topic, kind, *user, line),
        }
    }
}

/// Publishes.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { topic, kind, data, user, id, remote, .. } = arguments;
    let (topic, kind) = (topic.as_deref().unwrap_or_default(), kind.as_deref().unwrap_or_default());
    match (arguments.events, &**data) {
        (true, _) => lines(remote, &Lines::Events),
        (false, "-") if id.is_some() => {
            Err(Failure::Usage("--id names one event; lines have names of their own".to_owned()))
        }
        (false, "-") => lines(remote, &Lines::Data { topic, kind, user: user.as_deref() }),
        (false, data) => {
            let event = Event::new(topic, kind, user.as_deref(), data).map_err(Failure::Usage)?;
            let id = one(&remote.client()?, &event, id.clone())?;
            super::print(format!("{id}\n").as_bytes())
        }
    }
}

/// Publishes one event; gives its id.
fn one(client: &Client, event: &Event<'_>, key: Option<HeaderValue>) -> Result<String, Failure> {
    let chance = || [0, 1].map(|n| format!("{:016x}", RandomState::new().hash_one(n))).concat();
    let key = key.or_else(|| HeaderValue::from_str(&chance()).ok());
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.extend(key.map(|key| (IDEMPOTENCY_KEY, key)));
    let body = Bytes::from(event.json());
    let give_up = Instant::now() + PATIENCE;
    remote::runtime()?.block_on(async {
        loop {
            let (why, wait) = match attempt(client, headers.clone(), body.clone()).await {
                Ok(id) => return Ok(id),
                Err(Attempt::Final(why)) => return Err(Failure::Failed(format!("{}: {why}", client.base()))),
                Err(Attempt::Again(why, wait)) => (why, wait),
            };
            if wait >= give_up.saturating_duration_since(Instant::now()) {
                return Err(Failure::Failed(format!("{}: {why}", client.base())));
            }
            // It does not matter if standard error has been closed.
            let _ = writeln!(io::stderr(), "fanfare: {}: {why}; again in {wait:?}", client.base());
            tokio::time::sleep(wait).await;
        }
    })
}

/// The result of an attempt that did not publish.
enum Attempt {
    Final(String),
    Again(String, Duration),
}

async fn attempt(client: &Client, headers: HeaderMap, body: Bytes) -> Result<String, Attempt> {
    const WAIT: Duration = Duration::from_secs(1);
    let again = |why| Attempt::Again(why, WAIT);
    let asking = async {
        let asked = client.send(Method::POST, BROADCAST, headers, body).await;
        let answer = asked.map_err(|unreachable| match unreachable.is_connect() {
            // No server is there: the address may be wrong, so the user should learn of it at once.
            true => Attempt::Final(unreachable.to_string()),
            false => again(unreachable.to_string()),
        })?;
        if answer.status() != StatusCode::OK {
            let refusal = Refusal::read(answer).await;
            return Err(match refusal.is_passing() {
                true => Attempt::Again(refusal.to_string(), refusal.retry_after.unwrap_or(WAIT).max(WAIT)),
                false => Attempt::Final(refusal.to_string()),
            });
        }
        let read = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
        let read = read.map_err(|error| again(format!("the answer could not be read: {}", reason(&*error))))?;
        #[derive(Deserialize)]
        struct Answer {
            id: String,
            #[serde(default)]
            ignored: Vec<String>,
        }
        match serde_json::from_slice(&read.to_bytes()) {
            Ok(Answer { id, ignored }) => {
                if !ignored.is_empty() {
                    let names = ignored.join(", ");
                    let _ = writeln!(io::stderr(), "fanfare: {}: it ignored {}", client.base(), plain(&names));
                }
                Ok(plain(&id).into_owned())
            }
            Err(error) => Err(Attempt::Final(format!("the answer is not a broker's: {error}"))),
        }
    };
    match timeout(ANSWER_WITHIN, asking).await {
        Ok(answer) => answer,
        Err(_) => Err(again(format!("no answer within {ANSWER_WITHIN:?}"))),
    }
}

/// Events that the broker has refused, or that did not reach it.
#[derive(Debug, Default)]
struct Refused {
    is_set: AtomicBool,
    why: Mutex<String>,
}

/// Publishes an event for each line of standard input.
fn lines(remote: &Remote, lines: &Lines<'_>) -> Result<(), Failure> {
    let client = remote.client()?;
    let refused = Arc::new(Refused::default());
    let told = refused.clone();
    // The queue holds a request or two: more would only make events wait.
    let mut builder = Publisher::builder("fanfare").url(remote.url.trim()).stamp(false).give_up_after(GIVE_UP_AFTER);
    builder = builder.queue_events(1_000).queue_bytes(2 << 20);
    if let Some(key) = remote::secret("FANFARE_KEY")? {
        builder = builder.key(&key);
    }
    if let Some(token) = remote::secret("FANFARE_TOKEN")? {
        builder = builder.token(&token);
    }
    let builder = builder.on_report(move |report| {
        if let Some(why) = &report.why {
            *lock(&told.why) = plain(why).into_owned();
            told.is_set.store(true, Relaxed);
        }
    });
    let publisher = builder.build().map_err(Failure::failed)?;
    let runtime = remote::runtime()?;
    let began = Instant::now();
    let progress = Arc::new(Progress::start());
    let drawing = progress.clone().draw(publisher.clone(), began);
    let mut ignored = Ignored::default();
    let published = read(&mut io::stdin().lock(), &progress, |line| {
        if refused.is_set.load(Relaxed) {
            return Ok(false);
        }
        let event = lines.event(line)?;
        if let Lines::Events = lines {
            event::note_keys(line, &mut ignored);
        }
        runtime.block_on(event.send(&publisher)).map_err(|rejected| rejected.to_string())?;
        Ok(true)
    });
    runtime.block_on(publisher.flush());
    let figures = runtime.block_on(publisher.close(GIVE_UP_AFTER + ANSWER_WITHIN));
    progress.finish();
    let _ = drawing.map(thread::JoinHandle::join);
    summary(&figures, progress.bytes.load(Relaxed), began.elapsed());
    if !ignored.names().is_empty() {
        let names = ignored.names().join(", ");
        let _ = writeln!(io::stderr(), "fanfare: ignored keys that look like an event's own: {}", plain(&names));
    }
    let why = lock(&refused.why);
    let lost = figures.published - figures.accepted - figures.dropped.invalid;
    match published {
        _ if lost > 0 => {
            let why = if why.is_empty() { "it does not answer" } else { &**why };
            Err(Failure::Failed(format!("{}: {why}; {lost} events were not published", client.base())))
        }
        Err(wrong) => Err(Failure::Failed(wrong)),
        Ok(()) => Ok(()),
    }
}

/// Gives each line to `take`, until that says not to go on.
fn read(
    input: &mut impl BufRead,
    progress: &Progress,
    mut take: impl FnMut(&str) -> Result<bool, String>,
) -> Result<(), String> {
    let mut line = Vec::new();
    for n in 1u64.. {
        line.clear();
        let wrong = |why: &str| format!("standard input, line {n}: {}", plain(why));
        let bytes =
            input.by_ref().take(LINE_MAX).read_until(b'\n', &mut line).map_err(|error| wrong(&error.to_string()))?;
        if bytes == 0 {
            break;
        }
        if bytes as u64 == LINE_MAX && !line.ends_with(b"\n") {
            return Err(wrong(&format!("it is longer than {} MiB", LINE_MAX >> 20)));
        }
        progress.bytes.fetch_add(bytes as u64, Relaxed);
        let text = std::str::from_utf8(&line).map_err(|error| wrong(&error.to_string()))?.trim();
        if !text.is_empty() && !take(text).map_err(|why| wrong(&why))? {
            break;
        }
    }
    Ok(())
}

/// Tells how much it was, in the end.
fn summary(figures: &Figures, bytes: u64, took: Duration) {
    let retried = match figures.retried {
        0 => String::new(),
        n => format!(", {n} of {} requests made again", figures.requests),
    };
    // It does not matter if standard error has been closed.
    let _ = writeln!(
        io::stderr(),
        "fanfare: {} events published, {} read, in {:.1} s: {} events/s{retried}",
        figures::count(figures.accepted),
        figures::bytes(bytes as f64),
        took.as_secs_f64(),
        figures::rate(figures.accepted as f64 / took.as_secs_f64().max(0.001)),
    );
}

/// How far it is, on standard error if that is a terminal.
#[derive(Debug)]
struct Progress {
    bar: ProgressBar,
    bytes: AtomicU64,
    is_over: AtomicBool,
}

/// How often it is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(100);

impl Progress {
    fn start() -> Progress {
        // Of a file it is known how much will come.
        let file = io::stdin().as_fd().try_clone_to_owned().map(File::from).and_then(|file| file.metadata());
        let length = file.ok().filter(Metadata::is_file).map(|file| file.len());
        let target = match io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let style = match length {
            Some(_) => "{bar:24.cyan/dim} {percent:>3}%  {msg}",
            None => "{spinner:.cyan} {msg}",
        };
        let bar = ProgressBar::with_draw_target(length, target);
        bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
        let progress = Progress { bar, bytes: AtomicU64::new(0), is_over: AtomicBool::new(false) };
        progress.tell_of_retries();
        progress
    }

    /// Draws until it is over, in a thread of its own.
    fn draw(self: Arc<Progress>, publisher: Publisher, began: Instant) -> Option<thread::JoinHandle<()>> {
        if self.bar.is_hidden() {
            return None;
        }
        let draw = move || {
            while !self.is_over.load(Relaxed) {
                let accepted = publisher.figures().accepted;
                let rate = figures::rate(accepted as f64 / began.elapsed().as_secs_f64().max(0.001));
                self.bar.set_message(format!("{} events, {rate}/s", figures::count(accepted)));
                self.bar.set_position(self.bytes.load(Relaxed));
                self.bar.tick();
                thread::sleep(DRAW_EVERY);
            }
            self.bar.finish_and_clear();
        };
        thread::Builder::new().name("progress".to_owned()).spawn(draw).ok()
    }

    fn finish(&self) {
        self.is_over.store(true, Relaxed);
    }

    /// The publisher's warnings go to standard error, above the bar.
    fn tell_of_retries(&self) {
        struct Above(ProgressBar);
        impl Write for Above {
            fn write(&mut self, text: &[u8]) -> io::Result<usize> {
                self.0.suspend(|| io::stderr().write(text))
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let bar = self.bar.clone();
        let lines = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new("fanfare::publisher=info"))
            .with_writer(move || Above(bar.clone()))
            .with_ansi(false)
            .without_time()
            .with_level(false)
            .with_target(false);
        // There is no other: only `serve` has a log too.
        let _ = lines.try_init();
    }
}
