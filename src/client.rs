//! An HTTP client, used by the publisher, by the commands, and to fetch signing keys.

use std::error::Error;
use std::fmt;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, Uri};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// The connector.
#[cfg(feature = "https")]
pub(crate) type Connector = hyper_rustls::HttpsConnector<HttpConnector>;
#[cfg(not(feature = "https"))]
pub(crate) type Connector = HttpConnector;

/// Where a service's key goes.
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// One server, and how it is asked. Connections are kept while they are of use; to be used within one tokio runtime.
pub struct Client {
    base: Uri,
    key: Option<HeaderValue>,
    token: Option<HeaderValue>,
    http: legacy::Client<Connector, Full<Bytes>>,
}

/// Why there was no answer.
#[derive(Debug)]
pub struct Unreachable(legacy::Error);

impl Unreachable {
    /// Whether the request cannot have got there: no connection was made.
    pub fn is_connect(&self) -> bool {
        self.0.is_connect()
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&reason(&self.0))
    }
}

impl Error for Unreachable {}

impl Client {
    /// A client of the server at `base`, such as `http://gateway:8000`; a path in it stands before the paths that are
    /// asked for. Servers behind `https` are trusted by the system's certificates (or `SSL_CERT_FILE`). `key` is sent
    /// with each request, as `X-API-Key`.
    ///
    /// # Errors
    /// Where `base` is no such URL, the key cannot stand in a header, or the system has no certificates for `https`:
    /// says what was expected.
    pub fn new(base: &str, key: Option<&str>) -> Result<Client, String> {
        let base = server(base, "expected a URL such as http://gateway:8000")?;
        let key = key.map(|key| secret("key", key)).transpose()?;
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            // Less than the broker waits for the next request (75 s): not to send into a connection that it closes.
            .pool_idle_timeout(std::time::Duration::from_secs(30))
            .build(connector(&base)?);
        Ok(Client { base, key, token: None, http })
    }

    /// The same with a token, which is sent with each request as `Authorization: Bearer`.
    ///
    /// # Errors
    /// Where the token cannot stand in a header.
    pub fn with_token(self, token: &str) -> Result<Client, String> {
        let token = secret("token", &format!("Bearer {token}"))?;
        Ok(Client { token: Some(token), ..self })
    }

    /// Where the server is.
    pub fn base(&self) -> &Uri {
        &self.base
    }

    /// Sends a request and gives the answer's head, with its body still to come. `target` is a path, perhaps with a
    /// query. How long it may take is the caller's to bound.
    ///
    /// # Errors
    /// Where there is no answer; one with any status is an answer.
    ///
    /// # Panics
    /// Where `target` does not begin with `/` or holds characters that no URL may.
    pub async fn send(
        &self,
        method: Method,
        target: &str,
        headers: HeaderMap,
        body: impl Into<Bytes>,
    ) -> Result<Response<Incoming>, Unreachable> {
        let mut request = Request::new(Full::new(body.into()));
        *request.method_mut() = method;
        *request.uri_mut() = self.uri(target);
        let fields = request.headers_mut();
        *fields = headers;
        fields.insert(USER_AGENT, HeaderValue::from_static(concat!("fanfare/", env!("CARGO_PKG_VERSION"))));
        if let Some(key) = &self.key {
            fields.insert(X_API_KEY, key.clone());
        }
        if let Some(token) = &self.token {
            fields.insert(AUTHORIZATION, token.clone());
        }
        fields.remove(HOST);
        self.http.request(request).await.map_err(Unreachable)
    }

    fn uri(&self, target: &str) -> Uri {
        let mut parts = self.base.clone().into_parts();
        let target = format!("{}{target}", self.base.path().trim_end_matches('/'));
        parts.path_and_query = Some(target.parse().expect("a target is a path and a query"));
        Uri::from_parts(parts).expect("the base has a scheme and an authority")
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.base).finish()
    }
}

/// A header's value that no log shows.
fn secret(what: &str, text: &str) -> Result<HeaderValue, String> {
    let value = HeaderValue::from_str(text);
    let mut value = value.map_err(|_| format!("the {what} has characters that no header may have"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Reads the URL of a server or of something there.
///
/// # Errors
/// Where it is no `http` or `https` URL, or holds a password: ends with `expected`.
pub fn server(url: &str, expected: &str) -> Result<Uri, String> {
    let uri: Uri = url.parse().map_err(|error| format!("it is no URL ({error}); {expected}"))?;
    let authority = uri.authority().ok_or_else(|| format!("it names no server; {expected}"))?;
    // It would be in logs, and is not sent.
    if authority.as_str().contains('@') {
        return Err(format!("it holds a user's name; {expected}"));
    }
    match uri.scheme_str() {
        Some("http") => Ok(uri),
        Some("https") if cfg!(feature = "https") => Ok(uri),
        Some("https") => Err("https needs the feature `https`".to_owned()),
        _ => Err(format!("it is neither http nor https; {expected}")),
    }
}

/// A connector for the server of this URL.
///
/// # Errors
/// Where the system has no certificates to trust servers by, and the URL is `https`.
#[cfg(feature = "https")]
pub(crate) fn connector(url: &Uri) -> Result<Connector, String> {
    use hyper_rustls::ConfigBuilderExt as _;

    let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let tls = match url.scheme_str() {
        Some("https") => {
            tls.with_native_roots().map_err(|error| format!("no certificates to trust servers by: {error}"))?
        }
        _ => tls.with_root_certificates(rustls::RootCertStore::empty()),
    };
    let mut http = plain();
    http.enforce_http(false);
    Ok(hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls.with_no_client_auth())
        .https_or_http()
        .enable_http1()
        .wrap_connector(http))
}

#[cfg(not(feature = "https"))]
fn connector(_: &Uri) -> Result<Connector, String> {
    Ok(plain())
}

fn plain() -> HttpConnector {
    let mut http = HttpConnector::new();
    // Head and body are separate writes: the second must not wait for the first one's acknowledgement.
    http.set_nodelay(true);
    http
}

/// The innermost error says most.
pub fn reason(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_goes_behind_the_base() {
        for (base, uri) in [
            ("http://gateway:8000", "http://gateway:8000/a?b=c"),
            ("http://gateway:8000/", "http://gateway:8000/a?b=c"),
            ("http://gateway:8000/events/", "http://gateway:8000/events/a?b=c"),
        ] {
            let client = Client::new(base, None).expect(base);
            assert_eq!(client.uri("/a?b=c").to_string(), uri);
        }
    }

    #[test]
    fn what_is_no_server_is_named() {
        for (base, said) in [
            ("", "it is no URL"),
            ("gateway", "it is neither http nor https"),
            ("/api", "it names no server"),
            ("ftp://gateway", "it is neither http nor https"),
            ("http://me:secret@gateway", "it holds a user's name"),
        ] {
            let error = Client::new(base, None).map(drop);
            let error = error.expect_err(base);
            assert!(error.contains(said), "{base}: {error}");
        }
        assert!(Client::new("http://gateway", Some("a\nb")).is_err());
        assert!(Client::new("http://gateway", None).and_then(|client| client.with_token("a\nb")).is_err());
    }
}
