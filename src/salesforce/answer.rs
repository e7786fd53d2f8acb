//! What Salesforce says to a login.

use super::soap::Code;

/// What came of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The credential works.
    Works,
    /// It is right, and Salesforce wants another password before it lets anybody in.
    PasswordExpired,
    /// The password or the token is wrong, or the user is locked out: Salesforce does not tell
    /// these apart.
    Refused,
    /// The user or the organisation is locked.
    Locked,
    /// Not from this network, not at this time, or not without a verification code.
    Restricted,
    /// `login()` is not offered here: turned off, retired, or not for this user.
    NotAvailable,
    /// Too many requests.
    RateLimited,
    /// Nobody has looked at the password: there was no connection, or whoever answered says that
    /// he is out of order.
    Unreachable,
    /// Salesforce may have looked at the password, and what it found is not known: the answer was
    /// lost, did not come in time, or cannot be understood.
    Unknown,
}

impl Answer {
    /// A stable word, for the journal and scripts.
    pub fn word(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::PasswordExpired => "password-expired",
            Self::Refused => "refused",
            Self::Locked => "locked",
            Self::Restricted => "restricted",
            Self::NotAvailable => "not-available",
            Self::RateLimited => "rate-limited",
            Self::Unreachable => "unreachable",
            Self::Unknown => "unknown",
        }
    }

    /// The same for people.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Works => "Salesforce takes the credential",
            Self::PasswordExpired => "the Salesforce password has expired",
            Self::Refused => "Salesforce refuses the password with this token",
            Self::Locked => "Salesforce has locked the user or the organisation",
            Self::Restricted => {
                "Salesforce does not let the user in from here, at this time, or without a verification code"
            }
            Self::NotAvailable => "Salesforce does not offer login() over SOAP to this user",
            Self::RateLimited => "Salesforce has had too many requests",
            Self::Unreachable => "Salesforce cannot be reached",
            Self::Unknown => {
                "it is not known what Salesforce made of the login: there was no answer, or none that can be understood"
            }
        }
    }

    /// What a person can do about it; nothing where there is nothing to do.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Works => "",
            Self::PasswordExpired => "set a new password in Salesforce",
            Self::Refused => "the user's login history in Salesforce says more",
            Self::Locked => {
                "let an administrator unlock the user, or wait until the lock is over (often 15 minutes)"
            }
            Self::Restricted => {
                "see login hours and login IP ranges of the user's profile, and the trusted IP ranges of the organisation"
            }
            Self::NotAvailable => {
                "let an administrator allow login() by SOAP, or set another `api-version` or `verify = \"off\"` and restart tokenwatch"
            }
            Self::RateLimited => "wait; see the organisation's API limits if it stays so",
            Self::Unreachable => {
                "see that the network and the proxy let us through to `login-url`, and Salesforce's status page"
            }
            Self::Unknown => {
                "see the user's login history in Salesforce, and that `login-url` is right and no proxy answers in its place"
            }
        }
    }

    /// What an exception code of Salesforce's means. One that is not known may be about anything.
    pub(super) fn of(code: &Code) -> Self {
        match code.as_str() {
            "INVALID_LOGIN" | "LOGIN_MUST_USE_SECURITY_TOKEN" => Self::Refused,
            "PASSWORD_LOCKOUT" | "ORG_LOCKED" => Self::Locked,
            "LOGIN_DURING_RESTRICTED_DOMAIN"
            | "LOGIN_DURING_RESTRICTED_TIME"
            | "LOGIN_CHALLENGE_ISSUED"
            | "LOGIN_CHALLENGE_PENDING" => Self::Restricted,
            // The first is what an organisation answers in which login() is turned off.
            "INVALID_OPERATION"
            | "API_CURRENTLY_DISABLED"
            | "API_DISABLED_FOR_ORG"
            | "INSUFFICIENT_ACCESS"
            | "TRIAL_EXPIRED"
            | "UNSUPPORTED_API_VERSION" => Self::NotAvailable,
            "REQUEST_LIMIT_EXCEEDED" => Self::RateLimited,
            "SERVER_UNAVAILABLE" => Self::Unreachable,
            _ => Self::Unknown,
        }
    }

    /// What a status of HTTP means that comes without a word of Salesforce's.
    pub(super) fn of_status(status: u16) -> Self {
        match status {
            429 => Self::RateLimited,
            503 => Self::Unreachable,
            // A gateway says 502 and 504 also where it has lost Salesforce's answer.
            _ => Self::Unknown,
        }
    }
}
