//! `fanfare check`: the settings as `serve` would take them, where each of them comes from, and what follows from them.
//! Nothing is started and no socket is opened.

use std::fmt::Write as _;
use std::fs;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args};

use super::Failure;
use super::figures::span;
use crate::app::App;
use crate::auth::token::{JwksConfig, KeySource, Mode, Place, Verifier};
use crate::config::{Config, Flags};
use crate::http::access::Access;
use crate::http::cors::Cors;
use crate::process::raise_file_limit;

/// The arguments of `fanfare check`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The TOML file to read; as --config.
    file: Option<PathBuf>,
    /// Show the settings that have their defaults too.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    flags: Flags,
}

/// Where a line begins that says more of the one before it, and where texts end.
const INDENT: usize = 6;
const WIDTH: usize = 100;

/// Reads the settings and explains them.
pub(super) fn run(arguments: Arguments, matches: &ArgMatches) -> Result<(), Failure> {
    let Arguments { file, all, mut flags } = arguments;
    flags.config = file.or(flags.config);
    let file = match &flags.config {
        None => toml::Table::new(),
        // Where it cannot be read, that is said below, as `serve` says it.
        Some(path) => fs::read_to_string(path).ok().and_then(|text| text.parse().ok()).unwrap_or_default(),
    };
    let place = flags.config.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let files = raise_file_limit();
    let config = Config::read(flags, files).map_err(Failure::Usage)?;
    let (access, warnings) = App::check(&config).map_err(Failure::Usage)?;

    let bold = |text: &str| match std::io::stdout().is_terminal() {
        true => format!("\u{1b}[1m{text}\u{1b}[0m"),
        false => text.to_owned(),
    };
    let mut page = format!("{}\n", bold(&format!("fanfare {}: these settings are good", env!("CARGO_PKG_VERSION"))));
    let program = Flags::augment_args(clap::Command::new("settings"));
    let mut heading = None;
    for arg in program.get_arguments().filter(|arg| arg.get_id() != "config" && !arg.is_hide_set()) {
        let name = arg.get_long().unwrap_or_default();
        let given = given(arg, matches, file.get(name), &place);
        let Some((value, source)) = given.or_else(|| all.then(|| default(arg))) else { continue };
        if heading != Some(arg.get_help_heading()) {
            heading = Some(arg.get_help_heading());
            let _ = writeln!(page, "\n{}", bold(arg.get_help_heading().unwrap_or("Nivo")));
        }
        let _ = writeln!(page, "  {name} = {value}  ({source})");
        for line in wrapped(&about(arg).0) {
            let _ = writeln!(page, "{:INDENT$}{line}", "");
        }
    }
    let keys = ["FANFARE_KEYS", "FANFARE_ADMIN_KEY"].into_iter().filter(|name| std::env::var_os(name).is_some());
    let keys: String = keys.map(|name| format!("  {name} = (a secret)  (environment)\n")).collect();
    if !keys.is_empty() {
        let _ = write!(page, "\n{}\n{keys}", bold("Keys"));
    }
    if heading.is_none() && keys.is_empty() {
        page.push_str("\nEverything has its default; --all shows what that is.\n");
    }
    let _ = writeln!(page, "\n{}", bold("What follows"));
    for (what, follows) in consequences(&config, &access, files) {
        let _ = writeln!(page, "  {what:<12} {follows}");
    }
    let warnings = warnings.into_iter().map(str::to_owned).chain(config.file_warning(files)).chain(config.gone);
    for warning in warnings {
        let _ = writeln!(page, "\n{} {warning}", bold("warning:"));
    }
    super::print(page.as_bytes())
}

/// A setting's value as it was written, and the place where it was set.
fn given(arg: &Arg, matches: &ArgMatches, in_file: Option<&toml::Value>, place: &str) -> Option<(String, String)> {
    let id = arg.get_id().as_str();
    let source = match matches.value_source(id) {
        Some(ValueSource::CommandLine) => Some(format!("--{}", arg.get_long().unwrap_or(id))),
        Some(ValueSource::EnvVariable) => arg.get_env().map(|name| name.to_string_lossy().into_owned()),
        _ => None,
    };
    let (value, source) = match source {
        Some(source) => {
            let values: Vec<_> = matches.get_raw(id)?.map(|value| value.to_string_lossy()).collect();
            (values.join(","), source)
        }
        None => (plain(in_file?), place.to_owned()),
    };
    match arg.is_hide_env_values_set() {
        true => Some(("(a secret)".to_owned(), source)),
        false => Some((value, source)),
    }
}

fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        toml::Value::Integer(n) => n.to_string(),
        toml::Value::Boolean(yes) => yes.to_string(),
        // No setting is one of these: such a file has been refused.
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => String::new(),
    }
}

