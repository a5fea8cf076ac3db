//! The certificate in force, and how it is replaced while connections stand.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use super::certificate::{Certificate, Digest, Files};
use crate::clock::Timestamp;
use crate::sync::lock;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Where TLS is spoken, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where the certificate comes from.
    pub source: Source,
}

/// Where a certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// From files, which are looked at again and again.
    Files(Files),
    /// Made at start, for `localhost`, 127.0.0.1 and ::1, valid 30 days; for development.
    SelfSigned,
}

impl TlsConfig {
    /// Makes one of the settings `--tls-listen`, `--tls-cert`, `--tls-key` and `--tls-self-signed`; none where none of
    /// them is given.
    ///
    /// # Errors
    /// Where they do not fit each other: names what is missing or too much.
    pub fn of(
        listen: Option<SocketAddr>,
        cert: Option<PathBuf>,
        key: Option<PathBuf>,
        self_signed: bool,
    ) -> Result<Option<TlsConfig>, String> {
        let source = match (cert, key, self_signed) {
            (None, None, false) => None,
            (None, None, true) => Some(Source::SelfSigned),
            (Some(cert), Some(key), false) => Some(Source::Files(Files { cert, key })),
            (_, _, true) => {
                return Err("--tls-self-signed with --tls-cert or --tls-key; expected one or the other".to_owned());
            }
            (Some(_), None, _) => return Err("--tls-cert without --tls-key; expected both".to_owned()),
            (None, Some(_), _) => return Err("--tls-key without --tls-cert; expected both".to_owned()),
        };
        match (listen, source) {
            (None, None) => Ok(None),
            (Some(listen), Some(source)) => Ok(Some(TlsConfig { listen, source })),
            (Some(_), None) => Err("--tls-listen without a certificate; expected --tls-cert and --tls-key, or \
                                    --tls-self-signed for development"
                .to_owned()),
            // One flag is enough for development.
            (None, Some(Source::SelfSigned)) => {
                Ok(Some(TlsConfig { listen: ([127, 0, 0, 1], 8443).into(), source: Source::SelfSigned }))
            }
            (None, Some(Source::Files(_))) => {
                Err("--tls-cert without --tls-listen; expected an address to speak TLS on".to_owned())
            }
        }
    }
}

/// Declares the counters once, and with them their figures.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters of all that speaks TLS.
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: AtomicU64,)*
        }

        /// The counters at one moment.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
        pub struct TlsFigures {
            $($(#[$doc])* pub $name: u64,)*
            /// When the certificate in force expires, in seconds since 1970.
            pub expires_unix_s: u64,
        }

        impl Counters {
            fn figures(&self, expires: Timestamp) -> TlsFigures {
                TlsFigures { $($name: self.$name.load(Relaxed),)* expires_unix_s: expires.unix_s() }
            }
        }
    };
}

counters! {
    /// Handshakes completed.
    handshakes,
    /// Those of them that resumed an earlier session.
    resumed,
    /// Handshakes given up because they took too long.
    too_slow,
    /// Connections that did not speak TLS.
    not_tls,
    /// Handshakes that the client broke off with an alert, as it does where it does not trust the certificate.
    rejected,
    /// Handshakes that broke the protocol, or found no version, cipher suite or application protocol in common.
    protocol,
    /// Connections that ended before their handshake did.
    closed,
    /// Times that a new certificate came into force.
    reloads,
    /// Times that the files had changed, or a reload was asked for, and they could not be used.
    failed_reloads,
}

/// The certificate in force and the handshakes made with it.
pub struct Tls {
    source: Source,
    current: ArcSwap<Certificate>,
    /// Held for the whole of a reload: there is one at a time.
    watch: Mutex<Watch>,
    pub(super) counts: Counters,
}

/// What is known of the files.
struct Watch {
    /// What the certificate in force was made of; absent where that was no files.
    in_force: Option<Digest>,
    /// What was there at the last look, or why it could not be read.
    seen: Option<Result<Digest, String>>,
}

