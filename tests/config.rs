//! Settings (issue 2, item 5): every flag has its environment variable and its key in the TOML file, in that order of
//! precedence; the Nivo platform's names work; a bad value is named with what was expected, and ends with exit 64
//! (`EX_USAGE` of sysexits.h); `--help` gives units and defaults.

mod common;

use common::{Conn, Server, fanfare};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Output;

/// Every flag, and a value for it that cannot be read.
const FLAGS: &[(&str, &str)] = &[
    ("listen", "nowhere"),
    ("tls-listen", "8443"),
    ("tls-cert", "without-its-key.pem"),
    ("tls-key", "without-its-certificate.pem"),
    ("tls-self-signed", "perhaps"),
    ("shards", "many"),
    ("max-streams", "1.5"),
    ("max-connections", "all"),
    ("heartbeat", "30"),
    ("heartbeat-style", "loud"),
    ("retry", "soon"),
    ("stall-timeout", "-5s"),
    ("peer-timeout", "5 parsecs"),
    ("send-buffer", "64KiBs"),
    ("history-events", "1e6"),
    ("history-bytes", "much"),
    ("history-age", "old"),
    ("topic-events", "x"),
    ("live-events", "x"),
    ("max-topics", "x"),
    ("max-body", "1 Mio"),
    ("max-batch", "x"),
    ("http2-streams", "x"),
    ("cors-origins", "https://a.example/"),
    ("idempotency-window", "10"),
    ("trusted-proxies", "10.0.0.0/33"),
    ("proxy-header", "x-real-ip"),
    ("max-head", "16Ki"),
    ("head-timeout", "0s"),
    ("body-timeout", "fast"),
    ("idle-timeout", ""),
    ("keys-file", "no/such/keys.toml"),
    ("key-rate", "fast"),
    ("publish-rate", "1.5"),
    ("streams-per-address", "x"),
    ("streams-per-user", "x"),
    ("connections-per-second", "x"),
    ("limit-loopback", "perhaps"),
    ("metrics", "perhaps"),
    ("metrics-topics", "a,,b"),
    ("page", "perhaps"),
    ("grace", "100000 years"),
    ("log-format", "xml"),
    ("service-port", "99999"),
    ("auth", "perhaps"),
    ("jwt-secret", ""),
    ("jwt-previous-secret", "a secret that ends never"),
    ("jwt-previous-until", "tomorrow"),
    ("jwt-key", "no/such/key.pem"),
    ("jwks", "no/such/set.json"),
    ("jwks-refresh", "daily"),
    ("jwks-cache", "without-a-url.json"),
    ("jwt-algorithms", "HS256,none"),
    ("jwt-audience", "a,,b"),
    ("jwt-issuer", ""),
    ("jwt-leeway", "-1s"),
    ("all-seeing-roles", ","),
    ("auth-cookie", "a b"),
];

/// Values that can be read and make no sense.
const OUT_OF_RANGE: &[(&str, &str)] = &[
    ("shards", "0"),
    ("heartbeat", "1ms"),
    ("history-events", "0"),
    ("live-events", "0"),
    ("max-topics", "0"),
    ("max-body", "0"),
    ("max-batch", "0"),
    ("http2-streams", "0"),
    ("cors-origins", "*, https://a.example"),
    ("idempotency-window", "1ms"),
    ("max-head", "10"),
    ("key-rate", "1000001"),
    ("publish-rate", "1000001"),
    ("connections-per-second", "1000001"),
    ("auth", "required"),
    ("auth", "optional"),
    ("jwt-previous-until", "2027-01-31T12:00:00Z"),
    ("jwt-leeway", "2h"),
    ("jwks", "https://"),
    ("jwks", "http://user:password@127.0.0.1/keys"),
    ("jwks-refresh", "1ms"),
];

