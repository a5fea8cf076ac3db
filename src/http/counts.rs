//! Counters of connections and requests.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::histogram::Histogram;
use crate::sync::lock;

/// Counters of the accepting side.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Times that accepting failed for want of file descriptors or memory.
    pub exhausted: AtomicU64,
    /// Requests being answered at this moment.
    pub exchanges: AtomicUsize,
    /// Connections closed because a request's head did not arrive in time.
    pub slow_heads: AtomicU64,
    /// Connections of HTTP/2 that ended by an error of the protocol, this side's or the client's: a flood of resets is
    /// one too.
    pub http2_errors: AtomicU64,
    /// How long publishes took that were accepted, from their heads (so the bodies' coming is in it) to their answers.
    pub publishes: Histogram,
    /// Requests refused.
    pub problems: Problems,
}

impl Counts {
    /// A connection of HTTP/2 has ended by this error. One that was only cut has an error of the socket in it.
    pub fn count_http2_error(&self, error: &(dyn Error + 'static)) {
        if !error.source().is_some_and(<dyn Error>::is::<io::Error>) {
            self.http2_errors.fetch_add(1, Relaxed);
        }
    }
}

/// How many requests were refused, by the code of their answer.
#[derive(Debug, Default)]
pub struct Problems(Mutex<BTreeMap<&'static str, u64>>);

impl Problems {
    /// One more of this code.
    pub fn count(&self, code: &'static str) {
        *lock(&self.0).entry(code).or_default() += 1;
    }

    /// All so far.
    pub fn all(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.0).clone()
    }
}
