//! What a person would see of an HTML part, and apart from it what is hidden.
//!
//! An HTML library builds the tree as a browser would. Text in `<style>`,
//! `<script>`, `<template>`, comments and attributes is neither seen nor
//! hidden: it is no text. Text that styling keeps from the eye is collected
//! apart, because a mail that hides a token is held (invariant 3).

use ego_tree::iter::Edge;
use scraper::{Html, Node};

/// The text of an HTML part.
#[derive(Default)]
pub(super) struct Seen {
    /// What a person would see, with line ends where blocks end.
    pub(super) visible: String,
    /// What styling hides.
    pub(super) hidden: String,
    /// The targets of links, one a line: not seen, and needed for one only
    /// question, whether the help page on tokens is linked.
    pub(super) links: String,
}

/// Renders an HTML part as text.
pub(super) fn render(source: &str) -> Seen {
    let tree = Html::parse_document(source);
    let mut seen = Seen::default();
    // Depths at which a hidden or a textless element was entered; the walk is
    // a loop and not a recursion, so deep nesting costs no stack.
    let (mut hidden, mut textless) = (0_usize, 0_usize);
    for edge in tree.tree.root().traverse() {
        match edge {
            Edge::Open(node) => {
                if let Node::Element(element) = node.value() {
                    if is_textless(element.name()) {
                        textless = textless.saturating_add(1);
                    }
                    if is_hidden(element) {
                        hidden = hidden.saturating_add(1);
                    }
                    if let Some(target) = element.attr("href") {
                        seen.links.push_str(target);
                        seen.links.push('\n');
                    }
                    separate(&mut seen.visible, element.name());
                }
                if let Node::Text(text) = node.value()
                    && textless == 0
                {
                    push_collapsed(
                        if hidden == 0 {
                            &mut seen.visible
                        } else {
                            &mut seen.hidden
                        },
                        text,
                    );
                }
            }
            Edge::Close(node) => {
                if let Node::Element(element) = node.value() {
                    if is_textless(element.name()) {
                        textless = textless.saturating_sub(1);
                    }
                    if is_hidden(element) {
                        hidden = hidden.saturating_sub(1);
                        seen.hidden.push('\n');
                    }
                    // A line break has a beginning and an end, and is one.
                    if element.name() != "br" {
                        separate(&mut seen.visible, element.name());
                    }
                }
            }
        }
    }
    seen
}

fn is_textless(name: &str) -> bool {
    matches!(
        name,
        "head" | "style" | "script" | "template" | "title" | "noscript" | "svg" | "math" | "object"
    )
}

/// Whether the element's own attributes keep its text from the eye.
fn is_hidden(element: &scraper::node::Element) -> bool {
    if element.attr("hidden").is_some() {
        return true;
    }
    let Some(style) = element.attr("style") else {
        return false;
    };
    let style: String = style
        .to_ascii_lowercase()
        .chars()
        .filter(|c| !c.is_whitespace())
        .collect();
    style
        .split(';')
        .filter_map(|declaration| declaration.split_once(':'))
        .any(|(property, value)| {
            let value = value.trim_end_matches("!important");
            match property {
                "display" => value == "none",
                "visibility" => value == "hidden" || value == "collapse",
                "mso-hide" => value == "all",
                "font-size" | "max-height" | "max-width" | "height" | "width" | "opacity" => {
                    is_zero(value)
                }
                "color" => matches!(
                    value,
                    "#fff" | "#ffffff" | "white" | "transparent" | "rgb(255,255,255)"
                ),
                _ => false,
            }
        })
}

/// `0`, `0px`, `0.0em`: a size of nothing, or of less than one unit.
fn is_zero(value: &str) -> bool {
    let number: String = value
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == '.')
        .collect();
    number.parse::<f32>().is_ok_and(|size| size <= 0.1)
}

/// Sets the line end or the gap that a browser would show around an element.
fn separate(out: &mut String, name: &str) {
    match name {
        "td" | "th" => out.push(' '),
        "div" | "tr" | "li" | "dt" | "dd" | "section" | "article" | "header" | "footer"
        | "center" | "body" | "tbody"
            if !out.is_empty() && !out.ends_with('\n') =>
        {
            out.push('\n');
        }
        "br" if !out.is_empty() && !out.ends_with("\n\n") => out.push('\n'),
        // These have a margin: what stands below begins anew.
        "p" | "table" | "ul" | "ol" | "dl" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6"
        | "blockquote" | "pre" | "hr" => {
            while !out.is_empty() && !out.ends_with("\n\n") {
                out.push('\n');
            }
        }
        _ => {}
    }
}

/// Appends text as HTML shows it: runs of ASCII white space are one space.
fn push_collapsed(out: &mut String, text: &str) {
    for c in text.chars() {
        if c.is_ascii_whitespace() {
            if !out.ends_with([' ', '\n']) && !out.is_empty() {
                out.push(' ');
            }
        } else {
            out.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_end_lines_and_cells_leave_gaps() {
        let seen = render("<table><tr><td>Username:</td><td>a@b.c</td></tr></table><p>x<br>y");
        assert_eq!(seen.visible.trim(), "Username:  a@b.c \n\nx\ny");
    }

    #[test]
    fn what_is_no_text_is_not_seen() {
        let seen = render(
            "<head><title>t</title><style>s</style></head><!-- c --><script>j</script>\
             <template>k</template><b title='q'>v</b>",
        );
        assert_eq!(seen.visible.trim(), "v");
        assert_eq!(seen.hidden.trim(), "");
    }

    #[test]
    fn styling_that_hides_is_told_apart() {
        for style in [
            "display: none",
            "DISPLAY:none !important",
            "visibility:hidden",
            "font-size:0px",
            "color:#FFF",
        ] {
            let seen = render(&format!("a<div style='{style}'>secret<b>er</b></div>b"));
            assert_eq!(seen.visible.split_whitespace().collect::<String>(), "ab");
            assert_eq!(seen.hidden.trim(), "secreter", "{style}");
        }
    }

    #[test]
    fn twenty_thousand_nested_elements_do_not_overflow_the_stack() {
        let seen = render(&format!("{}x", "<i>".repeat(20_000)));
        assert_eq!(seen.visible.trim(), "x");
    }
}
