//! The `From` header: exactly one, and in it exactly one address (RFC 5322,
//! section 3.6.2). Mail readers disagree about anything else, so anything else
//! is refused.

use mail_parser::{Address, HeaderName, Message};

use super::Distrust;

/// The address, its domain in lower case. The local part is compared as it
/// stands (RFC 5321, section 2.4).
pub(super) fn address(mail: &Message<'_>) -> Result<String, Distrust> {
    let mut headers = mail
        .headers()
        .iter()
        .filter(|header| header.name == HeaderName::From);
    let (Some(header), None) = (headers.next(), headers.next()) else {
        return Err(Distrust::FromMalformed);
    };
    let Some(Address::List(list)) = header.value.as_address() else {
        return Err(Distrust::FromMalformed);
    };
    let [only] = list.as_slice() else {
        return Err(Distrust::FromMalformed);
    };
    // The parser is lenient: what stands in the header beside the address must
    // hold no second one, or another reader would show that.
    let address = only.address().ok_or(Distrust::FromMalformed)?;
    match address.rsplit_once('@') {
        Some((local, domain))
            if !local.is_empty()
                && !domain.is_empty()
                && !local.contains('@')
                && address.bytes().all(|b| b.is_ascii_graphic()) =>
        {
            Ok(format!("{local}@{}", domain.to_ascii_lowercase()))
        }
        _ => Err(Distrust::FromMalformed),
    }
}

/// What stands behind the `@`.
pub(super) fn domain(address: &str) -> &str {
    address.rsplit_once('@').map_or("", |(_, domain)| domain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notice::Mail;

    fn from(headers: &str) -> Result<String, Distrust> {
        let raw = format!("{headers}\r\nSubject: x\r\n\r\n");
        address(Mail::parse(raw.as_bytes()).parsed().unwrap())
    }

    #[test]
    fn one_address_is_taken_whatever_stands_around_it() {
        for header in [
            "From: support@salesforce.com",
            "From: support@salesforce.com <support@salesforce.com>",
            "From: \"Salesforce, Inc.\" <support@SALESFORCE.com>",
            "From: (a comment) support@salesforce.com",
        ] {
            assert_eq!(
                from(header).as_deref(),
                Ok("support@salesforce.com"),
                "{header}"
            );
        }
    }

    #[test]
    fn a_display_name_is_no_address() {
        assert_eq!(
            from("From: \"support@salesforce.com\" <evil@example.net>").as_deref(),
            Ok("evil@example.net")
        );
    }

    #[test]
    fn anything_but_one_address_is_refused() {
        for header in [
            "From: a@b.c, support@salesforce.com",
            "From: support@salesforce.com\r\nFrom: evil@example.net",
            "From: team: support@salesforce.com;",
            "From: nobody",
            "From:",
            "To: a@b.c",
            "From: <support@salesforce.com> <evil@example.net>",
        ] {
            assert!(from(header).is_err(), "{header}: {:?}", from(header));
        }
    }
}
