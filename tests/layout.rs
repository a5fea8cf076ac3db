//! The layout as a test (`DESIGN.md`, "Where things live"; `EXAMPLES.md` on house rules that are tests): a file uses
//! only what stands below it, between modules and within one; nothing below `http` knows HTTP; and only `frame.rs`
//! writes Server-Sent Events.

use std::collections::{BTreeMap, BTreeSet};
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

/// Modules whose files still import from each other in a circle, and why.
const NOT_YET: [(&str, &str); 4] = [
    ("cli", "the commands take `Failure` and `print` from `mod.rs`, which runs them"),
    ("server", "connections take `ServerConfig` from `mod.rs`, which accepts them"),
    ("http", "`stats/monitor.rs` takes `Stats` from `stats/mod.rs`, which starts it"),
    ("fanout", "`mod.rs` is both the door and the ground of the others"),
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

/// The paths in code, such as `["crate", "a", "B"]`; a group such as `crate::{a, b::C}` is a path for each of its members.
fn paths(code: &str) -> Vec<Vec<&str>> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find("::") {
        let begin = rest[..at].trim_end_matches(is_of_word).len();
        rest = read_path(&[], &rest[begin..], &mut found);
    }
    found
}

/// Reads the path, or the group of paths, that `rest` begins with and that `path` leads to. Gives the code after it.
fn read_path<'a>(path: &[&'a str], rest: &'a str, found: &mut Vec<Vec<&'a str>>) -> &'a str {
    if let Some(mut group) = rest.strip_prefix('{') {
        loop {
            group = group.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
            if let Some(after) = group.strip_prefix('}') {
                return after;
            }
            group = read_path(path, group, found);
            // As in `a as b`, or `*`.
            group = &group[group.find([',', '}']).expect("a group has an end")..];
        }
    }
    let (word, after) = rest.split_at(rest.len() - rest.trim_start_matches(is_of_word).len());
    let path = if word.is_empty() { path.to_vec() } else { [path, &[word]].concat() };
    match after.strip_prefix("::") {
        Some(next) => read_path(&path, next, found),
        None => {
            found.push(path);
            after
        }
    }
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The top-level modules that code names by `crate::…`, also in groups such as `crate::{a, b::c}`.
fn used(code: &str) -> BTreeSet<&str> {
    paths(code)
        .into_iter()
        .filter(|path| path.first() == Some(&"crate"))
        .filter_map(|path| path.get(1).copied())
        .collect()
}

/// A file's place in the tree of modules, such as `["log", "index"]`; `mod.rs` stands for its folder.
fn place(path: &Path) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let inner = path.strip_prefix(root).expect("it is below the root").with_extension("");
    let names = inner.components().map(|name| name.as_os_str().to_string_lossy().into_owned());
    names.filter(|name| name != "mod").collect()
}

/// The file that a path leads to, from the file at `from`: the innermost module on its way that is a file of its own.
fn leads_to(path: &[&str], from: &[String], places: &BTreeSet<Vec<String>>) -> Option<Vec<String>> {
    let mut at = from.to_vec();
    for name in path {
        match *name {
            "crate" => at.clear(),
            "self" => {}
            "super" => _ = at.pop(),
            name => {
                at.push(name.to_owned());
                if !places.contains(&at) {
                    at.pop();
                    break;
                }
            }
        }
    }
    Some(at).filter(|at| at != from)
}

/// Files by their places, each with the files of the same module that it imports from.
type Imports = BTreeMap<Vec<String>, BTreeSet<Vec<String>>>;

fn imports() -> Imports {
    let sources = sources();
    let places: BTreeSet<_> = sources.iter().map(|(_, path, _)| place(path)).collect();
    let of = |(_, path, text): &(String, PathBuf, String)| {
        let from = place(path);
        let code = code(text);
        let to = paths(&code).into_iter().filter_map(|path| leads_to(&path, &from, &places));
        let to = to.filter(|to| to.first() == from.first()).collect();
        (from, to)
    };
    sources.iter().map(of).collect()
}

