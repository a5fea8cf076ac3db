//! What arrived, over all streams: counts, latencies, and the moment of the last delivery.

use std::sync::Arc;

use hdrhistogram::Histogram;

use crate::clock::SendTimes;

/// A histogram of nanoseconds up to ten minutes, exact to three digits.
pub fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 600_000_000_000, 3).expect("constant, valid bounds")
}

pub struct Tally {
    pub times: Arc<SendTimes>,
    /// The moment of the read being taken apart, in nanoseconds since the start.
    pub now: u64,
    /// Events a stream had not had before.
    pub delivered: u64,
    /// Those of them that had to be parsed: where these are many, the receiver is slower than it should be.
    pub parsed: u64,
    /// Events a stream had already had.
    pub duplicates: u64,
    /// Events that came after one with a higher sequence.
    pub out_of_order: u64,
    /// `gap` events: the server said that something is lost.
    pub gaps: u64,
    pub heartbeats: u64,
    /// Streams given up because what they sent is no event stream, or an event has no id.
    pub malformed: u64,
    /// Streams answered with anything but 200 and chunks.
    pub refused: u64,
    /// Streams that ended without being asked to.
    pub ended: u64,
    /// From just before the POST until the event was read from its stream.
    pub latency: Histogram<u64>,
    /// When the last new event was read.
    pub last_delivery: u64,
}

impl Tally {
    pub fn new(times: Arc<SendTimes>) -> Self {
        Self {
            times,
            now: 0,
            delivered: 0,
            parsed: 0,
            duplicates: 0,
            out_of_order: 0,
            gaps: 0,
            heartbeats: 0,
            malformed: 0,
            refused: 0,
            ended: 0,
            latency: latency_histogram(),
            last_delivery: 0,
        }
    }

    /// Counts one event new to its stream.
    pub fn deliver(&mut self, number: Option<u64>) {
        self.delivered += 1;
        self.last_delivery = self.now;
        if let Some(sent) = number.and_then(|number| self.times.of(number)) {
            self.latency.saturating_record(self.now.saturating_sub(sent));
        }
    }
}
