//! Keys: another one, a passphrase, further recipients.

#![expect(
    clippy::unnecessary_wraps,
    reason = "who answers has the type of who may have no answer"
)]

use std::path::Path;

use super::rekey::Rekeying;
use super::*;
use crate::secret::Secret;
use crate::vault::{AskError, Key, Options, Question, Vault};

fn plain(folder: &Path) -> FileOptions {
    FileOptions {
        path: folder.join("vault.age"),
        key: Key::Made(folder.join("vault.key")),
        recipients: Vec::new(),
    }
}

fn asking(folder: &Path, ask: crate::vault::Ask) -> FileOptions {
    FileOptions {
        key: Key::Passphrase {
            path: folder.join("vault.key.age"),
            ask,
        },
        ..plain(folder)
    }
}

fn open(options: FileOptions) -> Result<Vault, VaultError> {
    Vault::open(Options::File(options))
}

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

fn filled(options: FileOptions) {
    let vault = open(options).unwrap();
    vault.write("exalate", "u@x.y", &secret("kept")).unwrap();
}

/// The identity in a key file.
fn identity(path: &Path) -> Identity {
    Keys::open(Key::Made(path.to_owned()))
        .unwrap()
        .identity()
        .unwrap()
        .unwrap()
}

fn opens(folder: &Path, identity: &Identity) -> bool {
    age::decrypt(identity, &std::fs::read(folder.join("vault.age")).unwrap()).is_ok()
}

/// The steps after which a process may die, and who opens the vault then.
#[test]
fn a_change_of_the_key_may_stop_after_any_step() {
    for steps in 0..=4 {
        let folder = tempfile::tempdir().unwrap();
        filled(plain(folder.path()));
        let old = identity(&folder.path().join("vault.key"));
        {
            let store = FileStore::take_up(plain(folder.path())).unwrap();
            let mut rekeying = None;
            for step in 1..=steps {
                match step {
                    1 => rekeying = Some(Rekeying::first(&store).unwrap()),
                    2 => rekeying.as_ref().unwrap().second().unwrap(),
                    3 => rekeying.as_ref().unwrap().third().unwrap(),
                    _ => rekeying.as_ref().unwrap().fourth().unwrap(),
                }
            }
        }
        let in_place = identity(&folder.path().join("vault.key"));
        let vault = open(plain(folder.path())).unwrap();
        let kept = vault.read("exalate", "u@x.y").unwrap();
        assert_eq!(kept.unwrap().expose(), "kept", "after {steps} steps");
        assert_eq!(opens(folder.path(), &old), steps < 4, "after {steps} steps");
        assert_eq!(in_place.to_public() == old.to_public(), steps < 3);
        // It is written to as before, and begun anew it comes to its end.
        vault.write("exalate", "v@x.y", &secret("more")).unwrap();
        drop(vault);
        rekey(plain(folder.path())).unwrap();
        let last = identity(&folder.path().join("vault.key"));
        for stale in [&old, &in_place] {
            assert!(last.to_public() != stale.to_public());
            assert!(!opens(folder.path(), stale), "after {steps} steps");
        }
        let vault = open(plain(folder.path())).unwrap();
        assert_eq!(vault.users("exalate").unwrap(), ["u@x.y", "v@x.y"]);
        assert!(!folder.path().join("vault.key.next").exists());
    }
}

#[test]
fn a_key_that_is_not_ours_or_not_there_is_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    let error = rekey(plain(folder.path())).unwrap_err();
    assert!(
        matches!(error, VaultError::File(FileError::NoVault(_))),
        "{error}"
    );
    filled(plain(folder.path()));
    let before = std::fs::read(folder.path().join("vault.age")).unwrap();
    let error = rekey(FileOptions {
        key: Key::Provided(folder.path().join("vault.key")),
        ..plain(folder.path())
    })
    .unwrap_err();
    assert!(
        matches!(error, VaultError::File(FileError::KeyProvided(_))),
        "{error}"
    );
    assert!(error.hint().contains("systemd-creds"));
    assert_eq!(
        std::fs::read(folder.path().join("vault.age")).unwrap(),
        before
    );
}