impl Tls {
    /// Makes or loads the certificate. One whose time is over, or has not come, is served all the same, with a warning:
    /// what to make of it is the clients' to decide.
    ///
    /// # Errors
    /// Where it cannot be used: names the file, what was wrong with it and what was expected.
    pub fn load(config: &TlsConfig, now: Timestamp) -> Result<Tls, String> {
        let (certificate, in_force) = match &config.source {
            Source::SelfSigned => (Certificate::for_development(now)?, None),
            Source::Files(files) => {
                let contents = files.read()?;
                (Certificate::from_pem(files, &contents)?, Some(contents.digest))
            }
        };
        let watch = Watch { in_force, seen: in_force.map(Ok) };
        let tls = Tls {
            source: config.source.clone(),
            current: ArcSwap::from_pointee(certificate),
            watch: Mutex::new(watch),
            counts: Counters::default(),
        };
        tls.announce(now);
        Ok(tls)
    }

    /// What a new connection is to be made with.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.current.load().config.clone()
    }

    /// The SHA-256 fingerprint of the certificate in force, as browsers and `openssl x509 -fingerprint` show it.
    pub fn fingerprint(&self) -> String {
        let mut text = String::with_capacity(3 * size_of::<Digest>());
        for (n, byte) in self.current.load().fingerprint.iter().enumerate() {
            let colon = if n == 0 { "" } else { ":" };
            write!(text, "{colon}{byte:02X}").expect("a string takes all that is written to it");
        }
        text
    }

    /// When the certificate in force ends.
    pub fn expires(&self) -> Timestamp {
        self.current.load().valid.1
    }

    /// What was counted here so far.
    pub fn figures(&self) -> TlsFigures {
        self.counts.figures(self.expires())
    }

    /// Looks at the files, which may block for as long as the disk does, and takes over what is in them if it is not in
    /// force already; says whether it did. A certificate that was made at start is never replaced.
    ///
    /// # Errors
    /// Where they cannot be used, as in [`Tls::load`]. Then the certificate in force stays, as it does while of a new
    /// pair only one file is there.
    pub fn reload(&self, now: Timestamp) -> Result<bool, String> {
        self.look(now, true)
    }

    /// As [`Tls::reload`], but what was refused at the last look is looked at no more, unless that is asked for.
    fn look(&self, now: Timestamp, asked: bool) -> Result<bool, String> {
        let Source::Files(files) = &self.source else { return Ok(false) };
        let mut watch = lock(&self.watch);
        let contents = files.read();
        let seen = contents.as_ref().map(|contents| contents.digest).map_err(String::clone);
        let same = watch.seen.as_ref() == Some(&seen);
        let in_force = seen.as_ref().ok() == watch.in_force.as_ref();
        watch.seen = Some(seen);
        if in_force || (same && !asked) {
            return Ok(false);
        }
        let loaded = contents.and_then(|contents| Ok((Certificate::from_pem(files, &contents)?, contents.digest)));
        match loaded {
            Ok((certificate, digest)) => {
                self.current.store(Arc::new(certificate));
                watch.in_force = Some(digest);
                self.counts.reloads.fetch_add(1, Relaxed);
                self.announce(now);
                Ok(true)
            }
            Err(why) => {
                self.counts.failed_reloads.fetch_add(1, Relaxed);
                Err(why)
            }
        }
    }

    /// Looks at the files every 10 s, and whenever the process gets SIGHUP, until the task is dropped. What is wrong
    /// with them is logged once for each time that they change.
    pub async fn keep_fresh(self: Arc<Self>) {
        let hangup = signal(SignalKind::hangup()).inspect_err(|error| {
            tracing::error!(%error, "cannot watch for SIGHUP; certificates are looked at every {LOOK_EVERY:?} only");
        });
        self.keep_looking(LOOK_EVERY, hangup.ok()).await;
    }

    async fn keep_looking(self: Arc<Self>, every: Duration, mut hangup: Option<Signal>) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let asked = tokio::select! {
                _ = ticks.tick() => false,
                Some(()) = async { hangup.as_mut()?.recv().await } => true,
            };
            let tls = self.clone();
            match tokio::task::spawn_blocking(move || tls.look(Timestamp::now(), asked)).await {
                Ok(Ok(false)) if asked => tracing::info!("the certificate has not changed"),
                Ok(Ok(_)) => {}
                Ok(Err(why)) => tracing::error!("the certificate in force stays: {why}"),
                // A panic, of which the hook has told, or the runtime's end.
                Err(_) => {}
            }
        }
    }

    /// Tells the log which certificate is in force, and what is unusual about it.
    fn announce(&self, now: Timestamp) {
        let (begins, ends) = self.current.load().valid;
        let sha256 = self.fingerprint();
        match self.source {
            _ if now > ends => {
                tracing::warn!(expired = %ends.seconds(), %sha256, "the certificate has expired");
            }
            _ if now < begins => {
                tracing::warn!(begins = %begins.seconds(), %sha256, "the certificate is not valid yet");
            }
            Source::SelfSigned => {
                tracing::warn!(expires = %ends.seconds(), %sha256, "a self-signed certificate: for development only");
            }
            Source::Files(_) => tracing::info!(expires = %ends.seconds(), %sha256, "certificate in force"),
        }
    }
}

