//! `GET /api/v1/events/stats`, and the small answers around it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use hyper::StatusCode;
use serde::Serialize;

use super::access::Access;
use super::idempotency::{self, Answers};
use super::reply::{Reply, json_reply};
use crate::broker::Broker;
use crate::clock::Now;
use crate::fanout::Totals;
use crate::limit::LimitTotals;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What is told of the broker. The Go gateway's two keys come first.
#[derive(Serialize)]
struct Stats {
    connected_clients: usize,
    status: &'static str,
    version: &'static str,
    uptime_seconds: u64,
    max_clients: usize,
    refused: u64,
    events: u64,
    streams: Totals,
    history: History,
    idempotency: idempotency::Figures,
    limits: LimitTotals,
    /// Requests that were refused, by the code of their answer.
    problems: BTreeMap<&'static str, u64>,
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
struct Health {
    service: &'static str,
    status: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
struct Ready {
    status: &'static str,
}

/// How many requests were refused, by the code of their answer.
#[derive(Debug, Default)]
pub struct Problems(Mutex<BTreeMap<&'static str, u64>>);

impl Problems {
    /// One more of this code.
    pub fn count(&self, code: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1;
    }

    fn all(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Figures of the moment.
pub fn stats(broker: &Broker, answers: &Answers, access: &Access, problems: &Problems, now: Now) -> Reply {
    let held = broker.held();
    let stats = Stats {
        connected_clients: broker.connected(),
        status: if broker.is_draining() { "draining" } else { "healthy" },
        version: VERSION,
        uptime_seconds: now.unix_s().saturating_sub(broker.started().unix_s()),
        max_clients: broker.max_streams(),
        refused: broker.refused(),
        events: held.newest,
        streams: broker.totals(),
        history: History {
            events: held.events,
            bytes: held.bytes,
            topics: held.topics,
            oldest: broker.id(held.oldest).to_string(),
            newest: broker.id(held.newest).to_string(),
        },
        idempotency: answers.figures(),
        limits: access.limits().totals(),
        problems: problems.all(),
    };
    json_reply(StatusCode::OK, &stats)
}

/// `GET /health`: the process answers.
pub fn health() -> Reply {
    json_reply(StatusCode::OK, &Health { service: "gateway", status: "healthy", version: VERSION })
}

/// `GET /ready`: whether new streams should be sent here.
pub fn ready(broker: &Broker) -> Reply {
    match broker.is_draining() {
        false => json_reply(StatusCode::OK, &Ready { status: "ready" }),
        true => json_reply(StatusCode::SERVICE_UNAVAILABLE, &Ready { status: "draining" }),
    }
}
