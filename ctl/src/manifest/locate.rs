//! Where in a YAML text a field stands, so that an error about `spec.containers[0].image` can name its line.
//!
//! A reader of block style by indentation: enough for manifests as people write them. Where it can't follow
//! (flow style, JSON on one line) it answers with the last line it understood, never with a wrong one below.

/// One step of a field path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

/// Line number and text of a line; comments and empty lines are left out beforehand.
#[derive(Clone, Debug)]
struct Line {
    number: usize,
    indent: usize,
    text: String,
}

/// The line of `field` in the document that begins at line `first`, both from 1.
pub fn line_of(text: &str, first: usize, field: &str) -> usize {
    let mut block = document(text, first);
    let mut at = block.first().map_or(first, |line| line.number);
    for step in steps(field) {
        let Some(found) = descend(&block, &step) else { break };
        at = found.first().map_or(at, |line| line.number);
        block = inner(found, &step);
    }
    at
}

fn document(text: &str, first: usize) -> Vec<Line> {
    let numbered = text.lines().enumerate().map(|(i, line)| (i + 1, line)).skip(first.saturating_sub(1));
    let mut lines: Vec<(usize, &str)> = numbered.collect();
    if lines.first().is_some_and(|(_, line)| line.starts_with("---")) {
        lines.remove(0);
    }
    let body = lines.into_iter().take_while(|(_, line)| !line.starts_with("---") && !line.starts_with("..."));
    body.filter_map(|(number, line)| content(number, line)).collect()
}

fn content(number: usize, line: &str) -> Option<Line> {
    let text = line.trim_start_matches(' ');
    let empty = text.trim().is_empty() || text.starts_with('#');
    (!empty).then(|| Line { number, indent: line.len() - text.len(), text: text.to_owned() })
}

/// `spec.containers[0].limits[cpu]` as keys and indexes.
fn steps(field: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = field;
    while !rest.is_empty() {
        let (step, after) = next_step(rest);
        steps.extend(step);
        rest = after;
    }
    steps
}

/// The first step of a path and the rest of it, which is always shorter.
fn next_step(rest: &str) -> (Option<Step>, &str) {
    if let Some((inside, after)) = rest.strip_prefix('[').and_then(|inside| inside.split_once(']')) {
        return (Some(bracket(inside)), after);
    }
    let rest = rest.trim_start_matches(['.', '[']);
    let end = rest.find(['.', '[']).unwrap_or(rest.len());
    ((end > 0).then(|| Step::Key(rest[..end].to_owned())), &rest[end..])
}

fn bracket(inside: &str) -> Step {
    match inside.parse() {
        Ok(index) => Step::Index(index),
        Err(_) => Step::Key(inside.trim_matches('"').to_owned()),
    }
}

/// The lines of the entry that `step` names: its first line and everything that belongs to it.
fn descend(block: &[Line], step: &Step) -> Option<Vec<Line>> {
    let indent = block.first()?.indent;
    let starts: Vec<usize> = (0..block.len()).filter(|i| begins(block, *i, indent, step)).collect();
    let start = match step {
        Step::Key(_) => *starts.first()?,
        Step::Index(index) => *starts.get(*index)?,
    };
    let is_key = matches!(step, Step::Key(_));
    let belongs =
        |line: &&Line| line.indent > indent || (is_key && line.indent == indent && is_item(&line.text));
    let rest = block[start + 1..].iter().take_while(belongs);
    Some(std::iter::once(&block[start]).chain(rest).cloned().collect())
}

fn begins(block: &[Line], i: usize, indent: usize, step: &Step) -> bool {
    let line = &block[i];
    line.indent == indent
        && match step {
            Step::Key(key) => key_of(&line.text) == Some(key.as_str()),
            Step::Index(_) => is_item(&line.text),
        }
}

fn is_item(text: &str) -> bool {
    text == "-" || text.starts_with("- ")
}

fn key_of(text: &str) -> Option<&str> {
    let (key, rest) = text.split_once(':')?;
    let ends = rest.is_empty() || rest.starts_with(' ');
    ends.then(|| key.trim().trim_matches(['"', '\'']))
}

/// What is inside an entry: after the key's line, or after the dash.
fn inner(entry: Vec<Line>, step: &Step) -> Vec<Line> {
    match step {
        Step::Key(_) => entry.into_iter().skip(1).collect(),
        Step::Index(_) => undash(entry),
    }
}

/// `- name: x` is, for what follows, the line `name: x` two columns further.
fn undash(mut entry: Vec<Line>) -> Vec<Line> {
    if let Some(first) = entry.first_mut() {
        let text = first.text[1..].trim_start_matches(' ').to_owned();
        first.indent += first.text.len() - text.len();
        first.text = text;
    }
    entry.retain(|line| !line.text.is_empty());
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# a comment
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  labels:
    app.kubernetes.io/name: web
spec:
  template:
    spec:
      containers:
      - name: one
        image: a

      # second
      - image: b
        name: two
        args: [x, y]
        resources:
          limits:
            cpu: 1
---
kind: Other
spec:
    list:
      -
        deep: 1
";

    #[test]
    fn fields_are_found_where_they_stand() {
        let table = [
            ("", 2),
            ("kind", 3),
            ("metadata.name", 5),
            ("metadata.labels[app.kubernetes.io/name]", 7),
            ("spec.template.spec.containers", 11),
            ("spec.template.spec.containers[0]", 12),
            ("spec.template.spec.containers[0].image", 13),
            ("spec.template.spec.containers[1].image", 16),
            ("spec.template.spec.containers[1].name", 17),
            ("spec.template.spec.containers[1].args[1]", 18),
            ("spec.template.spec.containers[1].resources.limits[cpu]", 21),
            ("spec.template.spec.containers[7].name", 11),
            ("spec.selector", 8),
            ("status", 2),
        ];
        for (field, line) in table {
            assert_eq!(line_of(TEXT, 1, field), line, "{field}");
        }
    }

    #[test]
    fn a_later_document_has_its_own_lines() {
        assert_eq!(line_of(TEXT, 22, "spec.list[0].deep"), 27);
        assert_eq!(line_of(TEXT, 23, "kind"), 23);
    }

    #[test]
    fn strange_paths_and_texts_end() {
        for field in ["[", "a[", "..", "a..b", "[]", "a[0", "]"] {
            line_of(TEXT, 1, field);
        }
        assert_eq!(line_of("", 1, "a.b"), 1);
        assert_eq!(line_of("{\"a\": {\"b\": 1}}", 1, "a.b"), 1);
    }
}
