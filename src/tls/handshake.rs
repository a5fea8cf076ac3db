//! Handshakes: a connection becomes a TLS connection in time, or there is a name for why it did not.

use std::fmt;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustls::{AlertDescription, HandshakeKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy, sink};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::current::Tls;

/// The content type of a handshake's records (RFC 8446, section 5.1): a TLS connection's first byte.
const HANDSHAKE: u8 = 22;

/// What a client is told that speaks HTTP here without TLS.
const SPEAK_TLS: &str = "This port speaks TLS; expected https:// here\n";

/// How long, and for how many bytes, what such a client still sends is read away, so that the kernel does not reset the
/// connection over it before the client has read its answer.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_MAX: u64 = 64 << 10;

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
    pub async fn accept(&self, socket: TcpStream, deadline: Instant) -> Result<TlsStream<TcpStream>, HandshakeError> {
        let done = self.shake_hands(socket, deadline).await;
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

    async fn shake_hands(
        &self,
        mut socket: TcpStream,
        deadline: Instant,
    ) -> Result<TlsStream<TcpStream>, HandshakeError> {
        let too_slow = |_| HandshakeError::TooSlow;
        // One byte tells, and is looked at before rustls is there: rustls would answer plaintext with an alert, which
        // would garble the answer in plaintext; and who only connects costs no more than a socket. It is not read, since
        // rustls grows its buffer for a record of which it has the beginning, and keeps that.
        let mut first = [0];
        match timeout_at(deadline, socket.peek(&mut first)).await.map_err(too_slow)?? {
            0 => return Err(HandshakeError::Closed(io::ErrorKind::UnexpectedEof.into())),
            _ if first == [HANDSHAKE] => {}
            _ => {
                // The methods of HTTP are capital letters, and so is the preface of HTTP/2.
                if first[0].is_ascii_uppercase() {
                    // Who does not take the answer has been told all the same.
                    let _ = timeout(LINGER, refuse_plaintext(&mut socket)).await;
                }
                return Err(HandshakeError::NotTls);
            }
        }
        let handshake = TlsAcceptor::from(self.config()).accept(socket);
        Ok(timeout_at(deadline, handshake).await.map_err(too_slow)??)
    }
}

