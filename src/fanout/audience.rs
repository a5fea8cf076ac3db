//! Audiences: the streams of a shard that asked for the same thing, and so get the same bytes.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use slab::Slab;

use crate::frame::{Framing, HeartbeatStyle};
use crate::log::{Event, Filter, Interest, Log, Scope, Topic, Viewer};
use crate::pattern;

/// What the streams of an audience have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) interest: Interest,
    pub(super) framing: Framing,
    /// Whether they pull.
    pub(super) pulled: bool,
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
    /// A place whose id every live member has that stands there: of the newest event that it was sent, or where its
    /// streams began; 0 where there is none.
    pub(super) known: u64,
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

    /// How to show a sign of life to a member whose place is `place`, where `style` is preferred.
    ///
    /// A comment carries no id. That is enough for a member that was sent all events of its topics: none of them is newer
    /// than the id that it has. One with a filter may have an id older than events that it was not sent; once these are
    /// no longer kept, that id would look like a gap. So it is sent the event, with its place, unless it has that id.
    pub(super) fn heartbeat_style(&self, style: HeartbeatStyle, place: u64) -> HeartbeatStyle {
        match self.key.interest.filter.is_some() && place > self.known {
            true => HeartbeatStyle::Named,
            false => style,
        }
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

/// A shard's audiences, found by key (for a new stream) and by what an event is (for an event): where it went, whose it
/// is, of which type. So an event costs the audiences that it reaches, however many others there are.
#[derive(Debug, Default)]
pub(super) struct Audiences {
    slab: Slab<Audience>,
    by_key: HashMap<Key, u32>,
    of_everything: Place,
    /// Topics by their address: one that somebody listens to stays where it is.
    by_topic: HashMap<usize, Place>,
    by_prefix: HashMap<Arc<str>, Place>,
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

    /// Whether all events after `cursor` that any of them wants are kept.
    pub(super) fn have_lost_nothing(&self, log: &Log, cursor: u64) -> bool {
        self.slab.iter().all(|(_, audience)| log.lost(&audience.key.interest) <= cursor)
    }

    /// Counts a stream that begins at `cursor` into its audience, which is made if it is the first.
    pub(super) fn enter(&mut self, key: Key, cursor: u64) -> u32 {
        if let Some(&id) = self.by_key.get(&key) {
            let audience = &mut self.slab[id as usize];
            audience.streams += 1;
            if cursor < audience.known {
                // It may get there without an id.
                audience.known = 0;
            }
            return id;
        }
        let id = self.slab.insert(Audience {
            key: key.clone(),
            members: Vec::new(),
            streams: 1,
            pending: VecDeque::new(),
            known: cursor,
            done: 0,
            queued: false,
        }) as u32;
        let filter = key.interest.filter.as_deref();
        match &key.interest.scope {
            Scope::All => self.of_everything.add(filter, id),
            Scope::Some { topics, groups } => {
                for topic in topics {
                    self.by_topic.entry(address(topic)).or_default().add(filter, id);
                }
                for group in groups {
                    self.by_prefix.entry(group.prefix().clone()).or_default().add(filter, id);
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
        let filter = key.interest.filter.as_deref();
        match &key.interest.scope {
            Scope::All => {
                self.of_everything.remove(filter, id);
            }
            Scope::Some { topics, groups } => {
                for topic in topics {
                    let at = address(topic);
                    if self.by_topic.get_mut(&at).is_some_and(|place| place.remove(filter, id)) {
                        self.by_topic.remove(&at);
                    }
                }
                for group in groups {
                    if self.by_prefix.get_mut(group.prefix()).is_some_and(|place| place.remove(filter, id)) {
                        self.by_prefix.remove(group.prefix());
                    }
                }
            }
        }
        pending.len()
    }

    /// Adds the audiences that an event reaches to `reached`; one that it reaches in two ways may be there twice.
    pub(super) fn reached_by(&self, event: &Event, reached: &mut Vec<u32>) {
        self.of_everything.reached_by(event, reached);
        if let Some(place) = self.by_topic.get(&address(&event.topic)) {
            place.reached_by(event, reached);
        }
        if !self.by_prefix.is_empty() {
            for place in pattern::prefixes(event.topic.name()).filter_map(|prefix| self.by_prefix.get(prefix)) {
                place.reached_by(event, reached);
            }
        }
    }
}

fn address(topic: &Arc<Topic>) -> usize {
    Arc::as_ptr(topic).addr()
}

/// The audiences of one topic, of one prefix, or of everything.
#[derive(Debug, Default)]
struct Place {
    /// Those that get all its events, as most do.
    unfiltered: BTreeSet<u32>,
    filtered: Option<Box<Filtered>>,
}

/// The audiences that get only some of a place's events. One may stand in several sets, but an event of one owner reaches
/// it once.
#[derive(Debug, Default)]
struct Filtered {
    /// Everybody's.
    all: ByType,
    /// Those that belong to nobody.
    public: ByType,
    /// A user's.
    users: HashMap<Arc<str>, ByType>,
}

#[derive(Debug, Default)]
struct ByType {
    any: BTreeSet<u32>,
    typed: HashMap<Box<[u8]>, BTreeSet<u32>>,
}

impl Place {
    fn add(&mut self, filter: Option<&Filter>, id: u32) {
        match filter {
            None => {
                self.unfiltered.insert(id);
            }
            Some(filter) => self.filtered.get_or_insert_default().add(filter, id),
        }
    }

    /// True if nothing is left.
    fn remove(&mut self, filter: Option<&Filter>, id: u32) -> bool {
        match filter {
            None => {
                self.unfiltered.remove(&id);
            }
            Some(filter) => {
                if self.filtered.as_mut().is_some_and(|filtered| filtered.remove(filter, id)) {
                    self.filtered = None;
                }
            }
        }
        self.unfiltered.is_empty() && self.filtered.is_none()
    }

    fn reached_by(&self, event: &Event, reached: &mut Vec<u32>) {
        reached.extend(&self.unfiltered);
        let Some(filtered) = &self.filtered else { return };
        let kind = event.frame.kind();
        filtered.all.reached_by(kind, reached);
        match event.owners.is_public() {
            true => filtered.public.reached_by(kind, reached),
            false => {
                let users = event.owners.users().iter();
                users.filter_map(|user| filtered.users.get(&**user)).for_each(|user| user.reached_by(kind, reached));
            }
        }
    }
}

impl Filtered {
    fn add(&mut self, Filter { viewer, types }: &Filter, id: u32) {
        match viewer {
            Viewer::All => self.all.add(types, id),
            Viewer::Public => self.public.add(types, id),
            Viewer::Member(user) => {
                self.public.add(types, id);
                self.users.entry(user.clone()).or_default().add(types, id);
            }
            Viewer::Only(user) => self.users.entry(user.clone()).or_default().add(types, id),
        }
    }

    /// True if nothing is left.
    fn remove(&mut self, Filter { viewer, types }: &Filter, id: u32) -> bool {
        if let Viewer::All = viewer {
            self.all.remove(types, id);
        }
        if let Viewer::Public | Viewer::Member(_) = viewer {
            self.public.remove(types, id);
        }
        if let Viewer::Member(user) | Viewer::Only(user) = viewer
            && self.users.get_mut(user).is_some_and(|events| events.remove(types, id))
        {
            self.users.remove(user);
        }
        self.all.is_empty() && self.public.is_empty() && self.users.is_empty()
    }
}

impl ByType {
    fn is_empty(&self) -> bool {
        self.any.is_empty() && self.typed.is_empty()
    }

    fn add(&mut self, types: &[Box<str>], id: u32) {
        if types.is_empty() {
            self.any.insert(id);
        }
        for kind in types {
            self.typed.entry(kind.as_bytes().into()).or_default().insert(id);
        }
    }

    /// True if nothing is left.
    fn remove(&mut self, types: &[Box<str>], id: u32) -> bool {
        self.any.remove(&id);
        for kind in types {
            let kind = kind.as_bytes();
            if let Some(ids) = self.typed.get_mut(kind) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.typed.remove(kind);
                }
            }
        }
        self.is_empty()
    }

    fn reached_by(&self, kind: &[u8], reached: &mut Vec<u32>) {
        reached.extend(&self.any);
        if let Some(ids) = self.typed.get(kind) {
            reached.extend(ids);
        }
    }
}
