//! Publishes over kept-alive connections, each on its own thread with plain blocking sockets: one request, its answer,
//! the next. That is how a service publishes, and the time between the two is the acknowledgement's latency.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::Result;
use crate::address::Address;
use crate::clock::{SendTimes, rfc3339, unix_now};
use crate::parser::split_id;
use crate::tally::latency_histogram;

/// What to publish.
#[derive(Debug, Clone)]
pub struct Plan {
    pub server: SocketAddr,
    /// Event number n goes to address n modulo their number.
    pub addresses: Vec<Address>,
    /// The first event's number; numbers index [`SendTimes`].
    pub first_number: u64,
    pub pace: Pace,
    /// An event's size on the wire with its chunk framing, in bytes; reached by padding, so no less than about 200.
    pub event_bytes: usize,
    pub connections: usize,
    /// A server that does not answer for so long is given up.
    pub patience: Duration,
}

#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// As fast as the server acknowledges.
    AsAcknowledged { events: u64 },
    /// Evenly, for so long. Where the server does not keep up, fewer than planned are published.
    Even { per_second: f64, during: Duration },
}

/// What was published.
pub struct Published {
    pub events: u64,
    /// From just before the request until its answer.
    pub acknowledged: Histogram<u64>,
    /// From when the request was due, if paced: a server that holds up one answer delays the requests behind it, and
    /// this is where that shows.
    pub acknowledged_from_due: Histogram<u64>,
    /// When the first request left, in nanoseconds since the start.
    pub first_request: u64,
    /// The sequence the server gave each event, by its number.
    pub sequences: Vec<(u64, u64)>,
}

pub struct Publisher {
    threads: Vec<JoinHandle<Result<Published>>>,
    answered: Arc<AtomicU64>,
}

impl Publisher {
    pub fn start(plan: &Plan, times: &Arc<SendTimes>) -> Result<Self> {
        let next = Arc::new(AtomicU64::new(plan.first_number));
        let answered = Arc::new(AtomicU64::new(0));
        let mut threads = Vec::new();
        for _ in 0..plan.connections {
            let connection = Connection::open(plan.server, plan.patience, Arc::clone(&answered))?;
            let (plan, times, next) = (plan.clone(), Arc::clone(times), Arc::clone(&next));
            let work = move || publish(&plan, connection, &times, &next);
            threads.push(std::thread::Builder::new().name("publisher".into()).spawn(work)?);
        }
        Ok(Self { threads, answered })
    }

    /// How many events have been acknowledged so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    pub fn join(self) -> Result<Published> {
        let mut total = Published::nothing();
        for thread in self.threads {
            total.add(thread.join().map_err(|_| "a publisher panicked")??);
        }
        Ok(total)
    }
}

impl Published {
    fn nothing() -> Self {
        Self {
            events: 0,
            acknowledged: latency_histogram(),
            acknowledged_from_due: latency_histogram(),
            first_request: u64::MAX,
            sequences: Vec::new(),
        }
    }

    /// Takes in what another connection published, or this one at another time.
    pub fn add(&mut self, other: Self) {
        self.events += other.events;
        self.acknowledged += other.acknowledged;
        self.acknowledged_from_due += other.acknowledged_from_due;
        self.first_request = self.first_request.min(other.first_request);
        self.sequences.extend(other.sequences);
    }
}

fn publish(plan: &Plan, mut connection: Connection, times: &SendTimes, next: &AtomicU64) -> Result<Published> {
    let mut published = Published::nothing();
    let mut request = Request::new(plan.event_bytes);
    let start = Instant::now();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let index = number - plan.first_number;
        let due = match plan.pace {
            Pace::AsAcknowledged { events } if index >= events => break,
            Pace::AsAcknowledged { .. } => None,
            Pace::Even { per_second, during } => {
                let due = Duration::from_secs_f64(index as f64 / per_second);
                if due >= during || start.elapsed() >= during {
                    break;
                }
                std::thread::sleep(due.saturating_sub(start.elapsed()));
                Some(start.elapsed().saturating_sub(due))
            }
        };
        let address = &plan.addresses[usize::try_from(number)? % plan.addresses.len()];
        let bytes = request.make(address, number);
        let sent = times.now();
        times.published(number, sent);
        let seq = connection.exchange(bytes)?;
        let answered = times.now();
        published.events += 1;
        published.acknowledged.saturating_record(answered - sent);
        if let Some(late) = due {
            let late = u64::try_from(late.as_nanos()).unwrap_or(u64::MAX);
            published.acknowledged_from_due.saturating_record(answered - sent + late);
        }
        published.first_request = published.first_request.min(sent);
        published.sequences.push((number, seq));
    }
    Ok(published)
}

/// The request for one event, made in a buffer that is used again.
struct Request {
    padding: String,
    body: String,
    bytes: Vec<u8>,
}

