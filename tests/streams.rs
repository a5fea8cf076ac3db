//! The behaviour of a stream, whatever carries it: each test runs over HTTP/1.1 and HTTP/2, in plaintext and within TLS.
//! What only one transport has (flow control, chunks, certificates) is in the file of that transport.

mod common;
#[path = "common/http2.rs"]
mod http2;
#[path = "common/places.rs"]
mod places;
#[path = "common/tls.rs"]
mod tls;
#[path = "common/transport.rs"]
mod transport;

use common::{PATIENCE, Random, Server, SseEvent, fanfare, numbered, parts, wait_until};
use jsonwebtoken::{EncodingKey, Header};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use transport::{Open, Transport};

/// Runs each of these functions over each transport, as a test of its own: `http2_tls::limit_ends_a_stream`.
macro_rules! over_each_transport {
    (@ $module:ident $transport:ident $($name:ident)*) => {
        mod $module {
            $(#[test]
            fn $name() {
                super::$name(super::Transport::$transport);
            })*
        }
    };
    ($($name:ident)*) => {
        over_each_transport!(@ http1 Http1 $($name)*);
        over_each_transport!(@ http1_tls Http1Tls $($name)*);
        over_each_transport!(@ http2_plain Http2 $($name)*);
        over_each_transport!(@ http2_tls Http2Tls $($name)*);
    };
}

over_each_transport! {
    events_and_head_are_those_of_http_1
    heartbeat_tells_a_fresh_place
    heartbeat_never_runs_ahead
    heartbeat_comment_gives_way_to_a_fresh_place
    resume_replays_what_was_missed
    gap_is_told_where_events_are_gone
    gap_is_not_told_to_a_stream_whose_topics_lost_nothing
    filter_picks_the_users_own_events
    limit_ends_a_stream
    token_that_expires_ends_a_stream
    operator_ends_a_stream
    drain_ends_streams_with_all_that_was_published
    slow_reader_holds_up_no_other_and_is_closed
    memory_does_not_grow_with_what_a_slow_reader_misses
    everyone_gets_everything_once_in_order
}

fn closed(server: &Server, reason: &str) -> u64 {
    server.stat(&format!("/streams/closed/{reason}"))
}

fn events_and_head_are_those_of_http_1(transport: Transport) {
    let server = Transport::start(&[]);
    let client = transport.client(&server);
    let query = "topics=a,b&topic=c";
    let (mut stream, mut plain) = (client.stream(query), server.stream(query));
    for n in 0..20 {
        server.publish(["a", "b", "c"][n % 3], "tick", &format!("{{\"n\":{n},\"text\":\"é\\n\"}}"));
    }
    for _ in 0..14 {
        assert_eq!(stream.next(), plain.next());
    }
    stream.expect_nothing();
    for name in ["content-type", "cache-control", "x-accel-buffering", "x-ignored"] {
        assert_eq!(stream.field(name), plain.head.field(name), "{name}");
    }
    assert_eq!(stream.field("x-ignored").as_deref(), Some("topic"));
    assert!(stream.field("x-request-id").is_some());
    assert_eq!(stream.connected().json()["data"]["topics"], "a,b");
    for name in ["connection", "transfer-encoding", "keep-alive"] {
        let expected = match transport {
            Transport::Http1 | Transport::Http1Tls => plain.head.field(name),
            // RFC 9113, section 8.2.2.
            Transport::Http2 | Transport::Http2Tls => None,
        };
        assert_eq!(stream.field(name), expected, "{name}");
    }
}

/// Opens a stream on a client of its own, and reads it.
fn on_its_own(transport: Transport, server: &Server, query: &str) -> places::Next {
    let mut stream = transport.client(server).stream(query);
    Box::new(move || stream.next_any())
}

fn heartbeat_tells_a_fresh_place(transport: Transport) {
    let server = Transport::start(&places::SHORT);
    places::are_fresh(&server, |query| on_its_own(transport, &server, query));
}

