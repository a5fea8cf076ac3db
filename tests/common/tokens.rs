//! Tokens as an issuer signs them, and as those forge them who would like to be one.

use std::fmt::Write as _;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use fanfare::auth::token::{Algorithm, TOKEN_MAX};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{AlgorithmFamily, EncodingKey, crypto};
use serde_json::{Value, json};

/// Signs tokens.
pub(crate) struct Issuer {
    pub(crate) algorithm: Algorithm,
    pub(crate) key: EncodingKey,
    /// What everybody may know: the public key in PEM; for a secret nothing.
    pub(crate) pem: String,
    /// The name of its key in a set.
    pub(crate) id: String,
    /// The moment at which its tokens are looked at, in seconds since 1970: good ones begin before and end after it.
    pub(crate) now_s: u64,
}

/// The secret of all issuers that share one.
pub(crate) const SECRET: &str = "a secret of more than 32 bytes that nobody else knows";

impl Issuer {
    pub(crate) fn new(algorithm: Algorithm, id: &str, now_s: u64) -> Issuer {
        let (private, public) = match algorithm {
            Algorithm::HS256 => {
                let key = EncodingKey::from_secret(SECRET.as_bytes());
                return Issuer { algorithm, key, pem: String::new(), id: id.to_owned(), now_s };
            }
            Algorithm::RS256 | Algorithm::PS256 => {
                let key = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
                (private(&key.as_der()), public(&key.public_key().as_der()))
            }
            Algorithm::ES256 => {
                let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
                let pkcs8 = key.to_pkcs8v1().expect("it can be written");
                (pem("PRIVATE KEY", pkcs8.as_ref()), public(&key.public_key().as_der()))
            }
            Algorithm::EdDSA => {
                let key = Ed25519KeyPair::generate().expect("a key");
                (private(&key.as_der()), public(&key.public_key().as_der()))
            }
            other => panic!("{other:?} is not needed"),
        };
        let read = match algorithm {
            Algorithm::ES256 => EncodingKey::from_ec_pem,
            Algorithm::EdDSA => EncodingKey::from_ed_pem,
            _ => EncodingKey::from_rsa_pem,
        };
        let key = read(private.as_bytes()).expect("it reads what it is meant for");
        Issuer { algorithm, key, pem: public, id: id.to_owned(), now_s }
    }

    /// Its public key as a JWK.
    pub(crate) fn jwk(&self) -> Value {
        let jwk = Jwk::from_encoding_key(&self.key, self.algorithm).expect("it is public");
        let mut jwk = serde_json::to_value(jwk).expect("it is JSON");
        jwk["kid"] = json!(self.id);
        jwk
    }

    /// A token's usual header.
    pub(crate) fn header(&self) -> String {
        json!({"alg": format!("{:?}", self.algorithm), "typ": "JWT", "kid": self.id}).to_string()
    }

    /// A signed token of any texts, also of such as are no JSON.
    pub(crate) fn sign(&self, header: &str, claims: &str) -> String {
        sign(&self.key, self.algorithm, header, claims)
    }

    /// A token as it should be.
    pub(crate) fn good(&self) -> String {
        self.sign(&self.header(), &self.claims())
    }

    /// The claims of a good token.
    pub(crate) fn claims(&self) -> String {
        let now_s = self.now_s;
        json!({"exp": now_s + 900, "nbf": now_s - 900, "user_id": "u", "roles": ["user"]}).to_string()
    }
}

/// A private key in PEM.
pub(crate) fn private(der: &Result<Pkcs8V1Der<'static>, aws_lc_rs::error::Unspecified>) -> String {
    pem("PRIVATE KEY", der.as_ref().expect("it can be written").as_ref())
}

fn public(der: &Result<PublicKeyX509Der<'static>, aws_lc_rs::error::Unspecified>) -> String {
    pem("PUBLIC KEY", der.as_ref().expect("it can be written").as_ref())
}

/// PEM with this label.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in STANDARD.encode(der).as_bytes().chunks(64) {
        writeln!(pem, "{}", String::from_utf8_lossy(line)).expect("a String takes it");
    }
    pem + &format!("-----END {label}-----\n")
}

