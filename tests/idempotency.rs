//! Publishing once: whoever says which publish it is may send it as often as it likes, from as many connections at a
//! time as it likes, and even without waiting for the answer. Listeners get one event, senders one answer.

mod common;

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use common::{Answer, BROADCAST, Server, Stream, numbered};

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

/// A publish; without a key where that is empty.
fn publish(key: &str, content_type: &str, query: &str, body: &str) -> String {
    let key = if key.is_empty() { String::new() } else { format!("Idempotency-Key: {key}\r\n") };
    let length = body.len();
    format!(
        "POST {BROADCAST}{query} HTTP/1.1\r\nHost: t\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
         {key}\r\n{body}"
    )
}

fn is_repeat(answer: &Answer) -> bool {
    answer.field("Idempotent-Replayed").as_deref() == Some("true")
}

/// Panics unless the next event is one that is published now: nothing else is on its way.
#[track_caller]
fn assert_no_more(server: &Server, stream: &mut Stream) {
    assert_eq!(server.post_json("{\"topic\":\"t\",\"type\":\"mark\"}").status, 200);
    stream.expect("mark");
}

#[track_caller]
fn assert_refused(answer: &Answer, status: u16, code: &str, names: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let error = &answer.json()["error"];
    assert_eq!(error["code"], code, "{answer:?}");
    assert!(error["message"].as_str().is_some_and(|message| message.contains(names)), "{names} in {answer:?}");
}

#[test]
fn a_repeat_gets_the_first_answer_and_is_not_delivered() {
    let server = Server::start(&[]);
    let mut stream = server.stream("topics=t");
    let event = "{\"topic\":\"t\",\"type\":\"k\",\"data\":{\"n\":1}}";
    let named = "{\"id\":\"order-1\",\"topic\":\"t\",\"type\":\"k\"}";
    let longest = "x".repeat(256);
    let longest_id = format!("{{\"id\":\"{}\",\"topic\":\"t\",\"type\":\"k\"}}", "é".repeat(128));
    for (what, request, events) in [
        ("an object", publish("a", JSON, "", event), 1),
        ("an array", publish("b", JSON, "", &format!("[{event},{event}]")), 2),
        ("lines", publish("c", NDJSON, "", &format!("{event}\n{event}\n{event}\n")), 3),
        ("a query", publish("d", "text/plain", "?topic=t&type=k", ""), 1),
        ("an id", publish("", JSON, "", named), 1),
        ("both: the header counts", publish("e", JSON, "", named), 1),
        ("a key as in the draft", publish("\"8e03978e-40d5-43dd-bc93-6894a57f9324\"", JSON, "", event), 1),
        ("the longest key", publish(&longest, JSON, "", event), 1),
        ("the longest id", publish("", JSON, "", &longest_id), 1),
    ] {
        let first = server.ask(&request);
        assert_eq!(first.status, 200, "{what}: {first:?}");
        assert!(!is_repeat(&first), "{what}: {first:?}");
        for _ in 0..events {
            stream.expect("k");
        }
        // The answer's figures are the first one's, too.
        let _another = server.stream("topics=elsewhere");
        for _ in 0..2 {
            let repeat = server.ask(&request);
            assert_eq!((repeat.status, &repeat.body), (200, &first.body), "{what}");
            assert_eq!(repeat.field("content-type"), first.field("content-type"), "{what}");
            assert!(is_repeat(&repeat), "{what}: {repeat:?}");
        }
        assert_no_more(&server, &mut stream);
    }
    assert_eq!(server.stat("/idempotency/keys"), 9);
    assert_eq!(server.stat("/idempotency/replayed"), 18);
    assert_eq!(server.stat("/idempotency/evicted"), 0);
}

#[test]
fn without_a_key_the_same_is_published_again() {
    let server = Server::start(&[]);
    let mut stream = server.stream("topics=t");
    for body in [
        "{\"topic\":\"t\",\"type\":\"k\"}",
        "{\"id\":null,\"topic\":\"t\",\"type\":\"k\"}",
        "{\"id\":\"\",\"topic\":\"t\",\"type\":\"k\"}",
    ] {
        for _ in 0..2 {
            assert!(!is_repeat(&server.ask(&publish("", JSON, "", body))));
            stream.expect("k");
        }
    }
    assert_eq!(server.stat("/idempotency/keys"), 0);
}

#[test]
fn a_key_belongs_to_one_request() {
    let server = Server::start(&[]);
    let mut stream = server.stream("topics=t,u");
    let event = "{\"topic\":\"t\",\"type\":\"k\"}";
    assert_eq!(server.ask(&publish("a", JSON, "", event)).status, 200);
    assert_eq!(server.ask(&publish("q", "text/plain", "?topic=t&type=k", "")).status, 200);
    assert_eq!(server.ask(&publish("", JSON, "", "{\"id\":\"i\",\"topic\":\"t\",\"type\":\"k\"}")).status, 200);
    for _ in 0..3 {
        stream.expect("k");
    }
    for other in [
        publish("a", JSON, "", "{\"topic\":\"u\",\"type\":\"k\"}"),
        publish("a", JSON, "", &format!("{event} ")),
        publish("a", NDJSON, "", event),
        publish("a", "text/plain", "?topic=t&type=k", ""),
        publish("q", "text/plain", "?topic=u&type=k", ""),
        publish("", JSON, "", "{\"id\":\"i\",\"topic\":\"u\",\"type\":\"k\"}"),
    ] {
        assert_refused(&server.ask(&other), 422, "idempotency_key_reused", "key");
    }
    assert_no_more(&server, &mut stream);
    assert_eq!(server.stat("/idempotency/reused"), 6);
    // What is not read makes no difference: the query beside JSON, the content type beside a query.
    assert!(is_repeat(&server.ask(&publish("a", "application/json; charset=utf-8", "?x=1", event))));
    assert!(is_repeat(&server.ask(&publish("q", "text/html", "?topic=t&type=k", ""))));
}

