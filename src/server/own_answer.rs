//! Answers that hyper writes by itself, to a head that it cannot read: `400` or `431` with no body, no request id and no
//! counter. The contract's envelope is for all answers, so an IO adapter that sees such an answer pass sends ours.

use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;

use super::service::Service;

/// The answer that takes the place of hyper's own, on one connection.
pub(super) struct OwnAnswer {
    service: Arc<Service>,
    max_head: usize,
    is_replaced: bool,
    rest: Bytes,
}

impl OwnAnswer {
    /// For a connection whose heads have at most `max_head` bytes.
    pub(super) fn new(service: Arc<Service>, max_head: usize) -> OwnAnswer {
        OwnAnswer { service, max_head, is_replaced: false, rest: Bytes::new() }
    }

    /// The service that the connection belongs to.
    pub(super) fn service(&self) -> &Service {
        &self.service
    }

    /// Takes bytes of hyper's answer, and makes ours of its status line. Gives how many it took: all.
    pub(super) fn replace(&mut self, theirs: &[u8]) -> usize {
        if !self.is_replaced && !theirs.is_empty() {
            self.is_replaced = true;
            let status = theirs.get(9..12).and_then(|digits| StatusCode::from_bytes(digits).ok());
            self.rest = self.service.broken_head(status, self.max_head).into();
        }
        theirs.len()
    }

    /// The bytes that are still to be sent, if there are any.
    pub(super) fn rest(&self) -> Option<Bytes> {
        (!self.rest.is_empty()).then(|| self.rest.clone())
    }

    /// So many of them were sent.
    pub(super) fn written(&mut self, n: usize) {
        self.rest = self.rest.slice(n..);
    }
}