fn heartbeat_never_runs_ahead(transport: Transport) {
    let server = Transport::start(&places::LONG);
    places::never_run_ahead(&server, |query| on_its_own(transport, &server, query));
}

/// A comment has no id. So a filtered stream that others' events have passed by gets a named heartbeat in its place.
fn heartbeat_comment_gives_way_to_a_fresh_place(transport: Transport) {
    let server = Transport::start(&[&places::SHORT[..], &["--heartbeat-style", "comment"]].concat());
    let mut publisher = server.publisher();
    let mut stream = on_its_own(transport, &server, "topics=a&types=tick");
    let mut had = None;
    for _ in 0..2 {
        let own = publisher.publish("a", "tick", "{}");
        let mut next = stream();
        // A shard may learn late that a stream over HTTP/2 or TLS has had an event, and tell its place once more.
        if transport != Transport::Http1 && next.kind == "heartbeat" && next.id == had {
            next = stream();
        }
        assert_eq!(next.id.as_ref(), Some(&own), "nothing that it was not sent has passed: comments did");
        had = Some(own);
        let before = server.stat("/streams/heartbeats");
        wait_until("heartbeats", || server.stat("/streams/heartbeats") >= before + 3);
    }
    let place = places::passed_by(&mut publisher, &mut stream);
    drop(stream);
    let own = publisher.publish("a", "tick", "{}");
    let mut stream = on_its_own(transport, &server, &format!("topics=a&types=tick&last_event_id={place}"));
    assert_eq!(stream().id, Some(own));
}

fn resume_replays_what_was_missed(transport: Transport) {
    let server = Transport::start(&[]);
    let client = transport.client(&server);
    let ids: Vec<String> = (0..8).map(|n| server.publish("a", "tick", &format!("{{\"n\":{n}}}"))).collect();
    let mut by_query = client.stream(&format!("topics=a&last_event_id={}", ids[2]));
    let mut by_header = client.stream_with("topics=a", &[("last-event-id", &ids[2])]);
    for stream in [&mut by_query, &mut by_header] {
        assert_eq!(stream.numbers(5), [3, 4, 5, 6, 7]);
        stream.expect_nothing();
    }
    server.publish("a", "tick", "{\"n\":8}");
    assert_eq!((by_query.numbers(1), by_header.numbers(1)), (vec![8], vec![8]), "then they are live");
}

fn gap_is_told_where_events_are_gone(transport: Transport) {
    let server = Transport::start(&["--topic-events", "10", "--live-events", "1"]);
    let client = transport.client(&server);
    let ids: Vec<String> = (0..30).map(|n| server.publish("a", "tick", &format!("{{\"n\":{n}}}"))).collect();
    let mut late = client.stream(&format!("topics=a&last_event_id={}", ids[0]));
    let gap = late.expect("gap").json();
    assert_eq!(gap["data"]["reason"], "evicted");
    assert_eq!((gap["data"]["requested"].as_str(), gap["data"]["oldest"].as_str()), (Some(&*ids[0]), Some(&*ids[20])));
    assert_eq!(late.numbers(10), (20..30).collect::<Vec<_>>());
    let mut strange = client.stream("topics=a&last_event_id=elsewhere-1");
    assert_eq!(strange.expect("gap").json()["data"]["reason"], "unknown_epoch");
    assert_eq!(strange.numbers(10), (20..30).collect::<Vec<_>>());
    let mut since = client.stream("topics=a&since=1h");
    assert_eq!(since.expect("gap").json()["data"]["reason"], "evicted");
    assert_eq!((server.stat("/streams/gaps"), server.stat("/streams/unknown_epochs")), (2, 1));
}

