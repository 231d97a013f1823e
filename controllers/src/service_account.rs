//! ServiceAccount: every active namespace has one called `default`, which pods run under.

use crate::plan::{Action, Plan};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::{ResourceExt, core::ApiResource};
use serde_json::json;
use std::sync::Arc;

/// Upstream's name.
pub const DEFAULT: &str = "default";

/// What to do for `namespace`, given its account called [`DEFAULT`].
pub fn reconcile(namespace: &Namespace, account: Option<Arc<ServiceAccount>>) -> Plan {
    let mut plan = Plan::nothing();
    if is_active(namespace) && account.is_none() {
        plan.push(Action::Create {
            kind: ApiResource::erase::<ServiceAccount>(&()),
            object: json!({
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"namespace": namespace.name_any(), "name": DEFAULT},
            }),
            announce: None,
            reason: "every namespace has a default service account".to_owned(),
        });
    }
    plan
}

/// True unless the namespace is being deleted; nothing may be created in it then.
pub fn is_active(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    namespace.metadata.deletion_timestamp.is_none() && phase != Some("Terminating")
}
