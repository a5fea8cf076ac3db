//! Two users' browsers on one broker, as a deployment has them: each sees their own events and the public ones, live and
//! replayed, and never the other's. Pages from elsewhere see nothing and publish nothing.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::thread;

use serde_json::{Value, json};

use crate::process::{Broker, Client, Event};
use crate::proxy::Proxy;
use crate::{exchange, tools};

const SECRET: &str = "a secret of more than 32 bytes that nobody else knows";
const KEY: &str = "a-key-of-the-wallet-service";

/// What each of the pages that are not let in is expected to report of its attempts.
const ATTEMPTS: &str = "stats: unreadable
stream: unreadable
json: unreadable
key: unreadable
simple: unreadable
blind: opaque 0";

#[test]
fn each_sees_their_own_and_what_is_public_and_pages_from_elsewhere_nothing() {
    const TEST: &str = "two users in Chromium";
    let Some(mut python) = tools::or_skip(TEST, tools::python("users.py")) else { return };
    let Some(mut command) = tools::or_skip(TEST, tools::node_with_chromium("users.js")) else { return };
    let output = python.args([SECRET, "ann", "bob"]).output().expect("Python runs");
    let tokens = String::from_utf8(output.stdout).expect("it is text");

    // The users' pages come from one place. Two are not let in: one on the same host, to which a browser sends the same
    // cookies, and one on another.
    let (port, other) = (serve_pages(), serve_pages());
    let app = format!("http://127.0.0.1:{port}");
    let elsewhere = [format!("http://127.0.0.1:{other}"), format!("http://localhost:{port}")];
    let flags = ["--auth-cookie", "session", "--retry", "100ms"];
    let keys = format!("wallets:{KEY}");
    let environment = [("JWT_SECRET", SECRET), ("FANFARE_KEYS", &keys), ("CORS_ORIGINS", &app)];
    let broker = Broker::start_with(&flags, &environment);
    let proxy = Proxy::start(broker.address);
    command.arg(format!("http://{}", proxy.address)).arg(app).args(elsewhere).args(tokens.lines());
    let mut client = Client::start(command);

    // Two listen; the others try all they can, and are done.
    let of = |client: &Client, page: &str, kind: &str| -> Vec<Event> {
        client.seen.iter().filter(|event| event.page == page && event.kind == kind).cloned().collect()
    };
    client.wait("two streams, and two pages to have tried", |client| {
        let connected = ["ann", "bob"].iter().all(|page| !of(client, page, "connected").is_empty());
        let tried = |page| !of(client, page, "intruded").is_empty() && !of(client, page, "refused").is_empty();
        connected && ["neighbour", "stranger"].into_iter().all(tried)
    });
    for page in ["neighbour", "stranger"] {
        assert_eq!(of(&client, page, "intruded")[0].data, ATTEMPTS, "{page}");
    }

    // Live; then the notice is cut in two, and both miss some before they can come back.
    publish(&broker, &[("wallet", 1, json!(["ann"])), ("wallet", 2, json!(["bob"])), ("notice", 3, json!([]))]);
    publish(&broker, &[("wallet", 4, json!(["bob", "ann"]))]);
    client.wait("what was published", |client| numbers(client, "ann").len() + numbers(client, "bob").len() == 6);
    proxy.cut_after(r#"{"n":5"#);
    publish(&broker, &[("notice", 5, json!([]))]);
    proxy.wait_for_refused();
    publish(&broker, &[("wallet", 6, json!(["bob"])), ("wallet", 7, json!(["ann"])), ("notice", 8, json!([]))]);
    proxy.lead_to(broker.address);
    client.wait("what was missed", |client| numbers(client, "ann").len() + numbers(client, "bob").len() == 12);
    // And on, live.
    publish(&broker, &[("wallet", 9, json!(["ann"])), ("wallet", 10, json!(["bob"])), ("notice", 11, json!([]))]);
    client.wait("the last", |client| numbers(client, "ann").len() + numbers(client, "bob").len() == 16);

    assert_eq!(numbers(&client, "ann"), [1, 3, 4, 5, 7, 8, 9, 11]);
    assert_eq!(numbers(&client, "bob"), [2, 3, 4, 5, 6, 8, 10, 11]);
    for page in ["ann", "bob"] {
        assert!(of(&client, page, "connected").len() >= 2, "it has come back");
        assert!(of(&client, page, "gap").is_empty() && of(&client, page, "refused").is_empty(), "{:#?}", client.seen);
    }
    for page in ["neighbour", "stranger"] {
        let kinds = client.seen.iter().filter(|event| event.page == page).map(|event| &*event.kind);
        assert_eq!(kinds.filter(|kind| !["intruded", "refused"].contains(kind)).count(), 0, "{:#?}", client.seen);
    }
    let stats = exchange(&broker, "GET /api/v1/events/stats HTTP/1.0\r\n\r\n");
    let stats: Value = serde_json::from_str(&stats).expect("JSON");
    assert_eq!(stats["events"], 11, "nobody else has published: {stats}");
    // Without asking first, a page can send two requests and a form; with asking, nothing.
    assert_eq!(stats["problems"]["cross_site"], 8, "{stats}");
    assert_eq!(stats["problems"]["origin_not_allowed"], 4, "{stats}");
}

/// Serves an empty page wherever it is asked for one, for as long as the process lives; gives the port.
fn serve_pages() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("a bound socket has an address").port();
    thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            // One connection at a time may be one that a browser opens to be ready for more.
            thread::spawn(move || {
                let head = BufReader::new(&socket).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
                if head.count() > 0 {
                    let page = "<!doctype html><meta charset=\"utf-8\"><title>A page</title>";
                    let head = format!("Content-Type: text/html\r\nContent-Length: {}\r\n", page.len());
                    let _ = write!(socket, "HTTP/1.1 200 OK\r\n{head}Connection: close\r\n\r\n{page}");
                }
            });
        }
    });
    port
}

/// Publishes events of a type, a number, and whose they are, as a batch.
fn publish(broker: &Broker, events: &[(&str, u32, Value)]) {
    let event = |(kind, n, users): &(&str, u32, Value)| json!({"topic": "wallets", "type": kind, "data": {"n": n}, "user_ids": users});
    let body = Value::from(events.iter().map(event).collect::<Vec<_>>()).to_string();
    let head =
        format!("POST /api/v1/events/broadcast HTTP/1.0\r\nContent-Type: application/json\r\nX-API-Key: {KEY}\r\n");
    exchange(broker, &format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()));
}

/// The numbers of the events that a page has seen.
fn numbers(client: &Client, page: &str) -> Vec<u64> {
    let events = client.seen.iter().filter(|event| event.page == page && ["wallet", "notice"].contains(&&*event.kind));
    events
        .map(|event| {
            let data: Value = serde_json::from_str(&event.data).expect("JSON");
            data["data"]["n"].as_u64().expect("a number")
        })
        .collect()
}
