//! What has to be reached, as one table: each row names a figure of a scenario and how it is judged.

use super::Size;
use super::cases::HTTP2_STREAMS;

/// How a figure is judged. Ratios are Fanfare's figure over that of what is beside it, in the same run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    AtMost(f64),
    RatioAtMost(f64),
    RatioAtLeast(f64),
    /// Every run is clean: each event once, in order, on every stream.
    Clean,
    /// Not at all: it is there to be known.
    Reported,
}

pub struct Claim {
    pub what: String,
    pub case: &'static str,
    /// The figure's name in the scenario's report; empty for [`Goal::Clean`].
    pub figure: String,
    pub unit: &'static str,
    /// Figures are kept in the units of their names, and shown divided by this.
    pub scale: f64,
    pub goal: Goal,
}

/// "Does not depend on" is judged with this much room for noise.
const NOISE: f64 = 1.1;

/// The targets, for streams as many as `size` has.
pub fn claims(size: &Size) -> Vec<Claim> {
    let streams = size.streams;
    let claim = |what: String, case, figure: &str, unit, scale, goal| Claim {
        what,
        case,
        figure: figure.to_owned(),
        unit,
        scale,
        goal,
    };
    let ends = |steps: &[usize]| (steps[0], steps[steps.len() - 1]);
    let (first, last) = ends(&size.idle_steps);
    let ((tls_first, tls_last), (http2_first, http2_last)) = (ends(&size.tls_steps), ends(&size.http2_steps));
    vec![
        claim(
            format!("memory per additional idle stream, {first} to {last} streams"),
            "idle",
            "bytes_per_additional_stream",
            "kB",
            1e3,
            Goal::AtMost(0.25),
        ),
        claim(
            format!("memory per stream all-in, {streams} streams"),
            "idle",
            &format!("bytes_per_stream_all_in_at_{streams}"),
            "kB",
            1e3,
            Goal::AtMost(1.0),
        ),
        claim(
            format!("memory per additional idle stream over TLS, {tls_first} to {tls_last} streams"),
            "idle-tls",
            "bytes_per_additional_stream",
            "kB",
            1e3,
            Goal::AtMost(24.0),
        ),
        claim(
            format!(
                "memory per additional idle stream over HTTP/2, {HTTP2_STREAMS} a connection, {http2_first} to \
                 {http2_last} streams"
            ),
            "idle-http2",
            "bytes_per_additional_stream",
            "kB",
            1e3,
            Goal::AtMost(3.0),
        ),
        claim(
            format!("paced, {streams} streams: server CPU a delivery"),
            "paced",
            "server_cpu_us_per_delivery",
            "µs",
            1.0,
            Goal::RatioAtMost(1.0),
        ),
        claim(
            format!("paced, {} streams over TLS: server CPU a delivery", size.tls_streams),
            "paced-tls",
            "server_cpu_us_per_delivery",
            "µs",
            1.0,
            Goal::Reported,
        ),
        claim(
            format!("paced, {streams} streams over HTTP/2, {HTTP2_STREAMS} a connection: server CPU a delivery"),
            "paced-http2",
            "server_cpu_us_per_delivery",
            "µs",
            1.0,
            Goal::Reported,
        ),
        claim(
            format!("saturated, {streams} streams: deliveries a second"),
            "burst",
            "deliveries_per_s",
            "/s",
            1.0,
            Goal::RatioAtLeast(20.0),
        ),
        claim("saturated: in order, none missing".to_owned(), "burst", "", "", 1.0, Goal::Clean),
        claim(
            "saturated: memory growth at its peak".to_owned(),
            "burst",
            "server_memory_peak_growth_kb",
            "MB",
            1e3,
            Goal::AtMost(32.0),
        ),
        claim(
            format!("acknowledgement p99 while fanning out to {streams} streams"),
            "ack",
            "acknowledgement_p99_us",
            "ms",
            1e3,
            Goal::AtMost(5.0),
        ),
        claim("opening streams".to_owned(), "open", "opens_per_s", "/s", 1.0, Goal::RatioAtLeast(0.9)),
        claim(
            "opening streams, each with a token (HS256)".to_owned(),
            "open-tokens",
            "opens_per_s",
            "/s",
            1.0,
            Goal::RatioAtLeast(0.8),
        ),
        claim(
            format!("an event's CPU with {} other streams, to one stream alone", streams - 1),
            "topics",
            "beside_others_to_alone",
            "×",
            1.0,
            Goal::AtMost(NOISE),
        ),
        claim(
            format!("an event's CPU with {streams} topics of one stream, to one stream alone"),
            "topics",
            "many_topics_to_alone",
            "×",
            1.0,
            Goal::RatioAtMost(NOISE),
        ),
        claim(
            format!("an event's CPU for one user beside {} others' streams, to one stream alone", streams - 1),
            "users",
            "beside_others_to_alone",
            "×",
            1.0,
            Goal::AtMost(NOISE),
        ),
        claim(
            format!("an event's CPU for each of {streams} users in turn, to one stream alone"),
            "users",
            "many_users_to_alone",
            "×",
            1.0,
            Goal::RatioAtMost(NOISE),
        ),
        claim(
            "events for one user: at that user's stream and at no other".to_owned(),
            "users",
            "",
            "",
            1.0,
            Goal::Clean,
        ),
        claim(
            format!("{streams} streams back at once, {} events missed: all caught up", size.missed),
            "resume",
            "",
            "",
            1.0,
            Goal::Clean,
        ),
        claim(
            "streams back at once: memory growth at its peak".to_owned(),
            "resume",
            "server_memory_peak_growth_kb",
            "MB",
            1e3,
            Goal::AtMost(64.0),
        ),
        claim(
            format!("{last} idle streams: CPU a heartbeat"),
            "idle",
            "server_cpu_us_per_heartbeat",
            "µs",
            1.0,
            Goal::RatioAtMost(1.0),
        ),
    ]
}

