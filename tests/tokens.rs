//! Tokens: what an independent library signs is accepted, by secret, by PEM, and by key sets that are
//! rotated; and of a good token changed in a thousand ways none is.

#[path = "clients/tools.rs"]
#[allow(dead_code, reason = "of the clients' tools, only Python's are needed here")]
mod tools;

#[path = "common/tokens.rs"]
mod issuer;

#[path = "common/published.rs"]
mod published;

use std::io;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fanfare::auth::Denied;
use fanfare::auth::token::{
    Algorithm, ClaimsConfig, JwksConfig, KeySource, Mode, Place, Secret, TokenConfig, Verifier,
};
use fanfare::clock::Timestamp;
use issuer::{Issuer, SECRET, hostile, pem, private};
use published::{Published, key_set, listener};
use serde_json::{Value, json};

/// The moment at which all tokens here are looked at: good ones begin before and end after it.
const NOW_S: u64 = 1_800_000_000;

const ASYMMETRIC: [Algorithm; 4] = [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA];

fn now() -> Timestamp {
    Timestamp::from_unix_ms(NOW_S * 1000)
}

fn verifier(keys: KeySource) -> Verifier {
    let claims = ClaimsConfig {
        audience: Vec::new(),
        issuer: Vec::new(),
        leeway: Duration::from_secs(60),
        all_seeing_roles: vec!["admin".to_owned()],
    };
    let config = TokenConfig { mode: Mode::Required, keys: Some(keys), claims, cookie: None };
    Verifier::new(&config).unwrap_or_else(|why| panic!("{why}"))
}

fn by_secret(secret: &str, algorithm: Algorithm) -> Verifier {
    let current: Secret = secret.parse().expect("any text is one");
    verifier(KeySource::Secret { current, previous: None, algorithms: vec![algorithm] })
}

fn by_pem(pem: &str, algorithm: Algorithm) -> Verifier {
    let file = file("key.pem", pem.as_bytes());
    verifier(KeySource::Pem { file, algorithms: vec![algorithm] })
}

fn by_jwks(place: Place, algorithms: &[Algorithm], refresh: Duration, rest: Duration) -> Verifier {
    let algorithms = algorithms.to_vec();
    verifier(KeySource::Jwks(JwksConfig { place, algorithms, refresh, rest, cache: None }))
}

/// A verifier that is kept fresh until the runtime ends, with a key set of ES256 that is kept in this file.
fn kept_fresh(url: &str, rest: Duration, cache: Option<PathBuf>) -> Arc<Verifier> {
    let (place, algorithms) = (Place::from(url), vec![Algorithm::ES256]);
    let verifier = Arc::new(verifier(KeySource::Jwks(JwksConfig { place, algorithms, refresh: RARELY, rest, cache })));
    let kept = verifier.clone();
    tokio::spawn(async move { kept.keep_fresh().await });
    verifier
}

/// A new file in the build's own temporary directory.
fn file(name: &str, content: &[u8]) -> PathBuf {
    static COUNT: Mutex<u32> = Mutex::new(0);
    let mut count = COUNT.lock().expect("not poisoned");
    *count += 1;
    let name = format!("tokens-{}-{count}-{name}", std::process::id());
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, content).expect("the build's directory can be written to");
    path
}

// ---- an independent library

