//! An event becomes the JSON that is sent, in its caller's thread: nothing that is queued refers to the caller's
//! values.

use std::fmt;
use std::time::Instant;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::name::{Invalid, check_topic, check_type};

/// An event as it is sent: one element of a batch.
#[derive(Debug)]
pub(super) struct Event {
    json: Vec<u8>,
    /// Where in it the topic ends, which it begins with.
    topic_end: usize,
    /// When it was published.
    pub(super) at: Instant,
}

impl Event {
    /// An event of these users, or a public one. `data` is written as its `Serialize` says, numbers to the letter; the
    /// publisher's own fields are added where `stamp` has them and `data` does not.
    ///
    /// # Errors
    /// Where topic, type or users break their rules, or `data` is not written as a JSON object.
    pub(super) fn encode<T: Serialize + ?Sized>(
        topic: &str,
        kind: &str,
        users: Option<&[&str]>,
        data: &T,
        stamp: &Stamp,
    ) -> Result<Event, Invalid> {
        check_topic(topic)?;
        check_type(kind)?;
        // The platform's events have 300 to 500 bytes.
        let mut json = Vec::with_capacity(512);
        json.extend_from_slice(b"{\"topic\":");
        write(&mut json, topic)?;
        let topic_end = json.len();
        json.extend_from_slice(b",\"type\":");
        write(&mut json, kind)?;
        if let Some(users) = users {
            // It would be public, which is the last thing that its caller meant.
            if users.is_empty() || users.contains(&"") {
                return Err(Invalid("the users that the event belongs to name nobody; expected their ids".to_owned()));
            }
            json.extend_from_slice(b",\"user_ids\":");
            write(&mut json, users)?;
        }
        json.extend_from_slice(b",\"data\":");
        let start = json.len();
        write(&mut json, data)?;
        stamp.add_to(&mut json, start)?;
        json.push(b'}');
        Ok(Event { json, topic_end, at: Instant::now() })
    }

    /// Its bytes.
    pub(super) fn json(&self) -> &[u8] {
        &self.json
    }

    /// Its topic, in a form that only another event of the same topic has.
    pub(super) fn topic(&self) -> &[u8] {
        &self.json[..self.topic_end]
    }
}

fn write<T: Serialize + ?Sized>(json: &mut Vec<u8>, value: &T) -> Result<(), Invalid> {
    serde_json::to_writer(json, value).map_err(|error| Invalid(format!("it cannot be written as JSON: {error}")))
}

/// What is added to an event's data.
#[derive(Debug)]
pub(super) struct Stamp {
    /// The service's name as JSON; without it, nothing is added.
    service: Option<Box<[u8]>>,
}

impl Stamp {
    /// Adds `service` and `published_at`.
    pub(super) fn new(service: &str) -> Result<Stamp, Invalid> {
        let mut json = Vec::new();
        write(&mut json, service)?;
        Ok(Stamp { service: Some(json.into()) })
    }

    /// Adds nothing.
    pub(super) fn nothing() -> Stamp {
        Stamp { service: None }
    }

    /// Adds to the object that begins at `start` and ends where `json` does.
    fn add_to(&self, json: &mut Vec<u8>, start: usize) -> Result<(), Invalid> {
        let data = &json[start..];
        if !data.starts_with(b"{") {
            return Err(Invalid("data is not written as a JSON object; expected a struct or a map".to_owned()));
        }
        let Some(service) = &self.service else { return Ok(()) };
        let keys: Keys =
            serde_json::from_slice(data).map_err(|error| Invalid(format!("data cannot be read: {error}")))?;
        json.pop();
        let mut is_first = keys.empty;
        let mut separate = |json: &mut Vec<u8>| {
            if !std::mem::take(&mut is_first) {
                json.push(b',');
            }
        };
        if !keys.service {
            separate(json);
            json.extend_from_slice(b"\"service\":");
            json.extend_from_slice(service);
        }
        if !keys.published_at {
            use std::io::Write as _;

            separate(json);
            write!(json, "\"published_at\":\"{}\"", Timestamp::now().nanos()).expect("a vector takes all");
        }
        json.push(b'}');
        Ok(())
    }
}

