//! Pods of either runtime, from their creation until they run.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use http::Method;
use serde_json::{Value, json};

use super::NODE;
use crate::cluster::{Cluster, condition, within};
use crate::objects::core;

/// Whose pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The agent's own runtime.
    Own,
    /// containerd's.
    Cri,
}

impl Class {
    /// The RuntimeClass of the agent's own runtime.
    pub const OWN_NAME: &str = "own";

    fn label(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Cri => "cri",
        }
    }

    /// Bound to the node, so that no scheduler is measured. With time to end, however short, its object stays until
    /// the node has taken away all of it, so that nobody's end is in the next one's start.
    fn pod(self, number: usize) -> Value {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("{}-{number}", self.label()), "labels": {"runtime": self.label()}},
            "spec": {
                "nodeName": NODE, "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false,
                "containers": [{
                    "name": "main", "image": "box:1", "imagePullPolicy": "IfNotPresent",
                    "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
                    "resources": {"limits": {"memory": "64Mi", "cpu": "100m"}, "requests": {"memory": "1Mi", "cpu": "1m"}},
                }],
            },
        });
        if self == Self::Own {
            pod["spec"]["runtimeClassName"] = Self::OWN_NAME.into();
        }
        pod
    }

    fn selected(self) -> String {
        format!("{}?labelSelector=runtime%3D{}", core("pods"), self.label())
    }
}

/// Creates the pods and waits until all run.
pub async fn create_and_wait(cluster: &Cluster, class: Class, count: usize) -> Result<Duration> {
    let mut connection = cluster.connect().await?;
    let begun = Instant::now();
    let created = async {
        for number in 0..count {
            connection.json(Method::POST, &core("pods"), Some(&class.pod(number))).await?;
        }
        anyhow::Ok(())
    };
    let runs = |pod: &Value| {
        pod["metadata"]["labels"]["runtime"] == class.label()
            && pod["status"]["containerStatuses"][0]["state"]["running"].is_object()
    };
    let path = core("pods");
    let all = cluster.watch_until(&path, |pods| pods.values().filter(|pod| runs(pod)).count() >= count);
    within("wait for the pods to run", async { tokio::try_join!(created, all) }).await?;
    Ok(begun.elapsed())
}

/// Two pods of the own runtime that answer their address on port 8080. Where they are.
pub async fn create_answering(cluster: &Cluster) -> Result<[Ipv4Addr; 2]> {
    let mut connection = cluster.connect().await?;
    let script = "mkdir /tmp/www && echo $IP > /tmp/www/index.html && exec httpd -f -p 8080 -h /tmp/www";
    for number in 0..2 {
        let mut pod = Class::Own.pod(number);
        pod["metadata"] = json!({"name": format!("answer-{number}"), "labels": {"answers": "yes"}});
        // The way is measured, so nobody may be stopped for having answered too much.
        pod["spec"]["containers"][0]["resources"] = json!({});
        let container = &mut pod["spec"]["containers"][0];
        container["command"] = json!(["/bin/sh", "-c", script]);
        container["env"] = json!([{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]);
        container["readinessProbe"] = json!({"tcpSocket": {"port": 8080}, "periodSeconds": 1});
        connection.json(Method::POST, &core("pods"), Some(&pod)).await?;
    }
    let answers = |pod: &&Value| {
        pod["metadata"]["labels"]["answers"] == "yes" && condition(pod, "Ready") == Some("True")
    };
    let path = core("pods");
    let mut ips = Vec::new();
    let all = cluster.watch_until(&path, |pods| {
        let ready = pods.values().filter(answers);
        ips = ready.filter_map(|pod| pod["status"]["podIP"].as_str()?.parse().ok()).collect();
        ips.len() == 2
    });
    within("wait for the pods that answer", all).await?;
    <[Ipv4Addr; 2]>::try_from(ips).ok().context("two addresses")
}

/// Deletes them and waits until nothing of them is left.
pub async fn remove(cluster: &Cluster, class: Class, count: usize) -> Result<()> {
    let mut connection = cluster.connect().await?;
    for number in 0..count {
        let path = format!("{}/{}-{number}", core("pods"), class.label());
        connection.json(Method::DELETE, &path, None).await?;
    }
    let gone = async {
        loop {
            let list = connection.json(Method::GET, &class.selected(), None).await?;
            if list["items"].as_array().is_some_and(Vec::is_empty) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within("wait for the pods to be gone", gone).await
}
