//! The baseline: the plain send loop, the least that any server can do.
//!
//! One thread and one poll. A subscriber gets ready-made bytes and stays; a publication is answered at once and queued;
//! then each event costs exactly one `send(2)` of ready-made bytes for each stream. No HTTP library, no coalescing, no
//! bound but one: a stream that takes nothing is closed once it has [`BACKLOG_LIMIT`] events waiting.
//!
//! It speaks as much of the contract as the scenarios use, and trusts its client: do not expose it.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use serde::Deserialize;
use serde_json::value::RawValue;
use socket2::{Domain, Protocol, Socket, Type};

use crate::Result;
use crate::address::Address;
use crate::clock::{rfc3339, unix_now};
use crate::target::raise_descriptor_limit;

const LISTENER: Token = Token(usize::MAX);
/// Connections that may wait to be accepted; the kernel takes `net.core.somaxconn` if that is less.
const ACCEPT_BACKLOG: i32 = 65_535;
/// A request larger than this is not for a baseline.
const REQUEST_LIMIT_BYTES: usize = 1 << 20;
/// Events that may wait for one stream.
const BACKLOG_LIMIT: usize = 65_536;
/// Events of a topic that are kept for streams that resume.
const HISTORY_LIMIT: usize = 1_024;
/// How finely heartbeats are spread.
const HEARTBEAT_TICK: Duration = Duration::from_millis(10);

#[derive(Debug, Args)]
pub struct PlainArgs {
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// Seconds between two heartbeats of a stream, spread evenly over the streams; 0 sends none
    #[arg(long, default_value_t = 0.0)]
    heartbeat_s: f64,
}

type Frame = Rc<[u8]>;

struct Plain {
    poll: Poll,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// By what their streams asked for, as [`Address::query`] writes it.
    rooms: HashMap<String, Room>,
    /// Events not yet sent to anybody.
    queue: VecDeque<Event>,
    epoch: String,
    sequence: u64,
    streams: usize,
    scratch: Box<[u8]>,
}

/// The streams that asked for exactly this.
#[derive(Default)]
struct Room {
    members: Vec<usize>,
    history: VecDeque<(u64, Frame)>,
}

struct Event {
    room: String,
    sequence: u64,
    frame: Frame,
}

struct Connection {
    socket: TcpStream,
    state: State,
}

enum State {
    Request(Vec<u8>),
    Stream {
        room: Box<str>,
        /// Only what a full socket did not take; see [`Backlog`].
        backlog: Option<Box<Backlog>>,
    },
}

/// What waits for a stream whose socket was full: whole frames, the first of them sent up to `sent`.
struct Backlog {
    frames: VecDeque<Frame>,
    sent: usize,
}

pub fn run(args: &PlainArgs) -> Result<()> {
    raise_descriptor_limit();
    let mut plain = Plain::bind(args.listen)?;
    let address = plain.listener.local_addr()?;
    println!("fanfare-load plain {} listening on http://{address}", env!("CARGO_PKG_VERSION"));
    io::stdout().flush()?;
    let mut heartbeats = (args.heartbeat_s > 0.0).then(|| Heartbeats::new(args.heartbeat_s));
    let mut events = Events::with_capacity(1024);
    loop {
        let timeout =
            if plain.queue.is_empty() { heartbeats.as_ref().map(|_| HEARTBEAT_TICK) } else { Some(Duration::ZERO) };
        match plain.poll.poll(&mut events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            match event.token() {
                LISTENER => plain.accept()?,
                Token(index) => {
                    if event.is_writable() {
                        plain.drain(index);
                    }
                    if event.is_readable() || event.is_read_closed() {
                        plain.read(index);
                    }
                }
            }
        }
        if let Some(event) = plain.queue.pop_front() {
            plain.fan_out(&event);
        }
        if let Some(heartbeats) = &mut heartbeats {
            heartbeats.send_due(&mut plain);
        }
    }
}

