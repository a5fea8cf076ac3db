//! The commands around the broker, as the real binary against a real server: what they print, how they end, and what a
//! terminal is shown.

mod common;
#[path = "clients/proxy.rs"]
#[allow(dead_code, reason = "not all of its ways to cut are needed here")]
mod proxy;
#[path = "clients/tools.rs"]
#[allow(dead_code, reason = "of the clients' tools, only the programs' places are needed here")]
mod tools;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use common::{PATIENCE, Server, fanfare, numbered, wait_for};
use proxy::Proxy;
use serde_json::Value;
use tools::{on_path, or_skip};

/// How long the proxy waits.
const DEADLINE: Duration = PATIENCE;

/// A command that asks the broker at this address.
fn ask(address: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = fanfare();
    command.args(arguments).env("GATEWAY_URL", format!("http://{address}")).env("TZ", "UTC");
    command
}

/// A command that has ended: its exit code, and what it printed to standard output and standard error.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Ended {
        let text = |bytes| String::from_utf8(bytes).expect("it prints text");
        Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// Runs it to its end.
#[track_caller]
fn run(command: Command) -> Ended {
    run_with(command, b"")
}

/// The same with this standard input.
#[track_caller]
fn run_with(mut command: Command, stdin: &[u8]) -> Ended {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    let (mut pipe, stdin) = (child.stdin.take().expect("piped"), stdin.to_vec());
    let writer = thread::spawn(move || drop(pipe.write_all(&stdin)));
    let (tell, ended) = mpsc::channel();
    let pid = child.id();
    thread::spawn(move || tell.send(child.wait_with_output()));
    let Ok(output) = ended.recv_timeout(PATIENCE) else {
        let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        panic!("it still ran after {PATIENCE:?}: {:?}", ended.recv());
    };
    let _ = writer.join();
    output.expect("it ends").into()
}

/// A `tail` that runs; it is killed when this is dropped.
struct Tail {
    child: Child,
    lines: Receiver<String>,
    notices: Receiver<String>,
}

impl Tail {
    #[track_caller]
    fn start(address: SocketAddr, arguments: &[&str]) -> Tail {
        let mut command = ask(address, &[&["tail"], arguments].concat());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it runs");
        let lines = lines_of(child.stdout.take().expect("piped"));
        let notices = lines_of(child.stderr.take().expect("piped"));
        Tail { child, lines, notices }
    }

    /// One that is connected.
    #[track_caller]
    fn open(address: SocketAddr, arguments: &[&str]) -> Tail {
        let tail = Tail::start(address, arguments);
        tail.expect_notice("connected to ");
        tail
    }

    #[track_caller]
    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line comes")
    }

    #[track_caller]
    fn event(&self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// The numbers of so many events of [`numbered`].
    #[track_caller]
    fn numbers(&self, count: usize) -> Vec<u64> {
        (0..count).map(|_| self.event()["data"]["n"].as_u64().expect("a number")).collect()
    }

    /// Waits for a notice that holds this.
    #[track_caller]
    fn expect_notice(&self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while let Ok(notice) = self.notices.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if notice.contains(part) {
                return notice;
            }
            seen.push(notice);
        }
        panic!("no {part:?} in {seen:?}");
    }

    #[track_caller]
    fn code(&mut self) -> Option<i32> {
        wait_for("its end", || self.child.try_wait().expect("it can be asked")).code()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(from: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (tell, lines) = mpsc::channel();
    thread::spawn(move || BufReader::new(from).lines().map_while(Result::ok).all(|line| tell.send(line).is_ok()));
    lines
}

/// Where nobody listens.
fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

/// A file of this test's own.
fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{name}"));
    fs::write(&path, text).expect("it can be written");
    path
}

// ---- tail

#[test]
fn tail_prints_events_as_lines_of_json_to_the_letter() {
    let server = Server::start(&[]);
    let tail = Tail::open(server.addr, &["wallets,users", "risk"]);
    let data = r#"{"n":9007199254740993,"big":1e400,"small":-0.0,"text":"\u0007é","timestamp":"t"}"#;
    let id = server.publish("wallets", "wallet.created", data);
    server.publish("elsewhere", "x", "{}");
    let last = server.publish("risk", "risk.alert", "{}");
    let line = tail.line();
    let start = format!("{{\"id\":\"{id}\",\"type\":\"wallet.created\",\"data\":{data},\"timestamp\":\"");
    assert!(line.starts_with(&start) && line.ends_with(",\"topic\":\"wallets\"}"), "{line}");
    assert_eq!(tail.event()["id"], *last);
    assert!(tail.lines.try_recv().is_err());
}

