//! Server-Sent Events as a client reads them (WHATWG HTML, section 9.2.6, "Interpreting an event stream"): fed in pieces
//! of any size, and bounded. The parsers on crates.io have no bound: their buffers grow as long as a server likes.

use std::fmt;
use std::mem;
use std::time::Duration;

use memchr::{memchr, memchr2};

/// The most that one event, or one line, may take, in bytes: well above what a broker of ours accepts in a body.
pub const MAX: usize = 16 << 20;

/// Something that a stream said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// An event.
    Event(Event),
    /// A comment: a sign of life.
    Comment,
}

/// An event, as a page's listeners get it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// Its type; `message` where it had none.
    pub kind: String,
    /// Its data; the lines of it are separated by LF.
    pub data: String,
    /// Its own id; where it has none, that of the one before it still counts.
    pub id: Option<String>,
}

/// A line or an event is longer than [`MAX`].
#[derive(Debug, PartialEq, Eq)]
pub struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an event or a line of the stream is longer than {} MiB", MAX >> 20)
    }
}

impl std::error::Error for TooLong {}

/// Interprets one stream.
#[derive(Debug)]
pub struct Parser {
    /// The most that an event or a line may take, in bytes.
    max: usize,
    /// The line that has begun.
    line: Vec<u8>,
    /// A line has ended in CR: an LF right behind it belongs to that line's end.
    after_cr: bool,
    /// Whether a line has ended: a byte order mark counts only before.
    begun: bool,
    kind: String,
    data: Option<String>,
    id: Option<String>,
    last_id: Option<String>,
    retry: Option<Duration>,
}

impl Default for Parser {
    fn default() -> Parser {
        Parser::bounded(MAX)
    }
}

impl Parser {
    /// A parser with another bound than [`MAX`]: for tests, which cannot send so much often.
    #[doc(hidden)]
    pub fn bounded(max: usize) -> Parser {
        Parser {
            max,
            line: Vec::new(),
            after_cr: false,
            begun: false,
            kind: String::new(),
            data: None,
            id: None,
            last_id: None,
            retry: None,
        }
    }

    /// Interprets more bytes.
    ///
    /// # Errors
    /// [`TooLong`]; bytes after it cannot be interpreted any more.
    pub fn feed(&mut self, mut bytes: &[u8], mut on_item: impl FnMut(Item)) -> Result<(), TooLong> {
        while let Some(&first) = bytes.first() {
            if mem::take(&mut self.after_cr) && first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = memchr2(b'\n', b'\r', bytes);
            let piece = &bytes[..end.unwrap_or(bytes.len())];
            if self.held() + piece.len() > self.max {
                return Err(TooLong);
            }
            self.line.extend_from_slice(piece);
            let Some(end) = end else { break };
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            let mut line = mem::take(&mut self.line);
            self.take_line(&line).into_iter().for_each(&mut on_item);
            line.clear();
            self.line = line;
        }
        Ok(())
    }

    /// The last id of a complete block: the place from which a client resumes.
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// How long to wait before coming back, if the stream has said so.
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Whether no block has begun.
    pub fn is_between_blocks(&self) -> bool {
        self.line.is_empty() && self.data.is_none() && self.kind.is_empty() && self.id.is_none()
    }

    /// The bytes of the line and of the event that have begun. Each byte that is not UTF-8 has become three.
    fn held(&self) -> usize {
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        self.line.len() + self.kind.len() + length(&self.data) + length(&self.id)
    }

