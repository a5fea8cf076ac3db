//! The publisher: how a service gets its events to the broker without ever waiting for it.
//!
//! ```text
//! caller ─▶ publish ─▶ encode ─▶ queue ────────▶ sender ─────▶ POST /api/v1/events/broadcast
//!           any thread  JSON,     bounded by       one thread,   one request at a time,
//!                       checked   events, bytes    own runtime   a batch each
//! ```
//!
//! [`Publisher::publish`] checks an event by the broker's own rules, encodes it in the caller's thread and puts it into
//! a queue. That is all that a caller waits for: no network, no runtime, no other caller's encoding. A thread of the
//! publisher's own takes batches from the queue and sends them over one kept connection.
//!
//! What can go wrong on the way, and what happens then:
//!
//! | | |
//! |---|---|
//! | the event breaks the rules | [`Rejected::Invalid`] or [`Rejected::TooLarge`] to the caller |
//! | the queue is full | [`Rejected::Full`] to the caller: the new event is dropped, those that wait keep their places |
//! | no connection, no answer in time, 408, 425, 429, 5xx | the same request again, after a wait that doubles (by chance shorter; no earlier than `Retry-After`), with the same idempotency key: nothing is published twice where only the answer was lost |
//! | that, for longer than [`Builder::give_up_after`] | the event is dropped as `expired` |
//! | 400, 413 | the batch is halved until what the broker refuses stands alone; that is dropped as `refused`, the rest is accepted |
//! | 403 | the batch is halved until it shows which topics this service may not publish to; their events are dropped as `refused` |
//! | 401, any other answer | the batch is dropped as `refused` |
//! | the publisher is closed before all was sent | what is left is dropped as `closed` |
//!
//! Every drop is counted by its reason ([`Publisher::figures`]) and reported: a warning by `tracing`, at once and then
//! at most every ten seconds however many there are, or what [`Builder::on_report`] is given.
//!
//! **Order.** The events of one caller arrive in the order in which it published them, whatever their topics: there is
//! one queue, and no request begins before the one before it is decided.
//!
//! **Once.** The broker remembers idempotency keys for ten minutes, in memory. A broker that is restarted between a
//! request and its repeat publishes the repeat too.
//!
//! ```no_run
//! use fanfare::publisher::Publisher;
//! use serde_json::json;
//!
//! # fn main() -> Result<(), fanfare::publisher::BuildError> {
//! let events = Publisher::from_env("wallet-service")?; // GATEWAY_URL, FANFARE_KEY
//! let created = json!({ "wallet_id": "w-1024", "user_id": "ann", "currency": "INR" });
//! if let Err(rejected) = events.publish("wallets", "wallet.created", &created) {
//!     // Counted and reported as well: a service may go on without looking.
//!     eprintln!("{rejected}");
//! }
//! events.blocking_close(std::time::Duration::from_secs(5)); // or close(..).await
//! # Ok(())
//! # }
//! ```

mod encode;
mod nivo;
mod queue;
mod report;
mod sender;

use std::env;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::runtime;

pub use self::nivo::{
    Risk, StatusChange, Transaction, TransactionKind, Transactions, User, Users, Wallet, WalletAction, Wallets,
};
pub use self::queue::{Dropped, Figures};
pub use self::report::Report;
pub use crate::name::Invalid;

use self::encode::{Event, Stamp};
use self::queue::{Bounds, Queue};
use self::report::{OnReport, Reporter};
use self::sender::{Manner, Sender};
use crate::client::Client;

/// Where the platform's services find the broker unless `GATEWAY_URL` says otherwise.
const GATEWAY: &str = "http://gateway:8000";

/// What publishes. It is cheap to clone; all clones share one queue and one connection.
///
/// When the last clone is dropped, what is queued is still sent, as long as the process runs; nobody waits for it.
/// [`close`](Publisher::close) does.
#[derive(Debug, Clone)]
pub struct Publisher {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    queue: Arc<Queue>,
    stamp: Stamp,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.queue.close(None);
    }
}

