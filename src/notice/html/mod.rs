//! What a person would see of an HTML part, and apart from it what is hidden.
//!
//! An HTML library builds the tree as a browser would. Text in `<style>`,
//! `<script>`, `<template>`, comments and attributes is neither seen nor
//! hidden: it is no text. Text that styling keeps from the eye is collected
//! apart, because a mail that hides a token is held (invariant 3).

mod style;

use ego_tree::iter::Edge;
use scraper::{Html, Node};
use style::{Gap, Look, Sheets};

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
                    touches_hidden &= look.gap() == Gap::None && is_inline(element.name());
                    set_apart(&mut seen.visible, look.gap());
                    looks.push(look);
                    if let Some(target) = element.attr("href") {
                        seen.links.push_str(target);
                        seen.links.push('\n');
                    }
                    separate(&mut seen.visible, element.name());
                }
                // The library keeps the tags in there as text.
                Node::Text(text) if textless == 0 && is_raw(node.parent()) => {
                    if with_conditionals {
                        push_hidden(&mut seen.hidden, text);
                    }
                }
                Node::Text(text) if textless == 0 => {
                    let look = looks.last();
                    let out = if look.is_some_and(Look::hides) {
                        if !text.trim().is_empty() {
                            if begins_within(text) && ends_within(&seen.visible) {
                                seen.visible.push(HIDDEN_WITHIN);
                            }
                            touches_hidden = ends_within(text);
                        }
                        &mut seen.hidden
                    } else {
                        let is_marked = seen.visible.ends_with(HIDDEN_WITHIN);
                        if touches_hidden && begins_within(text) && !is_marked {
                            seen.visible.push(HIDDEN_WITHIN);
                        }
                        touches_hidden &= text.is_empty();
                        &mut seen.visible
                    };
                    if look.is_some_and(Look::keeps_lines) {
                        out.push_str(text);
                    } else {
                        push_collapsed(out, text);
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
                    if look.hides() {
                        seen.hidden.push('\n');
                    }
                    touches_hidden &= look.gap() == Gap::None && is_inline(element.name());
                    set_apart(&mut seen.visible, look.gap());
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
const HIDDEN_WITHIN: char = '\u{1}';

/// Whether the text so far ends within a word.
fn ends_within(visible: &str) -> bool {
    visible
        .chars()
        .next_back()
        .is_some_and(|c| !c.is_whitespace())
}

/// Whether a text begins within a word.
fn begins_within(text: &str) -> bool {
    text.chars().next().is_some_and(|c| !c.is_whitespace())
}

fn set_apart(out: &mut String, gap: Gap) {
    match gap {
        Gap::None => {}
        Gap::Blank if ends_within(out) => out.push(' '),
        Gap::Blank => {}
        Gap::Line => end_line(out),
    }
}

fn end_line(out: &mut String) {
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
}

/// What stands in the line with the text around it, and nothing else. Names with
/// a colon are those of office programs.
fn is_inline(name: &str) -> bool {
    const INLINE: [&str; 42] = [
        "a", "abbr", "acronym", "b", "base", "bdi", "bdo", "big", "blink", "cite", "code", "data",
        "del", "dfn", "em", "font", "head", "html", "i", "ins", "kbd", "label", "link", "mark",
        "meta", "nobr", "q", "s", "samp", "script", "small", "span", "strike", "strong", "style",
        "template", "time", "title", "tt", "u", "var", "wbr",
    ];
    INLINE.contains(&name) || name.contains(':')
}

/// Sets the line end or the gap that a browser would show around an element.
fn separate(out: &mut String, name: &str) {
    match name {
        name if is_inline(name) => {}
        "td" | "th" | "img" | "sub" | "sup" | "ruby" | "rt" | "rp" | "input" | "button" => {
            out.push(' ');
        }
        "br" if !out.is_empty() && !out.ends_with("\n\n") => out.push('\n'),
        "br" => {}
        // These have a margin: what stands below begins anew.
        "p" | "table" | "ul" | "ol" | "dl" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6"
        | "blockquote" | "pre" | "hr" => {
            while !out.is_empty() && !out.ends_with("\n\n") {
                out.push('\n');
            }
        }
        _ => end_line(out),
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
            "d\\69splay:n\\6fne",
            "unicode-bidi:bidi-override;direction:rtl",
        ] {
            let (hidden, visible) = parted(&format!("a<div style='{style}'>x<b>y</b></div>b"));
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
            "<style>.k{display:none} .k{display:block}</style><p class=k>x</p>",
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
            "<x-unknown>b</x-unknown>",
        ] {
            assert_eq!(parted(&format!("a{behind}")).1, "a b", "{behind}");
        }
        assert_eq!(parted("<b>a</b><i>b<o:p></o:p></i><wbr>c").1, "abc");
    }

    #[test]
    fn what_is_hidden_within_a_word_is_not_passed_over() {
        for hidden in [
            "<s>x</s>",
            "<i hidden>x</i>",
            "<b style='left:-999px'>x</b>",
        ] {
            assert_eq!(parted(&format!("a{hidden}b")).1, "a\u{1}b", "{hidden}");
            assert_eq!(parted(&format!("a {hidden}b")).1, "a \u{1}b", "{hidden}");
            assert_eq!(parted(&format!("a{hidden} b")).1, "a\u{1} b", "{hidden}");
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