#[test]
fn what_was_not_published_may_be_tried_again() {
    let server = Server::start(&["--max-body", "1000"]);
    let mut stream = server.stream("topics=t");
    let event = "{\"topic\":\"t\",\"type\":\"k\"}";
    assert_eq!(server.ask(&publish("a", JSON, "", "{\"topic\":")).status, 400);
    assert_eq!(server.ask(&publish("a", JSON, "", &" ".repeat(1001))).status, 413);
    // Half a body, and the connection ends.
    let mut conn = server.connect();
    let whole = publish("a", JSON, "", event);
    conn.send(&whole.as_bytes()[..whole.len() - 5]);
    drop(conn);
    let first = server.ask(&whole);
    assert_eq!((first.status, is_repeat(&first)), (200, false), "{first:?}");
    stream.expect("k");
    assert!(is_repeat(&server.ask(&whole)));
    assert_no_more(&server, &mut stream);
}

#[test]
fn keys_that_are_none_are_refused() {
    let server = Server::start(&[]);
    let mut stream = server.stream("topics=all");
    let too_long = "x".repeat(257);
    for key in ["a b", "\u{e9}", "a\tb", &too_long, "a\r\nIdempotency-Key: b"] {
        assert_refused(&server.ask(&publish(key, JSON, "", "{}")), 400, "bad_request", "Idempotency-Key");
    }
    let empty = format!("POST {BROADCAST} HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\nIdempotency-Key: \r\n\r\n");
    assert_refused(&server.ask(&empty), 400, "bad_request", "Idempotency-Key");
    let long_id = format!("{{\"id\":\"{too_long}\"}}");
    for (body, names) in [
        ("{\"id\":7}", "string"),
        ("{\"id\":{}}", "string"),
        (&long_id, "id has 257 bytes"),
        ("[{},{\"id\":\"a\"}]", "element 1: only a single event has an id"),
        ("[{\"id\":\"a\"}]", "element 0: only a single event has an id"),
    ] {
        assert_refused(&server.ask(&publish("", JSON, "", body)), 400, "bad_request", names);
    }
    let lines = server.ask(&publish("a", NDJSON, "", "{}\n{\"id\":\"a\"}\n"));
    assert_refused(&lines, 400, "bad_request", "line 2: only a single event has an id");
    stream.expect_nothing();
}

#[test]
fn fifty_at_once_deliver_one() {
    const SENDERS: usize = 50;
    let server = Server::start(&[]);
    let mut stream = server.stream("topics=t");
    for round in 0..10 {
        let request = publish(&format!("storm-{round}"), JSON, "", &numbered("t", round));
        let together = Barrier::new(SENDERS);
        let answers: Vec<Answer> = thread::scope(|scope| {
            let senders: Vec<_> = (0..SENDERS)
                .map(|_| {
                    scope.spawn(|| {
                        let mut conn = server.connect();
                        // All but the last byte, so that only one is left to send together.
                        let (last, rest) = request.as_bytes().split_last().expect("it is not empty");
                        conn.send(rest);
                        together.wait();
                        conn.send(&[*last]);
                        conn.answer().expect("an answer")
                    })
                })
                .collect();
            senders.into_iter().map(|sender| sender.join().expect("it does not panic")).collect()
        });
        assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
        assert!(answers.iter().all(|answer| answer.body == answers[0].body), "{answers:?}");
        assert_eq!(answers.iter().filter(|answer| !is_repeat(answer)).count(), 1, "{answers:?}");
        assert_eq!(stream.numbers(1), [round]);
        assert_no_more(&server, &mut stream);
    }
}

#[test]
fn who_does_not_wait_for_the_answer_may_ask_again() {
    let server = Server::start(&[]);
    let mut stream = server.stream("topics=t");
    for n in 0..100 {
        let request = publish(&format!("gone-{n}"), JSON, "", &numbered("t", n));
        let mut conn = server.connect();
        conn.send(request.as_bytes());
        // Sometimes before it is read, sometimes while it is answered.
        thread::sleep(Duration::from_micros(n as u64 * 10));
        drop(conn);
        assert_eq!(server.ask(&request).status, 200);
        assert_eq!(stream.numbers(1), [n]);
    }
    assert_no_more(&server, &mut stream);
}

#[test]
fn after_the_window_it_is_another_one() {
    let server = Server::start(&["--idempotency-window", "1s"]);
    let request = publish("a", JSON, "", "{\"topic\":\"t\"}");
    let first = server.ask(&request);
    assert_eq!(server.stat("/idempotency/keys"), 1);
    thread::sleep(Duration::from_millis(1_050));
    let second = server.ask(&request);
    assert!(!is_repeat(&second) && first.json()["id"] != second.json()["id"], "{first:?} {second:?}");
    // And it is let go of though nobody asks.
    common::wait_until("the key to be forgotten", || server.stat("/idempotency/keys") == 0);
    assert_eq!(server.stat("/idempotency/evicted"), 0, "that was its time");
}

#[test]
fn zero_switches_it_off() {
    let server = Server::start(&["--idempotency-window", "0s"]);
    let request = publish("a", JSON, "", "{\"topic\":\"t\"}");
    assert!(!is_repeat(&server.ask(&request)) && !is_repeat(&server.ask(&request)));
    assert_eq!(server.stat("/events"), 2);
}
