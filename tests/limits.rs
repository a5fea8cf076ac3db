//! The limits' settings: their defaults, what follows from what, and that 0 is none.

use clap::Parser;
use fanfare::config::{Config, Flags};
use fanfare::limit::{LimitConfig, Rate};

/// The flags as a command of their own.
#[derive(Parser)]
struct Serve {
    #[command(flatten)]
    flags: Flags,
}

#[track_caller]
fn limits(flags: &[&str]) -> LimitConfig {
    let serve = Serve::try_parse_from(["fanfare"].iter().chain(flags)).expect("they can be read");
    Config::read(serve.flags, 20_000).unwrap_or_else(|why| panic!("{flags:?}: {why}")).limit
}

#[test]
fn a_deployment_has_limits_unless_it_wants_others() {
    let limit = limits(&[]);
    assert_eq!(limit.publishes, Rate::new(1000, 2000));
    assert_eq!(limit.connections, Rate::new(500, 2000));
    assert_eq!((limit.streams_per_address, limit.streams_per_user), (Some(4096), Some(64)));
    assert!(!limit.loopback);
}

#[test]
fn a_burst_is_twice_its_rate() {
    assert_eq!(limits(&["--publish-rate", "7"]).publishes, Rate::new(7, 14));
    assert_eq!(limits(&["--connections-per-second", "1000000"]).connections, Rate::new(1_000_000, 4_000_000));
    assert_eq!(limits(&["--publish-rate", "1000000"]).publishes, Rate::new(1_000_000, 2_000_000));
}

#[test]
fn nought_is_no_limit() {
    let flags = ["publish-rate", "connections-per-second", "streams-per-address", "streams-per-user", "key-rate"];
    let flags: Vec<String> = flags.iter().map(|flag| format!("--{flag}=0")).collect();
    let limit = limits(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!((limit.publishes, limit.connections), (None, None));
    assert_eq!((limit.streams_per_address, limit.streams_per_user), (None, None));
}

#[test]
fn loopback_is_limited_where_it_is_wanted() {
    for (flags, expected) in [
        (&["--limit-loopback"][..], true),
        (&["--limit-loopback=true"], true),
        (&["--limit-loopback", "false"], false),
        (&["--limit-loopback", "--publish-rate=5"], true),
    ] {
        assert_eq!(limits(flags).loopback, expected, "{flags:?}");
    }
}
