//! The wire contract (`WIRE.md`), byte for byte: parts 1 and 2 as far as one request and one stream show them.
//!
//! What the Go gateway sent is here as it was recorded from a run of it; a client written for that must not notice
//! the difference. What Fanfare adds is checked against the rules of part 2.

mod common;

use common::{BROADCAST, Conn, EVENTS, End, SILENCE, Server, Stream, find, parts, post, wait_until};
use serde_json::{Value, json};

/// What stands where `{…}` stands in a pattern.
fn fits(what: &str, text: &str) -> bool {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    // 2026-11-23T21:46:26 and so many digits of a second's fraction.
    let moment = |s: &str, fraction: usize| {
        let shape = b"0000-00-00T00:00:00";
        let Some(rest) = s.get(shape.len()..) else { return false };
        let date = s.bytes().zip(shape).all(|(b, &f)| if f == b'0' { b.is_ascii_digit() } else { b == f });
        let rest = rest.strip_suffix('Z');
        date && match rest {
            Some("") => fraction == 0,
            // The Go gateway's nanoseconds too leave out zeros at the end.
            Some(rest) => rest.strip_prefix('.').is_some_and(|f| digits(f) && f.len() <= fraction),
            None => false,
        }
    };
    match what {
        "id" => text.rsplit_once('-').is_some_and(|(epoch, seq)| {
            (1..=16).contains(&epoch.len()) && epoch.bytes().all(|b| b.is_ascii_alphanumeric()) && digits(seq)
        }),
        "nanos" => moment(text, 9) || moment(text, 0),
        "seconds" => moment(text, 0),
        "number" => digits(text),
        "client" => !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\'),
        _ => panic!("no pattern called {what}"),
    }
}

/// Compares bytes with a pattern in which `«nanos»` and the like stand for what differs from run to run.
#[track_caller]
fn assert_like(text: &str, pattern: &str) {
    let mut rest = text;
    let mut parts = pattern.split('«');
    let literal = parts.next().unwrap_or_default();
    let fail = |rest: &str, expected: &str| -> ! { panic!("in\n{text}\nat\n{rest}\nexpected\n{expected}") };
    rest = rest.strip_prefix(literal).unwrap_or_else(|| fail(rest, literal));
    for part in parts {
        let (what, literal) = part.split_once('»').expect("a pattern's name ends");
        // Up to the literal that follows, or to the end.
        let at = if literal.is_empty() { Some(rest.len()) } else { rest.find(literal) };
        let Some(at) = at.filter(|&at| fits(what, &rest[..at])) else { fail(rest, part) };
        rest = &rest[at + literal.len()..];
    }
    assert_eq!(rest, "", "behind {pattern}");
}

// ---- part 1

/// The recorded response to `GET /api/v1/events?topics=transactions`, without what differs from run to run.
const RECORDED_FIELDS: [(&str, &str); 4] = [
    ("Cache-Control", "no-cache"),
    ("Connection", "keep-alive"),
    ("Content-Type", "text/event-stream"),
    ("Transfer-Encoding", "chunked"),
];

#[test]
fn the_head_is_the_recorded_one_and_what_part_2_adds() {
    let server = Server::start(&[]);
    let stream = server.stream("topics=transactions");
    assert_eq!(stream.head.line, "HTTP/1.1 200 OK");
    for (name, value) in RECORDED_FIELDS {
        assert_eq!(stream.head.field(name).as_deref(), Some(value), "{name} in {:?}", stream.head);
    }
    assert_eq!(stream.head.field("X-Accel-Buffering").as_deref(), Some("no"));
    assert!(stream.head.field("X-Request-Id").is_some_and(|id| !id.is_empty()), "{:?}", stream.head);
    let date = stream.head.field("Date").expect("an origin server with a clock sends Date (RFC 9110, 6.6.1)");
    assert!(date.ends_with(" GMT") && date.len() == 29, "{date}");
    assert_eq!(stream.head.field("Content-Length"), None);
    assert_eq!(stream.head.field("Access-Control-Allow-Origin"), None, "part 3: CORS `*` is not copied");
}

#[test]
fn the_recorded_stream_comes_again() {
    // The gateway sent, for the same requests:
    //   event: connected
    //   data: {"type":"connected","data":{"client_id":"req-7-1795470385971412332","message":"Connected to Nivo event
    //     stream","topics":"transactions"},"timestamp":"2026-11-23T21:46:25.971430308Z"}
    //   event: transaction.created
    //   data: {"type":"transaction.created","data":{"amount":10000,"timestamp":"2026-11-23T21:46:26Z",
    //     "transaction_id":"t1"},"timestamp":"2026-11-23T21:46:26.366299386Z"}
    // (It re-encoded the payload, which sorted its keys; Fanfare passes it on.)
    let server = Server::start(&[]);
    let mut stream = server.stream("topics=transactions");
    let body = r#"{"topic":"transactions","type":"transaction.created","data":{"amount":10000,"transaction_id":"t1"}}"#;
    assert_eq!(server.post_json(body).status, 200);
    stream.expect("transaction.created");
    assert_like(
        &stream.body(),
        "event: connected\ndata: {\"type\":\"connected\",\"data\":{\"client_id\":\"«client»\",\
         \"message\":\"Connected to Nivo event stream\",\"topics\":\"transactions\"},\"timestamp\":\"«nanos»\"}\nretry: 3000\nid: «id»\n\n\
         event: transaction.created\ndata: {\"type\":\"transaction.created\",\"data\":{\"amount\":10000,\
         \"transaction_id\":\"t1\",\"timestamp\":\"«seconds»\"},\"timestamp\":\"«nanos»\",\"topic\":\"transactions\"}\nid: «id»\n\n",
    );
}

