//! Traces (the feature `otlp`): a collector that reads them as OpenTelemetry defines them gets a span for each request
//! that publishes or listens, within the trace that the request names, and none for a delivery.

#[path = "clients/tools.rs"]
#[allow(dead_code, reason = "of the clients' tools, only Python's are needed here")]
mod tools;

mod common;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Stdio};

use common::{Server, fanfare, post};
use serde_json::Value;

/// The collector: a process, and what it prints.
struct Collector {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    port: u16,
}

impl Collector {
    fn start() -> Option<Collector> {
        let mut command = tools::or_skip("traces by OTLP", tools::python("otlp_collector.py"))?;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let port = lines.next().expect("it says where it listens").expect("it is text");
        Some(Collector { child, lines, port: port.parse().expect("a port") })
    }

    fn broker(&self) -> Server {
        let mut command = fanfare();
        command
            .args(["--listen", "127.0.0.1:0"])
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{}", self.port))
            .env("OTEL_BSP_SCHEDULE_DELAY", "100");
        Server::spawn(command)
    }

    fn span(&mut self) -> Value {
        let line = self.lines.next().expect("it goes on").expect("it is text");
        serde_json::from_str(&line).expect("a line is JSON")
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

#[test]
fn a_collector_gets_a_span_for_each_request_and_none_for_a_delivery() {
    let Some(mut collector) = Collector::start() else { return };
    let server = collector.broker();
    let traced = format!("traceparent: 00-{TRACE}-{PARENT}-01\r\nX-Request-Id: order-7\r\n");
    let mut listeners: Vec<_> = (0..3).map(|_| server.stream_with("topics=a", &traced)).collect();
    for _ in &listeners {
        let span = collector.span();
        assert_eq!((&span["name"], &span["path"]), (&"subscribe".into(), &"/v1/traces".into()), "{span}");
        assert_eq!((&span["trace"], &span["parent"]), (&TRACE.into(), &PARENT.into()), "{span}");
        assert_eq!(span["attributes"]["request_id"], "order-7", "{span}");
        assert_eq!(span["resource"]["service.name"], "fanfare", "{span}");
    }

    let body = r#"[{"topic":"a","type":"t","data":{}},{"topic":"a","type":"t","data":{}}]"#;
    let request = post("application/json", body).replacen("\r\n", &format!("\r\n{traced}"), 1);
    let id = server.ask(&request).json()["id"].clone();
    listeners.iter_mut().for_each(|listener| (0..2).for_each(|_| drop(listener.expect("t"))));
    // The next span is the publish's own, not one of six deliveries.
    let span = collector.span();
    assert_eq!((&span["name"], &span["trace"]), (&"publish".into(), &TRACE.into()), "{span}");
    assert_eq!((&span["attributes"]["events"], &span["attributes"]["id"]), (&2.into(), &id), "{span}");
    assert!(span["nanoseconds"].as_u64().is_some_and(|took| took > 0 && took < 30_000_000_000), "{span}");

    assert_eq!(server.post_json("[").status, 400);
    let span = collector.span();
    assert_eq!((&span["name"], &span["attributes"]["refused"]), (&"publish".into(), &"bad_request".into()), "{span}");
    assert_ne!(span["trace"], TRACE, "it named no trace, and has one of its own");
}

#[test]
fn the_last_spans_get_there_when_the_broker_stops() {
    let Some(mut collector) = Collector::start() else { return };
    let mut command = fanfare();
    command
        .args(["--listen", "127.0.0.1:0", "--grace", "100ms"])
        .env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", format!("http://127.0.0.1:{}/v1/traces", collector.port))
        .env("OTEL_BSP_SCHEDULE_DELAY", "600000");
    let mut server = Server::spawn(command);
    server.publish("a", "t", "{}");
    server.signal("TERM");
    assert!(server.wait_for_exit(common::PATIENCE).success());
    assert_eq!(collector.span()["name"], "publish");
}

#[test]
fn a_collector_that_cannot_be_there_is_a_wrong_setting_and_one_that_is_away_holds_up_nobody() {
    let output = fanfare().env("OTEL_EXPORTER_OTLP_ENDPOINT", "collector").output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("OTEL_EXPORTER_OTLP_ENDPOINT") && said.contains("http://collector:4318"), "{said}");
    let mut command = fanfare();
    // Nobody listens on a port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    command
        .args(["--listen", "127.0.0.1:0"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{free}"))
        .env("OTEL_BSP_SCHEDULE_DELAY", "50");
    let mut server = Server::spawn(command);
    let mut stream = server.stream("topics=a");
    let mut publisher = server.publisher();
    for _ in 0..100 {
        publisher.publish("a", "t", "{}");
        stream.expect("t");
    }
    server.assert_well();
}
