//! What styling does to the visibility of text: as much of CSS as can keep a
//! text from the eye, and no more.
//!
//! Where it is not sure it says "hidden": a media query is taken as fulfilled, the
//! weight of selectors is not compared, and what is hidden once is not shown
//! again by the same element. Text that is called hidden without being so costs a
//! person's look; a mail is held, nothing is lost. Deliberately absent: layout.
//! What `float`, `order` or `::before` move or add is not seen.

use std::collections::HashMap;
use std::rc::Rc;

use csscolorparser::Color;
use ego_tree::NodeId;
use scraper::node::Element;
use scraper::{Html, Selector};

/// How many rules of style sheets are looked at that could hide something. A
/// mail made by a newsletter's editor has a dozen.
const MAX_RULES: usize = 100;

/// How many declarations of a rule are looked at, and how long its selectors
/// may be, in octets.
const MAX_DECLARATIONS: usize = 500;
const MAX_SELECTOR: usize = 200;

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
    /// A reader sees other characters than stand there, or in another case.
    changed: bool,
    recased: bool,
    colour: Option<Color>,
    ground: Option<Color>,
    /// Line ends in the source are line ends to the eye.
    keeps_lines: bool,
    /// What the eye sees between this element and the text beside it. Not
    /// inherited.
    gap: Gap,
}

/// How an element stands apart from the text beside it.
#[derive(Clone, Copy, Default, PartialEq)]
pub(super) enum Gap {
    /// Nothing is said, so it is what its name makes it.
    #[default]
    Unsaid,
    None,
    Blank,
    Line,
}

/// What an element's own declarations make of its box: the last size counts, and
/// `display: none` whenever it stands there.
#[derive(Default)]
struct OwnBox {
    gone: bool,
    empty: [bool; 4],
    cut: bool,
}

impl OwnBox {
    fn apply(&mut self, property: &str, value: &str) {
        let sides = ["height", "width", "max-height", "max-width"];
        if property == "display" {
            self.gone |= value == "none";
        } else if property.starts_with("overflow") {
            self.cut = value != "visible";
        } else if let Some((_, empty)) = sides
            .iter()
            .zip(&mut self.empty)
            .find(|(side, _)| **side == property)
        {
            *empty = !value.ends_with('%') && size(value).is_some_and(|n| n < TINY);
        }
    }

    fn hides(&self) -> bool {
        self.gone || (self.cut && self.empty.contains(&true))
    }
}

impl Look {
    pub(super) fn keeps_lines(&self) -> bool {
        self.keeps_lines
    }

    pub(super) fn gap(&self) -> Gap {
        self.gap
    }

