//! What one event costs before it reaches a socket: encoding, its place in the log, finding its topic, the wheel.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fanfare::clock::Now;
use fanfare::event::Draft;
use fanfare::fanout::Wheel;
use fanfare::id::Epoch;
use fanfare::log::{Log, LogConfig};
use fanfare::pattern::Pattern;

/// An event of about 330 bytes on the wire, as the load tests send.
const EVENT: &str = r#"{"topic":"transactions","type":"transaction.created","data":{"transaction_id":"7f9c2ba4-e88f-4b1a","amount":10000,"currency":"INR","source_wallet_id":"w-1024","status":"pending","description":"monthly rent"}}"#;

fn draft(topic: usize, now: Now) -> Draft {
    let text = format!(r#"{{"topic":"topic-{topic}","type":"t","data":{{"n":{topic},"note":"{:0150}"}}}}"#, 0);
    Draft::from_json(&text, now).expect("a well-formed event")
}

fn log() -> Arc<Log> {
    Arc::new(Log::new(LogConfig::default(), 2, Epoch::fresh(Now::read())))
}

fn encode(c: &mut Criterion) {
    let now = Now::read();
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Elements(1));
    group.bench_function("330 B, JSON to frame", |b| b.iter(|| Draft::from_json(black_box(EVENT), now)));
    let large = format!(r#"{{"data":{{"text":"{:064000}"}}}}"#, 0);
    group.bench_function("64 kB, JSON to frame", |b| b.iter(|| Draft::from_json(black_box(&large), now)));
    group.finish();
}

fn append(c: &mut Criterion) {
    let now = Now::read();
    let mut group = c.benchmark_group("append");
    group.throughput(Throughput::Elements(1));
    // The log is filled first: an append into a full log also evicts.
    for topics in [1, 1_000, 100_000] {
        let log = log();
        for n in 0..200_000 {
            log.append(vec![draft(n % topics, now)], now);
        }
        let mut n = 0;
        group.bench_function(BenchmarkId::new("one event, full log, topics", topics), |b| {
            b.iter_batched(
                || {
                    n += 1;
                    vec![draft(n % topics, now)]
                },
                |drafts| log.append(drafts, now),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).expect("a pattern")
}

fn look_up(c: &mut Criterion) {
    let now = Now::read();
    let mut group = c.benchmark_group("index");
    for topics in [1, 1_000, 100_000] {
        let log = log();
        let names: Vec<_> = (0..topics).map(|n| [pattern(&format!("topic-{n}"))]).collect();
        for n in 0..topics {
            log.append(vec![draft(n, now)], now);
        }
        let mut n = 0;
        group.bench_function(BenchmarkId::new("join and leave, topics", topics), |b| {
            b.iter(|| {
                n += 1;
                log.join(&names[n % topics], None, 0)
            });
        });
    }
    group.finish();
}

fn replay(c: &mut Criterion) {
    let now = Now::read();
    let log = log();
    for n in 0..100_000 {
        log.append(vec![draft(n % 100, now)], now);
    }
    let one = log.join(&[pattern("topic-7")], None, 0);
    let ten: Vec<_> = (0..10).map(|n| pattern(&format!("topic-{n}"))).collect();
    let ten = log.join(&ten, None, 0);
    let all = log.join(&[Pattern::All], None, 0);
    let head = log.head();
    let mut group = c.benchmark_group("read 100 missed events");
    group.throughput(Throughput::Elements(100));
    for (name, listening, missed) in [("one topic", &one, 10_000), ("ten topics", &ten, 1_000), ("all", &all, 100)] {
        let mut out = Vec::new();
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                log.read(listening.interest(), head - missed, head, 512, &mut out);
                assert_eq!(out.len(), 100);
            });
        });
    }
    group.finish();
}

fn wheel(c: &mut Criterion) {
    const STREAMS: u32 = 18_000;
    let mut group = c.benchmark_group("wheel");
    group.throughput(Throughput::Elements(u64::from(STREAMS)));
    // 64 ticks are one heartbeat interval: each stream is called and scheduled anew once.
    group.bench_function("18,000 streams through one interval", |b| {
        let mut wheel = Wheel::new(256, 0);
        (0..STREAMS).for_each(|id| wheel.schedule(id, u64::from(id % 64)));
        let (mut tick, mut due) = (0, Vec::new());
        b.iter(|| {
            for _ in 0..64 {
                tick += 1;
                wheel.advance(tick, &mut due);
                due.drain(..).for_each(|id| wheel.schedule(id, tick + 64));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, encode, append, look_up, replay, wheel);
criterion_main!(benches);
