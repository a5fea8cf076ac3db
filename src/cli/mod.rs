//! The command line: `fanfare serve`, the default command, and the others.
//!
//! A command writes its result to standard output and its messages to standard error. It ends with 0, with 1 after a failure
//! that may pass, and with 64 (`EX_USAGE` of sysexits.h) if the command line or a setting is wrong: the same call would fail
//! again.

mod check;
mod figures;
mod follow;
mod lines;
mod look;
mod manual;
mod publish;
mod remote;
mod serve;
mod stats;
mod tail;
mod token;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::config::Flags;

/// Fanfare, a broker for Server-Sent Events: services publish by HTTP POST, browsers listen.
///
/// Without a command, it serves: `fanfare --listen 0.0.0.0:8000` is `fanfare serve --listen 0.0.0.0:8000`.
#[derive(Debug, Parser)]
#[command(name = "fanfare", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker; `fanfare` without a command does the same.
    Serve(Box<Flags>),
    /// Publish an event, or many from standard input.
    Publish(Box<publish::Arguments>),
    /// Follow topics: events as they come, through cuts and restarts.
    Tail(Box<tail::Arguments>),
    /// How a broker is doing: a live view in a terminal, elsewhere once as JSON.
    Stats(stats::Arguments),
    /// Read the settings as `serve` would, and explain them.
    Check(Box<check::Arguments>),
    /// Make a token for development, signed with JWT_SECRET.
    Token(token::Arguments),
    /// Print completions for a shell.
    Completions(manual::Completions),
    /// Print a manual page.
    Man(manual::Man),
}

/// Why a command failed.
#[derive(Debug)]
enum Failure {
    /// It cannot be done as it was asked.
    Usage(String),
    /// It could not be done.
    Failed(String),
}

impl Failure {
    fn failed(why: impl fmt::Display) -> Failure {
        Failure::Failed(why.to_string())
    }
}

/// Runs the command that the arguments give, the program's own name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let outcome = match parse(arguments.into_iter().collect()) {
        Ok((Cli { command }, matches)) => command.run(&matches),
        Err(error) if error.use_stderr() => {
            Err(Failure::Usage(error.render().to_string().trim_start_matches("error: ").to_owned()))
        }
        Err(asked) => {
            // Help, or the version. It does not matter if standard output has been closed.
            let _ = asked.print();
            Ok(())
        }
    };
    let (why, code) = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(why)) => (why, 64),
        Err(Failure::Failed(why)) => (why, 1),
    };
    eprintln!("fanfare: {}", why.trim_end());
    ExitCode::from(code)
}

impl Command {
    fn run(self, matches: &clap::ArgMatches) -> Result<(), Failure> {
        match self {
            Command::Serve(flags) => serve::run(*flags),
            Command::Publish(arguments) => publish::run(&arguments),
            Command::Tail(arguments) => tail::run(&arguments),
            Command::Stats(arguments) => stats::run(&arguments),
            Command::Check(arguments) => check::run(*arguments, matches),
            Command::Token(arguments) => token::run(arguments),
            Command::Completions(arguments) => manual::completions(&arguments, Cli::command()),
            Command::Man(arguments) => manual::page(&arguments, Cli::command()),
        }
    }
}

/// Prints a command's result. A reader that closes the pipe early (`head`) is no failure.
fn print(text: &[u8]) -> Result<(), Failure> {
    match io::stdout().write_all(text) {
        Err(error) if !is_gone(&error) => Err(Failure::failed(error)),
        _ => Ok(()),
    }
}

/// Whether the reader of our output has closed it.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// The parsed command, and the raw matches for `check`.
fn parse(mut arguments: Vec<OsString>) -> Result<(Cli, clap::ArgMatches), clap::Error> {
    const ASKING: [&str; 4] = ["-h", "--help", "-V", "--version"];
    // A program can be started without even its own name as an argument.
    if arguments.is_empty() {
        arguments.push("fanfare".into());
    }
    let first = arguments.get(1).map(|first| first.to_string_lossy());
    if first.is_none_or(|first| first.starts_with('-') && !ASKING.contains(&&*first)) {
        arguments.insert(1, "serve".into());
    }
    let mut matches = Cli::command().try_get_matches_from(arguments)?;
    let cli = Cli::from_arg_matches(&matches)?;
    let (_, of_command) = matches.remove_subcommand().expect("there is always a command");
    Ok((cli, of_command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serving_needs_no_name() {
        let parsed = |arguments: &[&str]| parse(arguments.iter().map(OsString::from).collect());
        for arguments in [&["fanfare"][..], &["fanfare", "--shards", "1"], &["fanfare", "serve", "--shards=1"], &[]] {
            assert!(matches!(parsed(arguments), Ok((Cli { command: Command::Serve(_) }, _))), "{arguments:?}");
        }
        for asked in [&["fanfare", "--help"][..], &["fanfare", "-V"], &["fanfare", "help", "serve"]] {
            assert!(parsed(asked).is_err_and(|asked| !asked.use_stderr()), "{asked:?}");
        }
        assert!(parsed(&["fanfare", "--shards", "1", "serve"]).is_err(), "a command comes first");
    }
}