    /// Whether text of this look is kept from the eye.
    pub(super) fn hides(&self) -> bool {
        self.gone || self.invisible || self.tiny || self.changed || self.recased || self.blends()
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

    /// The look inside `element`; `rules` are those of style sheets that match it.
    pub(super) fn inside(&self, element: &Element, rules: &[Rule]) -> Self {
        let mut look = self.clone();
        look.gap = Gap::Unsaid;
        match element.name() {
            // What a mail reader shows as something else, on a click, struck
            // out or turned around.
            "noscript" | "object" | "svg" | "math" | "iframe" | "noembed" | "noframes"
            | "audio" | "video" | "canvas" | "textarea" | "select" | "datalist" | "dialog"
            | "progress" | "meter" | "del" | "s" | "strike" => look.gone = true,
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
        let mut own = OwnBox::default();
        for (property, value) in rules.iter().flat_map(|rule| rule.iter()) {
            own.apply(property, value);
            look.apply(property, value);
        }
        if let Some(style) = element.attr("style") {
            for (property, value) in declarations(style) {
                own.apply(&property, &value);
                look.apply(&property, &value);
            }
        }
        look.gone |= own.hides();
        look
    }

    fn apply(&mut self, property: &str, value: &str) {
        match property {
            "display" => {
                self.gap = match value {
                    "inline" | "contents" | "none" => Gap::None,
                    value if value.starts_with("inline") => Gap::Blank,
                    _ => Gap::Line,
                }
            }
            "visibility" if value == "visible" => self.invisible = false,
            "visibility" => self.invisible |= matches!(value, "hidden" | "collapse"),
            "mso-hide" => self.gone |= value == "all",
            "opacity" => {
                let whole = if value.ends_with('%') { 100.0 } else { 1.0 };
                self.gone |= size(value).is_some_and(|n| n / whole < 0.1);
            }
            "filter" => self.gone |= value.contains("opacity(0"),
            "zoom" => self.gone |= size(value).is_some_and(|n| n < 0.1),
            "font-size" => match size(value) {
                Some(n) => self.tiny = n < TINY && is_length(value),
                None => self.tiny |= value.starts_with("calc"),
            },
            "font" => {
                // A size has a unit or is nothing; a weight has none.
                let is_tiny = |word: &str| {
                    let has_unit = word.ends_with(|c: char| c.is_ascii_alphabetic());
                    size(word)
                        .is_some_and(|n| n < TINY && is_length(word) && (has_unit || n <= 0.0))
                };
                self.tiny |= value.split([' ', '/']).any(is_tiny);
            }
            "letter-spacing" => {
                let least = if value.ends_with("em") { -0.4 } else { -5.0 };
                self.gone |= size(value).is_some_and(|n| n < least);
            }
            "left" | "right" | "top" | "bottom" | "text-indent" => self.go_off_screen(value),
            "margin" | "margin-left" | "margin-right" | "margin-top" | "padding"
            | "padding-left" | "padding-right" => {
                self.go_off_screen(value);
                if matches!(self.gap, Gap::None | Gap::Unsaid)
                    && size(value).is_some_and(|n| n > 0.0)
                {
                    self.gap = Gap::Blank;
                }
            }
            "clip" => self.gone |= value.starts_with("rect"),
            "clip-path" => self.gone |= value != "none",
            "transform" => self.gone |= value != "none",
            "text-transform" => self.recased = value != "none",
            "font-variant" | "font-variant-caps" => self.changed |= value.contains("caps"),
            "flex-direction" | "flex-flow" => self.changed |= value.contains("reverse"),
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

    fn go_off_screen(&mut self, value: &str) {
        self.gone |= size(value).is_some_and(|n| n < -OFF_SCREEN);
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

/// The declarations of a rule that matter here.
pub(super) type Rule = Rc<[(String, String)]>;

/// The `property: value` pairs that matter, in lower case, without comments,
/// escapes and `!important`.
fn declarations(source: &str) -> Vec<(String, String)> {
    let source = unescaped(&without_comments(source)).to_ascii_lowercase();
    source
        .split(';')
        .filter_map(|declaration| declaration.split_once(':'))
        .map(|(property, value)| {
            let value = value.split('!').next().unwrap_or_default();
            (property.trim().to_owned(), value.trim().to_owned())
        })
        .filter(|(property, value)| matters(property, value))
        .take(MAX_DECLARATIONS)
        .collect()
}

/// `n\6fne` is `none` (CSS Syntax, section 4.3.7).
fn unescaped(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, escaped)) = rest.split_once('\\') {
        out.push_str(before);
        let digits = escaped
            .bytes()
            .take(6)
            .take_while(u8::is_ascii_hexdigit)
            .count();
        let (hex, behind) = escaped.split_at(digits);
        let c = u32::from_str_radix(hex, 16).ok().and_then(char::from_u32);
        out.extend(c);
        rest = if digits > 0 {
            behind.strip_prefix(' ').unwrap_or(behind)
        } else {
            behind
        };
    }
    out.push_str(rest);
    out
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

/// The rules of all style sheets by the elements that they match.
#[derive(Default)]
pub(super) struct Sheets {
    matched: HashMap<NodeId, Vec<Rule>>,
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
            // Old programs wrap a sheet in an HTML comment, which CSS ignores.
            let source = source.replace("<!--", "").replace("-->", "");
            for (selectors, declared) in rules(&source) {
                let rule: Rule = declarations(declared).into();
                if rule.is_empty() {
                    continue;
                }
                seen = seen.saturating_add(1);
                if seen > MAX_RULES {
                    sheets.too_many = true;
                    return sheets;
                }
                sheets.add(tree, selectors, &rule);
            }
        }
        sheets
    }

    fn add(&mut self, tree: &Html, selectors: &str, rule: &Rule) {
        // `:has()` and its like, and long ones, can take for ever.
        let is_simple = selectors.len() <= MAX_SELECTOR && !selectors.contains('(');
        let selector = is_simple.then(|| Selector::parse(selectors).ok()).flatten();
        match selector {
            Some(selector) => {
                for element in tree.select(&selector) {
                    let rules = self.matched.entry(element.id()).or_default();
                    rules.push(Rc::clone(rule));
                }
            }
            // A rule on links that were visited gives colours, as a rule; one
            // that hides text may hide the token.
            None => self.too_many |= could_hide(rule),
        }
    }

    pub(super) fn at(&self, id: NodeId) -> &[Rule] {
        self.matched.get(&id).map_or(&[], Vec::as_slice)
    }
}

/// Whether a declaration can have to do with what is seen.
fn matters(property: &str, value: &str) -> bool {
    const BOXES: [&str; 7] = [
        "height",
        "width",
        "max-height",
        "max-width",
        "overflow",
        "overflow-x",
        "overflow-y",
    ];
    let mut look = Look::default();
    look.apply(property, value);
    let says_so = matches!(
        property,
        "display" | "visibility" | "font-size" | "text-transform" | "white-space"
    );
    says_so
        || BOXES.contains(&property)
        || look.hides()
        || look.gap != Gap::Unsaid
        || look.colour.is_some()
        || look.ground.is_some()
}

/// Whether a rule hides text by more than a colour.
fn could_hide(rule: &Rule) -> bool {
    let (mut look, mut own) = (Look::default(), OwnBox::default());
    for (property, value) in rule.iter() {
        look.apply(property, value);
        own.apply(property, value);
    }
    look.gone || look.invisible || look.tiny || look.changed || look.recased || own.hides()
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
