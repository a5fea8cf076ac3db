//! One stream's place in its transcript: what it has received, proven by comparing where that is possible and by
//! parsing where it is not.
//!
//! ```text
//!              200, chunked             `connected`, heartbeat read
//!      Head ───────────────▶ Apart ◀───────────────────────────────▶ Along ──▶ agrees, or continues the transcript
//!                                     bytes differ
//! ```
//! A stream is `Apart` for the length of a heartbeat and then goes back `Along`. One that really lost, repeated or
//! reordered an event stays apart, and its ledger holds exactly which events it has had.

use std::collections::BTreeSet;

use fanfare::sse::Item;

use crate::parser::{Frame, Kind, Malformed, Parser};
use crate::tally::Tally;
use crate::transcript::{Stop, Transcript};

/// A response head larger than this is refused.
const HEAD_LIMIT_BYTES: usize = 16 << 10;

#[derive(Debug)]
pub struct Follower {
    state: State,
    connected: bool,
}

#[derive(Debug)]
enum State {
    Head(Head),
    Along(Along),
    Apart(Box<Apart>),
    Ended { received: u64, why: Box<str> },
}

impl Follower {
    /// For a stream about to be opened that has had the first `prefix` events of its transcript already.
    pub fn new(prefix: usize) -> Self {
        Self { state: State::Head(Head { seen: Vec::new(), prefix }), connected: false }
    }

    /// The `connected` event has arrived.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Nothing more is expected of this stream.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended { .. })
    }

    /// How many different events the stream has had, counting those it began with.
    pub fn received(&self) -> u64 {
        match &self.state {
            State::Head(head) => head.prefix as u64,
            State::Along(along) => along.next as u64,
            State::Apart(apart) => (apart.ledger.prefix + apart.ledger.extra.len()) as u64,
            State::Ended { received, .. } => *received,
        }
    }

    /// How many of the transcript's first events the stream has had without a hole: from there it can resume.
    pub fn prefix(&self) -> usize {
        match &self.state {
            State::Head(head) => head.prefix,
            State::Along(along) => along.next,
            State::Apart(apart) => apart.ledger.prefix,
            State::Ended { .. } => 0,
        }
    }

    /// The stream is over, for this reason, and for what its last block says.
    pub fn end(&mut self, why: &str) {
        let why = match &self.state {
            State::Apart(apart) => apart.bye.as_ref().map_or_else(|| why.into(), |bye| format!("{why}: {bye}").into()),
            _ => why.into(),
        };
        self.state = State::Ended { received: self.received(), why };
    }

    /// Why it is over, if it is.
    pub fn why(&self) -> Option<&str> {
        match &self.state {
            State::Ended { why, .. } => Some(why),
            _ => None,
        }
    }

    /// Takes what one read returned.
    pub fn receive(&mut self, bytes: &[u8], transcript: &mut Transcript, tally: &mut Tally) {
        let joined = match &mut self.state {
            State::Along(along) if !along.held.is_empty() => {
                along.held.extend_from_slice(bytes);
                Some(std::mem::take(&mut along.held))
            }
            _ => None,
        };
        let mut rest = joined.as_deref().unwrap_or(bytes);
        // Each step uses up bytes, makes the transcript longer, or changes to a state that does one of the two.
        while !rest.is_empty() {
            let next = match &mut self.state {
                State::Head(head) => head.take(&mut rest, tally),
                State::Along(along) => along.take(&mut rest, transcript, tally),
                State::Apart(apart) => apart.take(&mut rest, transcript, tally),
                State::Ended { .. } => return,
            };
            match next {
                Next::Stay => {}
                Next::Apart(apart) => self.state = State::Apart(apart),
                Next::Along(along) => {
                    self.connected = true;
                    self.state = State::Along(along);
                }
                Next::End(why) => self.end(&why),
            }
        }
    }
}

enum Next {
    Stay,
    Along(Along),
    Apart(Box<Apart>),
    /// Nothing more is expected, and why.
    End(String),
}

/// Reading the response's head.
#[derive(Debug)]
struct Head {
    seen: Vec<u8>,
    prefix: usize,
}

impl Head {
    fn take(&mut self, rest: &mut &[u8], tally: &mut Tally) -> Next {
        let before = self.seen.len();
        self.seen.extend_from_slice(rest);
        let Some(end) = memchr::memmem::find(&self.seen, b"\r\n\r\n") else {
            *rest = &[];
            if self.seen.len() > HEAD_LIMIT_BYTES {
                tally.malformed += 1;
                return Next::End("an answer whose head has no end".to_owned());
            }
            return Next::Stay;
        };
        *rest = &rest[end + 4 - before..];
        if let Err(why) = Self::opens_a_stream(&self.seen[..end]) {
            tally.refused += 1;
            return Next::End(why);
        }
        Next::Apart(Box::new(Apart::new(self.prefix)))
    }

