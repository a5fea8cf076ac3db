//! The scenarios: each opens streams, does one thing to the server, and reports what it measured.

mod ack;
mod burst;
mod idle;
mod open;
mod paced;
mod reach;
mod resume;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::Result;
use crate::address::Address;
use crate::clock::SendTimes;
use crate::fleet::{Fleet, Opened, Patience, Verdict};
use crate::process::{Memory, Process};
use crate::progress::Progress;
use crate::publisher::{Pace, Plan, Published, Publisher};
use crate::report::{Report, human};
use crate::target::Target;
use crate::transport::Transport;
use reach::By;

pub use ack::AckArgs;
pub use burst::BurstArgs;
pub use idle::IdleArgs;
pub use open::OpenArgs;
pub use paced::PacedArgs;
pub use reach::ReachArgs;
pub use resume::ResumeArgs;

#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Scenario {
    Open(OpenArgs),
    Idle(IdleArgs),
    Paced(PacedArgs),
    Burst(BurstArgs),
    Ack(AckArgs),
    Topics(ReachArgs),
    Users(ReachArgs),
    Resume(ResumeArgs),
}

impl Scenario {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Open(_) => "open",
            Self::Idle(_) => "idle",
            Self::Paced(_) => "paced",
            Self::Burst(_) => "burst",
            Self::Ack(_) => "ack",
            Self::Topics(_) => "topics",
            Self::Users(_) => "users",
            Self::Resume(_) => "resume",
        }
    }

    pub fn run(&self, target: &Target, progress: &mut Progress) -> Result<Report> {
        let parameters = Parameters { transport: target.transport, scenario: self };
        let report = Report::new(self.name(), &parameters);
        let mut run = Run { target, server: Process::new(target.process()), progress, report };
        match self {
            Self::Open(args) => open::run(args, &mut run),
            Self::Idle(args) => idle::run(args, &mut run),
            Self::Paced(args) => paced::run(args, &mut run),
            Self::Burst(args) => burst::run(args, &mut run),
            Self::Ack(args) => ack::run(args, &mut run),
            Self::Topics(args) => reach::run(args, By::Topic, &mut run),
            Self::Users(args) => reach::run(args, By::User, &mut run),
            Self::Resume(args) => resume::run(args, &mut run),
        }?;
        Ok(run.report)
    }
}

/// What a run was asked to do, for its report.
#[derive(Serialize)]
struct Parameters<'a> {
    #[serde(flatten)]
    transport: Transport,
    #[serde(flatten)]
    scenario: &'a Scenario,
}

/// What most scenarios ask for.
#[derive(Debug, Clone, Copy, Args, Serialize)]
pub struct Streams {
    /// Streams to open
    #[arg(long, default_value_t = STREAMS)]
    pub streams: usize,

    /// Connections being opened at any moment
    #[arg(long, default_value_t = IN_FLIGHT)]
    pub in_flight: usize,

    /// Microseconds for which the receiver sleeps after it has read all there was, so that sends do not have to wake
    /// it; latencies are up to that much too high
    #[arg(long, default_value_t = BATCH_US)]
    pub batch_us: u64,
}

impl Default for Streams {
    fn default() -> Self {
        Self { streams: STREAMS, in_flight: IN_FLIGHT, batch_us: BATCH_US }
    }
}

/// How events are published.
#[derive(Debug, Clone, Copy, Args, Serialize)]
pub struct Events {
    /// An event's size on the wire, in bytes, with framing
    #[arg(long, default_value_t = EVENT_BYTES)]
    pub event_bytes: usize,
}

impl Default for Events {
    fn default() -> Self {
        Self { event_bytes: EVENT_BYTES }
    }
}

const EVENT_BYTES: usize = 330;
const STREAMS: usize = 10_000;
/// Well under the backlog of any listener, so that no handshake has to be repeated.
const IN_FLIGHT: usize = 500;
/// See [`Streams::batch_us`].
const BATCH_US: u64 = 500;
/// Opening streams may take so long in all.
const OPEN_LIMIT: Duration = Duration::from_secs(120);
/// Publishing and delivering may take so long after what was planned.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);
/// How long to listen for what should not come, after all that should has.
const LINGER: Duration = Duration::from_millis(300);
/// A server is settled when it uses less than 2% of a core over this long, twice in a row.
const SETTLE_WINDOW: Duration = Duration::from_millis(250);
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// One run of a scenario.
struct Run<'a> {
    target: &'a Target,
    server: Process,
    progress: &'a mut Progress,
    report: Report,
}

