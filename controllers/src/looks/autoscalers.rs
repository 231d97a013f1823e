//! The look of the autoscaler: it asks the server for scales, pods and metrics, which no cache has.

use crate::{
    autoscaler::{self, Measured, Memory, Scaled, View, sample},
    caches::Caches,
    catalog::Known,
    driver::Controller,
    plan::Plan,
};
use client::informer::ObjectKey;
use jiff::Timestamp;
use k8s_openapi::{
    api::autoscaling::v2::{HorizontalPodAutoscaler, MetricIdentifier, MetricSpec},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, ListParams},
    core::{ApiResource, GroupVersionKind, Selector},
};
use parking_lot::Mutex;
use serde_json::Value;
use std::{collections::HashMap, fmt::Write};

type Refusal = (&'static str, String);

/// The horizontal pod autoscaler.
pub struct Autoscalers {
    caches: Caches,
    client: Client,
    known: Vec<Known>,
    memory: Mutex<HashMap<ObjectKey, Memory>>,
}

impl Autoscalers {
    /// Over these caches; `known` are the kinds that can be scaled.
    pub fn new(caches: Caches, client: Client, known: Vec<Known>) -> Autoscalers {
        Autoscalers { caches, client, known, memory: Mutex::default() }
    }
}

impl Controller for Autoscalers {
    type Key = ObjectKey;
    const NAME: &'static str = "horizontal-pod-autoscaler";

    async fn look(&self, key: &ObjectKey, now: Timestamp) -> kube::Result<Plan> {
        let Some(hpa) = self.caches.autoscalers.get(key) else {
            self.memory.lock().remove(key);
            return Ok(Plan::nothing());
        };
        let view = self.view(&hpa, now).await;
        let mut memory = self.memory.lock().remove(key).unwrap_or_default();
        let plan = autoscaler::reconcile(&hpa, &view, &mut memory, now);
        self.memory.lock().insert(key.clone(), memory);
        Ok(plan)
    }
}

impl Autoscalers {
    async fn view(&self, hpa: &HorizontalPodAutoscaler, now: Timestamp) -> View {
        let namespace = hpa.namespace().unwrap_or_default();
        let (scaled, selector) = match self.scaled(hpa, &namespace).await {
            Ok(found) => found,
            Err(why) => return View { scaled: Err(why), measured: Vec::new() },
        };
        let mut measured = Vec::new();
        for spec in hpa.spec.metrics.iter().flatten() {
            measured.push(self.measure(spec, &namespace, &selector, now).await);
        }
        View { scaled: Ok(scaled), measured }
    }

    async fn scaled(
        &self,
        hpa: &HorizontalPodAutoscaler,
        namespace: &str,
    ) -> Result<(Scaled, String), String> {
        let target = &hpa.spec.scale_target_ref;
        let version = target.api_version.as_deref().unwrap_or_default();
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let is_meant = |known: &&Known| known.kind.group == group && known.kind.kind == target.kind;
        let kind = self.known.iter().find(is_meant).map(|known| known.kind.clone());
        let kind = kind.ok_or_else(|| format!("no matches for kind {:?} in group {group:?}", target.kind))?;
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &kind);
        let scale = api.get_scale(&target.name).await.map_err(|error| error.to_string())?;
        let status = scale.status.unwrap_or_default();
        let scaled = Scaled {
            kind,
            uid: scale.metadata.uid.unwrap_or_default(),
            wanted: scale.spec.and_then(|spec| spec.replicas).unwrap_or(0),
            present: status.replicas,
        };
        Ok((scaled, status.selector.unwrap_or_default()))
    }

    async fn measure(
        &self,
        spec: &MetricSpec,
        namespace: &str,
        selector: &str,
        now: Timestamp,
    ) -> Result<Measured, Refusal> {
        if let Some(resource) = &spec.resource {
            return self.resource(&resource.name, None, namespace, selector, now).await;
        }
        if let Some(resource) = &spec.container_resource {
            let container = Some(resource.container.as_str());
            return self.resource(&resource.name, container, namespace, selector, now).await;
        }
        let custom = "/apis/custom.metrics.k8s.io/v1beta2/namespaces";
        let (reason, path) = if let Some(pods) = &spec.pods {
            let path = format!("{custom}/{namespace}/pods/*/{}", metric(&pods.metric, Some(selector)));
            ("FailedGetPodsMetric", path)
        } else if let Some(object) = &spec.object {
            let plural = self.plural(&object.described_object.kind);
            let place = format!("{namespace}/{plural}/{}", object.described_object.name);
            ("FailedGetObjectMetric", format!("{custom}/{place}/{}", metric(&object.metric, None)))
        } else if let Some(external) = &spec.external {
            let prefix = "/apis/external.metrics.k8s.io/v1beta1/namespaces";
            ("FailedGetExternalMetric", format!("{prefix}/{namespace}/{}", metric(&external.metric, None)))
        } else {
            return Err(("InvalidMetricSourceType", format!("unknown metric source type {:?}", spec.type_)));
        };
        let values = self.values(&path).await.map_err(|why| (reason, why))?;
        let ready = self.ready(namespace, selector).await.map_err(|why| (reason, why))?;
        Ok(match spec.pods {
            Some(_) => Measured::PerPod(values.into_iter().map(autoscaler::plain_sample).collect()),
            None => Measured::Total { value: values.into_iter().map(|(_, value)| value).sum(), ready },
        })
    }

    async fn resource(
        &self,
        resource: &str,
        container: Option<&str>,
        namespace: &str,
        selector: &str,
        now: Timestamp,
    ) -> Result<Measured, Refusal> {
        let reason = "FailedGetResourceMetric";
        let failed = |error: kube::Error| {
            (
                reason,
                format!(
                    "failed to get {resource} utilization: unable to get metrics for resource {resource}: {error}"
                ),
            )
        };
        let metrics = GroupVersionKind::gvk("metrics.k8s.io", "v1beta1", "PodMetrics");
        let metrics = ApiResource::from_gvk_with_plural(&metrics, "pods");
        let metrics = self.list(&metrics, namespace, selector).await.map_err(failed)?;
        let pods = ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&());
        let pods = self.list(&pods, namespace, selector).await.map_err(failed)?;
        let of =
            |pod: &Value| metrics.iter().find(|metrics| api::object::name(metrics) == api::object::name(pod));
        let samples = pods.iter().filter_map(|pod| sample::of(pod, of(pod), resource, container, now));
        Ok(Measured::PerPod(samples.collect()))
    }

    async fn list(&self, kind: &ApiResource, namespace: &str, selector: &str) -> kube::Result<Vec<Value>> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, kind);
        let list = api.list(&ListParams::default().labels(selector)).await?;
        Ok(list.items.iter().map(crate::plan::to_value).collect())
    }

    async fn ready(&self, namespace: &str, selector: &str) -> Result<usize, String> {
        let pods = ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&());
        let pods = self.list(&pods, namespace, selector).await.map_err(|error| error.to_string())?;
        let is_ready = |pod: &&Value| {
            let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
            conditions
                .into_iter()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        };
        Ok(pods.iter().filter(is_ready).count())
    }

    /// `PLURAL.GROUP`, as the custom metrics API names kinds.
    fn plural(&self, kind: &str) -> String {
        let known = self.known.iter().find(|known| known.kind.kind == kind);
        known.map_or_else(
            || kind.to_lowercase(),
            |known| match known.kind.group.as_str() {
                "" => known.kind.plural.clone(),
                group => format!("{}.{group}", known.kind.plural),
            },
        )
    }

    /// The values of a metric in thousandths, with the objects that they are of.
    async fn values(&self, path: &str) -> Result<Vec<(String, i64)>, String> {
        let request = http::Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
        let list: Value = self.client.request(request).await.map_err(|error| error.to_string())?;
        let value = |item: &Value| {
            let amount = api::quantity::Quantity::parse(item["value"].as_str()?).ok()?;
            let name = item["describedObject"]["name"].as_str().unwrap_or_default();
            Some((name.to_owned(), i64::try_from(amount.as_milli()).ok()?))
        };
        let values: Vec<_> = list["items"].as_array().into_iter().flatten().filter_map(value).collect();
        if values.is_empty() {
            Err("no metrics returned from the metrics API".to_owned())
        } else {
            Ok(values)
        }
    }
}

/// The last part of a metric's path, with the selectors of the pods and of the metric.
fn metric(metric: &MetricIdentifier, pods: Option<&str>) -> String {
    let own = metric.selector.clone().map(|selector: LabelSelector| {
        Selector::try_from(selector).map(|selector| selector.to_string()).unwrap_or_default()
    });
    let pairs = match pods {
        Some(pods) => vec![("labelSelector", Some(pods.to_owned())), ("metricLabelSelector", own)],
        None => vec![("labelSelector", own)],
    };
    let pairs = pairs.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", escaped(&value?))));
    let query = pairs.collect::<Vec<_>>().join("&");
    format!("{}?{query}", escaped(&metric.name))
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String can't fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
