//! Every setting, once: its flag, its variable, its key in the file, and what `--help` says of it.

use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;

use super::values::{Address, Bytes, Gone, List, LogFormat, Moment, Span, TopicName, port, whole_number};
use crate::auth::token::{Mode, Secret};
use crate::frame::HeartbeatStyle;
use crate::http::cors::Origin;
use crate::http::forwarded::{Network, ProxyHeader};

/// What `fanfare serve` is told, by flags and variables.
#[derive(Debug, Default, Args)]
pub struct Flags {
    /// A TOML file with settings: the names of these flags, without the dashes in front.
    #[arg(long, env = "FANFARE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) settings: Settings,
    #[command(flatten)]
    pub(super) nivo: Nivo,
}

/// Names that the Nivo platform's deployments set. They count less than Fanfare's own.
#[derive(Debug, Default, Args)]
pub(super) struct Nivo {
    /// The port to listen on, on all addresses (as the Go gateway did), unless --listen says otherwise.
    #[arg(long, env = "SERVICE_PORT", value_name = "PORT", value_parser = port)]
    pub(super) service_port: Option<u16>,
    /// The deployment's environment; in `production` the log is JSON unless --log-format says otherwise.
    #[arg(long, env = "ENVIRONMENT", value_name = "NAME")]
    pub(super) environment: Option<String>,
}

