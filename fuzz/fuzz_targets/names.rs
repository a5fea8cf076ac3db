//! Ids and patterns, of which the input has some, a line each: what is read is written and read again the same, a pattern
//! that covers another one matches all that it does, and each topic that a prefix matches is found by its prefixes.
#![no_main]

use fanfare::event::{check_topic, check_type};
use fanfare::id::EventId;
use fanfare::pattern::{Pattern, prefixes};
use libfuzzer_sys::fuzz_target;

/// The lines that are compared with each other.
const MAX: usize = 8;

fuzz_target!(|text: &str| {
    let lines: Vec<&str> = text.split('\n').take(MAX).collect();
    for line in &lines {
        if let Some(id) = EventId::parse(line) {
            assert_eq!(EventId::parse(&id.to_string()), Some(id));
        }
        if let Ok(pattern) = Pattern::parse(line) {
            assert_eq!(Pattern::parse(&pattern.to_string()), Ok(pattern));
        }
        if check_type(line).is_ok() {
            assert!(!line.contains(['\r', '\n', '\0']));
        }
    }
    let patterns: Vec<Pattern> = lines.iter().filter_map(|line| Pattern::parse(line).ok()).collect();
    let topics = || lines.iter().filter(|line| check_topic(line).is_ok());
    for wide in &patterns {
        assert!(wide.covers(wide));
        for narrow in patterns.iter().filter(|narrow| wide.covers(narrow)) {
            assert!(topics().all(|topic| wide.matches(topic) || !narrow.matches(topic)), "{wide} {narrow}");
        }
        if let Pattern::Prefix(prefix) = wide {
            assert!(topics().all(|topic| wide.matches(topic) == prefixes(topic).any(|found| *found == **prefix)));
        }
    }
});
