//! Writes a value as `kubectl -o yaml` does: sorted keys, lists not indented, quotes only where needed.

use serde_json::{Map, Value};

use super::scalar::resolve;

/// The YAML text of a value, with a line break at its end.
pub fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => write_map(&mut out, map, 0),
        Value::Array(items) if !items.is_empty() => write_list(&mut out, items, 0),
        scalar => {
            write_scalar(&mut out, scalar, 0);
            out.push('\n');
        }
    }
    out
}

/// The first entry continues the line at hand; the others are indented.
fn write_map(out: &mut String, map: &Map<String, Value>, indent: usize) {
    for (index, (key, value)) in map.iter().enumerate() {
        if index > 0 {
            pad(out, indent);
        }
        out.push_str(&key_text(key));
        out.push(':');
        write_child(out, value, indent);
    }
}

fn write_child(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            pad(out, indent + 2);
            write_map(out, map, indent + 2);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            pad(out, indent);
            write_list(out, items, indent);
        }
        scalar => {
            out.push(' ');
            write_scalar(out, scalar, indent);
            out.push('\n');
        }
    }
}

fn write_list(out: &mut String, items: &[Value], indent: usize) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            pad(out, indent);
        }
        out.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => write_map(out, map, indent + 2),
            Value::Array(items) if !items.is_empty() => write_list(out, items, indent + 2),
            scalar => {
                write_scalar(out, scalar, indent);
                out.push('\n');
            }
        }
    }
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn write_scalar(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::String(text) => write_text(out, text, indent),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
}

fn key_text(key: &str) -> String {
    match style(key) {
        Style::Plain => key.into(),
        Style::Single => single_quoted(key),
        Style::Double | Style::Literal => double_quoted(key),
    }
}

fn write_text(out: &mut String, text: &str, indent: usize) {
    match style(text) {
        Style::Plain => write_folded(out, text, indent + 2, 0),
        Style::Single => write_folded(out, &single_quoted(text), indent + 2, 2),
        Style::Double => write_folded(out, &double_quoted(text), indent + 2, 2),
        Style::Literal => write_literal(out, text, indent + 2),
    }
}

/// Breaks long lines at single spaces, as go-yaml does. The `margin` at both ends is never broken: a quote
/// and the character beside it.
fn write_folded(out: &mut String, text: &str, indent: usize, margin: usize) {
    let line_start = out.rfind('\n').map_or(0, |at| at + 1);
    let mut column = out[line_start..].chars().count();
    let chars: Vec<char> = text.chars().collect();
    let is_double = text.starts_with('"') && margin > 0;
    for (index, c) in chars.iter().enumerate() {
        let inside = index >= margin && index + margin < chars.len();
        let after_space = index > 0 && chars[index - 1] == ' ';
        let before_space = chars.get(index + 1) == Some(&' ');
        if *c == ' ' && inside && !after_space && column > BEST_WIDTH && (is_double || !before_space) {
            out.push('\n');
            pad(out, indent);
            column = indent;
            if before_space {
                out.push('\\');
            }
        } else {
            out.push(*c);
            column += 1;
        }
    }
}

/// Lines are broken at the first space behind this column.
const BEST_WIDTH: usize = 80;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Plain,
    Single,
    Double,
    Literal,
}

/// The style that go-yaml v2 chooses for a text.
fn style(text: &str) -> Style {
    let space_before_break = text.contains(" \n");
    let trailing_space = text.ends_with(' ');
    match () {
        _ if !text.chars().all(is_printable) => Style::Double,
        _ if text.contains('\n') && (space_before_break || trailing_space) => Style::Double,
        _ if text.contains('\n') => Style::Literal,
        _ if means_something_else(text) => Style::Double,
        _ if may_be_plain(text) => Style::Plain,
        _ => Style::Single,
    }
}

fn is_printable(c: char) -> bool {
    // A tab isn't, to go-yaml v2: that is why kubectl shows such texts in double quotes.
    matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}') && c != '\u{feff}'
}

/// Whether the text, written plainly, would be read back as something other than a text.
fn means_something_else(text: &str) -> bool {
    !matches!(resolve(text), Some(Value::String(_))) || is_date(text) || is_base_60(text)
}

