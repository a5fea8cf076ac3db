//! The operators' endpoints: they list the open streams and the topics, and end the streams of a user or a token.

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;

use hyper::StatusCode;
use serde::{Serialize, Serializer};

use super::query;
use super::reply::{Problem, Reply, json_reply};
use super::stats::Topic;
use crate::broker::Broker;
use crate::clock::Timestamp;
use crate::fanout::{Kick, Listed, Session};

/// Streams or topics in one answer.
const PAGE_MAX: usize = 1000;
const PAGE: usize = 100;

#[derive(Serialize)]
struct Streams {
    success: bool,
    streams: Vec<Stream>,
    /// The value of `after` for the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Serialize)]
struct Stream {
    client_id: Box<str>,
    user: Option<Arc<str>>,
    token: Option<Arc<str>>,
    address: IpAddr,
    topics: Box<str>,
    #[serde(serialize_with = "moment")]
    since: Timestamp,
    #[serde(serialize_with = "maybe_moment")]
    expires: Option<Timestamp>,
}

#[derive(Serialize)]
struct Kicked {
    success: bool,
    kicked: usize,
}

#[derive(Serialize)]
struct Topics {
    success: bool,
    topics: Vec<Topic>,
}

fn moment<S: Serializer>(moment: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&moment.seconds())
}

fn maybe_moment<S: Serializer>(moment: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match moment {
        Some(moment) => serializer.collect_str(&moment.seconds()),
        None => serializer.serialize_none(),
    }
}

/// `GET /api/v1/admin/streams`: the open streams, a page at a time.
///
/// # Errors
/// Where a parameter cannot be read.
pub async fn streams(broker: &Broker, query: &str) -> Result<Reply, Problem> {
    let (mut after, mut limit) = (None, PAGE);
    for parameter in query::parameters(query) {
        match parameter.name.as_str() {
            "after" => after = Some(place(&parameter.value()?)?),
            "limit" => limit = page(&parameter.value()?)?,
            _ => {}
        }
    }
    let listed = broker.list(after, limit).await;
    let next = listed.last().filter(|_| listed.len() == limit).map(|(shard, one)| format!("{shard}.{}", one.key));
    let streams = listed.into_iter().map(|(_, Listed { key: _, session })| {
        let Session { client_id, user, token, address, topics, since, expires } = session;
        Stream { client_id, user, token, address, topics, since, expires }
    });
    Ok(json_reply(StatusCode::OK, &Streams { success: true, streams: streams.collect(), next }))
}

/// `DELETE /api/v1/admin/streams`: ends a user's, a token's, or one client's streams.
///
/// # Errors
/// Where the parameters do not name exactly one of these.
pub async fn kick(broker: &Broker, query: &str) -> Result<Reply, Problem> {
    let mut named = Vec::new();
    for parameter in query::parameters(query) {
        match parameter.name.as_str() {
            "user" => named.push(Kick::User(parameter.value()?.into())),
            "token" => named.push(Kick::Token(parameter.value()?.into())),
            "client_id" => named.push(Kick::Client(parameter.value()?.into())),
            _ => {}
        }
    }
    let [kick] = &*named else {
        return Err(Problem::Bad("expected exactly one of the parameters user, token and client_id".to_owned()));
    };
    Ok(json_reply(StatusCode::OK, &Kicked { success: true, kicked: broker.kick(kick).await }))
}

/// `GET /api/v1/admin/topics`: the busiest topics.
///
/// # Errors
/// Where a parameter cannot be read.
pub fn topics(broker: &Broker, query: &str) -> Result<Reply, Problem> {
    let mut limit = PAGE;
    for parameter in query::parameters(query) {
        if parameter.name == "limit" {
            limit = page(&parameter.value()?)?;
        }
    }
    let topics = broker.busiest(limit, Timestamp::now()).into_iter().map(|topic| Topic::of(topic, broker)).collect();
    Ok(json_reply(StatusCode::OK, &Topics { success: true, topics }))
}

fn page(text: &str) -> Result<usize, Problem> {
    let page = text.parse().ok().filter(|n| (1..=PAGE_MAX).contains(n));
    page.ok_or_else(|| wrong("limit", text, format_args!("a whole number from 1 to {PAGE_MAX}")))
}

fn place(text: &str) -> Result<(usize, u32), Problem> {
    let place = text.split_once('.').and_then(|(shard, key)| Some((shard.parse().ok()?, key.parse().ok()?)));
    place.ok_or_else(|| wrong("after", text, format_args!("what the page before gave as `next`")))
}

fn wrong(name: &str, text: &str, expected: impl Display) -> Problem {
    Problem::parameter(name, format!("{text:?}; expected {expected}"))
}
