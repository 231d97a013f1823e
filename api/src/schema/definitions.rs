//! The embedded definitions of Kubernetes 1.37 (see `data/derive.py` for where they come from).
//!
//! `schemas.txt` is searched in place (its lines are sorted) and a line is compiled when its definition is
//! first asked for. The descriptions, which only clients read, stay compressed until OpenAPI is served.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::{OnceLock, RwLock};

use serde_json::Value;
use serde_json::value::RawValue;

use super::{Schema, Shape};

static SCHEMAS: &str = include_str!("../../data/schemas.txt");
static KINDS: &str = include_str!("../../data/kinds.txt");
static PUBLISHED: &[u8] = include_bytes!("../../data/definitions.json.gz");

/// The built-in definitions.
pub struct Definitions {
    compiled: RwLock<BTreeMap<&'static str, &'static Schema>>,
}

impl Definitions {
    /// The definitions of this binary. Costs nothing until a definition is asked for.
    pub fn builtin() -> &'static Definitions {
        static BUILTIN: OnceLock<Definitions> = OnceLock::new();
        BUILTIN.get_or_init(|| Definitions { compiled: RwLock::default() })
    }

    /// The definition of this name, e.g. `io.k8s.api.core.v1.Pod`.
    pub fn schema(&self, name: &str) -> Option<&'static Schema> {
        if let Some(schema) = self.compiled.read().expect("nobody panics while holding the lock").get(name) {
            return Some(schema);
        }
        let (name, json) = find(SCHEMAS, name)?;
        let json: Value = serde_json::from_str(json).expect("the embedded definitions are JSON");
        let mut schema =
            Schema::compile(&go_type(name), &json).expect("the embedded definitions are schemas");
        if let Shape::Object(object) = &mut schema.shape {
            object.zeroed = object.required.clone();
        }
        let mut compiled = self.compiled.write().expect("nobody panics while holding the lock");
        // Definitions live as long as the process: there are 862, each compiled at most once (a race
        // between two first users leaks one copy).
        Some(compiled.entry(name).or_insert_with(|| Box::leak(Box::new(schema))))
    }

    /// The name of the definition of a kind; `group` is empty for the core group.
    pub fn definition_of(&self, group: &str, version: &str, kind: &str) -> Option<&'static str> {
        find(KINDS, &format!("{group}/{version}/{kind}")).map(|(_, definition)| definition)
    }

    /// The schema of a kind; `group` is empty for the core group.
    pub fn of_kind(&self, group: &str, version: &str, kind: &str) -> Option<&'static Schema> {
        self.schema(self.definition_of(group, version, kind)?)
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        SCHEMAS.lines().filter_map(|line| Some(line.split_once(' ')?.0))
    }

    /// All kinds as (group, version, kind, definition), sorted by group.
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, &'static str, &'static str, &'static str)> {
        KINDS.lines().filter_map(|line| {
            let (gvk, definition) = line.split_once(' ')?;
            let mut parts = gvk.split('/');
            Some((parts.next()?, parts.next()?, parts.next()?, definition))
        })
    }

    /// `components.schemas` of an OpenAPI v3 document: these definitions and all they refer to, with
    /// descriptions, as raw JSON by name.
    ///
    /// Inflates about 2 MB and lets go of it again: the caller keeps what it needs.
    pub fn openapi_v3(&self, names: &[&str]) -> BTreeMap<String, Box<RawValue>> {
        let mut all = published();
        let mut result = BTreeMap::new();
        let mut wanted: BTreeSet<String> = names.iter().map(|name| name.to_string()).collect();
        while let Some(name) = wanted.pop_first() {
            if let Some(schema) = all.remove(&name) {
                wanted.extend(references(schema.get()).map(String::from));
                result.insert(name, schema);
            }
        }
        result
    }
}

fn published() -> BTreeMap<String, Box<RawValue>> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(PUBLISHED).read_to_string(&mut text).expect("the embedded file is gzip");
    serde_json::from_str(&text).expect("the embedded file is a JSON object")
}

const REFERENCE: &str = "\"#/components/schemas/";

fn references(json: &str) -> impl Iterator<Item = &str> {
    json.split(REFERENCE).skip(1).filter_map(|rest| Some(rest.split_once('"')?.0))
}

/// `v1.PodSpec` for `io.k8s.api.core.v1.PodSpec`.
pub(super) fn go_type(name: &str) -> String {
    let start = name.rmatch_indices('.').nth(1).map_or(0, |(at, _)| at + 1);
    name[start..].to_string()
}

/// The line of `table` that begins with `key` and a space, split there. The lines are sorted by key.
fn find(table: &'static str, key: &str) -> Option<(&'static str, &'static str)> {
    let (mut low, mut high) = (0, table.len());
    while low < high {
        let middle = low + (high - low) / 2;
        let start = table.as_bytes()[..middle].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let end = table.as_bytes()[middle..]
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(table.len(), |at| middle + at);
        let (found, value) = table[start..end].split_once(' ')?;
        match found.cmp(key) {
            std::cmp::Ordering::Less => low = end + 1,
            std::cmp::Ordering::Greater => high = start,
            std::cmp::Ordering::Equal => return Some((found, value)),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(schema: &'static Schema) {
        match &schema.shape {
            Shape::Object(object) => {
                for field in object.fields.values() {
                    field.schema.get();
                }
            }
            Shape::Map(values) => drop(values.get()),
            Shape::List(list) => drop(list.items.get()),
            _ => {}
        }
    }

    #[test]
    fn every_definition_compiles_and_every_link_leads_somewhere() {
        let definitions = Definitions::builtin();
        assert_eq!(definitions.names().count(), 862);
        for name in definitions.names() {
            follow(definitions.schema(name).unwrap_or_else(|| panic!("{name} is not found")));
        }
    }

    #[test]
    fn every_kind_has_a_definition() {
        let definitions = Definitions::builtin();
        for (group, version, kind, definition) in definitions.kinds() {
            assert_eq!(definitions.definition_of(group, version, kind), Some(definition));
            assert!(definitions.schema(definition).is_some(), "{definition}");
        }
        assert_eq!(
            definitions.definition_of("apps", "v1", "Deployment"),
            Some("io.k8s.api.apps.v1.Deployment")
        );
        assert_eq!(definitions.definition_of("apps", "v1", "Deploy"), None);
    }

    #[test]
    fn openapi_holds_all_that_is_referred_to() {
        let schemas = Definitions::builtin().openapi_v3(&["io.k8s.api.core.v1.Pod"]);
        let pod: Value = serde_json::from_str(schemas["io.k8s.api.core.v1.Pod"].get()).expect("JSON");
        assert_eq!(pod["x-kubernetes-group-version-kind"][0]["kind"], "Pod");
        assert!(pod["properties"]["spec"]["description"].is_string());
        for schema in schemas.values() {
            for name in references(schema.get()) {
                assert!(schemas.contains_key(name), "{name} is referred to, but missing");
            }
        }
        assert!(!schemas.contains_key("io.k8s.api.apps.v1.Deployment"));
    }

    #[test]
    fn go_types_have_their_package() {
        assert_eq!(go_type("io.k8s.api.core.v1.PodSpec"), "v1.PodSpec");
    }
}
