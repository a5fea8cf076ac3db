//! Connections that stay with hyper for as long as they live: over TLS, and HTTP/2. Their streams are bodies that pull
//! from the log (`fanout/pull/mod.rs`), many on one connection, each held up by its own flow control alone.

use std::cell::OnceCell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::rt::{Executor, Read, ReadBufCursor, Write};
use hyper::server::conn::{http1, http2};
use hyper::{Request, Response, Version};
use hyper_util::rt::TokioTimer;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

use super::ServerConfig;
use super::connection::LINGER;
use super::own_answer::OwnAnswer;
use super::service::{Outcome, Peer, Service};
use crate::fanout::{Cutoff, Puller};
use crate::http::reply::{Crowd, Problem};

/// What an HTTP/2 connection begins with (RFC 9113, section 3.4); no HTTP/1 request does.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What of a stream may wait in HTTP/2's own buffers, in bytes: one frame, so that a stalled connection holds little.
const SEND_BUFFER: usize = 16 * 1024;

/// How many bytes of a body a client may send before they are read: for one request, and for all of a connection's. A
/// body is read as it comes; the windows only matter for those that nobody reads.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;

/// Which protocol a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Serves a connection to its end. `permit` is its share of the bound on connections that are not streams: it gives it
/// back while it carries a stream, which has a share of another bound. HTTP/1 serves nothing after that; HTTP/2 takes a
/// permit again when its last stream has ended, or ends where there is none.
///
/// What it gives is on the heap, and so is the connection within it: by value, each future that passes it on would keep
/// room for a copy of it, which is some kilobytes for as long as the connection lives.
pub(super) fn serve<IO>(
    io: IO,
    protocol: Protocol,
    peer: Peer,
    permit: OwnedSemaphorePermit,
    config: Arc<ServerConfig>,
    service: Arc<Service>,
) -> Pin<Box<dyn Future<Output = ()> + Send>>
where
    IO: Read + Write + Unpin + Send + 'static,
{
    let load = Arc::new(Load::default());
    let exchange = Exchange { service: service.clone(), peer, load: load.clone() };
    let own = OwnAnswer::new(service.clone(), config.max_head);
    match protocol {
        Protocol::Http1 => {
            let connection = http1::Builder::new()
                .max_header_size(config.max_head)
                .max_buf_size(config.max_head.max(8192))
                .title_case_headers(true)
                .half_close(false)
                // The driver below keeps the deadlines.
                .header_read_timeout(None)
                .serve_connection(Enveloped { io, load: load.clone(), settled: 0, own }, exchange);
            let shut_down = http1::Connection::graceful_shutdown;
            let driven = drive(Box::pin(connection), shut_down, protocol, load, config, service, permit);
            // A connection has no deadline for its exchanges: the endpoints have theirs.
            Box::pin(until_cut(driven, None))
        }
        Protocol::Http2 => {
            let connection = http2::Builder::new(Exchanges { timeout: config.exchange_timeout })
                .timer(TokioTimer::new())
                .max_concurrent_streams(config.max_concurrent_streams)
                // What is over `max_head` is refused by the service, in the words of all refusals.
                .max_header_list_size(u32::try_from(2 * config.max_head).unwrap_or(u32::MAX))
                .max_send_buf_size(SEND_BUFFER)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                // A half-open peer is found by pings that it does not answer.
                .keep_alive_interval(config.ping_interval)
                .keep_alive_timeout(config.ping_interval)
                .serve_connection(io, exchange);
            let shut_down = http2::Connection::graceful_shutdown;
            Box::pin(drive(Box::pin(connection), shut_down, protocol, load, config, service, permit))
        }
    }
}

// ---- streams that their shard has given up

tokio::task_local! {
    /// The stream that this task has begun to write.
    static STREAM: OnceCell<Cutoff>;
}

