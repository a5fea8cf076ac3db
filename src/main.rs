//! The `fanfare` binary: allocator, arguments, runtime, exit code.

use std::io::{IsTerminal, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;

use fanfare::app::{App, Cannot};
use fanfare::config::{Config, LogFormat, Stop};
use tracing_subscriber::EnvFilter;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `EX_USAGE` of sysexits.h: the settings are wrong, and starting again without changing them is no use.
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    forgo_huge_pages();
    let file_limit = raise_file_limit();
    let config = match Config::read(std::env::args_os(), file_limit) {
        Ok(config) => config,
        Err(Stop::Asked(text)) => {
            let _ = text.print();
            return ExitCode::SUCCESS;
        }
        Err(Stop::Wrong(why)) => {
            eprintln!("fanfare: {}", why.trim_start_matches("error: ").trim_end());
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if let Err(why) = start_log(&config) {
        eprintln!("fanfare: --log {:?}: {why}", config.log_filter);
        return ExitCode::from(EXIT_USAGE);
    }
    let files_wanted = config.fanout.max_streams.saturating_add(config.server.max_connections);
    if files_wanted > file_limit {
        tracing::warn!(
            file_limit,
            max_streams = config.fanout.max_streams,
            max_connections = config.server.max_connections,
            "the limit on open files is lower than the limits on connections: it will be met first",
        );
    }
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            match error.downcast_ref() {
                Some(Cannot::Setting(_)) => ExitCode::from(EXIT_USAGE),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn serve(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.http_threads)
        .thread_name("http")
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        let streams = config.fanout.max_streams;
        let app = App::start(config)?;
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

/// Says where it listens and what to try, for the person who has just started it. `tls` is where TLS is spoken, and the
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
    // Whoever closed our standard output does not want to read this.
    let _ = std::io::stdout().write_all(greeting.as_bytes());
}

/// What no filter changes: below this level the library quotes request targets that it cannot read, and a target may
/// hold a token.
const KEPT_QUIET: &str = "h2::server=info";

fn start_log(config: &Config) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::builder().parse(&config.log_filter)?.add_directive(KEPT_QUIET.parse()?);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

/// Where the system gives huge pages to everybody, a page of 2 MiB for each thread's few small buffers is several
/// times the memory of ten thousand streams (PERFORMANCE.md, "Memory").
fn forgo_huge_pages() {
    // Older kernels do not know it: then it is as it is.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Raises the soft limit on open files to the hard one; gives the limit in force.
fn raise_file_limit() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let in_force = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    // No limit at all is bounded here, since buffers are sized after it: ten million sockets.
    const UNLIMITED: u64 = 10_000_000;
    usize::try_from(in_force.unwrap_or(UNLIMITED).min(UNLIMITED)).unwrap_or(1024)
}
