//! Signatures of tokens (JWS, RFC 7515): parses a token, once, and verifies its signature with a key.
//!
//! Each key has a fixed list of algorithms, and the token's header can only choose among those: `alg` cannot add one,
//! and `jwk`, `jku`, `x5c` and `x5u` are not read at all.

use aws_lc_rs::rsa;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519};
use aws_lc_rs::signature::{ParsedPublicKey, RsaPublicKeyComponents, VerificationAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, crypto};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny};

use super::identity::Denied;

/// The longest token that is parsed, in bytes.
pub const TOKEN_MAX: usize = 8 << 10;

/// A parsed token. Nothing in it may be trusted before its signature is verified.
pub(super) struct Token<'a> {
    /// The algorithm that its header names; `None` if it is unknown, such as `none`.
    algorithm: Option<Algorithm>,
    key_id: Option<String>,
    /// Header and claims as they were signed.
    signed: &'a str,
    claims: &'a str,
    signature: &'a str,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    /// Extensions that must be understood or refused (RFC 7515, section 4.1.11); none is understood.
    #[serde(default, deserialize_with = "present")]
    crit: bool,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

impl<'a> Token<'a> {
    /// Takes a token apart.
    pub(super) fn read(text: &'a str) -> Result<Token<'a>, Denied> {
        if text.len() > TOKEN_MAX {
            return Err(Denied::Malformed);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Denied::Malformed)?;
        // A further dot would be in the header, where base64 has none.
        let (header, claims) = signed.rsplit_once('.').ok_or(Denied::Malformed)?;
        let header: Header = object(header)?;
        match header.crit {
            true => Err(Denied::Malformed),
            false => Ok(Token { algorithm: header.alg.parse().ok(), key_id: header.kid, signed, claims, signature }),
        }
    }

    /// The name of the signing key, as the header states it.
    pub(super) fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// What was signed: header and claims, without the signature.
    pub(super) fn signed(&self) -> &str {
        self.signed
    }

    /// The claims, if one of these keys signed them.
    pub(super) fn claims<'k, T: DeserializeOwned>(
        &self,
        keys: impl IntoIterator<Item = &'k VerifyingKey>,
    ) -> Result<T, Denied> {
        match keys.into_iter().any(|key| key.has_signed(self)) {
            true => object(self.claims),
            false => Err(Denied::Untrusted),
        }
    }
}

/// Reads a part: a JSON object in base64url without padding (RFC 7515, section 2).
fn object<T: DeserializeOwned>(part: &str) -> Result<T, Denied> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| Denied::Malformed)?;
    // serde would also read a struct from an array of its fields.
    match json.trim_ascii_start().first() {
        Some(b'{') => serde_json::from_slice(&json).map_err(|_| Denied::Malformed),
        _ => Err(Denied::Malformed),
    }
}

/// A key, and the algorithms that tokens may be signed with by it: at least one, all of the key's own kind.
#[derive(Debug)]
pub(super) struct VerifyingKey {
    key: DecodingKey,
    algorithms: Box<[Algorithm]>,
}

/// Kinds of keys, by the algorithms that they can be used with.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Secret,
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// The shortest RSA modulus, in bytes (RFC 7518, section 3.3).
const MODULUS_MIN: usize = 2048 / 8;

impl Kind {
    /// The kind of a public key; `None` if it cannot verify any of the algorithms.
    fn of(key: &DecodingKey) -> Option<Kind> {
        let is = |algorithm: &'static dyn VerificationAlgorithm| {
            key.try_get_as_bytes().is_ok_and(|bytes| ParsedPublicKey::new(algorithm, bytes).is_ok())
        };
        match key.family() {
            AlgorithmFamily::Rsa => (modulus(key)? >= MODULUS_MIN).then_some(Kind::Rsa),
            AlgorithmFamily::Ec if is(&ECDSA_P256_SHA256_FIXED) => Some(Kind::P256),
            AlgorithmFamily::Ec if is(&ECDSA_P384_SHA384_FIXED) => Some(Kind::P384),
            AlgorithmFamily::Ed if is(&ED25519) => Some(Kind::Ed25519),
            // A secret too: it is no public key.
            _ => None,
        }
    }

    /// The algorithms for keys of this kind, the default first.
    fn algorithms(self) -> &'static [Algorithm] {
        use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};
        match self {
            Kind::Secret => &[HS256, HS384, HS512],
            Kind::Rsa => &[RS256, RS384, RS512, PS256, PS384, PS512],
            Kind::P256 => &[ES256],
            Kind::P384 => &[ES384],
            Kind::Ed25519 => &[EdDSA],
        }
    }

    /// The algorithms to accept: the configured ones, or the default.
    fn accepted(self, set: &[Algorithm]) -> Result<Box<[Algorithm]>, String> {
        let own = self.algorithms();
        match set.iter().find(|algorithm| !own.contains(algorithm)) {
            Some(alien) => Err(format!("{alien:?} is no algorithm for this key; expected of {own:?}")),
            None if set.is_empty() => Ok([own[0]].into()),
            None => Ok(set.into()),
        }
    }
}

