//! nginx and Caddy themselves, with the very files of `deploy/`, in front of the real broker: streams pass at once, stay
//! open and end in good order, by HTTP/1.1 and HTTP/2 over TLS; who is whose client is known; what is for operators does
//! not get through; while the broker is away, a browser's stream is refused in a way that it survives. The client is curl.

#[path = "clients/tools.rs"]
#[allow(dead_code, reason = "each test that uses these tools needs some of them")]
mod tools;

#[path = "clients/reverse_proxy.rs"]
mod reverse_proxy;

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use common::{BROADCAST, EVENTS, PATIENCE, Server, SseEvent, SseParser, fanfare};
use reverse_proxy::{Proxy, free_address_of};
use serde_json::Value;

/// Where the client is, as the proxy sees it: not where the proxy is, as the broker sees it.
const CLIENT: &str = "127.0.0.2";

const ADMIN_KEY: &str = "an-operator-and-nobody-else";

const KEY: &str = "a-service-and-nobody-else";

impl Proxy {
    /// curl that asks the proxy for a path over TLS, from the client's address.
    fn curl(&self, version: &str, path: &str) -> Command {
        let mut command = Command::new("curl");
        let (port, address) = (self.https.port(), self.https);
        command.args(["--silent", "--show-error", "--no-buffer", "--max-time", "60"]).args([
            version,
            "--interface",
            CLIENT,
        ]);
        command.arg("--cacert").arg(self.folder.join("chain.pem"));
        command.args([
            "--connect-to",
            &format!("localhost:{port}:{address}"),
            &format!("https://localhost:{port}{path}"),
        ]);
        command
    }

    /// Asks for a path with these arguments; gives the answer's status, HTTP version and body.
    fn ask(&self, version: &str, path: &str, arguments: &[&str]) -> (u16, String, String) {
        let mut command = self.curl(version, path);
        let output = command.args(["--write-out", "\n%{http_code} %{http_version}"]).args(arguments).output();
        let output = output.expect("curl runs");
        assert!(output.status.success(), "{}; {}", String::from_utf8_lossy(&output.stderr), self.log());
        let said = String::from_utf8(output.stdout).expect("it is text");
        let (body, figures) = said.rsplit_once('\n').expect("the figures are written out");
        let (status, version) = figures.split_once(' ').expect("there are two");
        (status.parse().expect("a number"), version.to_owned(), body.to_owned())
    }

    fn listen(&self, version: &str, topics: &str, arguments: &[&str]) -> Listener {
        let mut command = self.curl(version, &format!("{EVENTS}?topics={topics}"));
        let mut child =
            command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("curl runs");
        let mut output = child.stdout.take().expect("piped");
        let (send, received) = channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = output.read(&mut bytes) {
                let _ = send.send(bytes[..n].to_vec());
            }
        });
        Listener { child, received, sse: SseParser::default() }
    }
}

/// curl with a stream.
struct Listener {
    child: Child,
    received: Receiver<Vec<u8>>,
    sse: SseParser,
}

