//! A provider of identities that is away (issue 15, item 4): nobody is told that a good token is bad. The broker is not
//! ready until it has keys; a token whose signer cannot be looked up now is refused for a reason that passes; and a
//! cached key set stands in for the provider at the start.

mod common;
#[path = "common/http2.rs"]
mod http2;
#[path = "common/tokens.rs"]
#[allow(dead_code, reason = "of the issuers, only those with keys are needed here")]
mod issuer;
#[path = "common/published.rs"]
mod published;

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{Answer, BROADCAST, EVENTS, Server, fanfare, wait_for, wait_until};
use fanfare::auth::token::Algorithm;
use http2::Http2;
use hyper::Request;
use issuer::Issuer;
use published::{Published, key_set, listener};
use serde_json::{Value, json};

/// An event that the token may publish.
const EVENT: &str = r#"{"topic":"news","type":"tick","data":{"n":7}}"#;

fn issuer(id: &str) -> Issuer {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_secs();
    Issuer::new(Algorithm::ES256, id, now_s)
}

/// A token that may listen and publish, in a header line.
fn bearer(issuer: &Issuer) -> String {
    let claims = json!({"exp": issuer.now_s + 3600, "user_id": "ann", "fanfare": {"publish": ["*"]}});
    format!("Authorization: Bearer {}\r\n", issuer.sign(&issuer.header(), &claims.to_string()))
}

/// A broker that takes its keys from this URL.
fn start(url: &str, flags: &[&str]) -> Server {
    Server::start(&[&["--jwks", url, "--jwt-algorithms", "ES256"], flags].concat())
}

fn listen(server: &Server, lines: &str) -> Answer {
    server.ask(&format!("GET {EVENTS} HTTP/1.1\r\nHost: t\r\n{lines}\r\n"))
}

fn publish(server: &Server, lines: &str) -> Answer {
    let length = EVENT.len();
    let head = format!("POST {BROADCAST} HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n");
    server.ask(&format!("{head}Content-Length: {length}\r\n{lines}\r\n{EVENT}"))
}

/// The same two requests over HTTP/2.
fn over_http2(lines: &str, target: &str) -> Request<()> {
    let token = lines.strip_prefix("Authorization: ").expect("a header line").trim_end();
    let request = if target == EVENTS { Request::get(format!("http://t{target}")) } else { http2_post(target) };
    request.header("authorization", token).body(()).expect("a request")
}

fn http2_post(target: &str) -> hyper::http::request::Builder {
    Request::post(format!("http://t{target}")).header("content-type", "application/json")
}

#[track_caller]
fn assert_unavailable(answer: &Answer) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.json()["error"]["code"], "keys_unavailable", "{answer:?}");
    assert_eq!(answer.field("retry-after").as_deref(), Some("5"), "{answer:?}");
    assert_eq!(answer.field("www-authenticate"), None, "the token may be good: {answer:?}");
}

#[track_caller]
fn assert_readiness(server: &Server, status: u16, told: &str) {
    let answer = server.get("/ready");
    assert_eq!((answer.status, &answer.json()), (status, &json!({ "status": told })), "{answer:?}");
}

/// Listens and publishes with a token.
#[track_caller]
fn assert_good(server: &Server, lines: &str) {
    let mut stream = server.stream_with("topics=news", lines);
    assert_eq!(publish(server, lines).status, 200);
    assert_eq!(stream.numbers(1), [7]);
}

fn wait_until_ready(server: &Server) {
    wait_until("the broker to be ready", || server.get("/ready").status == 200);
}

fn key_figures(server: &Server) -> Value {
    server.stats()["key_set"].clone()
}

