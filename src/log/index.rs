//! The topic index: topics by name, and groups of topics by prefix.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use dashmap::DashMap;

use super::evicted::Evicted;
use super::interest::Scope;
use super::listeners::Listeners;
use super::topic::{Group, Topic};
use crate::pattern::{self, Pattern};
use crate::sync::lock;

/// Finds a topic's history and listeners by the topic's name, and a group's listeners by its prefix.
#[derive(Debug)]
pub(super) struct Index {
    topics: DashMap<Arc<str>, Arc<Topic>>,
    groups: DashMap<Arc<str>, Arc<Group>>,
    /// How many listen by prefix. While there are none, which is usual, no event looks for groups.
    by_prefix: AtomicUsize,
    /// Listeners to everything.
    everything: Listeners,
    /// The newest evicted events of topics that have left the index.
    dropped: Mutex<Evicted>,
    shards: usize,
}

impl Index {
    pub(super) fn new(shards: usize) -> Index {
        Index {
            topics: DashMap::new(),
            groups: DashMap::new(),
            by_prefix: AtomicUsize::new(0),
            everything: Listeners::new(shards),
            dropped: Mutex::new(Evicted::new()),
            shards,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.topics.len()
    }

    /// All topics, in no order. While the iterator is at a topic, writers to that shard of the map wait.
    pub(super) fn topics(&self) -> impl Iterator<Item = Arc<Topic>> {
        self.topics.iter().map(|topic| topic.clone())
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.topics.get(name).map(|topic| topic.clone())
    }

    /// The shards with listeners for this topic's events, as [`Listeners::shards`].
    pub(super) fn shards_for(&self, topic: &Topic) -> u64 {
        self.everything.shards()
            | topic.listeners.shards()
            | self.groups_of(topic).fold(0, |set, group| set | group.listeners.shards())
    }

    /// Whether any listener of `shard` wants this topic's events.
    pub(super) fn is_wanted(&self, topic: &Topic, shard: usize) -> bool {
        topic.listeners.are_in(shard)
            || self.everything.are_in(shard)
            || self.groups_of(topic).any(|group| group.listeners.are_in(shard))
    }

    fn groups_of(&self, topic: &Topic) -> impl Iterator<Item = Arc<Group>> {
        let name = match self.by_prefix.load(SeqCst) {
            0 => "",
            _ => topic.name(),
        };
        pattern::prefixes(name).filter_map(|prefix| self.groups.get(prefix).map(|group| group.clone()))
    }

    /// Finds or makes the topic, and keeps it in the index until an event that is put into it has left again.
    pub(super) fn claim(&self, name: &str) -> Arc<Topic> {
        self.with(name, Topic::claim)
    }

    /// Finds or makes the topics and groups that the patterns name, and counts one more listener for each.
    pub(super) fn join(&self, patterns: &[Pattern], shard: usize) -> Scope {
        if patterns.contains(&Pattern::All) {
            self.everything.enter(shard);
            return Scope::All;
        }
        let (mut topics, mut groups) = (Vec::new(), Vec::new());
        for (n, pattern) in patterns.iter().enumerate() {
            // Of two equal patterns, the first is kept.
            let covered =
                |(m, other): (usize, &Pattern)| m != n && other.covers(pattern) && (m < n || other != pattern);
            if patterns.iter().enumerate().any(covered) {
                continue;
            }
            match pattern {
                Pattern::All => {}
                Pattern::Topic(name) => topics.push(self.with(name, |topic| topic.listeners.enter(shard))),
                Pattern::Prefix(prefix) => groups.push(self.join_group(prefix, shard)),
            }
        }
        topics.sort_unstable_by_key(Arc::as_ptr);
        groups.sort_unstable_by_key(Arc::as_ptr);
        Scope::Some { topics: topics.into(), groups: groups.into() }
    }

    fn join_group(&self, prefix: &str, shard: usize) -> Arc<Group> {
        let prefix: Arc<str> = prefix.into();
        let new = || Arc::new(Group::new(prefix.clone(), self.shards));
        let group = self.groups.entry(prefix.clone()).or_insert_with(new);
        // While the map's guard is held, so that no `leave` comes between.
        group.listeners.enter(shard);
        self.by_prefix.fetch_add(1, SeqCst);
        group.clone()
    }

    /// Takes one listener away again.
    pub(super) fn leave(&self, scope: &Scope, shard: usize) {
        match scope {
            Scope::All => self.everything.exit(shard),
            Scope::Some { topics, groups } => {
                for topic in topics {
                    topic.listeners.exit(shard);
                }
                self.forget(topics.iter().filter(|topic| topic.is_unused()).cloned().collect());
                for group in groups {
                    group.listeners.exit(shard);
                    self.by_prefix.fetch_sub(1, SeqCst);
                    self.groups.remove_if(group.prefix(), |_, group| group.listeners.are_none());
                }
            }
        }
    }

    /// Runs `mark` on the topic while the map's guard is held, so that no `forget` comes between.
    fn with(&self, name: &str, mark: impl Fn(&Topic)) -> Arc<Topic> {
        if let Some(topic) = self.topics.get(name) {
            mark(&topic);
            return topic.clone();
        }
        let name: Arc<str> = name.into();
        let topic = self.topics.entry(name.clone()).or_insert_with(|| {
            let [lost, lost_ms] = lock(&self.dropped).lost(&name);
            Arc::new(Topic::new(name, self.shards, lost, lost_ms))
        });
        mark(&topic);
        topic.clone()
    }

    /// Drops those of the topics that have neither listeners nor events.
    pub(super) fn forget(&self, candidates: Vec<Arc<Topic>>) {
        for topic in candidates {
            self.topics.remove_if(topic.name(), |_, topic| {
                let unused = topic.is_unused();
                if unused && topic.lost() > 0 {
                    // While the map's guard is held, so that a topic that is made anew finds this.
                    lock(&self.dropped).note(topic.name(), [topic.lost(), topic.lost_ms()]);
                }
                unused
            });
        }
    }
}
