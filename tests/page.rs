//! The page at `/`: what is in it and how it is sent, byte for byte; and how it behaves in a browser, with a script for
//! each thing that people do with it (`clients/page.js`).

#[path = "clients/tools.rs"]
#[allow(dead_code, reason = "each test that uses these tools needs some of them")]
mod tools;

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Stdio};
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::{Answer, Server, clean, fanfare};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;

const ADMIN: &str = "the operator's own key";
const SECRET: &str = "a secret of more than 32 bytes that nobody else knows";

/// What the page may weigh: it is loaded over links of all kinds, uncompressed.
const BYTES_MAX: usize = 90_000;

/// A server with an operator, a service, and tokens.
fn guarded() -> Server {
    let mut command = fanfare();
    command.args(["--listen", "127.0.0.1:0"]).env("FANFARE_ADMIN_KEY", ADMIN).env("JWT_SECRET", SECRET);
    command.env("FANFARE_KEYS", "wallets:0123456789abcdef");
    Server::spawn(command)
}

fn with_key(server: &Server, key: &str) -> Answer {
    server.ask(&format!("GET / HTTP/1.1\r\nHost: t\r\nX-API-Key: {key}\r\n\r\n"))
}

/// The texts of a document's elements of this name.
fn inline<'a>(document: &'a str, name: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let after = document.split(&open).skip(1);
    after.map(|rest| rest.split_once(&close).expect("it is closed").0).collect()
}

/// A text as a policy names it.
fn source(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(digest(&SHA256, text.as_bytes())))
}

/// A policy's directives.
fn directives(answer: &Answer) -> Vec<(String, Vec<String>)> {
    let policy = answer.field("content-security-policy").expect("it has one");
    let directives = policy.split("; ").map(|directive| {
        let mut words = directive.split(' ').map(str::to_owned);
        (words.next().expect("a name"), words.collect())
    });
    directives.collect()
}

fn assert_is_document(answer: &Answer) {
    assert_eq!(answer.field("content-type").as_deref(), Some("text/html; charset=utf-8"));
    assert_eq!(answer.field("cache-control").as_deref(), Some("no-store"));
    assert_eq!(answer.field("x-content-type-options").as_deref(), Some("nosniff"));
    assert_eq!(answer.field("referrer-policy").as_deref(), Some("no-referrer"));
}

#[test]
fn a_browser_may_run_what_is_in_the_documents_and_nothing_else() {
    let server = guarded();
    let (sign_in, page) = (server.get("/"), with_key(&server, ADMIN));
    assert_eq!((sign_in.status, page.status), (401, 200));
    assert!(sign_in.field("www-authenticate").expect("RFC 9110, 15.5.2").starts_with("Bearer "));
    assert_eq!(directives(&sign_in), directives(&page), "the first one's policy stays when the page takes its place");
    let (sign_in_text, page_text) = (sign_in.text(), page.text());
    let one = |document, name| {
        let found = inline(document, name);
        assert_eq!(found.len(), 1, "{name}");
        source(found[0])
    };
    assert_eq!(one(&sign_in_text, "style"), one(&page_text, "style"));
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let expected = [
        ("default-src", owned(&["'none'"])),
        ("connect-src", owned(&["'self'"])),
        ("img-src", owned(&["data:"])),
        ("script-src", vec![one(&page_text, "script"), one(&sign_in_text, "script")]),
        ("style-src", vec![one(&page_text, "style")]),
        ("base-uri", owned(&["'none'"])),
        ("form-action", owned(&["'none'"])),
        ("frame-ancestors", owned(&["'none'"])),
    ];
    let expected: Vec<_> = expected.into_iter().map(|(name, sources)| (name.to_owned(), sources)).collect();
    assert_eq!(directives(&page), expected);
    for answer in [&sign_in, &page] {
        assert_is_document(answer);
    }
}

