//! The mailboxes of the Dovecot of the tests: what lies in them, and what other programs and
//! people do to them.
//!
//! A mail comes in two ways, and clients hear of them differently. `deliver` and its like put a
//! file into the Maildir, as procmail does: Dovecot sees it in a folder that a session has open,
//! and in no other until somebody asks. `save` goes through Dovecot, as its LMTP server and its
//! `sieve` do: NOTIFY tells of it at once (Dovecot 2.3.19, seen 2026-11).

use std::fs::{self, FileTimes};
use std::io::Write;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use super::{Dovecot, USER};

impl Dovecot {
    /// Puts a mail into the inbox, in one step as seen by the server.
    pub fn deliver(&self, raw: &[u8]) {
        self.put(USER, "INBOX", raw, FileTimes::new());
    }

    /// Puts a mail into the inbox as if received at that time: Dovecot takes a mail's INTERNALDATE
    /// from the time of its file, in whole seconds.
    pub fn deliver_at(&self, raw: &[u8], received: SystemTime) {
        let times = FileTimes::new().set_modified(received);
        self.put(USER, "INBOX", raw, times);
    }

    /// Puts a mail into a folder.
    pub fn deliver_to(&self, folder: &str, raw: &[u8]) {
        self.put(USER, folder, raw, FileTimes::new());
    }

    /// Puts a mail into the inbox of one of the users `u1`, `u2`, ….
    pub fn deliver_for(&self, user: &str, raw: &[u8]) {
        self.put(user, "INBOX", raw, FileTimes::new());
    }

    /// Puts a mail into the inbox, in a file of this name.
    pub fn deliver_as(&self, name: &str, raw: &[u8]) {
        let path = format!("{}/new/{name}", maildir(USER, "INBOX"));
        self.ground.write(&path, raw);
    }

    /// Has Dovecot itself put a mail into a folder.
    pub fn save(&self, folder: &str, raw: &[u8]) {
        let mut save = self.command("doveadm");
        save.args(["save", "-u", USER, "-m", folder]);
        save.stdin(Stdio::piped());
        let mut save = save.spawn().unwrap();
        save.stdin.take().unwrap().write_all(raw).unwrap();
        assert!(save.wait().unwrap().success(), "not saved into {folder}");
    }

    pub fn create_folder(&self, name: &str) {
        self.doveadm(&["mailbox", "create", "-u", USER, name]);
    }

    /// Deletes a folder with all that is in it.
    pub fn delete_folder(&self, name: &str) {
        self.doveadm(&["mailbox", "delete", "-u", USER, name]);
    }

    pub fn rename_folder(&self, from: &str, to: &str) {
        self.doveadm(&["mailbox", "rename", "-u", USER, from, to]);
    }

    /// Moves all mails of a folder into another, as a person with another client does: copied to
    /// new UIDs there, and expunged here.
    pub fn move_mails(&self, from: &str, to: &str) {
        self.doveadm(&["move", "-u", USER, to, "mailbox", from, "all"]);
    }

    /// Moves the files of all mails of a folder into another, as a filter that works on Maildirs
    /// does.
    pub fn refile(&self, from: &str, to: &str) {
        for name in self.folder_mails(from) {
            let (_, file) = name.split_once('/').unwrap();
            let to = maildir(USER, to) + "/" + if name.contains(':') { "cur" } else { "new" };
            let from = self.ground.path(&maildir(USER, from)).join(&name);
            fs::rename(from, self.ground.path(&to).join(file)).unwrap();
        }
    }

    /// Removes what the server knows of the mails' UIDs in the inbox, so that the next session
    /// finds another UIDVALIDITY. The mails stay. A session that has the mailbox open still knows
    /// the old UIDs: kick it, or deliver a mail, at which Dovecot ends such a session by itself
    /// with a BYE.
    pub fn forget_uids(&self) {
        for name in self.names("INBOX", "") {
            if name == "dovecot-uidlist" || name.starts_with("dovecot.index") {
                fs::remove_file(self.ground.path(&maildir(USER, "INBOX")).join(name)).unwrap();
            }
        }
    }

    /// The names of the files in the inbox, each with its folder `cur/` or `new/`, sorted. They end
    /// in the mails' flags, so equal lists say that a client left the mailbox as it was.
    pub fn flags(&self) -> Vec<String> {
        self.folder_mails("INBOX")
    }

    /// The same of another folder.
    pub fn folder_mails(&self, folder: &str) -> Vec<String> {
        ["cur", "new"].map(|part| self.names(folder, part)).concat()
    }

    fn put(&self, user: &str, folder: &str, raw: &[u8], times: FileTimes) {
        // Mails that are new together get their UIDs in the order of the numbers in their names.
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = format!("{}.localhost", NUMBER.fetch_add(1, Ordering::Relaxed));
        let mail = maildir(user, folder);
        let [tmp, new] = ["tmp", "new"].map(|part| format!("{mail}/{part}/{name}"));
        self.ground.write(&tmp, raw).set_times(times).unwrap();
        fs::rename(self.ground.path(&tmp), self.ground.path(&new)).unwrap();
    }

    /// What is in a part of a folder, named from the folder on.
    fn names(&self, folder: &str, part: &str) -> Vec<String> {
        let mail = self.ground.path(&maildir(USER, folder));
        let entries = fs::read_dir(mail.join(part)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let names = paths.map(|path| path.strip_prefix(&mail).unwrap().to_owned());
        let mut names: Vec<_> = names.map(|name| name.display().to_string()).collect();
        names.sort();
        names
    }
}

/// Where a folder lies, by the rules of Maildir++: the inbox holds the others.
pub(super) fn maildir(user: &str, folder: &str) -> String {
    if folder == "INBOX" {
        format!("mail/{user}")
    } else {
        format!("mail/{user}/.{folder}")
    }
}
