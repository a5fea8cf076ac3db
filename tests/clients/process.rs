//! Child processes: the broker and the clients, read line by line and never left behind.

use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde::Deserialize;

use crate::DEADLINE;

/// How long a process that was asked to end may take to do so.
const LEAVE: Duration = Duration::from_secs(5);

/// A process that ends with this value, and with it all that it has started.
struct Process {
    child: Child,
    lines: Receiver<String>,
    errors: Receiver<String>,
}

impl Process {
    fn start(mut command: Command) -> Process {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let lines = read_lines(child.stdout.take());
        let errors = read_lines(child.stderr.take());
        Process { child, lines, errors }
    }

    /// The next line of its standard output.
    fn line(&self, deadline: Instant) -> Result<String, String> {
        self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())).map_err(|error| {
            let why = match error {
                RecvTimeoutError::Timeout => "nothing came for too long",
                RecvTimeoutError::Disconnected => "it has ended",
            };
            let errors: Vec<String> = self.errors.try_iter().collect();
            format!("{why}; on its standard error:\n{}", errors.join("\n"))
        })
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The clients take the end of their input as a request to leave in good order.
        drop(self.child.stdin.take());
        let asked = Instant::now();
        while !self.has_ended() && asked.elapsed() < LEAVE {
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        // What it has started, if it leads a group.
        let _ = kill_process_group(self.pid(), Signal::KILL);
        let _ = self.child.wait();
    }
}

fn read_lines(from: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, lines) = channel();
    let from = BufReader::new(from.expect("a pipe was asked for"));
    thread::spawn(move || from.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    lines
}

/// The broker, as its users run it.
pub(crate) struct Broker {
    process: Process,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Broker {
    /// Starts it on a free port, with `flags` besides.
    pub(crate) fn start(flags: &[&str]) -> Broker {
        Broker::start_with(flags, &[])
    }

    /// The same with settings in its environment.
    pub(crate) fn start_with(flags: &[&str], environment: &[(&str, &str)]) -> Broker {
        Broker::run("127.0.0.1:0", flags, environment)
    }

    /// Starts it where another one may have been before.
    pub(crate) fn start_at(address: SocketAddr, flags: &[&str]) -> Broker {
        Broker::run(&address.to_string(), flags, &[])
    }

    fn run(listen: &str, flags: &[&str], environment: &[(&str, &str)]) -> Broker {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare"));
        command.env_clear().envs(environment.iter().copied()).args(["--listen", listen]).args(flags);
        let process = Process::start(command);
        let greeting = process.line(Instant::now() + DEADLINE).expect("the broker's greeting");
        let address = greeting.split_once("listening on http://").and_then(|(_, address)| address.parse().ok());
        let address = address.unwrap_or_else(|| panic!("no address in {greeting:?}"));
        Broker { process, address }
    }

    /// Where it speaks TLS, if it was told to; it is asked once.
    pub(crate) fn tls_address(&self) -> SocketAddr {
        let line = self.process.line(Instant::now() + DEADLINE).expect("the greeting's second line");
        let address = line.rsplit_once("https://").and_then(|(_, address)| address.trim().parse().ok());
        address.unwrap_or_else(|| panic!("no address in {line:?}"))
    }

    /// Ends it, in good order.
    pub(crate) fn stop(mut self) {
        let started = Instant::now();
        let _ = kill_process(self.process.pid(), Signal::TERM);
        while !self.process.has_ended() {
            assert!(started.elapsed() < DEADLINE, "the broker does not stop");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It does not mind its input, as the clients do.
        let _ = self.process.child.kill();
    }
}

/// An event as a client reports it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Event {
    /// The page that has seen it, where a client has more than one.
    #[serde(default)]
    pub(crate) page: String,
    /// The id the library gives for it; of an event that carries none, some give the last one before it.
    pub(crate) id: String,
    /// Its type.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Its data.
    pub(crate) data: String,
}

/// A client, and what it has reported.
pub(crate) struct Client {
    process: Process,
    /// All but heartbeats, in the order of arrival.
    pub(crate) seen: Vec<Event>,
    /// The heartbeats.
    pub(crate) heartbeats: Vec<Event>,
}

impl Client {
    /// Starts it.
    pub(crate) fn start(mut command: Command) -> Client {
        command.process_group(0);
        Client { process: Process::start(command), seen: Vec::new(), heartbeats: Vec::new() }
    }

    /// Waits until it has reported events of these types, and no others but heartbeats.
    pub(crate) fn wait_for(&mut self, kinds: &[&str]) {
        let from = self.seen.len();
        self.wait(&format!("{kinds:?}"), |client| client.seen.len() >= from + kinds.len());
        let got: Vec<&str> = self.seen[from..].iter().map(|event| event.kind.as_str()).collect();
        assert_eq!(got, kinds, "{:#?}", self.seen);
    }

    /// Waits until it has reported one more heartbeat.
    pub(crate) fn wait_for_heartbeat(&mut self) {
        let count = self.heartbeats.len();
        self.wait("a heartbeat", |client| client.heartbeats.len() > count);
    }

    /// Waits until what it has reported is enough.
    pub(crate) fn wait(&mut self, what: &str, done: impl Fn(&Client) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !done(self) {
            let line = self.process.line(deadline);
            let line = line.unwrap_or_else(|why| panic!("waiting for {what} after {:#?}: {why}", self.seen));
            let event: Event = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
            match event.kind.as_str() {
                "heartbeat" => self.heartbeats.push(event),
                // Pages listen for it or not: those that do not, see nothing of it.
                "end" => assert!(event.data.contains(r#""reason":"drained""#), "{event:?}"),
                _ => self.seen.push(event),
            }
        }
    }
}
