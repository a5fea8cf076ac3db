//! The receiving side: all streams on one thread, one poll and one large read buffer.
//!
//! Scenarios drive it: nothing happens between two calls of [`Fleet::run`]. Reads go until the socket is drained, which
//! a short read shows; that saves the call that would say `EAGAIN`.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::Result;
use crate::clock::SendTimes;
use crate::follower::Follower;
use crate::publisher::Published;
use crate::tally::{Tally, latency_histogram};
use crate::target::{check_room_for, source_of};
use crate::transcript::Transcript;

/// More than a socket's receive buffer usually holds, little enough to stay in the second-level cache.
const READ_BUFFER_BYTES: usize = 256 << 10;
/// Sockets handled between two looks at the clock and the condition.
const EVENTS_A_TURN: usize = 1024;
/// How often a condition is looked at when nothing arrives.
const TICK: Duration = Duration::from_millis(20);

pub struct Fleet {
    server: SocketAddr,
    poll: Poll,
    events: Events,
    buffer: Box<[u8]>,
    rooms: Vec<Room>,
    streams: Vec<Stream>,
    launch: Launch,
    connections: u64,
    /// See [`Fleet::new`].
    batch: Duration,
    pub tally: Tally,
}

/// The streams that asked for the same topics.
struct Room {
    topics: String,
    streams: usize,
    transcript: Transcript,
}

struct Stream {
    socket: Option<TcpStream>,
    room: u32,
    asked: bool,
    begun: u64,
    follower: Follower,
}

/// Streams on their way to `connected`.
struct Launch {
    waiting: VecDeque<usize>,
    in_flight: usize,
    limit: usize,
    begun: u64,
    outcome: Opened,
}

/// How the opening of streams went.
#[derive(Debug, Clone)]
pub struct Opened {
    pub streams: u64,
    pub failed: u64,
    /// From the first connect until the last `connected`, in nanoseconds.
    pub elapsed: u64,
    /// From just before connect until `connected` was read, with as many others in flight as were allowed.
    pub latency: Histogram<u64>,
    /// Why the first that failed did.
    pub error: Option<String>,
}

/// What arrived against what was published.
#[derive(Debug, Clone, Copy, Default)]
pub struct Verdict {
    pub expected: u64,
    pub delivered: u64,
    pub missing: u64,
    /// Events that no publication accounts for.
    pub unexpected: u64,
    pub duplicates: u64,
    pub out_of_order: u64,
    pub gaps: u64,
    /// Events under another sequence than the publisher was told.
    pub misnumbered: u64,
    /// Streams that were refused, ended, or sent nonsense.
    pub streams_lost: u64,
}

impl Verdict {
    pub fn is_clean(&self) -> bool {
        let faults = [
            self.missing,
            self.unexpected,
            self.duplicates,
            self.out_of_order,
            self.gaps,
            self.misnumbered,
            self.streams_lost,
        ];
        faults.iter().all(|&count| count == 0)
    }
}

