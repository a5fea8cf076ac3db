//! An HTTP/2 client for tests: the frames by the crate `h2`, whose windows open only when a test says so.

#![allow(dead_code, reason = "no test file uses all of this")]

use std::future::{Future, poll_fn};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use hyper::http::response::Parts;
use hyper::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::common::{BROADCAST, EVENTS, PATIENCE, Server, SseEvent, SseParser};

/// How many bytes all streams of a connection together may be sent unread: so many that no stream is held up by another.
const CONNECTION_WINDOW: u32 = 64 << 20;

/// A connection. It is driven by a thread of its own.
pub(crate) struct Http2 {
    runtime: Runtime,
    sender: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

impl Http2 {
    /// Connects without TLS, with prior knowledge (RFC 9113, section 3.3).
    #[track_caller]
    pub(crate) fn to(server: &Server) -> Http2 {
        Http2::with(server, &mut Builder::new())
    }

    /// The same with settings of its own.
    #[track_caller]
    pub(crate) fn with(server: &Server, settings: &mut Builder) -> Http2 {
        let addr = server.addr;
        Http2::over(settings, async move { TcpStream::connect(addr).await.expect("it accepts connections") })
    }

    /// A connection over anything that carries bytes.
    #[track_caller]
    pub(crate) fn over<IO>(settings: &mut Builder, connect: impl Future<Output = IO>) -> Http2
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("the system has a thread");
        settings.initial_connection_window_size(CONNECTION_WINDOW);
        let (sender, connection) = runtime.block_on(async {
            let io = connect.await;
            timeout(PATIENCE, settings.handshake(io)).await.expect("in time").expect("it speaks HTTP/2")
        });
        let connection = runtime.spawn(connection);
        Http2 { runtime, sender, connection }
    }

    /// Waits for something that this connection brings.
    #[track_caller]
    pub(crate) fn wait<T>(&self, what: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { timeout(PATIENCE, what).await }).expect("in time")
    }

    /// Sends a request's head, as soon as the server allows one more stream.
    pub(crate) fn try_send(
        &mut self,
        request: Request<()>,
        is_all: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let sender = self.sender.clone();
        self.sender = self.wait(sender.ready())?;
        self.sender.send_request(request, is_all)
    }

    /// A request and its answer's head.
    pub(crate) fn try_ask(
        &mut self,
        request: Request<()>,
        body: Option<&[u8]>,
    ) -> Result<Response<RecvStream>, h2::Error> {
        let (response, mut sending) = self.try_send(request, body.is_none())?;
        if let Some(body) = body {
            // All at once: the client keeps what the server's window has no room for. A server that answers without the
            // body may have ended the stream by now: the answer tells.
            let _ = sending.send_data(Bytes::copy_from_slice(body), true);
        }
        self.wait(response)
    }

    /// A request; its answer's head and body.
    #[track_caller]
    pub(crate) fn ask(&mut self, request: Request<()>, body: Option<&[u8]>) -> (Parts, Vec<u8>) {
        let (head, body) = self.try_ask(request, body).expect("an answer").into_parts();
        (head, self.read(body))
    }

    /// All of a body.
    #[track_caller]
    pub(crate) fn read(&self, mut body: RecvStream) -> Vec<u8> {
        self.wait(async {
            let mut bytes = Vec::new();
            while let Some(data) = body.data().await {
                let data = data.expect("the body is not cut off");
                bytes.extend_from_slice(&data);
                let _ = body.flow_control().release_capacity(data.len());
            }
            bytes
        })
    }

    /// Publishes JSON; gives the last id.
    #[track_caller]
    pub(crate) fn publish(&mut self, json: &str) -> String {
        let (head, body) = self.ask(post(), Some(json.as_bytes()));
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(head.status, 200, "{body}");
        body["id"].as_str().expect("an answer has an id").to_owned()
    }

    /// Opens a stream by the query of its path, and reads its `connected`.
    #[track_caller]
    pub(crate) fn stream(&mut self, query: &str) -> Http2Stream {
        let mut stream = self.open(get(&format!("{EVENTS}?{query}")));
        stream.connected = self.expect(&mut stream, "connected");
        stream
    }

    /// Opens a stream and reads its head only.
    #[track_caller]
    pub(crate) fn open(&mut self, request: Request<()>) -> Http2Stream {
        let (head, body) = self.try_ask(request, None).expect("an answer").into_parts();
        assert_eq!(head.status, 200, "{head:?}");
        let (sse, connected) = (SseParser::default(), SseEvent::default());
        Http2Stream { head, body, connected, bye: None, sse, text: Vec::new(), end: None }
    }

    /// The stream's next event that comes within `patience`; `None` too where it ends before.
    pub(crate) fn next_within(&self, stream: &mut Http2Stream, patience: Duration) -> Option<SseEvent> {
        self.runtime.block_on(async { timeout(patience, stream.next()).await }).ok().flatten()
    }

    /// The stream's next event that is no heartbeat.
    #[track_caller]
    pub(crate) fn next(&self, stream: &mut Http2Stream) -> SseEvent {
        loop {
            match self.wait(stream.next()) {
                Some(event) if event.kind == "heartbeat" => {}
                Some(event) => return event,
                None => panic!("the stream is over: {:?}", stream.end),
            }
        }
    }

    /// The stream's next event, which must be of this type.
    #[track_caller]
    pub(crate) fn expect(&self, stream: &mut Http2Stream, kind: &str) -> SseEvent {
        let event = self.next(stream);
        assert_eq!(event.kind, kind, "{event:?}");
        event
    }

    /// The events up to the stream's end, and how it ended: with `END_STREAM` between two events, or with an error.
    #[track_caller]
    pub(crate) fn read_to_end(&self, stream: &mut Http2Stream) -> (Vec<SseEvent>, Result<(), h2::Error>) {
        let mut events = Vec::new();
        while let Some(event) = self.wait(stream.next()) {
            events.push(event);
        }
        let end = stream.end.take().expect("it is over");
        assert!(end.is_err() || stream.sse.is_between_blocks(), "cut off in the middle of an event");
        (events, end)
    }

    /// Waits for the connection's end: in good order, or by an error.
    #[track_caller]
    pub(crate) fn end(self) -> Result<(), h2::Error> {
        let Http2 { runtime, sender, connection } = self;
        // The client would keep the connection for another request.
        let ended = runtime.block_on(async { timeout(PATIENCE, connection).await });
        drop(sender);
        ended.expect("the connection ends").expect("no panic")
    }

    /// Whether the connection has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.connection.is_finished()
    }
}

