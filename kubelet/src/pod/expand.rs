//! `$(VAR)` references in commands, arguments and variables.
//!
//! Upstream's rules: an unknown reference stays as written, `$$` is an escaped `$`, and an unclosed
//! `$(` is plain text.

use std::collections::BTreeMap;

/// Replaces each `$(NAME)` that `lookup` knows.
pub fn expand<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = reference(&rest[at + 1..], &lookup, &mut out);
    }
    out.push_str(rest);
    out
}

/// Writes what stands for the text after a `$` and returns what follows it.
fn reference<'t, 'a>(after: &'t str, lookup: &impl Fn(&str) -> Option<&'a str>, out: &mut String) -> &'t str {
    if let Some(rest) = after.strip_prefix('$') {
        out.push('$');
        return rest;
    }
    let Some((name, rest)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) else {
        out.push('$');
        return after;
    };
    match lookup(name) {
        Some(value) => out.push_str(value),
        None => out.extend(["$(", name, ")"]),
    }
    rest
}

/// Expands each of a container's arguments with its own environment.
pub fn expand_all(texts: &[String], env: &BTreeMap<String, String>) -> Vec<String> {
    texts.iter().map(|text| expand(text, |name| env.get(name).map(String::as_str))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_expand_as_upstream() {
        let lookup = |name: &str| match name {
            "A" => Some("alpha"),
            "EMPTY" => Some(""),
            "REF" => Some("$(A)"),
            "a.b-c" => Some("odd"),
            _ => None,
        };
        for (text, want) in [
            ("$(A)", "alpha"),
            ("x$(A)y$(A)", "xalphayalpha"),
            ("$(EMPTY)|", "|"),
            ("$(MISSING)", "$(MISSING)"),
            ("$(REF)", "$(A)"),
            ("$(a.b-c)", "odd"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$alpha"),
            ("$$$$(A)", "$$(A)"),
            ("$A ${A} $", "$A ${A} $"),
            ("$(A", "$(A"),
            ("$()", "$()"),
            ("a$$b", "a$b"),
            ("grüße $(A) ü", "grüße alpha ü"),
        ] {
            assert_eq!(expand(text, lookup), want, "{text}");
        }
    }
}
