//! The configuration as it is written.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Written {
    pub(super) state_dir: Option<PathBuf>,
    #[serde(default)]
    pub(super) vault: Vault,
    #[serde(default)]
    pub(super) trust: Trust,
    #[serde(default)]
    pub(super) wording: Vec<Wording>,
    #[serde(default)]
    pub(super) mailbox: Vec<Mailbox>,
    #[serde(default)]
    pub(super) account: Vec<Account>,
    #[serde(default)]
    pub(super) sink: Vec<Sink>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct Vault {
    pub(super) backend: String,
    pub(super) path: PathBuf,
    pub(super) key: String,
    pub(super) recipients: Vec<String>,
    pub(super) service: String,
}

impl Default for Vault {
    fn default() -> Self {
        Self {
            backend: "file".into(),
            path: "vault.age".into(),
            key: "file:vault.key".into(),
            recipients: Vec::new(),
            service: "exalate".into(),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct Trust {
    pub(super) senders: Vec<String>,
    pub(super) accept: Vec<String>,
    pub(super) receivers: Vec<String>,
    pub(super) arc_sealers: Vec<String>,
    pub(super) dns_servers: Vec<String>,
    pub(super) undecided_for: String,
}

impl Default for Trust {
    fn default() -> Self {
        let texts = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        Self {
            senders: texts(&[
                "support@salesforce.com",
                "support@emea.salesforce.com",
                "noreply@salesforce.com",
            ]),
            accept: texts(&["dkim", "receiver"]),
            receivers: Vec::new(),
            arc_sealers: Vec::new(),
            dns_servers: Vec::new(),
            undecided_for: "24h".into(),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Wording {
    pub(super) subject: Option<String>,
    pub(super) username: String,
    pub(super) token: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Mailbox {
    pub(super) name: String,
    pub(super) host: String,
    pub(super) port: Option<u16>,
    #[serde(default = "implicit")]
    pub(super) tls: String,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) tls_pin: Option<String>,
    #[serde(default = "none")]
    pub(super) proxy: String,
    pub(super) user: String,
    #[serde(default = "password")]
    pub(super) auth: String,
    #[serde(default = "vault")]
    pub(super) password: String,
    pub(super) oauth2: Option<Oauth2>,
    #[serde(default = "inbox")]
    pub(super) folders: Vec<String>,
    #[serde(default = "four")]
    pub(super) max_connections: u32,
    #[serde(default = "nothing")]
    pub(super) after: String,
    #[serde(default = "thirty_days")]
    pub(super) since: String,
    #[serde(default = "five_minutes")]
    pub(super) idle_renew: String,
    #[serde(default = "one_minute")]
    pub(super) poll: String,
    #[serde(default = "max_mail_size")]
    pub(super) max_mail_size: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Oauth2 {
    pub(super) provider: String,
    pub(super) tenant: Option<String>,
    pub(super) client_id: String,
    pub(super) client_secret: Option<String>,
    #[serde(default = "refresh_token")]
    pub(super) grant: String,
    pub(super) scopes: Option<Vec<String>>,
    pub(super) token_url: Option<String>,
    pub(super) authorization_url: Option<String>,
    pub(super) device_url: Option<String>,
    pub(super) redirect_port: Option<u16>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Account {
    pub(super) username: String,
    #[serde(default = "vault")]
    pub(super) password: String,
    #[serde(default = "off")]
    pub(super) verify: String,
    #[serde(default = "login_url")]
    pub(super) login_url: String,
    #[serde(default = "api_version")]
    pub(super) api_version: String,
    pub(super) ca_file: Option<PathBuf>,
    #[serde(default = "none")]
    pub(super) proxy: String,
    #[serde(default = "fifteen_minutes")]
    pub(super) promote_unverified_after: String,
    #[serde(default = "four")]
    pub(super) failed_logins_per_day: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Sink {
    pub(super) kind: String,
    pub(super) name: Option<String>,
    pub(super) accounts: Option<Vec<String>>,
    pub(super) path: Option<String>,
    pub(super) format: Option<String>,
    pub(super) template: Option<PathBuf>,
    pub(super) mode: Option<String>,
    pub(super) owner: Option<String>,
    #[serde(alias = "command")]
    pub(super) argv: Option<Argv>,
    pub(super) timeout: Option<String>,
    pub(super) url: Option<String>,
    pub(super) method: Option<String>,
    pub(super) include_secret: Option<bool>,
    pub(super) secret: Option<String>,
    pub(super) headers: Option<BTreeMap<String, String>>,
    pub(super) content_type: Option<String>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) proxy: Option<String>,
    pub(super) unit: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Argv {
    Line(String),
    Words(Vec<String>),
}

fn implicit() -> String {
    "implicit".into()
}
fn password() -> String {
    "password".into()
}
fn vault() -> String {
    "vault".into()
}
fn none() -> String {
    "none".into()
}
fn nothing() -> String {
    "nothing".into()
}
fn four() -> u32 {
    4
}
fn refresh_token() -> String {
    "refresh-token".into()
}
fn inbox() -> Vec<String> {
    vec!["INBOX".into()]
}
fn thirty_days() -> String {
    "30d".into()
}
fn five_minutes() -> String {
    "5m".into()
}
fn one_minute() -> String {
    "60s".into()
}
fn off() -> String {
    "off".into()
}
fn login_url() -> String {
    "https://login.salesforce.com".into()
}
fn api_version() -> String {
    "64.0".into()
}
fn fifteen_minutes() -> String {
    "15m".into()
}
pub(super) fn max_mail_size() -> u32 {
    256 * 1024
}

/// Every key that there is. A test reads a configuration with all of them.
pub(super) const KEYS: &[&str] = &[
    "state-dir",
    "vault.backend",
    "vault.path",
    "vault.key",
    "vault.recipients",
    "vault.service",
    "trust.senders",
    "trust.accept",
    "trust.receivers",
    "trust.arc-sealers",
    "trust.dns-servers",
    "trust.undecided-for",
    "wording.subject",
    "wording.username",
    "wording.token",
    "mailbox.name",
    "mailbox.host",
    "mailbox.port",
    "mailbox.tls",
    "mailbox.ca-file",
    "mailbox.tls-pin",
    "mailbox.proxy",
    "mailbox.user",
    "mailbox.auth",
    "mailbox.password",
    "mailbox.oauth2.provider",
    "mailbox.oauth2.tenant",
    "mailbox.oauth2.client-id",
    "mailbox.oauth2.client-secret",
    "mailbox.oauth2.grant",
    "mailbox.oauth2.scopes",
    "mailbox.oauth2.token-url",
    "mailbox.oauth2.authorization-url",
    "mailbox.oauth2.device-url",
    "mailbox.oauth2.redirect-port",
    "mailbox.folders",
    "mailbox.max-connections",
    "mailbox.after",
    "mailbox.since",
    "mailbox.idle-renew",
    "mailbox.poll",
    "mailbox.max-mail-size",
    "account.username",
    "account.password",
    "account.verify",
    "account.login-url",
    "account.api-version",
    "account.ca-file",
    "account.proxy",
    "account.promote-unverified-after",
    "account.failed-logins-per-day",
    "sink.kind",
    "sink.name",
    "sink.accounts",
    "sink.path",
    "sink.format",
    "sink.template",
    "sink.mode",
    "sink.owner",
    "sink.argv",
    "sink.timeout",
    "sink.url",
    "sink.method",
    "sink.include-secret",
    "sink.secret",
    "sink.headers",
    "sink.content-type",
    "sink.ca-file",
    "sink.proxy",
    "sink.unit",
];

/// Those keys outside of `[[lists]]` whose value is a list itself. All others are texts.
pub(super) const LISTS: &[&str] = &[
    "vault.recipients",
    "trust.senders",
    "trust.accept",
    "trust.receivers",
    "trust.arc-sealers",
    "trust.dns-servers",
];