#[test]
fn the_recorded_default_stream_comes_again() {
    //   data: {"type":"hello","data":{"message":"hi there","timestamp":"2026-11-23T21:46:27Z"},"timestamp":"…"}
    let server = Server::start(&[]);
    let mut stream = server.stream("");
    let request = format!("POST {BROADCAST}?topic=all&type=hello&message=hi+there HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(server.ask(&request).status, 200);
    stream.expect("hello");
    assert_like(
        &stream.body(),
        "event: connected\ndata: {\"type\":\"connected\",\"data\":{\"client_id\":\"«client»\",\
         \"message\":\"Connected to Nivo event stream\",\"topics\":\"all\"},\"timestamp\":\"«nanos»\"}\nretry: 3000\nid: «id»\n\n\
         event: hello\ndata: {\"type\":\"hello\",\"data\":{\"message\":\"hi there\",\
         \"timestamp\":\"«seconds»\"},\"timestamp\":\"«nanos»\",\"topic\":\"all\"}\nid: «id»\n\n",
    );
}

#[test]
fn a_client_of_the_gateway_finds_its_keys_in_the_answers() {
    let server = Server::start(&[]);
    // Recorded: {"success":true,"message":"Event broadcasted","clients":0}
    let answer = server.post_json("{}");
    assert_eq!((answer.status, answer.line.as_str()), (200, "HTTP/1.1 200 OK"));
    assert_eq!(answer.field("content-type").as_deref(), Some("application/json"));
    assert_like(&answer.text(), "{\"success\":true,\"message\":\"Event broadcasted\",\"clients\":0,\"id\":\"«id»\"}");
    // Recorded: {"connected_clients":0,"status":"healthy"}
    let stats = server.get("/api/v1/events/stats");
    assert_eq!(stats.field("content-type").as_deref(), Some("application/json"));
    assert_eq!((&stats.json()["connected_clients"], &stats.json()["status"]), (&json!(0), &json!("healthy")));
    for path in ["/health", "/api/health"] {
        let health = server.get(path);
        assert_eq!(health.status, 200);
        let health = health.json();
        assert_eq!((&health["service"], &health["status"]), (&json!("gateway"), &json!("healthy")));
        assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
    }
    assert_eq!(server.get("/ready").status, 200);
}

#[test]
fn the_answer_and_the_stats_count_the_streams() {
    let server = Server::start(&[]);
    let streams: Vec<Stream> = (0..3).map(|_| server.stream("topics=a")).collect();
    assert_eq!(server.post_json("{}").json()["clients"], 3);
    assert_eq!(server.stats()["connected_clients"], 3);
    drop(streams);
    server.wait_for_clients(0);
    assert_eq!(server.post_json("{}").json()["clients"], 0);
}

/// What is published, and the event that comes of it: topic, type, data without its timestamp (`null` where the
/// timestamp must be there as given).
struct Published {
    what: &'static str,
    content_type: &'static str,
    query: &'static str,
    body: &'static str,
    topic: &'static str,
    kind: &'static str,
    /// The bytes of `data`, as a pattern.
    data: &'static str,
}

const JSON: &str = "application/json";

const STAMPED: &str = "{\"timestamp\":\"«seconds»\"}";

const PUBLISHED: &[Published] = &[
    Published {
        what: "all defaults",
        content_type: JSON,
        query: "",
        body: "{}",
        topic: "all",
        kind: "notification",
        data: STAMPED,
    },
    Published {
        what: "null is absent",
        content_type: JSON,
        query: "",
        body: r#"{"topic":null,"type":null,"data":null}"#,
        topic: "all",
        kind: "notification",
        data: STAMPED,
    },
    Published {
        what: "empty is absent",
        content_type: JSON,
        query: "",
        body: r#"{"topic":"","type":"","data":{}}"#,
        topic: "all",
        kind: "notification",
        data: STAMPED,
    },
    Published {
        what: "unknown keys are ignored",
        content_type: JSON,
        query: "",
        body: r#"{"n":7,"topic":"a","retry":[1,{}],"type":"k","data":{"x":1},"z":null}"#,
        topic: "a",
        kind: "k",
        data: "{\"x\":1,\"timestamp\":\"«seconds»\"}",
    },
    Published {
        what: "a content type's parameter",
        content_type: "application/json; charset=utf-8",
        query: "",
        body: r#"{"type":"k","data":{"x":1}}"#,
        topic: "all",
        kind: "k",
        data: "{\"x\":1,\"timestamp\":\"«seconds»\"}",
    },
    Published {
        what: "a content type's case and space",
        content_type: "Application/JSON ;charset=UTF-8",
        query: "",
        body: r#"{"type":"k","data":{"x":1}}"#,
        topic: "all",
        kind: "k",
        data: "{\"x\":1,\"timestamp\":\"«seconds»\"}",
    },
    Published {
        what: "JSON wins over the query",
        content_type: JSON,
        query: "?topic=q&type=q&message=q",
        body: r#"{"topic":"a","type":"k"}"#,
        topic: "a",
        kind: "k",
        data: STAMPED,
    },
    Published {
        what: "a timestamp is kept",
        content_type: JSON,
        query: "",
        body: r#"{"type":"k","data":{"timestamp":null}}"#,
        topic: "all",
        kind: "k",
        data: "{\"timestamp\":null}",
    },
    Published {
        what: "a nested timestamp is none",
        content_type: JSON,
        query: "",
        body: r#"{"type":"k","data":{"a":{"timestamp":1}}}"#,
        topic: "all",
        kind: "k",
        data: "{\"a\":{\"timestamp\":1},\"timestamp\":\"«seconds»\"}",
    },
    Published {
        what: "a timestamp in escapes is one",
        content_type: JSON,
        query: "",
        body: r#"{"type":"k","data":{"time\u0073tamp":5}}"#,
        topic: "all",
        kind: "k",
        data: r#"{"time\u0073tamp":5}"#,
    },
    Published {
        what: "numbers leave as they came",
        content_type: JSON,
        query: "",
        body: r#"{"type":"k","data":{"big":9007199254740993,"bigger":123456789012345678901234567890,"f":1.10,"e":1E400,"z":-0,"timestamp":0}}"#,
        topic: "all",
        kind: "k",
        data: r#"{"big":9007199254740993,"bigger":123456789012345678901234567890,"f":1.10,"e":1E400,"z":-0,"timestamp":0}"#,
    },
    Published {
        what: "the order of keys is kept",
        content_type: JSON,
        query: "",
        body: r#"{"data":{"z":1,"a":2,"m":3,"timestamp":0},"type":"k","topic":"t"}"#,
        topic: "t",
        kind: "k",
        data: r#"{"z":1,"a":2,"m":3,"timestamp":0}"#,
    },
    Published {
        what: "escapes and other characters are kept",
        content_type: JSON,
        query: "",
        body: "{\"type\":\"k\",\"data\":{\"a\":\"\\n\\r\\u2028\\u0000 é 🎺 \u{2028} \u{85}\",\"timestamp\":0}}",
        topic: "all",
        kind: "k",
        data: "{\"a\":\"\\n\\r\\u2028\\u0000 é 🎺 \u{2028} \u{85}\",\"timestamp\":0}",
    },
    Published {
        what: "names in other scripts, and with spaces and colons",
        content_type: JSON,
        query: "",
        body: r#"{"topic":"später: π","type":" kind: of ","data":{"timestamp":0}}"#,
        topic: "später: π",
        kind: " kind: of ",
        data: r#"{"timestamp":0}"#,
    },
    Published {
        what: "names that JSON must escape",
        content_type: JSON,
        query: "",
        body: r#"{"topic":"a\"b\\c","type":"<\"\\>","data":{"timestamp":0}}"#,
        topic: r#"a"b\c"#,
        kind: r#"<"\>"#,
        data: r#"{"timestamp":0}"#,
    },
    Published {
        what: "the query",
        content_type: "text/plain",
        query: "?topic=a&type=k&message=50%25+%2B+%C3%A9",
        body: "",
        topic: "a",
        kind: "k",
        data: "{\"message\":\"50% + é\",\"timestamp\":\"«seconds»\"}",
    },
    Published {
        what: "a message with line ends",
        content_type: "application/x-www-form-urlencoded",
        query: "?message=a%0Adata:%20b%0D%0A%0Aid:%201",
        body: "",
        topic: "all",
        kind: "notification",
        data: "{\"message\":\"a\\ndata: b\\r\\n\\nid: 1\",\"timestamp\":\"«seconds»\"}",
    },
    Published {
        what: "an empty message is a message",
        content_type: "text/plain",
        query: "?message=",
        body: "",
        topic: "all",
        kind: "notification",
        data: "{\"message\":\"\",\"timestamp\":\"«seconds»\"}",
    },
    Published {
        what: "a query without message",
        content_type: "text/plain",
        query: "?topic=&type=&unknown=1",
        body: "",
        topic: "all",
        kind: "notification",
        data: STAMPED,
    },
    Published {
        what: "JSON under curl's default content type",
        content_type: "application/x-www-form-urlencoded",
        query: "?topic=q",
        body: "{\"topic\":\"a\",\"type\":\"k\",\"data\":{\"timestamp\":0}}",
        topic: "a",
        kind: "k",
        data: "{\"timestamp\":0}",
    },
    Published {
        what: "JSON under an empty content type",
        content_type: "",
        query: "",
        body: " \r\n\t{\"topic\":\"a\",\"type\":\"k\",\"data\":{\"timestamp\":0}}",
        topic: "a",
        kind: "k",
        data: "{\"timestamp\":0}",
    },
    Published {
        what: "an array behind a byte order mark, its type not chosen",
        content_type: "application/x-www-form-urlencoded; charset=utf-8",
        query: "",
        body: "\u{feff} [{\"topic\":\"a\",\"type\":\"k\",\"data\":{\"timestamp\":0}}]",
        topic: "a",
        kind: "k",
        data: "{\"timestamp\":0}",
    },
    Published {
        what: "a byte order mark before JSON",
        content_type: JSON,
        query: "",
        body: "\u{feff}{\"topic\":\"a\",\"type\":\"k\",\"data\":{\"timestamp\":0}}",
        topic: "a",
        kind: "k",
        data: "{\"timestamp\":0}",
    },
    Published {
        what: "a byte order mark before NDJSON",
        content_type: "application/x-ndjson",
        query: "",
        body: "\u{feff}{\"topic\":\"a\",\"type\":\"k\",\"data\":{\"timestamp\":0}}\r\n",
        topic: "a",
        kind: "k",
        data: "{\"timestamp\":0}",
    },
    Published {
        what: "NDJSON of one line",
        content_type: "application/x-ndjson",
        query: "",
        body: "{\"topic\":\"a\",\"type\":\"k\",\"data\":{\"timestamp\":0}}",
        topic: "a",
        kind: "k",
        data: "{\"timestamp\":0}",
    },
];

#[test]
fn what_is_published_arrives_byte_for_byte() {
    let server = Server::start(&[]);
    let mut stream = server.stream("topics=all");
    for case in PUBLISHED {
        let before = stream.text.len();
        let request = post(case.content_type, case.body).replacen(BROADCAST, &format!("{BROADCAST}{}", case.query), 1);
        let answer = server.ask(&request);
        assert_eq!(answer.status, 200, "{}: {answer:?}", case.what);
        stream.next_any();
        let text = String::from_utf8(stream.text[before..].to_vec()).expect("UTF-8");
        let id = answer.json()["id"].as_str().expect("an id").to_owned();
        let (topic, kind) = (json!(case.topic), json!(case.kind));
        let pattern = format!(
            "event: {}\ndata: {{\"type\":{kind},\"data\":{},\"timestamp\":\"«nanos»\",\"topic\":{topic}}}\nid: {id}\n\n",
            case.kind, case.data
        );
        println!("{}", case.what);
        assert_like(&text, &pattern);
    }
}

#[test]
fn white_space_in_data_stays_on_one_line_and_means_the_same() {
    let server = Server::start(&[]);
    let mut stream = server.stream("topics=all");
    let data = "{\r\n\t\"a\" : [ 1,\n 2 ],\r \"b\":\"x\\ny\"\n}";
    server.publish("t", "k", data);
    let event = stream.expect("k");
    let lines = stream.body();
    let last_block = lines.trim_end_matches('\n').rsplit("\n\n").next().unwrap_or_default();
    assert_eq!(last_block.lines().count(), 3, "{last_block:?}");
    let mut expected: Value = serde_json::from_str(data).expect("it is JSON");
    expected["timestamp"] = event.json()["data"]["timestamp"].clone();
    assert!(expected["timestamp"].is_string(), "{event:?}");
    assert_eq!(event.json()["data"], expected);
}

// ---- batches

#[test]
fn a_batch_is_published_in_order_and_answered_with_its_count_and_last_id() {
    let server = Server::start(&[]);
    let mut stream = server.stream("topics=a,b");
    let array = r#" [{"topic":"a","type":"k","data":{"n":1}},{"topic":"b","type":"k","data":{"n":2}} , {"topic":"a","type":"k","data":{"n":3}}]"#;
    let ndjson = "{\"topic\":\"a\",\"type\":\"k\",\"data\":{\"n\":4}}\r\n\n  \n{\"topic\":\"b\",\"type\":\"k\",\"data\":{\"n\":5}}\n";
    let mut n = 0;
    for (content_type, body, count) in
        [(JSON, array, 3), ("application/x-ndjson", ndjson, 2), ("Application/X-NDJSON; charset=utf-8", ndjson, 2)]
    {
        let answer = server.ask(&post(content_type, body));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_like(
            &answer.text(),
            &format!(
                "{{\"success\":true,\"message\":\"Event broadcasted\",\"clients\":1,\"count\":{count},\"id\":\"«id»\"}}"
            ),
        );
        for _ in 0..count {
            n = n % 5 + 1;
            let event = stream.expect("k");
            assert_eq!(event.n(), n);
            let last = answer.json()["id"].as_str().expect("an id").to_owned();
            assert_eq!(parts(event.id.as_deref().expect("an id")).0, parts(&last).0);
            if n == 3 || n == 5 {
                assert_eq!(event.id.as_deref(), Some(last.as_str()));
            }
        }
        if n == 5 {
            n = 3;
        }
    }
}

#[test]
fn a_batch_with_a_bad_element_publishes_none_and_names_it() {
    let server = Server::start(&["--max-batch", "5"]);
    let mut stream = server.stream("topics=all");
    let before = server.stat("/events");
    let good = r#"{"type":"k"}"#;
    for (content_type, body, named) in [
        (JSON, format!("[{good},{good},7]"), "2"),
        (JSON, format!("[{good},[{good}]]"), "1"),
        (JSON, format!(r#"[{{"type":"a\nb"}},{good}]"#), "0"),
        (JSON, format!(r#"[{good},{{"data":[]}}]"#), "1"),
        (JSON, format!("[{good},"), ""),
        (JSON, "[]".to_owned(), ""),
        (JSON, format!("[{}]", [good; 6].join(",")), "5"),
        ("application/x-ndjson", format!("{good}\n{good}\nnope\n"), "3"),
        ("application/x-ndjson", format!("{good}\n[{good}]\n"), "2"),
        ("application/x-ndjson", "\n \n".to_owned(), ""),
        ("application/x-ndjson", [good; 6].join("\n"), "5"),
    ] {
        let answer = server.ask(&post(content_type, &body));
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        let message = message(&answer.json(), "bad_request");
        assert!(message.contains(named), "{body}: {message:?} does not name {named}");
    }
    assert_eq!(server.stat("/events"), before);
    stream.expect_nothing();
    assert_eq!(server.ask(&post(JSON, &format!("[{}]", [good; 5].join(",")))).status, 200, "as many as are allowed");
}

// ---- errors

/// Checks an error's envelope, `{"success":false,"error":{"code":"…","message":"…"}}`; gives the message.
#[track_caller]
fn message(body: &Value, code: &str) -> String {
    let keys = |value: &Value| value.as_object().map(|object| object.keys().cloned().collect::<Vec<_>>());
    assert_eq!(keys(body), Some(vec!["error".to_owned(), "success".to_owned()]), "{body}");
    assert_eq!(body["success"], false);
    assert_eq!(keys(&body["error"]), Some(vec!["code".to_owned(), "message".to_owned()]), "{body}");
    assert_eq!(body["error"]["code"], code, "{body}");
    let message = body["error"]["message"].as_str().expect("a text");
    assert!(!message.is_empty());
    message.to_owned()
}

#[test]
fn a_broadcast_that_breaks_the_contract_gets_400_with_the_reason() {
    let server = Server::start(&[]);
    let mut stream = server.stream("topics=all");
    let long = "x".repeat(129);
    let cases: Vec<(String, &str)> = vec![
        ("".into(), "JSON"),
        ("nope".into(), "JSON"),
        ("7".into(), "JSON"),
        ("null".into(), "JSON"),
        ("\"text\"".into(), "JSON"),
        ("{} {}".into(), "JSON"),
        ("{\"topic\":\"a\"".into(), "JSON"),
        ("{'topic':'a'}".into(), "JSON"),
        (r#"{"data":[]}"#.into(), "data"),
        (r#"{"data":"text"}"#.into(), "data"),
        (r#"{"data":1}"#.into(), "data"),
        (r#"{"data":true}"#.into(), "data"),
        (r#"{"topic":1}"#.into(), "string"),
        (r#"{"type":{}}"#.into(), "string"),
        (r#"{"topic":"a,b"}"#.into(), "comma"),
        (r#"{"topic":"a\nb"}"#.into(), "topic contains"),
        (r#"{"topic":"a\u0000"}"#.into(), "topic contains"),
        (r#"{"topic":"a\u0085"}"#.into(), "topic contains"),
        (r#"{"type":"a\r"}"#.into(), "type contains"),
        (r#"{"type":"\u007f"}"#.into(), "type contains"),
        (r#"{"type":"connected"}"#.into(), "reserved"),
        (r#"{"type":"heartbeat"}"#.into(), "reserved"),
        (r#"{"type":"gap"}"#.into(), "reserved"),
        (r#"{"type":"refused"}"#.into(), "reserved"),
        (r#"{"type":"end"}"#.into(), "reserved"),
        (format!(r#"{{"topic":"{long}"}}"#), "topic has 129 bytes"),
        (format!(r#"{{"type":"{long}"}}"#), "type has 129 bytes"),
        // Bytes are counted, not characters: 65 of two bytes each.
        (format!(r#"{{"type":"{}"}}"#, "é".repeat(65)), "type has 130 bytes"),
    ];
    for (body, named) in cases {
        let answer = server.post_json(&body);
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        assert_eq!(answer.field("content-type").as_deref(), Some("application/json"), "{body}");
        let message = message(&answer.json(), "bad_request");
        assert!(message.contains(named), "{body}: {message:?} does not say {named:?}");
    }
    for (query, named) in [
        ("topic=a%2Cb", "comma"),
        ("topic=a%0Ab", "topic contains"),
        ("type=a%0D%0Aid:1", "type contains"),
        ("type=gap", "reserved"),
        ("topic=%FF", "topic"),
        ("type=%C3%28", "type"),
        ("message=%FF", "message"),
    ] {
        let answer = server.ask(&format!("POST {BROADCAST}?{query} HTTP/1.1\r\nHost: t\r\n\r\n"));
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
        let message = message(&answer.json(), "bad_request");
        assert!(message.contains(named), "{query}: {message:?} does not say {named:?}");
    }
    stream.expect_nothing();
    let longest = "x".repeat(128);
    server.publish(&longest, &longest, "{}");
    assert_eq!(stream.next().kind, longest, "128 bytes are allowed");
}

#[test]
fn a_malformed_parameter_of_a_stream_gets_400_that_names_it() {
    let server = Server::start(&["--max-topics", "3"]);
    for (query, named) in [
        ("topics=a%0Ab", "topics"),
        ("topics=%FF", "topics"),
        ("topics=a,b,c,d", "topics"),
        ("topics=a&topics=b,c&topics=d", "topics"),
        ("since=yesterday", "since"),
        ("since=", "since"),
        ("since=-5", "since"),
        ("since=2026-13-01T00:00:00Z", "since"),
        ("last=", "last"),
        ("last=x", "last"),
        ("last=-1", "last"),
        ("last=1.5", "last"),
        ("limit=0", "limit"),
        ("limit=", "limit"),
        ("limit=many", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("last_event_id=%FF", "last_event_id"),
        ("lastEventId=%C0%80", "lastEventId"),
    ] {
        let answer = server.get(&format!("{EVENTS}?{query}"));
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
        let message = message(&answer.json(), "bad_request");
        assert!(message.contains(named), "{query}: {message:?} does not name {named}");
        let head = server.ask(&format!("HEAD {EVENTS}?{query} HTTP/1.1\r\nHost: t\r\n\r\n"));
        assert_eq!(head.status, 400, "HEAD {query}: {head:?}");
    }
    server.wait_for_clients(0);
    // Unknown parameters are ignored, whatever they hold; known ones may be empty where that means "none yet".
    for query in [
        "topics=a&utm_source=%FF&x=%00&%FF=1&=&&y",
        "topics=&last_event_id=&lastEventId=",
        "topics=a,b,c",
        "topics=%2C,+,",
    ] {
        drop(server.stream(query));
    }
    let answer = server.ask(&format!("POST {BROADCAST}?x=%FF&message=m HTTP/1.1\r\nHost: t\r\n\r\n"));
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn paths_and_methods_that_do_not_exist() {
    let server = Server::start(&[]);
    for path in
        ["//", "/api/v1/events/", "/api/v1/event", "/api/v1/events/broadcast/", "/API/v1/events", "/healthz", "*"]
    {
        let answer = server.get(path);
        // `*` is only for OPTIONS: that a parser refuses it is as good.
        assert!(answer.status == 404 || path == "*" && answer.status == 400, "{path}: {answer:?}");
        if answer.status == 404 {
            message(&answer.json(), "not_found");
        }
    }
    for (method, path, allowed) in [
        ("POST", EVENTS, "GET"),
        ("PUT", EVENTS, "GET"),
        ("DELETE", EVENTS, "GET"),
        ("TRACE", EVENTS, "GET"),
        ("GET", BROADCAST, "POST"),
        ("HEAD", BROADCAST, "POST"),
        ("PUT", BROADCAST, "POST"),
        ("POST", "/api/v1/events/stats", "GET"),
        ("DELETE", "/health", "GET"),
        ("POST", "/api/health", "GET"),
        ("POST", "/ready", "GET"),
        ("BREW", "/ready", "GET"),
    ] {
        let answer = server.ask(&format!("{method} {path} HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(answer.status, 405, "{method} {path}: {answer:?}");
        let allow = answer.field("allow").expect("405 has Allow (RFC 9110, 15.5.6)");
        assert!(allow.split(", ").any(|method| method == allowed), "{method} {path}: {allow}");
        assert!(!allow.split(", ").any(|name| name == method), "{method} {path}: {allow}");
        if method != "HEAD" {
            message(&answer.json(), "method_not_allowed");
        }
    }
}

#[test]
fn a_body_past_the_limit_gets_413() {
    let server = Server::start(&["--max-body", "1000"]);
    let fits = format!("{{\"data\":{{\"a\":\"{}\"}}}}", "x".repeat(1000 - 17));
    assert_eq!(fits.len(), 1000);
    assert_eq!(server.post_json(&fits).status, 200);
    let announced = server.post_json(&format!("{fits} "));
    assert_eq!(announced.status, 413, "{announced:?}");
    message(&announced.json(), "payload_too_large");
    let chunk = "x".repeat(600);
    let chunked = server.ask(&format!(
        "POST {BROADCAST} HTTP/1.1\r\nHost: t\r\nContent-Type: {JSON}\r\nTransfer-Encoding: chunked\r\n\r\n\
         258\r\n{chunk}\r\n258\r\n{chunk}\r\n0\r\n\r\n"
    ));
    assert_eq!(chunked.status, 413, "{chunked:?}");
    // The default, 1 MiB, is more than what any test here sends, and holds for a body that is announced alone.
    let server = Server::start(&[]);
    let over = server.ask(&format!(
        "POST {BROADCAST} HTTP/1.1\r\nHost: t\r\nContent-Type: {JSON}\r\nContent-Length: 1048577\r\n\r\n"
    ));
    assert_eq!(over.status, 413, "{over:?}");
}

#[test]
fn a_chunked_publish_is_read() {
    let server = Server::start(&[]);
    let mut stream = server.stream("");
    let answer = server.ask(&format!(
        "POST {BROADCAST} HTTP/1.1\r\nHost: t\r\nContent-Type: {JSON}\r\nTransfer-Encoding: chunked\r\n\r\n\
         4\r\n{{\"ty\r\n8\r\npe\":\"k\"}}\r\n0\r\n\r\n"
    ));
    assert_eq!(answer.status, 200, "{answer:?}");
    stream.expect("k");
}

#[test]
fn a_compressed_body_is_refused_rather_than_misread() {
    let server = Server::start(&[]);
    let answer = server.ask(&format!(
        "POST {BROADCAST} HTTP/1.1\r\nHost: t\r\nContent-Type: {JSON}\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{{}}"
    ));
    assert_eq!(answer.status, 415, "{answer:?}");
    message(&answer.json(), "unsupported_encoding");
    let unchosen = server.ask(&format!(
        "POST {BROADCAST} HTTP/1.1\r\nHost: t\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{{}}"
    ));
    message(&unchosen.json(), "unsupported_encoding");
    assert_eq!(server.stat("/events"), 0);
}

#[test]
fn a_body_that_would_be_ignored_gets_415_that_names_what_is_read() {
    let server = Server::start(&["--max-body", "1000"]);
    let mut stream = server.stream("");
    let json = r#"{"topic":"a","type":"k"}"#;
    let mut conn = server.connect();
    let long = "x".repeat(300);
    for (content_type, body, named) in [
        ("text/plain", json, "\"text/plain\""),
        ("text/plain;charset=UTF-8", json, "\"text/plain\""),
        ("text/json", json, "\"text/json\""),
        ("application/octet-stream", "\0", "\"application/octet-stream\""),
        ("application/cloudevents+json", json, "cloudevents"),
        ("application/x-www-form-urlencoded", "topic=a&type=k", "\"application/x-www-form-urlencoded\""),
        ("application/x-www-form-urlencoded", "\"{}\"", "urlencoded"),
        ("application/x-www-form-urlencoded", "\u{feff}", "urlencoded"),
        ("", "topic=a&type=k", "without a content type"),
        ("", " ", "without a content type"),
        (&long, json, &long[..100]),
    ] {
        conn.send(post(content_type, body).replacen(BROADCAST, &format!("{BROADCAST}?type=q"), 1).as_bytes());
        let answer = conn.answer().expect("an answer, the connection still in use");
        assert_eq!(answer.status, 415, "{content_type} {body}: {answer:?}");
        let said = message(&answer.json(), "unsupported_media_type");
        for named in [named, "application/json", "application/x-ndjson"] {
            assert!(said.contains(named), "{content_type}: {said:?} does not name {named}");
        }
        assert!(said.len() < 300, "{said}");
        assert_eq!(answer.field("accept").as_deref(), Some("application/json, application/x-ndjson"));
    }
    // Only a body that has been read is known to be empty, or not.
    let chunked = |chunks: &str| {
        let head = format!("POST {BROADCAST}?type=k HTTP/1.1\r\nHost: t\r\nContent-Type: text/plain\r\n");
        server.ask(&format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"))
    };
    assert_eq!(chunked("2\r\n{}\r\n").status, 415);
    assert_eq!(chunked(&format!("258\r\n{0}\r\n258\r\n{0}\r\n", "x".repeat(600))).status, 413);
    assert_eq!(server.stat("/problems/unsupported_media_type"), 12);
    assert_eq!(chunked("").status, 200);
    assert_eq!(stream.next().kind, "k", "nothing else was published");
}

#[test]
fn a_body_in_utf_16_gets_400_that_names_it() {
    let server = Server::start(&[]);
    let text = "\u{feff}{\"type\":\"k\"}";
    let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
    for (content_type, body) in [(JSON, &little), (JSON, &big), ("application/x-ndjson", &little), ("", &big)] {
        let mut conn = server.connect();
        let head = format!("POST {BROADCAST} HTTP/1.1\r\nHost: t\r\nContent-Type: {content_type}\r\n");
        conn.send(&[format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat());
        let answer = conn.answer().expect("an answer");
        assert_eq!(answer.status, 400, "{answer:?}");
        let said = message(&answer.json(), "bad_request");
        assert!(said.contains("UTF-16") && said.contains("expected UTF-8"), "{said}");
    }
    // One mark is enough, and it stands in front.
    for body in ["\u{feff}\u{feff}{}", "{}\u{feff}", " \u{feff}{}"] {
        assert_eq!(server.post_json(body).status, 400, "{body:?}");
    }
    assert_eq!(server.stat("/events"), 0);
}

#[test]
fn ignored_keys_that_look_like_known_ones_are_named() {
    let server = Server::start(&[]);
    for (content_type, query, body, named) in [
        (JSON, "", r#"{"topic":"a","tpye":"k"}"#, "tpye"),
        (JSON, "", r#"{"Topic":"a","Type":"k","Data":{}}"#, "Topic, Type, Data"),
        (JSON, "", r#"{"userId":"u"}"#, "userId"),
        (JSON, "", r#"{"t\u006fpics":"a"}"#, "topics"),
        (JSON, "?topics=a", r#"{"tpye":"k"}"#, "tpye"),
        (JSON, "", r#"[{"tpye":"k"},{"tpye":"k","datas":{}},{"topic":"a"}]"#, "tpye, datas"),
        ("application/x-ndjson", "", "{\"tpye\":\"k\"}\n{}\n", "tpye"),
        ("", "?topics=a&Type=k&mesage=m&x=1", "", "topics, Type, mesage"),
    ] {
        let request = post(content_type, body).replacen(BROADCAST, &format!("{BROADCAST}{query}"), 1);
        let answer = server.ask(&request);
        assert_eq!(answer.status, 200, "{query} {body}: {answer:?}");
        assert_eq!(answer.field("x-ignored").as_deref(), Some(named), "{query} {body}");
        let names: Vec<&str> = named.split(", ").collect();
        assert_eq!(answer.json()["ignored"], json!(names), "{query} {body}");
        let (begin, end) = (answer.text(), format!("\",\"ignored\":{}}}", json!(names)));
        assert!(begin.starts_with("{\"success\":true,") && begin.ends_with(&end), "behind all else: {begin}");
    }
    // Unknown keys of another kind, known ones, and all that is within data.
    for body in [
        r#"{"topic":"a","type":"k","data":{"tpye":1},"user_id":"u","user_ids":["v"],"id":"i"}"#,
        r#"{"timestamp":1,"payload":{},"x":1,"":2,"to":3,"message":"m"}"#,
    ] {
        let answer = server.post_json(body);
        assert_eq!((answer.status, answer.field("x-ignored")), (200, None), "{answer:?}");
        assert_eq!(answer.json().get("ignored"), None, "{answer:?}");
    }
    // However strange and many they are, the answer is JSON, and short. A name that no header can hold stands in the
    // body alone.
    let answer = server.post_json(r#"{"ty\"e":1,"typ\r\n":1,"t\u00ffpe":1}"#);
    assert_eq!(answer.json()["ignored"], json!(["ty\"e", "typ\r\n", "t\u{ff}pe"]));
    assert_eq!(answer.field("x-ignored").as_deref(), Some("ty\"e"));
    let many: Vec<String> = (0..1000).map(|n| format!("\"typ{n}\":1")).collect();
    let answer = server.post_json(&format!("{{{}}}", many.join(",")));
    assert_eq!(answer.json()["ignored"].as_array().map(Vec::len), Some(8), "{answer:?}");
    assert_eq!(answer.field("x-ignored").as_deref(), Some("typ0, typ1, typ2, typ3, typ4, typ5, typ6, typ7"));
    // A repeat is told the same.
    let named = post(JSON, r#"{"tpye":"k"}"#).replacen("Host:", "Idempotency-Key: k\r\nHost:", 1);
    let (first, again) = (server.ask(&named), server.ask(&named));
    assert_eq!(again.field("idempotent-replayed").as_deref(), Some("true"));
    assert_eq!((again.text(), again.field("x-ignored")), (first.text(), Some("tpye".to_owned())));
}

#[test]
fn ignored_parameters_of_a_stream_are_named() {
    let server = Server::start(&[]);
    for (query, named) in [
        ("topic=a", Some("topic")),
        ("topic=a&topic=b&type=k&topics=all", Some("topic, type")),
        (
            "userid=u&Last=1&lastEventID=x&limits=1&sinse=1s&acess_token=t",
            Some("userid, Last, lastEventID, limits, sinse, acess_token"),
        ),
        ("topi%63=a", Some("topic")),
        ("topics%0D%0A=a&topic,=b&%FF=1&t%C3%A9pics", Some("topic,")),
        ("utm_source=x&cachebuster=1&_=2&q=3&&=", None),
    ] {
        let named = named.map(str::to_owned);
        let stream = server.stream(query);
        assert_eq!(stream.head.field("x-ignored"), named, "{query}");
        assert_eq!(stream.connected.json()["data"]["topics"], "all", "{query}: it is named, not obeyed");
        let head = server.ask(&format!("HEAD {EVENTS}?{query} HTTP/1.1\r\nHost: t\r\n\r\n"));
        assert_eq!((head.status, head.field("x-ignored")), (200, named.clone()), "HEAD {query}");
        let mut conn = server.connect();
        conn.send(format!("GET {EVENTS}?{query} HTTP/1.0\r\n\r\n").as_bytes());
        assert_eq!(Stream::over(conn).head.field("x-ignored"), named, "{query} over HTTP/1.0");
    }
}

// ---- topics

#[test]
fn topics_decide_who_gets_what() {
    let server = Server::start(&[]);
    // Who listens, to what, and what of the five events below they get.
    let cases = [
        ("", "all", vec![1, 2, 3, 4, 5]),
        ("topics=", "all", vec![1, 2, 3, 4, 5]),
        ("topics=all", "all", vec![1, 2, 3, 4, 5]),
        ("topics=a", "a", vec![1, 5]),
        ("topics=b", "b", vec![2]),
        ("topics=a,b", "a,b", vec![1, 2, 5]),
        ("topics=b,a", "b,a", vec![1, 2, 5]),
        ("topics=a&topics=b", "a,b", vec![1, 2, 5]),
        ("topics=a&topics=b,c%20d", "a,b,c d", vec![1, 2, 4, 5]),
        ("topics=a%2Cb", "a,b", vec![1, 2, 5]),
        ("topics=a,%20b%20,,", "a, b ,,", vec![1, 2, 5]),
        ("topics=a,a,a", "a,a,a", vec![1, 5]),
        ("topics=c+d", "c d", vec![4]),
        ("topics=a,all", "a,all", vec![1, 2, 3, 4, 5]),
        ("topics=nobody", "nobody", vec![]),
        ("topics=A", "A", vec![]),
        ("other=1&topics=a#", "a", vec![1, 5]),
    ];
    let mut streams: Vec<Stream> = cases.iter().map(|(query, ..)| server.stream(query.trim_end_matches('#'))).collect();
    for (stream, (query, text, _)) in streams.iter().zip(&cases) {
        assert_eq!(stream.connected.json()["data"]["topics"], *text, "{query}");
    }
    for (n, topic) in [(1, "a"), (2, "b"), (3, "all"), (4, "c d"), (5, "a")] {
        server.publish(topic, "tick", &format!("{{\"n\":{n}}}"));
    }
    // Marks the end in every stream, so that nothing needs to be waited for that must not come.
    for topic in ["a", "b", "c d", "nobody", "A"] {
        server.publish(topic, "last", "{}");
    }
    for (stream, (query, _, expected)) in streams.iter_mut().zip(&cases) {
        let mut got = Vec::new();
        loop {
            let event = stream.next();
            if event.kind == "last" {
                break;
            }
            got.push(event.n());
        }
        assert_eq!(&got, expected, "{query}");
    }
}

// ---- a stream's first bytes, and other clients

#[test]
fn head_and_connected_leave_at_once_and_retry_is_never_alone() {
    let server = Server::start(&["--retry", "1500ms"]);
    let mut stream = server.stream("topics=quiet");
    assert_eq!(stream.connected.retry, Some(1500));
    assert!(stream.connected.id.is_some());
    assert_eq!(stream.sse.empty_blocks, 0);
    stream.expect_nothing();
    server.publish("quiet", "k", "{}");
    let event = stream.expect("k");
    assert_eq!(event.retry, None, "only `connected` tells it");
    assert_eq!(stream.sse.empty_blocks, 0);
}

#[test]
fn ids_count_up_by_one_over_all_topics() {
    let server = Server::start(&[]);
    let mut stream = server.stream("topics=a,b");
    let mut last = stream.connected.id.clone().expect("connected has one");
    for topic in ["a", "b", "a", "b"] {
        let answered = server.publish(topic, "k", "{}");
        let event = stream.expect("k");
        assert_eq!(event.id.as_deref(), Some(answered.as_str()));
        assert_eq!(parts(&answered), (parts(&last).0, parts(&last).1 + 1));
        last = answered;
    }
    server.publish("elsewhere", "k", "{}");
    server.publish("a", "k", "{}");
    assert_eq!(stream.expect("k").seq(), parts(&last).1 + 2);
    let other = Server::start(&[]);
    let id = other.publish("a", "k", "{}");
    assert_ne!(parts(&id).0, parts(&last).0, "an in-memory history has a new epoch with every start");
}

#[test]
fn client_ids_differ() {
    let server = Server::start(&[]);
    let ids: Vec<String> =
        (0..5).map(|_| server.stream("").connected.json()["data"]["client_id"].to_string()).collect();
    for (n, id) in ids.iter().enumerate() {
        assert!(!ids[..n].contains(id), "{ids:?}");
    }
}

#[test]
fn accept_is_no_reason_to_refuse() {
    let server = Server::start(&[]);
    for accept in ["text/html", "application/json", "*/*;q=0", "nonsense", "text/event-stream"] {
        let stream = server.stream_with("", &format!("Accept: {accept}\r\nAccept-Encoding: br, gzip\r\n"));
        assert_eq!(stream.head.field("content-encoding"), None);
    }
}

#[test]
fn request_ids_are_echoed_or_made() {
    let server = Server::start(&[]);
    let with = |id: &str| server.ask(&format!("GET /health HTTP/1.1\r\nHost: t\r\nX-Request-Id: {id}\r\n\r\n"));
    assert_eq!(with("abc-123").field("x-request-id").as_deref(), Some("abc-123"));
    let made = with("").field("x-request-id").expect("one is made");
    assert_ne!(made, "");
    assert_ne!(server.get("/nowhere").field("x-request-id"), Some(made), "errors have one too, of their own");
    // What cannot be repeated safely, or is too long, is replaced.
    for bad in ["a b", "a\"b\tc", &"x".repeat(1000)] {
        let id = with(bad).field("x-request-id").expect("one is made");
        assert!(id != bad && id.len() <= 128 && id.bytes().all(|b| b.is_ascii_graphic()), "{bad:?} became {id:?}");
    }
    let stream = server.stream_with("", "X-Request-Id: from-the-client\r\n");
    assert_eq!(stream.head.field("x-request-id").as_deref(), Some("from-the-client"));
    let answer = server.ask(&format!("POST {BROADCAST} HTTP/1.1\r\nHost: t\r\nX-Request-Id: p\r\n\r\n"));
    assert_eq!(answer.field("x-request-id").as_deref(), Some("p"));
}

#[test]
fn head_answers_headers_and_opens_no_stream() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    conn.send(format!("HEAD {EVENTS}?topics=a HTTP/1.1\r\nHost: t\r\n\r\n").as_bytes());
    let head = conn.answer_to(true).expect("an answer");
    assert_eq!(head.status, 200, "{head:?}");
    assert_eq!(head.field("content-type").as_deref(), Some("text/event-stream"));
    assert_eq!(head.field("cache-control").as_deref(), Some("no-cache"));
    assert_eq!(head.field("x-accel-buffering").as_deref(), Some("no"));
    // RFC 9110, 8.6: a Content-Length here would be that of GET's body, which has none.
    assert_eq!(head.field("content-length"), None, "{head:?}");
    assert_eq!(server.stats()["connected_clients"], 0);
    // No body came, and the connection is still good for another request.
    conn.send(b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(conn.answer().expect("the next answer").json()["status"], "healthy");
}

#[test]
fn http_1_0_is_served_without_chunks() {
    let server = Server::start(&[]);
    for lines in ["", "Host: t\r\nConnection: keep-alive\r\n"] {
        let mut conn = server.connect();
        conn.send(format!("GET {EVENTS}?topics=a&limit=2 HTTP/1.0\r\n{lines}\r\n").as_bytes());
        let mut stream = Stream::over(conn);
        assert_eq!(stream.head.status, 200);
        assert_eq!(stream.head.field("transfer-encoding"), None, "{:?}", stream.head);
        assert_eq!(stream.head.field("content-length"), None);
        assert_ne!(
            stream.head.field("connection").as_deref(),
            Some("keep-alive"),
            "the body's end is the connection's"
        );
        assert_eq!(stream.head.field("content-type").as_deref(), Some("text/event-stream"));
        stream.expect("connected");
        server.publish("a", "k", "{}");
        stream.expect("k");
        server.publish("a", "k", "{}");
        let (events, end) = stream.read_to_end();
        assert_eq!((events.len(), end), (1, End::Clean));
        assert!(find(&stream.text, b"\r").is_none(), "no chunk sizes in {:?}", stream.body());
    }
    let mut conn = server.connect();
    conn.send(b"GET /health HTTP/1.0\r\n\r\n");
    let answer = conn.answer().expect("an answer");
    assert_eq!((answer.status, answer.field("transfer-encoding")), (200, None));
    assert_eq!(answer.json()["status"], "healthy");
    assert_eq!(conn.drain(), b"", "and the connection ends");
}

#[test]
fn each_frame_is_one_chunk() {
    // Not demanded of a reader, but promised to those who read the socket: what is piled up is whole frames.
    let server = Server::start(&[]);
    let mut conn = server.connect();
    conn.send(format!("GET {EVENTS}?topics=a&limit=1 HTTP/1.1\r\nHost: t\r\n\r\n").as_bytes());
    wait_until("the stream", || server.stat("/connected_clients") == 1);
    server.publish("a", "k", "{}");
    let raw = String::from_utf8(conn.drain()).expect("text");
    let (_, body) = raw.split_once("\r\n\r\n").expect("a head");
    let chunks: Vec<&str> = body.split("\r\n").collect();
    // size, connected, size, k, size, end, 0, "", ""
    assert_eq!(chunks.len(), 9, "{body:?}");
    for (size, data) in [(chunks[0], chunks[1]), (chunks[2], chunks[3]), (chunks[4], chunks[5])] {
        assert_eq!(usize::from_str_radix(size, 16), Ok(data.len()));
        assert!(data.ends_with("\n\n"), "{data:?}");
    }
    assert_eq!(chunks[6..], ["0", "", ""]);
}

#[test]
fn a_kept_connection_answers_one_request_after_another() {
    let server = Server::start(&[]);
    let mut conn: Conn = server.connect();
    for n in 0..50 {
        conn.send(post(JSON, &format!("{{\"type\":\"k\",\"data\":{{\"n\":{n}}}}}")).as_bytes());
        let answer = conn.answer().expect("an answer");
        assert_eq!(answer.status, 200);
        assert_eq!(parts(answer.json()["id"].as_str().expect("an id")).1, n + 1);
    }
    conn.send(b"GET /health HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    assert_eq!(conn.answer().expect("an answer").status, 200);
    assert_eq!(conn.drain(), b"");
}

#[test]
fn limit_ends_the_stream_cleanly() {
    let server = Server::start(&[]);
    let mut stream = server.stream("topics=a&limit=3");
    for _ in 0..5 {
        server.publish("b", "other", "{}");
        server.publish("a", "k", "{}");
    }
    let (events, end) = stream.read_to_end();
    assert_eq!(events.iter().map(|e| e.kind.as_str()).collect::<Vec<_>>(), ["k", "k", "k"]);
    assert_eq!(end, End::Clean);
    server.wait_for_clients(0);
    assert!(stream.next_within(SILENCE).is_none());
}
