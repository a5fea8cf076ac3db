//! All cases, Fanfare and what is beside it in turns: the same machine, the same minutes, the same generator. Each run
//! gets a fresh server process; each round swaps who goes first; the median of the rounds counts.
//!
//! Written to `DIRECTORY/DATE-machine/`: each run's figures, `environment.json`, `results.json`, the table `results.md` and
//! the plot `results.svg`.

mod cases;
mod claims;
mod environment;
mod plot;
mod server;
mod table;

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde_json::json;

use crate::Result;
use crate::progress::Progress;
use crate::report::Report;
use crate::target::Target;
use crate::transport::Transport;
use cases::{Case, Setup, Subject};
use claims::{Claim, Goal, Spread};
use environment::Environment;
use server::Server;

#[derive(Debug, Args)]
pub struct SuiteArgs {
    /// The broker's program; the `fanfare` beside this one if not given
    #[arg(long)]
    fanfare: Option<PathBuf>,

    /// An argument for the broker, before those the suite adds; may be repeated
    #[arg(long = "fanfare-arg", value_name = "ARG", allow_hyphen_values = true)]
    fanfare_args: Vec<String>,

    /// A thousand streams and a few seconds each: shows that all works, not how fast it is
    #[arg(long)]
    quick: bool,

    /// Rounds; three, or one with --quick
    #[arg(long)]
    rounds: Option<usize>,

    /// Only these of open, open-tokens, idle, idle-tls, idle-http2, paced, paced-tls, paced-http2, burst, ack, topics,
    /// users and resume
    #[arg(long, value_delimiter = ',', value_name = "CASE")]
    only: Vec<String>,

    /// Where runs are kept
    #[arg(long, default_value = "loadtest/runs", value_name = "DIRECTORY")]
    runs: PathBuf,
}

/// How large everything is.
struct Size {
    streams: usize,
    /// For what is slow to be made: each takes a handshake.
    tls_streams: usize,
    idle_steps: Vec<usize>,
    tls_steps: Vec<usize>,
    http2_steps: Vec<usize>,
    idle_settle_s: f64,
    hold_s: f64,
    heartbeat_s: u64,
    paced: (f64, f64),
    burst: u64,
    ack: (f64, f64),
    /// For topics and users.
    reach: (f64, f64),
    missed: u64,
    rounds: usize,
}

/// The sizes that the targets speak of.
fn full() -> Size {
    Size {
        streams: 10_000,
        tls_streams: 2_000,
        idle_steps: vec![5_000, 10_000, 18_000],
        tls_steps: vec![500, 5_000],
        http2_steps: vec![2_000, 18_000],
        idle_settle_s: 2.0,
        // Two whole intervals, whatever the phase of a stream's heartbeat.
        hold_s: 60.0,
        heartbeat_s: 30,
        paced: (5.0, 20.0),
        burst: 200,
        ack: (200.0, 15.0),
        reach: (2_000.0, 5.0),
        missed: 100,
        rounds: 3,
    }
}

fn quick() -> Size {
    Size {
        streams: 1_000,
        tls_streams: 200,
        idle_steps: vec![500, 1_000, 2_000],
        tls_steps: vec![100, 300],
        http2_steps: vec![500, 2_000],
        idle_settle_s: 0.5,
        hold_s: 4.0,
        heartbeat_s: 2,
        paced: (10.0, 3.0),
        burst: 100,
        ack: (100.0, 3.0),
        reach: (500.0, 2.0),
        missed: 50,
        rounds: 1,
    }
}

/// One run: whose, in which round, and how it ended.
struct Outcome {
    case: &'static str,
    subject: Subject,
    result: std::result::Result<Report, String>,
}

/// A claim with what was measured for it.
struct Judged {
    claim: Claim,
    ours: Option<Spread>,
    /// Whose the baseline is.
    beside: Subject,
    baseline: Option<Spread>,
    met: Option<bool>,
}

