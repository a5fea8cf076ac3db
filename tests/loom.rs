//! The four places where threads meet without waiting for each other, tried in all interleavings by loom: the wake
//! latch (the real file), what a puller and its shard signal (the real file), the seam from replay to live, and a reader
//! of the log beside an append that evicts.
//!
//! What would go wrong shows as a deadlock (a wake-up that was lost: the shard sleeps for ever) or as a failed
//! assertion. Each model has a twin with a plausible mistake in it that must fail, so that it is known to be able to.

use std::collections::VecDeque;
// Its own, since loom's panics again where a model that is to fail unwinds.
use std::sync::Arc;
use std::task::{self, Wake};

use loom::sync::{Condvar, Mutex};
use loom::thread;

use sync::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst, lock};

/// Stands for the crate's `sync`, on which `latch.rs` and `signals.rs` are built: loom's types instead of the standard
/// library's.
///
/// loom takes a sequentially consistent access for one that only acquires and releases, and would find interleavings
/// that cannot be. It does model fences, so each access here stands between two: all of those in question are
/// sequentially consistent, for which that is the same.
mod sync {
    pub(super) use loom::sync::atomic::{AtomicU32, Ordering};
    pub(super) use loom::sync::{Mutex, MutexGuard};

    use loom::sync::atomic::fence;

    pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().expect("not poisoned")
    }

    /// One access, which must be sequentially consistent.
    fn fenced<T>(ordering: Ordering, access: impl FnOnce() -> T) -> T {
        assert_eq!(ordering, Ordering::SeqCst, "what is modelled here is that all are");
        fence(Ordering::SeqCst);
        let result = access();
        fence(Ordering::SeqCst);
        result
    }

    macro_rules! atomics {
        ($($name:ident($type:ty) { $($operation:ident($($argument:ident: $of:ty)?) -> $result:ty,)* })*) => {$(
            #[derive(Debug)]
            pub(super) struct $name(loom::sync::atomic::$name);

            impl $name {
                pub(super) fn new(value: $type) -> $name {
                    $name(loom::sync::atomic::$name::new(value))
                }

                $(pub(super) fn $operation(&self, $($argument: $of,)? ordering: Ordering) -> $result {
                    fenced(ordering, || self.0.$operation($($argument,)? ordering))
                })*
            }
        )*};
    }

    atomics! {
        AtomicBool(bool) { load() -> bool, store(value: bool) -> (), swap(value: bool) -> bool, }
        AtomicU64(u64) {
            load() -> u64, store(value: u64) -> (), fetch_add(value: u64) -> u64, fetch_max(value: u64) -> u64,
        }
        AtomicUsize(usize) { load() -> usize, fetch_add(value: usize) -> usize, }
    }
}

#[path = "../src/fanout/latch.rs"]
mod latch;

#[path = "../src/fanout/pull/signals.rs"]
#[allow(dead_code, reason = "a stream's number in its shard, its heartbeats and its end are not modelled")]
mod signals;

use latch::Latch;
use signals::Pull;

/// Stand for the crate's own, which `signals.rs` only passes on.
type HeartbeatStyle = ();

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CloseReason {
    Stalled,
}

/// Tries all interleavings with at most so many switches from a thread that could have gone on.
fn model(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(f);
}

/// The poll's waker: an eventfd's counter.
struct Waker {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Waker {
    fn new() -> Waker {
        Waker { woken: Mutex::new(false), changed: Condvar::new() }
    }

    fn wake(&self) {
        *lock(&self.woken) = true;
        self.changed.notify_one();
    }

    fn sleep(&self) {
        let mut woken = lock(&self.woken);
        while !*woken {
            woken = self.changed.wait(woken).expect("not poisoned");
        }
        *woken = false;
    }
}

// ---- the wake latch

struct Shard {
    latch: Latch,
    waker: Waker,
    /// The newest event that is to be read (`Link::wanted`).
    wanted: AtomicU64,
    duties: AtomicUsize,
}

impl Shard {
    fn new() -> Shard {
        Shard { latch: Latch::new(), waker: Waker::new(), wanted: AtomicU64::new(0), duties: AtomicUsize::new(0) }
    }

    fn notify(&self, seq: u64) {
        self.wanted.fetch_max(seq, SeqCst);
        self.wake();
    }

