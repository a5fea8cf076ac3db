//! How the view is drawn: panels beside each other where there is room, else below each other.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Instant;

use jiff::Timestamp;
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, BorderType, Paragraph, Row, Sparkline, Table, Wrap};

use super::model::{Link, Model, Quantiles, Series, Stats, Topic};
use crate::cli::figures::{bytes, count, milliseconds, rate, span};
use crate::cli::look::plain;

/// From this width on panels stand beside each other.
const WIDE: u16 = 72;

const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const GOOD: Style = Style::new().fg(Color::Green);
const BAD: Style = Style::new().fg(Color::Red);
const IN: Style = Style::new().fg(Color::Cyan);
const OUT: Style = Style::new().fg(Color::Magenta);

/// Draws how things are.
pub(super) fn draw(model: &Model, frame: &mut Frame<'_>) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]).areas(frame.area());
    draw_head(model, frame, head);
    draw_foot(model, frame, foot);
    let Some(stats) = &model.stats else {
        return frame.render_widget(Paragraph::new("waiting for the first figures …").style(DIM).centered(), body);
    };
    match body.width >= WIDE {
        true => {
            let rows = [Constraint::Length(8), Constraint::Length(8), Constraint::Fill(1)];
            let [upper, lower, rest] = Layout::vertical(rows).areas(body);
            let [left, middle, right] = Layout::horizontal([Constraint::Fill(1); 3]).areas(upper);
            frame.render_widget(panel("Streams", streams(stats)), left);
            draw_published(model, stats, frame, middle);
            draw_delivered(model, stats, frame, right);
            let [left, middle, right] = Layout::horizontal([Constraint::Fill(1); 3]).areas(lower);
            frame.render_widget(panel("Latency", latency(stats)), left);
            frame.render_widget(panel("Memory", memory(stats)), middle);
            frame.render_widget(panel("Trouble", trouble(stats)), right);
            draw_topics(stats, model.at, frame, rest);
        }
        false => {
            let heights = [8, 5, 5, 8, 8].map(Constraint::Length);
            let [first, second, third, fourth, fifth, rest] =
                Layout::vertical(heights.into_iter().chain([Constraint::Min(4)])).areas(body);
            frame.render_widget(panel("Streams", streams(stats)), first);
            draw_published(model, stats, frame, second);
            draw_delivered(model, stats, frame, third);
            frame.render_widget(panel("Trouble", trouble(stats)), fourth);
            frame.render_widget(panel("Latency", latency(stats)), fifth);
            draw_topics(stats, model.at, frame, rest);
        }
    }
}

fn draw_head(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let mut spans = vec![Span::styled(" fanfare ", BOLD)];
    if let Some(stats) = &model.stats {
        let style = if stats.status == "healthy" { GOOD } else { BAD };
        spans.extend([
            Span::raw(format!("{} ", plain(&stats.version))),
            Span::styled(plain(&stats.status).into_owned(), style.patch(BOLD)),
            Span::raw(format!(", up {}", span(stats.uptime_seconds))),
        ]);
        let set = stats.key_set.as_ref();
        if let Some(set) = set.filter(|set| set.keys == 0 || set.source == "cached") {
            let text = match set.keys {
                0 => ", no keys for tokens".to_owned(),
                _ => format!(", keys of {} ago", span(set.age_seconds.unwrap_or_default())),
            };
            spans.push(Span::styled(text, BAD));
        }
    }
    let line = Line::from(spans);
    let url = Line::styled(format!("{} ", plain(&model.url)), DIM).right_aligned();
    // Whoever looks knows where they look.
    if line.width() + 1 + url.width() <= area.width.into() {
        frame.render_widget(url, area);
    }
    frame.render_widget(line, area);
}

fn draw_foot(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Length(9)]).areas(area);
    let line = match &model.link {
        Link::Up => match model.at {
            Some(at) => Line::styled(at.strftime(" %Y-%m-%d %H:%M:%S UTC").to_string(), DIM),
            None => Line::default(),
        },
        Link::Cut { why, until } => {
            let left = until.saturating_duration_since(Instant::now()).as_secs_f64();
            Line::styled(format!(" cut: {}; again in {left:.0} s", plain(why)), BAD)
        }
        Link::Strange(why) => Line::styled(format!(" these are no stats: {}", plain(why)), BAD),
    };
    frame.render_widget(line, left);
    frame.render_widget(Line::styled("q leaves ", DIM).alignment(Alignment::Right), right);
}

fn block(title: &str) -> Block<'static> {
    Block::bordered().border_type(BorderType::Rounded).border_style(DIM).title(Span::styled(format!(" {title} "), BOLD))
}

