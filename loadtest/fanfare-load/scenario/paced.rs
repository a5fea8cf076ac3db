//! An even, gentle rate: each event has reached all streams before the next comes, so nothing can be coalesced and the
//! CPU a delivery is the cost of one write.

use clap::Args;
use serde::Serialize;

use super::{DRAIN_LIMIT, Events, Rooms, Run, Streams, planned_events, seconds};
use crate::Result;
use crate::publisher::Pace;

#[derive(Debug, Clone, Args, Serialize)]
pub struct PacedArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub streams: Streams,

    #[command(flatten)]
    #[serde(flatten)]
    pub events: Events,

    /// Events a second
    #[arg(long, default_value_t = 5.0)]
    pub rate: f64,

    /// Seconds to publish
    #[arg(long, default_value_t = 20.0)]
    pub for_s: f64,
}

pub fn run(args: &PacedArgs, run: &mut Run) -> Result<()> {
    let Streams { streams, in_flight, batch_us } = args.streams;
    let mut fleet = run.fleet(planned_events(args.rate, args.for_s), batch_us)?;
    let rooms = Rooms::one("load", streams);
    rooms.add_to(&mut fleet)?;
    run.open(&mut fleet, in_flight)?;
    let during = seconds(args.for_s);
    let pace = Pace::Even { per_second: args.rate, during };
    let plan = rooms.plan(run.target, pace, args.events);
    let flow = run.flow(&mut fleet, &plan, &rooms, during + DRAIN_LIMIT)?;
    run.put_flow(&flow, &fleet);
    Ok(())
}
