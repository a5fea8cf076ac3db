//! This process in the kernel's figures (`proc_pid_stat(5)`, `proc_pid_statm(5)`), and its limits, raised at start.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Its use of memory, CPU and files. A figure that the system does not give is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Resident memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Processor time so far, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Open files, sockets included. Known since Linux 6.2.
    pub open_files: Option<u64>,
    /// How many there may be.
    pub max_files: Option<u64>,
}

impl Usage {
    /// Asks the system.
    pub fn read() -> Usage {
        Usage {
            memory_bytes: memory_bytes(),
            cpu_seconds: cpu_seconds(),
            // To list them would take milliseconds; their number is the directory's size.
            open_files: fs::metadata("/proc/self/fd").ok().map(|files| files.size()).filter(|&size| size > 0),
            max_files: getrlimit(Resource::Nofile).current,
        }
    }
}

/// Where the system gives huge pages to everybody, a page of 2 MiB for each thread's few small buffers is several
/// times the memory of ten thousand streams (PERFORMANCE.md, "Memory"). To be called before there are threads.
pub fn forgo_huge_pages() {
    // Older kernels do not know it: then it is as it is.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Raises the soft limit on open files to the hard one; gives the limit in force, at most ten million.
pub fn raise_file_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let in_force = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    // No limit at all is bounded here, since buffers are sized after it.
    const UNLIMITED: u64 = 10_000_000;
    usize::try_from(in_force.unwrap_or(UNLIMITED).min(UNLIMITED)).unwrap_or(1024)
}

fn memory_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * page_size() as u64)
}

fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The process's name, in parentheses, may hold any bytes. After it comes field 3; 14 and 15 are wanted.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) as f64 / clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn it_tells_of_this_process() {
        let before = Usage::read();
        let (began, mut turns) = (Instant::now(), 0_u64);
        let after = loop {
            turns = std::hint::black_box(turns + 1);
            let after = Usage::read();
            if after.cpu_seconds > before.cpu_seconds {
                break after;
            }
            // On a busy machine a tick of one's own takes a while.
            assert!(began.elapsed() < Duration::from_secs(30), "{turns} turns cost nothing: {before:?} {after:?}");
        };
        assert!(after.memory_bytes.is_some_and(|bytes| bytes > 1 << 20), "{after:?}");
        assert!(after.open_files.is_none_or(|files| files >= 3), "{after:?}");
    }
}
