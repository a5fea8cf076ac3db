//! Tokens to open streams with, each another user's, made before any clock starts.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use jsonwebtoken::crypto::aws_lc;
use jsonwebtoken::{EncodingKey, Header};
use serde::{Serialize, Serializer};
use serde_json::json;

use crate::Result;
use crate::clock::unix_now;

/// How long a token lasts: longer than any scenario.
const LIFE: Duration = Duration::from_secs(3600);

/// Signs tokens by HS256 with a secret, which is never shown.
#[derive(Clone)]
pub struct Signer(EncodingKey);

impl Signer {
    /// Any text is a secret.
    pub fn new(secret: &str) -> std::result::Result<Self, Infallible> {
        // An error says that it has been done before.
        let _ = aws_lc::DEFAULT_PROVIDER.install_default();
        Ok(Self(EncodingKey::from_secret(secret.as_bytes())))
    }

    /// The token of user number `user`, with the claims that a platform's own have.
    pub fn token(&self, user: usize) -> Result<String> {
        let now = unix_now();
        let claims = json!({
            "user_id": format!("user{user:05}"),
            "email": format!("user{user:05}@example.org"),
            "roles": ["user"],
            "iat": now.as_secs(),
            "exp": (now + LIFE).as_secs(),
        });
        Ok(jsonwebtoken::encode(&Header::default(), &claims, &self.0)?)
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(HS256)")
    }
}

/// In a report it says only that there were tokens.
impl Serialize for Signer {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str("HS256")
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation};

    use super::*;

    const SECRET: &str = "a secret of more than 32 bytes, as it should be";

    #[test]
    fn each_user_has_a_token_that_is_good() {
        let Ok(signer) = Signer::new(SECRET);
        for user in [0, 17] {
            let token = signer.token(user).expect("it can be signed");
            let key = DecodingKey::from_secret(SECRET.as_bytes());
            let read = jsonwebtoken::decode::<serde_json::Value>(&token, &key, &Validation::default());
            assert_eq!(read.expect("it is good").claims["user_id"], format!("user{user:05}"));
        }
    }

    #[test]
    fn the_secret_is_not_shown() {
        let Ok(signer) = Signer::new(SECRET);
        let shown = format!("{signer:?} {}", serde_json::to_string(&signer).expect("JSON"));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
