//! Drain (`DESIGN.md`, "Drain is designed"; issue 2, items 1 and 5): at SIGTERM or SIGINT the broker is no longer
//! ready and lets no more streams in, ends those that are open spread over the grace period, each with a `retry:` that
//! spreads the reconnects and with its body's end, and leaves with 0. A second signal ends it at once.

mod common;

use common::{Conn, End, Server, SseEvent, Stream, numbered, parts, post, wait_until};
use std::thread;
use std::time::{Duration, Instant};

/// Starts the drain and waits until it has begun.
fn begin(server: &Server, signal: &str) {
    server.signal(signal);
    wait_until("the drain to begin", || server.get("/ready").status == 503);
}

/// When a drained stream was told to come back, in milliseconds.
#[track_caller]
fn told_retry(stream: &Stream) -> u64 {
    let bye = stream.bye.as_ref().expect("it is told why it ends");
    assert_eq!(bye.json()["data"]["reason"], "drained", "{bye:?}");
    assert!(bye.id.is_some(), "it keeps its place: {bye:?}");
    bye.retry.expect("it is told when to come back")
}

/// Reads all streams to their ends at the same time.
fn read_all(streams: Vec<Stream>) -> Vec<(Vec<SseEvent>, End)> {
    let read = |mut stream: Stream| {
        let read = stream.read_to_end();
        told_retry(&stream);
        read
    };
    let readers: Vec<_> = streams.into_iter().map(|stream| thread::spawn(move || read(stream))).collect();
    readers.into_iter().map(|reader| reader.join().expect("a reader")).collect()
}

#[test]
fn it_is_not_ready_and_lets_no_stream_in_but_still_publishes() {
    let mut server = Server::start(&["--grace", "6s"]);
    let streams: Vec<Stream> = (0..30).map(|_| server.stream("topics=a")).collect();
    begin(&server, "TERM");
    let ready = server.get("/ready");
    assert_eq!((ready.status, ready.json()["status"].as_str()), (503, Some("draining")), "{ready:?}");
    assert_eq!(server.get("/health").status, 200, "it is not sick");
    assert_eq!(server.stats()["status"], "draining");
    let refused = server.get("/api/v1/events?topics=a");
    assert_eq!(refused.status, 503, "{refused:?}");
    let seconds = refused.field("retry-after").expect("Retry-After (RFC 9110, 10.2.3)");
    assert!(seconds.parse::<u32>().is_ok_and(|s| s > 0), "{seconds}");
    assert_eq!(refused.json()["success"], false);
    // Those who still listen still hear.
    let id = server.publish("a", "k", "{}");
    let heard = read_all(streams).into_iter().filter(|(events, end)| {
        assert_eq!(*end, End::Clean);
        assert!(events.iter().all(|event| event.id.as_deref() == Some(id.as_str())), "{events:?}");
        events.len() == 1
    });
    assert!(heard.count() > 0, "a few requests took longer than most of the grace period");
    let status = server.wait_for_exit(Duration::from_secs(10));
    assert_eq!(status.code(), Some(0), "{status}");
}

#[test]
fn both_signals_drain_and_leave_with_0() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::start(&["--grace", "1s"]);
        let mut streams: Vec<Stream> = (0..10).map(|n| server.stream(&format!("topics=t{n}"))).collect();
        server.signal(signal);
        for stream in &mut streams {
            assert_eq!(stream.read_to_end(), (Vec::new(), End::Clean), "{signal}");
            told_retry(stream);
        }
        assert_eq!(server.wait_for_exit(Duration::from_secs(10)).code(), Some(0), "{signal}");
    }
}

