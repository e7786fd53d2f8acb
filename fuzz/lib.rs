//! What the fuzz targets have in common: the world of the corpus in
//! `tests/eml`, and what must be true of every input.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use tokenwatch::judge::{Finding, Judgement, Policy, judge};
use tokenwatch::sender::{Keys, Verdict};
use tokio::runtime::{Builder, Runtime};

#[path = "../tests/support/dns.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod dns;

#[path = "../tests/support/trust.rs"]
mod trust;

/// Keys of the corpus, a runtime, and the mails that were truly signed.
pub struct World {
    runtime: Runtime,
    keys: Keys,
    mails: Vec<Vec<u8>>,
    signed: Vec<(String, String)>,
}

pub static WORLD: LazyLock<World> = LazyLock::new(World::new);

impl World {
    fn new() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/eml");
        let zone = std::fs::read_to_string(folder.join("zone")).unwrap();
        let dns = dns::Dns::serving(&zone);
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let keys = runtime.block_on(async { Keys::new(&[dns.address()]).unwrap() });
        Self {
            runtime,
            keys,
            mails: all(&folder, "eml"),
            signed: pairs(&folder),
        }
    }

    pub fn judge(&self, raw: &[u8], policy: &Policy) -> Judgement {
        self.runtime.block_on(judge(raw, policy, &self.keys))
    }

    /// A mail that is trusted for its signature holds what was signed: nobody
    /// here has a key to sign anything else with, or to join one mail's
    /// username with the token of another.
    pub fn trusts_only_what_was_signed(&self, judgement: &Judgement) {
        let Finding::Notice(notice, Verdict::Trusted(proof)) = &judgement.finding else {
            return;
        };
        let (username, token) = (notice.username.as_str(), notice.token.expose());
        let is_expected = self.signed.iter().any(|(u, t)| u == username && t == token);
        // Mails that are held have no token beside them; theirs stand in them.
        let stand_together = |mail: &Vec<u8>| {
            let mail = String::from_utf8_lossy(mail);
            mail.contains(username) && mail.contains(token)
        };
        assert!(
            is_expected || self.mails.iter().any(stand_together),
            "{username} {token}: trusted by {proof:?} and never signed"
        );
    }
}

/// Every file of the corpus with this ending.
fn all(folder: &Path, ending: &str) -> Vec<Vec<u8>> {
    let list = |folder: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect()
    };
    list(folder)
        .iter()
        .filter(|path| path.is_dir())
        .flat_map(|kind| list(kind))
        .filter(|path| path.extension().is_some_and(|end| end == ending))
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

/// The usernames and tokens that are expected.
fn pairs(folder: &Path) -> Vec<(String, String)> {
    let pair = |expected: &serde_json::Value| {
        let text = |key: &str| Some(expected[key].as_str()?.to_owned());
        Some((text("username")?, text("token")?))
    };
    all(folder, "json")
        .iter()
        .map(|file| serde_json::from_slice(file).unwrap())
        .filter_map(|expected| pair(&expected))
        .collect()
}

/// Trusts signatures and seals, and nothing that an input could write itself.
pub fn policy() -> Policy {
    let mut policy = trust::policy();
    policy.trust.receiver = false;
    policy
}
