//! Where something of the configuration was written, so that an error can name it.

use std::fmt;
use std::path::PathBuf;

/// Where something was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the file.
    File {
        /// Which one.
        path: PathBuf,
        /// The line, counted from 1, where it is known.
        line: Option<usize>,
    },
    /// In a variable of the environment.
    Variable(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::File {
                path,
                line: Some(line),
            } => write!(f, "{}, line {line}", path.display()),
            Self::Variable(name) => write!(f, "the variable {name}"),
        }
    }
}

/// What a configuration was read from.
#[derive(Default)]
pub(super) struct Sources {
    /// The file, and what stands in it.
    pub(super) file: Option<(PathBuf, String)>,
    /// The keys that came from the environment, each with its variable.
    pub(super) variables: Vec<(String, String)>,
}

impl Sources {
    /// Where the value at `path` came from, such as `mailbox[1].oauth2.grant`.
    pub(super) fn place(&self, path: &str) -> Option<Place> {
        let variable = self.variables.iter().find(|(key, _)| key == path);
        if let Some((_, variable)) = variable {
            return Some(Place::Variable(variable.clone()));
        }
        let (file, text) = self.file.as_ref()?;
        Some(Place::File {
            path: file.clone(),
            line: line(text, path),
        })
    }
}

/// The line where the value at `path` stands, or where the smallest part begins that it belongs
/// to. The parser keeps no lines, so this looks for headings and keys as people write them.
fn line(text: &str, path: &str) -> Option<usize> {
    let holds = |part: &str| {
        path.strip_prefix(part)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let mut section = String::new();
    let mut lists: Vec<(String, usize)> = Vec::new();
    let mut found: Option<(usize, usize)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        let here = if let Some(heading) = line.strip_prefix("[[") {
            let name = name(heading, "]]");
            let entry = lists.iter_mut().find(|(list, _)| *list == name);
            let index = entry.map_or(0, |(_, last)| {
                *last = last.saturating_add(1);
                *last
            });
            if index == 0 {
                lists.push((name.clone(), 0));
            }
            section = format!("{name}[{index}]");
            section.clone()
        } else if let Some(heading) = line.strip_prefix('[') {
            let name = name(heading, "]");
            // A section of a list's entry is that of its last one.
            let of_entry = lists.iter().find_map(|(list, last)| {
                let rest = name.strip_prefix(list.as_str())?;
                rest.starts_with('.')
                    .then(|| format!("{list}[{last}]{rest}"))
            });
            section = of_entry.unwrap_or(name);
            section.clone()
        } else if let Some((key, _)) = line.split_once('=') {
            let key = name(key, "=");
            if section.is_empty() {
                key
            } else {
                format!("{section}.{key}")
            }
        } else {
            continue;
        };
        let is_closer = found.is_none_or(|(length, _)| here.len() > length);
        if is_closer && holds(&here) {
            found = Some((here.len(), number));
        }
    }
    found.map(|(_, number)| number)
}

/// The name of a heading or a key, without quotes and blanks.
fn name(written: &str, end: &str) -> String {
    let name = written.split(end).next().unwrap_or_default();
    name.chars()
        .filter(|c| !c.is_whitespace() && !matches!(c, '"' | '\''))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_value_is_found() {
        let text = "state-dir = 'x'\n\n[trust]\naccept = []\n[[mailbox]]\nname='a'\n\
            [[mailbox]]\n  \"name\" = 'b'\n[mailbox.oauth2]\ngrant = 'x'\n";
        for (path, expected) in [
            ("state-dir", Some(1)),
            ("trust.accept", Some(4)),
            ("trust.senders", Some(3)),
            ("mailbox[0].name", Some(6)),
            ("mailbox[0].host", Some(5)),
            ("mailbox[1].name", Some(8)),
            ("mailbox[1].oauth2.grant", Some(10)),
            ("mailbox[1].oauth2.provider", Some(9)),
            ("vault.path", None),
        ] {
            assert_eq!(line(text, path), expected, "{path}");
        }
    }
}
