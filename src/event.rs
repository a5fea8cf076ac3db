//! A published event: topic, type, data, owners. It is checked here, once.
//!
//! Behind this file an event is a [`Draft`]: it is known to be well formed, its bytes are encoded, and only its
//! place in the log's order is missing. Nothing behind it parses or checks again.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::clock::Timestamp;
use crate::frame;
pub use crate::name::{Ignored, Invalid, NAME_MAX, check_topic, check_type};

/// The longest `id` that a publisher gives an event, in bytes.
pub const ID_MAX: usize = 256;

/// The topic that listens to everything, and the one an event goes to when it names none.
pub const ALL: &str = "all";

/// The type of an event that names none.
const DEFAULT_TYPE: &str = "notification";

/// How deep an event's JSON may nest. Listeners parse it with recursive parsers of their own, and several of those
/// give up (or worse) not far above this.
const DEPTH_MAX: usize = 128;

/// The longest user's id, in bytes.
pub const USER_MAX: usize = 256;

/// Users that one event may belong to.
const OWNERS_MAX: usize = 1000;

/// The users that an event belongs to. An event without owners is public.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owners(Option<Box<[Box<str>]>>);

impl Owners {
    /// These users; empty ids are left out.
    ///
    /// # Errors
    /// Where there are more than 1,000, or one has more than [`USER_MAX`] bytes.
    fn new(ids: Vec<UserId<'_>>) -> Result<Owners, Invalid> {
        if ids.len() > OWNERS_MAX {
            return Err(Invalid(format!("user_ids names {} users; expected at most {OWNERS_MAX}", ids.len())));
        }
        let mut users = Vec::new();
        for UserId(id) in ids {
            if id.len() > USER_MAX {
                return Err(Invalid(format!("a user id has {} bytes; expected at most {USER_MAX}", id.len())));
            }
            if !id.is_empty() {
                users.push(id.into());
            }
        }
        users.sort_unstable();
        users.dedup();
        Ok(Owners(Some(users).filter(|users| !users.is_empty()).map(Vec::into_boxed_slice)))
    }

    /// Whether there are no owners.
    pub fn is_public(&self) -> bool {
        self.0.is_none()
    }

    /// The users, sorted, none twice.
    pub fn users(&self) -> &[Box<str>] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether it is (also) this user's.
    pub fn contains(&self, user: &str) -> bool {
        self.users().binary_search_by(|id| (**id).cmp(user)).is_ok()
    }

    /// The memory it holds, about.
    pub fn footprint(&self) -> usize {
        const EACH: usize = size_of::<Box<str>>() + 16;
        self.users().iter().map(|id| EACH + id.len()).sum()
    }
}

/// A user's id as JSON has it: a text, or a whole number, which stands for its digits.
#[derive(Debug)]
struct UserId<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for UserId<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Id;
        impl<'de> Visitor<'de> for Id {
            type Value = UserId<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a user id, which is a string or a whole number")
            }

            fn visit_borrowed_str<E>(self, id: &'de str) -> Result<Self::Value, E> {
                Ok(UserId(Cow::Borrowed(id)))
            }

            fn visit_str<E>(self, id: &str) -> Result<Self::Value, E> {
                Ok(UserId(Cow::Owned(id.to_owned())))
            }

            fn visit_u64<E>(self, id: u64) -> Result<Self::Value, E> {
                Ok(UserId(Cow::Owned(id.to_string())))
            }

            fn visit_i64<E>(self, id: i64) -> Result<Self::Value, E> {
                Ok(UserId(Cow::Owned(id.to_string())))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(UserId(Cow::Borrowed("")))
            }
        }
        deserializer.deserialize_any(Id)
    }
}

/// A checked and encoded event that has no place in the order yet.
#[derive(Debug)]
pub struct Draft {
    /// Where it goes.
    pub topic: Box<str>,
    /// The users that it belongs to.
    pub owners: Owners,
    /// Its bytes, complete but for the id.
    pub frame: frame::Unsealed,
    /// The publisher's idempotency key, by which a repeat is recognised. It does not reach the wire.
    pub id: Option<Box<str>>,
}

impl Draft {
    fn new(topic: &str, kind: &str, data: frame::Data<'_>, owners: Owners, now: Timestamp) -> Result<Draft, Invalid> {
        check_topic(topic)?;
        check_type(kind)?;
        Ok(Draft { topic: topic.into(), owners, frame: frame::event(topic, kind, data, now), id: None })
    }

    /// An event from the query parameters of a broadcast; a parameter that is absent or empty gets its default.
    ///
    /// # Errors
    /// Where topic or type break their rules.
    pub fn from_query(topic: &str, kind: &str, message: Option<&str>, now: Timestamp) -> Result<Draft, Invalid> {
        let (topic, kind) = (or_default(topic, ALL), or_default(kind, DEFAULT_TYPE));
        Draft::new(topic, kind, frame::Data::Message(message), Owners::default(), now)
    }

