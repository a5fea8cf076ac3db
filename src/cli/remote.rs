//! The broker that a command talks to: its address, the credentials for it, and its refusals in words.

use std::fmt;
use std::time::Duration;

use clap::Args;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::RETRY_AFTER;
use hyper::{Response, StatusCode};
use serde::Deserialize;
use tokio::runtime::{Builder, Runtime};

use super::Failure;
use super::look::plain;
use crate::client::Client;
use crate::config;

/// The note on secrets in the help of every command that talks to a broker.
pub(super) const SECRETS: &str = "\
Environment:
  FANFARE_KEY    a service's or an operator's key, sent as X-API-Key
  FANFARE_TOKEN  a token, sent as Authorization: Bearer (`fanfare token` makes one)
They have no flags: a command line can be read by every user of the machine.";

/// The most of a refusal's body that is read, in bytes.
const REFUSAL_MAX: usize = 64 << 10;

/// How long an answer may take to begin.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Which broker is asked.
#[derive(Debug, Args)]
pub(super) struct Remote {
    /// Where the broker is; a path in it stands before the paths that are asked for.
    #[arg(long, env = "GATEWAY_URL", default_value = "http://127.0.0.1:8000", value_name = "URL")]
    pub(super) url: String,
}

impl Remote {
    /// A client of it, with the secrets that the environment has.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        let client = Client::new(self.url.trim(), secret("FANFARE_KEY")?.as_deref());
        let client = client.map_err(|why| Failure::Usage(format!("--url {:?}: {why}", self.url)))?;
        match secret("FANFARE_TOKEN")? {
            None => Ok(client),
            Some(token) => client.with_token(&token).map_err(|why| Failure::Usage(format!("FANFARE_TOKEN: {why}"))),
        }
    }
}

/// A variable of the environment, if it is set.
pub(super) fn secret(name: &str) -> Result<Option<String>, Failure> {
    config::secret(name).map_err(Failure::Usage)
}

/// The runtime of a command: one thread.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    Builder::new_current_thread().enable_all().build().map_err(Failure::failed)
}

/// An answer that is a refusal or a failure.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// How long to wait before asking again, where it says so.
    pub(super) retry_after: Option<Duration>,
    /// Its message, made safe for a terminal.
    why: String,
}

impl Refusal {
    /// Reads the message of an answer.
    pub(super) async fn read(answer: Response<Incoming>) -> Refusal {
        let status = answer.status();
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = tokio::time::timeout(ANSWER_WITHIN, Limited::new(answer.into_body(), REFUSAL_MAX).collect()).await;
        let body = body.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Refusal {
            status,
            retry_after: retry_after.map(Duration::from_secs),
            why: plain(&explained(&body)).into_owned(),
        }
    }

    /// Whether the same may be granted later.
    pub(super) fn is_passing(&self) -> bool {
        self.status.is_server_error()
            || matches!(
                self.status,
                StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
            )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it answered {}", self.status)?;
        match self.why.is_empty() {
            true => Ok(()),
            false => write!(f, ": {}", self.why),
        }
    }
}

/// The code and the message of a refusal's body; where it is no such JSON, how it begins.
fn explained(body: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Body {
        Ours {
            error: Error,
        },
        /// The publish limit's, as the Go gateway's.
        Limit {
            error: String,
            message: String,
        },
    }
    #[derive(Deserialize)]
    struct Error {
        code: String,
        message: String,
    }
    match serde_json::from_slice(body) {
        Ok(Body::Ours { error: Error { code, message } }) => format!("{code}: {message}"),
        Ok(Body::Limit { error, message }) => format!("{error}: {message}"),
        Err(_) => {
            let text = String::from_utf8_lossy(body);
            text.trim().chars().take(200).collect()
        }
    }
}
