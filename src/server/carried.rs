//! Connections that stay with hyper for as long as they live: over TLS, and HTTP/2. Their streams are bodies that pull
//! from the log (`fanout/pull.rs`), many on one connection, each held up by its own flow control alone.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until, timeout};

use super::ServerConfig;
use super::connection::LINGER;
use super::service::{Outcome, Peer, Service};
use crate::fanout::Puller;
use crate::http::reply::Reply;

/// What an HTTP/2 connection begins with (RFC 9113, section 3.4); no HTTP/1 request does.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What of a stalled stream may wait in HTTP/2's own buffers, in bytes.
const SEND_BUFFER: usize = 32 * 1024;

/// Which protocol a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Serves a connection to its end. `permit` is its share of the bound on connections: an HTTP/1 connection gives it back
/// when it becomes a stream, which has a share of another bound.
pub(super) async fn serve<IO>(
    io: IO,
    protocol: Protocol,
    peer: Peer,
    permit: OwnedSemaphorePermit,
    config: &ServerConfig,
    service: Arc<Service>,
) where
    IO: Read + Write + Unpin + Send + 'static,
{
    let load = Arc::new(Load::default());
    let exchange = Exchange { service, peer, load: load.clone() };
    match protocol {
        Protocol::Http1 => {
            let connection = http1::Builder::new()
                .max_header_size(config.max_head)
                .max_buf_size(config.max_head.max(8192))
                .title_case_headers(true)
                .half_close(false)
                // The driver below keeps the deadlines.
                .header_read_timeout(None)
                .serve_connection(io, exchange);
            drive(connection, |connection| connection.graceful_shutdown(), &load, config, Some(permit)).await;
        }
        Protocol::Http2 => {
            let connection = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(config.max_concurrent_streams)
                .max_header_list_size(config.max_head as u32)
                .max_send_buf_size(SEND_BUFFER)
                // A half-open peer is found by pings that it does not answer.
                .keep_alive_interval(config.ping_interval)
                .keep_alive_timeout(config.ping_interval)
                .serve_connection(io, exchange);
            drive(connection, |connection| connection.graceful_shutdown(), &load, config, None).await;
            drop(permit);
        }
    }
}

/// What a connection is busy with.
#[derive(Debug, Default)]
struct Load {
    /// Requests being answered and streams.
    exchanges: AtomicUsize,
    /// Counts the changes of that.
    turn: AtomicU32,
    /// Whether one of them was a stream.
    streamed: AtomicBool,
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

/// Polls a connection, and ends it when it has rested for too long.
async fn drive<C, E>(
    connection: C,
    shut_down: impl Fn(Pin<&mut C>),
    load: &Load,
    config: &ServerConfig,
    mut permit: Option<OwnedSemaphorePermit>,
) where
    C: Future<Output = Result<(), E>>,
    E: std::fmt::Display,
{
    let mut connection = pin!(connection);
    let mut deadline = pin!(sleep_until(Instant::now() + config.head_timeout));
    let mut timed = load.turn.load(Relaxed);
    let rested = poll_fn(|cx| {
        if let Poll::Ready(result) = connection.as_mut().poll(cx) {
            if let Err(error) = result {
                tracing::debug!(%error, "connection ended");
            }
            return Poll::Ready(false);
        }
        let turn = load.turn.load(Relaxed);
        if timed != turn {
            timed = turn;
            deadline.as_mut().reset(Instant::now() + config.idle_timeout);
        }
        if load.streamed.load(Relaxed) {
            permit = None;
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
        let (service, busy) = (self.service.clone(), self.load.begin());
        let answering = Answering::begin(service.clone());
        let outcome = service.route(request, &self.peer);
        Box::pin(async move {
            let outcome = match outcome {
                Outcome::Later(later) => later.await,
                outcome => outcome,
            };
            drop(answering);
            Ok(match outcome {
                Outcome::Stream(opening) => {
                    busy.0.streamed.store(true, Relaxed);
                    let (parts, admitted) = opening.into_response();
                    let puller = service.broker.pull(admitted);
                    Response::from_parts(parts, Payload::Stream(puller, busy))
                }
                Outcome::Reply(reply) => whole(reply),
                // Only one thing is put off, once.
                Outcome::Later(_) => Response::new(Payload::Whole(Full::default())),
            })
        })
    }
}

fn whole(reply: Reply) -> Response<Payload> {
    reply.map(Payload::Whole)
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

/// A response's body.
enum Payload {
    Whole(Full<Bytes>),
    /// The stream, and its share of what the connection is busy with.
    Stream(Puller, #[allow(dead_code, reason = "it counts until it is dropped")] Busy),
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Payload::Whole(body) => Pin::new(body).poll_frame(cx),
            Payload::Stream(puller, _) => puller.poll_next(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Payload::Whole(body) => body.is_end_stream(),
            Payload::Stream(..) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Payload::Whole(body) => body.size_hint(),
            Payload::Stream(..) => SizeHint::default(),
        }
    }
}
