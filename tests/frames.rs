//! Frames against an independent parser (issue 2, "property tests of frames"): whatever topic, type and data are
//! accepted, what a reader of Server-Sent Events gets is the same again, and chunk framing only wraps it. The parser
//! is that of `tests/common`, written from WHATWG HTML, section 9.2.6, the chunk decoder from RFC 9112, section 7.1.

mod common;

use common::{Body, SseEvent, SseParser};
use fanfare::clock::Timestamp;
use fanfare::event::Draft;
use fanfare::frame::{Frame, Framing};
use fanfare::id::Epoch;
use proptest::prelude::*;
use serde_json::{Value, json};

/// What a reader makes of bytes, fed in pieces of this size.
fn read(bytes: &[u8], piece: usize) -> Vec<SseEvent> {
    let mut parser = SseParser::default();
    for piece in bytes.chunks(piece.max(1)) {
        parser.feed(piece);
    }
    assert!(parser.is_between_blocks(), "a frame is a whole block");
    assert_eq!((parser.empty_blocks, parser.comments.len()), (0, 0));
    std::iter::from_fn(|| parser.next()).collect()
}

/// Both forms of a frame: the chunk holds the plain text and nothing else.
fn plain(frame: &Frame) -> Result<Vec<u8>, TestCaseError> {
    let mut body = Body::chunked();
    let decoded = body.decode(frame.bytes(Framing::Chunked)).map_err(TestCaseError::fail)?;
    prop_assert!(body.is_between_chunks() && !body.is_complete());
    prop_assert_eq!(&decoded, frame.bytes(Framing::Plain));
    let shared = frame.share(Framing::Chunked, 3);
    prop_assert_eq!(&shared[..], &frame.bytes(Framing::Chunked)[3..]);
    Ok(decoded)
}

/// Names that are allowed: 1 to 128 bytes, no control character.
fn name() -> impl Strategy<Value = String> {
    let any = proptest::collection::vec(any::<char>(), 1..40).prop_map(|chars| chars.into_iter().collect::<String>());
    let sly = "[ :\"\\\\{}\u{2028}\u{feff}a-c,-]{1,12}";
    prop_oneof![any, sly]
        .prop_filter("allowed", |name| (1..=128).contains(&name.len()) && !name.chars().any(char::is_control))
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        // Quarters: the reader of floats that these tests use is not exact to the last digit of others.
        any::<i32>().prop_map(|quarters| Value::from(f64::from(quarters) / 4.0)),
        any::<String>().prop_map(Value::from),
        "[\r\n\t :\"\\\\]{0,9}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn data() -> impl Strategy<Value = Value> {
    let key = prop_oneof![4 => any::<String>(), 1 => Just("timestamp".to_owned())];
    proptest::collection::btree_map(key, value(), 0..6).prop_map(|map| Value::Object(map.into_iter().collect()))
}

