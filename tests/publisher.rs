//! The publisher library against the real broker: what it is given arrives once, in order, to the letter; what cannot
//! arrive is counted by its reason; and no caller ever waits for it.

mod common;
#[path = "clients/proxy.rs"]
#[allow(dead_code, reason = "the clients' tests use the rest of it")]
mod proxy;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use common::{PATIENCE, Server, Stream, fanfare, wait_for, wait_until};
use fanfare::publisher::{
    Builder, Dropped, Figures, Invalid, Publisher, Rejected, Report, StatusChange, Transaction, TransactionKind, User,
    Wallet, WalletAction,
};
use proxy::Proxy;
use serde_json::json;
use serde_json::value::RawValue;

/// For the proxy.
const DEADLINE: Duration = PATIENCE;

fn to(address: SocketAddr) -> Builder {
    Publisher::builder("wallet-service").url(&format!("http://{address}"))
}

fn publisher(builder: Builder) -> Publisher {
    builder.build().expect("a publisher")
}

/// A publisher whose reports come by a channel.
fn reporting(builder: Builder) -> (Publisher, Receiver<Report>) {
    let (tell, reports) = channel();
    (publisher(builder.on_report(move |report| drop(tell.send(report.clone())))), reports)
}

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).expect("it is JSON")
}

#[track_caller]
fn tick(events: &Publisher, topic: &str, n: usize) {
    events.publish(topic, "tick", &json!({ "n": n })).expect("there is room");
}

/// Panics unless all that was published is accounted for.
#[track_caller]
fn assert_adds_up(figures: &Figures) {
    let sum = figures.accepted + figures.dropped.total() + figures.queued;
    assert_eq!(figures.published, sum, "{figures:?}");
}

/// Panics unless all that was published was accepted.
#[track_caller]
fn assert_all_accepted(figures: &Figures, count: u64) {
    assert_adds_up(figures);
    assert_eq!((figures.published, figures.accepted, figures.queued_bytes), (count, count, 0), "{figures:?}");
}

/// A server at this address, which nobody has taken meanwhile.
#[track_caller]
fn server_at(address: SocketAddr, flags: &[&str]) -> Server {
    let mut command = fanfare();
    command.args(["--listen", &address.to_string()]).args(flags);
    Server::spawn(command)
}

/// An address where nobody listens.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

// ---- what arrives

#[test]
fn each_callers_events_arrive_in_its_order() {
    const CALLERS: usize = 8;
    const EACH: usize = 500;
    let server = Server::start(&[]);
    let (mut shared, mut own) = (server.stream("topics=shared"), server.stream("topics=own-3"));
    let events = publisher(to(server.addr).linger(Duration::from_millis(100)));
    thread::scope(|scope| {
        for caller in 0..CALLERS {
            let events = events.clone();
            scope.spawn(move || {
                for n in 0..EACH {
                    tick(&events, "shared", caller * EACH + n);
                    tick(&events, &format!("own-{caller}"), n);
                }
            });
        }
    });
    let figures = events.blocking_flush();
    assert_all_accepted(&figures, (2 * CALLERS * EACH) as u64);
    assert!(figures.requests < figures.published / 10, "they went in batches: {figures:?}");
    assert_eq!(own.numbers(EACH), (0..EACH).collect::<Vec<_>>());
    let mut next: Vec<usize> = (0..CALLERS).map(|caller| caller * EACH).collect();
    for n in shared.numbers(CALLERS * EACH) {
        assert_eq!(next[n / EACH], n);
        next[n / EACH] += 1;
    }
    assert_eq!(server.stat("/events"), (2 * CALLERS * EACH) as u64);
}

