//! Rules that are data: one line says which field of which kind must look how.
//!
//! A path is dotted; `[]` behind a name means each item of that list. Rules below something that isn't
//! there don't apply, so `spec.limited.limitResponse.type` is asked for only where there is a
//! `limitResponse`. What takes more than a line is a function elsewhere.

use super::field::{Errors, Field, label_selector, same};
use crate::name::{self, Checked};

/// What a field must look like.
#[derive(Clone, Copy)]
enum Rule {
    /// It is there and not empty.
    Present,
    /// It is one of these texts, if it is given.
    OneOf(&'static [&'static str]),
    /// It is a number within these bounds, if it is given.
    Between(i64, i64),
    /// It is a text that follows a rule, if it is given.
    Text(fn(&str) -> Checked),
    /// It is a selector of labels.
    Selector,
    /// No more items than this.
    AtMost(usize),
    /// It never changes.
    Fixed,
}

use Rule::{AtMost, Between, Fixed, OneOf, Present, Selector, Text};

type Line = (&'static str, &'static str, Rule);

const HOOKS: &[Line] = &[
    ("*WebhookConfiguration", "webhooks[].name", Present),
    ("*WebhookConfiguration", "webhooks[].name", Text(name::dns1123_subdomain)),
    ("*WebhookConfiguration", "webhooks[].failurePolicy", OneOf(&["Fail", "Ignore"])),
    ("*WebhookConfiguration", "webhooks[].matchPolicy", OneOf(&["Equivalent", "Exact"])),
    ("*WebhookConfiguration", "webhooks[].sideEffects", Present),
    ("*WebhookConfiguration", "webhooks[].sideEffects", OneOf(&["None", "NoneOnDryRun"])),
    ("*WebhookConfiguration", "webhooks[].timeoutSeconds", Between(1, 30)),
    ("*WebhookConfiguration", "webhooks[].namespaceSelector", Selector),
    ("*WebhookConfiguration", "webhooks[].objectSelector", Selector),
    ("*WebhookConfiguration", "webhooks[].matchConditions", AtMost(64)),
    ("*WebhookConfiguration", "webhooks[].matchConditions[].name", Text(name::qualified_name)),
    ("*WebhookConfiguration", "webhooks[].matchConditions[].expression", Present),
    ("*WebhookConfiguration", "webhooks[].rules[].scope", OneOf(&["*", "Cluster", "Namespaced"])),
    ("*WebhookConfiguration", "webhooks[].rules[].operations", Present),
    ("*WebhookConfiguration", "webhooks[].rules[].apiGroups", Present),
    ("*WebhookConfiguration", "webhooks[].rules[].apiVersions", Present),
    ("*WebhookConfiguration", "webhooks[].rules[].resources", Present),
    ("*WebhookConfiguration", "webhooks[].clientConfig.service.name", Present),
    ("*WebhookConfiguration", "webhooks[].clientConfig.service.namespace", Present),
    ("*WebhookConfiguration", "webhooks[].clientConfig.service.port", Between(1, 65535)),
    ("MutatingWebhookConfiguration", "webhooks[].reinvocationPolicy", OneOf(&["IfNeeded", "Never"])),
    ("*AdmissionPolicy", "spec.failurePolicy", OneOf(&["Fail", "Ignore"])),
    ("*AdmissionPolicy", "spec.paramKind.apiVersion", Present),
    ("*AdmissionPolicy", "spec.paramKind.kind", Present),
    ("*AdmissionPolicy", "spec.matchConstraints", Present),
    ("*AdmissionPolicy", "spec.matchConstraints.resourceRules", Present),
    ("*AdmissionPolicy", "spec.matchConstraints.namespaceSelector", Selector),
    ("*AdmissionPolicy", "spec.matchConstraints.objectSelector", Selector),
    ("*AdmissionPolicy", "spec.matchConstraints.matchPolicy", OneOf(&["Equivalent", "Exact"])),
    ("*AdmissionPolicy", "spec.matchConstraints.resourceRules[].operations", Present),
    ("*AdmissionPolicy", "spec.matchConstraints.resourceRules[].apiGroups", Present),
    ("*AdmissionPolicy", "spec.matchConstraints.resourceRules[].apiVersions", Present),
    ("*AdmissionPolicy", "spec.matchConstraints.resourceRules[].resources", Present),
    ("*AdmissionPolicy", "spec.matchConditions", AtMost(64)),
    ("*AdmissionPolicy", "spec.matchConditions[].name", Text(name::qualified_name)),
    ("*AdmissionPolicy", "spec.matchConditions[].expression", Present),
    ("*AdmissionPolicy", "spec.variables[].name", Present),
    ("*AdmissionPolicy", "spec.variables[].expression", Present),
    ("ValidatingAdmissionPolicy", "spec.validations[].expression", Present),
    ("MutatingAdmissionPolicy", "spec.mutations", Present),
    ("MutatingAdmissionPolicy", "spec.mutations[].patchType", OneOf(&["ApplyConfiguration", "JSONPatch"])),
    ("MutatingAdmissionPolicy", "spec.reinvocationPolicy", Present),
    ("MutatingAdmissionPolicy", "spec.reinvocationPolicy", OneOf(&["IfNeeded", "Never"])),
    ("*AdmissionPolicyBinding", "spec.policyName", Present),
    ("*AdmissionPolicyBinding", "spec.paramRef.parameterNotFoundAction", OneOf(&["Allow", "Deny"])),
    ("*AdmissionPolicyBinding", "spec.matchResources.matchPolicy", OneOf(&["Equivalent", "Exact"])),
    ("ValidatingAdmissionPolicyBinding", "spec.validationActions", Present),
    ("ValidatingAdmissionPolicyBinding", "spec.validationActions[]", OneOf(&["Audit", "Deny", "Warn"])),
];

