//! What the log says of an account, once it is durable.

use jiff::Timestamp;

use super::accounts::rules;
use super::desk::Change;
use crate::rotation::{Account, Answer, Label, Reception, Standing};

/// What has become of an account, for the log.
pub(super) fn tell(change: &Change, now: Timestamp) {
    let Change {
        before,
        step,
        configured,
        ..
    } = change;
    let (username, account) = (&configured.username, &step.account);
    let password = change.password.as_deref();
    if change.publishes {
        tracing::info!(event = "credential.published", username = %username,
            "the entry that others read was written");
    }
    let Some(version) = account.newest() else {
        return;
    };
    let released = account.released(password);
    let was = before.labelled(Label::Current);
    if let Some(current) = released
        && (was.map(|v| v.id) != Some(current.id) || before.password != account.password)
    {
        tracing::info!(event = "credential.updated", username = %username, version = current.id,
            fingerprint = %current.fingerprint, proof = %current.proof,
            "the credential is up to date");
        if rules(configured).check && !account.is_proven(current) {
            tracing::warn!(event = "credential.unverified", username = %username,
                version = current.id,
                "the credential could not be checked, and is used all the same");
        }
    }
    if step.reception == Some(Reception::Updated) && version.label == Label::Pending {
        if password.is_none() {
            tracing::warn!(event = "credential.pending", username = %username,
                version = version.id, fingerprint = %version.fingerprint, proof = %version.proof,
                "a new token is kept; the Salesforce password is missing");
        } else {
            tracing::info!(event = "credential.pending", username = %username,
                version = version.id, fingerprint = %version.fingerprint, proof = %version.proof,
                "a new token is kept, and will be checked before it is used");
        }
    }
    let checked = |account: &Account| account.newest().and_then(|version| version.checked);
    let Some((answer, _)) = checked(account).filter(|_| checked(before) != checked(account)) else {
        return;
    };
    match account.standing(password, &rules(configured), now) {
        Standing::Current {
            answer: Some(Answer::Works),
        } => {
            tracing::info!(event = "credential.verified", username = %username,
                version = version.id, "Salesforce accepts the credential");
        }
        Standing::Refused {
            next: Some(next), ..
        } => tracing::warn!(event = "credential.refused", username = %username,
            version = version.id, answer = answer.word(), next = %next,
            "Salesforce refuses the credential; it is tried once more"),
        Standing::Refused { next: None, .. } => {
            tracing::error!(event = "credential.refused", username = %username,
                version = version.id, answer = answer.word(),
                "Salesforce refuses the credential: a person must act");
        }
        Standing::NoToken
        | Standing::PasswordMissing
        | Standing::Checking { .. }
        | Standing::Current { .. } => {
            let next = account.due(password, &rules(configured), now);
            tracing::warn!(event = "credential.unchecked", username = %username,
                version = version.id, answer = answer.word(),
                next = next.map(tracing::field::display),
                "the credential could not be checked");
        }
    }
}
