//! Connections: accepting them, reading requests off them with hyper, and taking those over that become streams.

mod activation;
mod connection;
mod own_answer;
mod resident;
mod service;
mod socket;

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::tls::Tls;
pub use activation::Passed;
use connection::Socket;
use resident::Protocol;
use service::Peer;
pub use service::Service;
pub use socket::{SocketConfig, adopt, bind, dual_stack};

use crate::clock::Timestamp;
use crate::http::counts::Counts;
use crate::http::reply::{Crowd, Problem};

/// Bounds on connections.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Connections that carry no stream (or not yet), at most. More of them are refused.
    pub max_connections: usize,
    /// How long a request's head may take to arrive, from its first byte or from the connection's beginning.
    pub head_timeout: Duration,
    /// How long a connection may rest between two requests.
    pub idle_timeout: Duration,
    /// How long a request may take from head to answered, the body's time included.
    pub exchange_timeout: Duration,
    /// A head's size in bytes.
    pub max_head: usize,
    /// Requests and streams at a time on one HTTP/2 connection.
    pub max_concurrent_streams: u32,
    /// How often an HTTP/2 peer is asked whether it is there, and how long it may take to answer.
    pub ping_interval: Duration,
}

/// Connections accepted in a row before other tasks of this thread have a turn.
const ACCEPT_BATCH: usize = 16;

/// How long a shard may not know of a stream that it has nothing to do for yet. So a crowd of newcomers wakes it some
/// hundred times a second and not with each of them, which would cost as much as all the rest of opening a stream.
const WAKE_DELAY: Duration = Duration::from_millis(2);

/// How long a newcomer waits for room where there is none: a crowd that comes at once, and is gone as soon as it has
/// asked, is served. Those who come after one that has waited in vain are refused at once, until there is room again.
const PATIENCE: Duration = Duration::from_millis(500);

/// Connections that are told why they are refused, at a time; more of them are closed without a word.
const TURNED_AWAY_MAX: usize = 16;

/// How long one of them may take to ask, and to be told.
const TURNED_AWAY_WITHIN: Duration = Duration::from_secs(1);

/// The room for connections that carry no stream, however many listeners there are.
#[derive(Debug, Clone)]
pub struct Room {
    permits: Arc<Semaphore>,
    /// For those that are let in only to be told that there is no room.
    turned_away: Arc<Semaphore>,
}

impl Room {
    /// Room for so many ([`ServerConfig::max_connections`]).
    pub fn new(connections: usize) -> Room {
        Room { permits: Arc::new(Semaphore::new(connections)), turned_away: Arc::new(Semaphore::new(TURNED_AWAY_MAX)) }
    }

    fn try_permit(&self) -> Option<OwnedSemaphorePermit> {
        self.permits.clone().try_acquire_owned().ok()
    }
}

/// A listener's way into the room.
#[derive(Debug)]
struct Door {
    room: Room,
    /// Whether the last newcomer found no room.
    is_full: bool,
}

impl Door {
    /// A place for a connection from `peer`; where there is none, why.
    async fn admit(&mut self, peer: IpAddr, service: &Service) -> Result<OwnedSemaphorePermit, Crowd> {
        if service.access.limits().connect(peer, Timestamp::now()).is_err() {
            return Err(Crowd::Address);
        }
        let mut permit = self.room.try_permit();
        if permit.is_none() && !self.is_full {
            let waiting = timeout_at(Instant::now() + PATIENCE, self.room.permits.clone().acquire_owned());
            permit = waiting.await.ok().and_then(Result::ok);
            if permit.is_none() {
                tracing::warn!(
                    "connections are refused: there are as many without a stream as --max-connections lets in"
                );
            }
        }
        self.is_full = permit.is_none();
        permit.ok_or(Crowd::Broker)
    }

    /// Tells a newcomer for whom there is no room why, if not too many are being told already.
    fn turn_away(&self, crowd: Crowd, socket: Socket, peer: Peer, config: &Arc<ServerConfig>, service: &Arc<Service>) {
        count_crowd(service, crowd);
        let Ok(permit) = self.room.turned_away.clone().try_acquire_owned() else { return };
        let peer = Peer { crowd: Some(crowd), ..peer };
        let serving = connection::serve(socket, permit, peer, config.clone(), service.clone());
        tokio::spawn(timeout_at(Instant::now() + TURNED_AWAY_WITHIN, serving));
    }
}

fn count_crowd(service: &Service, crowd: Crowd) {
    service.counts.problems.count(Problem::TooManyConnections(crowd).code());
}

