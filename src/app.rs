//! The parts, wired; the order in which they start and stop.

use std::fmt;
use std::io;
use std::net::{self, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout, timeout_at};

use crate::auth::keys::Keys;
use crate::broker::Broker;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::fanout::DrainPlan;
use crate::http::access::Access;
use crate::http::counts::Counts;
use crate::http::idempotency::Answers;
use crate::http::stats::{Monitor, Recent};
use crate::limit::Limits;
use crate::server::{self, Passed, Room, Service};
use crate::tls::Tls;
use crate::trace;

/// A broker that listens and does not serve yet.
#[derive(Debug)]
pub struct App {
    config: Config,
    listener: TcpListener,
    tls: Option<(TcpListener, Arc<Tls>)>,
    service: Arc<Service>,
}

/// Why it cannot start.
#[derive(Debug)]
pub enum Cannot {
    /// A setting is wrong; the text says what was expected.
    Setting(String),
    /// The address cannot be listened on.
    Listen(SocketAddr, io::Error),
    /// The system refuses a resource that it needs.
    Start(io::Error),
}

impl fmt::Display for Cannot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cannot::Setting(why) => f.write_str(why),
            Cannot::Listen(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Cannot::Start(error) => write!(f, "cannot start: {error}"),
        }
    }
}

impl std::error::Error for Cannot {}

impl App {
    /// Whether a broker could be started with this configuration, as far as that shows without starting it: its
    /// certificate and its keys can be used. Gives who would be let in, and what else its operator should know.
    ///
    /// # Errors
    /// Where something cannot be used: names the setting, and what was expected.
    pub fn check(config: &Config) -> Result<(Access, Vec<&'static str>), String> {
        let (access, _) = doors(config)?;
        let addresses = [Some(config.listen), config.tls.as_ref().map(|tls| tls.listen)];
        let warnings = open_doors(&access, addresses);
        Ok((access, warnings))
    }

    /// Opens the listening sockets, but for those that were passed, and starts the shards. To be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`Cannot`].
    pub fn start(config: Config, passed: Passed) -> Result<App, Cannot> {
        let listen = |passed: Option<net::TcpListener>, address| match passed {
            Some(socket) => server::adopt(socket, &config.socket).map_err(Cannot::Start),
            None => server::bind(address, &config.socket).map_err(|error| Cannot::Listen(address, error)),
        };
        if passed.https.is_some() && config.tls.is_none() {
            let why = "a socket is passed for https, and there is no certificate; expected --tls-listen with \
                       --tls-cert and --tls-key";
            return Err(Cannot::Setting(why.to_owned()));
        }
        let (access, tls) = doors(&config).map_err(Cannot::Setting)?;
        let listener = listen(passed.http, config.listen)?;
        let tls = match config.tls.as_ref().zip(tls) {
            None => None,
            Some((setting, tls)) => Some((listen(passed.https, setting.listen)?, Arc::new(tls))),
        };
        let addresses = [Some(&listener), tls.as_ref().map(|(listener, _)| listener)];
        let addresses = addresses.map(|listener| listener.and_then(|listener| listener.local_addr().ok()));
        for warning in open_doors(&access, addresses) {
            tracing::warn!("{warning}");
        }
        let broker = Broker::start(config.history.clone(), &config.fanout).map_err(Cannot::Start)?;
        let service = Arc::new(Service {
            broker,
            publish: config.publish.clone(),
            subscribe: config.subscribe.clone(),
            access,
            cors: config.cors.clone(),
            answers: Answers::new(config.idempotency.clone()),
            counts: Counts::default(),
            recent: Recent::default(),
            monitor: Monitor::new(&config.fanout),
            tls: tls.as_ref().map(|(_, tls)| tls.clone()),
            max_head: config.server.max_head,
            metrics: config.metrics,
            page: config.page,
            request_ids: AtomicU64::new(1),
            stopping: watch::Sender::new(false),
        });
        Ok(App { config, listener, tls, service })
    }

    /// Where it can be reached.
    ///
    /// # Errors
    /// Where the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where TLS is spoken, if it is.
    ///
    /// # Errors
    /// Where the system does not say.
    pub fn tls_address(&self) -> io::Result<Option<SocketAddr>> {
        self.tls.as_ref().map(|(listener, _)| listener.local_addr()).transpose()
    }

    /// The SHA-256 fingerprint of the certificate that TLS is spoken with, if it is.
    pub fn tls_fingerprint(&self) -> Option<String> {
        self.tls.as_ref().map(|(_, tls)| tls.fingerprint())
    }

