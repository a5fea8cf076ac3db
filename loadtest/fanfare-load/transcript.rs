//! What every stream of one topic set has to receive, byte for byte: written once, by whichever stream is ahead.
//!
//! The receiver shares two cores with the server it measures, so it cannot afford to parse each delivery. It need not:
//! an event's chunk is the same for all streams that asked for the same topics. The first stream to receive a chunk
//! has it checked and parsed here, and for every other stream a `memcmp` at its own offset proves that the same events
//! came in the same order. Sequence numbers only ever grow in a transcript, so agreeing with it *is* being in order.

use std::collections::HashSet;

use fanfare::sse::Event;

use crate::parser::{Kind, number_in, split_id};

/// A chunk larger than this is left to the parser rather than waited for.
const CHUNK_LIMIT_BYTES: usize = 2 << 20;

/// One event of a transcript.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The offset just past its chunk.
    pub end: usize,
    pub seq: u64,
    /// The publisher's number, if it was this tool's.
    pub number: Option<u64>,
}

#[derive(Debug, Default)]
pub struct Transcript {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    epoch: Vec<u8>,
    numbers: HashSet<u64>,
    repeated: u64,
}

/// What stopped [`Transcript::extend`].
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    /// The bytes were used up, or what is left is the beginning of an event.
    Incomplete,
    /// What is left is not one whole event in one chunk, or not the next one.
    Different,
}

impl Transcript {
    /// Appends the whole events at the front of `bytes`; returns how many bytes those were, and why it stopped.
    pub fn extend(&mut self, bytes: &[u8]) -> (usize, Stop) {
        let mut taken = 0;
        loop {
            match Chunk::read(&bytes[taken..]) {
                Chunk::Event { len, epoch, seq, number } if self.continues_with(epoch, seq) => {
                    self.bytes.extend_from_slice(&bytes[taken..taken + len]);
                    self.entries.push(Entry { end: self.bytes.len(), seq, number });
                    if number.is_some_and(|number| !self.numbers.insert(number)) {
                        self.repeated += 1;
                    }
                    taken += len;
                }
                Chunk::Incomplete => return (taken, Stop::Incomplete),
                Chunk::Event { .. } | Chunk::Other => return (taken, Stop::Different),
            }
        }
    }

    /// Appends an event that was read by the parser, as the chunk that it is where it comes alone. Without this, a
    /// transcript would stay behind for ever where all streams get several events in one chunk.
    pub fn append(&mut self, event: &Event) {
        let Event { kind, data, id: Some(id) } = event else { return };
        let text = format!("event: {kind}\ndata: {data}\nid: {id}\n\n");
        // What cannot be written like this (data of several lines) is not taken, and stays with the parser.
        self.extend(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes());
    }

    fn continues_with(&mut self, epoch: &[u8], seq: u64) -> bool {
        if self.entries.is_empty() {
            self.epoch = epoch.to_vec();
        }
        self.epoch == epoch && self.entries.last().is_none_or(|last| last.seq < seq)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Where entry `index` begins.
    pub fn start_of(&self, index: usize) -> usize {
        match index.checked_sub(1) {
            Some(before) => self.entries[before].end,
            None => 0,
        }
    }

    /// Whether `seq` is among the first `prefix` entries.
    pub fn prefix_has(&self, prefix: usize, seq: u64) -> bool {
        self.entries[..prefix].binary_search_by_key(&seq, |entry| entry.seq).is_ok()
    }

    /// Entry `index` as a client would name it in `Last-Event-ID`.
    pub fn id_of(&self, index: usize) -> String {
        let epoch = String::from_utf8_lossy(&self.epoch);
        format!("{epoch}-{}", self.entries[index].seq)
    }

    /// Events that carry a number the transcript already had: the server accepted one publication twice.
    pub fn repeated(&self) -> u64 {
        self.repeated
    }
}

/// The chunk at the front of some bytes.
enum Chunk<'a> {
    Event { len: usize, epoch: &'a [u8], seq: u64, number: Option<u64> },
    Incomplete,
    Other,
}

impl<'a> Chunk<'a> {
    /// Strict on purpose: `event`, `data` and `id`, LF line ends, one event. All else is [`Chunk::Other`] and is judged
    /// by the parser, which knows the whole standard.
    fn read(bytes: &'a [u8]) -> Self {
        let Some(line_end) = memchr::memchr(b'\n', &bytes[..bytes.len().min(10)]) else {
            return if bytes.len() < 10 { Self::Incomplete } else { Self::Other };
        };
        let size = bytes[..line_end]
            .strip_suffix(b"\r")
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| usize::from_str_radix(hex, 16).ok());
        let Some(size @ 1..=CHUNK_LIMIT_BYTES) = size else {
            return Self::Other;
        };
        let text_at = line_end + 1;
        let Some(text) = bytes.get(text_at..text_at + size) else {
            return if Self::may_become_event(&bytes[text_at..]) { Self::Incomplete } else { Self::Other };
        };
        match bytes.get(text_at + size..text_at + size + 2) {
            Some(b"\r\n") => {}
            Some(_) => return Self::Other,
            None => return Self::Incomplete,
        }
        Self::event(text, text_at + size + 2).unwrap_or(Self::Other)
    }

