//! wip
pub mod api;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod journal;
pub mod judge;
pub mod mailbox;
pub mod notice;
pub mod rotation;
pub mod secret;
pub mod sender;
pub mod telemetry;
pub mod vault;

use std::error::Error;

/// The service under which tokenwatch keeps its own secrets in the vault.
pub const INTERNAL_SERVICE: &str = "tokenwatch";

/// An error and its causes on one line, for the log and the board.
pub fn chain(error: &dyn Error) -> String {
    std::iter::once(error.to_string())
        .chain(causes(error))
        .collect::<Vec<_>>()
        .join(": ")
}

/// The causes of an error, from the outside in.
pub fn causes(error: &dyn Error) -> impl Iterator<Item = String> {
    std::iter::successors(error.source(), |&cause| cause.source()).map(ToString::to_string)
}
