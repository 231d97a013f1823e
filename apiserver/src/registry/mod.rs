//! Which resources there are.
//!
//! A registry is read by every request and changed rarely (a custom resource definition comes or goes), so
//! readers take a shared, immutable table.

pub mod builtin;
mod control;
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
        let registry = Self::default();
        registry.replace(builtin::rows());
        registry
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

    /// Serves exactly these resources from now on.
    pub fn replace(&self, rows: Vec<Resource>) {
        let ordered: Vec<_> = rows.into_iter().map(Arc::new).collect();
        let by_path =
            ordered.iter().map(|r| (path_key(&r.group, &r.version, &r.plural), r.clone())).collect();
        *self.0.write() = Arc::new(Rows { ordered, by_path });
    }
}

fn path_key(group: &str, version: &str, plural: &str) -> String {
    format!("{group}/{version}/{plural}")
}
