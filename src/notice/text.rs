//! Makes characters that look alike equal, so that the labels are found
//! whatever a mail program or a translator made of them.
//!
//! Deliberately absent: any change to letters and digits. A full-width letter
//! inside a token stays full-width, and so the token is refused.

/// `text` with one kind of space, colon, bracket and line end.
///
/// No-break (French sets one before a colon), narrow no-break and ideographic
/// spaces become a space; full-width colons and brackets become ASCII; CRLF
/// and CR become LF; characters of no width, which nobody can see, go.
pub(super) fn normalise(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' => {
                if chars.peek() != Some(&'\n') {
                    out.push('\n');
                }
            }
            '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' | '\t' => {
                out.push(' ');
            }
            '：' | '﹕' | '︓' => out.push(':'),
            '（' => out.push('('),
            '）' => out.push(')'),
            '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}' | '\u{ad}' => {}
            other => out.push(other),
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
            normalise("Nom\u{202f}: a\r\nユーザ名： b（c）\rd\u{200b}e"),
            "Nom : a\nユーザ名: b(c)\nde"
        );
    }

    #[test]
    fn letters_and_digits_are_left_alone() {
        assert_eq!(normalise("Ａb１"), "Ａb１");
    }
}
