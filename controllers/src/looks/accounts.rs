//! Looks of what rights rest on: service accounts with their tokens, and aggregated roles.

use crate::{
    caches::Caches, driver::Controller, plan::Plan, role_aggregation, service_account, token_secrets,
};
use client::informer::ObjectKey;
use jiff::Timestamp;

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
