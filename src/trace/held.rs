//! The limit on the log: lines that a stranger can cause are written at most once a minute each, with how many were held
//! back since.
//!
//! A line is told from others by the place in the code that writes it (its callsite). So the limit needs no knowledge of
//! what other crates write (`h2` warns of each connection whose client resets streams too fast), and its memory is
//! bounded by the program's text. It covers all places that write ERROR, WARN or INFO, with two exceptions: DEBUG and
//! TRACE are off unless an operator wants every line, and the parts named in `OWN` write only about their operator's
//! doings: a start, a stop, a file that has changed. There one place writes different lines (the warnings at the start),
//! and none may be lost. All else is covered, also what nobody is known to be able to cause: an exception that is
//! forgotten costs a line, a limit that is forgotten costs a disk.
//!
//! What comes through the `log` crate (rustls) has one place for each level, since that crate's records do not name
//! theirs.
//!
//! Nothing here is asked for levels and targets that the filter has switched off.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Level, Metadata};

use crate::sync::lock;

/// How often a place may write a line.
const EVERY: Duration = Duration::from_secs(60);

/// The parts of this crate that no stranger makes write anything.
const OWN: [&str; 4] = ["fanfare::app", "fanfare::auth", "fanfare::cli", "fanfare::tls"];

/// The target of lines that tell of held back lines. They keep to the limit by themselves.
const TELLER: &str = "fanfare::log";

/// The levels that are limited, by their names in figures.
const LEVELS: [(Level, &str); 3] = [(Level::ERROR, "error"), (Level::WARN, "warn"), (Level::INFO, "info")];

/// The limit on this process's log.
static LIMIT: Limit = Limit::new();

/// Whether a line may be written now, and then how many like it were held back before it.
pub fn pass(metadata: &'static Metadata<'static>) -> Option<u64> {
    LIMIT.pass(metadata, Instant::now())
}

/// Writes how many lines were held back, once their minute is over; all of them `at_the_end`.
pub fn tell(at_the_end: bool) {
    for (metadata, held_back) in LIMIT.take(Instant::now(), at_the_end) {
        let place = format!("{}:{}", metadata.target(), metadata.line().unwrap_or_default());
        match *metadata.level() {
            Level::ERROR => tracing::error!(target: TELLER, %place, held_back, "more lines of a place were held back"),
            Level::WARN => tracing::warn!(target: TELLER, %place, held_back, "more lines of a place were held back"),
            _ => tracing::info!(target: TELLER, %place, held_back, "more lines of a place were held back"),
        }
    }
}

/// How many lines have been held back, by level.
pub fn figures() -> [(&'static str, u64); 3] {
    let mut figures = LEVELS.map(|(_, name)| (name, 0));
    for ((_, figure), held) in figures.iter_mut().zip(&LIMIT.held) {
        *figure = held.load(Relaxed);
    }
    figures
}

#[derive(Debug)]
struct Limit {
    places: Mutex<Option<HashMap<Identifier, Place>>>,
    /// In the order of [`LEVELS`].
    held: [AtomicU64; 3],
}

/// A place that has written a line.
#[derive(Debug)]
struct Place {
    metadata: &'static Metadata<'static>,
    written: Instant,
    held: u64,
}

impl Limit {
    const fn new() -> Limit {
        Limit { places: Mutex::new(None), held: [AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0)] }
    }

    fn pass(&self, metadata: &'static Metadata<'static>, now: Instant) -> Option<u64> {
        let Some(level) = LEVELS.iter().position(|(level, _)| level == metadata.level()) else { return Some(0) };
        if is_own(metadata.target()) {
            return Some(0);
        }
        let mut places = lock(&self.places);
        let places = places.get_or_insert_default();
        let Some(place) = places.get_mut(&metadata.callsite()) else {
            places.insert(metadata.callsite(), Place { metadata, written: now, held: 0 });
            return Some(0);
        };
        if now.saturating_duration_since(place.written) < EVERY {
            place.held += 1;
            self.held[level].fetch_add(1, Relaxed);
            return None;
        }
        place.written = now;
        Some(std::mem::take(&mut place.held))
    }

    /// Lines that have been held back and not been told of, for a minute or in all.
    fn take(&self, now: Instant, all: bool) -> Vec<(&'static Metadata<'static>, u64)> {
        let mut places = lock(&self.places);
        let due = places
            .iter_mut()
            .flat_map(HashMap::values_mut)
            .filter(|place| place.held > 0 && (all || now.saturating_duration_since(place.written) >= EVERY));
        let told = due.map(|place| {
            place.written = now;
            (place.metadata, std::mem::take(&mut place.held))
        });
        told.collect()
    }
}