/// Why an event was not queued. It was counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejected {
    /// It breaks the rules on topics, types, users, or data; the text says which.
    Invalid(Invalid),
    /// It is larger than a request, or the whole queue, may be.
    TooLarge {
        /// Its size as it would be sent.
        bytes: usize,
        /// The most that it might have.
        most: usize,
    },
    /// The queue is full: the broker does not answer, or not as fast as events come.
    Full,
    /// The publisher was closed.
    Closed,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rejected::Invalid(why) => why.fmt(f),
            Rejected::TooLarge { bytes, most } => write!(f, "the event has {bytes} bytes; expected at most {most}"),
            Rejected::Full => f.write_str("the publisher's queue is full"),
            Rejected::Closed => f.write_str("the publisher is closed"),
        }
    }
}

impl std::error::Error for Rejected {}

/// Why there is no publisher: which setting is wrong, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildError(String);

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BuildError {}

/// The settings of a [`Publisher`].
#[derive(Clone)]
pub struct Builder {
    service: String,
    url: String,
    key: Option<String>,
    token: Option<String>,
    is_stamped: bool,
    bounds: Bounds,
    timeout: Duration,
    linger: Duration,
    on_report: Option<OnReport>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key and the token are secrets.
        f.debug_struct("Builder")
            .field("service", &self.service)
            .field("url", &self.url)
            .field("bounds", &self.bounds)
            .field("timeout", &self.timeout)
            .field("linger", &self.linger)
            .finish_non_exhaustive()
    }
}

impl Builder {
    fn new(service: &str) -> Builder {
        Builder {
            service: service.to_owned(),
            url: GATEWAY.to_owned(),
            key: None,
            token: None,
            is_stamped: true,
            bounds: Bounds {
                events: 10_000,
                bytes: 16 << 20,
                batch: 500,
                body: 1 << 20,
                age: Duration::from_secs(300),
            },
            timeout: Duration::from_secs(10),
            linger: Duration::from_millis(5),
            on_report: None,
        }
    }

    /// Where the broker is, such as `http://gateway:8000`, which is the default; `https` needs the feature of that
    /// name.
    #[must_use]
    pub fn url(mut self, url: &str) -> Builder {
        self.url = url.to_owned();
        self
    }

    /// The service's API key; none by default.
    #[must_use]
    pub fn key(mut self, key: &str) -> Builder {
        self.key = Some(key.to_owned());
        self
    }

    /// A token that grants topics to publish to, instead of a key; none by default.
    #[must_use]
    pub fn token(mut self, token: &str) -> Builder {
        self.token = Some(token.to_owned());
        self
    }

    /// Whether `service` and `published_at` (RFC 3339, UTC, when it was published) are added to an event's data where
    /// it does not have them, whatever their values; the default. Without, data is passed on to the letter.
    #[must_use]
    pub fn stamp(mut self, is_stamped: bool) -> Builder {
        self.is_stamped = is_stamped;
        self
    }

    /// Events that are queued at most, those that are being sent included; 10,000 by default.
    #[must_use]
    pub fn queue_events(mut self, events: usize) -> Builder {
        self.bounds.events = events;
        self
    }

    /// Bytes that are queued at most, counted as they are sent; 16 MiB by default. Besides them the queue needs about
    /// 0.3 kB of memory an event, and a request as much again as its body.
    #[must_use]
    pub fn queue_bytes(mut self, bytes: usize) -> Builder {
        self.bounds.bytes = bytes;
        self
    }

    /// Events in one request at most; 500 by default. The broker takes no more than its `--max-batch`.
    #[must_use]
    pub fn max_batch(mut self, events: usize) -> Builder {
        self.bounds.batch = events;
        self
    }

    /// Bytes of one request's body at most; 1 MiB by default, as the broker's `--max-body`.
    #[must_use]
    pub fn max_body(mut self, bytes: usize) -> Builder {
        self.bounds.body = bytes;
        self
    }

