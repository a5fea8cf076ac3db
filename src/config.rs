//! Settings: flags, environment, an optional TOML file, defaults, in that order of precedence, made into the typed
//! configuration of each part.

use std::env::VarError;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, ValueEnum};
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::Algorithm;
use serde::{Deserialize, Deserializer};

use crate::auth::keys::{KeySources, KeysConfig};
use crate::auth::token::{ClaimsConfig, JwksConfig, KeySource, Mode, Place, Secret, TokenConfig, Verifier};
use crate::clock::Now;
use crate::event::Invalid;
use crate::fanout::FanoutConfig;
use crate::frame::HeartbeatStyle;
use crate::http::client::{Network, ProxyConfig, ProxyHeader};
use crate::http::cors::{Cors, Origin};
use crate::http::idempotency::IdempotencyConfig;
use crate::http::publish::PublishConfig;
use crate::http::subscribe::SubscribeConfig;
use crate::limit::{LimitConfig, Rate};
use crate::log::LogConfig;
use crate::server::tls::TlsConfig;
use crate::server::{ServerConfig, SocketConfig, dual_stack};

/// A span of time, written as `30s`, `500ms`, `10m` or `1h 30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let span = text.parse::<SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
        span.map(Span).ok_or_else(|| format!("{text:?} is no span of time; expected one such as 500ms, 30s or 10m"))
    }
}

/// A number of bytes, written as `65536`, `64KiB` or `1MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub usize);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Bytes, String> {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit = match text[digits.len()..].trim() {
            "" | "B" => Some(1usize),
            "kB" | "KB" => Some(1000),
            "MB" => Some(1_000_000),
            "GB" => Some(1_000_000_000),
            "KiB" => Some(1 << 10),
            "MiB" => Some(1 << 20),
            "GiB" => Some(1 << 30),
            _ => None,
        };
        let bytes = digits.parse::<usize>().ok().zip(unit).and_then(|(n, unit)| n.checked_mul(unit));
        bytes.map(Bytes).ok_or_else(|| format!("{text:?} is no number of bytes; expected one such as 65536 or 64KiB"))
    }
}

/// An address with a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(pub SocketAddr);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        let wrong =
            |_| format!("{text:?} is no address; expected one with a port, such as 127.0.0.1:8000 or [::]:8000");
        text.parse().map(Address).map_err(wrong)
    }
}

/// A moment, written as RFC 3339 has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(pub Now);

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Moment, String> {
        let moment = text.parse::<Timestamp>().ok().and_then(|at| u64::try_from(at.as_millisecond()).ok());
        moment
            .map(|ms| Moment(Now::from_unix_ms(ms)))
            .ok_or_else(|| format!("{text:?} is no moment; expected one such as 2027-01-31T12:00:00Z"))
    }
}

/// Any number of things, separated by commas; in the file, an array of them too. An empty text is none of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl<T: FromStr<Err: fmt::Display>> FromStr for List<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<List<T>, String> {
        let parts = text.split(',').map(str::trim);
        List::of(parts.filter(|_| !text.trim().is_empty()))
    }
}

impl<T: FromStr<Err: fmt::Display>> List<T> {
    fn of<'a>(parts: impl Iterator<Item = &'a str>) -> Result<List<T>, String> {
        let read = |part: &str| match part.is_empty() {
            true => Err("one of the list is empty; expected items separated by commas".to_owned()),
            false => part.parse().map_err(|error: T::Err| error.to_string()),
        };
        parts.map(read).collect::<Result<_, _>>().map(List)
    }
}

fn whole_number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("{text:?} is no number; expected a whole number"))
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("{text:?} is no port; expected a number from 0 to 65535"))
}

