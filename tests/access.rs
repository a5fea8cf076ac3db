//! Who may listen, who may publish, and over what: tokens, keys, grants, limits and operators, over sockets.

mod common;
#[path = "common/tokens.rs"]
#[allow(dead_code, reason = "of the issuers, only the one with a secret is needed here")]
mod issuer;

use std::collections::HashSet;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{Answer, BROADCAST, EVENTS, End, SILENCE, Server, Stream, fanfare, percent_encoded, wait_until};
use fanfare::auth::token::Algorithm;
use issuer::{Issuer, SECRET, hostile};
use serde_json::{Value, json};

/// A service's key, which may publish everything.
const KEY: &str = "a-key-of-the-wallet-service";
/// The operator's.
const ADMIN_KEY: &str = "an-operators-own-key";

const STREAMS: &str = "/api/v1/admin/streams";
const TOPICS: &str = "/api/v1/admin/topics";

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later").as_secs()
}

/// A token with these claims, good for an hour unless they say otherwise.
fn token(claims: Value) -> String {
    token_by(SECRET, claims)
}

fn token_by(secret: &str, mut claims: Value) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    if claims.get("exp").is_none() {
        claims["exp"] = json!(now_s() + 3600);
    }
    issuer::sign(&key, Algorithm::HS256, r#"{"alg":"HS256","typ":"JWT"}"#, &claims.to_string())
}

fn user(id: &str) -> String {
    token(json!({ "user_id": id }))
}

fn bearer(shown: &str) -> String {
    format!("Authorization: Bearer {shown}\r\n")
}

fn api_key(key: &str) -> String {
    format!("X-API-Key: {key}\r\n")
}

/// A broker with a secret for tokens, a service's key and an operator's.
fn start(flags: &[&str]) -> Server {
    start_with(flags, &[])
}

fn start_with(flags: &[&str], environment: &[(&str, &str)]) -> Server {
    let mut command = fanfare();
    command.args(["--listen", "127.0.0.1:0"]).args(flags).env("JWT_SECRET", SECRET);
    command.env("FANFARE_KEYS", format!("wallets:{KEY}")).env("FANFARE_ADMIN_KEY", ADMIN_KEY);
    command.envs(environment.iter().copied());
    Server::spawn(command)
}

/// A file in the build's own temporary directory.
fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("access-{}-{name}", std::process::id()));
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("the build's directory can be written to");
    std::fs::rename(&new, &path).expect("within one directory");
    path
}

/// A key's entry in a file of keys, with further lines.
fn entry(name: &str, key: &str, more: &str) -> String {
    let hash = Command::new("sh").args(["-c", "printf %s \"$0\" | sha256sum", key]).output().expect("there is a shell");
    let hash = String::from_utf8(hash.stdout).expect("it is text");
    format!("[[key]]\nname = {name:?}\nhash = \"sha256:{}\"\n{more}\n", &hash[..64])
}

fn request(method: &str, target: &str, lines: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: t\r\n{lines}\r\n")
}

/// Publishes a body of JSON with these header lines.
#[track_caller]
fn broadcast(server: &Server, lines: &str, body: &str) -> Answer {
    let length = body.len();
    let lines = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n{lines}");
    server.ask(&(request("POST", BROADCAST, &lines) + body))
}

