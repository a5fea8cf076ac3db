//! Reads the settings and makes each part's typed configuration of them. Flags take precedence over the environment,
//! the environment over an optional TOML file, and the file over the defaults.

mod settings;
mod tokens;
mod values;

use std::collections::BTreeSet;
use std::env::VarError;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::auth::keys::{KeySources, KeysConfig};
use crate::auth::token::TokenConfig;
use crate::event::Invalid;
use crate::fanout::FanoutConfig;
use crate::http::cors::Cors;
use crate::http::forwarded::ProxyConfig;
use crate::http::idempotency::IdempotencyConfig;
use crate::http::publish::PublishConfig;
use crate::http::subscribe::SubscribeConfig;
use crate::limit::{LimitConfig, Rate};
use crate::log::LogConfig;
use crate::server::{ServerConfig, SocketConfig, dual_stack};
use crate::tls::TlsConfig;

use settings::{Nivo, Settings};
use values::{Address, List, RATE_MAX, TopicName, at_most, bytes, count, rate, span, span_or_none};

pub use settings::Flags;
pub use values::{LogFormat, Span};

/// Idempotency keys that are remembered at most: about 50 MB. The oldest make room for newer ones.
const IDEMPOTENCY_KEYS: usize = 100_000;

/// Settings of logging: the lines that the process writes, not the event log.
#[derive(Debug, Clone)]
pub struct LoggingConfig {
    /// A level, or a filter by module.
    pub filter: String,
    /// The format of the lines.
    pub format: LogFormat,
}

/// The configuration of all parts together.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// The address and the certificate for TLS, if TLS is on.
    pub tls: Option<TlsConfig>,
    /// Threads that read requests: one per core, at most 4.
    pub http_threads: usize,
    /// How long ending all streams may take.
    pub grace: Duration,
    /// Settings of logging.
    pub logging: LoggingConfig,
    /// Bounds on the history.
    pub history: LogConfig,
    /// Settings of streams.
    pub fanout: FanoutConfig,
    /// Bounds on publishing.
    pub publish: PublishConfig,
    /// Bounds on listening.
    pub subscribe: SubscribeConfig,
    /// The origins whose pages may send requests.
    pub cors: Cors,
    /// Bounds on remembered idempotency keys.
    pub idempotency: IdempotencyConfig,
    /// The trusted proxies.
    pub proxies: ProxyConfig,
    /// The API keys.
    pub keys: KeysConfig,
    /// Limits per address, key and user.
    pub limit: LimitConfig,
    /// Bounds on connections.
    pub server: ServerConfig,
    /// Options of sockets.
    pub socket: SocketConfig,
    /// Settings of tokens.
    pub tokens: TokenConfig,
    /// Whether `/metrics` is served.
    pub metrics: bool,
    /// Whether the page at `/` is served.
    pub page: bool,
    /// A warning for each setting that was given and no longer exists.
    pub gone: Vec<String>,
}

impl Config {
    /// Makes the configuration from these flags, the environment, and the file that the flags may name. `file_limit` is
    /// the number of files that the process may have open; the default bounds on streams and connections follow from
    /// it.
    ///
    /// # Errors
    /// If a setting cannot be read or is out of range: the text names the setting and what was expected.
    pub fn read(flags: Flags, file_limit: usize) -> Result<Config, String> {
        let (list, admin) = (secret("FANFARE_KEYS")?, secret("FANFARE_ADMIN_KEY")?);
        let file = match &flags.config {
            None => Settings::default(),
            Some(path) => {
                let wrong = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
                let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
                toml::from_str(&text).map_err(|error| match text.contains("secret") {
                    // The parser's message would show the wrong line, and with it a secret.
                    true => wrong(&unquoted(&error, &text)),
                    false => wrong(&error),
                })?
            }
        };
        let settings = flags.settings.or(file);
        let keys = KeySources { file: settings.keys_file.clone(), list, admin };
        Config::from(settings, flags.nivo, keys, file_limit)
    }

