//! One connection and the streams on it: what they ask goes out, and what they receive comes back as bytes of HTTP/1.1,
//! whatever carried them, so that all that reads them is written once.

use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use hyper::Request;
use hyper::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL};
use mio::{Interest, Registry, Token};
use socket2::SockRef;

use crate::http2::Http2;
use crate::transport::Wire;

/// What a stream asks for.
pub struct Asking<'a> {
    /// The query, see [`Address`](crate::address::Address).
    pub query: &'a str,
    /// Where it goes on from.
    pub last_event_id: Option<String>,
    /// Who asks.
    pub token: Option<&'a str>,
}

impl Asking<'_> {
    fn http1(&self) -> String {
        let field =
            |name: &str, value: Option<&str>| value.map_or_else(String::new, |value| format!("{name}{value}\r\n"));
        format!(
            "GET /api/v1/events?{} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\
             Cache-Control: no-cache\r\n{}{}\r\n",
            self.query,
            field("Last-Event-ID: ", self.last_event_id.as_deref()),
            field("Authorization: Bearer ", self.token),
        )
    }

    fn http2(&self) -> Request<()> {
        let mut request = Request::get(format!("http://127.0.0.1/api/v1/events?{}", self.query))
            .header(ACCEPT, "text/event-stream")
            .header(CACHE_CONTROL, "no-cache");
        if let Some(id) = &self.last_event_id {
            request = request.header("last-event-id", id);
        }
        if let Some(token) = self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        request.body(()).expect("this tool's own names are printable ASCII")
    }
}

/// What a stream is sent: bytes, or its end and why.
pub type Got<'a> = std::result::Result<&'a [u8], &'a str>;

/// A connection, by the protocol it speaks.
pub enum Carrier {
    Http1(Http1),
    Http2(Box<Http2>),
}

/// The connection of one stream.
pub struct Http1 {
    wire: Wire,
    stream: usize,
    /// What of its request has not been sent.
    unsent: Vec<u8>,
}

impl Carrier {
    /// For the streams that are given to [`Carrier::ask`] from now on; with HTTP/1.1 only one.
    pub fn new(wire: Wire, http2: bool) -> Self {
        match http2 {
            false => Self::Http1(Http1 { wire, stream: usize::MAX, unsent: Vec::new() }),
            true => {
                reset_when_closed(&wire);
                Self::Http2(Box::new(Http2::new(wire)))
            }
        }
    }

    /// Tells the poll of it. After the first [`Carrier::ask`]: where that went out whole, as it nearly always does over
    /// loopback, waiting for writability is saved.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        match self {
            Self::Http1(Http1 { wire: wire @ Wire::Tcp(_), unsent, .. }) if unsent.is_empty() => {
                registry.register(wire.socket_mut(), token, Interest::READABLE)
            }
            Self::Http1(http1) => registry.register(http1.wire.socket_mut(), token, both),
            Self::Http2(http2) => match http2.wire_mut() {
                Some(wire) => registry.register(wire.socket_mut(), token, both),
                None => Ok(()),
            },
        }
    }

    /// Has a stream's request sent, now or as soon as that is possible. Over HTTP/2 it takes a [`Carrier::drive`].
    pub fn ask(&mut self, stream: usize, asking: &Asking<'_>) -> io::Result<()> {
        match self {
            Self::Http1(http1) => {
                http1.stream = stream;
                http1.unsent = asking.http1().into_bytes();
                http1.send()
            }
            Self::Http2(http2) => {
                http2.ask(stream, asking.http2());
                Ok(())
            }
        }
    }

    /// Sends what waits and reads all there is. `each` takes a stream's bytes, or its end, and gives whether to go on with
    /// it. Gives whether the connection goes on.
    pub fn drive(
        &mut self,
        buffer: &mut [u8],
        until_closed: bool,
        mut each: impl FnMut(usize, Got<'_>) -> bool,
    ) -> io::Result<bool> {
        match self {
            Self::Http1(http1) => http1.drive(buffer, until_closed, each),
            Self::Http2(http2) => http2.drive(&mut each),
        }
    }

    /// Has the kernel reset the connection when it is closed.
    pub fn reset_when_closed(&self) {
        match self {
            Self::Http1(http1) => reset_when_closed(&http1.wire),
            // It was told so at its beginning.
            Self::Http2(_) => {}
        }
    }
}

fn reset_when_closed(wire: &Wire) {
    let _ = SockRef::from(wire.socket()).set_linger(Some(Duration::ZERO));
}

impl Http1 {
    fn send(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.wire.write(&self.unsent) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(sent) if sent == self.unsent.len() => self.unsent = Vec::new(),
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn drive(
        &mut self,
        buffer: &mut [u8],
        until_closed: bool,
        mut each: impl FnMut(usize, Got<'_>) -> bool,
    ) -> io::Result<bool> {
        self.send()?;
        loop {
            match self.wire.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(read) => {
                    if !each(self.stream, Ok(&buffer[..read])) {
                        return Ok(false);
                    }
                    if read < buffer.len() && !until_closed && self.wire.short_reads_drain() {
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
