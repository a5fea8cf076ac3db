//! What all integration tests share: the real binary as a process of its own, and a client that knows nothing of the
//! crate.
//!
//! The client is written from the texts, so that it errs on its own: HTTP/1.1 framing from RFC 9112 (sections 4 to 7),
//! Server-Sent Events from WHATWG HTML, section 9.2.6 ("Interpreting an event stream"). It is stricter than a browser
//! where the broker has no excuse: a chunk has no extension, a head's lines end in CRLF, nothing follows the body's
//! end.

#![allow(dead_code, reason = "every test file is a crate of its own, and none uses all of this")]

use std::collections::VecDeque;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything that must happen may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long to look for something that must not happen.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);

/// The stream's path.
pub(crate) const EVENTS: &str = "/api/v1/events";

/// The publisher's path.
pub(crate) const BROADCAST: &str = "/api/v1/events/broadcast";

/// Waits until `look` gives something; panics with `what` where it does not in time.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until `holds` does.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, || holds().then_some(()));
}

/// Random numbers from a fixed seed (splitmix64), the same in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// One of the files of `deploy/`, as it is delivered.
#[track_caller]
pub(crate) fn deployed(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

// ---- the server

/// The binary with nothing of this process's settings in its environment.
pub(crate) fn fanfare() -> Command {
    clean(Command::new(env!("CARGO_BIN_EXE_fanfare")))
}

/// Takes out of a command's environment what would be taken for settings.
pub(crate) fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("FANFARE_")
            || ["SERVICE_PORT", "ENVIRONMENT", "JWT_SECRET", "CORS_ORIGINS", "NOTIFY_SOCKET"].contains(&&*text)
        {
            command.env_remove(&name);
        }
    }
    command
}

/// A running server. It is killed when this is dropped, and a panic in it fails the test.
pub(crate) struct Server {
    child: Child,
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    /// Where it speaks TLS, if it does.
    pub(crate) tls: Option<SocketAddr>,
    /// The first lines that it has greeted with.
    pub(crate) greeting: String,
    log: File,
}

