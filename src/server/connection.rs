//! One connection: requests and answers by hyper, until one of them asks for a stream. Then the socket is taken out
//! of hyper and given to a shard, and all that hyper and tokio held for it is freed.
//!
//! hyper knows upgrades only after a response; here nothing of the response must be written by hyper. So the service
//! notes what the stream needs and stays pending for ever, and the driver of the connection, which polls it, sees the
//! note and takes the connection apart. That is sound once nothing of an earlier (pipelined) response waits in hyper's
//! buffer, which shows in hyper having flushed after its last write.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until, timeout};

use super::ServerConfig;
use super::own_answer::OwnAnswer;
use super::resident::{self, PREFACE, Protocol};
use super::service::{Outcome, Peer, Service};
use crate::http::reply::Reply;
use crate::http::subscribe::Opening;
use crate::sync::lock;

/// How long, and for how many bytes, a connection that is over reads away what its client still sends.
pub(super) const LINGER: Duration = Duration::from_secs(2);
const LINGER_MAX: usize = 16 << 20;

/// Serves a connection to its end, or until it has become a stream; gives the shard that the stream went to, if the
/// caller is to wake it soon.
pub(super) async fn serve(
    mut socket: Socket,
    permit: OwnedSemaphorePermit,
    peer: Peer,
    config: Arc<ServerConfig>,
    service: Arc<Service>,
) -> Option<usize> {
    // hyper's buffers are made only for those who speak: a flood of silent connections costs no more than sockets.
    let first = match timeout(config.head_timeout, socket.first_bytes()).await {
        Ok(Ok(bytes)) if !bytes.is_empty() => bytes,
        Ok(_) => return None,
        Err(_) => {
            service.counts.slow_heads.fetch_add(1, Relaxed);
            return None;
        }
    };
    let speaks_http2 = first.starts_with(PREFACE);
    let own = OwnAnswer::new(service.clone(), config.max_head);
    let carrier = Io { socket, first, seen: Arc::default(), own };
    if speaks_http2 {
        // Its answers are frames, and all of them its own.
        carrier.seen.enter(Phase::Exchange);
        let peer = Peer { pulls: true, ..peer };
        resident::serve(carrier, Protocol::Http2, peer, permit, config, service).await;
        return None;
    }
    let seen = carrier.seen.clone();
    let exchange = Exchange { service: service.clone(), peer, seen: seen.clone() };
    let mut connection = http1::Builder::new()
        .max_header_size(config.max_head)
        .max_buf_size(config.max_head.max(8192))
        .title_case_headers(true)
        // Who closes the sending side behind a request still gets the answer.
        .half_close(true)
        // The driver below keeps the deadlines.
        .header_read_timeout(None)
        .serve_connection(carrier, exchange);

    let end = drive(&mut connection, &config, &seen).await;
    if matches!(seen.phase(), Phase::Exchange | Phase::Answered) {
        service.counts.exchanges.fetch_sub(1, Relaxed);
    }
    match end {
        End::Stream(opening) => {
            // Bytes behind the request are dropped with hyper's buffer: a stream answers nothing else.
            let socket = connection.into_parts().io.socket;
            match socket.into_std() {
                Ok(socket) => return service.hand_over(*opening, socket),
                Err(error) => tracing::error!(%error, "cannot take a socket over"),
            }
        }
        End::Late(Phase::Head) => {
            service.counts.slow_heads.fetch_add(1, Relaxed);
            // Best effort: nothing has been written before, so there is room for it.
            let answer = service.broken_head(Some(StatusCode::REQUEST_TIMEOUT), config.max_head);
            let _ = connection.into_parts().io.socket.into_std().and_then(|mut socket| socket.write(&answer));
        }
        End::Done => connection.into_parts().io.socket.linger().await,
        End::Late(_) => {}
    }
    None
}

/// How the part of a connection that hyper serves ends.
enum End {
    Done,
    Stream(Box<Opening>),
    Late(Phase),
}

