//! Pages of other origins (Fetch standard, "CORS protocol"): what the answers tell a browser, what preflights get, and
//! that no page publishes from elsewhere. And `X-Request-Id`, which stands on every answer.

mod common;

use common::{Answer, BROADCAST, Conn, EVENTS, Server, Stream, fanfare};

const APP: &str = "https://app.example.com";
const OTHER: &str = "https://other.example.com";
const STATS: &str = "/api/v1/events/stats";

/// A server that lets these origins in, named as the platform does.
fn server(origins: &str) -> Server {
    let mut command = fanfare();
    command.args(["--listen", "127.0.0.1:0", "--max-body", "2000"]).env("CORS_ORIGINS", origins);
    Server::spawn(command)
}

/// A request with further header lines, each ending in CRLF.
fn request(method: &str, target: &str, lines: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: broker.example\r\n{lines}\r\n")
}

fn origin(origin: &str) -> String {
    if origin.is_empty() { String::new() } else { format!("Origin: {origin}\r\n") }
}

/// A publish with these header lines.
fn publish(lines: &str) -> String {
    request("POST", &format!("{BROADCAST}?topic=t&type=k"), &format!("Content-Length: 0\r\n{lines}"))
}

#[track_caller]
fn code(answer: &Answer) -> String {
    let json = answer.json();
    assert_eq!(json["success"], false, "{answer:?}");
    json["error"]["code"].as_str().unwrap_or_else(|| panic!("no code in {answer:?}")).to_owned()
}

/// One answer of every kind: what was asked, and the answer or the stream's head.
fn answers(server: &Server, lines: &str) -> Vec<(String, Answer)> {
    let large = format!("Content-Type: application/json\r\nContent-Length: 3000\r\n{lines}");
    let requests = [
        (200, request("GET", STATS, lines)),
        (200, request("GET", "/health", lines)),
        (200, request("GET", "/ready", lines)),
        (200, request("HEAD", EVENTS, lines)),
        (200, publish(lines)),
        (204, request("OPTIONS", EVENTS, lines)),
        (400, request("GET", &format!("{EVENTS}?limit=0"), lines)),
        (400, request("GET", "/health", &format!("Host: twice\r\n{lines}"))),
        (404, request("GET", "/nowhere", lines)),
        (404, request("OPTIONS", "/nowhere", lines)),
        (405, request("DELETE", EVENTS, lines)),
        (413, request("POST", BROADCAST, &large)),
    ];
    let mut answers = Vec::new();
    for (status, request) in requests {
        let answer = server.ask(&request);
        assert_eq!(answer.status, status, "{request}: {answer:?}");
        answers.push((request, answer));
    }
    let stream = server.stream_with("topics=t", lines);
    answers.push(("a stream".to_owned(), stream.head.clone()));
    let old = format!("GET {EVENTS}?limit=0x HTTP/1.0\r\n{lines}\r\n");
    answers.push((old.clone(), server.ask(&old)));
    let mut conn = server.connect();
    conn.send(format!("GET {EVENTS} HTTP/1.0\r\n{lines}\r\n").as_bytes());
    answers.push(("a stream of HTTP/1.0".to_owned(), Stream::over(conn).head));
    answers
}

#[track_caller]
fn assert_field(what: &str, answer: &Answer, name: &str, expected: Option<&str>) {
    assert_eq!(answer.field(name).as_deref(), expected, "{name} of {what}: {answer:?}");
}

#[test]
fn without_the_setting_no_answer_speaks_of_origins() {
    for server in [Server::start(&[]), server("")] {
        // Not the page's own, so that its publish would be refused: it is asked without an origin further down.
        for (what, answer) in answers_for_readers(&server, OTHER) {
            for name in ["Vary", "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials"] {
                assert_field(&what, &answer, name, None);
            }
            assert_field(&what, &answer, "Access-Control-Expose-Headers", None);
        }
    }
}

/// The answers of a server to a page that may not publish.
fn answers_for_readers(server: &Server, from: &str) -> Vec<(String, Answer)> {
    let lines = origin(from);
    let stream = server.stream_with("topics=t", &lines);
    let mut answers = vec![("a stream".to_owned(), stream.head.clone())];
    for (method, target) in [("GET", STATS), ("GET", "/nowhere"), ("PUT", EVENTS), ("HEAD", EVENTS)] {
        let request = request(method, target, &lines);
        let answer = server.ask(&request);
        answers.push((request, answer));
    }
    let request = publish(&lines);
    let answer = server.ask(&request);
    assert_eq!(answer.status, 403, "{answer:?}");
    answers.push((request, answer));
    answers
}

