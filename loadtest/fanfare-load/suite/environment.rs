//! On what a suite ran, so that its figures can be compared with later ones.

use std::path::Path;
use std::process::Command;

use serde::Serialize;

use crate::clock::{date, rfc3339, unix_now};
use crate::target::raise_descriptor_limit;

#[derive(Debug, Serialize)]
pub struct Environment {
    pub started: String,
    pub cores: usize,
    pub cpu: String,
    pub memory_mb: Option<u64>,
    pub kernel: String,
    /// Over 1, 5 and 15 minutes, at the start: says whether something else was running.
    pub load_average: String,
    pub tcp_congestion_control: String,
    pub file_descriptors: u64,
    pub rustc: Option<String>,
    pub commit: Option<String>,
    pub fanfare: Option<String>,
    pub fanfare_load: &'static str,
}

impl Environment {
    pub fn read(fanfare: &Path) -> Self {
        let cpu_info = text("/proc/cpuinfo");
        let cpu = field(&cpu_info, "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
        let memory_kb = field(&text("/proc/meminfo"), "MemTotal")
            .and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
        Self {
            started: rfc3339(unix_now()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu,
            memory_mb: memory_kb.map(|kb| kb / 1024),
            kernel: text("/proc/sys/kernel/osrelease"),
            load_average: text("/proc/loadavg"),
            tcp_congestion_control: text("/proc/sys/net/ipv4/tcp_congestion_control"),
            file_descriptors: raise_descriptor_limit(),
            rustc: first_line(Command::new("rustc").arg("--version")),
            commit: first_line(Command::new("git").args(["describe", "--always", "--dirty"])),
            fanfare: first_line(Command::new(fanfare).arg("--version")),
            fanfare_load: env!("CARGO_PKG_VERSION"),
        }
    }

    /// `2026-11-23-2-cores-amd-epyc`
    pub fn directory(&self) -> String {
        let machine: String = format!("{} cores {}", self.cores, self.cpu)
            .to_ascii_lowercase()
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join("-");
        format!("{}-{machine}", date(unix_now()))
    }
}

/// A file's text, without the line end; empty where there is none.
fn text(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim_end().to_owned()
}

/// The value in the first `name : value` line.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (known, value) = line.split_once(':')?;
        (known.trim() == name).then(|| value.trim().to_owned())
    })
}

fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.lines().next()?.to_owned())
}
