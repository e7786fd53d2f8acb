//! An account as it is meant: whose credential is kept, and how it is checked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::meant::{address, duration, goes_to_tls_or_loopback, proxy, source};
use super::{ConfigError, Proxy, SecretSource, written};

/// The last version of Salesforce's API that has `login()`.
const LAST_API_VERSION: u32 = 64;

/// One Salesforce user whose credential is kept.
#[derive(Clone, Debug)]
pub struct Account {
    /// The Salesforce username.
    pub username: String,
    /// Where the Salesforce password is.
    pub password: SecretSource,
    /// How a new credential is proved before it is used.
    pub verify: Verify,
    /// Where such a login goes: scheme and host, and no path.
    pub login_url: String,
    /// The version of Salesforce's API that it speaks, such as `64.0`.
    pub api_version: String,
    /// Certificates (PEM) that are trusted there beside the system's roots.
    pub ca_file: Option<PathBuf>,
    /// What stands between Salesforce and us.
    pub proxy: Proxy,
    /// How long a credential that cannot be checked waits before it is used
    /// all the same.
    pub promote_unverified_after: Duration,
    /// So many logins that do not work are risked in a day: 1 to 9.
    pub failed_logins_per_day: u32,
}

/// How a new credential is proved before it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Not at all.
    Off,
    /// By a login over SOAP.
    Soap,
}

/// What is written under `[[account]]`, as it is meant.
pub(super) fn mean(written: written::Account, folder: &Path) -> Result<Account, ConfigError> {
    address(&key("username"), &written.username)?;
    let verify = match written.verify.as_str() {
        "off" => Verify::Off,
        "soap" => Verify::Soap,
        _ => {
            return Err(invalid(
                "verify",
                "this is neither `off` nor `soap`",
                "use `soap` where Salesforce offers login() to you, or leave the key out",
            ));
        }
    };
    login_url(&written.login_url)?;
    api_version(&written.api_version)?;
    // The tenth refusal is the one that locks many organisations' users out.
    if !(1..=9).contains(&written.failed_logins_per_day) {
        return Err(invalid(
            "failed-logins-per-day",
            "1 to 9 logins that do not work can be risked in a day; ten lock a user out",
            "leave the key out for 4",
        ));
    }
    Ok(Account {
        password: source(&key("password"), &written.password, folder)?,
        verify,
        login_url: written.login_url,
        api_version: written.api_version,
        ca_file: written.ca_file.as_ref().map(|path| folder.join(path)),
        proxy: proxy(&key("proxy"), &written.proxy)?,
        promote_unverified_after: duration(
            &key("promote-unverified-after"),
            &written.promote_unverified_after,
        )?,
        failed_logins_per_day: written.failed_logins_per_day,
        username: written.username,
    })
}

fn key(name: &str) -> String {
    format!("account.{name}")
}

fn invalid(name: &str, why: &'static str, hint: &'static str) -> ConfigError {
    ConfigError::invalid(key(name), why, hint)
}

/// The address of a host, for the path is Salesforce's.
fn login_url(url: &str) -> Result<(), ConfigError> {
    let host = url.split_once("://").map_or("", |(_, rest)| rest);
    let host = host.strip_suffix('/').unwrap_or(host);
    if goes_to_tls_or_loopback(url) && !host.is_empty() && !host.contains(['/', '?', '#', '@']) {
        return Ok(());
    }
    Err(invalid(
        "login-url",
        "the address must be https:// and a host, without a path",
        "use https://login.salesforce.com, https://test.salesforce.com or your My Domain",
    ))
}

fn api_version(version: &str) -> Result<(), ConfigError> {
    let major = version.strip_suffix(".0").filter(|major| {
        !major.starts_with('0') && major.bytes().all(|digit| digit.is_ascii_digit())
    });
    match major.and_then(|major| major.parse::<u32>().ok()) {
        Some(1..=LAST_API_VERSION) => Ok(()),
        _ => Err(invalid(
            "api-version",
            "this is no version of the API that has login()",
            "leave the key out for 64.0, the last one that has it; another stands in quotes, such as \"63.0\"",
        )),
    }
}
