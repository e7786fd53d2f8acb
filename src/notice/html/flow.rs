//! Where words and lines end: what a browser sets between elements.

use super::style::{Gap, Look};

/// What a person sees between an element and the text beside it.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Border {
    /// Nothing: the words run together.
    None,
    /// A gap within the line, unless there is one.
    Blank,
    /// The gap beside a cell, a picture or a small figure.
    Cell,
    /// The end of the line.
    Line,
    /// The end of the line and a margin: what stands below begins anew.
    Margin,
    /// `<br>`, which ends a line also where that is empty.
    Break,
}

impl Border {
    /// Around an element of this name and look.
    pub(super) fn of(name: &str, look: &Look) -> Self {
        match (look.gap(), name) {
            (_, "br") => Self::Break,
            (Gap::None, _) => Self::None,
            (Gap::Blank, _) => Self::Blank,
            (
                Gap::Unsaid | Gap::Line,
                "p" | "table" | "ul" | "ol" | "dl" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6"
                | "blockquote" | "pre" | "hr",
            ) => Self::Margin,
            (Gap::Line, _) => Self::Line,
            (Gap::Unsaid, name) => by_name(name),
        }
    }

    /// Sets it behind what is visible so far.
    pub(super) fn set(self, out: &mut String) {
        match self {
            Self::Blank if ends_within(out) => out.push(' '),
            Self::None | Self::Blank => {}
            Self::Cell => out.push(' '),
            Self::Line if !out.is_empty() && !out.ends_with('\n') => out.push('\n'),
            Self::Break if !out.is_empty() && !out.ends_with("\n\n") => out.push('\n'),
            Self::Line | Self::Break => {}
            Self::Margin => {
                while !out.is_empty() && !out.ends_with("\n\n") {
                    out.push('\n');
                }
            }
        }
    }
}

/// What an element is of which no styling says anything. Elements that nobody
/// knows are shown in the line.
fn by_name(name: &str) -> Border {
    match name {
        "td" | "th" | "img" | "sub" | "sup" | "ruby" | "rt" | "rp" | "input" | "button" => {
            Border::Cell
        }
        "address" | "article" | "aside" | "body" | "caption" | "center" | "dd" | "details"
        | "dialog" | "dir" | "div" | "dt" | "fieldset" | "figcaption" | "figure" | "footer"
        | "form" | "frameset" | "header" | "hgroup" | "legend" | "li" | "listing" | "main"
        | "menu" | "nav" | "optgroup" | "option" | "plaintext" | "search" | "section"
        | "summary" | "tbody" | "tfoot" | "thead" | "tr" | "xmp" => Border::Line,
        _ => Border::None,
    }
}

/// Whether the text so far ends within a word.
pub(super) fn ends_within(visible: &str) -> bool {
    visible
        .chars()
        .next_back()
        .is_some_and(|c| !c.is_whitespace())
}

/// Whether a text begins within a word.
pub(super) fn begins_within(text: &str) -> bool {
    text.chars().next().is_some_and(|c| !c.is_whitespace())
}
