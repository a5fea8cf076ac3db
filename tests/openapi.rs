//! `deploy/openapi.yaml` is what the broker does: schemathesis asks it for everything that is described, in the right way
//! and in wrong ones; and no path, method or error code is in one and not in the other.

#[path = "clients/tools.rs"]
#[allow(dead_code, reason = "each test that uses these tools needs some of them")]
mod tools;

#[path = "common/tokens.rs"]
#[allow(dead_code, reason = "each test that needs tokens uses some of it")]
mod tokens;

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::{Server, deployed, fanfare};
use fanfare::auth::token::Algorithm;
use fanfare::http::routes::ROUTES;
use serde_json::json;

use tokens::{Issuer, SECRET};

const SERVICE_KEY: &str = "a-service-and-nobody-else";
const OPERATOR_KEY: &str = "an-operator-and-nobody-else";

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn description() -> String {
    deployed("openapi.yaml")
}

/// A broker that asks for everything that can be asked for.
fn secured() -> Server {
    let mut command = fanfare();
    command.args(["--listen", "127.0.0.1:0"]).env("JWT_SECRET", SECRET);
    command.env("FANFARE_KEYS", format!("service:{SERVICE_KEY}")).env("FANFARE_ADMIN_KEY", OPERATOR_KEY);
    Server::spawn(command)
}

/// The paths that are described, with their methods. The file is laid out so that it can be read line by line.
fn described() -> BTreeMap<String, BTreeSet<String>> {
    let text = description();
    let (_, paths) = text.split_once("\npaths:\n").expect("there are paths");
    let (paths, _) = paths.split_once("\ncomponents:\n").expect("components come after them");
    let mut described: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let (mut path, mut named) = (String::new(), BTreeMap::new());
    for line in paths.lines() {
        let indent = line.len() - line.trim_start().len();
        let Some((key, value)) = line.trim().split_once(':') else { continue };
        match (indent, value.trim().split_at_checked(1)) {
            (2, Some(("*", name))) => {
                let same: &String = &named[name];
                described.insert(key.to_owned(), described[same].clone());
            }
            (2, anchor) => {
                key.clone_into(&mut path);
                if let Some(("&", name)) = anchor {
                    named.insert(name, path.clone());
                }
            }
            (4, _) => {
                described.entry(path.clone()).or_default().insert(key.to_uppercase());
            }
            _ => {}
        }
    }
    described
}

/// The texts between quotation marks in code, comments left out.
fn literals(code: &str) -> BTreeSet<&str> {
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| line.split('"').skip(1).step_by(2)).collect()
}

#[test]
fn every_path_and_method_is_described_and_no_other() {
    let described = described();
    let routed: BTreeMap<String, BTreeSet<String>> = ROUTES
        .iter()
        .map(|route| (route.path.to_owned(), route.allow().split(", ").map(str::to_owned).collect()))
        .collect();
    assert_eq!(described, routed);

    let server = secured();
    for (path, methods) in &described {
        let answer = server.ask(&format!("OPTIONS {path} HTTP/1.1\r\nHost: t\r\n\r\n"));
        assert_eq!(answer.status, 204, "{path}: {answer:?}");
        let allowed = answer.field("allow").expect("OPTIONS says what is allowed");
        let allowed: BTreeSet<String> = allowed.split(", ").map(str::to_owned).collect();
        assert_eq!(allowed, *methods, "{path}");
    }
}

#[test]
fn every_error_code_is_described_and_no_other() {
    let text = description();
    let (_, codes) = text.split_once("enum: [bad_request,").expect("the codes begin with it");
    let (codes, _) = codes.split_once(']').expect("the list ends");
    let mut described: BTreeSet<&str> = codes.split(',').map(str::trim).collect();
    described.insert("bad_request");
    // Its answer is the Go gateway's and has no code.
    described.insert("rate_limited");
    let source = read("src/http/reply.rs");
    let (_, code) = source.split_once("pub fn code(").expect("it is there");
    let (code, _) = code.split_once("    fn ").expect("it ends");
    assert_eq!(described, literals(code));
}

#[test]
fn it_is_of_this_version() {
    assert!(description().contains(&format!("\n  version: {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn schemathesis_finds_nothing_wrong() {
    let found = tools::or_skip("schemathesis", tools::python_module("schemathesis.cli"));
    let Some(mut command) = found else { return };
    let mut server = secured();
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_secs();
    let issuer = Issuer::new(Algorithm::HS256, "k", now_s);
    let claims = json!({"exp": now_s + 900, "user_id": "u", "roles": ["admin"], "fanfare": {"publish": ["*"]}});
    let token = issuer.sign(&issuer.header(), &claims.to_string());

    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("schemathesis-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("there is room");
    let report = fs::File::create(folder.join("report")).expect("there is room");
    let report_too = report.try_clone().expect("a descriptor");
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command.args(["--config-file", "tests/clients/schemathesis.toml", "run", "deploy/openapi.yaml", "--url"]);
    command.arg(format!("http://{}", server.addr)).env("HYPOTHESIS_STORAGE_DIRECTORY", &folder);
    command.env("TOKEN", token).env("SERVICE_KEY", SERVICE_KEY).env("OPERATOR_KEY", OPERATOR_KEY);
    let mut child = command.stdin(Stdio::null()).stdout(report).stderr(report_too).spawn().expect("it runs");
    // It takes ten seconds where the machine has nothing else to do.
    let deadline = Instant::now() + Duration::from_secs(180);
    let status = loop {
        if let Some(status) = child.try_wait().expect("it can be asked") {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("schemathesis does not end: {}", fs::read_to_string(folder.join("report")).unwrap_or_default());
        }
        thread::sleep(Duration::from_millis(50));
    };
    let said = fs::read_to_string(folder.join("report")).expect("it is text");
    assert!(status.success(), "{said}");
    let operations: usize = described().values().map(BTreeSet::len).sum();
    assert!(said.contains(&format!("Tested: {operations}")), "{said}");
    server.assert_well();
    let _ = fs::remove_dir_all(&folder);
}