#[test]
fn data_arrives_to_the_letter_with_what_is_added() {
    let server = Server::start(&[]);
    let mut stream = server.stream("topics=t");
    let events = publisher(to(server.addr));
    let data = r#"{"a":9007199254740993,"b":1e400,"c":-0.0,"d":0.1000,"e":18446744073709551615}"#;
    events.publish("t", "numbers", &*raw(data)).expect("an event");
    events.publish("t", "kept", &json!({ "service": "mine", "published_at": 7 })).expect("an event");
    #[derive(serde::Serialize)]
    struct Amounts {
        least: i64,
        most: u64,
        beyond: i128,
    }
    let amounts = Amounts { least: i64::MIN, most: u64::MAX, beyond: i128::MAX };
    events.publish("t", "amounts", &amounts).expect("an event");

    let event = stream.expect("numbers");
    let inner = &data[..data.len() - 1];
    assert!(event.data.contains(&format!("\"data\":{inner},\"service\":\"wallet-service\",")), "{event:?}");
    let data = &event.json_data();
    assert_eq!(data["service"], "wallet-service");
    let at: jiff::Timestamp = data["published_at"].as_str().expect("text").parse().expect("RFC 3339");
    let age = jiff::Timestamp::now().duration_since(at);
    assert!(!age.is_negative() && age.as_secs() < 60, "{at}");
    let kept = &stream.expect("kept").json_data();
    assert_eq!((&kept["service"], &kept["published_at"]), (&json!("mine"), &json!(7)));
    let amounts = stream.expect("amounts");
    let written = format!("{{\"least\":{},\"most\":{},\"beyond\":{},", i64::MIN, u64::MAX, i128::MAX);
    assert!(amounts.data.contains(&written), "{amounts:?}");
    assert_all_accepted(&events.blocking_flush(), 3);
    assert_eq!(events.last_id(), amounts.id);
}

trait JsonData {
    /// What is in `data`, loosely: numbers of any size are read as floats.
    fn json_data(&self) -> serde_json::Map<String, serde_json::Value>;
}

impl JsonData for common::SseEvent {
    fn json_data(&self) -> serde_json::Map<String, serde_json::Value> {
        let data: std::collections::BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(&self.data).expect("an object");
        let fields: std::collections::BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(data["data"].get()).expect("an object");
        // One that no float holds is left out.
        fields.into_iter().filter_map(|(name, raw)| Some((name, serde_json::from_str(raw.get()).ok()?))).collect()
    }
}

/// Panics unless the next event is of this type with this data, to the letter, but for the broker's `timestamp`.
#[track_caller]
fn assert_next(stream: &mut Stream, kind: &str, topic: &str, data: &str) {
    let event = stream.expect(kind);
    let fields = data.strip_suffix('}').expect("an object");
    assert!(event.data.contains(&format!("\"data\":{fields},\"timestamp\":\"")), "{event:?} has not {data}");
    let empty = fields.matches("\":").count() + 1;
    assert_eq!(event.json_data().len(), empty, "no other fields: {event:?}");
    assert_eq!(event.json()["topic"], topic);
}

