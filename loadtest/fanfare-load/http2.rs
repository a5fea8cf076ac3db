//! The client's side of an HTTP/2 connection, driven by the fleet's own poll: no runtime and no tasks. What h2 would wake
//! a task for is noted in a list, stream by stream, and read when the connection has been.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write as _};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use h2::RecvStream;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use hyper::Request;

use crate::carrier::Got;
use crate::transport::Wire;

/// The windows that Chromium opens, for a stream and for the connection.
const STREAM_WINDOW: u32 = 6 << 20;
const CONNECTION_WINDOW: u32 = 15 << 20;

/// One connection.
pub struct Http2 {
    state: State,
    /// Requests that have to wait: until the connection is there, or until the server allows more streams.
    unsent: VecDeque<(usize, Request<()>)>,
    streams: HashMap<usize, Stream>,
    /// The streams that have something to read.
    called: Arc<Mutex<Vec<usize>>>,
    /// Where chunks are put together.
    chunks: Vec<u8>,
}

type Opened = (SendRequest<Bytes>, Connection<Wire, Bytes>);

enum State {
    New(Wire),
    Greeting(Pin<Box<dyn Future<Output = Result<Opened, h2::Error>>>>),
    Open(Box<Opened>),
    Over,
}

struct Stream {
    waker: Waker,
    answer: Answer,
}

enum Answer {
    Awaited(ResponseFuture),
    Body(RecvStream),
}

struct Call {
    stream: usize,
    called: Arc<Mutex<Vec<usize>>>,
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.called.lock().unwrap_or_else(PoisonError::into_inner).push(self.stream);
    }
}

impl Http2 {
    pub fn new(wire: Wire) -> Self {
        Self {
            state: State::New(wire),
            unsent: VecDeque::new(),
            streams: HashMap::new(),
            called: Arc::default(),
            chunks: Vec::new(),
        }
    }

    /// The connection's bytes, until the first [`Http2::drive`].
    pub fn wire_mut(&mut self) -> Option<&mut Wire> {
        match &mut self.state {
            State::New(wire) => Some(wire),
            _ => None,
        }
    }

    pub fn ask(&mut self, stream: usize, request: Request<()>) {
        self.unsent.push_back((stream, request));
    }

    /// See [`Carrier::drive`](crate::carrier::Carrier::drive).
    pub fn drive(&mut self, each: &mut impl FnMut(usize, Got<'_>) -> bool) -> io::Result<bool> {
        let mut cx = Context::from_waker(Waker::noop());
        if !self.greet(&mut cx)? {
            return Ok(true);
        }
        loop {
            let sent = self.send(&mut cx)?;
            let State::Open(open) = &mut self.state else { return Ok(false) };
            if let Poll::Ready(ended) = Pin::new(&mut open.1).poll(&mut cx) {
                self.state = State::Over;
                return ended.map(|()| false).map_err(io::Error::other);
            }
            let called = std::mem::take(&mut *self.called.lock().unwrap_or_else(PoisonError::into_inner));
            // What was read has made room, and the server has to be told: once more around.
            if !sent && called.is_empty() {
                return Ok(true);
            }
            for stream in called {
                self.receive(stream, each);
            }
        }
    }

    /// Gives whether the connection is open.
    fn greet(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        self.state = match std::mem::replace(&mut self.state, State::Over) {
            State::New(wire) => {
                let mut builder = Builder::new();
                builder.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
                builder.enable_push(false);
                State::Greeting(Box::pin(async move { builder.handshake(wire).await }))
            }
            state => state,
        };
        if let State::Greeting(greeting) = &mut self.state
            && let Poll::Ready(opened) = greeting.as_mut().poll(cx)
        {
            self.state = State::Open(Box::new(opened.map_err(io::Error::other)?));
        }
        Ok(!matches!(self.state, State::Greeting(_)))
    }

    /// Gives whether there is something new for the connection to write.
    fn send(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let State::Open(open) = &mut self.state else { return Ok(false) };
        let mut sent = false;
        while !self.unsent.is_empty() {
            match open.0.poll_ready(cx) {
                Poll::Pending => break,
                Poll::Ready(ready) => ready.map_err(io::Error::other)?,
            }
            if let Some((stream, request)) = self.unsent.pop_front() {
                let (response, _) = open.0.send_request(request, true).map_err(io::Error::other)?;
                let call = Call { stream, called: Arc::clone(&self.called) };
                let waker = Waker::from(Arc::new(call));
                // It has to be polled once to be waked.
                waker.wake_by_ref();
                self.streams.insert(stream, Stream { waker, answer: Answer::Awaited(response) });
                sent = true;
            }
        }
        Ok(sent)
    }

    fn receive(&mut self, index: usize, each: &mut impl FnMut(usize, Got<'_>) -> bool) {
        let Some(stream) = self.streams.get_mut(&index) else { return };
        let mut cx = Context::from_waker(&stream.waker);
        let end = loop {
            self.chunks.clear();
            match &mut stream.answer {
                Answer::Awaited(response) => match Pin::new(response).poll(&mut cx) {
                    Poll::Pending => return,
                    Poll::Ready(Ok(response)) => {
                        // Writing into a Vec cannot fail.
                        let status = response.status();
                        let _ = write!(self.chunks, "HTTP/1.1 {status}\r\ntransfer-encoding: chunked\r\n\r\n");
                        stream.answer = Answer::Body(response.into_body());
                    }
                    Poll::Ready(Err(error)) => break error.to_string(),
                },
                Answer::Body(body) => match body.poll_data(&mut cx) {
                    Poll::Pending => return,
                    Poll::Ready(Some(Ok(data))) => {
                        // It fails only where more is given back than was taken.
                        let _ = body.flow_control().release_capacity(data.len());
                        chunk_events(&data, &mut self.chunks);
                    }
                    Poll::Ready(Some(Err(error))) => break error.to_string(),
                    Poll::Ready(None) => break "ended by the server".to_owned(),
                },
            }
            if !each(index, Ok(&self.chunks)) {
                self.streams.remove(&index);
                return;
            }
        };
        self.streams.remove(&index);
        each(index, Err(&end));
    }
}

/// Makes each event a chunk of its own, as it is in HTTP/1.1: so the events of all streams can be compared byte by byte,
/// however many of them came in one frame.
fn chunk_events(mut data: &[u8], chunks: &mut Vec<u8>) {
    while !data.is_empty() {
        let end = memchr::memmem::find(data, b"\n\n").map_or(data.len(), |blank| blank + 2);
        // Writing into a Vec cannot fail.
        let _ = write!(chunks, "{end:x}\r\n");
        chunks.extend_from_slice(&data[..end]);
        chunks.extend_from_slice(b"\r\n");
        data = &data[end..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_becomes_a_chunk() {
        let mut chunks = Vec::new();
        chunk_events(b"data: a\n\ndata: longer than b\n\ndata: beg", &mut chunks);
        assert_eq!(chunks, b"9\r\ndata: a\n\n\r\n15\r\ndata: longer than b\n\n\r\n9\r\ndata: beg\r\n");
    }
}