fn variable(flag: &str) -> String {
    match flag {
        "service-port" => "SERVICE_PORT".to_owned(),
        "cors-origins" => "CORS_ORIGINS".to_owned(),
        "jwt-secret" => "JWT_SECRET".to_owned(),
        flag => format!("FANFARE_{}", flag.to_uppercase().replace('-', "_")),
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("a message is text")
}

/// Panics unless the settings were refused, the flag named, and what was expected said.
#[track_caller]
fn assert_refused(output: &Output, flag: &str, value: &str, how: &str) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(64), "{how} {flag}={value:?}: {said}");
    assert!(said.contains(flag), "{how} {flag}={value:?}: does not name it: {said}");
    assert!(
        said.contains("expected") || said.contains("possible values"),
        "{how} {flag}={value:?}: expected what? {said}"
    );
    assert!(!said.contains('\u{1b}'), "colours in a pipe: {said:?}");
    assert!(output.stdout.is_empty(), "nothing was started");
}

/// A file in the build's own temporary directory.
fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}.toml", std::process::id()));
    std::fs::write(&path, text).expect("the build's directory can be written to");
    path
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("there is a free port");
    listener.local_addr().expect("it is bound").port()
}

#[test]
fn a_bad_flag_is_named_with_what_was_expected() {
    for (flag, value) in FLAGS.iter().chain(OUT_OF_RANGE) {
        let output = fanfare().arg(format!("--{flag}={value}")).output().expect("it runs");
        assert_refused(&output, flag, value, "the flag");
    }
}

#[test]
fn a_bad_variable_is_named_with_what_was_expected() {
    for (flag, value) in FLAGS.iter().chain(OUT_OF_RANGE) {
        if value.is_empty() {
            continue;
        }
        let output = fanfare().env(variable(flag), value).output().expect("it runs");
        assert_refused(&output, flag, value, "the variable");
    }
}

#[test]
fn a_bad_file_is_named_with_what_was_expected() {
    for (name, text, named) in [
        ("unknown", "sharts = 2\n", "sharts"),
        ("type", "shards = \"two\"\n", "shards"),
        ("span", "heartbeat = \"30\"\n", "heartbeat"),
        ("bytes", "max-body = \"much\"\n", "max-body"),
        ("range", "max-topics = 0\n", "max-topics"),
        ("origin", "cors-origins = [\"https://a.example\", \"b\"]\n", "cors-origins"),
        ("list", "trusted-proxies = 10\n", "trusted-proxies"),
        ("syntax", "shards = = 2\n", "="),
    ] {
        let path = file(name, text);
        let output = fanfare().arg("--config").arg(&path).output().expect("it runs");
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(64), "{text}: {said}");
        assert!(said.contains(named) && said.contains("expected"), "{text}: {said}");
    }
    let output = fanfare().args(["--config", "no/such/file.toml"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("no/such/file.toml"), "{}", stderr(&output));
}

#[test]
fn what_contradicts_itself_about_tokens_is_refused() {
    let pem = file("key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let pem = pem.to_str().expect("text");
    let until = "--jwt-previous-until=2027-01-31T12:00:00Z";
    for (flags, named) in [
        (&["--jwt-secret=a", "--jwt-key", pem][..], "jwt-key"),
        (&["--jwt-secret=a", "--jwks=https://issuer.example/keys"], "jwks"),
        (&["--jwt-secret=a", "--jwt-algorithms=RS256"], "RS256"),
        (&["--jwt-secret=a", "--jwt-previous-secret=", until], "jwt-previous-secret"),
        (&["--jwt-previous-secret=a", until], "jwt-secret"),
        (&["--jwks=https://issuer.example/keys", "--jwt-algorithms=HS256"], "HS256"),
        (&["--jwt-key", pem], "PUBLIC KEY"),
    ] {
        let output = fanfare().args(flags).output().expect("it runs");
        assert_refused(&output, named, "", "a contradiction about");
    }
}

#[test]
fn a_secret_is_in_no_message() {
    const SECRET: &str = "correct-horse-battery-staple";
    let flag = format!("--jwt-secret={SECRET}");
    let previous = format!("--jwt-previous-secret={SECRET}");
    let arguments = [
        vec![&*flag, "--jwt-algorithms=RS256"],
        vec![&flag, "--shards=many"],
        vec![&flag, "--jwks=nowhere"],
        vec![&previous],
        vec!["--jwks=http://me:correct-horse-battery-staple@127.0.0.1/keys"],
        vec![&flag, "--help"],
    ];
    for arguments in arguments {
        let output = fanfare().args(&arguments).env("JWT_SECRET", SECRET).output().expect("it runs");
        let said = stderr(&output) + &String::from_utf8_lossy(&output.stdout);
        assert!(!said.is_empty() && !said.contains("horse"), "{arguments:?}: {said}");
    }
    for (name, text) in [
        ("secret-unclosed", format!("shards = 1\njwt-secret = \"{SECRET}\n")),
        ("secret-bare", format!("jwt-secret = {SECRET}\n")),
        ("secret-type", format!("jwt-secret = [\"{SECRET}\"]\n")),
        ("secret-twice", format!("jwt-secret = \"{SECRET}\"\njwt-secret = \"{SECRET}\"\n")),
        ("secret-beside", format!("jwt-secret = \"{SECRET}\"\nshards = \"{{\"\n")),
    ] {
        let output = fanfare().arg("--config").arg(file(name, &text)).output().expect("it runs");
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(64), "{text}: {said}");
        assert!(said.contains("line ") && !said.contains("horse"), "{said}");
    }
    let mut command = fanfare();
    command.args(["--listen", "127.0.0.1:0", "--log", "trace"]).env("JWT_SECRET", SECRET);
    let server = Server::spawn(command);
    assert_eq!(server.get("/health").status, 200);
    assert!(!server.log().contains("horse"), "{}", server.log());
}

