//! Reads API keys: their hashes from a TOML file, and the keys themselves from the environment.
//!
//! ```toml
//! [[key]]
//! name = "wallet-service"
//! hash = "sha256:…"               # printf %s KEY | sha256sum
//! publish = ["wallets.*", "users"]  # topics; none unless said
//! rate = 500                        # publish requests a second; --key-rate unless said, 0 for no limit
//! burst = 1000                      # twice the rate unless said
//! admin = false
//! ```
//!
//! Errors name a key by its name or its place. They never quote what may be a key, even a misplaced one.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::digest::Digest;
use super::key::{KEYS_MAX, Key};
use crate::event::Invalid;
use crate::limit::{Bucket, Meter, Rate};
use crate::pattern::Pattern;

/// The shortest key that is accepted, in bytes. Only keys from the environment can be checked; a file has only hashes.
const KEY_MIN: usize = 16;

/// The longest name, in bytes.
const NAME_MAX: usize = 64;

/// The command that makes a hash, for error messages.
const HOW_TO_HASH: &str = "expected hash = \"sha256:…\" with the 64 digits of: printf %s KEY | sha256sum";

/// The sources of keys. It holds keys, so it has no `Debug`.
#[derive(Default)]
pub struct KeySources {
    /// A TOML file of hashes.
    pub file: Option<PathBuf>,
    /// `name:key,name:key`: these may publish to every topic.
    pub list: Option<String>,
    /// A key that may do everything; its name is `admin`.
    pub admin: Option<String>,
}

/// The keys that were read, and the file to check for changes.
#[derive(Debug, Clone)]
pub struct KeysConfig {
    /// The rate of keys that come without one; `None` is no limit.
    pub(super) rate: Option<Rate>,
    pub(super) environment: Vec<Key>,
    pub(super) file: Option<KeyFile>,
}

impl KeysConfig {
    /// Reads keys; those that come without a rate have this one.
    ///
    /// # Errors
    /// Where one cannot be read, or two have the same name or are the same: names it, and what was expected.
    pub fn read(sources: KeySources, rate: Option<Rate>) -> Result<KeysConfig, Invalid> {
        let mut environment = Vec::new();
        for (place, entry) in sources.list.iter().flat_map(|list| list.split(',')).enumerate() {
            let entry = entry.trim();
            if entry.is_empty() {
                continue;
            }
            let Some((name, key)) = entry.split_once(':').filter(|(name, _)| is_name(name)) else {
                let expected = format!("expected name:key, and a name {NAME_EXPECTED}");
                return Err(Invalid(format!("FANFARE_KEYS: entry {} cannot be read; {expected}", place + 1)));
            };
            environment.push(plain("FANFARE_KEYS", name, key, false, rate)?);
        }
        if let Some(key) = &sources.admin {
            environment.push(plain("FANFARE_ADMIN_KEY", "admin", key, true, rate)?);
        }
        let file = sources.file.map(|path| KeyFile::read(&path, rate)).transpose()?;
        let all: Vec<Key> = environment.iter().chain(file.iter().flat_map(|file| &file.keys)).cloned().collect();
        check_together(&all)?;
        Ok(KeysConfig { rate, environment, file })
    }
}

/// A key from the environment.
fn plain(variable: &str, name: &str, key: &str, admin: bool, rate: Option<Rate>) -> Result<Key, Invalid> {
    if key.len() < KEY_MIN {
        let why = format!("the key {name:?} has {} bytes; expected at least {KEY_MIN}, made at random", key.len());
        return Err(Invalid(format!("{variable}: {why}")));
    }
    let meter = Meter { rate, bucket: Bucket::default() };
    Ok(Key::new(name, Digest::of(key), Box::new([Pattern::All]), admin, meter))
}

/// A file of keys as it was found.
#[derive(Debug, Clone)]
pub(super) struct KeyFile {
    pub(super) path: PathBuf,
    /// Of before it was read, so that a change while it was read is seen.
    pub(super) stamp: Option<Stamp>,
    pub(super) keys: Vec<Key>,
}

/// A file as it stands there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    key: Vec<WrittenKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenKey {
    name: String,
    hash: Option<String>,
    /// Known only to be refused with a better reason.
    key: Option<IgnoredAny>,
    #[serde(default)]
    publish: Vec<String>,
    #[serde(default)]
    admin: bool,
    rate: Option<u64>,
    burst: Option<u64>,
}

impl KeyFile {
    /// Reads a file; keys without a rate have this one.
    pub(super) fn read(path: &Path, rate: Option<Rate>) -> Result<KeyFile, Invalid> {
        let stamp = Stamp::of(path);
        let text = std::fs::read_to_string(path)
            .map_err(|error| in_file(path, &format!("{error}; expected a TOML file of keys")))?;
        Ok(KeyFile { stamp, ..KeyFile::parse(path, &text, rate)? })
    }