impl Fleet {
    /// After it has read all there was, the receiver sleeps for `batch` instead of waiting for the next byte. A thread
    /// that waits in a poll is woken by the very next send, and that wake-up, several microseconds on a virtual machine
    /// and nothing that a remote client would cost, is billed to the server that sends. Delivery latencies are up to
    /// `batch` too high for it.
    pub fn new(server: SocketAddr, times: Arc<SendTimes>, batch: Duration) -> Result<Self> {
        Ok(Self {
            server,
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS_A_TURN),
            buffer: vec![0; READ_BUFFER_BYTES].into(),
            rooms: Vec::new(),
            streams: Vec::new(),
            launch: Launch { waiting: VecDeque::new(), in_flight: 0, limit: 0, begun: 0, outcome: Opened::nothing() },
            connections: 0,
            batch,
            tally: Tally::new(times),
        })
    }

    /// Adds streams, not yet opened, that will ask for `topics`. They get a transcript of their own.
    pub fn add_room(&mut self, topics: &str, streams: usize) -> Result<()> {
        check_room_for(self.streams.len() + streams)?;
        let room = u32::try_from(self.rooms.len())?;
        self.rooms.push(Room { topics: topics.to_owned(), streams: 0, transcript: Transcript::default() });
        self.add_streams(room as usize, streams)
    }

    /// Adds streams to a room that is there.
    pub fn add_streams(&mut self, room: usize, streams: usize) -> Result<()> {
        check_room_for(self.streams.len() + streams)?;
        let prefix = self.rooms[room].transcript.entries().len();
        self.rooms[room].streams += streams;
        let first = self.streams.len();
        self.streams.extend((0..streams).map(|_| Stream {
            socket: None,
            room: room as u32,
            asked: false,
            begun: 0,
            follower: Follower::new(prefix),
        }));
        self.launch.waiting.extend(first..first + streams);
        Ok(())
    }

    /// Closes all connections, as clients that lose their network for a moment, and leaves the streams to be opened
    /// again from where each was.
    pub fn cut(&mut self) {
        self.launch.waiting.clear();
        for (index, stream) in self.streams.iter_mut().enumerate() {
            stream.socket = None;
            stream.asked = false;
            stream.follower = Follower::new(stream.follower.prefix());
            self.launch.waiting.push_back(index);
        }
    }

    /// Opens all streams that wait, at most `in_flight` at a time.
    pub fn open(&mut self, in_flight: usize, limit: Duration, mut watch: impl FnMut(&Self)) -> Result<Opened> {
        let total = self.launch.waiting.len() as u64;
        self.launch.limit = in_flight.max(1);
        self.launch.outcome = Opened::nothing();
        self.launch.begun = self.tally.times.now();
        let opened = self.run(limit, |fleet| {
            watch(fleet);
            fleet.launch.waiting.is_empty() && fleet.launch.in_flight == 0
        })?;
        // Streams that are cut later wait for the next call.
        self.launch.limit = 0;
        let outcome = self.launch.outcome.clone();
        let reason = outcome.error.as_deref().unwrap_or("no reason given");
        if !opened {
            return Err(format!("{} of {total} streams were open after {} s", outcome.streams, limit.as_secs()).into());
        }
        if outcome.failed > 0 {
            return Err(format!("{} of {total} streams could not be opened: {reason}", outcome.failed).into());
        }
        Ok(outcome)
    }

    /// Streams opened so far in this call of [`Fleet::open`].
    pub fn opened(&self) -> u64 {
        self.launch.outcome.streams
    }

    /// Receives until `done` or for `limit`; returns whether it was done.
    pub fn run(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> Result<bool> {
        let start = Instant::now();
        loop {
            if done(self) {
                return Ok(true);
            }
            let left = limit.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(false);
            }
            self.turn(left.min(TICK))?;
        }
    }

    /// Compares what every stream had with what was published; room n expects `expected[n]` events.
    pub fn verdict(&self, expected: &[u64], published: &Published) -> Verdict {
        let expected_of = |room: usize| expected.get(room).copied().unwrap_or(0);
        let tally = &self.tally;
        let mut verdict = Verdict {
            delivered: tally.delivered,
            duplicates: tally.duplicates,
            out_of_order: tally.out_of_order,
            gaps: tally.gaps,
            streams_lost: tally.refused + tally.ended + tally.malformed,
            ..Verdict::default()
        };
        for stream in &self.streams {
            let (expected, received) = (expected_of(stream.room as usize), stream.follower.received());
            verdict.expected += expected;
            verdict.missing += expected.saturating_sub(received);
            verdict.unexpected += received.saturating_sub(expected);
        }
        let sequences: HashMap<u64, u64> = published.sequences.iter().copied().collect();
        for room in &self.rooms {
            verdict.duplicates += room.transcript.repeated() * room.streams as u64;
            let misnumbered = room.transcript.entries().iter().filter(|entry| {
                let told = entry.number.and_then(|number| sequences.get(&number));
                told.is_some_and(|&told| told != entry.seq)
            });
            verdict.misnumbered += misnumbered.count() as u64;
        }
        verdict
    }

    /// The mean size on the wire of the events received, in bytes.
    pub fn event_bytes(&self) -> Option<f64> {
        let entries: usize = self.rooms.iter().map(|room| room.transcript.entries().len()).sum();
        let bytes: usize = self.rooms.iter().map(|room| room.transcript.bytes().len()).sum();
        (entries > 0).then(|| bytes as f64 / entries as f64)
    }

    fn turn(&mut self, timeout: Duration) -> Result<()> {
        self.launch_more()?;
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        // Taken out while it is walked: handling an event borrows all the rest.
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let mut handled = 0;
        for event in &events {
            handled += 1;
            let index = event.token().0;
            if event.is_writable() && !self.streams[index].asked {
                self.ask(index);
            }
            if event.is_readable() || event.is_read_closed() {
                self.read(index, event.is_read_closed());
            }
        }
        self.events = events;
        let opening = self.launch.in_flight > 0;
        if (1..EVENTS_A_TURN).contains(&handled) && !opening && !self.batch.is_zero() {
            std::thread::sleep(self.batch);
        }
        Ok(())
    }

    fn launch_more(&mut self) -> Result<()> {
        while self.launch.in_flight < self.launch.limit {
            let Some(index) = self.launch.waiting.pop_front() else {
                break;
            };
            self.launch.in_flight += 1;
            self.streams[index].begun = self.tally.times.now();
            let source = source_of(self.connections);
            self.connections += 1;
            match connect(self.server, source) {
                Ok(socket) => self.streams[index].socket = Some(socket),
                Err(error) => {
                    self.lose(index, Some(&error));
                    continue;
                }
            }
            // Over loopback the handshake is nearly always over by now; if so, waiting for writability is saved.
            self.ask(index);
            let stream = &mut self.streams[index];
            let interest = if stream.asked { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
            if let Some(socket) = &mut stream.socket {
                self.poll.registry().register(socket, Token(index), interest)?;
            }
        }
        Ok(())
    }

    /// Sends the request, if the socket is connected.
    fn ask(&mut self, index: usize) {
        let stream = &mut self.streams[index];
        let room = &self.rooms[stream.room as usize];
        let Some(socket) = &mut stream.socket else {
            return;
        };
        let request = request(&room.topics, stream.follower.prefix(), &room.transcript);
        match socket.write(request.as_bytes()) {
            Ok(written) if written == request.len() => stream.asked = true,
            // An empty send buffer takes a few hundred bytes whole.
            Ok(_) => self.lose(index, Some(&ErrorKind::WriteZero.into())),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {}
            Err(error) => self.lose(index, Some(&error)),
        }
    }

    fn read(&mut self, index: usize, until_closed: bool) {
        let stream = &mut self.streams[index];
        let room = &mut self.rooms[stream.room as usize];
        loop {
            let Some(socket) = &mut stream.socket else {
                return;
            };
            let read = match socket.read(&mut self.buffer) {
                Ok(0) => return self.lose(index, None),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return self.lose(index, Some(&error)),
            };
            self.tally.now = self.tally.times.now();
            let connected = stream.follower.is_connected();
            stream.follower.receive(&self.buffer[..read], &mut room.transcript, &mut self.tally);
            if stream.follower.has_ended() {
                return self.lose(index, None);
            }
            if !connected && stream.follower.is_connected() {
                self.launch.in_flight -= 1;
                self.launch.outcome.streams += 1;
                self.launch.outcome.elapsed = self.tally.now - self.launch.begun;
                self.launch.outcome.latency.saturating_record(self.tally.now - stream.begun);
            }
            if read < self.buffer.len() && !until_closed {
                return;
            }
        }
    }

    /// A stream is over. One that was still being opened counts as failed.
    fn lose(&mut self, index: usize, error: Option<&io::Error>) {
        let stream = &mut self.streams[index];
        stream.socket = None;
        if !stream.follower.is_connected() {
            let outcome = &mut self.launch.outcome;
            self.launch.in_flight -= 1;
            outcome.failed += 1;
            outcome.error.get_or_insert_with(|| match error {
                Some(error) => error.to_string(),
                None if self.tally.refused > 0 => "answered with no stream".to_owned(),
                None => "closed before `connected`".to_owned(),
            });
        }
        if !stream.follower.has_ended() {
            self.tally.ended += 1;
            stream.follower.end();
        }
    }
}

impl Drop for Fleet {
    /// Resets the connections, so that they do not stay behind in TIME_WAIT and take ports from the next run.
    fn drop(&mut self) {
        for socket in self.streams.iter().filter_map(|stream| stream.socket.as_ref()) {
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
    }
}

impl Opened {
    fn nothing() -> Self {
        Self { streams: 0, failed: 0, elapsed: 0, latency: latency_histogram(), error: None }
    }
}

fn request(topics: &str, prefix: usize, transcript: &Transcript) -> String {
    let resume = match prefix.checked_sub(1) {
        Some(last) => format!("Last-Event-ID: {}\r\n", transcript.id_of(last)),
        None => String::new(),
    };
    format!(
        "GET /api/v1/events?topics={topics} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\
         Cache-Control: no-cache\r\n{resume}\r\n"
    )
}

/// Begins to connect, without waiting.
fn connect(server: SocketAddr, source: Option<SocketAddr>) -> io::Result<TcpStream> {
    let Some(source) = source else {
        return TcpStream::connect(server);
    };
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Ports in TIME_WAIT may be taken again: the server's port makes the pair unique.
    socket.set_reuse_address(true)?;
    socket.bind(&source.into())?;
    match socket.connect(&server.into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}
