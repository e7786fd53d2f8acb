//! The files of the file vault: read with care, written whole, locked.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::FileError;

/// No vault is larger; a thousand accounts need about 4 MiB.
const MAX_SIZE: u64 = 64 * 1024 * 1024;

/// How long another process may hold the lock before we give up.
const LOCK_DEADLINE: Duration = Duration::from_secs(5);

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

/// Keeps other processes out for as long as what it gives is kept.
pub(super) fn lock(path: &Path) -> Result<File, FileError> {
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
pub(super) fn read_private(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    read(path, nofollow(), true)
}

/// Reads a file that somebody else guards; `None` where there is none.
pub(super) fn read_any(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
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
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let temporary = beside(path, ".new");
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
    put_in_place(&temporary, path)
}

/// Gives a file that is durable the name `path`, durably.
pub(super) fn put_in_place(file: &Path, path: &Path) -> Result<(), FileError> {
    std::fs::rename(file, path).map_err(failed("rename", file))?;
    let folder = folder(path);
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed("fsync", folder))
}

/// The file of this name with `ending` behind it.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Whether what is written there is gone after a reboot: the file system is
/// one in memory.
pub(super) fn is_in_memory(path: &Path) -> Result<bool, FileError> {
    // linux/magic.h
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    let folder = folder(path);
    let stat = rustix::fs::statfs(folder)
        .map_err(io::Error::from)
        .map_err(failed("look at", folder))?;
    // The type of the field is not the same on every machine.
    let magic = u64::try_from(stat.f_type).unwrap_or_default() & 0xffff_ffff;
    Ok(matches!(magic, TMPFS | RAMFS))
}

fn folder(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}
