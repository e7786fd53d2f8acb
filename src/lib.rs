//! wip
pub mod config;
pub mod journal;
pub mod judge;
pub mod mailbox;
pub mod notice;
pub mod rotation;
pub mod secret;
pub mod sender;
pub mod vault;

/// The service under which tokenwatch keeps its own secrets in the vault.
pub const INTERNAL_SERVICE: &str = "tokenwatch";
