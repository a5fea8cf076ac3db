//! A certificate with its key: read from PEM files, or made up for development; and what rustls makes of it.

use std::fs::File;
use std::io::Read as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::digest::{self, SHA256, SHA256_OUTPUT_LEN};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{Error, InconsistentKeys, ServerConfig};
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::Decode as _;

use crate::clock::Timestamp;

/// The largest file that is read, in bytes: a chain has some kilobytes, and a wrong path may name anything.
const FILE_MAX: u64 = 1 << 20;

/// How long a development certificate is valid.
const DEVELOPMENT_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// How far a development certificate's validity begins in the past, for clients whose clock is slow. It is part of
/// its life.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// The application protocols offered (RFC 7301), the preferred one first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// A SHA-256 digest.
pub(super) type Digest = [u8; SHA256_OUTPUT_LEN];

/// Where a certificate and its key are, both in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The chain: the server's own certificate first, then those that lead to a root.
    pub cert: PathBuf,
    /// The key of the first certificate, unencrypted: PKCS#8, SEC1 or PKCS#1.
    pub key: PathBuf,
}

/// What the two files held when they were read. It shows nothing: one of them is a secret.
pub(super) struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    /// Tells these contents from others.
    pub(super) digest: Digest,
}

impl Files {
    /// Reads both.
    ///
    /// # Errors
    /// Where one cannot be read, or is larger than 1 MiB: names it.
    pub(super) fn read(&self) -> Result<Contents, String> {
        let cert = read("--tls-cert", &self.cert)?;
        let key = read("--tls-key", &self.key)?;
        let mut both = digest::Context::new(&SHA256);
        // The digests and not the bytes: where one file ends and the other begins counts too.
        both.update(&sha256(&cert));
        both.update(&sha256(&key));
        Ok(Contents { digest: to_array(&both.finish()), cert, key })
    }
}

fn read(flag: &str, path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("{flag} {}: {error}; expected a PEM file", path.display()))?;
    match bytes.len() as u64 > FILE_MAX {
        true => Err(format!("{flag} {}: larger than {FILE_MAX} bytes; expected a PEM file", path.display())),
        false => Ok(bytes),
    }
}

/// A certificate that can be served with.
pub(super) struct Certificate {
    /// What a new connection is made with.
    pub(super) config: Arc<ServerConfig>,
    /// The SHA-256 digest of the certificate itself, by which people compare certificates.
    pub(super) fingerprint: Digest,
    /// The beginning and the end of its validity (RFC 5280, section 4.1.2.5).
    pub(super) valid: (Timestamp, Timestamp),
}

