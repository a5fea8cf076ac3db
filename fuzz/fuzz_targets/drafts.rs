//! The bodies of publishes: an event that is accepted is one event on the wire, of its own type and topic, whatever its data.
#![no_main]

use fanfare::clock::Timestamp;
use fanfare::event::{self, Draft, Ignored};
use fanfare::frame::Framing;
use fanfare::id::Epoch;
use fanfare::sse::{Item, Parser};
use libfuzzer_sys::fuzz_target;

const MAX: usize = 16;

fn check(draft: Draft) {
    let topic = draft.topic.clone();
    let frame = draft.frame.seal(&Epoch::fresh(Timestamp::now()), 7);
    let kind = String::from_utf8(frame.kind().to_vec()).expect("a type is UTF-8");
    let mut events = Vec::new();
    let fed = Parser::default().feed(frame.bytes(Framing::Plain), |item| events.push(item));
    assert!(fed.is_ok());
    let [Item::Event(event)] = &events[..] else { panic!("not one event but {events:?}") };
    assert_eq!(event.kind, kind);
    assert!(event.id.as_ref().is_some_and(|id| id.ends_with("-7")));
    let json: serde_json::Value = serde_json::from_str(&event.data).expect("an envelope is JSON");
    assert_eq!((json["topic"].as_str(), json["type"].as_str()), (Some(&*topic), Some(&*kind)));
    assert!(json["data"].is_object() && json["timestamp"].is_string());
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let now = Timestamp::now();
    let read = [event::drafts_from_json, event::drafts_from_ndjson];
    for drafts in read.map(|read| read(text, MAX, now, &mut Ignored::default())) {
        match drafts {
            Ok(drafts) => {
                assert!((1..=MAX).contains(&drafts.len()));
                drafts.into_iter().for_each(check);
            }
            Err(why) => assert!(!why.0.is_empty()),
        }
    }
    if let Ok(draft) = Draft::from_query(text, text, Some(text), now) {
        check(draft);
    }
});
