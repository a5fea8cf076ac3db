//! `GET /api/v1/events/stats/stream`: the stats as a stream, one event a second. It is a stream as all others are, but of
//! a small broker of its own: what is told of the events must not be one of them, take numbers from their ids or
//! room in their history, nor reach who asked for `all`.

use std::io;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Sources, Stats};
use crate::broker::Broker;
use crate::clock::{Steady, Timestamp};
use crate::event::Draft;
use crate::fanout::{DrainPlan, FanoutConfig};
use crate::log::LogConfig;
use crate::sync::lock;

/// The topic and the type of its events.
const TOPIC: &str = "stats";

/// The most streams of it: some people, each with a page or two.
const STREAMS_MAX: usize = 64;

/// Events kept, one a second, for a page to begin with something to show.
const KEPT: usize = 300;

/// How long it goes on when nobody looks any more: a page that is loaded again goes on too.
const LINGER: Duration = Duration::from_secs(300);

/// The broker of stats. It starts with the first stream, and costs nothing before.
#[derive(Debug)]
pub struct Monitor {
    fanout: FanoutConfig,
    broker: OnceLock<Broker>,
    watched: std::sync::Mutex<Option<Steady>>,
}

/// An event as it would be published.
#[derive(Serialize)]
struct Publish {
    topic: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    data: Stats,
}

impl Monitor {
    /// One that treats its streams as others are treated.
    pub fn new(fanout: &FanoutConfig) -> Monitor {
        let fanout = FanoutConfig { shards: 1, max_streams: STREAMS_MAX.min(fanout.max_streams), ..fanout.clone() };
        Monitor { fanout, broker: OnceLock::new(), watched: std::sync::Mutex::new(None) }
    }

    /// The broker; it is started if it was not yet.
    ///
    /// # Errors
    /// Where the system refuses a resource that it needs.
    pub fn broker(&self) -> io::Result<&Broker> {
        if let Some(broker) = self.broker.get() {
            return Ok(broker);
        }
        let log = LogConfig { max_events: KEPT, topic_events: KEPT, live_events: 16, ..LogConfig::default() };
        let broker = Broker::start(log, &self.fanout)?;
        // Of two that are started at once, one stays unused, and stops.
        if let Err(second) = self.broker.set(broker) {
            second.drain(DrainPlan { grace: Duration::ZERO, gone_by: Instant::now() });
        }
        self.broker.get().ok_or_else(|| io::Error::other("the stats have no broker"))
    }

    /// The broker, if it was started.
    pub fn started(&self) -> Option<&Broker> {
        self.broker.get()
    }

    /// Publishes how things are, if anybody has looked lately; to be called about once a second.
    pub async fn publish(&self, sources: &Sources<'_>, now: Timestamp) {
        let Some(broker) = self.broker.get().filter(|broker| self.is_watched(broker, now.steady())) else { return };
        let topics = sources.busiest(now).await;
        let data = Stats::of(sources.figures(now).await, sources.broker, Some(topics));
        let text = serde_json::to_string(&Publish { topic: TOPIC, kind: "stats", data });
        match text.map(|text| Draft::from_json(&text, now)) {
            Ok(Ok(draft)) => {
                broker.publish(vec![draft], now);
                broker.expire(now);
            }
            wrong => tracing::error!(?wrong, "the stats are no event"),
        }
    }

    fn is_watched(&self, broker: &Broker, now: Steady) -> bool {
        let mut watched = lock(&self.watched);
        if broker.connected() > 0 {
            *watched = Some(now);
        }
        watched.is_some_and(|last| now.since(last) < LINGER)
    }
}
