//! How fast streams open, and what one costs in CPU and memory.

use clap::Args;
use serde::Serialize;

use super::{Run, Streams, bytes_a_stream};
use crate::Result;
use crate::address::Address;
use crate::token::Signer;

#[derive(Debug, Clone, Args, Serialize)]
pub struct OpenArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub streams: Streams,

    /// Open each stream with a token of its own, another user's, signed with this secret by HS256; the server is to have
    /// the same one
    #[arg(long, env = "JWT_SECRET", hide_env_values = true, value_name = "SECRET", value_parser = Signer::new)]
    #[serde(rename = "tokens", skip_serializing_if = "Option::is_none")]
    pub jwt_secret: Option<Signer>,
}

pub fn run(args: &OpenArgs, run: &mut Run) -> Result<()> {
    let Streams { streams, in_flight, batch_us } = args.streams;
    let mut fleet = run.fleet(0, batch_us)?;
    fleet.sign(args.jwt_secret.clone());
    fleet.add_room(&Address::topic("load"), streams)?;
    run.settle(&mut fleet)?;
    let before = run.server.memory();
    let mark = run.server.mark();
    let opened = run.open(&mut fleet, in_flight)?;
    run.settle(&mut fleet)?;
    // What the server still does after the last `connected` belongs to opening, so it is in the CPU figure.
    let cpu = run.server.cpu_since(mark.as_ref());
    let after = run.server.memory();
    let resident = bytes_a_stream(before.map(|memory| memory.resident), after.map(|memory| memory.resident), streams);
    let report = &mut run.report;
    report.put("streams", opened.streams);
    report.put("opens_per_s", opened.streams as f64 * 1e9 / opened.elapsed as f64);
    report.put("server_cpu_us_per_open", cpu.map(|cpu| cpu as f64 / 1e3 / streams as f64));
    report.put("server_memory_bytes_per_stream", resident);
    report.put_latency("open", &opened.latency);
    run.put_lost(&fleet);
    Ok(())
}
