//! What styling does to the visibility of text: as much of CSS as can keep a
//! text from the eye, and no more.
//!
//! It errs on the side of "hidden": a media query is taken as fulfilled and the
//! weight of selectors is not compared. Text that is called hidden without
//! being so costs a person's look; a mail is held, nothing is lost.

use std::collections::HashMap;

use csscolorparser::Color;
use ego_tree::NodeId;
use scraper::node::Element;
use scraper::{Html, Selector};

/// How many rules of style sheets are looked at that could hide something. A
/// mail made by a newsletter's editor has a dozen.
const MAX_RULES: usize = 100;

/// A text whose colour differs from its ground by less in every channel (0 to
/// 1) is not seen.
const SAME_COLOUR: f32 = 0.12;

/// Sizes in CSS units up to this are no sizes to be read.
const TINY: f32 = 2.0;

/// How far off its place something is no longer on the screen, in CSS units.
const OFF_SCREEN: f32 = 500.0;

/// How the text in an element appears; what is inherited comes from its parent.
#[derive(Clone, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "properties of CSS, each inherited in its own way"
)]
pub(super) struct Look {
    /// Nothing inside can be seen, whatever it says of itself.
    gone: bool,
    /// `visibility` and `font-size`, which an inner element may set again.
    invisible: bool,
    tiny: bool,
    /// A reader sees other characters than stand there.
    changed: bool,
    colour: Option<Color>,
    ground: Option<Color>,
    /// Line ends in the source are line ends to the eye.
    keeps_lines: bool,
}

impl Look {
    pub(super) fn keeps_lines(&self) -> bool {
        self.keeps_lines
    }

    /// Whether text of this look is kept from the eye.
    pub(super) fn hides(&self) -> bool {
        self.gone || self.invisible || self.tiny || self.changed || self.blends()
    }

    /// The colour of the text is that of its ground. Black on white is what
    /// is where nothing is said.
    fn blends(&self) -> bool {
        if self.colour.is_none() && self.ground.is_none() {
            return false;
        }
        let black = Color::new(0.0, 0.0, 0.0, 1.0);
        let white = Color::new(1.0, 1.0, 1.0, 1.0);
        let colour = self.colour.as_ref().unwrap_or(&black);
        let ground = self.ground.as_ref().unwrap_or(&white);
        let near = |a: f32, b: f32| (a - b).abs() < SAME_COLOUR;
        colour.a < 0.1
            || (near(colour.r, ground.r) && near(colour.g, ground.g) && near(colour.b, ground.b))
    }

    /// The look inside `element`; `rules` are the declarations of style sheets
    /// that match it.
    pub(super) fn inside(&self, element: &Element, rules: Option<&String>) -> Self {
        let mut look = self.clone();
        match element.name() {
            // What a mail reader shows as something else, on a click, struck
            // out or turned around.
            "noscript" | "object" | "svg" | "math" | "iframe" | "noembed" | "noframes"
            | "audio" | "video" | "canvas" | "textarea" | "select" | "datalist" | "del" | "s"
            | "strike" => look.gone = true,
            "details" => look.gone |= element.attr("open").is_none(),
            "bdo" => look.changed = true,
            "pre" | "listing" | "xmp" | "plaintext" => look.keeps_lines = true,
            _ => {}
        }
        look.gone |= element.attr("hidden").is_some();
        if let Some(colour) = element.attr("color").or_else(|| element.attr("text")) {
            look.set_colour(colour);
        }
        if let Some(ground) = element.attr("bgcolor") {
            look.set_ground(ground);
        }
        if rules.is_some() || element.attr("style").is_some() {
            let mut box_is_empty = false;
            let mut box_is_cut = false;
            let all = rules.map(String::as_str).into_iter();
            for declarations in all.chain(element.attr("style")) {
                for (property, value) in self::declarations(declarations) {
                    box_is_empty |= is_box(&property) && size(&value).is_some_and(|n| n < TINY);
                    box_is_cut |= property.starts_with("overflow") && value != "visible";
                    look.apply(&property, &value);
                }
            }
            look.gone |= box_is_empty && box_is_cut;
        }
        look
    }

    fn apply(&mut self, property: &str, value: &str) {
        match property {
            "display" => self.gone |= value == "none",
            "visibility" => self.invisible = value != "visible",
            "mso-hide" => self.gone |= value == "all",
            "opacity" => self.gone |= size(value).is_some_and(|n| n < 0.1),
            "font-size" => self.tiny = size(value).is_some_and(|n| n < TINY && is_length(value)),
            "left" | "right" | "top" | "bottom" | "text-indent" | "margin-left" | "margin-top"
            | "margin" => self.gone |= size(value).is_some_and(|n| n < -OFF_SCREEN),
            "clip" => self.gone |= value.starts_with("rect"),
            "clip-path" => self.gone |= value != "none",
            "transform" => self.gone |= value.contains("scale(0"),
            "text-transform" => self.changed = value != "none",
            "text-decoration" | "text-decoration-line" => {
                self.changed |= value.contains("line-through");
            }
            "white-space" => {
                self.keeps_lines = value.starts_with("pre") || value == "break-spaces";
            }
            "unicode-bidi" => self.changed |= value.contains("override"),
            "text-security" | "-webkit-text-security" => self.changed |= value != "none",
            "color" | "-webkit-text-fill-color" => self.set_colour(value),
            "background" | "background-color" => self.set_ground(value),
            _ => {}
        }
    }