#[test]
fn without_streams_it_leaves_at_once() {
    let mut server = Server::start(&["--grace", "60s"]);
    server.publish("a", "k", "{}");
    let begun = Instant::now();
    server.signal("TERM");
    assert_eq!(server.wait_for_exit(Duration::from_secs(10)).code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn ends_are_spread_over_the_grace_period_and_returns_are_too() {
    let grace = Duration::from_secs(4);
    let mut server = Server::start(&["--grace", "4s", "--retry", "1s", "--shards", "2"]);
    let streams: Vec<Stream> = (0..40).map(|n| server.stream(&format!("topics=t{}", n % 7))).collect();
    server.signal("TERM");
    let begun = Instant::now();
    let readers: Vec<_> = streams
        .into_iter()
        .map(|mut stream| {
            thread::spawn(move || {
                assert_eq!(stream.read_to_end(), (Vec::new(), End::Clean));
                (begun.elapsed(), Duration::from_millis(told_retry(&stream)))
            })
        })
        .collect();
    let ends: Vec<(Duration, Duration)> = readers.into_iter().map(|r| r.join().expect("a reader")).collect();
    server.wait_for_exit(Duration::from_secs(10));
    let gone = begun.elapsed();
    let mut moments: Vec<Duration> = ends.iter().map(|(at, _)| *at).collect();
    moments.sort();
    let (first, last) = (moments[0], moments[moments.len() - 1]);
    let over = last - first;
    assert!(over >= grace / 2, "all ended within {over:?} of {grace:?}");
    // How many end in the fullest quarter of it.
    let fullest = moments.iter().map(|m| moments.iter().filter(|o| **o >= *m && **o <= *m + over / 4).count()).max();
    assert!(fullest <= Some(25), "{fullest:?} of 40 ended within a quarter of {over:?}");
    // Nobody is sent back into the broker that is stopping, and not all come in one moment.
    let mut returns: Vec<Duration> = ends.iter().map(|(at, retry)| *at + *retry).collect();
    returns.sort();
    assert!(returns[0] >= gone, "one comes back after {:?}, and the broker was gone after {gone:?}", returns[0]);
    assert!(returns[0] >= grace, "it may take as long as its grace period: {:?}", returns[0]);
    assert!(returns[39] <= 2 * grace + Duration::from_secs(2), "nobody stays away for long: {:?}", returns[39]);
    assert!(returns[39] - returns[0] >= Duration::from_millis(20), "{returns:?}");
}

#[test]
fn nobody_is_sent_back_into_the_drain() {
    let mut server = Server::start(&["--grace", "3s", "--retry", "100ms"]);
    let streams: Vec<Stream> = (0..200).map(|n| server.stream(&format!("topics=t{}", n % 7))).collect();
    let addr = server.addr;
    server.signal("TERM");
    let clients: Vec<_> = streams
        .into_iter()
        .map(|mut stream| {
            thread::spawn(move || {
                assert_eq!(stream.read_to_end().1, End::Clean);
                thread::sleep(Duration::from_millis(told_retry(&stream)));
                // As `EventSource` does: anything but a refused connection would be this broker's.
                std::net::TcpStream::connect(addr).is_err()
            })
        })
        .collect();
    assert_eq!(server.wait_for_exit(Duration::from_secs(10)).code(), Some(0));
    let gone = clients.into_iter().map(|client| client.join().expect("a client")).filter(|gone| *gone);
    assert_eq!(gone.count(), 200, "those who came back found the broker that they had been sent away from");
}

#[test]
fn what_was_published_is_delivered_before_the_end() {
    let mut server = Server::start(&["--grace", "2s"]);
    let streams: Vec<Stream> = (0..20).map(|_| server.stream("topics=a")).collect();
    let batch: Vec<String> = (0..2_000).map(|n| numbered("a", n)).collect();
    let last = server.publisher().post(&format!("[{}]", batch.join(",")));
    server.signal("TERM");
    for (events, end) in read_all(streams) {
        assert_eq!(end, End::Clean);
        assert!(events.iter().map(SseEvent::n).eq(0..2_000), "{} events", events.len());
        assert_eq!(events.last().map(SseEvent::seq), Some(parts(&last).1));
    }
    assert_eq!(server.wait_for_exit(Duration::from_secs(10)).code(), Some(0));
}

#[test]
fn a_short_grace_still_ends_streams_in_good_order() {
    for grace in ["10ms", "100ms", "300ms"] {
        let mut server = Server::start(&["--grace", grace]);
        let mut streams: Vec<Stream> = (0..5).map(|_| server.stream("topics=a")).collect();
        server.signal("TERM");
        for stream in &mut streams {
            assert_eq!(stream.read_to_end(), (Vec::new(), End::Clean), "--grace {grace}");
            told_retry(stream);
        }
        assert_eq!(server.wait_for_exit(Duration::from_secs(10)).code(), Some(0));
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut server = Server::start(&["--grace", "1h"]);
    let _streams: Vec<Stream> = (0..5).map(|_| server.stream("topics=a")).collect();
    begin(&server, "TERM");
    thread::sleep(Duration::from_millis(200));
    assert!(server.is_running());
    let begun = Instant::now();
    server.signal("INT");
    let status = server.wait_for_exit(Duration::from_secs(10));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(status.code(), Some(0), "it did what it was told");
}

#[test]
fn a_reader_that_does_not_read_does_not_hold_the_end_up() {
    let mut server = Server::start(&["--grace", "1s", "--send-buffer", "16KiB"]);
    let slow = server.stream("topics=a");
    let mut publisher = server.publisher();
    let payload = format!("{{\"a\":\"{}\"}}", "x".repeat(20_000));
    for _ in 0..5_000 {
        publisher.publish("a", "k", &payload);
        if server.stat("/streams/stalls") > 0 {
            break;
        }
    }
    assert!(server.stat("/streams/stalls") > 0);
    let mut quick = server.stream("topics=b");
    let begun = Instant::now();
    server.signal("TERM");
    assert_eq!(quick.read_to_end(), (Vec::new(), End::Clean));
    told_retry(&quick);
    assert_eq!(server.wait_for_exit(Duration::from_secs(10)).code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    drop(slow);
}

/// Sends a publish's head, and waits until it is being answered; gives its connection, and the body to send.
fn half_a_publish(server: &Server) -> (Conn, String) {
    let mut conn = server.connect();
    let body = numbered("a", 1);
    let request = post("application/json", &body);
    conn.send(request.strip_suffix(&body).expect("the body is last").as_bytes());
    // The other one is the request for this figure.
    wait_until("the head to be read", || server.stat("/connections/requests") == 2);
    (conn, body)
}

#[test]
fn a_request_that_is_being_answered_is_answered() {
    let mut server = Server::start(&["--grace", "30s"]);
    let stream = server.stream("topics=a");
    let (mut conn, body) = half_a_publish(&server);
    begin(&server, "TERM");
    conn.send(body.as_bytes());
    assert_eq!(conn.answer().expect("an answer").status, 200);
    drop(stream);
    assert_eq!(server.wait_for_exit(Duration::from_secs(10)).code(), Some(0));
}

#[test]
fn a_request_that_is_slow_has_the_grace_period_to_be_answered() {
    let mut server = Server::start(&["--grace", "30s"]);
    let (mut conn, body) = half_a_publish(&server);
    begin(&server, "TERM");
    // There is no stream: this request alone keeps the broker, for longer than its last answers have.
    thread::sleep(Duration::from_secs(2));
    conn.send(body.as_bytes());
    assert_eq!(conn.answer().expect("an answer").status, 200);
    assert_eq!(server.wait_for_exit(Duration::from_secs(10)).code(), Some(0), "and not until the grace period is over");
}

#[test]
fn a_request_that_never_comes_to_its_end_holds_up_the_end_for_the_grace_period_only() {
    let mut server = Server::start(&["--grace", "1s"]);
    let (conn, _) = half_a_publish(&server);
    let begun = Instant::now();
    server.signal("TERM");
    assert_eq!(server.wait_for_exit(Duration::from_secs(10)).code(), Some(0));
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    drop(conn);
}

#[test]
fn http_1_0_streams_end_with_their_connection() {
    let server = Server::start(&["--grace", "4s"]);
    let mut conn = server.connect();
    conn.send(b"GET /api/v1/events HTTP/1.0\r\n\r\n");
    let mut stream = Stream::over(conn);
    stream.expect("connected");
    server.signal("TERM");
    assert_eq!(stream.read_to_end(), (Vec::new(), End::Clean));
    told_retry(&stream);
}
