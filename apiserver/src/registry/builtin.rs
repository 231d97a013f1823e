//! The table of built-in resources: one row each.

use std::sync::Arc;

use crate::registry::resource::{Resource, SelectableField, Subresource, SubresourceAction, Verbs};
use crate::registry::strategy::{Review, Strategy, Traits};
use crate::request::Verb;
use crate::strategies::{Deployment, Event, Namespace, Node, Ordinary, Pod, ReplicaSet, Service};

/// The built-in resources, grouped as discovery lists them, by name in each group.
pub fn rows() -> Vec<Resource> {
    [core(), apps(), authentication(), authorization(), coordination(), rbac()].concat()
}

fn core() -> Vec<Resource> {
    const GROUP: &str = "";
    let row = |kind, plural| Row::new(GROUP, "io.k8s.api.core.v1", kind, plural);
    vec![
        row("ConfigMap", "configmaps").short("cm").build(),
        row("Endpoints", "endpoints").short("ep").special(Ordinary(CREATES_ON_UPDATE)).build(),
        row("Event", "events").short("ev").fields(&EVENT_FIELDS).special(Event).build(),
        row("Namespace", "namespaces")
            .short("ns")
            .cluster()
            .verbs(Verbs::ALL.without(Verb::DeleteCollection))
            .status()
            .sub("finalize", ("", "v1", "Namespace"), Verbs::UPDATE, SubresourceAction::Finalize)
            .fields(&[("status.phase", "/status/phase")])
            .special(Namespace)
            .build(),
        row("Node", "nodes")
            .short("no")
            .cluster()
            .status()
            .fields(&[("spec.unschedulable", "/spec/unschedulable")])
            .special(Node)
            .build(),
        row("Pod", "pods")
            .short("po")
            .category("all")
            .sub("binding", ("", "v1", "Binding"), Verbs::CREATE, SubresourceAction::Binding)
            .sub("eviction", ("policy", "v1", "Eviction"), Verbs::CREATE, SubresourceAction::Eviction)
            .sub("log", ("", "v1", "Pod"), Verbs::GET, SubresourceAction::Log)
            .status()
            .fields(&POD_FIELDS)
            .special(Pod)
            .build(),
        row("Secret", "secrets").fields(&[("type", "/type")]).build(),
        row("ServiceAccount", "serviceaccounts").short("sa").special(Ordinary(RETURNS_OBJECT)).build(),
        row("Service", "services")
            .short("svc")
            .category("all")
            .status()
            .fields(&[("spec.clusterIP", "/spec/clusterIP"), ("spec.type", "/spec/type")])
            .special(Service)
            .build(),
    ]
}

fn apps() -> Vec<Resource> {
    let row = |kind, plural| Row::new("apps", "io.k8s.api.apps.v1", kind, plural);
    vec![
        row("ControllerRevision", "controllerrevisions").build(),
        row("Deployment", "deployments")
            .short("deploy")
            .category("all")
            .scale()
            .status()
            .special(Deployment)
            .build(),
        row("ReplicaSet", "replicasets")
            .short("rs")
            .category("all")
            .scale()
            .status()
            .fields(&[("status.replicas", "/status/replicas")])
            .special(ReplicaSet)
            .build(),
    ]
}

fn authentication() -> Vec<Resource> {
    let row = |kind, plural, review| {
        Row::new("authentication.k8s.io", "io.k8s.api.authentication.v1", kind, plural).review(review)
    };
    vec![
        row("SelfSubjectReview", "selfsubjectreviews", Review::SelfSubject).build(),
        row("TokenReview", "tokenreviews", Review::Token).build(),
    ]
}

fn authorization() -> Vec<Resource> {
    let row = |kind, plural, review| {
        Row::new("authorization.k8s.io", "io.k8s.api.authorization.v1", kind, plural).review(review)
    };
    vec![
        row("LocalSubjectAccessReview", "localsubjectaccessreviews", Review::LocalSubjectAccess)
            .namespaced()
            .build(),
        row("SelfSubjectAccessReview", "selfsubjectaccessreviews", Review::SelfSubjectAccess).build(),
        row("SelfSubjectRulesReview", "selfsubjectrulesreviews", Review::SelfSubjectRules).build(),
        row("SubjectAccessReview", "subjectaccessreviews", Review::SubjectAccess).build(),
    ]
}

