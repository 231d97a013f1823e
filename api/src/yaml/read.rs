//! From YAML events to values.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};
use serde_json::{Map, Value};

use super::Document;
use super::scalar::resolve;
use crate::schema::{Duplicate, ParseError, Parsed};

/// Most nodes that aliases may copy in one stream: enough for any manifest, too few for a bomb.
const MAX_COPIED_NODES: usize = 100_000;

pub(super) fn documents(text: &str) -> Result<Vec<Document>, ParseError> {
    let mut reader = Reader { events: Parser::new_from_str(text), anchors: HashMap::new(), copied: 0 };
    let mut documents = Vec::new();
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => return Ok(documents),
            (Event::DocumentStart(..), _) => documents.extend(reader.document()?),
            _ => {}
        }
    }
}

struct Reader<'a> {
    events: Parser<'a, granit_parser::StrInput<'a>>,
    anchors: HashMap<usize, Value>,
    copied: usize,
}

/// Where the reader is, as text, and what it noticed there.
#[derive(Default)]
struct Notes {
    path: String,
    duplicates: Vec<Duplicate>,
}

impl<'a> Reader<'a> {
    /// The next event that isn't a comment.
    fn next(&mut self) -> Result<(Event<'a>, Span), ParseError> {
        loop {
            match self.events.next_event() {
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok(event)) => return Ok(event),
                Some(Err(error)) => return Err(at(error.marker().line(), error.info())),
                None => return Ok((Event::StreamEnd, Span::default())),
            }
        }
    }

    /// The document that has just begun; `None` if there is nothing in it.
    fn document(&mut self) -> Result<Option<Document>, ParseError> {
        let (event, span) = self.next()?;
        if matches!(event, Event::DocumentEnd) {
            return Ok(None);
        }
        let mut notes = Notes::default();
        let line = span.start.line();
        let value = self.node(event, &span, &mut notes)?;
        self.anchors.clear();
        let parsed = Parsed { value, duplicates: notes.duplicates };
        Ok(Some(Document { parsed, line }).filter(|document| !document.parsed.value.is_null()))
    }

    fn node(&mut self, event: Event<'a>, span: &Span, notes: &mut Notes) -> Result<Value, ParseError> {
        let line = span.start.line();
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => (scalar(&text, style, tag.as_deref(), line)?, anchor),
            Event::SequenceStart(_, anchor, _) => (self.sequence(notes)?, anchor),
            Event::MappingStart(_, anchor, _) => (self.mapping(notes)?, anchor),
            Event::Alias(id) => (self.alias(id, line)?, 0),
            other => return Err(at(line, format!("unexpected {other:?}"))),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn alias(&mut self, id: usize, line: usize) -> Result<Value, ParseError> {
        let value = self.anchors.get(&id).ok_or_else(|| at(line, "unknown anchor referenced".into()))?;
        self.copied += nodes(value);
        if self.copied > MAX_COPIED_NODES {
            return Err(at(line, "document contains excessive aliasing".into()));
        }
        Ok(value.clone())
    }

    fn sequence(&mut self, notes: &mut Notes) -> Result<Value, ParseError> {
        let mut items = Vec::new();
        let outer = notes.path.len();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(Value::Array(items));
            }
            notes.path.push_str(&format!("[{}]", items.len()));
            items.push(self.node(event, &span, notes)?);
            notes.path.truncate(outer);
        }
    }

    fn mapping(&mut self, notes: &mut Notes) -> Result<Value, ParseError> {
        let mut map = Map::new();
        let mut merged = Vec::new();
        let outer = notes.path.len();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let line = span.start.line();
            let is_merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, _) if text == "<<");
            let key = key(self.node(event, &span, notes)?, line)?;
            push_key(&mut notes.path, &key);
            if map.contains_key(&key) {
                notes.duplicates.push(Duplicate {
                    path: notes.path.clone(),
                    key: key.clone(),
                    line: Some(line),
                });
            }
            let (event, span) = self.next()?;
            let value = self.node(event, &span, notes)?;
            notes.path.truncate(outer);
            match is_merge {
                true => merged.push((value, line)),
                false => drop(map.insert(key, value)),
            }
        }
        for (value, line) in merged {
            merge(&mut map, value, line)?;
        }
        Ok(Value::Object(map))
    }
}