/// What publishing and delivering took, from one point of rest to the next.
struct Flow {
    published: Published,
    verdict: Verdict,
    /// From the first request until the last delivery.
    elapsed: Duration,
    server_cpu: Option<u64>,
    /// This process's, without the publishers, whose threads are over by then.
    receiver_cpu: Option<u64>,
    /// Before and after.
    memory: (Option<Memory>, Option<Memory>),
}

impl Run<'_> {
    /// A fleet without streams, with room for the send times of `events` events.
    fn fleet(&self, events: usize, batch_us: u64) -> Result<Fleet> {
        let times = Arc::new(SendTimes::new(events));
        Fleet::new(self.target, times, Duration::from_micros(batch_us))
    }

    fn open(&mut self, fleet: &mut Fleet, in_flight: usize) -> Result<Opened> {
        self.progress.phase("opening streams");
        let progress = &mut *self.progress;
        fleet.open(in_flight, Patience { idle: self.target.patience_s, in_all: OPEN_LIMIT }, |fleet| {
            progress.update(|| format!("{} open", fleet.opened()));
        })
    }

    /// Receives until so many events are delivered; says in the report what did not come.
    fn deliver(&mut self, fleet: &mut Fleet, due: u64) -> Result<bool> {
        let progress = &mut *self.progress;
        let patience = Patience { idle: self.target.patience_s, in_all: DRAIN_LIMIT };
        let came = fleet.deliver(due, patience, |fleet| show_delivered(progress, fleet))?;
        let is_all = came.is_ok();
        self.report.unmet.extend(came.err());
        Ok(is_all)
    }

    /// Says in the report where streams are over that nobody asked to end.
    fn put_lost(&mut self, fleet: &Fleet) {
        let lost = fleet.tally.ended + fleet.tally.malformed;
        self.report.put("streams_lost", lost);
        if lost > 0 {
            self.report.unmet.push(format!("{lost} streams were to stay open{}", fleet.losses()));
        }
    }

    /// Waits until the server is at rest, so that what comes next is measured alone. Says in the report if it never was.
    fn settle(&mut self, fleet: &mut Fleet) -> Result<()> {
        self.progress.phase("waiting for the server to settle");
        let quiet = u64::try_from(SETTLE_WINDOW.as_nanos() / 50)?;
        let mut calm = 0;
        for _ in 0..SETTLE_LIMIT.as_millis() / SETTLE_WINDOW.as_millis() {
            let mark = self.server.mark();
            fleet.run(SETTLE_WINDOW, |_| false)?;
            // Without a process to ask, the full two windows are waited.
            let spent = self.server.cpu_since(mark.as_ref()).unwrap_or(0);
            calm = if spent < quiet { calm + 1 } else { 0 };
            if calm == 2 {
                return Ok(());
            }
        }
        self.report.put("server_never_settled", true);
        Ok(())
    }

    /// Publishes by `plan` and receives until room n has its share, or the limit is over.
    fn flow(&mut self, fleet: &mut Fleet, plan: &Plan, rooms: &Rooms, limit: Duration) -> Result<Flow> {
        self.settle(fleet)?;
        self.server.forget_peak();
        let memory = self.server.memory();
        let this = Process::this();
        let (server_mark, own_mark) = (self.server.mark(), this.mark());
        let published = self.publish(fleet, plan, limit)?;
        let expected = rooms.expected(&published);
        let due: u64 = expected.iter().zip(&rooms.streams).map(|(events, &streams)| events * streams).sum();
        self.deliver(fleet, due)?;
        let elapsed = fleet.tally.last_delivery.saturating_sub(published.first_request);
        fleet.run(LINGER, |_| false)?;
        Ok(Flow {
            verdict: fleet.verdict(&expected, &published),
            published,
            elapsed: Duration::from_nanos(elapsed),
            server_cpu: self.server.cpu_since(server_mark.as_ref()),
            receiver_cpu: this.cpu_since(own_mark.as_ref()),
            memory: (memory, self.server.memory()),
        })
    }

    /// Publishes by `plan`, receiving meanwhile; returns when the last answer is there.
    fn publish(&mut self, fleet: &mut Fleet, plan: &Plan, limit: Duration) -> Result<Published> {
        self.progress.phase("publishing");
        let progress = &mut *self.progress;
        let publisher = Publisher::start(plan, &fleet.tally.times)?;
        let finished = fleet.run(limit, |fleet| {
            show_delivered(progress, fleet);
            publisher.is_finished()
        })?;
        if !finished {
            let (seconds, answered) = (limit.as_secs_f64(), publisher.answered());
            let why = format!("waited {seconds:.1} s for the publishing to end: {answered} events were acknowledged");
            return Err(why.into());
        }
        publisher.join()
    }

    /// The figures every flow has.
    fn put_flow(&mut self, flow: &Flow, fleet: &Fleet) {
        let Verdict { delivered, .. } = flow.verdict;
        let each = |cpu: Option<u64>| Some(cpu? as f64 / 1e3 / delivered as f64);
        let report = &mut self.report;
        report.put("event_wire_bytes", fleet.event_bytes());
        report.put("events_published", flow.published.events);
        report.put("elapsed_s", flow.elapsed.as_secs_f64());
        report.put("deliveries_per_s", delivered as f64 / flow.elapsed.as_secs_f64());
        report.put("server_cpu_us_per_delivery", each(flow.server_cpu));
        report.put("receiver_cpu_us_per_delivery", each(flow.receiver_cpu));
        report.put("deliveries_parsed", fleet.tally.parsed);
        report.put_latency("delivery", &fleet.tally.latency);
        report.put_latency("acknowledgement", &flow.published.acknowledged);
        if !flow.published.acknowledged_from_due.is_empty() {
            report.put_latency("acknowledgement_from_due", &flow.published.acknowledged_from_due);
        }
        self.put_growth(flow.memory.0, flow.memory.1);
        self.put_verdict(&flow.verdict);
    }

    fn put_growth(&mut self, before: Option<Memory>, after: Option<Memory>) {
        let (now, peak) = before.zip(after).map(|(before, after)| after.growth_kb(before)).unzip();
        self.report.put("server_memory_growth_kb", now);
        self.report.put("server_memory_peak_growth_kb", peak);
    }

    fn put_verdict(&mut self, verdict: &Verdict) {
        let report = &mut self.report;
        report.put("expected", verdict.expected);
        report.put("delivered", verdict.delivered);
        report.put("missing", verdict.missing);
        report.put("unexpected", verdict.unexpected);
        report.put("duplicates", verdict.duplicates);
        report.put("out_of_order", verdict.out_of_order);
        report.put("gaps", verdict.gaps);
        report.put("misnumbered", verdict.misnumbered);
        report.put("misdirected", verdict.misdirected);
        report.put("streams_lost", verdict.streams_lost);
        report.put("clean", verdict.is_clean());
    }
}

