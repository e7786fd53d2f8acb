//! What a person would see of an HTML part, and apart from it what is hidden.
//!
//! An HTML library builds the tree as a browser would. Text in `<style>`,
//! `<script>`, `<template>`, comments and attributes is neither seen nor
//! hidden: it is no text. Text that styling keeps from the eye is collected
//! apart, because a mail that hides a token is held (invariant 3).

mod flow;
mod style;

use ego_tree::iter::Edge;
use flow::{Border, begins_within, ends_within};
use scraper::{Html, Node};
use style::{Look, Sheets};

use super::text;

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
    /// There is more styling than is looked at.
    pub(super) too_complex: bool,
}

/// Renders an HTML part as text.
pub(super) fn render(source: &str) -> Seen {
    walk(source, true)
}

/// `with_conditionals`: comments that one mail program shows are looked into.
/// They do not nest, so what is inside of one is walked without.
fn walk(source: &str, with_conditionals: bool) -> Seen {
    let tree = Html::parse_document(source);
    let sheets = Sheets::of(&tree);
    let mut seen = Seen {
        too_complex: sheets.too_many,
        ..Seen::default()
    };
    // The walk is a loop and not a recursion, so deep nesting costs no stack.
    let mut looks = vec![Look::default()];
    let mut textless = 0_usize;
    // The last text was hidden, and no gap has come since.
    let mut touches_hidden = false;
    for edge in tree.tree.root().traverse() {
        match edge {
            Edge::Open(node) => match node.value() {
                Node::Element(element) => {
                    if is_textless(element.name()) {
                        textless = textless.saturating_add(1);
                    }
                    let around = looks.last().cloned().unwrap_or_default();
                    let look = around.inside(element, sheets.at(node.id()));
                    if !look.hides() {
                        let border = Border::of(element.name(), &look);
                        touches_hidden &= border == Border::None;
                        border.set(&mut seen.visible);
                    }
                    looks.push(look);
                    if let Some(target) = element.attr("href") {
                        seen.links.push_str(target);
                        seen.links.push('\n');
                    }
                }
                // The library keeps the tags in there as text.
                Node::Text(source) if textless == 0 && is_raw(node.parent()) => {
                    if with_conditionals {
                        push_hidden(&mut seen.hidden, source);
                    }
                }
                Node::Text(source) if textless == 0 => {
                    let look = looks.last();
                    let out = if look.is_some_and(Look::hides) {
                        if !text::normalise(source).trim().is_empty() {
                            if begins_within(source)
                                && ends_within(&seen.visible)
                                && !seen.visible.ends_with(HIDDEN_WITHIN)
                            {
                                seen.visible.push(HIDDEN_WITHIN);
                            }
                            touches_hidden = ends_within(source);
                        }
                        &mut seen.hidden
                    } else {
                        let is_marked = seen.visible.ends_with([HIDDEN_WITHIN, '\n']);
                        if touches_hidden
                            && begins_within(source)
                            && !is_marked
                            && !seen.visible.is_empty()
                        {
                            seen.visible.push(HIDDEN_WITHIN);
                        }
                        touches_hidden &= source.is_empty();
                        &mut seen.visible
                    };
                    if look.is_some_and(Look::keeps_lines) {
                        out.push_str(source);
                    } else {
                        push_collapsed(out, source);
                    }
                }
                // One mail program shows these comments, all others do not.
                Node::Comment(comment) if with_conditionals => {
                    if let Some(shown) = conditional(comment) {
                        push_hidden(&mut seen.hidden, shown);
                    }
                }
                Node::Text(_)
                | Node::Comment(_)
                | Node::Document
                | Node::Fragment
                | Node::Doctype(_)
                | Node::ProcessingInstruction(_) => {}
            },
            Edge::Close(node) => {
                if let Node::Element(element) = node.value() {
                    if is_textless(element.name()) {
                        textless = textless.saturating_sub(1);
                    }
                    let look = looks.pop().unwrap_or_default();
                    let border = Border::of(element.name(), &look);
                    if look.hides() {
                        seen.hidden.push('\n');
                    } else if border != Border::Break {
                        // A line break has a beginning and an end, and is one.
                        touches_hidden &= border == Border::None;
                        border.set(&mut seen.visible);
                    }
                }
            }
        }
    }
    seen
}

