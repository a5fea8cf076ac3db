//! What is told of how things are: `/api/v1/events/stats` in full, the same as a stream, and `/metrics`.

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::{Server, Stream, fanfare, wait_for, wait_until};
use serde_json::{Value, json};

const STATS: &str = "/api/v1/events/stats";
const STATS_STREAM: &str = "/api/v1/events/stats/stream";

/// A stream from any path.
fn stream_from(server: &Server, target: &str, lines: &str) -> Stream {
    let mut conn = server.connect();
    conn.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n{lines}\r\n").as_bytes());
    let mut stream = Stream::over(conn);
    stream.expect("connected");
    stream
}

/// The samples of a scrape, by name and labels; checks the text as far as OpenMetrics 1.0 (sections 3 and 4) says.
fn scrape(server: &Server) -> BTreeMap<String, f64> {
    let answer = server.get("/metrics");
    assert_eq!(answer.status, 200, "{answer:?}");
    let content_type = answer.field("content-type").expect("it has one");
    assert_eq!(content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = answer.text();
    let text = text.strip_suffix("# EOF\n").expect("it ends as it must");
    let (mut samples, mut family, mut seen) = (BTreeMap::new(), String::new(), BTreeMap::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().expect("a name").to_owned();
            assert_eq!(seen.insert(family.clone(), ()), None, "{family} comes twice");
            assert!(!help.ends_with('.') && help.len() > family.len() + 5, "{help}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a name and a type");
            assert_eq!(name, family);
            assert!(["counter", "gauge", "histogram", "info"].contains(&kind), "{line}");
            let _ = seen.insert(family.clone(), ());
        } else {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            assert!(name.starts_with(&family), "{line} is not of {family}");
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
            assert!(value.is_finite() && value >= 0.0, "{line}");
            assert_eq!(samples.insert(name.to_owned(), value), None, "{name} comes twice");
        }
    }
    samples
}

