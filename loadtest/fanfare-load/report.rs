//! One run's figures: a table for people, an object for programs. Names end in their unit.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};
use serde_json::Value;

#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub scenario: &'static str,
    /// The arguments it ran with.
    pub parameters: Value,
    pub figures: Figures,
    /// What was waited for in vain, or ended before its time: sentences without a full stop.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unmet: Vec<String>,
}

/// In the order in which they were put; a figure that could not be measured is `null`.
#[derive(Debug, Clone, Default)]
pub struct Figures(Vec<(String, Value)>);

impl Report {
    pub fn new(scenario: &'static str, parameters: &impl Serialize) -> Self {
        let parameters = serde_json::to_value(parameters).unwrap_or_default();
        Self { scenario, parameters, figures: Figures::default(), unmet: Vec::new() }
    }

    /// Sets a figure; floats are kept to three decimals.
    pub fn put(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        let value = match value.into() {
            // Three decimals are already more than two runs agree on.
            Value::Number(number) if number.is_f64() => {
                number.as_f64().map_or(Value::Null, |float| ((float * 1e3).round() / 1e3).into())
            }
            other => other,
        };
        let name = name.into();
        match self.figures.0.iter_mut().find(|(known, _)| *known == name) {
            Some(figure) => figure.1 = value,
            None => self.figures.0.push((name, value)),
        }
    }

    /// The percentiles of a histogram of nanoseconds, in microseconds.
    pub fn put_latency(&mut self, name: &str, nanoseconds: &Histogram<u64>) {
        for (percentile, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99_9", 0.999), ("max", 1.0)] {
            let value = (!nanoseconds.is_empty()).then(|| nanoseconds.value_at_quantile(quantile) as f64 / 1e3);
            self.put(format!("{name}_{percentile}_us"), value);
        }
    }

    pub fn number(&self, name: &str) -> Option<f64> {
        self.figures.0.iter().find(|(known, _)| known == name)?.1.as_f64()
    }

    /// No figure says that events were lost, repeated, reordered or invented, and nothing was waited for in vain.
    pub fn is_clean(&self) -> bool {
        let clean = |name: &str| name == "clean" || name.ends_with("_clean");
        self.unmet.is_empty() && self.figures.0.iter().all(|(name, value)| !clean(name) || value == &Value::Bool(true))
    }

    /// Two columns, the figures right-aligned.
    pub fn table(&self) -> String {
        let mut table = format!("{}\n", self.scenario);
        let width = self.figures.0.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in &self.figures.0 {
            let value = match value {
                Value::Null => "not measured".to_owned(),
                Value::Number(number) => human(number.as_f64().unwrap_or(f64::NAN)),
                other => other.to_string(),
            };
            let _ = writeln!(table, "  {name:<width$}  {value:>16}");
        }
        table
    }
}

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// A number with thousands set apart, and with as many decimals as its size is worth.
pub fn human(number: f64) -> String {
    let decimals = match number.abs() {
        _ if number.fract() == 0.0 => 0,
        size if size < 10.0 => 2,
        size if size < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{number:.decimals$}");
    let (sign, text) = text.strip_prefix('-').map_or(("", &text[..]), |rest| ("-", rest));
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        for (number, text) in [
            (0.0, "0"),
            (7.456, "7.46"),
            (42.25, "42.2"),
            (999.0, "999"),
            (1234.5, "1,234"),
            (-1_234_567.0, "-1,234,567"),
        ] {
            assert_eq!(human(number), text);
        }
    }

    #[test]
    fn figures_keep_their_order_and_absence() {
        let mut report = Report::new("paced", &());
        report.put("streams", 10);
        report.put("cpu_us", None::<f64>);
        report.put("a", 1.23456);
        assert_eq!(serde_json::to_string(&report.figures).expect("JSON"), r#"{"streams":10,"cpu_us":null,"a":1.235}"#);
        assert!(report.table().contains("not measured"));
        assert_eq!(report.number("streams"), Some(10.0));
    }
}
