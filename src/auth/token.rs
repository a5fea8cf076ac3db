//! Verifies the tokens of listeners and services (JSON Web Tokens, RFC 7519).

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use clap::ValueEnum;
use jsonwebtoken::crypto::aws_lc;
use serde::{Deserialize, Deserializer};

use super::claims::Claims;
use super::identity::{Denied, Identity};
use super::jwks::Jwks;
use super::signature::{Token, VerifyingKey};
use crate::clock::Timestamp;

pub use super::claims::ClaimsConfig;
pub use super::jwks::{JwksConfig, KeySetFigures, Origin, Place};
pub use super::signature::TOKEN_MAX;
pub use jsonwebtoken::Algorithm;

/// Whether requests need a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Tokens are ignored.
    #[default]
    Off,
    /// A request may come without a token, but a given token must be valid.
    Optional,
    /// Every request needs a valid token.
    Required,
}

/// The settings of tokens.
#[derive(Debug, Clone)]
pub struct TokenConfig {
    /// Whether requests need a token.
    pub mode: Mode,
    /// The keys that tokens are verified with. `None` is allowed only with [`Mode::Off`].
    pub keys: Option<KeySource>,
    /// The rules on claims.
    pub claims: ClaimsConfig,
    /// The name of a cookie that may carry a token, in addition to the header `Authorization`.
    pub cookie: Option<String>,
}

/// The source of the keys that tokens are verified with.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// A secret that is shared with the issuer.
    Secret {
        /// The current secret.
        current: Secret,
        /// The previous secret, and when it stops being accepted.
        previous: Option<(Secret, Timestamp)>,
        /// The accepted algorithms, of HS256, HS384 and HS512. Empty means HS256.
        algorithms: Vec<Algorithm>,
    },
    /// A file with the issuer's public key, in PEM.
    Pem {
        /// The file.
        file: PathBuf,
        /// The accepted algorithms. Empty means the usual one for the key: RS256, ES256, ES384 or EdDSA.
        algorithms: Vec<Algorithm>,
    },
    /// The key set that the issuer publishes.
    Jwks(JwksConfig),
}

/// A secret text. No formatting and no error shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Every text is accepted, because an error would show it.
impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Secret, Infallible> {
        Ok(Secret(text.to_owned()))
    }
}

