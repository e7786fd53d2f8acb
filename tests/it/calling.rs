//! Who calls over the control socket and says nothing, or half of something.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::process::{Daemon, Machine};

fn ready() -> (Machine, Daemon) {
    let machine = Machine::new(
        "state-dir = \"STATE\"\n[[account]]\nusername = \"a@b.co\"\n\
         [[mailbox]]\nname = \"ops\"\nhost = \"127.0.0.1\"\nport = 1\ntls = \"none\"\nuser = \"u\"\n",
    );
    let daemon = machine.daemon();
    (machine, daemon)
}

fn call(machine: &Machine, says: &str) -> UnixStream {
    let mut stream = UnixStream::connect(machine.state_dir().join("control.sock")).unwrap();
    stream.write_all(says.as_bytes()).unwrap();
    stream
}

#[test]
fn half_a_request_does_not_hold_up_a_stop() {
    let (machine, daemon) = ready();
    let silent = call(&machine, "");
    let half = call(&machine, "GET /v1/st");
    // Who comes later is answered, so both have been let in.
    machine.status();
    let (status, _, log) = daemon.stop();
    assert!(status.success(), "{status}: {log}");
    assert!(log.contains("daemon.stopped"), "{log}");
    assert!(!log.contains("daemon.drain"), "{log}");
    drop((silent, half));
}

#[test]
fn two_hundred_who_say_nothing_keep_nobody_out() {
    let (machine, daemon) = ready();
    let silent: Vec<_> = (0..200).map(|_| call(&machine, "")).collect();
    machine.status();
    // The first of them were let go for it.
    let deadline = Instant::now() + Duration::from_secs(45);
    for mut stream in silent.into_iter().take(100) {
        let left = deadline.saturating_duration_since(Instant::now());
        let patience = left.max(Duration::from_millis(1));
        stream.set_read_timeout(Some(patience)).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "it is let go");
    }
    let (status, _, log) = daemon.stop();
    assert!(status.success(), "{status}: {log}");
}
