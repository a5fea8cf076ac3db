//! `fanfare tail`: follows topics, through cuts and restarts.

use std::io::{self, IsTerminal, Write as _};
use std::num::NonZeroU32;
use std::os::fd::AsFd as _;
use std::time::Duration;

use clap::Args;
use hyper::header::HeaderValue;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ratatui::crossterm::terminal;
use serde::Deserialize;
use tokio::io::Interest;
use tokio::net::unix::pipe;

use super::follow::{Follow, News};
use super::look::{self, Color, Columns, DIM, plain};
use super::remote::{self, Remote};
use super::{Failure, is_gone};
use crate::config::Span;
use crate::http::routes::EVENTS;
use crate::sse::Event;

/// How it goes on, and how it ends.
const ABOUT: &str = "\
On a terminal it shows events to people, elsewhere it prints a line of JSON for each: what the event came with, to the
letter, after its id. Gaps are told on standard error, and are lines of JSON too (\"type\":\"gap\").

It comes back after cuts, from the last id on, so that nothing is missing and nothing there twice; it waits as the broker
says, and longer each time where nobody answers. It ends with 0 after --limit events, and when nobody reads its output
any more; with 1 where the broker refuses for good, or was never there; by the signal (130 in a shell) at Ctrl-C.";

/// The arguments of `fanfare tail`.
#[derive(Debug, Args)]
#[command(after_help = remote::SECRETS, after_long_help = format!("{ABOUT}\n\n{}", remote::SECRETS))]
pub(super) struct Arguments {
    /// The topics, such as `wallets` or `wallets.*`.
    #[arg(value_delimiter = ',', default_value = "all")]
    topics: Vec<String>,
    #[command(flatten)]
    remote: Remote,
    /// Begin with the kept events from this moment on: RFC 3339, unix seconds, or a span before now such as `10m`.
    #[arg(long, value_name = "MOMENT")]
    since: Option<String>,
    /// Begin with the newest N events that are kept.
    #[arg(long, value_name = "N")]
    last: Option<u64>,
    /// Begin after the event with this id.
    #[arg(long, value_name = "ID", value_parser = id, conflicts_with_all = ["since", "last"])]
    after: Option<HeaderValue>,
    /// Only events of these types, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "TYPES")]
    types: Vec<String>,
    /// Only events that belong to this user.
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// End after N events.
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroU32>,
    /// A line of JSON for each event, also on a terminal.
    #[arg(long)]
    json: bool,
    /// Colours; `always` shows events to people also where standard output is no terminal, such as to `less -R`.
    #[arg(long, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    color: Color,
    /// How long nothing may come, not even the broker's heartbeat (30s unless it says otherwise), before the connection
    /// is given up and made anew; 0s for ever.
    #[arg(long, default_value = "100s", value_name = "SPAN")]
    idle_timeout: Span,
}

fn id(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text).map_err(|_| "an id has no control characters".to_owned())
}

impl Arguments {
    /// The stream that is asked for.
    fn target(&self) -> String {
        let mut target = format!("{EVENTS}?topics=");
        let mut add = |name: &str, value: &str| {
            target.push_str(name);
            target.extend(utf8_percent_encode(value, NON_ALPHANUMERIC));
        };
        add("", &self.topics.join(","));
        for (name, value) in [("&since=", &self.since), ("&user_id=", &self.user)] {
            value.iter().for_each(|value| add(name, value));
        }
        if !self.types.is_empty() {
            add("&types=", &self.types.join(","));
        }
        self.last.iter().for_each(|last| add("&last=", &last.to_string()));
        // After a lost connection the broker counts anew: this only keeps it from sending events in vain.
        self.limit.iter().for_each(|limit| add("&limit=", &limit.to_string()));
        target
    }
}

/// Follows until there is nothing more to follow.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { remote, limit, json, color, idle_timeout: Span(idle), .. } = arguments;
    let mut stdout = io::stdout().lock();
    let output = match *json || (!stdout.is_terminal() && *color != Color::Always) {
        true => Output::Json { escape: stdout.is_terminal() },
        false => Output::Columns(Columns::new(color.is_on(&stdout))),
    };
    let after = arguments.after.clone();
    let idle = Some(*idle).filter(|idle| !idle.is_zero());
    // More than a broker reads, and than a URL may have.
    const TARGET_MAX: usize = 32 << 10;
    let target = arguments.target();
    if target.len() > TARGET_MAX {
        let why =
            format!("topics and filters make {} bytes of an address; expected at most {TARGET_MAX}", target.len());
        return Err(Failure::Usage(why));
    }
    let follow = Follow::new(remote.client()?, target, idle, after);
    let mut tail =
        Tail { output, notices: Notices { url: &remote.url, dim: color.is_on(&io::stderr()), opened: false } };
    remote::runtime()?.block_on(async {
        tokio::select! {
            followed = tail.follow(follow, limit.map(NonZeroU32::get), &mut stdout) => followed,
            () = nobody_reads() => Ok(()),
        }
    })
}