/// The value of a sample of `/metrics`.
#[track_caller]
fn metric(server: &Server, name: &str) -> f64 {
    let text = server.get("/metrics").text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// How often the log has this.
fn told(server: &Server, text: &str) -> usize {
    server.log().matches(text).count()
}

/// An empty directory in the build's own.
fn folder(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("jwks-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("the build's directory can be written to");
    path
}

fn text(path: &Path) -> &str {
    path.to_str().expect("it is text")
}

// ---- without a cache

#[test]
fn provider_that_comes_late_makes_the_broker_ready_and_the_same_token_good() {
    let issuer = issuer("k");
    let token = bearer(&issuer);
    let closed = listener();
    let address = closed.local_addr().expect("it is bound");
    drop(closed);
    let server = start(&format!("http://{address}/keys"), &[]);
    wait_until("the first fetch to fail", || told(&server, "no token can be verified") > 0);
    assert_readiness(&server, 503, "no_keys");
    assert_eq!(server.get("/health").status, 200, "the process is well");

    assert_unavailable(&listen(&server, &token));
    assert_unavailable(&publish(&server, &token));
    let head = server.ask(&format!("HEAD {EVENTS} HTTP/1.1\r\nHost: t\r\n{token}\r\n"));
    assert_eq!((head.status, head.field("retry-after").as_deref()), (503, Some("5")), "{head:?}");
    let page = listen(&server, &format!("{token}Accept: text/event-stream\r\n"));
    assert_eq!((page.status, page.field("x-refused").as_deref()), (200, Some("keys_unavailable")), "{page:?}");
    assert!(page.text().contains("event: refused"), "{page:?}");
    let mut client = Http2::to(&server);
    for (target, body) in [(EVENTS, None), (BROADCAST, Some(EVENT.as_bytes()))] {
        let (head, body) = client.ask(over_http2(&token, target), body);
        assert_eq!((head.status.as_u16(), &head.headers["retry-after"]), (503, &"5".parse().expect("a value")));
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body["error"]["code"], "keys_unavailable", "{target}");
    }
    // What is wrong in any case is said at once.
    assert_eq!(listen(&server, "Authorization: Bearer a.b.c\r\n").json()["error"]["code"], "token_malformed");
    assert_eq!(listen(&server, "").json()["error"]["code"], "token_missing");

    let figures = key_figures(&server);
    assert_eq!(
        (&figures["keys"], &figures["source"], &figures["age_seconds"]),
        (&json!(0), &json!("none"), &json!(null))
    );
    assert!(
        figures["failed_fetches"].as_u64() > Some(0) && figures["failed_fetches"] == figures["fetches"],
        "{figures}"
    );
    assert_eq!(metric(&server, "fanfare_key_set_keys"), 0.0);
    assert_eq!(metric(&server, "fanfare_requests_refused_total{code=\"keys_unavailable\"}"), 6.0);

    let provider = Published::on(TcpListener::bind(address).expect("it is free again"));
    provider.give("200 OK", &key_set(&[&issuer]));
    wait_until_ready(&server);
    assert_readiness(&server, 200, "ready");
    assert_good(&server, &token);
    let mut stream = client.open(over_http2(&token, EVENTS));
    client.expect(&mut stream, "connected");
    let (head, _) = client.ask(over_http2(&token, BROADCAST), Some(EVENT.as_bytes()));
    assert_eq!(head.status, 200);
    assert_eq!(client.expect(&mut stream, "tick").n(), 7);
    assert_eq!(told(&server, "cannot be read"), 1, "once a minute: {}", server.log());
    assert_eq!(told(&server, "is good again"), 1, "{}", server.log());
    assert_eq!(key_figures(&server)["source"], "fetched");
    assert_eq!(metric(&server, "fanfare_key_set_source{source=\"fetched\"}"), 1.0);
}

#[test]
fn provider_that_answers_with_no_keys_is_as_one_that_is_away() {
    let issuer = issuer("k");
    let provider = Published::on(listener());
    for (status, body) in [
        ("500 Internal Server Error", &key_set(&[&issuer])[..]),
        ("200 OK", b"<html>"),
        ("200 OK", b"{}"),
        ("200 OK", b"{\"keys\":[]}"),
        ("200 OK", b"{\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAA\",\"kid\":\"k\"}]}"),
    ] {
        provider.give(status, body);
        let server = start(&provider.url, &[]);
        // The first fetch may still be under way: who asks meanwhile waits for it.
        assert_unavailable(&listen(&server, &bearer(&issuer)));
        assert_readiness(&server, 503, "no_keys");
    }
    let silent = listener();
    let server = start(&format!("http://{}/keys", silent.local_addr().expect("it is bound")), &[]);
    assert_unavailable(&listen(&server, &bearer(&issuer)));
    assert_readiness(&server, 503, "no_keys");
}

#[test]
fn broker_that_does_not_look_at_tokens_needs_no_keys() {
    let server = start("http://127.0.0.1:1/keys", &["--auth", "off"]);
    assert_readiness(&server, 200, "ready");
    assert!(server.stats().get("key_set").is_none());
}

#[test]
fn provider_that_goes_away_leaves_its_keys_and_an_unknown_one_is_bad_only_while_it_answers() {
    let (known, unknown) = (issuer("known"), issuer("unknown"));
    let provider = Published::on(listener());
    provider.give("200 OK", &key_set(&[&known]));
    let server = start(&provider.url, &[]);
    wait_until_ready(&server);
    let answer = listen(&server, &bearer(&unknown));
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (401, &json!("token_signer_unknown")), "{answer:?}");
    assert_eq!(publish(&server, &bearer(&unknown)).status, 401);

    provider.go_away();
    let refused = wait_for("the keys to be asked for in vain", || {
        let answer = listen(&server, &bearer(&unknown));
        (answer.status != 401).then_some(answer)
    });
    assert_unavailable(&refused);
    assert_unavailable(&publish(&server, &bearer(&unknown)));
    assert_readiness(&server, 200, "ready");
    assert_good(&server, &bearer(&known));
    assert_eq!(told(&server, "tokens are verified with the set that is held"), 1, "{}", server.log());
    let figures = key_figures(&server);
    assert_eq!((&figures["keys"], &figures["source"]), (&json!(1), &json!("fetched")), "{figures}");

    provider.give("200 OK", &key_set(&[&known, &unknown]));
    wait_until("the other key to come", || publish(&server, &bearer(&unknown)).status == 200);
    assert_good(&server, &bearer(&known));
}

