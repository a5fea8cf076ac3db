//! The keys of an issuer that changes them: a JSON Web Key Set (RFC 7517), read from a file or a URL and kept fresh.
//!
//! Tokens are verified with the set in memory, without waiting. One task reads the set periodically, and soon after a
//! token names a key that is not in it, but never more often than the configured rest allows. If a reading fails, the
//! keys stay, and the next reading follows after a delay that grows up to that rest; a set that is read and has no
//! keys, in contrast, replaces them. At start, a set from the cache file replaces an issuer that does not answer.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::cache::{Cache, Kept, SET_MAX};
use super::fetch::Fetcher;
use super::identity::Denied;
use super::signature::VerifyingKey;
use crate::sync;

/// The settings of a key set.
#[derive(Debug, Clone)]
pub struct JwksConfig {
    /// The place of the key set.
    pub place: Place,
    /// The accepted algorithms. At least one, and none of HMAC, whose key would be a published secret.
    pub algorithms: Vec<Algorithm>,
    /// How often the set is read.
    pub refresh: Duration,
    /// The shortest time between two readings, whatever keys tokens name.
    pub rest: Duration,
    /// A file that keeps the last set of a URL, for a start while the URL does not answer.
    pub cache: Option<PathBuf>,
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

/// How long a request waits for a key that its token names and that is not in the set.
const PATIENCE: Duration = Duration::from_secs(5);

/// After the first reading that failed, the time to the next; it doubles up to the rest.
const FIRST_RETRY: Duration = Duration::from_millis(500);

/// How often the log tells of readings that fail, at the most.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// An issuer's keys.
#[derive(Debug)]
pub(super) struct Jwks {
    source: Source,
    algorithms: Vec<Algorithm>,
    refresh: Duration,
    rest: Duration,
    cache: Option<Cache>,
    held: RwLock<Arc<Held>>,
    /// A token named a key that is not held.
    wanted: Notify,
    readings: watch::Sender<Readings>,
    /// Times that the set could not be written to the cache.
    failed_writes: AtomicU64,
}

#[derive(Debug)]
enum Source {
    File(PathBuf),
    Url(Box<Fetcher>),
}

/// The readings of the set so far.
#[derive(Debug, Clone, Copy, Default)]
struct Readings {
    /// How many have ended, well or not.
    ended: u64,
    /// How many of them failed, and how many of those since the last that did not.
    failed: u64,
    failed_in_a_row: u64,
    is_under_way: bool,
}

/// Where the keys that are held came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// From nowhere: there are none yet.
    None,
    /// From the URL.
    Fetched,
    /// From the file that keeps the URL's last set.
    Cached,
    /// From the file that is set.
    File,
}

/// The keys that are held.
#[derive(Debug)]
pub(super) struct Held {
    set: KeySet,
    origin: Origin,
    /// When they were put here, and how old they were then. Later steps of the wall clock do not change their age.
    since: Instant,
    age_then: Duration,
}

impl Held {
    fn new(set: KeySet, origin: Origin, age_then: Duration) -> Held {
        Held { set, origin, since: Instant::now(), age_then }
    }

    fn age(&self) -> Duration {
        self.age_then + self.since.elapsed()
    }
}

/// Figures of a key set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct KeySetFigures {
    /// Keys that tokens are verified with.
    pub keys: usize,
    /// Where they came from.
    pub source: Origin,
    /// Seconds since the set was last read from its place; `None` where it never was.
    pub age_seconds: Option<u64>,
    /// Readings of the set, from the file or the URL.
    pub fetches: u64,
    /// Those of them that failed, or brought no key.
    pub failed_fetches: u64,
    /// Times that the set could not be written to its cache.
    pub failed_cache_writes: u64,
}

impl Jwks {
    /// Holds the keys of a file from the start, those behind a URL once [`Jwks::keep_fresh`] has got them.
    ///
    /// # Errors
    /// Where the algorithms are not for public keys, the file has no key that can be used, the URL is none, or the cache
    /// can be no file: names the setting.
    pub(super) fn new(config: &JwksConfig) -> Result<Jwks, String> {
        let wrong = |why| format!("--jwks: {why}");
        if let Some(hmac) = config.algorithms.iter().find(|algorithm| algorithm.family() == AlgorithmFamily::Hmac) {
            let why = format!("{hmac:?} needs a secret, and published keys are none; expected RS, PS, ES or EdDSA");
            return Err(wrong(why));
        }
        let (source, held, cache) = match &config.place {
            Place::Url(url) => {
                let fetcher = Fetcher::new(url).map_err(wrong)?;
                let cache = config.cache.as_ref().map(|path| Cache::new(path, url)).transpose()?;
                let held = Held::new(KeySet::default(), Origin::None, Duration::ZERO);
                (Source::Url(Box::new(fetcher)), held, cache)
            }
            Place::File(path) => {
                let set = read(path).and_then(|text| KeySet::usable(&text, &config.algorithms));
                let set = set.map_err(|why| wrong(format!("{}: {why}", path.display())))?;
                (Source::File(path.clone()), Held::new(set, Origin::File, Duration::ZERO), None)
            }
        };
        Ok(Jwks {
            source,
            algorithms: config.algorithms.clone(),
            refresh: config.refresh,
            rest: config.rest,
            cache,
            held: RwLock::new(Arc::new(held)),
            wanted: Notify::new(),
            readings: watch::Sender::default(),
            failed_writes: AtomicU64::new(0),
        })
    }