    /// An event from one JSON object, `{"topic":…,"type":…,"data":{…},"id":…}`. It belongs to the users that its `user_id`
    /// and `user_ids` name, else to `data.user_id`. Other keys are ignored.
    ///
    /// # Errors
    /// Where it is no such object, or its parts break their rules.
    pub fn from_json(text: &str, now: Timestamp) -> Result<Draft, Invalid> {
        Draft::noting(text, now, &mut Ignored::default())
    }

    /// The same; notes the ignored keys that look like known ones.
    fn noting(text: &str, now: Timestamp, ignored: &mut Ignored) -> Result<Draft, Invalid> {
        // serde would also read a struct from an array of its fields; the contract knows only objects.
        if !text.trim_start().starts_with('{') {
            return Err(Invalid("not a JSON object; expected {\"topic\":…,\"type\":…,\"data\":{…}}".to_owned()));
        }
        let mut json = serde_json::Deserializer::from_str(text);
        let event = EventKeys(ignored).deserialize(&mut json).and_then(|event| json.end().map(|()| event));
        event.map_err(|e| Invalid(format!("not a JSON event object: {e}")))?.draft(now)
    }
}

fn or_default<'a>(given: &'a str, default: &'a str) -> &'a str {
    if given.is_empty() { default } else { given }
}

/// Reads the body of a JSON broadcast: one object, or an array of at most `max` of them, none of which has an id. Notes
/// the ignored keys that look like known ones.
///
/// # Errors
/// Where the text is not that; in an array, names the element. One bad element refuses all.
pub fn drafts_from_json(text: &str, max: usize, now: Timestamp, ignored: &mut Ignored) -> Result<Vec<Draft>, Invalid> {
    if !text.trim_start().starts_with('[') {
        return Ok(vec![Draft::noting(text, now, ignored)?]);
    }
    // First the outer shape alone, so that an element's error can name the element.
    let elements: Vec<&RawValue> =
        serde_json::from_str(text).map_err(|e| Invalid(format!("not a JSON array of events: {e}")))?;
    drafts(elements.iter().map(|raw| raw.get()), "element", max, now, ignored)
}

/// Reads the body of an NDJSON broadcast: at most `max` objects, one a line; empty lines are skipped.
///
/// # Errors
/// As [`drafts_from_json`].
pub fn drafts_from_ndjson(
    text: &str,
    max: usize,
    now: Timestamp,
    ignored: &mut Ignored,
) -> Result<Vec<Draft>, Invalid> {
    drafts(text.split('\n').filter(|line| !line.trim().is_empty()), "line", max, now, ignored)
}

fn drafts<'a>(
    parts: impl Iterator<Item = &'a str>,
    what: &str,
    max: usize,
    now: Timestamp,
    ignored: &mut Ignored,
) -> Result<Vec<Draft>, Invalid> {
    let mut drafts = Vec::new();
    for (n, part) in parts.enumerate() {
        if n == max {
            return Err(Invalid(format!("the batch holds more than {max} events")));
        }
        // Elements count from 0 as in the array, lines from 1 as editors do.
        let place = if what == "line" { n + 1 } else { n };
        let wrong = |Invalid(why)| Invalid(format!("{what} {place}: {why}"));
        let draft = Draft::noting(part, now, ignored).map_err(wrong)?;
        // Ignored, it would let its publisher believe that sending it again does no harm.
        if draft.id.is_some() {
            let why = "only a single event has an id; a batch is named as a whole, by an idempotency key";
            return Err(wrong(Invalid(why.to_owned())));
        }
        drafts.push(draft);
    }
    match drafts.is_empty() {
        true => Err(Invalid(format!("the batch is empty; expected 1 to {max} events"))),
        false => Ok(drafts),
    }
}

/// Notes the keys of an event's JSON object that are ignored and look like known ones.
pub fn note_keys(text: &str, ignored: &mut Ignored) {
    // Whatever else is wrong with it is not asked here.
    let _ = EventKeys(ignored).deserialize(&mut serde_json::Deserializer::from_str(text));
}

/// An event's idempotency key: absent, or 1 to [`ID_MAX`] bytes.
fn given_id(id: &str) -> Result<Option<Box<str>>, Invalid> {
    match id {
        "" => Ok(None),
        id if id.len() <= ID_MAX => Ok(Some(id.into())),
        id => Err(Invalid(format!("id has {} bytes; expected 1 to {ID_MAX}", id.len()))),
    }
}

/// The JSON shape of a broadcast. Absent, `null` and empty strings mean the default, as they did in the Go gateway.
struct JsonEvent<'a> {
    topic: Option<Text<'a>>,
    kind: Option<Text<'a>>,
    data: Option<&'a RawValue>,
    user_id: Option<UserId<'a>>,
    user_ids: Option<&'a RawValue>,
    id: Option<Text<'a>>,
}

