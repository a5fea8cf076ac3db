//! A wall clock that jumps under the running broker (issue 15, part 5): ages are measured by one that does not, and only
//! what people gave as times is compared with it. The clock is set for the broker alone, by libfaketime; without that
//! library the test is skipped.

mod common;

use common::{Server, fanfare, numbered, wait_until};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Where Debian's package `faketime` has its library.
fn library() -> Option<PathBuf> {
    let place = |machine: &str| PathBuf::from(format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketimeMT.so.1"));
    let found = ["x86_64", "aarch64"].map(place).into_iter().find(|path| path.exists());
    if found.is_none() {
        eprintln!("skipped: there is no libfaketime");
    }
    found
}

/// Sets the clock of whoever reads this file.
fn set(file: &Path, offset: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, offset).expect("the build's directory can be written to");
    std::fs::rename(&new, file).expect("within one directory");
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later").as_secs()
}

#[test]
fn a_clock_that_is_three_hours_wrong_for_a_while_empties_nothing() {
    let Some(library) = library() else { return };
    for jump in ["+3h", "-3h"] {
        let clock = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("clock-{}-{jump}", std::process::id()));
        set(&clock, "+0");
        let mut command = fanfare();
        command.args(["--listen", "127.0.0.1:0"]);
        command.env("LD_PRELOAD", &library).env("FAKETIME_TIMESTAMP_FILE", &clock);
        command.envs([("DONT_FAKE_MONOTONIC", "1"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("FAKETIME_NO_CACHE", "1")]);
        let server = Server::spawn(command);
        // As a stream's first event tells it: hyper keeps a `Date` for as long as the clock is before the next second.
        let off = || {
            let connected = server.stream("").connected.json();
            let at = connected["timestamp"].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
            at.expect("a timestamp").as_second().unsigned_abs().abs_diff(unix_now())
        };
        let publish = |n: usize| {
            let id = server.publisher().post(&numbered("a", n));
            (id, unix_now())
        };
        let start = server.stream("").connected.id.expect("connected has an id");
        publish(1);
        assert!(off() < 60);
        set(&clock, jump);
        wait_until("the broker's clock to be wrong", || off() > 10_000);
        publish(2);
        let uptime = server.stat("/uptime_seconds");
        assert!(uptime < 600, "{uptime}");
        // Old events leave once a second.
        let (_, second) = publish(3);
        wait_until("two seconds", || unix_now() > second + 2);
        let mut stream = server.stream("topics=a&since=10m");
        assert_eq!(stream.numbers(3), [1, 2, 3], "a span, while the clock is wrong");
        set(&clock, "+0");
        wait_until("the broker's clock to be right", || off() < 60);
        publish(4);
        assert_eq!(server.stat("/history/events"), 4);
        for query in ["since=10m".to_owned(), format!("since={}", second - 600), format!("last_event_id={start}")] {
            let mut stream = server.stream(&format!("topics=a&{query}"));
            assert_eq!(stream.numbers(4), [1, 2, 3, 4], "{jump}: {query}");
            stream.expect_nothing();
        }
        let mut late = server.stream(&format!("topics=a&since={}", second + 2));
        assert_eq!(late.numbers(1), [4], "{jump}: a moment after the clock was wrong");
        late.expect_nothing();
    }
}
