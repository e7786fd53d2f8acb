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
#[path = "../support/desktop.rs"]
mod desktop;

#[cfg(feature = "system-tests")]
#[path = "../support/cyrus.rs"]
mod cyrus_server;

#[cfg(feature = "system-tests")]
#[path = "../support/netns.rs"]
mod netns;

#[cfg(feature = "system-tests")]
#[path = "../support/oidc.rs"]
mod oidc_server;

#[path = "../support/https.rs"]
mod https;

#[cfg(feature = "system-tests")]
#[path = "../support/kubernetes.rs"]
mod kubernetes;

#[path = "../support/kv2.rs"]
mod kv2;

#[path = "../support/receivers.rs"]
mod receivers;

#[path = "../support/soak/mod.rs"]
mod soaking;

mod after;
mod answering;
mod beginning;
mod calling;
mod canary;
mod checking;
mod commands;
mod connecting;
mod corpus;
mod cut;
#[cfg(feature = "system-tests")]
mod dovecot;
mod elsewhere;
mod faults;
mod fetching;
#[cfg(feature = "system-tests")]
mod folders;
mod held;
mod house;
mod idling;
mod killed;
mod login;
mod meeting;
#[cfg(feature = "system-tests")]
mod network;
mod notified;
mod numbering;
#[cfg(feature = "system-tests")]
mod oauth;
mod outbox;
mod properties;
#[cfg(feature = "system-tests")]
mod recipes;
mod refusing;
mod resyncing;
mod salesforce;
mod searching;
#[cfg(feature = "system-tests")]
mod second_server;
mod senders;
mod settling;
mod shipped;
#[cfg(feature = "system-tests")]
mod signing_in;
mod sinks_kv2;
mod sinks_webhook;
mod soak;
mod stimuli;
#[cfg(feature = "system-tests")]
mod system;
mod vault;
#[cfg(feature = "system-tests")]
mod vault_keyutils;
#[cfg(feature = "system-tests")]
mod vault_native;
#[cfg(feature = "system-tests")]
mod vault_passphrase;
mod watching;
