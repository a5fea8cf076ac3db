//! Fan-out over real sockets: one event from its POST until every stream's client has read it, at 1 to 10,000
//! streams, beside the plain send loop (`fanfare-load plain`), which is the least that any server can do.
//!
//! The servers are processes of their own, so that each side has its own file descriptors; the clients and the
//! measuring are in this one, so figures include the cost of reading.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mio::{Events, Interest, Poll, Token};

const STREAMS: [usize; 5] = [1, 10, 100, 1_000, 10_000];

/// A server under test; it ends with this value.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(program: &str, args: &[&str]) -> Server {
        let mut process = Command::new(program)
            .args(args)
            .args(["--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("its output is piped");
        BufReader::new(stdout).read_line(&mut line).expect("it says where it listens");
        let address = line.trim().rsplit_once("http://").expect("an address").1.parse().expect("an address");
        Server { process, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A number of open streams, and a connection to publish over.
struct Audience {
    poll: Poll,
    events: Events,
    streams: Vec<Stream>,
    publisher: TcpStream,
}

struct Stream {
    socket: mio::net::TcpStream,
    /// The last byte read, since an event's end may come in two parts.
    last: u8,
}

impl Audience {
    fn open(address: SocketAddr, streams: usize) -> Audience {
        let poll = Poll::new().expect("a poll");
        let publisher = TcpStream::connect(address).expect("a connection to publish over");
        publisher.set_nodelay(true).expect("an option of a socket");
        let mut audience = Audience { poll, events: Events::with_capacity(1024), streams: Vec::new(), publisher };
        for n in 0..streams {
            let mut socket = TcpStream::connect(address).expect("a connection");
            socket.write_all(b"GET /api/v1/events?topics=bench HTTP/1.1\r\nHost: bench\r\n\r\n").expect("a request");
            socket.set_nonblocking(true).expect("an option of a socket");
            let mut socket = mio::net::TcpStream::from_std(socket);
            audience.poll.registry().register(&mut socket, Token(n), Interest::READABLE).expect("a registration");
            audience.streams.push(Stream { socket, last: 0 });
        }
        audience.receive();
        audience
    }

    /// Reads until every stream has had one more event (or the one that it begins with).
    fn receive(&mut self) {
        let mut buf = [0; 16 * 1024];
        let mut missing = self.streams.len();
        while missing > 0 {
            self.poll.poll(&mut self.events, Some(Duration::from_secs(10))).expect("a poll");
            assert!(!self.events.is_empty(), "{missing} streams got nothing for 10 s");
            for event in &self.events {
                missing -= self.streams[event.token().0].read_all(&mut buf);
            }
        }
    }

    fn publish(&mut self) {
        let body = format!(r#"{{"topic":"bench","type":"t","data":{{"timestamp":0,"note":"{:0170}"}}}}"#, 0);
        let head = "POST /api/v1/events/broadcast HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n";
        let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        self.publisher.write_all(request.as_bytes()).expect("a request sent");
        let mut answer = [0; 1024];
        let n = self.publisher.read(&mut answer).expect("an answer");
        assert!(answer[..n].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..n]));
    }
}

impl Stream {
    /// Reads what there is; gives the number of events that ended in it.
    fn read_all(&mut self, buf: &mut [u8]) -> usize {
        let mut events = 0;
        loop {
            match self.socket.read(buf) {
                Ok(0) => panic!("a stream ended"),
                Ok(n) => {
                    for &byte in &buf[..n] {
                        events += usize::from(byte == b'\n' && self.last == b'\n');
                        self.last = byte;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return events,
                Err(e) => panic!("a stream broke: {e}"),
            }
        }
    }
}

fn fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("one event to all");
    for streams in STREAMS {
        group.throughput(Throughput::Elements(streams as u64));
        group.sample_size(if streams < 1_000 { 50 } else { 10 });
        let servers = [("fanfare", env!("CARGO_BIN_EXE_fanfare"), &[][..]), ("plain loop", LOAD, &["plain"][..])];
        for (name, program, args) in servers {
            let server = Server::start(program, args);
            let mut audience = Audience::open(server.address, streams);
            group.bench_function(BenchmarkId::new(name, streams), |b| {
                b.iter(|| {
                    audience.publish();
                    audience.receive();
                });
            });
        }
    }
    group.finish();
}

const LOAD: &str = env!("CARGO_BIN_EXE_fanfare-load");

criterion_group!(benches, fan_out);
criterion_main!(benches);
