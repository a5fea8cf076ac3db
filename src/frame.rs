//! The bytes of the stream: the only file that writes Server-Sent Events.
//!
//! A frame is one event's text as of WHATWG HTML, "Server-sent events", wrapped in one chunk of HTTP/1.1 (RFC 9112,
//! section 7.1). Both forms share one allocation, the plain text being the middle of the chunk:
//!
//! ```text
//! …room…  1a3 CRLF  event: … LF data: … LF id: k3j2-17 LF LF  CRLF
//!         │         └─────────────── plain ─────────────────┘     │
//!         └─────────────────────── chunked ───────────────────────┘
//! ```
//!
//! All but the id is written before the event has its place in the order; sealing it, while the log is locked, is a
//! few bytes' copy at either end, and nothing moves. The id stands last for the clients' sake, too: at least one
//! library takes it for its place to resume from as soon as it has read the line, and would miss an event whose
//! frame was torn between its id and its data.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::ops::Range;

use bytes::Bytes;
use serde::Serialize;

use crate::clock::Timestamp;
use crate::id::{Epoch, EventId};

/// How a connection marks where its body's parts begin and end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Framing {
    /// HTTP/1.1 with chunked transfer coding: every frame is a chunk.
    Chunked,
    /// The frames alone: HTTP/1.0, where the connection's end is the body's, and every carrier that frames by itself.
    Plain,
}

impl Framing {
    /// The bytes that end the body.
    pub fn terminator(self) -> &'static [u8] {
        match self {
            Framing::Chunked => b"0\r\n\r\n",
            Framing::Plain => b"",
        }
    }
}

/// One frame, shared by every stream that gets it.
#[derive(Debug, Clone)]
pub struct Frame {
    bytes: Bytes,
    /// Where the chunk begins; its text begins after [`ROOM`], and ends two bytes (CRLF) before the end.
    chunk_at: u8,
}

/// Room in front of an unsealed frame, for its chunk's size: at most 8 digits, and CRLF.
const ROOM: usize = 8 + 2;

/// Room behind it: `id: `, epoch, hyphen, 20 digits, two line ends, CRLF.
const END: usize = 4 + Epoch::MAX + 1 + 20 + 2 + 2;

const CRLF: &[u8] = b"\r\n";

const EVENT_FIELD: &[u8] = b"event: ";

impl Frame {
    /// The frame as `framing` has it.
    pub fn bytes(&self, framing: Framing) -> &[u8] {
        &self.bytes[self.range(framing)]
    }

    /// The same, shared, from its byte `from` on.
    pub fn share(&self, framing: Framing, from: usize) -> Bytes {
        let range = self.range(framing);
        self.bytes.slice(range.start + from..range.end)
    }

    /// The memory it holds.
    pub fn footprint(&self) -> usize {
        self.bytes.len()
    }

    /// The event's type, read off its first line; that of an event has at most 128 bytes.
    pub fn kind(&self) -> &[u8] {
        let text = self.bytes(Framing::Plain);
        let kind = text.strip_prefix(EVENT_FIELD).unwrap_or_default();
        &kind[..memchr::memchr(b'\n', kind).unwrap_or(kind.len())]
    }

    fn range(&self, framing: Framing) -> Range<usize> {
        match framing {
            Framing::Chunked => usize::from(self.chunk_at)..self.bytes.len(),
            Framing::Plain => ROOM..self.bytes.len() - CRLF.len(),
        }
    }
}

/// A frame that is complete but for its id and its end.
#[derive(Debug)]
pub struct Unsealed {
    buf: Vec<u8>,
}

impl Unsealed {
    fn with_capacity(text: usize) -> Unsealed {
        let mut buf = Vec::with_capacity(ROOM + text + END);
        buf.resize(ROOM, 0);
        Unsealed { buf }
    }

    /// Writes the id and closes the frame.
    pub fn seal(mut self, epoch: &Epoch, seq: u64) -> Frame {
        let mut digits = itoa::Buffer::new();
        for part in ["id: ", epoch.as_str(), "-", digits.format(seq), "\n\n"] {
            self.buf.extend_from_slice(part.as_bytes());
        }
        self.close()
    }

    /// Closes the frame with a place that it does not take itself.
    fn seal_at(mut self, place: EventId<'_>) -> Frame {
        text(&mut self.buf, format_args!("id: {place}\n\n"));
        self.close()
    }

    /// Closes a frame without an id, so that no client resumes from it.
    fn seal_without_id(mut self) -> Frame {
        self.buf.push(b'\n');
        self.close()
    }

