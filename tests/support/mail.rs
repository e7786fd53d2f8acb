//! Mails, made for the tests.

use jiff::Timestamp;

/// A token mail, with the words of the one on Exalate's help page.
#[derive(Clone)]
pub struct TokenMail {
    pub username: String,
    pub token: String,
    pub from: String,
    pub date: Timestamp,
    pub message_id: String,
    /// The `Authentication-Results` header of the receiver, if there is one.
    pub results: Option<String>,
}

/// The authserv-id of the receiver that the tests trust.
pub const RECEIVER: &str = "mx.example.com";

impl TokenMail {
    /// A genuine one: our receiver says that DKIM passed.
    pub fn new(username: &str, token: &str, date: Timestamp) -> Self {
        Self {
            username: username.into(),
            token: token.into(),
            from: "support@salesforce.com".into(),
            date,
            // A number for the token: a log may show the Message-ID.
            message_id: format!(
                "{}.{}@salesforce.com",
                date.as_nanosecond(),
                token.bytes().fold(7_u64, |sum, byte| sum
                    .wrapping_mul(31)
                    .wrapping_add(byte.into()))
            ),
            results: Some(format!(
                "{RECEIVER}; dkim=pass header.d=salesforce.com header.s=sf"
            )),
        }
    }

    /// The same without anything that proves its sender.
    pub fn forged(mut self) -> Self {
        self.results = None;
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let results = self.results.as_ref().map_or_else(String::new, |results| {
            format!("Authentication-Results: {results}\r\n")
        });
        let date =
            jiff::fmt::rfc2822::to_string(&self.date.to_zoned_datetime(jiff::tz::TimeZone::UTC))
                .unwrap();
        format!(
            "{results}From: {from} <{from}>\r\n\
             To: admin@example.com\r\n\
             Date: {date}\r\n\
             Message-ID: <{id}>\r\n\
             Subject: Your new Salesforce security token\r\n\
             MIME-Version: 1.0\r\n\
             Content-Type: text/plain; charset=UTF-8\r\n\
             \r\n\
             We've sent you a new Salesforce security token because you recently changed your password or requested to reset\r\n\
             your security token. Use this updated security token with API or desktop clients that require it.\r\n\
             \r\n\
             Username: {username}\r\n\
             Security token (case-sensitive): {token}\r\n\
             \r\n\
             For more information on using your security token, see Reset Your Security Token at\r\n\
             https://help.salesforce.com/HTViewHelpDoc?id=user_security_token.htm.\r\n",
            from = self.from,
            id = self.message_id,
            username = self.username,
            token = self.token,
        )
        .into_bytes()
    }
}

/// A token as Salesforce makes them: 24 letters and digits.
pub fn token(seed: u64) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    // SplitMix64: tokens that differ, the same in every run.
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5EED;
    let mut out = String::from("a1");
    while out.len() < 24 {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let index = usize::try_from((z ^ (z >> 31)) % 62).unwrap();
        out.push(char::from(ALPHABET[index]));
    }
    out
}

/// A mail that has nothing to do with tokens.
pub fn newsletter(n: usize) -> Vec<u8> {
    format!(
        "From: news{n}@example.org\r\nSubject: Issue {n}: what is new\r\n\
         Date: Thu, 1 Jan 2026 00:00:00 +0000\r\nMessage-ID: <n{n}@example.org>\r\n\r\n\
         Nothing to see here.\r\n{}",
        "lorem ipsum dolor sit amet\r\n".repeat(20)
    )
    .into_bytes()
}
