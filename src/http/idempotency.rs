//! Publishing once: a publish that has a name, by the header `Idempotency-Key`
//! (draft-ietf-httpapi-idempotency-key-header) or by its event's `id`, is done once however often it arrives. A repeat
//! within the window gets the first one's answer.
//!
//! Answers that were given are kept here, oldest first out, bounded by age and number. What was not published is not
//! kept: it may be tried again.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderName};
use serde::Serialize;

use super::reply::Problem;
use crate::clock::{Steady, Timestamp};
use crate::sync::lock;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The longest key in the header, in bytes.
const KEY_MAX: usize = 256;

/// Bounds on the remembered answers.
#[derive(Debug, Clone)]
pub struct IdempotencyConfig {
    /// How long an answer is kept, from when it was first given; with zero, nothing is, and every publish is a first.
    pub window: Duration,
    /// Answers kept at most.
    pub max_keys: usize,
}

/// An idempotency key with its publisher. Two publishers may use the same key for different requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name {
    /// Who the publisher is.
    pub scope: Box<str>,
    /// What it calls this.
    pub key: Box<str>,
}

/// The key in a request's headers, if there is one.
///
/// # Errors
/// Where there is more than one, or it is not 1 to 256 visible ASCII characters.
pub fn key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(first) = keys.next() else { return Ok(None) };
    let visible = first.as_bytes().iter().all(u8::is_ascii_graphic) && (1..=KEY_MAX).contains(&first.len());
    match first.to_str() {
        Ok(key) if visible && keys.next().is_none() => Ok(Some(key)),
        _ => {
            let expected = format!("expected one, of 1 to {KEY_MAX} visible ASCII characters");
            Err(Problem::Bad(format!("header \"Idempotency-Key\": {expected}")))
        }
    }
}

/// A remembered answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was done now.
    First(Bytes),
    /// It was done before, and this was the answer then.
    Repeat(Bytes),
}

/// The figures of the remembered answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Answers kept now.
    pub keys: usize,
    /// Repeats that got the first one's answer.
    pub replayed: u64,
    /// Repeats refused because they asked for something else than the first one.
    pub reused: u64,
    /// Answers given up before their time, to make room for newer ones: a repeat of theirs would be done again.
    pub evicted: u64,
}

/// The answers given to publishes with a name.
#[derive(Debug)]
pub struct Answers {
    config: IdempotencyConfig,
    kept: Mutex<Kept>,
    /// Makes requests comparable without keeping them: 64 bits (SipHash), under a key that nobody outside knows, so
    /// that no two can be made to look alike.
    digest: RandomState,
    replayed: AtomicU64,
    reused: AtomicU64,
    evicted: AtomicU64,
}

#[derive(Debug, Default)]
struct Kept {
    by_name: HashMap<Arc<Name>, First>,
    /// The same names in the order in which they came, which is the order in which they leave.
    order: VecDeque<Arc<Name>>,
}

#[derive(Debug)]
struct First {
    request: u64,
    answer: Bytes,
    at: Steady,
}

impl Answers {
    /// None yet.
    pub fn new(config: IdempotencyConfig) -> Answers {
        Answers {
            config,
            kept: Mutex::default(),
            digest: RandomState::new(),
            replayed: AtomicU64::new(0),
            reused: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        }
    }

    /// Runs `publish` unless that has been done under this name, and gives its answer or the one it gave then.
    /// `request` is all that makes two requests the same.
    ///
    /// From looking to remembering is one step that nothing can come between: neither a second request of the same
    /// name, which waits for it, nor the end of the connection, at which hyper drops what awaits something. For as
    /// long, other publishes with names wait too; events are appended to the log one after the other in any case.
    ///
    /// # Errors
    /// [`Problem::KeyReused`] where the name was given to another request; `publish` was not run.
    pub fn once(
        &self,
        name: Name,
        request: impl Hash,
        now: Timestamp,
        publish: impl FnOnce() -> Bytes,
    ) -> Result<Answer, Problem> {
        if self.config.window.is_zero() {
            return Ok(Answer::First(publish()));
        }
        let request = self.digest.hash_one(request);
        let mut kept = self.lock();
        kept.expire(self.config.window, now);
        match kept.by_name.get(&name) {
            Some(first) if first.request == request => {
                self.replayed.fetch_add(1, Relaxed);
                return Ok(Answer::Repeat(first.answer.clone()));
            }
            Some(_) => {
                self.reused.fetch_add(1, Relaxed);
                return Err(Problem::KeyReused);
            }
            None => {}
        }
        let answer = publish();
        if kept.order.len() >= self.config.max_keys {
            kept.forget_oldest();
            self.evicted.fetch_add(1, Relaxed);
        }
        let name = Arc::new(name);
        kept.order.push_back(name.clone());
        kept.by_name.insert(name, First { request, answer: answer.clone(), at: now.steady() });
        Ok(Answer::First(answer))
    }

    /// Drops answers that are past their window; to be called about once a second.
    pub fn expire(&self, now: Timestamp) {
        self.lock().expire(self.config.window, now);
    }

    /// Figures of the moment.
    pub fn figures(&self) -> Figures {
        Figures {
            keys: self.lock().order.len(),
            replayed: self.replayed.load(Relaxed),
            reused: self.reused.load(Relaxed),
            evicted: self.evicted.load(Relaxed),
        }
    }

    /// A panic while it was held is a bug that was reported there; what is kept is whole at every step.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        lock(&self.kept)
    }
}

