//! The transports over which a stream may come, behind one interface: a test of a stream's behaviour is written once, and runs
//! over each of them.

#![allow(dead_code, reason = "no test file uses all of this")]

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use h2::client::Builder;
use hyper::Request;

use super::common::{EVENTS, End, PATIENCE, SILENCE, Server, SseEvent, Stream};
use super::http2::{Http2, Http2Stream};
use super::tls::{Tunnel, client, connect, tls_address};

/// A way from a client to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// HTTP/1.1, a connection for each stream.
    Http1,
    /// The same within TLS.
    Http1Tls,
    /// HTTP/2 with prior knowledge, all streams of a client on one connection.
    Http2,
    /// The same within TLS, by ALPN.
    Http2Tls,
}

impl Transport {
    /// Starts a broker that speaks all of them.
    #[track_caller]
    pub(crate) fn start(flags: &[&str]) -> Server {
        super::tls::start(flags)
    }

    /// A client that comes this way.
    #[track_caller]
    pub(crate) fn client(self, server: &Server) -> Client<'_> {
        let (mut tunnel, mut shared) = (None, None);
        match self {
            Transport::Http1 => {}
            Transport::Http1Tls => tunnel = Some(Rc::new(Tunnel::to(server))),
            Transport::Http2 => shared = Some(Http2::to(server)),
            Transport::Http2Tls => {
                shared = Some(Http2::over(&mut Builder::new(), connect(tls_address(server), client(b"h2").0)));
            }
        }
        Client { server, tunnel, shared: shared.map(|client| Rc::new(RefCell::new(client))) }
    }
}

/// Opens streams over one transport.
pub(crate) struct Client<'a> {
    server: &'a Server,
    tunnel: Option<Rc<Tunnel>>,
    shared: Option<Rc<RefCell<Http2>>>,
}

impl Client<'_> {
    /// Opens a stream and reads its `connected`.
    #[track_caller]
    pub(crate) fn stream(&self, query: &str) -> Open {
        self.stream_with(query, &[])
    }

    /// The same with further fields in the request's head.
    #[track_caller]
    pub(crate) fn stream_with(&self, query: &str, fields: &[(&str, &str)]) -> Open {
        if let Some(client) = &self.shared {
            let mut request = Request::get(format!("http://t{EVENTS}?{query}"));
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            let mut stream = client.borrow_mut().open(request.body(()).expect("a request"));
            stream.connected = client.borrow().expect(&mut stream, "connected");
            return Open::Shared(client.clone(), stream);
        }
        let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        match &self.tunnel {
            Some(tunnel) => Open::Own(Some(tunnel.clone()), tunnel.stream(query, &lines)),
            None => Open::Own(None, self.server.stream_with(query, &lines)),
        }
    }
}

/// An open stream. What it has in common over all transports.
pub(crate) enum Open {
    /// On a connection of its own; the tunnel that it comes through lives as long.
    Own(Option<Rc<Tunnel>>, Stream),
    /// On a connection that it shares.
    Shared(Rc<RefCell<Http2>>, Http2Stream),
}

impl Open {
    /// A field of the response's head.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        match self {
            Open::Own(_, stream) => stream.head.field(name),
            Open::Shared(_, stream) => {
                stream.head.headers.get(name).map(|value| value.to_str().expect("text").to_owned())
            }
        }
    }

    /// Its first event.
    pub(crate) fn connected(&self) -> &SseEvent {
        match self {
            Open::Own(_, stream) => &stream.connected,
            Open::Shared(_, stream) => &stream.connected,
        }
    }

    /// The next event that comes within `patience`, heartbeats included.
    pub(crate) fn next_within(&mut self, patience: Duration) -> Option<SseEvent> {
        match self {
            Open::Own(_, stream) => stream.next_within(patience),
            Open::Shared(client, stream) => client.borrow().next_within(stream, patience),
        }
    }

    /// The next event, heartbeats included.
    #[track_caller]
    pub(crate) fn next_any(&mut self) -> SseEvent {
        self.next_within(PATIENCE).expect("an event")
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

    /// The numbers of the next `count` events, which must all be `tick`s.
    #[track_caller]
    pub(crate) fn numbers(&mut self, count: usize) -> Vec<usize> {
        (0..count).map(|_| self.expect("tick").n()).collect()
    }

    /// Panics if an event other than a heartbeat comes within [`SILENCE`].
    #[track_caller]
    pub(crate) fn expect_nothing(&mut self) {
        while let Some(event) = self.next_within(SILENCE) {
            assert_eq!(event.kind, "heartbeat", "unexpected: {event:?}");
        }
    }

    /// Reads to the stream's end: the events that still came but heartbeats, and how it ended.
    #[track_caller]
    pub(crate) fn read_to_end(&mut self) -> (Vec<SseEvent>, Ended) {
        let (mut events, is_clean, bye) = match self {
            Open::Own(_, stream) => {
                let (events, end) = stream.read_to_end();
                (events, end == End::Clean, stream.bye.take())
            }
            Open::Shared(client, stream) => {
                let (events, end) = client.borrow().read_to_end(stream);
                (events, end.is_ok(), stream.bye.take())
            }
        };
        events.retain(|event| event.kind != "heartbeat");
        (events, Ended { is_clean, bye })
    }
}

/// How a stream ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// In the transport's own way, between two blocks.
    pub(crate) is_clean: bool,
    /// The block `end`, if there was one.
    pub(crate) bye: Option<SseEvent>,
}

impl Ended {
    /// The reason in the block `end`.
    #[track_caller]
    pub(crate) fn reason(&self) -> String {
        let bye = self.bye.as_ref().expect("the stream was told why it ends");
        bye.json()["data"]["reason"].as_str().expect("a reason").to_owned()
    }
}
