//! The slow and complete way to read one stream: a chunk decoder (RFC 9112, section 7.1) before the parser of events that
//! the commands read by too ([`fanfare::sse`]), both incremental, fed whatever a read returned. The broker writes events by
//! other code than this reads them.
//!
//! Most bytes never come here: [`follower`](crate::follower) compares them with a transcript instead. What does come
//! is what differs from stream to stream (`connected`, heartbeats, gaps), and whatever is not as expected.

use fanfare::sse::{self, Event, Item};

/// A chunk-size line or a trailer longer than this is no chunked body, and would go on without end.
const LINE_LIMIT_BYTES: usize = 4 << 20;

/// What a stream sent that is neither chunks nor events.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// An event's name as the contract has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Connected,
    Heartbeat,
    Gap,
    /// Instead of a stream: why there is none.
    Refused,
    /// The last block of a stream: why it ends.
    End,
    Event,
}

impl Kind {
    pub fn of(event_type: &[u8]) -> Self {
        match event_type {
            b"connected" => Self::Connected,
            b"heartbeat" => Self::Heartbeat,
            b"gap" => Self::Gap,
            b"refused" => Self::Refused,
            b"end" => Self::End,
            _ => Self::Event,
        }
    }
}

/// One dispatched event. A comment counts as a heartbeat: that is what they are sent for.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: Kind,
    /// The sequence of its own `id:` field, `None` without one; the epoch is left to the transcript.
    pub seq: Option<u64>,
    /// The publisher's number, see [`number_in`].
    pub number: Option<u64>,
}

/// Splits `<epoch>-<sequence>`.
pub fn split_id(id: &[u8]) -> Option<(&[u8], u64)> {
    let dash = memchr::memrchr(b'-', id)?;
    let digits = std::str::from_utf8(&id[dash + 1..]).ok()?;
    if dash == 0 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((&id[..dash], digits.parse().ok()?))
}

/// The number that [`publisher`](crate::publisher) put into the event's data as `"n":"<digits>"`.
pub fn number_in(data: &[u8]) -> Option<u64> {
    const KEY: &[u8] = b"\"n\":\"";
    let digits = &data[memchr::memmem::find(data, KEY)? + KEY.len()..];
    let end = memchr::memchr(b'"', digits)?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

/// Reads one response body.
#[derive(Debug, Default)]
pub struct Parser {
    chunks: ChunkDecoder,
    events: sse::Parser,
}

impl Parser {
    /// Reads until the next boundary (a chunk's end with no event begun), or until `input` is used up, and returns how
    /// many bytes it took. Stopping there lets the caller go back to comparing.
    pub fn feed(&mut self, input: &[u8], mut on_frame: impl FnMut(Frame, &Item)) -> Result<usize, Malformed> {
        let mut rest = input;
        while !rest.is_empty() && !self.ended() {
            let text = self.chunks.next(&mut rest)?;
            let fed = self.events.feed(text, |item| on_frame(Frame::of(&item), &item));
            fed.map_err(|sse::TooLong| Malformed("an event or a line without end"))?;
            if self.at_boundary() {
                break;
            }
        }
        Ok(input.len() - rest.len())
    }

    /// Between two chunks, with no event begun.
    pub fn at_boundary(&self) -> bool {
        matches!(self.chunks.state, Chunk::Size { digits: 0, .. }) && self.events.is_between_blocks()
    }

    /// The last chunk was read: the response ended cleanly.
    pub fn ended(&self) -> bool {
        matches!(self.chunks.state, Chunk::Ended)
    }
}

#[derive(Debug, Default)]
struct ChunkDecoder {
    state: Chunk,
    line_bytes: usize,
}

#[derive(Debug, Clone, Copy)]
enum Chunk {
    Size { size: usize, digits: u8 },
    Extension { size: usize },
    Data { left: usize },
    DataCr,
    DataLf,
    Trailer { line_is_empty: bool },
    Ended,
}

impl Default for Chunk {
    fn default() -> Self {
        Self::Size { size: 0, digits: 0 }
    }
}

impl ChunkDecoder {
    /// Takes one step from the front of `input`; what it returns is body text, empty for framing.
    fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
        if let Chunk::Data { left } = &mut self.state {
            let (text, rest) = input.split_at((*left).min(input.len()));
            *left -= text.len();
            *input = rest;
            if *left == 0 {
                self.state = Chunk::DataCr;
            }
            return Ok(text);
        }
        let Some((&byte, rest)) = input.split_first() else {
            return Ok(&[]);
        };
        *input = rest;
        self.line_bytes += 1;
        if self.line_bytes > LINE_LIMIT_BYTES {
            return Err(Malformed("a chunk-size line or trailer without end"));
        }
        self.state = match (self.state, byte) {
            (Chunk::Size { size, digits }, b'\n') if digits > 0 => self.data(size),
            (Chunk::Size { size, digits }, b'\r' | b';' | b' ' | b'\t') if digits > 0 => Chunk::Extension { size },
            (Chunk::Size { size, digits }, _) => {
                let digit = (byte as char).to_digit(16);
                match digit {
                    Some(digit) if digits < 8 => Chunk::Size { size: size * 16 + digit as usize, digits: digits + 1 },
                    _ => return Err(Malformed("a chunk size that is not hexadecimal")),
                }
            }
            (Chunk::Extension { size }, b'\n') => self.data(size),
            (Chunk::Extension { size }, _) => Chunk::Extension { size },
            (Chunk::DataCr, b'\r') => Chunk::DataLf,
            (Chunk::DataLf, b'\n') => {
                self.line_bytes = 0;
                Chunk::default()
            }
            (Chunk::DataCr | Chunk::DataLf, _) => {
                return Err(Malformed("a chunk longer than its size"));
            }
            (Chunk::Trailer { line_is_empty }, b'\n') => {
                if line_is_empty {
                    Chunk::Ended
                } else {
                    Chunk::Trailer { line_is_empty: true }
                }
            }
            (Chunk::Trailer { line_is_empty }, b'\r') => Chunk::Trailer { line_is_empty },
            (Chunk::Trailer { .. }, _) => Chunk::Trailer { line_is_empty: false },
            (state @ (Chunk::Data { .. } | Chunk::Ended), _) => state,
        };
        Ok(&[])
    }

    fn data(&mut self, size: usize) -> Chunk {
        self.line_bytes = 0;
        match size {
            0 => Chunk::Trailer { line_is_empty: true },
            left => Chunk::Data { left },
        }
    }
}

