//! wip
pub mod judge;
pub mod notice;
pub mod secret;
pub mod sender;