// ---- with a cache

#[test]
fn cache_stands_in_for_a_provider_that_is_away_at_the_start() {
    let (first, second) = (issuer("first"), issuer("second"));
    let provider = Published::on(listener());
    provider.give("200 OK", &key_set(&[&first]));
    let folder = folder("stands-in");
    let path = folder.join("set.json");
    let flags = ["--jwks-cache", text(&path)];
    let server = start(&provider.url, &flags);
    wait_until_ready(&server);
    wait_until("the set to be kept", || path.exists());
    assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);

    // Keys that are rotated are kept too.
    provider.give("200 OK", &key_set(&[&second]));
    wait_until("the other key to come", || publish(&server, &bearer(&second)).status == 200);
    let kept = wait_for("the other key to be kept", || {
        let kept = fs::read_to_string(&path).expect("there is always a file");
        kept.contains("second").then_some(kept)
    });
    assert!(!kept.contains("first"), "{kept}");
    let names: Vec<_> =
        fs::read_dir(&folder).expect("it is there").map(|entry| entry.expect("a file").path()).collect();
    assert_eq!(names, std::slice::from_ref(&path), "nothing else is left there");
    assert_eq!(key_figures(&server)["failed_cache_writes"], 0);
    drop(server);

    let before = SystemTime::now() - Duration::from_secs(7200);
    File::open(&path).and_then(|file| file.set_modified(before)).expect("it is ours");
    let output = fanfare().args(["check", "--jwks", &provider.url, "--jwt-algorithms", "ES256"]).args(flags).output();
    let said = String::from_utf8(output.expect("it runs").stdout).expect("it is text");
    assert!(said.contains("1 key, 2h 00m old"), "{said}");

    provider.go_away();
    let server = start(&provider.url, &flags);
    wait_until_ready(&server);
    assert_good(&server, &bearer(&second));
    assert_unavailable(&listen(&server, &bearer(&first)));
    let figures = key_figures(&server);
    let age = figures["age_seconds"].as_u64().expect("it has an age");
    assert!((7200..7260).contains(&age) && figures["source"] == "cached" && figures["keys"] == 1, "{figures}");
    assert!(metric(&server, "fanfare_key_set_age_seconds") >= 7200.0);
    assert_eq!(metric(&server, "fanfare_key_set_source{source=\"cached\"}"), 1.0);
    assert_eq!(told(&server, "tokens are verified with the cached set"), 1, "{}", server.log());

    provider.give("200 OK", &key_set(&[&second]));
    wait_until("the provider to be asked again", || key_figures(&server)["source"] == "fetched");
    assert!(key_figures(&server)["age_seconds"].as_u64() < Some(60));
    wait_until("the file to tell that its set is of now", || {
        fs::metadata(&path).and_then(|file| file.modified()).expect("it has a time")
            > before + Duration::from_secs(7000)
    });
}