fn gap_is_not_told_to_a_stream_whose_topics_lost_nothing(transport: Transport) {
    let server = Transport::start(&["--topic-events", "5", "--live-events", "1"]);
    let client = transport.client(&server);
    let quiet: Vec<String> = (1..=3).map(|n| server.publish("quiet", "tick", &format!("{{\"n\":{n}}}"))).collect();
    (1..=100).for_each(|n| drop(server.publish("chatty", "tick", &format!("{{\"n\":{n}}}"))));
    let mut stream = client.stream(&format!("topics=quiet&last_event_id={}", quiet[0]));
    assert_eq!(stream.numbers(2), [2, 3], "its own are all there");
    stream.expect_nothing();
    client.stream(&format!("topics=never&last_event_id={}", quiet[0])).expect_nothing();
    let mut stream = client.stream(&format!("topics=quiet,chatty&last_event_id={}", quiet[0]));
    stream.expect("gap");
    assert_eq!(stream.numbers(7), [2, 3, 96, 97, 98, 99, 100]);
}

fn filter_picks_the_users_own_events(transport: Transport) {
    let server = Transport::start(&[]);
    let client = transport.client(&server);
    let mut ann = client.stream("topics=a&user_id=ann");
    let mut all = client.stream("topics=a");
    for (n, user) in ["ann", "bob", "ann", "bob"].iter().enumerate() {
        server.publish("a", "tick", &format!("{{\"n\":{n},\"user_id\":\"{user}\"}}"));
    }
    assert_eq!(ann.numbers(2), [0, 2]);
    ann.expect_nothing();
    assert_eq!(all.numbers(4), [0, 1, 2, 3]);
}

