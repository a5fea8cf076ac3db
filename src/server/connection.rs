//! One connection: requests and answers by hyper, until one of them asks for a stream. Then the socket is taken out
//! of hyper and given to a shard, and all that hyper and tokio held for it is freed.
//!
//! hyper knows upgrades only after a response; here nothing of the response must be written by hyper. So the service
//! notes what the stream needs and stays pending for ever, and the driver of the connection, which polls it, sees the
//! note and takes the connection apart. That is sound once nothing of an earlier (pipelined) response waits in hyper's
//! buffer, which shows in hyper having flushed after its last write.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use hyper::Request;
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::ServerConfig;
use super::service::{Outcome, Service};
use crate::http::reply::Reply;
use crate::http::subscribe::Opening;

/// What a client that sent half a head is told.
const HEAD_TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// Serves a connection to its end, or until it has become a stream.
pub(super) async fn serve(socket: TcpStream, config: &ServerConfig, service: Arc<Service>) {
    // hyper's buffers are made only for those who speak: a flood of silent connections costs no more than sockets.
    // A peek, since readiness alone is assumed of a new socket.
    match timeout(config.head_timeout, socket.peek(&mut [0])).await {
        Ok(Ok(1..)) => {}
        Ok(_) => return,
        Err(_) => {
            service.counts.slow_heads.fetch_add(1, Relaxed);
            return;
        }
    }
    let seen = Arc::new(Seen::default());
    let carrier = Carrier { io: TokioIo::new(socket), seen: seen.clone(), service: service.clone() };
    let exchange = Exchange { service: service.clone(), seen: seen.clone() };
    let mut connection = http1::Builder::new()
        .max_header_size(config.max_head)
        .max_buf_size(config.max_head.max(8192))
        .title_case_headers(true)
        // Who closes the sending side behind a request still gets the answer.
        .half_close(true)
        // The driver below keeps the deadlines.
        .header_read_timeout(None)
        .serve_connection(carrier, exchange);

    let end = drive(&mut connection, config, &seen).await;
    match end {
        End::Done => {}
        End::Stream(opening) => {
            // Bytes behind the request are dropped with hyper's buffer: a stream answers nothing else.
            let socket = connection.into_parts().io.io.into_inner();
            hand_over(socket, *opening, &service);
        }
        End::Late(Phase::Head) => {
            service.counts.slow_heads.fetch_add(1, Relaxed);
            // Best effort: nothing has been written before, so there is room for it.
            let _ = connection.into_parts().io.io.into_inner().try_write(HEAD_TOO_SLOW);
        }
        End::Late(_) => {}
    }
    if matches!(seen.phase(), Phase::Exchange | Phase::Answered) {
        service.counts.exchanges.fetch_sub(1, Relaxed);
    }
}

fn hand_over(socket: TcpStream, opening: Opening, service: &Service) {
    match socket.into_std() {
        Ok(socket) => service.broker.open(opening.admitted, socket, opening.head),
        Err(error) => tracing::error!(%error, "cannot take a socket over"),
    }
}

/// How the part of a connection that hyper serves ends.
enum End {
    Done,
    Stream(Box<Opening>),
    Late(Phase),
}

async fn drive(connection: &mut http1::Connection<Carrier, Exchange>, config: &ServerConfig, seen: &Seen) -> End {
    // Registered with the timer only where the first poll does not settle it, as it does for nearly every stream.
    let mut deadline = pin!(sleep_until(Instant::now()));
    let mut timed = None;
    poll_fn(|cx| {
        if let Poll::Ready(result) = connection.poll_without_shutdown(cx) {
            if let Err(error) = result {
                tracing::debug!(%error, "connection ended");
            }
            return Poll::Ready(End::Done);
        }
        if let Some(opening) = seen.take_opening() {
            return Poll::Ready(End::Stream(opening));
        }
        let phase = seen.phase();
        if timed != Some(phase) {
            timed = Some(phase);
            let allowed = match phase {
                Phase::Idle => config.idle_timeout,
                Phase::Head => config.head_timeout,
                Phase::Exchange | Phase::Answered => config.exchange_timeout,
            };
            deadline.as_mut().reset(Instant::now() + allowed);
        }
        deadline.as_mut().poll(cx).map(|()| End::Late(phase))
    })
    .await
}

/// What a connection is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    /// Nothing: it rests between requests.
    Idle,
    /// A request's head has begun to arrive.
    Head,
    /// A request is being read and answered.
    Exchange,
    /// Its answer is being written.
    Answered,
}

/// What the three owners of a connection's parts (hyper has two of them) show each other.
#[derive(Debug)]
struct Seen {
    opening: Mutex<Option<Box<Opening>>>,
    has_opening: AtomicBool,
    /// Whether hyper has flushed since it last wrote.
    flushed: AtomicBool,
    phase: AtomicU8,
}

impl Default for Seen {
    fn default() -> Seen {
        Seen {
            opening: Mutex::default(),
            has_opening: AtomicBool::new(false),
            flushed: AtomicBool::new(true),
            // Its first byte has been seen.
            phase: AtomicU8::new(Phase::Head as u8),
        }
    }
}

impl Seen {
    /// The stream to open, as soon as the connection is free for it.
    fn take_opening(&self) -> Option<Box<Opening>> {
        if !self.has_opening.load(Relaxed) || !self.flushed.load(Relaxed) {
            return None;
        }
        self.opening.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Head,
            2 => Phase::Exchange,
            _ => Phase::Answered,
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }
}

/// The service as hyper sees it, one for each connection.
struct Exchange {
    service: Arc<Service>,
    seen: Arc<Seen>,
}

impl hyper::service::Service<Request<Incoming>> for Exchange {
    type Response = Reply;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        self.seen.enter(Phase::Exchange);
        self.service.counts.exchanges.fetch_add(1, Relaxed);
        let outcome = match self.service.route(request) {
            Outcome::Stream(opening) => {
                *self.seen.opening.lock().unwrap_or_else(PoisonError::into_inner) = Some(opening);
                self.seen.has_opening.store(true, Relaxed);
                None
            }
            other => Some(other),
        };
        Answer { outcome, seen: self.seen.clone() }
    }
}

/// An answer: at hand, or to come, or (for a stream) never.
struct Answer {
    outcome: Option<Outcome>,
    seen: Arc<Seen>,
}

impl Future for Answer {
    type Output = Result<Reply, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let reply = match self.outcome.take() {
            Some(Outcome::Reply(reply)) => reply,
            Some(Outcome::Later(mut later)) => match later.as_mut().poll(cx) {
                Poll::Ready(reply) => reply,
                Poll::Pending => {
                    self.outcome = Some(Outcome::Later(later));
                    return Poll::Pending;
                }
            },
            Some(Outcome::Stream(_)) | None => return Poll::Pending,
        };
        self.seen.enter(Phase::Answered);
        Poll::Ready(Ok(reply))
    }
}

/// The socket as hyper sees it: notes what passes, and passes it on.
struct Carrier {
    io: TokioIo<TcpStream>,
    seen: Arc<Seen>,
    service: Arc<Service>,
}

impl Read for Carrier {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        // Bytes, or the end, which hyper will see to.
        if self.seen.phase() == Phase::Idle {
            self.seen.enter(Phase::Head);
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for Carrier {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.seen.flushed.store(false, Relaxed);
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.seen.flushed.store(false, Relaxed);
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.seen.flushed.store(true, Relaxed);
        if self.seen.phase() == Phase::Answered {
            self.service.counts.exchanges.fetch_sub(1, Relaxed);
            self.seen.enter(Phase::Idle);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
