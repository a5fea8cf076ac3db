//! API keys: what is wrong with them is named at the start and no key is quoted, and a file that changes is read anew
//! while the broker runs.

mod common;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::{Server, fanfare, wait_until};
use fanfare::auth::Denied;
use fanfare::auth::keys::{KeySources, Keys, KeysConfig};

const SECRET: &str = "hunter2hunter2hunter2";

/// A path in the build's own temporary directory.
fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}.toml", std::process::id()))
}

/// Puts a file there as it is to be done: by renaming.
fn put(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("the build's directory can be written to");
    std::fs::rename(&new, path).expect("within one directory");
}

/// A key's entry in a file, made as the documentation says, by `printf %s KEY | sha256sum`.
fn entry(name: &str, key: &str) -> String {
    let hash = Command::new("sh").args(["-c", "printf %s \"$0\" | sha256sum", key]).output().expect("there is a shell");
    let hash = String::from_utf8(hash.stdout).expect("it is text");
    format!("[[key]]\nname = {name:?}\nhash = \"sha256:{}\"\npublish = [\"all\"]\n", &hash[..64])
}

#[track_caller]
fn assert_refused(mut command: Command, names: &[&str]) {
    let output = command.args(["--listen", "127.0.0.1:0"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(names.iter().all(|name| said.contains(name)), "{names:?} are not all in {said}");
    assert!(!said.contains("hunter"), "a key in {said}");
    assert!(output.stdout.is_empty(), "nothing was started");
}

#[test]
fn a_bad_key_stops_the_start_and_is_named() {
    let file = path("bad");
    for (text, names) in [
        (format!("[[key]]\nname = \"svc\"\nkey = {SECRET:?}\n"), &["\"svc\"", "printf %s KEY | sha256sum"][..]),
        (entry("svc", "a") + &entry("svc", "b"), &["\"svc\"", "two keys"]),
        (entry("a", SECRET) + &entry("b", SECRET), &["\"a\"", "\"b\"", "same key"]),
        (format!("[[key]]\nname = \"svc\"\nhash = {SECRET}\n"), &["--keys-file", "line 3"]),
    ] {
        put(&file, &text);
        let mut command = fanfare();
        command.arg("--keys-file").arg(&file);
        assert_refused(command, names);
    }
    for (variable, value, names) in [
        ("FANFARE_KEYS", "svc:hunter2", &["FANFARE_KEYS", "\"svc\"", "expected"][..]),
        ("FANFARE_KEYS", SECRET, &["FANFARE_KEYS", "entry 1", "expected"]),
        ("FANFARE_ADMIN_KEY", "hunter2", &["FANFARE_ADMIN_KEY", "expected"]),
    ] {
        let mut command = fanfare();
        command.env(variable, value);
        assert_refused(command, names);
    }
    put(&file, &entry("svc", SECRET));
    let mut command = fanfare();
    command.arg("--keys-file").arg(&file).env("FANFARE_KEYS", format!("other:{SECRET}"));
    assert_refused(command, &["\"svc\"", "\"other\"", "same key"]);
}

#[test]
fn good_keys_start_and_are_printed_nowhere() {
    let file = path("good");
    put(&file, &entry("svc", "whatever it is"));
    let mut command = fanfare();
    command.args(["--listen", "127.0.0.1:0", "--log", "trace"]).arg("--keys-file").arg(&file);
    command.env("FANFARE_KEYS", format!("other:{SECRET}")).env("FANFARE_ADMIN_KEY", format!("{SECRET}!"));
    let server = Server::spawn(command);
    assert_eq!(server.get("/health").status, 200);
    assert!(!server.log().contains("hunter"), "{}", server.log());

    let mut help = fanfare();
    help.args(["serve", "--help"]).env("FANFARE_KEYS", format!("other:{SECRET}")).env("FANFARE_ADMIN_KEY", SECRET);
    let help = String::from_utf8(help.output().expect("it runs").stdout).expect("it is text");
    assert!(help.contains("FANFARE_ADMIN_KEY") && !help.contains("hunter"), "{help}");
    // An empty variable is none.
    let mut command = fanfare();
    command.args(["--listen", "127.0.0.1:0"]).env("FANFARE_KEYS", "").env("FANFARE_ADMIN_KEY", "");
    assert_eq!(Server::spawn(command).get("/health").status, 200);
}

/// A log that is kept.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Log {
    fn text(&self) -> String {
        self.0.lock().expect("no test holds it in a panic").clone()
    }

    fn count(&self, what: &str) -> usize {
        self.text().matches(what).count()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").push_str(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_file_that_changes_is_read_anew_and_a_bad_one_changes_nothing() {
    const EVERY: Duration = Duration::from_millis(5);
    let file = path("fresh");
    put(&file, &entry("svc", "first"));
    let sources = KeySources { file: Some(file.clone()), list: Some(format!("environment:{SECRET}")), admin: None };
    let keys = Arc::new(Keys::new(KeysConfig::read(sources, None).expect("they are good")));
    let log = Log::default();
    // It ends with the process, as it does in the broker.
    thread::spawn({
        let (keys, log) = (keys.clone(), log.clone());
        move || {
            let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || log.clone()).finish();
            let _kept = tracing::subscriber::set_default(subscriber);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("it starts");
            runtime.block_on(keys.keep_fresh(EVERY));
        }
    });
    let is_known = |key: &str| match keys.find(key) {
        Ok(_) => true,
        Err(denied) => {
            assert_eq!(denied, Denied::UnknownKey);
            false
        }
    };
    assert!(is_known("first"));

    put(&file, &(entry("svc", "second") + &entry("another", "third")));
    wait_until("the new file", || is_known("second"));
    assert!(is_known("third") && !is_known("first") && is_known(SECRET));
    assert_eq!(keys.len(), 3);

    for (bad, said) in [
        (format!("[[key]]\nname = \"svc\"\nkey = {SECRET:?}\n"), "as itself"),
        (entry("environment", "fourth"), "two keys named"),
        (entry("svc", SECRET), "same key"),
    ] {
        put(&file, &bad);
        wait_until(said, || log.count(said) > 0);
        thread::sleep(EVERY * 20);
        assert_eq!(log.count(said), 1, "it is said once: {}", log.text());
        assert!(is_known("second") && is_known("third") && is_known(SECRET) && !is_known("fourth"));
    }
    std::fs::remove_file(&file).expect("it is there");
    wait_until("the loss in the log", || log.count("No such file") > 0);
    assert!(is_known("second"), "no file is no reason to lock everybody out");

    // Written in place, and to the same length.
    put(&file, &entry("svc", "fifth"));
    wait_until("the file that is back", || is_known("fifth"));
    // The kernel's change times are some milliseconds apart.
    thread::sleep(Duration::from_millis(50));
    std::fs::write(&file, entry("svc", "sixth")).expect("it can be written to");
    wait_until("the file that was written in place", || is_known("sixth"));
    assert!(!is_known("fifth") && is_known(SECRET));
    assert!(!log.text().contains("hunter"), "{}", log.text());
}
