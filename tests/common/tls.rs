//! A client within TLS, and a tunnel that takes TLS off, so that a test speaks its HTTP/1.1 within TLS too.
//!
//! The tunnel passes a connection's end on as it came: one without TLS's own end (`close_notify`; RFC 8446, section 6.1)
//! becomes a reset.

#![allow(dead_code, reason = "no test file uses all of this")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::common::{Conn, Server, Stream};

/// Starts the binary with TLS by a certificate of its own.
#[track_caller]
pub(crate) fn start(flags: &[&str]) -> Server {
    Server::start(&[&["--tls-listen", "127.0.0.1:0", "--tls-self-signed"], flags].concat())
}

/// The address where it speaks TLS.
pub(crate) fn tls_address(server: &Server) -> SocketAddr {
    server.tls.expect("the greeting says where TLS is spoken")
}

/// Takes any certificate, and keeps the last one.
#[derive(Debug, Default)]
pub(crate) struct Trusting {
    seen: Mutex<Option<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.seen.lock().expect("not poisoned") = Some(own.clone().into_owned());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signed, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A client's settings, and the certificate that it is shown. Sessions are not resumed: each handshake shows one.
pub(crate) fn client(protocol: &[u8]) -> (ClientConfig, Arc<Trusting>) {
    let trusting = Arc::new(Trusting::default());
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider knows them")
        .dangerous()
        .with_custom_certificate_verifier(trusting.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    (config, trusting)
}

pub(crate) async fn connect(addr: SocketAddr, config: ClientConfig) -> TlsStream<TcpStream> {
    let socket = TcpStream::connect(addr).await.expect("it accepts connections");
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, socket).await.expect("a handshake")
}

/// The certificate that a new connection is shown.
pub(crate) fn shown(server: &Server) -> CertificateDer<'static> {
    let runtime = Runtime::new().expect("the system has threads");
    let (config, trusting) = client(b"http/1.1");
    runtime.block_on(connect(tls_address(server), config));
    let seen = trusting.seen.lock().expect("not poisoned").take();
    seen.expect("it showed one")
}

/// Takes TLS off connections: what connects to it in plaintext is connected to the server.
pub(crate) struct Tunnel {
    addr: SocketAddr,
    _runtime: Runtime,
}

impl Tunnel {
    pub(crate) fn to(server: &Server) -> Tunnel {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("the system has a thread");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("there is a free port");
        let addr = listener.local_addr().expect("it is bound");
        let server = tls_address(server);
        runtime.spawn(async move {
            while let Ok((mut plain, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut encrypted = connect(server, client(b"http/1.1").0).await;
                    // The end of a connection without TLS's own end is an error here.
                    if copy_bidirectional(&mut encrypted, &mut plain).await.is_err() {
                        let _ = plain.set_zero_linger();
                    }
                });
            }
        });
        Tunnel { addr, _runtime: runtime }
    }

    #[track_caller]
    pub(crate) fn connect(&self) -> Conn {
        Conn::to(self.addr).expect("it accepts connections")
    }

    /// Opens a stream with further header lines, and reads its `connected`.
    #[track_caller]
    pub(crate) fn stream(&self, query: &str, lines: &str) -> Stream {
        let mut stream = Stream::open(self.connect(), query, lines);
        assert_eq!(stream.head.status, 200, "{:?}", stream.head);
        stream.connected = stream.expect("connected");
        stream
    }
}
