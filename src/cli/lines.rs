//! The lines of the log, which strangers cannot fill (`trace/held.rs`).

use std::fmt;

use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::trace::held;

/// Writes lines by another format, except those that are held back. The line after these says how many they were, as its
/// last field.
#[derive(Debug)]
pub(super) struct Lines<F> {
    pub(super) format: F,
    pub(super) is_json: bool,
}

impl<S, N, F> FormatEvent<S, N> for Lines<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let held = match held::pass(event.metadata()) {
            // Of no line, nothing is written.
            None => return Ok(()),
            Some(0) => return self.format.format_event(ctx, writer, event),
            Some(held) => held,
        };
        let mut line = String::new();
        self.format.format_event(ctx, Writer::new(&mut line), event)?;
        let line = line.trim_end_matches('\n');
        match line.strip_suffix('}').filter(|_| self.is_json) {
            Some(open) => writeln!(writer, "{open},\"held_back\":{held}}}"),
            None => writeln!(writer, "{line} held_back={held}"),
        }
    }
}