    /// Makes a chunk of it: the line end behind it, the size right-aligned in the room before it.
    fn close(mut self) -> Frame {
        let mut size = self.buf.len() - ROOM;
        self.buf.extend_from_slice(CRLF);
        let mut at = ROOM - CRLF.len();
        self.buf[at..ROOM].copy_from_slice(CRLF);
        while at == ROOM - CRLF.len() || size > 0 {
            at -= 1;
            self.buf[at] = b"0123456789abcdef"[size % 16];
            size /= 16;
        }
        Frame { bytes: Bytes::from(self.buf), chunk_at: at as u8 }
    }

    /// The `event:` line and the envelope around `data`: the one place that knows the JSON's outer shape.
    fn envelope(&mut self, kind: &str, topic: Option<&str>, now: Timestamp, data: impl FnOnce(&mut Vec<u8>)) {
        let buf = &mut self.buf;
        buf.extend_from_slice(EVENT_FIELD);
        buf.extend_from_slice(kind.as_bytes());
        buf.extend_from_slice(b"\ndata: {\"type\":");
        json(buf, &kind);
        buf.extend_from_slice(b",\"data\":");
        data(buf);
        text(buf, format_args!(",\"timestamp\":\"{}\"", now.nanos()));
        if let Some(topic) = topic {
            buf.extend_from_slice(b",\"topic\":");
            json(buf, &topic);
        }
        buf.extend_from_slice(b"}\n");
    }
}

fn json(buf: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(&mut *buf, value).expect("writing strings and numbers to memory cannot fail");
}

fn text(buf: &mut Vec<u8>, args: fmt::Arguments<'_>) {
    buf.write_fmt(args).expect("writing to memory cannot fail");
}

/// An event's payload, from one of the two ways of publishing.
#[derive(Debug, Clone, Copy)]
pub enum Data<'a> {
    /// A JSON object as it was sent, known to be well formed.
    Object {
        /// The text.
        raw: &'a str,
        /// Whether it has no key.
        empty: bool,
        /// Whether it has a key `timestamp`.
        has_timestamp: bool,
    },
    /// The text that becomes `data.message`.
    Message(Option<&'a str>),
}

/// Room for an envelope around a payload: the fixed text and two timestamps are 125 bytes.
const ENVELOPE: usize = 128;

/// Encodes a published event.
pub fn event(topic: &str, kind: &str, data: Data<'_>, now: Timestamp) -> Unsealed {
    let payload = match data {
        Data::Object { raw, .. } => raw.len(),
        Data::Message(message) => message.map_or(0, str::len),
    };
    let mut frame = Unsealed::with_capacity(ENVELOPE + 2 * kind.len() + topic.len() + payload);
    frame.envelope(kind, Some(topic), now, |buf| match data {
        Data::Object { raw, has_timestamp: true, .. } => push_on_one_line(buf, raw),
        Data::Object { raw, empty, .. } => {
            let open = raw.strip_suffix('}').unwrap_or(raw);
            push_on_one_line(buf, open);
            text(buf, format_args!("{}\"timestamp\":\"{}\"}}", if empty { "" } else { "," }, now.seconds()));
        }
        Data::Message(message) => {
            buf.push(b'{');
            if let Some(message) = message {
                buf.extend_from_slice(b"\"message\":");
                json(buf, &message);
                buf.push(b',');
            }
            text(buf, format_args!("\"timestamp\":\"{}\"}}", now.seconds()));
        }
    });
    frame
}

/// Copies JSON so that it stays one `data:` line. Well-formed JSON has line ends only between tokens, where a space
/// means the same.
fn push_on_one_line(buf: &mut Vec<u8>, raw: &str) {
    let from = buf.len();
    buf.extend_from_slice(raw.as_bytes());
    for byte in &mut buf[from..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}

/// A stream's first frame, `connected`.
#[derive(Debug, Clone, Copy)]
pub struct Connected<'a> {
    /// Names this stream, in logs too.
    pub client_id: &'a str,
    /// The topics as they were asked for.
    pub topics: &'a str,
    /// The place the stream goes on from: a client cut off before its first event resumes there.
    pub id: EventId<'a>,
    /// How long a client should wait before it reconnects, in milliseconds.
    pub retry_ms: u64,
}

/// The first frame of a stream.
///
/// `retry:` goes inside it: alone in a block, several client libraries report it as an empty event.
pub fn connected(connected: Connected<'_>, now: Timestamp) -> Frame {
    #[derive(Serialize)]
    struct Payload<'a> {
        client_id: &'a str,
        message: &'static str,
        topics: &'a str,
    }
    let Connected { client_id, topics, id, retry_ms } = connected;
    let payload = Payload { client_id, message: "Connected to Nivo event stream", topics };
    let mut frame = Unsealed::with_capacity(ENVELOPE + 160 + topics.len());
    frame.envelope("connected", None, now, |buf| json(buf, &payload));
    text(&mut frame.buf, format_args!("retry: {retry_ms}\n"));
    frame.seal_at(id)
}