/// `<<: *base`: keys of the base that the map doesn't have itself.
fn merge(map: &mut Map<String, Value>, base: Value, line: usize) -> Result<(), ParseError> {
    match base {
        Value::Object(base) => {
            for (key, value) in base {
                map.entry(key).or_insert(value);
            }
            Ok(())
        }
        Value::Array(bases) => bases.into_iter().try_for_each(|base| merge(map, base, line)),
        _ => Err(at(line, "map merge requires map or sequence of maps as the value".into())),
    }
}

fn push_key(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}

fn key(value: Value, line: usize) -> Result<String, ParseError> {
    match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Null => Err(at(line, "a null can't be a key".into())),
        _ => Err(at(line, "a map or list can't be a key".into())),
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, line: usize) -> Result<Value, ParseError> {
    let suffix = tag.filter(|tag| tag.is_yaml_core_schema()).map(Tag::suffix);
    match (suffix, style) {
        (Some("str"), _) => Ok(text.into()),
        (None, ScalarStyle::Plain) | (Some(_), _) => {
            resolve(text).ok_or_else(|| at(line, format!("{text} can't be written as JSON")))
        }
        _ => Ok(text.into()),
    }
}

fn nodes(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(nodes).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(nodes).sum::<usize>(),
        _ => 1,
    }
}

fn at(line: usize, message: String) -> ParseError {
    ParseError::Yaml { message, line }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn one(text: &str) -> Value {
        let mut documents = documents(text).expect("YAML");
        documents.remove(0).parsed.value
    }

    #[test]
    fn documents_know_their_lines() {
        let text = "# comment\n---\na: 1\n---\n# nothing\n---\n\nb: 2\n";
        let found: Vec<_> =
            documents(text).expect("YAML").into_iter().map(|d| (d.parsed.value, d.line)).collect();
        assert_eq!(found, [(json!({"a": 1}), 3), (json!({"b": 2}), 8)]);
    }

    #[test]
    fn quoted_scalars_are_texts() {
        assert_eq!(
            one("a: \"1\"\nb: '0644'\nc: 0644\nd: !!str 5\ne: |\n  x\n"),
            json!({"a": "1", "b": "0644", "c": 420, "d": "5", "e": "x\n"})
        );
    }

    #[test]
    fn anchors_and_merge_keys() {
        assert_eq!(
            one("base: &b {x: 1, z: 2}\nuse:\n  <<: *b\n  z: 3\n"),
            json!({"base": {"x": 1, "z": 2}, "use": {"x": 1, "z": 3}})
        );
    }

    #[test]
    fn aliases_cannot_explode() {
        let mut text = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n".to_string();
        for level in 1..8 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        assert!(documents(&text).expect_err("a bomb").to_string().contains("excessive aliasing"));
    }

    #[test]
    fn duplicates_have_their_line() {
        let mut found = documents("spec:\n  ports:\n  - port: 1\n    port: 2\n").expect("YAML");
        let duplicate = found.remove(0).parsed.duplicates.remove(0);
        assert_eq!((duplicate.path.as_str(), duplicate.line), ("spec.ports[0].port", Some(4)));
    }

    #[test]
    fn errors_have_their_line() {
        for (text, line) in
            [("a: 1\nb: [1\n", 3), ("a: 1\n b: 2\n", 2), ("a: 1\n---\nb: \"x\n", 4), ("a: 1\n\tb: 2\n", 2)]
        {
            let error = documents(text).expect_err(text);
            assert!(error.line().is_some_and(|found| found.abs_diff(line) <= 1), "{text:?}: {error}");
        }
    }
}
