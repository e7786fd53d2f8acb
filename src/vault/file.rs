//! The file vault: one age-encrypted file that implements keyring-core's store.
//!
//! `age -d -i vault.key vault.age` opens it without tokenwatch. It is written
//! whole, once a change: temporary file, fsync, rename, fsync of the folder
//! (invariant 7), mode 0600, under a side-car lock that is held for as long as
//! the vault is open. A wrong key is an error when the vault is opened, not
//! when the first secret is needed.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use age::secrecy::ExposeSecret;
use age::x25519::Identity;
use keyring_core::api::{CredentialApi, CredentialStoreApi};
use keyring_core::{Credential, CredentialStore, Entry, Error};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Key;
use super::error::FileError;

/// No vault is larger; a thousand accounts need about 4 MiB.
const MAX_SIZE: u64 = 64 * 1024 * 1024;

/// How long another process may hold the lock before we give up.
const LOCK_DEADLINE: Duration = Duration::from_secs(5);

const FORMAT: u32 = 1;

/// The store. All entries share it.
pub(super) struct FileStore {
    path: PathBuf,
    key: Key,
    this: Weak<Self>,
    /// Held, not read: dropping it lets the next process in.
    _lock: File,
    /// Serialises read-change-write; the content itself is not kept in memory.
    writing: Mutex<()>,
    /// The newest generation that was seen: while it is open, the vault never
    /// goes back behind it, nor away.
    seen: AtomicU64,
}

/// What is encrypted.
#[derive(Default, Serialize, Deserialize)]
struct Content {
    format: u32,
    /// Counts every write, so that a file put back from a backup can be told.
    generation: u64,
    /// service → user → secret
    entries: BTreeMap<String, BTreeMap<String, Zeroizing<String>>>,
}

impl Content {
    /// A bound on its length as JSON, where a byte takes six at most.
    fn size(&self) -> usize {
        let entries = self.entries.iter().flat_map(|(service, users)| {
            let lengths = users
                .iter()
                .map(|(user, secret)| user.len().saturating_add(secret.len()));
            lengths.map(|length| length.saturating_add(service.len()))
        });
        entries
            .fold(64_usize, |sum, length| {
                sum.saturating_add(length).saturating_add(16)
            })
            .saturating_mul(6)
    }
}

impl FileStore {
    pub(super) fn open(path: PathBuf, key: Key) -> Result<Arc<CredentialStore>, FileError> {
        let lock = lock(&path.with_extension("lock"))?;
        let store = Arc::new_cyclic(|this| Self {
            path,
            key,
            this: Weak::clone(this),
            _lock: lock,
            writing: Mutex::new(()),
            seen: AtomicU64::new(0),
        });
        store.load()?;
        Ok(store)
    }

    /// Reads and decrypts; an empty content where there is no file yet.
    fn load(&self) -> Result<Content, FileError> {
        let seen = self.seen.load(Ordering::Acquire);
        let Some(sealed) = read_private(&self.path)? else {
            if seen > 0 {
                return Err(FileError::WentBack(self.path.clone()));
            }
            return Ok(Content::default());
        };
        let identity = self
            .identity()?
            .ok_or_else(|| FileError::KeyMissing(self.key_path().to_owned()))?;
        let plain = age::decrypt(&identity, &sealed).map_err(|error| {
            if matches!(error, age::DecryptError::NoMatchingKeys) {
                FileError::WrongKey(self.path.clone())
            } else {
                FileError::Damaged(self.path.clone())
            }
        })?;
        let plain = Zeroizing::new(plain);
        let content: Content =
            serde_json::from_slice(&plain).map_err(|_| FileError::Damaged(self.path.clone()))?;
        if content.format > FORMAT {
            return Err(FileError::NewerFormat(self.path.clone()));
        }
        if content.generation < seen {
            return Err(FileError::WentBack(self.path.clone()));
        }
        self.seen.store(content.generation, Ordering::Release);
        Ok(content)
    }

