//! From the text of a template to its nodes.

use serde_json::Value;

use super::lexer::Cursor;
use super::{Comparison, Filter, Node, Operand, Path, Step};

type Parsed<T> = Result<T, String>;

pub(super) fn template(source: &str) -> Parsed<Vec<Node>> {
    let mut cursor = Cursor::new(source);
    let nodes = nodes(&mut cursor, false)?;
    if cursor.is_at_end() { Ok(nodes) } else { Err("not in range, nothing to end".into()) }
}

/// The nodes up to `{end}` (which is taken, inside a range) or to the end of the text.
fn nodes(cursor: &mut Cursor<'_>, in_range: bool) -> Parsed<Vec<Node>> {
    let mut nodes = Vec::new();
    loop {
        let text = cursor.take_while(|c| c != '{');
        if !text.is_empty() {
            nodes.push(Node::Text(text.into()));
        }
        if cursor.is_at_end() {
            return if in_range { Err("unclosed range: {end} is missing".into()) } else { Ok(nodes) };
        }
        let before = cursor.rest();
        cursor.take("{");
        let action = cursor.take_until('}').ok_or("unclosed action")?;
        match action.trim() {
            "end" if in_range => return Ok(nodes),
            "end" => {
                *cursor = Cursor::new(before);
                return Ok(nodes);
            }
            action => nodes.extend(self::action(action, cursor)?),
        }
    }
}

/// One action: a range, or expressions and quoted texts in a row.
fn action(action: &str, cursor: &mut Cursor<'_>) -> Parsed<Vec<Node>> {
    if let Some(path) =
        action.strip_prefix("range").filter(|rest| rest.starts_with([' ', '.', '[', '$', '@']))
    {
        let mut inner = Cursor::new(path);
        inner.skip_spaces();
        let path = self::path(&mut inner)?;
        inner.skip_spaces();
        if !inner.is_at_end() {
            return Err(format!("unexpected {:?} behind the path of a range", inner.rest()));
        }
        return Ok(vec![Node::Range(path, nodes(cursor, true)?)]);
    }
    let mut inner = Cursor::new(action);
    let mut nodes = Vec::new();
    loop {
        inner.skip_spaces();
        match inner.peek() {
            None => return Ok(nodes),
            Some('"' | '\'') => nodes.push(Node::Text(inner.take_quoted()?)),
            Some('.' | '[' | '$' | '@') => nodes.push(Node::Path(path(&mut inner)?)),
            Some(c) if c.is_alphanumeric() => {
                return Err(format!("unrecognized identifier {}", inner.take_while(char::is_alphanumeric)));
            }
            Some(c) => return Err(format!("unrecognized character in action: {c:?}")),
        }
    }
}

fn path(cursor: &mut Cursor<'_>) -> Parsed<Path> {
    let from_root = cursor.take("$");
    if !from_root {
        cursor.take("@");
    }
    let mut steps = Vec::new();
    loop {
        match cursor.peek() {
            Some('.') => dotted(cursor, &mut steps)?,
            Some('[') => steps.push(bracket(cursor)?),
            _ => return Ok(Path { from_root, steps }),
        }
    }
}

/// `.name`, `.*`, `..`, or a lone dot, which is the value itself.
fn dotted(cursor: &mut Cursor<'_>, steps: &mut Vec<Step>) -> Parsed<()> {
    cursor.take(".");
    if cursor.take(".") {
        steps.push(Step::Descend);
    }
    if cursor.take("*") {
        steps.push(Step::Wildcard);
        return Ok(());
    }
    let name = key(cursor);
    if !name.is_empty() {
        steps.push(Step::Field(name));
    }
    Ok(())
}

/// A key up to the next separator; a backslash takes the next character as it is.
fn key(cursor: &mut Cursor<'_>) -> String {
    let mut name = String::new();
    loop {
        name.push_str(cursor.take_while(|c| !(c.is_whitespace() || ".[]{}(),=<>!'\"\\@$?*".contains(c))));
        if !cursor.take("\\") {
            return name;
        }
        let mut first = cursor.rest().chars();
        name.extend(first.next());
        *cursor = Cursor::new(first.as_str());
    }
}

