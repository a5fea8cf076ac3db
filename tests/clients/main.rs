//! Clients that nobody here wrote: each listens, is cut off in the middle of a frame, resumes, is cut off again, finds
//! another broker in the old one's place, and has seen every event once and in order.
//!
//! The clients are real ones, in child processes that print what their library reports (the scripts beside this file).
//! Between them and the broker, which is the real binary, stands a proxy that cuts the connection. A client that
//! cannot reconnect by itself has a loop around it, with `Last-Event-ID`. `users` is about who sees what, `restarts` about
//! pages that outlive the broker.

mod process;
mod proxy;
mod restarts;
#[allow(dead_code, reason = "each test that uses these proxies needs some of what they have")]
mod reverse_proxy;
#[allow(dead_code, reason = "each test that uses these tools needs some of them")]
mod tools;
mod users;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use process::{Broker, Client, Event};
use proxy::Proxy;

/// Nothing here takes this long, even on a machine that is busy with other things.
const DEADLINE: Duration = Duration::from_secs(180);

#[test]
fn chromium_event_source() {
    resumes("Chromium's EventSource", tools::node_with_chromium("chromium.js"));
}

/// By ALPN over HTTP/2. What passes is not to be read, so it is cut off between events only.
#[test]
fn chromium_event_source_over_tls() {
    let command = tools::or_skip("Chromium's EventSource over TLS", tools::node_with_chromium("chromium.js"));
    let Some(mut command) = command else { return };
    let tls = ["--tls-listen", "127.0.0.1:0", "--tls-self-signed"];
    let broker = Broker::start(&[&["--retry", "100ms", "--heartbeat", "300ms"][..], &tls].concat());
    let address = broker.tls_address();
    let proxy = Proxy::start(address);
    command.arg(format!("https://{}{PATH}", proxy.address)).args(TYPES);
    let mut client = Client::start(command);

    client.wait_for(&["connected"]);
    publish(&broker, &LIVE);
    client.wait_for(&["message", "score", "order.created"]);
    client.wait_for_heartbeat();
    proxy.cut();
    publish(&broker, &MISSED);
    proxy.wait_for_refused();
    proxy.lead_to(address);
    client.wait_for(&["connected", "score", "Ünïcödé", "message"]);
    check(&client.seen, &history(&broker, &[&LIVE[..], &MISSED].concat()));
}

#[test]
fn npm_eventsource() {
    resumes("npm eventsource", tools::node("eventsource.js"));
}

#[test]
fn npm_event_source_polyfill() {
    resumes("npm event-source-polyfill", tools::node("polyfill.js"));
}

#[test]
fn npm_fetch_event_source() {
    resumes("npm @microsoft/fetch-event-source", tools::node("fetch-event-source.js"));
}

#[test]
fn pypi_httpx_sse() {
    resumes("PyPI httpx-sse", tools::python("httpx_client.py"));
}

#[test]
fn pypi_sseclient_py() {
    resumes("PyPI sseclient-py", tools::python("sseclient_client.py"));
}

#[test]
fn curl() {
    resumes("curl", tools::bash_with_curl("curl.sh"));
}

/// Without chunks a stream that is cut off looks like one that has ended.
#[test]
fn curl_http_1_0() {
    let command = tools::bash_with_curl("curl.sh").map(|mut command| {
        command.env("CURL_OPTIONS", "--http1.0");
        command
    });
    resumes("curl --http1.0", command);
}

