//! The soak's minute. An hour of it: `cargo bench --bench soak`.

use std::path::Path;
use std::time::Duration;

use crate::soaking::{Pace, soak};

#[test]
fn in_a_minute_of_faults_no_mail_is_missed_and_no_credential_goes_back() {
    // Another one each time; a failure says which.
    let seed = fastrand::u64(0..1_000_000);
    let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("soak/{seed}.log"));
    let duration = Duration::from_secs(45);
    let summary = soak(seed, duration, Pace::hurried(), &log, |_| {});
    let (problems, figures) = (summary.problems.join("\n"), &summary.figures);
    assert!(
        problems.is_empty(),
        "seed {seed}, everything is in {}:\n{problems}\n{figures}",
        log.display()
    );
    // It was worth its name.
    assert!(figures.noticed > 50 && figures.lost > 5, "{figures}");
    std::fs::remove_file(log).unwrap();
}
