//! Ids and patterns of topics: what is read is written as it was, and a pattern covers what it says.
#![no_main]

use fanfare::id::EventId;
use fanfare::pattern::Pattern;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(id) = EventId::parse(text) {
        let written = id.to_string();
        assert_eq!(EventId::parse(&written), Some(id), "{text:?}");
    }
    let (left, right) = text.split_once('\n').unwrap_or((text, text));
    let (Ok(one), Ok(other)) = (Pattern::parse(left), Pattern::parse(right)) else { return };
    for pattern in [&one, &other] {
        assert_eq!(Pattern::parse(&pattern.to_string()).as_ref(), Ok(pattern));
        assert!(pattern.covers(pattern) && Pattern::All.covers(pattern));
    }
    if let Pattern::Topic(name) = &other {
        assert_eq!(one.matches(name), one.covers(&other));
    }
});
