//! An interest: the topics that a listener asked for, and a filter of their events by owner and type.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::topic::{Event, Group, Topic};

/// The topics and the filter that a listener asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Interest {
    /// The topics.
    pub scope: Scope,
    /// The filter of their events. Most listeners have none.
    pub filter: Option<Arc<Filter>>,
}

impl Interest {
    /// Whether this interest includes the event.
    pub(super) fn wants(&self, event: &Event) -> bool {
        self.scope.contains(&event.topic) && self.filter.as_ref().is_none_or(|filter| filter.lets(event))
    }
}

/// The topics of an interest.
#[derive(Debug, Clone)]
pub enum Scope {
    /// Every topic.
    All,
    /// These, sorted by address, none twice.
    Some {
        /// Topics by name.
        topics: Box<[Arc<Topic>]>,
        /// Groups of topics, by prefix.
        groups: Box<[Arc<Group>]>,
    },
}

impl Scope {
    pub(super) fn contains(&self, topic: &Arc<Topic>) -> bool {
        match self {
            Scope::All => true,
            Scope::Some { topics, groups } => {
                topics.iter().any(|one| Arc::ptr_eq(one, topic)) || groups.iter().any(|group| group.contains(topic))
            }
        }
    }
}

/// Topics and groups with listeners stay in the index, so equal names are equal addresses.
impl PartialEq for Scope {
    fn eq(&self, other: &Scope) -> bool {
        fn same<T>(a: &[Arc<T>], b: &[Arc<T>]) -> bool {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
        }
        match (self, other) {
            (Scope::All, Scope::All) => true,
            (Scope::Some { topics, groups }, Scope::Some { topics: other_topics, groups: other_groups }) => {
                same(topics, other_topics) && same(groups, other_groups)
            }
            _ => false,
        }
    }
}

impl Eq for Scope {}

impl Hash for Scope {
    fn hash<H: Hasher>(&self, state: &mut H) {
        if let Scope::Some { topics, groups } = self {
            topics.iter().for_each(|topic| Arc::as_ptr(topic).hash(state));
            groups.iter().for_each(|group| Arc::as_ptr(group).hash(state));
        }
    }
}

/// The events of its topics that a listener gets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Filter {
    /// The owners whose events it gets.
    pub viewer: Viewer,
    /// The types that it gets, sorted, without duplicates. If there are none, it gets all types.
    pub types: Box<[Box<str>]>,
}

/// The owners whose events a listener gets. Events without an owner are public.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Viewer {
    /// Events of all owners.
    All,
    /// Public events.
    Public,
    /// Public events, and this user's.
    Member(Arc<str>),
    /// This user's events.
    Only(Arc<str>),
}

impl Filter {
    pub(super) fn lets(&self, event: &Event) -> bool {
        let owners = &event.owners;
        let visible = match &self.viewer {
            Viewer::All => true,
            Viewer::Public => owners.is_public(),
            Viewer::Member(user) => owners.is_public() || owners.contains(user),
            Viewer::Only(user) => owners.contains(user),
        };
        visible && (self.types.is_empty() || self.types.iter().any(|kind| kind.as_bytes() == event.frame.kind()))
    }
}