pub(crate) fn sign(key: &EncodingKey, algorithm: Algorithm, header: &str, claims: &str) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = crypto::sign(signed.as_bytes(), key, algorithm).expect("it can be signed");
    format!("{signed}.{signature}")
}

/// Hostile tokens, each with what is wrong with it.
pub(crate) fn hostile(issuer: &Issuer) -> Vec<(String, String)> {
    let mut all = Vec::new();
    unsigned(issuer, &mut all);
    signed_by_another(issuer, &mut all);
    confused(issuer, &mut all);
    damaged(issuer, &mut all);
    badly_headed(issuer, &mut all);
    badly_claimed(issuer, &mut all);
    all
}

type Tokens = Vec<(String, String)>;

fn unsigned(issuer: &Issuer, all: &mut Tokens) {
    let body = URL_SAFE_NO_PAD.encode(issuer.claims());
    let good = issuer.good();
    let signature = good.rsplit('.').next().expect("it is signed");
    let own = format!("\"{:?}\"", issuer.algorithm);
    let spellings = [
        r#""none""#,
        r#""None""#,
        r#""NONE""#,
        r#""nOnE""#,
        r#""none ""#,
        r#"" none""#,
        r#""n\u006fne""#,
        r#""none\u0000""#,
        r#""""#,
        "null",
        "0",
        "false",
        "[]",
        "{}",
        r#"["none"]"#,
        r#""HS1""#,
        r#""RS1""#,
        r#""ES256K""#,
        r#""ES512""#,
        r#""A128KW""#,
        r#""dir""#,
        r#""any""#,
        r#""*""#,
        &own.to_lowercase(),
        &own,
    ];
    for spelling in spellings {
        let header = URL_SAFE_NO_PAD.encode(format!("{{\"alg\":{spelling},\"kid\":\"k\"}}"));
        for signature in ["", "AA", ".", "=", signature] {
            all.push((format!("alg {spelling}"), format!("{header}.{body}.{signature}")));
        }
        all.push((format!("alg {spelling}, two parts"), format!("{header}.{body}")));
    }
    for header in ["{}", r#"{"typ":"JWT"}"#] {
        all.push(("no alg".to_owned(), issuer.sign(header, &issuer.claims())));
    }
}

fn signed_by_another(issuer: &Issuer, all: &mut Tokens) {
    let attacker = match issuer.algorithm {
        Algorithm::HS256 => {
            Issuer { key: EncodingKey::from_secret(b"another"), ..Issuer::new(issuer.algorithm, "k", issuer.now_s) }
        }
        algorithm => Issuer::new(algorithm, "k", issuer.now_s),
    };
    let alg = format!("{:?}", issuer.algorithm);
    all.push(("another key".to_owned(), attacker.good()));
    for id in [
        "",
        "K",
        "k ",
        "../../../../dev/null",
        "/proc/sys/kernel/randomize_va_space",
        "' OR '1'='1",
        "k\u{0}",
        "0",
        "*",
        "http://127.0.0.1/keys",
        "k|id",
        "$(id)",
        "first",
        "null",
        &"k".repeat(5000),
    ] {
        let header = json!({"alg": alg, "kid": id}).to_string();
        all.push((format!("kid {id:.40}, another key"), attacker.sign(&header, &issuer.claims())));
    }
    for id in ["7", "null", "[]", "{}", "true", "[\"k\"]"] {
        let header = format!("{{\"alg\":\"{alg}\",\"kid\":{id}}}");
        all.push((format!("kid {id}, another key"), attacker.sign(&header, &issuer.claims())));
    }
    let jwk = match issuer.algorithm {
        Algorithm::HS256 => json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode("another"), "kid": "k"}),
        _ => attacker.jwk(),
    };
    let url = "https://attacker.example/keys";
    for (name, value) in [
        ("jwk", jwk.clone()),
        ("jwk", json!({"keys": [jwk]})),
        ("jku", json!(url)),
        ("x5u", json!(url)),
        ("x5c", json!([STANDARD.encode(&attacker.pem)])),
        ("x5t", json!("AAAA")),
        ("iss", json!(url)),
        ("url", json!(url)),
        ("cty", json!("JWT")),
    ] {
        let mut header = json!({"alg": alg, "kid": "k"});
        header[name] = value;
        all.push((format!("{name} in the header, another key"), attacker.sign(&header.to_string(), &issuer.claims())));
    }
}

