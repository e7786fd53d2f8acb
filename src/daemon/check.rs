//! The doctor: looks at everything that tokenwatch depends on, and says of
//! each whether it is well and what can be done.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::doors::{Doors, proxy};
use super::errands;
use super::looking::Tools;
use super::state::{self, StateError};
use super::worker::Worker;
use super::{DaemonError, InboxError};
use crate::api::{AccountState, AccountStatus, CheckLine};
use crate::config::{Auth, Config, Mailbox, Receiver, Tls};
use crate::mailbox::{Access, Credential, MailboxError};
use crate::sender::Keys;
use crate::vault;

/// Looks at everything.
pub struct Doctor {
    config: Arc<Config>,
    tools: Tools,
}

impl Doctor {
    pub(super) fn new(config: Arc<Config>, tools: Tools) -> Self {
        Self { config, tools }
    }

    /// A doctor for when no daemon runs.
    pub fn alone(config: Arc<Config>, worker: Worker) -> Result<Self, DaemonError> {
        // Who ends the worker is this process.
        let (tools, _end) = Tools::alone(&config, worker)?;
        Ok(Self::new(config, tools))
    }

    /// Looks at everything, and leaves the network out where it is told to.
    pub async fn examine(self, lines: mpsc::Sender<CheckLine>, offline: bool) {
        let report = Report(lines);
        self.accounts(&report).await;
        self.sinks(&report).await;
        if offline {
            for mailbox in &self.config.mailboxes {
                self.mailbox_alone(mailbox, &report).await;
            }
            return;
        }
        let mut credentials = Vec::new();
        for mailbox in &self.config.mailboxes {
            credentials.push(self.tools.credential(mailbox).await);
        }
        // What follows takes its time, and a daemon that starts meanwhile must
        // not find the vault locked.
        let Self { config, tools } = self;
        let doors = tools.doors.clone();
        drop(tools);
        if config.trust.dkim && !config.trust.sender_address {
            dns(&config, &report).await;
        }
        for (mailbox, credential) in config.mailboxes.iter().zip(credentials) {
            self::mailbox(mailbox, credential, &doors, &report).await;
        }
    }

    /// What a mailbox needs of this machine alone.
    async fn mailbox_alone(&self, mailbox: &Mailbox, report: &Report) {
        let what = |thing: &str| format!("mailbox {}: {thing}", mailbox.name);
        let (thing, found) = match &mailbox.auth {
            Auth::Password(_) => ("password", "it can be read"),
            Auth::Oauth2(_) => ("sign-in", "what access tokens are asked for with is there"),
        };
        match self.tools.can_log_in(mailbox).await {
            Ok(()) => report.well(&what(thing), found).await,
            Err(error) => report.failed(&what(thing), &error, mailbox).await,
        }
        if let Some(ca_file) = &mailbox.ca_file {
            match self.tools.doors.trust(ca_file).await {
                Ok(()) => {
                    let found = "its certificates can be read";
                    report.well(&what("ca-file"), found).await;
                }
                Err(error) => report.failed(&what("ca-file"), &error, mailbox).await,
            }
        }
    }

    /// Whether the vault survives a reboot.
    async fn lasting(&self, report: &Report) {
        let config = Arc::clone(&self.config);
        let looked = tokio::task::spawn_blocking(move || {
            let options = state::vault_options(&config, config.vault.backend)?;
            Ok::<_, StateError>(vault::lasting(&options, crate::INTERNAL_SERVICE)?)
        });
        match looked.await.unwrap_or(Err(StateError::Stopped)) {
            Ok(lasting) => {
                if let Some(hint) = lasting.hint() {
                    // Whoever chose such a store may have meant it.
                    let (what, found) = ("vault after a reboot", lasting.to_string());
                    report.send(CheckLine::warning(what, found, hint)).await;
                }
            }
            Err(error) => {
                report
                    .ill("vault", crate::chain(&error), error.hint())
                    .await;
            }
        }
    }

    /// Whether each sink has what it needs. None is told of anything.
    async fn sinks(&self, report: &Report) {
        for sink in &self.config.sinks {
            let what = format!("sink {}", sink.name);
            let accounts = self.config.accounts.iter();
            let usernames: Vec<_> = accounts
                .map(|account| account.username.as_str())
                .filter(|username| sink.wants(username))
                .collect();
            let ills = errands::look_at(sink, &usernames, &self.tools).await;
            if ills.is_empty() {
                report.well(&what, set_up(&sink.to)).await;
            }
            for (found, hint) in ills {
                report.ill(&what, found, hint).await;
            }
        }
    }

    async fn accounts(&self, report: &Report) {
        match self.tools.worker.run(Worker::each_credential).await {
            Ok(accounts) => {
                report.well("vault", "it opens, and the journal too").await;
                self.lasting(report).await;
                for (username, stands) in accounts {
                    account(&username, stands, report).await;
                }
            }
            Err(error) => {
                report
                    .ill("vault", crate::chain(&error), error.hint())
                    .await;
            }
        }
        if self.config.accounts.is_empty() {
            report
                .ill(
                    "accounts",
                    "no [[account]] is configured, so every token mail is held".to_owned(),
                    "add an [[account]] with the Salesforce username".to_owned(),
                )
                .await;
        }
    }
}

