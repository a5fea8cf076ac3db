//! Reports dropped events: the first at once, and then at most every ten seconds, however many there are.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::sleep;

use super::queue::{Dropped, Figures, Queue};
use crate::sync::lock;

/// How long after one report the next one is made at the earliest.
const EVERY: Duration = Duration::from_secs(10);

/// Events that were dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Events dropped since the last report, by reason.
    pub dropped: Dropped,
    /// The reason for the last drop, in the broker's words, if the broker refused the event or could not be reached.
    pub why: Option<String>,
    /// Figures of all events that were published so far.
    pub figures: Figures,
}

/// The callback that gets the reports.
#[derive(Clone)]
pub(super) struct OnReport(pub(super) Arc<dyn Fn(&Report) + Send + Sync>);

impl fmt::Debug for OnReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnReport")
    }
}

/// Makes the reports.
#[derive(Debug)]
pub(super) struct Reporter {
    queue: Arc<Queue>,
    service: String,
    on_report: Option<OnReport>,
    told: Mutex<Dropped>,
}

impl Reporter {
    pub(super) fn new(queue: Arc<Queue>, service: String, on_report: Option<OnReport>) -> Reporter {
        Reporter { queue, service, on_report, told: Mutex::default() }
    }

    /// Reports for as long as it is polled.
    pub(super) async fn run(&self) -> std::convert::Infallible {
        loop {
            self.queue.has_dropped().await;
            self.report();
            sleep(EVERY).await;
        }
    }

    /// Reports the events that were dropped since the last report, if there are any.
    pub(super) fn report(&self) {
        let (figures, why) = self.queue.drops();
        let told = std::mem::replace(&mut *lock(&self.told), figures.dropped);
        let dropped = figures.dropped.since(&told);
        if dropped.total() == 0 {
            return;
        }
        let report = Report { dropped, why, figures };
        match &self.on_report {
            Some(OnReport(tell)) => tell(&report),
            None => self.warn(&report),
        }
    }

    fn warn(&self, report: &Report) {
        let Dropped { invalid, full, refused, expired, closed } = report.dropped;
        let why = report.why.as_deref().unwrap_or_default();
        let service = &self.service;
        tracing::warn!(service, invalid, full, refused, expired, closed, why, "events were dropped");
    }
}
