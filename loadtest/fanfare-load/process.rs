//! A process's CPU time and memory, as the kernel keeps them.

use std::collections::HashMap;
use std::fs;

/// A process that can be asked; without a pid every answer is `None`.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    pid: Option<u32>,
}

/// CPU time of each thread so far, in nanoseconds. Taken per thread, from `schedstat`: that is exact to the nanosecond,
/// where `/proc/PID/stat` counts in hundredths of a second.
#[derive(Debug)]
pub struct CpuMark(HashMap<u32, u64>);

#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Resident now, in bytes.
    pub resident: u64,
    /// The most that was resident since the start or the last [`Process::forget_peak`], in bytes.
    pub peak: u64,
}

impl Memory {
    /// How much more is resident than `before`, now and at the peak, in kB. The kernel brings the peak up to date only
    /// where memory is given back, so right after it was forgotten it can lag behind what is resident.
    pub fn growth_kb(self, before: Self) -> (f64, f64) {
        let over = |bytes: u64| (bytes as f64 - before.resident as f64) / 1e3;
        (over(self.resident), over(self.peak).max(0.0))
    }
}

impl Process {
    pub fn new(pid: Option<u32>) -> Self {
        Self { pid }
    }

    pub fn this() -> Self {
        Self::new(Some(std::process::id()))
    }

    pub fn mark(self) -> Option<CpuMark> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid?)).ok()?;
        let threads = tasks.flatten().filter_map(|task| {
            let thread = task.file_name().to_str()?.parse().ok()?;
            let times = fs::read_to_string(task.path().join("schedstat")).ok()?;
            Some((thread, times.split_whitespace().next()?.parse().ok()?))
        });
        Some(CpuMark(threads.collect()))
    }

    /// CPU nanoseconds used since `mark`, user and kernel. What a thread did that has ended meanwhile is not in it.
    pub fn cpu_since(self, mark: Option<&CpuMark>) -> Option<u64> {
        let (before, now) = (mark?, self.mark()?);
        let spent = now.0.iter().map(|(thread, time)| time.saturating_sub(before.0.get(thread).copied().unwrap_or(0)));
        Some(spent.sum())
    }

    pub fn memory(self) -> Option<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid?)).ok()?;
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        Some(Memory { resident: kib("VmRSS:")? * 1024, peak: kib("VmHWM:")? * 1024 })
    }

    /// Makes `peak` start anew from what is resident now (proc(5), `clear_refs`, 5). Opening the streams may have
    /// needed more than what is about to be measured.
    pub fn forget_peak(self) -> bool {
        self.pid.is_some_and(|pid| fs::write(format!("/proc/{pid}/clear_refs"), "5").is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_figures_are_there_and_grow() {
        let this = Process::this();
        let mark = this.mark();
        let mut sum = 0_u64;
        for n in 0..20_000_000_u64 {
            sum = std::hint::black_box(sum.wrapping_add(n));
        }
        // A running thread's time is brought up to date when it is off the CPU.
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(this.cpu_since(mark.as_ref()).expect("a running process") > 100_000);
        let memory = this.memory().expect("a running process");
        assert!(memory.resident > 0 && memory.peak >= memory.resident);
    }

    #[test]
    fn no_process_no_figures() {
        let nobody = Process::new(None);
        assert!(nobody.mark().is_none() && nobody.memory().is_none() && !nobody.forget_peak());
        assert!(nobody.cpu_since(None).is_none());
    }
}
