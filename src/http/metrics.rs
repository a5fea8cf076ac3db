//! `GET /metrics`: all figures for Prometheus, in the OpenMetrics text format (OpenMetrics 1.0). Nothing is counted for it
//! that is not counted anyway: it reads what there is when it is asked. No label has more values than the program
//! names, or the settings: topics are those that are watched, and `other`.

use std::fmt::Error;

use hyper::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text;
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::reply::{Reply, text_reply};
use super::stats::{Figures, VERSION};
use crate::auth::token::Origin;
use crate::histogram::{BOUNDS_NS, Observed};
use crate::log::TopicFigures;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The figures of one scrape.
#[derive(Debug)]
struct Scrape {
    figures: Figures,
    watched: Vec<TopicFigures>,
}

/// The answer to a scrape; `watched` are the topics with figures of their own.
pub fn metrics(figures: Figures, watched: Vec<TopicFigures>) -> Reply {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape { figures, watched }));
    let mut page = String::with_capacity(16 << 10);
    // Writing to a string cannot fail.
    let _ = text::encode(&mut page, &registry);
    text_reply(StatusCode::OK, CONTENT_TYPE, page)
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder) -> Result<(), Error> {
        let mut page = Page(encoder);
        self.process(&mut page)?;
        self.streams(&mut page)?;
        self.events(&mut page)?;
        self.history(&mut page)?;
        self.requests(&mut page)?;
        self.tls(&mut page)?;
        self.key_set(&mut page)
    }
}

impl Scrape {
    fn process(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let Figures { usage, started, draining, log_held_back, .. } = &self.figures;
        page.family("fanfare_build", "What runs.", MetricType::Info, |metric| {
            metric.encode_info(&[("version", VERSION)])
        })?;
        page.gauge("fanfare_draining", "1 while the broker is stopping.", i64::from(*draining))?;
        let help =
            "Lines of the log held back, since their place in the program had written one within the last minute.";
        page.counters("fanfare_log_held_back", help, "level", *log_held_back)?;
        let started = started.unix_ns() as f64 / 1e9;
        page.gauge("process_start_time_seconds", "When the process started, since 1970.", started)?;
        if let Some(seconds) = usage.cpu_seconds {
            page.counter("process_cpu_seconds", "Processor time used.", seconds)?;
        }
        if let Some(bytes) = usage.memory_bytes {
            page.gauge("process_resident_memory_bytes", "Resident memory.", bytes as f64)?;
        }
        if let Some(files) = usage.open_files {
            page.gauge("process_open_fds", "Open files, sockets included.", files as f64)?;
        }
        if let Some(files) = usage.max_files {
            page.gauge("process_max_fds", "Files that may be open.", files as f64)?;
        }
        Ok(())
    }

    fn streams(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let Figures { connected, max_streams, refused, states, slowest, totals, .. } = &self.figures;
        page.gauge("fanfare_streams", "Streams connected.", *connected as f64)?;
        page.gauge("fanfare_streams_max", "Streams that there may be.", *max_streams as f64)?;
        let by_state = [
            ("live", states.live),
            ("replaying", states.replaying),
            ("stalled", states.stalled),
            ("carried", states.carried),
            ("ending", states.ending),
        ];
        let help = "Streams by state: live ones are written to as events come, replaying ones read what is kept, stalled \
                    ones wait for their sockets, carried ones are written over TLS or HTTP/2.";
        page.gauges("fanfare_streams_by_state", help, "state", by_state.map(|(state, n)| (state, n as f64)))?;
        page.counter("fanfare_streams_opened", "Streams opened.", totals.opened)?;
        let closed = totals.closed.iter().map(|(reason, n)| (*reason, *n));
        page.counters("fanfare_streams_closed", "Streams that ended, by reason.", "reason", closed)?;
        page.counter(
            "fanfare_streams_refused",
            "Streams refused because there were as many as there may be.",
            *refused,
        )?;
        let help = "How far the slowest stream is behind: events of all topics since its last.";
        page.gauge("fanfare_slowest_stream_lag_events", help, slowest.0 as f64)?;
        let help = "How far the slowest stream is behind: how long the first event after its last has waited.";
        page.gauge("fanfare_slowest_stream_lag_seconds", help, slowest.1.as_secs_f64())?;
        let help = "Times that a stream's socket took no more, so that it went on at its own pace.";
        page.counter("fanfare_stalls", help, totals.stalls)?;
        page.counter("fanfare_gaps", "Gaps told: a stream missed events that are no longer kept.", totals.gaps)?;
        let help = "Streams that resumed with an id of another history, from before a restart, and were told of a gap.";
        page.counter("fanfare_unknown_epochs", help, totals.unknown_epochs)?;
        page.counter("fanfare_heartbeats", "Heartbeats sent.", totals.heartbeats)
    }