/// The public key as a secret (RFC 8725, section 2.1), and the good signature under another algorithm's name.
fn confused(issuer: &Issuer, all: &mut Tokens) {
    let good = issuer.good();
    let (signed, signature) = good.rsplit_once('.').expect("it is signed");
    let (_, body) = signed.split_once('.').expect("it has claims");
    let lines: Vec<&str> = issuer.pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(lines.concat()).expect("it is PEM");
    let public = [
        issuer.pem.clone().into_bytes(),
        issuer.pem.trim().as_bytes().to_vec(),
        issuer.pem.replace('\n', "\r\n").into_bytes(),
        issuer.pem.replace('\n', "").into_bytes(),
        lines.concat().into_bytes(),
        lines.join("\n").into_bytes(),
        der[der.len().saturating_sub(32)..].to_vec(),
        der[der.len().saturating_sub(65)..].to_vec(),
        der,
        issuer.id.clone().into_bytes(),
        b"secret".to_vec(),
        vec![0],
    ];
    for used in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        for (n, text) in public.iter().enumerate() {
            let key = EncodingKey::from_secret(if text.is_empty() { b"\n" } else { text });
            for told in [format!("{used:?}"), format!("{:?}", issuer.algorithm)] {
                let header = json!({"alg": told, "kid": "k"}).to_string();
                let what = format!("{used:?} with public text {n}, called {told}");
                all.push((what, sign(&key, used, &header, &issuer.claims())));
            }
        }
    }
    // By the right key, but not as it was set up.
    if let AlgorithmFamily::Hmac | AlgorithmFamily::Rsa = issuer.key.family() {
        for used in issuer.key.family().algorithms().iter().filter(|used| **used != issuer.algorithm) {
            let header = json!({"alg": format!("{used:?}"), "kid": "k"}).to_string();
            all.push((format!("{used:?} by the right key"), sign(&issuer.key, *used, &header, &issuer.claims())));
        }
    }
    for told in ["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS512", "ES256", "ES384", "EdDSA"] {
        if told != format!("{:?}", issuer.algorithm) {
            let relabelled = URL_SAFE_NO_PAD.encode(json!({"alg": told, "kid": "k"}).to_string());
            all.push((format!("relabelled {told}"), format!("{relabelled}.{body}.{signature}")));
            // And signed again, so that nothing but the name is wrong.
            let header = json!({"alg": told, "kid": "k"}).to_string();
            all.push((format!("signed as {told}"), issuer.sign(&header, &issuer.claims())));
        }
    }
}

fn damaged(issuer: &Issuer, all: &mut Tokens) {
    let good = issuer.good();
    for at in 0..good.len() {
        all.push((format!("cut at {at}"), good[..at].to_owned()));
        let other = if good.as_bytes()[at] == b'A' { "B" } else { "A" };
        all.push((format!("changed at {at}"), format!("{}{other}{}", &good[..at], &good[at + 1..])));
    }
    for odd in [" ", "\n", "\0", "=", ".", "%00", "é", "\u{feff}", "+", "/"] {
        for token in [format!("{odd}{good}"), format!("{good}{odd}"), good.replacen('.', &format!("{odd}."), 1)] {
            all.push((format!("{odd:?} in it"), token));
        }
    }
    let parts: Vec<&str> = good.split('.').collect();
    let [header, body, signature] = parts[..] else { panic!("three parts") };
    for token in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        header.to_owned(),
        format!("{header}."),
        format!("{header}.."),
        format!("{header}..{signature}"),
        format!(".{body}.{signature}"),
        format!("..{signature}"),
        format!("{header}.{header}.{signature}"),
        format!("{body}.{header}.{signature}"),
        format!("{header}.{body}.{signature}.{signature}"),
        format!("{header}.{body}..{signature}"),
        format!("{header}.{body}.{signature}.a.b"),
        format!("Bearer {good}"),
        format!("{good},{good}"),
        good.to_uppercase(),
        good.chars().rev().collect(),
    ] {
        all.push(("its parts".to_owned(), token));
    }
    // The right bytes in another alphabet, or padded: one token, one spelling.
    let bytes = URL_SAFE_NO_PAD.decode(signature).expect("it is base64");
    if !bytes.len().is_multiple_of(3) {
        all.push(("padded".to_owned(), format!("{header}.{body}.{}", URL_SAFE.encode(&bytes))));
    }
    for signature in [vec![0; bytes.len()], vec![255; bytes.len()], [&bytes[..], &[0]].concat(), bytes.repeat(8)] {
        all.push(("its signature".to_owned(), format!("{header}.{body}.{}", URL_SAFE_NO_PAD.encode(signature))));
    }
}

