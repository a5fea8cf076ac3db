//! A TCP proxy between a client and the broker that can cut the connection, between two bytes of its choice.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

use crate::DEADLINE;

/// The proxy; where there is nothing to lead to, it closes what it accepts.
pub(crate) struct Proxy {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    upstream: Option<SocketAddr>,
    /// The bytes on their way to the client after which it cuts.
    tear_after: Option<&'static [u8]>,
    links: Vec<TcpStream>,
    /// Connections refused since it last let any through.
    refused: usize,
    closed: bool,
}

impl State {
    fn cut(&mut self) {
        self.upstream = None;
        self.tear_after = None;
        self.refused = 0;
        for link in self.links.drain(..) {
            let _ = link.shutdown(Shutdown::Both);
        }
    }
}

impl Proxy {
    /// Starts one that leads to `upstream`.
    pub(crate) fn start(upstream: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let proxy = Proxy { address, shared: Arc::default() };
        proxy.lead_to(upstream);
        let shared = proxy.shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if !accept(client, &shared) {
                    break;
                }
            }
        });
        proxy
    }

    /// Lets clients through, from now on to `upstream`.
    pub(crate) fn lead_to(&self, upstream: SocketAddr) {
        self.shared.state().upstream = Some(upstream);
    }

    /// Lets no more clients through; those that are through, stay.
    pub(crate) fn refuse(&self) {
        let mut state = self.shared.state();
        state.upstream = None;
        state.refused = 0;
    }

    /// Cuts everything at once.
    pub(crate) fn cut(&self) {
        self.shared.state().cut();
    }

    /// Cuts everything as soon as `mark` has been passed on to a client: of what comes behind it, the client gets
    /// nothing.
    pub(crate) fn cut_after(&self, mark: &'static str) {
        self.shared.state().tear_after = Some(mark.as_bytes());
    }

    /// Waits until it has cut, and the client has tried to come back at least once.
    pub(crate) fn wait_for_refused(&self) {
        let state = self.shared.state();
        let waiting = |state: &mut State| state.upstream.is_some() || state.refused == 0;
        let (_state, result) = self
            .shared
            .changed
            .wait_timeout_while(state, DEADLINE, waiting)
            .expect("no thread panics while it holds this");
        assert!(!result.timed_out(), "the client did not try to come back");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        {
            let mut state = self.shared.state();
            state.cut();
            state.closed = true;
        }
        // It waits for a connection, and sees then that it is closed.
        let _ = TcpStream::connect(self.address);
    }
}

/// Takes a connection, or refuses it; gives whether there will be a next one.
fn accept(client: TcpStream, shared: &Arc<Shared>) -> bool {
    let mut state = shared.state();
    let Some(server) = state.upstream.and_then(|upstream| TcpStream::connect(upstream).ok()) else {
        state.refused += 1;
        shared.changed.notify_all();
        return !state.closed;
    };
    let twin = |socket: &TcpStream| socket.try_clone().expect("a second handle of a socket");
    state.links.extend([twin(&client), twin(&server)]);
    let (from_client, to_server) = (twin(&client), twin(&server));
    thread::spawn(move || pump(from_client, to_server, |_| None));
    let shared = shared.clone();
    thread::spawn(move || {
        if pump(server, client, |bytes| shared.tear(bytes)) {
            shared.state().cut();
        }
    });
    true
}

/// Passes bytes on until either side ends, or `tear` says after how many of them to stop; gives whether it said so.
fn pump(mut from: TcpStream, mut to: TcpStream, tear: impl Fn(&[u8]) -> Option<usize>) -> bool {
    let mut buf = [0; 1 << 16];
    while let Ok(n @ 1..) = from.read(&mut buf) {
        let torn = tear(&buf[..n]);
        let passed = to.write_all(&buf[..torn.unwrap_or(n)]);
        if torn.is_some() {
            return true;
        }
        if passed.is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
    false
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds this")
    }

    /// After how many of `bytes` to stop, if there.
    fn tear(&self, bytes: &[u8]) -> Option<usize> {
        let mark = self.state().tear_after?;
        let at = bytes.windows(mark.len()).position(|window| window == mark)?;
        Some(at + mark.len())
    }
}
