//! Where a login goes, and where its session may be sent.

use std::net::IpAddr;

use oauth2::url::Host;
use reqwest::Url;

/// The last version of Salesforce's API that has `login()`.
pub const LAST_API_VERSION: &str = "64.0";

/// The domain of Salesforce's own servers, those of My Domain included.
const SALESFORCE: &str = "salesforce.com";

/// Where a login goes. It is HTTPS, or HTTP on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(Url);

/// No login can go there. All of it needs a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The address cannot be used.
    #[error("the address of the login {0}")]
    Address(&'static str),
    /// The version cannot be used.
    #[error("this is no version of the API that has login()")]
    Version,
}

impl EndpointError {
    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Address(_) => {
                "use https://login.salesforce.com, https://test.salesforce.com or your My Domain as `login-url`"
            }
            Self::Version => "leave `api-version` out for 64.0, the last one that has it",
        }
    }
}

impl Endpoint {
    /// The SOAP endpoint of this version (such as `64.0`) at a host, which is given as a URL without
    /// a path.
    ///
    /// # Errors
    ///
    /// Where a secret must not go to this address, or where there is no `login()` in this version.
    pub fn new(login_url: &str, api_version: &str) -> Result<Self, EndpointError> {
        let wrong = |why| Err(EndpointError::Address(why));
        let Ok(mut url) = Url::parse(login_url) else {
            return wrong("is no URL");
        };
        let is_bare = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
            && url.path() == "/";
        if url.scheme() != "https" && !is_http_on_loopback(&url) {
            return wrong("is not https");
        }
        if !is_bare {
            return wrong("has more in it than a host");
        }
        let version = version(api_version).ok_or(EndpointError::Version)?;
        url.set_path(&format!("/services/Soap/u/{version}.0"));
        Ok(Self(url))
    }

    /// Whom the log names.
    pub(super) fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    pub(super) fn url(&self) -> &Url {
        &self.0
    }

    /// The address at which a session is, where the session may be sent there: the answer to a
    /// login could name anybody.
    pub(super) fn of_session(&self, server_url: &str) -> Option<Url> {
        let url = Url::parse(server_url).ok()?;
        let is_ours = if self.0.scheme() == "https" {
            url.scheme() == "https" && self.is_of_the_same_house(&url)
        } else {
            is_http_on_loopback(&url)
        };
        let is_plain = url.username().is_empty() && url.password().is_none();
        (is_ours && is_plain).then_some(url)
    }

    /// The same host, a server of Salesforce's, or one of the same organisation by the public
    /// suffix list.
    fn is_of_the_same_house(&self, url: &Url) -> bool {
        if url.host() == self.0.host() {
            return true;
        }
        let (Some(Host::Domain(theirs)), Some(Host::Domain(ours))) = (url.host(), self.0.host())
        else {
            return false;
        };
        let is_salesforce = theirs
            .strip_suffix(SALESFORCE)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        let registered = psl::domain_str(theirs);
        is_salesforce || (registered.is_some() && registered == psl::domain_str(ours))
    }
}

/// `64.0` → 64. Salesforce's versions have no other minor.
fn version(text: &str) -> Option<u8> {
    let major = text.strip_suffix(".0")?;
    let last = LAST_API_VERSION.strip_suffix(".0")?.parse().ok()?;
    let is_plain = !major.starts_with('0') && major.bytes().all(|b| b.is_ascii_digit());
    let major: u8 = is_plain.then(|| major.parse().ok()).flatten()?;
    (1..=last).contains(&major).then_some(major)
}

fn is_http_on_loopback(url: &Url) -> bool {
    let is_loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        None => false,
    };
    url.scheme() == "http" && is_loopback
}
