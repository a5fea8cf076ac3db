//! Tokens: none is accepted that was not signed, and of one that was signed and is accepted, none that is changed.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fanfare::auth::Denied;
use fanfare::auth::token::{Algorithm, ClaimsConfig, KeySource, Mode, TokenConfig, Verifier};
use fanfare::clock::Timestamp;
use jsonwebtoken::{EncodingKey, crypto};
use libfuzzer_sys::fuzz_target;

const NOW: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);
const SECRET: &str = "a secret of more than 32 bytes, as it should be";

fn verifier(secret: &str) -> Verifier {
    let claims = ClaimsConfig {
        audience: Vec::new(),
        issuer: Vec::new(),
        leeway: Duration::from_secs(60),
        all_seeing_roles: vec!["admin".to_owned()],
    };
    let Ok(current) = secret.parse();
    let keys = Some(KeySource::Secret { current, previous: None, algorithms: vec![Algorithm::HS256] });
    Verifier::new(&TokenConfig { mode: Mode::Required, keys, claims, cookie: None }).expect("it can be set up")
}

static OURS: LazyLock<Verifier> = LazyLock::new(|| verifier(SECRET));
static OTHER: LazyLock<Verifier> = LazyLock::new(|| verifier("another secret, which is as long as the first one"));

fn signature(signed: &str) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).expect("it can be signed")
}

fuzz_target!(|text: &str| {
    if OURS.verify(text, NOW).is_ok() {
        let (signed, signed_with) = text.rsplit_once('.').expect("a token has dots");
        assert_eq!(signed_with, signature(signed));
    }

    // A header and claims, or claims alone.
    let (header, claims) = text.split_once('\n').unwrap_or((r#"{"alg":"HS256"}"#, text));
    let encoded = |part| URL_SAFE_NO_PAD.encode(part);
    let signed = format!("{}.{}", encoded(header), encoded(claims));
    let signature = signature(&signed);
    let answer = OURS.verify(&format!("{signed}.{signature}"), NOW);
    let Ok(identity) = answer else { return };
    assert!(identity.expires.is_some_and(|expires| expires > NOW));
    assert!(!identity.name.is_empty() && !identity.name.contains(char::is_control));
    assert!(identity.user.is_none_or(|user| !user.is_empty()));

    assert_eq!(OTHER.verify(&format!("{signed}.{signature}"), NOW), Err(Denied::Untrusted));
    for changed in [signature[1..].to_owned(), format!("{signature}A"), format!("{signature}="), String::new()] {
        assert_eq!(OURS.verify(&format!("{signed}.{changed}"), NOW), Err(Denied::Untrusted), "{changed}");
    }
    let swapped = format!("{}.{}.{signature}", encoded(header), encoded(&format!("{claims} ")));
    assert_eq!(OURS.verify(&swapped, NOW), Err(Denied::Untrusted));
});
