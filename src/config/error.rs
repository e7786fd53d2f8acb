//! What can be wrong with a configuration. All of it needs a person.

use std::io;
use std::path::{Path, PathBuf};

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No file was found.
    #[error("no configuration was found")]
    NotFound {
        /// Where it was looked for.
        searched: Vec<PathBuf>,
    },
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// It is no TOML, or a value has the wrong type.
    #[error("the configuration cannot be understood: {0}")]
    Malformed(String),
    /// A key that does not exist.
    #[error("unknown key `{key}`{}", in_file(file.as_deref()))]
    UnknownKey {
        /// The key with its section.
        key: String,
        /// The nearest one that exists.
        nearest: Option<&'static str>,
        /// The file.
        file: Option<PathBuf>,
    },
    /// A value that cannot be meant.
    #[error("`{key}`: {why}")]
    Invalid {
        /// The key with its section.
        key: String,
        /// What is wrong with the value, which is not repeated.
        why: String,
        /// What can be done.
        hint: &'static str,
    },
}

fn in_file(file: Option<&Path>) -> String {
    file.map_or_else(String::new, |file| format!(" in {}", file.display()))
}

impl ConfigError {
    /// Says where the library stumbled. Its own message quotes the line or the
    /// value, and somebody may have written a password there.
    pub(super) fn malformed(error: &config::ConfigError) -> Self {
        use config::ConfigError as Error;
        Self::Malformed(match error {
            // `TOML parse error at line 6, column 12`, and then the line itself.
            Error::FileParse { cause, .. } => {
                let text = cause.to_string();
                text.lines().next().unwrap_or_default().to_owned()
            }
            Error::Type { expected, key, .. } => match key {
                Some(key) => format!("`{key}` must be {expected}"),
                None => format!("a value must be {expected}"),
            },
            Error::At { error, key, .. } => match (Self::malformed(error), key) {
                (Self::Malformed(inner), Some(key)) if !inner.contains('`') => {
                    format!("`{key}`: {inner}")
                }
                (inner, _) => return inner,
            },
            Error::NotFound(key) => format!("`{key}` is missing"),
            Error::Message(_) | Error::Foreign(_) | Error::PathParse { .. } | Error::Frozen | _ => {
                "a value has the wrong form".to_owned()
            }
        })
    }

    /// A value that cannot be meant.
    pub fn invalid(key: impl Into<String>, why: impl Into<String>, hint: &'static str) -> Self {
        Self::Invalid {
            key: key.into(),
            why: why.into(),
            hint,
        }
    }

    /// Whether the file is there and may not be read.
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::Unreadable { source, .. }
            if source.kind() == io::ErrorKind::PermissionDenied)
    }

    /// What a person can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::NotFound { searched } => {
                let places: Vec<_> = searched.iter().map(|p| p.display().to_string()).collect();
                format!(
                    "write one (config/minimal.toml is a start) to one of: {}; or name it with --config",
                    places.join(", ")
                )
            }
            Self::Unreadable { .. } => {
                "see that the file exists and that you may read it".to_owned()
            }
            Self::Malformed(_) => {
                "config/tokenwatch.toml shows every key with its form and default".to_owned()
            }
            Self::UnknownKey {
                nearest: Some(nearest),
                ..
            } => format!("did you mean `{nearest}`?"),
            Self::UnknownKey { nearest: None, .. } => {
                "config/tokenwatch.toml shows every key that there is".to_owned()
            }
            Self::Invalid { hint, .. } => (*hint).to_owned(),
        }
    }
}
