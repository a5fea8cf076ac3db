//! History and resume (`WIRE.md` part 2, `DESIGN.md` "The topic index"): a stream that names where it stopped gets
//! what its topics had since, in order, then what comes; where that is no longer possible it is told of a gap, and
//! only there. History is bounded by each topic's events, by all events' bytes, by their number, and by age.

mod common;

use common::{BROADCAST, End, Server, Stream, numbered, parts, wait_until};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Publishes ticks `from..to` to a topic; gives their ids.
fn ticks(server: &Server, topic: &str, range: std::ops::RangeInclusive<usize>) -> Vec<String> {
    let mut publisher = server.publisher();
    range.map(|n| publisher.post(&numbered(topic, n))).collect()
}

/// A gap's reason, what was asked for, and the oldest event that is left.
#[track_caller]
fn gap(stream: &mut Stream) -> (String, String, String) {
    let event = stream.expect("gap");
    assert_eq!(event.id, None, "a gap is no place to resume from: {event:?}");
    let json = event.json();
    assert_eq!(json["type"], "gap");
    assert!(json["timestamp"].is_string());
    assert_eq!(json.as_object().map(serde_json::Map::len), Some(3), "{json}");
    let text = |key: &str| json["data"][key].as_str().unwrap_or_else(|| panic!("no {key} in {json}")).to_owned();
    (text("reason"), text("requested"), text("oldest"))
}

#[test]
fn every_way_of_naming_an_id_replays_what_came_after_it() {
    let server = Server::start(&[]);
    let ids = ticks(&server, "a", 1..=5);
    let id = &ids[1];
    let ways = [
        (String::new(), format!("Last-Event-ID: {id}\r\n")),
        (String::new(), format!("last-event-id: {id}\r\n")),
        (format!("&last_event_id={id}"), String::new()),
        (format!("&lastEventId={id}"), String::new()),
        // The header is the newer one: a page's URL keeps the id that it was opened with.
        (format!("&last_event_id={}", ids[3]), format!("Last-Event-ID: {id}\r\n")),
        ("&lastEventId=other-7".to_owned(), format!("Last-Event-ID: {id}\r\n")),
        // An empty one is none.
        (format!("&lastEventId={id}"), "Last-Event-ID:\r\n".to_owned()),
        (format!("&last_event_id={id}&lastEventId="), String::new()),
        // An id is the finer place.
        (format!("&last_event_id={id}&last=1&since=1s"), String::new()),
    ];
    for (query, header) in ways {
        println!("{query} {header}");
        let mut stream = server.stream_with(&format!("topics=a{query}"), &header);
        assert_eq!(stream.connected.id.as_ref(), Some(id), "a client cut off now resumes at the same place");
        assert_eq!(stream.numbers(3), [3, 4, 5]);
        stream.expect_nothing();
    }
}

#[test]
fn a_resumed_stream_goes_on_live() {
    let server = Server::start(&[]);
    let ids = ticks(&server, "a", 1..=3);
    let mut stream = server.stream(&format!("topics=a&last_event_id={}", ids[0]));
    assert_eq!(stream.numbers(2), [2, 3]);
    ticks(&server, "a", 4..=6);
    assert_eq!(stream.numbers(3), [4, 5, 6]);
}

#[test]
fn only_the_asked_topics_are_replayed_in_their_common_order() {
    let server = Server::start(&[]);
    let before = server.publish("a", "k", "{}");
    for n in 1..=30 {
        ticks(&server, ["a", "b", "c"][n % 3], n..=n);
    }
    let of = |rest: &[usize]| (1..=30).filter(|n| rest.contains(&(n % 3))).collect::<Vec<_>>();
    for (topics, rest) in [("a", &[0][..]), ("b", &[1]), ("b,a", &[0, 1]), ("c,b,a", &[0, 1, 2]), ("all", &[0, 1, 2])] {
        let mut stream = server.stream(&format!("topics={topics}&last_event_id={before}"));
        let expected = of(rest);
        assert_eq!(stream.numbers(expected.len()), expected, "{topics}");
        stream.expect_nothing();
    }
}

#[test]
fn the_newest_id_and_the_id_of_connected_replay_nothing() {
    let server = Server::start(&[]);
    // Before the first event too.
    let fresh = server.stream("topics=a").connected.id.expect("connected has an id");
    assert_eq!(parts(&fresh).1, 0);
    let ids = ticks(&server, "a", 1..=2);
    assert_eq!(server.stream(&format!("topics=a&last_event_id={fresh}")).numbers(2), [1, 2]);
    server.stream(&format!("topics=a&last_event_id={}", ids[1])).expect_nothing();
    let id = server.stream("topics=a").connected.id.expect("connected has an id");
    assert_eq!(id, ids[1]);
    let elsewhere = server.publish("b", "k", "{}");
    let mut stream = server.stream(&format!("topics=a&last_event_id={elsewhere}"));
    stream.expect_nothing();
    ticks(&server, "a", 3..=3);
    assert_eq!(stream.numbers(1), [3]);
}