/// A file for a server's log, that goes with it: all that the server has written before it answers can be read then.
fn log_file() -> File {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("log-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let file = File::options().create_new(true).read(true).append(true).open(&path);
    let _ = fs::remove_file(path);
    file.expect("the build's directory can be written to")
}

/// All that was written to a file.
fn text_of(file: &File) -> String {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 16 * 1024]);
    while let Ok(read @ 1..) = file.read_at(&mut chunk, bytes.len() as u64) {
        bytes.extend_from_slice(&chunk[..read]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Server {
    /// Starts the binary on a free port of 127.0.0.1 with these flags.
    #[track_caller]
    pub(crate) fn start(flags: &[&str]) -> Server {
        let mut command = fanfare();
        command.args(["--listen", "127.0.0.1:0"]).args(flags);
        Server::spawn(command)
    }

    /// Starts any command that ends in the server's greeting.
    #[track_caller]
    pub(crate) fn spawn(mut command: Command) -> Server {
        command.stdin(Stdio::null());
        Server::spawn_with_input(command)
    }

    /// The same with the standard input that the command has.
    #[track_caller]
    pub(crate) fn spawn_with_input(mut command: Command) -> Server {
        let log = log_file();
        command.stdout(Stdio::piped()).stderr(log.try_clone().expect("a file"));
        let mut child = command.spawn().expect("the server's binary runs");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut first = String::new();
        stdout.read_line(&mut first).expect("the greeting is text");
        let addr = first.split_once("listening on http://").and_then(|(_, addr)| addr.trim().parse().ok());
        let Some(addr) = addr else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("no greeting but {first:?}; stderr: {}", text_of(&log));
        };
        let mut greeting = first;
        for _ in 0..2 {
            stdout.read_line(&mut greeting).expect("the greeting is text");
        }
        let tls = greeting.split_once("https://").and_then(|(_, rest)| rest.lines().next()?.parse().ok());
        thread::spawn(move || io::copy(&mut stdout, &mut io::sink()));
        Server { child, addr, tls, greeting, log }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        text_of(&self.log)
    }

    /// Whether the process still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it can be asked").is_none()
    }

    /// Sends it a signal by its name, such as `TERM`.
    #[track_caller]
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(sent.expect("kill runs").success(), "the signal {name} could be sent");
        if name == "STOP" {
            wait_until("all threads to stop", || self.threads().all(|stat| stat.contains(") T ")));
        }
    }

    /// Its threads, as `proc_pid_stat(5)` tells of them.
    fn threads(&self) -> impl Iterator<Item = String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it runs");
        tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok())
    }

    /// Waits for the process's end.
    #[track_caller]
    pub(crate) fn wait_for_exit(&mut self, patience: Duration) -> ExitStatus {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be asked") {
                return status;
            }
            assert!(Instant::now() < deadline, "it still ran after {patience:?}; its log: {}", self.log());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Resident memory in kB.
    #[track_caller]
    pub(crate) fn rss_kb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process lives");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has memory");
        line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number of kB")
    }

    /// Processor time it has used, in clock ticks (100 a second on Linux).
    #[track_caller]
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("the process lives");
        // The name in parentheses may hold spaces; utime and stime are the 12th and 13th field after it.
        let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
        let fields: Vec<&str> = fields.split_whitespace().collect();
        fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
    }

    /// Connects.
    #[track_caller]
    pub(crate) fn connect(&self) -> Conn {
        Conn::to(self.addr).expect("it accepts connections")
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub(crate) fn ask(&self, request: &str) -> Answer {
        let mut conn = self.connect();
        conn.send(request.as_bytes());
        let head_only = request.starts_with("HEAD ");
        conn.answer_to(head_only).unwrap_or_else(|error| panic!("{error}: no answer to {request:?}"))
    }

    /// `GET path`.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n"))
    }

    /// The figures.
    #[track_caller]
    pub(crate) fn stats(&self) -> Value {
        let answer = self.get("/api/v1/events/stats");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// One figure, by its JSON pointer.
    #[track_caller]
    pub(crate) fn stat(&self, pointer: &str) -> u64 {
        let stats = self.stats();
        stats.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("no number at {pointer} in {stats}"))
    }

    /// Publishes a body of `application/json`, and gives the answer.
    #[track_caller]
    pub(crate) fn post_json(&self, body: &str) -> Answer {
        self.ask(&post("application/json", body))
    }

    /// Publishes one event; gives its id.
    #[track_caller]
    pub(crate) fn publish(&self, topic: &str, kind: &str, data: &str) -> String {
        self.publisher().publish(topic, kind, data)
    }

    /// A connection for many publishes.
    #[track_caller]
    pub(crate) fn publisher(&self) -> Publisher {
        Publisher { conn: self.connect() }
    }

    /// Opens a stream by the query of its path, such as `topics=a`.
    #[track_caller]
    pub(crate) fn stream(&self, query: &str) -> Stream {
        self.stream_with(query, "")
    }

    /// Opens a stream with further header lines, each ending in CRLF, and reads its `connected`.
    #[track_caller]
    pub(crate) fn stream_with(&self, query: &str, lines: &str) -> Stream {
        let mut stream = Stream::open(self.connect(), query, lines);
        assert_eq!(stream.head.status, 200, "{:?}", stream.head);
        stream.connected = stream.expect("connected");
        stream
    }

    /// Waits until so many streams are counted.
    #[track_caller]
    pub(crate) fn wait_for_clients(&self, n: u64) {
        wait_until(&format!("{n} connected clients"), || self.stat("/connected_clients") == n);
    }

    /// Panics unless it lives, answers, is ready, and has logged no panic.
    #[track_caller]
    pub(crate) fn assert_well(&mut self) {
        assert!(self.is_running(), "the server died; its log: {}", self.log());
        assert_eq!(self.get("/ready").status, 200);
        assert_eq!(self.stats()["status"], "healthy");
        assert!(!self.log().contains("panicked"), "a panic in the server: {}", self.log());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = self.log();
        if !thread::panicking() {
            assert!(!log.contains("panicked"), "a panic in the server: {log}");
        }
    }
}

