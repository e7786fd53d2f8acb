//! From what is written to what is meant.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::SignedDuration;

use super::written::{self, Written};
use super::{
    Backend, Config, ConfigError, Proxy, SecretSource, Trust, Vault, VaultKey, Wording, paths,
};

/// Validates. Relative paths are taken from `folder`, the configuration's.
pub(super) fn mean(
    written: Written,
    folder: &Path,
    file: Option<PathBuf>,
) -> Result<Config, ConfigError> {
    let names_no_state_dir = written.state_dir.is_none();
    let state_dir = written.state_dir.unwrap_or_else(paths::state_dir);
    if !state_dir.is_absolute() {
        return Err(ConfigError::invalid(
            "state-dir",
            "the path must be absolute",
            "write it from the root, such as /var/lib/tokenwatch",
        ));
    }
    let accounts = written
        .account
        .into_iter()
        .enumerate()
        .map(|(at, account)| {
            let name = account.username.clone();
            super::account::mean(account, folder).map_err(|error| error.of("account", at, &name))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let config = Config {
        vault: vault(written.vault, &state_dir)?,
        trust: trust(&written.trust)?,
        wordings: written
            .wording
            .into_iter()
            .map(|wording| Wording {
                subject: wording.subject,
                username: wording.username,
                token: wording.token,
            })
            .collect(),
        mailboxes: written
            .mailbox
            .into_iter()
            .enumerate()
            .map(|(at, mailbox)| {
                let name = mailbox.name.clone();
                super::mailbox::mean(mailbox, folder)
                    .map_err(|error| error.of("mailbox", at, &name))
            })
            .collect::<Result<_, _>>()?,
        sinks: super::sink::mean(written.sink, &accounts, folder)?,
        accounts,
        state_dir,
        names_no_state_dir,
        file,
    };
    unique(
        "mailbox.name",
        config.mailboxes.iter().map(|m| m.name.clone()),
    )?;
    unique(
        "account.username",
        config.accounts.iter().map(|a| a.username.to_lowercase()),
    )?;
    Ok(config)
}

fn vault(written: written::Vault, state_dir: &Path) -> Result<Vault, ConfigError> {
    let backend = match written.backend.as_str() {
        "file" => Backend::File,
        "keyutils" => Backend::Keyutils,
        "native" => Backend::Native,
        _ => {
            return Err(ConfigError::invalid(
                "vault.backend",
                "this version knows `file`, `native` and `keyutils`",
                "set `backend = \"file\"`",
            ));
        }
    };
    if backend == Backend::Native && !cfg!(feature = "native") {
        return Err(ConfigError::invalid(
            "vault.backend",
            "this binary was built without the Secret Service",
            "set `backend = \"file\"`, or build with the feature `native`",
        ));
    }
    let key = match written.key.split_once(':') {
        Some(("file", path)) if !path.is_empty() => VaultKey::File(state_dir.join(path)),
        Some(("credential", id)) if is_id(id) => VaultKey::Credential(id.to_owned()),
        None if written.key == "passphrase" => {
            VaultKey::Passphrase(state_dir.join("vault.key.age"))
        }
        _ => {
            return Err(ConfigError::invalid(
                "vault.key",
                "this is none of `file:PATH`, `credential:ID` and `passphrase`",
                "use `file:vault.key`; the key is made on the first write",
            ));
        }
    };
    // The value is not repeated: it may be the key and not the recipient.
    let recipients = written
        .recipients
        .iter()
        .map(|recipient| {
            recipient.parse().map_err(|_| {
                ConfigError::invalid(
                    "vault.recipients",
                    "one of them is no recipient of age (age1…)",
                    "make a key with `age-keygen -o offline.key`, keep it elsewhere, and write its public key here",
                )
            })
        })
        .collect::<Result<_, _>>()?;
    if written.service.is_empty() || written.service == crate::INTERNAL_SERVICE {
        return Err(ConfigError::invalid(
            "vault.service",
            format!(
                "the name must be neither empty nor `{}`",
                crate::INTERNAL_SERVICE
            ),
            "use `exalate`",
        ));
    }
    Ok(Vault {
        backend,
        path: state_dir.join(written.path),
        key,
        recipients,
        service: written.service,
    })
}

fn trust(written: &written::Trust) -> Result<Trust, ConfigError> {
    let mut trust = Trust {
        senders: written
            .senders
            .iter()
            .map(|sender| whole_address(sender))
            .collect::<Result<_, _>>()?,
        dkim: false,
        receiver: false,
        sender_address: false,
        receivers: written.receivers.clone(),
        arc_sealers: written
            .arc_sealers
            .iter()
            .map(|sealer| sealer_domain(sealer))
            .collect::<Result<_, _>>()?,
        dns_servers: written
            .dns_servers
            .iter()
            .map(|server| dns_server(server))
            .collect::<Result<_, _>>()?,
        undecided_for: duration("trust.undecided-for", &written.undecided_for)?,
    };
    for way in &written.accept {
        match way.as_str() {
            // The list of sealers is what turns it on; here it may be named.
            "arc" => {}
            "dkim" => trust.dkim = true,
            "receiver" => trust.receiver = true,
            "sender-address" => trust.sender_address = true,
            _ => {
                return Err(ConfigError::invalid(
                    "trust.accept",
                    format!("this version does not know the way {way:?}"),
                    "use \"dkim\", \"receiver\", \"arc\" or \"sender-address\"",
                ));
            }
        }
    }
    if trust.senders.is_empty() {
        return Err(ConfigError::invalid(
            "trust.senders",
            "with no sender listed, no mail could ever be trusted",
            "leave the key out for Salesforce's own addresses",
        ));
    }
    let receiver_counts = trust.receiver && !trust.receivers.is_empty();
    let arc_counts = !trust.arc_sealers.is_empty();
    if !(trust.dkim || trust.sender_address || receiver_counts || arc_counts) {
        return Err(ConfigError::invalid(
            "trust.accept",
            "with these ways no mail could ever be trusted",
            "add \"dkim\", or list your mail server's authserv-id in `receivers`, or a sealer in `arc-sealers`",
        ));
    }
    Ok(trust)
}

/// Where a secret is. The value is not repeated in the error: somebody may
/// have written the secret itself.
pub(super) fn source(key: &str, written: &str, folder: &Path) -> Result<SecretSource, ConfigError> {
    let meant = match written.split_once(':') {
        None if written == "vault" => Some(SecretSource::Vault),
        Some(("credential", id)) if is_id(id) => Some(SecretSource::Credential(id.to_owned())),
        Some(("file", path)) if !path.is_empty() => Some(SecretSource::File(folder.join(path))),
        Some(("command", line)) => argv(line).map(SecretSource::Command),
        _ => None,
    };
    meant.ok_or_else(|| {
        ConfigError::invalid(
            key,
            "this is none of `vault`, `credential:ID`, `file:PATH` and `command:ARGV`",
            "passwords do not belong into the configuration: use `vault` and `tokenwatch secret set`",
        )
    })
}

/// Words with spaces between them; no shell is involved, so quotes are refused
/// and not given a meaning of our own.
pub(super) fn argv(line: &str) -> Option<Vec<String>> {
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    (!words.is_empty() && !line.contains(['"', '\'', '\\'])).then_some(words)
}

pub(super) fn address(key: &str, written: &str) -> Result<String, ConfigError> {
    match written.split_once('@') {
        Some((local, domain))
            if !local.is_empty()
                && domain.contains('.')
                && !domain.contains('@')
                && written
                    .chars()
                    .all(|c| !c.is_whitespace() && !c.is_control()) =>
        {
            Ok(format!("{local}@{}", domain.to_ascii_lowercase()))
        }
        _ => Err(ConfigError::invalid(
            key,
            format!("{written:?} does not look like an e-mail address"),
            "write name@example.com",
        )),
    }
}

/// Senders are compared as they stand, so a pattern would match nobody.
fn whole_address(written: &str) -> Result<String, ConfigError> {
    if written.contains('*') {
        return Err(ConfigError::invalid(
            "trust.senders",
            format!("{written:?} has a `*`, and addresses are compared letter by letter"),
            "list each whole address, such as noreply@salesforce.com",
        ));
    }
    address("trust.senders", written)
}

fn sealer_domain(written: &str) -> Result<String, ConfigError> {
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if written.contains('.') && written.split('.').all(is_label) {
        return Ok(written.to_ascii_lowercase());
    }
    Err(ConfigError::invalid(
        "trust.arc-sealers",
        format!("{written:?} is no domain"),
        "write the `d=` of your forwarder's ARC-Seal, such as google.com",
    ))
}

fn dns_server(written: &str) -> Result<SocketAddr, ConfigError> {
    written
        .parse::<SocketAddr>()
        .or_else(|_| written.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)))
        .map_err(|_| {
            ConfigError::invalid(
                "trust.dns-servers",
                format!("{written:?} is no address"),
                "write 127.0.0.1:53 or [::1]:53",
            )
        })
}

