//! All settings: for each its flag, its variable, its key in the file, and its text in `--help`.

use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;

use super::values::{Address, Bytes, Gone, List, LogFormat, Moment, Span, TopicName, port, whole_number};
use crate::auth::token::{Mode, Secret};
use crate::frame::HeartbeatStyle;
use crate::http::cors::Origin;
use crate::http::forwarded::{Network, ProxyHeader};

/// The settings of `fanfare serve`, from flags and variables.
#[derive(Debug, Default, Args)]
pub struct Flags {
    /// A TOML file with settings. Its keys are the names of these flags, without the leading dashes.
    #[arg(long, env = "FANFARE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) settings: Settings,
    #[command(flatten)]
    pub(super) nivo: Nivo,
}

/// Names that the Nivo platform's deployments set. Fanfare's own names take precedence.
#[derive(Debug, Default, Args)]
pub(super) struct Nivo {
    /// The port to listen on, on all addresses, unless --listen is given.
    #[arg(long, env = "SERVICE_PORT", value_name = "PORT", value_parser = port)]
    pub(super) service_port: Option<u16>,
    /// The deployment's environment. In `production`, log lines are JSON unless --log-format is given.
    #[arg(long, env = "ENVIRONMENT", value_name = "NAME")]
    pub(super) environment: Option<String>,
}

