//! Which functions there are: a table that is read once.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use super::admission;
use super::types::Type;

/// One way to call a function.
#[derive(Clone, Debug)]
pub(super) struct Signature {
    /// Whether the first argument stands before the dot.
    pub(super) is_method: bool,
    pub(super) args: Vec<Type>,
    pub(super) result: Type,
    pub(super) cost: Cost,
}

/// How the cost of a call grows with the sizes of its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cost {
    One,
    Scan,
    Second,
    Both,
    Each,
    Square,
    Cross,
    Regex,
    Authorize,
}

impl Cost {
    fn parse(name: &str) -> Self {
        match name {
            "scan" => Self::Scan,
            "second" => Self::Second,
            "both" => Self::Both,
            "each" => Self::Each,
            "square" => Self::Square,
            "cross" => Self::Cross,
            "regex" => Self::Regex,
            "authorize" => Self::Authorize,
            _ => Self::One,
        }
    }

    /// What a call costs with arguments of these sizes.
    pub(super) fn of(self, sizes: &[u64]) -> u64 {
        let size = |index: usize| sizes.get(index).copied().unwrap_or(1);
        let tenth = |size: u64| size.div_ceil(10).max(1);
        match self {
            Self::One => 1,
            // Upstream's figure for a check.
            Self::Authorize => 350_000,
            Self::Scan => tenth(size(0)),
            Self::Second => tenth(size(1)),
            Self::Both => tenth(size(0)).max(tenth(size(1))),
            Self::Each => size(0).max(1),
            Self::Square => size(0).max(1).saturating_mul(size(0).max(1)),
            Self::Cross => tenth(size(0)).saturating_mul(tenth(size(1))),
            Self::Regex => tenth(size(0).saturating_add(1)).saturating_mul(size(1).div_ceil(4).max(1)),
        }
    }
}

/// All ways to call a function of this name; namespaced ones such as `sets.contains` by their whole name.
pub(super) fn named(name: &str) -> &'static [Signature] {
    table().get(name).map(Vec::as_slice).unwrap_or_default()
}

fn table() -> &'static HashMap<String, Vec<Signature>> {
    static TABLE: OnceLock<HashMap<String, Vec<Signature>>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table: HashMap<String, Vec<Signature>> = HashMap::new();
        let lines = include_str!("library/signatures.txt").lines();
        for line in
            lines.filter(|line| !line.is_empty() && !line.starts_with("# ") && !line.starts_with("#\n"))
        {
            let (name, signature) =
                read(line).expect("the table of functions is well-formed; a test reads it");
            table.entry(name).or_default().push(signature);
        }
        // The order of values is one relation.
        let less = table.get("<").cloned().unwrap_or_default();
        for operator in ["<=", ">", ">="] {
            table.insert(operator.to_owned(), less.clone());
        }
        table
    })
}

/// What stands before the dot of a namespaced function.
pub(super) const NAMESPACES: [&str; 9] =
    ["sets", "math", "optional", "base64", "lists", "strings", "ip", "format", "jsonpatch"];

fn read(line: &str) -> Option<(String, Signature)> {
    let (line, cost) = line.split_once('#').unwrap_or((line, ""));
    let open = argument_list(line)?;
    let close = matching(line, open)?;
    let (head, result) = (&line[..open], kind(line[close + 1..].trim())?);
    let mut args: Vec<Type> = split(&line[open + 1..close]).into_iter().map(kind).collect::<Option<_>>()?;
    let (target, name) = match head.rsplit_once('.') {
        // `format.named` and `ip.isCanonical` are functions, `ip.family` is a method.
        Some((target, name)) if is_namespaced(target, name) => (None, format!("{target}.{name}")),
        Some((target, name)) => (Some(target), name.to_owned()),
        None => (None, head.to_owned()),
    };
    let is_method = target.is_some();
    if let Some(target) = target {
        args.insert(0, kind(target)?);
    }
    Some((name, Signature { is_method, args, result, cost: Cost::parse(cost.trim()) }))
}

fn is_namespaced(target: &str, name: &str) -> bool {
    match target {
        "ip" => name == "isCanonical",
        "format" => name != "validate",
        _ => NAMESPACES.contains(&target),
    }
}

/// Where the argument list opens: the last parenthesis at the outermost level before the result.
fn argument_list(line: &str) -> Option<usize> {
    let mut at = line.find('(')?;
    while let Some(end) = matching(line, at)
        && line[end + 1..].starts_with('.')
    {
        at = end + 1 + line[end + 1..].find('(')?;
    }
    Some(at)
}

fn matching(line: &str, open: usize) -> Option<usize> {
    let mut depth = 0;
    line[open..].char_indices().find_map(|(index, c)| {
        depth += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        (depth == 0).then_some(open + index)
    })
}

fn split(list: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut begin) = (0, 0);
    for (index, c) in list.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(list[begin..index].trim());
                begin = index + 1;
            }
            _ => {}
        }
    }
    let last = list[begin..].trim();
    parts.extend((!last.is_empty()).then_some(last));
    parts
}

fn kind(text: &str) -> Option<Type> {
    if let Some(inner) = text.strip_prefix("list(") {
        return Some(Type::list(kind(inner.strip_suffix(')')?)?));
    }
    if let Some(inner) = text.strip_prefix("opt(") {
        return Some(Type::Optional(Arc::new(kind(inner.strip_suffix(')')?)?)));
    }
    if let Some(inner) = text.strip_prefix("map(") {
        let parts = split(inner.strip_suffix(')')?);
        return Some(Type::map(kind(parts.first()?)?, kind(parts.get(1)?)?));
    }
    Some(match text {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::STRING,
        "bytes" => Type::BYTES,
        "duration" => Type::Duration,
        "timestamp" => Type::Timestamp,
        "dyn" => Type::Dyn,
        "type" => Type::Type,
        "quantity" => Type::Opaque("kubernetes.Quantity"),
        "url" => Type::Opaque("kubernetes.URL"),
        "ip" => Type::Opaque("net.IP"),
        "cidr" => Type::Opaque("net.CIDR"),
        "semver" => Type::Opaque("kubernetes.Semver"),
        "format" => Type::Opaque("kubernetes.NamedFormat"),
        "authorizer" => Type::Opaque(admission::AUTHORIZER),
        "pathcheck" => Type::Opaque(admission::PATH_CHECK),
        "groupcheck" => Type::Opaque(admission::GROUP_CHECK),
        "resourcecheck" => Type::Opaque(admission::RESOURCE_CHECK),
        "decision" => Type::Opaque(admission::DECISION),
        _ => Type::Var(text.chars().next().filter(|_| text.len() == 1)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read() {
        let contains = named("contains");
        assert!(contains.len() == 1 && contains[0].is_method && contains[0].args.len() == 2);
        assert_eq!(named("sets.contains").len(), 1);
        assert!(named("family")[0].is_method && !named("ip.isCanonical")[0].is_method);
        assert_eq!(named("size").len(), 8);
        assert_eq!(named("min")[0].args[0].to_string(), "list(A)");
        assert!(named("unheard").is_empty());
    }
}
