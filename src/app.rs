//! The parts, wired; the order in which they start and stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{sleep, timeout};

use crate::broker::Broker;
use crate::clock::Now;
use crate::config::Config;
use crate::http::idempotency::Answers;
use crate::server::{self, Counts, Service};

/// A broker that listens and does not serve yet.
#[derive(Debug)]
pub struct App {
    config: Config,
    listener: TcpListener,
    service: Arc<Service>,
}

impl App {
    /// Opens the listening socket and starts the shards. To be called within a tokio runtime.
    ///
    /// # Errors
    /// Where the address cannot be bound, or the system gives no threads.
    pub fn start(config: Config) -> io::Result<App> {
        let listener = server::bind(config.listen, &config.socket)?;
        let broker = Broker::start(config.log.clone(), &config.fanout)?;
        let service = Arc::new(Service {
            broker,
            publish: config.publish.clone(),
            subscribe: config.subscribe.clone(),
            cors: config.cors.clone(),
            answers: Answers::new(config.idempotency.clone()),
            counts: Counts::default(),
            request_ids: AtomicU64::new(1),
        });
        Ok(App { config, listener, service })
    }

    /// Where it can be reached.
    ///
    /// # Errors
    /// Where the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until SIGTERM or SIGINT, then drains. A second signal ends the draining at once.
    ///
    /// # Errors
    /// Where signals cannot be watched for.
    pub async fn run(self) -> io::Result<()> {
        let mut stop = StopSignals::new()?;
        let App { config, listener, service } = self;
        let accepting = tokio::spawn(server::accept(listener, config.server, service.clone()));
        let aging = tokio::spawn(age(service.clone()));

        stop.next().await;
        tracing::info!(streams = service.broker.connected(), grace = ?config.grace, "stopping");
        let drained = tokio::select! {
            drained = drain(&service, config.grace) => drained,
            () = stop.next() => false,
        };
        accepting.abort();
        aging.abort();
        match drained {
            true => tracing::info!("stopped"),
            false => tracing::warn!(streams = service.broker.connected(), "stopped at once"),
        }
        Ok(())
    }
}

/// How long requests may still take that were being answered when the last stream had ended.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Lets the log and the answers for repeats age even while nothing is published.
async fn age(service: Arc<Service>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        let now = Now::read();
        service.broker.expire(now);
        service.answers.expire(now);
    }
}

/// Ends the streams, then lets requests that are being answered finish. New requests are answered all the while: a
/// probe learns that the broker is not ready, a publisher still reaches those who still listen.
async fn drain(service: &Arc<Service>, grace: Duration) -> bool {
    service.broker.begin_drain();
    let shards = service.clone();
    // It blocks, and outlives this future where a second signal cuts it short.
    let ended = tokio::task::spawn_blocking(move || shards.broker.drain(grace)).await.is_ok();
    let answered = async {
        while service.counts.exchanges.load(Ordering::Relaxed) > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let _ = timeout(LAST_ANSWERS, answered).await;
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
