//! What the fuzz targets have in common: the world of the corpus in
//! `tests/eml`, and what must be true of every input.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use tokenwatch::judge::{Finding, Judgement, Policy, judge};
use tokenwatch::notice::Wordings;
use tokenwatch::sender::{self, Keys, Verdict};
use tokio::runtime::{Builder, Runtime};

#[path = "../tests/support/dns.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod dns;

/// Keys of the corpus, a runtime, and the tokens that were truly signed.
pub struct World {
    runtime: Runtime,
    keys: Keys,
    signed: HashSet<String>,
}

pub static WORLD: LazyLock<World> = LazyLock::new(World::new);

impl World {
    fn new() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/eml");
        let dns = dns::Dns::start();
        let zone = std::fs::read_to_string(folder.join("zone")).unwrap();
        for line in zone.lines().filter(|line| !line.starts_with('#')) {
            match line.split_once(' ').unwrap() {
                (name, "SERVFAIL") => dns.fail(name),
                (name, record) => dns.publish(name, record),
            }
        }
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let keys = runtime.block_on(async { Keys::new(&[dns.address()]).unwrap() });
        Self {
            runtime,
            keys,
            signed: tokens(&folder),
        }
    }

    pub fn judge(&self, raw: &[u8], policy: &Policy) -> Judgement {
        self.runtime.block_on(judge(raw, policy, &self.keys))
    }

    /// A mail that is trusted for its signature holds a token that was signed:
    /// nobody here has a key to sign another one with.
    pub fn trusts_only_what_was_signed(&self, judgement: &Judgement) {
        if let Finding::Notice(notice, Verdict::Trusted(proof)) = &judgement.finding {
            let token = notice.token.expose();
            assert!(
                self.signed.contains(token),
                "{token} is trusted by {proof:?} and was never signed"
            );
        }
    }
}

/// The tokens of all mails of the corpus that are trusted.
fn tokens(folder: &Path) -> HashSet<String> {
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
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .map(|path| -> serde_json::Value {
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
        })
        .filter_map(|expected| Some(expected["token"].as_str()?.to_owned()))
        .collect()
}

/// Trusts signatures and seals, and nothing that an input could write itself.
pub fn policy() -> Policy {
    let texts = |all: &[&str]| all.iter().map(|&text| text.to_owned()).collect();
    Policy {
        trust: sender::Policy {
            senders: texts(&[
                "support@salesforce.com",
                "support@emea.salesforce.com",
                "noreply@salesforce.com",
            ]),
            dkim: true,
            receiver: false,
            sender_address: false,
            receivers: texts(&["mx.example.com"]),
            arc_sealers: texts(&["forwarder.example", "lists.example"]),
        },
        wordings: Wordings::default(),
        max_size: 256 * 1024,
    }
}