#[test]
fn the_platforms_events_have_the_catalogues_fields() {
    let server = Server::start(&[]);
    let mut stream = server.stream("topics=transactions,wallets,users,risk");
    let events = publisher(to(server.addr).stamp(false));
    let transfer = Transaction {
        transaction_id: "t-1",
        kind: TransactionKind::Transfer,
        status: "pending",
        amount: 9_007_199_254_740_993,
        currency: "INR",
        source_wallet_id: Some("w-1"),
        destination_wallet_id: Some("w-2"),
        description: "monthly \"rent\"",
    };
    let deposit = Transaction { kind: TransactionKind::Deposit, source_wallet_id: None, ..transfer };
    let withdrawal = Transaction { kind: TransactionKind::Withdrawal, destination_wallet_id: None, ..transfer };
    events.transactions().created(&transfer).expect("an event");
    events.transactions().completed(&deposit).expect("an event");
    events.transactions().failed(&withdrawal).expect("an event");
    let wallet = Wallet {
        wallet_id: "w-1",
        user_id: "ann",
        kind: "savings",
        currency: "INR",
        status: "frozen",
        balance: i64::MIN,
        available_balance: i64::MAX,
    };
    events.wallets().created(&wallet).expect("an event");
    for action in [WalletAction::Activated, WalletAction::Frozen, WalletAction::Unfrozen, WalletAction::Closed] {
        let change = StatusChange { action, old_status: "active", new_status: "frozen" };
        events.wallets().status_changed(&wallet, &change).expect("an event");
    }
    events.wallets().balance_updated(&wallet).expect("an event");
    let user = User {
        user_id: "ann",
        phone: "+91123",
        full_name: "Ann",
        status: "active",
        kyc_status: "rejected",
        rejection_reason: Some("blurred"),
    };
    events.users().registered(&User { rejection_reason: None, ..user }).expect("an event");
    events.users().kyc_updated(&user).expect("an event");
    events.users().status_changed(&user).expect("an event");
    events.risk().alert(&json!({ "score": 87 })).expect("an event");
    events.risk().event("risk.other", &json!({ "rule": "velocity" })).expect("an event");

    let transaction = |kind: &str, wallets: &str| {
        format!(
            "{{\"transaction_id\":\"t-1\",\"type\":\"{kind}\",\"status\":\"pending\",\"amount\":9007199254740993,\
             \"currency\":\"INR\",{wallets}\"description\":\"monthly \\\"rent\\\"\"}}"
        )
    };
    let (source, destination) = ("\"source_wallet_id\":\"w-1\",", "\"destination_wallet_id\":\"w-2\",");
    let both = format!("{source}{destination}");
    assert_next(&mut stream, "transaction.created", "transactions", &transaction("transfer", &both));
    assert_next(&mut stream, "transaction.completed", "transactions", &transaction("deposit", destination));
    assert_next(&mut stream, "transaction.failed", "transactions", &transaction("withdrawal", source));
    let wallet = "{\"wallet_id\":\"w-1\",\"user_id\":\"ann\",\"type\":\"savings\",\"currency\":\"INR\",\
         \"status\":\"frozen\",\"balance\":-9223372036854775808,\"available_balance\":9223372036854775807}";
    assert_next(&mut stream, "wallet.created", "wallets", wallet);
    for action in ["activated", "frozen", "unfrozen", "closed"] {
        let fields = wallet.strip_suffix('}').expect("an object");
        let change = format!("\"action\":\"{action}\",\"old_status\":\"active\",\"new_status\":\"frozen\"}}");
        assert_next(&mut stream, "wallet.status_changed", "wallets", &format!("{fields},{change}"));
    }
    assert_next(&mut stream, "wallet.balance_updated", "wallets", wallet);
    let user = "{\"user_id\":\"ann\",\"phone\":\"+91123\",\"full_name\":\"Ann\",\"status\":\"active\",\
         \"kyc_status\":\"rejected\"}";
    let rejected = user.replace('}', ",\"rejection_reason\":\"blurred\"}");
    assert_next(&mut stream, "user.registered", "users", user);
    assert_next(&mut stream, "user.kyc_updated", "users", &rejected);
    assert_next(&mut stream, "user.status_changed", "users", &rejected);
    assert_next(&mut stream, "risk.alert", "risk", "{\"score\":87}");
    assert_next(&mut stream, "risk.other", "risk", "{\"rule\":\"velocity\"}");
}

#[test]
fn events_for_users_are_theirs() {
    let server = Server::start(&[]);
    let (mut ann, mut carol) = (server.stream("user_id=ann"), server.stream("user_id=carol"));
    let events = publisher(to(server.addr));
    let users = ["ann", "bob"];
    events.for_users(&users).publish("t", "named", &json!({ "user_id": "carol" })).expect("an event");
    events.publish("t", "by data", &json!({ "user_id": "carol" })).expect("an event");
    for nobody in [&[][..], &[""], &["ann", ""]] {
        let rejected = events.for_users(nobody).publish("t", "named", &json!({}));
        assert!(matches!(rejected, Err(Rejected::Invalid(_))), "{nobody:?}: {rejected:?}");
    }
    let user = User { user_id: "", phone: "", full_name: "", status: "", kyc_status: "", rejection_reason: None };
    let rejected = events.users().registered(&user);
    assert!(matches!(rejected, Err(Rejected::Invalid(_))), "it would be public: {rejected:?}");
    ann.expect("named");
    carol.expect("by data");
    ann.expect_nothing();
    carol.expect_nothing();
}

#[test]
fn an_event_after_a_pause_does_not_linger() {
    let server = Server::start(&[]);
    let mut stream = server.stream("topics=t");
    let events = publisher(to(server.addr).linger(DEADLINE * 10));
    tick(&events, "t", 0);
    assert_eq!(stream.numbers(1), [0]);
    // From now on they do, until they fill a batch, or somebody is in a hurry.
    (1..500).for_each(|n| tick(&events, "t", n));
    stream.expect_nothing();
    tick(&events, "t", 500);
    assert_eq!(stream.numbers(500), (1..=500).collect::<Vec<_>>());
    tick(&events, "t", 501);
    assert_all_accepted(&events.blocking_flush(), 502);
    tick(&events, "t", 502);
    let figures = events.blocking_close(DEADLINE);
    assert_all_accepted(&figures, 503);
    assert_eq!(figures.requests, 4, "{figures:?}");
}