    /// How long after the beginning of one request the next one waits until it is full; 5 ms by default, which makes at
    /// most 200 requests a second that are not full; an hour at most. An event that comes after a pause does not wait.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Builder {
        self.linger = linger;
        self
    }

    /// How long the broker's answer to a request may take; 10 s by default.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Builder {
        self.timeout = timeout;
        self
    }

    /// How long an event is of use after it was published, and so is tried to be sent; 5 minutes by default. Where it
    /// is longer than the broker's `--idempotency-window` (10 minutes), what is sent again may be published twice.
    #[must_use]
    pub fn give_up_after(mut self, age: Duration) -> Builder {
        self.bounds.age = age;
        self
    }

    /// What is told when events were dropped, instead of a warning in the log: at once, and then at most every ten
    /// seconds. It is called by the publisher's thread, which meanwhile sends nothing; a panic in it closes the
    /// publisher.
    #[must_use]
    pub fn on_report(mut self, report: impl Fn(&Report) + Send + Sync + 'static) -> Builder {
        self.on_report = Some(OnReport(Arc::new(report)));
        self
    }

    /// Starts the publisher and its thread. It does not connect before there is something to send.
    ///
    /// # Errors
    /// Where a setting cannot be right, or the system has no thread.
    pub fn build(self) -> Result<Publisher, BuildError> {
        let wrong = |what: &str, why: &str| Err(BuildError(format!("{what}: {why}")));
        if self.service.is_empty() {
            return wrong("service", "it is empty; expected a name such as wallet-service");
        }
        for (name, value, least) in [
            ("queue_events", self.bounds.events, 1),
            ("queue_bytes", self.bounds.bytes, 1024),
            ("max_batch", self.bounds.batch, 1),
            ("max_body", self.bounds.body, 1024),
        ] {
            if value < least {
                return wrong(name, &format!("it is {value}; expected at least {least}"));
            }
        }
        const LINGER_MAX: Duration = Duration::from_secs(3600);
        if self.linger > LINGER_MAX {
            return wrong("linger", &format!("it is {:?}; expected at most {LINGER_MAX:?}", self.linger));
        }
        let mut client =
            Client::new(&self.url, self.key.as_deref()).map_err(|why| BuildError(format!("url: {why}")))?;
        if let Some(token) = &self.token {
            client = client.with_token(token).map_err(BuildError)?;
        }
        let stamp = match self.is_stamped {
            true => Stamp::new(&self.service).map_err(|Invalid(why)| BuildError(format!("service: {why}")))?,
            false => Stamp::nothing(),
        };
        let manner = Manner { timeout: self.timeout, linger: self.linger, age: self.bounds.age };
        let queue = Arc::new(Queue::new(self.bounds));
        let reporter = Reporter::new(queue.clone(), self.service, self.on_report);
        let sender = Sender { client, queue: queue.clone(), manner };
        start(sender, reporter).map_err(|error| BuildError(format!("no thread to send with: {error}")))?;
        Ok(Publisher { handle: Arc::new(Handle { queue, stamp }) })
    }
}

impl Publisher {
    /// A publisher for this service, to where `GATEWAY_URL` says (`http://gateway:8000` where it says nothing), with
    /// the API key in `FANFARE_KEY`, if there is one.
    ///
    /// # Errors
    /// Where one of them cannot be right.
    pub fn from_env(service: &str) -> Result<Publisher, BuildError> {
        let mut builder = Publisher::builder(service);
        if let Some(url) = variable("GATEWAY_URL")? {
            builder = builder.url(&url);
        }
        if let Some(key) = variable("FANFARE_KEY")? {
            builder = builder.key(&key);
        }
        builder.build()
    }

    /// Settings for a publisher of this service; the name is what `service` says in its events.
    pub fn builder(service: &str) -> Builder {
        Builder::new(service)
    }

