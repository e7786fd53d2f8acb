//! What is asked for, in IMAP's words.

use jiff::civil;

use super::look::Wanted;

/// `SINCE 1-Jan-2026 OR SUBJECT "…" OR FROM "…" FROM "…"`
pub(super) fn keys(wanted: &Wanted, since: Option<civil::Date>) -> String {
    use std::fmt::Write as _;

    let mut keys = String::new();
    if let Some(day) = since {
        keys.push_str("SINCE ");
        keys.push_str(&imap_day(day));
        keys.push(' ');
    }
    let one_of = std::iter::once(("SUBJECT", &wanted.subject))
        .chain(wanted.from.iter().map(|from| ("FROM", from)));
    let mut left = wanted.from.len();
    for (key, word) in one_of {
        let or = if left > 0 { "OR " } else { "" };
        left = left.saturating_sub(1);
        let word: String = word.chars().filter(|c| !"\"\\".contains(*c)).collect();
        // Writing to a String cannot fail.
        write!(keys, "{or}{key} \"{word}\" ").unwrap_or_default();
    }
    keys.trim_end().to_owned()
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
            subject: "security token".into(),
            fields: Box::new(|_| true),
            max_size: 0,
        };
        let day = civil::date(2026, 1, 5);
        assert_eq!(
            keys(&wanted, Some(day)),
            "SINCE 5-Jan-2026 OR SUBJECT \"security token\" OR FROM \"a@b.c\" FROM \"d@e.f\""
        );
    }
}
