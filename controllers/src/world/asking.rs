//! Controllers that ask the API server, and those with informers of their own: their pure parts, over the server's map.

use super::{
    process::{Lists, Loop, Row, row},
    server::Server,
    text,
};
use crate::{
    autoscaler::{self, Measured},
    caches::{Caches, Source},
    certificates::{self, CertificateSigner},
    driver::Report,
    legacy_tokens,
    looks::{BootstrapCaches, BootstrapSigner, LegacyTokens, TokenCleaner},
    namespace,
    plan::Plan,
    resource_quota,
    wiring::Queues,
};
use api::{bootstrap_token, csr::CertificateRequest};
use client::informer::{ObjectKey, Store};
use jiff::Timestamp;
use k8s_openapi::api::{
    autoscaling::v2::HorizontalPodAutoscaler, certificates::v1::CertificateSigningRequest,
};
use parking_lot::Mutex;
use std::{collections::HashMap, ops::Range};

/// A controller by a function of the server.
struct Asks<F>(F);

impl<F: Fn(&Server, &ObjectKey, Timestamp) -> Plan> Loop for Asks<F> {
    fn plan(&self, server: &Server, key: &ObjectKey, now: Timestamp) -> Plan {
        self.0(server, key, now)
    }

    fn learn(&self, _: &ObjectKey, _: &Report, _: Timestamp) {}
}

/// All of them.
pub fn rows(caches: &Caches, queues: &Queues, lists: &mut Lists) -> Vec<Row> {
    let mut rows = vec![
        row("namespaces", "namespaces", &queues.namespaces, namespaces(caches)),
        row("quotas", "resourcequotas", &queues.quotas, quotas(caches)),
        row("legacytokens", "secrets", &queues.legacy_tokens, tokens(caches)),
        row("autoscalers", "horizontalpodautoscalers", &queues.autoscalers, autoscalers(caches)),
        alone("certificates", "certificatesigningrequests", requests(lists)),
    ];
    rows.extend(bootstrap(lists));
    rows
}

/// One that nothing of what the world wires leads to.
fn alone(name: &'static str, keys: &'static str, looks: impl Loop + 'static) -> Row {
    Row { name, keys, queue: None, looks: Box::new(looks) }
}

fn namespaces(caches: &Caches) -> impl Loop + 'static {
    let namespaces = caches.namespaces.clone();
    Asks(move |server: &Server, key: &ObjectKey, now| match namespaces.get(key) {
        Some(namespace) => namespace::reconcile(&namespace, &server.content(&key.name), now),
        None => Plan::nothing(),
    })
}

fn quotas(caches: &Caches) -> impl Loop + 'static {
    let quotas = caches.quotas.clone();
    Asks(move |server: &Server, key: &ObjectKey, _| {
        let Some(quota) = quotas.get(key) else { return Plan::nothing() };
        let kinds = resource_quota::counted_kinds(&quota).into_iter();
        let objects: Vec<_> =
            kinds.map(|(group, plural)| server.objects_of(&key.namespace, &group, &plural)).collect();
        resource_quota::reconcile(&quota, &objects)
    })
}

fn tokens(caches: &Caches) -> impl Loop + 'static {
    let caches = caches.clone();
    Asks(move |server: &Server, key: &ObjectKey, now| {
        let plan = LegacyTokens::plan(&caches, key, now);
        let pods = server.objects_of(&key.namespace, "", "pods").items;
        legacy_tokens::unless_used(plan, &key.name, &pods, now)
    })
}

fn autoscalers(caches: &Caches) -> impl Loop + 'static {
    let (autoscalers, memories) = (caches.autoscalers.clone(), Mutex::new(HashMap::new()));
    Asks(move |server: &Server, key: &ObjectKey, now| {
        let Some(autoscaler) = autoscalers.get(key) else { return Plan::nothing() };
        let mut memories = memories.lock();
        let memory = memories.entry(key.clone()).or_default();
        autoscaler::reconcile(&autoscaler, &measured(server, &autoscaler, &key.namespace), memory, now)
    })
}

/// The Deployment that is scaled, and its pods, which share the load that its annotation `load` says.
fn measured(server: &Server, autoscaler: &HorizontalPodAutoscaler, namespace: &str) -> autoscaler::View {
    let target = ObjectKey::new(namespace, &autoscaler.spec.scale_target_ref.name);
    let Some(deployment) = server.objects.get(&("deployments".to_owned(), target)) else {
        return autoscaler::View { scaled: Err("there is none".to_owned()), measured: Vec::new() };
    };
    let count = |pointer: &str| deployment.pointer(pointer).and_then(|count| count.as_i64()).unwrap_or(0);
    let wanted = i32::try_from(count("/spec/replicas")).expect("a count");
    let scaled = autoscaler::Scaled {
        kind: super::kinds::kind("deployments"),
        uid: text(deployment, "/metadata/uid"),
        wanted,
        present: wanted,
    };
    let load: i64 = text(deployment, "/metadata/annotations/load").parse().unwrap_or(0);
    let sample = |number| autoscaler::plain_sample((format!("p{number}"), load / i64::from(wanted.max(1))));
    let measured = vec![Ok(Measured::PerPod((0..wanted).map(sample).collect()))];
    autoscaler::View { scaled: Ok(scaled), measured }
}

/// An authority that writes its name.
struct Authority;

impl CertificateSigner for Authority {
    fn sign(&self, request: &CertificateRequest, _: &[String], _: Range<i64>) -> Result<String, String> {
        Ok(format!("signed for {}", request.common_name))
    }
}

/// Everybody may ask.
fn requests(lists: &mut Lists) -> impl Loop + 'static {
    let requests: Store<CertificateSigningRequest> = lists.store(Vec::new(), "", |_, _| {});
    Asks(move |_: &Server, key: &ObjectKey, now| {
        let Some(request) = requests.get(key) else { return Plan::nothing() };
        match certificates::recognise(&request).first() {
            Some(as_what) => certificates::approve(&request, *as_what),
            None => certificates::reconcile(&request, &Authority, now),
        }
    })
}

fn bootstrap(lists: &mut Lists) -> [Row; 2] {
    let of_type = format!("type={}", bootstrap_token::SECRET_TYPE);
    let caches = BootstrapCaches {
        tokens: lists.store(Vec::new(), &of_type, |_, _| {}),
        info: lists.store(Vec::new(), "metadata.name=cluster-info", |_, _| {}),
        servers: lists.store(Vec::new(), "metadata.name=kubernetes", |_, _| {}),
    };
    let signer = BootstrapSigner { caches: caches.clone(), ca: "PEM".to_owned() };
    [
        alone("bootstrapsigner", "kube-public/cluster-info", signer),
        alone("bootstraptokens", "secrets", TokenCleaner(caches)),
    ]
}