/// The keys of a broadcast's object.
const KEYS: [&str; 6] = ["topic", "type", "data", "user_id", "user_ids", "id"];

/// A string, copied only where it holds escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Text<'_> {
    fn given<'a>(text: &'a Option<Text<'_>>) -> &'a str {
        text.as_ref().map_or("", |Text(text)| text)
    }
}

/// Reads a [`JsonEvent`] as a derived `Deserialize` would, and notes those of the other keys that look like its own.
struct EventKeys<'i>(&'i mut Ignored);

impl<'de> DeserializeSeed<'de> for EventKeys<'_> {
    type Value = JsonEvent<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EventKeys<'_> {
    type Value = JsonEvent<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with topic, type and data")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut topic, mut kind, mut data) = (None, None, None);
        let (mut user_id, mut user_ids, mut id) = (None, None, None);
        while let Some(Text(key)) = map.next_key()? {
            match &*key {
                "topic" => once("topic", &mut topic, &mut map)?,
                "type" => once("type", &mut kind, &mut map)?,
                "data" => once("data", &mut data, &mut map)?,
                "user_id" => once("user_id", &mut user_id, &mut map)?,
                "user_ids" => once("user_ids", &mut user_ids, &mut map)?,
                "id" => once("id", &mut id, &mut map)?,
                unknown => {
                    self.0.note(unknown, &KEYS);
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(JsonEvent {
            topic: topic.flatten(),
            kind: kind.flatten(),
            data: data.flatten(),
            user_id: user_id.flatten(),
            user_ids: user_ids.flatten(),
            id: id.flatten(),
        })
    }
}

/// Reads a key's value. A key that comes twice is refused: two parsers may each take another of the two.
fn once<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    key: &'static str,
    value: &mut Option<T>,
    map: &mut A,
) -> Result<(), A::Error> {
    match value.replace(map.next_value()?) {
        None => Ok(()),
        Some(_) => Err(A::Error::duplicate_field(key)),
    }
}

impl JsonEvent<'_> {
    fn draft(self, now: Timestamp) -> Result<Draft, Invalid> {
        let raw = self.data.map_or("{}", RawValue::get);
        check_depth(raw)?;
        let keys: DataKeys<'_> =
            serde_json::from_str(raw).map_err(|error| match error.is_data() && !is_object(raw) {
                true => Invalid("data is not a JSON object".to_owned()),
                false => Invalid(format!("data cannot be read: {error}")),
            })?;
        let data = frame::Data::Object { raw, empty: keys.empty, has_timestamp: keys.has_timestamp };
        let user_ids = serde_json::from_str(self.user_ids.map_or("[]", RawValue::get));
        let mut owners: Vec<UserId<'_>> = user_ids.map_err(|error| Invalid(format!("user_ids: {error}")))?;
        owners.extend(self.user_id);
        let owners = match Owners::new(owners)? {
            owners if owners.is_public() => Owners::new(keys.user_id.into_iter().collect())?,
            owners => owners,
        };
        let topic = or_default(Text::given(&self.topic), ALL);
        let kind = or_default(Text::given(&self.kind), DEFAULT_TYPE);
        let id = given_id(Text::given(&self.id))?;
        Ok(Draft { id, ..Draft::new(topic, kind, data, owners, now)? })
    }
}

fn is_object(json: &str) -> bool {
    json.trim_start().starts_with('{')
}

/// The keys of `data` that the broker reads. The others are passed on as they came, unparsed.
struct DataKeys<'a> {
    empty: bool,
    has_timestamp: bool,
    /// The last one, which is the one that a listener's parser takes.
    user_id: Option<UserId<'a>>,
}

impl<'de: 'a, 'a> Deserialize<'de> for DataKeys<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = DataKeys<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<DataKeys<'de>, A::Error> {
                let mut keys = DataKeys { empty: true, has_timestamp: false, user_id: None };
                while let Some(key) = map.next_key()? {
                    keys.empty = false;
                    if let DataKey::UserId = key {
                        keys.user_id = Some(map.next_value()?);
                        continue;
                    }
                    keys.has_timestamp |= matches!(key, DataKey::Timestamp);
                    map.next_value::<IgnoredAny>()?;
                }
                Ok(keys)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// A key, read only as far as asking which it is: no key is ever copied.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum DataKey {
    Timestamp,
    UserId,
    #[serde(other)]
    Other,
}

/// Refuses JSON (known to be well formed) that nests deeper than [`DEPTH_MAX`].
fn check_depth(json: &str) -> Result<(), Invalid> {
    // Nearly every event has fewer brackets than that in all, strings included: one quick count and done.
    if memchr::memchr2_iter(b'{', b'[', json.as_bytes()).take(DEPTH_MAX + 1).count() <= DEPTH_MAX {
        return Ok(());
    }
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(Invalid(format!("data nests deeper than {DEPTH_MAX} levels")));
        }
    }
    Ok(())
}