/// A circle among a module's files, if there is one: each imports from the next, and the last from the first.
fn circle(module: &str, imports: &Imports) -> Option<Vec<String>> {
    let mut left: BTreeSet<_> = imports.keys().filter(|file| file[0] == module).collect();
    // Takes away the files that import from none of those that are left.
    loop {
        let before = left.len();
        let ground: Vec<_> =
            left.iter().filter(|file| imports[**file].iter().all(|to| !left.contains(to))).copied().collect();
        ground.iter().for_each(|file| _ = left.remove(file));
        if left.len() == before {
            break;
        }
    }
    // Every file that is left imports from another one: following them leads into a circle.
    let mut way: Vec<&Vec<String>> = vec![left.first()?];
    loop {
        let next = imports[*way.last()?].iter().find(|to| left.contains(to))?;
        if let Some(at) = way.iter().position(|file| *file == next) {
            return Some(way[at..].iter().map(|file| file.join("/")).collect());
        }
        way.push(next);
    }
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
            let Some(theirs) = rank(other) else { panic!("{} uses crate::{other}", path.display()) };
            assert!(theirs >= own, "{} uses crate::{other}, which stands above it", path.display());
        }
    }
}

#[test]
fn files_of_a_module_import_from_none_that_imports_them() {
    let imports = imports();
    for module in ORDER {
        let circle = circle(module, &imports);
        match (NOT_YET.iter().find(|(folder, _)| *folder == module), circle) {
            (None, Some(circle)) => panic!("these files import from each other: {}", circle.join(" → ")),
            (Some(_), None) => panic!("{module} has no circle any more: take it out of NOT_YET"),
            _ => {}
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
fn table_of_files_names_tests_that_exist() {
    let (_, _, lib) = sources().into_iter().find(|(module, ..)| module == "lib").expect("there is a lib.rs");
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let rows: Vec<&str> = lib.lines().filter(|line| line.starts_with("//! | `")).collect();
    assert!(rows.len() > 20, "{rows:?}");
    for row in rows {
        let named: Vec<&str> = row.split('|').nth(3).unwrap_or_default().split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty() && named.iter().all(|name| tests.join(name).is_file()), "{row}");
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
    assert_eq!(used("use crate::{a::{b, c}, d};\nlet x = crate::e::f();"), ["a", "d", "e"].into());
    let found = paths("use super::{\n    a::{self, b},\n    c as d,\n};\nuse super::*;\nlet x = e::f::<g::H>();");
    let expected =
        [&["super", "a", "self"][..], &["super", "a", "b"], &["super", "c"], &["super"], &["e", "f"], &["g", "H"]];
    assert_eq!(found, expected);
    let file = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
    let places = ["m", "m/a", "m/b", "m/b/c"].map(file).into();
    for (path, from, to) in [
        (&["super", "b", "B"][..], "m/a", Some("m/b")),
        (&["super", "A"], "m/a", Some("m")),
        (&["super", "super", "a", "A"], "m/b/c", Some("m/a")),
        (&["crate", "m", "b", "c", "C"], "m/a", Some("m/b/c")),
        (&["a", "A"], "m", Some("m/a")),
        (&["a", "A"], "m/b", None),
    ] {
        assert_eq!(leads_to(path, &file(from), &places), to.map(file), "{path:?} in {from}");
    }
    let circle_of = |all: [(&str, &[&str]); 3]| {
        circle("m", &all.map(|(from, to)| (file(from), to.iter().copied().map(file).collect())).into())
    };
    assert_eq!(circle_of([("m", &["m/a", "m/b"]), ("m/a", &["m/b"]), ("m/b", &[])]), None);
    let round = circle_of([("m", &["m/a"]), ("m/a", &["m/b"]), ("m/b", &["m/a"])]);
    assert_eq!(round, Some(vec!["m/a".to_owned(), "m/b".to_owned()]));
    assert_eq!(code("// crate::a\n  /// crate::b\nc\n#[cfg(test)]\ncrate::d"), "c");
    assert!(sources().len() > 20);
}