/// How a heartbeat looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum HeartbeatStyle {
    /// An event of type `heartbeat`, as the Go gateway sent it.
    #[default]
    Named,
    /// A comment line: fewer bytes, and pages see nothing of it. A stream with a filter is sent the event instead where
    /// events passed that it was not sent.
    Comment,
}

/// A sign of life. A named one carries the stream's place: a client that was sent none of the events that passed
/// resumes behind them. A comment cannot carry it, since an id counts only in a block, and several client libraries
/// report a block of nothing but an id as an empty event.
pub fn heartbeat(style: HeartbeatStyle, place: EventId<'_>, now: Timestamp) -> Frame {
    match style {
        HeartbeatStyle::Named => {
            let mut frame = Unsealed::with_capacity(ENVELOPE);
            frame.envelope("heartbeat", None, now, |buf| text(buf, format_args!("{{\"timestamp\":{}}}", now.unix_s())));
            frame.seal_at(place)
        }
        HeartbeatStyle::Comment => {
            let mut frame = Unsealed::with_capacity(16);
            // No empty line: two client libraries report one as an event, be there nothing but a comment before it.
            frame.buf.extend_from_slice(b": heartbeat\n");
            frame.close()
        }
    }
}

/// The last frame of a stream that the broker ends. It names the reason, so that a page can do something about it
/// before it comes back, and carries the stream's place. `retry_ms` tells the client when to come back, in
/// milliseconds; without it, that of `connected` still holds.
pub fn end(reason: &str, place: EventId<'_>, retry_ms: Option<u64>, now: Timestamp) -> Frame {
    #[derive(Serialize)]
    struct Payload<'a> {
        reason: &'a str,
    }
    let mut frame = Unsealed::with_capacity(ENVELOPE + 40);
    frame.envelope("end", None, now, |buf| json(buf, &Payload { reason }));
    if let Some(retry_ms) = retry_ms {
        text(&mut frame.buf, format_args!("retry: {retry_ms}\n"));
    }
    frame.seal_at(place)
}

/// Why a stream was refused for now, and when the client may try again.
#[derive(Debug, Clone, Copy)]
pub struct Refusal<'a> {
    /// The reason's code.
    pub code: &'a str,
    /// The reason, for people.
    pub message: &'a str,
    /// Seconds after which a new try makes sense.
    pub retry_after_s: u64,
    /// How long this client should wait, in milliseconds: that long, and a little more by chance, so that not all
    /// come back at once.
    pub retry_ms: u64,
}

/// The only frame of a stream that is refused for a passing reason. `EventSource` gives up for good on any answer but
/// 200, and comes back after a 200 that ends (WHATWG HTML, section 9.2.3). The frame carries no id, so that the client
/// keeps its own place.
pub fn refused(refusal: Refusal<'_>, now: Timestamp) -> Frame {
    #[derive(Serialize)]
    struct Payload<'a> {
        code: &'a str,
        message: &'a str,
        retry_after: u64,
    }
    let Refusal { code, message, retry_after_s, retry_ms } = refusal;
    let payload = Payload { code, message, retry_after: retry_after_s };
    let mut frame = Unsealed::with_capacity(ENVELOPE + 100 + code.len() + message.len());
    frame.envelope("refused", None, now, |buf| json(buf, &payload));
    text(&mut frame.buf, format_args!("retry: {retry_ms}\n"));
    frame.seal_without_id()
}

/// Why a stream could not go on where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// The id is not of this history.
    UnknownEpoch,
    /// Events after it are no longer kept.
    Evicted,
}

impl GapReason {
    /// The reason as it stands on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            GapReason::UnknownEpoch => "unknown_epoch",
            GapReason::Evicted => "evicted",
        }
    }
}

/// Tells a stream that it missed events, and from where it goes on.
pub fn gap(requested: &str, oldest: EventId<'_>, reason: GapReason, now: Timestamp) -> Frame {
    #[derive(Serialize)]
    struct Payload<'a> {
        requested: &'a str,
        oldest: &'a str,
        reason: &'static str,
    }
    let mut oldest_text = String::with_capacity(40);
    write!(oldest_text, "{oldest}").expect("writing to memory cannot fail");
    let payload = Payload { requested, oldest: &oldest_text, reason: reason.as_str() };
    let mut frame = Unsealed::with_capacity(ENVELOPE + 120 + requested.len());
    frame.envelope("gap", None, now, |buf| json(buf, &payload));
    frame.seal_without_id()
}
