//! What kubelets and a scheduler do, on command.

use super::{World, templates::running, text};
use client::informer::ObjectKey;
use serde_json::{Value, json};

impl World {
    /// Living kubelets start what is bound to them, end what is being deleted, and renew their leases.
    pub fn kubelets(&mut self, dead: &[&str]) {
        self.end_deleted_pods(dead);
        let now = self.server.now.to_string();
        let start: Vec<ObjectKey> = self
            .server
            .of_kind("pods")
            .filter(|(_, pod)| {
                let node = text(pod, "/spec/nodeName");
                !node.is_empty() && !dead.contains(&node.as_str()) && text(pod, "/status/phase") == "Pending"
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in start {
            self.edit("pods", &key, &json!({"status": running(&now)}));
        }
        self.heartbeats(dead);
    }

    /// Living kubelets say that they live.
    pub fn heartbeats(&mut self, dead: &[&str]) {
        let now = self.server.now.to_string();
        let nodes: Vec<ObjectKey> = self
            .server
            .of_kind("nodes")
            .map(|(key, _)| key.clone())
            .filter(|key| !dead.contains(&key.name.as_str()))
            .collect();
        for key in nodes {
            let lease = ObjectKey::new("kube-node-lease", &key.name);
            if self.server.objects.contains_key(&("leases".to_owned(), lease.clone())) {
                let spec = self.lease();
                self.edit("leases", &lease, &spec);
            }
            let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True",
                "lastHeartbeatTime": now, "lastTransitionTime": now}]}});
            self.edit("nodes", &key, &ready);
        }
    }

    /// Living kubelets end what is being deleted.
    pub fn end_deleted_pods(&mut self, dead: &[&str]) {
        let ended: Vec<ObjectKey> = self
            .server
            .of_kind("pods")
            .filter(|(_, pod)| {
                api::object::is_deleting(pod) && !dead.contains(&text(pod, "/spec/nodeName").as_str())
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in ended {
            // Whom a finalizer holds is seen to have ended.
            let pod = &self.server.objects[&("pods".to_owned(), key.clone())];
            if !api::object::finalizers(pod).is_empty()
                && !matches!(text(pod, "/status/phase").as_str(), "Succeeded" | "Failed")
            {
                self.end(&key, "Failed", 137);
            }
            self.server.delete(&("pods".to_owned(), key), None, Some(0));
        }
    }

    /// The pod's container ends.
    pub fn end(&mut self, key: &ObjectKey, phase: &str, code: i32) {
        let now = self.server.now.to_string();
        let terminated = json!({"exitCode": code, "startedAt": now, "finishedAt": now});
        let status = json!({"status": {
            "phase": phase,
            "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": now}],
            "containerStatuses": [{"name": "c", "ready": false, "restartCount": 0, "image": "i", "imageID": "",
                "state": {"terminated": terminated}}],
        }});
        self.edit("pods", key, &status);
    }

    /// Running pods of Jobs end: `succeed` says which way.
    pub fn finish_jobs(&mut self, succeed: impl Fn(&Value) -> bool) {
        let running: Vec<(ObjectKey, bool)> = self
            .server
            .of_kind("pods")
            .filter(|(_, pod)| {
                text(pod, "/status/phase") == "Running"
                    && text(pod, "/metadata/ownerReferences/0/kind") == "Job"
            })
            .map(|(key, pod)| (key.clone(), succeed(pod)))
            .collect();
        for (key, succeeds) in running {
            let (phase, code) = if succeeds { ("Succeeded", 0) } else { ("Failed", 1) };
            self.end(&key, phase, code);
        }
    }

    /// Binds each pending pod to the ready node with the fewest pods.
    pub fn schedule(&mut self) {
        let unbound: Vec<ObjectKey> = self
            .server
            .of_kind("pods")
            .filter(|(_, pod)| text(pod, "/spec/nodeName").is_empty() && !api::object::is_deleting(pod))
            .map(|(key, _)| key.clone())
            .collect();
        for key in unbound {
            let chosen = self.bound_by_affinity(&key).or_else(|| self.emptiest_node());
            if let Some(node) = chosen {
                self.edit("pods", &key, &json!({"spec": {"nodeName": node}}));
            }
        }
    }

    /// The node that a daemon pod is meant for.
    fn bound_by_affinity(&self, key: &ObjectKey) -> Option<String> {
        let required = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution";
        let field = "/nodeSelectorTerms/0/matchFields/0/values/0";
        let pod = &self.server.objects[&("pods".to_owned(), key.clone())];
        Some(text(pod, &format!("{required}{field}"))).filter(|node| !node.is_empty())
    }

    fn emptiest_node(&self) -> Option<String> {
        let usable =
            |node: &Value| node.pointer("/spec/taints").and_then(Value::as_array).is_none_or(Vec::is_empty);
        let nodes = self.server.of_kind("nodes").filter(|(_, node)| usable(node));
        let load = |name: &str| {
            self.server.of_kind("pods").filter(|(_, pod)| text(pod, "/spec/nodeName") == name).count()
        };
        nodes.map(|(key, _)| key.name.clone()).min_by_key(|name| (load(name), name.clone()))
    }
}