/// Runs what writes a stream until it is done, or its shard has given the stream up, or `allowed` is over before it was a
/// stream. hyper pulls a body only where the client has room for it: without this, one whose client never has would
/// stay for as long as its connection.
async fn until_cut(writing: impl Future<Output = ()>, allowed: Option<Duration>) {
    let watched = async {
        let mut writing = pin!(writing);
        let mut deadline: Option<Pin<Box<Sleep>>> = None;
        poll_fn(|cx| {
            if writing.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            STREAM.with(|stream| match (stream.get(), allowed) {
                (Some(stream), _) => {
                    deadline = None;
                    stream.poll(cx)
                }
                // Most are answered by now: the timer is for those that are not.
                (None, Some(allowed)) => deadline.get_or_insert_with(|| Box::pin(sleep(allowed))).as_mut().poll(cx),
                (None, None) => Poll::Pending,
            })
        })
        .await;
    };
    STREAM.scope(OnceCell::new(), watched).await;
}

/// Runs the exchanges of an HTTP/2 connection, each in a task of its own. One that is dropped before its end is reset.
#[derive(Debug, Clone, Copy)]
struct Exchanges {
    /// How long one may take that is no stream.
    timeout: Duration,
}

impl<F> Executor<F> for Exchanges
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, exchange: F) {
        tokio::spawn(until_cut(exchange, Some(self.timeout)));
    }
}

/// What a connection is busy with.
#[derive(Debug, Default)]
struct Load {
    /// Requests being answered and streams.
    exchanges: AtomicUsize,
    /// Counts the changes of that.
    turn: AtomicU32,
    /// Streams alone.
    streams: AtomicUsize,
    /// Tells the driver that streams have begun or ended.
    changed: Notify,
}

impl Load {
    fn begin(self: &Arc<Self>) -> Busy {
        self.exchanges.fetch_add(1, Relaxed);
        self.turn.fetch_add(1, Relaxed);
        Busy(self.clone())
    }
}

/// One exchange, until it is dropped.
struct Busy(Arc<Load>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.exchanges.fetch_sub(1, Relaxed);
        self.0.turn.fetch_add(1, Relaxed);
    }
}

impl Busy {
    /// The exchange has become a stream.
    fn into_stream(self) -> Streaming {
        self.0.streams.fetch_add(1, Relaxed);
        self.0.changed.notify_one();
        Streaming(self)
    }
}

/// One stream, until it is dropped.
struct Streaming(Busy);

impl Drop for Streaming {
    fn drop(&mut self) {
        let load = &self.0.0;
        load.streams.fetch_sub(1, Relaxed);
        load.changed.notify_one();
    }
}

/// Polls a connection, and ends it when it has rested for too long, or the broker stops; then what it is busy with may
/// still come to its end.
async fn drive<C, E>(
    mut connection: Pin<Box<C>>,
    shut_down: impl Fn(Pin<&mut C>),
    protocol: Protocol,
    load: Arc<Load>,
    config: Arc<ServerConfig>,
    service: Arc<Service>,
    permit: OwnedSemaphorePermit,
) where
    C: Future<Output = Result<(), E>>,
    E: std::error::Error + 'static,
{
    let mut deadline = pin!(sleep_until(Instant::now() + config.head_timeout));
    let mut stopping = service.stopping.subscribe();
    let mut stop = pin!(stopping.wait_for(|stopping| *stopping));
    let mut changed = pin!(load.changed.notified());
    let room = permit.semaphore().clone();
    let (mut permit, mut is_crowded) = (Some(permit), false);
    let (mut timed, mut is_last) = (0, false);
    let rested = poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                if let Err(error) = result {
                    tracing::debug!(%error, "connection ended");
                    if protocol == Protocol::Http2 {
                        service.counts.count_http2_error(&error);
                    }
                }
                return Poll::Ready(false);
            }
            let turn = load.turn.load(Relaxed);
            if timed != turn {
                timed = turn;
                deadline.as_mut().reset(Instant::now() + config.idle_timeout);
            }
            if changed.as_mut().poll(cx).is_ready() {
                changed.set(load.changed.notified());
                continue;
            }
            let streams = load.streams.load(Relaxed);
            // Behind a stream HTTP/1 serves nothing. By now the stream's head is written and says nothing of that, as on
            // a connection that a shard has taken over.
            let became_stream = streams > 0 && permit.take().is_some() && protocol == Protocol::Http1;
            if streams == 0 && permit.is_none() && protocol == Protocol::Http2 && !is_crowded {
                permit = room.clone().try_acquire_owned().ok();
                is_crowded = permit.is_none();
                if is_crowded {
                    service.counts.problems.count(Problem::TooManyConnections(Crowd::Broker).code());
                    shut_down(connection.as_mut());
                    continue;
                }
            }
            // Who comes while the broker stops is answered once: a probe is to learn of it.
            let stops = !is_last && turn > 0 && stop.as_mut().poll(cx).is_ready();
            if !became_stream && !stops {
                break;
            }
            is_last |= stops;
            shut_down(connection.as_mut());
        }
        match deadline.as_mut().poll(cx) {
            Poll::Ready(()) if load.exchanges.load(Relaxed) > 0 => {
                deadline.as_mut().reset(Instant::now() + config.idle_timeout);
                deadline.as_mut().poll(cx).map(|()| true)
            }
            polled => polled.map(|()| true),
        }
    });
    if rested.await {
        if timed == 0 {
            service.counts.slow_heads.fetch_add(1, Relaxed);
        }
        shut_down(connection.as_mut());
        let _ = timeout(LINGER, connection).await;
    }
}

