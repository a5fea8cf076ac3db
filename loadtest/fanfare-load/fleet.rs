//! The receiving side: all streams on one thread, one poll and one large read buffer.
//!
//! Scenarios drive it: nothing happens between two calls of [`Fleet::run`]. Reads go until the socket is drained, which
//! without TLS a short read shows; that saves the call that would say `EAGAIN`.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::{Events, Poll, Token};

use crate::Result;
use crate::address::Address;
use crate::carrier::{Asking, Carrier, Got};
use crate::clock::SendTimes;
use crate::follower::Follower;
use crate::publisher::Published;
use crate::reasons::Reasons;
use crate::tally::{Tally, latency_histogram};
use crate::target::{Target, check_room_for, source_of};
use crate::token::Signer;
use crate::transcript::Transcript;
use crate::transport::{Dialer, Transport};

/// More than a socket's receive buffer usually holds, little enough to stay in the second-level cache.
const READ_BUFFER_BYTES: usize = 256 << 10;
/// Sockets handled between two looks at the clock and the condition.
const EVENTS_A_TURN: usize = 1024;
/// How often a condition is looked at when nothing arrives.
const TICK: Duration = Duration::from_millis(20);

pub struct Fleet {
    dialer: Dialer,
    transport: Transport,
    poll: Poll,
    events: Events,
    buffer: Box<[u8]>,
    rooms: Vec<Room>,
    streams: Vec<Stream>,
    /// Connection n carries the streams from n times [`Transport::streams_a_connection`] on.
    carriers: Vec<Option<Carrier>>,
    launch: Launch,
    /// Connections made so far.
    dialed: u64,
    signer: Option<Signer>,
    /// See [`Fleet::new`].
    batch: Duration,
    pub tally: Tally,
    /// Why streams are over that had been open.
    lost: Reasons,
}

/// The streams that asked for the same.
struct Room {
    query: String,
    streams: usize,
    transcript: Transcript,
}

