//! wip
pub mod notice;
pub mod secret;
