//! What strangers can write into the log at the default level: a line a minute from each place in the program, which
//! says how many it stands for; what they did is counted.

mod common;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};

use common::{PATIENCE, Server, fanfare, wait_until};

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// What a connection of HTTP/2 begins with: the preface, and settings.
fn preface() -> Vec<u8> {
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat()
}

/// Many requests, each reset at once (CVE-2023-44487).
fn resets() -> Vec<u8> {
    // `:method GET`, `:scheme http`, `:path /`, `:authority t` (RFC 7541, appendix A).
    const HEAD: [u8; 6] = [0x82, 0x86, 0x84, 0x41, 1, b't'];
    let reset = |n: u32| [frame(1, 0x5, 2 * n + 1, &HEAD), frame(3, 0, 2 * n + 1, &8_u32.to_be_bytes())].concat();
    [preface(), (0..100).flat_map(reset).collect()].concat()
}

/// Sends bytes on a connection of their own, and reads until its end.
fn send(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(address).expect("it accepts connections");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    // It may be closed in the midst of this.
    let _ = socket.write_all(bytes);
    let _ = socket.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    answer
}

/// The lines of the log at these levels.
fn loud(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect()
}

/// One line of `/metrics`.
#[track_caller]
fn metric(server: &Server, name: &str) -> u64 {
    let page = server.get("/metrics").text();
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {page}"))
}

const HELD_BACK: &str = "fanfare_log_held_back_total{level=\"warn\"}";

#[test]
fn a_flood_of_resets_is_one_line_and_counted() {
    let mut server = Server::start(&[]);
    for _ in 0..50 {
        send(server.addr, &resets());
    }
    wait_until("all of them to be counted", || server.stat("/connections/http2_errors") == 50);
    assert_eq!(metric(&server, "fanfare_http2_errors_total"), 50);
    let log = server.log();
    assert!(matches!(loud(&log)[..], [line] if line.contains("h2") && !line.contains("held_back")), "{log}");
    assert_eq!(metric(&server, HELD_BACK), 49);
    // What nobody came to tell is told at the end; start and stop are not held back.
    server.signal("TERM");
    server.wait_for_exit(PATIENCE);
    wait_until("the last line", || server.log().contains("held_back=49"));
    let log = server.log();
    assert_eq!(loud(&log).len(), 2, "{log}");
    for line in ["listening", "stopping", "stopped"] {
        assert!(log.lines().any(|written| written.contains(line)), "{line}: {log}");
    }
}

#[test]
fn lines_of_json_are_held_back_too() {
    let mut server = Server::start(&["--log-format", "json"]);
    for _ in 0..20 {
        send(server.addr, &resets());
    }
    wait_until("all of them to be counted", || server.stat("/connections/http2_errors") == 20);
    server.signal("TERM");
    server.wait_for_exit(PATIENCE);
    let told = || {
        let lines = server.log().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect::<Vec<_>>();
        lines.into_iter().filter(|line: &serde_json::Value| line["level"] == "WARN").collect::<Vec<_>>()
    };
    wait_until("the last line", || told().len() > 1);
    let told = told();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[1]["fields"]["held_back"], 19, "{told:?}");
    let place = told[1]["fields"]["place"].as_str().expect("where it was written");
    assert!(place.starts_with(told[0]["target"].as_str().expect("a target")), "{told:?}");
}

#[test]
fn whatever_strangers_send_no_place_writes_twice() {
    let server = Server::start(&["--tls-listen", "127.0.0.1:0", "--tls-self-signed", "--max-head", "8KiB"]);
    let before = server.log().lines().count();
    let http2 = |frames: &[Vec<u8>]| [preface(), frames.concat()].concat();
    let sent: Vec<Vec<u8>> = vec![
        // Over HTTP/1.1: heads that are none, too long, contradictory, cut off.
        b"\x00\x01\x02 /\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        format!("GET / HTTP/1.1\r\nHost: t\r\nX: {}\r\n\r\n", "x".repeat(20_000)).into_bytes(),
        b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_vec(),
        b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec(),
        b"POST /api/v1/events/broadcast HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\n{".to_vec(),
        b"GET /api/v1/events?topics=a".to_vec(),
        b"CONNECT t:1 HTTP/1.1\r\nHost: t\r\n\r\n".to_vec(),
        // Over HTTP/2: an answer to a ping that was not sent, resets, a frame that is too long, headers that are none, a
        // window that overflows, an error of the client's own.
        http2(&[frame(6, 1, 0, &[0; 8])]),
        resets(),
        http2(&[vec![0xff; 64]]),
        http2(&[frame(1, 0x5, 1, &[0xff; 32])]),
        http2(&[frame(8, 0, 0, &0x7fff_ffff_u32.to_be_bytes())]),
        http2(&[frame(7, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 1])]),
        http2(&[frame(1, 0x5, 1, &[0x82, 0x86, 0x84, 0x41, 1, b't', 0, 2, b't', b'e', 1, b'x'])]),
        // And where TLS is spoken: none, and the beginning of it.
        [&[22, 3, 1, 0, 5, 1, 0, 0, 1, 0][..], &[0; 64]].concat(),
        vec![21, 3, 3, 0, 2, 1, 0],
    ];
    const ROUNDS: usize = 8;
    for _ in 0..ROUNDS {
        for bytes in &sent {
            send(server.addr, bytes);
            send(server.tls.expect("it speaks TLS"), bytes);
        }
    }
    assert!(server.stat("/connections/http2_errors") as usize >= ROUNDS);
    let log = server.log();
    let lines: Vec<&str> = log.lines().skip(before).collect();
    let mut places: Vec<String> = lines
        .iter()
        .map(|line| {
            // Without the time, and without what differs from line to line.
            let (_, said) = line.split_once(' ').unwrap_or_default();
            said.chars().filter(|c| !c.is_ascii_digit()).collect()
        })
        .collect();
    places.sort();
    let written = places.len();
    places.dedup();
    assert_eq!(places.len(), written, "a place has written twice: {log}");
    assert!(written < sent.len(), "{log}");
}

#[test]
fn what_an_operator_asks_to_see_is_all_there() {
    let server = Server::start(&["--log", "debug"]);
    for _ in 0..10 {
        send(server.addr, &resets());
    }
    let ended = |log: String| log.lines().filter(|line| line.contains("connection ended")).count();
    wait_until("ten lines", || ended(server.log()) >= 10);
}

#[test]
fn warnings_of_a_start_are_all_there() {
    let mut command = fanfare();
    command.args(["--listen", "0.0.0.0:0"]);
    let server = Server::spawn(command);
    // Written by one place.
    wait_until("both", || server.log().matches("anybody who reaches this port").count() == 2);
}