#[test]
fn the_stats_tell_what_happened() {
    let server = Server::start(&[]);
    let (mut one, mut all) = (server.stream("topics=wallets"), server.stream(""));
    wait_until("both to be live", || server.stat("/states/live") == 2);
    for n in 0..20 {
        server.publish("wallets", "tick", &format!("{{\"n\":{n}}}"));
    }
    server.publish("risk", "tick", "{}");
    one.numbers(20);
    (0..21).for_each(|_| drop(all.expect("tick")));
    let stats = server.stats();
    assert_eq!((&stats["connected_clients"], &stats["status"]), (&json!(2), &json!("healthy")), "the seed's two keys");
    assert_eq!((&stats["events"], &stats["streams"]["delivered"]), (&json!(21), &json!(41)));
    assert_eq!(stats["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(stats["states"], json!({"live":2,"replaying":0,"stalled":0,"carried":0,"ending":0}));
    assert_eq!(stats["slowest"], json!({"events":0,"seconds":0.0}));
    assert!(stats["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{stats}");
    let rates = &stats["rates"];
    let seconds = rates["window_seconds"].as_f64().expect("a number");
    assert!(seconds > 0.0 && seconds < 60.0, "{rates}");
    let published = rates["published"].as_f64().expect("a number") * seconds;
    // The window is told to a thousandth of a second.
    assert!((published - 21.0).abs() < 21.0 * 0.001 / seconds, "{published}: {rates}");
    for of in ["publish", "fanout"] {
        let [half, most] = ["p50_ms", "p99_ms"].map(|share| stats["latency"][of][share].as_f64().expect("a number"));
        assert!(half > 0.0 && half <= most && most < 30_000.0, "{stats}");
    }
    let topics = stats["topics"].as_array().expect("a list");
    assert_eq!(topics.len(), 2);
    let wallets = &topics[0];
    assert_eq!((&wallets["topic"], &wallets["listeners"]), (&json!("wallets"), &json!(1)), "the busiest first");
    assert_eq!((&wallets["events_published"], &wallets["events"]), (&json!(20), &json!(20)));
    assert_eq!((&wallets["newest"], &topics[1]["newest"]), (&json!(one.last_event_id()), &json!(all.last_event_id())));
    let oldest = one.last_event_id().replace("-20", "-1");
    assert_eq!((&wallets["oldest"], &stats["history"]["oldest"]), (&json!(oldest), &json!(oldest)));
    let bytes: u64 = topics.iter().filter_map(|topic| topic["bytes_published"].as_u64()).sum();
    assert_eq!(stats["published_bytes"], json!(bytes));
    let rate = wallets["rate"].as_f64().expect("a number");
    assert!(rate > 0.0 && rate <= 2.0, "20 events in at most ten seconds of twenty: {rate}");
}

#[test]
fn topics_can_be_asked_for() {
    let server = Server::start(&[]);
    for n in 0..150 {
        server.publish(&format!("t{n}"), "tick", "{}");
    }
    server.publish("t3", "tick", "{}");
    let names = |query: &str| {
        let stats = server.get(&format!("{STATS}{query}")).json();
        let topics = stats["topics"].as_array().expect("a list").clone();
        topics.into_iter().map(|topic| topic["topic"].as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("?topic=t7&topic=t140&topic=none"), ["t7", "t140"]);
    let busiest = names("");
    assert_eq!((busiest.len(), &*busiest[0]), (100, "t3"));
    for (query, why) in [
        ("?topic=", "topic has 0 bytes; expected 1 to 128"),
        ("?topic=a%2Cb", "a comma"),
        ("?topic=%FF", "topic"),
        (&format!("?{}", "topic=a&".repeat(101)), "it names 101 topics; expected at most 100"),
    ] {
        let answer = server.get(&format!("{STATS}{query}"));
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
        assert!(answer.text().contains(why), "{query}: {}", answer.text());
    }
}

#[test]
fn where_there_are_operators_only_they_see_topics() {
    let mut command = fanfare();
    command
        .args(["--listen", "127.0.0.1:0"])
        .env("FANFARE_ADMIN_KEY", "this-is-the-operator")
        .env("FANFARE_KEYS", "a:not-the-operator");
    let server = Server::spawn(command);
    let ask = |target: &str, key: &str| server.ask(&format!("GET {target} HTTP/1.1\r\nHost: test\r\n{key}\r\n"));
    let operator = "X-API-Key: this-is-the-operator\r\n";
    assert!(ask(STATS, "").json().get("topics").is_none(), "figures are for everybody, names are not");
    assert!(ask(STATS, operator).json()["topics"].is_array());
    for (target, key, status) in [
        (format!("{STATS}?topic=a"), "", 401),
        (format!("{STATS}?topic=a"), "X-API-Key: not-the-operator\r\n", 403),
        (format!("{STATS}?topic=a"), operator, 200),
        (STATS_STREAM.to_owned(), "", 401),
        (STATS_STREAM.to_owned(), "X-API-Key: wrong\r\n", 401),
        ("/metrics".to_owned(), "", 200),
    ] {
        assert_eq!(ask(&target, key).status, status, "{target} {key:?}");
    }
    let mut stats = stream_from(&server, STATS_STREAM, operator);
    assert!(stats.expect("stats").json()["data"]["topics"].is_array());
}

#[test]
fn the_stats_come_as_a_stream_that_disturbs_no_other() {
    let server = Server::start(&[]);
    let mut all = server.stream("");
    let first = server.publish("a", "tick", "{\"n\":0}");
    let mut stats = stream_from(&server, &format!("{STATS_STREAM}?last=120"), "");
    let told: Vec<Value> = (0..3).map(|_| stats.expect("stats").json()).collect();
    for told in &told {
        assert_eq!((&told["type"], &told["topic"]), (&json!("stats"), &json!("stats")));
        assert_eq!((&told["data"]["events"], &told["data"]["connected_clients"]), (&json!(1), &json!(1)));
        assert_eq!(told["data"]["topics"][0]["topic"], "a");
    }
    let second = server.publish("a", "tick", "{\"n\":1}");
    assert_eq!(all.numbers(2), [0, 1]);
    assert_eq!((&*first.replace("-1", "-2"), all.last_event_id()), (&*second, &*second), "ids count on by one");
    assert_eq!(server.stats()["connected_clients"], 1, "who looks at the stats is none of them");
    // It resumes as any stream does, and another that comes later begins with what was told before.
    let id = stats.last_event_id().to_owned();
    drop(stats);
    let mut again = stream_from(&server, STATS_STREAM, &format!("Last-Event-ID: {id}\r\n"));
    assert_eq!(again.expect("stats").seq(), common::parts(&id).1 + 1);
    let mut late = stream_from(&server, &format!("{STATS_STREAM}?last=120"), "");
    assert_eq!(late.expect("stats").seq(), 1);
    let head = server.ask(&format!("HEAD {STATS_STREAM} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"));
    assert_eq!((head.status, head.field("content-type").as_deref()), (200, Some("text/event-stream")));
}

#[test]
fn a_drain_ends_the_stream_of_stats_too() {
    let mut server = Server::start(&["--grace", "1s"]);
    let mut stats = stream_from(&server, STATS_STREAM, "");
    stats.expect("stats");
    server.signal("TERM");
    let (_, end) = stats.read_to_end();
    assert_eq!(end, common::End::Clean);
    assert!(server.wait_for_exit(Duration::from_secs(10)).success());
}

#[test]
fn a_scrape_has_all_figures() {
    let server = Server::start(&["--metrics-topics", "wallets,never", "--max-streams", "2"]);
    let before = scrape(&server);
    let (mut one, _all) = (server.stream("topics=wallets"), server.stream(""));
    wait_until("both to be live", || server.stat("/states/live") == 2);
    for n in 0..10 {
        server.publish("wallets", "tick", &format!("{{\"n\":{n}}}"));
        server.publish(r#"x\"y\\z"#, "tick", "{}");
    }
    one.numbers(10);
    assert_eq!(server.get("/api/v1/events").status, 503);
    assert_eq!(server.post_json("{").status, 400);
    let now = wait_for("all to be delivered", || {
        let now = scrape(&server);
        (now["fanfare_events_delivered_total"] == 30.0).then_some(now)
    });
    for (name, value) in [
        ("fanfare_streams", 2.0),
        ("fanfare_streams_max", 2.0),
        ("fanfare_streams_by_state{state=\"live\"}", 2.0),
        ("fanfare_streams_opened_total", 2.0),
        ("fanfare_streams_refused_total", 1.0),
        ("fanfare_streams_closed_total{reason=\"stalled\"}", 0.0),
        ("fanfare_events_published_total", 20.0),
        ("fanfare_topic_events_published_total{topic=\"wallets\"}", 10.0),
        ("fanfare_topic_events_published_total{topic=\"never\"}", 0.0),
        ("fanfare_topic_events_published_total{topic=\"other\"}", 10.0),
        ("fanfare_topic_listeners{topic=\"wallets\"}", 1.0),
        ("fanfare_publish_duration_seconds_count", 20.0),
        ("fanfare_publish_duration_seconds_bucket{le=\"+Inf\"}", 20.0),
        ("fanfare_fanout_delay_seconds_bucket{le=\"+Inf\"}", now["fanfare_event_writes_total"]),
        ("fanfare_history_events", 20.0),
        ("fanfare_requests_refused_total{code=\"bad_request\"}", 1.0),
        ("fanfare_limit_hits_total{limit=\"connections\"}", 0.0),
        ("fanfare_slowest_stream_lag_events", 0.0),
        ("fanfare_gaps_total", 0.0),
        ("fanfare_draining", 0.0),
    ] {
        assert_eq!(now.get(name), Some(&value), "{name}");
    }
    for (name, value) in &before {
        let grows = name.split('{').next().is_some_and(|name| name.ends_with("_total") || name.ends_with("_count"));
        assert!(!grows || now[name] >= *value, "{name} fell from {value}");
    }
    for name in ["process_resident_memory_bytes", "process_max_fds", "fanfare_shard_busy_seconds_total{shard=\"0\"}"] {
        assert!(now[name] > 0.0, "{name}");
    }
}

#[test]
fn labels_do_not_grow_with_what_is_published() {
    let server = Server::start(&[]);
    let names = |server: &Server| scrape(server).into_keys().collect::<Vec<_>>();
    let before = names(&server);
    for n in 0..300 {
        server.publish(&format!("topic {n}"), &format!("type {n}"), "{}");
    }
    assert_eq!(names(&server), before);
    let mut command = fanfare();
    let over = (0..101).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let refused = command.args(["--metrics-topics", &over]).output().expect("it runs");
    assert_eq!(refused.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("names 101 topics; expected at most 100"));
}

#[test]
fn metrics_can_be_switched_off() {
    let server = Server::start(&["--metrics", "false"]);
    for method in ["GET", "POST", "OPTIONS"] {
        let answer = server.ask(&format!("{method} /metrics HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(answer.status, 404, "{method}");
    }
}

#[test]
fn a_stalled_stream_is_told_of() {
    let server = Server::start(&["--send-buffer", "16KiB"]);
    let stalled = server.stream("topics=a");
    let big = format!("{{\"a\":\"{}\"}}", "x".repeat(50_000));
    let mut publisher = server.publisher();
    // More than the kernel takes for it, however it sizes its buffers.
    for _ in 0..200 {
        publisher.publish("a", "tick", &big);
    }
    wait_until("it to stall", || server.stat("/states/stalled") == 1);
    publisher.publish("b", "tick", "{}");
    let began = Instant::now();
    wait_until("its lag to be a second", || {
        let lag = scrape(&server)["fanfare_slowest_stream_lag_seconds"];
        assert!(lag < began.elapsed().as_secs_f64() + 60.0);
        lag > 1.0
    });
    assert!(server.stat("/slowest/events") >= 2, "{}", server.stats());
    drop(stalled);
    wait_until("nobody to be behind", || server.stat("/slowest/events") == 0);
}