    fn from(mut settings: Settings, nivo: Nivo, keys: KeySources, file_limit: usize) -> Result<Config, String> {
        let gone = settings.gone();
        let tokens = tokens::tokens(&mut settings)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // The other half is for the kernel's network work, for requests, and for what else runs here: with a shard on
        // every core, publishers wait behind the fan-out (PERFORMANCE.md, "Shards").
        let shards = count("shards", settings.shards, (cores / 2).max(1), 1, 1024)?;
        let files = Files::share_out(file_limit, shards);
        if files.streams == 0 && settings.max_streams.is_none() {
            return Err(no_room(file_limit, shards));
        }
        let listen = settings.listen.map(|Address(address)| address).or(nivo.service_port.map(dual_stack));
        let production = nivo.environment.as_deref() == Some("production");
        let body_timeout = span("body-timeout", settings.body_timeout, Duration::from_secs(10))?;
        let peer_timeout = span("peer-timeout", settings.peer_timeout, Duration::from_secs(60))?;
        let history = LogConfig::default();
        let key_rate = rate("key-rate", settings.key_rate, 5000)?;
        let connections = count("connections-per-second", settings.connections_per_second, 500, 0, RATE_MAX)? as u64;
        Ok(Config {
            listen: listen.unwrap_or(([127, 0, 0, 1], 8000).into()),
            tls: TlsConfig::of(
                settings.tls_listen.map(|Address(address)| address),
                settings.tls_cert,
                settings.tls_key,
                settings.tls_self_signed.unwrap_or(false),
            )?,
            http_threads: cores.min(4),
            grace: span("grace", settings.grace, Duration::from_secs(10))?,
            logging: LoggingConfig {
                filter: settings.log.unwrap_or_else(|| "info".to_owned()),
                format: settings.log_format.unwrap_or(if production { LogFormat::Json } else { LogFormat::Text }),
            },
            history: LogConfig {
                max_events: count("history-events", settings.history_events, history.max_events, 1, usize::MAX)?,
                max_bytes: bytes("history-bytes", settings.history_bytes, history.max_bytes, 1 << 16, usize::MAX)?,
                max_age: span("history-age", settings.history_age, history.max_age)?,
                topic_events: count("topic-events", settings.topic_events, history.topic_events, 0, usize::MAX)?,
                live_events: count("live-events", settings.live_events, history.live_events, 1, 1 << 20)?,
                watched: watched(settings.metrics_topics)?,
            },
            fanout: FanoutConfig {
                shards,
                max_streams: count("max-streams", settings.max_streams, files.streams, 0, usize::MAX)?,
                heartbeat: span("heartbeat", settings.heartbeat, Duration::from_secs(30))?,
                heartbeat_style: settings.heartbeat_style.unwrap_or_default(),
                stall_timeout: span("stall-timeout", settings.stall_timeout, Duration::from_secs(60))?,
                retry: span("retry", settings.retry, Duration::from_secs(3))?,
            },
            publish: PublishConfig {
                max_body: bytes("max-body", settings.max_body, 1 << 20, 1, 1 << 30)?,
                max_batch: count("max-batch", settings.max_batch, 10_000, 1, 1_000_000)?,
                body_timeout,
            },
            subscribe: SubscribeConfig { max_topics: count("max-topics", settings.max_topics, 64, 1, 10_000)? },
            cors: Cors::new(&settings.cors_origins.map_or_else(Vec::new, |List(origins)| origins))
                .map_err(|why| format!("--cors-origins: {why}"))?,
            idempotency: IdempotencyConfig {
                window: span_or_none("idempotency-window", settings.idempotency_window, Duration::from_secs(10 * 60))?,
                max_keys: IDEMPOTENCY_KEYS,
            },
            proxies: ProxyConfig {
                trusted: settings.trusted_proxies.map_or_else(Box::default, |List(networks)| networks.into()),
                header: settings.proxy_header.unwrap_or_default(),
            },
            keys: KeysConfig::read(keys, key_rate).map_err(|Invalid(why)| why)?,
            limit: LimitConfig {
                publishes: rate("publish-rate", settings.publish_rate, 1000)?,
                connections: Rate::new(connections, 4 * connections),
                streams_per_address: at_most("streams-per-address", settings.streams_per_address, 4096)?,
                streams_per_user: at_most("streams-per-user", settings.streams_per_user, 64)?,
                loopback: settings.limit_loopback.unwrap_or(false),
            },
            server: ServerConfig {
                max_connections: count("max-connections", settings.max_connections, files.others, 1, 1 << 20)?,
                head_timeout: span("head-timeout", settings.head_timeout, Duration::from_secs(10))?,
                idle_timeout: span("idle-timeout", settings.idle_timeout, Duration::from_secs(75))?,
                exchange_timeout: body_timeout + Duration::from_secs(20),
                max_head: bytes("max-head", settings.max_head, 16 << 10, 1 << 10, 1 << 20)?,
                max_concurrent_streams: count("http2-streams", settings.http2_streams, 256, 1, 1 << 20)? as u32,
                ping_interval: peer_timeout / 2,
            },
            socket: SocketConfig {
                send_buffer: bytes("send-buffer", settings.send_buffer, 64 << 10, 0, 1 << 30)?,
                // The kernel counts it in milliseconds, in 31 bits.
                peer_timeout: peer_timeout.min(Duration::from_millis(i32::MAX as u64)),
            },
            tokens,
            metrics: settings.metrics.unwrap_or(true),
            page: settings.page.unwrap_or(true),
            gone,
        })
    }
}