    /// Reads a file's text.
    pub(super) fn parse(path: &Path, text: &str, rate: Option<Rate>) -> Result<KeyFile, Invalid> {
        let written: Written = toml::from_str(text).map_err(|error| in_file(path, &unquoted(&error, text)))?;
        let mut keys = Vec::with_capacity(written.key.len());
        for (place, key) in written.key.into_iter().enumerate() {
            if !is_name(&key.name) {
                return Err(in_file(path, &format!("key {}: its name; expected one {NAME_EXPECTED}", place + 1)));
            }
            let name = key.name.clone();
            let key = key.check(rate).map_err(|Invalid(why)| in_file(path, &format!("key {name:?}: {why}")))?;
            keys.push(key);
        }
        Ok(KeyFile { path: path.to_owned(), stamp: None, keys })
    }
}

fn in_file(path: &Path, why: &str) -> Invalid {
    Invalid(format!("--keys-file {}: {why}", path.display()))
}

/// What the TOML parser says, without the line and the values that it would quote.
fn unquoted(error: &toml::de::Error, text: &str) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    match error.message().rsplit_once("expected ") {
        Some((_, expected)) => format!("line {line}: expected {expected}"),
        None => format!("line {line}: {}", error.message()),
    }
}

impl WrittenKey {
    fn check(self, rate: Option<Rate>) -> Result<Key, Invalid> {
        let wrong = |why: String| Err(Invalid(why));
        let digest = match (self.key, self.hash) {
            (Some(_), _) => return wrong(format!("it stands there as itself; {HOW_TO_HASH}")),
            (None, None) => return wrong(format!("its hash is missing; {HOW_TO_HASH}")),
            (None, Some(hash)) => match hash.parse::<Digest>() {
                Ok(digest) => digest,
                Err(()) => return wrong(format!("its hash is none; {HOW_TO_HASH}")),
            },
        };
        let publish = self.publish.iter().map(|text| Pattern::parse(text)).collect::<Result<_, _>>()?;
        let rate = match (self.rate, self.burst) {
            (None, None) => rate,
            (None, Some(_)) => return wrong("it has a burst; expected a rate with it".to_owned()),
            (Some(0), None) => None,
            (Some(per_second), burst) => {
                let burst = burst.unwrap_or(Rate::usual_burst(per_second));
                let Some(rate) = Rate::new(per_second, burst) else {
                    let rates = format!("a rate from 1 to {}, or 0 alone for no limit", Rate::MAX);
                    let bursts = format!("a burst from 1 to {}", Rate::MAX_BURST);
                    return wrong(format!(
                        "its rate is {per_second}, its burst {burst}; expected {rates}, and {bursts}"
                    ));
                };
                Some(rate)
            }
        };
        Ok(Key::new(&self.name, digest, publish, self.admin, Meter { rate, bucket: Bucket::default() }))
    }
}

/// Checks the rules on all keys together: their number, their names, and that no two are equal.
pub(super) fn check_together(keys: &[Key]) -> Result<(), Invalid> {
    if keys.len() > KEYS_MAX {
        return Err(Invalid(format!("there are {} keys; expected at most {KEYS_MAX}", keys.len())));
    }
    for (place, key) in keys.iter().enumerate() {
        let name = &key.identity.name;
        for other in &keys[..place] {
            if other.identity.name == *name {
                return Err(Invalid(format!("there are two keys named {name:?}; expected a name of its own for each")));
            }
            if other.digest.is(&key.digest) {
                let both = format!("{:?} and {name:?}", other.identity.name);
                return Err(Invalid(format!("{both} are the same key; expected another one for each name")));
            }
        }
    }
    Ok(())
}

const NAME_EXPECTED: &str = "of 1 to 64 letters, digits, '.', '_' and '-'";

/// Names stand in logs, and between commas and colons.
fn is_name(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(fits)
}

