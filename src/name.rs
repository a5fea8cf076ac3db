//! The rules for names of topics and types, shared by the publisher and the broker. Also which unknown names
//! look like a slip of the hand.

use std::fmt;

/// The longest topic or type, in bytes.
pub const NAME_MAX: usize = 128;

/// Types that only the broker itself sends.
const RESERVED_TYPES: [&str; 5] = ["connected", "heartbeat", "gap", "refused", "end"];

/// Names kept by one [`Ignored`].
const IGNORED_MAX: usize = 8;

/// Why a text from outside is no event. The message names the fault, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid(pub String);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Invalid {}

/// Checks a topic's name: 1 to [`NAME_MAX`] bytes, no control character, no comma (commas separate topics).
///
/// # Errors
/// Says which of these it breaks.
pub fn check_topic(name: &str) -> Result<(), Invalid> {
    check_name("topic", name)?;
    match name.contains(',') {
        true => Err(Invalid(format!("topic {name:?} contains a comma; an event goes to one topic"))),
        false => Ok(()),
    }
}

/// Checks an event's type: 1 to [`NAME_MAX`] bytes, no control character, none of the broker's own types.
///
/// # Errors
/// Says which of these it breaks.
pub fn check_type(kind: &str) -> Result<(), Invalid> {
    check_name("type", kind)?;
    match RESERVED_TYPES.contains(&kind) {
        true => Err(Invalid(format!("type {kind:?} is reserved for the broker itself"))),
        false => Ok(()),
    }
}

fn check_name(what: &str, name: &str) -> Result<(), Invalid> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(Invalid(format!("{what} has {} bytes; expected 1 to {NAME_MAX}", name.len())));
    }
    // A line end here would inject SSE fields; the other control characters have no use in a name either.
    match name.chars().find(|c| c.is_control()) {
        Some(c) => Err(Invalid(format!("{what} contains the control character {c:?}"))),
        None => Ok(()),
    }
}

/// Unknown names, of keys or parameters, that were ignored and look like known ones: each once, the first few.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Ignored(Vec<Box<str>>);

impl Ignored {
    /// Notes a name that is none of these but looks like one.
    pub fn note(&mut self, name: &str, known: &[&str]) {
        let is_new = || self.0.len() < IGNORED_MAX && self.0.iter().all(|other| **other != *name);
        let is_near = || known.iter().any(|known| is_near_miss(name, known));
        if is_new() && !known.contains(&name) && is_near() {
            self.0.push(name.into());
        }
    }

    /// The names. None is more than two bytes longer than a known one.
    pub fn names(&self) -> &[Box<str>] {
        &self.0
    }
}

/// Whether an unknown name is at most two letters from a known one: put in, left out, or another; case does not count.
/// Two letters make a swap, the commonest slip (`tpye`). Less than the whole of a known name has to differ, or every
/// name of one or two letters would look like `id`.
fn is_near_miss(name: &str, known: &str) -> bool {
    is_within(name.as_bytes(), known.as_bytes(), 2.min(known.len() - 1))
}

/// Whether the edit distance of two texts is at most so much. Its work is bounded by the shorter one's length.
fn is_within(one: &[u8], other: &[u8], edits: usize) -> bool {
    if one.len().abs_diff(other.len()) > edits {
        return false;
    }
    let same = one.iter().zip(other).take_while(|(a, b)| a.eq_ignore_ascii_case(b)).count();
    let (one, other) = (&one[same..], &other[same..]);
    match (one.split_first(), other.split_first()) {
        // The rest of the longer one has to be put in.
        (None, _) | (_, None) => true,
        _ if edits == 0 => false,
        (Some((_, one_less)), Some((_, other_less))) => {
            let pairs = [(one_less, other_less), (one_less, other), (one, other_less)];
            pairs.into_iter().any(|(one, other)| is_within(one, other, edits - 1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_types_are_the_brokers_own() {
        for kind in ["connected", "heartbeat", "gap", "refused", "end"] {
            assert!(check_type(kind).is_err_and(|Invalid(why)| why.contains("reserved")), "{kind}");
        }
        for kind in ["ended", "End", "refused.payment", "gaps"] {
            assert_eq!(check_type(kind), Ok(()), "{kind}");
        }
    }

    #[test]
    fn near_misses_are_two_letters_off_at_most() {
        for (name, known, near) in [
            ("tpye", "type", true),
            ("typ", "type", true),
            ("types", "type", true),
            ("Type", "type", true),
            ("TOPIC", "topic", true),
            ("tops", "topics", true),
            ("payload", "data", false),
            ("userId", "user_id", true),
            ("UserIds", "user_ids", true),
            ("user", "user_id", false),
            ("t", "type", false),
            ("", "type", false),
            ("ids", "id", true),
            ("i", "id", true),
            ("xy", "id", false),
            ("", "id", false),
            ("uuid", "id", false),
            ("ty\u{e9}e", "type", true),
            ("\u{1f3ba}", "type", false),
            ("abcdefgh", "abcdefgh12", true),
            ("12abcdefgh", "abcdefgh", true),
            ("1abcdefgh", "abcdefgh2", true),
            ("1abcdefgh", "abcdefgh23", false),
        ] {
            assert_eq!(is_near_miss(name, known), near, "{name:?} {known:?}");
        }
        let long = "topic".repeat(1 << 20);
        assert!(!is_near_miss(&long, "topic"));
    }

    #[test]
    fn ignored_names_are_kept_once_and_few_of_them() {
        let mut ignored = Ignored::default();
        for n in 0..100 {
            ignored.note("tpye", &["topic", "type"]);
            ignored.note("payload", &["topic", "type"]);
            ignored.note("type", &["topic", "type"]);
            ignored.note(&format!("typ{n}"), &["topic", "type"]);
        }
        let names: Vec<&str> = ignored.names().iter().map(|name| &**name).collect();
        assert_eq!(names, ["tpye", "typ0", "typ1", "typ2", "typ3", "typ4", "typ5", "typ6"]);
    }
}
