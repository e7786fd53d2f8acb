//! What is asked for, in IMAP's words.

use jiff::civil;

use super::Wanted;

/// How a server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// RFC 3501, section 6.4.4.
    Imap,
    /// Gmail's own: one look-up in its index instead of one a key.
    Gmail,
}

impl Dialect {
    /// The dialects to try, the best first.
    pub(super) fn of(is_gmail: bool) -> &'static [Self] {
        if is_gmail {
            &[Self::Gmail, Self::Imap]
        } else {
            &[Self::Imap]
        }
    }
}

/// `SINCE 1-Jan-2026 OR SUBJECT "…" OR FROM "…" FROM "…"`, or the same as
/// Gmail has it. `also` is one more sender.
pub(super) fn keys(
    dialect: Dialect,
    wanted: &Wanted,
    also: Option<&str>,
    since: Option<civil::Date>,
) -> String {
    let since = since.map_or_else(String::new, |day| format!("SINCE {} ", imap_day(day)));
    let plain = |word: &str| -> String { word.chars().filter(|c| !"\"\\".contains(*c)).collect() };
    let from = also
        .into_iter()
        .chain(wanted.from.iter().map(String::as_str));
    // Others take a charset and literals; they are found by their senders.
    let subjects = wanted.subjects.iter().filter(|subject| subject.is_ascii());
    match dialect {
        Dialect::Imap => {
            // The probe stands innermost: who finds it has followed every OR.
            let keys = from
                .map(|sender| format!("FROM \"{}\"", plain(sender)))
                .chain(subjects.map(|subject| format!("SUBJECT \"{}\"", plain(subject))))
                .reduce(|inner, key| format!("OR {key} {inner}"));
            format!("{since}{}", keys.unwrap_or_default())
        }
        Dialect::Gmail => {
            let terms: Vec<String> = subjects
                .map(|subject| format!("subject:({})", plain(subject)))
                .chain(from.map(|sender| format!("from:({})", plain(sender))))
                .collect();
            format!("{since}X-GM-RAW \"{}\"", terms.join(" OR "))
        }
    }
}

/// An address that stands in the fields of a mail, in plain letters.
pub(super) fn address_in(fields: &[u8]) -> Option<String> {
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"._+-".contains(b);
    let from = fields
        .split(|b| *b == b'\n')
        .skip_while(|line| {
            !line
                .get(..5)
                .is_some_and(|name| name.eq_ignore_ascii_case(b"from:"))
        })
        .take(2)
        .collect::<Vec<_>>()
        .concat();
    let at = from.iter().position(|b| *b == b'@')?;
    let (local, domain) = from.split_at(at);
    let local = local.iter().rev().take_while(|b| is_plain(b)).count();
    let length = domain.iter().skip(1).take_while(|b| is_plain(b)).count();
    let range = at.saturating_sub(local)..at.saturating_add(length).saturating_add(1);
    let address = String::from_utf8(from.get(range)?.to_vec()).ok()?;
    (local > 0 && length > 3).then_some(address)
}

fn imap_day(day: civil::Date) -> String {
    day.strftime("%-d-%b-%Y").to_string()
}

/// `1,2,3,7` as `1:3,7` (RFC 3501, section 9, `sequence-set`).
pub(super) fn set(uids: &[u32]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &uid in uids {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(uid) => *last = uid,
            _ => ranges.push((uid, uid)),
        }
    }
    ranges
        .iter()
        .map(|(first, last)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}:{last}")
            }
        })
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_written_as_ranges() {
        assert_eq!(set(&[1, 2, 3, 7, 9, 10]), "1:3,7,9:10");
        assert_eq!(set(&[u32::MAX]), "4294967295");
    }

    #[test]
    fn search_keys_are_one_alternative_and_a_day() {
        let wanted = Wanted {
            from: vec!["a@b.c".into(), "d@e.f".into()],
            subjects: vec!["security token".into(), "セキュリティ".into()],
            fields: Box::new(|_| true),
            max_size: 0,
        };
        let day = civil::date(2026, 1, 5);
        assert_eq!(
            keys(Dialect::Imap, &wanted, None, Some(day)),
            "SINCE 5-Jan-2026 OR SUBJECT \"security token\" OR FROM \"d@e.f\" FROM \"a@b.c\""
        );
        assert_eq!(
            keys(Dialect::Imap, &wanted, Some("x@y.z"), None),
            "OR SUBJECT \"security token\" OR FROM \"d@e.f\" OR FROM \"a@b.c\" FROM \"x@y.z\""
        );
        assert_eq!(
            keys(Dialect::Gmail, &wanted, Some("x@y.z"), None),
            "X-GM-RAW \"subject:(security token) OR from:(x@y.z) OR from:(a@b.c) OR from:(d@e.f)\""
        );
    }

    #[test]
    fn an_address_is_found_where_it_is_plain() {
        for (fields, address) in [
            (
                "From: \"A, B\" <a.b@example.com>\r\nSubject: x@y.example\r\n",
                Some("a.b@example.com"),
            ),
            (
                "Subject: x\r\nFROM:\r\n =?utf-8?q?a?= <c@example.com>\r\n",
                Some("c@example.com"),
            ),
            ("Subject: x@y.example\r\n\r\n", None),
            ("From: nobody\r\n", None),
            ("From: @example.com\r\n", None),
        ] {
            assert_eq!(
                address_in(fields.as_bytes()).as_deref(),
                address,
                "{fields}"
            );
        }
    }
}
