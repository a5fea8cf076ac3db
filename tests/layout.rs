//! The layout as a test (`DESIGN.md`, "Where things live"; `EXAMPLES.md` on house rules that are tests): a file uses
//! only what stands below it, nothing below `http` knows HTTP, and only `frame.rs` writes Server-Sent Events.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The modules from the top to the bottom, as `src/lib.rs` says too.
const ORDER: [&str; 24] = [
    "cli",
    "app",
    "config",
    "server",
    "http",
    "auth",
    "broker",
    "fanout",
    "log",
    "limit",
    "tls",
    "pattern",
    "event",
    "frame",
    "id",
    "process",
    "histogram",
    "trace",
    "publisher",
    "client",
    "sse",
    "name",
    "clock",
    "sync",
];

/// Every source file with its module's name (`main` and `lib` are above all).
fn sources() -> Vec<(String, PathBuf, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).expect("the sources are there") {
            let path = entry.expect("it can be read").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    found.sort();
    let named = found.into_iter().map(|path| {
        let inner = path.strip_prefix(&root).expect("it is below the root").with_extension("");
        let module = inner.components().next().expect("it has a name").as_os_str().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("it is text");
        (module, path, text)
    });
    named.collect()
}

/// A file's code without comments, and without its unit tests, which may reach for more.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The top-level modules that code names by `crate::…`, also in groups such as `crate::{a, b::c}`.
fn used(code: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    for (at, name) in code.match_indices("crate::") {
        let rest = &code[at + name.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            used.insert(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut part = String::new();
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    used.insert(word(part.trim()));
                    part.clear();
                    continue;
                }
                _ => {}
            }
            part.push(c);
        }
        used.insert(word(part.trim()));
    }
    used.retain(|name| !name.is_empty());
    used
}

#[test]
fn a_file_uses_only_what_stands_below_it() {
    let rank = |module: &str| ORDER.iter().position(|name| *name == module);
    for (module, path, text) in sources() {
        if module == "main" || module == "lib" {
            continue;
        }
        let Some(own) = rank(&module) else { panic!("{} has no place in the order of DESIGN.md", path.display()) };
        for other in used(&code(&text)) {
            let Some(theirs) = rank(&other) else { panic!("{} uses crate::{other}", path.display()) };
            assert!(theirs >= own, "{} uses crate::{other}, which stands above it", path.display());
        }
    }
}

#[test]
fn the_order_is_the_one_that_the_crate_documents() {
    let (_, _, lib) = sources().into_iter().find(|(module, ..)| module == "lib").expect("there is a lib.rs");
    let documentation: String =
        lib.lines().filter_map(|line| line.strip_prefix("//!")).map(str::trim).collect::<Vec<_>>().join(" ");
    assert!(documentation.contains(&ORDER.join(", ")), "lib.rs gives another order than {ORDER:?}");
    let modules: BTreeSet<&str> = lib
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'))
        .collect();
    assert_eq!(modules, ORDER.into_iter().collect(), "and these are all the modules");
}

#[test]
fn nothing_below_http_knows_http() {
    for (module, path, text) in sources() {
        if !["limit", "broker", "fanout", "log", "pattern", "event", "frame", "id", "name", "clock"]
            .contains(&module.as_str())
        {
            continue;
        }
        for library in ["hyper", "http_body_util", "hyper_util", "StatusCode"] {
            assert!(!code(&text).contains(library), "{} knows {library}", path.display());
        }
    }
}

#[test]
fn only_one_file_writes_server_sent_events() {
    for (module, path, text) in sources() {
        for field in ["\"data: ", "\"event: ", "\"id: ", "\"retry: ", "\\ndata: ", "\\nevent: ", "\\nid: "] {
            assert!(module == "frame" || !code(&text).contains(field), "{} writes {field:?}", path.display());
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    for (_, path, text) in sources() {
        assert!(text.starts_with("//!"), "{} does not begin with what it is", path.display());
    }
}

#[test]
fn this_test_sees_what_it_looks_for() {
    assert_eq!(used("use crate::{a::{b, c}, d};\nlet x = crate::e::f();"), ["a", "d", "e"].map(String::from).into());
    assert_eq!(code("// crate::a\n  /// crate::b\nc\n#[cfg(test)]\ncrate::d"), "c");
    assert!(sources().len() > 20);
}