#[test]
fn tail_begins_and_ends_where_it_is_told() {
    let server = Server::start(&[]);
    let ids: Vec<String> =
        (0..5).map(|n| server.publish("a", ["even", "odd"][n % 2], &format!("{{\"n\":{n}}}"))).collect();
    server.publish("a", "even", r#"{"n":5,"user_id":"ann"}"#);
    for (arguments, numbers) in [
        (&["a", "--last", "3", "--limit", "2"][..], &[3, 4][..]),
        (&["--after", &ids[2], "--limit", "3"], &[3, 4, 5]),
        (&["--since", "1h", "--types", "odd", "--limit", "2"], &[1, 3]),
        (&["--since", "1h", "--user", "ann", "--limit", "1"], &[5]),
    ] {
        let ended = run(ask(server.addr, &[&["tail"], arguments].concat()));
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        let seen: Vec<u64> = ended
            .stdout
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["data"]["n"].as_u64().expect("a number"))
            .collect();
        assert_eq!(seen, numbers, "{arguments:?}");
    }
}

#[test]
fn tail_comes_back_after_a_cut_with_nothing_missing_and_nothing_twice() {
    let server = Server::start(&["--retry", "50ms"]);
    let proxy = Proxy::start(server.addr);
    let mut tail = Tail::open(proxy.address, &["a", "--limit", "400"]);
    let mut publisher = server.publisher();
    let mut n = 0;
    let mut publish = |count: usize| {
        for _ in 0..count {
            publisher.post(&numbered("a", n));
            n += 1;
        }
    };
    publish(100);
    assert_eq!(tail.numbers(50), (0..50).collect::<Vec<_>>());
    // Between two bytes of an event.
    proxy.cut_after("\"n\":150");
    publish(100);
    proxy.wait_for_refused();
    publish(100);
    proxy.lead_to(server.addr);
    assert!(tail.expect_notice("again in").contains("http://"));
    tail.expect_notice("connected again to ");
    publish(100);
    assert_eq!(tail.numbers(350), (50..400).collect::<Vec<_>>());
    assert_eq!(tail.code(), Some(0), "the limit counts over the cut");
}

#[test]
fn tail_tells_of_a_gap_after_a_restart_of_the_broker() {
    let first = Server::start(&["--retry", "50ms"]);
    let proxy = Proxy::start(first.addr);
    let tail = Tail::open(proxy.address, &["a"]);
    let id = first.publish("a", "x", "{}");
    assert_eq!(tail.event()["id"], *id);
    proxy.refuse();
    drop(first);
    let second = Server::start(&[]);
    second.publish("a", "y", "{}");
    proxy.lead_to(second.addr);
    let gap = tail.event();
    assert_eq!((&gap["type"], &gap["data"]["requested"]), (&"gap".into(), &id.as_str().into()), "{gap}");
    assert_eq!(gap["data"]["reason"], "unknown_epoch");
    assert_eq!(tail.event()["type"], "y");
    assert!(tail.expect_notice("gap: ").contains("restarted"));
}

#[test]
fn tail_finds_a_dead_peer() {
    // It accepts, answers, and is silent.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let tail = Tail::start(listener.local_addr().expect("bound"), &["--idle-timeout", "200ms"]);
    let mut held = Vec::new();
    for turn in 0..2 {
        let (mut socket, _) = listener.accept().expect("it comes");
        let mut request = String::new();
        let mut reader = BufReader::new(socket.try_clone().expect("a second handle"));
        while !request.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut request).expect("a request") > 0);
        }
        let resumes = request.to_ascii_lowercase().contains("last-event-id: e-7\r\n");
        assert_eq!(resumes, turn == 1, "{request}");
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nretry: 20\nid: e-7\ndata: {\"type\":\"x\",\"data\":{}}\n\n";
        socket.write_all(head.as_bytes()).expect("it takes it");
        held.push(socket);
    }
    assert!(tail.expect_notice("nothing came for 200ms").contains("again in 0.1 s"));
    assert_eq!(tail.event()["id"], "e-7");
}