/// An open stream.
pub(crate) struct Http2Stream {
    /// The response's head.
    pub(crate) head: Parts,
    /// The body, unread.
    pub(crate) body: RecvStream,
    /// Its first event.
    pub(crate) connected: SseEvent,
    /// What was read of the body.
    pub(crate) text: Vec<u8>,
    /// The block `end`, with which the broker says why it ends the stream.
    pub(crate) bye: Option<SseEvent>,
    sse: SseParser,
    end: Option<Result<(), h2::Error>>,
}

impl Http2Stream {
    /// The next event; `None` at the end. What was read is given back to the window at once.
    async fn next(&mut self) -> Option<SseEvent> {
        loop {
            match self.sse.next() {
                Some(event) if event.kind == "end" => self.bye = Some(event),
                Some(event) => return Some(event),
                None => {}
            }
            if self.end.is_some() {
                return None;
            }
            match self.body.data().await {
                Some(Ok(data)) => {
                    let _ = self.body.flow_control().release_capacity(data.len());
                    self.sse.feed(&data);
                    self.text.extend_from_slice(&data);
                }
                Some(Err(error)) => self.end = Some(Err(error)),
                None => self.end = Some(poll_fn(|cx| self.body.poll_trailers(cx)).await.map(drop)),
            }
        }
    }

    /// Resets it (RFC 9113, section 5.4.2), as a browser does that closes an `EventSource`.
    pub(crate) fn reset(self) {
        drop(self);
    }
}

/// `GET path`.
pub(crate) fn get(path: &str) -> Request<()> {
    Request::get(format!("http://t{path}")).body(()).expect("a request")
}

/// A publish of JSON.
pub(crate) fn post() -> Request<()> {
    let request = Request::post(format!("http://t{BROADCAST}")).header("content-type", "application/json");
    request.body(()).expect("a request")
}