fn bracket(cursor: &mut Cursor<'_>) -> Parsed<Step> {
    cursor.take("[");
    let inner = cursor.take_until(']').ok_or("unterminated array")?.trim();
    if inner == "*" {
        return Ok(Step::Wildcard);
    }
    if let Some(filter) = inner.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        return self::filter(filter).map(Step::Filter);
    }
    let parts = split_commas(inner);
    match parts.as_slice() {
        [one] => single(one),
        _ => parts.iter().map(|part| union_part(part)).collect::<Parsed<_>>().map(Step::Union),
    }
}

/// `name`, `'name'`, `1`, or `1:3:2` inside brackets.
fn single(part: &str) -> Parsed<Step> {
    let part = part.trim();
    if part.starts_with(['\'', '"']) {
        let mut cursor = Cursor::new(part);
        let name = cursor.take_quoted()?;
        return if cursor.is_at_end() {
            Ok(Step::Field(name))
        } else {
            Err(format!("invalid array index {part}"))
        };
    }
    if part.contains(':') {
        return slice(part);
    }
    match part.parse() {
        Ok(index) => Ok(Step::Index(index)),
        Err(_) => Err(format!("invalid array index {part}")),
    }
}

fn slice(part: &str) -> Parsed<Step> {
    let numbers = part.split(':').map(|number| match number.trim() {
        "" => Ok(None),
        number => number.parse().map(Some).map_err(|_| format!("invalid array index {part}")),
    });
    match numbers.collect::<Parsed<Vec<Option<i64>>>>()?.as_slice() {
        [start, end] => Ok(Step::Slice(*start, *end, 1)),
        [_, _, Some(step)] if *step <= 0 => Err("step must be > 0".into()),
        [start, end, step] => Ok(Step::Slice(*start, *end, step.unwrap_or(1))),
        _ => Err(format!("invalid array index {part}")),
    }
}

fn union_part(part: &str) -> Parsed<Path> {
    let part = part.trim();
    if part.starts_with(['.', '[', '@', '$']) {
        let mut cursor = Cursor::new(part);
        let path = path(&mut cursor)?;
        return if cursor.is_at_end() { Ok(path) } else { Err(format!("invalid union part {part}")) };
    }
    let steps = match single(part) {
        Ok(step) => vec![step],
        Err(_) => vec![Step::Field(part.to_string())],
    };
    Ok(Path { from_root: false, steps })
}

fn split_commas(text: &str) -> Vec<&str> {
    let mut cursor = Cursor::new(text);
    let mut parts = Vec::new();
    while let Some(part) = cursor.take_until(',') {
        parts.push(part);
    }
    parts.push(cursor.rest());
    parts
}

fn filter(text: &str) -> Parsed<Filter> {
    let mut cursor = Cursor::new(text);
    let left = operand(&mut cursor)?;
    cursor.skip_spaces();
    if cursor.is_at_end() {
        return Ok(Filter { left, compare: None });
    }
    let comparison = comparison(&mut cursor).ok_or_else(|| format!("unrecognized filter {text}"))?;
    let right = operand(&mut cursor)?;
    cursor.skip_spaces();
    match cursor.is_at_end() {
        true => Ok(Filter { left, compare: Some((comparison, right)) }),
        false => Err(format!("unrecognized filter {text}")),
    }
}

fn comparison(cursor: &mut Cursor<'_>) -> Option<Comparison> {
    let operators = [
        ("==", Comparison::Equal),
        ("!=", Comparison::NotEqual),
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
        ("=", Comparison::Equal),
    ];
    operators.into_iter().find(|(text, _)| cursor.take(text)).map(|(_, comparison)| comparison)
}

fn operand(cursor: &mut Cursor<'_>) -> Parsed<Operand> {
    cursor.skip_spaces();
    match cursor.peek() {
        Some('"' | '\'') => Ok(Operand::Literal(cursor.take_quoted()?.into())),
        Some('@' | '$' | '.' | '[') => Ok(Operand::Path(path(cursor)?)),
        _ => {
            let word = cursor.take_while(|c| !(c.is_whitespace() || "=!<>()".contains(c)));
            match serde_json::from_str::<Value>(word) {
                Ok(value @ (Value::Number(_) | Value::Bool(_))) => Ok(Operand::Literal(value)),
                _ => Err(format!("unrecognized identifier {word}")),
            }
        }
    }
}
