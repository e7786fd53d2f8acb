//! `Authentication-Results` (RFC 8601): what our own mail server found out
//! when the mail came in.
//!
//! Anyone can put such a header into a mail before it reaches us, so only the
//! newest one counts whose authserv-id is ours: a receiver adds its own on
//! top. A pass is `dkim=pass` with a domain aligned with `From`, or
//! `dmarc=pass` for the domain of `From`.

use mail_parser::Message;

use super::aligned;
use crate::notice::is_spelt_exactly;

/// What the newest header of one of our receivers says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) authserv_id: String,
    /// Whether the mail passed for the domain of `From`.
    pub(super) passed: bool,
    /// The results that this rests on: `dkim=pass`, `spf=fail dkim=none`.
    pub(super) results: String,
}

/// Asks the newest header of one of `receivers`. `None` where no header is ours,
/// and also where one above it cannot be read: that one may be ours, and what
/// stands below it somebody else's.
pub(super) fn ask(
    mail: &Message<'_>,
    raw: &[u8],
    receivers: &[String],
    domain: &str,
) -> Option<Word> {
    const NAME: &str = "Authentication-Results";
    let fields = mail.headers().iter().filter(|field| {
        let letters = field.name.as_str().chars().filter(|c| !c.is_whitespace());
        letters
            .map(|c| c.to_ascii_lowercase())
            .eq(NAME.chars().map(|c| c.to_ascii_lowercase()))
    });
    let is_ours = |results: &Results| {
        let id = &results.authserv_id;
        receivers.iter().any(|ours| ours.eq_ignore_ascii_case(id))
    };
    let mut ours: Option<Results> = None;
    for field in fields {
        let value = raw.get(field.offset_start as usize..field.offset_end as usize);
        // Receivers take forged fields out by their exact name, so a misspelt one
        // is none of theirs.
        let results = value
            .filter(|_| is_spelt_exactly(raw, field, NAME))
            .and_then(|value| std::str::from_utf8(value).ok())
            .and_then(parse);
        match (results, &mut ours) {
            (None, None) => return None,
            (Some(results), None) if is_ours(&results) => ours = Some(results),
            (Some(_), None) => {}
            // Some receivers write a field for each method. What stands below may
            // be somebody else's in our name, so it can only take away.
            (Some(older), Some(newest)) if is_ours(&older) => newest.below.extend(older.methods),
            (Some(_), Some(_)) => {}
            // It may be ours, and tell what a DMARC pass rests on.
            (None, Some(newest)) => newest.below.push(Method {
                name: "dkim".to_owned(),
                result: "unreadable".to_owned(),
                properties: Vec::new(),
            }),
        }
    }
    ours.map(|results| results.word(domain))
}

/// Whether an `ARC-Authentication-Results` field (RFC 8617, section 4.1.1)
/// says that DKIM passed for a domain aligned with `domain`.
pub(super) fn sealed_pass(value: &str, domain: &str) -> bool {
    // `i=1;` and then what RFC 8601 says.
    value
        .split_once(';')
        .and_then(|(_, results)| parse(results))
        .is_some_and(|results| results.dkim_passes(domain))
}

/// One parsed header.
#[derive(Debug, PartialEq, Eq)]
struct Results {
    authserv_id: String,
    methods: Vec<Method>,
    /// What older fields of our servers say.
    below: Vec<Method>,
}

/// `method=result` and the properties behind it, names in lower case.
#[derive(Debug, Default, PartialEq, Eq)]
struct Method {
    name: String,
    result: String,
    properties: Vec<(String, String)>,
}

impl Results {
    fn word(self, domain: &str) -> Word {
        let (by_dkim, by_dmarc) = (self.dkim_passes(domain), self.dmarc_passes(domain));
        Word {
            passed: by_dkim || by_dmarc,
            results: match (by_dkim, by_dmarc) {
                (true, _) => "dkim=pass".to_owned(),
                (false, true) => "dmarc=pass".to_owned(),
                (false, false) => self.summary(),
            },
            authserv_id: self.authserv_id,
        }
    }

