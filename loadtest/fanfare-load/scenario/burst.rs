//! As fast as the server acknowledges: how many deliveries a second, in what order, and in how much memory.

use clap::Args;
use serde::Serialize;

use super::{Events, Rooms, Run, Streams, seconds};
use crate::Result;
use crate::publisher::Pace;

#[derive(Debug, Clone, Args, Serialize)]
pub struct BurstArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub streams: Streams,

    #[command(flatten)]
    #[serde(flatten)]
    pub size: Events,

    /// Events to publish
    #[arg(long, default_value_t = 200)]
    pub events: u64,

    /// Connections to publish over
    #[arg(long, default_value_t = 1)]
    pub connections: usize,

    /// Seconds the publishing may take at most
    #[arg(long, default_value_t = 120.0)]
    pub limit_s: f64,
}

pub fn run(args: &BurstArgs, run: &mut Run) -> Result<()> {
    let Streams { streams, in_flight, batch_us } = args.streams;
    let mut fleet = run.fleet(usize::try_from(args.events)?, batch_us)?;
    let rooms = Rooms::one("load", streams);
    rooms.add_to(&mut fleet)?;
    run.open(&mut fleet, in_flight)?;
    let mut plan = rooms.plan(run.target, Pace::AsAcknowledged { events: args.events }, args.size);
    plan.connections = args.connections.max(1);
    let flow = run.flow(&mut fleet, &plan, &rooms, seconds(args.limit_s))?;
    run.put_flow(&flow, &fleet);
    Ok(())
}
