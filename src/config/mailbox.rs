//! A mailbox as it is meant: the server, the way to it, the login, the folders.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::meant::{
    duration, goes_to_tls_or_loopback, is_id, is_loopback, plain_text, proxy, source, unique,
};
use super::{ConfigError, SecretSource, Since, written};
use crate::secret::Secret;

/// IDLE must be renewed before a server may hang up, which is after half an
/// hour (RFC 2177).
const MAX_IDLE: Duration = Duration::from_secs(29 * 60);

/// One IMAP login and the folders of it that are watched.
#[derive(Clone, Debug)]
pub struct Mailbox {
    /// What people call it.
    pub name: String,
    /// The server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the line is protected.
    pub tls: Tls,
    /// Certificates (PEM) that are trusted beside the system's roots.
    pub ca_file: Option<PathBuf>,
    /// The SHA-256 of the one certificate that is trusted.
    pub tls_pin: Option<[u8; 32]>,
    /// What stands between the server and us.
    pub proxy: Proxy,
    /// The login name.
    pub user: String,
    /// How to log in.
    pub auth: Auth,
    /// The folders.
    pub folders: Vec<String>,
    /// How many connections are held for watching.
    pub max_connections: usize,
    /// How far back the first look goes.
    pub since: Since,
    /// How often IDLE is renewed.
    pub idle_renew: Duration,
    /// How often a server without IDLE is asked.
    pub poll: Duration,
    /// The largest mail that is fetched whole, in bytes.
    pub max_mail_size: u32,
    /// What is done with a token mail when its outcome is durable.
    pub after: After,
}

/// How the line to a mail server is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// TLS from the first byte (RFC 8314).
    Implicit,
    /// TLS after `STARTTLS` (RFC 3501, section 6.2.1).
    StartTls,
    /// None; on loopback only.
    None,
}

/// What stands between a server and us.
#[derive(Clone, Debug)]
pub enum Proxy {
    /// Nothing.
    None,
    /// What `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` say.
    Environment {
        /// `HTTPS_PROXY`.
        https: Option<Secret>,
        /// `ALL_PROXY`.
        all: Option<Secret>,
        /// `NO_PROXY`.
        no: Option<String>,
    },
    /// This one: `socks5://`, `socks5h://` or `http://`, without a password.
    Url(String),
}

/// How to log in.
#[derive(Clone, Debug)]
pub enum Auth {
    /// With a password, and where it is.
    Password(SecretSource),
    /// With an access token (OAuth 2).
    Oauth2(Oauth2),
}

/// Where access tokens come from.
#[derive(Clone, Debug)]
pub struct Oauth2 {
    /// Who gives them.
    pub provider: Provider,
    /// Which of its clients we are.
    pub client_id: String,
    /// Where the client's secret is, if it has one.
    pub client_secret: Option<SecretSource>,
    /// On whose behalf.
    pub grant: Grant,
    /// What is asked for; `None` for what the provider's mailboxes need.
    pub scopes: Option<Vec<String>>,
    /// The loopback port that the browser comes back to; `None` for any.
    pub redirect_port: Option<u16>,
}

/// Who gives access tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provider {
    /// Google.
    Google,
    /// Microsoft's identity platform, with the tenant.
    Microsoft {
        /// `common`, `organizations`, or the tenant's name or ID.
        tenant: String,
    },
    /// Any other, by its endpoints.
    Other {
        /// RFC 6749, section 3.2.
        token: String,
        /// RFC 6749, section 3.1.
        authorization: Option<String>,
        /// RFC 8628, section 3.1.
        device: Option<String>,
    },
}

/// On whose behalf an access token is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// A person's, who has signed in once (`tokenwatch login`).
    RefreshToken,
    /// The client's own (RFC 6749, section 4.4).
    ClientCredentials,
}

/// What is done with a token mail when its outcome is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// Nothing: the mailbox is left as it was.
    Nothing,
    /// It gets this flag: `\Seen`, or a keyword.
    Flag(String),
    /// It goes into this folder.
    Move(String),
}

