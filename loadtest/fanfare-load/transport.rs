//! What streams are carried by: TCP or TLS, HTTP/1.1 with a connection each or HTTP/2 with many on one.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use clap::Args;
use mio::net::TcpStream;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::Result;
use crate::target::parse_url;

/// How streams are opened. Publishing stays on plain HTTP/1.1.
#[derive(Debug, Clone, Copy, Default, Args, Serialize)]
pub struct Transport {
    /// Open the streams inside TLS, at this address of the same server; whatever certificate it shows is accepted
    #[arg(long, value_name = "https://127.0.0.1:PORT", value_parser = |url: &str| parse_url("https", url))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<SocketAddr>,

    /// Open the streams over HTTP/2, so many on each connection (no more than the server allows); without --tls by
    /// prior knowledge (h2c)
    #[arg(long, value_name = "STREAMS", value_parser = clap::value_parser!(u32).range(1..))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http2: Option<u32>,
}

impl Transport {
    /// How many streams share a connection.
    pub fn streams_a_connection(&self) -> usize {
        self.http2.unwrap_or(1) as usize
    }
}

/// Makes connections of one kind to one server.
pub struct Dialer {
    server: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
}

impl Dialer {
    /// `server` is where it is without TLS.
    pub fn new(server: SocketAddr, transport: &Transport) -> Result<Self> {
        let tls = match transport.tls {
            None => None,
            Some(_) => Some(Arc::new(tls_config(transport.http2.is_some())?)),
        };
        Ok(Self { server: transport.tls.unwrap_or(server), tls })
    }

    /// Begins to connect, without waiting.
    pub fn dial(&self, source: Option<SocketAddr>) -> io::Result<Wire> {
        let socket = connect(self.server, source)?;
        let Some(config) = &self.tls else { return Ok(Wire::Tcp(socket)) };
        let name = ServerName::IpAddress(self.server.ip().into());
        let connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        Ok(Wire::Tls(Box::new(StreamOwned::new(connection, socket))))
    }
}

fn tls_config(http2: bool) -> Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    // Each stream is another client's: all handshakes are whole ones.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn connect(server: SocketAddr, source: Option<SocketAddr>) -> io::Result<TcpStream> {
    let Some(source) = source else {
        return TcpStream::connect(server);
    };
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Ports in TIME_WAIT may be taken again: the server's port makes the pair unique.
    socket.set_reuse_address(true)?;
    socket.bind(&source.into())?;
    match socket.connect(&server.into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

/// One connection's bytes. What cannot be done at once, also because it is still connecting, is
/// [`ErrorKind::WouldBlock`].
pub enum Wire {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Tcp(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }

    pub fn socket_mut(&mut self) -> &mut TcpStream {
        match self {
            Self::Tcp(socket) => socket,
            Self::Tls(stream) => &mut stream.sock,
        }
    }

    /// Whether a read that did not fill its buffer has taken all there was. TLS reads by the record.
    pub fn short_reads_drain(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }
}

fn not_yet<T>(done: io::Result<T>) -> io::Result<T> {
    done.map_err(|error| match error.kind() {
        ErrorKind::NotConnected => ErrorKind::WouldBlock.into(),
        _ => error,
    })
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        not_yet(match self {
            Self::Tcp(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        })
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        not_yet(match self {
            Self::Tcp(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        not_yet(match self {
            Self::Tcp(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        })
    }
}

/// For HTTP/2. Nobody is woken: who polls does so again when the socket is ready.
impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = pending(self.get_mut().read(buffer.initialize_unfilled()));
        read.map_ok(|read| buffer.advance(read))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        pending(self.get_mut().write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        pending(self.get_mut().flush())
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket().shutdown(std::net::Shutdown::Write))
    }
}

fn pending<T>(done: io::Result<T>) -> Poll<io::Result<T>> {
    match done {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
        done => Poll::Ready(done),
    }
}

/// Accepts every certificate of a server on this machine, which signs for itself; that it has the certificate's key is
/// verified all the same, as it is what a client's handshake costs.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
