//! The table of built-in resources: one row each.

use crate::node_proxy::Stream;
use crate::registry::control;
use crate::registry::fields::{EVENT_FIELDS, POD_FIELDS, REGARDING_FIELDS};
use crate::registry::resource::{Resource, SubresourceAction, Verbs};
use crate::registry::row::Row;
use crate::registry::strategy::{Review, Traits};
use crate::request::Verb;
use crate::strategies::{
    CertificateSigningRequest, CustomResourceDefinition, Event, Fresh, Job, Namespace, Node, Ordinary, Pod,
    Service,
};
use crate::transaction;

/// The built-in resources, grouped as discovery lists them, by name in each group.
pub fn rows() -> Vec<Resource> {
    [
        core(),
        control::limits(),
        control::admission_registration(),
        apiextensions(),
        control::api_registration(),
        apps(),
        authentication(),
        authorization(),
        autoscaling(),
        batch(),
        certificates(),
        coordination(),
        discovery(),
        events(),
        control::flow_control(),
        metrics(),
        networking(),
        control::addresses(),
        control::node(),
        policy(),
        rbac(),
        control::devices(),
        scheduling(),
        storage(),
        control::storage_migration(),
        ours(),
    ]
    .concat()
}

fn core() -> Vec<Resource> {
    const GROUP: &str = "";
    let row = |kind, plural| Row::new(GROUP, "io.k8s.api.core.v1", kind, plural);
    vec![
        row("Binding", "bindings").verbs(Verbs::CREATE).build(),
        row("ComponentStatus", "componentstatuses")
            .short("cs")
            .cluster()
            .verbs(Verbs::of(&[Verb::Get, Verb::List]))
            .build(),
        row("ConfigMap", "configmaps").short("cm").build(),
        row("Endpoints", "endpoints").short("ep").special(Ordinary(Traits::CREATES_ON_UPDATE)).build(),
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
            .proxy()
            .status()
            .fields(&[("spec.unschedulable", "/spec/unschedulable")])
            .special(Node)
            .build(),
        row("PersistentVolumeClaim", "persistentvolumeclaims")
            .short("pvc")
            .status()
            .special(Fresh(Traits::RETURNS_OBJECT))
            .build(),
        row("PersistentVolume", "persistentvolumes")
            .short("pv")
            .cluster()
            .status()
            .special(Fresh(Traits::RETURNS_OBJECT))
            .build(),
        row("Pod", "pods")
            .short("po")
            .category("all")
            .sub("attach", ("", "v1", "PodAttachOptions"), STREAM, SubresourceAction::Stream(Stream::Attach))
            .sub("binding", ("", "v1", "Binding"), Verbs::CREATE, SubresourceAction::Binding)
            .sub("ephemeralcontainers", POD, Verbs::GET_PATCH_UPDATE, SubresourceAction::EphemeralContainers)
            .sub("eviction", ("policy", "v1", "Eviction"), Verbs::CREATE, SubresourceAction::Eviction)
            .sub("exec", ("", "v1", "PodExecOptions"), STREAM, SubresourceAction::Stream(Stream::Exec))
            .sub("log", POD, Verbs::GET, SubresourceAction::Log)
            .sub(
                "portforward",
                ("", "v1", "PodPortForwardOptions"),
                STREAM,
                SubresourceAction::Stream(Stream::PortForward),
            )
            .proxy()
            .sub("resize", POD, Verbs::GET_PATCH_UPDATE, SubresourceAction::Resize)
            .status()
            .fields(&POD_FIELDS)
            .special(Pod)
            .build(),
        row("PodTemplate", "podtemplates").special(Ordinary(Traits::RETURNS_OBJECT)).build(),
        row("ReplicationController", "replicationcontrollers")
            .short("rc")
            .category("all")
            .scale()
            .status()
            .fields(&[("status.replicas", "/status/replicas")])
            .special(Fresh(Traits::COUNTED))
            .build(),
        row("Secret", "secrets").fields(&[("type", "/type")]).build(),
        row("ServiceAccount", "serviceaccounts")
            .short("sa")
            .sub(
                "token",
                ("authentication.k8s.io", "v1", "TokenRequest"),
                Verbs::CREATE,
                SubresourceAction::Token,
            )
            .special(Ordinary(Traits::RETURNS_OBJECT))
            .build(),
        row("Service", "services")
            .short("svc")
            .category("all")
            .proxy()
            .status()
            .fields(&[("spec.clusterIP", "/spec/clusterIP"), ("spec.type", "/spec/type")])
            .special(Service)
            .build(),
    ]
}