impl Request {
    /// What an event takes on the wire without padding: chunk framing, id, type, the JSON around `data` and in it.
    const UNPADDED_BYTES: usize = 199;

    fn new(event_bytes: usize) -> Self {
        Self {
            padding: "x".repeat(event_bytes.saturating_sub(Self::UNPADDED_BYTES)),
            body: String::new(),
            bytes: Vec::new(),
        }
    }

    fn make(&mut self, address: &Address, number: u64) -> &[u8] {
        self.body.clear();
        self.bytes.clear();
        // Writing into a String or a Vec cannot fail.
        let _ = write!(self.body, r#"{{"topic":"{}","#, address.topic);
        if let Some(user) = &address.user {
            let _ = write!(self.body, r#""user_id":"{user}","#);
        }
        // With its own timestamp the event is the same size everywhere: a
        // broker adds one where there is none.
        let _ = write!(
            self.body,
            r#""type":"load","data":{{"n":"{number:08}","timestamp":"{}","pad":"{}"}}}}"#,
            rfc3339(unix_now()),
            self.padding,
        );
        let _ = write!(
            self.bytes,
            "POST /api/v1/events/broadcast HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{}",
            self.body.len(),
            self.body
        );
        &self.bytes
    }
}

struct Connection {
    socket: TcpStream,
    answer: Vec<u8>,
    /// Over all connections.
    answered: Arc<AtomicU64>,
}

impl Connection {
    fn open(server: SocketAddr, patience: Duration, answered: Arc<AtomicU64>) -> Result<Self> {
        let socket = TcpStream::connect_timeout(&server, patience)
            .map_err(|error| format!("no publisher's connection to {server}: {error}"))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        Ok(Self { socket, answer: Vec::new(), answered })
    }

    /// Sends one request, reads its answer, and returns the event's sequence.
    fn exchange(&mut self, request: &[u8]) -> Result<u64> {
        let began = Instant::now();
        let nothing = |error: io::Error| match error.kind() {
            ErrorKind::WouldBlock => {
                format!("waited {:.1} s in vain for the answer to a publication", began.elapsed().as_secs_f64())
            }
            _ => format!("no answer to a publication: {error}"),
        };
        self.socket.write_all(request).map_err(nothing)?;
        self.answer.clear();
        let mut piece = [0; 4096];
        loop {
            let read = self.socket.read(&mut piece).map_err(nothing)?;
            if read == 0 {
                return Err("the server closed the publisher's connection".into());
            }
            self.answer.extend_from_slice(&piece[..read]);
            if let Some(body) = whole_body(&self.answer)? {
                self.answered.fetch_add(1, Ordering::Relaxed);
                return sequence_in(body);
            }
        }
    }
}

/// The body of an answer by its Content-Length, once all of it is there. Anything but 200 is an error.
fn whole_body(answer: &[u8]) -> Result<Option<&[u8]>> {
    let Some(end) = memchr::memmem::find(answer, b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&answer[..end])?;
    let length = head.lines().skip(1).find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    let length = length.ok_or("an answer to a publication without Content-Length")??;
    let body = &answer[end + 4..];
    if body.len() < length {
        return Ok(None);
    }
    if !head.starts_with("HTTP/1.1 200") {
        let status = head.lines().next().unwrap_or_default();
        return Err(format!("a publication was answered {status}: {}", String::from_utf8_lossy(body)).into());
    }
    Ok(Some(body))
}

fn sequence_in(body: &[u8]) -> Result<u64> {
    #[derive(serde::Deserialize)]
    struct Answer {
        id: String,
    }
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|error| format!("an answer that names no id: {error}: {}", String::from_utf8_lossy(body)))?;
    let (_, seq) = split_id(answer.id.as_bytes())
        .ok_or_else(|| format!("an id that is not <epoch>-<sequence>: {:?}", answer.id))?;
    Ok(seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_when_it_is_whole() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{\"id\":\"e-f-7\"}";
        for cut in 0..answer.len() {
            assert!(whole_body(&answer[..cut]).expect("readable").is_none(), "{cut}");
        }
        let body = whole_body(answer).expect("a 200").expect("whole");
        assert_eq!(sequence_in(body).expect("readable"), 7);
    }

    #[test]
    fn only_200_is_success() {
        let answer = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 4\r\n\r\nbusy";
        assert!(whole_body(answer).expect_err("not a 200").to_string().contains("429"));
        assert!(whole_body(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(sequence_in(b"{\"success\":true}").is_err());
    }

    #[test]
    fn requests_differ_only_in_address_and_number() {
        let mut request = Request::new(330);
        let first = request.make(&Address::topic("a"), 1).len();
        assert_eq!(request.make(&Address::topic("b"), 99_999_999).len(), first);
    }
}
