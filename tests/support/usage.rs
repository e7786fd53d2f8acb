//! What a process takes, as the kernel counts it.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::arithmetic_side_effects,
    clippy::cast_precision_loss,
    clippy::panic,
    clippy::unwrap_used,
    reason = "every bench that includes this file uses a part of it, and fails by a panic"
)]

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};

/// A process that runs.
#[derive(Clone, Copy)]
pub struct Usage(pub Pid);

impl Usage {
    /// What of it is in memory, in MiB.
    pub fn resident(self) -> f64 {
        self.field("status", "VmRSS:").unwrap()
    }

    /// The most that was in memory, in MiB.
    pub fn peak(self) -> f64 {
        self.field("status", "VmHWM:").unwrap()
    }

    /// The part of it that no file can bring back, in MiB.
    pub fn anonymous(self) -> f64 {
        self.field("status", "RssAnon:").unwrap()
    }

    /// Its share, with pages of libraries divided among all who map them, in
    /// MiB. tokenwatch hides its memory, so only root can see this one.
    pub fn proportional(self) -> Option<f64> {
        self.field("smaps_rollup", "Pss:")
    }

    /// How long it has kept a core busy, to ten milliseconds.
    pub fn cpu(self) -> Duration {
        let stat = fs::read_to_string(self.path("stat")).unwrap();
        // The second field is a name in brackets, and may hold anything.
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let ticks = |n| fields.split(' ').nth(n).unwrap().parse::<u64>().unwrap();
        // utime and stime, in hundredths of a second on every Linux.
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }

    fn field(self, file: &str, name: &str) -> Option<f64> {
        let text = fs::read_to_string(self.path(file)).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib as f64 / 1024.0)
    }

    fn path(self, file: &str) -> String {
        format!("/proc/{}/{file}", self.0.as_raw_pid())
    }
}

/// As many files and sockets as this process and its children may have.
pub fn raise_limit_of_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    )
    .unwrap();
}
