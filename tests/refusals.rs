//! Refusals that a browser survives (`WIRE.md`): `EventSource` gives up for good on any answer but 200, so a stream that
//! is refused for a passing reason gets 200 and one block that says why and when to come back. Lasting reasons, and
//! clients that read no events, get statuses. One budget: a connection that carries a stream takes no other's place.

mod common;
#[path = "common/http2.rs"]
mod http2;

use common::{Answer, Conn, EVENTS, End, SILENCE, Server, SseEvent, SseParser, Stream, wait_until};
use h2::client::Builder;
use http2::{Http2, Http2Stream};
use serde_json::json;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A request for a stream as `EventSource` sends it.
fn as_page(query: &str, lines: &str) -> String {
    format!("GET {EVENTS}?{query} HTTP/1.1\r\nHost: t\r\nAccept: text/event-stream\r\n{lines}\r\n")
}

/// The one block of a refusal.
#[track_caller]
fn refusal(answer: &Answer, code: &str) -> SseEvent {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.field("content-type").as_deref(), Some("text/event-stream"), "{answer:?}");
    assert_eq!(answer.field("x-refused").as_deref(), Some(code), "{answer:?}");
    assert!(answer.field("x-request-id").is_some(), "{answer:?}");
    block(&answer.body, code)
}