/// Seconds from 1970 to the year 2200.
fn moment() -> impl Strategy<Value = Timestamp> {
    (0u64..7_258_118_400_000).prop_map(Timestamp::from_unix_ms)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_event_comes_back(
        topic in name(), kind in name(), data in data(), pretty: bool, now in moment(), seq: u64, piece in 1usize..50,
    ) {
        let allowed = !topic.contains(',') && !["connected", "heartbeat", "gap"].contains(&kind.as_str());
        let event = json!({"topic": topic, "type": kind, "data": data});
        let text = if pretty { serde_json::to_string_pretty(&event) } else { serde_json::to_string(&event) };
        let text = text.map_err(|e| TestCaseError::fail(e.to_string()))?;
        // The other line ends, between tokens, are as good.
        let text = if pretty && piece % 2 == 0 { text.replace('\n', "\r\n") } else { text };
        let draft = match Draft::from_json(&text, now) {
            Ok(draft) => draft,
            Err(why) => {
                prop_assert!(!allowed, "{} refused: {}", text, why);
                return Ok(());
            }
        };
        prop_assert!(allowed, "{} was let through", text);
        prop_assert_eq!(&*draft.topic, &*topic);
        let epoch = Epoch::fresh(now);
        let frame = draft.frame.seal(&epoch, seq);
        let events = read(&plain(&frame)?, piece);
        prop_assert_eq!(events.len(), 1, "{:?}", events);
        prop_assert_eq!(&events[0].kind, &kind);
        let id = format!("{}-{seq}", epoch.as_str());
        prop_assert_eq!(events[0].id.as_deref(), Some(id.as_str()));
        prop_assert_eq!(events[0].retry, None);
        let got = events[0].json();
        let stamp = got["data"]["timestamp"].clone();
        let mut expected = data;
        if expected.get("timestamp").is_none() {
            prop_assert!(stamp.as_str().is_some_and(|s| s.ends_with('Z') && s.len() == 20), "{}", stamp);
            expected["timestamp"] = stamp;
        }
        prop_assert_eq!(&got["data"], &expected);
        prop_assert_eq!(&got["type"], &json!(kind));
        prop_assert_eq!(&got["topic"], &json!(topic));
        prop_assert!(got["timestamp"].as_str().is_some_and(|s| s.ends_with('Z')));
        prop_assert_eq!(got.as_object().map(serde_json::Map::len), Some(4));
    }

    #[test]
    fn any_message_comes_back(topic in name(), kind in name(), message: Option<String>, now in moment()) {
        let Ok(draft) = Draft::from_query(&topic, &kind, message.as_deref(), now) else {
            prop_assert!(topic.contains(',') || ["connected", "heartbeat", "gap"].contains(&kind.as_str()));
            return Ok(());
        };
        let frame = draft.frame.seal(&Epoch::fresh(now), 1);
        let events = read(&plain(&frame)?, 7);
        prop_assert_eq!(events.len(), 1);
        let got = events[0].json();
        prop_assert_eq!(got["data"].get("message").and_then(Value::as_str), message.as_deref());
        prop_assert_eq!(&got["topic"], &json!(topic));
    }

    #[test]
    fn any_name_is_taken_or_refused_and_never_injects(topic: String, kind: String) {
        let bad = |name: &str| name.len() > 128 || name.chars().any(char::is_control);
        let now = Timestamp::from_unix_ms(1);
        match Draft::from_query(&topic, &kind, None, now) {
            Err(_) => {
                let reserved = ["connected", "heartbeat", "gap"].contains(&kind.as_str());
                prop_assert!(bad(&topic) || bad(&kind) || topic.contains(',') || reserved);
            }
            Ok(draft) => {
                prop_assert!(!bad(&topic) && !bad(&kind) && !topic.contains(','));
                let events = read(&plain(&draft.frame.seal(&Epoch::fresh(now), 2))?, 1);
                prop_assert_eq!(events.len(), 1);
                let expected = if kind.is_empty() { "notification" } else { &kind };
                prop_assert_eq!(&events[0].kind, expected);
            }
        }
    }

    #[test]
    fn frames_stand_one_behind_the_other(seqs in proptest::collection::vec(any::<u64>(), 1..20), piece in 1usize..99) {
        let now = Timestamp::from_unix_ms(1_795_470_385_971);
        let epoch = Epoch::fresh(now);
        let mut chunks = Vec::new();
        for seq in &seqs {
            let message = "x".repeat((*seq % 5000) as usize);
            let draft = Draft::from_query("t", "k", Some(&message), now).map_err(|e| TestCaseError::fail(e.to_string()))?;
            chunks.extend_from_slice(draft.frame.seal(&epoch, *seq).bytes(Framing::Chunked));
        }
        chunks.extend_from_slice(Framing::Chunked.terminator());
        let mut body = Body::chunked();
        let mut text = Vec::new();
        for piece in chunks.chunks(piece) {
            text.extend(body.decode(piece).map_err(TestCaseError::fail)?);
        }
        prop_assert!(body.is_complete());
        let got: Vec<u64> = read(&text, piece).iter().map(SseEvent::seq).collect();
        prop_assert_eq!(got, seqs);
    }
}
