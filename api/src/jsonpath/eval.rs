//! What a template finds in a value, and how it is printed.

use std::cmp::Ordering;

use serde_json::Value;

use super::{Comparison, Filter, JsonPathError, Node, Operand, Path, Step};

/// Evaluates paths over one object.
pub(super) struct Evaluator<'v> {
    pub(super) root: &'v Value,
    pub(super) allow_missing: bool,
}

type Found<'v> = Result<Vec<&'v Value>, JsonPathError>;

impl<'v> Evaluator<'v> {
    pub(super) fn render(
        &self,
        nodes: &[Node],
        current: &'v Value,
        out: &mut String,
    ) -> Result<(), JsonPathError> {
        for node in nodes {
            match node {
                Node::Text(text) => out.push_str(text),
                Node::Path(path) => out.push_str(&join(&self.find(path, current)?)),
                Node::Range(path, body) => {
                    for item in self.find(path, current)? {
                        self.render(body, item, out)?;
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn find(&self, path: &Path, current: &'v Value) -> Found<'v> {
        let mut values = vec![if path.from_root { self.root } else { current }];
        for step in &path.steps {
            values = self.step_all(step, values)?;
        }
        Ok(values)
    }

    /// A key or index that some of the values lack is fine; if all lack it, it is missing.
    fn step_all(&self, step: &Step, values: Vec<&'v Value>) -> Found<'v> {
        let mut found = Vec::new();
        let mut missing = None;
        for value in values {
            match self.step(step, value) {
                Ok(more) => found.extend(more),
                Err(error) => missing = Some(error),
            }
        }
        match missing {
            Some(error) if found.is_empty() && !self.allow_missing => Err(error),
            _ => Ok(found),
        }
    }

    fn step(&self, step: &Step, value: &'v Value) -> Found<'v> {
        match step {
            Step::Field(name) => field(name, value),
            Step::Wildcard => Ok(children(value)),
            Step::Descend => Ok(descend(value)),
            Step::Index(place) => index(*place, value),
            Step::Slice(start, end, step) => Ok(slice(value, *start, *end, *step)),
            Step::Union(paths) => {
                let found = paths.iter().map(|path| self.find(path, value));
                Ok(found.collect::<Result<Vec<_>, _>>()?.concat())
            }
            Step::Filter(filter) => Ok(self.filter(filter, value)),
        }
    }

    fn filter(&self, filter: &Filter, value: &'v Value) -> Vec<&'v Value> {
        children(value).into_iter().filter(|item| self.holds(filter, item)).collect()
    }

    fn holds(&self, filter: &Filter, item: &'v Value) -> bool {
        let quiet = Evaluator { root: self.root, allow_missing: true };
        let left = quiet.operand(&filter.left, item);
        match &filter.compare {
            None => left.is_some(),
            Some((comparison, right)) => match (left, quiet.operand(right, item)) {
                (Some(left), Some(right)) => compare(&left, *comparison, &right),
                _ => false,
            },
        }
    }

    fn operand(&self, operand: &Operand, item: &'v Value) -> Option<Value> {
        match operand {
            Operand::Literal(value) => Some(value.clone()),
            Operand::Path(path) => self.find(path, item).ok()?.first().map(|value| (*value).clone()),
        }
    }
}

fn field<'v>(name: &str, value: &'v Value) -> Found<'v> {
    let missing = || JsonPathError::NotFound(format!("{name} is not found"));
    value.get(name).map(|found| vec![found]).ok_or_else(missing)
}

fn index(index: i64, value: &Value) -> Found<'_> {
    let Some(items) = value.as_array() else {
        return Err(JsonPathError::NotFound(format!("{} is not array or slice", print(value))));
    };
    let length = items.len() as i64;
    let place = if index < 0 { index + length } else { index };
    let out_of_bounds = || {
        let why = format!("array index out of bounds: index {index}, length {length}");
        JsonPathError::NotFound(why)
    };
    let found = usize::try_from(place).ok().and_then(|place| items.get(place));
    found.map(|found| vec![found]).ok_or_else(out_of_bounds)
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    }
}

fn descend(value: &Value) -> Vec<&Value> {
    let mut all = vec![value];
    for child in children(value) {
        all.extend(descend(child));
    }
    all
}

fn slice(value: &Value, start: Option<i64>, end: Option<i64>, step: i64) -> Vec<&Value> {
    let Some(items) = value.as_array() else { return Vec::new() };
    let length = items.len() as i64;
    let place = |index: i64| (if index < 0 { index + length } else { index }).clamp(0, length) as usize;
    let (start, end) = (place(start.unwrap_or(0)), place(end.unwrap_or(length)));
    match items.get(start..end) {
        Some(items) => items.iter().step_by(usize::try_from(step).unwrap_or(1)).collect(),
        None => Vec::new(),
    }
}

fn compare(left: &Value, comparison: Comparison, right: &Value) -> bool {
    let order = order(left, right);
    match comparison {
        Comparison::Equal => order == Some(Ordering::Equal),
        Comparison::NotEqual => order != Some(Ordering::Equal),
        Comparison::Less => order == Some(Ordering::Less),
        Comparison::Greater => order == Some(Ordering::Greater),
        Comparison::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Comparison::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    }
}

/// Values of different types have no order.
fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64()?.partial_cmp(&right.as_f64()?),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        _ => (left == right).then_some(Ordering::Equal),
    }
}

fn join(values: &[&Value]) -> String {
    let texts: Vec<String> = values.iter().map(|value| print(value)).collect();
    texts.join(" ")
}

/// A text without quotes, a null as nothing, maps and lists as JSON.
fn print(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