    fn change(&self, change: impl FnOnce(&mut Content) -> bool) -> Result<bool, FileError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut content = self.load()?;
        if !change(&mut content) {
            return Ok(false);
        }
        content.format = FORMAT;
        content.generation = content.generation.saturating_add(1);
        let identity = match self.identity()? {
            Some(identity) => identity,
            None => self.make_key()?,
        };
        let damaged = || FileError::Damaged(self.path.clone());
        // Room for all of it at once: a buffer that grows leaves copies behind.
        let mut plain = Zeroizing::new(Vec::with_capacity(content.size()));
        serde_json::to_writer(&mut *plain, &content).map_err(|_| damaged())?;
        let sealed = age::encrypt(&identity.to_public(), &plain).map_err(|_| damaged())?;
        replace(&self.path, &sealed)?;
        self.seen.store(content.generation, Ordering::Release);
        Ok(true)
    }

    fn key_path(&self) -> &Path {
        match &self.key {
            Key::Made(path) | Key::Provided(path) => path,
        }
    }

    fn identity(&self) -> Result<Option<Identity>, FileError> {
        let path = self.key_path();
        let read = match &self.key {
            Key::Made(_) => read_private(path)?,
            // systemd hands credentials out as 0400, or 0440 for a group of
            // its own; their protection is the folder's.
            Key::Provided(_) => read_any(path)?,
        };
        let Some(bytes) = read else {
            return Ok(None);
        };
        let bytes = Zeroizing::new(bytes);
        std::str::from_utf8(&bytes)
            .ok()
            .and_then(|text| {
                text.lines()
                    .map(str::trim)
                    .find(|line| !line.is_empty() && !line.starts_with('#'))
            })
            .and_then(|line| line.parse().ok())
            .map(Some)
            .ok_or_else(|| FileError::KeyMalformed(path.to_owned()))
    }

    /// The first write makes the key. It never replaces one: a vault without
    /// its key was refused when it was opened.
    fn make_key(&self) -> Result<Identity, FileError> {
        let Key::Made(path) = &self.key else {
            return Err(FileError::KeyMissing(self.key_path().to_owned()));
        };
        if self.path.exists() {
            return Err(FileError::KeyMissing(path.clone()));
        }
        let identity = Identity::generate();
        let text = Zeroizing::new(format!(
            "# tokenwatch: the key of the vault. Whoever has it can read every secret in it.\n{}\n",
            identity.to_string().expose_secret()
        ));
        replace(path, text.as_bytes())?;
        tracing::info!(
            event = "vault.created",
            vault = %self.path.display(),
            key = %path.display(),
            "made a vault and its key; keep a copy of both"
        );
        Ok(identity)
    }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError::Io {
        doing,
        path,
        source,
    }
}

fn nofollow() -> i32 {
    i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0)
}

fn lock(path: &Path) -> Result<File, FileError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(nofollow())
        .open(path)
        .map_err(failed("open", path))?;
    let started = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if started.elapsed() < LOCK_DEADLINE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => return Err(FileError::Locked(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed("lock", path)(error)),
        }
    }
}

/// Reads a file that only its owner may read; `None` where there is none.
fn read_private(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    read(path, nofollow(), true)
}

fn read_any(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    read(path, 0, false)
}