/// Which of the keys an object has that could be added to it.
struct Keys {
    empty: bool,
    service: bool,
    published_at: bool,
}

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Keys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys = Keys { empty: true, service: false, published_at: false };
                while let Some(key) = map.next_key()? {
                    keys.empty = false;
                    keys.service |= matches!(key, Key::Service);
                    keys.published_at |= matches!(key, Key::PublishedAt);
                    map.next_value::<IgnoredAny>()?;
                }
                Ok(keys)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// A key, read only as far as asking which it is.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    Service,
    PublishedAt,
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;
    use serde_json::value::RawValue;

    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).expect("it is JSON")
    }

    #[track_caller]
    fn encoded<T: Serialize + ?Sized>(users: Option<&[&str]>, data: &T, stamp: &Stamp) -> String {
        let event = Event::encode("t", "k", users, data, stamp).expect("an event");
        assert_eq!(event.topic(), b"{\"topic\":\"t\"");
        String::from_utf8(event.json().to_vec()).expect("it is text")
    }

    #[test]
    fn without_a_stamp_data_is_as_it_came() {
        let nothing = Stamp::nothing();
        for data in ["{}", "{ }", "{\"a\":9007199254740993,\"b\":1e400}", "{\n\"a\" : -0.0,\"a\":[ ]}"] {
            let event = encoded(None, &*raw(data), &nothing);
            assert_eq!(event, format!("{{\"topic\":\"t\",\"type\":\"k\",\"data\":{data}}}"));
        }
        let event = encoded(Some(&["ann", "b\"b"]), &json!({"n": 1}), &nothing);
        assert_eq!(event, r#"{"topic":"t","type":"k","user_ids":["ann","b\"b"],"data":{"n":1}}"#);
    }

    #[test]
    fn what_the_caller_gave_is_not_overwritten() {
        let stamp = Stamp::new("the \"service\"").expect("a name");
        let fields = |data: &str| {
            let event = encoded(None, &*raw(data), &stamp);
            let data = event.strip_prefix(r#"{"topic":"t","type":"k","data":"#).expect("the head").to_owned();
            let (data, at) = match data.split_once("\"published_at\":\"2") {
                Some((before, after)) => {
                    let (at, after) = after.split_once('"').expect("its end");
                    (format!("{before}AT{after}"), format!("2{at}"))
                }
                None => (data, String::new()),
            };
            assert!(at.is_empty() || at.parse::<jiff::Timestamp>().is_ok(), "{at:?} is no RFC 3339");
            data
        };
        assert_eq!(fields("{}"), r#"{"service":"the \"service\"",AT}}"#);
        assert_eq!(fields("{ }"), r#"{ "service":"the \"service\"",AT}}"#);
        assert_eq!(fields("{\"a\":1e400}"), r#"{"a":1e400,"service":"the \"service\"",AT}}"#);
        assert_eq!(fields("{\"service\":null}"), r#"{"service":null,AT}}"#);
        assert_eq!(fields(r#"{"\u0073ervice":7}"#), r#"{"\u0073ervice":7,AT}}"#);
        assert_eq!(fields("{\"published_at\":0}"), r#"{"published_at":0,"service":"the \"service\""}}"#);
        assert_eq!(fields("{\"published_at\":0,\"service\":1}"), "{\"published_at\":0,\"service\":1}}");
        // One inside is another one.
        assert_eq!(fields("{\"a\":{\"service\":1}}"), r#"{"a":{"service":1},"service":"the \"service\"",AT}}"#);
    }

    #[test]
    fn what_is_no_event_is_named() {
        let stamp = Stamp::nothing();
        let why = |topic: &str, kind: &str, users: Option<&[&str]>| {
            let Invalid(why) = Event::encode(topic, kind, users, &json!({}), &stamp).expect_err("it is wrong");
            why
        };
        assert!(why("", "k", None).contains("topic has 0 bytes"));
        assert!(why("a,b", "k", None).contains("comma"));
        assert!(why("t", "a\nb", None).contains("control character"));
        assert!(why("t", "heartbeat", None).contains("reserved"));
        assert!(why("t", "k", Some(&[])).contains("name nobody"));
        assert!(why("t", "k", Some(&["ann", ""])).contains("name nobody"));
        for data in ["[1]", "\"{}\"", "7", "null"] {
            let Invalid(why) = Event::encode("t", "k", None, &*raw(data), &stamp).expect_err(data);
            assert!(why.contains("object"), "{why}");
        }
        let odd = BTreeMap::from([(vec![1], 2)]);
        let Invalid(why) = Event::encode("t", "k", None, &odd, &stamp).expect_err("such keys JSON has not");
        assert!(why.contains("cannot be written as JSON"), "{why}");
    }

    #[test]
    fn topics_are_told_apart_by_their_bytes() {
        let event = |topic| Event::encode(topic, "k", None, &json!({}), &Stamp::nothing()).expect("an event");
        assert_eq!(event("a").topic(), event("a").topic());
        for other in ["b", "aa", "a\"", "a\"}"] {
            assert_ne!(event("a").topic(), event(other).topic(), "{other}");
        }
    }
}