#[test]
fn a_named_origin_may_read_every_answer_with_credentials() {
    let server = server(&format!("http://localhost:3000, {APP}"));
    for allowed in [APP, "http://localhost:3000"] {
        for (what, answer) in answers(&server, &origin(allowed)) {
            assert_field(&what, &answer, "Access-Control-Allow-Origin", Some(allowed));
            assert_field(&what, &answer, "Access-Control-Allow-Credentials", Some("true"));
            assert_field(&what, &answer, "Vary", Some("Origin"));
            let exposed = answer.field("Access-Control-Expose-Headers").unwrap_or_default();
            for name in ["X-Request-Id", "Retry-After", "X-RateLimit-Remaining", "X-Ignored"] {
                assert!(exposed.split(", ").any(|exposed| exposed == name), "{what}: {exposed}");
            }
        }
    }
}

#[test]
fn another_origin_may_read_none_and_caches_are_told_why() {
    let server = server(APP);
    for from in [OTHER, "null", "https://app.example.com.evil", "https://app.example.com:444", "http://app.example.com"]
    {
        for (what, answer) in answers_for_readers(&server, from) {
            assert_field(&what, &answer, "Access-Control-Allow-Origin", None);
            assert_field(&what, &answer, "Access-Control-Allow-Credentials", None);
            assert_field(&what, &answer, "Vary", Some("Origin"));
        }
    }
    for (what, answer) in answers(&server, "") {
        assert_field(&what, &answer, "Access-Control-Allow-Origin", None);
        assert_field(&what, &answer, "Vary", Some("Origin"));
    }
}

#[test]
fn a_star_lets_all_read_without_credentials() {
    let server = server("*");
    let own = "http://broker.example";
    let pages = answers(&server, &origin(own)).into_iter().chain(answers(&server, ""));
    for (what, answer) in pages.chain(answers_for_readers(&server, OTHER)) {
        assert_field(&what, &answer, "Access-Control-Allow-Origin", Some("*"));
        assert_field(&what, &answer, "Access-Control-Allow-Credentials", None);
        assert_field(&what, &answer, "Vary", None);
    }
}

#[test]
fn preflights_are_answered() {
    let asked = |from: &str| {
        format!(
            "{}Access-Control-Request-Method: POST\r\n\
             Access-Control-Request-Headers: authorization,content-type\r\n",
            origin(from)
        )
    };
    for (origins, from, allowed) in [(APP, APP, APP), ("*", OTHER, "*")] {
        let server = server(origins);
        for (path, methods) in
            [(BROADCAST, "POST, OPTIONS"), (EVENTS, "GET, HEAD, OPTIONS"), (STATS, "GET, HEAD, OPTIONS")]
        {
            let answer = server.ask(&request("OPTIONS", path, &asked(from)));
            assert_eq!((answer.status, answer.body.len()), (204, 0), "{path}: {answer:?}");
            assert_field(path, &answer, "Content-Length", None);
            assert_field(path, &answer, "Access-Control-Allow-Origin", Some(allowed));
            assert_field(path, &answer, "Access-Control-Allow-Methods", Some(methods));
            let headers = answer.field("Access-Control-Allow-Headers").unwrap_or_default();
            for name in
                ["Authorization", "Content-Type", "Last-Event-ID", "Idempotency-Key", "X-Request-Id", "X-API-Key"]
            {
                assert!(headers.split(", ").any(|header| header == name), "{headers}");
            }
            let age = answer.field("Access-Control-Max-Age").and_then(|age| age.parse::<u64>().ok());
            assert!(age.is_some_and(|age| age > 0), "{answer:?}");
        }
        assert_eq!(server.ask(&request("OPTIONS", "/nowhere", &asked(from))).status, 404);
    }
    for (server, vary) in [(server(APP), Some("Origin")), (Server::start(&[]), None)] {
        let answer = server.ask(&request("OPTIONS", BROADCAST, &asked(OTHER)));
        assert_eq!((answer.status, code(&answer).as_str()), (403, "origin_not_allowed"), "{answer:?}");
        assert_field("a refused preflight", &answer, "Access-Control-Allow-Origin", None);
        assert_field("a refused preflight", &answer, "Access-Control-Allow-Methods", None);
        assert_field("a refused preflight", &answer, "Vary", vary);
    }
}

#[test]
fn plain_options_name_the_methods() {
    let server = Server::start(&[]);
    // Neither header alone makes a preflight.
    for lines in [String::new(), origin(OTHER), "Access-Control-Request-Method: POST\r\n".to_owned()] {
        for (path, methods) in [(EVENTS, "GET, HEAD, OPTIONS"), (BROADCAST, "POST, OPTIONS")] {
            let answer = server.ask(&request("OPTIONS", path, &lines));
            assert_eq!(answer.status, 204, "{answer:?}");
            assert_field(path, &answer, "Allow", Some(methods));
            assert_field(path, &answer, "Access-Control-Allow-Methods", None);
        }
    }
}