fn read(path: &Path, flags: i32, private: bool) -> Result<Option<Vec<u8>>, FileError> {
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let metadata = file.metadata().map_err(failed("look at", path))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if private && mode & 0o077 != 0 {
        return Err(FileError::Insecure {
            path: path.to_owned(),
            mode,
        });
    }
    if metadata.len() > MAX_SIZE {
        return Err(FileError::TooLarge(path.to_owned()));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    file.take(MAX_SIZE)
        .read_to_end(&mut bytes)
        .map_err(failed("read", path))?;
    Ok(Some(bytes))
}

/// Puts `bytes` in the place of `path`, durably, or leaves the old file as it
/// was. The temporary file has a fixed name, so that a crash leaves at most
/// one behind, which the next write takes over.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let temporary = PathBuf::from(name);
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(nofollow())
        .open(&temporary)
        .map_err(failed("open", &temporary))?;
    // One that a crash left behind keeps the mode that it had.
    file.set_permissions(Permissions::from_mode(0o600))
        .map_err(failed("set the mode of", &temporary))?;
    file.write_all(bytes).map_err(failed("write", &temporary))?;
    file.sync_all().map_err(failed("fsync", &temporary))?;
    std::fs::rename(&temporary, path).map_err(failed("rename", &temporary))?;
    let folder = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed("fsync", folder))
}

impl From<FileError> for Error {
    fn from(error: FileError) -> Self {
        Self::PlatformFailure(Box::new(error))
    }
}

impl CredentialStoreApi for FileStore {
    fn vendor(&self) -> String {
        "tokenwatch encrypted file".to_owned()
    }

    fn id(&self) -> String {
        self.path.display().to_string()
    }

    fn build(
        &self,
        service: &str,
        user: &str,
        modifiers: Option<&HashMap<&str, &str>>,
    ) -> keyring_core::Result<Entry> {
        if modifiers.is_some_and(|modifiers| !modifiers.is_empty()) {
            return Err(Error::NotSupportedByStore("modifiers".to_owned()));
        }
        let store = self.this.upgrade().ok_or(Error::NoDefaultStore)?;
        Ok(Entry::new_with_credential(Arc::new(FileCredential {
            store,
            service: service.to_owned(),
            user: user.to_owned(),
        })))
    }

    fn search(&self, spec: &HashMap<&str, &str>) -> keyring_core::Result<Vec<Entry>> {
        let fits = |key: &str, value: &str| spec.get(key).is_none_or(|wanted| *wanted == value);
        let mut found = Vec::new();
        for (service, users) in &self.load()?.entries {
            for user in users.keys() {
                if fits("service", service) && fits("user", user) {
                    found.push(self.build(service, user, None)?);
                }
            }
        }
        Ok(found)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn debug_fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileStore({})", self.path.display())
    }
}

/// One entry of the file.
struct FileCredential {
    store: Arc<FileStore>,
    service: String,
    user: String,
}

impl CredentialApi for FileCredential {
    fn set_secret(&self, secret: &[u8]) -> keyring_core::Result<()> {
        // Text only, so that a person with the key can read the file.
        let text = std::str::from_utf8(secret)
            .map_err(|_| Error::Invalid("secret".to_owned(), "not UTF-8".to_owned()))?;
        self.store.change(|content| {
            content
                .entries
                .entry(self.service.clone())
                .or_default()
                .insert(self.user.clone(), Zeroizing::new(text.to_owned()));
            true
        })?;
        Ok(())
    }

    fn get_secret(&self) -> keyring_core::Result<Vec<u8>> {
        self.store
            .load()?
            .entries
            .get(&self.service)
            .and_then(|users| users.get(&self.user))
            .map(|secret| secret.as_bytes().to_vec())
            .ok_or(Error::NoEntry)
    }

    fn delete_credential(&self) -> keyring_core::Result<()> {
        let removed = self.store.change(|content| {
            content
                .entries
                .get_mut(&self.service)
                .is_some_and(|users| users.remove(&self.user).is_some())
        })?;
        if removed { Ok(()) } else { Err(Error::NoEntry) }
    }

    fn get_credential(&self) -> keyring_core::Result<Option<Arc<Credential>>> {
        self.get_secret().map(|_| None)
    }

    fn get_specifiers(&self) -> Option<(String, String)> {
        Some((self.service.clone(), self.user.clone()))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn debug_fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileCredential({}, {})", self.service, self.user)
    }
}

#[cfg(test)]
pub(super) fn replace_for_tests(path: &Path, bytes: &[u8]) {
    replace(path, bytes).unwrap();
}