fn coordination() -> Vec<Resource> {
    vec![
        Row::new("coordination.k8s.io", "io.k8s.api.coordination.v1", "Lease", "leases")
            .special(Ordinary(CREATES_ON_UPDATE))
            .build(),
    ]
}

fn rbac() -> Vec<Resource> {
    let row = |kind, plural| {
        Row::new("rbac.authorization.k8s.io", "io.k8s.api.rbac.v1", kind, plural)
            .special(Ordinary(CREATES_ON_UPDATE))
    };
    vec![
        row("ClusterRoleBinding", "clusterrolebindings").cluster().build(),
        row("ClusterRole", "clusterroles").cluster().build(),
        row("RoleBinding", "rolebindings").build(),
        row("Role", "roles").build(),
    ]
}

const CREATES_ON_UPDATE: Traits = Traits { creates_on_update: true, ..Traits::ORDINARY };
const RETURNS_OBJECT: Traits = Traits { delete_returns_object: true, ..Traits::ORDINARY };

const POD_FIELDS: [(&str, &str); 9] = [
    ("spec.nodeName", "/spec/nodeName"),
    ("spec.restartPolicy", "/spec/restartPolicy"),
    ("spec.schedulerName", "/spec/schedulerName"),
    ("spec.serviceAccountName", "/spec/serviceAccountName"),
    ("spec.hostNetwork", "/spec/hostNetwork"),
    ("status.phase", "/status/phase"),
    ("status.podIP", "/status/podIP"),
    ("status.podIPs", "/status/podIP"),
    ("status.nominatedNodeName", "/status/nominatedNodeName"),
];

const EVENT_FIELDS: [(&str, &str); 11] = [
    ("involvedObject.kind", "/involvedObject/kind"),
    ("involvedObject.namespace", "/involvedObject/namespace"),
    ("involvedObject.name", "/involvedObject/name"),
    ("involvedObject.uid", "/involvedObject/uid"),
    ("involvedObject.apiVersion", "/involvedObject/apiVersion"),
    ("involvedObject.resourceVersion", "/involvedObject/resourceVersion"),
    ("involvedObject.fieldPath", "/involvedObject/fieldPath"),
    ("reason", "/reason"),
    ("reportingComponent", "/reportingComponent"),
    ("source", "/source/component"),
    ("type", "/type"),
];

/// A row in the making; what isn't said is ordinary.
struct Row(Resource);

impl Row {
    fn new(group: &str, package: &str, kind: &str, plural: &str) -> Self {
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
            columns: crate::table::columns(group, kind),
            definition: format!("{package}.{kind}"),
            stored_as: None,
            strategy: Arc::new(Ordinary(Traits::ORDINARY)),
        })
    }

    fn short(mut self, name: &str) -> Self {
        self.0.short_names.push(name.to_owned());
        self
    }

    fn category(mut self, name: &str) -> Self {
        self.0.categories.push(name.to_owned());
        self
    }

    fn cluster(mut self) -> Self {
        self.0.namespaced = false;
        self
    }

    fn namespaced(mut self) -> Self {
        self.0.namespaced = true;
        self
    }

    fn verbs(mut self, verbs: Verbs) -> Self {
        self.0.verbs = verbs;
        self
    }

    fn special(mut self, strategy: impl Strategy + 'static) -> Self {
        self.0.strategy = Arc::new(strategy);
        self
    }

    fn review(self, review: Review) -> Self {
        self.cluster()
            .verbs(Verbs::CREATE)
            .special(Ordinary(Traits { review: Some(review), ..Traits::ORDINARY }))
    }

    fn fields(mut self, fields: &[(&str, &str)]) -> Self {
        self.0.selectable_fields = fields
            .iter()
            .map(|(label, pointer)| SelectableField { label: (*label).into(), pointer: (*pointer).into() })
            .collect();
        self
    }

    fn status(self) -> Self {
        let (group, kind) = (self.0.group.clone(), self.0.kind.clone());
        self.sub("status", (&group, "v1", &kind), Verbs::GET_PATCH_UPDATE, SubresourceAction::Status)
    }

    fn scale(self) -> Self {
        let scale = ("autoscaling", "v1", "Scale");
        self.sub("scale", scale, Verbs::GET_PATCH_UPDATE, SubresourceAction::Scale)
    }

    fn sub(mut self, name: &str, gvk: (&str, &str, &str), verbs: Verbs, action: SubresourceAction) -> Self {
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

    fn build(mut self) -> Resource {
        self.0.columns = crate::table::columns(&self.0.group, &self.0.kind);
        self.0
    }
}