// ---- what goes wrong on the way

#[test]
fn a_lost_answer_publishes_nothing_twice() {
    const ROUNDS: usize = 10;
    const EACH: usize = 50;
    let server = Server::start(&[]);
    let mut stream = server.stream("topics=t");
    let proxy = Proxy::start(server.addr);
    let events = publisher(to(proxy.address));
    for round in 0..ROUNDS {
        // The request is with the broker when its answer's first bytes come back; the rest of them is lost.
        proxy.cut_after("HTTP/1.1 ");
        (0..EACH).for_each(|n| tick(&events, "t", round * EACH + n));
        proxy.wait_for_refused();
        proxy.lead_to(server.addr);
        events.blocking_flush();
    }
    let figures = events.blocking_flush();
    assert_all_accepted(&figures, (ROUNDS * EACH) as u64);
    assert!(figures.retried >= ROUNDS as u64, "{figures:?}");
    assert_eq!(stream.numbers(ROUNDS * EACH), (0..ROUNDS * EACH).collect::<Vec<_>>());
    stream.expect_nothing();
    assert_eq!(server.stat("/idempotency/replayed"), ROUNDS as u64);
    assert_eq!(server.stat("/idempotency/reused"), 0);
}

#[test]
fn a_broker_that_comes_late_gets_all() {
    let address = free_address();
    let events = publisher(to(address));
    (0..1200).for_each(|n| tick(&events, "t", n));
    let figures = wait_for("a second attempt", || Some(events.figures()).filter(|figures| figures.retried > 1));
    assert_eq!((figures.queued, figures.accepted), (1200, 0), "{figures:?}");
    assert_adds_up(&figures);
    let server = server_at(address, &[]);
    let figures = events.blocking_flush();
    assert_all_accepted(&figures, 1200);
    let mut stream = server.stream("last=1200");
    assert_eq!(stream.numbers(1200), (0..1200).collect::<Vec<_>>());
}

#[test]
fn a_broker_that_is_restarted_gets_the_rest() {
    let first = Server::start(&[]);
    let address = first.addr;
    let events = publisher(to(address));
    tick(&events, "t", 0);
    events.blocking_flush();
    drop(first);
    (1..100).for_each(|n| tick(&events, "t", n));
    wait_until("an attempt that fails", || events.figures().retried > 0);
    let second = server_at(address, &[]);
    assert_all_accepted(&events.blocking_flush(), 100);
    let mut stream = second.stream("last=1000");
    assert_eq!(stream.numbers(99), (1..100).collect::<Vec<_>>());
}

#[test]
fn nobody_waits_for_a_broker_that_hangs() {
    const ROOM: usize = 100;
    const CALLS: usize = 10_000;
    let server = Server::start(&[]);
    let (events, reports) = reporting(to(server.addr).queue_events(ROOM).timeout(DEADLINE));
    server.signal("STOP");
    let (mut full, mut slowest) = (0, Duration::ZERO);
    for n in 0..CALLS {
        let began = Instant::now();
        let published = events.publish("t", "tick", &json!({ "n": n }));
        slowest = slowest.max(began.elapsed());
        match published {
            Ok(()) => assert!(n < ROOM, "{n}"),
            Err(Rejected::Full) => full += 1,
            Err(other) => panic!("{other}"),
        }
    }
    // Nothing in a call can wait; what is left is the scheduler of a busy machine.
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    let figures = events.figures();
    assert_adds_up(&figures);
    assert_eq!((figures.queued, figures.accepted), (ROOM as u64, 0), "{figures:?}");
    assert_eq!((figures.dropped.full, full), ((CALLS - ROOM) as u64, CALLS - ROOM));
    let told = reports.recv_timeout(DEADLINE).expect("a report");
    assert!(told.dropped.full > 0 && told.why.is_none(), "{told:?}");

    server.signal("CONT");
    let figures = events.blocking_close(DEADLINE);
    assert_adds_up(&figures);
    assert_eq!(figures.accepted, ROOM as u64, "{figures:?}");
    // One report a time, and a last one at the end: together they tell of all.
    let rest: u64 = reports.iter().map(|report| report.dropped.full).sum();
    assert_eq!(told.dropped.full + rest, figures.dropped.full);
    let mut stream = server.stream("last=1000");
    assert_eq!(stream.numbers(ROOM), (0..ROOM).collect::<Vec<_>>());
}