impl Kept {
    fn expire(&mut self, window: Duration, now: Timestamp) {
        let over = |first: &First| now.steady().since(first.at) >= window;
        while self.order.front().and_then(|name| self.by_name.get(name)).is_some_and(over) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(name) = self.order.pop_front() {
            self.by_name.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(window_ms: u64, max_keys: usize) -> Answers {
        Answers::new(IdempotencyConfig { window: Duration::from_millis(window_ms), max_keys })
    }

    fn name(scope: &str, key: &str) -> Name {
        Name { scope: scope.into(), key: key.into() }
    }

    #[track_caller]
    fn ask(answers: &Answers, name: Name, request: &str, ms: u64, would: &'static str) -> Result<Answer, Problem> {
        answers.once(name, request, Timestamp::from_unix_ms(ms), || Bytes::from(would))
    }

    fn first(text: &'static str) -> Result<Answer, Problem> {
        Ok(Answer::First(Bytes::from(text)))
    }

    fn repeat(text: &'static str) -> Result<Answer, Problem> {
        Ok(Answer::Repeat(Bytes::from(text)))
    }

    #[test]
    fn a_repeat_gets_the_first_answer_until_the_window_is_over() {
        let answers = answers(100, 10);
        assert_eq!(ask(&answers, name("", "k"), "r", 1000, "one"), first("one"));
        assert_eq!(ask(&answers, name("", "k"), "r", 1099, "two"), repeat("one"));
        assert_eq!(
            ask(&answers, name("", "k"), "r", 500, "two"),
            repeat("one"),
            "a request that was read earlier and came later"
        );
        assert_eq!(ask(&answers, name("", "k"), "r", 1100, "two"), first("two"), "counted from the first");
        assert_eq!(answers.figures(), Figures { keys: 1, replayed: 2, reused: 0, evicted: 0 });
        answers.expire(Timestamp::from_unix_ms(1199));
        assert_eq!(answers.figures().keys, 1);
        answers.expire(Timestamp::from_unix_ms(1200));
        assert_eq!(answers.figures().keys, 0);
        assert!(answers.lock().by_name.is_empty());
    }

    #[test]
    fn a_wall_clock_that_is_set_neither_ends_nor_prolongs_a_window() {
        let answers = answers(100, 10);
        assert_eq!(ask(&answers, name("", "k"), "r", 1000, "one"), first("one"));
        for hours in [3, -3] {
            answers.expire(Timestamp::from_unix_ms(1099).set_by(hours * 3_600_000));
            assert_eq!(ask(&answers, name("", "k"), "r", 1099, "two"), repeat("one"), "{hours} h");
        }
        answers.expire(Timestamp::from_unix_ms(1100).set_by(-1000));
        assert_eq!(answers.figures().keys, 0);
    }

    #[test]
    fn a_name_is_its_publishers_own_and_one_requests() {
        let answers = answers(100, 10);
        assert_eq!(ask(&answers, name("a", "k"), "r", 0, "one"), first("one"));
        assert_eq!(ask(&answers, name("b", "k"), "r", 0, "two"), first("two"));
        assert_eq!(ask(&answers, name("a", "k"), "other", 0, "never"), Err(Problem::KeyReused));
        assert_eq!(ask(&answers, name("a", "k"), "r", 0, "never"), repeat("one"));
        assert_eq!(ask(&answers, name("", "ak"), "r", 0, "three"), first("three"));
        assert_eq!(answers.figures(), Figures { keys: 3, replayed: 1, reused: 1, evicted: 0 });
    }

    #[test]
    fn the_oldest_make_room_and_are_counted() {
        let answers = answers(1000, 2);
        for (ms, key) in ["a", "b", "c"].into_iter().enumerate() {
            assert_eq!(ask(&answers, name("", key), "r", ms as u64, "one"), first("one"));
        }
        assert_eq!(ask(&answers, name("", "b"), "r", 3, "two"), repeat("one"));
        assert_eq!(ask(&answers, name("", "a"), "r", 4, "two"), first("two"), "it had to go");
        assert_eq!(answers.figures(), Figures { keys: 2, replayed: 1, reused: 0, evicted: 2 });
    }

    #[test]
    fn what_leaves_at_its_time_is_not_counted() {
        let answers = answers(10, 1);
        assert_eq!(ask(&answers, name("", "a"), "r", 0, "one"), first("one"));
        assert_eq!(ask(&answers, name("", "b"), "r", 10, "two"), first("two"));
        assert_eq!(answers.figures().evicted, 0);
    }

    #[test]
    fn without_a_window_nothing_is_kept() {
        let answers = answers(0, 1);
        assert_eq!(ask(&answers, name("", "a"), "r", 0, "one"), first("one"));
        assert_eq!(ask(&answers, name("", "a"), "r", 0, "two"), first("two"));
        assert_eq!(answers.figures().keys, 0);
    }

    #[test]
    fn keys_are_visible_ascii() {
        let read = |lines: &[&'static [u8]]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(IDEMPOTENCY_KEY, hyper::header::HeaderValue::from_bytes(line).expect("a value"));
            }
            key(&headers).map(|key| key.map(str::to_owned))
        };
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[b"\"8e03978e-40d5\""]), Ok(Some("\"8e03978e-40d5\"".to_owned())));
        assert_eq!(read(&[&[b'x'; 256]]), Ok(Some("x".repeat(256))));
        for wrong in [&[&b""[..]][..], &[b"a b"], &[&[b'x'; 257]], &[b"a", b"a"], &["é".as_bytes()]] {
            assert!(matches!(read(wrong), Err(Problem::Bad(why)) if why.contains("expected")), "{wrong:?}");
        }
    }
}
