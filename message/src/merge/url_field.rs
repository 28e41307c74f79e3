//! References in fields whose value is URLs in angles (RFC 2369, RFC 5064).

use super::compiler::Compiler;
use super::error::Problem;
use super::syntax::{self, Found, Wrong};
use super::{Exact, Item};

impl Compiler<'_> {
    /// White space in angles means nothing (RFC 2369 §2) and goes.
    pub(super) fn url_field(&mut self, value: &str) -> Result<Vec<Item>, Wrong> {
        let (mut items, mut literal, mut in_angles, mut at) = (Vec::new(), String::new(), false, 0);
        while let Some(first) = value[at..].chars().next() {
            let mut len = first.len_utf8();
            match first {
                '{' if syntax::begins(&value[at..]) => {
                    let found = syntax::expression(&value[at..]).map_err(|wrong| wrong.behind(at))?;
                    len = found.1;
                    let closes = value[at + len..].trim_ascii_start().starts_with('>');
                    let kind = if closes && literal.ends_with('<') { Exact::Url } else { Exact::UrlPart };
                    if !in_angles {
                        return Err(Wrong { at, problem: Problem::OutsideAngles });
                    }
                    self.url_expression(found.0, at, kind, &mut literal, &mut items)?;
                }
                blank if blank.is_ascii_whitespace() && in_angles => {}
                blank if blank.is_ascii_whitespace() => {
                    self.flush(&mut literal, &mut items);
                    items.push(Item::Space);
                }
                other => {
                    in_angles = if in_angles { other != '>' } else { other == '<' };
                    literal.push(other);
                }
            }
            at += len;
        }
        self.flush(&mut literal, &mut items);
        Ok(items)
    }

    fn url_expression(
        &mut self,
        found: Found<'_>,
        at: usize,
        kind: Exact,
        literal: &mut String,
        items: &mut Vec<Item>,
    ) -> Result<(), Wrong> {
        let reference = match found {
            Found::Text(_) => return Err(Wrong { at, problem: Problem::TextHere }),
            Found::Field(found) => self.reference(found, false).map_err(|problem| Wrong { at, problem })?,
        };
        self.flush(literal, items);
        items.push(Item::Exact { reference, kind, after: 0 });
        Ok(())
    }

    fn flush(&mut self, literal: &mut String, items: &mut Vec<Item>) {
        if !literal.is_empty() {
            let span = self.literal(literal.as_bytes());
            items.push(Item::Literal(span));
            literal.clear();
        }
    }
}