#[test]
fn bytes_fill_the_queue_too() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("a bound socket has an address");
    let events = publisher(to(address).queue_bytes(10_000).stamp(false));
    let event = json!({ "text": "x".repeat(2_000) });
    let outcomes: Vec<bool> = (0..10).map(|_| events.publish("t", "k", &event).is_ok()).collect();
    assert_eq!(outcomes, [true, true, true, true, false, false, false, false, false, false]);
    let figures = events.figures();
    assert_adds_up(&figures);
    assert!((8_000..=10_000).contains(&figures.queued_bytes), "{figures:?}");
    let huge = events.publish("t", "k", &json!({ "text": "x".repeat(10_000) }));
    assert!(matches!(huge, Err(Rejected::TooLarge { bytes: 10_043, most: 9_998 })), "{huge:?}");
    let none = events.publish("t", "gap", &event);
    assert!(matches!(none, Err(Rejected::Invalid(Invalid(why))) if why.contains("reserved")));
    assert!(matches!(events.publish("t", "k", &7), Err(Rejected::Invalid(_))));
    let dropped = events.figures().dropped;
    assert_eq!(dropped, Dropped { full: 6, invalid: 3, ..Dropped::default() });
}

#[test]
fn who_waits_for_room_loses_nothing() {
    const COUNT: usize = 2_000;
    let server = Server::start(&[]);
    let mut stream = server.stream("topics=t");
    let events = publisher(to(server.addr).queue_events(10));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        for n in 0..COUNT {
            events.send("t", "tick", &json!({ "n": n })).await.expect("it waits");
        }
        assert_all_accepted(&events.flush().await, COUNT as u64);
        assert_eq!(stream.numbers(COUNT), (0..COUNT).collect::<Vec<_>>());
        // One who waits when it is closed is told.
        server.signal("STOP");
        (0..10).for_each(|n| tick(&events, "t", n));
        let late = json!({});
        let waiting = events.send("t", "late", &late);
        let closing = events.close(Duration::from_millis(200));
        let (waiting, figures) = tokio::join!(waiting, closing);
        assert_eq!(waiting, Err(Rejected::Closed));
        assert_adds_up(&events.figures());
        assert_eq!(events.figures().dropped.closed, 11);
        assert_eq!(figures.queued, 0);
    });
    server.signal("CONT");
}

#[test]
fn what_the_broker_refuses_takes_nothing_else_with_it() {
    let server = Server::start(&[]);
    let mut stream = server.stream("topics=t");
    let (events, reports) = reporting(to(server.addr).linger(Duration::from_secs(1)));
    // The first one leaves alone, so that the rest is one batch.
    tick(&events, "t", 0);
    for n in 1..200 {
        match n {
            // Whose is it? It would pass here, and the broker will not guess.
            50 | 51 | 199 => {
                events.publish("t", "tick", &json!({ "n": n, "user_id": 1.5 })).expect("there is room");
            }
            _ => tick(&events, "t", n),
        }
    }
    let figures = events.blocking_flush();
    assert_adds_up(&figures);
    assert_eq!((figures.accepted, figures.dropped.refused), (197, 3), "{figures:?}");
    assert_eq!(figures.retried, 0, "{figures:?}");
    let expected: Vec<usize> = (0..200).filter(|n| ![50, 51, 199].contains(n)).collect();
    assert_eq!(stream.numbers(197), expected);
    stream.expect_nothing();
    let report = reports.recv_timeout(DEADLINE).expect("a report");
    assert!(report.why.as_deref().is_some_and(|why| why.starts_with("400 ") && why.contains("user id")), "{report:?}");
}