#[test]
fn the_id_of_connected_is_a_valid_place_whatever_the_stream_asked_for() {
    let server = Server::start(&[]);
    ticks(&server, "a", 1..=9);
    for query in ["topics=a&last=4", "topics=a&since=1h", "topics=a&last_event_id=gone-3"] {
        let mut first = server.stream(query);
        let id = first.connected.id.clone().expect("connected has an id");
        if query.contains("gone") {
            gap(&mut first);
        }
        let n = first.numbers(1)[0];
        let mut again = server.stream(&format!("topics=a&last_event_id={id}"));
        assert_eq!(again.numbers(1), [n], "{query}");
    }
}

#[test]
fn an_id_of_another_history_is_a_gap_and_then_what_there_is() {
    let server = Server::start(&[]);
    let ids = ticks(&server, "a", 1..=3);
    server.publish("b", "k", "{}");
    let (epoch, _) = parts(&ids[0]);
    let unknown = [
        "k3j2-17".to_owned(),
        "17".to_owned(),
        "-".to_owned(),
        format!("{epoch}-"),
        format!("{epoch}-x"),
        format!("x{epoch}-1"),
        format!("{epoch}-99999999999999999999999"),
        // From the future of this history: nobody can have got it here.
        format!("{epoch}-5000"),
        "ünïcode-1".to_owned(),
        "\"quoted\\\"".to_owned(),
    ];
    for id in unknown {
        let mut stream = server.stream_with("topics=a", &format!("Last-Event-ID: {id}\r\n"));
        assert_eq!(gap(&mut stream), ("unknown_epoch".to_owned(), id.clone(), ids[0].clone()), "{id}");
        assert_eq!(stream.numbers(3), [1, 2, 3], "{id}: everything kept may be new to this client");
        stream.expect_nothing();
    }
    // Nothing kept of these topics: still a gap, since what it missed is not known.
    let mut stream = server.stream("topics=z&last_event_id=k3j2-17");
    assert_eq!(gap(&mut stream).0, "unknown_epoch");
    stream.expect_nothing();
}

#[test]
fn an_id_that_is_far_too_long_is_unknown_and_cut() {
    let server = Server::start(&[]);
    for (long, kept) in
        [("9".repeat(5000), "9".repeat(256)), ("é".repeat(200), "é".repeat(128)), ("€".repeat(100), "€".repeat(85))]
    {
        let escaped: String = long.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let mut stream = server.stream(&format!("topics=a&last_event_id={escaped}"));
        let (reason, requested, _) = gap(&mut stream);
        assert_eq!((reason.as_str(), requested), ("unknown_epoch", kept));
    }
}

#[test]
fn what_a_topic_no_longer_keeps_is_a_gap_for_those_who_missed_it() {
    let server = Server::start(&["--topic-events", "5", "--live-events", "1"]);
    let ids = ticks(&server, "a", 1..=20);
    for (after, first) in [(1, 16), (14, 16)] {
        let mut stream = server.stream(&format!("topics=a&last_event_id={}", ids[after - 1]));
        let told = gap(&mut stream);
        assert_eq!(told, ("evicted".to_owned(), ids[after - 1].clone(), ids[first - 1].clone()));
        assert_eq!(stream.numbers(5), [16, 17, 18, 19, 20]);
        stream.expect_nothing();
    }
    // Event 15 is the newest that is gone: who has had it missed nothing.
    let mut stream = server.stream(&format!("topics=a&last_event_id={}", ids[14]));
    assert_eq!(stream.numbers(5), [16, 17, 18, 19, 20]);
    // And so for a stream of everything.
    let mut stream = server.stream(&format!("topics=all&last_event_id={}", ids[13]));
    assert_eq!(gap(&mut stream).0, "evicted");
    assert_eq!(stream.numbers(5), [16, 17, 18, 19, 20]);
    let mut stream = server.stream(&format!("topics=all&last_event_id={}", ids[14]));
    assert_eq!(stream.numbers(5), [16, 17, 18, 19, 20]);
}