fn panel(title: &str, lines: Vec<Line<'static>>) -> Paragraph<'static> {
    Paragraph::new(Text::from(lines)).wrap(Wrap { trim: false }).block(block(title))
}

/// A figure with its name, one a line.
fn figure(name: &str, value: impl Into<String>, style: Style) -> Line<'static> {
    Line::from(vec![Span::styled(format!("{name:<12}"), DIM), Span::styled(value.into(), style)])
}

/// Red where it is not zero.
fn alarming(n: u64) -> Style {
    if n > 0 { BAD } else { Style::new() }
}

fn streams(stats: &Stats) -> Vec<Line<'static>> {
    let states = &stats.states;
    let now = format!("{} of {}", count(stats.connected_clients), count(stats.max_clients));
    let others = [("carried", states.carried), ("ending", states.ending)];
    let others = others.map(|(name, n)| format!("{name} {}", count(n))).join(", ");
    vec![
        figure("now", now, BOLD),
        figure("opened", format!("{} a second", rate(stats.rates.opened)), Style::new()),
        figure("live", count(states.live), Style::new()),
        figure("replaying", count(states.replaying), Style::new()),
        figure("stalled", count(states.stalled), alarming(states.stalled)),
        Line::styled(others, DIM),
    ]
}

fn draw_published(model: &Model, stats: &Stats, frame: &mut Frame<'_>, area: Rect) {
    let rates = &stats.rates;
    let told = Told { events: rates.published, bytes: rates.published_bytes, all: stats.events };
    draw_rate("Events in", &told, &model.published, IN, frame, area);
}

fn draw_delivered(model: &Model, stats: &Stats, frame: &mut Frame<'_>, area: Rect) {
    let rates = &stats.rates;
    let told = Told { events: rates.delivered, bytes: rates.delivered_bytes, all: stats.streams.delivered };
    draw_rate("Events out", &told, &model.delivered, OUT, frame, area);
}

/// What is told of a rate besides how it was.
struct Told {
    events: f64,
    bytes: f64,
    all: u64,
}

fn draw_rate(title: &str, told: &Told, series: &Series, style: Style, frame: &mut Frame<'_>, area: Rect) {
    let block = block(title);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [line, graph, total] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]).areas(inner);
    let now = Line::from(vec![
        Span::styled(rate(told.events), style.patch(BOLD)),
        Span::raw("/s, "),
        Span::raw(format!("{}/s", bytes(told.bytes))),
    ]);
    frame.render_widget(now, line);
    let seen = series.last(graph.width.into());
    frame.render_widget(Sparkline::default().data(seen).style(style), graph);
    let all = format!("{} in all", count(told.all));
    let peak = format!("peak {}/s", count(series.most()));
    // Both, or the first.
    if all.len() + 2 + peak.len() <= total.width.into() {
        frame.render_widget(Line::styled(peak, DIM).right_aligned(), total);
    }
    frame.render_widget(Line::styled(all, DIM), total);
}

fn latency(stats: &Stats) -> Vec<Line<'static>> {
    let quantiles = |q: &Quantiles| {
        let (p50, p99) = (milliseconds(q.p50_ms), milliseconds(q.p99_ms));
        Line::from(vec![
            Span::styled(" p50 ", DIM),
            Span::raw(p50),
            Span::styled(" p99 ", DIM),
            Span::styled(p99, BOLD),
        ])
    };
    let slowest = match stats.slowest.events {
        0 => "nobody is behind".to_owned(),
        events => format!("{} events, {:.1} s", count(events), stats.slowest.seconds),
    };
    vec![
        Line::raw("publish, to its answer"),
        quantiles(&stats.latency.publish),
        Line::raw("fan-out, to the socket"),
        quantiles(&stats.latency.fanout),
        Line::raw("farthest behind"),
        Line::raw(format!("  {slowest}")),
    ]
}

fn memory(stats: &Stats) -> Vec<Line<'static>> {
    let history = &stats.history;
    let memory = stats.memory_bytes.map_or_else(|| "unknown".to_owned(), |n| bytes(n as f64));
    // They are longer than any other figure.
    let id = |name: &str, id: &str| {
        Line::from(vec![Span::styled(format!("{name} "), DIM), Span::raw(plain(id).into_owned())])
    };
    vec![
        figure("resident", memory, BOLD),
        figure("events kept", count(history.events), Style::new()),
        figure("", bytes(history.bytes as f64), Style::new()),
        figure("topics", count(history.topics), Style::new()),
        id("oldest", &history.oldest),
        id("newest", &history.newest),
    ]
}