#[test]
fn what_is_too_much_at_once_goes_in_parts() {
    for flags in [["--max-body", "2000"], ["--max-batch", "7"]] {
        let server = Server::start(&flags);
        let mut stream = server.stream("topics=t");
        let (events, reports) = reporting(to(server.addr).linger(Duration::from_secs(1)));
        (0..300).for_each(|n| tick(&events, "t", n));
        let figures = events.blocking_flush();
        assert_all_accepted(&figures, 300);
        assert_eq!(stream.numbers(300), (0..300).collect::<Vec<_>>());
        if flags[0] == "--max-body" {
            let large = json!({ "text": "x".repeat(200_000) });
            events.publish("t", "large", &large).expect("it may pass");
            tick(&events, "t", 300);
            let figures = events.blocking_flush();
            assert_eq!((figures.accepted, figures.dropped.refused), (301, 1), "{figures:?}");
            let report = reports.recv_timeout(DEADLINE).expect("a report");
            assert!(report.why.as_deref().is_some_and(|why| why.starts_with("413 ")), "{report:?}");
        }
    }
}

/// A broker that asks for keys: `wallet-service` may publish to `wallets` and what is below, by its key.
fn guarded() -> (Server, &'static str) {
    const KEY: &str = "0123456789abcdef0123456789abcdef";
    let hash = Command::new("sh").args(["-c", "printf %s \"$0\" | sha256sum", KEY]).output().expect("there is a shell");
    let hash = String::from_utf8(hash.stdout).expect("it is text");
    let entry = format!(
        "[[key]]\nname = \"wallet-service\"\nhash = \"sha256:{}\"\npublish = [\"wallets.*\", \"wallets\"]\n",
        &hash[..64]
    );
    let name = format!("{}-{:?}-publisher.toml", std::process::id(), thread::current().id());
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&file, entry).expect("the build's directory can be written to");
    (Server::start(&["--keys-file", file.to_str().expect("text")]), KEY)
}

#[test]
fn a_topic_that_is_not_the_services_takes_no_other_with_it() {
    let (server, key) = guarded();
    let mut stream = server.stream("topics=all");
    let (events, reports) = reporting(to(server.addr).key(key).linger(Duration::from_secs(1)));
    for n in 0..300 {
        tick(&events, ["wallets", "risk", "wallets.w-1", "users"][n % 4], n);
    }
    let figures = events.blocking_flush();
    assert_adds_up(&figures);
    assert_eq!((figures.accepted, figures.dropped.refused), (150, 150), "{figures:?}");
    // In the order of all of them, not only in each topic's.
    assert_eq!(stream.numbers(150), (0..300).filter(|n| n % 2 == 0).collect::<Vec<_>>());
    assert!(figures.requests < 100, "the barred topics are found by halves: {figures:?}");
    let report = reports.recv_timeout(DEADLINE).expect("a report");
    assert!(report.why.as_deref().is_some_and(|why| why.starts_with("403 ") && why.contains("may not")), "{report:?}");
    // A key that rests in the queue's settings is in no debug output.
    assert!(!format!("{:?}", to(server.addr).key(key)).contains(key));
    assert!(!format!("{events:?}").contains(key));
}

#[test]
fn without_a_key_all_is_refused_and_said_so() {
    let (server, _) = guarded();
    for builder in [to(server.addr), to(server.addr).key("another")] {
        let (events, reports) = reporting(builder);
        (0..50).for_each(|n| tick(&events, "wallets", n));
        let figures = events.blocking_flush();
        assert_adds_up(&figures);
        assert_eq!((figures.dropped.refused, figures.retried), (50, 0), "{figures:?}");
        let report = reports.recv_timeout(DEADLINE).expect("a report");
        assert!(report.why.as_deref().is_some_and(|why| why.starts_with("401 ")), "{report:?}");
    }
}

#[test]
fn past_the_limit_it_waits_as_long_as_it_is_told() {
    let server = Server::start(&["--publish-rate", "1", "--limit-loopback"]);
    let mut stream = server.stream("topics=t");
    let events = publisher(to(server.addr).max_batch(1));
    let began = Instant::now();
    // Two at once, and then one a second.
    (0..4).for_each(|n| tick(&events, "t", n));
    let figures = events.blocking_flush();
    assert_all_accepted(&figures, 4);
    assert!((2..=6).contains(&figures.retried), "told to wait a second, it does: {figures:?}");
    assert!(began.elapsed() > Duration::from_millis(1500), "{:?}", began.elapsed());
    assert_eq!(stream.numbers(4), [0, 1, 2, 3]);
}

