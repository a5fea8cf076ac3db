//! What a service manager and the broker say to each other: sockets that are passed (`sd_listen_fds(3)`), readiness,
//! the watchdog and the end (`sd_notify(3)`); and systemd's own tools, with the very files of `deploy/systemd`.

#[path = "clients/tools.rs"]
#[allow(dead_code, reason = "each test that uses these tools needs some of them")]
mod tools;

mod common;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use common::{Conn, PATIENCE, Server, clean, deployed, fanfare, wait_for};
use socket2::SockRef;

const BINARY: &str = env!("CARGO_BIN_EXE_fanfare");

/// A request whose answer ends its connection.
const READY: &[u8] = b"GET /ready HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

/// The binary with a socket as its descriptors 3 and 4, of which as many are passed as there are names.
fn with_passed(socket: impl Into<OwnedFd>, names: &str, flags: &[&str]) -> Command {
    let mut command = clean(Command::new("sh"));
    let count = names.split(':').count().to_string();
    let script = "exec 3<&0 4<&0 0</dev/null; LISTEN_PID=$$ exec \"$0\" \"$@\"";
    command.args(["-c", script, BINARY]).args(flags).env("LISTEN_FDS", count).env("LISTEN_FDNAMES", names);
    command.stdin(Stdio::from(socket.into()));
    command
}

/// The server's own way of starting takes standard input away, which here is the socket's way in.
fn start_with_passed(socket: &TcpListener, names: &str, flags: &[&str]) -> Server {
    let socket = socket.try_clone().expect("a descriptor");
    Server::spawn_with_input(with_passed(socket, names, flags))
}

#[test]
fn a_passed_socket_takes_the_place_of_listen() {
    for name in ["http", "unknown", "fanfare.socket"] {
        let (socket, address) = listener();
        let mut early = Conn::to(address).expect("the socket listens already");
        early.send(READY);
        let flags = ["--listen", "192.0.2.1:1", "--send-buffer", "16KiB", "--peer-timeout", "20s"];
        let server = start_with_passed(&socket, name, &flags);
        assert_eq!(server.addr, address, "and not where --listen says");
        assert_eq!(early.answer().expect("who came early is answered").status, 200);
        server.stream("topics=a");
        let options = SockRef::from(&socket);
        assert!(options.tcp_nodelay().expect("it can be asked"));
        assert_eq!(options.send_buffer_size().expect("it can be asked"), 2 * 16 * 1024);
        assert_eq!(options.tcp_user_timeout().expect("it can be asked"), Some(Duration::from_secs(20)));
        assert_eq!(options.tcp_keepalive_time().expect("it can be asked"), Duration::from_secs(10));
    }
}

#[test]
fn a_passed_socket_named_https_takes_the_place_of_tls_listen() {
    let (socket, address) = listener();
    let server = start_with_passed(&socket, "https", &["--listen", "127.0.0.1:0", "--tls-self-signed"]);
    assert_eq!(server.tls, Some(address));
    assert_ne!(server.addr, address);
    assert_eq!(server.get("/ready").status, 200);
}

#[test]
fn nobody_is_refused_while_it_is_started_anew() {
    let (socket, address) = listener();
    let mut old = start_with_passed(&socket, "http", &["--grace", "100ms"]);
    // It greets before it watches for signals, and answers after.
    assert_eq!(old.get("/ready").status, 200);
    old.signal("TERM");
    assert_eq!(old.wait_for_exit(PATIENCE).code(), Some(0));
    let mut meanwhile = Conn::to(address).expect("the socket still listens");
    meanwhile.send(READY);
    let _new = start_with_passed(&socket, "http", &[]);
    assert_eq!(meanwhile.answer().expect("who came meanwhile is answered").status, 200);
}

#[test]
fn sockets_for_another_process_are_left_alone() {
    let (_socket, address) = listener();
    let mut command = fanfare();
    command.args(["--listen", "127.0.0.1:0"]).env("LISTEN_PID", "1").env("LISTEN_FDS", "1");
    assert_ne!(Server::spawn(command).addr, address);
}

