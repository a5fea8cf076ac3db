//! `fanfare-load`: opens streams, publishes, and reports what arrived, when, and what it cost the server.
//!
//! A scenario in three steps, each a module:
//! 1. [`fleet`] opens the streams and receives, on one thread; [`publisher`] publishes on another. A stream has a
//!    [`carrier`]: a connection of its own, or one of HTTP/2 ([`http2`]) with many, plain or inside TLS ([`transport`]).
//! 2. Every byte that arrives is checked: [`follower`] compares it with the [`transcript`] of its topics, and has the
//!    [`parser`] read what differs. [`tally`] counts.
//! 3. [`scenario`] asks the kernel what it cost ([`process`]) and writes the [`report`].
//!
//! [`suite`] runs all scenarios against Fanfare and against [`plain`], the least any server can do, in turns, and judges
//! the figures. The receiver shares the machine with the server it measures, so it has to be much cheaper than that.

#![forbid(unsafe_code)]
#![allow(unreachable_pub, reason = "a binary has no API: `pub` says what other modules use")]

mod address;
mod carrier;
mod clock;
mod fleet;
mod follower;
mod http2;
mod parser;
mod plain;
mod process;
mod progress;
mod publisher;
mod reasons;
mod report;
mod scenario;
mod suite;
mod tally;
mod target;
mod token;
mod transcript;
mod transport;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use plain::PlainArgs;
use progress::Progress;
use scenario::{AckArgs, BurstArgs, IdleArgs, OpenArgs, PacedArgs, ReachArgs, ResumeArgs, Scenario};
use suite::SuiteArgs;
use target::Target;

/// A failure ends the run; what it says is all that is done with it.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Bad arguments, as the broker itself has it (sysexits.h, EX_USAGE).
const EXIT_USAGE: u8 = 64;

/// Load generator and benchmarks for an SSE broker.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Open streams as fast as the server takes them
    Open(Against<OpenArgs>),
    /// Hold streams and do nothing: memory a stream, and the cost of heartbeats
    Idle(Against<IdleArgs>),
    /// Publish at a gentle, even rate: CPU a delivery, and latency
    Paced(Against<PacedArgs>),
    /// Publish as fast as the server acknowledges: deliveries a second
    Burst(Against<BurstArgs>),
    /// Publish at a rate that keeps the fan-out busy: how long an acknowledgement takes
    Ack(Against<AckArgs>),
    /// Many topics, few streams each: does an event cost what it reaches?
    Topics(Against<ReachArgs>),
    /// One topic, events for one user each: does an event cost what it reaches, and does nobody else get it?
    Users(Against<ReachArgs>),
    /// All streams cut at once, and back at once, each missing events
    Resume(Against<ResumeArgs>),
    /// Serve as the baseline: one send(2) of ready-made bytes a stream and event
    Plain(PlainArgs),
    /// Run all scenarios against Fanfare and the baseline in turns, and judge the figures
    Suite(SuiteArgs),
}

/// One scenario against a server that runs already.
#[derive(Debug, Args)]
struct Against<A: Args> {
    #[command(flatten)]
    target: Target,

    /// Write the figures as JSON to this file; with - to standard output, and the table to standard error
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    #[command(flatten)]
    scenario: A,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            // Where standard error is closed there is nobody to tell.
            let _ = error.print();
            return code.into();
        }
    };
    match arguments.command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fanfare-load: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Command {
    fn run(self) -> Result<()> {
        match self {
            Self::Open(against) => against.run(Scenario::Open),
            Self::Idle(against) => against.run(Scenario::Idle),
            Self::Paced(against) => against.run(Scenario::Paced),
            Self::Burst(against) => against.run(Scenario::Burst),
            Self::Ack(against) => against.run(Scenario::Ack),
            Self::Topics(against) => against.run(Scenario::Topics),
            Self::Users(against) => against.run(Scenario::Users),
            Self::Resume(against) => against.run(Scenario::Resume),
            Self::Plain(plain) => plain::run(&plain),
            Self::Suite(suite) => suite::run(&suite),
        }
    }
}

impl<A: Args> Against<A> {
    /// Fails if events were lost or repeated, or streams: a figure of a run that was not right is worth nothing.
    fn run(self, scenario: fn(A) -> Scenario) -> Result<()> {
        let mut progress = Progress::new();
        let report = scenario(self.scenario).run(&self.target, &mut progress)?;
        progress.clear();
        match &self.json {
            Some(path) if path == Path::new("-") => {
                eprint!("{}", report.table());
                println!("{}", serde_json::to_string_pretty(&report)?);
            }
            Some(path) => {
                print!("{}", report.table());
                std::fs::write(path, serde_json::to_string_pretty(&report)? + "\n")?;
            }
            None => print!("{}", report.table()),
        }
        match report.is_clean() {
            true => Ok(()),
            false if report.unmet.is_empty() => Err("not every stream got every event once and in order".into()),
            false => Err(report.unmet.join("; ").into()),
        }
    }
}