/// Publishes number `n` by the service's key, with further keys in the envelope; gives its id.
#[track_caller]
fn tick(server: &Server, topic: &str, n: usize, more: &str) -> String {
    let body = format!("{{\"topic\":\"{topic}\",\"type\":\"tick\",\"data\":{{\"n\":{n}}}{more}}}");
    let answer = broadcast(server, &api_key(KEY), &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["id"].as_str().expect("an answer has an id").to_owned()
}

/// A request for a stream that is expected to be refused.
#[track_caller]
fn listen(server: &Server, query: &str, lines: &str) -> Answer {
    let mut refusal = Stream::open(server.connect(), query, lines);
    assert_ne!(refusal.head.status, 200, "a stream was opened: {query} {lines}");
    let length = refusal.head.field("content-length").and_then(|length| length.parse().ok());
    let length: usize = length.expect("a refusal has a length");
    while refusal.text.len() < length {
        assert!(
            refusal.next_within(SILENCE).is_none() && refusal.end().is_none(),
            "the body is cut off: {query} {lines}"
        );
    }
    Answer { body: refusal.text, ..refusal.head }
}

/// Checks a refusal's status, code, and what its message names.
#[track_caller]
fn assert_refused(answer: &Answer, status: u16, code: &str, names: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let json = answer.json();
    let (error, keys) = (&json["error"], json.as_object().expect("an object"));
    assert_eq!((&json["success"], keys.len()), (&json!(false), 2), "{answer:?}");
    assert_eq!(error["code"], code, "{answer:?}");
    assert!(error["message"].as_str().is_some_and(|message| message.contains(names)), "{names} in {answer:?}");
    let challenge = answer.field("www-authenticate");
    assert_eq!(challenge.is_some(), matches!(status, 401) || code == "token_repeated", "{answer:?}");
}

// ---- listening

#[test]
fn who_needs_a_token_follows_from_the_mode() {
    let ann = user("ann");
    // Off, though there is a secret: a token is not looked at.
    let server = start(&["--auth", "off"]);
    let mut anybody = server.stream("topics=w");
    let mut wrong = server.stream_with("topics=w", &bearer("a.b.c"));
    tick(&server, "w", 0, r#","user_id":"ann""#);
    assert_eq!((anybody.numbers(1), wrong.numbers(1)), (vec![0], vec![0]));

    let server = start(&["--auth", "optional", "--auth-cookie", "session"]);
    let mut stranger = server.stream("topics=w");
    let mut other_scheme = server.stream_with("topics=w", "Authorization: Basic dTpw\r\n");
    let mut known = server.stream_with("topics=w", &bearer(&ann));
    tick(&server, "w", 0, r#","user_id":"ann""#);
    tick(&server, "w", 1, "");
    assert_eq!((stranger.numbers(1), other_scheme.numbers(1)), (vec![1], vec![1]), "what belongs to nobody");
    assert_eq!(known.numbers(2), [0, 1]);
    // One that is there must be good, wherever it is and however bad.
    for lines in [
        bearer("a.b.c"),
        bearer("nothing-like-it"),
        bearer(""),
        "Authorization: Bearer\r\n".to_owned(),
        "Authorization: bearer \u{e9}\r\n".to_owned(),
        api_key("x"),
        "X-API-Key: \u{e9}\r\n".to_owned(),
        "Cookie: session=x\r\n".to_owned(),
        "Cookie: session=\u{e9}\r\n".to_owned(),
        bearer(&token(json!({"user_id": "ann", "exp": now_s() - 3600}))),
    ] {
        let answer = listen(&server, "topics=w", &lines);
        assert_eq!(answer.status, 401, "{lines:?}: {answer:?}");
    }
    for query in ["access_token=", "access_token=x", "access_token=%ff", "%61ccess_token=x"] {
        assert_refused(&listen(&server, query, ""), 401, "token_malformed", "cannot be read");
    }
    assert_refused(&listen(&server, "user_id=ann", ""), 403, "forbidden", "token");

    // With a secret and no mode, everybody needs one.
    let server = start(&[]);
    assert_refused(&listen(&server, "topics=w", ""), 401, "token_missing", "needed");
    assert_eq!(listen(&server, "topics=w", "").field("www-authenticate").as_deref(), Some("Bearer realm=\"fanfare\""));
    assert_eq!(server.ask(&request("HEAD", EVENTS, "")).status, 401);
    assert_eq!(server.ask(&request("HEAD", EVENTS, &bearer(&ann))).status, 200);
    server.stream_with("", &bearer(&ann));
    assert_eq!(server.stat("/problems/token_missing"), 3, "{}", server.stats());
}

#[test]
fn a_token_comes_in_a_header_the_query_or_the_cookie() {
    let server = start(&["--auth-cookie", "session"]);
    let (ann, bob) = (user("ann"), user("bob"));
    let other = percent_encoded(&bob);
    let cookies = [
        format!("Cookie: session={ann}\r\n"),
        format!("Cookie: session=\"{ann}\"\r\n"),
        format!("Cookie: session2={bob}; xsession={bob}; session={ann}; sessio={bob}\r\n"),
        // Other cookies may hold what they like, in lines of their own or not.
        format!("Cookie: name=J\u{f6}rg; session={ann}\r\nCookie: theme=dark\r\n"),
        format!("Cookie: Session={bob}\r\nCookie: session={ann}\r\n"),
    ];
    let mut streams: Vec<Stream> = cookies.iter().map(|lines| server.stream_with("", lines)).collect();
    for lines in
        [bearer(&ann), format!("authorization: bearer   {ann} \r\n"), format!("AUTHORIZATION: BEARER {ann}\r\n")]
    {
        streams.push(server.stream_with("", &lines));
    }
    for name in ["access_token", "%61ccess%5Ftoken"] {
        streams.push(server.stream(&format!("{name}={ann}")));
        streams.push(server.stream(&format!("topics=w&{name}={}", percent_encoded(&ann))));
    }
    // A cookie is sent whether its page wants it or not: who is named otherwise is meant.
    streams.push(server.stream_with("", &(bearer(&ann) + &format!("Cookie: session={bob}\r\n"))));
    streams.push(server.stream_with(&format!("access_token={ann}"), &format!("Cookie: session={bob}\r\n")));
    tick(&server, "w", 0, r#","user_id":"bob""#);
    tick(&server, "w", 1, r#","user_id":"ann""#);
    for stream in &mut streams {
        assert_eq!(stream.numbers(1), [1]);
    }
    for lines in ["session2", "xsession", "Session", " session ", "sessio", "session.x"] {
        let answer = listen(&server, "", &format!("Cookie: {lines}={ann}\r\n"));
        assert_refused(&answer, 401, "token_missing", "needed");
    }
    assert_refused(&listen(&server, "", "Cookie: session=; a=b\r\n"), 401, "token_missing", "needed");
    // Two tokens: nobody knows which of them somebody in front has looked at (RFC 6750, section 2).
    for (query, lines) in [
        (format!("access_token={ann}"), bearer(&ann)),
        (format!("access_token={other}"), bearer(&ann)),
        (format!("access_token={ann}&access_token={ann}"), String::new()),
        (format!("access_token={ann}&topics=w&access_token={other}"), String::new()),
        (String::new(), bearer(&ann) + &bearer(&bob)),
        (String::new(), bearer(&ann) + "Authorization: Basic dTpw\r\n"),
    ] {
        assert_refused(&listen(&server, &query, &lines), 400, "token_repeated", "more than one");
    }
    // A key is no token: not in an address, which is kept in histories and logs, nor in a cookie.
    assert_refused(&listen(&server, &format!("access_token={ADMIN_KEY}"), ""), 401, "token_malformed", "");
    assert_refused(&listen(&server, "", &format!("Cookie: session={ADMIN_KEY}\r\n")), 401, "token_malformed", "");
    assert_refused(&listen(&server, "", &api_key(&ann)), 401, "key_unknown", "no such key");
}

/// Events of everybody on two topics, as number, topic, and whose they are.
const EVENTS_OF_ALL: [(usize, &str, &str); 8] = [
    (0, "wallets.1", ""),
    (1, "wallets.1", r#","user_id":"ann""#),
    (2, "wallets.2", r#","user_id":"bob""#),
    (3, "wallets.2", r#","user_ids":["ann","bob"]"#),
    (4, "users", r#","user_id":7"#),
    (5, "users", ""),
    (6, "users", r#","user_id":"ann ""#),
    (7, "all", r#","user_id":"ann""#),
];

/// Checks what a listener gets, live and by every way of replaying.
#[track_caller]
fn assert_sees(server: &Server, live: &mut Stream, lines: &str, query: &str, start: &str, expected: &[usize]) {
    let count = expected.len();
    assert_eq!(live.numbers(count), expected, "live: {query}");
    live.expect_nothing();
    let resume = format!("{lines}Last-Event-ID: {start}\r\n");
    let mut replays = vec![
        server.stream_with(query, &resume),
        server.stream_with(&format!("{query}&last_event_id={start}"), lines),
        server.stream_with(&format!("{query}&since=1h"), lines),
        server.stream_with(&format!("{query}&last=1000"), lines),
    ];
    for replay in &mut replays {
        assert_eq!(replay.numbers(count), expected, "replayed: {query}");
    }
    // The last few of what it may see, and not what it may see of the last few.
    let newest = &expected[count - 2..];
    assert_eq!(server.stream_with(&format!("{query}&last=2"), lines).numbers(2), newest, "last=2: {query}");
    replays.iter_mut().for_each(Stream::expect_nothing);
}

#[test]
fn a_listener_sees_what_is_public_and_their_own_live_and_replayed() {
    let server = start(&["--all-seeing-roles", "auditor,admin"]);
    let first = tick(&server, "elsewhere", 99, r#","user_id":"nobody""#);
    let role = |roles: Value| bearer(&token(json!({"user_id": "ann", "roles": roles})));
    let everything: Vec<usize> = (0..EVENTS_OF_ALL.len()).collect();
    let cases: Vec<(String, &str, Vec<usize>)> = vec![
        (bearer(&user("ann")), "topics=all", vec![0, 1, 3, 5, 7]),
        (bearer(&user("ann")), "topics=wallets.*", vec![0, 1, 3]),
        (bearer(&user("bob")), "topics=wallets.1,wallets.2,users", vec![0, 2, 3, 5]),
        (bearer(&user("ann")), "topics=all&user_id=ann", vec![1, 3, 7]),
        (bearer(&token(json!({"sub": "7"}))), "topics=users", vec![4, 5]),
        (bearer(&token(json!({"user_id": 7, "sub": "ann"}))), "topics=all", vec![0, 4, 5]),
        (bearer(&user("7")), "topics=all", vec![0, 4, 5]),
        (bearer(&user("ann ")), "topics=all", vec![0, 5, 6]),
        (bearer(&user("Ann")), "topics=all", vec![0, 5]),
        // A token that names nobody.
        (bearer(&token(json!({}))), "topics=all", vec![0, 5]),
        (bearer(&token(json!({"user_id": "", "sub": ""}))), "topics=all", vec![0, 5]),
        (role(json!(["user", "administrator", "Admin"])), "topics=all", vec![0, 1, 3, 5, 7]),
        (role(json!(["user", "auditor"])), "topics=all", everything.clone()),
        (role(json!(["admin"])), "topics=all&user_id=bob", vec![2, 3]),
        (bearer(ADMIN_KEY), "topics=all", everything.clone()),
        (api_key(ADMIN_KEY), "topics=all&user_id=ann%20&user_id=bob", vec![2, 3]),
    ];
    let mut live: Vec<Stream> = cases.iter().map(|(lines, query, _)| server.stream_with(query, lines)).collect();
    for (n, topic, more) in EVENTS_OF_ALL {
        tick(&server, topic, n, more);
    }
    for ((lines, query, expected), live) in cases.iter().zip(&mut live) {
        if query.contains("all") && expected.len() == everything.len() {
            // These see the one before, too.
            assert_eq!(live.numbers(expected.len()), *expected);
            let mut replay = server.stream_with(&format!("{query}&last_event_id={first}"), lines);
            assert_eq!(replay.numbers(expected.len()), *expected);
        } else {
            assert_sees(&server, live, lines, query, &first, expected);
        }
    }
}

#[test]
fn a_listener_is_told_of_no_gap_for_what_was_not_theirs() {
    let server = start(&["--auth", "optional", "--topic-events", "50", "--live-events", "1", "--heartbeat", "100ms"]);
    let ann = bearer(&user("ann"));
    let mut stream = server.stream_with("topics=w", &ann);
    let mut place = String::new();
    for round in 0..3 {
        for n in 0..40 {
            place = tick(&server, "w", n, r#","user_id":"bob""#);
        }
        let told = (0..20).map(|_| stream.next_any()).find(|event| event.last_event_id == place);
        assert_eq!(told.map(|event| event.kind).as_deref(), Some("heartbeat"), "round {round}");
    }
    drop(stream);
    let own = tick(&server, "w", 7, r#","user_id":"ann""#);
    let mut stream = server.stream_with(&format!("topics=w&last_event_id={place}"), &ann);
    assert_eq!(stream.expect("tick").id, Some(own));
}

#[test]
fn nobody_asks_for_another_users_events() {
    let server = start(&[]);
    let ann = bearer(&user("a+b"));
    for query in ["user_id=bob", "user_id=a+b", "user_id=a%2bB", "user_id=a%2Bb&user_id=bob", "user_id=a%2Bb%00"] {
        assert_refused(&listen(&server, query, &ann), 403, "forbidden", "not that user's");
        assert_eq!(server.ask(&request("HEAD", &format!("{EVENTS}?{query}"), &ann)).status, 403, "{query}");
    }
    let nobody = bearer(&token(json!({"roles": ["user"]})));
    assert_refused(&listen(&server, "user_id=bob", &nobody), 403, "forbidden", "not that user's");
    let many = (0..500).map(|n| format!("user_id={n}&")).collect::<String>();
    assert_refused(&listen(&server, &many, &ann), 403, "forbidden", "not that user's");
    let mut own = server.stream_with(&(many + "user_id=a%2Bb"), &ann);
    tick(&server, "w", 0, r#","user_id":"a b""#);
    tick(&server, "w", 1, r#","user_id":"a+b""#);
    tick(&server, "w", 2, "");
    tick(&server, "w", 3, r#","user_id":"a+b""#);
    assert_eq!(own.numbers(2), [1, 3]);
    assert_eq!(server.stat("/problems/forbidden"), 12);
}

#[test]
fn a_listener_gets_the_topics_that_were_granted() {
    let server = start(&["--topic-events", "3", "--live-events", "1"]);
    let grants = |listen: Value| bearer(&token(json!({"user_id": "ann", "fanfare": {"listen": listen}})));
    let some = grants(json!(["wallets.eu.*", "news"]));
    let start = tick(&server, "news", 0, "");
    let mut live: Vec<Stream> = ["", "topics=all", "topics=*", "topics=all,news,all,wallets.eu.7&topics=*"]
        .iter()
        .map(|query| server.stream_with(query, &some))
        .collect();
    let mut exact = server.stream_with("topics=wallets.eu.7", &some);
    let mut permitted = server.stream_with(
        "topics=all",
        &bearer(&token(json!({"permissions": ["wallets:read", "events:listen:wallets.eu.*", "events:publish:*"]}))),
    );
    let topics = ["wallets.eu.7", "wallets.us.1", "news", "newsx", "all", "wallets.eu", "wallets.eu.x.y", "secret"];
    for (n, topic) in topics.into_iter().enumerate() {
        tick(&server, topic, n + 1, "");
    }
    live.push(server.stream_with(&format!("last_event_id={start}"), &some));
    live.push(server.stream_with("topics=all&last=3", &some));
    for stream in &mut live {
        assert_eq!(stream.numbers(3), [1, 3, 7]);
        stream.expect_nothing();
    }
    assert_eq!(exact.numbers(1), [1]);
    assert_eq!(permitted.numbers(2), [1, 7]);
    for (query, topic) in [
        ("topics=secret", "secret"),
        ("topics=news,secret", "secret"),
        ("topics=all,secret", "secret"),
        ("topics=wallets.*", "wallets.*"),
        ("topics=wallets.eu", "wallets.eu"),
        ("topics=wallets.euro.1", "wallets.euro.1"),
        ("topics=news.*", "news.*"),
    ] {
        assert_refused(&listen(&server, query, &some), 403, "forbidden", topic);
        assert_eq!(server.ask(&request("HEAD", &format!("{EVENTS}?{query}"), &some)).status, 403, "{query}");
    }
    assert_refused(&listen(&server, "", &grants(json!([]))), 403, "forbidden", "no topic");
    assert_refused(&listen(&server, "", &api_key(KEY)), 403, "forbidden", "no topic");

    // What was lost elsewhere is nobody's business here.
    for n in 0..20 {
        tick(&server, "secret", n, "");
        tick(&server, "wallets.us.1", n, "");
    }
    let mut stream = server.stream_with(&format!("last_event_id={start}"), &some);
    assert_eq!(stream.numbers(3), [1, 3, 7], "no gap");
    for n in 10..20 {
        tick(&server, "news", n, "");
    }
    let mut stream = server.stream_with(&format!("topics=news&last_event_id={start}"), &some);
    stream.expect("gap");
}

// ---- the end of a token

#[test]
fn a_stream_ends_cleanly_with_its_token() {
    let server = start(&["--jwt-leeway", "0s"]);
    let exp = now_s() + 3;
    let short = bearer(&token(json!({"user_id": "ann", "exp": exp})));
    let mut quiet = server.stream_with("topics=quiet", &short);
    let mut busy = server.stream_with("topics=w", &short);
    let mut replays = server.stream_with("topics=w&since=1h", &short);
    let mut other = server.stream_with("topics=w", &bearer(&user("ann")));
    let mut n = 0;
    while now_s() <= exp {
        tick(&server, "w", n, "");
        n += 1;
        sleep(Duration::from_millis(20));
    }
    wait_until("the streams' ends", || server.stat("/streams/closed/token_expired") == 3);
    tick(&server, "w", n, "");
    let (events, end) = quiet.read_to_end();
    assert_eq!((events.len(), end), (0, End::Clean));
    for stream in [&mut busy, &mut replays] {
        let (events, end) = stream.read_to_end();
        assert_eq!(end, End::Clean);
        assert!(events.len() > 50 && events.len() <= n, "{} of {n}", events.len());
        assert!(events.iter().enumerate().all(|(n, event)| event.n() == n), "in order, none left out");
    }
    assert_eq!(other.numbers(n + 1), (0..=n).collect::<Vec<_>>(), "one that is good goes on");
    assert_refused(&listen(&server, "", &short), 401, "token_expired", "expired");
    server.wait_for_clients(1);
}

#[test]
fn one_that_does_not_read_ends_with_its_token_too() {
    let server = start(&["--jwt-leeway", "0s", "--send-buffer", "16KiB", "--stall-timeout", "5s"]);
    let exp = now_s() + 4;
    let short = bearer(&token(json!({"user_id": "ann", "exp": exp})));
    let mut slow = server.stream_with("topics=w", &short);
    let never = server.stream_with("topics=w", &short);
    let filling = format!(",\"data\":{{\"n\":0,\"a\":\"{}\"}}", "x".repeat(500_000));
    let mut published = 0;
    while server.stat("/streams/stalls") < 2 {
        let body = format!("{{\"topic\":\"w\",\"type\":\"tick\"{filling}}}");
        assert_eq!(broadcast(&server, &api_key(KEY), &body).status, 200);
        published += 1;
        assert!(published < 100, "50 MB went into sockets that nobody reads");
    }
    let body = format!("{{\"topic\":\"w\",\"type\":\"tick\"{filling}}}");
    assert_eq!(broadcast(&server, &api_key(KEY), &body).status, 200);
    while now_s() <= exp {
        sleep(Duration::from_millis(20));
    }
    tick(&server, "w", 1, "");
    let (events, end) = slow.read_to_end();
    assert_eq!(end, End::Clean, "the frame that was begun is whole");
    assert!(events.len() <= published, "{} of {published}: nothing begins after the end", events.len());
    wait_until("its end to be counted", || server.stat("/streams/closed/token_expired") == 1);
    // The other takes nothing, not even its end: it goes as any that stalls.
    server.wait_for_clients(0);
    drop(never);
}

#[test]
fn the_secret_before_counts_until_its_end() {
    const OLD: &str = "the secret before this one, of more than 32 bytes";
    let old = bearer(&token_by(OLD, json!({"user_id": "ann"})));
    let until = jiff::Timestamp::from_second(now_s() as i64 + 3).expect("a moment").to_string();
    let server = start_with(&["--jwt-previous-until", &until], &[("FANFARE_JWT_PREVIOUS_SECRET", OLD)]);
    let mut stream = server.stream_with("", &old);
    server.stream_with("", &bearer(&user("ann")));
    wait_until("the old secret's end", || server.ask(&request("HEAD", EVENTS, &old)).status == 401);
    assert_refused(&listen(&server, "", &old), 401, "token_untrusted", "trusted");
    server.stream_with("", &bearer(&user("ann")));
    // Who was let in stays: the token is good for as long as it says.
    tick(&server, "w", 0, r#","user_id":"ann""#);
    assert_eq!(stream.numbers(1), [0]);
    let server = start(&[]);
    assert_refused(&listen(&server, "", &old), 401, "token_untrusted", "trusted");
}

// ---- publishing

/// A broker with keys of several kinds in a file.
fn start_with_keys(name: &str, flags: &[&str]) -> (Server, PathBuf) {
    let keys = entry("some", "the-key-for-some-topics", "publish = [\"wallets.*\", \"news\"]")
        + &entry("none", "the-key-for-no-topic", "")
        + &entry("slow", "the-key-with-a-rate", "publish = [\"all\"]\nrate = 1\nburst = 3");
    let keys = file(name, &keys);
    let server = start(&[&["--keys-file", keys.to_str().expect("it is text")], flags].concat());
    (server, keys)
}

#[test]
fn who_publishes_shows_a_key_or_a_token_with_grants() {
    let (server, _) = start_with_keys("publish.toml", &[]);
    let mut stream = server.stream_with("", &bearer(ADMIN_KEY));
    let event = |topic: &str| format!("{{\"topic\":\"{topic}\",\"type\":\"k\"}}");
    let may = token(json!({"user_id": "ann", "fanfare": {"publish": ["wallets.*"]}}));
    let permitted = token(json!({"permissions": ["events:publish:news"]}));
    let some = "the-key-for-some-topics";
    for (lines, topic) in [
        (api_key(KEY), "anything"),
        (bearer(KEY), "all"),
        (api_key(ADMIN_KEY), "anything"),
        (api_key(some), "wallets.1"),
        (bearer(some), "news"),
        (bearer(&may), "wallets.1"),
        (bearer(&permitted), "news"),
        // A key beside somebody's token: a service passes on what it was sent.
        (api_key(KEY) + &bearer(&may), "anything"),
    ] {
        let answer = broadcast(&server, &lines, &event(topic));
        assert_eq!(answer.status, 200, "{topic}: {answer:?}");
        assert_eq!(stream.expect("k").json()["topic"], topic);
    }
    for (lines, topic) in [
        (api_key(some), "wallets"),
        (api_key(some), "wallet.1"),
        (api_key(some), "wallets."),
        (api_key(some), "newsx"),
        (api_key(some), "all"),
        (api_key("the-key-for-no-topic"), "news"),
        (bearer(&may), "news"),
        (bearer(&permitted), "wallets.1"),
        (bearer(&user("ann")), "news"),
        (bearer(&token(json!({"user_id": "ann", "roles": ["admin"]}))), "news"),
    ] {
        assert_refused(&broadcast(&server, &lines, &event(topic)), 403, "forbidden", &format!("\"{topic}\""));
    }
    let key = api_key(some);
    // What names no topic goes to all of them.
    assert_refused(&broadcast(&server, &key, "{}"), 403, "forbidden", "\"all\"");
    let by_query = |topic: &str| {
        server.ask(&request(
            "POST",
            &format!("{BROADCAST}?topic={topic}&type=k"),
            &format!("Content-Length: 0\r\n{key}"),
        ))
    };
    assert_refused(&by_query("other"), 403, "forbidden", "\"other\"");
    assert_eq!(by_query("news").status, 200);
    stream.expect("k");

    let good = event("news");
    for (lines, code) in [
        (String::new(), "token_missing"),
        ("Authorization: Basic dTpw\r\n".to_owned(), "token_missing"),
        (api_key("nobodys-key-at-all"), "key_unknown"),
        (bearer("nobodys-key-at-all"), "key_unknown"),
        (api_key(""), "key_unknown"),
        (api_key(&format!("{KEY}x")), "key_unknown"),
        (api_key(&may), "key_unknown"),
        ("X-API-Key: wallets\r\n".to_owned(), "key_unknown"),
        (bearer(&token_by("another secret", json!({}))), "token_untrusted"),
        // Neither is sent by a page that means to publish.
        (format!("Cookie: access_token={may}\r\n"), "token_missing"),
    ] {
        assert_refused(&broadcast(&server, &lines, &good), 401, code, "");
    }
    let answer = server.ask(&request(
        "POST",
        &format!("{BROADCAST}?topic=wallets.1&access_token={may}&api_key={KEY}"),
        "Content-Length: 0\r\n",
    ));
    assert_refused(&answer, 401, "token_missing", "needed");
    for lines in [api_key(KEY) + &api_key(KEY), bearer(KEY) + &bearer(KEY), bearer(&may) + &bearer("x")] {
        assert_refused(&broadcast(&server, &lines, &good), 400, "token_repeated", "more than one");
    }
    stream.expect_nothing();
    assert_eq!(server.stat("/events"), 9);
    assert_eq!(server.stat("/problems/key_unknown"), 6);
    assert_eq!(server.stat("/problems/forbidden"), 12);
}

#[test]
fn of_a_batch_with_one_topic_too_many_nothing_is_published() {
    let (server, _) = start_with_keys("batch.toml", &[]);
    let key = api_key("the-key-for-some-topics");
    let event = |topic: &str| format!("{{\"topic\":\"{topic}\",\"type\":\"k\"}}");
    let body = format!("[{},{},{}]", event("news"), event("secret"), event("wallets.1"));
    assert_refused(&broadcast(&server, &key, &body), 403, "forbidden", "\"secret\"");
    let lines = format!("{}\n{}\n", event("news"), event("secret"));
    let length = lines.len();
    let head = format!("Content-Type: application/x-ndjson\r\nContent-Length: {length}\r\nIdempotency-Key: a\r\n{key}");
    let ndjson = request("POST", BROADCAST, &head) + &lines;
    assert_refused(&server.ask(&ndjson), 403, "forbidden", "\"secret\"");
    assert_eq!(server.stat("/events"), 0);
    assert_eq!(server.stat("/idempotency/keys"), 0, "and it may be tried again");
}

#[test]
fn publishers_of_one_name_keep_their_idempotency_keys_apart() {
    let server = start(&[]);
    let mut stream = server.stream_with("", &bearer(ADMIN_KEY));
    let grants = json!({"publish": ["all"]});
    // A user, and a token without a user, that are called as the key is.
    let user = bearer(&token(json!({"user_id": "wallets", "fanfare": grants})));
    let token = bearer(&token(json!({"jti": "wallets", "fanfare": grants})));
    let body = "{\"topic\":\"w\",\"type\":\"k\",\"id\":\"order-1\"}";
    let mut ids = HashSet::new();
    for publisher in [&user, &token, &api_key(KEY)] {
        let first = broadcast(&server, publisher, body);
        assert_eq!((first.status, first.field("idempotent-replayed")), (200, None), "{first:?}");
        stream.expect("k");
        let again = broadcast(&server, publisher, body);
        assert_eq!(again.body, first.body, "its own repeat");
        ids.insert(first.json()["id"].to_string());
    }
    assert_eq!(ids.len(), 3);
    stream.expect_nothing();
    // One key, in either header.
    assert_eq!(broadcast(&server, &bearer(KEY), body).field("idempotent-replayed").as_deref(), Some("true"));
}

#[test]
fn where_all_keys_were_taken_back_nobody_publishes() {
    let keys = file("revoked.toml", &entry("svc", "a-key-that-is-taken-back", "publish = [\"all\"]"));
    let server = Server::start(&["--keys-file", keys.to_str().expect("it is text")]);
    let key = api_key("a-key-that-is-taken-back");
    assert_eq!(broadcast(&server, &key, "{}").status, 200);
    file("revoked.toml", "");
    wait_until("the key to be taken back", || broadcast(&server, &key, "{}").status == 401);
    assert_refused(&broadcast(&server, "", "{}"), 401, "token_missing", "needed");
    let server = Server::start(&["--keys-file", keys.to_str().expect("it is text")]);
    assert_refused(&broadcast(&server, "", "{}"), 401, "token_missing", "needed");
}

// ---- limits

#[test]
fn past_its_rate_a_key_is_told_when_to_come_again() {
    let (server, _) = start_with_keys("rates.toml", &[]);
    let key = api_key("the-key-with-a-rate");
    let mut left = Vec::new();
    let refused = loop {
        let answer = broadcast(&server, &key, "{}");
        if answer.status == 429 {
            break answer;
        }
        assert_eq!((answer.status, answer.field("x-ratelimit-limit").as_deref()), (200, Some("3")), "{answer:?}");
        left.push(answer.field("x-ratelimit-remaining").expect("it is told"));
        assert!(left.len() < 20, "{left:?}");
    };
    assert_eq!(left[..3], ["2", "1", "0"]);
    let body =
        r#"{"success":false,"error":"rate limit exceeded","message":"Too many requests. Please try again later."}"#;
    assert_eq!(refused.text(), body);
    for (name, value) in [
        ("retry-after", "1"),
        ("x-ratelimit-limit", "3"),
        ("x-ratelimit-remaining", "0"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(refused.field(name).as_deref(), Some(value), "{refused:?}");
    }
    let reset: u64 = refused.field("x-ratelimit-reset").and_then(|at| at.parse().ok()).expect("a moment");
    assert!((now_s()..=now_s() + 4).contains(&reset), "{reset}");
    assert_eq!(server.stat("/limits/refused_publishes_key"), 1);
    assert_eq!(server.stat("/problems/rate_limited"), 1);
    // Others are not held up, and it may go on after a while.
    assert_eq!(broadcast(&server, &api_key(KEY), "{}").status, 200);
    sleep(Duration::from_millis(1_100));
    assert_eq!(broadcast(&server, &key, "{}").status, 200);
}

/// A header line that a proxy adds.
fn forwarded_for(address: &str) -> String {
    format!("X-Forwarded-For: {address}\r\n")
}

#[test]
fn addresses_have_a_rate_behind_a_trusted_proxy_too() {
    let flags = ["--publish-rate", "1", "--limit-loopback", "true"];
    let proxied = start(&[&flags[..], &["--trusted-proxies", "127.0.0.1/32"]].concat());
    let may = bearer(&token(json!({"user_id": "ann", "fanfare": {"publish": ["all"]}})));
    let count = |server: &Server, lines: &str| {
        let statuses: Vec<u16> = (0..10).map(|_| broadcast(server, lines, "{}").status).collect();
        statuses.iter().filter(|status| **status != 429).count()
    };
    // A little may come back meanwhile.
    for client in ["192.0.2.1", "192.0.2.2", "spoofed, 192.0.2.3", "192.0.2.1, 192.0.2.4"] {
        let taken = count(&proxied, &(may.clone() + &forwarded_for(client)));
        assert!((2..=4).contains(&taken), "{client}: {taken}");
    }
    // Guesses count as much; of another address than those above.
    let taken = count(&proxied, &(api_key("a-guess-at-a-key") + &forwarded_for("192.0.2.9")));
    assert!((2..=4).contains(&taken), "{taken}");
    assert!(proxied.stat("/limits/refused_publishes_address") >= 25);
    // Keys have rates of their own.
    assert_eq!(count(&proxied, &(api_key(KEY) + &forwarded_for("192.0.2.1"))), 10);

    // Nobody is believed who is not trusted: these are all one client.
    let direct = start(&flags);
    let taken: usize = (0..10)
        .filter(|n| broadcast(&direct, &(may.clone() + &forwarded_for(&format!("192.0.2.{n}"))), "{}").status == 200)
        .count();
    assert!((2..=4).contains(&taken), "{taken}");
    // This machine's own are exempt unless it is set otherwise.
    let exempt = start(&flags[..2]);
    assert_eq!(count(&exempt, &may), 10);
}

#[test]
fn users_and_addresses_hold_so_many_streams() {
    let server = start(&[
        "--streams-per-user=2",
        "--streams-per-address=4",
        "--limit-loopback=true",
        "--trusted-proxies=127.0.0.1/32",
    ]);
    let at = |id: &str, address: &str| bearer(&user(id)) + &forwarded_for(address);
    let first = server.stream_with("", &at("ann", "192.0.2.1"));
    let _second = server.stream_with("", &bearer(&token(json!({"sub": "ann"}))));
    let refused = listen(&server, "", &at("ann", "192.0.2.7"));
    assert_refused(&refused, 429, "too_many_streams_of_user", "2");
    assert!(refused.field("retry-after").is_some(), "{refused:?}");
    assert_eq!(server.ask(&request("HEAD", EVENTS, &at("ann", "192.0.2.7"))).status, 200, "a probe holds nothing");
    let _others: Vec<Stream> = (0..3).map(|n| server.stream_with("", &at(&format!("u{n}"), "192.0.2.1"))).collect();
    let refused = listen(&server, "", &at("bob", "192.0.2.1"));
    assert_refused(&refused, 429, "too_many_streams_of_address", "4");
    let _bob = server.stream_with("", &at("bob", "192.0.2.2"));
    assert_eq!(server.stat("/limits/refused_streams_user"), 1);
    assert_eq!(server.stat("/limits/refused_streams_address"), 1);
    assert_eq!(server.stat("/problems/too_many_streams_of_user"), 1);
    // What ends gives its place back.
    first.conn.half_close();
    drop(first);
    wait_until("a place", || server.stat("/connected_clients") == 5);
    let _again = server.stream_with("", &at("ann", "192.0.2.1"));
}

#[test]
fn an_address_makes_so_many_connections_a_second() {
    let server = start(&["--connections-per-second", "2", "--limit-loopback", "true"]);
    // A burst of four times as many; the next is one too many.
    let health = "GET /health HTTP/1.1\r\nHost: t\r\n\r\n";
    let refused = (0..30).map(|_| server.ask(health)).find(|answer| answer.status != 200).expect("one is refused");
    assert_refused(&refused, 429, "too_many_connections_of_address", "this address");
    assert_eq!(refused.field("connection").as_deref(), Some("close"), "{refused:?}");
    // A page comes back instead of giving up.
    let refused = server.ask(&format!("GET {EVENTS} HTTP/1.1\r\nHost: t\r\nAccept: text/event-stream\r\n\r\n"));
    assert_eq!((refused.status, refused.field("x-refused").as_deref()), (200, Some("too_many_connections_of_address")));
    // Who says nothing is closed, and not held.
    let mut silent = server.connect();
    assert_eq!(silent.drain(), b"");
    sleep(Duration::from_secs(2));
    assert!(server.stat("/limits/refused_connections") >= 1);
}

// ---- operators

#[test]
fn operators_are_asked_for_their_key() {
    let (server, _) = start_with_keys("admin.toml", &[]);
    let all_seeing = token(json!({"user_id": "root", "roles": ["admin"], "fanfare": {"publish": ["all"]}}));
    for (method, path) in [("GET", STREAMS), ("DELETE", STREAMS), ("GET", TOPICS), ("HEAD", TOPICS)] {
        let ask = |lines: &str| server.ask(&request(method, path, lines));
        let refused = |answer: &Answer, status: u16| assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        refused(&ask(""), 401);
        refused(&ask(&api_key("nobodys-key-at-all")), 401);
        refused(&ask(&bearer(&all_seeing)), 401);
        refused(&ask(&format!("Cookie: session={ADMIN_KEY}\r\n")), 401);
        refused(
            &server.ask(&request(method, &format!("{path}?access_token={ADMIN_KEY}&api_key={ADMIN_KEY}"), "")),
            401,
        );
        refused(&ask(&(api_key(KEY) + &bearer(ADMIN_KEY))), 403);
        refused(&ask(&api_key(KEY)), 403);
    }
    assert_eq!(server.ask(&request("GET", STREAMS, &bearer(ADMIN_KEY))).status, 200);
    let asked = server.ask(&request("DELETE", TOPICS, &bearer(ADMIN_KEY)));
    assert_eq!((asked.status, asked.field("allow").as_deref()), (405, Some("GET, HEAD, OPTIONS")));
    // Without a key that makes one there are no operators, whatever is shown.
    let server = Server::start(&[]);
    for lines in ["", &api_key(ADMIN_KEY)] {
        for request in
            [request("GET", STREAMS, lines), request("DELETE", STREAMS, lines), request("GET", TOPICS, lines)]
        {
            assert_eq!(server.ask(&request).status, 404, "{request}");
        }
    }
}

/// All streams as an operator lists them, by pages of `limit`.
#[track_caller]
fn listed(server: &Server, limit: usize) -> Vec<Value> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("{STREAMS}?limit={limit}{after}");
        let answer = server.ask(&request("GET", &path, &api_key(ADMIN_KEY)));
        assert_eq!(answer.status, 200, "{answer:?}");
        let page = answer.json();
        let streams = page["streams"].as_array().expect("an array");
        assert!(streams.len() <= limit, "{page}");
        all.extend(streams.iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return all,
        }
        assert!(all.len() < 1000, "the pages do not end");
    }
}

#[track_caller]
fn kick(server: &Server, query: &str) -> Answer {
    server.ask(&request("DELETE", &format!("{STREAMS}?{query}"), &api_key(ADMIN_KEY)))
}

#[test]
fn operators_list_who_listens_page_by_page() {
    let server = start(&["--shards", "3", "--auth", "optional", "--trusted-proxies", "127.0.0.1/32"]);
    let exp = now_s() + 600;
    let claims = json!({"user_id": "ann", "jti": "t-1", "exp": exp});
    let lines = bearer(&token(claims)) + &forwarded_for("192.0.2.1");
    let mut streams = vec![server.stream_with("topics=w,x.*", &lines)];
    for n in 0..10 {
        streams.push(server.stream_with(&format!("topics=t{n}"), &bearer(&user(&format!("u{n}")))));
    }
    streams.push(server.stream("topics=public"));
    for limit in [1, 2, 5, 12, 1000] {
        wait_until("all to be listed", || listed(&server, limit).len() == streams.len());
        let names: HashSet<String> = listed(&server, limit).iter().map(|one| one["client_id"].to_string()).collect();
        assert_eq!(names.len(), streams.len(), "each once, by pages of {limit}");
    }
    let all = listed(&server, 1000);
    let ann = all.iter().find(|one| one["user"] == "ann").expect("she listens");
    assert_eq!(ann["client_id"], streams[0].connected.json()["data"]["client_id"]);
    assert_eq!((&ann["token"], &ann["address"], &ann["topics"]), (&json!("t-1"), &json!("192.0.2.1"), &json!("w,x.*")));
    let moment = |value: &Value| {
        value.as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok()).map(jiff::Timestamp::as_second)
    };
    assert_eq!(moment(&ann["expires"]), Some(exp as i64 + 60), "with the leeway: {ann}");
    assert!(moment(&ann["since"]).is_some_and(|since| now_s().abs_diff(since as u64) < 60), "{ann}");
    let stranger = all.iter().find(|one| one["topics"] == "public").expect("it listens");
    assert_eq!(
        (&stranger["user"], &stranger["token"], &stranger["expires"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    let text = server.ask(&request("GET", STREAMS, &api_key(ADMIN_KEY))).text();
    assert!(!text.contains("eyJ") && !text.contains(KEY), "no token in {text}");
    for query in ["limit=0", "limit=1001", "limit=x", "after=1", "after=x.y", "after=-1.2", "after=0.99999999999"] {
        let answer = server.ask(&request("GET", &format!("{STREAMS}?{query}"), &api_key(ADMIN_KEY)));
        assert_refused(&answer, 400, "bad_request", "expected");
    }
    for after in ["99.0", "0.4294967295", "18446744073709551615.0"] {
        let answer = server.ask(&request("GET", &format!("{STREAMS}?after={after}"), &api_key(ADMIN_KEY)));
        assert_eq!(answer.status, 200, "{after}");
    }
}

#[test]
fn operators_end_a_users_a_tokens_or_a_clients_streams_and_no_others() {
    let server = start(&["--shards", "2"]);
    let named = |id: &str, jti: &str| bearer(&token(json!({"user_id": id, "jti": jti})));
    let open = |id: &str, jti: &str| server.stream_with("", &named(id, jti));
    let mut ann = [open("ann", "a1"), open("ann", "a2"), open("ann", "a1")];
    let mut bob = [open("bob", "ann"), open("bob", "b2"), open("b+b", "b3"), open("bob", "a1")];
    let streams = ann.len() + bob.len();
    wait_until("all to be listed", || listed(&server, 100).len() == streams);
    let kicked = |query: &str| {
        let answer = kick(&server, query);
        assert_eq!((answer.status, &answer.json()["success"]), (200, &json!(true)), "{answer:?}");
        answer.json()["kicked"].as_u64().expect("a number")
    };
    let assert_ended = |stream: &mut Stream| {
        let (events, end) = stream.read_to_end();
        assert_eq!((events.len(), end), (0, End::Clean));
    };
    assert_eq!(
        (kicked("user=nobody"), kicked("token=nobody"), kicked("client_id=nobody"), kicked("user=")),
        (0, 0, 0, 0)
    );
    assert_eq!(kicked("user=b%2bb"), 1);
    assert_ended(&mut bob[2]);
    assert_eq!(kicked("token=a1"), 3, "whoever has it");
    for stream in ann.iter_mut().step_by(2).chain(&mut bob[3..]) {
        assert_ended(stream);
    }
    let one = bob[1].connected.json()["data"]["client_id"].as_str().expect("a name").to_owned();
    assert_eq!(kicked(&format!("client_id={one}")), 1);
    assert_ended(&mut bob[1]);
    assert_eq!(kicked("user=ann"), 1, "the name of bob's token is no user");
    assert_ended(&mut ann[1]);
    assert_eq!(kicked("user=ann"), 0);
    wait_until("the ends to be counted", || server.stat("/streams/closed/kicked") == 6);
    tick(&server, "w", 0, "");
    assert_eq!(bob[0].numbers(1), [0], "one that was not meant goes on");
    assert_eq!(listed(&server, 100).len(), 1);
    for query in ["", "user=ann&token=a1", "user=ann&user=bob", "users=ann", "user"] {
        let answer = kick(&server, query);
        let status = if query == "user" { 200 } else { 400 };
        assert_eq!(answer.status, status, "{query:?}: {answer:?}");
    }
    assert_eq!(kick(&server, "user=%ff").status, 400);
    // No page from elsewhere does it, not even with the key.
    let lines = api_key(ADMIN_KEY) + "Origin: https://elsewhere.example\r\nSec-Fetch-Site: cross-site\r\n";
    let answer = server.ask(&request("DELETE", &format!("{STREAMS}?user=bob"), &lines));
    assert_refused(&answer, 403, "cross_site", "");
    assert!(bob[0].conn_is_quiet());
}

#[test]
fn operators_see_who_comes_and_goes_by_topic() {
    let server = start(&[]);
    let figures = |topic: &str| {
        let answer = server.ask(&request("GET", TOPICS, &api_key(ADMIN_KEY))).json();
        let topics = answer["topics"].as_array().expect("an array").clone();
        let one = topics.iter().find(|one| one["topic"] == topic).cloned();
        one.map(|one| ["listeners", "joined", "left"].map(|name| one[name].as_u64().expect("a number")))
    };
    let listen = |topics: &str| server.stream_with(&format!("topics={topics}"), &bearer(&user("ann")));
    let (first, second, _both) = (listen("w"), listen("w"), listen("w,x"));
    assert_eq!((figures("w"), figures("x"), figures("y")), (Some([3, 3, 0]), Some([1, 1, 0]), None));
    drop(first);
    wait_until("one to have left", || figures("w") == Some([2, 3, 1]));
    drop(second);
    let _again = listen("w");
    wait_until("another to have left", || figures("w") == Some([2, 4, 2]));
    let busiest = server.ask(&request("GET", &format!("{TOPICS}?limit=1"), &api_key(ADMIN_KEY))).json();
    let busiest = busiest["topics"].as_array().expect("an array").clone();
    assert_eq!((busiest.len(), &busiest[0]["topic"]), (1, &json!("w")));
}

#[test]
fn a_page_that_is_let_in_may_ask_before_it_ends_streams() {
    const APP: &str = "https://app.example.com";
    let server = start_with(&[], &[("CORS_ORIGINS", APP)]);
    let preflight = |origin: &str| {
        let asks = "Access-Control-Request-Method: DELETE\r\nAccess-Control-Request-Headers: x-api-key\r\n";
        server.ask(&request("OPTIONS", STREAMS, &format!("Origin: {origin}\r\n{asks}")))
    };
    let answer = preflight(APP);
    assert_eq!(answer.status, 204, "{answer:?}");
    assert!(answer.field("access-control-allow-methods").is_some_and(|methods| methods.contains("DELETE")));
    assert!(answer.field("access-control-allow-headers").is_some_and(|headers| headers.contains("X-API-Key")));
    assert_refused(&preflight("https://other.example.com"), 403, "origin_not_allowed", "");
    let lines = format!("Origin: {APP}\r\nSec-Fetch-Site: cross-site\r\n{}", api_key(ADMIN_KEY));
    let answer = server.ask(&request("DELETE", &format!("{STREAMS}?user=x"), &lines));
    assert_eq!((answer.status, answer.field("access-control-allow-origin").as_deref()), (200, Some(APP)));
    // A refusal can be read as well, or a page would not know why.
    let answer = listen(&server, "", &format!("Origin: {APP}\r\n"));
    assert_eq!(answer.field("access-control-allow-origin").as_deref(), Some(APP));
}

// ---- a thousand hostile tokens

/// Whether a header carries a text as it is.
fn is_carried(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic()) && text.len() < 100_000
}

#[test]
fn hostile_tokens_are_refused_alike_everywhere_and_logged_nowhere() {
    let server = start(&["--log", "trace", "--auth-cookie", "session", "--max-head", "512KiB", "--jwt-leeway", "1s"]);
    let issuer = Issuer::new(Algorithm::HS256, "k", now_s());
    // What they were made from is good, so it is the change that is refused.
    drop(server.stream_with("", &bearer(&issuer.good())));
    let refused = |what: &str, place: &str, answer: Answer| {
        assert!(matches!(answer.status, 401 | 403), "{what} in {place}: {answer:?}");
        let json = answer.json();
        let error = json["error"].as_object().unwrap_or_else(|| panic!("{what} in {place}: {answer:?}"));
        let keys: Vec<&str> = error.keys().map(String::as_str).collect();
        assert_eq!((&json["success"], keys), (&json!(false), vec!["code", "message"]), "{what}: {answer:?}");
        assert!(answer.field("www-authenticate").is_some_and(|value| value.starts_with("Bearer realm=")), "{answer:?}");
    };
    let (mut tried, mut secrets) = (0, HashSet::new());
    let stranger = Issuer::new(Algorithm::ES256, "k", now_s());
    for (what, token) in hostile(&issuer).into_iter().chain(hostile(&stranger)) {
        if token.len() < 100_000 {
            let query = format!("access_token={}", percent_encoded(&token));
            refused(&what, "the query", listen(&server, &query, ""));
            tried += 1;
        }
        if is_carried(&token) {
            refused(&what, "the header", listen(&server, "", &bearer(&token)));
            refused(&what, "a publish", broadcast(&server, &bearer(&token), "{}"));
            refused(&what, "the header for keys", broadcast(&server, &api_key(&token), "{}"));
            if !token.contains(';') {
                refused(&what, "the cookie", listen(&server, "", &format!("Cookie: session={token}\r\n")));
            }
        }
        secrets.extend(token.split(['.', ' ', ',']).filter_map(|part| part.as_bytes().get(..12)).map(<[u8]>::to_vec));
    }
    assert!(tried > 1_500, "{tried} tokens");
    assert_eq!(server.stat("/streams/opened"), 1);
    assert_eq!(server.stat("/events"), 0);
    let log = server.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "it logs all it can: {log:.2000}");
    let found = log.as_bytes().windows(12).find(|window| secrets.contains(*window));
    assert_eq!(found.map(String::from_utf8_lossy), None, "in the log");
}

#[test]
fn a_target_that_cannot_be_read_is_not_logged_either() {
    const PART: &str = "0123456789abcdef";
    let path = format!("{EVENTS}?access_token={PART} .");
    let server = start(&["--log", "trace,h2::server=trace"]);
    server.ask(&format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n"));

    // The same over HTTP/2 (RFC 9113, section 3.4): the preface, SETTINGS, then HEADERS with GET, http, and the path as
    // a literal (RFC 7541, section 6.2.2).
    let mut fields = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).expect("it is short")];
    fields.extend_from_slice(path.as_bytes());
    fields.extend_from_slice(b"\x01\x01t");
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let length = u8::try_from(payload.len()).expect("it is short");
        [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
    };
    let mut conn = server.connect();
    conn.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    conn.send(&[frame(4, 0, 0, &[]), frame(1, 5, 1, &fields)].concat());
    let reset = frame(3, 0, 1, &[0, 0, 0, 1]);
    let mut socket = &conn.socket;
    let mut answer = Vec::new();
    while !answer.windows(reset.len()).any(|window| window == reset) {
        let mut chunk = [0; 1024];
        let n = socket.read(&mut chunk).expect("it answers");
        assert!(n > 0, "no RST_STREAM but {answer:?}");
        answer.extend_from_slice(&chunk[..n]);
    }
    let log = server.log();
    assert!(log.contains("TRACE") && !log.contains(PART), "{log}");
}
