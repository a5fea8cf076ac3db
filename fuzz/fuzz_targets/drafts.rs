//! Published events: each that is accepted becomes one event of a stream, with the data that it was sent with; and it is
//! the same event alone, in an array and in a line of NDJSON.
#![no_main]

use fanfare::clock::Timestamp;
use fanfare::event::{Draft, Ignored, Invalid, drafts_from_json, drafts_from_ndjson};
use fanfare::frame::Framing;
use fanfare::id::Epoch;
use fanfare::sse::{Event, Item, Parser};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const NOW: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);

/// The event that a stream gets of a draft.
fn event(draft: Draft, epoch: &Epoch) -> Event {
    let frame = draft.frame.seal(epoch, 7);
    let text = frame.bytes(Framing::Plain);
    let chunk = [format!("{:x}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat();
    assert_eq!(frame.bytes(Framing::Chunked), chunk);
    let (mut parser, mut items) = (Parser::default(), Vec::new());
    parser.feed(text, |item| items.push(item)).expect("it is not too long");
    assert!(parser.is_between_blocks());
    let [Item::Event(event)] = &items[..] else { panic!("{items:?}") };
    assert_eq!(event.kind.as_bytes(), frame.kind());
    event.clone()
}

/// One of the two ways of reading a batch.
type Read = fn(&str, usize, Timestamp, &mut Ignored) -> Result<Vec<Draft>, Invalid>;

/// Reads a batch of at most so many events.
fn batch(read: Read, text: &str, max: usize) -> Option<Vec<Draft>> {
    let drafts = read(text, max, NOW, &mut Ignored::default()).ok()?;
    assert!((1..=max).contains(&drafts.len()));
    Some(drafts)
}

fuzz_target!(|text: &str| {
    let epoch = Epoch::fresh(NOW);
    batch(drafts_from_json, text, 3);
    batch(drafts_from_ndjson, text, 3);
    let Ok(draft) = Draft::from_json(text, NOW) else { return };
    let users = draft.owners.users();
    assert!(users.is_sorted() && users.iter().all(|user| !user.is_empty() && draft.owners.contains(user)));
    let (topic, owners, has_id) = (draft.topic.clone(), draft.owners.clone(), draft.id.is_some());
    let sent = event(draft, &epoch);
    assert_eq!(sent.id, Some(format!("{}-7", epoch.as_str())));

    let line = text.replace(['\r', '\n'], " ");
    for (read, text) in
        [(drafts_from_json as Read, format!("[{text},{text}]")), (drafts_from_ndjson, format!("{line}\n{line}\r\n"))]
    {
        assert!(batch(read, &text, 1).is_none(), "there are two");
        let drafts = batch(read, &text, 2);
        assert_eq!(drafts.is_none(), has_id, "an id is for a single event");
        for draft in drafts.into_iter().flatten() {
            assert_eq!((&draft.topic, &draft.owners), (&topic, &owners));
            assert_eq!(event(draft, &epoch), sent);
        }
    }

    // What nobody could read does not have to be read here; listeners take the last of two equal keys, and so does this.
    let Ok(mut given) = serde_json::from_str::<Value>(text) else { return };
    let mut got: Value = serde_json::from_str(&sent.data).expect("a listener reads what the publisher could");
    assert_eq!((&got["topic"], &got["type"]), (&Value::from(&*topic), &Value::from(&*sent.kind)));
    let stamped = got["data"].as_object_mut().expect("an object").remove("timestamp");
    match given["data"].as_object_mut() {
        Some(data) => {
            let own = data.remove("timestamp");
            assert!(own.is_none() || own == stamped);
            assert_eq!(got["data"], given["data"]);
        }
        None => assert_eq!(got["data"], serde_json::json!({})),
    }
});