/// A median with the range of the rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

impl Spread {
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() {
            0 => return None,
            odd if odd % 2 == 1 => values[middle],
            _ => (values[middle - 1] + values[middle]) / 2.0,
        };
        Some(Self { low: values[0], median, high: values[values.len() - 1] })
    }
}

impl Goal {
    /// Whether it is met; `None` if what it needs was not measured.
    pub fn is_met(self, ours: Option<Spread>, baseline: Option<Spread>, clean: Option<bool>) -> Option<bool> {
        let ratio = ratio(ours, baseline);
        match self {
            Self::AtMost(limit) => Some(ours?.median <= limit),
            Self::RatioAtMost(limit) => Some(ratio? <= limit),
            Self::RatioAtLeast(limit) => Some(ratio? >= limit),
            Self::Clean => clean,
            Self::Reported => None,
        }
    }
}

pub fn ratio(ours: Option<Spread>, baseline: Option<Spread>) -> Option<f64> {
    let (ours, baseline) = (ours?.median, baseline?.median);
    (baseline > 0.0).then(|| ours / baseline)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let median = |values: &[f64]| Spread::of(values.to_vec()).map(|spread| spread.median);
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
    }

    #[test]
    fn judgements() {
        let spread = |value: f64| Spread::of(vec![value]);
        let judge = |goal: Goal, ours, baseline| goal.is_met(ours, baseline, None);
        assert_eq!(judge(Goal::AtMost(5.0), spread(4.0), None), Some(true));
        assert_eq!(judge(Goal::RatioAtLeast(20.0), spread(39.0), spread(2.0)), Some(false));
        assert_eq!(judge(Goal::RatioAtMost(1.0), spread(2.0), spread(2.0)), Some(true));
        assert_eq!(judge(Goal::RatioAtMost(1.0), spread(2.0), None), None);
        assert_eq!(Goal::Clean.is_met(None, None, Some(false)), Some(false));
        assert_eq!(judge(Goal::Reported, spread(1.0), spread(1.0)), None);
    }
}