impl Listener {
    /// The next event, if one comes before the stream's end.
    #[track_caller]
    fn next(&mut self) -> Option<SseEvent> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(event) = self.sse.next() {
                return Some(event);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.received.recv_timeout(left) {
                Ok(bytes) => self.sse.feed(&bytes),
                Err(error) if left.is_zero() => panic!("no event came: {error}"),
                Err(_) => return None,
            }
        }
    }

    #[track_caller]
    fn expect(&mut self, kind: &str) -> SseEvent {
        let event = self.next().expect("the stream goes on");
        assert_eq!(event.kind, kind, "{event:?}");
        event
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A broker that believes the proxy.
fn broker(flags: &[&str], environment: &[(&str, &str)]) -> Server {
    let mut command = fanfare();
    command.args(["--listen", "127.0.0.1:0", "--trusted-proxies", "127.0.0.1"]).args(flags);
    command.envs(environment.iter().copied());
    Server::spawn(command)
}

/// The same with keys, and a short end.
fn broker_with_keys() -> Server {
    broker(&["--grace", "1s"], &[("FANFARE_ADMIN_KEY", ADMIN_KEY), ("FANFARE_KEYS", &format!("wallet:{KEY}"))])
}

/// The addresses of those who listen, as the broker knows them.
fn listeners(broker: &Server) -> Vec<String> {
    let path = "/api/v1/admin/streams";
    let answer = broker.ask(&format!("GET {path} HTTP/1.1\r\nHost: t\r\nX-API-Key: {ADMIN_KEY}\r\n\r\n")).json();
    let streams = answer["streams"].as_array().expect("a list").clone();
    streams.iter().filter_map(|stream| stream["address"].as_str().map(str::to_owned)).collect()
}

/// What holds for every proxy.
fn passes_everything(proxy: &Proxy, broker: &mut Server) {
    let accept = ["--header", "Accept: text/event-stream"];
    let forged = [&accept[..], &["--header", "X-Forwarded-For: 198.51.100.7", "--compressed"]].concat();
    let versions = ["--http1.1", "--http2"];
    let mut streams = versions.map(|version| proxy.listen(version, "a", &forged));
    for stream in &mut streams {
        // Held back, it would come with the stream's end: nothing is published yet, and heartbeats are rare.
        stream.expect("connected");
    }
    assert_eq!(listeners(broker), [CLIENT, CLIENT], "and not what the client says, nor the proxy's own");

    let page = format!("Origin: https://localhost:{}", proxy.https.port());
    let (json, key) = ("Content-Type: application/json", format!("X-API-Key: {KEY}"));
    for (version, told) in versions.into_iter().zip(["1.1", "2"]) {
        let event = r#"{"topic":"a","type":"tick","data":{"n":1}}"#;
        let arguments = ["--header", &page, "--header", json, "--header", &key, "--data", event];
        let (status, spoken, body) = proxy.ask(version, BROADCAST, &arguments);
        assert_eq!((status, &*spoken), (200, told), "{body}");
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(answer["clients"], 2);
        for stream in &mut streams {
            assert_eq!(stream.expect("tick").id.as_deref(), answer["id"].as_str());
        }
        for operators in ["/metrics", "/api/v1/admin/streams", "/api/v1/admin/topics"] {
            let (status, ..) = proxy.ask(version, operators, &["--header", &format!("X-API-Key: {ADMIN_KEY}")]);
            assert_eq!(status, 404, "{operators}");
        }
        assert_eq!(proxy.ask(version, "/ready", &[]).0, 200);
    }
    let plain = format!("http://localhost:{}/health", proxy.http.port());
    let mut command = Command::new("curl");
    command.args(["--silent", "--write-out", "%{http_code} %{redirect_url}", "--output", "/dev/null"]);
    command.args(["--connect-to", &format!("::{}", proxy.http), &plain]);
    let said = command.output().expect("curl runs").stdout;
    let said = String::from_utf8_lossy(&said);
    assert!(said.starts_with("308 https://localhost"), "{said}");

    let [stays, leaves] = streams;
    drop(leaves);
    broker.wait_for_clients(1);
    // The broker stops: those who listen are told so to the last byte.
    let mut stream = stays;
    broker.signal("TERM");
    assert!(stream.expect("end").retry.is_some(), "when to come back");
    assert_eq!(stream.next(), None);
    assert!(stream.child.wait().expect("curl ends").success(), "the stream ended in good order");
    assert_eq!(broker.wait_for_exit(PATIENCE).code(), Some(0));
}

/// Heartbeats keep a stream open for longer than the proxy waits for one.
fn stays_open(proxy: &Proxy, broker: &Server, longer_than: Duration) {
    let mut stream = proxy.listen("--http2", "a", &[]);
    stream.expect("connected");
    let begun = Instant::now();
    while begun.elapsed() < longer_than {
        stream.expect("heartbeat");
    }
    broker.publish("a", "tick", "{}");
    let event = std::iter::from_fn(|| stream.next()).find(|event| event.kind != "heartbeat");
    assert_eq!(event.map(|event| event.kind).as_deref(), Some("tick"));
}

#[test]
fn nginx_passes_everything() {
    let mut broker = broker_with_keys();
    let Some(proxy) = Proxy::nginx(broker.addr, "90s") else { return };
    passes_everything(&proxy, &mut broker);
    let log = fs::read_to_string(proxy.folder.join("access.log")).expect("it keeps a log");
    assert!(log.contains(BROADCAST) && !log.contains('?'), "{log}");
}

#[test]
fn heartbeats_keep_a_stream_open_at_nginx() {
    let broker_with_heartbeats = broker(&["--heartbeat", "500ms"], &[]);
    let Some(proxy) = Proxy::nginx(broker_with_heartbeats.addr, "2s") else { return };
    stays_open(&proxy, &broker_with_heartbeats, Duration::from_secs(5));
    // Without them it is not open for as long.
    let silent = broker(&[], &[]);
    let proxy = Proxy::nginx(silent.addr, "1s").expect("it was found before");
    let mut stream = proxy.listen("--http2", "a", &[]);
    stream.expect("connected");
    assert_eq!(stream.next(), None);
}

#[test]
fn caddy_passes_everything() {
    let mut broker = broker_with_keys();
    let Some(proxy) = Proxy::caddy(broker.addr) else { return };
    passes_everything(&proxy, &mut broker);
}

/// What holds while the broker is away, at `address`, and when it is back.
fn refuses_for_a_while(proxy: &Proxy, address: SocketAddr) {
    let origin = "Origin: https://app.example.com";
    let browser = ["--include", "--header", "Accept: text/event-stream", "--header", origin];
    let mut spread = BTreeSet::new();
    for version in ["--http1.1", "--http2"] {
        for path in [EVENTS, "/api/v1/events/stats/stream"] {
            let (status, _, answer) = proxy.ask(version, path, &browser);
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
            let head = head.to_lowercase();
            assert_eq!(status, 200, "{answer}");
            for field in [
                "content-type: text/event-stream",
                "x-refused: unavailable",
                "cache-control: no-store",
                "access-control-allow-origin: https://app.example.com",
                "access-control-allow-credentials: true",
            ] {
                assert_eq!(head.lines().filter(|line| *line == field).count(), 1, "{field} in {head}");
            }
            let mut sse = SseParser::default();
            sse.feed(body.as_bytes());
            let event = sse.next().expect("a block");
            assert_eq!((&*event.kind, &event.id, sse.next()), ("refused", &None, None), "{body:?}");
            let data: Value = serde_json::from_str(&event.data).expect("JSON");
            assert_eq!(data["type"], "refused");
            assert_eq!((&data["data"]["code"], &data["data"]["retry_after"]), (&"unavailable".into(), &5.into()));
            let timestamp = data["timestamp"].as_str().expect("text");
            timestamp.parse::<jiff::Timestamp>().expect("RFC 3339");
            let retry = event.retry.expect("when to come back");
            assert!((5000..8000).contains(&retry), "{body:?}");
            spread.insert(retry);
        }
        // All others get the status.
        let (status, _, answer) = proxy.ask(version, EVENTS, &["--include", "--header", "Accept: */*"]);
        assert!(status == 502 && !answer.to_lowercase().contains("x-refused"), "{answer}");
        assert_eq!(proxy.ask(version, "/ready", &browser).0, 502);
        assert_eq!(proxy.ask(version, BROADCAST, &[&browser[..], &["--request", "POST"]].concat()).0, 502);
    }
    assert!(spread.len() > 1, "not all come back at once: {spread:?}");

    // The broker is back, with room for one stream.
    let mut command = fanfare();
    command.args(["--listen", &address.to_string(), "--max-streams", "1", "--trusted-proxies", "127.0.0.1"]);
    let broker = Server::spawn(command);
    let mut stream = proxy.listen("--http2", "a", &browser[1..]);
    stream.expect("connected");
    broker.publish("a", "tick", "{}");
    stream.expect("tick");
    // What it refuses itself is not the proxy's to change.
    let (status, _, body) = proxy.ask("--http2", EVENTS, &[]);
    let answer: Value = serde_json::from_str(&body).expect("the broker's own JSON");
    assert_eq!((status, &answer["error"]["code"]), (503, &"too_many_streams".into()), "{body}");
}

#[test]
fn nginx_refuses_for_a_while() {
    let address = free_address_of("127.0.0.3");
    let Some(proxy) = Proxy::nginx(address, "90s") else { return };
    refuses_for_a_while(&proxy, address);
}

#[test]
fn caddy_refuses_for_a_while() {
    let address = free_address_of("127.0.0.4");
    let Some(proxy) = Proxy::caddy(address) else { return };
    refuses_for_a_while(&proxy, address);
}