    /// Publishes an event: `data` must be written as a JSON object, such as a struct or a map is. Numbers leave as they
    /// are written, of any size. It belongs to the user that `data.user_id` names; without one it is public, and
    /// [`for_users`](Publisher::for_users) is how to name its users.
    ///
    /// It never waits for the broker, nor for room in the queue. It may be called from any thread, in a runtime or not.
    ///
    /// # Errors
    /// [`Rejected`], where the event was dropped. That is counted and reported already.
    pub fn publish<T: Serialize + ?Sized>(&self, topic: &str, kind: &str, data: &T) -> Result<(), Rejected> {
        self.publish_to(None, topic, kind, data)
    }

    /// As [`publish`](Publisher::publish), but where the queue is full it waits for room: for tools that pass on what
    /// they read, as fast as the broker takes it.
    ///
    /// # Errors
    /// [`Rejected`], but never [`Rejected::Full`].
    pub async fn send<T: Serialize + ?Sized>(&self, topic: &str, kind: &str, data: &T) -> Result<(), Rejected> {
        let event = self.encode(None, topic, kind, data)?;
        self.handle.queue.push_when_there_is_room(event).await
    }

    /// Publishes to these users only, whatever `data.user_id` says.
    ///
    /// ```no_run
    /// # fn f(events: fanfare::publisher::Publisher, transfer: fanfare::publisher::Transaction<'_>) {
    /// let _ = events.for_users(&["ann", "bob"]).transactions().completed(&transfer);
    /// # }
    /// ```
    pub fn for_users<'a>(&'a self, users: &'a [&'a str]) -> ForUsers<'a> {
        ForUsers { publisher: self, users: Some(users) }
    }

    /// Events of the topic `transactions`. They name no user in their data: without [`for_users`](Publisher::for_users)
    /// they are public.
    pub fn transactions(&self) -> Transactions<'_> {
        Transactions(self.for_all())
    }

    /// Events of the topic `wallets`.
    pub fn wallets(&self) -> Wallets<'_> {
        Wallets(self.for_all())
    }

    /// Events of the topic `users`.
    pub fn users(&self) -> Users<'_> {
        Users(self.for_all())
    }

    /// Events of the topic `risk`.
    pub fn risk(&self) -> Risk<'_> {
        Risk(self.for_all())
    }

    /// What became of all that was published so far.
    pub fn figures(&self) -> Figures {
        self.handle.queue.figures()
    }

    /// The id that the broker gave the last event that it accepted, if it has accepted any.
    pub fn last_id(&self) -> Option<String> {
        self.handle.queue.last_id()
    }

    /// Waits until every event is decided that was queued before: accepted, or dropped. Nothing is held up by it. It
    /// takes as long as the broker does, and where that does not answer, [`Builder::give_up_after`].
    ///
    /// It needs no runtime of a certain kind.
    pub async fn flush(&self) -> Figures {
        self.handle.queue.flushed().await
    }

    /// As [`flush`](Publisher::flush), for code that is not async; async code must not call it, since it blocks its
    /// thread.
    pub fn blocking_flush(&self) -> Figures {
        block_on(self.flush())
    }

    /// Takes no more events, of this clone or any other, sends what is queued, and gives the final figures; after
    /// `within` it drops what is left as `closed`.
    ///
    /// It needs no runtime of a certain kind; the publisher's own thread keeps the time.
    pub async fn close(&self, within: Duration) -> Figures {
        self.handle.queue.close(Instant::now().checked_add(within));
        self.handle.queue.closed().await
    }

    /// As [`close`](Publisher::close), for code that is not async; async code must not call it, since it blocks its
    /// thread.
    pub fn blocking_close(&self, within: Duration) -> Figures {
        block_on(self.close(within))
    }

    fn for_all(&self) -> ForUsers<'_> {
        ForUsers { publisher: self, users: None }
    }

    fn encode<T>(&self, users: Option<&[&str]>, topic: &str, kind: &str, data: &T) -> Result<Event, Rejected>
    where
        T: Serialize + ?Sized,
    {
        Event::encode(topic, kind, users, data, &self.handle.stamp).map_err(|invalid| {
            let rejected = Rejected::Invalid(invalid);
            self.handle.queue.reject(&rejected);
            rejected
        })
    }

    fn publish_to<T>(&self, users: Option<&[&str]>, topic: &str, kind: &str, data: &T) -> Result<(), Rejected>
    where
        T: Serialize + ?Sized,
    {
        let event = self.encode(users, topic, kind, data)?;
        self.handle.queue.push(event)
    }
}

