//! A webhook as it is meant: where a request goes, what it says, and which secrets it needs.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::meant::{is_loopback, plain_text, source};
use super::sink::{USUAL, invalid, no_template, placeholder, timeout, two_formats};
use super::{ConfigError, Proxy, SecretSource, meant, written};

/// An HTTPS request.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Where it goes.
    pub url: String,
    /// What is sent.
    pub format: WebhookFormat,
    /// PUT and not POST.
    pub put: bool,
    /// The password and token may be in it.
    pub include_secret: bool,
    /// Where the key of the signature is; without one there is no signature.
    pub secret: Option<SecretSource>,
    /// Where the values of header fields are, by name in lower case.
    pub headers: Vec<(String, SecretSource)>,
    /// The body's media type, where it is not JSON's.
    pub content_type: Option<String>,
    /// How long it may take.
    pub timeout: Duration,
    /// Certificates (PEM) that are trusted beside the system's roots.
    pub ca_file: Option<PathBuf>,
    /// What stands between the receiver and us.
    pub proxy: Proxy,
}

/// What a webhook sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebhookFormat {
    /// One object.
    Json,
    /// What a template makes of it.
    Template(PathBuf),
    /// An entry of a key-value store of version 2.
    Kv2,
}

/// What is written under `[[sink]]` with `kind = "webhook"`, as it is meant.
pub(super) fn mean(written: &written::Sink, folder: &Path) -> Result<Webhook, ConfigError> {
    let template = written.template.as_ref().map(|path| folder.join(path));
    let format = match (written.format.as_deref(), template) {
        (None | Some("template"), Some(template)) => WebhookFormat::Template(template),
        (Some("template"), None) => return Err(no_template()),
        (None | Some("json"), None) => WebhookFormat::Json,
        (Some("kv2"), None) => WebhookFormat::Kv2,
        (Some(_), Some(_)) => return Err(two_formats()),
        (Some(_), None) => {
            return Err(invalid(
                "format",
                "this is none of `json`, `template` and `kv2`",
                "leave the key out for `json`",
            ));
        }
    };
    let is_kv2 = format == WebhookFormat::Kv2;
    if is_kv2 && written.include_secret == Some(false) {
        return Err(invalid(
            "include-secret",
            "an entry of a key-value store is the secret",
            "take the key away",
        ));
    }
    let secret = match written.secret.as_deref() {
        _ if is_kv2 => None,
        Some("none") => None,
        None => Some(SecretSource::Vault),
        Some(secret) => Some(source("sink.secret", secret, folder)?),
    };
    if let Some(content_type) = &written.content_type {
        plain_text("sink.content-type", content_type)?;
    }
    Ok(Webhook {
        url: url(written.url.as_deref().unwrap_or_default())?,
        put: match written.method.as_deref() {
            None | Some("POST") => false,
            Some("PUT") => true,
            Some(_) => {
                return Err(invalid(
                    "method",
                    "this is neither `POST` nor `PUT`",
                    "leave the key out for `POST`",
                ));
            }
        },
        include_secret: is_kv2 || written.include_secret.unwrap_or(false),
        secret,
        headers: headers(written.headers.as_ref(), folder)?,
        content_type: written.content_type.clone(),
        timeout: timeout(written, USUAL)?,
        ca_file: written.ca_file.as_ref().map(|path| folder.join(path)),
        proxy: meant::proxy("sink.proxy", written.proxy.as_deref().unwrap_or("none"))?,
        format,
    })
}

/// It is not repeated: many a webhook's address is a secret itself.
fn url(written: &str) -> Result<String, ConfigError> {
    let refused = || {
        invalid(
            "url",
            "the address must begin with https://, and a name or password is no part of it",
            "use an https:// address; http:// is for this machine only",
        )
    };
    let (scheme, rest) = written.split_once("://").ok_or_else(refused)?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    };
    let is_ours = is_loopback(host.trim_matches(['[', ']']));
    let is_plain = written.bytes().all(|b| b.is_ascii_graphic());
    let is_usable = scheme == "https" || (scheme == "http" && is_ours);
    if !is_usable || !is_plain || host.is_empty() || authority.contains(['@', '{']) {
        return Err(refused());
    }
    placeholder("url", written)?;
    Ok(written.to_owned())
}

fn headers(
    written: Option<&BTreeMap<String, String>>,
    folder: &Path,
) -> Result<Vec<(String, SecretSource)>, ConfigError> {
    let reserved = [
        "connection",
        "content-length",
        "content-type",
        "host",
        "te",
        "transfer-encoding",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
    ];
    let mut seen = HashSet::new();
    let mut meant = Vec::new();
    for (name, value) in written.into_iter().flatten() {
        let name = name.to_ascii_lowercase();
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        if name.is_empty() || !name.bytes().all(is_plain) || reserved.contains(&name.as_str()) {
            return Err(invalid(
                "headers",
                "a header field has a name of letters, digits and `-`, and is none of those that we write",
                "write headers = { \"X-Vault-Token\" = \"vault\" }",
            ));
        }
        if !seen.insert(name.clone()) {
            return Err(invalid(
                "headers",
                format!("{name:?} stands there twice"),
                "name each once; upper and lower case are the same",
            ));
        }
        let source = source(&format!("sink.headers.{name}"), value, folder)?;
        meant.push((name, source));
    }
    Ok(meant)
}
