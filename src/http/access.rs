//! Who is asking: a request's token or key becomes what its sender may do.
//!
//! A listener shows a token: in `Authorization: Bearer` (RFC 6750, section 2.1), in the query as `access_token` (2.3;
//! `EventSource` sets no headers), or in a cookie whose name is set. A publisher shows a key, in `X-API-Key` or as a
//! bearer, or a token that grants publishing. Where nothing is set up, everybody may do everything.

use std::net::IpAddr;
use std::sync::Arc;

use hyper::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName};
use hyper::http::request::Parts;

use super::client::ProxyConfig;
use super::query;
use super::reply::Problem;
use crate::auth::keys::{Key, Keys};
use crate::auth::token::{Mode, TokenConfig, Verifier};
use crate::auth::{Denied, Identity, Listener};
use crate::clock::Now;
use crate::limit::{Allowance, Exceeded, Limits};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// What requests are measured by.
#[derive(Debug)]
pub struct Access {
    mode: Mode,
    verifier: Option<Verifier>,
    cookie: Option<String>,
    keys: Keys,
    limits: Limits,
    proxies: ProxyConfig,
}

/// Who publishes.
#[derive(Debug, Clone)]
pub enum Publisher {
    /// Anybody, where neither keys nor tokens are set up.
    Anyone,
    /// A service with a key.
    Key(Arc<Key>),
    /// Somebody with a token.
    Token(Identity),
}

impl Publisher {
    /// The name that its idempotency keys count under.
    pub fn name(&self) -> &str {
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

impl Access {
    /// Rules by these settings.
    ///
    /// # Errors
    /// Where tokens cannot be verified with what was set: says what was expected.
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

    /// What everybody may have.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The address of the client that sent a request over a connection from `peer`.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        self.proxies.client(peer, headers)
    }

    /// What verifies tokens, where they are looked at.
    pub fn verifier(&self) -> Option<&Verifier> {
        self.verifier.as_ref()
    }

    /// Whether anybody may listen to everything.
    pub fn is_open_to_listeners(&self) -> bool {
        self.mode == Mode::Off
    }

    /// Whether anybody may publish.
    pub fn is_open_to_publishers(&self) -> bool {
        self.mode == Mode::Off && self.keys.is_empty()
    }

    /// Who wants to listen.
    ///
    /// # Errors
    /// [`Denied`], where a token is needed or one that was shown is no good.
    pub fn listener(&self, head: &Parts, now: Now) -> Result<Listener, Denied> {
        let Some(verifier) = &self.verifier else { return Ok(Listener::Anyone) };
        let shown = match self.shown(&head.headers) {
            Some(shown) => Some(shown.to_owned()),
            None => access_token(head.uri.query().unwrap_or_default())?
                .or_else(|| self.cookie(&head.headers).map(str::to_owned)),
        };
        match (shown, self.mode) {
            (Some(shown), _) if is_token(&shown) => verifier.verify(&shown, now).map(Listener::Known),
            (Some(shown), _) => self.keys.find(&shown).map(|key| Listener::Known(key.identity.clone())),
            (None, Mode::Required) => Err(Denied::Missing),
            (None, _) => Ok(Listener::Stranger),
        }
    }

    /// Who wants to publish.
    ///
    /// # Errors
    /// [`Denied`], where a key or token is needed or one that was shown is no good.
    pub fn publisher(&self, headers: &HeaderMap, now: Now) -> Result<Publisher, Denied> {
        if self.is_open_to_publishers() {
            return Ok(Publisher::Anyone);
        }
        match (self.shown(headers), &self.verifier) {
            (None, _) => Err(Denied::Missing),
            (Some(shown), Some(verifier)) if is_token(shown) => verifier.verify(shown, now).map(Publisher::Token),
            (Some(shown), _) => self.keys.find(shown).map(Publisher::Key),
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
        let mut publisher = self.publisher(headers, Now::read());
        if let Err(Denied::UnknownSigner) = publisher {
            self.refresh().await;
            publisher = self.publisher(headers, Now::read());
        }
        let now = Now::read();
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
        let shown = self.shown(headers).ok_or(Problem::Denied(Denied::Missing))?;
        match self.keys.find(shown).map_err(Problem::Denied)?.admin {
            true => Ok(()),
            false => Err(Problem::Forbidden("this needs an operator's key".to_owned())),
        }
    }

    /// What the headers show.
    fn shown<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let key = headers.get(X_API_KEY).and_then(|key| key.to_str().ok());
        key.or_else(|| {
            let (scheme, shown) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
            scheme.eq_ignore_ascii_case("Bearer").then(|| shown.trim())
        })
    }

    /// What the cookie shows whose name is set (RFC 6265, section 4.2.1).
    fn cookie<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let name = self.cookie.as_deref()?;
        let lines = headers.get_all(COOKIE).into_iter().filter_map(|line| line.to_str().ok());
        let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(other, _)| *other == name).map(|(_, value)| value.trim_matches('"'))
    }
}

fn access_token(query: &str) -> Result<Option<String>, Denied> {
    match query::parameters(query).find(|parameter| parameter.name == "access_token") {
        Some(parameter) => parameter.value().map(Some).map_err(|_| Denied::Malformed),
        None => Ok(None),
    }
}

/// Whether this looks like a token, which has three parts; a key has no dots.
fn is_token(shown: &str) -> bool {
    shown.bytes().filter(|&b| b == b'.').count() == 2
}
