//! The results as a picture: for each figure two bars, Fanfare and what is beside it, and a mark at the target. Each figure
//! has its own scale. Plain SVG, with colours that read on light and on dark.

use std::fmt::Write as _;

use super::Judged;
use super::claims::{Goal, Spread};
use crate::report::human;

const WIDTH: f64 = 860.0;
const LABEL_Y: f64 = 14.0;
const BAR_HEIGHT: f64 = 13.0;
const BAR_X: f64 = 108.0;
/// Leaves room for the value behind the longest bar.
const BAR_WIDTH: f64 = 588.0;
/// About what a value takes.
const VALUE_WIDTH: f64 = 80.0;
const ROW_HEIGHT: f64 = 66.0;
const TOP: f64 = 34.0;

const STYLE: &str = "\
text { font: 13px system-ui, sans-serif; fill: #24292f }\n\
.small { font-size: 12px; fill: #57606a }\n\
.ours { fill: #0969da } .plain { fill: #8c959f } .target { stroke: #cf222e; stroke-width: 2 }\n\
@media (prefers-color-scheme: dark) {\n\
text { fill: #e6edf3 } .small { fill: #9198a1 }\n\
.ours { fill: #58a6ff } .plain { fill: #6e7681 } .target { stroke: #ff7b72 }\n\
}";

pub fn svg(judged: &[Judged]) -> String {
    let rows: Vec<&Judged> = judged.iter().filter(|row| row.ours.is_some()).collect();
    let height = TOP + ROW_HEIGHT * rows.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"Fanfare beside what it is compared with\">\n<style>\n{STYLE}\n</style>\n\
         <line class=\"target\" x1=\"2\" x2=\"2\" y1=\"4\" y2=\"20\"/>\
         <text class=\"small\" x=\"10\" y=\"16\">the target; each figure has its own scale</text>\n"
    );
    for (index, row) in rows.iter().enumerate() {
        figure(&mut svg, row, TOP + ROW_HEIGHT * index as f64);
    }
    svg.push_str("</svg>\n");
    svg
}

fn figure(svg: &mut String, row: &Judged, y: f64) {
    let median = |spread: Option<Spread>| spread.map(|spread| spread.median.max(0.0));
    let (ours, plain) = (median(row.ours), median(row.baseline));
    let target = match row.claim.goal {
        Goal::AtMost(limit) => Some(limit),
        Goal::RatioAtMost(limit) | Goal::RatioAtLeast(limit) => plain.map(|plain| plain * limit),
        Goal::Clean | Goal::Reported => None,
    };
    let largest = [ours, plain, target].into_iter().flatten().fold(f64::MIN_POSITIVE, f64::max);
    let x = |value: f64| BAR_X + BAR_WIDTH * value / largest;
    let verdict = row.met.map_or("", |met| if met { " – met" } else { " – missed" });
    // Writing into a String cannot fail.
    let _ = writeln!(svg, "<text x=\"0\" y=\"{}\">{}{verdict}</text>", y + LABEL_Y, escaped(&row.claim.what));
    let bars_y = y + LABEL_Y + 7.0;
    for (line, (name, class, value)) in
        [("Fanfare", "ours", ours), (row.beside.label(), "plain", plain)].into_iter().enumerate()
    {
        let bar_y = bars_y + line as f64 * (BAR_HEIGHT + 3.0);
        let text_y = bar_y + BAR_HEIGHT - 2.5;
        let _ = writeln!(svg, "<text class=\"small\" x=\"8\" y=\"{text_y}\">{name}</text>");
        let Some(value) = value else { continue };
        let end = x(value);
        // Beside the bar, or beside the mark where that stands in the way.
        let text_x = match target.map(x) {
            Some(mark) if (end..end + VALUE_WIDTH).contains(&mark) => mark + 6.0,
            _ => end + 6.0,
        };
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{BAR_X}\" y=\"{bar_y}\" width=\"{:.1}\" height=\"{BAR_HEIGHT}\"/>\
             <text class=\"small\" x=\"{:.1}\" y=\"{text_y}\">{} {}</text>",
            (end - BAR_X).max(1.0),
            text_x,
            human(value),
            row.claim.unit,
        );
    }
    if let Some(target) = target {
        let at = x(target);
        let _ = writeln!(
            svg,
            "<line class=\"target\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{}\" y2=\"{}\"/>",
            bars_y - 2.0,
            bars_y + 2.0 * BAR_HEIGHT + 5.0
        );
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
