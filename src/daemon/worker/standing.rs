//! How an account stands, as `status` shows it.

use jiff::Timestamp;

use super::accounts::rules;
use crate::api::{AccountState, AccountStatus};
use crate::config;
use crate::rotation::{Account, Answer, Standing};

/// How an account stands.
pub(super) fn status(
    configured: &config::Account,
    account: &Account,
    password: Option<&str>,
    now: Timestamp,
) -> AccountStatus {
    let rules = rules(configured);
    let (state, answer, next) = match account.standing(password, &rules, now) {
        Standing::NoToken => (AccountState::NoToken, None, None),
        Standing::PasswordMissing => (AccountState::PasswordMissing, None, None),
        Standing::Checking { answer, next } => (AccountState::Checking, answer, next),
        Standing::Refused { answer, next, .. } => (AccountState::LoginRefused, Some(answer), next),
        Standing::Current { answer } => (AccountState::Current, answer, None),
    };
    let newest = account.newest();
    AccountStatus {
        username: configured.username.clone(),
        state,
        token_received: newest.map(|version| version.source.received),
        version: newest.map(|version| version.id),
        verified: rules.check.then_some(answer == Some(Answer::Works)),
        fingerprint: newest.map(|version| version.fingerprint.clone()),
        answer: answer.map(|answer| answer.word().to_owned()),
        next_check: next,
    }
}