#[test]
fn another_topics_losses_are_no_gap() {
    let server = Server::start(&["--topic-events", "5", "--live-events", "1"]);
    let quiet = ticks(&server, "quiet", 1..=3);
    ticks(&server, "chatty", 1..=100);
    let mut stream = server.stream(&format!("topics=quiet&last_event_id={}", quiet[0]));
    assert_eq!(stream.numbers(2), [2, 3], "its own are all there");
    stream.expect_nothing();
    let mut stream = server.stream(&format!("topics=never&last_event_id={}", quiet[0]));
    stream.expect_nothing();
    // One who listened to both did miss something.
    let mut stream = server.stream(&format!("topics=quiet,chatty&last_event_id={}", quiet[0]));
    assert_eq!(gap(&mut stream).0, "evicted");
    assert_eq!(stream.numbers(7), [2, 3, 96, 97, 98, 99, 100]);
}

#[test]
fn a_reader_just_behind_is_served_past_its_topics_bound() {
    let server = Server::start(&["--topic-events", "2", "--live-events", "50"]);
    let ids = ticks(&server, "a", 1..=40);
    let mut stream = server.stream(&format!("topics=a&last_event_id={}", ids[4]));
    assert_eq!(stream.numbers(35), (6..=40).collect::<Vec<_>>(), "all of it is among the newest 50");
    stream.expect_nothing();
}

#[test]
fn an_idle_stream_gets_a_burst_past_its_topics_bound() {
    // The stream has not read for 2,000 events, none of them its own; all that is its own is among the newest 64.
    let server = Server::start(&["--topic-events", "2", "--live-events", "64"]);
    let mut stream = server.stream("topics=quiet");
    let batch =
        |topic: &str, n: usize| format!("[{}]", (1..=n).map(|n| numbered(topic, n)).collect::<Vec<_>>().join(","));
    let mut publisher = server.publisher();
    publisher.post(&batch("others", 2_000));
    publisher.post(&batch("quiet", 10));
    assert_eq!(stream.numbers(10), (1..=10).collect::<Vec<_>>());
    stream.expect_nothing();
}

#[test]
fn events_that_leave_their_history_out_of_order_are_kept_as_long_as_the_newest() {
    // 2 leaves A's history before 1 leaves B's; 5 then pushes 1 out of the newest four, and 2 stays.
    let server = Server::start(&["--topic-events", "1", "--live-events", "4"]);
    let mut publisher = server.publisher();
    let ids: Vec<String> = ["B", "A", "A", "B"].map(|topic| publisher.post(&numbered(topic, 1))).to_vec();
    let epoch = ids[0].rsplit_once('-').expect("an id").0;
    let resume = |topic: &str| server.stream(&format!("topics={topic}&last_event_id={epoch}-0"));
    let mut whole = resume("B");
    assert_eq!([whole.expect("tick").id, whole.expect("tick").id], [Some(ids[0].clone()), Some(ids[3].clone())]);
    publisher.post(&numbered("C", 1));
    let mut torn = resume("B");
    assert_eq!(gap(&mut torn).0, "evicted", "1 is not among the newest four any more");
    assert_eq!(torn.expect("tick").id, Some(ids[3].clone()));
    let mut kept = resume("A");
    assert_eq!([kept.expect("tick").id, kept.expect("tick").id], [Some(ids[1].clone()), Some(ids[2].clone())]);
}

#[test]
fn last_counts_what_only_the_newest_keep() {
    let server = Server::start(&["--topic-events", "5", "--live-events", "64"]);
    ticks(&server, "a", 1..=50);
    let mut stream = server.stream("topics=a&last=10");
    assert_eq!(stream.numbers(10), (41..=50).collect::<Vec<_>>());
    stream.expect_nothing();
}

#[test]
fn a_chatty_topic_does_not_push_out_a_quiet_ones_last_events() {
    let server = Server::start(&["--history-bytes", "256KiB", "--live-events", "1"]);
    let quiet = ticks(&server, "quiet", 1..=3);
    let payload = "x".repeat(1000);
    let mut publisher = server.publisher();
    for _ in 0..100 {
        let event = format!("{{\"topic\":\"chatty\",\"type\":\"k\",\"data\":{{\"a\":\"{payload}\"}}}}");
        publisher.post(&format!("[{}]", vec![event; 20].join(",")));
    }
    assert!(server.stat("/history/bytes") <= 256 * 1024, "{}", server.stats());
    assert!(server.stat("/history/events") > 100, "the room is used: {}", server.stats());
    let mut stream = server.stream(&format!("topics=quiet&last_event_id={}", quiet[0]));
    assert_eq!(stream.numbers(2), [2, 3]);
    stream.expect_nothing();
    let mut stream = server.stream(&format!("topics=chatty&last_event_id={}", quiet[0]));
    assert_eq!(gap(&mut stream).0, "evicted", "the chatty one gave way");
}

