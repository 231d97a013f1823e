//! Looks of the quota controller. It asks the server for what it counts: a late cache would take back charges.

use crate::{
    caches::Caches,
    catalog::{self, Known},
    driver::Controller,
    plan::Plan,
    resource_quota::{self, Objects},
};
use client::informer::ObjectKey;
use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{DynamicObject, ListParams},
};

/// The quota controller.
pub struct Quotas {
    /// Where the quotas are.
    pub caches: Caches,
    /// Whom it asks.
    pub client: Client,
    /// The kinds that there were when the term began.
    pub known: Vec<Known>,
}

impl Controller for Quotas {
    type Key = ObjectKey;
    const NAME: &'static str = "resourcequota-controller";

    async fn look(&self, key: &ObjectKey, _: Timestamp) -> kube::Result<Plan> {
        let quota = self.caches.quotas.get(key).filter(|quota| quota.metadata.deletion_timestamp.is_none());
        let Some(quota) = quota else { return Ok(Plan::nothing()) };
        let mut objects = Vec::new();
        for (group, plural) in resource_quota::counted_kinds(&quota) {
            if let Some(known) = self.kind(&group, &plural).await? {
                objects.push(self.list(&known, &key.namespace).await?);
            }
        }
        Ok(resource_quota::reconcile(&quota, &objects))
    }
}

impl Quotas {
    /// The kind; one that was defined since the term began is asked for.
    async fn kind(&self, group: &str, plural: &str) -> kube::Result<Option<Known>> {
        let fits =
            |known: &&Known| known.kind.group == group && known.kind.plural == plural && known.namespaced;
        if let Some(known) = self.known.iter().find(fits) {
            return Ok(Some(known.clone()));
        }
        Ok(catalog::discover(&self.client).await?.iter().find(fits).cloned())
    }

    async fn list(&self, known: &Known, namespace: &str) -> kube::Result<Objects> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &known.kind);
        let list = api.list(&ListParams::default()).await?;
        Ok(Objects {
            group: known.kind.group.clone(),
            plural: known.kind.plural.clone(),
            items: list.items.iter().map(crate::plan::to_value).collect(),
        })
    }
}