#[track_caller]
fn block(body: &[u8], code: &str) -> SseEvent {
    let mut sse = SseParser::default();
    sse.feed(body);
    let event = sse.next().expect("a block");
    assert!(sse.next().is_none() && sse.is_between_blocks() && sse.empty_blocks == 0, "one block, and all of it");
    assert_eq!((event.kind.as_str(), event.id.as_deref()), ("refused", None), "{event:?}");
    let json = event.json();
    assert_eq!((&json["type"], &json["data"]["code"]), (&json!("refused"), &json!(code)), "{event:?}");
    assert!(json["data"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{event:?}");
    assert!(json["timestamp"].is_string(), "{event:?}");
    let seconds = json["data"]["retry_after"].as_u64().expect("seconds");
    let retry = event.retry.expect("it tells when to come back");
    assert!(seconds >= 1 && (seconds * 1000..=seconds * 1200 + 1000).contains(&retry), "{event:?}");
    event
}

#[track_caller]
fn assert_status(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.json()["error"]["code"], code, "{answer:?}");
    assert_eq!(answer.field("x-refused"), None, "{answer:?}");
}

#[test]
fn refusal_of_a_full_broker_is_a_block_for_pages_and_a_status_for_others() {
    let server = Server::start(&["--max-streams", "1"]);
    let held = server.stream("topics=a");
    refusal(&server.ask(&as_page("topics=a", "")), "too_many_streams");
    // A connection that was refused is as good as any for the next request.
    let mut kept = server.connect();
    let mut waits = Vec::new();
    for _ in 0..10 {
        kept.send(as_page("topics=a", "").as_bytes());
        waits.push(refusal(&kept.answer().expect("an answer"), "too_many_streams").retry);
    }
    waits.dedup();
    assert!(waits.len() > 1, "not all are sent back at the same moment: {waits:?}");
    for accept in ["", "Accept: */*\r\n", "Accept: text/html\r\n", "Accept: text/event-stream;q=0\r\n"] {
        let answer = server.ask(&format!("GET {EVENTS} HTTP/1.1\r\nHost: t\r\n{accept}\r\n"));
        assert_status(&answer, 503, "too_many_streams");
        assert_eq!(answer.field("retry-after").as_deref(), Some("5"), "{answer:?}");
    }
    for accept in ["text/html, text/event-stream;q=0.5", "TEXT/EVENT-STREAM", "text/event-stream; charset=utf-8"] {
        let answer = server.ask(&format!("GET {EVENTS} HTTP/1.1\r\nHost: t\r\nAccept: {accept}\r\n\r\n"));
        refusal(&answer, "too_many_streams");
    }
    assert_eq!(server.stat("/problems/too_many_streams"), 18);
    assert_eq!(server.stat("/refused"), 18);
    drop(held);
    server.wait_for_clients(0);
    let mut stream = Stream::open(kept, "topics=a", "Accept: text/event-stream\r\n");
    stream.expect("connected");
}

#[test]
fn refusal_keeps_the_statuses_of_lasting_reasons() {
    let server = Server::start(&["--max-streams", "0"]);
    let answer = server.ask(&as_page("limit=x", ""));
    assert_status(&answer, 400, "bad_request");
    let post = format!("POST {EVENTS} HTTP/1.1\r\nHost: t\r\nAccept: text/event-stream\r\nContent-Length: 0\r\n\r\n");
    assert_status(&server.ask(&post), 405, "method_not_allowed");
    let head = server.ask(&format!("HEAD {EVENTS}?limit=x HTTP/1.1\r\nHost: t\r\nAccept: text/event-stream\r\n\r\n"));
    assert_eq!(head.status, 400, "{head:?}");
    let other = server.ask("GET /api/v1/event HTTP/1.1\r\nHost: t\r\nAccept: text/event-stream\r\n\r\n");
    assert_status(&other, 404, "not_found");
    let closed = Server::start(&["--jwt-secret", "a-secret-of-thirty-two-bytes-at-least"]);
    assert_status(&closed.ask(&as_page("", "")), 401, "token_missing");
    assert_status(&closed.ask(&as_page("access_token=a.b.c", "")), 401, "token_malformed");
}

#[test]
fn refusal_is_the_same_over_http_2_and_for_other_origins() {
    let server = Server::start(&["--max-streams", "1", "--cors-origins", "https://app.example"]);
    let _held = server.stream("topics=a");
    let answer = server.ask(&as_page("", "Origin: https://app.example\r\n"));
    refusal(&answer, "too_many_streams");
    assert_eq!(answer.field("access-control-allow-origin").as_deref(), Some("https://app.example"), "{answer:?}");
    let exposed = answer.field("access-control-expose-headers").expect("exposed fields");
    assert!(exposed.split(", ").any(|name| name == "X-Refused"), "{exposed}");
    let mut client = Http2::to(&server);
    let request = hyper::Request::get(format!("http://t{EVENTS}")).header("accept", "text/event-stream");
    let (head, body) = client.ask(request.body(()).expect("a request"), None);
    assert_eq!(head.status, 200, "{head:?}");
    assert_eq!(head.headers["x-refused"], "too_many_streams", "{head:?}");
    block(&body, "too_many_streams");
    let (head, _) = client.ask(http2::get(EVENTS), None);
    assert_eq!(head.status, 503, "{head:?}");
}

#[test]
fn refusal_in_a_drain_sends_nobody_back_before_the_broker_is_gone() {
    let mut server = Server::start(&["--grace", "3s"]);
    let streams: Vec<Stream> = (0..20).map(|_| server.stream("topics=a")).collect();
    let mut over_http2 = Http2::to(&server);
    assert_eq!(over_http2.ask(http2::get("/health"), None).0.status, 200);
    server.signal("TERM");
    wait_until("the drain to begin", || server.get("/ready").status == 503);
    let told: Vec<(Instant, Duration)> = (0..20)
        .map(|_| {
            let block = refusal(&server.ask(&as_page("topics=a", "")), "draining");
            let at = Instant::now();
            sleep(Duration::from_millis(20));
            (at, Duration::from_millis(block.retry.expect("it tells when")))
        })
        .collect();
    let status = server.get(EVENTS);
    assert_status(&status, 503, "draining");
    assert!(status.field("retry-after").is_some_and(|s| s.parse::<u64>().is_ok_and(|s| (1..=5).contains(&s))));
    drop(streams);
    server.wait_for_exit(Duration::from_secs(10));
    let gone = Instant::now();
    assert!(told.iter().all(|(at, retry)| *at + *retry >= gone), "one is sent back into the drain");
}

#[test]
fn end_tells_its_reason_over_every_protocol() {
    let server = Server::start(&["--tls-self-signed"]);
    for n in 0..3 {
        server.publish("a", "tick", &format!("{{\"n\":{n}}}"));
    }
    let mut plain = server.stream("topics=a&last=3&limit=3");
    let (events, end) = plain.read_to_end();
    assert_eq!((events.len(), end, plain.reason().as_str()), (3, End::Clean, "limit_reached"));
    let bye = plain.bye.take().expect("a reason");
    assert_eq!(bye.last_event_id, events[2].last_event_id, "it resumes where it was");
    assert_eq!((bye.retry, bye.json()["type"].as_str()), (None, Some("end")), "{bye:?}");
    let mut client = Http2::to(&server);
    let mut stream = client.stream("topics=a&last=3&limit=3");
    let (events, end) = client.read_to_end(&mut stream);
    let bye = stream.bye.take().expect("a reason");
    assert!(end.is_ok() && events.len() == 3 && bye.json()["data"]["reason"] == "limit_reached", "{end:?} {bye:?}");
    assert_eq!(bye.last_event_id, events[2].last_event_id);
    // A limit that is reached live.
    let mut live = server.stream("topics=b&limit=2");
    server.publish("b", "tick", "{\"n\":1}");
    let id = server.publish("b", "tick", "{\"n\":2}");
    let (events, end) = live.read_to_end();
    assert_eq!((events.len(), end, live.reason().as_str()), (2, End::Clean, "limit_reached"));
    assert_eq!(live.bye.take().and_then(|bye| bye.id), Some(id));
}

// ---- connections

#[test]
fn connections_over_the_bound_are_told_so_and_counted() {
    let server = Server::start(&["--max-connections", "2"]);
    let mut publisher = server.publisher();
    publisher.publish("a", "k", "{}");
    let silent = server.connect();
    sleep(SILENCE);
    let begun = Instant::now();
    let answer = server.ask("GET /health HTTP/1.1\r\nHost: t\r\n\r\n");
    assert!(begun.elapsed() < Duration::from_secs(5), "it was left waiting for {:?}", begun.elapsed());
    assert_status(&answer, 503, "too_many_connections");
    assert_eq!(answer.field("retry-after").as_deref(), Some("1"), "{answer:?}");
    assert_eq!(answer.field("connection").as_deref(), Some("close"), "{answer:?}");
    let answer = server.ask(&as_page("topics=a", ""));
    refusal(&answer, "too_many_connections");
    // Of a crowd that asks nothing, few are kept for a moment, and all are counted.
    let mut crowd: Vec<Conn> = (0..50).map(|_| server.connect()).collect();
    assert!(crowd.iter_mut().all(|conn| conn.drain().is_empty()));
    publisher.publish("a", "k", "{}");
    publisher.conn.send(b"GET /api/v1/events/stats HTTP/1.1\r\nHost: t\r\n\r\n");
    let stats = publisher.conn.answer().expect("an answer").json();
    assert_eq!(stats["problems"]["too_many_connections"], 52, "{stats}");
    drop((silent, publisher));
    wait_until("room", || server.ask("GET /health HTTP/1.1\r\nHost: t\r\n\r\n").status == 200);
    let _stream = server.stream("topics=a");
}

#[test]
fn connections_over_the_bound_are_closed_over_tls() {
    let server = Server::start(&["--max-connections", "2", "--tls-self-signed"]);
    let _silent = [server.connect(), server.connect()];
    sleep(SILENCE);
    let tls = server.tls.expect("it speaks TLS");
    let begun = Instant::now();
    assert_eq!(Conn::to(tls).expect("the kernel accepts it").drain(), b"");
    assert!(begun.elapsed() < Duration::from_secs(5), "it was left waiting for {:?}", begun.elapsed());
}

#[test]
fn connections_that_carry_a_stream_take_no_place_over_http_2() {
    let server = Server::start(&["--max-connections", "4"]);
    let mut clients: Vec<Http2> = (0..40).map(|_| Http2::to(&server)).collect();
    let mut streams: Vec<Http2Stream> = clients.iter_mut().map(|client| client.stream("topics=a")).collect();
    // Two streams and a request more on one of them change nothing.
    let more = [clients[0].stream("topics=b"), clients[0].stream("topics=c")];
    clients[0].publish("{\"topic\":\"a\",\"type\":\"tick\",\"data\":{\"n\":7}}");
    for (client, stream) in clients.iter().zip(&mut streams) {
        assert_eq!(client.expect(stream, "tick").n(), 7);
    }
    assert_eq!(server.stat("/connected_clients"), 42);
    drop(more);
    // With their last streams gone, there is room for four of them only: the others are told to go.
    drop(streams);
    wait_until("all but a few to be ended", || {
        clients.retain(|client| !client.has_ended());
        clients.len() <= 4
    });
    drop(clients);
    wait_until("room again", || server.get("/health").status == 200);
    assert!(server.stat("/problems/too_many_connections") >= 36);
    let _one = Http2::with(&server, &mut Builder::new()).stream("topics=a");
}

#[test]
fn broken_heads_get_the_envelope_too() {
    let server = Server::start(&["--max-head", "4KiB"]);
    let long = format!("GET /health HTTP/1.1\r\nHost: t\r\nX-Long: {}\r\n\r\n", "x".repeat(20_000));
    let many: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    let many = format!("GET /health HTTP/1.1\r\nHost: t\r\n{many}\r\n");
    for (request, status, code) in [
        (long.as_str(), 431, "head_too_large"),
        (many.as_str(), 431, "head_too_large"),
        ("GET /health HTTP/1.1\r\nHost t\r\n\r\n", 400, "bad_request"),
        ("GET  /health\r\n\r\n", 400, "bad_request"),
        ("\u{1}\u{2}\u{3}\r\n\r\n", 400, "bad_request"),
        ("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "bad_request"),
    ] {
        let answer = server.ask(request);
        assert_status(&answer, status, code);
        assert_eq!(answer.json()["success"], false, "{answer:?}");
        assert!(answer.field("x-request-id").is_some() && answer.field("date").is_some(), "{answer:?}");
        assert_eq!(answer.field("content-type").as_deref(), Some("application/json"), "{answer:?}");
        assert_eq!(answer.field("connection").as_deref(), Some("close"), "{answer:?}");
    }
    assert_eq!(server.stat("/problems/head_too_large"), 2);
    assert_eq!(server.stat("/problems/bad_request"), 4);
    // Behind a request that is answered, on the same connection.
    let mut kept = server.connect();
    kept.send(b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(kept.answer().expect("an answer").status, 200);
    kept.send(b"GET /health HTTP/1.1\r\nHost t\r\n\r\n");
    assert_status(&kept.answer().expect("an answer"), 400, "bad_request");
    assert_eq!(kept.drain(), b"");
    let mut client = Http2::to(&server);
    let request = hyper::Request::get("http://t/health").header("x-long", "x".repeat(5000));
    let (head, body) = client.ask(request.body(()).expect("a request"), None);
    assert_eq!(head.status, 431, "{head:?}");
    assert!(String::from_utf8_lossy(&body).contains("\"code\":\"head_too_large\""));
}

#[test]
fn slow_heads_get_the_envelope_too() {
    let server = Server::start(&["--head-timeout", "300ms"]);
    let mut conn = server.connect();
    conn.send(b"GET /health HTTP/1.1\r\n");
    assert_status(&conn.answer().expect("an answer"), 408, "head_timeout");
    assert_eq!(server.stat("/problems/head_timeout"), 1);
}
