//! A server process for one scenario: started on a free port, ended with the value.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::Result;
use crate::target::{PATIENCE, Target};
use crate::transport::Transport;

/// A server that has not said where it listens by then does not start.
const START_LIMIT: Duration = Duration::from_secs(15);
/// What is kept of the server's standard error, to be shown if it does not start.
const LAST_WORDS: usize = 20;

pub struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts `program` with `arguments` and a free loopback port, and waits for the line that names it.
    pub fn start(program: &Path, arguments: &[String]) -> Result<Self> {
        let mut child = Command::new(program)
            .args(arguments)
            .args(["--listen", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{} does not start: {error}", program.display()))?;
        let last_words = Arc::new(Mutex::new(VecDeque::new()));
        if let Some(stderr) = child.stderr.take() {
            let last_words = Arc::clone(&last_words);
            for_each_line(stderr, move |line| {
                if let Ok(mut lines) = last_words.lock() {
                    if lines.len() == LAST_WORDS {
                        lines.pop_front();
                    }
                    lines.push_back(line);
                }
            });
        }
        let (found, address) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            for_each_line(stdout, move |line| {
                if let Some(address) = address_in(&line) {
                    // Nobody waits any more for a second one.
                    let _ = found.send(address);
                }
            });
        }
        // From here on the child is ended whatever happens.
        let mut server = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        server.address = address.recv_timeout(START_LIMIT).map_err(|_| {
            let words: Vec<String> = last_words.lock().map(|lines| lines.iter().cloned().collect()).unwrap_or_default();
            format!("{} did not say where it listens\n{}", program.display(), words.join("\n"))
        })?;
        Ok(server)
    }

    pub fn target(&self) -> Target {
        let pid = Some(self.child.id());
        Target { url: self.address, pid, transport: Transport::default(), patience_s: PATIENCE }
    }
}

impl Drop for Server {
    /// At once: how a server drains is not what is measured here.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A loopback address that is free at this moment, for what a server does not say on its own where it is.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Reads on until the end, on a thread of its own: a server must never block on what it writes.
fn for_each_line(from: impl Read + Send + 'static, mut each: impl FnMut(String) + Send + 'static) {
    std::thread::spawn(move || {
        let mut lines = BufReader::new(from);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            each(String::from_utf8_lossy(&line).trim_end().to_owned());
            line.clear();
        }
    });
}

/// `… listening on http://127.0.0.1:PORT …`
fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening on http://")?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && !".:".contains(c));
    rest[..end.unwrap_or(rest.len())].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_the_line() {
        let expected = Some("127.0.0.1:4000".parse().expect("an address"));
        assert_eq!(address_in("fanfare 0.1.0 listening on http://127.0.0.1:4000"), expected);
        assert_eq!(address_in("INFO listening on http://127.0.0.1:4000/ (pid 7)"), expected);
        assert_eq!(address_in("warming up"), None);
    }
}
