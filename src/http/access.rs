//! Access: the token or the key of a request becomes the rights of its sender.
//!
//! A listener shows a token: in `Authorization: Bearer` (RFC 6750, section 2.1), in the query as `access_token` (2.3;
//! `EventSource` sets no headers), or in a cookie whose name is set. A publisher shows a key, in `X-API-Key` or as a
//! bearer, or a token that grants publishing; only in a header, which no page from elsewhere can send unasked. Keys are
//! looked for in headers alone: addresses and cookies are kept where keys must not be. Where nothing is set up,
//! everybody may do everything.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use hyper::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName};
use hyper::http::request::Parts;

use super::forwarded::ProxyConfig;
use super::query;
use super::reply::Problem;
use crate::auth::keys::{Key, Keys};
use crate::auth::token::{Mode, TokenConfig, Verifier};
use crate::auth::{Denied, Identity, Listener};
use crate::clock::Timestamp;
use crate::limit::{Allowance, Exceeded, Limits};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The parts that requests are measured by.
#[derive(Debug)]
pub struct Access {
    mode: Mode,
    verifier: Option<Verifier>,
    cookie: Option<String>,
    keys: Keys,
    limits: Limits,
    proxies: ProxyConfig,
}

/// The publisher.
#[derive(Debug, Clone)]
pub enum Publisher {
    /// Anybody, where neither keys nor tokens are set up.
    Anyone,
    /// A service with a key.
    Key(Arc<Key>),
    /// A user with a token.
    Token(Identity),
}

impl Publisher {
    /// What its idempotency keys count under. Users are called what the issuer likes, so keys are kept apart from them,
    /// and users from tokens that name none.
    pub fn scope(&self) -> Box<str> {
        match self {
            Publisher::Anyone => "".into(),
            Publisher::Key(key) => format!("key {}", key.identity.name).into(),
            Publisher::Token(Identity { user: Some(user), .. }) => format!("user {user}").into(),
            Publisher::Token(Identity { user: None, name, .. }) => format!("token {name}").into(),
        }
    }

    fn name(&self) -> &str {
        match self {
            Publisher::Anyone => "",
            Publisher::Key(key) => &key.identity.name,
            Publisher::Token(identity) => identity.user.as_ref().unwrap_or(&identity.name),
        }
    }

    /// Whether it may publish to this topic.
    ///
    /// # Errors
    /// [`Problem::Forbidden`].
    pub fn check(&self, topic: &str) -> Result<(), Problem> {
        let grants = match self {
            Publisher::Anyone => return Ok(()),
            Publisher::Key(key) => &key.identity.may_publish,
            Publisher::Token(identity) => &identity.may_publish,
        };
        match grants.iter().any(|grant| grant.matches(topic)) {
            true => Ok(()),
            false => Err(Problem::Forbidden(format!("{:?} may not publish to the topic {topic:?}", self.name()))),
        }
    }
}