fn apiextensions() -> Vec<Resource> {
    let package = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1";
    vec![
        Row::new("apiextensions.k8s.io", package, "CustomResourceDefinition", "customresourcedefinitions")
            .short("crd")
            .short("crds")
            .category("api-extensions")
            .cluster()
            .status()
            .special(CustomResourceDefinition)
            .build(),
    ]
}

fn apps() -> Vec<Resource> {
    let row = |kind, plural| Row::new("apps", "io.k8s.api.apps.v1", kind, plural);
    vec![
        row("ControllerRevision", "controllerrevisions").build(),
        row("DaemonSet", "daemonsets")
            .short("ds")
            .category("all")
            .status()
            .special(Fresh(Traits::COUNTED))
            .build(),
        row("Deployment", "deployments")
            .short("deploy")
            .category("all")
            .scale()
            .status()
            .special(Fresh(Traits::COUNTED))
            .build(),
        row("ReplicaSet", "replicasets")
            .short("rs")
            .category("all")
            .scale()
            .status()
            .fields(&[("status.replicas", "/status/replicas")])
            .special(Fresh(Traits::COUNTED))
            .build(),
        row("StatefulSet", "statefulsets")
            .short("sts")
            .category("all")
            .scale()
            .status()
            .special(Fresh(Traits::COUNTED))
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

fn autoscaling() -> Vec<Resource> {
    const PLURAL: &str = "horizontalpodautoscalers";
    let row = |version| {
        let package = format!("io.k8s.api.autoscaling.{version}");
        Row::new("autoscaling", &package, "HorizontalPodAutoscaler", PLURAL)
            .version(version)
            .short("hpa")
            .category("all")
            .status()
            .special(Fresh(Traits::ORDINARY))
    };
    vec![row("v2").build(), row("v1").stored_as("autoscaling", "v2", PLURAL).build()]
}

/// The Events of the core group under other names; fields are selected as they are stored.
fn events() -> Vec<Resource> {
    vec![
        Row::new("events.k8s.io", "io.k8s.api.events.v1", "Event", "events")
            .short("ev")
            .fields(&REGARDING_FIELDS)
            .special(Event)
            .stored_as("", "v1", "events")
            .build(),
    ]
}

/// What is measured, not stored; in the order of the name of the plural.
fn metrics() -> Vec<Resource> {
    let row = |kind, plural| {
        Row::new(crate::resource_metrics::GROUP, "io.k8s.metrics.pkg.apis.metrics.v1beta1", kind, plural)
            .version("v1beta1")
            .verbs(Verbs::of(&[Verb::Get, Verb::List]))
    };
    vec![row("NodeMetrics", "nodes").cluster().build(), row("PodMetrics", "pods").build()]
}

/// What Kubernetes hasn't.
fn ours() -> Vec<Resource> {
    let row = Row::new(transaction::GROUP, "dev.amoeba.v1", "Transaction", transaction::PLURAL);
    vec![row.cluster().verbs(Verbs::CREATE).build()]
}

fn batch() -> Vec<Resource> {
    let row = |kind, plural| Row::new("batch", "io.k8s.api.batch.v1", kind, plural);
    vec![
        row("CronJob", "cronjobs")
            .short("cj")
            .category("all")
            .status()
            .special(Fresh(Traits::COUNTED))
            .build(),
        row("Job", "jobs")
            .category("all")
            .status()
            .fields(&[("status.successful", "/status/succeeded")])
            .special(Job)
            .build(),
    ]
}

fn certificates() -> Vec<Resource> {
    let package = "io.k8s.api.certificates.v1";
    let kind = ("certificates.k8s.io", "v1", "CertificateSigningRequest");
    vec![
        Row::new(kind.0, package, kind.2, "certificatesigningrequests")
            .short("csr")
            .cluster()
            .sub("approval", kind, Verbs::GET_PATCH_UPDATE, SubresourceAction::Status)
            .status()
            .fields(&[("spec.signerName", "/spec/signerName")])
            .special(CertificateSigningRequest)
            .build(),
        Row::new(kind.0, package, "ClusterTrustBundle", "clustertrustbundles")
            .cluster()
            .fields(&[("spec.signerName", "/spec/signerName")])
            .special(Ordinary(Traits::RETURNS_OBJECT))
            .build(),
        Row::new(kind.0, package, "PodCertificateRequest", "podcertificaterequests")
            .status()
            .fields(&[
                ("spec.signerName", "/spec/signerName"),
                ("spec.podName", "/spec/podName"),
                ("spec.nodeName", "/spec/nodeName"),
            ])
            .special(Fresh(Traits::RETURNS_OBJECT))
            .build(),
    ]
}

fn discovery() -> Vec<Resource> {
    vec![
        Row::new("discovery.k8s.io", "io.k8s.api.discovery.v1", "EndpointSlice", "endpointslices")
            .special(Ordinary(Traits::COUNTED))
            .build(),
    ]
}

fn networking() -> Vec<Resource> {
    let row = |kind, plural| Row::new("networking.k8s.io", "io.k8s.api.networking.v1", kind, plural);
    vec![
        row("IngressClass", "ingressclasses").cluster().special(Ordinary(Traits::COUNTED)).build(),
        row("Ingress", "ingresses").short("ing").status().special(Fresh(Traits::COUNTED)).build(),
        row("NetworkPolicy", "networkpolicies").short("netpol").special(Ordinary(Traits::COUNTED)).build(),
    ]
}

fn policy() -> Vec<Resource> {
    vec![
        Row::new("policy", "io.k8s.api.policy.v1", "PodDisruptionBudget", "poddisruptionbudgets")
            .short("pdb")
            .status()
            .special(Fresh(Traits::COUNTED))
            .build(),
    ]
}

fn scheduling() -> Vec<Resource> {
    let beta = |kind: &str, plural: &str| {
        let row = Row::new("scheduling.k8s.io", "io.k8s.api.scheduling.v1beta1", kind, plural);
        row.version("v1beta1").special(Ordinary(Traits::COUNTED))
    };
    vec![
        Row::new("scheduling.k8s.io", "io.k8s.api.scheduling.v1", "PriorityClass", "priorityclasses")
            .short("pc")
            .cluster()
            .special(Ordinary(Traits::COUNTED))
            .build(),
        beta("PodGroup", "podgroups").status().build(),
        beta("Workload", "workloads").build(),
    ]
}

fn storage() -> Vec<Resource> {
    let row = |kind, plural| Row::new("storage.k8s.io", "io.k8s.api.storage.v1", kind, plural);
    vec![
        row("CSIDriver", "csidrivers").cluster().special(Ordinary(Traits::COUNTED_OBJECT)).build(),
        row("CSINode", "csinodes").cluster().status().special(Ordinary(Traits::RETURNS_OBJECT)).build(),
        row("CSIStorageCapacity", "csistoragecapacities").build(),
        row("StorageClass", "storageclasses")
            .short("sc")
            .cluster()
            .special(Ordinary(Traits::RETURNS_OBJECT))
            .build(),
        row("VolumeAttachment", "volumeattachments")
            .cluster()
            .status()
            .special(Fresh(Traits::RETURNS_OBJECT))
            .build(),
        row("VolumeAttributesClass", "volumeattributesclasses")
            .short("vac")
            .cluster()
            .special(Ordinary(Traits::RETURNS_OBJECT))
            .build(),
    ]
}

fn coordination() -> Vec<Resource> {
    vec![
        Row::new("coordination.k8s.io", "io.k8s.api.coordination.v1", "Lease", "leases")
            .special(Ordinary(Traits::CREATES_ON_UPDATE))
            .build(),
    ]
}

fn rbac() -> Vec<Resource> {
    let row = |kind, plural| {
        Row::new("rbac.authorization.k8s.io", "io.k8s.api.rbac.v1", kind, plural)
            .special(Ordinary(Traits::CREATES_ON_UPDATE))
    };
    vec![
        row("ClusterRoleBinding", "clusterrolebindings").cluster().build(),
        row("ClusterRole", "clusterroles").cluster().build(),
        row("RoleBinding", "rolebindings").build(),
        row("Role", "roles").build(),
    ]
}

/// What streams are asked for with.
const STREAM: Verbs = Verbs::of(&[Verb::Create, Verb::Get]);
const POD: (&str, &str, &str) = ("", "v1", "Pod");