impl Certificate {
    /// Makes one of what the files held.
    ///
    /// # Errors
    /// Where there is no chain or no key in them, or they do not belong together: names the file and what was
    /// expected.
    pub(super) fn from_pem(files: &Files, contents: &Contents) -> Result<Certificate, String> {
        let wrong_cert = |why: &str| format!("--tls-cert {}: {why}", files.cert.display());
        let wrong_key = |why: &str| format!("--tls-key {}: {why}", files.key.display());
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&contents.cert)
            .collect::<Result<_, _>>()
            .map_err(|error| wrong_cert(&format!("{error}; expected a chain of certificates in PEM")))?;
        // What the parser says of a key is not passed on: it may quote it.
        let key = PrivateKeyDer::from_pem_slice(&contents.key)
            .map_err(|_| wrong_key("no key in it; expected an unencrypted PRIVATE KEY in PEM (PKCS#8, SEC1, PKCS#1)"));
        // First the certificate's problems: its file is named first wherever the two are named.
        if chain.is_empty() {
            return Err(wrong_cert("no certificate in it; expected a CERTIFICATE in PEM"));
        }
        let valid = validity(&chain[0]).map_err(|why| wrong_cert(&why))?;
        Certificate::new(chain, key?, valid).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => wrong_key(&format!(
                "does not belong to the first certificate of {}; expected the key of that one",
                files.cert.display()
            )),
            Error::InvalidCertificate(error) => wrong_cert(&format!("{error:?}; expected an X.509 certificate")),
            error => wrong_key(&format!("{error}; expected a key for ECDSA (P-256, P-384, P-521), Ed25519 or RSA")),
        })
    }

    /// Makes a certificate for this machine's own names, with a key that never leaves memory.
    ///
    /// # Errors
    /// Where the system gives no randomness.
    pub(super) fn for_development(now: Timestamp) -> Result<Certificate, String> {
        let wrong = |error: &dyn std::fmt::Display| format!("--tls-self-signed: {error}");
        let begins = Duration::from_secs(now.unix_s()).saturating_sub(CLOCK_SKEW);
        let names = ["localhost".to_owned(), Ipv4Addr::LOCALHOST.to_string(), Ipv6Addr::LOCALHOST.to_string()];
        let mut params = CertificateParams::new(names).map_err(|error| wrong(&error))?;
        params.not_before = (UNIX_EPOCH + begins).into();
        params.not_after = (UNIX_EPOCH + begins + DEVELOPMENT_LIFE).into();
        params.distinguished_name.push(DnType::CommonName, "Fanfare development certificate");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().map_err(|error| wrong(&error))?;
        let cert = params.self_signed(&key).map_err(|error| wrong(&error))?;
        let valid = validity(cert.der())?;
        Certificate::new(vec![cert.into()], key.into(), valid).map_err(|error| wrong(&error))
    }

    fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        valid: (Timestamp, Timestamp),
    ) -> Result<Certificate, Error> {
        // Given to rustls by hand: a default of the whole process could be another library's choice.
        let provider = Arc::new(default_provider());
        let fingerprint = sha256(&chain[0]);
        let certified = CertifiedKey::new(chain, provider.key_provider.load_private_key(key)?);
        certified.keys_match()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            // TLS 1.2 and 1.3.
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).into();
        // A crowd that reconnects resumes: no signature, no chain on the wire. Its sessions are kept by the clients, in
        // tickets (RFC 8446, section 2.2; for TLS 1.2, RFC 5077), so that 100,000 of them cost nothing here. Keys of
        // tickets change every 6 hours and open for 12. They live and die with the certificate: no session outlives
        // the certificate that it was begun with, and since a reload ends no stream, no crowd comes of it either.
        config.ticketer = Ticketer::new()?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // rustls sends two. A ticket is for one more connection, which brings the next one.
        config.send_tls13_tickets = 1;
        // Early data can be replayed (RFC 8446, section 8), and a publish must not be: 0 is rustls' own choice too.
        config.max_early_data_size = 0;
        Ok(Certificate { config: Arc::new(config), fingerprint, valid })
    }
}