/// A publish request's text.
pub(crate) fn post(content_type: &str, body: &str) -> String {
    format!(
        "POST {BROADCAST} HTTP/1.1\r\nHost: t\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A kept connection that publishes.
pub(crate) struct Publisher {
    /// The connection.
    pub(crate) conn: Conn,
}

impl Publisher {
    /// Publishes one event; gives its id.
    #[track_caller]
    pub(crate) fn publish(&mut self, topic: &str, kind: &str, data: &str) -> String {
        self.post(&format!("{{\"topic\":\"{topic}\",\"type\":\"{kind}\",\"data\":{data}}}"))
    }

    /// Publishes a body of JSON; gives the last id.
    #[track_caller]
    pub(crate) fn post(&mut self, body: &str) -> String {
        self.conn.send(post("application/json", body).as_bytes());
        let answer = self.conn.answer().expect("a publish is answered");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["id"].as_str().expect("an answer has an id").to_owned()
    }
}

/// An event in JSON whose data is `{"n":n}`.
pub(crate) fn numbered(topic: &str, n: usize) -> String {
    format!("{{\"topic\":\"{topic}\",\"type\":\"tick\",\"data\":{{\"n\":{n}}}}}")
}

/// An id's two parts.
#[track_caller]
pub(crate) fn parts(id: &str) -> (&str, u64) {
    let (epoch, seq) = id.rsplit_once('-').unwrap_or_else(|| panic!("{id:?} has no hyphen"));
    (epoch, seq.parse().unwrap_or_else(|_| panic!("{id:?} ends in no number")))
}

/// Percent-encodes all but letters and digits (RFC 3986, section 2.1).
pub(crate) fn percent_encoded(text: &str) -> String {
    let encoded = text.bytes().map(|b| match b {
        b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    });
    encoded.collect()
}

// ---- HTTP

/// A connection, seen as bytes.
pub(crate) struct Conn {
    /// The socket.
    pub(crate) socket: TcpStream,
    /// What was read and not yet used.
    buf: Vec<u8>,
}

/// An answer with its body.
#[derive(Clone, Default)]
pub(crate) struct Answer {
    /// The status line as it came.
    pub(crate) line: String,
    /// Its status.
    pub(crate) status: u16,
    /// The header fields in their order.
    pub(crate) fields: Vec<(String, String)>,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// A field by its name in any case; all of them, joined, if it repeats.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        let values: Vec<&str> =
            self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect();
        if values.is_empty() { None } else { Some(values.join(", ")) }
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {:?}", self.line, self.fields, self.text())
    }
}

impl Conn {
    /// Connects.
    pub(crate) fn to(addr: SocketAddr) -> io::Result<Conn> {
        let socket = TcpStream::connect(addr)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Conn { socket, buf: Vec::new() })
    }

    /// Sends bytes.
    #[track_caller]
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the server takes what it is sent");
    }

    /// Ends this side.
    pub(crate) fn half_close(&self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Reads some more; `Ok(0)` at the connection's end.
    pub(crate) fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 16 * 1024];
        loop {
            match self.socket.read(&mut chunk) {
                // A read with a deadline is interrupted where the machine was halted meanwhile (signal(7)).
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(n) => {
                    self.buf.extend_from_slice(&chunk[..n]);
                    return Ok(n);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn need(&mut self, what: &str) -> io::Result<()> {
        match self.fill() {
            Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("the connection ended before {what}"))),
            Ok(_) => Ok(()),
            Err(error) => Err(io::Error::new(error.kind(), format!("{error}, waiting for {what}"))),
        }
    }

    /// Reads an answer's head.
    pub(crate) fn head(&mut self) -> io::Result<Answer> {
        let end = loop {
            if let Some(at) = find(&self.buf, b"\r\n\r\n") {
                break at;
            }
            self.need("the end of a head")?;
        };
        let text = String::from_utf8(self.buf.drain(..end + 4).collect()).map_err(io::Error::other)?;
        let mut lines = text.trim_end_matches("\r\n\r\n").split("\r\n");
        let line = lines.next().unwrap_or_default().to_owned();
        let mut words = line.splitn(3, ' ');
        let version = words.next().unwrap_or_default();
        let status = words.next().and_then(|word| word.parse().ok());
        let Some(status) = status.filter(|_| version == "HTTP/1.1" || version == "HTTP/1.0") else {
            return Err(io::Error::other(format!("no status line: {line:?}")));
        };
        let mut fields = Vec::new();
        for field in lines {
            let split = field.split_once(':').filter(|(name, _)| {
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
            });
            let Some((name, value)) = split.filter(|(_, v)| !v.contains(['\r', '\n', '\0'])) else {
                return Err(io::Error::other(format!("no header field: {field:?}")));
            };
            fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
        Ok(Answer { line, status, fields, body: Vec::new() })
    }

    /// Reads an answer with its body.
    pub(crate) fn answer(&mut self) -> io::Result<Answer> {
        self.answer_to(false)
    }

    /// The same; an answer to `HEAD` has no body whatever its fields say (RFC 9112, section 6.3).
    pub(crate) fn answer_to(&mut self, head_only: bool) -> io::Result<Answer> {
        let mut answer = self.head()?;
        while answer.status == 100 {
            answer = self.head()?;
        }
        if head_only || matches!(answer.status, 204 | 304) {
            return Ok(answer);
        }
        if answer.field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            let mut body = Body::chunked();
            while !body.is_complete() {
                let bytes = std::mem::take(&mut self.buf);
                answer.body.extend(body.decode(&bytes).map_err(io::Error::other)?);
                if !body.is_complete() {
                    self.need("the end of a chunked body")?;
                }
            }
        } else if let Some(length) = answer.field("content-length") {
            let length = length.parse::<usize>().map_err(io::Error::other)?;
            while self.buf.len() < length {
                self.need("the end of a body")?;
            }
            answer.body = self.buf.drain(..length).collect();
        } else {
            while self.fill()? > 0 {}
            answer.body = std::mem::take(&mut self.buf);
        }
        Ok(answer)
    }

    /// Reads to the connection's end, or its reset.
    pub(crate) fn drain(&mut self) -> Vec<u8> {
        loop {
            match self.fill() {
                Ok(0) => break,
                Ok(_) => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    panic!("the connection did not end; it gave {:?}", String::from_utf8_lossy(&self.buf))
                }
                Err(_) => break,
            }
        }
        std::mem::take(&mut self.buf)
    }
}