#[test]
fn the_documents_stand_alone() {
    let server = guarded();
    for document in [server.get("/").text(), with_key(&server, ADMIN).text()] {
        assert!(document.starts_with("<!doctype html>\n<html lang=\"en\""), "{}", &document[..60]);
        assert!(document.len() < BYTES_MAX, "{} bytes", document.len());
        for link in document.split("href=\"").skip(1) {
            assert!(link.starts_with('#') || link.starts_with("data:"), "{}", &link[..40]);
        }
        // What loads something, runs what is no script of ours, or takes text for markup.
        for way in [
            " src=",
            "url(",
            "@import",
            "import(",
            "importScripts",
            "<iframe",
            "<base",
            "http-equiv",
            " style=\"",
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "DOMParser",
            "createContextualFragment",
            "eval(",
            "new Function",
            "javascript:",
            " onclick",
            " onload",
            " onerror",
            "http://",
            "https://",
            ADMIN,
        ] {
            let namespaces = ["xmlns='http://www.w3.org/2000/svg'", "'http://www.w3.org/2000/svg'"];
            let text = namespaces.iter().fold(document.clone(), |text, name| text.replace(name, ""));
            assert!(!text.contains(way), "{way:?} is in {}", &document[..60]);
        }
    }
}

#[test]
fn it_is_read_and_nothing_else() {
    let server = Server::start(&[]);
    let page = server.get("/");
    assert_eq!(page.status, 200);
    assert_is_document(&page);
    let head = server.ask("HEAD / HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!((head.status, head.body.len()), (200, 0));
    for name in ["content-type", "content-length", "content-security-policy", "cache-control"] {
        assert_eq!(head.field(name), page.field(name), "{name}");
    }
    for method in ["POST", "PUT", "DELETE"] {
        let answer = server.ask(&format!("{method} / HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.field("allow").as_deref(), Some("GET, HEAD, OPTIONS"));
    }
    let options = server.ask("OPTIONS / HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!((options.status, options.field("allow").as_deref()), (204, Some("GET, HEAD, OPTIONS")));
    assert_eq!(server.get("/?a=b").status, 200);
}

#[test]
fn it_can_be_switched_off() {
    let server = Server::start(&["--page", "false"]);
    for method in ["GET", "HEAD", "POST", "OPTIONS"] {
        let answer = server.ask(&format!("{method} / HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(answer.status, 404, "{method}");
    }
}

#[test]
fn it_is_the_operators_where_there_is_one() {
    let server = guarded();
    for (key, status, code) in [("not the key", 401, "key_unknown"), ("0123456789abcdef", 403, "forbidden")] {
        let answer = with_key(&server, key);
        assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (status, Some(code)), "{key}");
    }
    let bearer = server.ask(&format!("GET / HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {ADMIN}\r\n\r\n"));
    assert_eq!((bearer.status, bearer.text()), (200, with_key(&server, ADMIN).text()));
    let head = server.ask("HEAD / HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!((head.status, head.body.len()), (401, 0));
    // Each refusal is counted, whatever it looks like.
    let problems = &server.stats()["problems"];
    assert_eq!(problems, &json!({"token_missing": 1, "key_unknown": 1, "forbidden": 1}));
}

#[test]
fn it_tells_what_has_to_be_shown() {
    let with = |name: &str, value: &str| {
        let mut command = fanfare();
        command.args(["--listen", "127.0.0.1:0"]).env(name, value);
        Server::spawn(command)
    };
    for (server, tokens, keys) in [
        (Server::start(&[]), false, false),
        (with("JWT_SECRET", SECRET), true, true),
        (with("FANFARE_KEYS", "wallets:0123456789abcdef"), false, true),
    ] {
        let root = format!("<html lang=\"en\" data-tokens=\"{tokens}\" data-keys=\"{keys}\">");
        assert!(server.get("/").text().contains(&root), "{root}");
    }
}

#[test]
fn its_reader_of_streams_agrees_with_one_that_nobody_here_wrote() {
    let Some(mut command) = tools::or_skip("the page's reader of streams", tools::node("frames.js")) else { return };
    let output = command.output().expect("Node.js runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, b"passed\n");
}

// ---- in a browser

/// One at a time: each has processes enough of its own.
static BROWSER: Mutex<()> = Mutex::new(());

/// A scene of `clients/page.js`, played to its end unless the machine has no browser.
struct Scene {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Scene {
    fn open(name: &str, server: &Server, environment: &[(&str, &str)]) -> Option<Scene> {
        let command = tools::or_skip(&format!("the page in Chromium, {name}"), tools::node_with_chromium("page.js"))?;
        let mut command = clean(command);
        let url = match server.tls {
            None => format!("http://{}/", server.addr),
            Some(address) => format!("https://{address}/"),
        };
        command.arg(name).arg(url).envs(environment.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("Node.js runs");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Some(Scene { child, lines })
    }

    /// The next thing it asks for; it ends itself if it gets nowhere.
    #[track_caller]
    fn expect(&mut self, line: &str) {
        let next = self.lines.next().and_then(Result::ok);
        assert_eq!(next.as_deref(), Some(line), "it says on its standard error what went wrong");
    }

    /// Tells it that it was done.
    fn go_on(&mut self) {
        self.child.stdin.as_mut().expect("piped").write_all(b"done\n").expect("it waits for that");
    }

    #[track_caller]
    fn end(mut self) {
        self.expect("passed");
        assert!(self.child.wait().expect("it ends").success());
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn play(name: &str, mut server: Server, environment: &[(&str, &str)]) {
    let _alone = BROWSER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(scene) = Scene::open(name, &server, environment) {
        scene.end();
    }
    server.assert_well();
}

#[test]
fn somebody_new_publishes_and_watches() {
    play("newcomer", Server::start(&[]), &[]);
}

#[test]
fn a_flood_is_shown_as_far_as_one_can_see_and_the_rest_is_counted() {
    play("flood", Server::start(&[]), &[]);
}

#[test]
fn over_http2_it_is_the_same() {
    let server = Server::start(&["--tls-self-signed", "--tls-listen", "127.0.0.1:0"]);
    play("flood", server, &[("NODE_TLS_REJECT_UNAUTHORIZED", "0"), ("NODE_NO_WARNINGS", "1")]);
}

#[test]
fn what_is_published_is_text_and_nothing_else() {
    play("hostile", Server::start(&[]), &[]);
}

#[test]
fn a_keyboard_is_enough() {
    play("keyboard", Server::start(&[]), &[]);
}

#[test]
fn it_looks_right_in_light_and_dark_and_on_a_phone() {
    play("looks", Server::start(&[]), &[]);
}

#[test]
fn an_operator_signs_in_and_out() {
    play("operator", guarded(), &[("KEY", ADMIN)]);
}

#[test]
fn what_the_server_refuses_is_told_in_its_words() {
    let mut command = fanfare();
    command.args(["--listen", "127.0.0.1:0"]).env("JWT_SECRET", SECRET);
    let claims = json!({"sub": "u1", "exp": 4_000_000_000_u64, "roles": ["admin"]});
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let token = jsonwebtoken::encode(&Header::default(), &claims, &key).expect("it can be signed");
    play("refused", Server::spawn(command), &[("TOKEN", &token)]);
}

#[test]
fn a_restart_is_survived_and_told() {
    let _alone = BROWSER.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start(&[]);
    let Some(mut scene) = Scene::open("restart", &server, &[]) else { return };
    scene.expect("stop the broker");
    let address = server.addr.to_string();
    drop(server);
    scene.go_on();
    scene.expect("start the broker");
    let mut command = fanfare();
    command.args(["--listen", &address]);
    let _server = Server::spawn(command);
    scene.go_on();
    scene.end();
}