/// The topics that are watched, without duplicates.
fn watched(topics: Option<List<TopicName>>) -> Result<Box<[Box<str>]>, String> {
    const MAX: usize = 100;
    let topics = topics.map_or_else(Vec::new, |List(topics)| topics).into_iter().map(|TopicName(name)| name);
    let topics: BTreeSet<_> = topics.collect();
    if topics.contains("other") {
        return Err("--metrics-topics names \"other\", which stands for all that it does not name".to_owned());
    }
    match topics.len() {
        0..=MAX => Ok(topics.into_iter().collect()),
        n => Err(format!("--metrics-topics names {n} topics; expected at most {MAX}")),
    }
}

/// The parser's error with its line number, without the text of the line.
fn unquoted(error: &toml::de::Error, text: &str) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    format!("line {}: {}", before.matches('\n').count() + 1, error.message())
}

/// If the limit on open files leaves room for fewer streams than this, the operator is warned.
const FEW_STREAMS: usize = 1000;

impl Config {
    /// A warning, if this limit on open files leaves room for fewer streams than were asked for or are likely to be
    /// needed.
    pub fn file_warning(&self, limit: usize) -> Option<String> {
        let (streams, connections) = (self.fanout.max_streams, self.server.max_connections);
        let files = Files::share_out(limit, self.fanout.shards);
        let wanted = streams.saturating_add(connections).saturating_add(files.own);
        if wanted > limit {
            return Some(format!(
                "{streams} streams and {connections} other connections (--max-streams, --max-connections) need \
                 {wanted} open files, and {limit} may be open: connections beyond that are not accepted; {}",
                how_to_raise(wanted)
            ));
        }
        // The number follows from the limit; no setting chose it.
        (streams == files.streams && (1..FEW_STREAMS).contains(&streams)).then(|| {
            let needed = Files::needed(FEW_STREAMS, self.fanout.shards);
            format!(
                "{limit} files may be open, which leaves room for {streams} streams; {FEW_STREAMS} streams need \
                 {needed}: {}",
                how_to_raise(needed)
            )
        })
    }
}

/// The reason for not starting: without room for a stream, the broker would refuse every client, and only the clients
/// would learn of it.
fn no_room(limit: usize, shards: usize) -> String {
    let (least, needed) = (Files::needed(1, shards), Files::needed(FEW_STREAMS, shards));
    format!(
        "{limit} files may be open, which leaves no room for streams; expected {least} at least, and {needed} for \
         {FEW_STREAMS} streams: {}, or say with --max-streams how many there may be",
        how_to_raise(needed)
    )
}

fn how_to_raise(limit: usize) -> String {
    format!(
        "raise the limit with `ulimit -n {limit}`, LimitNOFILE={limit} (systemd) or --ulimit nofile={limit} (Docker)"
    )
}

/// How the files that may be open are divided.
struct Files {
    own: usize,
    streams: usize,
    others: usize,
}

impl Files {
    /// The process itself needs some. A thirty-second part, at least 32 and at most 1,024, is for connections that are
    /// not streams, so that publishing goes on when the streams are full. The rest is for streams.
    fn share_out(limit: usize, shards: usize) -> Files {
        // A poll and a waker for each shard, and the files of the runtime and the logs.
        let own = 48 + 2 * shards;
        let others = (limit / 32).clamp(32, 1024);
        Files { own, streams: limit.saturating_sub(others + own), others }
    }

    /// The lowest limit that leaves room for so many streams.
    fn needed(streams: usize, shards: usize) -> usize {
        (streams..).find(|&limit| Files::share_out(limit, shards).streams >= streams).unwrap_or(usize::MAX)
    }
}

/// A secret from the environment; `None` if it is absent or empty. It has no flag and no key in the file.
pub(crate) fn secret(name: &str) -> Result<Option<String>, String> {
    match std::env::var(name) {
        Ok(secret) => Ok(Some(secret).filter(|secret| !secret.is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(format!("{name} cannot be read; expected UTF-8")),
    }
}
