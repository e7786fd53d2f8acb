//! The tests of the whole: the real binary against servers on loopback.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unnecessary_wraps,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test fails by a panic, and is no daemon"
)]

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/process.rs"]
mod process;

#[cfg(feature = "system-tests")]
#[path = "../support/dovecot.rs"]
mod dovecot_server;

#[path = "../support/soak/mod.rs"]
mod soaking;

mod canary;
mod commands;
mod corpus;
#[cfg(feature = "system-tests")]
mod dovecot;
mod faults;
mod house;
mod killed;
mod properties;
mod senders;
mod shipped;
mod soak;
#[cfg(feature = "system-tests")]
mod system;
mod watching;