    fn set_colour(&mut self, value: &str) {
        if let Some(colour) = colour(value) {
            self.colour = Some(colour);
        }
    }

    fn set_ground(&mut self, value: &str) {
        // `background` may name an image beside the colour.
        let named = colour(value).or_else(|| value.split_whitespace().find_map(colour));
        if let Some(ground) = named.filter(|ground| ground.a > 0.5) {
            self.ground = Some(ground);
        }
    }
}

fn colour(value: &str) -> Option<Color> {
    csscolorparser::parse(value).ok()
}

fn is_box(property: &str) -> bool {
    matches!(property, "height" | "width" | "max-height" | "max-width")
}

/// The number at the beginning of a value, in whatever unit.
fn size(value: &str) -> Option<f32> {
    let end = value
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+')))
        .unwrap_or(value.len());
    value.get(..end)?.parse().ok()
}

/// Whether a size is in a unit that is small: `1em` is a size to be read.
fn is_length(value: &str) -> bool {
    let unit = value.trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-'));
    match unit {
        "em" | "rem" | "ex" | "ch" | "vw" | "vh" => size(value).is_some_and(|n| n < 0.1),
        "in" | "cm" => size(value).is_some_and(|n| n < 0.05),
        _ => true,
    }
}

/// `property: value` pairs in lower case, without comments and `!important`.
fn declarations(source: &str) -> impl Iterator<Item = (String, String)> {
    without_comments(source)
        .to_ascii_lowercase()
        .split(';')
        .filter_map(|declaration| declaration.split_once(':'))
        .map(|(property, value)| {
            let value = value.trim();
            let value = value.strip_suffix("!important").unwrap_or(value).trim();
            (property.trim().to_owned(), value.to_owned())
        })
        .collect::<Vec<_>>()
        .into_iter()
}

fn without_comments(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, comment)) = rest.split_once("/*") {
        out.push_str(before);
        rest = comment.split_once("*/").map_or("", |(_, behind)| behind);
    }
    out.push_str(rest);
    out
}

/// The declarations of all style sheets by the elements that they match.
#[derive(Default)]
pub(super) struct Sheets {
    matched: HashMap<NodeId, String>,
    /// There are rules that are not looked at, for their number or their kind.
    pub(super) too_many: bool,
}

impl Sheets {
    pub(super) fn of(tree: &Html) -> Self {
        let mut sheets = Self::default();
        let Ok(style) = Selector::parse("style") else {
            return sheets;
        };
        let mut seen = 0_usize;
        for sheet in tree.select(&style) {
            let source = without_comments(&sheet.text().collect::<String>());
            for (selectors, declarations) in rules(&source) {
                if !could_hide(declarations) {
                    continue;
                }
                seen = seen.saturating_add(1);
                if seen > MAX_RULES {
                    sheets.too_many = true;
                    return sheets;
                }
                // `:has()` and its like can take for ever.
                if selectors.contains('(') {
                    sheets.too_many = true;
                } else if let Ok(selector) = Selector::parse(selectors) {
                    for element in tree.select(&selector) {
                        let all = sheets.matched.entry(element.id()).or_default();
                        all.push_str(declarations);
                        all.push(';');
                    }
                }
            }
        }
        sheets
    }

    pub(super) fn at(&self, id: NodeId) -> Option<&String> {
        self.matched.get(&id)
    }
}

/// The rules of a style sheet, those inside of `@media` as if they stood alone.
fn rules(source: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = source;
    std::iter::from_fn(move || {
        loop {
            let (prelude, behind) = rest.split_once('{')?;
            // An at-rule without a block, and the end of a block before.
            let prelude = prelude.rsplit([';', '}']).next().unwrap_or_default().trim();
            rest = behind;
            let opens_a_block = prelude.starts_with('@') && !prelude.starts_with("@font-face");
            if !opens_a_block {
                let (declarations, after) = behind.split_once('}').unwrap_or((behind, ""));
                rest = after;
                return Some((prelude, declarations));
            }
        }
    })
}

fn could_hide(declarations: &str) -> bool {
    let mut look = Look::default();
    let mut relevant = false;
    for (property, value) in self::declarations(declarations) {
        look.apply(&property, &value);
        relevant |= is_box(&property) || property.starts_with("overflow");
    }
    relevant || look.hides() || look.colour.is_some() || look.ground.is_some()
}
