//! A store that does what stores should not do.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keyring_core::api::{CredentialApi, CredentialStoreApi};
use keyring_core::{CredentialStore, Entry};

use super::{Calls, Vault};

/// A store that hangs, fails, forgets or garbles, as it is told to.
#[derive(Default)]
pub(super) struct Odd {
    pub(super) entries: Mutex<BTreeMap<(String, String), Vec<u8>>>,
    /// Writes wait until this is let go.
    pub(super) gate: Mutex<()>,
    pub(super) fails_at_write: Option<usize>,
    pub(super) panics_at_write: Option<usize>,
    pub(super) garbles: bool,
    pub(super) hides: bool,
    pub(super) writes: AtomicUsize,
}

pub(super) struct OddStore(pub(super) Arc<Odd>);

struct OddEntry(Arc<Odd>, String, String);

impl CredentialStoreApi for OddStore {
    fn vendor(&self) -> String {
        String::new()
    }

    fn id(&self) -> String {
        String::new()
    }

    fn build(
        &self,
        service: &str,
        user: &str,
        _: Option<&HashMap<&str, &str>>,
    ) -> keyring_core::Result<Entry> {
        let entry = OddEntry(Arc::clone(&self.0), service.to_owned(), user.to_owned());
        Ok(Entry::new_with_credential(Arc::new(entry)))
    }

    fn search(&self, spec: &HashMap<&str, &str>) -> keyring_core::Result<Vec<Entry>> {
        if self.0.hides {
            return Ok(Vec::new());
        }
        let entries = self.0.entries.lock().unwrap();
        let found = entries.keys().filter(|(of, _)| of == spec["service"]);
        found.map(|(of, user)| self.build(of, user, None)).collect()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl CredentialApi for OddEntry {
    fn set_secret(&self, secret: &[u8]) -> keyring_core::Result<()> {
        drop(self.0.gate.lock().unwrap());
        let nth = self.0.writes.fetch_add(1, Ordering::SeqCst);
        assert_ne!(self.0.panics_at_write, Some(nth), "a library goes wrong");
        if self.0.fails_at_write == Some(nth) {
            return Err(keyring_core::Error::PlatformFailure("odd".into()));
        }
        let mut kept = secret.to_vec();
        if self.0.garbles {
            kept.push(b'x');
        }
        let key = (self.1.clone(), self.2.clone());
        self.0.entries.lock().unwrap().insert(key, kept);
        Ok(())
    }

    fn get_secret(&self) -> keyring_core::Result<Vec<u8>> {
        let key = (self.1.clone(), self.2.clone());
        let found = self.0.entries.lock().unwrap().get(&key).cloned();
        found.ok_or(keyring_core::Error::NoEntry)
    }

    fn delete_credential(&self) -> keyring_core::Result<()> {
        let key = (self.1.clone(), self.2.clone());
        let removed = self.0.entries.lock().unwrap().remove(&key);
        removed.map(drop).ok_or(keyring_core::Error::NoEntry)
    }

    fn get_credential(&self) -> keyring_core::Result<Option<Arc<keyring_core::Credential>>> {
        Ok(None)
    }

    fn get_specifiers(&self) -> Option<(String, String)> {
        Some((self.1.clone(), self.2.clone()))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

pub(super) fn over(odd: &Arc<Odd>, deadline: Duration) -> Vault {
    let odd = Arc::clone(odd);
    let open = move || Ok(Arc::new(OddStore(Arc::clone(&odd))) as Arc<CredentialStore>);
    Vault {
        calls: Calls::start_with(open, deadline).unwrap(),
        file: None,
    }
}
