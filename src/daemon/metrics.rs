//! The status in the form of `OpenMetrics`, for `GET /metrics`.

use std::fmt::Write as _;

use crate::api::{AccountState, MailboxState, Status};

pub(super) fn render(status: &Status) -> String {
    let label = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let mut out = String::from("# TYPE tokenwatch_watched gauge\n");
    // Writing to a String cannot fail.
    for row in &status.mailboxes {
        let watched = matches!(row.state, MailboxState::Watching | MailboxState::Polling);
        writeln!(
            out,
            "tokenwatch_watched{{mailbox=\"{}\",folder=\"{}\"}} {}",
            label(&row.name),
            label(&row.folder),
            u8::from(watched)
        )
        .unwrap_or_default();
    }
    out.push_str("# TYPE tokenwatch_proof_of_life_timestamp_seconds gauge\n");
    for row in &status.mailboxes {
        if let Some(at) = row.proof_of_life {
            writeln!(
                out,
                "tokenwatch_proof_of_life_timestamp_seconds{{mailbox=\"{}\",folder=\"{}\"}} {}",
                label(&row.name),
                label(&row.folder),
                at.as_second()
            )
            .unwrap_or_default();
        }
    }
    out.push_str("# TYPE tokenwatch_credential_current gauge\n");
    for account in &status.accounts {
        writeln!(
            out,
            "tokenwatch_credential_current{{username=\"{}\"}} {}",
            label(&account.username),
            u8::from(account.state == AccountState::Current)
        )
        .unwrap_or_default();
    }
    writeln!(
        out,
        "# TYPE tokenwatch_held gauge\ntokenwatch_held {}\n\
         # TYPE tokenwatch_problems gauge\ntokenwatch_problems {}\n# EOF",
        status.held,
        status.problems.len()
    )
    .unwrap_or_default();
    out
}