    fn dmarc_failed(&self) -> bool {
        let failed = |method: &Method| method.name == "dmarc" && method.result == "fail";
        self.methods.iter().any(failed)
    }

    fn dkim_passes(&self, domain: &str) -> bool {
        // `dkim=none` beside a pass: a field in which a stranger has written.
        let none = |method: &Method| method.name == "dkim" && method.result == "none";
        !self.dmarc_failed()
            && !self.methods.iter().any(none)
            && self
                .methods
                .iter()
                .any(|method| method.is_dkim_pass(domain))
    }

    /// DMARC also passes by SPF, which every customer of Salesforce's can
    /// bring about. So it counts by itself only where the receiver says
    /// nothing of what it rests on, or says in a field below that it was DKIM.
    fn dmarc_passes(&self, domain: &str) -> bool {
        let rests_on = |method: &&Method| method.name == "dkim" || method.name == "spf";
        let (dkim, spf): (Vec<_>, Vec<_>) = self
            .below
            .iter()
            .filter(rests_on)
            .partition(|method| method.name == "dkim");
        let by_dkim = dkim.iter().all(|method| method.is_dkim_pass(domain));
        !self.dmarc_failed()
            && !self.methods.iter().any(|method| rests_on(&method))
            && by_dkim
            && (spf.is_empty() || !dkim.is_empty())
            && self.methods.iter().any(|method| {
                method.says_pass("dmarc")
                    && method.domains(&["header.from"], domain, str::eq_ignore_ascii_case)
            })
    }

    /// `spf=pass dkim=fail`, of what is known and no longer than a line.
    fn summary(&self) -> String {
        let known = ["dkim", "dmarc", "spf", "arc"];
        let mut all = self
            .methods
            .iter()
            .filter(|method| known.contains(&method.name.as_str()))
            .filter(|method| method.result.bytes().all(|b| b.is_ascii_alphanumeric()))
            .take(6)
            .map(|method| format!("{}={}", method.name, method.result))
            .collect::<Vec<_>>()
            .join(" ");
        if all.is_empty() {
            all.push_str("none");
        }
        all
    }
}

impl Method {
    fn is_dkim_pass(&self, domain: &str) -> bool {
        self.says_pass("dkim") && self.domains(&["header.d", "header.i"], domain, aligned)
    }

    fn says_pass(&self, name: &str) -> bool {
        self.name == name && self.result == "pass"
    }

    /// Whether one of the properties is there, and each that is there fits.
    fn domains(&self, names: &[&str], domain: &str, fits: fn(&str, &str) -> bool) -> bool {
        let mut values = self
            .properties
            .iter()
            .filter(|(name, _)| names.contains(&name.as_str()))
            .map(|(_, value)| value.rsplit_once('@').map_or(value.as_str(), |(_, d)| d))
            .peekable();
        values.peek().is_some() && values.all(|value| fits(value, domain))
    }
}

/// Parses a header value; `None` where it is none of RFC 8601's.
fn parse(value: &str) -> Option<Results> {
    let mut sections = sections(value)?.into_iter();
    let mut head = sections.next()?.into_iter();
    let Token::Text(authserv_id) = head.next()? else {
        return None;
    };
    let mut methods = Vec::new();
    for section in sections {
        let mut pairs = pairs(section);
        if pairs.is_empty() {
            continue; // `none`, or nothing behind the last semicolon
        }
        let (name, result) = pairs.remove(0);
        // `method/version` (section 2.2): the version says nothing here.
        let name = name.split('/').next().unwrap_or_default().to_owned();
        methods.push(Method {
            name,
            result: result.to_ascii_lowercase(),
            properties: pairs,
        });
    }
    Some(Results {
        authserv_id,
        methods,
        below: Vec::new(),
    })
}

/// A token of the header, or the `=` between two.
#[derive(Debug, PartialEq, Eq)]
enum Token {
    Text(String),
    Equals,
}

