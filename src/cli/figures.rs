//! Numbers as people read them.

/// `1234567` as `1,234,567`.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Something a second.
pub(super) fn rate(n: f64) -> String {
    match n {
        0.0 => "0".to_owned(),
        n if n < 99.95 => format!("{n:.1}"),
        n => count(n.round() as u64),
    }
}

/// In units of 1,000.
pub(super) fn bytes(n: f64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let (mut n, mut unit) = (n, 0);
    while n >= 999.5 && unit + 1 < units.len() {
        n /= 1000.0;
        unit += 1;
    }
    format!("{:.*} {}", if unit > 0 && n < 99.95 { 1 } else { 0 }, n, units[unit])
}

pub(super) fn milliseconds(ms: Option<f64>) -> String {
    match ms {
        None => "-".to_owned(),
        Some(ms) if ms < 9.995 => format!("{ms:.2} ms"),
        Some(ms) if ms < 999.5 => format!("{ms:.0} ms"),
        Some(ms) => format!("{:.1} s", ms / 1000.0),
    }
}

pub(super) fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h {:02}m", minutes % 60),
        _ => format!("{days}d {:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let counts = [0, 999, 1000, 12_345, 1_234_567, u64::MAX].map(count);
        assert_eq!(counts, ["0", "999", "1,000", "12,345", "1,234,567", "18,446,744,073,709,551,615"]);
        assert_eq!([0.0, 0.25, 99.9, 99.96, 12_345.6].map(rate), ["0", "0.2", "99.9", "100", "12,346"]);
        assert_eq!(
            [0.0, 999.0, 999.6, 99_949.0, 1.5e6, 2e18].map(bytes),
            ["0 B", "999 B", "1.0 kB", "99.9 kB", "1.5 MB", "2000000 TB"]
        );
        assert_eq!([0, 59, 61, 3720, 90_000].map(span), ["0s", "59s", "1m 01s", "1h 02m", "1d 01h"]);
        let times = [None, Some(0.25), Some(12.4), Some(1500.0)].map(milliseconds);
        assert_eq!(times, ["-", "0.25 ms", "12 ms", "1.5 s"]);
    }
}