    fn events(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let Figures { held, totals, publishes, .. } = &self.figures;
        page.counter("fanfare_events_published", "Events accepted.", held.newest)?;
        page.counter("fanfare_published_bytes", "The bytes of their frames.", held.published_bytes)?;
        let (mut events, mut bytes) = (held.newest, held.published_bytes);
        for topic in &self.watched {
            events = events.saturating_sub(topic.events_published);
            bytes = bytes.saturating_sub(topic.bytes_published);
        }
        let of_topics = |other: u64, count: fn(&TopicFigures) -> u64| {
            self.watched.iter().map(move |topic| (&*topic.topic, count(topic))).chain([("other", other)])
        };
        let help = "Events accepted, by topic, as far as topics are watched (--metrics-topics).";
        let by_topic = of_topics(events, |topic| topic.events_published);
        page.counters("fanfare_topic_events_published", help, "topic", by_topic)?;
        let help = "The bytes of their frames, by topic.";
        let by_topic = of_topics(bytes, |topic| topic.bytes_published);
        page.counters("fanfare_topic_published_bytes", help, "topic", by_topic)?;
        let help = "Streams that ask for a watched topic by its name.";
        let listeners = self.watched.iter().map(|topic| (&*topic.topic, topic.listeners as f64));
        page.gauges("fanfare_topic_listeners", help, "topic", listeners)?;
        let help = "How long publishes took that were accepted, from the request's head to its answer.";
        page.histogram("fanfare_publish_duration_seconds", help, publishes)?;
        page.counter(
            "fanfare_events_delivered",
            "Events handed to the kernel, counted for each stream.",
            totals.delivered,
        )?;
        page.counter("fanfare_delivered_bytes", "Bytes handed to the kernel for streams.", totals.bytes)?;
        let help = "Writes with at least one event: events delivered by writes is how well they coalesce.";
        page.counter("fanfare_event_writes", help, totals.writes)?;
        let help = "For each write to a live stream, how long its oldest event had waited since it was accepted.";
        page.histogram("fanfare_fanout_delay_seconds", help, &totals.waited)?;
        let help = "How long the turns of the shards' loops took: what one is written before another is looked at.";
        page.histogram("fanfare_shard_turn_seconds", help, &totals.turns)?;
        let busy = totals.busy_ns.iter().enumerate().map(|(shard, ns)| (shard.to_string(), *ns as f64 / 1e9));
        page.counters("fanfare_shard_busy_seconds", "How long each shard was busy.", "shard", busy)?;
        let help = "Times that a shard fell behind what is kept, so that its streams went on one by one.";
        page.counter("fanfare_shard_lags", help, totals.lags)
    }

    fn history(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let Figures { held, idempotency, .. } = &self.figures;
        page.gauge("fanfare_history_events", "Events kept.", held.events as f64)?;
        page.gauge("fanfare_history_bytes", "Bytes that they take.", held.bytes as f64)?;
        page.gauge("fanfare_history_topics", "Topics with events or listeners.", held.topics as f64)?;
        page.gauge("fanfare_idempotency_keys", "Publishes that would be known again.", idempotency.keys as f64)?;
        let help = "Repeated publishes that got the first one's answer.";
        page.counter("fanfare_idempotency_replayed", help, idempotency.replayed)?;
        let help = "Publishes forgotten before their time, to make room: a repeat of theirs would be done again.";
        page.counter("fanfare_idempotency_evicted", help, idempotency.evicted)
    }

    fn requests(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let Figures { limits, accepted, exhausted, exchanges, slow_heads, http2_errors, problems, .. } = &self.figures;
        page.counter("fanfare_connections_accepted", "Connections accepted.", *accepted)?;
        let help = "Times that accepting failed for want of files or memory.";
        page.counter("fanfare_accept_exhausted", help, *exhausted)?;
        page.gauge("fanfare_requests_in_progress", "Requests being answered.", *exchanges as f64)?;
        let help = "Connections closed because a request's head did not come in time.";
        page.counter("fanfare_slow_heads", help, *slow_heads)?;
        let help = "Connections of HTTP/2 that ended by an error of the protocol, floods included.";
        page.counter("fanfare_http2_errors", help, *http2_errors)?;
        let problems = problems.iter().map(|(code, n)| (*code, *n));
        page.counters("fanfare_requests_refused", "Requests refused, by the code of the answer.", "code", problems)?;
        let by_limit = [
            ("publishes_address", limits.refused_publishes_address),
            ("publishes_key", limits.refused_publishes_key),
            ("connections", limits.refused_connections),
            ("streams_address", limits.refused_streams_address),
            ("streams_user", limits.refused_streams_user),
        ];
        page.counters("fanfare_limit_hits", "What was refused because it was over a limit.", "limit", by_limit)?;
        page.gauge("fanfare_limited_addresses", "Addresses with a rate of their own.", limits.addresses as f64)?;
        let help = "Requests and connections that shared a rate with other addresses, since all places were taken.";
        page.counter("fanfare_limit_crowded", help, limits.crowded)
    }

