//! Tokens: none is good but one that was signed with the secret, and of that every byte counts.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use fanfare::auth::token::{ClaimsConfig, KeySource, Mode, TokenConfig, Verifier};
use fanfare::clock::Timestamp;
use libfuzzer_sys::fuzz_target;

const SECRET: &str = "a secret of more than 32 bytes, as it should be";

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let claims = ClaimsConfig {
        audience: Vec::new(),
        issuer: Vec::new(),
        leeway: Duration::from_secs(60),
        all_seeing_roles: vec!["admin".to_owned()],
    };
    let Ok(current) = SECRET.parse();
    let keys = Some(KeySource::Secret { current, previous: None, algorithms: Vec::new() });
    Verifier::new(&TokenConfig { mode: Mode::Required, keys, claims, cookie: None }).expect("a key to verify with")
});

/// A good token.
static GOOD: LazyLock<String> = LazyLock::new(|| {
    let claims = serde_json::json!({"user_id": "ann", "exp": 4_000_000_000_u64});
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("signed")
});

fuzz_target!(|data: &[u8]| {
    let now = Timestamp::now();
    assert!(VERIFIER.verify(&GOOD, now).is_ok());
    if let Ok(text) = std::str::from_utf8(data) {
        assert!(text == *GOOD || VERIFIER.verify(text, now).is_err(), "{text:?} is not signed");
        // Signed as it should be, with any claims: it may be refused, and must not panic.
        if let Ok(claims) = serde_json::from_str::<serde_json::Value>(text) {
            let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
            let signed = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("signed");
            let _ = VERIFIER.verify(&signed, now);
        }
    }
    // One byte of a good token is another one.
    if let [at, byte, ..] = *data {
        let mut forged = GOOD.clone().into_bytes();
        let at = usize::from(at) % forged.len();
        if forged[at] != byte {
            forged[at] = byte;
            if let Ok(forged) = String::from_utf8(forged) {
                assert!(VERIFIER.verify(&forged, now).is_err(), "{forged:?} is not what was signed");
            }
        }
    }
});