/// What is published: topic, type, data as JSON.
type Post = (&'static str, &'static str, &'static str);

const PATH: &str = "/api/v1/events?topics=news,sport";

/// What clients listen for that must name the types they want.
const TYPES: [&str; 7] = ["connected", "heartbeat", "gap", "message", "score", "order.created", "Ünïcödé"];

const LIVE: [Post; 4] = [
    ("news", "message", r#"{"text":"the type that needs no listener of its own"}"#),
    ("sport", "score", r#"{"n":9007199254740993,"x":1e400,"text":"größer 日本 🎺 \u0000 \u2028 \r\n \\ \" :"}"#),
    ("elsewhere", "message", r#"{"text":"not asked for"}"#),
    ("news", "order.created", "{\n  \"lines\": [\r\n    \"id: 1\",\n\n    \"data: x\"\n  ]\n}"),
];

/// A client gets this to the first half of its data, and no further.
const TORN: [Post; 1] = [("news", "score", r#"{"text":"one half. The other half."}"#)];
const HALF: &str = "one half.";

/// A client gets this but for the line ends that complete it.
const NEARLY: [Post; 1] = [("sport", "message", r#"{"text":"nearly all"}"#)];
const ALL_BUT_LINE_ENDS: &str = r#""topic":"sport"}"#;

const MISSED: [Post; 4] = [
    ("sport", "score", r#"{"n":1}"#),
    ("news", "Ünïcödé", r#"{"n":2}"#),
    ("elsewhere", "score", r#"{"n":3}"#),
    ("sport", "message", "{}"),
];

fn resumes(name: &str, command: Result<Command, String>) {
    let Some(mut command) = tools::or_skip(name, command) else { return };
    let old = Broker::start(&["--retry", "100ms", "--heartbeat", "300ms", "--grace", "500ms"]);
    let proxy = Proxy::start(old.address);
    command.arg(format!("http://{}{PATH}", proxy.address)).args(TYPES);
    let mut client = Client::start(command);

    // It listens.
    client.wait_for(&["connected"]);
    publish(&old, &LIVE);
    client.wait_for(&["message", "score", "order.created"]);
    client.wait_for_heartbeat();

    // It is cut off in the middle of an event, and misses more before it can resume.
    proxy.cut_after(HALF);
    publish(&old, &TORN);
    proxy.wait_for_refused();
    publish(&old, &MISSED);
    proxy.lead_to(old.address);
    client.wait_for(&["connected", "score", "score", "Ünïcödé", "message"]);

    // It is cut off just before an event would have been complete, after a heartbeat.
    client.wait_for_heartbeat();
    proxy.cut_after(ALL_BUT_LINE_ENDS);
    publish(&old, &NEARLY);
    proxy.wait_for_refused();
    proxy.lead_to(old.address);
    client.wait_for(&["connected", "message"]);
    publish(&old, &MISSED);
    client.wait_for(&["score", "Ünïcödé", "message"]);

    // The broker ends the stream in good order, and another one with a history of its own takes its place.
    let mut published = history(&old, &[&LIVE[..], &TORN, &MISSED, &NEARLY, &MISSED].concat());
    proxy.refuse();
    old.stop();
    let new = Broker::start(&["--retry", "100ms", "--heartbeat", "100ms", "--heartbeat-style", "comment"]);
    publish(&new, &LIVE);
    proxy.wait_for_refused();
    proxy.lead_to(new.address);
    client.wait_for(&["connected", "gap", "message", "score", "order.created"]);

    // Heartbeats that are comments show nowhere.
    sleep(Duration::from_millis(500));
    publish(&new, &MISSED);
    client.wait_for(&["score", "Ünïcödé", "message"]);
    published.extend(history(&new, &[&LIVE[..], &MISSED].concat()));

    assert!(
        client.heartbeats.iter().all(|event| event.data.starts_with(r#"{"type":"heartbeat","data":{"timestamp":"#))
    );
    check(&client.seen, &published);
}

/// That a client has seen what was published, each event once and in order, and was told the truth about its stream.
fn check(seen: &[Event], published: &[Event]) {
    let mut published = published.iter();
    let mut last_id = "";
    for event in seen {
        match event.kind.as_str() {
            "connected" => {
                let data: Value = serde_json::from_str(&event.data).expect("JSON");
                assert_eq!((&data["type"], &data["data"]["topics"]), (&json!("connected"), &json!("news,sport")));
                let epoch = epoch(&event.id);
                match last_id.starts_with(epoch) {
                    true => assert_eq!(event.id, last_id, "a stream goes on from where it was"),
                    false => assert_eq!(event.id, format!("{epoch}-0"), "a history begins with its first event"),
                }
            }
            "gap" => {
                let data: Value = serde_json::from_str(&event.data).expect("JSON");
                assert_eq!((&data["type"], &data["data"]["requested"]), (&json!("gap"), &json!(last_id)));
                assert_eq!(data["data"]["reason"], "unknown_epoch");
            }
            _ => {
                assert_eq!(Some(event), published.next());
                last_id = &event.id;
            }
        }
    }
    assert_eq!(published.next(), None);
}

fn epoch(id: &str) -> &str {
    id.rsplit_once('-').unwrap_or_else(|| panic!("{id:?} is no id")).0
}

/// Publishes, as a batch.
fn publish(broker: &Broker, posts: &[Post]) {
    let object = |(topic, kind, data): &Post| format!(r#"{{"topic":"{topic}","type":"{kind}","data":{data}}}"#);
    let body = format!("[{}]", posts.iter().map(object).collect::<Vec<_>>().join(","));
    let head = "POST /api/v1/events/broadcast HTTP/1.0\r\nContent-Type: application/json\r\n";
    exchange(broker, &format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()));
}

/// What a stream gets of all that was published at a broker, read without any library; checked against the `posts`.
fn history(broker: &Broker, posts: &[Post]) -> Vec<Event> {
    let asked: Vec<_> = (1..).zip(posts).filter(|(_, (topic, ..))| *topic != "elsewhere").collect();
    let body = exchange(broker, &format!("GET {PATH}&last=100&limit={} HTTP/1.0\r\n\r\n", asked.len()));
    let field = |block: &str, name| block.lines().find_map(|line| Some(line.strip_prefix(name)?.to_owned()));
    let event = |block| {
        Some(Event {
            page: String::new(),
            id: field(block, "id: ")?,
            kind: field(block, "event: ")?,
            data: field(block, "data: ")?,
        })
    };
    let blocks = body.split_terminator("\n\n").skip(1).filter(|block| !block.starts_with("event: end\n"));
    let events: Vec<Event> = blocks.map(|block| event(block).expect(block)).collect();
    assert_eq!(events.len(), asked.len(), "{body}");
    for (event, (sequence, (_, kind, data))) in events.iter().zip(asked) {
        assert_eq!((&*event.kind, &*event.id), (*kind, &*format!("{}-{sequence}", epoch(&event.id))));
        let data = data.trim_end_matches('}').replace(['\r', '\n'], " ");
        assert!(event.data.contains(&data), "{data} is not in {}", event.data);
    }
    events
}

/// Sends a request, and gives the body of the answer, which must be good.
fn exchange(broker: &Broker, request: &str) -> String {
    let mut socket = TcpStream::connect(broker.address).expect("a connection");
    socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    socket.write_all(request.as_bytes()).expect("to send a request");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.0 200 "), "{answer}");
    body.to_owned()
}
