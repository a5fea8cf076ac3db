//! Gets the document behind a URL, bounded in size and time.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Collected, Empty, Limited};
use hyper::{StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;

use crate::client::{connector, reason, server};

/// How long one answer may take, from connecting to its last byte.
const PATIENCE: Duration = Duration::from_secs(5);

/// A URL that is got again and again.
pub(super) struct Fetcher {
    url: Uri,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

impl Fetcher {
    /// Reads a URL. Servers behind `https` are trusted by the system's certificates (or `SSL_CERT_FILE`).
    ///
    /// # Errors
    /// Where it is no `http` or `https` URL, holds a password, or the system has no certificates for `https`.
    pub(super) fn new(url: &str) -> Result<Fetcher, String> {
        let url = server(url, "expected a URL such as https://issuer.example/.well-known/jwks.json")?;
        let connector = connector(&url)?;
        // It is minutes to the next time: nothing is kept open for it.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Fetcher { url, client })
    }

    /// Gets the document: the body of a 200. A redirect is not followed: it would lead to a server that was not set.
    ///
    /// # Errors
    /// Where there is no such answer in time, or it is longer than `most` bytes.
    pub(super) async fn get(&self, most: usize) -> Result<Bytes, String> {
        let answer = async {
            let answer = self.client.get(self.url.clone()).await.map_err(|error| reason(&error))?;
            match answer.status() {
                StatusCode::OK => {
                    let body = Limited::new(answer.into_body(), most).collect().await;
                    body.map(Collected::to_bytes).map_err(|error| error.to_string())
                }
                status => Err(format!("the answer is {status}; expected 200")),
            }
        };
        timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))
    }
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fetcher").field(&self.url).finish()
    }
}