/// Declares each setting once, as a field of `Settings`, and merges two sources of settings.
macro_rules! settings {
    ($([$heading:literal] $($(#[$meta:meta])* $name:ident: $type:ty,)*)*) => {
        /// All settings. An absent setting has its default.
        #[derive(Debug, Default, Args, Deserialize)]
        #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
        pub(super) struct Settings {
            $($($(#[$meta])* #[arg(help_heading = $heading)] pub(super) $name: Option<$type>,)*)*
        }

        impl Settings {
            pub(super) fn or(self, other: Settings) -> Settings {
                Settings { $($($name: self.$name.or(other.$name),)*)* }
            }
        }
    };
}

settings! {
    ["Addresses and TLS"]

    /// The address to listen on [default: 127.0.0.1:8000].
    #[arg(long, env = "FANFARE_LISTEN", value_name = "ADDRESS:PORT")]
    listen: Address,
    /// The address to listen on for TLS, in addition to --listen [default: none; 127.0.0.1:8443 with
    /// --tls-self-signed].
    #[arg(long, env = "FANFARE_TLS_LISTEN", value_name = "ADDRESS:PORT")]
    tls_listen: Address,
    /// The certificate chain in PEM, beginning with the broker's own certificate. The broker reads it again when it
    /// changes and at SIGHUP [default: none].
    #[arg(long, env = "FANFARE_TLS_CERT", value_name = "FILE")]
    tls_cert: PathBuf,
    /// The certificate's private key in PEM, unencrypted. The broker reads it again with the certificate [default:
    /// none].
    #[arg(long, env = "FANFARE_TLS_KEY", value_name = "FILE")]
    tls_key: PathBuf,
    /// Use a certificate for localhost that the broker makes at start, valid for 30 days. This is for development
    /// [default: false].
    #[arg(long, env = "FANFARE_TLS_SELF_SIGNED", value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true")]
    tls_self_signed: bool,

    ["Streams"]

    /// The most streams at a time. Further ones get 503 [default: as many as the limit on open files allows].
    #[arg(long, env = "FANFARE_MAX_STREAMS", value_name = "N", value_parser = whole_number)]
    max_streams: usize,
    /// The most topics, and the most types, that one stream may name [default: 64].
    #[arg(long, env = "FANFARE_MAX_TOPICS", value_name = "N", value_parser = whole_number)]
    max_topics: usize,
    /// How long a stream may be silent before the broker sends it a heartbeat [default: 30s].
    #[arg(long, env = "FANFARE_HEARTBEAT", value_name = "SPAN")]
    heartbeat: Span,
    /// The form of a heartbeat: an event named `heartbeat`, or a comment [default: named].
    #[arg(long, env = "FANFARE_HEARTBEAT_STYLE", value_name = "STYLE")]
    heartbeat_style: HeartbeatStyle,
    /// How long clients wait before they reconnect, as the field `retry` tells them [default: 3s].
    #[arg(long, env = "FANFARE_RETRY", value_name = "SPAN")]
    retry: Span,
    /// How long a client may read nothing before its stream is closed [default: 60s].
    #[arg(long, env = "FANFARE_STALL_TIMEOUT", value_name = "SPAN")]
    stall_timeout: Span,

    ["History"]

    /// The most events kept for replay, of all topics together [default: 1000000].
    #[arg(long, env = "FANFARE_HISTORY_EVENTS", value_name = "N", value_parser = whole_number)]
    history_events: usize,
    /// The most memory for kept events, of all topics together [default: 64MiB].
    #[arg(long, env = "FANFARE_HISTORY_BYTES", value_name = "BYTES")]
    history_bytes: Bytes,
    /// How long an event is kept [default: 1h].
    #[arg(long, env = "FANFARE_HISTORY_AGE", value_name = "SPAN")]
    history_age: Span,
    /// The most events kept of one topic [default: 10000].
    #[arg(long, env = "FANFARE_TOPIC_EVENTS", value_name = "N", value_parser = whole_number)]
    topic_events: usize,
    /// How many of the newest events of all topics are kept past --topic-events, for streams that are slightly behind
    /// [default: 1024].
    #[arg(long, env = "FANFARE_LIVE_EVENTS", value_name = "N", value_parser = whole_number)]
    live_events: usize,

    ["Publishing"]

    /// The largest body of a publish request [default: 1MiB].
    #[arg(long, env = "FANFARE_MAX_BODY", value_name = "BYTES")]
    max_body: Bytes,
    /// The most events in one batch [default: 10000].
    #[arg(long, env = "FANFARE_MAX_BATCH", value_name = "N", value_parser = whole_number)]
    max_batch: usize,
    /// How long a publish request's body may take to arrive [default: 10s].
    #[arg(long, env = "FANFARE_BODY_TIMEOUT", value_name = "SPAN")]
    body_timeout: Span,
    /// How long the broker remembers an idempotency key and answers a repeated request from memory; 0s switches this
    /// off [default: 10m].
    #[arg(long, env = "FANFARE_IDEMPOTENCY_WINDOW", value_name = "SPAN")]
    idempotency_window: Span,

    ["Keys and limits"]

    /// A TOML file of API keys. The broker reads it again when it changes. FANFARE_KEYS (name:key,name:key) and
    /// FANFARE_ADMIN_KEY add further keys; they have no flags, because every user of the host can see flags [default:
    /// none].
    #[arg(long, env = "FANFARE_KEYS_FILE", value_name = "FILE")]
    keys_file: PathBuf,
    /// Publish requests per second with one key, and twice as many at once, unless the key's entry sets its own rate; 0
    /// for no limit [default: 5000].
    #[arg(long, env = "FANFARE_KEY_RATE", value_name = "N", value_parser = whole_number)]
    key_rate: usize,
    /// Publish requests per second from one address without a key, and twice as many at once; 0 for no limit. IPv6
    /// addresses count by their /64 network [default: 1000].
    #[arg(long, env = "FANFARE_PUBLISH_RATE", value_name = "N", value_parser = whole_number)]
    publish_rate: usize,
    /// The most streams of one address at a time; 0 for no limit [default: 4096].
    #[arg(long, env = "FANFARE_STREAMS_PER_ADDRESS", value_name = "N", value_parser = whole_number)]
    streams_per_address: usize,
    /// The most streams of one user, as named by the token, at a time; 0 for no limit [default: 64].
    #[arg(long, env = "FANFARE_STREAMS_PER_USER", value_name = "N", value_parser = whole_number)]
    streams_per_user: usize,
    /// New connections per second from one address, and four times as many at once; 0 for no limit [default: 500].
    #[arg(long, env = "FANFARE_CONNECTIONS_PER_SECOND", value_name = "N", value_parser = whole_number)]
    connections_per_second: usize,
    /// Apply the limits per address to loopback addresses too, and so to a proxy or a service on this host. The limits
    /// per key and per user always apply [default: false].
    #[arg(long, env = "FANFARE_LIMIT_LOOPBACK", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    limit_loopback: bool,

    ["Tokens"]

    /// Whether requests need a token. `off` ignores tokens; `optional` refuses invalid ones; `required` also refuses
    /// requests without one [default: required if there is a key to verify tokens with, else off].
    #[arg(long, env = "FANFARE_AUTH", value_name = "MODE")]
    auth: Mode,
    /// The secret that tokens are signed with. Prefer the variable: every user of the host can see flags [default:
    /// none].
    #[arg(long, env = "JWT_SECRET", hide_env_values = true, value_name = "SECRET")]
    jwt_secret: Secret,
    /// The previous secret, for tokens that are still signed with it (see --jwt-previous-until) [default: none].
    #[arg(long, env = "FANFARE_JWT_PREVIOUS_SECRET", hide_env_values = true, value_name = "SECRET")]
    jwt_previous_secret: Secret,
    /// When the previous secret stops being accepted, in RFC 3339 [default: none].
    #[arg(long, env = "FANFARE_JWT_PREVIOUS_UNTIL", value_name = "TIME")]
    jwt_previous_until: Moment,
    /// A file with the public key, in PEM, that tokens are verified with [default: none].
    #[arg(long, env = "FANFARE_JWT_KEY", value_name = "FILE")]
    jwt_key: PathBuf,
    /// The issuer's JSON Web Key Set: a file or an https URL, or an http URL within a trusted network [default: none].
    #[arg(long, env = "FANFARE_JWKS", value_name = "FILE|URL")]
    jwks: String,
    /// How often the broker reads the key set. It also reads the set when a token names an unknown key, but at most
    /// every 10s [default: 5m].
    #[arg(long, env = "FANFARE_JWKS_REFRESH", value_name = "SPAN")]
    jwks_refresh: Span,
    /// A file that stores the key set of a --jwks URL. The broker verifies tokens with it if the URL does not answer at
    /// start [default: none].
    #[arg(long, env = "FANFARE_JWKS_CACHE", value_name = "FILE")]
    jwks_cache: PathBuf,
    /// The accepted signature algorithms, separated by commas: HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384,
    /// PS512, ES256, ES384, EdDSA [default: HS256 with a secret, RS256 with a key set, the usual one of the key with a
    /// key file].
    #[arg(long, env = "FANFARE_JWT_ALGORITHMS", value_name = "LIST")]
    jwt_algorithms: List<String>,
    /// The accepted audiences (claim `aud`), separated by commas [default: none, so tokens that name an audience are
    /// refused].
    #[arg(long, env = "FANFARE_JWT_AUDIENCE", value_name = "LIST")]
    jwt_audience: List<String>,
    /// The accepted issuers (claim `iss`), separated by commas [default: any].
    #[arg(long, env = "FANFARE_JWT_ISSUER", value_name = "LIST")]
    jwt_issuer: List<String>,
    /// How much the issuer's clock may differ from this host's, at most 1h. Tokens are valid for that much longer
    /// [default: 60s].
    #[arg(long, env = "FANFARE_JWT_LEEWAY", value_name = "SPAN")]
    jwt_leeway: Span,
    /// The roles (claim `roles`) that see the events of all users, separated by commas [default: admin].
    #[arg(long, env = "FANFARE_ALL_SEEING_ROLES", value_name = "LIST")]
    all_seeing_roles: List<String>,
    /// The name of a cookie that may carry the token, because EventSource cannot send an Authorization header [default:
    /// none].
    #[arg(long, env = "FANFARE_AUTH_COOKIE", value_name = "NAME")]
    auth_cookie: String,

    ["Pages and proxies"]

    /// The origins whose pages may read and publish, with credentials: scheme://host[:port], separated by commas. With
    /// *, pages of every origin may read, without credentials [default: none, only pages of the broker's own origin].
    #[arg(long, env = "CORS_ORIGINS", value_name = "ORIGINS")]
    cors_origins: List<Origin>,
    /// The proxies that are trusted to state the client's address: addresses and networks such as 10.0.0.0/8, separated
    /// by commas [default: none].
    #[arg(long, env = "FANFARE_TRUSTED_PROXIES", value_name = "NETWORKS")]
    trusted_proxies: List<Network>,
    /// The header in which trusted proxies state the client's address. Other headers are ignored [default:
    /// x-forwarded-for].
    #[arg(long, env = "FANFARE_PROXY_HEADER", value_name = "HEADER")]
    proxy_header: ProxyHeader,

    ["Connections"]

    /// The most connections at a time that are not streams. Further ones wait [default: as many as the limit on open
    /// files allows].
    #[arg(long, env = "FANFARE_MAX_CONNECTIONS", value_name = "N", value_parser = whole_number)]
    max_connections: usize,
    /// The largest head of a request [default: 16KiB].
    #[arg(long, env = "FANFARE_MAX_HEAD", value_name = "BYTES")]
    max_head: Bytes,
    /// How long a request's head may take to arrive [default: 10s].
    #[arg(long, env = "FANFARE_HEAD_TIMEOUT", value_name = "SPAN")]
    head_timeout: Span,
    /// How long a connection may be idle between two requests [default: 75s].
    #[arg(long, env = "FANFARE_IDLE_TIMEOUT", value_name = "SPAN")]
    idle_timeout: Span,
    /// How long a peer may acknowledge nothing before its connection is closed (TCP_USER_TIMEOUT, HTTP/2 pings)
    /// [default: 60s].
    #[arg(long, env = "FANFARE_PEER_TIMEOUT", value_name = "SPAN")]
    peer_timeout: Span,
    /// The size of a connection's send buffer in the kernel (SO_SNDBUF); with 0, the kernel chooses it [default:
    /// 64KiB].
    #[arg(long, env = "FANFARE_SEND_BUFFER", value_name = "BYTES")]
    send_buffer: Bytes,
    /// The most requests and streams at a time on one HTTP/2 connection [default: 256].
    #[arg(long, env = "FANFARE_HTTP2_STREAMS", value_name = "N", value_parser = whole_number)]
    http2_streams: usize,

    ["Operation"]

    /// Serve the page at / [default: true].
    #[arg(long, env = "FANFARE_PAGE", value_name = "BOOL")]
    page: bool,
    /// Serve /metrics [default: true].
    #[arg(long, env = "FANFARE_METRICS", value_name = "BOOL")]
    metrics: bool,
    /// The topics with metrics of their own in /metrics, at most 100, separated by commas. All other topics are counted
    /// as `other` [default: none].
    #[arg(long, env = "FANFARE_METRICS_TOPICS", value_name = "TOPICS")]
    metrics_topics: List<TopicName>,
    /// The number of threads that write to streams [default: half the number of cores].
    #[arg(long, env = "FANFARE_SHARDS", value_name = "N", value_parser = whole_number)]
    shards: usize,
    /// How long the broker may take to end all streams after SIGTERM or SIGINT [default: 10s].
    #[arg(long, env = "FANFARE_GRACE", value_name = "SPAN")]
    grace: Span,
    /// The level of log lines: error, warn, info, debug, trace, or a filter by module [default: info].
    #[arg(long, env = "FANFARE_LOG", value_name = "LEVEL")]
    log: String,
    /// The format of log lines [default: text].
    #[arg(long, env = "FANFARE_LOG_FORMAT", value_name = "FORMAT")]
    log_format: LogFormat,

    ["Gone"]

    #[arg(long, env = "FANFARE_HTTP_THREADS", hide = true)]
    http_threads: Gone,
    #[arg(long, env = "FANFARE_IDEMPOTENCY_KEYS", hide = true)]
    idempotency_keys: Gone,
    #[arg(long, env = "FANFARE_KEY_BURST", hide = true)]
    key_burst: Gone,
    #[arg(long, env = "FANFARE_PUBLISH_BURST", hide = true)]
    publish_burst: Gone,
}

impl Settings {
    /// A warning for each setting that is given and no longer exists.
    pub(super) fn gone(&self) -> Vec<String> {
        let settings = [
            (self.http_threads, "http-threads", "requests are read by one thread per core, at most 4"),
            (self.idempotency_keys, "idempotency-keys", "the last 100000 keys of --idempotency-window are remembered"),
            (self.key_burst, "key-burst", "the burst is twice --key-rate, or what the key's entry in the file says"),
            (self.publish_burst, "publish-burst", "the burst is twice --publish-rate"),
        ];
        let given = settings.into_iter().filter(|(given, ..)| given.is_some());
        given.map(|(_, name, instead)| format!("--{name} is gone and has no effect: {instead}")).collect()
    }
}
