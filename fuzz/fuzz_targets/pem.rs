//! PEM files: a certificate, a NUL, and its key. The certificate's text is read as a public key for tokens, too. An error
//! names the setting and never shows the key, and comments and the kind of line ends do not matter.
#![no_main]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use fanfare::auth::token::{ClaimsConfig, KeySource, Mode, TokenConfig, Verifier};
use fanfare::clock::Timestamp;
use fanfare::tls::{Files, Source, Tls, TlsConfig};
use libfuzzer_sys::fuzz_target;

const NOW: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);

/// A folder of this process's own.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("fanfare-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder can be made");
    folder
});

/// A certificate's fingerprint, where these are a certificate and its key.
fn certificate(cert: &[u8], key: &[u8]) -> Result<String, String> {
    let files = Files { cert: FOLDER.join("cert"), key: FOLDER.join("key") };
    fs::write(&files.cert, cert).expect("it can be written");
    fs::write(&files.key, key).expect("it can be written");
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Tls::load(&TlsConfig { listen, source: Source::Files(files) }, NOW).map(|tls| tls.fingerprint())
}

fn public_key(pem: &[u8]) -> Result<(), String> {
    let file = FOLDER.join("public");
    fs::write(&file, pem).expect("it can be written");
    let keys = Some(KeySource::Pem { file, algorithms: Vec::new() });
    let claims =
        ClaimsConfig { audience: Vec::new(), issuer: Vec::new(), leeway: Duration::ZERO, all_seeing_roles: Vec::new() };
    Verifier::new(&TokenConfig { mode: Mode::Required, keys, claims, cookie: None }).map(|_| ())
}

/// The same with a comment before and behind it, and with the line ends of Windows.
fn disguised(pem: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> =
        pem.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
    [&b"a comment\r\n"[..], &lines.join(&b"\r\n"[..]), b"\r\nanother\r\n"].concat()
}

fuzz_target!(|input: &[u8]| {
    let nul = input.iter().position(|&byte| byte == 0);
    let (cert, key) = nul.map_or((input, &[][..]), |nul| (&input[..nul], &input[nul + 1..]));
    match certificate(cert, key) {
        Ok(fingerprint) => assert_eq!(certificate(&disguised(cert), &disguised(key)), Ok(fingerprint)),
        Err(why) => {
            assert!(why.starts_with("--tls-cert ") || why.starts_with("--tls-key "), "{why}");
            let key = String::from_utf8_lossy(key);
            assert!(!key.lines().any(|line| line.len() > 15 && why.contains(line)), "{why}");
        }
    }
    match public_key(cert) {
        Ok(()) => assert_eq!(public_key(&disguised(cert)), Ok(())),
        Err(why) => assert!(why.starts_with("--jwt-key "), "{why}"),
    }
});