const FLOW: &[Line] = &[
    ("FlowSchema", "spec.matchingPrecedence", Between(1, 10_000)),
    ("FlowSchema", "spec.priorityLevelConfiguration.name", Present),
    ("FlowSchema", "spec.distinguisherMethod.type", OneOf(&["ByNamespace", "ByUser"])),
    ("FlowSchema", "spec.rules[].subjects", Present),
    ("FlowSchema", "spec.rules[].subjects[].kind", OneOf(&["Group", "ServiceAccount", "User"])),
    ("FlowSchema", "spec.rules[].subjects[].user.name", Present),
    ("FlowSchema", "spec.rules[].subjects[].group.name", Present),
    ("FlowSchema", "spec.rules[].subjects[].serviceAccount.name", Present),
    ("FlowSchema", "spec.rules[].subjects[].serviceAccount.namespace", Present),
    ("FlowSchema", "spec.rules[].resourceRules[].verbs", Present),
    ("FlowSchema", "spec.rules[].resourceRules[].apiGroups", Present),
    ("FlowSchema", "spec.rules[].resourceRules[].resources", Present),
    ("FlowSchema", "spec.rules[].nonResourceRules[].verbs", Present),
    ("FlowSchema", "spec.rules[].nonResourceRules[].nonResourceURLs", Present),
    ("PriorityLevelConfiguration", "spec.type", OneOf(&["Exempt", "Limited"])),
    ("PriorityLevelConfiguration", "spec.limited.limitResponse.type", OneOf(&["Queue", "Reject"])),
    ("PriorityLevelConfiguration", "spec.limited.lendablePercent", Between(0, 100)),
    ("PriorityLevelConfiguration", "spec.limited.nominalConcurrencyShares", Between(0, i32::MAX as i64)),
    ("PriorityLevelConfiguration", "spec.exempt.lendablePercent", Between(0, 100)),
    ("PriorityLevelConfiguration", "spec.limited.limitResponse.queuing.queues", Between(1, 10_000_000)),
    (
        "PriorityLevelConfiguration",
        "spec.limited.limitResponse.queuing.queueLengthLimit",
        Between(1, i32::MAX as i64),
    ),
];

