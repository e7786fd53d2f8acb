//! The corpus in `tests/eml`: each mail, as LF and as CRLF, against what is
//! written beside it. Its README says how a mail is added.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokenwatch::judge::{Finding, Judgement, Policy, judge};
use tokenwatch::notice::{NotANotice, Wording, Wordings};
use tokenwatch::sender::Keys;

use crate::process::Machine;
use crate::support::bombs;
use crate::support::dns::Dns;
use crate::support::trust;

/// What stands beside a mail.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Expected {
    outcome: String,
    username: Option<String>,
    token: Option<String>,
    verdict: Option<String>,
    reason: Option<Reasons>,
    /// The line ends are what the mail is about, and stay.
    #[serde(default)]
    as_is: bool,
    /// For who reads the corpus.
    #[serde(rename = "why")]
    _why: String,
}

/// One code, or several that are equally right.
#[derive(Deserialize)]
#[serde(untagged)]
enum Reasons {
    One(String),
    Any(Vec<String>),
}

impl Expected {
    fn allows(&self, said: &Said) -> bool {
        let reason = match &self.reason {
            None => said.reason.is_none(),
            Some(Reasons::One(code)) => said.reason.as_ref() == Some(code),
            Some(Reasons::Any(codes)) => said.reason.as_ref().is_some_and(|r| codes.contains(r)),
        };
        reason
            && said.outcome == self.outcome
            && said.username == self.username
            && said.token == self.token
            && said.verdict == self.verdict
    }
}

/// What was said of a mail.
#[derive(Debug, Default, Deserialize)]
struct Said {
    outcome: String,
    username: Option<String>,
    token: Option<String>,
    verdict: Option<String>,
    reason: Option<String>,
    detail: Option<String>,
}

impl Said {
    fn of(judgement: &Judgement) -> Self {
        let mut said = Self::default();
        match &judgement.finding {
            Finding::Notice(notice, verdict) => {
                said.outcome = "notice".into();
                said.username = Some(notice.username.to_string());
                said.token = Some(notice.token.expose().to_owned());
                said.verdict = Some(verdict.word().into());
                said.reason = verdict.code().map(Into::into);
                said.detail = Some(verdict.to_string());
            }
            Finding::NotANotice(why) => {
                said.outcome = match why {
                    NotANotice::Ignored(_) => "ignored".into(),
                    NotANotice::Held(_) => "held".into(),
                };
                said.reason = Some(why.code().into());
                said.detail = Some(why.to_string());
            }
        }
        said
    }
}

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/eml")
}

/// Every mail of the corpus with what is expected of it, by its name.
fn mails() -> BTreeMap<String, (Vec<u8>, Expected)> {
    let mut mails = BTreeMap::new();
    for kind in std::fs::read_dir(folder()).unwrap() {
        let kind = kind.unwrap().path();
        if !kind.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(&kind).unwrap() {
            let file = file.unwrap().path();
            if file.extension().is_some_and(|end| end == "eml") {
                let beside = std::fs::read(file.with_extension("json"))
                    .unwrap_or_else(|_| panic!("nothing stands beside {}", file.display()));
                let expected = serde_json::from_slice(&beside)
                    .unwrap_or_else(|error| panic!("beside {}: {error}", file.display()));
                let name = file.strip_prefix(folder()).unwrap().display().to_string();
                mails.insert(name, (std::fs::read(&file).unwrap(), expected));
            }
        }
    }
    mails
}

fn dns() -> Dns {
    Dns::serving(&std::fs::read_to_string(folder().join("zone")).unwrap())
}

fn policy() -> Policy {
    let mut policy = trust::policy();
    policy.wordings = Wordings::new(&[Wording {
        subject: Some("Ihr neuer Salesforce-Sicherheitstoken".into()),
        username: "Benutzername".into(),
        token: "Sicherheitstoken".into(),
    }])
    .unwrap();
    policy
}

fn with_crlf(mail: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(mail.len());
    for byte in mail {
        if *byte == b'\n' {
            out.push(b'\r');
        }
        out.push(*byte);
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mail_is_judged_as_it_is_written_beside_it() {
    let (dns, policy) = (dns(), policy());
    let keys = Keys::new(&[dns.address()]).unwrap();
    let mails = mails();
    assert!(mails.len() >= 150, "{} mails", mails.len());
    let mut wrong = Vec::new();
    for (name, (mail, expected)) in &mails {
        let mut variants = vec![("as it is", mail.clone())];
        if !expected.as_is {
            assert!(!mail.contains(&b'\r'), "{name} is to have LF only");
            variants.push(("as CRLF", with_crlf(mail)));
        }
        for (form, mail) in variants {
            let said = Said::of(&judge(&mail, &policy, &keys).await);
            if !expected.allows(&said) {
                wrong.push(format!("{name} {form}: {said:?}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// The same through the real binary: all files at once, each a line.
#[tokio::test(flavor = "multi_thread")]
async fn extract_says_what_the_judge_says() {
    let dns = dns();
    let machine = Machine::new("");
    machine.configure(&format!(
        "state-dir = \"STATE\"\n[trust]\nreceivers = [\"mx.example.com\"]\n\
         arc-sealers = [\"forwarder.example\", \"lists.example\"]\ndns-servers = [\"{}\"]\n\
         [[wording]]\nsubject = \"Ihr neuer Salesforce-Sicherheitstoken\"\n\
         username = \"Benutzername\"\ntoken = \"Sicherheitstoken\"\n",
        dns.address()
    ));
    let mails = mails();
    let path = |name: &String| folder().join(name).display().to_string();
    let files: Vec<String> = mails.keys().map(path).collect();
    let mut arguments = vec!["extract", "--json", "--reveal"];
    arguments.extend(files.iter().map(String::as_str));
    let printed = machine.ok(&arguments);
    assert_eq!(printed.lines().count(), mails.len());
    for (line, (name, (_, expected))) in printed.lines().zip(&mails) {
        let said: Said = serde_json::from_str(line).unwrap();
        assert!(expected.allows(&said), "{name}: {line}");
        assert!(said.detail.is_some(), "{name}: {line}");
    }
}

/// Memory is bounded whatever is in a file: the process may have the bound and
/// what it takes without any mail, and no more.
#[test]
fn extract_has_enough_memory_for_any_mail() {
    let machine = Machine::new("");
    machine.configure(&format!(
        "state-dir = \"STATE\"\n[trust]\naccept = [\"receiver\"]\nreceivers = [\"mx.example.com\"]\n\
         [[mailbox]]\nname = \"ops\"\nhost = \"localhost\"\nuser = \"u\"\nmax-mail-size = {}\n",
        bombs::LARGEST
    ));
    let named = [
        "a mail of 25 MB",
        "20,000 multiparts deep",
        "a line of 5 MB",
        "100,000 header fields",
        "150,000 mails in mails, in base64",
        "1,000 tags that mend each other",
    ];
    let all = bombs::all();
    for name in named {
        let (_, mail) = all.iter().find(|(known, _)| *known == name).unwrap();
        let file = machine.folder.path().join("bomb.eml");
        std::fs::write(&file, mail).unwrap();
        let ended = machine.run_within(96 * 1024, &["extract", "--json", file.to_str().unwrap()]);
        assert!(
            matches!(ended.code, 0 | 65),
            "{name}: {} {}",
            ended.code,
            ended.stderr
        );
        assert_eq!(ended.stdout.lines().count(), 1, "{name}");
    }
}
