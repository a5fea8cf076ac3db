//! A listener's entry in the index, taken back when it is dropped.

use std::sync::Arc;

use super::Log;
use super::interest::{Filter, Interest};
use crate::pattern::Pattern;

/// One listener's entry in the index; dropping it takes the entry back.
#[derive(Debug)]
pub struct Listening {
    log: Arc<Log>,
    interest: Option<Interest>,
    shard: usize,
}

impl Listening {
    /// What it listens to.
    pub fn interest(&self) -> &Interest {
        self.interest.as_ref().expect("the interest is there until it is handed over or dropped")
    }

    /// Gives the interest away, and with it the duty to call [`Log::leave`] once.
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
    /// Registers a listener of `shard` for what the patterns name, and with it the right to be woken for it.
    ///
    /// Whoever joins first and reads the head afterwards misses nothing: an event is either at or before that head,
    /// or its publisher sees the listener.
    pub fn join(self: &Arc<Self>, patterns: &[Pattern], filter: Option<Filter>, shard: usize) -> Listening {
        let scope = self.index.join(patterns, shard);
        let interest = Interest { scope, filter: filter.map(Arc::new) };
        Listening { log: self.clone(), interest: Some(interest), shard }
    }
}