#[test]
fn a_further_recipient_opens_what_is_written_from_then_on() {
    let folder = tempfile::tempdir().unwrap();
    let offline = Identity::generate();
    filled(plain(folder.path()));
    let with = FileOptions {
        recipients: vec![offline.to_public()],
        ..plain(folder.path())
    };
    let vault = open(with.clone()).unwrap();
    assert!(!opens(folder.path(), &offline), "nothing was written yet");
    vault.write("exalate", "v@x.y", &secret("more")).unwrap();
    assert!(opens(folder.path(), &offline));
    drop(vault);
    rekey(with.clone()).unwrap();
    assert!(opens(folder.path(), &offline), "another key keeps it");
    // Taken off the list, it opens nothing newer.
    let vault = open(plain(folder.path())).unwrap();
    vault.remove("exalate", "v@x.y").unwrap();
    assert!(!opens(folder.path(), &offline));
}

#[test]
fn a_passphrase_is_asked_for_once_and_opens_the_key() {
    use std::sync::atomic::AtomicUsize;

    static UNLOCKED: AtomicUsize = AtomicUsize::new(0);
    static MADE: AtomicUsize = AtomicUsize::new(0);
    fn right(question: Question, _: &Path) -> Result<Secret, AskError> {
        match question {
            Question::Unlock => UNLOCKED.fetch_add(1, Ordering::SeqCst),
            Question::New => MADE.fetch_add(1, Ordering::SeqCst),
        };
        Ok(secret("correct horse"))
    }
    fn wrong(_: Question, _: &Path) -> Result<Secret, AskError> {
        Ok(secret("another"))
    }
    fn nobody(_: Question, _: &Path) -> Result<Secret, AskError> {
        Err(AskError::Nobody)
    }
    let asked = || (MADE.load(Ordering::SeqCst), UNLOCKED.load(Ordering::SeqCst));
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("vault.key.age");

    let vault = open(asking(folder.path(), right)).unwrap();
    assert!(vault.read("a", "b").unwrap().is_none());
    assert_eq!(asked(), (0, 0), "a vault that is not there asks nothing");
    vault.write("exalate", "u@x.y", &secret("kept")).unwrap();
    vault.write("exalate", "v@x.y", &secret("more")).unwrap();
    assert_eq!(asked(), (1, 0));
    drop(vault);
    let sealed = std::fs::read(&key).unwrap();
    assert!(!String::from_utf8_lossy(&sealed).contains("AGE-SECRET-KEY"));

    let vault = open(asking(folder.path(), right)).unwrap();
    assert_eq!(vault.users("exalate").unwrap(), ["u@x.y", "v@x.y"]);
    vault.write("exalate", "v@x.y", &secret("new")).unwrap();
    assert_eq!(asked(), (1, 1));
    drop(vault);

    let error = open(asking(folder.path(), wrong)).err().unwrap();
    assert!(
        matches!(error, VaultError::File(FileError::WrongPassphrase(_))),
        "{error}"
    );
    let error = open(asking(folder.path(), nobody)).err().unwrap();
    assert!(
        matches!(error, VaultError::Ask(AskError::Nobody)),
        "{error}"
    );

    rekey(asking(folder.path(), right)).unwrap();
    assert_eq!(asked(), (2, 2));
    assert!(std::fs::read(&key).unwrap() != sealed);
    let vault = open(asking(folder.path(), right)).unwrap();
    assert_eq!(
        vault.read("exalate", "v@x.y").unwrap().unwrap().expose(),
        "new"
    );
    drop(vault);

    std::fs::remove_file(&key).unwrap();
    let error = open(asking(folder.path(), right)).err().unwrap();
    assert!(
        matches!(error, VaultError::File(FileError::KeyMissing(_))),
        "{error}"
    );
}

/// A file that asks for gigabytes of scrypt is not worked through.
#[test]
fn a_key_that_asks_for_too_much_work_is_refused() {
    fn right(_: Question, _: &Path) -> Result<Secret, AskError> {
        Ok(secret("correct horse"))
    }
    let folder = tempfile::tempdir().unwrap();
    let mut lock = age::scrypt::Recipient::new("correct horse".to_owned().into());
    lock.set_work_factor(10);
    let text = Identity::generate().to_string();
    let key = secrecy::ExposeSecret::expose_secret(&text);
    let mut sealed = age::encrypt(&lock, key.as_bytes()).unwrap();
    disk::replace(&folder.path().join("vault.key.age"), &sealed).unwrap();
    open(asking(folder.path(), right)).unwrap();
    // The factor stands at the end of the second line.
    let end = sealed.windows(4).position(|at| at == b" 10\n").unwrap();
    sealed[end + 1] = b'3';
    disk::replace(&folder.path().join("vault.key.age"), &sealed).unwrap();
    let error = open(asking(folder.path(), right)).err().unwrap();
    assert!(
        matches!(error, VaultError::File(FileError::KeyMalformed(_))),
        "{error}"
    );
}
