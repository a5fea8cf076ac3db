//! Does an event cost what it reaches, or what is connected? Three phases at the same rate, each event reaching exactly
//! one stream: one stream alone; the same stream beside many that asked for something else; and as many streams as topics
//! (or as users of one topic), an event for each in turn. The last is dearer on any server, since each event finds a
//! socket that is in no cache.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::{DRAIN_LIMIT, Events, Rooms, Run, Streams, planned_events, seconds};
use crate::Result;
use crate::address::Address;
use crate::fleet::Verdict;
use crate::publisher::Pace;

#[derive(Debug, Clone, Args, Serialize)]
pub struct ReachArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub streams: Streams,

    #[command(flatten)]
    #[serde(flatten)]
    pub events: Events,

    /// Events a second in each phase; low enough that each is delivered before the next
    #[arg(long, default_value_t = 2_000.0)]
    pub rate: f64,

    /// Seconds to publish in each phase
    #[arg(long, default_value_t = 5.0)]
    pub for_s: f64,
}

/// What tells the streams apart.
#[derive(Debug, Clone, Copy)]
pub enum By {
    /// Each asks for a topic; those beside the lone one ask for another, all for the same.
    Topic,
    /// All ask for one topic, each for another user's events (`user_id=`).
    User,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            Self::Topic => "topics",
            Self::User => "users",
        }
    }

    fn lone(self) -> Address {
        match self {
            Self::Topic => Address::topic("lone"),
            Self::User => Self::user(0),
        }
    }

    /// What the streams beside the lone one ask for.
    fn others(self, streams: usize) -> Rooms {
        match self {
            Self::Topic => Rooms::one("others", streams),
            Self::User => Rooms::each((1..=streams).map(Self::user).collect()),
        }
    }

    fn many(self, streams: usize) -> Rooms {
        let address = |index| match self {
            Self::Topic => Address::topic(format!("topic{index:05}")),
            Self::User => Self::user(index),
        };
        Rooms::each((0..streams).map(address).collect())
    }

    fn user(index: usize) -> Address {
        Address::user("wallets", format!("user{index:05}"))
    }
}

pub fn run(args: &ReachArgs, by: By, run: &mut Run) -> Result<()> {
    let streams = args.streams.streams;
    let (lone, nobody) = (Rooms::each(vec![by.lone()]), Rooms::each(Vec::new()));
    let alone = phase("alone", args, run, &lone, &nobody)?;
    let beside = phase("beside_others", args, run, &lone, &by.others(streams.saturating_sub(1)))?;
    let each = phase(&format!("many_{}", by.name()), args, run, &by.many(streams), &nobody)?;
    let ratio = |cost: Option<f64>, base: Option<f64>| Some(cost? / base?);
    run.report.put("beside_others_to_alone", ratio(beside, alone));
    run.report.put(format!("many_{}_to_alone", by.name()), ratio(each, alone));
    Ok(())
}

/// Returns the server's CPU for one event, in microseconds, publishing included.
fn phase(name: &str, args: &ReachArgs, run: &mut Run, rooms: &Rooms, others: &Rooms) -> Result<Option<f64>> {
    // A fleet for each phase: dropping it closes the streams of the one before.
    let mut fleet = run.fleet(planned_events(args.rate, args.for_s), args.streams.batch_us)?;
    rooms.add_to(&mut fleet)?;
    others.add_to(&mut fleet)?;
    run.open(&mut fleet, args.streams.in_flight)?;
    let during: Duration = seconds(args.for_s);
    let pace = Pace::Even { per_second: args.rate, during };
    let plan = rooms.plan(run.target, pace, args.events);
    let flow = run.flow(&mut fleet, &plan, rooms, during + DRAIN_LIMIT)?;
    let Verdict { delivered, missing, unexpected, misdirected, .. } = flow.verdict;
    let cost = flow.server_cpu.map(|cpu| cpu as f64 / 1e3 / flow.published.events as f64);
    let report = &mut run.report;
    report.put(format!("{name}_events"), flow.published.events);
    report.put(format!("{name}_server_cpu_us_per_event"), cost);
    report.put_latency(&format!("{name}_delivery"), &fleet.tally.latency);
    report.put(format!("{name}_delivered"), delivered);
    report.put(format!("{name}_missing"), missing);
    report.put(format!("{name}_at_others"), unexpected + misdirected);
    report.put(format!("{name}_clean"), flow.verdict.is_clean());
    Ok(cost)
}
