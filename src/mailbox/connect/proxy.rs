//! Which proxy a server is reached through. PURE.
//!
//! A proxy's URL may hold a password, so it is a secret, and errors name host
//! and port alone. A URL that cannot be understood is an error: it is never
//! gone around.

use hyper::Uri;
use hyper_util::client::proxy::matcher::Matcher;

use super::through::{Kind, Route};
use crate::mailbox::MailboxError;
use crate::secret::Secret;

/// What a connection goes through. A URL is `http://`, `socks5://` or
/// `socks5h://` with host and port, and `user:password@` before them where the
/// proxy asks for it.
#[derive(Clone, Debug, Default)]
pub enum Proxy {
    /// Nothing.
    #[default]
    None,
    /// This proxy.
    Url(Secret),
    /// What the environment says, as curl reads it. Empty values are none.
    Environment {
        /// `HTTPS_PROXY` or `https_proxy`.
        https: Option<Secret>,
        /// `ALL_PROXY` or `all_proxy`, where there is no `https`.
        all: Option<Secret>,
        /// `NO_PROXY` or `no_proxy`: names, addresses and networks that are
        /// reached without a proxy, with commas between them.
        no: Option<String>,
    },
}

impl Proxy {
    /// The URL of the proxy that applies to a host, unless there is none.
    pub fn url_for(&self, host: &str) -> Option<&Secret> {
        match self {
            Self::None => None,
            Self::Url(url) => Some(url),
            Self::Environment { https, all, no } => [https, all]
                .into_iter()
                .flatten()
                .find(|url| !url.expose().is_empty())
                .filter(|_| no.as_ref().is_none_or(|no| !is_excepted(host, no))),
        }
    }

    /// The way through the proxy that applies, unless there is none.
    pub(super) fn route(&self, host: &str, port: u16) -> Result<Option<Route>, MailboxError> {
        let Some(url) = self.url_for(host) else {
            return Ok(None);
        };
        let no_host = || MailboxError::HostName(host.to_owned());
        let destination = uri(host, port).ok_or_else(no_host)?;
        let all = Matcher::builder().all(url.expose()).build();
        let proxy = all.intercept(&destination).ok_or(MailboxError::ProxyUrl)?;
        let kind = match proxy.uri().scheme_str() {
            Some("http") => Kind::Tunnel,
            Some("socks5" | "socks5h") => Kind::Socks,
            _ => return Err(MailboxError::ProxyUrl),
        };
        let proxy_host = proxy.uri().host().ok_or(MailboxError::ProxyUrl)?;
        let usual = match kind {
            Kind::Tunnel => 80,
            Kind::Socks => 1080,
        };
        Ok(Some(Route {
            kind,
            host: proxy_host.to_owned(),
            port: proxy.uri().port_u16().unwrap_or(usual),
            proxy,
            destination,
        }))
    }
}

/// Whether `NO_PROXY` names the host.
fn is_excepted(host: &str, no: &str) -> bool {
    // The matcher takes a star for names only.
    no.split(',').any(|entry| entry.trim() == "*")
        || uri(host, 443).is_some_and(|uri| {
            let all_but = Matcher::builder().all("http://proxy").no(no).build();
            all_but.intercept(&uri).is_none()
        })
}

/// A server as a URI. `https` is the scheme whose rules of the environment are
/// taken: there is none for mail.
fn uri(host: &str, port: u16) -> Option<Uri> {
    let host = if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let uri = Uri::builder()
        .scheme("https")
        .authority(format!("{host}:{port}"))
        .path_and_query("/")
        .build()
        .ok()?;
    // What would be read as anything more than a host is none.
    (!host.is_empty() && uri.host() == Some(&host)).then_some(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(url: &str) -> Option<Secret> {
        (!url.is_empty()).then(|| Secret::new(url.to_owned()))
    }

    fn environment(https: &str, all: &str, no: &str) -> Proxy {
        Proxy::Environment {
            https: secret(https),
            all: secret(all),
            no: Some(no.to_owned()),
        }
    }

    fn chosen(proxy: &Proxy, host: &str) -> Option<String> {
        let route = proxy.route(host, 993).unwrap()?;
        Some(format!("{}:{}", route.host, route.port))
    }

    #[test]
    fn the_environment_says_which_proxy_applies() {
        let both = environment("http://a:1", "socks5://b:2", "");
        assert_eq!(chosen(&both, "imap.example.com").unwrap(), "a:1");
        let all = environment("", "socks5h://b", "");
        assert_eq!(chosen(&all, "imap.example.com").unwrap(), "b:1080");
        let bare = environment("proxy.example.com", "", "");
        assert_eq!(chosen(&bare, "::1").unwrap(), "proxy.example.com:80");
        assert_eq!(chosen(&environment("", "", ""), "::1"), None);
        assert_eq!(chosen(&Proxy::None, "::1"), None);
    }

    #[test]
    fn no_proxy_names_hosts_domains_and_networks() {
        let no = "example.com, .example.net,10.0.0.0/8,::1";
        let proxy = environment("http://a:1", "", no);
        for host in [
            "example.com",
            "imap.EXAMPLE.com",
            "imap.example.net",
            "10.1.2.3",
            "::1",
            "[::1]",
        ] {
            assert_eq!(chosen(&proxy, host), None, "{host}");
        }
        for host in ["anexample.com", "example.org", "11.1.2.3", "::2"] {
            assert!(chosen(&proxy, host).is_some(), "{host}");
        }
        for host in ["imap.example.com", "10.1.2.3", "::1"] {
            assert_eq!(chosen(&environment("http://a:1", "", " *"), host), None);
        }
        // A URL that does not count is not complained of.
        assert_eq!(chosen(&environment("gopher:///", "", "*"), "::1"), None);
    }

    #[test]
    fn what_is_no_proxy_is_refused_and_not_gone_around() {
        for url in [
            "https://a:1",
            "socks4://a:1",
            "gopher://a",
            "http://",
            "http://user:pass@",
            "hunter2 @a",
        ] {
            for proxy in [
                Proxy::Url(Secret::new(url.to_owned())),
                environment(url, "", ""),
            ] {
                let error = proxy.route("imap.example.com", 993).unwrap_err();
                assert!(matches!(error, MailboxError::ProxyUrl), "{url}: {error}");
            }
        }
        let proxy = Proxy::Url(Secret::new("http://a:1".to_owned()));
        for host in ["user@host", "a b", "host/path", "a\r\nb", ""] {
            let route = proxy.route(host, 993);
            assert!(
                matches!(route, Err(MailboxError::HostName(_))),
                "{host:?}: {route:?}"
            );
        }
    }

    #[test]
    fn the_password_is_in_no_debug() {
        let proxy = Proxy::Url(Secret::new("socks5://whoami:hunter2@a:1".to_owned()));
        let route = proxy.route("imap.example.com", 993).unwrap();
        let shown = format!("{proxy:?} {route:?}");
        assert!(
            !shown.contains("hunter2") && !shown.contains("whoami"),
            "{shown}"
        );
    }
}