fn default(arg: &Arg) -> (String, String) {
    (about(arg).1.unwrap_or_else(|| "none".to_owned()), "default".to_owned())
}

/// A setting's help text, and its default.
fn about(arg: &Arg) -> (String, Option<String>) {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    match help.rsplit_once("[default: ") {
        None => (help, None),
        Some((text, default)) => {
            (text.trim_end().to_owned(), Some(default.trim_end_matches(['.', ' ']).trim_end_matches(']').to_owned()))
        }
    }
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("there is always one");
        if !last.is_empty() && last.len() + 1 + word.len() > WIDTH - INDENT {
            lines.push(word.to_owned());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}

/// The consequences of all settings together.
fn consequences(config: &Config, access: &Access, files: usize) -> Vec<(&'static str, String)> {
    let mut follows = vec![("listens", format!("http://{}", config.listen))];
    if let Some(tls) = &config.tls {
        follows.push(("", format!("https://{}", tls.listen)));
    }
    let listeners = match config.tokens.mode {
        Mode::Off => "anybody, to everything: tokens are not looked at",
        Mode::Optional => "anybody, to what is public; who shows a token, to what it grants",
        Mode::Required => "who shows a token, to what it grants",
    };
    follows.push(("listeners", listeners.to_owned()));
    let publishers = match (access.keys().are_set_up(), config.tokens.mode) {
        (false, Mode::Off) => "anybody",
        (true, Mode::Off) => "who has a key",
        (false, _) => "who shows a token that grants it",
        (true, _) => "who has a key, or shows a token that grants it",
    };
    follows.push(("publishers", publishers.to_owned()));
    let operators = match access.keys().has_admin() {
        true => "who has an operator's key: the page at /, topics in stats, and streams to list and end",
        false => "nobody in particular: there is no operator's key (FANFARE_ADMIN_KEY)",
    };
    follows.push(("operators", operators.to_owned()));
    if let Some(set) = access.verifier().and_then(|verifier| key_set(config, verifier)) {
        follows.extend(set);
    }
    let pages = match &config.cors {
        Cors::SameOrigin => "of the broker's own origin only",
        Cors::Any => "of every origin may read, without credentials; none may publish",
        Cors::Exact(_) => "of the named origins too, with credentials",
    };
    follows.push(("pages", pages.to_owned()));
    let (streams, connections) = (config.fanout.max_streams, config.server.max_connections);
    follows.push((
        "streams",
        format!("{streams} at most, and {connections} other connections; {files} files may be open"),
    ));
    if config.socket.send_buffer > 0 {
        let all = streams.saturating_mul(config.socket.send_buffer);
        let each = megabytes(config.socket.send_buffer);
        follows.push(("", format!("{each} of kernel memory for each that lags, {} for all of them", megabytes(all))));
    }
    let history = &config.history;
    let kept = format!(
        "{} events, {}, {:?}, whichever comes first; {} events of one topic",
        history.max_events,
        megabytes(history.max_bytes),
        history.max_age,
        history.topic_events
    );
    follows.push(("history", kept));
    follows
        .push(("threads", format!("{} write to streams, {} read requests", config.fanout.shards, config.http_threads)));
    follows.push(("stops", format!("within {:?} of SIGTERM, streams first", config.grace)));
    follows
}

/// How the key set behind a URL is fetched, and how old its copy in the cache is.
fn key_set(config: &Config, verifier: &Verifier) -> Option<[(&'static str, String); 2]> {
    let Some(KeySource::Jwks(JwksConfig { place: Place::Url(url), refresh, cache, .. })) = &config.tokens.keys else {
        return None;
    };
    let fetched = format!("read from {url} every {refresh:?}; until a first one is there, the broker is not ready");
    let path = cache.as_deref().unwrap_or(Path::new("")).display();
    let kept = match verifier.cached() {
        None => "not kept in a file: a start without the URL has no keys (--jwks-cache)".to_owned(),
        Some(Ok(None)) => format!("kept in {path} for a start without the URL: nothing yet"),
        Some(Ok(Some((keys, age)))) => {
            let (s, age) = (if keys == 1 { "" } else { "s" }, span(age.as_secs()));
            format!("kept in {path} for a start without the URL: {keys} key{s}, {age} old")
        }
        Some(Err(why)) => format!("kept for a start without the URL, but of no use now: {why}"),
    };
    Some([("key set", fetched), ("", kept)])
}

/// In MB of 1,000,000 bytes, as memory is told everywhere here.
fn megabytes(bytes: usize) -> String {
    format!("{:.*} MB", if bytes < 10_000_000 { 2 } else { 0 }, bytes as f64 / 1e6)
}
