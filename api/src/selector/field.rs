//! Field selectors: `metadata.name=web,status.phase!=Running`.
//!
//! Which fields a kind can be selected by is the registry's knowledge, as is where they stand.

use std::fmt;

use super::SelectorError;

/// One condition on a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    /// The label of the field, e.g. `spec.nodeName`.
    pub field: String,
    /// Whether the field must equal the value, or must not.
    pub equals: bool,
    /// The value; an absent field compares as empty.
    pub value: String,
}

/// A conjunction of conditions on fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

impl FieldSelector {
    /// Reads a field selector; `\` escapes commas and equals signs. Errors: a term without operator.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let terms = split_terms(text).into_iter().filter(|term| !term.is_empty());
        let terms = terms.map(|term| {
            parse_term(term).ok_or_else(|| SelectorError::FieldTerm(text.to_string(), term.to_string()))
        });
        Ok(Self { terms: terms.collect::<Result<_, _>>()? })
    }

    /// The field must have this value.
    pub fn equals(field: &str, value: &str) -> Self {
        Self { terms: vec![FieldTerm { field: field.into(), equals: true, value: value.into() }] }
    }

    /// The conditions, in the order written.
    pub fn terms(&self) -> &[FieldTerm] {
        &self.terms
    }

    /// The conditions; the same as [`FieldSelector::terms`].
    pub fn requirements(&self) -> &[FieldTerm] {
        &self.terms
    }

    /// Whether this selector matches everything.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The only value that `field` may have, if the selector says so.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.equals && term.field == field).map(|term| term.value.as_str())
    }

    /// Whether an object whose fields are looked up one by one fulfils all conditions.
    pub fn matches(&self, field: impl Fn(&str) -> Option<String>) -> bool {
        let holds = |term: &FieldTerm| (field(&term.field).unwrap_or_default() == term.value) == term.equals;
        self.terms.iter().all(holds)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            let operator = if term.equals { "=" } else { "!=" };
            write!(f, "{separator}{}{operator}{}", term.field, escape(&term.value))?;
        }
        Ok(())
    }
}

fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, byte) in text.bytes().enumerate() {
        if byte == b',' && !escaped {
            terms.push(&text[start..at]);
            start = at + 1;
        }
        escaped = byte == b'\\' && !escaped;
    }
    terms.push(&text[start..]);
    terms
}

fn parse_term(term: &str) -> Option<FieldTerm> {
    let at = term.find(['=', '!'])?;
    let (field, rest) = term.split_at(at);
    let (equals, value) = [("!=", false), ("==", true), ("=", true)]
        .into_iter()
        .find_map(|(operator, equals)| Some((equals, rest.strip_prefix(operator)?)))?;
    Some(FieldTerm { field: field.into(), equals, value: unescape(value)? })
}

/// Takes the backslashes away; a backslash before anything but `\`, `,` and `=` is an error.
fn unescape(value: &str) -> Option<String> {
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => plain.push(chars.next().filter(|next| matches!(next, '\\' | ',' | '='))?),
            ',' | '=' => return None,
            _ => plain.push(c),
        }
    }
    Some(plain)
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_read() {
        let selector =
            FieldSelector::parse("metadata.name=web,status.phase!=Running,a==b").expect("a selector");
        assert_eq!(selector.to_string(), "metadata.name=web,status.phase!=Running,a=b");
        assert_eq!(selector.exact("metadata.name"), Some("web"));
        assert_eq!(selector.exact("status.phase"), None);
        assert!(FieldSelector::parse("").expect("everything").is_empty());
    }

    #[test]
    fn an_absent_field_compares_as_empty() {
        let selector = FieldSelector::parse("spec.nodeName=,status.phase!=Failed").expect("a selector");
        assert!(selector.matches(|_| None));
        assert!(!selector.matches(|field| Some(if field == "status.phase" { "Failed" } else { "" }.into())));
    }

    #[test]
    fn escapes() {
        let selector = FieldSelector::parse(r"a=x\,y\=z\\").expect("a selector");
        assert_eq!(selector.terms()[0].value, r"x,y=z\");
        assert_eq!(FieldSelector::parse(&selector.to_string()), Ok(selector));
        assert!(FieldSelector::parse(r"a=\x").is_err() && FieldSelector::parse("a=b=c").is_err());
    }

    #[test]
    fn a_term_without_operator_is_refused() {
        let error = FieldSelector::parse("a=b,c").expect_err("no operator");
        assert_eq!(error.to_string(), "invalid selector: 'a=b,c'; can't understand 'c'");
    }
}
