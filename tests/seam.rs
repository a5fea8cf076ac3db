//! The seam from replay to live (`DESIGN.md`, "Rules", and `WIRE.md`, "Resume"): a stream that resumes while several
//! publishers publish gets each event of its topics exactly once, in order, whichever moment it joins at.
//!
//! Ids tell all: sequence numbers count up by one over all topics, so what a stream must get is known from what was
//! published, and a duplicate, a hole or a swap shows.

mod common;

use common::{PATIENCE, Random, Server, Stream, numbered, parts};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const TOPICS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Every published event's topic by its sequence number.
type Book = Mutex<BTreeMap<u64, &'static str>>;

/// Publishes until told to stop: single events and batches, to all topics.
fn publish_on(server: &Server, seed: u64, book: &Book, stop: &AtomicBool) {
    let mut random = Random(seed);
    let mut publisher = server.publisher();
    while !stop.load(Ordering::Relaxed) {
        let topics: Vec<&str> = (0..1 + random.below(4)).map(|_| TOPICS[random.below(TOPICS.len())]).collect();
        let events: Vec<String> = topics.iter().map(|topic| numbered(topic, 0)).collect();
        let last = publisher.post(&format!("[{}]", events.join(",")));
        // A batch's events stand together: numbered without a hole up to the last one.
        let first = parts(&last).1 + 1 - topics.len() as u64;
        book.lock().expect("not poisoned").extend((first..).zip(topics));
        if random.below(8) == 0 {
            thread::sleep(Duration::from_micros(random.below(2_000) as u64));
        }
    }
}

/// What a stream of these topics must have had after `from` and up to `upto`.
fn expected(book: &Book, topics: &str, from: u64, upto: u64) -> Vec<u64> {
    let book = book.lock().expect("not poisoned");
    let wants = |topic: &str| topics == "all" || topics.split(',').any(|name| name == topic);
    book.range(from + 1..=upto).filter(|(_, topic)| wants(topic)).map(|(seq, _)| *seq).collect()
}

/// Reads a stream's events for so long.
fn read_for(stream: &mut Stream, span: Duration, seqs: &mut Vec<u64>) {
    let deadline = Instant::now() + span;
    while let Some(event) = stream.next_within(deadline.saturating_duration_since(Instant::now())) {
        assert_ne!(event.kind, "gap", "everything is kept: {event:?}");
        if event.kind == "tick" {
            seqs.push(event.seq());
        }
    }
    assert_eq!(stream.end(), None, "the stream broke");
}

/// A client that is cut off again and again and resumes where it was, with the topics that it asks for. Gives where
/// it began and what it had by the time the mark was published.
fn follow(server: &Server, topics: &str, seed: u64, marks: &Mutex<Option<u64>>) -> (u64, Vec<u64>) {
    let mut random = Random(seed);
    let mut stream = server.stream(&format!("topics={topics}"));
    let from = parts(stream.last_event_id()).1;
    let mut seqs = Vec::new();
    let deadline = Instant::now() + 2 * PATIENCE;
    loop {
        read_for(&mut stream, Duration::from_millis(random.below(40) as u64), &mut seqs);
        if let Some(mark) = *marks.lock().expect("not poisoned") {
            // The last event goes to all topics' streams one by one; this one's is at or before the mark.
            if seqs.last().is_some_and(|&seq| seq + TOPICS.len() as u64 > mark) {
                return (from, seqs);
            }
        }
        assert!(Instant::now() < deadline, "{topics}: the last events never came; had {} events", seqs.len());
        if random.below(3) == 0 {
            continue;
        }
        let id = stream.last_event_id().to_owned();
        let way = match random.below(3) {
            0 => (format!("topics={topics}&last_event_id={id}"), String::new()),
            1 => (format!("topics={topics}&lastEventId={id}"), String::new()),
            _ => (format!("topics={topics}"), format!("Last-Event-ID: {id}\r\n")),
        };
        // The next one is open before the last one is gone, as behind a proxy that notices late.
        let next = server.stream_with(&way.0, &way.1);
        assert_eq!(next.connected.id.as_deref(), Some(id.as_str()));
        stream = next;
        if random.below(4) == 0 {
            thread::sleep(Duration::from_millis(random.below(60) as u64));
        }
    }
}

