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

#[cfg(feature = "system-tests")]
#[path = "../support/oidc.rs"]
mod oidc_server;

mod canary;
mod commands;
mod corpus;
#[cfg(feature = "system-tests")]
mod dovecot;
mod faults;
mod house;
mod killed;
#[cfg(feature = "system-tests")]
mod oauth;
mod properties;
mod senders;
mod shipped;
#[cfg(feature = "system-tests")]
mod system;
mod watching;