/// When a certificate is valid: from the first moment to the second.
fn validity(cert: &[u8]) -> Result<(Timestamp, Timestamp), String> {
    // Leniently: what RFC 5280 asks of serial numbers and the like is the clients' to judge.
    let cert =
        CertificateInner::<Raw>::from_der(cert).map_err(|error| format!("{error}; expected an X.509 certificate"))?;
    let valid = cert.tbs_certificate().validity();
    let moment = |time: Duration| Timestamp::from_unix_ms(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    Ok((moment(valid.not_before.to_unix_duration()), moment(valid.not_after.to_unix_duration())))
}

fn sha256(bytes: &[u8]) -> Digest {
    to_array(&digest::digest(&SHA256, bytes))
}

fn to_array(digest: &digest::Digest) -> Digest {
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
pub(super) mod tests {
    use std::process::Command;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A directory of its own for two files, removed at its end.
    pub(in crate::tls) struct Dir(pub(in crate::tls) Files);

    impl Dir {
        pub(in crate::tls) fn new() -> Dir {
            static DIRS: AtomicUsize = AtomicUsize::new(0);
            let name = format!("fanfare-tls-{}-{}", std::process::id(), DIRS.fetch_add(1, Ordering::Relaxed));
            let dir = std::env::temp_dir().join(name);
            std::fs::create_dir(&dir).expect("there is room for temporary files");
            Dir(Files { cert: dir.join("cert.pem"), key: dir.join("key.pem") })
        }

        pub(in crate::tls) fn write(&self, issued: &Issued) {
            self.write_cert(&issued.cert_pem);
            self.write_key(&issued.key_pem);
        }

        pub(in crate::tls) fn write_cert(&self, text: &str) {
            replace(&self.0.cert, text);
        }

        pub(in crate::tls) fn write_key(&self, text: &str) {
            replace(&self.0.key, text);
        }

        fn certificate(&self) -> Result<Certificate, String> {
            Certificate::from_pem(&self.0, &self.0.read()?)
        }
    }

    /// In one step: who looks meanwhile sees the old text or the new one.
    fn replace(path: &Path, text: &str) {
        let new = path.with_extension("new");
        std::fs::write(&new, text).expect("it can be written");
        std::fs::rename(&new, path).expect("it is the same directory");
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(self.0.cert.parent().expect("it has a directory"));
        }
    }

    /// A certificate for `localhost` that is its own root.
    pub(in crate::tls) struct Issued {
        pub(in crate::tls) cert_pem: String,
        pub(in crate::tls) key_pem: String,
        pub(in crate::tls) der: CertificateDer<'static>,
    }

    /// Issues a certificate that is valid in the years from the first to the second.
    pub(in crate::tls) fn issue(years: (i32, i32)) -> Issued {
        let mut params = CertificateParams::new(["localhost".to_owned()]).expect("it is a name");
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let key = KeyPair::generate().expect("there is randomness");
        let cert = params.self_signed(&key).expect("it can be signed");
        Issued { cert_pem: cert.pem(), key_pem: key.serialize_pem(), der: cert.into() }
    }

    #[test]
    fn what_cannot_be_served_with_is_named_with_what_was_expected() {
        let (issued, other) = (issue((2020, 2040)), issue((2020, 2040)));
        let (cert, key) = (issued.cert_pem.as_str(), issued.key_pem.as_str());
        let half = &cert[..cert.len() / 2];
        let no_base64 = "-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n";
        let no_x509 = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let no_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let large = "#".repeat(1 + FILE_MAX as usize);
        for (cert, key, flag, expected) in [
            ("", key, "--tls-cert", "no certificate in it; expected a CERTIFICATE in PEM"),
            (key, key, "--tls-cert", "no certificate in it; expected a CERTIFICATE in PEM"),
            (half, key, "--tls-cert", "expected a chain of certificates in PEM"),
            (no_base64, key, "--tls-cert", "expected a chain of certificates in PEM"),
            (no_x509, key, "--tls-cert", "expected an X.509 certificate"),
            (&large, key, "--tls-cert", "larger than 1048576 bytes; expected a PEM file"),
            (cert, "", "--tls-key", "no key in it; expected an unencrypted PRIVATE KEY in PEM"),
            (cert, cert, "--tls-key", "no key in it; expected an unencrypted PRIVATE KEY in PEM"),
            (cert, &encrypted, "--tls-key", "no key in it; expected an unencrypted PRIVATE KEY in PEM"),
            (cert, &key[..key.len() - 9], "--tls-key", "no key in it; expected an unencrypted PRIVATE KEY in PEM"),
            (cert, no_key, "--tls-key", "expected a key for ECDSA"),
            (cert, &other.key_pem, "--tls-key", "does not belong to the first certificate of"),
        ] {
            let dir = Dir::new();
            dir.write_cert(cert);
            dir.write_key(key);
            let Err(why) = dir.certificate() else { panic!("accepted where {expected:?}") };
            let path = if flag == "--tls-cert" { &dir.0.cert } else { &dir.0.key };
            assert!(why.starts_with(&format!("{flag} {}: ", path.display())), "{why}");
            assert!(why.contains(expected), "{why}: not {expected:?}");
            // Nothing of a key is in the text.
            assert!(!key.lines().any(|line| line.len() > 20 && !line.starts_with('-') && why.contains(line)), "{why}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let dir = Dir::new();
        let why = dir.certificate().err().expect("there is nothing");
        assert!(why.contains("--tls-cert") && why.contains("cert.pem") && why.contains("No such file"), "{why}");
        dir.write_cert(&issue((2020, 2040)).cert_pem);
        let why = dir.certificate().err().expect("there is no key");
        assert!(why.contains("--tls-key") && why.contains("key.pem") && why.contains("No such file"), "{why}");
    }

    #[test]
    fn a_chain_is_kept_whole_and_its_own_certificate_is_the_first() {
        let (issued, above) = (issue((2020, 2040)), issue((2021, 2050)));
        let dir = Dir::new();
        dir.write_cert(&format!("a comment\n{}\n{}", issued.cert_pem, above.cert_pem));
        dir.write_key(&issued.key_pem);
        let certificate = dir.certificate().expect("it is in order");
        assert_eq!(certificate.fingerprint, sha256(&issued.der));
        // 2020 and 2040 begin at these seconds.
        assert_eq!(
            certificate.valid,
            (Timestamp::from_unix_ms(1_577_836_800_000), Timestamp::from_unix_ms(2_208_988_800_000))
        );
        dir.write_key(&above.key_pem);
        assert!(dir.certificate().is_err_and(|why| why.contains("does not belong")));
    }

    #[test]
    fn the_digest_tells_which_file_holds_what() {
        let dir = Dir::new();
        let mut seen = std::collections::BTreeSet::new();
        for (cert, key) in [("ab", "c"), ("a", "bc"), ("c", "ab"), ("", "abc")] {
            dir.write_cert(cert);
            dir.write_key(key);
            assert!(seen.insert(dir.0.read().expect("they are there").digest), "{cert:?} {key:?}");
        }
    }

    #[test]
    fn a_development_certificate_is_valid_for_30_days() {
        let now = Timestamp::from_unix_ms(1_800_000_000_000);
        let certificate = Certificate::for_development(now).expect("it can be made");
        let (begins, ends) = certificate.valid;
        assert!(begins < now, "a slow clock is no reason to refuse it");
        assert_eq!(ends.unix_s() - begins.unix_s(), 30 * 24 * 3600);
        assert_ne!(certificate.fingerprint, Certificate::for_development(now).expect("another").fingerprint);
    }

    /// What `openssl` writes, or nothing where there is no such tool; in CI it must be there.
    pub(in crate::tls) fn openssl(arguments: &[&str]) -> Option<String> {
        match Command::new("openssl").args(arguments).stdin(std::process::Stdio::null()).output() {
            Ok(output) => {
                assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
                Some(String::from_utf8(output.stdout).expect("it writes text"))
            }
            Err(error) => {
                assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "openssl in CI: {error}");
                None
            }
        }
    }

    #[test]
    fn all_usual_forms_of_keys_are_read() {
        for (algorithm, form, header) in [
            (&["EC", "-pkeyopt", "ec_paramgen_curve:P-256"][..], "ec", "BEGIN EC PRIVATE KEY"),
            (&["EC", "-pkeyopt", "ec_paramgen_curve:P-384"], "ec", "BEGIN EC PRIVATE KEY"),
            (&["RSA", "-pkeyopt", "rsa_keygen_bits:2048"], "rsa", "BEGIN RSA PRIVATE KEY"),
            (&["ED25519"], "pkey", "BEGIN PRIVATE KEY"),
        ] {
            let dir = Dir::new();
            let (cert, key) = (dir.0.cert.to_str().expect("text"), dir.0.key.to_str().expect("text"));
            let Some(_) = openssl(&[&["genpkey", "-out", key, "-algorithm"], algorithm].concat()) else { return };
            openssl(&["req", "-x509", "-new", "-key", key, "-out", cert, "-subj", "/CN=a", "-days", "1"]);
            let fingerprint = dir.certificate().expect("PKCS#8 is read").fingerprint;
            let written = match form {
                "rsa" => openssl(&["rsa", "-in", key, "-traditional"]),
                form => openssl(&[form, "-in", key]),
            };
            let written = written.expect("it was there before");
            assert!(written.contains(header), "{algorithm:?}");
            dir.write_key(&written);
            let read = dir.certificate().unwrap_or_else(|why| panic!("{header}: {why}"));
            assert_eq!(read.fingerprint, fingerprint);
        }
    }
}