    fn tls(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let Some(tls) = &self.figures.tls else { return Ok(()) };
        let by_result = [
            ("completed", tls.handshakes),
            ("too_slow", tls.too_slow),
            ("not_tls", tls.not_tls),
            ("rejected", tls.rejected),
            ("protocol", tls.protocol),
            ("closed", tls.closed),
        ];
        page.counters("fanfare_tls_handshakes", "TLS handshakes, by what became of them.", "result", by_result)?;
        page.counter("fanfare_tls_resumed", "Completed handshakes that resumed a session.", tls.resumed)?;
        let by_result = [("completed", tls.reloads), ("failed", tls.failed_reloads)];
        page.counters("fanfare_tls_reloads", "Reloads of the certificate.", "result", by_result)?;
        let help = "When the certificate in force expires, since 1970.";
        page.gauge("fanfare_tls_certificate_expiry_timestamp_seconds", help, tls.expires_unix_s as f64)
    }

    fn key_set(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let Some(set) = &self.figures.key_set else { return Ok(()) };
        page.gauge("fanfare_key_set_keys", "Keys that tokens are verified with (--jwks).", set.keys as f64)?;
        if let Some(age) = set.age_seconds {
            page.gauge("fanfare_key_set_age_seconds", "How long ago the key set was last read.", age as f64)?;
        }
        let sources =
            [("none", Origin::None), ("fetched", Origin::Fetched), ("cached", Origin::Cached), ("file", Origin::File)];
        let sources = sources.map(|(name, origin)| (name, f64::from(u8::from(set.source == origin))));
        page.gauges("fanfare_key_set_source", "1 for where the key set came from.", "source", sources)?;
        let by_result = [("completed", set.fetches - set.failed_fetches), ("failed", set.failed_fetches)];
        let help = "Readings of the key set; one that brings no key has failed.";
        page.counters("fanfare_key_set_fetches", help, "result", by_result)?;
        let help = "Times that the key set could not be written to its cache (--jwks-cache).";
        page.counter("fanfare_key_set_cache_failed_writes", help, set.failed_cache_writes)
    }
}

/// The text being written.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn family(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        write: impl FnOnce(&mut MetricEncoder<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        // The library puts a full stop where a help text ends.
        write(&mut self.0.encode_descriptor(name, help.trim_end_matches('.'), None, kind)?)
    }

    fn counter(&mut self, name: &str, help: &str, value: impl EncodeCounterValue) -> Result<(), Error> {
        self.family(name, help, MetricType::Counter, |metric| metric.encode_counter::<NoLabelSet, _, f64>(&value, None))
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> Result<(), Error> {
        self.family(name, help, MetricType::Gauge, |metric| metric.encode_gauge(&value))
    }

    fn counters<L: AsRef<str>, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (L, V)>,
    ) -> Result<(), Error> {
        self.family(name, help, MetricType::Counter, |metric| {
            values.into_iter().try_for_each(|(of, value)| {
                let labels = [(label, of.as_ref())];
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&value, None)
            })
        })
    }

    fn gauges<L: AsRef<str>>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (L, f64)>,
    ) -> Result<(), Error> {
        self.family(name, help, MetricType::Gauge, |metric| {
            values.into_iter().try_for_each(|(of, value)| {
                let labels = [(label, of.as_ref())];
                metric.encode_family(&labels)?.encode_gauge(&value)
            })
        })
    }

    fn histogram(&mut self, name: &str, help: &str, observed: &Observed) -> Result<(), Error> {
        let bounds = BOUNDS_NS.iter().map(|&ns| ns as f64 / 1e9).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(observed.buckets).collect();
        self.family(name, help, MetricType::Histogram, |metric| {
            metric.encode_histogram::<NoLabelSet>(observed.sum_ns as f64 / 1e9, observed.count(), &buckets, None)
        })
    }
}
