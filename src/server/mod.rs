//! Connections: accepting them, reading requests off them with hyper, and taking those over that become streams.

mod connection;
mod service;
mod socket;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;

pub use service::Service;
pub use socket::{SocketConfig, bind, dual_stack};

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
}

/// What the accepting side counts.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Times that accepting failed for want of file descriptors or memory.
    pub exhausted: AtomicU64,
    /// Requests being answered at this moment.
    pub exchanges: AtomicUsize,
    /// Connections closed because a request's head did not arrive in time.
    pub slow_heads: AtomicU64,
}

/// Accepts connections until the task is dropped.
pub async fn accept(listener: TcpListener, config: ServerConfig, service: Arc<Service>) {
    let room = Arc::new(Semaphore::new(config.max_connections));
    let config = Arc::new(config);
    loop {
        // Never closed, so never an error.
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, _)) => {
                service.counts.accepted.fetch_add(1, Ordering::Relaxed);
                let (config, service) = (config.clone(), service.clone());
                tokio::spawn(async move {
                    connection::serve(socket, &config, service).await;
                    drop(permit);
                });
            }
            Err(error) => back_off(&error, &service.counts).await,
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

/// Where the broker can be reached.
///
/// # Errors
/// Where the system does not say.
pub fn local_address(listener: &TcpListener) -> io::Result<SocketAddr> {
    listener.local_addr()
}
