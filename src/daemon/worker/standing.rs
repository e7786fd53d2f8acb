//! How an account stands, as `status` shows it, and what is wrong with it.

use jiff::Timestamp;

use super::super::board::{Stands, Trouble};
use super::accounts::rules;
use crate::api::{AccountState, AccountStatus};
use crate::config;
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
        trouble: trouble(&username, standing),
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

fn trouble(username: &str, standing: Standing) -> Option<Trouble> {
    let set = format!("tokenwatch secret set account/{username}");
    let (code, title, hint) = match standing {
        Standing::PasswordMissing => (
            "password-missing",
            format!("the Salesforce password of {username} is not known"),
            format!(
                "run `{set}`, or see that the place which `password` of the account names can be read"
            ),
        ),
        Standing::NoToken => (
            "no-token",
            format!("no token mail for {username} was found yet"),
            "run `tokenwatch resync --since all`, or reset the security token in Salesforce"
                .to_owned(),
        ),
        // Password and token change together, and the mail comes first.
        Standing::Refused {
            answer: Answer::Refused,
            is_new: true,
            next,
        } => (
            "login-refused",
            format!(
                "Salesforce refuses the new token of {username} with the password that is known: \
                 the password was most likely changed, too{}",
                once_more(next)
            ),
            format!("run `{set}` with the password of now"),
        ),
        Standing::Refused { answer, next, .. } => (
            "login-refused",
            format!("{username}: {}{}", sentence(answer), once_more(next)),
            if answer == Answer::Refused {
                format!(
                    "run `{set}` with the password of now, or reset the security token in Salesforce"
                )
            } else {
                heard(answer).hint().to_owned()
            },
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
            heard(answer).hint().to_owned(),
        ),
        // The login is under way, or waits for its turn where there is no `next`.
        Standing::Checking { answer: None, next } => {
            let next = next?;
            (
                "login-budget",
                format!(
                    "so many logins of {username} have failed that the next one waits until {next:.0}"
                ),
                "see what else logs in with this user; `failed-logins-per-day` of the account is the limit"
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
            heard(answer).hint().to_owned(),
        ),
    };
    Some(Trouble { code, title, hint })
}

fn once_more(next: Option<Timestamp>) -> String {
    next.map(|at| format!("; it is tried once more at {at:.0}"))
        .unwrap_or_default()
}

fn sentence(answer: Answer) -> &'static str {
    heard(answer).sentence()
}

/// An answer in the words of the room that heard it.
fn heard(answer: Answer) -> salesforce::Answer {
    match answer {
        Answer::Works => salesforce::Answer::Works,
        Answer::Refused => salesforce::Answer::Refused,
        Answer::PasswordExpired => salesforce::Answer::PasswordExpired,
        Answer::Locked => salesforce::Answer::Locked,
        Answer::Restricted => salesforce::Answer::Restricted,
        Answer::NotAvailable => salesforce::Answer::NotAvailable,
        Answer::RateLimited => salesforce::Answer::RateLimited,
        Answer::Unreachable => salesforce::Answer::Unreachable,
        Answer::Unknown => salesforce::Answer::Unknown,
    }
}
