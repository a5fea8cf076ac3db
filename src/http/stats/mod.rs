//! `GET /api/v1/events/stats`, and the small answers around it.

mod figures;
mod monitor;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use serde::Serialize;

use super::idempotency;
use super::query;
use super::reply::{Problem, Reply, json_reply};
use crate::auth::token::KeySetFigures;
use crate::broker::Broker;
use crate::clock::Timestamp;
use crate::event;
use crate::fanout::{Survey, Totals};
use crate::histogram::Observed;
use crate::limit::LimitTotals;
use crate::log::TopicFigures;
use crate::tls::TlsFigures;

pub use figures::{Figures, Lately, Recent, Sources};
pub use monitor::Monitor;

pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The stats as JSON. The Go gateway's two keys come first.
#[derive(Serialize)]
struct Stats {
    connected_clients: usize,
    status: &'static str,
    version: &'static str,
    started: String,
    uptime_seconds: u64,
    max_clients: usize,
    refused: u64,
    events: u64,
    published_bytes: u64,
    memory_bytes: Option<u64>,
    streams: Totals,
    states: Survey,
    slowest: Slowest,
    rates: Rates,
    latency: Latency,
    history: History,
    idempotency: idempotency::Figures,
    limits: LimitTotals,
    connections: Connections,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<TlsFigures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_set: Option<KeySetFigures>,
    /// Requests that were refused, by the code of their answer.
    problems: BTreeMap<&'static str, u64>,
    /// The topics asked for, or the busiest; absent where the sender may not see topics.
    #[serde(skip_serializing_if = "Option::is_none")]
    topics: Option<Vec<Topic>>,
}

#[derive(Serialize)]
struct Slowest {
    events: u64,
    seconds: f64,
}

/// Rates a second, of late.
#[derive(Serialize)]
struct Rates {
    window_seconds: f64,
    published: f64,
    published_bytes: f64,
    delivered: f64,
    delivered_bytes: f64,
    opened: f64,
}

/// How long things took, lately.
#[derive(Serialize)]
struct Latency {
    /// From a publish's head to its answer.
    publish: Quantiles,
    /// From an event's acceptance to its being written to a stream.
    fanout: Quantiles,
}

#[derive(Serialize)]
struct Quantiles {
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
}

#[derive(Serialize)]
struct History {
    events: usize,
    bytes: usize,
    topics: usize,
    oldest: String,
    newest: String,
}

#[derive(Serialize)]
struct Connections {
    accepted: u64,
    refused_exhausted: u64,
    slow_heads: u64,
    http2_errors: u64,
    requests: usize,
}

/// A topic's figures.
#[derive(Debug, Serialize)]
pub(super) struct Topic {
    topic: Arc<str>,
    listeners: u64,
    joined: u64,
    left: u64,
    events_published: u64,
    bytes_published: u64,
    /// Events a second.
    rate: f64,
    /// Events kept.
    events: usize,
    oldest: Option<String>,
    newest: Option<String>,
    last_published: Option<String>,
    /// The newest that is no longer kept.
    lost: Option<String>,
}

impl Topic {
    pub(super) fn of(figures: TopicFigures, broker: &Broker) -> Topic {
        let id = |seq: u64| (seq > 0).then(|| broker.id(seq).to_string());
        Topic {
            topic: figures.topic,
            listeners: figures.listeners,
            joined: figures.joined,
            left: figures.left,
            events_published: figures.events_published,
            bytes_published: figures.bytes_published,
            rate: rounded(figures.rate),
            events: figures.events,
            oldest: id(figures.oldest),
            newest: id(figures.newest),
            last_published: figures.last_published.map(|moment| moment.nanos().to_string()),
            lost: id(figures.lost),
        }
    }
}

