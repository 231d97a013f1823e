//! A row of the table of built-in resources in the making.

use std::sync::Arc;

use crate::registry::resource::{Home, Resource, SelectableField, Subresource, SubresourceAction, Verbs};
use crate::registry::strategy::{Review, Strategy, Traits};
use crate::request::Verb;
use crate::strategies::Ordinary;

/// A row in the making; what isn't said is ordinary.
pub(super) struct Row(Resource);

impl Row {
    pub(super) fn new(group: &str, package: &str, kind: &str, plural: &str) -> Self {
        Self(Resource {
            group: group.to_owned(),
            version: "v1".to_owned(),
            kind: kind.to_owned(),
            list_kind: format!("{kind}List"),
            plural: plural.to_owned(),
            singular: kind.to_lowercase(),
            short_names: Vec::new(),
            categories: Vec::new(),
            namespaced: true,
            verbs: Verbs::ALL,
            subresources: Vec::new(),
            selectable_fields: Vec::new(),
            columns: Vec::new(),
            definition: format!("{package}.{kind}"),
            stored_as: None,
            strategy: Arc::new(Ordinary(Traits::ORDINARY)),
            custom: None,
        })
    }

    pub(super) fn version(mut self, version: &str) -> Self {
        self.0.version = version.to_owned();
        self
    }

    pub(super) fn short(mut self, name: &str) -> Self {
        self.0.short_names.push(name.to_owned());
        self
    }

    pub(super) fn category(mut self, name: &str) -> Self {
        self.0.categories.push(name.to_owned());
        self
    }

    pub(super) fn cluster(mut self) -> Self {
        self.0.namespaced = false;
        self
    }

    pub(super) fn namespaced(mut self) -> Self {
        self.0.namespaced = true;
        self
    }

    pub(super) fn verbs(mut self, verbs: Verbs) -> Self {
        self.0.verbs = verbs;
        self
    }

    pub(super) fn special(mut self, strategy: impl Strategy + 'static) -> Self {
        self.0.strategy = Arc::new(strategy);
        self
    }

    pub(super) fn review(self, review: Review) -> Self {
        self.cluster()
            .verbs(Verbs::CREATE)
            .special(Ordinary(Traits { review: Some(review), ..Traits::ORDINARY }))
    }

    pub(super) fn fields(mut self, fields: &[(&str, &str)]) -> Self {
        self.0.selectable_fields = fields
            .iter()
            .map(|(label, pointer)| SelectableField { label: (*label).into(), pointer: (*pointer).into() })
            .collect();
        self
    }

    pub(super) fn status(self) -> Self {
        let (group, version, kind) = (self.0.group.clone(), self.0.version.clone(), self.0.kind.clone());
        self.sub("status", (&group, &version, &kind), Verbs::GET_PATCH_UPDATE, SubresourceAction::Status)
    }

    pub(super) fn scale(self) -> Self {
        let scale = ("autoscaling", "v1", "Scale");
        self.sub("scale", scale, Verbs::GET_PATCH_UPDATE, SubresourceAction::Scale)
    }

    /// What listens there may be asked anything: a kind of options of its own says what.
    pub(super) fn proxy(self) -> Self {
        const VERBS: Verbs =
            Verbs::of(&[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update, Verb::Options]);
        let kind = format!("{}ProxyOptions", self.0.kind);
        self.sub("proxy", ("", "v1", &kind), VERBS, SubresourceAction::Proxy)
    }

    pub(super) fn sub(
        mut self,
        name: &str,
        gvk: (&str, &str, &str),
        verbs: Verbs,
        action: SubresourceAction,
    ) -> Self {
        self.0.subresources.push(Subresource {
            name: name.to_owned(),
            group: gvk.0.to_owned(),
            version: gvk.1.to_owned(),
            kind: gvk.2.to_owned(),
            verbs,
            action,
        });
        self
    }

    /// The same objects as those of another row, which is how they are stored.
    pub(super) fn stored_as(mut self, group: &str, version: &str, plural: &str) -> Self {
        let (group, version, plural) = (group.to_owned(), version.to_owned(), plural.to_owned());
        self.0.stored_as = Some(Home { group, version, plural });
        self
    }

    pub(super) fn build(mut self) -> Resource {
        self.0.columns = crate::table::columns(&self.0.group, &self.0.kind);
        self.0
    }
}
