//! What is counted of connections and requests.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use serde::Serialize;

use crate::histogram::Histogram;
use crate::sync::lock;

/// What the accepting side counts.
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

/// What TLS has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TlsFigures {
    /// Handshakes completed.
    pub handshakes: u64,
    /// Those of them that resumed an earlier session.
    pub resumed: u64,
    /// Handshakes given up because they took too long.
    pub too_slow: u64,
    /// Connections that did not speak TLS.
    pub not_tls: u64,
    /// Handshakes that the client broke off with an alert.
    pub rejected: u64,
    /// Handshakes that broke the protocol, or found nothing in common.
    pub protocol: u64,
    /// Connections that ended before their handshake did.
    pub closed: u64,
    /// Times that a new certificate came into force.
    pub reloads: u64,
    /// Times that a new certificate could not be used.
    pub failed_reloads: u64,
    /// When the certificate in force expires, in seconds since 1970.
    pub expires_unix_s: u64,
}
