//! What a soak counts, and what the kernel says of the daemon.

use std::fmt;
use std::fs;
use std::time::Duration;

use rustix::process::Pid;

/// How it goes.
#[derive(Clone, Default)]
pub(crate) struct Figures {
    pub minutes: u64,
    /// How often a mail was thought of; some are two, some none that counts.
    pub mails: usize,
    /// How many different token mails the daemon has told of, and of how many
    /// it has not yet.
    pub noticed: usize,
    pub waiting: usize,
    pub faults: usize,
    /// How often the daemon was started again.
    pub starts: usize,
    /// How often it said that a mailbox is not watched.
    pub lost: usize,
    /// What of it is in memory, in MiB: when half of the time was over, and now.
    pub resident_before: f64,
    pub resident: f64,
    /// Its open files and sockets; zero where only root may count them.
    pub descriptors_before: usize,
    pub descriptors: usize,
    /// How long it took until everything was seen when all was well.
    pub recovery: Duration,
    /// Mails that were taken away before they were seen.
    pub unseen: usize,
}

impl fmt::Display for Figures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "minute {:3}: {} mails, {} told of, {} waiting; {} faults, {} restarts, {} times lost; \
             {:.1} MiB, {} descriptors",
            self.minutes,
            self.mails,
            self.noticed,
            self.waiting,
            self.faults,
            self.starts,
            self.lost,
            self.resident,
            self.descriptors
        )
    }
}

/// What of a process is in memory, in MiB.
pub(super) fn resident(pid: Pid) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.unwrap().trim().strip_suffix(" kB").unwrap();
    kib.parse::<f64>().unwrap() / 1024.0
}

/// Its open files and sockets. The daemon hides its memory, and with it these:
/// only root may count them.
pub(super) fn descriptors(pid: Pid) -> usize {
    fs::read_dir(format!("/proc/{}/fd", pid.as_raw_pid())).map_or(0, Iterator::count)
}
