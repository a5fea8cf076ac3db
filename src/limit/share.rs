//! How many streams somebody holds.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;

/// Counts what each of many holds, up to the same limit for all. Only who holds something is remembered, so there are
/// never more of them than there are [`Share`]s.
#[derive(Debug)]
pub struct Shares<K: Eq + Hash> {
    table: Arc<Table<K>>,
}

#[derive(Debug)]
struct Table<K: Eq + Hash> {
    most: usize,
    holders: DashMap<K, Arc<Holder<K>>>,
}

/// One who holds something. It is in the table for as long as that is so, and thus for as long as a share points to it.
struct Holder<K: Eq + Hash> {
    key: K,
    /// Changed only while the table's entry is locked.
    held: AtomicUsize,
    table: Arc<Table<K>>,
}

impl<K: Eq + Hash + Clone> Shares<K> {
    /// So many for each, at most.
    pub fn new(most: usize) -> Shares<K> {
        Shares { table: Arc::new(Table { most, holders: DashMap::new() }) }
    }

    /// One more for this one; `None` where it holds as many as it may.
    pub fn take(&self, key: K) -> Option<Share<K>> {
        if self.table.most == 0 {
            return None;
        }
        let holder = self
            .table
            .holders
            .entry(key.clone())
            .or_insert_with(|| Arc::new(Holder { key, held: AtomicUsize::new(0), table: self.table.clone() }));
        if holder.held.load(Ordering::Relaxed) >= self.table.most {
            return None;
        }
        holder.held.fetch_add(1, Ordering::Relaxed);
        Some(Share { holder: holder.clone() })
    }

    /// What each may hold.
    pub fn most(&self) -> usize {
        self.table.most
    }

    /// How many hold something.
    pub fn holders(&self) -> usize {
        self.table.holders.len()
    }
}

/// The right to one stream more; dropping it gives it back. One pointer, since each stream keeps it.
pub struct Share<K: Eq + Hash> {
    holder: Arc<Holder<K>>,
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let holder = &self.holder;
        holder.table.holders.remove_if(&holder.key, |_, _| holder.held.fetch_sub(1, Ordering::Relaxed) == 1);
    }
}

/// Not the table, which would be all the others' too.
impl<K: Eq + Hash + fmt::Debug> fmt::Debug for Share<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Share").field(&self.holder.key).finish()
    }
}

impl<K: Eq + Hash + fmt::Debug> fmt::Debug for Holder<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Holder").field("key", &self.key).field("held", &self.held).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn each_has_its_own_and_gives_it_back() {
        let shares = Shares::new(2);
        let (a, also_a, b) = (shares.take("a"), shares.take("a"), shares.take("b"));
        assert!(a.is_some() && also_a.is_some() && b.is_some());
        assert!(shares.take("a").is_none() && shares.take("b").is_some());
        assert_eq!(shares.holders(), 2);
        drop(a);
        let again = shares.take("a");
        assert!(again.is_some() && shares.take("a").is_none());
        drop((again, also_a, b));
        assert_eq!(shares.holders(), 0, "who holds nothing is forgotten");
        assert!(Shares::new(0).take("a").is_none());
    }

    #[test]
    fn a_share_is_one_pointer_and_outlives_the_table() {
        assert_eq!(size_of::<Option<Share<Arc<str>>>>(), size_of::<usize>());
        let shares = Shares::new(1);
        let table = Arc::downgrade(&shares.table);
        let share = shares.take(Arc::<str>::from("a"));
        drop(shares);
        assert_eq!(format!("{share:?}"), "Some(Share(\"a\"))");
        drop(share);
        assert!(table.upgrade().is_none(), "nothing keeps itself alive");
    }

    #[test]
    fn threads_never_hold_more_than_they_may() {
        const MOST: usize = 3;
        let shares = Shares::new(MOST);
        let held: [AtomicUsize; 2] = Default::default();
        let refused = AtomicUsize::new(0);
        thread::scope(|scope| {
            for thread in 0..8 {
                let (shares, held, refused) = (&shares, &held, &refused);
                scope.spawn(move || {
                    let mut kept = Vec::new();
                    for step in 0..20_000usize {
                        let key = (step + thread) % 2;
                        match shares.take(key) {
                            Some(share) => {
                                assert!(held[key].fetch_add(1, Ordering::SeqCst) < MOST);
                                kept.push((key, share));
                            }
                            None => {
                                refused.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        if step % 3 != 0
                            && let Some((key, share)) = kept.pop()
                        {
                            held[key].fetch_sub(1, Ordering::SeqCst);
                            drop(share);
                        }
                    }
                    for (key, share) in kept {
                        held[key].fetch_sub(1, Ordering::SeqCst);
                        drop(share);
                    }
                });
            }
        });
        assert!(refused.into_inner() > 0, "the limit was met");
        assert_eq!(shares.holders(), 0);
        let all: Vec<_> = std::iter::repeat_with(|| shares.take(0)).take_while(Option::is_some).collect();
        assert_eq!(all.len(), MOST, "and all of it was given back");
    }
}
