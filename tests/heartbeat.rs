//! Heartbeats (`WIRE.md` part 1, and "a heartbeat carries `id:`" of part 2; `DESIGN.md`, "Frames"): a stream that was
//! sent nothing for the interval is sent one, named as the Go gateway's or a comment; one that was written to since
//! does not need one. Its id is the place up to which the stream has read. `streams.rs` looks at
//! that over each transport.

mod common;

use common::{PATIENCE, Server, parts, wait_until};
use std::time::{Duration, Instant};

#[test]
fn a_named_one_is_the_gateways_and_carries_the_place() {
    let server = Server::start(&["--heartbeat", "300ms"]);
    let mut stream = server.stream("topics=a");
    let id = server.publish("a", "k", "{}");
    stream.expect("k");
    let text_before = stream.text.len();
    let event = stream.next_any();
    assert_eq!(event.kind, "heartbeat");
    assert_eq!((event.id.as_deref(), event.retry), (Some(&*id), None));
    let json = event.data.clone();
    let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let unix = value["data"]["timestamp"].as_u64().expect("unix seconds");
    let timestamp = value["timestamp"].as_str().expect("a text");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    assert!(now.abs_diff(unix) < 60, "{unix} is not now, {now}");
    assert_eq!(
        json,
        format!("{{\"type\":\"heartbeat\",\"data\":{{\"timestamp\":{unix}}},\"timestamp\":\"{timestamp}\"}}"),
        "the gateway's keys in the gateway's order, and no topic"
    );
    let text = String::from_utf8(stream.text[text_before..].to_vec()).expect("UTF-8");
    assert!(text.starts_with("event: heartbeat\ndata: {"), "{text:?}");
    assert!(text.ends_with(&format!("}}\nid: {id}\n\n")), "{text:?}");
}

#[test]
fn a_comment_is_invisible_to_pages() {
    let server = Server::start(&["--heartbeat", "200ms", "--heartbeat-style", "comment"]);
    let mut stream = server.stream("topics=a");
    let deadline = Instant::now() + PATIENCE;
    while stream.sse.comments.len() < 3 {
        assert!(Instant::now() < deadline, "no comments came");
        assert_eq!(stream.next_within(Duration::from_millis(50)), None);
    }
    assert_eq!(stream.sse.empty_blocks, 0);
    assert!(stream.body().ends_with(": heartbeat\n"), "{}", stream.body());
    // Other topics' events are no matter to a stream that gets all of its own.
    server.publish("b", "k", "{}");
    let seen = stream.sse.comments.len();
    while stream.sse.comments.len() < seen + 3 {
        assert!(Instant::now() < deadline, "no comments came");
        assert_eq!(stream.next_within(Duration::from_millis(50)), None);
    }
    server.publish("a", "k", "{}");
    stream.expect("k");
}

#[test]
fn they_come_at_the_interval() {
    let interval = Duration::from_millis(500);
    let server = Server::start(&["--heartbeat", "500ms"]);
    let mut stream = server.stream("topics=a");
    let mut last = Instant::now();
    let begun = last;
    for _ in 0..4 {
        assert_eq!(stream.next_any().kind, "heartbeat");
        // Seen late where this process was held up, and the next one then seems early; but four take their time.
        last = Instant::now();
    }
    let took = last - begun;
    assert!(took >= 4 * interval - Duration::from_millis(300), "{took:?} for four of {interval:?}");
    assert!(took < 4 * interval + Duration::from_secs(10), "{took:?} for four of {interval:?}");
}

#[test]
fn a_stream_that_is_written_to_needs_none() {
    let server = Server::start(&["--heartbeat", "2s"]);
    let mut busy = server.stream("topics=a");
    let mut quiet = server.stream("topics=b");
    let begun = Instant::now();
    let mut longest = Duration::ZERO;
    let mut last = begun;
    while begun.elapsed() < Duration::from_secs(5) {
        server.publish("a", "k", "{}");
        let event = busy.next_any();
        longest = longest.max(last.elapsed());
        last = Instant::now();
        // On a machine that stood still for two seconds a heartbeat is right.
        assert!(event.kind == "k" || longest > Duration::from_secs(1), "{event:?} after at most {longest:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(quiet.next_any().kind, "heartbeat", "the one that nothing was written to got its own");
}

#[test]
fn one_tick_serves_many_streams() {
    let server = Server::start(&["--heartbeat", "300ms", "--shards", "2"]);
    let mut streams: Vec<_> = (0..50).map(|n| server.stream(&format!("topics=t{n}"))).collect();
    for round in 0..3 {
        for stream in &mut streams {
            assert_eq!(stream.next_any().kind, "heartbeat", "round {round}");
        }
    }
    wait_until("them to be counted", || server.stat("/streams/heartbeats") >= 150);
    assert_eq!(server.stat("/streams/delivered"), 0, "heartbeats are no events");
}

#[test]
fn they_do_not_disturb_resuming_or_a_limit() {
    let server = Server::start(&["--heartbeat", "100ms"]);
    let mut stream = server.stream("topics=a&limit=2");
    for n in 0..3 {
        assert_eq!(stream.next_any().kind, "heartbeat", "{n}");
    }
    let first = server.publish("a", "k", "{}");
    stream.expect("k");
    assert_eq!(stream.next_any().kind, "heartbeat");
    assert_eq!(stream.last_event_id(), first);
    let second = server.publish("a", "k", "{}");
    assert_eq!(parts(&second).1, parts(&first).1 + 1, "a heartbeat takes no number");
    stream.expect("k");
    let (rest, end) = stream.read_to_end();
    assert_eq!((rest.len(), end), (0, common::End::Clean));
    let mut again = server.stream(&format!("topics=a&last_event_id={first}"));
    assert_eq!(again.expect("k").id, Some(second));
}

#[test]
fn http_1_0_gets_them_without_chunks() {
    let server = Server::start(&["--heartbeat", "200ms"]);
    let mut conn = server.connect();
    conn.send(b"GET /api/v1/events HTTP/1.0\r\n\r\n");
    let mut stream = common::Stream::over(conn);
    stream.expect("connected");
    assert_eq!(stream.next_any().kind, "heartbeat");
    assert!(!stream.body().contains('\r'));
}

#[test]
fn the_first_one_is_not_due_at_once_after_a_quiet_time() {
    let interval = Duration::from_millis(600);
    let server = Server::start(&["--heartbeat", "600ms"]);
    // Nobody listens for longer than the interval: the shard sleeps all the while.
    std::thread::sleep(interval * 3);
    let begun = Instant::now();
    let mut stream = server.stream("topics=a");
    assert_eq!(stream.next_any().kind, "heartbeat");
    assert!(begun.elapsed() > interval / 2, "a heartbeat {:?} after the stream began", begun.elapsed());
}