    fn wake(&self) {
        if self.latch.close() {
            self.duties.fetch_add(1, SeqCst);
            self.waker.wake();
        }
    }
}

fn latch_model(looks_again: bool) {
    model(3, move || {
        let shard = Arc::new(Shard::new());
        let published = Arc::new(AtomicU64::new(0));
        let publishers: Vec<_> = (0..2)
            .map(|_| {
                let (shard, published) = (shard.clone(), published.clone());
                thread::spawn(move || {
                    let seq = published.fetch_add(1, SeqCst) + 1;
                    shard.notify(seq);
                })
            })
            .collect();
        let (mut cursor, mut opened) = (0, 0);
        loop {
            cursor = shard.wanted.load(SeqCst).max(cursor);
            if cursor == 2 {
                break;
            }
            shard.latch.open();
            opened += 1;
            if !looks_again || shard.wanted.load(SeqCst) <= cursor {
                shard.waker.sleep();
            }
        }
        for publisher in publishers {
            publisher.join().expect("a publisher");
        }
        // A latch that was opened once is one publisher's to close.
        assert!(shard.duties.load(SeqCst) <= opened, "more wakes than the shard asked for");
    });
}

#[test]
fn no_wake_up_is_lost_and_none_is_given_twice() {
    latch_model(true);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_shard_that_does_not_look_again_would_sleep_for_ever() {
    latch_model(false);
}

// ---- a puller and its shard

impl Wake for Waker {
    fn wake(self: Arc<Waker>) {
        Waker::wake(&self);
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Pulling {
    Right,
    /// The puller looks at the log before its waker can be found.
    LogFirst,
}

/// A stream's carrier has room at once, or gets it later from somebody else; then its puller reads two events.
fn pull_model(pulling: Pulling, has_room: bool) {
    model(3, move || {
        let pull = Arc::new(Pull::new());
        let head = Arc::new(AtomicU64::new(0));
        let task = Arc::new(Waker::new());
        let room = Arc::new(AtomicBool::new(has_room));
        let shard = {
            let (pull, head) = (pull.clone(), head.clone());
            thread::spawn(move || {
                for seq in 1..=EVENTS {
                    head.fetch_max(seq, SeqCst);
                    pull.call(seq);
                }
            })
        };
        let client = (!has_room).then(|| {
            let (room, task) = (room.clone(), task.clone());
            thread::spawn(move || {
                room.store(true, SeqCst);
                task.wake();
            })
        });
        let waker = task::Waker::from(task.clone());
        loop {
            if room.load(SeqCst) {
                let early = (pulling == Pulling::LogFirst).then(|| head.load(SeqCst));
                pull.answer(&waker, 0);
                if early.unwrap_or_else(|| head.load(SeqCst)) == EVENTS {
                    break;
                }
            }
            assert!(!pull.is_cut(&waker), "nobody has given it up");
            task.sleep();
        }
        shard.join().expect("the shard");
        if let Some(client) = client {
            client.join().expect("the client");
        }
    });
}

#[test]
fn a_puller_reads_all_that_it_is_called_for() {
    pull_model(Pulling::Right, true);
    pull_model(Pulling::Right, false);
}

#[test]
#[should_panic(expected = "deadlock")]
fn looking_at_the_log_before_leaving_the_waker_would_miss_an_event() {
    pull_model(Pulling::LogFirst, true);
}

/// A stream's carrier never has room: its shard calls, and gives the stream up at last.
fn cut_model(leaves_its_waker_again: bool) {
    model(3, move || {
        let pull = Arc::new(Pull::new());
        let task = Arc::new(Waker::new());
        let shard = {
            let pull = pull.clone();
            thread::spawn(move || {
                pull.call(1);
                pull.call(2);
                pull.cut(3, CloseReason::Stalled);
            })
        };
        let waker = task::Waker::from(task.clone());
        let mut is_cut = pull.is_cut(&waker);
        while !is_cut {
            task.sleep();
            is_cut = match leaves_its_waker_again {
                true => pull.is_cut(&waker),
                // It looks, and forgets that its waker was taken by the call.
                false => pull.is_cut(task::Waker::noop()),
            };
        }
        shard.join().expect("the shard");
        assert_eq!(pull.silent_since(), Some(1), "it has answered nothing");
    });
}

#[test]
fn a_carrier_without_room_learns_that_its_stream_was_given_up() {
    cut_model(true);
}

#[test]
#[should_panic(expected = "deadlock")]
fn who_does_not_leave_its_waker_again_would_not_learn_it() {
    cut_model(false);
}

// ---- the seam from replay to live

#[derive(Clone, Copy, PartialEq)]
enum Seam {
    Right,
    /// The subscriber reads the head before it is seen as a listener.
    HeadFirst,
    /// The publisher looks for listeners before its event can be read.
    ListenersFirst,
}

/// Events published, one after the other.
const EVENTS: u64 = 2;

fn seam_model(seam: Seam) {
    model(2, move || {
        let shard = Arc::new(Shard::new());
        let head = Arc::new(AtomicU64::new(0));
        let order = Arc::new(Mutex::new(Vec::new()));
        let listeners = Arc::new(AtomicUsize::new(0));
        let inbox = Arc::new(Mutex::new(None));

        let publisher = {
            let (shard, head, order, listeners) = (shard.clone(), head.clone(), order.clone(), listeners.clone());
            thread::spawn(move || {
                for seq in 1..=EVENTS {
                    let early = (seam == Seam::ListenersFirst).then(|| listeners.load(SeqCst));
                    let mut events = lock(&order);
                    events.push(seq);
                    head.store(seq, SeqCst);
                    drop(events);
                    if early.unwrap_or_else(|| listeners.load(SeqCst)) > 0 {
                        shard.notify(seq);
                    }
                }
            })
        };
        let subscriber = {
            let (shard, head, inbox, listeners) = (shard.clone(), head.clone(), inbox.clone(), listeners.clone());
            thread::spawn(move || {
                let early = (seam == Seam::HeadFirst).then(|| head.load(SeqCst));
                listeners.fetch_add(1, SeqCst);
                let cursor = early.unwrap_or_else(|| head.load(SeqCst));
                *lock(&inbox) = Some(cursor);
                shard.wake();
                cursor
            })
        };

        // The shard, as `Shard::run` has it: read the log for those who are live, take in who comes, sleep.
        let after = |cursor: u64, upto: u64| -> Vec<u64> {
            lock(&order).iter().copied().filter(|&seq| seq > cursor && seq <= upto).collect()
        };
        let (mut cursor, mut live, mut got) = (0, false, Vec::new());
        loop {
            let wanted = shard.wanted.load(SeqCst);
            if wanted > cursor {
                // Until the newcomer is here this is for others, who asked for other topics.
                if live {
                    got.extend(after(cursor, wanted));
                }
                cursor = wanted;
            }
            let newcomer = lock(&inbox).take();
            if let Some(start) = newcomer {
                // The shard may have slept through what nobody had asked for.
                cursor = cursor.max(start);
                got.extend(after(start, cursor));
                live = true;
            }
            if live && cursor == EVENTS {
                break;
            }
            shard.latch.open();
            if shard.wanted.load(SeqCst) <= cursor && lock(&inbox).is_none() {
                shard.waker.sleep();
            }
        }
        publisher.join().expect("the publisher");
        let start = subscriber.join().expect("the subscriber");
        assert_eq!(got, (start + 1..=EVENTS).collect::<Vec<_>>(), "each event after {start} once, in order");
    });
}

#[test]
fn who_joins_gets_every_event_after_its_cursor_once() {
    seam_model(Seam::Right);
}

#[test]
#[should_panic(expected = "deadlock")]
fn reading_the_head_before_joining_would_miss_an_event() {
    seam_model(Seam::HeadFirst);
}

#[test]
#[should_panic(expected = "deadlock")]
fn looking_for_listeners_before_the_event_is_readable_would_miss_one() {
    seam_model(Seam::ListenersFirst);
}

// ---- a reader of the log beside an append that evicts

/// A topic that keeps one event, and the order over it.
struct Log {
    order: Mutex<u64>,
    history: Mutex<VecDeque<u64>>,
    lost: AtomicU64,
    head: AtomicU64,
}

impl Log {
    fn append(&self) {
        let mut newest = lock(&self.order);
        *newest += 1;
        let mut history = lock(&self.history);
        history.push_back(*newest);
        if history.len() > 1 {
            let evicted = history.pop_front().expect("there are two");
            self.lost.fetch_max(evicted, SeqCst);
        }
        drop(history);
        self.head.store(*newest, SeqCst);
    }

    /// The events after `cursor` up to the head, what of them is lost, and the new cursor.
    fn read(&self, cursor: u64, under_one_lock: bool) -> (Vec<u64>, Option<u64>, u64) {
        let upto = self.head.load(SeqCst);
        let before = (!under_one_lock).then(|| self.lost.load(SeqCst));
        let history = lock(&self.history);
        let events = history.iter().copied().filter(|&seq| seq > cursor && seq <= upto).collect();
        let lost = before.unwrap_or_else(|| self.lost.load(SeqCst));
        drop(history);
        (events, Some(lost).filter(|&lost| lost > cursor), upto.max(cursor))
    }
}

fn log_model(under_one_lock: bool) {
    model(3, move || {
        let log = Arc::new(Log {
            order: Mutex::new(0),
            history: Mutex::new(VecDeque::new()),
            lost: AtomicU64::new(0),
            head: AtomicU64::new(0),
        });
        let publishers: Vec<_> = (0..2)
            .map(|_| {
                let log = log.clone();
                thread::spawn(move || log.append())
            })
            .collect();
        let (mut cursor, mut got, mut told) = (0, Vec::new(), 0);
        let mut read = |log: &Log| {
            let (events, lost, upto) = log.read(cursor, under_one_lock);
            for seq in cursor + 1..=upto {
                let is_there = events.contains(&seq);
                assert!(is_there || lost.is_some_and(|lost| lost >= seq), "event {seq} is silently missing");
            }
            if let Some(lost) = lost {
                let missing = (cursor + 1..=lost).any(|seq| !events.contains(&seq));
                assert!(missing, "a gap is told, and nothing is missing");
                told = lost;
            }
            got.extend(events);
            cursor = upto;
        };
        read(&log);
        read(&log);
        for publisher in publishers {
            publisher.join().expect("a publisher");
        }
        read(&log);
        assert_eq!(cursor, 2);
        assert!(got.is_sorted_by(|a, b| a < b), "in order, none twice: {got:?}");
        assert_eq!(got.last(), Some(&2), "the newest is always kept");
        assert!(told < 2);
    });
}

#[test]
fn what_is_lost_and_what_is_there_agree() {
    log_model(true);
}

#[test]
#[should_panic(expected = "silently missing")]
fn reading_what_is_lost_before_the_lock_would_miss_an_eviction() {
    log_model(false);
}
