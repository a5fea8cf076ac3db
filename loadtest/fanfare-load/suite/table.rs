//! The results as a table for people (Markdown) and as rows for programs.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Value, json};

use super::Judged;
use super::claims::{Goal, Spread, ratio};
use super::environment::Environment;
use crate::report::human;

pub fn markdown(judged: &[Judged], environment: &Environment, rounds: usize, quick: bool) -> String {
    let Environment { cores, cpu, kernel, started, .. } = environment;
    let mut text = format!(
        "{started}, {cores} cores ({cpu}), Linux {kernel}, generator on the same machine. Median of {rounds}, with the range.\n"
    );
    if quick {
        text.push_str(
            "A quick run: it shows that all works. The targets are meant for the full size, so figures are not judged here.\n",
        );
    }
    text.push_str("\n| what | Fanfare | beside it | ratio | target | |\n|---|---|---|---|---|---|\n");
    for row in judged {
        let Judged { claim, ours, beside, baseline, met } = row;
        let (ours_text, baseline_text) = match claim.goal {
            Goal::Clean => (met.map_or("not measured", |met| if met { "yes" } else { "no" }).to_owned(), String::new()),
            _ => (spread(*ours, claim.unit), format!("{}, {}", spread(*baseline, claim.unit), beside.label())),
        };
        let ratio = shown_ratio(row).map_or_else(String::new, human);
        let verdict = met.map_or("–", |met| if met { "met" } else { "**missed**" });
        // Writing into a String cannot fail.
        let _ = writeln!(
            text,
            "| {} | {ours_text} | {baseline_text} | {ratio} | {} | {verdict} |",
            claim.what,
            target(claim.goal, claim.unit)
        );
    }
    text
}

/// Not where a limit is what is judged: the ratio of two small growths says nothing.
fn shown_ratio(row: &Judged) -> Option<f64> {
    match row.claim.goal {
        Goal::RatioAtMost(_) | Goal::RatioAtLeast(_) | Goal::Reported => ratio(row.ours, row.baseline),
        Goal::AtMost(_) | Goal::Clean => None,
    }
}

fn spread(value: Option<Spread>, unit: &str) -> String {
    match value {
        None => "not measured".to_owned(),
        Some(Spread { low, median, high }) if low == high => format!("{} {unit}", human(median)),
        Some(Spread { low, median, high }) => {
            format!("{} {unit} ({}–{})", human(median), human(low), human(high))
        }
    }
}

pub fn target(goal: Goal, unit: &str) -> String {
    match goal {
        Goal::AtMost(limit) => format!("≤ {} {unit}", human(limit)),
        Goal::RatioAtMost(limit) => format!("ratio ≤ {}", human(limit)),
        Goal::RatioAtLeast(limit) => format!("ratio ≥ {}", human(limit)),
        Goal::Clean => "yes".to_owned(),
        Goal::Reported => "–".to_owned(),
    }
}

pub fn rows(judged: &[Judged]) -> impl Serialize {
    let spread = |value: Option<Spread>| {
        value.map(|Spread { low, median, high }| json!({ "low": low, "median": median, "high": high }))
    };
    let rows: Vec<Value> = judged
        .iter()
        .map(|row| {
            let claim = &row.claim;
            json!({
                "what": claim.what,
                "case": claim.case,
                "figure": claim.figure,
                "unit": claim.unit,
                "fanfare": spread(row.ours),
                row.beside.slug(): spread(row.baseline),
                "ratio": shown_ratio(row),
                "target": target(claim.goal, claim.unit),
                "met": row.met,
            })
        })
        .collect();
    rows
}