    fn take_line(&mut self, line: &[u8]) -> Option<Item> {
        let line = match mem::replace(&mut self.begun, true) {
            true => line,
            false => line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line),
        };
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = match memchr(b':', line) {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &[][..]),
        };
        let value = String::from_utf8_lossy(value.strip_prefix(b" ").unwrap_or(value));
        match field {
            b"" => return Some(Item::Comment),
            b"event" => self.kind = value.into_owned(),
            b"data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(&value);
                }
                None => self.data = Some(value.into_owned()),
            },
            b"id" if !value.contains('\0') => self.id = Some(value.into_owned()),
            b"retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.retry = value.parse().ok().map(Duration::from_millis).or(self.retry);
            }
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Item> {
        let (kind, id) = (mem::take(&mut self.kind), self.id.take());
        if id.is_some() {
            self.last_id.clone_from(&id);
        }
        // A block without data is no event, but its id counts.
        let data = self.data.take()?;
        let kind = if kind.is_empty() { "message".to_owned() } else { kind };
        Some(Item::Event(Event { kind, data, id }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(pieces: &[&[u8]]) -> (Vec<Item>, Parser) {
        let (mut parser, mut items) = (Parser::default(), Vec::new());
        for piece in pieces {
            parser.feed(piece, |item| items.push(item)).expect("nothing is too long");
        }
        (items, parser)
    }

    fn event(kind: &str, data: &str, id: Option<&str>) -> Item {
        Item::Event(Event { kind: kind.to_owned(), data: data.to_owned(), id: id.map(str::to_owned) })
    }

    #[test]
    fn a_stream_is_read_as_the_text_says() {
        let cases: &[(&str, &[Item])] = &[
            ("data: a\n\n", &[event("message", "a", None)]),
            ("event: tick\r\ndata:a\r\nid: 7\r\n\r\n", &[event("tick", "a", Some("7"))]),
            ("event: tick\rdata:  a\rid:\r\r", &[event("tick", " a", Some(""))]),
            ("data: a\ndata\ndata: b\n\n", &[event("message", "a\n\nb", None)]),
            ("data\n\n", &[event("message", "", None)]),
            ("event: nothing\nid: 1\n\n", &[]),
            ("event: nothing\n\ndata: a\n\n", &[event("message", "a", None)]),
            ("\u{feff}data: a\n\n\u{feff}data: b\n\n", &[event("message", "a", None)]),
            (":\n: still here\ndata: a\n\n", &[Item::Comment, Item::Comment, event("message", "a", None)]),
            ("id: a\0b\ndata: a\n\n", &[event("message", "a", None)]),
            ("data : a\nDATA: b\nsomething: else\n\n", &[]),
            ("data: what is not ended does not count", &[]),
            ("data: \u{1f600}:b\n\n", &[event("message", "\u{1f600}:b", None)]),
        ];
        for (text, items) in cases {
            assert_eq!(read(&[text.as_bytes()]).0, *items, "{text:?}");
        }
        assert_eq!(read(&[b"data: \xff\n\n"]).0, [event("message", "\u{fffd}", None)]);
    }

    #[test]
    fn what_counts_for_coming_back() {
        let cases: &[(&str, Option<&str>, Option<u64>)] = &[
            ("data: a\n\n", None, None),
            ("id: 1\ndata: a\n\ndata: b\n\n", Some("1"), None),
            ("id: 1\n\n", Some("1"), None),
            ("id: 1\n\nid: 2\ndata: not ended\n", Some("1"), None),
            ("id: 1\n\nid\n\n", Some(""), None),
            ("retry: 1500\n", None, Some(1500)),
            ("retry: 1500\nretry: 1.5\nretry: -1\nretry:\n", None, Some(1500)),
            ("retry: 99999999999999999999999\n", None, None),
        ];
        for (text, id, retry) in cases {
            let parser = read(&[text.as_bytes()]).1;
            assert_eq!((parser.last_id(), parser.retry()), (*id, retry.map(Duration::from_millis)), "{text:?}");
        }
        assert!(read(&[b"data: a\n\n"]).1.is_between_blocks());
        assert!(!read(&[b"data: a\n"]).1.is_between_blocks());
    }

    #[test]
    fn nothing_grows_without_end() {
        let of_data = [&b"data: "[..], &[b'a'; 4000], b"\n"].concat();
        for line in [&of_data[..], b"a", b": a"] {
            let many = line.repeat((1 << 20) / line.len());
            let mut parser = Parser::default();
            let wrong = (0..20).find_map(|_| parser.feed(&many, |_| ()).err());
            assert_eq!(wrong, Some(TooLong), "{:?} for ever", String::from_utf8_lossy(&line[..1]));
        }
        let huge = |field: &[u8]| [field, &vec![0xff; MAX - 16][..], b"\ndata: a\n\n"].concat();
        for field in [&b"event: "[..], b"id: ", b"data: "] {
            let mut parser = Parser::default();
            assert_eq!(parser.feed(&huge(field), |_| ()), Err(TooLong), "{}", String::from_utf8_lossy(field));
        }
        let mut parser = Parser::default();
        let short = [b": ", &[b'a'; 4000][..], b"\n"].concat().repeat(MAX / 4000 + 1);
        assert_eq!(parser.feed(&short, |_| ()), Ok(()), "short ones may go on");
    }

    proptest! {
        #[test]
        fn any_cuts_read_the_same(
            text in "(data|event|id|retry|x|)(:|: |)[ab\u{e4}\0 0-9]{0,4}(\r\n|\n|\r){1,2}|\u{feff}|(data:a\n\n)",
            again in 1..8usize,
            mut cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let bytes = text.repeat(again).into_bytes();
            let mut at: Vec<usize> = cuts.drain(..).map(|cut| cut.index(bytes.len())).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            let (items, whole) = read(&[&bytes]);
            let (cut, parser) = read(&pieces);
            prop_assert_eq!(items, cut);
            prop_assert_eq!((whole.last_id(), whole.retry()), (parser.last_id(), parser.retry()));
        }
    }
}
