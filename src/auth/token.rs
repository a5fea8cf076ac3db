//! Tokens of listeners and services (JSON Web Tokens, RFC 7519): what is set up, and what is asked of them.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::digest;
use clap::ValueEnum;
use jsonwebtoken::crypto::aws_lc;
use serde::Deserialize;

use super::claims::Claims;
use super::jwks::Jwks;
use super::signature::{Token, VerifyingKey};
use super::{Denied, Identity};
use crate::clock::Now;

pub use super::claims::ClaimsConfig;
pub use super::jwks::{JwksConfig, Place};
pub use super::signature::TOKEN_MAX;
pub use jsonwebtoken::Algorithm;

/// Who needs a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Nobody: tokens are not looked at.
    #[default]
    Off,
    /// Nobody, but a token that is there must be good.
    Optional,
    /// Everybody.
    Required,
}

/// How tokens are treated.
#[derive(Debug, Clone)]
pub struct TokenConfig {
    /// Who needs one.
    pub mode: Mode,
    /// What they are verified with. There must be something unless the mode is [`Mode::Off`].
    pub keys: Option<KeySource>,
    /// Rules on what they say.
    pub claims: ClaimsConfig,
    /// The cookie that one may come in, beside the header `Authorization`.
    pub cookie: Option<String>,
}

/// Where the keys are that tokens are verified with.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// A secret that is shared with the issuer.
    Secret {
        /// The secret of today.
        current: Secret,
        /// The one before, and when it ends to count.
        previous: Option<(Secret, Now)>,
        /// Which of HS256, HS384 and HS512 tokens may be signed with. Empty means HS256.
        algorithms: Vec<Algorithm>,
    },
    /// A file with the issuer's public key, in PEM.
    Pem {
        /// The file.
        file: PathBuf,
        /// What tokens may be signed with. Empty means what is usual for the key: RS256, ES256, ES384 or EdDSA.
        algorithms: Vec<Algorithm>,
    },
    /// The issuer's published keys.
    Jwks(JwksConfig),
}

/// A secret text. It is never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Secret(String);

impl Secret {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Any text is one: an error here would show it.
impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Secret, Infallible> {
        Ok(Secret(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The shortest secret that is as strong as the shortest of the signatures, in bytes (RFC 7518, section 3.2).
const SECRET_MIN: usize = 32;

/// Verifies tokens.
#[derive(Debug)]
pub struct Verifier {
    keys: Keys,
    claims: ClaimsConfig,
}

#[derive(Debug)]
enum Keys {
    /// Keys that stay, each with the moment when it ends to count.
    Fixed(Vec<(VerifyingKey, Option<Now>)>),
    Jwks(Jwks),
}

impl Verifier {
    /// Makes the keys ready; reads their file if they are in one. Keys behind a URL are held once
    /// [`Verifier::keep_fresh`] runs and has got them.
    ///
    /// # Errors
    /// Where there is nothing to verify with: names the setting, and what was expected.
    pub fn new(config: &TokenConfig) -> Result<Verifier, String> {
        // Stated, since the library cannot choose where some other crate brings it with another one. An error says
        // that it has been done before.
        let _ = aws_lc::DEFAULT_PROVIDER.install_default();
        let keys = match &config.keys {
            None => {
                return Err("--auth has no key to verify with; expected --jwt-secret, --jwt-key or --jwks".to_owned());
            }
            Some(KeySource::Secret { current, previous, algorithms }) => {
                let key = |flag: &str, secret: &Secret| {
                    if secret.bytes().len() < SECRET_MIN {
                        tracing::warn!("--{flag} has fewer than {SECRET_MIN} bytes: it can be guessed from a token");
                    }
                    VerifyingKey::from_secret(secret.bytes(), algorithms).map_err(|why| format!("--{flag}: {why}"))
                };
                let mut keys = vec![(key("jwt-secret", current)?, None)];
                if let Some((secret, until)) = previous {
                    keys.push((key("jwt-previous-secret", secret)?, Some(*until)));
                }
                Keys::Fixed(keys)
            }
            Some(KeySource::Pem { file, algorithms }) => {
                let wrong = |why: &dyn fmt::Display| format!("--jwt-key {}: {why}", file.display());
                let pem = std::fs::read_to_string(file)
                    .map_err(|error| wrong(&format_args!("{error}; expected a public key in PEM")))?;
                Keys::Fixed(vec![(VerifyingKey::from_pem(&pem, algorithms).map_err(|why| wrong(&why))?, None)])
            }
            Some(KeySource::Jwks(jwks)) => {
                Keys::Jwks(Jwks::new(jwks).map_err(|why| format!("--jwks {}: {why}", jwks.place))?)
            }
        };
        Ok(Verifier { keys, claims: config.claims.clone() })
    }

    /// Who a token is, if it is good at this moment. Asks nobody: it is verified with the keys that are held.
    ///
    /// # Errors
    /// Where it is not. [`Denied::UnknownSigner`] may pass after a [`Verifier::refresh`].
    pub fn verify(&self, token: &str, now: Now) -> Result<Identity, Denied> {
        let token = Token::read(token)?;
        let claims: Claims = match &self.keys {
            Keys::Fixed(keys) => {
                let counts = |until: &Option<Now>| until.is_none_or(|until| now < until);
                token.claims(keys.iter().filter(|(_, until)| counts(until)).map(|(key, _)| key))?
            }
            Keys::Jwks(jwks) => token.claims(jwks.held().named(token.key_id())?)?,
        };
        claims.identity(&self.claims, now, || digest_of(&token))
    }

    /// Keeps published keys fresh, for ever; returns at once where there are none to keep. To be run as a task, by
    /// one only.
    pub async fn keep_fresh(&self) {
        if let Keys::Jwks(jwks) = &self.keys {
            jwks.keep_fresh().await;
        }
    }

    /// Has published keys read again, for a token that was denied as [`Denied::UnknownSigner`], and waits until they
    /// have been, but a few seconds at most. However often this is called, they are read no oftener than
    /// [`JwksConfig::rest`] allows. Needs [`Verifier::keep_fresh`] to run.
    pub async fn refresh(&self) {
        if let Keys::Jwks(jwks) = &self.keys {
            jwks.refresh().await;
        }
    }
}

/// Names a token that has no name: `sha256:` and the first 16 hexadecimal digits of the digest of header and claims.
/// The signature is left out: who holds an ECDSA signature can write another one, and with it the token would have
/// another name; and a guess at a shared secret could be tried on the digest.
fn digest_of(token: &Token<'_>) -> Arc<str> {
    let digest = digest::digest(&digest::SHA256, token.signed().as_bytes());
    let mut name = "sha256:".to_owned();
    for byte in &digest.as_ref()[..8] {
        name.push_str(&format!("{byte:02x}"));
    }
    name.into()
}