#[test]
fn the_number_of_all_events_is_bounded() {
    let server = Server::start(&["--history-events", "50", "--live-events", "1"]);
    let quiet = ticks(&server, "quiet", 1..=2);
    ticks(&server, "chatty", 1..=200);
    assert_eq!(server.stat("/history/events"), 50);
    assert_eq!(server.stream(&format!("topics=quiet&last_event_id={}", quiet[0])).numbers(1), [2]);
    let mut stream = server.stream(&format!("topics=chatty&last_event_id={}", quiet[1]));
    assert_eq!(gap(&mut stream).0, "evicted");
    assert_eq!(stream.numbers(48), (153..=200).collect::<Vec<_>>());
}

#[test]
fn events_leave_when_they_are_too_old_even_while_nothing_is_published() {
    let server = Server::start(&["--history-age", "1s"]);
    let ids = ticks(&server, "a", 1..=3);
    let head = server.publish("b", "k", "{}");
    wait_until("the events to age out", || server.stat("/history/events") == 0);
    assert_eq!(server.stat("/history/topics"), 0, "topics without events and listeners are forgotten");
    // Also what was forgotten altogether is known to be lost.
    let mut stream = server.stream(&format!("topics=a&last_event_id={}", ids[0]));
    let (reason, requested, _) = gap(&mut stream);
    assert_eq!((reason.as_str(), &requested), ("evicted", &ids[0]));
    stream.expect_nothing();
    // But only to those whose it was.
    server.stream(&format!("topics=a&last_event_id={}", ids[2])).expect_nothing();
    server.stream(&format!("topics=c&last_event_id={}", ids[0])).expect_nothing();
    server.stream(&format!("topics=b&last_event_id={head}")).expect_nothing();
}

#[test]
fn last_replays_the_newest_and_no_gap() {
    let server = Server::start(&["--topic-events", "10", "--live-events", "1"]);
    for n in 1..=30 {
        ticks(&server, ["a", "b"][n % 2], n..=n);
    }
    for (query, expected) in [
        ("topics=a&last=3", vec![26, 28, 30]),
        ("topics=a,b&last=3", vec![28, 29, 30]),
        ("last=1", vec![30]),
        ("topics=b&last=0", vec![]),
        ("topics=nobody&last=5", vec![]),
        // All that there is, where that is less: whoever asks for the last few does not miss what is before them.
        ("topics=a&last=1000", vec![12, 14, 16, 18, 20, 22, 24, 26, 28, 30]),
        ("topics=a&last=18446744073709551615", vec![12, 14, 16, 18, 20, 22, 24, 26, 28, 30]),
    ] {
        let mut stream = server.stream(query);
        assert_eq!(stream.numbers(expected.len()), expected, "{query}");
        stream.expect_nothing();
    }
    // And then it goes on live.
    let mut stream = server.stream("topics=a&last=1");
    ticks(&server, "a", 31..=31);
    assert_eq!(stream.numbers(2), [30, 31]);
}

/// Seconds since 1970.
fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970")
}

/// RFC 3339 of a moment, by the civil calendar (days since 1970 to a date, for dates after it).
fn rfc3339(unix: u64) -> String {
    let (mut days, seconds) = (unix / 86400, unix % 86400);
    let leap = |y: u64| y.is_multiple_of(4) && !y.is_multiple_of(100) || y.is_multiple_of(400);
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year}-{:02}-{:02}T{h:02}:{m:02}:{s:02}Z", month + 1, days + 1)
}

#[test]
fn since_replays_from_a_moment_in_each_of_its_forms() {
    let server = Server::start(&[]);
    ticks(&server, "a", 1..=2);
    // Into a later second than the first two, so that whole seconds can tell them apart.
    let second = unix_now().as_secs();
    wait_until("the clock's next second but one", || unix_now().as_secs() >= second + 2);
    let between = second + 1;
    ticks(&server, "a", 3..=4);
    ticks(&server, "b", 5..=5);
    let offset = rfc3339(between + 3600).replace('Z', "%2B01:00");
    let fraction = rfc3339(between).replace('Z', ".250Z");
    let lately = [format!("{between}"), rfc3339(between), offset, fraction];
    for since in lately {
        let mut stream = server.stream(&format!("topics=a&since={since}"));
        assert_eq!(stream.numbers(2), [3, 4], "{since}");
        stream.expect_nothing();
    }
    for since in ["10m", "1h", "600s", "1h%2030m", "0", "1970-01-01T00:00:00Z"] {
        let mut stream = server.stream(&format!("topics=a&since={since}"));
        assert_eq!(stream.numbers(4), [1, 2, 3, 4], "{since}");
        stream.expect_nothing();
    }
    for since in ["4102444800", "2100-01-01T00:00:00Z"] {
        let mut stream = server.stream(&format!("topics=a&since={since}"));
        stream.expect_nothing();
    }
    // Both bounds hold: of what came since, the newest.
    assert_eq!(server.stream(&format!("topics=a&since={between}&last=1")).numbers(1), [4]);
    let mut stream = server.stream(&format!("topics=a&since={between}&last=3"));
    assert_eq!(stream.numbers(2), [3, 4]);
    stream.expect_nothing();
}

