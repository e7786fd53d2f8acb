//! Templates that people write, for files and for bodies of requests.
//!
//! The library's messages quote what they stumbled over, which may be the secret: of an error
//! only its kind and its line are shown. Its own copies of values are not wiped; they live for
//! one rendering.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};

use super::render::{self, Wiped};
use super::{Credential, SinkError};

/// A template that has been read, parsed and looked through.
#[derive(Debug)]
pub(super) struct Template {
    path: PathBuf,
    environment: Environment<'static>,
    /// The names that it may use.
    variables: &'static [&'static str],
}

/// What a file may say.
pub(super) const OF_A_FILE: &[&str] =
    &["username", "password", "version", "fingerprint", "received"];

/// What a request may say that may hold the secret.
pub(super) const OF_A_SECRET_REQUEST: &[&str] = &[
    "username",
    "password",
    "version",
    "fingerprint",
    "received",
    "id",
];

/// What a request may say otherwise.
pub(super) const OF_A_REQUEST: &[&str] = &["username", "version", "fingerprint", "received", "id"];

/// The one template of its environment.
const NAME: &str = "template";

impl Template {
    /// Reads it and finds what can be found before there is a credential.
    ///
    /// # Errors
    ///
    /// [`SinkError::Template`]: no template, a name that it may not use; [`SinkError::Io`]: no
    /// file.
    pub(super) fn read(path: &Path, variables: &'static [&'static str]) -> Result<Self, SinkError> {
        let text = std::fs::read_to_string(path).map_err(|source| SinkError::Io {
            doing: "read",
            path: path.to_owned(),
            source,
        })?;
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        // Only delimiters of one's own can be wrong.
        let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
        environment.set_syntax(syntax.unwrap_or_default());
        environment.add_filter("shell", |value: String| render::shell(&value));
        environment.add_filter("json", as_json);
        let template = Self {
            path: path.to_owned(),
            environment,
            variables,
        };
        template.load(text)
    }

    fn load(mut self, text: String) -> Result<Self, SinkError> {
        let added = self.environment.add_template_owned(NAME, text);
        added.map_err(|error| self.broken(&error))?;
        let template = self.environment.get_template(NAME);
        let template = template.map_err(|error| self.broken(&error))?;
        let is_known = |name: &String| {
            self.variables.contains(&name.as_str())
                || self.environment.globals().any(|(known, _)| known == name)
        };
        let undeclared = template.undeclared_variables(false);
        if let Some(name) = undeclared.into_iter().filter(|name| !is_known(name)).min() {
            return Err(SinkError::Template {
                path: self.path,
                line: None,
                why: format!("asks for `{name}`, which there is not here"),
            });
        }
        // A filter that does not exist shows when it is used. A template may be right to fail
        // over what this trial says of itself, so nothing else counts.
        let trial = Credential {
            username: "user@example.com".into(),
            secret: crate::secret::Secret::new("password".into()),
            version: 1,
            fingerprint: "0123456789abcdef".into(),
            id: "trial".into(),
            received: Some(jiff::Timestamp::UNIX_EPOCH),
        };
        match self.rendered(&trial) {
            Err(error) if is_a_slip(error.kind()) => Err(self.broken(&error)),
            Ok(_) | Err(_) => Ok(self),
        }
    }

    /// What it makes of a credential.
    pub(super) fn render(&self, credential: &Credential) -> Result<Wiped, SinkError> {
        self.rendered(credential)
            .map_err(|error| self.broken(&error))
    }

    fn rendered(&self, credential: &Credential) -> Result<Wiped, Error> {
        let received = credential.received.map(|received| received.to_string());
        let mut values: BTreeMap<&str, Value> = BTreeMap::new();
        for &name in self.variables {
            let value = match name {
                "username" => Value::from(credential.username.as_str()),
                "password" => Value::from(credential.secret.expose()),
                "version" => Value::from(credential.version),
                "fingerprint" => Value::from(credential.fingerprint.as_str()),
                "received" => Value::from(received.as_deref()),
                "id" => Value::from(credential.id.as_str()),
                _ => continue,
            };
            values.insert(name, value);
        }
        let mut out = Wiped::default();
        let template = self.environment.get_template(NAME)?;
        template.render_captured_to(values, &mut out)?;
        Ok(out)
    }

    fn broken(&self, error: &Error) -> SinkError {
        SinkError::Template {
            path: self.path.clone(),
            line: error.line(),
            why: if error.kind() == ErrorKind::SyntaxError {
                "is no template".to_owned()
            } else {
                format!("cannot be filled in: {}", error.kind())
            },
        }
    }
}

/// What is wrong whatever the credential is.
fn is_a_slip(kind: ErrorKind) -> bool {
    [
        ErrorKind::UnknownFilter,
        ErrorKind::UnknownTest,
        ErrorKind::UnknownFunction,
        ErrorKind::UnknownMethod,
        ErrorKind::MissingArgument,
        ErrorKind::TooManyArguments,
        ErrorKind::TemplateNotFound,
    ]
    .contains(&kind)
}

/// JSON as it stands in a JSON file; the library's own `tojson` is for HTML.
fn as_json(value: &Value) -> Result<String, Error> {
    serde_json::to_string(value)
        .map_err(|_| Error::new(ErrorKind::BadSerialization, "this cannot be JSON"))
}
