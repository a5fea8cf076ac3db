//! Prometheus itself, with the very files of `deploy/prometheus`: it scrapes a broker, loads the rules, and understands
//! every query of the dashboard in `deploy/grafana`.

#[path = "clients/tools.rs"]
#[allow(dead_code, reason = "each test that uses these tools needs some of them")]
mod tools;

mod common;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{Answer, Conn, Server, deployed, percent_encoded, wait_for};
use serde_json::Value;

/// A running Prometheus, in a folder of its own.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    folder: PathBuf,
}

impl Prometheus {
    fn start(program: &Path, broker: SocketAddr) -> Prometheus {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("prometheus-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("there is room");
        let config = deployed("prometheus/prometheus.yml");
        assert!(config.contains("127.0.0.1:8000") && config.contains(": 15s"));
        let config = config.replace("127.0.0.1:8000", &broker.to_string()).replace(": 15s", ": 1s");
        fs::write(folder.join("prometheus.yml"), config).expect("there is room");
        fs::write(folder.join("alerts.yml"), deployed("prometheus/alerts.yml")).expect("there is room");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let address = free.expect("there is a free port");
        let child = Command::new(program)
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(["--log.level=warn"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Prometheus { child: child.expect("it runs"), address, folder }
    }

    fn get(&self, target: &str) -> Option<Answer> {
        let mut conn = Conn::to(self.address).ok()?;
        conn.send(format!("GET {target} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").as_bytes());
        // As long as it starts, it says that it is not available.
        conn.answer().ok().filter(|answer| answer.status != 503)
    }

    /// What its API gives for a query; its error, if it does not understand it.
    fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let target = format!("/api/v1/query?query={}", percent_encoded(expression));
        let answer = wait_for("Prometheus to answer", || self.get(&target)).json();
        match answer["data"]["result"].as_array() {
            Some(result) if answer["status"] == "success" => Ok(result.clone()),
            _ => Err(format!("{expression}: {answer}")),
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The queries of the dashboard, with its variables filled in.
fn dashboard_queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&deployed("grafana/fanfare.json")).expect("it is JSON");
    let panels = dashboard["panels"].as_array().expect("it has panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let queries = targets.map(|target| {
        let query = target["expr"].as_str().expect("a target has an expression");
        query.replace("$__rate_interval", "10s").replace("$job", ".*").replace("$instance", ".*")
    });
    queries.collect()
}

/// The names of our own metrics in a query.
fn metrics_in(query: &str) -> impl Iterator<Item = &str> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("fanfare_") || word.starts_with("process_"))
}

#[test]
fn prometheus_scrapes_and_understands_all_of_it() {
    let Some(program) = tools::program("prometheus") else { return };
    let server = Server::start(&["--metrics-topics", "wallets", "--tls-self-signed", "--tls-listen", "127.0.0.1:0"]);
    let prometheus = Prometheus::start(&program, server.addr);
    let _streams = [server.stream("topics=wallets"), server.stream("")];
    let mut publisher = server.publisher();
    // What is counted by a code is there from the first on.
    assert_eq!(server.post_json("[").status, 400);
    let found = wait_for("two scrapes with events between them", || {
        publisher.publish("wallets", "tick", "{}");
        std::thread::sleep(Duration::from_millis(100));
        let found = prometheus.query("rate(fanfare_events_delivered_total[10s]) > 0").ok()?;
        (!found.is_empty()).then_some(found)
    });
    assert_eq!(found[0]["metric"]["job"], "fanfare");
    assert_eq!(prometheus.query("up").expect("a query")[0]["value"][1], "1");
    assert_eq!(prometheus.query("fanfare_streams").expect("a query")[0]["value"][1], "2");

    let queries = dashboard_queries();
    assert!(queries.len() > 30, "{}", queries.len());
    for query in &queries {
        prometheus.query(query).unwrap_or_else(|error| panic!("{error}"));
        for metric in metrics_in(query) {
            let samples = prometheus.query(metric).expect("a name is a query");
            assert!(!samples.is_empty(), "the dashboard asks for {metric}, which is not told");
        }
    }

    let rules = wait_for("the rules to be looked at", || {
        let rules = prometheus.get("/api/v1/rules")?.json()["data"]["groups"][0]["rules"].as_array()?.clone();
        rules.iter().all(|rule| rule["health"] == "ok").then_some(rules)
    });
    let told: Vec<_> = rules.iter().map(|rule| (rule["name"].as_str(), rule["state"].as_str())).collect();
    let quiet = Some("inactive");
    let expected =
        ["FanfareEventsMissed", "FanfareFull", "FanfareSlow", "FanfareKeysStale"].map(|name| (Some(name), quiet));
    assert_eq!(told, expected);
}

#[test]
fn the_alerts_tell_what_they_are_to_tell() {
    let Some(program) = tools::program("promtool") else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus");
    for arguments in [["check", "config", "prometheus.yml"], ["test", "rules", "alerts_test.yml"]] {
        let output = Command::new(&program).args(arguments).current_dir(&folder).output().expect("it runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