#[test]
fn no_page_publishes_from_elsewhere() {
    let server = server(APP);
    let mut stream = server.stream("topics=t");
    let site = |site: &str| format!("Sec-Fetch-Site: {site}\r\n");
    for lines in [
        site("cross-site"),
        site("same-site"),
        origin(OTHER),
        origin("null"),
        origin("http://broker.example:81"),
        origin(OTHER) + &site("cross-site"),
        origin("https://sub.broker.example") + &site("same-site"),
        // The browser's own verdict wins over what looks alike.
        origin("http://broker.example") + &site("cross-site"),
    ] {
        let answer = server.ask(&publish(&lines));
        assert_eq!((answer.status, code(&answer).as_str()), (403, "cross_site"), "{lines}: {answer:?}");
    }
    stream.expect_nothing();
    for lines in [
        String::new(),
        site("same-origin"),
        site("none"),
        origin("http://broker.example"),
        origin("https://BROKER.example"),
        origin("http://before-the-proxy.example") + &site("same-origin"),
        origin(APP),
        origin(APP) + &site("cross-site"),
    ] {
        let answer = server.ask(&publish(&lines));
        assert_eq!(answer.status, 200, "{lines}: {answer:?}");
        stream.expect("k");
    }
}

#[test]
fn no_page_publishes_json_from_elsewhere_under_types_that_need_no_preflight() {
    let server = server(APP);
    let mut stream = server.stream("topics=t");
    let body = r#"{"topic":"t","type":"k"}"#;
    // The three that the Fetch standard lets a page send anywhere unasked, and none.
    let types = ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=b", ""];
    let json = |kind: &str, lines: &str| {
        let kind = if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
        let lines = format!("{kind}Content-Length: {}\r\n{lines}", body.len());
        server.ask(&(request("POST", BROADCAST, &lines) + body))
    };
    for kind in types {
        for lines in
            ["Sec-Fetch-Site: cross-site\r\n", "Sec-Fetch-Site: same-site\r\n", &origin(OTHER), &origin("null")]
        {
            let answer = json(kind, lines);
            assert_eq!((answer.status, code(&answer).as_str()), (403, "cross_site"), "{kind} {lines}: {answer:?}");
        }
    }
    stream.expect_nothing();
    for (kind, status) in types.into_iter().zip([200, 415, 415, 200]) {
        assert_eq!(json(kind, &origin(APP)).status, status, "{kind}");
    }
    stream.expect("k");
    stream.expect("k");
}

#[test]
fn a_refused_publish_leaves_its_connection_in_use() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    let body = "{\"data\":{}}";
    for (lines, status) in [("Sec-Fetch-Site: cross-site\r\n", 403), ("", 200), (&origin(OTHER), 403), ("", 200)] {
        let lines = format!("Content-Type: application/json\r\nContent-Length: {}\r\n{lines}", body.len());
        conn.send((request("POST", BROADCAST, &lines) + body).as_bytes());
        assert_eq!(conn.answer().expect("an answer").status, status);
    }
}

#[test]
fn every_answer_has_a_request_id() {
    for server in [Server::start(&["--max-body", "2000"]), server(APP)] {
        for (what, answer) in answers(&server, "X-Request-Id: mine-42\r\n") {
            assert_field(&what, &answer, "X-Request-Id", Some("mine-42"));
        }
        let made: Vec<String> = answers(&server, "")
            .into_iter()
            .map(|(what, answer)| answer.field("X-Request-Id").unwrap_or_else(|| panic!("{what}: {answer:?}")))
            .collect();
        for (n, id) in made.iter().enumerate() {
            assert!(!id.is_empty() && !made[..n].contains(id), "{id:?} among {made:?}");
        }
        for lines in ["Sec-Fetch-Site: cross-site\r\n", "Idempotency-Key: a b\r\n"] {
            let answer = server.ask(&publish(&format!("X-Request-Id: mine-43\r\n{lines}")));
            assert_field(lines, &answer, "X-Request-Id", Some("mine-43"));
        }
        let preflight = format!("{}Access-Control-Request-Method: GET\r\nX-Request-Id: mine-44\r\n", origin(APP));
        assert_field(
            "preflight",
            &server.ask(&request("OPTIONS", EVENTS, &preflight)),
            "X-Request-Id",
            Some("mine-44"),
        );
    }
}

#[test]
fn settings_come_by_flag_and_file_too() {
    let path = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-cors.toml", std::process::id()));
    std::fs::write(&path, format!("listen = \"127.0.0.1:0\"\ncors-origins = [\"{APP}\", \"{OTHER}\"]\n"))
        .expect("the build's directory can be written to");
    let mut command = fanfare();
    command.arg("--config").arg(&path);
    for (server, from) in
        [(Server::spawn(command), OTHER), (Server::start(&["--cors-origins", "HTTPS://App.Example.COM:443"]), APP)]
    {
        let mut conn = Conn::to(server.addr).expect("it accepts connections");
        conn.send(request("GET", STATS, &origin(from)).as_bytes());
        let answer = conn.answer().expect("an answer");
        assert_field("stats", &answer, "Access-Control-Allow-Origin", Some(from));
    }
}