fn show_delivered(progress: &mut Progress, fleet: &Fleet) {
    progress.update(|| format!("{} delivered", human(fleet.tally.delivered as f64)));
}

/// A plan's addresses as rooms of a fleet: room n holds the streams of address n, rooms past those expect nothing.
struct Rooms {
    addresses: Vec<Address>,
    streams: Vec<u64>,
}

impl Rooms {
    /// One topic with all streams.
    fn one(topic: &str, streams: usize) -> Self {
        Self { addresses: vec![Address::topic(topic)], streams: vec![streams as u64] }
    }

    /// A stream for each of these.
    fn each(addresses: Vec<Address>) -> Self {
        Self { streams: vec![1; addresses.len()], addresses }
    }

    /// Makes them the next rooms of a fleet.
    fn add_to(&self, fleet: &mut Fleet) -> Result<()> {
        for (address, &streams) in self.addresses.iter().zip(&self.streams) {
            fleet.add_room(address, usize::try_from(streams)?)?;
        }
        Ok(())
    }

    fn plan(&self, target: &Target, pace: Pace, events: Events) -> Plan {
        Plan {
            server: target.url,
            addresses: self.addresses.clone(),
            first_number: 0,
            pace,
            event_bytes: events.event_bytes,
            connections: 1,
            patience: target.patience_s,
        }
    }

    fn expected(&self, published: &Published) -> Vec<u64> {
        let mut expected = vec![0; self.addresses.len()];
        for (number, _) in &published.sequences {
            expected[*number as usize % self.addresses.len()] += 1;
        }
        expected
    }
}

/// The memory of `streams` more streams, each, in bytes.
fn bytes_a_stream(before: Option<u64>, after: Option<u64>, streams: usize) -> Option<f64> {
    (streams > 0).then_some(())?;
    Some((after? as f64 - before? as f64) / streams as f64)
}

fn planned_events(per_second: f64, seconds: f64) -> usize {
    (per_second * seconds).ceil() as usize + 1
}

fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or(Duration::ZERO)
}
