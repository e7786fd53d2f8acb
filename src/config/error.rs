//! What can be wrong with a configuration. All of it needs a person.

use std::io;
use std::path::PathBuf;

use super::Place;
use super::place::Sources;

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
    #[error("the configuration cannot be understood: {what}{}", at(None, place.as_deref()))]
    Malformed {
        /// What is wrong. Neither a line nor a value is repeated.
        what: String,
        /// Where.
        place: Option<Box<Place>>,
    },
    /// A key that does not exist.
    #[error("unknown key `{key}`{}", at(None, place.as_deref()))]
    UnknownKey {
        /// The key with its section.
        key: String,
        /// The nearest one that exists.
        nearest: Option<String>,
        /// Where it stands.
        place: Option<Box<Place>>,
    },
    /// A value that cannot be meant.
    #[error("`{key}`: {why}{}", at(entry.as_deref(), place.as_deref()))]
    Invalid {
        /// The key with its section.
        key: String,
        /// The entry, where the section is a list.
        entry: Option<Box<Entry>>,
        /// What is wrong with the value, which is not repeated.
        why: String,
        /// What can be done.
        hint: &'static str,
        /// Where it stands.
        place: Option<Box<Place>>,
    },
}

/// An entry of a list of sections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The list.
    pub list: &'static str,
    /// Its number, counted from 0.
    pub index: usize,
    /// What it is called.
    pub name: String,
}

fn at(entry: Option<&Entry>, place: Option<&Place>) -> String {
    let entry = entry.map(|entry| format!("{}[{}] {:?}", entry.list, entry.index, entry.name));
    let parts: Vec<_> = entry
        .into_iter()
        .chain(place.map(ToString::to_string))
        .collect();
    if parts.is_empty() {
        return String::new();
    }
    format!(" ({})", parts.join(" in "))
}

impl ConfigError {
    /// Says where the library stumbled. Its own message quotes the line or the
    /// value, and somebody may have written a password there.
    pub(super) fn malformed(error: &config::ConfigError, sources: &Sources) -> Self {
        let (what, path) = stumbled(error);
        Self::Malformed {
            what,
            place: sources.place(&path.unwrap_or_default()).map(Box::new),
        }
    }

    /// A value that cannot be meant.
    pub fn invalid(key: impl Into<String>, why: impl Into<String>, hint: &'static str) -> Self {
        Self::Invalid {
            key: key.into(),
            entry: None,
            why: why.into(),
            hint,
            place: None,
        }
    }

    /// Names the entry of a list in which a value cannot be meant.
    pub(super) fn of(self, list: &'static str, index: usize, name: &str) -> Self {
        let entry = Entry {
            list,
            index,
            name: name.to_owned(),
        };
        match self {
            Self::Invalid {
                key,
                why,
                hint,
                place,
                ..
            } => Self::Invalid {
                key,
                entry: Some(Box::new(entry)),
                why,
                hint,
                place,
            },
            Self::NotFound { .. }
            | Self::Unreadable { .. }
            | Self::Malformed { .. }
            | Self::UnknownKey { .. } => self,
        }
    }

    /// Names the place of a value that cannot be meant.
    pub(super) fn found_in(mut self, sources: &Sources) -> Self {
        if let Self::Invalid {
            key, entry, place, ..
        } = &mut self
        {
            let path = match entry.as_deref() {
                Some(Entry { list, index, .. }) => {
                    let rest = key.strip_prefix(*list).unwrap_or_default();
                    format!("{list}[{index}]{rest}")
                }
                None => key.clone(),
            };
            *place = sources.place(&path).map(Box::new);
        }
        self
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
            Self::Malformed { .. } => {
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

/// What the library says, without what it quotes, and the path of the value.
fn stumbled(error: &config::ConfigError) -> (String, Option<String>) {
    use config::ConfigError as Error;
    match error {
        // `TOML parse error at line 6, column 12`, and then the line itself.
        Error::FileParse { cause, .. } => {
            let text = cause.to_string();
            (text.lines().next().unwrap_or_default().to_owned(), None)
        }
        Error::Type { expected, key, .. } => match key.as_deref().map(dotted) {
            Some(key) => (format!("`{key}` must be {expected}"), Some(key)),
            None => (format!("a value must be {expected}"), None),
        },
        Error::At { error, key, .. } => match (stumbled(error), key.as_deref().map(dotted)) {
            ((what, None), Some(key)) => (format!("`{key}`: {what}"), Some(key)),
            (inner, _) => inner,
        },
        Error::NotFound(key) => {
            let key = dotted(key);
            (format!("`{key}` is missing"), Some(key))
        }
        Error::Message(_) | Error::Foreign(_) | Error::PathParse { .. } | Error::Frozen | _ => {
            ("a value has the wrong form".to_owned(), None)
        }
    }
}

/// The library writes `mailbox[0]host`.
fn dotted(path: &str) -> String {
    path.replace(']', "].")
        .replace("..", ".")
        .replace(".[", "[")
        .trim_end_matches('.')
        .to_owned()
}
