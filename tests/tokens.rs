//! Tokens: what an independent library signs is accepted, by secret, by PEM, and by key sets that are
//! rotated; and of a good token changed in a thousand ways none is.

#[path = "clients/tools.rs"]
#[allow(dead_code, reason = "of the clients' tools, only Python's are needed here")]
mod tools;

use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use fanfare::auth::Denied;
use fanfare::auth::token::{
    Algorithm, ClaimsConfig, JwksConfig, KeySource, Mode, Place, Secret, TOKEN_MAX, TokenConfig, Verifier,
};
use fanfare::clock::Now;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{AlgorithmFamily, EncodingKey, crypto};
use serde_json::{Value, json};

/// The moment at which all tokens here are looked at: good ones begin before and end after it.
const NOW_S: u64 = 1_800_000_000;

const ASYMMETRIC: [Algorithm; 4] = [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA];

fn now() -> Now {
    Now::from_unix_ms(NOW_S * 1000)
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
    verifier(KeySource::Jwks(JwksConfig { place, algorithms: algorithms.to_vec(), refresh, rest }))
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

/// Signs tokens.
struct Issuer {
    algorithm: Algorithm,
    key: EncodingKey,
    /// What everybody may know: the public key in PEM; for a secret nothing.
    pem: String,
    /// The name of its key in a set.
    id: String,
}

const SECRET: &str = "a secret of more than 32 bytes that nobody else knows";

impl Issuer {
    fn new(algorithm: Algorithm, id: &str) -> Issuer {
        let (private, public) = match algorithm {
            Algorithm::HS256 => {
                let key = EncodingKey::from_secret(SECRET.as_bytes());
                return Issuer { algorithm, key, pem: String::new(), id: id.to_owned() };
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
        Issuer { algorithm, key, pem: public, id: id.to_owned() }
    }

    fn verifier(&self) -> Verifier {
        match self.pem.is_empty() {
            true => by_secret(SECRET, self.algorithm),
            false => by_pem(&self.pem, self.algorithm),
        }
    }

    fn jwk(&self) -> Value {
        let jwk = Jwk::from_encoding_key(&self.key, self.algorithm).expect("it is public");
        let mut jwk = serde_json::to_value(jwk).expect("it is JSON");
        jwk["kid"] = json!(self.id);
        jwk
    }

    fn header(&self) -> String {
        json!({"alg": format!("{:?}", self.algorithm), "typ": "JWT", "kid": self.id}).to_string()
    }

    /// A signed token of any texts, also of such as are no JSON.
    fn sign(&self, header: &str, claims: &str) -> String {
        sign(&self.key, self.algorithm, header, claims)
    }

    fn good(&self) -> String {
        self.sign(&self.header(), &claims())
    }
}

fn private(der: &Result<Pkcs8V1Der<'static>, aws_lc_rs::error::Unspecified>) -> String {
    pem("PRIVATE KEY", der.as_ref().expect("it can be written").as_ref())
}

fn public(der: &Result<PublicKeyX509Der<'static>, aws_lc_rs::error::Unspecified>) -> String {
    pem("PUBLIC KEY", der.as_ref().expect("it can be written").as_ref())
}

fn pem(label: &str, der: &[u8]) -> String {
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in STANDARD.encode(der).as_bytes().chunks(64) {
        writeln!(pem, "{}", String::from_utf8_lossy(line)).expect("a String takes it");
    }
    pem + &format!("-----END {label}-----\n")
}

fn sign(key: &EncodingKey, algorithm: Algorithm, header: &str, claims: &str) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = crypto::sign(signed.as_bytes(), key, algorithm).expect("it can be signed");
    format!("{signed}.{signature}")
}

fn claims() -> String {
    json!({"exp": NOW_S + 900, "nbf": NOW_S - 900, "user_id": "u", "roles": ["user"]}).to_string()
}

fn key_set(issuers: &[&Issuer]) -> Vec<u8> {
    json!({"keys": issuers.iter().map(|issuer| issuer.jwk()).collect::<Vec<_>>()}).to_string().into_bytes()
}

/// A server that gives the same answer to all requests, until it is given another one.
struct Published {
    url: String,
    answer: Arc<Mutex<Vec<u8>>>,
    requests: Arc<Mutex<usize>>,
}

impl Published {
    fn on(listener: TcpListener) -> Published {
        let url = format!("http://{}/keys", listener.local_addr().expect("it is bound"));
        let (answer, requests) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
        let (shared, counted) = (answer.clone(), requests.clone());
        let serve = move |connection: TcpStream| -> io::Result<()> {
            let mut head = BufReader::new(connection.try_clone()?).lines();
            while head.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
            *counted.lock().expect("not poisoned") += 1;
            let answer = shared.lock().expect("not poisoned").clone();
            (&connection).write_all(&answer)
        };
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                // A client that gave up is no fault of this server.
                let _ = serve(connection);
            }
        });
        Published { url, answer, requests }
    }

    fn give(&self, status: &str, body: &[u8]) {
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nLocation: {}\r\nConnection: close\r\n\r\n",
            body.len(),
            self.url,
        );
        *self.answer.lock().expect("not poisoned") = [head.as_bytes(), body].concat();
    }

    fn requests(&self) -> usize {
        *self.requests.lock().expect("not poisoned")
    }
}

fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port")
}

/// Asks for the keys until a token is good, as requests would.
async fn wait_until_good(verifier: &Verifier, token: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(denied) = verifier.verify(token, now()) {
        assert_eq!(denied, Denied::UnknownSigner);
        assert!(Instant::now() < deadline, "the keys have not come");
        verifier.refresh().await;
    }
}

const RARELY: Duration = Duration::from_secs(3600);
const AT_ONCE: Duration = Duration::from_millis(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn published_keys_are_rotated_and_outlast_trouble() {
    let (first, second) = (Issuer::new(Algorithm::ES256, "first"), Issuer::new(Algorithm::EdDSA, "second"));
    let server = Published::on(listener());
    server.give("200 OK", &key_set(&[&first]));
    let algorithms = [Algorithm::ES256, Algorithm::EdDSA];
    let verifier = Arc::new(by_jwks(Place::from(&*server.url), &algorithms, RARELY, AT_ONCE));
    assert_eq!(verifier.verify(&first.good(), now()), Err(Denied::UnknownSigner), "nothing was fetched yet");
    let task = tokio::spawn({
        let verifier = verifier.clone();
        async move { verifier.keep_fresh().await }
    });
    wait_until_good(&verifier, &first.good()).await;
    assert_eq!(verifier.verify(&second.good(), now()), Err(Denied::UnknownSigner));

    server.give("200 OK", &key_set(&[&first, &second]));
    wait_until_good(&verifier, &second.good()).await;
    assert!(verifier.verify(&first.good(), now()).is_ok(), "both count while both are published");
    let nameless = second.sign(r#"{"alg":"EdDSA"}"#, &claims());
    assert_eq!(verifier.verify(&nameless, now()), Err(Denied::Untrusted), "of two keys, one must be named");
    let misnamed = second.sign(r#"{"alg":"EdDSA","kid":"first"}"#, &claims());
    assert_eq!(verifier.verify(&misnamed, now()), Err(Denied::Untrusted));

    server.give("200 OK", &key_set(&[&second]));
    while verifier.verify(&first.good(), now()).is_ok() {
        verifier.refresh().await;
    }
    assert_eq!(verifier.verify(&first.good(), now()), Err(Denied::UnknownSigner), "its key was taken back");
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
        }
        assert!(verifier.verify(&second.good(), now()).is_ok(), "{status}: the keys that are held stay");
    }
    task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_issuer_that_is_away_at_the_start_may_come_later() {
    let issuer = Issuer::new(Algorithm::ES256, "k");
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
    assert_eq!(verifier.verify(&issuer.good(), now()), Err(Denied::UnknownSigner));
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
async fn a_key_set_in_a_file_is_read_again() {
    let (first, second) = (Issuer::new(Algorithm::EdDSA, "first"), Issuer::new(Algorithm::EdDSA, "second"));
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
    let issuer = Issuer::new(Algorithm::ES256, "k");
    let plain = issuer.jwk();
    let with = |key: &str, value: Value| {
        let mut jwk = plain.clone();
        jwk[key] = value;
        jwk
    };
    let other = Issuer::new(Algorithm::EdDSA, "other").jwk();
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
    let rsa = Issuer::new(Algorithm::RS256, "k");
    let elliptic = Issuer::new(Algorithm::ES256, "k");
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
    for issuer in [rsa, elliptic, Issuer::new(Algorithm::EdDSA, "k")] {
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
            let issuer = Issuer::new(algorithm, "k");
            let mut verifiers = vec![issuer.verifier()];
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

/// Hostile tokens, each with what is wrong with it.
fn hostile(issuer: &Issuer) -> Vec<(String, String)> {
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
    let body = URL_SAFE_NO_PAD.encode(claims());
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
        all.push(("no alg".to_owned(), issuer.sign(header, &claims())));
    }
}

fn signed_by_another(issuer: &Issuer, all: &mut Tokens) {
    let attacker = match issuer.algorithm {
        Algorithm::HS256 => Issuer { key: EncodingKey::from_secret(b"another"), ..Issuer::new(issuer.algorithm, "k") },
        algorithm => Issuer::new(algorithm, "k"),
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
        all.push((format!("kid {id:.40}, another key"), attacker.sign(&header, &claims())));
    }
    for id in ["7", "null", "[]", "{}", "true", "[\"k\"]"] {
        let header = format!("{{\"alg\":\"{alg}\",\"kid\":{id}}}");
        all.push((format!("kid {id}, another key"), attacker.sign(&header, &claims())));
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
        all.push((format!("{name} in the header, another key"), attacker.sign(&header.to_string(), &claims())));
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
                all.push((what, sign(&key, used, &header, &claims())));
            }
        }
    }
    // By the right key, but not as it was set up.
    if let AlgorithmFamily::Hmac | AlgorithmFamily::Rsa = issuer.key.family() {
        for used in issuer.key.family().algorithms().iter().filter(|used| **used != issuer.algorithm) {
            let header = json!({"alg": format!("{used:?}"), "kid": "k"}).to_string();
            all.push((format!("{used:?} by the right key"), sign(&issuer.key, *used, &header, &claims())));
        }
    }
    for told in ["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS512", "ES256", "ES384", "EdDSA"] {
        if told != format!("{:?}", issuer.algorithm) {
            let relabelled = URL_SAFE_NO_PAD.encode(json!({"alg": told, "kid": "k"}).to_string());
            all.push((format!("relabelled {told}"), format!("{relabelled}.{body}.{signature}")));
            // And signed again, so that nothing but the name is wrong.
            let header = json!({"alg": told, "kid": "k"}).to_string();
            all.push((format!("signed as {told}"), issuer.sign(&header, &claims())));
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
        all.push((format!("crit {crit}"), issuer.sign(&header, &claims())));
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
        all.push((format!("header {header:.60}"), issuer.sign(&header, &claims())));
    }
    for length in [TOKEN_MAX, 2 * TOKEN_MAX, 1 << 20] {
        let header = json!({"alg": alg, "kid": "k", "x": "x".repeat(length)}).to_string();
        all.push(("giant header".to_owned(), issuer.sign(&header, &claims())));
        let claims = json!({"exp": NOW_S + 900, "x": "x".repeat(length)}).to_string();
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
    for before in [60, 61, 3600, NOW_S] {
        push(format!("{{\"exp\":{}}}", NOW_S - before));
        push(format!("{{\"exp\":\"{}\"}}", NOW_S + before));
        push(format!("{{\"exp\":[{}]}}", NOW_S + before));
    }
    let good = NOW_S + 900;
    for nbf in [NOW_S + 61, NOW_S + 3600, 253_402_300_799] {
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
