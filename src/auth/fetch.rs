//! Gets the document behind a URL, bounded in size and time. The only client of HTTP in here.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Collected, Empty, Limited};
use hyper::{StatusCode, Uri};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

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
        let expected = "expected a URL such as https://issuer.example/.well-known/jwks.json";
        let url: Uri = url.parse().map_err(|error| format!("it is no URL ({error}); {expected}"))?;
        let authority = url.authority().ok_or_else(|| format!("it names no server; {expected}"))?;
        // It would be in logs, and is not sent.
        if authority.as_str().contains('@') {
            return Err(format!("it holds a user's name; {expected}"));
        }
        let tls = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let tls = match url.scheme_str() {
            Some("https") => {
                tls.with_native_roots().map_err(|error| format!("no certificates to trust servers by: {error}"))?
            }
            Some("http") => tls.with_root_certificates(RootCertStore::empty()),
            _ => return Err(format!("it is neither http nor https; {expected}")),
        };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls.with_no_client_auth())
            .https_or_http()
            .enable_http1()
            .build();
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

/// The innermost error says most.
fn reason(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fetcher").field(&self.url).finish()
    }
}
