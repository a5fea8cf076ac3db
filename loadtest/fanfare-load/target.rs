//! Which server is measured: an address on this machine, and the process behind it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::Result;
use crate::transport::Transport;

#[derive(Debug, Clone, Args, Serialize)]
pub struct Target {
    /// The server, on a loopback address
    #[arg(long, default_value = "http://127.0.0.1:8000", env = "FANFARE_LOAD_URL", value_parser = |url: &str| parse_url("http", url))]
    #[serde(rename = "address")]
    pub url: SocketAddr,

    /// The server's process, for its CPU time and memory; found by its listening socket if not given
    #[arg(long)]
    pub pid: Option<u32>,

    #[command(flatten)]
    #[serde(flatten)]
    pub transport: Transport,

    /// Seconds to wait while nothing comes of what is waited for: an answer, a stream, an event
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = patience)]
    pub patience_s: Duration,
}

fn patience(seconds: &str) -> std::result::Result<Duration, String> {
    let span = seconds.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    span.filter(|span| !span.is_zero()).ok_or_else(|| "expected seconds, more than 0".to_owned())
}

/// What is waited unless it is said.
pub const PATIENCE: Duration = Duration::from_secs(30);

impl Target {
    /// The process as given, or the one that listens at the address. `None` leaves CPU and memory blank.
    pub fn process(&self) -> Option<u32> {
        self.pid.or_else(|| process_listening_at(self.url.port()))
    }
}

/// Only loopback: a tool that opens ten thousand connections must not be pointed at somebody by a slip.
pub fn parse_url(scheme: &str, url: &str) -> std::result::Result<SocketAddr, String> {
    let expected = || format!("expected {scheme}://127.0.0.1:PORT, got {url:?}");
    let authority = url.strip_prefix(&format!("{scheme}://")).unwrap_or(url).trim_end_matches('/');
    let authority = authority.replace("localhost", "127.0.0.1");
    let address: SocketAddr = authority.parse().map_err(|_| expected())?;
    match address.ip() {
        IpAddr::V4(ip) if ip.is_loopback() => Ok(address),
        _ => Err(expected()),
    }
}

/// The source address of connection number `index`. A connection to one server address needs a port of its own, and a
/// source address has about 28,000 (`net.ipv4.ip_local_port_range`); those of connections just closed stay taken for a
/// while. `None` leaves the choice to the kernel, which is quicker.
pub fn source_of(index: u64) -> Option<SocketAddr> {
    const CONNECTIONS_AN_ADDRESS: u64 = 25_000;
    let host = 1 + index / CONNECTIONS_AN_ADDRESS;
    (host > 1).then(|| {
        let host = u8::try_from(host.min(254)).expect("at most 254");
        SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0))
    })
}

/// Finds who listens by the socket's inode: `/proc/net/tcp` tells it, and a process holds it as `socket:[inode]`.
fn process_listening_at(port: u16) -> Option<u32> {
    let sockets = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let inode = sockets.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let listening = *state == "0A" && local.ends_with(&format!(":{port:04X}"));
        listening.then(|| format!("socket:[{inode}]"))
    })?;
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let holds = |descriptor: std::fs::DirEntry| {
            std::fs::read_link(descriptor.path()).is_ok_and(|link| link == Path::new(&inode))
        };
        let mut descriptors = std::fs::read_dir(entry.path().join("fd")).ok()?.flatten();
        descriptors.any(holds).then_some(pid)
    })
}

/// Raises the soft limit on file descriptors to the hard one, and returns it.
pub fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where this is not allowed, the limit stays, and what does not fit is refused by name below.
    let _ = setrlimit(Resource::Nofile, limit);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Fails, with the numbers, if so many connections do not fit into this process's descriptors.
pub fn check_room_for(connections: usize) -> Result<()> {
    /// Standard streams, the poll, publishers, `/proc`.
    const OTHERS: u64 = 64;
    let limit = raise_descriptor_limit();
    if connections as u64 + OTHERS > limit {
        return Err(format!(
            "{connections} connections need as many file descriptors; this process may have {limit} (ulimit -Hn)"
        )
        .into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses() {
        for good in ["http://127.0.0.1:8000", "http://localhost:8000/", "127.0.0.9:1"] {
            assert!(parse_url("http", good).is_ok(), "{good}");
        }
        assert!(parse_url("https", "https://127.0.0.1:1").is_ok());
        for bad in ["http://10.0.0.1:80", "http://example.org:80", "http://127.0.0.1", "https://127.0.0.1:1"] {
            assert!(parse_url("http", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sources_change_before_the_ports_run_out() {
        assert_eq!(source_of(24_999), None);
        assert_eq!(source_of(25_000), Some("127.0.0.2:0".parse().expect("an address")));
        assert_eq!(source_of(50_000), Some("127.0.0.3:0".parse().expect("an address")));
    }

    #[test]
    fn a_listener_is_found_by_its_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("an address");
        let port = listener.local_addr().expect("an address").port();
        assert_eq!(process_listening_at(port), Some(std::process::id()));
    }
}