    /// Serves until SIGTERM or SIGINT, then drains. A second signal ends the draining at once.
    ///
    /// # Errors
    /// Where signals cannot be watched for.
    pub async fn run(self) -> io::Result<()> {
        let mut stop = StopSignals::new()?;
        // Watched for even where there is no certificate to reload: it would end the process. Keys need no telling, their
        // file is looked at all the time.
        let _hangup = signal(SignalKind::hangup())?;
        let App { config, listener, tls, service } = self;
        let mut tasks = JoinSet::new();
        let room = Room::new(config.server.max_connections);
        let server = Arc::new(config.server);
        if let Some((listener, tls)) = tls {
            let (room, server, service) = (room.clone(), server.clone(), service.clone());
            tasks.spawn(server::accept_tls(listener, tls.clone(), room, server, service));
            tasks.spawn(tls.keep_fresh());
        }
        tasks.spawn(server::accept(listener, room, server, service.clone()));
        tasks.spawn(age(service.clone()));
        let fresh = service.clone();
        tasks.spawn(async move { fresh.access.keys().keep_fresh(LOOK_AT_KEYS).await });
        let fresh = service.clone();
        tasks.spawn(async move {
            if let Some(verifier) = fresh.access.verifier() {
                verifier.keep_fresh().await;
            }
        });
        if let Some(within) = sd_notify::watchdog_enabled() {
            tasks.spawn(feed_watchdog(service.clone(), (within / 2).max(Duration::from_millis(1))));
        }
        tell_manager(NotifyState::Ready);

        let failed = tokio::select! {
            () = stop.next() => false,
            () = panic_of_one(&mut tasks) => true,
        };
        tell_manager(NotifyState::Stopping);
        tracing::info!(streams = service.broker.connected(), grace = ?config.grace, "stopping");
        let drained = tokio::select! {
            drained = drain(&service, config.grace) => drained,
            () = stop.next() => false,
        };
        tasks.abort_all();
        match drained {
            true => tracing::info!("stopped"),
            false => tracing::warn!(streams = service.broker.connected(), "stopped at once"),
        }
        match failed {
            true => Err(io::Error::other("a task that all else needs has panicked")),
            false => Ok(()),
        }
    }
}

/// Waits until one of the tasks panics; for ever, if none does. Some of them come to an end: they had nothing to do.
async fn panic_of_one(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if ended.is_err_and(|error| error.is_panic()) {
            tracing::error!("a task that all else needs has panicked: the broker stops, to be started anew");
            return;
        }
    }
    std::future::pending::<()>().await;
}

/// Tells the service manager, where one has asked to be told (`sd_notify(3)`).
fn tell_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}

/// Lets the service manager know that every shard still answers; what hangs is to be ended and started anew.
async fn feed_watchdog(service: Arc<Service>, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    loop {
        ticks.tick().await;
        service.broker.survey().await;
        tell_manager(NotifyState::Watchdog);
    }
}

/// How often the file of keys is looked at.
const LOOK_AT_KEYS: Duration = Duration::from_secs(2);

/// The parts that decide about access, and TLS.
fn doors(config: &Config) -> Result<(Access, Option<Tls>), String> {
    let tls = config.tls.as_ref().map(|tls| Tls::load(tls, Timestamp::now())).transpose()?;
    let (keys, limits) = (Keys::new(config.keys.clone()), Limits::new(config.limit.clone()));
    Ok((Access::new(&config.tokens, keys, limits, config.proxies.clone())?, tls))
}

/// Where anybody who reaches the port may do what elsewhere needs a token or a key.
fn open_doors(access: &Access, addresses: [Option<SocketAddr>; 2]) -> Vec<&'static str> {
    if addresses.into_iter().flatten().all(|address| address.ip().is_loopback()) {
        return Vec::new();
    }
    let listeners = "anybody who reaches this port may listen to everything: see --auth";
    let publishers = "anybody who reaches this port may publish: see --keys-file, FANFARE_KEYS and --auth";
    let doors = [(access.is_open_to_listeners(), listeners), (access.is_open_to_publishers(), publishers)];
    doors.into_iter().filter_map(|(open, warning)| open.then_some(warning)).collect()
}

/// How long after the grace period requests may still be answered, and how long connections may take their last bytes.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Once a second: lets the log and the answers for repeats age even while nothing is published, and notes how things are.
async fn age(service: Arc<Service>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        let now = Timestamp::now();
        service.broker.expire(now);
        service.answers.expire(now);
        service.access.limits().sweep(now);
        let sources = service.sources();
        sources.note();
        trace::held::tell(false);
        service.monitor.publish(&sources, now).await;
    }
}

/// Ends the streams, then lets requests that are being answered finish. New requests are answered all the while: a
/// probe learns that the broker is not ready, a publisher still reaches those who still listen.
async fn drain(service: &Arc<Service>, grace: Duration) -> bool {
    let plan = DrainPlan { grace, gone_by: Instant::now() + grace + LAST_ANSWERS };
    service.broker.begin_drain(plan);
    // HTTP/2's clients are told at once, that they may go elsewhere with what they ask next.
    service.stopping.send_replace(true);
    let shards = service.clone();
    // It blocks, and outlives this future where a second signal cuts it short.
    let ended = tokio::task::spawn_blocking(move || {
        shards.broker.drain(plan);
        if let Some(monitor) = shards.monitor.started() {
            // Until now it told how the stopping goes.
            monitor.drain(DrainPlan { grace: Duration::ZERO, ..plan });
        }
    });
    let ended = ended.await.is_ok();
    let answered = async {
        while service.counts.exchanges.load(Ordering::Relaxed) > 0 {
            sleep(Duration::from_millis(5)).await;
        }
        // The last bytes of the connections that stay with hyper are written by hyper.
        let _ = timeout(LAST_ANSWERS, service.stopping.closed()).await;
    };
    // Streams may end early, and long before a publisher with a slow line has sent its body: it has the same time.
    let _ = timeout_at(plan.gone_by.into(), answered).await;
    ended
}

/// SIGTERM and SIGINT.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn new() -> io::Result<StopSignals> {
        Ok(StopSignals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
