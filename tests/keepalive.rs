//! Kept connections: they serve one request after another, rest between them for `--idle-timeout` and no longer, and
//! are not cut while they are in use, however long.

mod common;

use common::{EVENTS, Server};
use std::thread::sleep;
use std::time::{Duration, Instant};

#[test]
fn a_connection_in_use_outlives_the_idle_timeout() {
    let server = Server::start(&["--idle-timeout", "700ms", "--head-timeout", "700ms"]);
    let mut conn = server.connect();
    let begun = Instant::now();
    // Each request fits one segment and is answered at once: the connection is never seen at work.
    while begun.elapsed() < Duration::from_millis(2_500) {
        conn.send(format!("GET {EVENTS}/stats HTTP/1.1\r\nHost: t\r\n\r\n").as_bytes());
        assert_eq!(conn.answer().expect("an answer on a connection in use").status, 200);
        sleep(Duration::from_millis(150));
    }
}

#[test]
fn a_connection_at_rest_is_closed_after_the_idle_timeout() {
    let server = Server::start(&["--idle-timeout", "500ms"]);
    let mut conn = server.connect();
    conn.send(format!("GET {EVENTS}/stats HTTP/1.1\r\nHost: t\r\n\r\n").as_bytes());
    assert_eq!(conn.answer().expect("an answer").status, 200);
    let rested = Instant::now();
    assert_eq!(conn.drain(), [0u8; 0], "nothing more comes");
    let rest = rested.elapsed();
    assert!(rest >= Duration::from_millis(400) && rest < Duration::from_secs(5), "closed after {rest:?}");
}