/// Waits until the reader of our output has closed it: a write would only learn of it with the next event.
async fn nobody_reads() {
    // Not written to here: whether it blocks is its own affair.
    let watched = io::stdout().as_fd().try_clone_to_owned().and_then(pipe::Sender::from_owned_fd_unchecked);
    match watched {
        Ok(stdout) => drop(stdout.ready(Interest::ERROR).await),
        // A file cannot be waited on, and does not go away.
        Err(_) => std::future::pending().await,
    }
}

enum Output {
    Json {
        /// Whether characters that a terminal would act on, or not show, are escaped.
        escape: bool,
    },
    Columns(Columns),
}

struct Tail<'a> {
    output: Output,
    notices: Notices<'a>,
}

impl Tail<'_> {
    async fn follow(
        &mut self,
        mut follow: Follow,
        limit: Option<u32>,
        stdout: &mut impl io::Write,
    ) -> Result<(), Failure> {
        let (mut seen, mut lines) = (0, String::new());
        loop {
            match follow.next().await? {
                News::Opened { ignored } => self.notices.ignored(ignored.as_deref()),
                News::Cut { why, wait } => self.notices.cut(&why, wait),
                News::Event(event) => match &*event.kind {
                    "heartbeat" => {}
                    "connected" => self.notices.connected(&event),
                    kind => {
                        match kind {
                            "gap" => self.notices.gap(&event),
                            _ => seen += 1,
                        }
                        self.show(&event, &mut lines);
                    }
                },
            }
            let over = limit.is_some_and(|limit| seen >= limit);
            // Events that came together are written together.
            if over || !follow.has_more() {
                let written = stdout.write_all(lines.as_bytes()).and_then(|()| stdout.flush());
                lines.clear();
                match written {
                    Err(error) if is_gone(&error) => return Ok(()),
                    written => written.map_err(Failure::failed)?,
                }
            }
            if over {
                return Ok(());
            }
        }
    }

    fn show(&mut self, event: &Event, lines: &mut String) {
        match &mut self.output {
            Output::Json { escape } => {
                let line = look::json(event);
                lines.push_str(&if *escape { plain(&line) } else { line.into() });
                lines.push('\n');
            }
            // People have been told.
            Output::Columns(_) if event.kind == "gap" => {}
            Output::Columns(columns) => {
                let width = terminal::size().map_or(80, |(width, _)| width);
                lines.push_str(&columns.show(event, width.into()));
            }
        }
    }
}

/// News of the stream itself, on standard error.
struct Notices<'a> {
    url: &'a str,
    dim: bool,
    opened: bool,
}

#[derive(Debug, Deserialize)]
struct Data<T> {
    data: T,
}

impl Notices<'_> {
    fn connected(&mut self, event: &Event) {
        #[derive(Deserialize)]
        struct Connected {
            client_id: String,
            topics: String,
        }
        let again = if std::mem::replace(&mut self.opened, true) { " again" } else { "" };
        let from = event.id.as_deref().unwrap_or("nowhere");
        match serde_json::from_str(&event.data) {
            Ok(Data { data: Connected { client_id, topics } }) => {
                self.say(&format!("connected{again} to {}: {topics}, after {from} (stream {client_id})", self.url));
            }
            Err(_) => self.say(&format!("connected{again} to {}", self.url)),
        }
    }

    fn gap(&self, event: &Event) {
        #[derive(Deserialize)]
        struct Gap {
            requested: String,
            oldest: String,
            reason: String,
        }
        match serde_json::from_str(&event.data) {
            Ok(Data { data: Gap { requested, oldest, reason } }) => {
                let why = match &*reason {
                    "evicted" => "are no longer kept",
                    "unknown_epoch" => "were of another history: the broker has been restarted",
                    other => other,
                };
                self.say(&format!("gap: events after {requested} {why}; it goes on after {oldest}"));
            }
            Err(_) => self.say(&format!("gap: {}", event.data)),
        }
    }

    fn ignored(&self, names: Option<&str>) {
        if let Some(names) = names {
            self.say(&format!("{}: it ignored {names}", self.url));
        }
    }

    fn cut(&self, why: &str, wait: Duration) {
        self.say(&format!("{}: {why}; again in {:.1} s", self.url, wait.as_secs_f64()));
    }

    fn say(&self, what: &str) {
        let style = if self.dim { DIM } else { anstyle::Style::new() };
        // It does not matter if standard error has been closed.
        let _ = writeln!(io::stderr(), "{style}fanfare: {}{style:#}", plain(what));
    }
}