/// `2024-05-01`, with or without a time behind it.
fn is_date(text: &str) -> bool {
    let date = text.split(['T', 't', ' ']).next().unwrap_or_default();
    let parts: Vec<&str> = date.split('-').collect();
    let digits = |part: &str, lengths: std::ops::RangeInclusive<usize>| {
        lengths.contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    matches!(parts[..], [year, month, day] if digits(year, 4..=4) && digits(month, 1..=2) && digits(day, 1..=2))
        && text[date.len()..].chars().all(|c| c.is_ascii_digit() || "TtZz :.+-".contains(c))
}

/// `12:30:45`, which YAML 1.1 reads as a number in base 60.
fn is_base_60(text: &str) -> bool {
    let whole = text.split_once('.').map_or(text, |(whole, _)| whole);
    let mut parts = whole.strip_prefix(['+', '-']).unwrap_or(whole).split(':');
    let number =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    let sixtieths = |part: &str| matches!(part.as_bytes(), [b'0'..=b'9'] | [b'0'..=b'5', b'0'..=b'9']);
    let first = parts.next().is_some_and(number);
    let rest: Vec<&str> = parts.collect();
    first && !rest.is_empty() && rest.into_iter().all(sixtieths)
}

fn may_be_plain(text: &str) -> bool {
    let indicator = |c: char| "#,[]{}&*!|>'\"%@`".contains(c);
    let Some(first) = text.chars().next() else { return false };
    let second_is_blank = text.chars().nth(1).is_none_or(|c| c == ' ');
    !(indicator(first)
        || "-?:".contains(first) && second_is_blank
        || text.starts_with("---")
        || text.starts_with("...")
        || text.starts_with(' ')
        || text.ends_with(' ')
        || text.ends_with(':')
        || text.contains(": ")
        || text.contains(" #")
        // Line breaks to YAML 1.1.
        || text.contains(['\u{2028}', '\u{2029}']))
}

fn single_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn double_quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\0' => out.push_str("\\0"),
            '\u{1b}' => out.push_str("\\e"),
            c if is_printable(c) => out.push(c),
            c => out.push_str(&escaped(c as u32)),
        }
    }
    out.push('"');
    out
}

fn escaped(code: u32) -> String {
    match code {
        0..=0xff => format!("\\x{code:02X}"),
        0x100..=0xffff => format!("\\u{code:04X}"),
        _ => format!("\\U{code:08X}"),
    }
}

/// `|` with the indentation hint and the chomping that keep the text exactly.
fn write_literal(out: &mut String, text: &str, indent: usize) {
    out.push('|');
    if text.starts_with([' ', '\n']) {
        out.push('2');
    }
    let body = text.strip_suffix('\n');
    match body {
        None => out.push('-'),
        Some(body) if body.ends_with('\n') || body.is_empty() => out.push('+'),
        Some(_) => {}
    }
    for line in body.unwrap_or(text).split('\n') {
        out.push('\n');
        if !line.is_empty() {
            pad(out, indent);
            out.push_str(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse_one;
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn looks_as_kubectl_prints() {
        let value = json!({
            "apiVersion": "v1",
            "metadata": {"name": "web", "creationTimestamp": "2024-05-01T10:00:00Z", "labels": {}},
            "spec": {
                "containers": [{"name": "web", "args": ["-c", "echo: hi", "- x", "1", "yes", ""], "ports": [{"containerPort": 80}]}],
                "nested": [[1, 2], []],
                "text": "line 1\nline 2\n", "cut": "a\nb", "tab": "a\tb", "quote": "it's #1", "time": "12:30",
            },
        });
        let text = "\
apiVersion: v1
metadata:
  creationTimestamp: \"2024-05-01T10:00:00Z\"
  labels: {}
  name: web
spec:
  containers:
  - args:
    - -c
    - 'echo: hi'
    - '- x'
    - \"1\"
    - \"yes\"
    - \"\"
    name: web
    ports:
    - containerPort: 80
  cut: |-
    a
    b
  nested:
  - - 1
    - 2
  - []
  quote: 'it''s #1'
  tab: \"a\\tb\"
  text: |
    line 1
    line 2
  time: \"12:30\"
";
        assert_eq!(to_yaml(&value), text);
    }

    /// The file was printed by `kubectl -o yaml`: all kinds of odd texts.
    #[test]
    fn what_kubectl_printed_reads_and_prints_the_same() {
        let printed = include_str!("../../testdata/yaml/kubectl.yaml");
        let value = parse_one(printed).expect("YAML").value;
        assert_eq!(value["data"].as_object().map(|map| map.values().all(Value::is_string)), Some(true));
        for (ours, kubectls) in to_yaml(&value).lines().zip(printed.lines()) {
            assert_eq!(ours, kubectls);
        }
        assert_eq!(to_yaml(&value), printed);
    }

    fn arbitrary() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            "[ -~]{0,6}",
            "[a-c:#\\- \n'\"]{0,8}",
            "[0-9:.eE+_x-]{0,6}",
            any::<String>().prop_map(|text| text.replace('\r', "")),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z0-9~#: ]{0,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(value in arbitrary()) {
            let text = to_yaml(&value);
            let read = parse_one(&text).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
            prop_assert_eq!(read.value, value, "{}", text);
        }
    }
}
