//! IMAP (RFC 3501): connect, log in, look through a folder, wait for news.
//!
//! The parts, from the network up: `connect` makes a line with TLS,
//! `guard` bounds what a server may send over it, `session` is the command
//! layer in which a lost connection is never "no mail", `login` says who we
//! are, `look` finds the mails that could be notices, `backoff` says when to
//! try again.
//!
//! Deliberately absent: what a mail means and where the cursor is kept. This
//! room hands out bytes, and says up to which UID everything was looked at.

mod backoff;
mod connect;
mod error;
mod guard;
mod login;
mod look;
mod session;
mod wire;

pub use backoff::Backoff;
pub use connect::{Proxy, Roots, Security, Server};
pub use error::{Class, MailboxError};
pub use guard::Excess;
pub use login::Credential;
pub use look::{FieldsTest, Found, Look, Scope, Step, Wanted};
pub use session::{Access, Folder, Head, Session, Wake};
