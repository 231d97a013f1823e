//! Which kinds the API server has: asked once when the controllers start, and again for each namespace
//! that is emptied.

use kube::{
    Client,
    core::ApiResource,
    discovery::{Discovery, Scope, verbs},
};

/// A kind that can be listed, watched and deleted.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// The kind, in the group's preferred version.
    pub kind: ApiResource,
    /// False for cluster-scoped kinds.
    pub namespaced: bool,
    /// All objects of a namespace can be deleted in one request.
    pub collection: bool,
}

/// Group and plural name: where a kind is served.
pub type Place = (String, String);

impl Known {
    /// Where it is served, in whatever version.
    pub fn place(&self) -> Place {
        (self.kind.group.clone(), self.kind.plural.clone())
    }
}

/// All kinds that can be listed, watched and deleted. Events are left out: they own nothing, nothing owns
/// them, they expire by themselves, and there are many.
pub async fn discover(client: &Client) -> kube::Result<Vec<Known>> {
    let discovery = Discovery::new(client.clone()).run().await?;
    let resources = discovery.groups().flat_map(|group| group.recommended_resources());
    let known = resources.filter(|(_, capabilities)| {
        [verbs::LIST, verbs::WATCH, verbs::DELETE].iter().all(|verb| capabilities.supports_operation(verb))
    });
    let known = known.map(|(kind, capabilities)| Known {
        namespaced: capabilities.scope == Scope::Namespaced,
        collection: capabilities.supports_operation(verbs::DELETE_COLLECTION),
        kind,
    });
    let mut known: Vec<Known> = known.filter(|known| known.kind.kind != "Event").collect();
    known.sort_by(|a, b| (&a.kind.group, &a.kind.plural).cmp(&(&b.kind.group, &b.kind.plural)));
    Ok(known)
}
