//! All streams lose their connection, events are published meanwhile, and all come back at once with `Last-Event-ID`.
//!
//! "At once" is taken at its word unless `--in-flight` says otherwise: all connect before the first is answered. What does
//! not fit into the listener's backlog is dropped by the kernel and tried again by the client's after a second, and that
//! second is in the figures, as it would be in life.

use clap::Args;
use serde::Serialize;

use super::{BATCH_US, DRAIN_LIMIT, Events, IN_FLIGHT, Rooms, Run};
use crate::Result;
use crate::publisher::Pace;

/// Published before the cut, so that every stream has an id to resume from.
const FIRST_EVENTS: u64 = 10;

#[derive(Debug, Clone, Args, Serialize)]
pub struct ResumeArgs {
    /// Streams to open, cut and open again
    #[arg(long, default_value_t = 10_000)]
    pub streams: usize,

    /// Connections being opened at any moment when they come back; as many as there are streams if not given
    #[arg(long)]
    pub in_flight: Option<usize>,

    /// Events each stream misses
    #[arg(long, default_value_t = 100)]
    pub missed: u64,

    #[command(flatten)]
    #[serde(flatten)]
    pub events: Events,
}

pub fn run(args: &ResumeArgs, run: &mut Run) -> Result<()> {
    let streams = args.streams;
    let events = FIRST_EVENTS + args.missed;
    let mut fleet = run.fleet(usize::try_from(events)?, BATCH_US)?;
    let rooms = Rooms::one("load", streams);
    rooms.add_to(&mut fleet)?;
    run.open(&mut fleet, IN_FLIGHT)?;
    let first = Pace::AsAcknowledged { events: FIRST_EVENTS };
    let mut plan = rooms.plan(run.target, first, args.events);
    let flow = run.flow(&mut fleet, &plan, &rooms, DRAIN_LIMIT)?;
    if !flow.verdict.is_clean() {
        let mut why = vec!["not every stream got every event that was published before the cut".to_owned()];
        why.append(&mut run.report.unmet);
        return Err(why.join(": ").into());
    }
    let mut published = flow.published;

    fleet.cut()?;
    run.settle(&mut fleet)?;
    plan.first_number = FIRST_EVENTS;
    plan.pace = Pace::AsAcknowledged { events: args.missed };
    published.add(run.publish(&mut fleet, &plan, DRAIN_LIMIT)?);
    run.settle(&mut fleet)?;

    run.server.forget_peak();
    let before = run.server.memory();
    let mark = run.server.mark();
    let had = fleet.tally.delivered;
    let due = streams as u64 * events;
    let begun = fleet.tally.times.now();
    let opened = run.open(&mut fleet, args.in_flight.unwrap_or(streams))?;
    run.progress.phase("catching up");
    let caught_up = run.deliver(&mut fleet, due)?;
    let elapsed = fleet.tally.last_delivery.saturating_sub(begun) as f64 / 1e9;
    run.settle(&mut fleet)?;
    let cpu = run.server.cpu_since(mark.as_ref());
    let after = run.server.memory();
    let verdict = fleet.verdict(&rooms.expected(&published), &published);

    let report = &mut run.report;
    report.put("event_wire_bytes", fleet.event_bytes());
    report.put("streams_back", opened.streams);
    report.put("all_caught_up", caught_up);
    report.put("caught_up_after_s", elapsed);
    report.put("reconnected_after_s", opened.elapsed as f64 / 1e9);
    report.put("replayed_per_s", (fleet.tally.delivered - had) as f64 / elapsed);
    report.put("server_cpu_us_per_stream", cpu.map(|cpu| cpu as f64 / 1e3 / streams as f64));
    report.put_latency("reconnect", &opened.latency);
    run.put_growth(before, after);
    run.put_verdict(&verdict);
    Ok(())
}
