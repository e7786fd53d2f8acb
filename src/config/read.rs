//! The file and the environment, read and merged. What nobody reads is refused.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

use config::{File, FileFormat, Source, Value, ValueKind};

use super::place::{Place, Sources};
use super::written::{KEYS, LISTS, Written};
use super::{ConfigError, paths};

/// Reads the file, if there is one, and the environment.
pub(super) fn read(file: Option<&Path>) -> Result<(Written, Sources), ConfigError> {
    let mut sources = Sources::default();
    let mut builder = config::Config::builder();
    if let Some(path) = file {
        // Read here and not by the library, so that the system's error is kept.
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        builder = builder.add_source(File::from_str(&text, FileFormat::Toml));
        sources.file = Some((path.to_owned(), text));
    }
    for (variable, value) in paths::overrides() {
        let (key, value) = overridden(&variable, value)?;
        builder = builder
            .set_override(&key, value)
            .map_err(|error| ConfigError::malformed(&error, &sources))?;
        sources.variables.push((key, variable));
    }
    let malformed = |error| ConfigError::malformed(&error, &sources);
    let merged = builder.build().map_err(malformed)?;
    // Before anything else is said, since a key that is missing may be there with a slip in it.
    for (name, value) in sorted(&merged.collect().map_err(malformed)?) {
        known("", "", name, value, &sources)?;
    }
    let written = merged.try_deserialize().map_err(malformed)?;
    Ok((written, sources))
}

/// The key that a variable sets, and to what. A text stays as it is; one for a list is split.
pub(super) fn overridden(variable: &str, value: OsString) -> Result<(String, Value), ConfigError> {
    let place = || Some(Box::new(Place::Variable(variable.to_owned())));
    let key = key_of(variable);
    let section = key.split('.').next().unwrap_or_default();
    if ["wording", "mailbox", "account", "sink"].contains(&section) {
        return Err(ConfigError::Invalid {
            key: section.to_owned(),
            entry: None,
            why: "the environment cannot set what is written in a list".to_owned(),
            hint: "write it into the configuration file, and take the variable away",
            place: place(),
        });
    }
    if children(&key).next().is_some() || !KEYS.contains(&key.as_str()) {
        let distance = |known: &str| strsim::damerau_levenshtein(&key, known);
        let nearest = KEYS
            .iter()
            .filter(|known| is_set_by_variables(known))
            .map(|known| (distance(known), *known))
            .min()
            .filter(|(distance, _)| *distance <= FARTHEST)
            .map(|(_, known)| variable_of(known));
        return Err(ConfigError::UnknownKey {
            key,
            nearest,
            place: place(),
        });
    }
    let text = value.into_string().map_err(|_| ConfigError::Invalid {
        key: key.clone(),
        entry: None,
        why: "the value is no UTF-8 text".to_owned(),
        hint: "write it in UTF-8",
        place: place(),
    })?;
    let value = if LISTS.contains(&key.as_str()) {
        let entries = text.split(',').map(str::trim);
        let entries = entries.filter(|entry| !entry.is_empty());
        Value::from(entries.map(str::to_owned).collect::<Vec<_>>())
    } else {
        Value::from(text)
    };
    Ok((key, value))
}

/// `TOKENWATCH__TRUST__DNS_SERVERS` → `trust.dns-servers`
fn key_of(variable: &str) -> String {
    let name = variable.split_once("__").map_or("", |(_, name)| name);
    name.replace("__", ".")
        .replace('_', "-")
        .to_ascii_lowercase()
}

/// `trust.dns-servers` → `TOKENWATCH__TRUST__DNS_SERVERS`
fn variable_of(key: &str) -> String {
    let name = key.replace('.', "__").replace('-', "_");
    format!("TOKENWATCH__{}", name.to_ascii_uppercase())
}

fn is_set_by_variables(key: &str) -> bool {
    let section = key.split('.').next().unwrap_or_default();
    ["state-dir", "vault", "trust"].contains(&section)
}

/// Whether a value, and all that is in it, has a key that there is. `level` is the section that
/// it is in, and `path` the same with the numbers of lists.
fn known(
    level: &str,
    path: &str,
    name: &str,
    value: &Value,
    sources: &Sources,
) -> Result<(), ConfigError> {
    let (key, path) = (below(level, name), below(path, name));
    // Another word for `argv`.
    let is_known = children(level).any(|known| known == name) || key == "sink.command";
    if !is_known {
        let path = if is_list(value) {
            format!("{path}[0]")
        } else {
            path
        };
        return Err(ConfigError::UnknownKey {
            nearest: nearest(level, name, is_section(value)),
            place: sources.place(&path).map(Box::new),
            key,
        });
    }
    // What is below `headers` has names of its own.
    if children(&key).next().is_none() {
        return Ok(());
    }
    let within = |path: &str, value: &Value| {
        let ValueKind::Table(table) = &value.kind else {
            return Ok(());
        };
        sorted(table).try_for_each(|(name, value)| known(&key, path, name, value, sources))
    };
    let ValueKind::Array(entries) = &value.kind else {
        return within(&path, value);
    };
    let mut entries = entries.iter().enumerate();
    entries.try_for_each(|(at, entry)| within(&format!("{path}[{at}]"), entry))
}

/// No key is farther from what was written if it was meant.
const FARTHEST: usize = 4;

/// The key that was meant, most likely: a section for a section, and one of this level; or the
/// very same name where it is at home.
fn nearest(level: &str, name: &str, wants_section: bool) -> Option<String> {
    let near = |is_section: bool| {
        children(level)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .map(|known| {
                (
                    strsim::damerau_levenshtein(name, known),
                    below(level, known),
                )
            })
            .filter(|(_, known)| children(known).next().is_some() == is_section)
            .filter(|(distance, known)| {
                let longer = known.len().max(name.len());
                *distance <= FARTHEST && distance.saturating_mul(2) <= longer
            })
            .min()
            .map(|(_, known)| known)
    };
    let at_home = || {
        let mut keys = KEYS.iter();
        keys.find(|key| key.rsplit('.').next() == Some(name))
            .map(|&key| key.to_owned())
    };
    near(wants_section)
        .or_else(|| near(!wants_section))
        .or_else(at_home)
}

/// The names right below a section; of the whole, where it is "".
fn children(section: &str) -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter_map(move |key| {
        let rest = match section {
            "" => key,
            section => key.strip_prefix(section)?.strip_prefix('.')?,
        };
        rest.split('.').next()
    })
}

fn below(level: &str, name: &str) -> String {
    match level {
        "" => name.to_owned(),
        level => format!("{level}.{name}"),
    }
}

fn is_section(value: &Value) -> bool {
    let is_table = |value: &Value| matches!(value.kind, ValueKind::Table(_));
    is_table(value) || is_list(value)
}

/// Whether it is a list of sections.
fn is_list(value: &Value) -> bool {
    matches!(&value.kind, ValueKind::Array(entries)
        if entries.iter().any(|entry| matches!(entry.kind, ValueKind::Table(_))))
}

/// The same every time, whatever order the library keeps.
fn sorted(table: &config::Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| *name);
    entries.into_iter()
}
