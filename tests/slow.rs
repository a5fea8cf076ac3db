//! Slow readers (`DESIGN.md`, "One mechanism for four needs"; issue 2, item 4): one that does not read holds no queue,
//! slows nobody, reads on in order where it stopped as long as the log has it, is told of a gap where it has not, and
//! is closed when it takes nothing for the stall timeout.

mod common;

use common::{PATIENCE, Server, SseEvent, Stream, parts, wait_until};
use std::time::{Duration, Instant};

/// A payload of so many bytes, numbered.
fn big(n: usize, bytes: usize) -> String {
    format!("{{\"n\":{n},\"a\":\"{}\"}}", "x".repeat(bytes))
}

/// Publishes `from..to` of 20 kB each to topic `a`; gives the last id.
fn flood(server: &Server, range: std::ops::Range<usize>) -> String {
    let mut publisher = server.publisher();
    range.map(|n| publisher.publish("a", "tick", &big(n, 20_000))).last().expect("some")
}

/// Publishes until the stream's socket takes no more; gives how many events that were.
fn fill(server: &Server) -> usize {
    let stalls = server.stat("/streams/stalls");
    let mut publisher = server.publisher();
    for n in 0..5_000 {
        publisher.publish("a", "tick", &big(n, 20_000));
        if n % 20 == 19 && server.stat("/streams/stalls") > stalls {
            return n + 1;
        }
    }
    panic!("100 MB went into a socket that nobody reads: {}", server.stats());
}

/// Flags under which a stall comes soon.
const SMALL: [&str; 2] = ["--send-buffer", "16KiB"];

#[test]
fn reading_again_goes_on_in_order_without_a_duplicate() {
    let server = Server::start(&SMALL);
    let mut slow = server.stream("topics=a");
    let filled = fill(&server);
    flood(&server, filled..filled + 30);
    // It stands in mid-frame: what it did not take is the rest of one event, and 30 more are in the log.
    for n in 0..filled + 30 {
        assert_eq!(slow.expect("tick").n(), n);
    }
    slow.expect_nothing();
    flood(&server, 0..1);
    assert_eq!(slow.expect("tick").n(), 0, "it is live again");
    assert_eq!(server.stat("/streams/gaps"), 0);
}

#[test]
fn a_stalled_reader_slows_nobody() {
    let server = Server::start(&[&SMALL[..], &["--shards", "1", "--history-bytes", "1MiB"]].concat());
    let slow: Vec<Stream> = (0..20).map(|_| server.stream("topics=a")).collect();
    fill(&server);
    let mut quick = server.stream("topics=a,b");
    let mut publisher = server.publisher();
    let mut longest = Duration::ZERO;
    for n in 0..200 {
        let begun = Instant::now();
        publisher.publish("a", "tick", &big(n, 20_000));
        assert_eq!(quick.expect("tick").n(), n);
        longest = longest.max(begun.elapsed());
    }
    // A stall that held somebody up would hold him up until the reader reads, which it never does here.
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    assert_eq!(server.stat("/connected_clients"), 21, "the slow ones are still there");
    drop(slow);
}

#[test]
fn memory_does_not_grow_with_what_slow_readers_miss() {
    let server = Server::start(&[&SMALL[..], &["--history-bytes", "2MiB", "--stall-timeout", "10m"]].concat());
    let _slow: Vec<Stream> = (0..100).map(|_| server.stream("topics=a")).collect();
    flood(&server, 0..300);
    let before = server.rss_kb();
    // 100 readers miss 20 MB each: 2 GB, were it queued for each of them, 20 MB, were it kept at all.
    flood(&server, 300..1300);
    let after = server.rss_kb();
    assert!(after < before + 12 * 1024, "{before} kB, then {after} kB");
    assert!(server.stat("/history/bytes") <= 2 << 20);
}

#[test]
fn who_falls_off_the_history_is_told_of_a_gap_and_goes_on() {
    let server = Server::start(&[&SMALL[..], &["--topic-events", "50", "--live-events", "1"]].concat());
    let mut slow = server.stream("topics=a");
    let filled = fill(&server);
    flood(&server, filled..filled + 500);
    let mut seen: Vec<usize> = Vec::new();
    let mut gaps = Vec::new();
    while seen.last() != Some(&(filled + 499)) {
        let event = slow.next();
        if event.kind == "gap" {
            gaps.push((seen.len(), event));
        } else {
            seen.push(event.n());
        }
    }
    let holes: Vec<usize> = (1..seen.len()).filter(|&at| seen[at] != seen[at - 1] + 1).collect();
    assert!(seen.is_sorted_by(|a, b| a < b), "in order, none twice");
    assert_eq!(seen[0], 0, "what it had been sent comes first");
    // One hole, or more where the kernel finds some room now and then for one who reads nothing.
    let told: Vec<usize> = gaps.iter().map(|(at, _)| *at).collect();
    assert!(!holes.is_empty() && told == holes, "gaps are told where the holes are: {told:?}, {holes:?}");
    for (at, gap) in &gaps {
        let json = gap.json();
        assert_eq!(json["data"]["reason"], "evicted");
        let seq = |key: &str| parts(json["data"][key].as_str().expect("an id")).1;
        // The event numbered n has sequence number n + 1.
        assert_eq!(seq("requested"), seen[at - 1] as u64 + 1, "the last one it had");
        assert_eq!(seq("oldest"), seen[*at] as u64 + 1, "the first one it has again");
    }
    assert!(seen.len() - holes[holes.len() - 1] <= 51, "then what is kept");
}