    /// The keys as they are now.
    pub(super) fn held(&self) -> Arc<Held> {
        sync::read(&self.held).clone()
    }

    /// Whether there is a key to verify with.
    pub(super) fn has_keys(&self) -> bool {
        !self.held().set.keys.is_empty()
    }

    /// The keys that a token may be signed with, of those that are held.
    ///
    /// # Errors
    /// [`Denied::Untrusted`] and [`Denied::UnknownSigner`]; [`Denied::KeysUnavailable`] where the issuer might know the
    /// key and cannot be asked now.
    pub(super) fn signers<'a>(
        &self,
        held: &'a Held,
        id: Option<&str>,
    ) -> Result<impl Iterator<Item = &'a VerifyingKey>, Denied> {
        held.set.named(id).map_err(|denied| {
            let readings = self.readings.borrow();
            let is_unsure = readings.failed_in_a_row > 0 || readings.is_under_way || held.set.keys.is_empty();
            match denied {
                Denied::UnknownSigner if is_unsure => Denied::KeysUnavailable,
                denied => denied,
            }
        })
    }

    /// Figures of the moment.
    pub(super) fn figures(&self) -> KeySetFigures {
        let (held, readings) = (self.held(), *self.readings.borrow());
        KeySetFigures {
            keys: held.set.keys.len(),
            source: held.origin,
            age_seconds: (held.origin != Origin::None).then(|| held.age().as_secs()),
            fetches: readings.ended,
            failed_fetches: readings.failed,
            failed_cache_writes: self.failed_writes.load(Relaxed),
        }
    }

    /// What is in the cache, where there is one: how many keys and how old, or nothing yet.
    pub(super) fn cached(&self) -> Option<Result<Option<(usize, Duration)>, String>> {
        let held = read_cache(self.cache.as_ref()?, &self.algorithms);
        Some(held.map(|held| held.map(|held| (held.set.keys.len(), held.age_then))))
    }

    /// Reads the keys again and again, for ever.
    pub(super) async fn keep_fresh(&self) {
        let mut cached = None;
        if let Some(cache) = self.cache.clone() {
            let algorithms = self.algorithms.clone();
            cached = blocking(move || read_cache(&cache, &algorithms)).await.unwrap_or_else(|why| {
                tracing::warn!("the key set that was kept cannot be used: {why}");
                None
            });
        }
        let mut troubles = Troubles::default();
        loop {
            self.readings.send_modify(|readings| readings.is_under_way = true);
            let outcome = self.load(&mut troubles.writes).await;
            // Only for an issuer that has not answered at all. Requests that wait for this reading find the keys.
            if let Some(cached) = cached.take().filter(|_| self.held().origin == Origin::None) {
                self.hold(cached);
            }
            self.readings.send_modify(|readings| {
                readings.is_under_way = false;
                readings.ended += 1;
                readings.failed += u64::from(outcome.is_err());
                readings.failed_in_a_row = if outcome.is_err() { readings.failed_in_a_row + 1 } else { 0 };
            });
            troubles.tell(&outcome, &self.held());
            let failed = self.readings.borrow().failed_in_a_row;
            if failed > 0 {
                sleep(retry_after(failed, self.rest)).await;
            } else {
                sleep(self.rest).await;
                let _ = timeout(self.refresh.saturating_sub(self.rest), self.wanted.notified()).await;
            }
        }
    }

    /// Asks for the keys to be read soon, and waits until they have been, or for some seconds. Returns at once while
    /// they cannot be read: they are read again anyway, and nobody has to hold a connection for it.
    pub(super) async fn refresh(&self) {
        let mut readings = self.readings.subscribe();
        let Readings { ended, failed_in_a_row, is_under_way, .. } = *readings.borrow_and_update();
        if failed_in_a_row > 0 {
            return;
        }
        if !is_under_way {
            self.wanted.notify_one();
        }
        let _ = timeout(PATIENCE, readings.wait_for(|readings| readings.ended > ended)).await;
    }

    async fn load(&self, failed_writes: &mut Sparingly) -> Result<(), String> {
        let (text, origin) = match &self.source {
            Source::Url(url) => (url.get(SET_MAX).await?, Origin::Fetched),
            Source::File(path) => {
                let path = path.clone();
                (blocking(move || read(&path)).await?.into(), Origin::File)
            }
        };
        let set = KeySet::parse(&text, &self.algorithms)?;
        let outcome = set.has_keys(&self.algorithms);
        self.hold(Held::new(set, origin, Duration::ZERO));
        if let Some(cache) = self.cache.clone() {
            // A set without keys too: keys that the issuer has taken back must not come back from here.
            if let Err(why) = blocking(move || cache.keep(&text)).await {
                self.failed_writes.fetch_add(1, Relaxed);
                failed_writes.tell(Instant::now(), |failed| {
                    tracing::warn!(failed, "the key set for tokens cannot be kept: {why}");
                });
            }
        }
        outcome
    }

    fn hold(&self, held: Held) {
        let (before, set) = (self.held(), &held.set);
        if set.names().ne(before.set.names()) || set.ignored != before.set.ignored {
            tracing::info!(keys = set.keys.len(), ignored = set.ignored, "the keys for tokens have changed");
        }
        *sync::write(&self.held) = Arc::new(held);
    }
}

