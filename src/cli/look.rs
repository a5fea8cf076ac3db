//! Prints an event: as a line of JSON for programs, as a line in colours for people. An event's data reaches a terminal as
//! text only: control sequences in it could set the window's title or hide lines, and are escaped.

use std::borrow::Cow;
use std::env;
use std::fmt::Write as _;
use std::io::IsTerminal;

use anstyle::{AnsiColor, Effects, Style};
use clap::ValueEnum;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::value::RawValue;
use unicode_width::UnicodeWidthChar as _;

use crate::sse::Event;

/// The style of less important parts.
pub(super) const DIM: Style = Style::new().effects(Effects::DIMMED);

/// When there are colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    Always,
    Never,
}

impl Color {
    /// Whether output to `place` has colours.
    pub(super) fn is_on(self, place: &impl IsTerminal) -> bool {
        match self {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
                place.is_terminal() && !is_set("NO_COLOR") && env::var_os("TERM").is_none_or(|term| term != "dumb")
            }
        }
    }
}

/// Whether a terminal would do something at this character other than show it: control characters, and those that change
/// the direction of what is around them or are not seen (Unicode's Bidi_Control, and the zero-width ones).
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// A text with such characters written as JSON escapes.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unseen) {
        return text.into();
    }
    let mut plain = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            // The name of a code unit: all of these are below U+10000.
            c if is_unseen(c) => drop(write!(plain, "\\u{:04x}", u32::from(c))),
            c => plain.push(c),
        }
    }
    plain.into()
}

/// The envelope that the broker puts on a `data:` line.
#[derive(Debug, Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    topic: Option<Cow<'a, str>>,
    #[serde(borrow)]
    timestamp: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// An event as one line of JSON, its id first. Numbers are kept as they were written.
pub(super) fn json(event: &Event) -> String {
    let mut line = String::with_capacity(event.data.len() + 48);
    line.push('{');
    if let Some(id) = &event.id {
        let _ = write!(line, "\"id\":{}", serde_json::Value::from(id.as_str()));
    }
    let object = serde_json::from_str::<&RawValue>(&event.data).ok().and_then(|value| value.get().strip_prefix('{'));
    let rest = match object {
        // Line ends can only stand between tokens.
        Some(rest) => Cow::from(rest.trim_start().replace(['\n', '\r'], " ")),
        // Not a broker of ours.
        None => {
            let (kind, data) = (event.kind.as_str().into(), event.data.as_str().into());
            let (kind, data): (serde_json::Value, serde_json::Value) = (kind, data);
            Cow::from(format!("\"type\":{kind},\"data\":{data}}}"))
        }
    };
    if event.id.is_some() && !rest.starts_with('}') {
        line.push(',');
    }
    line.push_str(&rest);
    line
}

/// Shows events to people, in columns.
#[derive(Debug)]
pub(super) struct Columns {
    colored: bool,
    zone: TimeZone,
    topic: usize,
    kind: usize,
}

/// The widest that a column gets for those above and below to be in line with it.
const TOPIC_MAX: usize = 24;
const KIND_MAX: usize = 28;

/// The columns that data gets at least if it is longer than a line.
const ROOM_LEAST: usize = 48;

/// Where data begins that would get less.
const HANGING: usize = 4;

impl Columns {
    pub(super) fn new(colored: bool) -> Columns {
        Columns { colored, zone: TimeZone::system(), topic: 0, kind: 0 }
    }