impl Plain {
    fn bind(address: SocketAddr) -> Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(ACCEPT_BACKLOG)?;
        let mut listener = TcpListener::from_std(socket.into());
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            connections: Vec::new(),
            free: Vec::new(),
            rooms: HashMap::new(),
            queue: VecDeque::new(),
            epoch: format!("{:x}", unix_now().as_millis()),
            sequence: 0,
            streams: 0,
            scratch: vec![0; 64 << 10].into(),
        })
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            let mut socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // The connection is gone already. Anything else, such as no descriptor left, ends the run by name.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error.into()),
            };
            socket.set_nodelay(true)?;
            let index = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            self.poll.registry().register(&mut socket, Token(index), Interest::READABLE)?;
            self.connections[index] = Some(Connection { socket, state: State::Request(Vec::new()) });
            // The request is usually there already.
            self.read(index);
        }
    }

    fn read(&mut self, index: usize) {
        loop {
            let Some(connection) = &mut self.connections[index] else {
                return;
            };
            match connection.socket.read(&mut self.scratch) {
                Ok(0) => return self.close(index),
                Ok(read) => {
                    // A stream that goes on talking is ignored.
                    if let State::Request(seen) = &mut connection.state {
                        seen.extend_from_slice(&self.scratch[..read]);
                        let oversized = seen.len() > REQUEST_LIMIT_BYTES;
                        if oversized || self.answer(index).is_none() {
                            return self.close(index);
                        }
                    }
                    if read < self.scratch.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.close(index),
            }
        }
    }

    /// Answers the request if it is whole. `None` is one that makes no sense.
    fn answer(&mut self, index: usize) -> Option<()> {
        let State::Request(seen) = &mut self.connections[index].as_mut()?.state else {
            return Some(());
        };
        let Some(end) = memchr::memmem::find(seen, b"\r\n\r\n") else {
            return Some(());
        };
        let head = std::str::from_utf8(&seen[..end]).ok()?;
        let length = header(head, "content-length").map_or(Some(0), |value| value.parse().ok())?;
        let Some(body) = seen.get(end + 4..end + 4 + length) else {
            return Some(());
        };
        let (method, path) = head.split_once(' ')?;
        let path = path.split(' ').next()?;
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        match (method, path) {
            ("GET", "/api/v1/events") => {
                let parameter = |name| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
                let topics = parameter("topics").filter(|topics| !topics.is_empty()).unwrap_or("all");
                let asked = Address { topic: topics.to_owned(), user: parameter("user_id").map(str::to_owned) };
                let after = header(head, "last-event-id").and_then(|id| id.rsplit_once('-')?.1.parse().ok());
                self.subscribe(index, &asked, after)
            }
            ("POST", "/api/v1/events/broadcast") => {
                let event = serde_json::from_slice::<Publication>(body).ok()?;
                let event = self.event(event);
                let State::Request(seen) = &mut self.connections[index].as_mut()?.state else {
                    return None;
                };
                seen.drain(..end + 4 + length);
                self.queue.push_back(event);
                let answer = format!(
                    r#"{{"success":true,"message":"Event broadcasted","clients":{},"id":"{}-{}"}}"#,
                    self.streams, self.epoch, self.sequence
                );
                self.reply(index, &answer)
            }
            ("GET", "/api/v1/events/stats") => {
                seen.drain(..end + 4);
                let answer = format!(r#"{{"connected_clients":{},"status":"healthy"}}"#, self.streams);
                self.reply(index, &answer)
            }
            _ => None,
        }
    }

    fn reply(&mut self, index: usize, body: &str) -> Option<()> {
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let socket = &mut self.connections[index].as_mut()?.socket;
        (socket.write(answer.as_bytes()).ok()? == answer.len()).then_some(())
    }

    fn event(&mut self, publication: Publication) -> Event {
        self.sequence += 1;
        let (epoch, sequence) = (&self.epoch, self.sequence);
        let Publication { topic, user_id, event_type, data } = publication;
        let frame = chunk(&format!(
            "event: {event_type}\ndata: {{\"type\":\"{event_type}\",\"data\":{data},\
             \"timestamp\":\"{}\",\"topic\":\"{topic}\"}}\nid: {epoch}-{sequence}\n\n",
            rfc3339(unix_now())
        ));
        Event { room: Address { topic, user: user_id }.query(), sequence, frame }
    }

    fn subscribe(&mut self, index: usize, asked: &Address, after: Option<u64>) -> Option<()> {
        let connected = chunk(&format!(
            "id: {epoch}-{seq}\nevent: connected\ndata: {{\"type\":\"connected\",\"data\":{{\"client_id\":\"plain\",\
             \"message\":\"Connected to Nivo event stream\",\"topics\":\"{topics}\"}},\"timestamp\":\"{now}\"}}\n\n",
            epoch = self.epoch,
            seq = self.sequence,
            topics = asked.topic,
            now = rfc3339(unix_now()),
        ));
        let mut opening = Vec::with_capacity(512);
        opening.extend_from_slice(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\
              Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        opening.extend_from_slice(&connected);
        let name = asked.query();
        let room = self.rooms.entry(name.clone()).or_default();
        if let Some(after) = after {
            for (_, frame) in room.history.iter().filter(|(seq, _)| *seq > after) {
                opening.extend_from_slice(frame);
            }
        }
        room.members.push(index);
        self.streams += 1;
        self.connections[index].as_mut()?.state = State::Stream { room: name.into(), backlog: None };
        self.send(index, &opening.into());
        Some(())
    }

    fn fan_out(&mut self, event: &Event) {
        let room = self.rooms.entry(event.room.clone()).or_default();
        if room.history.len() == HISTORY_LIMIT {
            room.history.pop_front();
        }
        room.history.push_back((event.sequence, Rc::clone(&event.frame)));
        // Taken out while it is walked, so that sending may close a stream, and with it a membership.
        let members = std::mem::take(&mut room.members);
        for &index in &members {
            self.send(index, &event.frame);
        }
        if let Some(room) = self.rooms.get_mut(&event.room) {
            room.members = members;
            room.members.retain(|&index| self.connections[index].is_some());
        }
    }

    /// One `send(2)`, or none for a stream that is still full.
    fn send(&mut self, index: usize, frame: &Frame) {
        let Some(connection) = &mut self.connections[index] else {
            return;
        };
        let State::Stream { backlog, .. } = &mut connection.state else {
            return;
        };
        if let Some(waiting) = backlog {
            waiting.frames.push_back(Rc::clone(frame));
            if waiting.frames.len() > BACKLOG_LIMIT {
                self.close(index);
            }
            return;
        }
        let sent = match connection.socket.write(frame) {
            Ok(sent) if sent == frame.len() => return,
            Ok(sent) => sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => return self.close(index),
        };
        *backlog = Some(Box::new(Backlog { frames: VecDeque::from([Rc::clone(frame)]), sent }));
        self.watch(index, Interest::READABLE | Interest::WRITABLE);
    }

    /// A full socket has room again: still one send a frame.
    fn drain(&mut self, index: usize) {
        let Some(connection) = &mut self.connections[index] else {
            return;
        };
        let State::Stream { backlog: slot, .. } = &mut connection.state else {
            return;
        };
        let Some(backlog) = slot else { return };
        while let Some(frame) = backlog.frames.front() {
            match connection.socket.write(&frame[backlog.sent..]) {
                Ok(sent) if backlog.sent + sent == frame.len() => {
                    backlog.frames.pop_front();
                    backlog.sent = 0;
                }
                Ok(sent) => backlog.sent += sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.close(index),
            }
        }
        *slot = None;
        self.watch(index, Interest::READABLE);
    }

    fn watch(&mut self, index: usize, interest: Interest) {
        let Some(connection) = &mut self.connections[index] else {
            return;
        };
        let registry = self.poll.registry();
        if registry.reregister(&mut connection.socket, Token(index), interest).is_err() {
            self.close(index);
        }
    }

    fn close(&mut self, index: usize) {
        let Some(connection) = self.connections[index].take() else {
            return;
        };
        if let State::Stream { room, .. } = connection.state {
            self.streams -= 1;
            // Not among the members while the room is walked: the walk itself leaves it out then.
            if let Some(room) = self.rooms.get_mut(&*room)
                && let Some(at) = room.members.iter().position(|&member| member == index)
            {
                room.members.swap_remove(at);
            }
        }
        self.free.push(index);
    }
}

/// Walks over the streams at an even pace, so that each is passed once in the interval.
struct Heartbeats {
    interval: Duration,
    last: Instant,
    /// Streams due, with the fraction left over from the last tick.
    due: f64,
    cursor: usize,
}

impl Heartbeats {
    fn new(seconds: f64) -> Self {
        Self { interval: Duration::from_secs_f64(seconds), last: Instant::now(), due: 0.0, cursor: 0 }
    }

    fn send_due(&mut self, plain: &mut Plain) {
        let elapsed = self.last.elapsed();
        if elapsed < HEARTBEAT_TICK {
            return;
        }
        self.last += elapsed;
        self.due += plain.streams as f64 * elapsed.as_secs_f64() / self.interval.as_secs_f64();
        if self.due < 1.0 {
            return;
        }
        let now = unix_now();
        let frame = chunk(&format!(
            "event: heartbeat\ndata: {{\"type\":\"heartbeat\",\"data\":{{\"timestamp\":{}}},\"timestamp\":\"{}\"}}\n\n",
            now.as_secs(),
            rfc3339(now)
        ));
        for _ in 0..plain.connections.len() {
            if self.due < 1.0 {
                return;
            }
            self.cursor = (self.cursor + 1) % plain.connections.len();
            let stream = plain.connections[self.cursor].as_ref();
            if stream.is_some_and(|connection| matches!(connection.state, State::Stream { .. })) {
                plain.send(self.cursor, &frame);
                self.due -= 1.0;
            }
        }
    }
}

#[derive(Deserialize)]
struct Publication {
    topic: String,
    user_id: Option<String>,
    #[serde(rename = "type")]
    event_type: String,
    data: Box<RawValue>,
}

/// One event as one HTTP chunk.
fn chunk(text: &str) -> Frame {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes().into()
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (known, value) = line.split_once(':')?;
        known.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
