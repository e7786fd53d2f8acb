//! The command layer: sent, answered, done.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use async_imap::imap_proto::{Response, Status};
use futures_util::FutureExt;
use jiff::Timestamp;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{Session, words};
use crate::mailbox::MailboxError;
use crate::mailbox::error::clean;

/// How long one command may take in all, however busily it is answered.
const DEADLINE: Duration = Duration::from_secs(600);

/// What was heard.
pub(super) enum Heard {
    Untagged,
    /// The server wants more.
    Continue,
    /// The command is done.
    Done(Answer),
}

/// What a tagged answer says.
pub(in crate::mailbox) enum Answer {
    Ok,
    /// NO, and the server's words.
    Refused(String),
    /// BAD, and the server's words: it does not understand, or is out of order.
    Bad(String),
}

impl Answer {
    /// The words of a server that refuses.
    pub(in crate::mailbox) fn refusal(self) -> Option<String> {
        match self {
            Self::Ok => None,
            Self::Refused(words) | Self::Bad(words) => Some(words),
        }
    }
}

impl Session {
    /// Sends one command, hands each untagged answer on, and succeeds when the
    /// tagged OK was read.
    pub(in crate::mailbox) async fn command(
        &mut self,
        doing: &'static str,
        line: &str,
        each: impl FnMut(&Response<'_>),
    ) -> Result<(), MailboxError> {
        let tag = self.send(doing, line).await?;
        match self.until_done(doing, &tag, each).await?.refusal() {
            None => Ok(()),
            Some(words) => Err(MailboxError::Refused {
                doing,
                text: clean(&words),
            }),
        }
    }

    pub(in crate::mailbox) async fn send(
        &mut self,
        doing: &'static str,
        line: &str,
    ) -> Result<String, MailboxError> {
        self.tags = self.tags.wrapping_add(1);
        let tag = format!("t{}", self.tags);
        self.client.get_mut().begin_command();
        tracing::debug!(event = "imap.command", doing, tag, "asking the server");
        self.write(doing, &tag, line).await?;
        Ok(tag)
    }

    /// Writes one line. It goes past async-imap, whose own writing would log
    /// it, password and all.
    pub(in crate::mailbox) async fn write(
        &mut self,
        doing: &'static str,
        first: &str,
        rest: &str,
    ) -> Result<(), MailboxError> {
        let mut line = Zeroizing::new(String::with_capacity(
            first.len().saturating_add(rest.len()).saturating_add(3),
        ));
        line.push_str(first);
        if !rest.is_empty() {
            line.push(' ');
            line.push_str(rest);
        }
        line.push_str("\r\n");
        let stream = self.client.get_mut();
        let writing = async {
            stream.write_all(line.as_bytes()).await?;
            stream.flush().await
        };
        match tokio::time::timeout(self.patience, writing).await {
            Ok(written) => written.map_err(|error| MailboxError::from_stream(doing, error)),
            Err(_) => Err(MailboxError::Deadline(doing)),
        }
    }

    pub(in crate::mailbox) async fn until_done(
        &mut self,
        doing: &'static str,
        tag: &str,
        mut each: impl FnMut(&Response<'_>),
    ) -> Result<Answer, MailboxError> {
        let begun = Instant::now();
        loop {
            let left = DEADLINE.saturating_sub(begun.elapsed());
            let patience = self.patience.min(left);
            if let Heard::Done(answer) = self.hear(doing, patience, tag, &mut each).await? {
                return Ok(answer);
            }
        }
    }

    /// As [`until_done`](Self::until_done), and answers what the server asks for
    /// meanwhile.
    pub(in crate::mailbox) async fn until_done_with(
        &mut self,
        doing: &'static str,
        tag: &str,
        answer: &str,
    ) -> Result<Answer, MailboxError> {
        let begun = Instant::now();
        loop {
            let left = self.patience.saturating_sub(begun.elapsed());
            match self.hear(doing, left, tag, |_| {}).await? {
                Heard::Done(answer) => return Ok(answer),
                Heard::Continue => self.write(doing, answer, "").await?,
                Heard::Untagged => {}
            }
        }
    }

    /// Reads until the server asks for more; `Some` are its words where it refuses.
    pub(in crate::mailbox) async fn until_continue(
        &mut self,
        doing: &'static str,
        tag: &str,
    ) -> Result<Option<String>, MailboxError> {
        let begun = Instant::now();
        loop {
            let left = self.patience.saturating_sub(begun.elapsed());
            match self.hear(doing, left, tag, |_| {}).await? {
                Heard::Untagged => {}
                Heard::Continue => return Ok(None),
                Heard::Done(answer) => {
                    let out_of_step = MailboxError::Unparsable(doing);
                    // OK without having asked for the rest.
                    return answer.refusal().map(Some).ok_or(out_of_step);
                }
            }
        }
    }

    /// The next response: noted, then handed to `each` where it is untagged.
    /// It can be cancelled: what has arrived waits for the next call.
    pub(super) async fn hear(
        &mut self,
        doing: &'static str,
        patience: Duration,
        tag: &str,
        mut each: impl FnMut(&Response<'_>),
    ) -> Result<Heard, MailboxError> {
        // The parser panics at some answers, such as `INTERNALDATE NIL`.
        let reading = AssertUnwindSafe(self.client.read_response()).catch_unwind();
        let response = tokio::time::timeout(patience, reading)
            .await
            .map_err(|_| MailboxError::Deadline(doing))?
            .map_err(|_| MailboxError::Unparsable(doing))?
            .map_err(|error| MailboxError::from_stream(doing, error))?
            .ok_or(MailboxError::Lost(doing))?;
        self.heard = Timestamp::now();
        self.note(response.parsed());
        // Some servers say BYE and leave the line open.
        if let Some(words) = self.bye.take() {
            return Err(MailboxError::Bye(words));
        }
        match response.parsed() {
            Response::Continue(_) => Ok(Heard::Continue),
            Response::Done {
                tag: done,
                status,
                outcome,
            } if done.0 == tag => Ok(Heard::Done(match status {
                Status::Ok => Answer::Ok,
                Status::Bad => Answer::Bad(words(outcome)),
                _ => Answer::Refused(words(outcome)),
            })),
            // An answer to nothing that was asked: the two of us are out of step.
            Response::Done { .. } => Err(MailboxError::Unparsable(doing)),
            untagged => {
                each(untagged);
                Ok(Heard::Untagged)
            }
        }
    }
}