fn badly_headed(issuer: &Issuer, all: &mut Tokens) {
    let alg = format!("{:?}", issuer.algorithm);
    for crit in [r#"["exp"]"#, r#"["b64"]"#, r#"["x"]"#, "[]", "null", "true", r#""exp""#, "{}"] {
        let header = format!("{{\"alg\":\"{alg}\",\"kid\":\"k\",\"b64\":false,\"exp\":1,\"crit\":{crit}}}");
        all.push((format!("crit {crit}"), issuer.sign(&header, &issuer.claims())));
    }
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    for header in [
        format!("[\"{alg}\",\"k\"]"),
        format!("[\"{alg}\",\"k\",false]"),
        format!("\"{alg}\""),
        "null".to_owned(),
        String::new(),
        "{".to_owned(),
        format!("{{\"alg\":\"{alg}\",\"alg\":\"{alg}\"}}"),
        format!("{{\"alg\":\"none\",\"alg\":\"{alg}\"}}"),
        format!("{{\"alg\":\"{alg}\",\"kid\":\"k\",\"kid\":\"k\"}}"),
        format!("{{\"alg\":\"{alg}\",\"kid\":\"k\"}}{{}}"),
        format!("{{'alg':'{alg}'}}"),
        format!("\u{feff}{{\"alg\":\"{alg}\",\"kid\":\"k\"}}"),
        format!("{{\"alg\":{},\"kid\":\"k\"}}", deep(2500)),
        format!("{{\"alg\":\"{alg}\",\"kid\":{}}}", deep(2500)),
        deep(2500),
        "[".repeat(5000),
        "{\"a\":".repeat(1000),
    ] {
        all.push((format!("header {header:.60}"), issuer.sign(&header, &issuer.claims())));
    }
    for length in [TOKEN_MAX, 2 * TOKEN_MAX, 1 << 20] {
        let header = json!({"alg": alg, "kid": "k", "x": "x".repeat(length)}).to_string();
        all.push(("giant header".to_owned(), issuer.sign(&header, &issuer.claims())));
        let claims = json!({"exp": issuer.now_s + 900, "x": "x".repeat(length)}).to_string();
        all.push(("giant claims".to_owned(), issuer.sign(&issuer.header(), &claims)));
        all.push(("giant signature".to_owned(), issuer.good() + &"A".repeat(length)));
        all.push(("nothing but dots".to_owned(), ".".repeat(length)));
    }
}

