//! Connections: accepting them, reading requests off them with hyper, and taking those over that become streams.

mod activation;
mod carried;
mod connection;
mod service;
mod socket;
pub mod tls;

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

pub use activation::Passed;
use carried::Protocol;
use connection::Socket;
use service::Peer;
pub use service::Service;
pub use socket::{SocketConfig, adopt, bind, dual_stack};
use tls::Tls;

use crate::clock::Now;
use crate::http::counts::Counts;

/// Bounds on connections.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Connections that are not streams (or not yet), at most. Those over it wait in the kernel's backlog.
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

/// Accepts connections until the task is dropped. `room` has as many permits as there may be connections that are not
/// streams ([`ServerConfig::max_connections`]), however many listeners there are.
pub async fn accept(listener: TcpListener, room: Arc<Semaphore>, config: Arc<ServerConfig>, service: Arc<Service>) {
    let mut wakes = Wakes::default();
    loop {
        // Never closed, so never an error.
        let permit = wakes.meanwhile(&service, room.clone().acquire_owned()).await;
        let Ok(permit) = permit else { return };
        let mut next = match wakes.meanwhile(&service, listener.accept()).await {
            Ok((socket, address)) => Some((Socket::watched(socket), address.ip(), permit)),
            Err(error) => {
                wakes.meanwhile(&service, back_off(&error, &service.counts)).await;
                None
            }
        };
        let mut accepted = 0;
        while let Some((socket, address, permit)) = next {
            accepted += 1;
            let peer = Peer { address: address.to_canonical(), pulls: false };
            match service.access.limits().connect(peer.address, Now::read()) {
                Err(_) => socket.refuse(),
                Ok(()) => wakes.note(begin(socket, permit, peer, &config, &service).await),
            }
            next = if accepted < ACCEPT_BATCH { another(&listener, &room) } else { None };
        }
        service.counts.accepted.fetch_add(accepted as u64, Ordering::Relaxed);
    }
}

/// Accepts connections that speak TLS, until the task is dropped. Each has a task of its own from the beginning: its
/// handshake is some work. `room` as for [`accept`].
pub async fn accept_tls(
    listener: TcpListener,
    tls: Arc<Tls>,
    room: Arc<Semaphore>,
    config: Arc<ServerConfig>,
    service: Arc<Service>,
) {
    // Never closed, so never an error.
    while let Ok(permit) = room.clone().acquire_owned().await {
        let (socket, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                back_off(&error, &service.counts).await;
                continue;
            }
        };
        service.counts.accepted.fetch_add(1, Ordering::Relaxed);
        if service.access.limits().connect(address.ip().to_canonical(), Now::read()).is_err() {
            continue;
        }
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
            let peer = Peer { address: address.ip().to_canonical(), pulls: true };
            carried::serve(TokioIo::new(socket), protocol, peer, permit, config, service).await;
        });
    }
}

/// One more connection, if one waits and there is room for it. It is taken past tokio, which need not know of it yet;
/// should this fail, the next regular accept fails in the same way and sees to it.
fn another(listener: &TcpListener, room: &Arc<Semaphore>) -> Option<(Socket, IpAddr, OwnedSemaphorePermit)> {
    let permit = room.clone().try_acquire_owned().ok()?;
    let (socket, address) = acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC).ok()?;
    let address = SocketAddr::try_from(address?).ok()?;
    Some((Socket::fresh(socket.into()), address.ip(), permit))
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