    /// Fails with the status of an answer that opens none.
    fn opens_a_stream(head: &[u8]) -> Result<(), String> {
        let head = String::from_utf8_lossy(head);
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap_or_default();
        let field = |wanted: &str| {
            let fields = lines.clone().filter_map(|line| line.split_once(':'));
            fields.filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim()).next()
        };
        let chunked = field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
        match (status.strip_prefix("HTTP/1.1 "), field("x-refused")) {
            (None, _) => Err("answered by what is not HTTP/1.1".to_owned()),
            (Some(status), _) if !status.starts_with("200") => Err(format!("answered {status}")),
            // Its block says no more.
            (Some(_), Some(code)) => Err(refusal(code)),
            (Some(_), None) if chunked => Ok(()),
            (Some(status), None) => Err(format!("answered {status} without chunks")),
        }
    }
}

/// All bytes up to `offset` agree with the transcript.
#[derive(Debug)]
struct Along {
    offset: usize,
    /// The first entry that is not whole yet.
    next: usize,
    /// The beginning of an event that the transcript does not have yet; nearly always empty, and then unallocated.
    held: Vec<u8>,
}

impl Along {
    fn take(&mut self, rest: &mut &[u8], transcript: &mut Transcript, tally: &mut Tally) -> Next {
        let known = &transcript.bytes()[self.offset..];
        let common = known.len().min(rest.len());
        if known[..common] != rest[..common] {
            return self.leave(transcript, tally);
        }
        self.offset += common;
        *rest = &rest[common..];
        for entry in &transcript.entries()[self.next..] {
            if entry.end > self.offset {
                break;
            }
            self.next += 1;
            tally.deliver(entry.number);
        }
        if rest.is_empty() {
            return Next::Stay;
        }
        // This stream is now ahead of all others, and a transcript always ends between two events.
        match transcript.extend(rest) {
            (0, Stop::Incomplete) => {
                self.held = rest.to_vec();
                *rest = &[];
                Next::Stay
            }
            (0, Stop::Different) => self.leave(transcript, tally),
            _ => Next::Stay,
        }
    }

    /// Goes back to the beginning of the event in which the bytes differ, so that the parser sees it whole.
    fn leave(&self, transcript: &mut Transcript, tally: &mut Tally) -> Next {
        let mut apart = Box::new(Apart::new(self.next));
        apart.connected = true;
        let begun = transcript.bytes()[transcript.start_of(self.next)..self.offset].to_vec();
        let mut begun = &begun[..];
        while !begun.is_empty() {
            if let end @ Next::End(_) = apart.take(&mut begun, transcript, tally) {
                return end;
            }
        }
        Next::Apart(apart)
    }
}

/// Read by the parser.
#[derive(Debug)]
struct Apart {
    parser: Parser,
    ledger: Ledger,
    connected: bool,
    /// What its last block says of its end.
    bye: Option<String>,
}

impl Apart {
    fn new(prefix: usize) -> Self {
        let ledger = Ledger { prefix, extra: BTreeSet::new() };
        Self { parser: Parser::default(), ledger, connected: false, bye: None }
    }

    fn take(&mut self, rest: &mut &[u8], transcript: &mut Transcript, tally: &mut Tally) -> Next {
        let Self { parser, ledger, connected, bye } = self;
        let (mut nameless, mut refused) = (false, None);
        let read = parser.feed(rest, |frame: Frame, item| match (frame.kind, frame.seq) {
            (Kind::Connected, _) => *connected = true,
            (Kind::Heartbeat, _) => tally.heartbeats += 1,
            (Kind::Gap, _) => tally.gaps += 1,
            (Kind::Refused, _) => refused = Some(said(item, "code")),
            (Kind::End, _) => *bye = Some(said(item, "reason")),
            (Kind::Event, Some(seq)) => {
                if let Item::Event(event) = item
                    && ledger.is_ahead_of(transcript)
                {
                    transcript.append(event);
                }
                match ledger.record(seq, transcript) {
                    Arrival::Duplicate => tally.duplicates += 1,
                    arrival => {
                        tally.out_of_order += u64::from(arrival == Arrival::OutOfOrder);
                        tally.parsed += 1;
                        tally.deliver(frame.number);
                    }
                }
            }
            (Kind::Event, None) => nameless = true,
        });
        if let Some(code) = refused {
            tally.refused += 1;
            return Next::End(refusal(&code));
        }
        match read {
            Ok(taken) if !nameless => *rest = &rest[taken..],
            wrong => {
                tally.malformed += 1;
                let why = wrong.map_or_else(|Malformed(why)| why, |_| "an event without an id");
                return Next::End(format!("sent what is no event stream: {why}"));
            }
        }
        if parser.ended() {
            tally.ended += 1;
            return Next::End("ended by the server".to_owned());
        }
        if *connected && bye.is_none() && parser.at_boundary() && ledger.extra.is_empty() {
            return Next::Along(Along {
                offset: transcript.start_of(ledger.prefix),
                next: ledger.prefix,
                held: Vec::new(),
            });
        }
        Next::Stay
    }
}