const OTHERS: &[Line] = &[
    ("RuntimeClass", "handler", Present),
    ("RuntimeClass", "handler", Text(name::dns1123_label)),
    ("RuntimeClass", "handler", Fixed),
    ("IPAddress", "spec.parentRef", Present),
    ("IPAddress", "spec.parentRef.resource", Present),
    ("IPAddress", "spec.parentRef.name", Present),
    ("IPAddress", "spec", Fixed),
    ("ServiceCIDR", "spec.cidrs", Present),
    ("ServiceCIDR", "spec.cidrs", AtMost(2)),
    ("VolumeAttributesClass", "driverName", Present),
    ("VolumeAttributesClass", "parameters", Present),
    ("VolumeAttributesClass", "driverName", Fixed),
    ("VolumeAttributesClass", "parameters", Fixed),
    ("CSINode", "spec.drivers[].name", Present),
    ("CSINode", "spec.drivers[].nodeID", Present),
    ("CSIDriver", "spec.attachRequired", Fixed),
    ("CSIDriver", "spec.fsGroupPolicy", OneOf(&["File", "None", "ReadWriteOnceWithFSType"])),
    ("CSIDriver", "spec.volumeLifecycleModes[]", OneOf(&["Ephemeral", "Persistent"])),
    ("CSIStorageCapacity", "storageClassName", Present),
    ("CSIStorageCapacity", "storageClassName", Fixed),
    ("CSIStorageCapacity", "nodeTopology", Fixed),
    ("CSIStorageCapacity", "nodeTopology", Selector),
    ("VolumeAttachment", "spec.attacher", Present),
    ("VolumeAttachment", "spec.nodeName", Present),
    ("VolumeAttachment", "spec", Fixed),
    ("IngressClass", "spec.controller", Fixed),
    ("IngressClass", "spec.parameters.kind", Present),
    ("IngressClass", "spec.parameters.name", Present),
    ("IngressClass", "spec.parameters.scope", OneOf(&["Cluster", "Namespace"])),
    ("ResourceClaim", "spec", Fixed),
    ("ResourceClaim", "spec.devices.requests", AtMost(32)),
    ("ResourceClaim", "spec.devices.requests[].name", Present),
    ("ResourceClaim", "spec.devices.requests[].name", Text(name::dns1123_label)),
    ("ResourceClaim", "spec.devices.requests[].exactly.deviceClassName", Present),
    ("ResourceClaim", "spec.devices.requests[].exactly.allocationMode", OneOf(&["All", "ExactCount"])),
    ("ResourceClaimTemplate", "spec", Fixed),
    ("ResourceClaimTemplate", "spec.spec.devices.requests", AtMost(32)),
    ("ResourceClaimTemplate", "spec.spec.devices.requests[].name", Present),
    ("ResourceClaimTemplate", "spec.spec.devices.requests[].exactly.deviceClassName", Present),
    ("ResourceSlice", "spec.driver", Present),
    ("ResourceSlice", "spec.driver", Text(name::dns1123_subdomain)),
    ("ResourceSlice", "spec.driver", Fixed),
    ("ResourceSlice", "spec.nodeName", Fixed),
    ("ResourceSlice", "spec.pool.name", Present),
    ("ResourceSlice", "spec.pool.name", Fixed),
    ("ResourceSlice", "spec.pool.resourceSliceCount", Between(1, i32::MAX as i64)),
    ("ResourceSlice", "spec.devices", AtMost(128)),
    ("ResourceSlice", "spec.devices[].name", Text(name::dns1123_label)),
    ("DeviceTaintRule", "spec.taint.key", Present),
    ("DeviceTaintRule", "spec.taint.key", Text(name::qualified_name)),
    ("DeviceTaintRule", "spec.taint.effect", Present),
    ("DeviceTaintRule", "spec.taint.effect", OneOf(&["NoExecute", "NoSchedule", "None"])),
    ("PodCertificateRequest", "spec.signerName", Present),
    ("PodCertificateRequest", "spec.podName", Present),
    ("PodCertificateRequest", "spec.podName", Text(name::dns1123_subdomain)),
    ("PodCertificateRequest", "spec.podUID", Present),
    ("PodCertificateRequest", "spec.serviceAccountName", Present),
    ("PodCertificateRequest", "spec.serviceAccountName", Text(name::dns1123_subdomain)),
    ("PodCertificateRequest", "spec.serviceAccountUID", Present),
    ("PodCertificateRequest", "spec.nodeName", Present),
    ("PodCertificateRequest", "spec.nodeName", Text(name::dns1123_subdomain)),
    ("PodCertificateRequest", "spec.nodeUID", Present),
    ("PodCertificateRequest", "spec.maxExpirationSeconds", Between(3600, 91 * 86_400)),
    ("PodCertificateRequest", "spec", Fixed),
    ("ClusterTrustBundle", "spec.signerName", Fixed),
    ("APIService", "spec.version", Present),
    ("APIService", "spec.version", Text(name::dns1035_label)),
    ("APIService", "spec.groupPriorityMinimum", Between(1, 20_000)),
    ("APIService", "spec.versionPriority", Between(1, 1000)),
    ("APIService", "spec.service.name", Present),
    ("APIService", "spec.service.namespace", Present),
    ("StorageVersionMigration", "spec.resource.resource", Present),
    ("StorageVersionMigration", "spec", Fixed),
];