pub(super) fn duration(key: &str, written: &str) -> Result<Duration, ConfigError> {
    written
        .parse::<SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .filter(|duration| *duration >= Duration::from_secs(1))
        .ok_or_else(|| {
            ConfigError::invalid(
                key,
                "this is no length of time of a second or more",
                "write 90s, 5m or 24h",
            )
        })
}

/// IMAP commands and log lines are lines: nothing may break them.
pub(super) fn plain_text(key: &str, value: &str) -> Result<(), ConfigError> {
    if value.is_empty() || value.chars().any(char::is_control) {
        return Err(ConfigError::invalid(
            key,
            "the value is empty or holds a control character",
            "write it on one line",
        ));
    }
    Ok(())
}

pub(super) fn unique(key: &str, values: impl Iterator<Item = String>) -> Result<(), ConfigError> {
    let mut seen = HashSet::new();
    for value in values {
        if !seen.insert(value.clone()) {
            return Err(ConfigError::invalid(
                key,
                format!("{value:?} stands there twice"),
                "name each once",
            ));
        }
    }
    Ok(())
}

pub(super) fn is_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// What stands between a server and us.
pub(super) fn proxy(key: &str, written: &str) -> Result<Proxy, ConfigError> {
    let is_url = ["socks5://", "socks5h://", "http://"].iter().any(|scheme| {
        written
            .strip_prefix(scheme)
            .is_some_and(|to| !to.is_empty())
    });
    match written {
        "none" => Ok(Proxy::None),
        "environment" => {
            let [https, all, no] = paths::proxies();
            Ok(Proxy::Environment {
                https,
                all,
                no: no.map(|no| no.expose().to_owned()),
            })
        }
        url if is_url && !url.contains(['@', ' ']) && !url.chars().any(char::is_control) => {
            Ok(Proxy::Url(url.to_owned()))
        }
        // It may hold a password, so it is not repeated.
        _ => Err(ConfigError::invalid(
            key,
            "this is none of `none`, `environment`, `socks5://HOST:PORT` and `http://HOST:PORT`",
            "a proxy that wants a password is named in HTTPS_PROXY, with `proxy = \"environment\"`",
        )),
    }
}

/// Secrets are sent there, so it must be TLS but on this machine.
pub(super) fn goes_to_tls_or_loopback(url: &str) -> bool {
    let is_ours = url.strip_prefix("http://").is_some_and(|rest| {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority
            .rsplit_once(':')
            .map_or(authority, |(host, _)| host);
        is_loopback(host.trim_matches(['[', ']']))
    });
    let is_plain = url.bytes().all(|b| b.is_ascii_graphic());
    is_plain && (url.starts_with("https://") || is_ours)
}

pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
