//! The log: on a terminal, as JSON, or into the journal with its fields.
//!
//! The log goes to standard error, for standard output is data. Each line has
//! a constant message, and an `event` that a script can match; in the journal
//! that is `TOKENWATCH_EVENT`.
//!
//! No logger for the `log` crate is installed, and that is deliberate: at TRACE
//! async-imap logs every byte that it reads, mails included, through it. What
//! is to be seen of the protocol is logged by our own command layer.

mod journal;

use std::io;

use clap::ValueEnum;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::config::stderr_is_the_journal;
use journal::Journal;

/// What a log line looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The journal where standard error goes there, text otherwise.
    #[default]
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
    /// The journal, natively.
    Journald,
}

/// The log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is malformed.
    #[error("--log: this is no filter")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// The journal's socket does not answer.
    #[error("the journal cannot be reached")]
    Journald(#[source] io::Error),
}

/// Sets the log up for the whole process.
pub fn init(filter: &str, format: Format, colour: bool) -> Result<(), TelemetryError> {
    let filter = EnvFilter::builder()
        .parse(filter)
        .map_err(TelemetryError::Filter)?;
    let journal = match format {
        Format::Journald => Some(Journal::new().map_err(TelemetryError::Journald)?),
        // What is text is taken up by the journal as well.
        Format::Auto if stderr_is_the_journal() => Journal::new().ok(),
        Format::Auto | Format::Text | Format::Json => None,
    };
    let layer: Box<dyn Layer<Registry> + Send + Sync> = if let Some(journal) = journal {
        journal.boxed()
    } else if format == Format::Json {
        fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_writer(io::stderr)
            .boxed()
    } else {
        fmt::layer()
            .with_ansi(colour)
            .with_target(false)
            .with_writer(io::stderr)
            .boxed()
    };
    let subscriber = Registry::default().with(layer.with_filter(filter));
    // Only a second call could fail, and there is none.
    tracing::subscriber::set_global_default(subscriber).unwrap_or_default();
    Ok(())
}