/// The credential in a request. It is a secret, hence no `Debug`.
enum Shown<'a> {
    Key(&'a str),
    Token(Cow<'a, str>),
}

impl Access {
    /// Rules by these settings.
    ///
    /// # Errors
    /// Where the settings do not allow to verify tokens: says what was expected.
    pub fn new(tokens: &TokenConfig, keys: Keys, limits: Limits, proxies: ProxyConfig) -> Result<Access, String> {
        let verifier = match tokens.mode {
            Mode::Off => None,
            Mode::Optional | Mode::Required => Some(Verifier::new(tokens)?),
        };
        Ok(Access { mode: tokens.mode, verifier, cookie: tokens.cookie.clone(), keys, limits, proxies })
    }

    /// The keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The limits for everybody.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The address of the client that sent a request over a connection from `peer`.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        self.proxies.client(peer, headers)
    }

    /// The verifier of tokens, where tokens are looked at.
    pub fn verifier(&self) -> Option<&Verifier> {
        self.verifier.as_ref()
    }

    /// Whether tokens can be verified, where they are looked at.
    pub fn has_keys_for_tokens(&self) -> bool {
        self.verifier.as_ref().is_none_or(Verifier::has_keys)
    }

    /// Whether anybody may listen to everything.
    pub fn is_open_to_listeners(&self) -> bool {
        self.mode == Mode::Off
    }

    /// Whether anybody may publish.
    pub fn is_open_to_publishers(&self) -> bool {
        self.mode == Mode::Off && !self.keys.are_set_up()
    }

    /// The identity of a listener.
    ///
    /// # Errors
    /// [`Denied`], where a token is missing or no good.
    pub fn listener(&self, head: &Parts, now: Timestamp) -> Result<Listener, Denied> {
        let Some(verifier) = &self.verifier else { return Ok(Listener::Anyone) };
        let in_query = access_token(head.uri.query().unwrap_or_default())?;
        let shown = match (self.shown(&head.headers)?, in_query) {
            (Some(Shown::Token(_)), Some(_)) => return Err(Denied::Several),
            (Some(shown), _) => Some(shown),
            (None, Some(token)) => Some(Shown::Token(token.into())),
            (None, None) => self.cookie(&head.headers)?.map(|token| Shown::Token(token.into())),
        };
        match (shown, self.mode) {
            (Some(Shown::Token(token)), _) => verifier.verify(&token, now).map(Listener::Known),
            (Some(Shown::Key(key)), _) => self.keys.find(key).map(|key| Listener::Known(key.identity.clone())),
            (None, Mode::Required) => Err(Denied::Missing),
            (None, _) => Ok(Listener::Stranger),
        }
    }

    /// The identity of a publisher.
    ///
    /// # Errors
    /// [`Denied`], where a key or token is missing or no good.
    pub fn publisher(&self, headers: &HeaderMap, now: Timestamp) -> Result<Publisher, Denied> {
        if self.is_open_to_publishers() {
            return Ok(Publisher::Anyone);
        }
        match (self.shown(headers)?, &self.verifier) {
            (None, _) => Err(Denied::Missing),
            (Some(Shown::Token(token)), Some(verifier)) => verifier.verify(&token, now).map(Publisher::Token),
            (Some(Shown::Token(text)), None) => self.keys.find(&text).map(Publisher::Key),
            (Some(Shown::Key(key)), _) => self.keys.find(key).map(Publisher::Key),
        }
    }

    /// As [`Access::publisher`], where the keys that tokens are signed with may have changed: waits until they have been
    /// looked at, a few seconds at most. Counts against the limits; gives what is left of them.
    ///
    /// # Errors
    /// [`Problem::Denied`] and [`Problem::RateLimited`].
    pub async fn admit_publisher(
        &self,
        headers: &HeaderMap,
        client: IpAddr,
    ) -> Result<(Publisher, Option<Allowance>), Problem> {
        let mut publisher = self.publisher(headers, Timestamp::now());
        if let Err(Denied::UnknownSigner | Denied::KeysUnavailable) = publisher {
            self.refresh().await;
            publisher = self.publisher(headers, Timestamp::now());
        }
        let now = Timestamp::now();
        let allowance = match &publisher {
            Ok(Publisher::Key(key)) => self.limits.publish(client, Some(&key.meter), now),
            // Guesses count too.
            Ok(Publisher::Anyone | Publisher::Token(_)) | Err(_) => self.limits.publish(client, None, now),
        };
        let allowance = allowance.map_err(|exceeded: Exceeded| Problem::RateLimited(exceeded))?;
        Ok((publisher?, allowance))
    }

    /// Has the keys looked at that tokens are signed with, and waits for it, a few seconds at most.
    pub async fn refresh(&self) {
        if let Some(verifier) = &self.verifier {
            verifier.refresh().await;
        }
    }

    /// Whether this is an operator; there are none where no key makes one.
    ///
    /// # Errors
    /// [`Problem::NotFound`] where there can be none, [`Problem::Denied`], or [`Problem::Forbidden`] to other keys.
    pub fn check_admin(&self, headers: &HeaderMap) -> Result<(), Problem> {
        if !self.keys.has_admin() {
            return Err(Problem::NotFound);
        }
        let key = match self.shown(headers)?.ok_or(Denied::Missing)? {
            Shown::Key(key) => self.keys.find(key)?,
            Shown::Token(text) => self.keys.find(&text)?,
        };
        match key.admin {
            true => Ok(()),
            false => Err(Problem::Forbidden("this needs an operator's key".to_owned())),
        }
    }

    /// Whether this may see what the broker is used for: operators, or everybody where there can be none.
    ///
    /// # Errors
    /// As [`Access::check_admin`], where there can be some.
    pub fn check_insight(&self, headers: &HeaderMap) -> Result<(), Problem> {
        match self.keys.has_admin() {
            true => self.check_admin(headers),
            false => Ok(()),
        }
    }

    /// The credential in the headers: the key in `X-API-Key`, else the one of `Authorization: Bearer`. Other schemes are
    /// ignored.
    fn shown<'a>(&self, headers: &'a HeaderMap) -> Result<Option<Shown<'a>>, Denied> {
        if let Some(key) = only(headers, &X_API_KEY)? {
            return Ok(Some(Shown::Key(key)));
        }
        let Some(text) = only(headers, &AUTHORIZATION)? else { return Ok(None) };
        let (scheme, shown) = text.split_once(' ').unwrap_or((text, ""));
        Ok(scheme.eq_ignore_ascii_case("Bearer").then(|| bearer(shown.trim())))
    }

    /// What the cookie shows whose name is set (RFC 6265, section 4.2.1). Other cookies may hold any bytes; one that is
    /// empty is how a page forgets a token.
    fn cookie<'a>(&self, headers: &'a HeaderMap) -> Result<Option<&'a str>, Denied> {
        let Some(name) = self.cookie.as_deref() else { return Ok(None) };
        let pairs = headers.get_all(COOKIE).into_iter().flat_map(|line| line.as_bytes().split(|&b| b == b';'));
        let mut values = pairs.filter_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="));
        match values.next().map(|value| std::str::from_utf8(value).map_err(|_| Denied::Malformed)).transpose()? {
            Some("" | "\"\"") | None => Ok(None),
            Some(value) => Ok(Some(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))),
        }
    }
}

/// The only field of this name.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Denied> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| Denied::Malformed),
        (Some(_), Some(_)) => Err(Denied::Several),
    }
}

/// A token has three parts; a key that has too is told apart by `X-API-Key`.
fn bearer(text: &str) -> Shown<'_> {
    match text.bytes().filter(|&b| b == b'.').count() {
        2 => Shown::Token(text.into()),
        _ => Shown::Key(text),
    }
}

fn access_token(query: &str) -> Result<Option<String>, Denied> {
    let mut tokens = query::parameters(query).filter(|parameter| parameter.name == "access_token");
    match (tokens.next(), tokens.next()) {
        (None, _) => Ok(None),
        (Some(token), None) => token.value().map(Some).map_err(|_| Denied::Malformed),
        (Some(_), Some(_)) => Err(Denied::Several),
    }
}
