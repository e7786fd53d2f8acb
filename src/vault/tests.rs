//! The file vault on a real file system.

mod calls;
mod moving;
mod odd;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
#[cfg(feature = "system-tests")]
use std::process::Command;

use super::*;

fn options(folder: &Path) -> Options {
    Options::File(FileOptions {
        path: folder.join("vault.age"),
        key: Key::Made(folder.join("vault.key")),
        recipients: Vec::new(),
    })
}

fn open(folder: &Path) -> Vault {
    Vault::open(options(folder)).unwrap()
}

fn refused(folder: &Path) -> VaultError {
    Vault::open(options(folder)).err().expect("must be refused")
}

fn filled() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let vault = open(folder.path());
    vault
        .write("exalate", "u@x.y", &Secret::new("pässTOKEN".into()))
        .unwrap();
    folder
}

#[test]
fn what_is_written_is_read_back_by_the_next_process() {
    let folder = filled();
    let vault = open(folder.path());
    let secret = vault.read("exalate", "u@x.y").unwrap().unwrap();
    assert_eq!(secret.expose(), "pässTOKEN");
    assert!(vault.read("exalate", "other").unwrap().is_none());
    assert_eq!(vault.users("exalate").unwrap(), ["u@x.y"]);
    assert!(vault.remove("exalate", "u@x.y").unwrap());
    assert!(!vault.remove("exalate", "u@x.y").unwrap());
    assert!(vault.users("exalate").unwrap().is_empty());
}

#[test]
fn nothing_is_made_before_the_first_write() {
    let folder = tempfile::tempdir().unwrap();
    let vault = open(folder.path());
    assert!(vault.read("a", "b").unwrap().is_none());
    assert!(!folder.path().join("vault.key").exists());
    assert!(!folder.path().join("vault.age").exists());
}

#[test]
fn every_file_is_its_owners_alone_and_encrypted() {
    let folder = filled();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.path());
        let bytes = std::fs::read(entry.path()).unwrap();
        assert!(
            !bytes.windows(5).any(|w| w == b"TOKEN"),
            "{:?}",
            entry.path()
        );
    }
}

#[test]
fn a_wrong_key_is_an_error_when_the_vault_is_opened_and_harms_nothing() {
    let folder = filled();
    let other = filled();
    let key = folder.path().join("vault.key");
    let kept = std::fs::read(&key).unwrap();
    std::fs::copy(other.path().join("vault.key"), &key).unwrap();
    let error = refused(folder.path());
    assert!(
        matches!(error, VaultError::File(FileError::WrongKey(_))),
        "{error}"
    );
    std::fs::remove_file(&key).unwrap();
    let error = refused(folder.path());
    assert!(
        matches!(error, VaultError::File(FileError::KeyMissing(_))),
        "{error}"
    );
    assert!(
        !key.exists(),
        "a key was made over a vault that it cannot open"
    );
    file::replace_for_tests(&key, &kept);
    assert!(
        open(folder.path())
            .read("exalate", "u@x.y")
            .unwrap()
            .is_some()
    );
}

#[test]
fn a_damaged_or_readable_file_is_refused() {
    let folder = filled();
    let path = folder.path().join("vault.age");
    let whole = std::fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for damaged in [&flipped[..], &whole[..whole.len() / 2], b""] {
        file::replace_for_tests(&path, damaged);
        let error = refused(folder.path());
        assert!(
            matches!(error, VaultError::File(FileError::Damaged(_))),
            "{error}"
        );
    }
    file::replace_for_tests(&path, &whole);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = refused(folder.path());
    assert!(
        matches!(error, VaultError::File(FileError::Insecure { .. })),
        "{error}"
    );
}

#[test]
fn a_second_process_is_kept_out_until_the_first_is_gone() {
    let folder = filled();
    let first = open(folder.path());
    let error = refused(folder.path());
    assert!(
        matches!(error, VaultError::File(FileError::Locked(_))),
        "{error}"
    );
    drop(first);
    open(folder.path());
}

#[test]
fn a_vault_that_goes_back_or_away_under_a_running_daemon_is_noticed() {
    let folder = filled();
    let path = folder.path().join("vault.age");
    let older = std::fs::read(&path).unwrap();
    let vault = open(folder.path());
    vault.write("a", "b", &Secret::new("c".into())).unwrap();
    let newer = std::fs::read(&path).unwrap();
    file::replace_for_tests(&path, &older);
    for _ in 0..2 {
        let error = vault.write("a", "d", &Secret::new("e".into())).unwrap_err();
        assert!(
            matches!(error, VaultError::File(FileError::WentBack(_))),
            "{error}"
        );
        std::fs::remove_file(&path).unwrap_or_default();
    }
    file::replace_for_tests(&path, &newer);
    assert_eq!(vault.read("a", "b").unwrap().unwrap().expose(), "c");
}

#[test]
fn a_left_over_temporary_file_is_taken_over() {
    let folder = filled();
    let left_over = folder.path().join("vault.age.new");
    file::replace_for_tests(&left_over, b"half");
    std::fs::set_permissions(&left_over, std::fs::Permissions::from_mode(0o644)).unwrap();
    let vault = open(folder.path());
    vault.write("a", "b", &Secret::new("c".into())).unwrap();
    assert_eq!(vault.read("a", "b").unwrap().unwrap().expose(), "c");
    assert!(vault.read("exalate", "u@x.y").unwrap().is_some());
}

#[test]
fn a_link_in_the_place_of_the_vault_is_not_followed() {
    let folder = filled();
    let path = folder.path().join("vault.age");
    std::fs::rename(&path, folder.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(folder.path().join("elsewhere"), &path).unwrap();
    assert!(matches!(
        refused(folder.path()),
        VaultError::File(FileError::Io { .. })
    ));
}

/// The break-glass promise: a person with the key needs no tokenwatch.
#[test]
#[cfg(feature = "system-tests")]
fn stock_age_opens_the_vault() {
    let folder = filled();
    let output = Command::new("age")
        .args(["-d", "-i"])
        .arg(folder.path().join("vault.key"))
        .arg(folder.path().join("vault.age"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("pässTOKEN")
    );
}