/// What shows that a file has changed: another file under its name, or another state of the same one. The change time,
/// unlike the modification time, cannot be set, and moves with permissions too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// A file's stamp; `None` where there is no file, or it is out of reach.
    pub(super) fn of(path: &Path) -> Option<Stamp> {
        let file = std::fs::metadata(path).ok()?;
        let changed = (file.ctime(), file.ctime_nsec());
        Some(Stamp { device: file.dev(), inode: file.ino(), length: file.len(), changed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "hunter2hunter2hunter2";

    fn file(text: &str) -> Result<KeyFile, Invalid> {
        KeyFile::parse(Path::new("keys.toml"), text, Rate::new(5000, 10_000))
    }

    fn environment(list: Option<&str>, admin: Option<&str>) -> Result<KeysConfig, Invalid> {
        let sources = KeySources { file: None, list: list.map(str::to_owned), admin: admin.map(str::to_owned) };
        KeysConfig::read(sources, None)
    }

    #[track_caller]
    fn assert_names<T>(read: Result<T, Invalid>, names: &[&str]) {
        let Invalid(why) = read.err().expect("it is wrong");
        assert!(names.iter().all(|name| why.contains(name)), "{names:?} are not all in {why:?}");
        assert!(!why.contains("hunter"), "a key in {why:?}");
    }

    #[test]
    fn a_file_says_what_each_key_may() {
        let hash = |key| Digest::of(key).to_text();
        let text = format!(
            "[[key]]\nname = \"plain\"\nhash = \"{}\"\n\
             [[key]]\nname = \"wallet-service\"\nhash = \"{}\"\npublish = [\"wallets.*\", \"users\"]\nrate = 500\n\
             [[key]]\nname = \"ops\"\nhash = \"{}\"\nadmin = true\nrate = 0\n\
             [[key]]\nname = \"slow\"\nhash = \"{}\"\nrate = 1\nburst = 9\n",
            hash("a"),
            hash("b"),
            hash("c"),
            hash("d"),
        );
        let keys = file(&text).expect("it is good").keys;
        let pattern = |text| Pattern::parse(text).expect(text);
        let said = keys.iter().map(|key| (&*key.identity.name, key.identity.may_publish.to_vec(), key.meter.rate));
        let expected = [
            ("plain", vec![], Rate::new(5000, 10_000)),
            ("wallet-service", vec![pattern("wallets.*"), pattern("users")], Rate::new(500, 1000)),
            ("ops", vec![Pattern::All], None),
            ("slow", vec![], Rate::new(1, 9)),
        ];
        assert!(said.eq(expected), "{keys:?}");
        assert_eq!(keys.iter().map(|key| key.admin).collect::<Vec<_>>(), [false, false, true, false]);
        assert!(keys[1].digest.is(&Digest::of("b")));
        assert!(file("").expect("no keys yet").keys.is_empty());
    }

    #[test]
    fn what_is_wrong_with_a_file_is_named_and_no_key_is_quoted() {
        let zeros = "0".repeat(64);
        let rest = |rest: &str| format!("[[key]]\nname = \"svc\"\nhash = \"sha256:{zeros}\"\n{rest}\n");
        for (text, names) in [
            (format!("[[key]]\nname = \"svc\"\nkey = {SECRET:?}\n"), &["\"svc\"", "as itself", "sha256sum"][..]),
            (rest(&format!("key = {SECRET:?}")), &["\"svc\"", "as itself", "sha256sum"]),
            (format!("[[key]]\nname = \"svc\"\nhash = {SECRET:?}\n"), &["\"svc\"", "hash", "sha256sum"]),
            ("[[key]]\nname = \"svc\"\n".to_owned(), &["\"svc\"", "hash is missing", "sha256sum"]),
            (format!("[[key]]\nhash = \"sha256:{zeros}\"\n"), &["line 1", "name"]),
            (format!("[[key]]\nname = \"{SECRET} \"\n"), &["key 1", "name", "expected"]),
            (rest("publish = [\"a*\"]"), &["\"svc\"", "\"a*\"", "expected"]),
            (rest("publish = \"a\""), &["line 4", "expected"]),
            (rest("rate = 1000001"), &["\"svc\"", "1000001", "expected"]),
            (rest("rate = 5\nburst = 0"), &["\"svc\"", "burst 0", "expected"]),
            (rest("rate = 0\nburst = 5"), &["\"svc\"", "rate is 0", "expected"]),
            (rest("burst = 5"), &["\"svc\"", "burst", "expected a rate"]),
            (rest(&format!("rate = {SECRET:?}")), &["line 4", "expected"]),
            (rest(&format!("{SECRET} = 1")), &["line 4", "expected", "`publish`"]),
            (rest(&format!("name = {SECRET:?}")), &["line 4"]),
            (rest(&format!("x = {SECRET}")), &["line 4"]),
            (format!("[[keys]]\nname = {SECRET:?}\n"), &["line 1", "expected", "`key`"]),
        ] {
            assert_names(file(&text), names);
            assert_names(file(&text), &["--keys-file keys.toml"]);
        }
    }

    #[test]
    fn what_is_wrong_with_the_environment_is_named_and_no_key_is_quoted() {
        for (list, names) in [
            (format!("a:{SECRET},{SECRET}"), &["FANFARE_KEYS", "entry 2", "name:key"][..]),
            (format!("{SECRET}+:a"), &["FANFARE_KEYS", "entry 1", "name:key"]),
            ("svc:hunter2".to_owned(), &["FANFARE_KEYS", "\"svc\"", "7 bytes", "at least 16"]),
            (format!("a:{SECRET},a:{SECRET}x"), &["\"a\"", "two keys"]),
            (format!("a:{SECRET},b:{SECRET}"), &["\"a\"", "\"b\"", "same key"]),
        ] {
            assert_names(environment(Some(&list), None), names);
        }
        assert_names(environment(None, Some("hunter2")), &["FANFARE_ADMIN_KEY", "at least 16"]);
        assert_names(environment(Some(&format!("admin:{SECRET}")), Some(&format!("{SECRET}x"))), &["\"admin\""]);
        let many: Vec<String> = (0..=KEYS_MAX).map(|n| format!("k{n}:{SECRET}{n}")).collect();
        assert_names(environment(Some(&many.join(",")), None), &["1001 keys", "1000"]);

        let good = environment(Some(&format!(" a:{SECRET}:with:colons , ,")), None).expect("blanks are nothing");
        assert!(good.environment[0].digest.is(&Digest::of("hunter2hunter2hunter2:with:colons")));
        assert_eq!(good.environment.len(), 1);
    }
}
