//! API keys, which services publish with. The broker keeps only a key's SHA-256. Unlike for passwords, a fast hash is
//! right here: keys are random, and 128 random bits cannot be guessed, however fast one tries.

mod digest;
mod key;
mod read;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::identity::Denied;
use crate::event::Invalid;
use crate::limit::Rate;

use digest::Digest;
pub use key::{KEYS_MAX, Key};
use read::{KeyFile, Stamp};
pub use read::{KeySources, KeysConfig};

/// All keys, and where to look for changes.
#[derive(Debug)]
pub struct Keys {
    environment: Vec<Key>,
    /// The rate of keys without a rate of their own.
    rate: Option<Rate>,
    /// The file, as it was read at the start.
    file: Option<(PathBuf, Option<Stamp>)>,
    ring: ArcSwap<Vec<Arc<Key>>>,
}

impl Keys {
    /// The keys as they were read.
    pub fn new(config: KeysConfig) -> Keys {
        let KeysConfig { rate, environment, file } = config;
        let from_file = file.iter().flat_map(|file| &file.keys);
        let ring = environment.iter().chain(from_file).cloned().map(Arc::new).collect();
        let file = file.map(|file| (file.path, file.stamp));
        Keys { environment, rate, file, ring: ArcSwap::from_pointee(ring) }
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.ring.load().len()
    }

    /// Whether one of them is an operator's key.
    pub fn has_admin(&self) -> bool {
        self.ring.load().iter().any(|key| key.admin)
    }

    /// Whether there are none at the moment.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether keys are configured. If a key file becomes empty, publishing still needs a key.
    pub fn are_set_up(&self) -> bool {
        self.file.is_some() || !self.environment.is_empty()
    }

    /// The key that a request presents.
    ///
    /// # Errors
    /// [`Denied::UnknownKey`].
    pub fn find(&self, presented: &str) -> Result<Arc<Key>, Denied> {
        let digest = Digest::of(presented);
        // All of them, each in constant time: how long it takes tells nothing of how near a guess came. No two have
        // the same digest.
        let ring = self.ring.load();
        let found = ring.iter().fold(None, |found, key| if key.digest.is(&digest) { Some(key) } else { found });
        found.cloned().ok_or(Denied::UnknownKey)
    }

    /// Checks the file periodically, for ever, and reads it when it has changed; returns at once if there is no file.
    /// An unusable file is logged once, and the keys stay as they are.
    ///
    /// Replace the file by renaming another over it: a file written in place may be read half written, and then keys
    /// are missing until the next check.
    pub async fn keep_fresh(&self, every: Duration) {
        let Some((path, stamp)) = &self.file else { return };
        let (rate, mut seen) = (self.rate, *stamp);
        loop {
            tokio::time::sleep(every).await;
            let path = path.clone();
            let look = move || {
                let stamp = Stamp::of(&path);
                (stamp != seen).then(|| (stamp, KeyFile::read(&path, rate)))
            };
            let Ok(Some((stamp, read))) = tokio::task::spawn_blocking(look).await else { continue };
            seen = stamp;
            match read.and_then(|file| self.renew(file)) {
                Ok(keys) => tracing::info!(keys, "the file of keys has changed"),
                Err(Invalid(why)) => tracing::error!("the file of keys has changed and is not used: {why}"),
            }
        }
    }

    /// Replaces the keys of the file. A key with the same name as before keeps what is left of its rate.
    fn renew(&self, file: KeyFile) -> Result<usize, Invalid> {
        let before = self.ring.load();
        let mut ring: Vec<Key> = self.environment.iter().chain(&file.keys).cloned().collect();
        read::check_together(&ring)?;
        for key in &mut ring {
            if let Some(same) = before.iter().find(|other| other.identity.name == key.identity.name) {
                key.meter.bucket = same.meter.bucket.clone();
            }
        }
        self.ring.store(Arc::new(ring.into_iter().map(Arc::new).collect()));
        Ok(self.len())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::clock::Timestamp;
    use crate::pattern::Pattern;

    /// Keys from the environment only.
    fn keys(list: &str, admin: Option<&str>) -> Keys {
        let sources = KeySources { file: None, list: Some(list.to_owned()), admin: admin.map(str::to_owned) };
        Keys::new(KeysConfig::read(sources, Rate::new(1, 3)).expect("they are good"))
    }

    fn file(text: &str) -> KeyFile {
        KeyFile::parse(Path::new("keys.toml"), text, None).expect("it is good")
    }

    #[test]
    fn a_key_is_found_by_itself_and_by_nothing_else() {
        let keys = keys("one:0123456789abcdef,two:0123456789abcdeg", Some("an admin's own key"));
        assert_eq!(keys.len(), 3);
        let found = keys.find("0123456789abcdeg").expect("it is there");
        assert_eq!((&*found.identity.name, found.admin), ("two", false));
        assert!(found.identity.may_listen.is_empty() && *found.identity.may_publish == [Pattern::All]);
        let found = keys.find("an admin's own key").expect("it is there");
        assert!(&*found.identity.name == "admin" && found.admin && found.identity.sees_everyone);
        for presented in ["", "one", "0123456789abcde", "0123456789abcdef ", "two:0123456789abcdeg"] {
            assert_eq!(keys.find(presented).err(), Some(Denied::UnknownKey), "{presented:?}");
        }
    }

    #[test]
    fn nothing_of_a_key_is_printed() {
        let keys = keys("one:0123456789abcdef", Some("an admin's own key"));
        let printed = format!("{keys:?}");
        // The digest of the first, as it would be printed in either way.
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"0123456789abcdef");
        let digest = digest.as_ref();
        let hexadecimal = format!("{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2]);
        let decimal = format!("{}, {}, {}", digest[0], digest[1], digest[2]);
        for secret in ["0123456789", "own key", &hexadecimal, &decimal] {
            assert!(!printed.contains(secret), "{secret:?} in {printed}");
        }
        assert!(printed.contains("one"), "but its name is: {printed}");
    }

    #[test]
    fn a_new_file_takes_the_old_ones_place_and_rates_go_on() {
        let keys = keys("one:0123456789abcdef", None);
        let now = Timestamp::from_unix_ms(1_800_000_000_000);
        let one = keys.find("0123456789abcdef").expect("it is there");
        assert!((0..3).all(|_| one.meter.take(now).is_ok()) && one.meter.take(now).is_err());

        let hash = |text: &str| Digest::of(text).to_text();
        let entry = |name: &str, key: &str| format!("[[key]]\nname = {name:?}\nhash = {:?}\n", hash(key));
        assert_eq!(keys.renew(file(&entry("file", "first"))).expect("it is good"), 2);
        assert!(keys.find("first").is_ok());
        let one = keys.find("0123456789abcdef").expect("it stays");
        assert!(one.meter.take(now).is_err(), "its bucket is no fuller than before");

        assert_eq!(keys.renew(file(&entry("file", "second"))).expect("it is good"), 2);
        assert!(keys.find("first").is_err() && keys.find("second").is_ok());
        for (name, key) in [("one", "third"), ("third", "0123456789abcdef")] {
            assert!(keys.renew(file(&entry(name, key))).is_err(), "the environment has that name, or that key");
            assert!(keys.find("second").is_ok(), "and all is as before");
        }
    }
}
