//! What topics and types may be called: one set of rules, for who publishes and for the broker.

use std::fmt;

/// The longest topic or type, in bytes.
pub const NAME_MAX: usize = 128;

/// Types that only the broker itself sends.
const RESERVED_TYPES: [&str; 3] = ["connected", "heartbeat", "gap"];

/// Why something that came from outside is not an event. The text names what was wrong and what was expected.
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