/// What a server that is none of ours, or a proxy before it, may answer; gives the requests' idempotency keys.
fn answers(listener: &TcpListener, answers: &[&str]) -> Vec<String> {
    let mut keys = Vec::new();
    for answer in answers {
        let (mut socket, _) = listener.accept().expect("a connection");
        let mut request = Vec::new();
        let mut buf = [0; 4096];
        while !request.ends_with(b"]") {
            let n = socket.read(&mut buf).expect("a request");
            assert_ne!(n, 0, "the end of a request");
            request.extend_from_slice(&buf[..n]);
        }
        let text = String::from_utf8(request).expect("text").to_ascii_lowercase();
        let key = text.split_once("\r\nidempotency-key: ").and_then(|(_, rest)| rest.split_once("\r\n"));
        keys.push(key.expect("a key").0.to_owned());
        socket.write_all(answer.as_bytes()).expect("it is taken");
    }
    keys
}

#[test]
fn what_others_answer_is_tried_again_or_refused() {
    const AGAIN: &str = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n";
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let events = publisher(to(listener.local_addr().expect("an address")));
    tick(&events, "t", 0);
    let began = Instant::now();
    let ok = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 16\r\n\r\n{\"success\":true}";
    let keys = answers(
        &listener,
        &[
            &format!("{AGAIN}Retry-After: 1\r\n\r\n"),
            // A date is not understood, and nothing is lost by that.
            &format!("{AGAIN}Retry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\n\r\n"),
            "HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: 5\r\n\r\n<htm",
            "no HTTP at all\r\n\r\n",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 50\r\n\r\n{\"success\":true",
            ok,
        ],
    );
    assert_all_accepted(&events.blocking_flush(), 1);
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    assert_eq!(events.figures().retried, 5);

    let mut more = vec![keys[0].clone()];
    for answer in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\n<html>",
        "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 301 Moved\r\nConnection: close\r\nContent-Length: 0\r\nLocation: /\r\n\r\n",
        "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    ] {
        tick(&events, "t", 1);
        more.extend(answers(&listener, &[answer]));
        events.blocking_flush();
    }
    let figures = events.figures();
    assert_adds_up(&figures);
    assert_eq!((figures.accepted, figures.dropped.refused, figures.retried), (1, 4, 5), "{figures:?}");
    let distinct: std::collections::BTreeSet<_> = more.iter().collect();
    assert_eq!(distinct.len(), more.len(), "{more:?}");
}

#[test]
fn who_is_told_to_come_much_later_does_not_come_at_once_with_the_next() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let events = publisher(to(address).max_batch(1).give_up_after(Duration::from_secs(2)).linger(Duration::ZERO));
    (0..50).for_each(|n| tick(&events, "t", n));
    let began = Instant::now();
    let later =
        "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\nRetry-After: 600\r\n\r\n";
    answers(&listener, &[later]);
    let figures = events.blocking_flush();
    assert_adds_up(&figures);
    assert_eq!((figures.dropped.expired, figures.requests), (50, 1), "{figures:?}");
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
}

#[test]
fn what_is_of_no_more_use_is_given_up() {
    let address = free_address();
    let (events, reports) = reporting(to(address).give_up_after(Duration::from_secs(2)).max_batch(10));
    (0..100).for_each(|n| tick(&events, "t", n));
    let began = Instant::now();
    let figures = events.blocking_flush();
    assert_adds_up(&figures);
    assert_eq!((figures.dropped.expired, figures.accepted), (100, 0), "{figures:?}");
    // Ten batches: all of them together are given up, not one after the other.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(figures.retried > 0, "{figures:?}");
    let why = reports.recv_timeout(DEADLINE).expect("a report").why.expect("a reason");
    assert!(why.to_lowercase().contains("refused"), "{why}");
    // What comes later is tried.
    let server = server_at(address, &[]);
    tick(&events, "t", 100);
    assert_eq!(events.blocking_flush().accepted, 1);
    assert_eq!(server.stat("/events"), 1);
}

// ---- how it ends