fn everyone_gets_everything_once_in_order(shards: &str) {
    let server = Server::start(&["--shards", shards, "--topic-events", "1000000"]);
    let (book, stop, marks) = (Book::default(), AtomicBool::new(false), Mutex::new(None));
    let sets = ["a", "b", "all", "a,b", "c,d,e", "a,b,c,d,e", "e", "d,a", "all,b"];
    let sets = |n: usize| if sets[n % sets.len()].contains("all") { "all" } else { sets[n % sets.len()] };
    thread::scope(|scope| {
        let (server, book, stop, marks) = (&server, &book, &stop, &marks);
        let publishers: Vec<_> =
            (0..3).map(|seed| scope.spawn(move || publish_on(server, seed + 1, book, stop))).collect();
        let followers: Vec<_> =
            (0..18).map(|n| (sets(n), scope.spawn(move || follow(server, sets(n), 100 + n as u64, marks)))).collect();
        // Slow joiners: the request comes in pieces, while everything goes on.
        for n in 0..10 {
            let mut conn = server.connect();
            for piece in ["GET /api/v1/events?topics=a", "&last=5 HT", "TP/1.1\r\nHost: t\r", "\n\r", "\n"] {
                conn.send(piece.as_bytes());
                thread::sleep(Duration::from_millis(5 + n));
            }
            let mut stream = Stream::over(conn);
            let connected = stream.expect("connected");
            let mut seqs = Vec::new();
            read_for(&mut stream, Duration::from_millis(50), &mut seqs);
            let from = parts(connected.id.as_deref().expect("connected has an id")).1;
            // Compared once the publishers have written their books: here only that it is in order.
            assert!(seqs.first().is_none_or(|&first| first > from) && seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");
        }
        thread::sleep(Duration::from_millis(700));
        stop.store(true, Ordering::Relaxed);
        for publisher in publishers {
            publisher.join().expect("a publisher");
        }
        let end: Vec<String> = TOPICS.iter().map(|topic| numbered(topic, 0)).collect();
        let mark = parts(&server.publisher().post(&format!("[{}]", end.join(",")))).1;
        book.lock().expect("not poisoned").extend((mark + 1 - TOPICS.len() as u64..).zip(TOPICS));
        *marks.lock().expect("not poisoned") = Some(mark);
        let published = book.lock().expect("not poisoned").len() as u64;
        assert_eq!(published, mark, "every number was given to one event");
        for (topics, follower) in followers {
            let (from, seqs) = follower.join().expect("a follower");
            let upto = *seqs.last().expect("it had some");
            let expected = expected(book, topics, from, upto);
            let differs = seqs.iter().zip(&expected).position(|(a, b)| a != b);
            assert!(
                seqs == expected,
                "{topics}: from {from}, {} had, {} published, first difference at {differs:?}",
                seqs.len(),
                expected.len()
            );
            assert!(seqs.len() > 20, "{topics}: enough happened to mean something: {}", seqs.len());
        }
    });
}

#[test]
fn with_one_shard() {
    everyone_gets_everything_once_in_order("1");
}

#[test]
fn with_four_shards() {
    everyone_gets_everything_once_in_order("4");
}

#[test]
fn many_join_at_once_from_many_places() {
    let server = Server::start(&["--shards", "2"]);
    let mut publisher = server.publisher();
    let batch: Vec<String> = (0..500).map(|n| numbered("a", n)).collect();
    let last = publisher.post(&format!("[{}]", batch.join(",")));
    let (epoch, _) = parts(&last);
    thread::scope(|scope| {
        let server = &server;
        let streams: Vec<_> = (0..100)
            .map(|n| {
                let id = format!("{epoch}-{}", n * 5);
                scope.spawn(move || {
                    let mut stream = server.stream(&format!("topics=a&last_event_id={id}"));
                    let expected: Vec<usize> = (n * 5..700).collect();
                    assert_eq!(stream.numbers(expected.len()), expected);
                    stream
                })
            })
            .collect();
        for n in 500..700 {
            publisher.post(&numbered("a", n));
        }
        for stream in streams {
            assert!(stream.join().expect("a stream").conn_is_quiet(), "nothing comes twice");
        }
    });
}