/// Accepts connections until the task is dropped.
pub async fn accept(listener: TcpListener, room: Room, config: Arc<ServerConfig>, service: Arc<Service>) {
    let mut wakes = Wakes::default();
    let mut door = Door { room, is_full: false };
    loop {
        let mut next = match wakes.meanwhile(&service, listener.accept()).await {
            Ok((socket, address)) => Some((Socket::watched(socket), address.ip())),
            Err(error) => {
                wakes.meanwhile(&service, back_off(&error, &service.counts)).await;
                None
            }
        };
        let mut accepted = 0;
        while let Some((socket, address)) = next {
            accepted += 1;
            let peer = Peer { address: address.to_canonical(), pulls: false, crowd: None };
            match wakes.meanwhile(&service, door.admit(peer.address, &service)).await {
                Ok(permit) => wakes.note(begin(socket, permit, peer, &config, &service).await),
                Err(crowd) => door.turn_away(crowd, socket, peer, &config, &service),
            }
            next = if accepted < ACCEPT_BATCH { another(&listener) } else { None };
        }
        service.counts.accepted.fetch_add(accepted as u64, Ordering::Relaxed);
    }
}

/// Accepts connections that speak TLS, until the task is dropped. Each has a task of its own from the beginning: its
/// handshake is some work. One for which there is no room is closed without that work: `EventSource` comes back.
pub async fn accept_tls(
    listener: TcpListener,
    tls: Arc<Tls>,
    room: Room,
    config: Arc<ServerConfig>,
    service: Arc<Service>,
) {
    let mut door = Door { room, is_full: false };
    loop {
        let (socket, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                back_off(&error, &service.counts).await;
                continue;
            }
        };
        service.counts.accepted.fetch_add(1, Ordering::Relaxed);
        let peer = Peer { address: address.ip().to_canonical(), pulls: true, crowd: None };
        let permit = match door.admit(peer.address, &service).await {
            Ok(permit) => permit,
            Err(crowd) => {
                count_crowd(&service, crowd);
                continue;
            }
        };
        let (tls, config, service) = (tls.clone(), config.clone(), service.clone());
        tokio::spawn(async move {
            // On the heap only as long as it lasts.
            let handshake = Box::pin(tls.accept(socket, Instant::now() + config.head_timeout));
            let socket = match handshake.await {
                Ok(socket) => socket,
                // It is counted there.
                Err(error) => return tracing::debug!(%error, "no TLS handshake"),
            };
            let protocol = match socket.get_ref().1.alpn_protocol() {
                Some(b"h2") => Protocol::Http2,
                _ => Protocol::Http1,
            };
            resident::serve(TokioIo::new(socket), protocol, peer, permit, config, service).await;
        });
    }
}

/// One more connection, if one waits. It is taken past tokio, which need not know of it yet; should this fail, the next
/// regular accept fails in the same way and sees to it.
fn another(listener: &TcpListener) -> Option<(Socket, IpAddr)> {
    let (socket, address) = acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC).ok()?;
    let address = SocketAddr::try_from(address?).ok()?;
    Some((Socket::fresh(socket.into()), address.ip()))
}

/// Serves a connection as far as it goes without waiting, which for a stream is all the way, and gives the shard that
/// it went to and that is to be woken soon. What has to wait gets a task of its own.
async fn begin(
    socket: Socket,
    permit: OwnedSemaphorePermit,
    peer: Peer,
    config: &Arc<ServerConfig>,
    service: &Arc<Service>,
) -> Option<usize> {
    let mut serving = Box::pin(connection::serve(socket, permit, peer, config.clone(), service.clone()));
    let first = poll_fn(|cx| {
        // Each connection would have a task of its own but for the cost of it: let a bug in one not end them all.
        let polled = catch_unwind(AssertUnwindSafe(|| serving.as_mut().poll(cx)));
        Poll::Ready(polled.unwrap_or(Poll::Ready(None)))
    });
    match first.await {
        Poll::Ready(shard) => shard,
        Poll::Pending => {
            let service = service.clone();
            tokio::spawn(async move {
                service.broker.wake(serving.await);
            });
            None
        }
    }
}

/// Shards that were given streams and are to be woken soon.
#[derive(Debug, Default)]
struct Wakes {
    shards: Vec<usize>,
    due: Option<Instant>,
}

impl Wakes {
    fn note(&mut self, shard: Option<usize>) {
        let Some(shard) = shard else { return };
        if !self.shards.contains(&shard) {
            self.shards.push(shard);
        }
        self.due.get_or_insert_with(|| Instant::now() + WAKE_DELAY);
    }

    /// Waits for `what`, and wakes the shards when it is time.
    async fn meanwhile<T>(&mut self, service: &Service, what: impl Future<Output = T>) -> T {
        let mut what = pin!(what);
        let Some(due) = self.due else { return what.await };
        let done = timeout_at(due, what.as_mut()).await;
        if Instant::now() >= due {
            self.due = None;
            service.broker.wake(self.shards.drain(..));
        }
        match done {
            Ok(done) => done,
            Err(_) => what.await,
        }
    }
}

/// What to do when `accept` fails: nothing, where one connection was at fault; wait a little, where the system has no
/// room, since it would say so again at once, for as long as the connection waits.
async fn back_off(error: &io::Error, counts: &Counts) {
    const BACK_OFF: Duration = Duration::from_millis(50);
    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        return;
    }
    if counts.exhausted.fetch_add(1, Ordering::Relaxed).is_multiple_of(200) {
        tracing::warn!(%error, "cannot accept connections; trying again every {BACK_OFF:?}");
    }
    tokio::time::sleep(BACK_OFF).await;
}
