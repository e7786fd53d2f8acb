//! The servers of a soak, and the configuration that watches them.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use tokio::runtime::Runtime;

use super::Pace;
#[cfg(feature = "system-tests")]
use crate::dovecot_server::Dovecot;
use crate::support::imap_server::{ImapServer, Options};
use crate::support::mail::RECEIVER;

/// Every mailbox's password.
pub(super) const PASSWORD: &str = "mailbox-pass";

/// All servers. A post is a folder that mails are put into.
pub(super) struct Fleet {
    pub(super) servers: Vec<ImapServer>,
    #[cfg(feature = "system-tests")]
    pub(super) dovecot: Option<Dovecot>,
    posts: Vec<Post>,
    /// Drives the servers.
    _runtime: Runtime,
}

struct Post {
    /// The mailbox in the configuration.
    name: String,
    place: Place,
}

enum Place {
    /// INBOX of this server.
    Server(usize),
    /// A folder of the ordinary user of Dovecot, put there as a file.
    #[cfg(feature = "system-tests")]
    Folder(&'static str),
    /// INBOX of another user of Dovecot.
    #[cfg(feature = "system-tests")]
    User(&'static str),
}

impl Fleet {
    pub(super) fn start(pace: &Pace) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let server = |n| {
            runtime.block_on(ImapServer::start(Options {
                idle: has_idle(n),
                tls: has_tls(n),
                password: PASSWORD.to_owned(),
                ..Options::default()
            }))
        };
        let servers: Vec<_> = (0..pace.servers).map(server).collect();
        let post = |n| Post {
            name: format!("m{n}"),
            place: Place::Server(n),
        };
        #[allow(unused_mut, reason = "without Dovecot there are no more")]
        let mut posts: Vec<_> = (0..servers.len()).map(post).collect();
        #[cfg(feature = "system-tests")]
        let dovecot = pace.dovecot.then(|| {
            let dovecot = Dovecot::with(&crate::dovecot_server::Options {
                users: 1,
                ..crate::dovecot_server::Options::default()
            });
            dovecot.create_folder("Tokens");
            let post = |name: &str, place| Post {
                name: name.to_owned(),
                place,
            };
            posts.push(post("several", Place::Folder("INBOX")));
            posts.push(post("several", Place::Folder("Tokens")));
            posts.push(post("alone", Place::User("u1")));
            dovecot
        });
        Self {
            servers,
            #[cfg(feature = "system-tests")]
            dovecot,
            posts,
            _runtime: runtime,
        }
    }

    /// How many posts there are.
    pub(super) fn len(&self) -> usize {
        self.posts.len()
    }

    /// The mailbox that a post belongs to.
    pub(super) fn name(&self, post: usize) -> &str {
        &self.posts[post].name
    }

    /// The mailboxes.
    pub(super) fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.posts.iter().map(|post| post.name.as_str()).collect();
        names.dedup();
        names
    }

    pub(super) fn deliver(&self, post: usize, raw: &[u8]) {
        match self.posts[post].place {
            Place::Server(n) => {
                self.servers[n].deliver(raw);
            }
            #[cfg(feature = "system-tests")]
            Place::Folder(name) => self.dovecot.as_ref().unwrap().deliver_to(name, raw),
            #[cfg(feature = "system-tests")]
            Place::User(user) => self.dovecot.as_ref().unwrap().deliver_for(user, raw),
        }
    }

    /// The configuration, with the authorities' certificates in this folder.
    pub(super) fn configuration(&self, pace: &Pace, folder: &Path) -> String {
        let mut text = format!(
            "state-dir = \"STATE\"\n\
             [trust]\naccept = [\"receiver\"]\nreceivers = [\"{RECEIVER}\"]\n"
        );
        for (n, server) in self.servers.iter().enumerate() {
            let tls = if has_tls(n) {
                let file = folder.join(format!("ca{n}.pem"));
                fs::write(&file, server.ca_pem()).unwrap();
                format!("ca-file = \"{}\"", file.display())
            } else {
                "tls = \"none\"".to_owned()
            };
            let line = format!(
                "port = {}\nuser = \"ops@example.com\"\n{tls}",
                server.port()
            );
            mailbox(&mut text, pace, &format!("m{n}"), &line);
        }
        #[cfg(feature = "system-tests")]
        if let Some(dovecot) = &self.dovecot {
            let way = format!(
                "port = {}\nca-file = \"{}\"",
                dovecot.port(),
                dovecot.ca_file().display()
            );
            let several = "user = \"ops@example.com\"\nfolders = [\"INBOX\", \"Tokens\"]\n\
                           max-connections = 1";
            mailbox(&mut text, pace, "several", &format!("{way}\n{several}"));
            mailbox(&mut text, pace, "alone", &format!("{way}\nuser = \"u1\""));
        }
        text
    }
}

fn mailbox(text: &mut String, pace: &Pace, name: &str, more: &str) {
    let (idle_renew, poll) = (pace.idle_renew, pace.poll);
    write!(
        text,
        "[[mailbox]]\nname = \"{name}\"\nhost = \"localhost\"\n{more}\n\
         idle-renew = \"{idle_renew}\"\npoll = \"{poll}\"\n"
    )
    .unwrap();
}

/// Two of three have IDLE, and most have TLS.
fn has_idle(n: usize) -> bool {
    n % 3 != 2
}

fn has_tls(n: usize) -> bool {
    n % 5 != 4
}
