//! What is going on, on standard error: one line kept up to date on a terminal, a plain line now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

pub struct Progress {
    terminal: bool,
    prefix: String,
    shown_at: Option<Instant>,
    phase: String,
}

impl Progress {
    pub fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), prefix: String::new(), shown_at: None, phase: String::new() }
    }

    /// Goes before every line from now on: which run of how many.
    pub fn set_prefix(&mut self, prefix: String) {
        self.prefix = prefix;
    }

    /// Says what has begun, and returns to be told how far it is.
    pub fn phase(&mut self, phase: impl Into<String>) {
        self.phase = phase.into();
        self.shown_at = None;
        self.update(String::new);
    }

    /// How far the phase is. Cheap to call often: `detail` is only made when it is shown.
    pub fn update(&mut self, detail: impl FnOnce() -> String) {
        let interval = Duration::from_millis(if self.terminal { 200 } else { 10_000 });
        if self.shown_at.is_some_and(|at| at.elapsed() < interval) {
            return;
        }
        self.shown_at = Some(Instant::now());
        let line = format!("{}{}  {}", self.prefix, self.phase, detail());
        let line = line.trim_end();
        let mut stderr = std::io::stderr().lock();
        // A progress line that cannot be written is no reason to stop measuring.
        let _ = if self.terminal {
            write!(stderr, "\r\x1b[K{line}").and_then(|()| stderr.flush())
        } else {
            writeln!(stderr, "{line}")
        };
    }

    /// Leaves the line free for other output.
    pub fn clear(&mut self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}
