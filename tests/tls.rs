//! TLS with real clients over the real binary: HTTP/1.1 and HTTP/2 by ALPN, certificates that are replaced while streams are
//! open, and hostile clients. `streams.rs` tests the streams themselves.

mod common;
#[path = "common/http2.rs"]
mod http2;
#[path = "common/tls.rs"]
mod tls;

use common::{Conn, EVENTS, End, PATIENCE, Server, SseEvent, Stream, numbered, wait_until};
use h2::client::Builder;
use http2::Http2;
use rustls::pki_types::CertificateDer;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use tls::{Tunnel, client, connect, shown, start, tls_address};
use tokio::runtime::Runtime;

fn closed(server: &Server, reason: &str) -> u64 {
    server.stat(&format!("/streams/closed/{reason}"))
}

// ---- clients that nobody here wrote

#[test]
fn curl_speaks_both_protocols() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("skipped: there is no curl");
        return;
    }
    let server = start(&[]);
    let id = server.publish("a", "tick", "{\"n\":1}");
    let url = |path: &str| format!("https://localhost:{}{path}", tls_address(&server).port());
    let curl = |arguments: &[&str]| {
        let mut curl = Command::new("curl");
        curl.args(["-ksSN", "--max-time", "20", "-w", "\n%{http_version} %{http_code}"]).args(arguments);
        let output = curl.output().expect("curl runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    for (flag, end) in [("--http1.1", "\n1.1 200"), ("--http2", "\n2 200"), ("--tls-max=1.2", "\n2 200")] {
        let flags: Vec<&str> = flag.split('=').collect();
        let ask = |path: &str| curl(&[&flags[..], &[&url(path)]].concat());
        let said = ask(&format!("{EVENTS}?topics=a&last=1&limit=1"));
        assert!(said.starts_with("event: connected\n") && said.contains(&id) && said.ends_with(end), "{flag}: {said}");
        assert!(ask("/health").ends_with(end));
        let body = numbered("b", 1);
        let post = ["-H", "Content-Type: application/json", "-d", &body, &url(common::BROADCAST)];
        assert!(curl(&[&flags[..], &post].concat()).ends_with(end));
    }
    let refused = Command::new("curl").args(["-sS", &url("/health")]).output().expect("curl runs");
    assert_eq!(refused.status.code(), Some(60), "a certificate of one's own is not trusted without being told");
}

// ---- HTTP/1.1 within TLS

#[test]
fn a_limit_ends_it_cleanly_and_nothing_follows() {
    let server = start(&[]);
    let tunnel = Tunnel::to(&server);
    let mut conn = tunnel.connect();
    // A request behind the stream's: it is not answered, and does not end up in the stream.
    let stream = format!("GET {EVENTS}?topics=a&limit=2 HTTP/1.1\r\nHost: t\r\n\r\n");
    conn.send(format!("{stream}GET /health HTTP/1.1\r\nHost: t\r\n\r\n").as_bytes());
    let mut stream = Stream::over(conn);
    stream.expect("connected");
    server.wait_for_clients(1);
    (0..3).for_each(|n| drop(server.publish("a", "tick", &format!("{{\"n\":{n}}}"))));
    let (events, end) = stream.read_to_end();
    assert_eq!(end, End::Clean);
    assert_eq!(events.iter().map(SseEvent::n).collect::<Vec<_>>(), [0, 1]);
    server.wait_for_clients(0);
    assert_eq!(closed(&server, "limit_reached"), 1);
}

