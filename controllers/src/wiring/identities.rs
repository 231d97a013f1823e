//! Whom a change of what identities rest on concerns: namespaces, accounts, their tokens, the root CA.

use super::{Wires, for_each};
use crate::service_account;
use client::informer::{Change, ObjectKey};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, ServiceAccount};
use kube::ResourceExt;

impl Wires {
    pub fn token_secret(&self, change: &Change<Secret>) {
        for_each(change, |key| self.token(key));
    }

    fn token(&self, secret: ObjectKey) {
        self.queues.token_secrets.add(secret.clone());
        self.queues.legacy_tokens.add(secret);
    }

    /// Since when uses are noted decides about all tokens.
    pub fn tracking(&self, _: &Change<ConfigMap>) {
        let Some(caches) = self.caches.get() else { return };
        for secret in caches.token_secrets.list() {
            self.queues.legacy_tokens.add(ObjectKey::of(&*secret));
        }
    }

    pub fn namespace(&self, change: &Change<Namespace>) {
        self.collect(change);
        for_each(change, |key| {
            self.queues.namespaces.add(key.clone());
            self.queues.accounts.add(key.clone());
            self.queues.root_ca.add(key);
        });
    }

    pub fn account(&self, change: &Change<ServiceAccount>) {
        self.collect(change);
        for_each(change, |key| {
            if key.name == service_account::DEFAULT {
                self.queues.accounts.add(ObjectKey::cluster(&key.namespace));
            }
        });
        let (Some(caches), Some(account)) = (self.caches.get(), change.object()) else { return };
        for secret in caches.token_secrets.in_namespace(&account.namespace().unwrap_or_default()) {
            self.token(ObjectKey::of(&*secret));
        }
    }

    pub fn ca_map(&self, change: &Change<ConfigMap>) {
        for_each(change, |key| self.queues.root_ca.add(ObjectKey::cluster(&key.namespace)));
    }
}
