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
        let start = if path.from_root { self.root } else { current };
        self.walk(&path.steps, vec![start])
    }

    fn walk(&self, steps: &[Step], mut values: Vec<&'v Value>) -> Found<'v> {
        for step in steps {
            values = match step {
                Step::Union(paths) => self.union(paths, &values)?,
                step => self.step_all(step, values)?,
            };
        }
        Ok(values)
    }

    /// All that the first path finds in all values, then all that the second finds.
    fn union(&self, paths: &[Path], values: &[&'v Value]) -> Found<'v> {
        let found = paths.iter().map(|path| self.walk(&path.steps, values.to_vec()));
        Ok(found.collect::<Result<Vec<_>, _>>()?.concat())
    }

    /// A key that some of the values lack is fine; if all lack it, it is missing.
    fn step_all(&self, step: &Step, values: Vec<&'v Value>) -> Found<'v> {
        let mut found = Vec::new();
        let mut missing = None;
        for value in values {
            match self.step(step, value) {
                Ok(more) => found.extend(more),
                Err(error @ JsonPathError::NotFound(_)) => missing = Some(error),
                Err(error) => return Err(error),
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
            Step::Slice(start, end, step) => slice(value, *start, *end, *step),
            Step::Union(paths) => self.union(paths, &[value]),
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
    let missing = || JsonPathError::NotFound(name.into());
    value.get(name).map(|found| vec![found]).ok_or_else(missing)
}

fn index(index: i64, value: &Value) -> Found<'_> {
    let items = items(value)?;
    let length = items.len() as i64;
    let place = if index < 0 { index + length } else { index };
    match usize::try_from(place).ok().and_then(|place| items.get(place)) {
        Some(found) => Ok(vec![found]),
        None if value.is_null() => Ok(Vec::new()),
        None => {
            let why = format!("array index out of bounds: index {index}, length {length}");
            Err(JsonPathError::Index(why))
        }
    }
}

/// The items of a list; a null has none.
fn items(value: &Value) -> Result<&[Value], JsonPathError> {
    match value {
        Value::Array(items) => Ok(items),
        Value::Null => Ok(&[]),
        other => Err(JsonPathError::Index(format!("{} is not array or slice", print(other)))),
    }
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

fn slice(value: &Value, start: Option<i64>, end: Option<i64>, step: i64) -> Found<'_> {
    let items = items(value)?;
    let length = items.len() as i64;
    let place = |index: i64| (if index < 0 { index + length } else { index }).clamp(0, length) as usize;
    let (start, end) = (place(start.unwrap_or(0)), place(end.unwrap_or(length)));
    let step = usize::try_from(step).unwrap_or(1);
    Ok(items.get(start..end).unwrap_or_default().iter().step_by(step).collect())
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
