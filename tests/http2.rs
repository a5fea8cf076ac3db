//! HTTP/2 without TLS, with prior knowledge (RFC 9113, section 3.3): many streams on one connection, each held up by its own
//! flow control alone, and hostile clients. `streams.rs` tests what a stream has in common with other transports.

mod common;
#[path = "common/http2.rs"]
mod http2;

use common::{Conn, EVENTS, PATIENCE, Random, Server, SseEvent, Stream, fanfare, find, numbered, wait_until};
use h2::Reason;
use h2::client::Builder;
use http2::{Http2, Http2Stream, get, post};
use hyper::Request;
use jsonwebtoken::{EncodingKey, Header};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Whether a tool is there; says so where it is not.
fn has(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: there is no {tool}");
    }
    found
}

fn closed(server: &Server, reason: &str) -> u64 {
    server.stat(&format!("/streams/closed/{reason}"))
}

// ---- the same as over HTTP/1.1

#[test]
fn curl_listens_and_publishes() {
    if !has("curl") {
        return;
    }
    let server = Server::start(&[]);
    let curl = |arguments: &[&str]| {
        let mut curl = Command::new("curl");
        curl.args(["--http2-prior-knowledge", "-sS", "--max-time", "20", "-w", "\n%{http_version} %{http_code}"]);
        let output = curl.args(arguments).output().expect("curl runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let url = |path: &str| format!("http://{}{path}", server.addr);
    let json = ["-H", "Content-Type: application/json", "-d", &numbered("a", 1)];
    let said = curl(&[&json[..], &[&url(common::BROADCAST)]].concat());
    assert!(said.starts_with("{\"success\":true,") && said.ends_with("\n2 200"), "{said}");
    let said = curl(&["-N", &url(&format!("{EVENTS}?topics=a&last=1&limit=1"))]);
    assert!(said.starts_with("event: connected\n") && said.contains("\"n\":1") && said.ends_with("\n2 200"), "{said}");
    assert!(curl(&[&url("/nowhere")]).ends_with("\n2 404"));
    assert!(curl(&["-X", "PUT", &url(EVENTS)]).ends_with("\n2 405"));
}

#[test]
fn h2load_ends_many_streams() {
    if !has("h2load") {
        return;
    }
    let server = Server::start(&["--streams-per-address", "100000", "--connections-per-second", "0"]);
    server.publish("a", "tick", "{}");
    let url = format!("http://{}{EVENTS}?topics=a&last=1&limit=1", server.addr);
    let output = Command::new("h2load").args(["-n", "3000", "-c", "6", "-m", "100", &url]).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("3000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
    server.wait_for_clients(0);
    assert_eq!(closed(&server, "limit_reached"), 3000);
}

// ---- many streams, each for itself

#[test]
fn hundreds_of_streams_share_a_connection() {
    let server = Server::start(&["--http2-streams", "400", "--shards", "2"]);
    let mut client = Http2::to(&server);
    let mut streams: Vec<Http2Stream> = (0..400).map(|n| client.stream(&format!("topics=t{},b", n % 40))).collect();
    assert_eq!(server.stat("/connected_clients"), 400);
    for n in 0..40 {
        server.publish(&format!("t{n}"), "tick", &format!("{{\"n\":{n}}}"));
    }
    server.publish("b", "tick", "{\"n\":99}");
    for (n, stream) in streams.iter_mut().enumerate() {
        assert_eq!(client.expect(stream, "tick").n(), n % 40);
        assert_eq!(client.expect(stream, "tick").n(), 99);
    }
    // Half are reset, the others' connection ends.
    streams.drain(..200).for_each(Http2Stream::reset);
    server.wait_for_clients(200);
    assert_eq!(closed(&server, "client_closed"), 200);
    drop((streams, client));
    server.wait_for_clients(0);
    assert_eq!(closed(&server, "client_closed"), 400);
    assert_eq!(server.stat("/streams/opened"), 400);
}

#[test]
fn a_stream_that_is_not_read_stalls_no_other_and_is_closed() {
    let server = Server::start(&["--stall-timeout", "1s", "--heartbeat", "10m"]);
    let mut client = Http2::to(&server);
    let mut stuck = client.stream("topics=a");
    let mut others: Vec<Http2Stream> = (0..20).map(|_| client.stream("topics=a")).collect();
    let (data, mut n) = ("x".repeat(8_000), 0);
    let begun = Instant::now();
    // Its window, of 64 KiB, is full after a few; the others' are opened as they read.
    while closed(&server, "stalled") == 0 {
        server.publish("a", "tick", &format!("{{\"n\":{n},\"a\":\"{data}\"}}"));
        for stream in &mut others {
            assert_eq!(client.expect(stream, "tick").n(), n);
        }
        n += 1;
        assert!(begun.elapsed() < PATIENCE, "it was never closed");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    assert_eq!(server.stat("/connected_clients"), 20, "its seat is given back");
    // It is not only forgotten: the client learns of it, and nothing of it is left on the connection.
    let (events, end) = client.read_to_end(&mut stuck);
    assert!(events.len() < n, "the rest was never sent");
    assert_eq!(end.expect_err("it was reset").reason(), Some(Reason::CANCEL));
    server.publish("a", "tick", "{\"n\":12345}");
    for stream in &mut others {
        assert_eq!(client.expect(stream, "tick").n(), 12345);
    }
    assert_eq!((closed(&server, "stalled"), closed(&server, "client_closed")), (1, 0));
}

#[test]
fn a_stream_without_any_window_is_closed() {
    let server = Server::start(&["--stall-timeout", "700ms", "--heartbeat", "200ms", "--idle-timeout", "1s"]);
    let mut client = Http2::with(&server, Builder::new().initial_window_size(0));
    let mut streams: Vec<Http2Stream> = (0..30).map(|_| client.open(get(&format!("{EVENTS}?topics=a")))).collect();
    wait_until("all to be closed", || closed(&server, "stalled") == 30);
    server.wait_for_clients(0);
    for stream in &mut streams {
        let (events, end) = client.read_to_end(stream);
        assert_eq!((events.len(), end.expect_err("it was reset").reason()), (0, Some(Reason::CANCEL)));
    }
    // And what they held of the connection is given back: it rests, and ends.
    assert!(client.end().is_ok());
}

#[test]
fn a_stalled_connection_ends_as_its_streams_stall() {
    let server = Server::start(&["--stall-timeout", "1s", "--heartbeat", "300ms", "--send-buffer", "16KiB"]);
    // By hand, since a client that does not read its socket must not be driven.
    let mut conn = server.connect();
    let settings = [frame(4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]), frame(8, 0, 0, &0x3fff_0000u32.to_be_bytes())];
    conn.send(&[PREFACE, &settings.concat(), &headers(1, EVENTS), &headers(3, EVENTS)].concat());
    server.wait_for_clients(2);
    let before = server.rss_kb();
    let mut publisher = server.publisher();
    let data = format!("{{\"a\":\"{}\"}}", "x".repeat(20_000));
    for _ in 0..1_000 {
        publisher.publish("a", "tick", &data);
    }
    wait_until("both to be closed", || closed(&server, "stalled") == 2);
    server.wait_for_clients(0);
    // 2 × 20 MB were not queued; the log's own share of them is less than this.
    assert!(server.rss_kb() < before + 60 * 1024, "{before} kB, then {} kB", server.rss_kb());
}

// ---- streams that are ended

/// A token that is good for so many more seconds.
fn token(user: &str, seconds: u64) -> String {
    let exp = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() + seconds;
    let claims = serde_json::json!({"user_id": user, "exp": exp});
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).expect("signed")
}

const SECRET: &str = "a secret of more than 32 bytes that nobody else knows";

/// A stream that cannot be told because it has no window is ended all the same.
#[test]
fn token_that_expires_ends_a_stream_without_any_window() {
    let mut command = fanfare();
    command.env("JWT_SECRET", SECRET);
    command.args(["--listen", "127.0.0.1:0", "--auth", "required", "--jwt-leeway", "0s", "--stall-timeout", "1s"]);
    let server = Server::spawn(command);
    let mut stuck = Http2::with(&server, Builder::new().initial_window_size(0));
    assert_eq!(stuck.try_ask(get(EVENTS), None).expect("an answer").status(), 401);
    let mut unread = stuck.open(get(&format!("{EVENTS}?access_token={}", token("stuck", 1))));
    wait_until("it to be ended", || closed(&server, "token_expired") == 1 || closed(&server, "stalled") == 1);
    assert!(stuck.read_to_end(&mut unread).1.is_err());
}

#[test]
fn a_drain_ends_streams_then_the_connection() {
    let mut server = Server::start(&["--grace", "2s", "--retry", "1s"]);
    let mut client = Http2::to(&server);
    let mut streams: Vec<Http2Stream> = (0..50).map(|_| client.stream("topics=a")).collect();
    let mut resting = Http2::to(&server);
    assert_eq!(resting.ask(get("/health"), None).0.status, 200);
    let batch: Vec<String> = (0..100).map(|n| numbered("a", n)).collect();
    let id = client.publish(&format!("[{}]", batch.join(",")));
    let begun = Instant::now();
    server.signal("TERM");
    for stream in &mut streams {
        let (events, end) = client.read_to_end(stream);
        assert!(end.is_ok(), "{end:?}");
        let farewell = stream.bye.take().expect("it is told when to come back");
        assert!(farewell.json()["data"]["reason"] == "drained" && farewell.retry.is_some_and(|ms| ms >= 1000));
        assert!(events.iter().map(SseEvent::n).eq(0..100), "{} events", events.len());
        assert_eq!(farewell.last_event_id, id);
    }
    assert!(client.end().is_ok(), "GOAWAY without an error, then the connection's end");
    assert!(resting.end().is_ok());
    assert_eq!(server.wait_for_exit(PATIENCE).code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
}

#[test]
fn a_drain_does_not_wait_for_those_who_take_nothing() {
    let mut server = Server::start(&["--grace", "1s"]);
    let mut client = Http2::with(&server, Builder::new().initial_window_size(0));
    let mut stuck: Vec<Http2Stream> = (0..5).map(|_| client.open(get(EVENTS))).collect();
    server.wait_for_clients(5);
    let begun = Instant::now();
    server.signal("TERM");
    for stream in &mut stuck {
        assert!(client.read_to_end(stream).1.is_err());
    }
    assert_eq!(server.wait_for_exit(PATIENCE).code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
}

#[test]
fn a_newcomer_is_answered_while_it_drains() {
    let mut server = Server::start(&["--grace", "8s"]);
    let mut client = Http2::to(&server);
    // Their ends are spread over six seconds, which is long enough for what comes meanwhile.
    let mut streams: Vec<_> = (0..30).map(|_| client.stream("topics=a")).collect();
    server.signal("TERM");
    wait_until("it drains", || server.get("/ready").status == 503);
    let mut late = Http2::to(&server);
    assert_eq!(late.ask(get("/ready"), None).0.status, 503);
    assert!(late.end().is_ok());
    let mut listener = Http2::to(&server);
    assert_eq!(listener.try_ask(get(EVENTS), None).expect("an answer").status(), 503);
    for stream in &mut streams {
        assert!(client.read_to_end(stream).1.is_ok());
    }
    assert_eq!(server.wait_for_exit(PATIENCE).code(), Some(0));
}

// ---- a connection's own time

#[test]
fn a_connection_at_rest_is_closed_and_one_with_a_stream_is_not() {
    let server = Server::start(&["--idle-timeout", "600ms", "--heartbeat", "10m"]);
    let mut resting = Http2::to(&server);
    assert_eq!(resting.ask(get("/health"), None).0.status, 200);
    let mut busy = Http2::to(&server);
    let mut stream = busy.stream("topics=a");
    let begun = Instant::now();
    assert!(resting.end().is_ok(), "with GOAWAY and no error");
    assert!(begun.elapsed() >= Duration::from_millis(400) && begun.elapsed() < Duration::from_secs(10));
    thread::sleep(Duration::from_millis(1500));
    server.publish("a", "tick", "{\"n\":1}");
    assert_eq!(busy.expect(&mut stream, "tick").n(), 1);
    stream.reset();
    assert!(busy.end().is_ok(), "and it rests after its stream");
}

#[test]
fn the_first_request_has_a_deadline() {
    let mut server = Server::start(&["--head-timeout", "500ms", "--idle-timeout", "10m"]);
    let begun = Instant::now();
    assert!(Http2::to(&server).end().is_ok());
    assert!(begun.elapsed() >= Duration::from_millis(400) && begun.elapsed() < Duration::from_secs(10));
    // Half a preface, and a head without its end.
    let mut half = server.connect();
    half.send(&PREFACE[..10]);
    half.drain();
    let mut head = server.connect();
    head.send(&[PREFACE, &frame(4, 0, 0, &[]), &frame(1, 0, 1, b"\x82")].concat());
    head.drain();
    server.assert_well();
}

// ---- requests

#[test]
fn what_begins_like_http_2_and_is_not_is_served() {
    let server = Server::start(&[]);
    for pieces in
        [["P", "OST /health HTTP/1.1\r\nHost: t\r\n\r\n"], ["PR", "OPFIND /health HTTP/1.1\r\nHost: t\r\n\r\n"]]
    {
        let mut conn = server.connect();
        for piece in pieces {
            conn.send(piece.as_bytes());
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(conn.answer().expect("an answer").status, 405, "{pieces:?}");
    }
    // And the preface may come in pieces.
    let mut conn = server.connect();
    let all = [PREFACE, &frame(4, 0, 0, &[]), &headers(1, "/health")].concat();
    for byte in all.chunks(5) {
        conn.send(byte);
        thread::sleep(Duration::from_millis(5));
    }
    assert!(frames_until(&mut conn, |frame| frame.kind == 0 && find(&frame.payload, b"healthy").is_some()));
}

#[test]
fn publishing_has_its_bounds() {
    let server = Server::start(&["--max-body", "64KiB", "--body-timeout", "500ms"]);
    let mut stream = server.stream("topics=a");
    let mut client = Http2::to(&server);
    client.publish(&numbered("a", 1));
    assert_eq!(stream.expect("tick").n(), 1);
    // Larger than it may be: as announced, and as it comes.
    let announced = Request::post(post().uri()).header("content-type", "application/json");
    let announced = announced.header("content-length", "100000").body(()).expect("a request");
    let large = vec![b' '; 100_000];
    for request in [announced, post()] {
        let answer = client.try_ask(request, Some(&large)).map(|answer| answer.status().as_u16());
        assert_eq!(answer.expect("an answer before the reset"), 413);
    }
    // Too slow, and never.
    let begun = Instant::now();
    let (answer, sending) = client.try_send(post(), false).expect("sent");
    assert_eq!(client.wait(answer).expect("an answer").status(), 408);
    assert!(begun.elapsed() >= Duration::from_millis(400));
    drop(sending);
    // Trailers are read and mean nothing (RFC 9110, section 6.5.1).
    let (answer, mut sending) = client.try_send(post(), false).expect("sent");
    sending.send_data(numbered("a", 2).into(), false).expect("it is open");
    sending
        .send_trailers(
            [(hyper::header::HeaderName::from_static("x-end"), "1".parse().expect("a value"))].into_iter().collect(),
        )
        .expect("it is open");
    assert_eq!(client.wait(answer).expect("an answer").status(), 200);
    assert_eq!(stream.expect("tick").n(), 2);
    // A stream's request has no body.
    let (answer, mut sending) = client.try_send(get(EVENTS), false).expect("sent");
    let answer = client.wait(answer).expect("an answer");
    assert_eq!(answer.status(), 400);
    let _ = sending.send_data("x".into(), true);
    // `HEAD` opens no stream.
    let head = Request::head(format!("http://t{EVENTS}")).body(()).expect("a request");
    let (head, body) = client.ask(head, None);
    assert_eq!((head.status.as_u16(), body.len()), (200, 0));
    assert_eq!(server.stat("/connected_clients"), 1);
    assert_eq!(client.ask(get("/health"), None).0.status, 200, "all on one connection");
}

// ---- hostile clients

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field as a literal that is not indexed, without Huffman (RFC 7541, section 6.2.2).
fn field(name: &str, value: &str) -> Vec<u8> {
    let string = |text: &str| {
        // Lengths of 127 and more continue in further bytes (section 5.1).
        let mut bytes = Vec::new();
        match text.len() {
            short @ ..127 => bytes.push(u8::try_from(short).expect("short")),
            long => {
                bytes.push(127);
                let mut rest = long - 127;
                while rest >= 128 {
                    bytes.push(u8::try_from(rest % 128).expect("short") | 128);
                    rest /= 128;
                }
                bytes.push(u8::try_from(rest).expect("short"));
            }
        }
        bytes.extend_from_slice(text.as_bytes());
        bytes
    };
    [vec![0], string(name), string(value)].concat()
}

/// The fields of `GET path`.
fn fields(path: &str) -> Vec<u8> {
    [field(":method", "GET"), field(":scheme", "http"), field(":authority", "t"), field(":path", path)].concat()
}

/// `GET path` in one frame: END_STREAM and END_HEADERS.
fn headers(stream: u32, path: &str) -> Vec<u8> {
    frame(1, 5, stream, &fields(path))
}

struct Frame {
    kind: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// Reads frames until one is what is looked for; false if the connection ends before.
fn frames_until(conn: &mut Conn, mut is_it: impl FnMut(&Frame) -> bool) -> bool {
    use std::io::Read;
    let mut head = [0; 9];
    loop {
        if conn.socket.read_exact(&mut head).is_err() {
            return false;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        if conn.socket.read_exact(&mut payload).is_err() {
            return false;
        }
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        if is_it(&Frame { kind: head[3], stream, payload }) {
            return true;
        }
    }
}

#[test]
fn more_streams_than_there_may_be_are_refused() {
    let mut server = Server::start(&["--http2-streams", "5"]);
    let mut conn = server.connect();
    let many: Vec<u8> = (0..50).flat_map(|n| headers(1 + 2 * n, EVENTS)).collect();
    conn.send(&[PREFACE, &frame(4, 0, 0, &[]), &many].concat());
    let mut refused = 0;
    // RST_STREAM with REFUSED_STREAM (RFC 9113, sections 5.1.2 and 7).
    let all = frames_until(&mut conn, |frame| {
        if frame.kind == 3 {
            assert_eq!(frame.payload, 7u32.to_be_bytes(), "stream {}", frame.stream);
            refused += 1;
        }
        refused == 45
    });
    assert!(all, "{refused} were refused");
    // Each exchange is a task of its own, which may come after the refusals.
    server.wait_for_clients(5);
    server.assert_well();
}

#[test]
fn a_flood_of_resets_ends_its_connection_and_nothing_else() {
    let mut server = Server::start(&["--connections-per-second", "0"]);
    let mut witness = Http2::to(&server);
    let mut heard = witness.stream("topics=a");
    for round in 0..3 {
        let mut conn = server.connect();
        let _ = conn.socket.set_write_timeout(Some(Duration::from_secs(5)));
        use std::io::Write;
        let mut flood = [PREFACE, &frame(4, 0, 0, &[])].concat();
        for n in 0..20_000 {
            flood.extend(headers(1 + 2 * n, EVENTS));
            flood.extend(frame(3, 0, 1 + 2 * n, &8u32.to_be_bytes()));
        }
        // It may be cut off in the middle of it.
        let _ = conn.socket.write_all(&flood);
        // GOAWAY with ENHANCE_YOUR_CALM (CVE-2023-44487), unless the connection broke before it could be read.
        let mut reason = None;
        frames_until(&mut conn, |frame| {
            reason = (frame.kind == 7).then(|| frame.payload[4..8].to_vec());
            reason.is_some()
        });
        assert!(reason.is_none_or(|reason| reason == 11u32.to_be_bytes()));
        drop(conn);
        server.publish("a", "tick", &format!("{{\"n\":{round}}}"));
        assert_eq!(witness.expect(&mut heard, "tick").n(), round);
    }
    server.wait_for_clients(1);
    server.assert_well();
}

#[test]
fn oversized_heads_are_refused() {
    let mut server = Server::start(&["--max-head", "16KiB"]);
    let mut client = Http2::to(&server);
    let mut stream = client.stream("topics=a");
    let long = Request::get("http://t/health").header("x", "x".repeat(20_000)).body(()).expect("a request");
    let refused = client.try_ask(long, None);
    assert!(refused.is_err() || refused.is_ok_and(|answer| answer.status() == 431), "refused");
    assert_eq!(client.ask(get("/health"), None).0.status, 200);
    server.publish("a", "tick", "{\"n\":1}");
    assert_eq!(client.expect(&mut stream, "tick").n(), 1);
    // A head that never ends, in CONTINUATION frames (VU#421644).
    let mut conn = server.connect();
    conn.send(&[PREFACE, &frame(4, 0, 0, &[]), &frame(1, 1, 1, &fields("/health"))].concat());
    let piece = frame(9, 0, 1, &field("x", &"x".repeat(8_000)));
    use std::io::Write;
    let ended = (0..10_000).any(|_| conn.socket.write_all(&piece).is_err());
    assert!(ended, "80 MB of one head were taken");
    server.assert_well();
}

#[test]
fn broken_frames_end_their_connection_alone() {
    let mut server = Server::start(&["--connections-per-second", "0"]);
    let mut witness = Http2::to(&server);
    let mut heard = witness.stream("topics=a");
    let mut random = Random(7);
    for round in 0..60 {
        let mut bytes = [PREFACE, &frame(4, 0, 0, &[]), &headers(1, EVENTS)].concat();
        for _ in 0..random.below(20) {
            let payload: Vec<u8> = (0..random.below(40)).map(|_| random.next() as u8).collect();
            bytes.extend(frame(random.below(12) as u8, random.next() as u8, random.below(6) as u32, &payload));
        }
        let mut conn = server.connect();
        use std::io::Write;
        let _ = conn.socket.write_all(&bytes);
        conn.half_close();
        let _ = conn.socket.set_read_timeout(Some(Duration::from_millis(100)));
        while conn.fill().is_ok_and(|n| n > 0) {}
        drop(conn);
        server.publish("a", "tick", &format!("{{\"n\":{round}}}"));
        assert_eq!(witness.expect(&mut heard, "tick").n(), round);
    }
    server.wait_for_clients(1);
    server.assert_well();
}

// ---- memory

/// What an idle stream costs, of 100 on each connection: the server's resident memory with 1,000 and with 3,000 of them.
#[test]
#[ignore = "measures memory: cargo test --release --test http2 -- --ignored --nocapture"]
fn memory_of_an_idle_stream() {
    let server = Server::start(&["--connections-per-second", "0"]);
    let mut held = Vec::new();
    let mut grow_to = |connections: usize| {
        while held.len() < connections {
            let mut client = Http2::to(&server);
            let streams: Vec<Http2Stream> = (0..100).map(|_| client.stream("topics=a")).collect();
            held.push((client, streams));
        }
        thread::sleep(Duration::from_secs(2));
        server.rss_kb() * 1024
    };
    let (few, many) = (grow_to(10), grow_to(30));
    let each = many.saturating_sub(few) / 2_000;
    println!("{each} bytes a stream over HTTP/2, 100 streams a connection");
    assert!(each <= 3_000, "{each} bytes a stream");
}

/// Streams of both protocols side by side: a check that this file's client and the other one see the same server.
#[test]
fn both_protocols_share_a_port() {
    let server = Server::start(&[]);
    let mut client = Http2::to(&server);
    let mut two = client.stream("topics=a");
    let mut one: Stream = server.stream("topics=a");
    client.publish(&numbered("a", 5));
    assert_eq!((client.expect(&mut two, "tick").n(), one.expect("tick").n()), (5, 5));
}