#[test]
fn an_unknown_flag_and_a_bad_log_filter_are_refused() {
    for arguments in [&["--sharts", "2"][..], &["--shards"], &["brew"], &["--log", "fanfare=loudly"]] {
        let output = fanfare().args(arguments).output().expect("it runs");
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {}", stderr(&output));
        let named = arguments[0].trim_start_matches('-');
        assert!(stderr(&output).contains(named), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn settings_of_tls_that_do_not_fit_are_refused() {
    for (arguments, expected) in [
        (&["--tls-listen", "127.0.0.1:0"][..], "expected --tls-cert and --tls-key, or --tls-self-signed"),
        (&["--tls-cert", "c.pem", "--tls-key", "k.pem"], "expected an address to speak TLS on"),
        (&["--tls-listen", "127.0.0.1:0", "--tls-cert", "c.pem"], "expected both"),
        (&["--tls-listen", "127.0.0.1:0", "--tls-key", "k.pem", "--tls-self-signed"], "expected one or the other"),
    ] {
        let output = fanfare().args(arguments).output().expect("it runs");
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
    }
    let path = file("tls", "tls-self-signed = true\ntls-cert = \"c.pem\"\n");
    let output = fanfare().arg("--config").arg(&path).output().expect("it runs");
    assert!(stderr(&output).contains("--tls-self-signed with --tls-cert"), "{}", stderr(&output));
}

#[test]
fn an_address_in_use_is_an_error_and_no_usage_error() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let output = fanfare().args(["--listen", &address]).output().expect("it runs");
    let said = stderr(&output) + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && output.status.code() != Some(64), "{}: {said}", output.status);
    assert!(said.contains(&address), "{said}");
}

#[test]
fn help_explains_every_flag_with_unit_and_default() {
    let output = fanfare().args(["serve", "--help"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty(), "help that was asked for is output");
    let help = String::from_utf8(output.stdout).expect("help is text");
    // Cut into the flags' paragraphs.
    let starts: Vec<usize> = help.match_indices("  --").map(|(at, _)| at).chain([help.len()]).collect();
    let about = |flag: &str| {
        let at = starts
            .iter()
            .position(|&at| help[at..].trim_start().split([' ', '\n', '[']).next() == Some(&format!("--{flag}")));
        let at = at.unwrap_or_else(|| panic!("no --{flag} in {help}"));
        help[starts[at]..starts[at + 1]].split_whitespace().collect::<Vec<_>>().join(" ")
    };
    for (flag, _) in FLAGS {
        let text = about(flag);
        assert!(text.contains(&format!("[env: {}", variable(flag))), "{text}");
        if *flag != "service-port" {
            assert!(text.contains("[default: "), "{text}");
        }
        let unit = match *flag {
            "listen" | "tls-listen" => "<ADDRESS:PORT>",
            "tls-cert" | "tls-key" => "<FILE>",
            "tls-self-signed" => "<BOOL>",
            "service-port" => "<PORT>",
            "keys-file" => "<FILE>",
            "limit-loopback" | "metrics" | "page" => "<BOOL>",
            "metrics-topics" => "<TOPICS>",
            "heartbeat-style" => "<STYLE>",
            "log-format" => "<FORMAT>",
            "auth" => "<MODE>",
            "jwt-secret" | "jwt-previous-secret" => "<SECRET>",
            "jwt-previous-until" => "<TIME>",
            "jwt-key" | "jwks-cache" => "<FILE>",
            "jwks" => "<FILE|URL>",
            "jwt-algorithms" | "jwt-audience" | "jwt-issuer" | "all-seeing-roles" => "<LIST>",
            "auth-cookie" => "<NAME>",
            "heartbeat" | "retry" | "stall-timeout" | "peer-timeout" | "history-age" | "head-timeout"
            | "body-timeout" | "idle-timeout" | "idempotency-window" | "grace" | "jwks-refresh" | "jwt-leeway" => {
                "<SPAN>"
            }
            "cors-origins" => "<ORIGINS>",
            "trusted-proxies" => "<NETWORKS>",
            "proxy-header" => "<HEADER>",
            "send-buffer" | "history-bytes" | "max-body" | "max-head" => "<BYTES>",
            _ => "<N>",
        };
        assert!(text.contains(unit), "{text}");
    }
    about("config");
    about("log");
    // And every flag is in the table above, so that a new one is tested.
    for start in &starts[..starts.len() - 1] {
        let flag =
            help[*start..].trim_start().trim_start_matches('-').split([' ', '\n', '[']).next().unwrap_or_default();
        let known = FLAGS.iter().any(|(known, _)| known == &flag);
        assert!(
            known || matches!(flag, "config" | "log" | "environment" | "help" | "version"),
            "--{flag} is not tested"
        );
    }
    let version = fanfare().arg("--version").output().expect("it runs");
    assert_eq!(version.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
}

/// What the server was told its retry is, as its streams are told.
fn retry_ms(server: &Server) -> Option<u64> {
    server.stream("").connected.retry
}

#[test]
fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let path = file("precedence", "listen = \"127.0.0.1:0\"\nretry = \"1s\"\nmax-streams = 17\nmax-body = 2048\n");
    let server = Server::start(&[]);
    assert_eq!(retry_ms(&server), Some(3000), "the default");

    let start = |environment: &[(&str, &str)], flags: &[&str]| {
        let mut command = fanfare();
        command.arg("--config").arg(&path).args(flags).envs(environment.iter().copied());
        Server::spawn(command)
    };
    let server = start(&[], &[]);
    assert!(server.addr.ip().is_loopback() && server.addr.port() != 8000, "the file's address: {}", server.addr);
    assert_eq!(retry_ms(&server), Some(1000), "the file");
    assert_eq!(server.stat("/max_clients"), 17);
    assert_eq!(server.post_json(&" ".repeat(2049)).status, 413);
    let server = start(&[("FANFARE_RETRY", "2s")], &[]);
    assert_eq!(retry_ms(&server), Some(2000), "the environment");
    assert_eq!(server.stat("/max_clients"), 17, "still the file");
    let server = start(&[("FANFARE_RETRY", "2s")], &["--retry", "4s"]);
    assert_eq!(retry_ms(&server), Some(4000), "the flag");

    let mut command = fanfare();
    command.env("FANFARE_CONFIG", &path).env("FANFARE_MAX_STREAMS", "5");
    let server = Server::spawn(command);
    assert_eq!((retry_ms(&server), server.stat("/max_clients")), (Some(1000), 5), "the file's name by environment");
}

#[test]
fn settings_that_are_gone_are_ignored_with_a_warning() {
    let warning = |flag: &str| format!("--{flag} is gone and has no effect: ");
    let help = fanfare().args(["serve", "--help"]).output().expect("it runs");
    for flag in ["http-threads", "idempotency-keys", "key-burst", "publish-burst"] {
        assert!(!String::from_utf8_lossy(&help.stdout).contains(&format!("--{flag}")), "{flag} is in the help");
        let path = file(flag, &format!("{flag} = 3\n"));
        let mut variants = [fanfare(), fanfare(), fanfare()];
        for command in &mut variants {
            command.arg("check");
        }
        variants[0].arg(format!("--{flag}=no number at all"));
        variants[1].env(variable(flag), "0");
        variants[2].arg(&path);
        for mut command in variants {
            let output = command.output().expect("it runs");
            let said = String::from_utf8_lossy(&output.stdout);
            assert_eq!(output.status.code(), Some(0), "{command:?}: {}", stderr(&output));
            assert_eq!(said.matches(&warning(flag)).count(), 1, "{command:?}: {said}");
            assert!(!said.contains(&format!("{flag} = ")), "{command:?} shows it as a setting: {said}");
        }
    }
    let server = Server::start(&["--publish-burst", "1", "--http-threads", "1"]);
    let log = common::wait_for("the warnings", || {
        let log = server.log();
        log.contains(&warning("publish-burst")).then_some(log)
    });
    assert!(log.contains(&warning("http-threads")), "{log}");
}

#[test]
fn spans_and_bytes_are_read_in_their_units() {
    for (retry, ms) in [("1500ms", 1500), ("2s", 2000), ("1m", 60_000), ("1h 30m", 5_400_000)] {
        assert_eq!(retry_ms(&Server::start(&["--retry", retry])), Some(ms), "{retry}");
    }
    for (max_body, bytes) in [("1000", 1000), ("2kB", 2000), ("2KiB", 2048), ("1B", 1)] {
        let server = Server::start(&["--max-body", max_body]);
        assert_eq!(server.post_json(&" ".repeat(bytes)).status, 400, "{max_body}: just fits, and is no JSON");
        assert_eq!(server.post_json(&" ".repeat(bytes + 1)).status, 413, "{max_body}");
    }
}

#[test]
fn service_port_listens_on_all_addresses() {
    let port = free_port();
    let mut command = fanfare();
    command.env("SERVICE_PORT", port.to_string());
    let server = Server::spawn(command);
    assert!(server.addr.ip().is_unspecified(), "{}", server.addr);
    assert_eq!(server.addr.port(), port);
    // 127.0.0.2 is this machine too, and not the address that a listener on 127.0.0.1 has.
    for ip in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)] {
        let mut conn = Conn::to(SocketAddr::from((ip, port))).expect("it accepts connections");
        conn.send(b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n");
        assert_eq!(conn.answer().expect("an answer").status, 200, "{ip}");
    }
    // Its own name wins, from wherever it comes.
    for listen in ["flag", "environment"] {
        let mut command = fanfare();
        command.env("SERVICE_PORT", free_port().to_string());
        match listen {
            "flag" => command.args(["--listen", "127.0.0.1:0"]),
            _ => command.env("FANFARE_LISTEN", "127.0.0.1:0"),
        };
        assert!(Server::spawn(command).addr.ip().is_loopback(), "{listen}");
    }
}

#[test]
fn nivos_other_names_disturb_nothing_and_production_logs_json() {
    let mut command = fanfare();
    command.args(["--listen", "127.0.0.1:0"]).env("ENVIRONMENT", "production");
    command.env("JWT_SECRET", "s").env("CORS_ORIGINS", "http://localhost:3000").env("GATEWAY_URL", "http://x");
    let server = Server::spawn(command);
    assert_eq!(server.get("/health").status, 200);
    let log = common::wait_for("a line of the log", || server.log().lines().next().map(str::to_owned));
    let line: serde_json::Value = serde_json::from_str(&log).unwrap_or_else(|error| panic!("{error}: {log}"));
    assert!(line["fields"]["message"].is_string() || line["message"].is_string(), "{line}");
}

#[test]
fn there_is_no_line_in_the_log_for_each_event_or_stream() {
    let server = Server::start(&[]);
    for _ in 0..20 {
        let mut stream = server.stream("topics=a");
        server.publish("a", "k", "{}");
        stream.expect("k");
    }
    server.wait_for_clients(0);
    let log = server.log();
    assert!(log.lines().count() < 10, "{log}");
    assert!(log.contains("listening"), "{log}");
    assert!(!log.contains('\u{1b}'), "colours in a pipe: {log:?}");
}
