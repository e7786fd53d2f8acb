//! From one store to another.

use std::sync::Arc;
use std::time::Duration;

use super::odd::{Odd, over};
use super::{Secret, VaultError, filled, open};

#[test]
fn everything_moves_and_is_proved_by_reading_back() {
    let (from, to) = (filled(), tempfile::tempdir().unwrap());
    let (source, target) = (open(from.path()), open(to.path()));
    let other = Secret::new("another".into());
    source.write("tokenwatch", "mailbox/ops", &other).unwrap();
    source.write("of-others", "x", &other).unwrap();
    target.write("tokenwatch", "more", &other).unwrap();
    let services = ["tokenwatch", "exalate"];
    assert_eq!(source.move_to(&target, &services, false).unwrap(), 2);
    assert_eq!(
        target.read("exalate", "u@x.y").unwrap().unwrap().expose(),
        "pässTOKEN"
    );
    assert_eq!(
        target.users("tokenwatch").unwrap(),
        ["mailbox/ops", "more"],
        "what was there stays"
    );
    for service in services {
        assert!(source.users(service).unwrap().is_empty());
    }
    assert_eq!(source.users("of-others").unwrap(), ["x"]);
}

#[test]
fn another_secret_in_the_new_store_stops_a_move_before_it_begins() {
    let (from, to) = (filled(), tempfile::tempdir().unwrap());
    let (source, target) = (open(from.path()), open(to.path()));
    let other = Secret::new("another".into());
    source.write("exalate", "a@x.y", &other).unwrap();
    target.write("exalate", "u@x.y", &other).unwrap();
    let error = source.move_to(&target, &["exalate"], false).unwrap_err();
    assert!(
        matches!(&error, VaultError::Differs { user, .. } if user == "u@x.y"),
        "{error}"
    );
    assert_eq!(source.users("exalate").unwrap(), ["a@x.y", "u@x.y"]);
    assert_eq!(target.users("exalate").unwrap(), ["u@x.y"]);
    assert_eq!(
        target.read("exalate", "u@x.y").unwrap().unwrap().expose(),
        "another"
    );
    assert_eq!(source.move_to(&target, &["exalate"], true).unwrap(), 2);
    assert_eq!(
        target.read("exalate", "u@x.y").unwrap().unwrap().expose(),
        "pässTOKEN"
    );
}

#[test]
fn whatever_goes_wrong_in_a_move_the_source_stays_whole() {
    let odds = [
        Odd {
            fails_at_write: Some(0),
            ..Odd::default()
        },
        Odd {
            fails_at_write: Some(1),
            ..Odd::default()
        },
        Odd {
            garbles: true,
            ..Odd::default()
        },
        Odd {
            hides: true,
            ..Odd::default()
        },
    ];
    for odd in odds {
        let from = filled();
        let source = open(from.path());
        source
            .write("exalate", "a@x.y", &Secret::new("another".into()))
            .unwrap();
        let target = over(&Arc::new(odd), Duration::from_secs(10));
        source.move_to(&target, &["exalate"], false).unwrap_err();
        assert_eq!(source.users("exalate").unwrap(), ["a@x.y", "u@x.y"]);
    }
}