/// For a value of another type, serde's own error would show the secret.
impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "no text; expected a secret in quotes")]
        enum Written {
            Text(String),
        }
        let Written::Text(text) = Written::deserialize(deserializer)?;
        Ok(Secret(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The shortest secret, in bytes, that is as strong as the shortest signature (RFC 7518, section 3.2).
const SECRET_MIN: usize = 32;

/// Verifies tokens.
#[derive(Debug)]
pub struct Verifier {
    keys: Keys,
    claims: ClaimsConfig,
}

#[derive(Debug)]
enum Keys {
    /// Keys that do not change, each with the moment when it stops being accepted, if any.
    Fixed(Vec<(VerifyingKey, Option<Timestamp>)>),
    Jwks(Box<Jwks>),
}

impl Verifier {
    /// Prepares the keys, and reads their file if they come from one. Keys behind a URL are available once
    /// [`Verifier::keep_fresh`] has fetched them.
    ///
    /// # Errors
    /// If there is no usable key: the text names the setting and what was expected.
    pub fn new(config: &TokenConfig) -> Result<Verifier, String> {
        // Stated, since the library cannot choose where some other crate brings it with another one. An error says
        // that it has been done before.
        let _ = aws_lc::DEFAULT_PROVIDER.install_default();
        let keys = match &config.keys {
            None => {
                return Err(
                    "--auth has no key to verify with; expected --jwt-secret, --jwt-key or --jwks too".to_owned()
                );
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
            Some(KeySource::Jwks(jwks)) => Keys::Jwks(Box::new(Jwks::new(jwks)?)),
        };
        Ok(Verifier { keys, claims: config.claims.clone() })
    }

    /// The identity that a token proves now. It is verified with the keys at hand; nothing is fetched.
    ///
    /// # Errors
    /// If the token is refused. [`Denied::UnknownSigner`] and [`Denied::KeysUnavailable`] may pass after a
    /// [`Verifier::refresh`].
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Identity, Denied> {
        let token = Token::read(token)?;
        let claims: Claims = match &self.keys {
            Keys::Fixed(keys) => {
                let counts = |until: &Option<Timestamp>| until.is_none_or(|until| now < until);
                token.claims(keys.iter().filter(|(_, until)| counts(until)).map(|(key, _)| key))?
            }
            Keys::Jwks(jwks) => token.claims(jwks.signers(&jwks.held(), token.key_id())?)?,
        };
        claims.identity(&self.claims, now, || digest_of(&token))
    }

    /// Whether there is a key to verify tokens with. A published key set may not have been fetched yet.
    pub fn has_keys(&self) -> bool {
        match &self.keys {
            Keys::Fixed(_) => true,
            Keys::Jwks(jwks) => jwks.has_keys(),
        }
    }

    /// Figures of the key set, if the keys come from one.
    pub fn key_set(&self) -> Option<KeySetFigures> {
        match &self.keys {
            Keys::Fixed(_) => None,
            Keys::Jwks(jwks) => Some(jwks.figures()),
        }
    }

    /// The number of keys and the age of the key set in the cache file. `None` without a cache file, `Ok(None)` if the
    /// file does not exist yet, and an error if it is unusable.
    pub fn cached(&self) -> Option<Result<Option<(usize, Duration)>, String>> {
        match &self.keys {
            Keys::Fixed(_) => None,
            Keys::Jwks(jwks) => jwks.cached(),
        }
    }

    /// Keeps a published key set fresh, for ever; returns at once if the keys are not published. Run it in one task
    /// only.
    pub async fn keep_fresh(&self) {
        if let Keys::Jwks(jwks) = &self.keys {
            jwks.keep_fresh().await;
        }
    }

    /// Requests a new reading of the published key set, for a token that was denied as [`Denied::UnknownSigner`] or
    /// [`Denied::KeysUnavailable`], and waits for it: a few seconds at most, and not at all if the last reading failed.
    /// However often this is called, the set is read no more often than [`JwksConfig::rest`] allows.
    /// [`Verifier::keep_fresh`] must be running.
    pub async fn refresh(&self) {
        if let Keys::Jwks(jwks) = &self.keys {
            jwks.refresh().await;
        }
    }
}

/// The name of a token without the claim `jti`: `sha256:` and the first 16 hexadecimal digits of the digest of header
/// and claims. The signature is left out for two reasons: a holder of an ECDSA signature can write another valid one,
/// which would change the name; and guesses at a shared secret could be tried on the digest.
fn digest_of(token: &Token<'_>) -> Arc<str> {
    let digest = digest::digest(&digest::SHA256, token.signed().as_bytes());
    let mut name = "sha256:".to_owned();
    for byte in &digest.as_ref()[..8] {
        name.push_str(&format!("{byte:02x}"));
    }
    name.into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::{Value, json};

    use super::*;
    use crate::pattern::Pattern;

    const SECRET: &str = "a secret of more than 32 bytes, as it should be";
    const OLD_SECRET: &str = "the secret before that one, which has its end set";

    fn claims_config() -> ClaimsConfig {
        ClaimsConfig {
            audience: Vec::new(),
            issuer: Vec::new(),
            leeway: Duration::from_secs(60),
            all_seeing_roles: vec!["admin".to_owned()],
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_ms(seconds * 1000)
    }

    fn verifier_with(
        previous: Option<(Secret, Timestamp)>,
        algorithms: &[Algorithm],
        claims: ClaimsConfig,
    ) -> Verifier {
        let current = Secret(SECRET.to_owned());
        let keys = Some(KeySource::Secret { current, previous, algorithms: algorithms.to_vec() });
        Verifier::new(&TokenConfig { mode: Mode::Required, keys, claims, cookie: None }).expect("it can be set up")
    }

    fn verifier() -> Verifier {
        verifier_with(None, &[], claims_config())
    }

    fn signed(secret: &str, algorithm: Algorithm, claims: &Value) -> String {
        let key = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&Header::new(algorithm), claims, &key).expect("it can be signed")
    }

    /// Who somebody with these claims (and an `exp` of 1000) is at 500.
    fn identity(mut claims: Value) -> Result<Identity, Denied> {
        claims["exp"] = json!(1000);
        verifier().verify(&signed(SECRET, Algorithm::HS256, &claims), at(500))
    }

    #[test]
    fn it_begins_and_ends_with_the_leeway_around_it() {
        let token = signed(SECRET, Algorithm::HS256, &json!({"nbf": 1000, "exp": 2000}));
        for (now_ms, expected) in [
            (939_999, Err(Denied::NotYet)),
            (940_000, Ok(())),
            (2_059_999, Ok(())),
            (2_060_000, Err(Denied::Expired)),
            (u64::MAX / 2_000_000, Err(Denied::Expired)),
        ] {
            let answer = verifier().verify(&token, Timestamp::from_unix_ms(now_ms));
            assert_eq!(answer.as_ref().map(|_| ()).map_err(|denied| *denied), expected, "{now_ms}");
            if let Ok(identity) = answer {
                // The moment from which on it is refused: a stream is not ended while its token is still let in.
                assert_eq!(identity.expires, Some(Timestamp::from_unix_ms(2_060_000)));
            }
        }
        let exact = ClaimsConfig { leeway: Duration::ZERO, ..claims_config() };
        let exact = verifier_with(None, &[], exact);
        assert!(exact.verify(&token, at(1000)).is_ok() && exact.verify(&token, at(1999)).is_ok());
        assert_eq!(exact.verify(&token, at(2000)), Err(Denied::Expired));
        let fraction = signed(SECRET, Algorithm::HS256, &json!({"exp": 2000.5}));
        assert!(exact.verify(&fraction, Timestamp::from_unix_ms(2_000_499)).is_ok());
        assert_eq!(exact.verify(&fraction, Timestamp::from_unix_ms(2_000_500)), Err(Denied::Expired));
    }

    #[test]
    fn an_end_is_mandatory_and_dates_are_seconds() {
        for exp in [json!(null), json!("1000"), json!(-1), json!(1e300), json!(1_800_000_000_000_u64), json!([1000])] {
            let token = signed(SECRET, Algorithm::HS256, &json!({"exp": exp}));
            assert_eq!(verifier().verify(&token, at(500)), Err(Denied::Malformed), "{exp}");
        }
        let endless = signed(SECRET, Algorithm::HS256, &json!({"sub": "a"}));
        assert_eq!(verifier().verify(&endless, at(500)), Err(Denied::Malformed));
    }

    #[test]
    fn the_previous_secret_counts_until_its_end() {
        let rotating = verifier_with(Some((Secret(OLD_SECRET.to_owned()), at(1000))), &[], claims_config());
        let claims = json!({"exp": 5000});
        let (new, old) = (signed(SECRET, Algorithm::HS256, &claims), signed(OLD_SECRET, Algorithm::HS256, &claims));
        assert!(rotating.verify(&old, Timestamp::from_unix_ms(999_999)).is_ok());
        assert_eq!(rotating.verify(&old, at(1000)), Err(Denied::Untrusted));
        for now in [999, 1000, 4000] {
            assert!(rotating.verify(&new, at(now)).is_ok(), "{now}");
            assert_eq!(verifier().verify(&old, at(now)), Err(Denied::Untrusted), "{now}");
        }
    }

    #[test]
    fn only_the_algorithms_that_were_set_are_taken() {
        let all = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
        for set in all {
            let verifier = verifier_with(None, &[set], claims_config());
            for used in all {
                let token = signed(SECRET, used, &json!({"exp": 1000}));
                let answer = verifier.verify(&token, at(500)).map(|_| ());
                assert_eq!(answer, if used == set { Ok(()) } else { Err(Denied::Untrusted) }, "{used:?} for {set:?}");
            }
        }
    }

    #[test]
    fn audience_and_issuer_must_be_ours_and_trusted() {
        let ours = |audience: &[&str], issuer: &[&str]| {
            let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
            let config = ClaimsConfig { audience: texts(audience), issuer: texts(issuer), ..claims_config() };
            verifier_with(None, &[], config)
        };
        for (verifier, claims, expected) in [
            (ours(&[], &[]), json!({}), true),
            (ours(&[], &[]), json!({"aud": "a"}), false),
            (ours(&[], &[]), json!({"aud": []}), false),
            (ours(&["a", "b"], &[]), json!({}), false),
            (ours(&["a", "b"], &[]), json!({"aud": "b"}), true),
            (ours(&["a", "b"], &[]), json!({"aud": ["x", "a"]}), true),
            (ours(&["a", "b"], &[]), json!({"aud": ["x", "A"]}), false),
            (ours(&[], &[]), json!({"iss": "i"}), true),
            (ours(&[], &["i", "j"]), json!({"iss": "j"}), true),
            (ours(&[], &["i", "j"]), json!({"iss": "ij"}), false),
            (ours(&[], &["i", "j"]), json!({}), false),
        ] {
            let mut timed = claims.clone();
            timed["exp"] = json!(1000);
            let answer = verifier.verify(&signed(SECRET, Algorithm::HS256, &timed), at(500)).map(|_| ());
            assert_eq!(answer, if expected { Ok(()) } else { Err(Denied::Elsewhere) }, "{claims}");
        }
    }

    #[test]
    fn the_user_is_user_id_or_else_sub() {
        for (claims, user) in [
            (json!({}), None),
            (json!({"sub": "s"}), Some("s")),
            (json!({"user_id": "u", "sub": "s", "email": "e", "iat": "whenever"}), Some("u")),
            (json!({"user_id": 18_446_744_073_709_551_615_u64}), Some("18446744073709551615")),
            (json!({"user_id": "", "sub": "s"}), Some("s")),
            (json!({"user_id": null, "sub": ""}), None),
        ] {
            let identity = identity(claims.clone()).expect("it is good");
            assert_eq!(identity.user.as_deref(), user, "{claims}");
        }
        for user in [json!(1.5), json!(-1), json!(true), json!({}), json!(["u"])] {
            assert_eq!(identity(json!({"user_id": user})), Err(Denied::Malformed), "{user}");
        }
    }

    #[test]
    fn an_all_seeing_role_sees_everyone() {
        for (roles, sees) in [
            (json!(null), false),
            (json!([]), false),
            (json!(["user", "administrator"]), false),
            (json!(["user", "admin"]), true),
        ] {
            assert_eq!(identity(json!({"roles": roles})).map(|identity| identity.sees_everyone), Ok(sees), "{roles}");
        }
        assert_eq!(identity(json!({"roles": "admin"})), Err(Denied::Malformed));
    }

    #[test]
    fn grants_come_from_the_own_claim_and_from_permissions() {
        let written = |patterns: &[Pattern]| patterns.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        for (claims, listen, publish) in [
            (json!({}), "all", ""),
            (json!({"permissions": ["wallets:read", "events:other:x"], "fanfare": null}), "all", ""),
            (json!({"fanfare": {"listen": ["a", "b.*"]}}), "a b.*", ""),
            (json!({"fanfare": {"listen": []}}), "", ""),
            (json!({"fanfare": {"publish": ["*"]}}), "all", "all"),
            (json!({"permissions": ["events:listen:a", "events:publish:b.*"]}), "a", "b.*"),
            (json!({"fanfare": {"listen": ["a"]}, "permissions": ["events:listen:b:c"]}), "a b:c", ""),
        ] {
            let identity = identity(claims.clone()).expect("it is good");
            let grants = (written(&identity.may_listen), written(&identity.may_publish));
            assert_eq!(grants, (listen.to_owned(), publish.to_owned()), "{claims}");
        }
        for claims in [
            json!({"fanfare": {"listen": ["a*"]}}),
            json!({"fanfare": {"listen": "a"}}),
            json!({"fanfare": {"listen": null}}),
            json!({"fanfare": {"listne": ["a"]}}),
            json!({"fanfare": ["a"]}),
            json!({"permissions": ["events:listen:"]}),
            json!({"permissions": ["events:publish:a,b"]}),
            json!({"permissions": "events:listen:a"}),
        ] {
            assert_eq!(identity(claims.clone()), Err(Denied::Malformed), "{claims}");
        }
    }

    #[test]
    fn a_token_is_named_by_its_jti_or_by_a_digest() {
        let named = |claims: Value| identity(claims).expect("it is good").name;
        assert_eq!(&*named(json!({"jti": "session-7"})), "session-7");
        let digest = named(json!({"sub": "a"}));
        assert!(digest.len() == 23 && digest.starts_with("sha256:"), "{digest}");
        assert_eq!(digest, named(json!({"sub": "a"})));
        assert_ne!(digest, named(json!({"sub": "b"})));
        for unfit in ["", "a\nb", &"j".repeat(129)] {
            assert!(named(json!({"jti": unfit})).starts_with("sha256:"), "{unfit:?}");
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        let keys = KeySource::Secret { current: Secret(SECRET.to_owned()), previous: None, algorithms: Vec::new() };
        assert!(!format!("{keys:?} {:?}", verifier()).contains("secret of"));
    }
}