fn limit_ends_a_stream(transport: Transport) {
    let server = Transport::start(&[]);
    let client = transport.client(&server);
    let mut stream = client.stream("topics=a&limit=3");
    let batch: Vec<String> = (0..5).map(|n| numbered("a", n)).collect();
    assert_eq!(server.post_json(&format!("[{}]", batch.join(","))).status, 200);
    let (events, end) = stream.read_to_end();
    assert_eq!(events.iter().map(SseEvent::n).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(end.is_clean && end.reason() == "limit_reached", "{end:?}");
    server.wait_for_clients(0);
    assert_eq!(closed(&server, "limit_reached"), 1);
    // The client can go on.
    assert_eq!(client.stream("topics=a&last=1").numbers(1), [4]);
}

const SECRET: &str = "a secret of more than 32 bytes that nobody else knows";
const ADMIN: &str = "an admin key of more than 32 bytes for this test";

/// A broker that needs tokens.
fn guarded() -> Server {
    let mut command = fanfare();
    command.env("FANFARE_ADMIN_KEY", ADMIN).env("JWT_SECRET", SECRET);
    command.args(["--listen", "127.0.0.1:0", "--tls-listen", "127.0.0.1:0", "--tls-self-signed"]);
    command.args(["--auth", "required", "--jwt-leeway", "0s"]);
    Server::spawn(command)
}

/// The query of a stream with a token that is good for so many more seconds.
fn token(user: &str, seconds: u64) -> String {
    let exp = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() + seconds;
    let claims = serde_json::json!({"user_id": user, "exp": exp});
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    format!("access_token={}", jsonwebtoken::encode(&Header::default(), &claims, &key).expect("signed"))
}

fn token_that_expires_ends_a_stream(transport: Transport) {
    let server = guarded();
    let client = transport.client(&server);
    let (mut short, mut long) = (client.stream(&token("short", 2)), client.stream(&token("long", 600)));
    let (events, end) = short.read_to_end();
    assert!(events.is_empty() && end.is_clean && end.reason() == "token_expired", "{events:?}, {end:?}");
    long.expect_nothing();
    server.wait_for_clients(1);
    assert_eq!(closed(&server, "token_expired"), 1);
}

fn operator_ends_a_stream(transport: Transport) {
    let server = guarded();
    let client = transport.client(&server);
    let (mut ann, mut bob) = (client.stream(&token("ann", 600)), client.stream(&token("bob", 600)));
    let line = format!("X-API-Key: {ADMIN}\r\n");
    let answer = server.ask(&format!("DELETE /api/v1/admin/streams?user=ann HTTP/1.1\r\nHost: t\r\n{line}\r\n"));
    assert_eq!(answer.status, 200, "{answer:?}");
    let (events, end) = ann.read_to_end();
    assert!(events.is_empty() && end.is_clean && end.reason() == "kicked", "{events:?}, {end:?}");
    bob.expect_nothing();
    server.wait_for_clients(1);
    assert_eq!(closed(&server, "kicked"), 1);
}

fn drain_ends_streams_with_all_that_was_published(transport: Transport) {
    let mut server = Transport::start(&["--grace", "2s", "--retry", "1s"]);
    let client = transport.client(&server);
    let mut streams: Vec<Open> = (0..30).map(|_| client.stream("topics=a")).collect();
    let batch: Vec<String> = (0..100).map(|n| numbered("a", n)).collect();
    let last = server.publisher().post(&format!("[{}]", batch.join(",")));
    let begun = Instant::now();
    server.signal("TERM");
    for stream in &mut streams {
        let (events, end) = stream.read_to_end();
        assert!(events.iter().map(SseEvent::n).eq(0..100), "{} events", events.len());
        assert!(end.is_clean && end.reason() == "drained", "{end:?}");
        let bye = end.bye.expect("a block");
        assert!(bye.last_event_id == last && bye.retry.is_some_and(|ms| ms >= 1_000), "{bye:?}");
    }
    drop((streams, client));
    assert_eq!(server.wait_for_exit(PATIENCE).code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

fn slow_reader_holds_up_no_other_and_is_closed(transport: Transport) {
    let server = Transport::start(&["--stall-timeout", "1s", "--send-buffer", "16KiB"]);
    let client = transport.client(&server);
    let (mut slow, mut quick) = (client.stream("topics=a"), client.stream("topics=a"));
    let (data, begun, mut n) = ("x".repeat(20_000), Instant::now(), 0);
    while closed(&server, "stalled") == 0 {
        server.publish("a", "tick", &format!("{{\"n\":{n},\"a\":\"{data}\"}}"));
        assert_eq!(quick.expect("tick").n(), n);
        n += 1;
        assert!(begun.elapsed() < PATIENCE, "it was never closed");
    }
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    assert_eq!(server.stat("/connected_clients"), 1, "its seat is given back");
    let (events, end) = slow.read_to_end();
    assert!(!end.is_clean && events.len() < n, "{end:?} after {} of {n}", events.len());
    assert!(events.iter().map(SseEvent::n).eq(0..events.len()), "in order as far as it came");
    server.publish("a", "tick", "{\"n\":12345}");
    assert_eq!(quick.numbers(1), [12345]);
}

fn memory_does_not_grow_with_what_a_slow_reader_misses(transport: Transport) {
    let server = Transport::start(&["--history-bytes", "2MiB", "--stall-timeout", "10m", "--send-buffer", "16KiB"]);
    let client = transport.client(&server);
    let _slow: Vec<Open> = (0..50).map(|_| client.stream("topics=a")).collect();
    let mut publisher = server.publisher();
    let data = format!("{{\"a\":\"{}\"}}", "x".repeat(20_000));
    (0..400).for_each(|_| drop(publisher.publish("a", "tick", &data)));
    let before = server.rss_kb();
    (0..1_000).for_each(|_| drop(publisher.publish("a", "tick", &data)));
    let after = server.rss_kb();
    // Each missed 20 MB meanwhile.
    assert!(after < before + 12 * 1024, "{before} kB, then {after} kB");
}

// ---- resuming again and again

const TOPICS: [&str; 4] = ["a", "b", "c", "d"];

/// Every published event's topic by its sequence number.
type Book = Mutex<BTreeMap<u64, &'static str>>;

/// Clients are cut off again and again and resume while several publishers publish; each gets each event of its topics once,
/// in order. `seam.rs` looks closer at the moment of joining.
fn everyone_gets_everything_once_in_order(transport: Transport) {
    let server = Transport::start(&["--shards", "2", "--topic-events", "1000000", "--connections-per-second", "0"]);
    let (book, stop) = (Book::default(), AtomicBool::new(false));
    let last = Mutex::new(None);
    thread::scope(|scope| {
        let (server, book, stop, last) = (&server, &book, &stop, &last);
        let publishers: Vec<_> = (0..2u64)
            .map(|seed| {
                scope.spawn(move || {
                    let (mut random, mut publisher) = (Random(seed), server.publisher());
                    while !stop.load(Ordering::Relaxed) {
                        let topic = TOPICS[random.below(4)];
                        let seq = parts(&publisher.post(&numbered(topic, 0))).1;
                        book.lock().expect("not poisoned").insert(seq, topic);
                    }
                })
            })
            .collect();
        let followers: Vec<_> = (0..6)
            .map(|seed| {
                let topics = ["a", "a,b", "all", "c,d", "d", "a,b,c,d"][seed];
                scope.spawn(move || (topics, follow(transport, server, topics, 50 + seed as u64, last)))
            })
            .collect();
        thread::sleep(Duration::from_secs(2));
        stop.store(true, Ordering::Relaxed);
        publishers.into_iter().for_each(|publisher| publisher.join().expect("a publisher"));
        let end: Vec<String> = TOPICS.iter().map(|topic| numbered(topic, 0)).collect();
        let mark = parts(&server.publisher().post(&format!("[{}]", end.join(",")))).1;
        book.lock().expect("not poisoned").extend((mark + 1 - 4..).zip(TOPICS));
        *last.lock().expect("not poisoned") = Some(mark);
        for follower in followers {
            let (topics, (from, seqs)) = follower.join().expect("a follower");
            let wants = |topic: &str| topics == "all" || topics.split(',').any(|name| name == topic);
            let book = book.lock().expect("not poisoned");
            let upto = *seqs.last().expect("it had some");
            let expected: Vec<u64> =
                book.range(from + 1..=upto).filter(|(_, topic)| wants(topic)).map(|(seq, _)| *seq).collect();
            assert!(seqs == expected, "{topics}: {} had, {} expected", seqs.len(), expected.len());
            assert!(seqs.len() > 20, "{topics}: enough happened to mean something: {}", seqs.len());
        }
    });
}

/// Where a client began that resumes again and again, and what it had by the time the last events were published.
fn follow(
    transport: Transport,
    server: &Server,
    topics: &str,
    seed: u64,
    last: &Mutex<Option<u64>>,
) -> (u64, Vec<u64>) {
    let mut random = Random(seed);
    let client = transport.client(server);
    let mut stream = client.stream(&format!("topics={topics}"));
    let mut id = stream.connected().last_event_id.clone();
    let (from, mut seqs) = (parts(&id).1, Vec::new());
    let deadline = Instant::now() + 2 * PATIENCE;
    loop {
        let until = Instant::now() + Duration::from_millis(random.below(40) as u64);
        while let Some(event) = stream.next_within(until.saturating_duration_since(Instant::now())) {
            assert_ne!(event.kind, "gap", "everything is kept: {event:?}");
            if event.kind == "tick" {
                seqs.push(event.seq());
                id = event.last_event_id;
            }
        }
        if let Some(mark) = *last.lock().expect("not poisoned")
            && seqs.last().is_some_and(|&seq| seq + TOPICS.len() as u64 > mark)
        {
            return (from, seqs);
        }
        assert!(Instant::now() < deadline, "{topics}: the last events never came; had {}", seqs.len());
        if random.below(3) > 0 {
            // The next one is open before the last one is gone, as behind a proxy that notices late.
            stream = client.stream(&format!("topics={topics}&last_event_id={id}"));
        }
    }
}