/// How long an RSA key's modulus is, in bytes.
fn modulus(key: &DecodingKey) -> Option<usize> {
    match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, .. } => Some(n.len()),
        DecodingKeyKind::SecretOrDer(der) => {
            let key = rsa::PublicKey::from_der(der).ok()?;
            Some(RsaPublicKeyComponents::<Vec<u8>>::from(&key).n.len())
        }
    }
}

impl VerifyingKey {
    /// A shared secret. Without algorithms, HS256.
    ///
    /// # Errors
    /// Where it is empty, or an algorithm is not one of HMAC.
    pub(super) fn from_secret(secret: &[u8], algorithms: &[Algorithm]) -> Result<VerifyingKey, String> {
        if secret.is_empty() {
            return Err("it is empty; expected a secret, best 32 random bytes or more".to_owned());
        }
        let algorithms = Kind::Secret.accepted(algorithms)?;
        Ok(VerifyingKey { key: DecodingKey::from_secret(secret), algorithms })
    }

    /// A public key in PEM (SPKI, or PKCS #1 for RSA). Without algorithms, the usual one of the key's kind: RS256 for
    /// RSA, for the others the only one.
    ///
    /// # Errors
    /// Where it is no such key, or an algorithm is not one for it.
    pub(super) fn from_pem(pem: &str, algorithms: &[Algorithm]) -> Result<VerifyingKey, String> {
        let labels: Vec<&str> =
            pem.lines().filter_map(|line| line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----")).collect();
        let ["PUBLIC KEY" | "RSA PUBLIC KEY"] = labels[..] else {
            return Err(format!("it has the PEM blocks {labels:?}; expected one public key, [\"PUBLIC KEY\"]"));
        };
        let text = pem.as_bytes();
        let read = DecodingKey::from_ed_pem(text)
            .or_else(|_| DecodingKey::from_ec_pem(text))
            .or_else(|_| DecodingKey::from_rsa_pem(text));
        let key = read.ok().and_then(|key| Some((Kind::of(&key)?, key)));
        let (kind, key) = key.ok_or(
            "it is no key that is known here; expected RSA of 2048 bits or more, P-256, P-384 or Ed25519".to_owned(),
        )?;
        Ok(VerifyingKey { algorithms: kind.accepted(algorithms)?, key })
    }

    /// A key of a set (RFC 7517), for those of the algorithms that are for keys of its kind, or the one that it
    /// names itself. None where there is no such algorithm, or it is no public key for signatures: RFC 7517, section
    /// 5, has such keys ignored.
    pub(super) fn from_jwk(jwk: &Jwk, algorithms: &[Algorithm]) -> Option<VerifyingKey> {
        let common = &jwk.common;
        let for_signatures = common.public_key_use.as_ref().is_none_or(|of| *of == PublicKeyUse::Signature)
            && common.key_operations.as_ref().is_none_or(|of| of.contains(&KeyOperations::Verify));
        // An algorithm of encryption is none here: then the key is not for signatures either.
        let named = common.key_algorithm.map(Algorithm::try_from).transpose().ok()?;
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let kind = Kind::of(&key)?;
        let usable = |algorithm: &Algorithm| {
            kind.algorithms().contains(algorithm) && named.is_none_or(|named| named == *algorithm)
        };
        let algorithms: Box<[Algorithm]> = algorithms.iter().copied().filter(usable).collect();
        (for_signatures && !algorithms.is_empty()).then_some(VerifyingKey { key, algorithms })
    }

    fn has_signed(&self, token: &Token<'_>) -> bool {
        token.algorithm.filter(|algorithm| self.algorithms.contains(algorithm)).is_some_and(|algorithm| {
            crypto::verify(token.signature, token.signed.as_bytes(), &self.key, algorithm).unwrap_or(false)
        })
    }
}
