//! Hostile input: each ends in a clear error or a clean close, nothing panics, and no other stream notices (issue 2,
//! item 6; `DESIGN.md`, "Rules that keep it fast and right"; RFC 9112, sections 5.2, 6.3 and 11.2 on requests that are
//! made to mean two things).
//!
//! Every case runs beside a witness: a stream that was open before, and must get every event published after the
//! case, in order, and nothing else.

mod common;

use common::{
    BROADCAST, Conn, EVENTS, End, PATIENCE, Random, SILENCE, Server, Stream, numbered, parts, post, wait_until,
};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

/// A server with an open stream that is to notice nothing.
struct Scene {
    server: Server,
    witness: Stream,
    told: usize,
}

impl Scene {
    #[track_caller]
    fn new(flags: &[&str]) -> Scene {
        let server = Server::start(flags);
        let witness = server.stream("topics=witness");
        Scene { server, witness, told: 0 }
    }

    /// Panics unless all is well, and the witness gets what is published now, and only that.
    #[track_caller]
    fn assert_unmoved(&mut self, what: &str) {
        self.told += 1;
        self.server.publisher().post(&numbered("witness", self.told));
        let event = self.witness.next();
        assert_eq!((event.kind.as_str(), event.n()), ("tick", self.told), "after {what}");
        assert!(self.witness.conn_is_quiet(), "after {what}: {:?}", self.witness.end());
        self.server.assert_well();
    }

    /// Waits until only the witness is left, with the books in order.
    #[track_caller]
    fn assert_alone(&mut self, what: &str) {
        self.assert_unmoved(what);
        self.server.wait_for_clients(1);
        wait_until("every stream to be counted out", || {
            let stats = self.server.stats();
            let closed: u64 = stats["streams"]["closed"]
                .as_object()
                .map_or(0, |reasons| reasons.values().filter_map(serde_json::Value::as_u64).sum());
            stats["streams"]["opened"].as_u64() == Some(closed + 1)
        });
    }
}

/// Sends bytes, as far as the server takes them, and reads what it says until it closes, or is silent; then closes
/// this side and reads the rest.
fn throw(server: &Server, bytes: &[u8]) -> String {
    let mut conn = server.connect();
    let _ = conn.socket.write_all(bytes);
    let _ = conn.socket.set_read_timeout(Some(SILENCE));
    while conn.fill().is_ok_and(|n| n > 0) {}
    let _ = conn.socket.set_read_timeout(Some(PATIENCE));
    conn.half_close();
    String::from_utf8_lossy(&conn.drain()).into_owned()
}

/// The statuses in a connection's output, in order.
fn statuses(text: &str) -> Vec<u16> {
    let behind = |version: &'static str| text.match_indices(version).map(|(at, _)| &text[at + version.len()..]);
    let mut found: Vec<&str> = behind("HTTP/1.1 ").chain(behind("HTTP/1.0 ")).collect();
    // What is left of the text shrinks from answer to answer.
    found.sort_by_key(|rest| std::cmp::Reverse(rest.len()));
    found.iter().filter_map(|rest| rest.get(..3)?.parse().ok()).collect()
}

// ---- heads

#[test]
fn oversized_heads_are_refused() {
    let mut scene = Scene::new(&["--max-head", "16KiB"]);
    let long = "x".repeat(100_000);
    for (what, request) in [
        ("a long query", format!("GET {EVENTS}?topics=a&x={long} HTTP/1.1\r\nHost: t\r\n\r\n")),
        ("a long header", format!("GET {EVENTS} HTTP/1.1\r\nHost: t\r\nX: {long}\r\n\r\n")),
        ("a long name", format!("GET {EVENTS} HTTP/1.1\r\nHost: t\r\n{long}: 1\r\n\r\n")),
        ("a long method", format!("{long} / HTTP/1.1\r\nHost: t\r\n\r\n")),
        ("a head without end", format!("GET {EVENTS} HTTP/1.1\r\n{}", "A: b\r\n".repeat(20_000))),
        ("many fields", format!("GET {EVENTS} HTTP/1.1\r\nHost: t\r\n{}\r\n", "A: b\r\n".repeat(2_000))),
    ] {
        let said = throw(&scene.server, request.as_bytes());
        let status = statuses(&said);
        assert!(matches!(status[..], [400 | 413 | 414 | 431]) || said.is_empty(), "{what}: {said:?}");
        scene.assert_unmoved(what);
    }
    // What just fits is served.
    let fits = format!("GET /health HTTP/1.1\r\nHost: t\r\nX: {}\r\n\r\n", "x".repeat(12 * 1024));
    assert_eq!(scene.server.ask(&fits).status, 200);
    scene.assert_alone("oversized heads");
}

