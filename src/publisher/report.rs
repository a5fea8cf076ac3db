//! Tells of events that were dropped: at once, and then seldom, however many they are.

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
    /// Those since the last report, by reason.
    pub dropped: Dropped,
    /// Why the last one was dropped that the broker refused or could not be asked about: its own words.
    pub why: Option<String>,
    /// What became of all that was published so far.
    pub figures: Figures,
}

/// Whom it is told.
#[derive(Clone)]
pub(super) struct OnReport(pub(super) Arc<dyn Fn(&Report) + Send + Sync>);

impl fmt::Debug for OnReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnReport")
    }
}

/// The one who tells it.
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

    /// Reports for as long as it is run.
    pub(super) async fn run(&self) -> std::convert::Infallible {
        loop {
            self.queue.has_dropped().await;
            self.report();
            sleep(EVERY).await;
        }
    }

    /// Reports what was dropped since it did so before, if anything was.
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