/// Declares the settings once: the fields, and how two sources of them are laid over each other.
macro_rules! settings {
    ($([$heading:literal] $($(#[$meta:meta])* $name:ident: $type:ty,)*)*) => {
        /// All settings; what is absent has its default.
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

    /// Address to listen on [default: 127.0.0.1:8000].
    #[arg(long, env = "FANFARE_LISTEN", value_name = "ADDRESS:PORT")]
    listen: Address,
    /// Address to speak TLS on, besides --listen [default: none; 127.0.0.1:8443 with --tls-self-signed].
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

    ["Streams"]

    /// Streams at most; one more gets 503 [default: as many as the limit on open files leaves, at least one].
    #[arg(long, env = "FANFARE_MAX_STREAMS", value_name = "N", value_parser = whole_number)]
    max_streams: usize,
    /// Topics that one stream may name [default: 64].
    #[arg(long, env = "FANFARE_MAX_TOPICS", value_name = "N", value_parser = whole_number)]
    max_topics: usize,
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

    ["History"]

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

    ["Publishing"]

    /// A publish request's body [default: 1MiB].
    #[arg(long, env = "FANFARE_MAX_BODY", value_name = "BYTES")]
    max_body: Bytes,
    /// Events in one batch [default: 10000].
    #[arg(long, env = "FANFARE_MAX_BATCH", value_name = "N", value_parser = whole_number)]
    max_batch: usize,
    /// How long a publish request's body may take to arrive [default: 10s].
    #[arg(long, env = "FANFARE_BODY_TIMEOUT", value_name = "SPAN")]
    body_timeout: Span,
    /// How long a publish with an idempotency key is remembered, to answer its repeats; 0s remembers none
    /// [default: 10m].
    #[arg(long, env = "FANFARE_IDEMPOTENCY_WINDOW", value_name = "SPAN")]
    idempotency_window: Span,

    ["Keys and limits"]

    /// A TOML file of API keys, read anew when it changes. Others may come in FANFARE_KEYS (name:key,name:key) and
    /// FANFARE_ADMIN_KEY, which have no flags, since flags can be seen by everybody on the host [default: none].
    #[arg(long, env = "FANFARE_KEYS_FILE", value_name = "FILE")]
    keys_file: PathBuf,
    /// Publish requests a second with one key, unless its entry says otherwise; 0 for no limit [default: 5000].
    #[arg(long, env = "FANFARE_KEY_RATE", value_name = "N", value_parser = whole_number)]
    key_rate: usize,
    /// Publish requests a second of one address (an IPv6 one counts by its /64 network) without a key; 0 for no limit
    /// [default: 1000].
    #[arg(long, env = "FANFARE_PUBLISH_RATE", value_name = "N", value_parser = whole_number)]
    publish_rate: usize,
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

    ["Tokens"]

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
    /// A file that keeps the key set of a --jwks URL. The broker verifies tokens with it when the URL does not answer at
    /// the start [default: none].
    #[arg(long, env = "FANFARE_JWKS_CACHE", value_name = "FILE")]
    jwks_cache: PathBuf,
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

    ["Pages and proxies"]

    /// Origins whose pages may read and publish, with credentials: scheme://host[:port], separated by commas; or * for
    /// all, which may read, without credentials [default: none, only pages of the broker's own origin].
    #[arg(long, env = "CORS_ORIGINS", value_name = "ORIGINS")]
    cors_origins: List<Origin>,
    /// Proxies that are believed on the client's address: addresses and networks such as 10.0.0.0/8, separated by
    /// commas [default: none].
    #[arg(long, env = "FANFARE_TRUSTED_PROXIES", value_name = "NETWORKS")]
    trusted_proxies: List<Network>,
    /// The header in which they write it; the other one is not read [default: x-forwarded-for].
    #[arg(long, env = "FANFARE_PROXY_HEADER", value_name = "HEADER")]
    proxy_header: ProxyHeader,

    ["Connections"]

    /// Connections at most that are not streams; more wait [default: what the limit on open files leaves].
    #[arg(long, env = "FANFARE_MAX_CONNECTIONS", value_name = "N", value_parser = whole_number)]
    max_connections: usize,
    /// A request's head [default: 16KiB].
    #[arg(long, env = "FANFARE_MAX_HEAD", value_name = "BYTES")]
    max_head: Bytes,
    /// How long a request's head may take to arrive [default: 10s].
    #[arg(long, env = "FANFARE_HEAD_TIMEOUT", value_name = "SPAN")]
    head_timeout: Span,
    /// How long a connection may rest between two requests [default: 75s].
    #[arg(long, env = "FANFARE_IDLE_TIMEOUT", value_name = "SPAN")]
    idle_timeout: Span,
    /// A connection whose peer acknowledges nothing for this long is closed (TCP_USER_TIMEOUT, HTTP/2 pings) [default: 60s].
    #[arg(long, env = "FANFARE_PEER_TIMEOUT", value_name = "SPAN")]
    peer_timeout: Span,
    /// The kernel's send buffer for a connection (SO_SNDBUF); 0 leaves it to the kernel [default: 64KiB].
    #[arg(long, env = "FANFARE_SEND_BUFFER", value_name = "BYTES")]
    send_buffer: Bytes,
    /// Requests and streams at a time on one HTTP/2 connection [default: 256].
    #[arg(long, env = "FANFARE_HTTP2_STREAMS", value_name = "N", value_parser = whole_number)]
    http2_streams: usize,

    ["Operation"]

    /// Serve the page at / [default: true].
    #[arg(long, env = "FANFARE_PAGE", value_name = "BOOL")]
    page: bool,
    /// Serve /metrics [default: true].
    #[arg(long, env = "FANFARE_METRICS", value_name = "BOOL")]
    metrics: bool,
    /// Topics that have figures of their own in /metrics, at most 100, separated by commas; the rest is
    /// `other` [default: none].
    #[arg(long, env = "FANFARE_METRICS_TOPICS", value_name = "TOPICS")]
    metrics_topics: List<TopicName>,
    /// Threads that write to streams [default: half as many as there are cores].
    #[arg(long, env = "FANFARE_SHARDS", value_name = "N", value_parser = whole_number)]
    shards: usize,
    /// How long ending all streams may take after SIGTERM or SIGINT [default: 10s].
    #[arg(long, env = "FANFARE_GRACE", value_name = "SPAN")]
    grace: Span,
    /// What is logged: error, warn, info, debug, trace, or a filter by module [default: info].
    #[arg(long, env = "FANFARE_LOG", value_name = "LEVEL")]
    log: String,
    /// How log lines look [default: text].
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