pub fn run(args: &SuiteArgs) -> Result<()> {
    let size = if args.quick { quick() } else { full() };
    let rounds = args.rounds.unwrap_or(size.rounds).max(1);
    let own = std::env::current_exe()?;
    let fanfare = args.fanfare.clone().unwrap_or_else(|| own.with_file_name("fanfare"));
    let cases: Vec<Case> = cases::cases(&size)
        .into_iter()
        .filter(|case| args.only.is_empty() || args.only.iter().any(|name| name == case.name))
        .collect();
    if cases.is_empty() {
        return Err(format!("--only {}: expected names of cases that --help has", args.only.join(",")).into());
    }
    let environment = Environment::read(&fanfare);
    let directory = args.runs.join(environment.directory());
    std::fs::create_dir_all(&directory)?;
    write_json(&directory.join("environment.json"), &environment)?;

    let mut progress = Progress::new();
    let mut outcomes = Vec::new();
    let total = rounds * cases.len() * 2;
    for round in 1..=rounds {
        for case in &cases {
            let order = match round % 2 {
                1 => [&case.ours, &case.beside],
                _ => [&case.beside, &case.ours],
            };
            for setup in order {
                let done = outcomes.len() + 1;
                let title = format!("{}, {}, round {round}", case.name, setup.subject.label());
                progress.set_prefix(format!("[{done}/{total}] {title}: "));
                let program = match setup.subject {
                    Subject::Plain => &own,
                    Subject::Fanfare | Subject::NoTokens | Subject::Plaintext => &fanfare,
                };
                let result = one(program, args, setup, &mut progress).map_err(|error| error.to_string());
                let file = directory.join(format!("{}-{}-{round}.json", case.name, setup.subject.slug()));
                match &result {
                    Ok(report) => write_json(&file, report)?,
                    Err(error) => {
                        progress.clear();
                        eprintln!("{title}: {error}");
                        write_json(&file, &json!({ "scenario": setup.scenario.name(), "error": error }))?;
                    }
                }
                outcomes.push(Outcome { case: case.name, subject: setup.subject, result });
            }
        }
    }
    progress.clear();

    let judged = judge(&size, args.quick, &cases, &outcomes);
    let table = table::markdown(&judged, &environment, rounds, args.quick);
    write_json(&directory.join("results.json"), &table::rows(&judged))?;
    std::fs::write(directory.join("results.md"), &table)?;
    std::fs::write(directory.join("results.svg"), plot::svg(&judged))?;
    println!("{table}\n{}", directory.display());

    // A target that is missed is a finding; a lost event, or a run that did not come to its end, is a failure.
    let sound = |outcome: &Outcome| outcome.result.as_ref().is_ok_and(Report::is_clean);
    if outcomes.iter().all(sound) {
        Ok(())
    } else {
        Err("some runs failed, or not every stream got every event once and in order".into())
    }
}

fn one(program: &Path, args: &SuiteArgs, setup: &Setup, progress: &mut Progress) -> Result<Report> {
    let mut arguments = setup.arguments.clone();
    if setup.subject != Subject::Plain {
        arguments.splice(0..0, args.fanfare_args.iter().cloned());
    }
    let tls = if setup.tls { Some(server::free_address()?) } else { None };
    if let Some(address) = tls {
        arguments.extend(["--tls-self-signed".to_owned(), format!("--tls-listen={address}")]);
    }
    let server = Server::start(program, &arguments)?;
    let transport = Transport { tls, http2: setup.http2 };
    setup.scenario.run(&Target { transport, ..server.target() }, progress)
}

fn judge(size: &Size, quick: bool, cases: &[Case], outcomes: &[Outcome]) -> Vec<Judged> {
    let judge = |claim: Claim| {
        let case = cases.iter().find(|case| case.name == claim.case)?;
        let of = |subject: Subject| {
            outcomes.iter().filter(move |outcome| outcome.case == case.name && outcome.subject == subject)
        };
        let spread = |subject: Subject| {
            let reports = of(subject).filter_map(|outcome| outcome.result.as_ref().ok());
            Spread::of(
                reports.filter_map(|report| report.number(&claim.figure)).map(|value| value / claim.scale).collect(),
            )
        };
        let beside = case.beside.subject;
        let (ours, baseline) = (spread(Subject::Fanfare), spread(beside));
        let clean = of(Subject::Fanfare).all(|outcome| outcome.result.as_ref().is_ok_and(Report::is_clean));
        Some(Judged {
            // The other targets are meant for the full size.
            met: (!quick || claim.goal == Goal::Clean)
                .then(|| claim.goal.is_met(ours, baseline, Some(clean)))
                .flatten(),
            ours,
            beside,
            baseline,
            claim,
        })
    };
    claims::claims(size).into_iter().filter_map(judge).collect()
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    std::fs::write(path, serde_json::to_string_pretty(value)? + "\n")?;
    Ok(())
}