/// In the file they are strings, and bytes may be a plain number too.
impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(usize),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(n) => Ok(Bytes(n)),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Moment, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<List<T>, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a string or an array of strings")]
        enum Written {
            Text(String),
            Array(Vec<String>),
        }
        let list = match Written::deserialize(deserializer)? {
            Written::Text(text) => text.parse(),
            Written::Array(parts) => List::of(parts.iter().map(String::as_str)),
        };
        list.map_err(serde::de::Error::custom)
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Fanfare, a broker for Server-Sent Events: services publish by HTTP POST, browsers listen.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
struct Flags {
    /// A TOML file with settings: the names of these flags, without the dashes in front.
    #[arg(long, env = "FANFARE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    nivo: Nivo,
}

/// Names that the Nivo platform's deployments set. They count less than Fanfare's own.
#[derive(Debug, Default, Args)]
struct Nivo {
    /// The port to listen on, on all addresses (as the Go gateway did), unless --listen says otherwise.
    #[arg(long, env = "SERVICE_PORT", value_name = "PORT", value_parser = port)]
    service_port: Option<u16>,
    /// The deployment's environment; in `production` the log is JSON unless --log-format says otherwise.
    #[arg(long, env = "ENVIRONMENT", value_name = "NAME")]
    environment: Option<String>,
}