/// What is written under `[[mailbox]]`, as it is meant.
pub(super) fn mean(written: written::Mailbox, folder: &Path) -> Result<Mailbox, ConfigError> {
    if !is_id(&written.name) {
        return Err(invalid(
            "name",
            "a name has letters, digits, `.`, `_` and `-` only",
            "use a short name such as ops",
        ));
    }
    for (name, value) in [("host", &written.host), ("user", &written.user)] {
        plain_text(&key(name), value)?;
    }
    if written.port == Some(0) {
        return Err(invalid(
            "port",
            "no server listens on port 0",
            "leave the key out for 993, or 143 with `starttls`",
        ));
    }
    let (tls, port) = tls(&written)?;
    folders(&written.folders)?;
    let since = Since::parse(&written.since).ok_or_else(|| {
        invalid(
            "since",
            "this is no span, no date and not `all`",
            "write 30d, 2026-01-01 or all",
        )
    })?;
    let idle_renew = duration(&key("idle-renew"), &written.idle_renew)?;
    if idle_renew > MAX_IDLE {
        return Err(invalid(
            "idle-renew",
            "servers hang up after half an hour",
            "use at most 29m; 5m is the default",
        ));
    }
    if written.max_mail_size < 16 * 1024 || written.max_mail_size > 8 * 1024 * 1024 {
        return Err(invalid(
            "max-mail-size",
            "the size is in bytes, from 16384 to 8388608",
            "leave the key out for 262144",
        ));
    }
    let poll = duration(&key("poll"), &written.poll)?;
    if poll > MAX_IDLE {
        return Err(invalid(
            "poll",
            "servers hang up on a client that is silent for half an hour",
            "use at most 29m; 60s is the default",
        ));
    }
    let max_connections = usize::try_from(written.max_connections).unwrap_or(0);
    if !(1..=100).contains(&max_connections) {
        return Err(invalid(
            "max-connections",
            "a mailbox is watched over 1 to 100 connections",
            "leave the key out for 4",
        ));
    }
    Ok(Mailbox {
        port: written.port.unwrap_or(port),
        tls,
        ca_file: written.ca_file.as_ref().map(|path| folder.join(path)),
        tls_pin: written.tls_pin.as_deref().map(pin).transpose()?,
        proxy: proxy(&key("proxy"), &written.proxy)?,
        auth: auth(&written, folder)?,
        after: after(&written)?,
        folders: written.folders,
        max_connections,
        since,
        idle_renew,
        poll,
        max_mail_size: written.max_mail_size,
        name: written.name,
        host: written.host,
        user: written.user,
    })
}

fn key(name: &str) -> String {
    format!("mailbox.{name}")
}

fn invalid(name: &str, why: impl Into<String>, hint: &'static str) -> ConfigError {
    ConfigError::invalid(key(name), why, hint)
}

fn tls(written: &written::Mailbox) -> Result<(Tls, u16), ConfigError> {
    match written.tls.as_str() {
        "implicit" => Ok((Tls::Implicit, 993)),
        "starttls" => Ok((Tls::StartTls, 143)),
        "none" if is_loopback(&written.host) => Ok((Tls::None, 143)),
        "none" => Err(invalid(
            "tls",
            format!("`none` is for loopback only, and {} is not", written.host),
            "use `implicit` or `starttls`",
        )),
        _ => Err(invalid(
            "tls",
            "this is none of `implicit`, `starttls` and `none`",
            "use `implicit`",
        )),
    }
}

/// As `openssl x509 -fingerprint -sha256` prints it, or without its colons.
fn pin(written: &str) -> Result<[u8; 32], ConfigError> {
    let digits = written.strip_prefix("sha256:").unwrap_or(written);
    let digits: String = digits.chars().filter(|c| *c != ':').collect();
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).ok()?;
        let is_hex = pair.bytes().all(|b| b.is_ascii_hexdigit());
        is_hex.then(|| u8::from_str_radix(pair, 16).ok()).flatten()
    };
    let bytes: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(byte).collect();
    bytes
        .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
        .ok_or_else(|| {
            invalid(
                "tls-pin",
                "this is no SHA-256 of a certificate",
                "write `sha256:` and 64 hexadecimal digits, as `openssl x509 -noout -fingerprint -sha256` prints them",
            )
        })
}

fn auth(written: &written::Mailbox, folder: &Path) -> Result<Auth, ConfigError> {
    match (written.auth.as_str(), &written.oauth2) {
        ("password", None) => {
            let source = source(&key("password"), &written.password, folder)?;
            Ok(Auth::Password(source))
        }
        ("oauth2", Some(oauth2)) => self::oauth2(oauth2, folder).map(Auth::Oauth2),
        ("oauth2", None) => Err(invalid(
            "auth",
            "`oauth2` needs to know who gives access tokens",
            "add [mailbox.oauth2] with `provider` and `client-id` below the mailbox",
        )),
        ("password", Some(_)) => Err(invalid(
            "auth",
            "[mailbox.oauth2] is there, and the login is by password",
            "set `auth = \"oauth2\"`, or take [mailbox.oauth2] away",
        )),
        _ => Err(invalid(
            "auth",
            "this is neither `password` nor `oauth2`",
            "use `password`, or `oauth2` where the provider takes no password",
        )),
    }
}