fn is_textless(name: &str) -> bool {
    matches!(name, "head" | "style" | "script" | "template" | "title")
}

/// Whether the text in an element is HTML that some programs show, and others not.
fn is_raw(element: Option<ego_tree::NodeRef<'_, Node>>) -> bool {
    let name = element.and_then(|node| node.value().as_element().map(scraper::node::Element::name));
    matches!(name, Some("noscript" | "iframe" | "noembed" | "noframes"))
}

/// Appends what a program that shows this HTML would show.
fn push_hidden(hidden: &mut String, source: &str) {
    let inside = walk(source, false);
    hidden.push_str(&inside.visible);
    hidden.push_str(&inside.hidden);
    hidden.push('\n');
}

/// What Outlook shows of `<!--[if mso]> … <![endif]-->`.
fn conditional(comment: &str) -> Option<&str> {
    let inside = comment.trim_start().strip_prefix("[if")?;
    let (_, shown) = inside.split_once("]>")?;
    Some(
        shown
            .split_once("<![endif]")
            .map_or(shown, |(shown, _)| shown),
    )
}

/// Stands where something hidden interrupts a word: no username and no token has
/// it, so what was cut out of one is not passed over.
pub(super) const HIDDEN_WITHIN: char = '\u{2}';

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

    /// What the reader of `source` does not see, and what he sees.
    fn parted(source: &str) -> (String, String) {
        let seen = render(source);
        let words = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
        (words(seen.hidden), words(seen.visible))
    }

    #[test]
    fn styling_that_hides_is_told_apart() {
        for style in [
            "display: none",
            "DISPLAY:none !important",
            "dis/**/play:/* */none",
            "visibility:hidden",
            "font-size:0px",
            "font-size: 1px",
            "color:#FFF",
            "color: rgb(250, 250, 250)",
            "color:#123456;background:#123456",
            "background-color:black",
            "color:transparent",
            "opacity:0.0",
            "max-height:0;overflow:hidden",
            "position:absolute;left:-9999px",
            "text-indent:-1000em",
            "text-transform:uppercase",
            "font-variant:all-small-caps",
            "font: 0/0 a",
            "transform:scaleX(0)",
            "display:none ! important",
            "display:none;display:block",
            "font:400 0px x",
            "font-size:0;font-size:foo",
            "opacity:1%",
            "transform:translateX(-9999px)",
            "letter-spacing:-1em",
            "text-decoration:line-through;text-transform:none",
            "d\\69splay:n\\6fne",
            "unicode-bidi:bidi-override;direction:rtl",
        ] {
            let (hidden, visible) = parted(&format!("a <div style='{style}'>x<b>y</b></div> b"));
            assert_eq!(
                (hidden.as_str(), visible.as_str()),
                ("xy", "a b"),
                "{style}"
            );
        }
        for hiding in [
            "<div hidden>x</div>",
            "<font color=white>x</font>",
            "<table bgcolor='#003366'><tr><td><font color='#003366'>x</font></td></tr></table>",
            "<s>x</s>",
            "<del>x</del>",
            "<bdo dir=rtl>x</bdo>",
            "<noscript><b>x</b></noscript>",
            "<details><p>x</p></details>",
            "<!--[if mso]><p>x</p><![endif]-->",
            "<style>.k{display:none}</style><p class=k>x</p>",
            "<style>@media screen { #k , b { color : white } }</style><p id=k>x</p>",
            "<style>/* } */ p span{font-size:0}</style><p><span>x</span></p>",
            "<style><!-- .k{display:none} --></style><p class=k>x</p>",
            "<dialog>x</dialog>",
        ] {
            let (hidden, visible) = parted(&format!("a {hiding} b"));
            assert_eq!(
                (hidden.as_str(), visible.as_str()),
                ("x", "a b"),
                "{hiding}"
            );
        }
    }

    #[test]
    fn styling_that_does_not_hide_is_left_alone() {
        for shown in [
            // What makers of newsletters write around every column.
            "<td style='font-size:0px'><div style='font-size:13px'>x</div></td>",
            "<div style='background:#036;color:#fff'>x</div>",
            "<div style='background:#036 url(a.png)'><b style='color:white'>x</b></div>",
            "<div style='visibility:hidden'><b style='visibility:visible'>x</b></div>",
            "<div style='height:0'>x</div>",
            "<div style='font-size:1em;opacity:1;left:-5px'>x</div>",
            "<details open>x</details>",
            "<td style='width:1%;overflow:hidden'>x</td>",
            "<style>a:visited{color:white}</style><p>x</p>",
            "<style>@font-face{font-family:a}.j{display:none}</style><p class=k>x</p>",
        ] {
            let (hidden, visible) = parted(&format!("a {shown} b"));
            assert_eq!(
                (hidden.as_str(), visible.as_str()),
                ("", "a x b"),
                "{shown}"
            );
        }
    }

    #[test]
    fn a_word_ends_where_a_person_sees_its_end() {
        for behind in [
            "<button>b</button>",
            "<img src=x>b",
            "<span style='display:block'>b</span>",
            "<span style='margin-left:2em'>b</span>",
            "<address>b</address>",
            "<form>b</form>",
            "<sup>b</sup>",
        ] {
            assert_eq!(parted(&format!("a{behind}")).1, "a b", "{behind}");
        }
        for within in [
            "<i>b<o:p></o:p></i><wbr>",
            "<br style='display:none'>b",
            "<span style='display:none'><br></span>b",
            "<div hidden></div>b",
            "<div style='display:inline'>b</div>",
            "<x-unknown>b</x-unknown>",
        ] {
            assert_eq!(parted(&format!("<b>a</b>{within}c")).1, "abc", "{within}");
        }
    }

    #[test]
    fn what_is_hidden_within_a_word_is_not_passed_over() {
        for hidden in [
            "<s>x</s>",
            "<i hidden>x</i>",
            "<b style='left:-999px'>x</b>",
        ] {
            assert_eq!(parted(&format!("a{hidden}b")).1, "a\u{2}b", "{hidden}");
            assert_eq!(parted(&format!("a {hidden}b")).1, "a \u{2}b", "{hidden}");
            assert_eq!(parted(&format!("a{hidden} b")).1, "a\u{2} b", "{hidden}");
            assert_eq!(parted(&format!("a {hidden} b")).1, "a b", "{hidden}");
            assert_eq!(parted(&format!("<p>{hidden}</p>b")).1, "b", "{hidden}");
        }
    }

    #[test]
    fn a_rule_that_hides_and_cannot_be_followed_is_not_passed_over() {
        for sheet in [
            ".k,.k::before{display:none}",
            ".k:focus-within{display:none}",
            "p:not(.a){visibility:hidden}",
        ] {
            assert!(
                render(&format!("<style>{sheet}</style>")).too_complex,
                "{sheet}"
            );
        }
        let striped = "<style>tr:nth-child(even){background:#eee}</style>";
        assert!(!render(striped).too_complex);
    }

    #[test]
    fn lines_are_kept_where_a_browser_keeps_them() {
        for source in [
            "<pre>a\nb</pre>",
            "<p style='white-space: pre-wrap'>a\nb</p>",
            "<style>.m{white-space:pre-wrap}</style><div class=m>a\nb</div>",
            "<div>a\n  <br>\n b</div>",
        ] {
            let seen = render(source).visible;
            let lines: Vec<_> = seen
                .lines()
                .map(str::trim)
                .filter(|l| !l.is_empty())
                .collect();
            assert_eq!(lines, ["a", "b"], "{source}");
        }
    }

    #[test]
    fn comments_inside_of_comments_do_not_overflow_the_stack() {
        let seen = render(&"<!--[if a]>".repeat(100_000));
        assert_eq!(seen.visible.trim(), "");
    }

    #[test]
    fn twenty_thousand_nested_elements_do_not_overflow_the_stack() {
        let seen = render(&format!("{}x", "<i>".repeat(20_000)));
        assert_eq!(seen.visible.trim(), "x");
    }
}