/// What the lines say about an object of this kind. Kinds are unique among the groups that have lines.
pub(super) fn check(kind: &str, root: &Field<'_>) -> Errors {
    let lines = lines(kind).filter(|(_, rule)| !matches!(rule, Fixed));
    lines
        .flat_map(|(path, rule)| places(root, path).into_iter().flat_map(move |field| rule.check(&field)))
        .collect()
}

/// What the lines say about a change of an object of this kind.
pub(super) fn check_update(kind: &str, root: &Field<'_>, old: &Field<'_>) -> Errors {
    let fixed = lines(kind).filter(|(_, rule)| matches!(rule, Fixed));
    fixed.flat_map(|(path, _)| same(&root.at(path), &old.at(path))).collect()
}

fn lines(kind: &str) -> impl Iterator<Item = (&'static str, Rule)> {
    let all = HOOKS.iter().chain(FLOW).chain(OTHERS);
    all.filter(move |(pattern, ..)| is_meant(pattern, kind)).map(|(_, path, rule)| (*path, *rule))
}

/// A star stands for what distinguishes the mutating from the validating kind.
fn is_meant(pattern: &str, kind: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(rest) => kind.strip_prefix("Mutating").or(kind.strip_prefix("Validating")) == Some(rest),
        None => pattern == kind,
    }
}

/// The fields at the end of a path. The last one needn't be there, what it is a part of must.
fn places<'v>(root: &Field<'v>, path: &str) -> Vec<Field<'v>> {
    path.split('.').fold(vec![root.clone()], |fields, part| {
        let parents = fields.into_iter().filter(Field::exists);
        match part.strip_suffix("[]") {
            Some(name) => parents.flat_map(|parent| parent.get(name).items().collect::<Vec<_>>()).collect(),
            None => parents.map(|parent| parent.get(part)).collect(),
        }
    })
}

impl Rule {
    fn check(self, field: &Field<'_>) -> Errors {
        match self {
            Present => field.present(),
            OneOf(texts) => field.one_of(texts),
            Between(low, high) => field.between(low, high),
            Text(rule) => field.checked(rule),
            Selector => label_selector(field),
            AtMost(limit) => {
                let count = field.items().count();
                let many = || crate::status::FieldError::too_many(&field.path, count, limit);
                (count > limit).then(many).into_iter().collect()
            }
            Fixed => Errors::new(),
        }
    }
}
