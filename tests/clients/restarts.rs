//! Pages in Chromium that live through three restarts of the broker while events are published: directly, behind nginx
//! and behind Caddy. None gives up, and each is sent every event once, or told of the gap that a restart makes.

use std::collections::{BTreeMap, HashSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::process::{Broker, Client};
use crate::reverse_proxy::{Proxy, free_address_of};
use crate::{DEADLINE, tools};

/// Pages at each front.
const PAGES: usize = 20;

const FRONTS: [&str; 3] = ["direct", "nginx", "caddy"];

#[test]
fn pages_outlive_restarts_over_http_1_1() {
    outlive_restarts("1.1", "127.0.0.5", "http/1.1");
}

#[test]
fn pages_outlive_restarts_over_http_2() {
    outlive_restarts("2", "127.0.0.6", "h2");
}

fn outlive_restarts(version: &str, ip: &str, protocol: &str) {
    let found = tools::node_with_chromium("restarts.js");
    let Some(mut command) = tools::or_skip("pages that outlive restarts", found) else { return };
    let (plain, tls) = (free_address_of(ip), free_address_of(ip));
    let Some(nginx) = Proxy::nginx(plain, "90s") else { return };
    let Some(caddy) = Proxy::caddy(plain) else { return };
    let flags = ["--tls-listen", &tls.to_string(), "--tls-self-signed", "--trusted-proxies", "127.0.0.1"];
    let flags = [&flags[..], &["--grace", "2s", "--retry", "500ms", "--heartbeat", "1s"]].concat();
    let start = || Broker::start_at(plain, &flags);
    let direct = match version {
        "2" => format!("https://{tls}"),
        _ => format!("http://{plain}"),
    };
    let behind = |proxy: &Proxy| format!("https://localhost:{}", proxy.https.port());
    command.args([version, &PAGES.to_string()]);
    for (name, origin) in FRONTS.iter().zip([direct, behind(&nginx), behind(&caddy)]) {
        command.arg(format!("{name}={origin}"));
    }

    let mut broker = start();
    let mut client = Client::start(command);
    let everybody = FRONTS.len() * PAGES;
    // How many of the pages have reported this so often; that one gives up ends the test.
    let reached = |client: &Client, kind: &str, times: usize| {
        assert!(client.seen.iter().all(|event| event.kind != "closed"), "a page gave up: {:#?}", client.seen.last());
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for event in client.seen.iter().filter(|event| event.kind == kind) {
            *counts.entry(&event.page).or_default() += 1;
        }
        counts.values().filter(|count| **count >= times).count()
    };
    client.wait("all pages to listen", |client| reached(client, "begun", 1) == everybody);
    assert!(client.seen.iter().filter(|event| event.kind == "begun").all(|event| event.data == protocol));
    let publisher = Publisher::start(plain);
    client.wait("the first events", |client| reached(client, "epoch", 1) == everybody);

    // What must reach everybody: all that was accepted before the broker was told to stop. What is accepted later is sent
    // to those whose streams have not ended yet.
    let mut certain = HashSet::new();
    for restarts in 1..=3 {
        certain.extend(publisher.log().of_this_life());
        broker.stop();
        if restarts == 2 {
            // It stays away until both proxies had to refuse somebody.
            client.wait("refusals", |client| {
                reached(client, "closed", 1);
                let refused = client.seen.iter().filter(|event| event.kind == "refused" && event.data == "unavailable");
                refused.filter_map(|event| event.page.split(' ').next()).collect::<HashSet<_>>().len() == 2
            });
        }
        broker = start();
        client.wait("events after a restart", |client| reached(client, "epoch", restarts + 1) == everybody);
    }
    let log = publisher.stop();
    certain.extend(log.of_this_life());
    publish(plain, "last", 0).expect("an answer").expect("the broker accepts it");
    client.wait("the last event", |client| reached(client, "last", 1) == everybody);
    reached(&client, "closed", 1);
    for last in client.seen.iter().filter(|event| event.kind == "last") {
        check(&last.page, &last.data, &log, &certain);
    }
}

/// What a page has kept of its stream.
#[derive(Deserialize)]
struct Told {
    /// `EventSource.readyState`: 1 is open.
    state: u8,
    record: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Entry {
    Tick { id: String, n: usize },
    Gap { requested: String, reason: String },
}

/// That a page was sent the events of each of the broker's lives in order and once, from the first to where its stream
/// ended, the certain ones among them; and was told of a gap between two lives, and of no other.
fn check(page: &str, told: &str, log: &Log, certain: &HashSet<usize>) {
    let told: Told = serde_json::from_str(told).expect("JSON");
    assert_eq!(told.state, 1, "{page} listens");
    let mut lives: Vec<(String, Vec<usize>)> = Vec::new();
    let mut gaps = Vec::new();
    for entry in told.record {
        match entry {
            Entry::Tick { id, n } => {
                if lives.last().is_none_or(|(life, _)| *life != epoch(&id)) {
                    lives.push((epoch(&id).to_owned(), Vec::new()));
                }
                lives.last_mut().expect("just pushed").1.push(n);
            }
            Entry::Gap { requested, reason } => {
                assert_eq!(reason, "unknown_epoch", "{page}");
                gaps.push(epoch(&requested).to_owned());
            }
        }
    }
    let left: Vec<String> = lives.iter().map(|(life, _)| life.clone()).take(lives.len() - 1).collect();
    assert_eq!(gaps, left, "{page}: a gap for each life of the broker that has ended");
    assert_eq!(lives.iter().map(|(life, _)| life.as_str()).collect::<Vec<_>>(), log.lives(), "{page}");
    for (life, seen) in lives {
        let accepted: Vec<usize> = log.of(&life);
        // An event whose publisher had no answer may have been published, or not.
        let seen: Vec<usize> = seen.into_iter().filter(|n| !log.unanswered.contains(n)).collect();
        assert!(accepted.starts_with(&seen), "{page} saw {seen:?} of {accepted:?}");
        let missed: Vec<&usize> = accepted[seen.len()..].iter().filter(|n| certain.contains(n)).collect();
        assert!(missed.is_empty(), "{page} missed {missed:?}");
    }
}

fn epoch(id: &str) -> &str {
    id.rsplit_once('-').unwrap_or_else(|| panic!("{id:?} is no id")).0
}

/// What came of each event, by its number.
#[derive(Default, Clone)]
struct Log {
    /// The ids of those that were accepted, in order.
    ids: Vec<(usize, String)>,
    /// Those of which nothing is known.
    unanswered: HashSet<usize>,
}

impl Log {
    fn of(&self, life: &str) -> Vec<usize> {
        self.ids.iter().filter(|(_, id)| epoch(id) == life).map(|(n, _)| *n).collect()
    }

    fn of_this_life(&self) -> Vec<usize> {
        self.lives().last().map(|life| self.of(life)).unwrap_or_default()
    }

    fn lives(&self) -> Vec<&str> {
        let mut lives: Vec<&str> = self.ids.iter().map(|(_, id)| epoch(id)).collect();
        lives.dedup();
        lives
    }
}

/// A service that publishes one event after the other, whether the broker is there or not.
struct Publisher {
    stopped: Arc<AtomicBool>,
    log: Arc<Mutex<Log>>,
    thread: JoinHandle<()>,
}

impl Publisher {
    fn start(broker: SocketAddr) -> Publisher {
        let (stopped, log) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Log::default())));
        let (end, entries) = (stopped.clone(), log.clone());
        let thread = thread::spawn(move || {
            for n in 1.. {
                if end.load(Ordering::SeqCst) {
                    break;
                }
                match publish(broker, "tick", n) {
                    Ok(Some(id)) => lock(&entries).ids.push((n, id)),
                    Ok(None) => {}
                    Err(_) => {
                        lock(&entries).unanswered.insert(n);
                    }
                }
                thread::sleep(Duration::from_millis(20));
            }
        });
        Publisher { stopped, log, thread }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.log)
    }

    fn stop(self) -> Log {
        self.stopped.store(true, Ordering::SeqCst);
        self.thread.join().expect("it does not panic");
        lock(&self.log).clone()
    }
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().expect("no thread panics while it holds this")
}

/// Publishes an event; gives its id, nothing where it was refused or nobody was there, and an error where that is not
/// known.
fn publish(broker: SocketAddr, kind: &str, n: usize) -> std::io::Result<Option<String>> {
    let Ok(mut socket) = TcpStream::connect(broker) else { return Ok(None) };
    socket.set_read_timeout(Some(DEADLINE))?;
    let body = json!({"topic": "clock", "type": kind, "data": {"n": n}}).to_string();
    let head = "POST /api/v1/events/broadcast HTTP/1.0\r\nContent-Type: application/json\r\n";
    write!(socket, "{head}Content-Length: {}\r\n\r\n{body}", body.len())?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.0 200 ") => {
            let body: Value = serde_json::from_str(body)?;
            Ok(body["id"].as_str().map(str::to_owned))
        }
        Some(_) => Ok(None),
        None => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}