#[test]
fn slow_heads_have_a_deadline() {
    let mut scene = Scene::new(&["--head-timeout", "500ms", "--idle-timeout", "700ms"]);
    // Nothing at all, a part, and a head that always has one more byte.
    let begun = Instant::now();
    let mut silent = scene.server.connect();
    let mut part = scene.server.connect();
    part.send(b"GET /health HTTP/1.1\r\nHo");
    let mut dripping = scene.server.connect();
    dripping.send(b"GET /health HTTP/1.1\r\nX: ");
    let dripped = loop {
        if dripping.socket.write_all(b"x").is_err() {
            break begun.elapsed();
        }
        assert!(begun.elapsed() < PATIENCE, "a byte now and then keeps a head open for ever");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(dripped >= Duration::from_millis(400), "{dripped:?}");
    assert_eq!(silent.drain(), b"");
    let said = String::from_utf8_lossy(&part.drain()).into_owned();
    assert!(said.is_empty() || statuses(&said) == [408], "{said:?}");
    // A connection that rests between requests ends too, without an answer to a question that was not asked.
    let mut resting = scene.server.connect();
    resting.send(b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(resting.answer().expect("an answer").status, 200);
    assert_eq!(resting.drain(), b"");
    scene.assert_alone("slow heads");
}

#[test]
fn slow_bodies_have_a_deadline() {
    let mut scene = Scene::new(&["--body-timeout", "500ms"]);
    let head = format!("POST {BROADCAST} HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n");
    for (what, sent) in [
        ("an announced body", format!("{head}Content-Length: 20\r\n\r\n{{\"type\":")),
        ("a chunked body", format!("{head}Transfer-Encoding: chunked\r\n\r\n4\r\n{{\"ty\r\n")),
        ("no byte of it", format!("{head}Content-Length: 20\r\n\r\n")),
        // It is read for any content type: the next request begins after it.
        ("an ignored body", format!("POST {BROADCAST} HTTP/1.1\r\nHost: t\r\nContent-Length: 20\r\n\r\nx")),
    ] {
        let begun = Instant::now();
        let mut conn = scene.server.connect();
        conn.send(sent.as_bytes());
        let answer = conn.answer().expect("an answer");
        assert_eq!(answer.status, 408, "{what}: {answer:?}");
        assert!(begun.elapsed() >= Duration::from_millis(400), "{what}");
        assert_eq!(answer.json()["success"], false);
        assert_eq!(conn.drain(), b"", "{what}: the connection cannot be used again");
    }
    let before = scene.server.stat("/events");
    // One that drips and never ends is over as soon.
    let mut conn = scene.server.connect();
    conn.send(format!("{head}Content-Length: 100000\r\n\r\n").as_bytes());
    let begun = Instant::now();
    while conn.socket.write_all(b" ").is_ok() {
        assert!(begun.elapsed() < PATIENCE, "a byte now and then keeps a body open for ever");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(scene.server.stat("/events"), before, "nothing of all this was published");
    scene.assert_alone("slow bodies");
}

// ---- requests that mean two things

#[test]
fn smuggling_shapes_are_refused() {
    let mut scene = Scene::new(&[]);
    // Were the body's end misunderstood, this would be answered too.
    let hidden = "GET /health HTTP/1.1\r\nHost: t\r\nX-Request-Id: smuggled\r\n\r\n";
    let post = |fields: &str, body: &str| {
        format!("POST {BROADCAST} HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n{fields}\r\n{body}")
    };
    let cases = [
        ("CL and TE", post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", &format!("0\r\n\r\n{hidden}"))),
        ("TE and CL", post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", &format!("0\r\n\r\n{hidden}"))),
        ("two CLs", post("Content-Length: 2\r\nContent-Length: 60\r\n", &format!("{{}}{hidden}"))),
        ("a list of CLs", post("Content-Length: 2, 60\r\n", &format!("{{}}{hidden}"))),
        ("a signed CL", post("Content-Length: +2\r\n", &format!("{{}}{hidden}"))),
        ("a CL in hex", post("Content-Length: 0x2\r\n", &format!("{{}}{hidden}"))),
        ("a negative CL", post("Content-Length: -1\r\n", hidden)),
        ("a CL past counting", post("Content-Length: 99999999999999999999999\r\n", hidden)),
        ("an empty CL", post("Content-Length: \r\n", hidden)),
        ("TE unknown", post("Transfer-Encoding: cow\r\n", &format!("{{}}{hidden}"))),
        ("TE not last", post("Transfer-Encoding: chunked, identity\r\n", &format!("0\r\n\r\n{hidden}"))),
        ("TE in disguise", post("Transfer-Encoding: xchunked\r\n", &format!("0\r\n\r\n{hidden}"))),
        ("a space before the colon", post("Content-Length : 2\r\n", &format!("{{}}{hidden}"))),
        ("a tab before the colon", post("Transfer-Encoding\t: chunked\r\n", &format!("0\r\n\r\n{hidden}"))),
        ("obs-fold", post("X: a\r\n Content-Length: 2\r\n", &format!("{{}}{hidden}"))),
        ("a folded TE", post("Transfer-Encoding:\r\n chunked\r\n", &format!("0\r\n\r\n{hidden}"))),
        ("a NUL in a value", post("X: a\0b\r\nContent-Length: 2\r\n", &format!("{{}}{hidden}"))),
        ("a CR in a value", post("X: a\rContent-Length: 9\r\nContent-Length: 2\r\n", &format!("{{}}{hidden}"))),
        (
            "a chunk size past counting",
            post("Transfer-Encoding: chunked\r\n", &format!("fffffffffffffffff\r\n{{}}\r\n0\r\n\r\n{hidden}")),
        ),
        (
            "a chunk size of no digits",
            post("Transfer-Encoding: chunked\r\n", &format!("\r\n{{}}\r\n0\r\n\r\n{hidden}")),
        ),
        ("a signed chunk size", post("Transfer-Encoding: chunked\r\n", &format!("+2\r\n{{}}\r\n0\r\n\r\n{hidden}"))),
        ("a chunk without its end", post("Transfer-Encoding: chunked\r\n", &format!("2\r\n{{}}0\r\n\r\n{hidden}"))),
        ("a chunk's bare LF", post("Transfer-Encoding: chunked\r\n", &format!("2\n{{}}\r\n0\r\n\r\n{hidden}"))),
        ("no Host", format!("GET /health HTTP/1.1\r\n\r\n{hidden}")),
        ("two Hosts", format!("GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n{hidden}")),
        ("HTTP/0.9", format!("GET /health\r\n{hidden}")),
        ("HTTP/2.0 in words", format!("GET /health HTTP/2.0\r\nHost: t\r\n\r\n{hidden}")),
        ("HTTP/1.2", format!("GET /health HTTP/1.2\r\nHost: t\r\n\r\n{hidden}")),
        ("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_owned()),
        ("a space too many", format!("GET  /health HTTP/1.1\r\nHost: t\r\n\r\n{hidden}")),
        ("a TLS hello", "\x16\x03\x01\x02\0\x01\0\x01\u{7c}\x03\x03".to_owned()),
    ];
    for (what, request) in cases {
        let before = scene.server.stat("/events");
        let said = throw(&scene.server, request.as_bytes());
        let status = statuses(&said);
        // An error or nothing; and in no case the answer to what was hidden behind it, on a request that two readers
        // could divide in two ways. (Two readings that agree, as HTTP/1.2 served as HTTP/1.1, cannot be told apart.)
        let divided = !matches!(what, "no Host" | "two Hosts" | "HTTP/1.2" | "HTTP/2.0 in words");
        let first = status.first().copied();
        assert!(first.is_none_or(|status| status >= 400) || what == "HTTP/1.2", "{what}: {said:?}");
        assert!(!divided || !said.contains("smuggled"), "{what}: {said:?}");
        assert_eq!(scene.server.stat("/events"), before, "{what} published something: {said:?}");
        scene.assert_unmoved(what);
    }
    // RFC 9112, section 2.2: a bare LF may be taken for a line's end. Taken or refused, it is one request.
    let said = throw(&scene.server, b"GET /health HTTP/1.1\nHost: t\n\n");
    assert!(matches!(statuses(&said)[..], [200 | 400]), "{said:?}");
    // The same length twice is the same length: refused, or taken once.
    let said =
        throw(&scene.server, post("Content-Length: 2\r\nContent-Length: 2\r\n", &format!("{{}}{hidden}")).as_bytes());
    assert!(matches!(statuses(&said)[..], [400] | [200, 200]), "{said:?}");
    scene.assert_alone("smuggling");
}

#[test]
fn requests_before_and_after_a_subscribe() {
    let mut scene = Scene::new(&[]);
    let get = |path: &str, id: &str| format!("GET {path} HTTP/1.1\r\nHost: t\r\nX-Request-Id: {id}\r\n\r\n");
    // Before it, in one piece with it: answered first, completely, then the stream.
    for n in [1, 2, 20] {
        let mut conn = scene.server.connect();
        let before: String = (0..n).map(|i| get("/health", &format!("before-{i}"))).collect();
        conn.send(format!("{before}{}", get(&format!("{EVENTS}?topics=p"), "stream")).as_bytes());
        for i in 0..n {
            let answer = conn.answer().expect("an answer to what was asked before");
            assert_eq!(answer.field("x-request-id"), Some(format!("before-{i}")));
        }
        let mut stream = Stream::over(conn);
        assert_eq!(stream.head.field("x-request-id").as_deref(), Some("stream"));
        stream.expect("connected");
        scene.server.publish("p", "k", "{}");
        stream.expect("k");
    }
    // A publish before it, in one piece: it is in the past of the stream, not lost and not delivered.
    let mut conn = scene.server.connect();
    conn.send(
        format!("{}{}", post("application/json", &numbered("p", 7)), get(&format!("{EVENTS}?topics=p"), "s"))
            .as_bytes(),
    );
    let answer = conn.answer().expect("the publish's answer");
    let mut stream = Stream::over(conn);
    let connected = stream.expect("connected");
    assert_eq!(connected.id.as_deref(), answer.json()["id"].as_str());
    drop(stream);
    // Behind it, in one piece with it and later: no answer ever appears in the stream, and it is not disturbed.
    for behind in
        [get("/health", "behind"), post("application/json", &numbered("p", 8)), "\0garbage\r\n\r\n".to_owned()]
    {
        let mut conn = scene.server.connect();
        conn.send(format!("{}{behind}", get(&format!("{EVENTS}?topics=q"), "stream")).as_bytes());
        let mut stream = Stream::over(conn);
        stream.expect("connected");
        stream.conn.send(behind.as_bytes());
        let before = scene.server.publish("q", "k", "{}");
        let event = stream.expect("k");
        assert_eq!(event.id, Some(before.clone()));
        stream.expect_nothing();
        assert_eq!(parts(&scene.server.publish("q", "k", "{}")).1, parts(&before).1 + 1, "nothing was published by it");
        assert!(!stream.body().contains("HTTP/"), "{}", stream.body());
    }
    // More than a little of that is bad faith, and ends that stream only.
    let mut conn = scene.server.connect();
    conn.send(get(&format!("{EVENTS}?topics=q"), "stream").as_bytes());
    let mut stream = Stream::over(conn);
    stream.expect("connected");
    let begun = Instant::now();
    while stream.conn.socket.write_all(&[b'x'; 4096]).is_ok() {
        assert!(begun.elapsed() < PATIENCE, "a stream takes input without end");
    }
    wait_until("its end", || scene.server.stat("/streams/closed/unexpected_input") >= 1);
    drop(stream);
    scene.assert_alone("pipelined requests");
}

#[test]
fn a_request_for_a_stream_has_no_body() {
    let mut scene = Scene::new(&[]);
    for (what, rest) in [
        ("a length", "Content-Length: 5\r\n\r\nhello"),
        ("a body to come", "Content-Length: 5\r\n\r\n"),
        ("chunks", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        ("a hidden request", "Content-Length: 36\r\n\r\nGET /health HTTP/1.1\r\nHost: evil\r\n\r\n"),
        ("an expectation", "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"),
    ] {
        let mut conn = scene.server.connect();
        conn.send(format!("GET {EVENTS}?topics=a HTTP/1.1\r\nHost: t\r\n{rest}").as_bytes());
        let answer = conn.answer().expect("an answer");
        assert_eq!(answer.status, 400, "{what}: {answer:?}");
        assert!(answer.text().contains("body"), "{what}: {answer:?}");
        conn.half_close();
        assert_eq!(statuses(&String::from_utf8_lossy(&conn.drain())), [0u16; 0], "{what}: one request, one answer");
        scene.assert_unmoved(what);
    }
    // A length of zero is no body.
    let mut stream = scene.server.stream_with("topics=a", "Content-Length: 0\r\n");
    scene.server.publish("a", "k", "{}");
    stream.expect("k");
    drop(stream);
    scene.assert_alone("bodies of requests for streams");
}

// ---- what is in a body, a query, a header

#[test]
fn names_cannot_inject_fields() {
    let mut scene = Scene::new(&[]);
    let mut all = scene.server.stream("");
    let controls: Vec<char> = (0..0x20).chain(0x7f..0xa0).filter_map(char::from_u32).collect();
    for control in controls {
        let name = serde_json::Value::from(format!("a{control}data: injected"));
        let escaped = common::percent_encoded(&format!("a{control}id: 1"));
        for answer in [
            scene.server.post_json(&format!("{{\"topic\":{name}}}")),
            scene.server.post_json(&format!("{{\"type\":{name}}}")),
            scene.server.ask(&format!("POST {BROADCAST}?topic={escaped} HTTP/1.1\r\nHost: t\r\n\r\n")),
            scene.server.ask(&format!("POST {BROADCAST}?type={escaped} HTTP/1.1\r\nHost: t\r\n\r\n")),
            scene.server.get(&format!("{EVENTS}?topics={escaped}")),
        ] {
            assert_eq!(answer.status, 400, "{control:?}: {answer:?}");
        }
        // And in a message or an id it is only text.
        let answer =
            scene.server.ask(&format!("POST {BROADCAST}?type=k&message={escaped} HTTP/1.1\r\nHost: t\r\n\r\n"));
        assert_eq!(answer.status, 200, "{control:?}");
        let event = all.expect("k");
        assert_eq!(event.json()["data"]["message"], format!("a{control}id: 1"));
        let mut resumed = scene.server.stream(&format!("topics=x&last_event_id={escaped}"));
        assert_eq!(resumed.expect("gap").json()["data"]["requested"], format!("a{control}id: 1"));
    }
    // The topics as asked come back in `connected`: quotes and the like cannot break out of them.
    let stream = scene.server.stream("topics=%22%7D%5C,%3Cscript%3E,%E2%80%A8");
    assert_eq!(stream.connected.json()["data"]["topics"], "\"}\\,<script>,\u{2028}");
    drop((all, stream));
    scene.assert_alone("control characters");
}

#[test]
fn broken_utf_8_is_an_error_or_a_replacement_never_a_broken_stream() {
    let mut scene = Scene::new(&[]);
    let mut all = scene.server.stream("");
    let broken: [&[u8]; 6] = [b"\xff", b"\xc3(", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf", b"\xe2\x82"];
    for bytes in broken {
        let mut body = b"{\"type\":\"k\",\"data\":{\"a\":\"".to_vec();
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\"}}");
        for content_type in ["application/json", "application/x-ndjson"] {
            let mut request = post(content_type, "");
            request = request.replace("Content-Length: 0", &format!("Content-Length: {}", body.len()));
            let mut conn = scene.server.connect();
            conn.send(request.as_bytes());
            conn.send(&body);
            let answer = conn.answer().expect("an answer");
            assert_eq!(answer.status, 400, "{bytes:?}: {answer:?}");
            assert!(answer.text().contains("UTF-8"), "{answer:?}");
        }
        let mut conn = scene.server.connect();
        conn.send(format!("GET {EVENTS}?topics=x HTTP/1.1\r\nHost: t\r\nLast-Event-ID: ").as_bytes());
        conn.send(bytes);
        conn.send(b"\r\n\r\n");
        // The parser of the events in this stream panics where they are not UTF-8.
        let mut stream = Stream::over(conn);
        if stream.head.status == 200 {
            stream.expect("connected");
            assert_eq!(stream.expect("gap").json()["data"]["reason"], "unknown_epoch");
        }
        let mut conn = scene.server.connect();
        conn.send(format!("GET {EVENTS}?topics=").as_bytes());
        conn.send(bytes);
        conn.send(b" HTTP/1.1\r\nHost: t\r\n\r\n");
        let answer = conn.head().expect("an answer");
        assert_eq!(answer.status, 400, "{bytes:?} as they are in a query: {answer:?}");
        scene.assert_unmoved("broken UTF-8");
        assert_eq!(all.next().kind, "tick", "of all that, only the witness's event was published");
    }
    drop(all);
    scene.assert_alone("broken UTF-8");
}

#[test]
fn deep_json_neither_overflows_nor_is_passed_on() {
    let mut scene = Scene::new(&[]);
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    let objects = |n: usize| format!("{}0{}", "{\"a\":".repeat(n), "}".repeat(n));
    for n in [1_000, 100_000, 400_000] {
        for body in [
            format!("{{\"data\":{{\"a\":{}}}}}", deep(n)),
            format!("{{\"data\":{{\"a\":{}}}}}", objects(n / 4)),
            deep(n),
            "[".repeat(n),
            "{\"data\":".repeat(n / 4),
            format!("[{{\"data\":{{\"a\":{}}}}}]", deep(n)),
        ] {
            let answer = scene.server.post_json(&body);
            assert_eq!(answer.status, 400, "{n}: {}", answer.text());
        }
        // In what is ignored, depth is ignored too, or refused; it is not fatal.
        let answer = scene.server.post_json(&format!("{{\"x\":{},\"topic\":\"nobody\"}}", deep(n)));
        assert!(matches!(answer.status, 200 | 400), "{}", answer.text());
        scene.assert_unmoved("deep JSON");
    }
    // Brackets in strings are no depth, and what pages can parse is passed on.
    let mut stream = scene.server.stream("topics=deep");
    let flat = format!("{{\"a\":\"{}\"}}", "[{".repeat(10_000));
    scene.server.publish("deep", "k", &flat);
    stream.expect("k");
    scene.server.publish("deep", "k", &format!("{{\"a\":{}}}", deep(100)));
    stream.expect("k");
    drop(stream);
    scene.assert_alone("deep JSON");
}

#[test]
fn duplicate_keys_mean_one_thing() {
    let mut scene = Scene::new(&[]);
    let mut all = scene.server.stream("");
    for body in [
        r#"{"topic":"a","topic":"b"}"#,
        r#"{"type":"a","ty\u0070e":"b"}"#,
        r#"{"data":{},"data":{"x":1}}"#,
        r#"[{"topic":"a","topic":"b"}]"#,
    ] {
        let answer = scene.server.post_json(body);
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        assert!(answer.text().contains("duplicate"), "{body}: {answer:?}");
    }
    // Ignored keys may repeat; those within data are the publisher's own business and are passed on.
    scene.server.post_json(r#"{"x":1,"x":2,"type":"k"}"#);
    all.expect("k");
    scene.server.publish("a", "k", r#"{"a":1,"a":2,"timestamp":1,"timestamp":2}"#);
    assert!(all.expect("k").data.contains(r#"{"a":1,"a":2,"timestamp":1,"timestamp":2}"#));
    drop(all);
    scene.assert_alone("duplicate keys");
}

#[test]
fn a_giant_query_within_the_limit_is_read_or_refused_quickly() {
    let mut scene = Scene::new(&["--max-head", "1MiB"]);
    let begun = Instant::now();
    for query in [
        format!("topics={}", "a,".repeat(30_000)),
        format!("topics={}", vec!["a"; 30_000].join("&topics=")),
        "&".repeat(60_000),
        "%".repeat(60_000),
        "=".repeat(60_000),
        "a=b&".repeat(15_000),
        format!("since={}", "9".repeat(60_000)),
        format!("limit={}", "9".repeat(60_000)),
        format!("last_event_id={}", "-".repeat(60_000)),
        format!("topics={}", "+".repeat(60_000)),
    ] {
        let mut conn = scene.server.connect();
        conn.send(format!("GET {EVENTS}?{query} HTTP/1.1\r\nHost: t\r\n\r\n").as_bytes());
        let head = conn.head().expect("an answer");
        assert!(matches!(head.status, 200 | 400 | 414 | 431), "{head:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    scene.assert_alone("giant queries");
}

// ---- connections that break

#[test]
fn half_closed_sockets_end_cleanly() {
    let mut scene = Scene::new(&[]);
    // A publisher that has said all and closes its side still gets its answer: `nc -N` does it so.
    for _ in 0..20 {
        let mut conn = scene.server.connect();
        conn.send(post("application/json", &numbered("nobody", 1)).as_bytes());
        conn.half_close();
        let answer = conn.answer().expect("an answer to a complete request");
        assert_eq!(answer.status, 200);
        assert_eq!(conn.drain(), b"");
    }
    // A listener that closes its side, before or after the head, has gone or gets what it asked for; either way it ends.
    for late in [false, true] {
        let mut conn = scene.server.connect();
        conn.send(format!("GET {EVENTS}?topics=a HTTP/1.1\r\nHost: t\r\n\r\n").as_bytes());
        if late {
            conn.head().expect("a head");
        }
        conn.half_close();
        conn.drain();
    }
    // In the middle of a head and of a body.
    assert_eq!(throw(&scene.server, b"GET /hea"), "");
    let said = throw(&scene.server, post("application/json", "{}").replace("{}", "{").as_bytes());
    assert!(said.is_empty() || statuses(&said) == [400], "{said:?}");
    scene.assert_alone("half-closed sockets");
}

#[test]
fn resets_at_any_moment_harm_nobody() {
    let mut scene = Scene::new(&[]);
    let payload = format!("{{\"a\":\"{}\"}}", "x".repeat(100_000));
    for round in 0..10 {
        // Unread data makes the close a reset; here it comes while frames are on their way.
        let streams: Vec<Stream> = (0..20).map(|_| scene.server.stream("topics=big")).collect();
        let mut publisher = scene.server.publisher();
        for _ in 0..5 {
            publisher.publish("big", "k", &payload);
        }
        let mut some = Vec::new();
        for (n, mut stream) in streams.into_iter().enumerate() {
            if n % 2 == 0 {
                let mut little = [0; 777];
                let _ = stream.conn.socket.read(&mut little);
            }
            some.push(stream);
            if n % 5 == round % 5 {
                publisher.publish("big", "k", &payload);
            }
            some.truncate(7);
        }
        drop(some);
        scene.assert_unmoved("resets");
    }
    // And resets of requests: sent, and not waited for.
    for n in 0..100 {
        let mut conn = scene.server.connect();
        let request = format!("GET {EVENTS}?topics=a HTTP/1.1\r\nHost: t\r\n\r\n");
        let _ = conn.socket.write_all(&request.as_bytes()[..request.len() - n % 20]);
        drop(conn);
    }
    scene.assert_alone("resets");
}

#[test]
fn a_subscribe_that_is_torn_off_leaves_nothing_behind() {
    let mut scene = Scene::new(&[]);
    let topics = scene.server.stat("/history/topics");
    for n in 0..200 {
        let mut conn = scene.server.connect();
        conn.send(format!("GET {EVENTS}?topics=torn-{n} HTTP/1.1\r\nHost: t\r\n\r\n").as_bytes());
    }
    scene.assert_alone("torn subscribes");
    wait_until("their topics to be forgotten", || {
        // The witness's event is one topic more than before.
        scene.server.stat("/history/topics") <= topics + 1
    });
}

// ---- floods

#[test]
fn many_topics_published_to_once_do_not_stay_in_memory() {
    let mut scene = Scene::new(&["--history-bytes", "4MiB"]);
    let mut publisher = scene.server.publisher();
    let mut flood = |from: usize, to: usize| {
        for batch in (from..to).step_by(1000) {
            let events: Vec<String> = (batch..batch + 1000).map(|n| numbered(&format!("topic-{n}"), n)).collect();
            publisher.post(&format!("[{}]", events.join(",")));
        }
    };
    flood(0, 40_000);
    let settled = scene.server.rss_kb();
    flood(40_000, 200_000);
    let after = scene.server.rss_kb();
    // 160,000 topics kept would be 50 MB and more.
    assert!(after < settled + 16 * 1024, "{settled} kB after 40,000 topics, {after} kB after 200,000");
    let stats = scene.server.stats();
    assert!(stats["history"]["bytes"].as_u64() <= Some(4 << 20), "{stats}");
    assert!(stats["history"]["topics"].as_u64() < Some(20_000), "{stats}");
    scene.assert_alone("many topics");
}

#[test]
fn topics_are_forgotten_without_history_too() {
    let mut scene = Scene::new(&["--topic-events", "0", "--live-events", "64"]);
    let mut publisher = scene.server.publisher();
    for batch in 0..20 {
        let events: Vec<String> = (0..1000).map(|n| numbered(&format!("topic-{batch}-{n}"), n)).collect();
        publisher.post(&format!("[{}]", events.join(",")));
    }
    let topics = scene.server.stat("/history/topics");
    assert!(topics < 2_000, "{topics} topics are kept without any event of theirs");
    scene.assert_alone("topics without history");
}

#[test]
fn many_topics_listened_to_once_do_not_stay_either() {
    let mut scene = Scene::new(&[]);
    for n in 0..50 {
        let names: Vec<String> = (0..60).map(|m| format!("t-{n}-{m}")).collect();
        drop(scene.server.stream(&format!("topics={}", names.join(","))));
    }
    scene.server.wait_for_clients(1);
    wait_until("the topics to be forgotten", || scene.server.stat("/history/topics") <= 2);
    scene.assert_alone("many topics of listeners");
}

#[test]
fn random_bytes_never_get_through() {
    let mut scene = Scene::new(&["--head-timeout", "1s", "--idle-timeout", "1s", "--body-timeout", "1s"]);
    let mut random = Random(20_261_123);
    let seeds = [
        format!("GET {EVENTS}?topics=fuzz&last=3&since=10m HTTP/1.1\r\nHost: t\r\nLast-Event-ID: a-1\r\n\r\n"),
        post("application/json", r#"{"topic":"fuzz","type":"fuzz","data":{"a":[1,2,{"b":null}],"c":"d\n"}}"#),
        post("application/x-ndjson", "{\"topic\":\"fuzz\"}\n{\"type\":\"fuzz\"}\n"),
        format!(
            "POST {BROADCAST} HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"
        ),
        "HEAD /api/v1/events HTTP/1.0\r\n\r\n".to_owned(),
    ];
    for round in 0..600 {
        let mut bytes = seeds[random.below(seeds.len())].clone().into_bytes();
        if round % 10 == 0 {
            bytes = (0..random.below(400)).map(|_| random.next() as u8).collect();
        }
        for _ in 0..random.below(6) {
            if bytes.is_empty() {
                break;
            }
            let at = random.below(bytes.len());
            match random.below(5) {
                0 => bytes[at] = random.next() as u8,
                1 => bytes[at] ^= 1 << random.below(8),
                2 => drop(bytes.drain(at..(at + random.below(9)).min(bytes.len()))),
                3 => bytes.insert(at, b"\r\n\0:,{}[]\"\\%&=? \xff"[random.below(17)]),
                _ => {
                    let piece: Vec<u8> = bytes[at..(at + random.below(40)).min(bytes.len())].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
        }
        let mut conn = scene.server.connect();
        let _ = conn.socket.write_all(&bytes);
        let _ = conn.socket.shutdown(Shutdown::Write);
        // A stream may come of it, which ends by our closing; whatever comes is an answer or nothing.
        let said = conn.drain();
        let text = String::from_utf8_lossy(&said);
        assert!(said.is_empty() || text.starts_with("HTTP/1."), "{text:?} to {:?}", String::from_utf8_lossy(&bytes));
        assert!(!statuses(&text).iter().any(|status| *status >= 500), "{text:?}");
        if round % 100 == 99 {
            scene.assert_unmoved("random bytes");
        }
    }
    scene.assert_alone("random bytes");
}

#[test]
fn a_crowd_of_silent_connections_keeps_nobody_out_for_long() {
    let mut scene = Scene::new(&["--max-connections", "50", "--head-timeout", "500ms"]);
    let crowd: Vec<Conn> = (0..200).map(|_| scene.server.connect()).collect();
    // They hold all places for requests. Whoever comes then is refused at once, and served as soon as there is room.
    let begun = Instant::now();
    wait_until("room", || {
        let mut conn = scene.server.connect();
        // A few at a time are told why. The others are closed.
        let _ = conn.socket.write_all(b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n");
        let Ok(answer) = conn.answer() else { return false };
        assert!(matches!(answer.status, 200 | 503), "{answer:?}");
        answer.status == 200
    });
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    drop(crowd);
    scene.assert_alone("a crowd");
}

#[test]
fn streams_do_not_take_the_places_of_requests() {
    let mut scene = Scene::new(&["--max-connections", "4"]);
    let streams: Vec<Stream> = (0..40).map(|_| scene.server.stream("topics=a")).collect();
    scene.server.publish("a", "k", "{}");
    for mut stream in streams {
        stream.expect("k");
    }
    scene.assert_alone("more streams than places for requests");
}

#[test]
fn an_ended_stream_does_not_wait_for_its_client_for_ever() {
    let mut scene = Scene::new(&[]);
    // The client never closes its side, and has sent something that is never read.
    let mut stream = scene.server.stream("topics=a&limit=1");
    stream.conn.send(b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n");
    scene.server.publish("a", "k", "{}");
    let (events, end) = stream.read_to_end();
    assert_eq!((events.len(), end), (1, End::Clean), "no reset takes the last frames away");
    assert!(stream.next_within(SILENCE).is_none());
    scene.assert_alone("an ended stream");
}
