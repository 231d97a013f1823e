//! Which resources there are.
//!
//! A registry is read by every request and changed rarely (a custom resource definition comes or goes), so
//! readers take a shared, immutable table.

pub mod builtin;
mod control;
pub mod custom;
mod fields;
pub mod resource;
mod row;
pub mod strategy;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::registry::resource::Resource;

/// All resources that are served now.
#[derive(Debug, Default)]
pub struct Registry(RwLock<Arc<Rows>>);

#[derive(Debug, Default)]
struct Rows {
    ordered: Vec<Arc<Resource>>,
    by_path: HashMap<String, Arc<Resource>>,
}

impl Registry {
    /// The resources that every cluster has.
    pub fn builtin() -> Self {
        let rows = builtin::rows().into_iter().map(Arc::new).collect();
        Self(RwLock::new(Arc::new(Rows::of(rows))))
    }

    /// The resource at `/apis/GROUP/VERSION/…/PLURAL` (or `/api/VERSION/…` for the empty group).
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.0.read().by_path.get(&path_key(group, version, plural)).cloned()
    }

    /// All resources, in the order discovery lists them: by group as registered, then by name.
    pub fn resources(&self) -> Vec<Arc<Resource>> {
        self.0.read().ordered.clone()
    }

    /// The groups and their versions in the order of preference; the core group is "".
    pub fn groups(&self) -> Vec<(String, Vec<String>)> {
        let mut groups: Vec<(String, Vec<String>)> = Vec::new();
        for resource in &self.0.read().ordered {
            let at = groups.iter().position(|(group, _)| *group == resource.group).unwrap_or_else(|| {
                groups.push((resource.group.clone(), Vec::new()));
                groups.len() - 1
            });
            if !groups[at].1.contains(&resource.version) {
                groups[at].1.push(resource.version.clone());
            }
        }
        groups
    }

    /// Serves these custom resources from now on, besides the built-in ones, which they can't replace.
    pub fn replace_custom(&self, rows: Vec<Arc<Resource>>) {
        let mut guard = self.0.write();
        let builtin = guard.ordered.iter().filter(|row| row.custom.is_none()).cloned();
        *guard = Arc::new(Rows::of(builtin.chain(rows).collect()));
    }
}

impl Rows {
    fn of(mut ordered: Vec<Arc<Resource>>) -> Self {
        let mut by_path = HashMap::new();
        ordered.retain(|row| {
            let key = path_key(&row.group, &row.version, &row.plural);
            let is_new = !by_path.contains_key(&key);
            by_path.entry(key).or_insert_with(|| row.clone());
            is_new
        });
        Self { ordered, by_path }
    }
}

fn path_key(group: &str, version: &str, plural: &str) -> String {
    format!("{group}/{version}/{plural}")
}
