//! The listening socket. Its options are set once: on Linux every accepted socket inherits them, so that a
//! connection costs no system call for its options.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpListener;

/// Options of all connections.
#[derive(Debug, Clone)]
pub struct SocketConfig {
    /// The kernel's send buffer for one connection, in bytes (`SO_SNDBUF`; the kernel doubles it for its own
    /// bookkeeping): what a slow reader can hold in kernel memory. 0 leaves it to the kernel, which grows it up to
    /// 4 MiB.
    pub send_buffer: usize,
    /// How long sent data may stay unacknowledged before the peer counts as gone (`TCP_USER_TIMEOUT`).
    pub peer_timeout: Duration,
}

/// Connections that wait to be accepted, at most; the system's `net.core.somaxconn` bounds it too.
const BACKLOG: i32 = 4096;

/// Opens the listening socket. To be called within a tokio runtime.
///
/// # Errors
/// Where the address cannot be bound or the options not be set.
pub fn bind(address: SocketAddr, config: &SocketConfig) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` then means all addresses, those of IPv4 too.
        socket.set_only_v6(false)?;
    }
    set_options(SockRef::from(&socket), config)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Makes a listening socket that was opened elsewhere as good as one's own. Connections that came before keep what they
/// had. To be called within a tokio runtime.
///
/// # Errors
/// Where the options cannot be set.
pub fn adopt(socket: std::net::TcpListener, config: &SocketConfig) -> io::Result<TcpListener> {
    set_options(SockRef::from(&socket), config)?;
    TcpListener::from_std(socket)
}

fn set_options(socket: SockRef<'_>, config: &SocketConfig) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    // Frames are written whole: waiting for more (Nagle) could only delay them.
    socket.set_tcp_nodelay(true)?;
    if config.send_buffer > 0 {
        socket.set_send_buffer_size(config.send_buffer)?;
    }
    // A half-open peer is found by heartbeats that it does not acknowledge; keep-alive probes find it where those
    // are rarer than the timeout.
    socket.set_tcp_user_timeout(Some(config.peer_timeout))?;
    // The kernel takes whole seconds up to 32,767.
    let every = (config.peer_timeout / 2).clamp(Duration::from_secs(1), Duration::from_secs(32_767));
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(every).with_interval(every))
}

/// All addresses of this machine, as the Go gateway listened: by IPv6 and IPv4, or IPv4 alone where there is no IPv6.
pub fn dual_stack(port: u16) -> SocketAddr {
    match Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)) {
        Ok(_) => (Ipv6Addr::UNSPECIFIED, port).into(),
        Err(_) => (Ipv4Addr::UNSPECIFIED, port).into(),
    }
}