/// The keys in a cache, if there are any.
fn read_cache(cache: &Cache, algorithms: &[Algorithm]) -> Result<Option<Held>, String> {
    let Some(Kept { text, age }) = cache.read()? else { return Ok(None) };
    let set = KeySet::usable(&text, algorithms).map_err(|why| cache.wrong(&why))?;
    Ok(Some(Held::new(set, Origin::Cached, age)))
}

/// How long to wait after so many failed readings in a row.
fn retry_after(failed: u64, rest: Duration) -> Duration {
    let doublings = u32::try_from(failed.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    (FIRST_RETRY * 2_u32.pow(doublings)).min(rest)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}

/// Repeated failures are logged at most once in [`TELL_EVERY`], with their number.
#[derive(Default)]
struct Sparingly {
    told: Option<Instant>,
    untold: u64,
}

impl Sparingly {
    /// Counts one more failure, and tells of all that were not told of yet if it is time to.
    fn tell(&mut self, now: Instant, tell: impl FnOnce(u64)) {
        self.untold += 1;
        if self.told.is_none_or(|told| now.saturating_duration_since(told) >= TELL_EVERY) {
            tell(self.untold);
            *self = Sparingly { told: Some(now), untold: 0 };
        }
    }
}

/// What the log is told of.
#[derive(Default)]
struct Troubles {
    reads: Sparingly,
    writes: Sparingly,
    /// Whether the log's last word is that the set cannot be read.
    is_open: bool,
}

impl Troubles {
    fn tell(&mut self, outcome: &Result<(), String>, held: &Held) {
        let Err(why) = outcome else {
            if std::mem::take(&mut self.is_open) {
                tracing::info!("the key set for tokens is good again");
            }
            return;
        };
        let (keys, age_s) = (held.set.keys.len(), held.age().as_secs());
        let means = match held.origin {
            _ if keys == 0 => "no token can be verified",
            Origin::Cached => "tokens are verified with the cached set",
            _ => "tokens are verified with the set that is held",
        };
        self.reads.tell(Instant::now(), |failed| {
            tracing::warn!(failed, keys, age_s, "the key set for tokens cannot be read; {means}: {why}");
            self.is_open = true;
        });
    }
}

/// Reads a file with a key set.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(SET_MAX as u64 + 1).read_to_end(&mut text));
    read.map_err(|error| format!("{error}; expected a file with a JSON Web Key Set"))?;
    match text.len() > SET_MAX {
        true => Err(format!("it has more than {SET_MAX} bytes")),
        false => Ok(text),
    }
}

/// The keys of one reading.
#[derive(Debug, Default)]
struct KeySet {
    keys: Vec<NamedKey>,
    /// The number of keys that are unusable here.
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

    /// Reads a set that has a key.
    fn usable(text: &[u8], algorithms: &[Algorithm]) -> Result<KeySet, String> {
        let set = KeySet::parse(text, algorithms)?;
        set.has_keys(algorithms).map(|()| set)
    }

    fn has_keys(&self, algorithms: &[Algorithm]) -> Result<(), String> {
        match self.keys.is_empty() {
            true => Err(format!("it has no key to use; expected a public key for {algorithms:?}")),
            false => Ok(()),
        }
    }

    /// The keys that a token which names its key so, or does not, may be signed with: those of that name. Where there
    /// is only one key, a token need not name it; and if the key itself has no name, it is meant by any.
    fn named(&self, id: Option<&str>) -> Result<impl Iterator<Item = &VerifyingKey>, Denied> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_once_a_minute_with_their_number() {
        let (mut failures, start, mut told) = (Sparingly::default(), Instant::now(), Vec::new());
        for s in 0..=180 {
            failures.tell(start + Duration::from_secs(s), |n| told.push((s, n)));
        }
        assert_eq!(told, [(0, 1), (60, 60), (120, 60), (180, 60)]);
    }

    #[test]
    fn delay_after_failures_grows_up_to_the_rest() {
        let rest = Duration::from_secs(10);
        let delays = [1, 2, 3, 4, 5, 6, 7, u64::MAX].map(|failed| retry_after(failed, rest).as_millis());
        assert_eq!(delays, [500, 1000, 2000, 4000, 8000, 10_000, 10_000, 10_000]);
    }
}