async fn drive(connection: &mut http1::Connection<Io, Exchange>, config: &ServerConfig, seen: &Seen) -> End {
    // Registered with the timer only where the first poll does not settle it, as it does for nearly every stream.
    let mut deadline = pin!(sleep_until(Instant::now()));
    let mut timed = None;
    poll_fn(|cx| {
        // With its shutdown: without, hyper may leave the end of the last answer in its buffer (hyper #4143).
        if let Poll::Ready(result) = Pin::new(&mut *connection).poll(cx) {
            if let Err(error) = result {
                tracing::debug!(%error, "connection ended");
            }
            return Poll::Ready(End::Done);
        }
        if let Some(opening) = seen.take_opening() {
            return Poll::Ready(End::Stream(opening));
        }
        let phase = seen.phase();
        // By turns and not by phase: a whole exchange may have passed since the last look, and left it as it was.
        let turn = seen.turn.load(Relaxed);
        if timed != Some(turn) {
            timed = Some(turn);
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
    /// Phases entered.
    turn: AtomicU32,
}

impl Default for Seen {
    fn default() -> Seen {
        Seen {
            opening: Mutex::default(),
            has_opening: AtomicBool::new(false),
            flushed: AtomicBool::new(true),
            // Its first byte has been seen.
            phase: AtomicU8::new(Phase::Head as u8),
            turn: AtomicU32::new(0),
        }
    }
}

impl Seen {
    /// The stream to open, as soon as the connection is free for it.
    fn take_opening(&self) -> Option<Box<Opening>> {
        if !self.has_opening.load(Relaxed) || !self.flushed.load(Relaxed) {
            return None;
        }
        lock(&self.opening).take()
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
        self.turn.fetch_add(1, Relaxed);
    }
}

/// The service as hyper sees it, one for each connection.
struct Exchange {
    service: Arc<Service>,
    peer: Peer,
    seen: Arc<Seen>,
}

impl hyper::service::Service<Request<Incoming>> for Exchange {
    type Response = Reply;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        self.seen.enter(Phase::Exchange);
        self.service.counts.exchanges.fetch_add(1, Relaxed);
        Answer { outcome: Some(self.service.route(request, &self.peer)), seen: self.seen.clone() }
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
        loop {
            match self.outcome.take() {
                Some(Outcome::Reply(reply)) => {
                    self.seen.enter(Phase::Answered);
                    return Poll::Ready(Ok(reply));
                }
                Some(Outcome::Later(mut later)) => match later.as_mut().poll(cx) {
                    Poll::Ready(outcome) => self.outcome = Some(outcome),
                    Poll::Pending => {
                        self.outcome = Some(Outcome::Later(later));
                        return Poll::Pending;
                    }
                },
                Some(Outcome::Stream(opening)) => {
                    *lock(&self.seen.opening) = Some(opening);
                    self.seen.has_opening.store(true, Relaxed);
                }
                None => return Poll::Pending,
            }
        }
    }
}

/// The socket as hyper sees it: notes what passes, and passes it on.
struct Io {
    socket: Socket,
    /// What was read before hyper was there.
    first: Vec<u8>,
    seen: Arc<Seen>,
    own: OwnAnswer,
}

impl Io {
    /// Whether hyper writes an answer that it was not given: to a head that it cannot read.
    fn is_own_answer(&self) -> bool {
        matches!(self.seen.phase(), Phase::Idle | Phase::Head)
    }

    fn write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.socket.attempt(|socket| socket.write(buf)) {
            Some(written) => Poll::Ready(written),
            None => Pin::new(self.socket.watch()?).poll_write(cx, buf),
        }
    }
}

/// A socket that tokio learns of only when there is something to wait for. A request for a stream is mostly there
/// when its connection is accepted: then two system calls and tokio's 256 bytes a socket are saved.
pub(super) enum Socket {
    Fresh(std::net::TcpStream),
    Watched(TokioIo<TcpStream>),
    /// Between the two, and after tokio has refused it.
    Gone,
}

impl Socket {
    /// A socket that tokio does not know of.
    pub(super) fn fresh(socket: std::net::TcpStream) -> Socket {
        Socket::Fresh(socket)
    }

    /// A socket that tokio knows.
    pub(super) fn watched(socket: TcpStream) -> Socket {
        Socket::Watched(TokioIo::new(socket))
    }

    /// Waits for the first bytes, enough of them to tell HTTP/2 from HTTP/1; none if the connection ends before.
    async fn first_bytes(&mut self) -> io::Result<Vec<u8>> {
        let mut first = self.some_bytes().await?;
        while !first.is_empty() && first.len() < PREFACE.len() && PREFACE.starts_with(&first) {
            let more = self.some_bytes().await?;
            if more.is_empty() {
                break;
            }
            first.extend(more);
        }
        Ok(first)
    }

    async fn some_bytes(&mut self) -> io::Result<Vec<u8>> {
        if let Some(read) = self.attempt(|socket| read_some(|buf| socket.read(buf))) {
            return read;
        }
        let socket = self.watch()?.inner();
        loop {
            socket.readable().await?;
            match read_some(|buf| socket.try_read(buf)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }

    fn watch(&mut self) -> io::Result<&mut TokioIo<TcpStream>> {
        *self = match std::mem::replace(self, Socket::Gone) {
            Socket::Fresh(socket) => Socket::watched(TcpStream::from_std(socket)?),
            other => other,
        };
        match self {
            Socket::Watched(watched) => Ok(watched),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Closes in good order: this side first, then, once it has read away what the client still sends, all of it.
    /// Closing with something unread makes the kernel reset the connection, and the client may lose the answer: the
    /// very one that told it why the rest would not be read.
    async fn linger(mut self) {
        let Ok(watched) = self.watch() else { return };
        let socket = watched.inner();
        let read_away = async {
            let mut read = 0;
            while read < LINGER_MAX && socket.readable().await.is_ok() {
                match socket.try_read(&mut [0; 4096]) {
                    Ok(n @ 1..) => read += n,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    _ => break,
                }
            }
        };
        if SockRef::from(socket).shutdown(Shutdown::Write).is_ok() {
            let _ = timeout(LINGER, read_away).await;
        }
    }

    fn into_std(self) -> io::Result<std::net::TcpStream> {
        match self {
            Socket::Fresh(socket) => Ok(socket),
            Socket::Watched(watched) => watched.into_inner().into_std(),
            Socket::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Does it on the bare socket, if tokio need not know of it (yet).
    fn attempt<T>(&mut self, act: impl FnOnce(&mut std::net::TcpStream) -> io::Result<T>) -> Option<io::Result<T>> {
        let Socket::Fresh(socket) = self else { return None };
        match act(socket) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            done => Some(done),
        }
    }
}

/// Reads what fits into a buffer that most heads fit into.
fn read_some(read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<Vec<u8>> {
    let mut buf = [0; 2048];
    let n = read(&mut buf)?;
    Ok(buf[..n].to_vec())
}

impl Read for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let n = self.first.len().min(buf.remaining());
            buf.put_slice(&self.first[..n]);
            self.first.drain(..n);
        } else {
            ready!(Pin::new(self.socket.watch()?).poll_read(cx, buf))?;
        }
        // Bytes, or the end, which hyper will see to.
        if self.seen.phase() == Phase::Idle {
            self.seen.enter(Phase::Head);
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.seen.flushed.store(false, Relaxed);
        match self.is_own_answer() {
            true => Poll::Ready(Ok(self.own.replace(buf))),
            false => self.write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.seen.flushed.store(false, Relaxed);
        if self.is_own_answer() {
            return Poll::Ready(Ok(bufs.iter().map(|buf| self.own.replace(buf)).sum()));
        }
        match self.socket.attempt(|socket| socket.write_vectored(bufs)) {
            Some(written) => Poll::Ready(written),
            None => Pin::new(self.socket.watch()?).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.own.rest() {
            let written = ready!(self.write(cx, &rest))?;
            self.own.written(written);
        }
        // A socket keeps nothing back.
        self.seen.flushed.store(true, Relaxed);
        if self.seen.phase() == Phase::Answered {
            self.own.service().counts.exchanges.fetch_sub(1, Relaxed);
            self.seen.enter(Phase::Idle);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.socket.attempt(|socket| socket.shutdown(Shutdown::Write)) {
            Some(done) => Poll::Ready(done),
            None => Pin::new(self.socket.watch()?).poll_shutdown(cx),
        }
    }
}
