//! What the view shows: the last stats, and how some of them were over the last minutes.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Deserialize;

use crate::cli::follow::News;

/// Seconds of the past that are kept.
const KEPT: usize = 600;

/// The stats, as far as they are shown. What a broker does not tell is zero.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Stats {
    pub(super) connected_clients: u64,
    pub(super) status: String,
    pub(super) version: String,
    pub(super) started: String,
    pub(super) uptime_seconds: u64,
    pub(super) max_clients: u64,
    pub(super) refused: u64,
    pub(super) events: u64,
    pub(super) published_bytes: u64,
    pub(super) memory_bytes: Option<u64>,
    pub(super) streams: Streams,
    pub(super) states: States,
    pub(super) slowest: Slowest,
    pub(super) rates: Rates,
    pub(super) latency: Latency,
    pub(super) history: History,
    pub(super) key_set: Option<KeySet>,
    pub(super) problems: BTreeMap<String, u64>,
    pub(super) topics: Vec<Topic>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Streams {
    pub(super) opened: u64,
    pub(super) delivered: u64,
    pub(super) bytes: u64,
    pub(super) stalls: u64,
    pub(super) gaps: u64,
    pub(super) closed: BTreeMap<String, u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct States {
    pub(super) live: u64,
    pub(super) replaying: u64,
    pub(super) stalled: u64,
    pub(super) carried: u64,
    pub(super) ending: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Slowest {
    pub(super) events: u64,
    pub(super) seconds: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Rates {
    pub(super) published: f64,
    pub(super) published_bytes: f64,
    pub(super) delivered: f64,
    pub(super) delivered_bytes: f64,
    pub(super) opened: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Latency {
    pub(super) publish: Quantiles,
    pub(super) fanout: Quantiles,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Quantiles {
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct History {
    pub(super) events: u64,
    pub(super) bytes: u64,
    pub(super) topics: u64,
    pub(super) oldest: String,
    pub(super) newest: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct KeySet {
    pub(super) keys: u64,
    pub(super) source: String,
    pub(super) age_seconds: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Topic {
    pub(super) topic: String,
    pub(super) listeners: u64,
    pub(super) rate: f64,
    pub(super) events_published: u64,
    pub(super) bytes_published: u64,
    pub(super) events: u64,
    pub(super) last_published: Option<Timestamp>,
}

/// What is known of a broker.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) url: String,
    pub(super) stats: Option<Stats>,
    /// When they were.
    pub(super) at: Option<Timestamp>,
    /// Events a second that came in, the newest last.
    pub(super) published: Series,
    /// Events a second that went out.
    pub(super) delivered: Series,
    pub(super) link: Link,
}

/// How it stands between the broker and the view.
#[derive(Debug)]
pub(super) enum Link {
    Up,
    /// It is asked again at that moment.
    Cut {
        why: String,
        until: Instant,
    },
    /// What comes cannot be read.
    Strange(String),
}

/// Numbers of the last minutes, one a second.
#[derive(Debug, Default)]
pub(super) struct Series(VecDeque<u64>);

impl Series {
    fn push(&mut self, value: u64) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }

    /// The newest `count`, the oldest of them first, with zeros before the first that is known.
    pub(super) fn last(&self, count: usize) -> Vec<u64> {
        let known = self.0.iter().skip(self.0.len().saturating_sub(count));
        std::iter::repeat_n(&0, count.saturating_sub(self.0.len())).chain(known).copied().collect()
    }

    /// The largest.
    pub(super) fn most(&self) -> u64 {
        self.0.iter().copied().max().unwrap_or(0)
    }
}

#[derive(Debug, Deserialize)]
struct Envelope {
    timestamp: Timestamp,
    data: Stats,
}

impl Model {
    pub(super) fn new(url: &str) -> Model {
        let (published, delivered) = (Series::default(), Series::default());
        Model { url: url.to_owned(), stats: None, at: None, published, delivered, link: Link::Up }
    }

    /// Takes what has happened to the stream of stats.
    pub(super) fn take(&mut self, news: News, now: Instant) {
        match news {
            News::Opened { .. } => self.link = Link::Up,
            News::Cut { why, wait } => self.link = Link::Cut { why, until: now + wait },
            News::Event(event) if event.kind == "stats" => match serde_json::from_str(&event.data) {
                Ok(Envelope { timestamp, data }) => self.update(timestamp, data),
                Err(error) => self.link = Link::Strange(error.to_string()),
            },
            News::Event(_) => {}
        }
    }

    fn update(&mut self, at: Timestamp, stats: Stats) {
        self.link = Link::Up;
        if let (Some(before), Some(then)) = (&self.stats, self.at) {
            if before.started == stats.started {
                let took = Duration::try_from(at.duration_since(then)).unwrap_or_default().as_secs_f64().max(0.001);
                let rate = |now: u64, before: u64| (now.saturating_sub(before) as f64 / took).round() as u64;
                self.published.push(rate(stats.events, before.events));
                self.delivered.push(rate(stats.streams.delivered, before.streams.delivered));
            } else {
                (self.published, self.delivered) = (Series::default(), Series::default());
            }
        }
        (self.stats, self.at) = (Some(stats), Some(at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::Event;

    fn stats(second: u64, started: &str, events: u64, delivered: u64) -> News {
        let data = format!(
            r#"{{"type":"stats","data":{{"started":"{started}","events":{events},"streams":{{"delivered":{delivered}}}}},
                "timestamp":"2026-11-24T12:00:{second:02}Z","topic":"stats"}}"#
        );
        News::Event(Event { kind: "stats".to_owned(), data, id: None })
    }

    #[test]
    fn rates_are_what_changed_in_the_time_that_passed() {
        let (mut model, now) = (Model::new("http://t"), Instant::now());
        for (second, events, delivered) in [(1, 100, 5), (2, 110, 5), (4, 130, 1005), (5, 130, 1005)] {
            model.take(stats(second, "a", events, delivered), now);
        }
        assert_eq!(model.published.last(4), [0, 10, 10, 0]);
        assert_eq!(model.delivered.last(2), [500, 0]);
        assert_eq!((model.published.most(), model.delivered.most()), (10, 500));
        model.take(stats(9, "b", 3, 3), now);
        assert_eq!((model.published.last(2), model.published.most()), (vec![0, 0], 0), "another broker's");
        model.take(stats(10, "b", 4, 3), now);
        assert_eq!(model.published.last(1), [1]);
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let (mut model, now) = (Model::new("http://t"), Instant::now());
        model.take(News::Event(Event { kind: "stats".to_owned(), data: "{}".to_owned(), id: None }), now);
        assert!(matches!(&model.link, Link::Strange(why) if why.contains("timestamp")), "{model:?}");
        model.take(News::Cut { why: "x".to_owned(), wait: Duration::from_secs(1) }, now);
        assert!(matches!(model.link, Link::Cut { .. }));
        model.take(News::Opened { ignored: None }, now);
        assert!(matches!(model.link, Link::Up));
    }

    #[test]
    fn the_past_is_bounded() {
        let mut series = Series::default();
        (0..10_000).for_each(|n| series.push(n));
        assert_eq!((series.0.len(), series.last(2)), (KEPT, vec![9998, 9999]));
    }
}
