//! Looks of the root CA that every namespace gets, and of a namespace's end.

use crate::{
    caches::Caches,
    catalog::{self, Known},
    driver::Controller,
    namespace::{self, Content, Remaining},
    plan::Plan,
    root_ca,
};
use client::informer::ObjectKey;
use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{DynamicObject, ListParams, ObjectList},
    core::PartialObjectMeta,
};
use std::collections::BTreeMap;

/// Objects per list request while a namespace is emptied.
const PAGE: u32 = 500;

/// The root CA publisher.
pub struct RootCa {
    /// What it reads.
    pub caches: Caches,
    /// The CA as PEM.
    pub ca: String,
}

impl Controller for RootCa {
    type Key = ObjectKey;
    const NAME: &'static str = "root-ca-certificate-publisher";

    async fn look(&self, key: &ObjectKey, _: Timestamp) -> kube::Result<Plan> {
        let Some(namespace) = self.caches.namespaces.get(key) else { return Ok(Plan::nothing()) };
        let map = self.caches.ca_maps.get(&ObjectKey::new(&key.name, root_ca::NAME));
        Ok(root_ca::reconcile(&namespace, map, &self.ca))
    }
}

/// The namespace controller. It asks the server for the content: an object that no cache shows yet must
/// not be left behind.
pub struct Namespaces {
    /// What it reads.
    pub caches: Caches,
    /// Whom it asks.
    pub client: Client,
}

impl Controller for Namespaces {
    type Key = ObjectKey;
    const NAME: &'static str = "namespace-controller";

    async fn look(&self, key: &ObjectKey, now: Timestamp) -> kube::Result<Plan> {
        let namespace =
            self.caches.namespaces.get(key).filter(|namespace| namespace::wants_content(namespace));
        let Some(namespace) = namespace else { return Ok(Plan::nothing()) };
        let content = self.content(&key.name).await;
        Ok(namespace::reconcile(&namespace, &content, now))
    }
}

impl Namespaces {
    async fn content(&self, namespace: &str) -> Content {
        let mut content = Content::default();
        let known = match catalog::discover(&self.client).await {
            Ok(known) => known,
            Err(error) => {
                content.discovery_failure = Some(error.to_string());
                return content;
            }
        };
        for known in known.into_iter().filter(|known| known.namespaced && known.collection) {
            match self.remaining(namespace, known).await {
                Ok(remaining) => content.remaining.extend(remaining),
                Err(error) => content.content_failure = Some(error.to_string()),
            }
        }
        content
    }

    async fn remaining(&self, namespace: &str, known: Known) -> kube::Result<Option<Remaining>> {
        let api: Api<PartialObjectMeta<DynamicObject>> =
            Api::namespaced_with(self.client.clone(), namespace, &known.kind);
        let list = api.list(&ListParams::default().limit(PAGE)).await?;
        Ok((!list.items.is_empty()).then(|| remaining_of(known, &list)))
    }
}

fn remaining_of(known: Known, list: &ObjectList<PartialObjectMeta<DynamicObject>>) -> Remaining {
    let further = usize::try_from(list.metadata.remaining_item_count.unwrap_or(0)).unwrap_or(0);
    let deleting = list.items.iter().filter(|object| object.metadata.deletion_timestamp.is_some()).count();
    let mut finalizers = BTreeMap::new();
    for finalizer in list.items.iter().flat_map(|object| object.metadata.finalizers.iter().flatten()) {
        *finalizers.entry(finalizer.clone()).or_default() += 1;
    }
    let count = list.items.len() + further;
    Remaining { kind: known.kind, count, undeleted: count - deleting, finalizers }
}
