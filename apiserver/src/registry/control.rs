//! Rows of the kinds by which a cluster is run: admission, flow control, addresses, devices, quotas.

use crate::registry::resource::Resource;
use crate::registry::row::Row;
use crate::registry::strategy::Traits;
use crate::strategies::{ApiService, Fresh, Ordinary};

/// Kinds of the core group about how much a namespace may use.
pub(super) fn limits() -> Vec<Resource> {
    let row = |kind, plural| Row::new("", "io.k8s.api.core.v1", kind, plural);
    vec![
        row("LimitRange", "limitranges").short("limits").special(Ordinary(Traits::CREATES_ON_UPDATE)).build(),
        row("ResourceQuota", "resourcequotas")
            .short("quota")
            .status()
            .special(Fresh(Traits::RETURNS_OBJECT))
            .build(),
    ]
}

pub(super) fn admission_registration() -> Vec<Resource> {
    let row = |kind, plural| {
        Row::new("admissionregistration.k8s.io", "io.k8s.api.admissionregistration.v1", kind, plural)
            .cluster()
            .category("api-extensions")
            .special(Ordinary(Traits::COUNTED))
    };
    vec![
        row("MutatingAdmissionPolicy", "mutatingadmissionpolicies").build(),
        row("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings").build(),
        row("MutatingWebhookConfiguration", "mutatingwebhookconfigurations").build(),
        row("ValidatingAdmissionPolicy", "validatingadmissionpolicies")
            .status()
            .special(Fresh(Traits::COUNTED))
            .build(),
        row("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings").build(),
        row("ValidatingWebhookConfiguration", "validatingwebhookconfigurations").build(),
    ]
}

/// What serves which group and version.
pub(super) fn api_registration() -> Vec<Resource> {
    let package = "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1";
    vec![
        Row::new("apiregistration.k8s.io", package, "APIService", "apiservices")
            .category("api-extensions")
            .cluster()
            .status()
            .special(ApiService)
            .build(),
    ]
}

pub(super) fn flow_control() -> Vec<Resource> {
    let row = |kind, plural| {
        Row::new("flowcontrol.apiserver.k8s.io", "io.k8s.api.flowcontrol.v1", kind, plural)
            .cluster()
            .status()
            .special(Fresh(Traits::COUNTED))
    };
    vec![
        row("FlowSchema", "flowschemas").build(),
        row("PriorityLevelConfiguration", "prioritylevelconfigurations").build(),
    ]
}

/// Addresses of services.
pub(super) fn addresses() -> Vec<Resource> {
    let row = |kind, plural| Row::new("networking.k8s.io", "io.k8s.api.networking.v1", kind, plural);
    vec![
        row("IPAddress", "ipaddresses")
            .short("ip")
            .cluster()
            .fields(&[
                ("spec.parentRef.group", "/spec/parentRef/group"),
                ("spec.parentRef.resource", "/spec/parentRef/resource"),
                ("spec.parentRef.namespace", "/spec/parentRef/namespace"),
                ("spec.parentRef.name", "/spec/parentRef/name"),
            ])
            .special(Ordinary(Traits::COUNTED))
            .build(),
        row("ServiceCIDR", "servicecidrs").cluster().status().special(Fresh(Traits::COUNTED)).build(),
    ]
}

pub(super) fn node() -> Vec<Resource> {
    vec![
        Row::new("node.k8s.io", "io.k8s.api.node.v1", "RuntimeClass", "runtimeclasses")
            .cluster()
            .special(Ordinary(Traits::CREATES_ON_UPDATE))
            .build(),
    ]
}

pub(super) fn devices() -> Vec<Resource> {
    let row = |kind, plural| Row::new("resource.k8s.io", "io.k8s.api.resource.v1", kind, plural);
    vec![
        row("DeviceClass", "deviceclasses").cluster().special(Ordinary(Traits::COUNTED_OBJECT)).build(),
        row("DeviceTaintRule", "devicetaintrules")
            .cluster()
            .status()
            .special(Fresh(Traits::COUNTED_OBJECT))
            .build(),
        row("ResourceClaim", "resourceclaims").status().special(Fresh(Traits::RETURNS_OBJECT)).build(),
        row("ResourceClaimTemplate", "resourceclaimtemplates")
            .special(Ordinary(Traits::RETURNS_OBJECT))
            .build(),
        row("ResourceSlice", "resourceslices")
            .cluster()
            .fields(&[("spec.driver", "/spec/driver"), ("spec.nodeName", "/spec/nodeName")])
            .special(Ordinary(Traits::COUNTED_OBJECT))
            .build(),
    ]
}

pub(super) fn storage_migration() -> Vec<Resource> {
    vec![
        Row::new(
            "storagemigration.k8s.io",
            "io.k8s.api.storagemigration.v1",
            "StorageVersionMigration",
            "storageversionmigrations",
        )
        .cluster()
        .status()
        .special(Fresh(Traits::ORDINARY))
        .build(),
    ]
}