#[test]
fn closing_waits_so_long_and_no_longer() {
    let server = Server::start(&[]);
    let (events, reports) = reporting(to(server.addr));
    tick(&events, "t", 0);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    assert_all_accepted(&runtime.block_on(events.flush()), 1);
    server.signal("STOP");
    (1..100).for_each(|n| tick(&events, "t", n));
    let other = events.clone();
    let flushing = thread::spawn(move || other.blocking_flush());
    let began = Instant::now();
    let figures = runtime.block_on(events.close(Duration::from_millis(300)));
    assert!((Duration::from_millis(300)..Duration::from_secs(5)).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert_adds_up(&figures);
    assert_eq!((figures.accepted, figures.dropped.closed), (1, 99), "{figures:?}");
    assert_eq!(flushing.join().expect("no panic"), figures, "who waits is told");
    assert_eq!(events.publish("t", "tick", &json!({})), Err(Rejected::Closed));
    assert_eq!(events.blocking_close(DEADLINE).dropped.closed, 100, "and again");
    assert_adds_up(&events.figures());
    assert_eq!(reports.try_recv().expect("told before it was over").dropped.closed, 99);
    server.signal("CONT");
}

#[test]
fn one_that_is_dropped_sends_what_it_has() {
    let server = Server::start(&[]);
    let mut stream = server.stream("topics=t");
    let events = publisher(to(server.addr));
    let clone = events.clone();
    (0..1000).for_each(|n| tick(&events, "t", n));
    drop(events);
    tick(&clone, "t", 1000);
    drop(clone);
    assert_eq!(stream.numbers(1001), (0..=1000).collect::<Vec<_>>());
}

#[test]
fn a_report_that_panics_ends_it_and_nobody_waits() {
    let events = publisher(to(free_address()).on_report(|_| panic!("as the test has it")));
    tick(&events, "t", 0);
    assert!(events.publish("t", "gap", &json!({})).is_err());
    let figures = events.blocking_flush();
    assert_adds_up(&figures);
    assert_eq!((figures.dropped.closed, figures.dropped.invalid), (1, 1), "{figures:?}");
    assert_eq!(events.publish("t", "tick", &json!({})), Err(Rejected::Closed));
}

#[test]
fn settings_that_cannot_be_right_are_named() {
    let why = |builder: Builder| builder.build().expect_err("it is wrong").to_string();
    let base = || Publisher::builder("s").url("http://127.0.0.1:1");
    assert!(why(Publisher::builder("")).contains("service: it is empty"));
    assert!(why(base().url("gateway:8000")).contains("url: "));
    assert!(why(base().key("a\nb")).contains("key"));
    assert!(why(base().queue_events(0)).contains("queue_events: it is 0"));
    assert!(why(base().queue_bytes(7)).contains("queue_bytes: it is 7"));
    assert!(why(base().max_batch(0)).contains("max_batch"));
    assert!(why(base().max_body(0)).contains("max_body"));
}

// ---- around it

/// The example, which also shows that the environment is read.
#[test]
fn the_example_runs() {
    let (server, key) = guarded();
    let example = |key: &str| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["run", "--quiet", "--locked", "--example", "wallet-service"]);
        cargo.env("GATEWAY_URL", format!("http://{}", server.addr)).env("FANFARE_KEY", key);
        cargo.output().expect("cargo runs")
    };
    let mut stream = server.stream("topics=all");
    let output = example(key);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    // Its key is for wallets only.
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said.contains("published: 12,") && said.contains("accepted: 3,") && said.contains("refused: 9,"), "{said}");
    for kind in ["wallet.created", "wallet.status_changed", "wallet.balance_updated"] {
        assert_eq!(stream.expect(kind).json_data()["service"], "wallet-service");
    }
    let said = String::from_utf8_lossy(&example("another").stdout).into_owned();
    assert!(said.contains("accepted: 0,") && said.contains("refused: 12,"), "{said}");
}

#[test]
fn alone_it_needs_nothing_of_the_server() {
    let tree = |features: &str| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["tree", "--locked", "--offline", "--no-default-features", "--features", features]);
        let output =
            cargo.args(["--edges", "normal", "--prefix", "none", "--depth", "1"]).output().expect("cargo runs");
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("text");
        let names = text.lines().skip(1).filter_map(|line| line.split(' ').next().map(str::to_owned));
        names.filter(|name| !name.is_empty()).collect::<std::collections::BTreeSet<String>>()
    };
    let plain = ["bytes", "http-body-util", "hyper", "hyper-util", "jiff", "serde", "serde_json", "tokio", "tracing"];
    assert_eq!(tree("publisher"), plain.map(str::to_owned).into());
    let https = tree("publisher,https");
    let more: Vec<_> = https.iter().filter(|name| !plain.contains(&name.as_str())).collect();
    assert_eq!(more, ["hyper-rustls", "rustls"]);
}
