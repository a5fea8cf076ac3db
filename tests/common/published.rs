//! An issuer's published keys, and a server for them.

#![allow(dead_code, reason = "no test file uses all of this")]

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::json;

use super::issuer::Issuer;

/// The key set of these issuers.
pub(crate) fn key_set(issuers: &[&Issuer]) -> Vec<u8> {
    json!({"keys": issuers.iter().map(|issuer| issuer.jwk()).collect::<Vec<_>>()}).to_string().into_bytes()
}

/// A server that gives the same answer to all requests, until it is given another one.
pub(crate) struct Published {
    pub(crate) url: String,
    answer: Arc<Mutex<Vec<u8>>>,
    requests: Arc<Mutex<usize>>,
}

impl Published {
    pub(crate) fn on(listener: TcpListener) -> Published {
        let url = format!("http://{}/keys", listener.local_addr().expect("it is bound"));
        let (answer, requests) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
        let (shared, counted) = (answer.clone(), requests.clone());
        let serve = move |connection: TcpStream| -> io::Result<()> {
            let mut head = BufReader::new(connection.try_clone()?).lines();
            while head.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
            *counted.lock().expect("not poisoned") += 1;
            let answer = shared.lock().expect("not poisoned").clone();
            (&connection).write_all(&answer)
        };
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                // A client that gave up is no fault of this server.
                let _ = serve(connection);
            }
        });
        Published { url, answer, requests }
    }

    /// Gives this answer from now on.
    pub(crate) fn give(&self, status: &str, body: &[u8]) {
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nLocation: {}\r\nConnection: close\r\n\r\n",
            body.len(),
            self.url,
        );
        *self.answer.lock().expect("not poisoned") = [head.as_bytes(), body].concat();
    }

    /// Ends connections without an answer from now on, as it does before it is given one.
    pub(crate) fn go_away(&self) {
        self.answer.lock().expect("not poisoned").clear();
    }

    /// How many requests there were.
    pub(crate) fn requests(&self) -> usize {
        *self.requests.lock().expect("not poisoned")
    }
}

/// A free port.
pub(crate) fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port")
}
