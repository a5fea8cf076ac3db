//! The settings of a publisher, and its start.

use std::env;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::encode::Stamp;
use super::handle::Publisher;
use super::queue::{Bounds, Queue};
use super::report::{OnReport, Report, Reporter};
use super::sender::{Manner, Sender};
use super::thread;
use crate::client::Client;
use crate::name::Invalid;

/// The broker's address in the platform, unless `GATEWAY_URL` is set.
const GATEWAY: &str = "http://gateway:8000";

/// Why a publisher could not be built: the text names the wrong setting and what was expected.
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

    /// The broker's address; `http://gateway:8000` by default. `https` needs the feature of that name.
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

    /// Whether `service` and `published_at` (when the event was published, in RFC 3339, UTC) are added to an event's
    /// data if it does not have them; they are by default. Otherwise data is passed on to the letter.
    #[must_use]
    pub fn stamp(mut self, is_stamped: bool) -> Builder {
        self.is_stamped = is_stamped;
        self
    }

    /// The most events that are queued, including those that are being sent; 10,000 by default.
    #[must_use]
    pub fn queue_events(mut self, events: usize) -> Builder {
        self.bounds.events = events;
        self
    }

    /// The most bytes that are queued, counted as they are sent; 16 MiB by default. In addition the queue needs about
    /// 0.3 kB of memory per event, and a request as much again as its body.
    #[must_use]
    pub fn queue_bytes(mut self, bytes: usize) -> Builder {
        self.bounds.bytes = bytes;
        self
    }

    /// The most events in one request; 500 by default. The broker accepts at most its `--max-batch`.
    #[must_use]
    pub fn max_batch(mut self, events: usize) -> Builder {
        self.bounds.batch = events;
        self
    }

    /// The largest body of one request, in bytes; 1 MiB by default, as the broker's `--max-body`.
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

    /// How long the publisher tries to send an event; 5 minutes by default. If this is longer than the broker's
    /// `--idempotency-window` (10 minutes), a repeated request may be published twice.
    #[must_use]
    pub fn give_up_after(mut self, age: Duration) -> Builder {
        self.bounds.age = age;
        self
    }

    /// A callback for reports of dropped events, which replaces the warning in the log. It is called at once, and then
    /// at most every ten seconds, by the publisher's thread, which sends nothing meanwhile. A panic in it closes the
    /// publisher.
    #[must_use]
    pub fn on_report(mut self, report: impl Fn(&Report) + Send + Sync + 'static) -> Builder {
        self.on_report = Some(OnReport(Arc::new(report)));
        self
    }

    /// Starts the publisher and its thread. It does not connect before there is something to send.
    ///
    /// # Errors
    /// If a setting is wrong, or the system has no thread.
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
        thread::start(sender, reporter).map_err(|error| BuildError(format!("no thread to send with: {error}")))?;
        Ok(Publisher::new(queue, stamp))
    }
}

impl Publisher {
    /// A publisher for this service to the broker at `GATEWAY_URL` (by default `http://gateway:8000`), with the API key
    /// in `FANFARE_KEY`, if there is one.
    ///
    /// # Errors
    /// If one of them is wrong.
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
}

/// An environment variable; `None` if it is absent or empty.
fn variable(name: &str) -> Result<Option<String>, BuildError> {
    match env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(BuildError(format!("{name} is not text; expected UTF-8"))),
    }
}