#[test]
fn a_slow_reader_gets_events_and_not_only_gaps_while_publishing_goes_on() {
    let server = Server::start(&[&SMALL[..], &["--topic-events", "20", "--live-events", "20"]].concat());
    let mut slow = server.stream("topics=a");
    fill(&server);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (events, gaps) = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut publisher = server.publisher();
            let batch: Vec<String> =
                (0..10).map(|n| format!("{{\"topic\":\"a\",\"type\":\"tick\",\"data\":{}}}", big(n, 5_000))).collect();
            let batch = format!("[{}]", batch.join(","));
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                publisher.post(&batch);
            }
        });
        let (mut events, mut gaps, mut last) = (0, 0, 0);
        let deadline = Instant::now() + Duration::from_secs(2);
        while Instant::now() < deadline {
            let event = slow.next();
            if event.kind == "gap" {
                gaps += 1;
            } else {
                assert!(event.seq() > last, "in order, none twice");
                last = event.seq();
                events += 1;
            }
            if events % 50 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        (events, gaps)
    });
    assert!(events >= gaps, "{events} events and {gaps} gaps: gaps crowd out what they announce");
    assert!(events > 100, "{events} events");
}

#[test]
fn a_reader_that_takes_nothing_is_closed_after_the_stall_timeout() {
    let server = Server::start(&[&SMALL[..], &["--stall-timeout", "1s", "--heartbeat", "10m"]].concat());
    let mut slow = server.stream("topics=a");
    let mut idle = server.stream("topics=b");
    fill(&server);
    let begun = Instant::now();
    wait_until("the stalled stream to be closed", || server.stat("/streams/closed/stalled") == 1);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    server.wait_for_clients(1);
    // What had been sent is still there to be read; then the connection ends, and not as if all were well.
    let (events, end) = slow.read_to_end();
    assert!(matches!(end, common::End::Torn(_)), "{end:?}");
    assert!(events.iter().map(SseEvent::n).eq(0..events.len()));
    // A stream that is only idle has not stalled.
    server.publish("b", "k", "{}");
    idle.expect("k");
}

#[test]
fn a_reader_that_takes_a_little_now_and_then_is_not_closed() {
    let server = Server::start(&[&SMALL[..], &["--stall-timeout", "2s", "--heartbeat", "10m"]].concat());
    let mut slow = server.stream("topics=a");
    let filled = fill(&server);
    flood(&server, filled..filled + 100);
    let begun = Instant::now();
    for n in 0..filled + 100 {
        assert_eq!(slow.expect("tick").n(), n);
        // Over two stall timeouts for the whole, far less than one for each event.
        let pace = Duration::from_millis(4_500) * n as u32 / (filled as u32 + 100);
        std::thread::sleep(pace.saturating_sub(begun.elapsed()));
    }
    assert!(begun.elapsed() > Duration::from_secs(4));
    assert_eq!(server.stat("/streams/closed/stalled"), 0);
}

#[test]
fn a_peer_that_is_gone_without_a_word_is_found() {
    // On one machine a peer's kernel always answers; what can be had is one that closed while its data was not read:
    // it answers the next heartbeat with a reset.
    let server = Server::start(&["--heartbeat", "300ms"]);
    let gone: Vec<Stream> = (0..20).map(|_| server.stream("topics=a")).collect();
    assert_eq!(server.stat("/connected_clients"), 20);
    drop(gone);
    server.wait_for_clients(0);
    let closed = &server.stats()["streams"]["closed"];
    let counted: u64 = ["client_closed", "connection_reset"].iter().filter_map(|r| closed[*r].as_u64()).sum();
    assert_eq!(counted, 20, "{closed}");
}

#[test]
fn a_stream_that_replays_much_holds_up_nobody() {
    let server = Server::start(&[&SMALL[..], &["--shards", "1"]].concat());
    let first = flood(&server, 0..1);
    flood(&server, 1..1_000);
    // 20 MB each, for readers that do not read: at once, on the one shard.
    let _greedy: Vec<Stream> = (0..30).map(|_| server.stream(&format!("topics=a&last_event_id={first}"))).collect();
    let mut live = server.stream("topics=b");
    let mut publisher = server.publisher();
    for n in 0..100 {
        let begun = Instant::now();
        publisher.publish("b", "tick", &big(n, 10));
        assert_eq!(live.expect("tick").n(), n);
        assert!(begun.elapsed() < PATIENCE / 6, "{:?}", begun.elapsed());
    }
}

#[test]
fn limit_ends_a_stalled_stream_behind_its_last_whole_event() {
    let server = Server::start(&SMALL);
    let mut slow = server.stream("topics=a&limit=400");
    flood(&server, 0..450);
    let (events, end) = slow.read_to_end();
    assert_eq!(end, common::End::Clean);
    assert!(events.iter().map(SseEvent::n).eq(0..400));
}

#[test]
fn one_that_was_slow_and_does_not_leave_at_its_end_is_closed() {
    let server = Server::start(&SMALL);
    let mut slow = server.stream("topics=a&limit=30");
    server.publisher().publish("a", "tick", &big(0, 500_000));
    wait_until("it to stall", || server.stat("/streams/stalls") == 1);
    flood(&server, 1..30);
    let (events, end) = slow.read_to_end();
    assert_eq!((events.len(), end), (30, common::End::Clean));
    let busy = server.cpu_ticks();
    wait_until("the connection to be closed", || {
        std::thread::sleep(Duration::from_millis(100));
        server.stat("/streams/closed/limit_reached") == 1
    });
    assert!(server.cpu_ticks() - busy < 100, "it waits, and does nothing else");
    server.wait_for_clients(0);
}
