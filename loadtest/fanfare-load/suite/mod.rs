//! All scenarios, against Fanfare and against the plain loop in turns: the same machine, the same minutes, the same
//! generator. Each scenario gets a fresh server process; each round swaps who goes first; the median of the rounds counts.
//!
//! Written to `DIRECTORY/DATE-machine/`: each run's figures, `environment.json`, `results.json`, the table `results.md` and
//! the plot `results.svg`.

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
use crate::scenario::{
    AckArgs, BurstArgs, Events, IdleArgs, OpenArgs, PacedArgs, ResumeArgs, Scenario, Streams, TopicsArgs,
};
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

    /// Only these scenarios
    #[arg(long, value_delimiter = ',', value_name = "SCENARIO")]
    only: Vec<String>,

    /// Where runs are kept
    #[arg(long, default_value = "loadtest/runs", value_name = "DIRECTORY")]
    runs: PathBuf,
}

/// How large everything is.
struct Size {
    streams: usize,
    idle_steps: Vec<usize>,
    idle_settle_s: f64,
    hold_s: f64,
    heartbeat_s: u64,
    paced: (f64, f64),
    burst: u64,
    ack: (f64, f64),
    topics: (f64, f64),
    missed: u64,
    rounds: usize,
}

/// The sizes that the targets speak of.
fn full() -> Size {
    Size {
        streams: 10_000,
        idle_steps: vec![5_000, 10_000, 18_000],
        idle_settle_s: 2.0,
        // Two whole intervals, whatever the phase of a stream's heartbeat.
        hold_s: 60.0,
        heartbeat_s: 30,
        paced: (5.0, 20.0),
        burst: 200,
        ack: (200.0, 15.0),
        topics: (2_000.0, 5.0),
        missed: 100,
        rounds: 3,
    }
}

