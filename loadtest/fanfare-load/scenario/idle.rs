//! What idle streams cost: memory step by step, then CPU while they are held and only heartbeats are written.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::{BATCH_US, IN_FLIGHT, Run, bytes_a_stream, seconds};
use crate::Result;
use crate::address::Address;
use crate::fleet::Fleet;
use crate::report::human;

#[derive(Debug, Clone, Args, Serialize)]
pub struct IdleArgs {
    /// Numbers of streams at which memory is taken, ascending
    #[arg(long, value_delimiter = ',', default_values_t = [5_000, 10_000, 18_000])]
    pub steps: Vec<usize>,

    /// Connections being opened at any moment
    #[arg(long, default_value_t = IN_FLIGHT)]
    pub in_flight: usize,

    /// Seconds to wait before memory is taken at a step
    #[arg(long, default_value_t = 2.0)]
    pub settle_s: f64,

    /// Seconds to hold the last step and measure CPU; take a multiple of the heartbeat's interval
    #[arg(long, default_value_t = 0.0)]
    pub hold_s: f64,
}

pub fn run(args: &IdleArgs, run: &mut Run) -> Result<()> {
    if !args.steps.is_sorted() {
        return Err("--steps must ascend".into());
    }
    let mut fleet = run.fleet(0, BATCH_US)?;
    let empty = take(args, run, &mut fleet)?;
    run.report.put("memory_kb_at_0", empty.map(|bytes| bytes as f64 / 1e3));
    let (mut streams, mut before) = (0, empty);
    for &step in &args.steps {
        match streams {
            0 => fleet.add_room(&Address::topic("load"), step)?,
            _ => fleet.add_streams(0, step - streams)?,
        }
        run.open(&mut fleet, args.in_flight)?;
        let now = take(args, run, &mut fleet)?;
        let report = &mut run.report;
        report.put(format!("memory_kb_at_{step}"), now.map(|bytes| bytes as f64 / 1e3));
        report.put(format!("bytes_per_stream_all_in_at_{step}"), bytes_a_stream(Some(0), now, step));
        report.put(format!("bytes_per_stream_over_empty_at_{step}"), bytes_a_stream(empty, now, step));
        report.put(
            format!("bytes_per_additional_stream_{streams}_to_{step}"),
            bytes_a_stream(before, now, step - streams),
        );
        (streams, before) = (step, now);
    }
    if let (Some(&first), Some(&last)) = (args.steps.first(), args.steps.last()) {
        let memory = |step: usize| run.report.number(&format!("memory_kb_at_{step}"));
        let marginal = memory(first)
            .zip(memory(last))
            .filter(|_| last > first)
            .map(|(first_kb, last_kb)| (last_kb - first_kb) * 1e3 / (last - first) as f64);
        run.report.put("bytes_per_additional_stream", marginal);
    }
    hold(seconds(args.hold_s), run, &mut fleet)?;
    run.put_lost(&fleet);
    Ok(())
}

fn take(args: &IdleArgs, run: &mut Run, fleet: &mut Fleet) -> Result<Option<u64>> {
    run.progress.phase("letting memory settle");
    fleet.run(seconds(args.settle_s), |_| false)?;
    run.settle(fleet)?;
    Ok(run.server.memory().map(|memory| memory.resident))
}

fn hold(span: Duration, run: &mut Run, fleet: &mut Fleet) -> Result<()> {
    if span.is_zero() {
        return Ok(());
    }
    let heartbeats = fleet.tally.heartbeats;
    let mark = run.server.mark();
    run.progress.phase(format!("holding for {} s", span.as_secs_f64()));
    let progress = &mut *run.progress;
    fleet.run(span, |fleet| {
        progress.update(|| format!("{} heartbeats", human((fleet.tally.heartbeats - heartbeats) as f64)));
        false
    })?;
    let cpu = run.server.cpu_since(mark.as_ref());
    let written = fleet.tally.heartbeats - heartbeats;
    let report = &mut run.report;
    report.put("held_s", span.as_secs_f64());
    report.put("heartbeats", written);
    report.put("server_cpu_ms", cpu.map(|cpu| cpu as f64 / 1e6));
    report.put("server_cpu_percent_of_a_core", cpu.map(|cpu| cpu as f64 / 1e9 / span.as_secs_f64() * 100.0));
    report.put("server_cpu_us_per_heartbeat", cpu.filter(|_| written > 0).map(|cpu| cpu as f64 / 1e3 / written as f64));
    Ok(())
}