#[test]
fn cache_that_cannot_be_used_is_told_and_a_fetched_set_takes_its_place() {
    let issuer = issuer("k");
    let provider = Published::on(listener());
    let folder = folder("corrupt");
    let set = String::from_utf8(key_set(&[&issuer])).expect("it is text");
    let with_url = |url: &str| set.replacen('{', &format!("{{\"url\":{url:?},"), 1);
    let huge = format!("{}{}", with_url(&provider.url), " ".repeat(2 << 20));
    for (n, (content, why)) in [
        ("", "no key set"),
        ("{\"url\":", "no key set"),
        (&*set, "no key set"),
        (&format!("{{\"url\":{:?},\"keys\":{{}}}}", provider.url), "no JSON Web Key Set"),
        (&format!("{{\"url\":{:?},\"keys\":[]}}", provider.url), "no key to use"),
        (&with_url("https://elsewhere.example/keys"), "elsewhere.example"),
        (&huge, "bytes"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = folder.join(format!("{n}.json"));
        fs::write(&path, content).expect("there is room");
        provider.go_away();
        let server = start(&provider.url, &["--jwks-cache", text(&path)]);
        assert_unavailable(&listen(&server, &bearer(&issuer)));
        let log = server.log();
        let line = log.lines().find(|line| line.contains("--jwks-cache")).unwrap_or_else(|| panic!("{n}: {log}"));
        assert!(line.contains("WARN") && line.contains(text(&path)) && line.contains(why), "{why}: {line}");
        assert_readiness(&server, 503, "no_keys");

        provider.give("200 OK", set.as_bytes());
        wait_until_ready(&server);
        wait_until("a good set to be kept", || {
            fs::read_to_string(&path).is_ok_and(|kept| kept == with_url(&provider.url))
        });
    }
}

#[test]
fn cache_that_cannot_be_written_is_told_and_counted() {
    let issuer = issuer("k");
    let provider = Published::on(listener());
    let folder = folder("gone");
    let server = start(&provider.url, &["--jwks-cache", text(&folder.join("set.json"))]);
    fs::remove_dir_all(&folder).expect("it is empty");
    provider.give("200 OK", &key_set(&[&issuer]));
    wait_until_ready(&server);
    assert_good(&server, &bearer(&issuer));
    wait_until("the failure to be counted", || key_figures(&server)["failed_cache_writes"] == 1);
    assert_eq!(metric(&server, "fanfare_key_set_cache_failed_writes_total"), 1.0);
    assert_eq!(told(&server, "cannot be kept: --jwks-cache"), 1, "{}", server.log());
}

#[test]
fn cache_that_can_be_none_ends_the_start() {
    let folder = folder("none");
    let set = folder.join("set.json");
    fs::write(&set, key_set(&[&issuer("k")])).expect("there is room");
    let missing = folder.join("no/such/set.json");
    let url = "http://127.0.0.1:1/keys";
    for (flags, why) in [
        (&["--jwks", url, "--jwks-cache", text(&missing)][..], "there is no such directory; expected a file in"),
        (&["--jwks", url, "--jwks-cache", text(&folder)], "it is no file; expected a file in"),
        (&["--jwks", url, "--jwks-cache", "/"], "it is no file; expected a file in"),
        (&["--jwks", url, "--jwks-cache", ""], "--jwks-cache"),
        (&["--jwks", text(&set), "--jwt-algorithms", "ES256", "--jwks-cache", "x"], "expected --jwks with a URL"),
        (&["--jwks-cache", "x"], "expected --jwks with a URL"),
    ] {
        for command in ["serve", "check"] {
            let output = fanfare().arg(command).args(flags).output().expect("it runs");
            let said = String::from_utf8(output.stderr).expect("it is text");
            assert_eq!(output.status.code(), Some(64), "{flags:?}: {said}");
            assert!(said.contains("--jwks-cache") && said.contains(why), "{flags:?}: {said}");
        }
    }
}

#[test]
fn cache_is_explained_by_check() {
    let folder = folder("check");
    let path = folder.join("set.json");
    let check = |flags: &[&str]| {
        let output = fanfare().args(["check", "--jwks", "https://issuer.example/keys"]).args(flags).output();
        String::from_utf8(output.expect("it runs").stdout).expect("it is text")
    };
    let said = check(&[]);
    assert!(said.contains("https://issuer.example/keys") && said.contains("(--jwks-cache)"), "{said}");
    let said = check(&["--jwks-cache", text(&path)]);
    assert!(said.contains(text(&path)) && said.contains("nothing yet"), "{said}");
    fs::write(&path, "x").expect("there is room");
    let said = check(&["--jwks-cache", text(&path)]);
    assert!(said.contains(text(&path)) && said.contains("it is no key set that a broker has kept"), "{said}");
}
