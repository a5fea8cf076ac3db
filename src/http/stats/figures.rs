//! All figures at one moment, gathered from the places that count them. The stats and the metrics choose from them.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::auth::token::KeySetFigures;
use crate::broker::Broker;
use crate::clock::Timestamp;
use crate::fanout::{Survey, Totals};
use crate::histogram::Observed;
use crate::http::counts::Counts;
use crate::http::idempotency::{self, Answers};
use crate::limit::{LimitTotals, Limits};
use crate::log::{Held, TopicFigures};
use crate::process::Usage;
use crate::sync::lock;
use crate::tls::TlsFigures;
use crate::trace::held;

/// The time over which rates and latencies are taken.
const WINDOW: Duration = Duration::from_secs(10);

/// Topics that are told of at the most.
pub(super) const TOPICS_MAX: usize = 100;

/// Where figures come from.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// The broker.
    pub broker: &'a Broker,
    /// The answers kept for repeats.
    pub answers: &'a Answers,
    /// The limits for everybody.
    pub limits: &'a Limits,
    /// The counters of connections and requests.
    pub counts: &'a Counts,
    /// The counters of TLS, where it is spoken.
    pub tls: Option<TlsFigures>,
    /// Figures of the key set for tokens, where there is one.
    pub key_set: Option<KeySetFigures>,
    /// What was counted a little earlier, and what is not counted anew for each who asks.
    pub recent: &'a Recent,
}

/// Figures of one moment.
#[derive(Debug, Clone)]
pub struct Figures {
    /// The moment.
    pub now: Timestamp,
    /// When the broker started.
    pub started: Timestamp,
    /// Whether it is stopping.
    pub draining: bool,
    /// Streams connected.
    pub connected: usize,
    /// Streams at most.
    pub max_streams: usize,
    /// Streams refused because there were as many.
    pub refused: u64,
    /// Streams by state.
    pub states: Survey,
    /// How far behind the slowest stream is: in events of all topics, and since when the first of them has waited.
    pub slowest: (u64, Duration),
    /// The counters of the shards.
    pub totals: Totals,
    /// The figures of the log.
    pub held: Held,
    /// The figures of the remembered answers.
    pub idempotency: idempotency::Figures,
    /// The counters of the limits.
    pub limits: LimitTotals,
    /// Connections accepted.
    pub accepted: u64,
    /// Times that accepting failed for want of file descriptors or memory.
    pub exhausted: u64,
    /// Requests being answered.
    pub exchanges: usize,
    /// Connections closed because a request's head did not arrive in time.
    pub slow_heads: u64,
    /// Connections of HTTP/2 that ended by an error of the protocol.
    pub http2_errors: u64,
    /// Lines of the log that were held back, by level.
    pub log_held_back: [(&'static str, u64); 3],
    /// How long publishes took.
    pub publishes: Observed,
    /// Requests refused, by the code of their answer.
    pub problems: BTreeMap<&'static str, u64>,
    /// The counters of TLS.
    pub tls: Option<TlsFigures>,
    /// Figures of the key set for tokens, where there is one.
    pub key_set: Option<KeySetFigures>,
    /// The process's use of memory, CPU and files.
    pub usage: Usage,
    /// The rates of late.
    pub lately: Lately,
}

/// The differences between two moments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lately {
    /// How long that was.
    pub took: Duration,
    /// Events accepted.
    pub published: u64,
    /// The bytes of their frames.
    pub published_bytes: u64,
    /// Events delivered, counted for each stream.
    pub delivered: u64,
    /// Bytes delivered.
    pub delivered_bytes: u64,
    /// Streams opened.
    pub opened: u64,
    /// How long publishes took.
    pub publishes: Observed,
    /// How long events waited to be written.
    pub waited: Observed,
}

/// The growing counters at one moment.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    published: u64,
    published_bytes: u64,
    delivered: u64,
    delivered_bytes: u64,
    opened: u64,
    publishes: Observed,
    waited: Observed,
}

impl Sample {
    fn since(&self, earlier: &Sample) -> Lately {
        Lately {
            took: self.at.saturating_duration_since(earlier.at),
            published: self.published.saturating_sub(earlier.published),
            published_bytes: self.published_bytes.saturating_sub(earlier.published_bytes),
            delivered: self.delivered.saturating_sub(earlier.delivered),
            delivered_bytes: self.delivered_bytes.saturating_sub(earlier.delivered_bytes),
            opened: self.opened.saturating_sub(earlier.opened),
            publishes: self.publishes - earlier.publishes,
            waited: self.waited - earlier.waited,
        }
    }
}

/// The counters a little earlier.
#[derive(Debug, Default)]
pub struct Recent {
    samples: Mutex<VecDeque<Sample>>,
    survey: Sparing<Survey>,
    busiest: Sparing<Vec<TopicFigures>>,
}