async fn refuse_plaintext(socket: &mut TcpStream) -> io::Result<()> {
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{SPEAK_TLS}",
        SPEAK_TLS.len(),
    );
    socket.write_all(answer.as_bytes()).await?;
    socket.shutdown().await?;
    // Its buffer is on the heap: on the stack it would be part of every handshake's future.
    copy(&mut socket.take(LINGER_MAX), &mut sink()).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::process::{Command, Output, Stdio};
    use std::sync::Arc;

    use rustls::crypto::aws_lc_rs::default_provider;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::version::{TLS12, TLS13};
    use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
    use tokio_rustls::{TlsConnector, client};

    use super::super::certificate::tests::{Dir, Issued, issue, openssl};
    use super::super::current::{Source, TlsConfig};
    use super::*;
    use crate::clock::Timestamp;

    const NOW: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);

    /// What must happen happens sooner.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// A server that gives back what it is sent, once it has shaken hands.
    struct Server {
        tls: Arc<Tls>,
        address: SocketAddr,
        errors: UnboundedReceiver<HandshakeError>,
    }

    impl Server {
        async fn start(tls: Tls, patience: Duration) -> Server {
            let tls = Arc::new(tls);
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
            let address = listener.local_addr().expect("it is bound");
            let (told, errors) = unbounded_channel();
            let serving = tls.clone();
            tokio::spawn(async move {
                while let Ok((socket, _)) = listener.accept().await {
                    let (tls, told) = (serving.clone(), told.clone());
                    tokio::spawn(async move {
                        match tls.accept(socket, Instant::now() + patience).await {
                            Ok(stream) => {
                                let (mut reading, mut writing) = tokio::io::split(stream);
                                let _ = tokio::io::copy(&mut reading, &mut writing).await;
                            }
                            Err(error) => drop(told.send(error)),
                        }
                    });
                }
            });
            Server { tls, address, errors }
        }

        async fn with(issued: &Issued) -> (Dir, Server) {
            let dir = Dir::new();
            dir.write(issued);
            let config = TlsConfig { listen: ([127, 0, 0, 1], 0).into(), source: Source::Files(dir.0.clone()) };
            let tls = Tls::load(&config, NOW).expect("the files are in order");
            (dir, Server::start(tls, PATIENCE).await)
        }

        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).await.expect("it accepts connections")
        }

        async fn error(&mut self) -> HandshakeError {
            timeout(PATIENCE, self.errors.recv()).await.expect("an error in time").expect("the server runs")
        }

        /// All counters of handshakes: completed, resumed, then the failures in the order of their names.
        fn counts(&self) -> [u64; 7] {
            let f = self.tls.figures();
            [f.handshakes, f.resumed, f.too_slow, f.not_tls, f.rejected, f.protocol, f.closed]
        }
    }

    /// A client that trusts this certificate alone.
    fn client(root: &CertificateDer<'static>, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(root.clone()).expect("it is a certificate");
        ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .expect("the provider knows them")
            .with_root_certificates(roots)
            .with_no_client_auth()
    }

    async fn shake_hands(server: &Server, config: &Arc<ClientConfig>) -> io::Result<client::TlsStream<TcpStream>> {
        let name = ServerName::try_from("localhost").expect("it is a name");
        TlsConnector::from(config.clone()).connect(name, server.connect().await).await
    }

    /// Panics unless the connection carries bytes both ways. It reads the ticket too, which comes before them.
    async fn assert_works(stream: &mut client::TlsStream<TcpStream>) {
        let mut buf = [0; 4];
        let echo = async {
            stream.write_all(b"ping").await?;
            stream.flush().await?;
            stream.read_exact(&mut buf).await
        };
        timeout(PATIENCE, echo).await.expect("an answer in time").expect("the connection works");
        assert_eq!(&buf, b"ping");
    }

    fn served(stream: &client::TlsStream<TcpStream>) -> &CertificateDer<'static> {
        &stream.get_ref().1.peer_certificates().expect("it showed a certificate")[0]
    }

    #[tokio::test]
    async fn a_connection_outlives_a_reload_and_a_new_one_gets_the_new_certificate() {
        let (first, second) = (issue((2020, 2040)), issue((2020, 2041)));
        let (dir, mut server) = Server::with(&first).await;
        let (old, new) = (Arc::new(client(&first.der, &[&TLS13])), Arc::new(client(&second.der, &[&TLS13])));
        let mut before = shake_hands(&server, &old).await.expect("the first certificate is trusted");
        assert_works(&mut before).await;
        assert_eq!(*served(&before), first.der);

        // Half of the pair changes nothing for anybody.
        dir.write_cert(&second.cert_pem);
        assert!(server.tls.reload(NOW).is_err());
        assert_works(&mut shake_hands(&server, &old).await.expect("the first certificate is in force")).await;
        dir.write_key(&second.key_pem);
        assert_eq!(server.tls.reload(NOW), Ok(true));

        let mut after = shake_hands(&server, &new).await.expect("the second certificate is trusted");
        assert_eq!(*served(&after), second.der);
        assert_works(&mut after).await;
        assert_works(&mut before).await;
        // Neither does a session go on that the first certificate began.
        assert!(shake_hands(&server, &old).await.is_err());
        let error = server.error().await;
        assert!(matches!(error, HandshakeError::Rejected(_)), "{error}");
        assert_eq!(server.counts(), [3, 1, 0, 0, 1, 0, 0]);
    }

    #[tokio::test]
    async fn who_comes_back_resumes() {
        for (version, name) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
            let issued = issue((2020, 2040));
            let (_dir, server) = Server::with(&issued).await;
            let client = Arc::new(client(&issued.der, &[version]));
            for time in 0..4 {
                let mut stream = shake_hands(&server, &client).await.expect("it is trusted");
                let kind = stream.get_ref().1.handshake_kind().expect("it is done");
                assert_eq!(kind == HandshakeKind::Resumed, time > 0, "{name:?}, time {time}: {kind:?}");
                assert_eq!(stream.get_ref().1.protocol_version(), Some(name));
                // One ticket a connection is enough for that.
                assert_eq!(stream.get_ref().1.tls13_tickets_received(), 0);
                assert_works(&mut stream).await;
                assert_eq!(stream.get_ref().1.tls13_tickets_received(), u32::from(version.version == TLS13.version));
            }
            assert_eq!(server.counts(), [4, 3, 0, 0, 0, 0, 0]);
        }
    }

    #[tokio::test]
    async fn http_2_is_preferred_and_a_protocol_in_common_is_needed() {
        let issued = issue((2020, 2040));
        let (_dir, mut server) = Server::with(&issued).await;
        for (offered, chosen) in [
            (&["http/1.1", "h2"][..], Some("h2")),
            (&["http/1.1"], Some("http/1.1")),
            (&["acme-tls/1", "http/1.1"], Some("http/1.1")),
            (&[], None),
        ] {
            let mut client = client(&issued.der, &[&TLS13, &TLS12]);
            client.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
            let stream = shake_hands(&server, &Arc::new(client)).await.expect("there is one");
            assert_eq!(stream.get_ref().1.alpn_protocol(), chosen.map(str::as_bytes), "{offered:?}");
        }
        let mut client = client(&issued.der, &[&TLS13, &TLS12]);
        client.alpn_protocols = vec![b"smtp".to_vec()];
        shake_hands(&server, &Arc::new(client)).await.expect_err("there is none");
        let error = server.error().await;
        assert!(matches!(error, HandshakeError::Protocol(rustls::Error::NoApplicationProtocol)), "{error}");
        assert_eq!(server.counts()[5], 1);
    }

    #[tokio::test]
    async fn http_without_tls_is_told_and_other_plaintext_is_not() {
        let (_dir, mut server) = Server::with(&issue((2020, 2040))).await;
        for (sent, answer) in [
            (&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], SPEAK_TLS),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", SPEAK_TLS),
            (b"\0", ""),
            (b"hello", ""),
        ] {
            let mut socket = server.connect().await;
            socket.write_all(sent).await.expect("it is sent");
            let mut told = Vec::new();
            timeout(PATIENCE, socket.read_to_end(&mut told)).await.expect("in time").ok();
            let told = String::from_utf8(told).expect("it is text");
            let (head, body) = told.split_once("\r\n\r\n").unwrap_or_default();
            assert_eq!(body, answer, "{told}");
            assert_eq!(head.starts_with("HTTP/1.1 400 "), !answer.is_empty(), "{told}");
            drop(socket);
            let error = server.error().await;
            assert!(matches!(error, HandshakeError::NotTls), "{error}");
        }
        assert_eq!(server.counts(), [0, 0, 0, 4, 0, 0, 0]);
    }

    #[tokio::test]
    async fn the_answer_survives_a_request_that_is_still_being_sent() {
        let (_dir, mut server) = Server::with(&issue((2020, 2040))).await;
        let mut socket = server.connect().await;
        let request =
            [&b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 32768\r\n\r\n"[..], &[b'x'; 32768]].concat();
        for part in request.chunks(8192) {
            socket.write_all(part).await.expect("the connection is not reset");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        socket.shutdown().await.expect("the connection is not reset");
        let mut told = Vec::new();
        timeout(PATIENCE, socket.read_to_end(&mut told)).await.expect("in time").expect("the connection is not reset");
        assert!(told.ends_with(SPEAK_TLS.as_bytes()));
        assert!(matches!(server.error().await, HandshakeError::NotTls));
    }

    #[tokio::test]
    async fn who_is_too_slow_is_given_up() {
        let dir = Dir::new();
        dir.write(&issue((2020, 2040)));
        let config = TlsConfig { listen: ([127, 0, 0, 1], 0).into(), source: Source::Files(dir.0.clone()) };
        let tls = Tls::load(&config, NOW).expect("the files are in order");
        let mut server = Server::start(tls, Duration::from_millis(50)).await;
        // Nothing at all, one byte, a record's head and a part of what it announces.
        for sent in [&b""[..], &[HANDSHAKE], &[HANDSHAKE, 3, 1, 0, 100, 1, 0, 0, 96]] {
            let mut socket = server.connect().await;
            socket.write_all(sent).await.expect("it is sent");
            let error = server.error().await;
            assert!(matches!(error, HandshakeError::TooSlow), "{error}");
            let mut told = Vec::new();
            timeout(PATIENCE, socket.read_to_end(&mut told)).await.expect("it is closed").expect("in good order");
            assert!(told.is_empty());
        }
        assert_eq!(server.counts(), [0, 0, 3, 0, 0, 0, 0]);
    }

    #[tokio::test]
    async fn who_leaves_and_who_breaks_the_protocol_are_told_apart() {
        let (_dir, mut server) = Server::with(&issue((2020, 2040))).await;
        for sent in [&b""[..], &[HANDSHAKE], &[HANDSHAKE, 3, 1, 0, 100, 1, 0, 0, 96]] {
            let mut socket = server.connect().await;
            socket.write_all(sent).await.expect("it is sent");
            drop(socket);
            let error = server.error().await;
            assert!(matches!(error, HandshakeError::Closed(_)), "{error}");
        }
        assert_eq!(server.counts(), [0, 0, 0, 0, 0, 0, 3]);
        let not_a_hello: [&[u8]; 3] =
            [&[HANDSHAKE, b'G', b'E', b'T', b' ', b'/'], &[HANDSHAKE, 3, 1, 0, 4, 99, 0, 0, 0], &[HANDSHAKE; 9000]];
        for (n, sent) in not_a_hello.into_iter().enumerate() {
            let mut socket = server.connect().await;
            socket.write_all(sent).await.expect("it is sent");
            let error = server.error().await;
            assert!(matches!(error, HandshakeError::Protocol(_)), "{n}: {error}");
        }
        assert_eq!(server.counts(), [0, 0, 0, 0, 0, 3, 3]);
    }

    #[tokio::test]
    async fn a_development_certificate_is_good_for_this_machine_by_all_its_names() {
        let config = TlsConfig { listen: ([127, 0, 0, 1], 0).into(), source: Source::SelfSigned };
        // The client reads the real clock.
        let tls = Tls::load(&config, Timestamp::now()).expect("it can be made");
        assert_eq!(tls.reload(Timestamp::now()), Ok(false));
        let server = Server::start(tls, PATIENCE).await;
        let Some(_) = openssl(&["version"]) else { return };
        let shown = s_client(&server, &["-showcerts"]).await;
        let cert = CertificateDer::from_pem_slice(shown.as_bytes()).expect("the certificate is shown");
        let client = Arc::new(client(&cert, &[&TLS13]));
        for (name, good) in [("localhost", true), ("127.0.0.1", true), ("::1", true), ("example.org", false)] {
            let name = ServerName::try_from(name).expect("it is a name or an address");
            let shaken = TlsConnector::from(client.clone()).connect(name, server.connect().await).await;
            assert_eq!(shaken.is_ok(), good, "{shaken:?}");
        }
        // What people compare is what their tools show.
        let dir = Dir::new();
        dir.write_cert(&shown);
        let shown = openssl(&["x509", "-noout", "-fingerprint", "-sha256", "-in", dir.0.cert.to_str().expect("text")]);
        assert!(shown.expect("it was there before").trim().ends_with(&server.tls.fingerprint()));
    }

    /// Runs a command to its end.
    async fn run(mut command: Command) -> io::Result<Output> {
        let run = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output());
        timeout(PATIENCE, run).await.expect("it ends in time").expect("nothing panics")
    }

    /// What `openssl s_client` shows of a handshake.
    async fn s_client(server: &Server, arguments: &[&str]) -> String {
        let mut command = Command::new("openssl");
        command.arg("s_client").args(["-connect", &server.address.to_string()]).args(arguments);
        // The end of its input ends it.
        let output = run(command).await.expect("openssl runs");
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
    }

    #[tokio::test]
    async fn openssl_shakes_hands() {
        let Some(_) = openssl(&["version"]) else { return };
        let issued = issue((2020, 2040));
        let (dir, mut server) = Server::with(&issued).await;
        let root = dir.0.cert.to_str().expect("it is text");
        for (version, shown_as) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
            let arguments =
                [version, "-CAfile", root, "-verify_hostname", "localhost", "-servername", "localhost", "-alpn", "h2"];
            let shown = s_client(&server, &arguments).await;
            for part in ["Verify return code: 0 (ok)", "ALPN protocol: h2", shown_as] {
                assert!(shown.contains(part), "{version}: no {part:?} in {shown}");
            }
        }
        assert_eq!(server.counts()[0], 2);
        // Versions that RFC 8996 forbids.
        s_client(&server, &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]).await;
        let error = server.error().await;
        assert!(matches!(error, HandshakeError::Protocol(rustls::Error::PeerIncompatible(_))), "{error}");
        assert_eq!(server.counts(), [2, 0, 0, 0, 0, 1, 0]);
    }

    #[tokio::test]
    async fn curl_shakes_hands() {
        let issued = issue((2020, 2040));
        let (dir, server) = Server::with(&issued).await;
        // What comes back is the request, which curl takes for an answer of HTTP/0.9.
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--http0.9", "--http1.1", "--max-time", "1"]);
        command
            .arg("--cacert")
            .arg(&dir.0.cert)
            .args(["--resolve", &format!("localhost:{}:127.0.0.1", server.address.port())]);
        command.arg(format!("https://localhost:{}/over-tls", server.address.port()));
        let output = match run(command).await {
            Ok(output) => output,
            Err(error) => {
                assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "curl in CI: {error}");
                return;
            }
        };
        let (shown, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(shown.starts_with("GET /over-tls HTTP/1.1\r\n"), "{shown}{said}");
        assert_eq!(server.counts(), [1, 0, 0, 0, 0, 0, 0]);

        // And without TLS it is told.
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", &format!("http://{}/", server.address)]);
        let output = run(command).await.expect("it ran before");
        assert_eq!(String::from_utf8_lossy(&output.stdout), SPEAK_TLS);
    }

    /// What a connection holds, by the growth of this process; the clients are in another one. To be run alone:
    /// `cargo test --release --lib -- --ignored --nocapture memory_of_a_connection`.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "it measures, and nothing is to run beside it"]
    async fn memory_of_a_connection() {
        const CONNECTIONS: usize = 2000;
        const ADDRESS: &str = "FANFARE_TEST_TLS_ADDRESS";
        const ROOT: &str = "FANFARE_TEST_TLS_ROOT";
        if let (Ok(address), Ok(root)) = (std::env::var(ADDRESS), std::env::var(ROOT)) {
            return hold_connections(&address, &root, CONNECTIONS).await;
        }
        let dir = Dir::new();
        dir.write(&issue((2020, 2040)));
        let config = TlsConfig { listen: ([127, 0, 0, 1], 0).into(), source: Source::Files(dir.0.clone()) };
        let tls = Tls::load(&config, NOW).expect("the files are in order");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("it is bound");
        let mut clients = Command::new(std::env::current_exe().expect("it has a name"))
            .args(["--ignored", "memory_of_a_connection"])
            .env(ADDRESS, address.to_string())
            .env(ROOT, &dir.0.cert)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("this test runs once more");
        let mut sockets = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            sockets.push(listener.accept().await.expect("a client comes").0);
        }
        let mut held = Vec::with_capacity(CONNECTIONS);
        let each = |from: usize, to: usize| (to.saturating_sub(from) / CONNECTIONS).to_string();
        let accepted = resident();
        for socket in sockets.drain(..) {
            held.push(tls.accept(socket, Instant::now() + PATIENCE).await.expect("it is trusted"));
        }
        let shaken = resident();
        for stream in &mut held {
            stream.write_all(&[b'x'; 300]).await.expect("it is taken");
        }
        let written = resident();
        let socket = TcpStream::connect(address).await.expect("it accepts connections");
        println!("a handshake's future: {} bytes", size_of_val(&tls.accept(socket, Instant::now())));
        println!("its struct: {} bytes", size_of_val(&held[0]) - size_of::<TcpStream>());
        println!("after its handshake: {} bytes", each(accepted, shaken));
        println!("after 300 bytes were written to it: {} bytes", each(accepted, written));
        drop(clients.stdin.take());
        clients.wait().expect("it ends");
    }

    /// Resident memory in bytes.
    fn resident() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").expect("this is Linux");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has memory");
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<usize>().ok()).expect("a number of kB") * 1024
    }

    /// Makes connections and holds them until its standard input ends.
    async fn hold_connections(address: &str, root: &str, count: usize) {
        let root = CertificateDer::from_pem_file(root).expect("it was written");
        let mut config = client(&root, &[&TLS13]);
        config.resumption = rustls::client::Resumption::disabled();
        let connector = TlsConnector::from(Arc::new(config));
        let mut shaking = Vec::new();
        for _ in 0..count {
            let socket = TcpStream::connect(address).await.expect("it accepts connections");
            let name = ServerName::try_from("localhost").expect("it is a name");
            shaking.push(tokio::spawn(connector.connect(name, socket)));
        }
        let mut held = Vec::new();
        for shaking in shaking {
            held.push(shaking.await.expect("no panic").expect("the server shakes hands"));
        }
        let ended = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
        ended.await.expect("no panic").expect("its input ends");
    }
}
