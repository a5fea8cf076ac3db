//! A listener's registration in the index, which ends when it is dropped.

use std::sync::Arc;

use super::Log;
use super::interest::{Filter, Interest};
use crate::pattern::Pattern;

/// A listener's registration in the index. Dropping it removes the listener.
#[derive(Debug)]
pub struct Listening {
    log: Arc<Log>,
    interest: Option<Interest>,
    shard: usize,
}

impl Listening {
    /// The topics and the filter that it listens to.
    pub fn interest(&self) -> &Interest {
        self.interest.as_ref().expect("the interest is there until it is handed over or dropped")
    }

    /// Hands the interest over, and with it the duty to call [`Log::leave`] once.
    pub fn hand_over(mut self) -> Interest {
        self.interest.take().expect("the interest is handed over once")
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(interest) = self.interest.take() {
            self.log.leave(&interest, self.shard);
        }
    }
}

impl Log {
    /// Registers a listener of `shard` for the topics that the patterns name. From then on, their events wake the
    /// shard.
    ///
    /// A caller that joins first and reads the head afterwards misses no event: an event is either at or before that
    /// head, or its publisher sees the listener.
    pub fn join(self: &Arc<Self>, patterns: &[Pattern], filter: Option<Filter>, shard: usize) -> Listening {
        let scope = self.index.join(patterns, shard);
        let interest = Interest { scope, filter: filter.map(Arc::new) };
        Listening { log: self.clone(), interest: Some(interest), shard }
    }
}
