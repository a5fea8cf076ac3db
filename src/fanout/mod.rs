//! The fan-out: shard threads that own the streams' sockets and write to them what the log holds.
//!
//! Read in the order `latch` (how a shard is woken), `shard` (its loop), `audience` and `stream` (what it holds), `pull`
//! (streams that somebody else writes), `wheel` (how it keeps time), `session` (who listens).

mod audience;
mod counters;
mod latch;
mod pull;
mod session;
mod shard;
mod stream;
mod wheel;

use std::io::{self, Write};
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::oneshot;

use crate::frame::{Framing, HeartbeatStyle};
use crate::limit::StreamShares;
use crate::log::listening::Listening;
use crate::log::{Interest, Log};
use crate::sync::lock;

pub use counters::Totals;
use counters::{Counters, Pulled};
use latch::Latch;
use pull::{Beginning, Pull};
pub use pull::{Cutoff, Puller};
pub use session::{Kick, Listed, Session};
pub use stream::CloseReason;
pub use wheel::Wheel;

/// How the shards treat their streams.
#[derive(Debug, Clone)]
pub struct FanoutConfig {
    /// Shard threads, at least 1.
    pub shards: usize,
    /// Streams at most, all shards together.
    pub max_streams: usize,
    /// A stream that was sent nothing for this long is sent a heartbeat.
    pub heartbeat: Duration,
    /// How it looks.
    pub heartbeat_style: HeartbeatStyle,
    /// A stream whose socket takes nothing for this long is closed.
    pub stall_timeout: Duration,
    /// How long clients are told to wait before they reconnect.
    pub retry: Duration,
}

/// A stream on its way from the HTTP side, which has read the request, to its shard, which writes everything.
#[derive(Debug)]
pub struct Arrival {
    /// The response's head and the stream's first frames, as they go onto the wire.
    pub opening: Vec<u8>,
    /// What it asked for.
    pub listening: Listening,
    /// How its body is framed.
    pub framing: Framing,
    /// It gets what comes after this.
    pub cursor: u64,
    /// Losses up to here need not be told: the opening tells them, or nobody asked.
    pub told: u64,
    /// After so many events it ends.
    pub limit: Option<u32>,
    /// Its place among the streams that the broker holds.
    pub seat: Seat,
    /// Who listens.
    pub session: Option<Box<Session>>,
    /// Its part of what its address and its user may hold, given back when it ends.
    pub shares: Option<Box<StreamShares>>,
}

/// The right to be one of the broker's streams; dropping it gives it back.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Seats {
    taken: AtomicUsize,
    max: usize,
    refused: AtomicU64,
}

/// What others see of a shard.
#[derive(Debug)]
struct Link {
    inbox: Mutex<Vec<Command>>,
    /// The newest event that a stream here wants.
    wanted: AtomicU64,
    latch: Latch,
    waker: mio::Waker,
    counters: Counters,
    pulled: Pulled,
}

/// What a shard is told.
#[derive(Debug)]
enum Command {
    /// A stream whose socket the shard is to write to; so much of its opening is sent.
    Open(Arrival, TcpStream, usize),
    /// A stream that pulls, and where it begins.
    Attach(Arc<Pull>, Interest, u64, Seat, Option<Box<Session>>, Option<Box<StreamShares>>),
    /// One of those has ended.
    Gone(Arc<Pull>, CloseReason),
    /// Tell of up to so many streams with a session, from this number on.
    List(u32, usize, oneshot::Sender<Vec<Listed>>),
    /// End these streams, and tell how many there were.
    Kick(Kick, oneshot::Sender<usize>),
    /// Tell how the streams are.
    Survey(oneshot::Sender<Survey>),
    /// End all streams, then stop.
    Drain(DrainPlan),
}

/// How all streams are ended when the broker stops.
#[derive(Debug, Clone, Copy)]
pub struct DrainPlan {
    /// How long ending them may take.
    pub grace: Duration,
    /// When the broker is gone at the latest. Nobody is told to come back before.
    pub gone_by: Instant,
}

/// How many streams are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Survey {
    /// They get what is published as it comes.
    pub live: usize,
    /// They read what is kept, as fast as they can.
    pub replaying: usize,
    /// They wait for their sockets to take more.
    pub stalled: usize,
    /// Others write them: those over TLS and HTTP/2.
    pub carried: usize,
    /// Their ends are being sent.
    pub ending: usize,
    /// The cursor of the one that is farthest behind, if any is.
    #[serde(skip)]
    pub slowest: Option<u64>,
}

impl Survey {
    fn add(&mut self, other: Survey) {
        self.live += other.live;
        self.replaying += other.replaying;
        self.stalled += other.stalled;
        self.carried += other.carried;
        self.ending += other.ending;
        self.slowest = self.slowest.into_iter().chain(other.slowest).min();
    }
}

impl Link {
    fn post(&self, command: Command) {
        lock(&self.inbox).push(command);
    }

    fn inbox_is_empty(&self) -> bool {
        lock(&self.inbox).is_empty()
    }

    fn notify(&self, seq: u64) {
        self.wanted.fetch_max(seq, Ordering::SeqCst);
        self.wake();
    }

    fn wake(&self) {
        if self.latch.close()
            && let Err(error) = self.waker.wake()
        {
            // An eventfd's counter cannot overflow here, so this is a bug or a dying system.
            tracing::error!(%error, "cannot wake a shard");
        }
    }
}

/// Runs a shard until it has been drained. One that ends in any other way takes the process with it: its streams are
/// gone and its newcomers would wait for ever, while a broker that is started anew can tell them all.
fn run(shard: shard::Shard) {
    match catch_unwind(AssertUnwindSafe(|| shard.run())) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => tracing::error!(%error, "a shard's poll failed"),
        Err(_) => tracing::error!("a shard panicked"),
    }
    std::process::abort();
}

