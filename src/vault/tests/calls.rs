//! Calls to a store that hangs or fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::odd::{Odd, OddStore, over};
use super::{Calls, CredentialStore, Secret, Vault, VaultError};

/// The store hangs in a write; the write lands after all when it comes back.
#[test]
fn a_call_that_hangs_fails_those_behind_it_at_once_and_may_land_late() {
    let odd = Arc::<Odd>::default();
    let vault = over(&odd, Duration::from_millis(200));
    let (first, second) = (Secret::new("first".into()), Secret::new("second".into()));
    let shut = odd.gate.lock().unwrap();
    let error = vault.write("a", "b", &first).unwrap_err();
    assert!(matches!(error, VaultError::TimedOut), "{error}");
    for _ in 0..50 {
        let error = vault.write("a", "b", &second).unwrap_err();
        assert!(matches!(error, VaultError::Stuck), "{error}");
        let error = vault.read("a", "b").unwrap_err();
        assert!(matches!(error, VaultError::Stuck), "{error}");
    }
    drop(shut);
    // What landed is the first and nothing of the others: who reads before he
    // writes learns of it.
    let deadline = Instant::now() + Duration::from_secs(10);
    let landed = loop {
        match vault.read("a", "b") {
            Ok(landed) => break landed,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::yield_now();
    };
    assert_eq!(landed.unwrap().expose(), "first");
    assert_eq!(odd.writes.load(Ordering::SeqCst), 1);
    vault.write("a", "b", &second).unwrap();
    assert_eq!(vault.read("a", "b").unwrap().unwrap().expose(), "second");
}

/// A service that was started anew is connected to again, and a library that panicked
/// begins anew.
#[test]
fn a_store_that_fails_is_opened_again() {
    let failing = || Odd {
        fails_at_write: Some(0),
        ..Odd::default()
    };
    let panicking = || Odd {
        panics_at_write: Some(0),
        ..Odd::default()
    };
    for first in [failing as fn() -> Odd, panicking] {
        let opened = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&opened);
        let open = move || {
            let odd = match counter.fetch_add(1, Ordering::SeqCst) {
                0 => first(),
                _ => Odd::default(),
            };
            Ok(Arc::new(OddStore(Arc::new(odd))) as Arc<CredentialStore>)
        };
        let vault = Vault {
            calls: Calls::start(open).unwrap(),
            file: None,
        };
        let secret = Secret::new("x".into());
        let error = vault.write("a", "b", &secret).unwrap_err();
        assert!(matches!(error, VaultError::Store(_)), "{error}");
        for _ in 0..2 {
            vault.write("a", "b", &secret).unwrap();
            assert_eq!(opened.load(Ordering::SeqCst), 2);
        }
    }
}

/// What is wrong with one entry is said of that one, and the store is not to blame.
#[test]
fn an_entry_that_is_no_text_is_one_entry() {
    let odd = Arc::<Odd>::default();
    let vault = over(&odd, Duration::from_secs(10));
    vault.write("a", "b", &Secret::new("x".into())).unwrap();
    let key = ("a".to_owned(), "c".to_owned());
    odd.entries.lock().unwrap().insert(key, vec![0xff]);
    let error = vault.read("a", "c").unwrap_err();
    assert!(error.is_of_one_entry(), "{error}");
    assert_eq!(error.to_string(), "what is stored for c (a) is no text");
    assert_eq!(vault.read("a", "b").unwrap().unwrap().expose(), "x");
}