#[test]
fn tail_ends_where_asking_again_is_no_use() {
    let server = Server::start(&["--auth", "required", "--jwt-secret", "0123456789abcdef0123456789abcdef"]);
    let ended = run(ask(server.addr, &["tail"]));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("401") && ended.stderr.contains("token_missing: a token or a key is needed"),
        "{ended:?}"
    );
    assert!(ended.stderr.contains(&server.addr.to_string()), "{ended:?}");
    let open = Server::start(&[]);
    let ended = run(ask(open.addr, &["tail", "--since", "yesterday"]));
    assert!(ended.code == Some(1) && ended.stderr.contains("bad_request: parameter \"since\""), "{ended:?}");
    let ended = run(ask(nowhere(), &["tail"]));
    assert!(ended.code == Some(1) && ended.stderr.contains("refused"), "{ended:?}");
    let ended = run(ask(open.addr, &["tail", "--url", "ftp://gateway"]));
    assert!(ended.code == Some(64) && ended.stderr.contains("neither http nor https"), "{ended:?}");
    let ended = run(ask(open.addr, &["tail", "--url", &format!("http://{}/health?", open.addr)]));
    assert!(ended.code == Some(1) && ended.stderr.contains("404"), "{ended:?}");
}

#[test]
fn tail_waits_where_the_broker_is_full() {
    let server = Server::start(&["--max-streams", "1"]);
    let held = server.stream("topics=a");
    let tail = Tail::start(server.addr, &["a"]);
    let notice = tail.expect_notice("as many streams as it may");
    assert!(notice.contains("again in "), "{notice}");
    drop(held);
    tail.expect_notice("connected to ");
}