    /// The lines of an event on a terminal so many columns wide.
    pub(super) fn show(&mut self, event: &Event, width: usize) -> String {
        let envelope: Option<Envelope<'_>> = serde_json::from_str(&event.data).ok();
        let (kind, topic, time, data) = match &envelope {
            Some(Envelope { kind, topic, timestamp, data }) => {
                (&**kind, topic.as_deref().unwrap_or_default(), self.time(timestamp.as_deref()), data.get())
            }
            None => (&*event.kind, "", self.time(None), &*event.data),
        };
        let (kind, topic, data) = (plain(kind), plain(topic), plain(data));
        self.topic = self.topic.max(cells(&topic).min(TOPIC_MAX));
        self.kind = self.kind.max(cells(&kind).min(KIND_MAX));
        let mut page = Page { text: String::new(), colored: self.colored, width: width.max(20), at: 0, indent: 0 };
        page.put(DIM, &time);
        page.pad(time.len() + 2);
        page.put(of_topic(&topic), &topic);
        page.pad(time.len() + 2 + self.topic + 2);
        page.put(Style::new().effects(Effects::BOLD), &kind);
        page.pad(time.len() + 2 + self.topic + 2 + self.kind + 2);
        // Data that would be squeezed into a corner begins below.
        let room = page.width.saturating_sub(page.at);
        if room < ROOM_LEAST && cells(&data) > room {
            page.indent = HANGING;
            page.break_line();
        }
        page.indent = page.at;
        highlight(&data, |style, text| page.put(style, text));
        page.text.push('\n');
        page.text
    }

    /// The time of day here.
    fn time(&self, timestamp: Option<&str>) -> String {
        let at = timestamp.and_then(|text| text.parse().ok()).unwrap_or_else(Timestamp::now);
        at.to_zoned_datetime(self.zone.clone()).strftime("%H:%M:%S%.3f").to_string()
    }
}

/// A topic has the same colour wherever it is seen.
fn of_topic(topic: &str) -> Style {
    const COLORS: [AnsiColor; 5] =
        [AnsiColor::Cyan, AnsiColor::Magenta, AnsiColor::Yellow, AnsiColor::Green, AnsiColor::Blue];
    let sum = topic.bytes().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    COLORS[sum % COLORS.len()].on_default()
}

