//! Asking a person for the passphrase of the vault's key.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

use crate::secret::Secret;

/// How a person is asked.
pub type Ask = fn(Question, &Path) -> Result<Secret, AskError>;

/// No passphrase is longer, in octets.
const MAX_LENGTH: u64 = 4096;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// The passphrase that opens a key.
    Unlock,
    /// The passphrase that a new key gets.
    New,
}

/// No passphrase could be had.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody can be asked: no terminal, and no systemd either.
    #[error("there is nobody to ask for the passphrase of the vault's key")]
    Nobody,
    /// The terminal failed, or the person ended it.
    #[error("the passphrase could not be read")]
    Terminal(#[source] io::Error),
    /// systemd-ask-password failed or timed out.
    #[error("systemd-ask-password got no passphrase")]
    Systemd,
    /// The two that were typed are not the same.
    #[error("the two passphrases are not the same")]
    NotTheSame,
    /// It is empty, or longer than a passphrase is.
    #[error("the passphrase is empty or too long")]
    Unusable,
}

impl AskError {
    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Nobody => {
                "run it on a terminal; for a service, give the key as a systemd credential (`key = \"credential:ID\"`)"
            }
            Self::Systemd => {
                "answer with `systemd-tty-ask-password-agent`; systemd asks for root alone, so give a service of another user its key as a systemd credential (`key = \"credential:ID\"`)"
            }
            Self::Terminal(_) | Self::NotTheSame | Self::Unusable => "run it again",
        }
    }
}

/// Asks on the terminal, and where there is none through systemd. A new
/// passphrase is asked for twice. It goes through no argument and no
/// environment.
pub fn ask(question: Question, key: &Path) -> Result<Secret, AskError> {
    let one: fn(&str) -> Result<Secret, AskError> = if has_terminal() {
        on_terminal
    } else {
        through_systemd
    };
    match question {
        Question::Unlock => one(&format!("Passphrase of {}: ", key.display())),
        Question::New => {
            let passphrase = one(&format!("New passphrase for {}: ", key.display()))?;
            if passphrase != one("Once more: ")? {
                return Err(AskError::NotTheSame);
            }
            Ok(passphrase)
        }
    }
}

/// Standard input may be a pipe with a secret in it: the terminal is what counts.
fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

fn on_terminal(prompt: &str) -> Result<Secret, AskError> {
    let typed = Zeroizing::new(rpassword::prompt_password(prompt).map_err(AskError::Terminal)?);
    usable(&typed)
}

fn through_systemd(prompt: &str) -> Result<Secret, AskError> {
    let mut child = Command::new("systemd-ask-password")
        .args(["--id=tokenwatch", "--icon=dialog-password"])
        .arg(prompt.trim_end_matches([':', ' ']))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|_| AskError::Nobody)?;
    let mut printed = Zeroizing::new(String::with_capacity(1024));
    let read = match child.stdout.take() {
        Some(output) => output.take(MAX_LENGTH).read_to_string(&mut printed),
        None => Ok(0),
    };
    let status = child.wait().map_err(|_| AskError::Systemd)?;
    if read.is_err() || !status.success() {
        return Err(AskError::Systemd);
    }
    usable(&printed)
}

fn usable(text: &str) -> Result<Secret, AskError> {
    let text = text.trim_end_matches(['\r', '\n']);
    let fits = u64::try_from(text.len()).is_ok_and(|length| length < MAX_LENGTH);
    if text.is_empty() || !fits {
        return Err(AskError::Unusable);
    }
    Ok(Secret::new(text.to_owned()))
}
