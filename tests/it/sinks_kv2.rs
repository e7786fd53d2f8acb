//! An entry of a key-value store of version 2, by check-and-set.

use serde_json::json;
use tokenwatch::sink::{Class, Credential, Delivered};

use crate::https::Https;
use crate::kv2::Kv2;
use crate::receivers::{Receiver, credential};

const PATH: &str = "exalate/mariana@idalko.com";

struct Store {
    kv2: Kv2,
    server: Https,
    folder: tempfile::TempDir,
}

impl Store {
    fn new() -> Self {
        let kv2 = Kv2::new("hvs.token");
        let server = Https::new(kv2.router());
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), &server.authority).unwrap();
        Self {
            kv2,
            server,
            folder,
        }
    }

    async fn receiver(&self, path: &str, token: &str) -> Receiver {
        let url = self.server.url(path);
        let configuration = format!(
            "[[sink]]\nkind='webhook'\nname='bao'\nformat='kv2'\ninclude-secret=true\n\
            ca-file='ca.pem'\nheaders={{X-Vault-Token='vault'}}\nurl='{url}'\n"
        );
        let vault = [("sink/bao/x-vault-token", token)];
        Receiver::new(self.folder.path(), &configuration, &vault)
            .await
            .unwrap()
    }
}

fn pair(credential: &Credential) -> serde_json::Value {
    json!({"username": credential.username, "password": credential.secret.expose()})
}

#[tokio::test]
async fn a_credential_is_written_once_and_the_next_one_over_it() {
    let store = Store::new();
    let receiver = store
        .receiver("/v1/secret/data/exalate/{username}", "hvs.token")
        .await;
    let [first, second] = ["old\"TOKEN", "new'TOKEN"].map(credential);
    assert_eq!(receiver.deliver(&first).await.unwrap(), Delivered::New);
    // Repeated, as it is after a crash behind the write.
    assert_eq!(receiver.deliver(&first).await.unwrap(), Delivered::Already);
    assert_eq!(receiver.deliver(&second).await.unwrap(), Delivered::New);
    assert_eq!(store.kv2.versions(PATH), [pair(&first), pair(&second)]);
    assert_eq!(store.kv2.writes(), 2);

    // A deleted entry still has its version, and a `cas` of 0 would not do.
    store.kv2.delete(PATH);
    assert_eq!(receiver.deliver(&second).await.unwrap(), Delivered::New);
    assert_eq!(store.kv2.versions(PATH).len(), 3);
}

#[tokio::test]
async fn who_writes_in_between_is_not_overwritten_unseen() {
    let store = Store::new();
    let receiver = store
        .receiver("/v1/secret/data/exalate/{username}", "hvs.token")
        .await;
    let credential = credential("newTOKEN");
    let other = json!({"username": 1, "note": "somebody else"});
    store.kv2.between(other.clone());
    let error = receiver.deliver(&credential).await.unwrap_err();
    assert_eq!(
        (error.class(), error.code()),
        (Class::Transient, "conflict")
    );
    assert_eq!(store.kv2.versions(PATH), std::slice::from_ref(&other));
    // The next try looks again.
    assert_eq!(receiver.deliver(&credential).await.unwrap(), Delivered::New);
    assert_eq!(store.kv2.versions(PATH), [other, pair(&credential)]);
}

#[tokio::test]
async fn what_the_store_says_has_its_class() {
    let store = Store::new();
    let credential = credential("newTOKEN");
    let entry = "/v1/secret/data/exalate/{username}";
    let wrong = store.receiver(entry, "hvs.other").await;
    let error = wrong.deliver(&credential).await.unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Person, "refused"));

    let receiver = store.receiver(entry, "hvs.token").await;
    store.kv2.seal(true);
    let error = receiver.deliver(&credential).await.unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Transient, "busy"));
    store.kv2.seal(false);

    // No such mount: a read is not found, and a write neither.
    let lost = store.receiver("/v1/other/data/x", "hvs.token").await;
    let error = lost.deliver(&credential).await.unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Person, "refused"));
    let shown = format!("{error} {error:?} {}", error.hint());
    assert!(
        !shown.contains("TOKEN") && !shown.contains("hvs."),
        "{shown}"
    );
    assert_eq!(store.kv2.writes(), 0);
}