struct Stream {
    room: u32,
    /// It has been launched, and its connection has not been lost since.
    carried: bool,
    begun: u64,
    /// What it shows to be let in.
    token: Option<Box<str>>,
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

/// How long to wait for something.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// While nothing of it comes.
    pub idle: Duration,
    /// However much of it comes.
    pub in_all: Duration,
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
    /// Why those failed that did.
    pub reasons: Reasons,
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
    /// Events that were for another room.
    pub misdirected: u64,
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
            self.misdirected,
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
    pub fn new(target: &Target, times: Arc<SendTimes>, batch: Duration) -> Result<Self> {
        Ok(Self {
            dialer: Dialer::new(target.url, &target.transport)?,
            transport: target.transport,
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS_A_TURN),
            buffer: vec![0; READ_BUFFER_BYTES].into(),
            rooms: Vec::new(),
            streams: Vec::new(),
            carriers: Vec::new(),
            launch: Launch { waiting: VecDeque::new(), in_flight: 0, limit: 0, begun: 0, outcome: Opened::nothing() },
            dialed: 0,
            signer: None,
            batch,
            tally: Tally::new(times),
            lost: Reasons::default(),
        })
    }

    /// Gives each stream that is added from now on a token of its own.
    pub fn sign(&mut self, signer: Option<Signer>) {
        self.signer = signer;
    }

    /// Adds streams, not yet opened, that will ask for what goes to this address. They get a transcript of their own.
    pub fn add_room(&mut self, address: &Address, streams: usize) -> Result<()> {
        let room = u32::try_from(self.rooms.len())?;
        self.rooms.push(Room { query: address.query(), streams: 0, transcript: Transcript::default() });
        self.add_streams(room as usize, streams)
    }

    /// Adds streams to a room that is there.
    pub fn add_streams(&mut self, room: usize, streams: usize) -> Result<()> {
        let (first, last) = (self.streams.len(), self.streams.len() + streams);
        let connections = last.div_ceil(self.transport.streams_a_connection());
        check_room_for(connections)?;
        self.carriers.resize_with(connections, || None);
        let prefix = self.rooms[room].transcript.entries().len();
        self.rooms[room].streams += streams;
        for index in first..last {
            let token = self.signer.as_ref().map(|signer| signer.token(index)).transpose()?;
            self.streams.push(Stream {
                room: room as u32,
                carried: false,
                begun: 0,
                token: token.map(String::into_boxed_str),
                follower: Follower::new(prefix),
            });
        }
        self.launch.waiting.extend(first..last);
        Ok(())
    }

    /// Closes all connections, as clients that lose their network for a moment, and leaves the streams to be opened
    /// again from where each was.
    ///
    /// Fails where streams have no place to go on from: what they miss would never come.
    pub fn cut(&mut self) -> Result<()> {
        let placeless = self.streams.iter().filter(|stream| stream.follower.prefix() == 0).count();
        if placeless > 0 {
            let total = self.streams.len();
            return Err(format!("{placeless} of {total} streams have no id to resume from{}", self.losses()).into());
        }
        self.launch.waiting.clear();
        self.carriers.fill_with(|| None);
        for (index, stream) in self.streams.iter_mut().enumerate() {
            stream.carried = false;
            // What it has had past its prefix it is sent again.
            self.tally.delivered -= stream.follower.received() - stream.follower.prefix() as u64;
            stream.follower = Follower::new(stream.follower.prefix());
            self.launch.waiting.push_back(index);
        }
        Ok(())
    }

    /// Opens all streams that wait, at most `in_flight` at a time. Fails where one is refused, and where for so long
    /// none is let in or refused, or the limit is over.
    pub fn open(&mut self, in_flight: usize, patience: Patience, mut watch: impl FnMut(&Self)) -> Result<Opened> {
        let total = self.launch.waiting.len() as u64;
        self.launch.limit = in_flight.max(1);
        self.launch.outcome = Opened::nothing();
        self.launch.begun = self.tally.times.now();
        let settled = |fleet: &Self| fleet.launch.outcome.streams + fleet.launch.outcome.failed;
        let vain = self.wait(patience, settled, |fleet| {
            watch(fleet);
            fleet.launch.waiting.is_empty() && fleet.launch.in_flight == 0
        })?;
        // Streams that are cut later wait for the next call.
        self.launch.limit = 0;
        let outcome = self.launch.outcome.clone();
        if vain.is_none() && outcome.failed == 0 {
            return Ok(outcome);
        }
        let Opened { streams, failed, reasons, .. } = &outcome;
        let mut why = format!("{} of {total} streams could not be opened", total - streams);
        if *failed > 0 {
            let _ = write!(why, ": {reasons}");
        }
        if let Some(vain) = vain {
            let (silent, waiting) = (self.launch.in_flight, self.launch.waiting.len());
            let _ = write!(why, "; {vain} for {silent} that got no answer");
            if waiting > 0 {
                let _ = write!(why, ", and {waiting} were not begun");
            }
        }
        Err(why.into())
    }

    /// Receives until so many events are delivered; where they do not come in time, gives what is missing.
    pub fn deliver(
        &mut self,
        due: u64,
        patience: Patience,
        mut watch: impl FnMut(&Self),
    ) -> Result<std::result::Result<(), String>> {
        let vain = self.wait(
            patience,
            |fleet| fleet.tally.delivered,
            |fleet| {
                watch(fleet);
                fleet.tally.delivered >= due
            },
        )?;
        let missing = due.saturating_sub(self.tally.delivered);
        Ok(vain.map_or(Ok(()), |vain| Err(format!("{vain} for the last {missing} of {due} events{}", self.losses()))))
    }

    /// Why streams are over that had been open, as the end of a sentence; nothing where none is.
    pub fn losses(&self) -> String {
        match self.lost.is_empty() {
            true => String::new(),
            false => format!("; of the streams that were open, {}", self.lost),
        }
    }

    /// Receives until `done`; gives how long it waited where that was in vain, because there was no `progress`.
    fn wait(
        &mut self,
        patience: Patience,
        progress: impl Fn(&Self) -> u64,
        mut done: impl FnMut(&Self) -> bool,
    ) -> Result<Option<String>> {
        let start = Instant::now();
        let (mut seen, mut since) = (progress(self), start);
        loop {
            let left =
                patience.in_all.saturating_sub(start.elapsed()).min(patience.idle.saturating_sub(since.elapsed()));
            if self.run(left.min(TICK), &mut done)? {
                return Ok(None);
            }
            if progress(self) != seen {
                (seen, since) = (progress(self), Instant::now());
            } else if left.is_zero() {
                return Ok(Some(format!("waited {:.1} s in vain", since.elapsed().as_secs_f64())));
            }
            if start.elapsed() >= patience.in_all {
                return Ok(Some(format!("waited {:.1} s", start.elapsed().as_secs_f64())));
            }
        }
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

    /// Compares what every stream had with what was published; room n expects `expected[n]` events, and of those it is sent
    /// in turn with the other rooms of `expected`.
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
        for (number, room) in self.rooms.iter().enumerate() {
            verdict.duplicates += room.transcript.repeated() * room.streams as u64;
            let misnumbered = room.transcript.entries().iter().filter(|entry| {
                let told = entry.number.and_then(|number| sequences.get(&number));
                told.is_some_and(|&told| told != entry.seq)
            });
            verdict.misnumbered += misnumbered.count() as u64;
            let misdirected = room.transcript.entries().iter().filter(|entry| {
                let went_to = |event: u64| event as usize % expected.len();
                number < expected.len() && entry.number.is_some_and(|event| went_to(event) != number)
            });
            verdict.misdirected += misdirected.count() as u64;
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
            self.drive(event.token().0, event.is_read_closed());
        }
        self.events = events;
        let opening = self.launch.in_flight > 0;
        if (1..EVENTS_A_TURN).contains(&handled) && !opening && !self.batch.is_zero() {
            std::thread::sleep(self.batch);
        }
        Ok(())
    }

    fn launch_more(&mut self) -> Result<()> {
        let mut touched = None;
        while self.launch.in_flight < self.launch.limit {
            let Some(index) = self.launch.waiting.pop_front() else {
                break;
            };
            self.launch.in_flight += 1;
            let stream = &mut self.streams[index];
            stream.begun = self.tally.times.now();
            stream.carried = true;
            let connection = index / self.transport.streams_a_connection();
            if let Err(error) = self.ask(index, connection) {
                self.lose_connection(connection, Some(&error));
            }
            // Streams follow each other, so those of one connection are launched together.
            if let Some(before) = touched.replace(connection).filter(|&before| before != connection) {
                self.drive_shared(before);
            }
        }
        if let Some(last) = touched {
            self.drive_shared(last);
        }
        Ok(())
    }

    /// Sends a stream's request over its connection, which is made if it is not there.
    fn ask(&mut self, index: usize, connection: usize) -> io::Result<()> {
        let stream = &self.streams[index];
        let room = &self.rooms[stream.room as usize];
        let asking = Asking {
            query: &room.query,
            last_event_id: stream.follower.prefix().checked_sub(1).map(|last| room.transcript.id_of(last)),
            token: stream.token.as_deref(),
        };
        let slot = &mut self.carriers[connection];
        if let Some(carrier) = slot {
            return carrier.ask(index, &asking);
        }
        let source = source_of(self.dialed);
        self.dialed += 1;
        let mut carrier = Carrier::new(self.dialer.dial(source)?, self.transport.http2.is_some());
        // Over loopback the handshake of TCP is nearly always over by now.
        carrier.ask(index, &asking)?;
        carrier.register(self.poll.registry(), Token(connection))?;
        *slot = Some(carrier);
        Ok(())
    }

    /// Has the requests sent that were given to a connection of many streams.
    fn drive_shared(&mut self, connection: usize) {
        if self.transport.http2.is_some() {
            self.drive(connection, false);
        }
    }

    /// Sends and reads all that one connection has.
    fn drive(&mut self, connection: usize, until_closed: bool) {
        // Both are taken out while the connection is read: what it brings is handed to all the rest.
        let Some(mut carrier) = self.carriers[connection].take() else {
            return;
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        let driven = carrier.drive(&mut buffer, until_closed, |index, got| self.receive(index, got));
        self.buffer = buffer;
        match driven {
            Ok(true) => self.carriers[connection] = Some(carrier),
            Ok(false) => self.lose_connection(connection, None),
            Err(error) => self.lose_connection(connection, Some(&error)),
        }
    }

    /// Takes what a stream was sent, or its end; gives whether it goes on.
    fn receive(&mut self, index: usize, got: Got<'_>) -> bool {
        let stream = &mut self.streams[index];
        let bytes = match got {
            Ok(bytes) => bytes,
            Err(why) => {
                self.lose(index, why);
                return false;
            }
        };
        self.tally.now = self.tally.times.now();
        let connected = stream.follower.is_connected();
        let room = &mut self.rooms[stream.room as usize];
        stream.follower.receive(bytes, &mut room.transcript, &mut self.tally);
        if stream.follower.has_ended() {
            self.lose(index, "");
            return false;
        }
        if !connected && stream.follower.is_connected() {
            self.launch.in_flight -= 1;
            self.launch.outcome.streams += 1;
            self.launch.outcome.elapsed = self.tally.now - self.launch.begun;
            self.launch.outcome.latency.saturating_record(self.tally.now - stream.begun);
        }
        true
    }

    /// A connection is over, and with it the streams that it carried.
    fn lose_connection(&mut self, connection: usize, error: Option<&io::Error>) {
        self.carriers[connection] = None;
        let many = self.transport.streams_a_connection();
        let last = self.streams.len().min((connection + 1) * many);
        let why = error.map_or_else(|| "closed by the server".to_owned(), io::Error::to_string);
        for index in connection * many..last {
            self.lose(index, &why);
        }
    }

    /// A stream is over, for this reason if it has given none itself. One that was still being opened counts as failed.
    fn lose(&mut self, index: usize, why: &str) {
        let stream = &mut self.streams[index];
        if !std::mem::take(&mut stream.carried) {
            return;
        }
        if !stream.follower.has_ended() {
            self.tally.ended += 1;
            stream.follower.end(why);
        }
        let why = stream.follower.why().unwrap_or_default();
        if stream.follower.is_connected() {
            self.lost.add(why);
        } else {
            self.launch.in_flight -= 1;
            self.launch.outcome.failed += 1;
            self.launch.outcome.reasons.add(why);
        }
    }
}

impl Drop for Fleet {
    /// Resets the connections, so that they do not stay behind in TIME_WAIT and take ports from the next run.
    fn drop(&mut self) {
        self.carriers.iter().flatten().for_each(Carrier::reset_when_closed);
    }
}

impl Opened {
    fn nothing() -> Self {
        Self { streams: 0, failed: 0, elapsed: 0, latency: latency_histogram(), reasons: Reasons::default() }
    }
}
