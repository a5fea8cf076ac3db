//! Audiences: the streams of a shard that asked for the same thing, and so get the same bytes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use slab::Slab;

use crate::frame::Framing;
use crate::log::{Event, Interest, Topic};

/// What the streams of an audience have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) interest: Interest,
    pub(super) framing: Framing,
}

/// The streams of one key.
#[derive(Debug)]
pub(super) struct Audience {
    pub(super) key: Key,
    /// Its live streams, in no order.
    pub(super) members: Vec<u32>,
    /// Its streams, live or not.
    streams: usize,
    /// Events that not every live member has had yet, oldest first.
    pub(super) pending: VecDeque<Arc<Event>>,
    /// How many events all live members have had; wraps.
    pub(super) done: u32,
    /// Whether it waits in the shard's queue, or is being swept.
    pub(super) queued: bool,
}

impl Audience {
    /// How many of the pending events a member that has had `at` events has had.
    pub(super) fn had(&self, at: u32) -> usize {
        at.wrapping_sub(self.done) as usize
    }

    /// The position of a member that has had everything.
    pub(super) fn end(&self) -> u32 {
        self.done.wrapping_add(self.pending.len() as u32)
    }

    /// The cursor of a member that has had `had` of the pending events, where the shard itself stands at `shard`.
    pub(super) fn cursor(&self, had: usize, shard: u64) -> u64 {
        self.pending.get(had).map_or(shard, |event| event.seq - 1)
    }

    /// Lets go of the oldest `n` pending events.
    pub(super) fn finish(&mut self, n: usize) {
        self.pending.drain(..n);
        self.done = self.done.wrapping_add(n as u32);
        if self.pending.is_empty() {
            // Ten thousand audiences of one stream each would otherwise keep ten thousand buffers.
            self.pending = VecDeque::new();
        }
    }
}

/// A shard's audiences, found by key (for a new stream) and by topic (for an event).
#[derive(Debug, Default)]
pub(super) struct Audiences {
    slab: Slab<Audience>,
    by_key: HashMap<Key, u32>,
    /// Topics by their address: one that somebody listens to stays where it is.
    by_topic: HashMap<usize, Vec<u32>>,
    of_everything: Vec<u32>,
}

impl Audiences {
    pub(super) fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    pub(super) fn get(&self, id: u32) -> Option<&Audience> {
        self.slab.get(id as usize)
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Audience> {
        self.slab.get_mut(id as usize)
    }

    pub(super) fn ids(&self) -> Vec<u32> {
        self.slab.iter().map(|(id, _)| id as u32).collect()
    }

    /// Counts a stream into its audience, which is made if it is the first.
    pub(super) fn enter(&mut self, key: Key) -> u32 {
        if let Some(&id) = self.by_key.get(&key) {
            self.slab[id as usize].streams += 1;
            return id;
        }
        let id = self.slab.insert(Audience {
            key: key.clone(),
            members: Vec::new(),
            streams: 1,
            pending: VecDeque::new(),
            done: 0,
            queued: false,
        }) as u32;
        match &key.interest {
            Interest::All => self.of_everything.push(id),
            Interest::Topics(topics) => {
                for topic in topics {
                    self.by_topic.entry(address(topic)).or_default().push(id);
                }
            }
        }
        self.by_key.insert(key, id);
        id
    }

    /// Counts a stream out, and hands what it had listened to to `leave`. The last one takes the audience with it:
    /// gives how many events were pending there.
    pub(super) fn exit(&mut self, id: u32, leave: impl FnOnce(&Interest)) -> usize {
        let audience = &mut self.slab[id as usize];
        leave(&audience.key.interest);
        audience.streams -= 1;
        if audience.streams > 0 {
            return 0;
        }
        let Audience { key, pending, .. } = self.slab.remove(id as usize);
        self.by_key.remove(&key);
        match &key.interest {
            Interest::All => self.of_everything.retain(|&other| other != id),
            Interest::Topics(topics) => {
                for topic in topics {
                    if let Some(ids) = self.by_topic.get_mut(&address(topic)) {
                        ids.retain(|&other| other != id);
                        if ids.is_empty() {
                            self.by_topic.remove(&address(topic));
                        }
                    }
                }
            }
        }
        pending.len()
    }

    /// The audiences that an event reaches.
    pub(super) fn reached_by(&self, event: &Event) -> impl Iterator<Item = u32> {
        let by_topic = self.by_topic.get(&address(&event.topic)).map_or(&[][..], Vec::as_slice);
        by_topic.iter().chain(&self.of_everything).copied()
    }
}

fn address(topic: &Arc<Topic>) -> usize {
    Arc::as_ptr(topic).addr()
}