/// Where `needle` begins in `hay`.
pub(crate) fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}

/// Takes a body's transfer coding off, piece by piece.
pub(crate) struct Body {
    state: BodyState,
    line: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
enum BodyState {
    /// No coding: the connection's end is the body's.
    Whole,
    Size,
    Data(usize),
    /// CR LF behind a chunk's data, so many of them still to come.
    AfterData(usize),
    /// The empty line behind the last chunk.
    Trailer,
    Complete,
}

impl Body {
    /// A chunked body.
    pub(crate) fn chunked() -> Body {
        Body { state: BodyState::Size, line: Vec::new() }
    }

    /// A body that ends with its connection.
    pub(crate) fn whole() -> Body {
        Body { state: BodyState::Whole, line: Vec::new() }
    }

    /// Whether its terminating chunk has come.
    pub(crate) fn is_complete(&self) -> bool {
        self.state == BodyState::Complete
    }

    /// Whether no chunk is half there.
    pub(crate) fn is_between_chunks(&self) -> bool {
        matches!(self.state, BodyState::Whole | BodyState::Complete)
            || self.state == BodyState::Size && self.line.is_empty()
    }

    /// The data in these bytes.
    ///
    /// # Errors
    /// Where the coding is broken.
    pub(crate) fn decode(&mut self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let mut data = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            match &mut self.state {
                BodyState::Whole => {
                    data.extend_from_slice(&bytes[at..]);
                    return Ok(data);
                }
                BodyState::Complete => return Err(format!("bytes behind the end: {:?}", show(&bytes[at..]))),
                BodyState::Data(left) => {
                    let n = (*left).min(bytes.len() - at);
                    data.extend_from_slice(&bytes[at..at + n]);
                    *left -= n;
                    at += n;
                    if *left == 0 {
                        self.state = BodyState::AfterData(2);
                    }
                    continue;
                }
                BodyState::AfterData(left) => {
                    if byte != b"\n\r"[*left - 1] {
                        return Err(format!("{:?} where a chunk's CRLF should be", show(&bytes[at..])));
                    }
                    *left -= 1;
                    if *left == 0 {
                        self.state = BodyState::Size;
                    }
                }
                BodyState::Size | BodyState::Trailer => {
                    self.line.push(byte);
                    if self.line.ends_with(b"\r\n") {
                        self.line.truncate(self.line.len() - 2);
                        self.state = self.end_of_line()?;
                        self.line.clear();
                    } else if self.line.len() > 16 {
                        return Err(format!("no chunk size: {:?}", show(&self.line)));
                    }
                }
            }
            at += 1;
        }
        Ok(data)
    }