fn badly_claimed(issuer: &Issuer, all: &mut Tokens) {
    let mut push = |claims: String| {
        all.push((format!("claims {claims:.60}"), issuer.sign(&issuer.header(), &claims)));
    };
    for exp in [
        "null",
        "true",
        "\"\"",
        "\"soon\"",
        "[]",
        "{}",
        "-1",
        "-0.5",
        "0",
        "1",
        "1e3",
        "1e18",
        "1e300",
        "1e400",
        "-1e400",
        "18446744073709551615",
        "18446744073709551616",
        "9223372036854775808",
        "253402300800",
        "1800000900000",
        "NaN",
        "Infinity",
        "0x7fffffff",
        "1_900_000_000",
        "99999999999999999999999999999999999999999999999",
    ] {
        push(format!("{{\"exp\":{exp}}}"));
        push(format!("{{\"nbf\":0,\"sub\":\"u\",\"exp\":{exp},\"roles\":[\"admin\"]}}"));
    }
    for before in [60, 61, 3600, issuer.now_s] {
        push(format!("{{\"exp\":{}}}", issuer.now_s - before));
        push(format!("{{\"exp\":\"{}\"}}", issuer.now_s + before));
        push(format!("{{\"exp\":[{}]}}", issuer.now_s + before));
    }
    let good = issuer.now_s + 900;
    for nbf in [issuer.now_s + 61, issuer.now_s + 3600, 253_402_300_799] {
        push(format!("{{\"exp\":253402300799,\"nbf\":{nbf}}}"));
    }
    for nbf in ["\"0\"", "-1", "1e300", "[]", "{}", "true", "1800000900000"] {
        push(format!("{{\"exp\":{good},\"nbf\":{nbf}}}"));
    }
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    for claims in [
        String::new(),
        "null".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        format!("{good}"),
        format!("[{good}]"),
        format!("[{good},null,null,null,\"u\",null,null,null,null,null]"),
        format!("\"{good}\""),
        format!("[{{\"exp\":{good}}}]"),
        format!("{{\"exp\":{good}"),
        format!("{{\"exp\":{good}}}}}"),
        format!("{{\"exp\":1,\"exp\":{good}}}"),
        format!("{{\"exp\":{good},\"exp\":{good}}}"),
        format!("{{\"EXP\":{good}}}"),
        format!("{{\"claims\":{{\"exp\":{good}}}}}"),
        format!("{{\"exp\":{good},\"user_id\":\"u\",\"user_id\":\"admin\"}}"),
        format!("{{\"exp\":{good},\"user_id\":{{\"$ne\":\"\"}}}}"),
        format!("{{\"exp\":{good},\"user_id\":{}}}", deep(2500)),
        format!("{{\"exp\":{good},\"roles\":{}}}", deep(2500)),
        format!("{{\"exp\":{good},\"fanfare\":{}}}", deep(2500)),
        format!("{{\"exp\":{}}}", deep(2500)),
        deep(2500),
        "{\"exp\":".repeat(700),
        format!("{{\"exp\":{good},\"aud\":\"somebody else\"}}"),
        format!("{{\"exp\":{good},\"aud\":[]}}"),
        format!("{{\"exp\":{good},\"aud\":7}}"),
        format!("{{\"exp\":{good},\"iss\":7}}"),
        format!("{{\"exp\":{good},\"roles\":\"admin\"}}"),
        format!("{{\"exp\":{good},\"roles\":{{\"admin\":true}}}}"),
        format!("{{\"exp\":{good},\"roles\":[[\"admin\"]]}}"),
        format!("{{\"exp\":{good},\"permissions\":[\"events:publish:*.*\"]}}"),
        format!("{{\"exp\":{good},\"fanfare\":{{\"publish\":[\"a\\nb\"]}}}}"),
        format!("{{\"exp\":{good},\"fanfare\":{{\"publish\":\"*\"}}}}"),
        format!("{{\"exp\":{good},\"fanfare\":{{\"admin\":true}}}}"),
        // A good token in another one.
        issuer.good(),
        format!("\"{}\"", issuer.good()),
    ] {
        push(claims);
    }
    push(format!("{{\"exp\":{good},\"sub\":\"\u{0}\"}}"));
    let latin1 = [b"{\"exp\":1800000900,\"sub\":\"".as_slice(), &[0xe9], b"\"}"].concat();
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(issuer.header()), URL_SAFE_NO_PAD.encode(latin1));
    let signature = crypto::sign(signed.as_bytes(), &issuer.key, issuer.algorithm).expect("it can be signed");
    all.push(("claims that are no UTF-8".to_owned(), format!("{signed}.{signature}")));
}
