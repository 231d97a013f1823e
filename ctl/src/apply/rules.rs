//! The merge rules of a kind, from the API description that is built in.
//!
//! Kinds that aren't built in (custom resources) have no strategic merge patch on any API server: they are
//! changed by plain merge patches, in which lists are replaced.

use api::schema::{Definitions, PatchStrategy, Schema};

use super::three_way::{ListMerge, Rules};
use crate::cluster::kinds::Kind;
use crate::cluster::request::PatchKind;

/// A place in a built-in type, or outside of what is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct SchemaRules {
    schema: Option<&'static Schema>,
    strategy: Option<&'static PatchStrategy>,
}

/// The rules of a kind, and the patch type that understands them.
pub fn of(kind: &Kind) -> (SchemaRules, PatchKind) {
    let schema = Definitions::builtin().of_kind(&kind.group, &kind.version, &kind.kind);
    let patch = if schema.is_some() { PatchKind::Strategic } else { PatchKind::Merge };
    (SchemaRules { schema, strategy: None }, patch)
}

impl Rules for SchemaRules {
    fn field(&self, name: &str) -> Self {
        let Some(schema) = self.schema else { return Self::default() };
        Self { schema: schema.child(name), strategy: schema.field(name).map(|field| &field.patch) }
    }

    fn item(&self) -> Self {
        Self { schema: self.schema.and_then(Schema::items), strategy: None }
    }

    fn list(&self) -> ListMerge {
        match self.strategy {
            Some(PatchStrategy { merge: true, merge_key: Some(key), .. }) => ListMerge::ByKey(key.clone()),
            Some(PatchStrategy { merge: true, merge_key: None, .. }) => ListMerge::Values,
            _ => ListMerge::Replace,
        }
    }

    fn retains_keys(&self) -> bool {
        self.strategy.is_some_and(|strategy| strategy.retain_keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::kinds::testing::kind;

    #[test]
    fn built_in_kinds_merge_by_their_keys() {
        let (rules, patch) = of(&kind("deploy"));
        assert_eq!(patch, PatchKind::Strategic);
        let pod = rules.field("spec").field("template").field("spec");
        assert_eq!(pod.field("containers").list(), ListMerge::ByKey("name".into()));
        assert_eq!(pod.field("containers").item().field("command").list(), ListMerge::Replace);
        assert_eq!(rules.field("metadata").field("finalizers").list(), ListMerge::Values);
        assert!(rules.field("spec").field("strategy").retains_keys());
    }

    #[test]
    fn unknown_kinds_are_merged_plainly() {
        let custom =
            Kind { group: "example.com".into(), version: "v1".into(), kind: "X".into(), ..Kind::default() };
        let (rules, patch) = of(&custom);
        assert_eq!(patch, PatchKind::Merge);
        assert_eq!(rules.field("spec").field("containers").list(), ListMerge::Replace);
    }
}
