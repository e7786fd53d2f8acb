//! Keyed hashes of secrets: they tell one from another, and nothing more.

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::super::state::StateError;
use super::Worker;
use crate::INTERNAL_SERVICE;
use crate::secret::Secret;

/// Their key, in the vault.
const KEY: &str = "fingerprint-key";

impl Worker {
    /// The hash of a token, by which people know it.
    pub(super) fn fingerprint(
        &mut self,
        token: &Secret,
        dry_run: bool,
    ) -> Result<String, StateError> {
        self.print("", token, dry_run)
    }

    /// A hash that differs from that of the same text for another purpose. The
    /// key is made with the first one, but not for a dry run, where nothing is
    /// known that it could be compared with.
    pub(super) fn print(
        &mut self,
        purpose: &str,
        text: &Secret,
        dry_run: bool,
    ) -> Result<String, StateError> {
        let key = match &self.print_key {
            Some(key) => key.clone(),
            None => self.read_or_make_key(dry_run)?,
        };
        let mut hash = hmac::Context::with_key(&key);
        if !purpose.is_empty() {
            hash.update(purpose.as_bytes());
            hash.update(b"\0");
        }
        hash.update(text.expose().as_bytes());
        Ok(hex(hash.sign().as_ref().get(..8).unwrap_or_default()))
    }

    /// Whether the key is there, where there must be one.
    pub(super) fn key_is_there(&mut self) -> Result<(), StateError> {
        if self.print_key.is_none() && self.journal.has_taken_any()? {
            self.read_or_make_key(true)?;
        }
        Ok(())
    }

    fn read_or_make_key(&mut self, dry_run: bool) -> Result<hmac::Key, StateError> {
        let kept = self.vault.read(INTERNAL_SERVICE, KEY)?;
        // A store that hides what it has must not be given another key: with that,
        // what is known would look new, and what was refused would be tried again.
        if kept.is_none() && self.journal.has_taken_any()? {
            return Err(StateError::KeyVanished);
        }
        let is_kept = kept.is_some() || !dry_run;
        let text = if let Some(text) = kept {
            text
        } else {
            let mut bytes = Zeroizing::new([0_u8; 32]);
            SystemRandom::new()
                .fill(bytes.as_mut())
                .map_err(|_| StateError::Random)?;
            let text = Secret::new(hex(bytes.as_ref()));
            if !dry_run {
                self.vault.write(INTERNAL_SERVICE, KEY, &text)?;
            }
            text
        };
        let key = hmac::Key::new(hmac::HMAC_SHA256, text.expose().as_bytes());
        if is_kept {
            self.print_key = Some(key.clone());
        }
        Ok(key)
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 0xf])
        .filter_map(|nibble| DIGITS.get(usize::from(nibble)))
        .collect()
}