impl Frame {
    fn of(item: &Item) -> Frame {
        match item {
            Item::Comment => Frame { kind: Kind::Heartbeat, seq: None, number: None },
            Item::Event(Event { kind, data, id }) => Frame {
                kind: Kind::of(kind.as_bytes()),
                seq: id.as_ref().and_then(|id| Some(split_id(id.as_bytes())?.1)),
                number: number_in(data.as_bytes()),
            },
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// `text` as one chunk.
    pub fn chunked(text: &str) -> Vec<u8> {
        format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
    }

    fn event(seq: u64) -> Frame {
        Frame { kind: Kind::Event, seq: Some(seq), number: Some(seq + 100) }
    }

    fn read(pieces: &[&[u8]]) -> Result<(Vec<Frame>, Parser), Malformed> {
        let (mut parser, mut frames) = (Parser::default(), Vec::new());
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() && !parser.ended() {
                let taken = parser.feed(rest, |frame, _| frames.push(frame))?;
                rest = &rest[taken..];
            }
        }
        Ok((frames, parser))
    }

    #[test]
    fn any_split_reads_the_same() {
        let crlf = "id: a-b-2\r\nevent: load\r\ndata: {\"n\":\"102\"}\r\n\r\n";
        let two = [
            chunked("id: e-1\nevent: load\ndata: {\"n\":\"101\"}\ndata:x\n\n"),
            format!("{:X};extension\r\n{crlf}\r\n", crlf.len()).into_bytes(),
        ]
        .concat();
        for at in 0..two.len() {
            let (frames, parser) = read(&[&two[..at], &two[at..]]).expect("readable");
            assert_eq!(frames, [event(1), event(2)], "split at {at}");
            assert!(parser.at_boundary());
        }
        let bytes: Vec<&[u8]> = two.chunks(1).collect();
        assert_eq!(read(&bytes).expect("readable").0, [event(1), event(2)]);
    }

    #[test]
    fn one_event_over_several_chunks_and_two_in_one() {
        let split = ["id: e", "-1\ndata: {\"n\":\"101\"}\n", "\n"].map(chunked);
        assert_eq!(read(&[&split.concat()]).expect("readable").0, [event(1)]);
        let merged = chunked("id: e-1\ndata: {\"n\":\"101\"}\n\nid: e-2\ndata: {\"n\":\"102\"}\n\n");
        assert_eq!(read(&[&merged]).expect("readable").0, [event(1), event(2)]);
    }

    #[test]
    fn heartbeats_comments_gaps_and_the_end() {
        let body = [
            "event: heartbeat\ndata: {\"t\":1}\n\n",
            ": still here\n",
            "\n",
            "event: gap\ndata: {}\n\n",
            "event: nothing is dispatched without data\n\n",
            "",
        ]
        .map(chunked);
        let (frames, parser) = read(&[&body.concat()]).expect("readable");
        let kinds: Vec<Kind> = frames.iter().map(|frame| frame.kind).collect();
        assert_eq!(kinds, [Kind::Heartbeat, Kind::Heartbeat, Kind::Gap]);
        assert!(parser.ended());
    }

    #[test]
    fn what_is_no_chunk_is_said() {
        assert!(read(&[b"xyz\r\n"]).is_err());
        assert!(read(&[b"1\r\nab\r\n"]).is_err());
        assert!(read(&[b"123456789\r\n"]).is_err());
    }

    #[test]
    fn ids() {
        assert_eq!(split_id(b"e-1"), Some((&b"e"[..], 1)));
        assert_eq!(split_id(b"a-b-22"), Some((&b"a-b"[..], 22)));
        for bad in [&b"e"[..], b"-1", b"e-", b"e-+1", b""] {
            assert_eq!(split_id(bad), None);
        }
    }
}