    fn end_of_line(&self) -> Result<BodyState, String> {
        if self.state == BodyState::Trailer {
            return if self.line.is_empty() { Ok(BodyState::Complete) } else { Err("a trailer field".to_owned()) };
        }
        let digits = std::str::from_utf8(&self.line).unwrap_or_default();
        let hex = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
        match usize::from_str_radix(digits, 16) {
            Ok(0) if hex => Ok(BodyState::Trailer),
            Ok(size) if hex => Ok(BodyState::Data(size)),
            _ => Err(format!("no chunk size: {:?}", show(&self.line))),
        }
    }
}

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned()
}

// ---- Server-Sent Events

/// An event as a page would see it, and what its block said besides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SseEvent {
    /// `event.type`.
    pub(crate) kind: String,
    /// `event.data`.
    pub(crate) data: String,
    /// `event.lastEventId`: this block's id, or the last one before it.
    pub(crate) last_event_id: String,
    /// The block's own `id:`.
    pub(crate) id: Option<String>,
    /// The block's own `retry:`, in milliseconds.
    pub(crate) retry: Option<u64>,
}

impl SseEvent {
    /// The data as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// `data.data.n`, as [`numbered`] publishes it.
    #[track_caller]
    pub(crate) fn n(&self) -> usize {
        let n = self.json()["data"]["n"].as_u64();
        usize::try_from(n.unwrap_or_else(|| panic!("not numbered: {self:?}"))).expect("a small number")
    }

    /// The sequence number in its own id.
    #[track_caller]
    pub(crate) fn seq(&self) -> u64 {
        parts(self.id.as_deref().unwrap_or_else(|| panic!("no id: {self:?}"))).1
    }
}

/// Interprets an event stream, fed in pieces of any size (WHATWG HTML, section 9.2.6).
#[derive(Default)]
pub(crate) struct SseParser {
    line: Vec<u8>,
    /// The last byte was a CR: an LF now belongs to it.
    after_cr: bool,
    /// Whether anything has been read: a byte order mark counts only at the very beginning.
    begun: bool,
    last_event_id: String,
    kind: String,
    data: String,
    id: Option<String>,
    retry: Option<u64>,
    block: bool,
    /// Comments, in their order, without the colon.
    pub(crate) comments: Vec<String>,
    /// Blocks that ended without data: an event stream of ours has none but comments.
    pub(crate) empty_blocks: usize,
    events: VecDeque<SseEvent>,
}