/// Whether this is the target of a part that no stranger makes write anything.
fn is_own(target: &str) -> bool {
    let is_in = |part: &str| target.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    target == TELLER || OWN.into_iter().any(is_in)
}

#[cfg(test)]
mod tests {
    use tracing::callsite::Callsite;
    use tracing::field::FieldSet;
    use tracing::metadata::Kind;
    use tracing::subscriber::Interest;

    use super::*;

    /// A place in the code of another crate, or of ours.
    struct Site(&'static Metadata<'static>);

    impl Callsite for Site {
        fn set_interest(&self, _: Interest) {}

        fn metadata(&self) -> &Metadata<'_> {
            self.0
        }
    }

    macro_rules! site {
        ($target:expr, $level:expr) => {{
            static METADATA: Metadata<'static> = Metadata::new(
                "event",
                $target,
                $level,
                None,
                Some(line!()),
                None,
                FieldSet::new(&[], Identifier(&SITE)),
                Kind::EVENT,
            );
            static SITE: Site = Site(&METADATA);
            &METADATA
        }};
    }

    #[test]
    fn a_place_writes_once_a_minute_and_says_how_many_it_held_back() {
        let (limit, start) = (Limit::new(), Instant::now());
        let (one, other) = (site!("h2::proto", Level::WARN), site!("h2::proto", Level::WARN));
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert_eq!(limit.pass(one, at(0)), Some(0));
        for second in 0..60 {
            assert_eq!(limit.pass(one, at(second)), None, "{second}");
        }
        assert_eq!(limit.pass(other, at(1)), Some(0), "another place has a minute of its own");
        assert!(limit.take(at(59), false).is_empty(), "its minute is not over");
        assert_eq!(limit.pass(one, at(60)), Some(60));
        assert_eq!(limit.pass(one, at(61)), None);
        let told = limit.take(at(120), false);
        assert!(matches!(told[..], [(metadata, 1)] if std::ptr::eq(metadata, one)), "nobody came to tell it");
        assert_eq!(limit.pass(one, at(121)), None, "telling it was a line too");
        assert_eq!(limit.take(at(122), true).len(), 1);
        assert_eq!(limit.held.each_ref().map(|held| held.load(Relaxed)), [0, 62, 0]);
    }

    #[test]
    fn what_an_operator_does_or_asks_for_is_not_limited() {
        let (limit, now) = (Limit::new(), Instant::now());
        let free = [
            site!("h2::proto", Level::DEBUG),
            site!("fanfare::server", Level::TRACE),
            site!("fanfare::app", Level::WARN),
            site!("fanfare::tls", Level::INFO),
            site!("fanfare::auth::keys", Level::ERROR),
            site!(TELLER, Level::WARN),
        ];
        let limited = [
            site!("fanfare::server", Level::WARN),
            site!("fanfare::apparatus", Level::INFO),
            site!("log", Level::ERROR),
        ];
        for _ in 0..3 {
            assert!(free.iter().all(|site| limit.pass(site, now) == Some(0)));
        }
        assert!(limited.iter().all(|site| limit.pass(site, now) == Some(0)));
        assert!(limited.iter().all(|site| limit.pass(site, now).is_none()));
    }
}