/// A [`Publisher`] for events that belong to certain users.
#[derive(Debug, Clone, Copy)]
pub struct ForUsers<'a> {
    publisher: &'a Publisher,
    users: Option<&'a [&'a str]>,
}

impl<'a> ForUsers<'a> {
    /// As [`Publisher::publish`].
    ///
    /// # Errors
    /// [`Rejected`], also where there is no user, or one without a name: the event would be public.
    pub fn publish<T: Serialize + ?Sized>(&self, topic: &str, kind: &str, data: &T) -> Result<(), Rejected> {
        self.publisher.publish_to(self.users, topic, kind, data)
    }

    /// The same with data that names its user itself: where these are no others, it is checked that it does.
    fn publish_of<T>(&self, user: &str, topic: &str, kind: &str, data: &T) -> Result<(), Rejected>
    where
        T: Serialize + ?Sized,
    {
        self.publisher.publish_to(Some(self.users.unwrap_or(&[user])), topic, kind, data)
    }

    /// As [`Publisher::send`].
    ///
    /// # Errors
    /// As [`publish`](ForUsers::publish), but never [`Rejected::Full`].
    pub async fn send<T: Serialize + ?Sized>(&self, topic: &str, kind: &str, data: &T) -> Result<(), Rejected> {
        let event = self.publisher.encode(self.users, topic, kind, data)?;
        self.publisher.handle.queue.push_when_there_is_room(event).await
    }

    /// As [`Publisher::transactions`].
    pub fn transactions(self) -> Transactions<'a> {
        Transactions(self)
    }

    /// As [`Publisher::wallets`].
    pub fn wallets(self) -> Wallets<'a> {
        Wallets(self)
    }

    /// As [`Publisher::users`].
    pub fn users(self) -> Users<'a> {
        Users(self)
    }

    /// As [`Publisher::risk`].
    pub fn risk(self) -> Risk<'a> {
        Risk(self)
    }
}

/// An environment variable; an empty one is none.
fn variable(name: &str) -> Result<Option<String>, BuildError> {
    match env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(BuildError(format!("{name} is not text; expected UTF-8"))),
    }
}

/// Starts the thread that sends and reports. It has a runtime of its own, so that callers need none, and none of theirs
/// that is busy or ends holds the sending up.
fn start(sender: Sender, reporter: Reporter) -> std::io::Result<()> {
    /// Ends the publisher with its thread, also where that panics: nobody waits for what will not come.
    struct End(Arc<Queue>);
    impl Drop for End {
        fn drop(&mut self) {
            self.0.abandon();
            self.0.end();
        }
    }

    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("fanfare-publish".to_owned()).spawn(move || {
        let end = End(sender.queue.clone());
        let queue = sender.queue.clone();
        runtime.block_on(until(queue.time_is_over(), beside(reporter.run(), sender.run())));
        // Before who closes it goes on, and perhaps ends the process.
        queue.abandon();
        reporter.report();
        drop(end);
        // A name that is still being looked up is not waited for.
        runtime.shutdown_background();
    })?;
    Ok(())
}

/// Runs `work` to its end, or to when `cut` has one.
async fn until(cut: impl Future<Output = ()>, work: impl Future<Output = ()>) {
    let (mut cut, mut work) = (pin!(cut), pin!(work));
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Pending => cut.as_mut().poll(cx),
        done => done,
    })
    .await;
}

/// Runs `work` to its end, and beside it what has none.
async fn beside(endless: impl Future<Output = std::convert::Infallible>, work: impl Future<Output = ()>) {
    let endless = async {
        endless.await;
    };
    until(endless, work).await;
}

/// Runs a future in this thread, which sleeps while it waits.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