fn quick() -> Size {
    Size {
        streams: 1_000,
        idle_steps: vec![500, 1_000, 2_000],
        idle_settle_s: 0.5,
        hold_s: 4.0,
        heartbeat_s: 2,
        paced: (10.0, 3.0),
        burst: 100,
        ack: (100.0, 3.0),
        topics: (500.0, 2.0),
        missed: 50,
        rounds: 1,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Subject {
    Fanfare,
    Plain,
}

/// One run: whose, in which round, and how it ended.
struct Outcome {
    scenario: &'static str,
    subject: Subject,
    result: std::result::Result<Report, String>,
}

/// A claim with what was measured for it.
struct Judged {
    claim: Claim,
    ours: Option<Spread>,
    baseline: Option<Spread>,
    met: Option<bool>,
}

pub fn run(args: &SuiteArgs) -> Result<()> {
    let size = if args.quick { quick() } else { full() };
    let rounds = args.rounds.unwrap_or(size.rounds).max(1);
    let own = std::env::current_exe()?;
    let fanfare = args.fanfare.clone().unwrap_or_else(|| own.with_file_name("fanfare"));
    let scenarios: Vec<Scenario> = scenarios(&size)
        .into_iter()
        .filter(|scenario| args.only.is_empty() || args.only.iter().any(|name| name == scenario.name()))
        .collect();
    let environment = Environment::read(&fanfare);
    let directory = args.runs.join(environment.directory());
    std::fs::create_dir_all(&directory)?;
    write_json(&directory.join("environment.json"), &environment)?;

    let mut progress = Progress::new();
    let mut outcomes = Vec::new();
    let total = rounds * scenarios.len() * 2;
    for round in 1..=rounds {
        for scenario in &scenarios {
            let order = match round % 2 {
                1 => [Subject::Fanfare, Subject::Plain],
                _ => [Subject::Plain, Subject::Fanfare],
            };
            for subject in order {
                let (name, done) = (scenario.name(), outcomes.len() + 1);
                progress.set_prefix(format!("[{done}/{total}] {name}, {subject:?}, round {round}: "));
                let (program, arguments) = match subject {
                    Subject::Fanfare => (&fanfare, fanfare_arguments(args, scenario, &size)),
                    Subject::Plain => (&own, plain_arguments(scenario, &size)),
                };
                let result = one(program, &arguments, scenario, &mut progress).map_err(|error| error.to_string());
                let file = directory.join(format!("{name}-{subject:?}-{round}.json").to_lowercase());
                match &result {
                    Ok(report) => write_json(&file, report)?,
                    Err(error) => {
                        progress.clear();
                        eprintln!("{name}, {subject:?}, round {round}: {error}");
                        write_json(&file, &json!({ "scenario": name, "error": error }))?;
                    }
                }
                outcomes.push(Outcome { scenario: name, subject, result });
            }
        }
    }
    progress.clear();

    let judged = judge(&size, args.quick, &outcomes);
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

fn one(program: &Path, arguments: &[String], scenario: &Scenario, progress: &mut Progress) -> Result<Report> {
    let server = Server::start(program, arguments)?;
    scenario.run(&server.target(), progress)
}

/// How often heartbeats come is only said where they are what is measured: the other scenarios are over before
/// Fanfare's first, and the plain loop sends none unasked.
fn fanfare_arguments(args: &SuiteArgs, scenario: &Scenario, size: &Size) -> Vec<String> {
    let mut arguments = args.fanfare_args.clone();
    if matches!(scenario, Scenario::Idle(_)) {
        arguments.extend(["--heartbeat".to_owned(), format!("{}s", size.heartbeat_s)]);
    }
    arguments
}

fn plain_arguments(scenario: &Scenario, size: &Size) -> Vec<String> {
    let mut arguments = vec!["plain".to_owned()];
    if matches!(scenario, Scenario::Idle(_)) {
        arguments.extend(["--heartbeat-s".to_owned(), size.heartbeat_s.to_string()]);
    }
    arguments
}

fn scenarios(size: &Size) -> Vec<Scenario> {
    let streams = Streams { streams: size.streams, ..Streams::default() };
    let events = Events::default();
    vec![
        Scenario::Open(OpenArgs { streams }),
        Scenario::Idle(IdleArgs {
            steps: size.idle_steps.clone(),
            in_flight: streams.in_flight,
            settle_s: size.idle_settle_s,
            hold_s: size.hold_s,
        }),
        Scenario::Paced(PacedArgs { streams, events, rate: size.paced.0, for_s: size.paced.1 }),
        Scenario::Burst(BurstArgs { streams, size: events, events: size.burst, connections: 1, limit_s: 120.0 }),
        Scenario::Ack(AckArgs { streams, events, rate: size.ack.0, for_s: size.ack.1 }),
        Scenario::Topics(TopicsArgs { streams, events, rate: size.topics.0, for_s: size.topics.1 }),
        Scenario::Resume(ResumeArgs { streams: size.streams, in_flight: None, missed: size.missed, events }),
    ]
}

fn judge(size: &Size, quick: bool, outcomes: &[Outcome]) -> Vec<Judged> {
    let judge = |claim: Claim| {
        let of = |subject: Subject| {
            outcomes.iter().filter(move |outcome| outcome.scenario == claim.scenario && outcome.subject == subject)
        };
        let spread = |subject: Subject| {
            let reports = of(subject).filter_map(|outcome| outcome.result.as_ref().ok());
            Spread::of(
                reports.filter_map(|report| report.number(&claim.figure)).map(|value| value / claim.scale).collect(),
            )
        };
        let (ours, baseline) = (spread(Subject::Fanfare), spread(Subject::Plain));
        let ran = of(Subject::Fanfare).next().is_some();
        let clean =
            ran.then(|| of(Subject::Fanfare).all(|outcome| outcome.result.as_ref().is_ok_and(Report::is_clean)));
        Judged {
            // The other targets are meant for the full size.
            met: (!quick || claim.goal == Goal::Clean).then(|| claim.goal.is_met(ours, baseline, clean)).flatten(),
            ours,
            baseline,
            claim,
        }
    };
    let ran = |claim: &Claim| outcomes.iter().any(|outcome| outcome.scenario == claim.scenario);
    claims::claims(size).into_iter().filter(ran).map(judge).collect()
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    std::fs::write(path, serde_json::to_string_pretty(value)? + "\n")?;
    Ok(())
}