/// The service as hyper sees it, one for each connection.
struct Exchange {
    service: Arc<Service>,
    peer: Peer,
    load: Arc<Load>,
}

impl hyper::service::Service<Request<Incoming>> for Exchange {
    type Response = Response<Payload>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Payload>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (service, busy, version) = (self.service.clone(), self.load.begin(), request.version());
        let answering = Answering::begin(service.clone());
        let mut outcome = service.route(request, &self.peer);
        Box::pin(async move {
            let settled = loop {
                match outcome {
                    Outcome::Later(later) => outcome = later.await,
                    Outcome::Reply(reply) => break Err(reply),
                    Outcome::Stream(opening) => break Ok(opening),
                }
            };
            drop(answering);
            Ok(match settled {
                Ok(opening) => {
                    let streaming = busy.into_stream();
                    let (mut parts, puller) = service.pull(*opening);
                    if version == Version::HTTP_11 {
                        parts.headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
                    }
                    // Another stream's place is never taken: a task writes one.
                    let _ = STREAM.try_with(|stream| stream.set(puller.cutoff()));
                    Response::from_parts(parts, Payload::Stream(puller, streaming))
                }
                Err(reply) => reply.map(Payload::Whole),
            })
        })
    }
}

/// A request being answered, as the drain counts them.
struct Answering(Arc<Service>);

impl Answering {
    fn begin(service: Arc<Service>) -> Answering {
        service.counts.exchanges.fetch_add(1, Relaxed);
        Answering(service)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.counts.exchanges.fetch_sub(1, Relaxed);
    }
}

/// A connection of HTTP/1 as hyper sees it: answers that hyper writes by itself are replaced by ours.
struct Enveloped<IO> {
    io: IO,
    load: Arc<Load>,
    /// The load's turn when all that had been asked was answered.
    settled: u32,
    own: OwnAnswer,
}

impl<IO: Read + Unpin> Read for Enveloped<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<IO: Write + Unpin> Write for Enveloped<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.load.turn.load(Relaxed) == self.settled {
            true => Poll::Ready(Ok(self.own.replace(buf))),
            false => Pin::new(&mut self.io).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.own.rest() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &rest))?;
            self.own.written(written);
        }
        if self.load.exchanges.load(Relaxed) == 0 {
            self.settled = self.load.turn.load(Relaxed);
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A response's body.
enum Payload {
    Whole(Full<Bytes>),
    /// The stream, and its share of what the connection is busy with.
    Stream(Puller, #[allow(dead_code, reason = "it counts until it is dropped")] Streaming),
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Payload::Whole(body) => Pin::new(body).poll_frame(cx),
            Payload::Stream(puller, ..) => puller.poll_next(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Payload::Whole(body) => body.is_end_stream(),
            Payload::Stream(puller, ..) => puller.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Payload::Whole(body) => body.size_hint(),
            Payload::Stream(..) => SizeHint::default(),
        }
    }
}