#[test]
fn requests_before_a_stream_are_answered_first() {
    let server = start(&[]);
    let tunnel = Tunnel::to(&server);
    let mut conn = tunnel.connect();
    for _ in 0..3 {
        conn.send(b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n");
        assert_eq!(conn.answer().expect("an answer").status, 200);
    }
    let mut stream = Stream::open(conn, "topics=a", "");
    stream.expect("connected");
    server.publish("a", "tick", "{\"n\":1}");
    assert_eq!(stream.expect("tick").n(), 1);
    drop(stream);
    server.wait_for_clients(0);
    assert_eq!(closed(&server, "client_closed"), 1, "its end is seen without a write");
}

#[test]
fn connections_that_are_streams_are_not_counted_as_others() {
    let server = start(&["--max-connections", "4"]);
    let tunnel = Tunnel::to(&server);
    let mut streams: Vec<Stream> = (0..20).map(|_| tunnel.stream("topics=a", "")).collect();
    server.publish("a", "tick", "{\"n\":1}");
    assert!(streams.iter_mut().all(|stream| stream.expect("tick").n() == 1));
}

#[test]
fn a_drain_ends_streams_within_tls() {
    let mut server = start(&["--grace", "1s"]);
    let tunnel = Tunnel::to(&server);
    let mut streams: Vec<Stream> = (0..20).map(|_| tunnel.stream("topics=a", "")).collect();
    let mut resting = tunnel.connect();
    resting.send(b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(resting.answer().expect("an answer").status, 200);
    let addr = tls_address(&server);
    let mut multiplexed = Http2::over(&mut Builder::new(), connect(addr, client(b"h2").0));
    let mut two = multiplexed.stream("topics=a");
    server.publish("a", "tick", "{\"n\":7}");
    server.signal("TERM");
    for stream in &mut streams {
        let (events, end) = stream.read_to_end();
        assert_eq!(end, End::Clean, "with the last chunk and with close_notify");
        assert!(matches!(&events[..], [tick] if tick.n() == 7), "{events:?}");
        assert!(stream.reason() == "drained" && stream.bye.as_ref().is_some_and(|bye| bye.retry.is_some()));
    }
    let (events, end) = multiplexed.read_to_end(&mut two);
    assert!(end.is_ok() && two.bye.as_ref().is_some_and(|bye| bye.retry.is_some()), "{events:?}, {end:?}");
    assert!(multiplexed.end().is_ok());
    assert!(resting.drain().is_empty());
    assert_eq!(server.wait_for_exit(PATIENCE).code(), Some(0));
}

#[test]
fn a_connection_that_says_nothing_has_a_deadline() {
    let mut server = start(&["--head-timeout", "500ms", "--idle-timeout", "700ms"]);
    let tunnel = Tunnel::to(&server);
    let begun = Instant::now();
    // No handshake; a handshake and no request; half a request; a rest after a request.
    let mut silent = Conn::to(tls_address(&server)).expect("it accepts connections");
    let mut no_request = tunnel.connect();
    let mut half = tunnel.connect();
    half.send(b"GET /health HTTP/1.1\r\nHo");
    let mut resting = tunnel.connect();
    resting.send(b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(resting.answer().expect("an answer").status, 200);
    for conn in [&mut silent, &mut no_request, &mut half, &mut resting] {
        conn.drain();
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    server.assert_well();
}

// ---- the port and its certificate

#[test]
fn plaintext_is_told_that_this_is_tls() {
    let server = start(&[]);
    let mut conn = Conn::to(tls_address(&server)).expect("it accepts connections");
    conn.send(b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n");
    let answer = conn.answer().expect("an answer");
    assert!(answer.status == 400 && answer.text().contains("https://"), "{answer:?}");
}

#[test]
fn the_greeting_names_the_certificate() {
    let server = start(&[]);
    let shown = sha256(&shown(&server));
    assert!(server.greeting.contains(&format!("SHA-256 {shown}\n")), "{shown} is not in {:?}", server.greeting);
}

/// A fingerprint as people compare it.
fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

/// Two files in the build's own temporary directory, and what is to be in them.
fn issue(paths: &[PathBuf; 2]) -> CertificateDer<'static> {
    let key = rcgen::KeyPair::generate().expect("there is randomness");
    let params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
    let cert = params.self_signed(&key).expect("it can be signed");
    std::fs::write(&paths[0], cert.pem()).expect("it can be written");
    std::fs::write(&paths[1], key.serialize_pem()).expect("it can be written");
    cert.into()
}

#[test]
fn a_new_certificate_ends_no_stream() {
    let path = |name| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("reload-{}-{name}", std::process::id()));
    let paths = [path("cert.pem"), path("key.pem")];
    let first = issue(&paths);
    let text = |path: &PathBuf| path.to_str().expect("text").to_owned();
    let (cert, key) = (text(&paths[0]), text(&paths[1]));
    let mut server = Server::start(&["--tls-listen", "127.0.0.1:0", "--tls-cert", &cert, "--tls-key", &key]);
    assert_eq!(shown(&server), first);
    let tunnel = Tunnel::to(&server);
    let mut one = tunnel.stream("topics=a", "");
    let mut multiplexed = Http2::over(&mut Builder::new(), connect(tls_address(&server), client(b"h2").0));
    let mut two = multiplexed.stream("topics=a");
    let second = issue(&paths);
    server.signal("HUP");
    wait_until("the new certificate", || shown(&server) == second);
    server.publish("a", "tick", "{\"n\":1}");
    assert_eq!((one.expect("tick").n(), multiplexed.expect(&mut two, "tick").n()), (1, 1));
    // Half a pair changes nothing, and is said.
    std::fs::write(&paths[0], "").expect("it can be written");
    server.signal("HUP");
    wait_until("the refusal in the log", || server.log().contains("the certificate in force stays"));
    assert_eq!(shown(&server), second);
    assert_eq!(multiplexed.ask(http2::get("/health"), None).0.status, 200);
    server.assert_well();
    paths.iter().for_each(|path| drop(std::fs::remove_file(path)));
}

#[test]
fn without_tls_sighup_ends_nothing() {
    let mut server = Server::start(&[]);
    let mut stream = server.stream("topics=a");
    server.signal("HUP");
    thread::sleep(common::SILENCE);
    server.publish("a", "tick", "{\"n\":1}");
    assert_eq!(stream.expect("tick").n(), 1);
    server.assert_well();
}

#[test]
fn garbage_within_tls_ends_its_connection_alone() {
    let mut server = start(&[]);
    let tunnel = Tunnel::to(&server);
    let mut witness = tunnel.stream("topics=a", "");
    for garbage in [&b"\0\x01\x02\r\n\r\n"[..], b"GET / HTTP/9.9\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut conn = tunnel.connect();
        let _ = conn.socket.write_all(garbage);
        conn.drain();
    }
    server.publish("a", "tick", "{\"n\":1}");
    assert_eq!(witness.expect("tick").n(), 1);
    server.assert_well();
}

/// What an idle stream costs within TLS over HTTP/1.1: the server's resident memory with 1,000 and with 3,000 of them.
#[test]
#[ignore = "measures memory: cargo test --release --test tls -- --ignored --nocapture"]
fn memory_of_an_idle_stream() {
    let server = start(&["--connections-per-second", "0"]);
    let runtime = Runtime::new().expect("the system has threads");
    let addr = tls_address(&server);
    let mut held = Vec::new();
    let mut grow_to = |streams: usize| {
        while held.len() < streams {
            held.push(runtime.block_on(async {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let mut stream = connect(addr, client(b"http/1.1").0).await;
                let request = format!("GET {EVENTS}?topics=a HTTP/1.1\r\nHost: t\r\n\r\n");
                stream.write_all(request.as_bytes()).await.expect("sent");
                stream.flush().await.expect("sent");
                let mut begun = Vec::new();
                while common::find(&begun, b"\n\n").is_none() {
                    assert!(stream.read_buf(&mut begun).await.expect("an answer") > 0);
                }
                stream
            }));
        }
        thread::sleep(Duration::from_secs(2));
        server.rss_kb() * 1024
    };
    let (few, many) = (grow_to(1_000), grow_to(3_000));
    let each = many.saturating_sub(few) / 2_000;
    println!("{each} bytes a stream over TLS and HTTP/1.1");
    assert!(each <= 24_000, "{each} bytes a stream");
}
