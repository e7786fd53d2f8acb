//! How an account stands, as `status` shows it, and what is wrong with it.

use jiff::Timestamp;

use super::super::board::{Stands, Trouble};
use super::accounts::rules;
use crate::api::{AccountState, AccountStatus};
use crate::config::{self, SecretSource};
use crate::rotation::{Account, Answer, Standing};
use crate::salesforce;

/// How an account stands.
pub(super) fn stands(
    configured: &config::Account,
    account: &Account,
    password: Option<&str>,
    now: Timestamp,
) -> Stands {
    let rules = rules(configured);
    let standing = account.standing(password, &rules, now);
    let (state, answer, next) = match standing {
        Standing::NoToken => (AccountState::NoToken, None, None),
        Standing::PasswordMissing => (AccountState::PasswordMissing, None, None),
        Standing::Checking { answer, next } => (AccountState::Checking, answer, next),
        Standing::Refused { answer, next, .. } => (AccountState::LoginRefused, Some(answer), next),
        Standing::Current { answer } => (AccountState::Current, answer, None),
    };
    let newest = account.newest();
    let username = configured.username.clone();
    Stands {
        trouble: trouble(configured, standing),
        status: AccountStatus {
            username,
            state,
            token_received: newest.map(|version| version.source.received),
            version: newest.map(|version| version.id),
            verified: rules.check.then_some(answer == Some(Answer::Works)),
            fingerprint: newest.map(|version| version.fingerprint.clone()),
            answer: answer.map(|answer| answer.word().to_owned()),
            next_check: next,
        },
    }
}

fn trouble(configured: &config::Account, standing: Standing) -> Option<Trouble> {
    let username = &configured.username;
    let (code, title, hint) = match standing {
        Standing::PasswordMissing => (
            "password-missing",
            format!("the Salesforce password of {username} is not known"),
            match configured.password {
                SecretSource::Vault => format!("run `tokenwatch secret set account/{username}`"),
                SecretSource::Credential(_) | SecretSource::File(_) | SecretSource::Command(_) => {
                    "see that the place which `password` of the account names can be read; it is looked at again every five minutes"
                        .to_owned()
                }
            },
        ),
        Standing::NoToken => (
            "no-token",
            format!("no token mail for {username} was found yet"),
            format!("run `tokenwatch resync --since all`, or {RESET}"),
        ),
        // Password and token change together, and the mail comes first.
        Standing::Refused {
            answer: answer @ Answer::Refused,
            is_new: true,
            next,
        } => (
            "login-refused",
            format!(
                "Salesforce refuses the new token of {username} with the password that is known: \
                 the password was most likely changed, too{}",
                once_more(next)
            ),
            another_pair(configured, answer, next),
        ),
        Standing::Refused { answer, next, .. } => (
            "login-refused",
            format!("{username}: {}{}", sentence(answer), once_more(next)),
            another_pair(configured, answer, next),
        ),
        Standing::Checking {
            answer: Some(answer),
            next,
        } => (
            "login-unchecked",
            format!(
                "the new credential of {username} cannot be checked: {}{}",
                sentence(answer),
                next.map(|at| format!("; it goes on at {at:.0}"))
                    .unwrap_or_default()
            ),
            hint(answer),
        ),
        // The login is under way, or waits for its turn where there is no `next`.
        Standing::Checking { answer: None, next } => {
            let next = next?;
            (
                "login-budget",
                format!(
                    "so many logins of {username} have failed that the next one waits until {next:.0}"
                ),
                "it goes on by itself then; `failed-logins-per-day` of the account is the limit, and a restart reads it"
                    .to_owned(),
            )
        }
        Standing::Current {
            answer: None | Some(Answer::Works),
        } => return None,
        Standing::Current {
            answer: Some(answer),
        } => (
            "login-unverified",
            format!(
                "the credential of {username} is in use, and could not be checked: {}",
                sentence(answer)
            ),
            hint(answer),
        ),
    };
    Some(Trouble { code, title, hint })
}

/// What makes a pair that was not tried yet.
const RESET: &str = "reset the security token in Salesforce, and the new one comes by mail";

/// What leads to a credential that works where Salesforce has said no. The pair of
/// which it was said is not tried again, whatever was put right in Salesforce, so
/// that it takes another one.
fn another_pair(configured: &config::Account, answer: Answer, next: Option<Timestamp>) -> String {
    let set = match configured.password {
        SecretSource::Vault => format!(
            "run `tokenwatch secret set account/{}` with the password of now",
            configured.username
        ),
        SecretSource::Credential(_) | SecretSource::File(_) | SecretSource::Command(_) => {
            "put the password of now where `password` of the account says, and run `systemctl reload tokenwatch`"
                .to_owned()
        }
    };
    let last = if next.is_none() {
        "; the token and the password of now are not tried together again"
    } else {
        ""
    };
    let first = hint(answer);
    match answer {
        Answer::PasswordExpired => format!("{first}, then {set}; the new token comes by mail"),
        Answer::Locked => {
            format!("{first}; then {RESET}, or, if the password was changed, {set}{last}")
        }
        Answer::Refused
        | Answer::Works
        | Answer::Restricted
        | Answer::NotAvailable
        | Answer::RateLimited
        | Answer::Unreachable
        | Answer::NotMade
        | Answer::Unknown => {
            format!("if the password was changed, {set}; if not, {RESET}{last}; {first}")
        }
    }
}

fn once_more(next: Option<Timestamp>) -> String {
    next.map(|at| format!("; it is tried once more at {at:.0}"))
        .unwrap_or_default()
}

fn sentence(answer: Answer) -> &'static str {
    heard(answer).map_or(
        "no login can be made as the account is configured",
        salesforce::Answer::sentence,
    )
}

/// What a person can do about an answer.
fn hint(answer: Answer) -> String {
    let Some(heard) = heard(answer) else {
        return "see `ca-file`, `proxy` and `login-url` of the account, and what the log says at `salesforce.unusable`; where they are changed, restart tokenwatch"
            .to_owned();
    };
    match answer {
        // These are not asked again for the same pair.
        Answer::Restricted | Answer::NotAvailable | Answer::Unknown => format!(
            "{}; when that is put right, {RESET} and is checked",
            heard.hint()
        ),
        Answer::Works
        | Answer::Refused
        | Answer::PasswordExpired
        | Answer::Locked
        | Answer::RateLimited
        | Answer::Unreachable
        | Answer::NotMade => heard.hint().to_owned(),
    }
}

/// An answer in the words of the room that heard it, where one was heard.
fn heard(answer: Answer) -> Option<salesforce::Answer> {
    Some(match answer {
        Answer::Works => salesforce::Answer::Works,
        Answer::Refused => salesforce::Answer::Refused,
        Answer::PasswordExpired => salesforce::Answer::PasswordExpired,
        Answer::Locked => salesforce::Answer::Locked,
        Answer::Restricted => salesforce::Answer::Restricted,
        Answer::NotAvailable => salesforce::Answer::NotAvailable,
        Answer::RateLimited => salesforce::Answer::RateLimited,
        Answer::Unreachable => salesforce::Answer::Unreachable,
        Answer::Unknown => salesforce::Answer::Unknown,
        Answer::NotMade => return None,
    })
}