/// Splits at semicolons, with comments gone and quoted strings taken whole.
fn sections(value: &str) -> Option<Vec<Vec<Token>>> {
    let mut sections = vec![Vec::new()];
    let mut word = String::new();
    let mut depth = 0_usize;
    let mut chars = value.chars();
    let finish = |sections: &mut Vec<Vec<Token>>, word: &mut String| {
        if !word.is_empty()
            && let Some(section) = sections.last_mut()
        {
            section.push(Token::Text(std::mem::take(word)));
        }
    };
    while let Some(c) = chars.next() {
        match (c, depth) {
            ('(', _) => depth = depth.saturating_add(1),
            (')', 1..) => depth = depth.saturating_sub(1),
            ('\\', 1..) => {
                chars.next()?;
            }
            (_, 1..) => {}
            ('"', 0) => loop {
                match chars.next()? {
                    '"' => break,
                    '\\' => word.push(chars.next()?),
                    quoted => word.push(quoted),
                }
            },
            (';', 0) => {
                finish(&mut sections, &mut word);
                sections.push(Vec::new());
            }
            ('=', 0) => {
                finish(&mut sections, &mut word);
                sections.last_mut()?.push(Token::Equals);
            }
            (c, 0) if c.is_whitespace() => finish(&mut sections, &mut word),
            (c, 0) => word.push(c),
        }
    }
    finish(&mut sections, &mut word);
    (depth == 0).then_some(sections)
}

