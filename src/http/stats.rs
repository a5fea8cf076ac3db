//! `GET /api/v1/events/stats`, and the small answers around it.

use hyper::StatusCode;
use serde_json::json;

use super::reply::{Reply, json_reply};
use crate::broker::Broker;
use crate::clock::Now;

/// Figures of the moment. The Go gateway's two keys stand among them.
pub fn stats(broker: &Broker, now: Now) -> Reply {
    let held = broker.held();
    let totals = broker.totals();
    let body = json!({
        "connected_clients": broker.connected(),
        "status": if broker.is_draining() { "draining" } else { "healthy" },
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": now.unix_s().saturating_sub(broker.started().unix_s()),
        "max_clients": broker.max_streams(),
        "refused": broker.refused(),
        "events": held.newest,
        "streams": totals,
        "history": {
            "events": held.events,
            "bytes": held.bytes,
            "topics": held.topics,
            "oldest": broker.id(held.oldest).to_string(),
            "newest": broker.id(held.newest).to_string(),
        },
    });
    json_reply(StatusCode::OK, &body)
}

/// `GET /health`: the process answers.
pub fn health() -> Reply {
    let body = json!({"service": "gateway", "status": "healthy", "version": env!("CARGO_PKG_VERSION")});
    json_reply(StatusCode::OK, &body)
}

/// `GET /ready`: whether new streams should be sent here.
pub fn ready(broker: &Broker) -> Reply {
    match broker.is_draining() {
        false => json_reply(StatusCode::OK, &json!({"status": "ready"})),
        true => json_reply(StatusCode::SERVICE_UNAVAILABLE, &json!({"status": "draining"})),
    }
}