impl SseParser {
    /// Interprets more bytes.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let after_cr = std::mem::take(&mut self.after_cr);
            match byte {
                b'\n' if after_cr => {}
                b'\n' => self.end_line(),
                b'\r' => {
                    self.after_cr = true;
                    self.end_line();
                }
                _ => self.line.push(byte),
            }
        }
    }

    /// The next event, if all of it is there.
    pub(crate) fn next(&mut self) -> Option<SseEvent> {
        self.events.pop_front()
    }

    /// Whether nothing of an unfinished block was read.
    pub(crate) fn is_between_blocks(&self) -> bool {
        self.line.is_empty() && !self.block
    }

    fn end_line(&mut self) {
        let bytes = std::mem::take(&mut self.line);
        let text = String::from_utf8(bytes).expect("an event stream is UTF-8");
        let first = !std::mem::replace(&mut self.begun, true);
        let line = if first { text.strip_prefix('\u{feff}').unwrap_or(&text) } else { &text };
        if line.is_empty() {
            return self.dispatch();
        }
        // A comment begins no block.
        self.block |= !line.starts_with(':');
        let (field, value) = match line.split_once(':') {
            Some((field, value)) => (field, value.strip_prefix(' ').unwrap_or(value)),
            None => (line, ""),
        };
        match field {
            "" => self.comments.push(value.to_owned()),
            "event" => self.kind = value.to_owned(),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => {
                self.id = Some(value.to_owned());
            }
            "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                self.retry = value.parse().ok();
            }
            _ => {}
        }
    }

    fn dispatch(&mut self) {
        let mut data = std::mem::take(&mut self.data);
        let kind = std::mem::take(&mut self.kind);
        let (id, retry) = (self.id.take(), self.retry.take());
        // Only now: a block that the connection's end cuts off leaves the last id as it was.
        if let Some(id) = &id {
            self.last_event_id.clone_from(id);
        }
        if !std::mem::take(&mut self.block) {
            return;
        }
        if data.is_empty() {
            self.empty_blocks += usize::from(!kind.is_empty() || id.is_some() || retry.is_some());
            return;
        }
        data.pop();
        let kind = if kind.is_empty() { "message".to_owned() } else { kind };
        self.events.push_back(SseEvent { kind, data, last_event_id: self.last_event_id.clone(), id, retry });
    }
}

/// How a stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// With the terminating chunk (or, on HTTP/1.0, with the connection), between two blocks.
    Clean,
    /// In any other way, which is described.
    Torn(String),
}

/// An open stream.
pub(crate) struct Stream {
    /// The connection.
    pub(crate) conn: Conn,
    /// The response's head.
    pub(crate) head: Answer,
    /// Its first event.
    pub(crate) connected: SseEvent,
    /// The body so far, its coding taken off.
    pub(crate) text: Vec<u8>,
    /// The interpreter.
    pub(crate) sse: SseParser,
    body: Body,
    end: Option<End>,
    /// The last id among the events that were handed out.
    last_id: String,
    /// The block `end`, with which the broker says why it ends the stream.
    pub(crate) bye: Option<SseEvent>,
}

impl Stream {
    /// Sends the request and reads the response's head.
    #[track_caller]
    pub(crate) fn open(mut conn: Conn, query: &str, lines: &str) -> Stream {
        let mark = if query.is_empty() { "" } else { "?" };
        conn.send(format!("GET {EVENTS}{mark}{query} HTTP/1.1\r\nHost: t\r\n{lines}\r\n").as_bytes());
        Stream::over(conn)
    }

    /// Reads the response's head off a connection that was sent a request for a stream.
    #[track_caller]
    pub(crate) fn over(mut conn: Conn) -> Stream {
        let head = conn.head().expect("a request for a stream is answered");
        let chunked = head.field("transfer-encoding").is_some();
        let mut stream = Stream {
            conn,
            head,
            connected: SseEvent::default(),
            text: Vec::new(),
            sse: SseParser::default(),
            body: if chunked { Body::chunked() } else { Body::whole() },
            end: None,
            last_id: String::new(),
            bye: None,
        };
        stream.take_in();
        stream
    }

    /// Interprets what the connection has read.
    fn take_in(&mut self) {
        let bytes = std::mem::take(&mut self.conn.buf);
        match self.body.decode(&bytes) {
            Ok(data) => {
                self.sse.feed(&data);
                self.text.extend_from_slice(&data);
            }
            Err(error) => self.end = Some(End::Torn(error)),
        }
    }