/// The `name = value` pairs of a section, names in lower case.
fn pairs(section: Vec<Token>) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut words = section.into_iter().peekable();
    while let Some(word) = words.next() {
        let Token::Text(name) = word else { continue };
        if words.next_if_eq(&Token::Equals).is_none() {
            continue;
        }
        if let Some(Token::Text(value)) = words.next_if(|next| matches!(next, Token::Text(_))) {
            pairs.push((name.to_ascii_lowercase(), value));
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notice::{Mail, Wordings};

    fn says(headers: &[&str], domain: &str) -> Option<Word> {
        let mut raw = String::new();
        for value in headers {
            raw.extend(["Authentication-Results: ", value, "\r\n"]);
        }
        raw += "From: support@salesforce.com\r\n\r\n";
        ask(
            Mail::parse(raw.as_bytes(), &Wordings::default())
                .parsed()
                .unwrap(),
            raw.as_bytes(),
            &["mx.example.com".to_owned()],
            domain,
        )
    }

    fn passes(value: &str) -> Option<bool> {
        says(&[value], "salesforce.com").map(|word| word.passed)
    }

    #[test]
    fn aligned_dkim_and_dmarc_pass() {
        for value in [
            "mx.example.com; dkim=pass header.d=salesforce.com",
            "MX.example.com 1; spf=fail; dkim=pass (2048-bit key; (nested)) header.i=@salesforce.com header.s=sf",
            "mx.example.com;\r\n dmarc=pass (p=REJECT dis=NONE) header.from=salesforce.com",
            "mx.example.com; dkim/1=PASS reason=\"good; really\" header.d=\"salesforce.com\"",
        ] {
            assert_eq!(passes(value), Some(true), "{value}");
        }
    }

    #[test]
    fn anything_less_does_not_pass() {
        for value in [
            "mx.example.com; spf=pass smtp.mailfrom=salesforce.com",
            "mx.example.com; dkim=pass header.d=evil.example",
            "mx.example.com; dkim=pass header.d=salesforce.com header.i=@evil.example",
            "mx.example.com; dkim=fail header.d=salesforce.com",
            "mx.example.com; dkim=pass",
            "mx.example.com; none",
            "mx.example.com; dkim=pass header.d=salesforce.com; dmarc=fail header.from=salesforce.com",
            "mx.example.com (; dkim=pass header.d=salesforce.com ); none",
            "mx.example.com; dmarc=pass header.from=evil.example",
            "mx.example.com; dkim=fail header.d=salesforce.com; spf=pass smtp.mailfrom=x@bnc.salesforce.com; dmarc=pass header.from=salesforce.com",
            "mx.example.com; dkim=none; dmarc=pass header.from=salesforce.com",
            "mx.example.com; spf=pass smtp.mailfrom=a;dkim=pass header.d=salesforce.com @evil.example; dkim=none",
            "mx.example.com; spf=pass smtp.mailfrom=x@bnc.salesforce.com; dmarc=pass header.from=salesforce.com",
        ] {
            assert_eq!(passes(value), Some(false), "{value}");
        }
    }

    #[test]
    fn the_word_says_what_it_rests_on() {
        for (value, results) in [
            ("spf=fail; dkim=pass header.d=salesforce.com", "dkim=pass"),
            ("dmarc=pass header.from=salesforce.com", "dmarc=pass"),
            ("spf=pass; dkim=fail; x=y", "spf=pass dkim=fail"),
            ("none", "none"),
        ] {
            let word = says(&[&format!("mx.example.com; {value}")], "salesforce.com");
            assert_eq!(word.unwrap().results, results, "{value}");
        }
    }

    #[test]
    fn sealed_results_count_by_dkim_alone() {
        let passes = |value| sealed_pass(value, "salesforce.com");
        assert!(passes("i=1; a.example; dkim=pass header.d=salesforce.com"));
        assert!(!passes(
            "i=1; a.example; dmarc=pass header.from=salesforce.com"
        ));
        assert!(!passes("i=1; a.example; dkim=pass header.d=evil.example"));
        assert!(!passes("i=1"));
    }

    #[test]
    fn only_the_newest_header_of_our_own_receiver_counts() {
        let pass = "mx.example.com; dkim=pass header.d=salesforce.com";
        let fail = "mx.example.com; dkim=fail header.d=salesforce.com";
        let foreign = "evil.example; dkim=pass header.d=salesforce.com";
        let newest = |headers: &[&str]| says(headers, "salesforce.com").map(|word| word.passed);
        assert_eq!(newest(&[fail, pass]), Some(false));
        assert_eq!(newest(&[pass, fail]), Some(true));
        assert_eq!(newest(&[foreign]), None);
        assert_eq!(newest(&[foreign, pass]), Some(true));
        // A field for each method: what is below can only take away.
        let dmarc = "mx.example.com; dmarc=pass header.from=salesforce.com";
        let spf = "mx.example.com; spf=pass smtp.mailfrom=x@bnc.salesforce.com";
        assert_eq!(newest(&[dmarc, spf]), Some(false));
        assert_eq!(newest(&[dmarc, fail]), Some(false));
        assert_eq!(newest(&[dmarc, pass, fail]), Some(false));
        assert_eq!(newest(&[dmarc, pass, spf]), Some(true));
        assert_eq!(newest(&[dmarc, "mx.example.com; spf=pass (a"]), Some(false));
        assert_eq!(newest(&[spf, pass]), Some(false));
        // What cannot be read may be ours, with the attacker's words in it.
        for strange in [
            "mx.example.com; spf=fail (a(b@evil) smtp.mailfrom=x",
            "mx.example.com; spf=fail smtp.mailfrom=\"a\\\"@evil",
        ] {
            assert_eq!(newest(&[strange, pass]), None, "{strange}");
        }
        for name in ["Authen tication-Results", "Authentication-Results "] {
            let raw = format!("{name}: {pass}\r\nFrom: support@salesforce.com\r\n\r\n");
            let mail = Mail::parse(raw.as_bytes(), &Wordings::default());
            let ours = ["mx.example.com".to_owned()];
            let word = ask(
                mail.parsed().unwrap(),
                raw.as_bytes(),
                &ours,
                "salesforce.com",
            );
            assert_eq!(word, None, "{name}");
        }
        let raw = b"Authentication-Results: mx.example.com; spf=fail smtp.mailfrom=\xff\r\n\
            Authentication-Results: mx.example.com; dkim=pass header.d=salesforce.com\r\n\r\n";
        let mail = Mail::parse(raw, &Wordings::default());
        let ours = ["mx.example.com".to_owned()];
        assert_eq!(
            ask(mail.parsed().unwrap(), raw, &ours, "salesforce.com"),
            None
        );
    }
}