#[test]
fn tail_ends_when_nobody_reads_it() {
    let server = Server::start(&[]);
    let mut tail = Tail::open(server.addr, &["a"]);
    server.publish("a", "x", "{}");
    assert_eq!(tail.event()["type"], "x");
    drop(tail);
    // As `| head -1`: the reader goes with the first line, and no event comes after it.
    let mut command = ask(server.addr, &["tail", "a", "--last", "1"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut stdout: BufReader<ChildStdout> = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("a line comes");
    assert!(line.contains("\"topic\":\"a\""), "{line}");
    drop(stdout);
    let status = wait_for("its end", || child.try_wait().expect("it can be asked"));
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    assert!(status.success() && said.lines().count() == 1, "{status}: {said}");
    tail = Tail::open(server.addr, &["a"]);
    assert!(tail.child.try_wait().expect("it can be asked").is_none(), "one that is read goes on");
}

// ---- stats

#[test]
fn stats_are_printed_once_as_the_brokers_json() {
    let server = Server::start(&[]);
    server.publish("a", "x", "{}");
    let ended = run(ask(server.addr, &["stats"]));
    assert_eq!((ended.code, ended.stdout.lines().count(), &*ended.stderr), (Some(0), 1, ""), "{ended:?}");
    let stats: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!((&stats["status"], &stats["events"]), (&"healthy".into(), &1.into()));
}

#[test]
fn stats_fail_where_nobody_answers_well() {
    let ended = run(ask(nowhere(), &["stats"]));
    assert!(ended.code == Some(1) && ended.stderr.contains("refused") && ended.stdout.is_empty(), "{ended:?}");
    // Nobody takes what is accepted here.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let ended = run(ask(silent.local_addr().expect("bound"), &["stats", "--timeout", "200ms"]));
    assert!(ended.code == Some(1) && ended.stderr.contains("no answer within 200ms"), "{ended:?}");
}

// ---- publish

#[test]
fn publish_prints_an_events_id() {
    let server = Server::start(&[]);
    let mut stream = server.stream("topics=a");
    let ended = run(ask(server.addr, &["publish", "a", "x", r#"{"n":9007199254740993}"#, "--user", "ann"]));
    let event = stream.expect("x");
    assert_eq!((ended.code, ended.stdout.trim_end()), (Some(0), event.last_event_id.as_str()), "{ended:?}");
    assert!(event.data.contains("\"n\":9007199254740993"), "{event:?}");
    assert_eq!(server.stat("/events"), 1);
    let mut anns = server.stream("topics=a&last=9&user_id=ann");
    assert_eq!(anns.expect("x").last_event_id, event.last_event_id);
    let twice = [(); 2].map(|()| run(ask(server.addr, &["publish", "a", "y", "--id", "k-1"])));
    assert_eq!(twice[0].stdout, twice[1].stdout);
    assert_eq!(server.stat("/events"), 2, "a name is published once");
}

#[test]
fn nobody_is_no_user_and_what_is_too_long_for_an_address_is_refused() {
    let server = Server::start(&[]);
    for (arguments, named) in [
        (&["publish", "a", "x", "{}", "--user", ""][..], "--user"),
        (&["tail", &"topic,".repeat(20_000)], "expected at most 32768"),
    ] {
        let ended = run(ask(server.addr, arguments));
        assert_eq!(ended.code, Some(64), "{ended:?}");
        assert!(ended.stderr.contains(named), "{ended:?}");
    }
    assert_eq!(server.stat("/events"), 0);
}

#[test]
fn a_server_that_says_at_once_is_not_asked_without_a_pause() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let mut asked = 0;
    for arguments in [&["tail", "a"][..], &["publish", "a", "x"]] {
        let mut command = ask(address, arguments);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs");
        let until = Instant::now() + Duration::from_secs(1);
        listener.set_nonblocking(true).expect("it can be asked");
        while Instant::now() < until {
            match listener.accept() {
                Ok((mut socket, _)) => {
                    asked += 1;
                    socket.set_nonblocking(false).expect("it can be asked");
                    let _ = socket.read(&mut [0; 4096]);
                    let _ = socket.write_all(
                        b"HTTP/1.1 503 Later\r\nRetry-After: 0\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
                    );
                }
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    assert!((2..30).contains(&asked), "{asked}");
}

#[test]
fn publish_names_what_is_wrong() {
    let server = Server::start(&[]);
    for (arguments, said) in [
        (&["a", "x", r#"{"a":1,}"#][..], "at column 8"),
        (&["a", "x", "[]"], "object"),
        (&["a", "x", r#"{} , "topic":"b""#], "no JSON object"),
        (&["a", "gap"], "reserved"),
        (&["a,b", "x"], "comma"),
        (&["a", "x", "-", "--id", "k"], "--id names one event"),
        (&["a"], "TYPE"),
        (&["a", "x", "--id", "no key"], "visible ASCII"),
    ] {
        let ended = run(ask(server.addr, &[&["publish"], arguments].concat()));
        assert!(ended.code == Some(64) && ended.stderr.contains(said), "{arguments:?}: {ended:?}");
    }
    assert_eq!(server.stat("/events"), 0);
    let ended = run(ask(nowhere(), &["publish", "a", "x"]));
    assert!(ended.code == Some(1) && ended.stderr.contains("refused"), "{ended:?}");
}

#[test]
fn publish_sends_twenty_thousand_lines_in_order_and_once() {
    const COUNT: usize = 20_000;
    let server = Server::start(&["--topic-events", "30000"]);
    let mut stream = server.stream("topics=a");
    let lines: String = (0..COUNT).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    let ended = run_with(ask(server.addr, &["publish", "a", "tick", "-"]), lines.as_bytes());
    assert_eq!((ended.code, &*ended.stdout), (Some(0), ""), "{ended:?}");
    assert!(ended.stderr.contains("20,000 events published") && ended.stderr.contains("events/s"), "{ended:?}");
    assert_eq!(stream.numbers(COUNT), (0..COUNT).collect::<Vec<_>>());
    assert_eq!(server.stat("/events"), COUNT as u64);
}

#[test]
fn publish_goes_on_after_a_cut() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.addr);
    // The first answer does not arrive, although its events do.
    proxy.cut_after("HTTP/1.1 200");
    let lines: String = (0..2000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    let (address, to) = (proxy.address, server.addr);
    let running = thread::spawn(move || run_with(ask(address, &["publish", "a", "tick", "-"]), lines.as_bytes()));
    proxy.wait_for_refused();
    proxy.lead_to(to);
    let ended = running.join().expect("it ends");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("will try again") && ended.stderr.contains("2,000 events published"), "{ended:?}");
    assert_eq!(server.stat("/events"), 2000, "nothing twice");
}

#[test]
fn publish_stops_at_a_bad_line_and_names_it() {
    let server = Server::start(&[]);
    for (bad, said) in [
        ("{\"n\":}", "expected value at column 6"),
        ("7", "object"),
        ("{\"user_id\":{}}", "expected a user id, which is a string or a whole number\n"),
        ("\u{1b}", "column"),
    ] {
        let before = server.stat("/events");
        let lines = format!("{{}}\n\n{{\"n\":1}}\n{bad}\n{{\"n\":2}}\n");
        let ended = run_with(ask(server.addr, &["publish", "a", "x", "-"]), lines.as_bytes());
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("standard input, line 4: ") && ended.stderr.contains(said), "{ended:?}");
        assert!(ended.stderr.contains("2 events published"), "{ended:?}");
        assert_eq!(server.stat("/events") - before, 2);
    }
}

#[test]
fn publish_with_a_wrong_key_is_refused() {
    let mut command = fanfare();
    command.args(["--listen", "127.0.0.1:0"]).env("FANFARE_KEYS", "svc:the-services-key");
    let server = Server::spawn(command);
    for (key, code) in [("another-key", 1), ("the-services-key", 0)] {
        for arguments in [&["publish", "a", "x"][..], &["publish", "a", "x", "-"]] {
            let mut command = ask(server.addr, arguments);
            command.env("FANFARE_KEY", key);
            let ended = run_with(command, b"{}\n{}\n");
            assert_eq!(ended.code, Some(code), "{ended:?}");
            // A number of events a second may be 401 too.
            assert_eq!(code == 1, ended.stderr.contains("401 Unauthorized"), "{ended:?}");
            assert!(!ended.stderr.contains(key), "a secret is shown: {ended:?}");
        }
    }
    assert_eq!(server.stat("/events"), 3);
}

#[test]
fn publish_names_keys_of_lines_that_it_ignores() {
    let server = Server::start(&[]);
    let mut stream = server.stream("");
    let lines = r#"{"topic":"a","type":"k","data":{"usr_id":1},"userId":"ann","id":"x-1","timestamp":"t"}
                   {"topic":"a","type":"k","data":{},"userId":"ann","dat\u001b":1}"#;
    let ended = run_with(ask(server.addr, &["publish", "--events"]), lines.as_bytes());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let (_, named) =
        ended.stderr.split_once("fanfare: ignored keys that look like an event's own: ").expect("it says so");
    assert!(named.starts_with("userId, dat") && named.lines().count() == 1 && !named.contains('\u{1b}'), "{named:?}");
    for _ in 0..2 {
        stream.expect("k");
    }
    let whole = br#"{"topic":"a","type":"k","data":{"userId":1},"user_id":"ann","id":"x-1","timestamp":"t"}"#;
    let ended = run_with(ask(server.addr, &["publish", "--events"]), whole);
    assert!(ended.code == Some(0) && !ended.stderr.contains("ignored"), "{ended:?}");
}

/// Takes one request, and gives this answer; it ends with the connection.
fn answer_once(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("it comes");
        let mut reader = BufReader::new(socket.try_clone().expect("a second handle"));
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            assert!(reader.read_line(&mut line).expect("a request") > 0);
        }
        socket.write_all(answer.as_bytes()).expect("it takes it");
        // Until the other side closes: what it has sent is read, or it would get a reset.
        drop(reader.read_to_end(&mut Vec::new()));
    });
    address
}

#[test]
fn publish_and_tail_pass_on_what_a_broker_ignores() {
    // Ours knows all that they send; an older one, or another, may not.
    let publish = ask(
        answer_once(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 44\r\n\r\n\
             {\"id\":\"e-1\",\"ignored\":[\"user_id\",\"d\\u001b\"]}",
        ),
        &["publish", "a", "k", "{}", "--user", "ann"],
    );
    let ended = run(publish);
    assert_eq!((ended.code, &*ended.stdout), (Some(0), "e-1\n"), "{ended:?}");
    assert!(ended.stderr.contains(": it ignored user_id, d") && !ended.stderr.contains('\u{1b}'), "{ended:?}");

    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Ignored: user_id\r\n\r\nid: e-1\ndata: {}\n\n";
    let ended = run(ask(answer_once(head), &["tail", "a", "--user", "ann", "--limit", "1"]));
    assert!(ended.code == Some(0) && ended.stderr.contains(": it ignored user_id\n"), "{ended:?}");
}

#[test]
fn curl_publishes_json_without_being_told_a_content_type() {
    let Some(curl) = or_skip("curl itself", on_path("curl").ok_or_else(|| "there is no curl".to_owned())) else {
        return;
    };
    let server = Server::start(&[]);
    let mut stream = server.stream("topics=demo");
    let url = format!("http://{}/api/v1/events/broadcast", server.addr);
    let curl = |arguments: &[&str]| {
        let mut command = Command::new(&curl);
        command.args(["-sS", "--max-time", "20", "-w", " %{http_code}"]).args(arguments).arg(&url);
        run(command)
    };
    let event = r#"{"topic":"demo","type":"hello","data":{"n":1}}"#;
    for arguments in [&["-d", event][..], &["--data-binary", event, "-H", "Content-Type:"], &["--json", event]] {
        let ended = curl(arguments);
        assert!(ended.stdout.starts_with("{\"success\":true,") && ended.stdout.ends_with("} 200"), "{ended:?}");
        assert_eq!(stream.expect("hello").n(), 1);
    }
    let ended = curl(&["-d", "topic=demo"]);
    assert!(ended.stdout.contains("unsupported_media_type") && ended.stdout.ends_with("} 415"), "{ended:?}");
}

#[test]
fn what_tail_prints_can_be_published_again() {
    let server = Server::start(&[]);
    server.publish("a", "x", r#"{"n":9007199254740993,"big":1e400}"#);
    server.publish("b", "y", r#"{"user_id":"ann"}"#);
    let printed = run(ask(server.addr, &["tail", "--since", "1h", "--limit", "2"]));
    let other = Server::start(&[]);
    let ended = run_with(ask(other.addr, &["publish", "--events"]), printed.stdout.as_bytes());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let again = run(ask(other.addr, &["tail", "--since", "1h", "--limit", "2"]));
    let data = |ended: &Ended| -> Vec<String> {
        let of = |line: &str| {
            line.split_once("\"type\":")
                .and_then(|(_, rest)| rest.split_once("},\"timestamp"))
                .expect("an event")
                .0
                .to_owned()
        };
        ended.stdout.lines().map(of).collect()
    };
    assert_eq!(data(&printed), data(&again));
    let ended = run_with(ask(other.addr, &["publish", "--events"]), br#"{"type":"x","data":{}}"#);
    assert!(
        ended.code == Some(1) && ended.stderr.contains("line 1: it is no event: missing field `topic`"),
        "{ended:?}"
    );
}

// ---- in a terminal

/// Runs a command in a terminal, types `keys` once `until` is shown, and gives its exit code and all that was shown.
fn in_terminal(size: (u16, u16), until: &str, keys: &str, command: &Command, stdin: &[u8]) -> Option<Ended> {
    let python = or_skip("a terminal", on_path("python3").ok_or_else(|| "there is no Python 3".to_owned()))?;
    let mut terminal = Command::new(python);
    terminal.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/terminal.py"));
    terminal
        .args([&size.0.to_string(), &size.1.to_string(), until, keys])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => terminal.env(name, value),
            None => terminal.env_remove(name),
        };
    }
    terminal.env("TERM", "xterm-256color").env_remove("NO_COLOR");
    if command.get_envs().any(|(name, _)| name == "NO_COLOR") {
        terminal.env("NO_COLOR", "1");
    }
    if stdin.is_empty() {
        terminal.env("STDIN", "terminal");
    }
    Some(run_with(terminal, stdin))
}

/// What is left of a terminal's output without its colours.
fn without_colors(shown: &str) -> String {
    let mut parts = shown.split("\u{1b}[");
    let mut left = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_digit() && c != ';').expect("a sequence ends");
        assert_eq!(&part[end..=end], "m", "another sequence than a colour: {part:?}");
        left.push_str(&part[end + 1..]);
    }
    left
}

#[test]
fn a_terminal_is_shown_colors_and_nothing_hostile() {
    let server = Server::start(&[]);
    server.publish("wallets", "wallet.created", r#"{"n":9007199254740993}"#);
    let hostile = "\\u001b]0;pwned\\u0007\u{9b}2J\u{202e}x\u{7f}";
    let answer = server.post_json(&format!(
        "{{\"topic\":\"a\u{202e}b\",\"type\":\"t\u{200b}\",\"data\":{{\"a\":\"{hostile}\",\"{hostile}\":1}}}}"
    ));
    assert_eq!(answer.status, 200, "{answer:?}");
    let tail = ask(server.addr, &["tail", "--since", "1h", "--limit", "2"]);
    let Some(shown) = in_terminal((70, 24), "", "", &tail, b"") else { return };
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.stdout.contains("\u{1b}[1mwallet.created\u{1b}["), "{shown:?}");
    let text = without_colors(&shown.stdout);
    let is_shown = |c: char| !c.is_control() && !"\u{202e}\u{200b}".contains(c);
    assert!(text.chars().all(|c| is_shown(c) || "\r\n".contains(c)), "{text:?}");
    assert!(text.contains("\\u001b]0;pwned\\u0007\\u009b2J\\u202ex\\u007f") || text.contains("a\\u202eb"), "{text}");
    let events: Vec<&str> =
        text.lines().filter(|line| !line.starts_with("fanfare: ") && !line.contains("(stream")).collect();
    assert!(events.iter().all(|line| line.chars().count() <= 70), "{events:#?}");
    let mut plain = ask(server.addr, &["tail", "--since", "1h", "--limit", "1"]);
    plain.env("NO_COLOR", "1");
    let shown = in_terminal((70, 24), "", "", &plain, b"").expect("it was there");
    assert!(!shown.stdout.contains('\u{1b}') && shown.stdout.contains("wallets  wallet.created"), "{shown:?}");
    let json = ask(server.addr, &["tail", "--json", "--since", "1h", "--limit", "2"]);
    let shown = in_terminal((70, 24), "", "", &json, b"").expect("it was there");
    let line = shown.stdout.lines().find(|line| line.contains("pwned")).expect("it is printed");
    assert!(line.chars().all(is_shown), "{line:?}");
    let event: Value = serde_json::from_str(line).expect("it is JSON still");
    assert_eq!(event["topic"], "a\u{202e}b");
}

#[test]
fn the_view_of_stats_draws_and_gives_the_terminal_back() {
    let server = Server::start(&[]);
    server.publish("wallets", "x", "{}");
    let stats = ask(server.addr, &["stats"]);
    for (size, until, keys) in [
        ((80, 24), "wallets", "q"),
        ((40, 30), "Streams", "\u{1b}"),
        ((80, 24), "wallets", "\u{3}"),
        ((80, 24), "wallets", "SIGTERM"),
    ] {
        let Some(shown) = in_terminal(size, until, keys, &stats, b"") else { return };
        assert_eq!(shown.code, Some(0), "{keys:?}: {shown:?}");
        assert!(shown.stdout.contains("Events in") && shown.stdout.contains("healthy"), "{shown:?}");
        let (entered, left) = (shown.stdout.find("\u{1b}[?1049h"), shown.stdout.rfind("\u{1b}[?1049l"));
        assert!(entered.is_some() && entered < left && shown.stdout.rfind("\u{1b}[?25h") > entered, "{shown:?}");
    }
    let shown = in_terminal((80, 24), "", "", &ask(nowhere(), &["stats"]), b"").expect("it was there");
    assert!(shown.code == Some(1) && shown.stdout.contains("refused") && !shown.stdout.contains("1049"), "{shown:?}");
}

#[test]
fn a_terminal_is_shown_how_far_publishing_is() {
    let server = Server::start(&[]);
    let publish = ask(server.addr, &["publish", "a", "tick", "-"]);
    let lines: String = (0..5000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    let Some(shown) = in_terminal((80, 24), "", "", &publish, lines.as_bytes()) else { return };
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.stdout.contains(" events, ") && shown.stdout.contains("5,000 events published"), "{shown:?}");
}

// ---- check, token, completions, man

#[test]
fn check_says_where_each_setting_comes_from() {
    let config = file("check.toml", "history-events = 1234\ncors-origins = [\"https://a.example\"]\n");
    let mut command = fanfare();
    command.arg("check").arg(&config).args(["--heartbeat", "15s"]).env("FANFARE_MAX_BATCH", "77");
    command.args(["--auth", "optional"]).env("JWT_SECRET", "the-secret-of-all-these-tokens-is-this");
    command.env("FANFARE_KEYS", "svc:the-services-key").env("FANFARE_ADMIN_KEY", "the-operators-key");
    let ended = run(command);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let from = config.display().to_string();
    for (setting, source) in [
        ("history-events = 1234", &*from),
        ("cors-origins = https://a.example", &from),
        ("heartbeat = 15s", "--heartbeat"),
        ("max-batch = 77", "FANFARE_MAX_BATCH"),
        ("jwt-secret = (a secret)", "JWT_SECRET"),
        ("FANFARE_KEYS = (a secret)", "environment"),
        ("FANFARE_ADMIN_KEY = (a secret)", "environment"),
    ] {
        assert!(
            ended.stdout.contains(&format!("  {setting}  ({source})\n")),
            "no {setting} of {source}: {}",
            ended.stdout
        );
    }
    for secret in ["the-services-key", "the-operators-key", "the-secret-of-all-these-tokens"] {
        assert!(!ended.stdout.contains(secret), "{secret} is shown: {}", ended.stdout);
    }
}

#[test]
fn check_refuses_what_serve_refuses() {
    for (text, said) in [
        ("heartbeat = \"soon\"\n", "heartbeat"),
        ("no-such-setting = 1\n", "no-such-setting"),
        ("= 1", "check-bad.toml"),
    ] {
        let config = file("check-bad.toml", text);
        let mut check = fanfare();
        check.arg("check").arg(&config);
        let mut serve = fanfare();
        serve.arg("serve").arg("--config").arg(&config);
        let (check, serve) = (run(check), run(serve));
        assert!(check.code == Some(64) && check.stderr.contains(said), "{check:?}");
        assert_eq!((check.code, check.stderr), (serve.code, serve.stderr));
    }
}

#[test]
fn a_token_opens_its_own_users_events() {
    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    let mut command = fanfare();
    command.args(["--listen", "127.0.0.1:0", "--auth", "required"]).env("JWT_SECRET", SECRET);
    let server = Server::spawn(command);
    let token = |arguments: &[&str]| {
        let mut command = fanfare();
        command.arg("token").args(arguments).env("JWT_SECRET", SECRET);
        let ended = run(command);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.stdout.trim_end().to_owned()
    };
    let publishes = token(&["--publish", "wallets"]);
    for (user, stdin) in [("ann", &b"{\"n\":1}\n"[..]), ("bob", b"{\"n\":2}\n")] {
        let mut publish = ask(server.addr, &["publish", "wallets", "x", "-", "--user", user]);
        publish.env("FANFARE_TOKEN", &publishes);
        let ended = run_with(publish, stdin);
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    let mut publish = ask(server.addr, &["publish", "users", "x"]);
    publish.env("FANFARE_TOKEN", &publishes);
    let ended = run(publish);
    assert!(ended.code == Some(1) && ended.stderr.contains("403"), "{ended:?}");
    for (user, n) in [("ann", "1"), ("bob", "2")] {
        let mut tail = ask(server.addr, &["tail", "wallets", "--since", "1h", "--limit", "1"]);
        tail.env("FANFARE_TOKEN", token(&[user]));
        let ended = run(tail);
        assert!(ended.code == Some(0) && ended.stdout.contains(&format!("\"n\":{n},")), "{user}: {ended:?}");
    }
    let mut tail = ask(server.addr, &["tail", "users"]);
    tail.env("FANFARE_TOKEN", token(&["ann", "--listen", "wallets"]));
    let ended = run(tail);
    assert!(ended.code == Some(1) && ended.stderr.contains("does not grant the topic"), "{ended:?}");
}

#[test]
fn completions_are_made_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let mut command = fanfare();
        command.args(["completions", shell]);
        let ended = run(command);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stdout.contains("idle-timeout"), "{shell} completes the options");
        let found = || on_path(shell).ok_or_else(|| format!("there is no {shell}"));
        if let Some(program) = (shell == "bash").then(|| or_skip("reading its completions", found())).flatten() {
            let mut check = Command::new(program);
            check.arg("-n").arg(file(shell, &ended.stdout));
            let checked = run(check);
            assert!(checked.code == Some(0) && checked.stderr.is_empty(), "{checked:?}");
        }
    }
}

#[test]
fn there_is_a_manual_page_for_each_command() {
    let groff =
        or_skip("manual pages as they are read", on_path("groff").ok_or_else(|| "there is no groff".to_owned()));
    for name in ["", "serve", "publish", "tail", "stats", "check", "token", "completions", "man"] {
        let mut command = fanfare();
        command.arg("man").args(Some(name).filter(|name| !name.is_empty()));
        let ended = run(command);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let title = ended.stdout.lines().find(|line| line.starts_with(".TH"));
        assert!(title.is_some_and(|title| title.contains(name)), "{name}: {title:?}");
        if let Some(groff) = &groff {
            let mut render = Command::new(groff);
            render.args(["-man", "-Tutf8", "-ww", "-P-cbou"]);
            let rendered = run_with(render, ended.stdout.as_bytes());
            assert!(rendered.code == Some(0) && rendered.stdout.contains("SYNOPSIS"), "{name}: {rendered:?}");
        }
    }
}