    /// Reads once, at most until `deadline`. False if nothing came by then, or the stream is over.
    fn read_until(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || self.end.is_some() {
            return false;
        }
        let _ = self.conn.socket.set_read_timeout(Some(left));
        match self.conn.fill() {
            Ok(0) => {
                let whole = self.body.state == BodyState::Whole;
                let clean = (whole || self.body.is_complete()) && self.sse.is_between_blocks();
                self.end = Some(if clean { End::Clean } else { End::Torn("the connection's end".to_owned()) });
            }
            Ok(_) => self.take_in(),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => return false,
            Err(e) => self.end = Some(End::Torn(e.to_string())),
        }
        true
    }

    /// Hands out the next event that has been read.
    fn pop(&mut self) -> Option<SseEvent> {
        assert!(self.bye.is_none() || self.sse.events.is_empty(), "something comes behind {:?}", self.bye);
        let event = self.sse.next()?;
        self.last_id.clone_from(&event.last_event_id);
        if event.kind == "end" {
            self.bye = Some(event);
            return None;
        }
        Some(event)
    }

    /// The reason that the broker gave for ending the stream.
    #[track_caller]
    pub(crate) fn reason(&self) -> String {
        let bye = self.bye.as_ref().expect("the stream was told why it ends");
        bye.json()["data"]["reason"].as_str().expect("a reason").to_owned()
    }

    /// The next event that comes within `patience`.
    pub(crate) fn next_within(&mut self, patience: Duration) -> Option<SseEvent> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(event) = self.pop() {
                return Some(event);
            }
            if !self.read_until(deadline) && (self.end.is_some() || Instant::now() >= deadline) {
                return self.pop();
            }
        }
    }

    /// The next event, heartbeats included.
    #[track_caller]
    pub(crate) fn next_any(&mut self) -> SseEvent {
        match self.next_within(PATIENCE) {
            Some(event) => event,
            None => panic!("no event came; the stream's end: {:?}", self.end),
        }
    }

    /// The next event that is no heartbeat.
    #[track_caller]
    pub(crate) fn next(&mut self) -> SseEvent {
        loop {
            let event = self.next_any();
            if event.kind != "heartbeat" {
                return event;
            }
        }
    }

    /// The next event, which must be of this type.
    #[track_caller]
    pub(crate) fn expect(&mut self, kind: &str) -> SseEvent {
        let event = self.next();
        assert_eq!(event.kind, kind, "{event:?}");
        event
    }

    /// The numbers of the next `count` events, which must all be `tick`s of [`numbered`].
    #[track_caller]
    pub(crate) fn numbers(&mut self, count: usize) -> Vec<usize> {
        (0..count).map(|_| self.expect("tick").n()).collect()
    }

    /// Panics if an event other than a heartbeat comes within [`SILENCE`].
    #[track_caller]
    pub(crate) fn expect_nothing(&mut self) {
        let deadline = Instant::now() + SILENCE;
        while let Some(event) = self.next_within(deadline.saturating_duration_since(Instant::now())) {
            assert_eq!(event.kind, "heartbeat", "unexpected: {event:?}");
        }
        assert_eq!(self.end, None, "the stream is over");
    }

    /// Reads to the stream's end: the events that still came, and how it ended.
    #[track_caller]
    pub(crate) fn read_to_end(&mut self) -> (Vec<SseEvent>, End) {
        let deadline = Instant::now() + PATIENCE;
        while self.read_until(deadline) {}
        let Some(end) = self.end.clone() else { panic!("the stream did not end within {PATIENCE:?}") };
        let events = std::iter::from_fn(|| self.pop()).collect();
        (events, end)
    }

    /// Whether it is open and nothing waits to be read.
    pub(crate) fn conn_is_quiet(&mut self) -> bool {
        self.next_within(Duration::from_millis(1)).is_none() && self.end.is_none()
    }

    /// Whether it has ended, as far as was read.
    pub(crate) fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// The id to resume from, as a browser keeps it: that of the last event that was handed out, or before it.
    pub(crate) fn last_event_id(&self) -> &str {
        &self.last_id
    }

    /// The body so far as text.
    pub(crate) fn body(&self) -> String {
        String::from_utf8(self.text.clone()).expect("an event stream is UTF-8")
    }
}
