//! Folders: opened, and told of.

use async_imap::imap_proto::{MailboxDatum, Response, ResponseCode};

use super::{Answer, Session};
use crate::mailbox::MailboxError;
use crate::mailbox::error::clean;
use crate::mailbox::wire::{folder_name, is_passing, response_code};

/// How a folder is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// EXAMINE: nothing can be changed.
    Read,
    /// SELECT: for `after`, which changes what it is told to and nothing else.
    Write,
}

/// A folder as EXAMINE shows it.
#[derive(Clone, Copy, Debug)]
pub struct Folder {
    /// UIDVALIDITY (RFC 3501, section 2.3.1.1); 0 where the server gives none,
    /// and then no UID means anything beyond this connection.
    pub uid_validity: u32,
    /// The UID that the next mail gets, where the server says so.
    pub uid_next: Option<u32>,
    /// How many mails there are.
    pub exists: u32,
    /// The highest modification sequence (RFC 7162), where the server has it.
    pub mod_seq: Option<u64>,
}

impl Session {
    /// Opens a folder.
    pub async fn open(&mut self, folder: &str, access: Access) -> Result<Folder, MailboxError> {
        let doing = match access {
            Access::Read => "EXAMINE",
            Access::Write => "SELECT",
        };
        let name = folder_name(folder)?;
        // What was selected is no more, whatever becomes of this.
        // On a line of several folders nobody tells of it again.
        self.stirred |= self.news && self.notified;
        self.exists = 0;
        self.covered = 0;
        self.news = false;
        let mut opened = None;
        if self.can("CONDSTORE") {
            // One that offers it and refuses it is asked again without.
            let line = format!("{doing} {name} (CONDSTORE)");
            opened = self.select(doing, &line).await?.ok();
        }
        let opened = match opened {
            Some(opened) => opened,
            None => match self.select(doing, &format!("{doing} {name}")).await? {
                Ok(opened) => opened,
                Err(answer) => {
                    // BAD says nothing of the folder: the server is out of order.
                    let is_bad = matches!(answer, Answer::Bad(_));
                    let words = answer.refusal().unwrap_or_default();
                    let passes = response_code(&words).is_some_and(|code| is_passing(&code));
                    return Err(if is_bad || passes {
                        MailboxError::Refused {
                            doing,
                            text: clean(&words),
                        }
                    } else {
                        MailboxError::NoFolder(folder.to_owned())
                    });
                }
            },
        };
        let exists = opened.exists.ok_or(MailboxError::Lacking {
            doing,
            what: "EXISTS",
        })?;
        self.exists = exists;
        // A look through the folder covers what is there now.
        self.covered = exists;
        self.hold_still();
        self.news = false;
        Ok(Folder {
            uid_validity: opened.uid_validity.unwrap_or(0),
            uid_next: opened.uid_next.filter(|n| *n > 0),
            exists,
            mod_seq: opened.mod_seq.filter(|n| *n > 0),
        })
    }

    /// `Err` is the answer of a server that refuses.
    async fn select(
        &mut self,
        doing: &'static str,
        line: &str,
    ) -> Result<Result<Selected, Answer>, MailboxError> {
        let mut found = Selected::default();
        let tag = self.send(doing, line).await?;
        let answer = self
            .until_done(doing, &tag, |response| match response {
                Response::Data { outcome, .. } => match outcome.code {
                    Some(ResponseCode::UidValidity(n)) => found.uid_validity = Some(n),
                    Some(ResponseCode::UidNext(n)) => found.uid_next = Some(n),
                    Some(ResponseCode::HighestModSeq(n)) => found.mod_seq = Some(n),
                    _ => {}
                },
                Response::MailboxData(MailboxDatum::Exists(n)) => found.exists = Some(*n),
                _ => {}
            })
            .await?;
        Ok(match answer {
            Answer::Ok => Ok(found),
            refused @ (Answer::Refused(_) | Answer::Bad(_)) => Err(refused),
        })
    }

    /// Asks to be told of news in all these folders (RFC 5465); `false` where
    /// the server refuses.
    pub async fn notify(&mut self, folders: &[String]) -> Result<bool, MailboxError> {
        let names: Vec<String> = folders
            .iter()
            .map(|folder| folder_name(folder))
            .collect::<Result<_, _>>()?;
        let events = "(MessageNew MessageExpunge)";
        let line = format!(
            "NOTIFY SET (selected-delayed {events}) (mailboxes ({}) {events})",
            names.join(" ")
        );
        match self.command("NOTIFY", &line, |_| {}).await {
            Ok(()) => self.notified = true,
            Err(MailboxError::Refused { text, .. }) => {
                tracing::debug!(event = "mailbox.notify", text, "the server refuses NOTIFY");
                self.notified = false;
            }
            Err(error) => return Err(error),
        }
        Ok(self.notified)
    }

    /// Whether the server tells of news in all folders that it was asked for.
    pub fn is_notified(&self) -> bool {
        self.notified
    }
}

#[derive(Default)]
struct Selected {
    uid_validity: Option<u32>,
    uid_next: Option<u32>,
    exists: Option<u32>,
    mod_seq: Option<u64>,
}