#[derive(Serialize)]
struct Health {
    service: &'static str,
    status: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
struct Ready {
    status: &'static str,
}

impl Stats {
    fn of(figures: Figures, broker: &Broker, topics: Option<Vec<TopicFigures>>) -> Stats {
        let Figures { now, started, held, lately, slowest, .. } = figures;
        let a_second = |n: u64| rounded(n as f64 / lately.took.as_secs_f64().max(1e-3));
        Stats {
            connected_clients: figures.connected,
            status: if figures.draining { "draining" } else { "healthy" },
            version: VERSION,
            started: started.seconds().to_string(),
            uptime_seconds: now.steady().since(started.steady()).as_secs(),
            max_clients: figures.max_streams,
            refused: figures.refused,
            events: held.newest,
            published_bytes: held.published_bytes,
            memory_bytes: figures.usage.memory_bytes,
            streams: figures.totals,
            states: figures.states,
            slowest: Slowest { events: slowest.0, seconds: rounded(slowest.1.as_secs_f64()) },
            rates: Rates {
                window_seconds: rounded(lately.took.as_secs_f64()),
                published: a_second(lately.published),
                published_bytes: a_second(lately.published_bytes),
                delivered: a_second(lately.delivered),
                delivered_bytes: a_second(lately.delivered_bytes),
                opened: a_second(lately.opened),
            },
            latency: Latency { publish: Quantiles::of(&lately.publishes), fanout: Quantiles::of(&lately.waited) },
            history: History {
                events: held.events,
                bytes: held.bytes,
                topics: held.topics,
                oldest: broker.id(held.oldest).to_string(),
                newest: broker.id(held.newest).to_string(),
            },
            idempotency: figures.idempotency,
            limits: figures.limits,
            connections: Connections {
                accepted: figures.accepted,
                refused_exhausted: figures.exhausted,
                slow_heads: figures.slow_heads,
                http2_errors: figures.http2_errors,
                requests: figures.exchanges,
            },
            tls: figures.tls,
            key_set: figures.key_set,
            problems: figures.problems,
            topics: topics.map(|topics| topics.into_iter().map(|topic| Topic::of(topic, broker)).collect()),
        }
    }
}

impl Quantiles {
    fn of(observed: &Observed) -> Quantiles {
        let ms = |share| observed.quantile(share).map(|took: Duration| rounded(took.as_secs_f64() * 1000.0));
        Quantiles { p50_ms: ms(0.5), p99_ms: ms(0.99) }
    }
}

/// To a thousandth: more is noise, and a page's every digit.
fn rounded(n: f64) -> f64 {
    (n * 1000.0).round() / 1000.0
}

/// Figures of the moment: with the topics that `query` names as `topic`, else with the busiest; but none of them, and
/// no error but where it names some, to whom `may_see_topics` refuses them.
///
/// # Errors
/// Where a parameter cannot be read, or names a topic to somebody who may not see it.
pub async fn stats(
    sources: &Sources<'_>,
    query: &str,
    may_see_topics: Result<(), Problem>,
    now: Timestamp,
) -> Result<Reply, Problem> {
    let mut named = Vec::new();
    for parameter in query::parameters(query).filter(|parameter| parameter.name == "topic") {
        let name = parameter.value()?;
        event::check_topic(&name).map_err(|why| Problem::parameter("topic", why))?;
        named.push(name);
    }
    if named.len() > figures::TOPICS_MAX {
        let why = format!("it names {} topics; expected at most {}", named.len(), figures::TOPICS_MAX);
        return Err(Problem::parameter("topic", why));
    }
    let topics = match may_see_topics {
        Ok(()) if named.is_empty() => Some(sources.busiest(now).await),
        Ok(()) => Some(named.iter().filter_map(|name| sources.broker.topic(name, now)).collect()),
        Err(problem) if !named.is_empty() => return Err(problem),
        Err(_) => None,
    };
    Ok(json_reply(StatusCode::OK, &Stats::of(sources.figures(now).await, sources.broker, topics)))
}

/// `GET /health`: the process answers.
pub fn health() -> Reply {
    json_reply(StatusCode::OK, &Health { service: "gateway", status: "healthy", version: VERSION })
}

/// `GET /ready`: whether new streams should be sent here. Not while it stops, nor where it `has_keys` for no token.
pub fn ready(broker: &Broker, has_keys: bool) -> Reply {
    match (broker.is_draining(), has_keys) {
        (false, true) => json_reply(StatusCode::OK, &Ready { status: "ready" }),
        (false, false) => json_reply(StatusCode::SERVICE_UNAVAILABLE, &Ready { status: "no_keys" }),
        (true, _) => json_reply(StatusCode::SERVICE_UNAVAILABLE, &Ready { status: "draining" }),
    }
}
