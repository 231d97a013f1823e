//! Sets of paths: which parts of an object somebody owns.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::element::Element;
use crate::schema::{Schema, Shape};

/// A set of paths, as a tree. A path is in the set if its last step is a member where the others lead;
/// owning a part doesn't mean owning what is around it or inside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    members: BTreeSet<Element>,
    children: BTreeMap<Element, FieldSet>,
}

impl FieldSet {
    /// Whether it has no path.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.is_empty()
    }

    /// Whether the part at this one step is in the set.
    pub fn has(&self, element: &Element) -> bool {
        self.members.contains(element)
    }

    /// The paths that go through this step.
    pub fn below(&self, element: &Element) -> Option<&FieldSet> {
        self.children.get(element)
    }

    /// Adds the part at this step.
    pub fn insert(&mut self, element: Element) {
        self.members.insert(element);
    }

    /// Adds paths through this step.
    pub fn insert_below(&mut self, element: Element, set: FieldSet) {
        if set.is_empty() {
            return;
        }
        let merged = match self.children.remove(&element) {
            Some(old) => old.union(&set),
            None => set,
        };
        self.children.insert(element, merged);
    }

    /// Adds a path of field names.
    pub fn insert_fields(&mut self, path: &[&str]) {
        match path {
            [] => {}
            [last] => self.insert(Element::field(last)),
            [first, rest @ ..] => {
                let mut set = FieldSet::default();
                set.insert_fields(rest);
                self.insert_below(Element::field(first), set);
            }
        }
    }

    /// What is in either.
    pub fn union(&self, other: &FieldSet) -> FieldSet {
        let mut out = self.clone();
        out.members.extend(other.members.iter().cloned());
        for (element, set) in &other.children {
            out.insert_below(element.clone(), set.clone());
        }
        out
    }

    /// What is in both.
    pub fn intersection(&self, other: &FieldSet) -> FieldSet {
        let members = self.members.intersection(&other.members).cloned().collect();
        let mut out = FieldSet { members, children: BTreeMap::new() };
        for (element, set) in &self.children {
            if let Some(others) = other.children.get(element) {
                out.insert_below(element.clone(), set.intersection(others));
            }
        }
        out
    }

    /// What is in this one only.
    pub fn difference(&self, other: &FieldSet) -> FieldSet {
        let members = self.members.difference(&other.members).cloned().collect();
        let mut out = FieldSet { members, children: BTreeMap::new() };
        for (element, set) in &self.children {
            let left =
                other.children.get(element).map_or_else(|| set.clone(), |others| set.difference(others));
            out.insert_below(element.clone(), left);
        }
        out
    }

    /// What is in this one, without the parts of `other` and everything inside of them.
    pub fn without(&self, other: &FieldSet) -> FieldSet {
        let mut out = FieldSet::default();
        out.members.extend(self.members.difference(&other.members).cloned());
        for (element, set) in &self.children {
            if other.members.contains(element) {
                continue;
            }
            let left = other.children.get(element).map_or_else(|| set.clone(), |others| set.without(others));
            out.insert_below(element.clone(), left);
        }
        out
    }

    /// The set with all struct fields on the way to its paths as members too. The keys of maps are not
    /// added: a map doesn't hold its keys by itself.
    pub fn with_named_fields(&self, schema: Option<&Schema>) -> FieldSet {
        let mut out = FieldSet { members: self.members.clone(), children: BTreeMap::new() };
        for (element, set) in &self.children {
            if let Element::Field(name) = element
                && schema.is_some_and(|schema| schema.field(name).is_some())
            {
                out.members.insert(element.clone());
            }
            out.children.insert(element.clone(), set.with_named_fields(step(schema, element)));
        }
        out
    }

    /// All paths, in order, as upstream writes them.
    pub fn paths(&self) -> Vec<String> {
        let mut paths: Vec<String> = self.members.iter().map(Element::to_string).collect();
        for (element, set) in &self.children {
            paths.extend(set.paths().into_iter().map(|path| format!("{element}{path}")));
        }
        paths.sort();
        paths
    }

    /// The form of `fieldsV1`.
    pub fn to_json(&self) -> Value {
        let mut out = Map::new();
        for member in &self.members {
            out.insert(member.encode(), Value::Object(Map::new()));
        }
        for (element, set) in &self.children {
            let mut inner = set.to_json();
            if self.members.contains(element)
                && let Value::Object(inner) = &mut inner
            {
                inner.insert(".".into(), Value::Object(Map::new()));
            }
            out.insert(element.encode(), inner);
        }
        Value::Object(out)
    }

    /// Reads `fieldsV1`. Steps that this program doesn't know are an error.
    pub fn from_json(json: &Value) -> Result<Self, String> {
        let mut out = FieldSet::default();
        for (text, inner) in json.as_object().ok_or("fieldsV1 must be an object")? {
            if text == "." {
                continue;
            }
            let element =
                Element::decode(text).ok_or_else(|| format!("invalid path element {text:?} in fieldsV1"))?;
            let keys = inner.as_object().ok_or_else(|| format!("{text:?} in fieldsV1 must be an object"))?;
            if keys.is_empty() || keys.contains_key(".") {
                out.insert(element.clone());
            }
            out.insert_below(element, Self::from_json(inner)?);
        }
        Ok(out)
    }
}

/// The type that a step leads to.
pub(super) fn step<'a>(schema: Option<&'a Schema>, element: &Element) -> Option<&'a Schema> {
    let schema = schema?;
    match (&schema.shape, element) {
        (Shape::Object(_) | Shape::Map(_), Element::Field(name)) => schema.child(name),
        (Shape::List(list), _) => Some(list.items.get()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(json: Value) -> FieldSet {
        FieldSet::from_json(&json).unwrap()
    }

    #[test]
    fn json_survives() {
        let json = json!({"f:spec": {".": {}, "f:replicas": {}, "f:list": {"k:{\"name\":\"a\"}": {".": {}, "f:x": {}}}}});
        assert_eq!(set(json.clone()).to_json(), json);
        assert_eq!(
            set(json).paths(),
            [".spec", ".spec.list[name=\"a\"]", ".spec.list[name=\"a\"].x", ".spec.replicas"]
        );
        assert!(FieldSet::from_json(&json!({"x": {}})).is_err());
    }

    #[test]
    fn set_operations() {
        let a = set(json!({"f:a": {}, "f:b": {".": {}, "f:c": {}, "f:d": {}}}));
        let b = set(json!({"f:b": {"f:c": {}}, "f:e": {}}));
        assert_eq!(a.union(&b), set(json!({"f:a": {}, "f:b": {".": {}, "f:c": {}, "f:d": {}}, "f:e": {}})));
        assert_eq!(a.intersection(&b), set(json!({"f:b": {"f:c": {}}})));
        assert_eq!(a.difference(&b), set(json!({"f:a": {}, "f:b": {".": {}, "f:d": {}}})));
        assert_eq!(a.without(&set(json!({"f:b": {}}))), set(json!({"f:a": {}})));
        assert!(a.difference(&a).is_empty());
    }
}
