//! The keys of an issuer that changes them: a JSON Web Key Set (RFC 7517), read from a file or a URL and kept fresh.
//!
//! Tokens are verified with the set that is held, without waiting. One task reads the set: periodically, and soon
//! when a token names a key that is not in it, but never more often than the configured rest allows, whatever tokens
//! say. Where it cannot be read, the keys that are held stay; a set without a key, in contrast, is believed.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::Denied;
use super::fetch::Fetcher;
use super::signature::VerifyingKey;

/// Where an issuer's keys are, and how they are treated.
#[derive(Debug, Clone)]
pub struct JwksConfig {
    /// Where they are.
    pub place: Place,
    /// What tokens may be signed with. Not empty, and none of HMAC: such a key would be a published secret.
    pub algorithms: Vec<Algorithm>,
    /// How often they are read.
    pub refresh: Duration,
    /// How long they are not read again, whatever tokens say.
    pub rest: Duration,
}

/// Where a key set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a file.
    File(PathBuf),
    /// Behind an `http` or `https` URL.
    Url(String),
}

/// A place as it is written: a URL, or a file's path.
impl From<&str> for Place {
    fn from(text: &str) -> Place {
        match text.starts_with("http://") || text.starts_with("https://") {
            true => Place::Url(text.to_owned()),
            false => Place::File(text.into()),
        }
    }
}

/// The largest key set, in bytes.
const SET_MAX: usize = 1 << 20;

/// How long a request waits for keys that its token names and that are not held.
const PATIENCE: Duration = Duration::from_secs(5);

/// An issuer's keys.
#[derive(Debug)]
pub(super) struct Jwks {
    source: Source,
    algorithms: Vec<Algorithm>,
    refresh: Duration,
    rest: Duration,
    keys: RwLock<Arc<KeySet>>,
    /// A token named a key that is not held.
    wanted: Notify,
    /// How often the set was read, successfully or not.
    loads: watch::Sender<u64>,
}

#[derive(Debug)]
enum Source {
    File(PathBuf),
    Url(Box<Fetcher>),
}

impl Jwks {
    /// Holds the keys of a file from the start, those behind a URL once [`Jwks::keep_fresh`] has got them.
    ///
    /// # Errors
    /// Where the algorithms are not for public keys, the file has no key that can be used, or the URL is none.
    pub(super) fn new(config: &JwksConfig) -> Result<Jwks, String> {
        if let Some(hmac) = config.algorithms.iter().find(|algorithm| algorithm.family() == AlgorithmFamily::Hmac) {
            return Err(format!("{hmac:?} needs a secret, and published keys are none; expected RS, PS, ES or EdDSA"));
        }
        let (source, keys) = match &config.place {
            Place::Url(url) => (Source::Url(Box::new(Fetcher::new(url)?)), KeySet::default()),
            Place::File(path) => {
                let read = || {
                    let keys = KeySet::parse(&read(path)?, &config.algorithms)?;
                    keys.usable(&config.algorithms).map(|()| keys)
                };
                let keys = read().map_err(|why| format!("{}: {why}", path.display()))?;
                (Source::File(path.clone()), keys)
            }
        };
        Ok(Jwks {
            source,
            algorithms: config.algorithms.clone(),
            refresh: config.refresh,
            rest: config.rest,
            keys: RwLock::new(Arc::new(keys)),
            wanted: Notify::new(),
            loads: watch::Sender::new(0),
        })
    }

    /// The keys as they are now.
    pub(super) fn held(&self) -> Arc<KeySet> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the keys again and again, for ever.
    pub(super) async fn keep_fresh(&self) {
        let mut trouble = None;
        loop {
            let outcome = self.load().await;
            // Once for each change: an issuer may be away for days.
            match &outcome {
                Err(why) if trouble.as_ref() != Some(why) => {
                    tracing::warn!(keys = self.held().keys.len(), "the key set for tokens: {why}");
                }
                Ok(()) if trouble.is_some() => tracing::info!("the key set for tokens is good again"),
                _ => {}
            }
            trouble = outcome.err();
            self.loads.send_modify(|loads| *loads += 1);
            sleep(self.rest).await;
            let _ = timeout(self.refresh.saturating_sub(self.rest), self.wanted.notified()).await;
        }
    }