#[test]
fn since_before_what_is_kept_is_a_gap() {
    let server = Server::start(&["--topic-events", "3", "--live-events", "1"]);
    ticks(&server, "a", 1..=10);
    ticks(&server, "b", 1..=2);
    let mut stream = server.stream("topics=a&since=10m");
    let (reason, requested, _) = gap(&mut stream);
    assert_eq!((reason.as_str(), requested.as_str()), ("evicted", "10m"));
    assert_eq!(stream.numbers(3), [8, 9, 10]);
    let mut stream = server.stream("topics=b&since=10m");
    assert_eq!(stream.numbers(2), [1, 2], "nothing of its own is lost");
}

#[test]
fn since_before_a_forgotten_topics_events_is_a_gap() {
    let server = Server::start(&["--history-age", "1s"]);
    ticks(&server, "a", 1..=3);
    wait_until("the topic to be forgotten", || server.stat("/history/topics") == 0);
    let mut stream = server.stream("topics=a&since=10m");
    assert_eq!(gap(&mut stream).0, "evicted");
    server.stream("topics=b&since=10m").expect_nothing();
    let mut everything = server.stream("since=10m");
    assert_eq!(gap(&mut everything).0, "evicted");
}

#[test]
fn limit_counts_replayed_and_live_events_and_no_gap() {
    let server = Server::start(&["--topic-events", "3", "--live-events", "1"]);
    let ids = ticks(&server, "a", 1..=10);
    let mut stream = server.stream(&format!("topics=a&limit=2&last_event_id={}", ids[8]));
    assert_eq!(stream.numbers(1), [10]);
    stream.expect_nothing();
    ticks(&server, "a", 11..=13);
    assert_eq!(stream.numbers(1), [11]);
    assert_eq!(stream.read_to_end(), (vec![], End::Clean));
    let mut stream = server.stream(&format!("topics=a&limit=2&last_event_id={}", ids[0]));
    gap(&mut stream);
    assert_eq!(stream.numbers(2), [11, 12]);
    assert_eq!(stream.read_to_end(), (vec![], End::Clean));
}

#[test]
fn a_long_history_is_replayed_completely() {
    let server = Server::start(&["--topic-events", "20000"]);
    let start = server.publish("a", "k", "{}");
    let mut publisher = server.publisher();
    for from in (0..20_000).step_by(1000) {
        let batch: Vec<String> = (from..from + 1000).map(|n| numbered(["a", "b"][n % 2], n)).collect();
        publisher.post(&format!("[{}]", batch.join(",")));
    }
    for (topics, step) in [("a", 2), ("a,b", 1), ("all", 1)] {
        let mut stream = server.stream(&format!("topics={topics}&last_event_id={start}&limit={}", 20_000 / step));
        let (events, end) = stream.read_to_end();
        assert_eq!(end, End::Clean);
        assert!(events.iter().map(common::SseEvent::n).eq((0..20_000).step_by(step)), "{topics}");
        assert!(events.windows(2).all(|two| two[0].seq() < two[1].seq()));
    }
}

#[test]
fn the_history_ends_with_the_process() {
    let first = Server::start(&[]);
    let id = first.publish("a", "k", "{}");
    drop(first);
    let second = Server::start(&[]);
    ticks(&second, "a", 1..=3);
    let mut stream = second.stream(&format!("topics=a&last_event_id={id}"));
    assert_eq!(gap(&mut stream).0, "unknown_epoch");
    assert_eq!(stream.numbers(3), [1, 2, 3]);
}

#[test]
fn events_from_the_query_are_kept_like_others() {
    let server = Server::start(&[]);
    let start = server.stream("").connected.id.expect("connected has an id");
    server.ask(&format!("POST {BROADCAST}?topic=a&type=k&message=m HTTP/1.1\r\nHost: t\r\n\r\n"));
    let event = server.stream(&format!("topics=a&last_event_id={start}")).expect("k");
    assert_eq!(event.json()["data"]["message"], "m");
}