/// What can be said of a sink of which nothing was found wrong.
fn set_up(receiver: &Receiver) -> &'static str {
    match receiver {
        Receiver::File { .. } => "it is set up",
        Receiver::Command { .. } => "it is set up; the command was not run",
        Receiver::Webhook(_) => "it is set up; the receiver was not asked",
        Receiver::Systemd { .. } => {
            "it is set up; whether the unit is there and may be reloaded was not tried"
        }
    }
}

async fn account(username: &str, stands: Result<AccountStatus, StateError>, report: &Report) {
    let what = format!("account {username}");
    let state = match stands {
        Ok(status) => status.state,
        Err(error) => {
            let found = crate::chain(&error);
            return report.ill(&what, found, error.hint()).await;
        }
    };
    let set = format!("run `tokenwatch secret set account/{username}`");
    let (is_well, found, hint) = match state {
        AccountState::Current => (true, "the credential is there", set),
        AccountState::NoToken => (
            true,
            "the password is there; no token mail was found yet",
            set,
        ),
        AccountState::Checking => (true, "the newest token waits for its check", set),
        AccountState::PasswordMissing => (false, "the Salesforce password is not known", set),
        AccountState::LoginRefused => (
            false,
            "Salesforce refuses the credential",
            format!(
                "if the password was changed, {set}; if not, reset the security token in Salesforce: the same two are not tried again"
            ),
        ),
        AccountState::Unreadable => (false, "what is kept for it cannot be used", set),
    };
    if is_well {
        report.well(&what, found).await;
    } else {
        report.ill(&what, found.to_owned(), hint).await;
    }
}

async fn dns(config: &Config, report: &Report) {
    let answer = match Keys::new(&config.trust.dns_servers) {
        Ok(keys) => keys.probe("_domainkey.salesforce.com.").await,
        Err(error) => Err(crate::chain(&error)),
    };
    match answer {
        Ok(()) => report.well("dns", "it answers").await,
        Err(error) => {
            report
                .ill(
                    "dns",
                    error,
                    "DKIM keys come from the DNS: see `dns-servers` in [trust] and the system's resolver"
                        .to_owned(),
                )
                .await;
        }
    }
}

async fn mailbox(
    mailbox: &Mailbox,
    credential: Result<Credential, InboxError>,
    doors: &Doors,
    report: &Report,
) {
    let what = |step: &str| format!("mailbox {}: {step}", mailbox.name);
    // Behind a proxy it is the proxy that looks names up.
    if proxy(&mailbox.proxy).url_for(&mailbox.host).is_none()
        && let Err(error) = tokio::net::lookup_host((mailbox.host.as_str(), mailbox.port)).await
    {
        let hint = "see `host` of the mailbox, and the system's resolver".to_owned();
        return report.ill(&what("name"), error.to_string(), hint).await;
    }
    let mut session = match doors.connect(mailbox).await {
        Ok((session, _permit)) => session,
        Err(error) => {
            let is_tcp = matches!(
                error,
                InboxError::Mailbox(MailboxError::Connect { .. } | MailboxError::Proxy { .. })
            );
            let step = if is_tcp {
                "connection"
            } else {
                "TLS and greeting"
            };
            return report.failed(&what(step), &error, mailbox).await;
        }
    };
    let tls = match mailbox.tls {
        Tls::Implicit | Tls::StartTls => "connected, and the certificate is trusted",
        Tls::None => "connected, without TLS",
    };
    report.well(&what("connection"), tls).await;
    let logged_in = match credential {
        Ok(credential) => doors.log_in(&mut session, mailbox, &credential).await,
        Err(error) => Err(error),
    };
    if let Err(error) = logged_in {
        return report.failed(&what("login"), &error, mailbox).await;
    }
    report.well(&what("login"), "the server lets us in").await;
    for folder in &mailbox.folders {
        let what = what(&format!("folder {folder}"));
        match session.open(folder, Access::Read).await {
            Ok(opened) => {
                let found = format!("it can be read, and has {} mails", opened.exists);
                report.well(&what, &found).await;
            }
            Err(error) => report.failed(&what, &error.into(), mailbox).await,
        }
    }
    let shares = mailbox.folders.len() > mailbox.max_connections;
    let idle = match (session.can_idle(), shares) {
        (true, false) => "the server tells of new mail at once (IDLE)",
        (true, true) if session.can_notify() => {
            "the server tells of new mail at once (IDLE); folders that share a connection are also asked for every so often (NOTIFY, `poll`)"
        }
        (true, true) => {
            "the server tells of new mail at once (IDLE), but for folders that share a connection: those are asked for every so often (`poll`); see `max-connections`"
        }
        (false, _) => "the server has no IDLE and is asked every so often (`poll`)",
    };
    report.well(&what("news"), idle).await;
    session.log_out().await;
}

struct Report(mpsc::Sender<CheckLine>);

impl Report {
    async fn send(&self, line: CheckLine) {
        // Who asked may have gone.
        self.0.send(line).await.unwrap_or_default();
    }

    async fn well(&self, what: &str, found: &str) {
        self.send(CheckLine::well(what, found)).await;
    }

    async fn ill(&self, what: &str, found: String, hint: String) {
        self.send(CheckLine::ill(what, found, hint)).await;
    }

    async fn failed(&self, what: &str, error: &InboxError, mailbox: &Mailbox) {
        self.ill(what, crate::chain(error), error.hint(&mailbox.name))
            .await;
    }
}