    fn may_become_event(text: &[u8]) -> bool {
        let known = text.len().min(7);
        text[..known] == b"event: "[..known]
    }

    fn event(text: &'a [u8], len: usize) -> Option<Self> {
        let block_end = memchr::memmem::find(text, b"\n\n")?;
        if block_end + 2 != text.len() || memchr::memchr(b'\r', text).is_some() {
            return None;
        }
        let mut lines = text[..block_end].split(|&byte| byte == b'\n');
        let event_type = lines.next()?.strip_prefix(b"event: ")?;
        let data = lines.next()?.strip_prefix(b"data: ")?;
        let id = lines.next()?.strip_prefix(b"id: ")?;
        if lines.next().is_some() || Kind::of(event_type) != Kind::Event {
            return None;
        }
        let (epoch, seq) = split_id(id)?;
        Some(Self::Event { len, epoch, seq, number: number_in(data) })
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::parser::tests::chunked;

    /// One event's chunk as a server sends it.
    pub fn chunk(seq: u64) -> Vec<u8> {
        chunked(&format!("event: load\ndata: {{\"data\":{{\"n\":\"{seq:08}\"}}}}\nid: e-{seq}\n\n"))
    }

    #[test]
    fn takes_whole_events_and_waits_for_the_rest() {
        let bytes = [chunk(3), chunk(5)].concat();
        for cut in 0..=bytes.len() {
            let mut transcript = Transcript::default();
            let (taken, stop) = transcript.extend(&bytes[..cut]);
            assert_eq!(stop, Stop::Incomplete, "cut at {cut}");
            assert!(taken <= cut);
            let (more, _) = transcript.extend(&bytes[taken..]);
            assert_eq!(taken + more, bytes.len());
            let seqs: Vec<u64> = transcript.entries().iter().map(|entry| entry.seq).collect();
            assert_eq!(seqs, [3, 5]);
            assert_eq!(transcript.start_of(1), chunk(3).len());
            assert_eq!(transcript.entries()[1].number, Some(5));
            assert_eq!(transcript.id_of(1), "e-5");
            assert!(transcript.prefix_has(2, 5) && !transcript.prefix_has(1, 5));
        }
    }

    #[test]
    fn leaves_what_differs() {
        let others = [
            chunked("event: heartbeat\ndata: {}\n\n"),
            chunked("event: gap\ndata: {}\nid: e-9\n\n"),
            chunked("event: a\ndata: 1\nid: e-9\n\nid: e-10\n"),
            chunked("event: a\ndata: 1\nid: e-9\ndata: 2\n\n"),
            chunked("event: a\ndata: 1\nid: f-9\n\n"),
            chunked(""),
            chunk(3),
            chunk(2),
        ];
        for other in others {
            let mut transcript = Transcript::default();
            let bytes = [chunk(3), other].concat();
            assert_eq!(
                transcript.extend(&bytes),
                (chunk(3).len(), Stop::Different),
                "{}",
                String::from_utf8_lossy(&bytes)
            );
        }
    }

    #[test]
    fn a_parsed_event_is_the_chunk_that_it_would_have_been() {
        let event = |seq: u64, data: &str| Event {
            kind: "load".to_owned(),
            data: data.to_owned(),
            id: Some(format!("e-{seq}")),
        };
        let mut transcript = Transcript::default();
        transcript.append(&event(3, "{\"data\":{\"n\":\"00000003\"}}"));
        assert_eq!(transcript.bytes(), chunk(3));
        transcript.append(&event(3, "{}"));
        transcript.append(&event(4, "two\nlines"));
        transcript.append(&Event { id: None, ..event(4, "{}") });
        assert_eq!(transcript.bytes(), chunk(3), "not the next one, or not to be written in three lines");
    }

    #[test]
    fn one_publication_accepted_twice_is_noticed() {
        let mut transcript = Transcript::default();
        transcript.extend(&chunk(3));
        let again = String::from_utf8(chunk(3)).expect("ASCII").replace("e-3", "e-4");
        transcript.extend(again.as_bytes());
        assert_eq!(transcript.entries().len(), 2);
        assert_eq!(transcript.repeated(), 1);
    }
}
