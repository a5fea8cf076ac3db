//! Does an event cost what it reaches, or what is connected? Three phases at the same rate, each event reaching exactly
//! one stream: one stream alone; the same stream beside many that asked for something else; and many topics with one
//! stream each, in turn. The last is dearer on any server, since each event finds a socket that is in no cache.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::{DRAIN_LIMIT, Events, Rooms, Run, Streams, planned_events, seconds};
use crate::Result;
use crate::fleet::Verdict;
use crate::publisher::Pace;

#[derive(Debug, Clone, Args, Serialize)]
pub struct TopicsArgs {
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

pub fn run(args: &TopicsArgs, run: &mut Run) -> Result<()> {
    let streams = args.streams.streams;
    let lone = Rooms::one("lone", 1);
    let many =
        Rooms { topics: (0..streams).map(|topic| format!("topic{topic:05}")).collect(), streams: vec![1; streams] };
    let alone = phase("alone", args, run, &lone, 0)?;
    let beside = phase("beside_others", args, run, &lone, streams - 1)?;
    let each = phase("many_topics", args, run, &many, 0)?;
    let ratio = |cost: Option<f64>, base: Option<f64>| Some(cost? / base?);
    run.report.put("beside_others_to_alone", ratio(beside, alone));
    run.report.put("many_topics_to_alone", ratio(each, alone));
    Ok(())
}

/// Returns the server's CPU for one event, in microseconds, publishing included.
fn phase(name: &str, args: &TopicsArgs, run: &mut Run, rooms: &Rooms, others: usize) -> Result<Option<f64>> {
    // A fleet for each phase: dropping it closes the streams of the one before.
    let mut fleet = run.fleet(planned_events(args.rate, args.for_s), args.streams.batch_us)?;
    for (topic, &streams) in rooms.topics.iter().zip(&rooms.streams) {
        fleet.add_room(topic, usize::try_from(streams)?)?;
    }
    fleet.add_room("others", others)?;
    run.open(&mut fleet, args.streams.in_flight)?;
    let during: Duration = seconds(args.for_s);
    let pace = Pace::Even { per_second: args.rate, during };
    let plan = rooms.plan(run.target, pace, args.events);
    let flow = run.flow(&mut fleet, &plan, rooms, during + DRAIN_LIMIT)?;
    let Verdict { delivered, missing, .. } = flow.verdict;
    let cost = flow.server_cpu.map(|cpu| cpu as f64 / 1e3 / flow.published.events as f64);
    let report = &mut run.report;
    report.put(format!("{name}_events"), flow.published.events);
    report.put(format!("{name}_server_cpu_us_per_event"), cost);
    report.put_latency(&format!("{name}_delivery"), &fleet.tally.latency);
    report.put(format!("{name}_delivered"), delivered);
    report.put(format!("{name}_missing"), missing);
    report.put(format!("{name}_clean"), flow.verdict.is_clean());
    Ok(cost)
}
