//! What one event costs before it reaches a socket: encoding, its place in the log, finding its topic, the wheel; and what
//! a request costs to be let in: its token or key, its limits, the fields for pages of other origins.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fanfare::auth::keys::{KeySources, Keys, KeysConfig};
use fanfare::auth::token::{Algorithm, ClaimsConfig, KeySource, Mode, TokenConfig, Verifier};
use fanfare::clock::Timestamp;
use fanfare::event::Draft;
use fanfare::fanout::Wheel;
use fanfare::http::cors::{Cors, Origin};
use fanfare::id::Epoch;
use fanfare::limit::{LimitConfig, Limits, Rate};
use fanfare::log::{Filter, Log, LogConfig, Viewer};
use fanfare::pattern::Pattern;
use hyper::header::{HeaderMap, HeaderValue, ORIGIN};
use jsonwebtoken::{EncodingKey, Header};
use rcgen::KeyPair;
use serde_json::json;

/// An event of about 330 bytes on the wire, as the load tests send.
const EVENT: &str = r#"{"topic":"transactions","type":"transaction.created","data":{"transaction_id":"7f9c2ba4-e88f-4b1a","amount":10000,"currency":"INR","source_wallet_id":"w-1024","status":"pending","description":"monthly rent"}}"#;

fn draft(topic: usize, now: Timestamp) -> Draft {
    let text = format!(r#"{{"topic":"topic-{topic}","type":"t","data":{{"n":{topic},"note":"{:0150}"}}}}"#, 0);
    Draft::from_json(&text, now).expect("a well-formed event")
}

fn log() -> Arc<Log> {
    log_of(LogConfig::default())
}

fn log_of(config: LogConfig) -> Arc<Log> {
    Arc::new(Log::new(config, 2, Epoch::fresh(Timestamp::now())))
}

fn encode(c: &mut Criterion) {
    let now = Timestamp::now();
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Elements(1));
    group.bench_function("330 B, JSON to frame", |b| b.iter(|| Draft::from_json(black_box(EVENT), now)));
    let large = format!(r#"{{"data":{{"text":"{:064000}"}}}}"#, 0);
    group.bench_function("64 kB, JSON to frame", |b| b.iter(|| Draft::from_json(black_box(&large), now)));
    group.finish();
}

fn append(c: &mut Criterion) {
    let now = Timestamp::now();
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
    let now = Timestamp::now();
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
    let now = Timestamp::now();
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

/// Those of one user, in a topic that 10,000 users share; those of a topic, among 100, by its name and by a pattern.
fn replay_filtered(c: &mut Criterion) {
    const USERS: usize = 10_000;
    const EVENTS: usize = 100_000;
    let now = Timestamp::now();
    let log = log_of(LogConfig { max_bytes: 256 << 20, ..LogConfig::default() });
    for n in 0..EVENTS {
        let text =
            format!(r#"{{"topic":"wallets.{}","user_id":"{}","type":"t","data":{{"n":{n}}}}}"#, n % 100, n % USERS);
        log.append(vec![Draft::from_json(&text, now).expect("a well-formed event")], now);
    }
    let filter = |viewer| Some(Filter { viewer, types: Box::default() });
    let user: Arc<str> = "4217".into();
    let cases = [
        ("one topic of 100 by its name", "wallets.17", None, EVENTS / 100),
        ("one topic of 100, one user of 100 in it", "wallets.17", filter(Viewer::Only(user.clone())), EVENTS / USERS),
        ("a pattern of 100 topics", "wallets.*", None, EVENTS),
        ("a pattern, one user of 10,000", "wallets.*", filter(Viewer::Only(user.clone())), EVENTS / USERS),
        ("a pattern, one user of 10,000 and what is public", "wallets.*", filter(Viewer::Member(user)), EVENTS / USERS),
    ];
    let head = log.head();
    let mut group = c.benchmark_group("read all of 100,000 kept events");
    for (name, topics, filter, expected) in cases {
        let listening = log.join(&[pattern(topics)], filter, 0);
        group.throughput(Throughput::Elements(expected as u64));
        let mut out = Vec::new();
        group.bench_function(name, |b| {
            b.iter(|| {
                let (mut cursor, mut found) = (0, 0);
                while cursor < head {
                    out.clear();
                    cursor = log.read(listening.interest(), cursor, head, 512, &mut out).cursor;
                    found += out.len();
                }
                assert_eq!(found, expected);
            });
        });
    }
    group.finish();
}

/// A token with the claims that a platform's own have.
fn token(algorithm: Algorithm, key: &EncodingKey, now: Timestamp) -> String {
    let claims = json!({
        "user_id": "4217",
        "email": "user4217@example.org",
        "roles": ["user"],
        "permissions": ["events:listen:wallets.*", "events:listen:transactions"],
        "exp": now.unix_ms() / 1000 + 3600,
    });
    jsonwebtoken::encode(&Header::new(algorithm), &claims, key).expect("it can be signed")
}

/// Verifies with this key as the settings would have it.
fn verifier(keys: KeySource) -> Verifier {
    let claims = ClaimsConfig {
        audience: Vec::new(),
        issuer: Vec::new(),
        leeway: Duration::from_secs(60),
        all_seeing_roles: vec!["admin".to_owned()],
    };
    let config = TokenConfig { mode: Mode::Required, keys: Some(keys), claims, cookie: None };
    Verifier::new(&config).expect("a key to verify with")
}

fn verify(c: &mut Criterion) {
    const SECRET: &str = "a secret of more than 32 bytes, as it should be";
    let now = Timestamp::now();
    let Ok(current) = SECRET.parse();
    let by_secret = verifier(KeySource::Secret { current, previous: None, algorithms: Vec::new() });

    let pair = KeyPair::generate().expect("a key for ES256");
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("bench-es256.pem");
    std::fs::write(&file, pair.public_key_pem()).expect("a file for the key");
    let by_pem = verifier(KeySource::Pem { file, algorithms: Vec::new() });

    let hs256 = token(Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()), now);
    let private = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).expect("the key's other half");
    let es256 = token(Algorithm::ES256, &private, now);
    let mut group = c.benchmark_group("verify a token");
    for (name, verifier, token) in [("HS256", &by_secret, &hs256), ("ES256", &by_pem, &es256)] {
        assert!(verifier.verify(token, now).is_ok(), "{name}");
        group.bench_function(name, |b| b.iter(|| verifier.verify(black_box(token), now)));
    }
    group.finish();
}

fn find_key(c: &mut Criterion) {
    let key = |n: usize| format!("{n:032x}");
    let list: Vec<String> = (0..100).map(|n| format!("service-{n}:{}", key(n))).collect();
    let sources = KeySources { file: None, list: Some(list.join(",")), admin: None };
    let keys = Keys::new(KeysConfig::read(sources, None).expect("well-formed keys"));
    let mut group = c.benchmark_group("find a key among 100");
    for (name, presented, is_there) in [("that is there", key(57), true), ("that is not", key(100), false)] {
        assert_eq!(keys.find(&presented).is_ok(), is_there);
        group.bench_function(name, |b| b.iter(|| keys.find(black_box(&presented)).is_ok()));
    }
    group.finish();
}

fn limit_publish(c: &mut Criterion) {
    let start = Timestamp::now().unix_ms();
    // Half of the rate is used: what is measured is the way through.
    let rate = Rate::new(1_000_000, 10_000);
    let limits = |publishes| {
        Limits::new(LimitConfig {
            publishes,
            connections: None,
            streams_per_address: None,
            streams_per_user: None,
            loopback: false,
        })
    };
    let far = |n: u32| IpAddr::V4(Ipv4Addr::from(0xc633_6400 + n));
    let mut group = c.benchmark_group("limit a publish");
    let cases = [
        ("off", limits(None), 1, far(0)),
        ("a loopback address", limits(rate), 1, Ipv4Addr::LOCALHOST.into()),
        ("one address", limits(rate), 1, far(0)),
        ("10,000 addresses in turn", limits(rate), 10_000, far(0)),
    ];
    for (name, limits, addresses, first) in cases {
        let mut n = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                n += 1;
                let client = if addresses == 1 { first } else { far(n as u32 % addresses) };
                limits
                    .publish(black_box(client), None, Timestamp::from_unix_ms(start + n / 500))
                    .expect("within the rate")
            });
        });
    }
    group.finish();
}

fn cors_fields(c: &mut Criterion) {
    let origin = |text: &str| text.parse::<Origin>().expect("an origin");
    let listed: Vec<Origin> = (0..10).map(|n| origin(&format!("https://app{n}.example"))).collect();
    let listed = Cors::new(&listed).expect("exact ones");
    let from_page = HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static("https://app9.example"))]);
    let mut group = c.benchmark_group("CORS fields of an answer");
    for (name, cors, headers) in [
        ("off", &Cors::SameOrigin, &from_page),
        ("10 origins, a service asks", &listed, &HeaderMap::new()),
        ("10 origins, the last one's page asks", &listed, &from_page),
    ] {
        group.bench_function(name, |b| b.iter(|| cors.fields(black_box(headers))));
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

criterion_group!(events, encode, append, look_up, replay, replay_filtered, wheel);
criterion_group!(admission, verify, find_key, limit_publish, cors_fields);
criterion_main!(events, admission);