#[test]
fn what_is_passed_and_of_no_use_is_refused() {
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
    let (socket, address) = listener();
    let another = || socket.try_clone().expect("a descriptor");
    let connected = TcpStream::connect(address).expect("it listens");
    for (mut command, expected) in [
        (with_passed(udp, "http", &[]), "socket 3, passed as \"http\", is not of TCP; expected a listening TCP socket"),
        (
            with_passed(connected, "http", &[]),
            "socket 3, passed as \"http\", does not listen; expected a listening TCP",
        ),
        (with_passed(another(), "smtp", &[]), "socket 3 is passed as \"smtp\"; expected http or https"),
        (
            with_passed(another(), "http:http", &[]),
            "socket 4 is one more passed as \"http\"; expected one http and one",
        ),
        (with_passed(another(), "https", &[]), "expected --tls-listen with --tls-cert and --tls-key"),
        (with_passed(another(), "http:https:http:http", &[]), "the passed sockets: Bad file descriptor"),
    ] {
        let output = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{expected}: {said}");
        // What is logged has its quotation marks escaped or not, going by its format.
        assert!(said.replace('\\', "").contains(expected), "{expected}: {said}");
    }
}

#[test]
fn the_service_manager_is_told_how_it_goes() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("notify-{}", std::process::id()));
    let _ = fs::remove_file(&path);
    let manager = UnixDatagram::bind(&path).expect("there is room");
    manager.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let told = || {
        let mut message = [0; 256];
        let n = manager.recv(&mut message).expect("the manager is told something");
        String::from_utf8_lossy(&message[..n]).into_owned()
    };
    let (socket, address) = listener();
    let mut command = with_passed(socket, "http", &["--grace", "1s"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    let mut server = Server::spawn_with_input(command);
    let mut first = told();
    if first == "WATCHDOG=1\n" {
        first = told();
    }
    assert_eq!(first, "READY=1\n");
    let mut conn = Conn::to(address).expect("it listens");
    conn.send(READY);
    assert_eq!(conn.answer().expect("an answer").status, 200);
    for _ in 0..3 {
        assert_eq!(told(), "WATCHDOG=1\n", "and again and again");
    }
    let _stream = server.stream("topics=a");
    server.signal("TERM");
    assert_eq!(wait_for("the end to be told", || Some(told()).filter(|told| told != "WATCHDOG=1\n")), "STOPPING=1\n");
    assert!(server.is_running(), "it is told before it is done");
    assert_eq!(server.wait_for_exit(PATIENCE).code(), Some(0));
    let _ = fs::remove_file(&path);
}

#[test]
fn a_service_manager_that_is_gone_stops_nothing() {
    let mut command = fanfare();
    command.args(["--listen", "127.0.0.1:0"]).env("NOTIFY_SOCKET", "/nonexistent/notify").env("WATCHDOG_USEC", "1");
    let mut server = Server::spawn(command);
    server.assert_well();
    wait_for("it to be logged", || server.log().contains("cannot tell the service manager").then_some(()));
}

/// Two free addresses, for a program that opens them itself.
fn free_addresses() -> [SocketAddr; 2] {
    let sockets = [listener(), listener()];
    sockets.map(|(_, address)| address)
}

#[test]
fn systemd_passes_its_sockets() {
    let Some(program) = tools::program("systemd-socket-activate") else { return };
    let [http, https] = free_addresses();
    let mut command = clean(Command::new(program));
    command.args(["--listen", &http.to_string(), "--listen", &https.to_string(), "--fdname=http:https"]);
    command.args([BINARY, "--tls-self-signed"]);
    // It starts the broker with the first who connects.
    let first = thread::spawn(move || {
        let mut conn = wait_for("systemd to listen", || Conn::to(http).ok());
        conn.send(READY);
        conn.answer()
    });
    let server = Server::spawn(command);
    assert_eq!((server.addr, server.tls), (http, Some(https)));
    assert_eq!(first.join().expect("no panic").expect("an answer").status, 200);
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let Some(program) = tools::program("systemd-analyze") else { return };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("units-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("there is room");
    let mut units = Vec::new();
    for name in ["fanfare.service", "fanfare.socket", "fanfare-tls.socket"] {
        let unit = deployed(&format!("systemd/{name}"));
        units.push(folder.join(name));
        fs::write(folder.join(name), unit.replace("/usr/local/bin/fanfare", BINARY)).expect("there is room");
    }
    let run = |arguments: &[&str], units: &[PathBuf]| {
        let output = Command::new(&program).args(arguments).args(units).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        said.into_owned()
    };
    let said = run(&["verify", "--man=no"], &units);
    assert!(!said.contains("fanfare"), "{said}");
    // Of 100; a unit without hardening has 96.
    run(&["security", "--offline=true", "--threshold=15"], &units[..1]);
    let _ = fs::remove_dir_all(&folder);
}