fn trouble(stats: &Stats) -> Vec<Line<'static>> {
    let streams = &stats.streams;
    let requests = stats.problems.values().fold(0, |sum: u64, n| sum.saturating_add(*n));
    vec![
        figure("gaps", count(streams.gaps), alarming(streams.gaps)),
        figure("stalls", count(streams.stalls), alarming(streams.stalls)),
        figure("refused", format!("{} streams", count(stats.refused)), alarming(stats.refused)),
        figure("", format!("{} requests", count(requests)), alarming(requests)),
        Line::styled(reasons("closed", &streams.closed), DIM),
        Line::styled(reasons("refused", &stats.problems), DIM),
    ]
}

/// The reasons there were, the most frequent first.
fn reasons(what: &str, counts: &BTreeMap<String, u64>) -> String {
    let mut counts: Vec<_> = counts.iter().filter(|(_, n)| **n > 0).collect();
    counts.sort_by_key(|(_, n)| Reverse(**n));
    let counts: Vec<String> = counts.iter().map(|(reason, n)| format!("{} {}", plain(reason), count(**n))).collect();
    match counts.is_empty() {
        true => String::new(),
        false => format!("{what}: {}", counts.join(", ")),
    }
}

fn draw_topics(stats: &Stats, at: Option<Timestamp>, frame: &mut Frame<'_>, area: Rect) {
    let row = |topic: &Topic| {
        let ago = topic.last_published.zip(at).map(|(last, at)| at.as_second().saturating_sub(last.as_second()).max(0));
        let numbers = [
            rate(topic.rate),
            count(topic.events_published),
            bytes(topic.bytes_published as f64),
            count(topic.events),
            count(topic.listeners),
            ago.map(|s| span(s.unsigned_abs())).unwrap_or_default(),
        ];
        let name = Text::from(plain(&topic.topic).into_owned());
        Row::new(std::iter::once(name).chain(numbers.map(|text| Text::from(text).right_aligned())))
    };
    // What matters least goes first.
    let columns: &[(&str, u16)] =
        &[("events/s", 9), ("in all", 12), ("bytes", 9), ("kept", 9), ("listeners", 9), ("ago", 7)];
    let shown = match area.width {
        WIDE.. => columns.len(),
        50.. => 3,
        _ => 1,
    };
    let widths = columns[..shown].iter().map(|(_, width)| Constraint::Length(*width));
    let widths: Vec<Constraint> = std::iter::once(Constraint::Fill(1)).chain(widths).collect();
    let head = columns.iter().map(|(name, _)| Text::from(*name).right_aligned());
    let head = Row::new(std::iter::once(Text::from("topic")).chain(head)).style(DIM);
    let table = Table::new(stats.topics.iter().map(row), widths).header(head);
    frame.render_widget(table.block(block("Topics, busiest first")), area);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::cli::follow::News;
    use crate::sse::Event;

    #[test]
    fn it_draws_at_any_size() {
        let data = r#"{"timestamp":"2026-11-24T12:00:01Z","data":{"status":"healthy","connected_clients":1234567,
            "problems":{"bad_request":7},"key_set":{"keys":2,"source":"cached","age_seconds":7260},"streams":{"closed":{"client_closed":3}},
            "topics":[{"topic":"a\u001b[2J\u0000b","rate":1.5,"last_published":"2026-11-24T12:00:00Z"}]}}"#;
        let mut model = Model::new("http://gateway");
        let now = Instant::now();
        for (width, height) in [(1, 1), (20, 5), (40, 12), (71, 24), (72, 24), (80, 24), (200, 60)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal in memory");
            let mut drawn = |model: &Model| {
                terminal.draw(|frame| draw(model, frame)).expect("memory takes everything");
                terminal.backend().to_string()
            };
            drawn(&Model::new("http://gateway"));
            model.take(News::Event(Event { kind: "stats".to_owned(), data: data.to_owned(), id: None }), now);
            let text = drawn(&model);
            if width > WIDE {
                for part in [
                    "healthy",
                    "keys of 2h 01m ago",
                    "1,234,567",
                    "7 requests",
                    "client_closed 3",
                    "a\\u001b[2J\\u0000b",
                    "1.5",
                ] {
                    assert!(text.contains(part), "{width} x {height}: no {part:?} in\n{text}");
                }
            }
            model.take(News::Cut { why: "gone".to_owned(), wait: Duration::from_secs(9) }, Instant::now());
            // The seconds that are left depend on how busy the machine is.
            assert!(width < 40 || drawn(&model).contains("cut: gone; again in "));
        }
    }
}
