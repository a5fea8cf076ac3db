//! What a stream may rely on in the ids of heartbeats, whatever carries it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use super::common::{Publisher, Random, Server, SseEvent, numbered};

/// A server for [`are_fresh`] keeps less than passes there.
pub(crate) const SHORT: [&str; 6] = ["--topic-events", "1000", "--live-events", "1", "--heartbeat", "100ms"];

/// One for [`never_run_ahead`] keeps all.
pub(crate) const LONG: [&str; 4] = ["--topic-events", "1000000", "--heartbeat", "100ms"];

/// An open stream's next event, heartbeats included.
pub(crate) type Next = Box<dyn FnMut() -> SseEvent>;

/// Lets more of topic `a` pass by a stream than is kept; gives the last id, of which a heartbeat tells.
#[track_caller]
pub(crate) fn passed_by(publisher: &mut Publisher, stream: &mut Next) -> String {
    let batch = format!("[{}]", vec![r#"{"topic":"a","type":"noise"}"#; 600].join(","));
    let mut last = String::new();
    // At no time has it more to read than is kept.
    for _ in 0..3 {
        last = publisher.post(&batch);
        // Heartbeats that were on their way before tell of less.
        let told = (0..20).map(|_| stream()).find(|event| {
            assert_eq!(event.kind, "heartbeat", "{event:?}");
            event.last_event_id == last
        });
        assert!(told.is_some(), "no heartbeat tells of {last}");
    }
    last
}

/// A stream that is sent nothing while far more passes than is kept has missed nothing.
#[track_caller]
pub(crate) fn are_fresh(server: &Server, mut open: impl FnMut(&str) -> Next) {
    let mut publisher = server.publisher();
    for query in ["topics=a&types=tick", "topics=a&user_id=ann", "types=tick", "topics=a,b.*&types=tick", "topics=c"] {
        let mut stream = open(query);
        let place = passed_by(&mut publisher, &mut stream);
        drop(stream);
        // Of what comes after its place, it is to get its own, and once.
        let topic = if query == "topics=c" { "c" } else { "a" };
        let own = numbered(topic, 7).replacen('{', r#"{"user_id":"ann","#, 1);
        let id = publisher.post(&own);
        let mut stream = open(&format!("{query}&last_event_id={place}"));
        let first = std::iter::repeat_with(&mut stream).find(|event| event.kind != "heartbeat").expect("it goes on");
        assert_eq!((first.kind.as_str(), first.id), ("tick", Some(id.clone())), "{query}");
        let after = stream();
        assert_eq!((after.kind.as_str(), after.id), ("heartbeat", Some(id)), "{query}");
    }
}

/// They never run ahead: a stream that leaves after any heartbeat and resumes there gets all of its own, each once,
/// while events are published all the time, most of them not its own.
#[track_caller]
pub(crate) fn never_run_ahead(server: &Server, mut open: impl FnMut(&str) -> Next) {
    const OWN: usize = 60;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut publisher = server.publisher();
            while !over.load(Relaxed) {
                publisher.publish("elsewhere", "noise", "{}");
                publisher.publish("a", "noise", "{}");
            }
        });
        scope.spawn(|| {
            let (mut publisher, mut random) = (server.publisher(), Random(15));
            for n in 0..OWN {
                publisher.post(&numbered("a", n));
                // Now two at once, now so far apart that there are heartbeats between them.
                thread::sleep(Duration::from_millis(random.below(2) as u64 * 150));
            }
        });
        let (mut expected, mut resumed) = (0, 0);
        let mut place = String::new();
        let mut stream = open("topics=a&types=tick&since=1h");
        while expected < OWN {
            let event = stream();
            match event.kind.as_str() {
                "tick" => {
                    assert_eq!(event.n(), expected, "after {place}");
                    expected += 1;
                }
                "heartbeat" => {
                    place = event.id.expect("a heartbeat has an id");
                    stream = open(&format!("topics=a&types=tick&last_event_id={place}"));
                    resumed += 1;
                }
                kind => panic!("{kind} after {place}: {event:?}"),
            }
        }
        over.store(true, Relaxed);
        assert!(resumed > 10, "it has resumed {resumed} times");
    });
}