impl Recent {
    fn note(&self, sample: Sample) {
        let mut samples = lock(&self.samples);
        samples.push_back(sample);
        while samples.get(1).is_some_and(|second| sample.at.saturating_duration_since(second.at) >= WINDOW) {
            samples.pop_front();
        }
    }

    /// What happened since the sample that is a window old, or the oldest there is.
    fn lately(&self, sample: &Sample) -> Lately {
        let samples = lock(&self.samples);
        let earlier = samples.iter().rev().find(|earlier| sample.at.saturating_duration_since(earlier.at) >= WINDOW);
        sample.since(earlier.or(samples.front()).unwrap_or(sample))
    }
}

impl Sources<'_> {
    /// Notes how things are; to be called about once a second.
    pub fn note(&self) {
        self.recent.note(self.sample(&self.broker.totals(), &self.broker.held()));
    }

    fn sample(&self, totals: &Totals, held: &Held) -> Sample {
        Sample {
            at: Instant::now(),
            published: held.newest,
            published_bytes: held.published_bytes,
            delivered: totals.delivered,
            delivered_bytes: totals.bytes,
            opened: totals.opened,
            publishes: self.counts.publishes.read(),
            waited: totals.waited,
        }
    }

    /// All figures.
    pub async fn figures(&self, now: Timestamp) -> Figures {
        let (broker, counts) = (self.broker, self.counts);
        let states = self.recent.survey.get(|| broker.survey()).await;
        let (totals, held) = (broker.totals(), broker.held());
        let sample = self.sample(&totals, &held);
        Figures {
            now,
            started: broker.started(),
            draining: broker.is_draining(),
            connected: broker.connected(),
            max_streams: broker.max_streams(),
            refused: broker.refused(),
            states,
            slowest: states.slowest.map_or((0, Duration::ZERO), |cursor| broker.lag(cursor, now)),
            lately: self.recent.lately(&sample),
            totals,
            held,
            idempotency: self.answers.figures(),
            limits: self.limits.totals(),
            accepted: counts.accepted.load(Relaxed),
            exhausted: counts.exhausted.load(Relaxed),
            exchanges: counts.exchanges.load(Relaxed),
            slow_heads: counts.slow_heads.load(Relaxed),
            http2_errors: counts.http2_errors.load(Relaxed),
            log_held_back: held::figures(),
            publishes: sample.publishes,
            problems: counts.problems.all(),
            tls: self.tls,
            key_set: self.key_set,
            usage: Usage::read(),
        }
    }

    /// The busiest topics.
    pub async fn busiest(&self, now: Timestamp) -> Vec<TopicFigures> {
        self.recent.busiest.get(async || self.broker.busiest(TOPICS_MAX, now)).await
    }
}

/// Something that takes long to find out where there is much of it: told again for twenty times as long as it took, so
/// that whoever asks again and again gets no more than a twentieth of a processor to work for them.
#[derive(Debug)]
struct Sparing<T>(tokio::sync::Mutex<Option<(T, Instant)>>);

impl<T> Default for Sparing<T> {
    fn default() -> Self {
        Sparing(tokio::sync::Mutex::new(None))
    }
}

impl<T: Clone> Sparing<T> {
    async fn get<F: Future<Output = T>>(&self, find_out: impl FnOnce() -> F) -> T {
        let mut found = self.0.lock().await;
        let began = Instant::now();
        if let Some((what, _)) = found.as_ref().filter(|(_, good_until)| began < *good_until) {
            return what.clone();
        }
        let what = find_out().await;
        let ended = Instant::now();
        *found = Some((what.clone(), ended + 20 * ended.duration_since(began)));
        what
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: Instant, published: u64) -> Sample {
        Sample {
            at,
            published,
            published_bytes: 0,
            delivered: 0,
            delivered_bytes: 0,
            opened: 0,
            publishes: Observed::default(),
            waited: Observed::default(),
        }
    }

    #[test]
    fn lately_is_the_last_ten_seconds() {
        let (recent, start) = (Recent::default(), Instant::now());
        let at = |s: u64| start + Duration::from_secs(s);
        assert_eq!(recent.lately(&sample(at(0), 5)).took, Duration::ZERO, "nothing to compare with yet");
        for s in 0..100 {
            recent.note(sample(at(s), s * s));
        }
        let lately = recent.lately(&sample(at(100), 10_000));
        assert_eq!((lately.took, lately.published), (WINDOW, 10_000 - 90 * 90));
        assert!(recent.samples.lock().expect("not poisoned").len() <= 12);
    }

    #[tokio::test]
    async fn what_takes_long_is_not_found_out_anew_at_once() {
        let sparing = Sparing::default();
        let slow = || async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            1
        };
        assert_eq!(sparing.get(slow).await, 1);
        assert_eq!(sparing.get(|| async { 2 }).await, 1);
        let quick = Sparing::default();
        assert_eq!(quick.get(|| async { 1 }).await, 1);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(quick.get(|| async { 2 }).await, 2);
    }
}