/// Declares the settings once: the fields, and how two sources of them are laid over each other.
macro_rules! settings {
    ($($(#[$meta:meta])* $name:ident: $type:ty,)*) => {
        /// All settings; what is absent has its default.
        #[derive(Debug, Default, Args, Deserialize)]
        #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
        struct Settings {
            $($(#[$meta])* $name: Option<$type>,)*
        }

        impl Settings {
            fn or(self, other: Settings) -> Settings {
                Settings { $($name: self.$name.or(other.$name),)* }
            }
        }
    };
}

settings! {
    /// Address to listen on [default: 127.0.0.1:8000].
    #[arg(long, env = "FANFARE_LISTEN", value_name = "ADDRESS:PORT")]
    listen: Address,
    /// Address to speak TLS on, besides --listen [default: none].
    #[arg(long, env = "FANFARE_TLS_LISTEN", value_name = "ADDRESS:PORT")]
    tls_listen: Address,
    /// The certificate's chain in PEM, its own first; read again when it changes, and at SIGHUP [default: none].
    #[arg(long, env = "FANFARE_TLS_CERT", value_name = "FILE")]
    tls_cert: PathBuf,
    /// The certificate's key in PEM, unencrypted; read again with it [default: none].
    #[arg(long, env = "FANFARE_TLS_KEY", value_name = "FILE")]
    tls_key: PathBuf,
    /// Speak TLS with a certificate made at start, for localhost, valid 30 days: for development [default: false].
    #[arg(long, env = "FANFARE_TLS_SELF_SIGNED", value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true")]
    tls_self_signed: bool,
    /// Threads that write to streams [default: half as many as there are cores].
    #[arg(long, env = "FANFARE_SHARDS", value_name = "N", value_parser = whole_number)]
    shards: usize,
    /// Threads that read requests [default: one a core, at most 4].
    #[arg(long, env = "FANFARE_HTTP_THREADS", value_name = "N", value_parser = whole_number)]
    http_threads: usize,
    /// Streams at most; one more gets 503 [default: what the limit on open files leaves].
    #[arg(long, env = "FANFARE_MAX_STREAMS", value_name = "N", value_parser = whole_number)]
    max_streams: usize,
    /// Connections at most that are not streams; more wait [default: what the limit on open files leaves].
    #[arg(long, env = "FANFARE_MAX_CONNECTIONS", value_name = "N", value_parser = whole_number)]
    max_connections: usize,
    /// A stream that was sent nothing for this long is sent a heartbeat [default: 30s].
    #[arg(long, env = "FANFARE_HEARTBEAT", value_name = "SPAN")]
    heartbeat: Span,
    /// How heartbeats look: an event named `heartbeat`, or a comment [default: named].
    #[arg(long, env = "FANFARE_HEARTBEAT_STYLE", value_name = "STYLE")]
    heartbeat_style: HeartbeatStyle,
    /// How long clients are told to wait before they reconnect [default: 3s].
    #[arg(long, env = "FANFARE_RETRY", value_name = "SPAN")]
    retry: Span,
    /// A stream whose client takes nothing for this long is closed [default: 60s].
    #[arg(long, env = "FANFARE_STALL_TIMEOUT", value_name = "SPAN")]
    stall_timeout: Span,
    /// A connection whose peer acknowledges nothing for this long is closed (TCP_USER_TIMEOUT, HTTP/2 pings) [default: 60s].
    #[arg(long, env = "FANFARE_PEER_TIMEOUT", value_name = "SPAN")]
    peer_timeout: Span,
    /// The kernel's send buffer for a connection (SO_SNDBUF); 0 leaves it to the kernel [default: 64KiB].
    #[arg(long, env = "FANFARE_SEND_BUFFER", value_name = "BYTES")]
    send_buffer: Bytes,
    /// Events kept for replay, all topics together [default: 1000000].
    #[arg(long, env = "FANFARE_HISTORY_EVENTS", value_name = "N", value_parser = whole_number)]
    history_events: usize,
    /// Memory for kept events, all topics together [default: 64MiB].
    #[arg(long, env = "FANFARE_HISTORY_BYTES", value_name = "BYTES")]
    history_bytes: Bytes,
    /// How long an event is kept [default: 1h].
    #[arg(long, env = "FANFARE_HISTORY_AGE", value_name = "SPAN")]
    history_age: Span,
    /// Events kept of one topic [default: 10000].
    #[arg(long, env = "FANFARE_TOPIC_EVENTS", value_name = "N", value_parser = whole_number)]
    topic_events: usize,
    /// The newest events of all topics, kept past --topic-events for readers just behind [default: 1024].
    #[arg(long, env = "FANFARE_LIVE_EVENTS", value_name = "N", value_parser = whole_number)]
    live_events: usize,
    /// Topics that one stream may name [default: 64].
    #[arg(long, env = "FANFARE_MAX_TOPICS", value_name = "N", value_parser = whole_number)]
    max_topics: usize,
    /// A publish request's body [default: 1MiB].
    #[arg(long, env = "FANFARE_MAX_BODY", value_name = "BYTES")]
    max_body: Bytes,
    /// Events in one batch [default: 10000].
    #[arg(long, env = "FANFARE_MAX_BATCH", value_name = "N", value_parser = whole_number)]
    max_batch: usize,
    /// Requests and streams at a time on one HTTP/2 connection [default: 256].
    #[arg(long, env = "FANFARE_HTTP2_STREAMS", value_name = "N", value_parser = whole_number)]
    http2_streams: usize,
    /// Origins whose pages may read and publish, with credentials: scheme://host[:port], separated by commas; or * for
    /// all, which may read, without credentials [default: none, only pages of the broker's own origin].
    #[arg(long, env = "CORS_ORIGINS", value_name = "ORIGINS")]
    cors_origins: List<Origin>,
    /// How long a publish with an idempotency key is remembered, to answer its repeats; 0s remembers none
    /// [default: 10m].
    #[arg(long, env = "FANFARE_IDEMPOTENCY_WINDOW", value_name = "SPAN")]
    idempotency_window: Span,
    /// Publishes remembered at most, about 0.5kB each; the oldest make room for newer ones [default: 100000].
    #[arg(long, env = "FANFARE_IDEMPOTENCY_KEYS", value_name = "N", value_parser = whole_number)]
    idempotency_keys: usize,
    /// Proxies that are believed on the client's address: addresses and networks such as 10.0.0.0/8, separated by
    /// commas [default: none].
    #[arg(long, env = "FANFARE_TRUSTED_PROXIES", value_name = "NETWORKS")]
    trusted_proxies: List<Network>,
    /// The header in which they write it; the other one is not read [default: x-forwarded-for].
    #[arg(long, env = "FANFARE_PROXY_HEADER", value_name = "HEADER")]
    proxy_header: ProxyHeader,
    /// A request's head [default: 16KiB].
    #[arg(long, env = "FANFARE_MAX_HEAD", value_name = "BYTES")]
    max_head: Bytes,
    /// How long a request's head may take to arrive [default: 10s].
    #[arg(long, env = "FANFARE_HEAD_TIMEOUT", value_name = "SPAN")]
    head_timeout: Span,
    /// How long a publish request's body may take to arrive [default: 10s].
    #[arg(long, env = "FANFARE_BODY_TIMEOUT", value_name = "SPAN")]
    body_timeout: Span,
    /// How long a connection may rest between two requests [default: 75s].
    #[arg(long, env = "FANFARE_IDLE_TIMEOUT", value_name = "SPAN")]
    idle_timeout: Span,
    /// A TOML file of API keys, read anew when it changes. Others may come in FANFARE_KEYS (name:key,name:key) and
    /// FANFARE_ADMIN_KEY, which have no flags, since flags can be seen by everybody on the host [default: none].
    #[arg(long, env = "FANFARE_KEYS_FILE", value_name = "FILE")]
    keys_file: PathBuf,
    /// Publish requests a second with one key, unless its entry says otherwise; 0 for no limit [default: 5000].
    #[arg(long, env = "FANFARE_KEY_RATE", value_name = "N", value_parser = whole_number)]
    key_rate: usize,
    /// Publish requests at once with one key [default: twice --key-rate].
    #[arg(long, env = "FANFARE_KEY_BURST", value_name = "N", value_parser = whole_number)]
    key_burst: usize,
    /// Publish requests a second of one address (an IPv6 one counts by its /64 network) without a key; 0 for no limit
    /// [default: 1000].
    #[arg(long, env = "FANFARE_PUBLISH_RATE", value_name = "N", value_parser = whole_number)]
    publish_rate: usize,
    /// Publish requests at once of one address [default: twice --publish-rate].
    #[arg(long, env = "FANFARE_PUBLISH_BURST", value_name = "N", value_parser = whole_number)]
    publish_burst: usize,
    /// Streams of one address at a time; 0 for no limit [default: 4096].
    #[arg(long, env = "FANFARE_STREAMS_PER_ADDRESS", value_name = "N", value_parser = whole_number)]
    streams_per_address: usize,
    /// Streams of one user, as the token names them, at a time; 0 for no limit [default: 64].
    #[arg(long, env = "FANFARE_STREAMS_PER_USER", value_name = "N", value_parser = whole_number)]
    streams_per_user: usize,
    /// New connections a second of one address, after a rest four times as many at once; 0 for no limit [default: 500].
    #[arg(long, env = "FANFARE_CONNECTIONS_PER_SECOND", value_name = "N", value_parser = whole_number)]
    connections_per_second: usize,
    /// Whether the limits on addresses hold for loopback ones too: off, what runs on this host, such as a proxy or a
    /// service, is not limited by address. Limits on keys and users always hold [default: false].
    #[arg(long, env = "FANFARE_LIMIT_LOOPBACK", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    limit_loopback: bool,
    /// How long ending all streams may take after SIGTERM or SIGINT [default: 10s].
    #[arg(long, env = "FANFARE_GRACE", value_name = "SPAN")]
    grace: Span,
    /// What is logged: error, warn, info, debug, trace, or a filter by module [default: info].
    #[arg(long, env = "FANFARE_LOG", value_name = "LEVEL")]
    log: String,
    /// How log lines look [default: text].
    #[arg(long, env = "FANFARE_LOG_FORMAT", value_name = "FORMAT")]
    log_format: LogFormat,
    /// Who needs a token: nobody (they are not looked at), nobody but a token that is there must be good, or everybody
    /// [default: required where there is a key to verify them with, else off].
    #[arg(long, env = "FANFARE_AUTH", value_name = "MODE")]
    auth: Mode,
    /// The secret that tokens are signed with. As a flag it is seen by all who can list this machine's processes:
    /// better is the variable [default: none].
    #[arg(long, env = "JWT_SECRET", hide_env_values = true, value_name = "SECRET")]
    jwt_secret: Secret,
    /// The secret before that one, for tokens that are still signed with it (see --jwt-previous-until) [default: none].
    #[arg(long, env = "FANFARE_JWT_PREVIOUS_SECRET", hide_env_values = true, value_name = "SECRET")]
    jwt_previous_secret: Secret,
    /// When the previous secret ends to count, as RFC 3339 [default: none].
    #[arg(long, env = "FANFARE_JWT_PREVIOUS_UNTIL", value_name = "TIME")]
    jwt_previous_until: Moment,
    /// A file with the public key that tokens are verified with, in PEM [default: none].
    #[arg(long, env = "FANFARE_JWT_KEY", value_name = "FILE")]
    jwt_key: PathBuf,
    /// The issuer's JSON Web Key Set: a file, or a URL of https (or http, within a network that can be trusted)
    /// [default: none].
    #[arg(long, env = "FANFARE_JWKS", value_name = "FILE|URL")]
    jwks: String,
    /// How often the key set is read; one more time when a token names an unknown key, but at most every 10s
    /// [default: 5m].
    #[arg(long, env = "FANFARE_JWKS_REFRESH", value_name = "SPAN")]
    jwks_refresh: Span,
    /// What tokens may be signed with, of HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384
    /// and EdDSA, separated by commas [default: HS256 with a secret, RS256 with a key set, what the key is for with a
    /// key file].
    #[arg(long, env = "FANFARE_JWT_ALGORITHMS", value_name = "LIST")]
    jwt_algorithms: List<String>,
    /// Who tokens must be for, one of these (claim `aud`), separated by commas [default: none; a token that is for
    /// somebody is refused].
    #[arg(long, env = "FANFARE_JWT_AUDIENCE", value_name = "LIST")]
    jwt_audience: List<String>,
    /// Who tokens must come from, one of these (claim `iss`), separated by commas [default: anybody].
    #[arg(long, env = "FANFARE_JWT_ISSUER", value_name = "LIST")]
    jwt_issuer: List<String>,
    /// How far the issuer's clock may be from this machine's; tokens last that much longer, at most 1h [default: 60s].
    #[arg(long, env = "FANFARE_JWT_LEEWAY", value_name = "SPAN")]
    jwt_leeway: Span,
    /// Roles (claim `roles`) that see the events of all users, separated by commas [default: admin].
    #[arg(long, env = "FANFARE_ALL_SEEING_ROLES", value_name = "LIST")]
    all_seeing_roles: List<String>,
    /// A cookie that a token may come in, since EventSource sends no headers of one's own [default: none].
    #[arg(long, env = "FANFARE_AUTH_COOKIE", value_name = "NAME")]
    auth_cookie: String,
}

/// The whole configuration: the sum of the parts' own.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where TLS is spoken, if anywhere, and as whom.
    pub tls: Option<TlsConfig>,
    /// Threads that read requests.
    pub http_threads: usize,
    /// How long ending all streams may take.
    pub grace: Duration,
    /// What is logged, as a filter.
    pub log_filter: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// What is kept.
    pub log: LogConfig,
    /// How streams are treated.
    pub fanout: FanoutConfig,
    /// Bounds on publishing.
    pub publish: PublishConfig,
    /// Bounds on listening.
    pub subscribe: SubscribeConfig,
    /// Which pages are let in.
    pub cors: Cors,
    /// Bounds on what is remembered of publishes.
    pub idempotency: IdempotencyConfig,
    /// Which proxies are believed.
    pub proxies: ProxyConfig,
    /// The API keys there are.
    pub keys: KeysConfig,
    /// What one address, key or user may have.
    pub limit: LimitConfig,
    /// Bounds on connections.
    pub server: ServerConfig,
    /// Options of sockets.
    pub socket: SocketConfig,
    /// How tokens are treated.
    pub tokens: TokenConfig,
}

/// Why there is no configuration.
#[derive(Debug)]
pub enum Stop {
    /// Help or the version was asked for, and is this text.
    Asked(clap::Error),
    /// Something is wrong with the settings.
    Wrong(String),
}

impl Config {
    /// Reads the process's flags and environment, and the file that they may name. `file_limit` is how many files
    /// the process may have open: the bounds on streams and connections follow from it.
    ///
    /// # Errors
    /// Where something cannot be read: names it, and what was expected.
    pub fn read<I: IntoIterator<Item = std::ffi::OsString>>(args: I, file_limit: usize) -> Result<Config, Stop> {
        let flags = Flags::try_parse_from(args).map_err(|error| match error.use_stderr() {
            true => Stop::Wrong(error.render().to_string()),
            false => Stop::Asked(error),
        })?;
        let (list, admin) = (secret("FANFARE_KEYS")?, secret("FANFARE_ADMIN_KEY")?);
        let file = match &flags.config {
            None => Settings::default(),
            Some(path) => {
                let wrong = |error: &dyn fmt::Display| Stop::Wrong(format!("{}: {error}", path.display()));
                let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
                toml::from_str(&text).map_err(|error| match text.contains("secret") {
                    // It would show the line that is wrong.
                    true => wrong(&unquoted(&error, &text)),
                    false => wrong(&error),
                })?
            }
        };
        let settings = flags.settings.or(file);
        let keys = KeySources { file: settings.keys_file.clone(), list, admin };
        Config::from(settings, flags.nivo, keys, file_limit).map_err(Stop::Wrong)
    }

    fn from(mut settings: Settings, nivo: Nivo, keys: KeySources, file_limit: usize) -> Result<Config, String> {
        let tokens = tokens(&mut settings)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // The other half is for the kernel's network work, for requests, and for what else runs here: with a shard on
        // every core, publishers wait behind the fan-out (PERFORMANCE.md, "Shards").
        let shards = count("shards", settings.shards, (cores / 2).max(1), 1, 1024)?;
        let files = Files::share_out(file_limit, shards);
        let listen = settings.listen.map(|Address(address)| address).or(nivo.service_port.map(dual_stack));
        let production = nivo.environment.as_deref() == Some("production");
        let body_timeout = span("body-timeout", settings.body_timeout, Duration::from_secs(10))?;
        let peer_timeout = span("peer-timeout", settings.peer_timeout, Duration::from_secs(60))?;
        let log = LogConfig::default();
        let key_rate = rate("key", settings.key_rate, settings.key_burst, 5000)?;
        let connections = count("connections-per-second", settings.connections_per_second, 500, 0, RATE_MAX)? as u64;
        Ok(Config {
            listen: listen.unwrap_or(([127, 0, 0, 1], 8000).into()),
            tls: TlsConfig::of(
                settings.tls_listen.map(|Address(address)| address),
                settings.tls_cert,
                settings.tls_key,
                settings.tls_self_signed.unwrap_or(false),
            )?,
            http_threads: count("http-threads", settings.http_threads, cores.min(4), 1, 1024)?,
            grace: span("grace", settings.grace, Duration::from_secs(10))?,
            log_filter: settings.log.unwrap_or_else(|| "info".to_owned()),
            log_format: settings.log_format.unwrap_or(if production { LogFormat::Json } else { LogFormat::Text }),
            log: LogConfig {
                max_events: count("history-events", settings.history_events, log.max_events, 1, usize::MAX)?,
                max_bytes: bytes("history-bytes", settings.history_bytes, log.max_bytes, 1 << 16, usize::MAX)?,
                max_age: span("history-age", settings.history_age, log.max_age)?,
                topic_events: count("topic-events", settings.topic_events, log.topic_events, 0, usize::MAX)?,
                live_events: count("live-events", settings.live_events, log.live_events, 1, 1 << 20)?,
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
                max_keys: count("idempotency-keys", settings.idempotency_keys, 100_000, 1, 100_000_000)?,
            },
            proxies: ProxyConfig {
                trusted: settings.trusted_proxies.map_or_else(Box::default, |List(networks)| networks.into()),
                header: settings.proxy_header.unwrap_or_default(),
            },
            keys: KeysConfig::read(keys, key_rate).map_err(|Invalid(why)| why)?,
            limit: LimitConfig {
                publishes: rate("publish", settings.publish_rate, settings.publish_burst, 1000)?,
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
        })
    }
}

/// How long a key set is not read again, whatever tokens say.
const JWKS_REST: Duration = Duration::from_secs(10);

/// Takes what concerns tokens out of the settings, and tries it: a key that nothing can be verified with is a wrong
/// setting.
fn tokens(settings: &mut Settings) -> Result<TokenConfig, String> {
    let keys = key_source(settings)?;
    let mode = match (settings.auth, &keys) {
        (Some(mode @ (Mode::Optional | Mode::Required)), None) => {
            return Err(format!(
                "--auth is {mode:?} without a key; expected --jwt-secret, --jwt-key or --jwks with it"
            ));
        }
        (Some(mode), _) => mode,
        (None, Some(_)) => Mode::Required,
        (None, None) => Mode::Off,
    };
    let list = |name: &str, given: Option<List<String>>| match given.map(|List(items)| items) {
        Some(items) if items.is_empty() => Err(format!("--{name} is empty; expected one or more, separated by commas")),
        given => Ok(given),
    };
    let leeway = settings.jwt_leeway.map_or(Duration::from_secs(60), |Span(span)| span);
    if leeway > Duration::from_secs(3600) {
        return Err(format!("--jwt-leeway is {leeway:?}; expected a span up to 1h"));
    }
    let cookie = settings.auth_cookie.take();
    if let Some(name) = cookie.as_deref().filter(|name| !is_token(name)) {
        return Err(format!("--auth-cookie is {name:?}; expected a cookie's name (RFC 6265), such as session"));
    }
    let tokens = TokenConfig {
        mode,
        keys,
        claims: ClaimsConfig {
            audience: list("jwt-audience", settings.jwt_audience.take())?.unwrap_or_default(),
            issuer: list("jwt-issuer", settings.jwt_issuer.take())?.unwrap_or_default(),
            leeway,
            all_seeing_roles: list("all-seeing-roles", settings.all_seeing_roles.take())?
                .unwrap_or_else(|| vec!["admin".to_owned()]),
        },
        cookie,
    };
    if tokens.mode != Mode::Off || tokens.keys.is_some() {
        Verifier::new(&tokens)?;
    }
    Ok(tokens)
}

fn key_source(settings: &mut Settings) -> Result<Option<KeySource>, String> {
    let algorithms = match settings.jwt_algorithms.take() {
        None => Vec::new(),
        Some(List(names)) => names.iter().map(|name| algorithm(name)).collect::<Result<_, _>>()?,
    };
    let previous = match (settings.jwt_previous_secret.take(), settings.jwt_previous_until) {
        (Some(secret), Some(Moment(until))) => Some((secret, until)),
        (None, None) => None,
        (Some(_), None) => {
            return Err("--jwt-previous-secret has no end; expected --jwt-previous-until with it".to_owned());
        }
        (None, Some(_)) => {
            return Err("--jwt-previous-until is alone; expected --jwt-previous-secret with it".to_owned());
        }
    };
    let refresh = span("jwks-refresh", settings.jwks_refresh, Duration::from_secs(300))?;
    match (settings.jwt_secret.take(), settings.jwt_key.take(), settings.jwks.take()) {
        (Some(current), None, None) => Ok(Some(KeySource::Secret { current, previous, algorithms })),
        (None, ..) if previous.is_some() => {
            Err("--jwt-previous-secret is alone; expected --jwt-secret with it".to_owned())
        }
        (None, Some(file), None) => Ok(Some(KeySource::Pem { file, algorithms })),
        (None, None, Some(place)) => Ok(Some(KeySource::Jwks(JwksConfig {
            place: Place::from(&*place),
            algorithms: if algorithms.is_empty() { vec![Algorithm::RS256] } else { algorithms },
            refresh,
            rest: JWKS_REST,
        }))),
        (None, None, None) => Ok(None),
        _ => Err("more than one of --jwt-secret (or JWT_SECRET), --jwt-key and --jwks; expected one".to_owned()),
    }
}

fn algorithm(name: &str) -> Result<Algorithm, String> {
    let wrong =
        |_| format!("--jwt-algorithms has {name:?}; expected HS256, RS256, ES256, EdDSA or another that --help names");
    name.parse().map_err(wrong)
}

/// Whether this is a token of RFC 9110, section 5.6.2, as a cookie's name is one.
fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// What is wrong with the file and where, without showing it.
fn unquoted(error: &toml::de::Error, text: &str) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    format!("line {}: {}", before.matches('\n').count() + 1, error.message())
}

/// How the files that may be open are shared out.
struct Files {
    streams: usize,
    others: usize,
}

impl Files {
    /// Some for the process itself, a thirty-second part (but 32 at least, 1,024 at most) for connections that are
    /// not streams, the rest for streams: so publishing goes on when no stream is let in any more.
    fn share_out(limit: usize, shards: usize) -> Files {
        // A poll and a waker for each shard, and what the runtime and the logs need.
        let own = 48 + 2 * shards;
        let others = (limit / 32).clamp(32, 1024);
        Files { streams: limit.saturating_sub(others + own), others }
    }
}

fn count(name: &str, given: Option<usize>, default: usize, least: usize, most: usize) -> Result<usize, String> {
    let n = given.unwrap_or(default);
    match (least..=most).contains(&n) {
        true => Ok(n),
        false => Err(format!("--{name} is {n}; expected a number from {least} to {most}")),
    }
}

fn bytes(name: &str, given: Option<Bytes>, default: usize, least: usize, most: usize) -> Result<usize, String> {
    count(name, given.map(|Bytes(n)| n), default, least, most)
}

const RATE_MAX: usize = Rate::MAX as usize;

/// The rate of `--{name}-rate` and `--{name}-burst`; `None` where it is 0, which is no limit.
fn rate(name: &str, per_second: Option<usize>, burst: Option<usize>, default: usize) -> Result<Option<Rate>, String> {
    let per_second = count(&format!("{name}-rate"), per_second, default, 0, RATE_MAX)? as u64;
    let usual = (Rate::usual_burst(per_second) as usize).max(1);
    let burst = count(&format!("{name}-burst"), burst, usual, 1, Rate::MAX_BURST as usize)? as u64;
    Ok(Rate::new(per_second, burst))
}

/// A limit; `None` where it is 0, which is no limit.
fn at_most(name: &str, given: Option<usize>, default: usize) -> Result<Option<usize>, String> {
    Ok(Some(count(name, given, default, 0, usize::MAX)?).filter(|&n| n > 0))
}

/// A secret, which has a name in the environment only, and none where it is empty.
fn secret(name: &str) -> Result<Option<String>, Stop> {
    match std::env::var(name) {
        Ok(secret) => Ok(Some(secret).filter(|secret| !secret.is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(Stop::Wrong(format!("{name} cannot be read; expected UTF-8"))),
    }
}

/// Spans are from 10 ms, the finest that timers here are good for, to a year.
fn span(name: &str, given: Option<Span>, default: Duration) -> Result<Duration, String> {
    let span = given.map_or(default, |Span(span)| span);
    match (Duration::from_millis(10)..=Duration::from_secs(365 * 24 * 3600)).contains(&span) {
        true => Ok(span),
        false => Err(format!("--{name} is {span:?}; expected a span from 10ms to 365 days")),
    }
}

/// The same for what zero switches off.
fn span_or_none(name: &str, given: Option<Span>, default: Duration) -> Result<Duration, String> {
    match given {
        Some(Span(Duration::ZERO)) => Ok(Duration::ZERO),
        given => span(name, given, default).map_err(|why| format!("{why}, or 0s")),
    }
}