    /// Asks for the keys to be read soon, and waits until they have been, or for some seconds.
    pub(super) async fn refresh(&self) {
        let mut loads = self.loads.subscribe();
        self.wanted.notify_one();
        let _ = timeout(PATIENCE, loads.changed()).await;
    }

    async fn load(&self) -> Result<(), String> {
        let keys = match &self.source {
            Source::Url(url) => KeySet::parse(&url.get(SET_MAX).await?, &self.algorithms)?,
            Source::File(path) => {
                let path = path.clone();
                let text = tokio::task::spawn_blocking(move || read(&path)).await.map_err(|error| error.to_string())?;
                KeySet::parse(&text?, &self.algorithms)?
            }
        };
        let held = self.held();
        if keys.names().ne(held.names()) || keys.ignored != held.ignored {
            tracing::info!(keys = keys.keys.len(), ignored = keys.ignored, "the keys for tokens have changed");
        }
        let outcome = keys.usable(&self.algorithms);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        outcome
    }
}

/// Reads a file, up to one byte more than a key set may have.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(SET_MAX as u64 + 1).read_to_end(&mut text));
    read.map(|_| text).map_err(|error| format!("{error}; expected a file with a JSON Web Key Set"))
}

/// The keys of one reading.
#[derive(Debug, Default)]
pub(super) struct KeySet {
    keys: Vec<NamedKey>,
    /// How many more there were that are of no use here.
    ignored: usize,
}

#[derive(Debug)]
struct NamedKey {
    id: Option<String>,
    key: VerifyingKey,
}

impl KeySet {
    /// Reads a set. Keys that cannot be used are left out; a key without a name too, where there are others.
    fn parse(text: &[u8], algorithms: &[Algorithm]) -> Result<KeySet, String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        if text.len() > SET_MAX {
            return Err(format!("it has more than {SET_MAX} bytes"));
        }
        let set: Set = serde_json::from_slice(text)
            .map_err(|error| format!("it is no JSON Web Key Set ({error}); expected {{\"keys\":[…]}}"))?;
        let found = set.keys.len();
        let usable = |jwk: serde_json::Value| {
            let jwk: Jwk = serde_json::from_value(jwk).ok()?;
            let key = VerifyingKey::from_jwk(&jwk, algorithms)?;
            Some(NamedKey { id: jwk.common.key_id, key })
        };
        let mut keys: Vec<NamedKey> = set.keys.into_iter().filter_map(usable).collect();
        if keys.len() > 1 {
            keys.retain(|key| key.id.is_some());
        }
        Ok(KeySet { ignored: found - keys.len(), keys })
    }

    /// Whether there is a key at all.
    fn usable(&self, algorithms: &[Algorithm]) -> Result<(), String> {
        match self.keys.is_empty() {
            true => Err(format!("it has no key to use; expected a public key for {algorithms:?}")),
            false => Ok(()),
        }
    }

    /// The keys that a token which names its key so, or does not, may be signed with: those of that name. Where there
    /// is only one key, a token need not name it; and if the key itself has no name, it is meant by any.
    pub(super) fn named(&self, id: Option<&str>) -> Result<impl Iterator<Item = &VerifyingKey>, Denied> {
        let is_meant = move |key: &&NamedKey| id.is_none() || key.id.is_none() || key.id.as_deref() == id;
        match id {
            None if self.keys.len() > 1 => Err(Denied::Untrusted),
            _ if !self.keys.iter().any(|key| is_meant(&key)) => Err(Denied::UnknownSigner),
            _ => Ok(self.keys.iter().filter(is_meant).map(|named| &named.key)),
        }
    }

    fn names(&self) -> impl Iterator<Item = Option<&str>> {
        self.keys.iter().map(|key| key.id.as_deref())
    }
}
