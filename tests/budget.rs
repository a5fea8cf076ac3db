//! Budgets (issue 2, item 5): a stream over the limit gets 503 with `Retry-After` while publishing and stats go on;
//! running out of file descriptors never spins, and is over when descriptors are free again.

mod common;

use common::{Conn, End, Server, Stream, wait_until};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn a_stream_over_the_limit_is_refused_and_everything_else_goes_on() {
    let server = Server::start(&["--max-streams", "10"]);
    let mut streams: Vec<Stream> = (0..10).map(|_| server.stream("topics=a")).collect();
    for n in 1..=5 {
        let refused = server.get("/api/v1/events?topics=a");
        assert_eq!(refused.status, 503, "{refused:?}");
        let seconds = refused.field("retry-after").expect("Retry-After (RFC 9110, 10.2.3)");
        assert!(seconds.parse::<u32>().is_ok_and(|s| s > 0), "{seconds}");
        assert_eq!(refused.json()["success"], false);
        assert!(refused.json()["error"]["message"].is_string());
        assert_eq!(server.stat("/refused"), n);
    }
    assert_eq!(server.stat("/connected_clients"), 10);
    assert_eq!(server.get("/ready").status, 200);
    server.publish("a", "k", "{}");
    for stream in &mut streams {
        stream.expect("k");
    }
    // A place that is given back can be taken.
    streams.pop();
    server.wait_for_clients(9);
    drop(server.stream("topics=a"));
    server.wait_for_clients(9);
    // A refused connection is as good as any for the next request.
    streams.push(server.stream("topics=a"));
    let mut conn = server.connect();
    conn.send(b"GET /api/v1/events HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(conn.answer().expect("an answer").status, 503);
    streams.clear();
    server.wait_for_clients(0);
    let mut stream = Stream::open(conn, "topics=b&limit=1", "");
    stream.expect("connected");
    server.publish("b", "k", "{}");
    assert_eq!(stream.read_to_end().1, End::Clean);
}

#[test]
fn a_limit_of_none_lets_none_in() {
    let server = Server::start(&["--max-streams", "0"]);
    assert_eq!(server.get("/api/v1/events").status, 503);
    server.publish("a", "k", "{}");
}

#[test]
fn bad_requests_take_no_place() {
    let server = Server::start(&["--max-streams", "2"]);
    for _ in 0..10 {
        assert_eq!(server.get("/api/v1/events?limit=x").status, 400);
        assert_eq!(server.ask("HEAD /api/v1/events HTTP/1.1\r\nHost: t\r\n\r\n").status, 200);
    }
    let _two = [server.stream(""), server.stream("")];
    assert_eq!(server.get("/api/v1/events").status, 503);
}

/// The server with at most so many file descriptors, soft and hard.
fn with_files(files: u32, flags: &str) -> Server {
    let mut command = common::clean(Command::new("sh"));
    let binary = env!("CARGO_BIN_EXE_fanfare");
    command.args(["-c", &format!("ulimit -n {files} && exec \"$0\" --listen 127.0.0.1:0 {flags}"), binary]);
    Server::spawn(command)
}

#[test]
fn the_stream_budget_follows_from_the_file_limit() {
    let server = with_files(400, "");
    let max = server.stat("/max_clients");
    assert!(max > 0 && max < 400, "{max} streams with 400 files");
    let streams: Vec<Stream> = (0..max).map(|_| server.stream("topics=a")).collect();
    assert_eq!(server.get("/api/v1/events?topics=a").status, 503, "refused, not hanging for want of a descriptor");
    server.publish("a", "k", "{}");
    for mut stream in streams {
        stream.expect("k");
    }
    assert_eq!(with_files(400, "--max-streams 7").stat("/max_clients"), 7);
}

/// `fanfare` with at most so many file descriptors, until it ends: its exit code, and what it printed.
fn ended_with_files(files: u32, arguments: &str) -> (Option<i32>, String, String) {
    let mut command = common::clean(Command::new("sh"));
    let line = format!("ulimit -n {files} && exec \"$0\" {arguments}");
    let output = command.args(["-c", &line, env!("CARGO_BIN_EXE_fanfare")]).output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("it prints text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// What a server has logged when it has started.
fn started(server: &Server) -> String {
    wait_until("the last line of its start", || server.log().contains("listening"));
    server.log()
}

const HOW: [&str; 3] = ["ulimit -n", "LimitNOFILE=", "--ulimit nofile="];

/// The lowest limit that a refusal names.
#[track_caller]
fn least(said: &str) -> u32 {
    let (_, rest) = said.split_once("expected ").expect("it says what was expected");
    rest.split(' ').next().and_then(|least| least.parse().ok()).expect("a number")
}

#[test]
fn a_file_limit_without_room_for_streams_is_refused_and_one_with_little_is_told() {
    let mut needed = 0;
    for arguments in ["serve --listen 127.0.0.1:0", "--listen 127.0.0.1:0", "check"] {
        let (code, out, said) = ended_with_files(64, arguments);
        assert_eq!((code, &*out), (Some(64), ""), "{arguments}: {said}");
        for named in ["64 files", "--max-streams", "1000 streams", HOW[0], HOW[1], HOW[2]] {
            assert!(said.contains(named), "{arguments}: {named} is not said: {said}");
        }
        needed = least(&said);
    }
    assert_eq!(ended_with_files(needed - 1, "check").0, Some(64));
    let (code, out, _) = ended_with_files(needed, "check");
    assert!(code == Some(0) && out.contains(" room for 1 streams"), "{out}");

    let server = with_files(400, "");
    let said = started(&server);
    let room = format!("room for {} streams", server.stat("/max_clients"));
    for named in ["WARN", "400 files", &room, HOW[0], HOW[1], HOW[2]] {
        assert!(said.contains(named), "{named} is not said: {said}");
    }
    // As many as it names are enough for a thousand streams, and then nothing is said.
    let (_, enough) = said.split_once("LimitNOFILE=").expect("it says how many");
    let enough: u32 = enough.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    for (files, warned) in [(enough - 1, true), (enough, false)] {
        let (code, out, _) = ended_with_files(files, "check");
        assert_eq!((code, out.contains("warning:")), (Some(0), warned), "{files}: {out}");
    }
    assert!(!started(&with_files(enough, "")).contains("WARN"));
}

#[test]
fn explicit_limits_are_taken_and_told_of_where_the_file_limit_is_lower() {
    let server = with_files(64, "--max-streams 0");
    assert_eq!(server.stat("/max_clients"), 0);
    for (flags, warned) in [
        ("--max-streams 10 --max-connections 10", false),
        ("--max-streams 0 --max-connections 10", false),
        ("--max-streams 390 --max-connections 10", true),
        ("--max-streams 5000", true),
        ("--max-connections 5000", true),
        ("--max-streams 18446744073709551615", true),
    ] {
        let (code, out, _) = ended_with_files(400, &format!("check {flags}"));
        assert_eq!(code, Some(0), "{flags}: {out}");
        assert_eq!(out.contains("and 400 may be open"), warned, "{flags}: {out}");
        assert_eq!(HOW.iter().all(|how| out.contains(how)), warned, "{flags}: {out}");
        let log = started(&with_files(400, flags));
        assert_eq!(log.contains("and 400 may be open"), warned, "{flags}: {log}");
    }
}

#[test]
fn the_soft_file_limit_is_raised_to_the_hard_one() {
    let mut command = common::clean(Command::new("sh"));
    let binary = env!("CARGO_BIN_EXE_fanfare");
    command.args(["-c", "ulimit -Sn 100 && ulimit -Hn 500 && exec \"$0\" --listen 127.0.0.1:0", binary]);
    let server = Server::spawn(command);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).expect("the process lives");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line for files");
    assert_eq!(files.split_whitespace().nth(3), Some("500"), "{files}");
}

#[test]
fn running_out_of_descriptors_neither_spins_nor_lasts() {
    // More is allowed than there are descriptors for, so that accepting fails.
    let mut server = with_files(64, "--max-streams 1000 --max-connections 1000 --idle-timeout 10m --head-timeout 10m");
    let mut streams: Vec<Stream> = (0..20).map(|_| server.stream("topics=a")).collect();
    let crowd: Vec<Conn> = (0..100).map(|_| server.connect()).collect();
    let fds = || std::fs::read_dir(format!("/proc/{}/fd", server.pid())).map_or(0, Iterator::count);
    wait_until("all descriptors to be taken", || fds() >= 64);
    let (ticks, begun) = (server.cpu_ticks(), Instant::now());
    thread::sleep(Duration::from_secs(2));
    let (used, took) = (server.cpu_ticks() - ticks, begun.elapsed());
    // A hundred ticks are a second of one processor: a loop that spins uses all of them.
    assert!(used as f64 <= 25.0 * took.as_secs_f64(), "{used} ticks in {took:?} while nothing could be accepted");
    // Who is there is served all the while.
    let mut kept = crowd;
    let mut publisher = common::Publisher { conn: kept.remove(0) };
    publisher.publish("a", "k", "{}");
    for stream in &mut streams {
        stream.expect("k");
    }
    drop(kept);
    // And with descriptors free again it accepts again, those who waited and new ones.
    streams.push(server.stream("topics=a"));
    publisher.publish("a", "k", "{}");
    for stream in &mut streams {
        stream.expect("k");
    }
    assert!(server.log().lines().count() < 20, "it does not fill the log either: {}", server.log());
    server.assert_well();
}
