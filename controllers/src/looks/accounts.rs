//! Looks of what rights rest on: service accounts with their tokens, and aggregated roles.

use crate::{
    caches::Caches,
    driver::Controller,
    legacy_tokens,
    plan::{Plan, to_value},
    role_aggregation, service_account, token_secrets,
};
use client::informer::ObjectKey;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{DynamicObject, ListParams},
    core::ApiResource,
};
use serde_json::Value;

/// The service account controller.
pub struct Accounts(pub Caches);

impl Controller for Accounts {
    type Key = ObjectKey;
    const NAME: &'static str = "service-account-controller";

    async fn look(&self, key: &ObjectKey, _: Timestamp) -> kube::Result<Plan> {
        let Some(namespace) = self.0.namespaces.get(key) else { return Ok(Plan::nothing()) };
        let account = self.0.accounts.get(&ObjectKey::new(&key.name, service_account::DEFAULT));
        Ok(service_account::reconcile(&namespace, account))
    }
}

/// Tokens whose account is gone.
pub struct TokenSecrets(pub Caches);

impl Controller for TokenSecrets {
    type Key = ObjectKey;
    const NAME: &'static str = "tokens-controller";

    async fn look(&self, key: &ObjectKey, _: Timestamp) -> kube::Result<Plan> {
        let Some(secret) = self.0.token_secrets.get(key) else { return Ok(Plan::nothing()) };
        let name = token_secrets::account_of(&secret);
        let account = name.and_then(|name| self.0.accounts.get(&ObjectKey::new(&key.namespace, name)));
        Ok(token_secrets::reconcile(&secret, account.as_ref()))
    }
}

/// The ClusterRole aggregation controller.
pub struct RoleAggregation(pub Caches);

impl Controller for RoleAggregation {
    type Key = ObjectKey;
    const NAME: &'static str = "clusterrole-aggregation-controller";

    async fn look(&self, key: &ObjectKey, _: Timestamp) -> kube::Result<Plan> {
        let role = self.0.cluster_roles.get(key);
        Ok(role.map_or_else(Plan::nothing, |role| {
            role_aggregation::reconcile(&role, &self.0.cluster_roles.list())
        }))
    }
}

/// Tokens in Secrets that nobody uses. It asks the server for pods, since it must not miss one, and does so seldom.
pub struct LegacyTokens {
    /// What it reads.
    pub caches: Caches,
    /// Whom it asks.
    pub client: Client,
}

impl Controller for LegacyTokens {
    type Key = ObjectKey;
    const NAME: &'static str = "legacy-serviceaccount-token-cleaner-controller";

    async fn look(&self, key: &ObjectKey, now: Timestamp) -> kube::Result<Plan> {
        let plan = LegacyTokens::plan(&self.caches, key, now);
        if plan.actions.is_empty() {
            return Ok(plan);
        }
        let pods = ApiResource::erase::<Pod>(&());
        let pods: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.namespace, &pods);
        let pods = pods.list(&ListParams::default()).await?;
        let pods: Vec<Value> = pods.items.iter().map(to_value).collect();
        Ok(legacy_tokens::unless_used(plan, &key.name, &pods, now))
    }
}

impl LegacyTokens {
    /// What it wants if no pod uses the token.
    pub fn plan(caches: &Caches, key: &ObjectKey, now: Timestamp) -> Plan {
        let Some(secret) = caches.token_secrets.get(key) else { return Plan::nothing() };
        let account = token_secrets::account_of(&secret);
        let view = legacy_tokens::Snapshot {
            account: account.and_then(|name| caches.accounts.get(&ObjectKey::new(&key.namespace, name))),
            tracking: caches.token_tracking.get(&ObjectKey::new("kube-system", legacy_tokens::TRACKING)),
        };
        legacy_tokens::reconcile(&secret, &view, now)
    }
}
