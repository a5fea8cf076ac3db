//! Seeking: the oldest kept event of an interest, and the cursors from which a reader has its last `n` events, or those
//! since a moment.

use super::interest::{Interest, Scope};
use super::{LOOK_MAX, Log, is_of};
use crate::clock::Steady;

impl Log {
    /// The oldest kept event of this interest; 0 if there is none.
    pub fn oldest(&self, interest: &Interest) -> u64 {
        let oldest = match interest {
            Interest { scope: Scope::All, filter: None } => self.order().oldest().map(|event| event.seq),
            Interest { scope: Scope::Some { topics, groups }, filter: None } if groups.is_empty() => {
                let order = self.order();
                let detached = order.detached_after(0).find(|event| is_of(event, topics)).map(|event| event.seq);
                topics.iter().filter_map(|topic| topic.oldest()).chain(detached).min()
            }
            _ => {
                let (mut events, mut cursor, head) = (Vec::new(), 0, self.head());
                while events.is_empty() && cursor < head {
                    cursor = self.read(interest, cursor, head, 1, &mut events).cursor;
                }
                events.first().map(|event| event.seq)
            }
        };
        oldest.unwrap_or(0)
    }

    /// The cursor from which a reader sees the newest `n` events of its interest that are kept.
    pub fn cursor_before_last(&self, interest: &Interest, n: usize) -> u64 {
        let Some(back) = n.checked_sub(1) else { return self.head() };
        let nth = match interest {
            Interest { scope: Scope::All, filter: None } => self.order().nth_newest(back).map(|event| event.seq),
            Interest { scope: Scope::Some { topics, groups }, filter: None } if groups.is_empty() => {
                let order = self.order();
                let detached = order.detached_after(0).filter(|event| is_of(event, topics)).map(|event| event.seq);
                let mut seqs: Vec<u64> = topics.iter().flat_map(|topic| topic.newest(n)).chain(detached).collect();
                seqs.sort_unstable_by(|a, b| b.cmp(a));
                seqs.get(back).copied()
            }
            _ => self.nth_newest_wanted(interest, back),
        };
        nth.map_or(0, |seq| seq - 1)
    }

    /// Searches all kept events from the newest back, in steps between which publishers can take the lock.
    fn nth_newest_wanted(&self, interest: &Interest, mut back: usize) -> Option<u64> {
        let mut cursor = self.head();
        while cursor > 0 {
            let order = self.order();
            let mut next = 0;
            for (looked, event) in order.back_from(cursor).enumerate() {
                if looked == LOOK_MAX {
                    next = event.seq;
                    break;
                }
                if interest.wants(event) {
                    match back.checked_sub(1) {
                        Some(less) => back = less,
                        None => return Some(event.seq),
                    }
                }
            }
            cursor = next;
        }
        None
    }

    /// The cursor from which a reader sees the events accepted at `since` or later, and whether events of its topics
    /// from after that moment have been evicted.
    pub fn cursor_since(&self, interest: &Interest, since: Steady) -> (u64, bool) {
        // 0 stands for "nothing lost" below.
        let since_ms = since.ms().max(1);
        let order = self.order();
        let cursor = order.since(since_ms).map_or(order.newest(), |event| event.seq - 1);
        let lost = match &interest.scope {
            Scope::All => order.lost_ms() >= since_ms,
            Scope::Some { topics, groups } => {
                let topics = topics.iter().map(|topic| [topic.lost(), topic.lost_ms()]);
                let mut lost = topics.chain(groups.iter().map(|group| order.lost_of(group.prefix())));
                lost.any(|[lost, lost_ms]| lost_ms >= since_ms || lost > cursor)
            }
        };
        (cursor, lost)
    }
}