/// Without the key and without rustls' settings, which have pages.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tls { source, counts, .. } = self;
        f.debug_struct("Tls")
            .field("source", source)
            .field("sha256", &self.fingerprint())
            .field("counts", counts)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::certificate::tests::{Dir, issue};
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);

    fn load(dir: &Dir) -> Tls {
        let listen = ([127, 0, 0, 1], 0).into();
        Tls::load(&TlsConfig { listen, source: Source::Files(dir.0.clone()) }, NOW).expect("the files are in order")
    }

    /// Reloads, and failed ones.
    fn reloads(tls: &Tls) -> (u64, u64) {
        (tls.counts.reloads.load(Relaxed), tls.counts.failed_reloads.load(Relaxed))
    }

    #[test]
    fn settings_that_do_not_fit_are_refused_with_what_was_expected() {
        let listen: SocketAddr = ([127, 0, 0, 1], 8443).into();
        let of = |listen: bool, cert: bool, key: bool, self_signed| {
            let file = |given: bool, name: &str| given.then(|| PathBuf::from(name));
            TlsConfig::of(listen.then_some(([127, 0, 0, 1], 8443).into()), file(cert, "c"), file(key, "k"), self_signed)
        };
        assert_eq!(of(false, false, false, false), Ok(None));
        for given in [true, false] {
            assert_eq!(of(given, false, false, true), Ok(Some(TlsConfig { listen, source: Source::SelfSigned })));
        }
        let files = Files { cert: "c".into(), key: "k".into() };
        assert_eq!(of(true, true, true, false), Ok(Some(TlsConfig { listen, source: Source::Files(files) })));
        for ((listen, cert, key, self_signed), named) in [
            ((true, false, false, false), ["--tls-listen without", "expected --tls-cert and --tls-key"]),
            ((true, true, false, false), ["--tls-cert without --tls-key", "expected both"]),
            ((true, false, true, false), ["--tls-key without --tls-cert", "expected both"]),
            ((false, true, false, false), ["--tls-cert without --tls-key", "expected both"]),
            ((false, true, true, false), ["--tls-cert without --tls-listen", "expected an address"]),
            ((true, true, true, true), ["--tls-self-signed with --tls-cert", "expected one or the other"]),
            (
                (true, false, true, true),
                ["--tls-self-signed with --tls-cert or --tls-key", "expected one or the other"],
            ),
        ] {
            let why = of(listen, cert, key, self_signed).expect_err(named[0]);
            assert!(named.iter().all(|part| why.contains(part)), "{why}");
        }
    }

    #[test]
    fn only_what_has_changed_is_taken_over() {
        let (first, second) = (issue((2020, 2040)), issue((2020, 2041)));
        let dir = Dir::new();
        dir.write(&first);
        let tls = load(&dir);
        let (config, fingerprint) = (tls.config(), tls.fingerprint());
        assert_eq!(tls.reload(NOW), Ok(false));
        assert!(Arc::ptr_eq(&config, &tls.config()));
        dir.write(&second);
        assert_eq!(tls.reload(NOW), Ok(true));
        assert!(!Arc::ptr_eq(&config, &tls.config()));
        assert_ne!(tls.fingerprint(), fingerprint);
        assert_eq!(tls.expires().seconds().to_string(), "2041-01-01T00:00:00Z");
        assert_eq!(tls.reload(NOW), Ok(false));
        assert_eq!(reloads(&tls), (1, 0));
    }

    #[test]
    fn of_half_a_pair_and_of_broken_files_the_old_certificate_is_kept() {
        let (first, second) = (issue((2020, 2040)), issue((2020, 2041)));
        let dir = Dir::new();
        dir.write(&first);
        let tls = load(&dir);
        let old = tls.fingerprint();
        // The new certificate is there, its key is not yet; then half of it; then all.
        dir.write_cert(&second.cert_pem);
        assert!(tls.reload(NOW).is_err_and(|why| why.contains("does not belong")));
        dir.write_key(&second.key_pem[..second.key_pem.len() / 2]);
        assert!(tls.reload(NOW).is_err_and(|why| why.contains("no key in it")));
        std::fs::remove_file(&dir.0.key).expect("it was there");
        assert!(tls.reload(NOW).is_err_and(|why| why.contains("No such file")));
        assert_eq!(tls.fingerprint(), old);
        assert_eq!(reloads(&tls), (0, 3));
        dir.write_key(&second.key_pem);
        assert_eq!(tls.reload(NOW), Ok(true));
        assert_ne!(tls.fingerprint(), old);
        // Half a pair that is taken back was no change.
        let new = tls.fingerprint();
        dir.write_key(&first.key_pem);
        assert!(tls.reload(NOW).is_err());
        dir.write_key(&second.key_pem);
        assert_eq!(tls.reload(NOW), Ok(false));
        assert_eq!(tls.fingerprint(), new);
        assert_eq!(reloads(&tls), (1, 4));
    }

    #[test]
    fn what_was_refused_is_tried_again_only_when_it_changes_or_is_asked_for() {
        let (first, second) = (issue((2020, 2040)), issue((2020, 2041)));
        let dir = Dir::new();
        dir.write(&first);
        let tls = load(&dir);
        dir.write_cert(&second.cert_pem);
        assert!(tls.look(NOW, false).is_err());
        assert_eq!(tls.look(NOW, false), Ok(false));
        assert_eq!(reloads(&tls), (0, 1));
        assert!(tls.look(NOW, true).is_err());
        std::fs::remove_file(&dir.0.cert).expect("it was there");
        assert!(tls.look(NOW, false).is_err());
        assert_eq!(tls.look(NOW, false), Ok(false));
        assert_eq!(reloads(&tls), (0, 3));
        dir.write(&second);
        assert_eq!(tls.look(NOW, false), Ok(true));
    }

    #[test]
    fn a_certificate_out_of_its_time_is_served() {
        for years in [(2001, 2002), (2100, 2101)] {
            let dir = Dir::new();
            dir.write(&issue(years));
            load(&dir);
        }
    }

    #[test]
    fn nothing_of_a_key_is_in_what_debugging_shows() {
        let issued = issue((2020, 2040));
        let dir = Dir::new();
        dir.write(&issued);
        let shown = format!("{:?}", load(&dir));
        assert!(shown.contains("cert.pem") && shown.contains("sha256"), "{shown}");
        assert!(!issued.key_pem.lines().any(|line| shown.contains(line)), "{shown}");
        assert!(shown.len() < 1000, "{shown}");
    }

    /// Waits for what another task is to do.
    async fn wait_until(what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds() {
            assert!(Instant::now() < deadline, "{what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    #[tokio::test]
    async fn changed_files_are_found_without_being_told() {
        let dir = Dir::new();
        dir.write(&issue((2020, 2040)));
        let tls = Arc::new(load(&dir));
        let task = tokio::spawn(tls.clone().keep_looking(Duration::from_millis(10), None));
        let second = issue((2020, 2041));
        dir.write_cert(&second.cert_pem);
        wait_until("the half pair is seen", || reloads(&tls) == (0, 1)).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(reloads(&tls), (0, 1), "once for each change");
        dir.write_key(&second.key_pem);
        wait_until("the pair is taken over", || reloads(&tls) == (1, 1)).await;
        task.abort();
    }

    /// Sends this process SIGHUP.
    fn hang_up() {
        use rustix::process::{Signal, getpid, kill_process};
        kill_process(getpid(), Signal::HUP).expect("it is ours");
    }

    #[tokio::test]
    async fn sighup_reloads() {
        let dir = Dir::new();
        dir.write(&issue((2020, 2040)));
        let tls = Arc::new(load(&dir));
        // From here on the signal does not end the process.
        let hangup = signal(SignalKind::hangup()).expect("signals can be watched for");
        dir.write_cert("");
        let task = tokio::spawn(tls.clone().keep_looking(Duration::from_secs(3600), Some(hangup)));
        // The first of them may be the look that each beginning has; the second one was asked for.
        wait_until("a signal is seen", || {
            hang_up();
            reloads(&tls).1 >= 2
        })
        .await;
        dir.write(&issue((2020, 2041)));
        wait_until("a signal is seen", || {
            hang_up();
            reloads(&tls).0 == 1
        })
        .await;
        task.abort();
    }
}
