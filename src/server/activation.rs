//! Listening sockets that were opened before the process began, and passed to it (`sd_listen_fds(3)`): systemd holds
//! them while the broker is started anew, so that connections wait meanwhile and are not refused.

use std::net::TcpListener;

use listenfd::ListenFd;
use socket2::SockRef;

/// The name of the socket that speaks TLS (`FileDescriptorName=` in its unit).
const HTTPS: &str = "https";

/// The sockets that were passed, at most one of each kind.
#[derive(Debug, Default)]
pub struct Passed {
    /// The one in the place of `--listen`: named `http`, or not named.
    pub http: Option<TcpListener>,
    /// The one in the place of `--tls-listen`: named `https`.
    pub https: Option<TcpListener>,
}

impl Passed {
    /// Takes what was passed to this process, and the variables that tell of it. To be called once, while no other thread
    /// runs.
    ///
    /// # Errors
    /// Where one of the sockets is of no use here: names it, and what was expected.
    pub fn take() -> Result<Passed, String> {
        let named = sd_notify::listen_fds_with_names().map_err(|error| format!("the passed sockets: {error}"))?;
        let mut passed = Passed::default();
        if named.len() == 0 {
            return Ok(passed);
        }
        let mut sockets = ListenFd::from_env();
        for (index, (fd, name)) in named.enumerate() {
            let place = match name.as_str() {
                HTTPS => &mut passed.https,
                // Nobody named it: `sd_listen_fds_with_names(3)`, and the default of `FileDescriptorName=`.
                "http" | "unknown" => &mut passed.http,
                unit if unit.ends_with(".socket") => &mut passed.http,
                _ => return Err(format!("socket {fd} is passed as {name:?}; expected http or https")),
            };
            if place.is_some() {
                return Err(format!(
                    "socket {fd} is one more passed as {name:?}; expected one http and one https at most"
                ));
            }
            let wrong = |why: &str| format!("socket {fd}, passed as {name:?}, {why}; expected a listening TCP socket");
            let socket = sockets.take_tcp_listener(index).map_err(|_| wrong("is not of TCP"))?;
            let listens = |socket: &TcpListener| SockRef::from(socket).is_listener().unwrap_or(false);
            *place = Some(socket.filter(listens).ok_or_else(|| wrong("does not listen"))?);
        }
        Ok(passed)
    }
}
