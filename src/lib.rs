//! wip
pub mod judge;
pub mod notice;
pub mod rotation;
pub mod secret;
pub mod sender;
pub mod vault;
