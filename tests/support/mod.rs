//! What the tests, the benches and the demo have in common: mail servers, mails
//! and the real binary as a process.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "every target that includes this folder uses a part of it"
)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a test fails by a panic, and is no daemon"
)]

pub mod authority;
pub mod bombs;
pub mod dns;
pub mod endless;
pub mod folder;
pub mod ground;
pub mod imap_server;
pub mod mail;
pub mod proxy;
pub mod salesforce;
pub mod scripted;
pub mod signer;
pub mod trust;

/// How long a server waits for a client before a test gives up.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