#[test]
fn tokens_of_pyjwt_are_accepted() {
    let Some(mut python) = tools::or_skip("tokens of PyJWT", tools::python("pyjwt.py")) else { return };
    let output = python.output().expect("Python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let cases: Vec<Value> = serde_json::from_slice(&output.stdout).expect("it prints JSON");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let set = json!({"keys": cases.iter().filter_map(|case| case.get("jwk")).collect::<Vec<_>>()}).to_string();
    let set = file("pyjwt.json", set.as_bytes());
    for case in &cases {
        let algorithm: Algorithm = text(&case["algorithm"]).parse().expect("a known algorithm");
        let mut verifiers = vec![match case.get("secret") {
            Some(secret) => by_secret(&text(secret), algorithm),
            None => by_pem(&text(&case["pem"]), algorithm),
        }];
        if case.get("jwk").is_some() {
            let long = Duration::from_secs(3600);
            verifiers.push(by_jwks(Place::File(set.clone()), &[algorithm], long, long));
        }
        for verifier in verifiers {
            let identity = verifier.verify(&text(&case["token"]), now());
            let identity = identity.unwrap_or_else(|denied| panic!("{algorithm:?}: {denied:?}"));
            assert_eq!(identity.user.as_deref(), Some(&*format!("u-{algorithm:?}")));
            assert!(!identity.sees_everyone && identity.may_publish.is_empty() && identity.may_listen.len() == 1);
        }
    }
    assert_eq!(cases.len(), 12, "every algorithm");
}

// ---- key sets that change

fn verifier_of(issuer: &Issuer) -> Verifier {
    match issuer.pem.is_empty() {
        true => by_secret(SECRET, issuer.algorithm),
        false => by_pem(&issuer.pem, issuer.algorithm),
    }
}

/// Asks for the keys until a token is good, as requests would.
async fn wait_until_good(verifier: &Verifier, token: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(denied) = verifier.verify(token, now()) {
        assert!(matches!(denied, Denied::UnknownSigner | Denied::KeysUnavailable), "{denied:?}");
        assert!(Instant::now() < deadline, "the keys have not come");
        verifier.refresh().await;
        // It waits for nothing while readings fail.
        tokio::time::sleep(AT_ONCE).await;
    }
}

/// The refusal of a token once no reading is under way any more.
async fn refusal(verifier: &Verifier, token: &str) -> Denied {
    loop {
        match verifier.verify(token, now()).expect_err("it is refused") {
            Denied::KeysUnavailable => verifier.refresh().await,
            denied => return denied,
        }
    }
}

const RARELY: Duration = Duration::from_secs(3600);
const AT_ONCE: Duration = Duration::from_millis(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn published_keys_are_rotated_and_outlast_trouble() {
    let (first, second) =
        (Issuer::new(Algorithm::ES256, "first", NOW_S), Issuer::new(Algorithm::EdDSA, "second", NOW_S));
    let server = Published::on(listener());
    server.give("200 OK", &key_set(&[&first]));
    let algorithms = [Algorithm::ES256, Algorithm::EdDSA];
    let verifier = Arc::new(by_jwks(Place::from(&*server.url), &algorithms, RARELY, AT_ONCE));
    assert_eq!(verifier.verify(&first.good(), now()), Err(Denied::KeysUnavailable), "nothing was fetched yet");
    let task = tokio::spawn({
        let verifier = verifier.clone();
        async move { verifier.keep_fresh().await }
    });
    wait_until_good(&verifier, &first.good()).await;
    assert_eq!(refusal(&verifier, &second.good()).await, Denied::UnknownSigner);

    server.give("200 OK", &key_set(&[&first, &second]));
    wait_until_good(&verifier, &second.good()).await;
    assert!(verifier.verify(&first.good(), now()).is_ok(), "both count while both are published");
    let nameless = second.sign(r#"{"alg":"EdDSA"}"#, &second.claims());
    assert_eq!(verifier.verify(&nameless, now()), Err(Denied::Untrusted), "of two keys, one must be named");
    let misnamed = second.sign(r#"{"alg":"EdDSA","kid":"first"}"#, &second.claims());
    assert_eq!(verifier.verify(&misnamed, now()), Err(Denied::Untrusted));

    server.give("200 OK", &key_set(&[&second]));
    while verifier.verify(&first.good(), now()).is_ok() {
        verifier.refresh().await;
    }
    assert_eq!(refusal(&verifier, &first.good()).await, Denied::UnknownSigner, "its key was taken back");
    assert!(verifier.verify(&nameless, now()).is_ok(), "there is only one to mean");

    let giant = [b"{\"keys\":[]}".as_slice(), &vec![b' '; 1 << 20]].concat();
    for (status, body) in [
        ("500 Internal Server Error", &b"{\"keys\":[]}"[..]),
        ("302 Found", b"{\"keys\":[]}"),
        ("200 OK", b"<html>"),
        ("200 OK", b"{}"),
        ("200 OK", &giant),
    ] {
        server.give(status, body);
        let seen = server.requests();
        while server.requests() < seen + 2 {
            verifier.refresh().await;
            tokio::time::sleep(AT_ONCE).await;
        }
        assert!(verifier.verify(&second.good(), now()).is_ok(), "{status}: the keys that are held stay");
    }
    task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_issuer_that_is_away_at_the_start_may_come_later() {
    let issuer = Issuer::new(Algorithm::ES256, "k", NOW_S);
    let closed = listener();
    let address = closed.local_addr().expect("it is bound");
    drop(closed);
    let place = Place::Url(format!("http://{address}/keys"));
    let verifier = Arc::new(by_jwks(place, &[Algorithm::ES256], RARELY, AT_ONCE));
    let task = tokio::spawn({
        let verifier = verifier.clone();
        async move { verifier.keep_fresh().await }
    });
    verifier.refresh().await;
    assert_eq!(verifier.verify(&issuer.good(), now()), Err(Denied::KeysUnavailable));
    let server = Published::on(TcpListener::bind(address).expect("it is free again"));
    server.give("200 OK", &key_set(&[&issuer]));
    wait_until_good(&verifier, &issuer.good()).await;
    task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn whatever_tokens_say_the_issuer_has_its_rest() {
    let server = Published::on(listener());
    server.give("200 OK", b"{\"keys\":[]}");
    let rest = Duration::from_millis(200);
    let verifier = Arc::new(by_jwks(Place::from(&*server.url), &[Algorithm::ES256], RARELY, rest));
    let started = Instant::now();
    let task = tokio::spawn({
        let verifier = verifier.clone();
        async move { verifier.keep_fresh().await }
    });
    let mut waiting = tokio::task::JoinSet::new();
    for n in 0..500 {
        let verifier = verifier.clone();
        waiting.spawn(async move {
            tokio::time::sleep(Duration::from_millis(2 * n)).await;
            verifier.refresh().await;
        });
    }
    while waiting.join_next().await.is_some() {}
    let most = started.elapsed().as_millis() / rest.as_millis() + 1;
    let requests = server.requests();
    assert!((2..=most as usize).contains(&requests), "{requests} requests in {:?}", started.elapsed());
    task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_issuer_that_fails_is_asked_again_after_a_growing_delay_whatever_tokens_say() {
    let issuer = Issuer::new(Algorithm::ES256, "k", NOW_S);
    let server = Published::on(listener());
    let started = Instant::now();
    let verifier = kept_fresh(&server.url, RARELY, None);
    let mut seen = Vec::new();
    while seen.len() < 4 {
        // Nobody is kept waiting for an issuer that has just failed.
        let asked = Instant::now();
        verifier.refresh().await;
        assert!(seen.is_empty() || asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        assert_eq!(verifier.verify(&issuer.good(), now()), Err(Denied::KeysUnavailable));
        if server.requests() > seen.len() {
            seen.push(started.elapsed());
        }
        tokio::time::sleep(AT_ONCE).await;
        assert!(started.elapsed() < Duration::from_secs(30), "it is asked again: {seen:?}");
    }
    // After half a second, one and two.
    for (n, least_ms) in [(1, 500), (2, 1500), (3, 3500)] {
        assert!(seen[n] >= Duration::from_millis(least_ms), "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_cached_key_set_is_written_where_it_has_changed_and_is_always_of_the_last_fetch() {
    let first = Issuer::new(Algorithm::ES256, "first", NOW_S);
    let server = Published::on(listener());
    server.give("200 OK", &key_set(&[&first]));
    let path = file("cache.json", b"");
    std::fs::remove_file(&path).expect("it is there");
    let verifier = kept_fresh(&server.url, AT_ONCE, Some(path.clone()));
    wait_until_good(&verifier, &first.good()).await;
    // One that follows a reading has seen its end, and with it the end of the one before.
    let read_twice = async || {
        let seen = server.requests();
        while server.requests() < seen + 2 {
            verifier.refresh().await;
        }
    };
    read_twice().await;
    let written = std::fs::metadata(&path).expect("it was kept");
    read_twice().await;
    let read = std::fs::metadata(&path).expect("it is kept");
    assert_eq!(read.ino(), written.ino(), "the set is the same");
    assert!(read.modified().expect("a time") > written.modified().expect("a time"), "but it is newer");

    // The issuer takes its key back: it does not return with the next start.
    server.give("200 OK", b"{\"keys\":[]}");
    read_until_failed(&verifier).await;
    assert_eq!(verifier.verify(&first.good(), now()), Err(Denied::KeysUnavailable));
    server.go_away();
    let next = kept_fresh(&server.url, AT_ONCE, Some(path));
    read_until_failed(&next).await;
    assert_eq!(next.verify(&first.good(), now()), Err(Denied::KeysUnavailable));
    assert!(!next.has_keys());
}

async fn read_until_failed(verifier: &Verifier) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while verifier.key_set().expect("it is one").failed_fetches == 0 {
        assert!(Instant::now() < deadline, "no reading has failed");
        verifier.refresh().await;
        tokio::time::sleep(AT_ONCE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_key_set_in_a_file_is_read_again() {
    let (first, second) =
        (Issuer::new(Algorithm::EdDSA, "first", NOW_S), Issuer::new(Algorithm::EdDSA, "second", NOW_S));
    let path = file("keys.json", &key_set(&[&first]));
    let often = Duration::from_millis(20);
    let verifier = Arc::new(by_jwks(Place::File(path.clone()), &[Algorithm::EdDSA], often, AT_ONCE));
    assert!(verifier.verify(&first.good(), now()).is_ok(), "from the start");
    let task = tokio::spawn({
        let verifier = verifier.clone();
        async move { verifier.keep_fresh().await }
    });
    std::fs::rename(file("new-keys.json", &key_set(&[&second])), path).expect("the same directory");
    let deadline = Instant::now() + Duration::from_secs(30);
    while verifier.verify(&second.good(), now()).is_err() {
        assert!(Instant::now() < deadline, "the file was not read again");
        tokio::time::sleep(AT_ONCE).await;
    }
    task.abort();
}

#[test]
fn of_a_key_set_only_what_is_for_signatures_and_set_counts() {
    let issuer = Issuer::new(Algorithm::ES256, "k", NOW_S);
    let plain = issuer.jwk();
    let with = |key: &str, value: Value| {
        let mut jwk = plain.clone();
        jwk[key] = value;
        jwk
    };
    let other = Issuer::new(Algorithm::EdDSA, "other", NOW_S).jwk();
    let secret = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(SECRET), "kid": "k"});
    let verdict = |jwk: Value| {
        // Beside keys of kinds that nobody knows here, which do not spoil the set (RFC 7517, section 5).
        let keys = json!({"keys": [{"kty": "XYZ"}, {"kid": "k"}, other, secret, jwk]});
        let place = Place::File(file("set.json", keys.to_string().as_bytes()));
        let algorithms = [Algorithm::ES256, Algorithm::EdDSA];
        by_jwks(place, &algorithms, RARELY, RARELY).verify(&issuer.good(), now()).map(|_| ())
    };
    for good in
        [plain.clone(), with("use", json!("sig")), with("key_ops", json!(["verify"])), with("alg", json!("ES256"))]
    {
        assert_eq!(verdict(good.clone()), Ok(()), "{good}");
    }
    for bad in [
        with("use", json!("enc")),
        with("key_ops", json!(["encrypt"])),
        with("alg", json!("ES384")),
        with("alg", json!("RSA-OAEP")),
        with("crv", json!("secp256k1")),
        with("x", json!("AAAA")),
        with("kty", json!("RSA")),
        with("kid", json!("K")),
    ] {
        assert_eq!(verdict(bad.clone()), Err(Denied::UnknownSigner), "{bad}");
    }
}

// ---- what can be no key

#[test]
fn a_key_that_does_not_fit_is_refused_at_the_start() {
    let rsa = Issuer::new(Algorithm::RS256, "k", NOW_S);
    let elliptic = Issuer::new(Algorithm::ES256, "k", NOW_S);
    let long = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let private = private(&long.as_der());
    let config = |pem: &str, algorithms: &[Algorithm]| {
        let keys = Some(KeySource::Pem { file: file("key.pem", pem.as_bytes()), algorithms: algorithms.to_vec() });
        let claims = ClaimsConfig {
            audience: Vec::new(),
            issuer: Vec::new(),
            leeway: Duration::ZERO,
            all_seeing_roles: Vec::new(),
        };
        Verifier::new(&TokenConfig { mode: Mode::Required, keys, claims, cookie: None })
    };
    for (pem, algorithms) in [
        (&*rsa.pem, &[Algorithm::HS256][..]),
        (&rsa.pem, &[Algorithm::RS256, Algorithm::HS256]),
        (&rsa.pem, &[Algorithm::ES256]),
        (&elliptic.pem, &[Algorithm::ES384]),
        (&elliptic.pem, &[Algorithm::RS256]),
        (&private, &[]),
        (&(rsa.pem.clone() + &elliptic.pem), &[]),
        (&elliptic.pem.replace("PUBLIC KEY", "CERTIFICATE"), &[]),
        (&elliptic.pem.replace('M', "N"), &[]),
        (RSA_1024, &[]),
        ("", &[]),
        ("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n", &[]),
    ] {
        let why = config(pem, algorithms).expect_err(pem);
        assert!(why.contains("--jwt-key") && why.contains("expected"), "{why}");
    }
    assert!(config(&pem("RSA PUBLIC KEY", long.public_key().as_ref()), &[]).is_ok(), "PKCS #1 will do");
    // Without an algorithm it follows from the key.
    for issuer in [rsa, elliptic, Issuer::new(Algorithm::EdDSA, "k", NOW_S)] {
        let verifier = config(&issuer.pem, &[]).expect("it fits");
        assert!(verifier.verify(&issuer.good(), now()).is_ok(), "{:?}", issuer.algorithm);
    }
}

/// A public key that is too short to be trusted.
const RSA_1024: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCpFj6u39dN3vVSQnRvB8KkIvbm
JY/PVwisgT1Z0Z1yry1bAXJ0Royw1M2e/iVAq7kKdq8SpAyBDvYENNZZyclMvv2E
x0BXj0f6xZM5JCvjfwm2KyX3PRfmNOxFsGT2F3V+Isg0T9SHB2jygFU8QgznZ6+b
kfOD7a8GRC6eXrw15wIDAQAB
-----END PUBLIC KEY-----
";

// ---- hostile tokens

/// What is written to the log, by whatever part.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn no_hostile_token_is_accepted_and_none_is_logged() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let mut tried = 0;
    tracing::subscriber::with_default(subscriber, || {
        for algorithm in [Algorithm::HS256].into_iter().chain(ASYMMETRIC) {
            let issuer = Issuer::new(algorithm, "k", NOW_S);
            let mut verifiers = vec![verifier_of(&issuer)];
            if algorithm != Algorithm::HS256 {
                let place = Place::File(file("set.json", &key_set(&[&issuer])));
                verifiers.push(by_jwks(place, &[algorithm], RARELY, RARELY));
            }
            let hostile = hostile(&issuer);
            for verifier in &verifiers {
                // What they were made from is good, so it is the change that is refused.
                assert!(verifier.verify(&issuer.good(), now()).is_ok(), "{algorithm:?}");
                for (what, token) in &hostile {
                    let answer = verifier.verify(token, now());
                    assert!(answer.is_err(), "{algorithm:?}: {what}: {token}");
                    tried += 1;
                }
            }
        }
    });
    let log = String::from_utf8(log.0.lock().expect("not poisoned").clone()).expect("it is text");
    assert!(log.is_empty(), "{log}");
    assert!(tried > 9_000, "{tried} tokens");
}
