//! `fanfare serve`: the broker as a process, with its log and its runtime.

use std::error::Error;
use std::io::{IsTerminal, Write as _};
use std::net::SocketAddr;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

use super::Failure;
use super::lines::Lines;
use crate::app::{App, Cannot};
use crate::config::{Config, Flags, LogFormat};
use crate::process::raise_file_limit;
use crate::server::Passed;

/// Runs the broker until a signal ends it.
pub(super) fn run(flags: Flags) -> Result<(), Failure> {
    let file_limit = raise_file_limit();
    let config = Config::read(flags, file_limit).map_err(Failure::Usage)?;
    // As long as there is one thread.
    let passed = Passed::take().map_err(Failure::Usage)?;
    let logging = Logging::start(&config).map_err(Failure::Usage)?;
    for warning in config.file_warning(file_limit).iter().chain(&config.gone) {
        tracing::warn!("{warning}");
    }
    let served = serve(config, passed).map_err(|error| match error.downcast_ref() {
        Some(Cannot::Setting(_)) => Failure::Usage(error.to_string()),
        _ => Failure::failed(error),
    });
    logging.end();
    served
}

fn serve(config: Config, passed: Passed) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.http_threads)
        .thread_name("http")
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        let streams = config.fanout.max_streams;
        let app = App::start(config, passed)?;
        let address = app.address()?;
        let tls = app.tls_address()?.zip(app.tls_fingerprint());
        greet(address, tls.as_ref());
        tracing::info!(%address, tls = ?tls.map(|(address, _)| address), max_streams = streams, "listening");
        app.run().await?;
        Ok(())
    });
    // Connections that rest, and streams that a second signal cut short, are not waited for.
    runtime.shutdown_background();
    result
}

/// Prints the addresses and the commands to try, for the person who starts the broker. `tls` is where TLS is spoken, and the
/// certificate's fingerprint, by which that person knows it again.
fn greet(address: SocketAddr, tls: Option<&(SocketAddr, String)>) {
    let mut reachable = address;
    if address.ip().is_unspecified() {
        reachable.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let tls =
        tls.map(|(address, sha256)| format!("         and on https://{address}\n  certificate: SHA-256 {sha256}\n"));
    let greeting = format!(
        "fanfare {} listening on http://{address}\n{}\
         \n  listen:   curl -N 'http://{reachable}/api/v1/events?topics=demo'\n  \
           publish:  curl -d '{{\"topic\":\"demo\",\"type\":\"hello\",\"data\":{{\"n\":1}}}}' \
         -H 'Content-Type: application/json' http://{reachable}/api/v1/events/broadcast\n  \
           stats:    curl http://{reachable}/api/v1/events/stats\n\n",
        env!("CARGO_PKG_VERSION"),
        tls.unwrap_or_default(),
    );
    // It does not matter if standard output has been closed.
    let _ = std::io::stdout().write_all(greeting.as_bytes());
}

/// A limit that no filter lifts: below this level the library quotes request targets that it cannot read, and a target may
/// hold a token.
const KEPT_QUIET: &str = "h2::server=info";

/// The log, which goes to standard error, and where there is a collector, the spans that go there.
struct Logging {
    #[cfg(feature = "otlp")]
    spans: Option<crate::trace::Exporter>,
}

impl Logging {
    fn start(config: &Config) -> Result<Logging, String> {
        let wrong = |why: &dyn std::fmt::Display| format!("--log {:?}: {why}", config.logging.filter);
        let filter = EnvFilter::builder().parse(&config.logging.filter).map_err(|error| wrong(&error))?;
        let filter = filter.add_directive(KEPT_QUIET.parse().map_err(|error| wrong(&error))?);
        let lines = fmt::layer().with_writer(std::io::stderr);
        let lines = match config.logging.format {
            LogFormat::Text => {
                let ansi = std::io::stderr().is_terminal();
                let format = Lines { format: fmt::format().with_ansi(ansi), is_json: false };
                lines.with_ansi(ansi).event_format(format).with_filter(filter).boxed()
            }
            LogFormat::Json => {
                let format = Lines { format: fmt::format().json(), is_json: true };
                lines.json().event_format(format).with_filter(filter).boxed()
            }
        };
        let log = tracing_subscriber::registry().with(lines);
        #[cfg(not(feature = "otlp"))]
        {
            log.init();
            Ok(Logging {})
        }
        #[cfg(feature = "otlp")]
        {
            let (layer, spans) = crate::trace::layer()?.unzip();
            log.with(layer).init();
            Ok(Logging { spans })
        }
    }

    /// To be called last of all.
    fn end(self) {
        crate::trace::held::tell(true);
        #[cfg(feature = "otlp")]
        if let Some(spans) = self.spans {
            spans.shut_down();
        }
    }
}
