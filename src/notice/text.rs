//! Makes characters that look alike equal, so that the labels are found
//! whatever a mail program or a translator made of them, and gives the lines
//! of a `format=flowed` text back.
//!
//! Deliberately absent: any change to letters and digits. A full-width letter
//! inside a token stays full-width, and so the token is refused.

/// U+202E turns what follows it around: a reader sees other text than stands there.
pub(super) const RIGHT_TO_LEFT_OVERRIDE: char = '\u{202e}';

/// `text` with one kind of space, colon, bracket and line end.
///
/// No-break (French sets one before a colon), narrow no-break and ideographic
/// spaces become a space; full-width colons and brackets become ASCII; CRLF
/// and CR become LF. What has no width and cannot be seen goes: joiners, soft
/// hyphens, and the marks of direction that mails in Hebrew or Arabic set around
/// a value. The override of direction stays, for it changes what is seen.
pub(super) fn normalise(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    // Most of every mail is ASCII and passes in runs.
    while let Some(at) = rest.find(|c: char| !c.is_ascii() || c == '\r' || c == '\t') {
        let (run, behind) = rest.split_at(at);
        out.push_str(run);
        let mut chars = behind.chars();
        match chars.next() {
            Some('\r') if chars.as_str().starts_with('\n') => {}
            Some('\r') => out.push('\n'),
            Some(
                '\t' | '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}',
            ) => out.push(' '),
            Some('：' | '﹕' | '︓') => out.push(':'),
            Some('（' | '﹙') => out.push('('),
            Some('）' | '﹚') => out.push(')'),
            Some(
                '\u{ad}'
                | '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{202a}'..='\u{202c}'
                | '\u{2060}'
                | '\u{2066}'..='\u{2069}'
                | '\u{feff}',
            ) => {}
            Some(other) => out.push(other),
            None => {}
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    out
}

/// Normalised, and with single spaces: how a subject or a label is compared.
pub(super) fn one_line(text: &str) -> String {
    normalise(text)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// The paragraphs of a `format=flowed` text (RFC 3676): a line that ends with a
/// space goes on in the next one, at the same depth of quotation. `delsp` says
/// that this space was added and goes (section 4.5).
pub(super) fn unflow(text: &str, delsp: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut open: Option<usize> = None;
    for line in text.lines() {
        let content = line.trim_start_matches('>');
        let depth = line.len().saturating_sub(content.len());
        // Space-stuffing (section 4.4) goes before anything else is looked at.
        let content = content.strip_prefix(' ').unwrap_or(content);
        if open != Some(depth) {
            if open.is_some() {
                out.push('\n');
            }
            out.extend(std::iter::repeat_n('>', depth));
            if depth > 0 {
                out.push(' ');
            }
        }
        let is_signature = content == "-- ";
        match content.strip_suffix(' ') {
            Some(flowed) if !is_signature => {
                out.push_str(if delsp { flowed } else { content });
                open = Some(depth);
            }
            _ => {
                out.push_str(content);
                out.push('\n');
                open = None;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn look_alike_characters_become_equal() {
        assert_eq!(
            normalise("Nom\u{202f}: a\r\nユーザ名： b（c）\rd\u{200b}e\tf\r"),
            "Nom : a\nユーザ名: b(c)\nde f\n"
        );
    }

    #[test]
    fn letters_and_digits_are_left_alone() {
        assert_eq!(normalise("Ａb１"), "Ａb１");
        assert_eq!(normalise("a\u{202e}b"), "a\u{202e}b");
    }

    #[test]
    fn flowed_lines_are_one_line_again() {
        let flowed = "one \r\ntwo\r\n  stuffed\r\n> a \r\n> b\r\n> c \r\nd\r\n-- \r\nname";
        assert_eq!(
            unflow(flowed, false),
            "one two\n stuffed\n> a b\n> c \nd\n-- \nname\n"
        );
        assert_eq!(unflow("tok \nen", true), "token\n");
    }
}
