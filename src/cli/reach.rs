//! How a command reaches the vault: through the running daemon, and where none
//! runs by opening it itself, under the same lock.

use std::sync::Arc;

use super::client::Client;
use crate::config::Config;
use crate::daemon::{Board, Worker};

/// The way to the vault.
pub(super) enum Reach {
    /// A daemon has it.
    Daemon(Client),
    /// Nobody has it but us.
    Alone(Box<Worker>),
}

impl Reach {
    pub(super) async fn open(config: Arc<Config>) -> anyhow::Result<Self> {
        if let Some(client) = Client::find(&config).await? {
            return Ok(Self::Daemon(client));
        }
        let board = Arc::new(Board::new(&config));
        Ok(Self::Alone(Box::new(Worker::open(config, board)?)))
    }
}