fn refusal(code: &str) -> String {
    format!("answered 200 and `refused`: {code}")
}

/// What a block says under this key of its data.
fn said(item: &Item, key: &str) -> String {
    let Item::Event(event) = item else { return String::new() };
    let said = serde_json::from_str(&event.data).ok();
    let said = said.and_then(|block: serde_json::Value| Some(block["data"][key].as_str()?.to_owned()));
    said.unwrap_or_else(|| format!("no {key} given"))
}

/// Which of a transcript's events a stream has had: the first `prefix`, and `extra` by sequence.
#[derive(Debug)]
struct Ledger {
    prefix: usize,
    extra: BTreeSet<u64>,
}

#[derive(Debug, PartialEq, Eq)]
enum Arrival {
    InOrder,
    OutOfOrder,
    Duplicate,
}

impl Ledger {
    /// Whether it has had all of the transcript and nothing else, so that its next event is the transcript's next one.
    fn is_ahead_of(&self, transcript: &Transcript) -> bool {
        self.extra.is_empty() && self.prefix == transcript.entries().len()
    }

    fn record(&mut self, seq: u64, transcript: &Transcript) -> Arrival {
        if transcript.prefix_has(self.prefix, seq) || self.extra.contains(&seq) {
            return Arrival::Duplicate;
        }
        let entries = transcript.entries();
        let newest = self.extra.last().copied().max(entries[..self.prefix].last().map(|entry| entry.seq));
        self.extra.insert(seq);
        while let Some(entry) = entries.get(self.prefix) {
            if !self.extra.remove(&entry.seq) {
                break;
            }
            self.prefix += 1;
        }
        if newest.is_some_and(|newest| newest > seq) { Arrival::OutOfOrder } else { Arrival::InOrder }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::SendTimes;
    use crate::parser::tests::chunked;
    use crate::transcript::tests::chunk;

    fn opening() -> Vec<u8> {
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        [&head[..], &chunked("event: connected\ndata: {}\n\n")].concat()
    }

    fn heartbeat() -> Vec<u8> {
        chunked("event: heartbeat\ndata: {}\n\n")
    }

    struct Bench {
        transcript: Transcript,
        tally: Tally,
    }

    impl Bench {
        fn new() -> Self {
            Self { transcript: Transcript::default(), tally: Tally::new(Arc::new(SendTimes::new(0))) }
        }

        /// A stream that reads `body` after its opening, in pieces of `size` bytes.
        fn read(&mut self, prefix: usize, body: &[u8], size: usize) -> Follower {
            let mut follower = Follower::new(prefix);
            for piece in [&opening(), body].concat().chunks(size) {
                follower.receive(piece, &mut self.transcript, &mut self.tally);
            }
            follower
        }

        fn counts(&self) -> [u64; 5] {
            let tally = &self.tally;
            [tally.delivered, tally.duplicates, tally.out_of_order, tally.gaps, tally.heartbeats]
        }
    }

    fn body(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    #[test]
    fn every_split_of_every_mixture_counts_the_same() {
        let (one, two, three, beat) = (chunk(1), chunk(2), chunk(3), heartbeat());
        let plain = body(&[&one, &two, &three]);
        let beating = body(&[&beat, &one, &two, &beat, &three, &beat]);
        for size in 1..=beating.len() {
            let mut bench = Bench::new();
            for stream in [&plain, &beating, &plain] {
                let follower = bench.read(0, stream, size);
                assert!(follower.is_connected());
                assert_eq!(follower.received(), 3);
                assert_eq!(follower.prefix(), 3);
                assert!(matches!(follower.state, State::Along(_)));
            }
            assert_eq!(bench.counts(), [9, 0, 0, 0, 3], "pieces of {size}");
        }
    }

    #[test]
    fn what_is_lost_repeated_or_reordered_is_told_apart() {
        let chunks: Vec<Vec<u8>> = (0..=5).map(chunk).collect();
        let stream = |seqs: &[usize]| -> Vec<u8> { seqs.iter().flat_map(|&seq| chunks[seq].clone()).collect() };
        for (seqs, received, expected) in [
            (&[1, 2, 3, 4][..], 4, [4, 0, 0, 0, 0]),
            (&[1, 3, 4], 3, [3, 0, 0, 0, 0]),
            (&[1, 2, 2, 3, 4], 4, [4, 1, 0, 0, 0]),
            (&[1, 2, 3, 1, 4], 4, [4, 1, 0, 0, 0]),
            (&[1, 3, 2, 4], 4, [4, 0, 1, 0, 0]),
            (&[2, 1, 4, 3], 4, [4, 0, 2, 0, 0]),
            (&[1, 2, 3, 4, 5], 5, [5, 0, 0, 0, 0]),
        ] {
            for size in 1..200 {
                let mut bench = Bench::new();
                bench.read(0, &stream(&[1, 2, 3, 4]), 4096);
                bench.tally.delivered = 0;
                let follower = bench.read(0, &stream(seqs), size);
                assert_eq!(follower.received(), received, "{seqs:?}");
                assert_eq!(bench.counts(), expected, "{seqs:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn a_leader_that_lost_an_event_does_not_hide_it() {
        let mut bench = Bench::new();
        let (one, two, three) = (chunk(1), chunk(2), chunk(3));
        let lossy = bench.read(0, &body(&[&one, &three]), 4096);
        let whole = bench.read(0, &body(&[&one, &two, &three]), 4096);
        assert_eq!((lossy.received(), whole.received()), (2, 3));
    }

    #[test]
    fn events_that_come_together_can_be_resumed_from() {
        let text = |seq: u64| format!("event: load\ndata: {{\"data\":{{\"n\":\"{seq:08}\"}}}}\nid: e-{seq}\n\n");
        let together = chunked(&(text(1) + &text(2)));
        for size in 1..=together.len() {
            let mut bench = Bench::new();
            for stream in [&together, &together, &body(&[&chunk(1), &chunk(2)])] {
                let follower = bench.read(0, stream, size);
                assert_eq!((follower.received(), follower.prefix()), (2, 2), "pieces of {size}");
                assert!(matches!(follower.state, State::Along(_)));
            }
            assert_eq!(bench.transcript.bytes(), body(&[&chunk(1), &chunk(2)]));
            assert_eq!(bench.counts(), [6, 0, 0, 0, 0]);
        }
    }

    #[test]
    fn a_resumed_stream_goes_on_where_it_was() {
        let mut bench = Bench::new();
        let (one, two, three) = (chunk(1), chunk(2), chunk(3));
        bench.read(0, &body(&[&one, &two, &three]), 4096);
        let resumed = bench.read(1, &body(&[&two, &three]), 7);
        assert_eq!(resumed.received(), 3);
        let told = bench.read(1, &body(&[&chunked("event: gap\ndata: {}\n\n"), &three]), 4096);
        assert_eq!(told.received(), 2);
        assert_eq!(bench.counts(), [6, 0, 0, 1, 0]);
    }

    #[test]
    fn refusals_ends_and_nonsense_end_the_stream() {
        let block = |kind: &str, data: &str| {
            let head = &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..];
            [head, &chunked(&format!("event: {kind}\ndata: {{\"data\":{data}}}\n\n")), b"0\r\n\r\n"].concat()
        };
        let refusal = block("refused", "{\"code\":\"draining\"}");
        let end = block("end", "{\"reason\":\"kicked\"}");
        for (bytes, refused, ended, malformed, why) in [
            (&b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n"[..], 1, 0, 0, "answered 503 Busy"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", 1, 0, 0, "answered 200 OK without chunks"),
            (b"SSH-2.0\r\n\r\n", 1, 0, 0, "answered by what is not HTTP/1.1"),
            (&refusal, 1, 0, 0, "answered 200 and `refused`: draining"),
            (
                b"HTTP/1.1 200 OK\r\nX-Refused: rate_limited\r\n\r\n",
                1,
                0,
                0,
                "answered 200 and `refused`: rate_limited",
            ),
            (&end, 0, 1, 0, "ended by the server: kicked"),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 0, 1, 0, "ended by the server"),
            (
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
                0,
                0,
                1,
                "sent what is no event stream: a chunk size that is not hexadecimal",
            ),
        ] {
            let mut bench = Bench::new();
            let mut follower = Follower::new(0);
            follower.receive(bytes, &mut bench.transcript, &mut bench.tally);
            assert!(follower.has_ended() && !follower.is_connected());
            assert_eq!(follower.why(), Some(why));
            let tally = &bench.tally;
            assert_eq!([tally.refused, tally.ended, tally.malformed], [refused, ended, malformed]);
        }
    }
}
