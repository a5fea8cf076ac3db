//! The load generator against servers that do not do as it hopes: it waits for nothing without end, says what it waited
//! for, how much of that is missing and what it was answered, and ends with an error.

mod common;

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{PATIENCE, Server, clean};

/// A run that has ended: whether well, and what it said.
struct Run {
    is_well: bool,
    said: String,
    took: Duration,
}

/// Runs the generator against this address; it waits so many seconds for whatever does not come.
#[track_caller]
fn load(address: SocketAddr, patience: &str, arguments: &[&str]) -> Run {
    let mut command = clean(Command::new(env!("CARGO_BIN_EXE_fanfare-load")));
    command.args(arguments).args(["--patience-s", patience, "--url", &format!("http://{address}")]);
    let began = Instant::now();
    let output = command.output().expect("the generator runs");
    let said = String::from_utf8(output.stderr).expect("text") + &String::from_utf8(output.stdout).expect("text");
    Run { is_well: output.status.success(), said, took: began.elapsed() }
}

/// A run that fails, soon, with all of these words.
#[track_caller]
fn fails(address: SocketAddr, patience: &str, arguments: &[&str], words: &[&str]) {
    let run = load(address, patience, arguments);
    assert!(!run.is_well, "{arguments:?}: {}", run.said);
    assert!(run.took < PATIENCE, "{arguments:?} took {:?}", run.took);
    let reason = run.said.lines().find(|line| line.starts_with("fanfare-load: "));
    let reason = reason.unwrap_or_else(|| panic!("{arguments:?} says nothing: {}", run.said));
    for word in words {
        assert!(reason.contains(word), "{arguments:?} does not say {word:?} but {reason:?}");
    }
}

/// The address where a broker speaks TLS, as the generator takes it.
fn tls(server: &Server) -> String {
    format!("https://{}", server.tls.expect("it speaks TLS"))
}

const TLS: [&str; 3] = ["--tls-listen", "127.0.0.1:0", "--tls-self-signed"];

/// Something that accepts and reads, and says nothing.
fn silent() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.expect("a connection");
            thread::spawn(move || while socket.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {});
        }
    });
    address
}

#[test]
fn every_scenario_says_why_it_was_not_let_in() {
    let server = Server::start(&[&TLS[..], &["--max-streams", "3"]].concat());
    let tls = tls(&server);
    let words = ["2 of 5 streams could not be opened", "2 answered", "too_many_streams"];
    for transport in [&[][..], &["--http2", "5"], &["--tls", &tls], &["--tls", &tls, "--http2", "1"]] {
        let idle = ["idle", "--steps", "5", "--settle-s", "0"];
        fails(server.addr, "30", &[&idle, transport].concat(), &words);
        // The seats of the run before are free when its connections have been seen to end.
        server.wait_for_clients(0);
    }
    for scenario in ["open", "paced", "burst", "ack", "resume"] {
        fails(server.addr, "30", &[scenario, "--streams", "5"], &words);
        server.wait_for_clients(0);
    }
    for scenario in ["topics", "users"] {
        // One stream alone is let in, and the phase that comes then is not. The first one's seat may still be taken, if the
        // broker has not seen its end yet.
        let words = ["of 5 streams could not be opened", "answered", "too_many_streams"];
        fails(server.addr, "30", &[scenario, "--streams", "5", "--rate", "10", "--for-s", "0.2"], &words);
        server.wait_for_clients(0);
    }
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let address = silent();
    let silent_tls = format!("https://{address}");
    let words = ["5 of 5 streams could not be opened", "in vain for 5 that got no answer"];
    for transport in [
        &[][..],
        &["--http2", "1"],
        &["--http2", "5"],
        &["--tls", &silent_tls],
        &["--tls", &silent_tls, "--http2", "5"],
    ] {
        let idle = ["idle", "--steps", "5", "--settle-s", "0"];
        fails(address, "1", &[&idle, transport].concat(), &words);
    }
    for scenario in ["open", "paced", "burst", "ack", "topics", "users", "resume"] {
        let words = if ["topics", "users"].contains(&scenario) { &["1 of 1 streams", "in vain"] } else { &words };
        fails(address, "1", &[scenario, "--streams", "5"], words);
    }
    fails(
        address,
        "1",
        &["idle", "--steps", "9", "--settle-s", "0", "--in-flight", "4"],
        &["9 of 9", "for 4 that got no answer", "and 5 were not begun"],
    );
}

#[test]
fn streams_that_an_http2_connection_has_no_room_for_are_told() {
    let server = Server::start(&["--http2-streams", "3"]);
    // Whether they were refused or never sent depends on whether the server's settings came first.
    let words = ["2 of 5 streams could not be opened"];
    fails(server.addr, "3", &["idle", "--steps", "5", "--settle-s", "0", "--http2", "5"], &words);
}

#[test]
fn nobody_there_is_told() {
    let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("an address");
    fails(address, "30", &["burst", "--streams", "2"], &["2 of 2 streams could not be opened", "refused"]);
}

#[test]
fn a_publication_that_is_refused_is_told() {
    let server = Server::start(&["--publish-rate", "2", "--limit-loopback"]);
    fails(server.addr, "30", &["burst", "--streams", "2", "--events", "50"], &["a publication was answered", "429"]);
}

#[test]
fn streams_that_end_while_they_are_held_are_told() {
    let mut server = Server::start(&["--grace", "500ms"]);
    let address = server.addr;
    let mut command = clean(Command::new(env!("CARGO_BIN_EXE_fanfare-load")));
    command.args(["idle", "--steps", "5", "--settle-s", "0", "--hold-s", "4", "--url", &format!("http://{address}")]);
    let mut holding = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the generator runs");
    let mut said = BufReader::new(holding.stderr.take().expect("piped")).lines().map_while(Result::ok);
    said.find(|line| line.starts_with("holding")).expect("it says that it holds them");
    server.signal("TERM");
    let reason = said.find(|line| line.starts_with("fanfare-load: ")).expect("it says why it failed");
    assert_eq!(
        reason,
        "fanfare-load: 5 streams were to stay open; of the streams that were open, 5 ended by the server: drained"
    );
    assert_eq!(holding.wait().expect("it ends").code(), Some(1));
    server.wait_for_exit(PATIENCE);
}

#[test]
fn resuming_over_tls_asks_for_the_place_where_each_stream_was() {
    // Ten at a time: so the brokers are behind, and send several events in one chunk.
    let resume = |http2: &'static [&str]| {
        let server = Server::start(&TLS);
        let tls = tls(&server);
        let run =
            load(server.addr, "30", &[&["resume", "--tls", &tls, "--streams", "8", "--missed", "10"], http2].concat());
        assert!(run.is_well, "{http2:?}: {}", run.said);
    };
    thread::scope(|scope| {
        for http2 in [&[][..]; 10].into_iter().chain([&["--http2", "4"][..]; 4]) {
            scope.spawn(move || resume(http2));
        }
    });
}