fn oauth2(written: &written::Oauth2, folder: &Path) -> Result<Oauth2, ConfigError> {
    plain_text(&key("oauth2.client-id"), &written.client_id)?;
    let urls = [
        ("token-url", &written.token_url),
        ("authorization-url", &written.authorization_url),
        ("device-url", &written.device_url),
    ];
    for (name, url) in urls {
        if let Some(url) = url {
            endpoint(name, url)?;
        }
    }
    let names_endpoints = urls.iter().any(|(_, url)| url.is_some());
    let provider = match (written.provider.as_str(), &written.token_url) {
        ("google", None) if !names_endpoints => Provider::Google,
        ("microsoft", None) if !names_endpoints => Provider::Microsoft {
            tenant: tenant(written.tenant.as_deref().unwrap_or("common"))?,
        },
        ("google" | "microsoft", _) => {
            return Err(invalid(
                "oauth2.provider",
                "the endpoints of this provider are known, and others are named",
                "take the URLs away, or set `provider = \"other\"`",
            ));
        }
        ("other", Some(token)) => Provider::Other {
            token: token.clone(),
            authorization: written.authorization_url.clone(),
            device: written.device_url.clone(),
        },
        ("other", None) => {
            return Err(invalid(
                "oauth2.token-url",
                "the provider `other` is known by its endpoints",
                "name `token-url`, and `device-url` or `authorization-url` to sign in",
            ));
        }
        _ => {
            return Err(invalid(
                "oauth2.provider",
                "this is none of `google`, `microsoft` and `other`",
                "use `other` and name its endpoints",
            ));
        }
    };
    if written.tenant.is_some() && !matches!(provider, Provider::Microsoft { .. }) {
        return Err(invalid(
            "oauth2.tenant",
            "only `microsoft` has tenants",
            "take the key away",
        ));
    }
    let client_secret = match &written.client_secret {
        Some(secret) => Some(source(&key("oauth2.client-secret"), secret, folder)?),
        None => None,
    };
    let grant = match written.grant.as_str() {
        "refresh-token" => Grant::RefreshToken,
        "client-credentials" if client_secret.is_some() => Grant::ClientCredentials,
        "client-credentials" => {
            return Err(invalid(
                "oauth2.client-secret",
                "`client-credentials` is a login with the client's own secret",
                "set `client-secret = \"vault\"` and run `tokenwatch secret set client/NAME`",
            ));
        }
        _ => {
            return Err(invalid(
                "oauth2.grant",
                "this is neither `refresh-token` nor `client-credentials`",
                "leave the key out for `refresh-token`",
            ));
        }
    };
    for scope in written.scopes.iter().flatten() {
        plain_text(&key("oauth2.scopes"), scope)?;
    }
    Ok(Oauth2 {
        provider,
        client_id: written.client_id.clone(),
        client_secret,
        grant,
        scopes: written.scopes.clone(),
        redirect_port: written.redirect_port,
    })
}

/// Tokens go there.
fn endpoint(name: &str, url: &str) -> Result<(), ConfigError> {
    if goes_to_tls_or_loopback(url) {
        return Ok(());
    }
    Err(invalid(
        &format!("oauth2.{name}"),
        "the address must begin with https://",
        "see the provider's document /.well-known/openid-configuration",
    ))
}

fn tenant(written: &str) -> Result<String, ConfigError> {
    if is_id(written) {
        return Ok(written.to_owned());
    }
    Err(invalid(
        "oauth2.tenant",
        "this is no name and no ID of a tenant",
        "use `common`, `organizations`, your domain, or the directory's ID",
    ))
}

fn folders(written: &[String]) -> Result<(), ConfigError> {
    if written.is_empty() {
        return Err(invalid(
            "folders",
            "with no folder there is nothing to watch",
            "leave the key out for INBOX",
        ));
    }
    for folder in written {
        plain_text(&key("folders"), folder)?;
    }
    unique(&key("folders"), written.iter().map(|folder| same(folder)))
}

/// INBOX is the one name without case (RFC 3501, section 5.1).
fn same(folder: &str) -> String {
    if folder.eq_ignore_ascii_case("inbox") {
        return "INBOX".to_owned();
    }
    folder.to_owned()
}

fn after(written: &written::Mailbox) -> Result<After, ConfigError> {
    let is_atom = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|b| b.is_ascii_graphic() && !b"(){%*\"\\]".contains(&b))
    };
    match (written.after.as_str(), written.after.split_once(':')) {
        ("nothing", _) => Ok(After::Nothing),
        ("mark-seen", _) => Ok(After::Flag("\\Seen".to_owned())),
        (_, Some(("flag", keyword))) if is_atom(keyword) => Ok(After::Flag(keyword.to_owned())),
        (_, Some(("move", to))) if !to.is_empty() => {
            plain_text(&key("after"), to)?;
            if written
                .folders
                .iter()
                .any(|folder| same(folder) == same(to))
            {
                return Err(invalid(
                    "after",
                    "a mail that is moved into a watched folder comes in again",
                    "move it into a folder that is not in `folders`",
                ));
            }
            Ok(After::Move(to.to_owned()))
        }
        _ => Err(invalid(
            "after",
            "this is none of `nothing`, `mark-seen`, `flag:KEYWORD` and `move:FOLDER`",
            "leave the key out to leave the mailbox as it is",
        )),
    }
}
