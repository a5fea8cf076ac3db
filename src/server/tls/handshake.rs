//! Handshakes: a connection becomes a TLS connection in time, or there is a name for why it did not.

use std::fmt;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustls::{AlertDescription, HandshakeKind};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Tls;

/// The content type of a handshake's records (RFC 8446, section 5.1): a TLS connection's first byte.
const HANDSHAKE: u8 = 22;

/// What a client is told that speaks HTTP here without TLS.
const SPEAK_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n\
    Content-Length: 44\r\n\r\nThis port speaks TLS; expected https:// here\n";

/// How long, and for how many bytes, what such a client still sends is read away, so that the kernel does not reset the
/// connection over it before the client has read its answer.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_MAX: usize = 64 << 10;

/// Why a connection did not become a TLS connection.
#[derive(Debug)]
pub enum HandshakeError {
    /// It was not done in time.
    TooSlow,
    /// The client spoke something else: plaintext HTTP, most likely, and then it has been told.
    NotTls,
    /// The client broke off, and said so: it does not trust the certificate, most likely.
    Rejected(AlertDescription),
    /// The client broke the protocol, or there is no version, cipher suite or application protocol in common.
    Protocol(rustls::Error),
    /// The connection ended, in good order or not.
    Closed(io::Error),
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandshakeError::TooSlow => f.write_str("the TLS handshake was not done in time"),
            HandshakeError::NotTls => f.write_str("the client does not speak TLS"),
            HandshakeError::Rejected(alert) => write!(f, "the client broke off the TLS handshake: {alert:?}"),
            HandshakeError::Protocol(error) => write!(f, "the TLS handshake failed: {error}"),
            HandshakeError::Closed(error) => write!(f, "the connection ended within the TLS handshake: {error}"),
        }
    }
}

impl std::error::Error for HandshakeError {}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> HandshakeError {
        // What rustls has to say comes packed in an I/O error.
        match error.downcast::<rustls::Error>() {
            Ok(rustls::Error::AlertReceived(alert)) => HandshakeError::Rejected(alert),
            Ok(error) => HandshakeError::Protocol(error),
            Err(error) => HandshakeError::Closed(error),
        }
    }
}

impl Tls {
    /// Makes a connection a TLS connection, with the certificate that is in force when its first byte comes. It ends at
    /// the deadline at the latest (two seconds later where the client has to be told that this is TLS).
    ///
    /// # Errors
    /// [`HandshakeError`]. Each is counted, and logged by nobody but who wants to.
    pub async fn accept<IO>(&self, io: IO, deadline: Instant) -> Result<TlsStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let done = self.shake_hands(io, deadline).await;
        let counts = &self.counts;
        let counter = match &done {
            Ok(stream) => {
                if stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
                    counts.resumed.fetch_add(1, Relaxed);
                }
                &counts.handshakes
            }
            Err(HandshakeError::TooSlow) => &counts.too_slow,
            Err(HandshakeError::NotTls) => &counts.not_tls,
            Err(HandshakeError::Rejected(_)) => &counts.rejected,
            Err(HandshakeError::Protocol(_)) => &counts.protocol,
            Err(HandshakeError::Closed(_)) => &counts.closed,
        };
        counter.fetch_add(1, Relaxed);
        done
    }

    async fn shake_hands<IO>(&self, mut io: IO, deadline: Instant) -> Result<TlsStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let too_slow = |_| HandshakeError::TooSlow;
        // One byte tells, and is read before rustls is there: rustls would answer plaintext with an alert, which would
        // garble the answer in plaintext; and who only connects costs no more than a socket.
        let first = timeout_at(deadline, io.read_u8()).await.map_err(too_slow)??;
        if first != HANDSHAKE {
            // The methods of HTTP are capital letters, and so is the preface of HTTP/2.
            if first.is_ascii_uppercase() {
                // Who does not take the answer has been told all the same.
                let _ = timeout(LINGER, refuse_plaintext(&mut io)).await;
            }
            return Err(HandshakeError::NotTls);
        }
        let mut refused = None;
        let handshake = TlsAcceptor::from(self.config()).accept_with(io, |connection| {
            refused = connection.read_tls(&mut [first].as_slice()).err();
        });
        match refused {
            None => Ok(timeout_at(deadline, handshake).await.map_err(too_slow)??),
            Some(error) => Err(error.into()),
        }
    }
}

async fn refuse_plaintext<IO: AsyncRead + AsyncWrite + Unpin>(io: &mut IO) -> io::Result<()> {
    io.write_all(SPEAK_TLS).await?;
    io.shutdown().await?;
    let mut buf = [0; 4096];
    let mut read = 0;
    while read < LINGER_MAX {
        match io.read(&mut buf).await? {
            0 => break,
            n => read += n,
        }
    }
    Ok(())
}