/// What a shard answers; the default from one that has stopped, since it has no streams.
async fn ask<T: Default>(link: &Link, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> T {
    let (tell, told) = oneshot::channel();
    link.post(command(tell));
    link.wake();
    told.await.unwrap_or_default()
}

/// The shards, seen from outside.
#[derive(Debug)]
pub struct Fanout {
    links: Vec<Arc<Link>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    seats: Arc<Seats>,
    next: AtomicUsize,
}

impl Fanout {
    /// Starts the shards over `log`.
    ///
    /// # Errors
    /// Where the system gives no poll or no thread.
    pub fn start(config: &FanoutConfig, log: &Arc<Log>) -> io::Result<Fanout> {
        let seats = Arc::new(Seats { taken: AtomicUsize::new(0), max: config.max_streams, refused: AtomicU64::new(0) });
        let mut links = Vec::new();
        let mut threads = Vec::new();
        for id in 0..config.shards {
            let poll = mio::Poll::new()?;
            let link = Arc::new(Link {
                inbox: Mutex::default(),
                wanted: AtomicU64::new(0),
                latch: Latch::new(),
                waker: mio::Waker::new(poll.registry(), shard::WAKER)?,
                counters: Counters::default(),
                pulled: Pulled::default(),
            });
            let shard = shard::Shard::new(id, config.clone(), log.clone(), link.clone(), poll);
            let thread = std::thread::Builder::new().name(format!("shard-{id}")).spawn(move || run(shard))?;
            links.push(link);
            threads.push(thread);
        }
        Ok(Fanout { links, threads: Mutex::new(threads), seats, next: AtomicUsize::new(0) })
    }

    /// The shard that the next stream goes to.
    pub fn next_shard(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed) % self.links.len()
    }

    /// A seat for one more stream; `None` (and counted) when all are taken.
    pub fn take_seat(&self) -> Option<Seat> {
        let free = |taken| (taken < self.seats.max).then_some(taken + 1);
        match self.seats.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free) {
            Ok(_) => Some(Seat { seats: self.seats.clone() }),
            Err(_) => {
                self.seats.refused.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    /// Sends a stream's opening, as far as its socket takes it, and gives the stream to `shard`, the one its `listening`
    /// was registered for. The shard takes it in when it is woken next, for which the caller is to see by
    /// [`Fanout::wake`]: at once if this gives false, since then some of the opening is left.
    pub fn open(&self, shard: usize, arrival: Arrival, mut socket: TcpStream) -> bool {
        // A broken connection is the shard's to find: it does so as soon as it watches it.
        let sent = socket.write(&arrival.opening).unwrap_or(0);
        let all_sent = sent == arrival.opening.len();
        self.links[shard].post(Command::Open(arrival, socket, sent));
        all_sent
    }

    /// Gives a stream to `shard` that somebody else writes: who gets the [`Puller`].
    pub fn attach(&self, shard: usize, arrival: Arrival, log: &Arc<Log>) -> Puller {
        let Arrival { opening, listening, framing: _, cursor, told, limit, seat, session, shares } = arrival;
        let link = &self.links[shard];
        let interest = listening.hand_over();
        let beginning = Beginning { interest: interest.clone(), first: opening.into(), cursor, told, limit };
        let (puller, pull) = Puller::new(log.clone(), link.clone(), beginning);
        link.post(Command::Attach(pull, interest, cursor, seat, session, shares));
        link.wake();
        puller
    }

    /// Up to `limit` of a shard's streams that have a session, from the number `from` on.
    pub async fn list(&self, shard: usize, from: u32, limit: usize) -> Vec<Listed> {
        let Some(link) = self.links.get(shard) else { return Vec::new() };
        ask(link, |tell| Command::List(from, limit, tell)).await
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.links.len()
    }

    /// How many streams are in which state. Every shard looks at all it has, between two slices of its work.
    pub async fn survey(&self) -> Survey {
        let mut all = Survey::default();
        for link in &self.links {
            all.add(ask(link, Command::Survey).await);
        }
        all
    }

    /// Ends streams; gives how many.
    pub async fn kick(&self, kick: &Kick) -> usize {
        let mut kicked = 0;
        for link in &self.links {
            kicked += ask(link, |tell| Command::Kick(kick.clone(), tell)).await;
        }
        kicked
    }

    /// Wakes a shard, if it sleeps.
    pub fn wake(&self, shard: usize) {
        self.links[shard].wake();
    }

    /// Tells the shards in `set` (a bit each, as [`crate::log::Appended::shards`]) that there is more to read, up to
    /// `seq`.
    pub fn notify(&self, set: u64, seq: u64) {
        for (id, link) in self.links.iter().enumerate() {
            if set & 1 << id.min(63) != 0 {
                link.notify(seq);
            }
        }
    }

    /// Ends all streams in good order, spread over the plan's grace period, and waits until the shards have stopped,
    /// which is soon after it at the latest.
    pub fn drain(&self, plan: DrainPlan) {
        for link in &self.links {
            link.post(Command::Drain(plan));
            link.wake();
        }
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a shard ended by a panic");
            }
        }
    }

    /// Streams connected now.
    pub fn connected(&self) -> usize {
        self.seats.taken.load(Ordering::Relaxed)
    }

    /// The most streams there may be.
    pub fn max_streams(&self) -> usize {
        self.seats.max
    }

    /// Streams refused because all seats were taken.
    pub fn refused(&self) -> u64 {
        self.seats.refused.load(Ordering::Relaxed)
    }

    /// The shards' counters, added up.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for link in &self.links {
            link.counters.add_to(&mut totals);
            link.pulled.add_to(&mut totals);
        }
        totals
    }
}
