//! Words that must never be printed: passwords, tokens and what is made of them.
//!
//! Invariant 5 rests on this type: a [`Secret`] has no `Display`, no
//! `Serialize`, and a `Debug` that prints three stars. The one way to the text
//! is [`Secret::expose`], so that `grep expose` finds every place that reads
//! one. The memory is wiped when the value is dropped.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// A password, a token, a key, or a password followed by a token.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes a text over. The caller's copy is gone: the text is moved in.
    pub fn new(text: String) -> Self {
        Self(SecretString::from(text))
    }

    /// The text itself. Each use of this is a place to look at.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// The password followed at once by the token, as Salesforce wants it
    /// where a program logs in.
    #[must_use]
    pub fn followed_by(&self, token: &Self) -> Self {
        let mut text =
            String::with_capacity(self.expose().len().saturating_add(token.expose().len()));
        text.push_str(self.expose());
        text.push_str(token.expose());
        Self::new(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Secret {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_prints_stars_only() {
        let secret = Secret::new("hunter2".into());
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "*** Some(***)");
    }

    #[test]
    fn password_and_token_stand_together_without_a_space() {
        let both = Secret::new("pass word".into()).followed_by(&Secret::new("TokeN".into()));
        assert_eq!(both.expose(), "pass wordTokeN");
    }
}