/// The columns a text takes.
fn cells(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// Lines that are filled.
struct Page {
    text: String,
    colored: bool,
    width: usize,
    /// The column that is next.
    at: usize,
    /// Where a line begins that goes on with the one before.
    indent: usize,
}

impl Page {
    fn put(&mut self, style: Style, text: &str) {
        let style = if self.colored { style } else { Style::new() };
        let mut is_begun = false;
        for c in text.chars() {
            let cells = c.width().unwrap_or(0);
            if self.at + cells > self.width {
                if std::mem::take(&mut is_begun) {
                    let _ = write!(self.text, "{style:#}");
                }
                self.break_line();
            }
            if !std::mem::replace(&mut is_begun, true) {
                let _ = write!(self.text, "{style}");
            }
            self.text.push(c);
            self.at += cells;
        }
        if is_begun {
            let _ = write!(self.text, "{style:#}");
        }
    }

    fn break_line(&mut self) {
        self.text.truncate(self.text.trim_end_matches(' ').len());
        self.text.push('\n');
        self.at = 0;
        self.pad(self.indent);
    }

    /// Pads up to this column, by two spaces at least.
    fn pad(&mut self, column: usize) {
        let column = if self.at == 0 { column } else { column.max(self.at + 2) };
        let _ = write!(self.text, "{:1$}", "", column - self.at);
        self.at = column;
    }
}

/// Gives the pieces of a JSON text, each with its style. Text that is no JSON is passed on too.
fn highlight(text: &str, mut put: impl FnMut(Style, &str)) {
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (style, length) = match first {
            '"' => {
                let mut escaped = false;
                let end = rest[1..].find(|c| {
                    let is_end = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    is_end
                });
                let length = end.map_or(rest.len(), |end| end + 2);
                match rest[length..].trim_start().starts_with(':') {
                    true => (AnsiColor::Blue.on_default(), length),
                    false => (AnsiColor::Green.on_default(), length),
                }
            }
            '{' | '}' | '[' | ']' | ',' | ':' => (DIM, 1),
            c if c.is_whitespace() => (Style::new(), c.len_utf8()),
            c => {
                let end = rest.find(|c: char| "{}[],:\"".contains(c) || c.is_whitespace());
                (
                    if c.is_alphabetic() { AnsiColor::Magenta } else { AnsiColor::Yellow }.on_default(),
                    end.unwrap_or(rest.len()),
                )
            }
        };
        put(style, &rest[..length]);
        rest = &rest[length..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, id: Option<&str>, data: &str) -> Event {
        Event { kind: kind.to_owned(), data: data.to_owned(), id: id.map(str::to_owned) }
    }

    #[test]
    fn a_line_of_json_is_to_the_letter() {
        for (id, data, line) in [
            (Some("e-1"), r#"{"type":"a","data":{"n":1e400}}"#, r#"{"id":"e-1","type":"a","data":{"n":1e400}}"#),
            (Some("\"\\"), "{}", r#"{"id":"\"\\"}"#),
            (Some("e-1"), "{ \n}", r#"{"id":"e-1"}"#),
            (None, "{\n\"a\":\r1}", r#"{"a": 1}"#),
            (Some("e-1"), "two\nlines", r#"{"id":"e-1","type":"t","data":"two\nlines"}"#),
            (None, "{\"a\":", r#"{"type":"t","data":"{\"a\":"}"#),
            (None, "[1]", r#"{"type":"t","data":"[1]"}"#),
        ] {
            assert_eq!(json(&event("t", id, data)), line);
        }
    }

    #[test]
    fn nothing_but_text_is_shown() {
        for (text, shown) in [
            ("a\u{1b}]0;title\u{7}b", "a\\u001b]0;title\\u0007b"),
            ("\u{9b}31m\u{7f}\r\n\t", "\\u009b31m\\u007f\\u000d\\u000a\\u0009"),
            ("\u{202e}gnp.exe\u{200b}", "\\u202egnp.exe\\u200b"),
            ("\u{e4} \u{1f600} \u{6771}", "\u{e4} \u{1f600} \u{6771}"),
        ] {
            assert_eq!(plain(text), shown);
        }
        let hostile =
            r#"{"type":"\u001b[2J","topic":"\u009b1m","timestamp":"\u001b","data":{"a":"ZZ"}}"#.replace("ZZ", "\u{9b}");
        let shown = Columns::new(false).show(&event("t", None, &hostile), 80);
        assert!(!shown.trim_end_matches('\n').contains(is_unseen), "{shown:?}");
    }

    #[test]
    fn lines_are_no_longer_than_the_terminal() {
        let data = format!(
            r#"{{"type":"a.type","topic":"topic","data":{{"text":"{}","n":[1,true]}}}}"#,
            "\u{6771}b".repeat(90)
        );
        for width in [20, 40, 79, 80, 200] {
            for colored in [false, true] {
                let shown = Columns::new(colored).show(&event("t", None, &data), width);
                let mut bare = String::new();
                let mut in_sequence = false;
                for c in shown.chars() {
                    match c {
                        '\u{1b}' => in_sequence = true,
                        'm' if in_sequence => in_sequence = false,
                        c if !in_sequence => bare.push(c),
                        _ => {}
                    }
                }
                for line in bare.lines() {
                    assert!(cells(line) <= width, "{width}: {line:?}");
                }
                let joined: String = bare.lines().map(str::trim).collect();
                assert!(joined.ends_with(r#"b","n":[1,true]}"#), "{joined}");
            }
        }
    }

    #[test]
    fn the_pieces_of_a_text_are_all_of_it() {
        for text in
            [r#"{"a":"b\"c\\","n":-1.5e3,"t":[true,null]}"#, "no json", "\"not ended", "\"\\", "", "\u{e4}:\u{a0}{"]
        {
            let mut all = String::new();
            highlight(text, |_, piece| {
                assert!(!piece.is_empty());
                all.push_str(piece);
            });
            assert_eq!(all, text);
        }
    }
}
